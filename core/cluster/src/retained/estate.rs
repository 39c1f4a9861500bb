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

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use bytes::Bytes;
    use newtmq_base::{Incarnation, Instant, NodeId, RequestId, Rng};

    use super::super::{Config, Identity, Input, Output, Retained, Stored};
    use super::Estate;
    use crate::meta::ClusterId;

    const BASE: u64 = 1 << 40;

    fn estate(items: &[(&str, u64, Option<&'static str>)]) -> Estate {
        let mut estate = Estate::default();
        for (topic, index, message) in items {
            estate.topics.put(topic, *index, message.map(Into::into));
        }
        estate
    }

    /// A group of one, which decides by itself.
    struct Alone(Retained, Vec<Output>, Instant);

    impl Alone {
        fn new(stored: Stored) -> Alone {
            let me = Identity { node: NodeId(1), inc: Incarnation(1), cluster: ClusterId(5), witness: false };
            let now = Instant::START;
            Alone(Retained::new(Config::default(), me, stored, Rng::from_number(1), now).unwrap(), Vec::new(), now)
        }

        fn input(&mut self, input: Input<'_>) {
            let mut out = Vec::new();
            self.2 = self.2 + Duration::from_millis(1);
            self.0.handle(self.2, input, &mut out);
            let persist =
                |output: &Output| if let Output::Persist(persist) = output { Some(persist.number) } else { None };
            let number = out.iter().filter_map(persist).max();
            self.1.extend(out);
            if let Some(number) = number {
                self.input(Input::Persisted { number });
            }
        }

        fn write(&mut self, topic: &str, message: Option<&'static str>, seen: Option<u64>) {
            let message = message.map(|message| Bytes::from_static(message.as_bytes()));
            self.input(Input::Write { request: RequestId(1), topic: topic.into(), message, keep: false, seen });
        }

        fn stored(&self) -> Stored {
            let mut stored = Stored::default();
            for output in &self.1 {
                if let Output::Persist(persist) = output {
                    let mut bytes = Vec::new();
                    persist.encode(&mut bytes);
                    stored.apply(super::super::Persist::decode(&bytes).unwrap());
                }
            }
            stored
        }
    }

    #[test]
    fn a_group_begins_with_what_its_founder_had() {
        let mut group = Alone::new(Stored::default());
        let had = estate(&[("a", 3, Some("old")), ("b", 5, None)]);
        group.input(Input::Found { index: BASE, estate: had.clone() });
        assert_eq!(group.0.item("a"), Some((3, Some(&Bytes::from_static(b"old")))));
        group.write("a", Some("new"), Some(BASE));
        group.write("a", Some("late"), Some(BASE));
        group.write("b", Some("if absent"), Some(0));
        group.write("c", Some("if absent"), Some(0));
        let (index, message) = group.0.item("a").unwrap();
        assert!(index > BASE && message == Some(&Bytes::from_static(b"new")));
        assert_eq!(group.0.item("b"), Some((5, None)), "it is known that it was deleted");
        assert!(group.0.item("c").is_some());
        // A start finds the same, written one by one or as a whole.
        let whole = group.0.whole().unwrap();
        let mut at_once = Stored::default();
        at_once.apply(whole);
        for stored in [group.stored(), at_once] {
            let mut again = Alone::new(stored);
            for _ in 0..3 {
                again.2 = again.2 + Duration::from_secs(1);
                again.input(Input::Tick);
            }
            for topic in ["a", "b", "c"] {
                assert_eq!(again.0.item(topic), group.0.item(topic), "{topic}");
            }
        }
        // Another one of the old group compares.
        let other = estate(&[("a", 9, Some("x")), ("b", 4, Some("y")), ("d", 8, Some("z")), ("e", 9, None)]);
        assert_eq!(group.0.lacks(&other), [("d".into(), Some(Bytes::from_static(b"z")))]);
        assert_eq!(had.renumbered(1), estate(&[("a", 1, Some("old"))]));
    }
}
