//! Clocks of a node. The monotonic one is a piecewise linear function of true time, exact in both directions; the wall
//! clock is what an operator made of it, and is only read when a node starts.

use newtmq_base::{Instant, WallTime};

const MILLION: u64 = 1_000_000;
/// Fastest and slowest, in parts in a million.
const DRIFT_PPM_MAX: i32 = 500_000;
/// The wall clock of every node when the world begins.
const WALL_START_MS: u64 = 1_700_000_000_000;

/// A node's clocks.
#[derive(Debug, Clone)]
pub(super) struct Clock {
    /// True time and node time at the last change.
    since: Instant,
    shown: Instant,
    /// Nanoseconds that it shows in 1,000,000 true ones.
    rate: u64,
    wall_offset_ms: i64,
}

impl Clock {
    pub(super) fn new() -> Clock {
        Clock { since: Instant::START, shown: Instant::START, rate: MILLION, wall_offset_ms: 0 }
    }

    /// The node starts: its time goes on from there.
    pub(super) fn start(&mut self, now: Instant, shown: Instant) {
        (self.since, self.shown) = (now, shown);
    }

    /// Another speed from here on.
    pub(super) fn drift(&mut self, now: Instant, ppm: i32) {
        self.shown = self.at(now);
        self.since = now;
        let ppm = i64::from(ppm.clamp(-DRIFT_PPM_MAX, DRIFT_PPM_MAX));
        self.rate = MILLION.saturating_add_signed(ppm);
    }

    /// The wall clock is set.
    pub(super) fn jump(&mut self, by_ms: i64) {
        self.wall_offset_ms = self.wall_offset_ms.saturating_add(by_ms);
    }

    /// What it shows.
    #[inline]
    pub(super) fn at(&self, now: Instant) -> Instant {
        let passed = now.as_nanos() - self.since.as_nanos();
        Instant::from_nanos(self.shown.as_nanos() + scale(passed, self.rate, MILLION))
    }

    /// When it first shows that time; the last change if it did before.
    #[inline]
    pub(super) fn when(&self, shown: Instant) -> Instant {
        if shown == Instant::NEVER {
            return Instant::NEVER;
        }
        let missing = shown.as_nanos().saturating_sub(self.shown.as_nanos());
        let mut passed = scale(missing, MILLION, self.rate);
        if scale(passed, self.rate, MILLION) < missing {
            passed = passed.saturating_add(1);
        }
        Instant::from_nanos(self.since.as_nanos().saturating_add(passed))
    }

    /// What the wall clock shows.
    pub(super) fn wall(&self, now: Instant) -> WallTime {
        let passed = i64::try_from(now.as_nanos() / 1_000_000).unwrap_or(i64::MAX);
        WallTime(WALL_START_MS.saturating_add_signed(passed.saturating_add(self.wall_offset_ms)))
    }
}

/// `value * to / from`, rounded down, at most the largest number.
#[inline]
fn scale(value: u64, to: u64, from: u64) -> u64 {
    if to == from {
        return value;
    }
    u64::try_from(u128::from(value) * u128::from(to) / u128::from(from)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn changes_of_speed_keep_it_continuous() {
        let mut clock = Clock::new();
        let at = Instant::from_millis;
        clock.start(at(1000), Instant::START);
        assert_eq!(clock.at(at(3000)), at(2000));
        clock.drift(at(3000), 500_000);
        assert_eq!((clock.at(at(3000)), clock.at(at(5000))), (at(2000), at(5000)));
        clock.drift(at(5000), -500_000);
        assert_eq!((clock.at(at(5000)), clock.at(at(7000))), (at(5000), at(6000)));
        assert_eq!(clock.when(at(6000)), at(7000));
        assert_eq!(clock.when(Instant::NEVER), Instant::NEVER);
        clock.drift(at(7000), i32::MAX);
        assert_eq!(clock.at(at(9000)), at(9000), "at most one half faster");
        clock.jump(-5);
        assert_eq!(clock.wall(at(10)), WallTime(WALL_START_MS + 5));
    }

    proptest! {
        #[test]
        fn a_deadline_is_met_at_its_first_moment(ppm in -600_000_i32..600_000, start in 0_u64..1 << 50, ahead in 1_u64..1 << 50) {
            let mut clock = Clock::new();
            clock.drift(Instant::from_nanos(start), ppm);
            let shown = Instant::from_nanos(clock.at(Instant::from_nanos(start)).as_nanos() + ahead);
            let when = clock.when(shown);
            prop_assert!(clock.at(when) >= shown);
            prop_assert!(clock.at(Instant::from_nanos(when.as_nanos() - 1)) < shown);
        }
    }
}
