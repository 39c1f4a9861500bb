//! The story of each violation in words: what happened in order of time, which promise it breaks, and which excuses were
//! looked for and not found. For a run without violations what went on and what was checked. Reads a report alone.

use core::fmt::Write as _;
use std::collections::BTreeSet;

use newtmq_base::Instant;

use crate::history::{ClientIx, ConnIx, Event, Fault, PublishFacts, Stamped};
use crate::report::{Check, Report, Violation};
use crate::scenario::{Acks, ClientSpec, Scenario};
use crate::timeline::class_name;
use crate::words::{Way, Words, counted, grouped, millis, printable};

/// What happened, in words.
#[must_use]
pub fn explain(scenario: &Scenario, report: &Report) -> String {
    let words = Words::new(scenario, report);
    let mut out = String::new();
    if !scenario.why.is_empty() {
        let _ = writeln!(out, "{}\n", printable(&scenario.why));
    }
    if report.violations.is_empty() {
        out.push_str(&clean(&words, report));
        return out;
    }
    for (i, violation) in report.violations.iter().enumerate() {
        if i > 0 {
            out.push('\n');
        }
        let story = story(&words, scenario, report, violation);
        let class = class_name(violation.check.class());
        let _ = writeln!(out, "{} ({class}): {}", violation.check, violation.check.about());
        let _ = writeln!(out, "{}", sentence(&words.told(&violation.message)));
        for (at, line) in &story.happened {
            let _ = writeln!(out, "  {:>9}  {line}", at.to_string());
        }
        let _ = writeln!(out, "Why this is wrong: {}", story.promise);
        if !story.excluded.is_empty() {
            let _ = writeln!(out, "What does not excuse it:");
            for line in &story.excluded {
                let _ = writeln!(out, "  - {line}");
            }
        }
    }
    if report.more > 0 {
        let _ = writeln!(out, "\n{} not kept.", counted(report.more, "more violation was", "more violations were"));
    }
    out
}

/// A violation's story.
pub(crate) struct Story {
    /// What happened, in order of time.
    pub(crate) happened: Vec<(Instant, String)>,
    /// What the specification says.
    pub(crate) promise: &'static str,
    /// Excuses that do not hold.
    pub(crate) excluded: Vec<String>,
}

pub(crate) fn story(words: &Words<'_>, scenario: &Scenario, report: &Report, violation: &Violation) -> Story {
    Story {
        happened: happened(words, report, violation),
        promise: promise(violation.check),
        excluded: excluded(words, scenario, report, violation),
    }
}

/// The moments of the witness, and the way of its message where no moment tells it.
fn happened(words: &Words<'_>, report: &Report, violation: &Violation) -> Vec<(Instant, String)> {
    let witness = &violation.witness;
    let moments = words.moments(violation);
    let mut lines: Vec<(Instant, String)> = moments.iter().map(|(at, what)| (*at, sentence(what))).collect();
    let uids: BTreeSet<_> = witness.uid.into_iter().collect();
    if let Some(history) = report.history.as_ref().filter(|_| !uids.is_empty()) {
        let told: BTreeSet<Instant> = moments.iter().map(|(at, _)| *at).collect();
        let journey = words.journey(&uids);
        let mut others = Vec::new();
        let mut steps = Vec::new();
        for (stamped, _) in history.events.iter().zip(journey).filter(|(_, on)| *on) {
            match words.said(&stamped.event, stamped.at).and_then(|said| words.owner(said.conn)) {
                Some(who) if witness.clients.contains(&who) => {
                    steps.extend(told_by(words, stamped).filter(|(at, _)| !told.contains(at)));
                }
                Some(who) if matches!(stamped.event, Event::Receive { .. }) => others.push((stamped.at, who)),
                Some(_) | None => {}
            }
        }
        let left = steps.len().saturating_sub(STEPS_MAX);
        lines.extend(steps.into_iter().take(STEPS_MAX));
        if left > 0 {
            lines.push((
                violation.at,
                format!("{} of the message's way.", counted(left as u64, "more step", "more steps")),
            ));
        }
        lines.extend(told_of_others(words, &others));
    }
    lines.sort_by_key(|(at, _)| *at);
    lines
}

/// A message's deliveries to clients that the violation is not about, in one line.
fn told_of_others(words: &Words<'_>, others: &[(Instant, ClientIx)]) -> Option<(Instant, String)> {
    let first = others.first()?.0;
    let who: BTreeSet<ClientIx> = others.iter().map(|(_, who)| *who).collect();
    let names: Vec<_> = who.iter().take(3).map(|who| words.client(*who)).collect();
    let more = who.len() - names.len();
    let names = match &names[..] {
        all if more > 0 => format!("{} and {more} more", all.join(", ")),
        [first @ .., last] if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        all => all.concat(),
    };
    let verb = if who.len() == 1 { "gets" } else { "get" };
    Some((first, format!("{names} {verb} the message.")))
}

fn told_by(words: &Words<'_>, stamped: &Stamped) -> Option<(Instant, String)> {
    // That a message is handed on is told where it arrives.
    if matches!(stamped.event, Event::Handed { .. }) {
        return None;
    }
    let said = words.said(&stamped.event, stamped.at)?;
    let who = words.of_conn(said.conn);
    let line = match said.way {
        Way::ToServer => format!("{who} sends {} on connection {}.", said.what, said.conn.0),
        Way::ToClient => format!("{who} gets {} on connection {}.", said.what, said.conn.0),
        Way::Here => format!("{who}: {}.", said.what),
    };
    Some((stamped.at, line))
}

/// Which statement of the specification a check is about.
pub(crate) const fn promise(check: Check) -> &'static str {
    match check {
        Check::Lost => {
            "a server that takes ownership of a message adds it to the Session State of every client with a matching \
             subscription [MQTT-4.5.0-1], and keeps sending until it is acknowledged [MQTT-4.3.2-1] [MQTT-4.4.0-1]."
        }
        Check::Phantom => {
            "the Topic Name of what a server sends matches a filter of the client's subscriptions [MQTT-3.3.2-3]; after \
             an UNSUBSCRIBE nothing new is added [MQTT-3.10.4-2]. Nothing that was published justifies this delivery."
        }
        Check::Twice => {
            "QoS 2 is exactly once: until PUBREL the receiver answers the same Packet Identifier with PUBREC and hands \
             nothing onward a second time [MQTT-4.3.3-10]."
        }
        Check::Duplicate => {
            "unacknowledged messages are sent again when a session is resumed, and at no other time [MQTT-4.4.0-1]."
        }
        Check::Order => {
            "a server sends the messages of one client with the same topic and QoS in the order in which they were \
             received [MQTT-4.6.0-5] [MQTT-4.6.0-6]."
        }
        Check::TwoServed => {
            "when a Client Identifier connects again the server closes the connection that has it [MQTT-3.1.4-3]."
        }
        Check::SessionPresent => {
            "Session Present is 1 if, and only if, the server has the session and Clean Start is 0 [MQTT-3.2.2-2] \
             [MQTT-3.2.2-3]."
        }
        Check::PacketIdReused => {
            "a new message takes a Packet Identifier that is not in use [MQTT-2.2.1-4]; it is free after PUBACK, PUBCOMP \
             or an error in PUBREC alone."
        }
        Check::Retained => {
            "a message with RETAIN replaces the topic's retained message [MQTT-3.3.1-5], an empty one removes it \
             [MQTT-3.3.1-6]."
        }
        Check::RetainedMissed => {
            "a new subscription gets the retained message [MQTT-3.3.1-9], what is published after it the live one: one \
             of the two must come."
        }
        Check::Will => {
            "a Will Message is published once, when its connection ended without a DISCONNECT with 0x00 and its delay is \
             over [MQTT-3.1.2-8] [MQTT-3.1.2-10]."
        }
        Check::WillFired => "a Will Message that is due is published [MQTT-3.1.2-8].",
        Check::Shared => "a message for a shared subscription is delivered to one of its sessions alone (4.8.2).",
        Check::Content => {
            "a delivery has the publisher's payload and topic, the lower of the two QoS [MQTT-3.8.4-8] and the \
             subscription's identifier [MQTT-3.3.4-3]."
        }
        Check::Durable => {
            "a server that acknowledges a message has taken ownership of it [MQTT-4.3.2-4] [MQTT-4.3.3-8]; with \
             `durability` that outlives its process, and what it acknowledges is stored before."
        }
        Check::Protocol => {
            "a server sends only packets that the specification allows it, each where it may (2, 3, 4.13)."
        }
        Check::Window => {
            "a server has no more unacknowledged QoS 1 and 2 messages under way than the client's Receive Maximum \
             [MQTT-3.3.4-9]."
        }
        Check::KeptOut => "of connections that come at the same time with one Client Identifier one is accepted (P7).",
        Check::TurnedAway => {
            "a valid CONNECT is accepted [MQTT-3.1.4-5] unless nobody who decides, or not the node with the session, can be reached."
        }
        Check::ConnectAnswered => "a valid CONNECT is answered with CONNACK [MQTT-3.1.4-5].",
        Check::PublishAnswered => {
            "a PUBLISH with QoS 1 is answered with PUBACK [MQTT-4.3.2-4], with QoS 2 with PUBREC [MQTT-4.3.3-8]."
        }
        Check::RequestAnswered => {
            "SUBSCRIBE is answered with SUBACK [MQTT-3.8.4-1], UNSUBSCRIBE with UNSUBACK [MQTT-3.10.4-4], PINGREQ with \
             PINGRESP [MQTT-3.12.4-1]."
        }
        Check::Kept => {
            "a server closes a connection only for a reason that the specification or its configuration names."
        }
        Check::Ledger => {
            "every message that was accepted is delivered, queued or dropped for a reason that is counted."
        }
        Check::Stored => "a promise of the broker to itself: what is told to be stored survives a power loss.",
        Check::Queues => "a queue never holds more than its configuration allows.",
        Check::Ids => {
            "the Packet Identifiers in use are those of the unacknowledged messages, no more than the window."
        }
        Check::Routes => "the routes of all shards are the sum of the subscriptions of all sessions.",
        Check::Leak => "when nothing goes on nothing is left: no timer, connection, share or wait without an owner.",
        Check::Refused => {
            "a publish is refused with 0x97 only when somebody that it is for cannot take it: a node was out of reach, or \
             a limit is hit."
        }
        Check::CommandAnswered => "what an operator asks of a cluster is answered, done or refused, within 15 s.",
        Check::Degraded => "a node without a quorum serves its clients as before.",
        Check::Leaders => "a term has one leader, and what is committed stays as it is.",
        Check::Owners => "a node is the only writer of its own routes.",
        Check::Replicas => {
            "all copies of a node's routes are the same at the same version, and versions never go back."
        }
        Check::Epochs => "each connection that has a session has an epoch of its own, higher than those before.",
        Check::Incarnations => "each start of a node has a number of its own, higher than those before.",
        Check::Spread => {
            "a promise of the broker: every node that reaches the leader has such a change within 2 s (P14)."
        }
        Check::Written => {
            "a promise of the broker: such a change, once it is confirmed, stays until a later one (P14)."
        }
        Check::Removals => {
            "a member is removed by a leader alone whose quorum is a majority of the members, and not before the set time."
        }
        Check::DownJustified => "a node counts another one as down only when something is wrong with it or on the way.",
        Check::LanesEmpty => "when nothing goes on nothing waits between nodes, and all credit is back.",
        Check::OneSession => {
            "when nothing goes on a client has one session and one connection in a cluster, and the directory knows where."
        }
        Check::RetainedApart => "when nothing goes on all members of a cluster have the same retained messages.",
        Check::Members => "when nothing goes on the members are those who are alive, and all of them have links.",
        Check::Led => "3 s after the last fault there is a leader.",
        Check::Healed => "15 s after the last fault all members know each other, are alive and linked.",
        Check::RoutesHealed => "17 s after the last fault every node has the routes of all.",
        Check::Crash => "whatever a client sends, the broker goes on.",
    }
}

/// Facts that could excuse a missing or repeated delivery, and do not.
fn excluded(words: &Words<'_>, scenario: &Scenario, report: &Report, violation: &Violation) -> Vec<String> {
    let mut lines = Vec::new();
    let Some(history) = &report.history else { return lines };
    let witness = &violation.witness;
    let publish = witness.uid.and_then(|uid| {
        history.events.iter().find_map(|stamped| {
            let Event::Publish { facts, .. } = &stamped.event else { return None };
            (facts.uid == Some(uid)).then_some((stamped.at, *facts))
        })
    });
    let from = publish.map(|(at, _)| at).or_else(|| witness.moments.first().map(|(at, _)| *at)).unwrap_or_default();
    if let Some((_, facts)) = publish {
        message_excuses(words, &facts, violation.check, &mut lines);
    }
    if let Some(wronged) = witness.clients.first() {
        let spec = scenario.clients.get(wronged.0 as usize);
        client_excuses(words, &history.events, *wronged, spec, violation.check, &mut lines);
        connection_excuse(words, &history.events, *wronged, from, violation.at, &mut lines);
        fault_excuse(words, &history.events, *wronged, from, violation.at, &mut lines);
    }
    lines
}

fn message_excuses(words: &Words<'_>, facts: &PublishFacts, check: Check, lines: &mut Vec<String>) {
    if !matches!(check, Check::Lost | Check::RetainedMissed | Check::Shared | Check::Order | Check::WillFired) {
        return;
    }
    let topic = words.text(facts.topic);
    lines.push(match facts.expiry_s {
        None => format!("The message on {topic} has no Message Expiry Interval."),
        Some(s) => format!("Its Message Expiry Interval of {s} s was taken into account."),
    });
}

fn client_excuses(
    words: &Words<'_>,
    events: &[Stamped],
    client: ClientIx,
    spec: Option<&ClientSpec>,
    check: Check,
    lines: &mut Vec<String>,
) {
    let (name, Some(spec)) = (words.client(client), spec) else { return };
    if !matches!(check, Check::Lost | Check::RetainedMissed | Check::Shared) {
        return;
    }
    if spec.max_packet_size == 0 {
        lines.push(format!("{name} has no Maximum Packet Size that the message could exceed."));
    }
    if spec.acks == Acks::Auto {
        lines.push(format!(
            "{name} acknowledges what it gets, so its Receive Maximum of {} is no reason.",
            spec.receive_maximum
        ));
    }
    let mut open: Option<ConnIx> = None;
    for stamped in events {
        if let Event::Connack { conn, code, .. } = &stamped.event {
            if words.owner(*conn) == Some(client) && code.code() == 0 {
                open = Some(*conn);
            }
        } else if let Event::Close { conn, .. } = &stamped.event
            && open == Some(*conn)
        {
            open = None;
        }
    }
    if let Some(conn) = open {
        lines.push(format!("{name} was connected when the run ended, on connection {}.", conn.0));
    }
}

fn connection_excuse(
    words: &Words<'_>,
    events: &[Stamped],
    client: ClientIx,
    from: Instant,
    to: Instant,
    lines: &mut Vec<String>,
) {
    let name = words.client(client);
    let closes: Vec<_> = events
        .iter()
        .filter(|stamped| stamped.at >= from && stamped.at <= to)
        .filter(|stamped| matches!(&stamped.event, Event::Close { conn, .. } if words.owner(*conn) == Some(client)))
        .map(|stamped| stamped.at.to_string())
        .collect();
    if closes.is_empty() {
        lines.push(format!("No connection of {name} ended between {from} and {to}."));
    } else {
        lines.push(format!("Connections of {name} ended at {}; its session outlived them.", closes.join(", ")));
    }
}

fn fault_excuse(
    words: &Words<'_>,
    events: &[Stamped],
    client: ClientIx,
    from: Instant,
    to: Instant,
    lines: &mut Vec<String>,
) {
    let name = words.client(client);
    // What began before and was not over yet counts, too.
    let mut met: Vec<(Instant, &Fault)> = Vec::new();
    for stamped in events.iter().filter(|stamped| stamped.at <= to) {
        let Event::Fault(fault) = &stamped.event else { continue };
        if !concerns(fault, client) {
            continue;
        }
        if stamped.at < from && is_over(fault, from) {
            met.retain(|(_, other)| subject(other) != subject(fault));
        }
        if stamped.at >= from || !is_over(fault, from) {
            met.push((stamped.at, fault));
        }
    }
    let last = met.last().map(|(at, _)| *at);
    let mut met: Vec<String> = met
        .iter()
        .map(|(at, fault)| {
            let (who, what) = words.fault(fault);
            format!("{who}: {what} ({at})")
        })
        .collect();
    match last {
        None => lines.push(format!("No fault met {name} or a node between {from} and {to}.")),
        Some(last) => {
            let more = met.len().saturating_sub(4);
            met.truncate(4);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let rest = millis(to.as_nanos().saturating_sub(last.as_nanos()));
            lines.push(format!("Faults: {}{more}. After the last of them there were {rest} left.", met.join("; ")));
        }
    }
}

/// Whether it is the end of a fault, or one that is over by then.
fn is_over(fault: &Fault, by: Instant) -> bool {
    match fault {
        Fault::Heal { .. }
        | Fault::Restart { .. }
        | Fault::Bandwidth { bytes_per_s: 0, .. }
        | Fault::Reading { on: true, .. }
        | Fault::Freeze { on: false, .. }
        | Fault::Drift { ppm: 0, .. }
        | Fault::Lag { by_us: 0, .. }
        | Fault::MemoryPressure { level: 0, .. }
        | Fault::DiskFull { on: false, .. }
        | Fault::DiskSlow { by_us: 0, .. }
        | Fault::LinkHealed { .. }
        | Fault::LinkSlow { by_us: 0, bytes_per_s: 0, .. }
        | Fault::ClockJump { .. } => true,
        Fault::Pause { until, .. } => *until <= by,
        Fault::Cut { .. }
        | Fault::Bandwidth { .. }
        | Fault::Reading { .. }
        | Fault::Freeze { .. }
        | Fault::Drift { .. }
        | Fault::Lag { .. }
        | Fault::Crash { .. }
        | Fault::Shutdown { .. }
        | Fault::DiskFull { .. }
        | Fault::DiskSlow { .. }
        | Fault::DiskFails { .. }
        | Fault::DiskRot { .. }
        | Fault::LinkCut { .. }
        | Fault::LinkSlow { .. }
        | Fault::Wipe { .. }
        | Fault::MemoryPressure { .. } => false,
    }
}

/// What a fault and its end have in common: its kind, whose it is, and which shard.
fn subject(fault: &Fault) -> (u8, u32, u16) {
    match fault {
        Fault::Cut { client, .. } | Fault::Heal { client } => (0, client.0, 0),
        Fault::Bandwidth { client, .. } => (1, client.0, 0),
        Fault::Reading { client, .. } => (2, client.0, 0),
        Fault::Freeze { client, .. } => (3, client.0, 0),
        Fault::Pause { node, .. } => (4, u32::from(node.0), 0),
        Fault::ClockJump { node, .. } => (5, u32::from(node.0), 0),
        Fault::Drift { node, .. } => (6, u32::from(node.0), 0),
        Fault::Lag { node, shard, .. } => (7, u32::from(node.0), *shard),
        Fault::Crash { node, .. } | Fault::Restart { node } | Fault::Shutdown { node } => (8, u32::from(node.0), 0),
        Fault::DiskFull { node, .. } => (10, u32::from(node.0), 0),
        Fault::DiskSlow { node, .. } => (11, u32::from(node.0), 0),
        Fault::DiskFails { node } => (12, u32::from(node.0), 0),
        Fault::DiskRot { node } => (13, u32::from(node.0), 0),
        Fault::MemoryPressure { node, .. } => (9, u32::from(node.0), 0),
        Fault::LinkCut { from, to } | Fault::LinkHealed { from, to } => (14, u32::from(from.0), to.0),
        Fault::LinkSlow { from, to, .. } => (15, u32::from(from.0), to.0),
        Fault::Wipe { node } => (16, u32::from(node.0), 0),
    }
}

/// Whether a fault is this client's, or a node's.
fn concerns(fault: &Fault, client: ClientIx) -> bool {
    match fault {
        Fault::Cut { client: of, .. }
        | Fault::Heal { client: of }
        | Fault::Bandwidth { client: of, .. }
        | Fault::Reading { client: of, .. }
        | Fault::Freeze { client: of, .. } => *of == client,
        Fault::Pause { .. }
        | Fault::ClockJump { .. }
        | Fault::Drift { .. }
        | Fault::Lag { .. }
        | Fault::Crash { .. }
        | Fault::Restart { .. }
        | Fault::Shutdown { .. }
        | Fault::DiskFull { .. }
        | Fault::DiskSlow { .. }
        | Fault::DiskFails { .. }
        | Fault::DiskRot { .. }
        | Fault::LinkCut { .. }
        | Fault::LinkHealed { .. }
        | Fault::LinkSlow { .. }
        | Fault::Wipe { .. }
        | Fault::MemoryPressure { .. } => true,
    }
}

/// What went on in a run without violations.
fn clean(words: &Words<'_>, report: &Report) -> String {
    let mut out = String::from("Nothing was violated.\n");
    let simulated = millis(u64::try_from(report.simulated.as_nanos()).unwrap_or(u64::MAX));
    if let Some(history) = &report.history {
        let tally = Tally::of(&history.events);
        let _ = writeln!(
            out,
            "In {simulated}, {} made {}; {} ended early. {} went in and {} came out, {} of them again with DUP.",
            counted(tally.clients.len() as u64, "client", "clients"),
            counted(tally.connects, "connection", "connections"),
            grouped(tally.broken),
            counted(tally.publishes.iter().sum(), "message", "messages"),
            counted(tally.receives, "delivery", "deliveries"),
            grouped(tally.again),
        );
        let [q0, q1, q2] = tally.publishes;
        let _ = writeln!(
            out,
            "Published: {} with QoS 0, {} with QoS 1, {} with QoS 2.",
            grouped(q0),
            grouped(q1),
            grouped(q2)
        );
        let faults: Vec<_> = tally
            .faults
            .iter()
            .take(6)
            .map(|(at, fault)| {
                let (who, what) = words.fault(fault);
                format!("{who}: {what} ({at})")
            })
            .collect();
        match tally.faults.len() {
            0 => out.push_str("There was no fault.\n"),
            1..=6 => {
                let _ = writeln!(out, "Faults: {}.", faults.join("; "));
            }
            n => {
                let _ = writeln!(out, "Faults: {} and {} more.", faults.join("; "), n - 6);
            }
        }
    } else {
        let _ = writeln!(
            out,
            "{} in {simulated}; the history was not recorded.",
            counted(report.events, "event", "events")
        );
    }
    let (looked, idle): (Vec<_>, Vec<_>) =
        Check::ALL.iter().copied().partition(|check| report.obligations.of(*check) > 0);
    let _ = writeln!(out, "Looked for, and not found:");
    for check in looked {
        let _ = writeln!(
            out,
            "  {:<6} {:>8} times  {}",
            check.name(),
            grouped(report.obligations.of(check)),
            check.about()
        );
    }
    if !idle.is_empty() {
        let names: Vec<_> = idle.iter().map(|check| check.name()).collect();
        let _ = writeln!(out, "Had nothing to look at: {}.", names.join(", "));
    }
    out
}

#[derive(Default)]
struct Tally {
    clients: BTreeSet<ClientIx>,
    connects: u64,
    broken: u64,
    publishes: [u64; 3],
    receives: u64,
    again: u64,
    faults: Vec<(Instant, Fault)>,
}

impl Tally {
    fn of(events: &[Stamped]) -> Tally {
        let mut tally = Tally::default();
        let mut kept: BTreeSet<ConnIx> = BTreeSet::new();
        for stamped in events {
            if let Event::Connect { client, .. } = &stamped.event {
                tally.clients.insert(*client);
                tally.connects += 1;
            } else if let Event::Publish { facts, .. } = &stamped.event {
                tally.publishes[facts.qos as usize] += 1;
            } else if let Event::Receive { facts, .. } = &stamped.event {
                tally.receives += 1;
                tally.again += u64::from(facts.dup);
            } else if let Event::Disconnect { conn, .. } = &stamped.event {
                kept.insert(*conn);
            } else if let Event::Close { conn, .. } = &stamped.event {
                tally.broken += u64::from(!kept.contains(conn));
            } else if let Event::Fault(fault) = &stamped.event {
                tally.faults.push((stamped.at, fault.clone()));
            }
        }
        tally
    }
}

/// With a full stop. The first letter stays as it is: it may be a client's name.
fn sentence(text: &str) -> String {
    if text.ends_with(['.', '!', '?']) { text.into() } else { format!("{text}.") }
}

/// Steps of a message's way that are told of one violation.
const STEPS_MAX: usize = 24;
