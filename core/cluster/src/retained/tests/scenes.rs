//! One thing at a time.

use core::time::Duration;

use bytes::Bytes;
use newtmq_base::{Incarnation, NodeId, RequestId, Rng};
use raft::eraftpb;

use super::super::entry::Entry;
use super::super::{Config, Identity, Input, Output, Persist, Refusal, Retained, Stopped, Stored, Written};
use super::net::{Net, small};
use crate::meta::ClusterId;

fn read(net: &mut Net, index: usize, topic: &str) -> Option<String> {
    let request = net.read(index, topic);
    net.until("it can be read", 6, |net| net.reached.contains_key(&request));
    assert!(net.reached[&request]);
    text(net, index, topic)
}

fn text(net: &Net, index: usize, topic: &str) -> Option<String> {
    net.retained(index).message(topic).map(|message| String::from_utf8_lossy(message).into_owned())
}

// One node is alone, and knows it; the others have a leader.
fn part(net: &mut Net, alone: usize) {
    net.side[alone] = 1;
    net.until("it has no leader", 10, |net| net.retained(alone).view().leader.is_none());
    net.until("the others have one", 10, |net| net.leader().is_some_and(|leader| leader != alone));
}

#[test]
pub(super) fn a_write_is_everywhere_and_read_after_the_barrier() {
    for seed in 0..10 {
        let mut net = Net::new(3, seed, small());
        net.delay_ms = 100;
        let mut last = 0;
        for at in [0, 1, 2, 0] {
            let index = net.wrote(at, "a/b", true);
            assert!(index > last);
            last = index;
            for reader in 0..3 {
                assert!(read(&mut net, reader, "a/b").is_some());
            }
        }
        net.wrote(1, "a/b", false);
        assert_eq!(read(&mut net, 2, "a/b"), None);
        assert_eq!(net.checked_reads, 13);
        net.check_rest(5);
        assert_eq!(net.retained(2).view().messages, 0);
        // Everybody has passed the deletion.
        net.until("it is forgotten", 5, |net| (0..3).all(|index| net.retained(index).view().tombstones == 0));
    }
}

#[test]
pub(super) fn a_barrier_knows_what_a_node_has_answered_before_it_crashed() {
    for seed in 0..30 {
        let mut net = Net::new(3, seed, small());
        let leader = net.leader().unwrap();
        let request = net.write(leader, "t", true, false);
        // Nobody else knows as yet that it is committed.
        while !net.answers.contains_key(&request) {
            net.run(Duration::from_millis(1));
        }
        net.crash(leader);
        net.start(leader);
        for reader in 0..3 {
            net.read(reader, "t");
        }
        net.seconds(6);
        assert_eq!(net.checked_reads, 3);
    }
}

#[test]
pub(super) fn a_write_that_is_sent_again_is_there_once() {
    for seed in 0..20 {
        let mut net = Net::new(3, seed, small());
        (net.loss_ppm, net.twice_ppm, net.delay_ms) = (300_000, 400_000, 200);
        let asked: Vec<u64> =
            (0..30).map(|number| net.write(number % 3, &format!("t/{}", number % 4), true, false)).collect();
        for request in asked {
            let outcome = net.answer(request, 6);
            assert!(matches!(outcome, Ok(Written::Committed { .. }) | Err(_)));
        }
        net.heal();
        net.check_rest(20);
    }
}

#[test]
pub(super) fn a_write_of_a_later_start_is_none_of_the_one_before() {
    let mut net = Net::new(3, 3, small());
    let other = (net.leader().unwrap() + 1) % 3;
    for _ in 0..3 {
        net.wrote(other, "t", true);
        net.crash(other);
        net.start(other);
        net.until("it is back", 10, Net::is_whole);
    }
    net.wrote(other, "t", true);
    net.check_rest(5);
}

#[test]
pub(super) fn what_was_given_up_does_not_come_after_what_was_written_since() {
    let mut net = Net::new(3, 4, small());
    let leader = net.leader().unwrap();
    let other = (leader + 1) % 3;
    // The first one is on its way for so long that its node has given it up.
    net.delay_ms = 60_000;
    let request = net.write(other, "t", true, false);
    net.delay_ms = 10;
    assert!(net.answer(request, 30).is_err() || net.answers.is_empty());
    let index = net.wrote(other, "t", true);
    net.seconds(70);
    let last = net.retained(leader).messages(None).last().map(|(_, index, _)| index);
    assert_eq!(last, Some(index));
    net.check_rest(5);
}

#[test]
pub(super) fn without_a_leader_it_is_refused_or_kept_here_alone() {
    let mut net = Net::new(3, 5, small());
    let base = net.wrote(0, "both", true);
    net.wrote(0, "mine", true);
    net.check_rest(5);
    let alone = (net.leader().unwrap() + 1) % 3;
    let other = (alone + 1) % 3;
    part(&mut net, alone);
    let refused = net.write(alone, "mine", true, false);
    let kept = [("mine", true), ("both", true), ("new", true), ("mine", false)]
        .map(|(topic, is)| net.write(alone, topic, is, true));
    assert_eq!(net.answer(refused, 6), Err(Refusal::NoLeader));
    for request in kept {
        assert_eq!(net.answer(request, 6), Ok(Written::Pending));
    }
    let before = text(&net, other, "mine");
    assert!(before.is_some() && text(&net, alone, "mine").is_none(), "it is read here alone");
    assert_eq!(net.retained(alone).view().pending, 3);
    // After a while it is said at once.
    net.seconds(9);
    let refused = net.write(alone, "mine", true, false);
    assert_eq!(net.answers.remove(&refused), Some(Err(Refusal::NoLeader)));
    let index = net.wrote(other, "both", true);
    assert!(index > base);
    net.heal();
    net.check_rest(10);
    let counters = net.retained(alone).counters();
    assert_eq!((counters.pending_kept, counters.pending_played, counters.pending_dropped), (4, 2, 1));
    for index in 0..3 {
        assert_eq!(text(&net, index, "mine"), None);
        assert!(text(&net, index, "new").is_some());
        assert_eq!(text(&net, index, "both"), text(&net, other, "both"));
    }
}

#[test]
pub(super) fn what_is_kept_has_a_limit() {
    let mut net = Net::new(3, 6, Config { pending_max: 2, pending_bytes_max: 18, ..small() });
    let alone = (net.leader().unwrap() + 1) % 3;
    part(&mut net, alone);
    net.seconds(9);
    let outcomes = ["a", "b", "c", "a", "a/much/longer"].map(|topic| {
        let request = net.write(alone, topic, true, true);
        net.answers.remove(&request).unwrap()
    });
    let full = Err(Refusal::PendingFull);
    assert_eq!(outcomes, [Ok(Written::Pending), Ok(Written::Pending), full, Ok(Written::Pending), full]);
    assert_eq!(net.retained(alone).counters().pending_refused, 2);
    net.heal();
    net.check_rest(10);
    assert_eq!(net.played, 2);
}

// Only topics count, not how often they are written.
#[test]
pub(super) fn what_is_written_again_without_a_leader_is_no_more() {
    let mut net = Net::new(3, 6, small());
    let alone = (net.leader().unwrap() + 1) % 3;
    part(&mut net, alone);
    net.seconds(9);
    let mut write = |topic: &str| {
        let request = net.write(alone, topic, true, true);
        net.answers.remove(&request).unwrap()
    };
    assert_eq!(write("first"), Ok(Written::Pending));
    for _ in 0..70_000 {
        assert_eq!(write("again"), Ok(Written::Pending));
    }
    net.heal();
    net.check_rest(10);
    assert_eq!(net.played, 2);
}

// What a witness has more than the one that is left goes there first, over a way that takes longer than a tick.
#[test]
pub(super) fn a_witness_hands_over_what_it_alone_has() {
    for seed in 0..10 {
        let mut net = Net::new(3, seed, small());
        net.crash(2);
        net.nodes[2].witness = true;
        net.start(2);
        net.until("a node with clients leads", 20, |net| net.is_whole() && net.leader() != Some(2));
        let leader = net.leader().unwrap();
        let other = 1 - leader;
        net.side[other] = 1;
        net.wrote(leader, "t", true);
        net.crash(leader);
        net.delay_ms = 300;
        net.side[other] = 0;
        net.until("the other one leads", 15, |net| net.leader() == Some(other));
        assert!(text(&net, other, "t").is_some());
    }
}

#[test]
pub(super) fn what_was_deleted_and_is_forgotten_is_not_what_never_was() {
    let mut net = Net::new(3, 7, Config { tombstones_max: 1, ..small() });
    let alone = (net.leader().unwrap() + 1) % 3;
    let other = (alone + 1) % 3;
    part(&mut net, alone);
    let request = net.write(alone, "t", true, true);
    assert_eq!(net.answer(request, 6), Ok(Written::Pending));
    for topic in ["t", "u", "v", "w"] {
        net.wrote(other, topic, true);
        net.wrote(other, topic, false);
    }
    net.seconds(3);
    let leader = net.leader().unwrap();
    assert!(net.retained(leader).counters().forgotten_early > 0);
    net.heal();
    net.check_rest(10);
    assert_eq!((net.dropped, text(&net, other, "t")), (1, None));
}

#[test]
pub(super) fn who_was_away_for_long_gets_the_topics_in_chunks() {
    // Deletions are remembered for it, or there were too many of them.
    for (seed, tombstones_max) in [(8, 1000), (9, 1), (10, 3)] {
        let mut net = Net::new(3, seed, Config { tombstones_max, ..small() });
        for topic in 0..40 {
            net.wrote(0, &format!("t/{topic}"), true);
        }
        net.check_rest(5);
        let away = (net.leader().unwrap() + 1) % 3;
        let there = (away + 1) % 3;
        net.crash(away);
        for topic in 0..40 {
            net.wrote(there, &format!("t/{topic}"), topic % 2 == 0);
        }
        net.seconds(3);
        net.start(away);
        // The others go on meanwhile.
        for topic in 0..10 {
            net.wrote(there, &format!("u/{topic}"), true);
        }
        net.check_rest(20);
        assert!(net.retained(away).counters().chunks_taken > 1);
        assert!(net.largest_bulk <= 60 + 30, "{}", net.largest_bulk);
    }
}

#[test]
pub(super) fn chunks_that_are_lost_are_asked_for_again() {
    for seed in 0..10 {
        let mut net = Net::new(3, seed, small());
        for topic in 0..30 {
            net.wrote(0, &format!("t/{topic}"), true);
        }
        net.check_rest(5);
        (net.loss_ppm, net.twice_ppm, net.delay_ms) = (200_000, 300_000, 100);
        let index = (net.leader().unwrap() + 1) % 3;
        net.replace(index);
        net.until("it votes", 60, Net::is_whole);
        net.heal();
        net.check_rest(20);
    }
}

#[test]
pub(super) fn nobody_votes_who_has_not_everything() {
    let mut net = Net::new(3, 11, small());
    net.wrote(0, "t", true);
    net.check_rest(5);
    let index = (net.leader().unwrap() + 1) % 3;
    net.bulk_is_lost = true;
    net.replace(index);
    net.seconds(15);
    let (leader, id) = (net.leader().unwrap(), net.nodes[index].id);
    assert!(net.retained(leader).voters().all(|voter| voter != id));
    net.wrote(leader, "t", true);
    net.bulk_is_lost = false;
    net.check_rest(20);
}

#[test]
pub(super) fn members_do_not_go_back() {
    let mut net = Net::new(3, 12, small());
    let leader = net.leader().unwrap();
    let next = (leader + 1) % 3;
    net.set_voters(&[next]);
    net.tell(leader);
    net.until("the other one leads", 10, |net| net.leader() == Some(next));
    net.seconds(10);
    let id = net.nodes[next].id;
    assert_eq!(net.retained(next).voters().collect::<Vec<NodeId>>(), [id], "an older word counts for nothing");
    net.wrote(leader, "t", true);
    (0..3).for_each(|index| net.tell(index));
    net.check_rest(10);
    net.set_voters(&[0, 1, 2]);
    (0..3).for_each(|index| net.tell(index));
    net.check_rest(10);
}

#[test]
pub(super) fn all_machines_are_replaced_one_after_the_other() {
    let mut net = Net::new(3, 13, small());
    for topic in 0..30 {
        net.wrote(0, &format!("t/{topic}"), true);
    }
    for index in [0, 1, 2, 0, 1, 2] {
        net.check_rest(20);
        net.replace(index);
    }
    net.check_rest(20);
    assert_eq!(net.retained(0).view().messages, 30);
}

#[test]
pub(super) fn all_start_again_with_what_they_had() {
    for seed in 0..20 {
        let mut net = Net::new(3, seed, small());
        net.sync_ms = 50;
        for round in 0..60 {
            net.wrote(round % 3, &format!("t/{}", round % 25), round % 7 != 0);
        }
        for index in 0..3 {
            net.crash(index);
        }
        for index in 0..3 {
            net.start(index);
        }
        net.check_rest(20);
        // What is written again from time to time keeps the disk short.
        assert!((0..3).all(|index| net.disk_bytes(index) < 8_000), "{}", net.disk_bytes(0));
    }
}

#[test]
pub(super) fn too_much_is_refused() {
    let mut net = Net::new(1, 14, Config { message_bytes_max: 8, requests_max: 2, ..small() });
    let large = net.write(0, "a/long/topic", true, false);
    assert_eq!(net.answers.remove(&large), Some(Err(Refusal::TooLarge)));
    let asked = [1, 2, 3].map(|_| net.write(0, "t", true, false));
    assert_eq!(net.answers.remove(&asked[2]), Some(Err(Refusal::Busy)));
    for request in &asked[..2] {
        assert!(matches!(net.answer(*request, 1), Ok(Written::Committed { .. })));
    }
    assert_eq!(net.retained(0).counters().busy, 1);
    net.next_wait(0, 1000);
    net.seconds(6);
    assert_eq!(net.reached.values().collect::<Vec<_>>(), [&false], "a wait has an end");
}

#[test]
pub(super) fn another_cluster_is_another_disk() {
    let mut net = Net::new(1, 15, small());
    net.wrote(0, "t", true);
    net.seconds(1);
    let me = Identity { node: NodeId(1), inc: Incarnation(9), cluster: ClusterId(8), witness: false };
    let stored = net.stored(0);
    let mut retained = Retained::new(small(), me, stored, Rng::from_number(1), net.now).unwrap();
    let mut out = Vec::new();
    retained.handle(net.now, Input::Message { from: NodeId(2), bytes: &[7, 2, 1] }, &mut out);
    assert_eq!((retained.view().messages, retained.counters().foreign), (0, 1));
    let mut stored = net.stored(0);
    for output in out {
        let Output::Persist(persist) = output else { continue };
        stored.apply(persist);
    }
    assert_eq!(stored, Stored { cluster: Some(ClusterId(8)), ..Stored::default() });
}

#[test]
pub(super) fn an_entry_of_a_later_version_stops_the_node() {
    let net = Net::new(1, 16, small());
    let commit = net.retained(0).committed();
    let (index, term) = (commit + 1, net.retained(0).view().term);
    let entry = eraftpb::Entry { index, term, data: Bytes::from_static(&[99, 1]), ..Default::default() };
    let hard = eraftpb::HardState { term, commit: index, ..Default::default() };
    let mut stored = net.stored(0);
    stored.apply(Persist { entries: vec![entry], hard: Some(hard), ..Persist::default() });
    let me = Identity { node: NodeId(1), inc: Incarnation(9), cluster: ClusterId(7), witness: false };
    let mut retained = Retained::new(small(), me, stored, Rng::from_number(1), net.now).unwrap();
    let mut out = Vec::new();
    let mut now = net.now;
    for _ in 0..20 {
        now = now + Duration::from_millis(100);
        retained.handle(now, Input::Tick, &mut out);
        let numbers = out
            .iter()
            .filter_map(|output| if let Output::Persist(persist) = output { Some(persist.number) } else { None });
        if let Some(number) = numbers.max() {
            retained.handle(now, Input::Persisted { number }, &mut out);
        }
    }
    let stopped = Stopped::UnknownEntry { index, kind: 99 };
    assert_eq!(retained.view().stopped, Some(stopped));
    assert!(out.contains(&Output::Stopped(stopped)));
    let write = Input::Write { request: RequestId(1), topic: "t".into(), message: None, keep: true, seen: None };
    retained.handle(now, write, &mut out);
    assert_eq!(out.pop(), Some(Output::Answer { request: RequestId(1), outcome: Err(Refusal::Stopped) }));
}

#[test]
pub(super) fn an_entry_says_no_more_than_it_has_to() {
    let mut net = Net::new(3, 17, small());
    net.wrote(0, "a/b", true);
    let log = net.retained(0).group.engine.log();
    let last = log.after(0).iter().rfind(|entry| !entry.data.is_empty()).unwrap();
    assert!(matches!(Entry::decode(&last.data), Ok(Entry::Write(_))));
    assert_eq!(last.data.len() - "a/ba/b=1".len(), 6);
}

#[test]
pub(super) fn same_seed_same_messages() {
    let traces = [21, 21, 22].map(|seed| {
        let mut net = Net::new(3, seed, small());
        for round in 0..20 {
            net.wrote(round % 3, "t", true);
        }
        let leader = net.leader().unwrap();
        net.crash(leader);
        net.seconds(10);
        net.trace
    });
    assert_eq!(traces[0], traces[1]);
    assert_ne!(traces[0], traces[2]);
}
