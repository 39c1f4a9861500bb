//! Frames that take another way: over one neighbour of both ends, never over two.

use newtmq_base::{Instant, NodeId, planted};

use super::event::{Event, Output};
use super::frame::{Frame, Passed};
use super::links::Links;
use super::peer::{Link, Path};

impl Links {
    /// Picks the way to a peer, and begins its streams anew where that is another one.
    pub(super) fn choose_path(&mut self, now: Instant, peer: NodeId, out: &mut Vec<Output>) {
        let Some(link) = self.links.get(&peer) else { return };
        let direct = link.direct.as_ref().map(|direct| direct.conn);
        let relay = if link.wants_relay(now, &self.config) { self.relay_for(link) } else { None };
        let path = match (direct, relay) {
            (_, Some(neighbour)) => Path::Via(neighbour),
            (Some(conn), None) => Path::Direct(conn),
            (None, None) => Path::None,
        };
        let late = link.path == path && self.is_relay_late(now, link);
        let link = self.links.get_mut(&peer).expect("it was there a moment ago");
        if link.path == path && !late {
            return;
        }
        self.counters.relay_resends += u64::from(late);
        let changed = core::mem::replace(&mut link.path, path) != path;
        if changed {
            link.beat_due = true;
            out.push(Output::Event(Event::Path { peer, path }));
        }
        if path != Path::None && link.restart(now) {
            out.push(Output::Event(Event::Broken { peer }));
        }
    }

    /// Whether what went over a neighbour seems to be lost.
    fn is_relay_late(&self, now: Instant, link: &Link) -> bool {
        let patience = self.config.relay_resend_after.max(link.round_trip.unwrap_or_default() * 2);
        matches!(link.path, Path::Via(_)) && link.flight() > 0 && now - link.progress_at >= patience
    }

    /// The neighbour over which a peer is reached: the present one as long as it will do, else the one that both ends find
    /// by the same hash.
    fn relay_for(&self, link: &Link) -> Option<NodeId> {
        let will_do = |neighbour: &Link| {
            neighbour.node != link.node
                && neighbour.direct_ok
                && neighbour.neighbours.contains(&self.own.node)
                && neighbour.neighbours.contains(&link.node)
        };
        if let Path::Via(present) = link.path
            && self.links.get(&present).is_some_and(will_do)
        {
            return Some(present);
        }
        let score = |node: &NodeId| (rendezvous(self.own.node, link.node, *node), *node);
        self.links.values().filter(|neighbour| will_do(neighbour)).map(|neighbour| neighbour.node).max_by_key(score)
    }

    /// What waits for a peer may go on: says so to the driver, or hands it to a neighbour.
    pub(super) fn wake(&mut self, now: Instant, peer: NodeId, out: &mut Vec<Output>) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        let (beat, ack) = (link.beat_due, link.ack_due);
        let direct = link.direct.as_ref().map(|direct| direct.conn);
        let via = if let Path::Via(neighbour) = link.path { Some(neighbour) } else { None };
        let waits = link.flows()
            && (link.control_out.peek().is_some()
                || link.data_out.next_len().is_some()
                || link.bulk_out.next_len().is_some());
        if let Some(conn) = direct
            && (beat || (via.is_none() && (ack || waits)))
            && let Some(connection) = self.connections.get_mut(&conn)
        {
            connection.beat_due |= beat;
            connection.ack_due |= ack && via.is_none();
            self.ready(conn, out);
        }
        if let Some(neighbour) = via {
            self.pump(now, peer, neighbour, out);
        }
        let Some(link) = self.links.get_mut(&peer) else { return };
        (link.beat_due, link.ack_due) = (false, false);
    }

    /// Hands to a neighbour what may be on its way to a peer.
    fn pump(&mut self, now: Instant, peer: NodeId, neighbour: NodeId, out: &mut Vec<Output>) {
        let Some(over) = self.links.get(&neighbour).and_then(|link| link.direct.as_ref()).map(|direct| direct.conn)
        else {
            return;
        };
        let (Some(link), Some(connection)) = (self.links.get_mut(&peer), self.connections.get_mut(&over)) else {
            return;
        };
        let (source, destination) = (link.own, link.end);
        let mut sent = false;
        let mut send = |frame: &Frame<'_>| {
            let mut inner = Vec::new();
            frame.encode(&mut inner);
            connection.relay(&Frame::Relay(Passed { node: peer, source, destination, inner: &inner }), None);
            sent = true;
        };
        if link.beat_due {
            send(&Frame::Heartbeat(link.heartbeat(now, false, 0)));
        } else if link.ack_due {
            send(&Frame::Ack { received: 0, acks: link.acks() });
        }
        while link.flows() && link.flight() < self.config.relay_window {
            if link.flight() == 0 {
                link.progress_at = now;
            }
            if let Some((seq, payload)) = link.control_out.peek() {
                send(&Frame::Control { seq, payload });
                link.control_out.advance();
            } else if let Some((mark, payload)) = link.data_out.take(true) {
                send(&Frame::Run { bulk: false, mark, payload: &payload });
            } else if link.bulk_out.flight() < self.config.relay_window / BULK_SHARE
                && let Some((mark, payload)) = link.bulk_out.take(true)
            {
                send(&Frame::Run { bulk: true, mark, payload: &payload });
            } else {
                break;
            }
        }
        if sent {
            self.ready(over, out);
        }
    }

    /// A neighbour wants a frame passed on. Only a frame of its own, and only to another direct neighbour: so there is no
    /// loop, and no frame that wanders.
    pub(super) fn pass_on(&mut self, source: NodeId, passed: &Passed<'_>, out: &mut Vec<Output>) {
        let near = |node: NodeId| self.links.get(&node).is_some_and(|link| link.direct_ok);
        let far = !near(source) || !near(passed.node);
        if passed.node == source || (far && !planted!(RelayForAnybody)) {
            self.counters.relay_refused += 1;
            return;
        }
        let direct = self.links.get(&passed.node).and_then(|link| link.direct.as_ref());
        let Some(conn) = direct.map(|direct| direct.conn) else { return };
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let frame = Frame::Relayed(Passed { node: source, ..passed.clone() });
        if connection.relay(&frame, Some(self.config.relay_limit)) {
            self.counters.passed_on += 1;
            self.ready(conn, out);
        } else {
            self.counters.relay_full += 1;
        }
    }

    /// A frame came over a neighbour. False if it is none.
    pub(super) fn passed_on(&mut self, now: Instant, passed: &Passed<'_>, out: &mut Vec<Output>) -> bool {
        let Ok(frame) = Frame::decode(passed.inner) else { return false };
        let peer = passed.node;
        let Some(link) = self.links.get_mut(&peer) else {
            self.counters.received_stale += 1;
            return true;
        };
        if passed.source.incarnation < link.least || link.end.is_some_and(|end| passed.source < end) {
            self.counters.received_stale += 1;
            return true;
        }
        self.adopt(now, peer, passed.source, out);
        self.dirty.insert(peer);
        let Some(link) = self.links.get_mut(&peer) else { return true };
        let to_this_end = passed.destination == Some(link.own);
        match frame {
            Frame::Heartbeat(mut beat) => {
                if !to_this_end {
                    // It is heard, but speaks to nobody here: neither echoes nor marks are of this end.
                    (beat.echo, beat.acks, beat.opening) = (0, super::frame::Acks::default(), 0);
                }
                self.heartbeat(now, peer, &beat, false, out);
            }
            Frame::Ack { acks, .. } if to_this_end => {
                link.heard(now, false);
                link.acknowledged(now, &acks);
            }
            Frame::Control { .. } | Frame::Run { .. } if to_this_end => {
                link.heard(now, false);
                self.arrive(peer, &frame, false, out);
            }
            Frame::Ack { .. } | Frame::Control { .. } | Frame::Run { .. } => self.counters.received_stale += 1,
            Frame::Hello(_)
            | Frame::Proof { .. }
            | Frame::Welcome
            | Frame::Refused(_)
            | Frame::Use
            | Frame::Neighbours(_)
            | Frame::Relay(_)
            | Frame::Relayed(_) => return false,
        }
        true
    }
}

/// How much a neighbour is preferred for a pair of nodes. Both ends get the same number.
fn rendezvous(one: NodeId, other: NodeId, neighbour: NodeId) -> u64 {
    let (low, high) = (one.min(other), one.max(other));
    mix(mix(mix(low.0) ^ high.0) ^ neighbour.0)
}

/// The finalizer of SplitMix64.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// Bulk may take this part of what is on its way over a neighbour.
const BULK_SHARE: usize = 4;
