//! The tier itself: the same scenario gives the same history, faults do what they say, and nothing else does.

use newtmq_mqtt::QoS;

use crate::generate::{self, Family, Profile, Size};
use crate::history::{AckKind, Closer, Event, History};
use crate::report::Report;
use crate::run::{Options, run_with};
use crate::scenario::{
    Act, Action, ClientSpec, Driver, FilterSpec, NetSpec, PublishSpec, ReconnectSpec, Scenario, Step, WorldAction,
};

fn scenario(clients: &[&str], steps: Vec<Step>) -> Scenario {
    let spec = |name: &&str| ClientSpec { name: (*name).into(), id: (*name).into(), ..ClientSpec::default() };
    Scenario {
        driver: Driver::Madsim,
        shards: 2,
        clients: clients.iter().map(spec).collect(),
        steps,
        ..Scenario::default()
    }
}

fn client(at_ms: u64, client: u32, act: Act) -> Step {
    Step { at_ms, action: Action::Client { client: crate::history::ClientIx(client), act } }
}

fn world(at_ms: u64, action: WorldAction) -> Step {
    Step { at_ms, action: Action::World(action) }
}

fn connect(at_ms: u64, of: u32) -> Step {
    client(at_ms, of, Act::Connect { clean: None, session_expiry_s: None, node: None })
}

fn subscribe(at_ms: u64, of: u32, filter: &str) -> Step {
    client(at_ms, of, Act::Subscribe { filters: vec![FilterSpec::new(filter, QoS::ExactlyOnce)], subscription_id: 0 })
}

fn publish(at_ms: u64, of: u32, topic: &str, qos: QoS, count: u32) -> Step {
    client(at_ms, of, Act::Publish(PublishSpec { count, every_us: 1_000, ..PublishSpec::new(topic, qos) }))
}

fn run(scenario: &Scenario) -> (Report, History) {
    let mut report = run_with(scenario, Options { record: true, white_box: true }, Vec::new());
    let history = *report.history.take().unwrap();
    assert_eq!(report.violations, [], "{history:#?}");
    (report, history)
}

fn count(history: &History, wanted: impl Fn(&Event) -> bool) -> usize {
    history.events.iter().filter(|stamped| wanted(&stamped.event)).count()
}

/// Everything that goes wrong on a network.
fn troubled() -> Scenario {
    let mut scenario = scenario(
        &["subscriber", "publisher"],
        vec![
            connect(0, 0),
            connect(0, 1),
            subscribe(100, 0, "t/#"),
            publish(200, 1, "t/1", QoS::AtLeastOnce, 200),
            world(250, WorldAction::Cut { client: crate::history::ClientIx(0), to_server: true, to_client: false }),
            publish(300, 1, "t/2", QoS::ExactlyOnce, 100),
            world(350, WorldAction::Pause { node: 0, ms: 700 }),
            client(400, 1, Act::Reset),
            world(1_200, WorldAction::Heal { client: crate::history::ClientIx(0) }),
            publish(2_000, 1, "t/3", QoS::AtMostOnce, 100),
            client(2_100, 0, Act::SetReading(false)),
        ],
    );
    scenario.net = NetSpec { latency_us: 0..=5_000, loss_ppm: 20_000, chunk_bytes: 1..=100, ..NetSpec::default() };
    for client in &mut scenario.clients {
        client.clean = false;
        client.session_expiry_s = 60;
        client.keep_alive_s = 10;
        client.reconnect =
            Some(ReconnectSpec { first_ms: 100, max_ms: 1_000, growth_percent: 100, jitter_percent: 50 });
    }
    scenario
}

#[test]
fn messages_get_through() {
    let mut steps = vec![connect(0, 0), connect(0, 1), subscribe(100, 0, "t/#")];
    for (at, qos) in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce].into_iter().enumerate() {
        steps.push(publish(200 + at as u64, 1, &format!("t/{at}"), qos, 10));
    }
    let (_, history) = run(&scenario(&["subscriber", "publisher"], steps));
    assert_eq!(count(&history, |event| matches!(event, Event::Receive { .. })), 30);
    assert_eq!(count(&history, |event| matches!(event, Event::Acked { kind: AckKind::Puback, .. })), 10);
    assert_eq!(count(&history, |event| matches!(event, Event::Acked { kind: AckKind::Pubcomp, .. })), 10);
    assert_eq!(count(&history, |event| matches!(event, Event::Close { .. })), 0);
}

#[test]
fn the_same_seed_gives_the_same_history_in_any_thread() {
    let mut hashes = Vec::new();
    for seed in 0..20 {
        let scenario = Scenario { seed, ..troubled() };
        let first = run(&scenario).0;
        assert!(first.events > 500, "{}", first.events);
        assert_eq!(first.trace_hash, run(&scenario).0.trace_hash, "seed {seed}");
        hashes.push(first.trace_hash);
    }
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 20, "and another seed another");
}

#[test]
fn another_process_has_the_same_history() {
    let own = format!("hash {:016x}", run(&troubled()).0.trace_hash);
    let test = ["--exact", "madsim::tests::tells_its_hash", "--ignored", "--nocapture"];
    let program = std::env::current_exe().unwrap();
    let output = std::process::Command::new(program).args(test).output().unwrap();
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.contains(&own), "{own}: {output}");
}

#[test]
#[ignore = "what another test runs in another process"]
fn tells_its_hash() {
    println!("hash {:016x}", run(&troubled()).0.trace_hash);
}

#[test]
fn a_node_that_crashes_is_gone_until_it_is_started_again() {
    let mut scenario = scenario(
        &["a", "b"],
        vec![
            connect(0, 0),
            connect(0, 1),
            world(1_000, WorldAction::Crash { node: 0, power_loss: false }),
            world(3_000, WorldAction::Restart { node: 0 }),
            world(3_000, WorldAction::Restart { node: 0 }),
            world(40_000, WorldAction::Shutdown { node: 0 }),
            world(40_000, WorldAction::Restart { node: 0 }),
        ],
    );
    for client in &mut scenario.clients {
        client.keep_alive_s = 5;
        client.reconnect = Some(ReconnectSpec { first_ms: 500, max_ms: 500, growth_percent: 0, jitter_percent: 0 });
    }
    let (_, history) = run(&scenario);
    assert_eq!(count(&history, |event| matches!(event, Event::Connack { .. })), 6);
    assert_eq!(count(&history, |event| matches!(event, Event::Disconnect { by: Closer::Server, .. })), 2);
    let faults = |event: &Event| matches!(event, Event::Fault(_));
    assert_eq!(count(&history, faults), 4, "what is not possible is not told");
}

/// One way is cut: what the client sends comes late, and what the broker sends at once.
#[test]
fn a_client_that_nobody_hears_hears() {
    let of = crate::history::ClientIx(0);
    let (_, history) = run(&scenario(
        &["deaf", "other"],
        vec![
            connect(0, 0),
            connect(0, 1),
            subscribe(100, 0, "t"),
            world(500, WorldAction::Cut { client: of, to_server: true, to_client: false }),
            publish(600, 0, "t", QoS::AtLeastOnce, 1),
            publish(700, 1, "t", QoS::AtLeastOnce, 1),
            world(5_000, WorldAction::Heal { client: of }),
        ],
    ));
    let received: Vec<u64> = history
        .events
        .iter()
        .filter(|stamped| matches!(stamped.event, Event::Receive { .. }))
        .map(|stamped| stamped.at.as_nanos() / 1_000_000)
        .collect();
    let [early, late] = received[..] else { panic!("{received:?}") };
    assert!((700..710).contains(&early) && (5_000..5_300).contains(&late), "{received:?}");
}

/// Small cases of every family, as the generator makes them: no panic, nothing is left, one seed has one history.
#[test]
fn generated_cases() {
    for (family, seed) in
        Family::ALL.iter().filter(|family| !family.is_sn()).flat_map(|family| (0..2).map(move |seed| (*family, seed)))
    {
        let mut case = generate::scenario(Profile { family, size: Size::Micro }, seed);
        case.fit_madsim();
        let report = run_with(&case, Options::default(), Vec::new());
        let inside: Vec<_> = report.violations.iter().filter(|violation| !violation.check.is_black_box()).collect();
        assert!(inside.is_empty(), "{} {seed}: {inside:?}", family.name());
        let again = run_with(&case, Options::default(), Vec::new());
        assert_eq!(report.trace_hash, again.trace_hash, "{} {seed}", family.name());
    }
}
