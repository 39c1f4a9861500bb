//! Property-tests the reconnect policy of a device fleet: the broker crashes and starts again, and every device comes back
//! by itself. Two things must hold however long the outage is: the broker sees no more than so many CONNECTs in any
//! second, and all devices are back in time. A policy without jitter breaks the first one; proptest finds a small outage
//! that shows it. The same policy with jitter holds.
//!
//! `cargo run --release -p newtmq-sim --example fleet`

use std::collections::{BTreeSet, VecDeque};
use std::process::ExitCode;
use std::time::Duration;

use newtmq_base::Instant;
use newtmq_sim::history::{ClientIx, Event, Fault, Names};
use newtmq_sim::report::{Findings, Invariant};
use newtmq_sim::scenario::{Act, Action, ClientSpec, ReconnectSpec, Scenario, Step, WorldAction};
use newtmq_sim::{Options, run_with};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, RngSeed, TestError, TestRunner};

/// What the broker may be asked for after it started again.
const CONNECTS_PER_SECOND_MAX: usize = 25;
const BACK_WITHIN: Duration = Duration::from_secs(60);

/// An outage: so many devices lose a broker for so long.
#[derive(Debug, Clone, Copy)]
struct Outage {
    devices: u32,
    down_ms: u64,
    seed: u64,
}

fn outages() -> impl Strategy<Value = Outage> {
    (1..=60_u32, 1_000..60_000_u64, any::<u64>()).prop_map(|(devices, down_ms, seed)| Outage { devices, down_ms, seed })
}

/// The fleet connects at its leisure, ten devices a second; then the broker is gone for a while.
fn scenario(policy: ReconnectSpec, outage: Outage) -> Scenario {
    let device = |number: u32| ClientSpec {
        name: format!("device-{number}"),
        id: format!("device-{number}"),
        clean: false,
        session_expiry_s: 3_600,
        keep_alive_s: 30,
        reconnect: Some(policy),
        ..ClientSpec::default()
    };
    let connect = |number: u32| {
        let act = Act::Connect { clean: None, session_expiry_s: None, node: None };
        Step { at_ms: u64::from(number) * 100, action: Action::Client { client: ClientIx(number), act } }
    };
    let crash_ms = u64::from(outage.devices) * 100 + 1_000;
    let mut steps: Vec<Step> = (0..outage.devices).map(connect).collect();
    for (at_ms, action) in [
        (crash_ms, WorldAction::Crash { node: 0, power_loss: false }),
        (crash_ms + outage.down_ms, WorldAction::Restart { node: 0 }),
    ] {
        steps.push(Step { at_ms, action: Action::World(action) });
    }
    Scenario {
        why: "a fleet comes back after an outage".into(),
        seed: outage.seed,
        settle_ms: BACK_WITHIN.as_millis() as u64 + 5_000,
        clients: (0..outage.devices).map(device).collect(),
        steps,
        ..Scenario::default()
    }
}

/// An invariant as a value: looks at the history while the world runs, and says at the end what it saw.
#[derive(Debug, Default)]
struct Comeback {
    restarted: Option<Instant>,
    /// CONNECTs of the last second.
    window: VecDeque<Instant>,
    most_in_a_second: usize,
    /// CONNECTs by second after the restart.
    by_second: Vec<usize>,
    connected: BTreeSet<u32>,
    owners: Vec<ClientIx>,
    last_back: Option<Instant>,
}

impl Invariant for &mut Comeback {
    fn event(&mut self, at: Instant, event: &Event, _names: &Names, _findings: &mut Findings) {
        if let Event::Fault(Fault::Restart { .. }) = event {
            self.restarted = Some(at);
        }
        if let Event::Connect { client, .. } = event {
            self.owners.push(*client);
            while self.window.front().is_some_and(|first| *first + Duration::from_secs(1) <= at) {
                self.window.pop_front();
            }
            self.window.push_back(at);
            self.most_in_a_second = self.most_in_a_second.max(self.window.len());
            if let Some(restarted) = self.restarted {
                let second = (at - restarted).as_secs() as usize;
                self.by_second.resize(self.by_second.len().max(second + 1), 0);
                self.by_second[second] += 1;
            }
        }
        if let (Event::Connack { conn, code, .. }, Some(_)) = (event, self.restarted)
            && !code.is_error()
            && self.connected.insert(self.owners[conn.0 as usize].0)
        {
            self.last_back = Some(at);
        }
    }

    fn end(&mut self, _at: Instant, _names: &Names, _findings: &mut Findings) {}
}

impl Comeback {
    fn of(policy: ReconnectSpec, outage: Outage) -> Comeback {
        let mut comeback = Comeback::default();
        let report = run_with(&scenario(policy, outage), Options::default(), vec![Box::new(&mut comeback)]);
        assert!(report.violations.is_empty(), "the broker itself is wrong: {:#?}", report.violations);
        comeback
    }

    /// How long it took until the last of them was back.
    fn took(&self) -> Option<Duration> {
        Some(self.last_back? - self.restarted?)
    }

    /// What does not hold.
    fn judge(&self, outage: Outage) -> Result<(), String> {
        if self.most_in_a_second > CONNECTS_PER_SECOND_MAX {
            return Err(format!("{} CONNECTs in one second", self.most_in_a_second));
        }
        match self.took() {
            Some(took) if self.connected.len() == outage.devices as usize && took <= BACK_WITHIN => Ok(()),
            _ => Err(format!("{} of {} devices are back in time", self.connected.len(), outage.devices)),
        }
    }

    fn show(&self) {
        for (second, count) in self.by_second.iter().enumerate().filter(|(_, count)| **count > 0) {
            let over = if *count > CONNECTS_PER_SECOND_MAX { " !" } else { "" };
            println!("    {second:>3} s  {count:>3}  {}{over}", "#".repeat(*count));
        }
    }
}

/// Whether a policy holds in many outages; shows the smallest one in which it does not, or one in which it does.
fn holds(name: &str, policy: ReconnectSpec) -> bool {
    println!("{name}: {policy:?}");
    let config = Config {
        cases: 500,
        failure_persistence: None,
        rng_algorithm: RngAlgorithm::ChaCha,
        rng_seed: RngSeed::Fixed(1),
        ..Config::default()
    };
    let cases = config.cases;
    let property = |outage| Comeback::of(policy, outage).judge(outage).map_err(TestCaseError::fail);
    match TestRunner::new(config).run(&outages(), property) {
        Ok(()) => {
            let outage = Outage { devices: 60, down_ms: 30_000, seed: 1 };
            let comeback = Comeback::of(policy, outage);
            println!("  holds in {cases} outages, such as {outage:?}: at most {} CONNECTs", comeback.most_in_a_second);
            println!("  in a second, all back after {:?}", comeback.took().unwrap_or_default());
            comeback.show();
            true
        }
        Err(TestError::Fail(reason, outage)) => {
            println!("  breaks: {reason}. The smallest outage that shows it: {outage:?}");
            Comeback::of(policy, outage).show();
            false
        }
        Err(TestError::Abort(reason)) => {
            println!("  no answer: {reason}");
            false
        }
    }
}

fn main() -> ExitCode {
    println!(
        "After an outage: at most {CONNECTS_PER_SECOND_MAX} CONNECTs in any second, all devices back within {} s.\n",
        BACK_WITHIN.as_secs()
    );
    let doubling = ReconnectSpec { first_ms: 8_000, max_ms: 30_000, growth_percent: 100, jitter_percent: 0 };
    let without = holds("Doubling waits, no jitter", doubling);
    println!();
    let with = holds("The same with full jitter", ReconnectSpec { jitter_percent: 100, ..doubling });
    if with && !without { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
