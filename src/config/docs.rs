//! Writes `docs/configuration.md` from the table.

use std::fmt::Write as _;

use super::listener_table;
use super::sn_table;
use super::table::{self, Key};

/// The documentation of every key, as Markdown.
#[must_use]
pub fn markdown() -> String {
    let mut out = HEAD.to_owned();
    let once = |section: &str| table::once().filter(|key| is_of(key.name, section)).collect::<Vec<_>>();
    part(&mut out, "Listeners", LISTENERS, "listener.TRANSPORT.NAME.", listener_table::LISTENER);
    part(&mut out, "Listeners with TLS", TLS, "listener.ssl|wss.NAME.", listener_table::TLS);
    part(&mut out, "Listeners with WebSocket", WEBSOCKET, "listener.ws|wss.NAME.", listener_table::WEBSOCKET);
    part(&mut out, "Zones", ZONES, "zone.NAME.", table::ZONE);
    part(&mut out, "Protocol", "The same for every client.", "", once("mqtt"));
    part(&mut out, "MQTT-SN", SN, "", sn_table::SN);
    part(&mut out, "Retained messages", RETAINED, "", once("retained"));
    part(&mut out, "Routing", "", "", once("broker"));
    part(&mut out, "Node", NODE, "", once("node"));
    part(&mut out, "Cluster", CLUSTER, "", once("cluster"));
    part(&mut out, "Store", STORE, "", once("store"));
    part(&mut out, "Memory", "", "", once("memory"));
    part(&mut out, "Access", ACCESS, "", once(""));
    part(&mut out, "JSON Web Tokens", JWT, "", once("jwt"));
    part(&mut out, "A service that decides about logins and topics", AUTH_HTTP, "", once("auth_http"));
    part(&mut out, "Throttling of logins", THROTTLE, "", once("login_throttle"));
    part(&mut out, "HTTP API", API, "", once("api"));
    part(&mut out, "Dashboard", DASHBOARD, "", once("dashboard"));
    part(&mut out, "Alarms", ALARMS, "", once("alarm"));
    part(&mut out, "Logging", LOGGING, "", once("log"));
    out.push_str(FOOT);
    out
}

/// Those of MQTT-SN have a part of their own.
fn is_of(name: &str, section: &str) -> bool {
    !name.starts_with(sn_table::SN_SECTION) && name.split_once('.').map_or("", |(first, _)| first) == section
}

fn part<'a, T: 'static>(
    out: &mut String,
    title: &str,
    text: &str,
    prefix: &str,
    keys: impl IntoIterator<Item = &'a Key<T>>,
) {
    let _ = write!(out, "\n## {title}\n");
    if !text.is_empty() {
        let _ = write!(out, "\n{text}\n");
    }
    for key in keys {
        let quote = if key.field.quoted() { "\"" } else { "" };
        let _ = write!(out, "\n### `{prefix}{}`\n\n", key.name);
        let _ = writeln!(out, "{}\n", key.doc);
        let _ = writeln!(out, "- Value: {}", key.field.expected());
        let _ = match key.default {
            "" => writeln!(out, "- Default: none"),
            default => writeln!(out, "- Default: `{quote}{default}{quote}`"),
        };
        if super::is_live(&format!("{prefix}{}", key.name)) {
            out.push_str("- A reload changes it\n");
        }
    }
}

/// How to come from EMQ X and Mosquitto, as Markdown.
#[must_use]
pub fn migration() -> String {
    super::emqx::docs::markdown()
}

/// A file with every key and its default, as comments.
#[must_use]
pub fn sample() -> String {
    let mut out = SAMPLE_HEAD.to_owned();
    let once = |section: &str| table::once().filter(|key| is_of(key.name, section)).collect::<Vec<_>>();
    lines(&mut out, "Listeners", "listener.tcp.external.", listener_table::LISTENER);
    lines(&mut out, "TLS, for listeners ssl and wss", "listener.ssl.external.", listener_table::TLS);
    lines(&mut out, "WebSocket, for listeners ws and wss", "listener.ws.external.", listener_table::WEBSOCKET);
    lines(&mut out, "What clients get", "zone.external.", table::ZONE);
    for (title, section) in [
        ("Protocol", "mqtt"),
        ("Retained messages", "retained"),
        ("Routing", "broker"),
        ("Node", "node"),
        ("Cluster", "cluster"),
        ("Store, with --data DIR", "store"),
        ("Memory", "memory"),
        ("Access", ""),
        ("JSON Web Tokens", "jwt"),
        ("A service that decides about logins and topics", "auth_http"),
        ("Throttling of logins", "login_throttle"),
        ("HTTP API", "api"),
        ("Dashboard", "dashboard"),
        ("Alarms", "alarm"),
        ("Logging", "log"),
    ] {
        lines(&mut out, title, "", once(section));
        if section == "mqtt" {
            lines(&mut out, "MQTT-SN, with listener.sn.external.bind = 1884", "", sn_table::SN);
        }
    }
    out
}

fn lines<'a, T: 'static>(out: &mut String, title: &str, prefix: &str, keys: impl IntoIterator<Item = &'a Key<T>>) {
    let _ = write!(out, "\n## {title}\n");
    for key in keys {
        let sentence = key.doc.split_once(". ").map_or(key.doc, |(first, _)| first).trim_end_matches('.');
        let _ = write!(out, "\n# {sentence}.\n");
        let quote = if key.field.quoted() || key.default.starts_with('o') { "\"" } else { "" };
        let name = key.name.replace(".N", ".1");
        let _ = match key.default {
            "" => writeln!(out, "# {prefix}{name} = {}", key.field.example()),
            default => writeln!(out, "#{prefix}{name} = {quote}{default}{quote}"),
        };
    }
}

const SAMPLE_HEAD: &str = "\
## NewtMQ: every key with its default. A key counts when the # before it is taken away; see docs/configuration.md.
##
## Written by `newtmq config-docs --sample etc/newtmq.toml` from the tables in src/config. Change it there.
##
##   newtmq run --config etc/newtmq.toml
##   newtmq check-config etc/newtmq.toml
##   newtmq ctl reload                        after a change; it says what needs a restart
";

const HEAD: &str = "\
# Configuration

<!-- Written by `newtmq config-docs docs/configuration.md` from the tables in src/config. Change it there. -->

Everything has a default: `newtmq run` without a file is a working broker on 127.0.0.1:1883. The key names are those of
EMQ X 3; the file is [TOML](https://toml.io), so that keys may be written dotted or in sections. An `emqx.conf` is read as it is,
too: see [Migration](migration.md). `etc/newtmq.toml` in the repository has every key with its default.

```toml
listener.tcp.external = \"127.0.0.1:1883\"
mqtt.max_packet_size = \"1MB\"

[zone.external]
max_inflight = 32
idle_timeout = \"15s\"
```

Unlike in `emqx.conf`, a value that is not a number, `true` or `false` needs quotes, and a listener that has other keys
writes its address as `listener.tcp.NAME.bind`.

## Sources

The later one wins:

1. the file of `--config FILE`;
2. environment variables: `EMQX_A__B__C` sets `a.b.c`, and `NEWTMQ_A__B__C` wins over it; with an `emqx.conf` the former are
   lines of it, which mean what they mean there;
3. `--set KEY=VALUE`, as often as needed; `--log LEVEL` is the same as `--set log.level=LEVEL`.

A key that does not exist is an error, and so is a value that the key does not take; all of them are told at once, with
file and line. A key that EMQ X has and this version does not support is an error too. `newtmq check-config FILE` checks
without starting. Environment variables without `__` that name no key, such as those that Kubernetes sets for a service
called `newtmq`, are ignored with a warning.

## Changing it while it runs

SIGHUP and `newtmq ctl reload` have the file read again, and with it users, rules and certificates. If anything is wrong, nothing is
changed. Otherwise what is different is told, in the log and by `ctl reload`: what counts from here on, for keys that say *A reload
changes it* below, and what needs a restart.

```text
Read again: files of users and rules
Changed: acl_nomatch = deny (was allow)
Needs a restart: zone.external.max_inflight = 64 (was 32)
```

Users cannot be had or given up without a restart: a broker that was started without any checks no password. A listener's other
certificates, access rules and `max_conn_rate` count for connections to come. Other limits of `login_throttle` forget what has failed.
Certificates of links between nodes (`cluster.tls`) are read again from the same files, and count for links to come.

## Values

- Sizes: bytes, or a number with `B`, `KB`, `MB`, `GB`; each is 1024 of the one before.
- Durations: a number with `ms`, `s`, `m`, `h`, `d` or `w`, or several with the larger first: `1h30m`.
- Booleans: `true`, `false`, and in quotes `\"on\"`, `\"off\"`.
";

const LISTENERS: &str = "\
`TRANSPORT` is `tcp`, `ssl` (TLS), `ws` (WebSocket) or `wss` (WebSocket on TLS); `NAME` is yours to choose. Without any
listener there are these, and with one there are only those that you name:

| listener | address | |
|---|---|---|
| `listener.tcp.external` | 127.0.0.1:1883 | |
| `listener.tcp.internal` | 127.0.0.1:11883 | zone `internal`, for programs on the same machine |
| `listener.ws.external` | 127.0.0.1:8083 | path `/mqtt` |
| `listener.ssl.external` | 127.0.0.1:8883 | once the data directory has a certificate |
| `listener.wss.external` | 127.0.0.1:8084 | once the data directory has a certificate |

`listener.sn.NAME` is a UDP socket for MQTT-SN, and there is none without a key of it; `listener.sn.external` has the address
127.0.0.1:1884. It goes with any of the others, and has only the keys `bind`, `zone`, `max_connections`, `access`, `recbuf`, `sndbuf` and
`rate_limit` of these; see [MQTT-SN](mqtt-sn.md).

[Listeners](listeners.md) tells how they are used.";

const TLS: &str = "\
They are taken by `listener.ssl.NAME` and `listener.wss.NAME`.";

const WEBSOCKET: &str = "\
They are taken by `listener.ws.NAME` and `listener.wss.NAME`.";

const ZONES: &str = "\
A zone is what the clients of some listeners have in common. A listener may always name the zones
`external` and `internal`; any other exists if one of its keys is set, or as an empty section `[zone.NAME]`.";

const SN: &str = "\
The gateway for devices that speak MQTT-SN, see [MQTT-SN](mqtt-sn.md); `listener.sn.NAME` opens it.";

const RETAINED: &str = "\
They are stored where sessions are: as the most durable zone says, and in memory alone if no zone is durable.";

const NODE: &str = "\
Who the node is to other nodes, see [Cluster](cluster.md).";

const CLUSTER: &str = "\
How nodes find each other and what they have in common.";

const STORE: &str = "\
The log in the data directory, see [Durability](durability.md).";

const ACCESS: &str = "\
[Access](access.md) describes the files. They are read at the start and again at SIGHUP; their paths are relative to the
directory that the broker was started in.";

const JWT: &str = "Tokens that clients give as passwords; see [Access](access.md#json-web-tokens).";

const AUTH_HTTP: &str = "See [Access](access.md#a-service-that-decides).";

const THROTTLE: &str = "\
Whoever fails to log in too often has to wait, see [Access](access.md#throttling).";

const API: &str = "Who asks the broker by HTTP: see [HTTP API](http-api.md).";

const DASHBOARD: &str = "For people with a browser: see [Dashboard](dashboard.md).";

const ALARMS: &str = "\
What is wrong with a node is told in the log, below `$SYS/brokers/NODE/alarms`, by `/api/v3/alarms` and in the dashboard: see
[Alarms](alarms.md).";

const LOGGING: &str = "\
Logs go to standard error. The environment variable `RUST_LOG` takes the place of `log.level`; it can choose a level
for each module.";

const FOOT: &str = "
## Limits between keys

- `zone.NAME.max_mqueue_len` and `zone.NAME.max_inflight` together are less than 65535, so that there is always a packet
  identifier for each message that a session holds.
- Two listeners cannot have the same address, unless the port is 0.
- A listener's zone must exist.
- A `node.listen` that other machines can reach, and every `cluster.discovery` but `manual`, need `node.cookie` or
  `cluster.tls`.
";
