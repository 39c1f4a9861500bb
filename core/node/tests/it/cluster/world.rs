//! Some nodes of some shards each, the links between them, and a clock. One event at a time: (time, sequence).

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use newtmq_base::{ConnId, Incarnation, Instant, NodeId, Rng, SEED_BYTES, ShardId, WallTime};
use newtmq_cluster::directory::{Directory, Input};
use newtmq_cluster::lane::Parcel;
use newtmq_cluster::owned::{Class, RouteChange};
use newtmq_node::{
    Boot, Durability, FromControl, Outbox, Output, PeerNews, PlaceMessage, Replay, Shard, ShardConfig, ShardInput,
    TimerKind, ToControl,
};

use super::control::{Barrier, Routes, changes};
use super::talk::Person;

/// Something on its way.
pub(super) enum Event {
    /// Bytes of a client.
    ToServer(usize, Vec<u8>),
    /// The client's end of its stream.
    Fin(usize),
    /// To a shard of a node, in this life of it.
    Shard(usize, u64, usize, Say),
    /// From a shard.
    ToControl(usize, u64, usize, ToControl),
    /// A node's store has so many batches, up to these of each shard.
    Stored(usize, u64, usize, Vec<u64>),
    /// Between control planes: from, to, the run of the link, whether it is of shards, and what.
    Said(usize, usize, u64, bool, Vec<u8>),
    /// Over a link: from, to, the run of the link, and the life of the sender.
    Parcel(usize, usize, u64, Bytes),
}

/// What a shard hears.
pub(super) enum Say {
    Place(ShardId, PlaceMessage),
    Control(FromControl),
}

/// A node.
pub(super) struct Node {
    pub(super) inc: u64,
    pub(super) shards: Vec<Shard>,
    /// None while it is dead.
    pub(super) alive: bool,
    pub(super) routes: Routes,
    pub(super) next_batch: u64,
    pub(super) recovered: usize,
    /// Batches given to the store, in order, and how many of them are stored.
    given: Vec<(usize, Box<newtmq_node::Batch>)>,
    stored: usize,
    last_stored: Instant,
    /// Batches of earlier lives.
    before: usize,
    /// The store does not answer.
    pub(super) stuck: bool,
    pub(super) drained: usize,
    /// Messages of its shards about routes.
    pub(super) told: usize,
    pub(super) directory: Option<Directory>,
    /// Its directory takes part.
    pub(super) open: bool,
}

/// One way between two nodes.
#[derive(Default)]
pub(super) struct Link {
    pub(super) up: bool,
    /// Counts resets: what is of an earlier run is lost.
    pub(super) run: u64,
    last: Instant,
    pub(super) last_said: Instant,
}

/// All of it.
pub(super) struct World {
    pub(super) now: Instant,
    pub(super) rng: Rng,
    pub(super) nodes: Vec<Node>,
    pub(super) people: Vec<Person>,
    /// Where the next client comes in.
    pub(super) listener: u16,
    config: ShardConfig,
    pub(super) shards: u16,
    queue: BTreeMap<(Instant, u64), Event>,
    next: u64,
    pub(super) links: BTreeMap<(usize, usize), Link>,
    places: BTreeMap<(usize, usize, usize), Instant>,
    /// By observer and owner: the owner counts as down there.
    pub(super) down: BTreeSet<(usize, usize)>,
    pub(super) barriers: Vec<Barrier>,
    outbox: Outbox,
    /// Nobody says that he has installed routes of others.
    pub(super) barriers_fail: bool,
    /// Longest way over a link, in microseconds.
    pub(super) delay_us: u64,
    /// One way on which frames of shards take longer by so much.
    pub(super) slow: Option<(usize, usize, Duration)>,
    steps: u64,
    /// What must always hold is looked at.
    pub(super) checks: bool,
    /// Term and node, if there are directories.
    pub(super) leader: Option<(u64, usize)>,
    pub(super) directories: newtmq_cluster::directory::Config,
    pub(super) size: usize,
    /// What shards said of wills, and at which node.
    pub(super) wills: Vec<(usize, newtmq_node::WillNote)>,
    /// What shards want to be retained.
    pub(super) retains: Vec<Retain>,
    /// Up to where others have acknowledged what is retained, as each SUBACK is told that waits for others.
    pub(super) acknowledged: u64,
}

/// A shard wants a message to be retained.
pub(super) struct Retain {
    /// Node and shard.
    pub(super) by: (usize, usize),
    pub(super) number: u64,
    pub(super) topic: Box<str>,
    pub(super) message: Option<Bytes>,
}

const STEPS_MAX: u64 = 3_000_000;

pub(super) fn id(node: usize) -> NodeId {
    NodeId(0x1000 + node as u64)
}

pub(super) fn at(node: NodeId) -> usize {
    (node.0 - 0x1000) as usize
}

impl World {
    /// So many nodes of so many shards, all of them connected.
    pub(super) fn new(seed: u64, nodes: usize, shards: u16, configure: impl Fn(&mut ShardConfig)) -> World {
        World::build(seed, nodes, shards, None, configure)
    }

    pub(super) fn build(
        seed: u64,
        nodes: usize,
        shards: u16,
        leader: Option<(u64, usize)>,
        configure: impl Fn(&mut ShardConfig),
    ) -> World {
        let mut config = ShardConfig::default();
        configure(&mut config);
        let mut world = World {
            now: Instant::from_millis(1),
            rng: Rng::from_number(seed),
            nodes: Vec::new(),
            people: Vec::new(),
            listener: 0,
            config,
            shards,
            queue: BTreeMap::new(),
            next: 0,
            links: BTreeMap::new(),
            places: BTreeMap::new(),
            down: BTreeSet::new(),
            barriers: Vec::new(),
            outbox: Outbox::default(),
            barriers_fail: false,
            delay_us: 1_000,
            slow: None,
            steps: 0,
            checks: true,
            leader,
            directories: newtmq_cluster::directory::Config::default(),
            size: nodes,
            wills: Vec::new(),
            retains: Vec::new(),
            acknowledged: 0,
        };
        for node in 0..nodes {
            world.nodes.push(Node {
                inc: 0,
                shards: Vec::new(),
                alive: false,
                routes: Routes::new(),
                next_batch: 0,
                recovered: 0,
                given: Vec::new(),
                stored: 0,
                last_stored: Instant::START,
                before: 0,
                stuck: false,
                drained: 0,
                told: 0,
                directory: None,
                open: false,
            });
            world.boot(node);
        }
        for one in 0..nodes {
            for other in 0..one {
                world.connect(one, other);
            }
        }
        world.settle();
        world
    }

    /// Starts a node with what is stored of it.
    fn boot(&mut self, at: usize) {
        let stores = self.config.zones.iter().any(|zone| zone.durability != Durability::Memory);
        let replay = self.replay(at);
        let (now, claims) = (self.now, self.leader.is_some());
        let node = &mut self.nodes[at];
        node.inc += 1;
        (node.alive, node.recovered, node.drained) = (true, 0, 0);
        node.given.truncate(node.stored);
        node.before = node.stored;
        node.routes.clear();
        // Its batches are numbered anew.
        node.next_batch = 0;
        node.shards = (0..self.shards)
            .map(|shard| {
                let mut seed = [at as u8 + 7; SEED_BYTES];
                seed[1] = shard as u8;
                seed[2] = node.inc as u8;
                let boot = Boot {
                    now,
                    wall: WallTime(1_700_000_000_000),
                    seed,
                    node: id(at),
                    incarnation: Incarnation(node.inc),
                    shard: ShardId(shard),
                    shards: self.shards,
                    node_seed: 77 + at as u64,
                    clustered: true,
                    claims,
                };
                Shard::new(self.config.clone(), boot)
            })
            .collect();
        self.nodes[at].open = false;
        self.new_directory(at);
        if !stores {
            return self.open_directory(at);
        }
        let session = self.config.zones[0].session;
        let mut dividing = replay.divide(self.shards);
        loop {
            let shard = &self.nodes[at].shards[0];
            let home = |name: &str| shard.home(name).0;
            let Some((to, chunk)) = dividing.next_chunk(usize::MAX, home, |_| session) else { break };
            self.input(at, usize::from(to.0), ShardInput::Recovered(Box::new(chunk)));
        }
    }

    fn replay(&self, at: usize) -> Replay {
        let mut replay = Replay::default();
        let node = &self.nodes[at];
        for (_, batch) in &node.given[..node.stored] {
            for message in &batch.messages {
                replay.block(message.id().0, message.block());
            }
            batch.records().for_each(|record| replay.record(record, 1));
        }
        replay
    }

    /// The process ends; what is not stored is lost, and so is what is on its links.
    pub(super) fn kill(&mut self, at: usize) {
        let lost = self.nodes[at].given.len() - self.nodes[at].stored;
        // Some of what was not confirmed may be there nevertheless.
        let kept = self.rng.below(lost as u64 + 1) as usize;
        self.nodes[at].stored += kept;
        self.nodes[at].alive = false;
        for other in 0..self.nodes.len() {
            self.cut(at, other);
        }
        for person in self.people.iter_mut().filter(|person| person.node == at) {
            person.lose();
        }
        self.barriers.retain(|barrier| barrier.owner.0 != at);
    }

    /// Starts it again, and connects it with the others.
    pub(super) fn restart(&mut self, at: usize) {
        self.boot(at);
        for other in (0..self.nodes.len()).filter(|other| *other != at) {
            self.down.remove(&(at, other));
            self.connect(at, other);
        }
    }

    /// A link comes up, both ways.
    pub(super) fn connect(&mut self, one: usize, other: usize) {
        for (from, to) in [(one, other), (other, one)] {
            if !self.nodes[from].alive || !self.nodes[to].alive {
                return;
            }
            let link = self.links.entry((from, to)).or_default();
            (link.up, link.run, link.last) = (true, link.run + 1, self.now);
            let inc = Incarnation(self.nodes[to].inc);
            self.news(from, to, PeerNews::Connected(inc));
            if self.nodes[from].open {
                self.directory(from, Input::Up { node: id(to), inc });
            }
        }
        for (owner, observer) in [(one, other), (other, one)] {
            self.down.remove(&(observer, owner));
            let all = self.nodes[owner].routes.clone();
            self.tell_routes(observer, owner, changes(&all, |_| true), None);
        }
    }

    /// The link breaks and is there again: what was on it is lost.
    pub(super) fn reset(&mut self, one: usize, other: usize) {
        self.cut(one, other);
        self.connect(one, other);
    }

    /// What is on the link is lost, and nothing goes over it any more.
    pub(super) fn cut(&mut self, one: usize, other: usize) {
        for (from, to) in [(one, other), (other, one)] {
            let link = self.links.entry((from, to)).or_default();
            if core::mem::replace(&mut link.up, false) {
                link.run += 1;
                self.news(from, to, PeerNews::Disconnected);
            }
        }
    }

    /// What is on the link now is lost, unnoticed.
    pub(super) fn lose_frames(&mut self) {
        self.queue.retain(|_, event| !matches!(event, Event::Parcel(..)));
    }

    /// A node counts as down at another one.
    pub(super) fn down(&mut self, observer: usize, owner: usize) {
        self.cut(observer, owner);
        self.down.insert((observer, owner));
        self.news(observer, owner, PeerNews::Down);
        self.directory(observer, Input::Down { node: id(owner) });
        let all = self.nodes[owner].routes.clone();
        let gone = changes(&all, |class| class == Class::Transient).into_iter();
        let gone = gone.map(|change| RouteChange { members: 0, ..change }).collect();
        self.tell_routes(observer, owner, gone, None);
        for barrier in &mut self.barriers {
            barrier.waits.retain(|(node, ..)| barrier.owner.0 != owner || *node != observer);
        }
        self.end_barriers();
    }

    fn news(&mut self, at: usize, of: usize, news: PeerNews) {
        self.tell_all(at, &FromControl::Peer { node: id(of), news });
    }

    /// Its control plane says something to all of a node's shards.
    pub(super) fn tell_all(&mut self, at: usize, message: &FromControl) {
        if !self.nodes[at].alive {
            return;
        }
        for shard in 0..self.nodes[at].shards.len() {
            self.say(at, shard, Say::Control(message.clone()));
        }
    }

    /// In order between the control plane and each shard.
    pub(super) fn say(&mut self, node: usize, shard: usize, say: Say) {
        let inc = self.nodes[node].inc;
        let time = self.later((node, 100, shard));
        self.push(time, Event::Shard(node, inc, shard, say));
    }

    /// When something arrives between two of one node.
    fn later(&mut self, channel: (usize, usize, usize)) -> Instant {
        let delay = Duration::from_micros(self.rng.below(200));
        let last = self.places.entry(channel).or_insert(self.now);
        *last = (*last).max(self.now + delay);
        *last
    }

    pub(super) fn push(&mut self, time: Instant, event: Event) {
        self.queue.insert((time.max(self.now), self.next), event);
        self.next += 1;
    }

    pub(super) fn input(&mut self, node: usize, shard: usize, input: ShardInput<'_>) -> newtmq_node::Taken {
        let taken = self.handle(node, shard, input);
        self.obey(node, shard);
        taken
    }

    /// An input; [`World::obey`] does what the shard asks for.
    pub(super) fn handle(&mut self, node: usize, shard: usize, input: ShardInput<'_>) -> newtmq_node::Taken {
        self.nodes[node].shards[shard].handle(self.now, input, &mut self.outbox)
    }

    pub(super) fn obey(&mut self, node: usize, shard: usize) {
        let outputs: Vec<Output> = self.outbox.drain().collect();
        for output in outputs {
            match output {
                Output::Place { to, message } => {
                    let inc = self.nodes[node].inc;
                    let time = self.later((node, shard, usize::from(to.0)));
                    let say = Say::Place(ShardId(shard as u16), message);
                    self.push(time, Event::Shard(node, inc, usize::from(to.0), say));
                }
                Output::Lanes => {
                    if let Some(ToControl::Lanes(parcels)) = self.nodes[node].shards[shard].take_lanes() {
                        for (to, parcel) in parcels {
                            self.send(node, at(to), parcel);
                        }
                    }
                }
                Output::Control(message) => {
                    if matches!(message, ToControl::Drained) {
                        assert_eq!(self.nodes[node].shards[shard].view().connection_count(), 0, "drained too early");
                    }
                    let inc = self.nodes[node].inc;
                    let time = self.later((node, shard, 100));
                    self.push(time, Event::ToControl(node, inc, shard, message));
                }
                Output::Store(batch) => {
                    self.nodes[node].given.push((shard, batch));
                    if !self.nodes[node].stuck {
                        self.store_soon(node);
                    }
                }
                Output::Event(_) | Output::Decide { .. } => {}
                other => self.obey_person(node, shard, other),
            }
        }
    }

    /// What was given to the store is there, and said to be, after a while.
    pub(super) fn store_soon(&mut self, node: usize) {
        let (inc, batches) = (self.nodes[node].inc, self.nodes[node].given.len());
        let lasts: Vec<u64> = (0..self.nodes[node].shards.len())
            .map(|shard| {
                let of_life = &self.nodes[node].given[self.nodes[node].before..];
                let of = of_life.iter().rev().find(|(of, _)| *of == shard);
                of.map_or(0, |(_, batch)| batch.number)
            })
            .collect();
        let time = self.now + Duration::from_micros(self.rng.below(2_000));
        let time = time.max(self.nodes[node].last_stored);
        self.nodes[node].last_stored = time;
        self.push(time, Event::Stored(node, inc, batches, lasts));
    }

    fn send(&mut self, from: usize, to: usize, parcel: Bytes) {
        let delay = Duration::from_micros(self.rng.below(self.delay_us.max(1)));
        let more = self.slow.filter(|slow| (slow.0, slow.1) == (from, to)).map_or(Duration::ZERO, |slow| slow.2);
        let delay = delay + more;
        let Some(link) = self.links.get_mut(&(from, to)).filter(|link| link.up) else { return };
        link.last = link.last.max(self.now + delay);
        let (time, run) = (link.last, link.run);
        self.push(time, Event::Parcel(from, to, run, parcel));
    }

    /// When a shard gets the Tick that it wants.
    fn deadline(&self) -> Option<(Instant, usize, usize, TimerKind)> {
        let alive = self.nodes.iter().enumerate().filter(|(_, node)| node.alive);
        let all = alive.flat_map(|(at, node)| node.shards.iter().enumerate().map(move |(of, shard)| (at, of, shard)));
        let shards = all.filter_map(|(at, of, shard)| {
            let (due, kind) = shard.next_deadline()?;
            Some((due.max(self.now), at, of, kind))
        });
        let directories = self.nodes.iter().enumerate().filter(|(_, node)| node.alive).filter_map(|(at, node)| {
            let due = node.directory.as_ref()?.next_deadline();
            (due != Instant::NEVER && node.open).then(|| (due.max(self.now), at, usize::MAX, TimerKind::Peers))
        });
        shards.chain(directories).min()
    }

    /// Runs until nothing happens but by the passing of time.
    pub(super) fn settle(&mut self) {
        loop {
            let works = self.deadline().is_some_and(|(due, ..)| due <= self.now);
            if self.queue.is_empty() && !works {
                return self.check();
            }
            self.step();
        }
    }

    /// Lets time pass, with everything that happens in it.
    pub(super) fn advance(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let event = self.queue.first_key_value().map(|((time, _), _)| *time);
            let next = event.into_iter().chain(self.deadline().map(|(due, ..)| due)).min();
            if next.is_none_or(|next| next > until) {
                break;
            }
            self.step();
        }
        self.now = until;
        self.check();
    }

    fn step(&mut self) {
        self.steps += 1;
        assert!(self.steps < STEPS_MAX, "this never ends");
        let event = self.queue.first_key_value().map(|((time, _), _)| *time);
        let tick = self.deadline().filter(|(due, ..)| {
            event.is_none_or(|event| *due < event) || (event == Some(*due) && self.next.is_multiple_of(2))
        });
        // An event at the same time is as good.
        if let Some((due, node, shard, _)) = tick {
            self.now = due;
            self.next += 1;
            if shard == usize::MAX {
                self.directory(node, Input::Tick);
            } else {
                self.input(node, shard, ShardInput::Tick);
            }
            return;
        }
        let Some(((time, _), event)) = self.queue.pop_first() else { return };
        self.now = time;
        self.next += u64::from(event_is_even(&event));
        self.on(event);
        if self.steps.is_multiple_of(16) {
            self.check();
        }
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::ToServer(person, data) => self.arrive(person, &data),
            Event::Fin(person) => self.fin(person),
            Event::Shard(node, inc, shard, say) => {
                if !self.nodes[node].alive || self.nodes[node].inc != inc {
                    return;
                }
                match say {
                    Say::Place(from, message) => self.input(node, shard, ShardInput::Place { from, message }),
                    Say::Control(message) => self.input(node, shard, ShardInput::Control(message)),
                };
            }
            Event::Stored(node, inc, batches, lasts) => {
                if !self.nodes[node].alive || self.nodes[node].inc != inc {
                    return;
                }
                self.nodes[node].stored = batches;
                for (shard, upto) in lasts.into_iter().enumerate().filter(|(_, upto)| *upto > 0) {
                    self.input(node, shard, ShardInput::Stored { upto, segment: 1 });
                }
            }
            Event::ToControl(node, inc, shard, message) => {
                if self.nodes[node].alive && self.nodes[node].inc == inc {
                    self.control(node, shard, message);
                }
            }
            Event::Said(from, to, run, handover, bytes) => {
                if self.links.get(&(from, to)).is_some_and(|link| link.run == run) && self.nodes[to].alive {
                    self.hear_far(from, to, handover, bytes);
                }
            }
            Event::Parcel(from, to, run, parcel) => {
                if self.links.get(&(from, to)).is_none_or(|link| link.run != run) || !self.nodes[to].alive {
                    return;
                }
                let shards = self.nodes[to].shards.len();
                for shard in
                    Parcel::shards(&parcel).unwrap().map(|shard| usize::from(shard.0)).filter(|at| *at < shards)
                {
                    let lanes = FromControl::Lanes { from: id(from), parcel: parcel.clone() };
                    self.input(to, shard, ShardInput::Control(lanes));
                }
            }
        }
    }

    /// What must always hold.
    fn check(&self) {
        for node in self.nodes.iter().filter(|node| node.alive && self.checks) {
            node.shards.iter().for_each(|shard| shard.view().assert_consistent());
        }
    }

    /// Nothing is under way anywhere.
    pub(super) fn assert_idle(&self) {
        for node in self.nodes.iter().filter(|node| node.alive) {
            node.shards.iter().for_each(|shard| shard.view().assert_idle());
        }
    }

    /// The sum of a counter over a node's shards.
    pub(super) fn ledger(&self, node: usize) -> newtmq_node::Ledger {
        let mut sum = newtmq_node::Ledger::default();
        self.nodes[node].shards.iter().for_each(|shard| sum.add(&shard.view().ledger()));
        sum
    }

    /// Output for a connection.
    pub(super) fn fill(&mut self, node: usize, shard: usize, conn: ConnId) -> Vec<u8> {
        use bytes::Buf as _;
        let (mut bytes, mut batch) = (Vec::new(), newtmq_node::WriteBatch::default());
        loop {
            let shard_of = &mut self.nodes[node].shards[shard];
            let fill = shard_of.fill(self.now, conn, &mut batch, &mut self.outbox);
            bytes.extend(batch.copy_to_bytes(batch.remaining()));
            if fill == newtmq_node::Fill::Drained {
                break;
            }
        }
        self.obey(node, shard);
        bytes
    }
}

fn event_is_even(event: &Event) -> bool {
    matches!(event, Event::ToServer(..))
}
