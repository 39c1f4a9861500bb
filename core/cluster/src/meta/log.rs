//! The log: what raft-rs reads back, what the disk is to keep, and what a start finds there.

use newtmq_base::{Incarnation, InvalidField, NodeId, Put, Take};
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use super::state::ClusterId;
use super::wire;

/// To whom a seed without a cluster has promised that it may found one, and in which attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grant {
    /// The founder.
    pub founder: NodeId,
    /// Its start.
    pub inc: Incarnation,
    /// Its attempt, from 1 in each start.
    pub attempt: u64,
}

/// What is to be written to the disk, after what came before it and before what comes after it. `Meta` is told by
/// [`super::Input::Persisted`] when it is durable; what depends on it is not sent earlier.
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
    pub(super) snapshot: Option<Snapshot>,
    // Entries before this one are gone.
    pub(super) first: u64,
    pub(super) hard: Option<HardState>,
    pub(super) entries: Vec<Entry>,
    pub(super) grant: Option<Option<Grant>>,
}

/// What the disk has: all [`Persist`] that are durable, one after the other. A node that starts anew gives it back.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Stored {
    pub(super) cluster: Option<ClusterId>,
    pub(super) snapshot: Option<Snapshot>,
    pub(super) hard: HardState,
    pub(super) entries: Vec<Entry>,
    pub(super) grant: Option<Grant>,
}

impl Stored {
    /// Adds what has become durable.
    pub fn apply(&mut self, persist: &Persist) {
        if persist.reset {
            *self = Stored::default();
        }
        self.cluster = persist.cluster.or(self.cluster);
        if let Some(grant) = persist.grant {
            self.grant = grant;
        }
        if let Some(snapshot) = &persist.snapshot {
            self.snapshot = Some(snapshot.clone());
        }
        self.entries.retain(|entry| entry.index >= persist.first);
        if let Some(first) = persist.entries.first() {
            self.entries.retain(|entry| entry.index < first.index);
            self.entries.extend_from_slice(&persist.entries);
        }
        if let Some(hard) = &persist.hard {
            self.hard = hard.clone();
        }
    }

    /// All of it in one, with which a shorter log may begin.
    #[must_use]
    pub fn whole(&self) -> Persist {
        Persist {
            number: 0,
            sync: true,
            reset: true,
            cluster: self.cluster,
            snapshot: self.snapshot.clone(),
            first: self.entries.first().map_or(0, |entry| entry.index),
            hard: Some(self.hard.clone()),
            entries: self.entries.clone(),
            grant: Some(self.grant),
        }
    }

    /// Whether the node belongs to a cluster.
    #[must_use]
    pub fn is_blank(&self) -> bool {
        self.cluster.is_none()
    }
}

impl Persist {
    /// Appends it. The number is of one start only, and left out.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let has = u8::from(self.reset)
            | u8::from(self.cluster.is_some()) << 1
            | u8::from(self.snapshot.is_some()) << 2
            | u8::from(self.hard.is_some()) << 3
            | u8::from(self.grant.is_some()) << 4
            | u8::from(self.grant.flatten().is_some()) << 5;
        Put(out).byte(has).number(self.first);
        if let Some(cluster) = self.cluster {
            Put(out).number(cluster.0);
        }
        if let Some(snapshot) = &self.snapshot {
            wire::put_snapshot(snapshot, out);
        }
        if let Some(hard) = &self.hard {
            wire::put_hard(hard, out);
        }
        if let Some(Some(grant)) = self.grant {
            Put(out).number(grant.founder.0).number(grant.inc.0).number(grant.attempt);
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
        let mut persist = Persist { reset: has & 1 != 0, first: take.number()?, ..Persist::default() };
        if has & 2 != 0 {
            persist.cluster = Some(ClusterId(take.number()?));
        }
        if has & 4 != 0 {
            persist.snapshot = Some(wire::take_snapshot(&mut take)?);
        }
        if has & 8 != 0 {
            persist.hard = Some(wire::take_hard(&mut take)?);
        }
        if has & 32 != 0 {
            let (founder, inc) = (NodeId(take.number()?), Incarnation(take.number()?));
            persist.grant = Some(Some(Grant { founder, inc, attempt: take.number()? }));
        } else if has & 16 != 0 {
            persist.grant = Some(None);
        }
        for _ in 0..take.count()? {
            persist.entries.push(wire::take_entry(&mut take)?);
        }
        take.end()?;
        Ok(persist)
    }
}

/// What raft-rs reads: written at once, durable later.
#[derive(Debug, Default)]
pub(super) struct Log {
    hard: HardState,
    conf: ConfState,
    snapshot: Snapshot,
    // Index and term of the last entry that is gone.
    gone: (u64, u64),
    entries: Vec<Entry>,
}

impl Log {
    /// What a start found. Something that cannot be is said, and nothing is guessed.
    pub(super) fn restored(stored: &Stored) -> Result<Log, InvalidField> {
        let snapshot = stored.snapshot.clone().unwrap_or_default();
        let (index, term) = (snapshot.get_metadata().index, snapshot.get_metadata().term);
        // Entries that the snapshot covers are left out, for the term of the one before them is not known.
        let entries: Vec<Entry> = stored.entries.iter().filter(|entry| entry.index > index).cloned().collect();
        let is_whole = entries.iter().zip(index + 1..).all(|(entry, place)| entry.index == place);
        let last = entries.last().map_or(index, |entry| entry.index);
        if !is_whole || last < stored.hard.commit {
            return Err(InvalidField("entries of the log are missing"));
        }
        let hard = HardState { commit: stored.hard.commit.max(index), ..stored.hard.clone() };
        let conf = snapshot.get_metadata().get_conf_state().clone();
        Ok(Log { hard, conf, snapshot, gone: (index, term), entries })
    }

    pub(super) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        let keep = (first.index - self.gone.0 - 1) as usize;
        assert!(keep <= self.entries.len(), "the log has no gap");
        self.entries.truncate(keep);
        self.entries.extend_from_slice(entries);
    }

    pub(super) fn hard(&self) -> &HardState {
        &self.hard
    }

    pub(super) fn set_hard(&mut self, hard: HardState) {
        self.hard = hard;
    }

    pub(super) fn set_conf(&mut self, mut conf: ConfState) {
        // raft-rs keeps them in the order of its hashes.
        for nodes in [&mut conf.voters, &mut conf.learners, &mut conf.voters_outgoing, &mut conf.learners_next] {
            nodes.sort_unstable();
        }
        self.conf = conf;
    }

    /// Whether one configuration is on its way into another.
    pub(super) fn is_joint(&self) -> bool {
        !self.conf.voters_outgoing.is_empty()
    }

    pub(super) fn conf(&self) -> &ConfState {
        &self.conf
    }

    /// Another node's snapshot instead of the whole log.
    pub(super) fn install(&mut self, snapshot: Snapshot) {
        let metadata = snapshot.get_metadata();
        self.gone = (metadata.index, metadata.term);
        self.conf = metadata.get_conf_state().clone();
        self.hard.commit = self.hard.commit.max(metadata.index);
        self.hard.term = self.hard.term.max(metadata.term);
        self.entries.clear();
        self.snapshot = snapshot;
    }

    /// A snapshot of our own, at an entry that is applied.
    pub(super) fn set_snapshot(&mut self, index: u64, data: Vec<u8>) {
        let term = self.term(index).expect("the entry that was just applied is there");
        let mut snapshot = Snapshot { data: data.into(), ..Snapshot::default() };
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (index, term);
        metadata.set_conf_state(self.conf.clone());
        self.snapshot = snapshot;
    }

    pub(super) fn last_snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Forgets entries before `first`, which the snapshot covers.
    pub(super) fn compact(&mut self, first: u64) {
        let first = first.min(self.snapshot.get_metadata().index + 1);
        if first <= self.gone.0 + 1 {
            return;
        }
        let count = (first - self.gone.0 - 1) as usize;
        let term = self.entries[count - 1].term;
        self.entries.drain(..count);
        self.gone = (first - 1, term);
    }

    pub(super) fn first(&self) -> u64 {
        self.gone.0 + 1
    }

    pub(super) fn last(&self) -> u64 {
        self.gone.0 + self.entries.len() as u64
    }
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard.clone(), self.conf.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.first() {
            return Err(StorageError::Compacted.into());
        }
        if high > self.last() + 1 {
            return Err(StorageError::Unavailable.into());
        }
        let [low, high] = [low, high].map(|index| (index - self.gone.0 - 1) as usize);
        let mut entries = self.entries[low..high].to_vec();
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.gone.0 {
            return Ok(self.gone.1);
        }
        if index < self.gone.0 {
            return Err(StorageError::Compacted.into());
        }
        let entry = self.entries.get((index - self.gone.0 - 1) as usize).ok_or(StorageError::Unavailable)?;
        Ok(entry.term)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.first())
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        if self.snapshot.get_metadata().index < request_index {
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        Ok(self.snapshot.clone())
    }
}
