//! SCRAM exchanges between their two steps. The connection may be gone without anybody saying so.

use std::collections::BTreeMap;
use std::time::Duration;

use newtmq_access::ScramServer;
use newtmq_base::{ConnId, Instant, ShardId};

/// Most exchanges. At the limit the oldest is given up and counted; its client is refused at the next step.
const EXCHANGES_MAX: usize = 4096;
/// Time that a client has for the next step.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection of the node.
type Key = (ShardId, ConnId);

/// Exchanges by connection.
#[derive(Debug, Default)]
pub(super) struct Exchanges {
    /// With when they began and their place in `order`.
    open: BTreeMap<Key, (Instant, u64, ScramServer)>,
    order: BTreeMap<u64, Key>,
    next: u64,
    evicted: u64,
}

impl Exchanges {
    pub(super) fn put(&mut self, now: Instant, key: Key, exchange: ScramServer) {
        self.remove(key);
        if self.open.len() == EXCHANGES_MAX
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.open.remove(&oldest);
            self.evicted += 1;
        }
        self.order.insert(self.next, key);
        self.open.insert(key, (now, self.next, exchange));
        self.next += 1;
    }

    /// The exchange of this connection, unless its time is over.
    pub(super) fn take(&mut self, now: Instant, key: Key) -> Option<ScramServer> {
        let (since, exchange) = self.remove(key)?;
        (now - since < STEP_TIMEOUT).then_some(exchange)
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    fn remove(&mut self, key: Key) -> Option<(Instant, ScramServer)> {
        let (since, order, exchange) = self.open.remove(&key)?;
        self.order.remove(&order);
        Some((since, exchange))
    }
}

#[cfg(test)]
mod tests {
    use newtmq_access::ScramKeys;

    use super::*;

    fn exchange() -> ScramServer {
        let keys = |name: &str| ScramKeys::of_nobody(name, &[1; 32]);
        ScramServer::start(b"n,,n=u,r=x", [0; 18], keys).unwrap().0
    }

    #[test]
    fn the_oldest_is_given_up_and_time_ends_others() {
        let key = |slot: usize| (ShardId(0), ConnId { slot: slot as u32, generation: 1 });
        let mut exchanges = Exchanges::default();
        for slot in 0..=EXCHANGES_MAX {
            exchanges.put(Instant::START, key(slot), exchange());
            assert_eq!(exchanges.open.len(), exchanges.order.len());
        }
        assert_eq!((exchanges.open.len(), exchanges.evicted()), (EXCHANGES_MAX, 1));
        assert!(exchanges.take(Instant::START, key(0)).is_none());
        assert!(exchanges.take(Instant::START, key(1)).is_some());
        assert!(exchanges.take(Instant::START, key(1)).is_none(), "each is taken once");
        assert!(exchanges.take(Instant::START + STEP_TIMEOUT, key(2)).is_none());
        let other = (ShardId(1), key(3).1);
        assert!(exchanges.take(Instant::START, other).is_none());
        assert_eq!(exchanges.open.len(), exchanges.order.len());
    }
}
