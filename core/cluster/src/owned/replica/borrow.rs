//! A table from somebody else: a node that has started with nothing, while an owner is away, asks another peer for what the
//! owner's durable sessions have subscribed to. It is only to know whom messages have to be kept for: the owner's own answer
//! replaces it, and it never changes a table that is here.

use newtmq_base::{Incarnation, Instant, NodeId};

use super::super::entry::{Class, Op};
use super::super::message::{Chunk, Table as TableMessage};
use super::super::table::Cursor;
use super::{Asked, Effects, Replica};

/// How far a table from somebody else is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Borrowing {
    asked: Option<Asked>,
    /// From whom, and of which version of the owner's log.
    source: Option<(NodeId, Incarnation, u64)>,
    cursor: Option<Cursor>,
}

impl Replica {
    /// Whether others have to be asked for the table.
    pub(crate) fn lacks_table(&self) -> bool {
        self.masked && !self.held
    }

    /// When others are asked again.
    pub(crate) fn borrow_due(&self) -> Option<Instant> {
        let due = self.borrowing.asked.map_or(Instant::START, |asked| asked.at + self.retry);
        self.lacks_table().then_some(due)
    }

    /// The question to ask, to `peers[n % len]`, whoever that is.
    pub(crate) fn borrow(&mut self, now: Instant, peers: &[NodeId], out: &mut Vec<(NodeId, TableMessage)>) {
        if !self.lacks_table() || self.borrowing.asked.is_some_and(|asked| now < asked.at + self.retry) {
            return;
        }
        self.attempts += 1;
        // The next peer each time that there was no answer.
        let Some(peer) = peers.get(self.attempts as usize % peers.len().max(1)) else { return };
        self.borrowing = Borrowing { asked: Some(Asked { attempt: self.attempts, at: now }), ..Borrowing::default() };
        out.push((*peer, TableMessage::Request { owner: self.owner, attempt: self.attempts, from: Cursor::START }));
    }

    /// Answers a peer's question about this owner; nothing if there is no whole table here.
    pub(crate) fn lend(&self, attempt: u64, from: Cursor, bytes: usize) -> Option<TableMessage> {
        if !self.held {
            return None;
        }
        let durable = |op: &Op| matches!(op, Op::Record { .. } | Op::Route { class: Class::Durable, .. });
        let (entries, to) = self.table.part(from, bytes, durable);
        let (inc, version, ops) = (self.inc, self.version, Vec::new());
        let chunk = Chunk { inc, attempt, base: version, ops, version, from, entries, to, head: version, digest: 0 };
        Some(TableMessage::Part { owner: self.owner, chunk })
    }

    /// A part of the table, from a peer; the next question, if there is one.
    pub(crate) fn borrowed(
        &mut self,
        now: Instant,
        from: NodeId,
        mut chunk: Chunk,
        work: &mut usize,
        out: &mut Effects,
    ) -> Option<TableMessage> {
        let fits = self.borrowing.asked.is_some_and(|asked| asked.attempt == chunk.attempt)
            && chunk.from == self.borrowing.cursor.unwrap_or(Cursor::START);
        if !self.lacks_table() || !fits || chunk.to < chunk.from {
            self.counts.refused += 1;
            return None;
        }
        let source = (from, chunk.inc, chunk.version);
        if *self.borrowing.source.get_or_insert(source) != source {
            // It is of another version than the parts before: from the start again, after a while.
            self.borrowing = Borrowing { asked: Some(Asked { attempt: 0, at: now }), ..Borrowing::default() };
            return None;
        }
        chunk.entries.retain(|op| matches!(op, Op::Record { .. } | Op::Route { class: Class::Durable, .. }));
        // What the owner itself has given of it by now is not of one version with this.
        self.cursor = Cursor::START;
        let cursor = self.replace(&chunk, work, out);
        self.borrowing.cursor = Some(cursor);
        if cursor == Cursor::END {
            (self.held, self.borrowing) = (true, Borrowing::default());
            return None;
        }
        self.attempts += 1;
        self.borrowing.asked = Some(Asked { attempt: self.attempts, at: now });
        Some(TableMessage::Request { owner: self.owner, attempt: self.attempts, from: cursor })
    }
}
