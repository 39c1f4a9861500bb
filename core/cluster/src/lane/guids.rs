//! QoS 2 messages that came and that their publisher has not released: what comes again, by whatever way, is not enqueued
//! again. One table for all lanes of a shard, for a publisher that moves comes by another lane.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::message::{Guid, What};

/// The table. Bounded: the oldest entry is forgotten for a new one, and counted.
#[derive(Debug, Clone, Default)]
pub struct SeenGuids {
    ages: BTreeMap<(Guid, Receivers), u64>,
    order: BTreeMap<u64, (Guid, Receivers)>,
    next: u64,
    limit: usize,
    forgotten: u64,
}

/// For whom a message came. It may come for some of them first, and for others later.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Receivers {
    Transient,
    Durable,
    Group(Bytes),
}

impl SeenGuids {
    /// An empty table of at most `limit` entries.
    #[must_use]
    pub fn new(limit: usize) -> SeenGuids {
        SeenGuids { limit: limit.max(1), ..SeenGuids::default() }
    }

    /// Those of `what` for whom this has not come; none if it has come for all of them.
    #[must_use]
    pub fn unseen(&self, guid: Guid, what: &What) -> Option<What> {
        let is_new = |receivers| !self.ages.contains_key(&(guid, receivers));
        match what {
            What::Plain { transient, durable } => {
                let transient = *transient && is_new(Receivers::Transient);
                let durable = *durable && is_new(Receivers::Durable);
                (transient || durable).then_some(What::Plain { transient, durable })
            }
            What::Group { name, .. } => is_new(Receivers::Group(name.clone())).then(|| what.clone()),
            What::Release(_) => Some(what.clone()),
        }
    }

    /// It has come.
    pub fn insert(&mut self, guid: Guid, what: &What) {
        match what {
            What::Plain { transient, durable } => {
                if *transient {
                    self.insert_one((guid, Receivers::Transient));
                }
                if *durable {
                    self.insert_one((guid, Receivers::Durable));
                }
            }
            What::Group { name, .. } => self.insert_one((guid, Receivers::Group(name.clone()))),
            What::Release(_) => {}
        }
    }

    fn insert_one(&mut self, key: (Guid, Receivers)) {
        if self.ages.contains_key(&key) {
            return;
        }
        if self.ages.len() >= self.limit
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.ages.remove(&oldest);
            self.forgotten += 1;
        }
        self.ages.insert(key.clone(), self.next);
        self.order.insert(self.next, key);
        self.next += 1;
    }

    /// All of them, the oldest first: which message, and whom it came for.
    pub fn iter(&self) -> impl Iterator<Item = (Guid, What)> {
        self.order.values().map(|(guid, receivers)| {
            let what = match receivers {
                Receivers::Transient => What::Plain { transient: true, durable: false },
                Receivers::Durable => What::Plain { transient: false, durable: true },
                Receivers::Group(name) => What::Group { name: name.clone(), durable: true },
            };
            (*guid, what)
        })
    }

    /// Its publisher has released it, so it never comes again.
    pub fn remove(&mut self, guid: Guid) {
        let from = (guid, Receivers::Transient);
        while let Some((key, _)) = self.ages.range(&from..).next().filter(|((first, _), _)| *first == guid) {
            let key = key.clone();
            let age = self.ages.remove(&key).expect("it was found");
            self.order.remove(&age);
        }
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ages.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ages.is_empty()
    }

    /// Entries that were forgotten because of the limit.
    #[must_use]
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: What = What::Plain { transient: false, durable: true };

    fn group(name: &'static str) -> What {
        What::Group { name: Bytes::from_static(name.as_bytes()), durable: true }
    }

    fn seen(table: &SeenGuids, guid: Guid, what: &What) -> bool {
        table.unseen(guid, what).is_none()
    }

    #[test]
    fn plain_and_groups_are_apart_and_end_together() {
        let mut table = SeenGuids::new(10);
        let [one, two] = [Guid([1; 16]), Guid([2; 16])];
        table.insert(one, &PLAIN);
        assert!(seen(&table, one, &PLAIN) && !seen(&table, one, &group("g")) && !seen(&table, two, &PLAIN));
        table.insert(one, &group("g"));
        table.insert(one, &group("g"));
        table.insert(two, &group("g"));
        assert_eq!(table.len(), 3);
        table.remove(one);
        assert_eq!(table.len(), 1);
        assert!(seen(&table, two, &group("g")) && !seen(&table, one, &group("g")));
        assert_eq!(table.order.len(), 1);
    }

    #[test]
    fn what_came_for_some_comes_for_the_others() {
        let mut table = SeenGuids::new(10);
        let guid = Guid([1; 16]);
        table.insert(guid, &What::Plain { transient: true, durable: false });
        let both = What::Plain { transient: true, durable: true };
        assert_eq!(table.unseen(guid, &both), Some(PLAIN));
        table.insert(guid, &both);
        assert_eq!(table.unseen(guid, &both), None);
    }

    #[test]
    fn the_oldest_is_forgotten() {
        let mut table = SeenGuids::new(2);
        for number in 0..3 {
            table.insert(Guid([number; 16]), &PLAIN);
        }
        assert!(!seen(&table, Guid([0; 16]), &PLAIN) && seen(&table, Guid([2; 16]), &PLAIN));
        assert_eq!((table.len(), table.forgotten()), (2, 1));
    }
}
