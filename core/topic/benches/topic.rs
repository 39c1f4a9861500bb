//! Matching, with and without the cache, and subscribing, at 1,000 to 1,000,000 filters.

use std::hint::black_box;
use std::ops::ControlFlow;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use newtmq_base::{HashSeed, Rng};
use newtmq_mqtt::{OwnedTopicFilter, QoS, TopicFilter, TopicName};
use newtmq_topic::{Memo, RetainedCursor, RetainedIndex, RetainedValue, SubscriberId, Subscription, SubscriptionTable};

const SIZES: [u32; 3] = [1_000, 100_000, 1_000_000];

fn owned(text: &str) -> OwnedTopicFilter {
    OwnedTopicFilter::from(TopicFilter::new(text).expect("benches make valid filters"))
}

fn sub(subscriber: u32) -> Subscription {
    Subscription::new(SubscriberId(subscriber), QoS::AtLeastOnce, false, false, None)
}

fn exact(i: u32) -> String {
    format!("site/{}/dev/{i}/state", i % 100)
}

/// Three shapes of filter in turn. Of the third kind there are as many users as a topic has matches at most one of.
fn mixed(i: u32) -> String {
    match i % 3 {
        0 => format!("dev/{i}/+/state"),
        1 => format!("dev/{i}/#"),
        _ => format!("dev/+/u{i}/state"),
    }
}

/// A topic that about two of the mixed filters match.
fn mixed_topic(i: u32, count: u32) -> String {
    format!("dev/{i}/u{}/state", (i / 3 * 3 + 2).min(count - 1))
}

fn table(count: u32, filter: impl Fn(u32) -> String) -> SubscriptionTable {
    let mut table = SubscriptionTable::new(HashSeed::new(7));
    for i in 0..count {
        table.subscribe(&owned(&filter(i)), sub(i));
    }
    table
}

/// Topics in random order; more than the cache has entries where the table is large.
fn topics(count: u32, topic: impl Fn(u32) -> String) -> Vec<String> {
    let mut rng = Rng::from_number(5);
    (0..(1 << 18)).map(|_| topic(rng.below(u64::from(count)) as u32)).collect()
}

fn matching(c: &mut Criterion) {
    for count in SIZES {
        let shapes: [(&str, SubscriptionTable, Vec<String>); 2] = [
            ("exact", table(count, exact), topics(count, exact)),
            ("mixed", table(count, mixed), topics(count, |i| mixed_topic(i, count))),
        ];
        for (shape, mut table, topics) in shapes {
            let mut next = topics.iter().cycle();
            let mut group = c.benchmark_group(format!("match-{shape}"));
            // A wildcard at the first level makes every entry stale, so that each match is worked out.
            let (all, nothing) = (owned("+/none/of/them"), sub(u32::MAX));
            group.bench_function(BenchmarkId::new("uncached", count), |b| {
                b.iter(|| {
                    table.subscribe(&all, nothing);
                    table.unsubscribe(all.as_filter(), nothing.subscriber);
                    let topic = next.next().expect("a cycle has no end");
                    let topic = TopicName::new(topic).expect("benches make valid topics");
                    black_box(table.matches(topic, &mut Memo::default()).subscriptions.len())
                });
            });
            group.bench_function(BenchmarkId::new("invalidate-only", count), |b| {
                b.iter(|| {
                    table.subscribe(&all, nothing);
                    table.unsubscribe(all.as_filter(), nothing.subscriber);
                });
            });
            group.bench_function(BenchmarkId::new("random-topics", count), |b| {
                b.iter(|| {
                    let topic = next.next().expect("a cycle has no end");
                    let topic = TopicName::new(topic).expect("benches make valid topics");
                    black_box(table.matches(topic, &mut Memo::default()).subscriptions.len())
                });
            });
            let few: Vec<&String> = topics.iter().take(1_000).collect();
            let mut next = few.iter().cycle();
            group.bench_function(BenchmarkId::new("cached-1000-topics", count), |b| {
                b.iter(|| {
                    let topic = next.next().expect("a cycle has no end");
                    let topic = TopicName::new(topic).expect("benches make valid topics");
                    black_box(table.matches(topic, &mut Memo::default()).subscriptions.len())
                });
            });
            let topic = TopicName::new(&topics[0]).expect("benches make valid topics");
            let mut memo = Memo::default();
            table.matches(topic, &mut memo);
            group.bench_function(BenchmarkId::new("recall", count), |b| {
                b.iter(|| black_box(table.recall(black_box(memo), black_box(topics[0].as_bytes()))).is_some());
            });
        }
    }
}

fn subscribing(c: &mut Criterion) {
    let mut group = c.benchmark_group("subscribe");
    group.sample_size(10);
    type Shape = fn(u32) -> String;
    for (shape, filter) in [("exact", exact as Shape), ("mixed", mixed as Shape), ("one-filter", |_| "a/b".to_owned())]
    {
        let filters: Vec<OwnedTopicFilter> = (0..100_000).map(|i| owned(&filter(i))).collect();
        group.throughput(criterion::Throughput::Elements(100_000));
        group.bench_function(BenchmarkId::new(shape, 100_000), |b| {
            b.iter_batched(
                || SubscriptionTable::new(HashSeed::new(7)),
                |mut table| {
                    for (i, filter) in (0..).zip(&filters) {
                        table.subscribe(filter, sub(i));
                    }
                    table
                },
                BatchSize::PerIteration,
            );
        });
        let mut full = SubscriptionTable::new(HashSeed::new(7));
        group.bench_function(BenchmarkId::new(format!("{shape}-and-unsubscribe"), 100_000), |b| {
            b.iter(|| {
                for (i, filter) in (0..).zip(&filters) {
                    full.subscribe(filter, sub(i));
                }
                for (i, filter) in (0..).zip(&filters) {
                    full.unsubscribe(filter.as_filter(), SubscriberId(i));
                }
            });
        });
    }
}

struct Message(String);

impl RetainedValue for Message {
    fn topic(&self) -> &str {
        &self.0
    }
}

fn retained(c: &mut Criterion) {
    let mut index = RetainedIndex::new();
    for i in 0..1_000_000 {
        index.set(Message(exact(i)));
    }
    let mut group = c.benchmark_group("retained-1000000");
    for filter in ["site/42/dev/500042/state", "site/42/dev/500042/#", "site/+/dev/500042/state", "site/42/#"] {
        let filter = owned(filter);
        group.bench_function(filter.as_str().replace('/', "."), |b| {
            b.iter(|| {
                let mut found = 0;
                index.drain(&mut RetainedCursor::new(filter.clone()), &mut usize::MAX.clone(), |_| {
                    found += 1;
                    ControlFlow::Continue(())
                });
                black_box(found)
            });
        });
    }
}

criterion_group!(benches, matching, subscribing, retained);
criterion_main!(benches);
