//! MQTT-SN 1.2: messages, and the gateway between devices and a broker of MQTT 5, without I/O.
//!
//! [`Datagram`] and [`Message`] are the codec: every message, both forms of the length, forwarders. What is decoded borrows
//! from the datagram and never allocates.
//!
//! [`Gateway`] has a state machine for each device: `(state, input, now)` in, outputs out. It gives each device one
//! connection of MQTT 5, a *link*, and adds what MQTT lacks: topic ids, sleep, repetition, a will that changes, addresses
//! that change (docs/adr/0012). Sessions, permissions, retained messages and the cluster are the broker's. It owns no
//! socket and no session, reads no clock, and what it keeps has limits, all in [`Config`]; what happens at them is counted
//! in [`Counters`]. Section numbers are those of MQTT-SN 1.2.
//!
//! # For who drives it
//!
//! Hand every datagram, byte and deadline to [`Gateway::handle`], then do its outputs in their order. With a shard on the
//! other side:
//!
//! | output | to do |
//! |---|---|
//! | [`Output::Open`] | take a `ConnId`, `ShardInput::Opened` at the listener of MQTT-SN |
//! | [`Output::Bytes`] | append to what is kept of the connection; pass on as `ShardInput::Bytes` unless it is held |
//! | [`Output::Close`] | `ShardInput::Closed` behind what is kept; the link is forgotten |
//! | [`Output::Will`] | `ShardInput::SetWill` with the delay [`WILL_DELAY_SECS`] |
//! | [`Output::Keep`] | `ShardInput::Keep` |
//! | [`Output::Outlive`] | `ShardInput::Outlive` |
//! | [`Output::Datagram`], [`Output::Broadcast`] | to the socket; a full socket drops it, as any network does |
//!
//! | of the shard | input |
//! |---|---|
//! | `Ready` | fill until drained, [`Input::Bytes`] |
//! | `Taken::hold`, `Resume` | [`Input::Held`] |
//! | `Close`, `Abort` | fill until drained, [`Input::Closed`], and `ShardInput::Closed` back |
//! | `WillSet` | [`Input::WillSet`] |
//! | `Record` | [`Input::Record`], before the bytes that follow |
//! | `Move` | the connection goes on at the other shard under the same link; bytes go there from then on |
//!
//! The limit on the input that is kept for a held connection is the gateway's own: it sends no request on a held link, only
//! what ends exchanges that have begun.
//!
//! Several gateways (one a shard, one a node) have nothing in common but records. A device is at one of them: datagrams with
//! a ClientId (CONNECT, PINGREQ) go to the gateway of the hash of that, the others to the gateway that has their address;
//! whoever reads the socket looks at [`Datagram::decode`] and remembers an address when its gateway has accepted it.

mod address;
mod client;
mod config;
mod counters;
mod done;
mod error;
mod gateway;
mod io;
mod message;
mod queue;
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
