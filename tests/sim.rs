//! The testbed as a library: proptest makes the steps, the checks and invariants of our own judge the run. The seed is
//! fixed, so a run of these tests is the same each time. A case that fails is small, and is a scenario file in
//! `scenarios/found` that `cargo sim replay` takes; the message names it.
#![cfg(not(madsim))]
// A test says what it expects by failing.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use newtmq_base::Instant;
use newtmq_mqtt::{ProtocolVersion, QoS};
use newtmq_sim::generate::{ArbOptions, Family, Size, StepOptions, arb_scenario, arb_steps};
use newtmq_sim::history::{Event, Names, Uid};
use newtmq_sim::report::{Findings, Invariant, Violation, Witness};
use newtmq_sim::scenario::{ClientSpec, Scenario, Step};
use newtmq_sim::shrink::shape;
use newtmq_sim::{Check, Options, run, run_with};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, RngSeed, TestError, TestRunner};

/// What must hold of a scenario.
type Property = fn(&Scenario) -> Result<(), String>;

/// Runs a property in cases of a fixed seed. The smallest case that breaks it becomes a file in this folder.
fn holds(folder: &Path, name: &str, cases: u32, strategy: impl Strategy<Value = Scenario>, property: Property) {
    let config = Config {
        cases,
        failure_persistence: None,
        rng_algorithm: RngAlgorithm::ChaCha,
        rng_seed: RngSeed::Fixed(1),
        max_shrink_iters: 2_000,
        ..Config::default()
    };
    let tried = TestRunner::new(config).run(&strategy, |scenario| property(&scenario).map_err(TestCaseError::fail));
    match tried {
        Ok(()) => {}
        Err(TestError::Abort(reason)) => panic!("{name}: no answer: {reason}"),
        Err(TestError::Fail(reason, mut scenario)) => {
            scenario.why = format!("found by the test {name}");
            let file = folder.join(format!("{name}-{:08x}.toml", shape(&scenario) >> 32));
            std::fs::create_dir_all(folder).unwrap();
            std::fs::write(&file, scenario.to_toml()).unwrap();
            panic!("{name}: {reason}\ncargo sim replay {}", file.display());
        }
    }
}

fn found() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/found")
}

/// Three clients of three kinds, two of which have a session that stays; the steps are proptest's.
fn household(steps: Vec<Step>, seed: u64, shards: u16) -> Scenario {
    let client = |name: &str, version, clean| ClientSpec {
        name: name.into(),
        id: name.into(),
        version,
        clean,
        session_expiry_s: if clean || version != ProtocolVersion::V5 { 0 } else { 3_600 },
        ..ClientSpec::default()
    };
    let clients = vec![
        client("heating", ProtocolVersion::V5, false),
        client("doorbell", ProtocolVersion::V311, false),
        client("panel", ProtocolVersion::V5, true),
    ];
    Scenario { seed, shards, clients, steps, ..Scenario::default() }
}

fn households(faults: bool) -> impl Strategy<Value = Scenario> {
    let steps = arb_steps(StepOptions { steps: 1..=30, within_ms: 3_000, faults, ..StepOptions::default() });
    (steps, any::<u64>(), 1..=3_u16).prop_map(|(steps, seed, shards)| household(steps, seed, shards))
}

fn of(families: &[Family]) -> impl Strategy<Value = Scenario> {
    arb_scenario(ArbOptions { families: families.to_vec(), size: Size::Micro })
}

fn nothing_is_violated(scenario: &Scenario) -> Result<(), String> {
    judge(scenario, Vec::new())
}

fn judge<'a>(scenario: &'a Scenario, own: Vec<Box<dyn Invariant + 'a>>) -> Result<(), String> {
    let report = run_with(scenario, Options::default(), own);
    match report.violations.first() {
        Some(violation) => Err(format!("{}: {}", violation.check, violation.message)),
        None => Ok(()),
    }
}

/// What an invariant of these tests says; the check is the one that it is nearest to.
fn broken(check: Check, at: Instant, message: String) -> Violation {
    Violation { check, at, message, witness: Witness::default() }
}

/// A connection that is over is over: nothing arrives on it any more.
#[derive(Default)]
struct OverIsOver(BTreeSet<u32>);

impl Invariant for OverIsOver {
    fn event(&mut self, at: Instant, event: &Event, _: &Names, findings: &mut Findings) {
        if let Event::Close { conn, .. } = event {
            self.0.insert(conn.0);
        }
        if let Event::Receive { conn, .. } = event
            && self.0.contains(&conn.0)
        {
            let message = format!("a message came on connection {} after its end", conn.0);
            findings.violated(broken(Check::Protocol, at, message));
        }
    }

    fn end(&mut self, _: Instant, _: &Names, _: &mut Findings) {}
}

/// An acknowledgement is of something that was published on this connection or an earlier one: there are never more
/// PUBACKs and PUBRECs than publishes of these QoS.
#[derive(Default)]
struct NoMoreAcksThanPublishes {
    published: u64,
    acked: BTreeSet<(u32, u16, u64)>,
}

impl Invariant for NoMoreAcksThanPublishes {
    fn event(&mut self, at: Instant, event: &Event, _: &Names, findings: &mut Findings) {
        if let Event::Publish { facts, .. } = event
            && facts.qos != QoS::AtMostOnce
        {
            self.published += 1;
        }
        if let Event::Acked { conn, kind, pid, .. } = event
            && matches!(kind, newtmq_sim::history::AckKind::Puback | newtmq_sim::history::AckKind::Pubrec)
        {
            self.acked.insert((conn.0, *pid, self.published));
            if self.acked.len() as u64 > self.published {
                findings.violated(broken(Check::Protocol, at, format!("{pid} was acknowledged for nothing")));
            }
        }
    }

    fn end(&mut self, _: Instant, _: &Names, _: &mut Findings) {}
}

/// Nobody hears a QoS 0 message twice, whatever goes wrong: each connection hands it on once at most.
#[derive(Default)]
struct AtMostOnce(BTreeSet<(u32, Uid)>);

impl Invariant for AtMostOnce {
    fn event(&mut self, at: Instant, event: &Event, _: &Names, findings: &mut Findings) {
        if let Event::Handed { conn, uid, qos: QoS::AtMostOnce } = event
            && !self.0.insert((conn.0, *uid))
        {
            findings.violated(broken(Check::Phantom, at, "a QoS 0 message came twice".into()));
        }
    }

    fn end(&mut self, _: Instant, _: &Names, _: &mut Findings) {}
}

#[test]
fn a_household_is_served() {
    holds(&found(), "a_household_is_served", 200, households(false), nothing_is_violated);
}

#[test]
fn a_household_is_served_whatever_goes_wrong() {
    holds(&found(), "a_household_is_served_whatever_goes_wrong", 200, households(true), nothing_is_violated);
}

#[test]
fn what_is_over_is_over() {
    let families = [Family::Hoppers, Family::Takeover, Family::Collisions];
    holds(&found(), "what_is_over_is_over", 100, of(&families), |scenario| {
        judge(scenario, vec![Box::new(OverIsOver::default())])
    });
}

#[test]
fn an_acknowledgement_is_of_something() {
    let families = [Family::PubSub, Family::FanIn, Family::FanOut];
    holds(&found(), "an_acknowledgement_is_of_something", 100, of(&families), |scenario| {
        judge(scenario, vec![Box::new(NoMoreAcksThanPublishes::default())])
    });
}

/// Subscriptions do not overlap here: with those a message may come once for each.
#[test]
fn at_most_once_is_at_most_once() {
    let topics = vec!["kitchen".to_owned()];
    let steps = arb_steps(StepOptions { steps: 1..=30, within_ms: 3_000, topics, ..StepOptions::default() });
    let households = (steps, any::<u64>()).prop_map(|(steps, seed)| household(steps, seed, 2));
    let plain = households.prop_filter("one filter only", |scenario| !scenario.to_toml().contains("filter = \"#\""));
    holds(&found(), "at_most_once_is_at_most_once", 100, plain, |scenario| {
        judge(scenario, vec![Box::new(AtMostOnce::default())])
    });
}

#[test]
fn a_file_is_the_same_scenario() {
    holds(&found(), "a_file_is_the_same_scenario", 100, of(Family::ALL), |scenario| {
        let read = Scenario::parse("case.toml", &scenario.to_toml()).map_err(|problems| problems.to_string())?;
        let (one, other) = (run(scenario).trace_hash, run(&read).trace_hash);
        if one == other { Ok(()) } else { Err(format!("{one:016x} as a value, {other:016x} as a file")) }
    });
}

/// A property that does not hold gives a small file that shows it.
#[test]
fn a_failure_becomes_a_file() {
    /// Never true of a household in which somebody connects.
    fn nobody_connects(scenario: &Scenario) -> Result<(), String> {
        let report = run_with(scenario, Options { record: true, ..Options::default() }, Vec::new());
        let history = report.history.expect("it was asked for");
        let connects = history.events.iter().filter(|stamped| matches!(stamped.event, Event::Connect { .. })).count();
        if connects == 0 { Ok(()) } else { Err("somebody connects".into()) }
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("found");
    let _ = std::fs::remove_dir_all(&folder);
    let failed = std::panic::catch_unwind(|| {
        holds(&folder, "nobody_connects", 50, households(true), nobody_connects);
    });
    let message = *failed.unwrap_err().downcast::<String>().unwrap();
    let file = message.rsplit(' ').next().unwrap();
    assert!(message.contains("nobody_connects: somebody connects"), "{message}");
    let scenario = Scenario::parse(file, &std::fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(scenario.steps.len(), 1, "shrunk to what it takes");
    assert!(nobody_connects(&scenario).is_err(), "the file shows it, too");
}
