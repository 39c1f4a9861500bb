//! The thread that writes the log. It takes the batches of all shards, writes them together, has them synced together and
//! tells the shards. Drivers give it batches and never wait for it; when too many bytes wait, they stop reading.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use newtmq_base::ShardId;
use newtmq_node::{Batch, Durability, Keeper, KeeperNext, KeeperOutput, StoreState};
use newtmq_store::Disk;
use tokio::sync::oneshot;

use crate::driver::Office;

/// Above so many bytes that wait to be written, no driver reads; below half of it they read again. A disk without space
/// takes nothing, and what needs it is refused: four times as much may wait then.
pub const WAITING_MAX: usize = 64 << 20;
/// Nobody waits for others when so many bytes wait.
const GROUP_BYTES: usize = 1 << 20;
/// What nobody waits for is written after this at the latest.
const UNASKED: Duration = Duration::from_millis(10);
/// Without a write for so long, the log itself tells how far it is good.
const REST: Duration = Duration::from_secs(1);
/// How long a disk without space is left alone.
const RETRY: Duration = Duration::from_millis(200);

/// What the writer tells a driver.
#[derive(Debug)]
pub enum News {
    /// Batches are stored.
    Stored {
        /// All up to this one.
        upto: u64,
        /// The segment that is being written.
        segment: u64,
    },
    /// How the store is.
    State(StoreState),
    /// Segments are to be freed.
    Renew {
        /// The first one that stays.
        before: u64,
    },
    /// Drivers may read again.
    Room,
}

/// Bytes on their way to the disk.
#[derive(Debug, Default)]
struct Gauge {
    waiting: AtomicUsize,
    /// The disk has no space.
    full: AtomicBool,
    /// Some driver does not read, and is to hear when there is room.
    held: AtomicBool,
    /// How often one has stopped.
    holds: AtomicU64,
}

/// A driver's way to the writer.
#[derive(Debug, Clone)]
pub struct Desk {
    to: Sender<(ShardId, Box<Batch>)>,
    gauge: Arc<Gauge>,
}

impl Desk {
    /// Has a batch stored.
    pub fn give(&self, shard: ShardId, batch: Box<Batch>) {
        self.gauge.waiting.fetch_add(batch.bytes(), Ordering::SeqCst);
        // Without a writer the store has failed, and the shards know.
        let _ = self.to.send((shard, batch));
    }

    /// Whether the disk is behind so far that nothing may be read. [`News::Room`] follows then.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        let above = || {
            let full = self.gauge.full.load(Ordering::SeqCst);
            self.gauge.waiting.load(Ordering::SeqCst) > if full { 4 * WAITING_MAX } else { WAITING_MAX }
        };
        if !above() {
            return false;
        }
        // The writer may have made room between the two; it looks at the flag afterwards.
        self.gauge.held.store(true, Ordering::SeqCst);
        let behind = above();
        if behind {
            self.gauge.holds.fetch_add(1, Ordering::Relaxed);
        }
        behind
    }
}

/// The writer's thread, as the node sees it.
#[derive(Debug)]
pub struct Writer {
    ended: oneshot::Receiver<()>,
}

impl Writer {
    /// Starts the thread. It ends when every desk is gone and everything is written and synced.
    ///
    /// # Errors
    /// The operating system's.
    pub fn start<S: Send + 'static>(
        keeper: Keeper<impl Disk + Send + 'static>,
        group_wait: Duration,
        office: Office<S>,
    ) -> io::Result<(Writer, Desk)> {
        let (to, given) = mpsc::channel();
        let gauge = Arc::new(Gauge::default());
        let desk = Desk { to, gauge: Arc::clone(&gauge) };
        let (end, ended) = oneshot::channel();
        let run = Run { keeper, group_wait, given, gauge, office: Telling(office), rested: true };
        thread::Builder::new().name("store".to_owned()).spawn(move || {
            run.run_to_the_end();
            let _ = end.send(());
        })?;
        Ok((Writer { ended }, desk))
    }

    /// Waits for its end.
    pub async fn end(self) {
        let _ = self.ended.await;
    }
}

/// Tells all shards that the store has failed when the thread dies.
struct Telling<S>(Office<S>);

impl<S> Drop for Telling<S> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store_to_all(|| News::State(StoreState::Failed));
        }
    }
}

struct Run<D, S> {
    keeper: Keeper<D>,
    group_wait: Duration,
    given: Receiver<(ShardId, Box<Batch>)>,
    gauge: Arc<Gauge>,
    office: Telling<S>,
    rested: bool,
}

impl<D: Disk, S> Run<D, S> {
    fn run_to_the_end(mut self) {
        let mut open = true;
        loop {
            match self.keeper.next() {
                KeeperNext::Wait | KeeperNext::Failed if !open => break,
                KeeperNext::Wait => open = self.gather(),
                KeeperNext::Write => self.write(),
                KeeperNext::Sync => self.keeper.sync(),
                KeeperNext::Retry => {
                    open = open && self.gather_for(RETRY);
                    self.write();
                    if !open && self.keeper.state() == StoreState::Full {
                        tracing::warn!("what waited for space on the disk is not stored; nobody was told that it is");
                        break;
                    }
                }
                KeeperNext::Failed => match self.given.recv() {
                    Ok((_, batch)) => self.took(batch.bytes()),
                    Err(_) => open = false,
                },
            }
            self.tell();
        }
        // What nobody waited for is synced, too, and the log tells it.
        if self.keeper.state() == StoreState::Open {
            self.keeper.sync();
            self.keeper.rest();
        }
        self.tell();
        let (writes, syncs) = self.keeper.counts();
        let holds = self.gauge.holds.load(Ordering::Relaxed);
        tracing::info!(writes, syncs, holds, state = ?self.keeper.state(), "the store is closed");
    }

    /// Waits for a batch and for what comes along. False when nobody is left who could give one.
    fn gather(&mut self) -> bool {
        let first = match (self.rested, self.given.try_recv()) {
            (_, Ok(first)) => Ok(first),
            (true, Err(_)) => self.given.recv().map_err(|_| RecvTimeoutError::Disconnected),
            (false, Err(_)) => self.given.recv_timeout(REST),
        };
        let durability = match first {
            Ok((shard, batch)) => self.keeper.give(shard, batch),
            Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => {
                self.keeper.rest();
                self.rested = true;
                return true;
            }
        };
        self.rested = false;
        let started = Instant::now();
        let mut until = self.patience(durability);
        loop {
            while let Ok((shard, batch)) = self.given.try_recv() {
                until = until.min(self.patience_of(shard, batch));
                if self.keeper.waiting_bytes() >= GROUP_BYTES {
                    return true;
                }
            }
            let Some(left) = until.checked_sub(started.elapsed()).filter(|left| !left.is_zero()) else { return true };
            match self.given.recv_timeout(left) {
                Ok((shard, batch)) => until = until.min(self.patience_of(shard, batch)),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    fn patience_of(&mut self, shard: ShardId, batch: Box<Batch>) -> Duration {
        let durability = self.keeper.give(shard, batch);
        self.patience(durability)
    }

    /// How long it may wait for others.
    fn patience(&self, durability: Durability) -> Duration {
        match durability {
            Durability::Memory => UNASKED.max(self.group_wait),
            Durability::Synced => self.group_wait,
            Durability::Written | Durability::SyncedAtOnce => Duration::ZERO,
        }
    }

    /// Takes what comes for some time.
    fn gather_for(&mut self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            match self.given.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok((shard, batch)) => drop(self.keeper.give(shard, batch)),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    fn write(&mut self) {
        let before = self.keeper.waiting_bytes();
        self.keeper.write();
        self.took(before.saturating_sub(self.keeper.waiting_bytes()));
    }

    /// So many bytes do not wait any more.
    fn took(&self, bytes: usize) {
        let before = self.gauge.waiting.fetch_sub(bytes, Ordering::SeqCst);
        if before.saturating_sub(bytes) < WAITING_MAX / 2 && self.gauge.held.swap(false, Ordering::SeqCst) {
            self.office.0.store_to_all(|| News::Room);
        }
    }

    fn tell(&mut self) {
        for output in self.keeper.outputs() {
            let office = &self.office.0;
            match output {
                KeeperOutput::Stored { shard, upto, segment } => office.store(shard, News::Stored { upto, segment }),
                KeeperOutput::Renew { before } => office.store_to_all(|| News::Renew { before }),
                KeeperOutput::State(state) => {
                    self.gauge.full.store(state == StoreState::Full, Ordering::SeqCst);
                    match state {
                        StoreState::Open => tracing::info!("the disk has space again; everything is stored"),
                        StoreState::Full => tracing::error!(
                            "the disk is full: what has to be stored is refused or not acknowledged until there is space"
                        ),
                        StoreState::Failed => tracing::error!(
                            "the store has failed: nothing durable is accepted any more; restart the broker when the \
                             disk works"
                        ),
                    }
                    office.store_to_all(|| News::State(state));
                }
            }
        }
    }
}
