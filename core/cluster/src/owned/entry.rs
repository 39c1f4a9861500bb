//! What a log holds: routes and records, and the operations that change them.

use newtmq_base::{InvalidField, Put, ShardId, Take};
use newtmq_mqtt::{OwnedTopicFilter, TopicFilter};

/// What becomes of a message when the node that a route leads to cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Sessions that end with their node (T0): it is not matched.
    Transient,
    /// Sessions that outlive a restart of their node: it is matched all the time, and kept for the node.
    Durable,
}

/// Kinds of records. Their values are opaque here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKind {
    /// The session of a client lives at the owner; the key is the Client Identifier.
    Home,
    /// The owner's session of a client replaces one at another node; the key is the Client Identifier.
    Supersedes,
}

/// One change of a log. It sets a value, so that doing it twice changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// A shard of the owner has so many subscriptions.
    Route {
        /// The filter; of a shared subscription the whole text with its group.
        filter: OwnedTopicFilter,
        /// Of sessions of this class.
        class: Class,
        /// The shard.
        shard: ShardId,
        /// The members of the share group there; for a filter that is not shared 1. 0 if there are none.
        members: u32,
    },
    /// A record has a value, or none.
    Record {
        /// Which kind.
        kind: RecordKind,
        /// Whose.
        key: Box<[u8]>,
        /// None removes it.
        value: Option<Box<[u8]>>,
    },
}

impl Op {
    /// Appends operations, in order.
    pub fn write(ops: &[Op], out: &mut Vec<u8>) {
        put_ops(ops, out);
    }

    /// Takes what [`Op::write`] wrote.
    ///
    /// # Errors
    /// It is not there.
    pub fn read(take: &mut Take<'_>) -> Result<Vec<Op>, InvalidField> {
        take_ops(take)
    }

    /// Whether it outlives a restart of its node.
    #[must_use]
    pub fn is_durable(&self) -> bool {
        matches!(self, Op::Record { .. } | Op::Route { class: Class::Durable, .. })
    }
}

const SAME_FILTER: u8 = 4;
const RECORD: u8 = 8;

/// Appends operations. A route of the same filter as the one before does not repeat it.
pub(crate) fn put_ops(ops: &[Op], out: &mut Vec<u8>) {
    let mut put = Put(out);
    put.number(ops.len() as u64);
    let mut last: Option<&OwnedTopicFilter> = None;
    for op in ops {
        match op {
            Op::Route { filter, class, shard, members } => {
                let same = last == Some(filter);
                put.byte(u8::from(*class == Class::Durable) | if same { SAME_FILTER } else { 0 });
                if !same {
                    put.text(filter.as_str());
                }
                put.number(u64::from(shard.0)).number(u64::from(*members));
                last = Some(filter);
            }
            Op::Record { kind, key, value } => {
                put.byte(RECORD | u8::from(*kind == RecordKind::Supersedes)).bytes(key).flag(value.is_some());
                if let Some(value) = value {
                    put.bytes(value);
                }
            }
        }
    }
}

/// Takes what [`put_ops`] wrote.
pub(crate) fn take_ops(take: &mut Take<'_>) -> Result<Vec<Op>, InvalidField> {
    let count = take.count()?;
    let mut ops = Vec::new();
    let mut last: Option<OwnedTopicFilter> = None;
    for _ in 0..count {
        let tag = take.byte()?;
        if tag & RECORD != 0 {
            ops.push(take_record(tag, take)?);
            continue;
        }
        let class = if tag & 1 == 0 { Class::Transient } else { Class::Durable };
        let filter = match tag & !1 {
            0 => TopicFilter::new(take.text()?).map_err(|_| InvalidField("a filter that is none"))?.into(),
            SAME_FILTER => last.take().ok_or(InvalidField("a route without filter"))?,
            _ => return Err(InvalidField("an unknown entry")),
        };
        let (shard, members) = (ShardId(take.number16()?), take.number32()?);
        if members > 1 && !is_shared(&filter) {
            return Err(InvalidField("members of a filter that is not shared"));
        }
        last = Some(filter.clone());
        ops.push(Op::Route { filter, class, shard, members });
    }
    Ok(ops)
}

fn take_record(tag: u8, take: &mut Take<'_>) -> Result<Op, InvalidField> {
    let kind = match tag & !RECORD {
        0 => RecordKind::Home,
        1 => RecordKind::Supersedes,
        _ => return Err(InvalidField("an unknown entry")),
    };
    let key = take.bytes()?.into();
    let value = if take.flag()? { Some(take.bytes()?.into()) } else { None };
    Ok(Op::Record { kind, key, value })
}

/// Bytes that an operation takes in a message, about.
pub(crate) fn cost(op: &Op) -> usize {
    match op {
        Op::Route { filter, .. } => filter.as_str().len() + 8,
        Op::Record { key, value, .. } => key.len() + value.as_ref().map_or(0, |value| value.len()) + 8,
    }
}

pub(crate) fn is_shared(filter: &OwnedTopicFilter) -> bool {
    filter.as_filter().share_group().is_some()
}
