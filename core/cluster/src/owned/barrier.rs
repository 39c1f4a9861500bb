//! Who waits until others know of a route, and for whom.
//!
//! A SUBACK waits for the newest version of the node's log at the time of its SUBSCRIBE, whether or not that made an entry:
//! somebody else's entry of the same filter may not be everywhere yet. *Fast* waits for every peer that is not masked and
//! has had the whole log once, and gives up after a time. *Strict* waits for every peer that may acknowledge publishes
//! (see `lease.rs`), until it has the version or its lease has ended.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use newtmq_base::{Incarnation, Instant, NodeId, planted};

/// Names something that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BarrierId(pub u64);

/// For whom a SUBACK waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// For those that can be reached, and not for long.
    Fast,
    /// For all that may acknowledge publishes.
    Strict,
}

/// The end of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// Which.
    pub barrier: BarrierId,
    /// Whether all for whom it was have the version. Otherwise the time was over, or too many waited.
    pub complete: bool,
}

#[derive(Debug)]
struct Peer {
    inc: Incarnation,
    masked: bool,
    /// It has had an answer with which it had the whole log, and may have opened it since.
    reading: bool,
    /// It is no member any more; only its lease counts.
    gone: bool,
    installed: u64,
    lease_until: Instant,
}

#[derive(Debug)]
struct Waiting {
    barrier: BarrierId,
    version: u64,
    until: Instant,
}

#[derive(Debug)]
pub(crate) struct Barriers {
    peers: BTreeMap<NodeId, Peer>,
    /// What the own shards have installed.
    installed: u64,
    fast: VecDeque<Waiting>,
    strict: VecDeque<Waiting>,
    next: u64,
    /// No strict one ends before: an earlier incarnation may have given leases.
    strict_from: Instant,
    timeout: Duration,
    waiting_max: usize,
}

impl Barriers {
    pub(crate) fn new(strict_from: Instant, timeout: Duration, waiting_max: usize) -> Barriers {
        Barriers {
            peers: BTreeMap::new(),
            installed: 0,
            fast: VecDeque::new(),
            strict: VecDeque::new(),
            next: 0,
            strict_from,
            timeout,
            waiting_max,
        }
    }

    /// Waits for a version, the newest one of the log.
    pub(crate) fn require(&mut self, now: Instant, version: u64, mode: Mode, out: &mut Vec<Done>) -> BarrierId {
        self.next += 1;
        let barrier = BarrierId(self.next);
        let (queue, until) = match mode {
            Mode::Fast => (&mut self.fast, now + self.timeout),
            Mode::Strict => (&mut self.strict, Instant::NEVER),
        };
        if planted!(BarrierForNewRoutesOnly, queue.back().is_some_and(|other| other.version == version)) {
            out.push(Done { barrier, complete: true });
        } else if queue.len() >= self.waiting_max {
            out.push(Done { barrier, complete: false });
        } else {
            queue.push_back(Waiting { barrier, version, until });
            self.tick(now, out);
        }
        barrier
    }

    /// A peer is there. One that has started again has nothing.
    pub(crate) fn up(&mut self, node: NodeId, inc: Incarnation) {
        let lease_until = Instant::START;
        let new = Peer { inc, masked: false, reading: false, gone: false, installed: 0, lease_until };
        let peer = self.peers.entry(node).or_insert(new);
        if peer.inc < inc {
            // Who waits for the end of a lease goes on waiting: what was acknowledged is acknowledged.
            *peer =
                Peer { inc, masked: false, reading: false, gone: false, installed: 0, lease_until: peer.lease_until };
        }
        if peer.inc == inc {
            (peer.masked, peer.gone) = (false, false);
        }
    }

    /// A peer counts as down: nobody waits for it, except for its lease.
    pub(crate) fn down(&mut self, node: NodeId, inc: Incarnation) {
        if let Some(peer) = self.peers.get_mut(&node)
            && peer.inc <= inc
        {
            peer.masked = true;
        }
    }

    /// A peer is no member any more. Its lease goes on.
    pub(crate) fn forget(&mut self, now: Instant, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(&node) {
            (peer.masked, peer.reading, peer.gone) = (true, false, true);
        }
        self.peers.retain(|_, peer| !peer.gone || peer.lease_until > now);
    }

    pub(crate) fn incarnation(&self, node: NodeId) -> Option<Incarnation> {
        self.peers.get(&node).map(|peer| peer.inc)
    }

    pub(crate) fn is_masked(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_none_or(|peer| peer.masked)
    }

    /// A peer is sent the rest of the log: from now on it is waited for.
    pub(crate) fn has_whole(&mut self, node: NodeId) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.reading = true;
        }
    }

    /// Peers that are there and have had the whole log.
    pub(crate) fn readers(&self) -> impl Iterator<Item = NodeId> {
        self.peers.iter().filter(|(_, peer)| !peer.masked && peer.reading).map(|(node, _)| *node)
    }

    /// Peers that are there, and what they have installed.
    pub(crate) fn present(&self) -> impl Iterator<Item = (NodeId, u64)> {
        self.peers.iter().filter(|(_, peer)| !peer.masked).map(|(node, peer)| (*node, peer.installed))
    }

    /// All shards of a peer match by this version.
    pub(crate) fn peer_installed(&mut self, node: NodeId, version: u64) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.installed = peer.installed.max(version);
        }
    }

    /// All shards of this node match by this version.
    pub(crate) fn own_installed(&mut self, version: u64) {
        self.installed = self.installed.max(version);
    }

    /// What all shards of this node match by.
    pub(crate) fn own(&self) -> u64 {
        self.installed
    }

    /// A peer may acknowledge publishes until then: it is waited for.
    pub(crate) fn lease(&mut self, node: NodeId, until: Instant) {
        if let Some(peer) = self.peers.get_mut(&node) {
            peer.lease_until = peer.lease_until.max(until);
        }
    }

    /// Ends what has nothing to wait for, or for too long.
    pub(crate) fn tick(&mut self, now: Instant, out: &mut Vec<Done>) {
        let own = self.installed;
        let fast = self.peers.values().filter(|peer| !peer.masked && peer.reading);
        let fast = fast.map(|peer| peer.installed).fold(own, u64::min);
        while let Some(waiting) = self.fast.pop_front_if(|waiting| waiting.version <= fast || waiting.until <= now) {
            out.push(Done { barrier: waiting.barrier, complete: waiting.version <= fast });
        }
        if now < self.strict_from {
            return;
        }
        self.strict_from = Instant::START;
        for peer in self.peers.values_mut().filter(|peer| peer.lease_until <= now) {
            peer.lease_until = Instant::START;
        }
        self.peers.retain(|_, peer| !peer.gone || peer.lease_until > Instant::START);
        let strict = self.peers.values().filter(|peer| peer.lease_until > Instant::START);
        let strict = strict.map(|peer| peer.installed).fold(own, u64::min);
        while let Some(waiting) = self.strict.pop_front_if(|waiting| waiting.version <= strict) {
            out.push(Done { barrier: waiting.barrier, complete: true });
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let fast = self.fast.front().map(|waiting| waiting.until);
        let strict = self.strict.front().and_then(|waiting| {
            let behind = self.peers.values().filter(|peer| peer.installed < waiting.version);
            let leases = behind.map(|peer| peer.lease_until).filter(|until| *until > Instant::START);
            if self.strict_from > Instant::START { Some(self.strict_from) } else { leases.min() }
        });
        // Those that wait for the own shards alone are ended by them.
        fast.into_iter().chain(strict).min()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.fast.len() + self.strict.len()
    }
}
