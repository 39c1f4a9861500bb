//! `newtmq data`: what a data directory stores, for people or as one line of JSON. All but import and repair only read it,
//! and a broker may be writing to it meanwhile.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::iter;
use std::path::{Path, PathBuf};

use newtmq_node::{Lost, Replay};
use newtmq_session::SessionLimits;
use newtmq_store::{Disk, Opening, Report, WalConfig, segment_number};
use serde_json::{Value, json};

use super::{
    CHUNK_BYTES, FORMAT_FILE, FileDisk, HANDED_AT_ONCE, ReadOnly, STORE_FOLDER, StoreError, apply, check, export,
    format,
};
use crate::data::DataDir;

/// How often something is tried again that a running broker has changed meanwhile.
const TRIES: usize = 8;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// What is there.
    Info,
    /// What is wrong with it.
    Verify,
    /// Write it as lines of JSON, to a file or standard output.
    Export(Option<PathBuf>),
    /// Read such lines, from a file or standard input.
    Import(Option<PathBuf>),
    /// Copy it to another directory.
    Backup(PathBuf),
    /// Cut off and put aside what is torn or damaged.
    Repair,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// For whoever asked.
    pub told: String,
    /// Nothing is damaged or missing.
    pub whole: bool,
}

/// What is stored.
#[derive(Debug, Default)]
pub struct Summary {
    /// Segments of the log.
    pub segments: usize,
    /// Bytes of them.
    pub bytes: u64,
    /// What was found when they were read.
    pub report: Report,
    /// Records that could not be used.
    pub lost: Lost,
    /// Sessions.
    pub sessions: usize,
    /// Messages that wait in them.
    pub waiting: usize,
    /// Retained messages.
    pub retained: usize,
    /// Messages that wait for other nodes.
    pub hints: usize,
    /// How long the node has run, in milliseconds.
    pub time_ms: u64,
    /// Damaged segments that an earlier start has put aside.
    pub put_aside: Vec<String>,
}

impl Summary {
    /// Nothing is damaged or missing. A torn end is neither: nobody was told of it.
    #[must_use]
    pub fn whole(&self) -> bool {
        self.report.damaged.is_empty()
            && self.report.gaps.is_empty()
            && self.lost.unreadable == 0
            && self.lost.messages == 0
    }

    fn json(&self, event: &str, folder: &Path) -> String {
        let torn = self.report.torn.as_ref();
        let damaged: Vec<Value> =
            self.report.damaged.iter().map(|of| json!({ "kept_as": of.file, "bytes": of.bytes })).collect();
        let missing: Vec<Value> = self
            .report
            .gaps
            .iter()
            .map(|gap| json!({ "log": gap.log.0, "first": gap.first, "records": gap.count }))
            .collect();
        let line = json!({
            "event": event,
            "store": folder.display().to_string(),
            "format": newtmq_store::FORMAT,
            "segments": self.segments,
            "bytes": self.bytes,
            "records": self.report.records,
            "sessions": self.sessions,
            "messages_waiting": self.waiting,
            "retained": self.retained,
            "waiting_for_nodes": self.hints,
            "node_time_ms": self.time_ms,
            "torn": torn.map(|torn| json!({ "file": torn.file, "offset": torn.offset, "bytes": torn.bytes })),
            "damaged": damaged,
            "missing": missing,
            "unreadable_records": self.lost.unreadable,
            "lost_messages": self.lost.messages,
            "put_aside": self.put_aside,
            "whole": self.whole(),
        });
        format!("{line}\n")
    }

    fn text(&self, folder: &Path) -> String {
        let mut out = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(out, "{name:<18}{value}");
        };
        line("store", folder.display().to_string());
        line("format", newtmq_store::FORMAT.to_string());
        line("log", format!("{} bytes in {} segments", self.bytes, self.segments));
        line("records", self.report.records.to_string());
        line("sessions", self.sessions.to_string());
        line("messages waiting", self.waiting.to_string());
        line("retained messages", self.retained.to_string());
        line("for other nodes", self.hints.to_string());
        line("node has run", format!("{} s", self.time_ms / 1000));
        if let Some(torn) = &self.report.torn {
            line(
                "torn end",
                format!("{} bytes of {} at {}; nobody was told of them", torn.bytes, torn.file, torn.offset),
            );
        }
        for damage in &self.report.damaged {
            line("damaged", format!("{} bytes, kept as {}", damage.bytes, damage.file));
        }
        for gap in &self.report.gaps {
            line("missing", format!("{} records from {}", gap.count, gap.first));
        }
        if self.lost.unreadable > 0 {
            line("unreadable", format!("{} records", self.lost.unreadable));
        }
        if self.lost.messages > 0 {
            line("lost", format!("{} messages", self.lost.messages));
        }
        for file in &self.put_aside {
            line("put aside before", file.clone());
        }
        out
    }
}

/// Does what is asked for.
///
/// # Errors
/// It cannot be done.
pub fn carry_out(task: &Task, data: &Path, json: bool) -> Result<Done, StoreError> {
    let folder = data.join(STORE_FOLDER);
    let shown = |event: &str, summary: &Summary| Done {
        told: if json { summary.json(event, &folder) } else { summary.text(&folder) },
        whole: summary.whole(),
    };
    let counted = |event: &str, counts: export::Counts, whole: bool| {
        let export::Counts { sessions, messages, retained, hints } = counts;
        let told = if json {
            let line = json!({
                "event": event,
                "sessions": sessions,
                "messages": messages,
                "retained": retained,
                "waiting_for_nodes": hints,
            });
            format!("{line}\n")
        } else {
            let rest = if hints > 0 { format!(", {hints} messages for other nodes") } else { String::new() };
            format!("{event}: {sessions} sessions, {messages} messages, {retained} retained messages{rest}\n")
        };
        Done { told, whole }
    };
    match task {
        Task::Info => Ok(shown("info", &info(data)?)),
        Task::Verify => Ok(shown("verified", &verify(data)?)),
        Task::Repair => Ok(shown("repaired", &repair(data)?)),
        Task::Export(to) => {
            let (replay, summary) = read(data)?;
            Ok(counted("exported", export::export(replay, to.as_deref())?, summary.whole()))
        }
        Task::Import(from) => Ok(counted("imported", export::import(data, from.as_deref())?, true)),
        Task::Backup(to) => {
            let files = backup(data, to)?;
            let told = if json {
                format!("{}\n", json!({ "event": "saved", "to": to.display().to_string(), "files": files }))
            } else {
                format!("saved: {files} files in {}\n", to.display())
            };
            Ok(Done { told, whole: true })
        }
    }
}

/// What is stored.
///
/// # Errors
/// There is no store, it is newer, or cannot be read.
pub fn info(data: &Path) -> Result<Summary, StoreError> {
    summary(data)
}

/// The same; everything is read and checked for both.
///
/// # Errors
/// There is no store, it is newer, or cannot be read.
pub fn verify(data: &Path) -> Result<Summary, StoreError> {
    summary(data)
}

fn summary(data: &Path) -> Result<Summary, StoreError> {
    let (replay, mut summary) = read(data)?;
    summary.waiting = waiting(replay);
    Ok(summary)
}

/// Messages that wait for sessions.
fn waiting(replay: Replay) -> usize {
    let mut dividing = replay.divide(1);
    let chunks = iter::from_fn(|| dividing.next_chunk(HANDED_AT_ONCE, |_| 0, |_| ANY));
    let sessions = chunks.flat_map(|(_, chunk)| chunk.sessions);
    sessions.map(|of| of.session.queue_len() + of.session.inflight_len()).sum()
}

/// Reads all of it and changes nothing.
fn read(data: &Path) -> Result<(Replay, Summary), StoreError> {
    let folder = existing(data)?;
    let mut tries = 0;
    loop {
        let disk = FileDisk::open(&folder).map_err(StoreError::io("open", &folder))?;
        let opening = Opening::start(ReadOnly(disk), WalConfig::default());
        match opening
            .map_err(|error| StoreError::of_open(&folder, error))
            .and_then(|opening| read_log(opening, &folder))
        {
            // A running broker frees segments that it needs no more.
            Err(StoreError::Disk { .. }) if tries < TRIES => tries += 1,
            other => return other,
        }
    }
}

fn read_log<D: Disk>(mut opening: Opening<D>, folder: &Path) -> Result<(Replay, Summary), StoreError> {
    let failed = |source| StoreError::Disk { path: folder.to_owned(), source };
    let mut replay = Replay::default();
    let mut summary = Summary::default();
    while let Some(chunk) = opening.next_chunk(CHUNK_BYTES).map_err(failed)? {
        summary.segments = chunk.segments;
        apply(&mut replay, chunk.items);
    }
    for entry in fs::read_dir(folder).map_err(StoreError::io("read", folder))? {
        let entry = entry.map_err(StoreError::io("read", folder))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if segment_number(&name).is_some() {
            summary.bytes += entry.metadata().map_or(0, |facts| facts.len());
        } else if name.ends_with(".damaged") {
            summary.put_aside.push(name);
        }
    }
    summary.put_aside.sort_unstable();
    summary.report = opening.report().clone();
    (summary.sessions, summary.retained) = replay.counts();
    summary.hints = replay.hints();
    summary.lost = replay.lost();
    summary.time_ms = replay.now().as_nanos() / 1_000_000;
    Ok((replay, summary))
}

/// The folder of a store that is there and has a known format.
fn existing(data: &Path) -> Result<PathBuf, StoreError> {
    check(data)?;
    let folder = data.join(STORE_FOLDER);
    if folder.is_dir() {
        return Ok(folder);
    }
    Err(StoreError::Refused(format!("{}: nothing is stored there", data.display())))
}

/// Cuts off what is torn and puts aside what is damaged.
///
/// # Errors
/// A broker is using the directory, or the disk does not work.
pub fn repair(data: &Path) -> Result<Summary, StoreError> {
    let folder = existing(data)?;
    let _lock = DataDir::lock(data).map_err(|error| StoreError::Refused(error.to_string()))?;
    let folder_of = format::prepare(data, super::UPGRADES)?;
    let disk = FileDisk::open(&folder_of).map_err(StoreError::io("open", &folder))?;
    let opening = Opening::start(disk, WalConfig::default()).map_err(|error| StoreError::of_open(&folder, error))?;
    let (replay, mut summary) = read_log(opening, &folder)?;
    summary.waiting = waiting(replay);
    Ok(summary)
}

/// Makes another data directory with everything that was stored when this began. Returns how many files it has.
///
/// A segment never changes when a later one is there, so all but the last one are linked. What was in segments that are
/// freed meanwhile is in later ones, so that a list without gaps is always whole. The node's identity stays where it is: no
/// incarnation may come twice, so whoever starts with the copy is a new node.
///
/// # Errors
/// There is no store, the other directory has something already, or the disk does not work.
pub fn backup(data: &Path, to: &Path) -> Result<usize, StoreError> {
    let folder = existing(data)?;
    if fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(StoreError::Refused(format!("{}: it has something already", to.display())));
    }
    let target = to.join(STORE_FOLDER);
    fs::create_dir_all(&target).map_err(StoreError::io("create", &target))?;
    for _ in 0..TRIES {
        if let Some(files) = copy_segments(&folder, &target)? {
            let (from, copy) = (folder.join(FORMAT_FILE), target.join(FORMAT_FILE));
            fs::copy(&from, &copy).map_err(StoreError::io("copy", &from))?;
            for path in [&*copy, &*target, to] {
                sync(path)?;
            }
            return Ok(files + 1);
        }
    }
    Err(StoreError::Refused(format!("{}: it changes too fast to be copied", data.display())))
}

/// Links and copies what there is. None if something was freed meanwhile: then all of it is tried again.
fn copy_segments(folder: &Path, target: &Path) -> Result<Option<usize>, StoreError> {
    let segments = segments(folder)?;
    for old in self::segments(target)? {
        fs::remove_file(target.join(&old)).map_err(StoreError::io("remove", target))?;
    }
    let last = segments.last().cloned();
    for name in &segments {
        let (from, to) = (folder.join(name), target.join(name));
        let copied = if Some(name) == last.as_ref() {
            fs::copy(&from, &to).map(drop)
        } else {
            fs::hard_link(&from, &to).or_else(|_| fs::copy(&from, &to).map(drop))
        };
        match copied {
            Ok(()) => sync(&to)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(StoreError::Io { step: "copy", path: from, source }),
        }
    }
    Ok(Some(segments.len()))
}

/// Names of the segments, oldest first.
fn segments(folder: &Path) -> Result<Vec<String>, StoreError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(StoreError::io("read", folder))? {
        let entry = entry.map_err(StoreError::io("read", folder))?;
        names.extend(entry.file_name().into_string().ok().filter(|name| segment_number(name).is_some()));
    }
    names.sort_unstable();
    Ok(names)
}

fn sync(path: &Path) -> Result<(), StoreError> {
    fs::File::open(path).and_then(|file| file.sync_all()).map_err(StoreError::io("sync", path))
}

/// Limits for sessions that nobody uses.
pub(super) const ANY: SessionLimits =
    SessionLimits { max_mqueue_len: 65_533, max_mqueue_bytes: usize::MAX, max_inflight: 1 };
