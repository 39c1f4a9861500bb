//! Tables of packets that are refused or accepted, one row for each rule. What is accepted is encoded again, too.

mod connect;
mod from_server;
mod publish;
mod subscribe;

use crate::ProtocolVersion::{V5, V31, V311};
use crate::ReasonCode::{MalformedPacket, ProtocolError};
use crate::{Frame, Packet, ProtocolVersion, ReasonCode, Sender};

/// Name or statement, version, first byte, what follows the fixed header, and what comes of it.
type Row<'a> = (&'a str, ProtocolVersion, u8, &'a [u8], Result<(), ReasonCode>);

const MALFORMED: Result<(), ReasonCode> = Err(MalformedPacket);
const PROTOCOL_ERROR: Result<(), ReasonCode> = Err(ProtocolError);

fn decode(first: u8, body: &[u8], version: ProtocolVersion, sender: Sender) -> Result<Packet<'_>, ReasonCode> {
    let frame = Frame { first, body, bytes: &[] };
    frame.decode(version, sender).map_err(|error| error.reason)
}

fn client(first: u8, body: &[u8], version: ProtocolVersion) -> Packet<'_> {
    decode(first, body, version, Sender::Client).unwrap()
}

fn check(sender: Sender, rows: &[Row<'_>]) {
    for (name, version, first, body, expected) in rows {
        let packet = decode(*first, body, *version, sender);
        assert_eq!(packet.as_ref().map(|_| ()).map_err(|reason| *reason), *expected, "{name} {version:?}");
        let Ok(packet) = packet else { continue };
        let mut bytes = Vec::new();
        packet.encode(*version, &mut bytes).unwrap();
        let again = decode(bytes[0], &bytes[bytes.len() - body_len(&bytes)..], *version, sender);
        assert_eq!(again, Ok(packet), "{name} {version:?}: encoded again");
    }
}

fn body_len(bytes: &[u8]) -> usize {
    let mut decoder = crate::Decoder::new();
    let mut input = bytes;
    let len = decoder.next(&mut input, u32::MAX).unwrap().unwrap().body.len();
    assert!(input.is_empty());
    len
}

/// Table 2-1, direction of flow; AUTH and a server's DISCONNECT are of MQTT 5.0.
#[test]
fn a_side_sends_only_its_packets() {
    for version in [V31, V311, V5] {
        let v5 = version == V5;
        for (first, client, server) in [
            (0x10, true, false),
            (0x20, false, true),
            (0x30, true, true),
            (0x40, true, true),
            (0x50, true, true),
            (0x62, true, true),
            (0x70, true, true),
            (0x82, true, false),
            (0x90, false, true),
            (0xA2, true, false),
            (0xB0, false, true),
            (0xC0, true, false),
            (0xD0, false, true),
            (0xE0, true, v5),
            (0xF0, v5, v5),
        ] {
            // A body that is too short for any packet but PINGREQ, PINGRESP and DISCONNECT.
            for (sender, allowed) in [(Sender::Client, client), (Sender::Server, server)] {
                let result = decode(first, &[0], version, sender);
                assert_eq!(result == Err(ProtocolError), !allowed || first == 0xF0, "{first:x} {sender:?} {version:?}");
            }
        }
    }
    assert_eq!(decode(0x00, &[], V5, Sender::Client), Err(MalformedPacket));
}

#[test]
fn pings() {
    for version in [V31, V311, V5] {
        check(
            Sender::Client,
            &[("3.12", version, 0xC0, b"", Ok(())), ("3.12 nothing may follow", version, 0xC0, b"\0", MALFORMED)],
        );
        check(
            Sender::Server,
            &[("3.13", version, 0xD0, b"", Ok(())), ("3.13 nothing may follow", version, 0xD0, b"\0", MALFORMED)],
        );
    }
}

/// MQTT 3.1 marks a PUBREL, SUBSCRIBE or UNSUBSCRIBE that is sent again; later the flag is reserved.
#[test]
fn dup_outside_of_publish() {
    let rows: [(&str, u8, &[u8], &[u8]); 3] = [
        ("[MQTT-3.6.1-1]", 0x6A, b"\0\x01", b"\0\x01"),
        ("[MQTT-3.8.1-1]", 0x8A, b"\0\x01\0\x01t\x02", b"\0\x01\0\0\x01t\x02"),
        ("[MQTT-3.10.1-1]", 0xAA, b"\0\x01\0\x01t", b"\0\x01\0\0\x01t"),
    ];
    for (name, first, body, v5) in rows {
        check(
            Sender::Client,
            &[
                ("3.1", V31, first, body, Ok(())),
                (name, V311, first, body, MALFORMED),
                (name, V5, first, v5, MALFORMED),
            ],
        );
    }
    let pubrel = Frame { first: 0x6A, body: b"\0\x01", bytes: b"\x6A\x02\0\x01" };
    assert!(pubrel.ack(V31).is_ok());
    assert_eq!(pubrel.ack(V311).map_err(|error| error.reason), Err(MalformedPacket));
}

#[test]
fn acknowledgements() {
    for first in [0x40, 0x50, 0x62, 0x70] {
        let release = first >= 0x62;
        check(
            Sender::Client,
            &[
                ("2 bytes", V31, first, b"\0\x01", Ok(())),
                ("2 bytes", V311, first, b"\0\x01", Ok(())),
                ("3.4.2.1 Reason Code left out", V5, first, b"\0\x01", Ok(())),
                ("3.4.2.2.1 properties left out", V5, first, b"\0\x01\0", Ok(())),
                ("empty properties", V5, first, b"\0\x01\0\0", Ok(())),
                ("all properties", V5, first, b"\0\x01\0\x0B\x1F\0\x01r\x26\0\x01a\0\x01b", Ok(())),
                ("too short", V311, first, b"\0", MALFORMED),
                ("too long before MQTT 5.0", V311, first, b"\0\x01\0", MALFORMED),
                ("too long", V5, first, b"\0\x01\0\0\0", MALFORMED),
                ("identifier 0", V5, first, b"\0\0", PROTOCOL_ERROR),
                ("not UTF-8", V5, first, b"\0\x01\0\x04\x1F\0\x01\xFF", MALFORMED),
                ("two Reason Strings", V5, first, b"\0\x01\0\x06\x1F\0\0\x1F\0\0", PROTOCOL_ERROR),
                ("2.2.2.2 property of another packet", V5, first, b"\0\x01\0\x03\x23\0\x01", MALFORMED),
                ("2.2.2.2 unknown property", V5, first, b"\0\x01\0\x02\x7F\x01", MALFORMED),
                ("2.2.2.2 identifier of two bytes", V5, first, b"\0\x01\0\x03\x9F\x01\0", MALFORMED),
                ("Property Length cut off", V5, first, b"\0\x01\0\x80", MALFORMED),
                ("[MQTT-2.2.2-1]", V5, first, b"\0\x01\0\x05\x1F\0\x01r", MALFORMED),
                ("unknown Reason Code", V5, first, b"\0\x01\x05", MALFORMED),
                ("Reason Code of another packet", V5, first, b"\0\x01\x8D", PROTOCOL_ERROR),
                (
                    "[MQTT-3.6.2-1], [MQTT-3.7.2-1]",
                    V5,
                    first,
                    b"\0\x01\x92",
                    if release { Ok(()) } else { PROTOCOL_ERROR },
                ),
                (
                    "[MQTT-3.4.2-1], [MQTT-3.5.2-1]",
                    V5,
                    first,
                    b"\0\x01\x10",
                    if release { PROTOCOL_ERROR } else { Ok(()) },
                ),
            ],
        );
    }
}

/// The user properties of a block are those that were sent, wherever they stand in it.
#[test]
fn user_properties() {
    let body = b"\0\x01\0\x15\x26\0\x01a\0\x01b\x1F\0\x01r\x26\0\x01a\0\0\x26\0\0\0\0";
    let body = [&body[..3], &[(body.len() - 4) as u8], &body[4..]].concat();
    let Packet::Puback(ack) = client(0x40, &body, V5) else { panic!("a PUBACK") };
    let user = ack.properties.user_properties;
    assert_eq!(user.iter().collect::<Vec<_>>(), [("a", "b"), ("a", ""), ("", "")]);
    assert_eq!(user, crate::UserProperties::new(&[("a", "b"), ("a", ""), ("", "")]));
    assert_ne!(user, crate::UserProperties::new(&[("a", ""), ("a", "b"), ("", "")]), "the order counts");
    assert_eq!(format!("{user:?}"), r#"[("a", "b"), ("a", ""), ("", "")]"#);
    assert!(!user.is_empty() && crate::UserProperties::default().is_empty());
}

#[test]
fn disconnects() {
    check(
        Sender::Client,
        &[
            ("3.1.1", V311, 0xE0, b"", Ok(())),
            ("3.1.1 nothing may follow", V311, 0xE0, b"\0", MALFORMED),
            ("3.14.2.1 Reason Code left out", V5, 0xE0, b"", Ok(())),
            ("with Will Message", V5, 0xE0, b"\x04", Ok(())),
            ("everything", V5, 0xE0, b"\x04\x12\x11\0\0\0\x01\x1F\0\x01r\x26\0\0\0\0\x1C\0\x01s", Ok(())),
            ("[MQTT-3.14.2-1] of a server", V5, 0xE0, b"\x8B", PROTOCOL_ERROR),
            ("unknown Reason Code", V5, 0xE0, b"\x05", MALFORMED),
            ("3.14.2.2.2 twice", V5, 0xE0, b"\0\x0A\x11\0\0\0\0\x11\0\0\0\0", PROTOCOL_ERROR),
            ("2.2.2.2 property of another packet", V5, 0xE0, b"\0\x02\x01\0", MALFORMED),
            ("too long", V5, 0xE0, b"\0\0\0", MALFORMED),
        ],
    );
    check(
        Sender::Server,
        &[
            ("of a server", V5, 0xE0, b"\x8E", Ok(())),
            ("Server Reference", V5, 0xE0, b"\x9D\x04\x1C\0\x01s", Ok(())),
            ("[MQTT-3.14.2-1] of a client", V5, 0xE0, b"\x04", PROTOCOL_ERROR),
            ("[MQTT-3.14.2-2]", V5, 0xE0, b"\0\x05\x11\0\0\0\0", PROTOCOL_ERROR),
        ],
    );
}

#[test]
fn auths() {
    check(
        Sender::Client,
        &[
            ("everything", V5, 0xF0, b"\x18\x11\x15\0\x01m\x16\0\x01d\x1F\0\x01r\x26\0\0\0\0", Ok(())),
            ("Re-authenticate", V5, 0xF0, b"\x19\x04\x15\0\x01m", Ok(())),
            ("[MQTT-3.15.2-1] Success is for a server", V5, 0xF0, b"\0\x04\x15\0\x01m", PROTOCOL_ERROR),
            ("[MQTT-3.15.2-1] and so is nothing", V5, 0xF0, b"", PROTOCOL_ERROR),
            ("3.15.2.2.2 no method", V5, 0xF0, b"\x18\0", PROTOCOL_ERROR),
            ("3.15.2.2.2 no properties", V5, 0xF0, b"\x18", PROTOCOL_ERROR),
            ("3.15.2.2.2 two methods", V5, 0xF0, b"\x18\x08\x15\0\x01m\x15\0\x01m", PROTOCOL_ERROR),
            ("[MQTT-3.15.2-1] Reason Code", V5, 0xF0, b"\x87\x04\x15\0\x01m", PROTOCOL_ERROR),
            ("2.2.2.2", V5, 0xF0, b"\x18\x07\x15\0\x01m\x21\0\x01", MALFORMED),
        ],
    );
    check(
        Sender::Server,
        &[
            ("3.15.2.1 nothing at all", V5, 0xF0, b"", Ok(())),
            ("Success", V5, 0xF0, b"\0\x04\x15\0\x01m", Ok(())),
            ("Continue authentication", V5, 0xF0, b"\x18\x04\x15\0\x01m", Ok(())),
            ("[MQTT-3.15.2-1]", V5, 0xF0, b"\x19\x04\x15\0\x01m", PROTOCOL_ERROR),
        ],
    );
    let auth = crate::Auth { reason_code: ReasonCode::Success, properties: crate::AuthProperties::default() };
    assert_eq!(Packet::Auth(auth).encode(V311, &mut Vec::new()), Err(crate::EncodeError::NotInThisVersion));
}

/// An error of the encoder leaves the output as it was.
#[test]
fn a_failed_encoding_leaves_no_trace() {
    let long = "a".repeat(65_536);
    let mut disconnect = crate::Disconnect::new(ReasonCode::ServerMoved);
    disconnect.properties.server_reference = Some(&long);
    let mut out = b"before".to_vec();
    assert_eq!(Packet::Disconnect(disconnect).encode(V5, &mut out), Err(crate::EncodeError::FieldTooLong));
    assert_eq!(out, b"before");
}
