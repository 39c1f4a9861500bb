//! CONNECT (3.1).

use core::fmt;
use core::num::NonZeroU16;

use crate::packet::Redacted;
use crate::packet::publish::{Forwardable, response_topic};
use crate::property::{PropertyReader, UserProperties, id, put_bool, put_bytes, put_string, put_u16, put_u32};
use crate::wire::{Reader, put_binary, with_length};
use crate::{DecodeError, EncodeError, ErrorKind, ProtocolVersion, QoS, TopicName};

/// A CONNECT packet. `Debug` shows neither the password nor the Authentication Data.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Connect<'a> {
    /// Protocol version.
    pub version: ProtocolVersion,
    /// Clean Start; before MQTT 5.0 Clean Session.
    pub clean_start: bool,
    /// In seconds; 0 turns it off.
    pub keep_alive: u16,
    /// Client Identifier; may be empty, which not every version and server takes.
    pub client_id: &'a str,
    /// Will Message.
    pub will: Option<Will<'a>>,
    /// User Name.
    pub username: Option<&'a str>,
    /// Password.
    pub password: Option<&'a [u8]>,
    /// The defaults before MQTT 5.0.
    pub properties: ConnectProperties<'a>,
}

/// Will Message (3.1.2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Will<'a> {
    /// Will Topic.
    pub topic: TopicName<'a>,
    /// Will Payload.
    pub payload: &'a [u8],
    /// Will QoS.
    pub qos: QoS,
    /// Will Retain.
    pub retain: bool,
    /// The defaults before MQTT 5.0.
    pub properties: WillProperties<'a>,
}

/// Will Properties (3.1.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WillProperties<'a> {
    /// Will Delay Interval in seconds.
    pub delay_interval: u32,
    /// Whether the payload is UTF-8.
    pub payload_format_indicator: Option<bool>,
    /// In seconds.
    pub message_expiry_interval: Option<u32>,
    /// Content Type.
    pub content_type: Option<&'a str>,
    /// Where to send the response; a valid Topic Name.
    pub response_topic: Option<&'a str>,
    /// Correlation Data.
    pub correlation_data: Option<&'a [u8]>,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
}

/// Properties of CONNECT (3.1.2.11). `Debug` does not show the Authentication Data.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ConnectProperties<'a> {
    /// In seconds; 0xFFFFFFFF never expires.
    pub session_expiry_interval: u32,
    /// How many QoS 1 and 2 publications the client takes at a time.
    pub receive_maximum: NonZeroU16,
    /// In bytes; never 0.
    pub maximum_packet_size: Option<u32>,
    /// The highest Topic Alias that the client takes.
    pub topic_alias_maximum: u16,
    /// Whether the client asks for Response Information.
    pub request_response_information: bool,
    /// Whether Reason String and User Properties may be sent in more than PUBLISH, CONNACK and DISCONNECT.
    pub request_problem_information: bool,
    /// User Properties.
    pub user_properties: UserProperties<'a>,
    /// Authentication Method.
    pub authentication_method: Option<&'a str>,
    /// Authentication Data.
    pub authentication_data: Option<&'a [u8]>,
}

impl<'a> Connect<'a> {
    pub(crate) fn decode(mut body: Reader<'a>) -> Result<Connect<'a>, DecodeError> {
        let name = body.binary("Protocol Name")?;
        let level = body.u8("Protocol Version")?;
        let version = match (name, level) {
            (b"MQIsdp", 3) => ProtocolVersion::V31,
            (b"MQTT", 4) => ProtocolVersion::V311,
            (b"MQTT", 5) => ProtocolVersion::V5,
            (_, _) => return Err(unsupported(name, level)),
        };
        Connect::decode_version(body, version).map_err(|error| error.with_version(version))
    }

    fn decode_version(mut body: Reader<'a>, version: ProtocolVersion) -> Result<Connect<'a>, DecodeError> {
        let flags = body.u8("Connect Flags")?;
        let v5 = version == ProtocolVersion::V5;
        // [MQTT-3.1.2-3]; MQTT 3.1 does not use this bit, nor look at it.
        if flags & RESERVED != 0 && version != ProtocolVersion::V31 {
            return Err(DecodeError::malformed("reserved bit of the Connect Flags"));
        }
        // [MQTT-3.1.2-22] of MQTT 3.1.1; in MQTT 5.0 a password may stand alone (3.1.2.9).
        if !v5 && flags & (USER_NAME | PASSWORD) == PASSWORD {
            return Err(DecodeError::malformed("a Password without a User Name"));
        }
        let keep_alive = body.u16("Keep Alive")?;
        let properties =
            if v5 { ConnectProperties::decode(body.property_block()?)? } else { ConnectProperties::default() };
        let client_id = body.string("Client Identifier")?;
        let will = Will::decode(&mut body, flags, version)?;
        let username = if flags & USER_NAME != 0 { Some(body.string("User Name")?) } else { None };
        let password = if flags & PASSWORD != 0 { Some(body.binary("Password")?) } else { None };
        body.end()?;
        let clean_start = flags & CLEAN_START != 0;
        Ok(Connect { version, clean_start, keep_alive, client_id, will, username, password, properties })
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let v5 = self.version == ProtocolVersion::V5;
        let name: &[u8] = if self.version == ProtocolVersion::V31 { b"MQIsdp" } else { b"MQTT" };
        put_binary(out, name)?;
        out.extend_from_slice(&[self.version as u8, self.flags()]);
        out.extend_from_slice(&self.keep_alive.to_be_bytes());
        if v5 {
            with_length(out, |out| self.properties.encode(out))?;
        }
        put_binary(out, self.client_id.as_bytes())?;
        if let Some(will) = &self.will {
            if v5 {
                with_length(out, |out| will.properties.encode(out))?;
            }
            put_binary(out, will.topic.as_str().as_bytes())?;
            put_binary(out, will.payload)?;
        }
        if let Some(username) = self.username {
            put_binary(out, username.as_bytes())?;
        }
        if let Some(password) = self.password {
            put_binary(out, password)?;
        }
        Ok(())
    }

    fn flags(&self) -> u8 {
        let flag = |on, bit| if on { bit } else { 0 };
        let will =
            self.will.map_or(0, |will| WILL | (will.qos as u8) << WILL_QOS_SHIFT | flag(will.retain, WILL_RETAIN));
        flag(self.username.is_some(), USER_NAME)
            | flag(self.password.is_some(), PASSWORD)
            | flag(self.clean_start, CLEAN_START)
            | will
    }
}

/// [MQTT-3.1.2-1], [MQTT-3.1.2-2]. Without a known Protocol Name the peer is no MQTT client and gets no answer.
#[cold]
fn unsupported(name: &[u8], level: u8) -> DecodeError {
    let error = DecodeError::new(ErrorKind::UnsupportedVersion, "Protocol Version");
    match name {
        b"MQTT" if level > ProtocolVersion::V5 as u8 => error.with_version(ProtocolVersion::V5),
        b"MQTT" => error.with_version(ProtocolVersion::V311),
        b"MQIsdp" => error.with_version(ProtocolVersion::V31),
        _ => DecodeError::new(ErrorKind::UnsupportedVersion, "Protocol Name"),
    }
}

impl<'a> Will<'a> {
    fn decode(body: &mut Reader<'a>, flags: u8, version: ProtocolVersion) -> Result<Option<Will<'a>>, DecodeError> {
        let retain = flags & WILL_RETAIN != 0;
        // [MQTT-3.1.2-12]: not 3.
        let qos = QoS::from_bits(flags >> WILL_QOS_SHIFT & 3).ok_or(DecodeError::malformed("Will QoS 3"))?;
        if flags & WILL == 0 {
            // [MQTT-3.1.2-11], [MQTT-3.1.2-13]
            if retain || qos != QoS::AtMostOnce {
                return Err(DecodeError::malformed("Will QoS or Will Retain without Will Flag"));
            }
            return Ok(None);
        }
        let properties = if version == ProtocolVersion::V5 {
            WillProperties::decode(body.property_block()?)?
        } else {
            WillProperties::default()
        };
        let what = "Will Topic";
        let topic = TopicName::new(body.string(what)?).map_err(|invalid| invalid.in_topic_name(what))?;
        let payload = body.binary("Will Payload")?;
        Ok(Some(Will { topic, payload, qos, retain, properties }))
    }
}

impl<'a> WillProperties<'a> {
    fn decode(block: &'a [u8]) -> Result<WillProperties<'a>, DecodeError> {
        let mut properties = WillProperties::default();
        let mut reader = PropertyReader::new(block);
        while let Some(property) = reader.next()? {
            match property {
                id::WILL_DELAY_INTERVAL => properties.delay_interval = reader.u32()?,
                id::PAYLOAD_FORMAT_INDICATOR => properties.payload_format_indicator = Some(reader.boolean()?),
                id::MESSAGE_EXPIRY_INTERVAL => properties.message_expiry_interval = Some(reader.u32()?),
                id::CONTENT_TYPE => properties.content_type = Some(reader.string()?),
                id::RESPONSE_TOPIC => properties.response_topic = Some(response_topic(&mut reader)?),
                id::CORRELATION_DATA => properties.correlation_data = Some(reader.binary()?),
                id::USER_PROPERTY => properties.user_properties = reader.user_property()?,
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

    /// Appends the properties that the published Will Message carries unaltered, like
    /// [`PublishProperties::write_forwardable`](crate::PublishProperties::write_forwardable).
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
        put_u32(out, id::WILL_DELAY_INTERVAL, Some(self.delay_interval).filter(|&interval| interval != 0));
        put_u32(out, id::MESSAGE_EXPIRY_INTERVAL, self.message_expiry_interval);
        self.forwardable().encode(out)
    }
}

impl<'a> ConnectProperties<'a> {
    fn decode(block: &'a [u8]) -> Result<ConnectProperties<'a>, DecodeError> {
        let mut p = ConnectProperties::default();
        let mut reader = PropertyReader::new(block);
        while let Some(property) = reader.next()? {
            match property {
                id::SESSION_EXPIRY_INTERVAL => p.session_expiry_interval = reader.u32()?,
                id::RECEIVE_MAXIMUM => p.receive_maximum = reader.non_zero_u16()?,
                id::MAXIMUM_PACKET_SIZE => p.maximum_packet_size = Some(reader.non_zero_u32()?),
                id::TOPIC_ALIAS_MAXIMUM => p.topic_alias_maximum = reader.u16()?,
                id::REQUEST_RESPONSE_INFORMATION => p.request_response_information = reader.boolean()?,
                id::REQUEST_PROBLEM_INFORMATION => p.request_problem_information = reader.boolean()?,
                id::USER_PROPERTY => p.user_properties = reader.user_property()?,
                id::AUTHENTICATION_METHOD => p.authentication_method = Some(reader.string()?),
                id::AUTHENTICATION_DATA => p.authentication_data = Some(reader.binary()?),
                _ => return Err(reader.not_here()),
            }
        }
        // 3.1.2.11.10
        if p.authentication_data.is_some() && p.authentication_method.is_none() {
            return Err(DecodeError::protocol("Authentication Data without Authentication Method"));
        }
        Ok(p)
    }

    /// Defaults are left out.
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let set = |value| Some(value).filter(|&value| value != 0);
        put_u32(out, id::SESSION_EXPIRY_INTERVAL, set(self.session_expiry_interval));
        let receive_maximum = Some(self.receive_maximum.get()).filter(|&value| value != u16::MAX);
        put_u16(out, id::RECEIVE_MAXIMUM, receive_maximum);
        put_u32(out, id::MAXIMUM_PACKET_SIZE, self.maximum_packet_size);
        put_u16(out, id::TOPIC_ALIAS_MAXIMUM, Some(self.topic_alias_maximum).filter(|&value| value != 0));
        put_bool(out, id::REQUEST_RESPONSE_INFORMATION, self.request_response_information.then_some(true));
        put_bool(out, id::REQUEST_PROBLEM_INFORMATION, (!self.request_problem_information).then_some(false));
        self.user_properties.encode(out)?;
        put_string(out, id::AUTHENTICATION_METHOD, self.authentication_method)?;
        put_bytes(out, id::AUTHENTICATION_DATA, self.authentication_data)
    }
}

impl Default for ConnectProperties<'_> {
    fn default() -> Self {
        ConnectProperties {
            session_expiry_interval: 0,
            receive_maximum: NonZeroU16::MAX,
            maximum_packet_size: None,
            topic_alias_maximum: 0,
            request_response_information: false,
            request_problem_information: true,
            user_properties: UserProperties::default(),
            authentication_method: None,
            authentication_data: None,
        }
    }
}

impl fmt::Debug for Connect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("version", &self.version)
            .field("clean_start", &self.clean_start)
            .field("keep_alive", &self.keep_alive)
            .field("client_id", &self.client_id)
            .field("will", &self.will)
            .field("username", &self.username)
            .field("password", &Redacted(self.password))
            .field("properties", &self.properties)
            .finish()
    }
}

impl fmt::Debug for ConnectProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectProperties")
            .field("session_expiry_interval", &self.session_expiry_interval)
            .field("receive_maximum", &self.receive_maximum)
            .field("maximum_packet_size", &self.maximum_packet_size)
            .field("topic_alias_maximum", &self.topic_alias_maximum)
            .field("request_response_information", &self.request_response_information)
            .field("request_problem_information", &self.request_problem_information)
            .field("user_properties", &self.user_properties)
            .field("authentication_method", &self.authentication_method)
            .field("authentication_data", &Redacted(self.authentication_data))
            .finish()
    }
}

// Connect Flags (3.1.2.3).
const RESERVED: u8 = 0x01;
const CLEAN_START: u8 = 0x02;
const WILL: u8 = 0x04;
const WILL_QOS_SHIFT: u8 = 3;
const WILL_RETAIN: u8 = 0x20;
const PASSWORD: u8 = 0x40;
const USER_NAME: u8 = 0x80;
