//! All links of a node: it owns connections and peers, says whom to dial, and passes frames of neighbours on.
//!
//! Of a pair of nodes the one with the lower id decides which of their connections is used: the latest that has passed the
//! handshake. It says `Use` on it and closes the one before; the other node uses the one where it was told so last. So two
//! nodes that dial each other at the same time agree.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use newtmq_base::{Incarnation, Instant, NodeId, Rng, TimerQueue};

pub use super::connection::{ConnectionId, Fill};

use super::config::Config;
use super::connection::{Connection, Phase};
use super::dial::{Address, Dials, Ended};
use super::event::{CloseCause, Counters, DownCause, Event, Input, Output, Unsent};
use super::frame::{End, Frame, Stream};
use super::handshake::Step;
use super::hello::{Cookie, Refusal};
use super::lifecycle::{Known, is_reached};
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
    pub(super) cookie: Cookie,
    pub(super) rng: Rng,
    pub(super) meta: (u64, u64),
    /// Of links that begin now: it rises when one is forgotten.
    pub(super) generation: u64,
    pub(super) connections: BTreeMap<ConnectionId, Connection>,
    pub(super) links: BTreeMap<NodeId, Link>,
    pub(super) evicted: BTreeSet<NodeId>,
    pub(super) dials: Dials,
    pub(super) timers: TimerQueue<Timer>,
    dial_armed: Instant,
    /// Whom this node reaches directly, as it has told its neighbours.
    announced: Vec<NodeId>,
    /// Peers that have to be judged, or whose frames over a neighbour may go on.
    pub(super) dirty: BTreeSet<NodeId>,
    pub(super) counters: Counters,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
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

    pub(super) fn make(&mut self, now: Instant, node: NodeId) -> bool {
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
            Frame::Control { .. } | Frame::Run { .. } => self.arrive(peer, frame, true, out),
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

    pub(super) fn arrive(&mut self, peer: NodeId, frame: &Frame<'_>, direct: bool, out: &mut Vec<Output>) {
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
        match link.arrive(frame, direct) {
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

    pub(super) fn arm_dial(&mut self) {
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

/// A peer is told at least this often what has come, in bytes.
const REPORT_BYTES: u64 = 32 << 10;
