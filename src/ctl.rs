//! `newtmq ctl`: asks a broker that runs on this machine, over its socket (`src/cluster/admin.rs`).

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::cluster::CTL_VERSION as VERSION;

/// What a broker is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Join the cluster of this node.
    Join(String),
    /// Leave the cluster.
    Leave,
    /// Remove this member, which is down.
    ForceLeave(String),
    /// Tell who is a member.
    Status,
    /// Examine all members, and tell what is wrong.
    Doctor,
    /// Read the configuration, users, rules and certificates again.
    Reload,
}

/// What it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// For standard output.
    pub text: String,
    /// It did what it was asked.
    pub ok: bool,
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

/// Asks the broker at a socket.
///
/// # Errors
/// There is none, or it does not answer.
pub fn ask(socket: &Path, command: &Command, as_json: bool) -> Result<Told, CtlError> {
    let no_broker = |source| CtlError::NoBroker { path: socket.to_owned(), source };
    let stream = UnixStream::connect(socket).map_err(no_broker)?;
    let answer = converse(stream, command).map_err(|source| CtlError::NoAnswer { path: socket.to_owned(), source })?;
    Ok(told(&answer, as_json))
}

pub(crate) fn converse(mut stream: UnixStream, command: &Command) -> io::Result<Value> {
    stream.write_all(format!("{}\n", question(command)).as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    serde_json::from_str(&line).map_err(io::Error::from)
}

fn question(command: &Command) -> Value {
    let (name, arguments) = match command {
        Command::Join(node) => ("cluster.join", json!({ "node": node })),
        Command::Leave => ("cluster.leave", json!({})),
        Command::ForceLeave(node) => ("cluster.force-leave", json!({ "node": node })),
        Command::Status => ("cluster.status", json!({})),
        Command::Doctor => ("cluster.doctor", json!({})),
        Command::Reload => ("reload", json!({})),
    };
    json!({ "version": VERSION, "command": name, "arguments": arguments })
}

fn told(answer: &Value, as_json: bool) -> Told {
    let ok = answer["ok"].as_bool().unwrap_or(false);
    if as_json {
        return Told { text: format!("{answer}\n"), ok };
    }
    let lines = answer["lines"].as_array().map(Vec::as_slice).unwrap_or_default();
    Told { text: lines.iter().filter_map(Value::as_str).map(|line| format!("{line}\n")).collect(), ok }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_and_told() {
        insta::assert_snapshot!(question(&Command::Join("a@b".to_owned())), @r#"{"arguments":{"node":"a@b"},"command":"cluster.join","version":1}"#);
        let answer = json!({ "version": 1, "ok": false, "lines": ["Failed to join the cluster: x"], "data": null });
        let told_so = Told { text: "Failed to join the cluster: x\n".to_owned(), ok: false };
        assert_eq!(told(&answer, false), told_so);
        assert_eq!(serde_json::from_str::<Value>(&told(&answer, true).text).unwrap(), answer);
    }

    #[test]
    fn without_a_broker() {
        let error = ask(Path::new("no/such.sock"), &Command::Status, false).unwrap_err();
        assert!(error.to_string().starts_with("no broker answers at no/such.sock ("), "{error}");
    }
}
