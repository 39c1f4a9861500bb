//! The shards of a node seen as one.

use newtmq_node::{ConnView, Ledger, Shard};

/// What can be seen of a node.
#[derive(Clone, Copy)]
pub(crate) struct NodeView<'a>(pub(super) &'a [Shard]);

impl<'a> NodeView<'a> {
    pub(crate) fn connections(self) -> impl Iterator<Item = ConnView<'a>> {
        self.0.iter().flat_map(|shard| shard.view().connections())
    }

    pub(crate) fn connection_count(self) -> usize {
        self.0.iter().map(|shard| shard.view().connection_count()).sum()
    }

    pub(crate) fn session_count(self) -> usize {
        self.0.iter().map(|shard| shard.view().session_count()).sum()
    }

    pub(crate) fn subscription_count(self) -> usize {
        self.0.iter().map(|shard| shard.view().subscription_count()).sum()
    }

    pub(crate) fn retained_count(self) -> usize {
        self.0.iter().map(|shard| shard.view().retained_count()).sum()
    }

    /// Most bytes from one shard to another that are not worked off.
    pub(crate) fn lane_bytes_max(self) -> usize {
        self.0.iter().flat_map(|shard| shard.view().lane_bytes()).max().unwrap_or(0)
    }

    /// What publishers wait for, as they and as their targets know it.
    pub(crate) fn waits(self) -> (usize, usize) {
        let all = self.0.iter().map(|shard| shard.view().waits());
        all.fold((0, 0), |sum, waits| (sum.0 + waits.0, sum.1 + waits.1))
    }

    pub(crate) fn timer_count(self) -> usize {
        self.0.iter().map(|shard| shard.view().timer_count()).sum()
    }

    pub(crate) fn queued(self) -> u64 {
        self.0.iter().map(|shard| shard.view().queued()).sum()
    }

    pub(crate) fn session_is_connected(self, client: &str) -> Option<bool> {
        self.0.iter().find_map(|shard| shard.view().session_is_connected(client))
    }

    pub(crate) fn ledger(self) -> Ledger {
        let mut sum = Ledger::default();
        for shard in self.0 {
            sum.add(&shard.view().ledger());
        }
        sum
    }

    /// A client has one session, and each shard is consistent in itself.
    pub(crate) fn assert_consistent(self) {
        for shard in self.0 {
            shard.view().assert_consistent();
        }
    }
}
