//! SUBSCRIBE and UNSUBSCRIBE (sections 3.8 to 3.11), matching (4.7).

use newtmq_mqtt::PacketType::{Puback, Pubcomp, Pubrec, Pubrel};
use newtmq_mqtt::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use newtmq_mqtt::ReasonCode::{self, GrantedQoS1, GrantedQoS2, Success};

use crate::harness::{Connect, Got, Publish, Subscribe, check, check_with};

// [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-3.8.4-7] [MQTT-3.9.3-1] [MQTT-3.9.3-2]
// [MQTT-2.2.1-6]
#[test]
fn a_suback_has_a_reason_for_each_filter_in_order() {
    check_with(
        |config| config.mqtt.max_topic_levels = 3,
        |net| {
            let subscribe = Subscribe::new("a", ExactlyOnce)
                .and("b/2/3/4", AtMostOnce)
                .and("c", AtMostOnce)
                .and("d", AtLeastOnce)
                .and("$share/g/1/2/3", AtLeastOnce);
            let a = net.connect(Connect::v5("a"));
            let granted = net.subscribe_with(a, &subscribe);
            assert_eq!(granted, [GrantedQoS2, ReasonCode::TopicFilterInvalid, Success, GrantedQoS1, GrantedQoS1]);
            let old = net.connect(Connect::v311("old"));
            let granted = net.subscribe_with(old, &subscribe);
            assert_eq!(granted, [GrantedQoS2, ReasonCode::UnspecifiedError, Success, GrantedQoS1, GrantedQoS1]);
        },
    );
}

// [MQTT-3.10.4-1] [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6] [MQTT-3.11.3-1] [MQTT-3.11.3-2] [MQTT-2.2.1-6]
#[test]
fn an_unsuback_has_a_reason_for_each_filter_in_order() {
    check(|net| {
        let a = net.connect(Connect::v5("a"));
        net.subscribe_with(a, &Subscribe::new("t/+", AtMostOnce).and("t/#", AtMostOnce).and("t/1", AtMostOnce));
        let reasons = net.unsubscribe(a, &["t/+", "T/#", "t/1", "t/2", "t/1"]);
        let none = ReasonCode::NoSubscriptionExisted;
        assert_eq!(reasons, [Success, none, Success, none, none]);
        assert_eq!(net.view().subscription_count(), 1);
        net.publish(a, Publish::new("t/1", "x"));
        assert_eq!(net.received(a), ["t/1 x"], "t/# is left");
        assert_eq!(net.unsubscribe(a, &["t/#"]), [Success]);
        net.publish(a, Publish::new("t/1", "x"));
        assert_eq!(net.received(a), [""; 0]);
        let old = net.connect(Connect::v311("old"));
        assert_eq!(net.unsubscribe(old, &["nothing"]), []);
    });
}

// [MQTT-3.10.4-2] [MQTT-3.10.4-3]
#[test]
fn deliveries_that_have_begun_are_completed_after_unsubscribe() {
    check(|net| {
        let w = net.connect(Connect::v5("w"));
        let a = net.connect(Connect::v5("a").manual());
        net.subscribe(a, "t", ExactlyOnce);
        net.publish(w, Publish::new("t", "1").qos1());
        net.publish(w, Publish::new("t", "2").qos2());
        let ids: Vec<u16> = net.messages(a).iter().map(|message| message.publish.id.unwrap()).collect();
        net.unsubscribe(a, &["t"]);
        net.publish(w, Publish::new("t", "3").qos2());
        assert_eq!(net.received(a), [""; 0]);
        net.ack(a, Puback, ids[0]);
        net.ack(a, Pubrec, ids[1]);
        assert_eq!(net.take(a), [Got::Ack(Pubrel, ids[1], Success)]);
        net.ack(a, Pubcomp, ids[1]);
        net.settle();
        assert_eq!(net.ledger().delivered, 2);
    });
}

// [MQTT-3.8.4-3] [MQTT-3.8.4-4]
#[test]
fn a_subscription_is_replaced_without_losing_messages() {
    check(|net| {
        let w = net.connect(Connect::v5("w"));
        let a = net.connect(Connect::v5("a"));
        net.subscribe_with(a, &Subscribe::new("t", ExactlyOnce).identifier(1));
        for index in 0..30 {
            net.publish(w, Publish::new("t", index.to_string()).qos1());
            if index % 10 == 5 {
                // While messages are on their way.
                net.send_subscribe(a, &Subscribe::new("t", AtLeastOnce).identifier(2));
            }
        }
        let messages = net.messages(a);
        let payloads: Vec<_> = messages.iter().map(|message| message.text()).collect();
        assert_eq!(payloads, (0..30).map(|index| format!("t {index}")).collect::<Vec<_>>());
        net.subscribe_with(a, &Subscribe::new("t", AtMostOnce));
        net.publish(w, Publish::new("t", "x").qos2());
        let message = net.one_message(a);
        assert_eq!((message.publish.qos, message.identifiers), (AtMostOnce, vec![]));
        assert_eq!(net.view().subscription_count(), 1);
    });
}

// [MQTT-3.8.3-3]
#[test]
fn no_local_keeps_own_messages_away() {
    check(|net| {
        let a = net.connect(Connect::v5("a").expiry(100));
        let b = net.connect(Connect::v5("b"));
        net.subscribe_with(a, &Subscribe::new("t", AtLeastOnce).no_local());
        net.subscribe_with(a, &Subscribe::new("all/#", AtLeastOnce));
        for qos in [AtMostOnce, AtLeastOnce] {
            net.publish(a, Publish::new("t", "own").qos(qos));
            net.publish(a, Publish::new("all/1", "own").qos(qos));
            net.settle();
            net.publish(b, Publish::new("t", "other").qos(qos));
            assert_eq!(net.received(a), ["all/1 own", "t other"]);
        }
        net.hang_up(a);
        let a = net.connect(Connect::v5("a").resume());
        net.publish(a, Publish::new("t", "own").qos1());
        assert_eq!(net.received(a), [""; 0], "the Client Identifier counts");
    });
}

#[test]
fn own_messages_can_be_kept_away_from_everybody() {
    check_with(
        |config| config.mqtt.ignore_loop_deliver = true,
        |net| {
            let a = net.connect(Connect::v311("a"));
            let b = net.connect(Connect::v311("b"));
            net.subscribe(a, "t", AtMostOnce);
            net.publish(a, Publish::new("t", "own"));
            net.settle();
            net.publish(b, Publish::new("t", "other"));
            assert_eq!(net.received(a), ["t other"]);
        },
    );
}

// [MQTT-4.7.2-1] [MQTT-4.7.3-4] [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-3.3.2-3] [MQTT-1.5.4-3]
#[test]
fn filters_match_as_they_should() {
    let rows: &[(&str, &[&str], &[&str])] = &[
        ("a/b", &["a/b"], &["a/B", "a/b/", "/a/b", "a"]),
        ("a/#", &["a", "a/", "a/b", "a/b/c"], &["b", "ab"]),
        ("#", &["a", "/", "a/b"], &["$a", "$a/b"]),
        ("+", &["a", "b"], &["/a", "a/b", "$a"]),
        ("+/+", &["a/b", "/b", "/"], &["a", "a/b/c", "$a/b"]),
        ("a/+/c", &["a/b/c", "a//c"], &["a/c", "a/b/b/c"]),
        ("$a/#", &["$a", "$a/b"], &["a"]),
        ("e\u{301}", &["e\u{301}"], &["\u{e9}"]),
        ("\u{feff}a", &["\u{feff}a"], &["a"]),
        (" a", &[" a"], &["a"]),
    ];
    check(|net| {
        let w = net.connect(Connect::v5("w"));
        for (filter, yes, no) in rows {
            let a = net.connect(Connect::v5("a"));
            net.subscribe(a, filter, AtMostOnce);
            for topic in yes.iter().chain(*no) {
                net.publish(w, Publish::new(topic, "x"));
            }
            let topics: Vec<String> = net.messages(a).into_iter().map(|message| message.publish.topic).collect();
            assert_eq!(topics, *yes, "{filter}");
        }
    });
}

#[test]
fn what_the_server_does_not_offer_is_refused() {
    use ReasonCode::{SharedSubscriptionsNotSupported, WildcardSubscriptionsNotSupported};
    check_with(
        |config| {
            config.mqtt.wildcard_subscription = false;
            config.mqtt.shared_subscription = false;
        },
        |net| {
            let a = net.connect(Connect::v5("a"));
            let subscribe = Subscribe::new("t/+", AtMostOnce).and("t", AtMostOnce).and("$share/g/t", AtMostOnce);
            let reasons = net.subscribe_with(a, &subscribe.and("#", AtMostOnce));
            let wildcard = WildcardSubscriptionsNotSupported;
            assert_eq!(reasons, [wildcard, Success, SharedSubscriptionsNotSupported, wildcard]);
            assert_eq!(net.view().subscription_count(), 1);
        },
    );
}

#[test]
fn a_session_has_no_more_subscriptions_than_allowed() {
    check_with(
        |config| config.zones[0].max_subscriptions = 2,
        |net| {
            let a = net.connect(Connect::v5("a"));
            let three = Subscribe::new("1", AtMostOnce).and("2", AtMostOnce).and("3", AtMostOnce);
            let reasons = net.subscribe_with(a, &three);
            assert_eq!(reasons, [Success, Success, ReasonCode::QuotaExceeded]);
            net.subscribe(a, "2", AtLeastOnce);
            net.unsubscribe(a, &["1"]);
            net.subscribe(a, "3", AtMostOnce);
        },
    );
}

#[test]
fn many_subscriptions_of_one_session() {
    check(|net| {
        let a = net.connect(Connect::v5("a").expiry(5));
        for group in 0..10 {
            let mut subscribe = Subscribe::default();
            for index in 0..20 {
                subscribe = subscribe.and(&format!("{group}/{index}"), AtLeastOnce);
            }
            assert_eq!(net.subscribe_with(a, &subscribe), [GrantedQoS1; 20]);
        }
        net.publish(a, Publish::new("7/13", "x"));
        assert_eq!(net.received(a), ["7/13 x"]);
        net.unsubscribe(a, &["7/13"]);
        assert_eq!(net.view().subscription_count(), 199);
        net.hang_up(a);
        net.advance_secs(6);
        assert_eq!(net.view().subscription_count(), 0);
    });
}
