//! The world of real processes for the testbed's clients: sockets without blocking in one thread, the clock of the machine.
//! The checks hear nothing of a broker's end but that connections are gone: to clients with durable sessions it is no more.

use std::fmt;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant as Clock};

use newtmq_base::Instant;
use newtmq_mqtt::{ProtocolVersion, QoS};
use newtmq_sim::Scenario;
use newtmq_sim::check::HistoryChecker;
use newtmq_sim::client::{Client, ClientOutput, Context};
use newtmq_sim::draw::Stream;
use newtmq_sim::history::{ClientIx, Closer, Event};
use newtmq_sim::observer::Observer;
use newtmq_sim::report::Check;
use newtmq_sim::scenario::{Act, ClientSpec, FilterSpec, PublishSpec, ReconnectSpec};

/// What is judged: these hold however often the broker is killed.
const JUDGED: [Check; 7] = [
    Check::Lost,
    Check::Phantom,
    Check::Twice,
    Check::SessionPresent,
    Check::Content,
    Check::PacketIdReused,
    Check::Protocol,
];
/// The broker lives for so many milliseconds of load.
const LIFE_MS: (u64, u64) = (50, 400);
/// Time at the end in which everything has to come. The checks want 5 s of silence.
const SETTLE: Duration = Duration::from_secs(9);
/// Nobody has anything to do for so long.
const PAUSE: Duration = Duration::from_micros(300);
const PUBLISHERS: u32 = 3;
const SUBSCRIBERS: u32 = 3;
/// Microseconds from one message of a publisher to its next.
const EVERY_US: u64 = 2_000;

/// Broker and clients, for so many rounds.
#[derive(Debug)]
pub struct Loop {
    /// The program.
    pub newtmq: PathBuf,
    /// Its data directory.
    pub data: PathBuf,
    /// How often it is killed.
    pub rounds: u64,
    /// What chance comes from.
    pub seed: u64,
    /// Shards of the broker.
    pub shards: u16,
    /// Publishers that use QoS 2; the others use QoS 1.
    pub exactly_once: u32,
    /// A line every ten rounds.
    pub told: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// How often it was killed.
    pub rounds: u64,
    /// Messages that a subscriber was certainly owed.
    pub owed: u64,
    /// Deliveries with QoS 2.
    pub once: u64,
    /// Sessions that were there again.
    pub present: u64,
    /// What was wrong.
    pub wrong: Vec<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome { rounds, owed, once, present, wrong } = self;
        write!(f, "{rounds} kills: {owed} messages owed, {once} looked at for QoS 2, {present} for Session Present; ")?;
        write!(f, "{} wrong", wrong.len())?;
        wrong.iter().try_for_each(|what| write!(f, "\n  {what}"))
    }
}

/// A client and its socket.
struct End {
    client: Client,
    stream: Option<TcpStream>,
    unsent: Vec<u8>,
}

struct World<'a> {
    started: Clock,
    address: SocketAddr,
    ends: Vec<End>,
    observer: Observer<'a>,
    next_conn: u32,
    events: Vec<Event>,
    outputs: Vec<ClientOutput>,
    buffer: Vec<u8>,
}

impl Loop {
    /// Runs all of it.
    pub fn run(&self) -> Outcome {
        let scenario = scenario(self.seed, self.shards);
        let observer = Observer::new(vec![Box::new(HistoryChecker::new(&scenario))], false);
        // The system picks a port that is free; the broker has it from then on.
        let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port");
        let mut world = World::new(&scenario, address, observer);
        let mut chance = Stream::new(self.seed, 0, 0);
        let mut broker = self.start(address);
        for (ix, spec) in (0..).zip(&scenario.clients) {
            world.act(ix, &Act::Connect { node: None, clean: None, session_expiry_s: None });
            if spec.name.starts_with("sub") {
                let filters = vec![FilterSpec::new("load/#", QoS::ExactlyOnce)];
                world.act(ix, &Act::Subscribe { filters, subscription_id: 0 });
            }
        }
        world.go_on(Duration::from_millis(300));
        for round in 0..self.rounds {
            world.publish(self.exactly_once);
            world.go_on(Duration::from_millis(chance.between(LIFE_MS.0, LIFE_MS.1)));
            broker.kill().and_then(|()| broker.wait()).expect("the broker can be killed");
            if self.told && round % 10 == 9 {
                println!("{} kills", round + 1);
            }
            broker = self.start(address);
            // Some rounds begin while clients are not there again.
            world.go_on(Duration::from_millis(chance.between(0, 200)));
        }
        world.calm();
        let outcome = world.judge(self.rounds);
        let _ = broker.kill().and_then(|()| broker.wait());
        outcome
    }

    fn start(&self, address: SocketAddr) -> Child {
        let mut command = Command::new(&self.newtmq);
        command.env_clear().args(["run", "--json", "--log", "warn", "--data"]).arg(&self.data);
        command.args(["--shards", &self.shards.to_string()]);
        for set in [
            &format!("listener.tcp.external.bind={address}"),
            "zone.external.max_mqueue_len=60000",
            // So that there are many segments, and old ones are freed.
            "store.segment_size=64KB",
            "store.log_size_min=128KB",
        ] {
            command.args(["--set", set]);
        }
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log_of(&self.data)).expect("a log");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn().expect("it starts");
        let mut line = String::new();
        let told = child.stdout.take().map(BufReader::new).expect("piped").read_line(&mut line);
        assert!(told.is_ok() && line.contains("\"started\""), "the broker does not start: {line}");
        child
    }
}

/// Where the broker's log is.
pub fn log_of(data: &Path) -> PathBuf {
    data.with_extension("log")
}

fn scenario(seed: u64, shards: u16) -> Scenario {
    let mut scenario = Scenario { seed, shards, ..Scenario::default() };
    scenario.broker.max_mqueue_len = Some(60_000);
    // Real sockets, and a broker that starts again: nothing is judged by time.
    scenario.net.latency_us = 100..=1_000_000;
    let reconnect = ReconnectSpec { first_ms: 20, max_ms: 200, growth_percent: 50, jitter_percent: 50 };
    let client = |name: String, version| ClientSpec {
        id: name.clone(),
        name,
        version,
        clean: false,
        session_expiry_s: 3600,
        reconnect: Some(reconnect),
        ..ClientSpec::default()
    };
    let versions = [ProtocolVersion::V5, ProtocolVersion::V311];
    let named = |what: &'static str, count: u32| {
        (0..count).map(move |at| client(format!("{what}-{at}"), versions[at as usize % versions.len()]))
    };
    scenario.clients = named("pub", PUBLISHERS).chain(named("sub", SUBSCRIBERS)).collect();
    scenario
}

impl<'a> World<'a> {
    fn new(scenario: &Scenario, address: SocketAddr, observer: Observer<'a>) -> World<'a> {
        let end = |(ix, spec): (u32, &ClientSpec)| End {
            client: Client::new(ClientIx(ix), spec, scenario.seed),
            stream: None,
            unsent: Vec::new(),
        };
        World {
            started: Clock::now(),
            address,
            ends: (0..).zip(&scenario.clients).map(end).collect(),
            observer,
            next_conn: 0,
            events: Vec::new(),
            outputs: Vec::new(),
            buffer: vec![0; 64 << 10],
        }
    }

    fn now(&self) -> Instant {
        Instant::START + self.started.elapsed()
    }

    /// Every publisher has a row of messages of its own.
    fn publish(&mut self, exactly_once: u32) {
        for ix in 0..PUBLISHERS {
            if self.ends[ix as usize].client.is_publishing() {
                continue;
            }
            let qos = if ix < exactly_once { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
            let row = PublishSpec { count: 200, every_us: EVERY_US, ..PublishSpec::new(format!("load/{ix}"), qos) };
            self.act(ix, &Act::Publish(row));
        }
    }

    fn act(&mut self, ix: u32, act: &Act) {
        self.with_client(ix, |client, cx| client.act(act, cx));
    }

    fn with_client(&mut self, ix: u32, call: impl FnOnce(&mut Client, &mut Context<'_>)) {
        let now = self.now();
        let mut cx = Context {
            now,
            names: &mut self.observer.names,
            events: &mut self.events,
            out: &mut self.outputs,
            next_conn: &mut self.next_conn,
        };
        call(&mut self.ends[ix as usize].client, &mut cx);
        for event in self.events.drain(..) {
            self.observer.event(now, &event);
        }
        for output in std::mem::take(&mut self.outputs) {
            self.carry_out(ix, output);
        }
    }

    fn carry_out(&mut self, ix: u32, output: ClientOutput) {
        match output {
            ClientOutput::Open => match self.open() {
                Ok(stream) => {
                    self.ends[ix as usize].stream = Some(stream);
                    self.with_client(ix, Client::on_open);
                }
                Err(_) => self.with_client(ix, |client, cx| client.on_closed(Closer::Network, cx)),
            },
            ClientOutput::Send(bytes) => {
                self.ends[ix as usize].unsent.extend_from_slice(&bytes);
                self.send(ix);
            }
            ClientOutput::Close | ClientOutput::Reset | ClientOutput::Abandon => self.forget(ix),
            // None of them speaks MQTT-SN.
            ClientOutput::Read(_) | ClientOutput::Datagram(_) => {}
        }
    }

    fn open(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(1))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(stream)
    }

    fn forget(&mut self, ix: u32) {
        let end = &mut self.ends[ix as usize];
        end.stream = None;
        end.unsent.clear();
    }

    /// What cannot be sent is noticed when it is read.
    fn send(&mut self, ix: u32) {
        let End { stream, unsent, .. } = &mut self.ends[ix as usize];
        let Some(stream) = stream else { return };
        while !unsent.is_empty() {
            match stream.write(unsent) {
                Ok(count) => drop(unsent.drain(..count)),
                Err(_) => return,
            }
        }
    }

    /// Reads what a client's connection has. Says whether there was anything.
    fn receive(&mut self, ix: u32) -> bool {
        let Some(stream) = &mut self.ends[ix as usize].stream else { return false };
        match stream.read(&mut self.buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Ok(count) if count > 0 => {
                let (now, data) = (self.now(), self.buffer[..count].to_vec());
                self.with_client(ix, |client, cx| client.on_bytes(&data, now, cx));
                true
            }
            Ok(_) | Err(_) => {
                self.forget(ix);
                self.with_client(ix, |client, cx| client.on_closed(Closer::Network, cx));
                true
            }
        }
    }

    /// Lets everybody do what there is to do, for some time.
    fn go_on(&mut self, time: Duration) {
        let until = Clock::now() + time;
        while Clock::now() < until {
            let mut busy = false;
            for ix in 0..self.ends.len() as u32 {
                self.send(ix);
                busy |= self.receive(ix);
                let now = self.now();
                if self.ends[ix as usize].client.next_deadline().is_some_and(|deadline| deadline <= now) {
                    self.with_client(ix, Client::on_tick);
                }
            }
            if !busy {
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// Nothing is killed any more: everything that is owed comes.
    fn calm(&mut self) {
        while (0..PUBLISHERS).any(|ix| self.ends[ix as usize].client.is_publishing()) {
            self.go_on(Duration::from_millis(100));
        }
        self.observer.event(self.now(), &Event::Calm);
        self.go_on(SETTLE);
        self.observer.event(self.now(), &Event::Quiesce);
    }

    fn judge(mut self, rounds: u64) -> Outcome {
        self.observer.end(self.now());
        let findings = &self.observer.findings;
        let of = |check| findings.obligations.of(check);
        let judged = findings.violations.iter().filter(|violation| JUDGED.contains(&violation.check));
        Outcome {
            rounds,
            owed: of(Check::Lost),
            once: of(Check::Twice),
            present: of(Check::SessionPresent),
            wrong: judged.map(|violation| format!("{}: {}", violation.check.name(), violation.message)).collect(),
        }
    }
}
