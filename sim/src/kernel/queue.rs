//! The queue of events: small values in the order (time, sequence). It never looks into an event. What belongs to an event,
//! such as bytes, is kept by whoever waits for it, in order, so that one event stands for all that is under way on one way.

use std::collections::{BinaryHeap, VecDeque};

use newtmq_base::Instant;

/// Something that happens at a time. Links, clients and nodes are named by index; what names a node's part has the start
/// of the node that it belongs to, and comes to nothing after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Happening {
    /// The next step of the scenario.
    Step,
    /// Something reaches the server's machine.
    ToServer(u32),
    /// Something reaches the client's machine.
    ToClient(u32),
    /// The driver looks after a connection's output.
    Pump(u32),
    /// The driver passes on what it kept.
    Feed(u32),
    /// The driver closes a connection at once.
    Abort(u32),
    /// A connection reaches the shard of its client.
    Moved(u32),
    /// A shard or the control plane hears from another.
    Said { node: u16, pair: u16, start: u32 },
    /// A shard's deadline.
    Tick { node: u16, shard: u16, start: u32 },
    /// A node's disk has done something.
    Disk { node: u16, start: u32 },
    /// The control plane's deadline.
    ControlTick { node: u16, start: u32 },
    /// A shard hears from its driver or an operator.
    Admin { node: u16, shard: u16, start: u32, command: Command },
    /// Something reaches the machine at an end of a connection between nodes.
    Wire { wire: u32, end: u8 },
    /// The driver looks after what a node has for a connection with another one.
    WirePump { wire: u32, end: u8 },
    /// A dial has taken as long as it may.
    DialTimeout(u32),
    /// A datagram arrives.
    Packet(u32),
    /// A node's log of its cluster is synced.
    Records { node: u16, start: u32 },
    /// Discovery tells a node where others are.
    Discover { node: u16, start: u32 },
    /// An operator wants something of a node.
    Command { node: u16, start: u32, number: u32 },
    /// Links that flap go down or up.
    Flap(u32),
    /// A node starts for the first time.
    Begin(u16),
    /// A pause ends.
    Resume { node: u16, start: u32 },
    /// A node that stops has had its time.
    Stopped { node: u16, start: u32 },
    /// A datagram of MQTT-SN arrives.
    Datagram(u32),
    /// The deadline of a node's gateway for MQTT-SN.
    GatewayTick { node: u16, start: u32 },
    /// A client's deadline.
    Client(u32),
    /// All steps are done.
    Calm,
    /// The time to settle is over.
    Quiesce,
    /// Time passes, and nothing else: the end of [`super::World::advance`].
    Nothing,
}

/// What [`Happening::Admin`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Shutdown,
    MemoryPressure(u8),
}

/// Nanoseconds of a slot of the near future, as a power of two: 16 µs, in which little happens even when much goes on.
const SLOT_BITS: u32 = 14;
/// Slots: 2 ms, in which nearly everything arrives that is sent.
const SLOTS: u64 = 128;

/// Events to come. Of those at one time, the ones that were added long before it are in `later`, those that were added
/// shortly before it are in `near`, and those that were added at it are in `soon`: this is their order, too.
#[derive(Debug)]
pub(super) struct Queue {
    /// What happens at the present time, in order. Many events are such.
    soon: VecDeque<Happening>,
    /// By time, as far as slots go from now; few in each, in the order in which they were added.
    near: [Vec<(Instant, Happening)>; SLOTS as usize],
    /// Slots that are not empty, a bit each.
    taken: u128,
    /// The first of `near`.
    first: First,
    later: BinaryHeap<Later>,
    /// Counts what was added to `later`.
    sequence: u64,
    now: Instant,
}

/// Where in the near future an event is.
#[derive(Debug, Clone, Copy)]
struct First {
    at: Instant,
    slot: usize,
    place: usize,
}

impl First {
    /// There is none.
    const NONE: First = First { at: Instant::NEVER, slot: 0, place: 0 };
}

/// An event that is far away.
#[derive(Debug, Clone, Copy)]
struct Later {
    at: Instant,
    sequence: u64,
    what: Happening,
}

impl PartialEq for Later {
    fn eq(&self, other: &Later) -> bool {
        (self.at, self.sequence) == (other.at, other.sequence)
    }
}

impl Eq for Later {}

impl PartialOrd for Later {
    #[inline]
    fn partial_cmp(&self, other: &Later) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Later {
    /// The earliest is the greatest: a heap gives the greatest.
    #[inline]
    fn cmp(&self, other: &Later) -> core::cmp::Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

impl Default for Queue {
    fn default() -> Self {
        Queue {
            soon: VecDeque::new(),
            near: [const { Vec::new() }; SLOTS as usize],
            taken: 0,
            first: First::NONE,
            later: BinaryHeap::new(),
            sequence: 0,
            now: Instant::START,
        }
    }
}

impl Queue {
    /// Time of the last event.
    #[inline]
    pub(super) fn now(&self) -> Instant {
        self.now
    }

    /// Adds an event; one in the past happens now.
    #[inline]
    pub(super) fn push(&mut self, at: Instant, what: Happening) {
        if at == Instant::NEVER {
            return;
        }
        if at <= self.now {
            self.soon.push_back(what);
        } else if slot(at) - slot(self.now) < SLOTS {
            let slot = (slot(at) % SLOTS) as usize;
            if at < self.first.at {
                self.first = First { at, slot, place: self.near[slot].len() };
            }
            self.near[slot].push((at, what));
            self.taken |= 1 << slot;
        } else {
            self.sequence += 1;
            self.later.push(Later { at, sequence: self.sequence, what });
        }
    }

    /// The next event. Time goes on to it.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Happening> {
        let later = self.later.peek().map_or(Instant::NEVER, |later| later.at);
        if later.min(self.first.at) > self.now
            && let Some(what) = self.soon.pop_front()
        {
            return Some(what);
        }
        if later <= self.first.at {
            let Later { at, what, .. } = self.later.pop()?;
            self.now = at;
            return Some(what);
        }
        let First { slot, place, .. } = self.first;
        let entries = &mut self.near[slot];
        let (at, what) = entries[place];
        if entries.len() == 1 {
            entries.clear();
            self.taken &= !(1 << slot);
        } else {
            entries.remove(place);
        }
        self.now = at;
        self.first = self.first_near();
        Some(what)
    }

    /// The first event of the near future. What is in a slot is never further away than all slots together, so the first
    /// slot from now on that is not empty has it.
    #[inline]
    fn first_near(&self) -> First {
        let mut first = First::NONE;
        if self.taken == 0 {
            return first;
        }
        let from = slot(self.now) % SLOTS;
        let ahead = u64::from(self.taken.rotate_right(from as u32).trailing_zeros());
        first.slot = ((from + ahead) % SLOTS) as usize;
        for (place, (at, _)) in self.near[first.slot].iter().enumerate() {
            if *at < first.at {
                (first.at, first.place) = (*at, place);
            }
        }
        first
    }
}

/// The slot of a time, counted from the beginning.
#[inline]
fn slot(at: Instant) -> u64 {
    at.as_nanos() >> SLOT_BITS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_order_of_time_then_sequence() {
        let mut queue = Queue::default();
        for (at, link) in [(20, 0), (10, 1), (20, 2), (10, 3), (0, 4)] {
            queue.push(Instant::from_nanos(at), Happening::Pump(link));
        }
        let mut seen = Vec::new();
        while let Some(Happening::Pump(link)) = queue.pop() {
            seen.push((queue.now().as_nanos(), link));
            if link == 1 {
                // Behind the other one of the same time, which was there first.
                queue.push(Instant::from_nanos(3), Happening::Pump(9));
            }
        }
        assert_eq!(seen, [(0, 4), (10, 1), (10, 3), (10, 9), (20, 0), (20, 2)]);
        queue.push(Instant::NEVER, Happening::Nothing);
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn the_order_is_that_of_a_sorted_list() {
        let mut chance = crate::draw::Stream::new(1, 1, 1);
        let mut queue = Queue::default();
        let mut expected = std::collections::BTreeSet::new();
        for number in 0..20_000_u32 {
            let far = [0, 1, 100, 70_000, 4_000_000, 5_000_000, 9_000_000_000][chance.between(0, 6) as usize];
            let at = queue.now().as_nanos() + chance.between(0, far);
            // Many at one time, added long before it, shortly before it and at it.
            let at = if chance.between(0, 1) == 0 { at } else { at.next_multiple_of(1_000_000) };
            queue.push(Instant::from_nanos(at), Happening::Pump(number));
            expected.insert((at, number));
            while chance.between(0, 9) > 4
                && let Some(first) = expected.pop_first()
            {
                assert_eq!(queue.pop(), Some(Happening::Pump(first.1)));
                assert_eq!(queue.now().as_nanos(), first.0);
            }
        }
    }
}
