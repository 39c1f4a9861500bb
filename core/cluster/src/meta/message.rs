//! What nodes say to each other about the group.

use newtmq_base::{Incarnation, InvalidField, NodeId, Put, RequestId, Take};
use raft::eraftpb;

use super::command::{Command, Member, NotACommand, Rejected};
use super::state::ClusterId;
use crate::consensus::wire;

/// A message, whole: how it travels is for the links.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Message {
    /// Raft's, within a cluster, for the node that was born with this data directory, from one that was with that one.
    Raft { cluster: ClusterId, birth: u64, from_birth: u64, body: Box<eraftpb::Message> },
    /// What are you?
    Probe,
    /// What a node is.
    ProbeAnswer(Standing),
    /// Asks a seed without a cluster for its promise.
    FoundAsk { inc: Incarnation, attempt: u64 },
    /// Whether it is given.
    FoundAnswer { inc: Incarnation, attempt: u64, granted: bool },
    /// The promise is not needed any more.
    FoundRelease { inc: Incarnation, attempt: u64 },
    /// Asks to be a member, or says what has changed about one.
    Join { member: Member, cluster: Option<ClusterId>, explicit: bool },
    /// The answer.
    JoinAnswer { inc: Incarnation, answer: JoinAnswer },
    /// A member wants to go.
    Leave,
    /// It is no member any more.
    LeaveDone,
    /// Somebody at the sender asks the leader for something.
    Request { request: RequestId, asked: Asked },
    /// It does not do it.
    Refused { request: RequestId, refusal: Refusal },
}

/// What a node is to clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Blank,
    Member { cluster: ClusterId, leader: Option<NodeId> },
}

/// What a node that wants to join hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JoinAnswer {
    /// It is a member.
    Joined(ClusterId),
    /// The leader is another one.
    Redirect(NodeId),
    /// It is under way, or there is no leader; ask again.
    Wait,
    /// It will not become one.
    Refused(JoinRefusal),
}

/// Why a node does not become a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum JoinRefusal {
    /// The state refuses it.
    #[error("{0}")]
    Rejected(Rejected),
    /// It belongs to another cluster, of more than itself.
    #[error("the node belongs to another cluster")]
    OtherCluster,
    /// It has left this cluster, and nobody told it to come back.
    #[error("the node has left this cluster")]
    Left,
}

/// What the leader can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked {
    Write(Command),
    ForceLeave(NodeId),
}

/// Why something that was asked for is not done, or may not have been done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Refusal {
    /// The node is in no cluster.
    #[error("this node is in no cluster")]
    NoCluster,
    /// The node is in a cluster.
    #[error("this node is in a cluster already")]
    InCluster,
    /// No leader is known.
    #[error("the cluster has no leader")]
    NoLeader,
    /// No answer within [`super::Config::request_timeout`]: it may be done, or may not.
    #[error("no answer in time; it may have been done")]
    Timeout,
    /// Too many things are asked for at once.
    #[error("too many requests")]
    Busy,
    /// The command is not one that can be asked for.
    #[error("this cannot be asked for")]
    NotAllowed,
    /// The node that is to be removed is not down, or not for long enough.
    #[error("the node is not down for long enough")]
    NotDown,
    /// Less than a majority of the voters is up.
    #[error("less than a majority of the voters is up")]
    NoQuorum,
    /// It is the only member: there is nobody to leave it to.
    #[error("the only member cannot leave")]
    SoleMember,
    /// The node belongs to a cluster of more than itself: it has to leave first.
    #[error("this node is not alone in its cluster; it has to leave first")]
    NotAlone,
    /// A witness founds nothing.
    #[error("a witness cannot be alone")]
    Witness,
    /// The state refused it.
    #[error("{0}")]
    Rejected(Rejected),
    /// The cluster does not take the node.
    #[error("{0}")]
    Join(JoinRefusal),
}

impl Message {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Message::Raft { cluster, birth, from_birth, body } => {
                Put(out).byte(0).number(cluster.0).number(*birth).number(*from_birth);
                wire::put_message(body, out);
            }
            Message::Probe => out.push(1),
            Message::ProbeAnswer(Standing::Blank) => out.push(2),
            Message::ProbeAnswer(Standing::Member { cluster, leader }) => {
                Put(out).byte(3).number(cluster.0).flag(leader.is_some()).number(leader.map_or(0, |leader| leader.0));
            }
            Message::FoundAsk { inc, attempt } => {
                Put(out).byte(4).number(inc.0).number(*attempt);
            }
            Message::FoundAnswer { inc, attempt, granted } => {
                Put(out).byte(5).number(inc.0).number(*attempt).flag(*granted);
            }
            Message::FoundRelease { inc, attempt } => {
                Put(out).byte(6).number(inc.0).number(*attempt);
            }
            Message::Join { member, cluster, explicit } => {
                out.push(7);
                member.put(out);
                Put(out).flag(cluster.is_some()).number(cluster.map_or(0, |cluster| cluster.0)).flag(*explicit);
            }
            Message::JoinAnswer { inc, answer } => {
                Put(out).byte(8).number(inc.0);
                match answer {
                    JoinAnswer::Joined(cluster) => Put(out).byte(0).number(cluster.0),
                    JoinAnswer::Redirect(leader) => Put(out).byte(1).number(leader.0),
                    JoinAnswer::Wait => Put(out).byte(2),
                    JoinAnswer::Refused(JoinRefusal::OtherCluster) => Put(out).byte(3),
                    JoinAnswer::Refused(JoinRefusal::Left) => Put(out).byte(4),
                    JoinAnswer::Refused(JoinRefusal::Rejected(rejected)) => Put(out).byte(5).byte(rejected.byte()),
                };
            }
            Message::Leave => out.push(9),
            Message::LeaveDone => out.push(10),
            Message::Request { request, asked: Asked::Write(command) } => {
                Put(out).byte(11).number(request.0);
                command.encode(out);
            }
            Message::Request { request, asked: Asked::ForceLeave(node) } => {
                Put(out).byte(12).number(request.0).number(node.0);
            }
            Message::Refused { request, refusal } => {
                Put(out).byte(13).number(request.0).byte(refusal.byte());
            }
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Message, InvalidField> {
        let mut take = Take(bytes);
        let message = match take.byte()? {
            0 => {
                let (cluster, birth, from_birth) = (ClusterId(take.number()?), take.number()?, take.number()?);
                Message::Raft { cluster, birth, from_birth, body: Box::new(wire::take_message(&mut take)?) }
            }
            1 => Message::Probe,
            2 => Message::ProbeAnswer(Standing::Blank),
            3 => {
                let (cluster, is_led, leader) = (ClusterId(take.number()?), take.flag()?, NodeId(take.number()?));
                Message::ProbeAnswer(Standing::Member { cluster, leader: is_led.then_some(leader) })
            }
            4 => Message::FoundAsk { inc: Incarnation(take.number()?), attempt: take.number()? },
            5 => Message::FoundAnswer {
                inc: Incarnation(take.number()?),
                attempt: take.number()?,
                granted: take.flag()?,
            },
            6 => Message::FoundRelease { inc: Incarnation(take.number()?), attempt: take.number()? },
            7 => {
                let member = Member::take(&mut take)?;
                let (is_of, cluster) = (take.flag()?, ClusterId(take.number()?));
                Message::Join { member, cluster: is_of.then_some(cluster), explicit: take.flag()? }
            }
            8 => {
                let inc = Incarnation(take.number()?);
                Message::JoinAnswer {
                    inc,
                    answer: match take.byte()? {
                        0 => JoinAnswer::Joined(ClusterId(take.number()?)),
                        1 => JoinAnswer::Redirect(NodeId(take.number()?)),
                        2 => JoinAnswer::Wait,
                        3 => JoinAnswer::Refused(JoinRefusal::OtherCluster),
                        4 => JoinAnswer::Refused(JoinRefusal::Left),
                        5 => JoinAnswer::Refused(JoinRefusal::Rejected(Rejected::from_byte(take.byte()?)?)),
                        _ => return Err(InvalidField("no answer to a join")),
                    },
                }
            }
            9 => Message::Leave,
            10 => Message::LeaveDone,
            11 => {
                let request = RequestId(take.number()?);
                let command = Command::decode(take.0).map_err(|not| match not {
                    NotACommand::Unknown(_) => InvalidField("a command of another version"),
                    NotACommand::Invalid(invalid) => invalid,
                })?;
                return Ok(Message::Request { request, asked: Asked::Write(command) });
            }
            12 => Message::Request {
                request: RequestId(take.number()?),
                asked: Asked::ForceLeave(NodeId(take.number()?)),
            },
            13 => Message::Refused { request: RequestId(take.number()?), refusal: Refusal::from_byte(take.byte()?)? },
            _ => return Err(InvalidField("no kind of message")),
        };
        take.end()?;
        Ok(message)
    }
}

impl Rejected {
    fn byte(self) -> u8 {
        REJECTED.iter().position(|rejected| *rejected == self).expect("all are listed") as u8
    }

    fn from_byte(byte: u8) -> Result<Rejected, InvalidField> {
        REJECTED.get(usize::from(byte)).copied().ok_or(InvalidField("no reason of a rejection"))
    }
}

// Only what a leader says to a request: the other refusals are between a node and who asked it.
impl Refusal {
    fn byte(self) -> u8 {
        match self {
            Refusal::NoLeader => 0,
            Refusal::NotAllowed => 1,
            Refusal::NotDown => 2,
            Refusal::NoQuorum => 3,
            Refusal::Busy => 4,
            Refusal::Rejected(rejected) => 16 + rejected.byte(),
            Refusal::NoCluster
            | Refusal::InCluster
            | Refusal::Timeout
            | Refusal::SoleMember
            | Refusal::NotAlone
            | Refusal::Witness
            | Refusal::Join(_) => 5,
        }
    }

    fn from_byte(byte: u8) -> Result<Refusal, InvalidField> {
        match byte {
            0 => Ok(Refusal::NoLeader),
            1 => Ok(Refusal::NotAllowed),
            2 => Ok(Refusal::NotDown),
            3 => Ok(Refusal::NoQuorum),
            4 => Ok(Refusal::Busy),
            5 => Ok(Refusal::NoCluster),
            16.. => Ok(Refusal::Rejected(Rejected::from_byte(byte - 16)?)),
            _ => Err(InvalidField("no reason of a refusal")),
        }
    }
}

const REJECTED: [Rejected; 11] = [
    Rejected::Member,
    Rejected::NoSuchNode,
    Rejected::NoSuchKey,
    Rejected::OtherDisk,
    Rejected::LowerIncarnation,
    Rejected::ForcedOut,
    Rejected::Voters,
    Rejected::TooMuch,
    Rejected::Version,
    Rejected::FeatureLevel,
    Rejected::Generation,
];
