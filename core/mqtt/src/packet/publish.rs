//! PUBLISH (3.3), everything validated.

use core::num::NonZeroU16;

use crate::frame::{DUP, RETAIN};
use crate::property::{PropertyReader, id, put_bool, put_bytes, put_string, put_u16, put_u32};
use crate::wire::{put_binary, with_length};
use crate::{
    DecodeError, EncodeError, ErrorKind, PacketId, PacketType, ProtocolVersion, QoS, RawPublish, Sender,
    SubscriptionIdentifiers, TopicName, UserProperties,
};

/// A PUBLISH packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// DUP: it may be a re-delivery.
    pub dup: bool,
    /// QoS level.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
    /// Topic Name; `None` if a Topic Alias stands for it (MQTT 5.0).
    pub topic: Option<TopicName<'a>>,
    /// Packet Identifier, exactly if the QoS is not 0.
    pub packet_id: Option<PacketId>,
    /// Empty before MQTT 5.0.
    pub properties: PublishProperties<'a>,
    /// The Application Message's content.
    pub payload: &'a [u8],
}

impl<'a> Publish<'a> {
    pub(crate) fn decode(raw: RawPublish<'a>, version: ProtocolVersion, sender: Sender) -> Result<Self, DecodeError> {
        let what = "Topic Name";
        let topic = if raw.topic.is_empty() && version == ProtocolVersion::V5 {
            None
        } else {
            Some(TopicName::from_bytes(raw.topic).map_err(|invalid| invalid.in_topic_name(what))?)
        };
        let properties = PublishProperties::decode(raw.properties, sender)?;
        if topic.is_none() && properties.topic_alias.is_none() {
            return Err(DecodeError::protocol("neither Topic Name nor Topic Alias"));
        }
        let RawPublish { dup, qos, retain, packet_id, payload, .. } = raw;
        Ok(Publish { dup, qos, retain, topic, packet_id, properties, payload })
    }

    pub(crate) const fn first_byte(&self) -> u8 {
        let dup = if self.dup { DUP } else { 0 };
        let retain = if self.retain { RETAIN } else { 0 };
        PacketType::Publish.first_byte() | dup | (self.qos as u8) << 1 | retain
    }

    pub(crate) fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if self.packet_id.is_some() != (self.qos > QoS::AtMostOnce) {
            return Err(EncodeError::PacketIdentifier);
        }
        put_binary(out, self.topic.map_or("", TopicName::as_str).as_bytes())?;
        if let Some(packet_id) = self.packet_id {
            out.extend_from_slice(&packet_id.get().to_be_bytes());
        }
        if version == ProtocolVersion::V5 {
            with_length(out, |out| self.properties.encode(out))?;
        }
        out.extend_from_slice(self.payload);
        Ok(())
    }
}

/// Properties of PUBLISH (3.3.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PublishProperties<'a> {
    /// Whether the payload is UTF-8.
    pub payload_format_indicator: Option<bool>,
    /// In seconds.
    pub message_expiry_interval: Option<u32>,
    /// Topic Alias; whether it exceeds the receiver's Topic Alias Maximum is not checked here.
    pub topic_alias: Option<NonZeroU16>,
    /// Where to send the response; a valid Topic Name.
    pub response_topic: Option<&'a str>,
    /// Correlation Data.
    pub correlation_data: Option<&'a [u8]>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
    /// Subscription Identifiers; only a server sends them.
    pub subscription_identifiers: SubscriptionIdentifiers<'a>,
    /// Content Type.
    pub content_type: Option<&'a str>,
}

impl<'a> PublishProperties<'a> {
    /// Decodes and validates a property block, given without its length.
    pub fn decode(block: &'a [u8], sender: Sender) -> Result<PublishProperties<'a>, DecodeError> {
        let mut properties = PublishProperties::default();
        let mut reader = PropertyReader::new(block);
        while let Some(property) = reader.next()? {
            match property {
                id::PAYLOAD_FORMAT_INDICATOR => properties.payload_format_indicator = Some(reader.boolean()?),
                id::MESSAGE_EXPIRY_INTERVAL => properties.message_expiry_interval = Some(reader.u32()?),
                id::TOPIC_ALIAS => {
                    // [MQTT-3.3.2-8]
                    let invalid = DecodeError::new(ErrorKind::TopicAliasInvalid, "Topic Alias");
                    properties.topic_alias = Some(NonZeroU16::new(reader.u16()?).ok_or(invalid)?);
                }
                id::RESPONSE_TOPIC => properties.response_topic = Some(response_topic(&mut reader)?),
                id::CORRELATION_DATA => properties.correlation_data = Some(reader.binary()?),
                id::USER_PROPERTY => properties.user_properties = reader.user_property()?,
                id::SUBSCRIPTION_IDENTIFIER => {
                    reader.non_zero_varint()?;
                    // [MQTT-3.3.4-6]
                    if sender == Sender::Client {
                        return Err(reader.protocol_error());
                    }
                    properties.subscription_identifiers = SubscriptionIdentifiers::of_block(block);
                }
                id::CONTENT_TYPE => properties.content_type = Some(reader.string()?),
                _ => return Err(reader.not_here()),
            }
        }
        Ok(properties)
    }

    /// Names and values of the User Properties, in their order.
    #[inline]
    pub fn user_properties(&self) -> impl Iterator<Item = (&'a str, &'a str)> + Clone + use<'a> {
        self.user_properties.iter()
    }

    /// The Subscription Identifiers, in their order.
    #[inline]
    pub fn subscription_identifiers(&self) -> impl Iterator<Item = u32> + Clone + use<'a> {
        self.subscription_identifiers.iter()
    }

    /// Whether the block holds only what a server passes on unaltered, so that it can be passed on as it is.
    #[inline]
    #[must_use]
    pub fn is_forwardable_verbatim(&self) -> bool {
        self.topic_alias.is_none() && self.message_expiry_interval.is_none() && self.subscription_identifiers.is_empty()
    }

    /// Appends what a server passes on unaltered: Payload Format Indicator \[MQTT-3.3.2-4\], Response Topic
    /// \[MQTT-3.3.2-15\], Correlation Data \[MQTT-3.3.2-16\], Content Type \[MQTT-3.3.2-20\] and the User Properties
    /// in their order \[MQTT-3.3.2-17\], \[MQTT-3.3.2-18\]. The order of different properties has no meaning (2.2.2.2).
    ///
    /// # Panics
    /// If a field that was set by hand exceeds 65,535 bytes; what was decoded never does.
    pub fn write_forwardable(&self, out: &mut Vec<u8>) {
        self.forwardable().encode(out).expect("what was decoded fits into its fields");
    }

    const fn forwardable(&self) -> Forwardable<'a> {
        Forwardable {
            payload_format_indicator: self.payload_format_indicator,
            content_type: self.content_type,
            response_topic: self.response_topic,
            correlation_data: self.correlation_data,
            user_properties: self.user_properties,
        }
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        put_u32(out, id::MESSAGE_EXPIRY_INTERVAL, self.message_expiry_interval);
        put_u16(out, id::TOPIC_ALIAS, self.topic_alias.map(NonZeroU16::get));
        self.subscription_identifiers.encode(out)?;
        self.forwardable().encode(out)
    }

    /// Whether the payload is what the Payload Format Indicator says (3.3.2.3.2). A server may leave that check out.
    pub fn check_payload(&self, payload: &[u8]) -> Result<(), DecodeError> {
        if self.payload_format_indicator == Some(true) && core::str::from_utf8(payload).is_err() {
            return Err(DecodeError::new(ErrorKind::PayloadFormatInvalid, "payload is not UTF-8"));
        }
        Ok(())
    }
}

/// The properties of a message that a server never alters, from a PUBLISH or a Will.
pub(super) struct Forwardable<'a> {
    pub(super) payload_format_indicator: Option<bool>,
    pub(super) content_type: Option<&'a str>,
    pub(super) response_topic: Option<&'a str>,
    pub(super) correlation_data: Option<&'a [u8]>,
    pub(super) user_properties: UserProperties<'a>,
}

impl Forwardable<'_> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        put_bool(out, id::PAYLOAD_FORMAT_INDICATOR, self.payload_format_indicator);
        put_string(out, id::CONTENT_TYPE, self.content_type)?;
        put_string(out, id::RESPONSE_TOPIC, self.response_topic)?;
        put_bytes(out, id::CORRELATION_DATA, self.correlation_data)?;
        self.user_properties.encode(out)
    }
}

/// A Response Topic is a Topic Name: no wildcards [MQTT-3.3.2-14], at least one character [MQTT-4.7.3-1].
pub(super) fn response_topic<'a>(reader: &mut PropertyReader<'a>) -> Result<&'a str, DecodeError> {
    let text = reader.string()?;
    TopicName::new(text).map(TopicName::as_str).map_err(|_| reader.protocol_error())
}
