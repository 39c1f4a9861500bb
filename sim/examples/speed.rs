//! Measures this build's tier: simulated seconds per second of a busy node, and small cases per minute.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::unwrap_used, missing_docs)]

use newtmq_mqtt::QoS;
use newtmq_sim::history::ClientIx;
use newtmq_sim::scenario::{Act, Action, ClientSpec, Driver, FilterSpec, PublishSpec, Step};
use newtmq_sim::{Options, Scenario, run_with};

const DRIVER: Driver = if cfg!(madsim) { Driver::Madsim } else { Driver::Kernel };

fn busy(shards: u16, seconds: u32, seed: u64) -> Scenario {
    let clients: Vec<ClientSpec> = (0..100)
        .map(|n| ClientSpec {
            name: format!("c{n}"),
            id: format!("c{n}"),
            session_expiry_s: 300,
            clean: false,
            keep_alive_s: 30,
            ..ClientSpec::default()
        })
        .collect();
    let step = |at_ms, n, act| Step { at_ms, action: Action::Client { client: ClientIx(n), act } };
    let mut steps = Vec::new();
    for n in 0..100 {
        steps.push(step(0, n, Act::Connect { clean: None, session_expiry_s: None, node: None }));
    }
    for n in 0..100 {
        let filters = vec![FilterSpec::new(format!("t/{n}/#"), QoS::ExactlyOnce)];
        steps.push(step(100, n, Act::Subscribe { filters, subscription_id: 0 }));
    }
    for n in 0..100 {
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][n as usize % 3];
        let publish = PublishSpec {
            count: seconds * 20,
            every_us: 50_000,
            ..PublishSpec::new(format!("t/{}/x", (n * 7) % 100), qos)
        };
        steps.push(step(1_000 + u64::from(n % 50), n, Act::Publish(publish)));
    }
    Scenario { driver: DRIVER, seed, shards, clients, steps, settle_ms: 10_000, ..Scenario::default() }
}

fn small(seed: u64) -> Scenario {
    let clients =
        (0..4).map(|n| ClientSpec { name: format!("c{n}"), id: format!("c{n}"), ..ClientSpec::default() }).collect();
    let step = |at_ms, n, act| Step { at_ms, action: Action::Client { client: ClientIx(n), act } };
    let mut steps = Vec::new();
    for n in 0..4 {
        steps.push(step(0, n, Act::Connect { clean: None, session_expiry_s: None, node: None }));
    }
    for n in 0..4 {
        steps.push(step(
            50,
            n,
            Act::Subscribe { filters: vec![FilterSpec::new("a/#", QoS::ExactlyOnce)], subscription_id: 0 },
        ));
    }
    for n in 0..32 {
        steps.push(step(
            100 + u64::from(n),
            n % 4,
            Act::Publish(PublishSpec::new(
                "a/b",
                [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][n as usize % 3],
            )),
        ));
    }
    Scenario { driver: DRIVER, seed, clients, steps, ..Scenario::default() }
}

/// Seconds of processor time that this process and its threads had: other work on the machine does not count.
fn processor_time() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = text.rsplit(')').next().unwrap();
    // utime and stime, in hundredths of a second (proc_pid_stat(5)).
    let ticks: u32 = after_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u32>().unwrap()).sum();
    f64::from(ticks) / 100.0
}

fn main() {
    let seconds: u32 = std::env::args().nth(1).map_or(60, |text| text.parse().unwrap());
    // With a second argument only what a profiler is to look at.
    let profiled = std::env::args().nth(2).is_some();
    for (shards, white_box) in [(1, true), (1, false), (4, true)].into_iter().take(if profiled { 1 } else { 3 }) {
        let scenario = busy(shards, seconds, 1);
        let start = processor_time();
        let report = run_with(&scenario, Options { record: false, white_box }, Vec::new());
        let wall = processor_time() - start;
        let messages = f64::from(seconds) * 2_000.0;
        println!(
            "{shards} shards, white box {white_box}: {:.0} simulated s/s, {:.2} us a message, {} events, {} violations {:?}",
            report.simulated.as_secs_f64() / wall,
            wall * 1e6 / messages,
            report.events,
            report.violations.len(),
            report.violations.first()
        );
    }
    if profiled {
        return;
    }
    let start = processor_time();
    let cases = 2_000;
    let events: u64 = (0..cases).map(|seed| run_with(&small(seed), Options::default(), Vec::new()).events).sum();
    let wall = processor_time() - start;
    println!("{:.0} small cases a minute ({events} events)", cases as f64 / wall * 60.0);
}
