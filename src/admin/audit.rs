//! Who has changed what: a line for each thing that an operator does, in the log (`newtmq::audit`), in memory for whoever asks,
//! and in a file of the data directory. No secrets, and no payloads.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use newtmq_node::{Traced, datetime};
use serde_json::{Value, json};

use super::Admin;
use super::question::{Answer, Part, Question};
use crate::rt;

/// Who wants something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    /// An application, as `app:ID`, a user of this machine, as `uid:NUMBER`, or a part of the broker.
    pub who: String,
    /// From where: an address, or `ctl`.
    pub from: String,
}

/// The lines, the latest of them in memory.
#[derive(Debug)]
pub(super) struct Audit(Mutex<Lines>);

#[derive(Debug)]
struct Lines {
    latest: VecDeque<Value>,
    file: Option<Rotated>,
    is_failing: bool,
}

/// A file that another one follows when it is full.
#[derive(Debug)]
struct Rotated {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Audit {
    /// What the data directory has goes on.
    pub(super) fn open(data: Option<&Path>) -> Audit {
        let mut latest = VecDeque::new();
        let file = data.and_then(|data| {
            let path = data.join(FILE);
            for path in [old(&path), path.clone()] {
                let text = fs::read(&path).unwrap_or_default();
                let text = String::from_utf8_lossy(&text);
                // A line that was being written when the process ended is none.
                let lines = text.lines().filter_map(|line| serde_json::from_str(line).ok());
                lines.for_each(|line| push(&mut latest, line));
            }
            let opened = Rotated::open(path);
            if let Err(error) = &opened {
                tracing::error!(%error, "what operators do cannot be written to {FILE} of the data directory");
            }
            opened.ok()
        });
        Audit(Mutex::new(Lines { latest, file, is_failing: false }))
    }

    pub(super) fn write(&self, by: &By, action: &str, what: &str, outcome: Result<(), &str>) {
        let (is_done, why) = (outcome.is_ok(), outcome.err());
        let By { who, from } = by;
        tracing::info!(target: "newtmq::audit", by = who, from, action, what, done = is_done, why, "an operator");
        let at = datetime(rt::wall_time().0);
        let line =
            json!({ "at": at, "by": who, "from": from, "action": action, "what": what, "done": is_done, "why": why });
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = format!("{line}\n");
        push(&mut lines.latest, line);
        let Some(file) = &mut lines.file else { return };
        let failed = file.write(text.as_bytes()).err();
        if let (Some(error), false) = (&failed, lines.is_failing) {
            tracing::error!(%error, "what operators do is not written to {FILE}; it is in this log");
        }
        lines.is_failing = failed.is_some();
    }
}

fn push(latest: &mut VecDeque<Value>, line: Value) {
    if latest.len() == LATEST_MAX {
        latest.pop_front();
    }
    latest.push_back(line);
}

fn old(path: &Path) -> PathBuf {
    path.with_extension("1.jsonl")
}

impl Rotated {
    fn open(path: PathBuf) -> io::Result<Rotated> {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
        let bytes = file.metadata()?.len();
        let mut rotated = Rotated { path, file, bytes };
        if bytes > 0 {
            // The process may have ended in the middle of a line.
            rotated.write(b"\n")?;
        }
        Ok(rotated)
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.bytes > 0 && self.bytes + line.len() as u64 > FILE_BYTES_MAX {
            fs::rename(&self.path, old(&self.path))?;
            *self = Rotated::open(self.path.clone())?;
        }
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(())
    }
}

impl Admin {
    pub(super) fn audited(&self, part: &Part) -> Answer {
        let lines = self.0.audit.0.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = lines.latest.iter().rev().skip(part.skip).take(part.limit).cloned().collect();
        Answer { count: Some(lines.latest.len() as u64), ..Answer::of(shown) }
    }
}

impl Question {
    /// A ban says who has banned, if it is not said.
    pub(super) fn said_by(mut self, by: &By) -> Question {
        if let Question::Ban { by: said, .. } = &mut self {
            said.get_or_insert_with(|| by.who.clone());
        }
        self
    }
}

/// What a question changes, and of what; none if nothing.
pub(super) fn of(question: &Question) -> Option<(&'static str, String)> {
    let account = |kind: &newtmq_access::AccountKind, verb: [&'static str; 2]| match kind {
        newtmq_access::AccountKind::Username => verb[0],
        newtmq_access::AccountKind::ClientId => verb[1],
    };
    Some(match question {
        Question::Kick(client) => ("clients kick", client.clone()),
        Question::Publish(messages) => {
            ("publish", messages.iter().map(|message| message.topic.as_str()).collect::<Vec<_>>().join(","))
        }
        Question::Subscribe { client, filters, .. } => {
            let filters: Vec<&str> = filters.iter().map(newtmq_mqtt::OwnedTopicFilter::as_str).collect();
            ("subscriptions add", format!("{client} {}", filters.join(",")))
        }
        Question::Unsubscribe { client, filter } => ("subscriptions del", format!("{client} {}", filter.as_str())),
        Question::StopListener(transport, at) => ("listeners stop", format!("{transport} {at}")),
        Question::TraceStart(traced) => ("trace start", named(traced)),
        Question::TraceStop(traced) => ("trace stop", named(traced)),
        Question::Reload => ("reload", String::new()),
        Question::LogLevel(level) => ("log set-level", level.word().to_owned()),
        Question::AddApp(id, _) => ("mgmt insert", id.clone()),
        Question::EnableApp(id, status) => ("mgmt update", format!("{id} {status}")),
        Question::DeleteApp(id) => ("mgmt delete", id.clone()),
        Question::AddAccount(kind, name, _) => (account(kind, ["users add", "clientid add"]), name.clone()),
        Question::UpdateAccount(kind, name, _) => (account(kind, ["users update", "clientid update"]), name.clone()),
        Question::DeleteAccount(kind, name) => (account(kind, ["users del", "clientid del"]), name.clone()),
        Question::Ban { who, .. } => ("banned add", who.key()),
        Question::Unban(who) => ("banned del", who.key()),
        Question::Each(_, inner) => return of(inner),
        Question::Broker
        | Question::Node
        | Question::Nodes
        | Question::Clients(..)
        | Question::Sessions(..)
        | Question::Subscriptions(..)
        | Question::Routes(..)
        | Question::Retained(..)
        | Question::Devices(_)
        | Question::Gateways
        | Question::Listeners
        | Question::Plugins
        | Question::Stats
        | Question::Metrics
        | Question::Ledger
        | Question::Where(_)
        | Question::Ready
        | Question::Traces
        | Question::TraceShow(_)
        | Question::Apps
        | Question::App(_)
        | Question::Accounts(..)
        | Question::Account(..)
        | Question::Bans(_)
        | Question::Cluster
        | Question::Doctor
        | Question::Configs
        | Question::Access
        | Question::Alarms
        | Question::PastAlarms
        | Question::Audit(_) => return None,
    })
}

fn named(traced: &Traced) -> String {
    match traced {
        Traced::Client(client) => format!("client {client}"),
        Traced::Topic(filter) => format!("topic {}", filter.as_str()),
    }
}

/// In the data directory. A full one is `audit.1.jsonl`, in place of the one before.
const FILE: &str = "audit.jsonl";
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Lines in memory.
const LATEST_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;
    use crate::data::tests::Scratch;

    fn by() -> By {
        By { who: "app:a".to_owned(), from: "192.0.2.1".to_owned() }
    }

    #[test]
    fn what_was_done_is_there_after_a_restart_and_the_file_is_bounded() {
        use std::os::unix::fs::PermissionsExt as _;
        let scratch = Scratch::new("audit");
        fs::create_dir_all(&scratch.0).unwrap();
        let path = scratch.0.join(FILE);
        {
            let audit = Audit::open(Some(&scratch.0));
            audit.write(&by(), "clients kick", "a\n\"b\"", Ok(()));
            audit.write(&by(), "clients kick", "c", Err("the client is not connected"));
        }
        fs::write(&path, [fs::read(&path).unwrap(), b"{\"at\":".to_vec()].concat()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let audit = Audit::open(Some(&scratch.0));
        let lines = audit.0.lock().unwrap().latest.clone();
        assert_eq!(lines.len(), 2, "half a line is none");
        assert_eq!((lines[0]["what"].as_str(), lines[0]["done"].as_bool()), (Some("a\n\"b\""), Some(true)));
        assert_eq!(lines[1]["why"], "the client is not connected");
        let long = "x".repeat(1 << 20);
        for _ in 0..20 {
            audit.write(&by(), "publish", &long, Ok(()));
        }
        let size = |path: &Path| fs::metadata(path).unwrap().len();
        assert!(size(&path) <= FILE_BYTES_MAX && size(&old(&path)) <= FILE_BYTES_MAX);
        assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 2);
    }

    #[test]
    fn no_secret_is_written() {
        let kind = newtmq_access::AccountKind::Username;
        let question = Question::AddAccount(kind, "alice".to_owned(), Secret::new("s3cr3t"));
        assert_eq!(of(&question), Some(("users add", "alice".to_owned())));
        assert!(!format!("{question:?}").contains("s3cr3t"));
    }
}
