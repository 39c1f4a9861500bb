//! What a message costs.

use super::*;

/// Messages through both ends of a lane, with both codecs: `cargo test --release -p newtmq-cluster -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
#[allow(clippy::disallowed_methods, clippy::disallowed_types)]
fn messages_each_second() {
    const COUNT: u64 = 2_000_000;
    let config = Config::default();
    let inc = Incarnation(1);
    let mut source = PeerOut::new(config.clone(), ShardId(0), inc, NodeId(2));
    let mut target = LanesIn::new(config, ShardId(0), inc);
    let publication = Arc::new(sample(QoS::AtLeastOnce, 1, 100));
    let targets = [Target { shard: ShardId(0), what: What::Plain { transient: true, durable: false } }];
    let (mut out, mut deliveries, mut receipts, mut acked) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let start = std::time::Instant::now();
    source.connected(Instant::START, inc, &mut out);
    for number in 0..COUNT {
        let publication = publication.clone();
        let post = Post { ticket: Ticket(number), publication, expires: Instant::NEVER, from_log: false };
        source.send(Instant::START, &post, &targets, &mut out);
        if number % 64 != 63 {
            continue;
        }
        while !out.is_empty() {
            for output in core::mem::take(&mut out) {
                let Output::Frame(frame) = output else {
                    acked += u64::from(matches!(output, Output::Acked { .. }));
                    continue;
                };
                let mut bytes = Vec::with_capacity(256);
                frame.encode(&mut bytes);
                let frame = Frame::decode(&Bytes::from(bytes)).unwrap();
                target.frame(Instant::START, NodeId(1), &frame, &mut deliveries);
                for delivery in deliveries.drain(..) {
                    target.enqueued(&delivery);
                    target.stored(delivery.node, delivery.shard, delivery.inc, delivery.seq);
                }
            }
            target.receipts(&mut receipts);
            for (_, receipt) in receipts.drain(..) {
                source.receipt(Instant::START, &receipt, &mut out);
            }
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(acked, COUNT);
    println!("{:.2} M messages/s through both ends", COUNT as f64 / seconds / 1e6);
}
