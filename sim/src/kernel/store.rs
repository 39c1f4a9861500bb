//! A node's store: its keeper in time, on the node's disk. What the process has not synced is lost with the power; what a
//! start finds goes to the shards.

use core::time::Duration;

use newtmq_base::{Instant, ShardId};
use newtmq_node::{Batch, Durability, Keeper, KeeperConfig, KeeperNext, KeeperOutput, Replay, ShardInput};
use newtmq_store::{Opening, Recovered, WalConfig};

use super::World;
use super::disk::{Mounted, SharedDisk};
use super::queue::Happening;
use crate::draw::Stream;
use crate::report::Check;

/// So small that a scenario has several segments, and makes the log shorter.
const SEGMENT_BYTES: u64 = 4 << 10;
const LOG_BYTES_MIN: u64 = 16 << 10;
/// How much of the log is read at a time.
const CHUNK_BYTES: usize = 1 << 10;
/// How much of it a shard gets at a time.
const HANDED_AT_ONCE: usize = 2;
/// How long a disk without space is left alone.
const RETRY: Duration = Duration::from_millis(20);
/// Without a write for so long, the log says how far it is good.
const REST: Duration = Duration::from_millis(50);

/// The store of a running node.
#[derive(Debug)]
pub(super) struct Store {
    keeper: Keeper<Mounted>,
    disk: SharedDisk,
    /// Something is to be done then.
    due: Instant,
    chance: Stream,
    /// By shard: the oldest batch that wants a sync and is not told of.
    to_sync: Vec<Option<u64>>,
}

impl Store {
    /// Opens what is on the disk; and what it holds.
    pub(super) fn open(disk: &SharedDisk, shards: u16, chance: Stream) -> (Store, Replay) {
        let config = WalConfig { segment_bytes: SEGMENT_BYTES };
        let mounted = Mounted(SharedDisk::clone(disk));
        let mut opening =
            Opening::start(mounted, config).expect("the disk was written by this version and can be read");
        let mut replay = Replay::default();
        while let Some(chunk) = opening.next_chunk(CHUNK_BYTES).expect("the disk can be read") {
            for item in chunk.items {
                match item {
                    Recovered::Blob { id, bytes } => replay.block(id.0, &bytes),
                    Recovered::Record { segment, bytes, .. } => replay.record(&bytes, segment),
                    Recovered::SegmentEnd { .. } => replay.segment_end(),
                }
            }
        }
        let (wal, _) = opening.finish().expect("a node starts when its disk has room");
        let keeper = Keeper::new(wal, KeeperConfig { log_bytes_min: LOG_BYTES_MIN }, shards);
        (
            Store {
                keeper,
                disk: SharedDisk::clone(disk),
                due: Instant::NEVER,
                chance,
                to_sync: vec![None; shards.into()],
            },
            replay,
        )
    }
}

impl World<'_, '_> {
    /// A shard has something to store.
    pub(super) fn on_store(&mut self, node: u16, shard: u16, batch: Box<Batch>) {
        let of = &mut self.nodes[usize::from(node)];
        let store = of.store.as_mut().expect("a shard stores only if there is a store");
        if batch.durability >= Durability::Synced {
            store.to_sync[usize::from(shard)].get_or_insert(batch.number);
        }
        store.keeper.give(ShardId(shard), batch);
        self.arm_store(node);
    }

    /// The disk has done what it was asked for, or is asked again.
    pub(super) fn on_disk(&mut self, node: u16) {
        let now = self.queue.now();
        let Some(store) = &mut self.nodes[usize::from(node)].store else { return };
        if store.due > now {
            // Replaced by another.
            return;
        }
        store.due = Instant::NEVER;
        match store.keeper.next() {
            KeeperNext::Wait => store.keeper.rest(),
            KeeperNext::Write | KeeperNext::Retry => store.keeper.write(),
            KeeperNext::Sync => store.keeper.sync(),
            KeeperNext::Failed => {}
        }
        let resting = store.keeper.next() == KeeperNext::Wait;
        let outputs: Vec<KeeperOutput> = store.keeper.outputs().collect();
        if resting && outputs.iter().any(|output| matches!(output, KeeperOutput::Stored { .. })) {
            store.due = now + REST;
            let start = self.nodes[usize::from(node)].start;
            self.queue.push(now + REST, Happening::Disk { node, start });
        } else {
            self.arm_store(node);
        }
        for output in outputs {
            match output {
                KeeperOutput::Stored { shard, upto, segment } => {
                    self.look_at_disk(node, shard, upto);
                    self.input(node, shard.0, ShardInput::Stored { upto, segment });
                }
                KeeperOutput::State(state) => self.input_all(node, || ShardInput::Store(state)),
                KeeperOutput::Renew { before } => self.input_all(node, || ShardInput::Renew { before }),
            }
        }
    }

    /// What is told to be stored survives a power loss.
    fn look_at_disk(&mut self, node: u16, shard: ShardId, upto: u64) {
        let Some(store) = &mut self.nodes[usize::from(node)].store else { return };
        if store.to_sync[usize::from(shard.0)].take_if(|number| *number <= upto).is_none() {
            return;
        }
        self.observer.findings.obligations.count(Check::Stored, 1);
        if !store.disk.borrow().is_synced() {
            let what = format!("batch {upto} is told to be stored, and the disk has something that is not synced");
            self.found(Check::Stored, node, shard.0, what);
        }
    }

    fn input_all<'i>(&mut self, node: u16, input: impl Fn() -> ShardInput<'i>) {
        for shard in 0..self.nodes[usize::from(node)].shards.len() {
            self.input(node, shard as u16, input());
        }
    }

    pub(super) fn arm_store(&mut self, node: u16) {
        let (now, disk) = (self.queue.now(), &self.scenario.disk);
        let of = &mut self.nodes[usize::from(node)];
        let Some(store) = &mut of.store else { return };
        let takes = match store.keeper.next() {
            KeeperNext::Wait | KeeperNext::Failed => return,
            KeeperNext::Retry => RETRY,
            KeeperNext::Write => {
                Duration::from_micros(store.chance.between(*disk.write_us.start(), *disk.write_us.end()))
            }
            KeeperNext::Sync => {
                let slow = store.disk.borrow().slow_us;
                Duration::from_micros(store.chance.between(*disk.sync_us.start(), *disk.sync_us.end()) + slow)
            }
        };
        let at = now + takes;
        if store.due <= at && store.due > now {
            return;
        }
        store.due = at;
        self.queue.push(at, Happening::Disk { node, start: of.start });
    }

    /// What was stored goes to the shards of a node that has just started.
    pub(super) fn hand_out(&mut self, node: u16, replay: Replay) {
        let zone = self.config.zones[0].session;
        let mut dividing = replay.divide(self.shards);
        loop {
            // Client Identifiers and Topic Names are divided alike.
            let first = &self.nodes[usize::from(node)].shards[0].shard;
            let next = dividing.next_chunk(HANDED_AT_ONCE, |name| first.home(name).0, |_| zone);
            let Some((shard, chunk)) = next else { return };
            self.input(node, shard.0, ShardInput::Recovered(Box::new(chunk)));
        }
    }
}
