//! A node's own log. Nobody else writes to it, and it lives as long as the process: a later one begins at version 0.

use std::collections::VecDeque;

use newtmq_base::{Incarnation, ShardId, planted};
use newtmq_mqtt::OwnedTopicFilter;

use super::entry::{Class, Op, RecordKind, cost, is_shared};
use super::hash::DigestKey;
use super::message::{Chunk, Delta, Message};
use super::table::{Cursor, Slot, Table, published};

/// A shard has more or fewer subscriptions of a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The filter; of a shared subscription the whole text with its group.
    pub filter: OwnedTopicFilter,
    /// Of sessions of this class.
    pub class: Class,
    /// How many.
    pub count: Count,
}

/// How a number of subscriptions changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// One more.
    Plus,
    /// One less.
    Minus,
    /// So many.
    Is(u32),
}

/// How much a message may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) ring: usize,
    pub(crate) ops: usize,
    pub(crate) bytes: usize,
}

/// The log that its owner writes: the state, and the newest operations.
#[derive(Debug)]
pub struct OwnedLog {
    inc: Incarnation,
    limits: Limits,
    table: Table,
    version: u64,
    /// The newest operations, up to `version`.
    ring: VecDeque<Op>,
}

impl OwnedLog {
    pub(crate) fn new(inc: Incarnation, key: DigestKey, limits: Limits) -> OwnedLog {
        OwnedLog { inc, limits, table: Table::new(key), version: 0, ring: VecDeque::new() }
    }

    /// Counts the operations of this incarnation.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Digest of the state at this version.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.table.digest()
    }

    /// The owner's incarnation.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.inc
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

    /// All entries, as the operations that set them.
    pub fn entries(&self) -> impl Iterator<Item = Op> {
        self.table.walk(Cursor::START).map(|(_, op)| op)
    }

    /// Notes a change of a shard; the operation if others have to know.
    ///
    /// # Panics
    /// If a shard takes back what it has not.
    pub(crate) fn change(&mut self, shard: ShardId, change: &Change) -> Option<Op> {
        let Change { filter, class, count } = change;
        let old = self.table.count(filter, *class, shard);
        let new = match count {
            Count::Plus if planted!(RefcountOffByOne, old == 1) => 1,
            Count::Plus => old + 1,
            Count::Minus if planted!(RefcountOffByOne, old == 0) => 0,
            Count::Minus => old.checked_sub(1).expect("a shard takes back what it has told"),
            Count::Is(count) => *count,
        };
        self.set(filter, *class, shard, new, old)
    }

    fn set(&mut self, filter: &OwnedTopicFilter, class: Class, shard: ShardId, new: u32, old: u32) -> Option<Op> {
        if new == old {
            return None;
        }
        self.table.set_count(filter, Slot { class, shard, count: new });
        let shared = is_shared(filter);
        let members = published(shared, new);
        if members == published(shared, old) {
            return None;
        }
        Some(self.append(Op::Route { filter: filter.clone(), class, shard, members }))
    }

    /// Sets or removes a record; the operation if that changed anything.
    pub(crate) fn record(&mut self, kind: RecordKind, key: &[u8], value: Option<&[u8]>) -> Option<Op> {
        if !self.table.set_record(kind, key, value) {
            return None;
        }
        Some(self.append(Op::Record { kind, key: key.into(), value: value.map(Into::into) }))
    }

    fn append(&mut self, op: Op) -> Op {
        self.version += 1;
        self.ring.push_back(op.clone());
        if self.ring.len() > self.limits.ring {
            self.ring.pop_front();
        }
        op
    }

    /// The operations behind a version, as many as one message may hold; none if the ring has lost the first of them.
    fn ops_after(&self, version: u64) -> Option<Vec<Op>> {
        let missing = usize::try_from(self.version.checked_sub(version)?).ok()?;
        let start = self.ring.len().checked_sub(missing)?;
        Some(self.ring.range(start..).take(self.fitting(self.ring.range(start..))).cloned().collect())
    }

    /// How many of the operations go into one message. One that is larger goes alone.
    fn fitting<'a>(&self, ops: impl Iterator<Item = &'a Op>) -> usize {
        let mut bytes = 0;
        let fits = |op: &&Op| {
            bytes += cost(op);
            bytes <= self.limits.bytes
        };
        ops.take(self.limits.ops).take_while(fits).count().max(1)
    }

    /// Operations that were just made, for everyone.
    pub(crate) fn deltas(&self, mut from: u64, mut ops: &[Op], mut send: impl FnMut(Message)) {
        let (inc, head, digest) = (self.inc, self.version, self.table.digest());
        while !ops.is_empty() {
            let (some, others) = ops.split_at(self.fitting(ops.iter()).min(ops.len()));
            send(Message::Delta(Delta { inc, attempt: 0, from, ops: some.into(), head, digest }));
            from += some.len() as u64;
            ops = others;
        }
    }

    /// Answers [`Message::Fetch`]; says whether the peer has everything by it.
    pub(crate) fn fetched(&self, attempt: u64, version: u64) -> (Message, bool) {
        let Some(ops) = self.ops_after(version) else { return self.chunk(attempt, 0, Cursor::START) };
        let whole = version + ops.len() as u64 == self.version;
        let (inc, head, digest) = (self.inc, self.version, self.table.digest());
        (Message::Delta(Delta { inc, attempt, from: version + 1, ops: ops.into(), head, digest }), whole)
    }

    /// Answers [`Message::SnapshotRequest`]; says whether the peer has everything by it.
    pub(crate) fn chunk(&self, attempt: u64, version: u64, from: Cursor) -> (Message, bool) {
        let mut chunk = Chunk {
            inc: self.inc,
            attempt,
            base: version,
            ops: Vec::new(),
            version: self.version,
            from,
            entries: Vec::new(),
            to: from,
            head: self.version,
            digest: self.table.digest(),
        };
        match self.ops_after(version) {
            Some(ops) if from > Cursor::START => chunk.ops = ops,
            Some(_) | None => (chunk.from, chunk.base) = (Cursor::START, self.version),
        }
        chunk.version = chunk.base + chunk.ops.len() as u64;
        if chunk.version == self.version {
            (chunk.entries, chunk.to) = self.table.part(chunk.from, self.limits.bytes, |_| true);
        }
        let whole = chunk.version == self.version && chunk.to == Cursor::END;
        (Message::SnapshotChunk(chunk), whole)
    }

    /// The heartbeat for a peer that has installed a version.
    pub(crate) fn have(&self, acked: u64) -> Message {
        Message::Have { inc: self.inc, version: self.version, digest: self.table.digest(), acked }
    }
}
