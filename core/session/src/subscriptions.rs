//! The subscriptions of one session.

use core::num::NonZeroU32;
use std::collections::BTreeMap;

use newtmq_mqtt::{OwnedTopicFilter, SubscribeOptions};

/// What is remembered of a subscription beside its filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscriptionEntry {
    /// Granted options.
    pub options: SubscribeOptions,
    /// Subscription Identifier.
    pub identifier: Option<NonZeroU32>,
}

/// A map filter → entry: a sorted vector while it is small (most sessions have one or two subscriptions and must cost
/// little), a tree above.
#[derive(Debug)]
pub enum Subscriptions {
    /// Sorted by filter.
    Few(Vec<(OwnedTopicFilter, SubscriptionEntry)>),
    /// Above 32.
    Many(Box<BTreeMap<OwnedTopicFilter, SubscriptionEntry>>),
}

/// Largest sorted vector.
const FEW_MAX: usize = 32;

impl Default for Subscriptions {
    fn default() -> Self {
        Subscriptions::Few(Vec::new())
    }
}

impl Subscriptions {
    /// Number of subscriptions.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Subscriptions::Few(list) => list.len(),
            Subscriptions::Many(map) => map.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry of `filter`.
    #[must_use]
    pub fn get(&self, filter: &str) -> Option<&SubscriptionEntry> {
        match self {
            Subscriptions::Few(list) => {
                list.binary_search_by(|(own, _)| own.as_str().cmp(filter)).ok().map(|at| &list[at].1)
            }
            Subscriptions::Many(map) => map.get(filter),
        }
    }

    pub(crate) fn insert(&mut self, filter: OwnedTopicFilter, entry: SubscriptionEntry) -> Option<SubscriptionEntry> {
        let list = match self {
            Subscriptions::Many(map) => return map.insert(filter, entry),
            Subscriptions::Few(list) => list,
        };
        match list.binary_search_by(|(own, _)| own.as_str().cmp(filter.as_str())) {
            Ok(at) => Some(core::mem::replace(&mut list[at].1, entry)),
            Err(at) if list.len() < FEW_MAX => {
                if list.len() == list.capacity() {
                    list.reserve_exact(list.len().max(1));
                }
                list.insert(at, (filter, entry));
                None
            }
            Err(_) => {
                let mut map: BTreeMap<_, _> = core::mem::take(list).into_iter().collect();
                map.insert(filter, entry);
                *self = Subscriptions::Many(Box::new(map));
                None
            }
        }
    }

    pub(crate) fn remove(&mut self, filter: &str) -> Option<SubscriptionEntry> {
        match self {
            Subscriptions::Few(list) => {
                let at = list.binary_search_by(|(own, _)| own.as_str().cmp(filter)).ok()?;
                Some(list.remove(at).1)
            }
            Subscriptions::Many(map) => map.remove(filter),
        }
    }

    /// All of them, ordered by filter.
    pub fn iter(&self) -> impl Iterator<Item = (&OwnedTopicFilter, &SubscriptionEntry)> {
        let (few, many) = match self {
            Subscriptions::Few(list) => (Some(list.iter().map(|(filter, entry)| (filter, entry))), None),
            Subscriptions::Many(map) => (None, Some(map.iter())),
        };
        few.into_iter().flatten().chain(many.into_iter().flatten())
    }
}
