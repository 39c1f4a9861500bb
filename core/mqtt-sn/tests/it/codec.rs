//! Every message in bytes written out from the specification, round trips, and bytes that are no message.

use newtmq_mqtt::QoS;
use newtmq_mqtt_sn::{
    Ack, Datagram, Encapsulation, EncodeError, ErrorKind, MESSAGE_BYTES_MAX, Message, MessageType, Publish, ReturnCode,
    SnQoS, TopicRef, TopicSpec, WillTopic,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn ack(topic_id: u16, msg_id: u16, code: ReturnCode) -> Ack {
    Ack { topic_id, msg_id, code }
}

const PUBLISH: Publish<'static> = Publish {
    dup: false,
    qos: SnQoS::Mqtt(QoS::AtMostOnce),
    retain: false,
    topic: TopicRef::Normal(1),
    msg_id: 0,
    data: b"xy",
};

#[test]
#[allow(clippy::too_many_lines)]
fn messages_in_bytes() {
    let will = WillTopic { qos: QoS::AtLeastOnce, retain: true, topic: "w" };
    let qos1 = SnQoS::Mqtt(QoS::AtLeastOnce);
    let all = Publish { dup: true, qos: SnQoS::Mqtt(QoS::ExactlyOnce), retain: true, msg_id: 0x0102, ..PUBLISH };
    let rows: &[(&str, Message<'_>, &[u8])] = &[
        ("5.4.1", Message::Advertise { gateway: 7, duration: 900 }, b"\x05\x00\x07\x03\x84"),
        ("5.4.2", Message::SearchGw { radius: 1 }, b"\x03\x01\x01"),
        ("5.4.3 of a gateway", Message::GwInfo { gateway: 7, address: b"" }, b"\x03\x02\x07"),
        (
            "5.4.3 with GwAdd",
            Message::GwInfo { gateway: 7, address: &[192, 0, 2, 1, 0x07, 0x5C] },
            b"\x09\x02\x07\xC0\x00\x02\x01\x07\x5C",
        ),
        (
            "5.4.4",
            Message::Connect { will: false, clean_session: true, duration: 60, client_id: "abc" },
            b"\x09\x04\x04\x01\x00\x3Cabc",
        ),
        (
            "5.4.4 with Will",
            Message::Connect { will: true, clean_session: false, duration: 0x1234, client_id: "a" },
            b"\x07\x04\x08\x01\x12\x34a",
        ),
        ("5.4.5 accepted", Message::Connack(ReturnCode::Accepted), b"\x03\x05\x00"),
        ("5.4.5 congestion", Message::Connack(ReturnCode::Congestion), b"\x03\x05\x01"),
        ("5.4.5 not supported", Message::Connack(ReturnCode::NotSupported), b"\x03\x05\x03"),
        ("5.4.5 reserved", Message::Connack(ReturnCode::Reserved(9)), b"\x03\x05\x09"),
        ("5.4.6", Message::WillTopicReq, b"\x02\x06"),
        ("5.4.7", Message::WillTopic(Some(will)), b"\x04\x07\x30w"),
        ("5.4.7 empty", Message::WillTopic(None), b"\x02\x07"),
        ("5.4.8", Message::WillMsgReq, b"\x02\x08"),
        ("5.4.9", Message::WillMsg(b"gone"), b"\x06\x09gone"),
        ("5.4.9 empty", Message::WillMsg(b""), b"\x02\x09"),
        ("5.4.10", Message::Register { topic_id: 0, msg_id: 0x0102, topic: "a/b" }, b"\x09\x0A\x00\x00\x01\x02a/b"),
        ("5.4.11", Message::Regack(ack(5, 0x0102, ReturnCode::Accepted)), b"\x07\x0B\x00\x05\x01\x02\x00"),
        ("5.4.12", Message::Publish(PUBLISH), b"\x09\x0C\x00\x00\x01\x00\x00xy"),
        ("5.4.12 with everything", Message::Publish(all), b"\x09\x0C\xD0\x00\x01\x01\x02xy"),
        (
            "5.4.12 short topic",
            Message::Publish(Publish { topic: TopicRef::Short(*b"tt"), qos: qos1, msg_id: 1, ..PUBLISH }),
            b"\x09\x0C\x22tt\x00\x01xy",
        ),
        (
            "5.4.12 QoS -1",
            Message::Publish(Publish { topic: TopicRef::Predefined(0x0A0B), qos: SnQoS::MinusOne, ..PUBLISH }),
            b"\x09\x0C\x61\x0A\x0B\x00\x00xy",
        ),
        ("5.4.13", Message::Puback(ack(1, 2, ReturnCode::InvalidTopicId)), b"\x07\x0D\x00\x01\x00\x02\x02"),
        ("5.4.14 PUBCOMP", Message::Pubcomp(0x0102), b"\x04\x0E\x01\x02"),
        ("5.4.14 PUBREC", Message::Pubrec(0x0102), b"\x04\x0F\x01\x02"),
        ("5.4.14 PUBREL", Message::Pubrel(0x0102), b"\x04\x10\x01\x02"),
        (
            "5.4.15 name",
            Message::Subscribe { dup: true, qos: QoS::ExactlyOnce, msg_id: 3, topic: TopicSpec::Name("a/#") },
            b"\x08\x12\xC0\x00\x03a/#",
        ),
        (
            "5.4.15 predefined",
            Message::Subscribe { dup: false, qos: QoS::AtLeastOnce, msg_id: 3, topic: TopicSpec::Predefined(9) },
            b"\x07\x12\x21\x00\x03\x00\x09",
        ),
        (
            "5.4.15 short",
            Message::Subscribe { dup: false, qos: QoS::AtMostOnce, msg_id: 3, topic: TopicSpec::Short(*b"ab") },
            b"\x07\x12\x02\x00\x03ab",
        ),
        (
            "5.4.16",
            Message::Suback { qos: QoS::AtLeastOnce, ack: ack(4, 3, ReturnCode::Accepted) },
            b"\x08\x13\x20\x00\x04\x00\x03\x00",
        ),
        ("5.4.17", Message::Unsubscribe { msg_id: 3, topic: TopicSpec::Name("a/b") }, b"\x08\x14\x00\x00\x03a/b"),
        (
            "5.4.17 predefined",
            Message::Unsubscribe { msg_id: 3, topic: TopicSpec::Predefined(9) },
            b"\x07\x14\x01\x00\x03\x00\x09",
        ),
        ("5.4.18", Message::Unsuback(3), b"\x04\x15\x00\x03"),
        ("5.4.19", Message::Pingreq(None), b"\x02\x16"),
        ("5.4.19 of a sleeper", Message::Pingreq(Some("abc")), b"\x05\x16abc"),
        ("5.4.20", Message::Pingresp, b"\x02\x17"),
        ("5.4.21", Message::Disconnect(None), b"\x02\x18"),
        ("5.4.21 to sleep", Message::Disconnect(Some(300)), b"\x04\x18\x01\x2C"),
        ("5.4.22", Message::WillTopicUpd(Some(will)), b"\x04\x1A\x30w"),
        ("5.4.22 empty", Message::WillTopicUpd(None), b"\x02\x1A"),
        ("5.4.23", Message::WillMsgUpd(b"x"), b"\x03\x1Cx"),
        ("5.4.24", Message::WillTopicResp(ReturnCode::Accepted), b"\x03\x1B\x00"),
        ("5.4.25", Message::WillMsgResp(ReturnCode::NotSupported), b"\x03\x1D\x03"),
    ];
    for (name, message, bytes) in rows {
        let mut out = b"before".to_vec();
        message.encode(&mut out).unwrap();
        assert_eq!(&out[6..], *bytes, "{name}");
        assert_eq!(Datagram::decode(bytes), Ok(Datagram { forwarded: None, message: *message }), "{name}");
        assert_eq!(bytes[1], message.message_type().code(), "{name}");
        // 5.2.1: the long form says the same.
        let long = [&[0x01, 0x00, bytes.len() as u8 + 2], &bytes[1..]].concat();
        assert_eq!(Datagram::decode(&long).map(|datagram| datagram.message), Ok(*message), "{name}: long form");
        // 5.5: so does a forwarder.
        let forwarded = [&b"\x05\xFE\x02\xAA\xBB"[..], bytes].concat();
        let datagram =
            Datagram { forwarded: Some(Encapsulation { radius: 2, node: &[0xAA, 0xBB] }), message: *message };
        assert_eq!(Datagram::decode(&forwarded), Ok(datagram), "{name}: forwarded");
        let mut out = Vec::new();
        datagram.encode(&mut out).unwrap();
        assert_eq!(out, forwarded, "{name}: forwarded");
    }
    let types: std::collections::BTreeSet<_> = rows.iter().map(|(_, message, _)| message.message_type()).collect();
    assert_eq!(types.len() + 1, MessageType::ALL.len(), "every type but the encapsulation has a row");
}

#[test]
fn lengths_of_both_forms() {
    for (data, header, total) in [
        (248, &[255, 0x0C][..], 255),
        (249, &[0x01, 0x01, 0x02, 0x0C][..], 258),
        (65_526, &[0x01, 0xFF, 0xFF, 0x0C][..], 65_535),
    ] {
        let data = vec![7; data];
        let message = Message::Publish(Publish { data: &data, ..PUBLISH });
        let mut out = Vec::new();
        message.encode(&mut out).unwrap();
        assert_eq!((&out[..header.len()], out.len()), (header, total));
        assert_eq!(Datagram::decode(&out).map(|datagram| datagram.message), Ok(message));
    }
    let data = vec![7; 65_527];
    let mut out = b"before".to_vec();
    let message = Message::Publish(Publish { data: &data, ..PUBLISH });
    assert_eq!(message.encode(&mut out), Err(EncodeError::TooLong));
    let node = &[1; 253][..];
    let datagram = Datagram { forwarded: Some(Encapsulation { radius: 0, node }), message: Message::Pingresp };
    assert_eq!(datagram.encode(&mut out), Err(EncodeError::NodeIdTooLong));
    let datagram = Datagram { forwarded: Some(Encapsulation { radius: 0, node: &[1] }), message };
    assert_eq!(datagram.encode(&mut out), Err(EncodeError::TooLong));
    assert_eq!(out, b"before");
    assert_eq!(MESSAGE_BYTES_MAX, 65_535);
}

#[test]
fn datagrams_that_are_refused() {
    let rows: &[(&str, &[u8], ErrorKind, &str, usize)] = &[
        ("nothing", b"", ErrorKind::Truncated, "Length", 0),
        ("no type", b"\x02", ErrorKind::Truncated, "MsgType", 1),
        ("length 0", b"\x00\x17", ErrorKind::Length, "Length", 0),
        ("a long length cut off", b"\x01\x00", ErrorKind::Truncated, "Length", 1),
        ("a long length without itself", b"\x01\x00\x03\x17", ErrorKind::Length, "Length", 0),
        ("longer than the datagram", b"\x03\x17", ErrorKind::Truncated, "Length", 0),
        ("shorter than the datagram", b"\x02\x17\x00", ErrorKind::Trailing, "end", 2),
        ("5.2.2 reserved 03", b"\x02\x03", ErrorKind::UnknownType, "MsgType", 1),
        ("5.2.2 reserved 11", b"\x02\x11", ErrorKind::UnknownType, "MsgType", 1),
        ("5.2.2 reserved 19", b"\x02\x19", ErrorKind::UnknownType, "MsgType", 1),
        ("5.2.2 reserved 1E", b"\x02\x1E", ErrorKind::UnknownType, "MsgType", 1),
        ("5.2.2 reserved FF", b"\x02\xFF", ErrorKind::UnknownType, "MsgType", 1),
        ("5.4.20 with a body", b"\x03\x17\x00", ErrorKind::Trailing, "end", 2),
        ("5.4.21 half a duration", b"\x03\x18\x00", ErrorKind::Truncated, "Duration", 2),
        ("5.3.8 protocol 2", b"\x07\x04\x04\x02\x00\x00a", ErrorKind::ProtocolId, "ProtocolId", 3),
        ("5.3.1 no ClientId", b"\x06\x04\x04\x01\x00\x00", ErrorKind::Truncated, "ClientId", 6),
        ("5.3.1 not UTF-8", b"\x07\x04\x04\x01\x00\x00\xFF", ErrorKind::Text, "ClientId", 6),
        ("U+0000 in a topic", b"\x08\x0A\x00\x00\x00\x01a\x00", ErrorKind::Text, "TopicName", 6),
        ("5.3.4 topic id type 3", b"\x07\x0C\x03\x00\x01\x00\x00", ErrorKind::Flags, "TopicIdType", 2),
        ("5.3.4 topic id type 3", b"\x07\x12\x03\x00\x01\x00\x00", ErrorKind::Flags, "TopicIdType", 2),
        ("6.8 normal id", b"\x07\x0C\x60\x00\x01\x00\x00", ErrorKind::Flags, "QoS -1 with a normal topic id", 2),
        ("QoS -1 in SUBSCRIBE", b"\x06\x12\x60\x00\x01a", ErrorKind::Flags, "QoS -1", 2),
        ("QoS -1 in WILLTOPIC", b"\x04\x07\x60a", ErrorKind::Flags, "QoS -1", 2),
        ("QoS 1 without MsgId", b"\x07\x0C\x20\x00\x01\x00\x00", ErrorKind::MsgId, "MsgId", 5),
        ("PUBREL without MsgId", b"\x04\x10\x00\x00", ErrorKind::MsgId, "MsgId", 2),
        ("5.5 in another one", b"\x03\xFE\x00\x03\xFE\x00\x02\x17", ErrorKind::Nested, "MsgType", 3),
        ("5.5 without a message", b"\x04\xFE\x00\x01", ErrorKind::Truncated, "Length", 4),
        ("5.5 without Ctrl", b"\x02\xFE\x02\x17", ErrorKind::Truncated, "Ctrl", 2),
        ("5.5 and more", b"\x03\xFE\x00\x02\x17\x00", ErrorKind::Trailing, "end", 5),
    ];
    for (name, bytes, kind, what, at) in rows {
        let error = Datagram::decode(bytes).unwrap_err();
        assert_eq!((error.kind, error.what, error.at), (*kind, *what, *at), "{name}: {error}");
    }
    let error = Datagram::decode(b"\x07\x04\x04\x02\x00\x00a").unwrap_err();
    assert_eq!(error.to_string(), "ProtocolId in Connect: ProtocolId at byte 3");
}

#[test]
fn every_beginning_of_a_message_is_refused() {
    let whole = b"\x09\x0C\xD0\x00\x01\x01\x02xy";
    for len in 0..whole.len() {
        assert!(Datagram::decode(&whole[..len]).is_err(), "{len}");
        let mut fitting = whole[..len].to_vec();
        if let Some(first) = fitting.first_mut() {
            *first = len as u8;
        }
        assert_eq!(Datagram::decode(&fitting).is_ok(), len >= 7, "{len}");
    }
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-z/+#$]{1,20}", 1 => "[a-zé]{1,300}"]
}

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)]
}

/// What messages are made of.
#[derive(Debug, Clone)]
struct Pool {
    text: String,
    data: Vec<u8>,
    node: Option<Vec<u8>>,
    qos: QoS,
    code: u8,
    numbers: (u16, u16),
    flags: (bool, bool),
    radius: u8,
}

fn pools() -> impl Strategy<Value = Pool> {
    let rest = (qos(), any::<u8>(), (any::<u16>(), 1..=u16::MAX), any::<(bool, bool)>(), 0..4u8);
    (texts(), vec(any::<u8>(), 0..600), option::of(vec(any::<u8>(), 0..=252)), rest).prop_map(
        |(text, data, node, (qos, code, numbers, flags, radius))| Pool {
            text,
            data,
            node,
            qos,
            code,
            numbers,
            flags,
            radius,
        },
    )
}

fn all(pool: &Pool) -> Vec<Message<'_>> {
    let Pool { text, data, qos, numbers: (number, msg_id), flags: (one, other), .. } = pool;
    let (text, qos, number, msg_id, one, other) = (text.as_str(), *qos, *number, *msg_id, *one, *other);
    let code = ReturnCode::from(pool.code);
    let acked = ack(number, msg_id, code);
    let will = Some(WillTopic { qos, retain: one, topic: text });
    let mut messages = vec![
        Message::Advertise { gateway: pool.code, duration: number },
        Message::SearchGw { radius: pool.code },
        Message::GwInfo { gateway: pool.code, address: data },
        Message::Connect { will: one, clean_session: other, duration: number, client_id: text },
        Message::Connack(code),
        Message::WillTopicReq,
        Message::WillTopic(will),
        Message::WillTopic(None),
        Message::WillMsgReq,
        Message::WillMsg(data),
        Message::Register { topic_id: number, msg_id, topic: text },
        Message::Regack(acked),
        Message::Puback(acked),
        Message::Pubrec(msg_id),
        Message::Pubrel(msg_id),
        Message::Pubcomp(msg_id),
        Message::Suback { qos, ack: acked },
        Message::Unsuback(msg_id),
        Message::Pingreq(None),
        Message::Pingreq(Some(text)),
        Message::Pingresp,
        Message::Disconnect(None),
        Message::Disconnect(Some(number)),
        Message::WillTopicUpd(will),
        Message::WillTopicUpd(None),
        Message::WillTopicResp(code),
        Message::WillMsgUpd(data),
        Message::WillMsgResp(code),
    ];
    for topic in [TopicRef::Normal(number), TopicRef::Predefined(number), TopicRef::Short(number.to_be_bytes())] {
        let msg_id = if qos == QoS::AtMostOnce { 0 } else { msg_id };
        let publish = Publish { dup: one, qos: SnQoS::Mqtt(qos), retain: other, topic, msg_id, data };
        messages.push(Message::Publish(publish));
        if !matches!(topic, TopicRef::Normal(_)) {
            messages.push(Message::Publish(Publish { qos: SnQoS::MinusOne, msg_id: 0, ..publish }));
        }
    }
    for topic in [TopicSpec::Name(text), TopicSpec::Predefined(number), TopicSpec::Short(number.to_be_bytes())] {
        messages.push(Message::Subscribe { dup: one, qos, msg_id, topic });
        messages.push(Message::Unsubscribe { msg_id, topic });
    }
    messages
}

proptest! {
    #[test]
    fn what_is_written_is_read(pool in pools()) {
        for message in all(&pool) {
            let forwarded = pool.node.as_deref().map(|node| Encapsulation { radius: pool.radius, node });
            let datagram = Datagram { forwarded, message };
            let mut bytes = Vec::new();
            datagram.encode(&mut bytes).unwrap();
            prop_assert_eq!(Datagram::decode(&bytes), Ok(datagram));
        }
    }

    /// Whatever comes is refused, with a place inside it, or is a message that can be written and read again.
    #[test]
    fn any_bytes_are_safe(mut bytes in vec(any::<u8>(), 0..64), fit in any::<bool>(), small in any::<bool>()) {
        if small && bytes.len() > 1 {
            bytes[1] %= 0x20;
        }
        if fit && !bytes.is_empty() {
            bytes[0] = bytes.len() as u8;
        }
        check_any(&bytes)?;
    }

    #[test]
    fn a_changed_byte_is_safe(pool in pools(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        for message in all(&pool) {
            let forwarded = pool.node.as_deref().map(|node| Encapsulation { radius: pool.radius, node });
            let mut bytes = Vec::new();
            Datagram { forwarded, message }.encode(&mut bytes).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = to;
            check_any(&bytes)?;
        }
    }
}

fn check_any(bytes: &[u8]) -> Result<(), TestCaseError> {
    match Datagram::decode(bytes) {
        Ok(datagram) => {
            let mut out = Vec::new();
            datagram.encode(&mut out).unwrap();
            prop_assert_eq!(Datagram::decode(&out), Ok(datagram));
        }
        Err(error) => prop_assert!(error.at <= bytes.len(), "{}", error),
    }
    Ok(())
}
