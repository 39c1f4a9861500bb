//! What comes late for a session that has come from another node: its stub there hands on in letters what it still got, and the
//! client is let in when all is there that came before the markers (see `flush`).
//!
//! What comes both ways is taken once: by the name that a message has among all nodes.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use newtmq_base::{ConnId, Instant, InvalidField, NodeId, Take, planted};
use newtmq_cluster::directory::Client;
use newtmq_cluster::lane::{Epoch, Guid};
use newtmq_mqtt::{QoS, TopicName};
use newtmq_session::{
    DeliveryRecord, Identifiers, Message, MessageId, Op, Record, Restoring, SnapshotRecord, SubscriptionEntry,
};

use super::claims::{Claimed, Later};
use super::fan::{enqueue, pump};
use super::letter::{self, FLUSH, GIVEN, LETTER, Late, Letter, MORE, RECEIPT};
use super::luggage::take_epoch;
use super::peers::name_parts;
use super::{Shard, ready};
use crate::conn::NONE;
use crate::control::ToControl;
use crate::io::{Outbox, Output};
use crate::ledger::DropReason;

/// So long a session remembers what it got itself.
pub(super) const REMEMBERS_FOR: Duration = Duration::from_secs(40);
/// So long a message may be on its way to one node after it has come at another one.
const RECENT: Duration = Duration::from_secs(2);
/// Of so many at most it is known that they came in that time.
const RECENT_MAX: usize = 256;
/// Of so much; what it gets then may come twice.
const REMEMBERED_MAX: usize = 65_536;
/// The same of a session that stands beside one at a node that is down, for as long as it lives.
const REMEMBERED_BESIDE: usize = 4_096;
/// Of a message that has no name among the nodes.
pub(crate) const NO_GUID: Guid = Guid([0; 16]);

/// What a session knows of the one that it was made of.
#[derive(Debug)]
pub(super) struct Origin {
    /// The grant by which it came, and the node that it came from.
    epoch: Epoch,
    from: Option<NodeId>,
    /// From this place in the order on everything came here.
    pub(super) base: u64,
    pub(super) until: Instant,
    /// What came here, to a place where the session was before, or was handed on. Several stubs may hand on the same.
    seen: Names,
    /// Names of what has come here, by its place in the order, until the client is in.
    places: BTreeMap<u64, Guid>,
    /// The client is let in when a letter has come.
    pub(super) waits: Option<ConnId>,
    /// It is in.
    pub(super) entered: bool,
    /// A letter has come, or nobody waits for one any more.
    pub(super) came: bool,
}

/// Names of messages, of which the oldest are forgotten.
#[derive(Debug)]
struct Names {
    most: usize,
    known: BTreeSet<Guid>,
    in_order: VecDeque<Guid>,
}

impl Names {
    fn new(most: usize) -> Names {
        Names { most, known: BTreeSet::new(), in_order: VecDeque::new() }
    }

    /// Whether it was not known.
    fn add(&mut self, guid: Guid) -> bool {
        if !self.known.insert(guid) {
            return false;
        }
        if self.in_order.len() >= self.most
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.in_order.push_back(guid);
        true
    }
}

impl Origin {
    /// `seen` are names that have come with the session, the oldest first.
    pub(super) fn new((epoch, from): (Epoch, NodeId), base: u64, until: Instant, names: Vec<Guid>) -> Origin {
        let (mut seen, places) = (Names::new(REMEMBERED_MAX), BTreeMap::new());
        for name in names {
            seen.add(name);
        }
        Origin { epoch, from: Some(from), base, until, seen, places, waits: None, entered: false, came: false }
    }

    /// Of a session that has come from a node some time ago, and is told so again.
    fn again((epoch, from): (Epoch, NodeId), until: Instant) -> Origin {
        let origin = Origin::new((epoch, from), 0, until, Vec::new());
        Origin { entered: true, came: true, ..origin }
    }

    /// Of a session that stands beside one at a node that is down: when that is back it hands on what it has, of which some may
    /// have come here, too.
    fn beside(epoch: Epoch) -> Origin {
        let (seen, places) = (Names::new(REMEMBERED_BESIDE), BTreeMap::new());
        Origin {
            epoch,
            from: None,
            base: 0,
            until: Instant::NEVER,
            seen,
            places,
            waits: None,
            entered: true,
            came: true,
        }
    }

    /// Whether it is this node that it came from.
    pub(super) fn is_from(&self, node: NodeId) -> bool {
        self.from == Some(node)
    }

    /// The client is in.
    pub(super) fn enters(&mut self) {
        self.entered = true;
        self.places.clear();
    }
}

impl Claimed {
    /// Names of what the session has got and may get again, the oldest first: a stub elsewhere had it as well, or will.
    pub(super) fn names(&self, now: Instant) -> Vec<Guid> {
        let origin = self.origin.as_ref().filter(|origin| origin.until > now && !planted!(NamesLeft));
        let seen = origin.into_iter().flat_map(|origin| &origin.seen.in_order).copied();
        let recent = self.recent.iter().filter(|(at, _)| *at + RECENT > now && !planted!(RecentNamesLeft));
        seen.chain(recent.map(|(_, name)| *name)).collect()
    }

    /// The same of one more: it may be on its way to the node that the session goes to, for others there.
    fn note_recent(&mut self, now: Instant, guid: Guid) {
        let is_old = |(at, _): &(Instant, Guid)| *at + RECENT <= now;
        while self.recent.len() >= RECENT_MAX || self.recent.front().is_some_and(is_old) {
            self.recent.pop_front();
        }
        self.recent.push_back((now, guid));
    }

    /// A message comes to the session, which is about to get this place in its order. Whether it has come before; a copy of a group
    /// has not: only one member gets it, beside what the session gets by its other subscriptions.
    /// `reunited`: some node is reached again since not long ago.
    pub(super) fn comes(&mut self, now: Instant, (guid, shared): (Guid, bool), dseq: u64, reunited: bool) -> bool {
        if guid == NO_GUID {
            return false;
        }
        let shared = shared && !planted!(GroupCopyTaken);
        if !shared {
            self.note_recent(now, guid);
        }
        if let Some(origin) = self.origin.as_mut().filter(|origin| origin.until > now) {
            if !shared && !origin.seen.add(guid) && !planted!(LateTwice) {
                return true;
            }
            if !origin.entered && origin.places.len() < REMEMBERED_MAX {
                origin.places.insert(dseq, guid);
            }
        }
        self.note_late(guid, dseq, reunited);
        false
    }

    /// A message is not for the session when a node that it was at hands it on: it is its client's own one, or was given out with
    /// QoS 0.
    pub(super) fn keeps_from(&mut self, now: Instant, guid: Guid) {
        if let Some(origin) = self.origin.as_mut().filter(|origin| origin.until > now && guid != NO_GUID)
            && !planted!(HandedOnToItself)
        {
            origin.seen.add(guid);
        }
    }

    /// What the client has elsewhere, too, is told by its name when it is handed on. One that has another session there is not
    /// known for it at once.
    fn note_late(&mut self, guid: Guid, dseq: u64, reunited: bool) {
        if !(self.given.is_some() || self.stub.is_some() || reunited) {
            self.late.clear();
        } else if self.late.len() < REMEMBERED_MAX {
            self.late.insert(dseq, guid);
        }
    }

    /// The same of what another node hands on.
    fn is_handed(&mut self, now: Instant, guid: Guid) -> bool {
        let Some(origin) = self.origin.as_mut().filter(|origin| origin.until > now && guid != NO_GUID) else {
            return false;
        };
        !origin.seen.add(guid) && !planted!(LateTwice)
    }
}

impl Shard {
    /// A session begins beside one at a node that is down.
    pub(super) fn remember_names(&mut self, key: u32, epoch: Epoch) {
        if !planted!(HandedOnTwice) {
            self.claimed(key).origin = Some(Box::new(Origin::beside(epoch)));
        }
    }

    /// Another node's shard has something to say of a client.
    pub(crate) fn on_handover(&mut self, now: Instant, from: NodeId, message: &Bytes, out: &mut Outbox) {
        let mut take = Take(message);
        let mut read = || {
            let client: Client = take.text()?.into();
            Ok::<_, InvalidField>((client, take.byte()?, take_epoch(&mut take)?, take.number()?))
        };
        let Ok((client, kind, epoch, number)) = read() else { return };
        match kind {
            LETTER => self.on_letter(now, from, (client, epoch, number), take, out),
            RECEIPT => self.on_receipt(now, from, (&client, epoch, number), out),
            FLUSH => {
                if let Ok(shard) = take.number() {
                    self.on_flush(now, from, (number, shard), out);
                }
            }
            _ => {}
        }
    }

    /// What was left of a session has come.
    fn on_letter(
        &mut self,
        now: Instant,
        from: NodeId,
        (client, epoch, number): (Client, Epoch, u64),
        mut take: Take<'_>,
        out: &mut Outbox,
    ) {
        let Ok(flags) = take.byte() else { return };
        // One that has gone on hands it on.
        let stub = || self.stubs_of(&client).first().copied();
        let key = self.find_session(&client).or_else(stub);
        let receipt = ToControl::Handover { to: from, message: letter::head(&client, RECEIPT, epoch, number).into() };
        let Some(key) = key else {
            // It has ended.
            return out.push(Output::Control(receipt));
        };
        let claimed = self.claimed(key);
        // After a start it does not know where it has come from, and that the same may come both ways again.
        if flags & GIVEN > 0 && claimed.origin.as_ref().is_none_or(|of| of.until <= now) && !planted!(OriginForgotten) {
            claimed.origin = Some(Box::new(Origin::again((epoch, from), now + REMEMBERS_FOR)));
        }
        let known = claimed.letters.get(&(from, epoch)).copied().unwrap_or(0);
        if letter::follows(known, number) {
            let Ok(letters) = letter::read(&mut take) else { return };
            if claimed.letters.len() >= LETTER_WRITERS_MAX {
                claimed.letters.pop_first();
            }
            claimed.letters.insert((from, epoch), number);
            self.note(key, |session| Record::Letter {
                session,
                node: from.0,
                epoch: super::luggage::parts_of(epoch),
                number,
            });
            // What was for a session before a clean start ended with it.
            if epoch >= self.claimed(key).clean || planted!(LettersOutliveClean) {
                self.take_letter(now, key, (from, epoch), letters, out);
            }
        } else if number > known {
            return;
        }
        self.tell_later(Later::Control(receipt), 0, out);
        // One of an earlier stay says nothing of this one.
        if flags & MORE == 0 && self.claimed(key).origin.as_ref().is_some_and(|origin| origin.epoch == epoch) {
            self.letter_came(now, key, out);
        }
    }

    /// What was left of a session at the node where it was has come, or nobody waits for that any more.
    pub(super) fn letter_came(&mut self, now: Instant, key: u32, out: &mut Outbox) {
        let claimed = self.claimed(key);
        let epoch = claimed.epoch;
        let waits = claimed.origin.as_mut().and_then(|origin| {
            origin.came = true;
            origin.waits.take()
        });
        if let Some(conn) = waits {
            self.enter(now, conn, epoch, out);
        }
        self.give_deferred(now, key, out);
    }

    fn take_letter(&mut self, now: Instant, key: u32, by: (NodeId, Epoch), letters: Vec<Letter>, out: &mut Outbox) {
        let mut late = Vec::new();
        // Of another session of the client comes what was for that one, whatever this one is subscribed to.
        // Where it was before may have started since, and has forgotten by which grant it went.
        let is_same = |origin: &Origin| origin.from == Some(by.0) || origin.epoch == by.1;
        let is_same = self.claimed(key).origin.as_deref().is_some_and(is_same);
        for (guid, mut delivery, left, message) in letters {
            if !delivery.shared && self.claimed(key).is_handed(now, guid) {
                continue;
            }
            // Since it left, its client may have changed its subscriptions here.
            if is_same && !self.fits(key, guid, &message, &mut delivery) && !planted!(HandedOnUnmatched) {
                continue;
            }
            // It may have been in flight there, which comes before all that waits.
            delivery.priority = self.priority_of(key, &message);
            late.extend(self.own_message(now, &message, left).map(|message| (guid, delivery, message)));
        }
        let base = self.claimed(key).origin.as_ref().filter(|origin| !origin.entered).map(|origin| origin.base);
        let next = self.slot(key).session.next_dseq();
        match base {
            Some(base) if base < next && !late.is_empty() && !planted!(LateBehind) => self.insert_late(key, base, late),
            Some(_) | None => self.append_late(now, key, late, out),
        }
    }

    /// Whether a message that is handed on is for the session as it is subscribed now, and with what. With QoS 0 it came by itself, or
    /// is lost; one that was published so has no name.
    fn fits(&mut self, key: u32, guid: Guid, message: &Message, delivery: &mut DeliveryRecord) -> bool {
        let Shard { sessions, config, .. } = self;
        let (Some(slot), Ok(topic)) = (sessions.get_mut(key), TopicName::new(message.topic_str())) else {
            return false;
        };
        if message.qos() == QoS::AtMostOnce {
            return false;
        }
        let subscriptions = slot.session.subscriptions().iter();
        let matching = subscriptions.filter(|(filter, _)| {
            let filter = filter.as_filter();
            filter.share_group().is_some() == delivery.shared && filter.matches(topic)
        });
        let matching: Vec<&SubscriptionEntry> = matching.map(|(_, entry)| entry).collect();
        let Some(granted) = matching.iter().map(|entry| entry.options.qos).max() else {
            // What a member of a group has got is not given to another one any more.
            return delivery.shared;
        };
        let upgrade = config.zones[usize::from(slot.zone)].upgrade_qos;
        let qos = if upgrade { granted } else { granted.min(message.qos()) };
        if guid == NO_GUID && (delivery.retain || planted!(NamelessAsItWas)) {
            // It may be a copy of a retained message, for one of the subscriptions. Others have lost their names by a start.
            delivery.qos = delivery.qos.min(qos);
            return delivery.qos > QoS::AtMostOnce;
        }
        delivery.qos = qos;
        if !delivery.shared {
            let identifiers: Vec<u32> = matching.iter().filter_map(|entry| Some(entry.identifier?.get())).collect();
            delivery.identifiers = Identifiers::from_slice(&identifiers);
            delivery.retain = message.retain() && matching.iter().any(|entry| entry.options.retain_as_published);
        }
        delivery.qos > QoS::AtMostOnce
    }

    /// Behind what there is.
    fn append_late(&mut self, now: Instant, key: u32, late: Vec<Late>, out: &mut Outbox) {
        self.ledger.matched += late.len() as u64;
        let reunited = now < self.claims_of.reunited_until;
        let Shard { sessions, conns, ledger, pool, journal, config, .. } = self;
        let Some(slot) = sessions.get_mut(key) else { return };
        let zone = &config.zones[usize::from(slot.zone)];
        for (guid, delivery, message) in late {
            if let Some(claimed) = &mut slot.claimed {
                claimed.note_late(guid, slot.session.next_dseq(), reunited);
            }
            let DeliveryRecord { qos, retain, shared, identifiers, priority, .. } = delivery;
            let op = Op::Enqueue { message, qos, retain, identifiers, priority, shared };
            let stored = slot.stored.map(|id| (id, zone.durability, &mut *journal));
            if let newtmq_session::Applied::Dropped(dropped) = enqueue(slot, op, &zone.session, stored) {
                ledger.drop(DropReason::QueueFull, u64::from(dropped.full));
            }
        }
        if slot.conn != NONE
            && let Some(Some(c)) = conns.get_mut(slot.conn as usize)
        {
            let conn = slot.conn;
            pump(now, slot, c, ledger, pool, journal, &zone.session);
            if !c.out.is_empty() {
                ready(now, c, conn, out);
            }
        }
    }

    /// Among what has come here since, as far as that is later messages of the same shards before these: so each publisher's keep
    /// their order. Nothing of either was sent yet.
    fn insert_late(&mut self, key: u32, base: u64, late: Vec<Late>) {
        self.ledger.matched += late.len() as u64;
        let (mut snapshot, mut messages) = self.whole_of(key);
        // QoS 0 that waits is not among them.
        let session = &self.slot(key).session;
        let left = session.queue_len() + session.inflight_len() - snapshot.deliveries.len();
        if !planted!(LateForgetsQos0) {
            self.ledger.drop(DropReason::OfflineQos0, left as u64);
        }
        let Some(origin) = &mut self.claimed(key).origin else { return };
        let places = core::mem::take(&mut origin.places);
        let (before, since): (Vec<_>, Vec<_>) = snapshot.deliveries.into_iter().partition(|of| of.dseq < base);
        let mut since: Vec<(Guid, DeliveryRecord)> = since
            .into_iter()
            .map(|delivery| (places.get(&delivery.dseq).copied().unwrap_or(NO_GUID), delivery))
            .collect();
        for (_, delivery) in &mut since {
            let message = usize::try_from(delivery.message.0).ok().and_then(|id| messages.get(id.checked_sub(1)?));
            if let Some(message) = message {
                delivery.priority = self.priority_of(key, message);
            }
        }
        since.sort_by_key(|(_, delivery)| delivery.dseq);
        // What has no name was before all that has come here.
        let mut nameless = since.iter().take_while(|(guid, _)| *guid == NO_GUID).count();
        for (guid, mut delivery, message) in late {
            messages.push(message);
            delivery.message = MessageId(messages.len() as u64);
            (delivery.sent, delivery.released) = (false, false);
            let later = || since.iter().position(|(other, _)| is_later(*other, guid)).unwrap_or(since.len());
            let at = if guid == NO_GUID { nameless } else { later() };
            nameless += usize::from(guid == NO_GUID);
            since.insert(at, (guid, delivery));
        }
        for (place, (_, delivery)) in since.iter_mut().enumerate() {
            delivery.dseq = base + place as u64;
        }
        snapshot.next_dseq = base + since.len() as u64;
        origin_places(self.claimed(key), &since);
        snapshot.deliveries = before.into_iter().chain(since.into_iter().map(|(_, delivery)| delivery)).collect();
        self.rebuild(key, &snapshot, &messages);
        let Shard { sessions, journal, config, .. } = self;
        let Some(slot) = sessions.get_mut(key) else { return };
        if let Some(session) = slot.stored {
            let detached = journal.time();
            journal.record_whole(slot, session, &config.zones[usize::from(slot.zone)], Some(detached));
        }
    }

    /// The session as it would go into a letter, or a log.
    pub(super) fn whole_of(&mut self, key: u32) -> (SnapshotRecord, Vec<Message>) {
        let Shard { sessions, config, .. } = self;
        let slot = sessions.get_mut(key).expect("the caller has found it");
        let (snapshot, messages) = slot.session.whole(&config.zones[usize::from(slot.zone)].name);
        (snapshot, messages.into_iter().cloned().collect())
    }

    /// With which priority a message waits here, whatever it had where it comes from.
    fn priority_of(&self, key: u32, message: &Message) -> u8 {
        let zone = self.sessions.get(key).map_or(0, |slot| usize::from(slot.zone));
        self.config.zones[zone].priority(message.topic())
    }

    /// Makes the session anew of that.
    pub(super) fn rebuild(&mut self, key: u32, snapshot: &SnapshotRecord, messages: &[Message]) {
        let zone = &self.config.zones[usize::from(self.sessions.get(key).map_or(0, |slot| slot.zone))];
        let find = |id: MessageId| messages.get(usize::try_from(id.0).ok()?.checked_sub(1)?).cloned();
        let restoring = Restoring::from_snapshot(snapshot, Arc::from(&*zone.name), 0, &find);
        let Some((restoring, _)) = restoring else { return };
        let restored = restoring.finish(&zone.session);
        self.ledger.drop(DropReason::QueueFull, restored.given_up.len() as u64);
        self.slot(key).session = restored.session;
    }
}

/// Where in the order what has come here is now.
fn origin_places(claimed: &mut Claimed, since: &[(Guid, DeliveryRecord)]) {
    if let Some(origin) = &mut claimed.origin {
        origin.places = since.iter().map(|(guid, delivery)| (delivery.dseq, *guid)).collect();
    }
}

/// Whether a message is of the same shard as another one, and later.
fn is_later(one: Guid, other: Guid) -> bool {
    let (one, other) = (name_parts(one), name_parts(other));
    one.0 == other.0 && one.1 > other.1
}

/// Of so many stubs a session knows what has come.
const LETTER_WRITERS_MAX: usize = 16;
