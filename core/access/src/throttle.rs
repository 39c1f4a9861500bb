//! Who may try to log in: after some failures an address and a user name have to wait, longer after each further one.
//!
//! A client that waits is refused without a look at its password, and that counts for nothing: waiting always helps.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::BTreeMap;

use newtmq_base::Instant;
use sha2::{Digest as _, Sha256};

/// Most addresses, and most user names, that are remembered. At the limit the one that failed longest ago is forgotten.
const ENTRIES_MAX: usize = 32_768;
/// The first wait.
const DELAY_MIN: Duration = Duration::from_secs(1);

/// `login_throttle.*`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThrottleLimits {
    /// Failures of a user name within the window before it has to wait; 0 for never.
    pub user_failures: u32,
    /// Failures from an address, of IPv6 from a /64, within the window before it has to wait; 0 for never.
    pub address_failures: u32,
    /// Failures are forgotten after this, and so is a wait this long after its end.
    pub window: Duration,
    /// Longest wait. The first is 1 s, and each failure doubles it.
    pub delay_max: Duration,
}

impl Default for ThrottleLimits {
    fn default() -> Self {
        ThrottleLimits {
            user_failures: 10,
            address_failures: 50,
            window: Duration::from_secs(60),
            delay_max: Duration::from_secs(300),
        }
    }
}

/// The failures of late.
#[derive(Debug, Clone)]
pub struct Throttle {
    limits: ThrottleLimits,
    addresses: Table<u128>,
    users: Table<[u8; 16]>,
}

impl Throttle {
    /// Nobody has failed yet.
    #[must_use]
    pub fn new(limits: ThrottleLimits) -> Throttle {
        Throttle { limits, addresses: Table::new(ENTRIES_MAX), users: Table::new(ENTRIES_MAX) }
    }

    /// Until when this login has to wait; `None` if it may be tried.
    #[must_use]
    pub fn waits(&self, now: Instant, address: IpAddr, username: &str) -> Option<Instant> {
        let until = self.addresses.until(&place(address)).max(self.users.until(&short(username)));
        (until > now).then_some(until)
    }

    /// A login has failed.
    pub fn failed(&mut self, now: Instant, address: IpAddr, username: &str) {
        self.addresses.failed(now, place(address), self.limits.address_failures, &self.limits);
        self.users.failed(now, short(username), self.limits.user_failures, &self.limits);
    }

    /// A login has succeeded: the user's failures are forgotten. Those of the address are not, or whoever has one
    /// password could go on guessing others.
    pub fn succeeded(&mut self, username: &str) {
        self.users.forget(&short(username));
    }

    /// Addresses and user names that were forgotten for others.
    #[must_use]
    pub fn evicted(&self) -> u64 {
        self.addresses.evicted + self.users.evicted
    }
}

/// An address, or the network that one user of IPv6 has at least.
fn place(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits() >> 64 << 64,
    }
}

/// A name may have 64 KiB; its hash is as good.
pub(crate) fn short(name: &str) -> [u8; 16] {
    let hash: [u8; 32] = Sha256::digest(name.as_bytes()).into();
    core::array::from_fn(|at| hash[at])
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    failures: u32,
    /// When it is forgotten, if nothing happens.
    forgotten: Instant,
    /// End of the wait.
    until: Instant,
    /// Its place in the order.
    order: u64,
}

#[derive(Debug, Clone)]
struct Table<K> {
    entries: BTreeMap<K, Entry>,
    /// Those who failed longest ago first.
    order: BTreeMap<u64, K>,
    next: u64,
    max: usize,
    evicted: u64,
}

impl<K: Ord + Copy> Table<K> {
    fn new(max: usize) -> Table<K> {
        Table { entries: BTreeMap::new(), order: BTreeMap::new(), next: 0, max, evicted: 0 }
    }

    fn until(&self, key: &K) -> Instant {
        self.entries.get(key).map_or(Instant::START, |entry| entry.until)
    }

    fn failed(&mut self, now: Instant, key: K, limit: u32, limits: &ThrottleLimits) {
        if limit == 0 {
            return;
        }
        let old = self.forget(&key).filter(|entry| entry.forgotten > now);
        if self.entries.len() == self.max
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.entries.remove(&oldest);
            self.evicted += 1;
        }
        let failures = old.map_or(0, |entry| entry.failures).saturating_add(1);
        // The window begins with the first failure, or with the end of the last wait.
        let mut forgotten = old.map_or(now + limits.window, |entry| entry.forgotten);
        let mut until = Instant::START;
        if failures >= limit {
            let delay = DELAY_MIN.saturating_mul(1 << (failures - limit).min(20)).min(limits.delay_max);
            until = now + delay;
            forgotten = until + limits.window;
        }
        let order = self.next;
        self.next += 1;
        self.entries.insert(key, Entry { failures, forgotten, until, order });
        self.order.insert(order, key);
    }

    fn forget(&mut self, key: &K) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.order.remove(&entry.order);
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: ThrottleLimits = ThrottleLimits {
        user_failures: 3,
        address_failures: 5,
        window: Duration::from_secs(60),
        delay_max: Duration::from_secs(8),
    };

    fn at(seconds: u64) -> Instant {
        Instant::from_millis(seconds * 1000)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// A failure for each second; how long the next login with the same user and address has to wait then.
    fn waits(throttle: &mut Throttle, times: &[u64]) -> Vec<u64> {
        let one = ip("192.0.2.1");
        let mut waits = Vec::new();
        for time in times {
            throttle.failed(at(*time), one, "u");
            let until = throttle.waits(at(*time), one, "u");
            waits.push(until.map_or(0, |until| (until - at(*time)).as_secs()));
        }
        waits
    }

    #[test]
    fn the_wait_grows_to_its_limit() {
        let mut throttle = Throttle::new(ThrottleLimits { address_failures: 0, ..LIMITS });
        assert_eq!(waits(&mut throttle, &[0, 1, 2, 10, 20, 30, 40, 50]), [0, 0, 1, 2, 4, 8, 8, 8]);
        assert_eq!(throttle.waits(at(57), ip("192.0.2.1"), "u"), Some(at(58)));
        assert_eq!(throttle.waits(at(58), ip("192.0.2.1"), "u"), None);
    }

    #[test]
    fn failures_are_forgotten() {
        let mut throttle = Throttle::new(LIMITS);
        assert_eq!(waits(&mut throttle, &[0, 1, 60, 61, 119, 120]), [0, 0, 0, 0, 1, 2]);
        // A minute after the end of the wait.
        assert_eq!(waits(&mut throttle, &[182, 183, 184]), [0, 0, 1]);
    }

    #[test]
    fn a_success_clears_the_user_but_not_the_address() {
        let mut throttle = Throttle::new(LIMITS);
        let (one, other) = (ip("192.0.2.1"), ip("192.0.2.2"));
        for user in ["a", "a", "a", "b", "c"] {
            throttle.failed(at(0), one, user);
        }
        assert!(throttle.waits(at(0), other, "a").is_some());
        throttle.succeeded("a");
        assert_eq!(throttle.waits(at(0), other, "a"), None);
        assert!(throttle.waits(at(0), one, "d").is_some(), "the address has failed five times");
    }

    #[test]
    fn networks_of_ipv6_count_as_one_address() {
        let mut throttle = Throttle::new(LIMITS);
        for host in 1..=5 {
            throttle.failed(at(0), ip(&format!("2001:db8::{host}")), &format!("u{host}"));
        }
        assert!(throttle.waits(at(0), ip("2001:db8::ffff"), "x").is_some());
        assert_eq!(throttle.waits(at(0), ip("2001:db8:0:1::1"), "x"), None);
        for _ in 0..5 {
            throttle.failed(at(0), ip("::ffff:192.0.2.1"), "y");
        }
        assert!(throttle.waits(at(0), ip("192.0.2.1"), "x").is_some(), "the same address in IPv6");
    }

    #[test]
    fn the_oldest_is_forgotten_and_counted() {
        let mut table = Table::new(3);
        for key in [1, 2, 3, 1, 4] {
            table.failed(at(0), key, 1, &LIMITS);
            assert_eq!(table.entries.len(), table.order.len());
        }
        assert_eq!(table.evicted, 1);
        assert_eq!([1, 2, 3, 4].map(|key| table.until(&key) > at(0)), [true, false, true, true]);
    }
}
