//! A node in its cluster: links, membership, the meta group and the owned logs, joined to each other. The control plane has
//! one of these. It decides what comes from whom goes where; what each part makes of it is in `newtmq-cluster`.

mod claims;
mod desk;
mod disk;
mod doctor;
mod joint;
mod peers;
mod readiness;
mod shelf;
mod speech;
mod streams;
#[cfg(test)]
mod tests;
mod wills;

use core::net::SocketAddr;
use core::ops::RangeInclusive;
use std::collections::BTreeSet;

use bytes::Bytes;
use newtmq_base::{Incarnation, Instant, InvalidField, NodeId, RequestId, SEED_BYTES};
use newtmq_cluster::link::{self, Address, ConnectionId, Cookie, DialId};
use newtmq_cluster::{directory, meta, owned, swim};

pub use doctor::{Chart, Examination, Finding, RetainedChart, SessionsChart, Severity, Sight};
pub use joint::{Cluster, ClusterCounts};
pub(crate) use joint::{Cx, owned_config};
pub use readiness::Unready;

/// What a release of the program speaks with other nodes. While a cluster is upgraded it has nodes of two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// Versions of the protocol of links.
    pub protocols: RangeInclusive<u16>,
    /// The highest feature level of the meta group that it understands.
    pub features: u32,
}

impl Default for Release {
    /// This one.
    fn default() -> Release {
        Release { protocols: 1..=1, features: 1 }
    }
}

/// What is configured of a cluster. What all nodes should have alike is said at the parts.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// `cluster.name`, at most 255 bytes. Links to nodes with another one are refused.
    pub name: String,
    /// `node.cookie`: who knows it is let in.
    pub cookie: Cookie,
    /// The other nodes are found by a list of seeds (or another discovery): a cluster is founded with them, or joined.
    /// Without it the node founds one of its own, and joins another when it is told to.
    pub discovers: bool,
    /// `cluster.witness`: the node votes, and has no clients.
    pub witness: bool,
    /// Whether SUBACKs wait until no node can acknowledge a publish that would miss the subscription.
    pub strict: bool,
    /// Of links.
    pub links: link::Config,
    /// Of who answers. Its key is made from the cookie and the name.
    pub swim: swim::Config,
    /// Of the meta group.
    pub meta: meta::Config,
    /// Of logs. `stored` says whether the node has a disk; the key of digests is made from the cookie and the name, and
    /// `strict` is that of here.
    pub owned: owned::Config,
    /// Of the directory of sessions.
    pub directory: directory::Config,
    /// `retained.max_retained_messages`; 0 is no limit.
    pub max_retained: usize,
    /// This one, but where an upgrade is tried.
    pub release: Release,
}

/// What a node has when it starts as a member of a cluster.
#[derive(Debug, Clone)]
pub struct ClusterBoot {
    /// The configuration.
    pub config: ClusterConfig,
    /// The node, minted with its data directory.
    pub node: NodeId,
    /// Minted with the data directory too, and told nobody but members.
    pub birth: u64,
    /// This start; it was on disk before anything of it was told.
    pub incarnation: Incarnation,
    /// Name for people, such as `newtmq@127.0.0.1`.
    pub name: String,
    /// Where others reach it, by TCP and UDP.
    pub address: SocketAddr,
    /// Seed of all chance in it.
    pub seed: [u8; SEED_BYTES],
    /// The records of [`ClusterOutput::Store`] that were durable, in order, from the last one that replaces all before it.
    pub stored: Vec<Box<[u8]>>,
}

impl ClusterBoot {
    /// Whether a node may start with it.
    ///
    /// # Errors
    /// What was stored is another node's, or cannot be: it may have promised something, so that the node must not start.
    pub fn verify(&self) -> Result<(), InvalidField> {
        Cluster::new(self.clone(), Instant::START, 1, 0).map(|_| ())
    }
}

/// What discovery has found.
#[derive(Debug)]
struct Found {
    addresses: BTreeSet<SocketAddr>,
    here: bool,
}

/// What can happen to a node in its cluster.
#[derive(Debug)]
pub enum ClusterInput<'a> {
    /// Something happened to a connection with another node. [`link::Input::Tick`] comes from [`crate::ControlInput::Tick`].
    Link(link::Input<'a>),
    /// A datagram came at the address of the node.
    Packet {
        /// From where.
        from: SocketAddr,
        /// Anything.
        data: &'a [u8],
    },
    /// What discovery has found: replaces what it had found before. Finding nothing is no reason to leave anybody.
    Discovered {
        /// Where other nodes may be, without this one.
        addresses: BTreeSet<SocketAddr>,
        /// Whether this node is among what is listed: then it may found a cluster together with the others.
        here: bool,
    },
    /// Everything up to this [`ClusterOutput::Store`] is durable.
    Stored {
        /// Its number.
        upto: u64,
    },
    /// The node stops, and its clients are gone: the others are told, so that they need not find out. What
    /// [`crate::Control::fill_link`] gives afterwards is the last.
    Stop,
    /// An operator wants something.
    Command {
        /// For the answer.
        request: RequestId,
        /// What.
        command: ClusterCommand,
    },
    /// Pass a question or an answer of operators on to another node. It may be lost.
    Operator {
        /// Which.
        to: NodeId,
        /// Opaque here.
        bytes: &'a [u8],
    },
}

/// What an operator wants of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterCommand {
    /// Join the cluster of the node at this address.
    Join(SocketAddr),
    /// Leave the cluster; the clients are sent to other nodes. The node is then a cluster of its own.
    Leave,
    /// Remove a member that is down, by its name or its id in hexadecimal digits.
    ForceLeave(String),
    /// Let a node that was removed so come back, by its id in hexadecimal digits.
    Readmit(String),
    /// Use what every member understands, from now on and for good: an older program can be no member any more.
    Finalize,
    /// Say how things are.
    Status,
    /// Ask all members how things are, and compare.
    Examine,
    /// Write or delete an opaque value; done when it is applied here.
    PutBlob {
        /// Its table.
        kind: meta::BlobKind,
        /// Its key.
        key: String,
        /// The value; `None` deletes.
        value: Option<Vec<u8>>,
        /// Only if this is its version; 0 is one that there is not.
        expected: Option<u64>,
    },
}

/// What the driver is to do.
#[derive(Debug)]
pub enum ClusterOutput {
    /// Open a connection to a node.
    Dial {
        /// To be named in the answer.
        dial: DialId,
        /// Where to.
        address: Address,
    },
    /// [`crate::Control::fill_link`] has something for it. Said once until it is called.
    Ready(ConnectionId),
    /// Write what [`crate::Control::fill_link`] gives, close it, and say [`link::Input::Closed`].
    Close(ConnectionId),
    /// Send a datagram.
    Packet {
        /// Where to.
        to: SocketAddr,
        /// At most 1400 bytes.
        bytes: Vec<u8>,
    },
    /// Append this to the node's log of the cluster; answered by [`ClusterInput::Stored`].
    Store {
        /// Counts them in this start, from 1.
        number: u64,
        /// What.
        record: Vec<u8>,
        /// Something waits for it. Otherwise it may be written, and confirmed, together with a later one.
        sync: bool,
        /// All records before it can go once it is durable.
        replaces: bool,
    },
    /// The answer to a command.
    Answer {
        /// Which.
        request: RequestId,
        /// What became of it.
        answer: ClusterAnswer,
    },
    /// What another member has sent by [`ClusterInput::Operator`].
    Operator {
        /// Which.
        from: NodeId,
        /// Opaque here.
        bytes: Bytes,
    },
    /// For logs and checks.
    Event(ClusterEvent),
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterAnswer {
    /// It is done.
    Done,
    /// It is not, and why, in words.
    Refused(String),
    /// How things are.
    Status(Box<ClusterStatus>),
    /// What all members say, and what is wrong with it.
    Examined(Box<Examination>),
}

/// A cluster as one of its nodes sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterStatus {
    /// Its name.
    pub name: String,
    /// Whether this node is a member of one.
    pub is_member: bool,
    /// Who leads the meta group, if it is known.
    pub leader: Option<NodeId>,
    /// Of the meta group.
    pub term: u64,
    /// Index of the last entry of the meta group that is applied.
    pub applied: u64,
    /// The feature level that the cluster uses, and the highest that every member understands.
    pub features: (u32, u32),
    /// Why clients should not be sent to this node.
    pub unready: Option<Unready>,
    /// The members, by id; this node is one of them.
    pub nodes: Vec<NodeStatus>,
}

/// A member as another one sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeStatus {
    /// The node.
    pub node: NodeId,
    /// Its start, as far as it is known.
    pub incarnation: Incarnation,
    /// Name for people.
    pub name: String,
    /// Where it is reached.
    pub address: String,
    /// It is the node that was asked.
    pub is_self: bool,
    /// `voter`, `learner` or `witness`.
    pub role: &'static str,
    /// Frames go to it and come from it.
    pub is_up: bool,
    /// They go over another node.
    pub is_relayed: bool,
    /// SWIM says that it answers.
    pub is_alive: bool,
    /// How far its log is here: `masked`, `syncing` or `open`.
    pub routes: &'static str,
    /// Entries of its log here.
    pub entries: u64,
}

/// What happens in a cluster, for logs and checks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClusterEvent {
    /// Of links.
    Link(link::Event),
    /// SWIM says that a node answers, or not.
    Alive {
        /// The node.
        node: NodeId,
        /// Its start.
        incarnation: Incarnation,
        /// Whether it does.
        alive: bool,
    },
    /// The node belongs to a cluster.
    Joined(meta::ClusterId),
    /// The node has given up the cluster of which it was the only member.
    Abandoned(meta::Lost),
    /// Another leader of the meta group, or none.
    Leader {
        /// Of which cluster; none before the node was told that it may join one.
        cluster: Option<meta::ClusterId>,
        /// In which term.
        term: u64,
        /// Who.
        leader: Option<NodeId>,
    },
    /// A member is one no more.
    Removed {
        /// The member.
        node: NodeId,
        /// Why.
        by: meta::RemovedBy,
    },
    /// A leader, this node, proposes to remove a member.
    Removing {
        /// The member.
        node: NodeId,
        /// Why.
        by: meta::RemovedBy,
    },
    /// An opaque value of the cluster was written or deleted.
    Blob {
        /// Its table.
        kind: meta::BlobKind,
        /// Its key.
        key: String,
        /// The value; `None` is deleted.
        value: Option<Vec<u8>>,
    },
    /// All of them are other ones: they are to be read anew, of the state of the meta group.
    Blobs,
    /// A member's routes are matched here, or are not any more.
    Open {
        /// The member.
        node: NodeId,
        /// Whether they are.
        open: bool,
    },
    /// The node is in no cluster any more, and does not come back by itself.
    Gone(meta::Gone),
    /// The meta group's log cannot be applied any further by this version of the program.
    Stopped(meta::Stopped),
    /// The group of retained messages had lost its quorum for good, and has begun anew.
    RetainedRenewed {
        /// Counts its beginnings; 0 is that with the cluster.
        generation: u64,
    },
    /// A SUBACK did not wait for everybody.
    BarrierIncomplete,
}
