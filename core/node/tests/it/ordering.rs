//! Order of messages (section 4.6), also over large fan-outs.

use core::time::Duration;

use newtmq_mqtt::PacketType::{Puback, Pubrec};
use newtmq_mqtt::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};

use crate::harness::{Connect, Got, Publish, Subscribe, check, check_heavy, check_heavy_together};

// [MQTT-4.6.0-5] [MQTT-4.6.0-6]
#[test]
fn messages_of_a_publisher_stay_in_order() {
    check(|net| {
        let readers = [
            Connect::v5("wide"),
            Connect::v5("narrow").receive_maximum(1),
            Connect::v5("aliases").alias_maximum(2).receive_maximum(3),
            Connect::v311("old"),
        ]
        .map(|connect| net.connect(connect));
        for reader in readers {
            net.subscribe(reader, "t/+", ExactlyOnce);
        }
        for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
            let writers = [net.connect(Connect::v5("w1")), net.connect(Connect::v311("w2"))];
            for index in 0..20 {
                for (number, writer) in writers.into_iter().enumerate() {
                    net.publish(writer, Publish::new(&format!("t/{number}"), index.to_string()).qos(qos));
                }
            }
            for reader in readers {
                let received = net.received(reader);
                for number in 0..2 {
                    let topic = format!("t/{number} ");
                    let own: Vec<&str> = received.iter().filter_map(|text| text.strip_prefix(&topic)).collect();
                    assert_eq!(own, (0..20).map(|index| index.to_string()).collect::<Vec<_>>(), "{qos:?}");
                }
            }
        }
    });
}

// [MQTT-4.6.0-2] [MQTT-4.6.0-3]
#[test]
fn acknowledgements_come_in_the_order_of_the_publishes() {
    check(|net| {
        let a = net.connect(Connect::v5("a").manual());
        for id in 1..=40 {
            net.publish(a, Publish::new("t", "").qos(if id % 3 == 0 { ExactlyOnce } else { AtLeastOnce }).id(id));
        }
        let acks: Vec<(bool, u16)> = net
            .take(a)
            .into_iter()
            .map(|got| match got {
                Got::Ack(Puback, id, _) => (false, id),
                Got::Ack(Pubrec, id, _) => (true, id),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(acks, (1..=40).map(|id| (id % 3 == 0, id)).collect::<Vec<_>>());
    });
}

#[test]
fn a_fan_out_to_very_many_sessions_is_resumable_and_in_order() {
    check_heavy(
        |_| {},
        |net| {
            let readers: Vec<_> = (0..10_000)
                .map(|index| {
                    let reader = net.start(Connect::v5(&format!("r{index}")));
                    net.send_subscribe(
                        reader,
                        &Subscribe::new("t/#", if index % 2 == 0 { AtMostOnce } else { AtLeastOnce }),
                    );
                    reader
                })
                .collect();
            net.settle();
            let w = net.connect(Connect::v5("w").manual());
            let other = net.connect(Connect::v5("other"));
            for index in 0..5 {
                net.publish(
                    w,
                    Publish::new("t/1", index.to_string()).qos(if index == 3 { AtMostOnce } else { AtLeastOnce }),
                );
            }
            // The shard serves others in between.
            net.ping(other);
            net.publish(other, Publish::new("t/2", "x"));
            assert_eq!(net.take(other), [Got::Pingresp]);
            assert_eq!(net.take(w).len(), 4);
            for reader in readers {
                let received = net.received(reader);
                let own: Vec<&str> = received.iter().filter_map(|text| text.strip_prefix("t/1 ")).collect();
                assert_eq!(own, ["0", "1", "2", "3", "4"]);
                assert_eq!(received.len(), 6);
            }
            assert_eq!(net.ledger().delivered, 60_000);
        },
    );
}

// [MQTT-3.3.4-2]
#[test]
fn a_step_of_a_fan_out_does_not_part_overlapping_subscriptions() {
    check_heavy(
        |_| {},
        |net| {
            let readers: Vec<_> = (0..3_000)
                .map(|index| {
                    let reader = net.start(Connect::v5(&format!("r{index}")));
                    net.send_subscribe(reader, &Subscribe::new("t/#", AtMostOnce));
                    // One session has one, so that pairs lie across every even boundary.
                    if index > 0 {
                        net.send_subscribe(reader, &Subscribe::new("t/+", AtLeastOnce));
                    }
                    reader
                })
                .collect();
            net.settle();
            let w = net.connect(Connect::v5("w"));
            net.publish(w, Publish::new("t/1", "x").qos1());
            for reader in readers {
                assert_eq!(net.received(reader), ["t/1 x"]);
            }
        },
    );
}

// [MQTT-4.6.0-5]
#[test]
fn qos_0_does_not_overtake_what_waits() {
    check(|net| {
        let w = net.connect(Connect::v5("w"));
        let a = net.connect(Connect::v5("a").expiry(100));
        net.subscribe(a, "t", AtLeastOnce);
        net.cut(a);
        net.publish(w, Publish::new("t", "1").qos1());
        net.publish(w, Publish::new("t", "2").qos1());
        net.publish(w, Publish::new("t", "3"));
        net.settle();
        let a = net.connect(Connect::v5("a").resume().receive_maximum(1).manual());
        net.publish(w, Publish::new("t", "4"));
        let id = net.one_message(a).publish.id.unwrap();
        net.ack(a, Puback, id);
        assert_eq!(net.received(a), ["t 2", "t 3", "t 4"]);
    });
}

#[test]
fn who_takes_the_place_of_a_session_that_ends_during_a_fan_out_gets_nothing() {
    check_heavy_together(
        |_| {},
        |net| {
            net.work_delay = Some(Duration::from_millis(10));
            let readers: Vec<_> = (0..5_000)
                .map(|index| {
                    let reader = net.start(Connect::v5(&format!("r{index}")));
                    net.send_subscribe(reader, &Subscribe::new("t", AtMostOnce));
                    reader
                })
                .collect();
            net.settle();
            let w = net.connect(Connect::v5("w"));
            net.publish(w, Publish::new("t", "x").qos1());
            net.advance(Duration::from_millis(2));
            assert_eq!(net.take_now(w), [], "the fan-out is not done");
            // Whoever comes has no subscription: the harness refuses any message.
            for (index, reader) in readers.iter().rev().enumerate().take(1000) {
                net.hang_up_later(*reader);
                if index % 2 == 0 {
                    net.start(Connect::v5(&format!("new {index}")));
                }
            }
            assert!(matches!(net.take(w)[..], [Got::Ack(Puback, ..)]));
        },
    );
}

#[test]
fn who_comes_during_a_fan_out_gets_it_at_most_once() {
    check_heavy(
        |_| {},
        |net| {
            for index in 0..5_000 {
                let reader = net.start(Connect::v5(&format!("r{index}")));
                net.send_subscribe(reader, &Subscribe::new("t", AtMostOnce));
            }
            net.settle();
            let w = net.connect(Connect::v5("w"));
            net.publish(w, Publish::new("t", "x").qos1());
            let late: Vec<_> = (0..20)
                .map(|index| {
                    // Some take the place of sessions that end meanwhile.
                    let client = net.start(Connect::v5(&format!("r{}", index * 250)));
                    net.send_subscribe(client, &Subscribe::new("t", AtMostOnce));
                    client
                })
                .collect();
            net.settle();
            for client in late {
                assert!(net.received(client).len() <= 1);
            }
        },
    );
}

// [MQTT-4.6.0-5]
#[test]
fn a_publisher_is_held_while_its_fan_out_goes_on() {
    check_heavy_together(
        |_| {},
        |net| {
            net.work_delay = Some(Duration::from_millis(10));
            let readers: Vec<_> = (0..5_000)
                .map(|index| {
                    let reader = net.start(Connect::v5(&format!("r{index}")));
                    net.send_subscribe(reader, &Subscribe::new("t/+", AtMostOnce));
                    reader
                })
                .collect();
            net.settle();
            let writers = [net.connect(Connect::v5("w1")), net.connect(Connect::v311("w2"))];
            for index in 0..3 {
                for (number, writer) in writers.into_iter().enumerate() {
                    net.publish(writer, Publish::new(&format!("t/{number}"), index.to_string()));
                }
            }
            net.advance(Duration::from_millis(2));
            assert!(writers.iter().all(|writer| net.held(*writer)));
            for reader in readers {
                let received = net.received(reader);
                for number in 0..2 {
                    let topic = format!("t/{number} ");
                    let own: Vec<&str> = received.iter().filter_map(|text| text.strip_prefix(&topic)).collect();
                    assert_eq!(own, ["0", "1", "2"]);
                }
            }
        },
    );
}
