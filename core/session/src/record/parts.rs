//! What records are made of.

use core::num::NonZeroU32;

use newtmq_base::Instant;
use newtmq_mqtt::{OwnedTopicFilter, PacketId, QoS, SubscribeOptions};

use super::SessionId;
use crate::message::MessageId;
use crate::queue::Identifiers;

/// For whom a message of another node came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Receivers {
    /// Those with plain subscriptions.
    Plain,
    /// A member of a shared group, by the text of the shared subscription.
    Group(String),
    /// Nobody any more: its publisher has released it, so it never comes again.
    Released,
}

/// A message for stored sessions of another node, of [`super::Record::Hint`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HintRecord {
    /// Its number, never given twice. The order of numbers is that of the messages of a shard.
    pub number: u64,
    /// The other node.
    pub node: u64,
    /// Its shard.
    pub shard: u16,
    /// The text of the shared subscription; none for plain subscriptions.
    pub group: Option<String>,
    /// QoS of the publish.
    pub qos: QoS,
    /// RETAIN flag of the publish.
    pub retain: bool,
    /// When it expires; [`Instant::NEVER`] without an interval.
    pub expires: Instant,
    /// The rest of the message, as it goes over links.
    pub body: Vec<u8>,
}

/// A delivery of [`super::Record::Enqueue`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryRecord {
    /// The message.
    pub message: MessageId,
    /// Its place in the order of deliveries of the session, from which its Packet Identifier follows. Of QoS 0: 0.
    pub dseq: u64,
    /// QoS of this delivery.
    pub qos: QoS,
    /// RETAIN flag of this delivery.
    pub retain: bool,
    /// The session got it as a member of a shared group.
    pub shared: bool,
    /// Subscription Identifiers.
    pub identifiers: Identifiers,
    /// Priority of its queue.
    pub priority: u8,
    /// It may have been sent: the client was connected since.
    pub sent: bool,
    /// PUBREC has come.
    pub released: bool,
}

/// A will of [`super::Record::Will`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WillRecord {
    /// The message.
    pub message: MessageId,
    /// Message Expiry Interval in seconds.
    pub message_expiry_interval: Option<u32>,
    /// Will Delay Interval in seconds.
    pub delay_interval: u32,
}

/// A whole session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRecord {
    /// Which.
    pub session: SessionId,
    /// Client Identifier.
    pub client: String,
    /// Name of its zone.
    pub zone: String,
    /// Session Expiry Interval in seconds.
    pub expiry_interval: u32,
    /// When its client went; none while it is connected.
    pub detached: Option<Instant>,
    /// The next delivery's place in the order.
    pub next_dseq: u64,
    /// Subscriptions.
    pub subscriptions: Vec<(OwnedTopicFilter, SubscribeOptions, Option<NonZeroU32>)>,
    /// What is in flight, then what waits, each in its order.
    pub deliveries: Vec<DeliveryRecord>,
    /// QoS 2 identifiers of the client.
    pub qos2_in: Vec<PacketId>,
    /// The will.
    pub will: Option<WillRecord>,
    /// What a gateway keeps with it.
    pub kept: Option<Vec<u8>>,
}
