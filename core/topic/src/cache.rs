//! The cache of matches: who gets a publish to a topic, worked out once and kept until a subscription changes it.
//!
//! The change of an exact filter removes the entry of its topic. The change of a filter with wildcards makes stale all
//! entries whose topic begins with the filter's first level (levels share 256 buckets), or every entry if the filter
//! begins with a wildcard.
//!
//! Two limits: 65,536 entries, and a weight of 4 M in all, where a subscription, a group and 16 bytes of topic weigh one
//! each. At a limit a clock hand goes round and removes entries that are stale or that no look-up by hash has used since
//! it last came by; a match that is heavier than the limit by itself stays as the only one.

use std::sync::Arc;

use newtmq_base::{HashSeed, LookupTable, Slab, planted};

use crate::group::GroupKey;
use crate::subscription::{PlaceId, Subscription};

/// Who gets a publish to one topic.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Matched {
    /// Sorted by subscriber. A subscriber with several matching filters is there several times, side by side, so that
    /// the shard can answer with the highest QoS and all identifiers [MQTT-3.3.4-2] [MQTT-3.3.4-3].
    pub subscriptions: Box<[Subscription]>,
    /// Groups of shared subscriptions; each gets the message once.
    pub groups: Box<[GroupKey]>,
    /// Other places that have plain subscriptions, each once, in order.
    pub places: Box<[PlaceId]>,
}

/// What a publisher remembers of its last topic: where its match is in the cache. Only a hint: an outdated one is
/// noticed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memo {
    /// The slot of the cache plus one; 0 means nothing.
    slot_plus_one: u32,
}

impl Memo {
    pub(crate) fn of(slot: u32) -> Memo {
        Memo { slot_plus_one: slot + 1 }
    }
}

/// The limits of a cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CacheLimits {
    pub(crate) entries_max: usize,
    pub(crate) weight_max: usize,
}

impl Default for CacheLimits {
    fn default() -> Self {
        CacheLimits { entries_max: 65_536, weight_max: 4 << 20 }
    }
}

/// Bytes of topic that weigh as much as a subscription, about.
const TOPIC_BYTES_PER_WEIGHT: usize = 16;
const FIRST_LEVELS: usize = 256;

#[derive(Debug)]
struct Entry {
    topic: Box<str>,
    matched: Arc<Matched>,
    /// The count of wildcard changes when it was worked out.
    made: u64,
    first_level: u8,
    used: bool,
}

#[derive(Debug)]
pub(crate) struct Cache {
    index: LookupTable,
    entries: Slab<Entry>,
    limits: CacheLimits,
    weight: usize,
    hand: u32,
    /// No slot is taken from here on.
    slots_end: u32,
    /// Counts changes of filters with wildcards.
    changes: u64,
    /// The count at the last change of a filter that begins with a wildcard.
    changed_all: u64,
    /// The count at the last change of a filter with wildcards, by its first level.
    changed: Box<[u64; FIRST_LEVELS]>,
    seed: HashSeed,
}

impl Cache {
    pub(crate) fn new(seed: HashSeed, limits: CacheLimits) -> Cache {
        Cache {
            index: LookupTable::new(seed),
            entries: Slab::default(),
            limits,
            weight: 0,
            hand: 0,
            slots_end: 0,
            changes: 0,
            changed_all: 0,
            changed: Box::new([0; FIRST_LEVELS]),
            seed,
        }
    }

    /// The match that `memo` points at, if it is current and of exactly this topic.
    #[inline]
    pub(crate) fn recall(&self, memo: Memo, topic: &[u8]) -> Option<&Arc<Matched>> {
        let entry = self.entries.get(memo.slot_plus_one.checked_sub(1)?)?;
        let same = entry.topic.as_bytes() == topic || planted!(MemoOfAnotherTopic, entry.topic.len() == topic.len());
        (same && self.is_current(entry)).then_some(&entry.matched)
    }

    /// Marks the entry of `topic` as used and returns its slot and whether it is current.
    pub(crate) fn find(&mut self, topic: &str) -> Option<(u32, bool)> {
        let slot = self.index.find(topic, |slot| topic_at(&self.entries, slot))?;
        let entry = self.entries.get_mut(slot).expect("the index holds slots that are taken");
        entry.used = true;
        let entry = self.entry(slot);
        Some((slot, self.is_current(entry)))
    }

    pub(crate) fn get(&self, slot: u32) -> &Arc<Matched> {
        &self.entry(slot).matched
    }

    /// Adds the match of a topic that has none.
    pub(crate) fn insert(&mut self, topic: &str, matched: Arc<Matched>) -> u32 {
        let entry =
            Entry { topic: topic.into(), matched, made: self.changes, first_level: self.bucket(topic), used: false };
        self.weight += weight(&entry);
        let slot = self.entries.insert(entry);
        self.slots_end = self.slots_end.max(slot + 1);
        let entries = &self.entries;
        self.index.insert_unique(topic, slot, |slot| topic_at(entries, slot));
        self.evict(slot);
        slot
    }

    /// Brings a stale entry up to date.
    pub(crate) fn refresh(&mut self, slot: u32, matched: Arc<Matched>) {
        let made = self.changes;
        let entry = self.entries.get_mut(slot).expect("the caller found the slot");
        self.weight -= weight(entry);
        entry.matched = matched;
        entry.made = made;
        self.weight += weight(entry);
        self.evict(slot);
    }

    /// The subscribers of a filter without wildcards have changed.
    pub(crate) fn exact_changed(&mut self, filter: &str) {
        if self.index.is_empty() {
            return;
        }
        if let Some(slot) = self.index.find(filter, |slot| topic_at(&self.entries, slot))
            && !planted!(ExactChangeKeepsMatch)
        {
            self.remove(slot);
        }
    }

    /// The subscribers of a filter with wildcards have changed.
    pub(crate) fn wildcard_changed(&mut self, filter: &str) {
        self.changes += 1;
        if filter.starts_with(['+', '#']) && !planted!(PlusChangeKeepsMatch, filter.starts_with('+')) {
            self.changed_all = self.changes;
        } else {
            self.changed[usize::from(self.bucket(filter))] = self.changes;
        }
    }

    #[inline]
    fn is_current(&self, entry: &Entry) -> bool {
        entry.made >= self.changed_all && entry.made >= self.changed[usize::from(entry.first_level)]
    }

    fn entry(&self, slot: u32) -> &Entry {
        self.entries.get(slot).expect("the caller found the slot")
    }

    fn bucket(&self, topic: &str) -> u8 {
        use core::hash::BuildHasher as _;
        let first = topic.split('/').next().unwrap_or_default();
        // The top byte; the remainder is not needed.
        self.seed.state().hash_one(first).to_be_bytes()[0]
    }

    /// Removes entries, never that of `keep`, until the limits hold.
    fn evict(&mut self, keep: u32) {
        while (self.index.len() > self.limits.entries_max || self.weight > self.limits.weight_max)
            && self.index.len() > 1
        {
            let slot = self.hand;
            self.hand = if slot + 1 < self.slots_end { slot + 1 } else { 0 };
            let Some(entry) = self.entries.get(slot) else { continue };
            if slot == keep {
                continue;
            }
            if entry.used && self.is_current(entry) {
                self.entries.get_mut(slot).expect("looked at above").used = false;
            } else {
                self.remove(slot);
            }
        }
    }

    fn remove(&mut self, slot: u32) {
        let entry = self.entries.remove(slot).expect("the caller found the slot");
        self.weight -= weight(&entry);
        assert!(self.index.remove(&*entry.topic, slot), "an entry is in the index");
    }
}

fn weight(entry: &Entry) -> usize {
    entry.matched.subscriptions.len() + entry.matched.groups.len() + entry.topic.len() / TOPIC_BYTES_PER_WEIGHT
}

fn topic_at(entries: &Slab<Entry>, slot: u32) -> &str {
    &entries.get(slot).expect("the index holds slots that are taken").topic
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use newtmq_base::{HashSeed, Rng};
    use newtmq_mqtt::QoS;

    use super::{Cache, CacheLimits, Matched, Memo};
    use crate::{SubscriberId, Subscription};

    fn cache(entries_max: usize, weight_max: usize) -> Cache {
        Cache::new(HashSeed::new(1), CacheLimits { entries_max, weight_max })
    }

    fn matched(subscriptions: u32) -> Arc<Matched> {
        let one = |i| Subscription::new(SubscriberId(i), QoS::AtMostOnce, false, false, None);
        Arc::new(Matched {
            subscriptions: (0..subscriptions).map(one).collect(),
            groups: Box::default(),
            places: Box::default(),
        })
    }

    fn is_consistent(cache: &Cache) -> bool {
        let weight: usize = cache.entries.iter().map(|(_, entry)| super::weight(entry)).sum();
        let found = cache.entries.iter().all(|(slot, entry)| {
            cache.index.find(&*entry.topic, |slot| super::topic_at(&cache.entries, slot)) == Some(slot)
        });
        found && weight == cache.weight && cache.entries.len() == cache.index.len()
    }

    #[test]
    fn both_limits_hold_whatever_comes() {
        let mut cache = cache(50, 400);
        let mut rng = Rng::from_number(1);
        for _ in 0..20_000 {
            let topic = format!("{}/{}", rng.below(5), "x".repeat(rng.below(70) as usize));
            let size = if rng.below(50) == 0 { 300 } else { rng.below(20) as u32 };
            match (rng.below(9), cache.find(&topic)) {
                (0, _) => cache.exact_changed(&topic),
                (1, _) => cache.wildcard_changed(&format!("{topic}/#")),
                (2, _) if rng.below(20) == 0 => cache.wildcard_changed("#"),
                (_, Some((slot, false))) => cache.refresh(slot, matched(size)),
                (_, Some((_, true))) => {}
                (_, None) => {
                    let slot = cache.insert(&topic, matched(size));
                    assert_eq!(cache.get(slot).subscriptions.len(), size as usize);
                }
            }
            assert!(cache.index.len() <= 50 && cache.weight <= 400 && is_consistent(&cache));
        }
    }

    #[test]
    fn what_is_used_stays_and_what_is_too_heavy_stays_alone() {
        let mut cache = cache(10, 1_000);
        for i in 0..100 {
            cache.insert(&format!("new/{i}"), matched(1));
            if i > 0 {
                assert!(cache.find("new/0").is_some());
            }
        }
        assert_eq!(cache.index.len(), 10);
        let slot = cache.insert("heavy", matched(2_000));
        assert_eq!((cache.index.len(), cache.find("heavy")), (1, Some((slot, true))));
        cache.insert("light", matched(1));
        assert!(cache.find("heavy").is_none() && is_consistent(&cache));
    }

    #[test]
    fn a_memo_of_another_topic_or_time_recalls_nothing() {
        let mut cache = cache(10, 1_000);
        let memo = Memo::of(cache.insert("a/b", matched(1)));
        assert!(cache.recall(memo, b"a/b").is_some());
        assert!(cache.recall(memo, b"a/c").is_none());
        assert!(cache.recall(Memo::default(), b"a/b").is_none());
        cache.wildcard_changed("b/#");
        assert!(cache.recall(memo, b"a/b").is_some());
        cache.wildcard_changed("a/+");
        assert!(cache.recall(memo, b"a/b").is_none());
        cache.exact_changed("a/b");
        assert_eq!(Memo::of(cache.insert("c", matched(2))), memo);
        assert!(cache.recall(memo, b"a/b").is_none());
    }
}
