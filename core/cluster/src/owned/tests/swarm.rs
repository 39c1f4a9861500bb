//! Many small worlds: nodes that subscribe, flap, restart and leave while messages are lost, copied and overtake each other.

use core::time::Duration;

use newtmq_base::{Rng, ShardId};

use super::super::{Class, Config, DigestKey, Mode};
use super::world::{Key, MS, Noise, Seen, World};

const FILTERS: &[&str] = &["a", "a/+", "#", "b/c/d", "b/c/e", "b/#", "$share/g/a", "$share/h/b/#"];

fn config(rng: &mut Rng) -> Config {
    let mut config = Config { digest_key: DigestKey([7, 9]), strict: rng.below(2) > 0, ..Config::default() };
    if rng.below(4) > 0 {
        config.ring_ops = 1 + rng.below(12) as usize;
        config.message_ops = 1 + rng.below(4) as usize;
        config.message_bytes = 1 + rng.below(60) as usize;
        config.work = 1 + rng.below(4) as usize;
    }
    if rng.below(2) > 0 {
        config.damping.first = Duration::ZERO;
    }
    config
}

fn key(rng: &mut Rng, shards: u16) -> Key {
    let text = FILTERS[rng.below(FILTERS.len() as u64) as usize];
    let class = [Class::Transient, Class::Durable][rng.below(2) as usize];
    (text.to_owned(), class, ShardId(rng.below(u64::from(shards)) as u16))
}

pub(super) fn run(seed: u64) -> Seen {
    let mut rng = Rng::from_number(seed ^ 0x5EED);
    let (nodes, shards) = (2 + rng.below(4) as usize, 1 + rng.below(2) as u16);
    let quiet = rng.below(4) == 0;
    let noise = Noise {
        loss_percent: if quiet { 0 } else { rng.below(30) },
        copy_percent: if quiet { 0 } else { rng.below(40) },
        delay_ms: [0, 1, 20, 400, 2500][rng.below(5) as usize],
        install_ms: [0, 1, 30, 300][rng.below(4) as usize],
    };
    let config = config(&mut rng);
    let mut world = World::new(seed, nodes, shards, config, noise);
    for i in 0..nodes {
        (0..nodes).filter(|to| *to != i).for_each(|to| world.link(i, to));
    }
    let faults = rng.below(4) > 0;
    for _ in 0..60 + rng.below(120) {
        let wait = [0, 1, 30, 300, 1500][rng.below(5) as usize];
        let until = world.now + rng.below(wait * MS + 1);
        world.run_until(until);
        let (i, to) = (rng.below(nodes as u64) as usize, rng.below(nodes as u64) as usize);
        match rng.below(if faults { 18 } else { 8 }) {
            0..4 => {
                let mode = if config.strict && rng.below(2) > 0 { Mode::Strict } else { Mode::Fast };
                world.subscribe(i, &key(&mut rng, shards), mode);
            }
            4..6 => world.unsubscribe(i),
            6 => world.probe(i),
            7 => world.recover(i),
            _ if i == to || world.nodes[i].evicted || world.nodes[to].evicted => {}
            8 => _ = world.cuts.insert((i, to)),
            9 => world.cuts.extend([(i, to), (to, i)]),
            10 => world.cuts.clear(),
            11 => world.unlink(i, to, false),
            12 => world.unlink(i, to, true),
            13..16 => world.link(i, to),
            16 => {
                if world.nodes[i].owned.is_some() {
                    world.crash(i);
                } else {
                    world.start(i);
                }
            }
            _ if nodes > 2 && rng.below(8) == 0 && world.nodes.iter().all(|node| !node.evicted) => world.evict(i),
            _ => {}
        }
        world.probe(to);
    }
    heal(&mut world);
    world.check_rest();
    (0..nodes).for_each(|i| world.note_counts(i));
    assert_eq!(world.seen.repairs, 0, "no digest differs unless something is wrong");
    world.seen
}

fn heal(world: &mut World) {
    world.noise = Noise { delay_ms: 5, install_ms: 1, ..Noise::default() };
    world.cuts.clear();
    let members: Vec<usize> = (0..world.nodes.len()).filter(|i| !world.nodes[*i].evicted).collect();
    for &i in &members {
        if world.nodes[i].owned.is_none() {
            world.start(i);
        }
        (0..20).for_each(|_| world.recover(i));
    }
    for &i in &members {
        members.iter().filter(|to| **to != i).for_each(|to| world.link(i, *to));
    }
    world.run_until(world.now + 8_000 * MS + 15_000 * MS);
}

#[test]
fn copies_are_what_their_owners_have() {
    let all = run_many(0..40);
    assert!(all.complete > 200 && all.incomplete > 100 && all.strict > 50 && all.fresh > 200, "{all:?}");
    assert!(all.snapshots > 200 && all.gaps > 100 && all.kept > 1000, "{all:?}");
}

/// `cargo test --release -p newtmq-cluster many_worlds -- --ignored --nocapture`
#[test]
#[ignore = "takes minutes"]
fn many_worlds() {
    eprintln!("{:?}", run_many(0..20_000));
}

fn run_many(seeds: core::ops::Range<u64>) -> Seen {
    let mut all = Seen::default();
    for seed in seeds {
        let seen = std::panic::catch_unwind(|| run(seed)).unwrap_or_else(|cause| {
            eprintln!("seed {seed}");
            std::panic::resume_unwind(cause)
        });
        all.complete += seen.complete;
        all.incomplete += seen.incomplete;
        all.strict += seen.strict;
        all.fresh += seen.fresh;
        all.snapshots += seen.snapshots;
        all.gaps += seen.gaps;
        all.kept += seen.kept;
    }
    all
}

/// Each planted bug of this module is found by some world.
#[cfg(newtmq_mutants)]
#[test]
fn planted_bugs_are_found() {
    use newtmq_base::Mutant;
    let bugs = [
        Mutant::RoutesOutliveIncarnation,
        Mutant::DeletedNotMasked,
        Mutant::DeltaOverGap,
        Mutant::SnapshotMerges,
        Mutant::LeaseFromReceipt,
        Mutant::OpenBeforeSync,
        Mutant::RefcountOffByOne,
        Mutant::LateDownMasks,
        Mutant::ServedBeforeRecovery,
        Mutant::BarrierForNewRoutesOnly,
        Mutant::InstalledBeforeShards,
        Mutant::LeaseWithoutVersion,
    ];
    Mutant::assert_found(&bugs, |bug| (0..1000).any(|seed| Mutant::fails(bug, || drop(run(seed)))));
    // Too rare for worlds: the answer has to be to a question of the same number.
    assert!(Mutant::fails(Mutant::NumbersStartOver, super::rules::an_answer_to_an_earlier_incarnation_is_none));
}
