//! Who is removed, by whom, and who comes back.

use core::time::Duration;

use newtmq_base::NodeId;

use super::super::{Command, Gone, Input, JoinRefusal, Refusal, Rejected, RemovedBy, Role};
use super::net::{Event, Net};

fn force_leave(net: &mut Net, at: usize, node: u64) -> Result<(), Refusal> {
    let request = net.request();
    net.input(at, Input::ForceLeave { request, node: NodeId(node) });
    net.answer(request.0, 6).map(|_| ())
}

#[test]
pub(super) fn force_leave_needs_a_dead_node_and_a_quorum() {
    let mut net = Net::cluster(3, 1);
    net.config.autoclean = None;
    let leader = net.leader().unwrap();
    let (dead, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let node = dead as u64 + 1;
    assert_eq!(force_leave(&mut net, other, node), Err(Refusal::NotDown));
    net.crash(dead);
    net.seconds(6);
    assert_eq!(force_leave(&mut net, other, node), Err(Refusal::NotDown), "down, but not for long enough");
    net.seconds(8);
    assert_eq!(force_leave(&mut net, other, node), Ok(()));
    assert_eq!(force_leave(&mut net, other, node), Err(Refusal::Rejected(Rejected::NoSuchNode)));
    net.until("two are left", 5, |net| net.members(leader).len() == 2 && net.members(other).len() == 2);
    assert!(net.nodes[other].events.contains(&Event::Removed(NodeId(node), RemovedBy::Force)));
    // It does not come back by itself, nor by its own operator; only when it is readmitted.
    net.start(dead);
    net.seconds(10);
    let refused = JoinRefusal::Rejected(Rejected::ForcedOut);
    assert_eq!(net.nodes[dead].events.last(), Some(&Event::Gone(Gone::Refused(refused))));
    let request = net.request();
    net.input(dead, Input::Join { request, via: None });
    assert_eq!(net.answer(request.0, 10), Err(Refusal::Join(refused)));
    assert_eq!(net.members(leader).len(), 2);
    let request = net.request();
    net.input(leader, Input::Write { request, command: Command::Readmit { node: NodeId(node) } });
    net.answer(request.0, 3).unwrap();
    let request = net.request();
    net.input(dead, Input::Join { request, via: None });
    assert_eq!(net.answer(request.0, 10), Ok(0));
    net.until("three again", 10, Net::is_whole);
    assert_eq!(net.voters(leader).len(), 3);
}

#[test]
pub(super) fn who_is_back_is_not_thrown_out() {
    let mut net = Net::cluster(3, 7);
    net.config.autoclean = None;
    let leader = net.leader().unwrap();
    let away = (leader + 1) % 3;
    let node = NodeId(away as u64 + 1);
    net.crash(away);
    net.seconds(18);
    net.start(away);
    // Between two ticks.
    net.input(leader, Input::Up { node });
    let request = net.request();
    net.input(leader, Input::ForceLeave { request, node });
    assert_eq!(net.answers.get(&request.0), Some(&Err(Refusal::NotDown)));
}

#[test]
pub(super) fn force_leave_without_a_quorum_is_refused() {
    let mut net = Net::cluster(3, 2);
    let leader = net.leader().unwrap();
    net.crash((leader + 1) % 3);
    net.crash((leader + 2) % 3);
    net.seconds(20);
    assert_eq!(force_leave(&mut net, leader, ((leader + 1) % 3) as u64 + 1), Err(Refusal::NoLeader));
    assert_eq!(net.members(leader).len(), 3);
    assert_eq!(net.removals, 0);
}

#[test]
pub(super) fn autocleaned_node_comes_back_as_a_learner() {
    for seed in 0..5 {
        let mut net = Net::cluster(4, seed);
        let leader = net.leader().unwrap();
        let away = (0..4).find(|index| *index != leader && net.voters(leader).contains(&(*index as u64 + 1))).unwrap();
        let node = NodeId(away as u64 + 1);
        net.side[away] = 1;
        net.until("it is removed", 30, |net| net.members(leader).len() == 3);
        assert!(net.nodes[leader].events.contains(&Event::Removed(node, RemovedBy::Autoclean)));
        net.until("the others vote", 10, |net| net.voters(leader).len() == 3);
        assert!(net.meta(away).is_member(), "it does not know");
        net.side[away] = 0;
        net.until("it is back", 15, Net::is_whole);
        assert_eq!(net.meta(leader).view().state.role(node), Some(Role::Learner));
        assert!(!net.nodes[away].events.iter().any(|event| matches!(event, Event::Gone(_))));
    }
}

#[test]
pub(super) fn who_leaves_after_it_was_removed_stays_out() {
    let mut net = Net::cluster(3, 5);
    let leader = net.leader().unwrap();
    let away = (leader + 1) % 3;
    net.side[away] = 1;
    net.until("it is removed", 30, |net| net.members(leader).len() == 2);
    let request = net.request();
    net.input(away, Input::Leave { request });
    net.side[away] = 0;
    assert_eq!(net.answer(request.0, 10), Ok(0));
    net.crash(away);
    net.start(away);
    net.seconds(10);
    assert_eq!(net.members(leader).len(), 2);
    assert_eq!(net.nodes[away].events.last(), Some(&Event::Gone(Gone::Left)));
}

#[test]
pub(super) fn a_node_that_is_away_for_a_while_is_kept() {
    let mut net = Net::cluster(3, 3);
    net.side[2] = 1;
    net.seconds(22);
    net.side[2] = 0;
    net.until("it is back", 10, Net::is_whole);
    assert_eq!(net.removals, 0);
}

#[test]
pub(super) fn even_split_removes_nobody() {
    for seed in 0..5 {
        let mut net = Net::cluster(4, seed);
        let leader = net.leader().unwrap();
        let voters = net.voters(leader);
        let learner = (0..4).find(|index| !voters.contains(&(*index as u64 + 1))).unwrap();
        let with = (0..4).find(|index| *index != leader && *index != learner).unwrap();
        // The leader's half has two of the three voters, and two of the four members.
        net.side = (0..4).map(|index| u32::from(index != leader && index != with)).collect();
        net.seconds(90);
        assert_eq!(net.leader(), Some(leader));
        assert_eq!(net.members(leader).len(), 4);
        // They come back one after the other: with the first of them the leader has a majority, and the last is not there yet.
        let others: Vec<usize> = (0..4).filter(|index| *index != leader && *index != with).collect();
        net.side[others[(seed % 2) as usize]] = 0;
        net.seconds(5);
        net.heal();
        net.until("all are there", 10, Net::is_whole);
        assert_eq!(net.removals, 0);
    }
}

#[test]
pub(super) fn counting_starts_over_with_each_leader() {
    for seed in 0..5 {
        let mut net = Net::cluster(5, seed);
        let first = net.leader().unwrap();
        let away = (first + 1) % 5;
        net.side[away] = 1;
        net.seconds(15);
        // The first leader is cut off for a moment; then for the others to be the leader's again, and so on.
        for _ in 0..4 {
            let leader = net.leader().unwrap();
            net.side[leader] = 2;
            net.until("another one leads", 8, |net| {
                (0..5).any(|index| net.side[index] == 0 && net.meta(index).view().is_leader)
            });
            net.side[leader] = 0;
            net.seconds(6);
        }
        assert_eq!(net.removals, 0, "nobody has led for long enough");
        net.seconds(25);
        assert_eq!(net.removals, 1);
    }
}

#[test]
pub(super) fn a_leader_that_leads_again_has_seen_nothing_between() {
    // The first one leads, sees a node down, loses the lead, and leads again after the node was up for a while.
    let mut net = Net::cluster(3, 6);
    net.config.autoclean = Some(Duration::from_secs(20));
    let first = net.leader().unwrap();
    let [away, other] = [(first + 1) % 3, (first + 2) % 3];
    net.side[away] = 1;
    net.seconds(18);
    net.side[away] = 0;
    net.side[first] = 2;
    net.until("one of the others leads", 10, |net| net.leader().is_some_and(|leader| leader != first));
    net.seconds(1);
    net.side[first] = 0;
    net.until("three again", 15, Net::is_whole);
    net.side[away] = 1;
    let next = net.leader().unwrap();
    if next == other || next == away {
        net.side[other] = 2;
        net.seconds(4);
        net.side[other] = 0;
    }
    net.seconds(15);
    assert_eq!(net.removals, 0);
}

#[test]
pub(super) fn a_leader_that_was_paused_has_seen_nothing() {
    let mut net = Net::cluster(3, 9);
    let leader = net.leader().unwrap();
    net.crash((leader + 1) % 3);
    net.seconds(10);
    net.pause(leader, 16);
    assert!(net.meta(leader).view().is_leader, "as far as it knows");
    assert_eq!(net.removals, 0, "the other one may have been up all the time");
}

#[test]
pub(super) fn autoclean_of_all_but_three_of_seven() {
    let mut net = Net::cluster(7, 4);
    let leader = net.leader().unwrap();
    let dead: Vec<usize> = (0..7).rev().filter(|index| *index != leader).take(3).collect();
    for index in &dead {
        net.crash(*index);
    }
    net.until("they are removed", 60, |net| net.members(leader).len() == 4);
    assert_eq!(net.voters(leader).len(), 3);
    for index in dead {
        net.start(index);
    }
    net.until("all are back", 30, Net::is_whole);
    assert_eq!((net.members(leader).len(), net.voters(leader).len()), (7, 5));
}
