//! Answers for people, in the words of EMQ X 3.

use serde_json::Value;

/// As it is told: what a client chose may not do anything to a terminal.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.chars().map(|c| if c.is_control() { '?' } else { c }).collect(),
        Value::Null => "undefined".to_owned(),
        other => other.to_string(),
    }
}

fn each(values: &Value, line: impl Fn(&Value) -> String) -> Vec<String> {
    match values {
        Value::Array(values) => values.iter().map(line).collect(),
        one => vec![line(one)],
    }
}

/// What is done has nothing more to tell.
pub(super) fn ok(_: &Value) -> Vec<String> {
    vec!["ok".to_owned()]
}

pub(super) fn status(broker: &Value) -> Vec<String> {
    vec![
        format!("Node '{}' is started", plain(&broker["node"])),
        format!("newtmq v{} is running", plain(&broker["version"])),
    ]
}

pub(super) fn broker(broker: &Value) -> Vec<String> {
    ["sysdescr", "version", "uptime", "datetime"].map(|name| format!("{name:<10}: {}", plain(&broker[name]))).to_vec()
}

pub(super) fn connections(values: &Value) -> Vec<String> {
    each(values, |v| {
        format!(
            "Connection({}, clean_start={}, username={}, peername={}:{}, connected_at={})",
            plain(&v["client_id"]),
            v["clean_start"],
            plain(&v["username"]),
            plain(&v["ipaddress"]),
            v["port"],
            v["connected_unix"],
        )
    })
}

pub(super) fn sessions(values: &Value) -> Vec<String> {
    each(values, |v| {
        format!(
            "Session({}, clean_start={}, expiry_interval={}, subscriptions_count={}, max_inflight={}, inflight={}, \
             mqueue_len={}, awaiting_rel={}, created_at={})",
            plain(&v["client_id"]),
            v["clean_start"],
            v["expiry_interval"],
            v["subscriptions_count"],
            v["max_inflight"],
            v["inflight_len"],
            v["mqueue_len"],
            v["awaiting_rel_len"],
            v["created_unix"],
        )
    })
}

pub(super) fn subscriptions(values: &Value) -> Vec<String> {
    each(values, |v| format!("{} -> {}", plain(&v["client_id"]), plain(&v["topic"])))
}

pub(super) fn routes(values: &Value) -> Vec<String> {
    each(values, |v| format!("{} -> {}", plain(&v["topic"]), plain(&v["node"])))
}

pub(super) fn retained(values: &Value) -> Vec<String> {
    each(values, |v| format!("{} (QoS {}, {} bytes)", plain(&v["topic"]), v["qos"], v["payload_bytes"]))
}

pub(super) fn devices(values: &Value) -> Vec<String> {
    each(values, |v| {
        let [client, state, address, node] = ["client_id", "state", "address", "node"].map(|name| plain(&v[name]));
        let numbers = ["keepalive", "sleep", "heard_seconds_ago", "mqueue_len", "topic_ids"];
        let numbers: String = numbers.iter().map(|name| format!(", {name}={}", v[name])).collect();
        format!("Device({client}, state={state}, address={address}, node={node}{numbers})")
    })
}

pub(super) fn plugins(values: &Value) -> Vec<String> {
    each(values, |v| {
        format!(
            "Plugin({}, version={}, description={}, active={})",
            plain(&v["name"]),
            plain(&v["version"]),
            plain(&v["description"]),
            v["active"],
        )
    })
}

pub(super) fn listeners(values: &Value) -> Vec<String> {
    let of = |v: &Value| {
        [
            format!("listener on {}:{}", plain(&v["protocol"]), plain(&v["listen_on"])),
            format!("  {:<16}: {}", "acceptors", v["acceptors"]),
            format!("  {:<16}: {}", "max_conns", v["max_conns"]),
            format!("  {:<16}: {}", "current_conn", v["current_conns"]),
            format!("  {:<16}: {}", "shutdown_count", v["shutdown_count"]),
        ]
    };
    values.as_array().map(|values| values.iter().flat_map(of).collect()).unwrap_or_default()
}

pub(super) fn figures(values: &Value) -> Vec<String> {
    let pairs = values.as_object().into_iter().flatten();
    pairs.map(|(name, count)| format!("{name:<30}: {count}")).collect()
}

pub(super) fn ledger(values: &Value) -> Vec<String> {
    let pairs = values.as_object().into_iter().flatten();
    let line = |(name, count): (&String, &Value)| match count.as_object() {
        Some(parts) => {
            parts.iter().map(|(reason, count)| format!("{:<30}: {count}", format!("{name} ({reason})"))).collect()
        }
        None => vec![format!("{name:<30}: {count}")],
    };
    pairs.flat_map(line).collect()
}

pub(super) fn apps(values: &Value) -> Vec<String> {
    each(values, |v| {
        format!(
            "app_id: {}, name: {}, desc: {}, status: {}, expired: {}",
            plain(&v["app_id"]),
            plain(&v["name"]),
            plain(&v["desc"]),
            v["status"],
            plain(&v["expired"]),
        )
    })
}

pub(super) fn accounts(values: &Value) -> Vec<String> {
    each(values, |v| match v.get("username") {
        Some(name) => format!("User(username = {})", plain(name)),
        None => format!("ClientId({})", plain(&v["clientid"])),
    })
}

pub(super) fn bans(values: &Value) -> Vec<String> {
    each(values, |v| {
        let until = v["until"].as_u64().map_or("never".to_owned(), |until| until.to_string());
        let [kind, who, reason, by] = ["as", "who", "reason", "by"].map(|name| plain(&v[name]));
        format!("banned(as = {kind}, who = {who}, reason = {reason}, by = {by}, at = {}, until = {until})", v["at"])
    })
}

pub(super) fn audit(values: &Value) -> Vec<String> {
    each(values, |v| {
        let [at, by, from, action, what] = ["at", "by", "from", "action", "what"].map(|name| plain(&v[name]));
        let outcome = if v["done"] == true { "done".to_owned() } else { format!("failed: {}", plain(&v["why"])) };
        format!("{at} {by} from {from}: {action} {what}: {outcome}")
    })
}

/// Of each node, with its name in front.
pub(super) fn alarms(values: &Value) -> Vec<String> {
    let of = |node: &Value, v: &Value| {
        let [severity, summary, raised] = ["severity", "summary", "raised_at"].map(|name| plain(&v[name]));
        let over = v["lasted_ms"].as_u64().map_or(String::new(), |ms| format!(", lasted_s={}", ms / 1000));
        format!(
            "Alarm({}, node={}, severity={severity}, summary={summary}, raised_at={raised}{over})",
            plain(&v["id"]),
            plain(node)
        )
    };
    let each = values.as_array().into_iter().flatten();
    let all = each.flat_map(|v| v["alarms"].as_array().into_iter().flatten().map(move |alarm| of(&v["node"], alarm)));
    let all: Vec<String> = all.collect();
    if all.is_empty() { vec!["No alarms.".to_owned()] } else { all }
}

pub(super) fn secret(value: &Value) -> Vec<String> {
    vec![format!("AppSecret: {}", plain(&value["secret"]))]
}

pub(super) fn updated(_: &Value) -> Vec<String> {
    vec!["update successfully.".to_owned()]
}

pub(super) fn reloaded(value: &Value) -> Vec<String> {
    each(&value["lines"], plain)
}

pub(super) fn level(value: &Value) -> Vec<String> {
    vec![plain(&value["level"])]
}

pub(super) fn traces(values: &Value) -> Vec<String> {
    each(values, |v| {
        format!(
            "Trace({}={}, started={}, records={})",
            plain(&v["kind"]),
            plain(&v["what"]),
            plain(&v["started"]),
            v["records"]
        )
    })
}

pub(super) fn trace_started(_: &Value) -> Vec<String> {
    vec!["trace has been started successfully.".to_owned()]
}

pub(super) fn trace_stopped(was_there: &Value) -> Vec<String> {
    let line = if was_there == &Value::Bool(true) { "stop tracing successfully." } else { "it was not traced." };
    vec![line.to_owned()]
}

pub(super) fn records(values: &Value) -> Vec<String> {
    each(values, |v| {
        let of = |name: &str, value: &Value| match value {
            Value::Null => String::new(),
            value => format!(" {name}={}", plain(value)),
        };
        let waits = if v["waits"] == Value::Bool(true) { " queued" } else { "" };
        let why = plain(&v["why"]);
        let why = if why.is_empty() { why } else { format!(": {why}") };
        let about = [of("client", &v["client_id"]), of("topic", &v["topic"]), of("qos", &v["qos"])].concat();
        format!("{} {} {}{about}{waits}{why}", plain(&v["time"]), plain(&v["node"]), plain(&v["event"]))
    })
}

pub(super) fn whereabouts(value: &Value) -> Vec<String> {
    let (client, topic) = (&value["client"], &value["topic"]);
    let mut out = Vec::new();
    let mut part = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            out.push(title.to_owned());
            out.extend(lines.into_iter().map(|line| format!("  {line}")));
        }
    };
    let one = |value: &Value, lines: fn(&Value) -> Vec<String>| if value.is_null() { Vec::new() } else { lines(value) };
    part("As a client:", [one(&client["connection"], connections), one(&client["session"], sessions)].concat());
    part("It is subscribed to:", subscriptions(&client["subscriptions"]));
    part("As a topic, it goes to:", subscriptions(&topic["subscribers"]));
    part("By these routes:", routes(&topic["routes"]));
    part("Retained:", retained(&topic["retained"]));
    part("Traced:", records(&value["traced"]));
    if out.is_empty() {
        out.push(
            "No client here, and no topic that anybody here has subscribed or that has a retained message.".to_owned(),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_are_those_of_emq_x() {
        let client = json!({
            "client_id": "a\u{1b}[2Jb\n", "clean_start": true, "username": null, "ipaddress": "1.2.3.4", "port": 64896,
            "connected_unix": 1_700_000_000,
        });
        assert_eq!(
            connections(&json!([client])),
            [
                "Connection(a?[2Jb?, clean_start=true, username=undefined, peername=1.2.3.4:64896, connected_at=1700000000)"
            ]
        );
        let alarm = |lasted: Option<u64>| {
            json!([{ "node": "n2@h", "alarms": [{ "id": "node_down/n3@h", "severity": "critical",
            "summary": "node n3@h is not reached", "raised_at": "2026-11-26 22:00:00", "lasted_ms": lasted }] }, { "node": "n1@h", "alarms": [] }])
        };
        let shown = "Alarm(node_down/n3@h, node=n2@h, severity=critical, summary=node n3@h is not reached, raised_at=2026-11-26 22:00:00";
        assert_eq!(alarms(&json!([{ "node": "n1@h", "alarms": [] }])), ["No alarms."]);
        assert_eq!(alarms(&alarm(None)), [format!("{shown})")]);
        assert_eq!(alarms(&alarm(Some(6_500))), [format!("{shown}, lasted_s=6)")]);
        assert_eq!(routes(&json!([{ "topic": "t/+/x", "node": "emqx@127.0.0.1" }])), ["t/+/x -> emqx@127.0.0.1"]);
        assert_eq!(broker(&json!({ "sysdescr": "x", "version": "1" }))[..2], ["sysdescr  : x", "version   : 1"]);
        let nothing = json!({ "client": { "subscriptions": [] }, "topic": { "subscribers": [], "routes": [], "retained": [] }, "traced": [] });
        assert_eq!(whereabouts(&nothing).len(), 1);
    }
}
