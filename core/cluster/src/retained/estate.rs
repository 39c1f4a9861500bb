//! What a node takes along when its part in one group ends and its part in the next begins.

use bytes::Bytes;
use newtmq_base::RequestId;

use super::Retained;
use super::topics::Topics;

/// What is retained, without a group that agrees on it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Estate {
    pub(super) topics: Topics,
    pub(super) horizon: u64,
}

/// What is left of a node's part in a group.
#[derive(Debug, Default)]
pub struct Left {
    /// What was applied.
    pub estate: Estate,
    /// What was kept without a leader: topic, message, and up to which index the topic was known.
    pub kept: Vec<(Box<str>, Option<Bytes>, u64)>,
    /// Requests without an answer: their topic, message, and whether it may be kept.
    pub asked: Vec<(RequestId, Box<str>, Option<Bytes>, bool)>,
}

impl Estate {
    /// For a group that knows nothing of the one before: everything is of one index, and nothing was deleted.
    #[must_use]
    pub fn renumbered(&self, index: u64) -> Estate {
        let mut topics = Topics::default();
        for (topic, item) in self.topics.after(None) {
            if let Some(message) = &item.message {
                topics.put(topic, index, Some(message.clone()));
            }
        }
        Estate { topics, horizon: 0 }
    }

    /// A message more.
    pub fn add(&mut self, topic: &str, index: u64, message: Bytes) {
        self.topics.put(topic, index, Some(message));
    }

    /// All of it, in the order of topics: topic, index of its entry, message; none for a deletion.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64, Option<&Bytes>)> {
        self.topics.after(None).map(|(topic, item)| (topic, item.index, item.message.as_ref()))
    }

    /// How many topics.
    #[must_use]
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.topics.len() == 0
    }
}

impl Retained {
    /// The node's part in the group ends.
    #[must_use]
    pub fn into_left(self) -> Left {
        let (kept, asked) = self.asking.into_left();
        let state = self.group.state;
        Left { estate: Estate { topics: state.topics, horizon: state.horizon }, kept, asked }
    }

    /// What the group has of a topic: index of its entry, and the message; none for a deletion that is remembered.
    #[must_use]
    pub fn item(&self, topic: &str) -> Option<(u64, Option<&Bytes>)> {
        self.group.state.topics.get(topic).map(|item| (item.index, item.message.as_ref()))
    }

    /// Of what another part of the same node had, in the group before this one: what this group does not have, and should be
    /// asked to take. It counts only if nobody has written the topic in this group.
    #[must_use]
    pub fn lacks(&self, estate: &Estate) -> Vec<(Box<str>, Option<Bytes>)> {
        let state = &self.group.state;
        let is_lacking = |(topic, index, message): &(&str, u64, Option<&Bytes>)| {
            let known = state.topics.get(topic).map(|item| item.index);
            // What was deleted and is forgotten looks like what never was; so does a deletion of what never was.
            known.map_or(*index > state.horizon && message.is_some(), |known| known < *index)
        };
        estate.iter().filter(is_lacking).map(|(topic, _, message)| (topic.into(), message.cloned())).collect()
    }
}
