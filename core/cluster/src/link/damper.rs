//! Damping of what flaps: a first failure costs nothing, each further one within a while holds it down for longer.

use newtmq_base::{Instant, planted};

use super::config::Config;

/// The failures of one thing, and until when it is held down.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Damper {
    failures: u32,
    failed_at: Instant,
    held_until: Instant,
}

impl Damper {
    /// It has failed.
    pub(crate) fn fail(&mut self, now: Instant, config: &Config) {
        if now - self.failed_at >= config.damp_window {
            self.failures = 0;
        }
        if self.failures > 0 && !planted!(FlapNotDamped) {
            let hold = config.damp_step.saturating_mul(1 << (self.failures - 1).min(16));
            self.held_until = now + hold.min(config.damp_max);
        }
        self.failures += 1;
        self.failed_at = now;
    }

    /// Whether it counts as down, whatever it does.
    pub(crate) fn holds(&self, now: Instant) -> bool {
        now < self.held_until
    }

    /// Until when it is held.
    pub(crate) fn held_until(&self) -> Instant {
        self.held_until
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    #[test]
    fn the_first_failure_is_free_and_no_hold_is_longer_than_the_limit() {
        let config = Config::default();
        let mut damper = Damper::default();
        let mut now = Instant::from_millis(100_000);
        for expected in [0, 1, 2, 4, 8, 8, 8] {
            damper.fail(now, &config);
            assert_eq!(damper.held_until().saturating_since(now), Duration::from_secs(expected));
            assert_eq!(damper.holds(now), expected > 0);
            now = now + Duration::from_secs(2);
        }
        // A long quiet time forgets them.
        now = now + config.damp_window;
        damper.fail(now, &config);
        assert!(!damper.holds(now));
    }
}
