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
    at: Instant,
    sequence: u64,
    what: Happening,
}

const _: () = assert!(size_of::<Entry>() <= 32);

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    /// The earliest is the greatest: a heap gives the greatest.
    #[inline]
    fn cmp(&self, other: &Entry) -> core::cmp::Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

/// Events to come.
#[derive(Debug, Default)]
pub(super) struct Queue {
    later: BinaryHeap<Entry>,
    /// What happens at the present time, in order. Most events are such, and need no heap.
    soon: VecDeque<Entry>,
    sequence: u64,
    now: Instant,
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
        let entry = Entry { at, sequence: self.sequence, what };
        if at <= self.now {
            self.soon.push_back(Entry { at: self.now, ..entry });
        } else {
            self.later.push(entry);
        }
    }

    /// The next event. Time goes on to it.
    #[inline]
    pub(super) fn pop(&mut self) -> Option<Happening> {
        if let Some(soon) = self.soon.front() {
            let first = self.later.peek().is_some_and(|later| later.at <= self.now && later.sequence < soon.sequence);
            if !first {
                return self.soon.pop_front().map(|entry| entry.what);
            }
        }
        let entry = self.later.pop()?;
        self.now = entry.at;
        Some(entry.what)
    }
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
}
