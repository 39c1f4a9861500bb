//! Frames of a connection between nodes: their length in four bytes, a kind, fields.

use newtmq_base::{Incarnation, InvalidField, NodeId, Put, Take};

use super::hello::{NONCE_BYTES, Refusal};

/// What a link carries. Each is in order, and independent of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// Each frame arrives exactly once as long as both nodes live, over reconnects and relays.
    Control,
    /// In order, without duplicates; what is on its way when the path changes is lost, and lanes send it again.
    Data,
    /// As data, in chunks, behind the others.
    Bulk,
}

/// One life of one end of a link: a start of its node, and how often that has begun the link anew. Everything that is
/// numbered belongs to a pair of these; a higher one ends what belongs to a lower one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    /// The node's start.
    pub incarnation: Incarnation,
    /// Rises when the node forgets what it knew of the link.
    pub generation: u64,
}

/// The next number of a stream without resending, in its run: runs begin at 0 and end with the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct RunMark {
    /// The run.
    pub run: u64,
    /// The next frame of it, from 0.
    pub next: u64,
}

/// What has come, of each stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Acks {
    /// The next control frame that is wanted, from 0.
    pub control: u64,
    /// The next data frame.
    pub data: RunMark,
    /// The next bulk chunk.
    pub bulk: RunMark,
}

/// A sign of life in one direction, and what is known of the other one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// The sender's time, in nanoseconds since its start.
    pub stamp: u64,
    /// The latest stamp that it got from the other side; 0 for none.
    pub echo: u64,
    /// How long ago that was, in nanoseconds.
    pub held: u64,
    /// How often the sender has counted the other side as Up; 0 while it does not, and takes nothing from its streams.
    pub opening: u64,
    /// Bytes that came on this connection; 0 over a relay.
    pub received: u64,
    /// What came of the streams.
    pub acks: Acks,
}

/// A frame. Payloads are borrowed from what was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame<'a> {
    /// The first one: bytes of a [`Hello`](super::Hello).
    Hello(&'a [u8]),
    /// The sender has the cookie (no bytes with mutual TLS); the generation of its end of the link.
    Proof {
        /// HMAC-SHA256, or nothing.
        proof: &'a [u8],
        /// Of [`End`].
        generation: u64,
    },
    /// The dialer has accepted the acceptor.
    Welcome,
    /// The connection is refused.
    Refused(Refusal),
    /// This connection is the one to use: said by the node with the lower id.
    Use,
    /// A sign of life.
    Heartbeat(Heartbeat),
    /// What has come, between heartbeats.
    Ack {
        /// Bytes that came on this connection; 0 over a relay.
        received: u64,
        /// What came of the streams.
        acks: Acks,
    },
    /// Whom the sender reaches directly, both ways.
    Neighbours(Vec<NodeId>),
    /// A frame of the control stream.
    Control {
        /// Its number, from 0.
        seq: u64,
        /// What the caller gave.
        payload: &'a [u8],
    },
    /// A frame of data or bulk.
    Run {
        /// Bulk rather than data.
        bulk: bool,
        /// Its run and number.
        mark: RunMark,
        /// What the caller gave.
        payload: &'a [u8],
    },
    /// To be passed on to `node`, by a neighbour of both.
    Relay(Passed<'a>),
    /// Was passed on from `node`; is never passed on again.
    Relayed(Passed<'a>),
}

/// What a neighbour passes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed<'a> {
    /// Where it goes to ([`Frame::Relay`]) or comes from ([`Frame::Relayed`]).
    pub node: NodeId,
    /// The source's end of its link with the destination.
    pub source: End,
    /// The destination's end, as far as the source knows it.
    pub destination: Option<End>,
    /// The bytes of a heartbeat, an ack or a frame of a stream.
    pub inner: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Appends the kind and the fields, without the length.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Frame::Hello(hello) => {
                out.push(HELLO);
                out.extend_from_slice(hello);
            }
            Frame::Proof { proof, generation } => {
                Put(out).byte(PROOF).bytes(proof).number(*generation);
            }
            Frame::Welcome => out.push(WELCOME),
            Frame::Refused(reason) => out.extend_from_slice(&[REFUSED, reason.code()]),
            Frame::Use => out.push(USE),
            Frame::Heartbeat(beat) => {
                Put(out)
                    .byte(HEARTBEAT)
                    .number(beat.stamp)
                    .number(beat.echo)
                    .number(beat.held)
                    .number(beat.opening)
                    .number(beat.received);
                put_acks(out, &beat.acks);
            }
            Frame::Ack { received, acks } => {
                Put(out).byte(ACK).number(*received);
                put_acks(out, acks);
            }
            Frame::Neighbours(nodes) => {
                let mut put = Put(out);
                put.byte(NEIGHBOURS).number(nodes.len() as u64);
                for node in nodes {
                    put.number(node.0);
                }
            }
            Frame::Control { seq, payload } => {
                Put(out).byte(CONTROL).number(*seq);
                out.extend_from_slice(payload);
            }
            Frame::Run { bulk, mark, payload } => {
                Put(out).byte(if *bulk { BULK } else { DATA }).number(mark.run).number(mark.next);
                out.extend_from_slice(payload);
            }
            Frame::Relay(passed) => put_passed(out, RELAY, passed),
            Frame::Relayed(passed) => put_passed(out, RELAYED, passed),
        }
    }

    /// What [`Frame::encode`] wrote.
    ///
    /// # Errors
    /// The bytes are not a frame.
    pub fn decode(bytes: &'a [u8]) -> Result<Frame<'a>, InvalidField> {
        let mut take = Take(bytes);
        let frame = match take.byte()? {
            HELLO => return Ok(Frame::Hello(take.0)),
            PROOF => Frame::Proof { proof: proof(take.bytes()?)?, generation: take.number()? },
            WELCOME => Frame::Welcome,
            REFUSED => Frame::Refused(Refusal::of_code(take.byte()?)),
            USE => Frame::Use,
            HEARTBEAT => Frame::Heartbeat(Heartbeat {
                stamp: take.number()?,
                echo: take.number()?,
                held: take.number()?,
                opening: take.number()?,
                received: take.number()?,
                acks: take_acks(&mut take)?,
            }),
            ACK => Frame::Ack { received: take.number()?, acks: take_acks(&mut take)? },
            NEIGHBOURS => {
                let count = take.count()?;
                Frame::Neighbours((0..count).map(|_| take.number().map(NodeId)).collect::<Result<_, _>>()?)
            }
            CONTROL => return Ok(Frame::Control { seq: take.number()?, payload: take.0 }),
            kind @ (DATA | BULK) => {
                let mark = RunMark { run: take.number()?, next: take.number()? };
                return Ok(Frame::Run { bulk: kind == BULK, mark, payload: take.0 });
            }
            RELAY => return Ok(Frame::Relay(take_passed(take)?)),
            RELAYED => return Ok(Frame::Relayed(take_passed(take)?)),
            _ => return Err(InvalidField("an unknown kind of frame")),
        };
        take.end()?;
        Ok(frame)
    }

    /// Appends the frame with its length in front.
    pub fn write(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; LENGTH_BYTES]);
        self.encode(out);
        let len = u32::try_from(out.len() - start - LENGTH_BYTES).expect("payloads are limited far below 4 GiB");
        out[start..start + LENGTH_BYTES].copy_from_slice(&len.to_be_bytes());
    }
}

/// Finds frames in what comes from a connection, piece by piece. It keeps what is incomplete: one frame at most.
#[derive(Debug, Default)]
pub struct Decoder {
    kept: Vec<u8>,
    taken: usize,
}

/// A length that no frame may have. Nothing behind it can be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidLength(pub usize);

impl Decoder {
    /// Appends what came.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.kept.drain(..self.taken);
        self.taken = 0;
        if self.kept.is_empty() && self.kept.capacity() > KEPT_BYTES {
            self.kept = Vec::new();
        }
        self.kept.extend_from_slice(bytes);
    }

    /// The next whole frame, without its length.
    ///
    /// # Errors
    /// It is empty, or larger than `max` bytes.
    pub fn next(&mut self, max: usize) -> Result<Option<&[u8]>, InvalidLength> {
        let rest = &self.kept[self.taken..];
        let Some(&length) = rest.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(length) as usize;
        if length == 0 || length > max {
            return Err(InvalidLength(length));
        }
        if rest.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        let start = self.taken + LENGTH_BYTES;
        self.taken = start + length;
        Ok(Some(&self.kept[start..start + length]))
    }
}

fn put_acks(out: &mut Vec<u8>, acks: &Acks) {
    Put(out)
        .number(acks.control)
        .number(acks.data.run)
        .number(acks.data.next)
        .number(acks.bulk.run)
        .number(acks.bulk.next);
}

fn take_acks(take: &mut Take<'_>) -> Result<Acks, InvalidField> {
    Ok(Acks {
        control: take.number()?,
        data: RunMark { run: take.number()?, next: take.number()? },
        bulk: RunMark { run: take.number()?, next: take.number()? },
    })
}

fn put_passed(out: &mut Vec<u8>, kind: u8, passed: &Passed<'_>) {
    let mut put = Put(out);
    put.byte(kind).number(passed.node.0).number(passed.source.incarnation.0).number(passed.source.generation);
    put.flag(passed.destination.is_some());
    if let Some(end) = passed.destination {
        put.number(end.incarnation.0).number(end.generation);
    }
    out.extend_from_slice(passed.inner);
}

fn take_passed<'a>(mut take: Take<'a>) -> Result<Passed<'a>, InvalidField> {
    let node = NodeId(take.number()?);
    let source = take_end(&mut take)?;
    let destination = if take.flag()? { Some(take_end(&mut take)?) } else { None };
    Ok(Passed { node, source, destination, inner: take.0 })
}

fn take_end(take: &mut Take<'_>) -> Result<End, InvalidField> {
    Ok(End { incarnation: Incarnation(take.number()?), generation: take.number()? })
}

fn proof(bytes: &[u8]) -> Result<&[u8], InvalidField> {
    if bytes.is_empty() || bytes.len() == NONCE_BYTES {
        Ok(bytes)
    } else {
        Err(InvalidField("a proof of a wrong length"))
    }
}

/// Bytes in front of a frame that say how long it is.
pub(crate) const LENGTH_BYTES: usize = 4;

/// A connection that had one large frame does not keep its memory.
const KEPT_BYTES: usize = 64 << 10;

const HELLO: u8 = 1;
const PROOF: u8 = 2;
const WELCOME: u8 = 3;
const REFUSED: u8 = 4;
const USE: u8 = 5;
const HEARTBEAT: u8 = 6;
const ACK: u8 = 7;
const NEIGHBOURS: u8 = 8;
const CONTROL: u8 = 9;
const DATA: u8 = 10;
const BULK: u8 = 11;
const RELAY: u8 = 12;
const RELAYED: u8 = 13;
