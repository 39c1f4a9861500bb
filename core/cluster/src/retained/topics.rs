//! The retained messages by topic, and ranges of them as they travel to another node or to the disk.
//!
//! A range is read from the state as it is at that moment, so a whole of ranges is of no single index. Each piece of the
//! order of topics remembers which entries of the log are in it already; those are not applied to it again.

use core::ops::Bound;
use std::collections::BTreeMap;

use bytes::Bytes;
use newtmq_base::{InvalidField, Put, Take, planted};

use crate::owned::DigestKey;

/// What there is of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    /// Index of the entry that changed it last.
    pub(super) index: u64,
    /// `None`: it was deleted.
    pub(super) message: Option<Bytes>,
}

/// Where a piece of the order of topics ends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// With this topic.
    At(Box<str>),
    /// With the last one that there can be.
    Last,
}

/// Which entries of the log are in a piece already: those after `since`, up to `as_of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Piece {
    since: u64,
    as_of: u64,
}

/// All that changed after `since` in the topics after `from`, up to `to`, as it was when `as_of` was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) as_of: u64,
    /// 0: everything that there is; what is not in it does not exist.
    pub(super) since: u64,
    pub(super) from: Option<Box<str>>,
    pub(super) to: End,
    pub(super) items: Vec<(Box<str>, Item)>,
}

/// How much a chunk may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChunkLimits {
    pub(super) bytes: usize,
    /// Topics that are looked at.
    pub(super) scanned: usize,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Topics {
    map: BTreeMap<Box<str>, Item>,
    // By the index of the deletion.
    tombstones: BTreeMap<u64, Box<str>>,
    // By their ends; if there are any, they cover everything.
    pieces: BTreeMap<End, Piece>,
    bytes: usize,
    digest: u64,
}

impl Topics {
    pub(super) fn get(&self, topic: &str) -> Option<&Item> {
        self.map.get(topic)
    }

    /// Messages, without what was deleted.
    pub(super) fn len(&self) -> usize {
        self.map.len() - self.tombstones.len()
    }

    pub(super) fn tombstones(&self) -> usize {
        self.tombstones.len()
    }

    /// Bytes of topics and messages.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Of topics, indexes and messages, in any order.
    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    /// In the order of topics, after one of them.
    pub(super) fn after<'a>(&'a self, topic: Option<&str>) -> impl Iterator<Item = (&'a str, &'a Item)> + use<'a> {
        let start = topic.map_or(Bound::Unbounded, Bound::Excluded);
        self.map.range::<str, _>((start, Bound::Unbounded)).map(|(topic, item)| (&**topic, item))
    }

    /// A topic is as an entry makes it.
    pub(super) fn put(&mut self, topic: &str, index: u64, message: Option<Bytes>) {
        let added = hash(topic, index, message.as_ref());
        if message.is_none() {
            self.tombstones.insert(index, topic.into());
        }
        self.bytes += message.as_ref().map_or(0, Bytes::len);
        self.digest = self.digest.wrapping_add(added);
        if let Some(item) = self.map.get_mut(topic) {
            let before = core::mem::replace(item, Item { index, message });
            self.gone(topic, &before);
        } else {
            self.bytes += topic.len();
            self.map.insert(topic.into(), Item { index, message });
        }
    }

    fn gone(&mut self, topic: &str, before: &Item) {
        self.digest = self.digest.wrapping_sub(hash(topic, before.index, before.message.as_ref()));
        match &before.message {
            Some(message) => self.bytes -= message.len(),
            None => {
                self.tombstones.remove(&before.index);
            }
        }
    }

    fn remove(&mut self, topic: &str) {
        if let Some(before) = self.map.remove(topic) {
            self.bytes -= topic.len();
            self.gone(topic, &before);
        }
    }

    /// Forgets what was deleted by entries up to this one.
    pub(super) fn forget(&mut self, upto: u64) {
        while let Some(first) = self.tombstones.first_entry().filter(|first| *first.key() <= upto) {
            let topic = first.get().clone();
            self.remove(&topic);
        }
    }

    /// Index of the first deletion that is not forgotten.
    pub(super) fn first_tombstone(&self) -> Option<u64> {
        self.tombstones.first_key_value().map(|(index, _)| *index)
    }

    /// Index up to which deletions would have to be forgotten for no more than `keep` to be left.
    pub(super) fn tombstone_before(&self, keep: usize) -> Option<u64> {
        let extra = self.tombstones.len().checked_sub(keep + 1)?;
        self.tombstones.keys().nth(extra).copied()
    }

    /// Whether the entry at `index` is in a topic already, or is one of before what is there.
    pub(super) fn has(&self, topic: &str, index: u64) -> bool {
        if self.pieces.is_empty() || planted!(RetainedPiecesIgnored) {
            return false;
        }
        let piece = self.piece_of(topic);
        let is_in = piece.since < index && index <= piece.as_of;
        is_in || self.map.get(topic).is_some_and(|item| item.index >= index)
    }

    /// From when on everything is of one index.
    pub(super) fn exact_from(&self) -> u64 {
        self.pieces.values().map(|piece| piece.as_of).max().unwrap_or(0)
    }

    /// Everything up to this entry is applied.
    pub(super) fn applied(&mut self, index: u64) {
        if !self.pieces.is_empty() && self.exact_from() <= index {
            self.pieces.clear();
        }
    }

    fn piece_of(&self, topic: &str) -> Piece {
        let rest = self.pieces.range(End::At(topic.into())..);
        rest.map(|(_, piece)| *piece).next().unwrap_or_default()
    }

    fn cover(&mut self, from: Option<&str>, to: &End, piece: Piece) {
        if self.pieces.is_empty() {
            self.pieces.insert(End::Last, Piece::default());
        }
        let start = from.map(|from| End::At(from.into()));
        if let (Some(start), Some(from)) = (&start, from) {
            let before = self.piece_of(from);
            self.pieces.entry(start.clone()).or_insert(before);
        }
        let within = self.pieces.range((start.map_or(Bound::Unbounded, Bound::Excluded), Bound::Excluded(to.clone())));
        let within: Vec<End> = within.map(|(end, _)| end.clone()).collect();
        for end in within {
            self.pieces.remove(&end);
        }
        self.pieces.insert(to.clone(), piece);
    }

    /// The next chunk after a topic.
    pub(super) fn chunk(&self, from: Option<&str>, since: u64, as_of: u64, limits: ChunkLimits) -> Chunk {
        let mut chunk = Chunk { as_of, since, from: from.map(Into::into), to: End::Last, items: Vec::new() };
        let mut bytes = 0;
        for (scanned, (topic, item)) in self.after(from).enumerate() {
            let cost = topic.len() + item.message.as_ref().map_or(0, Bytes::len) + ITEM_BYTES;
            let is_in = item.index > since;
            if scanned >= limits.scanned || is_in && bytes > 0 && bytes + cost > limits.bytes {
                let last = self.before(topic).expect("one was looked at before");
                chunk.to = End::At(last.into());
                break;
            }
            if is_in {
                bytes += cost;
                chunk.items.push((topic.into(), item.clone()));
            }
        }
        chunk
    }

    fn before(&self, topic: &str) -> Option<&str> {
        let mut before = self.map.range::<str, _>((Bound::Unbounded, Bound::Excluded(topic)));
        before.next_back().map(|(topic, _)| &**topic)
    }

    /// Takes a chunk in; each topic that is another one now is told, with the index of that.
    pub(super) fn merge(&mut self, chunk: &Chunk, mut changed: impl FnMut(&str, u64, Option<&Bytes>)) {
        if chunk.since == 0 && !planted!(RetainedGoneStays) {
            for topic in self.missing(chunk) {
                self.remove(&topic);
                changed(&topic, chunk.as_of, None);
            }
        }
        for (topic, item) in &chunk.items {
            if self.map.get(&**topic).is_none_or(|own| own.index < item.index) {
                self.put(topic, item.index, item.message.clone());
                changed(topic, item.index, item.message.as_ref());
            }
        }
        self.cover(chunk.from.as_deref(), &chunk.to, Piece { since: chunk.since, as_of: chunk.as_of });
    }

    // Topics that are not in a chunk of everything.
    fn missing(&self, chunk: &Chunk) -> Vec<Box<str>> {
        let is_within = |topic: &str| match &chunk.to {
            End::At(last) => topic <= &**last,
            End::Last => true,
        };
        let mut there = chunk.items.iter().map(|(topic, _)| &**topic).peekable();
        let mut missing = Vec::new();
        for (topic, item) in self.after(chunk.from.as_deref()).take_while(|(topic, _)| is_within(topic)) {
            while there.next_if(|other| *other < topic).is_some() {}
            if there.peek() != Some(&topic) && item.index <= chunk.as_of {
                missing.push(topic.into());
            }
        }
        missing
    }
}

impl PartialEq for Topics {
    /// What there is of each topic, whatever is in it already.
    fn eq(&self, other: &Topics) -> bool {
        self.map == other.map
    }
}

impl Chunk {
    /// Appends it.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        Put(out).number(self.as_of).number(self.since);
        put_topic(self.from.as_deref(), out);
        put_topic(if let End::At(to) = &self.to { Some(to) } else { None }, out);
        Put(out).number(self.items.len() as u64);
        for (topic, item) in &self.items {
            Put(out).text(topic).number(item.index).flag(item.message.is_some());
            if let Some(message) = &item.message {
                Put(out).bytes(message);
            }
        }
    }

    /// Reads what [`Chunk::encode`] wrote: topics in their order, within the range.
    pub(super) fn decode(take: &mut Take<'_>) -> Result<Chunk, InvalidField> {
        let (as_of, since) = (take.number()?, take.number()?);
        let (from, to) = (take_topic(take)?, take_topic(take)?.map_or(End::Last, End::At));
        let mut items: Vec<(Box<str>, Item)> = Vec::new();
        for _ in 0..take.count()? {
            let (topic, index): (Box<str>, u64) = (take.text()?.into(), take.number()?);
            let message = if take.flag()? { Some(Bytes::copy_from_slice(take.bytes()?)) } else { None };
            let before = items.last().map(|(before, _)| before).or(from.as_ref());
            if before.is_some_and(|before| *before >= topic) || index > as_of || index == 0 {
                return Err(InvalidField("topics out of order"));
            }
            items.push((topic, Item { index, message }));
        }
        let last = items.last().map(|(last, _)| last).or(from.as_ref());
        let is_within = match (&to, last) {
            (End::At(to), Some(last)) => last <= to,
            (End::At(_), None) | (End::Last, _) => true,
        };
        let is_ahead = if let (End::At(to), Some(from)) = (&to, &from) { from < to } else { true };
        if !is_within || !is_ahead {
            return Err(InvalidField("topics out of their range"));
        }
        Ok(Chunk { as_of, since, from, to, items })
    }
}

pub(super) fn put_topic(topic: Option<&str>, out: &mut Vec<u8>) {
    Put(out).flag(topic.is_some());
    if let Some(topic) = topic {
        Put(out).text(topic);
    }
}

pub(super) fn take_topic(take: &mut Take<'_>) -> Result<Option<Box<str>>, InvalidField> {
    Ok(if take.flag()? { Some(take.text()?.into()) } else { None })
}

fn hash(topic: &str, index: u64, message: Option<&Bytes>) -> u64 {
    let [topic, message] = [topic.as_bytes(), message.map_or(&[], |message| message)].map(|bytes| KEY.hash(1, bytes));
    KEY.mix([topic, index, message])
}

const KEY: DigestKey = DigestKey([0x6E65_7774, 0x6D71]);
// What an item costs beside its topic and its message.
const ITEM_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::{Chunk, ChunkLimits, End, Topics};

    const LIMITS: ChunkLimits = ChunkLimits { bytes: 60, scanned: 4 };

    fn topics(items: &[(&str, u64, Option<&'static str>)]) -> Topics {
        let mut topics = Topics::default();
        for (topic, index, message) in items {
            topics.put(topic, *index, message.map(Into::into));
        }
        topics
    }

    fn chunks(of: &Topics, since: u64, as_of: u64) -> Vec<Chunk> {
        let mut chunks: Vec<Chunk> = Vec::new();
        loop {
            let from = match chunks.last().map(|chunk| &chunk.to) {
                Some(End::Last) => return chunks,
                Some(End::At(to)) => Some(to.clone()),
                None => None,
            };
            chunks.push(of.chunk(from.as_deref(), since, as_of, LIMITS));
        }
    }

    #[test]
    fn chunks_bring_everything_and_remove_what_is_gone() {
        let of =
            topics(&[("a", 9, Some("1")), ("b", 2, None), ("c", 3, Some("3")), ("d", 8, None), ("e", 1, Some("5"))]);
        for (since, known) in [(0, vec![("aa", 1, Some("x")), ("a", 4, Some("old"))]), (5, vec![])] {
            let mut to = topics(&known);
            if since > 0 {
                to = topics(&[("a", 5, Some("0")), ("b", 2, None), ("c", 3, Some("3")), ("e", 1, Some("5"))]);
            }
            let chunks = chunks(&of, since, 9);
            assert!(chunks.len() > 1);
            for chunk in &chunks {
                to.merge(chunk, |_, _, _| {});
            }
            assert_eq!(to, of);
            assert_eq!((to.digest(), to.bytes(), to.len()), (of.digest(), of.bytes(), of.len()));
            assert!(to.has("zzz", 9) && !to.has("zzz", 10) && to.has("", since + 1));
            assert_eq!(to.exact_from(), 9);
            to.applied(9);
            assert!(!to.has("zzz", 9));
        }
    }

    #[test]
    fn pieces_split_and_join() {
        let mut topics = Topics::default();
        let chunk = |from: Option<&str>, to: &str, as_of| {
            let to = if to == "~" { End::Last } else { End::At(to.into()) };
            Chunk { as_of, since: 0, from: from.map(Into::into), to, items: Vec::new() }
        };
        topics.merge(&chunk(Some("b"), "d", 5), |_, _, _| {});
        topics.merge(&chunk(Some("c"), "f", 7), |_, _, _| {});
        for (topic, as_of) in [("b", 0), ("bb", 5), ("c", 5), ("ca", 7), ("d", 7), ("f", 7), ("fa", 0)] {
            assert!(topics.has(topic, as_of) == (as_of > 0) && !topics.has(topic, as_of + 1), "{topic}");
        }
        topics.merge(&chunk(None, "~", 8), |_, _, _| {});
        assert_eq!((topics.has("a", 8), topics.pieces.len()), (true, 1));
    }

    #[test]
    fn tombstones_are_forgotten_in_order() {
        let mut topics = topics(&[("a", 1, None), ("b", 2, None), ("c", 3, Some("x")), ("a", 4, Some("y"))]);
        assert_eq!((topics.len(), topics.tombstones(), topics.tombstone_before(0)), (2, 1, Some(2)));
        topics.forget(2);
        assert_eq!((topics.len(), topics.tombstones(), topics.bytes()), (2, 0, 4));
    }
}
