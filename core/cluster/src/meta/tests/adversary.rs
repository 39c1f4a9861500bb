//! Faults of all kinds at once: at most one leader a term, one state an index, removals only with a quorum, and one cluster
//! in the end.

use core::time::Duration;

use proptest::prelude::*;

use super::super::Input;
use super::net::{Event, Net};

#[derive(Debug, Clone)]
enum Step {
    Cut(usize, u32),
    Crash(usize),
    Start(usize),
    Write(usize, u8),
    Leave(usize),
    ForceLeave(usize, usize),
    Wait(u64),
    Heal,
}

fn step(count: usize) -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..count, 0u32..3).prop_map(|(index, side)| Step::Cut(index, side)),
        3 => (0..count).prop_map(Step::Crash),
        4 => (0..count).prop_map(Step::Start),
        6 => (0..count, any::<u8>()).prop_map(|(index, value)| Step::Write(index, value)),
        1 => (0..count).prop_map(Step::Leave),
        1 => (0..count, 0..count).prop_map(|(at, node)| Step::ForceLeave(at, node)),
        6 => (50u64..8000).prop_map(Step::Wait),
        2 => Just(Step::Heal),
    ]
}

fn run(count: usize, seed: u64, network: (u64, u64, u64, u64), steps: Vec<Step>) {
    let mut net = Net::new(count, seed);
    net.config.autoclean = Some(Duration::from_secs(6 + seed % 20));
    net.config.snapshot_every = 4 + seed % 30;
    net.config.keep_entries = seed % 5;
    net.join_all();
    (net.loss_ppm, net.twice_ppm, net.delay_ms, net.sync_ms) = network;
    for step in steps {
        match step {
            Step::Cut(index, side) => net.side[index] = side,
            Step::Crash(index) => net.crash(index),
            Step::Start(index) if net.nodes[index].meta.is_none() => net.start(index),
            Step::Start(_) => {}
            Step::Write(index, value) => {
                net.write(index, &format!("k{}", value % 5), &[value]);
                net.run(Duration::from_millis(u64::from(value)));
            }
            Step::Leave(index) => {
                let request = net.request();
                net.input(index, Input::Leave { request });
            }
            Step::ForceLeave(at, node) => {
                let (request, node) = (net.request(), net.nodes[node].me.node);
                net.input(at, Input::ForceLeave { request, node });
            }
            Step::Wait(millis) => net.run(Duration::from_millis(millis)),
            Step::Heal => net.side = vec![0; count],
        }
    }
    net.heal();
    for index in 0..count {
        if net.nodes[index].meta.is_none() {
            net.start(index);
        }
    }
    // Who has left or was thrown out stays out; the others are one cluster.
    net.until("one cluster", 60, |net| {
        let Some(leader) = net.leader() else { return false };
        let led = net.meta(leader).view();
        (0..count).all(|index| {
            let view = net.meta(index).view();
            let node = net.nodes[index].me.node;
            if led.state.members().contains_key(&node) {
                let last = net.nodes[index].events.iter().rev();
                let mut last = last.filter(|event| matches!(event, Event::Joined(_) | Event::Gone(_)));
                let is_gone = matches!(last.next(), Some(Event::Gone(_)));
                !is_gone && view.state.hash() == led.state.hash()
            } else {
                led.state.removed().contains_key(&node)
            }
        })
    });
    for event in net.nodes.iter().flat_map(|node| &node.events) {
        assert!(!matches!(event, Event::Stopped(_)), "{event:?}");
    }
    // A leader that is about to leave may not know what became of it.
    let written = (0..5).any(|_| {
        net.until("a leader", 5, |net| net.leader().is_some());
        let request = net.write(net.leader().unwrap(), "last", b"1");
        net.answer(request, 6).is_ok()
    });
    assert!(written);
    assert!(net.checked > 50);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn three(
        seed in any::<u64>(),
        network in (0u64..300_000, 0u64..300_000, 1u64..300, 1u64..300),
        steps in proptest::collection::vec(step(3), 1..40),
    ) {
        run(3, seed, network, steps);
    }

    #[test]
    fn five(
        seed in any::<u64>(),
        network in (0u64..300_000, 0u64..300_000, 1u64..300, 1u64..300),
        steps in proptest::collection::vec(step(5), 1..40),
    ) {
        run(5, seed, network, steps);
    }
}

const CASES: u32 = 12;

/// The same cases each time.
#[cfg(newtmq_mutants)]
pub(super) fn many() {
    use proptest::strategy::ValueTree as _;
    let network = (0u64..300_000, 0u64..300_000, 1u64..300, 1u64..300);
    let cases = (any::<u64>(), network, proptest::collection::vec(step(3), 1..40));
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..400 {
        let (seed, network, steps) = cases.new_tree(&mut runner).expect("nothing is rejected").current();
        run(3, seed, network, steps);
    }
}

/// A vote of who is removed makes it the leader, and it goes as soon as it has brought its removal to an end: whoever votes
/// alone then does not know it yet, and asks who is gone.
#[test]
pub(super) fn who_leads_when_it_is_removed_goes_when_that_is_known() {
    use Step::{Crash, Cut, ForceLeave, Heal, Leave, Start, Wait, Write};
    let early = [Heal, Start(1), Heal, Start(1), ForceLeave(1, 0), Start(2), Write(1, 108), Leave(0), Write(1, 230)];
    let cut = [Start(0), Start(2), Write(0, 59), Crash(2), Cut(2, 2), Start(2), Leave(1), Write(1, 57), Wait(2263)];
    let late = [Write(0, 86), Wait(7839), Leave(1), Cut(0, 0), Wait(7229), Cut(0, 1), Wait(2815), Write(0, 163)];
    let end = [Write(1, 114), Wait(2258), Crash(2), Heal];
    let steps = early.into_iter().chain(cut).chain(late).chain(end).collect();
    run(3, 6_258_006_221_179_091_797, (263_768, 61_657, 201, 226), steps);
}

/// A member that was down for too long is let in again in the moment in which it wants to leave.
#[test]
pub(super) fn who_comes_back_and_leaves_is_out_or_in() {
    use Step::{Crash, Cut, Heal, Leave, Wait, Write};
    let early = [Wait(2793), Write(3, 3), Cut(3, 1), Write(1, 56), Write(0, 212), Wait(3957), Wait(7394), Wait(486)];
    let late = [Wait(6968), Wait(589), Write(1, 33), Write(0, 48), Wait(6501), Leave(3), Heal, Write(1, 84), Crash(0)];
    let end = [Crash(4), Write(1, 0), Write(1, 0), Wait(3555)];
    let steps = early.into_iter().chain(late).chain(end).collect();
    run(5, 2_660_685_169_613_001_976, (206_362, 252_299, 211, 230), steps);
}

/// Who alone votes from now on comes back, and does not know as yet that its removed leader votes no more: that one has to be
/// asked once more, and is no member that it would know.
#[test]
pub(super) fn who_is_removed_is_asked_as_long_as_it_votes() {
    use Step::{Crash, Cut, ForceLeave, Heal, Leave, Wait, Write};
    let early = [ForceLeave(1, 0), Leave(0), Write(0, 151), Cut(1, 1), Write(1, 171), Wait(4659), Write(0, 217)];
    let late = [Wait(7325), Wait(5303), Write(0, 124), Wait(1819), Wait(6384), Write(0, 66), Crash(2), Heal];
    let end = [Wait(6915), Write(0, 234), Wait(821), Crash(1)];
    let steps = early.into_iter().chain(late).chain(end).collect();
    run(3, 16_878_073_776_022_815_295, (142_594, 75_521, 273, 288), steps);
}
