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
