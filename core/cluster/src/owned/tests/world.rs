//! Nodes with shards over a network that loses, copies, delays and reorders, and what must hold at every step.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use newtmq_base::{Incarnation, Instant, NodeId, Rng, ShardId};

use super::super::entry::is_shared;
use super::super::*;
use super::filter;

/// What leads to a place: filter, class, shard.
pub(super) type Key = (String, Class, ShardId);
type Routes = BTreeMap<Key, u32>;
/// The version with which a log got an entry.
type Since = Option<(Incarnation, u64)>;

#[derive(Debug)]
struct Wire {
    at: u64,
    from: (NodeId, Incarnation),
    to: usize,
    bytes: Vec<u8>,
}

#[derive(Debug, Default)]
struct Shard {
    queue: VecDeque<(u64, Arc<Batch>)>,
    table: BTreeMap<NodeId, Routes>,
}

pub(super) struct Node {
    id: NodeId,
    pub(super) inc: Incarnation,
    pub(super) owned: Option<Owned>,
    /// True time of the start, in nanoseconds, and how fast its clock goes, in thousandths.
    boot: u64,
    rate: u64,
    shards: Vec<Shard>,
    /// Subscriptions; the durable ones outlive a crash.
    subscriptions: Routes,
    /// Since which version the log has the route.
    since: BTreeMap<Key, (Incarnation, u64)>,
    /// Durable subscriptions that a start has to tell yet.
    stored: Vec<(Key, u32)>,
    /// What was given out, all batches taken together.
    given: BTreeMap<NodeId, Routes>,
    /// The version that an owner had when it was found to be there again.
    risen: BTreeMap<NodeId, (Incarnation, u64)>,
    /// Durable routes of others that have to stay.
    stable: BTreeSet<(NodeId, Key)>,
    waits: BTreeMap<BarrierId, (Mode, Key, Since)>,
    /// Subscriptions whose strict barrier was complete.
    strict: BTreeSet<Key>,
    pub(super) evicted: bool,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Noise {
    pub(super) loss_percent: u64,
    pub(super) copy_percent: u64,
    pub(super) delay_ms: u64,
    pub(super) install_ms: u64,
}

#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) complete: u64,
    pub(super) incomplete: u64,
    pub(super) strict: u64,
    pub(super) fresh: u64,
    pub(super) snapshots: u64,
    pub(super) gaps: u64,
    pub(super) repairs: u64,
    pub(super) kept: u64,
}

pub(super) struct World {
    pub(super) now: u64,
    pub(super) rng: Rng,
    pub(super) nodes: Vec<Node>,
    wires: Vec<Wire>,
    pub(super) cuts: BTreeSet<(usize, usize)>,
    digests: BTreeMap<(NodeId, Incarnation, u64), u64>,
    config: Config,
    pub(super) noise: Noise,
    pub(super) seen: Seen,
}

pub(super) const MS: u64 = 1_000_000;

impl World {
    pub(super) fn new(seed: u64, nodes: usize, shards: u16, config: Config, noise: Noise) -> World {
        let mut rng = Rng::from_number(seed);
        let nodes = (0..nodes).map(|i| Node {
            id: NodeId(i as u64 + 1),
            inc: Incarnation(0),
            owned: None,
            boot: 0,
            rate: 990 + rng.below(21),
            shards: (0..shards).map(|_| Shard::default()).collect(),
            subscriptions: Routes::new(),
            since: BTreeMap::new(),
            stored: Vec::new(),
            given: BTreeMap::new(),
            risen: BTreeMap::new(),
            stable: BTreeSet::new(),
            waits: BTreeMap::new(),
            strict: BTreeSet::new(),
            evicted: false,
        });
        let nodes = nodes.collect();
        let mut world = World {
            now: 0,
            rng,
            nodes,
            wires: Vec::new(),
            cuts: BTreeSet::new(),
            digests: BTreeMap::new(),
            config,
            noise,
            seen: Seen::default(),
        };
        for i in 0..world.nodes.len() {
            world.start(i);
            world.recover(i);
        }
        world
    }

    fn local(&self, i: usize) -> Instant {
        let node = &self.nodes[i];
        Instant::from_nanos((self.now - node.boot) * node.rate / 1000)
    }

    /// Does something at a node and carries out what it says.
    pub(super) fn at<R>(&mut self, i: usize, f: impl FnOnce(&mut Owned, Instant, &mut Vec<Output>) -> R) -> Option<R> {
        let now = self.local(i);
        let mut out = Vec::new();
        let result = f(self.nodes[i].owned.as_mut()?, now, &mut out);
        self.carry_out(i, out);
        self.check(i);
        Some(result)
    }

    fn carry_out(&mut self, i: usize, out: Vec<Output>) {
        let mut done = Vec::new();
        for output in out {
            match output {
                Output::Send { to, message } => to.iter().for_each(|to| self.send(i, *to, &message)),
                Output::Batch(batch) => {
                    let given = self.nodes[i].given.entry(batch.node).or_default();
                    install(given, &batch, true);
                    for shard in 0..self.nodes[i].shards.len() {
                        let wait = self.rng.below(self.noise.install_ms * MS + 1);
                        let queue = &mut self.nodes[i].shards[shard].queue;
                        let last = queue.back().map_or(0, |(at, _)| *at);
                        queue.push_back(((self.now + wait).max(last), Arc::clone(&batch)));
                    }
                }
                Output::Done(d) => done.push(d),
            }
        }
        done.into_iter().for_each(|done| self.on_done(i, done));
    }

    fn send(&mut self, i: usize, to: NodeId, message: &Message) {
        let from = (self.nodes[i].id, self.nodes[i].inc);
        let to = to.0 as usize - 1;
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        assert_eq!(Message::decode(&bytes).as_ref(), Ok(message));
        let copies = 1 + u64::from(self.rng.below(100) < self.noise.copy_percent);
        for _ in 0..copies {
            let lost = self.rng.below(100) < self.noise.loss_percent;
            let at = self.now + 100_000 + self.rng.below(self.noise.delay_ms * MS + 1);
            if !lost && !self.cuts.contains(&(i, to)) {
                self.wires.push(Wire { at, from, to, bytes: bytes.clone() });
            }
        }
    }

    /// A complete barrier means that whoever can be reached and is open matches by it.
    fn on_done(&mut self, i: usize, done: Done) {
        // One that ends in the call that asks for it is looked at there.
        let Some((mode, key, since)) = self.nodes[i].waits.remove(&done.barrier) else { return };
        self.judge(i, mode, &key, since, done.complete);
    }

    fn judge(&mut self, i: usize, mode: Mode, key: &Key, since: Since, complete: bool) {
        if !complete {
            assert_eq!(mode, Mode::Fast);
            self.seen.incomplete += 1;
            return;
        }
        let owner = &self.nodes[i];
        if owner.since.get(key).copied() != since {
            // Unsubscribed meanwhile, and perhaps subscribed again.
            return;
        }
        self.seen.complete += 1;
        assert!(self.has(i, i, key), "the own shards lack {key:?}");
        let Some(owned) = &owner.owned else { return };
        for (p, peer) in self.nodes.iter().enumerate().filter(|(p, _)| *p != i) {
            let Some(other) = &peer.owned else { continue };
            let open = other.phase(owner.id) == Phase::Open;
            let same = other.replica(owner.id).is_some_and(|replica| replica.incarnation() == owner.inc);
            if mode == Mode::Fast && open && same && !owned.is_masked(peer.id) {
                assert!(self.has(p, i, key), "{p} lacks {key:?} of {i}, whose barrier is complete");
            }
        }
        if mode == Mode::Strict {
            self.seen.strict += 1;
            self.nodes[i].strict.insert(key.clone());
        }
    }

    /// Whether all shards of a node match a route.
    fn has(&self, at: usize, owner: usize, key: &Key) -> bool {
        let owner = self.nodes[owner].id;
        let has = |shard: &Shard| shard.table.get(&owner).is_some_and(|routes| routes.contains_key(key));
        self.nodes[at].shards.iter().all(has)
    }

    /// What must hold at every step.
    fn check(&mut self, i: usize) {
        let Some(owned) = &self.nodes[i].owned else { return };
        let me = self.nodes[i].id;
        let (log, inc) = (owned.log(), self.nodes[i].inc);
        let digest = *self.digests.entry((me, inc, log.version())).or_insert(log.digest());
        assert_eq!(digest, log.digest(), "one version has one state");
        let node = &self.nodes[i];
        assert_eq!(
            routes_of(log.entries()),
            node.given.get(&me).cloned().unwrap_or_default(),
            "own routes are given out"
        );
        for replica in owned.replicas() {
            let owner = replica.owner();
            if let Some(version) = replica.version() {
                // W6, and with it W5: what a copy holds at a version is what its owner had.
                let known = self.digests.get(&(owner, replica.incarnation(), version));
                assert_eq!(known, Some(&replica.digest()), "{me:?} has {owner:?} at {version}");
            }
            let risen = node.risen.get(&owner).filter(|risen| risen.0 == replica.incarnation());
            if let (Some((_, least)), Phase::Open, Some(version)) = (risen, replica.phase(), replica.version()) {
                assert!(version >= *least, "{me:?} has opened {owner:?} before it had what changed");
            }
            let empty = Routes::new();
            let given = node.given.get(&owner).unwrap_or(&empty);
            let held = routes_of(replica.entries());
            let (transient, durable): (Routes, Routes) =
                held.into_iter().partition(|((_, class, _), _)| *class == Class::Transient);
            let (given_transient, given_durable): (Routes, Routes) =
                given.clone().into_iter().partition(|((_, class, _), _)| *class == Class::Transient);
            assert_eq!(durable, given_durable, "durable routes are always matched");
            let same = given_transient.iter().all(|(key, members)| transient.get(key) == Some(members));
            assert!(same, "{me:?} matches what {owner:?} has not");
            if replica.is_settled() {
                let wanted = if replica.wants(Class::Transient) { transient } else { Routes::new() };
                assert_eq!(given_transient, wanted, "{me:?} of {owner:?}, {:?}", replica.phase());
            }
        }
        self.check_stable(i);
    }

    /// A durable route stays matched as long as its owner has it, whatever becomes of links and processes.
    fn check_stable(&mut self, i: usize) {
        for (owner, key) in &self.nodes[i].stable {
            let given = self.nodes[i].given.get(owner).is_some_and(|routes| routes.contains_key(key));
            assert!(given, "{i} has lost {key:?} of {owner:?}");
        }
        self.seen.kept += self.nodes[i].stable.len() as u64;
        let mut stable = Vec::new();
        let node = &self.nodes[i];
        for owner in self.nodes.iter().filter(|owner| owner.id != node.id && !owner.evicted) {
            let Some(replica) = node.owned.as_ref().and_then(|owned| owned.replica(owner.id)) else { continue };
            let (inc, version) = (replica.incarnation(), replica.version());
            for (key, since) in owner.since.iter().filter(|((_, class, _), _)| *class == Class::Durable) {
                if since.0 == inc && version.is_some_and(|version| version >= since.1) {
                    stable.push((owner.id, key.clone()));
                }
            }
        }
        self.nodes[i].stable.extend(stable);
    }

    /// A publish at this moment, at a node of a zone whose barrier is strict.
    pub(super) fn probe(&mut self, i: usize) {
        let now = self.local(i);
        if !self.nodes[i].owned.as_ref().is_some_and(|owned| owned.leases_are_fresh(now)) {
            return;
        }
        self.seen.fresh += 1;
        for o in 0..self.nodes.len() {
            let missing = self.nodes[o].strict.iter().find(|key| !self.nodes[o].evicted && !self.has(i, o, key));
            assert_eq!(missing, None, "W9: {i} acknowledges what misses a subscription of {o}");
        }
    }

    pub(super) fn start(&mut self, i: usize) {
        let (now, shards) = (self.now, self.nodes[i].shards.len() as u16);
        let config = self.config;
        let ids: Vec<NodeId> = self.nodes.iter().filter(|node| !node.evicted).map(|node| node.id).collect();
        let node = &mut self.nodes[i];
        node.boot = now;
        node.inc = Incarnation(node.inc.0 + 1);
        let mut owned = Owned::new(config, Instant::START, node.id, node.inc, shards);
        ids.into_iter().for_each(|id| owned.member(id));
        node.owned = Some(owned);
        self.check(i);
    }

    pub(super) fn crash(&mut self, i: usize) {
        self.note_counts(i);
        let node = &mut self.nodes[i];
        node.owned = None;
        node.stored.clear();
        node.subscriptions.retain(|(_, class, _), _| *class == Class::Durable);
        node.stored.extend(node.subscriptions.iter().map(|(key, count)| (key.clone(), *count)));
        node.since.clear();
        node.given.clear();
        node.risen.clear();
        node.stable.clear();
        node.waits.clear();
        node.strict.retain(|(_, class, _)| *class == Class::Durable);
        node.shards.iter_mut().for_each(|shard| *shard = Shard::default());
    }

    pub(super) fn note_counts(&mut self, i: usize) {
        for replica in self.nodes[i].owned.iter().flat_map(Owned::replicas) {
            let counts = replica.counts();
            self.seen.snapshots += counts.snapshots;
            self.seen.gaps += counts.gaps;
            self.seen.repairs += counts.repairs;
        }
    }

    /// Tells one of the subscriptions that were stored, or that these were all.
    pub(super) fn recover(&mut self, i: usize) {
        if self.nodes[i].owned.is_none() {
            return;
        }
        match self.nodes[i].stored.pop() {
            Some((key, count)) => self.change(i, &key, Count::Is(count)),
            None => _ = self.at(i, |owned, now, out| owned.recovered(now, out)),
        }
    }

    fn change(&mut self, i: usize, key: &Key, count: Count) {
        let (text, class, shard) = key;
        let change = Change { filter: filter(text), class: *class, count };
        let before = self.nodes[i].owned.as_ref().map(|owned| owned.log().version());
        let mut after = 0;
        // The digest of the version has to be known before anybody has it.
        let change = |owned: &mut Owned, now, out: &mut Vec<Output>| {
            owned.change(now, *shard, &[change], out);
            after = owned.log().version();
        };
        self.at(i, change);
        let node = &mut self.nodes[i];
        if node.subscriptions.contains_key(key) {
            if before != Some(after) && node.since.get(key).is_none_or(|since| since.0 != node.inc) {
                node.since.insert(key.clone(), (node.inc, after));
            }
        } else {
            node.since.remove(key);
            node.strict.remove(key);
            let id = node.id;
            self.nodes.iter_mut().for_each(|other| _ = other.stable.remove(&(id, key.clone())));
        }
    }

    pub(super) fn subscribe(&mut self, i: usize, key: &Key, mode: Mode) {
        if self.nodes[i].owned.is_none() || !self.nodes[i].stored.is_empty() {
            return;
        }
        *self.nodes[i].subscriptions.entry(key.clone()).or_default() += 1;
        self.change(i, key, Count::Plus);
        let now = self.local(i);
        let mut out = Vec::new();
        let owned = self.nodes[i].owned.as_mut().expect("it runs");
        let barrier = owned.require(now, mode, &mut out);
        let since = self.nodes[i].since.get(key).copied();
        let at_once = |output: &Output| match output {
            Output::Done(done) if done.barrier == barrier => Some(done.complete),
            Output::Done(_) | Output::Send { .. } | Output::Batch(_) => None,
        };
        match out.iter().find_map(at_once) {
            Some(complete) => self.judge(i, mode, key, since, complete),
            None => _ = self.nodes[i].waits.insert(barrier, (mode, key.clone(), since)),
        }
        self.carry_out(i, out);
        self.check(i);
    }

    pub(super) fn unsubscribe(&mut self, i: usize) {
        let node = &mut self.nodes[i];
        if node.owned.is_none() || node.subscriptions.is_empty() || !node.stored.is_empty() {
            return;
        }
        let nth = self.rng.below(node.subscriptions.len() as u64) as usize;
        let key = node.subscriptions.keys().nth(nth).expect("it is less").clone();
        let count = node.subscriptions.get_mut(&key).expect("it is one of them");
        *count -= 1;
        if *count == 0 {
            node.subscriptions.remove(&key);
        }
        self.change(i, &key, Count::Minus);
    }

    /// A node finds out that another can be reached.
    pub(super) fn link(&mut self, i: usize, to: usize) {
        let (id, inc) = (self.nodes[to].id, self.nodes[to].inc);
        if let Some(owner) = &self.nodes[to].owned
            && !self.nodes[to].evicted
        {
            let version = owner.log().version();
            if self.nodes[i].owned.as_ref().is_some_and(|owned| owned.phase(id) == Phase::Masked) {
                self.nodes[i].risen.insert(id, (inc, version));
            }
            self.at(i, |owned, now, out| owned.up(now, id, inc, out));
        }
    }

    /// A node finds out that another cannot be reached; perhaps of one that has started again since.
    pub(super) fn unlink(&mut self, i: usize, to: usize, late: bool) {
        let (id, inc) = (self.nodes[to].id, self.nodes[to].inc);
        let inc = Incarnation(inc.0 - u64::from(late));
        let phase = |world: &World| {
            let replica = world.nodes[i].owned.as_ref()?.replica(id)?;
            (replica.incarnation() > inc).then(|| replica.phase())
        };
        let before = phase(self);
        self.at(i, |owned, now, out| owned.down(now, id, inc, out));
        assert_eq!(phase(self), before, "the news of an older incarnation says nothing of this one");
    }

    pub(super) fn evict(&mut self, gone: usize) {
        self.crash(gone);
        self.nodes[gone].evicted = true;
        let id = self.nodes[gone].id;
        for i in 0..self.nodes.len() {
            self.nodes[i].stable.retain(|(owner, _)| *owner != id);
            self.at(i, |owned, now, out| owned.forget(now, id, out));
        }
    }

    /// Lets everything happen that happens until a true time.
    pub(super) fn run_until(&mut self, end: u64) {
        let mut steps = 0;
        while let Some(at) = self.next_event().filter(|at| *at <= end) {
            steps = if at > self.now { 0 } else { steps + 1 };
            assert!(steps < 100_000, "busy");
            self.now = self.now.max(at);
            self.step();
        }
        self.now = end;
    }

    fn deadline(&self, i: usize) -> Option<u64> {
        let node = &self.nodes[i];
        let due = node.owned.as_ref()?.next_deadline();
        Some(node.boot + (due.as_nanos().min(u64::MAX / 2000) * 1000).div_ceil(node.rate))
    }

    fn next_event(&self) -> Option<u64> {
        let wires = self.wires.iter().map(|wire| wire.at);
        let shards = self.nodes.iter().flat_map(|node| &node.shards);
        let installs = shards.filter_map(|shard| shard.queue.front()).map(|(at, _)| *at);
        let deadlines = (0..self.nodes.len()).filter_map(|i| self.deadline(i));
        wires.chain(installs).chain(deadlines).min()
    }

    fn step(&mut self) {
        if let Some(at) = self.wires.iter().position(|wire| wire.at <= self.now) {
            let Wire { from, to, bytes, .. } = self.wires.swap_remove(at);
            if self.cuts.contains(&(from.0.0 as usize - 1, to)) {
                return;
            }
            let message = Message::decode(&bytes).expect("it was encoded");
            self.at(to, |owned, now, out| owned.receive(now, from.0, from.1, message, out));
            return;
        }
        for i in 0..self.nodes.len() {
            for shard in 0..self.nodes[i].shards.len() {
                let Shard { queue, table } = &mut self.nodes[i].shards[shard];
                let Some((_, batch)) = queue.pop_front_if(|(at, _)| *at <= self.now) else { continue };
                install(table.entry(batch.node).or_default(), &batch, true);
                self.at(i, |owned, now, out| owned.installed(now, ShardId(shard as u16), batch.seq, out));
                return;
            }
            if self.deadline(i).is_some_and(|due| due <= self.now) {
                self.at(i, |owned, now, out| owned.tick(now, out));
            }
        }
    }

    /// Q1: every shard matches what all live members have subscribed to, and nothing else.
    pub(super) fn check_rest(&self) {
        let wanted = |owner: &Node| -> Routes {
            let published = |(key, count): (&Key, &u32)| {
                let shared = is_shared(&filter(&key.0));
                (key.clone(), if shared { *count } else { 1 })
            };
            owner.subscriptions.iter().map(published).collect()
        };
        for node in self.nodes.iter().filter(|node| !node.evicted) {
            let owned = node.owned.as_ref().expect("all are started");
            for owner in &self.nodes {
                let wanted = if owner.evicted { Routes::new() } else { wanted(owner) };
                if owner.id != node.id && !owner.evicted {
                    assert_eq!(owned.phase(owner.id), Phase::Open, "{:?} of {:?}", node.id, owner.id);
                }
                for shard in &node.shards {
                    let routes = shard.table.get(&owner.id).cloned().unwrap_or_default();
                    assert_eq!(routes, wanted, "Q1: {:?} of {:?}", node.id, owner.id);
                }
            }
            assert_eq!((owned.waiting(), node.waits.len()), ((0, 0), 0));
            assert_eq!(owned.without_table().count(), 0);
        }
    }
}

fn routes_of(ops: impl Iterator<Item = Op>) -> Routes {
    let route = |op| match op {
        Op::Route { filter, class, shard, members } => Some(((filter.as_str().to_owned(), class, shard), members)),
        Op::Record { .. } => None,
    };
    ops.filter_map(route).collect()
}

/// Every change has to change something.
fn install(table: &mut Routes, batch: &Batch, exact: bool) {
    for RouteChange { filter, class, shard, members } in &batch.routes {
        let key = (filter.as_str().to_owned(), *class, *shard);
        let old = if *members == 0 { table.remove(&key) } else { table.insert(key, *members) };
        assert!(!exact || old.unwrap_or(0) != *members, "{filter:?} was so already");
    }
}
