//! The real driver, listeners and shard in madsim: simulated network and time, one thread, the same run for the same
//! seed. Built and run with
//!
//! ```sh
//! RUSTFLAGS="--cfg madsim" cargo test --test madsim --target-dir target/sim
//! ```
//!
//! Each run has a thread of its own, since madsim keeps state in the thread.
#![cfg(madsim)]
// A test says what it expects by failing.
#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use madsim::runtime::{NodeHandle, Runtime};
use newtmq::cluster::watched::Watched;
use newtmq::config::{self, Sources};
use newtmq::data::NodeIdentity;
use newtmq::run::{RunOptions, Started, drive_all, start};
use newtmq_access::{HashParams, User, Users, Verifier};
use newtmq_base::{Incarnation, NodeId};
use newtmq_mqtt::{
    Ack, Connect, ConnectProperties, Decoder, Disconnect, Packet, PacketId, ProtocolVersion, Publish,
    PublishProperties, QoS, ReasonCode, Sender, Subscribe, SubscribeFilters, SubscribeOptions, TopicFilter, TopicName,
    UserProperties,
};
use newtmq_node::AdminCommand;
use newtmq_simnet::SimStream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

const VERSION: ProtocolVersion = ProtocolVersion::V5;
const BROKER: &str = "10.0.0.1:1883";
/// Of simulated time.
const DEADLINE: Duration = Duration::from_secs(60);

/// What clients saw, and when: a line for each packet.
#[derive(Clone)]
struct Trace {
    start: Instant,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Trace {
    fn new() -> Trace {
        Trace { start: Instant::now(), lines: Arc::default() }
    }

    fn note(&self, who: &str, what: &str) {
        let line = format!("{:>10} {who} {what}", self.start.elapsed().as_nanos());
        self.lines.lock().unwrap().push(line);
    }
}

struct Client {
    name: &'static str,
    stream: SimStream,
    decoder: Decoder,
    /// Read and not yet looked at.
    input: Vec<u8>,
    trace: Trace,
}

impl Client {
    async fn connect(name: &'static str, trace: &Trace) -> Client {
        let (client, reason) = Client::login(name, None, trace).await;
        assert_eq!(reason, ReasonCode::Success);
        client
    }

    /// A connection with this password for the user `u`, and what the broker says to it.
    async fn login(name: &'static str, password: Option<&[u8]>, trace: &Trace) -> (Client, ReasonCode) {
        let stream = SimStream::connect(BROKER.parse().unwrap()).await.unwrap();
        let mut client = Client { name, stream, decoder: Decoder::new(), input: Vec::new(), trace: trace.clone() };
        client
            .send(&Packet::Connect(Connect {
                version: VERSION,
                clean_start: true,
                keep_alive: 30,
                client_id: name,
                will: None,
                username: password.map(|_| "u"),
                password,
                properties: ConnectProperties::default(),
            }))
            .await;
        let reason = client
            .receive(|packet| match packet {
                Packet::Connack(connack) => connack.reason_code,
                other => panic!("{other:?}"),
            })
            .await;
        (client, reason)
    }

    async fn send(&mut self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(VERSION, &mut bytes).unwrap();
        self.stream.write_all(&bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    async fn receive<T>(&mut self, look: impl FnOnce(&Packet<'_>) -> T) -> T {
        loop {
            let mut input = &self.input[..];
            if let Some(frame) = self.decoder.next(&mut input, u32::MAX).unwrap() {
                let packet = frame.decode(VERSION, Sender::Server).unwrap();
                self.trace.note(self.name, &format!("{packet:?}"));
                let seen = look(&packet);
                self.input = input.to_vec();
                return seen;
            }
            self.input.clear();
            let mut buffer = [0; 4096];
            let count = timeout(DEADLINE, self.stream.read(&mut buffer)).await.expect("a packet comes").unwrap();
            assert_ne!(count, 0, "the broker closed the connection");
            self.input.extend_from_slice(&buffer[..count]);
        }
    }

    async fn subscribe(&mut self, filter: &str) {
        let filters = [(TopicFilter::new(filter).unwrap(), SubscribeOptions::new(QoS::AtLeastOnce))];
        self.send(&Packet::Subscribe(Subscribe {
            packet_id: id(1),
            subscription_identifier: None,
            user_properties: UserProperties::default(),
            filters: SubscribeFilters::new(&filters),
        }))
        .await;
        self.receive(|packet| assert!(matches!(packet, Packet::Suback(_)), "{packet:?}")).await;
    }

    async fn publish(&mut self, topic: &str, payload: &[u8], qos: QoS) {
        let publish = Publish {
            dup: false,
            qos,
            retain: false,
            topic: Some(TopicName::new(topic).unwrap()),
            packet_id: (qos != QoS::AtMostOnce).then(|| id(7)),
            properties: PublishProperties::default(),
            payload,
        };
        self.send(&Packet::Publish(publish)).await;
        if qos != QoS::AtMostOnce {
            self.receive(|packet| assert!(matches!(packet, Packet::Puback(_)), "{packet:?}")).await;
        }
    }

    /// The payload of the next packet, which is a PUBLISH; acknowledged.
    async fn message(&mut self) -> Vec<u8> {
        let (payload, packet_id) = self
            .receive(|packet| match packet {
                Packet::Publish(publish) => (publish.payload.to_vec(), publish.packet_id),
                other => panic!("{other:?}"),
            })
            .await;
        if let Some(packet_id) = packet_id {
            self.send(&Packet::Puback(Ack::new(packet_id, ReasonCode::Success))).await;
        }
        payload
    }

    async fn disconnect(mut self) {
        self.send(&Packet::Disconnect(Disconnect::new(ReasonCode::NORMAL_DISCONNECTION))).await;
        self.trace.note(self.name, "left");
    }
}

fn id(value: u16) -> PacketId {
    PacketId::new(value).unwrap()
}

fn runtime(seed: u64) -> Runtime {
    let runtime = Runtime::with_seed_and_config(seed, madsim::Config::default());
    newtmq_simnet::install(&runtime);
    runtime
}

/// A node that runs the broker until it is told to stop.
fn broker(runtime: &Runtime) -> (NodeHandle, mpsc::Sender<AdminCommand>, madsim::task::JoinHandle<()>) {
    broker_with(runtime, "")
}

/// The same with more configuration.
fn broker_with(
    runtime: &Runtime,
    text: &str,
) -> (NodeHandle, mpsc::Sender<AdminCommand>, madsim::task::JoinHandle<()>) {
    let node = runtime.create_node().name("broker").ip("10.0.0.1".parse().unwrap()).build();
    let (commands, commanded) = mpsc::channel(4);
    let text = format!("listener.tcp.external = \"10.0.0.1:1883\"\n{text}");
    let config = config::load_text("sim.toml", &text, &Sources::default());
    let options = RunOptions {
        config: config.unwrap().config,
        node: NodeIdentity { node_id: NodeId(1), incarnation: Incarnation(1) },
        shards: 4,
        json: true,
        data: None,
        socket: None,
        watched: Watched::default(),
    };
    let running = node.spawn(async move {
        let Started { drivers, listening, .. } = start(&options, commanded).await.unwrap();
        assert_eq!((drivers.len(), listening.len()), (4, 1));
        drive_all(drivers).await.unwrap();
    });
    (node, commands, running)
}

/// One client publishes to the other, with both QoS, a hundred times.
fn publish_and_subscribe(seed: u64) -> Vec<String> {
    let run = move || {
        let runtime = runtime(seed);
        let (_node, commands, running) = broker(&runtime);
        let clients = runtime.create_node().name("clients").ip("10.0.0.2".parse().unwrap()).build();
        runtime.block_on(async move {
            let trace = Trace::new();
            let of_clients = trace.clone();
            let done = clients.spawn(async move {
                let trace = of_clients;
                let mut subscriber = Client::connect("subscriber", &trace).await;
                subscriber.subscribe("t/+").await;
                let mut publisher = Client::connect("publisher", &trace).await;
                for n in 0..100_u32 {
                    let qos = if n % 2 == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
                    publisher.publish("t/1", &n.to_be_bytes(), qos).await;
                    assert_eq!(subscriber.message().await, n.to_be_bytes());
                }
                publisher.disconnect().await;
                subscriber.send(&Packet::Pingreq).await;
                subscriber.receive(|packet| assert_eq!(packet, &Packet::Pingresp)).await;
                subscriber
            });
            let mut subscriber = timeout(DEADLINE, done).await.expect("the clients are done").unwrap();
            commands.send(AdminCommand::Shutdown).await.unwrap();
            let wanted = ReasonCode::ServerShuttingDown;
            let is_wanted = |packet: &Packet<'_>| match packet {
                Packet::Disconnect(disconnect) => assert_eq!(disconnect.reason_code, wanted),
                other => panic!("{other:?}"),
            };
            subscriber.receive(is_wanted).await;
            drop(subscriber);
            timeout(DEADLINE, running).await.expect("the broker stops").unwrap();
            trace.note("broker", "stopped");
            let lines = trace.lines.lock().unwrap().clone();
            lines
        })
    };
    std::thread::spawn(run).join().unwrap()
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let first = publish_and_subscribe(1);
    // Two CONNACK, SUBACK, a PUBLISH each and 50 PUBACK, PINGRESP, DISCONNECT, and two notes.
    assert_eq!(first.len(), 2 + 1 + 100 + 50 + 1 + 1 + 2, "{first:#?}");
    assert_eq!(first, publish_and_subscribe(1));
    assert_ne!(first, publish_and_subscribe(2), "latency depends on the seed, and the trace has times");
}

#[test]
fn it_works_with_any_seed() {
    for seed in 100..120 {
        publish_and_subscribe(seed);
    }
}

/// Time passes only when nothing else can happen, so that a minute of waiting costs nothing.
#[test]
fn a_client_that_goes_silent_is_given_up() {
    let run = || {
        let runtime = runtime(7);
        let (_node, _commands, _running) = broker(&runtime);
        let clients = runtime.create_node().name("clients").ip("10.0.0.2".parse().unwrap()).build();
        runtime.block_on(async move {
            let silent = clients.spawn(async {
                let mut silent = Client::connect("silent", &Trace::new()).await;
                let since = Instant::now();
                let reason = silent
                    .receive(|packet| match packet {
                        Packet::Disconnect(disconnect) => disconnect.reason_code,
                        other => panic!("{other:?}"),
                    })
                    .await;
                (reason, since.elapsed())
            });
            let (reason, after) = silent.await.unwrap();
            assert_eq!(reason, ReasonCode::KeepAliveTimeout);
            // 1.5 times the Keep Alive [MQTT-3.1.2-22], seen from the other side of a network.
            assert!((Duration::from_secs(44)..Duration::from_secs(47)).contains(&after), "{after:?}");
        });
    };
    std::thread::spawn(run).join().unwrap();
}

/// Passwords are checked in a task instead of on threads; the rest is the same.
#[test]
fn logins() {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("users-{}", std::process::id()));
    let params = HashParams { memory_kib: 64, passes: 1, lanes: 1 };
    let password = Verifier::default().hash(b"right", [7; 16], params).unwrap();
    let user = User { password: Some(password), scram: None };
    std::fs::write(&file, Users::edited("", "u", Some(&user), [1; 32]).unwrap().0).unwrap();
    let text = format!("password_file = {:?}\nallow_anonymous = false", file.to_str().unwrap());
    let run = move || {
        let runtime = runtime(1);
        let (_node, _commands, _running) = broker_with(&runtime, &text);
        let clients = runtime.create_node().name("clients").ip("10.0.0.2".parse().unwrap()).build();
        let told = clients.spawn(async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let trace = Trace::new();
            let mut told = Vec::new();
            for password in [Some(&b"right"[..]), Some(b"wrong"), None] {
                told.push(Client::login("c", password, &trace).await.1);
            }
            told
        });
        let (right, wrong, none) = (ReasonCode::Success, ReasonCode::BadUserNameOrPassword, ReasonCode::NotAuthorized);
        assert_eq!(runtime.block_on(told).unwrap(), [right, wrong, none]);
    };
    std::thread::spawn(run).join().unwrap();
    std::fs::remove_file(file).unwrap();
}
