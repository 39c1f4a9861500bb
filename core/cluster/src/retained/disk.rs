//! What the disk is to keep of the retained group, and what a start finds there.
//!
//! The messages are on the disk as chunks beside the log. From time to time all of them are written again, a chunk at a
//! time; when the last one is durable what was there before the first one is not needed any more.

use newtmq_base::{InvalidField, Put, Take};
use raft::eraftpb::{Entry, HardState, Snapshot};

use super::state::State;
use super::topics::{Chunk, Topics};
use crate::consensus::wire;
use crate::meta::ClusterId;

/// What the state is, without its topics, and what it is to Raft: at which entry, with which members.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Base {
    /// What follows writes all topics as they are, from this entry on. It begins with the entries after it.
    Begins(Snapshot),
    /// Another node's: what has changed in its topics after what was applied here, up to this entry, was written before it,
    /// and the log begins with it.
    Installed(Snapshot, u64),
}

/// What is to be written to the disk, after what came before it and before what comes after it.
/// [`super::Input::Persisted`] says that it is durable; what depends on it is not sent earlier.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Persist {
    /// Rises by 1 from one to the next, from 1 in each start.
    pub number: u64,
    /// Whether something waits for it to be durable. If not it need not be synced by itself, nor confirmed: the next one that
    /// must be is after it.
    pub sync: bool,
    // Everything that was there before is gone.
    pub(super) reset: bool,
    pub(super) cluster: Option<ClusterId>,
    pub(super) base: Option<Base>,
    pub(super) chunk: Option<Chunk>,
    // All topics are written since the base that began.
    pub(super) ends: bool,
    pub(super) hard: Option<HardState>,
    pub(super) entries: Vec<Entry>,
}

/// What the disk has: all [`Persist`] that are durable, one after the other. A node that starts anew gives it back.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Stored {
    pub(super) cluster: Option<ClusterId>,
    pub(super) base: Option<Snapshot>,
    pub(super) next: Option<Snapshot>,
    pub(super) hard: HardState,
    pub(super) entries: Vec<Entry>,
    pub(super) topics: Topics,
}

impl Stored {
    /// Adds what has become durable.
    pub fn apply(&mut self, persist: Persist) {
        if persist.reset {
            *self = Stored::default();
        }
        self.cluster = persist.cluster.or(self.cluster);
        if let Some(chunk) = &persist.chunk {
            self.topics.merge(chunk, |_, _, _| {});
        }
        match persist.base {
            Some(Base::Begins(base)) => self.next = Some(base),
            Some(Base::Installed(base, applied)) => {
                self.next = None;
                self.replay(applied);
                self.entries.clear();
                self.base = Some(base);
            }
            None => {}
        }
        if let Some(first) = persist.entries.first() {
            self.entries.retain(|entry| entry.index < first.index);
            self.entries.extend(persist.entries);
        }
        if persist.ends && self.next.is_some() {
            self.base = self.next.take();
            let index = self.base.as_ref().map_or(0, |base| base.get_metadata().index);
            self.entries.retain(|entry| entry.index > index);
        }
        if let Some(hard) = persist.hard {
            self.hard = hard;
        }
    }

    // What is in the log alone is brought into the topics, before the log goes.
    fn replay(&mut self, upto: u64) {
        // What cannot be read the node could not read either, and went no further.
        let Some(Ok(header)) = self.base.as_ref().map(|base| State::decode_header(&base.data)) else { return };
        let mut state = State::with(header, core::mem::take(&mut self.topics));
        let entries = self.entries.iter().filter(|entry| entry.index > state.index && entry.index <= upto);
        for entry in entries.collect::<Vec<_>>() {
            if state.step(entry).is_err() {
                break;
            }
        }
        self.topics = state.topics;
    }

    /// Whether the node belongs to no cluster.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.cluster.is_none()
    }
}

impl Persist {
    /// Whether everything that was written before this one can go once a later one [ends](Persist::ends) what this one
    /// begins, unless another one has begun since.
    #[must_use]
    pub fn begins(&self) -> bool {
        self.reset || matches!(self.base, Some(Base::Begins(_)))
    }

    /// Whether what was written before the last one that [began](Persist::begins) can go once this one is durable.
    #[must_use]
    pub fn ends(&self) -> bool {
        self.reset || self.ends
    }

    /// About how many bytes it has, without encoding it.
    pub(super) fn entry_bytes(&self) -> u64 {
        self.entries.iter().map(|entry| entry.data.len() as u64 + ENTRY_BYTES).sum()
    }

    /// Appends it. The number is of one start only, and left out.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let base = match &self.base {
            None => 0,
            Some(Base::Begins(_)) => 1,
            Some(Base::Installed(..)) => 2,
        };
        let has = u8::from(self.reset)
            | u8::from(self.cluster.is_some()) << 1
            | u8::from(self.chunk.is_some()) << 2
            | u8::from(self.hard.is_some()) << 3
            | u8::from(self.ends) << 4
            | base << 5;
        Put(out).byte(has);
        if let Some(cluster) = self.cluster {
            Put(out).number(cluster.0);
        }
        if let Some(Base::Begins(snapshot) | Base::Installed(snapshot, _)) = &self.base {
            wire::put_snapshot(snapshot, out);
        }
        if let Some(Base::Installed(_, applied)) = &self.base {
            Put(out).number(*applied);
        }
        if let Some(chunk) = &self.chunk {
            chunk.encode(out);
        }
        if let Some(hard) = &self.hard {
            wire::put_hard(hard, out);
        }
        Put(out).number(self.entries.len() as u64);
        for entry in &self.entries {
            wire::put_entry(entry, out);
        }
    }

    /// Reads what [`Persist::encode`] wrote, for [`Stored::apply`].
    ///
    /// # Errors
    /// A field is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Persist, InvalidField> {
        let mut take = Take(bytes);
        let has = take.byte()?;
        let mut persist = Persist { reset: has & 1 != 0, ends: has & 16 != 0, ..Persist::default() };
        if has & 2 != 0 {
            persist.cluster = Some(ClusterId(take.number()?));
        }
        persist.base = match has >> 5 {
            0 => None,
            1 => Some(Base::Begins(wire::take_snapshot(&mut take)?)),
            2 => Some(Base::Installed(wire::take_snapshot(&mut take)?, take.number()?)),
            _ => return Err(InvalidField("no kind of base")),
        };
        if has & 4 != 0 {
            persist.chunk = Some(Chunk::decode(&mut take)?);
        }
        if has & 8 != 0 {
            persist.hard = Some(wire::take_hard(&mut take)?);
        }
        for _ in 0..take.count()? {
            persist.entries.push(wire::take_entry(&mut take)?);
        }
        take.end()?;
        Ok(persist)
    }
}

const ENTRY_BYTES: u64 = 16;
