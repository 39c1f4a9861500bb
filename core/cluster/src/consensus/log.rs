//! The log as raft-rs reads it back.

use newtmq_base::InvalidField;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

/// What raft-rs reads: written at once, durable later.
#[derive(Debug, Default)]
pub(crate) struct Log {
    hard: HardState,
    conf: ConfState,
    snapshot: Snapshot,
    // Index and term of the last entry that is gone.
    gone: (u64, u64),
    entries: Vec<Entry>,
    bytes: usize,
}

impl Log {
    /// What a start found. Something that cannot be is said, and nothing is guessed.
    pub(crate) fn restored(snapshot: Snapshot, hard: &HardState, entries: &[Entry]) -> Result<Log, InvalidField> {
        let (index, term) = (snapshot.get_metadata().index, snapshot.get_metadata().term);
        // Entries that the snapshot covers are left out, for the term of the one before them is not known.
        let entries: Vec<Entry> = entries.iter().filter(|entry| entry.index > index).cloned().collect();
        let is_whole = entries.iter().zip(index + 1..).all(|(entry, place)| entry.index == place);
        let last = entries.last().map_or(index, |entry| entry.index);
        if !is_whole || last < hard.commit {
            return Err(InvalidField("entries of the log are missing"));
        }
        let hard = HardState { commit: hard.commit.max(index), ..hard.clone() };
        let conf = snapshot.get_metadata().get_conf_state().clone();
        let bytes = entries.iter().map(bytes_of).sum();
        Ok(Log { hard, conf, snapshot, gone: (index, term), entries, bytes })
    }

    pub(crate) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        let keep = (first.index - self.gone.0 - 1) as usize;
        assert!(keep <= self.entries.len(), "the log has no gap");
        self.bytes -= self.entries[keep..].iter().map(bytes_of).sum::<usize>();
        self.bytes += entries.iter().map(bytes_of).sum::<usize>();
        self.entries.truncate(keep);
        self.entries.extend_from_slice(entries);
    }

    pub(crate) fn hard(&self) -> &HardState {
        &self.hard
    }

    pub(crate) fn set_hard(&mut self, hard: HardState) {
        self.hard = hard;
    }

    pub(crate) fn set_conf(&mut self, mut conf: ConfState) {
        // raft-rs keeps them in the order of its hashes.
        for nodes in [&mut conf.voters, &mut conf.learners, &mut conf.voters_outgoing, &mut conf.learners_next] {
            nodes.sort_unstable();
        }
        self.conf = conf;
    }

    /// Whether one configuration is on its way into another.
    pub(crate) fn is_joint(&self) -> bool {
        !self.conf.voters_outgoing.is_empty()
    }

    pub(crate) fn conf(&self) -> &ConfState {
        &self.conf
    }

    /// Another node's snapshot instead of the whole log.
    pub(crate) fn install(&mut self, snapshot: Snapshot) {
        let metadata = snapshot.get_metadata();
        self.gone = (metadata.index, metadata.term);
        self.conf = metadata.get_conf_state().clone();
        self.hard.commit = self.hard.commit.max(metadata.index);
        self.hard.term = self.hard.term.max(metadata.term);
        self.entries.clear();
        self.bytes = 0;
        self.snapshot = snapshot;
    }

    /// A snapshot of our own, at an entry that is applied.
    pub(crate) fn set_snapshot(&mut self, index: u64, data: Vec<u8>) {
        let term = self.term(index).expect("the entry that was just applied is there");
        let mut snapshot = Snapshot { data: data.into(), ..Snapshot::default() };
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (index, term);
        metadata.set_conf_state(self.conf.clone());
        self.snapshot = snapshot;
    }

    pub(crate) fn last_snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Forgets entries before `first`, which the snapshot covers.
    pub(crate) fn compact(&mut self, first: u64) {
        let first = first.min(self.snapshot.get_metadata().index + 1);
        if first <= self.gone.0 + 1 {
            return;
        }
        let count = (first - self.gone.0 - 1) as usize;
        let term = self.entries[count - 1].term;
        self.bytes -= self.entries.drain(..count).map(|entry| bytes_of(&entry)).sum::<usize>();
        self.gone = (first - 1, term);
    }

    pub(crate) fn first(&self) -> u64 {
        self.gone.0 + 1
    }

    pub(crate) fn last(&self) -> u64 {
        self.gone.0 + self.entries.len() as u64
    }

    /// What the entries have.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The first of the last entries that have no more than so many bytes.
    pub(crate) fn first_within(&self, bytes: usize) -> u64 {
        let mut left = bytes;
        let fit = self.entries.iter().rev().take_while(|entry| {
            let cost = bytes_of(entry);
            let fits = cost <= left;
            left -= cost.min(left);
            fits
        });
        self.last() + 1 - fit.count() as u64
    }

    /// The entries after this one.
    pub(crate) fn after(&self, index: u64) -> &[Entry] {
        let start = index.saturating_sub(self.gone.0) as usize;
        &self.entries[start.min(self.entries.len())..]
    }
}

fn bytes_of(entry: &Entry) -> usize {
    size_of::<Entry>() + entry.data.len() + entry.context.len()
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
