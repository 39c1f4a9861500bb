//! How each node of a demo sees the cluster: asked several times a second, as `newtmq ctl cluster status` does, each by a
//! thread of its own, for a node may not answer.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::ctl::{self, Command};

/// A node as another one sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Peer {
    /// It is known as a member.
    pub is_member: bool,
    /// Frames go to it and come from it.
    pub is_up: bool,
    /// They go over another node.
    pub is_relayed: bool,
    /// SWIM says that it answers.
    pub is_alive: bool,
    /// `masked`, `syncing` or `open`.
    pub routes: String,
    /// Entries of its log there.
    pub entries: u64,
    /// `voter`, `learner` or `witness`.
    pub role: String,
}

impl Peer {
    /// What is published here goes to its clients.
    pub fn is_open(&self) -> bool {
        self.routes == "open"
    }
}

/// The cluster as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sight {
    /// The node is in a cluster.
    pub is_member: bool,
    /// Who leads it.
    pub leader: Option<usize>,
    /// Of the group that decides.
    pub term: u64,
    /// By node, itself among them.
    pub peers: Vec<Peer>,
}

impl Sight {
    /// From the answer of a node, in a demo whose nodes have these names.
    pub fn of(data: &Value, names: &[String]) -> Sight {
        let mut sight = Sight {
            is_member: data["member"] == true,
            term: data["term"].as_u64().unwrap_or(0),
            peers: vec![Peer::default(); names.len()],
            leader: None,
        };
        for node in data["nodes"].as_array().map(Vec::as_slice).unwrap_or_default() {
            let Some(at) = names.iter().position(|name| node["name"] == name.as_str()) else { continue };
            let is_self = node["self"] == true;
            let text = |key: &str| node[key].as_str().unwrap_or_default().to_owned();
            sight.peers[at] = Peer {
                is_member: true,
                is_up: is_self || node["up"] == true,
                is_relayed: node["relayed"] == true,
                is_alive: is_self || node["alive"] == true,
                routes: if is_self { "open".to_owned() } else { text("routes") },
                entries: node["entries"].as_u64().unwrap_or(0),
                role: text("role"),
            };
            if node["node"] == data["leader"] {
                sight.leader = Some(at);
            }
        }
        sight
    }

    /// It sees everybody, and reaches everybody directly.
    pub fn is_whole(&self) -> bool {
        let good = |peer: &Peer| peer.is_member && peer.is_up && !peer.is_relayed && peer.is_alive && peer.is_open();
        self.is_member && self.leader.is_some() && self.peers.iter().all(good)
    }
}

/// What came of a question.
#[derive(Debug)]
pub struct Look {
    /// Who was asked.
    pub node: usize,
    /// When.
    pub begun: Instant,
    /// When it had answered, or had not.
    pub at: Instant,
    /// What it said, if it did.
    pub sight: Option<Sight>,
}

/// Asks a node again and again while `on`, until nobody wants to hear it.
pub fn watch(node: usize, socket: PathBuf, names: Vec<String>, on: Arc<AtomicBool>, looks: Sender<Look>) {
    thread::spawn(move || {
        loop {
            if on.load(Ordering::SeqCst) {
                let begun = Instant::now();
                let sight = ask(&socket).ok().map(|data| Sight::of(&data, &names));
                if looks.send(Look { node, begun, at: Instant::now(), sight }).is_err() {
                    return;
                }
            }
            thread::sleep(EVERY);
        }
    });
}

/// Asks a node for the status of its cluster: `data` of what `newtmq ctl cluster status --json` prints.
///
/// # Errors
/// It does not answer within 2 s.
pub fn ask(socket: &Path) -> io::Result<Value> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER_MAX))?;
    stream.set_write_timeout(Some(ANSWER_MAX))?;
    let mut answer =
        ctl::converse(stream, &Command { path: "cluster status", arguments: std::collections::BTreeMap::new() })?;
    Ok(answer["data"].take())
}

const EVERY: Duration = Duration::from_millis(200);
const ANSWER_MAX: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_node_sees() {
        let node = |name: &str, is_self: bool, routes: &str| {
            json!({ "node": format!("id of {name}"), "name": name, "self": is_self, "up": !is_self, "alive": !is_self,
                "relayed": false, "routes": routes, "entries": 3, "role": "voter" })
        };
        let names = ["a", "b"].map(str::to_owned);
        let mut data = json!({ "member": true, "leader": "id of b", "term": 4,
            "nodes": [node("a", true, "masked"), node("b", false, "open")] });
        let sight = Sight::of(&data, &names);
        assert!(sight.is_whole());
        assert_eq!((sight.leader, sight.term, sight.peers[1].entries), (Some(1), 4, 3));
        data["nodes"][1]["routes"] = "syncing".into();
        assert!(!Sight::of(&data, &names).is_whole());
        data["nodes"].as_array_mut().unwrap().pop();
        assert!(!Sight::of(&data, &names).is_whole());
    }
}
