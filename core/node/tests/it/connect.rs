//! CONNECT and CONNACK (sections 3.1 and 3.2).

use crate::harness::{Connect, Got, Net, Publish, Subscribe, Will, check, check_with};
use newtmq_mqtt::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use newtmq_mqtt::{ProtocolVersion, ReasonCode};

/// Sends bytes on a new connection; what came back.
fn answer_to(net: &mut Net, bytes: &[u8]) -> Vec<Got> {
    let client = net.open();
    net.send(client, bytes);
    net.take(client)
}

fn reasons(got: &[Got]) -> Vec<ReasonCode> {
    let reason = |got: &Got| match got {
        Got::Connack(connack) => Some(connack.reason),
        Got::Disconnect(reason) => Some(*reason),
        _ => None,
    };
    got.iter().filter_map(reason).collect()
}

// [MQTT-3.1.4-5] [MQTT-3.2.0-1] [MQTT-3.2.0-2] [MQTT-3.2.2-1] [MQTT-3.2.2-2] [MQTT-3.2.2-3] [MQTT-3.2.2-8]
#[test]
fn a_client_is_accepted() {
    check(|net| {
        for connect in [Connect::v31("a"), Connect::v311("b"), Connect::v5("c")] {
            let (client, connack) = net.connect_with(connect);
            assert!(!connack.present);
            assert_eq!(net.take(client), []);
        }
        assert_eq!(net.view().connection_count(), 3);
    });
}

// [MQTT-3.1.0-1] [MQTT-3.14.0-1]
#[test]
fn the_first_packet_must_be_connect() {
    check(|net| {
        let packets: [&[u8]; 6] = [
            &[0xC0, 0],
            &[0xE0, 0],
            &[0x30, 3, 0, 1, b'a'],
            &[0x82, 6, 0, 1, 0, 1, b'a', 0],
            &[0xF0, 2, 0x19, 0],
            &[0x40, 2, 0, 1],
        ];
        for packet in packets {
            assert_eq!(answer_to(net, packet), [Got::Closed], "{packet:?}");
        }
    });
}

// [MQTT-3.1.0-2]
#[test]
fn a_second_connect_is_a_protocol_error() {
    check(|net| {
        let client = net.connect(Connect::v5("a"));
        net.send(client, &Connect::v5("a").encode());
        assert_eq!(net.kicked(client), ReasonCode::ProtocolError);
        let client = net.connect(Connect::v311("b"));
        net.send(client, &Connect::v311("b").encode());
        assert_eq!(net.take(client), [Got::Closed]);
    });
}

/// A CONNECT with Client Identifier "a", written by hand.
fn raw_connect(name: &[u8], version: u8, flags: u8, rest: &[u8]) -> Vec<u8> {
    let mut body = vec![0, name.len() as u8];
    body.extend_from_slice(name);
    body.extend_from_slice(&[version, flags, 0, 0]);
    if version == 5 {
        body.push(0);
    }
    body.extend_from_slice(rest);
    let mut packet = vec![0x10, body.len() as u8];
    packet.extend(body);
    packet
}

// [MQTT-3.1.2-1] [MQTT-3.1.2-2] [MQTT-3.1.2-3] [MQTT-3.1.2-11] [MQTT-3.1.2-12] [MQTT-3.1.2-13] [MQTT-3.1.2-9]
// [MQTT-3.1.2-16] [MQTT-3.1.2-17] [MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT-3.1.3-3] [MQTT-3.1.3-4] [MQTT-3.1.3-11]
// [MQTT-3.1.3-12] [MQTT-3.1.4-1] [MQTT-3.2.2-7] [MQTT-4.13.2-1]
#[test]
fn a_connect_that_breaks_the_format_is_refused() {
    use ReasonCode::{MalformedPacket, UnsupportedProtocolVersion};
    let id = &[0, 1, b'a'][..];
    let rows: &[(&str, Vec<u8>, &[ReasonCode])] = &[
        ("unknown protocol name", raw_connect(b"MQTX", 5, 2, id), &[UnsupportedProtocolVersion]),
        ("version 6", raw_connect(b"MQTT", 6, 2, id), &[UnsupportedProtocolVersion]),
        ("version 3 of MQTT", raw_connect(b"MQTT", 3, 2, id), &[UnsupportedProtocolVersion]),
        ("reserved flag", raw_connect(b"MQTT", 5, 3, id), &[MalformedPacket]),
        ("reserved flag, 3.1.1", raw_connect(b"MQTT", 4, 3, id), &[]),
        ("Will QoS without will", raw_connect(b"MQTT", 5, 0x0A, id), &[MalformedPacket]),
        ("Will QoS 3", raw_connect(b"MQTT", 5, 0x1E, id), &[MalformedPacket]),
        ("Will Retain without will", raw_connect(b"MQTT", 5, 0x22, id), &[MalformedPacket]),
        ("will is missing", raw_connect(b"MQTT", 5, 0x06, id), &[MalformedPacket]),
        ("user name is missing", raw_connect(b"MQTT", 5, 0x82, id), &[MalformedPacket]),
        ("password is missing", raw_connect(b"MQTT", 5, 0x42, id), &[MalformedPacket]),
        ("user name unannounced", raw_connect(b"MQTT", 5, 2, &[0, 1, b'a', 0, 1, b'u']), &[MalformedPacket]),
        ("no identifier", raw_connect(b"MQTT", 5, 2, &[]), &[MalformedPacket]),
        ("identifier not UTF-8", raw_connect(b"MQTT", 5, 2, &[0, 1, 0xFF]), &[MalformedPacket]),
        ("user name not UTF-8", raw_connect(b"MQTT", 5, 0x82, &[0, 1, b'a', 0, 1, 0xFF]), &[MalformedPacket]),
        ("will topic not UTF-8", raw_connect(b"MQTT", 5, 6, &[0, 1, b'a', 0, 0, 1, 0xFF, 0, 0]), &[MalformedPacket]),
        ("reserved bits of the fixed header", vec![0x11, 0], &[]),
    ];
    check(|net| {
        for (name, bytes, expected) in rows {
            let got = answer_to(net, bytes);
            assert_eq!(reasons(&got), *expected, "{name}: {got:?}");
            assert_eq!(got.last(), Some(&Got::Closed), "{name}");
        }
        assert_eq!(net.view().session_count(), 0);
    });
}

// [MQTT-3.1.4-6]
#[test]
fn nothing_after_a_refused_connect_is_processed() {
    check_with(
        |config| config.mqtt.max_clientid_len = 5,
        |net| {
            let reader = net.connect(Connect::v5("r"));
            net.subscribe(reader, "t", AtMostOnce);
            let publish = Publish::new("t", "no").encode(None, ProtocolVersion::V5);
            let refused = Connect::v5("too long").and_then(publish);
            assert_eq!(net.refused(refused), ReasonCode::ClientIdentifierNotValid);
            assert_eq!(net.received(reader), [""; 0]);
        },
    );
}

// [MQTT-3.1.3-5]
#[test]
fn plain_client_identifiers_are_allowed() {
    check(|net| {
        for client in ["a", "0123456789abcdefghijklm", "nopqrstuvwxyzABCDEFGHIJ", "KLMNOPQRSTUVWXYZ"] {
            net.connect(Connect::v5(client));
        }
    });
}

// [MQTT-3.1.3-6] [MQTT-3.2.2-16]
#[test]
fn an_empty_identifier_is_replaced_by_a_new_one() {
    check(|net| {
        let mut names = Vec::new();
        for _ in 0..4 {
            let (_, connack) = net.connect_with(Connect::v5(""));
            names.push(connack.assigned.unwrap());
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 4);
        let (_, connack) = net.connect_with(Connect::v5("own"));
        assert_eq!(connack.assigned, None);
        net.connect(Connect::v311(""));
    });
}

// [MQTT-3.1.3-8]
#[test]
fn an_empty_identifier_needs_a_clean_session_before_mqtt_5() {
    check(|net| {
        let refused = net.refused(Connect::v311("").clean_start(false));
        assert_eq!(refused, ReasonCode::ClientIdentifierNotValid);
        assert_eq!(net.refused(Connect::v31("")), ReasonCode::ClientIdentifierNotValid);
    });
}

// [MQTT-3.1.2-6] [MQTT-3.1.2-4] [MQTT-3.1.2-5] [MQTT-3.1.3-2] [MQTT-3.1.4-4] [MQTT-3.2.2-2] [MQTT-3.2.2-3]
#[test]
fn clean_start_and_session_present() {
    check(|net| {
        for (version, clean, present) in
            [("v5", false, false), ("v5", false, true), ("v5", true, false), ("v5", false, true), ("v311", false, true)]
        {
            let connect = if version == "v5" { Connect::v5("a").expiry(100) } else { Connect::v311("a") };
            let (client, connack) = net.connect_with(connect.clean_start(clean));
            assert_eq!(connack.present, present, "{version} {clean}");
            net.hang_up(client);
        }
        // A clean session of 3.1.1 ends with its connection.
        let client = net.connect(Connect::v311("a"));
        net.disconnect(client);
        let (_, connack) = net.connect_with(Connect::v311("a").clean_start(false));
        assert!(!connack.present);
    });
}

// [MQTT-3.1.4-3] [MQTT-3.14.4-2]
#[test]
fn a_session_is_taken_over() {
    check(|net| {
        let first = net.connect(Connect::v5("a").expiry(100));
        net.subscribe(first, "t", AtLeastOnce);
        let (second, connack) = net.connect_with(Connect::v5("a").resume());
        assert!(connack.present);
        assert_eq!(net.kicked(first), ReasonCode::SessionTakenOver);
        let other = net.connect(Connect::v5("b"));
        net.publish(other, Publish::new("t", "1").qos1());
        assert_eq!(net.received(second), ["t 1"]);
        assert_eq!(net.received(first), [""; 0]);
        let third = net.connect(Connect::v311("a"));
        assert_eq!(net.kicked(second), ReasonCode::SessionTakenOver);
        net.publish(other, Publish::new("t", "2").qos1());
        assert_eq!(net.received(third), [""; 0], "a clean session");
        assert_eq!(net.view().connection_count(), 2);
    });
}

// [MQTT-3.1.4-3]
#[test]
fn takeovers_in_a_row_leave_one_connection() {
    check(|net| {
        let clients: Vec<_> = (0..10).map(|_| net.start(Connect::v5("a").resume())).collect();
        net.settle();
        let open = clients.iter().filter(|client| !net.closed(**client)).count();
        assert_eq!((open, net.view().connection_count(), net.view().session_count()), (1, 1, 1));
    });
}

// [MQTT-3.2.2-9] [MQTT-3.2.2-10] [MQTT-3.2.2-12] [MQTT-3.8.4-7]
#[test]
fn a_server_with_a_maximum_qos() {
    check_with(
        |config| config.mqtt.max_qos_allowed = AtLeastOnce,
        |net| {
            let (a, connack) = net.connect_with(Connect::v5("a"));
            assert_eq!(connack.maximum_qos, Some(AtLeastOnce));
            let subscribe = Subscribe::new("t/0", AtMostOnce).and("t/1", AtLeastOnce).and("t/2", ExactlyOnce);
            let granted = net.subscribe_with(a, &subscribe);
            assert_eq!(granted, [ReasonCode::Success, ReasonCode::GrantedQoS1, ReasonCode::GrantedQoS1]);
            let will = Will::new(Publish::new("w", "").qos2());
            assert_eq!(net.refused(Connect::v5("b").will(will)), ReasonCode::QoSNotSupported);
            net.publish(a, Publish::new("t/2", "").qos2());
            assert_eq!(net.kicked(a), ReasonCode::QoSNotSupported);
        },
    );
}

// [MQTT-3.2.2-13]
#[test]
fn a_server_without_retained_messages() {
    check_with(
        |config| config.mqtt.retain_available = false,
        |net| {
            let (a, connack) = net.connect_with(Connect::v5("a"));
            assert_eq!(connack.retain_available, Some(false));
            let will = Will::new(Publish::new("w", "").retain());
            assert_eq!(net.refused(Connect::v5("b").will(will)), ReasonCode::RetainNotSupported);
            net.publish(a, Publish::new("t", "x").retain());
            assert_eq!(net.kicked(a), ReasonCode::RetainNotSupported);
        },
    );
}

#[test]
fn connack_tells_the_limits() {
    check_with(
        |config| {
            config.mqtt.max_packet_size = 5000;
            config.mqtt.max_topic_alias = 7;
            config.mqtt.wildcard_subscription = false;
            config.mqtt.shared_subscription = false;
            config.zones[0].max_awaiting_rel = 9;
        },
        |net| {
            let (_, connack) = net.connect_with(Connect::v5("a"));
            assert_eq!(connack.maximum_packet_size, Some(5000));
            assert_eq!((connack.alias_maximum, connack.receive_maximum), (Some(7), Some(9)));
            assert_eq!((connack.wildcards, connack.shared), (Some(false), Some(false)));
        },
    );
}

// [MQTT-3.1.2-28] [MQTT-3.1.2-29]: the clients of the harness check each answer.
#[test]
fn information_that_was_not_asked_for_is_not_sent() {
    check(|net| {
        let (a, connack) = net.connect_with(Connect::v5("a").no_problem_information());
        assert_eq!(connack.response_information, None);
        net.publish(a, Publish::new("$SYS/x", "").qos1());
        net.publish(a, Publish::new("nobody", "").qos2());
        net.unsubscribe(a, &["nothing"]);
        net.take(a);
        let (_, connack) = net.connect_with(Connect::v5("b").request_response_information());
        assert_eq!(connack.response_information, None, "it is optional, and there is none");
    });
}

// [MQTT-3.2.2-19] [MQTT-3.2.2-20] [MQTT-3.1.2-24]
#[test]
fn a_connack_above_the_maximum_packet_size_is_not_sent() {
    check(|net| {
        let client = net.start(Connect::v5("a").max_packet_size(4));
        assert_eq!(net.take(client), [Got::Closed]);
        let client = net.start(Connect::v5("a").max_packet_size(4).method("unknown", b""));
        assert_eq!(net.take(client), [Got::Closed]);
    });
}

#[test]
fn a_connection_that_breaks_in_the_middle_of_connect_leaves_nothing() {
    check(|net| {
        let bytes = Connect::v5("a").encode();
        for len in 0..bytes.len() {
            let client = net.open();
            net.send(client, &bytes[..len]);
            if len % 2 == 0 { net.cut(client) } else { net.hang_up(client) }
        }
        assert_eq!((net.view().connection_count(), net.view().session_count()), (0, 0));
    });
}
