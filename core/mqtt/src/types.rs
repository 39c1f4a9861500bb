//! The small value types that every packet shares.

use core::fmt;
use core::num::NonZeroU16;

/// The protocol version of a connection, named by its CONNECT (3.1.2.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProtocolVersion {
    /// MQTT 3.1: protocol name `MQIsdp`, level 3.
    V31 = 3,
    /// MQTT 3.1.1: protocol name `MQTT`, level 4.
    V311 = 4,
    /// MQTT 5.0: protocol name `MQTT`, level 5.
    V5 = 5,
}

/// Quality of service (4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QoS {
    /// QoS 0.
    AtMostOnce = 0,
    /// QoS 1.
    AtLeastOnce = 1,
    /// QoS 2.
    ExactlyOnce = 2,
}

impl QoS {
    /// The QoS of its two bits; `None` for 3, which is malformed wherever it stands \[MQTT-3.3.1-4\].
    #[inline]
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<QoS> {
        match bits {
            0 => Some(QoS::AtMostOnce),
            1 => Some(QoS::AtLeastOnce),
            2 => Some(QoS::ExactlyOnce),
            _ => None,
        }
    }
}

/// Packet Identifier: 1 to 65535 (2.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketId(NonZeroU16);

impl PacketId {
    /// `None` for 0 \[MQTT-2.2.1-3\].
    #[inline]
    #[must_use]
    pub const fn new(value: u16) -> Option<PacketId> {
        match NonZeroU16::new(value) {
            Some(value) => Some(PacketId(value)),
            None => None,
        }
    }

    /// The number itself.
    #[inline]
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl fmt::Display for PacketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Control packet type: the upper half of a packet's first byte (2.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum PacketType {
    /// Connection request (3.1).
    Connect = 1,
    /// Connect acknowledgment (3.2).
    Connack = 2,
    /// Publish message (3.3).
    Publish = 3,
    /// Publish acknowledgment, QoS 1 (3.4).
    Puback = 4,
    /// Publish received, QoS 2 part 1 (3.5).
    Pubrec = 5,
    /// Publish release, QoS 2 part 2 (3.6).
    Pubrel = 6,
    /// Publish complete, QoS 2 part 3 (3.7).
    Pubcomp = 7,
    /// Subscribe request (3.8).
    Subscribe = 8,
    /// Subscribe acknowledgment (3.9).
    Suback = 9,
    /// Unsubscribe request (3.10).
    Unsubscribe = 10,
    /// Unsubscribe acknowledgment (3.11).
    Unsuback = 11,
    /// PING request (3.12).
    Pingreq = 12,
    /// PING response (3.13).
    Pingresp = 13,
    /// Disconnect notification (3.14).
    Disconnect = 14,
    /// Authentication exchange, MQTT 5.0 only (3.15).
    Auth = 15,
}

impl PacketType {
    /// The type that a packet's first byte names; `None` for the reserved type 0. The flags in the lower half are not
    /// looked at.
    #[inline]
    #[must_use]
    pub const fn from_first_byte(first: u8) -> Option<PacketType> {
        Some(match first >> 4 {
            1 => PacketType::Connect,
            2 => PacketType::Connack,
            3 => PacketType::Publish,
            4 => PacketType::Puback,
            5 => PacketType::Pubrec,
            6 => PacketType::Pubrel,
            7 => PacketType::Pubcomp,
            8 => PacketType::Subscribe,
            9 => PacketType::Suback,
            10 => PacketType::Unsubscribe,
            11 => PacketType::Unsuback,
            12 => PacketType::Pingreq,
            13 => PacketType::Pingresp,
            14 => PacketType::Disconnect,
            15 => PacketType::Auth,
            _ => return None,
        })
    }

    /// The first byte of such a packet, with the flags that table 2.2 demands (for PUBLISH all flags 0).
    #[inline]
    #[must_use]
    pub const fn first_byte(self) -> u8 {
        match self {
            PacketType::Pubrel | PacketType::Subscribe | PacketType::Unsubscribe => (self as u8) << 4 | 2,
            PacketType::Connect
            | PacketType::Connack
            | PacketType::Publish
            | PacketType::Puback
            | PacketType::Pubrec
            | PacketType::Pubcomp
            | PacketType::Suback
            | PacketType::Unsuback
            | PacketType::Pingreq
            | PacketType::Pingresp
            | PacketType::Disconnect
            | PacketType::Auth => (self as u8) << 4,
        }
    }
}

/// Which side sent a packet. Some packets and properties are for one side only, and are errors from the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sender {
    /// The side that opened the network connection and sends CONNECT.
    Client,
    /// The side that answers with CONNACK.
    Server,
}
