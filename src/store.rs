//! What outlives the process, in the folder `store` of the data directory: opening the log at the start, and the thread that
//! writes it. What a record says and when somebody may be told is decided in `core/` (docs/adr/0007).

mod export;
mod files;
mod format;
mod tool;
mod writer;

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use newtmq_node::{KeeperConfig, Replay};
use newtmq_store::{DiskError, OpenError, Opening, Recovered, Report, Wal, WalConfig};

pub use files::{FileDisk, ReadOnly};
pub use format::{FORMAT_FILE, STORE_FOLDER, UPGRADES, Upgrade, check, prepare};
pub use tool::{Done, Summary, Task, backup, carry_out, info, repair, verify};
pub use writer::{Desk, News, WAITING_MAX, Writer};

use crate::config;

/// How much of the log is read at a time.
const CHUNK_BYTES: usize = 4 << 20;
/// How many sessions or retained messages are handed out at a time.
pub const HANDED_AT_ONCE: usize = 1024;
/// Time between two words about how far it is.
const PROGRESS: Duration = Duration::from_secs(2);
/// A bar is drawn anew after this.
const REDRAW: Duration = Duration::from_millis(100);

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A newer version was here. Nothing was changed.
    #[error("{path} has format {format}, and this version reads up to {newest}; use a newer one. Nothing was changed", path = .path.display())]
    Newer {
        /// The file that says so.
        path: PathBuf,
        /// Its format.
        format: u32,
        /// What this version knows.
        newest: u32,
    },
    /// No version upgrades this format any more, or it is none.
    #[error("{path}: {what}. Nothing was changed", path = .path.display())]
    Unknown {
        /// The file that says so.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The operating system's.
    #[error("cannot {step} {path}", path = .path.display())]
    Io {
        /// What was tried.
        step: &'static str,
        /// With what.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The same, for a file of the log.
    #[error("the store in {path}: {source}", path = .path.display())]
    Disk {
        /// The folder.
        path: PathBuf,
        /// Which file, and what the operating system says.
        source: DiskError,
    },
    /// The command cannot do this.
    #[error("{0}")]
    Refused(String),
}

impl StoreError {
    pub(crate) fn of_open(folder: &Path, error: OpenError) -> StoreError {
        match error {
            OpenError::Newer { file, format } => {
                StoreError::Newer { path: folder.join(file), format, newest: newtmq_store::FORMAT }
            }
            OpenError::Disk(source) => StoreError::Disk { path: folder.to_owned(), source },
        }
    }

    pub(crate) fn io(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.to_owned();
        move |source| StoreError::Io { step, path, source }
    }
}

/// An open log, and what it held.
#[derive(Debug)]
pub struct Opened {
    /// The log.
    pub wal: Wal<FileDisk>,
    /// What it held.
    pub replay: Replay,
    /// The folder.
    pub folder: PathBuf,
}

/// Sizes of the log.
#[must_use]
pub fn wal_config(config: &config::Store) -> WalConfig {
    WalConfig { segment_bytes: config.segment_size }
}

/// When the log is made shorter.
#[must_use]
pub fn keeper_config(config: &config::Store) -> KeeperConfig {
    KeeperConfig { log_bytes_min: config.log_size_min }
}

/// Opens the store of a data directory, whose lock the caller has, and reads all of it. Tells the log what was found.
///
/// # Errors
/// A newer format, or the disk.
pub fn open(data: &Path, config: &config::Store) -> Result<Opened, StoreError> {
    let folder = prepare(data, UPGRADES)?;
    let failed = |source| StoreError::Disk { path: folder.clone(), source };
    let disk = FileDisk::open(&folder).map_err(StoreError::io("open", &folder))?;
    let mut opening = Opening::start(disk, wal_config(config)).map_err(|error| StoreError::of_open(&folder, error))?;
    let mut replay = Replay::default();
    let started = Instant::now();
    let mut progress = Progress::new();
    while let Some(chunk) = opening.next_chunk(CHUNK_BYTES).map_err(failed)? {
        progress.at(chunk.segments_done, chunk.segments, &replay);
        apply(&mut replay, chunk.items);
    }
    progress.end();
    let (wal, report) = opening.finish().map_err(failed)?;
    tell(&report, &replay, started.elapsed());
    Ok(Opened { wal, replay, folder })
}

/// Applies what was read.
pub(crate) fn apply(replay: &mut Replay, items: Vec<Recovered>) {
    for item in items {
        match item {
            Recovered::Blob { id, bytes } => replay.block(id.0, &bytes),
            Recovered::Record { segment, bytes, .. } => replay.record(&bytes, segment),
            Recovered::SegmentEnd { .. } => replay.segment_end(),
        }
    }
}

/// What was found, for the log.
fn tell(report: &Report, replay: &Replay, took: Duration) {
    if let Some(torn) = &report.torn {
        let (file, bytes, offset) = (&torn.file, torn.bytes, torn.offset);
        tracing::warn!(file, offset, bytes, "the end of the log was torn, and is cut off; nobody was told of it");
    }
    for damage in &report.damaged {
        let (file, bytes) = (&damage.file, damage.bytes);
        tracing::warn!(
            file,
            bytes,
            "a segment of the log is damaged; it is kept under this name, what is whole is used"
        );
    }
    for gap in &report.gaps {
        tracing::warn!(first = gap.first, records = gap.count, "records of the log are missing");
    }
    // Those of sessions that are not there are no sign of damage: the beginning of a session may have been freed, and its
    // next snapshot comes later.
    let lost = replay.lost();
    if lost.unreadable + lost.messages > 0 {
        let (unreadable, messages) = (lost.unreadable, lost.messages);
        tracing::warn!(unreadable, messages, "records of the log could not be used");
    }
    let (sessions, retained) = replay.counts();
    let took = took.as_millis() as u64;
    tracing::info!(records = report.records, sessions, retained, took_ms = took, "what was stored is there again");
}

/// Tells how far it is: a bar on a terminal, lines of the log otherwise.
#[derive(Debug)]
struct Progress {
    terminal: bool,
    next: Instant,
    drawn: bool,
}

impl Progress {
    fn new() -> Progress {
        let terminal = io::stderr().is_terminal();
        Progress { terminal, next: Instant::now() + if terminal { REDRAW } else { PROGRESS }, drawn: false }
    }

    fn at(&mut self, done: usize, of: usize, replay: &Replay) {
        let now = Instant::now();
        if now < self.next {
            return;
        }
        let (sessions, retained) = replay.counts();
        if !self.terminal {
            self.next = now + PROGRESS;
            tracing::info!(done, of, sessions, retained, "reading the log");
            return;
        }
        self.next = now + REDRAW;
        self.drawn = true;
        let full = done * BAR / of.max(1);
        let mut line = String::from("\r  reading the log [");
        line.extend((0..BAR).map(|at| if at < full { '#' } else { '.' }));
        let _ = write!(line, "] {done} of {of} segments, {sessions} sessions\x1b[K");
        let _ = io::stderr().write_all(line.as_bytes());
    }

    fn end(&self) {
        if self.drawn {
            let _ = io::stderr().write_all(b"\r\x1b[K");
        }
    }
}

/// Characters of the bar.
const BAR: usize = 30;
