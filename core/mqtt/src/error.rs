//! What can be wrong with a packet, and the reason code that answers it.
//!
//! A decode error is always the peer's fault and leaves no state behind: the connection is to be closed (4.13).

use core::fmt;

use crate::{ProtocolVersion, ReasonCode};

/// Why a packet was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The packet cannot be parsed according to the specification (1.2 Malformed Packet): 0x81.
    Malformed,
    /// The packet parses, but holds what the protocol does not allow (1.2 Protocol Error): 0x82.
    ProtocolError,
    /// The packet is larger than the receiver said it takes: 0x95.
    PacketTooLarge,
    /// The CONNECT names a protocol or a version that is not supported: 0x84.
    UnsupportedVersion,
    /// A Topic Name is well-formed, but not a valid one: 0x90.
    TopicNameInvalid,
    /// The Topic Alias is 0 (3.3.2.3.4): 0x94.
    TopicAliasInvalid,
    /// The payload is not what the Payload Format Indicator says (3.3.2.3.2): 0x99.
    PayloadFormatInvalid,
}

impl ErrorKind {
    /// The reason code that names it in a CONNACK or DISCONNECT.
    #[must_use]
    pub const fn reason(self) -> ReasonCode {
        match self {
            ErrorKind::Malformed => ReasonCode::MalformedPacket,
            ErrorKind::ProtocolError => ReasonCode::ProtocolError,
            ErrorKind::PacketTooLarge => ReasonCode::PacketTooLarge,
            ErrorKind::UnsupportedVersion => ReasonCode::UnsupportedProtocolVersion,
            ErrorKind::TopicNameInvalid => ReasonCode::TopicNameInvalid,
            ErrorKind::TopicAliasInvalid => ReasonCode::TopicAliasInvalid,
            ErrorKind::PayloadFormatInvalid => ReasonCode::PayloadFormatInvalid,
        }
    }
}

/// A packet that must not be acted on (4.13). The peer's fault; the decoder is of no further use after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub struct DecodeError {
    /// Why the packet was refused.
    pub kind: ErrorKind,
    /// The reason code to answer with.
    pub reason: ReasonCode,
    /// The field or rule, for a log or a Reason String.
    pub what: &'static str,
    /// For a CONNECT that failed after its version was read: the version in whose format to answer. For
    /// [`ErrorKind::UnsupportedVersion`] it is the supported version next to the one that was asked for, or `None` if
    /// the protocol name is unknown, so that no answer would be understood.
    pub version: Option<ProtocolVersion>,
}

impl DecodeError {
    /// An error of this kind at this field.
    #[cold]
    #[must_use]
    pub const fn new(kind: ErrorKind, what: &'static str) -> DecodeError {
        DecodeError { kind, reason: kind.reason(), what, version: None }
    }

    #[cold]
    pub(crate) const fn malformed(what: &'static str) -> DecodeError {
        DecodeError::new(ErrorKind::Malformed, what)
    }

    #[cold]
    pub(crate) const fn protocol(what: &'static str) -> DecodeError {
        DecodeError::new(ErrorKind::ProtocolError, what)
    }

    #[cold]
    pub(crate) const fn with_version(mut self, version: ProtocolVersion) -> DecodeError {
        self.version = Some(version);
        self
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (0x{:02x}): {}", self.reason, self.reason.code(), self.what)
    }
}

/// A packet that cannot be written. Our own fault, or the packet has grown too large on its way; the output is left
/// as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The Remaining Length would exceed 268,435,455 (1.5.5).
    #[error("the packet exceeds the largest Remaining Length")]
    PacketTooLarge,
    /// A string or binary field is longer than 65,535 bytes (1.5.4, 1.5.6).
    #[error("a string or binary field exceeds 65535 bytes")]
    FieldTooLong,
    /// A Subscription Identifier exceeds 268,435,455 (3.8.2.1.2).
    #[error("a variable byte integer exceeds 268435455")]
    IntegerTooLarge,
    /// A QoS 1 or 2 PUBLISH without a Packet Identifier, or QoS 0 with one (2.2.1).
    #[error("a Packet Identifier is missing, or given for QoS 0")]
    PacketIdentifier,
    /// The packet does not exist in this version of the protocol.
    #[error("this packet does not exist in this version of MQTT")]
    NotInThisVersion,
}
