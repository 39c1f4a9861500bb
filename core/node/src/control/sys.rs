//! What the server says of itself under `$SYS/brokers`, in the words of EMQ X 3. All of it is retained.

use std::collections::BTreeMap;

use newtmq_base::{Instant, WallTime};
use newtmq_mqtt::{PacketType, QoS};
use newtmq_session::{Message, MessageId, MessageParts};

use crate::ledger::{DropReason, Ledger};
use crate::store::StoreState;

/// The figures of one shard, or of all.
#[derive(Debug, Clone, Copy, Default)]
pub struct Report {
    /// Open connections.
    pub connections: u64,
    /// Sessions, connected or waiting.
    pub sessions: u64,
    /// Subscriptions of sessions.
    pub subscriptions: u64,
    /// Those of them that are shared.
    pub shared_subscriptions: u64,
    /// Different filters, as far as this shard knows.
    pub filters: u64,
    /// Topics with a retained message.
    pub retained: u64,
    /// Something of this node may have to be stored.
    pub stores: bool,
    /// How the store is, as far as this shard knows.
    pub store: StoreState,
    /// Counters since the start.
    pub ledger: Ledger,
}

impl Report {
    /// The figures of two shards together.
    pub fn add(&mut self, other: &Report) {
        self.connections += other.connections;
        self.sessions += other.sessions;
        self.subscriptions += other.subscriptions;
        self.shared_subscriptions += other.shared_subscriptions;
        // Every shard knows the filters of all.
        self.filters = self.filters.max(other.filters);
        self.retained += other.retained;
        self.stores |= other.stores;
        self.store = self.store.max(other.store);
        self.ledger.add(&other.ledger);
    }

    /// How many there are of what, by the names of EMQ X below `stats`.
    #[must_use]
    pub fn stats(&self) -> [(&'static str, u64); 7] {
        [
            ("connections", self.connections),
            ("sessions", self.sessions),
            ("topics", self.filters),
            ("routes", self.filters),
            ("subscriptions", self.subscriptions),
            ("subscriptions/shared", self.shared_subscriptions),
            ("retained", self.retained),
        ]
    }

    /// Counters since the start, by the names of EMQ X below `metrics`.
    #[must_use]
    pub fn metrics(&self) -> Vec<(String, u64)> {
        let traffic = &self.ledger.traffic;
        let mut all = vec![
            ("bytes/received".to_owned(), traffic.bytes_received),
            ("bytes/sent".to_owned(), traffic.bytes_sent),
            ("packets/received".to_owned(), traffic.packets_received.iter().sum()),
            ("packets/sent".to_owned(), traffic.packets_sent.iter().sum()),
        ];
        for (kind, name, received, sent) in PACKETS {
            let both = received && sent;
            let name = |way| if both { format!("packets/{name}/{way}") } else { format!("packets/{name}") };
            if received {
                all.push((name("received"), traffic.packets_received[kind as usize]));
            }
            if sent {
                all.push((name("sent"), traffic.packets_sent[kind as usize]));
            }
        }
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let at = qos as usize;
            all.push((format!("messages/qos{at}/received"), traffic.messages_received[at]));
            all.push((format!("messages/qos{at}/sent"), traffic.messages_sent[at]));
        }
        all.push(("messages/received".to_owned(), traffic.messages_received.iter().sum()));
        all.push(("messages/sent".to_owned(), traffic.messages_sent.iter().sum()));
        all.push(("messages/retained".to_owned(), self.retained));
        all.push(("messages/dropped".to_owned(), self.ledger.unmatched + self.ledger.dropped_total()));
        all.push(("messages/expired".to_owned(), self.ledger.dropped(DropReason::Expired)));
        all.push(("acl/denied".to_owned(), self.ledger.denied));
        all.push(("messages/forward".to_owned(), self.ledger.forwarded));
        all.push(("messages/hinted".to_owned(), self.ledger.hinted));
        all.push(("messages/hinted/sent".to_owned(), self.ledger.hints_sent));
        all.push(("messages/hinted/ended".to_owned(), self.ledger.hints_ended));
        all.push(("messages/hinted/refused".to_owned(), self.ledger.not_hinted));
        all.push(("wills/not_kept".to_owned(), self.ledger.wills_not_kept));
        all.push(("wills/for_others".to_owned(), self.ledger.wills_for_others));
        all.push(("wills/elsewhere".to_owned(), self.ledger.wills_elsewhere));
        for reason in DropReason::ALL {
            all.push((format!("messages/dropped/{}", reason.name()), self.ledger.dropped(reason)));
        }
        all
    }
}

/// Packets by name, and whether clients and the server send them.
const PACKETS: [(PacketType, &str, bool, bool); 15] = [
    (PacketType::Connect, "connect", true, false),
    (PacketType::Connack, "connack", false, true),
    (PacketType::Publish, "publish", true, true),
    (PacketType::Puback, "puback", true, true),
    (PacketType::Pubrec, "pubrec", true, true),
    (PacketType::Pubrel, "pubrel", true, true),
    (PacketType::Pubcomp, "pubcomp", true, true),
    (PacketType::Subscribe, "subscribe", true, false),
    (PacketType::Suback, "suback", false, true),
    (PacketType::Unsubscribe, "unsubscribe", true, false),
    (PacketType::Unsuback, "unsuback", false, true),
    (PacketType::Pingreq, "pingreq", true, false),
    (PacketType::Pingresp, "pingresp", false, true),
    (PacketType::Disconnect, "disconnect", true, true),
    (PacketType::Auth, "auth", true, true),
];

/// Writes the messages.
#[derive(Debug)]
pub(super) struct Sys {
    node: Box<str>,
    version: &'static str,
    started: Instant,
    wall: WallTime,
    /// Highest figures seen.
    most: [u64; 7],
    /// The newest figures of gateways.
    gateways: BTreeMap<Box<str>, Vec<(&'static str, u64)>>,
}

impl Sys {
    pub(super) fn new(node: Box<str>, version: &'static str, started: Instant, wall: WallTime) -> Sys {
        Sys { node, version, started, wall, most: [0; 7], gateways: BTreeMap::new() }
    }

    /// A gateway has told its figures.
    pub(super) fn hear(&mut self, gateway: Box<str>, figures: Vec<(&'static str, u64)>) {
        self.gateways.insert(gateway, figures);
    }

    /// The highest figures that were told, in the order of [`Report::stats`].
    pub(super) fn most(&self) -> [u64; 7] {
        self.most
    }

    /// All that there is to say. `running` are the names of the nodes that run, of a node in a cluster.
    pub(super) fn messages(&mut self, now: Instant, report: &Report, running: Option<&[String]>) -> Vec<Message> {
        let mut scratch = Vec::new();
        let node = format!("$SYS/brokers/{}", self.node);
        let mut all = Vec::new();
        let mut say = |topic: &str, payload: &str| all.push(retained(topic, payload, &mut scratch));
        match running {
            Some(nodes) => say("$SYS/brokers", &nodes.join(",")),
            None => say("$SYS/brokers", &self.node),
        }
        say(&format!("{node}/version"), self.version);
        say(&format!("{node}/sysdescr"), "NewtMQ MQTT broker");
        say(&format!("{node}/uptime"), &uptime((now - self.started).as_secs()));
        let wall = self.wall.0 + u64::try_from((now - self.started).as_millis()).unwrap_or(u64::MAX);
        say(&format!("{node}/datetime"), &datetime(wall));
        let store = match report.store {
            _ if !report.stores => "memory",
            StoreState::Open => "open",
            StoreState::Full => "full",
            StoreState::Failed => "failed",
        };
        say(&format!("{node}/store"), store);
        for (most, (name, count)) in self.most.iter_mut().zip(report.stats()) {
            *most = count.max(*most);
            say(&format!("{node}/stats/{name}/count"), &count.to_string());
            say(&format!("{node}/stats/{name}/max"), &most.to_string());
        }
        for (name, count) in report.metrics() {
            say(&format!("{node}/metrics/{name}"), &count.to_string());
        }
        let mut of_gateways: BTreeMap<&str, u64> = BTreeMap::new();
        for (name, count) in self.gateways.values().flatten() {
            *of_gateways.entry(name).or_default() += count;
        }
        for (name, count) in of_gateways {
            say(&format!("{node}/metrics/{name}"), &count.to_string());
        }
        all
    }
}

fn retained(topic: &str, payload: &str, scratch: &mut Vec<u8>) -> Message {
    let parts = MessageParts {
        id: MessageId::NONE,
        topic: topic.as_bytes(),
        forwardable: &[],
        payload: payload.as_bytes(),
        qos: QoS::AtMostOnce,
        retain: true,
        expires: Instant::NEVER,
        stretched: false,
    };
    Message::new(&parts, scratch)
}

/// As in "1 days, 2 hours, 3 minutes, 4 seconds".
pub fn uptime(seconds: u64) -> String {
    let units = [("days", seconds / 86_400), ("hours", seconds / 3600 % 24), ("minutes", seconds / 60 % 60)];
    let mut text = String::new();
    for (unit, count) in units {
        if count > 0 || !text.is_empty() {
            text += &format!("{count} {unit}, ");
        }
    }
    text + &format!("{} seconds", seconds % 60)
}

/// UTC, as in "2026-11-23 12:34:56"; from milliseconds since 1970.
pub fn datetime(millis: u64) -> String {
    let (days, seconds) = (millis / 1000 / 86_400, millis / 1000 % 86_400);
    // Days since 0000-03-01, in eras of 400 years (Hinnant, chrono-compatible low-level date algorithms).
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::{datetime, uptime};

    #[test]
    fn times_as_people_read_them() {
        for (millis, text) in [
            (0, "1970-01-01 00:00:00"),
            (951_782_399_000, "2000-02-28 23:59:59"),
            (951_782_400_000, "2000-02-29 00:00:00"),
            (1_709_251_199_999, "2024-02-29 23:59:59"),
            (1_735_689_599_000, "2024-12-31 23:59:59"),
            (4_107_542_400_000, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(datetime(millis), text);
        }
        assert_eq!(uptime(59), "59 seconds");
        assert_eq!(uptime(3600), "1 hours, 0 minutes, 0 seconds");
        assert_eq!(uptime(90_061), "1 days, 1 hours, 1 minutes, 1 seconds");
    }
}
