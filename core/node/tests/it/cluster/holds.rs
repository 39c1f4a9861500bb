//! What a node in a cluster does not take: more than others have room for, what it does not know the receivers of, and clients
//! while it drains.

use core::time::Duration;

use newtmq_base::Instant;
use newtmq_cluster::lane::Qos0;
use newtmq_mqtt::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use newtmq_mqtt::{PacketType, ReasonCode};
use newtmq_node::{FromControl, ShardConfig};

use super::world::World;
use crate::harness::{Connect, Got, Publish, Subscribe, Will};

fn narrow(config: &mut ShardConfig) {
    (config.lanes.window_messages, config.lanes.waiting_messages) = (4, 8);
}

fn pair(configure: impl Fn(&mut ShardConfig)) -> (World, usize, usize) {
    let mut world = World::new(5, 2, 1, configure);
    let r = world.join(1, Connect::v5("r"));
    world.subscribe(r, "t", AtLeastOnce);
    let w = world.join(0, Connect::v5("w"));
    // The lane is open.
    world.publish(w, Publish::new("t", "-"));
    world.received(r);
    (world, w, r)
}

#[test]
pub(super) fn without_credit_qos0_is_dropped_and_counted() {
    let (mut world, w, r) = pair(narrow);
    for number in 0..40 {
        world.publish(w, Publish::new("t", number.to_string()));
    }
    let got = world.received(r).len() as u64;
    assert_eq!((got, world.ledger(0).dropped_for_credit), (4, 36));
    world.publish(w, Publish::new("t", "x"));
    assert_eq!(world.received(r), ["t x"]);
    world.assert_idle();
}

#[test]
pub(super) fn without_credit_others_wait_and_are_refused_above_a_limit() {
    let (mut world, w, r) = pair(narrow);
    let ids: Vec<u16> = (0..40).map(|number| world.publish(w, Publish::new("t", number.to_string()).qos1())).collect();
    world.settle();
    let acked = world.acked(w);
    assert_eq!(acked.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids);
    let refused = acked.iter().filter(|(_, reason)| *reason == ReasonCode::QuotaExceeded).count();
    assert_eq!(refused as u64, world.ledger(0).refused_for_credit);
    assert_eq!(refused, 40 - 12);
    let expected: Vec<String> = (0..12).map(|number| format!("t {number}")).collect();
    assert_eq!(world.received_now(r), expected);
    world.assert_idle();
}

#[test]
pub(super) fn a_publisher_of_qos0_is_held_if_that_is_wanted() {
    let (mut world, w, r) = pair(|config| {
        narrow(config);
        config.lanes.qos0 = Qos0::Pause;
    });
    for number in 0..40 {
        world.publish(w, Publish::new("t", number.to_string()));
        world.advance(Duration::from_micros(1));
    }
    assert!(world.is_held(w));
    let expected: Vec<String> = (0..40).map(|number| format!("t {number}")).collect();
    assert_eq!(world.received(r), expected);
    assert_eq!(world.ledger(0).dropped_for_credit, 0);
    world.assert_idle();
}

// Before MQTT 5 there is no Receive Maximum: what waits for other nodes is bounded by not reading.
#[test]
pub(super) fn a_publisher_that_knows_no_limit_is_not_read_above_one() {
    let (mut world, _, r) = pair(|_| {});
    let w = world.join(0, Connect::v311("old"));
    world.cut(0, 1);
    for number in 0..1_500 {
        world.publish(w, Publish::new("t", number.to_string()).qos1());
    }
    world.settle();
    assert!(world.is_held(w));
    world.connect(0, 1);
    let expected: Vec<String> = (0..1_500).map(|number| format!("t {number}")).collect();
    assert_eq!(world.received(r), expected);
    assert_eq!(world.acked(w).len(), 1_500);
    world.advance(Duration::from_secs(2));
    world.assert_idle();
}

// cluster.md 3: a node that holds no table of some member withholds PUBACK of QoS >= 1.
#[test]
pub(super) fn publishes_wait_while_it_is_not_known_for_whom_they_are() {
    for v5 in [true, false] {
        let mut world = World::new(1, 2, 1, |_| {});
        let r = world.join(0, Connect::v5("r"));
        world.subscribe(r, "t", AtLeastOnce);
        let w = world.join(0, if v5 { Connect::v5("w") } else { Connect::v311("w") });
        let until = |until| FromControl::Acknowledge { until };
        world.tell_all(0, &until(world.now + Duration::from_secs(1)));
        let first = world.publish(w, Publish::new("t", "a").qos1());
        world.settle();
        assert_eq!(world.acked(w), [(first, ReasonCode::Success)], "not from now on");
        world.advance(Duration::from_secs(1));
        world.publish(w, Publish::new("t", "b"));
        let ids = ["c", "d"].map(|text| world.publish(w, Publish::new("t", text).qos1()));
        world.advance(Duration::from_secs(3));
        assert_eq!(world.received_now(r), ["t a", "t b"]);
        assert_eq!(world.acked(w), []);
        world.tell_all(0, &until(Instant::NEVER));
        world.settle();
        assert_eq!(world.received_now(r), ["t c", "t d"]);
        assert_eq!(world.acked(w), ids.map(|id| (id, ReasonCode::Success)));
        // For so long and no longer.
        world.tell_all(0, &until(Instant::START));
        world.settle();
        let id = world.publish(w, Publish::new("t", "e").qos1());
        world.advance(Duration::from_secs(11));
        let told = if v5 { vec![(id, ReasonCode::QuotaExceeded)] } else { vec![] };
        assert_eq!(world.acked(w), told);
        assert_eq!(world.log(w).is_empty(), v5);
        world.assert_idle();
    }
}

// cluster.md 5: 10 s, then 0x97; for each publish from when it came, and what came behind keeps its place.
#[test]
pub(super) fn each_publish_that_waits_has_its_time_from_when_it_came() {
    let mut world = World::new(1, 2, 1, |_| {});
    let r = world.join(0, Connect::v5("r"));
    world.subscribe(r, "t", AtLeastOnce);
    let w = world.join(0, Connect::v5("w"));
    world.tell_all(0, &FromControl::Acknowledge { until: Instant::START });
    world.settle();
    let ids = ["a", "b", "c"].map(|text| {
        let id = world.publish(w, Publish::new("t", text).qos1());
        world.publish(w, Publish::new("t", format!("behind {text}")));
        world.advance(Duration::from_secs(3));
        id
    });
    assert_eq!((world.acked(w), world.received_now(r)), (vec![], vec![]));
    for (id, text) in ids.into_iter().zip(["a", "b"]) {
        world.advance(Duration::from_secs(2));
        assert_eq!(world.acked(w), [(id, ReasonCode::QuotaExceeded)]);
        assert_eq!(world.received_now(r), [format!("t behind {text}")]);
        world.advance(Duration::from_secs(1));
    }
    world.tell_all(0, &FromControl::Acknowledge { until: Instant::NEVER });
    world.settle();
    assert_eq!(world.acked(w), [(ids[2], ReasonCode::Success)]);
    assert_eq!(world.received_now(r), ["t c", "t behind c"]);
    // More than is kept is not read, and all of it comes in the end.
    world.tell_all(0, &FromControl::Acknowledge { until: Instant::START });
    world.settle();
    let long = "x".repeat(5_000);
    let ids: Vec<u16> = (0..20).map(|_| world.publish(w, Publish::new("t", long.clone()).qos1())).collect();
    world.settle();
    assert!(world.is_held(w));
    world.tell_all(0, &FromControl::Acknowledge { until: Instant::NEVER });
    world.settle();
    assert_eq!(world.acked(w), ids.into_iter().map(|id| (id, ReasonCode::Success)).collect::<Vec<_>>());
    assert_eq!(world.received(r).len(), 20);
    assert!(!world.is_held(w));
    world.assert_idle();
}

// [MQTT-4.3.3-10]: its PUBREL would free the identifier, and what was repeated would be new.
#[test]
pub(super) fn a_repeated_publish_that_waits_stays_in_front_of_its_release() {
    let mut world = World::new(1, 2, 1, |_| {});
    let r = world.join(0, Connect::v5("r"));
    world.subscribe(r, "t", ExactlyOnce);
    let w = world.join(0, Connect { auto_ack: false, ..Connect::v5("w") });
    let id = world.publish(w, Publish::new("t", "x").qos2());
    world.settle();
    assert_eq!(world.received_now(r), ["t x"]);
    world.tell_all(0, &FromControl::Acknowledge { until: Instant::START });
    world.settle();
    world.publish(w, Publish::new("t", "x").qos2().id(id).dup());
    world.ack(w, PacketType::Pubrel, id);
    world.advance(Duration::from_secs(1));
    world.tell_all(0, &FromControl::Acknowledge { until: Instant::NEVER });
    world.advance(Duration::from_secs(1));
    assert_eq!(world.received_now(r), Vec::<String>::new());
    world.assert_idle();
}

// [MQTT-3.14.4-3]: the will is gone.
#[test]
pub(super) fn a_farewell_behind_a_publish_that_waits_counts() {
    for taken_over in [false, true] {
        let mut world = World::new(1, 2, 1, |_| {});
        let r = world.join(0, Connect::v5("r"));
        world.subscribe(r, "#", AtLeastOnce);
        let p = world.join(0, Connect::v5("p").will(Will::new(Publish::new("w", "will"))));
        world.tell_all(0, &FromControl::Acknowledge { until: Instant::START });
        world.settle();
        world.publish(p, Publish::new("t", "waits").qos1());
        if taken_over {
            world.send_bytes(p, vec![0xE0, 0]);
            world.join(0, Connect::v5("p"));
        } else {
            world.disconnect(p);
            world.settle();
        }
        world.tell_all(0, &FromControl::Acknowledge { until: Instant::NEVER });
        world.settle();
        assert_eq!(world.received_now(r), Vec::<String>::new(), "taken over: {taken_over}");
        world.assert_idle();
    }
}

// The client goes on to use the Topic Alias.
#[test]
pub(super) fn a_publish_that_is_refused_sets_its_topic_alias() {
    let mut world = World::new(1, 2, 1, |_| {});
    let r = world.join(0, Connect::v5("r"));
    world.subscribe(r, "t", AtLeastOnce);
    let w = world.join(0, Connect::v5("w"));
    world.tell_all(0, &FromControl::Acknowledge { until: Instant::START });
    world.settle();
    let id = world.publish(w, Publish::new("t", "a").qos1().alias(1));
    world.advance(Duration::from_secs(11));
    assert_eq!(world.acked(w), [(id, ReasonCode::QuotaExceeded)]);
    world.tell_all(0, &FromControl::Acknowledge { until: Instant::NEVER });
    world.settle();
    let id = world.publish(w, Publish::new("", "b").qos1().alias(1));
    world.settle();
    assert_eq!(world.acked(w), [(id, ReasonCode::Success)]);
    assert_eq!(world.received_now(r), ["t b"]);
    world.assert_idle();
}

#[test]
pub(super) fn who_is_closed_publishes_nothing_that_it_had_put_aside() {
    let (mut world, w, r) = pair(|config| {
        narrow(config);
        config.lanes.qos0 = Qos0::Pause;
    });
    world.tell_all(0, &FromControl::Acknowledge { until: Instant::START });
    world.settle();
    world.publish(w, Publish::new("t", "a").qos1());
    for number in 0..20 {
        world.publish(w, Publish::new("t", number.to_string()));
        world.publish(w, Publish::new("t", number.to_string()).qos1());
    }
    world.publish(w, Publish::new("t", "z").qos1());
    world.advance(Duration::from_millis(1));
    // It goes on with all that, is held because a lane is full, and has to go.
    world.tell_all(0, &FromControl::Acknowledge { until: Instant::NEVER });
    world.tell_all(0, &FromControl::Drain(true));
    world.settle();
    assert!(matches!(world.log(w).last(), Some(Got::Closed)));
    let got = world.received(r);
    assert!(got.len() < 42 && got.iter().all(|text| text != "t z"), "{got:?}");
    world.assert_idle();
}

// cluster.md 8: clients go to other nodes (0x9C), and none is let in.
#[test]
pub(super) fn a_node_that_drains_has_no_clients() {
    for shards in [1, 3] {
        let mut world = World::new(1, 2, shards, |_| {});
        let people: Vec<usize> = (0..4).map(|number| world.join(0, Connect::v5(&format!("c{number}")))).collect();
        let old = world.join(0, Connect::v311("old"));
        world.tell_all(0, &FromControl::Drain(true));
        world.settle();
        for person in people {
            let log = world.log(person);
            assert!(matches!(log[..], [Got::Disconnect(ReasonCode::UseAnotherServer), Got::Closed]), "{log:?}");
        }
        assert!(matches!(world.log(old)[..], [Got::Closed]));
        assert_eq!(world.nodes[0].drained, usize::from(shards));
        for (connect, reason) in
            [(Connect::v5("n"), ReasonCode::UseAnotherServer), (Connect::v311("o"), ReasonCode::ServerUnavailable)]
        {
            let person = world.start(0, connect);
            world.settle();
            let log = world.log(person);
            let Got::Connack(connack) = &log[0] else { panic!("{log:?}") };
            assert_eq!(connack.reason, reason);
        }
        world.tell_all(0, &FromControl::Drain(false));
        world.settle();
        let person = world.join(0, Connect::v5("n"));
        world.subscribe(person, "t", AtMostOnce);
        assert_eq!(world.nodes[0].drained, usize::from(shards));
        world.assert_idle();
    }
}

// More subscribers than one step of a fan-out takes, one of them elsewhere: the next publish waits until the first has gone to all.
#[test]
pub(super) fn what_was_put_aside_goes_on_one_after_the_other() {
    let mut world = World::new(1, 2, 1, |_| {});
    world.checks = false;
    let far = world.join(1, Connect::v5("far"));
    world.subscribe(far, "t", AtLeastOnce);
    let near: Vec<usize> = (0..4200).map(|number| world.start(0, Connect::v5(&format!("r{number}")))).collect();
    world.settle();
    for of in &near {
        world.send_subscribe(*of, &Subscribe::new("t", AtMostOnce));
    }
    world.settle();
    let w = world.join(0, Connect::v5("w"));
    world.tell_all(0, &FromControl::Acknowledge { until: Instant::START });
    world.settle();
    let mut ids = Vec::new();
    for text in ["a", "b", "c"] {
        ids.push(world.publish(w, Publish::new("t", text).qos1()));
        world.advance(Duration::from_millis(1));
    }
    assert_eq!(world.acked(w), []);
    world.tell_all(0, &FromControl::Acknowledge { until: Instant::NEVER });
    world.settle();
    assert_eq!(world.acked(w).iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids);
    for of in near.into_iter().take(10).chain([far]) {
        assert_eq!(world.received_now(of), ["t a", "t b", "t c"]);
    }
}
