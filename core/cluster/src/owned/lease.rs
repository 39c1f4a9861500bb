//! Leases, for zones whose subscribe barrier is *strict*: a node acknowledges a publish of QoS 1 or 2 only with a fresh
//! lease of every owner. While it has one, the owner waits for it with its SUBACKs.
//!
//! A lease is pulled. The owner counts from when the request came; the holder counts from when it sent the request, which
//! is earlier, and takes off what clocks may differ in rate. So a lease ends at the holder first, whatever the network does.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use newtmq_base::{Incarnation, Instant, NodeId, planted};

#[derive(Debug, Clone, Copy)]
struct Grant {
    until: Instant,
    /// SUBACKs of the owner up to this version did not wait.
    version: u64,
}

#[derive(Debug)]
struct Owner {
    inc: Incarnation,
    /// Requests that are not answered, and when they were sent.
    asked: VecDeque<(u64, Instant)>,
    /// The newest last.
    grants: VecDeque<Grant>,
    due: Instant,
}

#[derive(Debug)]
pub(crate) struct Leases {
    owners: BTreeMap<NodeId, Owner>,
    numbers: u64,
    length: Duration,
    renew: Duration,
}

/// Requests and grants of an owner that are remembered. Older ones are as if they were lost.
const REMEMBERED_MAX: usize = 4;

impl Leases {
    /// `length` is the owner's, `drift_percent` by how much clocks differ in rate at most; numbers of requests come after
    /// `numbers`, and are none of an earlier incarnation's.
    pub(crate) fn new(length: Duration, renew: Duration, drift_percent: u32, numbers: u64) -> Leases {
        // Both clocks may be wrong, in opposite directions.
        let length = length * (100 - 2 * drift_percent.min(50)) / 100;
        Leases { owners: BTreeMap::new(), numbers, length, renew }
    }

    pub(crate) fn up(&mut self, owner: NodeId, inc: Incarnation) {
        let new = || Owner { inc, asked: VecDeque::new(), grants: VecDeque::new(), due: Instant::START };
        let known = self.owners.entry(owner).or_insert_with(new);
        if known.inc < inc {
            *known = new();
        }
    }

    pub(crate) fn forget(&mut self, owner: NodeId) {
        self.owners.remove(&owner);
    }

    /// The request to send to an owner, if one is due: its incarnation and the number.
    pub(crate) fn request(&mut self, now: Instant, owner: NodeId) -> Option<(Incarnation, u64)> {
        let known = self.owners.get_mut(&owner)?;
        if now < known.due {
            return None;
        }
        self.numbers += 1;
        known.due = now + self.renew;
        known.asked.push_back((self.numbers, now));
        if known.asked.len() > REMEMBERED_MAX {
            known.asked.pop_front();
        }
        Some((known.inc, self.numbers))
    }

    pub(crate) fn granted(&mut self, now: Instant, owner: NodeId, inc: Incarnation, number: u64, version: u64) {
        let Some(known) = self.owners.get_mut(&owner).filter(|known| known.inc == inc) else { return };
        let Some(at) = known.asked.iter().position(|(asked, _)| *asked == number) else { return };
        let (_, sent) = known.asked[at];
        known.asked.drain(..=at);
        let from = if planted!(LeaseFromReceipt) { now } else { sent };
        known.grants.push_back(Grant { until: from + self.length, version });
        if known.grants.len() > REMEMBERED_MAX {
            known.grants.pop_front();
        }
    }

    /// Whether an owner's lease is fresh for a node that has installed this version of its log.
    pub(crate) fn is_fresh(&self, now: Instant, owner: NodeId, installed: Option<(Incarnation, u64)>) -> bool {
        let Some(known) = self.owners.get(&owner) else { return false };
        let Some((_, version)) = installed.filter(|(inc, _)| *inc == known.inc) else { return false };
        let enough = |grant: &Grant| version >= grant.version || planted!(LeaseWithoutVersion);
        known.grants.iter().any(|grant| now < grant.until && enough(grant))
    }

    /// Until when [`Leases::is_fresh`] holds, from before then on; [`Instant::START`] if it never does.
    pub(crate) fn fresh_until(&self, owner: NodeId, installed: Option<(Incarnation, u64)>) -> Instant {
        let Some(known) = self.owners.get(&owner) else { return Instant::START };
        let Some((_, version)) = installed.filter(|(inc, _)| *inc == known.inc) else { return Instant::START };
        let enough = |grant: &&Grant| version >= grant.version || planted!(LeaseWithoutVersion);
        known.grants.iter().filter(enough).map(|grant| grant.until).max().unwrap_or(Instant::START)
    }

    pub(crate) fn next_deadline(&self, owner: NodeId) -> Option<Instant> {
        self.owners.get(&owner).map(|known| known.due)
    }
}

#[cfg(test)]
mod tests {
    use super::Leases;
    use core::time::Duration;
    use newtmq_base::{Incarnation, Instant, NodeId};

    const OWNER: NodeId = NodeId(1);
    const INC: Incarnation = Incarnation(1);

    #[test]
    fn it_is_timed_from_the_request() {
        let mut leases = Leases::new(Duration::from_millis(1000), Duration::from_millis(300), 1, 0);
        leases.up(OWNER, INC);
        let at = Instant::from_millis;
        assert_eq!(leases.request(at(100), OWNER), Some((INC, 1)));
        assert_eq!(leases.request(at(200), OWNER), None, "not due");
        assert_eq!(leases.request(at(400), OWNER), Some((INC, 2)));
        leases.granted(at(900), OWNER, INC, 1, 5);
        assert!(leases.is_fresh(at(900), OWNER, Some((INC, 5))));
        assert!(!leases.is_fresh(at(900), OWNER, Some((INC, 4))), "what it was granted at is not installed");
        assert!(!leases.is_fresh(at(900), OWNER, None));
        assert!(!leases.is_fresh(at(1080), OWNER, Some((INC, 5))), "1000 ms less drift, from the request");
        leases.granted(at(1090), OWNER, INC, 1, 5);
        assert!(!leases.is_fresh(at(1090), OWNER, Some((INC, 5))), "a second copy of the answer");
        leases.granted(at(1090), OWNER, INC, 2, 7);
        assert!(leases.is_fresh(at(1090), OWNER, Some((INC, 7))));
        leases.up(OWNER, Incarnation(2));
        assert!(!leases.is_fresh(at(1090), OWNER, Some((INC, 7))), "the owner has started again");
        leases.granted(at(1091), OWNER, INC, 2, 0);
        assert!(!leases.is_fresh(at(1091), OWNER, Some((Incarnation(2), 0))), "an answer from before");
    }
}
