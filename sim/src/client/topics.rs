//! What is known of a topic: its number in the run and the hash that payloads are bound to. Looking both up costs more
//! than everything else about a small message, so the last ones of each client are kept.

use crate::draw::of_name;
use crate::history::{NameIx, Names};

/// A topic as events and payloads name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Topic {
    /// Its number.
    pub(crate) name: NameIx,
    /// Its hash.
    pub(crate) hash: u64,
}

/// The topics that a client saw last.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    /// By [`slot`]; empty until the first one is looked up.
    slots: Vec<Option<Topic>>,
}

impl Topics {
    /// The topic with this text.
    #[inline]
    pub(crate) fn of(&mut self, text: &str, names: &mut Names) -> Topic {
        let slot = slot(text.as_bytes());
        if let Some(Some(topic)) = self.slots.get(slot)
            && names.text(topic.name) == text
        {
            return *topic;
        }
        self.keep(slot, text, names)
    }

    #[cold]
    fn keep(&mut self, slot: usize, text: &str, names: &mut Names) -> Topic {
        if self.slots.is_empty() {
            self.slots.resize(SLOTS, None);
        }
        let topic = Topic { name: names.number(text), hash: of_name(text) };
        self.slots[slot] = Some(topic);
        topic
    }
}

/// A place for a text: topics of one run differ mostly at their end.
fn slot(text: &[u8]) -> usize {
    let mut hash = text.len() as u64;
    for chunk in text.rchunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = (hash.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x517C_C1B7_2722_0A95);
    }
    (hash >> 58) as usize
}

/// One for each value of six bits.
const SLOTS: usize = 64;

#[cfg(test)]
mod tests {
    use super::Topics;
    use crate::history::Names;

    #[test]
    fn more_topics_than_places() {
        let (mut topics, mut names) = (Topics::default(), Names::default());
        let texts: Vec<String> = (0..500).map(|n| format!("a/{n}")).collect();
        for _ in 0..3 {
            for text in &texts {
                let topic = topics.of(text, &mut names);
                assert_eq!((names.text(topic.name), topic.hash), (text.as_str(), crate::draw::of_name(text)));
            }
        }
        assert_eq!(names.len(), 500);
    }
}
