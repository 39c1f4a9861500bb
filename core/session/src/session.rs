//! The session itself: identity, limits, subscriptions, will; its message flow is in [`crate::flow`].

use newtmq_base::Instant;
use newtmq_mqtt::{ClientId, PacketId};

use crate::Message;
use crate::flow::{Flow, Outgoing, PACKET_IDS};
use crate::op::{Applied, Dropped, Op};
use crate::subscriptions::{SubscriptionEntry, Subscriptions};

/// Limits of a session; the same for all sessions of a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// Messages that wait; the oldest is dropped above it.
    pub max_mqueue_len: usize,
    /// Bytes of messages that wait, each with its topic and properties; the oldest are dropped above it, but one message
    /// may always wait. 0 for no limit.
    pub max_mqueue_bytes: usize,
    /// Unacknowledged deliveries, together with the client's Receive Maximum.
    pub max_inflight: usize,
}

impl SessionLimits {
    /// # Panics
    /// If the two together could use up all Packet Identifiers.
    pub fn assert_valid(&self) {
        assert!(
            ((self.max_mqueue_len + self.max_inflight) as u64) < PACKET_IDS,
            "max_mqueue_len + max_inflight must be below {PACKET_IDS}"
        );
    }
}

/// A Will Message (section 3.1.2.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// The message; its expiry counts from its publication, so the block holds none.
    pub message: Message,
    /// Message Expiry Interval in seconds.
    pub message_expiry_interval: Option<u32>,
    /// Will Delay Interval in seconds (section 3.1.3.2.2).
    pub delay_interval: u32,
}

/// One client's session.
#[derive(Debug)]
pub struct Session {
    client: ClientId,
    subscriptions: Subscriptions,
    flow: Option<Box<Flow>>,
    will: Option<Box<Will>>,
    #[allow(clippy::box_collection)] // 8 bytes in each session instead of 24
    kept: Option<Box<Vec<u8>>>,
    expiry_interval: u32,
}

impl Session {
    /// A new session, without anything.
    #[must_use]
    pub fn new(client: ClientId, expiry_interval: u32) -> Session {
        Session { client, subscriptions: Subscriptions::default(), flow: None, will: None, kept: None, expiry_interval }
    }

    /// From what a log held.
    pub(crate) fn restored(
        client: ClientId,
        subscriptions: Subscriptions,
        flow: Option<Box<Flow>>,
        will: Option<Box<Will>>,
        kept: Option<Vec<u8>>,
        expiry_interval: u32,
    ) -> Session {
        Session { client, subscriptions, flow, will, kept: kept.map(Box::new), expiry_interval }
    }

    pub(crate) fn flow(&self) -> Option<&Flow> {
        self.flow.as_deref()
    }

    /// Client Identifier.
    #[must_use]
    pub fn client(&self) -> &ClientId {
        &self.client
    }

    /// Session Expiry Interval in seconds; `u32::MAX` never expires.
    #[must_use]
    pub fn expiry_interval(&self) -> u32 {
        self.expiry_interval
    }

    /// The subscriptions.
    #[must_use]
    pub fn subscriptions(&self) -> &Subscriptions {
        &self.subscriptions
    }

    /// The Will Message, while there is one.
    #[must_use]
    pub fn will(&self) -> Option<&Will> {
        self.will.as_deref()
    }

    /// What a gateway keeps with the session.
    #[must_use]
    pub fn kept(&self) -> Option<&[u8]> {
        self.kept.as_ref().map(|kept| &***kept)
    }

    /// Messages that wait for the window or the client.
    #[must_use]
    pub fn queue_len(&self) -> usize {
        self.flow.as_ref().map_or(0, |flow| flow.queue_len())
    }

    /// Bytes of the messages that wait for the window or the client.
    #[must_use]
    pub fn queue_bytes(&self) -> usize {
        self.flow.as_ref().map_or(0, |flow| flow.queue_bytes())
    }

    /// Deliveries that wait for an acknowledgement.
    #[must_use]
    pub fn inflight_len(&self) -> usize {
        self.flow.as_ref().map_or(0, |flow| flow.inflight_len())
    }

    /// QoS 1 messages that it got as a member of a shared group and that are not acknowledged, in order. When the session
    /// ends, they are for other members (section 4.8.2).
    pub fn unacknowledged_shared(&self) -> impl Iterator<Item = &Message> {
        self.flow.iter().flat_map(|flow| flow.unacknowledged_shared())
    }

    /// Those of them that were sent on this connection.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.flow.as_ref().map_or(0, |flow| flow.sent())
    }

    /// Whether a QoS 0 message must queue to keep its place behind others.
    #[must_use]
    pub fn has_queued_qos0(&self) -> bool {
        self.flow.as_ref().is_some_and(|flow| flow.has_queued_qos0())
    }

    /// QoS 2 identifiers that the client has in use.
    #[must_use]
    pub fn awaiting_rel_len(&self) -> usize {
        self.flow.as_ref().map_or(0, |flow| flow.qos2_in_len())
    }

    /// Whether a delivery with this identifier waits for an acknowledgement.
    #[must_use]
    pub fn is_in_flight(&self, packet_id: PacketId) -> bool {
        self.flow.as_ref().is_some_and(|flow| flow.is_in_flight(packet_id))
    }

    /// Whether the client has this QoS 2 identifier in use.
    #[must_use]
    pub fn is_awaiting_rel(&self, packet_id: PacketId) -> bool {
        self.flow.as_ref().is_some_and(|flow| flow.has_qos2_in(packet_id))
    }

    /// Packet Identifiers in use toward the client, for checkers.
    pub fn packet_ids(&self) -> impl Iterator<Item = PacketId> {
        self.flow.iter().flat_map(|flow| flow.packet_ids())
    }

    /// Applies one durable change.
    pub fn apply(&mut self, op: Op<'_>, limits: &SessionLimits) -> Applied {
        self.apply_noting(op, limits, &mut Vec::new())
    }

    /// The same; notes the dseq of each delivery that [`Op::Enqueue`] gave up for want of room, but for QoS 0.
    pub fn apply_noting(&mut self, op: Op<'_>, limits: &SessionLimits, given_up: &mut Vec<u64>) -> Applied {
        match op {
            Op::Claim { expiry_interval } | Op::Detach { expiry_interval } => {
                self.expiry_interval = expiry_interval;
                if let Some(flow) = &mut self.flow {
                    flow.rewind();
                }
                Applied::Done
            }
            Op::Subscribe { filter, options, identifier } => {
                match self.subscriptions.insert(filter, SubscriptionEntry { options, identifier }) {
                    Some(_) => Applied::Nothing,
                    None => Applied::Done,
                }
            }
            Op::Unsubscribe { filter } => done(self.subscriptions.remove(filter.as_str()).is_some()),
            Op::Enqueue { message, qos, retain, identifiers, priority, shared } => {
                let flow = self.flow.get_or_insert_default();
                let dropped = flow.enqueue(message, qos, retain, identifiers, priority, shared, limits, given_up);
                if dropped == Dropped::default() { Applied::Done } else { Applied::Dropped(dropped) }
            }
            Op::Ack { packet_id, kind } => match &mut self.flow {
                Some(flow) => flow.ack(packet_id, kind),
                None => Applied::Nothing,
            },
            Op::Discard { packet_id } => done(self.flow.as_mut().is_some_and(|flow| flow.discard(packet_id))),
            Op::PubrecOut { packet_id } => match &mut self.flow {
                Some(flow) => flow.pubrec(packet_id),
                None => Applied::Nothing,
            },
            Op::Qos2In { packet_id } => done(self.flow.get_or_insert_default().qos2_in(packet_id)),
            Op::Qos2Rel { packet_id } => done(self.flow.as_mut().is_some_and(|flow| flow.qos2_rel(packet_id))),
            Op::Will { will } => {
                self.will = will;
                Applied::Done
            }
            Op::Outlive { expiry_interval } => {
                self.expiry_interval = expiry_interval;
                Applied::Done
            }
            Op::Keep { bytes } => {
                self.kept = Some(Box::new(bytes.into_vec()));
                Applied::Done
            }
            Op::Expire { now } => match self.flow.as_mut().map_or(0, |flow| flow.expire(now)) {
                0 => Applied::Nothing,
                expired => Applied::Dropped(Dropped { full: 0, expired }),
            },
        }
    }

    /// The place in the order that the next [`Op::Enqueue`] with QoS 1 or 2 assigns.
    #[must_use]
    pub fn next_dseq(&self) -> u64 {
        self.flow.as_ref().map_or(0, |flow| flow.next_dseq())
    }

    /// What the last [`Op::Enqueue`] with QoS 1 or 2 assigned.
    #[must_use]
    pub fn last_dseq(&self) -> u64 {
        self.flow.as_ref().map_or(0, |flow| flow.next_dseq().saturating_sub(1))
    }

    /// Whether something waits for the window or the connection.
    #[must_use]
    #[inline]
    pub fn wants_to_send(&self) -> bool {
        self.flow.as_ref().is_some_and(|flow| flow.wants_to_send())
    }

    /// Hands out the next packet to write, at most `receive_maximum` of them unacknowledged. `expired` gets the
    /// places in the order of those that were given up on the way; none for QoS 0.
    pub fn next_send(
        &mut self,
        now: Instant,
        receive_maximum: usize,
        expired: &mut Vec<Option<u64>>,
    ) -> Option<Outgoing<'_>> {
        self.flow.as_mut()?.next_send(now, receive_maximum, expired)
    }

    /// Half of the retry interval has passed for what waits for an acknowledgement on this connection. What has seen
    /// [`OVERDUE_TICKS`](crate::OVERDUE_TICKS) of them is overdue.
    pub fn retry_tick(&mut self) {
        if let Some(flow) = &mut self.flow {
            flow.retry_tick();
        }
    }

    /// Hands out the next overdue packet, in the order of first sending [MQTT-4.6.0-1]. `from` is 0 at the beginning of
    /// a round, and says how far it is.
    pub fn next_overdue(&mut self, from: &mut usize) -> Option<Outgoing<'_>> {
        self.flow.as_mut()?.next_overdue(from)
    }

    /// Half of the time has passed that the client has for its PUBRELs. Returns the identifiers that are overdue; they
    /// are free only after an [`Op::Qos2Rel`] of each.
    pub fn await_rel_tick(&mut self) -> Vec<PacketId> {
        self.flow.as_mut().map_or_else(Vec::new, |flow| flow.await_rel_tick())
    }

    /// Gives memory back that nothing needs at the moment. Changes nothing else.
    pub fn release(&mut self) {
        if let Some(flow) = &mut self.flow {
            flow.release();
        }
    }
}

fn done(changed: bool) -> Applied {
    if changed { Applied::Done } else { Applied::Nothing }
}
