//! Message Expiry Interval (section 3.3.2.3.3).

use core::time::Duration;

use newtmq_mqtt::PacketType::{Pubcomp, Pubrec, Pubrel};
use newtmq_mqtt::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use newtmq_mqtt::ReasonCode;
use newtmq_node::DropReason;

use crate::harness::{Connect, Got, Publish, Will, check, check_with};

// [MQTT-3.3.2-6]
#[test]
fn the_interval_is_counted_down() {
    check(|net| {
        let w = net.connect(Connect::v5("w"));
        let a = net.connect(Connect::v5("a").expiry(1000));
        net.subscribe(a, "t", AtLeastOnce);
        net.publish(w, Publish::new("t", "x").expiry(100));
        assert_eq!(net.one_message(a).publish.expiry, Some(100));
        net.cut(a);
        net.publish(w, Publish::new("t", "1").expiry(100).qos1());
        net.publish(w, Publish::new("t", "2").qos1());
        net.advance(Duration::from_millis(30_500));
        let a = net.connect(Connect::v5("a").resume());
        let expiries: Vec<_> = net.messages(a).into_iter().map(|message| message.publish.expiry).collect();
        assert_eq!(expiries, [Some(70), None]);
    });
}

// [MQTT-3.3.2-5]
#[test]
fn an_expired_message_is_not_delivered() {
    check(|net| {
        let w = net.connect(Connect::v5("w"));
        let a = net.connect(Connect::v5("a").expiry(1000));
        net.subscribe(a, "t", ExactlyOnce);
        net.cut(a);
        for (expiry, qos) in [(10, AtMostOnce), (10, AtLeastOnce), (10, ExactlyOnce), (30, AtLeastOnce)] {
            net.publish(w, Publish::new("t", expiry.to_string()).expiry(expiry).qos(qos));
        }
        net.advance_secs(20);
        let a = net.connect(Connect::v5("a").resume());
        assert_eq!(net.received(a), ["t 30"]);
        assert_eq!(net.dropped(DropReason::Expired), 3);
    });
}

// [MQTT-4.3.3-7] [MQTT-4.3.3-13]
#[test]
fn what_was_sent_does_not_expire() {
    check(|net| {
        let w = net.connect(Connect::v5("w"));
        let a = net.connect(Connect::v5("a").expiry(1000).manual());
        net.subscribe(a, "t", ExactlyOnce);
        net.publish(w, Publish::new("t", "1").expiry(10).qos2());
        let id = net.one_message(a).publish.id.unwrap();
        net.advance_secs(20);
        net.cut(a);
        let a = net.connect(Connect::v5("a").resume().manual());
        let again = net.one_message(a).publish;
        assert_eq!((again.id, again.dup), (Some(id), true));
        net.ack(a, Pubrec, id);
        assert_eq!(net.take(a), [Got::Ack(Pubrel, id, ReasonCode::Success)]);
        net.ack(a, Pubcomp, id);
        net.settle();
        assert_eq!((net.ledger().delivered, net.view().queued()), (1, 0));
    });
}

// [MQTT-4.3.3-13]
#[test]
fn a_receiver_goes_on_with_qos_2_after_expiry() {
    check(|net| {
        let w = net.connect(Connect::v5("w").manual());
        net.publish(w, Publish::new("t", "1").expiry(1).qos2().id(4));
        assert_eq!(net.take(w), [Got::Ack(Pubrec, 4, ReasonCode::NoMatchingSubscribers)]);
        net.advance_secs(5);
        net.ack(w, Pubrel, 4);
        assert_eq!(net.take(w), [Got::Ack(Pubcomp, 4, ReasonCode::Success)]);
    });
}

// [MQTT-3.3.2-5] [MQTT-3.3.2-6]
#[test]
fn retained_messages_expire() {
    check(|net| {
        let w = net.connect(Connect::v5("w"));
        net.publish(w, Publish::new("t", "x").expiry(10).retain());
        net.settle();
        net.advance_secs(4);
        let r = net.connect(Connect::v5("r"));
        net.subscribe(r, "t", AtMostOnce);
        assert_eq!(net.one_message(r).publish.expiry, Some(6));
        net.advance_secs(6);
        net.subscribe(r, "t", AtMostOnce);
        assert_eq!(net.received(r), [""; 0]);
    });
}

// [MQTT-3.3.2-5]
#[test]
fn an_expired_message_gives_its_place_in_the_window_to_the_next() {
    check(|net| {
        let w = net.connect(Connect::v5("w"));
        let a = net.connect(Connect::v5("a").receive_maximum(1).manual());
        net.subscribe(a, "t", AtLeastOnce);
        net.publish(w, Publish::new("t", "0").qos1());
        net.publish(w, Publish::new("t", "1").qos1().expiry(5));
        net.publish(w, Publish::new("t", "2").qos1());
        let id = net.one_message(a).publish.id.unwrap();
        net.advance_secs(6);
        net.ack(a, newtmq_mqtt::PacketType::Puback, id);
        assert_eq!(net.received(a), ["t 2"]);
    });
}

#[test]
fn an_interval_of_0_reaches_only_who_is_there() {
    check(|net| {
        let w = net.connect(Connect::v5("w"));
        let a = net.connect(Connect::v5("a"));
        let away = net.connect(Connect::v5("away").expiry(100));
        net.subscribe(a, "t", AtMostOnce);
        net.subscribe(away, "t", AtLeastOnce);
        net.cut(away);
        net.publish(w, Publish::new("t", "x").expiry(0));
        assert_eq!(net.received(a), ["t x"]);
        net.advance_secs(1);
        let away = net.connect(Connect::v5("away").resume());
        assert_eq!(net.received(away), [""; 0]);
    });
}

/// A client that asked for a session may say so again when it leaves, also where the zone keeps none.
#[test]
fn disconnect_with_an_interval_where_the_zone_keeps_no_sessions() {
    check_with(
        |config| config.zones[0].max_session_expiry_interval = 0,
        |net| {
            let watcher = net.connect(Connect::v5("watcher"));
            net.subscribe(watcher, "will", AtMostOnce);
            let a = net.connect(Connect::v5("a").expiry(100).will(Will::new(Publish::new("will", "x"))));
            net.disconnect_with(a, ReasonCode::NORMAL_DISCONNECTION, Some(50));
            assert_eq!(net.take(a), []);
            assert_eq!((net.received(watcher), net.view().session_count()), (vec![], 1));
        },
    );
}
