//! What the leader does besides Raft: it makes the group follow the cluster's members and voters, and lets deletions be
//! forgotten that everybody has passed.

use std::collections::{BTreeMap, BTreeSet};

use newtmq_base::{NodeId, planted};
use raft::eraftpb::{ConfChangeSingle, ConfChangeType};

use super::entry::Entry;
use super::message::Message;
use super::{Output, Retained};

/// Who belongs to the cluster, at an index of the meta group's log.
#[derive(Debug, Clone, Default)]
pub(super) struct Members {
    pub(super) index: u64,
    pub(super) members: BTreeSet<NodeId>,
    pub(super) voters: BTreeSet<NodeId>,
}

/// How far members are, as they have said to this leader.
#[derive(Debug, Default)]
pub(super) struct Passed {
    term: u64,
    by: BTreeMap<NodeId, u64>,
}

impl Retained {
    /// The work of a tick, of the leader and of those who follow.
    pub(super) fn tick_lead(&mut self, out: &mut Vec<Output>) {
        self.ticks += 1;
        let is_turn = self.ticks.is_multiple_of(PASSED_TICKS);
        let engine = &self.group.engine;
        if !engine.is_leader() {
            self.passed = Passed::default();
            if let Some(leader) = engine.present_leader().filter(|_| is_turn) {
                self.send(leader, &Message::Passed(self.own_passed()), false, out);
            }
            return;
        }
        if self.passed.term != engine.term() {
            self.passed = Passed { term: engine.term(), by: BTreeMap::new() };
        }
        if !engine.knows_all(self.group.state.index) {
            return;
        }
        if engine.can_change()
            && let Some(changes) = self.next_changes()
        {
            // What fails to get into the log is found again in the next tick.
            self.group.propose_members(self.members.index, changes);
        }
        if is_turn {
            self.move_horizon();
        }
    }

    /// A member has all that was deleted up to an index behind it.
    pub(super) fn has_passed(&mut self, from: NodeId, index: u64) {
        let passed = self.passed.by.entry(from).or_default();
        *passed = (*passed).max(index);
    }

    // What is kept here is held against what was there before.
    fn own_passed(&self) -> u64 {
        let held = self.held.filter(|_| !planted!(BacklogNotHeld)).unwrap_or(u64::MAX);
        let least = self.asking.least_seen().unwrap_or(u64::MAX).min(held);
        if self.group.state.is_exact() { self.group.state.index.min(least) } else { 0 }
    }

    fn next_changes(&self) -> Option<Vec<ConfChangeSingle>> {
        let Members { index, members, voters } = &self.members;
        // An older word than what was decided by already says nothing.
        if *index == 0 || *index < self.group.state.members && !planted!(RetainedMembersGoBack) {
            return None;
        }
        let conf = self.group.engine.log().conf();
        let nodes = |nodes: &[u64]| nodes.iter().copied().map(NodeId).collect::<BTreeSet<NodeId>>();
        let (vote, learn) = (nodes(&conf.voters), nodes(&conf.learners));
        let mut changes = Vec::new();
        let mut push = |kind, node: NodeId| {
            changes.push(ConfChangeSingle { change_type: kind, node_id: node.0, ..ConfChangeSingle::default() });
        };
        for node in members.iter().filter(|node| !vote.contains(node) && !learn.contains(node)) {
            push(ConfChangeType::AddLearnerNode, *node);
        }
        if changes.is_empty() {
            let mut push = |kind, node: NodeId| {
                changes.push(ConfChangeSingle { change_type: kind, node_id: node.0, ..ConfChangeSingle::default() });
            };
            // Nobody votes who has not got everything, so that no quorum is lost by it.
            let can_vote = |node: &NodeId| {
                vote.contains(node) || self.group.engine.is_caught_up(*node) || planted!(RetainedVotesUnready)
            };
            let staying: BTreeSet<NodeId> = vote.intersection(members).copied().collect();
            let wanted = if !voters.is_empty() && voters.iter().all(can_vote) { voters } else { &staying };
            if wanted.is_empty() {
                return None;
            }
            for node in wanted.difference(&vote) {
                push(ConfChangeType::AddNode, *node);
            }
            for node in vote.difference(wanted).filter(|node| members.contains(node)) {
                push(ConfChangeType::AddLearnerNode, *node);
            }
            for node in vote.union(&learn).filter(|node| !members.contains(node)) {
                push(ConfChangeType::RemoveNode, *node);
            }
        }
        (!changes.is_empty()).then_some(changes)
    }

    // Deletions are forgotten once everybody has passed them, or when there are too many.
    fn move_horizon(&mut self) {
        let own = self.own_passed();
        self.passed.by.insert(self.me.node, own);
        let conf = self.group.engine.log().conf();
        let mut all = conf.voters.iter().chain(&conf.learners).chain(&conf.voters_outgoing).copied().map(NodeId);
        let least = all.try_fold(own, |least, node| Some(self.passed.by.get(&node)?.min(&least).to_owned()));
        let least = if planted!(RetainedDeletedForgotten) { Some(self.group.state.index) } else { least };
        let state = &self.group.state;
        let forced = state.topics.tombstone_before(self.config.tombstones_max);
        let horizon = least.max(forced).unwrap_or(0);
        if forced > least {
            self.counters.forgotten_early += 1;
        }
        // Without deletions it is of no use.
        if horizon > state.horizon && state.topics.first_tombstone().is_some_and(|first| first <= horizon) {
            self.group.propose(&Entry::Horizon(horizon));
        }
    }
}

const PASSED_TICKS: u64 = 10;
