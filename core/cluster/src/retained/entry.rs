//! What an entry of the retained group's log says.

use bytes::Bytes;
use newtmq_base::{Incarnation, InvalidField, NodeId, Put, Take};

/// Who asked for a write. A node numbers what it asks for from 1 in each start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) node: NodeId,
    pub(super) inc: Incarnation,
    pub(super) number: u64,
    /// All of its numbers up to this one have an end there: whatever of them is not in the log is not wanted any more.
    pub(super) settled: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) origin: Origin,
    pub(super) topic: Box<str>,
    /// `None` deletes.
    pub(super) message: Option<Bytes>,
    /// It was asked for without a leader, where everything up to this index was known: it counts only if no entry after
    /// that one has changed the topic.
    pub(super) seen: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    Write(Write),
    /// Every member has passed this index: deletions up to it can be forgotten.
    Horizon(u64),
    /// Who belongs to the group, as the meta group had it at this index. It comes with Raft's change.
    Members(u64),
}

/// Why bytes are no entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotAnEntry {
    /// Of a later version.
    Unknown(u8),
    Invalid(InvalidField),
}

impl From<InvalidField> for NotAnEntry {
    fn from(invalid: InvalidField) -> NotAnEntry {
        NotAnEntry::Invalid(invalid)
    }
}

impl Write {
    /// Appends it as an entry.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let has = 1 | u8::from(self.message.is_some()) << 1 | u8::from(self.seen.is_some()) << 2;
        let Origin { node, inc, number, settled } = self.origin;
        // What is settled is written as a difference, which is small.
        Put(out).byte(has).number(node.0).number(inc.0).number(number).number(number.saturating_sub(settled));
        if let Some(seen) = self.seen {
            Put(out).number(seen);
        }
        Put(out).text(&self.topic);
        if let Some(message) = &self.message {
            out.extend_from_slice(message);
        }
    }

    fn take(has: u8, bytes: &Bytes) -> Result<Write, InvalidField> {
        let mut take = Take(&bytes[1..]);
        let (node, inc) = (NodeId(take.number()?), Incarnation(take.number()?));
        let (number, open) = (take.number()?, take.number()?);
        if number == 0 || open == 0 || open > number {
            return Err(InvalidField("a number that is settled"));
        }
        let origin = Origin { node, inc, number, settled: number - open };
        let seen = if has & 4 != 0 { Some(take.number()?) } else { None };
        let topic = take.text()?.into();
        if has & 2 == 0 {
            take.end()?;
        }
        // A part of the entry's own bytes: they are there once.
        let message = (has & 2 != 0).then(|| bytes.slice(bytes.len() - take.0.len()..));
        Ok(Write { origin, topic, message, seen })
    }
}

impl Entry {
    /// Appends it.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Entry::Write(write) => write.encode(out),
            Entry::Horizon(upto) => {
                Put(out).byte(HORIZON).number(*upto);
            }
            Entry::Members(index) => {
                Put(out).byte(MEMBERS).number(*index);
            }
        }
    }

    /// Reads what [`Entry::encode`] wrote.
    pub(super) fn decode(bytes: &Bytes) -> Result<Entry, NotAnEntry> {
        let mut take = Take(bytes);
        let entry = match take.byte()? {
            has @ (1 | 3 | 5 | 7) => return Ok(Entry::Write(Write::take(has, bytes)?)),
            HORIZON => Entry::Horizon(take.number()?),
            MEMBERS => Entry::Members(take.number()?),
            kind => return Err(NotAnEntry::Unknown(kind)),
        };
        take.end()?;
        Ok(entry)
    }
}

const HORIZON: u8 = 8;
const MEMBERS: u8 = 10;
