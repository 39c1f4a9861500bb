//! The meta group as Raft's: what is agreed on, entry by entry. It decides nothing about who should be a member.

use core::ops::Deref;

use newtmq_base::{InvalidField, NodeId, Put, RequestId, Rng, Take, planted};
use protobuf::Message as _;
use raft::eraftpb::{ConfChangeSingle, ConfChangeType, ConfChangeV2, Entry, EntryType, Message, MessageType, Snapshot};

use super::Config;
use super::command::{Command, Member, NotACommand, Rejected};
use super::log::{Persist, Stored};
use super::state::MetaState;
use crate::consensus::log::Log;
use crate::consensus::{Engine, Part, Stopped};

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

pub(super) struct Group {
    engine: Engine,
    pub(super) state: MetaState,
    // Another node's, on its way to the disk.
    restored: Option<MetaState>,
    // The highest feature level that this program understands.
    features: u32,
    snapshot_every: u64,
    keep_entries: u64,
}

impl Group {
    /// The group as a start finds it on the disk.
    pub(super) fn new(config: &Config, me: &Member, stored: &Stored) -> Result<Group, InvalidField> {
        let log = Log::restored(stored.snapshot.clone().unwrap_or_default(), &stored.hard, &stored.entries)?;
        let snapshot = log.last_snapshot();
        let state = if snapshot.data.is_empty() { MetaState::default() } else { MetaState::decode(&snapshot.data)? };
        if state.index != snapshot.get_metadata().index {
            return Err(InvalidField("a snapshot of another index"));
        }
        let (election_ticks, heartbeat_ticks) = (config.election_ticks, config.heartbeat_ticks);
        let part = Part { node: me.node, witness: me.witness, election_ticks, heartbeat_ticks };
        let engine = Engine::new(part, log)?;
        let (snapshot_every, keep_entries, features) = (config.snapshot_every, config.keep_entries, me.feature_max);
        let mut group = Group { engine, state, restored: None, features, snapshot_every, keep_entries };
        group.look_at_level();
        Ok(group)
    }

    /// What the cluster uses and this program does not know may be in any entry: it takes no part. Says whether it does.
    fn look_at_level(&mut self) -> bool {
        let (level, known) = (self.state.feature_level, self.features);
        let takes_part = level <= known || planted!(OldProgramTakesPart);
        if !takes_part {
            self.engine.stop(Stopped::FeatureLevel { level, known });
        }
        takes_part
    }

    /// A sole voter need not wait for anybody.
    pub(super) fn start(&mut self, rng: &mut Rng) {
        self.engine.start(rng);
    }

    pub(super) fn tick(&mut self, rng: &mut Rng) {
        self.engine.tick(rng);
        self.step_down();
    }

    /// Leads in a later term than this one, if it leads.
    pub(super) fn raise(&mut self, term: u64, rng: &mut Rng) {
        self.engine.raise(term, rng);
    }

    fn step_down(&mut self) {
        let members = &self.state.members;
        self.engine.step_down(|node| members.get(&node).is_some_and(|member| !member.witness));
    }

    /// A message of a member. Says whether it was one that can be taken.
    pub(super) fn step(&mut self, message: Message, rng: &mut Rng) -> bool {
        if message.get_msg_type() == MessageType::MsgSnapshot {
            let snapshot = message.get_snapshot();
            let index = snapshot.get_metadata().index;
            if !MetaState::decode(&snapshot.data).is_ok_and(|state| state.index == index) {
                return false;
            }
        }
        self.engine.step(message, rng)
    }

    /// Proposes a command that is none about members. Says whether it was taken into the log.
    pub(super) fn propose(&mut self, origin: Origin, command: &Command) -> bool {
        let mut data = Vec::new();
        put_origin(origin, &mut data);
        command.encode(&mut data);
        self.engine.propose(data)
    }

    /// Proposes a command about members, together with what it is for Raft.
    pub(super) fn propose_change(&mut self, origin: Origin, command: &Command) -> bool {
        let mut context = Vec::new();
        put_origin(origin, &mut context);
        command.encode(&mut context);
        let changes = self.changes(command);
        self.engine.propose_change(context, changes)
    }

    /// Whether this leader has applied all that was decided before it led: until then it may not know who is a member.
    pub(super) fn knows_all(&self) -> bool {
        self.engine.knows_all(self.state.index)
    }

    /// What has become durable, up to this number.
    pub(super) fn persisted(&mut self, number: u64, numbers: &mut u64, rng: &mut Rng, effects: &mut Effects) {
        if self.engine.persisted(number, rng, &mut effects.messages).is_some()
            && let Some(state) = self.restored.take()
        {
            effects.replaced = Some(core::mem::replace(&mut self.state, state));
            self.look_at_level();
        }
        self.work(numbers, rng, effects);
    }

    /// Takes what raft-rs has to say until it has nothing more.
    pub(super) fn work(&mut self, numbers: &mut u64, rng: &mut Rng, effects: &mut Effects) {
        while let Some(turn) = self.engine.turn(numbers, &mut effects.messages) {
            let mut persist = Persist { number: turn.number, sync: turn.sync, ..Persist::default() };
            (persist.hard, persist.entries) = (turn.hard, turn.entries);
            if let Some(snapshot) = turn.snapshot {
                match MetaState::decode(&snapshot.data) {
                    Ok(state) => self.restored = Some(state),
                    Err(what) => {
                        self.engine.stop(Stopped::Invalid { index: self.state.index, what });
                        return;
                    }
                }
                persist.first = snapshot.get_metadata().index + 1;
                persist.snapshot = Some(snapshot);
            }
            if turn.number > 0 {
                effects.persists.push(persist);
            }
            self.apply(turn.committed, numbers, effects);
            self.engine.draw(rng);
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
                    self.engine.stop(Stopped::UnknownEntry { index: entry.index, kind });
                    return;
                }
                Err(NotACommand::Invalid(what)) => {
                    self.engine.stop(Stopped::Invalid { index: entry.index, what });
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
            let raw = if planted!(AppliedByOwnCount, *numbers % 2 == 1) { &[] } else { raw };
            let result = self.state.apply(entry.index, raw, command.as_ref().map(|(_, command)| command));
            if let Some(change) = change.filter(|_| result.is_ok()) {
                if let Err(what) = self.engine.apply_change(entry.index, &change) {
                    self.engine.stop(Stopped::Invalid { index: entry.index, what });
                    return;
                }
                members_changed = true;
            }
            if let Some((origin, command)) = command {
                effects.applied.push(Applied { index: entry.index, origin, command, result });
            }
            self.engine.applied(entry.index);
            if !self.look_at_level() {
                return;
            }
        }
        let covered = self.engine.log().last_snapshot().get_metadata().index;
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
        let log = self.engine.log_mut();
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
            | Command::RenewRetained { .. }
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
}

impl Deref for Group {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        &self.engine
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
