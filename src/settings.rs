//! From the configuration to what a shard is told.

use std::sync::Arc;
use std::time::Duration;

use newtmq_access::{AclCacheLimits, FlappingLimits, Permission, ThrottleLimits};
use newtmq_cluster::lane;
use newtmq_mqtt::QoS;
use newtmq_node::{
    AccessConfig, DenyAction, Durability, HookSet, ListenerConfig, MqttConfig, Rate, RetainedConfig, ShardConfig,
    ZoneConfig,
};
use newtmq_session::SessionLimits;
use newtmq_topic::PickStrategy;

use crate::config::{
    self, Access, AclDenyAction, AclNomatch, Config, DefaultPriority, ForwardQos0, LoginThrottle, SharedStrategy, Zone,
};

/// The shard's part of a configuration. Listeners keep their order, so [`newtmq_base::ListenerId`] is their index.
#[must_use]
pub fn shard_config(config: &Config, hooks: HookSet) -> ShardConfig {
    let zone_index =
        |name: &str| config.zones.keys().position(|zone| zone == name).expect("every listener's zone is there");
    let listeners = config.listeners.iter().map(|listener| ListenerConfig {
        zone: u16::try_from(zone_index(&listener.zone)).expect("a configuration has few zones"),
        max_connections: listener.max_connections,
        rate_limit: listener.rate_limit.map(|limit| Rate {
            amount: limit.bytes_per_second,
            per: Duration::from_secs(1),
            burst: limit.burst,
        }),
    });
    let mqtt = &config.mqtt;
    ShardConfig {
        node_name: config.node.name.as_str().into(),
        sys_interval: config.broker.sys_interval,
        listeners: listeners.collect(),
        zones: config.zones.iter().map(|(name, of)| zone(name, of)).collect(),
        mqtt: MqttConfig {
            max_packet_size: mqtt.max_packet_size,
            max_clientid_len: usize::from(mqtt.max_clientid_len),
            max_topic_levels: usize::from(mqtt.max_topic_levels),
            max_qos_allowed: QoS::from_bits(mqtt.max_qos_allowed).expect("checked when it was read"),
            max_topic_alias: mqtt.max_topic_alias,
            retain_available: mqtt.retain_available,
            wildcard_subscription: mqtt.wildcard_subscription,
            shared_subscription: mqtt.shared_subscription,
            ignore_loop_deliver: mqtt.ignore_loop_deliver,
        },
        retained: RetainedConfig {
            max_retained_messages: usize::try_from(config.retained.max_retained_messages).unwrap_or(usize::MAX),
            max_payload_size: config.retained.max_payload_size as usize,
            expiry_interval: config.retained.expiry_interval,
        },
        shared_strategy: match config.broker.shared_subscription_strategy {
            SharedStrategy::Random => PickStrategy::Random,
            SharedStrategy::RoundRobin => PickStrategy::RoundRobin,
            SharedStrategy::Sticky => PickStrategy::Sticky,
            SharedStrategy::Hash => PickStrategy::Hash,
        },
        lanes: lane::Config {
            qos0: match config.cluster.forward_qos0 {
                ForwardQos0::Drop => lane::Qos0::Drop,
                ForwardQos0::Wait => lane::Qos0::Pause,
            },
            ..lane::Config::default()
        },
        hints_bytes: config.cluster.hints_bytes,
        hooks,
        traces: Arc::default(),
        hook_timeout: config.broker.hook_timeout,
        access: access(&config.access),
    }
}

/// Without the rules, which are in a file.
#[must_use]
pub fn access(access: &Access) -> AccessConfig {
    AccessConfig {
        acl: None,
        nomatch: match access.acl_nomatch {
            AclNomatch::Allow => Permission::Allow,
            AclNomatch::Deny => Permission::Deny,
        },
        deny_action: match access.acl_deny_action {
            AclDenyAction::Ignore => DenyAction::Ignore,
            AclDenyAction::Disconnect => DenyAction::Disconnect,
        },
        cache: access
            .enable_acl_cache
            .then_some(AclCacheLimits { max_size: usize::from(access.acl_cache_max_size), ttl: access.acl_cache_ttl }),
    }
}

/// `auto` has become another one before; here it stores nothing.
#[must_use]
pub fn durability(durability: config::Durability) -> Durability {
    match durability {
        config::Durability::Auto | config::Durability::Memory => Durability::Memory,
        config::Durability::None => Durability::Written,
        config::Durability::Group => Durability::Synced,
        config::Durability::Always => Durability::SyncedAtOnce,
    }
}

/// What `login_throttle.*` says.
#[must_use]
pub fn throttle(throttle: &LoginThrottle) -> ThrottleLimits {
    ThrottleLimits {
        user_failures: throttle.user_failures,
        address_failures: throttle.address_failures,
        window: throttle.window,
        delay_max: throttle.delay_max,
    }
}

fn zone(name: &str, zone: &Zone) -> ZoneConfig {
    ZoneConfig {
        name: name.into(),
        durability: durability(zone.durability),
        will_ha: zone.will_ha,
        idle_timeout: zone.idle_timeout,
        keepalive_backoff_percent: (zone.keepalive_backoff * 100.0).round() as u32,
        server_keepalive: zone.server_keepalive.map(|time| u16::try_from(time.as_secs()).unwrap_or(u16::MAX)),
        session: SessionLimits {
            max_mqueue_len: usize::from(zone.max_mqueue_len),
            max_mqueue_bytes: usize::try_from(zone.max_mqueue_bytes).unwrap_or(usize::MAX),
            max_inflight: usize::from(zone.max_inflight),
        },
        max_awaiting_rel: zone.max_awaiting_rel,
        retry_interval: zone.retry_interval,
        await_rel_timeout: zone.await_rel_timeout,
        session_expiry_interval: u32::try_from(zone.session_expiry_interval.as_secs()).unwrap_or(u32::MAX),
        max_session_expiry_interval: match u32::try_from(zone.max_session_expiry_interval.as_secs()) {
            Ok(0) | Err(_) => u32::MAX,
            Ok(seconds) => seconds,
        },
        mqueue_priorities: zone.mqueue_priorities.clone(),
        mqueue_default_priority: match zone.mqueue_default_priority {
            DefaultPriority::Highest => u8::MAX,
            DefaultPriority::Lowest => 0,
        },
        mqueue_store_qos0: zone.mqueue_store_qos0,
        max_subscriptions: zone.max_subscriptions as usize,
        upgrade_qos: zone.upgrade_qos,
        mountpoint: zone.mountpoint.clone().unwrap_or_default(),
        use_username_as_clientid: zone.use_username_as_clientid,
        publish_limit: zone.publish_limit.map(|limit| Rate {
            amount: u64::from(limit.count),
            per: limit.time,
            burst: u64::from(limit.count),
        }),
        slow_consumer_timeout: zone.slow_consumer_timeout,
        max_publisher_hold: zone.max_publisher_hold,
        bypass_acl: !zone.enable_acl,
        bypass_authentication: !zone.enable_auth,
        bypass_bans: !zone.enable_ban,
        flapping: zone
            .flapping_threshold
            .filter(|_| zone.enable_ban)
            .map(|limit| FlappingLimits { count: limit.count, window: limit.time }),
    }
}
