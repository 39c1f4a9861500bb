//! What a scenario of several nodes has beside others: how many there are, how they find each other, their limits, and the
//! network between them.

use super::{Family, Profile, Size, Source};
use crate::scenario::{Barrier, ClusterSpec, Discovery, NodeNetSpec, NodeSpec, Scenario};

/// Of small scenarios so many are quick: everything is down, back and given up sooner.
const QUICK_PERCENT: u64 = 98;
/// A peer that is silent counts as down after 2 s instead of 8.
const QUICK_PACE_PERCENT: u32 = 25;
/// How often something is made as small as it goes, whatever else was chosen.
const BUGGIFY_PERCENT: u64 = 5;

/// Chooses nodes, their limits and their network.
pub(super) fn draw(profile: Profile, source: &mut Source, scenario: &mut Scenario) {
    let is = |family| profile.family == family;
    let quick = profile.size == Size::Micro && source.percent(QUICK_PERCENT);
    scenario.nodes = if source.percent(if quick { 10 } else { 40 }) {
        *source.pick(&[5, 5, 5, 4, 7])
    } else {
        *source.pick(&[3, 2, 3])
    };
    let told = if is(Family::ClusterMember) { 30 } else { 3 };
    let discovery = if source.percent(told) {
        Discovery::None
    } else if source.percent(15) {
        Discovery::Dns
    } else {
        Discovery::Seeds
    };
    let removes = is(Family::ClusterMember) || source.coin();
    scenario.cluster = ClusterSpec {
        discovery,
        fresh: is(Family::ClusterHop) && source.percent(10),
        barrier: if source.percent(20) { Barrier::Strict } else { Barrier::Fast },
        autoclean_s: removes.then(|| if quick { source.log(2, 6) } else { source.log(5, 60) } as u32),
        pace_percent: quick.then_some(QUICK_PACE_PERCENT),
        voters_max: source.percent(20).then_some(3),
        ..ClusterSpec::default()
    };
    limits(is(Family::ClusterLoad), source, &mut scenario.cluster);
    scenario.net.nodes = net(is(Family::ClusterLoad), source);
    if source.percent(30) {
        let latest_ms = source.log(10, if quick { 2_000 } else { 8_000 });
        scenario.node_specs = (0..scenario.nodes)
            .map(|_| NodeSpec { start_ms: source.below(latest_ms), ..NodeSpec::default() })
            .collect();
    }
    if scenario.nodes == 3 && source.percent(8) {
        scenario.node_specs.resize(3, NodeSpec::default());
        scenario.node_specs[2].witness = true;
    }
}

/// Each limit is set or not; one that is set is now and then at its minimum.
fn limits(narrow: bool, source: &mut Source, cluster: &mut ClusterSpec) {
    let mut set = |percent: u64, low: u64, high: u64| {
        if source.percent(BUGGIFY_PERCENT) {
            return Some(low as u32);
        }
        source.percent(percent).then(|| source.log(low, high) as u32)
    };
    let lanes = if narrow { 50 } else { 5 };
    cluster.lane_window_messages = set(lanes, 1, 64);
    cluster.lane_window_bytes = set(lanes / 2, 100, 50_000);
    cluster.lane_waiting_messages = set(lanes / 2, 1, 100);
    cluster.lane_unstored_messages = set(lanes / 2, 1, 100);
    cluster.ring_ops = set(15, 1, 100);
    cluster.message_ops = set(15, 1, 20);
    cluster.snapshot_every = set(15, 5, 100).map(u64::from);
    cluster.keep_entries = set(15, 1, 50).map(u64::from);
    cluster.lane_pauses_qos0 = set(15, 1, 2).map(|_| true);
}

fn net(slow: bool, source: &mut Source) -> NodeNetSpec {
    let mut net = NodeNetSpec::default();
    if source.coin() {
        let low = source.log(100, 50_000);
        net.latency_us = low..=low + source.log(100, 50_000);
    }
    net.tail_us = if source.coin() { source.log(1_000, 300_000) } else { 0 };
    if source.percent(30) {
        net.loss_ppm = source.log(1_000, 300_000) as u32;
    }
    if source.percent(30) {
        net.dup_ppm = source.log(1_000, 500_000) as u32;
    }
    if source.percent(30) {
        let low = source.log(1, 1_400);
        net.chunk_bytes = low..=low + source.log(1, 16_000);
    }
    if source.percent(20) {
        net.socket_bytes = source.log(4_096, 256 << 10);
    }
    if slow && source.percent(30) {
        net.bytes_per_s = source.log(64_000, 10_000_000);
    }
    net
}
