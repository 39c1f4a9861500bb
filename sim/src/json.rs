//! A report as JSON, for programs. Times are seconds with their fraction; names are text, not numbers.

use newtmq_base::Instant;
use serde_json::{Map, Value, json};

use crate::report::{Check, Heal, Report, Verdict, Violation};
use crate::scenario::{Driver, Scenario};
use crate::timeline::class_name;
use crate::words::Words;

/// The report as one JSON object: `why`, `driver`, `seed`, `verdict`, `class` (null if nothing was violated), `clients`,
/// `nodes`, `shards`, `simulated_s`, `events`, `node_traffic` (of all nodes together), `heals` (of a cluster: when it was
/// repaired, and how long until it was whole, null if it was not before the next fault), `trace_hash` (hexadecimal),
/// `violations`, `more_violations` and `obligations` (times by check).
#[must_use]
pub fn report(scenario: &Scenario, report: &Report) -> Value {
    let words = Words::new(scenario, report);
    let class = match report.verdict() {
        Verdict::Ok => Value::Null,
        Verdict::Violated(class) => class_name(class).into(),
    };
    let violations: Vec<_> = report.violations.iter().map(|v| violation(&words, scenario, v)).collect();
    let obligations: Map<_, _> =
        Check::ALL.iter().map(|check| (check.name().to_owned(), report.obligations.of(*check).into())).collect();
    json!({
        "why": scenario.why,
        "driver": driver_name(scenario.driver),
        "seed": report.seed,
        "verdict": report.verdict_name(),
        "class": class,
        "clients": scenario.clients.len(),
        "nodes": scenario.nodes,
        "shards": scenario.shards,
        "simulated_s": report.simulated.as_secs_f64(),
        "events": report.events,
        "node_traffic": {
            "stream_bytes": report.traffic.stream_bytes,
            "datagrams": report.traffic.datagrams,
            "datagram_bytes": report.traffic.datagram_bytes,
            "dials": report.traffic.dials,
        },
        "heals": report.heals.iter().map(heal).collect::<Vec<_>>(),
        "trace_hash": format!("{:016x}", report.trace_hash),
        "violations": violations,
        "more_violations": report.more,
        "obligations": obligations,
    })
}

/// [`report`] as text on several lines.
#[must_use]
pub fn text(scenario: &Scenario, of: &Report) -> String {
    format!("{:#}\n", report(scenario, of))
}

fn heal(heal: &Heal) -> Value {
    json!({
        "repaired_s": seconds(heal.repaired),
        "took_s": heal.is_whole.then(|| heal.took().as_secs_f64()),
        "one_session_s": heal.one_session.map(|took| took.as_secs_f64()),
    })
}

fn violation(words: &Words<'_>, scenario: &Scenario, violation: &Violation) -> Value {
    let witness = &violation.witness;
    let clients: Vec<_> = witness
        .clients
        .iter()
        .map(|client| {
            scenario.clients.get(client.0 as usize).map_or_else(|| words.client(*client), |spec| spec.name.clone())
        })
        .collect();
    let moments: Vec<_> =
        witness.moments.iter().map(|(at, what)| json!({ "at_s": seconds(*at), "what": what.as_ref() })).collect();
    json!({
        "check": violation.check.name(),
        "class": class_name(violation.check.class()),
        "at_s": seconds(violation.at),
        "message": violation.message,
        "about": violation.check.about(),
        "promise": crate::explain::promise(violation.check),
        "witness": {
            "message": witness.uid.map(|uid| words.uid(uid)),
            "topic": witness.topic.map(|name| words.text(name)),
            "filter": witness.filter.map(|name| words.text(name)),
            "clients": clients,
            "connections": witness.conns.iter().map(|conn| conn.0).collect::<Vec<_>>(),
            "moments": moments,
        },
    })
}

/// A tier's name in scenario files.
pub(crate) const fn driver_name(driver: Driver) -> &'static str {
    match driver {
        Driver::Kernel => "kernel",
        Driver::Madsim => "madsim",
    }
}

fn seconds(at: Instant) -> f64 {
    at.as_nanos() as f64 / 1e9
}
