//! Writing: records gather in a frame, a commit appends it and syncs it if that is wanted. Segments are freed from the
//! oldest on when their owner needs nothing of them any more.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use newtmq_base::planted;

use crate::disk::{Disk, DiskError};
use crate::frame::{FrameBuilder, HEAD_BYTES, segment_head};
use crate::{BlobId, LogId, Position, segment_name};

/// Sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalConfig {
    /// A segment that has reached this is followed by a new one.
    pub segment_bytes: u64,
}

impl Default for WalConfig {
    fn default() -> Self {
        WalConfig { segment_bytes: 64 << 20 }
    }
}

/// Why a commit did not come to an end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// There is no space. Nothing is lost: the frame waits, and the next commit writes it first.
    #[error("{0}")]
    Full(DiskError),
    /// What was written since the last sync may or may not be there. The log takes nothing more; only opening it anew tells.
    #[error("{0}; the store takes no more writes")]
    Failed(DiskError),
}

/// An open log.
#[derive(Debug)]
pub struct Wal<D> {
    disk: D,
    config: WalConfig,
    /// Oldest first, the last one is written to. Each with its length.
    segments: VecDeque<(u64, u64)>,
    /// Blobs that the last segment has.
    blobs: BTreeSet<BlobId>,
    /// Number of the next record, by log.
    next: BTreeMap<LogId, u64>,
    frame: FrameBuilder,
    /// The frame was sealed and could not be written.
    stuck: bool,
    /// There was no space for a segment of this process' own when the log was opened.
    unbegun: bool,
    /// Everything before it survives a power loss.
    durable: Position,
    /// The durable end that the segment itself tells.
    told: Position,
    /// The last frame has nothing but that.
    rests: bool,
    failed: Option<DiskError>,
}

impl<D: Disk> Wal<D> {
    pub(crate) fn new(
        disk: D,
        config: WalConfig,
        segments: VecDeque<(u64, u64)>,
        next: BTreeMap<LogId, u64>,
    ) -> Result<Wal<D>, DiskError> {
        let mut wal = Wal {
            disk,
            config,
            segments,
            blobs: BTreeSet::new(),
            next,
            frame: FrameBuilder::default(),
            stuck: false,
            unbegun: true,
            durable: Position::default(),
            told: Position::default(),
            rests: false,
            failed: None,
        };
        // Always a new segment: what an earlier process wrote is never appended to.
        match wal.start_segment() {
            Ok(()) => Ok(wal),
            Err(DiskError::Full { .. }) if !planted!(FullDiskStopsStart) => Ok(wal),
            Err(error) => Err(error),
        }
    }

    /// Makes bytes known to the records that follow. Says whether they had to be written.
    pub fn blob(&mut self, id: BlobId, bytes: impl AsRef<[u8]>) -> bool {
        assert!(!self.stuck, "a frame that could not be written is written first");
        let is_new = self.blobs.insert(id);
        if is_new {
            self.frame.blob(id, bytes.as_ref());
        }
        is_new
    }

    /// Adds a record to the frame. Returns its number in its log.
    pub fn record(&mut self, log: LogId, bytes: &[u8]) -> u64 {
        assert!(!self.stuck, "a frame that could not be written is written first");
        let next = self.next.entry(log).or_insert(1);
        let number = *next;
        *next += 1;
        self.frame.record(log, number, bytes);
        number
    }

    /// Bytes that the next commit writes.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.frame.len()
    }

    /// Whether a frame waits for space.
    #[must_use]
    pub fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// Writes the frame; with `sync` it survives a power loss when this returns.
    ///
    /// # Errors
    /// [`CommitError::Full`]: try again later. [`CommitError::Failed`]: for good.
    pub fn commit(&mut self, sync: bool) -> Result<(), CommitError> {
        if let Some(error) = &self.failed {
            return Err(CommitError::Failed(error.clone()));
        }
        if self.unbegun {
            self.begin()?;
        }
        // Also one that says only how far the log is durable.
        if (self.stuck && !planted!(RestFrameStuck)) || !self.frame.is_empty() {
            self.write_frame()?;
        }
        if sync {
            self.sync()?;
        }
        if self.last().1 >= self.config.segment_bytes {
            self.rotate()?;
        }
        Ok(())
    }

    /// Has the segment itself tell how far it is durable: for when nothing is written for a while.
    ///
    /// # Errors
    /// As [`Wal::commit`].
    pub fn harden(&mut self) -> Result<(), CommitError> {
        if self.unbegun
            || self.rests
            || self.told >= self.durable
            || self.stuck
            || !self.frame.is_empty()
            || self.failed.is_some()
        {
            return Ok(());
        }
        self.write_frame()?;
        // What is written next says of this frame, too, that it is durable: else all behind it would hang on it.
        if planted!(RestFrameUncounted) {
            self.sync_segment()?;
        } else {
            self.sync()?;
        }
        self.rests = true;
        Ok(())
    }

    /// The segment that there was no space for when the log was opened.
    fn begin(&mut self) -> Result<(), CommitError> {
        match self.start_segment() {
            Ok(()) => Ok(()),
            Err(error @ DiskError::Full { .. }) => Err(CommitError::Full(error)),
            Err(error) => Err(self.fail(error)),
        }
    }

    fn last(&self) -> (u64, u64) {
        *self.segments.back().expect("an open log has a segment")
    }

    fn write_frame(&mut self) -> Result<(), CommitError> {
        let (number, len) = self.last();
        let name = segment_name(number);
        let bytes = self.frame.seal(number, self.durable);
        let added = bytes.len() as u64;
        match self.disk.append(&name, bytes) {
            Ok(()) => {}
            Err(error @ DiskError::Full { .. }) => {
                self.stuck = true;
                // A part of it may be there; nothing may follow that.
                return match self.disk.truncate(&name, len) {
                    Ok(()) => Err(CommitError::Full(error)),
                    Err(error) => Err(self.fail(error)),
                };
            }
            Err(error @ DiskError::Failed { .. }) => return Err(self.fail(error)),
        }
        (self.stuck, self.rests) = (false, false);
        self.frame.clear();
        self.told = self.durable;
        self.segments.back_mut().expect("an open log has a segment").1 += added;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), CommitError> {
        let (number, len) = self.last();
        let end = Position { segment: number, offset: len };
        if self.durable == end {
            return Ok(());
        }
        self.sync_segment()?;
        self.durable = end;
        Ok(())
    }

    fn sync_segment(&mut self) -> Result<(), CommitError> {
        let name = segment_name(self.last().0);
        self.disk.sync(&name).map_err(|error| self.fail(error))
    }

    /// Everything before a new segment is durable.
    fn rotate(&mut self) -> Result<(), CommitError> {
        self.sync()?;
        match self.start_segment() {
            Ok(()) => Ok(()),
            // The old one grows on until there is space.
            Err(DiskError::Full { .. }) => Ok(()),
            Err(error) => Err(self.fail(error)),
        }
    }

    fn start_segment(&mut self) -> Result<(), DiskError> {
        let number = self.segments.back().map_or(1, |(number, _)| number + 1);
        let name = segment_name(number);
        let made = self.make_segment(&name, number);
        if let Err(error) = made {
            // Without its head it is no segment; the next attempt starts it anew.
            let _ = self.disk.remove(&name);
            return Err(error);
        }
        self.unbegun = false;
        self.segments.push_back((number, HEAD_BYTES as u64));
        if !planted!(BlobNotRenewed) {
            self.blobs.clear();
        }
        self.durable = Position { segment: number, offset: HEAD_BYTES as u64 };
        self.told = Position::default();
        Ok(())
    }

    fn make_segment(&mut self, name: &str, number: u64) -> Result<(), DiskError> {
        self.disk.create(name)?;
        self.disk.append(name, &segment_head(number))?;
        self.disk.sync(name)?;
        self.disk.sync_names()
    }

    fn fail(&mut self, error: DiskError) -> CommitError {
        self.failed = Some(error.clone());
        CommitError::Failed(error)
    }

    /// Numbers of the segments, oldest first, each with its length in bytes; the last one is being written.
    pub fn segments(&self) -> impl Iterator<Item = (u64, u64)> {
        self.segments.iter().copied()
    }

    /// Length of all segments in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|(_, len)| len).sum()
    }

    /// The number that the next record of a log gets.
    #[must_use]
    pub fn next_number(&self, log: LogId) -> u64 {
        self.next.get(&log).copied().unwrap_or(1)
    }

    /// Everything before it survives a power loss.
    #[must_use]
    pub fn durable(&self) -> Position {
        self.durable
    }

    /// Removes the segments before `first`: nothing that is still needed is in them alone.
    ///
    /// # Errors
    /// The disk's; what could not be removed is tried again next time.
    pub fn free_before(&mut self, first: u64) -> Result<(), DiskError> {
        while let Some((number, _)) = self.segments.front().copied()
            && number < first
            && self.segments.len() > 1
        {
            self.disk.remove(&segment_name(number))?;
            self.segments.pop_front();
            // One after the other: an older one that comes back without the later ones would tell what is not so any more.
            if !planted!(FreedInAnyOrder) {
                self.disk.sync_names()?;
            }
        }
        Ok(())
    }

    /// The disk, for its owner.
    pub fn disk(&mut self) -> &mut D {
        &mut self.disk
    }

    /// Gives the disk back; what was not committed is lost.
    #[must_use]
    pub fn into_disk(self) -> D {
        self.disk
    }
}
