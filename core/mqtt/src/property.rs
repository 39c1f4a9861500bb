//! Properties (2.2.2): their identifiers and types, and those that may stand more than once.

use core::fmt;
use core::num::NonZeroU16;

use crate::wire::{Reader, put_binary, put_varint};
use crate::{DecodeError, EncodeError, MAX_REMAINING_LENGTH};

/// Property identifiers (table 2-4). Plain numbers, since each packet type takes a few of them and refuses the rest.
pub(crate) mod id {
    pub(crate) const PAYLOAD_FORMAT_INDICATOR: u8 = 0x01;
    pub(crate) const MESSAGE_EXPIRY_INTERVAL: u8 = 0x02;
    pub(crate) const CONTENT_TYPE: u8 = 0x03;
    pub(crate) const RESPONSE_TOPIC: u8 = 0x08;
    pub(crate) const CORRELATION_DATA: u8 = 0x09;
    pub(crate) const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
    pub(crate) const SESSION_EXPIRY_INTERVAL: u8 = 0x11;
    pub(crate) const ASSIGNED_CLIENT_IDENTIFIER: u8 = 0x12;
    pub(crate) const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub(crate) const AUTHENTICATION_METHOD: u8 = 0x15;
    pub(crate) const AUTHENTICATION_DATA: u8 = 0x16;
    pub(crate) const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
    pub(crate) const WILL_DELAY_INTERVAL: u8 = 0x18;
    pub(crate) const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
    pub(crate) const RESPONSE_INFORMATION: u8 = 0x1A;
    pub(crate) const SERVER_REFERENCE: u8 = 0x1C;
    pub(crate) const REASON_STRING: u8 = 0x1F;
    pub(crate) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(crate) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub(crate) const TOPIC_ALIAS: u8 = 0x23;
    pub(crate) const MAXIMUM_QOS: u8 = 0x24;
    pub(crate) const RETAIN_AVAILABLE: u8 = 0x25;
    pub(crate) const USER_PROPERTY: u8 = 0x26;
    pub(crate) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub(crate) const WILDCARD_SUBSCRIPTION_AVAILABLE: u8 = 0x28;
    pub(crate) const SUBSCRIPTION_IDENTIFIER_AVAILABLE: u8 = 0x29;
    pub(crate) const SHARED_SUBSCRIPTION_AVAILABLE: u8 = 0x2A;
}

/// The name of a property, for an error.
pub(crate) const fn name(property: u8) -> &'static str {
    match property {
        id::PAYLOAD_FORMAT_INDICATOR => "Payload Format Indicator",
        id::MESSAGE_EXPIRY_INTERVAL => "Message Expiry Interval",
        id::CONTENT_TYPE => "Content Type",
        id::RESPONSE_TOPIC => "Response Topic",
        id::CORRELATION_DATA => "Correlation Data",
        id::SUBSCRIPTION_IDENTIFIER => "Subscription Identifier",
        id::SESSION_EXPIRY_INTERVAL => "Session Expiry Interval",
        id::ASSIGNED_CLIENT_IDENTIFIER => "Assigned Client Identifier",
        id::SERVER_KEEP_ALIVE => "Server Keep Alive",
        id::AUTHENTICATION_METHOD => "Authentication Method",
        id::AUTHENTICATION_DATA => "Authentication Data",
        id::REQUEST_PROBLEM_INFORMATION => "Request Problem Information",
        id::WILL_DELAY_INTERVAL => "Will Delay Interval",
        id::REQUEST_RESPONSE_INFORMATION => "Request Response Information",
        id::RESPONSE_INFORMATION => "Response Information",
        id::SERVER_REFERENCE => "Server Reference",
        id::REASON_STRING => "Reason String",
        id::RECEIVE_MAXIMUM => "Receive Maximum",
        id::TOPIC_ALIAS_MAXIMUM => "Topic Alias Maximum",
        id::TOPIC_ALIAS => "Topic Alias",
        id::MAXIMUM_QOS => "Maximum QoS",
        id::RETAIN_AVAILABLE => "Retain Available",
        id::USER_PROPERTY => "User Property",
        id::MAXIMUM_PACKET_SIZE => "Maximum Packet Size",
        id::WILDCARD_SUBSCRIPTION_AVAILABLE => "Wildcard Subscription Available",
        id::SUBSCRIPTION_IDENTIFIER_AVAILABLE => "Subscription Identifier Available",
        id::SHARED_SUBSCRIPTION_AVAILABLE => "Shared Subscription Available",
        _ => "unknown property",
    }
}

/// Reads a property block. `next` gives an identifier, then exactly one of the other methods reads its value.
pub(crate) struct PropertyReader<'a> {
    rest: Reader<'a>,
    block: &'a [u8],
    /// Bit n: the property with identifier n was there.
    seen: u64,
    property: u8,
}

impl<'a> PropertyReader<'a> {
    pub(crate) const fn new(block: &'a [u8]) -> PropertyReader<'a> {
        PropertyReader { rest: Reader::new(block), block, seen: 0, property: 0 }
    }

    /// The next property's identifier. A second one of a property that may stand once is a protocol error.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<u8>, DecodeError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        // All identifiers are below 128: a longer variable byte integer is none of them.
        let property = self.rest.u8("Property Identifier")?;
        self.property = property;
        if property > id::SHARED_SUBSCRIPTION_AVAILABLE {
            return Err(self.not_here());
        }
        let bit = 1 << property;
        let repeatable = property == id::USER_PROPERTY || property == id::SUBSCRIPTION_IDENTIFIER;
        if self.seen & bit != 0 && !repeatable {
            return Err(self.protocol_error());
        }
        self.seen |= bit;
        Ok(Some(property))
    }

    /// The property is unknown or not valid for this packet type: malformed (2.2.2.2).
    #[cold]
    pub(crate) const fn not_here(&self) -> DecodeError {
        DecodeError::malformed(name(self.property))
    }

    #[cold]
    pub(crate) const fn protocol_error(&self) -> DecodeError {
        DecodeError::protocol(name(self.property))
    }

    /// 0 or 1; anything else is a protocol error.
    pub(crate) fn boolean(&mut self) -> Result<bool, DecodeError> {
        match self.rest.u8(name(self.property))? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.protocol_error()),
        }
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.rest.u16(name(self.property))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.rest.u32(name(self.property))
    }

    /// A number that is a protocol error if 0.
    pub(crate) fn non_zero_u16(&mut self) -> Result<NonZeroU16, DecodeError> {
        NonZeroU16::new(self.u16()?).ok_or(self.protocol_error())
    }

    /// A number that is a protocol error if 0.
    pub(crate) fn non_zero_u32(&mut self) -> Result<u32, DecodeError> {
        match self.u32()? {
            0 => Err(self.protocol_error()),
            value => Ok(value),
        }
    }

    /// A variable byte integer that is a protocol error if 0.
    pub(crate) fn non_zero_varint(&mut self) -> Result<u32, DecodeError> {
        match self.rest.varint(name(self.property))? {
            0 => Err(self.protocol_error()),
            value => Ok(value),
        }
    }

    #[inline]
    pub(crate) fn string(&mut self) -> Result<&'a str, DecodeError> {
        self.rest.string(name(self.property))
    }

    #[inline]
    pub(crate) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        self.rest.binary(name(self.property))
    }

    /// Validates one User Property and gives the view of all.
    #[inline]
    pub(crate) fn user_property(&mut self) -> Result<UserProperties<'a>, DecodeError> {
        self.string()?;
        self.string()?;
        Ok(UserProperties(UserSource::Block(self.block)))
    }
}

/// Finds the next property `wanted` in a block that was validated, and leaves `rest` at its value.
fn seek(rest: &mut Reader<'_>, wanted: u8) -> Option<()> {
    while !rest.is_empty() {
        let property = rest.u8("").ok()?;
        if property == wanted {
            return Some(());
        }
        match property {
            id::PAYLOAD_FORMAT_INDICATOR
            | id::REQUEST_PROBLEM_INFORMATION
            | id::REQUEST_RESPONSE_INFORMATION
            | id::MAXIMUM_QOS
            | id::RETAIN_AVAILABLE
            | id::WILDCARD_SUBSCRIPTION_AVAILABLE
            | id::SUBSCRIPTION_IDENTIFIER_AVAILABLE
            | id::SHARED_SUBSCRIPTION_AVAILABLE => {
                rest.u8("").ok()?;
            }
            id::SERVER_KEEP_ALIVE | id::RECEIVE_MAXIMUM | id::TOPIC_ALIAS_MAXIMUM | id::TOPIC_ALIAS => {
                rest.u16("").ok()?;
            }
            id::MESSAGE_EXPIRY_INTERVAL
            | id::SESSION_EXPIRY_INTERVAL
            | id::WILL_DELAY_INTERVAL
            | id::MAXIMUM_PACKET_SIZE => {
                rest.u32("").ok()?;
            }
            id::SUBSCRIPTION_IDENTIFIER => {
                rest.varint("").ok()?;
            }
            id::USER_PROPERTY => {
                rest.binary("").ok()?;
                rest.binary("").ok()?;
            }
            _ => {
                rest.binary("").ok()?;
            }
        }
    }
    None
}

/// User Properties, in their order \[MQTT-3.3.2-18\]. Equal if they hold the same pairs in the same order.
#[derive(Clone, Copy)]
pub struct UserProperties<'a>(UserSource<'a>);

#[derive(Clone, Copy)]
enum UserSource<'a> {
    /// A validated property block, other properties included.
    Block(&'a [u8]),
    Pairs(&'a [(&'a str, &'a str)]),
}

impl<'a> UserProperties<'a> {
    /// Names and values to be sent.
    #[inline]
    #[must_use]
    pub const fn new(pairs: &'a [(&'a str, &'a str)]) -> UserProperties<'a> {
        UserProperties(UserSource::Pairs(pairs))
    }

    /// Names and values.
    #[inline]
    #[must_use]
    pub const fn iter(&self) -> UserPropertiesIter<'a> {
        UserPropertiesIter(match self.0 {
            UserSource::Block(block) => UserIter::Block(Reader::new(block)),
            UserSource::Pairs(pairs) => UserIter::Pairs(pairs),
        })
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    pub(crate) fn encode(self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        for (key, value) in self {
            out.push(id::USER_PROPERTY);
            put_binary(out, key.as_bytes())?;
            put_binary(out, value.as_bytes())?;
        }
        Ok(())
    }
}

impl Default for UserProperties<'_> {
    fn default() -> Self {
        UserProperties::new(&[])
    }
}

impl fmt::Debug for UserProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for UserProperties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for UserProperties<'_> {}

impl<'a> IntoIterator for UserProperties<'a> {
    type Item = (&'a str, &'a str);
    type IntoIter = UserPropertiesIter<'a>;

    fn into_iter(self) -> UserPropertiesIter<'a> {
        self.iter()
    }
}

/// Iterates over names and values of [`UserProperties`].
#[derive(Debug, Clone)]
pub struct UserPropertiesIter<'a>(UserIter<'a>);

#[derive(Debug, Clone)]
enum UserIter<'a> {
    Block(Reader<'a>),
    Pairs(&'a [(&'a str, &'a str)]),
}

impl<'a> Iterator for UserPropertiesIter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<(&'a str, &'a str)> {
        match &mut self.0 {
            UserIter::Block(rest) => {
                seek(rest, id::USER_PROPERTY)?;
                Some((rest.string("").ok()?, rest.string("").ok()?))
            }
            UserIter::Pairs(pairs) => {
                let (&pair, rest) = pairs.split_first()?;
                *pairs = rest;
                Some(pair)
            }
        }
    }
}

/// Subscription Identifiers of a PUBLISH (3.3.2.3.8), in their order. Equal if they hold the same numbers.
#[derive(Clone, Copy)]
pub struct SubscriptionIdentifiers<'a>(IdentifierSource<'a>);

#[derive(Clone, Copy)]
enum IdentifierSource<'a> {
    /// A validated property block, other properties included.
    Block(&'a [u8]),
    Numbers(&'a [u32]),
}

impl<'a> SubscriptionIdentifiers<'a> {
    /// Identifiers to be sent; each is 1 to 268,435,455.
    #[inline]
    #[must_use]
    pub const fn new(numbers: &'a [u32]) -> SubscriptionIdentifiers<'a> {
        SubscriptionIdentifiers(IdentifierSource::Numbers(numbers))
    }

    pub(crate) const fn of_block(block: &'a [u8]) -> SubscriptionIdentifiers<'a> {
        SubscriptionIdentifiers(IdentifierSource::Block(block))
    }

    /// The identifiers.
    #[inline]
    #[must_use]
    pub const fn iter(&self) -> SubscriptionIdentifiersIter<'a> {
        SubscriptionIdentifiersIter(match self.0 {
            IdentifierSource::Block(block) => IdentifierIter::Block(Reader::new(block)),
            IdentifierSource::Numbers(numbers) => IdentifierIter::Numbers(numbers),
        })
    }

    /// Whether there is none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    pub(crate) fn encode(self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        for number in self.iter() {
            put_varint_property(out, id::SUBSCRIPTION_IDENTIFIER, Some(number))?;
        }
        Ok(())
    }
}

impl Default for SubscriptionIdentifiers<'_> {
    fn default() -> Self {
        SubscriptionIdentifiers::new(&[])
    }
}

impl fmt::Debug for SubscriptionIdentifiers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl PartialEq for SubscriptionIdentifiers<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for SubscriptionIdentifiers<'_> {}

/// Iterates over [`SubscriptionIdentifiers`].
#[derive(Debug, Clone)]
pub struct SubscriptionIdentifiersIter<'a>(IdentifierIter<'a>);

#[derive(Debug, Clone)]
enum IdentifierIter<'a> {
    Block(Reader<'a>),
    Numbers(&'a [u32]),
}

impl Iterator for SubscriptionIdentifiersIter<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        match &mut self.0 {
            IdentifierIter::Block(rest) => {
                seek(rest, id::SUBSCRIPTION_IDENTIFIER)?;
                rest.varint("").ok()
            }
            IdentifierIter::Numbers(numbers) => {
                let (&number, rest) = numbers.split_first()?;
                *numbers = rest;
                Some(number)
            }
        }
    }
}

pub(crate) fn put_bool(out: &mut Vec<u8>, property: u8, value: Option<bool>) {
    if let Some(value) = value {
        out.extend_from_slice(&[property, u8::from(value)]);
    }
}

pub(crate) fn put_u16(out: &mut Vec<u8>, property: u8, value: Option<u16>) {
    if let Some(value) = value {
        out.push(property);
        out.extend_from_slice(&value.to_be_bytes());
    }
}

pub(crate) fn put_u32(out: &mut Vec<u8>, property: u8, value: Option<u32>) {
    if let Some(value) = value {
        out.push(property);
        out.extend_from_slice(&value.to_be_bytes());
    }
}

pub(crate) fn put_varint_property(out: &mut Vec<u8>, property: u8, value: Option<u32>) -> Result<(), EncodeError> {
    if let Some(value) = value {
        if value as usize > MAX_REMAINING_LENGTH {
            return Err(EncodeError::IntegerTooLarge);
        }
        out.push(property);
        put_varint(out, value as usize);
    }
    Ok(())
}

pub(crate) fn put_string(out: &mut Vec<u8>, property: u8, value: Option<&str>) -> Result<(), EncodeError> {
    put_bytes(out, property, value.map(str::as_bytes))
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, property: u8, value: Option<&[u8]>) -> Result<(), EncodeError> {
    if let Some(value) = value {
        out.push(property);
        put_binary(out, value)?;
    }
    Ok(())
}
