//! AUTH (3.15).

use core::fmt;

use crate::packet::{Redacted, encode_reason};
use crate::property::{PropertyReader, UserProperties, id, put_bytes, put_string};
use crate::wire::Reader;
use crate::{DecodeError, EncodeError, ProtocolVersion, ReasonCode, Sender};

/// An AUTH packet, MQTT 5.0 only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Success, Continue authentication or Re-authenticate.
    pub reason_code: ReasonCode,
    /// Its properties.
    pub properties: AuthProperties<'a>,
}

/// Properties of AUTH (3.15.2.2). `Debug` does not show the Authentication Data.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct AuthProperties<'a> {
    /// Authentication Method. Only missing in an AUTH that has neither reason code nor properties.
    pub authentication_method: Option<&'a str>,
    /// Authentication Data.
    pub authentication_data: Option<&'a [u8]>,
    /// For people and logs.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Auth<'a> {
    pub(crate) fn decode(mut body: Reader<'a>, sender: Sender) -> Result<Auth<'a>, DecodeError> {
        let mut auth = Auth { reason_code: ReasonCode::Success, properties: AuthProperties::default() };
        if !body.is_empty() {
            auth.reason_code = reason_code(body.u8("Reason Code")?)?;
            // The code alone is not enough: to omit the Authentication Method is a protocol error (3.15.2.2.2).
            let block = if body.is_empty() { &[] } else { body.property_block()? };
            auth.properties = AuthProperties::decode(block)?;
        }
        // [MQTT-3.15.2-1]: Success is for the server, Re-authenticate for the client to send.
        let other = match sender {
            Sender::Client => ReasonCode::Success,
            Sender::Server => ReasonCode::ReAuthenticate,
        };
        if auth.reason_code == other {
            return Err(DecodeError::protocol("Reason Code"));
        }
        body.end()?;
        Ok(auth)
    }

    pub(crate) fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if version < ProtocolVersion::V5 {
            return Err(EncodeError::NotInThisVersion);
        }
        encode_reason(self.reason_code, out, |out| self.properties.encode(out))
    }
}

impl<'a> AuthProperties<'a> {
    fn decode(block: &'a [u8]) -> Result<AuthProperties<'a>, DecodeError> {
        let mut properties = AuthProperties::default();
        let mut reader = PropertyReader::new(block);
        while let Some(property) = reader.next()? {
            match property {
                id::AUTHENTICATION_METHOD => properties.authentication_method = Some(reader.string()?),
                id::AUTHENTICATION_DATA => properties.authentication_data = Some(reader.binary()?),
                id::REASON_STRING => properties.reason_string = Some(reader.string()?),
                id::USER_PROPERTY => properties.user_properties = reader.user_property()?,
                _ => return Err(reader.not_here()),
            }
        }
        if properties.authentication_method.is_none() {
            return Err(DecodeError::protocol("Authentication Method is missing"));
        }
        Ok(properties)
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        put_string(out, id::AUTHENTICATION_METHOD, self.authentication_method)?;
        put_bytes(out, id::AUTHENTICATION_DATA, self.authentication_data)?;
        put_string(out, id::REASON_STRING, self.reason_string)?;
        self.user_properties.encode(out)
    }
}

fn reason_code(code: u8) -> Result<ReasonCode, DecodeError> {
    match ReasonCode::from_code(code) {
        Some(code) if matches!(code.code(), 0x00 | 0x18 | 0x19) => Ok(code),
        Some(_) => Err(DecodeError::protocol("Reason Code")),
        None => Err(DecodeError::malformed("Reason Code")),
    }
}

impl fmt::Debug for AuthProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthProperties")
            .field("authentication_method", &self.authentication_method)
            .field("authentication_data", &Redacted(self.authentication_data))
            .field("reason_string", &self.reason_string)
            .field("user_properties", &self.user_properties)
            .finish()
    }
}
