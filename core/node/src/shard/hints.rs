//! Messages of QoS 1 and 2 for stored sessions of nodes that are away (docs/adr/0015). They are on this node's disk before
//! their publishers are told, and go there, in order, when the node takes them.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use newtmq_base::{Instant, NodeId, ShardId, planted};
use newtmq_cluster::lane::{Guid, Post, Publication, Refusal, Target as LaneTarget, Ticket, What};
use newtmq_cluster::owned::Class;
use newtmq_mqtt::QoS;
use newtmq_session::{HintRecord, Record};

use super::Shard;
use super::journal::Journal;
use super::tickets::Tickets;
use crate::place::place_id;
use crate::store::{Durability, StoreState};

/// In the tickets of what comes from here.
const HINT: u64 = 1 << 63;
/// When a shard that could not store something is asked again.
const RETRY: Duration = Duration::from_secs(1);
/// How often it is looked for those that have expired, when there is no room.
const SWEEP: Duration = Duration::from_secs(1);
/// What one costs beside its bytes.
const COST_BYTES: u64 = 128;

/// A shard of another node: the node's slot, and which shard.
pub(super) type At = (u8, ShardId);

/// All that wait.
#[derive(Debug, Default)]
pub(super) struct Hints {
    queues: BTreeMap<At, Queue>,
    /// Where each is.
    places: BTreeMap<u64, At>,
    /// QoS 2 messages by their names, for those that their publishers repeat or release. Of one there may be several: for plain
    /// subscriptions, and for each group.
    guids: BTreeMap<(At, Guid), Vec<u64>>,
    /// QoS 2 messages that have come there, until the batch is stored that says so: if it were lost they would go there again.
    done: VecDeque<(u64, At, Guid)>,
    last: u64,
    /// When refused ones are sent again.
    retry: Option<Instant>,
    /// When it was last looked for those of a node that have expired.
    swept: BTreeMap<u8, Instant>,
}

/// Those for one shard, in order.
#[derive(Debug)]
struct Queue {
    node: NodeId,
    hints: BTreeMap<u64, Hint>,
    bytes: u64,
    /// All before this one have been handed to the lane.
    next: u64,
    /// Markers that go behind them.
    markers: Vec<Guid>,
}

/// One message.
#[derive(Debug)]
pub(super) struct Hint {
    what: What,
    publication: Publication,
    expires: Instant,
    /// The number that it was sent with: it may have come.
    seq: Option<u64>,
    /// The lane has it.
    posted: bool,
    /// Its publisher does not repeat it.
    released: bool,
    /// Its number in the log, and the first segment that it needs.
    number: u64,
    segment: u64,
}

impl Hint {
    pub(super) fn new(what: What, publication: Publication, expires: Instant, seq: Option<u64>) -> Hint {
        let (posted, released) = (false, false);
        Hint { what, publication, expires, seq, posted, released, number: 0, segment: 0 }
    }

    fn cost(&self) -> u64 {
        COST_BYTES + self.publication.body().len() as u64
    }

    fn name(&self) -> Option<Guid> {
        (self.publication.qos() == QoS::ExactlyOnce).then(|| self.publication.guid())
    }

    /// Whether it is for the same subscriptions there.
    fn is_for(&self, what: &What) -> bool {
        match (&self.what, what) {
            (What::Group { name: own, .. }, What::Group { name, .. }) => own == name,
            (What::Group { .. }, _) | (_, What::Group { .. }) => false,
            _ => true,
        }
    }

    fn record(&self, node: NodeId, shard: ShardId) -> Record {
        let group = match &self.what {
            What::Group { name, .. } => Some(String::from_utf8_lossy(name).into_owned()),
            What::Plain { .. } | What::Release(_) => None,
        };
        Record::Hint(Box::new(HintRecord {
            number: self.number,
            node: node.0,
            shard: shard.0,
            group,
            qos: self.publication.qos(),
            retain: self.publication.retain(),
            expires: self.expires,
            body: self.publication.body().to_vec(),
        }))
    }
}

/// When a receiver may forget the name of a QoS 2 message that its publisher has released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Release {
    /// Nothing of it waits here.
    AtOnce,
    /// It has still to come there.
    BehindIt,
    /// It has come, which is stored with this batch.
    WhenStored(u64),
}

/// Whether an answer is of something that has waited here.
pub(super) fn is_hint(ticket: Ticket) -> bool {
    ticket.0 & HINT != 0 && ticket != Tickets::NONE
}

impl Hints {
    /// How many wait for a node, and are not on their way.
    pub(super) fn waiting_for(&self, slot: u8) -> usize {
        self.of(slot).flat_map(|queue| queue.hints.values()).filter(|hint| !hint.posted).count()
    }

    pub(super) fn retry_at(&self) -> Instant {
        self.retry.unwrap_or(Instant::NEVER)
    }

    fn bytes_for(&self, slot: u8) -> u64 {
        self.of(slot).map(|queue| queue.bytes).sum()
    }

    fn of(&self, slot: u8) -> impl Iterator<Item = &Queue> {
        self.queues.range((slot, ShardId(0))..=(slot, ShardId(u16::MAX))).map(|(_, queue)| queue)
    }

    fn add(&mut self, at: At, node: NodeId, hint: Hint) {
        self.last += 1;
        let key = self.last;
        let queue = self.queues.entry(at).or_insert_with(|| Queue {
            node,
            hints: BTreeMap::new(),
            bytes: 0,
            next: key,
            markers: Vec::new(),
        });
        if let Some(name) = hint.name() {
            self.guids.entry((at, name)).or_default().push(key);
        }
        queue.bytes += hint.cost();
        queue.hints.insert(key, hint);
        self.places.insert(key, at);
    }

    fn get(&mut self, key: u64) -> Option<(&mut Queue, At)> {
        let at = *self.places.get(&key)?;
        Some((self.queues.get_mut(&at)?, at))
    }

    fn remove(&mut self, key: u64) -> Option<(At, Hint)> {
        let (queue, at) = self.get(key)?;
        let hint = queue.hints.remove(&key)?;
        queue.bytes -= hint.cost();
        self.places.remove(&key);
        if let Some(name) = hint.name()
            && let Some(keys) = self.guids.get_mut(&(at, name))
        {
            keys.retain(|other| *other != key);
            if keys.is_empty() {
                self.guids.remove(&(at, name));
            }
        }
        if self.queues.get(&at).is_some_and(|queue| queue.hints.is_empty() && queue.markers.is_empty()) {
            self.queues.remove(&at);
        }
        Some((at, hint))
    }

    /// It was sent, and stays. The number that it was sent with says whether it has come.
    pub(super) fn kept(&mut self, ticket: Ticket, seq: Option<u64>) {
        let key = ticket.0 & !HINT;
        let Some((queue, _)) = self.get(key) else { return };
        queue.next = queue.next.min(key);
        if let Some(hint) = queue.hints.get_mut(&key) {
            (hint.posted, hint.seq) = (false, seq);
        }
    }

    /// Everything up to this batch is stored.
    pub(super) fn stored(&mut self, upto: u64) {
        while self.done.pop_front_if(|(batch, ..)| *batch <= upto).is_some() {}
    }

    /// A QoS 2 message is not repeated. When its receiver may be told so.
    pub(super) fn release(&mut self, at: At, guid: Guid) -> Release {
        if let Some(keys) = self.guids.get(&(at, guid))
            && let Some(queue) = self.queues.get_mut(&at)
        {
            for key in keys {
                queue.hints.get_mut(key).into_iter().for_each(|hint| hint.released = true);
            }
            return Release::BehindIt;
        }
        let done = self.done.iter().find(|(_, of, name)| (*of, *name) == (at, guid));
        done.map_or(Release::AtOnce, |(batch, ..)| Release::WhenStored(*batch))
    }

    /// Whether a QoS 2 message waits already for the same subscriptions.
    fn is_known(&self, at: At, hint: &Hint) -> bool {
        let keys = hint.name().and_then(|name| self.guids.get(&(at, name)));
        let Some((keys, queue)) = keys.zip(self.queues.get(&at)) else { return false };
        let is_same = |key: &u64| queue.hints.get(key).is_some_and(|known| known.is_for(&hint.what));
        keys.iter().any(|key| is_same(key) || planted!(HintOfGroupForgotten))
    }

    /// Those for a node that have expired, and are not on their way.
    fn expired(&self, slot: u8, now: Instant) -> Vec<u64> {
        let hints = self.of(slot).flat_map(|queue| &queue.hints);
        hints.filter(|(_, hint)| !hint.posted && hint.expires <= now).map(|(key, _)| *key).collect()
    }

    /// A marker goes behind what waits for that shard; false if nothing does.
    pub(super) fn mark(&mut self, at: At, marker: Guid) -> bool {
        let Some(queue) = self.queues.get_mut(&at) else { return false };
        let waits = queue.hints.range(queue.next..).any(|(_, hint)| !hint.posted);
        if waits {
            queue.markers.push(marker);
        }
        waits
    }

    /// Stores again, some at a time, what is only in segments before this one.
    pub(super) fn renew(&mut self, done: &mut u64, before: u64, left: &mut usize, journal: &mut Journal) {
        let Hints { queues, places, .. } = self;
        for (key, at) in places.range(*done + 1..).take(*left) {
            *left -= 1;
            *done = *key;
            let Some(queue) = queues.get_mut(at) else { continue };
            let Some(hint) = queue.hints.get_mut(key).filter(|hint| hint.segment < before) else { continue };
            journal.record(&hint.record(queue.node, at.1), Durability::Synced);
            hint.segment = journal.segment;
        }
    }
}

impl Shard {
    /// Keeps a message for a node that is away; false if it cannot be. Who is told so waits for the store as for everything
    /// that is promised.
    pub(super) fn keep_hint(&mut self, now: Instant, at: At, mut hint: Hint) -> bool {
        let cost = hint.cost();
        self.make_room_for_hint(now, at.0, cost);
        let Shard { peers, journal, config, ledger, .. } = self;
        let Some(peers) = peers else { return false };
        if peers.hints.is_known(at, &hint) || planted!(HintForgotten) {
            // Its publisher repeats it.
            return true;
        }
        let bytes = peers.hints.bytes_for(at.0);
        let is_stored = journal.is_on() && journal.state() == StoreState::Open && !peers.peer(at.0).forgotten;
        if !is_stored || bytes + cost > config.hints_bytes {
            ledger.not_hinted += 1;
            if !peers.hints.queues.contains_key(&at) {
                // There is nothing that later ones would have to stay behind.
                peers.call(at.0, |peer, outputs| peer.drained(now, at.1, outputs));
            }
            return false;
        }
        ledger.hinted += 1;
        let node = peers.peer(at.0).out.node();
        (hint.number, hint.segment) = (journal.number(), journal.segment);
        journal.record(&hint.record(node, at.1), journal.durability());
        if hint.expires != Instant::NEVER {
            journal.expires();
        }
        peers.hints.add(at, node, hint);
        true
    }

    /// When there is no room for one more, those that have expired go: looked for once a second, for they may be many.
    fn make_room_for_hint(&mut self, now: Instant, slot: u8, cost: u64) {
        let Some(hints) = self.peers.as_mut().map(|peers| &mut peers.hints) else { return };
        let is_full = hints.bytes_for(slot) + cost > self.config.hints_bytes;
        let was_swept = hints.swept.get(&slot).is_some_and(|swept| *swept + SWEEP > now);
        if !is_full || was_swept || planted!(ExpiredHintsStay) {
            return;
        }
        hints.swept.insert(slot, now);
        let expired = hints.expired(slot, now);
        let places: BTreeSet<At> = expired.iter().filter_map(|key| hints.places.get(key)).copied().collect();
        self.ledger.hints_ended += expired.len() as u64;
        expired.into_iter().for_each(|key| self.end_hint(key));
        let Some(peers) = &mut self.peers else { return };
        for (slot, shard) in places.into_iter().filter(|at| !peers.hints.queues.contains_key(at)).collect::<Vec<_>>() {
            peers.call(slot, |peer, outputs| peer.drained(now, shard, outputs));
        }
    }

    /// What waited when the node stopped.
    pub(super) fn restore_hints(&mut self, now: Instant, hints: Vec<(HintRecord, u64)>) {
        let Shard { peers, ledger, journal, .. } = self;
        let Some(peers) = peers else { return };
        for (record, segment) in hints.into_iter().filter(|_| !planted!(HintsNotRestored)) {
            let HintRecord { number, node, shard, group, qos, retain, expires, body } = record;
            let publication = Publication::of_body(body.into(), qos, retain);
            let (Some(slot), Ok(publication)) = (peers.slot_of(NodeId(node)), publication) else {
                ledger.hints_ended += 1;
                journal.record_later(&Record::HintDone { number });
                continue;
            };
            let what = match group {
                Some(name) => What::Group { name: name.into(), durable: true },
                None => What::Plain { transient: false, durable: true },
            };
            let at = (slot, ShardId(shard));
            peers.hints.add(at, NodeId(node), Hint { number, segment, ..Hint::new(what, publication, expires, None) });
            peers.call(slot, |peer, outputs| peer.hinted(now, at.1, outputs));
        }
    }

    /// A shard takes messages: what had come there by itself waits no longer.
    pub(super) fn settle_hints(&mut self, at: At, stored: u64, refused: &[(u64, Refusal)]) {
        let Some(queue) = self.peers.as_mut().and_then(|peers| peers.hints.queues.get_mut(&at)) else { return };
        let (mut came, mut ended) = (Vec::new(), Vec::new());
        for (key, hint) in &mut queue.hints {
            let Some(seq) = hint.seq.take() else { continue };
            match refused.iter().find(|(number, _)| *number == seq) {
                // It could not be stored there, and goes there again.
                Some((_, Refusal::Full)) if !planted!(FullIsNobody) => {}
                Some(_) => ended.push(*key),
                None if seq <= stored => came.push(*key),
                None => {}
            }
        }
        self.ledger.hints_sent += came.len() as u64;
        self.ledger.hints_ended += ended.len() as u64;
        for key in came.into_iter().chain(ended) {
            self.end_hint(key);
        }
    }

    /// Gives a lane what waits for its shard, as long as it takes it.
    pub(super) fn hand_over(&mut self, now: Instant, at: At) {
        let (slot, shard) = at;
        while let Some(peers) = &mut self.peers
            && let Some(queue) = peers.hints.queues.get_mut(&at)
        {
            let mut waiting = queue.hints.range_mut(queue.next..).filter(|(_, hint)| !hint.posted);
            let next = if planted!(HintsReversed) { waiting.next_back() } else { waiting.next() };
            let Some((&key, hint)) = next else {
                queue.next = peers.hints.last + 1;
                break;
            };
            if hint.expires <= now {
                self.ledger.hints_ended += 1;
                self.end_hint(key);
                continue;
            }
            let (publication, expires, what) = (hint.publication.clone(), hint.expires, hint.what.clone());
            let seq = hint.seq;
            hint.posted = true;
            if !planted!(HintsReversed) {
                queue.next = key + 1;
            }
            let post = Post { ticket: Ticket(HINT | key), publication, expires, from_log: true };
            let target = [LaneTarget { shard, what }];
            let sent = peers.call(slot, |peer, outputs| peer.send(now, &post, &target, outputs));
            if sent.answers == 0 {
                // There is no room, or nobody. Either is said when that is over; if it has come before, the lane says so then.
                peers.hints.kept(post.ticket, seq);
                return;
            }
            if planted!(HintDoneWhenSent) {
                self.end_hint(key);
            }
        }
        let Some(peers) = &mut self.peers else { return };
        let markers = peers.hints.queues.get_mut(&at).map(|queue| core::mem::take(&mut queue.markers));
        peers.hints.queues.retain(|of, queue| *of != at || !queue.hints.is_empty());
        for marker in markers.unwrap_or_default() {
            peers.call(slot, |peer, outputs| peer.release(now, marker, &[shard], outputs));
        }
        peers.call(slot, |peer, outputs| peer.drained(now, shard, outputs));
    }

    /// It is where it belongs.
    pub(super) fn hint_came(&mut self, ticket: Ticket) {
        self.ledger.hints_sent += 1;
        self.end_hint(ticket.0 & !HINT);
    }

    /// It was not taken. What could not be stored there is sent again after a while, in front of what comes later.
    pub(super) fn hint_refused(&mut self, now: Instant, ticket: Ticket, refusal: Refusal) {
        if refusal == Refusal::NoMember {
            self.ledger.hints_ended += 1;
            return self.end_hint(ticket.0 & !HINT);
        }
        let Some(peers) = &mut self.peers else { return };
        peers.hints.kept(ticket, None);
        peers.hints.retry = Some(now + RETRY);
        if let Some((slot, shard)) = peers.hints.places.get(&(ticket.0 & !HINT)).copied() {
            peers.call(slot, |peer, outputs| peer.hinted(now, shard, outputs));
        }
    }

    pub(super) fn retry_hints(&mut self, now: Instant) {
        let Some(hints) = self.peers.as_mut().map(|peers| &mut peers.hints) else { return };
        if hints.retry.take_if(|at| *at <= now).is_some() {
            let all: Vec<At> = hints.queues.keys().copied().collect();
            all.into_iter().for_each(|at| self.hand_over(now, at));
        }
    }

    /// A group's message that may have come to its member's node, and has not: from here on it is on its way as any other. Its
    /// ticket.
    pub(super) fn hint_comes_back(&mut self, slot: u8, ticket: Ticket, what: &What) -> Ticket {
        let key = ticket.0 & !HINT;
        let peers = self.peers.as_mut().expect("it has just said something");
        let at = peers.hints.places.get(&key).copied();
        let new = peers.tickets.add(None);
        if let (Some((_, shard)), What::Group { name, .. }) = (at, what)
            && let Some(waiting) = peers.tickets.get(new)
        {
            waiting.tried.push((name.clone(), vec![place_id(slot, shard, Class::Durable)]));
        }
        self.ledger.hints_ended += 1;
        self.end_hint(key);
        new
    }

    /// The node is no member any more.
    pub(super) fn forget_hints(&mut self, slot: u8) {
        let Some(hints) = self.peers.as_ref().map(|peers| &peers.hints) else { return };
        let keys: Vec<u64> = hints.places.iter().filter(|(_, at)| at.0 == slot).map(|(key, _)| *key).collect();
        self.ledger.hints_ended += keys.len() as u64;
        keys.into_iter().for_each(|key| self.end_hint(key));
        if let Some(peers) = &mut self.peers {
            peers.hints.queues.retain(|at, _| at.0 != slot);
        }
    }

    /// It waits no longer.
    fn end_hint(&mut self, key: u64) {
        let Shard { peers, journal, .. } = self;
        let Some(peers) = peers else { return };
        let Some((at, hint)) = peers.hints.remove(key) else { return };
        let done = Record::HintDone { number: hint.number };
        let Some(name) = hint.name() else { return journal.record_later(&done) };
        // The receiver may forget the name when nobody can send it again: not this node after a restart, either.
        journal.record(&done, journal.durability());
        let batch = journal.batch_of_call();
        if peers.hints.guids.contains_key(&(at, name)) {
            // Another one of it waits for other subscriptions there.
        } else if hint.released {
            peers.markers.push_back((batch, at.0, at.1, name));
        } else {
            peers.hints.done.push_back((batch, at, name));
        }
    }
}
