//! How much one call does.

use newtmq_base::{Incarnation, Instant, NodeId, ShardId};

use super::super::*;
use super::filter;

/// Routes of a 40-byte filter, from one node to another: the largest message, how many, and entries given out at once.
fn join(count: u32) -> (Owned, usize, usize, usize) {
    let config = Config { digest_key: DigestKey([1, 2]), ..Config::default() };
    let (now, inc) = (Instant::START, Incarnation(1));
    let nodes = [NodeId(1), NodeId(2)];
    let [mut owner, mut reader] = nodes.map(|node| Owned::new(config, now, node, inc, 1));
    let mut out = Vec::new();
    for i in 0..count {
        let text = format!("site/{:05}/device/{i:012}/temperature", i % 1000);
        let change = Change { filter: filter(&text[..40]), class: Class::Transient, count: Count::Plus };
        owner.change(now, ShardId(0), &[change], &mut out);
        out.clear();
    }
    owner.recovered(now, &mut out);
    owner.up(now, nodes[1], inc, &mut Vec::new());
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
                        let message = Message::decode(&bytes).unwrap();
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
    (reader, largest, messages, burst)
}

#[test]
fn a_large_log_comes_in_parts() {
    let (reader, largest, messages, burst) = join(20_000);
    assert_eq!(reader.replica(NodeId(1)).unwrap().len(), 20_000);
    assert!(largest <= 128 * 1024 + 200, "{largest} bytes");
    assert!((8..12).contains(&messages), "{messages}");
    assert!(burst <= Config::default().work, "{burst}");
}
