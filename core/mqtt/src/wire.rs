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
