//! Prints what a million subscriptions cost in memory, from the resident size of this process (Linux), and the longest
//! that one of them took: the table's hash index grows at once.
//!
//! `cargo run --release -p newtmq-topic --example memory`

// An example is a program of its own: the core's boundary does not hold for it.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::print_stdout)]

use newtmq_base::HashSeed;
use newtmq_mqtt::{OwnedTopicFilter, QoS, TopicFilter};
use newtmq_topic::{SubscriberId, Subscription, SubscriptionTable};

const COUNT: u32 = 1_000_000;
const PAGE_BYTES: usize = 4_096;

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.expect("this example needs /proc") * PAGE_BYTES
}

type Shape = (&'static str, fn(u32) -> String);

const SHAPES: &[Shape] = &[
    ("exact, 1 subscriber each", |i| format!("site/{}/dev/{i}/state", i % 100)),
    ("exact, 2 subscribers each", |i| format!("site/{}/dev/{}/state", i / 2 % 100, i / 2)),
    ("exact, 10 subscribers each", |i| format!("site/{}/dev/{}/state", i / 10 % 100, i / 10)),
    ("exact, one filter", |_| "site/state".to_owned()),
    ("dev/{i}/#", |i| format!("dev/{i}/#")),
    ("dev/{i}/+/state", |i| format!("dev/{i}/+/state")),
    ("dev/+/u{i}/state", |i| format!("dev/+/u{i}/state")),
    ("$share/g/dev/{i}, 1 member each", |i| format!("$share/g/dev/{i}")),
];

fn main() {
    let wanted = std::env::args().nth(1).and_then(|number| number.parse::<usize>().ok());
    let Some((name, filter)) = wanted.and_then(|number| SHAPES.get(number)) else {
        // What one shape has freed would hide in the next one's numbers, so each has its own process.
        for number in 0..SHAPES.len() {
            let program = std::env::current_exe().expect("a running program has a path");
            let status = std::process::Command::new(program).arg(number.to_string()).status();
            assert!(status.is_ok_and(|status| status.success()));
        }
        return;
    };
    let mut longest = std::time::Duration::ZERO;
    let start = resident_bytes();
    let mut table = SubscriptionTable::new(HashSeed::new(1));
    for i in 0..COUNT {
        let text = filter(i);
        let filter = OwnedTopicFilter::from(TopicFilter::new(&text).expect("the shapes are valid filters"));
        let subscription = Subscription::new(SubscriberId(i), QoS::AtMostOnce, false, false, None);
        let before = std::time::Instant::now();
        table.subscribe(&filter, subscription);
        longest = longest.max(before.elapsed());
    }
    let bytes = resident_bytes() - start;
    let (each, longest) = (bytes / COUNT as usize, longest.as_millis());
    println!("{each:>4} B a subscription, {:>7} filters, longest insert {longest:>3} ms: {name}", table.filters());
}
