//! MQTT-SN 1.2: messages, and the gateway between them and MQTT, without I/O.

mod error;
mod message;
mod types;

pub use error::{DecodeError, EncodeError, ErrorKind};
pub use message::{Ack, Datagram, Encapsulation, Message, Publish, WillTopic};
pub use types::{MESSAGE_BYTES_MAX, MessageType, NODE_ID_BYTES_MAX, ReturnCode, SnQoS, TopicRef, TopicSpec};
