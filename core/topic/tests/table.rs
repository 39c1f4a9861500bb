//! The subscription table against the rules of section 4.7, and against the naive matcher.

#![allow(clippy::unwrap_used, reason = "a test helper that fails fails its test")]

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use newtmq_base::{HashSeed, Rng};
use newtmq_mqtt::{OwnedTopicFilter, QoS, TopicFilter, TopicName};
use newtmq_topic::{
    Fit, Memo, PICK_SCAN_MEMBERS_MAX, PickStrategy, PlaceId, SubscriberId, Subscription, SubscriptionTable,
};
use proptest::prelude::*;

fn owned(text: &str) -> OwnedTopicFilter {
    OwnedTopicFilter::from(TopicFilter::new(text).unwrap())
}

fn topic(text: &str) -> TopicName<'_> {
    TopicName::new(text).unwrap()
}

fn sub(subscriber: u32) -> Subscription {
    Subscription::new(SubscriberId(subscriber), QoS::AtLeastOnce, false, false, None)
}

fn with_identifier(subscriber: u32, identifier: u32) -> Subscription {
    let identifier = NonZeroU32::new(identifier);
    Subscription::new(SubscriberId(subscriber), QoS::AtMostOnce, false, false, identifier)
}

fn table(filters: &[(&str, u32)]) -> SubscriptionTable {
    let mut table = SubscriptionTable::new(HashSeed::new(1));
    for (filter, subscriber) in filters {
        table.subscribe(&owned(filter), sub(*subscriber));
    }
    table
}

/// Subscribers that a publish reaches without groups.
fn reached(table: &mut SubscriptionTable, text: &str) -> Vec<u32> {
    table.matches(topic(text), &mut Memo::default()).subscriptions.iter().map(|s| s.subscriber.0).collect()
}

#[test]
fn statements_of_section_4_7() {
    let cases: &[(&str, &str, &str, bool)] = &[
        ("section 4.7.1.2", "sport/tennis/player1/#", "sport/tennis/player1", true),
        ("section 4.7.1.2", "sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
        ("section 4.7.1.2", "sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
        ("section 4.7.1.2", "sport/tennis/player1/#", "sport/tennis/player10", false),
        ("section 4.7.1.2", "sport/#", "sport", true),
        ("section 4.7.1.2", "#", "a", true),
        ("section 4.7.1.2", "#", "/", true),
        ("[MQTT-4.7.1-1]", "a/+/#", "a/b", true),
        ("[MQTT-4.7.1-1]", "a/+/#", "a", false),
        ("[MQTT-4.7.1-2]", "sport/tennis/+", "sport/tennis/player1", true),
        ("[MQTT-4.7.1-2]", "sport/tennis/+", "sport/tennis/player1/ranking", false),
        ("[MQTT-4.7.1-2]", "sport/+", "sport", false),
        ("[MQTT-4.7.1-2]", "sport/+", "sport/", true),
        ("[MQTT-4.7.1-2]", "+/+", "/finance", true),
        ("[MQTT-4.7.1-2]", "/+", "/finance", true),
        ("[MQTT-4.7.1-2]", "+", "/finance", false),
        ("[MQTT-4.7.1-2]", "+/tennis/#", "sport/tennis/a/b", true),
        ("[MQTT-4.7.2-1]", "#", "$SYS/monitor", false),
        ("[MQTT-4.7.2-1]", "+/monitor", "$SYS/monitor", false),
        ("[MQTT-4.7.2-1]", "+", "$SYS", false),
        ("[MQTT-4.7.2-1]", "$SYS/#", "$SYS/monitor", true),
        ("[MQTT-4.7.2-1]", "$SYS/monitor/+", "$SYS/monitor/Clients", true),
        ("[MQTT-4.7.2-1]", "a/+", "a/$b", true),
        ("[MQTT-4.7.3-4]", "ACCOUNTS", "Accounts", false),
        ("[MQTT-4.7.3-4]", "a/b", "a/b", true),
        ("[MQTT-4.7.3-4]", "a", "/a", false),
        ("[MQTT-4.7.3-4]", "a", "a/", false),
        ("[MQTT-4.7.3-4]", "a b/+", "a b/c d", true),
    ];
    for (statement, filter, name, expected) in cases {
        let mut one = table(&[(filter, 1)]);
        assert_eq!(!reached(&mut one, name).is_empty(), *expected, "{statement}: {filter} against {name}");
        let naive = TopicFilter::new(filter).unwrap().matches(topic(name));
        assert_eq!(naive, *expected, "{statement}: the naive matcher, {filter} against {name}");
        // [MQTT-4.8.2-4] and after: the filter of a shared subscription matches as any other.
        let mut shared = table(&[(&format!("$share/g/{filter}"), 1)]);
        let matched = shared.matches(topic(name), &mut Memo::default());
        assert_eq!(matched.groups.len(), usize::from(*expected), "{statement}: shared {filter} against {name}");
    }
}

/// [MQTT-3.8.4-3]
#[test]
fn a_second_subscription_of_the_same_filter_replaces_the_first() {
    for filter in ["a/b", "a/+", "$share/g/a/b", "$share/g/#"] {
        let mut table = SubscriptionTable::new(HashSeed::new(1));
        let (first, second) = (with_identifier(1, 5), with_identifier(1, 6));
        assert_eq!(table.subscribe(&owned(filter), first), None);
        let mut memo = Memo::default();
        table.matches(topic("a/b"), &mut memo);
        assert_eq!(table.subscribe(&owned(filter), second), Some(first));
        assert_eq!((table.len(), table.filters()), (1, 1));
        let matched = Arc::clone(table.matches(topic("a/b"), &mut memo));
        let now = match matched.groups.first() {
            Some(group) => table.group(*group).unwrap().member(0),
            None => matched.subscriptions[0],
        };
        assert_eq!(now, second);
        assert_eq!(table.unsubscribe(TopicFilter::new(filter).unwrap(), SubscriberId(1)), Some(second));
        assert_eq!(table.unsubscribe(TopicFilter::new(filter).unwrap(), SubscriberId(1)), None);
        assert_eq!((table.len(), table.filters()), (0, 0));
    }
}

/// [MQTT-3.3.4-2], [MQTT-3.3.4-3]: the shard needs every matching subscription of a subscriber side by side.
#[test]
fn overlapping_subscriptions_are_all_there_side_by_side() {
    let mut table = SubscriptionTable::new(HashSeed::new(1));
    for (filter, subscriber, identifier) in [("#", 2, 1), ("a/+", 1, 2), ("a/b", 2, 3), ("a/b", 1, 4), ("+/b", 3, 5)] {
        table.subscribe(&owned(filter), with_identifier(subscriber, identifier));
    }
    let matched = table.matches(topic("a/b"), &mut Memo::default());
    let got: Vec<(u32, u32)> = matched.subscriptions.iter().map(|s| (s.subscriber.0, s.identifier)).collect();
    assert_eq!(got, [(1, 4), (1, 2), (2, 3), (2, 1), (3, 5)]);
}

/// [MQTT-4.8.2-1]: groups differ by name and by filter.
#[test]
fn groups_are_by_name_and_filter() {
    let mut table =
        table(&[("$share/g/a", 1), ("$share/g/a", 2), ("$share/h/a", 1), ("$share/g/+", 1), ("a", 9), ("$queue/a", 3)]);
    let matched = Arc::clone(table.matches(topic("a"), &mut Memo::default()));
    assert_eq!(matched.subscriptions.len(), 1);
    let mut groups: Vec<(String, String, usize)> = matched
        .groups
        .iter()
        .map(|key| table.group(*key).unwrap())
        .map(|group| (group.name().to_owned(), group.filter().to_owned(), group.len()))
        .collect();
    groups.sort();
    assert_eq!(groups.len(), 4);
    assert_eq!(groups[1], ("g".to_owned(), "+".to_owned(), 1));
    assert_eq!(groups[2], ("g".to_owned(), "a".to_owned(), 2));
    assert_eq!((table.len(), table.filters()), (6, 5));
}

/// A filter below a share prefix may look like a share prefix itself.
#[test]
fn a_share_prefix_within_a_shared_filter_is_text() {
    for filter in ["$share/g/$share/x", "$share/g/$share/x/y", "$share/g/$queue/x"] {
        let Ok(parsed) = TopicFilter::new(filter) else { continue };
        let mut table = table(&[(filter, 1)]);
        let name = parsed.filter();
        assert_eq!(table.matches(topic(name), &mut Memo::default()).groups.len(), 1, "{filter}");
        assert!(table.unsubscribe(parsed, SubscriberId(1)).is_some());
        assert!(table.is_empty());
    }
}

#[test]
fn a_group_of_an_old_match_is_never_another_group() {
    let mut table = table(&[("$share/g/a", 1)]);
    let mut memo = Memo::default();
    let old = Arc::clone(table.matches(topic("a"), &mut memo)).groups[0];
    table.unsubscribe(TopicFilter::new("$share/g/a").unwrap(), SubscriberId(1));
    assert!(table.recall(memo, b"a").is_none());
    table.subscribe(&owned("$share/other/b"), sub(2));
    assert!(table.group(old).is_none());
    let mut rng = Rng::from_number(1);
    assert_eq!(table.pick(old, PickStrategy::Random, &mut rng, 0, |_| Fit::Ready), None);
}

#[test]
fn members_may_come_and_go_without_a_new_match() {
    let mut table = table(&[("$share/g/a/+", 1)]);
    let mut memo = Memo::default();
    let before = Arc::clone(table.matches(topic("a/b"), &mut memo));
    table.subscribe(&owned("$share/g/a/+"), sub(2));
    table.unsubscribe(TopicFilter::new("$share/g/a/+").unwrap(), SubscriberId(1));
    assert!(Arc::ptr_eq(table.recall(memo, b"a/b").unwrap(), &before));
    assert_eq!(table.group(before.groups[0]).unwrap().member(0).subscriber, SubscriberId(2));
}

#[test]
fn strategies() {
    let mut table = table(&[]);
    for member in 0..5 {
        table.subscribe(&owned("$share/g/a"), sub(member));
    }
    let key = table.matches(topic("a"), &mut Memo::default()).groups[0];
    let mut rng = Rng::from_number(1);
    let mut pick = |strategy, hash, fit: &dyn Fn(u32) -> Fit| {
        table.pick(key, strategy, &mut rng, hash, |s| fit(s.0)).unwrap().member.subscriber.0
    };
    let ready = |_| Fit::Ready;
    let turns: Vec<u32> = (0..7).map(|_| pick(PickStrategy::RoundRobin, 0, &ready)).collect();
    assert_eq!(turns, [0, 1, 2, 3, 4, 0, 1]);
    assert_eq!(pick(PickStrategy::Hash, 13, &ready), 3);
    let stuck = pick(PickStrategy::Sticky, 0, &ready);
    assert!((0..9).all(|_| pick(PickStrategy::Sticky, 0, &ready) == stuck));
    let random: Vec<u32> = (0..99).map(|_| pick(PickStrategy::Random, 0, &ready)).collect();
    assert!((0..5).all(|member| random.contains(&member)));

    let only_one_ready = |s| if s == 2 { Fit::Ready } else { Fit::Busy };
    assert_eq!(pick(PickStrategy::Hash, 3, &only_one_ready), 2);
    let busy_and_offline = |s| if s == 1 { Fit::Busy } else { Fit::Offline };
    assert_eq!(pick(PickStrategy::Hash, 3, &busy_and_offline), 1);
    assert_eq!(pick(PickStrategy::Hash, 3, &|_| Fit::Offline), 3);
}

#[test]
fn a_pick_looks_at_a_bounded_number_of_members() {
    let mut table = table(&[]);
    for member in 0..1_000 {
        table.subscribe(&owned("$share/g/a"), sub(member));
    }
    let key = table.matches(topic("a"), &mut Memo::default()).groups[0];
    let mut asked = 0;
    let picked = table.pick(key, PickStrategy::Hash, &mut Rng::from_number(1), 990, |_| {
        asked += 1;
        Fit::Offline
    });
    assert_eq!((picked.unwrap().member.subscriber.0, asked), (990, PICK_SCAN_MEMBERS_MAX));
}

/// A filter's subscribers pass through all representations and back.
#[test]
fn many_subscribers_of_one_filter_leave_in_any_order() {
    for filter in ["a", "+", "$share/g/a"] {
        let mut table = table(&[]);
        for subscriber in 0..10_000 {
            assert_eq!(table.subscribe(&owned(filter), sub(subscriber)), None);
        }
        for subscriber in (0..10_000).map(|i| (i * 7_919) % 10_000) {
            let removed = table.unsubscribe(TopicFilter::new(filter).unwrap(), SubscriberId(subscriber));
            assert_eq!(removed, Some(sub(subscriber)));
        }
        assert_eq!((table.len(), table.filters()), (0, 0));
        assert_eq!(reached(&mut table, "a"), [0_u32; 0]);
    }
}

#[test]
fn many_groups_of_one_filter_leave_in_any_order() {
    let mut table = table(&[]);
    for group in 0..1_000 {
        table.subscribe(&owned(&format!("$share/{group}/a")), sub(group));
    }
    assert_eq!(table.matches(topic("a"), &mut Memo::default()).groups.len(), 1_000);
    for group in (0..1_000).map(|i| (i * 7) % 1_000) {
        let filter = format!("$share/{group}/a");
        assert!(table.unsubscribe(TopicFilter::new(&filter).unwrap(), SubscriberId(group)).is_some());
    }
    assert_eq!((table.len(), table.filters()), (0, 0));
}

#[test]
fn a_topic_of_65535_slashes_does_not_overflow_the_stack() {
    let deep = format!("{}+", "+/".repeat(32_767));
    let mut table = table(&[("#", 1), (&deep, 2)]);
    assert_eq!(reached(&mut table, &"/".repeat(65_535)), [1]);
    assert_eq!(reached(&mut table, &"/".repeat(32_767)), [1, 2]);
}

/// What a subscription table should do, slowly.
#[derive(Default)]
struct Model {
    subscriptions: BTreeMap<(String, u32), Subscription>,
}

impl Model {
    /// The subscriptions and, by name and filter, the groups that a publish reaches.
    fn matches(&self, name: &str) -> (Vec<Subscription>, Vec<(String, String)>) {
        let (mut plain, mut groups) = (Vec::new(), Vec::new());
        for ((text, _), subscription) in &self.subscriptions {
            let filter = TopicFilter::new(text).unwrap();
            if filter.matches(topic(name)) {
                match filter.share_group() {
                    None => plain.push(*subscription),
                    Some(group) => groups.push((group.to_owned(), filter.filter().to_owned())),
                }
            }
        }
        plain.sort_by_key(|s| (s.subscriber, s.identifier));
        groups.sort();
        groups.dedup();
        (plain, groups)
    }

    fn filters(&self) -> usize {
        let mut texts: Vec<&str> = self.subscriptions.keys().map(|(text, _)| text.as_str()).collect();
        texts.dedup();
        texts.len()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Subscribe {
        filter: String,
        subscriber: u32,
        identifier: u32,
    },
    Unsubscribe {
        filter: String,
        subscriber: u32,
    },
    /// Undo a subscription that is there, whichever it is.
    UnsubscribeAny {
        number: usize,
    },
    Publish {
        topic: String,
        publisher: usize,
    },
}

fn level() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "", "$s", "a-", "ab"])
}

fn topic_text() -> impl Strategy<Value = String> {
    prop::collection::vec(level(), 1..5).prop_map(|levels| levels.join("/")).prop_filter("empty", |t| !t.is_empty())
}

fn filter_text() -> impl Strategy<Value = String> {
    let level = prop_oneof![3 => level(), 2 => Just("+")];
    let share = prop::sample::select(vec!["", "", "", "$share/g/", "$share/h/", "$queue/"]);
    (share, prop::collection::vec(level, 0..4), any::<bool>())
        .prop_map(|(share, mut levels, hash)| {
            if hash {
                levels.push("#");
            }
            format!("{share}{}", levels.join("/"))
        })
        .prop_filter("valid", |text| TopicFilter::new(text).is_ok())
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (filter_text(), 0..4_u32, 0..3_u32)
            .prop_map(|(filter, subscriber, identifier)| Step::Subscribe { filter, subscriber, identifier }),
        1 => (filter_text(), 0..4_u32).prop_map(|(filter, subscriber)| Step::Unsubscribe { filter, subscriber }),
        2 => any::<usize>().prop_map(|number| Step::UnsubscribeAny { number }),
        6 => (topic_text(), 0..3_usize).prop_map(|(topic, publisher)| Step::Publish { topic, publisher }),
    ]
}

fn check_publish(table: &mut SubscriptionTable, model: &Model, name: &str, memo: &mut Memo) {
    let matched = match table.recall(*memo, name.as_bytes()) {
        Some(matched) => Arc::clone(matched),
        None => Arc::clone(table.matches(topic(name), memo)),
    };
    assert!(Arc::ptr_eq(table.recall(*memo, name.as_bytes()).unwrap(), &matched));
    assert!(matched.subscriptions.is_sorted_by_key(|s| s.subscriber));
    let mut plain = matched.subscriptions.to_vec();
    plain.sort_by_key(|s| (s.subscriber, s.identifier));
    let mut groups: Vec<(String, String)> = Vec::new();
    for key in &matched.groups {
        let group = table.group(*key).expect("a current match names groups that exist");
        groups.push((group.name().to_owned(), group.filter().to_owned()));
    }
    groups.sort();
    assert_eq!((plain, groups), model.matches(name), "{name}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Memos, the cache and the tables always say what the naive matcher says.
    #[test]
    fn the_table_is_as_the_naive_matcher(steps in prop::collection::vec(step(), 1..120)) {
        let mut table = SubscriptionTable::new(HashSeed::new(3));
        let mut model = Model::default();
        let mut memos = [Memo::default(); 3];
        for step in steps {
            match step {
                Step::Subscribe { filter, subscriber, identifier } => {
                    let subscription = with_identifier(subscriber, identifier);
                    let expected = model.subscriptions.insert((filter.clone(), subscriber), subscription);
                    prop_assert_eq!(table.subscribe(&owned(&filter), subscription), expected);
                }
                Step::Unsubscribe { filter, subscriber } => {
                    let expected = model.subscriptions.remove(&(filter.clone(), subscriber));
                    let filter = TopicFilter::new(&filter).unwrap();
                    prop_assert_eq!(table.unsubscribe(filter, SubscriberId(subscriber)), expected);
                }
                Step::UnsubscribeAny { number } => {
                    let count = model.subscriptions.len().max(1);
                    let key = model.subscriptions.keys().nth(number % count).cloned();
                    if let Some((filter, subscriber)) = key {
                        let expected = model.subscriptions.remove(&(filter.clone(), subscriber));
                        let filter = TopicFilter::new(&filter).unwrap();
                        prop_assert_eq!(table.unsubscribe(filter, SubscriberId(subscriber)), expected);
                    }
                }
                Step::Publish { topic, publisher } => {
                    check_publish(&mut table, &model, &topic, &mut memos[publisher]);
                }
            }
            prop_assert_eq!((table.len(), table.filters()), (model.subscriptions.len(), model.filters()));
        }
    }
}

/// Places stand beside sessions, come out apart from them, once each, and do not count as subscriptions.
#[test]
fn other_places_are_matched_beside_sessions() {
    let mut table = table(&[("a/b", 1), ("a/+", 2)]);
    let (b, c) = (PlaceId(1), PlaceId(7));
    assert_eq!(
        (table.members(TopicFilter::new("a/b").unwrap()), table.members(TopicFilter::new("#").unwrap())),
        (1, 0)
    );
    for f in ["a/b", "a/+", "#"] {
        table.set_place(&owned(f), b, 1);
    }
    table.set_place(&owned("a/b"), c, 1);
    assert_eq!((table.len(), table.members(TopicFilter::new("#").unwrap())), (2, 0));
    let matched = table.matches(topic("a/b"), &mut Memo::default()).clone();
    assert_eq!((matched.subscriptions.len(), &*matched.places), (2, &[b, c][..]));
    let matched = table.matches(topic("x"), &mut Memo::default()).clone();
    assert_eq!((matched.subscriptions.len(), &*matched.places), (0, &[b][..]));
    for f in ["a/b", "a/+", "#", "never"] {
        table.set_place(&owned(f), b, 0);
    }
    table.set_place(&owned("a/b"), c, 0);
    let matched = table.matches(topic("a/b"), &mut Memo::default()).clone();
    assert_eq!((matched.subscriptions.len(), matched.places.len(), table.filters()), (2, 0, 2));
}

/// Each strategy counts the members of all places as if they were one list.
#[test]
fn a_group_has_members_at_several_places() {
    let mut table = table(&[]);
    let text = owned("$share/g/a");
    table.set_place(&text, PlaceId(2), 1);
    table.set_place(&text, PlaceId(0), 3);
    let key = table.matches(topic("a"), &mut Memo::default()).groups[0];
    let mut rng = Rng::from_number(3);
    let mut choose = |table: &mut SubscriptionTable, strategy, hash| {
        let (place, index) = table.choose_place(key, strategy, &mut rng, hash).unwrap();
        (place.0, index)
    };
    let turns: Vec<_> = (0..5).map(|_| choose(&mut table, PickStrategy::RoundRobin, 0)).collect();
    assert_eq!(turns, [(0, 0), (0, 1), (0, 2), (2, 0), (0, 0)]);
    assert_eq!(choose(&mut table, PickStrategy::Hash, 7), (2, 0));
    // The first that had members keeps all until it has none.
    assert_eq!(choose(&mut table, PickStrategy::Sticky, 1), (2, 0));
    table.set_place(&text, PlaceId(2), 0);
    assert_eq!(choose(&mut table, PickStrategy::Sticky, 1), (0, 0));
    let seen: Vec<_> = (0..50).map(|_| choose(&mut table, PickStrategy::Random, 0).1).collect();
    assert!((0..3).all(|index| seen.contains(&index)));
    table.set_place(&text, PlaceId(0), 0);
    assert_eq!(table.choose_place(key, PickStrategy::Random, &mut Rng::from_number(1), 0), None);
    assert_eq!((table.filters(), table.find_group(&text)), (0, None));
}
