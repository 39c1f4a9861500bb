//! The retained group as Raft's: entries are applied, the log is kept short, and the topics are written to the disk again
//! from time to time. It decides nothing.

use newtmq_base::{InvalidField, NodeId, Rng, planted};
use raft::eraftpb::{ConfChangeSingle, Entry, HardState, Message, Snapshot};

use super::disk::{Base, Persist, Stored};
use super::entry::{NotAnEntry, Write};
use super::state::{Outcome, State, Step};
use super::topics::{Chunk, ChunkLimits, End};
use super::{Config, Estate, Identity, Output, entry};
use crate::consensus::log::Log;
use crate::consensus::{Engine, Part, Stopped};

/// What came of one step, in order.
#[derive(Default)]
pub(super) struct Effects {
    pub(super) messages: Vec<Message>,
    pub(super) out: Vec<Output>,
    pub(super) written: Vec<Applied>,
    // Another node's snapshot has come instead of the entries between.
    pub(super) installed: bool,
}

/// A write that came up in the log.
pub(super) struct Applied {
    pub(super) index: u64,
    pub(super) write: Write,
    pub(super) outcome: Outcome,
}

pub(super) struct Group {
    pub(super) engine: Engine,
    pub(super) state: State,
    // Another node's, on its way to the disk.
    restored: Option<State>,
    sweep: Option<Sweep>,
    // Of entries, since all topics were written.
    disk_bytes: u64,
}

// All topics are written again.
struct Sweep {
    // The last one that is.
    upto: Option<Box<str>>,
    // Of entries, when it began.
    bytes: u64,
}

impl Group {
    /// The group as a start finds it on the disk.
    pub(super) fn new(config: &Config, me: &Identity, stored: Stored) -> Result<Group, InvalidField> {
        let log = Log::restored(stored.base.unwrap_or_default(), &stored.hard, &stored.entries)?;
        let snapshot = log.last_snapshot();
        let header = if snapshot.data.is_empty() { State::default() } else { State::decode_header(&snapshot.data)? };
        if header.index != snapshot.get_metadata().index {
            return Err(InvalidField("a snapshot of another index"));
        }
        let part = Part {
            node: me.node,
            witness: me.witness,
            election_ticks: config.election_ticks,
            heartbeat_ticks: config.heartbeat_ticks,
        };
        let disk_bytes = log.bytes() as u64;
        let state = State::with(header, stored.topics);
        Ok(Group { engine: Engine::new(part, log)?, state, restored: None, sweep: None, disk_bytes })
    }

    /// With what a group begins: its founder alone, and what that has.
    pub(super) fn founding(me: &Identity, index: u64, estate: Estate) -> Stored {
        let Estate { topics, horizon } = estate;
        let mut data = Vec::new();
        State { index, horizon, ..State::default() }.encode_header(&mut data);
        let mut base = Snapshot { data: data.into(), ..Snapshot::default() };
        let metadata = base.mut_metadata();
        (metadata.index, metadata.term) = (index, 1);
        metadata.mut_conf_state().voters = vec![me.node.0];
        let hard = HardState { term: 1, commit: index, ..HardState::default() };
        Stored { cluster: Some(me.cluster), base: Some(base), hard, topics, ..Stored::default() }
    }

    /// Proposes an entry. Says whether it was taken into the log.
    pub(super) fn propose(&mut self, entry: &entry::Entry) -> bool {
        let mut data = Vec::new();
        entry.encode(&mut data);
        self.engine.propose(data)
    }

    pub(super) fn propose_write(&mut self, write: &Write) -> bool {
        let mut data = Vec::with_capacity(write.topic.len() + write.message.as_ref().map_or(0, |m| m.len()) + 32);
        write.encode(&mut data);
        self.engine.propose(data)
    }

    /// Proposes who belongs to the group, as the meta group had it at an index.
    pub(super) fn propose_members(&mut self, index: u64, changes: Vec<ConfChangeSingle>) -> bool {
        let mut context = Vec::new();
        entry::Entry::Members(index).encode(&mut context);
        self.engine.propose_change(context, changes)
    }

    /// What has become durable, up to this number.
    pub(super) fn persisted(&mut self, number: u64, rng: &mut Rng, effects: &mut Effects) {
        if self.engine.persisted(number, rng, &mut effects.messages).is_some()
            && let Some(header) = self.restored.take()
        {
            self.state.replace(header);
            effects.installed = true;
        }
    }

    /// Takes what raft-rs has to say until it has nothing more.
    pub(super) fn work(&mut self, config: &Config, numbers: &mut u64, rng: &mut Rng, effects: &mut Effects) {
        while let Some(turn) = self.engine.turn(numbers, &mut effects.messages) {
            let mut persist = Persist { number: turn.number, sync: turn.sync, ..Persist::default() };
            (persist.hard, persist.entries) = (turn.hard, turn.entries);
            if let Some(snapshot) = turn.snapshot {
                match State::decode_header(&snapshot.data) {
                    Ok(state) => self.restored = Some(state),
                    Err(what) => {
                        self.engine.stop(Stopped::Invalid { index: self.state.index, what });
                        return;
                    }
                }
                self.sweep = None;
                persist.base = Some(Base::Installed(snapshot, self.state.index));
            }
            self.disk_bytes += persist.entry_bytes();
            if turn.number > 0 {
                effects.out.push(Output::Persist(persist));
            }
            self.apply(config, turn.committed, effects);
            self.engine.draw(rng);
        }
    }

    fn apply(&mut self, config: &Config, entries: Vec<Entry>, effects: &mut Effects) {
        let mut members_changed = false;
        for entry in entries {
            match self.state.step(&entry) {
                Ok(Step::Write(write, outcome, is_new)) => {
                    if is_new {
                        let (topic, message) = (write.topic.clone(), write.message.clone());
                        effects.out.push(Output::Apply { index: entry.index, topic, message });
                    }
                    effects.written.push(Applied { index: entry.index, write, outcome });
                }
                Ok(Step::Members(change)) => {
                    if let Err(what) = self.engine.apply_change(entry.index, &change) {
                        self.engine.stop(Stopped::Invalid { index: entry.index, what });
                        return;
                    }
                    members_changed = true;
                }
                Ok(Step::Other) => {}
                Err(NotAnEntry::Unknown(kind)) => {
                    self.engine.stop(Stopped::UnknownEntry { index: entry.index, kind });
                    return;
                }
                Err(NotAnEntry::Invalid(what)) => {
                    self.engine.stop(Stopped::Invalid { index: entry.index, what });
                    return;
                }
            }
            self.engine.applied(entry.index);
        }
        self.engine.step_down(|_| true);
        let covered = self.engine.log().last_snapshot().get_metadata().index;
        let is_long = self.state.index >= covered + config.log_entries || self.engine.log().bytes() >= config.log_bytes;
        // Who has just become a member can only begin with a snapshot that knows it.
        if members_changed || is_long && self.state.index > covered {
            self.shorten(config);
        }
    }

    // What is behind the state is kept for those who are a little behind it, and no longer: the disk has its own.
    fn shorten(&mut self, config: &Config) {
        let mut data = Vec::new();
        self.state.encode_header(&mut data);
        let index = self.state.index;
        let log = self.engine.log_mut();
        log.set_snapshot(index, data);
        let first = (index + 1).saturating_sub(config.keep_entries).max(log.first_within(config.keep_bytes));
        log.compact(first);
    }

    /// Writes some of the topics to the disk again, when it has got so much that this is due.
    pub(super) fn sweep(&mut self, config: &Config, me: &Identity, numbers: &mut u64, out: &mut Vec<Output>) {
        let is_due = self.disk_bytes >= config.sweep_bytes.max(self.state.topics.bytes() as u64);
        if self.engine.stopped().is_some() || !self.state.is_exact() || self.restored.is_some() {
            self.sweep = None;
            return;
        }
        let mut persist = |persist: Persist| {
            *numbers += 1;
            out.push(Output::Persist(Persist { number: *numbers, ..persist }));
        };
        let index = self.state.index;
        if self.sweep.is_none() {
            if !is_due || index == 0 {
                return;
            }
            let mut data = Vec::new();
            self.state.encode_header(&mut data);
            let log = self.engine.log_mut();
            log.set_snapshot(index, data);
            let base = Base::Begins(log.last_snapshot().clone());
            let (hard, entries) = (Some(log.hard().clone()), log.after(index).to_vec());
            let ends = planted!(RetainedSweepEndsFirst);
            let begin =
                Persist { cluster: Some(me.cluster), base: Some(base), hard, entries, ends, ..Persist::default() };
            let bytes = self.disk_bytes;
            self.disk_bytes += begin.entry_bytes();
            persist(begin);
            self.sweep = Some(Sweep { upto: None, bytes });
        }
        for _ in 0..config.sweep_chunks {
            let Some(sweep) = &mut self.sweep else { return };
            let chunk = self.state.topics.chunk(sweep.upto.as_deref(), 0, index, chunk_limits(config));
            let ends = chunk.to == End::Last;
            if let End::At(topic) = &chunk.to {
                sweep.upto = Some(topic.clone());
            } else {
                self.disk_bytes -= sweep.bytes;
                self.sweep = None;
            }
            persist(Persist { chunk: Some(chunk), ends, ..Persist::default() });
        }
    }

    /// A chunk of another node's topics.
    pub(super) fn merge(&mut self, chunk: Chunk, numbers: &mut u64, out: &mut Vec<Output>) {
        self.sweep = None;
        self.state.topics.merge(&chunk, |topic, index, message| {
            out.push(Output::Apply { index, topic: topic.into(), message: message.cloned() });
        });
        *numbers += 1;
        out.push(Output::Persist(Persist { number: *numbers, chunk: Some(chunk), ..Persist::default() }));
    }

    /// What a node that has everything after `since` lacks.
    pub(super) fn chunk(&self, config: &Config, after: Option<&str>, since: u64) -> Chunk {
        // What was deleted later and is forgotten can be told only by telling everything.
        let since = if since < self.state.horizon && !planted!(RetainedTooLittleSent) { 0 } else { since };
        self.state.topics.chunk(after, since, self.state.index, chunk_limits(config))
    }

    /// Everything that the disk is to have, in one; none while that is on its way there.
    pub(super) fn whole(&mut self, me: &Identity) -> Option<Persist> {
        if self.restored.is_some() || self.engine.stopped().is_some() || !self.state.is_exact() {
            return None;
        }
        self.sweep = None;
        let (index, mut data) = (self.state.index, Vec::new());
        let whole = Persist { reset: true, cluster: Some(me.cluster), sync: true, ..Persist::default() };
        let hard = Some(self.engine.log().hard().clone());
        if index == 0 {
            return Some(Persist { hard, ..whole });
        }
        self.state.encode_header(&mut data);
        let log = self.engine.log_mut();
        log.set_snapshot(index, data);
        let entries = log.after(index).to_vec();
        let base = Some(Base::Installed(log.last_snapshot().clone(), 0));
        let chunk = Some(self.state.topics.chunk(None, 0, index, UNLIMITED));
        Some(Persist { chunk, entries, hard, base, ..whole })
    }

    pub(super) fn is_member(&self, node: NodeId) -> bool {
        let conf = self.engine.log().conf();
        [&conf.voters, &conf.learners, &conf.voters_outgoing, &conf.learners_next].iter().any(|of| of.contains(&node.0))
    }
}

/// For what is written as a whole.
pub(super) const UNLIMITED: ChunkLimits = ChunkLimits { bytes: usize::MAX, scanned: usize::MAX };

fn chunk_limits(config: &Config) -> ChunkLimits {
    ChunkLimits { bytes: config.chunk_bytes, scanned: config.chunk_scan }
}
