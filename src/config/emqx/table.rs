//! Every key of EMQ X 3 and 4, what becomes of it here, and why. Reading an `emqx.conf` and `docs/migration.md` both come
//! from here, so that neither says anything that the other does not.

use super::convert::{self, Converted};
use crate::config::value;

/// A part of the table, for the page.
pub(super) struct Section {
    pub(super) title: &'static str,
    pub(super) rows: &'static [Row],
}

/// A key.
pub(super) struct Row {
    /// Its path. `$name` stands for a part, `a|b` for one of some, and `*` at the end for all that follows.
    pub(super) key: &'static str,
    pub(super) does: Does,
    /// Values with which there is nothing to tell; `*` is all.
    pub(super) quiet: &'static [&'static str],
    /// What EMQ X takes where the key is not set, if that is taken here, too.
    pub(super) absent: &'static str,
    /// What is different. Empty if nothing is.
    pub(super) why: &'static str,
}

/// What becomes of a key.
#[derive(Clone, Copy)]
pub(super) enum Does {
    /// The key of the same name.
    Same,
    /// This key.
    As(&'static str),
    /// The key of the same name, with another value.
    By(fn(&str) -> Converted),
    /// One of several keys that are judged together, in `together.rs`.
    Together,
    /// This key is the same for every zone here; another value is an error.
    NodeWide(&'static str),
    /// Nothing, and nothing is missed.
    NoEffect,
    /// Nothing, for it is not in this version.
    NotYet,
    /// An error: without it more would be let in than the file says.
    Refused,
}

impl Row {
    const fn quiet(mut self, values: &'static [&'static str]) -> Row {
        self.quiet = values;
        self
    }

    const fn absent(mut self, value: &'static str) -> Row {
        self.absent = value;
        self
    }

    /// Whether there is nothing to tell about it with this value.
    pub(super) fn is_quiet(&self, value: &str) -> bool {
        self.quiet.iter().any(|quiet| *quiet == "*" || *quiet == value)
    }
}

/// Finds the row of a path.
pub(super) fn find(path: &str) -> Option<&'static Row> {
    rows().find(|row| fits(row.key, path))
}

/// Every row.
pub(super) fn rows() -> impl Iterator<Item = &'static Row> {
    SECTIONS.iter().flat_map(|section| section.rows)
}

fn fits(pattern: &str, path: &str) -> bool {
    let (mut patterns, mut parts) = (pattern.split('.'), path.split('.'));
    loop {
        match (patterns.next(), parts.next()) {
            (None, None) => return true,
            (Some("*"), Some(_)) => return true,
            (Some(pattern), Some(part)) => {
                let open = pattern.starts_with('$') && value::name(part).is_some();
                if !open && !pattern.split('|').any(|word| word == part) {
                    return false;
                }
            }
            _ => return false,
        }
    }
}

/// Every path that a row has, with the parts that it leaves open taken from `path`, or as they are written.
pub(super) fn paths(row: &Row, path: &str) -> Vec<String> {
    let parts: Vec<&str> = path.split('.').collect();
    let mut paths = vec![String::new()];
    for (at, pattern) in row.key.split('.').filter(|pattern| *pattern != "*").enumerate() {
        let words: Vec<&str> = if pattern.starts_with('$') {
            vec![parts.get(at).copied().filter(|part| !part.is_empty()).unwrap_or(pattern)]
        } else {
            pattern.split('|').collect()
        };
        let dot = if at == 0 { "" } else { "." };
        paths = paths.iter().flat_map(|before| words.iter().map(move |word| format!("{before}{dot}{word}"))).collect();
    }
    paths
}

const fn row(key: &'static str, does: Does, why: &'static str) -> Row {
    Row { key, does, quiet: &[], absent: "", why }
}

const fn same(key: &'static str) -> Row {
    row(key, Does::Same, "")
}

const fn none(key: &'static str, why: &'static str) -> Row {
    row(key, Does::NoEffect, why)
}

const fn not_yet(key: &'static str, why: &'static str) -> Row {
    row(key, Does::NotYet, why)
}

const ERLANG: &str = "a setting of the Erlang virtual machine";
const LINKS: &str = "nodes have one link to each other, at `node.listen`";
const LOGS: &str = "logs go to standard error; systemd or the container keeps them";
const FLAPPING: &str = "`zone.NAME.flapping_threshold` is what bans clients that come and go too often";
const CONGESTION: &str = "output that waits is no alarm; it is shown with the client";
const ALARMS: &str = "[alarms](alarms.md) have keys of their own, `alarm.*` of this broker";
const ONE_TASK: &str = "connections are accepted by one task, and spread over the shards";
const DEFLATE: &str = "WebSocket messages are not compressed";
const ORIGIN: &str = "a listener takes connections from pages of any origin";
const TLS_ITSELF: &str = "TLS is rustls, which does it in the one safe way";
const PSK: &str = "TLS with pre-shared keys";
const BRIDGES: &str = "bridges to other brokers";

/// The parts, in the order of `emqx.conf`.
pub(super) const SECTIONS: &[Section] = &[
    Section { title: "Cluster", rows: CLUSTER },
    Section { title: "Node", rows: NODE },
    Section { title: "Log", rows: LOG },
    Section { title: "Access", rows: ACCESS },
    Section { title: "Protocol", rows: MQTT },
    Section { title: "Zones", rows: ZONE },
    Section { title: "Listeners", rows: LISTENER },
    Section { title: "Bridges", rows: BRIDGE },
    Section { title: "Modules, plugins and the broker", rows: BROKER },
    Section { title: "Monitors", rows: MONITOR },
    Section { title: "Files in etc/plugins", rows: PLUGIN },
];

const CLUSTER: &[Row] = &[
    same("cluster.name").absent("emqxcl"),
    same("cluster.discovery"),
    none(
        "cluster.autoheal",
        "a cluster heals by itself, without a restart of any node and without cutting clients; that cannot be turned off",
    )
    .quiet(&["on"]),
    row("cluster.autoclean", Does::By(convert::zero_is_off), "only a majority of all members removes a node")
        .absent("off"),
    none("cluster.proto_dist", "it is TCP, over IPv4 or IPv6 as `node.listen` says, with TLS as `cluster.tls` says")
        .quiet(&["inet_tcp"]),
    row("cluster.static.seeds", Does::Same, "a port that is not said is 4370"),
    same("cluster.mcast.addr"),
    same("cluster.mcast.ports"),
    same("cluster.mcast.iface"),
    same("cluster.mcast.ttl"),
    same("cluster.mcast.loop"),
    none("cluster.mcast.sndbuf|recbuf|buffer", "announcements are small"),
    same("cluster.dns.name"),
    same("cluster.dns.app"),
    row("cluster.etcd.server", Does::Same, "etcd is asked by its API version 3; EMQ X needs version 2"),
    same("cluster.etcd.prefix"),
    same("cluster.etcd.node_ttl"),
    same("cluster.etcd.ssl.keyfile|certfile|cacertfile"),
    row(
        "cluster.k8s.apiserver",
        Does::Same,
        "the certificate of an `https` server is checked, and the token is not sent to one with `http`",
    ),
    same("cluster.k8s.service_name"),
    same("cluster.k8s.address_type"),
    same("cluster.k8s.app_name"),
    same("cluster.k8s.suffix"),
    same("cluster.k8s.namespace"),
];

const NODE: &[Row] = &[
    row(
        "node.name",
        Does::Same,
        "it is for people; nodes have an id. If the host is an IP address that is not this machine's alone, other nodes are \
         accepted there at port 4370 (`node.listen`)",
    )
    .quiet(&["*"]),
    row("node.cookie", Does::Same, "it is never sent; without TLS it still only authenticates and does not encrypt").quiet(&["*"]),
    none("node.data_dir", "the data directory is what `--data DIR` says; nothing is stored without it").quiet(&["data"]),
    none("node.dist_listen_min|dist_listen_max", LINKS).quiet(&["*"]),
    none("node.proto_dist|ssl_dist_optfile|dist_net_ticktime|dist_buffer_size", LINKS).quiet(&["*"]),
    none(
        "node.heartbeat|async_threads|process_limit|max_ports|max_ets_tables|fullsweep_after|global_gc_interval|\
         crash_dump|backtrace_depth",
        ERLANG,
    )
    .quiet(&["*"]),
    none("rpc.*", LINKS).quiet(&["*"]),
];

const LOG: &[Row] = &[
    row(
        "log.level",
        Does::By(convert::log_level),
        "warning is warn, notice is info, critical and above are error; error is warn, for what a file asks for and is not \
         done is a warning: `--log error` leaves that out",
    )
    .quiet(&["warning", "notice", "critical", "alert", "emergency"]),
    none("log.to", LOGS).quiet(&["console", "both"]),
    none("log.dir|file|rotation|primary_log_level|logger_sasl_compatible|sasl|error_logger|size", LOGS).quiet(&["*"]),
    none("log.rotation.size|count", LOGS).quiet(&["*"]),
    none("log.$level.file", LOGS),
    none("log.chars_limit|burst_limit", "a line of the log is short, and floods are not logged one by one")
        .quiet(&["*"]),
    none(
        "log.sync_mode_qlen|drop_mode_qlen|flush_qlen|overload_kill|overload_kill_qlen|overload_kill_mem_size|\
         overload_kill_restart_after",
        ERLANG,
    )
    .quiet(&["*"]),
    none("lager.*", LOGS).quiet(&["*"]),
];

const ACCESS: &[Row] = &[
    row(
        "allow_anonymous",
        Does::Same,
        "a user name that is given needs its password if there are users; in EMQ X one that nobody has gets in. `false` \
         needs users",
    )
    .quiet(&["*"])
    .absent("false"),
    same("acl_nomatch").absent("deny"),
    row("acl_file", Does::Same, "in an `allow` rule a wildcard at the beginning does not stand for topics with `$`, nor `+` for a `#`"),
    same("enable_acl_cache"),
    same("acl_cache_max_size"),
    same("acl_cache_ttl"),
    same("acl_deny_action"),
    not_yet("flapping_detect_policy", FLAPPING),
    not_yet("flapping_clean_interval", FLAPPING).quiet(&["*"]),
];

const MQTT: &[Row] = &[
    same("mqtt.max_packet_size").absent("1MB"),
    same("mqtt.max_clientid_len"),
    same("mqtt.max_topic_levels").absent("0"),
    same("mqtt.max_qos_allowed"),
    same("mqtt.max_topic_alias").absent("0"),
    same("mqtt.retain_available"),
    same("mqtt.wildcard_subscription"),
    same("mqtt.shared_subscription"),
    same("mqtt.ignore_loop_deliver").absent("true"),
    none("mqtt.strict_mode", "packets are always checked"),
    not_yet("mqtt.response_information", "clients are told no response topic"),
];

const ZONE: &[Row] = &[
    same("zone.$name.idle_timeout"),
    row(
        "zone.$name.allow_anonymous",
        Does::Together,
        "`true` is `enable_auth = off` of the zone, where nobody else may",
    ),
    row("zone.$name.bypass_auth_plugins", Does::Together, "`true` is `enable_auth = off`").quiet(&["false"]),
    row("zone.$name.enable_acl", Does::Same, "on if it is not set, but in the zone `internal`; in EMQ X off")
        .quiet(&["*"]),
    row("zone.$name.acl_nomatch", Does::NodeWide("acl_nomatch"), "the same for every zone"),
    row("zone.$name.acl_deny_action", Does::NodeWide("acl_deny_action"), "the same for every zone"),
    row("zone.$name.enable_ban", Does::Same, "on if it is not set, but in the zone `internal`; in EMQ X off")
        .quiet(&["*"]),
    none("zone.$name.enable_stats", "figures are always there").quiet(&["*"]),
    none("zone.$name.force_gc_policy|hibernate_after", ERLANG).quiet(&["*"]),
    none(
        "zone.$name.force_shutdown_policy",
        "what a client may take is bounded by `max_mqueue_bytes`, `slow_consumer_timeout` and `memory.high_watermark`",
    )
    .quiet(&["*"]),
    row("zone.$name.max_packet_size", Does::NodeWide("mqtt.max_packet_size"), "the same for every zone"),
    row("zone.$name.max_clientid_len", Does::NodeWide("mqtt.max_clientid_len"), "the same for every zone"),
    row("zone.$name.max_topic_levels", Does::NodeWide("mqtt.max_topic_levels"), "the same for every zone"),
    row("zone.$name.max_qos_allowed", Does::NodeWide("mqtt.max_qos_allowed"), "the same for every zone"),
    row("zone.$name.max_topic_alias", Does::NodeWide("mqtt.max_topic_alias"), "the same for every zone"),
    row("zone.$name.retain_available", Does::NodeWide("mqtt.retain_available"), "the same for every zone"),
    row("zone.$name.wildcard_subscription", Does::NodeWide("mqtt.wildcard_subscription"), "the same for every zone"),
    row("zone.$name.shared_subscription", Does::NodeWide("mqtt.shared_subscription"), "the same for every zone"),
    row("zone.$name.ignore_loop_deliver", Does::NodeWide("mqtt.ignore_loop_deliver"), "the same for every zone"),
    row("zone.$name.server_keepalive", Does::By(convert::zero_is_none), "0 leaves clients theirs"),
    same("zone.$name.keepalive_backoff"),
    same("zone.$name.max_subscriptions"),
    same("zone.$name.upgrade_qos"),
    row(
        "zone.$name.max_inflight",
        Does::Together,
        "0, or not set, is no limit in EMQ X; here as many as `max_mqueue_len` leaves packet identifiers for",
    ),
    row(
        "zone.$name.max_mqueue_len",
        Does::Together,
        "0 is no limit in EMQ X; here 65534 with `max_inflight`, and no more",
    ),
    row("zone.$name.max_awaiting_rel", Does::By(convert::awaiting_rel), "0 is no limit in EMQ X; here it is 65535")
        .absent("0"),
    row("zone.$name.retry_interval", Does::Same, "never for MQTT 5, which forbids it").absent("20s"),
    same("zone.$name.await_rel_timeout"),
    same("zone.$name.session_expiry_interval"),
    same("zone.$name.mqueue_priorities"),
    same("zone.$name.mqueue_default_priority").absent("lowest"),
    same("zone.$name.mqueue_store_qos0"),
    row("zone.$name.enable_flapping_detect", Does::Together, "without it `flapping_threshold` is none").quiet(&["*"]),
    row("zone.$name.flapping_threshold", Does::Together, "connections are counted, at each node").quiet(&["*"]),
    same("zone.$name.flapping_banned_expiry_interval"),
    row("zone.$name.mountpoint", Does::Same, "a name with `+` or `#` is refused"),
    same("zone.$name.use_username_as_clientid"),
    same("zone.$name.publish_limit"),
    row("zone.$name.rate_limit.conn_messages_in", Does::As("zone.$name.publish_limit"), ""),
    not_yet("zone.$name.rate_limit.conn_bytes_in", "a listener has a `rate_limit`, a zone has none"),
    not_yet("zone.$name.quota.*", "what is routed is not limited"),
    not_yet("zone.$name.conn_congestion.*", CONGESTION).quiet(&["*"]),
    none("zone.$name.strict_mode", "packets are always checked").quiet(&["*"]),
    not_yet("zone.$name.response_information", "clients are told no response topic"),
];

const LISTENER: &[Row] = &[
    same("listener.tcp|ssl|ws|wss.$name"),
    none("listener.tcp|ssl|ws|wss.$name.acceptors", ONE_TASK).quiet(&["*"]),
    same("listener.tcp|ssl|ws|wss.$name.max_connections").absent("1024"),
    same("listener.tcp|ssl|ws|wss.$name.max_conn_rate"),
    none("listener.tcp|ssl|ws|wss.$name.active_n", "a connection is read as far as its limits let it").quiet(&["*"]),
    same("listener.tcp|ssl|ws|wss.$name.zone"),
    row(
        "listener.tcp|ssl|ws|wss.$name.rate_limit",
        Does::By(convert::rate_limit),
        "bytes per second and at once, as in 3.1; or bytes in a time, as in 4",
    ),
    same("listener.tcp|ssl|ws|wss.$name.access.$number"),
    same("listener.tcp|ssl|ws|wss.$name.proxy_protocol"),
    same("listener.tcp|ssl|ws|wss.$name.proxy_protocol_timeout"),
    same("listener.tcp|ssl|ws|wss.$name.peer_cert_as_username"),
    row(
        "listener.tcp|ssl|ws|wss.$name.peer_cert_as_clientid",
        Does::Refused,
        "a Client Identifier is not taken from a certificate in this version, so that clients could choose any: \
         `peer_cert_as_username = cn` with `use_username_as_clientid = true` does the same",
    ),
    same("listener.tcp|ssl|ws|wss.$name.backlog"),
    same("listener.tcp|ssl|ws|wss.$name.send_timeout").absent("15s"),
    none("listener.tcp|ssl|ws|wss.$name.send_timeout_close", "a connection that times out is always closed")
        .quiet(&["on"]),
    same("listener.tcp|ssl|ws|wss.$name.recbuf|sndbuf"),
    none("listener.tcp|ssl|ws|wss.$name.buffer|tune_buffer|high_watermark", "a buffer is as large as what is in it")
        .quiet(&["*"]),
    same("listener.tcp|ssl|ws|wss.$name.nodelay|reuseaddr"),
    row(
        "listener.ssl|wss.$name.tls_versions",
        Does::By(convert::tls_versions),
        "TLS 1.1 and older are left out, for they are broken; TLS 1.3 is there if the key is not set",
    ),
    row(
        "listener.ssl|wss.$name.ciphers",
        Does::Together,
        "only suites with forward secrecy and authenticated encryption are left; those of TLS 1.3 come first if none of them \
         is named",
    ),
    row("listener.ssl|wss.$name.psk_ciphers", Does::NotYet, PSK),
    same("listener.ssl|wss.$name.handshake_timeout"),
    same("listener.ssl|wss.$name.keyfile|certfile|cacertfile"),
    same("listener.ssl|wss.$name.verify"),
    same("listener.ssl|wss.$name.fail_if_no_peer_cert"),
    none("listener.ssl|wss.$name.dhfile|secure_renegotiate|reuse_sessions|honor_cipher_order|depth", TLS_ITSELF)
        .quiet(&["*"]),
    not_yet("listener.ssl|wss.$name.key_password", "private keys with a password"),
    same("listener.ws|wss.$name.mqtt_path"),
    none(
        "listener.ws|wss.$name.verify_protocol_header|fail_if_no_subprotocol|supported_subprotocols",
        "a request without the subprotocol `mqtt` or `mqttv3.1` is always refused",
    )
    .quiet(&["on", "true", "mqtt, mqtt-v3, mqtt-v3.1.1, mqtt-v5"]),
    not_yet(
        "listener.ws|wss.$name.proxy_address_header|proxy_port_header",
        "the address is that of the connection, or of the PROXY protocol",
    ),
    none("listener.ws|wss.$name.mqtt_piggyback", "a frame may have one packet, several or a part of one")
        .quiet(&["multiple"]),
    not_yet("listener.ws|wss.$name.compress", DEFLATE).quiet(&["false", "off"]),
    not_yet("listener.ws|wss.$name.deflate_opts.*", DEFLATE).quiet(&["*"]),
    none("listener.ws|wss.$name.idle_timeout", "a client has `idle_timeout` of its zone, then its Keep Alive")
        .quiet(&["*"]),
    none("listener.ws|wss.$name.max_frame_size", "a packet has `mqtt.max_packet_size`, whatever its frames")
        .quiet(&["0"]),
    not_yet("listener.ws|wss.$name.check_origin_enable", ORIGIN).quiet(&["false"]),
    not_yet("listener.ws|wss.$name.allow_origin_absence|check_origins", ORIGIN).quiet(&["*"]),
];

const BRIDGE: &[Row] = &[not_yet("bridge.*", BRIDGES)];

const BROKER: &[Row] = &[
    none("module.presence", "`$SYS/brokers/NODE/clients/ID/connected` and `disconnected` are always published")
        .quiet(&["on"]),
    none("module.presence.qos", "they are published with QoS 0").quiet(&["*"]),
    not_yet("module.subscription", "clients are subscribed to nothing that they do not ask for").quiet(&["off"]),
    not_yet("module.subscription.*", "clients are subscribed to nothing that they do not ask for").quiet(&["*"]),
    not_yet("module.rewrite", "topics are not rewritten").quiet(&["off"]),
    not_yet("module.rewrite.*", "topics are not rewritten"),
    none("modules.loaded_file", "there are no modules").quiet(&["*"]),
    row("plugins.etc_dir", Does::NoEffect, "it says where files of plugins are, as in EMQ X").quiet(&["*"]),
    row("plugins.loaded_file", Does::NoEffect, "it says which plugins count, as in EMQ X").quiet(&["*"]),
    none("plugins.expand_plugins_dir", "plugins are not loaded from files").quiet(&["*"]),
    same("broker.sys_interval"),
    none("broker.sys_heartbeat", "uptime and time are told every `broker.sys_interval`").quiet(&["*"]),
    none("broker.enable_session_registry", "a session is always known to all nodes").quiet(&["on"]),
    none("broker.session_locking_strategy", "who has a Client Identifier is agreed on by a majority, not locked")
        .quiet(&["*"]),
    same("broker.shared_subscription_strategy").absent("round_robin"),
    none(
        "broker.shared_dispatch_ack_enabled",
        "what a member of a group leaves behind without an acknowledgement goes to another one",
    )
    .quiet(&["false"]),
    none("broker.route_batch_clean", "routes of a node that is gone go with it").quiet(&["*"]),
    none("telemetry.*", "nothing is sent home").quiet(&["*"]),
];

const MONITOR: &[Row] = &[
    none("sysmon.*", ERLANG).quiet(&["*"]),
    none("vm_mon.*", ERLANG).quiet(&["*"]),
    not_yet("os_mon.*", ALARMS).quiet(&["*"]),
    not_yet("alarm.*", ALARMS).quiet(&["*"]),
];

const PLUGIN: &[Row] = &[
    none("retainer.storage_type", "retained messages are stored where sessions are: as the most durable zone says")
        .quiet(&["*"]),
    row("retainer.max_retained_messages", Does::As("retained.max_retained_messages"), ""),
    row("retainer.max_message_num", Does::As("retained.max_retained_messages"), ""),
    row("retainer.max_payload_size", Does::As("retained.max_payload_size"), ""),
    row("retainer.expiry_interval", Does::As("retained.expiry_interval"), ""),
    row(
        "auth.user.$number.username|password",
        Does::Together,
        "passwords are hashed with Argon2id at the start; a user name that nobody has is refused",
    ),
    none("auth.user.password_hash", "it is always Argon2id").quiet(&["*"]),
    none("auth.mnesia.password_hash", "it is always Argon2id").quiet(&["*"]),
    none("auth.client.password_hash", "it is always Argon2id").quiet(&["*"]),
    row(
        "auth.client.*",
        Does::Refused,
        "passwords of Client Identifiers are added while the broker runs (`user_table = on`, `newtmq ctl clientid add`), not by \
         the configuration; without them everybody could connect",
    ),
    row("auth.http.auth_req", Does::As("auth_http.auth_url"), ""),
    row("auth.http.auth_req.method", Does::As("auth_http.auth_method"), ""),
    row("auth.http.auth_req.params", Does::As("auth_http.auth_params"), "without `%C`, `%d` and `%m`"),
    row("auth.http.super_req", Does::As("auth_http.super_url"), ""),
    row("auth.http.super_req.method", Does::As("auth_http.super_method"), ""),
    row("auth.http.super_req.params", Does::As("auth_http.super_params"), "without `%C`, `%d` and `%m`"),
    row("auth.http.acl_req", Does::As("auth_http.acl_url"), "what it allows `acl_file` may still deny"),
    row("auth.http.acl_req.method", Does::As("auth_http.acl_method"), ""),
    row("auth.http.acl_req.params", Does::As("auth_http.acl_params"), "without `%C`, `%d` and `%m`"),
    none("auth.http.request.retry_times|request.retry_interval|request.retry_backoff|pool_size|enable_pipelining|connect_timeout", "connections are kept, and a request that fails is refused").quiet(&["*"]),
    row("auth.http.timeout", Does::As("auth_http.timeout"), ""),
    row("auth.jwt.secret", Does::As("jwt.secret"), "HS256"),
    row("auth.jwt.pubkey", Does::As("jwt.public_key"), "RS256 or ES256, as the key is"),
    row("auth.jwt.jwks", Does::Refused, "keys are in a file (`jwt.jwks_file`), and are not fetched"),
    row(
        "auth.jwt.from",
        Does::Refused,
        "the token is the password (`password`, as in EMQ X by default); leave this key out",
    ),
    row(
        "auth.jwt.verify_claims|verify_claims.$name",
        Does::Refused,
        "write `jwt.verify_claims = username=%u,…`, which is so by default; in EMQ X it is off",
    ),
    none("auth.jwt.signature_format", "signatures are those of RFC 7515").quiet(&["*"]),
    row("auth.*", Does::Refused, "this way to log in is not in this version; without it everybody could connect"),
    row("management.default_application.id", Does::As("api.app_id"), ""),
    row("management.default_application.secret", Does::As("api.app_secret"), ""),
    row("management.application.default_secret", Does::As("api.app_secret"), ""),
    row("management.listener.http", Does::As("api.bind"), ""),
    row("management.listener.http.max_clients", Does::As("api.max_connections"), ""),
    none("management.max_row_limit", "a page of the HTTP API has at most 10,000 rows").quiet(&["10000"]),
    none("management.bridge_max_row_limit", "there are no bridges").quiet(&["*"]),
    none(
        "management.listener.http.acceptors|backlog|send_timeout|send_timeout_close",
        "they have no effect on a few requests",
    )
    .quiet(&["*"]),
    none("management.listener.http.inet6|ipv6_v6only", "`api.bind` says it").quiet(&["false"]),
    not_yet("management.listener.https", "HTTPS beside HTTP; with `api.certfile` and `api.keyfile` the API is HTTPS"),
    not_yet("management.listener.https.*", "HTTPS beside HTTP; with `api.certfile` and `api.keyfile` the API is HTTPS")
        .quiet(&["*"]),
    not_yet("management.*", "this key of the HTTP API"),
    none("dashboard.default_user.login", "the user of the dashboard is `admin`").quiet(&["admin"]),
    row(
        "dashboard.default_user.password",
        Does::Same,
        "it has to be changed at the first login; `public` is refused from other machines",
    ),
    row("dashboard.listener.http", Does::As("dashboard.bind"), ""),
    none(
        "dashboard.listener.http.acceptors|max_clients|backlog|send_timeout|send_timeout_close",
        "the dashboard has the limits of `api.*`",
    )
    .quiet(&["*"]),
    none("dashboard.listener.http.inet6|ipv6_v6only", "`dashboard.bind` says it").quiet(&["false"]),
    not_yet(
        "dashboard.listener.https",
        "HTTPS beside HTTP; with `api.certfile` and `api.keyfile` the dashboard is HTTPS",
    ),
    not_yet(
        "dashboard.listener.https.*",
        "HTTPS beside HTTP; with `api.certfile` and `api.keyfile` the dashboard is HTTPS",
    )
    .quiet(&["*"]),
    not_yet("dashboard.*", "this key of the dashboard"),
    row("mqtt.sn.port", Does::As("listener.sn.external.bind"), ""),
    row(
        "mqtt.sn.advertise_duration",
        Does::Same,
        "it is broadcast only where `mqtt.sn.advertise_to` says, which EMQ X does not have",
    )
    .quiet(&["*"]),
    same("mqtt.sn.gateway_id"),
    none("mqtt.sn.enable_stats", "figures are always kept").quiet(&["*"]),
    same("mqtt.sn.enable_qos3"),
    same("mqtt.sn.idle_timeout"),
    none("mqtt.sn.predefined.topic.0", "the id 0 is reserved").quiet(&["*"]),
    same("mqtt.sn.predefined.topic.$number"),
    row("mqtt.sn.username", Does::Same, "it is compared with the users of the broker").quiet(&["*"]),
    row("mqtt.sn.password", Does::Same, "it is compared with the users of the broker").quiet(&["*"]),
    same("mqtt.sn.subs_resume"),
    not_yet("coap.*", "the CoAP gateway"),
    not_yet("lwm2m.*", "the LwM2M gateway"),
    not_yet("stomp.*", "the STOMP gateway"),
    not_yet("exproto.*", "gateways of other protocols"),
    not_yet("psk.file.*", PSK),
    not_yet("web.hook.*", "web hooks"),
    not_yet("exhook.*", "hooks in other processes"),
    not_yet("rule_engine.*", "rules"),
    none("prometheus.*", "Prometheus asks for metrics, at `/metrics` of the HTTP API; nothing is pushed").quiet(&["*"]),
    none("reloader.*", ERLANG).quiet(&["*"]),
    none("recon.*", ERLANG).quiet(&["*"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, path, want) in [
            ("a.b", "a.b", true),
            ("a.b", "a.b.c", false),
            ("a.b.c", "a.b", false),
            ("a.$n.c", "a.x.c", true),
            ("a.$n.c", "a..c", false),
            ("a|b.c", "b.c", true),
            ("a|b.c", "c.c", false),
            ("a.*", "a.b.c", true),
            ("a.*", "a", false),
        ] {
            assert_eq!(fits(pattern, path), want, "{pattern} {path}");
        }
    }

    #[test]
    fn each_row_is_the_first_for_its_paths() {
        for row in rows() {
            for path in paths(row, "") {
                let path = if row.key.ends_with('*') { format!("{path}.x") } else { path };
                let found = find(&path).expect("its own row fits");
                // The rows for all other ways to log in and for all levels come behind the others.
                let general = found.key.contains('*') || row.key.contains('*') || row.key.contains("$level");
                assert!(found.key == row.key || general, "{path}: {} hides {}", found.key, row.key);
            }
        }
    }

    #[test]
    fn what_is_different_is_said() {
        for row in rows() {
            let same = matches!(row.does, Does::Same | Does::As(_));
            assert!(same || !row.why.is_empty(), "{}", row.key);
            assert!(!row.why.ends_with('.') && !row.why.contains('|'), "{}", row.key);
        }
    }
}
