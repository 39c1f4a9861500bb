//! One thing each that happens to links, and what must come of it.

use core::time::Duration;

use super::net::{Net, id};
use crate::link::{Config, Decoder, DownCause, Event, Fill, Frame, Links, Path, Refusal, Stream, Unsent};
use bytes::Bytes;
use newtmq_base::{Incarnation, Instant};

const S: fn(u64) -> Duration = Duration::from_secs;

fn up(count: usize, seed: u64) -> Net {
    let mut net = Net::new(count, seed, Config::default());
    net.run(S(2));
    net.assert_converged();
    net
}

#[test]
pub(super) fn nodes_that_dial_each_other_agree_on_one_connection() {
    for seed in 0..40 {
        let mut net = up(2, seed);
        // Nothing goes on behind it.
        let connected = net.count(0, |event| matches!(event, Event::Connected { .. }));
        let opened = net.nodes[0].opened();
        assert!(connected <= 2 && opened <= 4, "{connected}, {opened}");
        net.run(S(60));
        assert_eq!(net.nodes[0].opened(), opened);
        assert_eq!(net.count(0, |event| matches!(event, Event::Connected { .. })), connected);
        assert!(net.downs(0).is_empty() && net.downs(1).is_empty());
    }
}

#[test]
pub(super) fn everything_of_control_comes_once_over_resets() {
    let mut net = up(2, 1);
    for round in 0..30 {
        for _ in 0..20 {
            net.send(0, 1, Stream::Control, 3000).unwrap();
            net.send(1, 0, Stream::Control, 10).unwrap();
        }
        net.run(Duration::from_millis(1 + round));
        net.reset(0, 1, [round % 2 == 0, round % 3 != 0]);
        net.run(Duration::from_millis(400));
    }
    net.run(S(12));
    net.assert_converged();
    assert!(net.downs(0).is_empty(), "short breaks are no reason to be Down");
    assert!(net.nodes[0].links.counters().received_old + net.nodes[1].links.counters().received_old > 0);
}

#[test]
pub(super) fn a_one_way_cut_is_noticed_by_both() {
    let mut net = up(2, 2);
    let start = net.now;
    net.cut_one_way(0, 1);
    net.run(S(12));
    for (index, peer, cause) in [(0, 1, DownCause::Unheard), (1, 0, DownCause::Silent)] {
        let downs = net.downs(index);
        let (at, who, why) = downs[0];
        assert_eq!((downs.len(), who, why), (1, peer, cause));
        let after = at.saturating_since(start);
        assert!(after > S(7) && after < S(9), "{after:?}");
    }
    net.heal();
    net.run(S(12));
    net.assert_converged();
}

#[test]
pub(super) fn a_silent_cut_is_down_after_detect_and_up_soon_after_it_heals() {
    let mut net = up(2, 3);
    let start = net.now;
    net.cut(0, 1);
    net.run(S(30));
    for index in 0..2 {
        let after = net.downs(index)[0].0.saturating_since(start);
        assert!(after > S(7) && after <= S(8), "{after:?}");
    }
    assert_eq!(net.send(0, 1, Stream::Data, 1), Err(Unsent::Down));
    net.send(0, 1, Stream::Control, 1).unwrap();
    net.heal();
    net.run(S(7));
    net.assert_converged();
}

#[test]
pub(super) fn a_dead_link_is_replaced_by_a_neighbour_and_taken_back() {
    let mut net = up(3, 4);
    for _ in 0..5 {
        net.send(0, 2, Stream::Control, 100).unwrap();
        net.send(0, 2, Stream::Data, 100).unwrap();
    }
    net.cut(0, 2);
    net.run(S(3));
    assert_eq!((net.path(0, 2), net.path(2, 0)), (Path::Via(id(1)), Path::Via(id(1))));
    for _ in 0..200 {
        net.send(0, 2, Stream::Control, 2000).unwrap();
        net.send(2, 0, Stream::Data, 2000).unwrap();
        net.send(0, 2, Stream::Bulk, 2000).unwrap();
    }
    net.run(S(40));
    let got = |net: &Net, index: usize, from, stream| net.nodes[index].got[&(from, 1, stream)].0;
    assert_eq!(got(&net, 2, 0, Stream::Control), 205);
    assert_eq!(got(&net, 0, 2, Stream::Data), 200);
    assert_eq!(got(&net, 2, 0, Stream::Bulk), 200);
    assert!(net.downs(0).is_empty() && net.downs(2).is_empty(), "a relay keeps both Up");
    assert!(net.nodes[1].links.counters().passed_on > 600);
    net.heal();
    net.run(S(10));
    net.assert_converged();
}

#[test]
pub(super) fn nodes_that_never_met_talk_over_a_neighbour() {
    let mut net = Net::new(3, 5, Config::default());
    net.cut(0, 2);
    net.send(0, 2, Stream::Control, 10).unwrap();
    net.run(S(5));
    assert!(net.nodes[0].up.contains(&2) && net.nodes[2].up.contains(&0));
    assert_eq!(net.nodes[2].got[&(0, 1, Stream::Control)].0, 1);
    // A node that starts anew behind the neighbour is another one.
    net.restart(2);
    net.send(2, 0, Stream::Control, 10).unwrap();
    net.run(S(10));
    assert_eq!(net.nodes[0].got[&(2, 2, Stream::Control)].0, 1);
    assert_eq!(net.downs(0).iter().map(|down| (down.1, down.2)).collect::<Vec<_>>(), [(2, DownCause::Restarted)]);
    net.heal();
    net.run(S(10));
    net.assert_converged();
}

#[test]
pub(super) fn frames_are_never_passed_on_twice() {
    // A line of four: its ends have no neighbour in common.
    let mut net = Net::new(4, 6, Config::default());
    for (one, other) in [(0, 2), (0, 3), (1, 3)] {
        net.cut(one, other);
    }
    net.run(S(20));
    assert!(net.nodes[0].up.contains(&1) && net.nodes[0].up.contains(&2));
    assert!(!net.nodes[0].up.contains(&3) && !net.nodes[3].up.contains(&0));
    assert_eq!(net.path(0, 3), Path::None);
}

#[test]
pub(super) fn a_neighbour_whose_own_link_is_dead_passes_nothing_on() {
    let mut net = up(3, 7);
    net.cut(0, 2);
    net.run(S(3));
    // 1 hears 2, but 2 does not hear 1.
    net.cut_one_way(1, 2);
    net.run(S(10));
    assert_eq!(net.path(0, 2), Path::None);
    assert!(!net.nodes[0].up.contains(&2) && !net.nodes[2].up.contains(&0));
    net.heal();
    net.run(S(15));
    net.assert_converged();
}

#[test]
pub(super) fn a_neighbour_refuses_what_it_cannot_pass_on_directly() {
    let mut net = up(3, 18);
    net.delay = Duration::from_millis(50);
    net.cut(0, 2);
    net.run(S(3));
    net.cut_one_way(2, 1);
    // The neighbour knows before the source has heard of it.
    for _ in 0..300 {
        net.send(0, 2, Stream::Control, 10).unwrap();
        net.run(Duration::from_millis(10));
    }
    assert!(net.nodes[1].links.counters().relay_refused > 0);
    net.heal();
    net.run(S(15));
    net.assert_converged();
}

#[test]
pub(super) fn what_comes_late_on_the_old_path_is_not_taken() {
    let mut net = up(3, 19);
    net.cut(0, 2);
    let send = |net: &mut Net| {
        for stream in [Stream::Control, Stream::Data, Stream::Bulk] {
            net.send(0, 2, stream, 10).unwrap();
        }
    };
    // These are held back by the cut: control is sent again over the neighbour.
    send(&mut net);
    net.run(S(3));
    assert_eq!(net.path(0, 2), Path::Via(id(1)));
    send(&mut net);
    net.run(S(1));
    assert_eq!(net.nodes[2].got[&(0, 1, Stream::Control)].0, 2);
    assert_eq!(net.nodes[2].got[&(0, 1, Stream::Data)], (2, 1), "the first was on its way, and is lost");
    let old = net.nodes[2].links.counters().received_old;
    net.heal();
    net.run(S(5));
    assert!(net.nodes[2].links.counters().received_old >= old + 3, "they came, and were dropped");
    send(&mut net);
    net.run(S(10));
    net.assert_converged();
}

#[test]
pub(super) fn what_a_neighbour_drops_is_sent_again_and_nothing_overtakes_it() {
    let config = Config { relay_limit: 4000, ..Config::default() };
    let mut net = Net::new(3, 20, config);
    net.run(S(2));
    net.cut(0, 2);
    net.run(S(3));
    net.rate = 100_000;
    for _ in 0..100 {
        for stream in [Stream::Control, Stream::Data] {
            let _: Result<_, _> = net.send(0, 2, stream, 1000);
            let _: Result<_, _> = net.send(1, 2, stream, 1000);
        }
    }
    net.run(S(40));
    assert!(net.nodes[1].links.counters().relay_full > 0);
    assert!(net.nodes[2].links.counters().received_ahead > 0);
    assert!(net.nodes[0].links.counters().relay_resends > 0);
    assert_eq!(net.nodes[2].got[&(0, 1, Stream::Control)].0, 100);
    net.heal();
    net.run(S(10));
    net.assert_converged();
}

#[test]
pub(super) fn a_new_start_gets_nothing_that_was_for_the_old_one() {
    let mut net = up(2, 8);
    for _ in 0..50 {
        net.send(0, 1, Stream::Control, 4000).unwrap();
        net.send(1, 0, Stream::Control, 4000).unwrap();
    }
    net.restart(1);
    net.run(S(10));
    let resets = |event: &Event| *event == Event::Reset { peer: id(1), incarnation: Incarnation(2) };
    assert_eq!(net.count(0, resets), 1);
    assert_eq!(net.nodes[1].got.len(), 0);
    for _ in 0..3 {
        net.send(0, 1, Stream::Control, 1).unwrap();
        net.send(1, 0, Stream::Control, 1).unwrap();
    }
    net.run(S(1));
    net.assert_converged();
    assert_eq!(net.nodes[1].got[&(0, 1, Stream::Control)].0, 53);
}

#[test]
pub(super) fn a_node_that_forgets_its_peer_begins_anew_with_it() {
    let mut net = up(2, 9);
    net.send(0, 1, Stream::Control, 1).unwrap();
    net.run(S(1));
    net.forget(1, 0);
    net.run(S(5));
    assert_eq!(net.count(0, |event| matches!(event, Event::Reset { .. })), 1);
    net.send(0, 1, Stream::Control, 1).unwrap();
    net.send(1, 0, Stream::Control, 1).unwrap();
    net.run(S(1));
    net.assert_converged();
}

#[test]
pub(super) fn a_lower_incarnation_is_refused_and_both_are_told() {
    let mut net = up(2, 10);
    // The node knows of a later start, as from other members.
    let mut out = Vec::new();
    let now = net.now;
    net.nodes[0].links.know(now, id(1), Incarnation(7), &mut out);
    net.reset(0, 1, [true, true]);
    net.run(S(15));
    for (index, by_peer) in [(0, false), (1, true)] {
        let refused = |event: &Event| matches!(event, Event::Refused { reason: Refusal::LowerIncarnation, by_peer: by, .. } if *by == by_peer);
        assert!(net.count(index, refused) > 0);
        assert!(net.nodes[index].up.is_empty());
    }
}

#[test]
pub(super) fn an_evicted_node_is_told_so_and_refused_until_it_is_readmitted() {
    let mut net = up(2, 11);
    let mut out = Vec::new();
    let now = net.now;
    net.nodes[0].links.evict(now, id(1), &mut out);
    net.apply(0, out);
    net.run(S(15));
    let told = |event: &Event| matches!(event, Event::Refused { reason: Refusal::Evicted, by_peer: true, .. });
    assert!(net.count(1, told) > 1, "at once, and when it comes back");
    assert!(net.nodes[0].up.is_empty() && net.nodes[1].up.is_empty());
    net.nodes[0].links.readmit(id(1));
    net.run(S(10));
    assert!(net.nodes[0].up.contains(&1) && net.nodes[1].up.contains(&0));
}

#[test]
pub(super) fn a_flapping_link_is_held_down() {
    let mut net = up(3, 12);
    for _ in 0..60 {
        net.reset(0, 1, [true, true]);
        net.cut(0, 1);
        net.run(S(3));
        net.heal();
        net.run(S(3));
    }
    let paths = net.count(0, |event| matches!(event, Event::Path { peer, .. } if *peer == id(1)));
    assert!(paths < 20, "{paths} changes of path in 60 flaps");
    assert!(net.nodes[0].links.counters().damped > 0);
    assert!(net.downs(0).is_empty());
    net.run(S(10));
    net.assert_converged();
}

#[test]
pub(super) fn a_peer_that_is_down_again_and_again_is_held_down() {
    let config = Config { detect: S(2), relay_after: S(1), ..Config::default() };
    let mut net = Net::new(2, 13, config);
    for _ in 0..20 {
        net.cut(0, 1);
        net.reset(0, 1, [true, true]);
        net.run(S(3));
        net.heal();
        net.run(S(4));
    }
    let ups = net.count(0, |event| matches!(event, Event::Up { .. }));
    assert!(ups <= 6, "{ups} times Up in 20 cuts");
    assert!(net.nodes[0].links.counters().damped > 0);
    // No longer than the limit after the last failure.
    net.run(S(5));
    net.assert_converged();
}

#[test]
pub(super) fn bulk_does_not_delay_control_and_a_slow_link_is_not_down() {
    let mut net = Net::new(2, 14, Config::default());
    net.rate = 64 << 10;
    net.run(S(3));
    let mut slowest = Duration::ZERO;
    for round in 0..30 {
        while net.send(0, 1, Stream::Bulk, 16 << 10).is_ok() {}
        while net.send(0, 1, Stream::Data, 10 << 10).is_ok() {}
        net.send(0, 1, Stream::Control, 10).unwrap();
        let start = net.now;
        while net.nodes[1].got.get(&(0, 1, Stream::Control)).map_or(0, |got| got.0) <= round {
            net.run(Duration::from_millis(50));
        }
        if round > 2 {
            slowest = slowest.max(net.now.saturating_since(start));
        }
        net.run(S(1));
    }
    // What is ahead of it is the window, not what waits.
    assert!(slowest < S(3), "{slowest:?}");
    assert!(net.downs(0).is_empty() && net.downs(1).is_empty());
    let [bulk, data] = [Stream::Bulk, Stream::Data].map(|stream| net.nodes[1].got_bytes[&(0, stream)]);
    assert!(bulk > 200_000 && data > 200_000, "both go on: {bulk}, {data}");
    assert!(net.nodes[0].links.counters().unsent_bulk_full > 0);
}

#[test]
pub(super) fn one_fill_gives_control_first_and_little_of_bulk() {
    let mut net = up(2, 21);
    let conn = net.nodes[0].links.peer(id(1)).unwrap().connection().unwrap();
    let (links, now) = (&mut net.nodes[0].links, net.now);
    let mut out = Vec::new();
    let mut send = |links: &mut Links, stream, len| {
        links.send(now, id(1), stream, Bytes::from(vec![0; len]), &mut out).unwrap();
    };
    for _ in 0..10 {
        send(links, Stream::Bulk, 30 << 10);
    }
    for round in 0..3 {
        send(links, Stream::Data, 100);
        send(links, Stream::Control, 100);
        let mut bytes = Vec::new();
        assert_eq!(links.fill(now, conn, &mut bytes, 1 << 20), Fill::More, "{round}");
        let mut decoder = Decoder::default();
        decoder.feed(&bytes);
        let mut kinds = Vec::new();
        while let Some(frame) = decoder.next(1 << 20).unwrap() {
            match Frame::decode(frame).unwrap() {
                Frame::Control { .. } => kinds.push(Stream::Control),
                Frame::Run { bulk, .. } => kinds.push(if bulk { Stream::Bulk } else { Stream::Data }),
                _ => {}
            }
        }
        assert_eq!(kinds, [Stream::Control, Stream::Data, Stream::Bulk, Stream::Bulk]);
    }
}

#[test]
pub(super) fn a_fast_link_is_not_slowed_by_its_window() {
    let mut net = up(2, 15);
    net.delay = Duration::from_millis(25);
    let start = net.now;
    for _ in 0..400 {
        while net.send(0, 1, Stream::Data, 8 << 10).is_ok() {}
        net.run(Duration::from_millis(10));
    }
    let seconds = net.now.saturating_since(start).as_secs_f64();
    let rate = net.nodes[1].got_bytes[&(0, Stream::Data)] as f64 / seconds;
    // The pipe of the test takes 64 KiB for each way of 25 ms.
    assert!(rate > 1_500_000.0, "{rate}");
}

#[test]
pub(super) fn a_frame_may_be_as_large_as_a_packet() {
    let mut net = up(2, 18);
    net.delay = Duration::from_millis(1);
    net.send(0, 1, Stream::Data, 40 << 20).unwrap();
    net.run(S(20));
    assert_eq!(net.nodes[1].got_bytes[&(0, Stream::Data)], 40 << 20);
    assert_eq!((net.downs(0), net.downs(1)), (vec![], vec![]));
    net.send(0, 1, Stream::Data, 968).unwrap();
}

#[test]
pub(super) fn limits_are_kept_and_counted() {
    let config = Config { control_limit: 10_000, data_limit: 10_000, bulk_limit: 10_000, ..Config::default() };
    let mut net = Net::new(2, 16, config);
    net.run(S(2));
    net.cut(0, 1);
    for stream in [Stream::Control, Stream::Data, Stream::Bulk] {
        let taken = (0..1000).filter(|_| net.send(0, 1, stream, 968).is_ok()).count();
        // Some are in the pipe already.
        assert!((10..90).contains(&taken), "{taken}");
    }
    let counters = *net.nodes[0].links.counters();
    assert!(counters.unsent_control_full > 900 && counters.unsent_data_full > 900 && counters.unsent_bulk_full > 900);
    assert_eq!(net.send(0, 1, Stream::Bulk, 1 << 20), Err(Unsent::TooLarge));
    net.heal();
    net.run(S(5));
    net.assert_converged();
    // What was acknowledged gives its place back.
    for _ in 0..50 {
        net.send(0, 1, Stream::Control, 968).unwrap();
        net.run(Duration::from_millis(100));
    }
}

#[test]
pub(super) fn the_same_seed_gives_the_same_run() {
    let run = || {
        let mut net = up(4, 17);
        net.cut(0, 1);
        net.run(S(10));
        net.restart(2);
        net.heal();
        net.run(S(20));
        net.nodes.iter().flat_map(|node| node.log.clone()).collect::<Vec<(Instant, Event)>>()
    };
    assert_eq!(run(), run());
}
