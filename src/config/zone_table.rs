//! The keys of a zone.

use super::table::{DAY, DURABILITY, Field, HOUR, Key, fit, key};
use super::types::{DefaultPriority, Durability, Zone};

/// `zone.NAME.`
pub(super) const ZONE: &[Key<Zone>] = &[
    key(
        "idle_timeout",
        Field::Time(10, DAY, |z, v| z.idle_timeout = v),
        "15s",
        "From the connection to its CONNECT; then it is closed.",
    ),
    key(
        "keepalive_backoff",
        Field::Ratio(0.5, 10.0, |z, v| z.keepalive_backoff = v),
        "0.75",
        "A client that is silent for Keep Alive × this × 2 is disconnected. MQTT asks for 0.75.",
    ),
    key(
        "server_keepalive",
        Field::KeepAlive(|z, v| z.server_keepalive = v),
        "none",
        "Replaces the Keep Alive that clients ask for. A bare number is seconds.",
    ),
    key(
        "max_inflight",
        Field::Count(1, 65_533, |z, v| z.max_inflight = fit(v)),
        "256",
        "QoS 1 and 2 messages sent to a client and not yet acknowledged; further ones wait in its queue. EMQ X: 32.",
    ),
    key(
        "max_awaiting_rel",
        Field::Count(1, 65_535, |z, v| z.max_awaiting_rel = fit(v)),
        "100",
        "QoS 2 messages received from a client and not yet released.",
    ),
    key(
        "retry_interval",
        Field::Seconds(0, HOUR / 1000, |z, v| z.retry_interval = v),
        "0s",
        "An MQTT 3.1 or 3.1.1 client gets a QoS 1 or 2 message, or its PUBREL, again if it does not acknowledge it for \
         this time, or for half of it longer; 0s is never. TCP loses nothing, so only a client that loses something \
         itself needs it. MQTT 5 forbids it. EMQ X: 20s.",
    ),
    key(
        "await_rel_timeout",
        Field::Seconds(0, DAY / 1000, |z, v| z.await_rel_timeout = v),
        "300s",
        "The packet identifier of a QoS 2 message is free again if a connected client does not release it for this \
         time, or for half of it longer; 0s is never.",
    ),
    key(
        "session_expiry_interval",
        Field::Seconds(0, 3650 * DAY / 1000, |z, v| z.session_expiry_interval = v),
        "2h",
        "How long the session of an MQTT 3.1 or 3.1.1 client with Clean Session 0, or of a device of MQTT-SN without \
         CleanSession, is kept while it is away. An MQTT 5 client says so itself.",
    ),
    key(
        "max_session_expiry_interval",
        Field::Seconds(0, 3650 * DAY / 1000, |z, v| z.max_session_expiry_interval = v),
        "0s",
        "The longest Session Expiry Interval that an MQTT 5 client gets; CONNACK tells it. 0s is no limit.",
    ),
    key(
        "max_mqueue_len",
        Field::Count(1, 65_533, |z, v| z.max_mqueue_len = fit(v)),
        "1000",
        "Messages that wait for a client; at the limit the oldest is dropped. Together with max_inflight below 65535.",
    ),
    key(
        "max_mqueue_bytes",
        Field::Size(0, 1 << 40, |z, v| z.max_mqueue_bytes = v),
        "64MB",
        "Bytes of these messages; at the limit the oldest is dropped. One message may always wait. 0 is no limit.",
    ),
    key(
        "mqueue_priorities",
        Field::Priorities(|z, v| z.mqueue_priorities = v),
        "none",
        "Priorities of topics in a client's queue, as in `t=10,u=8`; the higher is sent first.",
    ),
    key(
        "mqueue_default_priority",
        Field::Word(DefaultPriority::WORDS, |z, v| z.mqueue_default_priority = DefaultPriority::ALL[v]),
        "highest",
        "Where topics without a priority go if some have one.",
    ),
    key(
        "mqueue_store_qos0",
        Field::Flag(|z, v| z.mqueue_store_qos0 = v),
        "true",
        "QoS 0 messages are queued for a client that is away.",
    ),
    key(
        "max_subscriptions",
        Field::Count(0, 10_000_000, |z, v| z.max_subscriptions = fit(v)),
        "0",
        "Subscriptions of a client; 0 is no limit.",
    ),
    key(
        "upgrade_qos",
        Field::Flag(|z, v| z.upgrade_qos = v),
        "off",
        "A message goes out with the subscription's QoS even where it was published with less.",
    ),
    key(
        "mountpoint",
        Field::Mountpoint(|z, v| z.mountpoint = v),
        "none",
        "Goes in front of every topic and filter that a client writes, and is taken off what it gets. `%c` is the Client \
         Identifier, `%u` the User Name; without one `%u` stays. Access control sees the client's topics, limits count \
         them. A name with `+` or `#` is refused; a `/` in a name begins another level, so `a/b` is \
         within `a`. `$SYS/` topics are mounted like \
         others, so such a client sees none.",
    ),
    key(
        "use_username_as_clientid",
        Field::Flag(|z, v| z.use_username_as_clientid = v),
        "false",
        "A client that has a User Name goes by it instead of its Client Identifier.",
    ),
    key(
        "publish_limit",
        Field::PerTime(|z, v| z.publish_limit = v),
        "none",
        "Messages that a client may publish in a time, as in `100,10s`; so many may also come at once. Above it the \
         client is not read for a while; its Keep Alive is suspended meanwhile.",
    ),
    key(
        "slow_consumer_timeout",
        Field::Time(10, HOUR, |z, v| z.slow_consumer_timeout = v),
        "1s",
        "A connected client whose full socket takes nothing for this long holds no publisher any more; QoS 0 messages \
         to it are dropped.",
    ),
    key(
        "max_publisher_hold",
        Field::Time(10, HOUR, |z, v| z.max_publisher_hold = v),
        "10s",
        "How long a publisher is held for slow clients at most.",
    ),
    key(
        DURABILITY,
        Field::Word(Durability::WORDS, |z, v| z.durability = Durability::ALL[v]),
        "auto",
        "When a client is told that a message, a subscription or its session is there to stay. `memory`: at once, and a \
         restart forgets it. `none`: when it is written, which survives the end of the process and not of the machine. \
         `group`: when it is on the disk, together with what others wait for. `always`: the same without waiting for \
         others. `auto`: `group` with `--data DIR`, `memory` without. See [Durability](durability.md).",
    ),
    key(
        "will_ha",
        Field::Flag(|z, v| z.will_ha = v),
        "off",
        "The cluster keeps the wills of connected clients, and publishes them if their node dies. A client with a will is \
         let in when a majority has stored its will; it is published about 16 s after the end of the node, and the Will Delay \
         Interval later. If there is no majority, or the wills of the cluster have 16 MiB, the client is let in all the same, \
         which is counted. No Local does not count for such a will. Each such connection costs two entries of the log that \
         decides who is a member. Without it a will dies with its node. See [Cluster](cluster.md#wills-of-nodes-that-die).",
    ),
    key(
        "enable_acl",
        Field::Flag(|z, v| z.enable_acl = v),
        "on",
        "The rules of `acl_file` and `acl_nomatch` count for clients of this zone. Off by default in the zone `internal`.",
    ),
    key(
        "enable_auth",
        Field::Flag(|z, v| z.enable_auth = v),
        "on",
        "Clients of this zone log in as `allow_anonymous` and `password_file` want it. Off by default in the zone `internal`.",
    ),
    key(
        "enable_ban",
        Field::Flag(|z, v| z.enable_ban = v),
        "on",
        "Clients of this zone are refused if they are banned. Off by default in the zone `internal`.",
    ),
    key(
        "flapping_threshold",
        Field::PerTime(|z, v| z.flapping_threshold = v),
        "none",
        "A client that connects more often in a time, as in `10,1m`, is banned. Each node counts for itself. EMQ X: \
         `10, 1m`, but off.",
    ),
    key(
        "flapping_banned_expiry_interval",
        Field::Time(1000, 365 * DAY, |z, v| z.flapping_banned_expiry_interval = v),
        "1h",
        "How long a client is banned by `flapping_threshold`.",
    ),
];
