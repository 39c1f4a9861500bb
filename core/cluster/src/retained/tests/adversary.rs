//! Faults of all kinds at once: an order of the log that everybody has, nothing lost that was answered, nothing there twice,
//! and the same everywhere in the end.

use core::time::Duration;

use proptest::prelude::*;

use super::net::{Net, small};

#[derive(Debug, Clone)]
enum Step {
    Cut(usize, u32),
    Crash(usize),
    Start(usize),
    Write { at: usize, topic: u8, is_message: bool, keep: bool },
    Read(usize, u8),
    Replace(usize),
    Voters(usize),
    Tell(usize),
    Wait(u64),
    Heal,
}

fn step() -> impl Strategy<Value = Step> {
    let write = (0..3usize, 0..12u8, 0..4u8, any::<bool>());
    prop_oneof![
        3 => (0..3usize, 0u32..2).prop_map(|(index, side)| Step::Cut(index, side)),
        2 => (0..3usize).prop_map(Step::Crash),
        3 => (0..3usize).prop_map(Step::Start),
        24 => write.prop_map(|(at, topic, kind, keep)| Step::Write { at, topic, is_message: kind > 0, keep }),
        4 => (0..3usize, 0..12u8).prop_map(|(at, topic)| Step::Read(at, topic)),
        1 => (0..3usize).prop_map(Step::Replace),
        1 => (0..3usize).prop_map(Step::Voters),
        1 => (0..3usize).prop_map(Step::Tell),
        8 => (20u64..3000).prop_map(Step::Wait),
        1 => (6000u64..12_000).prop_map(Step::Wait),
        2 => Just(Step::Heal),
    ]
}

fn run(seed: u64, network: (u64, u64, u64, u64), steps: Vec<Step>) {
    let mut net = Net::new(3, seed, small());
    net.config.lost_after = Duration::from_secs(3 + seed % 6);
    (net.loss_ppm, net.twice_ppm, net.delay_ms, net.sync_ms) = network;
    for step in steps {
        match step {
            Step::Cut(index, side) => net.side[index] = side,
            Step::Crash(index) => net.crash(index),
            Step::Start(index) if net.nodes[index].retained.is_none() => net.start(index),
            Step::Start(_) => {}
            Step::Write { at, topic, is_message, keep } => {
                if net.nodes[at].retained.is_some() {
                    net.write(at, &format!("t/{topic}"), is_message, keep);
                    net.run(Duration::from_millis(u64::from(topic) * 9));
                }
            }
            Step::Read(at, topic) if net.nodes[at].retained.is_some() => {
                net.read(at, &format!("t/{topic}"));
            }
            Step::Read(..) => {}
            // Only what is whole survives the loss of a disk.
            Step::Replace(index) => {
                if net.is_whole() && net.members.2.len() == 3 {
                    net.replace(index);
                }
            }
            Step::Voters(index) => {
                let all = net.members.2.len() == 3;
                let voters = if all { vec![index] } else { vec![0, 1, 2] };
                net.set_voters(&voters);
                net.tell(index);
            }
            Step::Tell(index) => net.tell(index),
            Step::Wait(millis) => net.run(Duration::from_millis(millis)),
            Step::Heal => net.heal(),
        }
    }
    net.heal();
    net.check_rest(60);
    net.wrote(0, "last", true);
    net.seconds(3);
    net.check_rest(10);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    #[test]
    fn three(
        seed in any::<u64>(),
        network in (0u64..300_000, 0u64..300_000, 1u64..300, 1u64..200),
        steps in proptest::collection::vec(step(), 1..100),
    ) {
        run(seed, network, steps);
    }
}

const CASES: u32 = 24;

/// The same cases each time.
#[cfg(newtmq_mutants)]
pub(super) fn many() {
    use proptest::strategy::ValueTree as _;
    let network = (0u64..300_000, 0u64..300_000, 1u64..300, 1u64..200);
    let cases = (any::<u64>(), network, proptest::collection::vec(step(), 1..100));
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    for _ in 0..300 {
        let (seed, network, steps) = cases.new_tree(&mut runner).expect("nothing is rejected").current();
        run(seed, network, steps);
    }
}
