//! The keys of a scenario file, each once: name, meaning, kind, default. Reading, writing and the documentation are
//! visitors of this definition; none of them knows a key of its own.

use newtmq_mqtt::ProtocolVersion;

use super::kind::{Bool, Int, Kind, Micros, Node, Opt, Seed, Span, TOPIC, Text, Texts, Words};
use super::{
    Acks, BrokerSpec, ClientSpec, DiskSpec, Driver, DurabilitySpec, Expect, FilterSpec, NODES_MAX, NetSpec, QoS,
    ReconnectSpec, Scenario, SharedStrategy, WillSpec,
};
use crate::report::Check;

/// What can be done with a definition. `value` is what is read into, or what is written.
pub(super) trait Visitor: Sized {
    /// A key that may be left out.
    fn optional<K: Kind>(
        &mut self,
        key: &'static str,
        doc: &'static str,
        kind: K,
        value: &mut K::Value,
        default: &K::Value,
    );

    /// A key that must be there. False if it was read and is not right.
    fn required<K: Kind>(&mut self, key: &'static str, doc: &'static str, kind: K, value: &mut K::Value) -> bool;

    /// A time in microseconds with a key for milliseconds and one for microseconds.
    fn micros<K: Kind<Value: Micros>>(
        &mut self,
        keys: [&'static str; 2],
        doc: &'static str,
        kind: K,
        value: &mut K::Value,
        default: &K::Value,
    );

    /// `filter` or `filters` with their options.
    fn filters(&mut self, filters: &mut Vec<FilterSpec>);

    /// Keys that are of no use unless another one is there.
    fn needs(&mut self, keys: &'static [&'static str], other: &'static str) {
        let _ = (keys, other);
    }

    /// What the other keys are cannot be known.
    fn skip_rest(&mut self) {}

    /// A table.
    fn section<T: Section>(&mut self, key: &'static str, value: &mut T);

    /// An array of tables.
    fn sections<T: Section + Default>(&mut self, key: &'static str, values: &mut Vec<T>);

    /// The nodes and their shards are known.
    fn nodes(&mut self, nodes: u16, shards: u16) {
        let _ = (nodes, shards);
    }

    /// The clients are known; the last `sections` were theirs.
    fn clients(&mut self, clients: &[ClientSpec]) {
        let _ = clients;
    }
}

/// A table with a definition.
pub(super) trait Section {
    /// Shows every key to a visitor.
    fn fields(&mut self, v: &mut impl Visitor);
}

impl Section for Scenario {
    fn fields(&mut self, v: &mut impl Visitor) {
        let default = Scenario::default();
        let mut format = 1;
        v.required("format", "Version of this format.", Int(1_u8..=1), &mut format);
        let why = Text { expected: "a text of at most 1000 bytes", accepts: |text| text.len() <= 1_000 };
        v.optional("why", "One line: what the scenario guards.", why, &mut self.why, &default.why);
        let drivers = Words(&[("kernel", Driver::Kernel), ("madsim", Driver::Madsim)]);
        v.optional(
            "driver",
            "The simulation tier: `kernel` is the core in a queue of events, `madsim` the real driver and listeners. Times \
             differ between them, so a scenario belongs to one.",
            drivers,
            &mut self.driver,
            &default.driver,
        );
        v.optional("seed", "Decides everything that the steps leave open.", Seed, &mut self.seed, &default.seed);
        v.optional("nodes", "How many nodes there are.", Int(1..=NODES_MAX), &mut self.nodes, &default.nodes);
        v.optional("shards", "Shards of each node.", Int(1..=SHARDS_MAX), &mut self.shards, &default.shards);
        v.nodes(self.nodes, self.shards);
        v.optional(
            "settle_ms",
            "Simulated milliseconds between the last step and the final checks.",
            Int(0..=MS_MAX),
            &mut self.settle_ms,
            &default.settle_ms,
        );
        v.section("broker", &mut self.broker);
        v.section("cluster", &mut self.cluster);
        v.section("net", &mut self.net);
        v.section("sn", &mut self.sn);
        v.section("disk", &mut self.disk);
        v.sections("node", &mut self.node_specs);
        v.sections("client", &mut self.clients);
        v.clients(&self.clients);
        v.sections("step", &mut self.steps);
        v.section("expect", &mut self.expect);
    }
}

impl Section for BrokerSpec {
    fn fields(&mut self, v: &mut impl Visitor) {
        let mut key = Broker(v);
        key.zone(self);
        key.rest(self);
    }
}

/// Keys of the configuration: what is left out has the broker's default.
struct Broker<'a, V>(&'a mut V);

impl<V: Visitor> Broker<'_, V> {
    fn key<K: Kind>(&mut self, key: &'static str, doc: &'static str, kind: K, value: &mut Option<K::Value>) {
        self.0.optional(key, doc, Opt(kind), value, &None);
    }

    #[rustfmt::skip]
    fn zone(&mut self, b: &mut BrokerSpec) {
        self.key("max_inflight", "`zone.NAME.max_inflight`", Int(1..=65_535), &mut b.max_inflight);
        self.key("max_mqueue_len", "`zone.NAME.max_mqueue_len`", Int(0..=65_534), &mut b.max_mqueue_len);
        self.key("max_mqueue_bytes", "`zone.NAME.max_mqueue_bytes`", Int(0..=BYTES_MAX), &mut b.max_mqueue_bytes);
        self.key("mqueue_store_qos0", "`zone.NAME.mqueue_store_qos0`", Bool, &mut b.mqueue_store_qos0);
        self.key("max_awaiting_rel", "`zone.NAME.max_awaiting_rel`", Int(0..=65_535), &mut b.max_awaiting_rel);
        self.key("await_rel_timeout_ms", "`zone.NAME.await_rel_timeout`, in milliseconds", Int(0..=MS_MAX), &mut b.await_rel_timeout_ms);
        self.key("retry_interval_ms", "`zone.NAME.retry_interval`, in milliseconds", Int(0..=MS_MAX), &mut b.retry_interval_ms);
        self.key("session_expiry_interval_s", "`zone.NAME.session_expiry_interval`, in seconds: of clients before MQTT 5.0", Int(0..=u32::MAX), &mut b.session_expiry_interval_s);
        self.key("max_session_expiry_interval_s", "`zone.NAME.max_session_expiry_interval`, in seconds", Int(0..=u32::MAX), &mut b.max_session_expiry_interval_s);
        self.key("max_subscriptions", "`zone.NAME.max_subscriptions`", Int(0..=u32::MAX), &mut b.max_subscriptions);
        self.key("upgrade_qos", "`zone.NAME.upgrade_qos`", Bool, &mut b.upgrade_qos);
        self.key("server_keepalive_s", "`zone.NAME.server_keepalive`, in seconds", Int(0..=65_535), &mut b.server_keepalive_s);
        self.key("idle_timeout_ms", "`zone.NAME.idle_timeout`, in milliseconds", Int(0..=MS_MAX), &mut b.idle_timeout_ms);
        self.key("slow_consumer_timeout_ms", "`zone.NAME.slow_consumer_timeout`, in milliseconds", Int(0..=MS_MAX), &mut b.slow_consumer_timeout_ms);
        self.key("max_publisher_hold_ms", "`zone.NAME.max_publisher_hold`, in milliseconds", Int(0..=MS_MAX), &mut b.max_publisher_hold_ms);
        self.key("publish_limit_per_s", "`zone.NAME.publish_limit`: messages a second", Int(0..=u32::MAX), &mut b.publish_limit_per_s);
    }

    #[rustfmt::skip]
    fn rest(&mut self, b: &mut BrokerSpec) {
        let strategies = Words(&[
            ("random", SharedStrategy::Random), ("round_robin", SharedStrategy::RoundRobin),
            ("sticky", SharedStrategy::Sticky), ("hash", SharedStrategy::Hash),
        ]);
        self.key("rate_limit_bytes_per_s", "`listener.NAME.rate_limit`: bytes a second", Int(0..=BYTES_MAX), &mut b.rate_limit_bytes_per_s);
        self.key("max_connections", "`listener.NAME.max_connections`", Int(0..=u32::MAX), &mut b.max_connections);
        self.key("max_packet_size", "`mqtt.max_packet_size`, in bytes", Int(0..=268_435_460), &mut b.max_packet_size);
        self.key("max_qos_allowed", "`mqtt.max_qos_allowed`", Int(0..=2), &mut b.max_qos_allowed);
        self.key("max_topic_alias", "`mqtt.max_topic_alias`", Int(0..=65_535), &mut b.max_topic_alias);
        self.key("ignore_loop_deliver", "`mqtt.ignore_loop_deliver`", Bool, &mut b.ignore_loop_deliver);
        self.key("max_retained_messages", "`retained.max_retained_messages`", Int(0..=u32::MAX), &mut b.max_retained_messages);
        self.key("retained_expiry_interval_ms", "`retained.expiry_interval`, in milliseconds", Int(0..=MS_MAX), &mut b.retained_expiry_interval_ms);
        self.key("shared_subscription_strategy", "`broker.shared_subscription_strategy`", strategies, &mut b.shared_subscription_strategy);
        let durability = Words(&[
            ("memory", DurabilitySpec::Memory), ("none", DurabilitySpec::None),
            ("group", DurabilitySpec::Group), ("always", DurabilitySpec::Always),
        ]);
        self.key("durability", "`zone.NAME.durability`; without it nothing is stored", durability, &mut b.durability);
        self.key("will_ha", "`zone.NAME.will_ha`: the cluster keeps the wills of connected clients", Bool, &mut b.will_ha);
        self.key("sys_interval_ms", "`broker.sys_interval`, in milliseconds; 0 for never, which is the default here", Int(0..=MS_MAX), &mut b.sys_interval_ms);
    }
}

impl Section for NetSpec {
    #[rustfmt::skip]
    fn fields(&mut self, v: &mut impl Visitor) {
        let d = NetSpec::default();
        v.micros(["latency_ms", "latency_us"], "How long bytes are under way, one way.", Span(0..=US_MAX), &mut self.latency_us, &d.latency_us);
        v.optional("loss_ppm", "Of a million pieces so many are lost at first and come a retransmission later, as with TCP.", Int(0..=900_000), &mut self.loss_ppm, &d.loss_ppm);
        v.optional("retransmit_ms", "Milliseconds of a retransmission.", Int(0..=MS_MAX), &mut self.retransmit_ms, &d.retransmit_ms);
        v.optional("chunk_bytes", "Sizes in bytes of the pieces that bytes are cut into.", Span(1..=BYTES_MAX), &mut self.chunk_bytes, &d.chunk_bytes);
        v.optional("socket_bytes", "Bytes under way to a client that does not read, before the broker's socket is full.", Int(1..=BYTES_MAX), &mut self.socket_bytes, &d.socket_bytes);
        v.micros(["shard_delay_ms", "shard_delay_us"], "How long it is under way what one shard says to another, or to the control plane.", Span(0..=US_MAX), &mut self.shard_delay_us, &d.shard_delay_us);
        v.micros(["work_delay_ms", "work_delay_us"], "The longest time until a shard goes on with work that it left over.", Int(0..=US_MAX), &mut self.work_delay_us, &d.work_delay_us);
        self.nodes.fields(v);
    }
}

impl Section for DiskSpec {
    #[rustfmt::skip]
    fn fields(&mut self, v: &mut impl Visitor) {
        let d = DiskSpec::default();
        v.micros(["write_ms", "write_us"], "How long it takes until what is to be stored is written.", Span(0..=US_MAX), &mut self.write_us, &d.write_us);
        v.micros(["sync_ms", "sync_us"], "How long a sync takes.", Span(0..=US_MAX), &mut self.sync_us, &d.sync_us);
    }
}

impl Section for ClientSpec {
    #[rustfmt::skip]
    fn fields(&mut self, v: &mut impl Visitor) {
        let d = ClientSpec::default();
        let name = || Text { expected: "a text of 1 to 100 bytes", accepts: |text| (1..=100).contains(&text.len()) };
        v.optional("name", "What steps call the client. Unique. Without it, `id`; one of them must be there.", name(), &mut self.name, &d.name);
        let id = Text { expected: "a text of at most 65535 bytes without U+0000", accepts: |text| text.len() <= 65_535 && !text.contains('\0') };
        let named = self.name.clone();
        v.optional("id", "Client Identifier; several clients may have the same. Without it, `name`; \"\" has the broker make one.", id, &mut self.id, &named);
        if self.name.is_empty() {
            self.name.clone_from(&self.id);
        }
        v.optional("node", "The node that it connects to.", Node, &mut self.node, &d.node);
        let versions = Words(&[("5", ProtocolVersion::V5), ("3.1.1", ProtocolVersion::V311), ("3.1", ProtocolVersion::V31)]);
        v.optional("version", "Protocol version.", versions, &mut self.version, &d.version);
        v.optional("sn", "It speaks MQTT-SN 1.2 with the gateway of its node instead of MQTT. Of the keys of a client it has `clean`, `keep_alive_s`, `will_*` and `reconnect_*`, and of the steps those that say so, connect, disconnect, vanish, subscribe, unsubscribe, publish, ping, freeze and raw. `session_expiry_interval_s` of the broker is for it. Only with `driver = \"kernel\"`.", Bool, &mut self.sn, &d.sn);
        let forwarder = Text { expected: "a text of 1 to 100 bytes", accepts: |text| (1..=100).contains(&text.len()) };
        v.optional("forwarder", "The forwarder that it is behind (MQTT-SN): all with the same one have its address.", Opt(forwarder), &mut self.forwarder, &d.forwarder);
        v.optional("clean", "Clean Start, or Clean Session before MQTT 5.0.", Bool, &mut self.clean, &d.clean);
        v.optional("session_expiry_s", "Session Expiry Interval in seconds (MQTT 5.0); 4294967295 for never.", Int(0..=u32::MAX), &mut self.session_expiry_s, &d.session_expiry_s);
        v.optional("keep_alive_s", "Keep Alive in seconds; 0 for none. The client sends PINGREQ in time.", Int(0..=65_535), &mut self.keep_alive_s, &d.keep_alive_s);
        v.optional("receive_maximum", "Receive Maximum (MQTT 5.0).", Int(1..=65_535), &mut self.receive_maximum, &d.receive_maximum);
        v.optional("max_packet_size", "Maximum Packet Size in bytes (MQTT 5.0); 0 for no limit.", Int(0..=u32::MAX), &mut self.max_packet_size, &d.max_packet_size);
        v.optional("topic_alias_maximum", "Topic Alias Maximum (MQTT 5.0).", Int(0..=65_535), &mut self.topic_alias_maximum, &d.topic_alias_maximum);
        let user = Text { expected: "a text of at most 65535 bytes without U+0000", accepts: |text| text.len() <= 65_535 && !text.contains('\0') };
        v.optional("username", "User Name.", Opt(user), &mut self.username, &d.username);
        v.optional("acks", "What it does about messages with QoS 1 and 2: `auto` acknowledges each, `never` none until a step changes that.", ACKS, &mut self.acks, &d.acks);
        v.optional("ack_delay_ms", "Milliseconds until it acknowledges.", Span(0..=MS_MAX), &mut self.ack_delay_ms, &d.ack_delay_ms);
        will(&mut self.will, v);
        reconnect(&mut self.reconnect, v);
    }
}

#[rustfmt::skip]
pub(super) fn will(of: &mut Option<WillSpec>, v: &mut impl Visitor) {
    let d = WillSpec { topic: String::new(), qos: QoS::AtMostOnce, retain: false, delay_s: 0, expiry_s: 0 };
    let mut topic = of.as_ref().map(|will| will.topic.clone());
    let mut will = of.take().unwrap_or_else(|| d.clone());
    v.optional("will_topic", "Will Topic. With it the client has a Will Message.", Opt(TOPIC), &mut topic, &None);
    v.optional("will_qos", "Will QoS.", QOS, &mut will.qos, &d.qos);
    v.optional("will_retain", "Will Retain.", Bool, &mut will.retain, &d.retain);
    v.optional("will_delay_s", "Will Delay Interval in seconds (MQTT 5.0).", Int(0..=u32::MAX), &mut will.delay_s, &d.delay_s);
    v.optional("will_expiry_s", "Message Expiry Interval of the will in seconds (MQTT 5.0); 0 for none.", Int(0..=u32::MAX), &mut will.expiry_s, &d.expiry_s);
    if topic.is_none() {
        v.needs(&["will_qos", "will_retain", "will_delay_s", "will_expiry_s"], "will_topic");
    }
    *of = topic.map(|topic| WillSpec { topic, ..will });
}

#[rustfmt::skip]
fn reconnect(of: &mut Option<ReconnectSpec>, v: &mut impl Visitor) {
    let d = ReconnectSpec { first_ms: 0, max_ms: 30_000, growth_percent: 100, jitter_percent: 0 };
    let mut first = of.map(|reconnect| reconnect.first_ms);
    let mut reconnect = of.unwrap_or(d);
    v.optional("reconnect_first_ms", "Milliseconds before it connects again after it lost a connection. With it the client does so by itself.", Opt(Int(0..=MS_MAX)), &mut first, &None);
    v.optional("reconnect_max_ms", "The longest wait in milliseconds.", Int(0..=MS_MAX), &mut reconnect.max_ms, &d.max_ms);
    v.optional("reconnect_growth_percent", "The wait grows by so many percent with each failure in a row; 100 doubles it.", Int(0..=10_000), &mut reconnect.growth_percent, &d.growth_percent);
    v.optional("reconnect_jitter_percent", "Of each wait so many percent are left to chance; 100 waits between nothing and all of it.", Int(0..=100), &mut reconnect.jitter_percent, &d.jitter_percent);
    if first.is_none() {
        v.needs(&["reconnect_max_ms", "reconnect_growth_percent", "reconnect_jitter_percent"], "reconnect_first_ms");
    }
    *of = first.map(|first_ms| ReconnectSpec { first_ms, ..reconnect });
}

impl Section for Expect {
    fn fields(&mut self, v: &mut impl Visitor) {
        let d = Expect::default();
        v.optional(
            "verdict",
            "What must come out: `ok`, or the name of the check that must be violated, for a scenario that shows a known \
             limit.",
            Verdict,
            &mut self.verdict,
            &d.verdict,
        );
        let hash = Text {
            expected: "16 hexadecimal digits in lower case",
            accepts: |text| text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')),
        };
        let doc = "Hash of the history. It may change with the code, so only a few files have one.";
        v.optional("trace_hash", doc, Opt(hash), &mut self.trace_hash, &d.trace_hash);
        let bug = Text {
            expected: "the name of a planted bug",
            accepts: |text| {
                !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
            },
        };
        let doc = "Planted bugs, each of which must give a violation: that the scenario guards what it says. `cargo sim \
                   mutants --scenarios` tries them.";
        v.optional("kills", doc, Texts(bug), &mut self.kills, &d.kills);
    }
}

/// `ok` or the name of a check.
struct Verdict;

impl Kind for Verdict {
    type Value = String;

    fn expected(&self) -> String {
        let names: Vec<&str> = Check::ALL.iter().map(|check| check.name()).collect();
        format!("ok or one of {}", names.join(", "))
    }

    fn read(&self, value: &toml::de::DeValue<'_>, _: &super::kind::Context) -> Option<String> {
        let name = value.as_str()?;
        (name == "ok" || Check::ALL.iter().any(|check| check.name() == name)).then(|| name.to_owned())
    }

    fn write(&self, value: &String, _: &super::kind::Context) -> String {
        super::kind::quoted(value)
    }

    fn suggest(&self, text: &str, _: &super::kind::Context) -> Option<String> {
        let about = |check: &&Check| check.name().eq_ignore_ascii_case(text);
        Check::ALL.iter().find(about).map(|check| check.name().to_owned())
    }
}

/// A QoS.
pub(super) const QOS: Words<QoS> = Words(&[("0", QoS::AtMostOnce), ("1", QoS::AtLeastOnce), ("2", QoS::ExactlyOnce)]);

/// What a client does about messages.
pub(super) const ACKS: Words<Acks> = Words(&[("auto", Acks::Auto), ("never", Acks::Never)]);

/// Shards of a node at most.
pub(super) const SHARDS_MAX: u16 = 16;
/// A week.
pub(super) const MS_MAX: u64 = 604_800_000;
/// An hour.
pub(super) const US_MAX: u64 = 3_600_000_000;
/// 1 TiB: as good as no limit.
pub(super) const BYTES_MAX: u64 = 1 << 40;
