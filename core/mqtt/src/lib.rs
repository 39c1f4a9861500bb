//! Packets of MQTT 3.1, 3.1.1 and 5.0: framing, decoding and encoding.
//!
//! A [`Decoder`] cuts a byte stream into [`Frame`]s, mostly without a copy. A [`Frame`] is decoded either in full
//! ([`Frame::decode`], everything validated) or, on the hot path, just cut into its parts ([`Frame::publish`]).
//! [`Packet::encode`] writes any packet; [`PublishOut`] and [`encode_ack`] are the hot encoders.
//!
//! What is decoded borrows from the input and never allocates. This crate knows what a single packet may look like
//! (sections 2 and 3 of the specification, topic syntax of 4.7 and 4.8.2), never what it means in a session.
//! Section numbers and statement ids are those of MQTT 5.0.

mod client_id;
mod error;
mod frame;
mod packet;
mod property;
mod publish_out;
mod reason;
mod topic;
mod types;
mod wire;

pub use client_id::{ClientId, InvalidClientId};
pub use error::{DecodeError, EncodeError, ErrorKind};
pub use frame::{Decoder, Frame, RawPublish};
pub use packet::Packet;
pub use packet::ack::{Ack, AckProperties};
pub use packet::auth::{Auth, AuthProperties};
pub use packet::connack::{Connack, ConnackProperties, connack_return_code_v3};
pub use packet::connect::{Connect, ConnectProperties, Will, WillProperties};
pub use packet::disconnect::{Disconnect, DisconnectProperties};
pub use packet::publish::{Publish, PublishProperties};
pub use packet::suback::{ReasonCodes, ReasonCodesIter, Suback, Unsuback};
pub use packet::subscribe::{RetainHandling, Subscribe, SubscribeFilters, SubscribeFiltersIter, SubscribeOptions};
pub use packet::unsubscribe::{Unsubscribe, UnsubscribeFilters, UnsubscribeFiltersIter};
pub use property::{SubscriptionIdentifiers, SubscriptionIdentifiersIter, UserProperties, UserPropertiesIter};
pub use publish_out::{PublishOut, encode_ack};
pub use reason::ReasonCode;
pub use topic::{InvalidTopic, OwnedTopicFilter, TopicFilter, TopicName};
pub use types::{PacketId, PacketType, ProtocolVersion, QoS, Sender};
pub use wire::MAX_REMAINING_LENGTH;
