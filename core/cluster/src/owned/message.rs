//! What nodes say to each other about their logs.

use std::sync::Arc;

use newtmq_base::{Incarnation, InvalidField, NodeId, Put, Take};

use super::entry::{Op, put_ops, take_ops};
use super::table::Cursor;

/// A message about the log of one node. Those of the owner speak of its own log, the others of the receiver's. Only
/// [`Message::Table`] speaks of a third node's, and changes no table that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// The owner's heartbeat.
    Have {
        /// The owner's incarnation.
        inc: Incarnation,
        /// Version of its log.
        version: u64,
        /// Digest of its state at this version.
        digest: u64,
        /// The version that the receiver has told to have installed.
        acked: u64,
    },
    /// The owner's log has grown; or the answer to a [`Message::Fetch`].
    Delta(Delta),
    /// The sender has the receiver's log up to a version and wants the rest.
    Fetch {
        /// The receiver's incarnation.
        inc: Incarnation,
        /// Comes back in the answer.
        attempt: u64,
        /// The version that the sender has.
        version: u64,
    },
    /// The sender wants the next part of the receiver's state.
    SnapshotRequest {
        /// The receiver's incarnation.
        inc: Incarnation,
        /// Comes back in the answer.
        attempt: u64,
        /// The version of what the sender has.
        version: u64,
        /// Up to where it has it.
        from: Cursor,
    },
    /// A part of the owner's state.
    SnapshotChunk(Chunk),
    /// The sender has the receiver's state with another digest, and begins again.
    Repair {
        /// The receiver's incarnation.
        inc: Incarnation,
        /// The version at which they differ.
        version: u64,
        /// What the sender has.
        digest: u64,
    },
    /// All shards of the sender match by this version of the receiver's log.
    Installed {
        /// The receiver's incarnation.
        inc: Incarnation,
        /// The version.
        version: u64,
        /// No retained message that the sender has acknowledged by then has a higher index. The logs do not look at it.
        retained: u64,
    },
    /// The sender wants to acknowledge publishes, and asks to be waited for.
    LeaseRequest {
        /// The receiver's incarnation.
        inc: Incarnation,
        /// Comes back in the answer.
        number: u64,
    },
    /// The owner waits for the receiver with its SUBACKs.
    Lease {
        /// The owner's incarnation.
        inc: Incarnation,
        /// Of the request.
        number: u64,
        /// The owner's version; SUBACKs up to it did perhaps not wait.
        version: u64,
    },
    /// About the durable entries of a node that is away.
    Table(Table),
}

/// Asks a peer for the durable entries of a node that is away, and answers. Who has none answers nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Table {
    /// The sender has no table of `owner`, and wants the next part of the receiver's.
    Request {
        /// Whose entries.
        owner: NodeId,
        /// Comes back in the answer.
        attempt: u64,
        /// Up to where the sender has them.
        from: Cursor,
    },
    /// A part of the sender's copy. Digest, base and operations are without meaning.
    Part {
        /// Whose entries.
        owner: NodeId,
        /// Incarnation and version are those of the owner's log.
        chunk: Chunk,
    },
}

/// Operations of a log that follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta {
    /// The owner's incarnation.
    pub inc: Incarnation,
    /// Of the request that this answers; 0 if none.
    pub attempt: u64,
    /// Version after the first operation.
    pub from: u64,
    /// One version each.
    pub ops: Arc<[Op]>,
    /// Version of the owner's log.
    pub head: u64,
    /// Digest of its state at `head`.
    pub digest: u64,
}

/// A part of a state at a version, with the operations that bring the parts before it to that version.
///
/// The owner keeps nothing for whom it sends parts to, and its state may change meanwhile: the receiver always has the
/// state of one version, up to a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The owner's incarnation.
    pub inc: Incarnation,
    /// Of the request.
    pub attempt: u64,
    /// The version of what the receiver has; without meaning if `from` is the start.
    pub base: u64,
    /// The operations after `base`, up to `version`.
    pub ops: Vec<Op>,
    /// Version of the entries.
    pub version: u64,
    /// Where the part begins. The start begins anew, whatever was asked for.
    pub from: Cursor,
    /// All entries of the part, in order. A receiver has no others there afterwards.
    pub entries: Vec<Op>,
    /// The position behind it.
    pub to: Cursor,
    /// Version of the owner's log.
    pub head: u64,
    /// Digest of its state at `head`.
    pub digest: u64,
}

impl Message {
    /// Appends the message.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Message::Have { inc, version, digest, acked } => {
                Put(out).byte(HAVE).number(inc.0).number(*version).number(*digest).number(*acked);
            }
            Message::Delta(Delta { inc, attempt, from, ops, head, digest }) => {
                Put(out).byte(DELTA).number(inc.0).number(*attempt).number(*from).number(*head).number(*digest);
                put_ops(ops, out);
            }
            Message::Fetch { inc, attempt, version } => {
                Put(out).byte(FETCH).number(inc.0).number(*attempt).number(*version);
            }
            Message::SnapshotRequest { inc, attempt, version, from } => {
                Put(out).byte(SNAPSHOT_REQUEST).number(inc.0).number(*attempt).number(*version);
                put_cursor(*from, out);
            }
            Message::SnapshotChunk(chunk) => {
                Put(out).byte(SNAPSHOT_CHUNK).number(chunk.inc.0);
                put_chunk(chunk, out);
            }
            Message::Table(Table::Request { owner, attempt, from }) => {
                Put(out).byte(TABLE_REQUEST).number(owner.0).number(*attempt);
                put_cursor(*from, out);
            }
            Message::Table(Table::Part { owner, chunk }) => {
                Put(out).byte(TABLE_PART).number(owner.0).number(chunk.inc.0);
                put_chunk(chunk, out);
            }
            Message::Repair { inc, version, digest } => {
                Put(out).byte(REPAIR).number(inc.0).number(*version).number(*digest);
            }
            Message::Installed { inc, version, retained } => {
                Put(out).byte(INSTALLED).number(inc.0).number(*version).number(*retained);
            }
            Message::LeaseRequest { inc, number } => _ = Put(out).byte(LEASE_REQUEST).number(inc.0).number(*number),
            Message::Lease { inc, number, version } => {
                Put(out).byte(LEASE).number(inc.0).number(*number).number(*version);
            }
        }
    }

    /// Reads a message that fills `bytes`.
    ///
    /// # Errors
    /// It is none. That is the peer's fault.
    pub fn decode(bytes: &[u8]) -> Result<Message, InvalidField> {
        let mut take = Take(bytes);
        // First of all messages comes the incarnation that they are about, or the node.
        let (kind, number) = (take.byte()?, take.number()?);
        let inc = Incarnation(number);
        let message = match kind {
            HAVE => {
                let (version, digest, acked) = (take.number()?, take.number()?, take.number()?);
                Message::Have { inc, version, digest, acked }
            }
            DELTA => {
                let (attempt, from, head, digest) = (take.number()?, take.number()?, take.number()?, take.number()?);
                let ops = take_ops(&mut take)?.into();
                Message::Delta(Delta { inc, attempt, from, ops, head, digest })
            }
            FETCH => Message::Fetch { inc, attempt: take.number()?, version: take.number()? },
            SNAPSHOT_REQUEST => {
                let (attempt, version) = (take.number()?, take.number()?);
                Message::SnapshotRequest { inc, attempt, version, from: take_cursor(&mut take)? }
            }
            SNAPSHOT_CHUNK => Message::SnapshotChunk(take_chunk(inc, &mut take)?),
            REPAIR => Message::Repair { inc, version: take.number()?, digest: take.number()? },
            INSTALLED => Message::Installed { inc, version: take.number()?, retained: take.number()? },
            LEASE_REQUEST => Message::LeaseRequest { inc, number: take.number()? },
            LEASE => Message::Lease { inc, number: take.number()?, version: take.number()? },
            TABLE_REQUEST => {
                let (owner, attempt) = (NodeId(number), take.number()?);
                Message::Table(Table::Request { owner, attempt, from: take_cursor(&mut take)? })
            }
            TABLE_PART => {
                let inc = Incarnation(take.number()?);
                Message::Table(Table::Part { owner: NodeId(number), chunk: take_chunk(inc, &mut take)? })
            }
            _ => return Err(InvalidField("an unknown message")),
        };
        take.end()?;
        Ok(message)
    }
}

fn put_chunk(chunk: &Chunk, out: &mut Vec<u8>) {
    let Chunk { inc: _, attempt, base, ops, version, from, entries, to, head, digest } = chunk;
    Put(out).number(*attempt).number(*base).number(*version).number(*head).number(*digest);
    put_cursor(*from, out);
    put_cursor(*to, out);
    put_ops(ops, out);
    put_ops(entries, out);
}

fn take_chunk(inc: Incarnation, take: &mut Take<'_>) -> Result<Chunk, InvalidField> {
    let (attempt, base, version) = (take.number()?, take.number()?, take.number()?);
    let (head, digest) = (take.number()?, take.number()?);
    let (from, to) = (take_cursor(take)?, take_cursor(take)?);
    let (ops, entries) = (take_ops(take)?, take_ops(take)?);
    Ok(Chunk { inc, attempt, base, ops, version, from, entries, to, head, digest })
}

fn put_cursor(cursor: Cursor, out: &mut Vec<u8>) {
    Put(out).byte(cursor.part).number(cursor.hash);
}

fn take_cursor(take: &mut Take<'_>) -> Result<Cursor, InvalidField> {
    let cursor = Cursor { part: take.byte()?, hash: take.number()? };
    if cursor > Cursor::END { Err(InvalidField("a position behind the end")) } else { Ok(cursor) }
}

const HAVE: u8 = 1;
const DELTA: u8 = 2;
const FETCH: u8 = 3;
const SNAPSHOT_REQUEST: u8 = 4;
const SNAPSHOT_CHUNK: u8 = 5;
const REPAIR: u8 = 6;
const INSTALLED: u8 = 7;
const LEASE_REQUEST: u8 = 8;
const LEASE: u8 = 9;
const TABLE_REQUEST: u8 = 10;
const TABLE_PART: u8 = 11;

#[cfg(test)]
mod tests {
    use super::{Chunk, Delta, Message, Table};
    use crate::owned::entry::{Class, Op, RecordKind};
    use crate::owned::table::Cursor;
    use newtmq_base::{Incarnation, NodeId, ShardId};
    use newtmq_mqtt::TopicFilter;
    use proptest::prelude::*;

    fn op() -> impl Strategy<Value = Op> {
        let filter = prop::sample::select(vec!["a", "a/+/b", "#", "$share/g/a", "$queue/é/#"]);
        let route = (filter, any::<bool>(), any::<u16>(), any::<u32>()).prop_map(|(text, durable, shard, members)| {
            let filter = TopicFilter::new(text).unwrap();
            let members = if filter.share_group().is_some() { members } else { members & 1 };
            let class = if durable { Class::Durable } else { Class::Transient };
            Op::Route { filter: filter.into(), class, shard: ShardId(shard), members }
        });
        let bytes = || prop::collection::vec(any::<u8>(), 0..5).prop_map(Vec::into_boxed_slice);
        let record = (any::<bool>(), bytes(), prop::option::of(bytes())).prop_map(|(home, key, value)| {
            let kind = if home { RecordKind::Home } else { RecordKind::Supersedes };
            Op::Record { kind, key, value }
        });
        prop_oneof![route, record]
    }

    fn cursor() -> impl Strategy<Value = Cursor> {
        prop_oneof![
            Just(Cursor::START),
            Just(Cursor::END),
            (0u8..2, any::<u64>()).prop_map(|(part, hash)| Cursor { part, hash }),
        ]
    }

    fn message() -> impl Strategy<Value = Message> {
        let ops = || prop::collection::vec(op(), 0..6);
        let numbers = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>());
        (0u8..11, numbers, ops(), ops(), cursor(), cursor()).prop_map(|(kind, n, ops, entries, from, to)| {
            let (inc, a, b, c, d) = (Incarnation(n.0), n.1, n.2, n.3, n.4);
            match kind {
                0 => Message::Have { inc, version: a, digest: b, acked: c },
                1 => Message::Delta(Delta { inc, attempt: a, from: b, ops: ops.into(), head: c, digest: d }),
                2 => Message::Fetch { inc, attempt: a, version: b },
                3 => Message::SnapshotRequest { inc, attempt: a, version: b, from },
                4 | 5 => {
                    let (attempt, base, version, head, digest) = (a, b, c, d, a ^ b);
                    let chunk = Chunk { inc, attempt, base, ops, version, from, entries, to, head, digest };
                    let owner = NodeId(c);
                    if kind == 4 { Message::SnapshotChunk(chunk) } else { Message::Table(Table::Part { owner, chunk }) }
                }
                6 => Message::Table(Table::Request { owner: NodeId(a), attempt: b, from }),
                7 => Message::Repair { inc, version: a, digest: b },
                8 => Message::Installed { inc, version: a, retained: b },
                9 => Message::LeaseRequest { inc, number: a },
                _ => Message::Lease { inc, number: a, version: b },
            }
        })
    }

    proptest! {
        #[test]
        fn messages_come_back(message in message(), cut in any::<prop::sample::Index>(), flip in any::<(prop::sample::Index, u8)>()) {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            prop_assert_eq!(Message::decode(&bytes), Ok(message));
            prop_assert!(Message::decode(&bytes[..cut.index(bytes.len())]).is_err());
            let at = flip.0.index(bytes.len());
            bytes[at] ^= flip.1;
            let _ = Message::decode(&bytes);
        }

        #[test]
        fn garbage_is_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = Message::decode(&bytes);
        }
    }
}
