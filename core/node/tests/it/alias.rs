//! Topic Alias, both ways (section 3.3.2.3.4).

use newtmq_mqtt::PacketType::Pubrec;
use newtmq_mqtt::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use newtmq_mqtt::ReasonCode;

use crate::harness::{Connect, Got, Publish, check, check_with};

// [MQTT-3.3.2-12]
#[test]
fn a_client_may_use_every_alias_up_to_the_maximum() {
    check_with(
        |config| config.mqtt.max_topic_alias = 20,
        |net| {
            let r = net.connect(Connect::v5("r"));
            net.subscribe(r, "t/#", AtMostOnce);
            let a = net.connect(Connect::v5("a"));
            for alias in 1..=20 {
                net.publish(a, Publish::new(&format!("t/{alias}"), "x").alias(alias));
            }
            for alias in (1..=20).rev() {
                net.publish(a, Publish::new("", "y").alias(alias).qos1());
            }
            // Another meaning from here on.
            net.publish(a, Publish::new("t/new", "z").alias(7));
            net.publish(a, Publish::new("", "z").alias(7));
            let mut expected: Vec<String> = (1..=20).map(|alias| format!("t/{alias} x")).collect();
            expected.extend((1..=20).rev().map(|alias| format!("t/{alias} y")));
            expected.extend(["t/new z".into(), "t/new z".into()]);
            assert_eq!(net.received(r), expected);
        },
    );
}

// [MQTT-3.3.2-8] [MQTT-3.3.2-7]
#[test]
fn wrong_aliases() {
    check_with(
        |config| config.mqtt.max_topic_alias = 3,
        |net| {
            let wrong = ReasonCode::TopicAliasInvalid;
            let a = net.connect(Connect::v5("a"));
            net.publish(a, Publish::new("t", "").alias(4));
            assert_eq!(net.kicked(a), wrong);
            let a = net.connect(Connect::v5("a"));
            net.publish(a, Publish::new("", "").alias(3));
            assert!([wrong, ReasonCode::ProtocolError].contains(&net.kicked(a)), "nobody has set it");
            let a = net.connect(Connect::v5("a"));
            net.send(a, &[0x30, 7, 0, 1, b't', 3, 0x23, 0, 0]);
            assert_eq!(net.kicked(a), wrong, "0");
            let a = net.connect(Connect::v5("a"));
            net.send(a, &[0x30, 3, 0, 0, 0]);
            assert_eq!(net.kicked(a), ReasonCode::ProtocolError, "neither topic nor alias");
            // They do not outlive the connection.
            let a = net.connect(Connect::v5("a").resume());
            net.publish(a, Publish::new("t", "").alias(1));
            net.cut(a);
            let a = net.connect(Connect::v5("a").resume());
            net.publish(a, Publish::new("", "").alias(1));
            assert!(net.kicked(a).is_error());
        },
    );
}

#[test]
fn no_aliases_at_all() {
    check_with(
        |config| config.mqtt.max_topic_alias = 0,
        |net| {
            let (a, connack) = net.connect_with(Connect::v5("a"));
            assert_eq!(connack.alias_maximum, None);
            net.publish(a, Publish::new("t", "").alias(1));
            assert_eq!(net.kicked(a), ReasonCode::TopicAliasInvalid);
        },
    );
}

// [MQTT-4.3.3-10] [MQTT-3.3.2-12]
#[test]
fn a_repeated_qos_2_publish_sets_its_alias() {
    check(|net| {
        let r = net.connect(Connect::v5("r"));
        net.subscribe(r, "t", AtMostOnce);
        let a = net.connect(Connect::v5("a").expiry(100).manual());
        net.publish(a, Publish::new("t", "1").qos2().id(1).alias(5));
        net.settle();
        net.cut(a);
        let a = net.connect(Connect::v5("a").resume().manual());
        net.publish(a, Publish::new("t", "1").qos2().id(1).alias(5).dup());
        net.publish(a, Publish::new("", "2").alias(5));
        assert_eq!(net.received(r), ["t 1", "t 2"]);
        assert_eq!(net.take(a), [Got::Ack(Pubrec, 1, ReasonCode::Success)]);
    });
}

// [MQTT-3.1.2-26] [MQTT-3.3.2-11] [MQTT-3.3.2-10] [MQTT-3.1.2-27]: the clients of the harness check each alias.
#[test]
fn aliases_toward_clients() {
    check(|net| {
        let w = net.connect(Connect::v5("w"));
        for maximum in [0, 1, 2, 5, u16::MAX] {
            let a = net.connect(Connect::v5("a").alias_maximum(maximum).expiry(100));
            net.subscribe(a, "t/#", ExactlyOnce);
            for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
                for round in 0..2 {
                    for topic in 0..4 {
                        net.publish(w, Publish::new(&format!("t/{topic}"), round.to_string()).qos(qos));
                    }
                }
            }
            let messages = net.messages(a);
            let texts: Vec<String> = messages.iter().map(|message| message.text()).collect();
            let round = |round| (0..4).map(move |topic| format!("t/{topic} {round}"));
            assert_eq!(texts, [0, 1, 0, 1, 0, 1].into_iter().flat_map(round).collect::<Vec<_>>());
            let used = messages.iter().filter(|message| message.publish.alias.is_some()).count();
            assert_eq!(used, 6 * usize::from(maximum.min(4)), "the first topics have the aliases");
            net.hang_up(a);
            net.publish(w, Publish::new("t/0", "waits").qos1());
            let a = net.connect(Connect::v5("a").resume().alias_maximum(maximum.min(1)));
            assert_eq!(net.received(a), ["t/0 waits"]);
            net.disconnect_with(a, ReasonCode::Success, Some(0));
        }
    });
}

// [MQTT-3.1.2-24] [MQTT-3.1.2-25]
#[test]
fn an_alias_is_left_out_where_it_would_not_fit() {
    check(|net| {
        let w = net.connect(Connect::v5("w"));
        for alias_maximum in [0, 1] {
            for size in 10..=14 {
                let a = net.connect(Connect::v5("a").alias_maximum(alias_maximum).max_packet_size(40));
                net.subscribe(a, "topic", AtMostOnce);
                // Fixed header 2, topic 7, properties 1: 40 bytes with 30 bytes of payload.
                let payload = vec![b'x'; 16 + size];
                for _ in 0..2 {
                    net.publish(w, Publish::new("topic", &payload));
                }
                assert_eq!(net.messages(a).len(), if payload.len() <= 30 { 2 } else { 0 }, "{}", payload.len());
            }
        }
    });
}

/// The client knows no better than that its alias is set, whatever became of the message.
#[test]
fn an_alias_set_by_a_refused_publish_counts() {
    check(|net| {
        let r = net.connect(Connect::v5("r"));
        net.subscribe(r, "t", AtMostOnce);
        let a = net.connect(Connect::v5("a"));
        net.publish(a, Publish::new("t", [0xFF]).utf8().alias(1).qos1().id(1));
        net.publish(a, Publish::new("", "x").alias(1));
        assert_eq!(net.take(a), [Got::Ack(newtmq_mqtt::PacketType::Puback, 1, ReasonCode::PayloadFormatInvalid)]);
        assert_eq!(net.received(r), ["t x"]);
    });
}
