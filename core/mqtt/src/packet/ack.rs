//! PUBACK, PUBREC, PUBREL and PUBCOMP (3.4 to 3.7), which have one shape.

use crate::packet::encode_reason;
use crate::property::{PropertyReader, UserProperties, id, put_string};
use crate::wire::Reader;
use crate::{DecodeError, EncodeError, PacketId, PacketType, ProtocolVersion, ReasonCode};

/// A PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack<'a> {
    /// The Packet Identifier of the PUBLISH.
    pub packet_id: PacketId,
    /// Always Success before MQTT 5.0.
    pub reason_code: ReasonCode,
    /// Empty before MQTT 5.0.
    pub properties: AckProperties<'a>,
}

/// Properties of the acknowledgements: PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AckProperties<'a> {
    /// For people and logs.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Ack<'a> {
    /// An acknowledgement without properties.
    #[inline]
    #[must_use]
    pub fn new(packet_id: PacketId, reason_code: ReasonCode) -> Ack<'a> {
        Ack { packet_id, reason_code, properties: AckProperties::default() }
    }

    pub(crate) fn decode(
        packet_type: PacketType,
        mut body: Reader<'a>,
        version: ProtocolVersion,
    ) -> Result<Ack<'a>, DecodeError> {
        let mut ack = Ack::new(body.packet_id()?, ReasonCode::Success);
        if version == ProtocolVersion::V5 && !body.is_empty() {
            ack.reason_code = reason_code(packet_type, body.u8("Reason Code")?)?;
            if !body.is_empty() {
                ack.properties = AckProperties::decode(body.property_block()?)?;
            }
        }
        body.end()?;
        Ok(ack)
    }

    pub(crate) fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(&self.packet_id.get().to_be_bytes());
        if version < ProtocolVersion::V5 {
            return Ok(());
        }
        encode_reason(self.reason_code, out, |out| self.properties.encode(out))
    }
}

impl<'a> AckProperties<'a> {
    pub(crate) fn decode(block: &'a [u8]) -> Result<AckProperties<'a>, DecodeError> {
        let mut properties = AckProperties::default();
        let mut reader = PropertyReader::new(block);
        while let Some(property) = reader.next()? {
            match property {
                id::REASON_STRING => properties.reason_string = Some(reader.string()?),
                id::USER_PROPERTY => properties.user_properties = reader.user_property()?,
                _ => return Err(reader.not_here()),
            }
        }
        Ok(properties)
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        put_string(out, id::REASON_STRING, self.reason_string)?;
        self.user_properties.encode(out)
    }
}

/// The reason codes of [MQTT-3.4.2-1], [MQTT-3.5.2-1], [MQTT-3.6.2-1] and [MQTT-3.7.2-1].
fn reason_code(packet_type: PacketType, code: u8) -> Result<ReasonCode, DecodeError> {
    let release = matches!(packet_type, PacketType::Pubrel | PacketType::Pubcomp);
    let allowed = match code {
        0x00 => true,
        0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99 => !release,
        0x92 => release,
        _ => false,
    };
    match ReasonCode::from_code(code) {
        Some(code) if allowed => Ok(code),
        Some(_) => Err(DecodeError::protocol("Reason Code")),
        None => Err(DecodeError::malformed("Reason Code")),
    }
}
