//! The hot encoders: a PUBLISH from its parts, and the four acknowledgements.

use core::num::NonZeroU16;

use newtmq_base::planted;

use crate::frame::{DUP, RETAIN};
use crate::property::id;
use crate::wire::{put_varint, varint_len};
use crate::{MAX_REMAINING_LENGTH, PacketId, PacketType, ProtocolVersion, QoS, ReasonCode};

/// A PUBLISH to be sent, as parts that are already in the form of the wire.
#[derive(Debug, Clone, Copy)]
pub struct PublishOut<'a> {
    /// DUP.
    pub dup: bool,
    /// QoS level.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// Topic Name, at most 65,535 bytes; empty if the alias stands for it.
    pub topic: &'a [u8],
    /// Packet Identifier, exactly if the QoS is not 0.
    pub packet_id: Option<PacketId>,
    /// Topic Alias, not sent before MQTT 5.0.
    pub topic_alias: Option<NonZeroU16>,
    /// In seconds, not sent before MQTT 5.0.
    pub message_expiry_interval: Option<u32>,
    /// Subscription Identifiers, each 1 to 268,435,455; not sent before MQTT 5.0.
    pub subscription_identifiers: &'a [u32],
    /// Properties that are passed on unaltered, encoded
    /// ([`PublishProperties::write_forwardable`](crate::PublishProperties::write_forwardable)); not sent before
    /// MQTT 5.0.
    pub forwardable: &'a [u8],
    /// The Application Message's content.
    pub payload: &'a [u8],
}

impl PublishOut<'_> {
    /// How many bytes the whole packet takes, payload included: what the receiver's Maximum Packet Size limits
    /// \[MQTT-3.1.2-24\].
    #[inline]
    #[must_use]
    pub fn encoded_len(&self, version: ProtocolVersion) -> usize {
        let remaining = self.remaining_len(version, self.properties_len(version));
        1 + varint_len(remaining) + remaining
    }

    /// Appends the packet. A packet that exceeds the largest Remaining Length cannot be sent to anybody: then nothing
    /// is appended.
    #[inline]
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        if self.head(version, out, self.payload.len()) {
            out.extend_from_slice(self.payload);
        }
    }

    /// Appends everything but the payload's bytes, which the caller sends after it. Nothing is appended in the case
    /// that [`PublishOut::encode`] names.
    #[inline]
    pub fn encode_head(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        self.head(version, out, 0);
    }

    /// Appends the head with room for `more` bytes after it; tells whether the packet can be sent.
    #[inline]
    fn head(&self, version: ProtocolVersion, out: &mut Vec<u8>, more: usize) -> bool {
        debug_assert_eq!(self.packet_id.is_some(), self.qos != QoS::AtMostOnce, "[MQTT-2.2.1-2]");
        debug_assert!(self.topic.len() <= usize::from(u16::MAX), "a Topic Name has at most 65535 bytes");
        let properties_len = self.properties_len(version);
        let remaining = self.remaining_len(version, properties_len);
        if remaining > MAX_REMAINING_LENGTH {
            return false;
        }
        out.reserve(HEADER_LEN_MAX + remaining - self.payload.len() + more);
        let first = PacketType::Publish.first_byte()
            | if self.dup { DUP } else { 0 }
            | (self.qos as u8) << 1
            | if self.retain { RETAIN } else { 0 };
        let [high, low] = (self.topic.len() as u16).to_be_bytes();
        if remaining < 0x80 || planted!(RemainingLengthOneByte, remaining < 0x100) {
            out.extend_from_slice(&[first, remaining as u8, high, low]);
        } else {
            out.push(first);
            put_varint(out, remaining);
            out.extend_from_slice(&[high, low]);
        }
        out.extend_from_slice(self.topic);
        if let Some(packet_id) = self.packet_id {
            out.extend_from_slice(&packet_id.get().to_be_bytes());
        }
        if version == ProtocolVersion::V5 {
            self.properties(properties_len, out);
        }
        true
    }

    #[inline]
    fn properties(&self, len: usize, out: &mut Vec<u8>) {
        put_varint(out, len);
        if len == 0 {
            return;
        }
        if let Some(interval) = self.message_expiry_interval {
            let [a, b, c, d] = interval.to_be_bytes();
            out.extend_from_slice(&[id::MESSAGE_EXPIRY_INTERVAL, a, b, c, d]);
        }
        if let Some(alias) = self.topic_alias {
            let [high, low] = alias.get().to_be_bytes();
            out.extend_from_slice(&[id::TOPIC_ALIAS, high, low]);
        }
        for &identifier in self.subscription_identifiers {
            debug_assert!((1..=MAX_REMAINING_LENGTH).contains(&(identifier as usize)), "3.3.2.3.8");
            out.push(id::SUBSCRIPTION_IDENTIFIER);
            put_varint(out, identifier as usize);
        }
        out.extend_from_slice(self.forwardable);
    }

    /// The Property Length; 0 before MQTT 5.0.
    #[inline]
    fn properties_len(&self, version: ProtocolVersion) -> usize {
        if version < ProtocolVersion::V5 {
            return 0;
        }
        let alias = if self.topic_alias.is_some() { 3 } else { 0 };
        let expiry = if self.message_expiry_interval.is_some() { 5 } else { 0 };
        let mut len = alias + expiry + self.forwardable.len();
        for &identifier in self.subscription_identifiers {
            len += 1 + varint_len(identifier as usize);
        }
        len
    }

    #[inline]
    fn remaining_len(&self, version: ProtocolVersion, properties_len: usize) -> usize {
        let packet_id = if self.packet_id.is_some() { 2 } else { 0 };
        let properties = if version < ProtocolVersion::V5 { 0 } else { varint_len(properties_len) + properties_len };
        2 + self.topic.len() + packet_id + properties + self.payload.len()
    }
}

/// First byte and Remaining Length.
const HEADER_LEN_MAX: usize = 5;

/// Appends a PUBACK, PUBREC, PUBREL or PUBCOMP without properties: four bytes on success and before MQTT 5.0, else
/// five.
#[inline]
pub fn encode_ack(
    packet_type: PacketType,
    packet_id: PacketId,
    reason_code: ReasonCode,
    version: ProtocolVersion,
    out: &mut Vec<u8>,
) {
    debug_assert!((PacketType::Puback..=PacketType::Pubcomp).contains(&packet_type), "an acknowledgement");
    let first = packet_type.first_byte();
    let [high, low] = packet_id.get().to_be_bytes();
    if reason_code == ReasonCode::Success || version < ProtocolVersion::V5 {
        out.extend_from_slice(&[first, 2, high, low]);
    } else {
        out.extend_from_slice(&[first, 3, high, low, reason_code.code()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: PublishOut<'static> = PublishOut {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: b"a/b",
        packet_id: None,
        topic_alias: None,
        message_expiry_interval: None,
        subscription_identifiers: &[],
        forwardable: &[],
        payload: b"xy",
    };

    #[test]
    fn publishes() {
        use ProtocolVersion::{V5, V31, V311};
        let full = PublishOut {
            dup: true,
            qos: QoS::AtLeastOnce,
            retain: true,
            packet_id: PacketId::new(0x0102),
            topic_alias: NonZeroU16::new(3),
            message_expiry_interval: Some(4),
            subscription_identifiers: &[5, 300],
            forwardable: b"\x01\x01",
            ..PLAIN
        };
        let rows: &[(&str, PublishOut<'_>, ProtocolVersion, &[u8])] = &[
            ("QoS 0", PLAIN, V311, b"\x30\x07\0\x03a/bxy"),
            ("QoS 0", PLAIN, V31, b"\x30\x07\0\x03a/bxy"),
            ("QoS 0 with empty properties", PLAIN, V5, b"\x30\x08\0\x03a/b\0xy"),
            ("no properties before MQTT 5.0", full, V311, b"\x3B\x09\0\x03a/b\x01\x02xy"),
            (
                "everything",
                full,
                V5,
                b"\x3B\x19\0\x03a/b\x01\x02\x0F\x02\0\0\0\x04\x23\0\x03\x0B\x05\x0B\xAC\x02\x01\x01xy",
            ),
        ];
        for (name, publish, version, expected) in rows {
            let mut out = b"before".to_vec();
            publish.encode(*version, &mut out);
            assert_eq!(&out[6..], *expected, "{name} {version:?}");
            assert_eq!(publish.encoded_len(*version), expected.len(), "{name} {version:?}");
            let mut head = Vec::new();
            publish.encode_head(*version, &mut head);
            assert_eq!([&head, publish.payload].concat(), *expected, "{name} {version:?}");
        }
    }

    #[test]
    fn lengths_of_more_than_a_byte() {
        for len in [0x70, 0x7A, 0x7B, 0x80, 0x3FF9, 0x3FFA, 0x3FFB, 0x4000, 0x20_0000] {
            let payload = vec![7; len];
            let publish = PublishOut { payload: &payload, ..PLAIN };
            let mut out = Vec::new();
            publish.encode(ProtocolVersion::V5, &mut out);
            assert_eq!(out.len(), publish.encoded_len(ProtocolVersion::V5));
            let mut input = &*out;
            let mut decoder = crate::Decoder::new();
            let raw = decoder.next(&mut input, u32::MAX).unwrap().unwrap().publish(ProtocolVersion::V5).unwrap();
            assert_eq!((raw.payload.len(), input), (len, &[][..]));
        }
    }

    #[test]
    fn what_exceeds_the_remaining_length_is_not_written() {
        let payload = vec![0; MAX_REMAINING_LENGTH - 4];
        let publish = PublishOut { payload: &payload, ..PLAIN };
        let mut out = Vec::new();
        publish.encode_head(ProtocolVersion::V311, &mut out);
        assert!(out.is_empty());
        assert!(publish.encoded_len(ProtocolVersion::V311) > MAX_REMAINING_LENGTH);
        PublishOut { payload: &payload[1..], ..PLAIN }.encode_head(ProtocolVersion::V311, &mut out);
        assert_eq!(out, b"\x30\xFF\xFF\xFF\x7F\0\x03a/b");
    }

    #[test]
    fn acknowledgements() {
        use ProtocolVersion::{V5, V311};
        let not_found = ReasonCode::PacketIdentifierNotFound;
        let rows: &[(PacketType, ReasonCode, ProtocolVersion, &[u8])] = &[
            (PacketType::Puback, ReasonCode::Success, V311, b"\x40\x02\x01\x02"),
            (PacketType::Pubrec, ReasonCode::Success, V5, b"\x50\x02\x01\x02"),
            (PacketType::Pubrel, ReasonCode::Success, V5, b"\x62\x02\x01\x02"),
            (PacketType::Pubcomp, not_found, V5, b"\x70\x03\x01\x02\x92"),
            (PacketType::Pubcomp, not_found, V311, b"\x70\x02\x01\x02"),
        ];
        for (packet_type, reason, version, expected) in rows {
            let mut out = Vec::new();
            encode_ack(*packet_type, PacketId::new(0x0102).unwrap(), *reason, *version, &mut out);
            assert_eq!(out, *expected, "{packet_type:?} {reason} {version:?}");
        }
    }
}
