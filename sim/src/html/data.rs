//! The data of the page: one JSON object, with the events as rows of numbers to keep it small. `model.js` reads it back;
//! the two are changed together.

use core::fmt::Write as _;
use std::collections::BTreeMap;

use newtmq_mqtt::ReasonCode;
use serde_json::{Value, json};

use crate::explain::story;
use crate::history::{ConnectFacts, Event, Fault, FilterFacts, Stamped, Uid};
use crate::report::{Check, Report, Verdict, Violation};
use crate::scenario::Scenario;
use crate::timeline::class_name;
use crate::words::{Words, closer, printable, version_name};

/// The object as text that can stand in a `script` element.
pub(crate) fn write(scenario: &Scenario, report: &Report) -> String {
    let words = Words::new(scenario, report);
    let mut out = in_script(&head(&words, scenario, report).to_string());
    // The rows are numbers and quoted texts; they are put into the object before its closing brace.
    out.pop();
    out.push_str(",\"events\":[\n");
    let events = report.history.as_ref().map_or(&[][..], |history| &history.events);
    let mut last = 0;
    for (i, stamped) in events.iter().enumerate() {
        if i > 0 {
            out.push_str(",\n");
        }
        row(&mut out, &words, stamped, last);
        last = stamped.at.as_nanos();
    }
    out.push_str("\n]}");
    out
}

fn head(words: &Words<'_>, scenario: &Scenario, report: &Report) -> Value {
    let class = match report.verdict() {
        Verdict::Ok => Value::Null,
        Verdict::Violated(class) => class_name(class).into(),
    };
    let checks: Vec<_> = Check::ALL
        .iter()
        .map(|check| {
            let violated = report.violations.iter().filter(|violation| violation.check == *check).count();
            json!([check.name(), check.about(), class_name(check.class()), report.obligations.of(*check), violated])
        })
        .collect();
    let names: Vec<_> = match &report.history {
        Some(history) => (0..history.names.len())
            .map(|i| printable(history.names.text(crate::history::NameIx(u32::try_from(i).unwrap_or(u32::MAX)))))
            .collect(),
        None => Vec::new(),
    };
    let violations: Vec<_> = report.violations.iter().map(|v| violation(words, scenario, report, v)).collect();
    json!({
        "format": 1,
        "why": printable(&scenario.why),
        "driver": crate::json::driver_name(scenario.driver),
        "seed": report.seed.to_string(),
        "verdict": report.verdict_name(),
        "class": class,
        "nodes": scenario.nodes,
        "shards": scenario.shards,
        "simulated": u64::try_from(report.simulated.as_nanos()).unwrap_or(u64::MAX),
        "hash": format!("{:016x}", report.trace_hash),
        "count": report.events,
        "more": report.more,
        "broker_expiry_s": scenario.broker.session_expiry_interval_s,
        "clients": scenario.clients.iter().map(client).collect::<Vec<_>>(),
        "names": names,
        "codes": codes(report),
        "checks": checks,
        "violations": violations,
    })
}

fn client(spec: &crate::scenario::ClientSpec) -> Value {
    json!({
        "name": printable(&spec.name),
        "id": printable(&spec.id),
        "node": spec.node,
        "version": if spec.sn { "MQTT-SN" } else { version_name(spec.version) },
    })
}

fn violation(words: &Words<'_>, scenario: &Scenario, report: &Report, violation: &Violation) -> Value {
    let witness = &violation.witness;
    let story = story(words, scenario, report, violation);
    let journey = match (witness.uid, report.history.is_some()) {
        (Some(uid), true) => words.journey(&[uid].into()),
        (None, _) | (_, false) => Vec::new(),
    };
    let journey: Vec<_> = journey.iter().enumerate().filter(|(_, on)| **on).map(|(i, _)| i).collect();
    let happened: Vec<_> = story.happened.iter().map(|(at, line)| json!([at.as_nanos(), line])).collect();
    json!({
        "check": violation.check.name(),
        "class": class_name(violation.check.class()),
        "at": violation.at.as_nanos(),
        "about": violation.check.about(),
        "message": words.told(&violation.message),
        "promise": story.promise,
        "excluded": story.excluded,
        "happened": happened,
        "moments": words.moments(violation).iter().map(|(at, what)| json!([at.as_nanos(), what])).collect::<Vec<_>>(),
        "uid": witness.uid.map(|uid| json!([uid.publisher.0, uid.number])),
        "topic": witness.topic.map(|name| name.0),
        "filter": witness.filter.map(|name| name.0),
        "clients": witness.clients.iter().map(|client| client.0).collect::<Vec<_>>(),
        "conns": witness.conns.iter().map(|conn| conn.0).collect::<Vec<_>>(),
        "journey": journey,
    })
}

/// Names of the reason codes that occur.
fn codes(report: &Report) -> BTreeMap<String, &'static str> {
    let mut codes = BTreeMap::new();
    let mut note = |code: &ReasonCode| {
        codes.insert(code.code().to_string(), code.name());
    };
    for stamped in report.history.iter().flat_map(|history| &history.events) {
        if let Event::Connack { code, .. }
        | Event::Acked { code, .. }
        | Event::Ack { code, .. }
        | Event::Disconnect { code, .. } = &stamped.event
        {
            note(code);
        } else if let Event::Suback { codes, .. } | Event::Unsuback { codes, .. } = &stamped.event {
            codes.iter().for_each(&mut note);
        }
    }
    codes
}

/// One event: its kind, nanoseconds since the one before, then its fields. -1 stands for none.
fn row(out: &mut String, words: &Words<'_>, stamped: &Stamped, last: u64) {
    let step = stamped.at.as_nanos() - last;
    let back = |sent: newtmq_base::Instant| stamped.at.as_nanos().saturating_sub(sent.as_nanos());
    let put = match &stamped.event {
        Event::Connect { conn, client, facts } => return connect(out, step, conn.0, client.0, facts),
        Event::Connack { conn, present, code, expiry_s, sent_at } => {
            let expiry = option(*expiry_s);
            write!(out, "[1,{step},{},{},{},{expiry},{}]", conn.0, u8::from(*present), code.code(), back(*sent_at))
        }
        Event::Subscribe { conn, pid, subscription_id, filters } => {
            let id = option(*subscription_id);
            write!(out, "[2,{step},{},{pid},{id},[{}]]", conn.0, listed(filters.iter().map(filter)))
        }
        Event::Suback { conn, pid, codes, sent_at } => {
            let codes = listed(codes.iter().map(|code| code.code()));
            write!(out, "[3,{step},{},{pid},[{codes}],{}]", conn.0, back(*sent_at))
        }
        Event::Unsubscribe { conn, pid, filters } => {
            write!(out, "[4,{step},{},{pid},[{}]]", conn.0, listed(filters.iter().map(|name| name.0)))
        }
        Event::Unsuback { conn, pid, codes } => {
            write!(out, "[5,{step},{},{pid},[{}]]", conn.0, listed(codes.iter().map(|code| code.code())))
        }
        Event::Publish { conn, facts: f } => {
            let flags = f.qos as u8 | u8::from(f.dup) << 2 | u8::from(f.retain) << 3;
            let (pid, uid, expiry) = (f.pid.unwrap_or(0), message(f.uid), option(f.expiry_s));
            write!(out, "[6,{step},{},{pid},{uid},{},{flags},{expiry},{}]", conn.0, f.topic.0, f.size)
        }
        Event::Acked { conn, kind, pid, code, sent_at } => {
            write!(out, "[7,{step},{},{},{pid},{},{}]", conn.0, *kind as u8, code.code(), back(*sent_at))
        }
        Event::Release { conn, pid } => write!(out, "[8,{step},{},{pid}]", conn.0),
        Event::Receive { conn, facts: f } => {
            let flags = f.qos as u8 | u8::from(f.dup) << 2 | u8::from(f.retain) << 3 | u8::from(f.intact) << 4;
            let (pid, uid, expiry) = (f.pid.unwrap_or(0), message(f.uid), option(f.expiry_s));
            let ids = listed(f.subscription_ids.iter());
            let (topic, size, sent) = (f.topic.0, f.size, back(f.sent_at));
            write!(out, "[9,{step},{},{pid},{uid},{topic},{flags},{expiry},{size},{sent},[{ids}]]", conn.0)
        }
        Event::Ack { conn, kind, pid, code } => {
            write!(out, "[10,{step},{},{},{pid},{}]", conn.0, *kind as u8, code.code())
        }
        Event::Released { conn, pid } => write!(out, "[11,{step},{},{pid}]", conn.0),
        Event::Handed { conn, uid, qos } => {
            write!(out, "[12,{step},{},{},{}]", conn.0, message(Some(*uid)), *qos as u8)
        }
        Event::Pingresp { conn } => write!(out, "[13,{step},{}]", conn.0),
        Event::Pingreq { conn } => write!(out, "[22,{step},{}]", conn.0),
        Event::Disconnect { conn, by, code, expiry_s } => {
            write!(out, "[14,{step},{},{},{},{}]", conn.0, *by as u8, code.code(), option(*expiry_s))
        }
        Event::Close { conn, by } => write!(out, "[15,{step},{},{},{}]", conn.0, *by as u8, quoted(closer(*by))),
        Event::AskWill { conn, will } => {
            write!(out, "[28,{step},{},{}]", conn.0, message(will.map(|will| will.uid)))
        }
        Event::WillSet { conn } => write!(out, "[29,{step},{}]", conn.0),
        Event::Gone { conn } => write!(out, "[16,{step},{}]", conn.0),
        Event::Wild { conn, what } => write!(out, "[17,{step},{},{}]", conn.0, quoted(what)),
        Event::Unexpected { conn, what } => write!(out, "[18,{step},{},{}]", conn.0, quoted(what)),
        Event::Fault(of) => write!(out, "[19,{step},{}]", fault(of)),
        Event::NodeUp { node, id, incarnation, address } => {
            write!(out, "[23,{step},{},{},{},\"{address}\"]", node.0, id.0, incarnation.0)
        }
        Event::NodeDown { node } => write!(out, "[24,{step},{}]", node.0),
        Event::Cluster { node, event } => write!(out, "[25,{step},{},{}]", node.0, quoted(&words.cluster(event))),
        Event::Command { node, request, command } => {
            write!(out, "[26,{step},{},{},{}]", node.0, request.0, quoted(&crate::words::command(command)))
        }
        Event::Answer { node, request, answer } => {
            write!(out, "[27,{step},{},{},{}]", node.0, request.0, quoted(&words.answer(answer)))
        }
        Event::Calm => write!(out, "[20,{step}]"),
        Event::Quiesce => write!(out, "[21,{step}]"),
    };
    put.expect("a String takes everything");
}

fn connect(out: &mut String, step: u64, conn: u32, client: u32, facts: &ConnectFacts) {
    let (id, clean, expiry) = (facts.client_id.0, u8::from(facts.clean), option(facts.expiry_s));
    let (version, keep_alive, window) = (facts.version as u8, facts.keep_alive_s, facts.receive_maximum);
    let will = facts.will.map_or_else(
        || "0".to_owned(),
        |will| {
            let (uid, expiry) = (message(Some(will.uid)), option(will.expiry_s));
            let retain = u8::from(will.retain);
            format!("[{uid},{},{},{retain},{},{expiry}]", will.topic.0, will.qos as u8, will.delay_s)
        },
    );
    write!(
        out,
        "[0,{step},{conn},{client},{},{id},{version},{clean},{expiry},{keep_alive},{window},{},{will}]",
        facts.node.0,
        option(facts.max_packet_size),
    )
    .expect("a String takes everything");
}

fn filter(f: &FilterFacts) -> String {
    let (no_local, as_published) = (u8::from(f.no_local), u8::from(f.retain_as_published));
    format!("[{},{},{no_local},{as_published},{}]", f.filter.0, f.qos as u8, f.retain_handling as u8)
}

/// A fault: its name, whether a client's (0) or a node's (1), whose, and up to two numbers.
fn fault(fault: &Fault) -> String {
    match fault {
        Fault::Cut { client, to_server, to_client } => {
            format!("\"cut\",0,{},{},{}", client.0, u8::from(*to_server), u8::from(*to_client))
        }
        Fault::Heal { client } => format!("\"heal\",0,{}", client.0),
        Fault::Bandwidth { client, bytes_per_s } => format!("\"bandwidth\",0,{},{bytes_per_s}", client.0),
        Fault::Reading { client, on } => format!("\"reading\",0,{},{}", client.0, u8::from(*on)),
        Fault::Freeze { client, on } => format!("\"freeze\",0,{},{}", client.0, u8::from(*on)),
        Fault::Pause { node, until } => format!("\"pause\",1,{},{}", node.0, until.as_nanos()),
        Fault::ClockJump { node, by_ms } => format!("\"clock_jump\",1,{},{by_ms}", node.0),
        Fault::Drift { node, ppm } => format!("\"drift\",1,{},{ppm}", node.0),
        Fault::Lag { node, shard, by_us } => format!("\"lag\",1,{},{shard},{by_us}", node.0),
        Fault::Crash { node, .. } => format!("\"crash\",1,{}", node.0),
        Fault::Restart { node } => format!("\"restart\",1,{}", node.0),
        Fault::Shutdown { node } => format!("\"shutdown\",1,{}", node.0),
        Fault::DiskFull { node, on } => format!("\"disk_full\",1,{},{}", node.0, u8::from(*on)),
        Fault::DiskSlow { node, by_us } => format!("\"disk_slow\",1,{},{by_us}", node.0),
        Fault::DiskFails { node } => format!("\"disk_fails\",1,{}", node.0),
        Fault::DiskRot { node } => format!("\"disk_rot\",1,{}", node.0),
        Fault::MemoryPressure { node, level } => format!("\"memory\",1,{},{level}", node.0),
        Fault::LinkCut { from, to } => format!("\"link_cut\",1,{},{}", from.0, to.0),
        Fault::LinkHealed { from, to } => format!("\"link_healed\",1,{},{}", from.0, to.0),
        Fault::LinkSlow { from, to, by_us, bytes_per_s } => {
            format!("\"link_slow\",1,{},{},{by_us},{bytes_per_s}", from.0, to.0)
        }
        Fault::Wipe { node } => format!("\"wipe\",1,{}", node.0),
    }
}

fn message(uid: Option<Uid>) -> String {
    uid.map_or_else(|| "-1,0".to_owned(), |uid| format!("{},{}", uid.publisher.0, uid.number))
}

fn option(value: Option<u32>) -> i64 {
    value.map_or(-1, i64::from)
}

fn listed(items: impl Iterator<Item = impl core::fmt::Display>) -> String {
    let mut out = String::new();
    for item in items {
        if !out.is_empty() {
            out.push(',');
        }
        write!(out, "{item}").expect("a String takes everything");
    }
    out
}

fn quoted(text: &str) -> String {
    in_script(&Value::from(printable(text)).to_string())
}

/// JSON that cannot end the element it stands in: `<` occurs in its texts alone, where an escape means the same.
fn in_script(json: &str) -> String {
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}
