//! What `newtmq run` tells at its start: where it listens, what is insecure about that, and what to do next.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use crate::config::{Listener, Transport};
use crate::data::NodeIdentity;

/// What the banner tells.
#[derive(Debug, Clone)]
pub struct BannerFacts {
    /// Who started.
    pub node: NodeIdentity,
    /// What listens, at least one.
    pub listeners: Vec<Listening>,
    /// Nobody connects without a password.
    pub authentication: bool,
    /// What outlives the process.
    pub storage: Storage,
    /// The URL of the HTTP API, if there is one.
    pub api: Option<String>,
    /// The URL of the dashboard, if there is one.
    pub dashboard: Option<String>,
    /// One line of JSON instead of text.
    pub json: bool,
}

/// Where sessions and retained messages are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storage {
    /// Nowhere else.
    Memory,
    /// In this folder, too.
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Sessions that were there at the start.
        sessions: usize,
        /// Retained messages that were there.
        retained: usize,
    },
}

impl Storage {
    fn text(&self) -> String {
        match self {
            Storage::Memory => {
                "sessions and retained messages are in memory; a restart forgets them (see --data)".into()
            }
            Storage::Folder { folder, sessions, retained } => {
                format!("{} ({sessions} sessions, {retained} retained messages)", folder.display())
            }
        }
    }

    fn json(&self) -> serde_json::Value {
        match self {
            Storage::Memory => serde_json::json!("memory"),
            Storage::Folder { folder, sessions, retained } => {
                serde_json::json!({ "folder": folder.display().to_string(), "sessions": sessions, "retained": retained })
            }
        }
    }
}

/// A listener that is open.
#[derive(Debug, Clone)]
pub struct Listening {
    /// What it speaks below MQTT.
    pub transport: Transport,
    /// `NAME` in `listener.tcp.NAME`.
    pub name: String,
    /// Where it listens in fact: never port 0.
    pub address: SocketAddr,
    /// Path of the URL; empty without WebSocket.
    pub path: String,
}

impl Listening {
    /// A listener that is open at this address.
    #[must_use]
    pub fn new(listener: &Listener, address: SocketAddr) -> Listening {
        let path = if listener.transport.has_websocket() { listener.mqtt_path.clone() } else { String::new() };
        Listening { transport: listener.transport, name: listener.name.clone(), address, path }
    }

    /// Short for its full name.
    fn short(&self) -> String {
        format!("{}.{}", self.transport.word(), self.name)
    }
}

/// Prints the banner on standard output. Nobody may be reading it, and that must not stop the broker: errors are
/// passed over.
pub fn print(facts: &BannerFacts) {
    let mut out = io::stdout().lock();
    let text = if facts.json { json(facts) } else { text(facts, out.is_terminal() && wants_colour()) };
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Whether the user lets a terminal have colours: <https://no-color.org>.
pub(crate) fn wants_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn text(facts: &BannerFacts, colour: bool) -> String {
    let paint = |code: &str, text: &str| if colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() };
    let label = |name: &str| paint(DIM, &format!("{name:<10}"));
    let mut out = String::new();
    let node = format!("node {:016x}, start {}", facts.node.node_id.0, facts.node.incarnation.0);
    let _ = writeln!(out, "{} {VERSION}  {}\n", paint(BOLD, "NewtMQ"), paint(DIM, &node));
    for listener in &facts.listeners {
        let url = format!("{}://{}{}", listener.transport.scheme(), listener.address, listener.path);
        let _ = writeln!(out, "  {}{}  ({})", label("listening"), paint(BOLD, &url), listener.short());
    }
    if let Some(url) = &facts.api {
        let _ = writeln!(out, "  {}{url}", label("api"));
    }
    if let Some(url) = &facts.dashboard {
        let _ = writeln!(out, "  {}{url}", label("dashboard"));
    }
    let exposed = exposed(facts);
    let security = if facts.authentication {
        "nobody connects without a password; connections are not encrypted".to_owned()
    } else if exposed.is_empty() {
        "no authentication; reachable from this machine only".to_owned()
    } else {
        let names = exposed.join(", ");
        let warning = format!("WARNING: no authentication, and {names} can be reached from other machines:");
        format!("{}\n  {}anyone there may publish and subscribe to anything", paint(WARN, &warning), label(""))
    };
    let _ = writeln!(out, "  {}{security}", label("security"));
    let _ = writeln!(out, "  {}{}", label("storage"), facts.storage.text());
    if let Some((host, port)) = next(facts) {
        let _ = writeln!(out, "\n  {}mosquitto_sub -h {host} -p {port} -t 'hello/#' -v", label("try it"));
        let _ = writeln!(out, "  {}mosquitto_pub -h {host} -p {port} -t hello/world -m hi", label(""));
    }
    let _ = writeln!(out, "  {}Ctrl-C\n", label("stop"));
    out
}

fn json(facts: &BannerFacts) -> String {
    let listeners: Vec<_> = facts
        .listeners
        .iter()
        .map(|l| serde_json::json!({ "name": l.name, "protocol": l.transport.scheme(), "address": l.address.to_string() }))
        .collect();
    let line = serde_json::json!({
        "event": "started",
        "version": VERSION,
        // A string: many readers of JSON cut a number to 53 bits.
        "node_id": format!("{:016x}", facts.node.node_id.0),
        "incarnation": facts.node.incarnation.0,
        "listeners": listeners,
        "authentication": facts.authentication,
        "exposed": exposed(facts),
        "storage": facts.storage.json(),
        "api": facts.api,
        "dashboard": facts.dashboard,
    });
    format!("{line}\n")
}

/// Listeners that other machines can reach.
fn exposed(facts: &BannerFacts) -> Vec<String> {
    let reachable = |l: &&Listening| !l.address.ip().to_canonical().is_loopback();
    facts.listeners.iter().filter(reachable).map(Listening::short).collect()
}

/// Where a client on this machine connects to.
fn next(facts: &BannerFacts) -> Option<(IpAddr, u16)> {
    let address = facts.listeners.iter().find(|l| l.transport == Transport::Tcp)?.address;
    let host = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Some((host, address.port()))
}

const VERSION: &str = env!("CARGO_PKG_VERSION");
const BOLD: &str = "1";
const DIM: &str = "2";
const WARN: &str = "1;33";

#[cfg(test)]
mod tests {
    use newtmq_base::{Incarnation, NodeId};

    use super::*;

    fn facts(addresses: &[&str]) -> BannerFacts {
        let listening = |(at, address): (usize, &&str)| Listening {
            name: ["external", "lan"][at].to_owned(),
            address: address.parse().unwrap(),
            transport: [Transport::Tcp, Transport::Ws][at],
            path: ["", "/mqtt"][at].to_owned(),
        };
        BannerFacts {
            api: Some("http://127.0.0.1:8080".to_owned()),
            dashboard: Some("http://127.0.0.1:18083".to_owned()),
            node: NodeIdentity { node_id: NodeId(0xfeed), incarnation: Incarnation(3) },
            listeners: addresses.iter().enumerate().map(listening).collect(),
            authentication: false,
            storage: Storage::Memory,
            json: false,
        }
    }

    #[test]
    fn with_passwords() {
        let facts = BannerFacts { authentication: true, ..facts(&["0.0.0.0:1883"]) };
        let text = text(&facts, false);
        assert!(
            text.contains("security  nobody connects without a password; connections are not encrypted\n"),
            "{text}"
        );
        assert!(json(&facts).contains("\"authentication\":true"));
    }

    #[test]
    fn with_a_store() {
        let storage = Storage::Folder { folder: "data/store".into(), sessions: 3, retained: 1 };
        let facts = BannerFacts { storage, ..facts(&["127.0.0.1:1883"]) };
        let text = text(&facts, false);
        assert!(text.contains("  storage   data/store (3 sessions, 1 retained messages)\n"), "{text}");
        assert!(json(&facts).contains(r#""storage":{"folder":"data/store","retained":1,"sessions":3}"#));
    }

    #[test]
    fn on_loopback() {
        insta::assert_snapshot!(text(&facts(&["127.0.0.1:1883"]), false));
    }

    #[test]
    fn reachable_from_elsewhere() {
        insta::assert_snapshot!(text(&facts(&["0.0.0.0:41883", "[::1]:1884"]), false));
    }

    #[test]
    fn as_json() {
        insta::assert_snapshot!(json(&facts(&["[::]:1883", "127.0.0.1:1884"])));
    }

    #[test]
    fn colours_change_nothing_but_colour() {
        let facts = facts(&["0.0.0.0:1883"]);
        let mut coloured = text(&facts, true);
        for code in [BOLD, DIM, WARN, "0"] {
            coloured = coloured.replace(&format!("\x1b[{code}m"), "");
        }
        assert_eq!(coloured, text(&facts, false));
    }

    #[test]
    fn an_ipv4_address_in_ipv6_is_judged_as_what_it_is() {
        assert!(exposed(&facts(&["[::ffff:127.0.0.1]:1883"])).is_empty());
    }
}
