//! What goes into [`super::Retained`] and what comes out of it.

use std::collections::BTreeSet;

use bytes::Bytes;
use newtmq_base::{NodeId, RequestId};

use super::Estate;
use super::disk::Persist;
use crate::consensus::Stopped;

/// What has come in.
#[derive(Debug, Clone, PartialEq)]
pub enum Input<'a> {
    /// Time has passed. May come late, or for nothing.
    Tick,
    /// A node has sent a message of this part. Messages may be lost, repeated and reordered; who sent it is certain.
    Message {
        /// Who.
        from: NodeId,
        /// Anything.
        bytes: &'a [u8],
    },
    /// Everything up to this [`Persist::number`] is durable.
    Persisted {
        /// The number.
        number: u64,
    },
    /// The group begins with this node. Counts only while nothing is known of the group here.
    Found {
        /// Index of the state with which it begins; what it begins with has none that is higher.
        index: u64,
        /// What is retained from the beginning.
        estate: Estate,
    },
    /// Who belongs to the cluster and who votes in it, as the meta group has decided.
    Members {
        /// Of the meta group's log: a lower one than before changes nothing.
        index: u64,
        /// All members.
        members: BTreeSet<NodeId>,
        /// Those that vote.
        voters: BTreeSet<NodeId>,
    },
    /// A message is to be retained, or the one of its topic to be deleted.
    Write {
        /// For the answer.
        request: RequestId,
        /// Topic Name.
        topic: Box<str>,
        /// Anything, for [`Output::Apply`]; `None` deletes.
        message: Option<Bytes>,
        /// Whether it may be kept at this node if there is no leader, until there is one.
        keep: bool,
        /// If it counts only as long as no entry after this one has changed the topic; 0 if only as long as nothing is known of
        /// the topic.
        seen: Option<u64>,
    },
    /// Say when everything up to an index is applied.
    WaitFor {
        /// For the answer.
        request: RequestId,
        /// The index.
        index: u64,
    },
}

/// What is to be done or known, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// A message for another node; may be lost.
    Send {
        /// Who.
        to: NodeId,
        /// For its [`Input::Message`].
        bytes: Vec<u8>,
        /// Whether it is a part of a snapshot, and should not hold up others. It is about as large as
        /// [`super::Config::chunk_bytes`], or as a single message that is larger. What is not has 256 KiB at most, or a single
        /// message.
        bulk: bool,
    },
    /// Something for the disk.
    Persist(Persist),
    /// A topic has another message, or none. Each topic's index only rises.
    Apply {
        /// Of the entry.
        index: u64,
        /// Topic Name.
        topic: Box<str>,
        /// What was written; `None`: it was deleted.
        message: Option<Bytes>,
    },
    /// The answer to [`Input::Write`].
    Answer {
        /// The request.
        request: RequestId,
        /// Its outcome.
        outcome: Result<Written, Refusal>,
    },
    /// What is kept for a topic at this node alone, in front of what is applied.
    Pending {
        /// Topic Name.
        topic: Box<str>,
        /// What changes.
        change: PendingChange,
    },
    /// The answer to [`Input::WaitFor`].
    Reached {
        /// The request.
        request: RequestId,
        /// Whether it is applied; if not, its time was over.
        reached: bool,
    },
    /// Another leader, or none.
    Leader {
        /// In which term.
        term: u64,
        /// Who.
        leader: Option<NodeId>,
    },
    /// The node applies nothing any more. It has to be replaced by a later version, or repaired.
    Stopped(Stopped),
}

/// What becomes of what is kept for a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PendingChange {
    /// This is what clients of this node are to read.
    Kept(Option<Bytes>),
    /// It is in the log: [`Output::Apply`] came before.
    Played,
    /// The topic was changed by others in the meantime: that is what it is.
    Dropped,
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is committed, and applied here.
    Committed {
        /// Of its entry.
        index: u64,
    },
    /// It is kept at this node, in memory, until there is a leader.
    Pending,
}

/// Why a write is not done, or may not have been done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Refusal {
    /// There is no leader.
    #[error("the retained messages have no leader")]
    NoLeader,
    /// No answer within [`super::Config::request_timeout`]: it may be done, or may not. It is not done once a later write
    /// of this node is.
    #[error("no answer in time; it may have been done")]
    Timeout,
    /// Too many writes are asked for at once.
    #[error("too many retained messages are written at once")]
    Busy,
    /// There is no leader, and no more can be kept here until there is one.
    #[error("the retained messages have no leader, and too many wait for one")]
    PendingFull,
    /// Topic and message are larger than [`super::Config::message_bytes_max`].
    #[error("the retained message is too large")]
    TooLarge,
    /// The node takes no part any more.
    #[error("this node has stopped")]
    Stopped,
}
