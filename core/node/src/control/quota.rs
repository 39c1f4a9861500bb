//! Limits of the whole node, divided among its shards. A shard that has used up its share asks for more; before the node
//! says no, every other shard has given back what it does not use, so the limit is exact.

use std::collections::{BTreeMap, VecDeque};

use newtmq_base::ShardId;

use super::{ControlOutput, FromControl, QuotaKind, to_shard};
use crate::config::ShardConfig;

/// A shard's share of a limit at the start.
pub(crate) fn share(limit: u32, shard: ShardId, shards: u16) -> u32 {
    let (each, rest) = (limit / u32::from(shards), limit % u32::from(shards));
    each + u32::from(u32::from(shard.0) < rest)
}

#[derive(Debug)]
pub(super) struct Quotas {
    shards: u16,
    by_kind: BTreeMap<QuotaKind, Quota>,
}

/// What is not granted to anybody, and who asks.
#[derive(Debug, Default)]
struct Quota {
    free: u32,
    /// Who asked, in order.
    waiting: VecDeque<ShardId>,
    /// Shards that have not answered the recall that is under way.
    recalled: u16,
    /// How many of those who wait asked before it.
    before: usize,
}

impl Quotas {
    pub(super) fn new(config: &ShardConfig, shards: u16) -> Quotas {
        let connections = (0..config.listeners.len()).map(|at| QuotaKind::Connections(at as u16));
        let by_kind = connections.chain([QuotaKind::Retained]).map(|kind| (kind, Quota::default())).collect();
        Quotas { shards, by_kind }
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.by_kind.values().all(|quota| quota.waiting.is_empty() && quota.recalled == 0)
    }

    pub(super) fn free(&self, kind: QuotaKind) -> u32 {
        self.by_kind.get(&kind).map_or(0, |quota| quota.free)
    }

    pub(super) fn on_want(&mut self, from: ShardId, kind: QuotaKind, out: &mut Vec<ControlOutput>) {
        let quota = self.by_kind.entry(kind).or_default();
        quota.waiting.push_back(from);
        if quota.recalled == 0 {
            quota.serve(kind, self.shards, out);
        }
    }

    pub(super) fn on_returned(&mut self, from: ShardId, kind: QuotaKind, count: u32, out: &mut Vec<ControlOutput>) {
        let quota = self.by_kind.entry(kind).or_default();
        tracing::trace!(from = from.0, ?kind, count, "given back");
        quota.free += count;
        quota.recalled -= 1;
        if quota.recalled > 0 {
            return;
        }
        if quota.free == 0 {
            // The limit was reached when these asked. For those who asked since, it is not known.
            for shard in quota.waiting.drain(..quota.before) {
                out.push(ControlOutput::Shard { to: shard, message: FromControl::Denied(kind) });
            }
        }
        quota.serve(kind, self.shards, out);
    }
}

impl Quota {
    /// Grants while something is free; then asks everybody for what they do not use. Whoever asks has nothing left
    /// itself, but may have by the time that the recall comes to it.
    fn serve(&mut self, kind: QuotaKind, shards: u16, out: &mut Vec<ControlOutput>) {
        while self.free > 0
            && let Some(shard) = self.waiting.pop_front()
        {
            // Part of the rest, so that the next one who asks need not wait for a recall.
            let count = (self.free / (2 * u32::from(shards))).max(1);
            self.free -= count;
            out.push(ControlOutput::Shard { to: shard, message: FromControl::Granted(kind, count) });
        }
        if !self.waiting.is_empty() {
            self.recalled = shards;
            self.before = self.waiting.len();
            for to in 0..usize::from(shards) {
                out.push(to_shard(to, FromControl::Recall(kind)));
            }
        }
    }
}
