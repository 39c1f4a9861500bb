//! The life of connections: opened, admitted or refused, taken up, replaced, closed.

use std::collections::{BTreeMap, BTreeSet};

use newtmq_base::{Incarnation, Instant, NodeId, planted};

use super::connection::{Connection, ConnectionId, Phase};
use super::dial::{DialId, Ended};
use super::event::{CloseCause, DownCause, Event, Output};
use super::frame::{End, Frame};
use super::handshake::{Accepted, Gate, Handshake, Step};
use super::hello::{Hello, NONCE_BYTES, Refusal, Role};
use super::links::{Links, Timer};
use super::peer::Link;

impl Links {
    pub(super) fn overdue(&mut self, now: Instant, conn: ConnectionId, out: &mut Vec<Output>) {
        match self.connections.get(&conn).map(|connection| &connection.phase) {
            Some(Phase::Handshake(handshake)) if handshake.deadline() <= now => {
                self.refuse(now, conn, Refusal::Timeout, out);
            }
            Some(Phase::Idle { deadline, .. }) if *deadline <= now => self.close(now, conn, CloseCause::Silent, out),
            Some(Phase::Handshake(_) | Phase::Idle { .. } | Phase::InUse(_) | Phase::Closing) | None => {}
        }
    }

    pub(super) fn opened(
        &mut self,
        now: Instant,
        conn: ConnectionId,
        dial: Option<DialId>,
        tls: bool,
        out: &mut Vec<Output>,
    ) {
        let hello = Hello {
            cluster: self.own.cluster.clone(),
            node: self.own.node,
            incarnation: self.own.incarnation,
            name: self.own.name.clone(),
            proto_min: self.own.proto_min,
            proto_max: self.own.proto_max,
            features: self.own.features,
            shards: self.own.shards,
            meta_term: self.meta.0,
            meta_index: self.meta.1,
            tls,
            nonce: [0; NONCE_BYTES],
        };
        let role = if dial.is_some() { Role::Dialer } else { Role::Acceptor };
        let unproved = self.connections.values().filter(|c| c.dial.is_none() && c.peer().is_none()).count();
        let mut urgent = Vec::new();
        let handshake = Handshake::new(now, role, hello, &self.config, &mut self.rng, &mut urgent);
        self.timers.arm(handshake.deadline(), Timer::Connection(conn));
        let connection = Connection::new(dial, Phase::Handshake(Box::new(handshake)), urgent, &self.config);
        self.connections.insert(conn, connection);
        if let Some(dial) = dial {
            self.dials.opened(dial);
            self.arm_dial();
        }
        if role == Role::Acceptor && unproved >= self.config.unproved_limit {
            self.refuse(now, conn, Refusal::Busy, out);
        }
        self.ready(conn, out);
    }

    pub(super) fn step(
        &mut self,
        now: Instant,
        conn: ConnectionId,
        step: Step,
        claimed: Option<NodeId>,
        out: &mut Vec<Output>,
    ) {
        match step {
            Step::Wait => self.ready(conn, out),
            Step::Refuse(reason) => self.say_refused(now, conn, claimed, reason, false, out),
            Step::Refused(reason) => self.refused(now, conn, claimed, reason, out),
            Step::Done(accepted) => self.accepted(now, conn, accepted, out),
        }
    }

    pub(super) fn accepted(&mut self, now: Instant, conn: ConnectionId, accepted: Accepted, out: &mut Vec<Output>) {
        let Accepted { hello, end, own_generation, version } = accepted;
        let peer = hello.node;
        let made = self.make(now, peer);
        let link = self.links.get(&peer).filter(|link| link.own.generation == own_generation);
        let gate = Known {
            links: &self.links,
            evicted: &self.evicted,
            generation: self.generation,
            limit: self.config.peer_limit,
        };
        // What was true when the proof came may not be when the welcome does.
        if let (true, Err(reason)) = (made, gate.admit(&hello, end)) {
            return self.refuse(now, conn, reason, out);
        }
        if link.is_none() {
            return self.close(now, conn, CloseCause::Stale, out);
        }
        self.adopt(now, peer, end, out);
        if let (Some(link), Some(connection)) = (self.links.get_mut(&peer), self.connections.get_mut(&conn)) {
            link.hello = Some(hello.clone());
            link.version = version;
            let deadline = now + self.config.handshake_timeout;
            connection.phase = Phase::Idle { peer, deadline };
            self.timers.arm(deadline, Timer::Connection(conn));
            if let Some(dial) = connection.dial {
                self.dials.reached(dial, peer);
            }
        }
        out.push(Output::Event(Event::Connected { conn, hello, version }));
        if self.own.node < peer {
            let connection = self.connections.get_mut(&conn).expect("it was there a moment ago");
            Frame::Use.write(&mut connection.urgent);
            self.take_up(now, conn, peer, out);
        }
        self.ready(conn, out);
    }

    /// From here on this connection is the one of its peer.
    pub(super) fn take_up(&mut self, now: Instant, conn: ConnectionId, peer: NodeId, out: &mut Vec<Output>) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        if let Some(before) = link.direct.as_ref().map(|direct| direct.conn) {
            self.close(now, before, CloseCause::Replaced, out);
        }
        let link = self.links.get_mut(&peer).expect("closing a connection removes no link");
        link.connect(now, conn);
        let connection = self.connections.get_mut(&conn).expect("a connection that is taken up is there");
        connection.phase = Phase::InUse(peer);
        connection.neighbours_due = true;
        self.dirty.insert(peer);
        self.ready(conn, out);
        self.arm_dial();
    }

    /// A peer's end is known. If it is a new one, nothing of the old one goes on.
    pub(super) fn adopt(&mut self, now: Instant, peer: NodeId, end: End, out: &mut Vec<Output>) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        let Some(old) = link.end.filter(|old| *old != end) else {
            link.adopt(end);
            return;
        };
        if link.up {
            self.counters.dropped_down += link.fall() as u64;
            let event = Event::Down { peer, incarnation: old.incarnation, cause: DownCause::Restarted };
            out.push(Output::Event(event));
        }
        link.adopt(end);
        out.push(Output::Event(Event::Reset { peer, incarnation: end.incarnation }));
        let stale: Vec<ConnectionId> =
            self.connections.iter().filter(|(_, c)| c.peer() == Some(peer)).map(|(id, _)| *id).collect();
        for conn in stale {
            self.close(now, conn, CloseCause::Stale, out);
        }
        let link = self.links.get_mut(&peer).expect("closing a connection removes no link");
        link.forget_signs(now, &self.config);
        self.dirty.insert(peer);
    }

    pub(super) fn refuse(&mut self, now: Instant, conn: ConnectionId, reason: Refusal, out: &mut Vec<Output>) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let claimed = match &mut connection.phase {
            Phase::Handshake(handshake) => handshake.claimed().map(|(node, _)| node),
            Phase::Idle { peer, .. } | Phase::InUse(peer) => Some(*peer),
            Phase::Closing => return,
        };
        Frame::Refused(reason).write(&mut connection.urgent);
        self.say_refused(now, conn, claimed, reason, false, out);
    }

    pub(super) fn refused(
        &mut self,
        now: Instant,
        conn: ConnectionId,
        claimed: Option<NodeId>,
        reason: Refusal,
        out: &mut Vec<Output>,
    ) {
        self.say_refused(now, conn, claimed, reason, true, out);
    }

    pub(super) fn say_refused(
        &mut self,
        now: Instant,
        conn: ConnectionId,
        claimed: Option<NodeId>,
        reason: Refusal,
        by_peer: bool,
        out: &mut Vec<Output>,
    ) {
        let dial = self.connections.get(&conn).and_then(|connection| connection.dial);
        let address = dial.and_then(|dial| self.dials.address(dial)).cloned();
        *(if by_peer { &mut self.counters.refused_by_peer } else { &mut self.counters.refused }) += 1;
        out.push(Output::Event(Event::Refused { conn, address, claimed, reason, by_peer }));
        self.close(now, conn, CloseCause::Refused, out);
    }

    pub(super) fn malformed(&mut self, now: Instant, conn: ConnectionId, out: &mut Vec<Output>) {
        self.counters.malformed += 1;
        self.refuse(now, conn, Refusal::Malformed, out);
    }

    pub(super) fn close(&mut self, now: Instant, conn: ConnectionId, cause: CloseCause, out: &mut Vec<Output>) {
        if self.part(now, conn, Some(cause)) {
            out.push(Output::Close(conn, cause));
        }
    }

    pub(super) fn closed(&mut self, now: Instant, conn: ConnectionId) {
        self.part(now, conn, None);
        self.connections.remove(&conn);
    }

    /// The connection is used no more. Says whether it was.
    pub(super) fn part(&mut self, now: Instant, conn: ConnectionId, cause: Option<CloseCause>) -> bool {
        let Some(connection) = self.connections.get_mut(&conn) else { return false };
        let (how, peer) = match &connection.phase {
            Phase::Closing => return false,
            Phase::Handshake(handshake) => {
                self.timers.cancel(handshake.deadline(), Timer::Connection(conn));
                (Ended::Failed, None)
            }
            Phase::Idle { peer, .. } | Phase::InUse(peer) => (Ended::Good, Some(*peer)),
        };
        connection.shut();
        if let Some(dial) = connection.dial {
            let how = match cause {
                Some(CloseCause::Refused) => Ended::Refused,
                // Who is there is known, and connected.
                Some(CloseCause::Replaced) => Ended::Good,
                Some(CloseCause::Silent | CloseCause::Malformed | CloseCause::Stale | CloseCause::Removed) | None => {
                    how
                }
            };
            self.dials.ended(now, dial, how, &self.config, &mut self.rng);
        }
        if let Some(link) = peer.and_then(|peer| self.links.get_mut(&peer))
            && link.direct.as_ref().is_some_and(|direct| direct.conn == conn)
        {
            link.disconnect();
            // Others may have used it as a relay.
            self.dirty.extend(self.links.keys());
        }
        self.arm_dial();
        true
    }
}

/// Whether this start of a node has a direct link that works.
pub(super) fn is_reached(links: &BTreeMap<NodeId, Link>, node: NodeId, incarnation: Incarnation) -> bool {
    links.get(&node).is_some_and(|link| link.direct_ok && link.end.is_some_and(|end| end.incarnation == incarnation))
}

/// What a handshake may know.
pub(super) struct Known<'a> {
    pub(super) links: &'a BTreeMap<NodeId, Link>,
    pub(super) evicted: &'a BTreeSet<NodeId>,
    pub(super) generation: u64,
    pub(super) limit: usize,
}

impl Gate for Known<'_> {
    fn generation(&self, node: NodeId) -> u64 {
        self.links.get(&node).map_or(self.generation, |link| link.own.generation)
    }

    fn admit(&self, hello: &Hello, end: End) -> Result<(), Refusal> {
        if self.evicted.contains(&hello.node) && !planted!(EvictedAdmitted) {
            return Err(Refusal::Evicted);
        }
        let Some(link) = self.links.get(&hello.node) else {
            return if self.links.len() < self.limit { Ok(()) } else { Err(Refusal::Busy) };
        };
        let lower = end.incarnation < link.least || link.end.is_some_and(|known| end < known);
        if lower && !planted!(LowerIncarnationAdmitted) { Err(Refusal::LowerIncarnation) } else { Ok(()) }
    }
}
