//! Metrics as Prometheus reads them: text, from the tables of EMQ X's figures. Nothing in them is chosen by clients.

use std::fmt::Write as _;

use newtmq_node::{ClusterStatus, NodeStatus};

use crate::process::Usage;

/// The figures that are shown.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) stats: Vec<(String, u64)>,
    pub(super) metrics: Vec<(String, u64)>,
    /// Listeners with their open connections.
    pub(super) listeners: Vec<(String, u64)>,
    pub(super) uptime_seconds: u64,
    /// None of a node alone.
    pub(super) cluster: Option<Membership>,
    pub(super) usage: Usage,
}

/// The cluster as this node sees it.
#[derive(Debug)]
pub(super) struct Membership {
    members: u64,
    reached: u64,
    has_leader: bool,
    /// Members whose routes are known here to the last one, this node among them.
    open: u64,
}

impl Membership {
    pub(super) fn of(status: &ClusterStatus) -> Membership {
        let count = |is: &dyn Fn(&NodeStatus) -> bool| status.nodes.iter().filter(|node| is(node)).count() as u64;
        Membership {
            members: status.nodes.len() as u64,
            reached: count(&|node| node.is_self || node.is_up),
            has_leader: status.leader.is_some(),
            open: count(&|node| node.is_self || node.routes == "open"),
        }
    }
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
    put_usage(&figures.usage, &mut out);
    out
}

// These have the names that they have of every program.
fn put_usage(usage: &Usage, out: &mut String) {
    let number = |value: Option<u64>| value.map(|value| value.to_string());
    let rows = [
        (
            "cpu_seconds_total",
            "counter",
            "Processor time in seconds.",
            usage.cpu_seconds.map(|value| value.to_string()),
        ),
        ("resident_memory_bytes", "gauge", "Resident memory.", number(usage.resident_bytes)),
        ("open_fds", "gauge", "Open files and sockets.", number(usage.open_files)),
        ("max_fds", "gauge", "Most files and sockets that may be open.", number(usage.max_files)),
    ];
    for (name, kind, help, value) in rows {
        let Some(value) = value else { continue };
        let _ = writeln!(out, "# HELP process_{name} {help}\n# TYPE process_{name} {kind}\nprocess_{name} {value}");
    }
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
    let cluster =
        |of: fn(&Membership) -> u64| figures.cluster.as_ref().map_or_else(Vec::new, |cluster| plain(of(cluster)));
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
        (
            "messages_hinted_total",
            "counter",
            "Messages kept for stored sessions of nodes that are away.",
            metric("messages/hinted"),
        ),
        ("hints_sent_total", "counter", "Those that have gone there since.", metric("messages/hinted/sent")),
        ("hints_ended_total", "counter", "Those that nobody was there for any more.", metric("messages/hinted/ended")),
        (
            "hints_refused_total",
            "counter",
            "Messages that would have to be kept and were not.",
            metric("messages/hinted/refused"),
        ),
        (
            "wills_not_kept_total",
            "counter",
            "Clients let in although the cluster does not keep their will.",
            metric("wills/not_kept"),
        ),
        (
            "wills_for_others_total",
            "counter",
            "Wills published here for nodes that are down.",
            metric("wills/for_others"),
        ),
        ("wills_elsewhere_total", "counter", "Wills of this node that other nodes saw to.", metric("wills/elsewhere")),
        ("cluster_members", "gauge", "Members of the cluster.", cluster(|of| of.members)),
        (
            "cluster_members_reached",
            "gauge",
            "Members that this node reaches, itself among them.",
            cluster(|of| of.reached),
        ),
        (
            "cluster_members_open",
            "gauge",
            "Members whose routes this node has, itself among them.",
            cluster(|of| of.open),
        ),
        (
            "cluster_has_leader",
            "gauge",
            "Whether a leader is known, so that the cluster can change.",
            cluster(|of| of.has_leader.into()),
        ),
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
        let usage = Usage { cpu_seconds: Some(1.25), resident_bytes: Some(4096), open_files: Some(9), max_files: None };
        let cluster = Some(Membership { members: 3, reached: 2, has_leader: true, open: 1 });
        let figures = Figures { stats, metrics: report.metrics(), listeners, uptime_seconds: 7, cluster, usage };
        let text = text(&figures);
        insta::assert_snapshot!(text.replace(env!("CARGO_PKG_VERSION"), "VERSION"));
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            let name = name.split('{').next().unwrap();
            assert!(value.parse::<f64>().is_ok() && text.contains(&format!("# TYPE {name} ")), "{line}");
        }
    }
}
