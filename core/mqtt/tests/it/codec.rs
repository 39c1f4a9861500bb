//! One packet at a time.

use newtmq_mqtt::{
    Decoder, Frame, MAX_REMAINING_LENGTH, Packet, ProtocolVersion, PublishOut, PublishProperties, QoS, Sender,
    TopicFilter, TopicName,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::packets::{VERSIONS, all, pools};

const SENDERS: [Sender; 2] = [Sender::Client, Sender::Server];

/// The only packet in `bytes`.
fn frame(bytes: &[u8]) -> Frame<'_> {
    let mut input = bytes;
    let header = 1 + bytes[1..].iter().take_while(|&&byte| byte >= 0x80).count() + 1;
    let frame = Decoder::new().next(&mut input, u32::MAX).unwrap().map(|frame| frame.first).unwrap();
    assert!(input.is_empty());
    Frame { first: frame, body: &bytes[header..], bytes }
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(pool in pools()) {
        let parts = pool.parts();
        for version in VERSIONS {
            for sender in SENDERS {
                for packet in all(&parts, version, sender) {
                    let mut bytes = Vec::new();
                    packet.encode(version, &mut bytes).unwrap();
                    let decoded = frame(&bytes).decode(version, sender).unwrap();
                    match (&packet, &decoded, version) {
                        // There a failure is 0x80 whatever it was.
                        (Packet::Suback(sent), Packet::Suback(got), ProtocolVersion::V31 | ProtocolVersion::V311) => {
                            let sent = sent.reason_codes.iter().map(|code| code.code().min(0x80));
                            prop_assert!(sent.eq(got.reason_codes.iter().map(|code| code.code())));
                        }
                        (_, _, _) => prop_assert_eq!(&decoded, &packet),
                    }
                    let mut again = Vec::new();
                    decoded.encode(version, &mut again).unwrap();
                    prop_assert_eq!(again, bytes);
                }
            }
        }
    }

    /// The hot path and the full one read the same out of a PUBLISH and write the same.
    #[test]
    fn both_ways_to_handle_a_publish_agree(pool in pools()) {
        let parts = pool.parts();
        for version in VERSIONS {
            for packet in all(&parts, version, Sender::Server) {
                let Packet::Publish(publish) = packet else { continue };
                let mut bytes = Vec::new();
                packet.encode(version, &mut bytes).unwrap();
                let raw = frame(&bytes).publish(version).unwrap();
                prop_assert_eq!((raw.dup, raw.qos, raw.retain), (publish.dup, publish.qos, publish.retain));
                prop_assert_eq!(raw.topic, publish.topic.map_or("", TopicName::as_str).as_bytes());
                prop_assert_eq!((raw.packet_id, raw.payload), (publish.packet_id, publish.payload));
                let properties = PublishProperties::decode(raw.properties, Sender::Server).unwrap();
                prop_assert_eq!(properties, publish.properties);

                let mut forwardable = Vec::new();
                properties.write_forwardable(&mut forwardable);
                let identifiers: Vec<_> = properties.subscription_identifiers().collect();
                let out = PublishOut {
                    dup: raw.dup,
                    qos: raw.qos,
                    retain: raw.retain,
                    topic: raw.topic,
                    packet_id: raw.packet_id,
                    topic_alias: properties.topic_alias,
                    message_expiry_interval: properties.message_expiry_interval,
                    subscription_identifiers: &identifiers,
                    forwardable: &forwardable,
                    payload: raw.payload,
                };
                let mut hot = Vec::new();
                out.encode(version, &mut hot);
                prop_assert_eq!(hot.len(), out.encoded_len(version));
                prop_assert_eq!(hot, bytes);
            }
        }
    }

    /// Whatever a packet's body is, it is refused or it is a packet that can be written.
    #[test]
    fn any_body_is_safe(first in any::<u8>(), mut body in vec(any::<u8>(), 0..60), small in any::<bool>()) {
        if small {
            // Small numbers are lengths that fit, and property identifiers.
            body.iter_mut().for_each(|byte| *byte %= 0x2B);
        }
        for version in VERSIONS {
            for sender in SENDERS {
                let frame = Frame { first, body: &body, bytes: &body };
                let _ = frame.publish(version);
                if let Ok(packet) = frame.decode(version, sender) {
                    let mut bytes = Vec::new();
                    packet.encode(version, &mut bytes).unwrap();
                    let shown = format!("{packet:?}");
                    prop_assert!(!shown.is_empty());
                }
                let _ = PublishProperties::decode(&body, sender);
            }
        }
    }

    /// A packet with one byte changed is refused, or decoded to what can be encoded and decoded again.
    #[test]
    fn a_changed_byte_is_safe(pool in pools(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let parts = pool.parts();
        for version in VERSIONS {
            for sender in SENDERS {
                for packet in all(&parts, version, sender) {
                    let mut bytes = Vec::new();
                    packet.encode(version, &mut bytes).unwrap();
                    let at = at.index(bytes.len());
                    bytes[at] = to;
                    let mut input = &*bytes;
                    let mut decoder = Decoder::new();
                    let Ok(Some(frame)) = decoder.next(&mut input, u32::MAX) else { continue };
                    let Ok(packet) = frame.decode(version, sender) else { continue };
                    let mut again = Vec::new();
                    packet.encode(version, &mut again).unwrap();
                    let mut input = &*again;
                    let mut decoder = Decoder::new();
                    let frame = decoder.next(&mut input, u32::MAX).unwrap().unwrap();
                    prop_assert_eq!(frame.decode(version, sender), Ok(packet));
                }
            }
        }
    }

    /// Topic Names and Topic Filters by another definition: matching as a search over both texts' levels.
    #[test]
    fn matching_is_what_it_says(
        filter in r"\$?([ab]{0,2}|\+)(/([ab]{0,2}|\+)){0,3}(/#)?",
        topic in r"\$?[ab]{0,2}(/[ab]{0,2}){0,3}",
    ) {
        let (Ok(filter), Ok(topic)) = (TopicFilter::new(&filter), TopicName::new(&topic)) else { return Ok(()) };
        fn search(filter: &[&str], topic: &[&str]) -> bool {
            match (filter, topic) {
                (["#"], _) | ([], []) => true,
                (["+", filter @ ..], [_, topic @ ..]) => search(filter, topic),
                ([wanted, filter @ ..], [level, topic @ ..]) => wanted == level && search(filter, topic),
                ([], [_, ..]) | ([_, ..], []) => false,
            }
        }
        let levels: Vec<_> = filter.filter().split('/').collect();
        let hidden = topic.as_str().starts_with('$') && matches!(levels[0], "+" | "#");
        let expected = !hidden && search(&levels, &topic.levels().collect::<Vec<_>>());
        prop_assert_eq!(filter.matches(topic), expected);
    }
}

/// 1.5.5: the largest packet that exists passes through.
#[test]
fn the_largest_packet() {
    let payload = vec![0; MAX_REMAINING_LENGTH - 3];
    let publish = PublishOut {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: b"t",
        packet_id: None,
        topic_alias: None,
        message_expiry_interval: None,
        subscription_identifiers: &[],
        forwardable: &[],
        payload: &payload,
    };
    let mut bytes = Vec::new();
    publish.encode(ProtocolVersion::V311, &mut bytes);
    assert_eq!(bytes.len(), MAX_REMAINING_LENGTH + 5);
    let max_packet_size = bytes.len() as u32;
    assert!(matches!(Decoder::new().next(&mut &*bytes, max_packet_size), Ok(Some(_))));
    assert!(Decoder::new().next(&mut &*bytes, max_packet_size - 1).is_err());
}
