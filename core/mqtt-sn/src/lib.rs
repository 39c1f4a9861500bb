//! MQTT-SN 1.2: messages, and the gateway between them and MQTT, without I/O.

mod address;
mod client;
mod config;
mod counters;
mod done;
mod error;
mod gateway;
mod io;
mod message;
mod record;
mod registry;
mod types;

pub use address::Endpoint;
pub use config::{Config, MinusOne};
pub use counters::Counters;
pub use error::{DecodeError, EncodeError, ErrorKind};
pub use gateway::Gateway;
pub use io::{ClientState, ClientView, Input, LinkId, Output, WILL_DELAY_SECS, Will};
pub use message::{Ack, Datagram, Encapsulation, Message, Publish, WillTopic};
pub use record::RECORD_BYTES_MAX;
pub use types::{MESSAGE_BYTES_MAX, MessageType, NODE_ID_BYTES_MAX, ReturnCode, SnQoS, TopicRef, TopicSpec};
