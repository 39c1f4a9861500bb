//! Time as a value. The driver or the simulator reads a clock; the core only compares what it is given.

use core::fmt;
use core::ops::{Add, Sub};
use core::time::Duration;

/// By how much the time until a message expires is stretched on its way to another node, in millionths, so that no clock
/// lets it end early. Two clocks that are 1 % wrong in opposite directions make 1.01 / 0.99. Clients are told the time
/// without it.
pub const EXPIRY_STRETCH_PPM: u32 = 20_203;

/// Monotonic time in nanoseconds since the start of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The start of the node.
    pub const START: Instant = Instant(0);
    /// Later than every other instant: "never".
    pub const NEVER: Instant = Instant(u64::MAX);

    /// From nanoseconds since the start.
    #[must_use]
    #[inline]
    pub const fn from_nanos(nanos: u64) -> Instant {
        Instant(nanos)
    }

    /// From milliseconds since the start.
    #[must_use]
    #[inline]
    pub const fn from_millis(millis: u64) -> Instant {
        Instant(millis * 1_000_000)
    }

    /// Nanoseconds since the start.
    #[must_use]
    #[inline]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time from `earlier` to this instant; zero if `earlier` is later.
    #[must_use]
    #[inline]
    pub const fn saturating_since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    /// Saturates at [`Instant::NEVER`].
    #[inline]
    fn add(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Instant> for Instant {
    type Output = Duration;

    #[inline]
    fn sub(self, earlier: Instant) -> Duration {
        self.saturating_since(earlier)
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0 / 1_000_000_000, self.0 / 1_000_000 % 1000)
    }
}

/// Wall-clock time in milliseconds since the Unix epoch. Shown to people; never decides anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct WallTime(pub u64);
