//! Whether clients should be sent to a node, as far as its cluster is concerned. What shards say of themselves comes on top.
//!
//! It tells of what is the matter with this node alone. While the cluster has no leader, or is split, all nodes would say no
//! at once, and a load balancer would have nobody left; they serve clients as well as they can.

use core::fmt;

use newtmq_cluster::meta;

use super::joint::Cluster;

/// Why clients should not be sent to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unready {
    /// It votes, and has no clients.
    Witness,
    /// It is no member of a cluster so far, or not any more, and is looking for it.
    Outside,
    /// It is a member, and has not heard since it came in who decides whose session is where.
    Undirected,
    /// An operator has it leave.
    Leaving,
    /// It has left the cluster, and is alone until it joins one or starts again.
    Left,
    /// It is not let into its cluster again.
    Refused,
    /// It cannot apply what the cluster has decided.
    Stopped,
}

impl fmt::Display for Unready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unready::Witness => "this node is a witness, and has no clients",
            Unready::Outside => "this node is not in its cluster yet",
            Unready::Undirected => "this node has not heard yet which node decides about sessions",
            Unready::Leaving => "this node is leaving its cluster",
            Unready::Left => "this node has left its cluster",
            Unready::Refused => "this node is not let into its cluster again",
            Unready::Stopped => "this node cannot apply what its cluster has decided",
        })
    }
}

/// What is remembered for it.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    /// Since it came into the cluster that it is in somebody has decided about sessions.
    directed: bool,
    /// It has left one, and is in none with others.
    left: bool,
}

impl Readiness {
    /// It is in a cluster, another one than before.
    pub(super) fn joined(&mut self) {
        self.directed = false;
    }

    pub(super) fn gone(&mut self, gone: meta::Gone) {
        self.left = gone == meta::Gone::Left;
    }
}

impl Cluster {
    /// Why clients should not be sent to this node; none if they may.
    #[must_use]
    pub fn unready(&self) -> Option<Unready> {
        let reasons = [
            (self.config.witness, Unready::Witness),
            (self.meta.view().stopped.is_some(), Unready::Stopped),
            (self.gone, Unready::Refused),
            (self.leaves(), Unready::Leaving),
            (self.readiness.left, Unready::Left),
            (!self.meta.is_member(), Unready::Outside),
            (!self.readiness.directed, Unready::Undirected),
        ];
        reasons.into_iter().find_map(|(is_so, why)| is_so.then_some(why))
    }

    pub(super) fn look_at_readiness(&mut self) {
        self.readiness.directed |= self.meta.is_member() && self.directory.obeys().is_some();
        self.readiness.left &= self.members.is_empty();
    }
}
