//! A copy of another node's log, and which of its routes are matched.
//!
//! Only what the owner says changes it. The owner being away *masks* it: durable routes stay matched, the others are not.
//! It opens again when the owner has answered a question that was asked since then, so that nothing that was on its way
//! before opens it. A snapshot replaces the entries part by part, each together with the operations that bring the parts
//! before it to the same version.

mod borrow;

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use newtmq_base::{Incarnation, Instant, NodeId, ShardId, planted};
use newtmq_mqtt::OwnedTopicFilter;

use super::entry::{Class, Op};
use super::hash::DigestKey;
use super::message::{Chunk, Delta, Message};
use super::table::{Cursor, Slot, Table};
use borrow::Borrowing;

/// A change of what a shard matches: afterwards the filter leads to this place of the owner, or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteChange {
    /// The filter; of a shared subscription the whole text with its group.
    pub filter: OwnedTopicFilter,
    /// Of sessions of this class.
    pub class: Class,
    /// The owner's shard.
    pub shard: ShardId,
    /// The members of the share group there; for a filter that is not shared 1. 0 if it is not matched.
    pub members: u32,
}

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// The owner counts as down.
    Masked,
    /// The owner is there, and what it has changed is not here yet.
    Syncing,
    /// All routes are matched.
    Open,
}

/// What has happened to a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReplicaCounts {
    /// Messages of an older incarnation, or that answered no question that is open.
    pub refused: u64,
    /// Deltas that did not follow on what was here.
    pub gaps: u64,
    /// Snapshots begun.
    pub snapshots: u64,
    /// Snapshots because of a digest that was another than the owner's.
    pub repairs: u64,
}

/// What a step gives: changes for the shards, records, messages to the owner.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) routes: Vec<RouteChange>,
    pub(crate) records: Vec<Op>,
    pub(crate) messages: Vec<Message>,
}

#[derive(Debug, Clone, Copy)]
struct Asked {
    attempt: u64,
    at: Instant,
}

/// The copy of one owner's log.
#[derive(Debug)]
pub struct Replica {
    owner: NodeId,
    inc: Incarnation,
    table: Table,
    /// The entries before `cursor` are those of this version, the others those of before.
    version: u64,
    cursor: Cursor,
    /// The newest version that was heard of.
    head: u64,
    masked: bool,
    /// The owner has answered since it was masked or started, and nothing was missing.
    synced: bool,
    /// There was a whole copy once, of whatever incarnation.
    held: bool,
    asked: Option<Asked>,
    attempts: u64,
    /// Transient routes are matched from here...
    low: Cursor,
    /// ...to here.
    high: Cursor,
    borrowing: Borrowing,
    counts: ReplicaCounts,
    retry: Duration,
}

impl Replica {
    /// Nothing yet of an owner. `attempts` is lower than all numbers of questions that this incarnation asks, and higher
    /// than those of earlier ones: an answer to one of those may still be on its way.
    pub(crate) fn new(owner: NodeId, inc: Incarnation, key: DigestKey, retry: Duration, attempts: u64) -> Replica {
        Replica {
            owner,
            inc,
            table: Table::new(key),
            version: 0,
            cursor: Cursor::START,
            head: 0,
            masked: true,
            synced: false,
            held: false,
            asked: None,
            attempts,
            low: Cursor::START,
            high: Cursor::START,
            borrowing: Borrowing::default(),
            counts: ReplicaCounts::default(),
            retry,
        }
    }

    /// Whose log it is.
    #[must_use]
    pub fn owner(&self) -> NodeId {
        self.owner
    }

    /// The owner's incarnation that it is a copy of.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.inc
    }

    /// How far it is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match (self.masked, self.synced && self.is_settled()) {
            (true, _) => Phase::Masked,
            (false, false) => Phase::Syncing,
            (false, true) => Phase::Open,
        }
    }

    /// The version of the whole copy; none while a snapshot is on its way.
    #[must_use]
    pub fn version(&self) -> Option<u64> {
        (self.cursor == Cursor::END).then_some(self.version)
    }

    /// Digest of its entries; the owner's at the same version.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.table.digest()
    }

    /// What has happened to it.
    #[must_use]
    pub fn counts(&self) -> ReplicaCounts {
        self.counts
    }

    /// Filters and records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All entries, matched or not, as the operations that set them.
    pub fn entries(&self) -> impl Iterator<Item = Op> {
        self.table.walk(Cursor::START).map(|(_, op)| op)
    }

    /// Whether routes of the class are matched, as far as the state goes; the transient ones of a large log follow in steps.
    #[must_use]
    pub fn wants(&self, class: Class) -> bool {
        class == Class::Durable || (!self.masked && self.synced)
    }

    /// Whether the transient routes that are matched are those that should be.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let wanted = if self.wants(Class::Transient) { Cursor::END } else { Cursor::START };
        (self.low, self.high) == (Cursor::START, wanted)
    }

    /// Whether there has been a whole copy of its durable entries. Without, nobody can say whom a message should reach.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// The version that shards match by when they have what was given out; none unless it is open.
    pub(crate) fn open_version(&self) -> Option<u64> {
        if self.phase() == Phase::Open { self.version() } else { None }
    }

    /// When there is something to go on with: at once, or when the owner is asked again.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        if !self.is_settled() {
            return Some(Instant::START);
        }
        if self.masked || !self.is_behind() {
            return None;
        }
        Some(self.asked.map_or(Instant::START, |asked| asked.at + self.retry))
    }

    /// The owner counts as down. Says nothing about a later incarnation.
    pub(crate) fn mask(&mut self, inc: Incarnation, work: &mut usize, out: &mut Effects) {
        if inc < self.inc && !planted!(LateDownMasks) {
            self.counts.refused += 1;
            return;
        }
        (self.masked, self.synced, self.asked) = (true, false, None);
        if planted!(DeletedNotMasked) {
            for (_, op) in self.table.walk(Cursor::START) {
                push_route(&op, 0, out);
            }
            (self.low, self.high) = (Cursor::START, Cursor::START);
            return;
        }
        self.settle(work, out);
    }

    /// The owner is there, with this incarnation.
    pub(crate) fn unmask(&mut self, now: Instant, inc: Incarnation, work: &mut usize, out: &mut Effects) {
        if inc < self.inc {
            self.counts.refused += 1;
            return;
        }
        self.begin(inc);
        self.masked = false;
        self.synced |= planted!(OpenBeforeSync, self.cursor == Cursor::END);
        self.synced |= planted!(DeletedNotMasked);
        self.go_on(now, work, out);
    }

    /// A later incarnation begins with nothing. What was durable stays matched until the snapshot replaces it.
    fn begin(&mut self, inc: Incarnation) {
        if inc <= self.inc {
            return;
        }
        self.inc = inc;
        (self.version, self.head, self.cursor) = (0, 0, Cursor::START);
        (self.synced, self.asked) = (false, None);
        if planted!(RoutesOutliveIncarnation) {
            (self.low, self.high) = (Cursor::START, Cursor::START);
        }
    }

    /// Does what is due: bounded steps of matching more or less, then questions to the owner.
    pub(crate) fn go_on(&mut self, now: Instant, work: &mut usize, out: &mut Effects) {
        self.settle(work, out);
        if self.masked || !self.is_behind() || (!self.synced && !self.is_settled()) {
            return;
        }
        if self.asked.is_some_and(|asked| now < asked.at + self.retry) {
            return;
        }
        self.attempts += 1;
        let (inc, attempt, version) = (self.inc, self.attempts, self.version);
        self.asked = Some(Asked { attempt, at: now });
        out.messages.push(if self.cursor == Cursor::END {
            Message::Fetch { inc, attempt, version }
        } else {
            Message::SnapshotRequest { inc, attempt, version, from: self.cursor }
        });
    }

    fn is_behind(&self) -> bool {
        !self.synced || self.cursor != Cursor::END || self.head > self.version
    }

    /// A message of the owner.
    pub(crate) fn receive(&mut self, now: Instant, message: Message, work: &mut usize, out: &mut Effects) {
        let (Message::Have { inc, .. }
        | Message::Delta(Delta { inc, .. })
        | Message::SnapshotChunk(Chunk { inc, .. })
        | Message::Fetch { inc, .. }
        | Message::SnapshotRequest { inc, .. }
        | Message::Repair { inc, .. }
        | Message::Installed { inc, .. }
        | Message::LeaseRequest { inc, .. }
        | Message::Lease { inc, .. }) = message
        else {
            return;
        };
        if self.masked || inc < self.inc {
            self.counts.refused += 1;
            return;
        }
        self.begin(inc);
        match message {
            Message::Have { version, digest, .. } => {
                self.head = self.head.max(version);
                self.compare(now, version, digest, out);
            }
            Message::Delta(delta) => self.on_delta(now, &delta, out),
            Message::SnapshotChunk(chunk) => self.on_chunk(now, chunk, work, out),
            Message::Fetch { .. }
            | Message::SnapshotRequest { .. }
            | Message::Repair { .. }
            | Message::Installed { .. }
            | Message::LeaseRequest { .. }
            | Message::Lease { .. }
            | Message::Table(_) => {}
        }
        self.go_on(now, work, out);
    }

    /// Begins again if the owner has another state at the same version.
    fn compare(&mut self, now: Instant, version: u64, digest: u64, out: &mut Effects) -> bool {
        if self.version() != Some(version) || digest == self.table.digest() {
            return true;
        }
        self.counts.repairs += 1;
        out.messages.push(Message::Repair { inc: self.inc, version, digest: self.table.digest() });
        self.cursor = Cursor::START;
        // Not at once: something that is always wrong must not keep two nodes busy.
        self.asked = Some(Asked { attempt: 0, at: now });
        false
    }

    fn is_answer(&mut self, attempt: u64) -> bool {
        let answer = attempt > 0 && self.asked.is_some_and(|asked| asked.attempt == attempt);
        if answer {
            self.asked = None;
        }
        answer
    }

    fn on_delta(&mut self, now: Instant, delta: &Delta, out: &mut Effects) {
        let answer = self.is_answer(delta.attempt);
        self.head = self.head.max(delta.head);
        if self.cursor != Cursor::END {
            // The parts of a snapshot bring what has changed since.
            return;
        }
        let mut ops = &delta.ops[..];
        if delta.from > self.version + 1 {
            self.counts.gaps += 1;
            if !planted!(DeltaOverGap) {
                return;
            }
            self.version = delta.from - 1;
        }
        let known = usize::try_from(self.version + 1 - delta.from).unwrap_or(usize::MAX);
        ops = ops.get(known..).unwrap_or(&[]);
        for op in ops {
            self.apply(op, out);
        }
        self.version += ops.len() as u64;
        let same = self.version != delta.head || self.compare(now, delta.head, delta.digest, out);
        self.synced |= answer && same && self.version == delta.head;
    }

    fn on_chunk(&mut self, now: Instant, chunk: Chunk, work: &mut usize, out: &mut Effects) {
        let fits = (chunk.from == Cursor::START && chunk.version >= self.version)
            || (chunk.from == self.cursor && chunk.base == self.version);
        let whole = chunk.version == chunk.base.wrapping_add(chunk.ops.len() as u64);
        if !self.is_answer(chunk.attempt) || !fits || !whole || chunk.to < chunk.from {
            self.counts.refused += 1;
            return;
        }
        self.head = self.head.max(chunk.head);
        self.cursor = chunk.from;
        self.counts.snapshots += u64::from(chunk.from == Cursor::START);
        for op in &chunk.ops {
            if self.table.position(op) < self.cursor {
                self.apply(op, out);
            }
        }
        self.version = chunk.version;
        self.cursor = self.replace(&chunk, work, out);
        self.held |= self.cursor == Cursor::END;
        if self.cursor == Cursor::END && self.version == chunk.head {
            self.synced |= self.compare(now, chunk.head, chunk.digest, out);
        }
    }

    /// The part has these entries and no others. Stops early where more than `work` would change; says where.
    fn replace(&mut self, chunk: &Chunk, work: &mut usize, out: &mut Effects) -> Cursor {
        let budget = (*work).max(1);
        let mut to = chunk.to;
        let (mut old, mut last) = (Vec::new(), chunk.from);
        for (position, op) in self.table.walk(chunk.from) {
            if position >= to {
                break;
            }
            if old.len() >= budget && position != last {
                to = position;
                break;
            }
            last = position;
            old.push(op);
        }
        let inside: Vec<&Op> =
            chunk.entries.iter().filter(|op| (chunk.from..to).contains(&self.table.position(op))).collect();
        let kept: BTreeSet<Id<'_>> = inside.iter().map(|op| id(op)).collect();
        if !planted!(SnapshotMerges) {
            for op in old.iter().filter(|op| !kept.contains(&id(op))) {
                self.apply(&removal(op), out);
            }
        }
        for op in inside {
            self.apply(op, out);
        }
        *work = work.saturating_sub(old.len() + chunk.entries.len());
        to
    }

    fn apply(&mut self, op: &Op, out: &mut Effects) {
        match op {
            Op::Route { filter, class, shard, members } => {
                let slot = Slot { class: *class, shard: *shard, count: *members };
                let old = self.table.set_count(filter, slot);
                if old != *members && self.is_matched(self.table.position(op), *class) {
                    push_route(op, *members, out);
                }
            }
            Op::Record { kind, key, value } => {
                if self.table.set_record(*kind, key, value.as_deref()) {
                    out.records.push(op.clone());
                }
            }
        }
    }

    fn is_matched(&self, position: Cursor, class: Class) -> bool {
        class == Class::Durable || (self.low <= position && position < self.high)
    }

    /// Moves the bounds of what is matched to where they should be, at most `work` entries.
    fn settle(&mut self, work: &mut usize, out: &mut Effects) {
        while !self.is_settled() && *work > 0 {
            if self.low == Cursor::START && self.wants(Class::Transient) {
                self.high = self.step(self.high, Cursor::END, true, work, out);
            } else {
                self.low = self.step(self.low, self.high, false, work, out);
                if self.low == self.high {
                    (self.low, self.high) = (Cursor::START, Cursor::START);
                }
            }
        }
    }

    fn step(&self, from: Cursor, to: Cursor, matched: bool, work: &mut usize, out: &mut Effects) -> Cursor {
        let mut last = from;
        for (position, op) in self.table.walk(from) {
            if position >= to {
                return to;
            }
            if *work == 0 && position != last {
                return position;
            }
            last = position;
            *work = work.saturating_sub(1);
            if let Op::Route { class: Class::Transient, members, .. } = op {
                push_route(&op, if matched { members } else { 0 }, out);
            }
        }
        to
    }

    /// Removes at most `work` entries, of an owner that is no member any more; says whether none is left.
    pub(crate) fn drain(&mut self, work: &mut usize, out: &mut Effects) -> bool {
        let some: Vec<Op> = self.table.walk(Cursor::START).take(*work).map(|(_, op)| op).collect();
        *work -= some.len();
        some.iter().for_each(|op| self.apply(&removal(op), out));
        self.table.len() == 0
    }

    /// Durable entries that were stored, of an owner that is not here yet.
    pub(crate) fn restore(&mut self, ops: &[Op], out: &mut Effects) {
        self.held = true;
        for op in ops {
            if op.is_durable() {
                self.apply(op, out);
            }
        }
    }
}

/// What an operation sets.
type Id<'a> = (Option<(&'a OwnedTopicFilter, Class, ShardId)>, Option<(super::entry::RecordKind, &'a [u8])>);

fn id(op: &Op) -> Id<'_> {
    match op {
        Op::Route { filter, class, shard, .. } => (Some((filter, *class, *shard)), None),
        Op::Record { kind, key, .. } => (None, Some((*kind, key))),
    }
}

fn removal(op: &Op) -> Op {
    match op {
        Op::Route { filter, class, shard, .. } => {
            Op::Route { filter: filter.clone(), class: *class, shard: *shard, members: 0 }
        }
        Op::Record { kind, key, .. } => Op::Record { kind: *kind, key: key.clone(), value: None },
    }
}

fn push_route(op: &Op, members: u32, out: &mut Effects) {
    if let Op::Route { filter, class, shard, .. } = op {
        out.routes.push(RouteChange { filter: filter.clone(), class: *class, shard: *shard, members });
    }
}

/// The copies of all owners.
pub(crate) type Replicas = BTreeMap<NodeId, Replica>;
