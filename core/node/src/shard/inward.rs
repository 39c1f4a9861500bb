//! What comes from other nodes: it is delivered to the sessions of this shard, in turns with everything else, and answered when
//! it is where it belongs. It is never passed on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use newtmq_base::{Incarnation, Instant, NodeId, ShardId, planted};
use newtmq_cluster::lane::{self, Delivery, Frame, Guid, LanesIn, Mark, Publication, Refusal, What};
use newtmq_mqtt::{OwnedTopicFilter, QoS, TopicFilter, TopicName};
use newtmq_session::{Message, Receivers, Record};
use newtmq_topic::{Fit, Memo};

use super::Shard;
use super::deliver::Origin;
use super::fan::Publishing;
use super::journal::Journal;
use crate::conn::NONE;
use crate::io::Outbox;
use crate::place::Stamp;
use crate::store::StoreState;

/// Most deliveries of one Tick to what came from other nodes.
const INWARD_DELIVERIES: usize = 16_384;
/// Most messages of a lane before it is another one's turn.
const TURN_MESSAGES: usize = 256;

/// A lane: the sending node and its shard.
pub(crate) type Key = (NodeId, ShardId);

/// The receiving ends, and what has come and waits.
#[derive(Debug)]
pub(crate) struct Inward {
    lanes: LanesIn,
    inboxes: BTreeMap<Key, Inbox>,
    /// Those that have something to be worked off; the first one's turn comes next.
    turns: VecDeque<Key>,
    /// Those that have something at the store.
    storing: BTreeSet<Key>,
    scratch: Vec<Delivery>,
}

#[derive(Debug, Default)]
struct Inbox {
    queue: VecDeque<Delivery>,
    /// Its fan-out is not finished; what comes behind it waits [MQTT-4.6.0-6].
    busy: Option<Delivery>,
    /// What was enqueued and is safe with a batch of the journal, rising.
    unstored: VecDeque<Unstored>,
}

#[derive(Debug)]
struct Unstored {
    batch: u64,
    inc: Incarnation,
    seq: u64,
}

impl Inbox {
    fn has_work(&self) -> bool {
        self.busy.is_none() && !self.queue.is_empty()
    }
}

impl Inward {
    pub(super) fn new(config: &lane::Config, shard: ShardId, inc: Incarnation) -> Inward {
        Inward {
            lanes: LanesIn::new(config.clone(), shard, inc),
            inboxes: BTreeMap::new(),
            turns: VecDeque::new(),
            storing: BTreeSet::new(),
            scratch: Vec::new(),
        }
    }

    /// The receiving ends.
    pub(crate) fn lanes(&self) -> &LanesIn {
        &self.lanes
    }

    /// What had come before this start.
    pub(super) fn restore(&mut self, marks: Vec<(NodeId, ShardId, Mark)>, guids: Vec<([u8; 16], Receivers)>) {
        for (node, shard, mark) in marks {
            self.lanes.restore(node, shard, mark);
        }
        for (guid, receivers) in guids {
            let what = match receivers {
                Receivers::Plain => PLAIN,
                Receivers::Group(name) => What::Group { name: name.into(), durable: true },
                Receivers::Released => continue,
            };
            self.lanes.guids().insert(Guid(guid), &what);
        }
    }

    /// All of that as it is, for a log that is to be made shorter.
    pub(super) fn record(&mut self, own: ShardId, journal: &mut Journal) {
        let marks: Vec<_> = self.lanes.view().map(|lane| (lane.node.0, lane.shard.0, lane.mark)).collect();
        for (node, shard, Mark { inc, upto }) in marks {
            journal.record_later(&Record::Mark { own: own.0, node, shard, inc: inc.0, upto });
        }
        for (guid, what) in self.lanes.guids().iter() {
            journal.record_later(&guid_record(own, guid, &what));
        }
    }

    /// Whether something can be worked off.
    pub(crate) fn has_work(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Messages that are not worked off, and those that are not stored.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        let waits = |inbox: &Inbox| inbox.queue.len() + usize::from(inbox.busy.is_some());
        let all = self.inboxes.values();
        all.fold((0, 0), |(waiting, unstored), inbox| (waiting + waits(inbox), unstored + inbox.unstored.len()))
    }

    pub(super) fn connected(&mut self, node: NodeId, inc: Incarnation) {
        self.lanes.connected(node, inc);
    }

    pub(super) fn forget(&mut self, node: NodeId) {
        self.lanes.forget(node);
    }

    pub(super) fn frame(&mut self, now: Instant, node: NodeId, frame: &Frame) {
        self.lanes.frame(now, node, frame, &mut self.scratch);
        for delivery in self.scratch.drain(..) {
            let key = (delivery.node, delivery.shard);
            let inbox = self.inboxes.entry(key).or_default();
            let had_work = inbox.has_work();
            inbox.queue.push_back(delivery);
            if !had_work && inbox.has_work() {
                self.turns.push_back(key);
            }
        }
    }

    /// Whether there is something to say to senders.
    pub(super) fn has_answers(&self) -> bool {
        self.lanes.has_receipts()
    }

    pub(super) fn receipts(&mut self, out: &mut Vec<(NodeId, lane::Receipt)>) {
        self.lanes.receipts(out);
    }

    /// It was enqueued, or nobody was left that it is for. `kept` if it is safe only with this call's batch; then the batch
    /// holds the mark of the lane, so that it is not taken again after a restart.
    fn enqueued(&mut self, delivery: &Delivery, kept: bool, own: ShardId, journal: &mut Journal) {
        let key = (delivery.node, delivery.shard);
        let mark = self.lanes.enqueued(delivery);
        let inbox = self.inboxes.entry(key).or_default();
        let mut batch = inbox.unstored.back().map_or(0, |last| last.batch);
        if let (What::Release(guid), true) = (&delivery.what, journal.is_on()) {
            journal.record_later(&guid_record(own, *guid, &delivery.what));
        }
        if kept {
            let qos2 = delivery.publication.as_ref().filter(|message| message.qos() == QoS::ExactlyOnce);
            if let Some(message) = qos2.filter(|_| !planted!(ForwardGuidNotStored)) {
                journal.record_later(&guid_record(own, message.guid(), &delivery.what));
            }
            let (node, shard) = (delivery.node.0, delivery.shard.0);
            journal.record_later(&Record::Mark { own: own.0, node, shard, inc: mark.inc.0, upto: mark.upto });
            batch = journal.batch_of_call();
        }
        if batch <= journal.stored() {
            self.lanes.stored(delivery.node, delivery.shard, delivery.inc, delivery.seq);
            return;
        }
        self.storing.insert(key);
        match inbox.unstored.back_mut() {
            Some(last) if (last.batch, last.inc) == (batch, delivery.inc) => last.seq = delivery.seq,
            Some(_) | None => inbox.unstored.push_back(Unstored { batch, inc: delivery.inc, seq: delivery.seq }),
        }
    }

    /// Everything up to this batch of the journal is stored.
    pub(super) fn stored(&mut self, upto: u64) {
        let mut done = Vec::new();
        for key in &self.storing {
            let Some(inbox) = self.inboxes.get_mut(key) else { continue };
            while let Some(of) = inbox.unstored.pop_front_if(|of| of.batch <= upto) {
                self.lanes.stored(key.0, key.1, of.inc, of.seq);
            }
            if inbox.unstored.is_empty() {
                done.push(*key);
            }
        }
        self.storing.retain(|key| !done.contains(key));
    }
}

/// That a QoS 2 message has come for somebody.
fn guid_record(own: ShardId, guid: Guid, what: &What) -> Record {
    let receivers = match what {
        What::Plain { .. } => Receivers::Plain,
        What::Group { name, .. } => Receivers::Group(String::from_utf8_lossy(name).into_owned()),
        What::Release(_) => Receivers::Released,
    };
    Record::Guid { own: own.0, guid: guid.0, receivers }
}

/// Whoever has plain subscriptions, of whatever class.
const PLAIN: What = What::Plain { transient: true, durable: true };

impl Shard {
    /// Whether something of other nodes can be worked off.
    pub(crate) fn inward_has_work(&self) -> bool {
        // A shard that has sent its clients away delivers nothing any more. What it does not answer is not lost elsewhere.
        self.peers.as_ref().is_some_and(|peers| peers.inward.has_work()) && !self.stopping
    }

    /// Works off what came from other nodes, in turns.
    pub(crate) fn work_inward(&mut self, now: Instant, out: &mut Outbox) {
        self.spent = 0;
        while self.spent < INWARD_DELIVERIES
            && !self.stopping
            && let Some(peers) = &mut self.peers
            && let Some(key) = peers.inward.turns.pop_front()
        {
            let mut left = TURN_MESSAGES;
            loop {
                let inward = &mut self.peers.as_mut().expect("it was there just before").inward;
                let Some(inbox) = inward.inboxes.get_mut(&key).filter(|inbox| inbox.has_work()) else { break };
                if left == 0 || self.spent >= INWARD_DELIVERIES {
                    inward.turns.push_back(key);
                    break;
                }
                left -= 1;
                self.spent += 1;
                let last = planted!(InwardOutOfOrder, inbox.queue.len() > 1);
                let next = if last { inbox.queue.pop_back() } else { inbox.queue.pop_front() };
                let Some(delivery) = next else { break };
                self.take_in(now, key, delivery, out);
            }
        }
    }

    /// One message of another node, or the word that a QoS 2 message does not come again.
    fn take_in(&mut self, now: Instant, key: Key, mut delivery: Delivery, out: &mut Outbox) {
        let Some(peers) = &mut self.peers else { return };
        if let What::Plain { .. } = delivery.what {
            // Whoever is subscribed gets it, of whatever class: the sender may not know of the last changes.
            delivery.what = PLAIN;
        }
        let is_new = peers.inward.lanes.unseen(&delivery).is_some();
        let Some(message) = delivery.publication.clone().filter(|_| is_new) else {
            if let What::Release(marker) = delivery.what {
                self.on_flushed(now, key, marker, out);
            }
            // What came before may still be on its way to the disk.
            let kept = delivery.publication.is_some() && !self.journal.is_stored();
            return self.answer(&delivery, kept);
        };
        self.ledger.received_from_nodes += 1;
        match &delivery.what {
            What::Plain { .. } => self.take_in_plain(now, key, delivery, &message, out),
            What::Group { name, .. } => {
                let answer = self.give_member_here(now, &delivery, &message, name, out);
                self.answer_or_refuse(&delivery, answer);
            }
            What::Release(_) => self.answer(&delivery, false),
        }
    }

    fn take_in_plain(&mut self, now: Instant, key: Key, delivery: Delivery, message: &Publication, out: &mut Outbox) {
        let mut memo = Memo::default();
        if message.qos() > QoS::AtMostOnce && self.cannot_store(message.topic(), &mut memo) {
            return self.answer_or_refuse(&delivery, Err(Refusal::Full));
        }
        let publishing = self.of_publication(message, delivery.expires);
        if let (Ok(topic), true) = (core::str::from_utf8(publishing.topic), publishing.stamp != Stamp::NONE) {
            self.saw_live(topic, publishing.stamp);
        }
        let before = self.journal.records();
        // A part of it alone would be delivered again after a restart.
        self.journal.whole = message.qos() == QoS::ExactlyOnce;
        let delivered = self.deliver(now, publishing, &mut memo, Origin::Peer(key), None, out);
        self.journal.whole = false;
        if delivered.unfinished {
            if let Some(inbox) = self.peers.as_mut().and_then(|peers| peers.inward.inboxes.get_mut(&key)) {
                inbox.busy = Some(delivery);
            }
            return;
        }
        let kept = self.journal.records() > before;
        self.answer_or_refuse(&delivery, if delivered.matched { Ok(kept) } else { Err(Refusal::NoMember) });
    }

    /// The fan-out of what came is finished.
    pub(crate) fn inward_done(&mut self, key: Key) {
        let Some(inbox) = self.peers.as_mut().and_then(|peers| peers.inward.inboxes.get_mut(&key)) else { return };
        let Some(delivery) = inbox.busy.take() else { return };
        let more = inbox.has_work();
        if more && let Some(peers) = &mut self.peers {
            peers.inward.turns.push_back(key);
        }
        self.answer(&delivery, self.journal.is_on());
    }

    fn answer_or_refuse(&mut self, delivery: &Delivery, answer: Result<bool, Refusal>) {
        match answer {
            Ok(kept) => self.answer(delivery, kept),
            Err(refusal) => {
                self.ledger.refused_to_nodes += 1;
                if let Some(peers) = &mut self.peers {
                    peers.inward.lanes.refused(delivery, refusal);
                }
            }
        }
    }

    fn answer(&mut self, delivery: &Delivery, kept: bool) {
        let Shard { peers, journal, own, .. } = self;
        if let Some(peers) = peers {
            peers.inward.enqueued(delivery, kept, ShardId(*own), journal);
        }
    }

    /// A member of this shard gets a group's message: one that is ready, else one whose queue has room. Says whether it is safe
    /// only with this call's batch.
    fn give_member_here(
        &mut self,
        now: Instant,
        delivery: &Delivery,
        message: &Publication,
        name: &[u8],
        out: &mut Outbox,
    ) -> Result<bool, Refusal> {
        let text = core::str::from_utf8(name).ok().and_then(|text| TopicFilter::new(text).ok());
        let group = text.map(OwnedTopicFilter::from).and_then(|text| self.topics.find_group(&text));
        let pick = group.and_then(|group| self.pick_for(group, message.publisher())).ok_or(Refusal::NoMember)?;
        let key = pick.member.subscriber.0;
        let slot = self.sessions.get(key).ok_or(Refusal::NoMember)?;
        let limits = self.config.zones[usize::from(slot.zone)].session;
        let stored = slot.stored.is_some() && message.qos() > QoS::AtMostOnce;
        let has_room = pick.fit == Fit::Ready || slot.session.queue_len() < limits.max_mqueue_len;
        if !has_room || (stored && self.journal.state() != StoreState::Open) {
            return Err(Refusal::Full);
        }
        let publishing = self.of_publication(message, delivery.expires);
        let before = self.journal.records();
        self.give_member(now, publishing, &pick, &mut Vec::new(), out);
        Ok(self.journal.records() > before)
    }

    /// Whether somebody here gets it whose session is stored, and the store takes nothing.
    fn cannot_store(&mut self, topic: &[u8], memo: &mut Memo) -> bool {
        if self.journal.state() == StoreState::Open {
            return false;
        }
        let topic = TopicName::from_bytes(topic).expect("a publication has a valid Topic Name");
        let matched = self.topics.matches(topic, memo);
        let stored = |key: u32| self.sessions.get(key).is_some_and(|slot| slot.stored.is_some());
        matched.subscriptions.iter().any(|subscription| stored(subscription.subscriber.0))
    }

    /// A message of this node like one that was sent to others.
    pub(super) fn message_of(&mut self, message: &Publication, expires: Instant) -> Message {
        let publishing = Publishing { stretched: false, ..self.of_publication(message, expires) };
        publishing.to_message(&mut self.scratch.block)
    }

    /// The session of a client that has published at another node, and has come here since [MQTT-3.8.3-3].
    fn far_publisher(&self, message: &Publication) -> u32 {
        let client = core::str::from_utf8(message.publisher()).unwrap_or_default();
        if !self.knows_own || client.is_empty() || planted!(NoLocalOfOtherNodes) {
            return NONE;
        }
        let stub = || self.stubs_of(&client.into()).first().copied();
        self.find_session(client).or_else(stub).unwrap_or(NONE)
    }

    fn of_publication<'a>(&mut self, message: &'a Publication, expires: Instant) -> Publishing<'a> {
        Publishing {
            id: self.journal.message_id(),
            topic: message.topic(),
            forwardable: message.properties(),
            payload: message.payload(),
            qos: message.qos(),
            retain: message.retain(),
            expires,
            stretched: true,
            verbatim: None,
            publisher: self.far_publisher(message),
            stamp: Stamp::of_index(message.retained()),
            guid: message.guid(),
        }
    }
}
