//! All links of a node: it owns connections and peers, says whom to dial, and passes frames of neighbours on.
//!
//! Of a pair of nodes the one with the lower id decides which of their connections is used: the latest that has passed the
//! handshake. It says `Use` on it and closes the one before; the other node uses the one where it was told so last. So two
//! nodes that dial each other at the same time agree.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use newtmq_base::{Incarnation, Instant, NodeId, Rng, TimerQueue, planted};

pub use super::connection::{ConnectionId, Fill};

use super::config::Config;
use super::connection::{Connection, Phase};
use super::dial::{Address, DialId, Dials, Ended};
use super::event::{CloseCause, Counters, DownCause, Event, Input, Output, Unsent};
use super::frame::{End, Frame, Stream};
use super::handshake::{Accepted, Gate, Handshake, Step};
use super::hello::{Cookie, Hello, NONCE_BYTES, Refusal, Role};
use super::peer::{Link, Took, Turn};

/// Who this node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// The cluster's name, at most 255 bytes.
    pub cluster: String,
    /// The node.
    pub node: NodeId,
    /// Its start.
    pub incarnation: Incarnation,
    /// Its name for people, at most 255 bytes.
    pub name: String,
    /// The lowest version that it speaks.
    pub proto_min: u16,
    /// The highest version that it speaks.
    pub proto_max: u16,
    /// What it can do beyond that.
    pub features: u64,
    /// Its number of shards.
    pub shards: u16,
}

/// All links of a node.
#[derive(Debug)]
pub struct Links {
    pub(super) config: Config,
    pub(super) own: Own,
    cookie: Cookie,
    rng: Rng,
    meta: (u64, u64),
    /// Of links that begin now: it rises when one is forgotten.
    generation: u64,
    pub(super) connections: BTreeMap<ConnectionId, Connection>,
    pub(super) links: BTreeMap<NodeId, Link>,
    evicted: BTreeSet<NodeId>,
    dials: Dials,
    timers: TimerQueue<Timer>,
    dial_armed: Instant,
    /// Whom this node reaches directly, as it has told its neighbours.
    announced: Vec<NodeId>,
    /// Peers that have to be judged, or whose frames over a neighbour may go on.
    pub(super) dirty: BTreeSet<NodeId>,
    pub(super) counters: Counters,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Dial,
    Connection(ConnectionId),
    Link(NodeId),
}

impl Links {
    /// Without peers. All chance comes from `rng`: nonces too, so it has to be seeded by the operating system in production.
    #[must_use]
    pub fn new(config: Config, own: Own, cookie: Cookie, rng: Rng) -> Links {
        Links {
            config,
            own,
            cookie,
            rng,
            meta: (0, 0),
            generation: 1,
            connections: BTreeMap::new(),
            links: BTreeMap::new(),
            evicted: BTreeSet::new(),
            dials: Dials::default(),
            timers: TimerQueue::default(),
            dial_armed: Instant::NEVER,
            announced: Vec::new(),
            dirty: BTreeSet::new(),
            counters: Counters::default(),
        }
    }

    /// Term and index of the meta group, for the Hello of later connections.
    pub fn set_meta(&mut self, term: u64, index: u64) {
        self.meta = (term, index);
    }

    /// Dials `address` whenever nobody who was reached there is connected. At most [`Config::address_limit`] of them.
    pub fn add_address(&mut self, now: Instant, address: Address) {
        if self.dials.add(now, address, &self.config, &mut self.rng).is_none() {
            self.counters.addresses_ignored += 1;
        }
        self.arm_dial();
    }

    /// Dials `address` no more; its connection stays.
    pub fn remove_address(&mut self, address: &Address) {
        self.dials.remove(address);
        self.arm_dial();
    }

    /// There is such a node, as others say; it may be reached over a neighbour. Starts before `incarnation` are refused.
    /// False if there are too many peers, or it was evicted.
    pub fn know(&mut self, now: Instant, node: NodeId, incarnation: Incarnation, out: &mut Vec<Output>) -> bool {
        if node == self.own.node || self.evicted.contains(&node) || !self.make(now, node) {
            return false;
        }
        let link = self.links.get_mut(&node).expect("it was made");
        link.least = link.least.max(incarnation);
        self.dirty.insert(node);
        self.settle(now, out);
        true
    }

    /// Forgets a node and closes its connection. If it comes back, both begin anew.
    pub fn remove(&mut self, now: Instant, node: NodeId, out: &mut Vec<Output>) {
        self.forget(now, node, None, out);
        self.settle(now, out);
    }

    /// A node was removed from the cluster: it is refused, and told so.
    pub fn evict(&mut self, now: Instant, node: NodeId, out: &mut Vec<Output>) {
        self.evicted.insert(node);
        self.forget(now, node, Some(Refusal::Evicted), out);
        self.settle(now, out);
    }

    /// Takes [`Links::evict`] back.
    pub fn readmit(&mut self, node: NodeId) {
        self.evicted.remove(&node);
    }

    /// Sends a frame. Control frames are taken while the peer is Down too, up to their limit.
    ///
    /// # Errors
    /// It was not taken, and is counted.
    pub fn send(
        &mut self,
        now: Instant,
        peer: NodeId,
        stream: Stream,
        payload: Bytes,
        out: &mut Vec<Output>,
    ) -> Result<(), Unsent> {
        let result = match self.links.get_mut(&peer) {
            Some(link) => link.push(stream, payload, &self.config),
            None => Err(Unsent::NoLink),
        };
        match result {
            Ok(()) => self.wake(now, peer, out),
            Err(Unsent::NoLink | Unsent::Down) => self.counters.unsent_down += 1,
            Err(Unsent::TooLarge) => self.counters.unsent_too_large += 1,
            Err(Unsent::Full) => match stream {
                Stream::Control => self.counters.unsent_control_full += 1,
                Stream::Data => self.counters.unsent_data_full += 1,
                Stream::Bulk => self.counters.unsent_bulk_full += 1,
            },
        }
        result
    }

    /// Something has happened.
    pub fn handle(&mut self, now: Instant, input: Input<'_>, out: &mut Vec<Output>) {
        match input {
            Input::Tick => self.tick(now, out),
            Input::Opened { conn, dial, tls } => self.opened(now, conn, dial, tls, out),
            Input::DialFailed(dial) => {
                self.dials.ended(now, dial, Ended::Failed, &self.config, &mut self.rng);
                self.arm_dial();
            }
            Input::Bytes { conn, data } => self.bytes(now, conn, data, out),
            Input::Closed(conn) => self.closed(now, conn),
        }
        self.settle(now, out);
    }

    /// When [`Input::Tick`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.next().map(|(at, _)| at)
    }

    /// Appends what is to be written to a connection: `room` bytes of it or at most one frame more.
    pub fn fill(&mut self, now: Instant, conn: ConnectionId, buffer: &mut Vec<u8>, room: usize) -> Fill {
        let Some(connection) = self.connections.get_mut(&conn) else { return Fill::Drained };
        let link = connection.in_use().and_then(|peer| self.links.get_mut(&peer));
        connection.fill(conn, now, link, &self.announced, &self.config, (buffer, room))
    }

    /// What was counted since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn make(&mut self, now: Instant, node: NodeId) -> bool {
        if !self.links.contains_key(&node) {
            if self.links.len() >= self.config.peer_limit {
                return false;
            }
            let own = End { incarnation: self.own.incarnation, generation: self.generation };
            self.links.insert(node, Link::new(now, node, own));
        }
        true
    }

    fn forget(&mut self, now: Instant, node: NodeId, reason: Option<Refusal>, out: &mut Vec<Output>) {
        let of_node: Vec<ConnectionId> =
            self.connections.iter().filter(|(_, c)| c.peer() == Some(node)).map(|(id, _)| *id).collect();
        for conn in of_node {
            if let Some(reason) = reason {
                self.refuse(now, conn, reason, out);
            } else {
                self.close(now, conn, CloseCause::Removed, out);
            }
        }
        let Some(link) = self.links.remove(&node) else { return };
        self.timers.cancel(link.armed, Timer::Link(node));
        self.dirty.remove(&node);
        self.generation += 1;
        if let (true, Some(end)) = (link.up, link.end) {
            let event = Event::Down { peer: node, incarnation: end.incarnation, cause: DownCause::Removed };
            out.push(Output::Event(event));
        }
        self.dirty.extend(self.links.keys());
        self.arm_dial();
    }

    fn tick(&mut self, now: Instant, out: &mut Vec<Output>) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Dial => {
                    self.dial_armed = Instant::NEVER;
                    let links = &self.links;
                    for (dial, address) in self.dials.due(now, &self.config, |node| is_wanted(links, node)) {
                        out.push(Output::Dial { dial, address });
                    }
                    self.arm_dial();
                }
                Timer::Connection(conn) => self.overdue(now, conn, out),
                Timer::Link(node) => {
                    if let Some(link) = self.links.get_mut(&node) {
                        link.armed = Instant::NEVER;
                        self.dirty.insert(node);
                    }
                }
            }
        }
    }

    fn overdue(&mut self, now: Instant, conn: ConnectionId, out: &mut Vec<Output>) {
        match self.connections.get(&conn).map(|connection| &connection.phase) {
            Some(Phase::Handshake(handshake)) if handshake.deadline() <= now => {
                self.refuse(now, conn, Refusal::Timeout, out);
            }
            Some(Phase::Idle { deadline, .. }) if *deadline <= now => self.close(now, conn, CloseCause::Silent, out),
            Some(Phase::Handshake(_) | Phase::Idle { .. } | Phase::InUse(_) | Phase::Closing) | None => {}
        }
    }

    fn opened(&mut self, now: Instant, conn: ConnectionId, dial: Option<DialId>, tls: bool, out: &mut Vec<Output>) {
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

    fn bytes(&mut self, now: Instant, conn: ConnectionId, data: &[u8], out: &mut Vec<Output>) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        connection.received += data.len() as u64;
        let mut decoder = core::mem::take(&mut connection.decoder);
        decoder.feed(data);
        if let Some(link) = connection.in_use().and_then(|peer| self.links.get_mut(&peer)) {
            link.heard(now, true);
        }
        while let Some(connection) = self.connections.get_mut(&conn) {
            let max = match connection.phase {
                Phase::Handshake(_) => self.config.max_handshake_frame,
                Phase::Idle { .. } | Phase::InUse(_) => self.config.max_frame,
                Phase::Closing => return,
            };
            match decoder.next(max) {
                Ok(Some(frame)) => self.frame(now, conn, frame, out),
                Ok(None) => break,
                Err(_) => return self.malformed(now, conn, out),
            }
        }
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        connection.decoder = decoder;
        if connection.in_use().is_some() && connection.received - connection.reported >= REPORT_BYTES {
            connection.ack_due = true;
            self.ready(conn, out);
        }
    }

    fn frame(&mut self, now: Instant, conn: ConnectionId, frame: &[u8], out: &mut Vec<Output>) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let peer = match &mut connection.phase {
            Phase::Handshake(handshake) => {
                let gate = Known {
                    links: &self.links,
                    evicted: &self.evicted,
                    generation: self.generation,
                    limit: self.config.peer_limit,
                };
                let step = handshake.receive(frame, &self.cookie, &gate, &mut connection.urgent);
                let claimed = handshake.claimed();
                if let (Step::Wait, Some(dial), Some((node, incarnation))) = (&step, connection.dial, claimed)
                    && is_reached(&self.links, node, incarnation)
                {
                    // Another address of a node that is connected, or both have dialed: one connection is enough.
                    self.dials.reached(dial, node);
                    return self.close(now, conn, CloseCause::Replaced, out);
                }
                return self.step(now, conn, step, claimed.map(|(node, _)| node), out);
            }
            Phase::Idle { peer, .. } | Phase::InUse(peer) => *peer,
            Phase::Closing => return,
        };
        let in_use = connection.in_use().is_some();
        match Frame::decode(frame) {
            Ok(Frame::Refused(reason)) => self.refused(now, conn, Some(peer), reason, out),
            Ok(Frame::Use) if peer < self.own.node => {
                if !in_use {
                    self.take_up(now, conn, peer, out);
                }
            }
            Ok(frame) if in_use => {
                if !self.in_use(now, conn, peer, &frame, out) {
                    self.malformed(now, conn, out);
                }
            }
            // Its sender will say which one is to be used.
            Ok(_) => {}
            Err(_) => self.malformed(now, conn, out),
        }
    }

    /// A frame of the connection in use. False if it should not have come.
    fn in_use(
        &mut self,
        now: Instant,
        conn: ConnectionId,
        peer: NodeId,
        frame: &Frame<'_>,
        out: &mut Vec<Output>,
    ) -> bool {
        match frame {
            Frame::Heartbeat(beat) => {
                self.heartbeat(now, peer, beat, true, out);
                if let (Some(link), Some(connection)) = (self.links.get(&peer), self.connections.get_mut(&conn)) {
                    if let Some(round_trip) = link.round_trip {
                        connection.adapt(round_trip, &self.config);
                    }
                    if connection.arrived(beat.received) {
                        self.ready(conn, out);
                    }
                }
            }
            Frame::Ack { received, acks } => {
                if let Some(link) = self.links.get_mut(&peer)
                    && !link.acknowledged(now, acks)
                {
                    return false;
                }
                if self.connections.get_mut(&conn).is_some_and(|connection| connection.arrived(*received)) {
                    self.ready(conn, out);
                }
                self.dirty.insert(peer);
            }
            Frame::Neighbours(nodes) => {
                if let Some(link) = self.links.get_mut(&peer) {
                    link.neighbours = nodes.iter().copied().collect();
                }
                self.dirty.extend(self.links.values().filter(|link| !link.direct_ok).map(|link| link.node));
            }
            Frame::Control { .. } | Frame::Run { .. } => self.arrive(peer, frame, out),
            Frame::Relay(passed) => self.pass_on(peer, passed, out),
            Frame::Relayed(passed) => return self.passed_on(now, passed, out),
            Frame::Hello(_) | Frame::Proof { .. } | Frame::Welcome | Frame::Refused(_) | Frame::Use => return false,
        }
        true
    }

    pub(super) fn heartbeat(
        &mut self,
        now: Instant,
        peer: NodeId,
        beat: &super::frame::Heartbeat,
        direct: bool,
        out: &mut Vec<Output>,
    ) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        if link.beat(now, beat, direct) {
            out.push(Output::Event(Event::Broken { peer }));
        }
        self.dirty.insert(peer);
    }

    pub(super) fn arrive(&mut self, peer: NodeId, frame: &Frame<'_>, out: &mut Vec<Output>) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        let (stream, payload) = match frame {
            Frame::Control { payload, .. } => (Stream::Control, payload),
            Frame::Run { bulk, payload, .. } => (if *bulk { Stream::Bulk } else { Stream::Data }, payload),
            Frame::Hello(_)
            | Frame::Proof { .. }
            | Frame::Welcome
            | Frame::Refused(_)
            | Frame::Use
            | Frame::Heartbeat(_)
            | Frame::Ack { .. }
            | Frame::Neighbours(_)
            | Frame::Relay(_)
            | Frame::Relayed(_) => return,
        };
        match link.arrive(frame) {
            Took::Frame => {
                let payload = Bytes::copy_from_slice(payload);
                out.push(Output::Frame { peer, stream, payload });
            }
            Took::Old => self.counters.received_old += 1,
            Took::Ahead => self.counters.received_ahead += 1,
            Took::Shut => self.counters.received_shut += 1,
        }
        self.dirty.insert(peer);
    }

    fn step(&mut self, now: Instant, conn: ConnectionId, step: Step, claimed: Option<NodeId>, out: &mut Vec<Output>) {
        match step {
            Step::Wait => self.ready(conn, out),
            Step::Refuse(reason) => self.say_refused(now, conn, claimed, reason, false, out),
            Step::Refused(reason) => self.refused(now, conn, claimed, reason, out),
            Step::Done(accepted) => self.accepted(now, conn, accepted, out),
        }
    }

    fn accepted(&mut self, now: Instant, conn: ConnectionId, accepted: Accepted, out: &mut Vec<Output>) {
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
    fn take_up(&mut self, now: Instant, conn: ConnectionId, peer: NodeId, out: &mut Vec<Output>) {
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

    fn refuse(&mut self, now: Instant, conn: ConnectionId, reason: Refusal, out: &mut Vec<Output>) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let claimed = match &mut connection.phase {
            Phase::Handshake(handshake) => handshake.claimed().map(|(node, _)| node),
            Phase::Idle { peer, .. } | Phase::InUse(peer) => Some(*peer),
            Phase::Closing => return,
        };
        Frame::Refused(reason).write(&mut connection.urgent);
        self.say_refused(now, conn, claimed, reason, false, out);
    }

    fn refused(
        &mut self,
        now: Instant,
        conn: ConnectionId,
        claimed: Option<NodeId>,
        reason: Refusal,
        out: &mut Vec<Output>,
    ) {
        self.say_refused(now, conn, claimed, reason, true, out);
    }

    fn say_refused(
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

    fn malformed(&mut self, now: Instant, conn: ConnectionId, out: &mut Vec<Output>) {
        self.counters.malformed += 1;
        self.refuse(now, conn, Refusal::Malformed, out);
    }

    fn close(&mut self, now: Instant, conn: ConnectionId, cause: CloseCause, out: &mut Vec<Output>) {
        if self.part(now, conn, Some(cause)) {
            out.push(Output::Close(conn, cause));
        }
    }

    fn closed(&mut self, now: Instant, conn: ConnectionId) {
        self.part(now, conn, None);
        self.connections.remove(&conn);
    }

    /// The connection is used no more. Says whether it was.
    fn part(&mut self, now: Instant, conn: ConnectionId, cause: Option<CloseCause>) -> bool {
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

    /// Judges the peers that something has happened to, until nothing changes.
    fn settle(&mut self, now: Instant, out: &mut Vec<Output>) {
        while let Some(peer) = self.dirty.pop_first() {
            self.judge(now, peer, out);
        }
    }

    fn judge(&mut self, now: Instant, peer: NodeId, out: &mut Vec<Output>) {
        let Some(link) = self.links.get_mut(&peer) else { return };
        if link.judge_direct(now, &self.config) {
            self.counters.damped += u64::from(link.direct_damper.holds(now));
            self.announce(out);
        }
        let Some(link) = self.links.get_mut(&peer) else { return };
        let turn = link.judge(now, &self.config);
        if let (Some(turn), Some(end)) = (turn, link.end) {
            let incarnation = end.incarnation;
            match turn {
                Turn::Up => out.push(Output::Event(Event::Up { peer, incarnation })),
                Turn::Down { cause, dropped } => {
                    self.counters.dropped_down += dropped as u64;
                    self.counters.damped += u64::from(link.damper.holds(now));
                    out.push(Output::Event(Event::Down { peer, incarnation, cause }));
                }
            }
        }
        if let Some(direct) = &link.direct
            && direct.signs.alive_at().is_none_or(|at| now - at >= self.config.detect)
        {
            let conn = direct.conn;
            self.close(now, conn, CloseCause::Silent, out);
        }
        self.choose_path(now, peer, out);
        let Some(link) = self.links.get_mut(&peer) else { return };
        if now >= link.next_beat {
            link.beat_due = true;
            link.next_beat = now + self.config.heartbeat;
        }
        self.wake(now, peer, out);
        let Some(link) = self.links.get_mut(&peer) else { return };
        let at = link.next_change(now, &self.config);
        if at != link.armed {
            self.timers.cancel(link.armed, Timer::Link(peer));
            self.timers.arm(at, Timer::Link(peer));
            link.armed = at;
        }
    }

    /// Tells the neighbours whom this node reaches directly, if that has changed.
    fn announce(&mut self, out: &mut Vec<Output>) {
        let reached: Vec<NodeId> = self.links.values().filter(|link| link.direct_ok).map(|link| link.node).collect();
        if reached == self.announced {
            return;
        }
        self.announced = reached;
        let in_use: Vec<ConnectionId> =
            self.connections.iter().filter(|(_, c)| c.in_use().is_some()).map(|(id, _)| *id).collect();
        for conn in in_use {
            self.connections.get_mut(&conn).expect("it was listed").neighbours_due = true;
            self.ready(conn, out);
        }
        self.dirty.extend(self.links.values().filter(|link| !link.direct_ok).map(|link| link.node));
    }

    /// Tells the driver that a connection has something to be written, once.
    pub(super) fn ready(&mut self, conn: ConnectionId, out: &mut Vec<Output>) {
        if let Some(connection) = self.connections.get_mut(&conn)
            && !core::mem::replace(&mut connection.ready, true)
        {
            out.push(Output::Ready(conn));
        }
    }

    fn arm_dial(&mut self) {
        let at = self.dials.next_deadline(|node| is_wanted(&self.links, node));
        if at != self.dial_armed {
            self.timers.cancel(self.dial_armed, Timer::Dial);
            self.timers.arm(at, Timer::Dial);
            self.dial_armed = at;
        }
    }
}

fn is_wanted(links: &BTreeMap<NodeId, Link>, node: NodeId) -> bool {
    links.get(&node).is_none_or(|link| link.direct.is_none())
}

/// Whether this start of a node has a direct link that works.
fn is_reached(links: &BTreeMap<NodeId, Link>, node: NodeId, incarnation: Incarnation) -> bool {
    links.get(&node).is_some_and(|link| link.direct_ok && link.end.is_some_and(|end| end.incarnation == incarnation))
}

/// What a handshake may know.
struct Known<'a> {
    links: &'a BTreeMap<NodeId, Link>,
    evicted: &'a BTreeSet<NodeId>,
    generation: u64,
    limit: usize,
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

/// A peer is told at least this often what has come, in bytes.
const REPORT_BYTES: u64 = 32 << 10;
