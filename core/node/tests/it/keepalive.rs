//! Keep Alive and the timeout of CONNECT (sections 3.1.2.10 and 3.1.4).

use core::time::Duration;

use newtmq_mqtt::QoS::AtMostOnce;
use newtmq_mqtt::ReasonCode;

use crate::harness::{Connect, Got, Publish, check, check_with};

// [MQTT-3.1.2-22] [MQTT-3.2.2-22]
#[test]
fn a_silent_client_is_closed_after_one_and_a_half_times_keep_alive() {
    check(|net| {
        for connect in [Connect::v31("a"), Connect::v311("a"), Connect::v5("a")] {
            let a = net.connect(connect.keep_alive(10));
            net.advance(Duration::from_millis(14_900));
            assert!(!net.closed(a));
            net.ping(a);
            net.settle();
            net.advance(Duration::from_millis(14_900));
            assert!(!net.closed(a));
            net.advance(Duration::from_millis(200));
            assert!(net.closed(a));
        }
        let a = net.connect(Connect::v5("a").keep_alive(1));
        net.advance_secs(2);
        assert_eq!(net.kicked(a), ReasonCode::KeepAliveTimeout);
    });
}

// [MQTT-3.1.2-22]
#[test]
fn any_packet_is_a_sign_of_life() {
    check(|net| {
        let a = net.connect(Connect::v5("a").keep_alive(10));
        for _ in 0..10 {
            net.publish(a, Publish::new("t", ""));
            net.advance_secs(14);
        }
        assert!(!net.closed(a));
        let never = net.connect(Connect::v5("never"));
        net.advance_secs(1_000_000);
        assert!(net.closed(a) && !net.closed(never));
    });
}

// [MQTT-3.1.2-22]
#[test]
fn what_a_client_gets_is_no_sign_of_life() {
    check(|net| {
        let w = net.connect(Connect::v5("w"));
        let a = net.connect(Connect::v5("a").keep_alive(10));
        net.subscribe(a, "t", AtMostOnce);
        for _ in 0..4 {
            net.publish(w, Publish::new("t", ""));
            net.advance_secs(4);
        }
        assert!(net.closed(a));
    });
}

// [MQTT-3.1.2-21]
#[test]
fn the_server_may_set_the_keep_alive() {
    check_with(
        |config| config.zones[0].server_keepalive = Some(20),
        |net| {
            for asked in [0, 5, 1000] {
                let (a, connack) = net.connect_with(Connect::v5("a").keep_alive(asked));
                assert_eq!(connack.keep_alive, Some(20));
                net.advance_secs(29);
                assert!(!net.closed(a));
                net.advance_secs(2);
                assert!(net.closed(a));
            }
        },
    );
}

#[test]
fn the_patience_can_be_configured() {
    check_with(
        |config| config.zones[0].keepalive_backoff_percent = 100,
        |net| {
            let a = net.connect(Connect::v5("a").keep_alive(10));
            net.advance_secs(19);
            assert!(!net.closed(a));
            net.advance_secs(2);
            assert!(net.closed(a));
        },
    );
}

// [MQTT-3.1.4-1]
#[test]
fn a_slow_loris_is_closed_after_idle_timeout() {
    check_with(
        |config| config.zones[0].idle_timeout = Duration::from_secs(5),
        |net| {
            let silent = net.open();
            let slow = net.open();
            let bytes = Connect::v5("a slow client").encode();
            for byte in &bytes[..bytes.len() - 1] {
                net.send(slow, &[*byte]);
                net.advance(Duration::from_millis(180));
            }
            assert!(!net.closed(slow));
            net.advance_secs(2);
            assert_eq!((net.take(silent), net.take(slow)), (vec![Got::Closed], vec![Got::Closed]));
            assert_eq!(net.view().connection_count(), 0);
            // In time is in time.
            let client = net.open_as(Connect::v5("a"));
            let bytes = Connect::v5("a").encode();
            net.send(client, &bytes[..5]);
            net.advance(Duration::from_millis(4900));
            net.send(client, &bytes[5..]);
            net.advance_secs(100);
            assert!(!net.closed(client));
        },
    );
}

#[test]
fn a_client_that_does_not_take_its_end_is_cut() {
    crate::harness::check_heavy(
        |_| {},
        |net| {
            let w = net.connect(Connect::v5("w"));
            let a = net.connect(Connect::v5("a").keep_alive(1));
            net.subscribe(a, "t", AtMostOnce);
            net.pause(a);
            net.publish(w, Publish::new("t", vec![0; 300_000]));
            net.advance_secs(2);
            assert_eq!(net.view().connection_count(), 2, "it has time to take what is left");
            net.advance_secs(6);
            assert_eq!(net.view().connection_count(), 1);
        },
    );
}
