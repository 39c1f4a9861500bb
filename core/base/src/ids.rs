//! Identifiers. Each is a type of its own, so that one is never passed where another is meant.

use core::fmt;

/// A node of the cluster, minted together with its data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// Counts the starts of a node; a later start has the higher one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

/// A shard of a node, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u16);

/// Where a message between shards goes: the same address type within a node and between nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// The node.
    pub node: NodeId,
    /// The shard on that node.
    pub shard: ShardId,
}

/// A client's network connection at one shard. The driver picks the slot (its own slab index); the generation
/// tells two users of one slot apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId {
    /// Index in the driver's slab.
    pub slot: u32,
    /// Rises each time that the slot is used again.
    pub generation: u32,
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}

/// A listener of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub u16);

/// A store operation whose completion comes back as an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// A question to the outside (authentication, ACL, hook, admin) whose answer comes back as an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// The fencing token of a client id: raised by each claim, compared lexicographically. Frames with an older epoch
/// are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch {
    /// Term of the directory that issued it.
    pub term: u64,
    /// Rises with each claim within the term.
    pub seq: u64,
    /// Claims granted without a quorum since `seq`.
    pub provisional: u32,
}

impl Epoch {
    /// The epoch of the next claim at the same directory.
    #[must_use]
    pub fn next(self) -> Epoch {
        Epoch { term: self.term, seq: self.seq + 1, provisional: 0 }
    }
}
