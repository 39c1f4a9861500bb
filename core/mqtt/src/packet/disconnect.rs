//! DISCONNECT (3.14).

use crate::packet::encode_reason;
use crate::property::{PropertyReader, UserProperties, id, put_string, put_u32};
use crate::wire::Reader;
use crate::{DecodeError, EncodeError, ProtocolVersion, ReasonCode, Sender};

/// A DISCONNECT packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Always Normal disconnection before MQTT 5.0.
    pub reason_code: ReasonCode,
    /// Empty before MQTT 5.0.
    pub properties: DisconnectProperties<'a>,
}

/// Properties of DISCONNECT (3.14.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DisconnectProperties<'a> {
    /// In seconds; only a client sends it \[MQTT-3.14.2-2\].
    pub session_expiry_interval: Option<u32>,
    /// For people and logs.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
    /// Another server to use.
    pub server_reference: Option<&'a str>,
}

impl<'a> Disconnect<'a> {
    /// A DISCONNECT without properties.
    #[must_use]
    pub fn new(reason_code: ReasonCode) -> Disconnect<'a> {
        Disconnect { reason_code, properties: DisconnectProperties::default() }
    }

    pub(crate) fn decode(
        mut body: Reader<'a>,
        version: ProtocolVersion,
        sender: Sender,
    ) -> Result<Disconnect<'a>, DecodeError> {
        let mut disconnect = Disconnect::new(ReasonCode::NORMAL_DISCONNECTION);
        if version == ProtocolVersion::V5 && !body.is_empty() {
            disconnect.reason_code = reason_code(body.u8("Reason Code")?, sender)?;
            if !body.is_empty() {
                disconnect.properties = DisconnectProperties::decode(body.property_block()?, sender)?;
            }
        }
        body.end()?;
        Ok(disconnect)
    }

    pub(crate) fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if version < ProtocolVersion::V5 {
            return Ok(());
        }
        encode_reason(self.reason_code, out, |out| self.properties.encode(out))
    }
}

impl<'a> DisconnectProperties<'a> {
    fn decode(block: &'a [u8], sender: Sender) -> Result<DisconnectProperties<'a>, DecodeError> {
        let mut properties = DisconnectProperties::default();
        let mut reader = PropertyReader::new(block);
        while let Some(property) = reader.next()? {
            match property {
                id::SESSION_EXPIRY_INTERVAL => {
                    let interval = reader.u32()?;
                    if sender == Sender::Server {
                        return Err(reader.protocol_error());
                    }
                    properties.session_expiry_interval = Some(interval);
                }
                id::REASON_STRING => properties.reason_string = Some(reader.string()?),
                id::USER_PROPERTY => properties.user_properties = reader.user_property()?,
                id::SERVER_REFERENCE => properties.server_reference = Some(reader.string()?),
                _ => return Err(reader.not_here()),
            }
        }
        Ok(properties)
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        put_u32(out, id::SESSION_EXPIRY_INTERVAL, self.session_expiry_interval);
        put_string(out, id::REASON_STRING, self.reason_string)?;
        self.user_properties.encode(out)?;
        put_string(out, id::SERVER_REFERENCE, self.server_reference)
    }
}

/// The reason codes that the side may send [MQTT-3.14.2-1].
fn reason_code(code: u8, sender: Sender) -> Result<ReasonCode, DecodeError> {
    let allowed = match code {
        0x00 | 0x80..=0x83 | 0x90 | 0x93..=0x99 => true,
        0x04 => sender == Sender::Client,
        0x87 | 0x89 | 0x8B | 0x8D..=0x8F | 0x9A..=0xA2 => sender == Sender::Server,
        _ => false,
    };
    match ReasonCode::from_code(code) {
        Some(code) if allowed => Ok(code),
        Some(_) => Err(DecodeError::protocol("Reason Code")),
        None => Err(DecodeError::malformed("Reason Code")),
    }
}
