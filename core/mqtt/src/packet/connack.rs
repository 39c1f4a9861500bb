//! CONNACK (3.2).

use core::fmt;
use core::num::NonZeroU16;

use crate::packet::Redacted;
use crate::property::{PropertyReader, UserProperties, id, put_bool, put_bytes, put_string, put_u16, put_u32};
use crate::wire::{Reader, with_length};
use crate::{DecodeError, EncodeError, ProtocolVersion, QoS, ReasonCode};

/// A CONNACK packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connack<'a> {
    /// Session Present; always false in MQTT 3.1, which does not know it.
    pub session_present: bool,
    /// Connect Reason Code; of MQTT 3.1 and 3.1.1 the one that has the same meaning.
    pub reason_code: ReasonCode,
    /// Empty before MQTT 5.0.
    pub properties: ConnackProperties<'a>,
}

/// Properties of CONNACK (3.2.2.3). `Debug` does not show the Authentication Data.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct ConnackProperties<'a> {
    /// In seconds.
    pub session_expiry_interval: Option<u32>,
    /// How many QoS 1 and 2 publications the server takes at a time.
    pub receive_maximum: Option<NonZeroU16>,
    /// 0 or 1; left out for QoS 2.
    pub maximum_qos: Option<QoS>,
    /// Whether retained messages are supported.
    pub retain_available: Option<bool>,
    /// In bytes; never 0.
    pub maximum_packet_size: Option<u32>,
    /// The Client Identifier that the server gave.
    pub assigned_client_identifier: Option<&'a str>,
    /// The highest Topic Alias that the server takes.
    pub topic_alias_maximum: Option<u16>,
    /// For people and logs.
    pub reason_string: Option<&'a str>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
    /// Whether wildcard subscriptions are supported.
    pub wildcard_subscription_available: Option<bool>,
    /// Whether Subscription Identifiers are supported.
    pub subscription_identifier_available: Option<bool>,
    /// Whether Shared Subscriptions are supported.
    pub shared_subscription_available: Option<bool>,
    /// In seconds; the client uses it in place of its own.
    pub server_keep_alive: Option<u16>,
    /// Basis for Response Topics.
    pub response_information: Option<&'a str>,
    /// Another server to use.
    pub server_reference: Option<&'a str>,
    /// Authentication Method.
    pub authentication_method: Option<&'a str>,
    /// Authentication Data.
    pub authentication_data: Option<&'a [u8]>,
}

impl<'a> Connack<'a> {
    /// A CONNACK without properties.
    #[must_use]
    pub fn new(session_present: bool, reason_code: ReasonCode) -> Connack<'a> {
        Connack { session_present, reason_code, properties: ConnackProperties::default() }
    }

    pub(crate) fn decode(mut body: Reader<'a>, version: ProtocolVersion) -> Result<Connack<'a>, DecodeError> {
        let flags = body.u8("Connect Acknowledge Flags")?;
        // [MQTT-3.2.2-1]; in MQTT 3.1 the whole byte is reserved and not used.
        if flags > 1 && version > ProtocolVersion::V31 {
            return Err(DecodeError::malformed("Connect Acknowledge Flags"));
        }
        let session_present = flags == 1 && version > ProtocolVersion::V31;
        let code = body.u8("Connect Reason Code")?;
        let reason_code = match version {
            ProtocolVersion::V5 => reason_code(code),
            ProtocolVersion::V31 | ProtocolVersion::V311 => reason_of_return_code(code),
        };
        let reason_code = reason_code.ok_or(DecodeError::malformed("Connect Reason Code"))?;
        // [MQTT-3.2.2-6]
        if session_present && reason_code != ReasonCode::Success {
            return Err(DecodeError::protocol("Session Present in a refusal"));
        }
        let mut connack = Connack::new(session_present, reason_code);
        if version == ProtocolVersion::V5 {
            connack.properties = ConnackProperties::decode(body.property_block()?)?;
        }
        body.end()?;
        Ok(connack)
    }

    pub(crate) fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if version < ProtocolVersion::V5 {
            let session_present = self.session_present && version > ProtocolVersion::V31;
            out.extend_from_slice(&[u8::from(session_present), connack_return_code_v3(self.reason_code)]);
            return Ok(());
        }
        out.extend_from_slice(&[u8::from(self.session_present), self.reason_code.code()]);
        with_length(out, |out| self.properties.encode(out))
    }
}

impl<'a> ConnackProperties<'a> {
    fn decode(block: &'a [u8]) -> Result<ConnackProperties<'a>, DecodeError> {
        let mut p = ConnackProperties::default();
        let mut reader = PropertyReader::new(block);
        while let Some(property) = reader.next()? {
            match property {
                id::SESSION_EXPIRY_INTERVAL => p.session_expiry_interval = Some(reader.u32()?),
                id::RECEIVE_MAXIMUM => p.receive_maximum = Some(reader.non_zero_u16()?),
                id::MAXIMUM_QOS => {
                    let qos = if reader.boolean()? { QoS::AtLeastOnce } else { QoS::AtMostOnce };
                    p.maximum_qos = Some(qos);
                }
                id::RETAIN_AVAILABLE => p.retain_available = Some(reader.boolean()?),
                id::MAXIMUM_PACKET_SIZE => p.maximum_packet_size = Some(reader.non_zero_u32()?),
                id::ASSIGNED_CLIENT_IDENTIFIER => p.assigned_client_identifier = Some(reader.string()?),
                id::TOPIC_ALIAS_MAXIMUM => p.topic_alias_maximum = Some(reader.u16()?),
                id::REASON_STRING => p.reason_string = Some(reader.string()?),
                id::USER_PROPERTY => p.user_properties = reader.user_property()?,
                id::WILDCARD_SUBSCRIPTION_AVAILABLE => p.wildcard_subscription_available = Some(reader.boolean()?),
                id::SUBSCRIPTION_IDENTIFIER_AVAILABLE => p.subscription_identifier_available = Some(reader.boolean()?),
                id::SHARED_SUBSCRIPTION_AVAILABLE => p.shared_subscription_available = Some(reader.boolean()?),
                id::SERVER_KEEP_ALIVE => p.server_keep_alive = Some(reader.u16()?),
                id::RESPONSE_INFORMATION => p.response_information = Some(reader.string()?),
                id::SERVER_REFERENCE => p.server_reference = Some(reader.string()?),
                id::AUTHENTICATION_METHOD => p.authentication_method = Some(reader.string()?),
                id::AUTHENTICATION_DATA => p.authentication_data = Some(reader.binary()?),
                _ => return Err(reader.not_here()),
            }
        }
        Ok(p)
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        put_u32(out, id::SESSION_EXPIRY_INTERVAL, self.session_expiry_interval);
        put_u16(out, id::RECEIVE_MAXIMUM, self.receive_maximum.map(NonZeroU16::get));
        // The value 2 does not exist: QoS 2 is said by leaving the property out (3.2.2.3.4).
        let maximum_qos = self.maximum_qos.filter(|&qos| qos < QoS::ExactlyOnce);
        put_bool(out, id::MAXIMUM_QOS, maximum_qos.map(|qos| qos == QoS::AtLeastOnce));
        put_bool(out, id::RETAIN_AVAILABLE, self.retain_available);
        put_u32(out, id::MAXIMUM_PACKET_SIZE, self.maximum_packet_size);
        put_string(out, id::ASSIGNED_CLIENT_IDENTIFIER, self.assigned_client_identifier)?;
        put_u16(out, id::TOPIC_ALIAS_MAXIMUM, self.topic_alias_maximum);
        put_string(out, id::REASON_STRING, self.reason_string)?;
        self.user_properties.encode(out)?;
        put_bool(out, id::WILDCARD_SUBSCRIPTION_AVAILABLE, self.wildcard_subscription_available);
        put_bool(out, id::SUBSCRIPTION_IDENTIFIER_AVAILABLE, self.subscription_identifier_available);
        put_bool(out, id::SHARED_SUBSCRIPTION_AVAILABLE, self.shared_subscription_available);
        put_u16(out, id::SERVER_KEEP_ALIVE, self.server_keep_alive);
        put_string(out, id::RESPONSE_INFORMATION, self.response_information)?;
        put_string(out, id::SERVER_REFERENCE, self.server_reference)?;
        put_string(out, id::AUTHENTICATION_METHOD, self.authentication_method)?;
        put_bytes(out, id::AUTHENTICATION_DATA, self.authentication_data)
    }
}

impl fmt::Debug for ConnackProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnackProperties")
            .field("session_expiry_interval", &self.session_expiry_interval)
            .field("receive_maximum", &self.receive_maximum)
            .field("maximum_qos", &self.maximum_qos)
            .field("retain_available", &self.retain_available)
            .field("maximum_packet_size", &self.maximum_packet_size)
            .field("assigned_client_identifier", &self.assigned_client_identifier)
            .field("topic_alias_maximum", &self.topic_alias_maximum)
            .field("reason_string", &self.reason_string)
            .field("user_properties", &self.user_properties)
            .field("wildcard_subscription_available", &self.wildcard_subscription_available)
            .field("subscription_identifier_available", &self.subscription_identifier_available)
            .field("shared_subscription_available", &self.shared_subscription_available)
            .field("server_keep_alive", &self.server_keep_alive)
            .field("response_information", &self.response_information)
            .field("server_reference", &self.server_reference)
            .field("authentication_method", &self.authentication_method)
            .field("authentication_data", &Redacted(self.authentication_data))
            .finish()
    }
}

/// The Connect Reason Codes [MQTT-3.2.2-8].
fn reason_code(code: u8) -> Option<ReasonCode> {
    match code {
        0x00 | 0x80..=0x8A | 0x8C | 0x90 | 0x95 | 0x97 | 0x99..=0x9D | 0x9F => ReasonCode::from_code(code),
        _ => None,
    }
}

const fn reason_of_return_code(code: u8) -> Option<ReasonCode> {
    Some(match code {
        0 => ReasonCode::Success,
        1 => ReasonCode::UnsupportedProtocolVersion,
        2 => ReasonCode::ClientIdentifierNotValid,
        3 => ReasonCode::ServerUnavailable,
        4 => ReasonCode::BadUserNameOrPassword,
        5 => ReasonCode::NotAuthorized,
        _ => return None,
    })
}

/// The Connect Return Code of MQTT 3.1 and 3.1.1 (there table 3.1) that says the same or, as 3 "Server unavailable",
/// the least: those versions have no code for a malformed packet or for being told to go elsewhere.
#[must_use]
pub const fn connack_return_code_v3(reason: ReasonCode) -> u8 {
    if !reason.is_error() {
        return 0;
    }
    match reason.code() {
        0x84 => 1,
        0x85 => 2,
        0x86 | 0x8C => 4,
        0x87 | 0x8A => 5,
        _ => 3,
    }
}
