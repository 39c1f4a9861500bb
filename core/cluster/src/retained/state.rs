//! What the group agrees on: the messages, and what of each node's numbered writes is among them. Pure: no clock, no chance.
//! A start that reads the disk applies entries by the same code.

use std::collections::BTreeMap;

use bytes::Bytes;
use newtmq_base::{Incarnation, InvalidField, NodeId, Put, Take, planted};
use protobuf::Message as _;
use raft::eraftpb::{self, ConfChangeType, ConfChangeV2, EntryType};

use super::entry::{Entry, NotAnEntry, Origin, Write};
use super::topics::Topics;

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is in the topic, or has been.
    Done,
    /// The topic was changed after what was seen of it, or is another one by now.
    Changed,
    /// It is in the log a second time, or nobody wants it any more.
    Repeated,
}

/// What there is in the log of a node's start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Window {
    inc: Incarnation,
    settled: u64,
    // Numbers above `settled`: index of the entry. Whether it changed anything is not here, for a node that has got the topic
    // in a chunk cannot tell.
    known: BTreeMap<u64, u64>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct State {
    pub(super) index: u64,
    /// Deletions up to this index are forgotten.
    pub(super) horizon: u64,
    /// Index of the meta group's log of which the group's members are.
    pub(super) members: u64,
    pub(super) windows: BTreeMap<NodeId, Window>,
    pub(super) topics: Topics,
}

/// What an entry of the log was.
pub(super) enum Step {
    /// A write, what became of it, and whether the topic is another one by it.
    Write(Write, Outcome, bool),
    /// Raft's change of who belongs to the group.
    Members(ConfChangeV2),
    /// Anything else.
    Other,
}

impl State {
    /// Applies an entry, and with it everything up to its index.
    pub(super) fn step(&mut self, entry: &eraftpb::Entry) -> Result<Step, NotAnEntry> {
        let step = self.take(entry)?;
        self.index = entry.index;
        self.topics.applied(entry.index);
        Ok(step)
    }

    fn take(&mut self, entry: &eraftpb::Entry) -> Result<Step, NotAnEntry> {
        if entry.get_entry_type() == EntryType::EntryConfChangeV2 {
            let mut change = ConfChangeV2::default();
            change.merge_from_bytes(&entry.data).map_err(|_| InvalidField("a change of members"))?;
            for change in change.changes.iter().filter(|change| change.change_type == ConfChangeType::RemoveNode) {
                self.windows.remove(&NodeId(change.node_id));
            }
            if !entry.context.is_empty()
                && let Entry::Members(index) = Entry::decode(&entry.context)?
            {
                self.members = self.members.max(index);
            }
            return Ok(Step::Members(change));
        }
        // Raft's own: the first entry of a term.
        if entry.data.is_empty() {
            return Ok(Step::Other);
        }
        match Entry::decode(&entry.data)? {
            Entry::Write(write) => {
                let (outcome, is_new) = self.write(entry.index, &write);
                Ok(Step::Write(write, outcome, is_new))
            }
            Entry::Horizon(horizon) => {
                if horizon > self.horizon {
                    self.horizon = horizon;
                    self.topics.forget(horizon);
                }
                Ok(Step::Other)
            }
            Entry::Members(_) => Err(NotAnEntry::Invalid(InvalidField("members without a change"))),
        }
    }

    /// Applies a write; says whether the topic is another one now.
    fn write(&mut self, index: u64, write: &Write) -> (Outcome, bool) {
        if !self.is_new(write.origin) {
            return (Outcome::Repeated, false);
        }
        let is_as_before = write.seen.is_none_or(|seen| {
            let changed = self.topics.get(&write.topic).map(|item| item.index);
            if seen == 0 {
                return changed.is_none();
            }
            // What was deleted and is forgotten looks like what never was.
            let forgotten = if planted!(RetainedForgottenUnchanged) { 0 } else { self.horizon };
            changed.unwrap_or(forgotten) <= seen || planted!(RetainedPendingWins)
        });
        self.note(index, write.origin);
        if self.topics.has(&write.topic, index) {
            let is_it = write.seen.is_none() || self.is_of(&write.topic, index, write.message.is_none());
            return (if is_it { Outcome::Done } else { Outcome::Changed }, false);
        }
        if !is_as_before {
            return (Outcome::Changed, false);
        }
        self.topics.put(&write.topic, index, write.message.clone());
        (Outcome::Done, true)
    }

    /// Whether a topic is what a write has made of it, as far as that can be known: a deletion may be forgotten.
    pub(super) fn is_of(&self, topic: &str, index: u64, is_deletion: bool) -> bool {
        self.topics.get(topic).map_or(is_deletion, |item| item.index == index)
    }

    fn is_new(&self, origin: Origin) -> bool {
        let Some(window) = self.windows.get(&origin.node) else { return true };
        if window.inc != origin.inc && !planted!(RetainedNumbersOutliveStart) {
            return window.inc < origin.inc;
        }
        let is_known = window.known.contains_key(&origin.number) && !planted!(RetainedRepeatApplied);
        let is_settled = origin.number <= window.settled && !planted!(RetainedLateApplied);
        !is_known && !is_settled
    }

    fn note(&mut self, index: u64, origin: Origin) {
        let new = || Window { inc: origin.inc, settled: 0, known: BTreeMap::new() };
        let window = self.windows.entry(origin.node).or_insert_with(new);
        if window.inc != origin.inc {
            *window = new();
        }
        window.known.insert(origin.number, index);
        if origin.settled > window.settled {
            window.settled = origin.settled;
            window.known = window.known.split_off(&(origin.settled + 1));
        }
    }

    /// Index of the entry of a number.
    pub(super) fn known(&self, node: NodeId, inc: Incarnation, number: u64) -> Option<u64> {
        let window = self.windows.get(&node).filter(|window| window.inc == inc)?;
        window.known.get(&number).copied()
    }

    /// Whether everything is of one index, [`State::index`].
    pub(super) fn is_exact(&self) -> bool {
        self.topics.exact_from() <= self.index
    }

    /// What is known of an index without its topics, with topics that are as of that index or newer.
    pub(super) fn with(header: State, mut topics: Topics) -> State {
        topics.forget(header.horizon);
        topics.applied(header.index);
        State { topics, ..header }
    }

    /// Another node's of a later index, all but its topics, which have come before.
    pub(super) fn replace(&mut self, header: State) {
        *self = State::with(header, core::mem::take(&mut self.topics));
    }

    /// All but the topics.
    pub(super) fn encode_header(&self, out: &mut Vec<u8>) {
        Put(out).byte(VERSION).number(self.index).number(self.horizon).number(self.members);
        Put(out).number(self.windows.len() as u64);
        for (node, window) in &self.windows {
            Put(out).number(node.0).number(window.inc.0).number(window.settled).number(window.known.len() as u64);
            let mut before = window.settled;
            for (number, index) in &window.known {
                Put(out).number(number - before).number(*index);
                before = *number;
            }
        }
    }

    pub(super) fn decode_header(bytes: &[u8]) -> Result<State, InvalidField> {
        let mut take = Take(bytes);
        if take.byte()? != VERSION {
            return Err(InvalidField("a snapshot of another version"));
        }
        let mut state = State { index: take.number()?, horizon: take.number()?, ..State::default() };
        state.members = take.number()?;
        for _ in 0..take.count()? {
            let (node, inc, settled) = (NodeId(take.number()?), Incarnation(take.number()?), take.number()?);
            let mut window = Window { inc, settled, known: BTreeMap::new() };
            let mut before = settled;
            for _ in 0..take.count()? {
                let step = take.number()?;
                let number = before.checked_add(step).filter(|_| step > 0);
                before = number.ok_or(InvalidField("numbers out of order"))?;
                window.known.insert(before, take.number()?);
            }
            if state.windows.insert(node, window).is_some() {
                return Err(InvalidField("a node twice"));
            }
        }
        take.end()?;
        Ok(state)
    }

    /// The message of a topic.
    pub(super) fn message(&self, topic: &str) -> Option<&Bytes> {
        self.topics.get(topic)?.message.as_ref()
    }
}

const VERSION: u8 = 1;
