//! What nodes say to each other about the retained group.

use bytes::Bytes;
use newtmq_base::{InvalidField, Put, Take};
use raft::eraftpb;

use super::entry::{Entry, Write};
use super::topics::{Chunk, put_topic, take_topic};
use crate::consensus::wire;
use crate::meta::ClusterId;

/// A message, whole, within a cluster: how it travels is for the links.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Message {
    /// Raft's.
    Raft(Box<eraftpb::Message>),
    /// Writes for the log, to who is taken for the leader.
    Forward(Vec<Write>),
    /// Everything up to this index is behind the sender.
    Passed(u64),
    /// Asks for chunks.
    Ask(Ask),
    /// The topics of a snapshot, or some of them.
    Chunk(Chunk),
}

/// Asks for what has changed after `since`, in so many chunks after a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) since: u64,
    /// What has to be applied where it is read.
    pub(super) least: u64,
    pub(super) after: Option<Box<str>>,
    pub(super) chunks: u32,
}

impl Message {
    pub(super) fn encode(&self, cluster: ClusterId, out: &mut Vec<u8>) {
        Put(out).number(cluster.0);
        match self {
            Message::Raft(body) => {
                out.push(0);
                wire::put_message(body, out);
            }
            Message::Forward(writes) => {
                Put(out).byte(1).number(writes.len() as u64);
                let mut entry = Vec::new();
                for write in writes {
                    entry.clear();
                    write.encode(&mut entry);
                    Put(out).bytes(&entry);
                }
            }
            Message::Passed(index) => {
                Put(out).byte(2).number(*index);
            }
            Message::Ask(ask) => {
                Put(out).byte(3).number(ask.since).number(ask.least).number(u64::from(ask.chunks));
                put_topic(ask.after.as_deref(), out);
            }
            Message::Chunk(chunk) => {
                out.push(4);
                chunk.encode(out);
            }
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<(ClusterId, Message), InvalidField> {
        let mut take = Take(bytes);
        let cluster = ClusterId(take.number()?);
        let message = match take.byte()? {
            0 => Message::Raft(Box::new(wire::take_message(&mut take)?)),
            1 => {
                let mut writes = Vec::new();
                for _ in 0..take.count()? {
                    match Entry::decode(&Bytes::copy_from_slice(take.bytes()?)) {
                        Ok(Entry::Write(write)) => writes.push(write),
                        Ok(Entry::Horizon(_) | Entry::Members(_)) | Err(_) => {
                            return Err(InvalidField("a write that is none"));
                        }
                    }
                }
                Message::Forward(writes)
            }
            2 => Message::Passed(take.number()?),
            3 => {
                let (since, least, chunks) = (take.number()?, take.number()?, take.number32()?);
                Message::Ask(Ask { since, least, chunks, after: take_topic(&mut take)? })
            }
            4 => Message::Chunk(Chunk::decode(&mut take)?),
            _ => return Err(InvalidField("no kind of message")),
        };
        take.end()?;
        Ok((cluster, message))
    }
}
