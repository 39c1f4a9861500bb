//! The write-ahead log of a node: one sequence of segments that holds the records of several logs. Sans-IO: it works on a
//! [`Disk`] that its owner brings, so production and the simulator run the same code on a real and on a failing disk.
//!
//! It knows nothing of sessions. What a record says, and which records are still needed, its owner decides.

mod disk;
mod frame;
mod recovery;
mod wal;

pub use disk::{Disk, DiskError};
pub use frame::{FORMAT, Item, put_varint, take_varint};
pub use recovery::{Chunk, Damage, Gap, OpenError, Opening, Recovered, Report, Torn};
pub use wal::{CommitError, Wal, WalConfig};

/// One of the logs that share the segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogId(pub u32);

/// Names bytes that several records refer to. They are stored once in each segment that refers to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId(pub u64);

/// A place in the sequence of segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// Number of the segment, from 1.
    pub segment: u64,
    /// Byte in it.
    pub offset: u64,
}

/// Ending of the names of segments; the rest is their number in hexadecimal.
const SEGMENT_ENDING: &str = ".wal";

/// Name of a segment's file.
#[must_use]
pub fn segment_name(number: u64) -> String {
    format!("{number:016x}{SEGMENT_ENDING}")
}

/// Number of a segment's file; none if the name is another file's.
#[must_use]
pub fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SEGMENT_ENDING)?;
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok())?
}
