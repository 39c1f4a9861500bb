//! Many small worlds: clients that come and go and come twice, while nodes part, meet, crash and change their leader.

use std::collections::BTreeSet;

use newtmq_base::Rng;

use super::super::{AwayHome, Config};
use super::world::{MS, Noise, SECOND, Seen, World};

const CLIENTS: [&str; 4] = ["a", "b", "c/é", "d"];

fn config(rng: &mut Rng) -> Config {
    let mut config = Config { page: 1 + rng.below(3) as usize, ..Config::default() };
    if rng.below(2) > 0 {
        config.takeover_wait = None;
    }
    if rng.below(2) > 0 {
        config.away_home = AwayHome::Fresh;
    }
    if rng.below(3) == 0 {
        config.reports = 1 + rng.below(3) as usize;
    }
    config
}

/// Nodes in up to three groups, or some ways cut.
fn cuts(rng: &mut Rng, nodes: usize) -> BTreeSet<(usize, usize)> {
    let groups = 1 + rng.below(3);
    let group: Vec<u64> = (0..nodes).map(|_| rng.below(groups)).collect();
    let pairs = (0..nodes).flat_map(|i| (0..nodes).map(move |j| (i, j)));
    pairs.filter(|(i, j)| group[*i] != group[*j]).collect()
}

pub(super) fn run(seed: u64) -> Seen {
    let mut rng = Rng::from_number(seed ^ 0x5EED);
    let nodes = 1 + rng.below(5) as usize;
    let noise = match rng.below(3) {
        0 => Noise { shard_ms: 10, ..Noise::default() },
        1 => Noise { loss_percent: 0, copy_percent: 0, delay_ms: 50, shard_ms: 200 },
        _ => Noise { loss_percent: rng.below(25), copy_percent: 1 + rng.below(30), delay_ms: 200, shard_ms: 300 },
    };
    let config = config(&mut rng);
    let mut world = World::new(seed, nodes, config.clone(), noise);
    world.migrates = seed.is_multiple_of(2);
    world.run_until(6 * SECOND);
    for _ in 0..1 + rng.below(3) {
        for _ in 0..20 + rng.below(40) {
            act(&mut rng, &mut world);
            let wait = [1, 30, 300, 2000][rng.below(4) as usize];
            let until = world.now + rng.below(wait * MS + 1);
            world.run_until(until);
        }
        // Nothing changes for a while, as it is or as it comes.
        if rng.below(2) > 0 {
            let cuts = cuts(&mut rng, nodes);
            world.cut(cuts);
        } else if !world.has_sides() {
            world.cut(BTreeSet::new());
        }
        let noise = core::mem::replace(&mut world.noise, Noise { delay_ms: 20, shard_ms: 20, ..Noise::default() });
        world.nodes.iter_mut().for_each(|node| node.stuck = 0);
        world.run_until(world.now + 40 * SECOND);
        world.sides().iter().for_each(|side| world.check_rest(side));
        for side in world.sides() {
            let whole = side.len() == nodes || config.away_home == AwayHome::Fresh;
            for client in CLIENTS.iter().filter(|_| whole) {
                let i = side[rng.below(side.len() as u64) as usize];
                world.check_connects(i, client);
            }
        }
        world.noise = noise;
    }
    heal(&mut world);
    world.finish()
}

fn act(rng: &mut Rng, world: &mut World) {
    let i = rng.below(world.nodes.len() as u64) as usize;
    let client = CLIENTS[rng.below(CLIENTS.len() as u64) as usize];
    match rng.below(24) {
        0..10 => _ = world.connect(i, client, rng.below(4) == 0, rng.below(3) > 0),
        10..13 => {
            let conns: Vec<_> = world.nodes[i].lines.keys().copied().collect();
            if !conns.is_empty() {
                world.close(i, conns[rng.below(conns.len() as u64) as usize]);
            }
        }
        13 => {
            let sessions: Vec<_> = world.nodes[i].kept.keys().cloned().collect();
            let used = |client| world.nodes.iter().any(|node| node.lines.values().any(|line| line.client == client));
            if let Some(client) = sessions.into_iter().find(|client| !used(client.clone())) {
                world.expire(i, &client);
            }
        }
        14..16 => world.nodes[i].stuck = world.now + rng.below(4 * SECOND),
        16 => {
            let cuts = cuts(rng, world.nodes.len());
            world.cut(cuts);
        }
        17 => world.cut(BTreeSet::new()),
        18 => {
            let j = rng.below(world.nodes.len() as u64) as usize;
            let mut cuts = world.cuts.clone();
            cuts.insert((i, j));
            world.cut(cuts);
        }
        19 | 20 if world.nodes[i].dir.is_some() => world.crash(i),
        19..22 => {
            if let Some(down) = (0..world.nodes.len()).find(|i| world.nodes[*i].dir.is_none()) {
                world.start(down);
            }
        }
        22 => world.depose(),
        _ => {
            // The same client at two nodes at the same moment.
            world.connect(i, client, false, true);
            let j = rng.below(world.nodes.len() as u64) as usize;
            world.connect(j, client, false, true);
        }
    }
}

fn heal(world: &mut World) {
    world.noise = Noise { delay_ms: 20, shard_ms: 20, ..Noise::default() };
    for i in 0..world.nodes.len() {
        world.nodes[i].stuck = 0;
        if world.nodes[i].dir.is_none() {
            world.start(i);
        }
    }
    world.cut(BTreeSet::new());
    world.run_until(world.now + 40 * SECOND);
    let all: Vec<usize> = (0..world.nodes.len()).collect();
    world.check_rest(&all);
    for client in CLIENTS {
        let i = world.rng.below(world.nodes.len() as u64) as usize;
        world.check_connects(i, client);
    }
}

fn run_many(seeds: impl Iterator<Item = u64>) -> Seen {
    let mut all = Seen::default();
    for seed in seeds {
        let seen = std::panic::catch_unwind(|| run(seed)).unwrap_or_else(|cause| {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(cause)
        });
        all.connects += seen.connects;
        all.granted += seen.granted;
        all.present += seen.present;
        all.raised += seen.raised;
        all.fences += seen.fences;
        all.conflicts += seen.conflicts;
        all.superseded += seen.superseded;
        all.unavailable += seen.unavailable;
        all.lost += seen.lost;
        all.acting += seen.acting;
        all.forks += seen.forks;
        all.checked += seen.checked;
        all.moved += seen.moved;
        all.slowest_ms = all.slowest_ms.max(seen.slowest_ms);
    }
    all
}

#[test]
fn every_client_has_one_connection_and_one_session() {
    let all = run_many((0..60).chain([191, 428, 688, 969]));
    assert!(all.granted > 500 && all.present > 100 && all.fences > 100 && all.conflicts > 10, "{all:?}");
    assert!(all.lost > 20 && all.acting > 10 && all.forks > 10 && all.checked > 100 && all.raised > 5, "{all:?}");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(format!("{:?}", run(7)), format!("{:?}", run(7)));
}

/// `cargo test --release -p newtmq-cluster many_directories -- --ignored --nocapture`
#[test]
#[ignore = "takes minutes"]
fn many_directories() {
    eprintln!("{:?}", run_many(0..20_000));
}
