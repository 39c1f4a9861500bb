//! The data representations of section 1.5, read from a slice and appended to a vector.

use crate::{DecodeError, EncodeError, PacketId};

/// The largest Remaining Length, and the largest variable byte integer (1.5.5).
pub const MAX_REMAINING_LENGTH: usize = 268_435_455;

/// What is left of a packet. Each read names its field, which an error repeats.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) const fn new(rest: &'a [u8]) -> Reader<'a> {
        Reader { rest }
    }

    #[inline]
    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(crate) fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        let (&byte, rest) = self.rest.split_first().ok_or(DecodeError::malformed(what))?;
        self.rest = rest;
        Ok(byte)
    }

    #[inline]
    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(DecodeError::malformed(what))?;
        self.rest = rest;
        Ok(*bytes)
    }

    #[inline]
    pub(crate) fn u16(&mut self, what: &'static str) -> Result<u16, DecodeError> {
        self.array(what).map(u16::from_be_bytes)
    }

    #[inline]
    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        self.array(what).map(u32::from_be_bytes)
    }

    /// Variable byte integer (1.5.5).
    #[inline]
    pub(crate) fn varint(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        match varint(self.rest) {
            Varint::Value { value, len } => {
                self.rest = &self.rest[len..];
                Ok(value)
            }
            Varint::Incomplete | Varint::Malformed => Err(DecodeError::malformed(what)),
        }
    }

    #[inline]
    pub(crate) fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::malformed(what))?;
        self.rest = rest;
        Ok(bytes)
    }

    /// Binary data (1.5.6).
    #[inline]
    pub(crate) fn binary(&mut self, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let len = self.u16(what)?;
        self.take(usize::from(len), what)
    }

    /// UTF-8 encoded string (1.5.4): ill-formed UTF-8 [MQTT-1.5.4-1] and U+0000 [MQTT-1.5.4-2] are malformed.
    #[inline]
    pub(crate) fn string(&mut self, what: &'static str) -> Result<&'a str, DecodeError> {
        let bytes = self.binary(what)?;
        match core::str::from_utf8(bytes) {
            Ok(text) if !bytes.contains(&0) => Ok(text),
            Ok(_) | Err(_) => Err(DecodeError::malformed(what)),
        }
    }

    /// Packet Identifier, which is never 0 [MQTT-2.2.1-3].
    #[inline]
    pub(crate) fn packet_id(&mut self) -> Result<PacketId, DecodeError> {
        let what = "Packet Identifier";
        PacketId::new(self.u16(what)?).ok_or(DecodeError::protocol(what))
    }

    /// The property block with its length (2.2.2).
    #[inline]
    pub(crate) fn property_block(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = self.varint("Property Length")?;
        self.take(len as usize, "Property Length")
    }

    /// Nothing may follow what the specification puts into a packet.
    #[inline]
    pub(crate) const fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::malformed("bytes after the end of the payload")) }
    }
}

/// What stands at the beginning of a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Varint {
    /// A whole integer, and how many bytes it takes.
    Value { value: u32, len: usize },
    /// Its last byte is still to come.
    Incomplete,
    /// Longer than four bytes, or not the shortest form [MQTT-1.5.5-1].
    Malformed,
}

/// Variable byte integer (1.5.5).
#[inline]
pub(crate) fn varint(bytes: &[u8]) -> Varint {
    match bytes.first() {
        Some(&byte) if byte < 0x80 => Varint::Value { value: u32::from(byte), len: 1 },
        Some(_) => long_varint(bytes),
        None => Varint::Incomplete,
    }
}

fn long_varint(bytes: &[u8]) -> Varint {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte < 0x80 {
            let shortest = byte != 0 || index == 0;
            return if shortest { Varint::Value { value, len: index + 1 } } else { Varint::Malformed };
        }
    }
    if bytes.len() < 4 { Varint::Incomplete } else { Varint::Malformed }
}

/// How many bytes a variable byte integer takes.
#[inline]
pub(crate) const fn varint_len(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

/// Appends a variable byte integer; `value` is at most [`MAX_REMAINING_LENGTH`].
#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, value: usize) {
    let mut value = value;
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends binary data or a string with its length.
pub(crate) fn put_binary(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), EncodeError> {
    let len = u16::try_from(bytes.len()).map_err(|_| EncodeError::FieldTooLong)?;
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

/// Lets `body` append, and puts the variable byte integer of the appended length before it.
pub(crate) fn with_length(
    out: &mut Vec<u8>,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    body(out)?;
    let len = out.len() - start;
    if len > MAX_REMAINING_LENGTH {
        return Err(EncodeError::PacketTooLarge);
    }
    put_varint(out, len);
    out[start..].rotate_right(varint_len(len));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1.5.5, table 1-1.
    #[test]
    fn variable_byte_integers() {
        let value = |value, len| Varint::Value { value, len };
        let rows: &[(&str, &[u8], Varint)] = &[
            ("nothing", &[], Varint::Incomplete),
            ("smallest of 1", &[0x00], value(0, 1)),
            ("largest of 1", &[0x7F], value(127, 1)),
            ("smallest of 2", &[0x80, 0x01], value(128, 2)),
            ("largest of 2", &[0xFF, 0x7F], value(16_383, 2)),
            ("smallest of 3", &[0x80, 0x80, 0x01], value(16_384, 3)),
            ("largest of 3", &[0xFF, 0xFF, 0x7F], value(2_097_151, 3)),
            ("smallest of 4", &[0x80, 0x80, 0x80, 0x01], value(2_097_152, 4)),
            ("largest of 4", &[0xFF, 0xFF, 0xFF, 0x7F], value(268_435_455, 4)),
            ("what follows is not looked at", &[0x05, 0xFF], value(5, 1)),
            ("1 of more", &[0x80], Varint::Incomplete),
            ("3 of more", &[0x80, 0x80, 0x80], Varint::Incomplete),
            ("more than 4", &[0x80, 0x80, 0x80, 0x80], Varint::Malformed),
            ("5", &[0x80, 0x80, 0x80, 0x80, 0x01], Varint::Malformed),
            ("[MQTT-1.5.5-1] 0 in 2", &[0x80, 0x00], Varint::Malformed),
            ("[MQTT-1.5.5-1] 127 in 3", &[0xFF, 0x80, 0x00], Varint::Malformed),
        ];
        for (name, bytes, expected) in rows {
            assert_eq!(varint(bytes), *expected, "{name}");
            if let Varint::Value { value, len } = *expected {
                let mut out = Vec::new();
                put_varint(&mut out, value as usize);
                assert_eq!((&*out, out.len()), (&bytes[..len], varint_len(value as usize)), "{name}");
            }
        }
    }

    #[test]
    fn strings() {
        let rows: &[(&str, &[u8], Option<&str>)] = &[
            ("empty", b"\0\0", Some("")),
            ("1.5.4", b"\0\x05A\xF0\xAA\x9B\x94", Some("A\u{2A6D4}")),
            ("cut off", b"\0\x02a", None),
            ("length cut off", b"\0", None),
            ("[MQTT-1.5.4-1] surrogate", b"\0\x03\xED\xA0\x80", None),
            ("[MQTT-1.5.4-1] beyond U+10FFFF", b"\0\x04\xF4\x90\x80\x80", None),
            ("[MQTT-1.5.4-2]", b"\0\x01\0", None),
            ("[MQTT-1.5.4-3]", b"\0\x03\xEF\xBB\xBF", Some("\u{FEFF}")),
            ("1.5.4 control and non-characters are taken", b"\0\x05\x01\x7F\xEF\xBF\xBF", Some("\x01\x7F\u{FFFF}")),
        ];
        for (name, bytes, expected) in rows {
            assert_eq!(Reader::new(bytes).string("text").ok(), *expected, "{name}");
        }
    }

    #[test]
    fn a_field_that_is_too_long_is_not_written() {
        assert_eq!(put_binary(&mut Vec::new(), &[0; 65_536]), Err(EncodeError::FieldTooLong));
        assert_eq!(put_binary(&mut Vec::new(), &[0; 65_535]), Ok(()));
    }
}
