//! The node's log of the cluster: what its part in the meta group and in the owned logs has promised, in one file that a
//! thread of its own writes, so that the control plane never waits for the disk.
//!
//! ```text
//! file    magic "NEWTCLU\n", u32 format, u64 birth, u64 node, u32 CRC of those
//! record  u32 magic, u32 length of the body, u32 CRC of (length, body), body
//! body    u64 up to where the file was durable, bytes of the record; none if it only says that
//! ```
//!
//! Numbers are little endian, CRCs are CRC-32C. A bad record below what a later good one says to be durable is damage, and
//! the node does not start: it may have promised something there. One above is the torn end of a write, and is cut off.
//! The birth of the node is in the file, so that a node whose file is lost is told apart from the one it was. A file of
//! another node, whose `node.toml` was moved away, is kept beside a new one.

mod writing;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use newtmq_base::NodeId;

use crate::rt::LogFile;
pub use writing::{Stores, Writing};

/// A record to be stored.
#[derive(Debug)]
pub struct Store {
    /// Counts them in this start.
    pub number: u64,
    /// What.
    pub record: Vec<u8>,
    /// Somebody waits for it.
    pub sync: bool,
    /// Those before it can go.
    pub replaces: bool,
}

/// A log that is open.
#[derive(Debug)]
pub struct Log {
    folder: PathBuf,
    file: LogFile,
    birth: u64,
    node: NodeId,
    /// Where the next record goes.
    end: u64,
    durable: u64,
}

/// What was stored.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Minted with the file.
    pub birth: u64,
    /// In order, from the last one that replaced those before it.
    pub records: Vec<Box<[u8]>>,
    /// Bytes of a torn end that were cut off.
    pub torn: u64,
}

/// Why the log cannot be used. If it cannot be opened, nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The environment's.
    #[error("cannot {step} {file}", file = .file.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// On what.
        file: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The environment's: what was stored is not there any more.
    #[error(
        "{file}: damaged at byte {at}, and what the node has promised to its cluster may have been there; move this file and \
         node.toml away to start as a new node",
        file = .file.display()
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where the damage begins.
        at: u64,
    },
    /// The user's.
    #[error("{file}: written by a newer version of NewtMQ (format {format})", file = .file.display())]
    Newer {
        /// The file.
        file: PathBuf,
        /// Its format.
        format: u32,
    },
}

impl Log {
    /// Opens the node's log in the folder, or makes one with this birth.
    ///
    /// # Errors
    /// It cannot be read or written, is damaged, or is of a newer version.
    pub fn open(folder: &Path, node: NodeId, birth: u64) -> Result<(Log, Read), LogError> {
        let path = folder.join(LOG_FILE);
        let at = |step| {
            let file = path.clone();
            move |source| LogError::Io { step, file, source }
        };
        let fresh = || {
            let file = create(folder, node, birth, &[]).map_err(at("make"))?;
            let end = HEAD_BYTES as u64;
            let log = Log { folder: folder.to_owned(), file, birth, node, end, durable: end };
            Ok((log, Read { birth, ..Read::default() }))
        };
        let Some((mut file, bytes)) = LogFile::open(&path).map_err(at("read"))? else { return fresh() };
        let (read, end, of) = read(&bytes, &path)?;
        if of != node {
            let kept = folder.join(format!("{LOG_FILE}.of-{:016x}", of.0));
            tracing::warn!(kept = %kept.display(), "the log of the cluster is another node's; this node begins anew");
            LogFile::rename(&path, &kept).map_err(at("keep"))?;
            return fresh();
        }
        file.cut(end).map_err(at("cut off the torn end of"))?;
        // Whatever was read counts, so it has to be there at the next start, too.
        file.sync().map_err(at("write"))?;
        let birth = read.birth;
        Ok((Log { folder: folder.to_owned(), file, birth, node, end, durable: end }, read))
    }

    /// Makes records durable.
    ///
    /// # Errors
    /// The operating system's; what is in the file is unknown, unless the disk is full.
    pub fn write(&mut self, batch: &[Store]) -> Result<(), LogError> {
        let fresh = batch.iter().rposition(|store| store.replaces);
        if let Some(first) = fresh {
            // A crash leaves the old file or the new one.
            let mut bytes = Vec::new();
            for store in &batch[first..] {
                append(&mut bytes, HEAD_BYTES as u64, &store.record);
            }
            let file = create(&self.folder, self.node, self.birth, &bytes);
            self.file = file.map_err(|error| self.failed("replace", error))?;
            self.end = (HEAD_BYTES + bytes.len()) as u64;
        } else {
            let mut bytes = Vec::new();
            for store in batch {
                append(&mut bytes, self.durable, &store.record);
            }
            self.file.append(&bytes).map_err(|error| self.failed("append to", error))?;
            self.file.sync().map_err(|error| self.failed("sync", error))?;
            self.end += bytes.len() as u64;
        }
        self.durable = self.end;
        // Says that the last record was durable. Not synced: it counts as soon as the operating system has it.
        let mut mark = Vec::new();
        append(&mut mark, self.durable, &[]);
        if self.file.append(&mark).is_ok() {
            self.end += mark.len() as u64;
        } else {
            self.cut()?;
        }
        Ok(())
    }

    /// Takes away what was written in part.
    fn cut(&mut self) -> Result<(), LogError> {
        self.file.cut(self.end).map_err(|error| self.failed("cut off the end of", error))
    }

    fn failed(&self, step: &'static str, source: io::Error) -> LogError {
        LogError::Io { step, file: self.folder.join(LOG_FILE), source }
    }
}

impl LogError {
    /// It can go on when there is space again.
    #[cfg(not(madsim))]
    fn is_full(&self) -> bool {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        matches!(self, LogError::Io { source, .. } if full.contains(&source.kind()))
    }
}

/// A new file in place of the old one, at its end.
fn create(folder: &Path, node: NodeId, birth: u64, records: &[u8]) -> io::Result<LogFile> {
    let mut bytes = head(node, birth).to_vec();
    bytes.extend_from_slice(records);
    LogFile::replace(&folder.join(LOG_FILE), &folder.join(NEW_FILE), &bytes)
}

fn head(node: NodeId, birth: u64) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(MAGIC);
    head[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    head[12..20].copy_from_slice(&birth.to_le_bytes());
    head[20..28].copy_from_slice(&node.0.to_le_bytes());
    let crc = crc32c::crc32c(&head[..28]);
    head[28..].copy_from_slice(&crc.to_le_bytes());
    head
}

fn append(bytes: &mut Vec<u8>, durable: u64, record: &[u8]) {
    let length = u32::try_from(8 + record.len()).expect("records are far below 4 GiB").to_le_bytes();
    let mut body = Vec::with_capacity(8 + record.len());
    body.extend_from_slice(&durable.to_le_bytes());
    body.extend_from_slice(record);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&length), &body);
    bytes.extend_from_slice(&RECORD_MAGIC);
    bytes.extend_from_slice(&length);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(&body);
}

/// What a file has, where it ends, and whose it is.
fn read(bytes: &[u8], path: &Path) -> Result<(Read, u64, NodeId), LogError> {
    let damaged = |at: usize| LogError::Damaged { file: path.to_owned(), at: at as u64 };
    let head = bytes.first_chunk::<HEAD_BYTES>().ok_or_else(|| damaged(0))?;
    if head[..8] != *MAGIC || crc32c::crc32c(&head[..28]) != u32_at(head, 28) {
        return Err(damaged(0));
    }
    if u32_at(head, 8) != FORMAT {
        return Err(LogError::Newer { file: path.to_owned(), format: u32_at(head, 8) });
    }
    let mut found = Read { birth: u64_at(head, 12), ..Read::default() };
    let mut at = HEAD_BYTES;
    while let Some((_, record)) = record_at(bytes, at) {
        if !record.is_empty() {
            found.records.push(record.into());
        }
        at += RECORD_HEAD_BYTES + 8 + record.len();
    }
    // Any whole record behind the bad one may say that the bad one had been durable.
    let later = (at..bytes.len()).filter_map(|at| record_at(bytes, at));
    if later.into_iter().any(|(durable, _)| durable > at as u64) {
        return Err(damaged(at));
    }
    found.torn = (bytes.len() - at) as u64;
    Ok((found, at as u64, NodeId(u64_at(head, 20))))
}

/// The record that begins there, with what it says to be durable.
fn record_at(bytes: &[u8], at: usize) -> Option<(u64, &[u8])> {
    let bytes = bytes.get(at..)?;
    let head = bytes.first_chunk::<RECORD_HEAD_BYTES>()?;
    if head[..4] != RECORD_MAGIC {
        return None;
    }
    let body = bytes[RECORD_HEAD_BYTES..].get(..u32_at(head, 4) as usize)?;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&head[4..8]), body);
    if crc != u32_at(head, 8) || body.len() < 8 {
        return None;
    }
    Some((u64_at(body, 0), &body[8..]))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("the caller has looked at the length"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("the caller has looked at the length"))
}

const MAGIC: &[u8; 8] = b"NEWTCLU\n";
const RECORD_MAGIC: [u8; 4] = [0xF6, b'N', b'C', 0x0A];
const FORMAT: u32 = 1;
const HEAD_BYTES: usize = 32;
const RECORD_HEAD_BYTES: usize = 12;
const LOG_FILE: &str = "log";
const NEW_FILE: &str = "log.new";
/// Records for which nobody waits are synced when nothing has come for this long.
const IDLE: Duration = Duration::from_millis(20);
/// Most records in one write.
const BATCH_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cluster::driver::Event;
    use crate::data::tests::Scratch;

    const NODE: NodeId = NodeId(u64::MAX - 1);

    fn store(number: u64, replaces: bool) -> Store {
        Store { number, record: number.to_string().repeat(number as usize).into_bytes(), sync: true, replaces }
    }

    fn records(numbers: std::ops::RangeInclusive<u64>) -> Vec<Box<[u8]>> {
        numbers.map(|number| store(number, false).record.into()).collect()
    }

    fn written(scratch: &Scratch) -> Vec<u8> {
        let (mut log, read) = Log::open(&scratch.0, NODE, 7).unwrap();
        assert_eq!(read, Read { birth: 7, ..Read::default() });
        for number in 1..=5 {
            log.write(&[store(number, false)]).unwrap();
        }
        fs::read(scratch.0.join(LOG_FILE)).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let scratch = Scratch::new("cluster-log");
        written(&scratch);
        let (mut log, read) = Log::open(&scratch.0, NODE, 8).unwrap();
        assert_eq!(read, Read { birth: 7, records: records(1..=5), torn: 0 });
        log.write(&[store(6, false), store(7, true), store(8, false)]).unwrap();
        log.write(&[store(9, false)]).unwrap();
        let (_, read) = Log::open(&scratch.0, NODE, 8).unwrap();
        assert_eq!(read, Read { birth: 7, records: records(7..=9), torn: 0 });
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let scratch = Scratch::new("cluster-log-named");
        let (mut log, _) = Log::open(&scratch.0, NODE, 7).unwrap();
        fs::create_dir(scratch.0.join(NEW_FILE)).unwrap();
        let error = log.write(&[store(1, true)]).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot replace {}", scratch.0.join(LOG_FILE).display()));
        assert!(!error.is_full());
        assert!(log.failed("sync", io::ErrorKind::StorageFull.into()).is_full());
    }

    #[test]
    fn the_log_of_another_node_is_kept_beside_a_new_one() {
        let scratch = Scratch::new("cluster-log-other");
        let whole = written(&scratch);
        let (_, read) = Log::open(&scratch.0, NodeId(1), 8).unwrap();
        assert_eq!(read, Read { birth: 8, ..Read::default() });
        assert_eq!(fs::read(scratch.0.join("log.of-fffffffffffffffe")).unwrap(), whole);
    }

    #[test]
    fn the_thread_says_what_is_durable() {
        let scratch = Scratch::new("cluster-log-thread");
        let (log, _) = Log::open(&scratch.0, NODE, 7).unwrap();
        let (told, mut tells) = tokio::sync::mpsc::channel(16);
        let mut stored = move || match tells.blocking_recv()? {
            Event::Stored(stored) => Some(stored.unwrap()),
            _ => None,
        };
        let (sender, thread) = log.start(told).unwrap();
        for number in 1..=3 {
            sender.send(Store { sync: number == 3, ..store(number, false) }).unwrap();
        }
        while stored().unwrap() < 3 {}
        sender.send(Store { sync: false, ..store(4, false) }).unwrap();
        drop(sender);
        thread.join().unwrap();
        assert_eq!(stored(), Some(4), "the end waits for what is left");
        assert_eq!(Log::open(&scratch.0, NODE, 7).unwrap().1.records, records(1..=4));
    }

    #[test]
    fn a_torn_end_is_cut_off_and_damage_before_it_is_told() {
        let scratch = Scratch::new("cluster-log-torn");
        let whole = written(&scratch);
        let file = scratch.0.join(LOG_FILE);
        let last_mark = whole.len() - (RECORD_HEAD_BYTES + 8);
        for end in HEAD_BYTES..whole.len() {
            fs::write(&file, &whole[..end]).unwrap();
            let (_, read) = Log::open(&scratch.0, NODE, 7).unwrap();
            let kept = read.records.len() as u64;
            assert_eq!(read.records, records(1..=kept), "a cut at {end}");
            assert_eq!(kept == 5, end >= last_mark);
            assert_eq!(fs::metadata(&file).unwrap().len() + read.torn, end as u64);
        }
        for at in 0..last_mark {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x40;
            fs::write(&file, &bytes).unwrap();
            let error = Log::open(&scratch.0, NODE, 7).expect_err("the damage is seen");
            assert!(matches!(error, LogError::Damaged { .. }), "{at}: {error}");
            assert_eq!(fs::read(&file).unwrap(), bytes, "nothing is changed");
        }
    }
}
