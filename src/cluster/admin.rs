//! What `newtmq ctl` talks to: a Unix socket that only the user of the broker can open.
//!
//! One line of JSON asks, one answers: `{"version":1,"command":"cluster.join","arguments":{"node":"newtmq@10.0.0.2"}}` and
//! `{"version":1,"ok":true,"lines":["…"],"data":{…}}`. `lines` are for people, in the words of EMQ X; `data` is for programs.

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use newtmq_node::{ClusterAnswer, ClusterCommand, ClusterStatus, NodeStatus};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::sync::{mpsc, oneshot};

use super::CTL_VERSION as VERSION;
use super::discovery::{Shown, State};
use super::driver::Event;
use crate::admin::{self, Admin, By, Does, Given, Row};
use crate::config::Seed;
use crate::reload::Asked;
use crate::rt;

/// A socket that listens, until it is dropped.
#[derive(Debug)]
pub struct AdminSocket {
    listener: std::os::unix::net::UnixListener,
    file: SocketFile,
}

#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl AdminSocket {
    /// Listens there, in place of what an earlier process has left.
    ///
    /// # Errors
    /// Another process listens there, or the operating system's.
    pub fn bind(path: &Path) -> io::Result<AdminSocket> {
        if UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, "another broker listens there"));
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
        // The mode of the socket is that of the file, from its first moment.
        let file = fs::File::from(std::os::fd::OwnedFd::from(socket));
        fs::File::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        let socket = socket2::Socket::from(std::os::fd::OwnedFd::from(file));
        socket.bind(&socket2::SockAddr::unix(path)?)?;
        let file = SocketFile(path.to_owned());
        // Where the mode of a socket is not its file's, there is a moment.
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        socket.listen(16)?;
        socket.set_nonblocking(true)?;
        Ok(AdminSocket { listener: socket.into(), file })
    }

    /// Answers until it is dropped. Inside a runtime.
    pub async fn serve(
        self,
        events: mpsc::Sender<Event>,
        discovery: State,
        reloads: mpsc::Sender<Asked>,
        admin: Admin,
    ) {
        let AdminSocket { listener, file: _file } = self;
        let listener = match tokio::net::UnixListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "newtmq ctl cannot be heard"),
        };
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (events, discovery) = (events.clone(), discovery.clone());
                    let (reloads, admin) = (reloads.clone(), admin.clone());
                    tokio::spawn(async move {
                        let _ = converse(stream, events, discovery, reloads, admin).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accept newtmq ctl");
                    tokio::time::sleep(super::discovery::AGAIN).await;
                }
            }
        }
    }
}

/// One question after the other.
async fn converse(
    stream: tokio::net::UnixStream,
    events: mpsc::Sender<Event>,
    discovery: State,
    reloads: mpsc::Sender<Asked>,
    admin: Admin,
) -> io::Result<()> {
    // Only the user of the broker can open the socket, and root.
    let who = stream.peer_cred().map_or("somebody".to_owned(), |peer| format!("uid:{}", peer.uid()));
    let by = By { who, from: "ctl".to_owned() };
    let (reading, mut writing) = stream.into_split();
    let mut reading = BufReader::new(reading);
    loop {
        let mut line = String::new();
        if (&mut reading).take(LINE_MAX).read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let answer = match question(&line) {
            Ok(Question::Reload) => {
                let answer = reload(&reloads).await;
                wrote(&admin, &by, "reload", "", &answer);
                answer
            }
            Ok(Question::Doctor) => doctor(&events).await,
            Ok(Question::Row(row, arguments)) => {
                let done = admin.aside(ask_admin(row, arguments, admin.clone(), by.clone())).await;
                done.unwrap_or_else(|| failed("the broker is stopping".to_owned()))
            }
            Ok(question) => {
                let change = match &question {
                    Question::Join(node) => Some(("cluster join", node.clone())),
                    Question::Leave => Some(("cluster leave", String::new())),
                    Question::ForceLeave(node) => Some(("cluster force-leave", node.clone())),
                    Question::Readmit(node) => Some(("cluster readmit", node.clone())),
                    Question::Finalize => Some(("cluster finalize", String::new())),
                    Question::Status | Question::Doctor | Question::Reload | Question::Row(..) => None,
                };
                let answer = answer(question, &events, &discovery).await;
                if let Some((action, what)) = change {
                    wrote(&admin, &by, action, &what, &answer);
                }
                answer
            }
            Err(why) => failed(why.to_owned()),
        };
        writing.write_all(format!("{answer}\n").as_bytes()).await?;
    }
}

/// Writes down what was done, by the answer that tells of it.
fn wrote(admin: &Admin, by: &By, action: &str, what: &str, answer: &Value) {
    let why = answer["lines"][0].as_str().unwrap_or("it failed");
    admin.wrote(by, action, what, if answer["ok"] == true { Ok(()) } else { Err(why) });
}

/// What is asked.
enum Question {
    Join(String),
    Leave,
    ForceLeave(String),
    Readmit(String),
    Finalize,
    Status,
    Doctor,
    Reload,
    /// What is asked of the shards.
    Row(&'static Row, Value),
}

fn question(line: &str) -> Result<Question, &'static str> {
    let value: Value = serde_json::from_str(line).map_err(|_| "not a line of JSON")?;
    if value["version"].as_u64() != Some(VERSION) {
        return Err("another version of the protocol; use the newtmq that the broker runs");
    }
    let node = || value["arguments"]["node"].as_str().map(str::to_owned).ok_or("it needs a node");
    match value["command"].as_str().unwrap_or_default() {
        "cluster.join" => Ok(Question::Join(node()?)),
        "cluster.leave" => Ok(Question::Leave),
        "cluster.force-leave" => Ok(Question::ForceLeave(node()?)),
        "cluster.readmit" => Ok(Question::Readmit(node()?)),
        "cluster.finalize" => Ok(Question::Finalize),
        "cluster.status" => Ok(Question::Status),
        "cluster.doctor" => Ok(Question::Doctor),
        "reload" => Ok(Question::Reload),
        name => {
            let row = admin::find(&name.replace('.', " ")).ok_or("the broker does not know this command")?;
            Ok(Question::Row(row, value["arguments"].clone()))
        }
    }
}

async fn answer(question: Question, events: &mpsc::Sender<Event>, discovery: &State) -> Value {
    let (done, failure, command) = match question {
        Question::Join(node) => match resolve(&node).await {
            Ok(address) => {
                ("Join the cluster successfully.", "Failed to join the cluster", ClusterCommand::Join(address))
            }
            Err(error) => return failed(format!("Failed to join the cluster: {node}: {error}")),
        },
        Question::Leave => ("Leave the cluster successfully.", "Failed to leave the cluster", ClusterCommand::Leave),
        Question::ForceLeave(node) => (
            "Remove the node from cluster successfully.",
            "Failed to remove the node from cluster",
            ClusterCommand::ForceLeave(node),
        ),
        Question::Readmit(node) => {
            ("The node may come back.", "Failed to readmit the node", ClusterCommand::Readmit(node))
        }
        Question::Finalize => {
            ("The cluster uses what its new version can.", "Failed to finalize the upgrade", ClusterCommand::Finalize)
        }
        Question::Status | Question::Doctor | Question::Reload | Question::Row(..) => {
            ("", "Failed to get the cluster status", ClusterCommand::Status)
        }
    };
    match ask(command, events).await {
        Ok(Some(status)) => told(None, &status, &discovery.shown()),
        Ok(None) => match settled(events).await {
            Some(status) => told(Some(done), &status, &discovery.shown()),
            None => json!({ "version": VERSION, "ok": true, "lines": [done], "data": null }),
        },
        Err(why) => failed(format!("{failure}: {why}")),
    }
}

/// A command of the table.
async fn ask_admin(row: &'static Row, arguments: Value, admin: Admin, by: By) -> Value {
    let Does::Asks(ask, lines) = &row.does else { return failed(NOT_YET.to_owned()) };
    let answered = match ask(&Given(&arguments)) {
        Ok(question) => admin.answer_for(&by, question).await,
        Err(fault) => Err(fault),
    };
    match answered {
        Ok(answer) if row.path.ends_with(" show") && answer.data.as_array().is_some_and(Vec::is_empty) => {
            failed(NOT_FOUND.to_owned())
        }
        Ok(answer) => {
            let mut told = json!({ "version": VERSION, "ok": true, "lines": lines(&answer.data), "data": answer.data });
            let missing = answer.missing.iter().map(|node| format!("{node} does not answer").into());
            told["lines"].as_array_mut().into_iter().for_each(|lines| lines.extend(missing.clone()));
            if !answer.missing.is_empty() {
                told["missing"] = answer.missing.clone().into();
            }
            if let Some(next) = answer.next {
                told["next"] = next.to_string().into();
            }
            told
        }
        Err(fault) => failed(fault.message),
    }
}

/// The configuration, users, rules and certificates are read again.
async fn reload(reloads: &mpsc::Sender<Asked>) -> Value {
    let (asked, answered) = oneshot::channel();
    let report = match reloads.send(asked).await {
        Ok(()) => answered.await.ok(),
        Err(_) => None,
    };
    let Some(report) = report else { return failed("the broker is stopping".to_owned()) };
    let ok = report.errors.is_empty();
    json!({ "version": VERSION, "ok": ok, "lines": report.lines(), "data": report.data() })
}

/// All members are examined.
async fn doctor(events: &mpsc::Sender<Event>) -> Value {
    match ask_cluster(ClusterCommand::Examine, events).await {
        Ok(ClusterAnswer::Examined(said)) => super::doctor::told(&said),
        Ok(ClusterAnswer::Done | ClusterAnswer::Status(_)) => {
            failed("the broker has answered something else".to_owned())
        }
        Ok(ClusterAnswer::Refused(why)) | Err(why) => failed(format!("Failed to examine the cluster: {why}")),
    }
}

/// How things are after a change. Who has left founds a cluster of its own, which takes a moment.
async fn settled(events: &mpsc::Sender<Event>) -> Option<ClusterStatus> {
    let mut status = None;
    for _ in 0..SETTLE_LOOKS {
        status = ask(ClusterCommand::Status, events).await.ok().flatten();
        if status.as_ref().is_none_or(|status| status.nodes.iter().any(|node| node.is_self)) {
            break;
        }
        tokio::time::sleep(SETTLE_PAUSE).await;
    }
    status
}

async fn ask(command: ClusterCommand, events: &mpsc::Sender<Event>) -> Result<Option<ClusterStatus>, String> {
    match ask_cluster(command, events).await? {
        ClusterAnswer::Done => Ok(None),
        ClusterAnswer::Refused(why) => Err(why),
        ClusterAnswer::Status(status) => Ok(Some(*status)),
        ClusterAnswer::Examined(said) => Ok(Some(said.status)),
    }
}

async fn ask_cluster(command: ClusterCommand, events: &mpsc::Sender<Event>) -> Result<ClusterAnswer, String> {
    let (answer, answered) = oneshot::channel();
    let stops = || "the broker is stopping".to_owned();
    events.send(Event::Command { command, answer }).await.map_err(|_| stops())?;
    answered.await.map_err(|_| stops())
}

async fn resolve(node: &str) -> io::Result<std::net::SocketAddr> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "not a node; it must be NAME@HOST, HOST or HOST:PORT");
    let seed = Seed::parse(node).ok_or_else(invalid)?;
    let found = rt::resolve(&seed.host, seed.port).await?;
    found.into_iter().min().ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn failed(line: String) -> Value {
    json!({ "version": VERSION, "ok": false, "lines": [line], "data": null })
}

fn told(done: Option<&str>, status: &ClusterStatus, discovery: &Shown) -> Value {
    let failing =
        discovery.failing.iter().map(|(name, why)| format!("Discovery had no answer when last asked: {name}: {why}"));
    let lines: Vec<String> = done.map(str::to_owned).into_iter().chain([status_line(status)]).chain(failing).collect();
    let mut data = status_json(status);
    data["discovery"] = json!({
        "kind": discovery.kind,
        "addresses": discovery.found.as_ref().map(|found| &found.addresses),
        "may_found": discovery.found.as_ref().is_some_and(|found| found.here),
        "failing": discovery.failing,
    });
    json!({ "version": VERSION, "ok": true, "lines": lines, "data": data })
}

/// As EMQ X tells it.
fn status_line(status: &ClusterStatus) -> String {
    let names = |running: bool| {
        let of = status.nodes.iter().filter(|node| is_running(node) == running);
        let mut names: Vec<String> = of.map(|node| format!("'{}'", node.name)).collect();
        names.sort();
        names
    };
    let (running, stopped) = (names(true).join(","), names(false));
    let stopped =
        if stopped.is_empty() { String::new() } else { format!(",{{stopped_nodes,[{}]}}", stopped.join(",")) };
    format!("Cluster status: [{{running_nodes,[{running}]}}{stopped}]")
}

fn is_running(node: &NodeStatus) -> bool {
    node.is_self || node.is_up
}

pub(crate) fn status_json(status: &ClusterStatus) -> Value {
    let id = |node: newtmq_base::NodeId| format!("{:016x}", node.0);
    let nodes: Vec<Value> = status
        .nodes
        .iter()
        .map(|node| {
            json!({
                "node": id(node.node),
                "name": node.name,
                "address": node.address,
                "incarnation": node.incarnation.0,
                "self": node.is_self,
                "running": is_running(node),
                "role": node.role,
                "up": node.is_up,
                "relayed": node.is_relayed,
                "alive": node.is_alive,
                "routes": node.routes,
                "entries": node.entries,
            })
        })
        .collect();
    json!({
        "name": status.name,
        "member": status.is_member,
        "leader": status.leader.map(id),
        "term": status.term,
        "applied": status.applied,
        "features": { "used": status.features.0, "understood": status.features.1 },
        "unready": status.unready.map(|why| why.to_string()),
        "nodes": nodes,
    })
}

/// How often is looked whether a change is complete, and how long after another.
/// Of what is asked for and not there, as EMQ X tells it.
const NOT_FOUND: &str = "Not Found.";
/// Of a command that is known and not there.
const NOT_YET: &str = "not in this version";
const SETTLE_LOOKS: usize = 40;
const SETTLE_PAUSE: Duration = Duration::from_millis(50);
/// Longer lines are no questions.
const LINE_MAX: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use newtmq_base::{Incarnation, NodeId};

    use super::*;

    #[test]
    fn questions() {
        let join = r#"{"version":1,"command":"cluster.join","arguments":{"node":"a@b"}}"#;
        assert!(matches!(question(join), Ok(Question::Join(node)) if node == "a@b"));
        assert!(matches!(question(r#"{"version":1,"command":"cluster.status"}"#), Ok(Question::Status)));
        assert!(matches!(question(r#"{"version":1,"command":"reload"}"#), Ok(Question::Reload)));
        let list = r#"{"version":1,"command":"clients.list"}"#;
        assert!(matches!(question(list), Ok(Question::Row(row, _)) if row.path == "clients list"));
        for (line, why) in [
            ("", "not a line of JSON"),
            ("[]", "another version"),
            (r#"{"version":2,"command":"cluster.status"}"#, "another version"),
            (r#"{"version":1,"command":"cluster.join"}"#, "it needs a node"),
            (r#"{"version":1,"command":"reboot"}"#, "does not know"),
        ] {
            let Err(told) = question(line) else { panic!("{line}") };
            assert!(told.contains(why), "{line}");
        }
    }

    #[test]
    fn the_status_is_told_as_emq_x_does() {
        let node = |node: u64, up: bool| NodeStatus {
            node: NodeId(node),
            incarnation: Incarnation(1),
            name: format!("n{node}@h"),
            address: "10.0.0.1:4370".to_owned(),
            is_self: node == 1,
            role: "voter",
            is_up: up,
            is_relayed: false,
            is_alive: up,
            routes: "open",
            entries: 3,
        };
        let mut status = ClusterStatus {
            name: "c".to_owned(),
            is_member: true,
            leader: Some(NodeId(1)),
            term: 2,
            applied: 9,
            features: (1, 1),
            unready: None,
            nodes: vec![node(1, false), node(2, true)],
        };
        assert_eq!(status_line(&status), "Cluster status: [{running_nodes,['n1@h','n2@h']}]");
        status.nodes.push(node(3, false));
        let mut discovery = Shown { kind: "etcd", ..Shown::default() };
        discovery.failing.insert("etcd http://a:2379".to_owned(), "refused".to_owned());
        let told = told(Some("Join the cluster successfully."), &status, &discovery);
        assert_eq!(told["lines"][1], "Cluster status: [{running_nodes,['n1@h','n2@h']},{stopped_nodes,['n3@h']}]");
        assert_eq!(told["lines"][2], "Discovery had no answer when last asked: etcd http://a:2379: refused");
        assert_eq!(told["data"]["leader"], "0000000000000001");
        assert_eq!(told["data"]["discovery"]["kind"], "etcd");
    }

    #[test]
    fn only_the_user_can_open_the_socket_and_a_second_broker_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let scratch = crate::data::tests::Scratch::new("admin");
        fs::create_dir_all(&scratch.0).unwrap();
        let path = scratch.0.join(crate::cluster::SOCKET_FILE);
        let socket = AdminSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(AdminSocket::bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(socket);
        assert!(!path.exists());
        // What a killed one has left.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        AdminSocket::bind(&path).unwrap();
    }
}
