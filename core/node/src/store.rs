//! What a shard and the store say to each other: batches of records to be kept, the word that they are, and what was kept
//! before.

use newtmq_base::{NodeId, ShardId};
use newtmq_cluster::lane::Mark;
use newtmq_session::{HintRecord, Message, Receivers, Record, Restored};

/// `zone.NAME.durability`: when somebody is told that a message, a session or a retained message survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Durability {
    /// Nothing is stored.
    #[default]
    Memory,
    /// When it is written. It survives the end of the process, and not of the machine.
    Written,
    /// When it is synced, together with what others write meanwhile.
    Synced,
    /// The same, and nobody waits for others to come along.
    SyncedAtOnce,
}

/// Names what is stored whole or not at all, though batches of several shards or calls are parts of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Joint {
    /// The shard that began it.
    pub shard: ShardId,
    /// Its promise.
    pub promise: u64,
}

/// Records of one call of a shard, to be stored together and in order.
#[derive(Debug)]
pub struct Batch {
    /// Counts the shard's batches from 1; [`crate::ShardInput::Stored`] answers.
    pub number: u64,
    /// How far it has to come before the answer.
    pub durability: Durability,
    /// Blocks that the records name.
    pub messages: Vec<Message>,
    /// The records, one after the other; see [`Batch::records`].
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<u32>,
    /// It is stored together with what has to be stored elsewhere for the same publish, or not at all: the name of that,
    /// and how many [`Batch::parts`] of it other batches have.
    pub joint: Option<(Joint, u32)>,
    /// Of which joint writes it is a part.
    pub parts: Vec<Joint>,
    /// With this batch the shard needs nothing of the segments before this one.
    pub needs_from: Option<u64>,
}

impl Default for Batch {
    fn default() -> Self {
        Batch {
            number: 0,
            durability: Durability::Memory,
            messages: Vec::new(),
            bytes: Vec::new(),
            ends: Vec::new(),
            joint: None,
            parts: Vec::new(),
            needs_from: None,
        }
    }
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_empty() && self.needs_from.is_none() && self.joint.is_none() && self.parts.is_empty()
    }

    /// How many records it has.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(crate) fn push(&mut self, record: &Record, durability: Durability) {
        record.encode(&mut self.bytes);
        self.ends.push(u32::try_from(self.bytes.len()).expect("a batch is below 4 GiB"));
        self.durability = self.durability.max(durability);
    }

    /// Each record, encoded.
    pub fn records(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let record = &self.bytes[start..*end as usize];
            start = *end as usize;
            record
        })
    }

    /// Bytes of it, for limits.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len() + self.messages.iter().map(Message::size).sum::<usize>()
    }
}

/// How the store is, the worst last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum StoreState {
    /// It stores.
    #[default]
    Open,
    /// There is no space. What was given waits; it passes.
    Full,
    /// It has failed, for good. Nothing durable is accepted any more.
    Failed,
}

/// Something that was stored before this start, for a shard.
#[derive(Debug, Default)]
pub struct RecoveredChunk {
    /// Sessions of its clients.
    pub sessions: Vec<Restored>,
    /// Retained messages of its topics.
    pub retained: Vec<RecoveredRetained>,
    /// What had come of each lane of other nodes: sending node and shard.
    pub marks: Vec<(NodeId, ShardId, Mark)>,
    /// QoS 2 messages of other nodes that had come and were not released, in the order in which they came.
    pub guids: Vec<([u8; 16], Receivers)>,
    /// Messages that wait for other nodes, in order, each with the first segment of the log that it needs.
    pub hints: Vec<(HintRecord, u64)>,
    /// Nothing comes after this.
    pub last: bool,
}

/// A retained message that was stored before this start.
#[derive(Debug)]
pub struct RecoveredRetained {
    /// The message, with when it expires.
    pub message: Message,
    /// The first segment of the log that it needs.
    pub segment: u64,
}
