//! Token buckets: how much may happen in a time, and how long to wait for more. No clock; the caller says what time it is.

use core::time::Duration;

use newtmq_base::Instant;

/// So much in such a time, and so much at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How much comes back in `per`. At least 1.
    pub amount: u64,
    /// More than zero.
    pub per: Duration,
    /// How much may come at once after a quiet time. At least 1.
    pub burst: u64,
}

/// What is left of a [`Rate`]; full at the beginning.
#[derive(Debug)]
pub(crate) struct Bucket {
    rate: Rate,
    /// Tokens times the nanoseconds of `rate.per`, so that no fraction is lost however often it is looked at.
    level: u128,
    /// When `level` was right.
    at: Instant,
}

impl Bucket {
    /// # Panics
    /// If a part of the rate is zero: it would stand for ever.
    pub(crate) fn new(rate: Rate, now: Instant) -> Bucket {
        assert!(rate.amount > 0 && rate.burst > 0 && !rate.per.is_zero(), "a rate that lets nothing through");
        Bucket { rate, level: u128::from(rate.burst) * rate.per.as_nanos(), at: now }
    }

    fn refill(&mut self, now: Instant) {
        let back = (now - self.at).as_nanos() * u128::from(self.rate.amount);
        self.level = (self.level + back).min(u128::from(self.rate.burst) * self.rate.per.as_nanos());
        self.at = now;
    }

    /// Whole tokens that are there.
    pub(crate) fn left(&mut self, now: Instant) -> u64 {
        self.refill(now);
        u64::try_from(self.level / self.rate.per.as_nanos()).expect("at most the burst")
    }

    /// Takes tokens out; what is not there is forgiven.
    pub(crate) fn take(&mut self, now: Instant, tokens: u64) {
        self.refill(now);
        self.level = self.level.saturating_sub(u128::from(tokens) * self.rate.per.as_nanos());
    }

    /// When so many tokens will be there, or the whole burst if that is less.
    pub(crate) fn when(&mut self, now: Instant, tokens: u64) -> Instant {
        self.refill(now);
        let wanted = u128::from(tokens.min(self.rate.burst)) * self.rate.per.as_nanos();
        let missing = wanted.saturating_sub(self.level).div_ceil(u128::from(self.rate.amount));
        now + Duration::from_nanos(u64::try_from(missing).unwrap_or(u64::MAX))
    }

    /// What comes back in a tenth of a second, so that whoever waits for tokens does not wake for each one.
    pub(crate) fn worth_waiting_for(&self) -> u64 {
        let tenth = u128::from(self.rate.amount) * 100_000_000 / self.rate.per.as_nanos();
        u64::try_from(tenth).unwrap_or(u64::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn tokens_come_back_in_time() {
        let rate = Rate { amount: 3, per: Duration::from_secs(1), burst: 5 };
        let mut bucket = Bucket::new(rate, at(0));
        assert_eq!(bucket.left(at(10_000)), 5, "never more than the burst");
        bucket.take(at(10_000), 5);
        assert_eq!(bucket.left(at(10_000)), 0);
        // Looked at often, it is as full as looked at once.
        for millis in 0..1000 {
            bucket.left(at(10_000 + millis));
        }
        assert_eq!((bucket.left(at(10_999)), bucket.left(at(11_000))), (2, 3));
        bucket.take(at(11_000), 9);
        let when = bucket.when(at(11_000), 2);
        assert_eq!(bucket.left(when), 2);
        assert!(when > at(11_666) && when < at(11_668));
        assert_eq!(bucket.when(at(20_000), 5), at(20_000));
    }

    #[test]
    fn extreme_rates() {
        let much = Rate { amount: u64::MAX / 2, per: Duration::from_nanos(1), burst: u64::MAX / 2 };
        let mut bucket = Bucket::new(much, at(0));
        bucket.take(at(1), u64::MAX / 2);
        assert_eq!(bucket.left(Instant::from_nanos(1_000_001)), u64::MAX / 2);
        let little = Rate { amount: 1, per: Duration::from_secs(1 << 30), burst: 1 };
        let mut bucket = Bucket::new(little, at(0));
        bucket.take(at(0), 1);
        assert_eq!(bucket.when(at(0), 1), at((1 << 30) * 1000));
        assert_eq!(bucket.worth_waiting_for(), 1);
    }
}
