//! Devices of MQTT-SN in small worlds: what the network does to their datagrams, and how they share the world with clients of
//! MQTT. What must hold of them is in the scenario files.

use super::*;
use crate::history::SnConnect;
use crate::scenario::SnSpec;

fn device(name: &str) -> ClientSpec {
    let reconnect = ReconnectSpec { first_ms: 100, max_ms: 1_000, growth_percent: 100, jitter_percent: 50 };
    ClientSpec { sn: true, clean: false, keep_alive_s: 20, reconnect: Some(reconnect), ..client(name) }
}

/// A device and a client of MQTT that publish to each other, and to themselves.
fn pair(seed: u64, sn: SnSpec) -> Scenario {
    let mut steps = vec![act(0, 0, connect()), act(0, 1, connect())];
    for client in 0..2 {
        steps.push(act(8_000, client, subscribe("t/#", QoS::ExactlyOnce)));
        steps.push(act(20_000, client, publish("t/1", QoS::ExactlyOnce, 5, 2_000_000)));
        steps.push(act(21_000, client, publish("t/2", QoS::AtLeastOnce, 5, 2_000_000)));
    }
    Scenario {
        seed,
        sn,
        clients: vec![device("device"), durable("client")],
        steps,
        settle_ms: 90_000,
        ..Scenario::default()
    }
}

#[track_caller]
fn assert_ok(report: &Report) {
    assert!(report.violations.is_empty(), "{:#?}", report.violations);
}

#[test]
fn a_device_is_one_more_client() {
    let report = run(&pair(1, SnSpec::default()));
    assert_ok(&report);
    assert_eq!(received(&report), 2 * 2 * 10);
    let of_sn = |event: &Event| matches!(event, Event::Connect { facts, .. } if facts.sn == Some(SnConnect::Connect));
    assert_eq!(count(&report, of_sn), 1);
}

#[test]
fn a_bad_network_loses_nothing_that_was_acknowledged() {
    for seed in 0..10 {
        let sn = SnSpec {
            loss_ppm: 200_000,
            dup_ppm: 300_000,
            late_ppm: 200_000,
            late_us: 1_500_000,
            retry_interval_ms: Some(3_000),
            ..SnSpec::default()
        };
        let report = run(&pair(seed, sn.clone()));
        assert_ok(&report);
        assert!(report.obligations.of(Check::Lost) > 0);
        assert_eq!(report.trace_hash, run(&pair(seed, sn)).trace_hash, "the same scenario gives the same run");
    }
}

#[test]
fn a_sleeper_has_a_connection_while_it_is_awake() {
    let mut scenario = pair(3, SnSpec::default());
    scenario.steps.retain(|step| !matches!(step.action, Action::Client { client: ClientIx(0), act: Act::Publish(_) }));
    scenario.steps.push(act(15_000, 0, Act::Sleep { duration_s: 10, wakes: true }));
    scenario.steps.sort_by_key(|step| step.at_ms);
    let report = run(&scenario);
    assert_ok(&report);
    assert_eq!(received(&report), 2 * 10);
    let woken = |event: &Event| matches!(event, Event::Connect { facts, .. } if facts.sn == Some(SnConnect::Wake));
    assert_eq!(count(&report, woken), 1);
}
