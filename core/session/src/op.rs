//! The durable changes of a session.

use newtmq_base::Instant;
use newtmq_mqtt::{OwnedTopicFilter, PacketId, QoS, SubscribeOptions, TopicFilter};

use crate::Message;
use crate::queue::Identifiers;
use crate::session::Will;

/// One durable change. Applying the same operations in the same order gives the same session, on any node.
#[derive(Debug)]
pub enum Op<'a> {
    /// A client connects to this session (section 3.1.2.4). Starts the resend of what is in flight [MQTT-4.4.0-1].
    Claim {
        /// Session Expiry Interval in seconds; `u32::MAX` never expires.
        expiry_interval: u32,
    },
    /// The connection is gone; the session waits for its client.
    Detach {
        /// Session Expiry Interval in seconds; DISCONNECT may have changed it.
        expiry_interval: u32,
    },
    /// Adds or replaces a subscription [MQTT-3.8.4-3].
    Subscribe {
        /// The filter.
        filter: OwnedTopicFilter,
        /// Granted options.
        options: SubscribeOptions,
        /// Subscription Identifier.
        identifier: Option<core::num::NonZeroU32>,
    },
    /// Removes a subscription [MQTT-3.10.4-2].
    Unsubscribe {
        /// The filter.
        filter: TopicFilter<'a>,
    },
    /// A matched message for this session. Assigns the outbound dseq and with it the Packet Identifier.
    Enqueue {
        /// The message.
        message: Message,
        /// QoS of this delivery.
        qos: QoS,
        /// RETAIN flag of this delivery.
        retain: bool,
        /// Subscription Identifiers of the matching subscriptions [MQTT-3.3.4-3].
        identifiers: Identifiers,
        /// Higher goes first; equal ones keep their order.
        priority: u8,
        /// The session got it as a member of a shared group (section 4.8.2).
        shared: bool,
    },
    /// PUBACK, PUBCOMP, or a PUBREC with an error: the delivery is over.
    Ack {
        /// Packet Identifier of the delivery.
        packet_id: PacketId,
        /// What arrived.
        kind: AckKind,
    },
    /// A delivery that cannot be sent to this client is given up, as if it had been completed [MQTT-3.1.2-25].
    Discard {
        /// Packet Identifier of the delivery.
        packet_id: PacketId,
    },
    /// PUBREC: from here on only the PUBREL is resent [MQTT-4.3.3-5].
    PubrecOut {
        /// Packet Identifier of the delivery.
        packet_id: PacketId,
    },
    /// A QoS 2 PUBLISH from the client: its identifier is kept until PUBREL [MQTT-4.3.3-9].
    Qos2In {
        /// Packet Identifier that the client chose.
        packet_id: PacketId,
    },
    /// PUBREL from the client, or a PUBLISH that was refused with an error: the identifier is free again.
    Qos2Rel {
        /// Packet Identifier that the client chose.
        packet_id: PacketId,
    },
    /// Sets or clears the Will Message.
    Will {
        /// The will, none to clear.
        will: Option<Box<Will>>,
    },
    /// The session outlives its connection from here on, or longer than before.
    Outlive {
        /// Session Expiry Interval in seconds; `u32::MAX` never expires.
        expiry_interval: u32,
    },
    /// Keeps some bytes with the session, in place of those before: what a gateway knows of the client.
    Keep {
        /// The bytes.
        bytes: Box<[u8]>,
    },
    /// Drops queued messages whose Message Expiry Interval has passed [MQTT-3.3.2-5].
    Expire {
        /// Time to compare with.
        now: Instant,
    },
}

/// Which acknowledgement ends a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckKind {
    /// PUBACK of a QoS 1 delivery.
    Puback,
    /// PUBCOMP of a QoS 2 delivery.
    Pubcomp,
    /// PUBREC with a reason code of 0x80 or more.
    PubrecError,
}

/// What became of messages that the session gave up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dropped {
    /// Oldest ones, at max_mqueue_len or max_mqueue_bytes.
    pub full: u32,
    /// Message Expiry Interval passed.
    pub expired: u32,
}

/// What an operation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The state changed.
    Done,
    /// There was nothing to change: an unknown subscription or Packet Identifier, or a QoS 2 identifier seen before.
    Nothing,
    /// An acknowledgement of the wrong kind for a delivery that is in flight: a Protocol Error of the client.
    WrongKind,
    /// [`Op::Enqueue`] or [`Op::Expire`] gave messages up.
    Dropped(Dropped),
}
