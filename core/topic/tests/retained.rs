//! The retained index and its cursor against the naive matcher.

#![allow(clippy::unwrap_used, reason = "a test helper that fails fails its test")]

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use newtmq_mqtt::{OwnedTopicFilter, TopicFilter, TopicName};
use newtmq_topic::{RetainedCursor, RetainedIndex, RetainedValue};
use proptest::prelude::*;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Message {
    topic: String,
    version: u32,
}

impl RetainedValue for Message {
    fn topic(&self) -> &str {
        &self.topic
    }
}

fn message(topic: &str, version: u32) -> Message {
    Message { topic: topic.to_owned(), version }
}

fn index(topics: &[&str]) -> RetainedIndex<Message> {
    let mut index = RetainedIndex::new();
    for topic in topics {
        index.set(message(topic, 0));
    }
    index
}

fn cursor(filter: &str) -> RetainedCursor {
    RetainedCursor::new(OwnedTopicFilter::from(TopicFilter::new(filter).unwrap()))
}

/// All that matches, and how many were looked at.
fn all(index: &RetainedIndex<Message>, filter: &str) -> (Vec<String>, usize) {
    let mut budget = usize::MAX;
    let mut found = Vec::new();
    assert!(index.drain(&mut cursor(filter), &mut budget, |message| {
        found.push(message.topic.clone());
        ControlFlow::Continue(())
    }));
    (found, usize::MAX - budget)
}

/// [MQTT-3.3.1-5], [MQTT-3.3.1-6]
#[test]
fn one_message_a_topic() {
    let mut index = index(&["a"]);
    assert_eq!(index.set(message("a", 1)), Some(message("a", 0)));
    assert_eq!((index.len(), index.get("a")), (1, Some(&message("a", 1))));
    assert_eq!(index.remove("a"), Some(message("a", 1)));
    assert_eq!(index.remove("a"), None);
    assert!(index.is_empty());
}

/// [MQTT-3.3.1-9] asks for the messages of matching topics: sections 4.7.1 and 4.7.2 say which.
#[test]
fn statements() {
    let topics = ["$SYS/a", "/", "a", "a-b/c", "a/", "a/$x", "a/b", "a/b/c", "a0", "ab", "b/a/c"];
    let index = index(&topics);
    let cases: &[(&str, &[&str])] = &[
        ("#", &["/", "a", "a-b/c", "a/", "a/$x", "a/b", "a/b/c", "a0", "ab", "b/a/c"]),
        ("+", &["a", "a0", "ab"]),
        ("+/+", &["/", "a-b/c", "a/", "a/$x", "a/b"]),
        ("a/#", &["a", "a/", "a/$x", "a/b", "a/b/c"]),
        ("a/+", &["a/", "a/$x", "a/b"]),
        ("+/+/c", &["a/b/c", "b/a/c"]),
        ("+/c", &["a-b/c"]),
        ("$SYS/#", &["$SYS/a"]),
        ("$SYS/+", &["$SYS/a"]),
        ("+/a", &[]),
        ("a", &["a"]),
        ("c", &[]),
        ("$share/g/a/b/#", &["a/b", "a/b/c"]),
    ];
    for (filter, expected) in cases {
        assert_eq!(all(&index, filter).0, *expected, "{filter}");
    }
}

#[test]
fn a_cursor_leaps_over_subtrees() {
    let mut index = RetainedIndex::new();
    for device in 0..100 {
        for value in 0..100 {
            index.set(message(&format!("dev/{device:03}/value/{value}"), 0));
        }
        index.set(message(&format!("dev/{device:03}/state"), 0));
    }
    for other in 0..1_000 {
        index.set(message(&format!("zone/{other}"), 0));
    }
    assert_eq!(index.len(), 11_100);
    for (filter, matching, looked_at) in [
        ("dev/042/state", 1, 1),
        ("dev/042/#", 101, 102),
        ("dev/+/state", 100, 201),
        ("dev/+/value/7", 100, 301),
        ("+/+/state", 100, 1_200),
        ("+/042/state", 1, 5),
        ("none/#", 0, 1),
        ("$SYS/#", 0, 1),
    ] {
        let (found, examined) = all(&index, filter);
        assert_eq!(found.len(), matching, "{filter}");
        assert!(examined <= looked_at, "{filter} looked at {examined}");
    }
}

#[test]
fn a_refused_message_comes_again_and_no_budget_pauses() {
    let index = index(&["a", "b", "c"]);
    let mut cursor = cursor("+");
    let mut budget = 0;
    assert!(!index.drain(&mut cursor, &mut budget, |_| panic!("no budget")));
    budget = 9;
    let mut seen = Vec::new();
    let mut room = 2;
    let mut visit = |message: &Message, room: &mut i32| {
        if *room == 0 {
            return ControlFlow::Break(());
        }
        *room -= 1;
        seen.push(message.topic.clone());
        ControlFlow::Continue(())
    };
    assert!(!index.drain(&mut cursor, &mut budget, |m| visit(m, &mut room)));
    room = 2;
    assert!(index.drain(&mut cursor, &mut budget, |m| visit(m, &mut room)));
    assert!(index.drain(&mut cursor, &mut budget, |_| panic!("finished")));
    assert_eq!((seen, budget), (vec!["a".to_owned(), "b".to_owned(), "c".to_owned()], 5));
}

fn level() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "", "$", "a-", "a0", "aa", "\u{1}", "é"])
}

fn topic_text() -> impl Strategy<Value = String> {
    prop::collection::vec(level(), 1..5).prop_map(|levels| levels.join("/")).prop_filter("empty", |t| !t.is_empty())
}

fn filter_text() -> impl Strategy<Value = String> {
    let level = prop_oneof![1 => level(), 1 => Just("+")];
    (prop::collection::vec(level, 0..5), any::<bool>())
        .prop_map(|(mut levels, hash)| {
            if hash {
                levels.push("#");
            }
            levels.join("/")
        })
        .prop_filter("valid", |text| TopicFilter::new(text).is_ok())
}

#[derive(Debug, Clone)]
enum Change {
    Set(String),
    Remove(String),
    RemoveAny(usize),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        topic_text().prop_map(Change::Set),
        topic_text().prop_map(Change::Remove),
        any::<usize>().prop_map(Change::RemoveAny),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// A cursor finds all that the naive matcher finds, in order, looking at no more than there is.
    #[test]
    fn one_drain_finds_what_matches(topics in prop::collection::vec(topic_text(), 0..60), filter in filter_text()) {
        let texts: Vec<&str> = topics.iter().map(String::as_str).collect();
        let index = index(&texts);
        let parsed = TopicFilter::new(&filter).unwrap();
        let expected: Vec<String> = index
            .iter()
            .filter(|message| parsed.matches(TopicName::new(&message.topic).unwrap()))
            .map(|message| message.topic.clone())
            .collect();
        let (found, examined) = all(&index, &filter);
        prop_assert_eq!(found, expected);
        prop_assert!(examined <= index.len().max(1));
    }

    /// With changes between drains: what matches and stays is visited once, nothing is visited twice, the order is kept,
    /// and each visit shows the value of that moment.
    #[test]
    fn drains_with_changes_between(
        topics in prop::collection::vec(topic_text(), 0..60),
        filter in filter_text(),
        rounds in prop::collection::vec((0..5_usize, 0..4_usize, prop::collection::vec(change(), 0..4)), 0..30),
    ) {
        let mut index = RetainedIndex::new();
        let mut present: BTreeMap<String, u32> = BTreeMap::new();
        let mut always: Vec<String> = Vec::new();
        for topic in topics {
            index.set(message(&topic, 0));
            present.insert(topic.clone(), 0);
            always.push(topic);
        }
        let parsed = TopicFilter::new(&filter).unwrap();
        let mut cursor = cursor(&filter);
        let mut visited: Vec<String> = Vec::new();
        let mut finished = false;
        for (version, (budget, mut room, changes)) in (1..).zip(rounds) {
            let mut left = budget;
            finished = index.drain(&mut cursor, &mut left, |message| {
                if room == 0 {
                    return ControlFlow::Break(());
                }
                room -= 1;
                assert_eq!(present.get(&message.topic), Some(&message.version));
                visited.push(message.topic.clone());
                ControlFlow::Continue(())
            });
            prop_assert!(left <= budget);
            if finished {
                break;
            }
            for change in changes {
                match change {
                    Change::Set(topic) => {
                        let old = present.insert(topic.clone(), version);
                        prop_assert_eq!(index.set(message(&topic, version)).map(|m| m.version), old);
                    }
                    Change::Remove(topic) => {
                        prop_assert_eq!(index.remove(&topic).map(|m| m.version), present.remove(&topic));
                        always.retain(|other| *other != topic);
                    }
                    Change::RemoveAny(number) => {
                        let count = present.len().max(1);
                        if let Some(topic) = present.keys().nth(number % count).cloned() {
                            prop_assert_eq!(index.remove(&topic).map(|m| m.version), present.remove(&topic));
                            always.retain(|other| *other != topic);
                        }
                    }
                }
            }
        }
        if !finished {
            index.drain(&mut cursor, &mut usize::MAX.clone(), |message| {
                visited.push(message.topic.clone());
                ControlFlow::Continue(())
            });
        }
        prop_assert!(visited.is_sorted() && visited.windows(2).all(|pair| pair[0] != pair[1]));
        for topic in &visited {
            prop_assert!(parsed.matches(TopicName::new(topic).unwrap()));
        }
        for topic in always.iter().filter(|topic| parsed.matches(TopicName::new(topic).unwrap())) {
            prop_assert!(visited.contains(topic), "{} was missed", topic);
        }
    }
}
