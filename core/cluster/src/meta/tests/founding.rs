//! Seeds that found a cluster together, or do not.

use std::collections::BTreeSet;

use newtmq_base::NodeId;
use proptest::prelude::*;

use super::super::Input;
use super::net::Net;

// Each of the first three nodes is a seed; others only join.
fn tell(net: &mut Net) {
    for index in 0..net.nodes.len() {
        if net.nodes[index].meta.is_none() {
            continue;
        }
        let reached: BTreeSet<NodeId> = (0..3.min(net.nodes.len()))
            .filter(|other| *other != index && net.reaches(index, *other))
            .map(|other| NodeId(other as u64 + 1))
            .collect();
        net.input(index, Input::Seeds { name: "c".to_owned(), total: 3, here: index < 3, reached });
    }
}

fn settle(net: &mut Net, seconds: u64) {
    for _ in 0..seconds {
        tell(net);
        net.seconds(1);
    }
}

#[test]
pub(super) fn three_blank_seeds_found_one_cluster() {
    for seed in 0..20 {
        let mut net = Net::new(4, seed);
        for index in 0..4 {
            net.start(index);
        }
        settle(&mut net, 20);
        assert!(net.is_whole(), "seed {seed}");
        assert_eq!((net.founded.len(), net.members(0).len()), (1, 4));
    }
}

#[test]
pub(super) fn cold_start_in_two_parts_is_one_cluster() {
    let mut net = Net::new(3, 1);
    for index in 0..3 {
        net.start(index);
    }
    net.side = vec![0, 0, 1];
    settle(&mut net, 30);
    assert_eq!(net.members(0), [1, 2]);
    assert_eq!(net.meta(2).cluster(), None);
    net.side = vec![0; 3];
    settle(&mut net, 15);
    assert!(net.is_whole());
    assert_eq!(net.founded.len(), 1);
}

#[test]
pub(super) fn less_than_a_majority_founds_nothing() {
    let mut net = Net::new(3, 2);
    for index in 0..3 {
        net.start(index);
    }
    net.side = vec![0, 1, 2];
    settle(&mut net, 30);
    assert!(net.founded.is_empty());
}

#[test]
pub(super) fn seeds_one_after_the_other() {
    let mut net = Net::new(3, 3);
    for index in [2, 1, 0] {
        net.start(index);
        settle(&mut net, 20);
    }
    assert!(net.is_whole());
    assert_eq!((net.founded.len(), net.members(0).len()), (1, 3));
}

#[test]
pub(super) fn wiped_seed_joins_the_others() {
    let mut net = Net::new(3, 4);
    for index in 0..3 {
        net.start(index);
    }
    settle(&mut net, 20);
    for index in 0..3 {
        net.crash(index);
    }
    // One has lost its disk, and so its id; it is the first one to start. In this network ids are places: another node
    // stands for it that was never seen.
    let mut other = Net::new(4, 5);
    for index in 1..3 {
        other.nodes[index].disk = net.nodes[index].disk.clone();
        other.nodes[index].me = net.nodes[index].me.clone();
    }
    other.start(3);
    let reached = |of: &[u64]| of.iter().map(|node| NodeId(*node)).collect::<BTreeSet<NodeId>>();
    let seeds = |reached| Input::Seeds { name: "c".to_owned(), total: 3, here: true, reached };
    other.input(3, seeds(reached(&[])));
    other.seconds(20);
    assert!(other.founded.is_empty());
    other.start(1);
    other.input(3, seeds(reached(&[2])));
    other.seconds(20);
    assert!(other.founded.is_empty(), "a majority answers, and one of them has a cluster");
    other.start(2);
    other.input(3, seeds(reached(&[2, 3])));
    other.seconds(20);
    assert_eq!(other.meta(3).cluster(), other.meta(1).cluster());
    assert!(other.meta(3).is_member());
}

#[test]
pub(super) fn a_cluster_of_who_is_no_seed_is_joined() {
    let mut net = Net::new(2, 6);
    net.start(0);
    net.init(0);
    net.start(1);
    for _ in 0..10 {
        let seeds = Input::Seeds { name: "c".to_owned(), total: 2, here: true, reached: BTreeSet::new() };
        net.input(1, seeds);
        net.seconds(1);
    }
    assert!(net.is_whole());
    assert_eq!((net.founded.len(), net.members(1)), (1, vec![1, 2]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn never_two_clusters(
        seed in any::<u64>(),
        loss in 0u64..500_000,
        delay in 1u64..1500,
        steps in proptest::collection::vec((0usize..3, 0u32..4), 1..25),
    ) {
        let mut net = Net::new(3, seed);
        (net.loss_ppm, net.delay_ms, net.twice_ppm, net.sync_ms) = (loss, delay, 200_000, 200);
        for index in 0..3 {
            net.start(index);
        }
        for (index, what) in steps {
            match what {
                0 => net.side[index] ^= 1,
                1 => net.crash(index),
                2 if net.nodes[index].meta.is_none() => net.start(index),
                _ => {}
            }
            settle(&mut net, 2);
            prop_assert!(net.founded.len() <= 1);
        }
        net.heal();
        for index in 0..3 {
            if net.nodes[index].meta.is_none() {
                net.start(index);
            }
        }
        settle(&mut net, 40);
        prop_assert!(net.is_whole());
        prop_assert_eq!(net.founded.len(), 1);
    }
}
