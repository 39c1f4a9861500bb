//! Prints what a copy of a million routes costs in memory, from the resident size of this process (Linux), and how long a
//! node takes to get it.
//!
//! `cargo run --release -p newtmq-cluster --example join`

// An example is a program of its own: the core's boundary does not hold for it.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::print_stdout)]

use newtmq_base::{Incarnation, Instant, NodeId, ShardId};
use newtmq_cluster::owned::{Change, Class, Config, Count, DigestKey, Message, Output, Owned, Phase};
use newtmq_mqtt::TopicFilter;

const COUNT: u32 = 1_000_000;
const PAGE_BYTES: usize = 4_096;

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.expect("this example needs /proc") * PAGE_BYTES
}

/// Routes of a 40-byte filter, from one node to another: the largest message, how many, and entries given out at once.
/// `begin` is called when the owner has its routes.
fn join(count: u32, begin: impl FnOnce()) -> (Owned, Owned, usize, usize, usize) {
    let config = Config { digest_key: DigestKey([1, 2]), ..Config::default() };
    let (now, inc) = (Instant::START, Incarnation(1));
    let nodes = [NodeId(1), NodeId(2)];
    let [mut owner, mut reader] = nodes.map(|node| Owned::new(config, now, node, inc, 1));
    let mut out = Vec::new();
    for i in 0..count {
        let text = format!("site/{:05}/device/{i:012}/temperature", i % 1000);
        let change = Change {
            filter: TopicFilter::new(&text[..40]).expect("it is a filter").into(),
            class: Class::Transient,
            count: Count::Plus,
        };
        owner.change(now, ShardId(0), &[change], &mut out);
        out.clear();
    }
    owner.recovered(now, &mut out);
    owner.up(now, nodes[1], inc, &mut Vec::new());
    begin();
    let mut there = Vec::new();
    reader.up(now, nodes[0], inc, &mut there);
    let (mut largest, mut messages, mut burst) = (0, 0, 0);
    while reader.phase(nodes[0]) != Phase::Open {
        let mut back = Vec::new();
        for output in core::mem::take(&mut there) {
            match output {
                Output::Send { message, .. } => {
                    let mut bytes = Vec::new();
                    owner.receive(now, nodes[1], inc, message, &mut back);
                    for output in core::mem::take(&mut back) {
                        let Output::Send { message, .. } = output else { continue };
                        bytes.clear();
                        message.encode(&mut bytes);
                        (largest, messages) = (largest.max(bytes.len()), messages + 1);
                        let message = Message::decode(&bytes).expect("it was encoded");
                        reader.receive(now, nodes[0], inc, message, &mut there);
                    }
                }
                Output::Batch(batch) => {
                    burst = burst.max(batch.routes.len());
                    reader.installed(now, ShardId(0), batch.seq, &mut there);
                }
                Output::Done(_) => {}
            }
        }
        if reader.phase(nodes[0]) != Phase::Open {
            reader.tick(now, &mut there);
        }
    }
    (owner, reader, largest, messages, burst)
}

fn main() {
    let (mut start, mut began) = (0, std::time::Instant::now());
    let begin = || (start, began) = (resident_bytes(), std::time::Instant::now());
    let (owner, reader, largest, messages, burst) = join(COUNT, begin);
    let (bytes, took) = (resident_bytes() - start, began.elapsed());
    println!("{COUNT} routes in {took:?}: {messages} messages of at most {largest} bytes, {burst} routes at once");
    println!("{} B a route at the reader, beside what its shards have", bytes / COUNT as usize);
    drop((owner, reader));
}
