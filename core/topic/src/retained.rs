//! Retained messages by topic, and a reader that goes through those that match a filter, a bounded step at a time.

use core::borrow::Borrow;
use core::cmp::Ordering;
use core::ops::{Bound, ControlFlow};
use std::collections::BTreeSet;

use newtmq_base::planted;
use newtmq_mqtt::OwnedTopicFilter;

use crate::group::filter_start;

/// A retained message: a value that knows its topic, and whose topic does not change.
pub trait RetainedValue {
    /// The topic name.
    fn topic(&self) -> &str;
}

/// Retained messages, at most one a topic, ordered by topic as bytes. The topic's text is in the value alone.
#[derive(Debug, Clone)]
pub struct RetainedIndex<M: RetainedValue> {
    values: BTreeSet<ByTopic<M>>,
}

#[derive(Debug, Clone)]
struct ByTopic<M>(M);

impl<M: RetainedValue> Borrow<str> for ByTopic<M> {
    fn borrow(&self) -> &str {
        self.0.topic()
    }
}

impl<M: RetainedValue> PartialEq for ByTopic<M> {
    fn eq(&self, other: &Self) -> bool {
        self.0.topic() == other.0.topic()
    }
}

impl<M: RetainedValue> Eq for ByTopic<M> {}

impl<M: RetainedValue> PartialOrd for ByTopic<M> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<M: RetainedValue> Ord for ByTopic<M> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.topic().cmp(other.0.topic())
    }
}

impl<M: RetainedValue> Default for RetainedIndex<M> {
    fn default() -> Self {
        RetainedIndex { values: BTreeSet::new() }
    }
}

impl<M: RetainedValue> RetainedIndex<M> {
    /// An empty index.
    #[must_use]
    pub fn new() -> RetainedIndex<M> {
        RetainedIndex::default()
    }

    /// Number of retained messages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is no retained message.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Sets the retained message of its topic; returns the one that it replaces [MQTT-3.3.1-5].
    pub fn set(&mut self, value: M) -> Option<M> {
        self.values.replace(ByTopic(value)).map(|old| old.0)
    }

    /// Removes the retained message of a topic [MQTT-3.3.1-6].
    pub fn remove(&mut self, topic: &str) -> Option<M> {
        self.values.take(topic).map(|old| old.0)
    }

    /// The retained message of a topic.
    #[must_use]
    pub fn get(&self, topic: &str) -> Option<&M> {
        self.values.get(topic).map(|value| &value.0)
    }

    /// All retained messages in the order of their topics.
    pub fn iter(&self) -> impl Iterator<Item = &M> {
        self.values.iter().map(|value| &value.0)
    }

    /// The next one in the order of topics after this topic, which need not be there.
    #[must_use]
    pub fn after(&self, topic: &str) -> Option<&M> {
        let after = (Bound::Excluded(topic), Bound::Unbounded);
        self.values.range::<str, _>(after).next().map(|value| &value.0)
    }

    /// Visits the messages that match the cursor's filter, in the order of their topics, from where the cursor stands;
    /// returns whether it has come to the end.
    ///
    /// Each message looked at takes one from `budget`, whether it matches or not; at 0 the drain pauses. Where `visit`
    /// breaks, its message counts as not taken, and the next drain begins with it. The index may change in between:
    /// what is set or removed behind the cursor is not noticed, what is ahead is.
    pub fn drain(
        &self,
        cursor: &mut RetainedCursor,
        budget: &mut usize,
        mut visit: impl FnMut(&M) -> ControlFlow<()>,
    ) -> bool {
        if cursor.exact {
            return self.drain_exact(cursor, budget, visit);
        }
        let filter = &cursor.text.as_str()[usize::from(cursor.filter_start)..];
        while !cursor.finished {
            let from = Bound::Included(cursor.from.as_str());
            let mut values = self.values.range::<str, _>((from, Bound::Unbounded));
            // Until the filter says to go on far ahead, the next value is the nearest.
            loop {
                let Some(ByTopic(value)) = values.next() else {
                    cursor.finished = true;
                    break;
                };
                let topic = value.topic();
                if topic < cursor.from.as_str() {
                    break;
                }
                if *budget == 0 {
                    topic.clone_into(&mut cursor.from);
                    return false;
                }
                *budget -= 1;
                match judge(filter, topic) {
                    Verdict::Match(_) if visit(value).is_break() => {
                        topic.clone_into(&mut cursor.from);
                        if planted!(RetainedCursorSkips) {
                            cursor.from.push('\0');
                        }
                        return false;
                    }
                    Verdict::Match(Some(ahead)) => ahead.write(topic, &mut cursor.from),
                    Verdict::Match(None) | Verdict::Next => {}
                    Verdict::Seek(ahead) => ahead.write(topic, &mut cursor.from),
                    Verdict::End => {
                        cursor.finished = true;
                        break;
                    }
                }
            }
        }
        true
    }

    fn drain_exact(
        &self,
        cursor: &mut RetainedCursor,
        budget: &mut usize,
        mut visit: impl FnMut(&M) -> ControlFlow<()>,
    ) -> bool {
        if cursor.finished {
            return true;
        }
        if *budget == 0 {
            return false;
        }
        *budget -= 1;
        cursor.finished = match self.get(cursor.filter()) {
            Some(value) => visit(value).is_continue(),
            None => true,
        };
        cursor.finished
    }
}

/// Where a reader of retained messages stands.
#[derive(Debug, Clone)]
pub struct RetainedCursor {
    text: OwnedTopicFilter,
    filter_start: u16,
    exact: bool,
    finished: bool,
    /// All matching topics before this one have been visited.
    from: String,
}

impl RetainedCursor {
    /// A cursor before the first message that matches `filter`. Of a shared subscription the share prefix is left out;
    /// whether it gets retained messages at all is the caller's question (section 4.8.2).
    #[must_use]
    pub fn new(filter: OwnedTopicFilter) -> RetainedCursor {
        let filter_start = filter_start(&filter);
        let text = &filter.as_str()[usize::from(filter_start)..];
        let (exact, from) = match text.find(['+', '#']) {
            None => (true, ""),
            // `a/#` matches `a`, which comes before `a/`.
            Some(wildcard) if text.as_bytes()[wildcard] == b'#' => (false, &text[..wildcard.saturating_sub(1)]),
            Some(wildcard) => (false, &text[..wildcard]),
        };
        let from = from.to_owned();
        RetainedCursor { text: filter, filter_start, exact, finished: false, from }
    }

    fn filter(&self) -> &str {
        &self.text.as_str()[usize::from(self.filter_start)..]
    }
}

/// What a topic says about itself and those after it, in the order of bytes.
#[derive(Debug, PartialEq, Eq)]
enum Verdict<'f> {
    /// Matches; if there is a text, nothing else does before that.
    Match(Option<Ahead<'f>>),
    /// Does not match; the one after it may.
    Next,
    /// Does not match, nor does any before that.
    Seek(Ahead<'f>),
    /// Does not match, nor does any after it.
    End,
}

/// A text that sorts after a topic: its first `keep` bytes and what is put behind them.
#[derive(Debug, PartialEq, Eq)]
struct Ahead<'f> {
    keep: usize,
    level: &'f str,
    tail: &'static str,
}

/// What sorts next after `/`, so behind everything below a level.
const PAST_SLASH: &str = "0";
/// What sorts next after `$`.
const PAST_DOLLAR: &str = "%";

impl Ahead<'_> {
    /// Behind all below the level that ends at `keep`.
    fn past(keep: usize) -> Self {
        Ahead { keep, level: "", tail: PAST_SLASH }
    }

    fn write(&self, topic: &str, into: &mut String) {
        into.clear();
        into.push_str(&topic[..self.keep]);
        into.push_str(self.level);
        into.push_str(self.tail);
    }
}

/// Compares level by level. Topics before `seek` that follow `topic` cannot match, because up to the first level that
/// differs they are the same as `topic`.
fn judge<'f>(filter: &'f str, topic: &str) -> Verdict<'f> {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        // [MQTT-4.7.2-1]
        return Verdict::Seek(Ahead { keep: 0, level: "", tail: PAST_DOLLAR });
    }
    // Where the last level that `+` stands for ends: the deepest place where another text may do.
    let mut plus_end = None;
    let mut after_plus = false;
    let mut rest = Some(0);
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        if level == "#" {
            return Verdict::Match(None);
        }
        let Some(begin) = rest else {
            // The topic is too short. Below a literal level comes what is longer; a `+` may stand for many between.
            return match after_plus {
                true => Verdict::Next,
                false => Verdict::Seek(Ahead { keep: topic.len(), level: "", tail: "/" }),
            };
        };
        let end = topic[begin..].find('/').map_or(topic.len(), |at| begin + at);
        rest = (end < topic.len()).then_some(end + 1);
        after_plus = level == "+";
        if after_plus {
            plus_end = Some(end);
        } else if level != &topic[begin..end] {
            return differs(topic, begin, level, levels.peek().is_some(), plus_end);
        }
    }
    match rest {
        None if after_plus => Verdict::Match(None),
        None => Verdict::Match(plus_end.map(Ahead::past)),
        Some(_) => past(plus_end),
    }
}

/// The topic's level at `begin` is not `level`, as the filter wants.
fn differs<'f>(topic: &str, begin: usize, level: &'f str, more_levels: bool, plus_end: Option<usize>) -> Verdict<'f> {
    let found = &topic[begin..];
    if level > found {
        return Verdict::Seek(Ahead { keep: begin, level, tail: "" });
    }
    // `a-b` comes before `a/`.
    let below = found.strip_prefix(level).is_some_and(|tail| tail < "/");
    if more_levels && below {
        return Verdict::Seek(Ahead { keep: begin, level, tail: "/" });
    }
    past(plus_end)
}

/// Nothing more under what the last `+` stands for.
fn past<'f>(plus_end: Option<usize>) -> Verdict<'f> {
    plus_end.map_or(Verdict::End, |end| Verdict::Seek(Ahead::past(end)))
}
