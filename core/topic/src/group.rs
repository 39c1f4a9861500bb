//! Shared subscriptions: one group per (share name, filter), and the choice of the member that gets a message
//! (section 4.8.2).

use newtmq_base::{HashSeed, LookupMap, LookupTable, Rng};
use newtmq_mqtt::OwnedTopicFilter;

use crate::crowd::Crowd;
use crate::subscription::{PlaceId, SubscriberId, Subscription};

/// How many members [`crate::SubscriptionTable::pick`] looks at, at most. If none of them is ready, the message goes to
/// the best of them, although a ready member may be beyond.
pub const PICK_SCAN_MEMBERS_MAX: usize = 64;

/// Names a group. Given out once: a key that outlives its group names nothing, until 2^32 groups later.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GroupKey(u32);

/// Which member is asked first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PickStrategy {
    /// Any member, by chance.
    Random,
    /// The one after the last picked.
    RoundRobin,
    /// The last picked while it is ready; the first is picked by chance. The stickiness is the group's, for all
    /// publishers.
    Sticky,
    /// The same for the same publisher, while the members stay the same.
    Hash,
}

/// Whether a member can take a message now. Smaller is better.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fit {
    /// Connected, with an open send window.
    Ready,
    /// Connected; the message would wait in its queue.
    Busy,
    /// Not connected; the message would wait for it.
    Offline,
}

/// A group and its members.
#[derive(Debug)]
pub struct SharedGroup {
    /// The whole text, with the share prefix.
    text: OwnedTopicFilter,
    members: Crowd,
    /// The position that Round Robin asks next.
    turn: u32,
    stuck: Option<SubscriberId>,
    /// Where this group is in the list of its filter.
    position: u32,
    /// What is known of members elsewhere; none for a group that nobody has told about.
    spread: Option<Box<Spread>>,
}

/// How many members a group has at each place, the own one among them. All places hear of changes in the same order, so
/// they agree.
#[derive(Debug, Default)]
struct Spread {
    /// Members by place; places without members are not in it.
    places: Vec<(PlaceId, u32)>,
    turn: u32,
    stuck: Option<PlaceId>,
}

impl Spread {
    fn set(&mut self, place: PlaceId, members: u32) {
        match (self.places.binary_search_by_key(&place, |(place, _)| *place), members) {
            (Ok(at), 0) => {
                self.places.remove(at);
            }
            (Ok(at), _) => self.places[at].1 = members,
            (Err(_), 0) => {}
            (Err(at), _) => self.places.insert(at, (place, members)),
        }
        // Whoever had a member first keeps all messages until it has none.
        if self.stuck.is_none_or(|stuck| !self.places.iter().any(|(place, _)| *place == stuck)) {
            self.stuck = self.places.first().map(|(place, _)| *place);
        }
    }

    /// The place whose turn it is, and which of its members.
    fn choose(&mut self, strategy: PickStrategy, rng: &mut Rng, publisher_hash: u64) -> Option<(PlaceId, u32)> {
        let total: u64 = self.places.iter().map(|(_, members)| u64::from(*members)).sum();
        if total == 0 {
            return None;
        }
        let mut index = match strategy {
            PickStrategy::Random => rng.below(total),
            PickStrategy::RoundRobin => {
                let turn = u64::from(self.turn) % total;
                self.turn = u32::try_from(turn + 1).unwrap_or(0);
                turn
            }
            PickStrategy::Sticky => return self.stuck.map(|stuck| (stuck, 0)),
            PickStrategy::Hash => publisher_hash % total,
        };
        for (place, members) in &self.places {
            if index < u64::from(*members) {
                return Some((*place, u32::try_from(index).expect("below a u32")));
            }
            index -= u64::from(*members);
        }
        None
    }
}

/// The member that gets a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pick {
    /// Its subscription.
    pub member: Subscription,
    /// How fit it is: no other that was asked is fitter.
    pub fit: Fit,
}

impl SharedGroup {
    /// The whole text, with the share prefix.
    #[must_use]
    pub fn text(&self) -> &OwnedTopicFilter {
        &self.text
    }

    /// The ShareName (section 4.8.2).
    #[must_use]
    pub fn name(&self) -> &str {
        self.text.as_filter().share_group().expect("only shared subscriptions make groups")
    }

    /// The filter without the share prefix.
    #[must_use]
    pub fn filter(&self) -> &str {
        self.text.as_filter().filter()
    }

    /// Number of members.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is no member here; then another place has some.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Places that have members, with their number; empty if nobody has told.
    #[must_use]
    pub fn places(&self) -> &[(PlaceId, u32)] {
        self.spread.as_ref().map_or(&[], |spread| &spread.places)
    }

    /// The place whose turn it is, and which of its members; `None` if nobody has told of places.
    pub(crate) fn choose_place(
        &mut self,
        strategy: PickStrategy,
        rng: &mut Rng,
        publisher_hash: u64,
    ) -> Option<(PlaceId, u32)> {
        self.spread.as_mut()?.choose(strategy, rng, publisher_hash)
    }

    pub(crate) fn set_place(&mut self, place: PlaceId, members: u32) {
        self.spread.get_or_insert_default().set(place, members);
        if self.places().is_empty() {
            self.spread = None;
        }
    }

    /// Whether there is neither a member nor a place that has one.
    pub(crate) fn is_unused(&self) -> bool {
        self.members.is_empty() && self.spread.is_none()
    }

    /// The member at `index`. Members move when one leaves.
    ///
    /// # Panics
    /// If `index` is not below [`SharedGroup::len`].
    #[must_use]
    pub fn member(&self, index: usize) -> Subscription {
        self.members.as_slice()[index]
    }

    fn start(&self, strategy: PickStrategy, rng: &mut Rng, publisher_hash: u64) -> usize {
        let len = self.members.len() as u64;
        let start = match strategy {
            PickStrategy::Random => rng.below(len),
            PickStrategy::RoundRobin => u64::from(self.turn) % len,
            PickStrategy::Sticky => match self.stuck.and_then(|stuck| self.members.position(stuck)) {
                Some(position) => position as u64,
                None => rng.below(len),
            },
            PickStrategy::Hash => publisher_hash % len,
        };
        usize::try_from(start).expect("below the number of members")
    }

    pub(crate) fn pick(
        &mut self,
        strategy: PickStrategy,
        rng: &mut Rng,
        publisher_hash: u64,
        fit: impl FnMut(SubscriberId) -> Fit,
    ) -> Option<Pick> {
        if self.members.is_empty() {
            return None;
        }
        let start = self.start(strategy, rng, publisher_hash);
        self.pick_from(start, fit)
    }

    /// The same, where another place has said which member's turn it is.
    pub(crate) fn pick_at(
        &mut self,
        strategy: PickStrategy,
        index: u32,
        fit: impl FnMut(SubscriberId) -> Fit,
    ) -> Option<Pick> {
        let len = self.members.len();
        if len == 0 {
            return None;
        }
        let stuck = match strategy {
            PickStrategy::Sticky => self.stuck.and_then(|stuck| self.members.position(stuck)),
            PickStrategy::Random | PickStrategy::RoundRobin | PickStrategy::Hash => None,
        };
        self.pick_from(stuck.unwrap_or(index as usize % len), fit)
    }

    fn pick_from(&mut self, start: usize, mut fit: impl FnMut(SubscriberId) -> Fit) -> Option<Pick> {
        let members = self.members.as_slice();
        let mut best: Option<(Fit, usize)> = None;
        for step in 0..members.len().min(PICK_SCAN_MEMBERS_MAX) {
            let index = (start + step) % members.len();
            let fit = fit(members[index].subscriber);
            if best.is_none_or(|(best, _)| fit < best) {
                best = Some((fit, index));
            }
            if fit == Fit::Ready {
                break;
            }
        }
        let (fit, index) = best?;
        self.turn = u32::try_from((index + 1) % members.len()).expect("members are fewer than 2^32");
        self.stuck = Some(members[index].subscriber);
        Some(Pick { member: members[index], fit })
    }
}

/// All groups of a table.
#[derive(Debug)]
pub(crate) struct Groups {
    by_key: LookupMap<GroupKey, SharedGroup>,
    /// Keys by (name, filter).
    by_name: LookupTable,
    next: u32,
    seed: HashSeed,
}

impl Groups {
    pub(crate) fn new(seed: HashSeed) -> Groups {
        Groups { by_key: LookupMap::new(seed), by_name: LookupTable::new(seed), next: 0, seed }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }

    pub(crate) fn get(&self, key: GroupKey) -> Option<&SharedGroup> {
        self.by_key.get(&key)
    }

    pub(crate) fn get_mut(&mut self, key: GroupKey) -> Option<&mut SharedGroup> {
        self.by_key.get_mut(&key)
    }

    pub(crate) fn find(&self, name: &str, filter: &str) -> Option<GroupKey> {
        self.by_name.find_by((name, filter), |key| names(&self.by_key, key)).map(GroupKey)
    }

    /// The key that the next [`Groups::insert`] gives out.
    pub(crate) fn reserve_key(&mut self) -> GroupKey {
        // After 2^32 groups the numbers begin again, past those that are still used.
        while self.by_key.get(&GroupKey(self.next)).is_some() {
            self.next = self.next.wrapping_add(1);
        }
        let key = GroupKey(self.next);
        self.next = self.next.wrapping_add(1);
        key
    }

    /// Adds a group without members. The caller knows that there is none of this name and filter.
    pub(crate) fn insert(&mut self, key: GroupKey, text: &OwnedTopicFilter, position: u32) {
        let group =
            SharedGroup { text: text.clone(), members: Crowd::Empty, turn: 0, stuck: None, position, spread: None };
        self.by_key.insert(key, group);
        let by_key = &self.by_key;
        self.by_name.insert_unique_by(names(by_key, key.0), key.0, |key| names(by_key, key));
    }

    pub(crate) fn join(&mut self, key: GroupKey, member: Subscription) -> Option<Subscription> {
        let seed = self.seed;
        self.get_mut(key).expect("the caller found the group").members.insert(member, seed)
    }

    pub(crate) fn set_place(&mut self, key: GroupKey, place: PlaceId, members: u32) {
        self.get_mut(key).expect("the caller found the group").set_place(place, members);
    }

    pub(crate) fn leave(&mut self, key: GroupKey, member: SubscriberId) -> Option<Subscription> {
        self.get_mut(key).expect("the caller found the group").members.remove(member)
    }

    /// Removes a group that is unused; returns its position in the list of its filter.
    pub(crate) fn remove(&mut self, key: GroupKey) -> u32 {
        let group = self.by_key.remove(&key).expect("the caller found the group");
        assert!(group.is_unused());
        assert!(self.by_name.remove(&(group.name(), group.filter()), key.0), "a group is in the index by name");
        group.position
    }

    pub(crate) fn moved(&mut self, key: GroupKey, position: u32) {
        self.get_mut(key).expect("a filter lists groups that exist").position = position;
    }
}

/// Where the filter without the share prefix begins.
pub(crate) fn filter_start(text: &OwnedTopicFilter) -> u16 {
    let start = text.as_str().len() - text.as_filter().filter().len();
    u16::try_from(start).expect("a topic filter has at most 65,535 bytes (section 4.7.3)")
}

fn names(by_key: &LookupMap<GroupKey, SharedGroup>, key: u32) -> (&str, &str) {
    let group = by_key.get(&GroupKey(key)).expect("the index holds keys that are taken");
    (group.name(), group.filter())
}
