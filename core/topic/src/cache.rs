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

use newtmq_base::{HashSeed, LookupTable, Slab};

use crate::group::GroupKey;
use crate::subscription::Subscription;

/// Who gets a publish to one topic.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Matched {
    /// Sorted by subscriber. A subscriber with several matching filters is there several times, side by side, so that
    /// the shard can answer with the highest QoS and all identifiers [MQTT-3.3.4-2] [MQTT-3.3.4-3].
    pub subscriptions: Box<[Subscription]>,
    /// Groups of shared subscriptions; each gets the message once.
    pub groups: Box<[GroupKey]>,
}

/// What a publisher remembers of its last topic: where its match is in the cache. Only a hint: an outdated one is
/// noticed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memo {
    /// The slot of the cache plus one; 0 means nothing.
    slot_plus_one: u32,
    /// Keeps the size at 8 bytes, should a memo need to hold more.
    reserved: u32,
}

const _: () = assert!(size_of::<Memo>() == 8);

impl Memo {
    pub(crate) fn of(slot: u32) -> Memo {
        Memo { slot_plus_one: slot + 1, reserved: 0 }
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
        (entry.topic.as_bytes() == topic && self.is_current(entry)).then_some(&entry.matched)
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
        if let Some(slot) = self.index.find(filter, |slot| topic_at(&self.entries, slot)) {
            self.remove(slot);
        }
    }

    /// The subscribers of a filter with wildcards have changed.
    pub(crate) fn wildcard_changed(&mut self, filter: &str) {
        self.changes += 1;
        if filter.starts_with(['+', '#']) {
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
