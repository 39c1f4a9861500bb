//! Which features a scenario has, and its network, nodes and limits.

use super::{Family, Profile, Size, Source};
use crate::scenario::{BrokerSpec, DurabilitySpec, NetSpec, Scenario, SharedStrategy};

/// Features of a scenario, each on or off.
#[derive(Debug)]
pub(super) struct Features {
    /// Clients before MQTT 5.0, in percent.
    pub(super) old_percent: u64,
    /// Sessions that outlive a connection, in percent of the clients.
    pub(super) session_percent: u64,
    /// Messages by QoS, as weights.
    pub(super) qos: [u32; 3],
    pub(super) retain_percent: u64,
    pub(super) expiry: bool,
    pub(super) aliases: bool,
    pub(super) keep_alive: bool,
    pub(super) receive_maximum: bool,
    pub(super) packet_size: bool,
    pub(super) ack_delay: bool,
    pub(super) wills_percent: u64,
    pub(super) wills_retain: bool,
    pub(super) reconnect: bool,
    pub(super) options: bool,
    pub(super) shared_percent: u64,
    pub(super) large: bool,
    /// How often who connects does so at another node, in percent.
    pub(super) hop_percent: u64,
}

/// Chooses them, and all of the scenario that is no client and no step.
pub(super) fn draw(profile: Profile, source: &mut Source, scenario: &mut Scenario) -> Features {
    let is = |family| profile.family == family;
    scenario.shards = source.between(1, if profile.family.is_cluster() { 3 } else { 4 }) as u16;
    if profile.family.is_cluster() {
        super::cluster::draw(profile, source, scenario);
    }
    scenario.settle_ms = if profile.size == Size::Full { 120_000 } else { 30_000 };
    if scenario.cluster.pace_percent.is_some() {
        scenario.settle_ms = QUICK_SETTLE_MS;
        scenario.broker.max_publisher_hold_ms = Some(QUICK_HOLD_MS);
    }
    // What is to happen in the corners has its times, so that mostly nothing else is slow.
    scenario.net = if is(Family::Corners) && source.percent(70) { between_shards(source) } else { net(source) };
    let limited = if profile.family.is_cluster() { 10 } else { 25 };
    if is(Family::Limits) || (!is(Family::Corners) && source.percent(limited)) {
        let limits = limits(is(Family::Limits), 3 * worst_delay_us(&scenario.net) / 1_000, source);
        let held = scenario.broker.max_publisher_hold_ms;
        scenario.broker = BrokerSpec { max_publisher_hold_ms: limits.max_publisher_hold_ms.or(held), ..limits };
    }
    if source.coin() {
        let strategies =
            [SharedStrategy::Random, SharedStrategy::RoundRobin, SharedStrategy::Sticky, SharedStrategy::Hash];
        scenario.broker.shared_subscription_strategy = Some(*source.pick(&strategies));
    }
    if is(Family::Durable) || is(Family::Mixed) && source.percent(20) || profile.family.is_cluster() && source.coin() {
        store(source, scenario);
    }
    // Some clusters have them, and keep most of those.
    let wills = if is(Family::ClusterHop) && source.percent(CLUSTERS_WITH_WILLS) { source.log(5, 60) } else { 0 };
    if wills > 0 && source.percent(70) {
        scenario.broker.will_ha = Some(true);
        scenario.settle_ms += KEPT_WILLS_MS;
    }
    let percent = |likely: bool, often: u64, source: &mut Source| {
        if likely {
            source.between(50, 100)
        } else if source.coin() {
            source.log(1, often)
        } else {
            0
        }
    };
    let sessions = matches!(
        profile.family,
        Family::Hoppers | Family::Takeover | Family::Collisions | Family::Limits | Family::Durable | Family::ClusterHop
    );
    Features {
        old_percent: percent(false, 100, source),
        session_percent: percent(sessions, 100, source),
        qos: qos(source),
        retain_percent: percent(is(Family::Retained), 40, source),
        expiry: source.coin(),
        aliases: source.coin(),
        keep_alive: source.coin(),
        receive_maximum: is(Family::Limits) || source.coin(),
        packet_size: source.percent(if is(Family::Limits) { 50 } else { 20 }),
        ack_delay: source.coin(),
        wills_percent: if profile.family.is_cluster() { wills } else { percent(is(Family::Wills), 50, source) },
        wills_retain: !profile.family.is_cluster(),
        reconnect: source.percent(30),
        options: source.coin(),
        shared_percent: percent(is(Family::Shared), 50, source),
        large: source.percent(30),
        hop_percent: if is(Family::ClusterHop) { percent(true, 100, source) } else { 0 },
    }
}

/// QoS 1 and 2 mostly, but each may be left out.
fn qos(source: &mut Source) -> [u32; 3] {
    let mut weight = |often: u64| if source.coin() { source.log(1, often) as u32 } else { 0 };
    let weights = [weight(8), weight(32), weight(32)];
    if weights == [0; 3] { [1, 2, 2] } else { weights }
}

/// Routes have healed by then, and a little more has passed.
const QUICK_SETTLE_MS: u64 = 9_000;
/// As much shorter than usual as all else.
const QUICK_HOLD_MS: u64 = 2_500;

/// Until the wills of a node that is down have come.
const KEPT_WILLS_MS: u64 = 20_000;
/// Of a hundred clusters so many have clients with wills.
const CLUSTERS_WITH_WILLS: u64 = 30;

/// Long enough for every scenario with a store.
pub(super) const LONG_SESSION_S: u32 = 600;

/// A store, and how long its disk takes.
fn store(source: &mut Source, scenario: &mut Scenario) {
    // The store notes the time while sessions wait, so they do not wait for hours.
    scenario.broker.session_expiry_interval_s.get_or_insert(LONG_SESSION_S);
    let modes = [DurabilitySpec::Group, DurabilitySpec::Always, DurabilitySpec::None, DurabilitySpec::Group];
    scenario.broker.durability = Some(*source.pick(&modes));
    if source.coin() {
        scenario.disk.write_us = 0..=source.log(1, 20_000);
        let low = source.log(1, 20_000);
        scenario.disk.sync_us = low..=low + source.log(1, 200_000);
    }
}

fn net(source: &mut Source) -> NetSpec {
    let mut net = NetSpec::default();
    if source.coin() {
        let low = source.log(1, 5_000);
        net.latency_us = low..=low + source.log(1, 500_000);
    }
    if source.percent(30) {
        net.loss_ppm = source.log(100, 300_000) as u32;
        net.retransmit_ms = source.log(10, 100);
    }
    if source.coin() {
        let low = source.log(1, 64);
        net.chunk_bytes = low..=low + source.log(1, 1_400);
    }
    if source.percent(30) {
        net.socket_bytes = source.log(256, 64 << 10);
    }
    if source.coin() {
        net.shard_delay_us = 0..=source.log(1, 50_000);
    }
    if source.percent(30) {
        net.work_delay_us = source.log(1, 20_000);
    }
    if source.percent(BUGGIFY_PERCENT) {
        net.chunk_bytes = 1..=1;
    }
    net
}

/// A good network, while shards may talk slowly.
fn between_shards(source: &mut Source) -> NetSpec {
    let mut net = NetSpec { chunk_bytes: 1_400..=16 << 10, ..NetSpec::default() };
    if source.coin() {
        net.shard_delay_us = 0..=source.log(1, 20_000);
    }
    net
}

/// The longest that a packet is under way when nothing is wrong with the network but its nature, in microseconds.
pub(super) fn worst_delay_us(net: &NetSpec) -> u64 {
    let retransmits_us = if net.loss_ppm > 0 { net.retransmit_ms * 1_000 * RETRANSMITS } else { 0 };
    net.latency_us.end() + retransmits_us + net.work_delay_us + net.shard_delay_us.end()
}

/// A piece is lost six times in a row at most, and each wait is twice as long as the one before.
const RETRANSMITS: u64 = 63;

/// Each limit is set or not; one that is set is now and then at its minimum.
fn limits(all_small: bool, worst_ms: u64, source: &mut Source) -> BrokerSpec {
    let mut set = |low: u64, high: u64| {
        if source.percent(BUGGIFY_PERCENT) {
            return Some(low);
        }
        source.percent(if all_small { 50 } else { 20 }).then(|| source.log(low, high))
    };
    let mut broker = BrokerSpec {
        max_inflight: set(1, 32).map(|value| value as u16),
        max_mqueue_len: set(1, 100).map(|value| value as u16),
        max_mqueue_bytes: set(2_000, 100_000),
        max_awaiting_rel: set(1, 20).map(|value| value as u16),
        await_rel_timeout_ms: set(1, 60).map(|seconds| seconds * 1_000),
        retry_interval_ms: set(1, 30).map(|seconds| seconds * 1_000),
        max_session_expiry_interval_s: set(1, 60).map(|value| value as u32),
        session_expiry_interval_s: set(1, 60).map(|value| value as u32),
        max_subscriptions: set(1, 10).map(|value| value as u32),
        idle_timeout_ms: set(worst_ms.max(1_000), worst_ms.max(15_000)),
        slow_consumer_timeout_ms: set(1_000, 60_000),
        max_publisher_hold_ms: set(100, 10_000),
        publish_limit_per_s: set(20, 1_000).map(|value| value as u32),
        rate_limit_bytes_per_s: set(5_000, 100_000),
        max_packet_size: set(1_024, 65_536).map(|value| value as u32),
        max_topic_alias: set(1, 16).map(|value| value as u16),
        max_retained_messages: set(1, 20).map(|value| value as u32),
        retained_expiry_interval_ms: set(1, 60).map(|seconds| seconds * 1_000),
        ..BrokerSpec::default()
    };
    broker.server_keepalive_s = source.percent(10).then(|| source.log(1, 30) as u16);
    broker.mqueue_store_qos0 = source.percent(30).then(|| source.coin());
    broker.upgrade_qos = source.percent(10).then_some(true);
    broker.ignore_loop_deliver = source.percent(10).then_some(true);
    broker.max_qos_allowed = source.percent(10).then(|| source.below(3) as u8);
    broker
}

/// How often something is made as small or as slow as it goes, whatever else was chosen.
const BUGGIFY_PERCENT: u64 = 5;
