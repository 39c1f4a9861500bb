//! SUBSCRIBE (3.8).

use core::fmt;
use core::num::NonZeroU32;

use crate::property::{PropertyReader, id, put_varint_property};
use crate::topic::check_filter_text;
use crate::wire::{Reader, put_binary, with_length};
use crate::{DecodeError, EncodeError, InvalidTopic, PacketId, ProtocolVersion, QoS, TopicFilter, UserProperties};

/// A SUBSCRIBE packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Packet Identifier.
    pub packet_id: PacketId,
    /// Subscription Identifier of all its subscriptions (3.8.2.1.2), MQTT 5.0 only.
    pub subscription_identifier: Option<NonZeroU32>,
    /// User Properties, empty before MQTT 5.0.
    pub user_properties: UserProperties<'a>,
    /// Topic Filters and their options; at least one \[MQTT-3.8.3-2\].
    pub filters: SubscribeFilters<'a>,
}

/// Subscription Options (3.8.3.1). Before MQTT 5.0 there is only the QoS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SubscribeOptions {
    /// Maximum QoS.
    pub qos: QoS,
    /// Messages are not sent back to the connection that published them.
    pub no_local: bool,
    /// Messages keep the RETAIN flag they were published with.
    pub retain_as_published: bool,
    /// Which retained messages are sent.
    pub retain_handling: RetainHandling,
}

/// Whether retained messages are sent when the subscription is established (3.8.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RetainHandling {
    /// At the time of the subscribe.
    #[default]
    SendAtSubscribe = 0,
    /// Only if the subscription does not exist yet.
    SendIfNew = 1,
    /// Not at all.
    DoNotSend = 2,
}

impl SubscribeOptions {
    /// The options of a subscription that names only its QoS, as all do before MQTT 5.0.
    #[must_use]
    pub const fn new(qos: QoS) -> SubscribeOptions {
        let retain_handling = RetainHandling::SendAtSubscribe;
        SubscribeOptions { qos, no_local: false, retain_as_published: false, retain_handling }
    }

    /// Reserved bits are malformed [MQTT-3.8.3-5]; QoS 3 and Retain Handling 3 are protocol errors (3.8.3.1), QoS 3 is
    /// malformed in MQTT 3.1.1 [MQTT-3-8.3-4].
    fn decode(byte: u8, version: ProtocolVersion) -> Result<SubscribeOptions, DecodeError> {
        let v5 = version == ProtocolVersion::V5;
        let reserved = if v5 { 0xC0 } else { 0xFC };
        if byte & reserved != 0 {
            return Err(DecodeError::malformed("reserved bits of the Subscription Options"));
        }
        let retain_handling = match byte >> 4 & 3 {
            0 => RetainHandling::SendAtSubscribe,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(DecodeError::protocol("Retain Handling 3")),
        };
        let qos = QoS::from_bits(byte & 3).ok_or(if v5 {
            DecodeError::protocol("Maximum QoS 3")
        } else {
            DecodeError::malformed("Requested QoS 3")
        })?;
        let (no_local, retain_as_published) = (byte & 4 != 0, byte & 8 != 0);
        Ok(SubscribeOptions { qos, no_local, retain_as_published, retain_handling })
    }

    const fn encode(self, version: ProtocolVersion) -> u8 {
        let qos = self.qos as u8;
        match version {
            ProtocolVersion::V31 | ProtocolVersion::V311 => qos,
            ProtocolVersion::V5 => {
                qos | (self.no_local as u8) << 2
                    | (self.retain_as_published as u8) << 3
                    | (self.retain_handling as u8) << 4
            }
        }
    }
}

impl<'a> Subscribe<'a> {
    pub(crate) fn decode(mut body: Reader<'a>, version: ProtocolVersion) -> Result<Subscribe<'a>, DecodeError> {
        let packet_id = body.packet_id()?;
        let mut subscription_identifier = None;
        let mut user_properties = UserProperties::default();
        if version == ProtocolVersion::V5 {
            let mut reader = PropertyReader::new(body.property_block()?);
            while let Some(property) = reader.next()? {
                match property {
                    id::SUBSCRIPTION_IDENTIFIER => {
                        if subscription_identifier.is_some() {
                            return Err(reader.protocol_error());
                        }
                        subscription_identifier = NonZeroU32::new(reader.non_zero_varint()?);
                    }
                    id::USER_PROPERTY => user_properties = reader.user_property()?,
                    _ => return Err(reader.not_here()),
                }
            }
        }
        let filters = SubscribeFilters::decode(body, version)?;
        Ok(Subscribe { packet_id, subscription_identifier, user_properties, filters })
    }

    /// Each Topic Filter, or why it is none, with its options.
    #[inline]
    pub fn filters(&self) -> SubscribeFiltersIter<'a> {
        self.filters.iter()
    }

    pub(crate) fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(&self.packet_id.get().to_be_bytes());
        if version == ProtocolVersion::V5 {
            with_length(out, |out| {
                let identifier = self.subscription_identifier.map(NonZeroU32::get);
                put_varint_property(out, id::SUBSCRIPTION_IDENTIFIER, identifier)?;
                self.user_properties.encode(out)
            })?;
        }
        let mut texts = self.filters.texts();
        while let Some((text, options)) = texts.next_text() {
            put_binary(out, text.as_bytes())?;
            out.push(options.encode(version));
        }
        Ok(())
    }
}

/// The Topic Filters of a SUBSCRIBE with their options. Equal if they are the same filters with the same options.
#[derive(Clone, Copy)]
pub struct SubscribeFilters<'a>(Source<'a>);

#[derive(Debug, Clone, Copy)]
enum Source<'a> {
    /// A validated payload.
    Payload(Reader<'a>, ProtocolVersion),
    Filters(&'a [(TopicFilter<'a>, SubscribeOptions)]),
}

impl<'a> SubscribeFilters<'a> {
    /// Filters to be sent.
    #[must_use]
    pub const fn new(filters: &'a [(TopicFilter<'a>, SubscribeOptions)]) -> SubscribeFilters<'a> {
        SubscribeFilters(Source::Filters(filters))
    }

    /// Each Topic Filter, or why it is none, with its options. A filter that is none was well-formed UTF-8.
    #[inline]
    #[must_use]
    pub const fn iter(&self) -> SubscribeFiltersIter<'a> {
        SubscribeFiltersIter(self.0)
    }

    fn decode(payload: Reader<'a>, version: ProtocolVersion) -> Result<SubscribeFilters<'a>, DecodeError> {
        // [MQTT-3.8.3-2]
        if payload.is_empty() {
            return Err(DecodeError::protocol("SUBSCRIBE without a Topic Filter"));
        }
        let mut rest = payload;
        while !rest.is_empty() {
            let text = rest.string("Topic Filter")?;
            check_filter_text(text, version)?;
            let options = SubscribeOptions::decode(rest.u8("Subscription Options")?, version)?;
            let shared = TopicFilter::new(text).is_ok_and(|filter| filter.share_group().is_some());
            // [MQTT-3.8.3-4]
            if options.no_local && shared {
                return Err(DecodeError::protocol("No Local on a Shared Subscription"));
            }
        }
        Ok(SubscribeFilters(Source::Payload(payload, version)))
    }

    const fn texts(&self) -> Source<'a> {
        self.0
    }
}

impl<'a> Source<'a> {
    fn next_text(&mut self) -> Option<(&'a str, SubscribeOptions)> {
        match self {
            Source::Payload(rest, version) => {
                let text = rest.string("").ok()?;
                let options = SubscribeOptions::decode(rest.u8("").ok()?, *version).ok()?;
                Some((text, options))
            }
            Source::Filters(filters) => {
                let (&(filter, options), rest) = filters.split_first()?;
                *filters = rest;
                Some((filter.as_str(), options))
            }
        }
    }
}

impl fmt::Debug for SubscribeFilters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for SubscribeFilters<'_> {
    fn eq(&self, other: &Self) -> bool {
        let (mut left, mut right) = (self.0, other.0);
        core::iter::from_fn(|| left.next_text()).eq(core::iter::from_fn(|| right.next_text()))
    }
}

impl Eq for SubscribeFilters<'_> {}

/// Iterates over [`SubscribeFilters`].
#[derive(Debug, Clone)]
pub struct SubscribeFiltersIter<'a>(Source<'a>);

impl<'a> Iterator for SubscribeFiltersIter<'a> {
    type Item = (Result<TopicFilter<'a>, InvalidTopic>, SubscribeOptions);

    fn next(&mut self) -> Option<Self::Item> {
        let (text, options) = self.0.next_text()?;
        Some((TopicFilter::new(text), options))
    }
}
