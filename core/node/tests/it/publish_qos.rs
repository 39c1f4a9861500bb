//! PUBLISH and its acknowledgements (sections 3.3 to 3.7 and 4.3).

use newtmq_mqtt::PacketType::{Puback, Pubcomp, Pubrec, Pubrel};
use newtmq_mqtt::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use newtmq_mqtt::ReasonCode;

use crate::harness::{Connect, Got, Publish, Subscribe, check};

// [MQTT-3.3.4-1] [MQTT-4.3.2-4] [MQTT-4.3.3-8] [MQTT-4.3.3-11] [MQTT-2.2.1-5] [MQTT-3.4.2-1] [MQTT-3.5.2-1]
// [MQTT-3.7.2-1]
#[test]
fn each_qos_has_its_answer() {
    check(|net| {
        let r = net.connect(Connect::v311("r"));
        net.subscribe(r, "t", AtMostOnce);
        for connect in [Connect::v31("a"), Connect::v311("b"), Connect::v5("c")] {
            let a = net.connect(connect);
            net.publish(a, Publish::new("t", "0"));
            assert_eq!(net.take(a), []);
            net.publish(a, Publish::new("t", "1").qos1().id(300));
            assert_eq!(net.take(a), [Got::Ack(Puback, 300, ReasonCode::Success)]);
            net.auto_ack(a, false);
            net.publish(a, Publish::new("t", "2").qos2().id(65_535));
            assert_eq!(net.take(a), [Got::Ack(Pubrec, 65_535, ReasonCode::Success)]);
            net.ack(a, Pubrel, 65_535);
            assert_eq!(net.take(a), [Got::Ack(Pubcomp, 65_535, ReasonCode::Success)]);
            assert_eq!(net.received(r), ["t 0", "t 1", "t 2"]);
        }
    });
}

#[test]
fn nobody_is_subscribed() {
    check(|net| {
        let a = net.connect(Connect::v5("a"));
        net.publish(a, Publish::new("t", "").qos1().id(1));
        net.publish(a, Publish::new("t", "").qos2().id(2));
        let reason = ReasonCode::NoMatchingSubscribers;
        assert_eq!(
            net.take(a),
            [Got::Ack(Puback, 1, reason), Got::Ack(Pubrec, 2, reason), Got::Ack(Pubcomp, 2, ReasonCode::Success)]
        );
        assert_eq!((net.ledger().accepted, net.ledger().unmatched), (2, 2));
    });
}

// [MQTT-4.3.2-5]
#[test]
fn a_qos_1_identifier_is_free_after_puback() {
    check(|net| {
        let r = net.connect(Connect::v5("r"));
        net.subscribe(r, "t", AtLeastOnce);
        let a = net.connect(Connect::v5("a"));
        for dup in [false, true] {
            let publish = Publish::new("t", "1").qos1().id(5);
            net.publish(a, if dup { publish.dup() } else { publish });
            assert_eq!(net.take(a), [Got::Ack(Puback, 5, ReasonCode::Success)]);
            assert_eq!(net.received(r), ["t 1"]);
        }
    });
}

// [MQTT-4.3.3-10] [MQTT-4.3.3-12] [MQTT-3.3.1-3]
#[test]
fn qos_2_is_delivered_once() {
    check(|net| {
        let r = net.connect(Connect::v5("r"));
        net.subscribe(r, "t", ExactlyOnce);
        let a = net.connect(Connect::v5("a"));
        net.auto_ack(a, false);
        for round in 0..3 {
            for copy in 0..4 {
                let publish = Publish::new("t", round.to_string()).qos2().id(5);
                net.publish(a, if copy > 0 { publish.dup() } else { publish });
                assert_eq!(net.take(a), [Got::Ack(Pubrec, 5, ReasonCode::Success)]);
            }
            net.ack(a, Pubrel, 5);
            assert_eq!(net.take(a), [Got::Ack(Pubcomp, 5, ReasonCode::Success)]);
            let message = net.one_message(r);
            assert_eq!((message.text(), message.publish.dup), (format!("t {round}"), false));
        }
    });
}

// [MQTT-4.3.3-9]
#[test]
fn a_refused_qos_2_identifier_is_free() {
    check(|net| {
        let r = net.connect(Connect::v5("r"));
        net.subscribe(r, "t", ExactlyOnce);
        let a = net.connect(Connect::v5("a"));
        net.auto_ack(a, false);
        net.publish(a, Publish::new("t", [0xFF]).utf8().qos2().id(5));
        assert_eq!(net.take(a), [Got::Ack(Pubrec, 5, ReasonCode::PayloadFormatInvalid)]);
        net.publish(a, Publish::new("t", "1").qos2().id(5));
        assert_eq!(net.take(a), [Got::Ack(Pubrec, 5, ReasonCode::Success)]);
        assert_eq!(net.received(r), ["t 1"]);
    });
}

// [MQTT-3.6.2-1]
#[test]
fn a_release_of_nothing_is_answered() {
    check(|net| {
        let a = net.connect(Connect::v5("a"));
        net.ack(a, Pubrel, 77);
        assert_eq!(net.take(a), [Got::Ack(Pubcomp, 77, ReasonCode::PacketIdentifierNotFound)]);
        net.ack(a, Puback, 77);
        net.ack(a, Pubcomp, 77);
        assert_eq!(net.take(a), []);
        net.auto_ack(a, false);
        net.ack(a, Pubrec, 77);
        assert_eq!(net.take(a), [Got::Ack(Pubrel, 77, ReasonCode::PacketIdentifierNotFound)]);
    });
}

// [MQTT-4.3.1-1] [MQTT-4.3.2-1] [MQTT-4.3.2-2] [MQTT-4.3.3-1] [MQTT-4.3.3-2] [MQTT-4.3.3-3] [MQTT-4.3.3-4]
// [MQTT-2.2.1-4] [MQTT-2.2.1-2] [MQTT-3.3.1-2] [MQTT-3.3.1-3]
#[test]
fn what_a_subscriber_gets() {
    check(|net| {
        let w = net.connect(Connect::v5("w"));
        let a = net.connect(Connect::v5("a"));
        net.subscribe(a, "t", ExactlyOnce);
        net.auto_ack(a, false);
        net.publish(w, Publish::new("t", "0"));
        net.publish(w, Publish::new("t", "1").qos1().dup());
        net.publish(w, Publish::new("t", "2").qos2().dup());
        let messages = net.messages(a);
        let facts: Vec<_> = messages.iter().map(|m| (m.publish.qos, m.publish.dup, m.publish.id.is_some())).collect();
        assert_eq!(facts, [(AtMostOnce, false, false), (AtLeastOnce, false, true), (ExactlyOnce, false, true)]);
        let (one, two) = (messages[1].publish.id.unwrap(), messages[2].publish.id.unwrap());
        assert_ne!(one, two);
        net.ack(a, Puback, one);
        net.ack(a, Pubrec, two);
        assert_eq!(net.take(a), [Got::Ack(Pubrel, two, ReasonCode::Success)]);
        net.ack(a, Pubcomp, two);
        net.settle();
        assert_eq!((net.ledger().delivered, net.view().queued()), (3, 0));
    });
}

// [MQTT-3.8.4-8] [MQTT-4.8.2-3]
#[test]
fn the_lower_qos_of_publish_and_subscription_counts() {
    check(|net| {
        let w = net.connect(Connect::v5("w"));
        for granted in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
            for filter in ["t", "$share/g/t"] {
                let a = net.connect(Connect::v5("a"));
                net.subscribe(a, filter, granted);
                for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
                    net.publish(w, Publish::new("t", "x").qos(qos));
                    assert_eq!(net.one_message(a).publish.qos, qos.min(granted));
                }
            }
        }
    });
}

// [MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.3.4-4] [MQTT-3.3.4-5]
#[test]
fn overlapping_subscriptions_give_one_copy_with_the_highest_qos_and_all_identifiers() {
    check(|net| {
        let w = net.connect(Connect::v5("w"));
        let a = net.connect(Connect::v5("a"));
        net.subscribe_with(a, &Subscribe::new("t/#", AtMostOnce).identifier(5));
        net.subscribe_with(a, &Subscribe::new("t/+", ExactlyOnce).identifier(268_435_455));
        net.subscribe_with(a, &Subscribe::new("t/1", AtLeastOnce));
        for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
            net.publish(w, Publish::new("t/1", "x").qos(qos));
            let mut message = net.one_message(a);
            message.identifiers.sort_unstable();
            assert_eq!((message.publish.qos, message.identifiers), (qos, vec![5, 268_435_455]));
        }
        net.publish(w, Publish::new("t/1/2", "x").qos2());
        let message = net.one_message(a);
        assert_eq!((message.publish.qos, message.identifiers), (AtMostOnce, vec![5]));
    });
}

// [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20] [MQTT-3.3.2-3]
#[test]
fn properties_are_passed_on_unaltered() {
    check(|net| {
        let w = net.connect(Connect::v5("w"));
        let readers = [AtMostOnce, AtLeastOnce, ExactlyOnce].map(|qos| {
            let reader = net.connect(Connect::v5(&format!("{qos:?}")));
            net.subscribe(reader, "t", qos);
            reader
        });
        let old = net.connect(Connect::v311("old"));
        net.subscribe(old, "t", AtMostOnce);
        let sent = Publish::new("t", "x").with_all_properties();
        for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
            net.publish(w, sent.clone().qos(qos));
            for (reader, granted) in readers.into_iter().zip([AtMostOnce, AtLeastOnce, ExactlyOnce]) {
                let got = net.one_message(reader).publish;
                assert_eq!(got, Publish { id: got.id, ..sent.clone().qos(qos.min(granted)) });
            }
            assert_eq!(net.received(old), ["t x"]);
        }
    });
}

#[test]
fn a_subscription_may_raise_the_qos_if_the_zone_says_so() {
    crate::harness::check_with(
        |config| config.zones[0].upgrade_qos = true,
        |net| {
            let a = net.connect(Connect::v5("a"));
            net.subscribe(a, "t", AtLeastOnce);
            net.publish(a, Publish::new("t", "x"));
            assert_eq!(net.one_message(a).publish.qos, AtLeastOnce);
            net.publish(a, Publish::new("kept", "x").retain());
            net.subscribe(a, "kept", ExactlyOnce);
            assert_eq!(net.one_message(a).publish.qos, ExactlyOnce, "retained");
        },
    );
}

#[test]
fn payloads_of_any_size_pass() {
    check(|net| {
        let a = net.connect(Connect::v5("a"));
        let old = net.connect(Connect::v311("old"));
        net.subscribe(a, "t", ExactlyOnce);
        net.subscribe(old, "t", ExactlyOnce);
        for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
            for len in [0, 1, 100, 4095, 4096, 4097, 20_000] {
                let payload: Vec<u8> = (0..len).map(|index: u32| (index % 251) as u8).collect();
                net.publish(a, Publish::new("t", &payload).qos(qos));
                assert_eq!(net.one_message(a).publish.payload, payload);
                assert_eq!(net.one_message(old).publish.payload, payload);
            }
        }
    });
}

// [MQTT-4.7.2-1]
#[test]
fn only_the_server_speaks_in_sys() {
    check(|net| {
        let a = net.connect(Connect::v5("a"));
        net.subscribe(a, "#", AtMostOnce);
        net.subscribe(a, "+/x", AtMostOnce);
        net.subscribe(a, "$SYS/#", AtMostOnce);
        net.publish(a, Publish::new("$SYS/x", "1").qos1().id(1));
        net.publish(a, Publish::new("$SYS/x", "1").qos2().id(2));
        net.publish(a, Publish::new("$other/x", "1").qos1().id(3));
        let got = net.take(a);
        let refused = ReasonCode::NotAuthorized;
        assert_eq!(
            got,
            [
                Got::Ack(Puback, 1, refused),
                Got::Ack(Pubrec, 2, refused),
                Got::Ack(Puback, 3, ReasonCode::NoMatchingSubscribers)
            ]
        );
        let old = net.connect(Connect::v311("old"));
        net.publish(old, Publish::new("$SYS/x", "1").qos1().id(1));
        net.publish(old, Publish::new("$SYS/x", "1").qos2().id(2));
        net.settle();
        assert_eq!(net.take(old).len(), 3, "PUBACK, PUBREC, PUBCOMP: there is no way to say no");
        assert!(net.received(a).iter().all(|line| line.contains("/clients/old/connected ")));
    });
}

// [MQTT-3.12.4-1]
#[test]
fn a_ping_is_answered() {
    check(|net| {
        for connect in [Connect::v31("a"), Connect::v311("b"), Connect::v5("c")] {
            let client = net.connect(connect);
            net.ping(client);
            net.ping(client);
            assert_eq!(net.take(client), [Got::Pingresp, Got::Pingresp]);
        }
    });
}
