//! The way of retained messages to new subscriptions (section 3.3.1.3): a cursor that is drained while there is room in
//! the client's output, so it counts to no queue. Topics of other shards come in chunks, asked for one at a time.
//!
//! With several shards a message may be published while its topic is read. What keeps the two apart: a subscription
//! reads when every shard sends it live messages; an owner answers when it has worked off all that was retained before;
//! the reader waits for what the publishers' shards had sent live until then; and compares a retained message with the
//! last one of its topic that it got live. With several shards the own topics are read in the same way.

use core::hash::BuildHasher as _;
use core::ops::ControlFlow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use newtmq_base::{ConnId, HashSeed, Instant, planted};
use newtmq_mqtt::{OwnedTopicFilter, QoS};
use newtmq_session::{Identifiers, Message, Op, Record};
use newtmq_topic::{RetainedCursor, RetainedIndex};

use super::fan::{Publishing, enqueue, pump, write_publish};
use super::journal::Journal;
use super::retain::Retained;
use super::{SessionSlot, Shard, ready};
use crate::conn::{Conn, NONE};
use crate::io::Outbox;
use crate::ledger::{DropReason, Ledger};
use crate::outbuf::{BufferPool, OUTPUT_LOW_BYTES};
use crate::place::{PlaceMessage, Reader, RetainedChunk, RetainedRead, Stamp};
use crate::store::Durability;

/// Most entries that one `fill` looks at, or one chunk.
const POUR_STEP: usize = 2048;
/// Most messages of a chunk, and the bytes after which it ends.
const CHUNK_MESSAGES: usize = 256;
const CHUNK_BYTES: usize = 64 << 10;
/// Most readings of a session that other shards work on at a time; the others wait. One SUBSCRIBE may have very many
/// filters.
const READINGS_MAX: usize = 16;
/// Topics whose last live message a session remembers while it reads. Above it one may come twice.
const LIVE_TOPICS_MAX: usize = 16_384;

/// Retained messages on their way to a session.
#[derive(Debug, Default)]
pub(crate) struct Pourings {
    by_filter: BTreeMap<OwnedTopicFilter, Pouring>,
    /// Those that have something to send.
    ready: BTreeSet<OwnedTopicFilter>,
    /// Those that wait for others to be done, with several shards. Some may have been given up.
    waiting: VecDeque<(OwnedTopicFilter, u64)>,
    /// How many have begun, with several shards.
    running: usize,
    /// By hash of the topic: the last message with RETAIN that the session got live, with several shards.
    live: Live,
    /// The youngest reading.
    latest: u64,
}

/// By hash of the topic: which message came last, and the youngest reading at that time.
type Live = BTreeMap<u64, (Stamp, u64)>;

/// A chunk that waits until what was published before it has come live.
#[derive(Debug)]
pub(crate) struct ParkedChunk {
    owner: u16,
    /// By source: up to which retained message to this owner.
    until: Box<[u64]>,
    chunk: Box<RetainedChunk>,
}

/// Retained messages on their way to one new subscription.
#[derive(Debug)]
pub(crate) struct Pouring {
    /// Tells it from an earlier one of the same filter.
    reading: u64,
    qos: QoS,
    identifier: u32,
    /// By owner: what was retained by publishers of this shard; the session gets later ones live.
    before: Box<[u64]>,
    /// It has been started.
    begun: bool,
    /// In the topics of this shard, if it is the only one; none when they are done.
    own: Option<RetainedCursor>,
    /// From the owners, with several shards.
    chunks: VecDeque<(u16, Box<RetainedChunk>)>,
    /// Owners that have not answered.
    awaited: u16,
}

impl Pourings {
    /// `topic` is its hash: a session that takes nothing for long may remember very many.
    pub(crate) fn note_live(&mut self, topic: u64, stamp: Stamp) {
        if self.live.len() < LIVE_TOPICS_MAX || self.live.contains_key(&topic) {
            self.live.insert(topic, (stamp, self.latest));
        }
    }

    /// What is not sent yet.
    pub(crate) fn filters(&self) -> impl Iterator<Item = &OwnedTopicFilter> {
        self.by_filter.keys()
    }

    fn remove(&mut self, filter: &str) {
        if let Some(pouring) = self.by_filter.remove(filter) {
            self.running -= usize::from(pouring.begun);
        }
        self.ready.remove(filter);
    }
}

impl Pouring {
    /// Whether the session is to get a message that `owner` has, as far as it had worked off what came by then.
    fn wants(&self, live: &Live, own: u16, owner: u16, (topic, stamp): (u64, Stamp), seen: &[u64]) -> bool {
        if let Some(index) = stamp.index() {
            let last = live.get(&topic).filter(|(_, reading)| *reading >= self.reading);
            let is_older = |(last, _): &(Stamp, u64)| last.index().is_none_or(|last| last < index);
            return last.is_none_or(is_older) || planted!(RetainedIgnoresLive);
        }
        if stamp.source() == own && stamp.number() > self.before[usize::from(owner)] {
            return false;
        }
        // What came live before this reading began comes again.
        let last = live.get(&topic).filter(|(_, reading)| *reading >= self.reading);
        let Some((last, _)) = last else { return true };
        if planted!(RetainedIgnoresLive) {
            return true;
        }
        if last.index().is_some() {
            // What the cluster has agreed on is later than what a shard had by itself.
            return false;
        }
        // A live one that the owner did not know of is later; the same one is not sent twice.
        *last != stamp && last.number() <= seen[usize::from(last.source())]
    }

    fn is_done(&self) -> bool {
        self.own.is_none() && self.chunks.is_empty() && self.awaited == 0
    }
}

impl Shard {
    /// Prepares to send the retained messages of a new subscription. From here on the session remembers what it gets
    /// live. Says whether there may be any.
    pub(crate) fn prepare_pour(&mut self, key: u32, filter: &OwnedTopicFilter, qos: QoS, identifier: u32) -> bool {
        // A subscription made again starts again; there is never more than one reading of it.
        self.stop_pouring(key, filter.as_str());
        if self.reads_alone() && self.retained.is_empty() {
            return false;
        }
        let before = self.lanes.iter().map(|lane| lane.retained_sent).collect();
        self.next_reading += 1;
        let reading = self.next_reading;
        let chunks = VecDeque::new();
        let pouring = Pouring { reading, qos, identifier, before, begun: false, own: None, chunks, awaited: 0 };
        let slot = self.slot(key);
        let pourings = slot.pouring.get_or_insert_default();
        pourings.latest = reading;
        pourings.by_filter.insert(filter.clone(), pouring);
        if let Some(session) = slot.stored {
            // With the subscription, which is stored, too: a node that starts goes on with it.
            self.journal.record(&Record::Reading { session, filter: filter.clone(), done: false }, Durability::Memory);
        }
        true
    }

    /// Starts to send them.
    pub(crate) fn pour(&mut self, key: u32, filter: OwnedTopicFilter, out: &mut Outbox) {
        let alone = self.reads_alone();
        let Some(pourings) = &mut self.slot(key).pouring else { return };
        let Some(pouring) = pourings.by_filter.get_mut(&filter) else { return };
        if !alone {
            let reading = pouring.reading;
            pourings.waiting.push_back((filter, reading));
            return self.begin_readings(key, out);
        }
        pouring.own = Some(RetainedCursor::new(filter.clone()));
        pourings.ready.insert(filter);
    }

    /// With several shards: begins readings that wait, while there are not too many.
    pub(crate) fn begin_readings(&mut self, key: u32, out: &mut Outbox) {
        while let Some(slot) = self.sessions.get_mut(key)
            && let Some(pourings) = &mut slot.pouring
            && pourings.running < READINGS_MAX
            && let Some((filter, reading)) = pourings.waiting.pop_front()
        {
            // Given up, or named twice in one SUBSCRIBE.
            let waits = |pouring: &&mut Pouring| pouring.reading == reading && !pouring.begun;
            let Some(pouring) = pourings.by_filter.get_mut(&filter).filter(waits) else { continue };
            let parsed = filter.as_filter();
            let wild = parsed.has_wildcards();
            pouring.awaited = if wild { self.shards } else { 1 };
            pouring.begun = true;
            pourings.running += 1;
            let born = slot.born;
            let owner = self.owner_of(parsed.filter());
            let owners = if wild { 0..self.shards } else { owner..owner + 1 };
            let reader = Reader { session: key, born, reading, filter };
            for owner in owners {
                let cursor = RetainedCursor::new(reader.filter.clone());
                self.read_from(owner, reader.clone(), cursor, out);
            }
        }
    }

    /// Whether this shard alone knows all that it reads.
    pub(super) fn reads_alone(&self) -> bool {
        self.shards() == 1 && !self.agreed.shares
    }

    fn read_from(&mut self, owner: u16, reader: Reader, cursor: RetainedCursor, out: &mut Outbox) {
        let need = self.retained_need[usize::from(owner)].clone();
        self.send_place(
            owner,
            PlaceMessage::Read(Box::new(RetainedRead { reader, cursor, need, index: self.agreed.need })),
            out,
        );
    }

    /// Forgets the retained messages of a subscription that are not sent yet.
    pub(crate) fn stop_pouring(&mut self, key: u32, filter: &str) {
        let slot = self.slot(key);
        if let Some(pourings) = &mut slot.pouring {
            pourings.remove(filter);
            if pourings.by_filter.is_empty() {
                slot.pouring = None;
            }
        }
    }

    /// A subscription, here or at another shard, reads what this shard retains.
    pub(crate) fn on_read(&mut self, now: Instant, from: u16, read: Box<RetainedRead>, out: &mut Outbox) {
        let mut needs = (0..).zip(&read.need);
        if let Some((source, need)) =
            needs.find(|(source, need)| **need > self.lanes[usize::from(*source)].retained_seen)
            && !planted!(RetainedReadTooEarly)
        {
            self.parked_reads.insert((source, *need, self.next_parked), (from, read));
            self.next_parked += 1;
            return;
        }
        if read.index > self.agreed.seen && !self.agreed.alone && !planted!(AgreedReadTooEarly) {
            self.next_parked += 1;
            self.agreed.parked.insert((read.index, self.next_parked), (from, read));
            return;
        }
        let RetainedRead { reader, mut cursor, .. } = *read;
        let (mut budget, mut bytes, mut messages) = (POUR_STEP, 0, VecDeque::new());
        let finished = self.retained.drain(&mut cursor, &mut budget, |entry| {
            if messages.len() >= CHUNK_MESSAGES || bytes >= CHUNK_BYTES {
                return ControlFlow::Break(());
            }
            if !entry.message.is_expired(now) {
                bytes += entry.message.len();
                messages.push_back((entry.message.clone(), entry.stamp));
            }
            ControlFlow::Continue(())
        });
        self.spent += messages.len();
        let seen = self.lanes.iter().map(|lane| lane.retained_seen).collect();
        let chunk = RetainedChunk { reader, cursor: (!finished).then_some(cursor), messages, seen };
        self.send_place(from, PlaceMessage::Chunk(Box::new(chunk)), out);
    }

    /// Something from `source` was retained: readers that waited for it go on, if they do not wait for another source.
    pub(crate) fn answer_parked(&mut self, now: Instant, source: u16, out: &mut Outbox) {
        let seen = self.lanes[usize::from(source)].retained_seen;
        while let Some(entry) = self.parked_reads.range((source, 0, 0)..=(source, seen, u64::MAX)).next() {
            let key = *entry.0;
            let Some((from, read)) = self.parked_reads.remove(&key) else { return };
            self.on_read(now, from, read, out);
        }
    }

    /// Some retained messages from their owner.
    pub(crate) fn on_chunk(&mut self, now: Instant, owner: u16, chunk: Box<RetainedChunk>, out: &mut Outbox) {
        let mut until: Box<[u64]> = vec![0; usize::from(self.shards())].into();
        for (_, stamp) in &chunk.messages {
            if stamp.index().is_some() {
                continue;
            }
            let source = stamp.source();
            // What the owner's own clients published came before this, and own ones are known anyway.
            if source != self.own && source != owner {
                let known = &mut until[usize::from(source)];
                *known = stamp.number().max(*known);
            }
        }
        self.take_or_park(now, ParkedChunk { owner, until, chunk }, out);
    }

    /// Goes on with a chunk if everything in it that comes live has come; else asks the shards that may have sent it.
    fn take_or_park(&mut self, now: Instant, parked: ParkedChunk, out: &mut Outbox) {
        let mut waits = false;
        for (source, until) in (0..).zip(&parked.until) {
            let lane = &mut self.lanes[usize::from(source)];
            if *until > lane.passed[usize::from(parked.owner)] {
                waits = true;
                if !core::mem::replace(&mut lane.probed, true) {
                    self.send_place(source, PlaceMessage::Probe, out);
                }
            }
        }
        if waits {
            self.parked_chunks.push(parked);
        } else {
            self.take_chunk(now, parked.owner, parked.chunk, out);
        }
    }

    /// Another shard asks how far this one is.
    pub(crate) fn on_probe(&mut self, from: u16, out: &mut Outbox) {
        let counts = self.lanes.iter().map(|lane| lane.retained_sent).collect();
        self.send_place(from, PlaceMessage::Sent { counts }, out);
    }

    /// What `from` had sent live until it answered has been delivered.
    pub(crate) fn on_sent(&mut self, now: Instant, from: u16, counts: Box<[u64]>, out: &mut Outbox) {
        let lane = &mut self.lanes[usize::from(from)];
        lane.passed = counts;
        lane.probed = false;
        for parked in core::mem::take(&mut self.parked_chunks) {
            self.take_or_park(now, parked, out);
        }
    }

    fn take_chunk(&mut self, now: Instant, owner: u16, chunk: Box<RetainedChunk>, out: &mut Outbox) {
        let Reader { session, born, reading, ref filter } = chunk.reader;
        let Some(slot) = self.sessions.get_mut(session).filter(|slot| slot.born == born) else { return };
        let Some(pourings) = &mut slot.pouring else { return };
        let Some(pouring) = pourings.by_filter.get_mut(filter).filter(|p| p.reading == reading) else { return };
        pourings.ready.insert(filter.clone());
        pouring.awaited -= 1;
        pouring.chunks.push_back((owner, chunk));
        let conn = slot.conn;
        if let Some(Some(c)) = self.conns.get(conn as usize) {
            let conn = ConnId { slot: conn, generation: c.generation };
            self.pump(now, conn, out);
        }
    }

    /// Lets the session send: first what is in flight and queued, then retained messages.
    pub(crate) fn pump(&mut self, now: Instant, conn: ConnId, out: &mut Outbox) {
        let more = self.refill(now, conn, out);
        let Some(c) = self.conn_mut(conn) else { return };
        if more || !c.out.is_empty() {
            ready(now, c, conn.slot, out);
        }
    }

    /// The same, without telling the driver. Says whether retained messages are left that nothing but the size of a
    /// step keeps back.
    pub(crate) fn refill(&mut self, now: Instant, conn: ConnId, out: &mut Outbox) -> bool {
        let Shard { sessions, conns, ledger, pool, retained, config, own, node_seed, journal, .. } = self;
        let Some(Some(c)) = conns.get_mut(conn.slot as usize) else { return false };
        let Some(slot) = sessions.get_mut(c.session) else { return false };
        pump(now, slot, c, ledger, pool, journal, &config.zones[usize::from(slot.zone)].session);
        if slot.pouring.is_none() {
            return false;
        }
        let zone = &config.zones[usize::from(slot.zone)];
        let (limits, upgrade, own, seed) = (zone.session, zone.upgrade_qos, *own, *node_seed);
        let (mut budget, mut asks) = (POUR_STEP, Vec::new());
        while slot.pouring.is_some() && c.out.len() < OUTPUT_LOW_BYTES && budget > 0 {
            let durability = zone.durability;
            let mut pourer =
                Pourer { now, slot, conn: c, ledger, pool, journal, durability, limits, upgrade, own, seed };
            if !pourer.step(retained, &mut budget, &mut asks) {
                break;
            }
        }
        let key = c.session;
        let more = budget == 0 && slot.pouring.as_ref().is_some_and(|pourings| !pourings.ready.is_empty());
        for (owner, reader, cursor) in asks {
            self.read_from(owner, reader, cursor, out);
        }
        self.begin_readings(key, out);
        more
    }
}

/// The next chunk to ask for.
type Ask = (u16, Reader, RetainedCursor);

/// One session's retained messages going out.
struct Pourer<'a> {
    now: Instant,
    slot: &'a mut SessionSlot,
    conn: &'a mut Conn,
    ledger: &'a mut Ledger,
    pool: &'a mut BufferPool,
    journal: &'a mut Journal,
    durability: Durability,
    limits: newtmq_session::SessionLimits,
    /// The subscription's QoS counts alone, as for live messages.
    upgrade: bool,
    own: u16,
    /// Of the topics that came live.
    seed: HashSeed,
}

impl Pourer<'_> {
    /// Goes on with the first subscription that has something to send. Says whether it is worth going on.
    fn step(&mut self, retained: &RetainedIndex<Retained>, budget: &mut usize, asks: &mut Vec<Ask>) -> bool {
        let Some(mut pourings) = self.slot.pouring.take() else { return false };
        let Some(filter) = pourings.ready.pop_first() else {
            self.slot.pouring = Some(pourings);
            return false;
        };
        let Pourings { by_filter, live, ready, .. } = &mut *pourings;
        let Some(pouring) = by_filter.get_mut(&filter) else { unreachable!("only readings that go on are ready") };
        let blocked = self.pour_own(pouring, retained, budget) || self.pour_chunks(pouring, live, budget, asks);
        if blocked || pouring.own.is_some() || !pouring.chunks.is_empty() {
            ready.insert(filter);
        } else if pouring.is_done() {
            pourings.remove(filter.as_str());
            if let Some(session) = self.slot.stored {
                self.journal.record(&Record::Reading { session, filter, done: true }, Durability::Memory);
            }
        }
        self.slot.pouring = if pourings.by_filter.is_empty() { None } else { Some(pourings) };
        !blocked
    }

    /// From the topics of the only shard. Says whether there was no room.
    fn pour_own(&mut self, pouring: &mut Pouring, retained: &RetainedIndex<Retained>, budget: &mut usize) -> bool {
        let Some(mut cursor) = pouring.own.take() else { return false };
        let mut blocked = false;
        let finished = retained.drain(&mut cursor, budget, |entry| {
            // Published since the subscription was made, it came live.
            let is_own = entry.stamp.index().is_none();
            let live = is_own && entry.stamp.number() > pouring.before[0] && !planted!(RetainedIgnoresLive);
            if live || entry.message.is_expired(self.now) {
                return ControlFlow::Continue(());
            }
            if self.conn.out.len() >= OUTPUT_LOW_BYTES
                || !self.pour_one(&entry.message, pouring.qos, pouring.identifier)
            {
                blocked = true;
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        if !finished {
            pouring.own = Some(cursor);
        }
        blocked
    }

    /// What owners sent. Says whether there was no room.
    fn pour_chunks(&mut self, pouring: &mut Pouring, live: &Live, budget: &mut usize, asks: &mut Vec<Ask>) -> bool {
        while let Some((owner, mut chunk)) = pouring.chunks.pop_front() {
            while let Some((message, stamp)) = chunk.messages.front() {
                if *budget == 0 {
                    pouring.chunks.push_front((owner, chunk));
                    return false;
                }
                let entry = (self.seed.state().hash_one(message.topic()), *stamp);
                let wanted = pouring.wants(live, self.own, owner, entry, &chunk.seen) && !message.is_expired(self.now);
                let full = self.conn.out.len() >= OUTPUT_LOW_BYTES;
                if wanted && (full || !self.pour_one(message, pouring.qos, pouring.identifier)) {
                    pouring.chunks.push_front((owner, chunk));
                    return true;
                }
                *budget -= 1;
                chunk.messages.pop_front();
            }
            if let Some(cursor) = chunk.cursor {
                pouring.awaited += 1;
                asks.push((owner, chunk.reader, cursor));
            }
        }
        false
    }

    /// Sends one. Says whether there was room; QoS 1 and 2 need a place in the client's window.
    fn pour_one(&mut self, message: &Message, qos: QoS, identifier: u32) -> bool {
        let qos = if self.upgrade { qos } else { qos.min(message.qos()) };
        let retain = !planted!(RetainedWithoutFlag);
        if qos == QoS::AtMostOnce {
            let publishing = Publishing::of_message(message, NONE);
            let identifiers = if identifier == 0 { &[] } else { core::slice::from_ref(&identifier) };
            let frame = publishing.qos0(retain, identifiers, self.now);
            if write_publish(self.conn, frame, Some(message), self.pool) {
                self.ledger.retained_sent += 1;
                self.ledger.traffic.sent_message(QoS::AtMostOnce);
            }
            return true;
        }
        if self.slot.session.outstanding() >= usize::from(self.conn.receive_maximum)
            || self.slot.session.queue_len() > 0
        {
            return false;
        }
        let identifiers = if identifier == 0 { Identifiers::None } else { Identifiers::One(identifier) };
        let op = Op::Enqueue { message: message.clone(), qos, retain, identifiers, priority: 0, shared: false };
        // It enters the ledger like any other delivery that is waited for.
        self.ledger.matched += 1;
        self.ledger.retained_sent += 1;
        let stored = self.slot.stored.map(|id| (id, self.durability, &mut *self.journal));
        let applied = enqueue(self.slot, op, &self.limits, stored);
        if let newtmq_session::Applied::Dropped(dropped) = applied {
            self.ledger.drop(DropReason::QueueFull, u64::from(dropped.full));
        }
        pump(self.now, self.slot, self.conn, self.ledger, self.pool, self.journal, &self.limits);
        true
    }
}
