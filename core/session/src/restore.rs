//! From records back to sessions, and from a session to the one record that stands for all its earlier ones.
//!
//! Which deliveries were handed to a connection is not in the log. After a restart those that may have been, within the
//! window, are sent again with DUP; the others keep their places in the queue. QoS 0 messages are not in the log.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use newtmq_base::{Instant, planted};
use newtmq_mqtt::{ClientId, OwnedTopicFilter, PacketId, QoS};

use crate::flow::{Flow, PACKET_IDS};
use crate::queue::Delivery;
use crate::record::{DeliveryRecord, Record, SessionId, SnapshotRecord, WillRecord};
use crate::session::{Session, SessionLimits, Will};
use crate::subscriptions::{SubscriptionEntry, Subscriptions};
use crate::{AckKind, Message, MessageId};

/// A session that records are applied to. A start has all of them in memory at once, so it has what the session will have,
/// and little more.
#[derive(Debug)]
pub struct Restoring {
    id: SessionId,
    client: ClientId,
    zone: Arc<str>,
    expiry_interval: u32,
    detached: Option<Instant>,
    subscriptions: Subscriptions,
    readings: BTreeSet<OwnedTopicFilter>,
    /// In the order of dseq.
    deliveries: VecDeque<Delivery>,
    /// By dseq, of those of which there is something to say.
    marks: BTreeMap<u64, Mark>,
    next_dseq: u64,
    /// Deliveries before this one may have been sent.
    sent_before: u64,
    /// Sorted.
    qos2_in: Vec<u16>,
    /// Those of them that went to other nodes.
    forwards: Vec<RestoredForward>,
    will: Option<Box<Will>>,
    kept: Option<Vec<u8>>,
    whereabouts: Whereabouts,
    /// Segment of the log that it begins in.
    segment: u64,
}

/// What is unusual about a delivery: without priorities, those that wait have none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Mark {
    priority: u8,
    /// It was certainly sent.
    sent: bool,
    released: bool,
}

/// Room for so few deliveries is not worth giving back.
const ROOM_MIN: usize = 16;

/// A session as it was when the log ended.
#[derive(Debug)]
pub struct Restored {
    /// Its number in the log.
    pub id: SessionId,
    /// The session.
    pub session: Session,
    /// Name of its zone.
    pub zone: Arc<str>,
    /// When its client went; none if it was connected when the log ended.
    pub detached: Option<Instant>,
    /// Subscriptions to which retained messages were on their way.
    pub readings: Vec<OwnedTopicFilter>,
    /// What went to other nodes, by Packet Identifier.
    pub forwards: Vec<RestoredForward>,
    /// Deliveries that the log has and the queue has no room for: they are to be recorded as dropped.
    pub given_up: Vec<u64>,
    /// What it is among the nodes of a cluster.
    pub whereabouts: Whereabouts,
    /// The first segment of the log that it needs.
    pub segment: u64,
}

/// What a session is among the nodes of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Whereabouts {
    /// With which epoch a connection attached to it last; zeros for none.
    pub epoch: [u64; 4],
    /// With which one it began by a clean start; zeros if it did not.
    pub clean: [u64; 4],
    /// It was on its way to another node: deliveries from this place in the order on did not go along.
    pub given: Option<u64>,
    /// It is the session of this node now, and hands on there what is left.
    pub gone: Option<u64>,
    /// Letters that have come, by node and number by which the session came from there.
    pub letters: BTreeMap<(u64, [u64; 4]), u64>,
}

/// A QoS 2 message of the client that went to other nodes and is not released.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoredForward {
    /// Packet Identifier that the client chose.
    pub packet_id: PacketId,
    /// The message's name among all nodes.
    pub guid: [u8; 16],
    /// All of them have it.
    pub confirmed: bool,
}

/// What a record refers to and is not there, because the log was damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// A message's block.
    Message(MessageId),
    /// The delivery of an acknowledgement, or the session's subscription.
    Nothing,
}

impl Restoring {
    /// From [`Record::Create`]; none if the Client Identifier is none. Sessions of a zone share its name.
    #[must_use]
    pub fn create(id: SessionId, client: &str, zone: Arc<str>, segment: u64) -> Option<Restoring> {
        Some(Restoring {
            id,
            client: ClientId::new(client).ok()?,
            zone,
            expiry_interval: 0,
            detached: None,
            subscriptions: Subscriptions::default(),
            readings: BTreeSet::new(),
            deliveries: VecDeque::new(),
            marks: BTreeMap::new(),
            next_dseq: 0,
            sent_before: 0,
            qos2_in: Vec::new(),
            forwards: Vec::new(),
            will: None,
            kept: None,
            whereabouts: Whereabouts::default(),
            segment,
        })
    }

    /// From [`Record::Snapshot`], with what of it is missing; none if the Client Identifier is none. `message` finds blocks.
    #[must_use]
    pub fn from_snapshot(
        snapshot: &SnapshotRecord,
        zone: Arc<str>,
        segment: u64,
        message: &impl Fn(MessageId) -> Option<Message>,
    ) -> Option<(Restoring, Vec<Missing>)> {
        let mut restoring = Restoring::create(snapshot.session, &snapshot.client, zone, segment)?;
        let mut missing = Vec::new();
        restoring.expiry_interval = snapshot.expiry_interval;
        restoring.detached = snapshot.detached;
        for (filter, options, identifier) in &snapshot.subscriptions {
            let entry = SubscriptionEntry { options: *options, identifier: *identifier };
            restoring.subscriptions.insert(filter.clone(), entry);
        }
        restoring.deliveries.reserve_exact(snapshot.deliveries.len());
        for delivery in &snapshot.deliveries {
            missing.extend(restoring.enqueue(delivery, message).err());
        }
        restoring.next_dseq = snapshot.next_dseq.max(restoring.next_dseq);
        restoring.qos2_in = snapshot.qos2_in.iter().map(|packet_id| packet_id.get()).collect();
        restoring.qos2_in.sort_unstable();
        missing.extend(restoring.set_will(snapshot.will.as_ref(), message).err());
        restoring.kept.clone_from(&snapshot.kept);
        Some((restoring, missing))
    }

    /// Its number in the log.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// Client Identifier.
    #[must_use]
    pub fn client(&self) -> &str {
        self.client.as_str()
    }

    /// Name of its zone.
    #[must_use]
    pub fn zone(&self) -> &str {
        &self.zone
    }

    /// Applies a record of this session.
    ///
    /// # Errors
    /// What it refers to is missing; the rest of it is applied.
    pub fn apply(&mut self, record: Record, message: &impl Fn(MessageId) -> Option<Message>) -> Result<(), Missing> {
        match record {
            Record::Claim { expiry_interval, .. } => {
                self.expiry_interval = expiry_interval;
                self.detached = None;
                self.sent_before = self.next_dseq;
            }
            Record::Detach { expiry_interval, at, .. } => {
                self.expiry_interval = expiry_interval;
                self.detached = Some(at);
            }
            Record::Subscribe { filter, options, identifier, .. } => {
                self.readings.remove(&filter);
                self.subscriptions.insert(filter, SubscriptionEntry { options, identifier });
            }
            Record::Unsubscribe { filter, .. } => {
                self.readings.remove(&filter);
                return self.subscriptions.remove(filter.as_str()).map(drop).ok_or(Missing::Nothing);
            }
            Record::Reading { filter, done: true, .. } => drop(self.readings.remove(&filter)),
            Record::Reading { filter, done: false, .. } => drop(self.readings.insert(filter)),
            Record::Enqueue { delivery, .. } => return self.enqueue(&delivery, message),
            Record::Ack { packet_id, kind, .. } => return self.ack(packet_id, kind),
            Record::Drop { dseq, .. } => self.remove(self.position(dseq).map_err(|_| Missing::Nothing)?),
            Record::PubrecOut { packet_id, .. } => {
                let at = self.find(packet_id).ok_or(Missing::Nothing)?;
                self.marks.entry(self.deliveries[at].dseq).or_default().released = true;
            }
            Record::Qos2In { .. } if planted!(Qos2IdsNotRestored) => {}
            Record::Qos2In { packet_id, .. } => {
                if let Err(at) = self.qos2_in.binary_search(&packet_id.get()) {
                    self.qos2_in.insert(at, packet_id.get());
                }
            }
            Record::Qos2Rel { packet_id, .. } => {
                if let Ok(at) = self.qos2_in.binary_search(&packet_id.get()) {
                    self.qos2_in.remove(at);
                }
                self.forwards.retain(|forward| forward.packet_id != packet_id);
            }
            Record::Forwarding { packet_id, guid, .. } => {
                self.forwards.retain(|forward| forward.packet_id != packet_id);
                self.forwards.push(RestoredForward { packet_id, guid, confirmed: planted!(ForwardingNotRestored) });
            }
            Record::Forwarded { packet_id, .. } => {
                let mut forwards = self.forwards.iter_mut();
                let forward = forwards.find(|forward| forward.packet_id == packet_id).ok_or(Missing::Nothing)?;
                forward.confirmed = true;
            }
            Record::Epoch { epoch, clean, .. } => {
                let at = &mut self.whereabouts;
                (at.epoch, at.clean, at.given, at.gone) = (epoch, clean, None, None);
            }
            Record::Given { upto, .. } => self.whereabouts.given = upto,
            Record::Gone { to, .. } => self.whereabouts.gone = Some(to),
            Record::Letter { node, epoch, number, .. } => {
                self.whereabouts.letters.insert((node, epoch), number);
            }
            Record::Will { will, .. } => return self.set_will(will.as_ref(), message),
            Record::Keep { bytes, .. } => self.kept = Some(bytes),
            Record::Create { .. }
            | Record::End { .. }
            | Record::Retain { .. }
            | Record::Time { .. }
            | Record::Mark { .. }
            | Record::Guid { .. }
            | Record::Hint(_)
            | Record::HintDone { .. }
            | Record::Snapshot(_) => unreachable!("these are not changes of a session that is there"),
        }
        Ok(())
    }

    fn enqueue(
        &mut self,
        record: &DeliveryRecord,
        message: &impl Fn(MessageId) -> Option<Message>,
    ) -> Result<(), Missing> {
        self.next_dseq = self.next_dseq.max(record.dseq + 1);
        if record.sent || self.detached.is_none() {
            self.sent_before = self.sent_before.max(record.dseq + 1);
        }
        let delivery = Delivery {
            message: message(record.message).ok_or(Missing::Message(record.message))?,
            identifiers: record.identifiers.clone(),
            dseq: record.dseq,
            packet_id: Some(packet_id_of(record.dseq)),
            qos: record.qos,
            retain: record.retain,
            shared: record.shared,
            again: false,
        };
        match self.position(record.dseq) {
            Ok(at) => self.deliveries[at] = delivery,
            // Nearly always the last one.
            Err(at) => self.deliveries.insert(at, delivery),
        }
        let mark = Mark { priority: record.priority, sent: record.sent, released: record.released };
        if mark == Mark::default() {
            self.marks.remove(&record.dseq);
        } else {
            self.marks.insert(record.dseq, mark);
        }
        Ok(())
    }

    /// Where a delivery is, or where it belongs.
    fn position(&self, dseq: u64) -> Result<usize, usize> {
        match self.deliveries.back() {
            Some(last) if last.dseq >= dseq => self.deliveries.binary_search_by_key(&dseq, |delivery| delivery.dseq),
            _ => Err(self.deliveries.len()),
        }
    }

    /// Where the live delivery is that has a Packet Identifier: there is one at most.
    fn find(&self, packet_id: PacketId) -> Option<usize> {
        let (first, last) = (self.deliveries.front()?.dseq, self.deliveries.back()?.dseq);
        let residue = u64::from(packet_id.get()) - 1;
        let start = first - first % PACKET_IDS + residue;
        let start = if start < first { start + PACKET_IDS } else { start };
        (start..=last).step_by(PACKET_IDS as usize).find_map(|dseq| self.position(dseq).ok())
    }

    fn ack(&mut self, packet_id: PacketId, kind: AckKind) -> Result<(), Missing> {
        let at = self.find(packet_id).ok_or(Missing::Nothing)?;
        debug_assert!(matches!(
            (kind, self.deliveries[at].qos),
            (AckKind::Puback, QoS::AtLeastOnce) | (AckKind::Pubcomp | AckKind::PubrecError, QoS::ExactlyOnce)
        ));
        self.remove(at);
        Ok(())
    }

    fn remove(&mut self, at: usize) {
        if let Some(delivery) = self.deliveries.remove(at) {
            self.marks.remove(&delivery.dseq);
        }
        give_room_back(&mut self.deliveries);
    }

    fn set_will(
        &mut self,
        will: Option<&WillRecord>,
        message: &impl Fn(MessageId) -> Option<Message>,
    ) -> Result<(), Missing> {
        self.will = None;
        let Some(will) = will else { return Ok(()) };
        let block = message(will.message).ok_or(Missing::Message(will.message))?;
        let (message_expiry_interval, delay_interval) = (will.message_expiry_interval, will.delay_interval);
        self.will = Some(Box::new(Will { message: block, message_expiry_interval, delay_interval }));
        Ok(())
    }

    /// Deliveries by priority, the highest first, each in its order: as they were sent.
    fn lanes(&mut self) -> Vec<(u8, VecDeque<Delivery>)> {
        let deliveries = core::mem::take(&mut self.deliveries);
        if self.marks.values().all(|mark| mark.priority == 0) {
            return vec![(0, deliveries)];
        }
        let mut lanes: BTreeMap<u8, VecDeque<Delivery>> = BTreeMap::new();
        for delivery in deliveries {
            let priority = self.marks.get(&delivery.dseq).map_or(0, |mark| mark.priority);
            lanes.entry(priority).or_default().push_back(delivery);
        }
        lanes.into_iter().rev().collect()
    }

    /// The session. What may have been sent is in flight, within the zone's window; what is left waits.
    #[must_use]
    pub fn finish(mut self, limits: &SessionLimits) -> Restored {
        let mut lanes = self.lanes();
        let mark_of = |delivery: &Delivery| self.marks.get(&delivery.dseq).copied().unwrap_or_default();
        // With one priority the oldest were sent first, so that the window tells which. With several, any may be.
        let unsent = lanes.iter().filter(|(_, lane)| lane.iter().any(|delivery| !mark_of(delivery).sent));
        let mut window = if unsent.count() > 1 { usize::MAX } else { limits.max_inflight };
        let mut in_flight = Vec::new();
        for (_, lane) in &mut lanes {
            // Once around: what waits keeps its order, and its place in memory.
            for _ in 0..lane.len() {
                let Some(mut delivery) = lane.pop_front() else { break };
                let Mark { sent, released, .. } = mark_of(&delivery);
                // Acknowledgements may be missing in the log: what is behind the window may have been sent, too.
                delivery.again = (sent || delivery.dseq < self.sent_before) && !planted!(SentFlagLost);
                if released || (delivery.again && window > 0) {
                    window = window.saturating_sub(1);
                    in_flight.push((delivery, released));
                } else {
                    lane.push_back(delivery);
                }
            }
            give_room_back(lane);
        }
        let mut flow = Flow::starting_at(if planted!(DseqStartsOver) { 0 } else { self.next_dseq });
        flow.restore(in_flight, lanes, self.qos2_in.into_iter().filter_map(PacketId::new));
        // The log says what the queue gave up, unless it is damaged there.
        let given_up = flow.trim(limits);
        let flow = (!flow.is_empty()).then(|| Box::new(flow));
        let session =
            Session::restored(self.client, self.subscriptions, flow, self.will, self.kept, self.expiry_interval);
        let readings = self.readings.into_iter().collect();
        let Restoring { id, zone, detached, forwards, whereabouts, segment, .. } = self;
        Restored { id, session, zone, detached, readings, forwards, given_up, whereabouts, segment }
    }
}

/// A queue that was long once needs no room for that.
fn give_room_back(deliveries: &mut VecDeque<Delivery>) {
    if deliveries.capacity() > ROOM_MIN && deliveries.len() < deliveries.capacity() / 4 {
        deliveries.shrink_to(deliveries.capacity() / 2);
    }
}

/// 1 + dseq mod 65,535: what [`crate::Op::Enqueue`] assigns.
pub(crate) fn packet_id_of(dseq: u64) -> PacketId {
    PacketId::new((dseq % PACKET_IDS) as u16 + 1).expect("1..=65,535")
}

impl Session {
    /// The record that stands for everything before it. `detached` is when its client went, if it did.
    #[must_use]
    pub fn snapshot(&self, id: SessionId, zone: &str, detached: Option<Instant>) -> SnapshotRecord {
        let subscription = |(filter, entry): (&newtmq_mqtt::OwnedTopicFilter, &SubscriptionEntry)| {
            (filter.clone(), entry.options, entry.identifier)
        };
        let will = self.will().map(|will| WillRecord {
            message: will.message.id(),
            message_expiry_interval: will.message_expiry_interval,
            delay_interval: will.delay_interval,
        });
        let flow = self.flow();
        SnapshotRecord {
            session: id,
            client: self.client().as_str().into(),
            zone: zone.into(),
            expiry_interval: self.expiry_interval(),
            detached,
            next_dseq: flow.map_or(0, Flow::next_dseq),
            subscriptions: if planted!(SnapshotWithoutSubscriptions) {
                Vec::new()
            } else {
                self.subscriptions().iter().map(subscription).collect()
            },
            deliveries: flow.map(Flow::delivery_records).unwrap_or_default(),
            qos2_in: flow.map(Flow::qos2_ids).unwrap_or_default(),
            will,
            kept: self.kept().map(<[u8]>::to_vec),
        }
    }

    /// The same for another node, with all that waits but QoS 0, and the messages: each delivery names the place of its message
    /// among them, from 1, and so does the will, which is the last.
    #[must_use]
    pub fn whole(&self, zone: &str) -> (SnapshotRecord, Vec<&Message>) {
        let mut snapshot = self.snapshot(SessionId(0), zone, None);
        snapshot.deliveries = self.flow().map(Flow::all_records).unwrap_or_default();
        let mut number = 0;
        let names = snapshot.deliveries.iter_mut().map(|delivery| &mut delivery.message);
        for name in names.chain(snapshot.will.iter_mut().map(|will| &mut will.message)) {
            number += 1;
            *name = MessageId(number);
        }
        let will = self.will().map(|will| &will.message);
        (snapshot, self.flow().into_iter().flat_map(Flow::all_messages).chain(will).collect())
    }

    /// Every message that the snapshot names.
    pub fn messages(&self) -> impl Iterator<Item = &Message> {
        let will = self.will().map(|will| &will.message);
        self.flow().into_iter().flat_map(Flow::messages).chain(will)
    }
}
