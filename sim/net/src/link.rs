//! The way between a client, or a node, and the nodes that it connects to: its latency, its faults, and the connections
//! on it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::alarm::{nanos, until};
use crate::chance::Chance;
use crate::conn::Conn;
use crate::net::Net;
use crate::stream::SimStream;

/// What a link is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkSpec {
    /// Microseconds that something is under way, from and to: away from who connects, and toward it.
    pub latency_us: [(u64, u64); 2],
    /// Of a million packets so many are lost; each comes a retransmission later.
    pub loss_ppm: u32,
    /// Milliseconds of a retransmission.
    pub retransmit_ms: u64,
    /// Sizes in bytes, from and to, of the pieces that what is written is cut into.
    pub chunk_bytes: (u64, u64),
    /// Bytes that the reader has not taken and the writer need not keep: above it the writer waits.
    pub socket_bytes: usize,
    /// Milliseconds until a connection that nobody answers is given up.
    pub syn_timeout_ms: u64,
    /// Some of it is under way up to so many microseconds more: little of it long, much of it a little.
    pub tail_us: u64,
    /// Of a million datagrams so many come twice.
    pub dup_ppm: u32,
    /// Bytes a second of each connection, each way, unless something else is set; 0 for no limit.
    pub bytes_per_s: u64,
}

impl Default for LinkSpec {
    fn default() -> LinkSpec {
        LinkSpec {
            latency_us: [(100, 1_000); 2],
            loss_ppm: 0,
            retransmit_ms: 200,
            chunk_bytes: (1_400, 1_400),
            socket_bytes: 64 << 10,
            syn_timeout_ms: 10_000,
            tail_us: 0,
            dup_ppm: 0,
            bytes_per_s: 0,
        }
    }
}

/// A link. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Link {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Whose links these are, too.
    net: Weak<Net>,
    ip: IpAddr,
    spec: LinkSpec,
    seed: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    cut: [bool; 2],
    /// Microseconds more.
    slow_us: [u64; 2],
    /// Bytes a second; 0 for that of the link.
    bandwidth: [u64; 2],
    /// Connections so far.
    count: u64,
    /// Datagrams so far.
    datagrams: u64,
    conns: Vec<Weak<Conn>>,
}

impl Link {
    /// A link of who has this address; `seed` decides all that happens on it by chance.
    #[must_use]
    pub fn new(net: &Arc<Net>, ip: IpAddr, spec: LinkSpec, seed: u64) -> Link {
        Link { shared: Arc::new(Shared { net: Arc::downgrade(net), ip, spec, seed, state: Mutex::default() }) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn net(&self) -> Arc<Net> {
        self.shared.net.upgrade().expect("a link is used in its runtime")
    }

    /// Connects. SYN is sent again after 1, 2, 4 s and so on while nobody answers.
    ///
    /// # Errors
    /// Nobody listens there (`ConnectionRefused`), or nobody answers in time (`TimedOut`).
    pub async fn connect(&self, to: SocketAddr) -> io::Result<SimStream> {
        let Shared { ip, spec, seed, .. } = &*self.shared;
        let net = self.net();
        let time = net.time();
        let number = {
            let mut state = self.lock();
            state.count += 1;
            state.count
        };
        let mut chance = Chance::new(*seed, number, 2);
        let end = nanos(time) + spec.syn_timeout_ms * 1_000_000;
        let mut wait = SYN_RETRY;
        loop {
            let again = nanos(time) + wait;
            // Draws before anything that depends on the world: each attempt takes as many.
            let slow_us = self.lock().slow_us;
            let [up, down, third] = [0, 1, 0].map(|direction: usize| {
                let tail = chance.tail_nanos(spec.tail_us);
                (chance.between(spec.latency_us[direction]) + slow_us[direction]) * 1_000 + tail
            });
            let lost = chance.ppm(spec.loss_ppm) || chance.ppm(spec.loss_ppm);
            until(time, (nanos(time) + up).min(end)).await;
            let listener = net.listener(to);
            let answers = listener.as_ref().map_or(!net.is_dark(to.ip()), |listener| !listener.is_full());
            let reached = !lost && answers && self.lock().cut == [false; 2];
            if reached && nanos(time) < end {
                until(time, nanos(time) + down).await;
                let Some(listener) = listener else { return Err(io::ErrorKind::ConnectionRefused.into()) };
                let from = SocketAddr::new(*ip, FIRST_PORT + (number % PORTS) as u16);
                let chances = [0, 1, 3].map(|purpose| Chance::new(*seed, number, purpose));
                let nodes = [madsim::plugin::node(), listener.node];
                let conn = Arc::new(Conn::new(time, *spec, chances, nodes, [from, to]));
                self.enter(&conn);
                let arrives = nanos(time) + third;
                conn.accepted_at(arrives);
                // Without a listener the other end is dropped and so the connection closed.
                let accepted = SimStream::new(Arc::clone(&conn), 1);
                if net.listener(to).is_some_and(|now| Arc::ptr_eq(&now, &listener)) {
                    listener.push(time, arrives, accepted);
                } else {
                    accepted.reset();
                }
                return Ok(SimStream::new(conn, 0));
            }
            if again >= end {
                until(time, end).await;
                return Err(io::ErrorKind::TimedOut.into());
            }
            until(time, again).await;
            wait *= 2;
        }
    }

    /// A connection is on this link, with its faults.
    fn enter(&self, conn: &Arc<Conn>) {
        let mut state = self.lock();
        state.conns.retain(|conn| conn.upgrade().is_some_and(|conn| conn.is_alive()));
        state.conns.push(Arc::downgrade(conn));
        for direction in 0..2 {
            conn.set_speed(direction, state.slow_us[direction], self.bandwidth(state.bandwidth[direction]));
        }
        conn.cut(state.cut);
        self.net().enter(conn);
    }

    fn each(&self, change: impl FnOnce(&mut State), apply: impl Fn(&Conn)) {
        let mut state = self.lock();
        change(&mut state);
        for conn in state.conns.iter().filter_map(Weak::upgrade) {
            apply(&conn);
        }
    }

    /// Nothing arrives any more, away from who connects or toward it; what was cut before stays so.
    pub fn cut(&self, away: bool, toward: bool) {
        let cut = [away, toward];
        let add = |state: &mut State| state.cut = [state.cut[0] || away, state.cut[1] || toward];
        self.each(add, |conn| conn.cut(cut));
    }

    /// The end of every cut: what was cut off arrives.
    pub fn heal(&self) {
        self.each(|state| state.cut = [false; 2], Conn::heal);
    }

    /// So many bytes a second each way; 0 for no limit.
    pub fn set_bandwidth(&self, bytes_per_s: u64) {
        for direction in 0..2 {
            self.set_speed(direction, 0, bytes_per_s);
        }
    }

    /// Cuts one direction off or heals it: 0 is away from who connects, 1 toward it.
    pub fn set_cut(&self, direction: usize, cut: bool) {
        let directions = [direction == 0, direction == 1];
        let apply = |conn: &Conn| if cut { conn.cut(directions) } else { conn.heal_some(directions) };
        self.each(|state| state.cut[direction] = cut, apply);
    }

    /// In one direction everything is under way for so much longer, with so many bytes a second; 0 for no limit.
    pub fn set_speed(&self, direction: usize, slow_us: u64, bytes_per_s: u64) {
        let bandwidth = self.bandwidth(bytes_per_s);
        let change = |state: &mut State| {
            (state.slow_us[direction], state.bandwidth[direction]) = (slow_us, bytes_per_s);
        };
        self.each(change, |conn| conn.set_speed(direction, slow_us, bandwidth));
    }

    fn bandwidth(&self, bytes_per_s: u64) -> u64 {
        if bytes_per_s == 0 { self.shared.spec.bytes_per_s } else { bytes_per_s }
    }

    /// When each copy of a datagram arrives that is sent away now; none if it is lost.
    pub(crate) fn datagram(&self, now: u64) -> impl Iterator<Item = u64> + use<> {
        let Shared { spec, seed, .. } = &*self.shared;
        let (number, cut, slow_us) = {
            let mut state = self.lock();
            state.datagrams += 1;
            (state.datagrams, state.cut[0], state.slow_us[0])
        };
        let mut chance = Chance::new(seed.rotate_left(32), number, 0);
        let (lost, twice) = (chance.ppm(spec.loss_ppm), chance.ppm(spec.dup_ppm));
        let copies = if cut || lost { 0 } else { 1 + usize::from(twice) };
        let spec = *spec;
        (0..copies).map(move |_| {
            let tail = chance.tail_nanos(spec.tail_us);
            now + (chance.between(spec.latency_us[0]) + slow_us) * 1_000 + tail
        })
    }
}

/// Nanoseconds until SYN is sent again.
const SYN_RETRY: u64 = 1_000_000_000;
const FIRST_PORT: u16 = 40_000;
const PORTS: u64 = 20_000;
