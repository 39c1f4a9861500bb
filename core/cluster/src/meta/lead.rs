//! What the leader does besides Raft: it lets nodes in and out one after the other, keeps the number of voters odd, and lets
//! go of who was down for too long.

use std::collections::{BTreeMap, BTreeSet};

use newtmq_base::{Instant, NodeId, RequestId, planted};

use super::command::{Command, Member, Rejected, RemovedBy};
use super::group::{Applied, Group, NOBODY, Origin};
use super::message::{Asked, Message, Refusal};
use super::state::{ClusterId, MetaState};
use super::{Meta, Output};

/// What only a leader has, and only as long as it is one: with the next one all counting starts over.
pub(super) struct Lead {
    since: Instant,
    // Since when a member is seen down by this leader.
    down: BTreeMap<NodeId, Instant>,
    // Since when it has had a quorum of the voters and more than half of the members. Before that it cannot tell who is down from
    // who is cut off with it, or from it.
    most: Option<Instant>,
    joins: BTreeMap<NodeId, Joining>,
    // Who wants to leave, and when it said so last.
    leaving: BTreeMap<NodeId, Instant>,
}

/// What a node said that wants to be a member, or to be known as it is.
#[derive(Clone)]
pub(super) struct Joining {
    pub(super) member: Member,
    pub(super) cluster: Option<ClusterId>,
    pub(super) explicit: bool,
}

impl Lead {
    pub(super) fn new(since: Instant) -> Lead {
        Lead { since, down: BTreeMap::new(), most: None, joins: BTreeMap::new(), leaving: BTreeMap::new() }
    }

    /// A member is there again: what was counted is void at once.
    pub(super) fn is_up(&mut self, node: NodeId) {
        self.down.remove(&node);
    }

    /// The leader was away itself: who was down before may be up, and the other way round.
    pub(super) fn counts_anew(&mut self) {
        self.down.clear();
        self.most = None;
    }

    /// Nobody is let in of those who have asked.
    pub(super) fn turn_away(&mut self) {
        self.joins.clear();
    }

    /// It does not leave.
    pub(super) fn stays(&mut self, node: NodeId) {
        self.leaving.remove(&node);
    }

    fn down_since(&self, node: NodeId) -> Option<Instant> {
        let since = self.down.get(&node).copied()?;
        Some(if planted!(AutocleanByWallClock) { Instant::START } else { since })
    }
}

impl Meta {
    /// The leader's work of a tick.
    pub(super) fn lead(&mut self, now: Instant, out: &mut Vec<Output>) {
        let Some(group) = self.group.as_ref().filter(|group| group.is_leader()) else { return };
        let has_most = self.has_quorum(&group.state) && self.has_most_members(&group.state);
        let Some(lead) = &mut self.lead else { return };
        lead.most = if has_most { lead.most.or(Some(now)) } else { None };
        let (me, ask) = (self.me.node, self.config.ask_period);
        lead.down.retain(|node, _| group.state.members.contains_key(node) && !self.up.contains(node));
        for node in group.state.members.keys().filter(|node| **node != me && !self.up.contains(node)) {
            lead.down.entry(*node).or_insert(now);
        }
        lead.leaving.retain(|node, said| *node == me || now.saturating_since(*said) < ask * 10);
        if !group.can_change() {
            return;
        }
        let Some(command) = self.next_change(now) else { return };
        let Some(group) = &mut self.group else { return };
        if let Command::RemoveMember { node, by, .. } = &command {
            out.push(Output::Removing { node: *node, by: *by });
        }
        let is_update = matches!(&command, Command::UpdateMember(_));
        // What fails to get into the log is found again in the next tick.
        let _ = if is_update { group.propose(NOBODY, &command) } else { group.propose_change(NOBODY, &command) };
    }

    fn next_change(&mut self, now: Instant) -> Option<Command> {
        let wanted = self.wanted_voters(None)?;
        let (group, lead) = (self.group.as_ref()?, self.lead.as_mut()?);
        while let Some((node, joining)) = lead.joins.pop_first() {
            // Since it was asked for, the node may have been removed.
            if Meta::lets_in(&group.state, &joining).is_ok() {
                let is_member = group.state.members.contains_key(&node);
                let command = if is_member { Command::UpdateMember } else { Command::AddMember };
                return Some(command(joining.member));
            }
        }
        let own = group.state.members.get(&self.me.node);
        if own.is_some_and(|own| !own.says_the_same(&self.me)) {
            return Some(Command::UpdateMember(self.me.clone()));
        }
        // The leader itself goes by being no voter any more; the next leader removes it.
        let going = lead.leaving.keys().find(|node| **node != self.me.node && group.state.members.contains_key(node));
        if let Some(node) = going.copied() {
            let voters = self.wanted_voters(Some(node))?;
            return Some(Command::RemoveMember { node, by: RemovedBy::Leave, voters });
        }
        if let Some(node) = self.too_long_down(now) {
            let voters = self.wanted_voters(Some(node))?;
            return Some(Command::RemoveMember { node, by: RemovedBy::Autoclean, voters });
        }
        (wanted != group.state.voters).then_some(Command::Voters(wanted))
    }

    // Whom the leader may let go of: nobody unless a quorum of the voters and more than half of the members are there, and have been
    // for so long. When the two halves of an even split meet again, who comes back last is not removed.
    fn too_long_down(&self, now: Instant) -> Option<NodeId> {
        let (autoclean, lead) = (self.config.autoclean?, self.lead.as_ref()?);
        let most = match lead.most {
            Some(_) if planted!(AutocleanCountsAlone) => Instant::START,
            Some(_) if planted!(AutocleanByWallClock) => Instant::START,
            None if planted!(AutocleanWithoutQuorum) => Instant::START,
            most => most?,
        };
        let is_due = |node: &NodeId| {
            lead.down_since(*node).is_some_and(|since| now.saturating_since(since.max(most)) >= autoclean)
        };
        lead.down.keys().copied().find(is_due)
    }

    fn has_quorum(&self, state: &MetaState) -> bool {
        let there = state.voters.iter().filter(|node| self.is_there(**node)).count();
        there * 2 > state.voters.len()
    }

    fn has_most_members(&self, state: &MetaState) -> bool {
        let there = state.members.keys().filter(|node| self.is_there(**node)).count();
        there * 2 > state.members.len()
    }

    fn is_there(&self, node: NodeId) -> bool {
        node == self.me.node || self.up.contains(&node)
    }

    // Who should vote, with one member gone: an odd number, at most all; who votes already, and can be reached, first. Nobody
    // begins to vote who is not there or has not caught up, so that no quorum is lost by it.
    fn wanted_voters(&self, gone: Option<NodeId>) -> Option<BTreeSet<NodeId>> {
        let (group, lead) = (self.group.as_ref()?, self.lead.as_ref()?);
        let state = &group.state;
        let is_staying = |node: &NodeId| Some(*node) != gone && !lead.leaving.contains_key(node);
        let staying: Vec<&Member> = state.members.values().filter(|member| is_staying(&member.node)).collect();
        let size = odd(staying.len().min(self.config.voters_max));
        let mut ranked: Vec<_> = staying
            .into_iter()
            .filter(|member| state.voters.contains(&member.node) || self.may_vote(group, member.node))
            .map(|member| {
                let is_leader = member.node == self.me.node;
                let there = self.is_there(member.node);
                let votes = state.voters.contains(&member.node);
                // Of those who vote, who may have died a moment ago is the first to vote no more.
                let lags = !is_leader && !group.has_all(member.node);
                (member.witness, !is_leader, !there, !votes, lags, member.joined, member.node)
            })
            .collect();
        ranked.sort_unstable();
        ranked.truncate(odd(ranked.len().min(size)));
        let wanted: BTreeSet<NodeId> = ranked.iter().map(|rank| rank.6).collect();
        let leads = ranked.iter().any(|(witness, ..)| !witness);
        leads.then_some(wanted).or_else(|| gone.is_none().then(|| state.voters.clone()))
    }

    fn may_vote(&self, group: &Group, node: NodeId) -> bool {
        self.is_there(node) && (node == self.me.node || group.is_caught_up(node))
    }

    /// A node asks the leader to let it in. Full: it asks again.
    pub(super) fn let_in(&mut self, joining: Joining) {
        let Some(lead) = &mut self.lead else { return };
        let node = joining.member.node;
        if lead.joins.len() < self.config.joins_max || lead.joins.contains_key(&node) {
            lead.joins.insert(node, joining);
        }
    }

    /// A member wants to go.
    pub(super) fn leave_asked(&mut self, now: Instant, from: NodeId, out: &mut Vec<Output>) {
        let Some(group) = self.group.as_mut().filter(|group| group.is_leader() && group.knows_all()) else { return };
        if !group.state.members.contains_key(&from) && from != self.me.node {
            // Otherwise it would be taken for one that comes back.
            let removed = group.state.removed.get(&from);
            if removed.is_some_and(|removed| removed.by == RemovedBy::Autoclean) {
                let _ = group.propose(NOBODY, &Command::StayOut { node: from });
                return;
            }
            if group.lets_go() {
                self.send(from, &Message::LeaveDone, out);
            }
        } else if let Some(lead) = &mut self.lead {
            lead.leaving.insert(from, now);
        }
    }

    /// Somebody here asks for something.
    pub(super) fn ask(&mut self, now: Instant, request: RequestId, asked: Asked, out: &mut Vec<Output>) {
        if self.requests.len() >= self.config.requests_max {
            out.push(Output::Answer { request, outcome: Err(Refusal::Busy) });
            return;
        }
        self.requests.insert(request, now + self.config.request_timeout);
        let leader = self.view().leader;
        match leader {
            _ if self.group.is_none() || self.gone.is_some() => self.answer(request, Err(Refusal::NoCluster), out),
            None => self.answer(request, Err(Refusal::NoLeader), out),
            Some(leader) if leader == self.me.node => {
                if let Err(refusal) = self.decide(now, Origin { node: leader, request }, asked, out) {
                    self.answer(request, Err(refusal), out);
                }
            }
            Some(leader) => self.send(leader, &Message::Request { request, asked }, out),
        }
    }

    /// What the leader makes of it: what gets into the log is answered where it was asked for, once it is applied there.
    pub(super) fn decide(
        &mut self,
        now: Instant,
        origin: Origin,
        asked: Asked,
        out: &mut Vec<Output>,
    ) -> Result<(), Refusal> {
        let group = self.group.as_ref().filter(|group| group.is_leader()).ok_or(Refusal::NoLeader)?;
        let command = match asked {
            Asked::Write(
                command @ (Command::SetConfig { .. }
                | Command::PutBlob { .. }
                | Command::Readmit { .. }
                | Command::RenewRetained { .. }
                | Command::FinalizeFeatureLevel { .. }),
            ) => command,
            Asked::Write(
                Command::AddMember(_)
                | Command::UpdateMember(_)
                | Command::Voters(_)
                | Command::RemoveMember { .. }
                | Command::StayOut { .. },
            ) => {
                return Err(Refusal::NotAllowed);
            }
            Asked::ForceLeave(node) => {
                let lead = self.lead.as_ref().ok_or(Refusal::NoLeader)?;
                if !self.has_quorum(&group.state) {
                    return Err(Refusal::NoQuorum);
                }
                if !group.state.members.contains_key(&node) {
                    // One that is becoming a member has to be one first: Raft knows it by then.
                    return Err(Refusal::Rejected(Rejected::NoSuchNode));
                }
                let since = lead.down_since(node).ok_or(Refusal::NotDown)?;
                if now.saturating_since(since) < self.config.detect {
                    return Err(Refusal::NotDown);
                }
                let voters = self.wanted_voters(Some(node)).ok_or(Refusal::NoQuorum)?;
                let command = Command::RemoveMember { node, by: RemovedBy::Force, voters };
                if !group.can_change() {
                    return Err(Refusal::Busy);
                }
                out.push(Output::Removing { node, by: RemovedBy::Force });
                let group = self.group.as_mut().ok_or(Refusal::NoLeader)?;
                return if group.propose_change(origin, &command) { Ok(()) } else { Err(Refusal::Busy) };
            }
        };
        let group = self.group.as_mut().ok_or(Refusal::NoLeader)?;
        if !group.propose(origin, &command) {
            return Err(Refusal::Busy);
        }
        if planted!(WriteAnsweredEarly, origin.node == self.me.node) {
            self.answer(origin.request, Ok(0), out);
        }
        Ok(())
    }

    /// What was applied: answers, and what follows for this node itself.
    pub(super) fn applied(&mut self, applied: Vec<Applied>, out: &mut Vec<Output>) {
        let Some(index) = applied.last().map(|last| last.index) else {
            self.look_for_oneself(out);
            return;
        };
        for Applied { index, origin, command, result } in applied {
            if let (Command::RemoveMember { node, by, .. }, Ok(())) = (&command, result) {
                out.push(Output::Removed { node: *node, by: *by });
                if let (Some(lead), false) = (&mut self.lead, planted!(LeavesAgain)) {
                    // If it comes back soon it is not for leaving.
                    lead.leaving.remove(node);
                }
                self.removed(*node);
            }
            if let (Command::PutBlob { kind, key, value, .. }, Ok(())) = (&command, result)
                && !planted!(WriteNotTold, origin.node != self.me.node)
            {
                out.push(Output::Blob { kind: *kind, key: key.clone(), value: value.clone() });
            }
            if origin.node == self.me.node && origin.request != RequestId(0) {
                self.answer(origin.request, result.map(|()| index).map_err(Refusal::Rejected), out);
            }
        }
        out.push(Output::Changed { index });
        self.look_for_oneself(out);
    }

    /// Another node's snapshot has come instead of the entries between.
    pub(super) fn replaced(&mut self, before: &MetaState, out: &mut Vec<Output>) {
        let Some(group) = &self.group else { return };
        let state = &group.state;
        let index = state.index;
        let gone: Vec<(NodeId, RemovedBy)> = before
            .members
            .keys()
            .filter(|node| !state.members.contains_key(node))
            // Of long ago: nobody remembers why.
            .map(|node| (*node, state.removed.get(node).map_or(RemovedBy::Leave, |removed| removed.by)))
            .collect();
        for (node, by) in gone {
            out.push(Output::Removed { node, by });
            self.removed(node);
        }
        out.push(Output::Blobs);
        out.push(Output::Changed { index });
    }

    /// Since when this node leads, for checkers.
    #[must_use]
    pub fn leads_since(&self) -> Option<Instant> {
        self.lead.as_ref().map(|lead| lead.since)
    }
}

fn odd(count: usize) -> usize {
    if count == 0 { 0 } else { count - (count + 1) % 2 }
}
