//! One node's part of a Raft group, whatever the group agrees on: raft-rs with our log and our timeouts.
//!
//! It owns terms, votes, the log, and what waits for the disk. It never reads an entry: what is committed, and a snapshot
//! that has come, are for the part whose group it is.

use std::collections::{BTreeMap, VecDeque};

use newtmq_base::{InvalidField, NodeId, Rng, planted};
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeV2, Entry, HardState, Message, MessageType, Snapshot,
};
use raft::{ProgressState, RawNode, SnapshotStatus, StateRole};

use log::Log;

mod election;
pub(crate) mod log;
pub(crate) mod wire;

/// Why a node applies nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// An entry of a kind that this version does not know: skipping it would make the state another one than elsewhere.
    #[error("entry {index} of the log has the unknown kind {kind}: this node's version is too old for its cluster")]
    UnknownEntry {
        /// Its index.
        index: u64,
        /// Its kind.
        kind: u8,
    },
    /// The cluster uses what only a later version of the program can.
    #[error(
        "the cluster uses feature level {level}, and this node's version knows {known}: it is too old for its cluster"
    )]
    FeatureLevel {
        /// The level that the cluster uses.
        level: u32,
        /// The highest that this version knows.
        known: u32,
    },
    /// An entry or a snapshot whose fields are wrong.
    #[error("entry {index} of the log is invalid: {what}")]
    Invalid {
        /// Its index.
        index: u64,
        /// What is wrong.
        what: InvalidField,
    },
    /// A leader has other entries than those that are committed here.
    #[error("entry {index} of the log is committed, and the leader has another one")]
    Diverged {
        /// The index.
        index: u64,
    },
}

/// How a node takes part.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) node: NodeId,
    /// It votes, and leads only while nobody else can.
    pub(crate) witness: bool,
    pub(crate) election_ticks: u64,
    pub(crate) heartbeat_ticks: u64,
}

/// What raft-rs had to say once. What it had to send is in the list that was given for it, or waits for the disk.
#[derive(Default)]
pub(crate) struct Turn {
    /// Of what is to be written; 0 if nothing is.
    pub(crate) number: u64,
    pub(crate) sync: bool,
    pub(crate) hard: Option<HardState>,
    pub(crate) entries: Vec<Entry>,
    /// Another node's, instead of the whole log. Its index counts as applied when it is durable.
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) committed: Vec<Entry>,
}

struct Waiting {
    number: u64,
    ready: u64,
    messages: Vec<Message>,
    // Index of the snapshot in it.
    restored: Option<u64>,
    // The term, or whom it votes for in it, is on its way to the disk.
    votes: bool,
}

pub(crate) struct Engine {
    raw: RawNode<Log>,
    waiting: VecDeque<Waiting>,
    stopped: Option<Stopped>,
    /// It stands for election, and nobody has asked yet what it has to store for that.
    unsaid: bool,
    /// The term above which this leader is to lead.
    rise: Option<u64>,
    witness: bool,
    election: (u64, u64),
    // Term, role and leader for which the timeout was drawn.
    drawn: Option<(u64, StateRole, u64)>,
    timeout: u64,
    // Since which entry this leader should not lead.
    demoted_at: Option<u64>,
    // The entry with which who votes changed last.
    changed_at: u64,
    // For how many ticks a member has been at a snapshot.
    at_snapshot: BTreeMap<u64, u64>,
}

impl Engine {
    /// With a log as a start finds it, applied up to its snapshot.
    pub(crate) fn new(part: Part, log: Log) -> Result<Engine, InvalidField> {
        let election = (part.election_ticks, part.election_ticks * 2);
        // A witness waits for longer than anybody else.
        let range = if !part.witness || planted!(WitnessLeads) {
            election
        } else if planted!(WitnessKeepsItsLog) {
            (NEVER_TICKS, NEVER_TICKS + 1)
        } else {
            (election.1, election.1 + part.election_ticks / 2)
        };
        let raft_config = raft::Config {
            id: part.node.0,
            election_tick: part.election_ticks as usize,
            heartbeat_tick: part.heartbeat_ticks as usize,
            min_election_tick: range.0 as usize,
            // Who lets another one stand first waits for longer than what is drawn.
            max_election_tick: (range.1 + part.election_ticks) as usize,
            applied: log.last_snapshot().get_metadata().index,
            check_quorum: true,
            pre_vote: true,
            max_size_per_msg: MESSAGE_BYTES_MAX,
            max_inflight_msgs: IN_FLIGHT_MAX,
            max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
            max_committed_size_per_ready: UNCOMMITTED_BYTES_MAX,
            ..raft::Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let changed_at = log.last_snapshot().get_metadata().index;
        let raw = RawNode::new(&raft_config, log, &logger).map_err(|_| InvalidField("a log that Raft refuses"))?;
        Ok(Engine {
            raw,
            waiting: VecDeque::new(),
            stopped: None,
            rise: None,
            unsaid: false,
            witness: part.witness,
            election: range,
            drawn: None,
            timeout: range.0,
            demoted_at: None,
            changed_at,
            at_snapshot: BTreeMap::new(),
        })
    }

    /// A sole voter need not wait for anybody.
    pub(crate) fn start(&mut self, rng: &mut Rng) {
        if self.is_sole_voter() && !self.witness {
            // It can only fail for a node that is none.
            let _ = self.raw.campaign();
            self.unsaid = true;
        }
        self.draw(rng);
    }

    pub(crate) fn tick(&mut self, rng: &mut Rng) {
        let is_leading = self.is_leader();
        // raft-rs takes it for granted that what a sole voter has is durable when it campaigns, and cannot campaign while a
        // snapshot is on its way to the disk.
        let waits = self.is_blocked() || !is_leading && self.is_sole_voter() && !self.waiting.is_empty();
        if self.stopped.is_some() || waits {
            return;
        }
        self.raw.tick();
        self.try_to_rise(rng);
        self.draw(rng);
        self.retry_snapshots();
    }

    /// A message of a member. Says whether it was one that can be taken.
    pub(crate) fn step(&mut self, message: Message, rng: &mut Rng) -> bool {
        if self.stopped.is_some() || self.is_blocked() || !self.is_sane(&message) {
            return false;
        }
        // An answer of somebody who is no member any more, at most.
        let asks = (message.get_msg_type() == MessageType::MsgRequestPreVote).then_some(message.from);
        let taken = self.raw.step(message).is_ok();
        self.draw(rng);
        if let Some(node) = asks {
            self.yield_to(node);
        }
        taken
    }

    /// Says whether it was taken into the log.
    pub(crate) fn propose(&mut self, data: Vec<u8>) -> bool {
        self.stopped.is_none() && self.raw.propose(Vec::new(), data).is_ok()
    }

    /// Proposes who belongs to the group, together with what it is to the part. Says whether it was taken into the log.
    pub(crate) fn propose_change(&mut self, context: Vec<u8>, changes: Vec<ConfChangeSingle>) -> bool {
        if self.stopped.is_some() || changes.is_empty() || !self.can_change() {
            return false;
        }
        let mut change = ConfChangeV2::default();
        change.set_transition(ConfChangeTransition::Auto);
        change.set_changes(changes.into());
        self.raw.propose_conf_change(context, change).is_ok()
    }

    /// Whether no change of members is under way.
    pub(crate) fn can_change(&self) -> bool {
        !self.raw.raft.has_pending_conf() && !self.raw.store().is_joint()
    }

    /// Whether both who voted and who will vote decide as yet.
    pub(crate) fn is_joint(&self) -> bool {
        self.raw.store().is_joint()
    }

    /// Whether this leader may let go of who is no member: nobody is about to become one again, and a quorum of those who
    /// vote now knows that nobody else does. Who does not know it asks who has gone for its vote, and cannot lead without.
    pub(crate) fn lets_go(&self) -> bool {
        let raft = &self.raw.raft;
        let knows = |progress: &raft::Progress| progress.committed_index >= self.changed_at;
        let has = |node: NodeId| node.0 == raft.id || raft.prs().get(node.0).is_some_and(knows);
        let is_changing = if planted!(LeavesWhileComing) { self.is_joint() } else { !self.can_change() };
        let is_known = self.is_quorum(has) || planted!(LeavesUnheard);
        self.is_leader() && (!is_changing && is_known || planted!(LeavesTooEarly))
    }

    /// Whether all that was decided before this leader led is applied, if everything up to this index is: until then it may
    /// not know who is a member.
    pub(crate) fn knows_all(&self, applied: u64) -> bool {
        self.knows_term() && applied >= self.commit()
    }

    /// Whether something of this term is known to be committed, and so everything before it is.
    pub(crate) fn knows_term(&self) -> bool {
        let raft = &self.raw.raft;
        raft.raft_log.term(raft.raft_log.committed).is_ok_and(|term| term == raft.term)
    }

    /// Whether those are more than half of who decides.
    pub(crate) fn is_quorum(&self, has: impl Fn(NodeId) -> bool) -> bool {
        let conf = self.raw.store().conf();
        let most = |voters: &[u64]| voters.iter().filter(|node| has(NodeId(**node))).count() * 2 > voters.len();
        most(&conf.voters) && (conf.voters_outgoing.is_empty() || most(&conf.voters_outgoing))
    }

    /// What has become durable, up to this number. Gives the index of a snapshot that has: it is applied now.
    pub(crate) fn persisted(&mut self, number: u64, rng: &mut Rng, messages: &mut Vec<Message>) -> Option<u64> {
        let mut restored = None;
        while self.waiting.front().is_some_and(|first| first.number <= number) {
            let first = self.waiting.pop_front().expect("it was there");
            messages.extend(first.messages);
            self.raw.on_persist_ready(first.ready);
            if let Some(index) = first.restored {
                self.raw.advance_apply_to(index);
                self.changed_at = index;
                restored = Some(index);
            }
        }
        self.draw(rng);
        restored
    }

    /// Takes what raft-rs has to say next. `numbers` counts what is given to the disk; what may leave at once is added to
    /// `sent`.
    pub(crate) fn turn(&mut self, numbers: &mut u64, sent: &mut Vec<Message>) -> Option<Turn> {
        self.unsaid = false;
        if !self.has_turn() {
            return None;
        }
        let mut ready = self.raw.ready();
        let mut messages = ready.take_messages();
        let votes = ready.hs().is_some_and(|hard| {
            let before = self.raw.store().hard();
            (hard.term, hard.vote) != (before.term, before.vote)
        });
        // raft-rs lets what a leader says leave at once. A sole voter leads before its vote is durable, and after a crash
        // it would lead the same term again, with other entries.
        if !votes && !self.waiting.iter().any(|waiting| waiting.votes) || planted!(LeadsBeforeSync) {
            sent.append(&mut messages);
        }
        messages.extend(ready.take_persisted_messages());
        let (ready_number, sync) = (ready.number(), ready.must_sync());
        let snapshot = Some(ready.snapshot().clone()).filter(|snapshot| !snapshot.is_empty());
        let mut turn = Turn { sync, committed: ready.take_committed_entries(), ..Turn::default() };
        (turn.hard, turn.entries) = (ready.hs().cloned(), ready.take_entries());
        let restored = snapshot.as_ref().map(|snapshot| snapshot.get_metadata().index);
        let log = self.raw.mut_store();
        if let Some(snapshot) = snapshot {
            log.install(snapshot.clone());
            turn.snapshot = Some(snapshot);
        }
        log.append(&turn.entries);
        if let Some(hard) = &turn.hard {
            log.set_hard(hard.clone());
        }
        self.raw.advance_append_async(ready);
        if turn.hard.is_some() || !turn.entries.is_empty() || turn.snapshot.is_some() {
            *numbers += 1;
            turn.number = *numbers;
        }
        if planted!(SentBeforeSync) {
            sent.append(&mut messages);
        }
        if sync || !self.waiting.is_empty() {
            // What need not be durable itself waits for what is before it only.
            let needed = self.waiting.back().map_or(*numbers, |last| last.number);
            let number = if sync { *numbers } else { needed };
            self.waiting.push_back(Waiting { number, ready: ready_number, messages, restored, votes });
        } else {
            sent.append(&mut messages);
            self.raw.on_persist_ready(ready_number);
        }
        Some(turn)
    }

    /// Whether [`Engine::turn`] has something to say.
    pub(crate) fn has_turn(&self) -> bool {
        self.stopped.is_none() && self.raw.has_ready()
    }

    /// A change of who belongs to the group, which this entry has, is applied.
    pub(crate) fn apply_change(&mut self, index: u64, change: &ConfChangeV2) -> Result<(), InvalidField> {
        let conf = self.raw.apply_conf_change(change);
        let conf = conf.map_err(|_| InvalidField("a change of members that Raft refuses"))?;
        self.raw.mut_store().set_conf(conf);
        self.changed_at = index;
        Ok(())
    }

    /// Everything up to this entry is applied.
    pub(crate) fn applied(&mut self, index: u64) {
        self.raw.advance_apply_to(index);
    }

    /// Nothing is applied any more.
    pub(crate) fn stop(&mut self, why: Stopped) {
        self.stopped = Some(why);
    }

    pub(crate) fn log(&self) -> &Log {
        self.raw.store()
    }

    pub(crate) fn log_mut(&mut self) -> &mut Log {
        self.raw.mut_store()
    }

    // raft-rs takes what peers say for granted and panics otherwise: what cannot be is not handed to it.
    fn is_sane(&mut self, message: &Message) -> bool {
        let log = &self.raw.raft.raft_log;
        let last = log.last_index();
        if message.term == 0 || message.to != self.raw.raft.id {
            return false;
        }
        match message.get_msg_type() {
            MessageType::MsgHeartbeat => message.commit <= last,
            MessageType::MsgAppendResponse => message.reject || message.index <= last,
            MessageType::MsgTimeoutNow => !self.witness && (!self.is_sole_voter() || self.waiting.is_empty()),
            MessageType::MsgSnapshot => {
                let metadata = message.get_snapshot().get_metadata();
                metadata.index > 0 && metadata.term > 0
            }
            MessageType::MsgAppend => {
                let mut entries = message.entries.iter().zip(message.index.saturating_add(1)..);
                // To raft-rs an entry that it does not have is one of term 0.
                let is_before = (message.index == 0) == (message.log_term == 0);
                if !is_before || entries.any(|(entry, index)| entry.index != index || entry.term == 0) {
                    return false;
                }
                let committed = log.committed;
                let differs = |entry: &&Entry| {
                    entry.index <= committed && log.term(entry.index).is_ok_and(|term| term != 0 && term != entry.term)
                };
                // A leader of an earlier term may have had other ones; Raft does not listen to it.
                let is_heard = message.term >= self.raw.raft.term;
                if let Some(entry) = message.entries.iter().find(differs).filter(|_| is_heard) {
                    self.stopped = Some(Stopped::Diverged { index: entry.index });
                    return false;
                }
                true
            }
            MessageType::MsgRequestVote
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgRequestPreVote
            | MessageType::MsgRequestPreVoteResponse
            | MessageType::MsgHeartbeatResponse => true,
            MessageType::MsgHup
            | MessageType::MsgBeat
            | MessageType::MsgPropose
            | MessageType::MsgUnreachable
            | MessageType::MsgSnapStatus
            | MessageType::MsgCheckQuorum
            | MessageType::MsgTransferLeader
            | MessageType::MsgReadIndex
            | MessageType::MsgReadIndexResp => false,
        }
    }

    // A snapshot that was lost on its way is sent again; nobody else tells raft-rs.
    fn retry_snapshots(&mut self) {
        if !self.is_leader() {
            self.at_snapshot.clear();
            return;
        }
        let mut waiting: Vec<u64> = self
            .raw
            .raft
            .prs()
            .iter()
            .filter(|(_, progress)| progress.state == ProgressState::Snapshot)
            .map(|(node, _)| *node)
            .collect();
        waiting.sort_unstable();
        self.at_snapshot.retain(|node, _| waiting.contains(node));
        for node in waiting {
            let ticks = self.at_snapshot.entry(node).or_insert(0);
            *ticks += 1;
            if *ticks >= SNAPSHOT_TICKS {
                self.at_snapshot.remove(&node);
                self.raw.report_snapshot(node, SnapshotStatus::Failure);
            }
        }
    }

    fn is_blocked(&self) -> bool {
        self.waiting.iter().any(|waiting| waiting.restored.is_some())
    }

    fn is_sole_voter(&self) -> bool {
        let conf = self.raw.store().conf();
        conf.voters == [self.raw.raft.id] && conf.voters_outgoing.is_empty()
    }

    /// Whether this node leads: its vote for itself is durable, or it might lead the same term again and not know it.
    pub(crate) fn is_leader(&self) -> bool {
        let votes = (self.unsaid || self.waiting.iter().any(|waiting| waiting.votes)) && !planted!(LeadsBeforeSync);
        self.raw.raft.state == StateRole::Leader && self.stopped.is_none() && !votes
    }

    pub(crate) fn leader(&self) -> Option<NodeId> {
        let raft = &self.raw.raft;
        let is_other = raft.leader_id != raft.id || self.is_leader();
        Some(NodeId(raft.leader_id)).filter(|leader| leader.0 != raft::INVALID_ID && is_other)
    }

    /// The same, if it was heard lately: who does not vote never looks for another one.
    pub(crate) fn present_leader(&self) -> Option<NodeId> {
        let raft = &self.raw.raft;
        let is_heard = raft.state == StateRole::Leader || (raft.election_elapsed as u64) < self.election.1;
        self.leader().filter(|_| is_heard || planted!(LearnerFollowsNobody))
    }

    pub(crate) fn term(&self) -> u64 {
        self.raw.raft.term
    }

    pub(crate) fn commit(&self) -> u64 {
        self.raw.raft.raft_log.committed
    }

    pub(crate) fn stopped(&self) -> Option<Stopped> {
        self.stopped
    }

    /// Whether a member has all that is committed, as it has said to this leader.
    pub(crate) fn has_all(&self, node: NodeId) -> bool {
        self.raw.raft.prs().get(node.0).is_some_and(|progress| progress.matched >= self.commit())
    }

    /// Whether a learner has nearly all that is committed, and was heard lately.
    pub(crate) fn is_caught_up(&self, node: NodeId) -> bool {
        let progress = self.raw.raft.prs().get(node.0);
        progress.is_some_and(|progress| progress.matched + CAUGHT_UP_ENTRIES >= self.commit() && progress.matched > 0)
    }
}

const MESSAGE_BYTES_MAX: u64 = 256 << 10;
const IN_FLIGHT_MAX: usize = 64;
const UNCOMMITTED_BYTES_MAX: u64 = 16 << 20;
const CAUGHT_UP_ENTRIES: u64 = 16;
const SNAPSHOT_TICKS: u64 = 20;
const NEVER_TICKS: u64 = 1 << 40;
