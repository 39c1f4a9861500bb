//! UNSUBSCRIBE (3.10).

use core::fmt;

use crate::property::{PropertyReader, id};
use crate::topic::check_filter_text;
use crate::wire::{Reader, put_binary, with_length};
use crate::{DecodeError, EncodeError, InvalidTopic, PacketId, ProtocolVersion, TopicFilter, UserProperties};

/// An UNSUBSCRIBE packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// Packet Identifier.
    pub packet_id: PacketId,
    /// User Properties, empty before MQTT 5.0.
    pub user_properties: UserProperties<'a>,
    /// Topic Filters; at least one \[MQTT-3.10.3-2\].
    pub filters: UnsubscribeFilters<'a>,
}

impl<'a> Unsubscribe<'a> {
    pub(crate) fn decode(mut body: Reader<'a>, version: ProtocolVersion) -> Result<Unsubscribe<'a>, DecodeError> {
        let packet_id = body.packet_id()?;
        let mut user_properties = UserProperties::default();
        if version == ProtocolVersion::V5 {
            let mut reader = PropertyReader::new(body.property_block()?);
            while let Some(property) = reader.next()? {
                match property {
                    id::USER_PROPERTY => user_properties = reader.user_property()?,
                    _ => return Err(reader.not_here()),
                }
            }
        }
        // [MQTT-3.10.3-2]
        if body.is_empty() {
            return Err(DecodeError::protocol("UNSUBSCRIBE without a Topic Filter"));
        }
        let payload = body;
        while !body.is_empty() {
            check_filter_text(body.string("Topic Filter")?, version)?;
        }
        Ok(Unsubscribe { packet_id, user_properties, filters: UnsubscribeFilters(Source::Payload(payload)) })
    }

    /// Each Topic Filter, or why it is none.
    #[inline]
    pub fn filters(&self) -> UnsubscribeFiltersIter<'a> {
        self.filters.iter()
    }

    pub(crate) fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        out.extend_from_slice(&self.packet_id.get().to_be_bytes());
        if version == ProtocolVersion::V5 {
            with_length(out, |out| self.user_properties.encode(out))?;
        }
        let mut texts = self.filters.0;
        while let Some(text) = texts.next_text() {
            put_binary(out, text.as_bytes())?;
        }
        Ok(())
    }
}

/// The Topic Filters of an UNSUBSCRIBE. Equal if they are the same filters.
#[derive(Clone, Copy)]
pub struct UnsubscribeFilters<'a>(Source<'a>);

#[derive(Debug, Clone, Copy)]
enum Source<'a> {
    /// A validated payload.
    Payload(Reader<'a>),
    Filters(&'a [TopicFilter<'a>]),
}

impl<'a> UnsubscribeFilters<'a> {
    /// Filters to be sent.
    #[must_use]
    pub const fn new(filters: &'a [TopicFilter<'a>]) -> UnsubscribeFilters<'a> {
        UnsubscribeFilters(Source::Filters(filters))
    }

    /// Each Topic Filter, or why it is none. A filter that is none was well-formed UTF-8.
    #[inline]
    #[must_use]
    pub const fn iter(&self) -> UnsubscribeFiltersIter<'a> {
        UnsubscribeFiltersIter(self.0)
    }
}

impl<'a> Source<'a> {
    fn next_text(&mut self) -> Option<&'a str> {
        match self {
            Source::Payload(rest) => rest.string("").ok(),
            Source::Filters(filters) => {
                let (filter, rest) = filters.split_first()?;
                *filters = rest;
                Some(filter.as_str())
            }
        }
    }
}

impl fmt::Debug for UnsubscribeFilters<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for UnsubscribeFilters<'_> {
    fn eq(&self, other: &Self) -> bool {
        let (mut left, mut right) = (self.0, other.0);
        core::iter::from_fn(|| left.next_text()).eq(core::iter::from_fn(|| right.next_text()))
    }
}

impl Eq for UnsubscribeFilters<'_> {}

/// Iterates over [`UnsubscribeFilters`].
#[derive(Debug, Clone)]
pub struct UnsubscribeFiltersIter<'a>(Source<'a>);

impl<'a> Iterator for UnsubscribeFiltersIter<'a> {
    type Item = Result<TopicFilter<'a>, InvalidTopic>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next_text().map(TopicFilter::new)
    }
}
