//! Clients that come back at another node, by real sockets: `reconnect CLIENTS ADDRESS=PID...` with the nodes of a running
//! cluster. All connect; all lose their connections at one moment and come back at the next node; then some are taken over
//! while their old connections are still open. Tells connections a second, how long a client waits, and processor time.
// It says what it expects by failing.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use newtmq_mqtt::{Connect, ConnectProperties, Packet, ProtocolVersion, UserProperties};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// So many wait for a node at a time; the others for their turn, which does not count.
const AT_ONCE: usize = 1_000;
/// Connections that are taken over, one after the other.
const TAKEN_OVER: usize = 2_000;

#[derive(Clone)]
struct Node {
    address: String,
    pid: u32,
}

impl Node {
    fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        Duration::from_millis((fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10)
    }
}

/// Connects, and says how long it took and whether the session was there.
async fn connect(node: &Node, client: usize) -> (TcpStream, Duration, bool) {
    let name = format!("client-{client}");
    let properties = ConnectProperties {
        session_expiry_interval: 3_600,
        user_properties: UserProperties::default(),
        ..ConnectProperties::default()
    };
    let packet = Packet::Connect(Connect {
        version: ProtocolVersion::V5,
        clean_start: false,
        keep_alive: 0,
        client_id: &name,
        will: None,
        username: None,
        password: None,
        properties,
    });
    let mut bytes = Vec::new();
    packet.encode(ProtocolVersion::V5, &mut bytes).unwrap();
    let begun = Instant::now();
    let mut stream = TcpStream::connect(&node.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    stream.write_all(&bytes).await.unwrap();
    let mut head = [0; 4];
    stream.read_exact(&mut head).await.unwrap();
    let took = begun.elapsed();
    assert!(head[0] == 0x20 && head[3] == 0, "{name} at {}: {head:?}", node.address);
    (stream, took, head[2] & 1 == 1)
}

struct Round {
    streams: Vec<TcpStream>,
    waited: Vec<Duration>,
    present: usize,
}

/// Everybody connects at once, client `n` at node `n + by`.
async fn round(what: &str, nodes: &Arc<[Node]>, clients: usize, by: usize) -> Round {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let cpu = |nodes: &[Node]| nodes.iter().map(Node::cpu).sum::<Duration>();
    let (before, begun) = (cpu(nodes), Instant::now());
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let (turns, nodes) = (turns.clone(), nodes.clone());
            tokio::spawn(async move {
                let _turn = turns.acquire().await.unwrap();
                connect(&nodes[(client + by) % nodes.len()], client).await
            })
        })
        .collect();
    let mut done = Round { streams: Vec::new(), waited: Vec::new(), present: 0 };
    for task in tasks {
        let (stream, waited, present) = task.await.unwrap();
        done.streams.push(stream);
        done.waited.push(waited);
        done.present += usize::from(present);
    }
    let (took, spent) = (begun.elapsed(), cpu(nodes) - before);
    done.waited.sort_unstable();
    let rate = clients as f64 / took.as_secs_f64();
    println!("{what}: {clients} in {took:.2?}, {rate:.0}/s, {} to their sessions", done.present);
    println!("  {}; {:?} of the nodes' processor time each", told(&done.waited), spent / clients as u32);
    done
}

fn told(sorted: &[Duration]) -> String {
    let at = |percent: usize| sorted[(sorted.len() - 1) * percent / 100];
    format!("median {:.2?}, p99 {:.2?}, longest {:.2?}", at(50), at(99), at(100))
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut words = std::env::args().skip(1);
    let clients: usize = words.next().unwrap().parse().unwrap();
    let nodes: Arc<[Node]> = words
        .map(|word| {
            let (address, pid) = word.split_once('=').unwrap();
            Node { address: address.to_owned(), pid: pid.parse().unwrap() }
        })
        .collect();
    let first = round("connect", &nodes, clients, 0).await;
    drop(first.streams);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let back = round("come back at another node", &nodes, clients, 1).await;
    assert!(back.present == clients, "sessions are lost");
    let mut waited = Vec::new();
    for client in 0..TAKEN_OVER.min(clients) {
        let (_stream, took, present) = connect(&nodes[(client + 2) % nodes.len()], client).await;
        assert!(present, "the session is lost");
        waited.push(took);
    }
    waited.sort_unstable();
    println!("taken over at another node, one after the other: {}", told(&waited));
}
