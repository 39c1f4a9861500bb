//! The world of several real processes for the testbed's clients: sockets without blocking in one thread, the clock of the
//! machine. What happens is collected and judged at the end, for the nodes' own words come from their logs.

use std::fmt;
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant as Clock};

use newtmq::demo::node::{Node, Process, Spec};
use newtmq::demo::script::Way;
use newtmq::demo::sight::{self, Sight};
use newtmq_base::{Incarnation, Instant, NodeId};
use newtmq_mqtt::{ProtocolVersion, QoS};
use newtmq_sim::Scenario;
use newtmq_sim::check::HistoryChecker;
use newtmq_sim::client::{Client, ClientOutput, Context};
use newtmq_sim::draw::Stream;
use newtmq_sim::history::{ClientIx, Closer, Event, Fault as Happened, Names, NodeIx, Uid};
use newtmq_sim::observer::Observer;
use newtmq_sim::report::Check;
use newtmq_sim::scenario::{Act, ClientSpec, FilterSpec, PublishSpec, ReconnectSpec};

use super::told::{self, Begin};
use super::ways::Ways;

/// What is judged: these hold whatever is done.
const JUDGED: [Check; 8] = [
    Check::Lost,
    Check::Phantom,
    Check::Twice,
    Check::Order,
    Check::SessionPresent,
    Check::Content,
    Check::PacketIdReused,
    Check::Protocol,
];
const NODES: usize = 3;
/// A way that is cut stays so, longer than it takes to be noticed.
const CUT: Duration = Duration::from_secs(10);
const PAUSED: Duration = Duration::from_secs(15);
/// A node that was killed is started again soon.
const DEAD: Duration = Duration::from_millis(500);
/// Load without any fault, between two of them.
const LULL: Duration = Duration::from_secs(1);
/// Never so long, on any machine.
const HEAL_MAX: Duration = Duration::from_secs(120);
/// Time at the end in which everything has to come. The checks want 5 s of silence.
const SETTLE: Duration = Duration::from_secs(7);
/// Nobody has anything to do for so long.
const PAUSE: Duration = Duration::from_micros(500);
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Microseconds from one message of a publisher to its next.
const EVERY_US: u64 = 20_000;

/// What is done to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing comes to or from a node.
    Cut(usize),
    /// Nothing comes from a node, and it hears the others.
    OneWay(usize),
    /// Two nodes do not reach each other, and both reach the third.
    Between(usize, usize),
    /// SIGSTOP.
    Pause(usize),
    /// SIGKILL, and a start.
    Kill(usize),
    /// All are stopped and started, one after the other, each at another address.
    Rolling,
}

/// Each fault so many times.
pub fn each_in_any_order(rounds: u64, seed: u64) -> Vec<Fault> {
    let mut chance = Stream::new(seed, 1, 0);
    let mut all = Vec::new();
    for _ in 0..rounds {
        let mut node = || chance.between(0, NODES as u64 - 1) as usize;
        let apart = node();
        let mut round = vec![
            Fault::Cut(node()),
            Fault::OneWay(node()),
            Fault::Between(apart, (apart + 1) % NODES),
            Fault::Pause(node()),
            Fault::Kill(node()),
            Fault::Rolling,
        ];
        while !round.is_empty() {
            let at = chance.between(0, round.len() as u64 - 1) as usize;
            all.push(round.swap_remove(at));
        }
    }
    all
}

/// Nodes and clients, and what is done to them in turn.
#[derive(Debug)]
pub struct Loop {
    /// The program.
    pub newtmq: PathBuf,
    /// Everything is written there.
    pub folder: PathBuf,
    /// What is done.
    pub faults: Vec<Fault>,
    /// What chance comes from.
    pub seed: u64,
    /// Shards of each node.
    pub shards: u16,
    /// Each node has a network of its own.
    pub namespaces: bool,
    /// A line for each fault.
    pub told: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// What was done, and how long after its end all was well.
    pub healed: Vec<(Fault, Duration)>,
    /// Messages that were published.
    pub published: u64,
    /// Messages that a subscriber was certainly owed, each counted for each subscriber.
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
        let Outcome { healed, published, owed, once, present, wrong } = self;
        for (fault, time) in healed {
            writeln!(f, "{fault:?}: healed {:.1} s after its end", time.as_secs_f64())?;
        }
        write!(
            f,
            "{published} messages published, owed {owed} times, {once} looked at for QoS 2, {present} for Session Present; "
        )?;
        write!(f, "{} wrong", wrong.len())?;
        wrong.iter().try_for_each(|what| write!(f, "\n  {what}"))
    }
}

/// A client and its socket.
struct End {
    client: Client,
    node: usize,
    stream: Option<TcpStream>,
    unsent: Vec<u8>,
}

struct World {
    started: Clock,
    begin: Begin,
    nodes: Vec<Node>,
    ways: Ways,
    ids: Vec<Option<NodeId>>,
    ends: Vec<End>,
    publishers: Vec<(u32, QoS)>,
    names: Names,
    next_conn: u32,
    /// In order of time for clients; of the world some come later.
    happened: Vec<(Instant, Event)>,
    events: Vec<Event>,
    outputs: Vec<ClientOutput>,
    buffer: Vec<u8>,
}

impl Loop {
    /// Runs all of it.
    pub fn run(&self) -> Outcome {
        let scenario = scenario(self.seed, self.shards);
        let mut world = self.world(&scenario);
        let founded = world.wait_healed();
        if self.told {
            println!("there after {:.1} s", founded.as_secs_f64());
        }
        for (ix, spec) in (0..).zip(&scenario.clients) {
            world.act(ix, &Act::Connect { node: None, clean: None, session_expiry_s: None });
            if spec.name.starts_with("sub") {
                let filters = vec![FilterSpec::new("load/#", QoS::ExactlyOnce)];
                world.act(ix, &Act::Subscribe { filters, subscription_id: 0 });
            }
        }
        world.go_on(LULL);
        let mut healed = Vec::new();
        for fault in &self.faults {
            world.go_on_publishing(LULL * 2);
            world.carry_out_fault(*fault);
            let took = world.wait_healed();
            if self.told {
                println!("{fault:?}: healed {:.1} s after its end", took.as_secs_f64());
            }
            healed.push((*fault, took));
        }
        world.go_on_publishing(LULL);
        world.calm();
        world.judge(&scenario, healed)
    }

    fn world(&self, scenario: &Scenario) -> World {
        let names: Vec<String> = (1..=NODES).map(|node| format!("node{node}@test")).collect();
        let ways = Ways::new(&names, self.namespaces);
        let seeds: Vec<_> = (0..NODES).map(|node| ways.place(node).advertise).collect();
        let begin = Begin::now();
        let start = |(at, name): (usize, &String)| {
            let place = ways.place(at);
            let spec = Spec {
                program: self.newtmq.clone(),
                name: name.clone(),
                data: self.folder.join(format!("node{}", at + 1)),
                log: self.folder.join(format!("node{}.log", at + 1)),
                listen: place.listen,
                advertise: place.advertise,
                mqtt: place.mqtt,
                seeds: seeds.clone(),
                cookie: "s3cr3t".to_owned(),
                shards: self.shards,
                before: ways.before(at),
                sets: vec![format!("zone.external.max_mqueue_len={QUEUE}"), "cluster.autoclean=off".to_owned()],
                // It tells whenever a subscription was confirmed early.
                filter: Some("info,newtmq::cluster=debug".to_owned()),
            };
            Node::start(spec).expect("it starts")
        };
        let nodes: Vec<Node> = names.iter().enumerate().map(start).collect();
        let end = |(ix, spec): (u32, &ClientSpec)| End {
            client: Client::new(ClientIx(ix), spec, scenario.seed),
            node: usize::from(spec.node),
            stream: None,
            unsent: Vec::new(),
        };
        let publishes = |(ix, spec): (u32, &ClientSpec)| {
            let qos = if spec.name.ends_with("once") { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
            spec.name.starts_with("pub").then_some((ix, qos))
        };
        World {
            started: Clock::now(),
            begin,
            nodes,
            ways,
            ids: vec![None; NODES],
            ends: (0..).zip(&scenario.clients).map(end).collect(),
            publishers: (0..).zip(&scenario.clients).filter_map(publishes).collect(),
            names: Names::default(),
            next_conn: 0,
            happened: Vec::new(),
            events: Vec::new(),
            outputs: Vec::new(),
            buffer: vec![0; 64 << 10],
        }
    }
}

/// Messages that wait for a client whose node is away.
const QUEUE: u16 = 60_000;

fn scenario(seed: u64, shards: u16) -> Scenario {
    let mut scenario = Scenario { seed, shards, nodes: NODES as u16, ..Scenario::default() };
    scenario.broker.max_mqueue_len = Some(QUEUE);
    // Real sockets, and nodes that start again: nothing is judged by time.
    scenario.net.latency_us = 100..=1_000_000;
    let reconnect = ReconnectSpec { first_ms: 50, max_ms: 500, growth_percent: 50, jitter_percent: 50 };
    let versions = [ProtocolVersion::V5, ProtocolVersion::V311];
    for node in 0..NODES as u16 {
        let kinds = [("pub-least", false), ("pub-once", false), ("sub-kept", false), ("sub-clean", true)];
        for (at, (kind, clean)) in kinds.into_iter().enumerate() {
            // What a publisher does is the end of its name.
            let name = match kind.split_once('-') {
                Some(("pub", what)) => format!("pub-{node}-{what}"),
                _ => format!("{kind}-{node}"),
            };
            scenario.clients.push(ClientSpec {
                id: name.clone(),
                name,
                node,
                version: versions[(usize::from(node) + at) % 2],
                clean,
                session_expiry_s: if clean { 0 } else { 3600 },
                reconnect: Some(reconnect),
                ..ClientSpec::default()
            });
        }
    }
    scenario
}

/// Of nodes.
impl World {
    fn note(&mut self, event: Event) {
        let now = self.now();
        self.happened.push((now, event));
    }

    fn start(&mut self, node: usize) {
        let place = self.ways.place(node);
        let spec = &mut self.nodes[node].spec;
        (spec.listen, spec.advertise, spec.mqtt) = (place.listen, place.advertise, place.mqtt);
        self.note_up(node);
        self.nodes[node].start_again().expect("it starts");
    }

    fn note_up(&mut self, node: usize) {
        let id = self.ids[node].expect("it has been there");
        let address = self.ways.place(node).advertise;
        self.note(Event::NodeUp { node: NodeIx(node as u16), id, incarnation: Incarnation(1), address });
    }

    fn stop(&mut self, node: usize, in_order: bool) {
        self.note(Event::NodeDown { node: NodeIx(node as u16) });
        if !in_order {
            return self.nodes[node].kill();
        }
        self.nodes[node].stop();
        // Its clients are there to hear it.
        while self.nodes[node].ended().is_none() {
            self.go_on_publishing(Duration::from_millis(20));
        }
    }

    fn set_cut(&mut self, way: Way, cut: bool) {
        for (from, to) in way.each(NODES) {
            let (of, other) = (NodeIx(from as u16), NodeIx(to as u16));
            if cut {
                self.note(Event::Fault(Happened::LinkCut { from: of, to: other }));
            }
            self.ways.set_cut(from, to, cut);
            if !cut {
                self.note(Event::Fault(Happened::LinkHealed { from: of, to: other }));
            }
        }
    }

    /// Does it and ends it.
    fn carry_out_fault(&mut self, fault: Fault) {
        let cut = match fault {
            Fault::Cut(node) => Way::Around(node),
            Fault::OneWay(node) => Way::From(node),
            Fault::Between(one, other) => Way::Between(one, other),
            Fault::Pause(node) => {
                let since = self.now();
                self.nodes[node].pause();
                self.go_on_publishing(PAUSED);
                self.nodes[node].go_on();
                let pause = Happened::Pause { node: NodeIx(node as u16), until: self.now() };
                self.happened.push((since, Event::Fault(pause)));
                return;
            }
            Fault::Kill(node) => {
                self.stop(node, false);
                self.go_on_publishing(DEAD);
                self.start(node);
                return;
            }
            Fault::Rolling => {
                for node in 0..NODES {
                    self.stop(node, true);
                    self.ways.move_node(node);
                    self.start(node);
                    self.wait_healed();
                }
                return;
            }
        };
        self.set_cut(cut, true);
        self.go_on_publishing(CUT);
        self.set_cut(cut, false);
    }

    /// Goes on until every node sees every other one and has its routes, twice in a row; says how long that took.
    fn wait_healed(&mut self) -> Duration {
        let since = Clock::now();
        let mut row = 0;
        while row < 2 {
            assert!(since.elapsed() < HEAL_MAX, "the cluster does not heal; {}", self.sights_told());
            self.go_on_publishing(LOOK_AGAIN);
            row = if self.is_whole() { row + 1 } else { 0 };
        }
        since.elapsed().saturating_sub(LOOK_AGAIN)
    }

    fn look(&mut self) -> Vec<Option<Sight>> {
        let names: Vec<String> = self.nodes.iter().map(|node| node.spec.name.clone()).collect();
        let mut all = Vec::new();
        for at in 0..NODES {
            if let Some(status) = self.nodes[at].ended() {
                panic!("node {at} has ended: {status}; see {}", self.nodes[at].spec.log.display());
            }
            let data = sight::ask(&self.nodes[at].socket()).ok();
            if let Some(data) = data.as_ref().filter(|_| self.ids[at].is_none()) {
                self.learn(at, data);
            }
            all.push(data.map(|data| Sight::of(&data, &names)));
        }
        all
    }

    /// Who a node is for others is known when it has answered for the first time.
    fn learn(&mut self, at: usize, data: &serde_json::Value) {
        let own = data["nodes"].as_array().and_then(|nodes| nodes.iter().find(|node| node["self"] == true));
        let id = own.and_then(|own| u64::from_str_radix(own["node"].as_str()?, 16).ok());
        let Some(id) = id.map(NodeId) else { return };
        self.ids[at] = Some(id);
        let address = self.ways.place(at).advertise;
        let up = Event::NodeUp { node: NodeIx(at as u16), id, incarnation: Incarnation(1), address };
        self.happened.push((Instant::START, up));
    }

    fn is_whole(&mut self) -> bool {
        let sights = self.look();
        let same_entries = |of: usize| {
            let mut all = sights.iter().flatten().map(|sight| sight.peers[of].entries);
            let first = all.next();
            all.all(|other| Some(other) == first)
        };
        let leader = sights.first().and_then(|sight| sight.as_ref()?.leader);
        sights.iter().all(|sight| sight.as_ref().is_some_and(|sight| sight.is_whole() && sight.leader == leader))
            && (0..NODES).all(same_entries)
    }

    fn sights_told(&mut self) -> String {
        format!("the nodes see {:#?}", self.look())
    }
}

/// Of clients.
impl World {
    fn now(&self) -> Instant {
        Instant::START + self.started.elapsed()
    }

    /// Goes on for some time. Every publisher has a row of messages of its own.
    fn go_on_publishing(&mut self, time: Duration) {
        let until = Clock::now() + time;
        loop {
            for at in 0..self.publishers.len() {
                let (ix, qos) = self.publishers[at];
                if !self.ends[ix as usize].client.is_publishing() && self.ends[ix as usize].stream.is_some() {
                    let row =
                        PublishSpec { count: 50, every_us: EVERY_US, ..PublishSpec::new(format!("load/{ix}"), qos) };
                    self.act(ix, &Act::Publish(row));
                }
            }
            let rest = until.saturating_duration_since(Clock::now());
            if rest.is_zero() {
                return;
            }
            self.go_on(rest.min(LOOK_AGAIN));
        }
    }

    fn act(&mut self, ix: u32, act: &Act) {
        self.with_client(ix, |client, cx| client.act(act, cx));
    }

    fn with_client(&mut self, ix: u32, call: impl FnOnce(&mut Client, &mut Context<'_>)) {
        let now = self.now();
        let mut cx = Context {
            now,
            names: &mut self.names,
            events: &mut self.events,
            out: &mut self.outputs,
            next_conn: &mut self.next_conn,
        };
        call(&mut self.ends[ix as usize].client, &mut cx);
        self.happened.extend(self.events.drain(..).map(|event| (now, event)));
        for output in std::mem::take(&mut self.outputs) {
            self.carry_out(ix, output);
        }
    }

    fn carry_out(&mut self, ix: u32, output: ClientOutput) {
        match output {
            ClientOutput::Open => match self.open(ix) {
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

    fn open(&self, ix: u32) -> std::io::Result<TcpStream> {
        let node = self.ends[ix as usize].node;
        // A node that is paused would take the connection and say nothing.
        if self.nodes[node].process() != Process::Running {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        let stream = TcpStream::connect_timeout(&self.ways.place(node).mqtt, Duration::from_secs(1))?;
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

    /// Nothing is done any more: everything that is owed comes.
    fn calm(&mut self) {
        while self.publishers.iter().any(|(ix, _)| self.ends[*ix as usize].client.is_publishing()) {
            self.go_on(Duration::from_millis(100));
        }
        self.note(Event::Calm);
        self.go_on(SETTLE);
        self.note(Event::Quiesce);
    }

    /// What happened to a message, and to nodes meanwhile.
    fn story(&self, uid: Uid) -> Vec<String> {
        let concerns = |event: &Event| match event {
            Event::Publish { facts, .. } => facts.uid == Some(uid),
            Event::Receive { facts, .. } => facts.uid == Some(uid),
            Event::Handed { uid: handed, .. } => *handed == uid,
            _ => false,
        };
        let all = || self.happened.iter().filter(|(_, event)| concerns(event));
        let Some((first, _)) = all().next() else { return Vec::new() };
        let last = all().next_back().map_or(*first, |(at, _)| *at);
        let of_nodes = |event: &Event| {
            matches!(event, Event::Fault(_) | Event::NodeUp { .. } | Event::NodeDown { .. } | Event::Close { .. })
        };
        let near = |at: Instant| at + Duration::from_secs(1) >= *first && at <= last + Duration::from_secs(1);
        let shown = self.happened.iter().filter(|(at, event)| near(*at) && (concerns(event) || of_nodes(event)));
        shown
            .map(|(at, event)| format!("{:.3} s {event:?}", at.saturating_since(Instant::START).as_secs_f64()))
            .collect()
    }

    fn judge(mut self, scenario: &Scenario, healed: Vec<(Fault, Duration)>) -> Outcome {
        let mut wrong = Vec::new();
        for (at, node) in self.nodes.iter().enumerate() {
            let log = fs::read_to_string(&node.spec.log).expect("it has a log");
            let bad = |line: &&str| line.contains("\"level\":\"ERROR\"") || line.contains("panicked");
            wrong.extend(log.lines().filter(bad).map(|line| format!("log of node {at}: {line}")));
            if !told::is_known(&log) {
                wrong.push(format!("log of node {at}: it does not tell what the checks need"));
            }
            self.happened.extend(told::events(NodeIx(at as u16), &log, self.begin));
        }
        // Of one time the order stays.
        self.happened.sort_by_key(|(at, _)| *at);
        let mut observer = Observer::new(vec![Box::new(HistoryChecker::new(scenario))], false);
        observer.names = std::mem::take(&mut self.names);
        for (at, event) in &self.happened {
            observer.event(*at, event);
        }
        observer.end(self.now());
        let findings = &observer.findings;
        let of = |check| findings.obligations.of(check);
        let judged = findings.violations.iter().filter(|violation| JUDGED.contains(&violation.check));
        for violation in judged {
            wrong.push(format!("{}: {}", violation.check.name(), violation.message));
            let story = violation.witness.uid.map(|uid| self.story(uid)).unwrap_or_default();
            wrong.extend(story.into_iter().map(|line| format!("  {line}")));
        }
        let is_new = |(_, event): &&(Instant, Event)| matches!(event, Event::Publish { facts, .. } if !facts.dup);
        let published = self.happened.iter().filter(is_new).count() as u64;
        Outcome {
            healed,
            published,
            owed: of(Check::Lost),
            once: of(Check::Twice),
            present: of(Check::SessionPresent),
            wrong,
        }
    }
}
