//! Nodes with lanes between all their shards over a network that loses, repeats, delays and reorders, whose links are reset
//! and cut, and that crash: what is promised holds at every step, and at the end nothing is left.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use newtmq_base::{Incarnation, Instant, NodeId, Rng, ShardId};
use newtmq_mqtt::QoS;
use proptest::prelude::*;

use super::*;

mod ends;

/// A shard of a node.
type Spot = (usize, u16);

const HINT: u64 = 1 << 40;

/// Somebody got a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Got {
    source: Spot,
    number: u64,
    qos: QoS,
    group: bool,
}

/// A message, as its publisher knows it.
#[derive(Debug)]
struct Sending {
    publication: Publication,
    /// (node, target) as sent; a group's last one.
    targets: Vec<(usize, Target)>,
    answers: u32,
    /// Every answer was a success, or an entry in the log of hints.
    good: bool,
    /// One is to be looked for elsewhere: the nodes that were tried.
    tried: BTreeSet<usize>,
    /// The source has crashed before the answers were complete.
    orphan: bool,
    /// Its publisher has sent it again: sessions in memory may have missed it and get it late.
    again: bool,
    hinted: bool,
    /// A group's message may have come to an earlier place.
    repeated: bool,
    gate: Option<GateId>,
}

#[derive(Debug, Clone)]
struct Hint {
    id: u64,
    to: Spot,
    seq: Option<u64>,
    what: What,
    publication: Publication,
    posted: bool,
}

/// Not yet on disk.
struct Unsynced {
    delivery: Delivery,
    mark: Mark,
    got: Option<Got>,
}

#[derive(Default)]
struct Disk {
    marks: BTreeMap<Spot, Mark>,
    guids: Vec<(Guid, What, bool)>,
    got: Vec<Got>,
    hints: Vec<Hint>,
}

struct Shard {
    ins: LanesIn,
    outs: BTreeMap<usize, PeerOut>,
    inbox: VecDeque<Delivery>,
    unsynced: VecDeque<Unsynced>,
    /// What sessions in memory have got in this life.
    got: Vec<Got>,
    disk: Disk,
    marks: BTreeMap<Spot, Mark>,
    /// Of its one publisher.
    gates: AckGates,
    gated: BTreeMap<GateId, u64>,
}

struct World {
    rng: Rng,
    config: Config,
    now: Instant,
    incs: Vec<u64>,
    shards: BTreeMap<Spot, Shard>,
    /// (arrives, number, from, to, bytes)
    wire: Vec<(Instant, u64, usize, usize, Bytes)>,
    linked: BTreeSet<(usize, usize)>,
    sendings: BTreeMap<u64, Sending>,
    next: u64,
    loss: u64,
    twice: u64,
    delay: u64,
    /// In memory, of lives that have ended: for groups.
    ended: Vec<(Spot, Got)>,
    crashes: BTreeMap<usize, Vec<u64>>,
}

impl World {
    fn new(seed: u64, nodes: usize, shards: u16, config: Config) -> World {
        let mut world = World {
            rng: Rng::from_number(seed),
            config,
            now: Instant::from_millis(1),
            incs: vec![1; nodes],
            shards: BTreeMap::new(),
            wire: Vec::new(),
            linked: BTreeSet::new(),
            sendings: BTreeMap::new(),
            next: 1,
            loss: 0,
            twice: 0,
            delay: 0,
            ended: Vec::new(),
            crashes: BTreeMap::new(),
        };
        world.loss = [0, 0, 50, 300][world.rng.below(4) as usize];
        world.twice = [0, 100, 500][world.rng.below(3) as usize];
        world.delay = [1, 50, 2000][world.rng.below(3) as usize];
        for node in 0..nodes {
            for shard in 0..shards {
                world.start((node, shard), Disk::default());
            }
        }
        world
    }

    fn nodes(&self) -> usize {
        self.incs.len()
    }

    fn start(&mut self, spot: Spot, disk: Disk) {
        let inc = Incarnation(self.incs[spot.0]);
        let mut ins = LanesIn::new(self.config.clone(), ShardId(spot.1), inc);
        for ((node, shard), mark) in &disk.marks {
            ins.restore(NodeId(*node as u64), ShardId(*shard), *mark);
        }
        for (guid, what, seen) in &disk.guids {
            if *seen { ins.guids().insert(*guid, what) } else { ins.guids().remove(*guid) }
        }
        let mut outs = BTreeMap::new();
        for node in (0..self.nodes()).filter(|node| *node != spot.0) {
            let mut peer = PeerOut::new(self.config.clone(), ShardId(spot.1), inc, NodeId(node as u64));
            for hint in disk.hints.iter().filter(|hint| hint.to.0 == node) {
                peer.hinted(self.now, ShardId(hint.to.1), &mut Vec::new());
            }
            outs.insert(node, peer);
        }
        let marks = disk.marks.clone();
        let shard = Shard {
            ins,
            outs,
            inbox: VecDeque::new(),
            unsynced: VecDeque::new(),
            got: Vec::new(),
            disk,
            marks,
            gates: AckGates::new(),
            gated: BTreeMap::new(),
        };
        self.shards.insert(spot, shard);
    }

    fn chance(&mut self, permille: u64) -> bool {
        self.rng.below(1000) < permille
    }

    fn random_spot(&mut self) -> Spot {
        let index = self.rng.below(self.shards.len() as u64) as usize;
        *self.shards.keys().nth(index).expect("it is below the number of shards")
    }

    // Links.

    fn pair(a: usize, b: usize) -> (usize, usize) {
        (a.min(b), a.max(b))
    }

    fn link(&mut self, a: usize, b: usize) {
        self.linked.insert(World::pair(a, b));
        for (from, to) in [(a, b), (b, a)] {
            let spots: Vec<Spot> = self.shards.keys().copied().filter(|spot| spot.0 == from).collect();
            for spot in spots {
                let mut out = Vec::new();
                let inc = Incarnation(self.incs[to]);
                let peer = self.shards.get_mut(&spot).unwrap().outs.get_mut(&to).unwrap();
                assert!(peer.connected(self.now, inc, &mut out));
                self.shards.get_mut(&spot).unwrap().ins.connected(NodeId(to as u64), inc);
                self.outputs(spot, to, out);
            }
        }
    }

    fn cut(&mut self, a: usize, b: usize, down: [bool; 2]) {
        self.linked.remove(&World::pair(a, b));
        for ((from, to), down) in [(a, b), (b, a)].into_iter().zip(down) {
            let spots: Vec<Spot> = self.shards.keys().copied().filter(|spot| spot.0 == from).collect();
            for spot in spots {
                let mut out = Vec::new();
                let peer = self.shards.get_mut(&spot).unwrap().outs.get_mut(&to).unwrap();
                peer.disconnected();
                if down {
                    peer.down(self.now, &mut out);
                }
                self.outputs(spot, to, out);
            }
        }
        // Some of what is on the way still comes, by a relay say.
        let mut wire = core::mem::take(&mut self.wire);
        wire.retain(|(_, _, from, to, _)| World::pair(*from, *to) != World::pair(a, b) || self.chance(300));
        self.wire = wire;
    }

    fn transmit(&mut self, from: usize, to: usize, frame: &Frame) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        let bytes = Bytes::from(bytes);
        let copies = if self.chance(self.loss) { 0 } else { 1 + u64::from(self.chance(self.twice)) };
        for _ in 0..copies {
            let at = self.now + Duration::from_millis(self.rng.below(self.delay) + 1);
            let order = self.wire.len() as u64 + self.next;
            self.wire.push((at, order, from, to, bytes.clone()));
        }
    }

    fn arrive(&mut self) {
        self.wire.sort_by_key(|(at, order, ..)| (*at, *order));
        let due = self.wire.partition_point(|(at, ..)| *at <= self.now);
        for (_, _, from, to, bytes) in self.wire.drain(..due).collect::<Vec<_>>() {
            let frame = Frame::decode(&bytes).expect("it was encoded");
            let spots: Vec<Spot> = self.shards.keys().copied().filter(|spot| spot.0 == to).collect();
            for spot in spots {
                let (mut deliveries, mut out) = (Vec::new(), Vec::new());
                let now = self.now;
                let shard = self.shards.get_mut(&spot).unwrap();
                shard.ins.frame(now, NodeId(from as u64), &frame, &mut deliveries);
                shard.inbox.extend(deliveries);
                if let Frame::Receipt(receipt) = &frame {
                    shard.outs.get_mut(&from).unwrap().receipt(now, receipt, &mut out);
                }
                self.outputs(spot, from, out);
            }
        }
    }

    // Faults.

    fn crash(&mut self, node: usize) {
        for other in (0..self.nodes()).filter(|other| *other != node) {
            let down = self.chance(500);
            self.cut(node, other, [false, down]);
        }
        self.incs[node] += 1;
        self.crashes.entry(node).or_default().push(self.next);
        for spot in self.shards.keys().copied().filter(|spot| spot.0 == node).collect::<Vec<_>>() {
            let mut shard = self.shards.remove(&spot).unwrap();
            self.ended.extend(shard.got.drain(..).map(|got| (spot, got)));
            for hint in &mut shard.disk.hints {
                (hint.posted, hint.seq) = (false, None);
            }
            self.start(spot, shard.disk);
            let mut again = Vec::new();
            for (number, sending) in &mut self.sendings {
                if sending.answers > 0 && publisher_of(&sending.publication) == spot {
                    sending.answers = 0;
                    sending.orphan = true;
                    let plain = sending.tried.is_empty();
                    if plain && sending.good && sending.publication.qos() == QoS::ExactlyOnce {
                        sending.again = true;
                        again.push(*number);
                    }
                }
            }
            // Publishers whose sessions are stored send again what was not acknowledged.
            for number in again {
                self.gate(spot, number);
                self.send(spot, number);
            }
            self.acknowledge(spot);
        }
    }

    fn step(&mut self) {
        self.now = self.now + Duration::from_millis(self.rng.below(200));
        match self.rng.below(100) {
            0..60 => {
                let spot = self.random_spot();
                for _ in 0..=self.rng.below(6) {
                    self.publish(spot);
                }
            }
            60..70 => {
                let spot = self.random_spot();
                let (a, b) = (spot.0, self.other_spot(spot).0);
                let down = [self.chance(300), self.chance(300)];
                self.cut(a, b, down);
                if self.chance(600) {
                    self.link(a, b);
                }
            }
            70..90 => {
                let spot = self.random_spot();
                let (a, b) = (spot.0, self.other_spot(spot).0);
                if !self.linked.contains(&World::pair(a, b)) {
                    self.link(a, b);
                }
            }
            90..93 => {
                let node = self.random_spot().0;
                self.crash(node);
            }
            _ => self.now = self.now + Duration::from_secs(2),
        }
        self.turn(40);
    }

    fn turn(&mut self, refuse: u64) {
        self.arrive();
        for spot in self.shards.keys().copied().collect::<Vec<_>>() {
            if self.chance(700) {
                let most = self.rng.below(12);
                self.work(spot, most, refuse);
            }
            if self.chance(500) {
                let most = self.rng.below(12) as usize;
                self.sync(spot, most);
            }
            for node in (0..self.nodes()).filter(|node| *node != spot.0) {
                let mut out = Vec::new();
                self.shards.get_mut(&spot).unwrap().outs.get_mut(&node).unwrap().tick(self.now, &mut out);
                self.outputs(spot, node, out);
            }
        }
        self.receipts();
        self.check();
    }

    // Checks.

    fn check(&mut self) {
        for (spot, shard) in &mut self.shards {
            for view in shard.ins.view() {
                let key = (view.node.0 as usize, view.shard.0);
                let old = shard.marks.insert(key, view.mark);
                assert!(old.is_none_or(|old| old <= view.mark), "W7 at {spot:?}: {old:?} to {:?}", view.mark);
                assert!(view.held_messages <= self.config.window_messages as usize, "W10 at {spot:?}: {view:?}");
                let bytes = u64::from(self.config.window_bytes);
                assert!(view.held_bytes <= bytes || view.held_messages == 1, "W10 at {spot:?}: {view:?}");
            }
            for view in shard.outs.values().flat_map(PeerOut::view) {
                assert!(view.flight_messages <= self.config.window_messages, "W10 at {spot:?}: {view:?}");
                let bytes = u64::from(self.config.window_bytes);
                assert!(view.flight_bytes <= bytes || view.flight_messages == 1, "W10 at {spot:?}: {view:?}");
                assert!(view.waiting <= self.config.waiting_messages + 1, "at {spot:?}: {view:?}");
                assert!(view.unstored <= self.config.unstored_messages, "at {spot:?}: {view:?}");
            }
            let got: Vec<Got> = shard.got.iter().filter(|got| !self.sendings[&got.number].again).copied().collect();
            in_order(spot, "in memory", &got);
            // What waited in a log comes again if its source has started again and does not know that it had come.
            let got: Vec<Got> = shard.got.iter().filter(|got| !self.sendings[&got.number].hinted).copied().collect();
            once(*spot, &got);
        }
    }

    fn heal(&mut self) {
        (self.loss, self.twice, self.delay) = (0, 0, 20);
        for a in 0..self.nodes() {
            for b in a + 1..self.nodes() {
                self.link(a, b);
            }
        }
        for _ in 0..3000 {
            self.now = self.now + Duration::from_millis(50);
            self.turn(0);
            if self.is_quiet() {
                return;
            }
        }
    }

    fn is_quiet(&self) -> bool {
        self.wire.is_empty()
            && self.shards.values().all(|shard| {
                shard.inbox.is_empty()
                    && shard.unsynced.is_empty()
                    && shard.disk.hints.is_empty()
                    && shard.ins.view().all(|view| view.held_messages == 0 && view.refused == 0)
                    && shard.outs.values().flat_map(PeerOut::view).all(|view| {
                        view.flight_messages == 0
                            && view.flight_bytes == 0
                            && view.unstored == 0
                            && view.waiting == 0
                            && view.releases == 0
                            && !view.unsettled
                            && !view.hinting
                    })
            })
    }

    fn check_end(&self) {
        for (spot, shard) in &self.shards {
            assert!(shard.disk.hints.is_empty(), "hints are left at {spot:?}: {:?}", shard.disk.hints);
            for view in shard.outs.values().flat_map(PeerOut::view) {
                let left = (view.flight_messages, view.flight_bytes, view.unstored, view.waiting);
                assert_eq!(left, (0, 0, 0, 0), "Q5 at {spot:?}: {view:?}");
                assert!(view.releases == 0 && !view.unsettled && !view.hinting, "Q5 at {spot:?}: {view:?}");
            }
            for view in shard.ins.view() {
                assert!(view.refused == 0 && view.held_messages == 0, "Q5 at {spot:?}: {view:?}");
            }
            assert!(shard.gates.is_empty(), "acknowledgements are left at {spot:?}");
            in_order(spot, "stored", &shard.disk.got);
        }
        for (number, sending) in &self.sendings {
            assert!(sending.answers == 0 || sending.publication.qos() == QoS::AtMostOnce, "{number} has no answer");
            let source = publisher_of(&sending.publication);
            let qos = sending.publication.qos();
            let crashed =
                |node: usize| self.crashes.get(&node).is_some_and(|crashes| crashes.iter().any(|crash| crash > number));
            // An excuse of QoS 1.
            let crashed = crashed(source.0) || sending.targets.iter().any(|(node, _)| crashed(*node));
            let copies = |target: &(usize, Target)| {
                let got = &self.shards[&(target.0, target.1.shard.0)].disk.got;
                got.iter().filter(|got| got.number == *number).count()
            };
            if sending.tried.is_empty() {
                for target in sending.targets.iter().filter(|target| classes(&target.1.what).1) {
                    let copies = copies(target);
                    assert!(copies <= 1 || (crashed && qos == QoS::AtLeastOnce), "{number} came {copies} times");
                    let due = sending.good && qos != QoS::AtMostOnce && (!sending.orphan || qos == QoS::ExactlyOnce);
                    assert!(!due || copies > 0, "{number} was lost: {sending:?}");
                }
            } else {
                let copies = self.group_copies(*number);
                let due = sending.good && qos != QoS::AtMostOnce && !sending.orphan;
                assert!(!due || copies > 0, "{number} was lost: {sending:?}");
                let once = qos != QoS::AtLeastOnce || !(sending.repeated || crashed);
                assert!(copies <= 1 || !once, "{number} of a group came {copies} times: {sending:?}");
            }
        }
    }

    fn group_copies(&self, number: u64) -> usize {
        let now = self.shards.values().flat_map(|shard| shard.got.iter().chain(&shard.disk.got));
        now.chain(self.ended.iter().map(|(_, got)| got)).filter(|got| got.number == number).count()
    }
}

fn sample(publisher: &str, qos: QoS, number: u64, size: usize) -> Publication {
    let mut guid = [0; 16];
    guid[..8].copy_from_slice(&number.to_le_bytes());
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(size, 0);
    Publication::new(&PublicationParts {
        publisher: publisher.as_bytes(),
        retained: 1,
        guid: Guid(guid),
        topic: b"a/b",
        qos,
        retain: false,
        properties: &[],
        payload: &payload,
    })
}

fn in_order(spot: &Spot, place: &str, got: &[Got]) {
    let mut last: BTreeMap<(Spot, u8), u64> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for got in got.iter().filter(|got| !got.group && seen.insert((got.source, got.number))) {
        let before = last.insert((got.source, got.qos as u8), got.number);
        assert!(before.is_none_or(|before| before < got.number), "order at {spot:?} {place}: {before:?} then {got:?}");
    }
}

/// Sessions in memory get nothing twice.
fn once(spot: Spot, got: &[Got]) {
    let mut seen = BTreeSet::new();
    let twice = got.iter().filter(|got| !got.group).find(|got| !seen.insert((got.source, got.number)));
    assert_eq!(twice, None, "twice at {spot:?} in memory");
}

fn classes(what: &What) -> (bool, bool) {
    match what {
        What::Plain { transient, durable } => (*transient, *durable),
        What::Group { durable, .. } => (!durable, *durable),
        What::Release(_) => (false, false),
    }
}

fn number_of(publication: &Publication) -> u64 {
    u64::from_le_bytes(publication.payload()[..8].try_into().unwrap())
}

fn publisher_of(publication: &Publication) -> Spot {
    let text = core::str::from_utf8(publication.publisher()).unwrap();
    let (node, shard) = text.split_once('.').unwrap();
    (node.parse().unwrap(), shard.parse().unwrap())
}

fn small(seed: u64) -> Config {
    let mut rng = Rng::from_number(seed ^ 0xC0FF_EE00);
    Config {
        window_messages: [1, 3, 20][rng.below(3) as usize],
        window_bytes: [100, 2000, 100_000][rng.below(3) as usize],
        waiting_messages: [4, 40][rng.below(2) as usize],
        waiting_bytes: [2000, 100_000][rng.below(2) as usize],
        unstored_messages: [4, 100][rng.below(2) as usize],
        unstored_bytes: [1000, 100_000][rng.below(2) as usize],
        qos0: if rng.below(2) == 0 { Qos0::Drop } else { Qos0::Pause },
        ticket_max: Duration::from_secs([3, 60][rng.below(2) as usize]),
        ..Config::default()
    }
}

fn run(seed: u64, nodes: usize, shards: u16, steps: u32) {
    let mut world = World::new(seed, nodes, shards, small(seed));
    for _ in 0..steps {
        world.step();
    }
    world.heal();
    world.check_end();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn lanes_keep_their_promises(seed in any::<u64>(), nodes in 2..4_usize, shards in 1..3_u16, steps in 1..120_u32) {
        run(seed, nodes, shards, steps);
    }
}

fn run_numbered(seed: u64) {
    run(seed, 2 + (seed % 2) as usize, 1 + (seed / 2 % 2) as u16, 5 + (seed / 4 % 90) as u32);
}

#[test]
#[ignore = "takes a minute"]
fn lanes_keep_their_promises_for_long() {
    (0..4000).for_each(run_numbered);
}

/// Every planted bug of the lanes is found by these trials, or by a table beside the code.
#[cfg(newtmq_mutants)]
#[test]
fn planted_bugs_are_found() {
    use newtmq_base::Mutant;
    let bugs = [
        Mutant::AckBeforeForwardAck,
        Mutant::LaneByMessage,
        Mutant::ResendOutOfOrder,
        Mutant::LaneDedupWithoutIncarnation,
        Mutant::CreditLeakOnReconnect,
        Mutant::LaneGroupAckedEarly,
        Mutant::ForwardAckedOnArrival,
        Mutant::NackToldOnce,
        Mutant::GapAccepted,
        Mutant::ForwardGuidIgnored,
        Mutant::FanOutOvertaken,
        Mutant::LaneGroupNotRedispatched,
    ];
    Mutant::assert_found(&bugs, |bug| (0..2000).any(|seed| Mutant::fails(bug, || run_numbered(seed))));
}
