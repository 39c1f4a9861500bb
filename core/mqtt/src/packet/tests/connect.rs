//! CONNECT (3.1).

use super::*;
use crate::{Connect, ErrorKind, QoS};

#[test]
fn connects_of_every_version() {
    let (m, p) = (MALFORMED, PROTOCOL_ERROR);
    let name_invalid = Err(ReasonCode::TopicNameInvalid);
    let unsupported = Err(ReasonCode::UnsupportedProtocolVersion);
    check(
        Sender::Client,
        &[
            ("3.1", V5, 0x10, b"\0\x06MQIsdp\x03\x02\0\x0A\0\x01c", Ok(())),
            ("3.1, unused flag", V5, 0x10, b"\0\x06MQIsdp\x03\x03\0\x0A\0\x01c", Ok(())),
            ("3.1.1", V5, 0x10, b"\0\x04MQTT\x04\x02\0\x0A\0\x01c", Ok(())),
            ("5.0", V311, 0x10, b"\0\x04MQTT\x05\x02\0\x0A\0\0\x01c", Ok(())),
            ("3.1.3.1 empty identifier", V5, 0x10, b"\0\x04MQTT\x05\0\0\0\0\0\0", Ok(())),
            ("all of 3.1.1", V5, 0x10, b"\0\x04MQTT\x04\xEE\0\0\0\x01c\0\x01t\0\x01p\0\x01u\0\x01w", Ok(())),
            ("[MQTT-3.1.2-1] name", V5, 0x10, b"\0\x04MQTt\x04\x02\0\0\0\x01c", unsupported),
            ("[MQTT-3.1.2-2] level", V5, 0x10, b"\0\x04MQTT\x06\x02\0\0\0\x01c", unsupported),
            ("[MQTT-3.1.2-2] name and level", V5, 0x10, b"\0\x04MQTT\x03\x02\0\0\0\x01c", unsupported),
            ("[MQTT-3.1.2-2] bridge bit", V5, 0x10, b"\0\x04MQTT\x84\x02\0\0\0\x01c", unsupported),
            ("[MQTT-3.1.2-3]", V5, 0x10, b"\0\x04MQTT\x04\x03\0\0\0\x01c", m),
            ("[MQTT-3.1.2-11] Will QoS, no Will", V5, 0x10, b"\0\x04MQTT\x04\x0A\0\0\0\x01c", m),
            ("[MQTT-3.1.2-12] Will QoS 3", V5, 0x10, b"\0\x04MQTT\x04\x1E\0\0\0\x01c\0\x01t\0\0", m),
            ("[MQTT-3.1.2-13] Will Retain, no Will", V5, 0x10, b"\0\x04MQTT\x04\x22\0\0\0\x01c", m),
            ("[MQTT-3.1.2-9] Will missing", V5, 0x10, b"\0\x04MQTT\x04\x06\0\0\0\x01c", m),
            ("[MQTT-3.1.2-16] unannounced name", V5, 0x10, b"\0\x04MQTT\x04\x02\0\0\0\x01c\0\x01u", m),
            ("[MQTT-3.1.2-17] name missing", V5, 0x10, b"\0\x04MQTT\x04\x82\0\0\0\x01c", m),
            ("[MQTT-3.1.2-18] unannounced password", V5, 0x10, b"\0\x04MQTT\x04\x82\0\0\0\x01c\0\x01u\0\x01w", m),
            ("[MQTT-3.1.2-19] password missing", V5, 0x10, b"\0\x04MQTT\x04\xC2\0\0\0\x01c\0\x01u", m),
            ("[MQTT-3.1.2-22] of 3.1.1", V5, 0x10, b"\0\x04MQTT\x04\x42\0\0\0\x01c\0\x01w", m),
            ("3.1.2.9 password alone", V5, 0x10, b"\0\x04MQTT\x05\x42\0\0\0\0\x01c\0\x01w", Ok(())),
            ("[MQTT-3.1.3-4] identifier", V5, 0x10, b"\0\x04MQTT\x04\x02\0\0\0\x01\xFF", m),
            ("[MQTT-1.5.4-2] identifier", V5, 0x10, b"\0\x04MQTT\x04\x02\0\0\0\x01\0", m),
            ("[MQTT-3.1.3-11] Will Topic", V5, 0x10, b"\0\x04MQTT\x04\x06\0\0\0\x01c\0\x01\xFF\0\0", m),
            ("[MQTT-3.1.3-12] User Name", V5, 0x10, b"\0\x04MQTT\x04\x82\0\0\0\x01c\0\x01\xFF", m),
            ("4.7.1 Will Topic #", V5, 0x10, b"\0\x04MQTT\x04\x06\0\0\0\x01c\0\x01#\0\0", name_invalid),
            ("[MQTT-4.7.3-1] Will Topic", V5, 0x10, b"\0\x04MQTT\x04\x06\0\0\0\x01c\0\0\0\0", name_invalid),
            ("nothing", V5, 0x10, b"", m),
            ("no version", V5, 0x10, b"\0\x04MQTT", m),
            ("no flags", V5, 0x10, b"\0\x04MQTT\x04", m),
            ("no identifier", V5, 0x10, b"\0\x04MQTT\x04\x02\0\0", m),
            ("no Property Length", V5, 0x10, b"\0\x04MQTT\x05\x02\0\0", m),
            ("bytes after the end", V5, 0x10, b"\0\x04MQTT\x05\x02\0\0\0\0\x01c\0", m),
            ("[MQTT-2.2.2-1]", V5, 0x10, b"\0\x04MQTT\x05\x02\0\0\x02\x25\0\0\x01c", m),
            ("3.1.2.11.3 twice", V5, 0x10, b"\0\x04MQTT\x05\x02\0\0\x06\x21\0\x01\x21\0\x01\0\x01c", p),
        ],
    );
}

#[test]
fn properties() {
    let (m, p) = (MALFORMED, PROTOCOL_ERROR);
    let rows: &[(&str, &[u8], Result<(), ReasonCode>)] = &[
        ("none", b"", Ok(())),
        ("3.1.2.11.2", b"\x11\xFF\xFF\xFF\xFF", Ok(())),
        ("3.1.2.11.2 twice", b"\x11\0\0\0\0\x11\0\0\0\0", p),
        ("3.1.2.11.3", b"\x21\0\x01", Ok(())),
        ("3.1.2.11.3 is 0", b"\x21\0\0", p),
        ("3.1.2.11.4", b"\x27\0\0\0\x01", Ok(())),
        ("3.1.2.11.4 is 0", b"\x27\0\0\0\0", p),
        ("3.1.2.11.5", b"\x22\0\0", Ok(())),
        ("3.1.2.11.5 twice", b"\x22\0\0\x22\0\0", p),
        ("3.1.2.11.6", b"\x19\x01", Ok(())),
        ("3.1.2.11.6 is 2", b"\x19\x02", p),
        ("3.1.2.11.7", b"\x17\0", Ok(())),
        ("3.1.2.11.7 is 2", b"\x17\x02", p),
        ("3.1.2.11.8 the same name twice", b"\x26\0\x01a\0\x01b\x26\0\x01a\0\x01b", Ok(())),
        ("3.1.2.11.9", b"\x15\0\x01m", Ok(())),
        ("3.1.2.11.10", b"\x16\0\x01d\x15\0\x01m", Ok(())),
        ("3.1.2.11.10 no method", b"\x16\0\x01d", p),
        ("3.1.2.11.10 twice", b"\x15\0\0\x16\0\0\x16\0\0", p),
        ("cut off", b"\x11\0\0\0", m),
        ("2.2.2.2 of CONNACK", b"\x12\0\x01c", m),
        ("2.2.2.2 of a Will", b"\x18\0\0\0\0", m),
        ("2.2.2.2 unknown", b"\0", m),
    ];
    for (name, block, expected) in rows {
        let len = [block.len() as u8];
        let body = [&b"\0\x04MQTT\x05\x02\0\0"[..], &len, block, b"\0\x01c"].concat();
        check(Sender::Client, &[(name, V5, 0x10, &body, *expected)]);
    }
    let rows: &[(&str, &[u8], Result<(), ReasonCode>)] = &[
        ("none", b"", Ok(())),
        ("3.1.3.2.2", b"\x18\0\0\0\x05", Ok(())),
        ("3.1.3.2.2 twice", b"\x18\0\0\0\x05\x18\0\0\0\x05", p),
        ("3.1.3.2.3", b"\x01\x01", Ok(())),
        ("3.1.3.2.3 is 2", b"\x01\x02", p),
        ("3.1.3.2.4", b"\x02\0\0\0\0", Ok(())),
        ("3.1.3.2.5", b"\x03\0\x01c", Ok(())),
        ("[MQTT-3.1.3-9], 3.1.3.2.8 order", b"\x26\0\x01b\0\0\x09\0\x01\0\x26\0\x01a\0\0", Ok(())),
        ("3.1.3.2.6", b"\x08\0\x01r", Ok(())),
        ("3.1.3.2.6 wildcard", b"\x08\0\x01+", p),
        ("3.1.3.2.7 twice", b"\x09\0\0\x09\0\0", p),
        ("2.2.2.2 of PUBLISH", b"\x23\0\x01", m),
    ];
    for (name, block, expected) in rows {
        let len = [block.len() as u8];
        let body = [&b"\0\x04MQTT\x05\x06\0\0\0\0\x01c"[..], &len, block, b"\0\x01t\0\0"].concat();
        check(Sender::Client, &[(name, V5, 0x10, &body, *expected)]);
    }
}

fn connect(body: &[u8]) -> Connect<'_> {
    let Packet::Connect(connect) = client(0x10, body, V5) else { panic!("a CONNECT") };
    connect
}

#[test]
fn fields() {
    let body = b"\0\x04MQTT\x05\xEE\x01\x02\x08\x11\0\0\0\x07\x21\0\x03\0\x01c\
        \x0E\x18\0\0\0\x05\x03\0\x01j\x02\0\0\0\x06\0\x01t\0\x02\0\xFF\0\x01u\0\x01\xFF";
    let connect = connect(body);
    assert_eq!((connect.version, connect.clean_start, connect.keep_alive), (V5, true, 0x0102));
    assert_eq!((connect.client_id, connect.username, connect.password), ("c", Some("u"), Some(&b"\xFF"[..])));
    let will = connect.will.unwrap();
    assert_eq!((will.topic.as_str(), will.payload), ("t", &b"\0\xFF"[..]));
    assert_eq!((will.qos, will.retain), (QoS::AtLeastOnce, true));
    assert_eq!((will.properties.delay_interval, will.properties.message_expiry_interval), (5, Some(6)));
    let mut forwardable = Vec::new();
    will.properties.write_forwardable(&mut forwardable);
    assert_eq!(forwardable, b"\x03\0\x01j");
    assert_eq!((connect.properties.session_expiry_interval, connect.properties.receive_maximum.get()), (7, 3));
}

/// 3.1.2.11: what stands for a property that is not sent.
#[test]
fn defaults() {
    let properties = connect(b"\0\x04MQTT\x05\x02\0\0\0\0\x01c").properties;
    assert_eq!(properties, crate::ConnectProperties::default());
    assert_eq!((properties.session_expiry_interval, properties.receive_maximum.get()), (0, 65_535));
    assert_eq!((properties.maximum_packet_size, properties.topic_alias_maximum), (None, 0));
    assert_eq!((properties.request_response_information, properties.request_problem_information), (false, true));
}

/// The server answers in the format of the version that failed, or closest to it \[MQTT-3.1.2-2\].
#[test]
fn an_error_names_the_version_to_answer_in() {
    let rows: &[(&[u8], ErrorKind, Option<ProtocolVersion>)] = &[
        (b"\0\x04MQTT\x05\x03\0\0\0\0\x01c", ErrorKind::Malformed, Some(V5)),
        (b"\0\x04MQTT\x04\x03\0\0\0\x01c", ErrorKind::Malformed, Some(V311)),
        (b"\0\x06MQIsdp\x03\x02\0\0\0\x01", ErrorKind::Malformed, Some(V31)),
        (b"\0\x04MQTT\x06", ErrorKind::UnsupportedVersion, Some(V5)),
        (b"\0\x04MQTT\x03", ErrorKind::UnsupportedVersion, Some(V311)),
        (b"\0\x06MQIsdp\x04", ErrorKind::UnsupportedVersion, Some(V31)),
        (b"\0\x04HTTP\x04", ErrorKind::UnsupportedVersion, None),
        (b"\0\x04MQTT", ErrorKind::Malformed, None),
    ];
    for (body, kind, version) in rows {
        let error = Frame { first: 0x10, body, bytes: &[] }.decode(V311, Sender::Client).unwrap_err();
        assert_eq!((error.kind, error.version), (*kind, *version), "{error}");
    }
}

#[test]
fn secrets_are_not_shown() {
    let body = b"\0\x04MQTT\x05\xC2\0\0\x11\x15\0\x06method\x16\0\x05token\0\x01c\0\x04user\0\x06secret";
    let shown = format!("{:?}", client(0x10, body, V5));
    assert!(shown.contains("user") && shown.contains("method") && shown.contains("Some(6 bytes)"), "{shown}");
    let bytes = |text: &str| format!("{:?}", text.as_bytes());
    for secret in ["secret", "token"] {
        assert!(!shown.contains(secret) && !shown.contains(&bytes(secret)), "{shown}");
    }
}
