//! Raft's own values as bytes: messages, entries, configurations. raft-rs would encode them with protobuf; these are ours, so
//! that bytes of a peer or a disk can do no more than be refused.

use newtmq_base::{InvalidField, Put, Take};
use raft::eraftpb::{ConfState, Entry, EntryType, HardState, Message, MessageType, Snapshot};

pub(crate) fn put_message(message: &Message, out: &mut Vec<u8>) {
    let kind = KINDS.iter().position(|kind| *kind == message.get_msg_type()).map_or(u8::MAX, |place| place as u8);
    Put(out).byte(kind).number(message.to).number(message.from).number(message.term).number(message.log_term);
    Put(out).number(message.index).number(message.commit).number(message.commit_term);
    Put(out).number(message.request_snapshot).flag(message.reject).number(message.reject_hint);
    Put(out).bytes(&message.context).number(message.entries.len() as u64);
    for entry in message.entries.iter() {
        put_entry(entry, out);
    }
    let snapshot = message.snapshot.as_ref().filter(|snapshot| !snapshot.is_empty());
    Put(out).flag(snapshot.is_some());
    if let Some(snapshot) = snapshot {
        put_snapshot(snapshot, out);
    }
}

pub(crate) fn take_message(take: &mut Take<'_>) -> Result<Message, InvalidField> {
    let mut message = Message::default();
    let kind = KINDS.get(usize::from(take.byte()?)).ok_or(InvalidField("no kind of message"))?;
    message.set_msg_type(*kind);
    message.to = take.number()?;
    message.from = take.number()?;
    message.term = take.number()?;
    message.log_term = take.number()?;
    message.index = take.number()?;
    message.commit = take.number()?;
    message.commit_term = take.number()?;
    message.request_snapshot = take.number()?;
    message.reject = take.flag()?;
    message.reject_hint = take.number()?;
    message.context = take.bytes()?.to_vec().into();
    let mut entries = Vec::new();
    for _ in 0..take.count()? {
        entries.push(take_entry(take)?);
    }
    message.set_entries(entries.into());
    if take.flag()? {
        message.set_snapshot(take_snapshot(take)?);
    }
    Ok(message)
}

pub(crate) fn put_entry(entry: &Entry, out: &mut Vec<u8>) {
    let kind = match entry.get_entry_type() {
        EntryType::EntryNormal => 0,
        EntryType::EntryConfChange => 1,
        EntryType::EntryConfChangeV2 => 2,
    };
    Put(out).byte(kind).number(entry.term).number(entry.index).bytes(&entry.data).bytes(&entry.context);
}

pub(crate) fn take_entry(take: &mut Take<'_>) -> Result<Entry, InvalidField> {
    let mut entry = Entry::default();
    entry.set_entry_type(match take.byte()? {
        0 => EntryType::EntryNormal,
        2 => EntryType::EntryConfChangeV2,
        _ => return Err(InvalidField("no kind of entry")),
    });
    entry.term = take.number()?;
    entry.index = take.number()?;
    entry.data = take.bytes()?.to_vec().into();
    entry.context = take.bytes()?.to_vec().into();
    Ok(entry)
}

pub(crate) fn put_snapshot(snapshot: &Snapshot, out: &mut Vec<u8>) {
    let metadata = snapshot.get_metadata();
    Put(out).number(metadata.index).number(metadata.term);
    put_conf(metadata.get_conf_state(), out);
    Put(out).bytes(&snapshot.data);
}

pub(crate) fn take_snapshot(take: &mut Take<'_>) -> Result<Snapshot, InvalidField> {
    let mut snapshot = Snapshot::default();
    let metadata = snapshot.mut_metadata();
    metadata.index = take.number()?;
    metadata.term = take.number()?;
    metadata.set_conf_state(take_conf(take)?);
    snapshot.data = take.bytes()?.to_vec().into();
    Ok(snapshot)
}

fn put_conf(conf: &ConfState, out: &mut Vec<u8>) {
    for nodes in [&conf.voters, &conf.learners, &conf.voters_outgoing, &conf.learners_next] {
        Put(out).number(nodes.len() as u64);
        for node in nodes {
            Put(out).number(*node);
        }
    }
    Put(out).flag(conf.auto_leave);
}

fn take_conf(take: &mut Take<'_>) -> Result<ConfState, InvalidField> {
    let mut lists: [Vec<u64>; 4] = Default::default();
    for list in &mut lists {
        for _ in 0..take.count()? {
            list.push(take.number()?);
        }
    }
    let [voters, learners, voters_outgoing, learners_next] = lists;
    let auto_leave = take.flag()?;
    Ok(ConfState { voters, learners, voters_outgoing, learners_next, auto_leave, ..ConfState::default() })
}

pub(crate) fn put_hard(hard: &HardState, out: &mut Vec<u8>) {
    Put(out).number(hard.term).number(hard.vote).number(hard.commit);
}

pub(crate) fn take_hard(take: &mut Take<'_>) -> Result<HardState, InvalidField> {
    Ok(HardState { term: take.number()?, vote: take.number()?, commit: take.number()?, ..HardState::default() })
}

// What one node may say to another; all else is between raft-rs and its own node.
const KINDS: [MessageType; 10] = [
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgSnapshot,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgTimeoutNow,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
];
