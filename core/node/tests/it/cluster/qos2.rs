//! QoS 2 between nodes: a repeated message goes again where it may be missing, and is forgotten when it is released.

use core::time::Duration;

use newtmq_mqtt::QoS::ExactlyOnce;
use newtmq_mqtt::{PacketType, ReasonCode};
use newtmq_node::{Durability, FromControl, PeerNews};

use super::world::{World, id as id_of};
use crate::harness::{Connect, Publish};

// [MQTT-4.3.3-10], S3, S13: PUBREC of a repeated publish waits for other nodes as the first one does.
#[test]
pub(super) fn a_repeated_publish_waits_for_other_nodes_again_and_comes_once() {
    for seed in 0..20 {
        let mut world = World::new(seed, 2, 1 + (seed % 2) as u16, |_| {});
        let r = world.join(1, Connect::v5("r"));
        world.subscribe(r, "t", ExactlyOnce);
        let w = world.join(0, Connect::v5("w").resume());
        // The first one comes, and its answer does not.
        let id = world.publish(w, Publish::new("t", "x").qos2());
        if seed % 3 > 0 {
            world.advance(Duration::from_micros(700 * (seed % 3)));
        }
        world.cut(0, 1);
        world.settle();
        world.break_off(w);
        world.settle();
        let w = world.join(0, Connect { auto_ack: false, ..Connect::v5("w").resume() });
        world.publish(w, Publish::new("t", "x").qos2().id(id).dup());
        world.settle();
        assert_eq!(world.acked(w), [], "seed {seed}");
        world.connect(0, 1);
        world.advance(Duration::from_secs(2));
        assert_eq!(world.acked(w), [(id, ReasonCode::Success)]);
        // And once more.
        world.publish(w, Publish::new("t", "x").qos2().id(id).dup());
        world.settle();
        assert_eq!(world.acked(w), [(id, ReasonCode::Success)]);
        assert_eq!(world.received_now(r), ["t x"], "seed {seed}");
        world.ack(w, PacketType::Pubrel, id);
        world.advance(Duration::from_secs(3));
        // The identifier's next message is another one.
        world.publish(w, Publish::new("t", "y").qos2().id(id));
        world.settle();
        assert_eq!(world.received_now(r), ["t y"]);
        world.ack(w, PacketType::Pubrel, id);
        world.advance(Duration::from_secs(3));
        let seen: usize = world.nodes[1].shards.iter().map(|shard| shard.view().lanes_in().unwrap().seen()).sum();
        let unreleased: usize = world.nodes[0].shards.iter().map(|shard| shard.view().unreleased()).sum();
        assert_eq!((seen, unreleased), (0, 0));
        world.assert_idle();
    }
}

// Who is no member any more answers never: a repeated publish does not wait for it, nor is it refused for it.
#[test]
pub(super) fn a_repeated_publish_does_not_go_to_who_is_gone() {
    let mut world = World::new(1, 3, 1, |config| config.zones[0].durability = Durability::Synced);
    let gone = world.join(1, Connect::v5("gone").resume());
    world.subscribe(gone, "t", ExactlyOnce);
    let r = world.join(2, Connect::v5("r"));
    world.subscribe(r, "t", ExactlyOnce);
    let w = world.join(0, Connect::v5("w").resume());
    let id = world.publish(w, Publish::new("t", "x").qos2());
    world.cut(0, 1);
    world.settle();
    world.break_off(w);
    world.settle();
    world.down(0, 1);
    world.tell_all(0, &FromControl::Peer { node: id_of(1), news: PeerNews::Forgotten });
    world.settle();
    let w = world.join(0, Connect { auto_ack: false, ..Connect::v5("w").resume() });
    world.publish(w, Publish::new("t", "x").qos2().id(id).dup());
    world.settle();
    assert_eq!(world.acked(w), [(id, ReasonCode::Success)]);
    assert_eq!(world.received_now(r), ["t x"]);
}

// A refused QoS 2 publish is over: its identifier is free, and what comes with it next is another message.
#[test]
pub(super) fn a_refused_publish_frees_its_identifier() {
    let mut world = World::new(1, 2, 1, |_| {});
    let r = world.join(1, Connect::v5("r"));
    world.subscribe(r, "t", ExactlyOnce);
    let w = world.join(0, Connect { auto_ack: false, ..Connect::v5("w") });
    world.cut(0, 1);
    let id = world.publish(w, Publish::new("t", "x").qos2());
    world.advance(Duration::from_secs(11));
    assert_eq!(world.acked(w), [(id, ReasonCode::QuotaExceeded)]);
    world.connect(0, 1);
    world.advance(Duration::from_secs(2));
    world.publish(w, Publish::new("t", "y").qos2().id(id));
    world.settle();
    assert_eq!(world.acked(w), [(id, ReasonCode::Success)]);
    // The first one had waited for a link, and left no more.
    assert_eq!(world.received_now(r), ["t y"]);
}

// [MQTT-3.3.4-7]: what waits for other nodes counts to Receive Maximum.
#[test]
pub(super) fn publishes_that_wait_for_other_nodes_count() {
    for qos in [newtmq_mqtt::QoS::AtLeastOnce, ExactlyOnce] {
        let mut world = World::new(1, 2, 1, |config| config.zones[0].max_awaiting_rel = 5);
        let r = world.join(1, Connect::v5("r"));
        world.subscribe(r, "t", ExactlyOnce);
        let w = world.join(0, Connect::v5("w"));
        world.cut(0, 1);
        for _ in 0..5 {
            world.publish(w, Publish::new("t", "x").qos(qos));
        }
        world.settle();
        assert!(world.log(w).is_empty());
        world.publish(w, Publish::new("t", "x").qos(qos));
        world.settle();
        let log = world.log(w);
        assert!(matches!(log[..], [crate::harness::Got::Disconnect(ReasonCode::ReceiveMaximumExceeded), _]), "{log:?}");
        world.connect(0, 1);
        world.advance(Duration::from_secs(12));
        world.assert_idle();
    }
}
