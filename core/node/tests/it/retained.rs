//! Retained messages (section 3.3.1.3).

use core::time::Duration;

use newtmq_mqtt::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use newtmq_mqtt::RetainHandling::{DoNotSend, SendAtSubscribe, SendIfNew};

use crate::harness::{Connect, Publish, Subscribe, check, check_heavy, check_with};

// [MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT-3.3.1-8] [MQTT-3.3.1-9]
#[test]
fn the_last_retained_message_of_a_topic_is_kept() {
    check(|net| {
        let w = net.connect(Connect::v5("w"));
        let now_retained = |net: &mut crate::harness::Net| {
            let r = net.connect(Connect::v5("r"));
            net.subscribe(r, "t", ExactlyOnce);
            let messages = net.messages(r);
            assert!(messages.iter().all(|message| message.publish.retain));
            messages.into_iter().map(|message| (message.text(), message.publish.qos)).collect::<Vec<_>>()
        };
        assert_eq!(now_retained(net), []);
        for (index, qos) in [AtMostOnce, AtLeastOnce, ExactlyOnce].into_iter().enumerate() {
            net.publish(w, Publish::new("t", index.to_string()).qos(qos).retain());
            net.settle();
            assert_eq!(now_retained(net), [(format!("t {index}"), qos)]);
        }
        net.publish(w, Publish::new("t", "not retained").qos1());
        net.publish(w, Publish::new("t", ""));
        net.settle();
        assert_eq!(now_retained(net), [("t 2".to_string(), ExactlyOnce)]);
        let live = net.connect(Connect::v5("live"));
        net.subscribe(live, "t", AtMostOnce);
        net.take(live);
        net.publish(w, Publish::new("t", "").retain());
        assert_eq!(net.received(live), ["t "], "it is published as usual");
        assert_eq!((now_retained(net), net.view().retained_count()), (vec![], 0));
    });
}

// [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11] [MQTT-3.8.4-4]
#[test]
fn retain_handling() {
    check(|net| {
        let w = net.connect(Connect::v5("w"));
        net.publish(w, Publish::new("t/1", "x").retain());
        net.publish(w, Publish::new("t/2", "x").retain());
        net.settle();
        for (handling, first, second) in [(SendAtSubscribe, 2, 2), (SendIfNew, 2, 0), (DoNotSend, 0, 0)] {
            let r = net.connect(Connect::v5("r"));
            let subscribe = Subscribe::new("t/+", AtLeastOnce).handling(handling);
            for count in [first, second] {
                net.subscribe_with(r, &subscribe);
                assert_eq!(net.messages(r).len(), count, "{handling:?}");
            }
            net.unsubscribe(r, &["t/+"]);
            net.subscribe_with(r, &subscribe);
            assert_eq!(net.messages(r).len(), first, "{handling:?}");
        }
    });
}

#[test]
fn a_shared_subscription_gets_no_retained_messages() {
    check(|net| {
        let w = net.connect(Connect::v5("w"));
        net.publish(w, Publish::new("t", "x").retain());
        net.settle();
        let r = net.connect(Connect::v5("r"));
        net.subscribe(r, "$share/g/t", AtLeastOnce);
        assert_eq!(net.received(r), [""; 0]);
    });
}

// [MQTT-3.3.1-12] [MQTT-3.3.1-13]
#[test]
fn retain_as_published() {
    check(|net| {
        let w = net.connect(Connect::v5("w"));
        let plain = net.connect(Connect::v5("plain"));
        let bridge = net.connect(Connect::v5("bridge"));
        let old = net.connect(Connect::v311("old"));
        net.subscribe(plain, "t", ExactlyOnce);
        net.subscribe(old, "t", ExactlyOnce);
        net.subscribe_with(bridge, &Subscribe::new("t", ExactlyOnce).retain_as_published());
        for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
            for retain in [false, true] {
                let publish = Publish::new("t", "x").qos(qos);
                net.publish(w, if retain { publish.retain() } else { publish });
                for (reader, expected) in [(plain, false), (old, false), (bridge, retain)] {
                    assert_eq!(net.one_message(reader).publish.retain, expected);
                }
            }
        }
    });
}

#[test]
fn retained_messages_come_with_properties_and_identifier() {
    check(|net| {
        let w = net.connect(Connect::v5("w"));
        let sent = Publish::new("t", "x").with_all_properties().retain();
        for qos in [AtMostOnce, AtLeastOnce] {
            net.publish(w, sent.clone().qos(qos));
            net.settle();
            let r = net.connect(Connect::v5("r"));
            net.subscribe_with(r, &Subscribe::new("t", AtLeastOnce).identifier(9));
            let message = net.one_message(r);
            assert_eq!(message.identifiers, [9]);
            assert_eq!(message.publish, Publish { id: message.publish.id, ..sent.clone().qos(qos) });
        }
    });
}

// [MQTT-3.3.1-9] [MQTT-3.3.4-9]
#[test]
fn more_retained_messages_than_one_fill_takes() {
    let large = vec![b'x'; 3000];
    check_heavy(
        |_| {},
        |net| {
            let w = net.connect(Connect::v5("w"));
            for index in 0..3000 {
                let publish = Publish::new(&format!("t/{index:04}"), &large).retain();
                net.publish(w, publish.qos(if index % 2 == 0 { AtMostOnce } else { AtLeastOnce }));
                if index % 50 == 0 {
                    net.settle();
                }
            }
            net.settle();
            assert_eq!(net.view().retained_count(), 3000);
            for connect in [Connect::v5("r").receive_maximum(7), Connect::v311("old")] {
                let r = net.connect(connect);
                net.pause(r);
                net.send_subscribe(r, &Subscribe::new("t/#", AtLeastOnce));
                net.settle();
                let waiting: usize = net.view().connections().map(|conn| conn.output_bytes).sum();
                assert!(waiting < 1 << 20, "a cursor, not a queue: {waiting}");
                net.unpause(r);
                let mut topics: Vec<_> = net.messages(r).into_iter().map(|message| message.publish.topic).collect();
                topics.sort_unstable();
                assert_eq!(topics, (0..3000).map(|index| format!("t/{index:04}")).collect::<Vec<_>>());
            }
            assert_eq!(net.ledger().retained_sent, 6000);
        },
    );
}

#[test]
fn a_filter_that_matches_few_of_very_many_retained_messages() {
    check_heavy(
        |_| {},
        |net| {
            let w = net.connect(Connect::v5("w"));
            for index in 0..9000 {
                let leaf = if index % 3000 == 2999 { "yes" } else { "no" };
                net.publish(w, Publish::new(&format!("t/{index}/{leaf}"), "x").retain());
            }
            net.settle();
            let r = net.connect(Connect::v5("r"));
            net.subscribe(r, "+/+/yes", AtLeastOnce);
            assert_eq!(net.messages(r).len(), 3);
            net.subscribe(r, "+/+/none", AtLeastOnce);
            assert_eq!(net.messages(r).len(), 0);
            net.ping(r);
            assert_eq!(net.take(r), [crate::harness::Got::Pingresp]);
        },
    );
}

#[test]
fn what_changes_while_retained_messages_are_sent_comes_once() {
    check_heavy(
        |_| {},
        |net| {
            let w = net.connect(Connect::v5("w"));
            for index in 0..500 {
                net.publish(w, Publish::new(&format!("t/{index:03}"), vec![b'o'; 2000]).retain());
            }
            net.settle();
            let r = net.connect(Connect::v5("r"));
            net.pause(r);
            net.send_subscribe(r, &Subscribe::new("t/#", AtMostOnce));
            net.settle();
            for index in 0..500 {
                net.publish(w, Publish::new(&format!("t/{index:03}"), "new").retain());
            }
            net.settle();
            net.unpause(r);
            let messages = net.messages(r);
            let new = messages.iter().filter(|message| message.publish.payload == b"new").count();
            assert_eq!(new, 500, "live, each once");
            assert!(messages.len() < 1000, "what was replaced before its turn is not sent");
        },
    );
}

#[test]
fn no_more_retained_messages_after_unsubscribe() {
    check_heavy(
        |_| {},
        |net| {
            let w = net.connect(Connect::v5("w"));
            for index in 0..1000 {
                net.publish(w, Publish::new(&format!("t/{index}"), vec![0; 2000]).retain());
            }
            net.settle();
            let r = net.connect(Connect::v5("r"));
            net.pause(r);
            net.send_subscribe(r, &Subscribe::new("t/#", AtMostOnce));
            net.send_unsubscribe(r, &["t/#"]);
            net.settle();
            net.unpause(r);
            assert!(net.messages(r).len() < 1000);
        },
    );
}

#[test]
fn limits_of_what_is_retained() {
    check_with(
        |config| {
            config.retained.max_retained_messages = 2;
            config.retained.max_payload_size = 5;
            config.retained.expiry_interval = Duration::from_secs(60);
        },
        |net| {
            let w = net.connect(Connect::v5("w"));
            for (topic, payload) in [("1", "12345"), ("2", "x"), ("3", "x"), ("2", "y"), ("1", "123456")] {
                net.publish(w, Publish::new(topic, payload).retain());
                net.settle();
            }
            let r = net.connect(Connect::v5("r"));
            net.subscribe(r, "#", AtMostOnce);
            assert_eq!(net.received(r), ["2 y"]);
            net.advance_secs(61);
            net.subscribe(r, "#", AtMostOnce);
            assert_eq!(net.received(r), [""; 0]);
        },
    );
}
