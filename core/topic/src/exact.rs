//! Filters without wildcards, by their text: an index of 5 bytes an entry into a slab of entries.

use newtmq_base::{HashSeed, LookupTable, Slab};
use newtmq_mqtt::OwnedTopicFilter;

use crate::crowd::Subscribers;

#[derive(Debug)]
struct Entry {
    /// Shared with whoever subscribed first. Has a share prefix if that was a shared subscription.
    text: OwnedTopicFilter,
    subscribers: Subscribers,
}

const _: () = assert!(size_of::<Entry>() == 32);

impl Entry {
    fn filter(&self) -> &str {
        &self.text.as_str()[usize::from(self.subscribers.text_start())..]
    }
}

#[derive(Debug)]
pub(crate) struct Exact {
    index: LookupTable,
    entries: Slab<Entry>,
}

impl Exact {
    pub(crate) fn new(seed: HashSeed) -> Exact {
        Exact { index: LookupTable::new(seed), entries: Slab::default() }
    }

    pub(crate) fn find(&self, filter: &str) -> Option<u32> {
        self.index.find(filter, |slot| filter_at(&self.entries, slot))
    }

    /// The slot of the filter that begins at `start` in `text`; made if there is none.
    pub(crate) fn find_or_insert(&mut self, text: &OwnedTopicFilter, start: u16) -> u32 {
        let filter = &text.as_str()[usize::from(start)..];
        if let Some(slot) = self.find(filter) {
            return slot;
        }
        let slot = self.entries.insert(Entry { text: text.clone(), subscribers: Subscribers::with_text_start(start) });
        let entries = &self.entries;
        self.index.insert_unique(filter, slot, |other| filter_at(entries, other));
        slot
    }

    pub(crate) fn subscribers(&self, slot: u32) -> &Subscribers {
        &self.entries.get(slot).expect("the caller found the slot").subscribers
    }

    pub(crate) fn subscribers_mut(&mut self, slot: u32) -> &mut Subscribers {
        &mut self.entries.get_mut(slot).expect("the caller found the slot").subscribers
    }

    /// Every filter.
    pub(crate) fn filters(&self) -> impl Iterator<Item = (&str, &Subscribers)> {
        self.entries.iter().map(|(_, entry)| (entry.filter(), &entry.subscribers))
    }

    /// Removes a filter that has no subscribers left.
    pub(crate) fn remove(&mut self, slot: u32) {
        let removed = self.index.remove(filter_at(&self.entries, slot), slot);
        let entry = self.entries.remove(slot);
        assert!(removed && entry.is_some_and(|entry| entry.subscribers.is_empty()));
    }
}

fn filter_at(entries: &Slab<Entry>, slot: u32) -> &str {
    entries.get(slot).expect("the index holds slots that are taken").filter()
}
