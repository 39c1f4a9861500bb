//! The network between nodes: connections and datagrams over links that can be cut one way, slow, and lossy. It knows where
//! nodes are and whether somebody is there, never what they say. Who is told of it is in `cluster`.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeMap;

use newtmq_base::Instant;
use newtmq_cluster::link::{Address, ConnectionId, DialId};

use super::pipe::{Pipe, What, tail_nanos};
use super::purpose;
use super::queue::{Happening, Queue};
use super::wire::{ACCEPTOR, DIALER, End, Heard, Machine, NOBODY, Wire, end_of, name_of};
use crate::draw::Stream;
use crate::report::NodeTraffic;
use crate::scenario::NetSpec;

/// Where nodes listen.
const PORT: u16 = 4370;

/// The network between nodes.
#[derive(Debug)]
pub(super) struct Mesh {
    seed: u64,
    /// As connections between nodes see it.
    net: NetSpec,
    dup_ppm: u32,
    pub(super) traffic: NodeTraffic,
    hosts: Vec<Host>,
    /// By source, then by destination.
    ways: Vec<Way>,
    /// Those that somebody has.
    wires: BTreeMap<u32, Wire>,
    next_wire: u32,
    /// Datagrams under way, and places for more.
    packets: Vec<Option<Packet>>,
    free: Vec<u32>,
}

/// A machine.
#[derive(Debug, Clone, Copy)]
struct Host {
    address: SocketAddr,
    /// How often it has moved.
    moves: u8,
    moving: bool,
    state: Machine,
}

/// From one node to another.
#[derive(Debug)]
struct Way {
    cut: bool,
    slow_us: u64,
    /// 0 for the usual.
    bytes_per_s: u64,
    /// Connections so far.
    dials: u32,
    /// Of datagrams.
    chance: Stream,
}

/// A datagram.
#[derive(Debug)]
struct Packet {
    from: u16,
    to: u16,
    /// Where it came from and where it goes to: both can move meanwhile.
    source: SocketAddr,
    target: SocketAddr,
    bytes: Vec<u8>,
}

impl Mesh {
    pub(super) fn new(seed: u64, net: &NetSpec, nodes: u16) -> Mesh {
        let of = &net.nodes;
        let net = NetSpec {
            latency_us: of.latency_us.clone(),
            loss_ppm: of.loss_ppm,
            chunk_bytes: of.chunk_bytes.clone(),
            ..net.clone()
        };
        let way = |pair: u64| Way {
            cut: false,
            slow_us: 0,
            bytes_per_s: 0,
            dials: 0,
            chance: Stream::new(seed, purpose::PACKET, pair),
        };
        let count = u64::from(nodes);
        Mesh {
            seed,
            dup_ppm: net.nodes.dup_ppm,
            traffic: NodeTraffic::default(),
            net,
            hosts: (0..nodes).map(Host::new).collect(),
            ways: (0..count * count).map(|at| way((at / count) << 16 | (at % count))).collect(),
            wires: BTreeMap::new(),
            next_wire: 0,
            packets: Vec::new(),
            free: Vec::new(),
        }
    }

    /// Where a node is reached at present.
    pub(super) fn address(&self, node: u16) -> SocketAddr {
        self.hosts[usize::from(node)].address
    }

    /// A node that starts is at a new address if it was to move.
    pub(super) fn started(&mut self, node: u16) -> bool {
        let host = &mut self.hosts[usize::from(node)];
        host.state = Machine::On;
        let moved = core::mem::take(&mut host.moving);
        if moved {
            host.moves = host.moves.wrapping_add(1);
            host.address = address_of(node, host.moves);
        }
        moved
    }

    /// The next start of a node is at another address.
    pub(super) fn moves(&mut self, node: u16) {
        self.hosts[usize::from(node)].moving = true;
    }

    /// A node is gone. `crashed` says with its whole machine or without; its connections are told nothing then, or by
    /// chance.
    pub(super) fn stopped(&mut self, queue: &mut Queue, node: u16, crashed: Option<bool>) {
        let machine = if crashed == Some(true) { Machine::Off } else { Machine::Idle };
        self.hosts[usize::from(node)].state = machine;
        for (at, end) in self.ends_of(node) {
            let wire = self.wires.get_mut(&at).expect("just listed");
            if !matches!(wire.ends[end], End::Open | End::Asking(_)) {
                continue;
            }
            wire.ends[end] = End::Lost;
            wire.pipes[end].clear();
            let mut chance = Stream::new(self.seed, purpose::WIRE_END, u64::from(at) << 1 | end as u64);
            let told = match crashed {
                Some(machine) => !machine && chance.chance_ppm(500_000),
                None => true,
            };
            if told {
                wire.ends[end] = End::Closed;
                self.send(queue, at, end, What::Rst);
            }
            self.free_if_over(at);
        }
    }

    /// A node asks for a connection.
    pub(super) fn dial(&mut self, queue: &mut Queue, from: u16, dial: DialId, address: &Address, timeout: Duration) {
        let target: Option<SocketAddr> = address.0.parse().ok();
        let to = target.and_then(|target| self.node_at(target));
        let now = queue.now();
        let at = self.next_wire;
        self.next_wire += 1;
        self.traffic.dials += 1;
        let (pipes, acceptor) = match to {
            Some(to) => ([self.pipe(to, from), self.pipe(from, to)], End::Waiting),
            None => ([self.no_pipe(), self.no_pipe()], End::Closed),
        };
        let wire = Wire {
            nodes: [from, to.unwrap_or(NOBODY)],
            moves: [from, to.unwrap_or(from)].map(|node| self.hosts[usize::from(node)].moves),
            ends: [End::Asking(dial), acceptor],
            pipes,
            ready: [false; 2],
            blocked: [false; 2],
            closing: [false; 2],
        };
        self.wires.insert(at, wire);
        queue.push(now + timeout, Happening::DialTimeout(at));
        if to.is_some() {
            self.send(queue, at, DIALER, What::Syn);
        }
    }

    /// Nobody has answered in time: which dial has failed.
    pub(super) fn give_up(&mut self, at: u32) -> Option<(u16, DialId)> {
        let wire = self.wires.get_mut(&at)?;
        let End::Asking(dial) = wire.ends[DIALER] else { return None };
        let node = wire.nodes[DIALER];
        wire.ends[DIALER] = End::Closed;
        wire.pipes[ACCEPTOR].clear();
        self.free_if_over(at);
        Some((node, dial))
    }

    /// The next thing that a node hears of a connection, with its bytes.
    pub(super) fn hear(&mut self, queue: &mut Queue, at: u32, end: usize, bytes: &mut Vec<u8>) -> Option<Heard> {
        let now = queue.now();
        loop {
            let wire = self.wires.get_mut(&at)?;
            let machine = match self.hosts.get(usize::from(wire.nodes[end])) {
                Some(host) if host.moves == wire.moves[end] => host.state,
                Some(_) | None => Machine::Off,
            };
            let heard = wire.hear(now, end, machine, bytes);
            let other = 1 - end;
            if wire.blocked[other] && (wire.pipes[end].len() as u64) < self.net.nodes.socket_bytes {
                wire.blocked[other] = false;
                queue.push(now, Happening::WirePump { wire: at, end: other as u8 });
            }
            match heard {
                Some(Heard::Refuse) => {
                    self.send(queue, at, end, What::Rst);
                    self.free_if_over(at);
                }
                Some(Heard::Accept) => {
                    self.send(queue, at, end, What::Syn);
                    return Some(Heard::Opened(None));
                }
                None => {
                    self.arm(queue, at, end);
                    self.free_if_over(at);
                    return None;
                }
                heard => return heard,
            }
        }
    }

    /// An event for an end of a connection is here; false for one that was replaced by another.
    pub(super) fn fired(&mut self, now: Instant, at: u32, end: usize) -> bool {
        self.wires.get_mut(&at).is_some_and(|wire| wire.pipes[end].fired(now))
    }

    /// The node that has an end of a connection.
    pub(super) fn node_of(&self, at: u32, end: usize) -> Option<u16> {
        self.wires.get(&at).map(|wire| wire.nodes[end]).filter(|node| *node != NOBODY)
    }

    /// A node has something to write, or wants a connection closed.
    pub(super) fn wants(&mut self, queue: &mut Queue, conn: ConnectionId, close: bool) {
        let (at, end) = end_of(conn);
        let Some(wire) = self.wires.get_mut(&at) else { return };
        wire.ready[end] |= !close;
        wire.closing[end] |= close;
        if close || !wire.blocked[end] {
            queue.push(queue.now(), Happening::WirePump { wire: at, end: end as u8 });
        }
    }

    /// What a node writes to, and how many bytes it takes; none if there is nothing to do for it.
    pub(super) fn writer(&mut self, at: u32, end: usize) -> Option<(ConnectionId, &mut Vec<u8>, usize)> {
        let most = usize::try_from(self.net.nodes.socket_bytes).unwrap_or(usize::MAX);
        let wire = self.wires.get_mut(&at)?;
        if wire.ends[end] != End::Open || !(wire.ready[end] || wire.closing[end]) {
            return None;
        }
        // What is left of a connection that is closed goes whole: nobody waits for it.
        let room = if wire.closing[end] { usize::MAX } else { most.saturating_sub(wire.pipes[1 - end].len()) };
        wire.blocked[end] = room == 0;
        (room > 0).then(|| (name_of(at, end), wire.pipes[1 - end].buffer(), room))
    }

    /// So many bytes were put into what [`Mesh::writer`] gave; `drained` says that there are no more. True if the
    /// connection is closed now.
    pub(super) fn wrote(&mut self, queue: &mut Queue, at: u32, end: usize, len: usize, drained: bool) -> bool {
        self.traffic.stream_bytes += len as u64;
        let wire = self.wires.get_mut(&at).expect("the caller has just written to it");
        wire.pipes[1 - end].wrote(queue.now(), len, &self.net);
        wire.ready[end] &= !drained;
        let closed = wire.closing[end] && drained;
        if closed {
            wire.ends[end] = End::Closed;
            wire.pipes[end].clear();
            self.send(queue, at, end, What::Fin);
            self.free_if_over(at);
        } else if len > 0 {
            self.arm(queue, at, 1 - end);
        }
        closed
    }

    /// A node sends a datagram.
    pub(super) fn send_packet(&mut self, queue: &mut Queue, from: u16, to: SocketAddr, bytes: Vec<u8>) {
        self.traffic.datagrams += 1;
        self.traffic.datagram_bytes += bytes.len() as u64;
        let Some(node) = self.node_at(to).filter(|node| *node != from) else { return };
        let number = self.way_number(from, node);
        let (net, tail_us) = (&self.net, self.net.nodes.tail_us);
        let way = &mut self.ways[number];
        if way.cut || way.chance.chance_ppm(net.loss_ppm) {
            return;
        }
        let copies = 1 + usize::from(way.chance.chance_ppm(self.dup_ppm));
        let source = self.hosts[usize::from(from)].address;
        for _ in 0..copies {
            let way = &mut self.ways[number];
            let mut nanos = way.chance.between(*net.latency_us.start(), *net.latency_us.end()) * 1_000;
            if tail_us > 0 {
                nanos += tail_nanos(&mut way.chance, tail_us);
            }
            nanos += way.slow_us.saturating_mul(1_000);
            let packet = Packet { from, to: node, source, target: to, bytes: bytes.clone() };
            let place = self.free.pop().unwrap_or_else(|| {
                self.packets.push(None);
                u32::try_from(self.packets.len() - 1).expect("few datagrams are under way")
            });
            self.packets[place as usize] = Some(packet);
            queue.push(queue.now() + Duration::from_nanos(nanos), Happening::Packet(place));
        }
    }

    /// Who a datagram is for.
    pub(super) fn receiver(&self, place: u32) -> Option<u16> {
        self.packets[place as usize].as_ref().map(|packet| packet.to)
    }

    /// A datagram arrives: at whom, from where and what, unless it is lost.
    pub(super) fn take_packet(&mut self, place: u32) -> Option<(u16, SocketAddr, Vec<u8>)> {
        let packet = self.packets[place as usize].take()?;
        self.free.push(place);
        let host = self.hosts[usize::from(packet.to)];
        let cut = self.ways[self.way_number(packet.from, packet.to)].cut;
        let arrives = !cut && host.state == Machine::On && host.address == packet.target;
        arrives.then_some((packet.to, packet.source, packet.bytes))
    }

    /// Cuts or heals a link, one way. False if it is like that already, or there is none.
    pub(super) fn set_cut(&mut self, queue: &mut Queue, from: u16, to: u16, cut: bool) -> bool {
        let Some(way) = self.way(from, to).filter(|way| way.cut != cut) else { return false };
        way.cut = cut;
        let net = self.net.clone();
        self.each_pipe(queue, from, to, |now, pipe| if cut { pipe.cut() } else { pipe.heal(now, &net) });
        true
    }

    /// Whether nothing arrives on a link, one way or more.
    pub(super) fn is_cut(&self) -> bool {
        self.ways.iter().any(|way| way.cut)
    }

    /// Slows a link down, one way. False if it is like that already, or there is none.
    pub(super) fn set_slow(&mut self, queue: &mut Queue, from: u16, to: u16, slow_us: u64, bytes_per_s: u64) -> bool {
        let Some(way) = self.way(from, to).filter(|way| (way.slow_us, way.bytes_per_s) != (slow_us, bytes_per_s))
        else {
            return false;
        };
        (way.slow_us, way.bytes_per_s) = (slow_us, bytes_per_s);
        let net = self.net.clone();
        let bandwidth = if bytes_per_s == 0 { net.nodes.bytes_per_s } else { bytes_per_s };
        self.each_pipe(queue, from, to, |now, pipe| {
            pipe.set_slow(now, Duration::from_micros(slow_us), &net);
            pipe.set_bandwidth(now, bandwidth, &net);
        });
        true
    }

    /// Does something to each connection's way from one node to another.
    fn each_pipe(&mut self, queue: &mut Queue, from: u16, to: u16, mut change: impl FnMut(Instant, &mut Pipe)) {
        let now = queue.now();
        for (at, end) in self.ends_of(to) {
            let wire = self.wires.get_mut(&at).expect("just listed");
            if wire.nodes[1 - end] == from {
                change(now, &mut wire.pipes[end]);
                self.arm(queue, at, end);
            }
        }
    }

    /// Ends of connections that a node has, or had.
    fn ends_of(&self, node: u16) -> Vec<(u32, usize)> {
        let ends = |(at, wire): (&u32, &Wire)| {
            let at = *at;
            let nodes = wire.nodes;
            [DIALER, ACCEPTOR].into_iter().filter(move |end| nodes[*end] == node).map(move |end| (at, end))
        };
        self.wires.iter().flat_map(ends).collect()
    }

    fn node_at(&self, address: SocketAddr) -> Option<u16> {
        self.hosts.iter().position(|host| host.address == address).map(|at| at as u16)
    }

    fn way_number(&self, from: u16, to: u16) -> usize {
        usize::from(from) * self.hosts.len() + usize::from(to)
    }

    fn way(&mut self, from: u16, to: u16) -> Option<&mut Way> {
        let count = self.hosts.len() as u16;
        if from == to || from >= count || to >= count {
            return None;
        }
        let at = self.way_number(from, to);
        self.ways.get_mut(at)
    }

    /// One way of a new connection.
    fn pipe(&mut self, from: u16, to: u16) -> Pipe {
        let (seed, of) = (self.seed, &self.net.nodes);
        let (usual, tail_us) = (of.bytes_per_s, of.tail_us);
        let number = self.way_number(from, to);
        let way = &mut self.ways[number];
        way.dials += 1;
        let name = u64::from(from) << 48 | u64::from(to) << 32 | u64::from(way.dials);
        let bandwidth = if way.bytes_per_s == 0 { usual } else { way.bytes_per_s };
        Pipe::new(Stream::new(seed, purpose::WIRE, name), bandwidth, way.cut)
            .with_tail(Duration::from_micros(way.slow_us), tail_us)
    }

    fn no_pipe(&self) -> Pipe {
        Pipe::new(Stream::new(self.seed, purpose::WIRE, u64::MAX), 0, true)
    }

    /// An end sends something that has no bytes.
    fn send(&mut self, queue: &mut Queue, at: u32, end: usize, what: What) {
        let Some(wire) = self.wires.get_mut(&at) else { return };
        wire.pipes[1 - end].send(queue.now(), what, &self.net);
        self.arm(queue, at, 1 - end);
    }

    fn arm(&mut self, queue: &mut Queue, at: u32, end: usize) {
        if let Some(arrives) = self.wires.get_mut(&at).and_then(|wire| wire.pipes[end].arm()) {
            queue.push(arrives, Happening::Wire { wire: at, end: end as u8 });
        }
    }

    fn free_if_over(&mut self, at: u32) {
        if self.wires.get(&at).is_some_and(Wire::is_over) {
            self.wires.remove(&at);
        }
    }
}

impl Host {
    fn new(node: u16) -> Host {
        Host { address: address_of(node, 0), moves: 0, moving: false, state: Machine::Off }
    }
}

/// Where a node is reached after so many moves.
pub(super) fn address_of(node: u16, moves: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, moves, node as u8 + 1], PORT))
}

#[cfg(test)]
mod tests;
