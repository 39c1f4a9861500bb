//! A scenario as a value: nodes, network, clients, steps in time, and what is expected. The file format is in the
//! modules below. Every step is total: one that is not possible when its time comes does nothing, so that any subset of
//! the steps is a scenario, too.

mod cluster;
mod docs;
mod fields;
mod kind;
mod problem;
mod read;
mod sn;
mod steps;
#[cfg(test)]
mod tests;
mod tier;
mod world;
mod write;

use core::ops::RangeInclusive;

use newtmq_mqtt::{ProtocolVersion, QoS, RetainHandling};

pub use self::cluster::{Barrier, ClusterSpec, Discovery, NODES_MAX, NodeNetSpec, NodeSpec};
pub use self::docs::markdown;
pub use self::problem::{Fault, Problem, Problems};
pub use self::sn::{Qos3, SnSpec};
pub use self::world::WorldAction;
use crate::history::ClientIx;

/// One run's plan. [`crate::run()`] carries it out.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// One line: what the scenario guards.
    pub why: String,
    /// Which simulation tier runs it.
    pub driver: Driver,
    /// Decides everything that the steps leave open.
    pub seed: u64,
    /// How many nodes there are.
    pub nodes: u16,
    /// Shards of each node.
    pub shards: u16,
    /// Simulated milliseconds between the last step and the final checks.
    pub settle_ms: u64,
    /// Limits of the broker that differ from its defaults.
    pub broker: BrokerSpec,
    /// What the nodes have in common as a cluster.
    pub cluster: ClusterSpec,
    /// The network and the queues in a node.
    pub net: NetSpec,
    /// MQTT-SN: gateways, and the network of their clients.
    pub sn: SnSpec,
    /// The disk of each node.
    pub disk: DiskSpec,
    /// The nodes, in order; those that are left out at the end are as any.
    pub node_specs: Vec<NodeSpec>,
    /// The clients. None does anything before a step says so.
    pub clients: Vec<ClientSpec>,
    /// What happens. Sorted by time; of two at one time the first one is first.
    pub steps: Vec<Step>,
    /// What must come out.
    pub expect: Expect,
}

impl Default for Scenario {
    fn default() -> Self {
        Scenario {
            why: String::new(),
            driver: Driver::Kernel,
            seed: 1,
            nodes: 1,
            shards: 1,
            settle_ms: 30_000,
            broker: BrokerSpec::default(),
            cluster: ClusterSpec::default(),
            net: NetSpec::default(),
            sn: SnSpec::default(),
            disk: DiskSpec::default(),
            node_specs: Vec::new(),
            clients: Vec::new(),
            steps: Vec::new(),
            expect: Expect::default(),
        }
    }
}

impl Scenario {
    /// Whether nodes may have others beside them.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        self.nodes > 1 || self.cluster != ClusterSpec::default()
    }

    /// Whether any client speaks MQTT-SN.
    #[must_use]
    pub fn has_sn(&self) -> bool {
        self.clients.iter().any(|client| client.sn)
    }

    /// What is special about a node.
    #[must_use]
    pub fn node_spec(&self, node: u16) -> NodeSpec {
        self.node_specs.get(usize::from(node)).copied().unwrap_or_default()
    }
}

/// A simulation tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Driver {
    /// The core in a queue of events.
    Kernel,
    /// The real driver and listeners in madsim.
    Madsim,
}

/// `[broker]`: configuration keys by their own names; what is `None` has the broker's default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BrokerSpec {
    /// `zone.NAME.max_inflight`
    pub max_inflight: Option<u16>,
    /// `zone.NAME.max_mqueue_len`
    pub max_mqueue_len: Option<u16>,
    /// `zone.NAME.max_mqueue_bytes`
    pub max_mqueue_bytes: Option<u64>,
    /// `zone.NAME.mqueue_store_qos0`
    pub mqueue_store_qos0: Option<bool>,
    /// `zone.NAME.max_awaiting_rel`
    pub max_awaiting_rel: Option<u16>,
    /// `zone.NAME.await_rel_timeout`, in milliseconds
    pub await_rel_timeout_ms: Option<u64>,
    /// `zone.NAME.retry_interval`, in milliseconds
    pub retry_interval_ms: Option<u64>,
    /// `zone.NAME.session_expiry_interval`, in seconds: of clients before MQTT 5.0
    pub session_expiry_interval_s: Option<u32>,
    /// `zone.NAME.max_session_expiry_interval`, in seconds
    pub max_session_expiry_interval_s: Option<u32>,
    /// `zone.NAME.max_subscriptions`
    pub max_subscriptions: Option<u32>,
    /// `zone.NAME.upgrade_qos`
    pub upgrade_qos: Option<bool>,
    /// `zone.NAME.server_keepalive`, in seconds
    pub server_keepalive_s: Option<u16>,
    /// `zone.NAME.idle_timeout`, in milliseconds
    pub idle_timeout_ms: Option<u64>,
    /// `zone.NAME.slow_consumer_timeout`, in milliseconds
    pub slow_consumer_timeout_ms: Option<u64>,
    /// `zone.NAME.max_publisher_hold`, in milliseconds
    pub max_publisher_hold_ms: Option<u64>,
    /// `zone.NAME.publish_limit`: messages a second
    pub publish_limit_per_s: Option<u32>,
    /// `listener.NAME.rate_limit`: bytes a second
    pub rate_limit_bytes_per_s: Option<u64>,
    /// `listener.NAME.max_connections`
    pub max_connections: Option<u32>,
    /// `mqtt.max_packet_size`, in bytes
    pub max_packet_size: Option<u32>,
    /// `mqtt.max_qos_allowed`: 0, 1 or 2
    pub max_qos_allowed: Option<u8>,
    /// `mqtt.max_topic_alias`
    pub max_topic_alias: Option<u16>,
    /// `mqtt.ignore_loop_deliver`
    pub ignore_loop_deliver: Option<bool>,
    /// `retained.max_retained_messages`
    pub max_retained_messages: Option<u32>,
    /// `retained.expiry_interval`, in milliseconds
    pub retained_expiry_interval_ms: Option<u64>,
    /// `broker.shared_subscription_strategy`: random, round_robin, sticky, hash
    pub shared_subscription_strategy: Option<SharedStrategy>,
    /// `broker.sys_interval`, in milliseconds; 0 for never, the default here
    pub sys_interval_ms: Option<u64>,
    /// `zone.NAME.durability`; without it nothing is stored
    pub durability: Option<DurabilitySpec>,
    /// `zone.NAME.will_ha`
    pub will_ha: Option<bool>,
}

/// `zone.NAME.durability`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DurabilitySpec {
    /// Nothing is stored.
    Memory,
    /// It is told when it is written.
    None,
    /// It is told when it is synced, together with others.
    Group,
    /// The same, and nobody waits for others.
    Always,
}

/// `[disk]`
#[derive(Debug, Clone, PartialEq)]
pub struct DiskSpec {
    /// Microseconds until what is to be stored is written.
    pub write_us: RangeInclusive<u64>,
    /// Microseconds of a sync.
    pub sync_us: RangeInclusive<u64>,
}

impl Default for DiskSpec {
    fn default() -> Self {
        DiskSpec { write_us: 0..=2_000, sync_us: 200..=5_000 }
    }
}

/// `broker.shared_subscription_strategy`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedStrategy {
    /// Any member.
    Random,
    /// One after the other.
    RoundRobin,
    /// The same until it goes.
    Sticky,
    /// By the publisher.
    Hash,
}

/// `[net]`: between clients and nodes, between nodes, and between the shards of a node.
#[derive(Debug, Clone, PartialEq)]
pub struct NetSpec {
    /// Microseconds that bytes are under way, one way.
    pub latency_us: RangeInclusive<u64>,
    /// Of a million pieces so many are lost at first and come a retransmission later, as with TCP.
    pub loss_ppm: u32,
    /// Milliseconds of a retransmission.
    pub retransmit_ms: u64,
    /// Sizes in bytes of the pieces that bytes are cut into.
    pub chunk_bytes: RangeInclusive<u64>,
    /// Bytes that are under way to a client that does not read, before the broker's socket is full.
    pub socket_bytes: u64,
    /// Microseconds that what one shard says to another, or to the control plane, is under way.
    pub shard_delay_us: RangeInclusive<u64>,
    /// Most microseconds until a shard goes on with work that it left over.
    pub work_delay_us: u64,
    /// Between nodes.
    pub nodes: NodeNetSpec,
}

impl Default for NetSpec {
    fn default() -> Self {
        NetSpec {
            latency_us: 100..=1_000,
            loss_ppm: 0,
            retransmit_ms: 200,
            chunk_bytes: 1_400..=1_400,
            socket_bytes: 64 << 10,
            shard_delay_us: 0..=20,
            work_delay_us: 20,
            nodes: NodeNetSpec::default(),
        }
    }
}

/// `[[client]]`: a client as it is when a `connect` step comes; later steps may change it.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientSpec {
    /// What steps call it. Unique.
    pub name: String,
    /// Client Identifier; several clients may have the same. In a file the name if it is left out.
    pub id: String,
    /// The node that it connects to.
    pub node: u16,
    /// Protocol version.
    pub version: ProtocolVersion,
    /// It speaks MQTT-SN instead, over datagrams.
    pub sn: bool,
    /// The forwarder that it is behind (MQTT-SN).
    pub forwarder: Option<String>,
    /// Clean Start, or Clean Session before MQTT 5.0.
    pub clean: bool,
    /// Session Expiry Interval in seconds (MQTT 5.0).
    pub session_expiry_s: u32,
    /// Keep Alive in seconds; 0 for none. The client sends PINGREQ in time.
    pub keep_alive_s: u16,
    /// Receive Maximum (MQTT 5.0).
    pub receive_maximum: u16,
    /// Maximum Packet Size in bytes (MQTT 5.0); 0 for no limit.
    pub max_packet_size: u32,
    /// Topic Alias Maximum (MQTT 5.0).
    pub topic_alias_maximum: u16,
    /// User Name.
    pub username: Option<String>,
    /// What it does about messages with QoS 1 and 2.
    pub acks: Acks,
    /// Milliseconds until it acknowledges.
    pub ack_delay_ms: RangeInclusive<u64>,
    /// Will Message.
    pub will: Option<WillSpec>,
    /// It connects again by itself after it lost a connection.
    pub reconnect: Option<ReconnectSpec>,
}

impl Default for ClientSpec {
    fn default() -> Self {
        ClientSpec {
            name: String::new(),
            id: String::new(),
            node: 0,
            version: ProtocolVersion::V5,
            sn: false,
            forwarder: None,
            clean: true,
            session_expiry_s: 0,
            keep_alive_s: 0,
            receive_maximum: u16::MAX,
            max_packet_size: 0,
            topic_alias_maximum: 0,
            username: None,
            acks: Acks::Auto,
            ack_delay_ms: 0..=0,
            will: None,
            reconnect: None,
        }
    }
}

/// What a client does about messages with QoS 1 and 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acks {
    /// It acknowledges each, after `ack_delay_ms`.
    Auto,
    /// Never, until a step changes that.
    Never,
}

/// `will_*` of a client.
#[derive(Debug, Clone, PartialEq)]
pub struct WillSpec {
    /// Will Topic.
    pub topic: String,
    /// Will QoS.
    pub qos: QoS,
    /// Will Retain.
    pub retain: bool,
    /// Will Delay Interval in seconds (MQTT 5.0).
    pub delay_s: u32,
    /// Message Expiry Interval in seconds (MQTT 5.0); 0 for none.
    pub expiry_s: u32,
}

/// `reconnect_*` of a client: when it tries again. The wait begins with `first_ms` and grows with each failure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReconnectSpec {
    /// Milliseconds before the first attempt.
    pub first_ms: u64,
    /// Longest wait in milliseconds.
    pub max_ms: u64,
    /// The wait grows by so many percent with each failure in a row; 100 doubles it.
    pub growth_percent: u32,
    /// Of each wait so many percent are left to chance: 100 waits between nothing and all of it.
    pub jitter_percent: u32,
}

/// `[[step]]`
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Milliseconds since the start of the world.
    pub at_ms: u64,
    /// `do`
    pub action: Action,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// A client does something.
    Client {
        /// Which.
        client: ClientIx,
        /// What.
        act: Act,
    },
    /// Something is done to the network, a node or a clock.
    World(WorldAction),
}

/// What a client does. What needs a connection waits for its CONNACK while one is being made, and does nothing without
/// one; an open one does not connect again.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    /// Opens a network connection and sends CONNECT.
    Connect {
        /// Clean Start from here on, if it changes.
        clean: Option<bool>,
        /// Session Expiry Interval from here on, if it changes.
        session_expiry_s: Option<u32>,
        /// The node from here on, if it changes. Only in the kernel tier.
        node: Option<u16>,
    },
    /// Sends DISCONNECT and closes.
    Disconnect {
        /// 0x04: with the Will Message (MQTT 5.0).
        with_will: bool,
        /// Another Session Expiry Interval (MQTT 5.0).
        session_expiry_s: Option<u32>,
    },
    /// Closes the network connection without DISCONNECT, after what it sent.
    HangUp,
    /// The connection breaks: what is under way is lost both ways, and both sides learn of it.
    Reset,
    /// The client forgets its connection, as after a power failure; the broker learns nothing. What comes is not answered.
    Vanish,
    /// Sends SUBSCRIBE.
    Subscribe {
        /// The filters with their options.
        filters: Vec<FilterSpec>,
        /// Subscription Identifier (MQTT 5.0); 0 for none.
        subscription_id: u32,
    },
    /// Sends UNSUBSCRIBE.
    Unsubscribe {
        /// The filters.
        filters: Vec<String>,
    },
    /// Sends PUBLISH, once or in a row. A message with QoS 1 or 2 that finds no free place in the broker's Receive
    /// Maximum waits in the client.
    Publish(PublishSpec),
    /// Sends the last PUBLISH that is not acknowledged once more, with DUP and the same Packet Identifier.
    PublishAgain,
    /// Sends a PUBLISH up to `keep` bytes of it, then closes the connection. With QoS 1 and 2 the session still has it.
    PublishTorn {
        /// The message.
        publish: PublishSpec,
        /// Bytes that are sent.
        keep: u32,
    },
    /// Sends PINGREQ.
    Ping,
    /// Begins or stops to acknowledge; what waits is acknowledged when it begins.
    SetAcks(Acks),
    /// Reads nothing, or again.
    SetReading(bool),
    /// The client's machine sleeps, or wakes up.
    Freeze(bool),
    /// Sends an acknowledgement that nothing asks for.
    StrayAck {
        /// PUBACK, PUBREC, PUBREL or PUBCOMP.
        kind: crate::history::AckKind,
        /// Packet Identifier, not 0.
        pid: u16,
    },
    /// Sends these bytes, whatever they are. The broker may do as it likes with the connection.
    Raw(Vec<u8>),
    /// MQTT-SN: the client goes to sleep.
    Sleep {
        /// Its time of sleep, in seconds.
        duration_s: u16,
        /// It wakes by itself before that is over, again and again.
        wakes: bool,
    },
    /// MQTT-SN: a client that sleeps wakes for what waits for it.
    Wake {
        /// At this node from here on, if that changes.
        node: Option<u16>,
    },
    /// MQTT-SN: the client has another address, as behind a NAT that has forgotten it.
    Rebind {
        /// That of this client.
        of: Option<ClientIx>,
    },
    /// MQTT-SN: another will, or none. Without a connection it is that of the next CONNECT.
    SetWill(Option<WillSpec>),
    /// MQTT-SN: PUBLISH with QoS -1, connected or not.
    PublishUnconnected(PublishSpec),
    /// MQTT-SN: SEARCHGW.
    Search,
}

/// A filter of [`Act::Subscribe`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterSpec {
    /// Topic Filter or shared subscription.
    pub filter: String,
    /// Maximum QoS.
    pub qos: QoS,
    /// No Local (MQTT 5.0).
    pub no_local: bool,
    /// Retain As Published (MQTT 5.0).
    pub retain_as_published: bool,
    /// Retain Handling (MQTT 5.0).
    pub retain_handling: RetainHandling,
}

impl FilterSpec {
    /// A filter with this Maximum QoS and nothing else.
    #[must_use]
    pub fn new(filter: impl Into<String>, qos: QoS) -> FilterSpec {
        FilterSpec {
            filter: filter.into(),
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::SendAtSubscribe,
        }
    }
}

/// A message of [`Act::Publish`], or a row of them.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishSpec {
    /// Topic Name.
    pub topic: String,
    /// QoS.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// Length of the payload in bytes. 0 is an empty one; others are at least as long as what names the message.
    pub size: u32,
    /// Message Expiry Interval in seconds (MQTT 5.0); 0 for none.
    pub expiry_s: u32,
    /// Topic Alias (MQTT 5.0); 0 for none. The topic is left out if the client has set the alias to it before.
    pub alias: u16,
    /// How many messages.
    pub count: u32,
    /// Microseconds from one to the next.
    pub every_us: u64,
}

impl PublishSpec {
    /// One small message.
    #[must_use]
    pub fn new(topic: impl Into<String>, qos: QoS) -> PublishSpec {
        PublishSpec { topic: topic.into(), qos, retain: false, size: 32, expiry_s: 0, alias: 0, count: 1, every_us: 0 }
    }
}

/// `[expect]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expect {
    /// `ok`, or the name of the check that must be violated, for a scenario that shows a known limit.
    pub verdict: String,
    /// The hash of the history, in hexadecimal; only in a small set of files.
    pub trace_hash: Option<String>,
    /// Planted bugs, each of which the scenario must find: what it guards, shown.
    pub kills: Vec<String>,
}

impl Default for Expect {
    fn default() -> Self {
        Expect { verdict: "ok".into(), trace_hash: None, kills: Vec::new() }
    }
}
