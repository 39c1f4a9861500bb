//! Framing (2.1): whole packets out of a byte stream, and the parts of a PUBLISH without validation.

use newtmq_base::planted;

use crate::wire::{Reader, Varint, varint};
use crate::{Ack, DecodeError, ErrorKind, Packet, PacketId, PacketType, ProtocolVersion, QoS, ReasonCode, Sender};

/// Cuts a byte stream into packets.
///
/// What arrives whole is never copied. Of a packet that arrives in parts the parts are kept until it is complete; the
/// decoder never holds more than it received, and less than one packet of the permitted size.
#[derive(Default)]
pub struct Decoder {
    /// The beginning of a packet; without capacity while there is none.
    partial: Vec<u8>,
    /// `partial` is a whole packet that was handed out: the next call lets it go.
    complete: bool,
}

impl core::fmt::Debug for Decoder {
    /// Without the bytes: of a CONNECT they may hold a password.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Decoder({} B, complete: {})", self.partial.len(), self.complete)
    }
}

impl Decoder {
    /// A decoder at the beginning of a stream. It owns no memory while it waits for no packet's rest.
    #[must_use]
    pub const fn new() -> Decoder {
        Decoder { partial: Vec::new(), complete: false }
    }

    /// The next packet, taken off the front of `input`; `None` if `input` holds no more than a packet's beginning,
    /// which the decoder then keeps, so that `input` is empty.
    ///
    /// A packet that is malformed in its first bytes, or announces more than `max_packet_size` bytes (counted as in
    /// 3.1.2.11.4: header and all), is an error as soon as these bytes are there. After an error the stream is of no
    /// further use.
    #[inline]
    pub fn next<'s, 'i: 's>(
        &'s mut self,
        input: &mut &'i [u8],
        max_packet_size: u32,
    ) -> Result<Option<Frame<'s>>, DecodeError> {
        if !self.partial.is_empty() {
            if !self.complete {
                return self.next_in_parts(input, max_packet_size);
            }
            self.release();
        }
        let data = *input;
        if let Some(header) = Header::parse(data, max_packet_size)?
            && let Some((bytes, rest)) = data.split_at_checked(header.packet_len)
        {
            *input = rest;
            return Ok(Some(header.frame(bytes)));
        }
        if !data.is_empty() {
            *input = &[];
            self.partial.extend_from_slice(data);
        }
        Ok(None)
    }

    /// How many bytes of an incomplete packet are kept.
    #[inline]
    #[must_use]
    pub const fn buffered(&self) -> usize {
        if self.complete { 0 } else { self.partial.len() }
    }

    #[cold]
    fn release(&mut self) {
        self.partial = Vec::new();
        self.complete = false;
    }

    /// Takes what completes the packet whose beginning is kept.
    #[inline(never)]
    fn next_in_parts(&mut self, input: &mut &[u8], max_packet_size: u32) -> Result<Option<Frame<'_>>, DecodeError> {
        let header = loop {
            if let Some(header) = Header::parse(&self.partial, max_packet_size)? {
                break header;
            }
            let Some((&byte, rest)) = input.split_first() else { return Ok(None) };
            *input = rest;
            self.partial.push(byte);
        };
        let missing = header.packet_len - self.partial.len();
        let (bytes, rest) = input.split_at(missing.min(input.len()));
        *input = rest;
        self.keep(bytes, header.packet_len);
        if bytes.len() < missing {
            return Ok(None);
        }
        if planted!(DecoderDropsRest, !input.is_empty()) {
            *input = &[];
        }
        self.complete = true;
        Ok(Some(header.frame(&self.partial)))
    }

    /// Appends with room to grow, but never beyond the packet nor by more than doubling what was received.
    fn keep(&mut self, bytes: &[u8], packet_len: usize) {
        let len = self.partial.len() + bytes.len();
        if len > self.partial.capacity() {
            let capacity = packet_len.min(2 * len);
            self.partial.reserve_exact(capacity - self.partial.len());
        }
        self.partial.extend_from_slice(bytes);
    }
}

/// A fixed header (2.1.1) that is complete and not wrong.
#[derive(Debug, Clone, Copy)]
struct Header {
    first: u8,
    len: usize,
    packet_len: usize,
}

impl Header {
    #[inline]
    fn parse(data: &[u8], max_packet_size: u32) -> Result<Option<Header>, DecodeError> {
        let Some((&first, rest)) = data.split_first() else { return Ok(None) };
        if FLAGS_ALLOWED[usize::from(first >> 4)] >> (first & 0x0F) & 1 == 0 {
            return Err(wrong_first_byte(first));
        }
        match varint(rest) {
            Varint::Value { value, len } => {
                let header = Header { first, len: 1 + len, packet_len: 1 + len + value as usize };
                if header.packet_len > max_packet_size as usize {
                    return Err(DecodeError::new(ErrorKind::PacketTooLarge, "Remaining Length"));
                }
                Ok(Some(header))
            }
            Varint::Incomplete => Ok(None),
            Varint::Malformed => Err(DecodeError::malformed("Remaining Length")),
        }
    }

    #[inline]
    fn frame(self, bytes: &[u8]) -> Frame<'_> {
        Frame { first: self.first, body: &bytes[self.len..], bytes }
    }
}

/// Per packet type, bit n: the flags may be n [MQTT-2.1.3-1]. Of PUBLISH all but QoS 3 [MQTT-3.3.1-4]; type 0 has none.
/// In MQTT 3.1 also a PUBREL, SUBSCRIBE or UNSUBSCRIBE that is sent again has DUP: [`Frame::check_dup`] tells it from a
/// later version, which the fixed header does not say.
const FLAGS_ALLOWED: [u16; 16] = {
    let mut allowed = [1; 16];
    allowed[0] = 0;
    allowed[PacketType::Publish as usize] = 0b0011_1111_0011_1111;
    allowed[PacketType::Pubrel as usize] = 1 << 2 | 1 << (2 | DUP);
    allowed[PacketType::Subscribe as usize] = 1 << 2 | 1 << (2 | DUP);
    allowed[PacketType::Unsubscribe as usize] = 1 << 2 | 1 << (2 | DUP);
    allowed
};

#[cold]
fn wrong_first_byte(first: u8) -> DecodeError {
    match PacketType::from_first_byte(first) {
        None => DecodeError::malformed("control packet type 0"),
        Some(PacketType::Publish) => DecodeError::malformed("PUBLISH with QoS 3"),
        Some(_) => DecodeError::malformed("reserved flags of the fixed header"),
    }
}

/// A whole packet whose fixed header was checked, and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The first byte: packet type and flags.
    pub first: u8,
    /// What follows the fixed header.
    pub body: &'a [u8],
    /// The whole packet.
    pub bytes: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The packet's type.
    ///
    /// # Panics
    /// If `first` names the reserved type 0, which no frame of a [`Decoder`] does.
    #[inline]
    #[must_use]
    pub const fn packet_type(&self) -> PacketType {
        PacketType::from_first_byte(self.first).expect("a Decoder refuses type 0")
    }

    /// Decodes and validates everything in it. `version` is that of the connection; a CONNECT brings its own.
    pub fn decode(self, version: ProtocolVersion, sender: Sender) -> Result<Packet<'a>, DecodeError> {
        Packet::decode(self, version, sender)
    }

    /// Decodes PUBACK, PUBREC, PUBREL or PUBCOMP: the same as [`Frame::decode`] without the detour over [`Packet`].
    #[inline]
    pub fn ack(self, version: ProtocolVersion) -> Result<Ack<'a>, DecodeError> {
        self.check_dup(version)?;
        if let [high, low] = *self.body
            && let Some(packet_id) = PacketId::new(u16::from_be_bytes([high, low]))
        {
            return Ok(Ack::new(packet_id, ReasonCode::Success));
        }
        Ack::decode(self.packet_type(), Reader::new(self.body), version)
    }

    /// Only MQTT 3.1 knows DUP in other packets than PUBLISH (its section 2.1) [MQTT-2.1.3-1].
    #[inline]
    pub(crate) fn check_dup(self, version: ProtocolVersion) -> Result<(), DecodeError> {
        let dup = self.first & DUP != 0 && self.first >> 4 != PacketType::Publish as u8;
        if dup && version != ProtocolVersion::V31 { Err(wrong_first_byte(self.first)) } else { Ok(()) }
    }

    /// The parts of a PUBLISH (3.3). Topic and properties are not validated.
    #[inline]
    pub fn publish(self, version: ProtocolVersion) -> Result<RawPublish<'a>, DecodeError> {
        let Some(qos) = QoS::from_bits(self.first >> 1 & 3) else { return Err(wrong_first_byte(self.first)) };
        let dup = self.first & DUP != 0;
        if self.first >> 4 != PacketType::Publish as u8 {
            return Err(DecodeError::protocol("PUBLISH expected"));
        }
        // [MQTT-3.3.1-2]
        if dup && qos == QoS::AtMostOnce {
            return Err(DecodeError::malformed("DUP with QoS 0"));
        }
        let mut rest = Reader::new(self.body);
        let topic = rest.binary("Topic Name")?;
        let packet_id = if qos == QoS::AtMostOnce { None } else { Some(rest.packet_id()?) };
        let properties = if version == ProtocolVersion::V5 { rest.property_block()? } else { &[] };
        Ok(RawPublish {
            dup,
            qos,
            retain: self.first & RETAIN != 0,
            topic,
            packet_id,
            properties,
            payload: rest.rest(),
        })
    }
}

/// The DUP flag of the first byte (3.3.1.1).
pub(crate) const DUP: u8 = 0x08;
/// The RETAIN flag of a PUBLISH's first byte (3.3.1.3).
pub(crate) const RETAIN: u8 = 0x01;

/// The parts of a PUBLISH as they were received (3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawPublish<'a> {
    /// DUP: it may be a re-delivery.
    pub dup: bool,
    /// QoS level.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// Topic Name, not validated; may be empty in MQTT 5.0, where a Topic Alias can stand for it.
    pub topic: &'a [u8],
    /// Packet Identifier, exactly if the QoS is not 0 \[MQTT-2.2.1-2\].
    pub packet_id: Option<PacketId>,
    /// The property block without its length, not validated; empty before MQTT 5.0.
    pub properties: &'a [u8],
    /// The Application Message's content.
    pub payload: &'a [u8],
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u32 = 1_000;

    #[test]
    fn fixed_headers() {
        let rows: &[(&str, &[u8], ReasonCode)] = &[
            ("2.1.2 type 0", &[0x00], ReasonCode::MalformedPacket),
            ("[MQTT-2.1.3-1] CONNECT", &[0x11], ReasonCode::MalformedPacket),
            ("[MQTT-2.1.3-1] PUBACK", &[0x42], ReasonCode::MalformedPacket),
            ("[MQTT-3.6.1-1] PUBREL", &[0x60], ReasonCode::MalformedPacket),
            ("[MQTT-3.8.1-1] SUBSCRIBE", &[0x80], ReasonCode::MalformedPacket),
            ("[MQTT-3.10.1-1] UNSUBSCRIBE", &[0xA3], ReasonCode::MalformedPacket),
            ("[MQTT-3.14.1-1] DISCONNECT", &[0xE1], ReasonCode::MalformedPacket),
            ("[MQTT-3.15.1-1] AUTH", &[0xF8], ReasonCode::MalformedPacket),
            ("[MQTT-3.3.1-4] QoS 3", &[0x36], ReasonCode::MalformedPacket),
            ("1.5.5 five bytes", &[0xC0, 0x80, 0x80, 0x80, 0x80], ReasonCode::MalformedPacket),
            ("[MQTT-1.5.5-1]", &[0xC0, 0x80, 0x00], ReasonCode::MalformedPacket),
            ("[MQTT-3.2.2-15]", &[0x30, 0xE6, 0x07], ReasonCode::PacketTooLarge),
        ];
        for (name, bytes, reason) in rows {
            let mut input = *bytes;
            assert_eq!(Decoder::new().next(&mut input, MAX).unwrap_err().reason, *reason, "{name}: whole");
            let (last, before) = bytes.split_last().unwrap();
            let mut decoder = Decoder::new();
            for byte in before {
                assert_eq!(decoder.next(&mut core::slice::from_ref(byte), MAX), Ok(None), "{name}: not yet wrong");
            }
            let mut input = core::slice::from_ref(last);
            assert_eq!(decoder.next(&mut input, MAX).unwrap_err().reason, *reason, "{name}: as soon as it is wrong");
        }
        let allowed: u32 = FLAGS_ALLOWED.iter().map(|flags| flags.count_ones()).sum();
        assert_eq!(allowed, 14 + 12 + 3, "one value of the flags for each type, 12 for PUBLISH, DUP for three more");
    }

    #[test]
    fn whole_packets_are_not_copied() {
        let stream = [0xC0, 0x00, 0x40, 0x02, 0x00, 0x01, 0xE0];
        let mut input = &stream[..];
        let mut decoder = Decoder::new();
        let frame = decoder.next(&mut input, MAX).unwrap().unwrap();
        assert_eq!((frame.packet_type(), frame.body, frame.bytes), (PacketType::Pingreq, &[][..], &stream[..2]));
        let frame = decoder.next(&mut input, MAX).unwrap().unwrap();
        assert_eq!((frame.packet_type(), frame.body, frame.bytes), (PacketType::Puback, &[0, 1][..], &stream[2..6]));
        assert_eq!(frame.bytes.as_ptr(), stream[2..].as_ptr());
        assert_eq!(decoder.partial.capacity(), 0);
        assert_eq!(decoder.next(&mut input, MAX), Ok(None));
        assert_eq!((input, decoder.buffered()), (&[][..], 1));
    }

    #[test]
    fn memory_follows_what_was_received() {
        let mut decoder = Decoder::new();
        let announced = [0x30, 0xFF, 0xFF, 0xFF, 0x7F];
        assert_eq!(decoder.next(&mut &announced[..], u32::MAX), Ok(None));
        for len in (announced.len()..5_000).step_by(7) {
            assert_eq!(decoder.buffered(), len);
            assert!(decoder.partial.capacity() <= 2 * len, "{} for {len}", decoder.partial.capacity());
            assert_eq!(decoder.next(&mut &[0; 7][..], u32::MAX), Ok(None));
        }
    }

    #[test]
    fn the_buffer_is_released_with_the_packet() {
        assert!(size_of::<Decoder>() <= 32);
        let mut decoder = Decoder::new();
        assert_eq!(decoder.next(&mut &[0x40, 0x02, 0x00][..], MAX), Ok(None));
        let mut input = &[0x07, 0xC0, 0x00][..];
        let frame = decoder.next(&mut input, MAX).unwrap().unwrap();
        assert_eq!(frame.bytes, [0x40, 0x02, 0x00, 0x07]);
        assert_eq!((input, decoder.buffered()), (&[0xC0, 0x00][..], 0));
        assert_eq!(decoder.next(&mut input, MAX).unwrap().unwrap().packet_type(), PacketType::Pingreq);
        assert_eq!(decoder.next(&mut input, MAX), Ok(None));
        assert_eq!(decoder.partial.capacity(), 0);
    }

    #[test]
    fn parts_of_a_publish() {
        use ProtocolVersion::{V5, V311};
        let ok = |bytes: &'static [u8], version| {
            let mut input = bytes;
            let frame = Decoder::new().next(&mut input, MAX).unwrap().map(|f| (f.first, f.body.len()));
            let (first, len) = frame.unwrap();
            Frame { first, body: &bytes[bytes.len() - len..], bytes }.publish(version)
        };
        let raw = ok(b"\x3D\x0A\0\x03a/b\x12\x34xyz", V311).unwrap();
        assert_eq!((raw.dup, raw.qos, raw.retain), (true, QoS::ExactlyOnce, true));
        assert_eq!((raw.topic, raw.packet_id), (&b"a/b"[..], PacketId::new(0x1234)));
        assert_eq!((raw.properties, raw.payload), (&b""[..], &b"xyz"[..]));
        let raw = ok(b"\x30\x08\0\x01a\x02\x01\x01xy", V5).unwrap();
        assert_eq!((raw.packet_id, raw.properties, raw.payload), (None, &b"\x01\x01"[..], &b"xy"[..]));
        let rows: &[(&str, &[u8], ProtocolVersion, ReasonCode)] = &[
            ("[MQTT-3.3.1-2] DUP with QoS 0", b"\x38\x03\0\x01a", V311, ReasonCode::MalformedPacket),
            ("[MQTT-2.2.1-3] identifier 0", b"\x32\x05\0\x01a\0\0", V311, ReasonCode::ProtocolError),
            ("identifier cut off", b"\x32\x04\0\x01a\0", V311, ReasonCode::MalformedPacket),
            ("topic cut off", b"\x30\x02\0\x01", V311, ReasonCode::MalformedPacket),
            ("no Property Length", b"\x30\x03\0\x01a", V5, ReasonCode::MalformedPacket),
            ("properties cut off", b"\x30\x05\0\x01a\x02\x01", V5, ReasonCode::MalformedPacket),
            ("no PUBLISH", b"\xC0\x00", V5, ReasonCode::ProtocolError),
        ];
        for (name, bytes, version, reason) in rows {
            assert_eq!(ok(bytes, *version).unwrap_err().reason, *reason, "{name}");
        }
    }
}
