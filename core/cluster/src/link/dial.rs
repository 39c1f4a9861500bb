//! Where to dial, and when: at once, then after pauses that double, each with some chance in it.

use core::fmt;
use core::time::Duration;
use std::collections::BTreeMap;

use newtmq_base::{Instant, NodeId, Rng};

use super::config::Config;

/// Where a node listens, as the driver understands it: a host or an IP address, and a port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub String);

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An address that was given, for as long as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct DialId(pub u32);

/// How a connection that was dialed has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It has worked.
    Good,
    /// It could not be opened, or ended in the handshake.
    Failed,
    /// One side has refused it.
    Refused,
}

#[derive(Debug)]
struct Dial {
    address: Address,
    /// Who was there last.
    node: Option<NodeId>,
    attempts: u32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Until then nothing is done.
    Pause(Instant),
    /// The driver tries, until then.
    Asked(Instant),
    /// A connection is open.
    Open,
}

#[derive(Debug, Default)]
pub(crate) struct Dials {
    dials: BTreeMap<DialId, Dial>,
    last: u32,
}

impl Dials {
    /// None if there are too many. Adding one again does nothing.
    pub(crate) fn add(&mut self, now: Instant, address: Address, config: &Config, rng: &mut Rng) -> Option<DialId> {
        if let Some((id, _)) = self.dials.iter().find(|(_, dial)| dial.address == address) {
            return Some(*id);
        }
        if self.dials.len() >= config.address_limit {
            return None;
        }
        self.last += 1;
        let at = now + Duration::from_nanos(rng.below(FIRST_SPREAD_NANOS));
        self.dials.insert(DialId(self.last), Dial { address, node: None, attempts: 0, state: State::Pause(at) });
        Some(DialId(self.last))
    }

    pub(crate) fn remove(&mut self, address: &Address) {
        self.dials.retain(|_, dial| dial.address != *address);
    }

    pub(crate) fn address(&self, id: DialId) -> Option<&Address> {
        self.dials.get(&id).map(|dial| &dial.address)
    }

    /// The connection that was asked for is open.
    pub(crate) fn opened(&mut self, id: DialId) {
        if let Some(dial) = self.dials.get_mut(&id) {
            dial.state = State::Open;
        }
    }

    /// This node is there.
    pub(crate) fn reached(&mut self, id: DialId, node: NodeId) {
        if let Some(dial) = self.dials.get_mut(&id) {
            dial.node = Some(node);
        }
    }

    /// Who was there last.
    pub(crate) fn reached_nodes(&self) -> impl Iterator<Item = (&Address, NodeId)> {
        self.dials.values().filter_map(|dial| Some((&dial.address, dial.node?)))
    }

    /// The attempt, or the connection, has ended.
    pub(crate) fn ended(&mut self, now: Instant, id: DialId, how: Ended, config: &Config, rng: &mut Rng) {
        let Some(dial) = self.dials.get_mut(&id) else { return };
        if matches!(dial.state, State::Pause(_)) {
            return;
        }
        let pause = match how {
            Ended::Good => {
                dial.attempts = 0;
                config.dial_backoff_min
            }
            Ended::Failed => {
                // Somebody else may be there by then.
                dial.node = None;
                dial.attempts += 1;
                config.dial_backoff_min.saturating_mul(1 << (dial.attempts - 1).min(16)).min(config.dial_backoff_max)
            }
            Ended::Refused => config.refused_backoff,
        };
        // Half of the pause is chance, so that nodes that lost each other do not go on in step.
        let half = u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX) / 2;
        dial.state = State::Pause(now + Duration::from_nanos(half + rng.below(half + 1)));
    }

    /// What to dial at this time. `wanted` says of a node that was reached there before whether it is not connected.
    pub(crate) fn due(
        &mut self,
        now: Instant,
        config: &Config,
        wanted: impl Fn(NodeId) -> bool,
    ) -> Vec<(DialId, Address)> {
        let mut due = Vec::new();
        for (id, dial) in &mut self.dials {
            let (State::Pause(at) | State::Asked(at)) = dial.state else { continue };
            if at > now || !dial.node.is_none_or(&wanted) {
                continue;
            }
            // A little longer than the driver has, so that its answer comes first.
            dial.state = State::Asked(now + config.dial_timeout + config.dial_backoff_min);
            due.push((*id, dial.address.clone()));
        }
        due
    }

    /// When [`Dials::due`] may have something.
    pub(crate) fn next_deadline(&self, wanted: impl Fn(NodeId) -> bool) -> Instant {
        self.dials
            .values()
            .filter(|dial| dial.node.is_none_or(&wanted))
            .filter_map(|dial| match dial.state {
                State::Pause(at) | State::Asked(at) => Some(at),
                State::Open => None,
            })
            .min()
            .unwrap_or(Instant::NEVER)
    }
}

/// Nodes that start together do not all dial in the same moment.
const FIRST_SPREAD_NANOS: u64 = 100_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(of: Instant, since: Instant) -> u128 {
        of.saturating_since(since).as_millis()
    }

    #[test]
    fn pauses_double_up_to_a_limit_and_begin_anew_after_success() {
        let config = Config::default();
        let mut rng = Rng::from_number(1);
        let mut dials = Dials::default();
        let mut now = Instant::START;
        let id = dials.add(now, Address("a:4370".to_owned()), &config, &mut rng).unwrap();
        assert!(millis(dials.next_deadline(|_| true), now) <= 100);
        for longest in [200, 400, 800, 1600, 3000, 3000] {
            now = dials.next_deadline(|_| true);
            assert_eq!(dials.due(now, &config, |_| true).len(), 1);
            assert!(dials.due(now, &config, |_| true).is_empty(), "one attempt at a time");
            dials.ended(now, id, Ended::Failed, &config, &mut rng);
            let pause = millis(dials.next_deadline(|_| true), now);
            assert!(pause >= longest / 2 && pause <= longest, "{pause} of {longest}");
        }
        now = dials.next_deadline(|_| true);
        dials.due(now, &config, |_| true);
        dials.opened(id);
        dials.reached(id, NodeId(2));
        assert_eq!(dials.next_deadline(|_| true), Instant::NEVER);
        dials.ended(now, id, Ended::Good, &config, &mut rng);
        assert!(millis(dials.next_deadline(|_| true), now) <= 200);
        // Who is connected is not dialed.
        assert_eq!(dials.next_deadline(|node| node != NodeId(2)), Instant::NEVER);
    }

    #[test]
    fn a_driver_that_never_answers_is_asked_again() {
        let config = Config::default();
        let mut rng = Rng::from_number(1);
        let mut dials = Dials::default();
        dials.add(Instant::START, Address("a:4370".to_owned()), &config, &mut rng).unwrap();
        let now = dials.next_deadline(|_| true);
        dials.due(now, &config, |_| true);
        let again = dials.next_deadline(|_| true);
        assert_eq!(millis(again, now), 3200);
        assert_eq!(dials.due(again, &config, |_| true).len(), 1);
    }

    #[test]
    fn addresses_have_a_limit_and_are_unique() {
        let config = Config { address_limit: 2, ..Config::default() };
        let mut rng = Rng::from_number(1);
        let mut dials = Dials::default();
        let mut add = |name: &str| dials.add(Instant::START, Address(name.to_owned()), &config, &mut rng);
        assert_eq!(add("a"), Some(DialId(1)));
        assert_eq!(add("b"), Some(DialId(2)));
        assert_eq!(add("a"), Some(DialId(1)));
        assert_eq!(add("c"), None);
    }
}
