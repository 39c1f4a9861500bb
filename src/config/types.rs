//! The configuration as the rest of the broker sees it: plain typed values, already checked. The defaults are not
//! here but in the table, so that the documentation cannot differ from them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use super::api::Api;
use super::cluster::{
    Barrier, Cluster, ClusterTls, Discovery, Dns, DnsKind, ForwardQos0, Mcast, Node, OwnerDown, Secret,
};
use super::dashboard::{AlarmLimits, Dashboard};
use super::discovery::{Etcd, K8s, Url};
use super::listener::Listener;
use super::sn::Sn;
use super::table;

/// A whole configuration. It exists only if every value and every relation between values holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Who the node is.
    pub node: Node,
    /// What accepts connections, in the order of the configuration; at least one.
    pub listeners: Vec<Listener>,
    /// Limits and features of the protocol, the same for every client.
    pub mqtt: Mqtt,
    /// What clients of a listener get; every listener's zone is here.
    pub zones: BTreeMap<String, Zone>,
    /// Retained messages.
    pub retained: Retained,
    /// Routing.
    pub broker: Broker,
    /// What is logged, and how.
    pub log: Log,
    /// Memory of the process.
    pub memory: Memory,
    /// Who may connect, and what they may do.
    pub access: Access,
    /// What outlives the process.
    pub store: Store,
    /// What nodes have in common.
    pub cluster: Cluster,
    /// The gateway for MQTT-SN, which is there if a listener is.
    pub sn: Sn,
    /// The HTTP API.
    pub api: Api,
    /// The dashboard.
    pub dashboard: Dashboard,
    /// When an operator is told that something is short.
    pub alarm: AlarmLimits,
}

/// `store.*`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Store {
    /// How long the first one waits for others to be synced together.
    pub group_wait: Duration,
    /// Bytes of a segment of the log.
    pub segment_size: u64,
    /// Bytes below which the log is not made shorter.
    pub log_size_min: u64,
}

/// `allow_anonymous`, `password_file`, `acl_*` and `login_throttle.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Clients may connect without a user name; with any, if there is no password file.
    pub allow_anonymous: bool,
    /// Users and their passwords. Without one nobody's password is looked at.
    pub password_file: Option<PathBuf>,
    /// Further users with their passwords, from a plugin's file of EMQ X.
    pub users: Vec<(String, Secret)>,
    /// Users and Client Identifiers may be added while the broker runs.
    pub user_table: bool,
    /// JSON Web Tokens as passwords.
    pub jwt: Jwt,
    /// A service that decides.
    pub http: AuthHttp,
    /// Rules of who may do what with a topic.
    pub acl_file: Option<PathBuf>,
    /// What holds where no rule fits.
    pub acl_nomatch: AclNomatch,
    /// What a client gets that tries what it may not.
    pub acl_deny_action: AclDenyAction,
    /// Connections remember what the rules and hooks said.
    pub enable_acl_cache: bool,
    /// Answers that a connection remembers.
    pub acl_cache_max_size: u16,
    /// How long an answer is good.
    pub acl_cache_ttl: Duration,
    /// Failed logins.
    pub login_throttle: LoginThrottle,
}

/// `jwt.*`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Jwt {
    /// Of HS256.
    pub secret: Option<Secret>,
    /// Of RS256 or ES256, in PEM.
    pub public_key: Option<PathBuf>,
    /// A set of keys.
    pub jwks_file: Option<PathBuf>,
    /// What a token must say.
    pub verify_claims: Vec<(String, String)>,
}

impl Jwt {
    /// Whether tokens are looked at.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.secret.is_some() || self.public_key.is_some() || self.jwks_file.is_some()
    }
}

/// `auth_http.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthHttp {
    /// At a login.
    pub auth: HttpRequest,
    /// After one: whether no rule counts.
    pub superuser: HttpRequest,
    /// About topics.
    pub acl: HttpRequest,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Certificate authority of the service.
    pub cacertfile: Option<PathBuf>,
}

/// A request of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// Where; the next one is asked if one does not answer. None is no such request.
    pub urls: Vec<Url>,
    /// With GET; otherwise with POST.
    pub is_get: bool,
    /// What it says, with placeholders.
    pub params: Vec<(String, String)>,
}

impl HttpRequest {
    const BLANK: HttpRequest = HttpRequest { urls: Vec::new(), is_get: false, params: Vec::new() };
}

/// `login_throttle.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginThrottle {
    /// Failures of a user name before it has to wait; 0 is never.
    pub user_failures: u32,
    /// Failures from an address before it has to wait; 0 is never.
    pub address_failures: u32,
    /// Failures are forgotten after this.
    pub window: Duration,
    /// The longest wait.
    pub delay_max: Duration,
}

/// So many bytes a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bandwidth {
    /// In the long run.
    pub bytes_per_second: u64,
    /// At once, after a quiet time.
    pub burst: u64,
}

/// So many in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerTime {
    /// How many.
    pub count: u32,
    /// In which time.
    pub time: Duration,
}

/// `mqtt.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mqtt {
    /// Maximum Packet Size, in bytes.
    pub max_packet_size: u32,
    /// Longest Client Identifier, in bytes.
    pub max_clientid_len: u16,
    /// Levels of a topic; 0 is no limit.
    pub max_topic_levels: u16,
    /// Maximum QoS.
    pub max_qos_allowed: u8,
    /// Topic Alias Maximum.
    pub max_topic_alias: u16,
    /// Retain Available.
    pub retain_available: bool,
    /// Wildcard Subscription Available.
    pub wildcard_subscription: bool,
    /// Shared Subscription Available.
    pub shared_subscription: bool,
    /// A client never gets its own publishes, whatever it asks for.
    pub ignore_loop_deliver: bool,
}

/// `zone.NAME.*`
#[derive(Debug, Clone, PartialEq)]
pub struct Zone {
    /// From the connection to its CONNECT.
    pub idle_timeout: Duration,
    /// A client is cut after Keep Alive × this × 2 of silence.
    pub keepalive_backoff: f64,
    /// Server Keep Alive, whole seconds; none leaves the client's value.
    pub server_keepalive: Option<Duration>,
    /// QoS 1 and 2 messages sent and not yet acknowledged.
    pub max_inflight: u16,
    /// QoS 2 messages received and not yet released.
    pub max_awaiting_rel: u16,
    /// After this an MQTT 3.1 or 3.1.1 client gets again what it has not acknowledged; zero is never.
    pub retry_interval: Duration,
    /// After this a QoS 2 packet identifier that is not released is free; zero is never.
    pub await_rel_timeout: Duration,
    /// Session Expiry Interval of MQTT 3.1 and 3.1.1 clients with Clean Session 0.
    pub session_expiry_interval: Duration,
    /// Longest Session Expiry Interval of MQTT 5 clients; zero is no limit.
    pub max_session_expiry_interval: Duration,
    /// Messages that wait for a client.
    pub max_mqueue_len: u16,
    /// Bytes of these; 0 is no limit.
    pub max_mqueue_bytes: u64,
    /// Priorities of topics in that queue; the higher is sent first. Empty: one queue in order.
    pub mqueue_priorities: Vec<(String, u8)>,
    /// Where a topic without a priority goes.
    pub mqueue_default_priority: DefaultPriority,
    /// QoS 0 messages are queued for a client that is away.
    pub mqueue_store_qos0: bool,
    /// Subscriptions of a client; 0 is no limit.
    pub max_subscriptions: u32,
    /// A message goes out with the subscription's QoS even where it was published with less.
    pub upgrade_qos: bool,
    /// What goes in front of the topics of a client, with placeholders.
    pub mountpoint: Option<String>,
    /// A client goes by its User Name.
    pub use_username_as_clientid: bool,
    /// Messages that a client may publish.
    pub publish_limit: Option<PerTime>,
    /// How long a full socket that takes nothing still holds publishers.
    pub slow_consumer_timeout: Duration,
    /// How long a publisher is held at most.
    pub max_publisher_hold: Duration,
    /// The rules of who may do what count for its clients.
    pub enable_acl: bool,
    /// Clients have to say who they are, as `allow_anonymous` and `password_file` want it.
    pub enable_auth: bool,
    /// Bans count for its clients.
    pub enable_ban: bool,
    /// A client that connects more often is banned; none is never.
    pub flapping_threshold: Option<PerTime>,
    /// For so long.
    pub flapping_banned_expiry_interval: Duration,
    /// When somebody is told that something stays.
    pub durability: Durability,
    /// The cluster keeps the wills of connected clients.
    pub will_ha: bool,
}

/// `retained.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retained {
    /// Topics with a retained message; 0 is no limit.
    pub max_retained_messages: u64,
    /// Largest payload that is retained, in bytes.
    pub max_payload_size: u32,
    /// After this a retained message is deleted; zero is never.
    pub expiry_interval: Duration,
}

/// `broker.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// How often the node tells about itself under `$SYS`; zero is never.
    pub sys_interval: Duration,
    /// Which member of a share group gets a message.
    pub shared_subscription_strategy: SharedStrategy,
    /// A question to a hook is answered with no after this.
    pub hook_timeout: Duration,
}

/// `memory.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memory {
    /// Above it messages are shed and publishers are held; none is never.
    pub high_watermark: Option<Watermark>,
}

/// An amount of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watermark {
    /// Of what the machine or its container has.
    Percent(u8),
    /// Bytes.
    Bytes(u64),
}

/// `log.*`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The least severe level that is written.
    pub level: LogLevel,
    /// The shape of a line.
    pub format: LogFormat,
}

words! {
    /// Where a topic without a priority of its own goes in a client's queue.
    DefaultPriority {
        /// Before every topic that has one.
        Highest = "highest",
        /// After every topic that has one.
        Lowest = "lowest",
    }
}

words! {
    /// Which member of a share group gets a message.
    SharedStrategy {
        /// Any, with equal chance.
        Random = "random",
        /// One after the other.
        RoundRobin = "round_robin",
        /// The same one until it leaves.
        Sticky = "sticky",
        /// By the publisher's Client Identifier.
        Hash = "hash",
    }
}

words! {
    /// When somebody is told that something outlives the process.
    Durability {
        /// `group` with a data directory, `memory` without.
        Auto = "auto",
        /// It does not.
        Memory = "memory",
        /// When it is written.
        None = "none",
        /// When it is synced together with others.
        Group = "group",
        /// When it is synced, without waiting for others.
        Always = "always",
    }
}

words! {
    /// What a client may do where no rule fits.
    AclNomatch {
        /// It may.
        Allow = "allow",
        /// It may not.
        Deny = "deny",
    }
}

words! {
    /// What a client gets that tries what it may not, besides the reason code.
    AclDenyAction {
        /// Nothing else.
        Ignore = "ignore",
        /// The end of its connection.
        Disconnect = "disconnect",
    }
}

words! {
    /// Log levels, the most detailed first.
    LogLevel {
        /// Every packet.
        Trace = "trace",
        /// Every connection.
        Debug = "debug",
        /// Start, stop and what changes.
        Info = "info",
        /// What somebody should look at.
        Warn = "warn",
        /// What failed.
        Error = "error",
    }
}

words! {
    /// The shape of a log line.
    LogFormat {
        /// Pretty on a terminal, JSON otherwise.
        Auto = "auto",
        /// For people.
        Pretty = "pretty",
        /// One JSON object a line.
        Json = "json",
    }
}

impl Default for Config {
    /// The standard listeners without TLS with their zones, and the table's defaults.
    fn default() -> Config {
        Config {
            listeners: Listener::standard(),
            zones: STANDARD_ZONES.iter().map(|name| ((*name).to_owned(), Zone::named(name))).collect(),
            ..table::with_defaults(table::once(), Config::BLANK)
        }
    }
}

impl Zone {
    /// A zone as it is before anything is set.
    #[must_use]
    pub fn named(name: &str) -> Zone {
        let open = name == INTERNAL_NAME;
        let zone = Zone::default();
        let on = !open;
        Zone {
            enable_acl: zone.enable_acl && on,
            enable_auth: zone.enable_auth && on,
            enable_ban: zone.enable_ban && on,
            ..zone
        }
    }
}

impl Default for Zone {
    fn default() -> Zone {
        table::with_defaults(table::ZONE, Zone::BLANK)
    }
}

// The blanks only give the table something to fill; a test checks that it fills every field that matters.
impl Config {
    const BLANK: Config = Config {
        node: Node { name: String::new(), cookie: None, listen: None, advertise: None },
        listeners: Vec::new(),
        mqtt: Mqtt {
            max_packet_size: 0,
            max_clientid_len: 0,
            max_topic_levels: 0,
            max_qos_allowed: 0,
            max_topic_alias: 0,
            retain_available: false,
            wildcard_subscription: false,
            shared_subscription: false,
            ignore_loop_deliver: false,
        },
        zones: BTreeMap::new(),
        retained: Retained { max_retained_messages: 0, max_payload_size: 0, expiry_interval: Duration::ZERO },
        broker: Broker {
            sys_interval: Duration::ZERO,
            shared_subscription_strategy: SharedStrategy::Random,
            hook_timeout: Duration::ZERO,
        },
        memory: Memory { high_watermark: None },
        log: Log { level: LogLevel::Info, format: LogFormat::Auto },
        access: Access {
            allow_anonymous: false,
            password_file: None,
            users: Vec::new(),
            user_table: false,
            http: AuthHttp {
                auth: HttpRequest::BLANK,
                superuser: HttpRequest::BLANK,
                acl: HttpRequest::BLANK,
                timeout: Duration::ZERO,
                cacertfile: None,
            },
            jwt: Jwt { secret: None, public_key: None, jwks_file: None, verify_claims: Vec::new() },
            acl_file: None,
            acl_nomatch: AclNomatch::Deny,
            acl_deny_action: AclDenyAction::Disconnect,
            enable_acl_cache: false,
            acl_cache_max_size: 0,
            acl_cache_ttl: Duration::ZERO,
            login_throttle: LoginThrottle {
                user_failures: 0,
                address_failures: 0,
                window: Duration::ZERO,
                delay_max: Duration::ZERO,
            },
        },
        api: Api::BLANK,
        dashboard: Dashboard::BLANK,
        alarm: AlarmLimits::BLANK,
        store: Store { group_wait: Duration::ZERO, segment_size: 0, log_size_min: 0 },
        cluster: Cluster {
            name: String::new(),
            discovery: Discovery::Manual,
            expected_size: 0,
            seeds: Vec::new(),
            mcast: Mcast {
                addr: Ipv4Addr::UNSPECIFIED,
                ports: Vec::new(),
                iface: Ipv4Addr::UNSPECIFIED,
                ttl: 0,
                is_looped: false,
            },
            dns: Dns { name: None, app: String::new(), kind: DnsKind::A },
            etcd: Etcd::empty(),
            k8s: K8s::empty(),
            autoclean: None,
            barrier: Barrier::Fast,
            owner_down: OwnerDown::Wait,
            forward_qos0: ForwardQos0::Drop,
            hints_bytes: 0,
            witness: false,
            tls: ClusterTls { certfile: None, keyfile: None, cacertfile: None },
        },
        sn: Sn::BLANK,
    };
}

impl Zone {
    const BLANK: Zone = Zone {
        idle_timeout: Duration::ZERO,
        keepalive_backoff: 0.0,
        server_keepalive: None,
        max_inflight: 0,
        max_awaiting_rel: 0,
        retry_interval: Duration::ZERO,
        await_rel_timeout: Duration::ZERO,
        session_expiry_interval: Duration::ZERO,
        max_session_expiry_interval: Duration::ZERO,
        max_mqueue_len: 0,
        max_mqueue_bytes: 0,
        mqueue_priorities: Vec::new(),
        mqueue_default_priority: DefaultPriority::Highest,
        mqueue_store_qos0: false,
        max_subscriptions: 0,
        upgrade_qos: false,
        mountpoint: None,
        use_username_as_clientid: false,
        publish_limit: None,
        slow_consumer_timeout: Duration::ZERO,
        max_publisher_hold: Duration::ZERO,
        enable_acl: false,
        enable_auth: false,
        enable_ban: false,
        flapping_threshold: None,
        flapping_banned_expiry_interval: Duration::ZERO,
        durability: Durability::Memory,
        will_ha: false,
    };
}

/// The listeners and the zone that exist without a configuration.
pub(super) const DEFAULT_NAME: &str = "external";
/// The listener for programs on the same machine, and its zone, whose clients need no login and no permission.
pub(super) const INTERNAL_NAME: &str = "internal";
/// Zones that listeners may have without a key of theirs being set.
pub(super) const STANDARD_ZONES: [&str; 2] = [DEFAULT_NAME, INTERNAL_NAME];
