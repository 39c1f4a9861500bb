//! SUBACK (3.9) and UNSUBACK (3.11).

use core::fmt;

use crate::wire::{Reader, with_length};
use crate::{AckProperties, DecodeError, EncodeError, PacketId, ProtocolVersion, ReasonCode};

/// A SUBACK packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suback<'a> {
    /// The Packet Identifier of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// Empty before MQTT 5.0.
    pub properties: AckProperties<'a>,
    /// One for each Topic Filter, in order. Before MQTT 5.0 every failure is 0x80, Unspecified error.
    pub reason_codes: ReasonCodes<'a>,
}

/// An UNSUBACK packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsuback<'a> {
    /// The Packet Identifier of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// Empty before MQTT 5.0.
    pub properties: AckProperties<'a>,
    /// One for each Topic Filter, in order; none before MQTT 5.0.
    pub reason_codes: ReasonCodes<'a>,
}

impl<'a> Suback<'a> {
    pub(crate) fn decode(mut body: Reader<'a>, version: ProtocolVersion) -> Result<Suback<'a>, DecodeError> {
        let packet_id = body.packet_id()?;
        let v5 = version == ProtocolVersion::V5;
        let properties = if v5 { AckProperties::decode(body.property_block()?)? } else { AckProperties::default() };
        let reason_codes = ReasonCodes::decode(body.rest(), |code| match code {
            0x00..=0x02 | 0x80 => true,
            0x83 | 0x87 | 0x8F | 0x91 | 0x97 | 0x9E | 0xA1 | 0xA2 => v5,
            _ => false,
        })?;
        Ok(Suback { packet_id, properties, reason_codes })
    }

    pub(crate) fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(&self.packet_id.get().to_be_bytes());
        if version == ProtocolVersion::V5 {
            with_length(out, |out| self.properties.encode(out))?;
            out.extend(self.reason_codes.iter().map(ReasonCode::code));
        } else {
            // [MQTT-3.9.3-2] of MQTT 3.1.1: only 0x00, 0x01, 0x02 and 0x80.
            out.extend(self.reason_codes.iter().map(|code| code.code().min(0x80)));
        }
        Ok(())
    }
}

impl<'a> Unsuback<'a> {
    pub(crate) fn decode(mut body: Reader<'a>, version: ProtocolVersion) -> Result<Unsuback<'a>, DecodeError> {
        let packet_id = body.packet_id()?;
        if version < ProtocolVersion::V5 {
            body.end()?;
            let (properties, reason_codes) = (AckProperties::default(), ReasonCodes::default());
            return Ok(Unsuback { packet_id, properties, reason_codes });
        }
        let properties = AckProperties::decode(body.property_block()?)?;
        let allowed = |code| matches!(code, 0x00 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91);
        let reason_codes = ReasonCodes::decode(body.rest(), allowed)?;
        Ok(Unsuback { packet_id, properties, reason_codes })
    }

    pub(crate) fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(&self.packet_id.get().to_be_bytes());
        if version == ProtocolVersion::V5 {
            with_length(out, |out| self.properties.encode(out))?;
            out.extend(self.reason_codes.iter().map(ReasonCode::code));
        }
        Ok(())
    }
}

/// The Reason Codes of a SUBACK or UNSUBACK. Equal if they are the same codes.
#[derive(Clone, Copy)]
pub struct ReasonCodes<'a>(Source<'a>);

#[derive(Clone, Copy)]
enum Source<'a> {
    /// Bytes that were validated.
    Bytes(&'a [u8]),
    Codes(&'a [ReasonCode]),
}

impl<'a> ReasonCodes<'a> {
    /// Codes to be sent.
    #[must_use]
    pub const fn new(codes: &'a [ReasonCode]) -> ReasonCodes<'a> {
        ReasonCodes(Source::Codes(codes))
    }

    /// [MQTT-3.9.3-1], [MQTT-3.11.3-1]: one for each filter, hence at least one.
    fn decode(bytes: &'a [u8], allowed: impl Fn(u8) -> bool) -> Result<ReasonCodes<'a>, DecodeError> {
        if bytes.is_empty() {
            return Err(DecodeError::malformed("Reason Codes are missing"));
        }
        if !bytes.iter().copied().all(allowed) {
            return Err(DecodeError::malformed("Reason Code"));
        }
        Ok(ReasonCodes(Source::Bytes(bytes)))
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self.0 {
            Source::Bytes(bytes) => bytes.len(),
            Source::Codes(codes) => codes.len(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The codes.
    #[must_use]
    pub const fn iter(&self) -> ReasonCodesIter<'a> {
        ReasonCodesIter(self.0)
    }
}

impl Default for ReasonCodes<'_> {
    fn default() -> Self {
        ReasonCodes::new(&[])
    }
}

impl fmt::Debug for ReasonCodes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for ReasonCodes<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for ReasonCodes<'_> {}

/// Iterates over [`ReasonCodes`].
#[derive(Clone)]
pub struct ReasonCodesIter<'a>(Source<'a>);

impl fmt::Debug for ReasonCodesIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

impl Iterator for ReasonCodesIter<'_> {
    type Item = ReasonCode;

    fn next(&mut self) -> Option<ReasonCode> {
        match &mut self.0 {
            Source::Bytes(bytes) => {
                let (&byte, rest) = bytes.split_first()?;
                *bytes = rest;
                ReasonCode::from_code(byte)
            }
            Source::Codes(codes) => {
                let (&code, rest) = codes.split_first()?;
                *codes = rest;
                Some(code)
            }
        }
    }
}
