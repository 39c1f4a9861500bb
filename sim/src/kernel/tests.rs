//! Small worlds, whole.

use newtmq_mqtt::{ProtocolVersion, QoS};

use crate::history::{ClientIx, Event, Fault};
use crate::report::{Check, Report};
use crate::scenario::{
    Act, Action, ClientSpec, FilterSpec, NetSpec, PublishSpec, ReconnectSpec, Scenario, Step, WorldAction,
};
use crate::{Options, run_with};

mod clusters;
mod sn;

fn client(name: &str) -> ClientSpec {
    ClientSpec { name: name.into(), id: name.into(), ..ClientSpec::default() }
}

fn durable(name: &str) -> ClientSpec {
    let reconnect = ReconnectSpec { first_ms: 100, max_ms: 1_000, growth_percent: 100, jitter_percent: 50 };
    ClientSpec { clean: false, session_expiry_s: 3_600, keep_alive_s: 10, reconnect: Some(reconnect), ..client(name) }
}

fn act(at_ms: u64, client: u32, act: Act) -> Step {
    Step { at_ms, action: Action::Client { client: ClientIx(client), act } }
}

fn world(at_ms: u64, action: WorldAction) -> Step {
    Step { at_ms, action: Action::World(action) }
}

fn connect() -> Act {
    Act::Connect { clean: None, session_expiry_s: None, node: None }
}

fn subscribe(filter: &str, qos: QoS) -> Act {
    Act::Subscribe { filters: vec![FilterSpec::new(filter, qos)], subscription_id: 0 }
}

fn publish(topic: &str, qos: QoS, count: u32, every_us: u64) -> Act {
    Act::Publish(PublishSpec { count, every_us, ..PublishSpec::new(topic, qos) })
}

/// Clients 0 to 3 subscribe, 4 to 7 publish with all QoS, for ten seconds.
fn busy(shards: u16, seed: u64) -> Scenario {
    let clients = (0..8).map(|n| durable(&format!("c{n}"))).collect();
    let mut steps = Vec::new();
    for n in 0..8 {
        steps.push(act(u64::from(n), n, connect()));
    }
    for n in 0..4 {
        steps.push(act(
            100 + u64::from(n),
            n,
            subscribe(["t/#", "t/+", "t/1", "$share/g/t/#"][n as usize], QoS::ExactlyOnce),
        ));
    }
    for n in 4..8 {
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce, QoS::AtLeastOnce][n as usize - 4];
        steps.push(act(1_000, n, publish(&format!("t/{}", n % 3), qos, 1_000, 10_000)));
    }
    Scenario { seed, shards, clients, steps, settle_ms: 10_000, ..Scenario::default() }
}

fn run(scenario: &Scenario) -> Report {
    let mut scenario = scenario.clone();
    scenario.steps.sort_by_key(|step| step.at_ms);
    run_with(&scenario, Options { record: true, white_box: true }, Vec::new())
}

#[track_caller]
fn assert_fine(report: &Report) {
    let found: Vec<String> = report
        .violations
        .iter()
        .filter(|v| !v.check.is_black_box())
        .map(|v| format!("{} {}", v.check, v.message))
        .collect();
    assert!(found.is_empty(), "{found:#?}");
}

fn count(report: &Report, which: impl Fn(&Event) -> bool) -> usize {
    report.history.as_ref().map_or(0, |history| history.events.iter().filter(|stamped| which(&stamped.event)).count())
}

fn received(report: &Report) -> usize {
    count(report, |event| matches!(event, Event::Receive { .. }))
}

#[test]
fn messages_go_through_any_number_of_shards() {
    for shards in 1..=4 {
        let report = run(&busy(shards, 5));
        assert_fine(&report);
        // Each of 4,000 to two subscribers and the group, those of t/1 to one more.
        assert_eq!(received(&report), 3 * 4_000 + 2_000, "{shards} shards");
        let checks = [Check::Ledger, Check::Queues, Check::Ids, Check::Routes, Check::Leak, Check::Crash];
        assert!(checks.iter().all(|check| report.obligations.of(*check) > 0));
    }
}

#[test]
fn the_same_scenario_gives_the_same_run() {
    let mut scenario = busy(3, 5);
    scenario.net.loss_ppm = 10_000;
    scenario.net.chunk_bytes = 1..=100;
    scenario.steps.push(world(4_000, WorldAction::Crash { node: 0, power_loss: false }));
    scenario.steps.push(world(5_000, WorldAction::Restart { node: 0 }));
    let hashes: Vec<u64> = (0..2).map(|_| run(&scenario).trace_hash).collect();
    assert_eq!(hashes[0], hashes[1]);
    scenario.seed += 1;
    assert_ne!(run(&scenario).trace_hash, hashes[0]);
}

#[test]
fn a_cut_holds_everything_back_until_it_heals() {
    let mut scenario = busy(1, 1);
    scenario.steps.push(world(2_000, WorldAction::Cut { client: ClientIx(0), to_server: false, to_client: true }));
    scenario.steps.push(world(4_000, WorldAction::Heal { client: ClientIx(0) }));
    let report = run(&scenario);
    assert_fine(&report);
    let history = report.history.as_ref().unwrap();
    let during = |at: u64| (2_002_000_000..4_000_000_000).contains(&at);
    let receives = history.events.iter().filter(|stamped| {
        let to_first = matches!(&stamped.event, Event::Receive { conn, .. } if conn.0 == 0);
        to_first && during(stamped.at.as_nanos())
    });
    assert_eq!(receives.count(), 0);
    assert_eq!(received(&report), 14_000, "all come in the end");
}

#[test]
fn a_cut_that_nobody_ends_ends_with_the_steps() {
    let mut scenario = busy(1, 1);
    scenario.steps.push(world(2_000, WorldAction::Cut { client: ClientIx(4), to_server: true, to_client: false }));
    let report = run(&scenario);
    assert_fine(&report);
    assert_eq!(count(&report, |event| *event == Event::Fault(Fault::Heal { client: ClientIx(4) })), 1);
    assert_eq!(received(&report), 14_000, "all come in the end");
}

#[test]
fn a_pause_delays_and_loses_nothing() {
    let mut scenario = busy(2, 1);
    scenario.steps.push(world(3_000, WorldAction::Pause { node: 0, ms: 5_000 }));
    let report = run(&scenario);
    assert_fine(&report);
    assert_eq!(received(&report), 14_000);
}

#[test]
fn clients_notice_a_crash_sooner_or_later() {
    for seed in 0..4 {
        let mut scenario = busy(2, seed);
        scenario.steps.push(world(3_000, WorldAction::Crash { node: 0, power_loss: false }));
        scenario.steps.push(world(4_000, WorldAction::Restart { node: 0 }));
        let report = run(&scenario);
        assert_fine(&report);
        let connects = count(&report, |event| matches!(event, Event::Connack { .. }));
        assert_eq!(connects, 16, "everybody connects again");
        assert_eq!(count(&report, |event| *event == Event::Calm || *event == Event::Quiesce), 2);
    }
}

#[test]
fn a_node_stops_in_order_and_starts_again() {
    for shards in [1, 3] {
        let mut scenario = busy(shards, 2);
        scenario.steps.push(world(3_000, WorldAction::Shutdown { node: 0 }));
        scenario.steps.push(world(3_001, WorldAction::Restart { node: 0 }));
        let report = run(&scenario);
        assert_fine(&report);
        assert_eq!(count(&report, |event| matches!(event, Event::Disconnect { .. })), 8, "all are told");
        assert_eq!(count(&report, |event| matches!(event, Event::Fault(Fault::Restart { .. }))), 1);
        assert_eq!(count(&report, |event| matches!(event, Event::Connack { .. })), 16);
    }
}

#[test]
fn every_action_is_total() {
    let actions = [
        WorldAction::Cut { client: ClientIx(9), to_server: true, to_client: true },
        WorldAction::Heal { client: ClientIx(0) },
        WorldAction::Bandwidth { client: ClientIx(9), bytes_per_s: 1 },
        WorldAction::Pause { node: 9, ms: 1 },
        WorldAction::ClockJump { node: 9, by_ms: 1 },
        WorldAction::Drift { node: 9, ppm: 1 },
        WorldAction::Lag { node: 0, shard: 9, by_us: 1 },
        WorldAction::Crash { node: 9, power_loss: false },
        WorldAction::Restart { node: 0 },
        WorldAction::Shutdown { node: 9 },
        WorldAction::MemoryPressure { node: 9, level: 1 },
    ];
    let mut steps: Vec<Step> = actions.map(|action| world(1, action)).into();
    steps.push(act(1, 7, connect()));
    let report = run(&Scenario { steps, clients: vec![client("a")], ..Scenario::default() });
    assert_fine(&report);
    assert_eq!(report.events, 2, "Calm and Quiesce");
}

#[test]
fn whatever_happens_to_it_the_world_stays_in_order() {
    for seed in 0..10 {
        let mut scenario = busy(1 + (seed % 3) as u16, seed);
        scenario.net = NetSpec { loss_ppm: 5_000, chunk_bytes: 1..=50, shard_delay_us: 0..=500, ..NetSpec::default() };
        for client in &mut scenario.clients {
            client.version = [ProtocolVersion::V311, ProtocolVersion::V5][(seed % 2) as usize];
        }
        let mut chance = crate::draw::Stream::new(seed, 9, 9);
        for _ in 0..40 {
            let at_ms = chance.between(500, 12_000);
            let client = ClientIx(chance.between(0, 7) as u32);
            let shard = chance.between(0, 2) as u16;
            let step = match chance.between(0, 17) {
                0 => world(at_ms, WorldAction::Cut { client, to_server: true, to_client: false }),
                1 => world(at_ms, WorldAction::Cut { client, to_server: false, to_client: true }),
                2 | 3 => world(at_ms, WorldAction::Heal { client }),
                4 => world(at_ms, WorldAction::Bandwidth { client, bytes_per_s: chance.between(0, 5_000) }),
                5 => world(at_ms, WorldAction::Pause { node: 0, ms: chance.between(1, 1_000) }),
                6 => world(at_ms, WorldAction::Drift { node: 0, ppm: chance.between(0, 1_000_000) as i32 - 500_000 }),
                7 => world(at_ms, WorldAction::Lag { node: 0, shard, by_us: chance.between(0, 300_000) }),
                8 => world(at_ms, WorldAction::Crash { node: 0, power_loss: false }),
                9 => world(at_ms, WorldAction::Restart { node: 0 }),
                10 => world(at_ms, WorldAction::Shutdown { node: 0 }),
                11 => world(at_ms, WorldAction::MemoryPressure { node: 0, level: chance.between(0, 2) as u8 }),
                12 => act(at_ms, client.0, Act::Vanish),
                13 => act(at_ms, client.0, Act::Reset),
                14 => act(at_ms, client.0, Act::SetReading(chance.between(0, 1) == 0)),
                15 => act(at_ms, client.0, Act::Freeze(chance.between(0, 1) == 0)),
                16 => act(at_ms, client.0, Act::HangUp),
                _ => act(at_ms, client.0, connect()),
            };
            scenario.steps.push(step);
        }
        assert_fine(&run(&scenario));
    }
}
