//! From a scenario's limits to what a shard is told. The defaults are the broker's own, but nothing is told about `$SYS`.

use core::time::Duration;

use newtmq_base::NodeId;
use newtmq_cluster::lane::Qos0;
use newtmq_cluster::link::Cookie;
use newtmq_cluster::{directory, lane, link, meta, owned, swim};
use newtmq_mqtt::QoS;
use newtmq_mqtt_sn::MinusOne;
use newtmq_node::{ClusterConfig, Durability, Rate, Release, ShardConfig, ZoneConfig};
use newtmq_topic::PickStrategy;

use crate::scenario::{Barrier, BrokerSpec, ClusterSpec, Discovery, DurabilitySpec, Qos3, Scenario, SharedStrategy};

/// What Packet Identifiers leave for `max_mqueue_len` and `max_inflight` together.
const WAITING_MAX: usize = 65_534;
/// A lease is not shorter at any pace.
const LEASE_LEAST: Duration = Duration::from_millis(1_500);

/// The configuration of each shard. Limits that the broker's configuration would refuse become the nearest that it takes.
pub(crate) fn shard_config(spec: &BrokerSpec) -> ShardConfig {
    let mut config = ShardConfig { sys_interval: Duration::ZERO, ..ShardConfig::default() };
    if let Some(millis) = spec.sys_interval_ms {
        config.sys_interval = Duration::from_millis(millis);
    }
    let listener = &mut config.listeners[0];
    set(&mut listener.max_connections, spec.max_connections);
    listener.rate_limit = spec.rate_limit_bytes_per_s.and_then(per_second);
    zone(&mut config.zones[0], spec);
    let mqtt = &mut config.mqtt;
    set(&mut mqtt.max_packet_size, spec.max_packet_size);
    set(&mut mqtt.max_topic_alias, spec.max_topic_alias);
    set(&mut mqtt.ignore_loop_deliver, spec.ignore_loop_deliver);
    if let Some(qos) = spec.max_qos_allowed {
        mqtt.max_qos_allowed = QoS::from_bits(qos.min(2)).expect("0, 1 or 2");
    }
    set(&mut config.retained.max_retained_messages, spec.max_retained_messages.map(|count| count as usize));
    set(&mut config.retained.expiry_interval, spec.retained_expiry_interval_ms.map(Duration::from_millis));
    if let Some(strategy) = spec.shared_subscription_strategy {
        config.shared_strategy = match strategy {
            SharedStrategy::Random => PickStrategy::Random,
            SharedStrategy::RoundRobin => PickStrategy::RoundRobin,
            SharedStrategy::Sticky => PickStrategy::Sticky,
            SharedStrategy::Hash => PickStrategy::Hash,
        };
    }
    config
}

/// The configuration of a node in its cluster.
pub(crate) fn cluster_config(spec: &ClusterSpec, witness: bool, max_retained: usize, later: u8) -> ClusterConfig {
    let strict = spec.barrier == Barrier::Strict;
    let mut meta = meta::Config::default();
    for span in [&mut meta.detect, &mut meta.found_wait, &mut meta.request_timeout] {
        *span = spec.paced(*span);
    }
    if let Some(seconds) = spec.autoclean_s {
        meta.autoclean = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
    }
    set(&mut meta.detect, spec.detect_ms.map(Duration::from_millis));
    set(&mut meta.voters_max, spec.voters_max.map(usize::from));
    set(&mut meta.snapshot_every, spec.snapshot_every);
    set(&mut meta.keep_entries, spec.keep_entries);
    let mut owned = owned::Config { stored: true, ..owned::Config::default() };
    let damping = &mut owned.damping;
    for span in [&mut damping.first, &mut damping.longest, &mut damping.calm] {
        *span = spec.paced(*span);
    }
    // Leases are renewed often enough as they are.
    owned.lease = owned.lease.min(spec.paced(owned.lease).max(LEASE_LEAST));
    set(&mut owned.ring_ops, spec.ring_ops.map(|count| count as usize));
    set(&mut owned.message_ops, spec.message_ops.map(|count| count as usize));
    set(&mut owned.barrier, spec.barrier_ms.map(Duration::from_millis));
    set(&mut owned.lease, spec.lease_ms.map(Duration::from_millis));
    owned.lease_renew = owned.lease_renew.min(owned.lease / 3);
    let away_home = if spec.fresh { directory::AwayHome::Fresh } else { directory::AwayHome::Wait };
    let mut directory = directory::Config { away_home, ..directory::Config::default() };
    for span in [&mut directory.acting_after, &mut directory.announce_max, &mut directory.claim_max] {
        *span = spec.paced(*span);
    }
    ClusterConfig {
        name: "sim".into(),
        cookie: Cookie::new(*b"one cookie for all").expect("it is long enough"),
        discovers: spec.discovery != Discovery::None,
        witness,
        strict,
        links: links(spec),
        swim: swim(spec),
        meta,
        owned,
        directory,
        max_retained,
        release: release(later),
    }
}

/// What a program speaks that is so many releases later than this one: the last version of links and one more.
fn release(later: u8) -> Release {
    let (this, later) = (Release::default(), u16::from(later));
    let last = this.protocols.end() + later;
    Release {
        protocols: last.saturating_sub(1).max(*this.protocols.start())..=last,
        features: this.features + u32::from(later),
    }
}

/// Of lanes between shards of different nodes.
pub(crate) fn lanes(spec: &ClusterSpec) -> lane::Config {
    let mut lanes = lane::Config::default();
    lanes.ticket_max = spec.paced(lanes.ticket_max);
    set(&mut lanes.window_messages, spec.lane_window_messages);
    set(&mut lanes.window_bytes, spec.lane_window_bytes);
    set(&mut lanes.waiting_messages, spec.lane_waiting_messages.map(|count| count as usize));
    set(&mut lanes.unstored_messages, spec.lane_unstored_messages.map(|count| count as usize));
    set(&mut lanes.qos0, spec.lane_pauses_qos0.map(|on| if on { Qos0::Pause } else { Qos0::Drop }));
    set(&mut lanes.ticket_max, spec.ticket_max_ms.map(Duration::from_millis));
    lanes
}

/// Of links.
pub(crate) fn links(spec: &ClusterSpec) -> link::Config {
    let mut links = link::Config::default();
    let spans = [
        &mut links.detect,
        &mut links.relay_after,
        &mut links.damp_step,
        &mut links.damp_max,
        &mut links.damp_window,
        &mut links.handshake_timeout,
        &mut links.dial_timeout,
        &mut links.dial_backoff_max,
        &mut links.refused_backoff,
        &mut links.relay_resend_after,
    ];
    for span in spans {
        *span = spec.paced(*span);
    }
    links.dial_backoff_min = links.dial_backoff_min.min(links.dial_backoff_max);
    // Whoever speaks is heard in time.
    links.heartbeat = links.heartbeat.min(links.relay_after / 2);
    set(&mut links.heartbeat, spec.heartbeat_ms.map(Duration::from_millis));
    set(&mut links.detect, spec.detect_ms.map(Duration::from_millis));
    set(&mut links.relay_after, spec.relay_after_ms.map(Duration::from_millis));
    links
}

/// Of who answers.
fn swim(spec: &ClusterSpec) -> swim::Config {
    let mut swim = swim::Config::default();
    let spans = [&mut swim.suspect_to_down_after, &mut swim.announce_period, &mut swim.reannounce_period];
    for span in spans {
        *span = spec.paced(*span);
    }
    swim
}

fn zone(zone: &mut ZoneConfig, spec: &BrokerSpec) {
    set(&mut zone.session.max_inflight, spec.max_inflight.map(|count| usize::from(count.max(1))));
    set(&mut zone.session.max_mqueue_len, spec.max_mqueue_len.map(usize::from));
    zone.session.max_inflight = zone.session.max_inflight.min(WAITING_MAX);
    zone.session.max_mqueue_len = zone.session.max_mqueue_len.min(WAITING_MAX - zone.session.max_inflight);
    let bytes = spec.max_mqueue_bytes.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    set(&mut zone.session.max_mqueue_bytes, bytes);
    set(&mut zone.mqueue_store_qos0, spec.mqueue_store_qos0);
    set(&mut zone.max_awaiting_rel, spec.max_awaiting_rel.map(|count| count.max(1)));
    set(&mut zone.await_rel_timeout, spec.await_rel_timeout_ms.map(Duration::from_millis));
    set(&mut zone.retry_interval, spec.retry_interval_ms.map(Duration::from_millis));
    set(&mut zone.session_expiry_interval, spec.session_expiry_interval_s);
    // 0 is no limit, as in a configuration file.
    let expiry = spec.max_session_expiry_interval_s.map(|seconds| if seconds == 0 { u32::MAX } else { seconds });
    set(&mut zone.max_session_expiry_interval, expiry);
    set(&mut zone.max_subscriptions, spec.max_subscriptions.map(|count| count as usize));
    set(&mut zone.upgrade_qos, spec.upgrade_qos);
    zone.server_keepalive = spec.server_keepalive_s;
    set(&mut zone.idle_timeout, spec.idle_timeout_ms.map(Duration::from_millis));
    set(&mut zone.slow_consumer_timeout, spec.slow_consumer_timeout_ms.map(Duration::from_millis));
    set(&mut zone.max_publisher_hold, spec.max_publisher_hold_ms.map(Duration::from_millis));
    zone.durability = match spec.durability {
        None | Some(DurabilitySpec::Memory) => Durability::Memory,
        Some(DurabilitySpec::None) => Durability::Written,
        Some(DurabilitySpec::Group) => Durability::Synced,
        Some(DurabilitySpec::Always) => Durability::SyncedAtOnce,
    };
    set(&mut zone.will_ha, spec.will_ha);
    zone.publish_limit = spec.publish_limit_per_s.map(u64::from).and_then(per_second);
}

/// What the gateway of a node is told.
pub(crate) fn gateway_config(scenario: &Scenario, node: NodeId) -> newtmq_mqtt_sn::Config {
    let spec = &scenario.sn;
    let mut config = newtmq_mqtt_sn::Config {
        advertise_interval: Duration::ZERO,
        minus_one: match spec.qos3 {
            Qos3::Off => MinusOne::Off,
            Qos3::Connected => MinusOne::Connected,
            Qos3::On => MinusOne::Anybody,
        },
        minus_one_client: format!("newtmq-sn-{:016x}", node.0).into(),
        predefined: (1..).zip(spec.predefined.iter().map(|topic| topic.as_str().into())).collect(),
        ..newtmq_mqtt_sn::Config::default()
    };
    set(&mut config.session_expiry_interval, scenario.broker.session_expiry_interval_s);
    set(&mut config.retry_interval, spec.retry_interval_ms.map(Duration::from_millis));
    set(&mut config.retries, spec.max_retries);
    set(&mut config.max_topic_ids, spec.max_topic_ids);
    set(&mut config.max_buffer_len, spec.max_buffer_len.map(usize::from));
    set(&mut config.register_on_resume, spec.subs_resume);
    config
}

fn set<T>(value: &mut T, spec: Option<T>) {
    if let Some(spec) = spec {
        *value = spec;
    }
}

fn per_second(amount: u64) -> Option<Rate> {
    (amount > 0).then_some(Rate { amount, per: Duration::from_secs(1), burst: amount })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_limits_make_a_valid_configuration() {
        let spec = BrokerSpec {
            max_inflight: Some(u16::MAX),
            max_mqueue_len: Some(u16::MAX),
            max_qos_allowed: Some(9),
            publish_limit_per_s: Some(0),
            max_session_expiry_interval_s: Some(0),
            ..BrokerSpec::default()
        };
        let config = shard_config(&spec);
        config.zones[0].session.assert_valid();
        assert!(config.zones[0].publish_limit.is_none());
        assert_eq!(config.zones[0].max_session_expiry_interval, u32::MAX);
        let defaults = format!("{:?}", ShardConfig::default());
        assert_eq!(format!("{:?}", shard_config(&BrokerSpec::default())), defaults);
    }
}
