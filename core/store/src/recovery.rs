//! Opening: reads the segments from the oldest on, piece by piece, and tells a torn end from damage.
//!
//! What was durable is below the mark that every later frame carries. A bad frame below such a mark is damage: the
//! segment is put aside as it is, and what is good around the damage is used. A bad frame that no mark covers, at the end of
//! the last segment, is a write that was never promised to anybody: it is cut off. Either way the log opens.

use std::collections::{BTreeMap, VecDeque};

use newtmq_base::planted;

use crate::disk::{Disk, DiskError};
use crate::frame::{Frame, HEAD_BYTES, HeadError, Item, check_head, segment_head};
use crate::wal::{Wal, WalConfig};
use crate::{BlobId, FORMAT, LogId, Position, segment_name, segment_number};

/// Why a log cannot be opened. Nothing has been changed then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// A segment was written by a newer version.
    #[error("{file} has format {format}; this program reads up to {FORMAT}. Nothing was changed")]
    Newer {
        /// The segment's file.
        file: String,
        /// Its format.
        format: u32,
    },
    /// The disk does not work.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// A log that is being opened.
#[derive(Debug)]
pub struct Opening<D> {
    disk: D,
    config: WalConfig,
    /// Not read yet, oldest first.
    todo: VecDeque<u64>,
    /// Read, with their lengths.
    done: VecDeque<(u64, u64)>,
    current: Option<Current>,
    next: BTreeMap<LogId, u64>,
    report: Report,
    total: usize,
}

#[derive(Debug)]
struct Current {
    number: u64,
    bytes: Vec<u8>,
    at: usize,
    /// The highest mark of any frame from here on, this segment's and the later ones'.
    durable: Position,
    damaged: bool,
    /// Start and end of each whole frame.
    frames: Vec<(usize, usize)>,
}

/// Some of what was in the log, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chunk {
    /// Records and the blobs that they refer to.
    pub items: Vec<Recovered>,
    /// Segments that have been read.
    pub segments_done: usize,
    /// Segments that there are.
    pub segments: usize,
}

/// A piece of a [`Chunk`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recovered {
    /// Bytes that records of this segment refer to.
    Blob {
        /// Their name.
        id: BlobId,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// An entry of a log.
    Record {
        /// Which log.
        log: LogId,
        /// Its place there.
        number: u64,
        /// The segment that holds it.
        segment: u64,
        /// What it says.
        bytes: Vec<u8>,
    },
    /// A segment has ended: no later record refers to its blobs.
    SegmentEnd {
        /// Its number.
        segment: u64,
    },
}

/// A write that was not completed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torn {
    /// The segment's file.
    pub file: String,
    /// Where it was cut off.
    pub offset: u64,
    /// Bytes that were cut off.
    pub bytes: u64,
}

/// A segment with bytes that are not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Where a copy of it is now; the segment itself if there was no space for a copy.
    pub file: String,
    /// Bytes that could not be read as records.
    pub bytes: u64,
}

/// Records that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Of which log.
    pub log: LogId,
    /// The first one.
    pub first: u64,
    /// How many.
    pub count: u64,
}

/// What was found when a log was opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// Records that were read.
    pub records: u64,
    /// The end that was cut off, if it was torn.
    pub torn: Option<Torn>,
    /// Segments that were put aside.
    pub damaged: Vec<Damage>,
    /// What may be missing, exactly.
    pub gaps: Vec<Gap>,
}

impl Current {
    /// Goes behind the frame that begins here, if it is whole, and returns its length.
    fn whole_frame(&mut self) -> Option<usize> {
        let len = Frame::parse(&self.bytes[self.at..], self.number)?.len;
        self.frames.push((self.at, self.at + len));
        self.at += len;
        Some(len)
    }
}

impl<D: Disk> Opening<D> {
    /// Looks at the files. Nothing is changed yet.
    ///
    /// # Errors
    /// A newer format, or the disk.
    pub fn start(mut disk: D, config: WalConfig) -> Result<Opening<D>, OpenError> {
        let mut numbers: Vec<u64> = disk.list()?.iter().filter_map(|name| segment_number(name)).collect();
        numbers.sort_unstable();
        for number in &numbers {
            let file = segment_name(*number);
            if let Err(HeadError::Newer(format)) = check_head(&disk.read(&file, 0, HEAD_BYTES)?, *number) {
                return Err(OpenError::Newer { file, format });
            }
        }
        Ok(Opening {
            disk,
            config,
            total: numbers.len(),
            todo: numbers.into(),
            done: VecDeque::new(),
            current: None,
            next: BTreeMap::new(),
            report: Report::default(),
        })
    }

    /// The next records, about `max_bytes` of them; none at the end.
    ///
    /// # Errors
    /// The disk's.
    pub fn next_chunk(&mut self, max_bytes: usize) -> Result<Option<Chunk>, DiskError> {
        let mut items = Vec::new();
        let mut bytes = 0;
        while bytes < max_bytes {
            if self.current.is_none() && !self.next_segment()? {
                break;
            }
            let Some(mut current) = self.current.take() else { break };
            match self.next_frame(&mut current) {
                Some(frame) => {
                    let start = current.at - frame;
                    let parsed = Frame::parse(&current.bytes[start..], current.number);
                    for item in parsed.iter().flat_map(Frame::items) {
                        bytes += self.take(item, current.number, &mut items);
                    }
                    self.current = Some(current);
                }
                None => {
                    items.push(Recovered::SegmentEnd { segment: current.number });
                    self.finish_segment(&current)?;
                }
            }
        }
        let none = items.is_empty() && self.current.is_none() && self.todo.is_empty();
        Ok((!none).then_some(Chunk { items, segments_done: self.done.len(), segments: self.total }))
    }

    fn take(&mut self, item: Item<'_>, segment: u64, items: &mut Vec<Recovered>) -> usize {
        match item {
            Item::Blob { id, bytes } => {
                items.push(Recovered::Blob { id, bytes: bytes.to_vec() });
                bytes.len()
            }
            Item::Record { log, number, bytes } => {
                let next = self.next.entry(log).or_insert(number);
                if number > *next {
                    self.report.gaps.push(Gap { log, first: *next, count: number - *next });
                }
                *next = number + 1;
                self.report.records += 1;
                items.push(Recovered::Record { log, number, segment, bytes: bytes.to_vec() });
                bytes.len() + size_of::<Recovered>()
            }
        }
    }

    /// Reads the next segment; false if there is none.
    fn next_segment(&mut self) -> Result<bool, DiskError> {
        let Some(number) = self.todo.pop_front() else { return Ok(false) };
        let bytes = self.disk.read(&segment_name(number), 0, usize::MAX)?;
        // A later segment is only made when everything before it is durable.
        let mut durable = Position::default();
        if !self.todo.is_empty() {
            durable = Position { segment: number, offset: u64::MAX };
        }
        let mut at = 0;
        while let Some(found) = Frame::find(&bytes, at, number) {
            let Some(frame) = Frame::parse(&bytes[found..], number) else { break };
            durable = durable.max(frame.durable);
            at = found + frame.len;
        }
        let head = check_head(&bytes, number);
        let start = HEAD_BYTES.min(bytes.len());
        let damaged = head == Err(HeadError::Damaged);
        self.current = Some(Current { number, bytes, at: start, durable, damaged, frames: Vec::new() });
        Ok(true)
    }

    /// Goes behind the next whole frame and returns its length; none at the end, or where the rest was torn.
    fn next_frame(&mut self, current: &mut Current) -> Option<usize> {
        let number = current.number;
        if let Some(len) = current.whole_frame() {
            return Some(len);
        }
        if current.at == current.bytes.len() {
            return None;
        }
        let bad = Position { segment: number, offset: current.at as u64 };
        if bad >= current.durable || planted!(DamageIsTorn) {
            return None;
        }
        current.damaged = true;
        let found = Frame::find(&current.bytes, current.at, number);
        let skipped = found.unwrap_or(current.bytes.len()) - current.at;
        self.note_damage(number, skipped as u64);
        current.at += skipped;
        current.whole_frame()
    }

    fn note_damage(&mut self, number: u64, bytes: u64) {
        let file = quarantine_name(number);
        match self.report.damaged.last_mut() {
            Some(damage) if damage.file == file => damage.bytes += bytes,
            _ => self.report.damaged.push(Damage { file, bytes }),
        }
    }

    /// Puts a damaged segment aside, or cuts a torn end off.
    fn finish_segment(&mut self, current: &Current) -> Result<(), DiskError> {
        let name = segment_name(current.number);
        let len = current.bytes.len() as u64;
        if current.damaged {
            if self.report.damaged.last().is_none_or(|damage| damage.file != quarantine_name(current.number)) {
                self.note_damage(current.number, HEAD_BYTES as u64);
            }
            match self.put_aside(current) {
                Err(DiskError::Full { .. }) if !planted!(DamageStopsStart) => self.leave(current.number),
                result => result?,
            }
        } else if current.at < current.bytes.len() {
            let offset = current.at as u64;
            self.report.torn = Some(Torn { file: name.clone(), offset, bytes: len - offset });
            self.disk.truncate(&name, offset)?;
        }
        if self.todo.is_empty() {
            // What a process left unsynced is used from here on, so it may not be lost any more.
            self.disk.sync(&name)?;
        }
        self.done.push_back((current.number, len));
        Ok(())
    }

    /// Keeps the segment as it was found under another name, and leaves its whole frames in its place.
    fn put_aside(&mut self, current: &Current) -> Result<(), DiskError> {
        let (name, copy) = (segment_name(current.number), quarantine_name(current.number));
        let good = format!("{name}.new");
        self.disk.create(&copy)?;
        self.disk.append(&copy, &current.bytes)?;
        self.disk.sync(&copy)?;
        self.disk.create(&good)?;
        self.disk.append(&good, &segment_head(current.number))?;
        for (start, end) in &current.frames {
            self.disk.append(&good, &current.bytes[*start..*end])?;
        }
        self.disk.sync(&good)?;
        self.disk.sync_names()?;
        self.disk.rename(&good, &name)?;
        self.disk.sync_names()
    }

    /// There is no space to put a damaged segment aside: it stays as it is, and the next start finds it so.
    fn leave(&mut self, number: u64) {
        let name = segment_name(number);
        for half in [quarantine_name(number), format!("{name}.new")] {
            // One that stays is written anew when there is space.
            let _ = self.disk.remove(&half);
        }
        if let Some(damage) = self.report.damaged.last_mut() {
            damage.file = name;
        }
    }

    /// What was found so far.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The log, open for writing, and what was found. Everything must have been read.
    ///
    /// # Errors
    /// The disk's: a new segment cannot be made.
    ///
    /// # Panics
    /// If [`Opening::next_chunk`] has not said that it is at the end.
    pub fn finish(self) -> Result<(Wal<D>, Report), DiskError> {
        assert!(self.todo.is_empty() && self.current.is_none(), "the log is read to its end before it is written");
        let wal = Wal::new(self.disk, self.config, self.done, self.next)?;
        Ok((wal, self.report))
    }
}

/// Name of the copy of a damaged segment.
fn quarantine_name(number: u64) -> String {
    format!("{}.damaged", segment_name(number))
}
