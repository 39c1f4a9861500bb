//! Damping: a peer whose link comes and goes counts as down for longer each time, so that a flapping link does not keep
//! every node busy with opening and masking.

use core::time::Duration;

use newtmq_base::Instant;

/// One peer's flaps.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Damping {
    /// How often it has gone down in a row.
    flaps: u32,
    up_since: Option<Instant>,
}

impl Damping {
    /// The peer is reachable: from when on it counts as up.
    pub(crate) fn up(&mut self, now: Instant, config: DampingConfig) -> Instant {
        self.up_since = Some(now);
        // The first two are nothing out of the ordinary.
        let Some(doubled) = self.flaps.checked_sub(2) else { return now };
        now + (config.first * 2u32.saturating_pow(doubled)).min(config.longest)
    }

    /// The peer is not reachable any more.
    pub(crate) fn down(&mut self, now: Instant, config: DampingConfig) {
        let Some(since) = self.up_since.take() else { return };
        self.flaps = if now - since >= config.calm { 1 } else { self.flaps.saturating_add(1) };
    }
}

/// How flapping is damped.
#[derive(Debug, Clone, Copy)]
pub struct DampingConfig {
    /// For how long a peer counts as down that comes back for the third time; then twice as long each time.
    pub first: Duration,
    /// But not longer.
    pub longest: Duration,
    /// A peer that was reachable for so long does not flap.
    pub calm: Duration,
}

#[cfg(test)]
mod tests {
    use super::{Damping, DampingConfig};
    use core::time::Duration;
    use newtmq_base::Instant;

    #[test]
    fn flaps_are_damped_up_to_a_limit() {
        let config = crate::owned::Config::default().damping;
        assert_eq!(config.longest, Duration::from_secs(8));
        let mut damping = Damping::default();
        let mut now = Instant::START;
        let mut waits = Vec::new();
        for _ in 0..9 {
            waits.push((damping.up(now, config) - now).as_millis());
            now = now + Duration::from_secs(1);
            damping.down(now, config);
            damping.down(now, config);
        }
        assert_eq!(waits, [0, 0, 500, 1000, 2000, 4000, 8000, 8000, 8000]);
        damping.up(now, config);
        now = now + config.calm;
        damping.down(now, config);
        assert_eq!(damping.up(now, config), now, "it was calm");
    }

    #[test]
    fn the_limit_holds_for_any_number() {
        let config =
            DampingConfig { first: Duration::from_secs(1), longest: Duration::from_secs(8), calm: Duration::MAX };
        let mut damping = Damping { flaps: u32::MAX, up_since: None };
        assert_eq!(damping.up(Instant::START, config), Instant::from_millis(8000));
    }
}
