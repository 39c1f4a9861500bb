//! From a scenario's limits to a configuration of the broker. The defaults are those of the kernel tier.

use core::net::SocketAddr;
use core::time::Duration;

use newtmq::config::{self, Bandwidth, Config, PerTime, SharedStrategy, Sources, Zone};
use newtmq_node::MqttConfig;

use super::nodes;
use crate::scenario::{self, BrokerSpec, Scenario};

/// What Packet Identifiers leave for `max_mqueue_len` and `max_inflight` together.
const WAITING_MAX: u16 = 65_534;

/// Where other nodes reach a node.
pub(super) fn peer_address(node: u16) -> SocketAddr {
    SocketAddr::new(nodes::address(node).ip(), config::CLUSTER_PORT)
}

/// The configuration of a node.
pub(super) fn config(scenario: &Scenario, node: u16) -> Config {
    let mut config = alone(&scenario.broker, nodes::address(node));
    if !scenario.is_cluster() {
        return config;
    }
    let of = &scenario.cluster;
    let seeds: Vec<String> = (0..scenario.nodes).map(|node| peer_address(node).to_string()).collect();
    let (discovery, seeds) = match of.discovery {
        scenario::Discovery::None => ("manual", String::new()),
        // Nobody moves.
        scenario::Discovery::Seeds | scenario::Discovery::Dns => {
            ("static", format!("cluster.static.seeds = {:?}\n", seeds.join(",")))
        }
    };
    let text = format!(
        "node.name = \"n{node}@sim\"\nnode.listen = \"{}\"\nnode.cookie = \"one cookie for all\"\n\
         cluster.name = \"sim\"\ncluster.discovery = \"{discovery}\"\n{seeds}",
        peer_address(node)
    );
    let loaded = config::load_text("scenario", &text, &Sources::default()).expect("it is a configuration");
    (config.node, config.cluster) = (loaded.config.node, loaded.config.cluster);
    let autoclean_s = of.autoclean_s.unwrap_or(300);
    config.cluster.autoclean = (autoclean_s > 0).then(|| Duration::from_secs(autoclean_s.into()));
    config.cluster.barrier = match of.barrier {
        scenario::Barrier::Fast => config::Barrier::Fast,
        scenario::Barrier::Strict => config::Barrier::Strict,
    };
    config.cluster.owner_down = if of.fresh { config::OwnerDown::Fresh } else { config::OwnerDown::Wait };
    config.cluster.witness = scenario.node_spec(node).witness;
    config
}

/// The configuration of a node that listens there, without others. Values go past the ranges that a file has: scenarios count in
/// milliseconds. Limits that would be refused become the nearest that are not.
fn alone(spec: &BrokerSpec, address: SocketAddr) -> Config {
    let text = format!("listener.tcp.external = \"{address}\"\n");
    let loaded = config::load_text("scenario", &text, &Sources::default()).expect("one listener is a configuration");
    let mut config = loaded.config;
    config.broker.sys_interval = Duration::from_millis(spec.sys_interval_ms.unwrap_or(0));
    let [listener] = &mut config.listeners[..] else { panic!("there is one listener") };
    set(&mut listener.max_connections, spec.max_connections);
    listener.rate_limit = spec
        .rate_limit_bytes_per_s
        .filter(|bytes| *bytes > 0)
        .map(|bytes| Bandwidth { bytes_per_second: bytes, burst: bytes });
    let name = listener.zone.clone();
    zone(config.zones.get_mut(&name).expect("every listener's zone is there"), spec);
    let mqtt = &mut config.mqtt;
    // What the core has without a configuration, and the checks count with.
    mqtt.max_packet_size = spec.max_packet_size.unwrap_or(MqttConfig::default().max_packet_size);
    set(&mut mqtt.max_topic_alias, spec.max_topic_alias);
    set(&mut mqtt.ignore_loop_deliver, spec.ignore_loop_deliver);
    set(&mut mqtt.max_qos_allowed, spec.max_qos_allowed.map(|qos| qos.min(2)));
    set(&mut config.retained.max_retained_messages, spec.max_retained_messages.map(u64::from));
    set(&mut config.retained.expiry_interval, spec.retained_expiry_interval_ms.map(Duration::from_millis));
    let strategy = spec.shared_subscription_strategy.map(|strategy| match strategy {
        scenario::SharedStrategy::Random => SharedStrategy::Random,
        scenario::SharedStrategy::RoundRobin => SharedStrategy::RoundRobin,
        scenario::SharedStrategy::Sticky => SharedStrategy::Sticky,
        scenario::SharedStrategy::Hash => SharedStrategy::Hash,
    });
    set(&mut config.broker.shared_subscription_strategy, strategy);
    config
}

fn zone(zone: &mut Zone, spec: &BrokerSpec) {
    let seconds = |seconds: u32| Duration::from_secs(u64::from(seconds));
    set(&mut zone.max_inflight, spec.max_inflight.map(|count| count.max(1)));
    set(&mut zone.max_mqueue_len, spec.max_mqueue_len);
    zone.max_inflight = zone.max_inflight.min(WAITING_MAX);
    zone.max_mqueue_len = zone.max_mqueue_len.min(WAITING_MAX - zone.max_inflight);
    set(&mut zone.max_mqueue_bytes, spec.max_mqueue_bytes);
    set(&mut zone.mqueue_store_qos0, spec.mqueue_store_qos0);
    set(&mut zone.max_awaiting_rel, spec.max_awaiting_rel.map(|count| count.max(1)));
    set(&mut zone.await_rel_timeout, spec.await_rel_timeout_ms.map(Duration::from_millis));
    set(&mut zone.retry_interval, spec.retry_interval_ms.map(Duration::from_millis));
    set(&mut zone.session_expiry_interval, spec.session_expiry_interval_s.map(seconds));
    set(&mut zone.max_session_expiry_interval, spec.max_session_expiry_interval_s.map(seconds));
    set(&mut zone.max_subscriptions, spec.max_subscriptions);
    set(&mut zone.upgrade_qos, spec.upgrade_qos);
    zone.server_keepalive = spec.server_keepalive_s.map(|time| Duration::from_secs(u64::from(time)));
    set(&mut zone.idle_timeout, spec.idle_timeout_ms.map(Duration::from_millis));
    set(&mut zone.slow_consumer_timeout, spec.slow_consumer_timeout_ms.map(Duration::from_millis));
    set(&mut zone.max_publisher_hold, spec.max_publisher_hold_ms.map(Duration::from_millis));
    set(&mut zone.will_ha, spec.will_ha);
    zone.publish_limit = spec
        .publish_limit_per_s
        .filter(|count| *count > 0)
        .map(|count| PerTime { count, time: Duration::from_secs(1) });
}

fn set<T>(value: &mut T, spec: Option<T>) {
    if let Some(spec) = spec {
        *value = spec;
    }
}

#[cfg(test)]
mod tests {
    use newtmq_node::{HookSet, ShardConfig};

    use super::*;

    /// The tiers give a shard the same limits, whatever a scenario says.
    #[test]
    fn both_tiers_understand_a_scenario_alike() {
        let few = BrokerSpec {
            durability: None,
            max_inflight: Some(0),
            max_mqueue_len: Some(7),
            max_mqueue_bytes: Some(1_000),
            mqueue_store_qos0: Some(false),
            max_awaiting_rel: Some(3),
            await_rel_timeout_ms: Some(1_500),
            retry_interval_ms: Some(2_500),
            session_expiry_interval_s: Some(9),
            max_session_expiry_interval_s: Some(0),
            max_subscriptions: Some(5),
            upgrade_qos: Some(true),
            server_keepalive_s: Some(11),
            idle_timeout_ms: Some(999),
            slow_consumer_timeout_ms: Some(123),
            max_publisher_hold_ms: Some(456),
            publish_limit_per_s: Some(4),
            rate_limit_bytes_per_s: Some(500),
            max_connections: Some(6),
            max_packet_size: Some(300),
            max_qos_allowed: Some(1),
            max_topic_alias: Some(2),
            ignore_loop_deliver: Some(true),
            max_retained_messages: Some(8),
            retained_expiry_interval_ms: Some(7_777),
            shared_subscription_strategy: Some(scenario::SharedStrategy::Sticky),
            sys_interval_ms: Some(60_000),
            will_ha: Some(true),
        };
        let limits = |inflight, queue| BrokerSpec {
            max_inflight: Some(inflight),
            max_mqueue_len: Some(queue),
            publish_limit_per_s: Some(0),
            rate_limit_bytes_per_s: Some(0),
            max_qos_allowed: Some(9),
            ..BrokerSpec::default()
        };
        for spec in [BrokerSpec::default(), few, limits(u16::MAX, u16::MAX), limits(60_000, 10_000)] {
            let kernel = crate::kernel::settings::shard_config(&spec);
            let config = alone(&spec, "10.0.0.1:1883".parse().unwrap());
            let own = newtmq::settings::shard_config(&config, HookSet::default());
            // The name is only shown, and without rules nobody asks what is remembered of them.
            let own = ShardConfig { node_name: kernel.node_name.clone(), access: kernel.access.clone(), ..own };
            let (own, kernel) = (format!("{own:#?}"), format!("{kernel:#?}"));
            let differ: Vec<_> = own.lines().zip(kernel.lines()).filter(|(own, kernel)| own != kernel).collect();
            assert_eq!(differ, [], "of {spec:?}");
            assert_eq!(own, kernel);
        }
    }
}
