//! `newtmq ctl`: asks a broker that runs on this machine, over its socket (`src/cluster/admin.rs`).

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::cluster::CTL_VERSION as VERSION;

/// What a broker is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Its words, as in the table of commands.
    pub path: &'static str,
    /// Its arguments, by name.
    pub arguments: BTreeMap<&'static str, String>,
}

/// What it said.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Told {
    text: String,
    ok: bool,
}

/// Why a broker said nothing.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    /// The user's: none runs, or somewhere else.
    #[error(
        "no broker answers at {path} (is it running? --data names its directory, --socket its socket)",
        path = .path.display()
    )]
    NoBroker {
        /// The socket.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The environment's, or a broker that has ended.
    #[error("the broker at {path} has not answered", path = .path.display())]
    NoAnswer {
        /// The socket.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
}

/// Asks the broker at a socket, and gives what it tells piece by piece: a list may be long. Says whether it did what it was
/// asked.
///
/// # Errors
/// There is none, or it does not answer.
pub fn ask(
    socket: &Path,
    command: &Command,
    as_json: bool,
    mut tell: impl FnMut(&str) -> io::Result<()>,
) -> Result<bool, CtlError> {
    let no_broker = |source| CtlError::NoBroker { path: socket.to_owned(), source };
    let no_answer = |source| CtlError::NoAnswer { path: socket.to_owned(), source };
    let stream = UnixStream::connect(socket).map_err(no_broker)?;
    let mut conversation = Conversation::new(stream).map_err(no_answer)?;
    let mut question = question(command);
    let mut whole: Option<Value> = None;
    loop {
        let mut answer = conversation.ask(&question).map_err(no_answer)?;
        let next = answer.as_object_mut().and_then(|answer| answer.remove("next"));
        if let Some(next) = &next {
            question["arguments"]["cursor"] = next.clone();
        }
        let told = told(&answer);
        if !as_json {
            tell(&told.text).map_err(no_answer)?;
        } else if let Some(whole) = &mut whole {
            join(whole, answer);
        } else {
            whole = Some(answer);
        }
        if next.is_none() || !told.ok {
            if let Some(whole) = whole {
                tell(&format!("{whole}\n")).map_err(no_answer)?;
            }
            return Ok(told.ok);
        }
    }
}

/// Asks the broker at a socket, and gives its answer as it is.
///
/// # Errors
/// There is none, or it does not answer.
pub(crate) fn query(socket: &Path, command: &Command) -> Result<Value, CtlError> {
    let stream =
        UnixStream::connect(socket).map_err(|source| CtlError::NoBroker { path: socket.to_owned(), source })?;
    converse(stream, command).map_err(|source| CtlError::NoAnswer { path: socket.to_owned(), source })
}

/// Adds the next piece of a list.
fn join(whole: &mut Value, piece: Value) {
    for part in ["lines", "data"] {
        if let (Some(whole), Some(piece)) = (whole[part].as_array_mut(), piece[part].as_array()) {
            whole.extend_from_slice(piece);
        }
    }
    whole["ok"] = piece["ok"].clone();
}

/// A socket on which one question follows the other.
struct Conversation {
    writing: UnixStream,
    reading: BufReader<UnixStream>,
}

impl Conversation {
    fn new(stream: UnixStream) -> io::Result<Conversation> {
        Ok(Conversation { writing: stream.try_clone()?, reading: BufReader::new(stream) })
    }

    fn ask(&mut self, question: &Value) -> io::Result<Value> {
        self.writing.write_all(format!("{question}\n").as_bytes())?;
        let mut line = String::new();
        self.reading.read_line(&mut line)?;
        if line.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        serde_json::from_str(&line).map_err(io::Error::from)
    }
}

pub(crate) fn converse(stream: UnixStream, command: &Command) -> io::Result<Value> {
    Conversation::new(stream)?.ask(&question(command))
}

fn question(command: &Command) -> Value {
    json!({ "version": VERSION, "command": command.path.replace(' ', "."), "arguments": command.arguments })
}

fn told(answer: &Value) -> Told {
    let ok = answer["ok"].as_bool().unwrap_or(false);
    let lines = answer["lines"].as_array().map(Vec::as_slice).unwrap_or_default();
    Told { text: lines.iter().filter_map(Value::as_str).map(|line| format!("{line}\n")).collect(), ok }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_and_told() {
        let join_it = Command { path: "cluster join", arguments: [("node", "a@b".to_owned())].into() };
        insta::assert_snapshot!(question(&join_it), @r#"{"arguments":{"node":"a@b"},"command":"cluster.join","version":1}"#);
        let answer = json!({ "version": 1, "ok": false, "lines": ["Failed to join the cluster: x"], "data": null });
        let told_so = Told { text: "Failed to join the cluster: x\n".to_owned(), ok: false };
        assert_eq!(told(&answer), told_so);
        let mut whole = json!({ "ok": true, "lines": ["a"], "data": [1] });
        join(&mut whole, json!({ "ok": true, "lines": ["b"], "data": [2] }));
        assert_eq!(whole, json!({ "ok": true, "lines": ["a", "b"], "data": [1, 2] }));
    }

    #[test]
    fn without_a_broker() {
        let status = Command { path: "cluster status", arguments: BTreeMap::new() };
        let error = ask(Path::new("no/such.sock"), &status, false, |_| Ok(())).unwrap_err();
        assert!(error.to_string().starts_with("no broker answers at no/such.sock ("), "{error}");
    }
}
