//! Defects that were found and fixed, each named by its cause.

use core::time::Duration;

use newtmq_mqtt::PacketType::{Puback, Pubcomp, Pubrec, Pubrel};
use newtmq_mqtt::ProtocolVersion::V311;
use newtmq_mqtt::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use newtmq_mqtt::ReasonCode;
use newtmq_node::{DropReason, Hook, HookSet, OUTPUT_HIGH_BYTES, ShardConfig, Verdict};

use crate::harness::{
    Client, Connect, Got, Net, Publish, Subscribe, Will, check, check_heavy, check_heavy_together, check_with,
};

/// Above this QoS 0 is dropped although the output moves.
const OUTPUT_MAX_BYTES: usize = 16 << 20;
/// Above this a connection is not read itself.
const OUTPUT_OWN_BYTES: usize = 2 << 20;
/// More than a packet of these tests has around its payload.
const HEADER_BYTES: usize = 100;

fn largest_output(net: &Net) -> usize {
    net.view().connections().map(|conn| conn.output_bytes).max().unwrap_or(0)
}

fn connect_all(net: &mut Net, count: usize, connect: impl Fn(&str) -> Connect) -> Vec<Client> {
    (0..count).map(|number| net.connect(connect(&format!("w{number}")))).collect()
}

/// A client that does not read, subscribed to `t` with QoS 0.
fn slow_target(net: &mut Net) -> Client {
    let r = net.connect(Connect::v5("r"));
    net.subscribe(r, "t", AtMostOnce);
    net.pause(r);
    r
}

/// The target reads, and everything is accounted for.
fn expect_all_accounted(net: &mut Net, r: Client) {
    net.unpause(r);
    net.advance_secs(30);
    let received = net.messages(r).len() as u64;
    let ledger = net.ledger();
    assert_eq!((ledger.delivered, ledger.accepted), (received, received + ledger.dropped_total()));
    assert!(ledger.dropped(DropReason::SlowConsumer) > 0, "{ledger:?}");
}

#[test]
fn each_of_many_publishers_adds_one_message_to_a_full_output() {
    const PAYLOAD: usize = 100_000;
    for version in [Connect::v5, Connect::v311] {
        check_heavy(
            |_| {},
            |net| {
                let r = slow_target(net);
                let writers = connect_all(net, 250, version);
                for _ in 0..3 {
                    for writer in &writers {
                        net.publish(*writer, Publish::new("t", vec![b'x'; PAYLOAD]));
                    }
                    net.settle();
                    assert!(largest_output(net) <= OUTPUT_MAX_BYTES + PAYLOAD + HEADER_BYTES);
                    net.read_some(r, 60_000);
                    net.advance(Duration::from_millis(100));
                }
                assert!(largest_output(net) > OUTPUT_MAX_BYTES / 2, "the limit was met");
                expect_all_accounted(net, r);
            },
        );
    }
}

#[test]
fn an_output_that_moves_a_little_and_is_still_full_lets_nobody_add_to_it() {
    check_heavy(
        |_| {},
        |net| {
            let r = slow_target(net);
            let writers = connect_all(net, 60, Connect::v5);
            for _ in 0..12 {
                for writer in &writers {
                    net.publish(*writer, Publish::new("t", vec![b'x'; 100_000]));
                }
            }
            net.advance_secs(2);
            assert!(writers.iter().all(|writer| !net.held(*writer)), "it has not moved");
            let mut before = largest_output(net);
            assert!(before > 4 * OUTPUT_HIGH_BYTES);
            for _ in 0..10 {
                for _ in 0..5 {
                    net.read_some(r, 64_000);
                    net.settle();
                }
                for writer in &writers {
                    net.publish(*writer, Publish::new("t", vec![b'x'; 100_000]));
                }
                net.advance(Duration::from_millis(700));
                let now = largest_output(net);
                assert!(now <= before, "from {before} to {now}");
                before = now;
            }
            assert!(before > OUTPUT_HIGH_BYTES);
            expect_all_accounted(net, r);
        },
    );
}

#[test]
fn publishers_that_are_held_by_their_acknowledgements_alone_fill_an_output() {
    const PAYLOAD: usize = 50_000;
    check_heavy(
        |_| {},
        |net| {
            let r = slow_target(net);
            let writers = connect_all(net, 5, Connect::v5);
            // As much as the Receive Maximum of the broker allows.
            for writer in &writers {
                for _ in 0..100 {
                    net.publish(*writer, Publish::new("t", vec![b'x'; PAYLOAD]).qos1());
                }
                net.settle();
                assert!(largest_output(net) <= OUTPUT_MAX_BYTES + PAYLOAD + HEADER_BYTES);
            }
            net.advance_secs(3);
            for writer in &writers {
                assert_eq!(net.take(*writer).len(), 100, "every PUBACK");
            }
            expect_all_accounted(net, r);
        },
    );
}

#[test]
fn nobody_is_held_for_a_will() {
    const PAYLOAD: usize = 60_000;
    check_heavy(
        |_| {},
        |net| {
            let r = slow_target(net);
            let will = Will::new(Publish::new("t", vec![b'x'; PAYLOAD]));
            let dying = connect_all(net, 350, |name| Connect::v5(name).will(will.clone()));
            for client in dying {
                net.cut(client);
                assert!(largest_output(net) <= OUTPUT_MAX_BYTES + PAYLOAD + HEADER_BYTES);
            }
            assert!(largest_output(net) > OUTPUT_MAX_BYTES - PAYLOAD);
            expect_all_accounted(net, r);
        },
    );
}

/// It finishes: a cursor that is looked up among all others by going through them takes minutes.
#[test]
fn each_new_filter_looks_for_its_retained_messages_by_itself() {
    const FILTERS: usize = 20_000;
    check_heavy(
        |_| {},
        |net| {
            let w = net.connect(Connect::v5("w"));
            net.publish(w, Publish::new("f/777", "kept").retain());
            let r = net.connect(Connect::v5("r"));
            let names: Vec<String> = (0..FILTERS).map(|number| format!("f/{number}")).collect();
            let all = names.iter().fold(Subscribe::new("f/+", AtMostOnce), |all, name| all.and(name, AtMostOnce));
            for _ in 0..3 {
                assert_eq!(net.subscribe_with(r, &all), vec![ReasonCode::GRANTED_QOS_0; FILTERS + 1]);
                assert_eq!(net.received(r), ["f/777 kept", "f/777 kept"]);
            }
            // Nothing is read of the answers, so that the cursors of one SUBSCRIBE meet those of the next.
            net.pause(r);
            for _ in 0..4 {
                net.send_subscribe(r, &all);
            }
            net.settle();
            net.unpause(r);
            net.settle();
            let copies = net.messages(r).len();
            assert!((2..=8).contains(&copies), "{copies}");
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            assert_eq!(net.unsubscribe(r, &names), vec![ReasonCode::Success; FILTERS]);
            assert_eq!(net.view().subscription_count(), 1);
        },
    );
}

/// Several publishers bring more output to a client that does not read than it may have and still be read.
fn overfill(net: &mut Net, client: Client, topic: &str) {
    if !net.held(client) {
        net.subscribe(client, topic, AtMostOnce);
    }
    net.pause(client);
    for number in 0..5 {
        let w = net.connect(Connect::v5(&format!("{topic}{number}")));
        net.publish(w, Publish::new(topic, vec![b'x'; 900_000]));
        net.settle();
    }
    assert!(largest_output(net) >= OUTPUT_OWN_BYTES);
}

#[test]
fn a_client_that_never_takes_its_answers_is_held_for_ever() {
    check_heavy(
        |_| {},
        |net| {
            let a = net.connect(Connect::v5("a"));
            overfill(net, a, "a");
            net.ping(a);
            net.settle();
            assert!(net.held(a));
            net.advance_secs(9);
            assert!(net.held(a) && !net.closed(a));
            net.advance_secs(2);
            net.unpause(a);
            assert_eq!(net.kicked(a), ReasonCode::QuotaExceeded);
            // Who takes them late goes on.
            let a = net.connect(Connect::v5("a"));
            overfill(net, a, "a");
            net.ping(a);
            net.advance_secs(9);
            net.take(a);
            net.unpause(a);
            net.advance_secs(60);
            assert!(!net.held(a));
            assert!(net.take(a).contains(&Got::Pingresp));
            net.ping(a);
            assert_eq!(net.take(a), [Got::Pingresp]);
        },
    );
}

/// What holds a publisher for a target longer than for `max_publisher_hold` is off.
fn only_max_publisher_hold(config: &mut ShardConfig) {
    config.zones[0].slow_consumer_timeout = Duration::from_secs(30);
}

#[test]
fn a_hold_for_a_target_becomes_one_for_the_own_output() {
    for reads in [false, true] {
        check_heavy_together(only_max_publisher_hold, |net| {
            let target = net.connect(Connect::v5("target"));
            overfill(net, target, "t");
            let a = net.connect(Connect::v311("a"));
            net.subscribe(a, "a", AtMostOnce);
            net.publish(a, Publish::new("t", "1"));
            net.publish(a, Publish::new("t", "2"));
            net.settle();
            assert!(net.held(a));
            overfill(net, a, "a");
            net.advance_secs(1);
            net.unpause(target);
            assert_eq!(net.messages(target).len(), 6);
            assert!(net.held(a), "its own output is full, now");
            if reads {
                net.advance_secs(9);
                net.unpause(a);
                net.advance_secs(60);
                assert_eq!(net.received(target), ["t 2"]);
                assert!(!net.closed(a));
            } else {
                net.advance_secs(16);
                assert!(net.closed(a));
                assert_eq!(net.received(target), [] as [&str; 0]);
            }
        });
    }
}

#[test]
fn a_timer_of_an_earlier_hold_ends_a_later_one() {
    for another_connection in [false, true] {
        check_heavy_together(only_max_publisher_hold, |net| {
            let mut p = net.connect(Connect::v311("p"));
            overfill(net, p, "p");
            net.ping(p);
            net.settle();
            assert!(net.held(p));
            net.advance_secs(1);
            if another_connection {
                net.cut(p);
                p = net.connect(Connect::v311("p"));
            } else {
                net.unpause(p);
            }
            net.settle();
            assert!(!net.held(p));
            let target = net.connect(Connect::v5("target"));
            overfill(net, target, "t");
            net.advance_secs(4);
            net.publish(p, Publish::new("t", "1"));
            net.settle();
            assert!(net.held(p));
            for _ in 0..9 {
                net.advance_secs(1);
                assert!(net.held(p));
            }
            net.advance_secs(2);
            assert!(!net.held(p) && !net.closed(p));
        });
    }
}

#[test]
fn withheld_acknowledgements_keep_other_packets_from_being_read() {
    check_heavy_together(
        |config| {
            only_max_publisher_hold(config);
            config.hooks = HookSet::default().with(Hook::ClientCheckAcl);
        },
        |net| {
            net.decide(|_| Verdict::Allow { data: None });
            let target = net.connect(Connect::v5("target"));
            overfill(net, target, "t");
            let a = net.connect(Connect::v5("a"));
            net.publish(a, Publish::new("t", "").qos1().id(1));
            net.ping(a);
            assert_eq!(net.take(a), [Got::Pingresp]);
            // QoS 0 does; then nothing is read until the wait is over.
            net.publish(a, Publish::new("t", ""));
            net.ping(a);
            net.advance_secs(9);
            assert_eq!(net.take(a), []);
            net.unpause(target);
            assert_eq!(net.take(a), [Got::Ack(Puback, 1, ReasonCode::Success), Got::Pingresp]);
        },
    );
}

#[test]
fn a_client_before_mqtt_5_cannot_know_of_a_receive_maximum() {
    for connect in [Connect::v31("a"), Connect::v311("a")] {
        check(|net| {
            let a = net.connect(connect.clone().manual());
            let ids: Vec<u16> = (0..300).map(|_| net.publish(a, Publish::new("t", "").qos2())).collect();
            let acks = |kind| ids.iter().map(|id| Got::Ack(kind, *id, ReasonCode::Success)).collect::<Vec<_>>();
            assert_eq!(net.take(a), acks(Pubrec));
            for id in &ids {
                net.ack(a, Pubrel, *id);
            }
            assert_eq!(net.take(a), acks(Pubcomp));
        });
    }
    check(|net| {
        let a = net.connect(Connect::v5("a").manual());
        for _ in 0..100 {
            net.publish(a, Publish::new("t", "").qos2());
        }
        assert_eq!(net.take(a).len(), 100);
        net.publish(a, Publish::new("t", "").qos2());
        assert_eq!(net.kicked(a), ReasonCode::ReceiveMaximumExceeded);
    });
}

#[test]
fn a_repeated_publish_repeats_its_withheld_acknowledgement() {
    check_heavy_together(only_max_publisher_hold, |net| {
        let target = net.connect(Connect::v5("target"));
        overfill(net, target, "t");
        let a = net.connect(Connect::v5("a").manual());
        net.publish(a, Publish::new("t", "").qos1().id(6));
        net.publish(a, Publish::new("t", "").qos2().id(7));
        for _ in 0..5 {
            net.publish(a, Publish::new("t", "").qos2().id(7).dup());
        }
        net.publish(a, Publish::new("t", "").qos2().id(8));
        assert_eq!(net.take(a), []);
        net.unpause(target);
        let success = ReasonCode::Success;
        assert_eq!(
            net.take(a),
            [Got::Ack(Puback, 6, success), Got::Ack(Pubrec, 7, success), Got::Ack(Pubrec, 8, success)]
        );
        assert_eq!(net.messages(target).len(), 5 + 3);
        // From here on each is answered.
        net.publish(a, Publish::new("t", "").qos2().id(7).dup());
        assert_eq!(net.take(a), [Got::Ack(Pubrec, 7, success)]);
    });
}

#[test]
fn a_client_before_mqtt_5_cannot_know_of_a_server_keep_alive() {
    check_with(
        |config| config.zones[0].server_keepalive = Some(10),
        |net| {
            let old = [
                net.connect(Connect::v31("a").keep_alive(100)),
                net.connect(Connect::v311("b").keep_alive(100)),
                net.connect(Connect::v311("c")),
            ];
            let (new, connack) = net.connect_with(Connect::v5("d").keep_alive(100));
            assert_eq!(connack.keep_alive, Some(10));
            let short = net.connect(Connect::v311("e").keep_alive(2));
            net.advance_secs(4);
            assert!(net.closed(short) && !net.closed(new));
            net.advance_secs(12);
            assert_eq!(net.kicked(new), ReasonCode::KeepAliveTimeout);
            net.advance_secs(130);
            assert!(old.iter().all(|client| !net.closed(*client)));
            net.advance_secs(10);
            assert!(net.closed(old[0]) && net.closed(old[1]) && !net.closed(old[2]));
        },
    );
}

#[test]
fn a_will_may_have_a_topic_that_a_publish_may_not() {
    check_with(
        |config| config.mqtt.max_topic_levels = 3,
        |net| {
            let all = net.connect(Connect::v5("all"));
            net.subscribe(all, "#", AtMostOnce);
            net.subscribe(all, "$SYS/#", AtMostOnce);
            for (topic, reason) in [("$SYS/x", ReasonCode::NotAuthorized), ("1/2/3/4", ReasonCode::TopicNameInvalid)] {
                let will = Will::new(Publish::new(topic, "").retain());
                assert_eq!(net.refused(Connect::v5("a").will(will.clone())), reason);
                assert_ne!(net.refused(Connect::v311("a").will(will)), ReasonCode::Success);
                assert_eq!(net.view().session_is_connected("a"), None);
            }
            assert_eq!((net.take(all), net.view().retained_count()), (vec![], 0));
            for topic in ["$SYSTEM", "1/2/3"] {
                let a = net.connect(Connect::v5("a").will(Will::new(Publish::new(topic, "").retain())));
                net.disconnect(a);
            }
        },
    );
}

#[test]
fn a_shared_group_picks_the_publisher_whom_nothing_is_delivered_to() {
    check_with(
        |config| config.mqtt.ignore_loop_deliver = true,
        |net| {
            let members = [net.connect(Connect::v5("a")), net.connect(Connect::v311("b"))];
            for member in members {
                net.subscribe(member, "$share/g/t", AtLeastOnce);
            }
            for number in 0..60 {
                let publish = Publish::new("t", number.to_string());
                net.publish(members[number % 2], if number % 3 == 0 { publish.qos1() } else { publish });
            }
            let mut received = net.received(members[0]).len();
            assert!((1..60).contains(&received));
            received += net.received(members[1]).len();
            assert_eq!((received, net.ledger().delivered), (60, 60));
            // Alone in a group.
            net.disconnect(members[1]);
            net.publish(members[0], Publish::new("t", "own"));
            assert_eq!(net.received(members[0]), ["t own"]);
            // What is not shared does not come back.
            net.subscribe(members[0], "u", AtLeastOnce);
            net.publish(members[0], Publish::new("u", "own"));
            assert_eq!(net.received(members[0]), [] as [&str; 0]);
        },
    );
}

#[test]
fn an_expired_retained_message_stays_until_somebody_asks() {
    check(|net| {
        let a = net.connect(Connect::v5("a").will(Will::new(Publish::new("will", "").retain())));
        net.publish(a, Publish::new("short", "1").retain().expiry(10));
        net.publish(a, Publish::new("long", "1").retain().expiry(30));
        net.publish(a, Publish::new("longer", "1").retain().expiry(10));
        net.publish(a, Publish::new("longer", "2").retain().expiry(20));
        net.publish(a, Publish::new("for ever", "1").retain().expiry(10));
        net.publish(a, Publish::new("for ever", "2").retain());
        net.publish(a, Publish::new("cleared", "1").retain().expiry(10));
        net.publish(a, Publish::new("cleared", "").retain());
        net.settle();
        for (seconds, left) in [(9, 4), (2, 3), (8, 3), (2, 2), (10, 1), (1000, 1)] {
            net.advance_secs(seconds);
            assert_eq!(net.view().retained_count(), left, "at {}", net.now());
        }
        net.subscribe(a, "#", AtMostOnce);
        assert_eq!(net.received(a), ["for ever 2"]);
    });
    // Their number, the clients' silence and the zone's own interval change nothing.
    check_heavy(
        |config| config.retained.expiry_interval = Duration::from_secs(5),
        |net| {
            let a = net.connect(Connect::v311("a"));
            for number in 0..10_000 {
                net.publish(a, Publish::new(&number.to_string(), "x").retain());
            }
            net.disconnect(a);
            assert_eq!(net.view().retained_count(), 10_000);
            net.advance_secs(6);
            assert_eq!(net.view().retained_count(), 0);
        },
    );
}

#[test]
fn a_client_that_does_not_read_is_answered_without_end() {
    let own = Publish::new("t", vec![b'x'; 5_000]).encode(None, V311);
    for packet in [vec![0xC0, 0], own] {
        check_heavy(
            |_| {},
            |net| {
                let a = net.connect(Connect::v311("a"));
                net.subscribe(a, "t", ExactlyOnce);
                net.pause(a);
                let flood = packet.repeat((300 << 10) / packet.len());
                let mut most = 0;
                for _ in 0..40 {
                    net.send(a, &flood);
                    net.settle();
                    most = largest_output(net).max(most);
                }
                assert!(most < OUTPUT_OWN_BYTES + (64 << 10), "{most}");
                net.advance_secs(20);
                assert_eq!(net.held(a), most >= OUTPUT_OWN_BYTES);
                assert_eq!(net.closed(a), most >= OUTPUT_OWN_BYTES);
            },
        );
    }
}

// [MQTT-3.1.0-1]
#[test]
fn what_is_not_a_connect_is_kept_until_it_is_complete() {
    check(|net| {
        for kind in (0..16).filter(|kind| *kind != 1) {
            let start = net.now();
            let client = net.open();
            net.send(client, &[kind << 4]);
            assert_eq!(net.take(client), [Got::Closed], "{kind}");
            assert!(net.now() - start < Duration::from_millis(100));
        }
        // A CONNECT has the time that it needs.
        let client = net.open();
        net.send(client, &[0x10]);
        net.advance_secs(14);
        assert!(!net.closed(client));
        net.advance_secs(2);
        assert!(net.closed(client));
        assert_eq!(net.view().connection_count(), 0);
    });
}
