//! Nodes over a network with delays, cuts and crashes. All chance comes from one seed.

mod net;
mod view;

use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use newtmq_base::{Incarnation, Instant, NodeId, RequestId, Rng, ShardId, WallTime};
use newtmq_cluster::lane::Epoch;
use newtmq_cluster::link::{self, Cookie, DialId};
use newtmq_cluster::owned::{self, Batch, Change, Class, Count};
use newtmq_cluster::{directory, lane, meta, swim};
use newtmq_mqtt::TopicFilter;

use crate::{
    ClusterAnswer, ClusterBoot, ClusterCommand, ClusterConfig, ClusterEvent, ClusterInput, ClusterOutput, Control,
    ControlBoot, ControlInput, ControlOutput, Durability, FromControl, PeerNews, Release, RetainedNews,
    RetainedOutcome, ShardConfig, ToControl, WillNews, WillNote, WillSaid,
};

use net::Pipe;
use view::Told;

/// Whose, filter, class, shard.
pub(super) type Place = (NodeId, String, Class, u16);

/// A shard that keeps books.
#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) table: BTreeMap<Place, u32>,
    pub(super) news: BTreeMap<NodeId, Vec<PeerNews>>,
    pub(super) acknowledge: Option<Instant>,
    pub(super) committed: BTreeMap<u64, bool>,
    pub(super) frames: Vec<(NodeId, lane::Frame)>,
    pub(super) drained: Vec<bool>,
    pub(super) is_recovered: bool,
    /// What was said of wills, in order.
    pub(super) wills: Vec<WillNews>,
    /// The last SUBACK's: up to which index of the retained messages its readers wait.
    pub(super) reads_at: u64,
    /// What became of messages that were to be retained, by number.
    pub(super) retained: BTreeMap<u64, RetainedOutcome>,
    /// Claims that were granted, by client.
    pub(super) grants: BTreeMap<String, Epoch>,
    sent: u64,
    /// Messages come in order, not before this time.
    reaches: Instant,
    answers: Instant,
}

#[derive(Debug)]
struct Record {
    number: u64,
    bytes: Box<[u8]>,
    replaces: bool,
    durable: bool,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: NodeId,
    birth: u64,
    pub(super) inc: u64,
    pub(super) address: SocketAddr,
    pub(super) config: ClusterConfig,
    pub(super) control: Option<Control>,
    pub(super) shards: Vec<Shard>,
    /// Subscriptions: those that outlive a crash, and those that do not.
    pub(super) filters: BTreeSet<(String, Class, u16)>,
    disk: Vec<Record>,
    pub(super) seeds: Option<(BTreeSet<SocketAddr>, bool)>,
    pub(super) events: Vec<(Instant, ClusterEvent)>,
    pub(super) answers: BTreeMap<u64, ClusterAnswer>,
    requests: u64,
    pub(super) sent: Chatter,
    /// What was told to the first shard, as far as Control knows: routes, how others are reached, until when it may acknowledge.
    told: Told,
    /// A shard takes this long to have everything that was stored.
    pub(super) recovers_in: Duration,
    /// Its disk takes nothing more, and says nothing.
    pub(super) is_full: bool,
    /// Stored sessions with a will: what its shard says of them when it starts.
    pub(super) stored_wills: Vec<(String, Epoch)>,
}

/// What a node has said.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Chatter {
    pub(super) packets: u64,
    pub(super) packet_bytes: u64,
    pub(super) writes: u64,
    pub(super) frames: u64,
    pub(super) stream_bytes: u64,
}

enum Happens {
    Packet { to: SocketAddr, from: SocketAddr, bytes: Vec<u8> },
    Dialed { node: usize, inc: u64, dial: DialId, to: SocketAddr },
    Undialed { node: usize, inc: u64, dial: DialId },
    Stored { node: usize, inc: u64, upto: u64 },
    ToShard { node: usize, inc: u64, shard: u16, message: Box<FromControl> },
    FromShard { node: usize, inc: u64, shard: u16, message: Box<ToControl> },
}

pub(super) struct World {
    pub(super) now: Instant,
    pub(super) rng: Rng,
    pub(super) nodes: Vec<Node>,
    pub(super) cuts: BTreeSet<(usize, usize)>,
    pub(super) delay: Duration,
    pub(super) loss_percent: u64,
    /// A sync takes so long at most.
    pub(super) disk: Duration,
    pub(super) shards: u16,
    happens: BTreeMap<(Instant, u64), Happens>,
    numbers: u64,
    pipes: BTreeMap<u64, Pipe>,
    connections: u64,
}

pub(super) fn config() -> ClusterConfig {
    ClusterConfig {
        name: "test".to_owned(),
        cookie: Cookie::new("secret").unwrap(),
        discovers: true,
        witness: false,
        strict: false,
        links: link::Config::default(),
        swim: swim::Config::default(),
        meta: meta::Config::default(),
        owned: owned::Config { stored: true, ..owned::Config::default() },
        directory: newtmq_cluster::directory::Config::default(),
        max_retained: 0,
        release: Release::default(),
    }
}

impl World {
    /// Nodes that are each other's seeds, and do not run yet.
    pub(super) fn new(seed: u64, nodes: usize) -> World {
        let mut world = World {
            now: Instant::from_millis(1000),
            rng: Rng::from_number(seed),
            nodes: Vec::new(),
            cuts: BTreeSet::new(),
            delay: Duration::from_millis(10),
            loss_percent: 0,
            disk: Duration::from_millis(5),
            shards: 2,
            happens: BTreeMap::new(),
            numbers: 0,
            pipes: BTreeMap::new(),
            connections: 0,
        };
        (0..nodes).for_each(|_| _ = world.add(config()));
        let all: BTreeSet<SocketAddr> = world.nodes.iter().map(|node| node.address).collect();
        for node in &mut world.nodes {
            let others = all.iter().copied().filter(|address| *address != node.address).collect();
            node.seeds = Some((others, true));
        }
        world
    }

    /// Another node, without seeds.
    pub(super) fn add(&mut self, config: ClusterConfig) -> usize {
        let at = self.nodes.len();
        let address = SocketAddr::from((Ipv4Addr::new(10, 0, 0, at as u8 + 1), 4370));
        self.nodes.push(Node {
            id: NodeId(self.rng.next_u64() >> 8),
            birth: self.rng.next_u64(),
            inc: 0,
            address,
            config,
            control: None,
            shards: Vec::new(),
            filters: BTreeSet::new(),
            disk: Vec::new(),
            seeds: None,
            events: Vec::new(),
            answers: BTreeMap::new(),
            requests: 0,
            sent: Chatter::default(),
            told: Told::default(),
            recovers_in: Duration::from_millis(20),
            is_full: false,
            stored_wills: Vec::new(),
        });
        at
    }

    pub(super) fn id(&self, node: usize) -> NodeId {
        self.nodes[node].id
    }

    pub(super) fn control(&self, node: usize) -> &Control {
        self.nodes[node].control.as_ref().unwrap()
    }

    /// What a start of the node is given.
    pub(super) fn boot(&mut self, at: usize) -> ClusterBoot {
        let mut seed = [0; newtmq_base::SEED_BYTES];
        self.rng.fill(&mut seed);
        let node = &self.nodes[at];
        let from = node.disk.iter().rposition(|record| record.replaces).unwrap_or(0);
        ClusterBoot {
            config: node.config.clone(),
            node: node.id,
            birth: node.birth,
            incarnation: Incarnation(node.inc),
            name: format!("n{at}@test"),
            address: node.address,
            seed,
            stored: node.disk[from..].iter().map(|record| record.bytes.clone()).collect(),
        }
    }

    pub(super) fn start(&mut self, at: usize) {
        assert!(self.nodes[at].control.is_none());
        self.nodes[at].inc += 1;
        let cluster = self.boot(at);
        assert_eq!(cluster.verify(), Ok(()));
        let mut config = ShardConfig::default();
        config.zones[0].durability = Durability::Synced;
        let boot = ControlBoot {
            now: self.now,
            wall: WallTime(0),
            shards: self.shards,
            version: "1",
            node: cluster.node,
            incarnation: cluster.incarnation,
            node_seed: 7,
            cluster: Some(Box::new(cluster)),
        };
        let node = &mut self.nodes[at];
        node.told = Told::default();
        node.control = Some(Control::new(&config, boot));
        node.shards = (0..self.shards).map(|_| Shard::default()).collect();
        node.filters.retain(|(_, class, _)| *class == Class::Durable);
        if let Some((addresses, here)) = node.seeds.clone() {
            self.cluster(at, ClusterInput::Discovered { addresses, here });
        }
        for shard in 0..self.shards {
            let of_shard = self.nodes[at].filters.iter().filter(|(_, _, of)| *of == shard).cloned();
            let changes: Vec<Change> = of_shard.map(|(filter, class, _)| change(&filter, class, Count::Plus)).collect();
            self.nodes[at].shards[usize::from(shard)].answers = self.now + self.nodes[at].recovers_in;
            self.routes(at, shard, changes);
            for (client, epoch) in self.nodes[at].stored_wills.clone().into_iter().filter(|_| shard == 0) {
                self.will(at, &client, epoch, WillSaid::Stored);
            }
            self.shard_says(at, shard, ToControl::Recovered);
        }
    }

    pub(super) fn start_all(&mut self) {
        (0..self.nodes.len()).for_each(|at| self.start(at));
    }

    /// Its process ends; what was not durable is lost, or not.
    pub(super) fn crash(&mut self, at: usize) {
        let inc = self.nodes[at].inc;
        self.nodes[at].control = None;
        let durable = self.nodes[at].disk.iter().take_while(|record| record.durable).count();
        let more = self.rng.below((self.nodes[at].disk.len() - durable) as u64 + 1) as usize;
        self.nodes[at].disk.truncate(durable + more);
        self.nodes[at].disk.iter_mut().for_each(|record| record.durable = true);
        let pipes: Vec<u64> = self.pipes.keys().copied().collect();
        for pipe in pipes {
            for end in 0..2 {
                let (node, of, conn) = self.pipes[&pipe].ends[end];
                if node == at && of == inc && conn.is_some() {
                    self.close(pipe, end);
                }
            }
        }
    }

    /// It is told to stop, says goodbye, and ends.
    pub(super) fn stop(&mut self, at: usize) {
        self.cluster(at, ClusterInput::Stop);
    }

    /// Its data directory is lost: afterwards it is another node.
    pub(super) fn wipe(&mut self, at: usize) {
        let (id, birth) = (NodeId(self.rng.next_u64() >> 8), self.rng.next_u64());
        let node = &mut self.nodes[at];
        (node.id, node.birth, node.inc) = (id, birth, 0);
        node.disk.clear();
        node.filters.clear();
    }

    pub(super) fn cut(&mut self, one: usize, other: usize) {
        self.cuts.extend([(one, other), (other, one)]);
    }

    pub(super) fn split(&mut self, one: &[usize], other: &[usize]) {
        for a in one {
            other.iter().for_each(|b| self.cut(*a, *b));
        }
    }

    pub(super) fn heal(&mut self) {
        self.cuts.clear();
    }

    pub(super) fn subscribe(&mut self, at: usize, shard: u16, filter: &str, class: Class) {
        if self.nodes[at].filters.insert((filter.to_owned(), class, shard)) {
            self.routes(at, shard, vec![change(filter, class, Count::Plus)]);
        }
    }

    pub(super) fn unsubscribe(&mut self, at: usize, shard: u16, filter: &str, class: Class) {
        if self.nodes[at].filters.remove(&(filter.to_owned(), class, shard)) {
            self.routes(at, shard, vec![change(filter, class, Count::Minus)]);
        }
    }

    fn routes(&mut self, at: usize, shard: u16, changes: Vec<Change>) {
        let of = &mut self.nodes[at].shards[usize::from(shard)];
        of.sent += 1;
        let seq = of.sent;
        self.shard_says(at, shard, ToControl::Routes { seq, changes });
    }

    /// A shard says something of a will.
    pub(super) fn will(&mut self, at: usize, client: &str, epoch: Epoch, said: WillSaid) {
        let note = WillNote { client: client.into(), epoch, said };
        self.shard_says(at, 0, ToControl::Will(Box::new(note)));
    }

    /// A connection of a client asks for its session.
    pub(super) fn claim(&mut self, at: usize, client: &str, clean: bool) {
        let id = newtmq_base::ConnId { slot: 0, generation: 0 };
        let conn = directory::Conn { shard: ShardId(0), id };
        let limits = Box::default();
        let input = directory::Input::Claim { client: client.into(), conn, clean, durable: false, limits };
        self.shard_says(at, 0, ToControl::Directory(Box::new(input)));
    }

    /// A client of a node wants a message to be retained; the number of the question.
    pub(super) fn retain(&mut self, at: usize, topic: &str, message: Bytes) -> u64 {
        self.numbers += 1;
        let number = self.numbers;
        let message = Some(message).filter(|message| !message.is_empty());
        self.shard_says(at, 0, ToControl::Retain { number, topic: topic.into(), message });
        number
    }

    /// A shard had this before there was a cluster.
    pub(super) fn bring(&mut self, at: usize, topic: &str, message: Bytes) {
        self.shard_says(at, 0, ToControl::Bring { topic: topic.into(), message });
    }

    pub(super) fn command(&mut self, at: usize, command: ClusterCommand) -> u64 {
        self.nodes[at].requests += 1;
        let request = self.nodes[at].requests;
        self.cluster(at, ClusterInput::Command { request: RequestId(request), command });
        request
    }

    pub(super) fn lanes(&mut self, at: usize, frames: Vec<(NodeId, lane::Frame)>) {
        let parcel = |(node, frame): (NodeId, lane::Frame)| {
            let mut parcel = lane::Parcel::default();
            parcel.push(&frame);
            (node, parcel.take())
        };
        let parcels = frames.into_iter().map(parcel).collect();
        self.handle(at, ControlInput::Shard { from: ShardId(0), message: ToControl::Lanes(parcels) });
    }

    /// Any datagram, as if it came from there.
    pub(super) fn packet(&mut self, at: usize, from: SocketAddr, data: &[u8]) {
        self.cluster(at, ClusterInput::Packet { from, data });
    }

    fn cluster(&mut self, at: usize, input: ClusterInput<'_>) {
        self.handle(at, ControlInput::Cluster(input));
    }

    fn push(&mut self, after: Duration, happens: Happens) {
        self.numbers += 1;
        self.happens.insert((self.now + after, self.numbers), happens);
    }

    fn push_at(&mut self, at: Instant, happens: Happens) {
        self.numbers += 1;
        self.happens.insert((at, self.numbers), happens);
    }

    fn some(&mut self, most: Duration) -> Duration {
        Duration::from_nanos(self.rng.below(u64::try_from(most.as_nanos()).unwrap() + 1))
    }

    fn shard_says(&mut self, at: usize, shard: u16, message: ToControl) {
        let after = self.some(Duration::from_millis(1));
        let (inc, of) = (self.nodes[at].inc, &mut self.nodes[at].shards[usize::from(shard)]);
        of.answers = of.answers.max(self.now + after);
        let when = of.answers;
        self.push_at(when, Happens::FromShard { node: at, inc, shard, message: Box::new(message) });
    }

    fn handle(&mut self, at: usize, input: ControlInput<'_>) {
        let mut out = Vec::new();
        let Some(control) = self.nodes[at].control.as_mut() else { return };
        control.handle(self.now, input, &mut out);
        for output in &out {
            if let ControlOutput::Shard { to: ShardId(0), message } = output {
                self.nodes[at].told.note(message);
            }
        }
        self.check(at);
        for output in out {
            match output {
                ControlOutput::Shard { to, message } => {
                    let after = self.some(Duration::from_millis(2));
                    let (inc, of) = (self.nodes[at].inc, &mut self.nodes[at].shards[usize::from(to.0)]);
                    of.reaches = of.reaches.max(self.now + after);
                    let when = of.reaches;
                    let message = Box::new(message);
                    self.push_at(when, Happens::ToShard { node: at, inc, shard: to.0, message });
                }
                ControlOutput::Cluster(output) => self.on_cluster(at, output),
            }
        }
    }

    fn on_cluster(&mut self, at: usize, output: ClusterOutput) {
        let inc = self.nodes[at].inc;
        match output {
            ClusterOutput::Dial { dial, address } => {
                let after = self.some(self.delay * 2);
                let to = address.0.parse().unwrap();
                self.push(after, Happens::Dialed { node: at, inc, dial, to });
            }
            ClusterOutput::Ready(conn) => self.write(at, conn),
            ClusterOutput::Close(conn) => {
                self.write(at, conn);
                if let Some((pipe, end)) = self.end_of(at, conn) {
                    self.close(pipe, end);
                }
                self.cluster(at, ClusterInput::Link(link::Input::Closed(conn)));
            }
            ClusterOutput::Packet { to, bytes } => {
                self.nodes[at].sent.packets += 1;
                self.nodes[at].sent.packet_bytes += bytes.len() as u64;
                if self.rng.below(100) >= self.loss_percent {
                    let (after, from) = (self.some(self.delay), self.nodes[at].address);
                    self.push(after, Happens::Packet { to, from, bytes });
                }
            }
            ClusterOutput::Store { number, record, sync, replaces } => {
                self.nodes[at].disk.push(Record { number, bytes: record.into(), replaces, durable: false });
                if sync && !self.nodes[at].is_full {
                    let after = Duration::from_micros(100) + self.some(self.disk);
                    self.push(after, Happens::Stored { node: at, inc, upto: number });
                }
            }
            ClusterOutput::Answer { request, answer } => {
                assert!(self.nodes[at].answers.insert(request.0, answer).is_none(), "answered twice");
            }
            // Nobody asks others.
            ClusterOutput::Operator { .. } => {}
            ClusterOutput::Event(event) => {
                let now = self.now;
                self.nodes[at].events.push((now, event));
            }
        }
    }

    fn happen(&mut self, happens: Happens) {
        match happens {
            Happens::Packet { to, from, bytes } => {
                let (Some(to), Some(source)) = (self.at_address(to), self.at_address(from)) else { return };
                if !self.cuts.contains(&(source, to)) {
                    self.packet(to, from, &bytes);
                }
            }
            Happens::Dialed { node, inc, dial, to } => {
                if self.nodes[node].inc != inc || self.nodes[node].control.is_none() {
                    return;
                }
                let to = self.at_address(to);
                let is_cut = |to| self.cuts.contains(&(node, to)) || self.cuts.contains(&(to, node));
                match to {
                    // Nobody says so.
                    Some(to) if is_cut(to) => {
                        let after = self.nodes[node].config.links.dial_timeout;
                        self.push(after, Happens::Undialed { node, inc, dial });
                    }
                    Some(to) if self.nodes[to].control.is_some() => self.connect(node, to, dial),
                    Some(_) | None => self.cluster(node, ClusterInput::Link(link::Input::DialFailed(dial))),
                }
            }
            Happens::Undialed { node, inc, dial } => {
                if self.nodes[node].inc == inc && self.nodes[node].control.is_some() {
                    self.cluster(node, ClusterInput::Link(link::Input::DialFailed(dial)));
                }
            }
            Happens::Stored { node, inc, upto } => {
                if self.nodes[node].inc == inc && self.nodes[node].control.is_some() {
                    let records = self.nodes[node].disk.iter_mut();
                    records.filter(|record| record.durable || record.number <= upto).for_each(|r| r.durable = true);
                    self.cluster(node, ClusterInput::Stored { upto });
                }
            }
            Happens::ToShard { node, inc, shard, message } => {
                if self.nodes[node].inc == inc && self.nodes[node].control.is_some() {
                    self.shard_hears(node, shard, *message);
                }
            }
            Happens::FromShard { node, inc, shard, message } => {
                if self.nodes[node].inc == inc {
                    self.handle(node, ControlInput::Shard { from: ShardId(shard), message: *message });
                }
            }
        }
    }

    fn shard_hears(&mut self, at: usize, shard: u16, message: FromControl) {
        let of = &mut self.nodes[at].shards[usize::from(shard)];
        let answer = match message {
            FromControl::Routes(batch) => {
                apply(&mut of.table, &batch);
                Some(ToControl::Installed { seq: batch.seq, retained: None })
            }
            FromControl::Committed { seq, complete, index, .. } => {
                assert!(of.committed.insert(seq, complete).is_none());
                of.reads_at = index;
                None
            }
            FromControl::Peer { node, news } => {
                of.news.entry(node).or_default().push(news);
                None
            }
            FromControl::Lanes { from, parcel } => {
                let frames = lane::Parcel::frames(&parcel).unwrap();
                of.frames.extend(frames.map(|frame| (from, frame.unwrap())));
                None
            }
            FromControl::Acknowledge { until } => {
                assert_ne!(of.acknowledge.replace(until), Some(until), "only what changes is told");
                None
            }
            FromControl::Drain(drain) => {
                of.drained.push(drain);
                drain.then_some(ToControl::Drained)
            }
            FromControl::Recovered => {
                assert!(!core::mem::replace(&mut of.is_recovered, true));
                None
            }
            FromControl::Will(news) => {
                of.wills.push((*news).clone());
                match *news {
                    WillNews::Yours { client, epoch } | WillNews::Over { client, epoch } => {
                        let said = WillSaid::Over;
                        Some(ToControl::Will(Box::new(WillNote { client, epoch, said })))
                    }
                    WillNews::Kept { .. } | WillNews::Publish { .. } => None,
                }
            }
            FromControl::Directory(order) => match *order {
                directory::Output::Attach { client, epoch, .. } => {
                    let input = directory::Input::Attached { client, epoch, present: false, answer: Box::default() };
                    Some(ToControl::Directory(Box::new(input)))
                }
                directory::Output::Granted(grant) => {
                    of.grants.insert(grant.client.to_string(), grant.epoch);
                    None
                }
                directory::Output::Send { .. }
                | directory::Output::Refused { .. }
                | directory::Output::Fence { .. }
                | directory::Output::Moved { .. }
                | directory::Output::Lost { .. }
                | directory::Output::Raise { .. }
                | directory::Output::Supersedes { .. } => None,
            },
            FromControl::Retained(news) => {
                if let RetainedNews::Answer { number, outcome } = *news {
                    of.retained.insert(number, outcome);
                }
                None
            }
            FromControl::Handover { .. }
            | FromControl::Granted(..)
            | FromControl::Denied(_)
            | FromControl::Recall(_)
            | FromControl::Report
            | FromControl::Publish(_) => None,
        };
        if let Some(answer) = answer {
            self.shard_says(at, shard, answer);
        }
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    /// The next thing that happens before `end`, if there is one.
    fn step(&mut self, end: Instant) -> bool {
        let happens = self.happens.first_key_value().map(|((at, _), _)| *at);
        let way = self.next_way();
        let running = self.nodes.iter().enumerate();
        let tick = running.filter_map(|(at, node)| Some((node.control.as_ref()?.next_deadline()?, at))).min();
        let next = [happens, way.map(|way| way.0), tick.map(|tick| tick.0)].into_iter().flatten().min();
        let Some(next) = next.filter(|next| *next <= end) else { return false };
        self.now = self.now.max(next);
        if happens == Some(next) {
            let (_, happens) = self.happens.pop_first().unwrap();
            self.happen(happens);
        } else if let Some((_, pipe, from)) = way.filter(|way| way.0 == next) {
            self.arrive(pipe, from);
        } else if let Some((_, at)) = tick {
            self.handle(at, ControlInput::Tick);
        }
        true
    }

    /// Lets time pass until something is so; says how long it took.
    pub(super) fn until(&mut self, what: &str, most: Duration, is_so: impl Fn(&World) -> bool) -> Duration {
        let begin = self.now;
        while !is_so(self) {
            assert!(self.now - begin < most, "{what}: not within {most:?}\n{}", self.show());
            self.run(Duration::from_millis(50));
        }
        self.now - begin
    }
}

fn apply(table: &mut BTreeMap<Place, u32>, batch: &Batch) {
    for change in &batch.routes {
        let place = (batch.node, change.filter.as_str().to_owned(), change.class, change.shard.0);
        if change.members == 0 {
            table.remove(&place);
        } else {
            table.insert(place, change.members);
        }
    }
}

fn change(filter: &str, class: Class, count: Count) -> Change {
    Change { filter: TopicFilter::new(filter).unwrap().into(), class, count }
}
