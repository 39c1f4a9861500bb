//! Prints how many messages a second go through both ends of a lane, with both codecs, in one thread.
//!
//! `cargo run --release -p newtmq-cluster --example lane`

// An example is a program of its own: the core's boundary does not hold for it.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::print_stdout)]

use newtmq_base::{Incarnation, Instant, NodeId, ShardId};
use newtmq_cluster::lane::{
    Config, Guid, LanesIn, Output, Parcel, PeerOut, Post, Publication, PublicationParts, Target, Ticket, What,
};
use newtmq_mqtt::QoS;

fn publication() -> Publication {
    Publication::new(&PublicationParts {
        publisher: b"publisher-1",
        retained: 0,
        guid: Guid([1; 16]),
        topic: b"a/b",
        qos: QoS::AtLeastOnce,
        retain: false,
        properties: &[],
        payload: &[0; 100],
    })
}

fn main() {
    const COUNT: u64 = 2_000_000;
    let config = Config::default();
    let inc = Incarnation(1);
    let mut source = PeerOut::new(config.clone(), ShardId(0), inc, NodeId(2));
    let mut target = LanesIn::new(config, ShardId(0), inc);
    let targets = [Target { shard: ShardId(0), what: What::Plain { transient: true, durable: false } }];
    let (mut out, mut deliveries, mut receipts, mut acked) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let start = std::time::Instant::now();
    source.connected(Instant::START, inc, &mut out);
    for number in 0..COUNT {
        let publication = publication();
        let post = Post { ticket: Ticket(number), publication, expires: Instant::NEVER, from_log: false };
        source.send(Instant::START, &post, &targets, &mut out);
        if number % 64 != 63 {
            continue;
        }
        while source.has_frames() {
            for parcel in source.take() {
                for frame in Parcel::frames(&parcel).expect("a parcel that was just written") {
                    let frame = frame.expect("a frame that was just written");
                    target.frame(Instant::START, NodeId(1), &frame, &mut deliveries);
                }
            }
            for delivery in deliveries.drain(..) {
                target.enqueued(&delivery);
                target.stored(delivery.node, delivery.shard, delivery.inc, delivery.seq);
            }
            target.receipts(&mut receipts);
            for (_, receipt) in receipts.drain(..) {
                source.receipt(Instant::START, &receipt, &mut out);
            }
            acked += out.drain(..).filter(|output| matches!(output, Output::Acked { .. })).count() as u64;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(acked, COUNT);
    println!("{:.2} M messages/s through both ends", COUNT as f64 / seconds / 1e6);
}
