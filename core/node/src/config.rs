//! What a shard is told at its start. Names are those of the configuration keys.

use core::time::Duration;
use std::sync::Arc;

use newtmq_access::{Acl, AclCacheLimits, Action, FlappingLimits, Permission, Who};
use newtmq_mqtt::QoS;
use newtmq_session::SessionLimits;
use newtmq_topic::PickStrategy;

use crate::hooks::{Hook, HookSet};
use crate::rate::Rate;
use crate::store::Durability;
use crate::trace::Traces;

/// Everything configurable about a shard.
#[derive(Debug, Clone)]
pub struct ShardConfig {
    /// Name of the node for people.
    pub node_name: Box<str>,
    /// `broker.sys_interval`: how often the node tells about itself under `$SYS`; zero for never.
    pub sys_interval: Duration,
    /// Listeners, by [`newtmq_base::ListenerId`].
    pub listeners: Vec<ListenerConfig>,
    /// Zones, referred to by index.
    pub zones: Vec<ZoneConfig>,
    /// `mqtt.*`
    pub mqtt: MqttConfig,
    /// `retained.*`
    pub retained: RetainedConfig,
    /// `broker.shared_subscription_strategy`
    pub shared_strategy: PickStrategy,
    /// Which hooks are listened to; nobody pays for the others.
    pub hooks: HookSet,
    /// What an operator watches. Replaced by [`crate::AdminCommand::SetTraces`].
    pub traces: Arc<Traces>,
    /// A question that is open for this long is answered with no.
    pub hook_timeout: Duration,
    /// Who may do what with a topic.
    pub access: AccessConfig,
    /// Lanes to and from other nodes.
    pub lanes: newtmq_cluster::lane::Config,
    /// Bytes of messages that this shard keeps for the stored sessions of a node that is away, for each node.
    pub hints_bytes: u64,
}

impl Default for ShardConfig {
    fn default() -> Self {
        ShardConfig {
            node_name: "newtmq@127.0.0.1".into(),
            sys_interval: Duration::ZERO,
            listeners: vec![ListenerConfig::default()],
            zones: vec![ZoneConfig::default()],
            mqtt: MqttConfig::default(),
            retained: RetainedConfig::default(),
            shared_strategy: PickStrategy::Random,
            hooks: HookSet::default(),
            traces: Arc::default(),
            hook_timeout: Duration::from_secs(5),
            access: AccessConfig::default(),
            lanes: newtmq_cluster::lane::Config::default(),
            hints_bytes: 256 << 20,
        }
    }
}

impl ShardConfig {
    /// Whether anybody hears what a hook tells, perhaps.
    #[inline]
    pub(crate) fn hears(&self, hook: Hook) -> bool {
        self.hooks.has(hook) || self.traces.hooks().has(hook)
    }
}

/// `acl_file` and what goes with it. Replaced as a whole by [`crate::AdminCommand::SetAccess`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessConfig {
    /// The rules of `acl_file`. They come after the hook `client.check_acl`.
    pub acl: Option<Arc<Acl>>,
    /// `acl_nomatch`: what holds where no rule fits.
    pub nomatch: Permission,
    /// `acl_deny_action`
    pub deny_action: DenyAction,
    /// `enable_acl_cache`, `acl_cache_max_size`, `acl_cache_ttl`; none for no cache.
    pub cache: Option<AclCacheLimits>,
}

/// What a client gets that tries what it may not, besides the reason code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenyAction {
    /// Nothing else.
    Ignore,
    /// The end of its connection.
    Disconnect,
}

impl Default for AccessConfig {
    /// Everybody may do everything, and nothing is looked at.
    fn default() -> Self {
        AccessConfig { acl: None, nomatch: Permission::Allow, deny_action: DenyAction::Ignore, cache: None }
    }
}

impl AccessConfig {
    /// Whether anything could be denied.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.acl.is_some() || self.nomatch == Permission::Deny
    }

    pub(crate) fn check(&self, who: &Who<'_>, action: Action, topic: &str) -> Permission {
        self.acl.as_deref().and_then(|acl| acl.check(who, action, topic)).unwrap_or(self.nomatch)
    }
}

/// `listener.*`
#[derive(Debug, Clone)]
pub struct ListenerConfig {
    /// Index of its zone.
    pub zone: u16,
    /// Connections above it are closed at once.
    pub max_connections: u32,
    /// Bytes that a connection may send.
    pub rate_limit: Option<Rate>,
}

impl Default for ListenerConfig {
    fn default() -> Self {
        ListenerConfig { zone: 0, max_connections: 1_024_000, rate_limit: None }
    }
}

/// `mqtt.*`
#[derive(Debug, Clone)]
pub struct MqttConfig {
    /// Largest packet accepted, in bytes (Maximum Packet Size).
    pub max_packet_size: u32,
    /// Longest Client Identifier, in bytes.
    pub max_clientid_len: usize,
    /// Most levels of a topic; 0 for no limit.
    pub max_topic_levels: usize,
    /// Maximum QoS.
    pub max_qos_allowed: QoS,
    /// Topic Alias Maximum that clients may use.
    pub max_topic_alias: u16,
    /// Retain Available.
    pub retain_available: bool,
    /// Wildcard Subscription Available.
    pub wildcard_subscription: bool,
    /// Shared Subscription Available.
    pub shared_subscription: bool,
    /// Never deliver a client's own messages to it, also before MQTT 5.
    pub ignore_loop_deliver: bool,
}

impl Default for MqttConfig {
    fn default() -> Self {
        MqttConfig {
            max_packet_size: 1 << 20,
            max_clientid_len: 65_535,
            max_topic_levels: 128,
            max_qos_allowed: QoS::ExactlyOnce,
            max_topic_alias: 32,
            retain_available: true,
            wildcard_subscription: true,
            shared_subscription: true,
            ignore_loop_deliver: false,
        }
    }
}

/// `zone.NAME.*`
#[derive(Debug, Clone)]
pub struct ZoneConfig {
    /// Time from the opened connection to a complete CONNECT.
    pub idle_timeout: Duration,
    /// A client is given up after Keep Alive × this × 2, in percent (75 is the 1.5 of [MQTT-3.1.2-22]).
    pub keepalive_backoff_percent: u32,
    /// Server Keep Alive, in seconds, that replaces the client's.
    pub server_keepalive: Option<u16>,
    /// `max_mqueue_len`, `max_mqueue_bytes` and `max_inflight`.
    pub session: SessionLimits,
    /// QoS 2 identifiers a client may have in use; with the withheld acknowledgements, its Receive Maximum.
    pub max_awaiting_rel: u16,
    /// Clients before MQTT 5 get what they have not acknowledged again after this time, or half of it later; zero for
    /// never.
    pub retry_interval: Duration,
    /// A QoS 2 identifier is free again if its PUBREL does not come for this time, or half of it longer; zero for never.
    pub await_rel_timeout: Duration,
    /// Session Expiry Interval of clients before MQTT 5 that ask for a session, in seconds.
    pub session_expiry_interval: u32,
    /// Longest Session Expiry Interval that an MQTT 5 client gets, in seconds; `u32::MAX` for no limit.
    pub max_session_expiry_interval: u32,
    /// Topic → priority of the queue, higher first.
    pub mqueue_priorities: Vec<(String, u8)>,
    /// Priority of topics that are not listed.
    pub mqueue_default_priority: u8,
    /// Whether QoS 0 messages wait for an absent client.
    pub mqueue_store_qos0: bool,
    /// Most subscriptions of a session; 0 for no limit.
    pub max_subscriptions: usize,
    /// Deliver with the subscription's QoS even if the publish had a lower one.
    pub upgrade_qos: bool,
    /// What goes in front of the topics of its clients, with `%c` and `%u`; empty for nothing.
    pub mountpoint: String,
    /// A client's User Name is its Client Identifier.
    pub use_username_as_clientid: bool,
    /// PUBLISH packets that a client may send.
    pub publish_limit: Option<Rate>,
    /// A target whose output has not moved for this long holds no publisher any more.
    pub slow_consumer_timeout: Duration,
    /// Longest time that a publisher is held without a break.
    pub max_publisher_hold: Duration,
    /// [`ShardConfig::access`] does not count for clients of this zone.
    pub bypass_acl: bool,
    /// Nobody is asked whether a client of this zone may connect.
    pub bypass_authentication: bool,
    /// Bans do not count for clients of this zone.
    pub bypass_bans: bool,
    /// A client that connects more often is told of by [`crate::Output::Flaps`]; none for never.
    pub flapping: Option<FlappingLimits>,
    /// Name, by which a stored session finds its zone again.
    pub name: Box<str>,
    /// `durability`: whether sessions that outlive their connections outlive the process, too.
    pub durability: Durability,
    /// `will_ha`: the cluster keeps the wills of connected clients, and publishes them if their node dies.
    pub will_ha: bool,
}

impl Default for ZoneConfig {
    fn default() -> Self {
        ZoneConfig {
            idle_timeout: Duration::from_secs(15),
            keepalive_backoff_percent: 75,
            server_keepalive: None,
            session: SessionLimits { max_mqueue_len: 1000, max_mqueue_bytes: 64 << 20, max_inflight: 256 },
            max_awaiting_rel: 100,
            retry_interval: Duration::ZERO,
            await_rel_timeout: Duration::from_secs(300),
            session_expiry_interval: 2 * 3600,
            max_session_expiry_interval: u32::MAX,
            mqueue_priorities: Vec::new(),
            mqueue_default_priority: u8::MAX,
            mqueue_store_qos0: true,
            max_subscriptions: 0,
            upgrade_qos: false,
            mountpoint: String::new(),
            use_username_as_clientid: false,
            publish_limit: None,
            slow_consumer_timeout: Duration::from_secs(1),
            max_publisher_hold: Duration::from_secs(10),
            bypass_acl: false,
            bypass_authentication: false,
            bypass_bans: false,
            flapping: None,
            name: "external".into(),
            durability: Durability::Memory,
            will_ha: false,
        }
    }
}

impl ZoneConfig {
    /// Priority of a topic in the queue.
    #[must_use]
    pub fn priority(&self, topic: &[u8]) -> u8 {
        if self.mqueue_priorities.is_empty() {
            return 0;
        }
        let listed = self.mqueue_priorities.iter().find(|(name, _)| name.as_bytes() == topic);
        listed.map_or(self.mqueue_default_priority, |(_, priority)| *priority)
    }
}

/// `retained.*`
#[derive(Debug, Clone)]
pub struct RetainedConfig {
    /// Most retained messages; 0 for no limit. Above it a new topic is not retained.
    pub max_retained_messages: usize,
    /// Largest payload retained, in bytes; 0 for no limit.
    pub max_payload_size: usize,
    /// Retained messages go after this time; zero for never.
    pub expiry_interval: Duration,
}

impl Default for RetainedConfig {
    fn default() -> Self {
        RetainedConfig { max_retained_messages: 0, max_payload_size: 1 << 20, expiry_interval: Duration::ZERO }
    }
}
