//! What can be wrong with a datagram, and with a message that is to be written.

use core::fmt;

use crate::MessageType;

/// Why a datagram was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// It ends before what has to be there.
    Truncated,
    /// Its Length is not that of the message.
    Length,
    /// There are bytes behind the message.
    Trailing,
    /// The MsgType is reserved (5.2.2).
    UnknownType,
    /// The flags say what the message cannot have (5.3.4).
    Flags,
    /// A text is not UTF-8, or holds U+0000.
    Text,
    /// The Protocol Id is not 1 (5.3.8).
    ProtocolId,
    /// A forwarder encapsulates what is encapsulated already.
    Nested,
    /// A message identifier is 0 where the message needs one.
    MsgId,
}

/// A datagram that is not acted on. The sender's fault; it leaves no state behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub struct DecodeError {
    /// Why.
    pub kind: ErrorKind,
    /// The message's type, as far as it is known.
    pub message: Option<MessageType>,
    /// The field.
    pub what: &'static str,
    /// Where the field begins, in bytes from the datagram's beginning.
    pub at: usize,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.message {
            Some(message) => write!(f, "{:?} in {message:?}: {} at byte {}", self.kind, self.what, self.at),
            None => write!(f, "{:?}: {} at byte {}", self.kind, self.what, self.at),
        }
    }
}

/// A message that cannot be written. Our own fault, or what it carries is too large; the output is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The Length would exceed 65,535 (5.2.1).
    #[error("the message exceeds 65535 bytes")]
    TooLong,
    /// A WirelessNodeId is so long that one byte of Length does not hold it (5.5).
    #[error("a WirelessNodeId exceeds 252 bytes")]
    NodeIdTooLong,
}
