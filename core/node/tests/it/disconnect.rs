//! DISCONNECT and the end of connections (sections 3.14 and 4.13).

use core::time::Duration;

use newtmq_mqtt::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use newtmq_mqtt::ReasonCode::{self, MalformedPacket, ProtocolError, TopicNameInvalid};
use newtmq_mqtt::{Packet, ProtocolVersion};

use crate::harness::{Connect, Got, Publish, Will, check, check_heavy};

// [MQTT-4.13.1-1] [MQTT-4.13.2-1] [MQTT-2.1.3-1] [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-3.14.1-1]
// [MQTT-3.15.1-1] [MQTT-3.3.1-4] [MQTT-3.3.1-2] [MQTT-3.3.2-2] [MQTT-3.3.2-14] [MQTT-3.3.4-6] [MQTT-3.8.3-2]
// [MQTT-3.8.3-5] [MQTT-3.10.3-2] [MQTT-4.7.0-1] [MQTT-4.7.3-1] [MQTT-4.7.3-2] [MQTT-1.5.4-1] [MQTT-1.5.4-2]
// [MQTT-1.5.5-1] [MQTT-1.5.7-1] [MQTT-3.14.2-1] [MQTT-3.14.4-1] [MQTT-3.14.4-2] [MQTT-4.12.0-7]
#[test]
fn what_cannot_be_understood_gets_its_reason_and_the_end() {
    let rows: &[(&str, &[u8], &[ReasonCode])] = &[
        ("type 0", &[0x00, 0], &[MalformedPacket]),
        ("PUBREL flags", &[0x60, 2, 0, 1], &[MalformedPacket]),
        ("SUBSCRIBE flags", &[0x80, 7, 0, 1, 0, 0, 1, b'a', 0], &[MalformedPacket]),
        ("UNSUBSCRIBE flags", &[0xA0, 6, 0, 1, 0, 0, 1, b'a'], &[MalformedPacket]),
        ("DISCONNECT flags", &[0xE1, 0], &[MalformedPacket]),
        ("AUTH flags", &[0xF1, 0], &[MalformedPacket]),
        ("PINGREQ flags", &[0xC4, 0], &[MalformedPacket]),
        ("PINGREQ with a body", &[0xC0, 1, 0], &[MalformedPacket]),
        ("QoS 3", &[0x36, 6, 0, 1, b'a', 0, 1, 0], &[MalformedPacket]),
        ("DUP with QoS 0", &[0x38, 4, 0, 1, b'a', 0], &[MalformedPacket]),
        ("wildcard in a topic", &[0x30, 4, 0, 1, b'#', 0], &[TopicNameInvalid, MalformedPacket]),
        ("wildcard in a topic, QoS 1", &[0x32, 6, 0, 1, b'+', 0, 1, 0], &[TopicNameInvalid, MalformedPacket]),
        ("no topic", &[0x30, 3, 0, 0, 0], &[ProtocolError]),
        ("null in a topic", &[0x30, 4, 0, 1, 0, 0], &[MalformedPacket]),
        ("topic not UTF-8", &[0x30, 4, 0, 1, 0xFF, 0], &[MalformedPacket]),
        ("surrogate in a topic", &[0x30, 6, 0, 3, 0xED, 0xA0, 0x80, 0], &[MalformedPacket]),
        ("wildcard in a response topic", &[0x30, 8, 0, 1, b'a', 4, 0x08, 0, 1, b'#'], &[ProtocolError]),
        ("Subscription Identifier", &[0x30, 6, 0, 1, b'a', 2, 0x0B, 1], &[ProtocolError]),
        ("Packet Identifier 0", &[0x32, 6, 0, 1, b'a', 0, 0, 0], &[ProtocolError, MalformedPacket]),
        ("user property not UTF-8", &[0x30, 11, 0, 1, b'a', 7, 0x26, 0, 1, 0xFF, 0, 1, b'v'], &[MalformedPacket]),
        ("property twice", &[0x30, 8, 0, 1, b'a', 4, 0x01, 0, 0x01, 0], &[ProtocolError]),
        ("unknown property", &[0x30, 6, 0, 1, b'a', 2, 0x7E, 0], &[MalformedPacket]),
        ("too long a length", &[0x30, 0x80, 0x80, 0x80, 0x80, 1], &[MalformedPacket]),
        ("length with needless bytes", &[0xC0, 0x80, 0x00], &[MalformedPacket]),
        ("topic beyond the packet", &[0x30, 4, 0, 9, b'a', 0], &[MalformedPacket]),
        ("SUBSCRIBE to nothing", &[0x82, 3, 0, 1, 0], &[ProtocolError]),
        ("UNSUBSCRIBE from nothing", &[0xA2, 3, 0, 1, 0], &[ProtocolError]),
        ("reserved option bits", &[0x82, 7, 0, 1, 0, 0, 1, b'a', 0xC0], &[MalformedPacket]),
        ("Retain Handling 3", &[0x82, 7, 0, 1, 0, 0, 1, b'a', 0x30], &[ProtocolError]),
        ("Maximum QoS 3", &[0x82, 7, 0, 1, 0, 0, 1, b'a', 3], &[ProtocolError, MalformedPacket]),
        ("Subscription Identifier 0", &[0x82, 9, 0, 1, 2, 0x0B, 0, 0, 1, b'a', 0], &[ProtocolError]),
        ("filter not UTF-8", &[0x82, 7, 0, 1, 0, 0, 1, 0xFF, 0], &[MalformedPacket]),
        ("CONNACK from a client", &[0x20, 3, 0, 0, 0], &[ProtocolError]),
        ("SUBACK from a client", &[0x90, 4, 0, 1, 0, 0], &[ProtocolError]),
        ("PINGRESP from a client", &[0xD0, 0], &[ProtocolError]),
        ("AUTH without a method", &[0xF0, 0], &[ProtocolError]),
        ("AUTH with an unknown method", &[0xF0, 6, 0x19, 4, 0x15, 0, 1, b'm'], &[ProtocolError]),
        ("reason of a server", &[0xE0, 1, 0x8B], &[ProtocolError]),
        ("unknown reason", &[0xE0, 1, 0x55], &[MalformedPacket]),
        ("unknown reason in PUBACK", &[0x40, 3, 0, 1, 0x55], &[MalformedPacket]),
    ];
    check(|net| {
        let r = net.connect(Connect::v5("r"));
        net.subscribe(r, "#", AtMostOnce);
        for (name, bytes, expected) in rows {
            let a = net.connect(Connect::v5("a"));
            net.send(a, bytes);
            // Nothing after it counts.
            let after = Publish::new("a", "after").encode(None, ProtocolVersion::V5);
            net.send(a, &after);
            let got = net.take(a);
            let [Got::Disconnect(reason), Got::Closed] = got[..] else { panic!("{name}: {got:?}") };
            assert!(expected.contains(&reason), "{name}: {reason:?}");
        }
        for (name, bytes, _) in rows.iter().take(10) {
            let old = net.connect(Connect::v311("old"));
            net.send(old, bytes);
            assert_eq!(net.take(old), [Got::Closed], "{name}");
        }
        assert_eq!(net.received(r), [""; 0]);
    });
}

#[test]
fn acknowledgements_of_the_wrong_kind() {
    check(|net| {
        for (qos, bytes) in [(AtLeastOnce, 0x50), (ExactlyOnce, 0x40), (ExactlyOnce, 0x70), (AtLeastOnce, 0x70)] {
            let a = net.connect(Connect::v5("a").manual());
            net.subscribe(a, "t", qos);
            net.publish(a, Publish::new("t", "").qos(qos).id(9));
            let id = net.messages(a)[0].publish.id.unwrap();
            net.send(a, &[bytes, 2, (id >> 8) as u8, id as u8]);
            assert_eq!(net.kicked(a), ProtocolError, "{bytes:x} of {qos:?}");
        }
    });
}

// [MQTT-3.14.4-3] [MQTT-3.1.2-10]
#[test]
fn a_client_leaves() {
    check(|net| {
        for connect in [Connect::v31("a"), Connect::v311("a"), Connect::v5("a")] {
            let a = net.connect(connect.will(Will::new(Publish::new("w", ""))));
            // The server closes, even if the client does not.
            net.send_packet(a, &Packet::Disconnect(newtmq_mqtt::Disconnect::new(ReasonCode::Success)));
            assert_eq!(net.take(a), [Got::Closed]);
        }
        assert_eq!(net.ledger().accepted, 0, "no will");
    });
}

// [MQTT-3.14.2-2] [MQTT-3.14.0-1]: the codec refuses a Session Expiry Interval from the server.
#[test]
fn the_server_stops() {
    check(|net| {
        let a = net.connect(Connect::v5("a").expiry(100));
        net.subscribe(a, "w", AtMostOnce);
        let will = Will::new(Publish::new("w", "last words")).delay(1000);
        let b = net.connect(Connect::v5("b").expiry(2000).will(will));
        let old = net.connect(Connect::v311("old"));
        let early = net.open();
        net.settle();
        net.shutdown();
        assert_eq!(net.received(a), ["w last words"]);
        assert_eq!(net.kicked(a), ReasonCode::ServerShuttingDown);
        assert_eq!(net.kicked(b), ReasonCode::ServerShuttingDown);
        assert_eq!((net.take(old), net.take(early)), (vec![Got::Closed], vec![Got::Closed]));
        assert_eq!(net.view().connection_count(), 0);
    });
}

// [MQTT-3.14.4-1]: the clients of the harness refuse a packet after DISCONNECT.
#[test]
fn nothing_follows_a_disconnect_even_if_it_was_withheld() {
    check_heavy(
        |_| {},
        |net| {
            let r = net.connect(Connect::v5("r"));
            net.subscribe(r, "t", AtMostOnce);
            net.pause(r);
            let w = net.connect(Connect::v5("w"));
            for _ in 0..30 {
                net.publish(w, Publish::new("t", vec![0; 50_000]).qos1());
            }
            net.settle();
            let withheld = 30 - net.take(w).len();
            assert!(withheld > 0);
            net.send(w, &[0x00]);
            assert_eq!(net.kicked(w), MalformedPacket);
            net.unpause(r);
            net.settle();
        },
    );
}

#[test]
fn nothing_follows_a_disconnect_even_if_its_fan_out_goes_on() {
    check_heavy(
        |_| {},
        |net| {
            for index in 0..5000 {
                let a = net.start(Connect::v5(&format!("r{index}")));
                net.send_subscribe(a, &crate::harness::Subscribe::new("t", AtMostOnce));
            }
            net.settle();
            net.work_delay = Some(Duration::from_millis(10));
            for qos in [AtLeastOnce, ExactlyOnce] {
                let w = net.connect(Connect::v5("w"));
                // Its end has to wait, so that it is still there when the fan-out is done.
                net.block(w, true);
                net.publish(w, Publish::new("t", "x").qos(qos));
                net.advance(Duration::from_millis(2));
                let thief = net.start(Connect::v5("w"));
                net.settle();
                net.block(w, false);
                assert_eq!(net.kicked(w), ReasonCode::SessionTakenOver);
                assert!(!net.closed(thief));
            }
        },
    );
}
