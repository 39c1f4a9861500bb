//! What goes into [`super::Meta`] and what comes out of it.

use std::collections::BTreeSet;

use newtmq_base::{NodeId, RequestId};

use super::command::{BlobKind, Command, RemovedBy};
use super::log::Persist;
use super::message::{JoinRefusal, Refusal};
use super::state::ClusterId;
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
    /// A node can be reached, whether it is a member or not.
    Up {
        /// The node.
        node: NodeId,
    },
    /// A node cannot be reached any more.
    Down {
        /// The node.
        node: NodeId,
    },
    /// Found a cluster of this node alone, by an operator's word, or because it runs alone, or has left another one.
    Init {
        /// For the answer.
        request: RequestId,
        /// Name of the cluster.
        name: String,
    },
    /// What is known about the seeds: found a cluster together with them if none of them has one, or join theirs.
    /// Given again when it changes; counts only while the node is in no cluster.
    Seeds {
        /// Name of the cluster, if it is founded.
        name: String,
        /// How many seeds there are.
        total: usize,
        /// Whether this node is one of them. If not it only joins.
        here: bool,
        /// The other seeds that can be reached.
        reached: BTreeSet<NodeId>,
    },
    /// Join the cluster of those who are up. A sole member of another cluster gives that one up.
    Join {
        /// For the answer, which comes when the node is a member.
        request: RequestId,
        /// Whose cluster it is to be; nobody else is asked. `None` is whoever lets it in first.
        via: Option<NodeId>,
    },
    /// Leave the cluster.
    Leave {
        /// For the answer, which comes when the node is a member no more.
        request: RequestId,
    },
    /// Nobody waits any more for this [`Input::Join`] or [`Input::Leave`]. If there was no answer yet it is
    /// [`Refusal::Timeout`] now. The node does not go on with it, except into a cluster for which it has given up its own.
    GiveUp {
        /// The request.
        request: RequestId,
    },
    /// Remove a member that is down.
    ForceLeave {
        /// For the answer.
        request: RequestId,
        /// The member.
        node: NodeId,
    },
    /// Lead in a later term than this one, if this node leads: others have heard of it in another cluster.
    Raise {
        /// The term.
        term: u64,
    },
    /// Let the log have one of [`Command::SetConfig`], [`Command::PutBlob`], [`Command::Readmit`],
    /// [`Command::FinalizeFeatureLevel`].
    Write {
        /// For the answer, which comes when it is applied here.
        request: RequestId,
        /// What.
        command: Command,
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
        /// Whether it may be large, and should not hold up others.
        bulk: bool,
    },
    /// Something for the disk.
    Persist(Persist),
    /// The answer to a request: the index of its entry, or 0 where it has none.
    Answer {
        /// The request.
        request: RequestId,
        /// Its outcome.
        outcome: Result<u64, Refusal>,
    },
    /// The node belongs to a cluster.
    Joined {
        /// The cluster.
        cluster: ClusterId,
    },
    /// The node has given up the cluster of which it was the only member. With it goes all that its state had, and what else
    /// belonged to that cluster: whoever keeps sessions and retained messages says what becomes of those.
    Abandoned {
        /// What is lost.
        lost: Lost,
    },
    /// The state has changed, up to this index.
    Changed {
        /// The index.
        index: u64,
    },
    /// An opaque value was written or deleted.
    Blob {
        /// Its table.
        kind: BlobKind,
        /// Its key.
        key: String,
        /// The value; `None` is deleted.
        value: Option<Vec<u8>>,
    },
    /// All opaque values are other ones: a snapshot has come, or another cluster.
    Blobs,
    /// A leader proposes to remove a member.
    Removing {
        /// The member.
        node: NodeId,
        /// Why.
        by: RemovedBy,
    },
    /// A member is one no more: its routes and homes can go.
    Removed {
        /// The member.
        node: NodeId,
        /// Why.
        by: RemovedBy,
    },
    /// Another leader, or none.
    Leader {
        /// Of which cluster; none before the node was told that it may join one.
        cluster: Option<ClusterId>,
        /// In which term.
        term: u64,
        /// Who.
        leader: Option<NodeId>,
    },
    /// The node is in no cluster any more, and does not come back by itself.
    Gone(Gone),
    /// The node applies nothing any more. It has to be replaced by a later version, or repaired.
    Stopped(Stopped),
}

/// Why a node is in no cluster any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gone {
    /// It has left.
    Left,
    /// It was not let in again.
    Refused(JoinRefusal),
}

/// What goes with a cluster that its only member gives up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The cluster.
    pub cluster: ClusterId,
    /// Its name.
    pub name: String,
    /// How many keys of configuration.
    pub config_keys: usize,
    /// How many rules of access.
    pub acl: usize,
    /// How many users.
    pub users: usize,
    /// How many bans.
    pub banned: usize,
}
