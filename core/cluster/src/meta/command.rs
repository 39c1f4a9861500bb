//! What the group can be told to do, and the records that it is about.

use std::collections::BTreeSet;

use newtmq_base::{Incarnation, InvalidField, NodeId, Put, Take};

/// A node of the cluster, as it says that it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// Minted with the data directory.
    pub node: NodeId,
    /// Minted with the data directory too, and never written anywhere else: an id that comes with another one has lost its
    /// disk, and with it what it had voted for.
    pub birth: u64,
    /// Its start.
    pub inc: Incarnation,
    /// Name for people, such as `emqx@host`.
    pub name: String,
    /// Where its links are accepted, host and port.
    pub address: String,
    /// Whether it is there to vote only.
    pub witness: bool,
    /// The highest feature level that it understands.
    pub feature_max: u32,
    /// Index of the entry by which it became a member; 0 until then.
    pub joined: u64,
}

/// Why a node is no member any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RemovedBy {
    /// It asked for it. It may come back when it is told to.
    Leave,
    /// An operator removed it while it was down. Only an operator brings it back.
    Force,
    /// It was down for too long. It comes back by itself.
    Autoclean,
}

/// A table of opaque values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BlobKind {
    /// Rules of access.
    Acl,
    /// Users and what proves them.
    User,
    /// Who is banned.
    Banned,
    /// Wills that outlive their node.
    Will,
}

/// An opaque value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Rises with each change of it; from 1.
    pub version: u64,
    /// Its bytes.
    pub value: Vec<u8>,
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A node becomes a member, as a learner.
    AddMember(Member),
    /// A member says what has changed about it.
    UpdateMember(Member),
    /// From now on these vote: an odd number of members.
    Voters(BTreeSet<NodeId>),
    /// A member is one no more, and these vote.
    RemoveMember {
        /// The member.
        node: NodeId,
        /// Why.
        by: RemovedBy,
        /// Who votes afterwards.
        voters: BTreeSet<NodeId>,
    },
    /// A node that an operator removed may come back.
    Readmit {
        /// The node.
        node: NodeId,
    },
    /// A node that was down for too long, and so is no member, does not want to come back either.
    StayOut {
        /// The node.
        node: NodeId,
    },
    /// A key of the configuration is set, or deleted.
    SetConfig {
        /// The key.
        key: String,
        /// The value; `None` deletes.
        value: Option<Vec<u8>>,
    },
    /// An opaque value is written, or deleted.
    PutBlob {
        /// Its table.
        kind: BlobKind,
        /// Its key.
        key: String,
        /// The value; `None` deletes.
        value: Option<Vec<u8>>,
        /// Only if this is its version; 0 is one that there is not.
        expected: Option<u64>,
    },
    /// Everybody is to use what belongs to this feature level.
    FinalizeFeatureLevel {
        /// The level: not lower than the one before, and understood by every member.
        level: u32,
    },
    /// The group of retained messages has lost its quorum for good: it begins anew.
    RenewRetained {
        /// Counts them; the one after the last.
        generation: u64,
        /// Who it begins with.
        founder: NodeId,
    },
}

/// Why a command changed nothing. It is in the log all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Rejected {
    /// It is a member already.
    #[error("the node is a member already")]
    Member,
    /// No member or removed node has this id.
    #[error("there is no such node")]
    NoSuchNode,
    /// There is no such key.
    #[error("there is no such key")]
    NoSuchKey,
    /// The id is that of a member with another data directory. A node that has lost its disk needs a new id.
    #[error("this id belongs to a member with another data directory; a node without its disk needs a new id")]
    OtherDisk,
    /// A later start of this node is known.
    #[error("a later start of this node is known")]
    LowerIncarnation,
    /// An operator has removed the node.
    #[error("an operator has removed this node; only an operator can readmit it")]
    ForcedOut,
    /// These cannot be the voters.
    #[error("these nodes cannot be the voters")]
    Voters,
    /// A limit is reached.
    #[error("a limit is reached")]
    TooMuch,
    /// The value has changed meanwhile.
    #[error("the value has another version")]
    Version,
    /// Not every member understands this feature level, or the finalized one is higher.
    #[error("not every member understands this feature level, or a higher one is in use")]
    FeatureLevel,
    /// The group of retained messages has begun anew already, or cannot begin with this node.
    #[error("the group of retained messages has begun anew already")]
    Generation,
}

/// Why bytes of the log are no command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotACommand {
    /// Its kind is of a later version.
    Unknown(u8),
    /// Its fields are wrong.
    Invalid(InvalidField),
}

impl From<InvalidField> for NotACommand {
    fn from(invalid: InvalidField) -> NotACommand {
        NotACommand::Invalid(invalid)
    }
}

impl Command {
    /// Appends it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Command::AddMember(member) => {
                out.push(1);
                member.put(out);
            }
            Command::UpdateMember(member) => {
                out.push(9);
                member.put(out);
            }
            Command::Voters(voters) => {
                out.push(2);
                put_nodes(voters, out);
            }
            Command::RemoveMember { node, by, voters } => {
                Put(out).byte(3).number(node.0).byte(by.byte());
                put_nodes(voters, out);
            }
            Command::Readmit { node } => {
                Put(out).byte(4).number(node.0);
            }
            Command::StayOut { node } => {
                Put(out).byte(8).number(node.0);
            }
            Command::SetConfig { key, value } => {
                Put(out).byte(5).text(key);
                put_option(value.as_deref(), out);
            }
            Command::PutBlob { kind, key, value, expected } => {
                Put(out).byte(6).byte(kind.byte()).text(key).flag(expected.is_some()).number(expected.unwrap_or(0));
                put_option(value.as_deref(), out);
            }
            Command::FinalizeFeatureLevel { level } => {
                Put(out).byte(7).number(u64::from(*level));
            }
            Command::RenewRetained { generation, founder } => {
                Put(out).byte(10).number(*generation).number(founder.0);
            }
        }
    }

    /// Reads one that is all of `bytes`.
    pub(super) fn decode(bytes: &[u8]) -> Result<Command, NotACommand> {
        let mut take = Take(bytes);
        let command = match take.byte()? {
            1 => Command::AddMember(Member::take(&mut take)?),
            2 => Command::Voters(take_nodes(&mut take)?),
            3 => Command::RemoveMember {
                node: NodeId(take.number()?),
                by: RemovedBy::from_byte(take.byte()?)?,
                voters: take_nodes(&mut take)?,
            },
            4 => Command::Readmit { node: NodeId(take.number()?) },
            5 => Command::SetConfig { key: take.text()?.to_owned(), value: take_option(&mut take)? },
            6 => {
                let (kind, key) = (BlobKind::from_byte(take.byte()?)?, take.text()?.to_owned());
                let (is_expected, version) = (take.flag()?, take.number()?);
                let value = take_option(&mut take)?;
                Command::PutBlob { kind, key, value, expected: is_expected.then_some(version) }
            }
            7 => Command::FinalizeFeatureLevel { level: take.number32()? },
            8 => Command::StayOut { node: NodeId(take.number()?) },
            9 => Command::UpdateMember(Member::take(&mut take)?),
            10 => Command::RenewRetained { generation: take.number()?, founder: NodeId(take.number()?) },
            kind => return Err(NotACommand::Unknown(kind)),
        };
        take.end()?;
        Ok(command)
    }
}

impl Member {
    /// Appends it.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        Put(out).number(self.node.0).number(self.birth).number(self.inc.0).text(&self.name).text(&self.address);
        Put(out).flag(self.witness).number(u64::from(self.feature_max)).number(self.joined);
    }

    /// Reads one.
    pub(super) fn take(take: &mut Take<'_>) -> Result<Member, InvalidField> {
        Ok(Member {
            node: NodeId(take.number()?),
            birth: take.number()?,
            inc: Incarnation(take.number()?),
            name: take.text()?.to_owned(),
            address: take.text()?.to_owned(),
            witness: take.flag()?,
            feature_max: take.number32()?,
            joined: take.number()?,
        })
    }

    /// Whether it says the same about itself, whenever it joined.
    pub(super) fn says_the_same(&self, other: &Member) -> bool {
        Member { joined: other.joined, ..self.clone() } == *other
    }
}

impl RemovedBy {
    pub(super) fn byte(self) -> u8 {
        match self {
            RemovedBy::Leave => 0,
            RemovedBy::Force => 1,
            RemovedBy::Autoclean => 2,
        }
    }

    pub(super) fn from_byte(byte: u8) -> Result<RemovedBy, InvalidField> {
        match byte {
            0 => Ok(RemovedBy::Leave),
            1 => Ok(RemovedBy::Force),
            2 => Ok(RemovedBy::Autoclean),
            _ => Err(InvalidField("no reason of a removal")),
        }
    }
}

impl BlobKind {
    pub(super) fn byte(self) -> u8 {
        match self {
            BlobKind::Acl => 0,
            BlobKind::User => 1,
            BlobKind::Banned => 2,
            BlobKind::Will => 3,
        }
    }

    pub(super) fn from_byte(byte: u8) -> Result<BlobKind, InvalidField> {
        match byte {
            0 => Ok(BlobKind::Acl),
            1 => Ok(BlobKind::User),
            2 => Ok(BlobKind::Banned),
            3 => Ok(BlobKind::Will),
            _ => Err(InvalidField("no table")),
        }
    }
}

pub(super) fn put_nodes(nodes: &BTreeSet<NodeId>, out: &mut Vec<u8>) {
    Put(out).number(nodes.len() as u64);
    for node in nodes {
        Put(out).number(node.0);
    }
}

pub(super) fn take_nodes(take: &mut Take<'_>) -> Result<BTreeSet<NodeId>, InvalidField> {
    let count = take.count()?;
    let mut nodes = BTreeSet::new();
    for _ in 0..count {
        nodes.insert(NodeId(take.number()?));
    }
    Ok(nodes)
}

fn put_option(value: Option<&[u8]>, out: &mut Vec<u8>) {
    Put(out).flag(value.is_some());
    if let Some(value) = value {
        Put(out).bytes(value);
    }
}

fn take_option(take: &mut Take<'_>) -> Result<Option<Vec<u8>>, InvalidField> {
    Ok(if take.flag()? { Some(take.bytes()?.to_vec()) } else { None })
}
