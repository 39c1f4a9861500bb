//! The subscribers of one filter: nothing, one inline, then a vector, then a vector with an index by subscriber, so that
//! 100,000 subscribers of one filter leave it in linear time altogether.

use newtmq_base::{HashSeed, LookupTable, planted};

use crate::group::GroupKey;
use crate::subscription::{SubscriberId, Subscription};

/// Above this many subscribers an index by subscriber is built; up to it a scan is as fast.
const SCAN_MAX: usize = 16;
/// At this many the index is dropped again. Far enough below the other that a client cannot make it go to and fro.
const INDEX_MIN: usize = 8;
const _: () = assert!(INDEX_MIN < SCAN_MAX);

/// A set of subscriptions, at most one of each subscriber.
#[derive(Debug, Default)]
pub(crate) enum Crowd {
    #[default]
    Empty,
    One(Subscription),
    Many(Box<Many>),
}

const _: () = assert!(size_of::<Crowd>() == 16);

#[derive(Debug)]
pub(crate) struct Many {
    list: Vec<Subscription>,
    /// Positions in `list` by subscriber.
    index: Option<Box<LookupTable>>,
}

impl Crowd {
    pub(crate) fn as_slice(&self) -> &[Subscription] {
        match self {
            Crowd::Empty => &[],
            Crowd::One(one) => core::slice::from_ref(one),
            Crowd::Many(many) => &many.list,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.as_slice().len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Crowd::Empty)
    }

    /// Where `subscriber` is in [`Crowd::as_slice`].
    pub(crate) fn position(&self, subscriber: SubscriberId) -> Option<usize> {
        match self {
            Crowd::Empty => None,
            Crowd::One(one) => (one.subscriber == subscriber).then_some(0),
            Crowd::Many(many) => many.position(subscriber),
        }
    }

    /// Adds a subscription, in place of the one that its subscriber had.
    pub(crate) fn insert(&mut self, subscription: Subscription, seed: HashSeed) -> Option<Subscription> {
        match self {
            Crowd::Empty => {
                *self = Crowd::One(subscription);
                None
            }
            Crowd::One(one) if one.subscriber == subscription.subscriber && !planted!(DoubleSubscribe) => {
                Some(core::mem::replace(one, subscription))
            }
            Crowd::One(one) => {
                *self = Crowd::Many(Box::new(Many { list: vec![*one, subscription], index: None }));
                None
            }
            Crowd::Many(many) => many.insert(subscription, seed),
        }
    }

    /// Removes the subscription of `subscriber`. The last one takes its place, so the order is that of changes.
    pub(crate) fn remove(&mut self, subscriber: SubscriberId) -> Option<Subscription> {
        match self {
            Crowd::Empty => None,
            Crowd::One(one) => {
                let removed = (one.subscriber == subscriber).then_some(*one)?;
                *self = Crowd::Empty;
                Some(removed)
            }
            Crowd::Many(many) => {
                let removed = many.remove(subscriber)?;
                if let [last] = many.list[..] {
                    *self = Crowd::One(last);
                }
                Some(removed)
            }
        }
    }
}

impl Many {
    fn position(&self, subscriber: SubscriberId) -> Option<usize> {
        match &self.index {
            None => self.list.iter().position(|s| s.subscriber == subscriber),
            Some(index) => index
                .find_by(subscriber, |position| self.list[position as usize].subscriber)
                .map(|position| position as usize),
        }
    }

    fn insert(&mut self, subscription: Subscription, seed: HashSeed) -> Option<Subscription> {
        if let Some(position) = self.position(subscription.subscriber) {
            return Some(core::mem::replace(&mut self.list[position], subscription));
        }
        self.list.push(subscription);
        if self.index.is_some() {
            self.add_to_index(self.list.len() - 1);
        } else if self.list.len() > SCAN_MAX {
            self.index = Some(Box::new(LookupTable::new(seed)));
            for position in 0..self.list.len() {
                self.add_to_index(position);
            }
        }
        None
    }

    fn remove(&mut self, subscriber: SubscriberId) -> Option<Subscription> {
        let position = self.position(subscriber)?;
        let last = self.list.len() - 1;
        if let Some(index) = &mut self.index {
            index.remove(&subscriber, slot(position));
            if position != last {
                index.remove(&self.list[last].subscriber, slot(last));
            }
        }
        let removed = self.list.swap_remove(position);
        if position != last {
            self.add_to_index(position);
        }
        if self.list.len() <= INDEX_MIN {
            self.index = None;
        }
        if self.list.len() < self.list.capacity() / 4 {
            self.list.shrink_to(self.list.len() * 2);
        }
        Some(removed)
    }

    /// Adds the subscriber at `position` to the index, if there is one.
    fn add_to_index(&mut self, position: usize) {
        if let Some(index) = &mut self.index {
            let list = &self.list;
            index.insert_unique_by(list[position].subscriber, slot(position), |p| list[p as usize].subscriber);
        }
    }
}

fn slot(position: usize) -> u32 {
    u32::try_from(position).expect("subscribers are slab keys, so fewer than 2^32")
}

/// What one filter without its share prefix leads to: subscribers of their own, and groups.
#[derive(Debug)]
pub(crate) enum Subscribers {
    Plain(Crowd),
    /// Boxed apart, so that a filter without groups does not pay for them.
    Shared(Box<Shared>),
}

const _: () = assert!(size_of::<Subscribers>() == 16);

#[derive(Debug)]
pub(crate) struct Shared {
    plain: Crowd,
    /// A group knows its position here.
    groups: Vec<GroupKey>,
    /// Where the filter begins in the text of the exact filter's entry, which may have a share prefix.
    text_start: u16,
}

impl Default for Subscribers {
    fn default() -> Self {
        Subscribers::Plain(Crowd::Empty)
    }
}

impl Subscribers {
    /// Subscribers of an entry whose text has its filter from `text_start`.
    pub(crate) fn with_text_start(text_start: u16) -> Subscribers {
        match text_start {
            0 => Subscribers::default(),
            _ => Subscribers::Shared(Box::new(Shared { plain: Crowd::Empty, groups: Vec::new(), text_start })),
        }
    }

    pub(crate) fn text_start(&self) -> u16 {
        match self {
            Subscribers::Plain(_) => 0,
            Subscribers::Shared(shared) => shared.text_start,
        }
    }

    pub(crate) fn plain(&self) -> &Crowd {
        match self {
            Subscribers::Plain(plain) => plain,
            Subscribers::Shared(shared) => &shared.plain,
        }
    }

    pub(crate) fn plain_mut(&mut self) -> &mut Crowd {
        match self {
            Subscribers::Plain(plain) => plain,
            Subscribers::Shared(shared) => &mut shared.plain,
        }
    }

    pub(crate) fn groups(&self) -> &[GroupKey] {
        match self {
            Subscribers::Plain(_) => &[],
            Subscribers::Shared(shared) => &shared.groups,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.plain().is_empty() && self.groups().is_empty()
    }

    /// Adds a group and returns its position.
    pub(crate) fn add_group(&mut self, group: GroupKey) -> u32 {
        if let Subscribers::Plain(plain) = self {
            let plain = core::mem::take(plain);
            *self = Subscribers::Shared(Box::new(Shared { plain, groups: Vec::new(), text_start: 0 }));
        }
        match self {
            Subscribers::Plain(_) => unreachable!("made shared above"),
            Subscribers::Shared(shared) => {
                shared.groups.push(group);
                slot(shared.groups.len() - 1)
            }
        }
    }

    /// Removes the group at `position`; returns the group that moved there.
    pub(crate) fn remove_group(&mut self, position: u32) -> Option<GroupKey> {
        let Subscribers::Shared(shared) = self else {
            unreachable!("a group's position is in its filter's list");
        };
        shared.groups.swap_remove(position as usize);
        let moved = shared.groups.get(position as usize).copied();
        if shared.groups.is_empty() && shared.text_start == 0 {
            *self = Subscribers::Plain(core::mem::take(&mut shared.plain));
        }
        moved
    }
}
