//! Keys of a `mosquitto.conf` and what they are here, for `docs/migration.md`. Such a file is not read.

/// A key of Mosquitto 2.
pub(super) struct Row {
    pub(super) key: &'static str,
    /// The key here, or what is done instead; empty if there is nothing.
    pub(super) here: &'static str,
    pub(super) why: &'static str,
}

/// Whether a line of a `mosquitto.conf` begins so.
pub(super) fn is_key(word: &str) -> bool {
    ROWS.iter().any(|row| row.key == word)
}

const fn row(key: &'static str, here: &'static str, why: &'static str) -> Row {
    Row { key, here, why }
}

/// The keys that are used most, in the order of its manual.
pub(super) const ROWS: &[Row] = &[
    row("allow_anonymous", "`allow_anonymous`", "the default here is true, on 127.0.0.1 only"),
    row(
        "password_file",
        "`password_file`",
        "another format: `newtmq passwd FILE USER` writes it, old hashes are not read",
    ),
    row("acl_file", "`acl_file`", "another format, see below"),
    row("plugin", "", "no plugins"),
    row("auth_plugin", "", "no plugins"),
    row("psk_file", "", "TLS with pre-shared keys is not in this version"),
    row(
        "per_listener_settings",
        "`listener.tcp.NAME.zone`",
        "a zone is what listeners have in common; users and rules are for all",
    ),
    row("listener", "`listener.tcp.NAME`", "`listener 1883 10.0.0.1` is `listener.tcp.lan = \"10.0.0.1:1883\"`"),
    row("port", "`listener.tcp.external`", ""),
    row("bind_address", "`listener.tcp.external`", ""),
    row("socket_domain", "`listener.tcp.NAME`", "an address says whether it is IPv4 or IPv6"),
    row("protocol", "`listener.ws.NAME`", "`protocol websockets` is a listener `ws`, with TLS `wss`"),
    row("http_dir", "", "no files are served"),
    row("websockets_headers_size", "", "a request has 8 KiB at most"),
    row("mount_point", "`zone.NAME.mountpoint`", "with `%c` and `%u`"),
    row("max_connections", "`listener.tcp.NAME.max_connections`", "-1 is no limit there; here 10000000 is the most"),
    row("use_username_as_clientid", "`zone.NAME.use_username_as_clientid`", ""),
    row("cafile", "`listener.ssl.NAME.cacertfile`", ""),
    row("capath", "`listener.ssl.NAME.cacertfile`", "one file with all of them"),
    row("certfile", "`listener.ssl.NAME.certfile`", ""),
    row("keyfile", "`listener.ssl.NAME.keyfile`", ""),
    row("require_certificate", "`listener.ssl.NAME.verify` and `fail_if_no_peer_cert`", ""),
    row("use_identity_as_username", "`listener.ssl.NAME.peer_cert_as_username`", "`\"cn\"`"),
    row("use_subject_as_username", "`listener.ssl.NAME.peer_cert_as_username`", "`\"dn\"`"),
    row("crlfile", "", "revocation lists are not read"),
    row("ciphers", "`listener.ssl.NAME.ciphers`", "the same names; weak suites are not there"),
    row("ciphers_tls1.3", "`listener.ssl.NAME.ciphers`", "one key for all versions"),
    row("tls_version", "`listener.ssl.NAME.tls_versions`", "`tlsv1.2` and `tlsv1.3`"),
    row("dhparamfile", "", "suites that need it are not there"),
    row("persistence", "`newtmq run --data DIR`", "every acknowledged change is stored first, not once in a while"),
    row("persistence_location", "`newtmq run --data DIR`", ""),
    row("persistence_file", "`newtmq run --data DIR`", "its files are not those of Mosquitto, which are not read"),
    row("autosave_interval", "`zone.NAME.durability`", ""),
    row("autosave_on_changes", "`zone.NAME.durability`", ""),
    row("persistent_client_expiration", "`zone.NAME.session_expiry_interval`", "2h here, never there"),
    row("max_inflight_messages", "`zone.NAME.max_inflight`", "256 here, 20 there"),
    row("max_inflight_bytes", "", "a client bounds it by its Receive Maximum"),
    row(
        "max_queued_messages",
        "`zone.NAME.max_mqueue_len`",
        "at the limit the oldest is dropped here, the newest there",
    ),
    row("max_queued_bytes", "`zone.NAME.max_mqueue_bytes`", ""),
    row("queue_qos0_messages", "`zone.NAME.mqueue_store_qos0`", "true here, false there"),
    row("upgrade_outgoing_qos", "`zone.NAME.upgrade_qos`", ""),
    row("max_packet_size", "`mqtt.max_packet_size`", "2MB here, no limit there"),
    row("message_size_limit", "`mqtt.max_packet_size`", ""),
    row("max_keepalive", "`zone.NAME.server_keepalive`", "it replaces what clients ask for"),
    row("max_qos", "`mqtt.max_qos_allowed`", ""),
    row("max_topic_alias", "`mqtt.max_topic_alias`", ""),
    row("retain_available", "`mqtt.retain_available`", ""),
    row("retain_expiry_interval", "`retained.expiry_interval`", ""),
    row("memory_limit", "`memory.high_watermark`", ""),
    row("set_tcp_nodelay", "`listener.tcp.NAME.nodelay`", "on here, off there"),
    row("sys_interval", "`broker.sys_interval`", "other topics: `$SYS/brokers/NODE/...`"),
    row("allow_zero_length_clientid", "", "always, as MQTT asks for"),
    row("auto_id_prefix", "", "a Client Identifier that the broker chooses is random"),
    row("clientid_prefixes", "`acl_file`", "rules can name Client Identifiers"),
    row("log_dest", "", "logs go to standard error"),
    row("log_type", "`log.level`", ""),
    row("log_timestamp", "", "every line has its time"),
    row("connection_messages", "`log.level`", "connections are logged at `debug`"),
    row("include_dir", "`--config FILE`, `--set KEY=VALUE`", "one file, variables and options"),
    row("pid_file", "", "the process stays in the foreground; systemd knows it"),
    row("user", "", "start it as the user that it is to run as"),
    row("connection", "", "bridges are not in this version; nodes of NewtMQ form a [cluster](cluster.md)"),
    row("address", "", "bridges are not in this version"),
    row("topic", "", "bridges are not in this version"),
];

#[cfg(test)]
mod tests {
    use super::super::known;
    use super::*;

    #[test]
    fn what_is_named_is_there() {
        for row in ROWS {
            for name in row.here.split('`').filter(|part| part.contains('.') && !part.contains(' ')) {
                let name = name.replace("NAME", "external");
                assert!(known::find(&name).is_some(), "{}: {name}", row.key);
            }
        }
    }
}
