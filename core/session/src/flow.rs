//! The two-way message flow of a session: what is in flight to the client, what waits, and which QoS 2 identifiers the
//! client has in use. Allocated for sessions that have any of it.

use std::collections::VecDeque;

use newtmq_base::{Instant, planted};
use newtmq_mqtt::{PacketId, QoS};

use crate::op::{AckKind, Applied};
use crate::queue::{Delivery, Identifiers, Queue};
use crate::record::DeliveryRecord;
use crate::restore::packet_id_of;
use crate::session::SessionLimits;
use crate::{Dropped, Message, MessageId};

/// Packet Identifiers are 1..=65,535.
pub(crate) const PACKET_IDS: u64 = 65_535;

/// Ticks, half an interval each, after which something counts as overdue. It has then waited for the interval at least,
/// and for one and a half at most, without a clock and without a time beside each message.
pub const OVERDUE_TICKS: u8 = 3;

#[derive(Debug)]
struct InFlight {
    delivery: Delivery,
    /// Ticks since it was last sent, or since its PUBREC.
    age: u8,
    /// PUBREC has arrived: PUBREL is what is sent.
    released: bool,
    /// Sent on an earlier connection, or twice on this one: DUP is set when it is sent again [MQTT-3.3.1-1].
    sent_before: bool,
}

/// What to write to the connection next.
#[derive(Debug)]
pub struct Outgoing<'a> {
    /// Which packet.
    pub kind: OutgoingKind,
    /// The delivery it belongs to.
    pub delivery: &'a Delivery,
}

/// Which packet to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutgoingKind {
    /// PUBLISH; `dup` if it went out before.
    Publish {
        /// The DUP flag.
        dup: bool,
    },
    /// PUBREL of a delivery whose PUBREC came before.
    Pubrel,
}

#[derive(Debug, Default)]
pub(crate) struct Flow {
    next_dseq: u64,
    /// No live delivery has a lower dseq.
    oldest_dseq: u64,
    /// Sent and not acknowledged, in the order of first sending [MQTT-4.6.0-1].
    inflight: VecDeque<InFlight>,
    /// The first `sent` of `inflight` were sent on this connection.
    sent: usize,
    /// A QoS 0 message on its way out; it needs a place to be borrowed from.
    qos0: Option<Delivery>,
    queue: Queue,
    /// QoS 2 identifiers received and not yet released, sorted, and the ticks that each has seen.
    qos2_in: Vec<(u16, u8)>,
}

impl Flow {
    pub(crate) fn queue_len(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn queue_bytes(&self) -> usize {
        self.queue.bytes()
    }

    pub(crate) fn inflight_len(&self) -> usize {
        self.inflight.len()
    }

    /// Deliveries that wait for acknowledgement on this connection.
    pub(crate) fn sent(&self) -> usize {
        self.sent
    }

    pub(crate) fn has_queued_qos0(&self) -> bool {
        self.queue.has_qos0()
    }

    pub(crate) fn wants_to_send(&self) -> bool {
        self.sent < self.inflight.len() || self.queue.len() > 0
    }

    /// Starts over on a new connection: everything in flight is to be sent again.
    pub(crate) fn rewind(&mut self) {
        for entry in self.inflight.iter_mut().take(self.sent) {
            entry.sent_before = true;
        }
        if planted!(InFlightDropped, self.sent > 0) {
            self.inflight.drain(..self.sent);
        }
        if planted!(ResendReversed, self.sent > 1) {
            self.inflight.make_contiguous()[..self.sent].reverse();
        }
        if planted!(PacketIdsStartOver, self.live().next().is_some()) {
            (self.next_dseq, self.oldest_dseq) = (0, 0);
        }
        if planted!(Qos2IdsForgotten, !self.qos2_in.is_empty()) {
            self.qos2_in.clear();
        }
        self.sent = 0;
        for (_, age) in &mut self.qos2_in {
            *age = 0;
        }
    }

    #[allow(clippy::too_many_arguments)] // a delivery and its limits
    pub(crate) fn enqueue(
        &mut self,
        message: Message,
        qos: QoS,
        retain: bool,
        identifiers: Identifiers,
        priority: u8,
        shared: bool,
        limits: &SessionLimits,
        given_up: &mut Vec<u64>,
    ) -> Dropped {
        let mut dropped = Dropped::default();
        let mut give_up = |delivery: Option<Delivery>| {
            given_up.extend(delivery.filter(|delivery| delivery.packet_id.is_some()).map(|delivery| delivery.dseq));
            dropped.full += 1;
        };
        while self.queue.len() >= limits.max_mqueue_len.max(1) {
            give_up(self.queue.pop_oldest());
        }
        if limits.max_mqueue_bytes > 0 {
            while self.queue.len() > 0 && self.queue.bytes() + message.size() > limits.max_mqueue_bytes {
                give_up(self.queue.pop_oldest());
            }
        }
        let (dseq, packet_id) = if qos == QoS::AtMostOnce { (0, None) } else { self.assign() };
        let delivery = Delivery { message, identifiers, dseq, packet_id, qos, retain, shared, again: false };
        self.queue.push(priority, delivery);
        dropped
    }

    /// The next dseq whose Packet Identifier is free [MQTT-2.2.1-4].
    fn assign(&mut self) -> (u64, Option<PacketId>) {
        loop {
            let dseq = self.next_dseq;
            self.next_dseq += 1;
            if planted!(PacketIdIgnoresQueue) {
                let in_window = |id: &PacketId| self.inflight.iter().any(|entry| entry.delivery.packet_id == Some(*id));
                return (dseq, (1..=u16::MAX).filter_map(PacketId::new).find(|id| !in_window(id)));
            }
            let packet_id = packet_id_of(dseq);
            // Less than a round of identifiers since the oldest live one: this one cannot be in use.
            if dseq - self.oldest_dseq >= PACKET_IDS {
                self.oldest_dseq = self.live().map(|delivery| delivery.dseq).min().unwrap_or(dseq);
            }
            let reused = dseq - self.oldest_dseq >= PACKET_IDS && self.in_use(packet_id);
            if !reused {
                return (dseq, Some(packet_id));
            }
        }
    }

    /// Deliveries that hold a Packet Identifier.
    fn live(&self) -> impl Iterator<Item = &Delivery> {
        let inflight = self.inflight.iter().map(|entry| &entry.delivery);
        inflight.chain(self.queue.iter().filter(|delivery| delivery.packet_id.is_some()))
    }

    fn in_use(&self, packet_id: PacketId) -> bool {
        self.live().any(|delivery| delivery.packet_id == Some(packet_id))
    }

    /// Hands out the next packet, within `receive_maximum` unacknowledged ones on this connection [MQTT-3.3.4-9].
    pub(crate) fn next_send(
        &mut self,
        now: Instant,
        receive_maximum: usize,
        expired: &mut Vec<Option<u64>>,
    ) -> Option<Outgoing<'_>> {
        while planted!(PubrelResendLost, self.inflight.get(self.sent).is_some_and(|entry| entry.released)) {
            self.sent += 1;
        }
        let window_open = self.sent < receive_maximum || planted!(WindowOneTooMany, self.sent == receive_maximum);
        if self.sent < self.inflight.len() {
            if !window_open {
                return None;
            }
            let entry = &mut self.inflight[self.sent];
            entry.age = 0;
            let dup = entry.sent_before && !planted!(DupFlagMissing);
            let kind = if entry.released { OutgoingKind::Pubrel } else { OutgoingKind::Publish { dup } };
            self.sent += 1;
            return Some(Outgoing { kind, delivery: &self.inflight[self.sent - 1].delivery });
        }
        let delivery = loop {
            let delivery = self.queue.pop(window_open)?;
            if !delivery.message.is_expired(now) || planted!(ExpiredMessageDelivered) {
                break delivery;
            }
            expired.push(delivery.packet_id.map(|_| delivery.dseq));
        };
        if delivery.qos == QoS::AtMostOnce {
            return Some(Outgoing { kind: OutgoingKind::Publish { dup: false }, delivery: self.qos0.insert(delivery) });
        }
        self.sent += 1;
        let dup = delivery.again;
        self.inflight.push_back(InFlight { delivery, age: 0, released: false, sent_before: dup });
        let entry = self.inflight.back().expect("pushed above");
        Some(Outgoing { kind: OutgoingKind::Publish { dup }, delivery: &entry.delivery })
    }

    /// Where an identifier is in flight. Acknowledgements come in order [MQTT-4.6.0-2], so it is the front one unless
    /// the client is odd; then the window is searched.
    fn position(&self, packet_id: PacketId) -> Option<usize> {
        let at = self.inflight.iter().position(|entry| entry.delivery.packet_id == Some(packet_id));
        if planted!(StaleAck, at.is_none() && self.sent > 0) { Some(0) } else { at }
    }

    pub(crate) fn is_in_flight(&self, packet_id: PacketId) -> bool {
        self.position(packet_id).is_some()
    }

    pub(crate) fn ack(&mut self, packet_id: PacketId, kind: AckKind) -> Applied {
        let Some(at) = self.position(packet_id) else { return Applied::Nothing };
        let entry = &self.inflight[at];
        let fits = match kind {
            AckKind::Puback => entry.delivery.qos == QoS::AtLeastOnce,
            AckKind::Pubcomp => entry.released,
            AckKind::PubrecError => entry.delivery.qos == QoS::ExactlyOnce && !entry.released,
        };
        // What was not sent on this connection may still be acknowledged by it: the client knows it from the last one.
        if !fits {
            return Applied::WrongKind;
        }
        self.remove(at);
        Applied::Done
    }

    pub(crate) fn discard(&mut self, packet_id: PacketId) -> bool {
        let at = self.position(packet_id);
        if let Some(at) = at {
            self.remove(at);
        }
        at.is_some()
    }

    fn remove(&mut self, at: usize) {
        if at == 0 {
            self.inflight.pop_front();
        } else {
            self.inflight.remove(at);
        }
        self.sent -= usize::from(at < self.sent && !planted!(WindowLeak, at > 0));
    }

    pub(crate) fn pubrec(&mut self, packet_id: PacketId) -> Applied {
        let Some(at) = self.position(packet_id) else { return Applied::Nothing };
        let entry = &mut self.inflight[at];
        if entry.delivery.qos != QoS::ExactlyOnce {
            return Applied::WrongKind;
        }
        entry.released = true;
        entry.age = 0;
        Applied::Done
    }

    pub(crate) fn retry_tick(&mut self) {
        for entry in self.inflight.iter_mut().take(self.sent) {
            entry.age = entry.age.saturating_add(1);
        }
    }

    pub(crate) fn next_overdue(&mut self, from: &mut usize) -> Option<Outgoing<'_>> {
        let overdue = self.inflight.iter().take(self.sent).skip(*from).position(|entry| entry.age >= OVERDUE_TICKS)?;
        let at = *from + overdue;
        *from = at + 1;
        let entry = &mut self.inflight[at];
        entry.age = 0;
        entry.sent_before = true;
        let kind = if entry.released { OutgoingKind::Pubrel } else { OutgoingKind::Publish { dup: true } };
        Some(Outgoing { kind, delivery: &entry.delivery })
    }

    /// Where a QoS 2 identifier of the client is, or where it belongs.
    fn qos2_position(&self, packet_id: PacketId) -> Result<usize, usize> {
        self.qos2_in.binary_search_by_key(&packet_id.get(), |(id, _)| *id)
    }

    pub(crate) fn await_rel_tick(&mut self) -> Vec<PacketId> {
        let mut overdue = Vec::new();
        for (id, age) in &mut self.qos2_in {
            *age = age.saturating_add(1);
            if *age >= OVERDUE_TICKS {
                overdue.extend(PacketId::new(*id));
            }
        }
        overdue
    }

    pub(crate) fn qos2_in(&mut self, packet_id: PacketId) -> bool {
        match self.qos2_position(packet_id) {
            Ok(_) => false,
            Err(at) => {
                self.qos2_in.insert(at, (packet_id.get(), 0));
                true
            }
        }
    }

    pub(crate) fn qos2_in_len(&self) -> usize {
        self.qos2_in.len()
    }

    pub(crate) fn has_qos2_in(&self, packet_id: PacketId) -> bool {
        self.qos2_position(packet_id).is_ok()
    }

    pub(crate) fn qos2_rel(&mut self, packet_id: PacketId) -> bool {
        match self.qos2_position(packet_id) {
            Ok(at) => {
                self.qos2_in.remove(at);
                true
            }
            Err(_) => false,
        }
    }

    pub(crate) fn expire(&mut self, now: Instant) -> u32 {
        self.queue.remove_expired(now)
    }

    /// Without anything, at a place in the order of deliveries.
    pub(crate) fn starting_at(next_dseq: u64) -> Flow {
        Flow { next_dseq, oldest_dseq: next_dseq, ..Flow::default() }
    }

    /// Takes in what a log held: what may have been sent, with whether its PUBREC had come, and what waits, by priority,
    /// the highest first.
    pub(crate) fn restore(
        &mut self,
        in_flight: Vec<(Delivery, bool)>,
        waiting: Vec<(u8, VecDeque<Delivery>)>,
        qos2_in: impl Iterator<Item = PacketId>,
    ) {
        let entry = |(delivery, released)| InFlight { delivery, age: 0, released, sent_before: true };
        self.inflight = in_flight.into_iter().map(entry).collect();
        self.queue = Queue::of(waiting);
        self.qos2_in = qos2_in.map(|packet_id| (packet_id.get(), 0)).collect();
        self.oldest_dseq = self.live().map(|delivery| delivery.dseq).min().unwrap_or(self.next_dseq);
    }

    /// Gives up what is too much for the queue, the oldest first; their places in the order.
    pub(crate) fn trim(&mut self, limits: &SessionLimits) -> Vec<u64> {
        let mut given_up = Vec::new();
        let bytes_max = if limits.max_mqueue_bytes == 0 { usize::MAX } else { limits.max_mqueue_bytes };
        while self.queue.len() > limits.max_mqueue_len.max(1)
            || (self.queue.len() > 1 && self.queue.bytes() > bytes_max)
        {
            given_up.extend(self.queue.pop_oldest().map(|delivery| delivery.dseq));
        }
        given_up
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.next_dseq == 0 && self.inflight.is_empty() && self.queue.len() == 0 && self.qos2_in.is_empty()
    }

    pub(crate) fn next_dseq(&self) -> u64 {
        self.next_dseq
    }

    pub(crate) fn qos2_ids(&self) -> Vec<PacketId> {
        self.qos2_in.iter().filter_map(|(id, _)| PacketId::new(*id)).collect()
    }

    pub(crate) fn unacknowledged_shared(&self) -> impl Iterator<Item = &Message> {
        let is_shared = |delivery: &&Delivery| delivery.shared && delivery.qos == QoS::AtLeastOnce;
        self.live().filter(is_shared).map(|delivery| &delivery.message)
    }

    /// Messages of the deliveries that a log holds.
    pub(crate) fn messages(&self) -> impl Iterator<Item = &Message> {
        self.live().filter(|delivery| is_stored(delivery)).map(|delivery| &delivery.message)
    }

    /// The same of all that are no QoS 0.
    pub(crate) fn all_messages(&self) -> impl Iterator<Item = &Message> {
        self.live().filter(|delivery| delivery.packet_id.is_some()).map(|delivery| &delivery.message)
    }

    /// What is in flight, then what waits, as a log holds it.
    pub(crate) fn delivery_records(&self) -> Vec<DeliveryRecord> {
        self.records_of(is_stored)
    }

    /// The same of all that are no QoS 0.
    pub(crate) fn all_records(&self) -> Vec<DeliveryRecord> {
        self.records_of(|delivery| delivery.packet_id.is_some())
    }

    fn records_of(&self, of: impl Fn(&Delivery) -> bool) -> Vec<DeliveryRecord> {
        let record = |delivery: &Delivery, priority, sent, released| DeliveryRecord {
            message: delivery.message.id(),
            dseq: delivery.dseq,
            qos: delivery.qos,
            retain: delivery.retain,
            shared: delivery.shared,
            identifiers: delivery.identifiers.clone(),
            priority,
            sent,
            released,
        };
        // What is in flight goes first whatever its priority was.
        let inflight = self.inflight.iter().filter(|entry| of(&entry.delivery));
        let inflight = inflight.map(|entry| record(&entry.delivery, u8::MAX, true, entry.released));
        let waiting = self.queue.by_priority().filter(|(_, delivery)| of(delivery));
        inflight.chain(waiting.map(|(priority, delivery)| record(delivery, priority, delivery.again, false))).collect()
    }

    /// Packet Identifiers in use toward the client, for checkers.
    pub(crate) fn packet_ids(&self) -> impl Iterator<Item = PacketId> {
        self.live().filter_map(|delivery| delivery.packet_id)
    }

    /// Gives memory back while nothing is in flight.
    pub(crate) fn release(&mut self) {
        self.queue.release();
        if self.inflight.is_empty() {
            self.inflight = VecDeque::new();
        }
        if self.qos2_in.is_empty() {
            self.qos2_in = Vec::new();
        }
        self.qos0 = None;
    }
}

/// Whether a log holds a delivery: no QoS 0, and nothing that the server says of itself, whose messages have no name.
fn is_stored(delivery: &Delivery) -> bool {
    delivery.packet_id.is_some() && delivery.message.id() != MessageId::NONE
}
