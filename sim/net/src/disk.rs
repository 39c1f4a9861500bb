//! The disk of each node: files in memory that outlive it. What was not synced is lost with the node, or a part of it. There
//! are no folders, and nothing but what a log in one file needs.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use madsim::plugin::Simulator;
use madsim::rand::{GlobalRng, RngCore as _};
use madsim::task::NodeId;
use madsim::time::TimeHandle;

use crate::chance::mix;

/// The disks of a runtime.
#[derive(Debug, Default)]
pub struct Disk {
    nodes: Mutex<BTreeMap<NodeId, OnNode>>,
    seed: u64,
    /// Choices so far.
    drawn: AtomicU64,
}

#[derive(Debug, Default)]
struct OnNode {
    files: BTreeMap<PathBuf, Content>,
    /// Microseconds of a sync, from and to.
    sync_us: (u64, u64),
    /// Microseconds more.
    slow_us: u64,
}

#[derive(Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    /// So many of them outlive the power.
    synced: usize,
}

impl Simulator for Disk {
    fn new(rand: &GlobalRng, _: &TimeHandle, _: &madsim::Config) -> Disk {
        Disk { seed: rand.clone().next_u64(), ..Disk::default() }
    }
}

impl Disk {
    /// Those of the current runtime.
    ///
    /// # Panics
    /// Without a runtime, or without [`crate::install`].
    #[must_use]
    pub fn current() -> Arc<Disk> {
        madsim::plugin::simulator::<Disk>()
    }

    /// A number between two, both among the possible ones.
    fn draw(&self, low: u64, high: u64) -> u64 {
        let number = self.drawn.fetch_add(1, Ordering::Relaxed);
        low + mix(self.seed ^ number) % (high - low + 1)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, OnNode>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long syncs of a node take, in microseconds from and to.
    pub fn set_sync_us(&self, node: NodeId, sync_us: (u64, u64)) {
        self.lock().entry(node).or_default().sync_us = sync_us;
    }

    /// Syncs of a node take so much longer.
    pub fn set_slow_us(&self, node: NodeId, slow_us: u64) {
        self.lock().entry(node).or_default().slow_us = slow_us;
    }

    /// A node has lost its power: of what was not synced a part is there, by chance.
    pub fn lose_power(&self, node: NodeId) {
        for content in self.lock().entry(node).or_default().files.values_mut() {
            let end = self.draw(content.synced as u64, content.bytes.len() as u64) as usize;
            content.bytes.truncate(end);
            content.synced = end;
        }
    }

    /// A node has no files any more.
    pub fn wipe(&self, node: NodeId) {
        self.lock().entry(node).or_default().files.clear();
    }

    /// Waits as long as a sync of the current node takes. A disk that is slow no more ends it soon.
    pub async fn sync_time() {
        let (disk, node) = (Disk::current(), madsim::plugin::node());
        let of = |nodes: &BTreeMap<NodeId, OnNode>| nodes.get(&node).map_or(((0, 0), 0), |of| (of.sync_us, of.slow_us));
        let ((low, high), begun) = of(&disk.lock());
        let us = disk.draw(low, high.max(low));
        let mut waited = 0;
        loop {
            let (_, slow) = of(&disk.lock());
            // What makes it slow later is for the next one.
            let left = (us + slow.min(begun)).saturating_sub(waited);
            let part = left.min(LOOK_US);
            madsim::time::sleep(Duration::from_micros(part)).await;
            waited += part;
            if part == left {
                return;
            }
        }
    }
}

/// A sync looks so often whether its disk is still as slow, in microseconds.
const LOOK_US: u64 = 100_000;

/// A file of the current node.
#[derive(Debug)]
pub struct DiskFile {
    disk: Arc<Disk>,
    node: NodeId,
    path: PathBuf,
}

impl DiskFile {
    /// Opens a file for writing at its end, and reads it; none if it is not there.
    ///
    /// # Errors
    /// None.
    pub fn open(path: &Path) -> io::Result<Option<(DiskFile, Vec<u8>)>> {
        let file = DiskFile { disk: Disk::current(), node: madsim::plugin::node(), path: path.to_owned() };
        let bytes = {
            let mut nodes = file.disk.lock();
            nodes.entry(file.node).or_default().files.get(path).map(|content| content.bytes.clone())
        };
        Ok(bytes.map(|bytes| (file, bytes)))
    }

    /// A file with these bytes in place of another, synced.
    ///
    /// # Errors
    /// None.
    pub fn replace(path: &Path, _temporary: &Path, bytes: &[u8]) -> io::Result<DiskFile> {
        let file = DiskFile { disk: Disk::current(), node: madsim::plugin::node(), path: path.to_owned() };
        let content = Content { bytes: bytes.to_vec(), synced: bytes.len() };
        file.disk.lock().entry(file.node).or_default().files.insert(path.to_owned(), content);
        Ok(file)
    }

    /// Gives a file another name.
    ///
    /// # Errors
    /// It is not there.
    pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
        let disk = Disk::current();
        let mut nodes = disk.lock();
        let files = &mut nodes.entry(madsim::plugin::node()).or_default().files;
        let content = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), content);
        Ok(())
    }

    fn with(&self, change: impl FnOnce(&mut Content)) -> io::Result<()> {
        let mut nodes = self.disk.lock();
        let files = &mut nodes.entry(self.node).or_default().files;
        change(files.get_mut(&self.path).ok_or(io::ErrorKind::NotFound)?);
        Ok(())
    }

    /// Writes at the end.
    ///
    /// # Errors
    /// The file was taken away.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.with(|content| content.bytes.extend_from_slice(bytes))
    }

    /// Cuts everything off from there on.
    ///
    /// # Errors
    /// The file was taken away.
    pub fn cut(&mut self, end: u64) -> io::Result<()> {
        self.with(|content| {
            content.bytes.truncate(usize::try_from(end).unwrap_or(usize::MAX));
            content.synced = content.synced.min(content.bytes.len());
        })
    }

    /// Everything in it outlives the power from here on.
    ///
    /// # Errors
    /// The file was taken away.
    pub fn sync(&mut self) -> io::Result<()> {
        self.with(|content| content.synced = content.bytes.len())
    }
}
