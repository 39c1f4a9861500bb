//! Clients that come and go too often: how often each has connected of late. Its memory is bounded; who is forgotten at the
//! limit is counted anew.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use newtmq_base::Instant;

use crate::throttle::short;

/// Most clients that are counted. At the limit the one whose window began first is forgotten.
const CLIENTS_MAX: usize = 16_384;

/// `flapping_threshold`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlappingLimits {
    /// So many connections are none too many...
    pub count: u32,
    /// ...in this time.
    pub window: Duration,
}

/// How often clients have connected of late.
#[derive(Debug, Clone, Default)]
pub struct Flapping {
    counts: BTreeMap<[u8; 16], (Instant, u32)>,
    /// Windows in the order of their beginnings; some are of clients whose next one has begun.
    begun: VecDeque<(Instant, [u8; 16])>,
}

impl Flapping {
    /// A client has connected. Says whether that was once too often; then it is counted anew.
    pub fn connected(&mut self, now: Instant, client: &str, limits: &FlappingLimits) -> bool {
        let client = short(client);
        if let Some((since, count)) = self.counts.get_mut(&client)
            && now.saturating_since(*since) < limits.window
        {
            *count += 1;
            let too_often = *count > limits.count;
            if too_often {
                self.counts.remove(&client);
            }
            return too_often;
        }
        self.counts.insert(client, (now, 1));
        self.begun.push_back((now, client));
        while self.begun.front().is_some_and(|(since, _)| now.saturating_since(*since) >= limits.window)
            || self.begun.len() > CLIENTS_MAX
        {
            let Some((since, client)) = self.begun.pop_front() else { break };
            if self.counts.get(&client).is_some_and(|(of, _)| *of == since) {
                self.counts.remove(&client);
            }
        }
        limits.count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: FlappingLimits = FlappingLimits { count: 3, window: Duration::from_secs(60) };

    fn at(seconds: u64) -> Instant {
        Instant::START + Duration::from_secs(seconds)
    }

    #[test]
    fn once_too_often_in_the_window() {
        let mut flapping = Flapping::default();
        for (second, client, too_often) in [
            (0, "a", false),
            (1, "b", false),
            (2, "a", false),
            (3, "a", false),
            (4, "a", true),
            (5, "a", false),
            (20, "b", false),
            (61, "b", false),
            (62, "b", false),
            (63, "b", false),
            (64, "b", true),
            (65, "a", false),
        ] {
            assert_eq!(flapping.connected(at(second), client, &LIMITS), too_often, "{second} {client}");
        }
    }

    #[test]
    fn memory_is_bounded_and_time_frees_it() {
        let mut flapping = Flapping::default();
        for client in 0..CLIENTS_MAX + 100 {
            assert!(!flapping.connected(at(1), &client.to_string(), &LIMITS));
            assert!(flapping.counts.len() <= CLIENTS_MAX && flapping.begun.len() <= CLIENTS_MAX);
        }
        assert!(!flapping.connected(at(61), "x", &LIMITS));
        assert_eq!((flapping.counts.len(), flapping.begun.len()), (1, 1));
        // One client alone, again and again, takes no more.
        for second in 0..100_000 {
            flapping.connected(at(100 + second / 100), "y", &LIMITS);
        }
        assert!(flapping.begun.len() <= CLIENTS_MAX);
    }
}
