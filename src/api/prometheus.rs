//! Metrics as Prometheus reads them: text, from the tables of EMQ X's figures. Nothing in them is chosen by clients.

use std::fmt::Write as _;

/// The figures that are shown.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) stats: Vec<(String, u64)>,
    pub(super) metrics: Vec<(String, u64)>,
    /// Listeners with their open connections.
    pub(super) listeners: Vec<(String, u64)>,
    pub(super) uptime_seconds: u64,
}

/// A family of metrics: name, kind, help, and its samples with their labels.
type Family = (&'static str, &'static str, &'static str, Vec<(String, u64)>);

pub(super) fn text(figures: &Figures) -> String {
    let mut out = String::new();
    for (name, kind, help, samples) in families(figures) {
        if samples.is_empty() {
            continue;
        }
        let _ = writeln!(out, "# HELP newtmq_{name} {help}\n# TYPE newtmq_{name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(out, "newtmq_{name}{labels} {value}");
        }
    }
    out
}

fn families(figures: &Figures) -> Vec<Family> {
    let version = format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    let plain = |value: u64| vec![(String::new(), value)];
    let stat = |name: &str| {
        let name = format!("{name}/count");
        figures.stats.iter().find(|(of, _)| *of == name).map_or_else(Vec::new, |(_, value)| plain(*value))
    };
    let metric = |name: &str| {
        figures.metrics.iter().find(|(of, _)| of == name).map_or_else(Vec::new, |(_, value)| plain(*value))
    };
    let listeners =
        figures.listeners.iter().map(|(name, value)| (format!("{{listener=\"{name}\"}}"), *value)).collect();
    vec![
        ("build_info", "gauge", "The version that runs.", vec![(version, 1)]),
        ("uptime_seconds", "gauge", "Seconds since the start.", plain(figures.uptime_seconds)),
        ("connections", "gauge", "Open connections.", stat("connections")),
        ("listener_connections", "gauge", "Open connections of a listener.", listeners),
        ("sessions", "gauge", "Sessions, connected or waiting.", stat("sessions")),
        ("subscriptions", "gauge", "Subscriptions of sessions.", stat("subscriptions")),
        ("subscriptions_shared", "gauge", "Shared subscriptions.", stat("subscriptions/shared")),
        ("topic_filters", "gauge", "Different topic filters that are known.", stat("topics")),
        ("retained_messages", "gauge", "Topics with a retained message.", stat("retained")),
        ("bytes_received_total", "counter", "Bytes that clients sent.", metric("bytes/received")),
        ("bytes_sent_total", "counter", "Bytes sent to clients.", metric("bytes/sent")),
        ("packets_total", "counter", "MQTT packets.", packets(&figures.metrics)),
        ("messages_total", "counter", "PUBLISH packets by QoS.", messages(&figures.metrics)),
        ("messages_dropped_total", "counter", "Deliveries given up.", dropped(&figures.metrics)),
        ("messages_forwarded_total", "counter", "Messages sent to other shards.", metric("messages/forward")),
        ("acl_denied_total", "counter", "What clients may not do.", metric("acl/denied")),
    ]
}

/// `packets/TYPE/received`, `packets/TYPE/sent`, or `packets/TYPE` of what only one side sends.
fn packets(metrics: &[(String, u64)]) -> Vec<(String, u64)> {
    let of = |(name, value): &(String, u64)| {
        let (kind, way) = match name.strip_prefix("packets/")?.split_once('/') {
            Some(both) => both,
            None => {
                let kind = name.strip_prefix("packets/")?;
                if matches!(kind, "received" | "sent") {
                    return None;
                }
                (kind, if kind.ends_with("ack") || kind.ends_with("resp") { "sent" } else { "received" })
            }
        };
        Some((format!("{{type=\"{kind}\",direction=\"{way}\"}}"), *value))
    };
    metrics.iter().filter_map(of).collect()
}

fn messages(metrics: &[(String, u64)]) -> Vec<(String, u64)> {
    let of = |(name, value): &(String, u64)| {
        let (qos, way) = name.strip_prefix("messages/qos")?.split_once('/')?;
        Some((format!("{{qos=\"{qos}\",direction=\"{way}\"}}"), *value))
    };
    metrics.iter().filter_map(of).collect()
}

fn dropped(metrics: &[(String, u64)]) -> Vec<(String, u64)> {
    let of = |(name, value): &(String, u64)| {
        let reason = name.strip_prefix("messages/dropped/")?;
        Some((format!("{{reason=\"{reason}\"}}"), *value))
    };
    metrics.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use newtmq_node::Report;

    use super::*;

    #[test]
    fn as_prometheus_reads_it() {
        let report = Report::default();
        let stats = report.stats().map(|(name, count)| (format!("{name}/count"), count + 1)).to_vec();
        let listeners = vec![("listener.tcp.external".to_owned(), 3)];
        let figures = Figures { stats, metrics: report.metrics(), listeners, uptime_seconds: 7 };
        let text = text(&figures);
        insta::assert_snapshot!(text.replace(env!("CARGO_PKG_VERSION"), "VERSION"));
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let name = name.split('{').next().unwrap();
            assert!(value.parse::<u64>().is_ok() && text.contains(&format!("# TYPE {name} ")), "{line}");
        }
    }
}
