//! Limits that the configuration sets, and what happens at them.

use core::time::Duration;

use newtmq_mqtt::QoS::{AtLeastOnce, AtMostOnce};
use newtmq_mqtt::ReasonCode;
use newtmq_node::{DropReason, ListenerConfig};

use crate::harness::{Connect, Got, Publish, Will, check_with};

#[test]
fn connections_above_the_limit_are_closed_at_once() {
    check_with(
        |config| config.listeners = vec![ListenerConfig { max_connections: 2, ..ListenerConfig::default() }],
        |net| {
            let a = net.connect(Connect::v5("a"));
            net.connect(Connect::v5("b"));
            let c = net.start(Connect::v5("c"));
            assert_eq!(net.take(c), [Got::Closed]);
            net.disconnect(a);
            net.connect(Connect::v5("c"));
        },
    );
}

#[test]
fn topics_have_no_more_levels_than_allowed() {
    check_with(
        |config| config.mqtt.max_topic_levels = 3,
        |net| {
            let a = net.connect(Connect::v5("a"));
            net.publish(a, Publish::new("1/2/3", "").qos1());
            assert_eq!(net.take(a).len(), 1);
            net.publish(a, Publish::new("1/2/3/4", "").qos1());
            assert_eq!(net.kicked(a), ReasonCode::TopicNameInvalid);
        },
    );
}

#[test]
fn client_identifiers_are_no_longer_than_allowed() {
    check_with(
        |config| config.mqtt.max_clientid_len = 8,
        |net| {
            net.connect(Connect::v5("12345678"));
            assert_eq!(net.refused(Connect::v5("123456789")), ReasonCode::ClientIdentifierNotValid);
            assert_eq!(net.refused(Connect::v311("123456789")), ReasonCode::ClientIdentifierNotValid);
        },
    );
}

#[test]
fn zones_belong_to_listeners() {
    check_with(
        |config| {
            config.zones.push(config.zones[0].clone());
            config.zones[1].server_keepalive = Some(77);
            config.listeners[0].zone = 1;
        },
        |net| {
            let (_, connack) = net.connect_with(Connect::v5("a"));
            assert_eq!(connack.keep_alive, Some(77));
        },
    );
}

#[test]
fn the_window_is_within_max_inflight() {
    check_with(
        |config| config.zones[0].session.max_inflight = 4,
        |net| {
            let a = net.connect(Connect::v5("a").manual());
            net.subscribe(a, "t", AtLeastOnce);
            for _ in 0..10 {
                net.publish(a, Publish::new("t", "").qos1());
            }
            assert_eq!(net.messages(a).len(), 4);
            assert_eq!(net.view().queued(), 10);
        },
    );
}

/// The same as `matched = delivered + queued + dropped`, with a bit of everything.
#[test]
fn the_ledger_balances() {
    check_with(
        |config| {
            config.zones[0].session.max_mqueue_len = 3;
            config.zones[0].session.max_inflight = 2;
        },
        |net| {
            let w = net.connect(Connect::v5("w"));
            let away = net.connect(Connect::v5("away").expiry(60));
            let slow = net.connect(Connect::v5("slow").manual().max_packet_size(40));
            net.subscribe(away, "t/#", AtLeastOnce);
            net.subscribe(slow, "t/#", AtLeastOnce);
            net.subscribe(slow, "$share/g/t/#", AtMostOnce);
            net.cut(away);
            let x = net.connect(Connect::v5("x").will(Will::new(Publish::new("t/will", "").expiry(1))));
            net.cut(x);
            for index in 0..20 {
                let publish = Publish::new("t/1", vec![b'x'; index * 2]).expiry(1 + index as u32);
                net.publish(w, if index % 2 == 0 { publish.qos1() } else { publish });
                net.advance(Duration::from_millis(300));
            }
            net.publish(w, Publish::new("nobody", ""));
            net.advance_secs(100);
            net.disconnect(slow);
            let ledger = net.ledger();
            assert_eq!((ledger.accepted, ledger.unmatched), (22, 1));
            assert_eq!((ledger.matched, net.view().queued()), (63, 0));
            assert_eq!(ledger.delivered + ledger.dropped_total(), 63);
            for reason in [DropReason::QueueFull, DropReason::PacketTooLarge, DropReason::SessionEnded] {
                assert!(ledger.dropped(reason) > 0, "{reason:?}");
            }
        },
    );
}

#[test]
fn a_queue_is_limited_in_bytes() {
    check_with(
        |config| config.zones[0].session.max_mqueue_bytes = 10_000,
        |net| {
            let a = net.connect(Connect::v5("a").resume());
            net.subscribe(a, "t", AtLeastOnce);
            net.cut(a);
            let w = net.connect(Connect::v5("w"));
            for index in 0..5_u8 {
                net.publish(w, Publish::new("t", vec![b'0' + index; 3_000]).qos1());
            }
            net.settle();
            assert_eq!((net.view().queued(), net.dropped(DropReason::QueueFull)), (3, 2));
            // One that is larger than the limit waits alone.
            net.publish(w, Publish::new("t", vec![b'x'; 20_000]).qos1());
            net.settle();
            assert_eq!((net.view().queued(), net.dropped(DropReason::QueueFull)), (1, 5));
            net.publish(w, Publish::new("t", "small").qos1());
            net.settle();
            let a = net.connect(Connect::v5("a").resume());
            assert_eq!(net.received(a), ["t small"]);
        },
    );
}

// Section 3.2.2.3.2
#[test]
fn a_session_does_not_outlive_max_session_expiry_interval() {
    check_with(
        |config| config.zones[0].max_session_expiry_interval = 100,
        |net| {
            let (a, connack) = net.connect_with(Connect::v5("a").expiry(u32::MAX));
            assert_eq!(connack.expiry, Some(100));
            net.cut(a);
            net.advance_secs(99);
            assert_eq!(net.view().session_count(), 1);
            net.advance_secs(1);
            assert_eq!(net.view().session_count(), 0);
            let (a, connack) = net.connect_with(Connect::v5("a").expiry(10));
            assert_eq!(connack.expiry, None, "what the client asked for");
            net.disconnect_with(a, ReasonCode::NORMAL_DISCONNECTION, Some(1_000));
            net.advance_secs(101);
            assert_eq!(net.view().session_count(), 0);
        },
    );
}
