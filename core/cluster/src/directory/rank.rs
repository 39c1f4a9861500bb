//! Which of two connections of a client is the later one, after a time in which nobody saw both.

use core::time::Duration;

use newtmq_base::{Instant, planted};

use crate::lane::Epoch;

impl Default for Epoch {
    fn default() -> Epoch {
        Epoch::ZERO
    }
}

impl Epoch {
    /// Lower than what any session has.
    pub const ZERO: Epoch = Epoch { term: 0, seq: 0, provisional: 0, issuer: newtmq_base::NodeId(0) };

    /// Whether it was made from that one without a quorum.
    fn extends(self, base: Epoch) -> bool {
        (self.term, self.seq) == (base.term, base.seq) && self.provisional > 0 && base.provisional == 0 && base.seq > 0
    }
}

/// When something happened, as far as a seat knows: in milliseconds of its clock, which may be before its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Born {
    pub(super) at: i64,
    /// By how much that may be too late, since the age was on its way.
    pub(super) error: u64,
}

impl Born {
    pub(super) fn new(now: Instant, age: Duration, error: Duration) -> Born {
        Born { at: millis(now).saturating_sub(clamp(age)), error: clamp(error).unsigned_abs() }
    }

    /// Whether it is later than the other beyond doubt.
    pub(super) fn is_after(self, other: Born, now: Instant, tolerance: Duration) -> bool {
        let older = self.at.min(other.at);
        let age = millis(now).saturating_sub(older).max(0).unsigned_abs();
        let doubt = clamp(tolerance).unsigned_abs() + age / 50 + self.error + other.error;
        let doubt = if planted!(NoTolerance) { 0 } else { doubt };
        self.at > other.at && self.at.abs_diff(other.at) > doubt
    }
}

/// Whether the one wins: an epoch that extends the other's, else the later connection, else, if that is in doubt, the higher epoch.
pub(super) fn wins(one: (Epoch, Born), other: (Epoch, Born), now: Instant, tolerance: Duration) -> bool {
    if one.0.extends(other.0) || other.0.extends(one.0) {
        return one.0.extends(other.0);
    }
    if planted!(HigherEpochWins) {
        return one.0 > other.0;
    }
    let after = |one: Born, other: Born| one.is_after(other, now, tolerance);
    after(one.1, other.1) || (!after(other.1, one.1) && one.0 > other.0)
}

fn millis(now: Instant) -> i64 {
    i64::try_from(now.as_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

/// A century is as good as more.
fn clamp(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX).min(3_200_000_000_000)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use newtmq_base::NodeId;

    #[test]
    pub(in super::super) fn the_later_one_wins_and_in_doubt_the_higher() {
        let now = Instant::from_millis(1_000_000);
        let born = |age: u64, error: u64| Born::new(now, Duration::from_millis(age), Duration::from_millis(error));
        let real = |seq| Epoch { term: 5, seq, provisional: 0, issuer: NodeId(1) };
        let other = |seq, provisional| Epoch { term: 5, seq, provisional, issuer: NodeId(4) };
        for (one, two, expected) in [
            ((real(12), born(10_000, 0)), (real(9), born(5_000, 0)), false),
            ((real(12), born(7_100, 0)), (real(9), born(5_000, 0)), true),
            ((real(12), born(7_200, 0)), (real(9), born(5_000, 0)), false),
            ((real(12), born(7_200, 0)), (real(9), born(5_000, 900)), true),
            // 2 % of an hour.
            ((real(12), born(3_600_000, 0)), (real(9), born(3_540_000, 0)), true),
            ((real(9), born(1_000, 0)), (other(9, 1), born(100_000, 0)), false),
            ((real(10), born(1_000, 0)), (other(9, 1), born(100_000, 0)), true),
            ((other(9, 2), born(100, 0)), (other(9, 1), born(100, 0)), true),
        ] {
            let tolerance = Duration::from_secs(2);
            assert_eq!(wins(one, two, now, tolerance), expected, "{one:?} {two:?}");
            assert_eq!(wins(two, one, now, tolerance), !expected, "{one:?} {two:?}");
        }
        // An age of before the start of the clock.
        assert!(Born::new(Instant::START, Duration::MAX, Duration::ZERO).at < -3_000_000_000_000);
    }
}
