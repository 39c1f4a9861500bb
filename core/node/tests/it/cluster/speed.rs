//! How many messages a second cross a lane, against a subscriber at the publisher's shard. To be run by hand, in release:
//! `cargo test --release -p newtmq-node --test it cluster::speed -- --ignored --nocapture`.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "it measures time")]

use newtmq_mqtt::QoS;
use newtmq_mqtt::QoS::{AtLeastOnce, AtMostOnce};

use super::world::World;
use crate::harness::{Connect, Publish};

const ROUNDS: usize = 400;
const BURST: usize = 100;

fn rate(to: usize, qos: QoS) -> f64 {
    let mut world = World::new(1, 2, 1, |config| config.zones[0].max_awaiting_rel = u16::MAX);
    world.checks = false;
    let r = world.join(to, Connect::v5("r"));
    world.subscribe(r, "t", qos);
    let w = world.join(0, Connect::v5("w"));
    let payload = [b'.'; 100];
    world.publish(w, Publish::new("t", payload).qos(qos));
    world.settle();
    let start = std::time::Instant::now();
    let mut got = 0;
    for _ in 0..ROUNDS {
        let mut bytes = Vec::new();
        for _ in 0..BURST {
            let script = &mut world.people[w].script;
            let id = (qos > AtMostOnce).then(|| script.packet_id(None, newtmq_mqtt::PacketType::Publish));
            bytes.extend(Publish::new("t", payload).qos(qos).encode(id, newtmq_mqtt::ProtocolVersion::V5));
        }
        world.send_bytes(w, bytes);
        world.settle();
        world.acked(w);
        got += world.messages_now(r).len();
    }
    assert!(got >= ROUNDS * BURST);
    (ROUNDS * BURST) as f64 / start.elapsed().as_secs_f64()
}

#[test]
#[ignore = "measures"]
fn messages_a_second() {
    for qos in [AtMostOnce, AtLeastOnce] {
        let (here, there) = (rate(0, qos), rate(1, qos));
        println!("{qos:?}: {here:.0} here, {there:.0} across a lane, both clients and the links in the same thread");
    }
}
