//! Events in words, for every form in which people see a run: who sent what, which events belong to a violation's
//! message. Reads a report, never runs anything.

mod cluster;

use std::collections::{BTreeMap, BTreeSet};

use newtmq_base::{Instant, NodeId};
use newtmq_mqtt::{ProtocolVersion, ReasonCode};

use crate::history::{
    AckKind, ClientIx, Closer, ConnIx, ConnectFacts, Event, Fault, NameIx, NodeIx, PublishFacts, ReceiveFacts,
    SnConnect, Uid,
};
use crate::report::{Report, Violation};
use crate::scenario::Scenario;

pub(crate) use cluster::command;

/// Names of what a run's events name by number.
pub(crate) struct Words<'a> {
    scenario: &'a Scenario,
    report: &'a Report,
    owners: BTreeMap<ConnIx, (ClientIx, NodeIx)>,
    nodes: BTreeMap<NodeId, NodeIx>,
}

/// Which way an event goes between a client and the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From the client.
    ToServer,
    /// To the client.
    ToClient,
    /// Neither: something that happens at the client.
    Here,
}

/// An event between a client and the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    /// Which connection.
    pub(crate) conn: ConnIx,
    /// Which way.
    pub(crate) way: Way,
    /// The packet and what matters most of it.
    pub(crate) what: String,
    /// More of it; may be empty.
    pub(crate) note: String,
}

impl<'a> Words<'a> {
    pub(crate) fn new(scenario: &'a Scenario, report: &'a Report) -> Words<'a> {
        let (mut owners, mut nodes) = (BTreeMap::new(), BTreeMap::new());
        for stamped in report.history.iter().flat_map(|history| &history.events) {
            if let Event::Connect { conn, client, facts } = &stamped.event {
                owners.insert(*conn, (*client, facts.node));
            } else if let Event::NodeUp { node, id, .. } = &stamped.event {
                nodes.insert(*id, *node);
            }
        }
        Words { scenario, report, owners, nodes }
    }

    /// A client's name in the scenario.
    pub(crate) fn client(&self, client: ClientIx) -> String {
        self.scenario
            .clients
            .get(client.0 as usize)
            .map_or_else(|| format!("client {}", client.0), |spec| printable(&spec.name))
    }

    /// Whose connection it is.
    pub(crate) fn owner(&self, conn: ConnIx) -> Option<ClientIx> {
        self.owners.get(&conn).map(|(client, _)| *client)
    }

    /// The name of a connection's client.
    pub(crate) fn of_conn(&self, conn: ConnIx) -> String {
        self.owner(conn).map_or_else(|| format!("connection {}", conn.0), |client| self.client(client))
    }

    /// What stands on the broker's side of a connection.
    pub(crate) fn server(&self, conn: ConnIx) -> String {
        match self.owners.get(&conn) {
            Some((_, node)) if self.scenario.nodes > 1 => node_name(*node),
            Some(_) | None => "broker".into(),
        }
    }

    /// A topic, filter or Client Identifier.
    pub(crate) fn text(&self, name: NameIx) -> String {
        match &self.report.history {
            Some(history) if (name.0 as usize) < history.names.len() => printable(history.names.text(name)),
            Some(_) | None => format!("name {}", name.0),
        }
    }

    /// A message as `publisher#number`.
    pub(crate) fn uid(&self, uid: Uid) -> String {
        format!("{}#{}", self.client(uid.publisher), uid.number)
    }

    /// A text of a violation as people read it: `c3#7`, as checks name a message, becomes `sensor#7`.
    pub(crate) fn told(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        for (i, word) in text.split(' ').enumerate() {
            if i > 0 {
                out.push(' ');
            }
            let start = word.find(|c: char| c.is_ascii_alphanumeric()).unwrap_or(0);
            let (before, name) = word.split_at(start);
            out.push_str(before);
            let parts = name.strip_prefix('c').and_then(|rest| rest.split_once('#'));
            match parts.and_then(|(client, number)| Some((client.parse().ok()?, number))) {
                Some((client, number)) if number.starts_with(|c: char| c.is_ascii_digit()) => {
                    out.push_str(&self.client(ClientIx(client)));
                    out.push('#');
                    out.push_str(number);
                }
                Some(_) | None => out.push_str(name),
            }
        }
        printable(&out)
    }

    /// A violation's moments; one that tells none has that at which it was found.
    pub(crate) fn moments(&self, violation: &Violation) -> Vec<(Instant, String)> {
        if violation.witness.moments.is_empty() {
            return vec![(violation.at, "it is found".into())];
        }
        violation.witness.moments.iter().map(|(at, what)| (*at, self.told(what))).collect()
    }

    /// What a client and the broker said to each other, or what the client did; `None` for events of the world.
    pub(crate) fn said(&self, event: &Event, at: Instant) -> Option<Said> {
        let (conn, way, what, note) = match event {
            Event::Connect { conn, facts, .. } => {
                (conn, Way::ToServer, format!("CONNECT {}", self.text(facts.client_id)), self.connect_note(facts))
            }
            Event::Connack { conn, present, code, .. } => {
                let note = if *present { "session present" } else { "" };
                (conn, Way::ToClient, with_code("CONNACK", *code), note.into())
            }
            Event::Subscribe { conn, filters, .. } => {
                let filters: Vec<_> =
                    filters.iter().map(|f| format!("{} q{}", self.text(f.filter), f.qos as u8)).collect();
                (conn, Way::ToServer, format!("SUBSCRIBE {}", filters.join(", ")), String::new())
            }
            Event::Suback { conn, codes, .. } => (conn, Way::ToClient, with_codes("SUBACK", codes), String::new()),
            Event::Unsubscribe { conn, filters, .. } => {
                let filters: Vec<_> = filters.iter().map(|f| self.text(*f)).collect();
                (conn, Way::ToServer, format!("UNSUBSCRIBE {}", filters.join(", ")), String::new())
            }
            Event::Unsuback { conn, codes, .. } => (conn, Way::ToClient, with_codes("UNSUBACK", codes), String::new()),
            Event::Publish { conn, facts } => (conn, Way::ToServer, self.published(facts), pid_note(facts.pid)),
            Event::Receive { conn, facts } => {
                let latency = millis(at.as_nanos().saturating_sub(facts.sent_at.as_nanos()));
                let id = facts.pid.map(|pid| format!(", id {pid}")).unwrap_or_default();
                (conn, Way::ToClient, self.received(facts), format!("{latency} under way{id}"))
            }
            Event::Acked { conn, kind, pid, code, .. } => {
                (conn, Way::ToClient, with_code(&format!("{} {pid}", kind.name()), *code), String::new())
            }
            Event::Release { conn, pid } => (conn, Way::ToServer, format!("PUBREL {pid}"), String::new()),
            Event::Ack { conn, kind, pid, code } => {
                (conn, Way::ToServer, with_code(&format!("{} {pid}", kind.name()), *code), String::new())
            }
            Event::Released { conn, pid } => (conn, Way::ToClient, format!("PUBREL {pid}"), String::new()),
            Event::Handed { conn, uid, .. } => {
                (conn, Way::Here, format!("hands {} to its application", self.uid(*uid)), String::new())
            }
            Event::Pingreq { conn } => (conn, Way::ToServer, "PINGREQ".into(), String::new()),
            Event::Pingresp { conn } => (conn, Way::ToClient, "PINGRESP".into(), String::new()),
            Event::Disconnect { conn, by, code, .. } => {
                let way = if *by == Closer::Server { Way::ToClient } else { Way::ToServer };
                (conn, way, with_code("DISCONNECT", *code), String::new())
            }
            Event::Close { conn, by } => {
                (conn, Way::Here, format!("connection is over, {}", closer(*by)), String::new())
            }
            Event::AskWill { conn, will } => {
                let what = will.map_or_else(
                    || "asks for no will".to_owned(),
                    |will| format!("asks for the will {} to {}", self.uid(will.uid), self.text(will.topic)),
                );
                (conn, Way::ToServer, what, String::new())
            }
            Event::WillSet { conn } => (conn, Way::ToClient, "the will is as it asked".into(), String::new()),
            Event::Gone { conn } => {
                (conn, Way::Here, "the broker notices that the connection is over".into(), String::new())
            }
            Event::Wild { conn, what } => {
                (conn, Way::ToServer, format!("breaks the protocol: {}", printable(what)), String::new())
            }
            Event::Unexpected { conn, what } => {
                (conn, Way::ToClient, format!("what no broker may send: {}", printable(what)), String::new())
            }
            Event::Fault(_)
            | Event::NodeUp { .. }
            | Event::NodeDown { .. }
            | Event::Cluster { .. }
            | Event::Command { .. }
            | Event::Answer { .. }
            | Event::Calm
            | Event::Quiesce => return None,
        };
        Some(Said { conn: *conn, way, what, note })
    }

    fn connect_note(&self, facts: &ConnectFacts) -> String {
        let version = match facts.sn {
            None => version_name(facts.version),
            Some(SnConnect::Connect) => "MQTT-SN",
            Some(SnConnect::Wake) => "MQTT-SN, wakes with PINGREQ",
            Some(SnConnect::Unconnected) => "MQTT-SN, without a connection",
        };
        let mut note = vec![version.to_owned()];
        note.extend(facts.clean.then(|| "clean".to_owned()));
        note.extend(facts.expiry_s.filter(|s| *s > 0).map(|s| format!("session expiry {s} s")));
        note.extend(facts.will.map(|will| format!("will to {} q{}", self.text(will.topic), will.qos as u8)));
        note.join(", ")
    }

    fn published(&self, facts: &PublishFacts) -> String {
        let PublishFacts { uid, topic, qos, dup, retain, size, .. } = facts;
        self.message(*uid, *topic, *qos as u8, *dup, *retain, *size)
    }

    fn received(&self, facts: &ReceiveFacts) -> String {
        let ReceiveFacts { uid, topic, qos, dup, retain, size, .. } = facts;
        self.message(*uid, *topic, *qos as u8, *dup, *retain, *size)
    }

    fn message(&self, uid: Option<Uid>, topic: NameIx, qos: u8, dup: bool, retain: bool, size: u32) -> String {
        let who = match uid {
            Some(uid) => self.uid(uid),
            None if size == 0 => "(empty)".into(),
            None => "(not intact)".into(),
        };
        let dup = if dup { " DUP" } else { "" };
        let retain = if retain { " RETAIN" } else { "" };
        format!("PUBLISH {} q{qos} {who}{dup}{retain}", self.text(topic))
    }

    /// A fault: whom it concerns and what it is.
    pub(crate) fn fault(&self, fault: &Fault) -> (String, String) {
        match fault {
            Fault::Cut { client, to_server, to_client } => {
                let way = match (to_server, to_client) {
                    (true, true) => "both ways",
                    (true, false) => "toward the broker",
                    (false, _) => "toward the client",
                };
                (self.client(*client), format!("the network is cut {way}"))
            }
            Fault::Heal { client } => (self.client(*client), "the network works again".into()),
            Fault::Bandwidth { client, bytes_per_s: 0 } => (self.client(*client), "full bandwidth again".into()),
            Fault::Bandwidth { client, bytes_per_s } => {
                (self.client(*client), format!("only {bytes_per_s} bytes a second"))
            }
            Fault::Reading { client, on: false } => (self.client(*client), "stops reading".into()),
            Fault::Reading { client, on: true } => (self.client(*client), "reads again".into()),
            Fault::Freeze { client, on: true } => (self.client(*client), "is frozen".into()),
            Fault::Freeze { client, on: false } => (self.client(*client), "wakes up".into()),
            Fault::Pause { node, until } => (node_name(*node), format!("is paused until {until}")),
            Fault::ClockJump { node, by_ms } => (node_name(*node), format!("the wall clock jumps by {by_ms} ms")),
            Fault::Drift { node, ppm } => (node_name(*node), format!("the clock drifts by {ppm} ppm")),
            Fault::Lag { node, shard, by_us: 0 } => (node_name(*node), format!("shard {shard} hears in time again")),
            Fault::Lag { node, shard, by_us } => (node_name(*node), format!("shard {shard} hears {by_us} µs late")),
            Fault::Crash { node, power_loss: false } => (node_name(*node), "crashes".into()),
            Fault::Crash { node, power_loss: true } => (node_name(*node), "loses its power".into()),
            Fault::DiskFull { node, on: true } => (node_name(*node), "its disk is full".into()),
            Fault::DiskFull { node, on: false } => (node_name(*node), "its disk has space again".into()),
            Fault::DiskSlow { node, by_us: 0 } => (node_name(*node), "its disk is as fast as before".into()),
            Fault::DiskSlow { node, by_us } => (node_name(*node), format!("its disk syncs {by_us} µs slower")),
            Fault::DiskFails { node } => (node_name(*node), "its disk fails to sync".into()),
            Fault::DiskRot { node } => (node_name(*node), "a bit turns on its disk".into()),
            Fault::Restart { node } => (node_name(*node), "starts again".into()),
            Fault::Shutdown { node } => (node_name(*node), "is stopped in order".into()),
            Fault::MemoryPressure { node, level: 0 } => (node_name(*node), "has memory again".into()),
            Fault::MemoryPressure { node, level } => (node_name(*node), format!("is short of memory, level {level}")),
            Fault::LinkCut { from, to } => (node_name(*from), format!("nothing of it reaches {}", node_name(*to))),
            Fault::LinkHealed { from, to } => (node_name(*from), format!("{} hears it again", node_name(*to))),
            Fault::LinkSlow { from, to, by_us: 0, bytes_per_s: 0 } => {
                (node_name(*from), format!("its link to {} is as fast as before", node_name(*to)))
            }
            Fault::LinkSlow { from, to, by_us, bytes_per_s } => {
                let (to, late) = (node_name(*to), millis(by_us.saturating_mul(1_000)));
                let line = if *bytes_per_s > 0 { format!(", {bytes_per_s} bytes a second") } else { String::new() };
                (node_name(*from), format!("its link to {to} is slow: {late} more{line}"))
            }
            Fault::Wipe { node } => (node_name(*node), "has lost its disk".into()),
        }
    }

    /// For each event whether it belongs to the way of one of these messages: its publishes, deliveries and what
    /// acknowledges them.
    pub(crate) fn journey(&self, uids: &BTreeSet<Uid>) -> Vec<bool> {
        // Exchanges by connection, direction and Packet Identifier: an identifier names other messages later.
        let mut open: BTreeSet<(ConnIx, bool, u16)> = BTreeSet::new();
        let events = self.report.history.iter().flat_map(|history| &history.events);
        events
            .map(|stamped| match &stamped.event {
                Event::Publish { conn, facts } => {
                    follow(&mut open, uids, facts.uid, facts.pid.map(|pid| (*conn, true, pid)))
                }
                Event::Receive { conn, facts } => {
                    follow(&mut open, uids, facts.uid, facts.pid.map(|pid| (*conn, false, pid)))
                }
                Event::Handed { uid, .. } => uids.contains(uid),
                Event::Acked { conn, pid, kind, .. } => exchange(&mut open, (*conn, true, *pid), *kind),
                Event::Ack { conn, pid, kind, .. } => exchange(&mut open, (*conn, false, *pid), *kind),
                Event::Release { conn, pid } => open.contains(&(*conn, true, *pid)),
                Event::Released { conn, pid } => open.contains(&(*conn, false, *pid)),
                Event::Connect { facts, .. } => facts.will.is_some_and(|will| uids.contains(&will.uid)),
                Event::Connack { .. }
                | Event::Subscribe { .. }
                | Event::Suback { .. }
                | Event::Unsubscribe { .. }
                | Event::Unsuback { .. }
                | Event::Pingreq { .. }
                | Event::Pingresp { .. }
                | Event::Disconnect { .. }
                | Event::AskWill { .. }
                | Event::WillSet { .. }
                | Event::Close { .. }
                | Event::Gone { .. }
                | Event::Wild { .. }
                | Event::Unexpected { .. }
                | Event::Fault(_)
                | Event::NodeUp { .. }
                | Event::NodeDown { .. }
                | Event::Cluster { .. }
                | Event::Command { .. }
                | Event::Answer { .. }
                | Event::Calm
                | Event::Quiesce => false,
            })
            .collect()
    }

    /// The messages that violations are about.
    pub(crate) fn uids(&self) -> BTreeSet<Uid> {
        self.report.violations.iter().filter_map(|violation| violation.witness.uid).collect()
    }
}

fn follow(
    open: &mut BTreeSet<(ConnIx, bool, u16)>,
    uids: &BTreeSet<Uid>,
    uid: Option<Uid>,
    exchange: Option<(ConnIx, bool, u16)>,
) -> bool {
    let wanted = uid.is_some_and(|uid| uids.contains(&uid));
    if let Some(exchange) = exchange {
        if wanted {
            open.insert(exchange);
        } else {
            open.remove(&exchange);
        }
    }
    wanted
}

fn exchange(open: &mut BTreeSet<(ConnIx, bool, u16)>, key: (ConnIx, bool, u16), kind: AckKind) -> bool {
    match kind {
        AckKind::Puback | AckKind::Pubcomp => open.remove(&key),
        AckKind::Pubrec | AckKind::Pubrel => open.contains(&key),
    }
}

/// Text without control characters, so that a hostile topic cannot move a terminal's cursor.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() || matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}') {
                '\u{FFFD}'
            } else {
                c
            }
        })
        .collect()
}

/// A duration as people say it.
pub(crate) fn millis(nanos: u64) -> String {
    match nanos {
        0..1_000_000 => format!("{} µs", nanos / 1_000),
        1_000_000..10_000_000 => format!("{}.{} ms", nanos / 1_000_000, nanos / 100_000 % 10),
        10_000_000..1_000_000_000 => format!("{} ms", nanos / 1_000_000),
        _ => format!("{}.{:02} s", nanos / 1_000_000_000, nanos / 10_000_000 % 100),
    }
}

/// A number with its thousands apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `one thing`, `2 things`.
pub(crate) fn counted(number: u64, one: &str, many: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{} {many}", grouped(number)) }
}

pub(crate) fn node_name(node: NodeIx) -> String {
    format!("node {}", node.0)
}

pub(crate) const fn version_name(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::V31 => "MQTT 3.1",
        ProtocolVersion::V311 => "MQTT 3.1.1",
        ProtocolVersion::V5 => "MQTT 5.0",
    }
}

pub(crate) const fn closer(by: Closer) -> &'static str {
    match by {
        Closer::Client => "ended by the client",
        Closer::Server => "ended by the broker",
        Closer::Network => "broken by the network",
    }
}

fn with_code(packet: &str, code: ReasonCode) -> String {
    if code.code() == 0 { packet.into() } else { format!("{packet} 0x{:02x} {}", code.code(), code.name()) }
}

fn with_codes(packet: &str, codes: &[ReasonCode]) -> String {
    let codes: Vec<_> = codes.iter().map(|code| format!("{:x}", code.code())).collect();
    if codes.is_empty() { packet.into() } else { format!("{packet} [{}]", codes.join(" ")) }
}

fn pid_note(pid: Option<u16>) -> String {
    pid.map(|pid| format!("id {pid}")).unwrap_or_default()
}
