//! Receive Maximum and Maximum Packet Size, both ways (sections 3.1.2.11.3, 3.1.2.11.4, 3.3.4 and 4.9).

use newtmq_mqtt::PacketType::{Puback, Pubcomp, Pubrec, Pubrel};
use newtmq_mqtt::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use newtmq_mqtt::ReasonCode;
use newtmq_node::DropReason;

use crate::harness::{Connect, Got, Publish, Subscribe, check, check_heavy_together, check_with};

// [MQTT-3.3.4-9] [MQTT-4.9.0-1] [MQTT-4.9.0-2] [MQTT-4.9.0-3] [MQTT-3.3.4-10]
#[test]
fn the_window_of_a_client() {
    check(|net| {
        let w = net.connect(Connect::v5("w"));
        for (maximum, expected) in [(1, 1), (3, 3), (500, 50)] {
            let a = net.connect(Connect::v5("a").receive_maximum(maximum).manual());
            net.subscribe(a, "t", ExactlyOnce);
            for index in 0..50 {
                net.publish(
                    w,
                    Publish::new("t", index.to_string()).qos(if index % 2 == 0 { AtLeastOnce } else { ExactlyOnce }),
                );
            }
            let mut open = net.messages(a);
            assert_eq!(open.len(), expected);
            // Everything else goes on.
            net.ping(a);
            assert_eq!(net.take(a), [Got::Pingresp]);
            net.subscribe(a, "other", AtMostOnce);
            net.publish(w, Publish::new("other", "qos 0"));
            assert_eq!(net.received(a), ["other qos 0"]);
            net.publish(a, Publish::new("nobody", "").qos1());
            assert!(matches!(net.take(a)[..], [Got::Ack(Puback, ..)]));
            let mut index = 0;
            while !open.is_empty() {
                let message = open.remove(0);
                assert_eq!(message.publish.payload, index.to_string().into_bytes());
                let id = message.publish.id.unwrap();
                if message.publish.qos == AtLeastOnce {
                    net.ack(a, Puback, id);
                } else {
                    net.ack(a, Pubrec, id);
                    assert_eq!(net.take(a), [Got::Ack(Pubrel, id, ReasonCode::Success)], "PUBREC gives no place");
                    net.ack(a, Pubcomp, id);
                }
                open.extend(net.messages(a));
                index += 1;
                assert_eq!(open.len(), expected.min(50 - index));
            }
            assert_eq!(index, 50);
        }
    });
}

// [MQTT-3.3.4-7] [MQTT-3.3.4-8]
#[test]
fn the_window_of_the_server() {
    check_with(
        |config| config.zones[0].max_awaiting_rel = 3,
        |net| {
            let (a, connack) = net.connect_with(Connect::v5("a").manual());
            assert_eq!(connack.receive_maximum, Some(3));
            for id in 1..=3 {
                net.publish(a, Publish::new("t", "").qos2().id(id));
            }
            net.publish(a, Publish::new("t", "").qos2().id(3).dup());
            net.ping(a);
            net.ack(a, Pubrel, 1);
            assert_eq!(net.take(a).len(), 3 + 1 + 1 + 1);
            net.publish(a, Publish::new("t", "").qos2().id(1));
            assert_eq!(net.take(a).len(), 1);
            net.publish(a, Publish::new("t", "").qos2().id(4));
            assert_eq!(net.kicked(a), ReasonCode::ReceiveMaximumExceeded);
        },
    );
}

// [MQTT-3.3.4-7]: what is withheld for a slow target counts once.
#[test]
fn a_client_may_use_its_whole_window_while_acknowledgements_are_withheld() {
    for qos in [AtLeastOnce, ExactlyOnce] {
        crate::harness::check_heavy_together(
            |config| config.zones[0].max_awaiting_rel = 10,
            |net| {
                let r = net.connect(Connect::v5("r"));
                net.subscribe(r, "t", AtMostOnce);
                net.pause(r);
                let w = net.connect(Connect::v5("w"));
                while net.view().connections().all(|conn| conn.output_bytes < 1 << 20) {
                    net.publish(w, Publish::new("t", vec![0; 100_000]));
                    net.settle();
                }
                let a = net.connect(Connect::v5("a").manual());
                for id in 1..=10 {
                    net.publish(a, Publish::new("t", "x").qos(qos).id(id));
                }
                assert_eq!(net.take(a), [], "withheld");
                net.unpause(r);
                let kind = if qos == AtLeastOnce { Puback } else { Pubrec };
                let expected: Vec<Got> = (1..=10).map(|id| Got::Ack(kind, id, ReasonCode::Success)).collect();
                assert_eq!(net.take(a), expected, "in order");
            },
        );
    }
}

// [MQTT-3.1.2-24] [MQTT-3.1.2-25]
#[test]
fn what_is_too_large_for_a_client_is_not_sent() {
    check(|net| {
        let w = net.connect(Connect::v5("w"));
        for (qos, header) in [(AtMostOnce, 2 + 3 + 1), (AtLeastOnce, 2 + 3 + 2 + 1), (ExactlyOnce, 2 + 3 + 2 + 1)] {
            let a = net.connect(Connect::v5("a").max_packet_size(50).receive_maximum(1).expiry(100));
            net.subscribe(a, "t", qos);
            for len in [50, 51 - header, 50 - header, 10] {
                net.publish(w, Publish::new("t", vec![b'x'; len]).qos(qos));
            }
            let sizes: Vec<usize> = net.messages(a).iter().map(|message| message.bytes).collect();
            assert_eq!(sizes, [50, header + 10], "{qos:?}");
            net.disconnect_with(a, ReasonCode::Success, Some(0));
        }
        assert_eq!((net.dropped(DropReason::PacketTooLarge), net.view().queued()), (6, 0));
        // Also for what waited, and for what is retained.
        let a = net.connect(Connect::v5("a").expiry(100));
        net.subscribe(a, "t", AtLeastOnce);
        net.cut(a);
        net.publish(w, Publish::new("t", vec![b'x'; 100]).qos1().retain());
        net.publish(w, Publish::new("t", "x").qos1());
        let a = net.connect(Connect::v5("a").resume().max_packet_size(50));
        assert_eq!(net.received(a), ["t x"]);
        net.subscribe(a, "t", AtLeastOnce);
        assert_eq!(net.received(a), [""; 0]);
        net.publish(w, Publish::new("t", "y").qos1());
        assert_eq!(net.received(a), ["t y"]);
    });
}

// [MQTT-3.1.2-24]
#[test]
fn an_answer_that_is_too_large_for_a_client_closes_the_connection() {
    check(|net| {
        let a = net.connect(Connect::v5("a").max_packet_size(30));
        let mut subscribe = Subscribe::default();
        for index in 0..40 {
            subscribe = subscribe.and(&index.to_string(), AtMostOnce);
        }
        net.send_subscribe(a, &subscribe);
        let got = net.take(a);
        assert_eq!(got.last(), Some(&Got::Closed), "{got:?}");
        assert!(!got.iter().any(|got| matches!(got, Got::Suback(..))));
    });
}

// [MQTT-3.2.2-15]
#[test]
fn what_is_too_large_for_the_server_closes_the_connection() {
    check_with(
        |config| config.mqtt.max_packet_size = 100,
        |net| {
            let a = net.connect(Connect::v5("a"));
            net.subscribe(a, "t", AtMostOnce);
            // Fixed header 2, topic 3, properties 1.
            net.publish(a, Publish::new("t", vec![b'x'; 94]));
            assert_eq!(net.messages(a).len(), 1);
            net.publish(a, Publish::new("t", vec![b'x'; 95]));
            assert_eq!(net.kicked(a), ReasonCode::PacketTooLarge);
            // As soon as it is announced.
            let a = net.connect(Connect::v5("a"));
            net.send(a, &[0x30, 0xFF, 0xFF, 0xFF, 0x7F]);
            assert_eq!(net.kicked(a), ReasonCode::PacketTooLarge);
            let old = net.connect(Connect::v311("old"));
            net.send(old, &[0x30, 0x80, 0x01]);
            assert_eq!(net.take(old), [Got::Closed]);
            let early = net.open();
            net.send(early, &[0x10, 0x80, 0x01]);
            assert_eq!(net.take(early), [Got::Closed]);
        },
    );
}

// [MQTT-3.4.2-2] [MQTT-3.4.2-3] [MQTT-3.5.2-2] [MQTT-3.5.2-3] [MQTT-3.6.2-2] [MQTT-3.6.2-3] [MQTT-3.7.2-2]
// [MQTT-3.7.2-3] [MQTT-3.9.2-1] [MQTT-3.9.2-2] [MQTT-3.11.2-1] [MQTT-3.11.2-2] [MQTT-3.14.2-3] [MQTT-3.14.2-4]
#[test]
fn answers_fit_a_small_maximum_packet_size() {
    check(|net| {
        // The smallest that lets the CONNACK pass.
        let smallest = (5..100)
            .find(|size| {
                let client = net.start(Connect::v5("a").max_packet_size(*size));
                !net.closed(client)
            })
            .unwrap();
        let a = net.connect(Connect::v5("a").max_packet_size(smallest).manual());
        net.publish(a, Publish::new("$SYS/no", "").qos1().id(1));
        net.publish(a, Publish::new("$SYS/no", "").qos2().id(2));
        net.publish(a, Publish::new("t", "").qos2().id(3));
        net.ack(a, Pubrel, 4);
        net.ack(a, Pubrec, 5);
        let (refused, unknown) = (ReasonCode::NotAuthorized, ReasonCode::PacketIdentifierNotFound);
        assert_eq!(
            net.take(a),
            [
                Got::Ack(Puback, 1, refused),
                Got::Ack(Pubrec, 2, refused),
                Got::Ack(Pubrec, 3, ReasonCode::NoMatchingSubscribers),
                Got::Ack(Pubcomp, 4, unknown),
                Got::Ack(Pubrel, 5, unknown),
            ]
        );
        net.subscribe(a, "t", AtMostOnce);
        assert_eq!(net.unsubscribe(a, &["none"]), [ReasonCode::NoSubscriptionExisted]);
        net.send(a, &[0]);
        assert_eq!(net.kicked(a), ReasonCode::MalformedPacket);
    });
}

/// Refusals that are withheld behind other acknowledgements are unacknowledged publishes like all others.
#[test]
fn refused_publishes_count_until_they_are_answered() {
    check_heavy_together(
        |config| config.zones[0].max_awaiting_rel = 6,
        |net| {
            let r = net.connect(Connect::v5("r"));
            net.subscribe(r, "t", AtMostOnce);
            let w = net.connect(Connect::v5("w"));
            net.block(r, true);
            // Until one is not acknowledged.
            loop {
                net.publish(w, Publish::new("t", vec![b'.'; 600_000]).qos1());
                if net.take(w).is_empty() {
                    break;
                }
            }
            // Only the server speaks there.
            for _ in 0..5 {
                net.publish(w, Publish::new("$SYS/x", "").qos2());
            }
            assert_eq!(net.take(w), []);
            net.publish(w, Publish::new("$SYS/x", "").qos2());
            assert_eq!(net.kicked(w), ReasonCode::ReceiveMaximumExceeded);
            net.block(r, false);
        },
    );
}
