//! PUBLISH (3.3), everything validated.

use super::*;
use crate::{ErrorKind, PublishProperties};

#[test]
fn publishes() {
    let (m, p) = (MALFORMED, PROTOCOL_ERROR);
    let name_invalid = Err(ReasonCode::TopicNameInvalid);
    for sender in [Sender::Client, Sender::Server] {
        check(
            sender,
            &[
                ("QoS 0", V31, 0x30, b"\0\x01tpayload", Ok(())),
                ("no payload", V311, 0x31, b"\0\x01t", Ok(())),
                ("[MQTT-2.2.1-2] QoS 1", V311, 0x3A, b"\0\x01t\0\x01", Ok(())),
                ("QoS 2 with properties", V5, 0x35, b"\0\x01t\0\x01\x02\x01\0payload", Ok(())),
                ("[MQTT-3.3.1-2]", V311, 0x38, b"\0\x01t", m),
                ("[MQTT-3.3.1-4]", V311, 0x36, b"\0\x01t\0\x01", m),
                ("[MQTT-2.2.1-3]", V311, 0x32, b"\0\x01t\0\0", p),
                ("[MQTT-3.3.2-1] not UTF-8", V311, 0x30, b"\0\x01\xFF", m),
                ("[MQTT-3.3.2-2]", V311, 0x30, b"\0\x03a/+", name_invalid),
                ("[MQTT-3.3.2-2]", V5, 0x30, b"\0\x01#\0", name_invalid),
                ("[MQTT-4.7.3-1]", V311, 0x30, b"\0\0", name_invalid),
                ("[MQTT-4.7.3-2]", V5, 0x30, b"\0\x01\0\0", m),
                ("3.3.2.1 alias for the topic", V5, 0x30, b"\0\0\x03\x23\0\x01", Ok(())),
                ("3.3.2.1 neither topic nor alias", V5, 0x30, b"\0\0\0", p),
                ("no properties", V5, 0x30, b"\0\x01t", m),
                ("no topic", V5, 0x30, b"\0", m),
            ],
        );
    }
}

#[test]
fn properties() {
    let (m, p) = (Err(MalformedPacket), Err(ProtocolError));
    // Name, block, what a client and what a server may send, whether it is forwarded as it is.
    type PropertyRow<'a> = (&'a str, &'a [u8], Result<(), ReasonCode>, Result<(), ReasonCode>, bool);
    let rows: &[PropertyRow<'_>] = &[
        ("none", b"", Ok(()), Ok(()), true),
        ("3.3.2.3.2", b"\x01\x01", Ok(()), Ok(()), true),
        ("3.3.2.3.2 is 2", b"\x01\x02", p, p, false),
        ("3.3.2.3.2 twice", b"\x01\x01\x01\x01", p, p, false),
        ("3.3.2.3.3", b"\x02\0\0\0\x01", Ok(()), Ok(()), false),
        ("3.3.2.3.3 twice", b"\x02\0\0\0\x01\x02\0\0\0\x01", p, p, false),
        ("3.3.2.3.4", b"\x23\xFF\xFF", Ok(()), Ok(()), false),
        ("[MQTT-3.3.2-8]", b"\x23\0\0", Err(ReasonCode::TopicAliasInvalid), Err(ReasonCode::TopicAliasInvalid), false),
        ("3.3.2.3.4 twice", b"\x23\0\x01\x23\0\x01", p, p, false),
        ("3.3.2.3.5", b"\x08\0\x03a/b", Ok(()), Ok(()), true),
        ("[MQTT-3.3.2-14]", b"\x08\0\x03a/#", p, p, false),
        ("[MQTT-4.7.3-1] Response Topic", b"\x08\0\0", p, p, false),
        ("[MQTT-3.3.2-13]", b"\x08\0\x01\xFF", m, m, false),
        ("3.3.2.3.6", b"\x09\0\x02\0\xFF", Ok(()), Ok(()), true),
        ("3.3.2.3.6 twice", b"\x09\0\0\x09\0\0", p, p, false),
        ("3.3.2.3.7", b"\x26\0\x01a\0\0\x26\0\x01a\0\0", Ok(()), Ok(()), true),
        ("[MQTT-3.3.4-6]", b"\x0B\x01", p, Ok(()), false),
        ("3.3.2.3.8 more than one", b"\x0B\x01\x0B\xFF\xFF\xFF\x7F", p, Ok(()), false),
        ("3.3.2.3.8 is 0", b"\x0B\0", p, p, false),
        ("[MQTT-3.3.2-19]", b"\x03\0\x01\xFF", m, m, false),
        ("3.3.2.3.9", b"\x03\0\x01c", Ok(()), Ok(()), true),
        ("2.2.2.2", b"\x11\0\0\0\0", m, m, false),
        ("cut off", b"\x26\0\x01a", m, m, false),
    ];
    for (name, block, client, server, verbatim) in rows {
        for (sender, expected) in [(Sender::Client, client), (Sender::Server, server)] {
            let decoded = PublishProperties::decode(block, sender);
            assert_eq!(decoded.map(|_| ()).map_err(|error| error.reason), *expected, "{name} {sender:?}");
            if let Ok(properties) = decoded {
                assert_eq!(properties.is_forwardable_verbatim(), *verbatim, "{name}");
                let mut out = Vec::new();
                properties.write_forwardable(&mut out);
                assert_eq!(out == *block, *verbatim, "{name}");
            }
        }
    }
}

/// [MQTT-3.3.2-4], [MQTT-3.3.2-15], [MQTT-3.3.2-16], [MQTT-3.3.2-17], [MQTT-3.3.2-18], [MQTT-3.3.2-20]
#[test]
fn what_is_forwarded() {
    let block = b"\x26\0\x01b\0\x01c\x0B\x05\x03\0\x01t\x02\0\0\0\x01\x09\0\x01d\x23\0\x01\x08\0\x01r\
        \x0B\xAC\x02\x26\0\x01a\0\0\x01\x01";
    let properties = PublishProperties::decode(block, Sender::Server).unwrap();
    assert_eq!(properties.subscription_identifiers().collect::<Vec<_>>(), [5, 300]);
    assert_eq!(properties.user_properties().collect::<Vec<_>>(), [("b", "c"), ("a", "")]);
    let mut out = Vec::new();
    properties.write_forwardable(&mut out);
    assert_eq!(out, b"\x01\x01\x03\0\x01t\x08\0\x01r\x09\0\x01d\x26\0\x01b\0\x01c\x26\0\x01a\0\0");
    let again = PublishProperties::decode(&out, Sender::Client).unwrap();
    assert!(again.is_forwardable_verbatim());
    assert_eq!(again.user_properties, properties.user_properties);
}

/// 3.3.2.3.2
#[test]
fn payload_format() {
    let rows: &[(Option<bool>, &[u8], Option<ErrorKind>)] = &[
        (None, b"\xFF", None),
        (Some(false), b"\xFF", None),
        (Some(true), b"a\0", None),
        (Some(true), b"\xFF", Some(ErrorKind::PayloadFormatInvalid)),
    ];
    for (payload_format_indicator, payload, expected) in rows {
        let properties =
            PublishProperties { payload_format_indicator: *payload_format_indicator, ..Default::default() };
        assert_eq!(properties.check_payload(payload).err().map(|error| error.kind), *expected);
    }
}

/// [MQTT-2.2.1-2]
#[test]
fn an_identifier_without_qos_is_not_encoded() {
    let Packet::Publish(mut publish) = client(0x32, b"\0\x01t\0\x01", V311) else { panic!("a PUBLISH") };
    publish.qos = crate::QoS::AtMostOnce;
    let missing = Err(crate::EncodeError::PacketIdentifier);
    assert_eq!(Packet::Publish(publish).encode(V311, &mut Vec::new()), missing);
    (publish.qos, publish.packet_id) = (crate::QoS::ExactlyOnce, None);
    assert_eq!(Packet::Publish(publish).encode(V311, &mut Vec::new()), missing);
}
