//! The network, the disks and the checks.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use newtmq_base::{Incarnation, Instant, NodeId, RequestId, Rng};

use super::super::message::Message;
use super::super::{
    BlobKind, ClusterId, Command, Config, Gone, Input, Lost, Member, Meta, Output, Persist, Refusal, RemovedBy,
    Stopped, Stored,
};

pub(super) struct Node {
    pub(super) meta: Option<Meta>,
    pub(super) me: Member,
    pub(super) disk: Stored,
    unsynced: VecDeque<(Instant, Persist)>,
    pub(super) events: Vec<Event>,
    /// What the node has heard of users, rules and bans, change by change.
    heard: Heard,
    // Who was said to be up, and since when who is not is out of reach.
    up: BTreeSet<usize>,
    lost: BTreeMap<usize, Instant>,
    down: BTreeMap<usize, Instant>,
}

type Heard = BTreeMap<(BlobKind, String), Vec<u8>>;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Event {
    Joined(ClusterId),
    Abandoned(Lost),
    Removed(NodeId, RemovedBy),
    Gone(Gone),
    Stopped(Stopped),
}

pub(super) struct Net {
    pub(super) now: Instant,
    pub(super) config: Config,
    pub(super) nodes: Vec<Node>,
    pub(super) side: Vec<u32>,
    /// Nothing is done at this node until then, nor heard.
    pub(super) paused: Option<usize>,
    pub(super) loss_ppm: u64,
    pub(super) twice_ppm: u64,
    pub(super) delay_ms: u64,
    pub(super) sync_ms: u64,
    pub(super) answers: BTreeMap<u64, Result<u64, Refusal>>,
    pub(super) removals: u64,
    pub(super) founded: BTreeSet<ClusterId>,
    flying: BTreeMap<(Instant, u64), (usize, usize, Vec<u8>)>,
    sent: u64,
    look_at: Instant,
    pub(super) rng: Rng,
    next_request: u64,
    leaders: BTreeMap<(ClusterId, u64), usize>,
    // Since when the witness does; there is one at most.
    witness_leads: Option<Instant>,
    hashes: BTreeMap<(ClusterId, u64), u64>,
    pub(super) checked: u64,
    pub(super) trace: u64,
}

const DETECT: Duration = Duration::from_secs(4);
// Until somebody has its log.
const WITNESS_LEADS_MAX: Duration = Duration::from_secs(1);

impl Net {
    pub(super) fn new(count: usize, seed: u64) -> Net {
        let config = Config { autoclean: Some(Duration::from_secs(20)), ..Config::default() };
        let mut net = Net {
            now: Instant::START,
            config,
            nodes: Vec::new(),
            side: vec![0; count],
            paused: None,
            loss_ppm: 0,
            twice_ppm: 0,
            delay_ms: 10,
            sync_ms: 4,
            answers: BTreeMap::new(),
            removals: 0,
            founded: BTreeSet::new(),
            flying: BTreeMap::new(),
            sent: 0,
            look_at: Instant::START,
            rng: Rng::from_number(seed),
            next_request: 0,
            leaders: BTreeMap::new(),
            witness_leads: None,
            hashes: BTreeMap::new(),
            checked: 0,
            trace: 0,
        };
        for index in 0..count {
            net.nodes.push(Node {
                meta: None,
                me: member(index),
                disk: Stored::default(),
                unsynced: VecDeque::new(),
                events: Vec::new(),
                heard: Heard::new(),
                up: BTreeSet::new(),
                lost: BTreeMap::new(),
                down: BTreeMap::new(),
            });
        }
        net
    }

    /// Nodes that form one cluster, with the first as its founder.
    pub(super) fn cluster(count: usize, seed: u64) -> Net {
        let mut net = Net::new(count, seed);
        net.join_all();
        net
    }

    pub(super) fn join_all(&mut self) {
        for index in 0..self.nodes.len() {
            self.start(index);
        }
        self.init(0);
        for index in 1..self.nodes.len() {
            let request = self.request();
            self.input(index, Input::Join { request, via: None });
        }
        self.until("all are members", 20, |net| net.is_whole());
    }

    pub(super) fn request(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request)
    }

    pub(super) fn init(&mut self, index: usize) {
        let request = self.request();
        self.input(index, Input::Init { request, name: "c".to_owned() });
        assert_eq!(self.answer(request.0, 1), Ok(0));
    }

    pub(super) fn start(&mut self, index: usize) {
        let mut seed = [0; 32];
        self.rng.fill(&mut seed);
        let now = self.now;
        let others = (0..self.nodes.len()).filter(|other| *other != index);
        let node = &mut self.nodes[index];
        node.me.inc.0 += 1;
        node.up.clear();
        node.lost.clear();
        // It has seen nobody so far.
        node.down = others.map(|other| (other, now)).collect();
        let meta = Meta::new(self.config.clone(), node.me.clone(), &node.disk, Rng::from_seed(seed), self.now);
        self.nodes[index].meta = Some(meta.expect("what was synced can be started with"));
        self.nodes[index].heard = self.blobs(index);
        self.input(index, Input::Tick);
    }

    /// Some of what was not synced is on the disk all the same.
    pub(super) fn crash(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.meta = None;
        let kept = self.rng.below(node.unsynced.len() as u64 + 1) as usize;
        for (_, persist) in node.unsynced.drain(..).take(kept) {
            node.disk.apply(&persist);
        }
    }

    pub(super) fn input(&mut self, index: usize, input: Input<'_>) {
        let Some(meta) = &mut self.nodes[index].meta else { return };
        let mut out = Vec::new();
        meta.handle(self.now, input, &mut out);
        self.take(index, out);
        self.check(index);
    }

    fn take(&mut self, index: usize, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Send { to, bytes, .. } => {
                    let message = Message::decode(&bytes).expect("what is sent can be read");
                    let mut again = Vec::new();
                    message.encode(&mut again);
                    assert_eq!(again, bytes);
                    let sum: u64 = bytes.iter().map(|byte| u64::from(*byte)).sum();
                    self.trace = self.trace.wrapping_mul(31).wrapping_add(sum);
                    if self.rng.below(1_000_000) < self.loss_ppm {
                        continue;
                    }
                    let copies = 1 + u64::from(self.rng.below(1_000_000) < self.twice_ppm);
                    for _ in 0..copies {
                        let at = self.now + Duration::from_millis(1 + self.rng.below(self.delay_ms));
                        self.sent += 1;
                        self.flying.insert((at, self.sent), (index, to.0 as usize - 1, bytes.clone()));
                    }
                }
                Output::Persist(persist) => {
                    let mut bytes = Vec::new();
                    persist.encode(&mut bytes);
                    let read = Persist::decode(&bytes).expect("what is written can be read");
                    assert_eq!(Persist { number: persist.number, sync: persist.sync, ..read }, persist);
                    let at = self.now + Duration::from_millis(1 + self.rng.below(self.sync_ms));
                    let at = self.nodes[index].unsynced.back().map_or(at, |(before, _)| at.max(*before));
                    self.nodes[index].unsynced.push_back((at, persist));
                }
                Output::Answer { request, outcome } => {
                    assert_eq!(self.answers.insert(request.0, outcome), None, "answered once");
                }
                Output::Removing { node, by } => self.check_removal(index, node, by),
                Output::Joined { cluster } => {
                    self.founded.insert(cluster);
                    self.nodes[index].heard = self.blobs(index);
                    self.nodes[index].events.push(Event::Joined(cluster));
                }
                Output::Abandoned { lost } => self.nodes[index].events.push(Event::Abandoned(lost)),
                Output::Removed { node, by } => self.nodes[index].events.push(Event::Removed(node, by)),
                Output::Gone(gone) => self.nodes[index].events.push(Event::Gone(gone)),
                Output::Stopped(stopped) => self.nodes[index].events.push(Event::Stopped(stopped)),
                Output::Blob { kind, key, value } => {
                    let heard = &mut self.nodes[index].heard;
                    match value {
                        Some(value) => drop(heard.insert((kind, key), value)),
                        None => drop(heard.remove(&(kind, key))),
                    }
                }
                Output::Blobs => self.nodes[index].heard = self.blobs(index),
                Output::Changed { .. } | Output::Leader { .. } => {}
            }
        }
        let is_there = self.nodes[index].meta.as_ref().is_some_and(Meta::is_member);
        if is_there {
            assert_eq!(self.nodes[index].heard, self.blobs(index), "who follows the changes has what the state has");
        }
    }

    fn blobs(&self, index: usize) -> Heard {
        let meta = self.nodes[index].meta.as_ref();
        let all = meta.into_iter().flat_map(|meta| meta.view().state.blobs().clone());
        all.map(|(place, blob)| (place, blob.value)).collect()
    }

    // W12: who removes a member leads, sees a quorum of the voters, and for autoclean more than half of the members, and has
    // seen the member down for long enough.
    fn check_removal(&mut self, index: usize, node: NodeId, by: RemovedBy) {
        self.removals += 1;
        let removing = &self.nodes[index];
        let meta = removing.meta.as_ref().unwrap();
        let view = meta.view();
        let there = |of: &NodeId| {
            let place = of.0 as usize - 1;
            place == index || removing.up.contains(&place)
        };
        let voters = view.state.voters().iter().filter(|of| there(of)).count();
        let members = view.state.members().keys().filter(|of| there(of)).count();
        let down = removing.down.get(&(node.0 as usize - 1)).copied();
        let since = |since: Option<Instant>| self.now - since.unwrap().max(meta.leads_since().unwrap());
        match by {
            RemovedBy::Leave => {}
            RemovedBy::Force => {
                assert!(view.is_leader && voters * 2 > view.state.voters().len());
                assert!(since(down) >= self.config.detect);
            }
            RemovedBy::Autoclean => {
                assert!(view.is_leader && voters * 2 > view.state.voters().len(), "W12: no quorum");
                assert!(members * 2 > view.state.members().len(), "W12: not more than half of the members");
                assert!(since(down) >= self.config.autoclean.unwrap(), "W12: too early");
            }
        }
    }

    fn check(&mut self, index: usize) {
        let Some(meta) = &self.nodes[index].meta else { return };
        let view = meta.view();
        let Some(cluster) = meta.cluster().filter(|cluster| *cluster == view.state.cluster()) else { return };
        self.checked += 1;
        if view.is_leader {
            if self.nodes[index].me.witness {
                let since = *self.witness_leads.get_or_insert(self.now);
                assert!(self.now - since <= WITNESS_LEADS_MAX, "a witness leads on");
            }
            let leader = *self.leaders.entry((cluster, view.term)).or_insert(index);
            assert_eq!(leader, index, "W1: two leaders in term {}", view.term);
        } else if self.nodes[index].me.witness {
            self.witness_leads = None;
        }
        let hash = *self.hashes.entry((cluster, view.state.index())).or_insert(view.state.hash());
        assert_eq!(hash, view.state.hash(), "W2: another state at index {}", view.state.index());
        assert!(view.state.index() <= view.commit || view.commit == 0);
        assert_eq!(view.state.voters().len() % 2, 1, "an odd number votes");
    }

    pub(super) fn reaches(&self, one: usize, other: usize) -> bool {
        self.nodes[one].meta.is_some() && self.nodes[other].meta.is_some() && self.side[one] == self.side[other]
    }

    // What SWIM and the links would say: up at once, down after a while.
    fn look(&mut self) {
        for index in 0..self.nodes.len() {
            if self.nodes[index].meta.is_none() || self.paused == Some(index) {
                continue;
            }
            for other in (0..self.nodes.len()).filter(|other| *other != index) {
                let node = NodeId(other as u64 + 1);
                let reached = self.reaches(index, other);
                let seen = &mut self.nodes[index];
                if reached {
                    seen.lost.remove(&other);
                    seen.down.remove(&other);
                    if seen.up.insert(other) {
                        self.input(index, Input::Up { node });
                    }
                } else if seen.up.contains(&other) {
                    let since = *seen.lost.entry(other).or_insert(self.now);
                    if self.now - since >= DETECT {
                        seen.up.remove(&other);
                        seen.down.insert(other, self.now);
                        self.input(index, Input::Down { node });
                    }
                } else {
                    seen.down.entry(other).or_insert(self.now);
                }
            }
        }
    }

    pub(super) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let awake = self.nodes.iter().enumerate().filter(|(index, _)| self.paused != Some(*index));
            let metas = awake.filter_map(|(_, node)| node.meta.as_ref());
            let tick = metas.filter_map(Meta::next_deadline).min().unwrap_or(Instant::NEVER);
            let packet = self.flying.first_key_value().map_or(Instant::NEVER, |((at, _), _)| *at);
            let sync = self.nodes.iter().filter_map(|node| Some(node.unsynced.front()?.0)).min();
            let sync = sync.unwrap_or(Instant::NEVER);
            let next = tick.min(packet).min(sync).min(self.look_at);
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            if self.look_at <= self.now {
                self.look_at = self.now + Duration::from_millis(100);
                self.look();
            } else if sync <= self.now {
                self.sync();
            } else if packet <= self.now {
                let (_, (from, to, bytes)) = self.flying.pop_first().unwrap();
                if self.side[from] == self.side[to] && self.paused != Some(to) {
                    self.input(to, Input::Message { from: NodeId(from as u64 + 1), bytes: &bytes });
                }
            } else {
                let paused = self.paused;
                for index in (0..self.nodes.len()).filter(|index| paused != Some(*index)) {
                    if self.nodes[index].meta.as_ref().and_then(Meta::next_deadline).is_some_and(|at| at <= self.now) {
                        self.input(index, Input::Tick);
                    }
                }
            }
        }
    }

    /// A node does nothing for so long, then all that is due at once.
    pub(super) fn pause(&mut self, index: usize, seconds: u64) {
        let side = core::mem::replace(&mut self.side[index], u32::MAX);
        self.paused = Some(index);
        self.seconds(seconds);
        self.paused = None;
        self.side[index] = side;
        self.input(index, Input::Tick);
    }

    fn sync(&mut self) {
        for index in 0..self.nodes.len() {
            let node = &mut self.nodes[index];
            let mut number = 0;
            while node.unsynced.front().is_some_and(|(at, _)| *at <= self.now) {
                let (_, persist) = node.unsynced.pop_front().unwrap();
                node.disk.apply(&persist);
                number = if persist.sync { persist.number } else { number };
            }
            if number > 0 {
                self.input(index, Input::Persisted { number });
            }
        }
    }

    pub(super) fn until(&mut self, what: &str, seconds: u64, done: impl Fn(&Net) -> bool) -> Duration {
        let start = self.now;
        while !done(self) {
            if self.now - start >= Duration::from_secs(seconds) {
                for node in &self.nodes {
                    let Some(meta) = &node.meta else { continue };
                    println!("{:?} {:?} {:?}", meta, meta.view(), meta.counters());
                }
                panic!("not within {seconds} s: {what}");
            }
            self.run(Duration::from_millis(50));
        }
        self.now - start
    }

    pub(super) fn seconds(&mut self, seconds: u64) {
        self.run(Duration::from_secs(seconds));
    }

    pub(super) fn leader(&self) -> Option<usize> {
        let leads = |index: &usize| {
            let meta = self.nodes[*index].meta.as_ref();
            meta.map(Meta::view).filter(|view| view.is_leader).map(|view| view.term)
        };
        (0..self.nodes.len()).filter(|index| leads(index).is_some()).max_by_key(leads)
    }

    pub(super) fn meta(&self, index: usize) -> &Meta {
        self.nodes[index].meta.as_ref().unwrap()
    }

    pub(super) fn members(&self, index: usize) -> Vec<u64> {
        self.meta(index).view().state.members().keys().map(|node| node.0).collect()
    }

    pub(super) fn voters(&self, index: usize) -> Vec<u64> {
        self.meta(index).view().state.voters().iter().map(|node| node.0).collect()
    }

    /// All running nodes are members of one cluster with one state, with as many voters as there should be, and know that
    /// all that is committed is applied.
    pub(super) fn is_whole(&self) -> bool {
        let running: Vec<usize> = (0..self.nodes.len()).filter(|index| self.nodes[*index].meta.is_some()).collect();
        let Some(leader) = self.leader() else { return false };
        let led = self.meta(leader).view();
        let count = led.state.members().len().min(self.config.voters_max);
        let wanted = count - (count + 1) % 2;
        led.state.voters().len() == wanted
            && running.iter().all(|index| {
                let (meta, view) = (self.meta(*index), self.meta(*index).view());
                // Who decided before decides as long as both do.
                meta.group.as_ref().is_some_and(|group| !group.is_joint())
                    && meta.is_member()
                    && view.state.hash() == led.state.hash()
                    && view.commit == view.state.index()
                    && view.leader == Some(NodeId(leader as u64 + 1))
                    && view.state.members()[&NodeId(*index as u64 + 1)].inc == self.nodes[*index].me.inc
            })
    }

    /// Asks a node to write; the answer comes later.
    pub(super) fn write(&mut self, index: usize, key: &str, value: &[u8]) -> u64 {
        let request = self.request();
        let command = Command::SetConfig { key: key.to_owned(), value: Some(value.to_vec()) };
        self.input(index, Input::Write { request, command });
        request.0
    }

    pub(super) fn answer(&mut self, request: u64, seconds: u64) -> Result<u64, Refusal> {
        self.until("an answer", seconds, |net| net.answers.contains_key(&request));
        self.answers.remove(&request).unwrap()
    }

    pub(super) fn heal(&mut self) {
        self.side = vec![0; self.side.len()];
        (self.loss_ppm, self.twice_ppm, self.delay_ms, self.sync_ms) = (0, 0, 10, 4);
    }
}

pub(super) fn member(index: usize) -> Member {
    Member {
        node: NodeId(index as u64 + 1),
        birth: 1000 + index as u64,
        inc: Incarnation(0),
        name: format!("n{}", index + 1),
        address: format!("10.0.0.{}:4370", index + 1),
        witness: false,
        feature_max: 3,
        joined: 0,
    }
}
