//! Keeps what shards give to the store: writes the batches of all shards in one frame, has them synced together, says what is
//! stored, and sees that the log does not grow for ever. Sans-IO: its driver says when it writes and when it syncs.

use std::collections::BTreeMap;

use newtmq_base::{ShardId, planted};
use newtmq_session::MessageId;
use newtmq_store::{BlobId, CommitError, Disk, LogId, Wal};

use crate::store::{Batch, Durability, Joint, StoreState};

/// The log of sessions and retained messages. Others will have other numbers.
pub const SESSIONS_LOG: LogId = LogId(0);

/// When the log is made shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeeperConfig {
    /// Below so many bytes the log may have any length; above, twice what it had after it was made shorter.
    pub log_bytes_min: u64,
}

impl Default for KeeperConfig {
    fn default() -> Self {
        KeeperConfig { log_bytes_min: 256 << 20 }
    }
}

/// What a keeper tells shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeeperOutput {
    /// [`crate::ShardInput::Stored`]
    Stored {
        /// Whose.
        shard: ShardId,
        /// All batches up to this one.
        upto: u64,
        /// The segment that is being written.
        segment: u64,
    },
    /// [`crate::ShardInput::Store`], to all.
    State(StoreState),
    /// [`crate::ShardInput::Renew`], to all.
    Renew {
        /// The first segment that stays.
        before: u64,
    },
}

/// What a driver has to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing, until a batch is given.
    Wait,
    /// Call [`Keeper::write`] when the next batches are to be written; at once if nobody is to come along.
    Write,
    /// Call [`Keeper::sync`].
    Sync,
    /// Call [`Keeper::write`] again in a while: there is no space.
    Retry,
    /// Nothing any more: the store has failed.
    Failed,
}

/// Writes what shards give it.
#[derive(Debug)]
pub struct Keeper<D> {
    wal: Wal<D>,
    config: KeeperConfig,
    /// Given and not written.
    waiting: Vec<(ShardId, Box<Batch>)>,
    waiting_bytes: usize,
    /// Something of what waits may be written: not all of it lacks parts of a joint write.
    ready: bool,
    /// By shard: written and not told.
    written: Vec<Option<u64>>,
    /// What was written wants to be synced.
    unsynced: bool,
    state: StoreState,
    outputs: Vec<KeeperOutput>,
    /// By shard: the first segment that it needs, since the log is being made shorter.
    needs: Vec<Option<u64>>,
    /// The log is being made shorter: this is the first segment that stays.
    renewing: Option<u64>,
    /// Length of the log after it was made shorter the last time.
    shortest: u64,
    /// Frames, and syncs, since the start.
    counts: (u64, u64),
}

impl<D: Disk> Keeper<D> {
    /// For an open log and a node with so many shards.
    #[must_use]
    pub fn new(wal: Wal<D>, config: KeeperConfig, shards: u16) -> Keeper<D> {
        let shards = usize::from(shards);
        Keeper {
            shortest: 0,
            wal,
            config,
            waiting: Vec::new(),
            waiting_bytes: 0,
            ready: false,
            written: vec![None; shards],
            unsynced: false,
            state: StoreState::Open,
            outputs: Vec::new(),
            needs: vec![None; shards],
            renewing: None,
            counts: (0, 0),
        }
    }

    /// A shard wants this stored. Says how long it may take to come along with others: none for at once.
    pub fn give(&mut self, shard: ShardId, batch: Box<Batch>) -> Durability {
        self.waiting_bytes += batch.bytes();
        let durability = batch.durability;
        self.waiting.push((shard, batch));
        self.ready = true;
        durability
    }

    /// Bytes that wait to be written.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// What is to be done next.
    #[must_use]
    pub fn next(&self) -> Next {
        match self.state {
            StoreState::Failed => Next::Failed,
            StoreState::Full => Next::Retry,
            StoreState::Open if self.unsynced => Next::Sync,
            StoreState::Open if !self.ready => Next::Wait,
            StoreState::Open => Next::Write,
        }
    }

    /// Writes what waits, in one frame. What needs no sync is told at once.
    pub fn write(&mut self) {
        if self.state == StoreState::Failed {
            return self.forget();
        }
        if !self.wal.is_stuck() {
            self.frame();
        }
        match self.wal.commit(false) {
            Ok(()) => {
                self.counts.0 += 1;
                self.set_state(StoreState::Open);
                if !self.unsynced || planted!(ToldBeforeSync) {
                    self.tell();
                }
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Syncs what was written, and tells it.
    pub fn sync(&mut self) {
        match self.wal.commit(true) {
            Ok(()) => {
                self.counts.1 += 1;
                self.unsynced = false;
                self.tell();
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Nothing was written for a while: the log itself is to tell how far it is good.
    pub fn rest(&mut self) {
        if self.state != StoreState::Open {
            return;
        }
        // What nobody waits for is synced, too, and then said to be.
        if let Err(error) = self.wal.commit(true).and_then(|()| self.wal.harden()) {
            self.failed(&error);
        }
    }

    fn frame(&mut self) {
        self.ready = false;
        for (shard, batch) in self.take_whole() {
            self.waiting_bytes -= batch.bytes();
            for message in &batch.messages {
                let MessageId(id) = message.id();
                self.wal.blob(BlobId(id), message.block());
            }
            for record in batch.records() {
                self.wal.record(SESSIONS_LOG, record);
            }
            let at = usize::from(shard.0);
            self.written[at] = Some(batch.number);
            self.unsynced |= batch.durability >= Durability::Synced;
            if batch.needs_from.is_some() {
                self.needs[at] = batch.needs_from;
                // It frees nothing before it is stored for good.
                self.unsynced = true;
            }
        }
    }

    /// Of what waits everything that is whole: with each joint write all its parts. The rest stays, in order.
    fn take_whole(&mut self) -> Vec<(ShardId, Box<Batch>)> {
        let waiting = core::mem::take(&mut self.waiting);
        let is_joint = |batch: &Batch| batch.joint.is_some() || !batch.parts.is_empty();
        if !waiting.iter().any(|(_, batch)| is_joint(batch)) || planted!(JointWriteTorn) {
            return waiting;
        }
        // By shard: its first batch that has to stay.
        let mut stays = vec![u64::MAX; self.written.len()];
        while let Some((shard, number)) = first_torn(&waiting, &stays) {
            stays[usize::from(shard.0)] = number;
        }
        let goes = |(shard, batch): &(ShardId, Box<Batch>)| batch.number < stays[usize::from(shard.0)];
        let (goes, stays) = waiting.into_iter().partition(goes);
        self.waiting = stays;
        goes
    }

    fn tell(&mut self) {
        let segment = self.segment();
        for (shard, written) in self.written.iter_mut().enumerate() {
            if let Some(upto) = written.take() {
                let shard = ShardId(u16::try_from(shard).expect("shards are few"));
                self.outputs.push(KeeperOutput::Stored { shard, upto, segment });
            }
        }
        self.shorten();
    }

    /// Frees segments that no shard needs, or asks for that when there are too many.
    fn shorten(&mut self) {
        if let Some(before) = self.renewing {
            if self.needs.iter().all(|needs| needs.is_some_and(|needs| needs >= before)) {
                // What cannot be removed is tried again the next time.
                let _ = self.wal.free_before(before);
                self.renewing = None;
                self.shortest = self.wal.bytes();
            }
            return;
        }
        if self.wal.bytes() > self.config.log_bytes_min.max(2 * self.shortest) {
            let before = self.segment();
            if self.wal.segments().next().is_some_and(|(first, _)| first < before) {
                if planted!(RenewalFreesEarly) {
                    let _ = self.wal.free_before(before);
                }
                self.renewing = Some(before);
                self.needs.fill(None);
                self.outputs.push(KeeperOutput::Renew { before });
            }
        }
    }

    fn failed(&mut self, error: &CommitError) {
        match error {
            CommitError::Full(_) => self.set_state(StoreState::Full),
            CommitError::Failed(_) => {
                self.set_state(StoreState::Failed);
                self.forget();
            }
        }
    }

    /// Nobody is told any more, so nothing is kept.
    fn forget(&mut self) {
        self.waiting.clear();
        self.ready = false;
        self.waiting_bytes = 0;
        self.unsynced = false;
    }

    fn set_state(&mut self, state: StoreState) {
        if core::mem::replace(&mut self.state, state) != state {
            self.outputs.push(KeeperOutput::State(state));
        }
    }

    /// What shards are to be told, in order.
    pub fn outputs(&mut self) -> impl Iterator<Item = KeeperOutput> {
        core::mem::take(&mut self.outputs).into_iter()
    }

    /// The segment that is being written.
    #[must_use]
    pub fn segment(&self) -> u64 {
        self.wal.segments().last().map_or(0, |(number, _)| number)
    }

    /// How the store is.
    #[must_use]
    pub fn state(&self) -> StoreState {
        self.state
    }

    /// Frames that were written, and syncs.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        self.counts
    }

    /// Length of the log in bytes.
    #[must_use]
    pub fn log_bytes(&self) -> u64 {
        self.wal.bytes()
    }
}

/// A batch that would be written without something that belongs to it, if all go that need not stay.
fn first_torn(waiting: &[(ShardId, Box<Batch>)], stays: &[u64]) -> Option<(ShardId, u64)> {
    let going = || waiting.iter().filter(|(shard, batch)| batch.number < stays[usize::from(shard.0)]);
    let mut found: BTreeMap<Joint, u32> = BTreeMap::new();
    for part in going().flat_map(|(_, batch)| &batch.parts) {
        *found.entry(*part).or_default() += 1;
    }
    let wanted: BTreeMap<Joint, u32> = going().filter_map(|(_, batch)| batch.joint).collect();
    let lacks =
        |batch: &Batch| batch.joint.is_some_and(|(joint, parts)| found.get(&joint).is_none_or(|of| *of < parts));
    // A part may be here before what began it.
    let early = |batch: &Batch| batch.parts.iter().any(|part| !wanted.contains_key(part));
    going().find(|(_, batch)| lacks(batch) || early(batch)).map(|(shard, batch)| (*shard, batch.number))
}
