//! CONNACK (3.2), SUBACK (3.9) and UNSUBACK (3.11).

use super::*;
use crate::{Connack, ConnackProperties, PacketId, QoS, ReasonCodes, Suback, Unsuback, connack_return_code_v3};

#[test]
fn connacks() {
    let (m, p) = (MALFORMED, PROTOCOL_ERROR);
    check(
        Sender::Server,
        &[
            ("3.1", V31, 0x20, b"\0\0", Ok(())),
            ("3.1.1 refusal", V311, 0x20, b"\0\x05", Ok(())),
            ("Session Present", V311, 0x20, b"\x01\0", Ok(())),
            ("3.1.1 unknown code", V311, 0x20, b"\0\x06", m),
            ("[MQTT-3.2.2-1]", V311, 0x20, b"\x02\0", m),
            ("[MQTT-3.2.2-6]", V311, 0x20, b"\x01\x05", p),
            ("5.0", V5, 0x20, b"\x01\0\0", Ok(())),
            ("[MQTT-3.2.2-8]", V5, 0x20, b"\0\x8B\0", m),
            ("no properties", V5, 0x20, b"\0\0", m),
            ("too long", V5, 0x20, b"\0\0\0\0", m),
            ("3.2.2.3.3 is 0", V5, 0x20, b"\0\0\x03\x21\0\0", p),
            ("3.2.2.3.4 is 2", V5, 0x20, b"\0\0\x02\x24\x02", p),
            ("3.2.2.3.6 is 0", V5, 0x20, b"\0\0\x05\x27\0\0\0\0", p),
            ("3.2.2.3.13 is 2", V5, 0x20, b"\0\0\x02\x2A\x02", p),
            ("3.2.2.3.14 twice", V5, 0x20, b"\0\0\x06\x13\0\0\x13\0\0", p),
            ("2.2.2.2", V5, 0x20, b"\0\0\x02\x17\0", m),
            (
                "all properties",
                V5,
                0x20,
                b"\0\0\x43\x11\0\0\0\x01\x21\0\x01\x24\x01\x25\0\x27\0\0\0\x01\x12\0\x01c\x22\0\x01\x1F\0\x01r\
                  \x26\0\x01a\0\x01b\x28\0\x29\0\x2A\0\x13\0\x01\x1A\0\x01i\x1C\0\x01s\x15\0\x01m\x16\0\x01d\
                  \x26\0\x01c\0\x01d",
                Ok(()),
            ),
        ],
    );
    let two = Connack {
        properties: ConnackProperties { maximum_qos: Some(QoS::ExactlyOnce), ..Default::default() },
        ..Connack::new(false, ReasonCode::Success)
    };
    let mut out = Vec::new();
    Packet::Connack(two).encode(V5, &mut out).unwrap();
    assert_eq!(out, b"\x20\x03\0\0\0", "3.2.2.3.4: the value 2 is not sent");
}

/// MQTT 3.1.1 table 3.1.
#[test]
fn return_codes_of_3_1_1() {
    let rows = [
        (ReasonCode::UnsupportedProtocolVersion, 1),
        (ReasonCode::ClientIdentifierNotValid, 2),
        (ReasonCode::BadUserNameOrPassword, 4),
        (ReasonCode::BadAuthenticationMethod, 4),
        (ReasonCode::NotAuthorized, 5),
        (ReasonCode::Banned, 5),
    ];
    let expected = |code: ReasonCode| match rows.iter().find(|row| row.0 == code) {
        Some((_, code)) => *code,
        None if code.is_error() => 3,
        None => 0,
    };
    for &code in ReasonCode::ALL {
        assert_eq!(connack_return_code_v3(code), expected(code), "{code}");
    }
    for code in 0..=5 {
        let body = [0, code];
        let Ok(Packet::Connack(connack)) = decode(0x20, &body, V311, Sender::Server) else { panic!("a CONNACK") };
        assert_eq!(connack_return_code_v3(connack.reason_code), code);
    }
}

#[test]
fn subacks() {
    let (m, p) = (MALFORMED, PROTOCOL_ERROR);
    check(
        Sender::Server,
        &[
            ("3.1.1", V311, 0x90, b"\0\x01\0\x01\x02\x80", Ok(())),
            ("3.1.1 [MQTT-3.9.3-2]", V311, 0x90, b"\0\x01\x87", m),
            ("5.0", V5, 0x90, b"\0\x01\0\0\x01\x02\x87\x9E\xA1\xA2", Ok(())),
            ("[MQTT-3.9.3-2]", V5, 0x90, b"\0\x01\0\x03", m),
            ("[MQTT-3.9.3-1]", V5, 0x90, b"\0\x01\0", m),
            ("identifier 0", V5, 0x90, b"\0\0\0\0", p),
            ("3.11 before MQTT 5.0", V311, 0xB0, b"\0\x01", Ok(())),
            ("3.11 before MQTT 5.0 nothing follows", V311, 0xB0, b"\0\x01\0", m),
            ("3.11", V5, 0xB0, b"\0\x01\0\0\x11\x8F", Ok(())),
            ("[MQTT-3.11.3-2]", V5, 0xB0, b"\0\x01\0\x01", m),
            ("[MQTT-3.11.3-1]", V5, 0xB0, b"\0\x01\0", m),
        ],
    );
}

#[test]
fn what_old_versions_do_not_know_is_left_out() {
    let packet_id = PacketId::new(1).unwrap();
    let properties = crate::AckProperties { reason_string: Some("r"), ..Default::default() };
    let codes = [ReasonCode::GrantedQoS2, ReasonCode::NotAuthorized, ReasonCode::GRANTED_QOS_0];
    let reason_codes = ReasonCodes::new(&codes);
    let suback = Packet::Suback(Suback { packet_id, properties, reason_codes });
    let unsuback = Packet::Unsuback(Unsuback { packet_id, properties, reason_codes });
    let puback = Packet::Puback(crate::Ack { packet_id, properties, reason_code: ReasonCode::QuotaExceeded });
    let disconnect = Packet::Disconnect(crate::Disconnect::new(ReasonCode::ServerBusy));
    let connack = Packet::Connack(Connack::new(true, ReasonCode::Success));
    let rows: &[(&Packet<'_>, ProtocolVersion, &[u8])] = &[
        (&suback, V311, b"\x90\x05\0\x01\x02\x80\0"),
        (&suback, V5, b"\x90\x0A\0\x01\x04\x1F\0\x01r\x02\x87\0"),
        (&unsuback, V311, b"\xB0\x02\0\x01"),
        (&puback, V311, b"\x40\x02\0\x01"),
        (&puback, V5, b"\x40\x08\0\x01\x97\x04\x1F\0\x01r"),
        (&disconnect, V311, b"\xE0\0"),
        (&disconnect, V5, b"\xE0\x01\x89"),
        (&connack, V31, b"\x20\x02\0\0"),
        (&connack, V311, b"\x20\x02\x01\0"),
        (&connack, V5, b"\x20\x03\x01\0\0"),
    ];
    for (packet, version, expected) in rows {
        let mut out = Vec::new();
        packet.encode(*version, &mut out).unwrap();
        assert_eq!(out, *expected, "{packet:?} {version:?}");
    }
}
