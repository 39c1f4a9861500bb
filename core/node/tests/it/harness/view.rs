//! The shards of a node seen as one.

use newtmq_node::{ConnView, DropReason, Ledger, Shard};

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

    pub(crate) fn ledger(self) -> NodeLedger {
        let mut sum = NodeLedger::default();
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

/// The ledgers of all shards together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct NodeLedger {
    pub(crate) accepted: u64,
    pub(crate) unmatched: u64,
    pub(crate) matched: u64,
    pub(crate) delivered: u64,
    pub(crate) retained_sent: u64,
    pub(crate) sent_again: u64,
    pub(crate) rel_timeouts: u64,
    pub(crate) hook_timeouts: u64,
    pub(crate) paced: u64,
    pub(crate) denied: u64,
    dropped: [u64; DropReason::ALL.len()],
}

impl NodeLedger {
    fn add(&mut self, ledger: &Ledger) {
        self.accepted += ledger.accepted;
        self.unmatched += ledger.unmatched;
        self.matched += ledger.matched;
        self.delivered += ledger.delivered;
        self.retained_sent += ledger.retained_sent;
        self.sent_again += ledger.sent_again;
        self.rel_timeouts += ledger.rel_timeouts;
        self.hook_timeouts += ledger.hook_timeouts;
        self.paced += ledger.paced;
        self.denied += ledger.denied;
        for (sum, reason) in self.dropped.iter_mut().zip(DropReason::ALL) {
            *sum += ledger.dropped(reason);
        }
    }

    pub(crate) fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    pub(crate) fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }
}
