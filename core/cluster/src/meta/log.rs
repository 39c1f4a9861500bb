//! What the disk is to keep, and what a start finds there.

use newtmq_base::{Incarnation, InvalidField, NodeId, Put, Take};
use raft::eraftpb::{Entry, HardState, Snapshot};

use super::state::ClusterId;
use crate::consensus::wire;

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
    // Instead of that of the data directory.
    pub(super) birth: Option<u64>,
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
    // The node's own, if it is not that of the data directory any more. It outlives all else.
    pub(super) birth: Option<u64>,
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
            *self = Stored { birth: self.birth, ..Stored::default() };
        }
        self.birth = persist.birth.or(self.birth);
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
            birth: self.birth,
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
            | u8::from(self.grant.flatten().is_some()) << 5
            | u8::from(self.birth.is_some()) << 6;
        Put(out).byte(has).number(self.first);
        if let Some(birth) = self.birth {
            Put(out).number(birth);
        }
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
        if has & 64 != 0 {
            persist.birth = Some(take.number()?);
        }
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
