//! The small value types that messages share (5.3).

use newtmq_mqtt::QoS;

/// The longest message: what a Length of three octets can say (5.2.1).
pub const MESSAGE_BYTES_MAX: usize = 65_535;
/// The longest WirelessNodeId: the Length of an encapsulation is one octet (5.5).
pub const NODE_ID_BYTES_MAX: usize = 252;

/// MsgType (5.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum MessageType {
    /// A gateway makes itself known (5.4.1).
    Advertise = 0x00,
    /// A client looks for a gateway (5.4.2).
    SearchGw = 0x01,
    /// The answer (5.4.3).
    GwInfo = 0x02,
    /// A client sets up a connection (5.4.4).
    Connect = 0x04,
    /// The answer (5.4.5).
    Connack = 0x05,
    /// The gateway asks for the Will Topic (5.4.6).
    WillTopicReq = 0x06,
    /// The Will Topic (5.4.7).
    WillTopic = 0x07,
    /// The gateway asks for the Will Message (5.4.8).
    WillMsgReq = 0x08,
    /// The Will Message (5.4.9).
    WillMsg = 0x09,
    /// A topic gets an id (5.4.10).
    Register = 0x0A,
    /// The answer (5.4.11).
    Regack = 0x0B,
    /// A message (5.4.12).
    Publish = 0x0C,
    /// QoS 1 acknowledged, or a PUBLISH of any QoS refused (5.4.13).
    Puback = 0x0D,
    /// QoS 2, part 3 (5.4.14).
    Pubcomp = 0x0E,
    /// QoS 2, part 1 (5.4.14).
    Pubrec = 0x0F,
    /// QoS 2, part 2 (5.4.14).
    Pubrel = 0x10,
    /// A subscription (5.4.15).
    Subscribe = 0x12,
    /// The answer (5.4.16).
    Suback = 0x13,
    /// The end of a subscription (5.4.17).
    Unsubscribe = 0x14,
    /// The answer (5.4.18).
    Unsuback = 0x15,
    /// A sign of life, or a sleeping client wakes (5.4.19).
    Pingreq = 0x16,
    /// The answer (5.4.20).
    Pingresp = 0x17,
    /// The end of a connection, or the begin of sleep (5.4.21).
    Disconnect = 0x18,
    /// Another Will Topic (5.4.22).
    WillTopicUpd = 0x1A,
    /// The answer (5.4.24).
    WillTopicResp = 0x1B,
    /// Another Will Message (5.4.23).
    WillMsgUpd = 0x1C,
    /// The answer (5.4.25).
    WillMsgResp = 0x1D,
    /// A forwarder's wrapping of a message (5.5).
    Encapsulated = 0xFE,
}

impl MessageType {
    /// Every type.
    pub const ALL: [MessageType; 28] = [
        MessageType::Advertise,
        MessageType::SearchGw,
        MessageType::GwInfo,
        MessageType::Connect,
        MessageType::Connack,
        MessageType::WillTopicReq,
        MessageType::WillTopic,
        MessageType::WillMsgReq,
        MessageType::WillMsg,
        MessageType::Register,
        MessageType::Regack,
        MessageType::Publish,
        MessageType::Puback,
        MessageType::Pubcomp,
        MessageType::Pubrec,
        MessageType::Pubrel,
        MessageType::Subscribe,
        MessageType::Suback,
        MessageType::Unsubscribe,
        MessageType::Unsuback,
        MessageType::Pingreq,
        MessageType::Pingresp,
        MessageType::Disconnect,
        MessageType::WillTopicUpd,
        MessageType::WillTopicResp,
        MessageType::WillMsgUpd,
        MessageType::WillMsgResp,
        MessageType::Encapsulated,
    ];

    /// The type of this number; `None` for a reserved one.
    #[must_use]
    pub fn from_code(code: u8) -> Option<MessageType> {
        MessageType::ALL.into_iter().find(|message| message.code() == code)
    }

    /// Its number.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// QoS of a PUBLISH (5.3.4): those of MQTT, and the one that needs no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SnQoS {
    /// QoS -1: without connection and registration (6.8).
    MinusOne,
    /// QoS 0, 1 or 2.
    Mqtt(QoS),
}

/// ReturnCode (5.3.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReturnCode {
    /// Accepted.
    Accepted,
    /// Rejected: congestion. It may be tried again later.
    Congestion,
    /// Rejected: invalid topic id.
    InvalidTopicId,
    /// Rejected: not supported.
    NotSupported,
    /// One of those that are reserved; counts as rejected.
    Reserved(u8),
}

impl From<u8> for ReturnCode {
    fn from(code: u8) -> ReturnCode {
        match code {
            0 => ReturnCode::Accepted,
            1 => ReturnCode::Congestion,
            2 => ReturnCode::InvalidTopicId,
            3 => ReturnCode::NotSupported,
            _ => ReturnCode::Reserved(code),
        }
    }
}

impl ReturnCode {
    /// Its number.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            ReturnCode::Accepted => 0,
            ReturnCode::Congestion => 1,
            ReturnCode::InvalidTopicId => 2,
            ReturnCode::NotSupported => 3,
            ReturnCode::Reserved(code) => code,
        }
    }
}

/// How a PUBLISH names its topic (5.3.4, 5.3.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TopicRef {
    /// An id of this client's registrations.
    Normal(u16),
    /// An id that both sides know beforehand (6.4).
    Predefined(u16),
    /// The topic itself, of two bytes.
    Short([u8; 2]),
}

impl TopicRef {
    /// The two bytes of TopicId, as acknowledgements repeat them.
    #[must_use]
    pub const fn id(self) -> u16 {
        match self {
            TopicRef::Normal(id) | TopicRef::Predefined(id) => id,
            TopicRef::Short(name) => u16::from_be_bytes(name),
        }
    }
}

/// How a SUBSCRIBE or UNSUBSCRIBE names its topics (5.4.15).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TopicSpec<'a> {
    /// A Topic Name, perhaps with wildcards.
    Name(&'a str),
    /// A predefined id.
    Predefined(u16),
    /// A topic of two bytes.
    Short([u8; 2]),
}

/// Flags (5.3.4). Which of them a message has is its own matter; the others are written as 0 and not looked at.
pub(crate) mod flag {
    pub(crate) const DUP: u8 = 0x80;
    pub(crate) const QOS_SHIFT: u8 = 5;
    pub(crate) const RETAIN: u8 = 0x10;
    pub(crate) const WILL: u8 = 0x08;
    pub(crate) const CLEAN_SESSION: u8 = 0x04;
    pub(crate) const TOPIC_MASK: u8 = 0x03;
    pub(crate) const TOPIC_NORMAL: u8 = 0;
    pub(crate) const TOPIC_PREDEFINED: u8 = 1;
    pub(crate) const TOPIC_SHORT: u8 = 2;
}
