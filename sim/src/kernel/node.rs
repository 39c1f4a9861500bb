//! A node: shards, their control plane, a clock, and what they say to each other. It knows nothing of networks and clients.

use core::time::Duration;
use std::collections::VecDeque;

use newtmq_base::{Incarnation, Instant, NodeId, SEED_BYTES, ShardId};
use newtmq_node::{
    Boot, ClusterBoot, Control, ControlBoot, Durability, FromControl, PlaceMessage, Replay, Shard, ShardConfig,
    ToControl,
};

use super::clock::Clock;
use super::disk::SharedDisk;
use super::purpose;
use super::records::Records;
use super::sn::NodeGateway;
use super::store::Store;
use crate::draw::Stream;
use crate::scenario::{NetSpec, NodeSpec};
use crate::whitebox::Watch;

/// Whether a node works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Up,
    /// Its shards were told to stop, or will be.
    Stopping {
        /// It starts again afterwards.
        restart: bool,
    },
    Down,
}

/// A node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) ix: u16,
    pub(super) state: State,
    /// It handles nothing until then.
    pub(super) paused_until: Option<Instant>,
    /// What came meanwhile, in order.
    pub(super) waiting: Vec<super::queue::Happening>,
    /// Counts its starts, from 1.
    pub(super) start: u32,
    /// Counts those since its disk was empty.
    pub(super) incarnation: u32,
    /// How often it has lost its disk.
    pub(super) wiped: u32,
    /// So many releases later than this one its program is, from its next start on.
    pub(super) later: u8,
    /// What it was when it ran last.
    pub(super) last_id: NodeId,
    /// It has no clients.
    pub(super) witness: bool,
    pub(super) clock: Clock,
    /// Survives it.
    pub(super) disk: SharedDisk,
    pub(super) store: Option<Store>,
    /// What it has stored of its cluster. Survives it, too.
    pub(super) records: Records,
    /// A sync of those is not waited for by anybody.
    pub(super) lazy: bool,
    /// How long those syncs take.
    pub(super) chance: Stream,
    pub(super) shards: Vec<Part>,
    pub(super) control: Option<Control>,
    pub(super) control_armed: Instant,
    /// For MQTT-SN, if any client speaks it.
    pub(super) gateway: Option<Box<NodeGateway>>,
    /// By source, then by destination; the control plane is behind the shards.
    pub(super) pairs: Vec<Pair>,
    /// Connections that its shards have.
    pub(super) connections: u32,
    /// All that it ever had.
    pub(super) connections_ever: u64,
    /// Shards that were told to stop.
    pub(super) told: u16,
    pub(super) pressure: u8,
}

/// A shard and its driver.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) shard: Shard,
    /// Link and generation of each slot's user.
    slots: Vec<(Option<u32>, u32)>,
    free: Vec<u32>,
    /// An event is in the queue for this time.
    pub(super) armed: Instant,
    /// Work is left over, and goes on then.
    pub(super) work_at: Option<Instant>,
    pub(super) chance: Stream,
    /// What is said to it takes so much longer.
    pub(super) lag: Duration,
    /// When the last command to it arrives; none overtakes another.
    pub(super) commanded_at: Instant,
    pub(super) watch: Watch,
}

/// What one shard, or the control plane, has said to another.
#[derive(Debug)]
pub(super) struct Pair {
    letters: VecDeque<(Instant, Letter)>,
    last: Instant,
    armed: Instant,
    chance: Stream,
}

/// What is said within a node.
#[derive(Debug)]
pub(super) enum Letter {
    Place(PlaceMessage),
    ToControl(ToControl),
    FromControl(FromControl),
}

impl Node {
    /// A node that has not started.
    pub(super) fn new(ix: u16, seed: u64, spec: NodeSpec) -> Node {
        Node {
            ix,
            state: State::Down,
            paused_until: None,
            waiting: Vec::new(),
            start: 0,
            incarnation: 0,
            wiped: 0,
            last_id: id_of(ix, 0),
            witness: spec.witness,
            later: spec.later,
            clock: Clock::new(),
            disk: SharedDisk::default(),
            store: None,
            records: Records::default(),
            lazy: false,
            chance: Stream::new(seed, purpose::RECORDS, u64::from(ix)),
            shards: Vec::new(),
            control: None,
            control_armed: Instant::NEVER,
            gateway: None,
            pairs: Vec::new(),
            connections: 0,
            connections_ever: 0,
            told: 0,
            pressure: 0,
        }
    }

    /// It is about to start.
    pub(super) fn begin(&mut self) {
        self.start += 1;
        self.incarnation += 1;
        self.last_id = self.id();
        self.state = State::Up;
    }

    /// Who it is for others.
    pub(super) fn id(&self) -> NodeId {
        id_of(self.ix, self.wiped)
    }

    /// Starts it, with nothing in its memory; what its store holds, if it has one.
    pub(super) fn boot(
        &mut self,
        now: Instant,
        seed: u64,
        shards: u16,
        config: &ShardConfig,
        cluster: Option<Box<ClusterBoot>>,
    ) -> Option<Replay> {
        let (node, incarnation) = (self.id(), Incarnation(u64::from(self.incarnation)));
        let clustered = cluster.is_some();
        let name = |of: u16| u64::from(self.ix) << 48 | u64::from(of) << 32 | u64::from(self.start);
        // Whoever starts it has seen to its disk.
        self.disk.borrow_mut().sync_fails = false;
        let stores = config.zones.iter().any(|zone| zone.durability != Durability::Memory);
        let opened = stores.then(|| Store::open(&self.disk, shards, Stream::new(seed, purpose::DISK, name(0))));
        let (store, replay) = opened.unzip();
        self.store = store;
        let shown = replay.as_ref().map_or(Instant::START, Replay::now);
        self.clock.start(now, shown);
        let wall = self.clock.wall(now);
        // As that of a data directory: a client's shard is the same one after a restart.
        let node_seed = Stream::new(seed, purpose::NODE_SEED, u64::from(self.ix) << 48).next_u64();
        let part = |shard: u16| {
            let mut chance = Stream::new(seed, purpose::SHARD_SEED, name(shard));
            let mut bytes = [0; SEED_BYTES];
            for part in bytes.chunks_exact_mut(8) {
                part.copy_from_slice(&chance.next_u64().to_le_bytes());
            }
            let boot = Boot {
                now: shown,
                wall,
                seed: bytes,
                node,
                incarnation,
                shard: ShardId(shard),
                shards,
                node_seed,
                clustered,
                claims: clustered,
            };
            Part {
                shard: Shard::new(config.clone(), boot),
                slots: Vec::new(),
                free: Vec::new(),
                armed: Instant::NEVER,
                work_at: None,
                chance: Stream::new(seed, purpose::WORK, name(shard)),
                lag: Duration::ZERO,
                commanded_at: Instant::START,
                watch: Watch::default(),
            }
        };
        self.shards = (0..shards).map(part).collect();
        let version = env!("CARGO_PKG_VERSION");
        let boot = ControlBoot { now: shown, wall, shards, version, node, incarnation, node_seed, cluster };
        self.control = Some(Control::new(config, boot));
        let sides = usize::from(shards) + 1;
        let pair = |at: usize| Pair::new(Stream::new(seed, purpose::PAIR, name(0) << 16 ^ at as u64));
        self.pairs = (0..sides * sides).map(pair).collect();
        replay
    }

    /// All that it had in memory is gone.
    pub(super) fn forget(&mut self) {
        self.state = State::Down;
        self.store = None;
        self.shards.clear();
        self.control = None;
        self.control_armed = Instant::NEVER;
        self.gateway = None;
        self.pairs.clear();
        (self.connections, self.told, self.pressure) = (0, 0, 0);
        self.paused_until = None;
    }

    pub(super) fn takes_connections(&self) -> bool {
        self.state == State::Up && !self.witness
    }

    /// The control plane's number among those who talk to each other.
    pub(super) fn control_side(&self) -> usize {
        self.shards.len()
    }

    /// Number of the way from one to another.
    pub(super) fn pair_of(&self, from: usize, to: usize) -> usize {
        from * (self.shards.len() + 1) + to
    }

    /// Source and destination of a way.
    pub(super) fn sides_of(&self, pair: usize) -> (usize, usize) {
        (pair / (self.shards.len() + 1), pair % (self.shards.len() + 1))
    }

    /// How much longer than others this one has to wait for what is said to it.
    pub(super) fn lag_of(&self, side: usize) -> Duration {
        self.shards.get(side).map_or(Duration::ZERO, |part| part.lag)
    }

    /// Whether nothing is under way between its shards.
    pub(super) fn is_silent(&self) -> bool {
        self.pairs.iter().all(|pair| pair.letters.is_empty())
    }
}

impl Part {
    /// A slot for a link; its number and generation.
    pub(super) fn take_slot(&mut self, link: u32) -> newtmq_base::ConnId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push((None, 0));
            u32::try_from(self.slots.len() - 1).expect("connections are fewer than 2^32")
        });
        let entry = &mut self.slots[slot as usize];
        *entry = (Some(link), entry.1 + 1);
        newtmq_base::ConnId { slot, generation: entry.1 }
    }

    /// Its user has gone.
    pub(super) fn free_slot(&mut self, slot: u32) {
        assert!(self.slots[slot as usize].0.take().is_some(), "a slot is given back once");
        self.free.push(slot);
    }

    /// The link that an output names.
    #[inline]
    pub(super) fn link_of(&self, conn: newtmq_base::ConnId) -> u32 {
        let (link, generation) = self.slots[conn.slot as usize];
        assert_eq!(generation, conn.generation, "an output for an earlier user of the slot");
        link.unwrap_or_else(|| panic!("an output for connection {conn}, which is gone"))
    }
}

/// Who a node is for others after it has lost its disk so many times.
pub(super) fn id_of(ix: u16, wiped: u32) -> NodeId {
    NodeId(u64::from(wiped) << 16 | (u64::from(ix) + 1))
}

/// Where shards may talk slowly at all, most of what they say comes fast: only then one letter overtakes what goes a longer
/// way.
fn delay_us(chance: &mut Stream, low: u64, high: u64) -> u64 {
    let delay = chance.between(low, high);
    if high - low < SLOW_US || chance.between(0, 15) == 0 { delay } else { low + (delay - low) / 16 }
}

impl Pair {
    fn new(chance: Stream) -> Pair {
        Pair { letters: VecDeque::new(), last: Instant::START, armed: Instant::NEVER, chance }
    }

    /// Says something; when an event has to be put into the queue, if it has to be.
    pub(super) fn say(&mut self, now: Instant, letter: Letter, lag: Duration, net: &NetSpec) -> Option<Instant> {
        let delay = delay_us(&mut self.chance, *net.shard_delay_us.start(), *net.shard_delay_us.end());
        self.last = self.last.max(now + Duration::from_micros(delay) + lag);
        self.letters.push_back((self.last, letter));
        self.arm()
    }

    /// The next that has arrived.
    pub(super) fn hear(&mut self, now: Instant) -> Option<Letter> {
        self.letters.pop_front_if(|(arrives, _)| *arrives <= now).map(|(_, letter)| letter)
    }

    /// Nothing takes longer than that from here on.
    pub(super) fn hurry(&mut self, by: Instant) -> Option<Instant> {
        for (arrives, _) in &mut self.letters {
            *arrives = by.min(*arrives);
        }
        self.last = self.last.min(by);
        self.arm()
    }

    pub(super) fn arm(&mut self) -> Option<Instant> {
        let arrives = self.letters.front()?.0;
        if arrives >= self.armed {
            return None;
        }
        self.armed = arrives;
        Some(arrives)
    }

    /// An event of this pair is here; false for one that was replaced by another.
    pub(super) fn fired(&mut self, now: Instant) -> bool {
        let due = self.armed <= now;
        if due {
            self.armed = Instant::NEVER;
        }
        due
    }
}

/// Delays between shards that vary by so much are slow.
const SLOW_US: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn number(letter: &Letter) -> u64 {
        let Letter::ToControl(ToControl::Installed { seq: version, .. }) = letter else { unreachable!() };
        *version
    }

    /// When each letter of a pair arrives, by its number.
    fn arrivals(pair: &mut Pair, net: &NetSpec) -> Vec<(u64, u64)> {
        for version in 0..50 {
            let letter = Letter::ToControl(ToControl::Installed { seq: version, retained: None });
            pair.say(Instant::from_nanos(version * 1_000), letter, Duration::ZERO, net);
        }
        (0..1_000)
            .flat_map(|micros| {
                let now = Instant::from_nanos(micros * 1_000);
                core::iter::from_fn(|| pair.hear(now)).map(|letter| (micros, number(&letter))).collect::<Vec<_>>()
            })
            .collect()
    }

    #[test]
    fn a_pair_keeps_its_order_and_pairs_interleave() {
        let net = NetSpec { shard_delay_us: 0..=100, ..NetSpec::default() };
        let [one, other] = [1, 2].map(|name| arrivals(&mut Pair::new(Stream::new(7, purpose::PAIR, name)), &net));
        for all in [&one, &other] {
            assert!(all.is_sorted_by_key(|(_, number)| *number) && all.len() == 50);
        }
        let earlier =
            |first: &[(u64, u64)], second: &[(u64, u64)]| (0..50).filter(|at| first[*at].0 < second[*at].0).count();
        assert!(earlier(&one, &other) > 5 && earlier(&other, &one) > 5, "either is ahead at times");
    }

    #[test]
    fn lag_makes_late_and_its_end_hurries() {
        let net = NetSpec { shard_delay_us: 0..=0, ..NetSpec::default() };
        let mut pair = Pair::new(Stream::new(7, purpose::PAIR, 1));
        let letter = |version| Letter::ToControl(ToControl::Installed { seq: version, retained: None });
        assert_eq!(
            pair.say(Instant::START, letter(1), Duration::from_secs(60), &net),
            Some(Instant::from_millis(60_000))
        );
        assert_eq!(pair.hurry(Instant::from_millis(5)), Some(Instant::from_millis(5)));
        assert_eq!(pair.say(Instant::from_millis(1), letter(2), Duration::ZERO, &net), None);
        let now = Instant::from_millis(5);
        assert!(pair.fired(now));
        assert_eq!([pair.hear(now), pair.hear(now)].map(|letter| number(&letter.unwrap())), [1, 2]);
    }
}
