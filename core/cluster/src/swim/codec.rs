//! What foca says, as bytes.

use bytes::{Buf, BufMut};
use foca::{Codec, Header, Member, Message, State};
use newtmq_base::InvalidField;

use super::{Identity, Put, Take};

#[derive(Debug, Clone, Copy)]
pub(super) struct WireCodec;

impl Codec<Identity> for WireCodec {
    type Error = InvalidField;

    fn encode_header(&mut self, header: &Header<Identity>, buf: impl BufMut) -> Result<(), InvalidField> {
        let mut bytes = Vec::new();
        header.src.encode(&mut bytes);
        Put(&mut bytes).number(u64::from(header.src_incarnation));
        header.dst.encode(&mut bytes);
        put_message(&header.message, &mut bytes);
        put_whole(&bytes, buf)
    }

    fn decode_header(&mut self, mut buf: impl Buf) -> Result<Header<Identity>, InvalidField> {
        let mut take = Take(buf.chunk());
        let before = take.0.len();
        let header = Header {
            src: Identity::take(&mut take)?,
            src_incarnation: take.number16()?,
            dst: Identity::take(&mut take)?,
            message: take_message(&mut take)?,
        };
        let used = before - take.0.len();
        buf.advance(used);
        Ok(header)
    }

    fn encode_member(&mut self, member: &Member<Identity>, buf: impl BufMut) -> Result<(), InvalidField> {
        let mut bytes = Vec::new();
        member.id().encode(&mut bytes);
        let state = match member.state() {
            State::Alive => 0,
            State::Suspect => 1,
            State::Down => 2,
        };
        Put(&mut bytes).number(u64::from(member.incarnation())).byte(state);
        put_whole(&bytes, buf)
    }

    fn decode_member(&mut self, mut buf: impl Buf) -> Result<Member<Identity>, InvalidField> {
        let mut take = Take(buf.chunk());
        let before = take.0.len();
        let identity = Identity::take(&mut take)?;
        let incarnation = take.number16()?;
        let state = match take.byte()? {
            0 => State::Alive,
            1 => State::Suspect,
            2 => State::Down,
            _ => return Err(InvalidField("no state of a member")),
        };
        let used = before - take.0.len();
        buf.advance(used);
        Ok(Member::new(identity, incarnation, state))
    }
}

fn put_message(message: &Message<Identity>, out: &mut Vec<u8>) {
    let (kind, identity, probe) = match message {
        Message::Ping(probe) => (0, None, Some(*probe)),
        Message::Ack(probe) => (1, None, Some(*probe)),
        Message::PingReq { target, probe_number } => (2, Some(target), Some(*probe_number)),
        Message::IndirectPing { origin, probe_number } => (3, Some(origin), Some(*probe_number)),
        Message::IndirectAck { target, probe_number } => (4, Some(target), Some(*probe_number)),
        Message::ForwardedAck { origin, probe_number } => (5, Some(origin), Some(*probe_number)),
        Message::Announce => (6, None, None),
        Message::Feed => (7, None, None),
        Message::Gossip => (8, None, None),
        Message::Broadcast => (9, None, None),
        Message::TurnUndead => (10, None, None),
    };
    out.push(kind);
    if let Some(identity) = identity {
        identity.encode(out);
    }
    out.extend(probe);
}

fn take_message(take: &mut Take<'_>) -> Result<Message<Identity>, InvalidField> {
    Ok(match take.byte()? {
        0 => Message::Ping(take.byte()?),
        1 => Message::Ack(take.byte()?),
        2 => Message::PingReq { target: Identity::take(take)?, probe_number: take.byte()? },
        3 => Message::IndirectPing { origin: Identity::take(take)?, probe_number: take.byte()? },
        4 => Message::IndirectAck { target: Identity::take(take)?, probe_number: take.byte()? },
        5 => Message::ForwardedAck { origin: Identity::take(take)?, probe_number: take.byte()? },
        6 => Message::Announce,
        7 => Message::Feed,
        8 => Message::Gossip,
        9 => Message::Broadcast,
        10 => Message::TurnUndead,
        _ => return Err(InvalidField("no kind of message")),
    })
}

// foca leaves out what does not fit, so that nothing of it may be there.
fn put_whole(bytes: &[u8], mut buf: impl BufMut) -> Result<(), InvalidField> {
    if buf.remaining_mut() < bytes.len() {
        return Err(InvalidField("no room left"));
    }
    buf.put_slice(bytes);
    Ok(())
}
