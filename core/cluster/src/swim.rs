//! Membership as SWIM sees it: who answers. It says when a node is up and when it is down, and never who is a member: that
//! is for the meta group.
//!
//! The protocol is foca's. What is added here: identities that come back by themselves after they were declared down, our
//! own timer that calls at every known address where nobody is alive (so that two halves find each other in seconds), a
//! codec, and a tag by which packets of another cluster are told apart.

mod codec;
mod identity;
#[cfg(test)]
mod tests;

use core::net::SocketAddr;
use core::num::{NonZeroU8, NonZeroUsize};
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use foca::{AccumulatingRuntime, Foca, NoCustomBroadcast, PeriodicParams, Timer};
use hmac::{Hmac, KeyInit as _, Mac as _};
use newtmq_base::{Incarnation, Instant, NodeId, Put, Rng, Take, planted};
use sha2::Sha256;

use codec::WireCodec;
pub use identity::Identity;

/// What of SWIM is configuration. The defaults notice a dead node in about 3 to 7 s, and reunite two halves 5 to 10 s after
/// they can hear each other again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// A member is probed in each such interval.
    pub probe_period: Duration,
    /// After this long without an answer others are asked to probe. Shorter than `probe_period`.
    pub probe_rtt: Duration,
    /// How many others are asked.
    pub indirect_probes: NonZeroUsize,
    /// How often one piece of news is passed on.
    pub max_transmissions: NonZeroU8,
    /// How long a suspect may object before it counts as down.
    pub suspect_to_down_after: Duration,
    /// How long a down identity is remembered.
    pub remove_down_after: Duration,
    /// How often news is passed on without a probe.
    pub gossip_period: Duration,
    /// How often one member is asked for all members.
    pub announce_period: Duration,
    /// How often every known address where nobody is alive is called.
    pub reannounce_period: Duration,
    /// Largest datagram in bytes, sent or accepted; from 300 on.
    pub packet_bytes_max: usize,
    /// Largest number of configured addresses, and of nodes whose last address is remembered. What is above is left out and
    /// counted.
    pub peers_max: usize,
    /// Secret of the cluster: packets without a tag made with it are dropped and counted.
    pub key: Vec<u8>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            probe_period: Duration::from_secs(1),
            probe_rtt: Duration::from_millis(400),
            indirect_probes: NonZeroUsize::new(3).expect("3 is not 0"),
            max_transmissions: NonZeroU8::new(10).expect("10 is not 0"),
            suspect_to_down_after: Duration::from_secs(3),
            remove_down_after: Duration::from_secs(24 * 3600),
            gossip_period: Duration::from_millis(200),
            announce_period: Duration::from_secs(30),
            reannounce_period: Duration::from_secs(5),
            packet_bytes_max: 1400,
            peers_max: 1024,
            key: Vec::new(),
        }
    }
}

/// What is to be done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A datagram for an address.
    Send {
        /// Where to.
        to: SocketAddr,
        /// At most [`Config::packet_bytes_max`].
        bytes: Vec<u8>,
    },
    /// A node answers. Comes again for the same incarnation only with a [`Output::Down`] between them or with another
    /// address; an incarnation is never lower than the one before.
    Up {
        /// The node.
        node: NodeId,
        /// Its start.
        inc: Incarnation,
        /// Where it is.
        address: SocketAddr,
    },
    /// A node does not answer, has left, or has started anew (then its [`Output::Up`] follows).
    Down {
        /// The node.
        node: NodeId,
        /// The start that is over or out of reach.
        inc: Incarnation,
    },
}

/// What was refused or left out, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Packets with a wrong tag, of another version, or too long.
    pub foreign: u64,
    /// Packets whose tag is right and whose fields are not.
    pub malformed: u64,
    /// Packets of somebody else with our own node's id: its data directory was copied.
    pub twin: u64,
    /// Addresses that found no place.
    pub no_place: u64,
    /// How often we were declared down while we were not, and came back.
    pub renewed: u64,
}

/// One node's view of who answers.
pub struct Swim {
    config: Config,
    foca: Foca<Identity, WireCodec, FocaRng, NoCustomBroadcast>,
    runtime: AccumulatingRuntime<Identity>,
    timers: BTreeMap<(Instant, u64), Timer<Identity>>,
    next_timer: u64,
    reannounce_at: Instant,
    configured: BTreeSet<SocketAddr>,
    known: BTreeMap<NodeId, SocketAddr>,
    alive: BTreeMap<NodeId, (Incarnation, SocketAddr)>,
    counters: Counters,
    left: bool,
}

impl Swim {
    /// A node that knows nobody so far. `rng` decides all its choices. Nothing is sent before [`Swim::discovered`] or a
    /// packet names somebody.
    ///
    /// # Panics
    /// If a limit of the configuration makes no sense.
    #[must_use]
    pub fn new(config: Config, node: NodeId, inc: Incarnation, address: SocketAddr, rng: Rng, now: Instant) -> Swim {
        assert!(config.packet_bytes_max >= PACKET_BYTES_MIN, "a packet has room for a few members");
        assert!(config.probe_rtt < config.probe_period, "others are asked within the period of a probe");
        let identity = Identity { node, inc, bump: 0, address };
        let reannounce_at = now + config.reannounce_period;
        let foca = Foca::new(identity, foca_config(&config), FocaRng(rng), WireCodec);
        Swim {
            config,
            foca,
            runtime: AccumulatingRuntime::new(),
            timers: BTreeMap::new(),
            next_timer: 0,
            reannounce_at,
            configured: BTreeSet::new(),
            known: BTreeMap::new(),
            alive: BTreeMap::new(),
            counters: Counters::default(),
            left: false,
        }
    }

    /// A datagram has come. `from` is where to answer a node that calls for the first time. Anything may be in it.
    pub fn packet(&mut self, now: Instant, from: SocketAddr, bytes: &[u8], out: &mut Vec<Output>) {
        if self.left {
            return;
        }
        let Some((kind, body)) = self.opened(bytes) else {
            self.counters.foreign += 1;
            return;
        };
        match kind {
            KIND_FOCA => {
                let result = self.foca.handle_data(body, &mut self.runtime);
                self.note(result);
            }
            KIND_CALL => self.called(from, body),
            _ => self.counters.foreign += 1,
        }
        self.drain(now, out);
    }

    /// Time has passed. May come late, or for nothing.
    pub fn tick(&mut self, now: Instant, out: &mut Vec<Output>) {
        if self.left {
            return;
        }
        while self.timers.first_key_value().is_some_and(|((at, _), _)| *at <= now) {
            let (_, timer) = self.timers.pop_first().expect("it was there");
            let result = self.foca.handle_timer(timer, &mut self.runtime);
            self.note(result);
            self.drain(now, out);
        }
        if self.reannounce_at <= now {
            self.reannounce_at = now + self.config.reannounce_period;
            if !planted!(NobodyIsCalledAgain) {
                self.call_absent(out);
            }
        }
    }

    /// The addresses where members may be, instead of those that were given last. They are called at once, and again as long
    /// as nobody is alive there.
    pub fn discovered(&mut self, addresses: &[SocketAddr], out: &mut Vec<Output>) {
        if self.left {
            return;
        }
        self.configured = addresses.iter().copied().take(self.config.peers_max).collect();
        self.counters.no_place += addresses.len().saturating_sub(self.config.peers_max) as u64;
        self.call_absent(out);
    }

    /// A node is no member any more: its address is not called again, unless it is a configured one.
    pub fn forget(&mut self, node: NodeId) {
        self.known.remove(&node);
    }

    /// Tells the others that this node goes. Nothing is sent or accepted afterwards.
    pub fn leave(&mut self, now: Instant, out: &mut Vec<Output>) {
        if self.left {
            return;
        }
        let result = self.foca.leave_cluster(&mut self.runtime);
        self.note(result);
        // Each round picks a few members: some more of them hear it from us.
        for _ in 0..2 {
            let result = self.foca.gossip(&mut self.runtime);
            self.note(result);
        }
        self.drain(now, out);
        self.left = true;
        self.timers.clear();
        for (node, (inc, _)) in core::mem::take(&mut self.alive) {
            out.push(Output::Down { node, inc });
        }
    }

    /// When [`Swim::tick`] is to be called next; `None` after [`Swim::leave`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.left {
            return None;
        }
        let first = self.timers.first_key_value().map_or(Instant::NEVER, |((at, _), _)| *at);
        Some(first.min(self.reannounce_at))
    }

    /// Who is up, in order of ids: start and address. This node is not among them.
    pub fn alive(&self) -> impl Iterator<Item = (NodeId, Incarnation, SocketAddr)> + '_ {
        self.alive.iter().map(|(node, (inc, address))| (*node, *inc, *address))
    }

    /// What was refused so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// This node as others see it.
    #[must_use]
    pub fn identity(&self) -> Identity {
        *self.foca.identity()
    }

    // Somebody calls who may not know our id: an announcement answers, as if we had met.
    fn called(&mut self, from: SocketAddr, body: &[u8]) {
        let Ok(mut caller) = Identity::decode(body) else {
            self.counters.malformed += 1;
            return;
        };
        if caller.node == self.foca.identity().node {
            self.counters.twin += u64::from(caller.address != self.foca.identity().address);
            return;
        }
        // Only its own address can be wrong about where it is reached at this moment.
        if self.alive.get(&caller.node).is_none_or(|(_, address)| *address != caller.address) {
            caller.address = if caller.address.ip().is_unspecified() { from } else { caller.address };
        }
        let result = self.foca.announce(caller, &mut self.runtime);
        self.note(result);
    }

    fn call_absent(&self, out: &mut Vec<Output>) {
        let answering: BTreeSet<SocketAddr> = self.alive.values().map(|(_, address)| *address).collect();
        let absent = self.known.iter().filter(|(node, _)| !self.alive.contains_key(node)).map(|(_, address)| *address);
        self.call(absent.chain(self.configured.iter().copied().filter(|address| !answering.contains(address))), out);
    }

    fn call(&self, addresses: impl Iterator<Item = SocketAddr>, out: &mut Vec<Output>) {
        let here = self.foca.identity().address;
        let called: BTreeSet<SocketAddr> = addresses.filter(|address| *address != here).collect();
        let mut body = Vec::new();
        self.foca.identity().encode(&mut body);
        let bytes = sealed(&self.config.key, KIND_CALL, &body);
        out.extend(called.into_iter().map(|to| Output::Send { to, bytes: bytes.clone() }));
    }

    fn drain(&mut self, now: Instant, out: &mut Vec<Output>) {
        let (mut changed, mut renewed) = (false, 0);
        while let Some(notification) = self.runtime.to_notify() {
            changed = true;
            renewed += u64::from(matches!(notification, foca::OwnedNotification::Rejoin(_)));
        }
        self.counters.renewed += renewed;
        if renewed > 0 && !planted!(RenewedInSilence) {
            // What others send to our old identity does not come, and nobody who has renewed as well knows the new one.
            self.call(self.known.values().chain(&self.configured).copied(), out);
        }
        if changed && !self.left {
            self.compare(out);
        }
        while let Some((to, data)) = self.runtime.to_send() {
            out.push(Output::Send { to: to.address, bytes: sealed(&self.config.key, KIND_FOCA, &data) });
        }
        while let Some((after, timer)) = self.runtime.to_schedule() {
            self.next_timer += 1;
            self.timers.insert((now + after, self.next_timer), timer);
        }
    }

    // What foca holds for alive against what was told: a mere bump of an identity is no news to anybody.
    fn compare(&mut self, out: &mut Vec<Output>) {
        let mut present: BTreeMap<NodeId, (Incarnation, SocketAddr)> = BTreeMap::new();
        for member in self.foca.iter_members() {
            let Identity { node, inc, bump, address } = *member.id();
            let inc = if planted!(BumpIsIncarnation, bump > 0) { Incarnation(inc.0 + u64::from(bump)) } else { inc };
            present.insert(node, (inc, address));
        }
        for (node, (inc, _)) in &self.alive {
            if present.get(node).is_none_or(|(other, _)| other != inc) {
                out.push(Output::Down { node: *node, inc: *inc });
            }
        }
        for (node, place) in &present {
            if self.alive.get(node) != Some(place) {
                out.push(Output::Up { node: *node, inc: place.0, address: place.1 });
            }
            if self.known.len() < self.config.peers_max || self.known.contains_key(node) {
                self.known.insert(*node, place.1);
            } else {
                self.counters.no_place += 1;
            }
        }
        self.alive = present;
    }

    fn opened<'a>(&self, bytes: &'a [u8]) -> Option<(u8, &'a [u8])> {
        if bytes.len() > self.config.packet_bytes_max {
            return None;
        }
        let (tag, rest) = bytes.split_at_checked(TAG_BYTES)?;
        let mut mac = mac(&self.config.key);
        mac.update(rest);
        mac.verify_truncated_left(tag).ok()?;
        let [VERSION, kind, body @ ..] = rest else { return None };
        Some((*kind, body))
    }

    fn note(&mut self, result: Result<(), foca::Error>) {
        match result {
            Ok(()) => {}
            Err(foca::Error::DataFromOurselves) => self.counters.twin += 1,
            // A probe that timers cut short, or a packet that makes no sense: foca goes on by itself.
            Err(_) => self.counters.malformed += 1,
        }
    }
}

impl core::fmt::Debug for Swim {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Swim")
            .field("identity", self.foca.identity())
            .field("alive", &self.alive)
            .finish_non_exhaustive()
    }
}

// foca's choices come from our generator.
struct FocaRng(Rng);

impl rand_core::TryRng for FocaRng {
    type Error = core::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(self.0.next_u64() as u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(self.0.next_u64())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        self.0.fill(bytes);
        Ok(())
    }
}

fn foca_config(config: &Config) -> foca::Config {
    let one = NonZeroUsize::new(1).expect("1 is not 0");
    let data_bytes = config.packet_bytes_max - TAG_BYTES - 2;
    foca::Config {
        probe_period: config.probe_period,
        probe_rtt: config.probe_rtt,
        num_indirect_probes: config.indirect_probes,
        max_transmissions: config.max_transmissions,
        suspect_to_down_after: config.suspect_to_down_after,
        remove_down_after: Some(config.remove_down_after),
        max_packet_size: NonZeroUsize::new(data_bytes).expect("packets are longer than the tag"),
        // Without it a node that was declared down behind its back would never learn it.
        notify_down_members: true,
        periodic_announce: Some(PeriodicParams { frequency: config.announce_period, num_members: one }),
        // Our own timer does more: it also calls while nobody at all is alive.
        periodic_announce_to_down_members: None,
        periodic_gossip: Some(PeriodicParams { frequency: config.gossip_period, num_members: config.indirect_probes }),
    }
}

fn mac(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn sealed(key: &[u8], kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; TAG_BYTES];
    bytes.extend_from_slice(&[VERSION, kind]);
    bytes.extend_from_slice(body);
    let mut mac = mac(key);
    mac.update(&bytes[TAG_BYTES..]);
    let tag = mac.finalize().into_bytes();
    bytes[..TAG_BYTES].copy_from_slice(&tag[..TAG_BYTES]);
    bytes
}

const VERSION: u8 = 1;
const KIND_FOCA: u8 = 0;
const KIND_CALL: u8 = 1;
const TAG_BYTES: usize = 12;
const PACKET_BYTES_MIN: usize = 300;
