//! One node's part of the Raft group: raft-rs with our log, our state and our timeouts. It owns what is agreed on, and
//! decides nothing about who should be a member.

use std::collections::{BTreeMap, VecDeque};

use newtmq_base::{InvalidField, NodeId, Put, RequestId, Rng, Take, planted};
use protobuf::Message as _;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, Entry, EntryType, Message, MessageType,
    Snapshot,
};
use raft::{ProgressState, RawNode, SnapshotStatus, StateRole};

use super::Config;
use super::command::{Command, NotACommand, Rejected};
use super::log::{Log, Persist, Stored};
use super::state::MetaState;

mod election;

/// What came of one step, in order.
#[derive(Default)]
pub(super) struct Effects {
    pub(super) messages: Vec<Message>,
    pub(super) persists: Vec<Persist>,
    pub(super) applied: Vec<Applied>,
    // What there was before another node's snapshot came instead.
    pub(super) replaced: Option<MetaState>,
}

/// A command that was applied, or refused by the state.
pub(super) struct Applied {
    pub(super) index: u64,
    pub(super) origin: Origin,
    pub(super) command: Command,
    pub(super) result: Result<(), Rejected>,
}

/// Who asked for an entry; 0 and 0 is nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) node: NodeId,
    pub(super) request: RequestId,
}

pub(super) const NOBODY: Origin = Origin { node: NodeId(0), request: RequestId(0) };

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

struct Waiting {
    number: u64,
    ready: u64,
    messages: Vec<Message>,
    restored: Option<MetaState>,
    // The term, or whom it votes for in it, is on its way to the disk.
    votes: bool,
}

pub(super) struct Group {
    raw: RawNode<Log>,
    pub(super) state: MetaState,
    waiting: VecDeque<Waiting>,
    stopped: Option<Stopped>,
    witness: bool,
    election: (u64, u64),
    // Term, role and leader for which the timeout was drawn.
    drawn: Option<(u64, StateRole, u64)>,
    timeout: u64,
    // For how many ticks a member has been at a snapshot.
    at_snapshot: BTreeMap<u64, u64>,
    snapshot_every: u64,
    keep_entries: u64,
}

impl Group {
    /// The group as a start finds it on the disk.
    pub(super) fn new(config: &Config, node: NodeId, witness: bool, stored: &Stored) -> Result<Group, InvalidField> {
        let log = Log::restored(stored)?;
        let snapshot = log.last_snapshot();
        let state = if snapshot.data.is_empty() { MetaState::default() } else { MetaState::decode(&snapshot.data)? };
        if state.index != snapshot.get_metadata().index {
            return Err(InvalidField("a snapshot of another index"));
        }
        let election = (config.election_ticks, config.election_ticks * 2);
        // A witness waits for longer than anybody else.
        let range = if !witness || planted!(WitnessLeads) {
            election
        } else if planted!(WitnessKeepsItsLog) {
            (NEVER_TICKS, NEVER_TICKS + 1)
        } else {
            (election.1, election.1 + config.election_ticks / 2)
        };
        let raft_config = raft::Config {
            id: node.0,
            election_tick: config.election_ticks as usize,
            heartbeat_tick: config.heartbeat_ticks as usize,
            min_election_tick: range.0 as usize,
            // Who lets another one stand first waits for longer than what is drawn.
            max_election_tick: (range.1 + config.election_ticks) as usize,
            applied: state.index,
            check_quorum: true,
            pre_vote: true,
            max_size_per_msg: MESSAGE_BYTES_MAX,
            max_inflight_msgs: IN_FLIGHT_MAX,
            max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
            max_committed_size_per_ready: UNCOMMITTED_BYTES_MAX,
            ..raft::Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&raft_config, log, &logger).map_err(|_| InvalidField("a log that Raft refuses"))?;
        Ok(Group {
            raw,
            state,
            waiting: VecDeque::new(),
            stopped: None,
            witness,
            election: range,
            drawn: None,
            timeout: range.0,
            at_snapshot: BTreeMap::new(),
            snapshot_every: config.snapshot_every,
            keep_entries: config.keep_entries,
        })
    }

    /// A sole voter need not wait for anybody.
    pub(super) fn start(&mut self, rng: &mut Rng) {
        if self.is_sole_voter() && !self.witness {
            // It can only fail for a node that is none.
            let _ = self.raw.campaign();
        }
        self.draw(rng);
    }

    pub(super) fn tick(&mut self, rng: &mut Rng) {
        let is_leading = self.is_leader();
        // raft-rs takes it for granted that what a sole voter has is durable when it campaigns, and cannot campaign while a
        // snapshot is on its way to the disk.
        let waits = self.is_blocked() || !is_leading && self.is_sole_voter() && !self.waiting.is_empty();
        if self.stopped.is_some() || waits {
            return;
        }
        self.raw.tick();
        self.draw(rng);
        self.retry_snapshots();
    }

    /// A message of a member. Says whether it was one that can be taken.
    pub(super) fn step(&mut self, message: Message, rng: &mut Rng) -> bool {
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

    /// Proposes a command that is none about members. Says whether it was taken into the log.
    pub(super) fn propose(&mut self, origin: Origin, command: &Command) -> bool {
        let mut data = Vec::new();
        put_origin(origin, &mut data);
        command.encode(&mut data);
        self.stopped.is_none() && self.raw.propose(Vec::new(), data).is_ok()
    }

    /// Proposes a command about members, together with what it is for Raft.
    pub(super) fn propose_change(&mut self, origin: Origin, command: &Command) -> bool {
        let mut context = Vec::new();
        put_origin(origin, &mut context);
        command.encode(&mut context);
        let changes = self.changes(command);
        if self.stopped.is_some() || changes.is_empty() || !self.can_change() {
            return false;
        }
        let mut change = ConfChangeV2::default();
        change.set_transition(ConfChangeTransition::Auto);
        change.set_changes(changes.into());
        self.raw.propose_conf_change(context, change).is_ok()
    }

    /// Whether no change of members is under way.
    pub(super) fn can_change(&self) -> bool {
        !self.raw.raft.has_pending_conf() && !self.raw.store().is_joint()
    }

    /// Whether both who voted and who will vote decide as yet: who goes is needed until they do not.
    pub(super) fn is_joint(&self) -> bool {
        self.raw.store().is_joint() && !planted!(LeavesTooEarly)
    }

    /// Whether this leader has applied all that was decided before it led: until then it may not know who is a member.
    pub(super) fn knows_all(&self) -> bool {
        let raft = &self.raw.raft;
        let committed = raft.raft_log.committed;
        let is_own = raft.raft_log.term(committed).is_ok_and(|term| term == raft.term);
        is_own && self.state.index >= committed
    }

    /// Whether those are more than half of who decides.
    pub(super) fn is_quorum(&self, has: impl Fn(NodeId) -> bool) -> bool {
        let conf = self.raw.store().conf();
        let most = |voters: &[u64]| voters.iter().filter(|node| has(NodeId(**node))).count() * 2 > voters.len();
        most(&conf.voters) && (conf.voters_outgoing.is_empty() || most(&conf.voters_outgoing))
    }

    /// What has become durable, up to this number.
    pub(super) fn persisted(&mut self, number: u64, numbers: &mut u64, rng: &mut Rng, effects: &mut Effects) {
        while self.waiting.front().is_some_and(|first| first.number <= number) {
            let first = self.waiting.pop_front().expect("it was there");
            effects.messages.extend(first.messages);
            self.raw.on_persist_ready(first.ready);
            if let Some(state) = first.restored {
                self.raw.advance_apply_to(state.index);
                effects.replaced = Some(core::mem::replace(&mut self.state, state));
            }
        }
        self.draw(rng);
        self.work(numbers, rng, effects);
    }

    /// Takes what raft-rs has to say until it has nothing more.
    pub(super) fn work(&mut self, numbers: &mut u64, rng: &mut Rng, effects: &mut Effects) {
        while self.stopped.is_none() && self.raw.has_ready() {
            let mut ready = self.raw.ready();
            let mut messages = ready.take_messages();
            let votes = ready.hs().is_some_and(|hard| {
                let before = self.raw.store().hard();
                (hard.term, hard.vote) != (before.term, before.vote)
            });
            // raft-rs lets what a leader says leave at once. A sole voter leads before its vote is durable, and after a crash
            // it would lead the same term again, with other entries.
            if !votes && !self.waiting.iter().any(|waiting| waiting.votes) || planted!(LeadsBeforeSync) {
                effects.messages.append(&mut messages);
            }
            messages.extend(ready.take_persisted_messages());
            let committed = ready.take_committed_entries();
            let (number, must_sync) = (ready.number(), ready.must_sync());
            let snapshot = Some(ready.snapshot().clone()).filter(|snapshot| !snapshot.is_empty());
            let restored = match snapshot.as_ref().map(|snapshot| MetaState::decode(&snapshot.data)).transpose() {
                Ok(restored) => restored,
                Err(what) => {
                    self.stopped = Some(Stopped::Invalid { index: self.state.index, what });
                    return;
                }
            };
            let mut persist = Persist { sync: must_sync, entries: ready.take_entries(), ..Persist::default() };
            persist.hard = ready.hs().cloned();
            let log = self.raw.mut_store();
            if let Some(snapshot) = snapshot {
                persist.first = snapshot.get_metadata().index + 1;
                log.install(snapshot.clone());
                persist.snapshot = Some(snapshot);
            }
            log.append(&persist.entries);
            if let Some(hard) = &persist.hard {
                log.set_hard(hard.clone());
            }
            self.raw.advance_append_async(ready);
            let is_something = persist.hard.is_some() || !persist.entries.is_empty() || persist.snapshot.is_some();
            if is_something {
                *numbers += 1;
                persist.number = *numbers;
                effects.persists.push(persist);
            }
            if planted!(SentBeforeSync) {
                effects.messages.append(&mut messages);
            }
            if must_sync || !self.waiting.is_empty() {
                // What need not be durable itself waits for what is before it only.
                let needed = self.waiting.back().map_or(*numbers, |last| last.number);
                let needed = if must_sync { *numbers } else { needed };
                self.waiting.push_back(Waiting { number: needed, ready: number, messages, restored, votes });
            } else {
                effects.messages.append(&mut messages);
                self.raw.on_persist_ready(number);
            }
            self.apply(committed, numbers, effects);
            self.draw(rng);
        }
    }

    fn apply(&mut self, entries: Vec<Entry>, numbers: &mut u64, effects: &mut Effects) {
        let mut members_changed = false;
        for entry in entries {
            let (command, change) = match read_entry(&entry) {
                Ok(read) => read,
                Err(NotACommand::Unknown(_)) if planted!(UnknownEntrySkipped) => {
                    // As if it said nothing.
                    (None, None)
                }
                Err(NotACommand::Unknown(kind)) => {
                    self.stopped = Some(Stopped::UnknownEntry { index: entry.index, kind });
                    return;
                }
                Err(NotACommand::Invalid(what)) => {
                    self.stopped = Some(Stopped::Invalid { index: entry.index, what });
                    return;
                }
            };
            let raw: &[u8] = if command.is_none() && entry.get_entry_type() == EntryType::EntryNormal {
                &[]
            } else if entry.context.is_empty() {
                &entry.data
            } else {
                &entry.context
            };
            let result = self.state.apply(entry.index, raw, command.as_ref().map(|(_, command)| command));
            if let Some(change) = change.filter(|_| result.is_ok()) {
                let Ok(conf) = self.raw.apply_conf_change(&change) else {
                    let what = InvalidField("a change of members that Raft refuses");
                    self.stopped = Some(Stopped::Invalid { index: entry.index, what });
                    return;
                };
                self.raw.mut_store().set_conf(conf);
                members_changed = true;
            }
            if let Some((origin, command)) = command {
                effects.applied.push(Applied { index: entry.index, origin, command, result });
            }
            self.raw.advance_apply_to(entry.index);
        }
        let covered = self.raw.store().last_snapshot().get_metadata().index;
        // Who has just become a member can only begin with a snapshot that knows it.
        if members_changed || self.state.index >= covered + self.snapshot_every {
            self.take_snapshot(numbers, effects);
        }
        self.step_down();
    }

    fn take_snapshot(&mut self, numbers: &mut u64, effects: &mut Effects) {
        let mut data = Vec::new();
        self.state.encode(&mut data);
        let index = self.state.index;
        let log = self.raw.mut_store();
        log.set_snapshot(index, data);
        log.compact((index + 1).saturating_sub(self.keep_entries));
        *numbers += 1;
        let (snapshot, first) = (Some(log.last_snapshot().clone()), log.first());
        effects.persists.push(Persist { number: *numbers, first, snapshot, ..Persist::default() });
    }

    fn changes(&self, command: &Command) -> Vec<ConfChangeSingle> {
        let mut changes = Vec::new();
        let mut push = |kind, node: NodeId| {
            changes.push(ConfChangeSingle { change_type: kind, node_id: node.0, ..ConfChangeSingle::default() });
        };
        let (voters, gone) = match command {
            Command::AddMember(member) => {
                push(ConfChangeType::AddLearnerNode, member.node);
                return changes;
            }
            Command::Voters(voters) => (voters, None),
            Command::RemoveMember { node, voters, .. } => (voters, Some(*node)),
            Command::UpdateMember(_)
            | Command::Readmit { .. }
            | Command::StayOut { .. }
            | Command::SetConfig { .. }
            | Command::PutBlob { .. }
            | Command::FinalizeFeatureLevel { .. } => return changes,
        };
        for voter in voters.difference(&self.state.voters) {
            push(ConfChangeType::AddNode, *voter);
        }
        for voter in self.state.voters.difference(voters).filter(|voter| Some(**voter) != gone) {
            push(ConfChangeType::AddLearnerNode, *voter);
        }
        if let Some(gone) = gone {
            push(ConfChangeType::RemoveNode, gone);
        }
        changes
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
                let snapshot = message.get_snapshot();
                let index = snapshot.get_metadata().index;
                index > 0
                    && snapshot.get_metadata().term > 0
                    && MetaState::decode(&snapshot.data).is_ok_and(|state| state.index == index)
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

    pub(super) fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader && self.stopped.is_none()
    }

    pub(super) fn leader(&self) -> Option<NodeId> {
        Some(NodeId(self.raw.raft.leader_id)).filter(|leader| leader.0 != raft::INVALID_ID)
    }

    pub(super) fn term(&self) -> u64 {
        self.raw.raft.term
    }

    pub(super) fn commit(&self) -> u64 {
        self.raw.raft.raft_log.committed
    }

    pub(super) fn stopped(&self) -> Option<Stopped> {
        self.stopped
    }

    /// Whether a member has all that is committed, as it has said to this leader.
    pub(super) fn has_all(&self, node: NodeId) -> bool {
        self.raw.raft.prs().get(node.0).is_some_and(|progress| progress.matched >= self.commit())
    }

    /// Whether a learner has nearly all that is committed, and was heard lately.
    pub(super) fn is_caught_up(&self, node: NodeId) -> bool {
        let progress = self.raw.raft.prs().get(node.0);
        progress.is_some_and(|progress| progress.matched + CAUGHT_UP_ENTRIES >= self.commit() && progress.matched > 0)
    }
}

/// The snapshot with which a new cluster begins.
pub(super) fn founding(state: &MetaState) -> Snapshot {
    let mut data = Vec::new();
    state.encode(&mut data);
    let mut snapshot = Snapshot { data: data.into(), ..Snapshot::default() };
    let metadata = snapshot.mut_metadata();
    (metadata.index, metadata.term) = (state.index, 1);
    metadata.mut_conf_state().voters = state.voters.iter().map(|voter| voter.0).collect();
    snapshot
}

type Read = (Option<(Origin, Command)>, Option<ConfChangeV2>);

fn read_entry(entry: &Entry) -> Result<Read, NotACommand> {
    let is_change = entry.get_entry_type() == EntryType::EntryConfChangeV2;
    let bytes: &[u8] = if is_change { &entry.context } else { &entry.data };
    let change = if is_change {
        let mut change = ConfChangeV2::default();
        change.merge_from_bytes(&entry.data).map_err(|_| InvalidField("a change of members"))?;
        Some(change)
    } else {
        None
    };
    // Raft's own: the first entry of a term, or the end of a joint configuration.
    if bytes.is_empty() {
        return Ok((None, change));
    }
    let mut take = Take(bytes);
    let origin = Origin { node: NodeId(take.number()?), request: RequestId(take.number()?) };
    Ok((Some((origin, Command::decode(take.0)?)), change))
}

fn put_origin(origin: Origin, out: &mut Vec<u8>) {
    Put(out).number(origin.node.0).number(origin.request.0);
}

const MESSAGE_BYTES_MAX: u64 = 256 << 10;
const IN_FLIGHT_MAX: usize = 64;
const UNCOMMITTED_BYTES_MAX: u64 = 16 << 20;
const CAUGHT_UP_ENTRIES: u64 = 16;
const SNAPSHOT_TICKS: u64 = 20;
const NEVER_TICKS: u64 = 1 << 40;
