//! One queue of timers for a whole state machine.

use std::collections::BTreeSet;

use crate::Instant;

/// Timers ordered by (deadline, key). A key may be armed at several deadlines; whoever arms one remembers its
/// deadline to cancel it. 16 bytes a timer for keys of 8 bytes.
#[derive(Debug, Clone)]
pub struct TimerQueue<K> {
    timers: BTreeSet<(Instant, K)>,
}

impl<K> Default for TimerQueue<K> {
    fn default() -> Self {
        TimerQueue { timers: BTreeSet::new() }
    }
}

impl<K: Ord + Copy> TimerQueue<K> {
    /// Arms `key` at `deadline`. [`Instant::NEVER`] is not stored.
    pub fn arm(&mut self, deadline: Instant, key: K) {
        if deadline != Instant::NEVER {
            self.timers.insert((deadline, key));
        }
    }

    /// Takes back what [`TimerQueue::arm`] did. Says whether the timer was still armed.
    pub fn cancel(&mut self, deadline: Instant, key: K) -> bool {
        self.timers.remove(&(deadline, key))
    }

    /// The earliest timer.
    #[must_use]
    pub fn next(&self) -> Option<(Instant, K)> {
        self.timers.first().copied()
    }

    /// Removes and returns the earliest timer if it is due at `now`.
    pub fn pop_due(&mut self, now: Instant) -> Option<K> {
        if self.timers.first().is_some_and(|(deadline, _)| *deadline <= now) {
            return self.timers.pop_first().map(|(_, key)| key);
        }
        None
    }

    /// Number of armed timers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.timers.len()
    }

    /// Whether no timer is armed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.timers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::TimerQueue;
    use crate::Instant;

    #[test]
    fn due_timers_come_in_order_of_deadline_then_key() {
        let mut queue = TimerQueue::default();
        for (at, key) in [(20, 1), (10, 2), (10, 1), (30, 3)] {
            queue.arm(Instant::from_millis(at), key);
        }
        queue.arm(Instant::NEVER, 9);
        assert!(queue.cancel(Instant::from_millis(30), 3));
        assert!(!queue.cancel(Instant::from_millis(30), 3));
        let due: Vec<i32> = core::iter::from_fn(|| queue.pop_due(Instant::from_millis(20))).collect();
        assert_eq!(due, [1, 2, 1]);
        assert!(queue.is_empty());
    }
}
