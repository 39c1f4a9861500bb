//! The state as bytes of a snapshot, and what a command touched.

use newtmq_base::{InvalidField, NodeId, Put, Take};

use super::super::command::{self, Blob, BlobKind, Command, RemovedBy};
use super::{ClusterId, MetaState, Removed, RetainedGroup};

impl MetaState {
    /// Appends the whole state.
    pub fn encode(&self, out: &mut Vec<u8>) {
        Put(out).byte(VERSION).number(self.cluster.0).text(&self.name).number(self.index);
        Put(out).number(self.hash).number(self.acl_version).number(u64::from(self.feature_level));
        Put(out).number(self.members.len() as u64);
        for member in self.members.values() {
            member.put(out);
        }
        command::put_nodes(&self.voters, out);
        Put(out).number(self.removed.len() as u64);
        for (node, removed) in &self.removed {
            Put(out).number(node.0).byte(removed.by.byte()).number(removed.index).number(removed.birth);
        }
        Put(out).number(self.config.len() as u64);
        for (key, value) in &self.config {
            Put(out).text(key).bytes(value);
        }
        Put(out).number(self.blobs.len() as u64);
        for ((kind, key), blob) in &self.blobs {
            Put(out).byte(kind.byte()).text(key).number(blob.version).bytes(&blob.value);
        }
        let RetainedGroup { generation, founder, index } = self.retained;
        Put(out).number(generation).number(founder.0).number(index);
    }

    /// Reads what [`MetaState::encode`] wrote.
    ///
    /// # Errors
    /// A field is wrong, or of a later version.
    pub fn decode(bytes: &[u8]) -> Result<MetaState, InvalidField> {
        let mut take = Take(bytes);
        let version = take.byte()?;
        if !(VERSION_MIN..=VERSION).contains(&version) {
            return Err(InvalidField("a snapshot of another version"));
        }
        let mut state = MetaState {
            cluster: ClusterId(take.number()?),
            name: take.text()?.to_owned(),
            index: take.number()?,
            hash: take.number()?,
            acl_version: take.number()?,
            feature_level: take.number32()?,
            ..MetaState::default()
        };
        for _ in 0..take.count()? {
            let member = command::Member::take(&mut take)?;
            state.members.insert(member.node, member);
        }
        state.voters = command::take_nodes(&mut take)?;
        for _ in 0..take.count()? {
            let node = NodeId(take.number()?);
            let (by, index) = (RemovedBy::from_byte(take.byte()?)?, take.number()?);
            let removed = Removed { by, index, birth: if version >= WITH_BIRTHS { take.number()? } else { 0 } };
            state.removed.insert(node, removed);
        }
        for _ in 0..take.count()? {
            let key = take.text()?.to_owned();
            state.config.insert(key, take.bytes()?.to_vec());
        }
        for _ in 0..take.count()? {
            let place = (BlobKind::from_byte(take.byte()?)?, take.text()?.to_owned());
            let blob = Blob { version: take.number()?, value: take.bytes()?.to_vec() };
            *state.bytes_of(place.0) += (blob.value.len() + place.1.len()) as u64;
            state.blobs.insert(place, blob);
        }
        if version >= WITH_RETAINED {
            let (generation, founder) = (take.number()?, NodeId(take.number()?));
            state.retained = RetainedGroup { generation, founder, index: take.number()? };
        }
        take.end()?;
        Ok(state)
    }

    // What the hash of an apply covers besides the command: the records as they are afterwards.
    pub(super) fn put_touched(&self, command: &Command, out: &mut Vec<u8>) {
        let node = match command {
            Command::AddMember(member) | Command::UpdateMember(member) => Some(member.node),
            Command::RemoveMember { node, .. } | Command::Readmit { node } | Command::StayOut { node } => Some(*node),
            Command::Voters(_)
            | Command::SetConfig { .. }
            | Command::PutBlob { .. }
            | Command::RenewRetained { .. }
            | Command::FinalizeFeatureLevel { .. } => None,
        };
        if let Some(member) = node.and_then(|node| self.members.get(&node)) {
            member.put(out);
        }
        command::put_nodes(&self.voters, out);
        Put(out).number(self.members.len() as u64).number(self.removed.len() as u64);
        Put(out).number(self.config.len() as u64).number(self.blobs.len() as u64);
        Put(out).number(self.blob_bytes).number(self.acl_version).number(u64::from(self.feature_level));
    }
}

const VERSION: u8 = 3;
const VERSION_MIN: u8 = 1;
// Since this one it says which data directory a removed node had.
const WITH_BIRTHS: u8 = 2;
// Since this one it says which group of retained messages there is. Before there was none to begin anew.
const WITH_RETAINED: u8 = 3;
