//! Two to five nodes on a network that does what it likes. What is judged at every step, `Net` says; in the end everybody
//! reaches everybody, and everything of control has come.

use core::time::Duration;

use proptest::prelude::*;

use super::net::{Net, id};
use crate::link::{Config, Event, Input, Output, Stream};

#[derive(Debug, Clone)]
enum Deed {
    Send(usize, usize, Stream, usize, u8),
    CutOneWay(usize, usize),
    Cut(usize, usize),
    HealOneWay(usize, usize),
    HealAll,
    Reset(usize, usize, [bool; 2]),
    Restart(usize),
    Forget(usize, usize),
    Pause(usize, u64),
    Wait(u64),
}

fn deed() -> impl Strategy<Value = Deed> {
    let node = 0..5_usize;
    let stream = prop_oneof![3 => Just(Stream::Control), 2 => Just(Stream::Data), 1 => Just(Stream::Bulk)];
    prop_oneof![
        10 => (node.clone(), node.clone(), stream, 0..3000_usize, 1..20_u8).prop_map(|(a, b, s, l, n)| Deed::Send(a, b, s, l, n)),
        2 => (node.clone(), node.clone()).prop_map(|(a, b)| Deed::CutOneWay(a, b)),
        3 => (node.clone(), node.clone()).prop_map(|(a, b)| Deed::Cut(a, b)),
        3 => (node.clone(), node.clone()).prop_map(|(a, b)| Deed::HealOneWay(a, b)),
        1 => Just(Deed::HealAll),
        3 => (node.clone(), node.clone(), any::<[bool; 2]>()).prop_map(|(a, b, told)| Deed::Reset(a, b, told)),
        1 => node.clone().prop_map(Deed::Restart),
        1 => (node.clone(), node.clone()).prop_map(|(a, b)| Deed::Forget(a, b)),
        1 => (node, 0..12_000_u64).prop_map(|(a, millis)| Deed::Pause(a, millis)),
        8 => prop_oneof![0..50_u64, 0..1000_u64, 0..6000_u64].prop_map(Deed::Wait),
    ]
}

fn play(count: usize, seed: u64, delay: u64, rate: u64, deeds: &[Deed]) {
    let config = Config { relay_limit: 4_000, relay_window: 8_000, ..Config::default() };
    let mut net = Net::new(count, seed, config);
    (net.delay, net.rate) = (Duration::from_millis(delay), rate);
    for deed in deeds {
        match deed.clone() {
            Deed::Send(from, to, stream, len, times) => {
                if let Some((from, to)) = pair(from, to, count) {
                    for _ in 0..times {
                        let _: Result<_, _> = net.send(from, to, stream, len);
                    }
                }
            }
            Deed::CutOneWay(from, to) => net.cut_one_way(from % count, to % count),
            Deed::Cut(from, to) => net.cut(from % count, to % count),
            Deed::HealOneWay(from, to) => net.heal_one_way(from % count, to % count),
            Deed::HealAll => net.heal(),
            Deed::Reset(from, to, told) => net.reset(from % count, to % count, told),
            Deed::Restart(node) => net.restart(node % count),
            Deed::Forget(node, peer) => {
                if let Some((node, peer)) = pair(node, peer, count) {
                    net.forget(node, peer);
                }
            }
            Deed::Pause(node, millis) => net.pause(node % count, Duration::from_millis(millis)),
            Deed::Wait(millis) => net.run(Duration::from_millis(millis)),
        }
    }
    net.heal();
    // The longest pause of a node, detection, the longest pause of dialing, the longest damping.
    net.run(Duration::from_secs(42));
    net.assert_converged();
}

fn pair(one: usize, other: usize, count: usize) -> Option<(usize, usize)> {
    let (one, other) = (one % count, other % count);
    (one != other).then_some((one, other))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn links_keep_their_promises(
        count in 2..6_usize,
        seed in any::<u64>(),
        delay in 0..40_u64,
        rate in prop_oneof![3 => Just(0_u64), 1 => Just(200_000_u64)],
        deeds in prop::collection::vec(deed(), 0..60),
    ) {
        play(count, seed, delay, rate, &deeds);
    }

    /// Without faults nothing is lost, nobody is Down, and connections stay, however slow they are.
    #[test]
    fn a_quiet_network_loses_nothing(
        count in 2..4_usize,
        seed in any::<u64>(),
        delay in 0..300_u64,
        rate in prop_oneof![Just(0_u64), 20_000..200_000_u64],
        sends in prop::collection::vec((0..5_usize, 0..5_usize, 0..3_usize, 0..16_000_usize, 0..300_u64), 0..80),
    ) {
        let mut net = Net::new(count, seed, Config::default());
        (net.delay, net.rate) = (Duration::from_millis(delay), rate);
        net.run(Duration::from_secs(8));
        net.assert_converged();
        for (from, to, stream, len, millis) in sends {
            if let Some((from, to)) = pair(from, to, count) {
                net.send(from, to, [Stream::Control, Stream::Data, Stream::Bulk][stream], len).unwrap();
            }
            net.run(Duration::from_millis(millis));
        }
        net.run(Duration::from_secs(120));
        net.assert_converged();
        for (index, node) in net.nodes.iter().enumerate() {
            prop_assert!(net.downs(index).is_empty(), "{:?}", net.downs(index));
            for (&(peer, stream), &given) in &node.given {
                prop_assert_eq!(net.nodes[peer].got[&(index, 1, stream)], (given, 0));
            }
        }
    }

    /// A member that sends nonsense ends its connection, and nothing else.
    #[test]
    fn nonsense_of_a_member_never_panics(
        frames in prop::collection::vec((0..13_u8, prop::collection::vec(any::<u8>(), 0..60)), 0..20),
    ) {
        let mut net = Net::new(3, 1, Config::default());
        net.run(Duration::from_secs(2));
        let conn = net.nodes[0].links.peer(id(1)).unwrap().connection().unwrap();
        let mut out = Vec::new();
        for (kind, fields) in frames {
            let mut bytes = (fields.len() as u32 + 1).to_be_bytes().to_vec();
            bytes.push(kind);
            bytes.extend(fields);
            let links = &mut net.nodes[0].links;
            links.handle(net.now, Input::Bytes { conn, data: &bytes }, &mut out);
            let at = links.next_deadline().unwrap();
            links.handle(at, Input::Tick, &mut out);
            links.fill(at, conn, &mut Vec::new(), 1000);
        }
        let down = |output: &Output| matches!(output, Output::Event(Event::Down { peer, .. }) if *peer == id(2));
        prop_assert!(!out.iter().any(down));
    }
}
