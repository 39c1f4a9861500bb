//! Joining, leaving, two nodes, a witness, restarts, what is written.

use core::time::Duration;

use newtmq_base::{InvalidField, NodeId, Put, RequestId};
use raft::eraftpb::{Entry, HardState, Message, MessageType};

use super::super::message::{JoinAnswer, Message as MetaMessage};
use super::super::{BlobKind, Command, Gone, Input, JoinRefusal, Meta, Refusal, Rejected, Role, Stopped};
use super::net::{Event, Net};

#[test]
pub(super) fn nodes_join_and_vote_in_odd_numbers() {
    for (count, voters) in [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (6, 5), (7, 5)] {
        let net = Net::cluster(count, count as u64);
        assert_eq!((net.members(0).len(), net.voters(0).len()), (count, voters));
    }
}

#[test]
pub(super) fn who_starts_after_the_others_joins_too() {
    let mut net = Net::new(3, 5);
    for index in 0..3 {
        net.start(index);
        if index == 0 {
            net.init(0);
        } else {
            let request = net.request();
            net.input(index, Input::Join { request, via: None });
            assert_eq!(net.answer(request.0, 10), Ok(0));
        }
        net.seconds(20);
    }
    assert_eq!(net.voters(2), [1, 2, 3]);
    // Asked again, it stays one.
    net.crash(2);
    net.start(2);
    net.until("it is back", 5, Net::is_whole);
    assert_eq!(net.members(0), [1, 2, 3]);
}

#[test]
pub(super) fn sole_voter_leads_at_once() {
    let mut net = Net::cluster(1, 1);
    net.crash(0);
    net.seconds(1);
    net.start(0);
    // As soon as its vote is on the disk.
    net.run(Duration::from_millis(20));
    assert!(net.meta(0).view().is_leader);
}

#[test]
pub(super) fn two_nodes_have_one_voter() {
    let mut net = Net::cluster(2, 2);
    assert_eq!(net.voters(0), [1]);
    net.crash(1);
    let request = net.write(0, "k", b"v");
    assert_eq!(net.answer(request, 2).map(|_| ()), Ok(()));
    net.start(1);
    net.until("it has caught up", 5, Net::is_whole);
    // The learner alone decides nothing, and is back as soon as the voter is.
    net.crash(0);
    net.seconds(10);
    assert_eq!(net.leader(), None);
    net.start(0);
    net.until("the voter is back", 5, Net::is_whole);
}

#[test]
pub(super) fn who_leads_says_so_when_it_is_durable() {
    let mut net = Net::cluster(2, 3);
    let before = net.meta(1).view().term;
    net.crash(0);
    net.sync_ms = 1 << 40;
    net.start(0);
    net.seconds(10);
    assert_eq!(net.leader(), None, "nor does it say so");
    assert_eq!(net.meta(1).view().term, before, "the disk takes nothing, and the term may come again");
    net.crash(0);
    net.sync_ms = 4;
    net.start(0);
    net.until("the voter is back", 5, Net::is_whole);
}

#[test]
pub(super) fn witness_votes_and_never_leads() {
    let mut net = Net::new(3, 3);
    net.nodes[2].me.witness = true;
    net.join_all();
    assert_eq!(net.voters(0), [1, 2, 3]);
    assert_eq!(net.meta(0).view().state.role(NodeId(3)), Some(Role::Witness));
    for victim in [0, 1, 0, 1] {
        net.until("all are there", 20, Net::is_whole);
        net.crash(victim);
        net.until("the other leads", 8, |net| net.leader() == Some(1 - victim));
        let request = net.write(1 - victim, "k", &[victim as u8]);
        assert_eq!(net.answer(request, 2).map(|_| ()), Ok(()));
        net.seconds(2);
        net.start(victim);
    }
    net.until("all are there", 20, Net::is_whole);
    net.crash(0);
    net.crash(1);
    net.seconds(30);
    assert_eq!(net.leader(), None);
    let mut net = Net::new(1, 4);
    net.nodes[0].me.witness = true;
    net.start(0);
    let request = net.request();
    net.input(0, Input::Init { request, name: "c".to_owned() });
    assert_eq!(net.answers[&request.0], Err(Refusal::Witness));
}

#[test]
pub(super) fn witness_passes_on_what_it_alone_knows() {
    let mut net = Net::new(3, 16);
    net.nodes[2].me.witness = true;
    net.join_all();
    net.until("all are there", 20, Net::is_whole);
    net.crash(0);
    net.until("the other leads", 8, |net| net.leader() == Some(1));
    let request = net.write(1, "k", b"v");
    assert_eq!(net.answer(request, 2).map(|_| ()), Ok(()));
    net.crash(1);
    net.start(0);
    net.until("who was away leads", 5, |net| net.leader() == Some(0));
    assert!(net.meta(0).view().state.config().contains_key("k"));
}

#[test]
pub(super) fn leader_is_replaced_within_three_seconds() {
    for seed in 0..10 {
        let mut net = Net::cluster(3, seed);
        let leader = net.leader().unwrap();
        net.crash(leader);
        let time = net.until("another one leads", 4, |net| net.leader().is_some());
        assert!(time.as_millis() <= 3000, "{time:?}");
    }
}

// Who stands has to store its vote before it asks for others'.
#[test]
pub(super) fn few_stand_while_a_vote_is_stored() {
    let mut stood = 0;
    for seed in 0..40 {
        let mut net = Net::cluster(5, seed);
        net.sync_ms = 800;
        net.seconds(3);
        let leader = net.leader().unwrap();
        net.crash(leader);
        net.until("another one leads", 8, |net| net.leader().is_some());
        net.seconds(2);
        let term = net.meta(net.leader().unwrap()).view().term;
        let hard = |index: &usize| (net.nodes[*index].disk.hard.term, net.nodes[*index].disk.hard.vote);
        stood += (0..5).filter(|index| hard(index) == (term, *index as u64 + 1)).count();
    }
    assert!(stood < 60, "{stood} stood in 40 elections");
}

#[test]
pub(super) fn leaving() {
    // Followers, leaders, and the sole voter of two.
    for (count, goes, left) in [(3, 2, vec![1, 2]), (3, 0, vec![2, 3]), (5, 0, vec![2, 3, 4, 5]), (2, 0, vec![2])] {
        let mut net = Net::cluster(count, 7);
        net.until("the first one leads", 1, |net| net.leader() == Some(0));
        let request = net.request();
        net.input(goes, Input::Leave { request });
        assert_eq!(net.answer(request.0, 15), Ok(0), "{goes} of {count}");
        assert!(net.nodes[goes].events.contains(&Event::Gone(Gone::Left)));
        net.crash(goes);
        net.until("the others are a cluster", 15, Net::is_whole);
        assert_eq!(net.members(left[0] as usize - 1), left);
        // It does not come back by itself, but when it is told to.
        net.start(goes);
        net.seconds(10);
        assert_eq!(net.members(left[0] as usize - 1), left);
        assert!(!net.meta(goes).is_member());
        let request = net.request();
        net.input(goes, Input::Join { request, via: None });
        assert_eq!(net.answer(request.0, 10), Ok(0));
        net.until("it is back", 15, Net::is_whole);
        assert_eq!(net.members(goes).len(), count);
    }
}

#[test]
pub(super) fn who_has_left_may_come_back_at_once() {
    for goes in [0, 2] {
        let mut net = Net::cluster(3, 15);
        net.until("the first one leads", 1, |net| net.leader() == Some(0));
        let request = net.request();
        net.input(goes, Input::Leave { request });
        assert_eq!(net.answer(request.0, 15), Ok(0));
        let request = net.request();
        net.input(goes, Input::Join { request, via: None });
        assert_eq!(net.answer(request.0, 10), Ok(0));
        net.seconds(10);
        assert!(net.is_whole() && net.members(goes) == [1, 2, 3], "its leaving was over");
        let is_of_it = |event: &&Event| matches!(event, Event::Removed(node, _) if *node == net.nodes[goes].me.node);
        assert_eq!(net.nodes[1].events.iter().filter(is_of_it).count(), 1, "it left once");
    }
}

/// The second of three does not hear that the third one leaves, founds a cluster of its own, and asks to come back.
fn third_comes_back() -> (Net, RequestId) {
    let mut net = Net::cluster(3, 16);
    net.until("the first one leads", 1, |net| net.leader() == Some(0));
    // The second one does not hear that the third one leaves, and that the first one alone votes then.
    net.side[1] = 1;
    let request = net.request();
    net.input(2, Input::Leave { request });
    assert_eq!(net.answer(request.0, 15), Ok(0));
    net.init(2);
    let request = net.request();
    net.input(2, Input::Join { request, via: None });
    (net, request)
}

#[test]
pub(super) fn who_comes_back_is_somebody_else() {
    let mut net = third_comes_back().0;
    let is_told = |net: &Net| net.meta(2).cluster() == net.meta(0).cluster();
    for _ in 0..15_000 {
        if is_told(&net) {
            break;
        }
        net.run(Duration::from_millis(1));
    }
    assert!(is_told(&net), "it is let in");
    assert_eq!(net.meta(2).view().commit, 0, "it has heard nothing as yet");
    net.side[2] = 1;
    net.seconds(10);
    assert_eq!(net.meta(2).view().term, 0, "it does not vote on what it has forgotten");
    net.side = vec![0; 3];
    net.until("all are there", 15, Net::is_whole);
    net.crash(2);
    net.start(2);
    net.until("it is as it was", 15, Net::is_whole);
}

#[test]
pub(super) fn who_comes_back_leads_who_was_away() {
    let (mut net, request) = third_comes_back();
    assert_eq!(net.answer(request.0, 15), Ok(0));
    net.seconds(2);
    let request = net.request();
    net.input(0, Input::Leave { request });
    assert_eq!(net.answer(request.0, 15), Ok(0));
    net.side = vec![0; 3];
    net.until("they are two", 15, |net| net.leader() == Some(2) && net.members(1) == [2, 3]);
    net.until("both know the leader", 5, |net| net.meta(1).view().leader == Some(NodeId(3)));
}

#[test]
pub(super) fn who_led_before_refuses_nobody() {
    let mut net = Net::cluster(3, 17);
    let leader = net.leader().unwrap();
    let (one, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let (inc, from) = (net.nodes[one].me.inc, net.nodes[other].me.node);
    let mut bytes = Vec::new();
    MetaMessage::JoinAnswer { inc, answer: JoinAnswer::Refused(JoinRefusal::Left) }.encode(&mut bytes);
    net.input(one, Input::Message { from, bytes: &bytes });
    net.seconds(1);
    assert!(net.is_whole(), "it follows another one");
}

#[test]
pub(super) fn who_is_told_whom_to_join_joins_nobody_else() {
    for seed in 0..10 {
        let mut net = Net::new(4, seed);
        (0..4).for_each(|index| net.start(index));
        for index in [0, 1, 2] {
            net.init(index);
        }
        let wanted = net.meta(1).cluster();
        let request = net.request();
        net.input(3, Input::Join { request, via: Some(NodeId(2)) });
        assert_eq!(net.answer(request.0, 10), Ok(0));
        net.seconds(5);
        assert_eq!((net.meta(3).cluster(), net.members(3)), (wanted, vec![2, 4]));
        assert_eq!((net.members(0), net.members(2)), (vec![1], vec![3]));
    }
}

#[test]
pub(super) fn only_member_cannot_leave() {
    let mut net = Net::cluster(1, 1);
    let request = net.request();
    net.input(0, Input::Leave { request });
    assert_eq!(net.answer(request.0, 1), Err(Refusal::SoleMember));
}

#[test]
pub(super) fn sole_member_gives_its_cluster_up_and_says_what_is_lost() {
    let mut net = Net::new(3, 8);
    for index in 0..3 {
        net.start(index);
    }
    net.init(0);
    net.init(1);
    net.seconds(3);
    assert_eq!(net.founded.len(), 2);
    let request = net.write(1, "zone", b"z");
    net.answer(request, 2).unwrap();
    for (kind, key) in [(BlobKind::User, "ann"), (BlobKind::User, "bob"), (BlobKind::Acl, "1")] {
        let request = net.request();
        let command = Command::PutBlob { kind, key: key.to_owned(), value: Some(vec![1]), expected: Some(0) };
        net.input(1, Input::Write { request, command });
        net.answer(request.0, 2).unwrap();
    }
    // The first node takes the third one in; so it is alone no more.
    let request = net.request();
    net.side = vec![0, 1, 0];
    net.input(2, Input::Join { request, via: None });
    assert_eq!(net.answer(request.0, 10), Ok(0));
    net.side = vec![0; 3];
    net.seconds(10);
    for index in [0, 2] {
        let request = net.request();
        net.input(index, Input::Join { request, via: None });
        assert_eq!(net.answer(request.0, 1), Err(Refusal::NotAlone));
    }
    let request = net.request();
    net.input(1, Input::Join { request, via: None });
    assert_eq!(net.answer(request.0, 10), Ok(0));
    let lost = net.nodes[1].events.iter().find_map(|event| match event {
        Event::Abandoned(lost) => Some(lost.clone()),
        Event::Joined(_) | Event::Removed(..) | Event::Gone(_) | Event::Stopped(_) => None,
    });
    let lost = lost.expect("it is said what is lost");
    assert_eq!((lost.config_keys, lost.acl, lost.users, lost.banned), (1, 1, 2, 0));
    net.until("one cluster", 10, Net::is_whole);
    net.crash(1);
    net.start(1);
    net.until("it stays there", 10, Net::is_whole);
    assert_eq!(net.members(1), [1, 2, 3]);
}

#[test]
pub(super) fn who_goes_into_another_cluster_lets_nobody_in() {
    for seed in 0..10 {
        let mut net = Net::new(3, seed);
        for index in 0..3 {
            net.start(index);
            net.init(index);
        }
        net.seconds(1);
        let asked = [1, 2].map(|index| {
            let request = net.request();
            net.input(index, Input::Join { request, via: None });
            request.0
        });
        for request in asked {
            assert_eq!(net.answer(request, 10), Ok(0));
        }
        net.until("one cluster", 10, Net::is_whole);
        assert_eq!(net.members(0), [1, 2, 3]);
    }
}

#[test]
pub(super) fn who_does_not_come_is_let_go() {
    let mut net = Net::new(2, 12);
    for index in 0..2 {
        net.start(index);
        net.init(index);
    }
    net.seconds(1);
    let request = net.request();
    net.input(1, Input::Join { request, via: None });
    net.until("it is let in", 5, |net| net.members(0) == [1, 2]);
    net.input(1, Input::GiveUp { request });
    assert_eq!(net.answers.remove(&request.0), Some(Err(Refusal::Timeout)));
    net.until("it is let go", 10, |net| net.members(0) == [1]);
    net.seconds(10);
    assert_eq!((net.members(1), net.meta(1).is_member()), (vec![2], true), "it has what it had");
    let request = net.request();
    net.input(1, Input::Join { request, via: None });
    assert_eq!(net.answer(request.0, 10), Ok(0), "an operator may want it again");
    net.until("one cluster", 10, Net::is_whole);
}

#[test]
pub(super) fn who_cannot_leave_stays() {
    let mut net = Net::cluster(3, 13);
    net.crash(1);
    net.crash(2);
    let request = net.request();
    net.input(0, Input::Leave { request });
    net.seconds(9);
    net.input(0, Input::GiveUp { request });
    assert_eq!(net.answers.remove(&request.0), Some(Err(Refusal::Timeout)));
    assert!(net.meta(0).is_member());
    net.start(1);
    net.start(2);
    net.until("all are there", 20, Net::is_whole);
    assert_eq!(net.members(0), [1, 2, 3]);
}

#[test]
pub(super) fn who_leaves_votes_on_it() {
    // Two of three voters run, and one of them goes.
    for (dead, goes) in [(0, 2), (1, 0), (2, 0), (2, 1)] {
        let mut net = Net::cluster(3, 14);
        net.until("the first one leads", 1, |net| net.leader() == Some(0));
        net.crash(dead);
        if dead != 0 {
            // Who leads has to notice it.
            net.seconds(5);
        }
        let request = net.request();
        net.input(goes, Input::Leave { request });
        assert_eq!(net.answer(request.0, 15), Ok(0));
        let stays = 3 - dead - goes;
        net.crash(goes);
        net.until("one votes", 5, |net| net.leader() == Some(stays) && net.voters(stays).len() == 1);
        net.seconds(10);
        assert_eq!(net.leader(), Some(stays));
        net.start(dead);
        net.until("the others are a cluster", 15, Net::is_whole);
    }
}

#[test]
pub(super) fn wiped_disk_needs_another_id() {
    let mut net = Net::cluster(3, 9);
    net.crash(2);
    // The id is kept, the data directory is not.
    net.nodes[2].disk = Default::default();
    net.nodes[2].me.birth += 100;
    net.nodes[2].me.inc.0 = 0;
    net.start(2);
    net.seconds(5);
    assert!(net.meta(2).counters().foreign > 0, "what is said to the old one is not taken");
    assert_eq!(net.meta(2).view().term, 0);
    let request = net.request();
    net.input(2, Input::Join { request, via: None });
    let refused = JoinRefusal::Rejected(Rejected::OtherDisk);
    assert_eq!(net.answer(request.0, 10), Err(Refusal::Join(refused)));
    // A log that came from somewhere else is not taken either.
    let stored = net.nodes[0].disk.clone();
    let me = net.nodes[2].me.clone();
    let me = super::super::Member { node: NodeId(1), ..me };
    let error = Meta::new(net.config.clone(), me, &stored, net.rng.clone(), net.now).err();
    assert_eq!(error, Some(InvalidField("the log of another data directory")));
}

#[test]
pub(super) fn new_address_is_known_after_a_restart() {
    let mut net = Net::cluster(3, 10);
    for index in 0..3 {
        net.crash(index);
        net.nodes[index].me.address = format!("10.0.1.{index}:4370");
        net.seconds(1);
        net.start(index);
        net.until("it is there", 10, Net::is_whole);
    }
    let view = net.meta(0).view();
    assert!(view.state.members().values().all(|member| member.address.starts_with("10.0.1.")));
    assert!(view.state.members().values().all(|member| member.inc.0 == 2 && member.joined > 0));
}

#[test]
pub(super) fn writes_from_any_node() {
    let mut net = Net::cluster(3, 11);
    let before = net.meta(0).view().state.acl_version();
    let put = |value: Option<&[u8]>, expected| Command::PutBlob {
        kind: BlobKind::Banned,
        key: "eve".to_owned(),
        value: value.map(<[u8]>::to_vec),
        expected,
    };
    let config = |value: Option<&[u8]>| Command::SetConfig { key: "k".to_owned(), value: value.map(<[u8]>::to_vec) };
    let rejected = |why| Err(Refusal::Rejected(why));
    let cases = [
        (put(Some(b"1"), Some(0)), Ok(())),
        (put(Some(b"2"), Some(0)), rejected(Rejected::Version)),
        (put(Some(b"2"), Some(before + 1)), Ok(())),
        (put(None, None), Ok(())),
        (put(None, None), rejected(Rejected::NoSuchKey)),
        (put(Some(&[0; 2 << 20]), None), rejected(Rejected::TooMuch)),
        (config(Some(b"v")), Ok(())),
        (config(None), Ok(())),
        (config(None), rejected(Rejected::NoSuchKey)),
        (Command::FinalizeFeatureLevel { level: 4 }, rejected(Rejected::FeatureLevel)),
        (Command::FinalizeFeatureLevel { level: 2 }, rejected(Rejected::FeatureLevel)),
        (Command::FinalizeFeatureLevel { level: 3 }, Ok(())),
        (Command::Readmit { node: NodeId(9) }, rejected(Rejected::NoSuchNode)),
        (Command::Voters([NodeId(1)].into()), Err(Refusal::NotAllowed)),
    ];
    for (place, (command, outcome)) in cases.into_iter().enumerate() {
        let request = net.request();
        net.input(place % 3, Input::Write { request, command: command.clone() });
        assert_eq!(net.answer(request.0, 3).map(|_| ()), outcome, "{command:?}");
    }
    assert_eq!(net.meta(0).view().state.acl_version(), before + 3);
    // Without a leader it is said at once, and what is on its way has an end.
    let leader = net.leader().unwrap();
    let other = (leader + 1) % 3;
    let third = (leader + 2) % 3;
    net.side[other] = 1;
    let request = net.write(other, "x", b"y");
    assert_eq!(net.answer(request, 6), Err(Refusal::Timeout));
    net.crash(leader);
    net.crash(third);
    net.seconds(5);
    let request = net.write(other, "x", b"y");
    assert_eq!(net.answer(request, 1), Err(Refusal::NoLeader));
}

#[test]
pub(super) fn who_was_away_for_long_gets_a_snapshot() {
    let mut net = Net::new(3, 12);
    net.config.snapshot_every = 8;
    net.config.keep_entries = 2;
    net.join_all();
    net.crash(2);
    for round in 0..40 {
        let request = net.write(0, &format!("k{}", round % 7), &[round]);
        net.answer(request, 3).unwrap();
    }
    // Also when the first ones are lost.
    net.loss_ppm = 400_000;
    net.start(2);
    net.seconds(5);
    net.loss_ppm = 0;
    net.until("it has caught up", 15, Net::is_whole);
    // And all of them from their own shortened logs.
    for index in 0..3 {
        net.crash(index);
    }
    for index in 0..3 {
        net.start(index);
    }
    net.until("all are back", 15, Net::is_whole);
    assert_eq!(net.meta(1).view().state.config().len(), 7);
}

#[test]
pub(super) fn unknown_entry_stops_the_node() {
    let mut net = Net::cluster(1, 13);
    net.crash(0);
    let disk = &mut net.nodes[0].disk;
    let (index, term) = (disk.entries.last().unwrap().index + 1, disk.hard.term);
    let mut data = Vec::new();
    Put(&mut data).number(0).number(0).byte(99).text("of a later version");
    disk.entries.push(Entry { index, term, data: data.into(), ..Entry::default() });
    disk.hard = HardState { commit: index, ..disk.hard.clone() };
    net.start(0);
    net.seconds(1);
    let stopped = Stopped::UnknownEntry { index, kind: 99 };
    assert_eq!(net.nodes[0].events.last(), Some(&Event::Stopped(stopped)));
    assert_eq!(net.meta(0).view().stopped, Some(stopped));
    assert_eq!(net.meta(0).view().state.index(), index - 1, "nothing behind it is applied");
    assert!(!net.meta(0).view().is_leader);
    net.seconds(5);
    assert_eq!(net.meta(0).view().state.index(), index - 1);
}

#[test]
pub(super) fn an_older_program_takes_no_part() {
    let mut net = Net::cluster(3, 14);
    for place in 0..3 {
        net.crash(place);
        net.nodes[place].me.feature_max = 5;
        net.start(place);
        net.until("somebody leads", 5, |net| net.leader().is_some());
        net.seconds(2);
    }
    let request = net.request();
    net.input(1, Input::Write { request, command: Command::FinalizeFeatureLevel { level: 5 } });
    assert!(net.answer(request.0, 3).is_ok());
    net.seconds(1);
    for (known, stopped) in [(4, Some(Stopped::FeatureLevel { level: 5, known: 4 })), (6, None)] {
        net.crash(0);
        net.nodes[0].me.feature_max = known;
        net.start(0);
        net.seconds(5);
        assert_eq!(net.meta(0).view().stopped, stopped);
        assert!(stopped.is_none() || !net.meta(0).view().is_leader);
    }
    assert_eq!(net.meta(0).view().state.index(), net.meta(1).view().state.index());
}

#[test]
pub(super) fn late_words_of_an_earlier_leader_do_not_stop_a_node() {
    let mut net = Net::cluster(3, 14);
    let leader = net.leader().unwrap();
    let other = (leader + 1) % 3;
    let (cluster, index) = (net.meta(other).cluster().unwrap(), net.meta(other).view().commit);
    net.crash(leader);
    net.until("another one leads", 5, |net| net.leader().is_some());
    net.seconds(1);
    let [from, to] = [leader, other].map(|place| NodeId(place as u64 + 1));
    let mut body = Message { to: to.0, from: from.0, term: 1, index: index - 1, log_term: 1, ..Message::default() };
    body.set_msg_type(MessageType::MsgAppend);
    body.set_entries(vec![Entry { index, term: 1, ..Entry::default() }].into());
    let births = [leader, other].map(|place| net.nodes[place].me.birth);
    let message = MetaMessage::Raft { cluster, birth: births[1], from_birth: births[0], body: Box::new(body) };
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    net.input(other, Input::Message { from, bytes: &bytes });
    assert_eq!(net.meta(other).view().stopped, None);
}

#[test]
pub(super) fn same_seed_same_messages() {
    let traces = [21, 21, 22].map(|seed| {
        let mut net = Net::cluster(5, seed);
        let leader = net.leader().unwrap();
        net.crash(leader);
        net.seconds(10);
        net.trace
    });
    assert_eq!(traces[0], traces[1]);
    assert_ne!(traces[0], traces[2]);
}

// A leader that finds out in the log only would write the same again and again.
#[test]
pub(super) fn who_is_too_old_is_told_so() {
    let mut net = Net::new(3, 16);
    for place in 0..3 {
        net.nodes[place].me.feature_max = if place == 2 { 4 } else { 5 };
        net.start(place);
    }
    net.init(0);
    net.init(2);
    let request = net.request();
    net.input(1, Input::Join { request, via: Some(NodeId(1)) });
    assert_eq!(net.answer(request.0, 10), Ok(0));
    net.seconds(2);
    let request = net.request();
    net.input(0, Input::Write { request, command: Command::FinalizeFeatureLevel { level: 5 } });
    assert!(net.answer(request.0, 3).is_ok());
    net.seconds(2);
    let before = net.meta(0).view().commit;
    let request = net.request();
    net.input(2, Input::Join { request, via: Some(NodeId(1)) });
    let told = net.answer(request.0, 5);
    assert_eq!(told, Err(Refusal::Join(JoinRefusal::Rejected(Rejected::FeatureLevel))));
    net.seconds(5);
    assert_eq!(net.meta(0).view().commit, before);
    assert_eq!((net.members(0), net.members(2)), (vec![1, 2], vec![3]), "it has its own cluster still");
}
