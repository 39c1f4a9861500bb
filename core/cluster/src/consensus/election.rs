//! Who of a group stands for election and when, as far as raft-rs leaves that to us: timeouts, who lets another one stand
//! first, and who leads only until somebody else can.

use newtmq_base::{NodeId, Rng, planted};
use raft::StateRole;
use raft::eraftpb::{Message, MessageType};

use super::Engine;

impl Engine {
    // The timeouts are ours: raft-rs draws them from the operating system.
    pub(crate) fn draw(&mut self, rng: &mut Rng) {
        let raft = &mut self.raw.raft;
        let situation = (raft.term, raft.state, raft.leader_id);
        if self.drawn != Some(situation) {
            self.drawn = Some(situation);
            self.timeout = self.election.0 + rng.below(self.election.1 - self.election.0);
        }
        raft.set_randomized_election_timeout(self.timeout as usize);
    }

    // Who would vote for another one lets it stand first. That one has to store its vote before it asks for others, and with
    // slow disks all would stand in the meantime, and nobody would have most of the votes.
    pub(crate) fn yield_to(&mut self, node: u64) {
        let raft = &self.raw.raft;
        let is_answer = |message: &&Message| message.get_msg_type() == MessageType::MsgRequestPreVoteResponse;
        let granted = raft.msgs.iter().rev().find(is_answer).is_some_and(|last| last.to == node && !last.reject);
        let waits = matches!(raft.state, StateRole::Follower | StateRole::PreCandidate);
        if granted && waits && !planted!(StandsAlongside) {
            let elapsed = raft.election_elapsed as u64;
            let half = raft.election_timeout() as u64 / 2;
            self.timeout = self.timeout.max(elapsed + half).min(self.election.1 + half);
            self.raw.raft.set_randomized_election_timeout(self.timeout as usize);
        }
    }

    // Others have heard of a later term, in another cluster. The leader stands for election in the one after that, and need not
    // wait until nobody hears it any more.
    pub(crate) fn raise(&mut self, term: u64, rng: &mut Rng) {
        self.rise = Some(term);
        self.try_to_rise(rng);
    }

    pub(super) fn try_to_rise(&mut self, rng: &mut Rng) {
        let Some(term) = self.rise else { return };
        let wants = self.is_leader() && term >= self.raw.raft.term;
        // What a sole voter has must be durable when it stands.
        if wants && (self.is_blocked() || !self.waiting.is_empty()) {
            return;
        }
        self.rise = None;
        if !wants {
            return;
        }
        let raft = &mut self.raw.raft;
        raft.become_follower(term, raft::INVALID_ID);
        let mut at_once = Message { to: raft.id, from: raft.id, term, ..Message::default() };
        at_once.set_msg_type(MessageType::MsgTimeoutNow);
        // If it cannot stand now, somebody will.
        let _ = self.raw.step(at_once);
        self.draw(rng);
    }

    // raft-rs lets a leader that is no voter any more lead on. It hands over instead; and so does a witness, once somebody
    // else has what it alone may have had.
    pub(crate) fn step_down(&mut self, may_lead: impl Fn(NodeId) -> bool) {
        let raft = &self.raw.raft;
        let is_witness = self.witness && !planted!(WitnessLeads);
        if raft.state != StateRole::Leader || raft.promotable() && !is_witness || self.raw.store().is_joint() {
            self.demoted_at = None;
            return;
        }
        let demoted_at = *self.demoted_at.get_or_insert(raft.raft_log.applied);
        let voters = self.raw.store().conf().voters.clone();
        let raft = &mut self.raw.raft;
        let last = raft.raft_log.last_index();
        // Who is no member at all must not lead for a moment longer: raft-rs counts on knowing its own progress.
        let is_removed = raft.prs().get(raft.id).is_none() && !planted!(RemovedLeadsOn);
        let next = voters
            .into_iter()
            .filter(|voter| (*voter != raft.id || planted!(WitnessHandsToItself)) && may_lead(NodeId(*voter)))
            .filter_map(|voter| Some((voter, raft.prs().get(voter)?)))
            // Who does not know as yet that others vote no more asks them for their votes, and they may have more.
            .filter(|(_, progress)| is_witness || is_removed || progress.committed_index >= demoted_at)
            .map(|(voter, progress)| (progress.matched, voter))
            .max();
        // Who votes no more waits for somebody who knows that, a witness for somebody who has all that it has.
        let is_ready = next.is_some_and(|(matched, _)| !is_witness || matched >= last);
        if !is_ready && !is_removed {
            return;
        }
        if let Some((_, voter)) = next {
            raft.send_timeout_now(voter);
        }
        let term = raft.term;
        raft.become_follower(term, raft::INVALID_ID);
    }
}
