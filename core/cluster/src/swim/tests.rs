//! Several nodes over a network that loses, repeats, reorders and cuts.

use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::collections::BTreeMap;

use newtmq_base::{Incarnation, Instant, NodeId, Rng};
use proptest::prelude::*;

use super::codec::WireCodec;
use super::{Config, Identity, Output, Swim};

struct Net {
    now: Instant,
    nodes: Vec<Option<Swim>>,
    inc: Vec<u64>,
    told: Vec<BTreeMap<NodeId, (u64, bool)>>,
    flying: BTreeMap<(Instant, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    sent: u64,
    side: Vec<u32>,
    loss_ppm: u64,
    twice_ppm: u64,
    rng: Rng,
    trace: u64,
}

fn address(index: usize) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(10, 0, 0, index as u8 + 1), 4370))
}

fn config() -> Config {
    Config { key: b"cookie".to_vec(), ..Config::default() }
}

impl Net {
    fn new(count: usize, seed: u64) -> Net {
        let mut net = Net {
            now: Instant::START,
            nodes: (0..count).map(|_| None).collect(),
            inc: vec![0; count],
            told: vec![BTreeMap::new(); count],
            flying: BTreeMap::new(),
            sent: 0,
            side: vec![0; count],
            loss_ppm: 10_000,
            twice_ppm: 0,
            rng: Rng::from_number(seed),
            trace: 0,
        };
        for index in 0..count {
            net.start(index);
        }
        net
    }

    // Everybody is given the first two nodes' addresses.
    fn start(&mut self, index: usize) {
        self.inc[index] += 1;
        let mut seed = [0; 32];
        self.rng.fill(&mut seed);
        let (node, inc) = (NodeId(index as u64 + 1), Incarnation(self.inc[index]));
        let mut swim = Swim::new(config(), node, inc, address(index), Rng::from_seed(seed), self.now);
        let mut out = Vec::new();
        swim.discovered(&[address(0), address(1)], &mut out);
        self.nodes[index] = Some(swim);
        self.told[index].clear();
        self.take(index, out);
    }

    fn crash(&mut self, index: usize) {
        self.nodes[index] = None;
    }

    fn take(&mut self, index: usize, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Send { to, bytes } => {
                    assert!(bytes.len() <= 1400);
                    self.trace = self.trace.wrapping_mul(31).wrapping_add(bytes.iter().map(|b| u64::from(*b)).sum());
                    if self.rng.below(1_000_000) < self.loss_ppm {
                        continue;
                    }
                    let copies = 1 + u64::from(self.rng.below(1_000_000) < self.twice_ppm);
                    for _ in 0..copies {
                        let at = self.now + Duration::from_millis(1 + self.rng.below(20));
                        self.sent += 1;
                        self.flying.insert((at, self.sent), (address(index), to, bytes.clone()));
                    }
                }
                Output::Up { node, inc, .. } => {
                    if let Some((before, up)) = self.told[index].insert(node, (inc.0, true)) {
                        assert!(inc.0 > before || inc.0 == before && !up, "{node:?} {inc:?} after {before} {up}");
                    }
                    assert!(inc.0 <= self.inc[node.0 as usize - 1], "{inc:?} of {node:?} never was");
                }
                Output::Down { node, inc } => {
                    assert_eq!(self.told[index].insert(node, (inc.0, false)), Some((inc.0, true)));
                }
            }
        }
    }

    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let timer = self.nodes.iter().flatten().filter_map(Swim::next_deadline).min().unwrap_or(Instant::NEVER);
            let packet = self.flying.first_key_value().map_or(Instant::NEVER, |((at, _), _)| *at);
            let next = timer.min(packet);
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            let mut out = Vec::new();
            if packet <= timer {
                let (_, (from, to, bytes)) = self.flying.pop_first().unwrap();
                let [source, target] = [from, to].map(|a| (0..self.nodes.len()).find(|i| address(*i) == a).unwrap());
                if self.side[source] != self.side[target] {
                    continue;
                }
                if let Some(swim) = &mut self.nodes[target] {
                    swim.packet(self.now, from, &bytes, &mut out);
                    self.take(target, out);
                }
            } else {
                for index in 0..self.nodes.len() {
                    let mut out = Vec::new();
                    if let Some(swim) = &mut self.nodes[index] {
                        swim.tick(self.now, &mut out);
                        self.take(index, out);
                    }
                }
            }
        }
    }

    // Whether each running node sees exactly those of its side that run, with their incarnation.
    fn agreed(&self) -> bool {
        (0..self.nodes.len()).all(|index| {
            let Some(swim) = &self.nodes[index] else { return true };
            let seen: Vec<_> = swim.alive().map(|(node, inc, _)| (node.0 as usize - 1, inc.0)).collect();
            let real: Vec<_> = (0..self.nodes.len())
                .filter(|i| *i != index && self.nodes[*i].is_some() && self.side[*i] == self.side[index])
                .map(|i| (i, self.inc[i]))
                .collect();
            seen == real
        })
    }

    fn until_agreed(&mut self, limit: Duration) -> Duration {
        let start = self.now;
        while !self.agreed() {
            assert!(self.now - start < limit, "no agreement within {limit:?}");
            self.run(Duration::from_millis(100));
        }
        self.now - start
    }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn two_halves_reunite() {
    let mut times = Vec::new();
    for seed in 0..24 {
        let mut net = Net::new(5, seed);
        net.until_agreed(seconds(10));
        net.side = vec![0, 0, 1, 1, 1];
        net.run(seconds(60));
        assert!(net.agreed(), "each half sees the other one down");
        net.side = vec![0; 5];
        times.push(net.until_agreed(seconds(15)));
        let renewed: u64 = net.nodes.iter().flatten().map(|swim| swim.counters().renewed).sum();
        assert!(renewed > 0, "somebody was declared down and has come back");
        net.run(seconds(20));
        assert!(net.agreed(), "and they stay together");
    }
    times.sort();
    println!("reunited after {:?} (median), {:?} (max)", times[12], times[23]);
}

// Each of them suspects another one, so that all come back under new identities at the same time.
#[test]
fn who_loses_sight_of_all_for_a_moment_stays() {
    for seed in 0..100 {
        let mut net = Net::new(3, seed);
        net.loss_ppm = 0;
        net.until_agreed(seconds(10));
        net.run(seconds(3));
        net.side = vec![0, 1, 2];
        net.run(Duration::from_millis(1_100 + 60 * seed));
        net.side = vec![0; 3];
        net.run(seconds(7));
        for _ in 0..15 {
            assert!(net.agreed(), "seed {seed}: nobody is missed any more");
            net.run(seconds(1));
        }
    }
}

#[test]
fn dead_node_is_noticed() {
    for seed in 0..10 {
        let mut net = Net::new(5, seed);
        net.until_agreed(seconds(10));
        net.crash(3);
        net.until_agreed(seconds(11));
        net.start(3);
        net.until_agreed(seconds(8));
    }
}

#[test]
fn same_seed_same_packets() {
    let traces = [7, 7, 8].map(|seed| {
        let mut net = Net::new(4, seed);
        net.run(seconds(30));
        (net.trace, net.sent)
    });
    assert_eq!(traces[0], traces[1]);
    assert_ne!(traces[0], traces[2]);
}

#[test]
fn who_leaves_is_down_at_once() {
    let mut net = Net::new(4, 1);
    net.until_agreed(seconds(10));
    let mut out = Vec::new();
    let now = net.now;
    net.nodes[2].as_mut().unwrap().leave(now, &mut out);
    assert_eq!(net.nodes[2].as_ref().unwrap().next_deadline(), None);
    net.take(2, out);
    net.crash(2);
    net.until_agreed(seconds(2));
}

#[test]
fn another_cluster_is_not_heard() {
    let mut swim = Swim::new(config(), NodeId(1), Incarnation(1), address(0), Rng::from_number(1), Instant::START);
    let other = Config { key: b"other".to_vec(), ..Config::default() };
    let mut other = Swim::new(other, NodeId(2), Incarnation(1), address(1), Rng::from_number(2), Instant::START);
    let mut out = Vec::new();
    other.discovered(&[address(0)], &mut out);
    let Some(Output::Send { bytes, .. }) = out.pop() else { panic!("it calls") };
    swim.packet(Instant::START, address(1), &bytes, &mut out);
    assert_eq!((out.len(), swim.counters().foreign), (0, 1));
}

#[test]
fn foreign_address_is_called_until_it_is_forgotten() {
    let mut net = Net::new(3, 3);
    net.until_agreed(seconds(10));
    net.crash(2);
    net.run(seconds(20));
    let calls = |net: &mut Net| {
        let mut out = Vec::new();
        let now = net.now + seconds(6);
        net.nodes[0].as_mut().unwrap().tick(now, &mut out);
        out.iter().filter(|o| matches!(o, Output::Send { to, .. } if *to == address(2))).count()
    };
    assert!(calls(&mut net) > 0);
    net.now = net.now + seconds(6);
    net.nodes[0].as_mut().unwrap().forget(NodeId(3));
    assert_eq!(calls(&mut net), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn converges_after_any_faults(
        seed in any::<u64>(),
        loss in 0u64..300_000,
        twice in 0u64..500_000,
        steps in proptest::collection::vec((0usize..5, 0u32..3, 1u64..15), 1..8),
    ) {
        let mut net = Net::new(5, seed);
        (net.loss_ppm, net.twice_ppm) = (loss, twice);
        for (index, what, length) in steps {
            match what {
                0 => net.side[index] ^= 1,
                1 => net.crash(index),
                _ => net.start(index),
            }
            net.run(seconds(length));
        }
        net.loss_ppm = 0;
        net.side = vec![0; 5];
        for index in 0..5 {
            if net.nodes[index].is_none() {
                net.start(index);
            }
        }
        net.until_agreed(seconds(25));
    }

    #[test]
    fn garbage_does_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut swim = Swim::new(config(), NodeId(1), Incarnation(1), address(0), Rng::from_number(1), Instant::START);
        let mut out = Vec::new();
        swim.packet(Instant::START, address(1), &bytes, &mut out);
        for kind in [super::KIND_FOCA, super::KIND_CALL] {
            swim.packet(Instant::START, address(1), &super::sealed(b"cookie", kind, &bytes), &mut out);
        }
        let _ = Identity::decode(&bytes);
        let mut codec = WireCodec;
        let _ = foca::Codec::<Identity>::decode_header(&mut codec, &bytes[..]);
        let _ = foca::Codec::<Identity>::decode_member(&mut codec, &bytes[..]);
    }

    #[test]
    fn identities_come_back(node: u64, inc: u64, bump: u32, ip: std::net::IpAddr, port: u16) {
        let identity = Identity {
            node: NodeId(node), inc: Incarnation(inc), bump, address: SocketAddr::new(ip, port),
        };
        let mut bytes = Vec::new();
        identity.encode(&mut bytes);
        prop_assert_eq!(Identity::decode(&bytes), Ok(identity));
    }
}

#[cfg(newtmq_mutants)]
mod planted;
