//! Which changes the shards of this node have installed. Batches for them are numbered, whoever's log they are of, and
//! every shard installs them in order.

use std::collections::VecDeque;

use newtmq_base::{Incarnation, NodeId, ShardId};

/// A version of a log that has come to the shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) owner: NodeId,
    pub(crate) inc: Incarnation,
    pub(crate) version: u64,
}

#[derive(Debug)]
pub(crate) struct Installs {
    /// Number of the newest batch.
    last: u64,
    /// By shard: up to which batch it has installed.
    shards: Vec<u64>,
    /// Versions that are installed with a batch, in order.
    waiting: VecDeque<(u64, Progress)>,
}

impl Installs {
    pub(crate) fn new(shards: u16) -> Installs {
        Installs { last: 0, shards: vec![0; usize::from(shards)], waiting: VecDeque::new() }
    }

    /// The number of the next batch.
    pub(crate) fn next_batch(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// This version is installed when the newest batch is. Replaces what waits for the same batch.
    pub(crate) fn expect(&mut self, progress: Progress) {
        let newest = self.waiting.iter_mut().rev().take_while(|(batch, _)| *batch == self.last);
        let mut same = newest.filter(|(_, other)| other.owner == progress.owner);
        match same.next() {
            Some((_, other)) => *other = progress,
            None => self.waiting.push_back((self.last, progress)),
        }
    }

    /// What waits for an owner's versions waits no longer: they are not matched any more.
    pub(crate) fn cancel(&mut self, owner: NodeId) {
        self.waiting.retain(|(_, progress)| progress.owner != owner);
    }

    /// A shard has installed the batches up to this one.
    pub(crate) fn installed(&mut self, shard: ShardId, batch: u64) {
        if let Some(known) = self.shards.get_mut(usize::from(shard.0)) {
            *known = batch.min(self.last).max(*known);
        }
    }

    /// The next version that every shard has installed.
    pub(crate) fn next_done(&mut self) -> Option<Progress> {
        let everywhere = self.shards.iter().copied().min().unwrap_or(self.last);
        self.waiting.pop_front_if(|(batch, _)| *batch <= everywhere).map(|(_, progress)| progress)
    }

    /// How many batches the slowest shard has not installed.
    pub(crate) fn lag(&self) -> u64 {
        self.last - self.shards.iter().copied().min().unwrap_or(self.last)
    }
}
