//! All subscriptions of a shard, and the answer to who gets a publish.

use std::sync::Arc;

use newtmq_base::{HashSeed, Rng, planted};
use newtmq_mqtt::{OwnedTopicFilter, TopicFilter, TopicName};

use crate::cache::{Cache, CacheLimits, Matched, Memo};
use crate::crowd::Subscribers;
use crate::exact::Exact;
use crate::group::{Fit, GroupKey, Groups, Pick, PickStrategy, SharedGroup, filter_start};
use crate::subscription::{PlaceId, SubscriberId, Subscription};
use crate::trie::{Frontier, Trie};

/// Capacity in elements that the scratch vectors of a match keep for the next one.
const SCRATCH_KEPT_MAX: usize = 16_384;

/// Subscriptions by topic filter. Filters without wildcards are in a hash table, the others in a trie.
///
/// A filter with wildcards costs memory in proportion to its levels, about 40 bytes each and again as much for a text that
/// no other filter has at a level: whoever accepts filters limits their levels.
#[derive(Debug)]
pub struct SubscriptionTable {
    seed: HashSeed,
    exact: Exact,
    trie: Trie,
    groups: Groups,
    cache: Cache,
    subscriptions: usize,
    /// Filters with at least one subscription that is not shared.
    plain_filters: usize,
    nobody: Arc<Matched>,
    scratch: Scratch,
}

#[derive(Debug, Default)]
struct Scratch {
    frontier: Frontier,
    subscriptions: Vec<Subscription>,
    groups: Vec<GroupKey>,
}

/// A line of [`SubscriptionTable::entries`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableEntry {
    /// The filter; of a shared subscription the whole text.
    pub filter: String,
    /// Who has it.
    pub holder: Holder,
}

/// Who has a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// A session of this shard.
    Session(SubscriberId),
    /// A place, with so many members; 1 for a filter that is not shared.
    Place(PlaceId, u32),
}

/// Where a filter's subscribers are.
#[derive(Clone, Copy)]
enum Site {
    Exact(u32),
    Wild(u32),
}

impl SubscriptionTable {
    /// An empty table; `seed` keeps clients from choosing filters that collide.
    #[must_use]
    pub fn new(seed: HashSeed) -> SubscriptionTable {
        SubscriptionTable {
            seed,
            exact: Exact::new(seed),
            trie: Trie::new(seed),
            groups: Groups::new(seed),
            cache: Cache::new(seed, CacheLimits::default()),
            subscriptions: 0,
            plain_filters: 0,
            nobody: Arc::new(Matched::default()),
            scratch: Scratch::default(),
        }
    }

    /// Number of subscriptions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.subscriptions
    }

    /// Whether there is no subscription.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.subscriptions == 0
    }

    /// Number of distinct filters; each share group counts as one. It changes exactly when a filter gets its first
    /// subscription or loses its last.
    #[must_use]
    pub fn filters(&self) -> usize {
        self.plain_filters + self.groups.len()
    }

    /// Adds a subscription; returns the one of the same filter and subscriber that it replaces [MQTT-3.8.4-3].
    pub fn subscribe(&mut self, filter: &OwnedTopicFilter, subscription: Subscription) -> Option<Subscription> {
        let parsed = filter.as_filter();
        let replaced = match parsed.share_group() {
            Some(name) => self.join(name, parsed.filter(), filter, subscription),
            None => self.add(filter, subscription),
        };
        self.subscriptions += usize::from(replaced.is_none());
        replaced
    }

    /// Removes a subscription and returns it [MQTT-3.10.4-2].
    pub fn unsubscribe(&mut self, filter: TopicFilter<'_>, subscriber: SubscriberId) -> Option<Subscription> {
        let removed = match filter.share_group() {
            Some(name) => self.leave(name, filter.filter(), subscriber)?,
            None => self.drop_plain(filter.filter(), subscriber)?,
        };
        self.subscriptions -= 1;
        Some(removed)
    }

    /// The match that a publisher's memo points at, if it is current and of exactly this topic. Does not hash.
    #[must_use]
    #[inline]
    pub fn recall(&self, memo: Memo, topic: &[u8]) -> Option<&Arc<Matched>> {
        self.cache.recall(memo, topic)
    }

    /// Who gets a publish to `topic`, from the cache if it is there; `memo` then points at it.
    pub fn matches(&mut self, topic: TopicName<'_>, memo: &mut Memo) -> &Arc<Matched> {
        let text = topic.as_str();
        let slot = match self.cache.find(text) {
            Some((slot, true)) => slot,
            Some((slot, false)) => {
                let matched = self.collect(text);
                self.cache.refresh(slot, matched);
                slot
            }
            None => {
                let matched = self.collect(text);
                self.cache.insert(text, matched)
            }
        };
        *memo = Memo::of(slot);
        self.cache.get(slot)
    }

    /// A group that a [`Matched`] names; `None` once its last member has left.
    #[must_use]
    pub fn group(&self, key: GroupKey) -> Option<&SharedGroup> {
        self.groups.get(key)
    }

    /// Says how many members a filter has at another place: 1 or 0, or for a shared subscription their number. For the
    /// latter the own place counts, too, as soon as the others know of it.
    pub fn set_place(&mut self, filter: &OwnedTopicFilter, place: PlaceId, members: u32) {
        let parsed = filter.as_filter();
        let Some(name) = parsed.share_group() else {
            if members > 0 {
                self.add(filter, place.as_subscription());
            } else if !planted!(RouteOutlivesSubscribers) {
                self.drop_plain(parsed.filter(), place.as_subscription().subscriber);
            }
            return;
        };
        let key = match self.groups.find(name, parsed.filter()) {
            Some(key) => key,
            None if members == 0 => return,
            None => self.add_group(parsed.filter(), filter),
        };
        self.groups.set_place(key, place, members);
        self.remove_group_if_unused(key, parsed.filter());
    }

    /// The place whose turn it is to give a group's member a message, and which of its members; `None` while nobody has
    /// told of places: then the members here are all.
    pub fn choose_place(
        &mut self,
        key: GroupKey,
        strategy: PickStrategy,
        rng: &mut Rng,
        publisher_hash: u64,
    ) -> Option<(PlaceId, u32)> {
        self.groups.get_mut(key)?.choose_place(strategy, rng, publisher_hash)
    }

    /// The member of a group that gets a message: from the strategy's member on, going round, the first that is ready,
    /// else the first busy, else the first offline, among at most [`crate::PICK_SCAN_MEMBERS_MAX`] members. `None` if
    /// the group has no members here.
    pub fn pick(
        &mut self,
        key: GroupKey,
        strategy: PickStrategy,
        rng: &mut Rng,
        publisher_hash: u64,
        fit: impl FnMut(SubscriberId) -> Fit,
    ) -> Option<Pick> {
        self.groups.get_mut(key)?.pick(strategy, rng, publisher_hash, fit)
    }

    /// The same from the member on that [`SubscriptionTable::choose_place`] named, there or at another place.
    pub fn pick_at(
        &mut self,
        key: GroupKey,
        strategy: PickStrategy,
        index: u32,
        fit: impl FnMut(SubscriberId) -> Fit,
    ) -> Option<Pick> {
        self.groups.get_mut(key)?.pick_at(strategy, index, fit)
    }

    /// A group by its whole text.
    #[must_use]
    pub fn find_group(&self, filter: &OwnedTopicFilter) -> Option<GroupKey> {
        let parsed = filter.as_filter();
        self.groups.find(parsed.share_group()?, parsed.filter())
    }

    /// What other places have to know of a filter: 1 or 0, whether it has plain subscriptions here; or the number of
    /// members that a shared subscription has here.
    #[must_use]
    pub fn members(&self, filter: TopicFilter<'_>) -> u32 {
        if let Some(name) = filter.share_group() {
            let group = self.groups.find(name, filter.filter()).and_then(|key| self.group(key));
            return group.map_or(0, |group| u32::try_from(group.len()).expect("members are fewer than 2^32"));
        }
        let subscribers = match self.find(filter.filter()) {
            Some(Site::Exact(slot)) => self.exact.subscribers(slot),
            Some(Site::Wild(slot)) => self.trie.subscribers(slot),
            None => return 0,
        };
        // Ends at the first session; only places come before it.
        u32::from(subscribers.plain().as_slice().iter().any(|s| PlaceId::of(s.subscriber).is_none()))
    }

    /// Everything in the table, for checkers: it takes time and memory in proportion to it.
    #[must_use]
    pub fn entries(&self) -> Vec<TableEntry> {
        let exact = self.exact.filters().map(|(text, subscribers)| (text.to_owned(), subscribers));
        let mut entries = Vec::new();
        for (filter, subscribers) in exact.chain(self.trie.filters()) {
            for subscription in subscribers.plain().as_slice() {
                let holder = PlaceId::of(subscription.subscriber)
                    .map_or(Holder::Session(subscription.subscriber), |place| Holder::Place(place, 1));
                entries.push(TableEntry { filter: filter.clone(), holder });
            }
            for group in subscribers.groups().iter().filter_map(|key| self.groups.get(*key)) {
                let members = (0..group.len()).map(|at| Holder::Session(group.member(at).subscriber));
                let places = group.places().iter().map(|(place, members)| Holder::Place(*place, *members));
                let text = group.text().as_str();
                entries.extend(members.chain(places).map(|holder| TableEntry { filter: text.to_owned(), holder }));
            }
        }
        entries
    }

    fn add(&mut self, filter: &OwnedTopicFilter, subscription: Subscription) -> Option<Subscription> {
        let text = filter.as_str();
        let site = self.find_or_insert(filter, 0);
        let seed = self.seed;
        let plain = self.subscribers_mut(site).plain_mut();
        let was_empty = plain.is_empty();
        let replaced = plain.insert(subscription, seed);
        self.plain_filters += usize::from(was_empty);
        if replaced != Some(subscription) && !planted!(ResubscribeKeepsMatch, replaced.is_some()) {
            self.changed(site, text);
        }
        replaced
    }

    fn join(
        &mut self,
        name: &str,
        filter: &str,
        text: &OwnedTopicFilter,
        subscription: Subscription,
    ) -> Option<Subscription> {
        let key = match self.groups.find(name, filter) {
            Some(key) => key,
            None => self.add_group(filter, text),
        };
        self.groups.join(key, subscription)
    }

    fn add_group(&mut self, filter: &str, text: &OwnedTopicFilter) -> GroupKey {
        let site = self.find_or_insert(text, filter_start(text));
        let key = self.groups.reserve_key();
        let position = self.subscribers_mut(site).add_group(key);
        self.groups.insert(key, text, position);
        self.changed(site, filter);
        key
    }

    fn drop_plain(&mut self, filter: &str, subscriber: SubscriberId) -> Option<Subscription> {
        let site = self.find(filter)?;
        let plain = self.subscribers_mut(site).plain_mut();
        let removed = plain.remove(subscriber)?;
        self.plain_filters -= usize::from(plain.is_empty());
        self.changed(site, filter);
        self.remove_if_empty(site);
        Some(removed)
    }

    fn leave(&mut self, name: &str, filter: &str, subscriber: SubscriberId) -> Option<Subscription> {
        let key = self.groups.find(name, filter)?;
        let removed = self.groups.leave(key, subscriber)?;
        self.remove_group_if_unused(key, filter);
        Some(removed)
    }

    fn remove_group_if_unused(&mut self, key: GroupKey, filter: &str) {
        if self.groups.get(key).is_some_and(SharedGroup::is_unused) {
            let site = self.find(filter).expect("a group's filter exists");
            let position = self.groups.remove(key);
            if let Some(moved) = self.subscribers_mut(site).remove_group(position) {
                self.groups.moved(moved, position);
            }
            self.changed(site, filter);
            self.remove_if_empty(site);
        }
    }

    fn find(&self, filter: &str) -> Option<Site> {
        if has_wildcards(filter) {
            self.trie.find(filter).map(Site::Wild)
        } else {
            self.exact.find(filter).map(Site::Exact)
        }
    }

    /// The site of the filter that begins at `start` in `text`; made if there is none.
    fn find_or_insert(&mut self, text: &OwnedTopicFilter, start: u16) -> Site {
        let filter = &text.as_str()[usize::from(start)..];
        if has_wildcards(filter) {
            Site::Wild(self.trie.find_or_insert(filter))
        } else {
            Site::Exact(self.exact.find_or_insert(text, start))
        }
    }

    fn subscribers_mut(&mut self, site: Site) -> &mut Subscribers {
        match site {
            Site::Exact(slot) => self.exact.subscribers_mut(slot),
            Site::Wild(slot) => self.trie.subscribers_mut(slot),
        }
    }

    fn remove_if_empty(&mut self, site: Site) {
        if !self.subscribers_mut(site).is_empty() {
            return;
        }
        match site {
            Site::Exact(slot) => self.exact.remove(slot),
            Site::Wild(slot) => self.trie.remove(slot),
        }
    }

    fn changed(&mut self, site: Site, filter: &str) {
        match site {
            Site::Exact(_) => self.cache.exact_changed(filter),
            Site::Wild(_) => self.cache.wildcard_changed(filter),
        }
    }

    /// Works out a match.
    fn collect(&mut self, topic: &str) -> Arc<Matched> {
        let Scratch { frontier, subscriptions, groups } = &mut self.scratch;
        let mut take = |subscribers: &Subscribers| {
            subscriptions.extend_from_slice(subscribers.plain().as_slice());
            groups.extend_from_slice(subscribers.groups());
        };
        if let Some(slot) = self.exact.find(topic) {
            take(self.exact.subscribers(slot));
        }
        self.trie.matches(topic, frontier, &mut take);
        if subscriptions.is_empty() && groups.is_empty() {
            return Arc::clone(&self.nobody);
        }
        // Stable, so that the order of one subscriber's subscriptions is the order of matching. Places come last.
        subscriptions.sort_by_key(|s| s.subscriber);
        let sessions = subscriptions.partition_point(|s| PlaceId::of(s.subscriber).is_none());
        let mut places: Vec<PlaceId> =
            subscriptions[sessions..].iter().filter_map(|s| PlaceId::of(s.subscriber)).collect();
        places.dedup();
        let matched = Matched {
            subscriptions: subscriptions[..sessions].into(),
            groups: groups.as_slice().into(),
            places: places.into(),
        };
        subscriptions.clear();
        subscriptions.shrink_to(SCRATCH_KEPT_MAX);
        groups.clear();
        groups.shrink_to(SCRATCH_KEPT_MAX);
        Arc::new(matched)
    }
}

/// Asks a valid filter without its share prefix, where `+` and `#` are nothing but wildcards [MQTT-4.7.1-1].
fn has_wildcards(filter: &str) -> bool {
    filter.bytes().any(|byte| byte == b'+' || byte == b'#')
}
