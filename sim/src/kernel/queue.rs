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
    /// A pause ends.
    Resume { node: u16, start: u32 },
    /// A node that stops has had its time.
    Stopped { node: u16, start: u32 },
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

#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Time, then sequence: one comparison.
    key: u128,
    what: Happening,
}

const _: () = assert!(size_of::<Entry>() <= 32);

impl Entry {
    #[inline]
    fn new(at: Instant, sequence: u64, what: Happening) -> Entry {
        Entry { key: u128::from(at.as_nanos()) << 64 | u128::from(sequence), what }
    }

    #[inline]
    fn at(&self) -> Instant {
        Instant::from_nanos((self.key >> 64) as u64)
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.key == other.key
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    #[inline]
    fn partial_cmp(&self, other: &Entry) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }

    // The heap asks these.
    #[inline]
    fn lt(&self, other: &Entry) -> bool {
        self.key > other.key
    }

    #[inline]
    fn le(&self, other: &Entry) -> bool {
        self.key >= other.key
    }
}

impl Ord for Entry {
    /// The earliest is the greatest: a heap gives the greatest.
    #[inline]
    fn cmp(&self, other: &Entry) -> core::cmp::Ordering {
        other.key.cmp(&self.key)
    }
}

/// Nanoseconds of a slot of the near future, as a power of two: 65 µs.
const SLOT_BITS: u32 = 16;
/// Slots: 4 ms, in which nearly everything arrives that is sent.
const SLOTS: u64 = 64;

/// Events to come.
#[derive(Debug)]
pub(super) struct Queue {
    /// What happens at the present time, in order. Many events are such.
    soon: VecDeque<Entry>,
    /// By time, as far as slots go from now; few in each, in no order.
    near: [Vec<Entry>; SLOTS as usize],
    /// Slots that are not empty, a bit each.
    taken: u64,
    later: BinaryHeap<Entry>,
    sequence: u64,
    now: Instant,
}

impl Default for Queue {
    fn default() -> Self {
        Queue {
            soon: VecDeque::new(),
            near: [const { Vec::new() }; SLOTS as usize],
            taken: 0,
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
        self.sequence += 1;
        let entry = Entry::new(at.max(self.now), self.sequence, what);
        if at <= self.now {
            self.soon.push_back(entry);
        } else if slot(at) - slot(self.now) < SLOTS {
            let slot = slot(at) % SLOTS;
            self.near[slot as usize].push(entry);
            self.taken |= 1 << slot;
        } else {
            self.later.push(entry);
        }
    }

    /// The next event. Time goes on to it.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Happening> {
        let (slot, at, near) = self.first_near();
        let later = self.later.peek().map_or(u128::MAX, |later| later.key);
        let first = near.min(later);
        if let Some(soon) = self.soon.front()
            && soon.key < first
        {
            return self.soon.pop_front().map(|entry| entry.what);
        }
        let entry = if near < later {
            let entries = &mut self.near[slot];
            let entry = entries.swap_remove(at);
            if entries.is_empty() {
                self.taken &= !(1 << slot);
            }
            entry
        } else {
            self.later.pop()?
        };
        self.now = entry.at();
        Some(entry.what)
    }

    /// The first event of the near future: its slot, its place there, and its key; the largest key if there is none. What is
    /// in a slot is never further away than all slots together, so the first slot from now on that is not empty has it.
    #[inline]
    fn first_near(&self) -> (usize, usize, u128) {
        let mut first = u128::MAX;
        if self.taken == 0 {
            return (0, 0, first);
        }
        let from = slot(self.now) % SLOTS;
        let ahead = u64::from(self.taken.rotate_right(from as u32).trailing_zeros());
        let slot = ((from + ahead) % SLOTS) as usize;
        let mut place = 0;
        for (at, entry) in self.near[slot].iter().enumerate() {
            if entry.key < first {
                (first, place) = (entry.key, at);
            }
        }
        (slot, place, first)
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
