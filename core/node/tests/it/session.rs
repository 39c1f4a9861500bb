//! Session State over connections (sections 3.1.2.11.2, 4.1 and 4.4).

use newtmq_mqtt::PacketType::{Puback, Pubcomp, Pubrec, Pubrel};
use newtmq_mqtt::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use newtmq_mqtt::ReasonCode;
use newtmq_node::DropReason;

use crate::harness::{Connect, Got, Publish, check, check_with};

// [MQTT-3.1.2-23] [MQTT-4.1.0-2] [MQTT-3.1.2-5]
#[test]
fn a_session_lasts_as_long_as_its_expiry_interval() {
    check(|net| {
        for (expiry, away, present) in
            [(0, 0, false), (10, 9, true), (10, 10, false), (10, 11, false), (u32::MAX, 1_000_000, true)]
        {
            let client = net.connect(Connect::v5("a").expiry(expiry));
            net.hang_up(client);
            net.advance_secs(away);
            let (again, connack) = net.connect_with(Connect::v5("a").resume());
            assert_eq!(connack.present, present, "{expiry} s, away {away} s");
            net.disconnect_with(again, ReasonCode::Success, Some(0));
            assert_eq!(net.view().session_count(), 0);
        }
    });
}

// [MQTT-4.1.0-1]
#[test]
fn a_session_does_not_end_while_it_is_connected() {
    check(|net| {
        let a = net.connect(Connect::v5("a").expiry(5));
        net.subscribe(a, "t", AtMostOnce);
        net.advance_secs(100);
        net.publish(a, Publish::new("t", "1"));
        assert_eq!(net.received(a), ["t 1"]);
        // The countdown starts anew with each disconnection.
        let mut client = a;
        for _ in 0..3 {
            net.hang_up(client);
            net.advance_secs(4);
            let (again, connack) = net.connect_with(Connect::v5("a").resume().expiry(5));
            assert!(connack.present);
            client = again;
        }
    });
}

// [MQTT-3.1.2-23]
#[test]
fn before_mqtt_5_the_zone_says_how_long_a_session_lasts() {
    check_with(
        |config| config.zones[0].session_expiry_interval = 60,
        |net| {
            for (away, present) in [(59, true), (61, false)] {
                let client = net.connect(Connect::v311("a").clean_start(false));
                net.hang_up(client);
                net.advance_secs(away);
                let (client, connack) = net.connect_with(Connect::v311("a").clean_start(false));
                assert_eq!(connack.present, present);
                net.hang_up(client);
                net.advance_secs(100);
            }
        },
    );
}

#[test]
fn session_expiry_can_be_changed_by_disconnect() {
    check(|net| {
        let a = net.connect(Connect::v5("a").expiry(10));
        net.disconnect_with(a, ReasonCode::Success, Some(100));
        net.advance_secs(50);
        let (a, connack) = net.connect_with(Connect::v5("a").resume().expiry(10));
        assert!(connack.present);
        net.disconnect_with(a, ReasonCode::Success, Some(0));
        assert_eq!(net.view().session_count(), 0);
        // But an ended session cannot be kept after all (3.14.2.2.2).
        let a = net.connect(Connect::v5("a"));
        net.disconnect_with(a, ReasonCode::Success, Some(10));
        assert_eq!(net.view().session_count(), 0);
    });
}

// [MQTT-4.5.0-1] [MQTT-3.1.2-23]
#[test]
fn messages_wait_for_an_absent_client() {
    check(|net| {
        let a = net.connect(Connect::v5("a").expiry(100));
        net.subscribe(a, "t", ExactlyOnce);
        net.cut(a);
        let w = net.connect(Connect::v5("w"));
        for (index, qos) in [AtMostOnce, AtLeastOnce, ExactlyOnce].into_iter().enumerate() {
            net.publish(w, Publish::new("t", index.to_string()).qos(qos));
        }
        net.settle();
        let a = net.connect(Connect::v5("a").resume());
        assert_eq!(net.received(a), ["t 0", "t 1", "t 2"]);
    });
}

#[test]
fn qos_0_does_not_wait_if_the_zone_says_so() {
    check_with(
        |config| config.zones[0].mqueue_store_qos0 = false,
        |net| {
            let a = net.connect(Connect::v5("a").expiry(100));
            net.subscribe(a, "t", ExactlyOnce);
            net.cut(a);
            let w = net.connect(Connect::v5("w"));
            net.publish(w, Publish::new("t", "0"));
            net.publish(w, Publish::new("t", "1").qos1());
            net.settle();
            assert_eq!(net.dropped(DropReason::OfflineQos0), 1);
            let a = net.connect(Connect::v5("a").resume());
            assert_eq!(net.received(a), ["t 1"]);
        },
    );
}

#[test]
fn the_oldest_message_goes_when_the_queue_is_full() {
    check_with(
        |config| config.zones[0].session.max_mqueue_len = 3,
        |net| {
            let a = net.connect(Connect::v5("a").expiry(100));
            net.subscribe(a, "t", AtLeastOnce);
            net.cut(a);
            let w = net.connect(Connect::v5("w"));
            for index in 0..10 {
                net.publish(w, Publish::new("t", index.to_string()).qos1());
            }
            net.settle();
            assert_eq!((net.dropped(DropReason::QueueFull), net.view().queued()), (7, 3));
            let a = net.connect(Connect::v5("a").resume());
            assert_eq!(net.received(a), ["t 7", "t 8", "t 9"]);
        },
    );
}

#[test]
fn a_higher_priority_goes_first_and_stays_longest() {
    check_with(
        |config| {
            config.zones[0].session.max_mqueue_len = 4;
            config.zones[0].mqueue_priorities = vec![("t/high".into(), 10), ("t/low".into(), 1)];
            config.zones[0].mqueue_default_priority = 5;
        },
        |net| {
            let a = net.connect(Connect::v5("a").expiry(100));
            net.subscribe(a, "t/+", AtLeastOnce);
            net.cut(a);
            let w = net.connect(Connect::v5("w"));
            for (topic, index) in [("low", 0), ("other", 1), ("high", 2), ("low", 3), ("high", 4), ("other", 5)] {
                net.publish(w, Publish::new(&format!("t/{topic}"), index.to_string()).qos1());
            }
            net.settle();
            let a = net.connect(Connect::v5("a").resume());
            assert_eq!(net.received(a), ["t/high 2", "t/high 4", "t/other 1", "t/other 5"]);
        },
    );
}

// [MQTT-4.4.0-1] [MQTT-3.3.1-1] [MQTT-3.3.1-3] [MQTT-4.9.0-1] [MQTT-4.9.0-2] [MQTT-4.3.2-3]
#[test]
fn unacknowledged_messages_are_sent_again_within_a_smaller_window() {
    check(|net| {
        let w = net.connect(Connect::v5("w"));
        let a = net.connect(Connect::v5("a").expiry(100));
        net.subscribe(a, "t", AtLeastOnce);
        net.auto_ack(a, false);
        for index in 0..8 {
            net.publish(w, Publish::new("t", index.to_string()).qos1());
        }
        let first = net.messages(a);
        assert_eq!(first.len(), 8);
        assert!(first.iter().all(|message| !message.publish.dup));
        net.cut(a);
        let b = net.connect(Connect::v5("a").resume().receive_maximum(3).manual());
        let mut again = net.messages(b);
        assert_eq!(again.len(), 3);
        for at in 0..8 {
            net.ack(b, Puback, again[at].publish.id.unwrap());
            again.extend(net.messages(b));
            assert_eq!(again.len(), (at + 4).min(8), "one acknowledged, one sent");
        }
        assert!(again.iter().all(|message| message.publish.dup));
        let ids = |messages: &[crate::harness::Message]| -> Vec<_> {
            messages.iter().map(|message| (message.publish.id, message.text())).collect()
        };
        assert_eq!(ids(&again), ids(&first), "the same identifiers, the same order");
    });
}

// [MQTT-4.4.0-1] [MQTT-4.3.3-6] [MQTT-4.3.3-5]
#[test]
fn after_pubrec_only_pubrel_is_sent_again() {
    check(|net| {
        let w = net.connect(Connect::v5("w"));
        let a = net.connect(Connect::v5("a").expiry(100));
        net.subscribe(a, "t", ExactlyOnce);
        net.auto_ack(a, false);
        net.publish(w, Publish::new("t", "1").qos2());
        net.publish(w, Publish::new("t", "2").qos2());
        let messages = net.messages(a);
        let (one, two) = (messages[0].publish.id.unwrap(), messages[1].publish.id.unwrap());
        net.ack(a, Pubrec, one);
        assert_eq!(net.take(a), [Got::Ack(Pubrel, one, ReasonCode::Success)]);
        net.cut(a);
        let a = net.connect(Connect::v5("a").resume().manual());
        let log = net.take(a);
        assert_eq!(log[0], Got::Ack(Pubrel, one, ReasonCode::Success));
        let Got::Publish(message) = &log[1] else { panic!("{log:?}") };
        assert_eq!((message.publish.id, message.publish.dup), (Some(two), true));
        assert_eq!(log.len(), 2);
        net.ack(a, Pubcomp, one);
        net.ack(a, Pubrec, two);
        assert_eq!(net.take(a), [Got::Ack(Pubrel, two, ReasonCode::Success)]);
        net.ack(a, Pubcomp, two);
        net.settle();
        assert_eq!((net.view().queued(), net.ledger().delivered), (0, 2));
    });
}

// [MQTT-4.4.0-1]
#[test]
fn nothing_is_sent_again_on_the_same_connection() {
    check(|net| {
        let w = net.connect(Connect::v5("w"));
        let a = net.connect(Connect::v5("a"));
        net.subscribe(a, "t", ExactlyOnce);
        net.auto_ack(a, false);
        net.publish(w, Publish::new("t", "1").qos1());
        net.publish(w, Publish::new("t", "2").qos2());
        assert_eq!(net.messages(a).len(), 2);
        net.advance_secs(10_000);
        assert_eq!(net.take(a), []);
    });
}

// [MQTT-4.3.3-10] [MQTT-4.3.3-12] [MQTT-4.4.0-1]
#[test]
fn qos_2_identifiers_are_kept_over_a_resume() {
    check(|net| {
        let r = net.connect(Connect::v5("r"));
        net.subscribe(r, "t", ExactlyOnce);
        let a = net.connect(Connect::v5("a").expiry(100));
        net.auto_ack(a, false);
        net.publish(a, Publish::new("t", "1").qos2().id(7));
        assert_eq!(net.take(a), [Got::Ack(Pubrec, 7, ReasonCode::Success)]);
        net.cut(a);
        let a = net.connect(Connect::v5("a").resume().manual());
        net.publish(a, Publish::new("t", "1").qos2().id(7).dup());
        assert_eq!(net.take(a), [Got::Ack(Pubrec, 7, ReasonCode::Success)]);
        assert_eq!(net.received(r), ["t 1"], "once");
        net.cut(a);
        let a = net.connect(Connect::v5("a").resume());
        net.ack(a, Pubrel, 7);
        assert_eq!(net.take(a), [Got::Ack(Pubcomp, 7, ReasonCode::Success)]);
        net.publish(a, Publish::new("t", "2").qos2().id(7));
        assert_eq!(net.received(r), ["t 2"]);
        // With the session the identifiers go.
        net.auto_ack(a, false);
        net.settle();
        net.publish(a, Publish::new("t", "3").qos2().id(9));
        net.cut(a);
        let a = net.connect(Connect::v5("a"));
        net.publish(a, Publish::new("t", "4").qos2().id(9));
        let received = net.received(r);
        assert_eq!(received.last().unwrap(), "t 4");
    });
}

// [MQTT-4.4.0-2] [MQTT-4.8.2-6]
#[test]
fn an_acknowledgement_with_an_error_ends_the_delivery() {
    check(|net| {
        let w = net.connect(Connect::v5("w"));
        let a = net.connect(Connect::v5("a").expiry(100));
        net.subscribe(a, "t", ExactlyOnce);
        net.auto_ack(a, false);
        net.publish(w, Publish::new("t", "1").qos1());
        net.publish(w, Publish::new("t", "2").qos2());
        let ids: Vec<u16> = net.messages(a).iter().map(|message| message.publish.id.unwrap()).collect();
        net.ack_with(a, Puback, ids[0], ReasonCode::QuotaExceeded);
        net.ack_with(a, Pubrec, ids[1], ReasonCode::QuotaExceeded);
        assert_eq!(net.take(a), []);
        net.cut(a);
        let a = net.connect(Connect::v5("a").resume());
        assert_eq!(net.take(a), []);
        assert_eq!(net.view().queued(), 0);
    });
}

#[test]
fn a_session_that_ends_gives_everything_back() {
    check(|net| {
        let w = net.connect(Connect::v5("w"));
        let a = net.connect(Connect::v5("a").expiry(10).receive_maximum(2));
        net.subscribe(a, "t/#", AtLeastOnce);
        net.subscribe(a, "$share/g/t/#", AtLeastOnce);
        net.auto_ack(a, false);
        for _ in 0..5 {
            net.publish(w, Publish::new("t/1", "").qos1());
        }
        net.cut(a);
        assert_eq!((net.view().queued(), net.view().subscription_count()), (10, 2));
        net.advance_secs(11);
        assert_eq!((net.view().queued(), net.view().subscription_count()), (0, 0));
        assert_eq!(net.dropped(DropReason::SessionEnded), 10);
        net.publish(w, Publish::new("t/1", "").qos1());
        let last = net.take(w).pop();
        assert!(matches!(last, Some(Got::Ack(Puback, _, ReasonCode::NoMatchingSubscribers))), "{last:?}");
    });
}
