//! A publish crosses nodes: every QoS, in order, each once, whatever the links do.

use core::time::Duration;

use newtmq_mqtt::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use newtmq_mqtt::{PacketType, QoS, ReasonCode};

use super::world::World;
use crate::harness::{Connect, Publish, Subscribe};

const SEEDS: u64 = 6;

fn worlds(test: impl Fn(&mut World)) {
    for seed in 0..SEEDS {
        for (nodes, shards) in [(2, 1), (3, 1), (2, 3)] {
            let mut world = World::new(seed, nodes, shards, |_| {});
            test(&mut world);
            world.settle();
            world.assert_idle();
        }
    }
}

fn texts(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|number| format!("t/1 {number}")).collect()
}

#[test]
pub(super) fn every_qos_crosses_once_and_in_order() {
    worlds(|world| {
        for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
            let w = world.join(0, Connect::v5(&format!("w{qos:?}")));
            let r = world.join(1, Connect::v5(&format!("r{qos:?}")));
            let here = world.join(0, Connect::v5(&format!("h{qos:?}")));
            for person in [r, here] {
                world.subscribe(person, "t/+", qos);
            }
            let ids: Vec<u16> =
                (0..50).map(|number| world.publish(w, Publish::new("t/1", number.to_string()).qos(qos))).collect();
            assert_eq!(world.received(r), texts(0, 50));
            assert_eq!(world.received(here), texts(0, 50));
            if qos > AtMostOnce {
                let acked: Vec<_> = ids.into_iter().map(|id| (id, ReasonCode::Success)).collect();
                assert_eq!(world.acked(w), acked);
            }
            [w, r, here].iter().for_each(|person| world.disconnect(*person));
        }
        let sum = world.ledger(0);
        assert!(sum.sent_to_nodes >= 150 && sum.refused_for_credit + sum.dropped_for_credit == 0);
        assert_eq!(world.ledger(1).received_from_nodes, sum.sent_to_nodes);
    });
}

#[test]
pub(super) fn a_node_gets_it_once_for_all_its_subscribers() {
    worlds(|world| {
        let w = world.join(0, Connect::v5("w"));
        let people: Vec<usize> = (0..6).map(|number| world.join(1, Connect::v5(&format!("r{number}")))).collect();
        for person in &people {
            world.subscribe(*person, "t/#", AtLeastOnce);
            world.subscribe(*person, "t/+", AtMostOnce);
        }
        world.publish(w, Publish::new("t/1", "x").qos1().with_all_properties());
        for person in people {
            world.settle();
            let messages = world.messages_now(person);
            assert_eq!((messages.len(), messages[0].publish.qos), (1, AtLeastOnce));
            assert_eq!(messages[0].text(), "t/1 x");
        }
        assert!(world.ledger(0).sent_to_nodes <= 3, "one for each shard");
    });
}

#[test]
pub(super) fn nobody_there_is_told_and_nobody_passes_it_on() {
    worlds(|world| {
        let w = world.join(0, Connect::v5("w"));
        let id = world.publish(w, Publish::new("t/1", "x").qos1());
        world.settle();
        assert_eq!(world.acked(w), [(id, ReasonCode::NoMatchingSubscribers)]);
        // A subscriber leaves while the message is under way.
        let r = world.join(1, Connect::v5("r"));
        world.subscribe(r, "t/1", AtLeastOnce);
        let id = world.publish(w, Publish::new("t/1", "x").qos1());
        world.break_off(r);
        world.settle();
        assert_eq!(world.acked(w), [(id, ReasonCode::NoMatchingSubscribers)]);
    });
}

// [MQTT-3.3.1-12], [MQTT-3.8.3-3]: what a subscription says of RETAIN and No Local holds for messages of other nodes.
#[test]
pub(super) fn retain_expiry_and_identifiers_cross() {
    worlds(|world| {
        let w = world.join(0, Connect::v5("w"));
        let r = world.join(1, Connect::v5("r"));
        let subscribe = Subscribe::new("t/1", AtLeastOnce).identifier(7).retain_as_published().no_local();
        world.subscribe_with(r, &subscribe);
        let plain = world.join(1, Connect::v5("p"));
        world.subscribe(plain, "t/1", AtLeastOnce);
        world.publish(w, Publish::new("t/1", "x").qos1().retain().expiry(100));
        world.settle();
        let [message, other] = [r, plain].map(|person| world.messages_now(person).remove(0));
        assert!(message.publish.retain && !other.publish.retain);
        // Stretched by what two clocks may differ: never too early.
        assert!(matches!(message.publish.expiry, Some(100..=103)), "{:?}", message.publish.expiry);
        assert_eq!(message.identifiers, [7]);
    });
}

/// Publishes while the link is reset now and then, with a loss that nobody notices; everything arrives once and in order.
fn through_resets(qos: QoS, connect: impl Fn(&str) -> Connect) {
    for seed in 0..20 {
        for shards in [1, 2] {
            let mut world = World::new(seed, 2, shards, |_| {});
            let w = world.join(0, connect("w"));
            let r = world.join(1, Connect::v5("r"));
            world.subscribe(r, "t/1", qos);
            let mut ids = Vec::new();
            for number in 0..60 {
                ids.push((world.publish(w, Publish::new("t/1", number.to_string()).qos(qos)), ReasonCode::Success));
                match world.rng.below(12) {
                    0 => world.reset(0, 1),
                    1 => {
                        world.lose_frames();
                        world.reset(0, 1);
                    }
                    2 => {
                        world.cut(0, 1);
                        world.advance(Duration::from_millis(50));
                        world.connect(0, 1);
                    }
                    3..=6 => world.advance(Duration::from_micros(300)),
                    _ => {}
                }
            }
            world.advance(Duration::from_secs(5));
            assert_eq!(world.received(r), texts(0, 60), "seed {seed}");
            assert_eq!(world.acked(w), ids, "seed {seed}");
            world.assert_idle();
        }
    }
}

#[test]
pub(super) fn qos1_survives_resets_once_and_in_order() {
    through_resets(AtLeastOnce, Connect::v5);
}

#[test]
pub(super) fn qos2_survives_resets_once_and_in_order() {
    through_resets(ExactlyOnce, Connect::v311);
}

// With windows of a few messages: what waits for credit keeps its order, and credit comes back after each reset (Q5, S5).
#[test]
pub(super) fn through_small_windows() {
    for seed in 0..20 {
        let mut world = World::new(seed, 2, 1, |config| {
            config.lanes.window_messages = 5;
            config.zones[0].max_awaiting_rel = 1_000;
        });
        let w = world.join(0, Connect::v5("w"));
        let r = world.join(1, Connect::v5("r"));
        world.subscribe(r, "t/1", AtLeastOnce);
        let mut sent = 0;
        for round in 0..12 {
            for _ in 0..10 {
                world.publish(w, Publish::new("t/1", sent.to_string()).qos1());
                sent += 1;
            }
            let pause = world.rng.below(1_500);
            world.advance(Duration::from_micros(pause));
            if round % 2 == 0 {
                world.reset(0, 1);
            }
        }
        world.advance(Duration::from_secs(5));
        assert_eq!(world.received(r), texts(0, sent), "seed {seed}");
        assert!(world.acked(w).iter().all(|(_, reason)| *reason == ReasonCode::Success), "seed {seed}");
        world.assert_idle();
    }
}

// S1: numbers of a lane begin again with its node's next life, and so do those that are taken.
#[test]
pub(super) fn a_publishers_node_starts_again() {
    worlds(|world| {
        let r = world.join(1, Connect::v5("r"));
        world.subscribe(r, "t/1", AtLeastOnce);
        for life in 0..3 {
            let w = world.join(0, Connect::v5("w"));
            for number in life * 5..life * 5 + 5 {
                world.publish(w, Publish::new("t/1", number.to_string()).qos1());
            }
            world.advance(Duration::from_secs(2));
            assert_eq!(world.received(r), texts(life * 5, life * 5 + 5));
            world.kill(0);
            world.settle();
            world.restart(0);
            world.advance(Duration::from_secs(2));
        }
    });
}

// cluster.md 5: PUBACK leaves only when every place has answered, and acknowledgements leave in order [MQTT-4.6.0-2].
#[test]
pub(super) fn acknowledgements_wait_for_other_nodes_and_keep_their_order() {
    worlds(|world| {
        let w = world.join(0, Connect::v5("w"));
        let [far, near] = [world.join(1, Connect::v5("f")), world.join(0, Connect::v5("n"))];
        world.subscribe(far, "far/#", ExactlyOnce);
        world.subscribe(near, "near", ExactlyOnce);
        world.cut(0, 1);
        world.settle();
        let mut ids = vec![world.publish(w, Publish::new("near", "0").qos1())];
        world.settle();
        assert_eq!(world.acked(w).len(), 1, "nobody else is asked");
        ids.clear();
        for (topic, qos) in [
            ("far/1", AtLeastOnce),
            ("near", AtLeastOnce),
            ("far/2", ExactlyOnce),
            ("near", ExactlyOnce),
            ("none", AtLeastOnce),
        ] {
            ids.push(world.publish(w, Publish::new(topic, "x").qos(qos)));
        }
        // Refused at once, and told in its turn.
        ids.push(world.publish(w, Publish::new("$SYS/x", "x").qos1()));
        // A repeated one is answered once.
        world.publish(w, Publish::new("far/2", "x").qos2().id(ids[2]).dup());
        world.settle();
        assert_eq!(world.received_now(near).len(), 3);
        assert_eq!(world.acked(w), []);
        world.connect(0, 1);
        world.advance(Duration::from_secs(2));
        let reasons = [
            ReasonCode::Success,
            ReasonCode::Success,
            ReasonCode::Success,
            ReasonCode::Success,
            ReasonCode::NoMatchingSubscribers,
            ReasonCode::NotAuthorized,
        ];
        let all: Vec<_> = ids.into_iter().zip(reasons).collect();
        assert_eq!(world.acked(w), all);
        assert_eq!(world.received_now(far), ["far/1 x", "far/2 x"]);
    });
}

// cluster.md 5: cap 10 s; MQTT 5 hears 0x97, MQTT 3 is closed.
#[test]
pub(super) fn a_node_that_does_not_answer_has_its_time() {
    for v5 in [true, false] {
        worlds(|world| {
            let w = world.join(0, if v5 { Connect::v5("w") } else { Connect::v311("w") });
            let r = world.join(1, Connect::v5("r"));
            world.subscribe(r, "t", AtLeastOnce);
            world.cut(0, 1);
            let id = world.publish(w, Publish::new("t", "x").qos1());
            world.advance(Duration::from_millis(9_990));
            assert_eq!(world.acked(w), []);
            world.advance(Duration::from_secs(1));
            let told = if v5 { vec![(id, ReasonCode::QuotaExceeded)] } else { vec![] };
            assert_eq!(world.acked(w), told);
            assert_eq!(world.log(w).is_empty(), v5, "closed");
            world.connect(0, 1);
        });
    }
}

// P3: what is in the memory of a node that counts as down is lost, and the publisher goes on.
#[test]
pub(super) fn a_node_that_is_down_holds_nobody() {
    worlds(|world| {
        let w = world.join(0, Connect::v5("w"));
        let r = world.join(1, Connect::v5("r"));
        world.subscribe(r, "t", ExactlyOnce);
        world.cut(0, 1);
        let ids = [AtLeastOnce, ExactlyOnce].map(|qos| world.publish(w, Publish::new("t", "x").qos(qos)));
        world.advance(Duration::from_secs(8));
        assert_eq!(world.acked(w), []);
        world.down(0, 1);
        world.settle();
        assert_eq!(world.acked(w), ids.map(|id| (id, ReasonCode::NoMatchingSubscribers)));
        assert_eq!(world.ledger(0).lost_down, 2);
        let id = world.publish(w, Publish::new("t", "x").qos1());
        world.settle();
        assert_eq!(world.acked(w), [(id, ReasonCode::NoMatchingSubscribers)], "not matched any more");
        // Back, as it was.
        world.connect(0, 1);
        world.settle();
        world.publish(w, Publish::new("t", "y").qos1());
        world.advance(Duration::from_secs(2));
        assert_eq!(world.received_now(r), ["t y"]);
        // And with another life.
        world.kill(1);
        world.settle();
        world.restart(1);
        world.settle();
        let r = world.join(1, Connect::v5("r"));
        world.subscribe(r, "t", ExactlyOnce);
        let id = world.publish(w, Publish::new("t", "z").qos2());
        world.advance(Duration::from_secs(2));
        assert_eq!(world.received_now(r), ["t z"]);
        assert_eq!(world.acked(w).last(), Some(&(id, ReasonCode::Success)));
        assert!(world.log(w).iter().any(|got| matches!(got, crate::harness::Got::Ack(PacketType::Pubcomp, ..))));
    });
}

#[test]
pub(super) fn both_ways_at_once() {
    worlds(|world| {
        let nodes = world.nodes.len();
        let people: Vec<usize> =
            (0..nodes * 2).map(|at| world.join(at % nodes, Connect::v5(&format!("c{at}")))).collect();
        for person in &people {
            world.subscribe(*person, "t/#", AtLeastOnce);
        }
        for number in 0..20 {
            for (at, person) in people.iter().enumerate() {
                world.publish(*person, Publish::new(&format!("t/{at}"), number.to_string()).qos1());
            }
        }
        for person in &people {
            let got = world.received(*person);
            assert_eq!(got.len(), 20 * people.len());
            for at in 0..people.len() {
                let of: Vec<&String> = got.iter().filter(|text| text.starts_with(&format!("t/{at} "))).collect();
                let expected: Vec<String> = (0..20).map(|number| format!("t/{at} {number}")).collect();
                assert_eq!(of, expected.iter().collect::<Vec<_>>());
            }
        }
    });
}
