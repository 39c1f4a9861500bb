//! One connection: its handshake, what waits to be written to it, and in which order that is written.

use std::collections::VecDeque;

use bytes::Bytes;
use newtmq_base::{Instant, NodeId, planted};

use super::config::Config;
use super::dial::DialId;
use super::frame::{Decoder, Frame, LENGTH_BYTES, RunMark};
use super::handshake::Handshake;
use super::peer::{Link, Path};

/// A driver's name for a connection between nodes. It is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// Whether a connection has more to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    /// Nothing, until [`Output::Ready`](super::Output::Ready) is said of it.
    Drained,
    /// Something: call again when it can be written.
    More,
}

#[derive(Debug)]
pub(crate) enum Phase {
    Handshake(Box<Handshake>),
    /// Proved, but the node that decides has not said that it is to be used.
    Idle {
        peer: NodeId,
        deadline: Instant,
    },
    InUse(NodeId),
    Closing,
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) dial: Option<DialId>,
    pub(crate) phase: Phase,
    pub(crate) decoder: Decoder,
    /// Whole frames that go before everything else.
    pub(crate) urgent: Vec<u8>,
    pub(crate) ready: bool,
    pub(crate) beat_due: bool,
    pub(crate) ack_due: bool,
    pub(crate) neighbours_due: bool,
    /// Frames for others, or over this peer: without their length.
    relay: VecDeque<Bytes>,
    relay_bytes: usize,
    /// Bytes that were written, and that the peer has got.
    filled: u64,
    arrived: u64,
    /// Bytes that came, and that the peer was told of.
    pub(crate) received: u64,
    pub(crate) reported: u64,
    window: usize,
    /// The window keeps something back.
    blocked: bool,
    /// It has done so since the last measurement.
    was_full: bool,
    /// Bytes of data that were written since bulk had its turn.
    data_since_bulk: usize,
}

impl Connection {
    pub(crate) fn new(dial: Option<DialId>, phase: Phase, urgent: Vec<u8>, config: &Config) -> Connection {
        Connection {
            dial,
            phase,
            decoder: Decoder::default(),
            urgent,
            ready: false,
            beat_due: false,
            ack_due: false,
            neighbours_due: false,
            relay: VecDeque::new(),
            relay_bytes: 0,
            filled: 0,
            arrived: 0,
            received: 0,
            reported: 0,
            window: config.window_start,
            blocked: false,
            was_full: false,
            data_since_bulk: 0,
        }
    }

    pub(crate) fn peer(&self) -> Option<NodeId> {
        match self.phase {
            Phase::InUse(peer) | Phase::Idle { peer, .. } => Some(peer),
            Phase::Handshake(_) | Phase::Closing => None,
        }
    }

    pub(crate) fn in_use(&self) -> Option<NodeId> {
        match self.phase {
            Phase::InUse(peer) => Some(peer),
            Phase::Handshake(_) | Phase::Idle { .. } | Phase::Closing => None,
        }
    }

    /// Queues a frame for another node. False if it is not an own one and too much waits.
    pub(crate) fn relay(&mut self, frame: &Frame<'_>, limit: Option<usize>) -> bool {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        if limit.is_some_and(|limit| !self.relay.is_empty() && self.relay_bytes + bytes.len() > limit) {
            return false;
        }
        self.relay_bytes += bytes.len();
        self.relay.push_back(bytes.into());
        true
    }

    pub(crate) fn relay_waiting(&self) -> usize {
        self.relay_bytes
    }

    /// Nothing is written any more but what explains the end.
    pub(crate) fn shut(&mut self) {
        self.phase = Phase::Closing;
        self.relay.clear();
        self.relay_bytes = 0;
    }

    /// The peer has got this many bytes. Says whether what was kept back may go on.
    pub(crate) fn arrived(&mut self, bytes: u64) -> bool {
        self.arrived = self.arrived.max(bytes.min(self.filled));
        self.blocked && !self.is_full()
    }

    /// Adapts the window to a measured round trip.
    pub(crate) fn adapt(&mut self, round_trip: core::time::Duration, config: &Config) {
        if round_trip > config.window_round_trip {
            self.window = (self.window / 2).max(config.window_min);
        } else if self.was_full && round_trip < config.window_round_trip / 2 {
            self.window = (self.window * 2).min(config.window_max);
        }
        self.was_full = false;
    }

    /// Whether what is on its way keeps frames back that can wait.
    fn is_full(&self) -> bool {
        self.filled - self.arrived >= self.window as u64
    }

    /// Appends frames, `room` bytes of them or at most one frame more: what keeps the link alive, control, relays, data,
    /// bulk. Bulk gets a chunk now and then even if data could go on for ever, and never more than its limit.
    pub(crate) fn fill(
        &mut self,
        id: ConnectionId,
        now: Instant,
        link: Option<&mut Link>,
        announced: &[NodeId],
        config: &Config,
        (out, room): (&mut Vec<u8>, usize),
    ) -> Fill {
        let start = out.len();
        (self.ready, self.blocked) = (false, false);
        out.append(&mut self.urgent);
        let Some(link) = link else {
            self.filled += (out.len() - start) as u64;
            return Fill::Drained;
        };
        if core::mem::take(&mut self.neighbours_due) {
            Frame::Neighbours(announced.to_vec()).write(out);
        }
        if core::mem::take(&mut self.beat_due) {
            Frame::Heartbeat(link.heartbeat(now, true, self.received)).write(out);
            (self.reported, self.ack_due) = (self.received, false);
        }
        if core::mem::take(&mut self.ack_due) {
            Frame::Ack { received: self.received, acks: link.acks() }.write(out);
            self.reported = self.received;
        }
        let end = start + room.max(1);
        let allowed = self.window as u64 - (self.filled - self.arrived).min(self.window as u64);
        let end = end.min((out.len() as u64).saturating_add(allowed) as usize);
        let flows = link.path == Path::Direct(id) && link.flows();
        while flows && out.len() < end {
            let Some((seq, payload)) = link.control_out.peek() else { break };
            Frame::Control { seq, payload }.write(out);
            link.control_out.advance();
        }
        while out.len() < end {
            let Some(frame) = self.relay.pop_front() else { break };
            self.relay_bytes -= frame.len();
            write_raw(&frame, out);
        }
        // Data that never ends leaves bulk its turns.
        if flows && out.len() < end && self.data_since_bulk >= DATA_PER_TURN {
            self.data_since_bulk = 0;
            fill_bulk(link, out, out.len() + 1, config);
        }
        let before = out.len();
        while flows && out.len() < end {
            let Some((mark, payload)) = link.data_out.take(false) else { break };
            Frame::Run { bulk: false, mark, payload: &payload }.write(out);
        }
        self.data_since_bulk += out.len() - before;
        if flows && out.len() < end {
            self.data_since_bulk = 0;
            fill_bulk(link, out, end, config);
        }
        self.filled += (out.len() - start) as u64;
        let more = flows
            && (link.control_out.peek().is_some()
                || link.data_out.next_len().is_some()
                || link.bulk_out.next_len().is_some());
        if !more && self.relay.is_empty() {
            return Fill::Drained;
        }
        self.blocked = self.is_full();
        self.was_full |= self.blocked;
        if self.blocked { Fill::Drained } else { Fill::More }
    }
}

fn fill_bulk(link: &mut Link, out: &mut Vec<u8>, end: usize, config: &Config) {
    let most = out.len() + config.bulk_per_fill;
    let mut one = true;
    while let Some(len) = link.bulk_out.next_len() {
        if !one && (out.len() >= end || out.len() + len > most) && !planted!(BulkUnlimited) {
            return;
        }
        one = false;
        let (mark, payload): (RunMark, Bytes) = link.bulk_out.take(false).expect("there is a next one");
        Frame::Run { bulk: true, mark, payload: &payload }.write(out);
    }
}

fn write_raw(frame: &[u8], out: &mut Vec<u8>) {
    let len = u32::try_from(frame.len()).expect("frames are limited far below 4 GiB");
    out.reserve(LENGTH_BYTES + frame.len());
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(frame);
}

/// So many bytes of data may be written before a chunk of bulk that waits.
const DATA_PER_TURN: usize = 192 << 10;
