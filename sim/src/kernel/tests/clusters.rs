//! Small worlds of several nodes, whole. What must hold of a cluster is in the scenario files; here is what the world does
//! to its nodes.

use newtmq_base::Instant;
use newtmq_node::{ClusterAnswer, ClusterEvent};

use super::*;
use crate::history::{Closer, ConnIx, NodeIx, Stamped};
use crate::scenario::NodeSpec;

/// Three nodes, each with a subscriber (0 to 2) and a publisher (3 to 5) that says something from time to time.
fn three(seed: u64) -> Scenario {
    let client = |ix: u16| ClientSpec { node: ix % 3, ..durable(&format!("c{ix}")) };
    let mut steps = Vec::new();
    for n in 0..6 {
        steps.push(act(5_000 + u64::from(n), n, connect()));
    }
    for n in 0..3 {
        steps.push(act(5_500, n, subscribe("t/#", QoS::AtLeastOnce)));
        steps.push(act(7_000, 3 + n, publish(&format!("t/{n}"), QoS::AtLeastOnce, 50, 40_000)));
    }
    Scenario { seed, nodes: 3, clients: (0..6).map(client).collect(), steps, settle_ms: 30_000, ..Scenario::default() }
}

fn said(report: &Report, node: u16, which: impl Fn(&ClusterEvent) -> bool) -> usize {
    count(report, |event| matches!(event, Event::Cluster { node: of, event } if of.0 == node && which(event)))
}

#[test]
fn messages_reach_subscribers_at_all_nodes() {
    let report = run(&three(1));
    assert_fine(&report);
    assert_eq!(received(&report), 3 * 3 * 50);
    for node in 0..3 {
        assert_eq!(said(&report, node, |event| matches!(event, ClusterEvent::Joined(_))), 1);
        assert_eq!(said(&report, node, |event| matches!(event, ClusterEvent::Open { open: true, .. })), 2);
    }
    assert!(report.traffic.stream_bytes > 0 && report.traffic.datagrams > 0);
}

#[test]
fn the_same_cluster_gives_the_same_run() {
    let mut scenario = three(2);
    scenario.net.nodes.loss_ppm = 20_000;
    scenario.net.nodes.dup_ppm = 20_000;
    scenario.steps.push(world(8_000, WorldAction::Partition { groups: vec![vec![0], vec![1, 2]] }));
    scenario.steps.push(world(20_000, WorldAction::Crash { node: 1, power_loss: true }));
    scenario.steps.push(world(21_000, WorldAction::Restart { node: 1 }));
    let [one, two] = [run(&scenario), run(&scenario)];
    assert_eq!((one.trace_hash, one.events, one.traffic), (two.trace_hash, two.events, two.traffic));
    assert_ne!(one.trace_hash, run(&Scenario { seed: 3, ..scenario }).trace_hash);
}

#[test]
fn nodes_start_when_they_are_told_to_and_stop_in_order() {
    let mut scenario = three(4);
    scenario.node_specs = vec![NodeSpec::default(), NodeSpec { start_ms: 3_000, ..NodeSpec::default() }];
    scenario.steps.push(world(12_000, WorldAction::NewAddress { node: 2 }));
    scenario.steps.push(world(12_001, WorldAction::Shutdown { node: 2 }));
    scenario.steps.push(world(13_000, WorldAction::Restart { node: 2 }));
    let report = run(&scenario);
    assert_fine(&report);
    let events = &report.history.as_ref().unwrap().events;
    let ups = events.iter().filter_map(|stamped| {
        let Event::NodeUp { node, id, incarnation, address } = &stamped.event else { return None };
        Some((stamped.at.as_nanos() / 1_000_000, node.0, id.0, incarnation.0, address.to_string()))
    });
    let ups: Vec<_> = ups.collect();
    let expected = [
        (0, 0, 1, 1, "10.0.0.1:4370".to_owned()),
        (0, 2, 3, 1, "10.0.0.3:4370".to_owned()),
        (3_000, 1, 2, 1, "10.0.0.2:4370".to_owned()),
        (13_000, 2, 3, 2, "10.0.1.3:4370".to_owned()),
    ];
    assert_eq!(ups, expected);
    assert_eq!(count(&report, |event| *event == Event::NodeDown { node: NodeIx(2) }), 1);
}

#[test]
fn operators_are_answered_and_a_wiped_node_is_another_one() {
    let mut scenario = three(5);
    scenario.steps.push(world(15_000, WorldAction::Wipe { node: 2 }));
    scenario.steps.push(world(40_000, WorldAction::ForceLeave { node: 0, target: 2 }));
    scenario.steps.push(world(41_000, WorldAction::Restart { node: 2 }));
    scenario.steps.push(world(55_000, WorldAction::Status { node: 2 }));
    let report = run(&scenario);
    assert_fine(&report);
    assert_eq!(
        count(
            &report,
            |event| matches!(event, Event::NodeUp { node: NodeIx(2), incarnation, .. } if incarnation.0 == 1)
        ),
        2
    );
    let events = &report.history.as_ref().unwrap().events;
    let answers = events.iter().filter_map(|stamped| {
        let Event::Answer { answer, .. } = &stamped.event else { return None };
        Some(answer)
    });
    let answers: Vec<_> = answers.collect();
    let [done, status] = &answers[..] else { panic!("{answers:?}") };
    assert_eq!(**done, Box::new(ClusterAnswer::Done));
    let ClusterAnswer::Status(status) = &***status else { panic!("{status:?}") };
    let members: Vec<u64> = status.nodes.iter().map(|of| of.node.0).collect();
    assert_eq!(members, [1, 2, 1 << 16 | 3]);
}

#[test]
fn links_come_and_go_as_they_are_told_to() {
    let mut scenario = three(6);
    scenario.steps.push(world(10_000, WorldAction::Flap { from: 0, to: 1, down_ms: 500, up_ms: 500, count: 4 }));
    scenario.steps.push(world(20_000, WorldAction::Isolate { node: 2 }));
    scenario.steps.push(world(21_000, WorldAction::CutLink { from: 2, to: 0 }));
    let report = run(&scenario);
    assert_fine(&report);
    let cuts = |event: &Event| matches!(event, Event::Fault(Fault::LinkCut { .. }));
    let heals = |event: &Event| matches!(event, Event::Fault(Fault::LinkHealed { .. }));
    assert_eq!((count(&report, cuts), count(&report, heals)), (4 * 2 + 4, 4 * 2 + 4), "the end of all steps heals");
}

#[test]
fn every_action_of_a_cluster_is_total() {
    let actions = || {
        vec![
            WorldAction::Wipe { node: 9 },
            WorldAction::NewAddress { node: 9 },
            WorldAction::CutLink { from: 0, to: 9 },
            WorldAction::CutLink { from: 1, to: 1 },
            WorldAction::HealLink { from: 0, to: 1 },
            WorldAction::Partition { groups: vec![vec![9], vec![]] },
            WorldAction::Isolate { node: 9 },
            WorldAction::HealLinks,
            WorldAction::Flap { from: 9, to: 0, down_ms: 1, up_ms: 1, count: 2 },
            WorldAction::SlowLink { from: 0, to: 9, by_us: 1, bytes_per_s: 1 },
            WorldAction::Join { node: 0, to: 9 },
            WorldAction::Leave { node: 9 },
            WorldAction::ForceLeave { node: 0, target: 9 },
            WorldAction::Status { node: 9 },
        ]
    };
    for nodes in [1, 3] {
        let steps: Vec<Step> = actions().into_iter().map(|action| world(1, action)).collect();
        let report = run(&Scenario { nodes, steps, settle_ms: 0, ..Scenario::default() });
        assert_eq!(count(&report, |event| matches!(event, Event::Fault(_) | Event::Command { .. })), 0);
    }
}

#[test]
fn a_repair_is_measured_until_all_is_whole() {
    let mut scenario = three(7);
    scenario.steps.push(world(12_000, WorldAction::Partition { groups: vec![vec![0], vec![1, 2]] }));
    scenario.steps.push(world(30_000, WorldAction::HealLink { from: 0, to: 1 }));
    // The next fault comes too soon.
    scenario.steps.push(world(32_000, WorldAction::HealLinks));
    scenario.steps.push(world(32_001, WorldAction::Crash { node: 1, power_loss: true }));
    scenario.steps.push(world(33_000, WorldAction::Restart { node: 1 }));
    scenario.steps.push(world(60_000, WorldAction::Pause { node: 2, ms: 20_000 }));
    let report = run(&scenario);
    assert_fine(&report);
    let ms = |at: Instant| at.as_nanos() / 1_000_000;
    let heals: Vec<_> = report.heals.iter().map(|heal| (ms(heal.repaired), heal.is_whole, heal.is_cut_short)).collect();
    assert_eq!(heals, [(32_000, false, true), (33_000, true, false), (80_000, true, false)]);
    let seconds = |at: usize| report.heals[at].took().as_secs_f64();
    assert!(seconds(0) < 0.01 && seconds(1) > 0.1 && seconds(1) < 15.0 && seconds(2) < 15.0, "{:?}", report.heals);
    let dropped = crate::heal::dropped(&scenario, &report.heals[2], report.history.as_ref().unwrap());
    assert_eq!(dropped, crate::heal::Dropped::default());
    assert!(report.heals[2].one_session.is_some_and(|took| took.as_secs() < 20), "{:?}", report.heals);
}

#[test]
fn who_loses_its_connection_after_a_repair_is_told() {
    let mut scenario = three(8);
    scenario.steps.push(world(30_000, WorldAction::Isolate { node: 2 }));
    scenario.steps.push(world(50_000, WorldAction::HealLinks));
    let report = run(&scenario);
    let heal = report.heals[0];
    let mut history = report.history.unwrap();
    let close = |at: Instant, conn: u32, by| Stamped { at, event: Event::Close { conn: ConnIx(conn), by } };
    let early = Instant::from_nanos(heal.repaired.as_nanos() - 1);
    let late = Instant::from_nanos(heal.over().as_nanos() + 1);
    history.events.extend([
        close(early, 0, Closer::Server),
        close(heal.ended, 1, Closer::Server),
        close(heal.ended, 2, Closer::Network),
        close(heal.ended, 3, Closer::Client),
        close(late, 4, Closer::Server),
    ]);
    history.events.sort_by_key(|stamped| stamped.at);
    let dropped = |scenario: &Scenario| crate::heal::dropped(scenario, &heal, &history);
    assert_eq!(dropped(&scenario).others, [(ClientIx(1), ConnIx(1))]);
    // A client that the scenario cuts off is not the cluster's affair.
    scenario.steps.push(world(40_000, WorldAction::Cut { client: ClientIx(1), to_server: true, to_client: true }));
    assert_eq!(dropped(&scenario), crate::heal::Dropped::default());
}
