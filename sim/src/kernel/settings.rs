//! From a scenario's limits to what a shard is told. The defaults are the broker's own, but nothing is told about `$SYS`.

use core::time::Duration;

use newtmq_mqtt::QoS;
use newtmq_node::{Durability, Rate, ShardConfig, ZoneConfig};
use newtmq_topic::PickStrategy;

use crate::scenario::{BrokerSpec, DurabilitySpec, SharedStrategy};

/// What Packet Identifiers leave for `max_mqueue_len` and `max_inflight` together.
const WAITING_MAX: usize = 65_534;

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
    zone.publish_limit = spec.publish_limit_per_s.map(u64::from).and_then(per_second);
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
