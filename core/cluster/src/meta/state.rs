//! What the group agrees on: a value that commands change, the same way on every node. Pure: no clock, no chance, no order
//! of hashing.

mod codec;

use std::collections::{BTreeMap, BTreeSet};

use newtmq_base::{Incarnation, NodeId, planted};

use super::command::{Blob, BlobKind, Command, Member, Rejected, RemovedBy};

/// A cluster: chosen by chance when it was founded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ClusterId(pub u64);

/// What a member is to the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// It votes and may lead.
    Voter,
    /// It follows.
    Learner,
    /// It takes no clients, votes when it is needed, and leads for no longer than it takes to pass on what it alone knows.
    Witness,
}

/// That a node is no member any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Removed {
    /// By whom.
    pub by: RemovedBy,
    /// Index of the log's entry.
    pub index: u64,
    /// The data directory that it had; 0 is not known, of a snapshot that an earlier version made.
    pub birth: u64,
}

/// The group that decides about retained messages. There is a new one when the last has lost its quorum for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetainedGroup {
    /// Counts them, from 0.
    pub generation: u64,
    /// Who it has begun with. Of the first one it is the founder of the cluster, and this is 0.
    pub founder: NodeId,
    /// Index of the log's entry by which it was to begin; 0 of the first one.
    pub index: u64,
}

impl Default for RetainedGroup {
    fn default() -> RetainedGroup {
        RetainedGroup { generation: 0, founder: NodeId(0), index: 0 }
    }
}

/// Members, configuration, users and rules at one index of the log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MetaState {
    pub(super) cluster: ClusterId,
    pub(super) name: String,
    pub(super) index: u64,
    pub(super) hash: u64,
    pub(super) members: BTreeMap<NodeId, Member>,
    pub(super) voters: BTreeSet<NodeId>,
    pub(super) removed: BTreeMap<NodeId, Removed>,
    pub(super) config: BTreeMap<String, Vec<u8>>,
    pub(super) blobs: BTreeMap<(BlobKind, String), Blob>,
    pub(super) blob_bytes: u64,
    /// The same of wills, which have a limit of their own.
    pub(super) will_bytes: u64,
    pub(super) acl_version: u64,
    pub(super) feature_level: u32,
    pub(super) retained: RetainedGroup,
}

impl MetaState {
    /// A cluster of one, which votes.
    #[must_use]
    pub(super) fn founded(cluster: ClusterId, name: String, founder: Member) -> MetaState {
        let mut state = MetaState { cluster, name, index: 1, ..MetaState::default() };
        state.feature_level = founder.feature_max;
        state.voters.insert(founder.node);
        state.hash = mixed(cluster.0, &[]);
        state.members.insert(founder.node, founder);
        state
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Its name for people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Index of the entry that was applied last.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Of all that was applied, and what it made. Two nodes with the same index have the same (W2).
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// Who belongs to the cluster.
    #[must_use]
    pub fn members(&self) -> &BTreeMap<NodeId, Member> {
        &self.members
    }

    /// Who votes, witnesses among them.
    #[must_use]
    pub fn voters(&self) -> &BTreeSet<NodeId> {
        &self.voters
    }

    /// Who belonged to it, the latest [`REMOVED_MAX`].
    #[must_use]
    pub fn removed(&self) -> &BTreeMap<NodeId, Removed> {
        &self.removed
    }

    /// What a member is to the group.
    #[must_use]
    pub fn role(&self, node: NodeId) -> Option<Role> {
        let member = self.members.get(&node)?;
        Some(match (member.witness, self.voters.contains(&node)) {
            (true, _) => Role::Witness,
            (false, true) => Role::Voter,
            (false, false) => Role::Learner,
        })
    }

    /// Configuration of the whole cluster.
    #[must_use]
    pub fn config(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.config
    }

    /// Rules, users, banned.
    #[must_use]
    pub fn blobs(&self) -> &BTreeMap<(BlobKind, String), Blob> {
        &self.blobs
    }

    /// Rises with each change of a rule, a user or a ban: whoever caches decisions of theirs drops them.
    #[must_use]
    pub fn acl_version(&self) -> u64 {
        self.acl_version
    }

    /// What every member understands, as it was finalized last.
    #[must_use]
    pub fn feature_level(&self) -> u32 {
        self.feature_level
    }

    /// The group that decides about retained messages.
    #[must_use]
    pub fn retained(&self) -> RetainedGroup {
        self.retained
    }

    /// Whether that group begins with a node. One that has come back since, or has another id, does not know what the group
    /// knew.
    #[must_use]
    pub fn founds_retained(&self, node: NodeId) -> bool {
        let RetainedGroup { generation, founder, index } = self.retained;
        self.members.get(&node).is_some_and(|member| match generation {
            0 => member.joined == FOUNDED,
            _ => founder == node && member.joined < index,
        })
    }

    /// Applies the entry at `index`, which must be the next one; `None` is an entry of Raft's own. `raw` are all its bytes.
    ///
    /// # Errors
    /// The command changes nothing, and says why.
    pub(super) fn apply(&mut self, index: u64, raw: &[u8], command: Option<&Command>) -> Result<(), Rejected> {
        assert_eq!(index, self.index + 1, "entries are applied one after the other");
        self.index = index;
        let result = command.map_or(Ok(()), |command| self.change(index, command));
        let mut seen = raw.to_vec();
        seen.push(u8::from(result.is_ok()));
        if let Some(command) = command {
            self.put_touched(command, &mut seen);
        }
        self.hash = mixed(mixed(self.hash, &index.to_le_bytes()), &seen);
        result
    }

    fn change(&mut self, index: u64, command: &Command) -> Result<(), Rejected> {
        match command {
            Command::AddMember(member) if self.members.contains_key(&member.node) => Err(Rejected::Member),
            Command::UpdateMember(member) if !self.members.contains_key(&member.node) => Err(Rejected::NoSuchNode),
            Command::AddMember(member) | Command::UpdateMember(member) => self.add(index, member),
            Command::Voters(voters) => {
                self.check_voters(voters, None)?;
                self.voters.clone_from(voters);
                Ok(())
            }
            Command::RemoveMember { node, by, voters } => self.remove(index, *node, *by, voters),
            // Now it is as one that was down for too long, which comes back by itself.
            Command::Readmit { node } => {
                let removed = self.removed.get_mut(node).filter(|removed| removed.by == RemovedBy::Force);
                removed.ok_or(Rejected::NoSuchNode)?.by = RemovedBy::Autoclean;
                Ok(())
            }
            Command::StayOut { node } => {
                let removed = self.removed.get_mut(node).filter(|removed| removed.by == RemovedBy::Autoclean);
                removed.ok_or(Rejected::NoSuchNode)?.by = RemovedBy::Leave;
                Ok(())
            }
            Command::SetConfig { key, value } => self.set_config(key, value.as_deref()),
            Command::PutBlob { kind, key, value, expected } => self.put_blob(*kind, key, value.as_deref(), *expected),
            Command::FinalizeFeatureLevel { level } => {
                let understood = self.members.values().map(|member| member.feature_max).min().unwrap_or(0);
                if *level < self.feature_level || *level > understood {
                    return Err(Rejected::FeatureLevel);
                }
                self.feature_level = *level;
                Ok(())
            }
            Command::RenewRetained { generation, founder } => {
                let may_lead = self.members.get(founder).is_some_and(|member| !member.witness);
                if *generation != self.retained.generation + 1 || !may_lead {
                    return Err(Rejected::Generation);
                }
                self.retained = RetainedGroup { generation: *generation, founder: *founder, index };
                Ok(())
            }
        }
    }

    // A new member begins as a learner.
    fn add(&mut self, index: u64, member: &Member) -> Result<(), Rejected> {
        self.admits(member)?;
        self.takes(member)?;
        let joined = self.members.get(&member.node).map_or(index, |known| known.joined);
        self.removed.remove(&member.node);
        self.members.insert(member.node, Member { joined, ..member.clone() });
        Ok(())
    }

    /// Whether its program is new enough, and there is room for it.
    pub(super) fn takes(&self, member: &Member) -> Result<(), Rejected> {
        if member.feature_max < self.feature_level {
            return Err(Rejected::FeatureLevel);
        }
        if self.members.len() >= MEMBERS_MAX && !self.members.contains_key(&member.node) {
            return Err(Rejected::TooMuch);
        }
        Ok(())
    }

    /// Whether this node may be a member as it says that it is, whatever its role. A node that was removed by an operator
    /// may not before it is readmitted; one with a known id and another data directory never.
    pub(super) fn admits(&self, member: &Member) -> Result<(), Rejected> {
        if self.removed.get(&member.node).is_some_and(|removed| removed.by == RemovedBy::Force)
            && !planted!(ForcedOutComesBack)
        {
            return Err(Rejected::ForcedOut);
        }
        match self.members.get(&member.node) {
            Some(known) if known.birth != member.birth && !planted!(WipedDiskKeepsId) => Err(Rejected::OtherDisk),
            Some(known) if known.inc > member.inc => Err(Rejected::LowerIncarnation),
            Some(known) if known.witness != member.witness => Err(Rejected::Voters),
            Some(_) | None => Ok(()),
        }
    }

    fn remove(&mut self, index: u64, node: NodeId, by: RemovedBy, voters: &BTreeSet<NodeId>) -> Result<(), Rejected> {
        if !self.members.contains_key(&node) {
            return Err(Rejected::NoSuchNode);
        }
        self.check_voters(voters, Some(node))?;
        let birth = self.members.remove(&node).map_or(0, |member| member.birth);
        self.voters.clone_from(voters);
        self.removed.insert(node, Removed { by, index, birth });
        if self.removed.len() > REMOVED_MAX {
            let oldest = self.removed.iter().min_by_key(|(_, removed)| removed.index).map(|(node, _)| *node);
            oldest.map(|node| self.removed.remove(&node));
        }
        Ok(())
    }

    fn check_voters(&self, voters: &BTreeSet<NodeId>, without: Option<NodeId>) -> Result<(), Rejected> {
        let members = voters.iter().all(|voter| self.members.contains_key(voter) && Some(*voter) != without);
        let leaders = voters.iter().any(|voter| self.members.get(voter).is_some_and(|member| !member.witness));
        if members && leaders && voters.len() % 2 == 1 { Ok(()) } else { Err(Rejected::Voters) }
    }

    fn set_config(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), Rejected> {
        let Some(value) = value else {
            return self.config.remove(key).map(|_| ()).ok_or(Rejected::NoSuchKey);
        };
        let full = self.config.len() >= CONFIG_KEYS_MAX && !self.config.contains_key(key);
        if full || key.len() > KEY_BYTES_MAX || value.len() > VALUE_BYTES_MAX {
            return Err(Rejected::TooMuch);
        }
        self.config.insert(key.to_owned(), value.to_vec());
        Ok(())
    }

    fn put_blob(
        &mut self,
        kind: BlobKind,
        key: &str,
        value: Option<&[u8]>,
        expected: Option<u64>,
    ) -> Result<(), Rejected> {
        let place = (kind, key.to_owned());
        let (version, old_bytes) =
            self.blobs.get(&place).map_or((0, 0), |blob| (blob.version, (blob.value.len() + key.len()) as u64));
        if expected.is_some_and(|expected| expected != version) {
            return Err(Rejected::Version);
        }
        match value {
            None if version == 0 => return Err(Rejected::NoSuchKey),
            None => {
                self.blobs.remove(&place);
                *self.bytes_of(kind) -= old_bytes;
            }
            Some(value) => {
                let max = if kind == BlobKind::Will { WILL_BYTES_MAX } else { BLOB_BYTES_MAX };
                let bytes = *self.bytes_of(kind) - old_bytes + (value.len() + key.len()) as u64;
                if key.len() > KEY_BYTES_MAX || value.len() > VALUE_BYTES_MAX || bytes > max {
                    return Err(Rejected::TooMuch);
                }
                *self.bytes_of(kind) = bytes;
                // Of all blobs together, so that one that is deleted and made again has another one.
                self.acl_version += 1;
                self.blobs.insert(place, Blob { version: self.acl_version, value: value.to_vec() });
                return Ok(());
            }
        }
        self.acl_version += 1;
        Ok(())
    }

    pub(super) fn bytes_of(&mut self, kind: BlobKind) -> &mut u64 {
        match kind {
            BlobKind::Acl | BlobKind::User | BlobKind::Banned => &mut self.blob_bytes,
            BlobKind::Will => &mut self.will_bytes,
        }
    }

    /// The data directory that a member has, or had when it was removed: as long as those who vote change, who goes is asked
    /// for its vote.
    pub(super) fn birth(&self, node: NodeId) -> Option<u64> {
        let member = self.members.get(&node).map(|member| member.birth);
        let removed = self.removed.get(&node).map(|removed| removed.birth);
        member.or(removed.filter(|birth| *birth != 0 && !planted!(RemovedIsNobody)))
    }

    /// The start of a member, if it is one.
    #[must_use]
    pub fn incarnation(&self, node: NodeId) -> Option<Incarnation> {
        self.members.get(&node).map(|member| member.inc)
    }
}

// FNV-1a: nobody is to be fooled by it, only nodes that went apart are to be seen.
fn mixed(mut hash: u64, bytes: &[u8]) -> u64 {
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3);
    }
    hash ^ 0x9E37_79B9_7F4A_7C15
}

// Index of the state with which a cluster begins.
const FOUNDED: u64 = 1;

// Limits that decide what a command does are the same on every node, so that they are no configuration.

/// Most members.
pub const MEMBERS_MAX: usize = 1024;
/// Most removed nodes that are remembered; the earliest is forgotten first.
pub const REMOVED_MAX: usize = 1024;
/// Most keys of the configuration.
pub const CONFIG_KEYS_MAX: usize = 4096;
/// Longest key in bytes.
pub const KEY_BYTES_MAX: usize = 512;
/// Longest value in bytes.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Most bytes of all rules, users and bans.
pub const BLOB_BYTES_MAX: u64 = 64 << 20;
/// Most bytes of all wills.
pub const WILL_BYTES_MAX: u64 = 16 << 20;

#[cfg(test)]
mod tests;
