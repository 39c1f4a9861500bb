//! Messages for clients (6.6, 6.10, 6.12): registered before the first one, one after the other, sent again until they are
//! answered.

use core::time::Duration;

use newtmq_base::{Instant, planted};
use newtmq_mqtt::{PacketId, PacketType, ProtocolVersion, Publish as MqttPublish, QoS, ReasonCode, encode_ack};

use super::{Gateway, Round};
use crate::client::{Client, Delivery, Draining, Outgoing, Step};
use crate::io::{ClientState, LinkId, Output};
use crate::queue::Item;
use crate::registry::{Key, NoKey};
use crate::types::MESSAGE_BYTES_MAX;
use crate::{Ack, Message, Publish, ReturnCode, SnQoS, TopicRef};

/// Length of three octets, MsgType, Flags, TopicId, MsgId.
const PUBLISH_BYTES: usize = 9;
/// Length of three octets, MsgType, TopicId, MsgId.
const REGISTER_BYTES: usize = 8;
/// Length, MsgType, Ctrl.
const ENCAPSULATION_BYTES: usize = 3;

impl Gateway {
    /// A message of the broker.
    pub(super) fn on_delivery(&mut self, round: &mut Round<'_>, slot: u32, publish: &MqttPublish<'_>) {
        let Some(topic) = publish.topic else { return };
        let (topic, msg_id) = (topic.as_str(), publish.packet_id.map_or(0, PacketId::get));
        let Some(client) = self.clients.get_mut(slot) else { return };
        let node = client.address.as_ref().and_then(|address| address.node.as_ref());
        let wrapping = node.map_or(0, |node| ENCAPSULATION_BYTES + node.len());
        let known = client.registry.len();
        let key = client.registry.key(topic, &self.config);
        client.dirty |= client.registry.len() != known;
        let registering = if matches!(key, Ok(Key::Normal(_))) { REGISTER_BYTES + topic.len() } else { 0 };
        let bytes = wrapping + registering.max(PUBLISH_BYTES + publish.payload.len());
        let dropped = match key {
            Ok(_) if bytes > self.config.max_datagram.min(MESSAGE_BYTES_MAX) => &mut self.counters.dropped_too_long,
            Ok(key) => {
                let delivery = Delivery {
                    key,
                    qos: publish.qos,
                    retain: publish.retain,
                    dup: publish.dup,
                    msg_id,
                    unknown: 0,
                    data: publish.payload.into(),
                };
                self.enqueue(round, slot, delivery);
                return;
            }
            Err(NoKey::Refused) => &mut self.counters.dropped_refused,
            Err(NoKey::Exhausted) => &mut self.counters.dropped_no_topic_id,
        };
        *dropped += 1;
        refuse(round, client, publish.qos, msg_id);
    }

    fn enqueue(&mut self, round: &mut Round<'_>, slot: u32, delivery: Delivery) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        // It is the same message if the broker sends it again to a client that has moved.
        let is_same = |item: &Item| matches!(item, Item::Message(other) if other.msg_id == delivery.msg_id);
        if delivery.msg_id != 0 && client.queue.iter().any(is_same) {
            return;
        }
        client.queue.push_back(Item::Message(delivery));
        self.pump(round, slot);
        let Some(client) = self.clients.get_mut(slot) else { return };
        // Of QoS 1 and 2 the broker gives no more than the window.
        let full = |client: &Client| {
            client.queue.len() > self.config.max_buffer_len || client.queue.bytes() > self.config.max_buffer_bytes
        };
        while full(client) && !planted!(SnBufferUnlimited) && client.queue.drop_oldest() {
            self.counters.dropped_full += 1;
        }
    }

    /// PUBREL of the broker.
    pub(super) fn on_release(&mut self, round: &mut Round<'_>, slot: u32, msg_id: u16) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        match client.outgoing.as_deref_mut() {
            Some(outgoing) if matches!(outgoing.step, Step::AwaitRelease(id) if id == msg_id) => {
                outgoing.step = Step::Release(msg_id);
            }
            Some(outgoing) if matches!(outgoing.step, Step::Release(id) if id == msg_id) => return,
            _ => client.queue.push_back(Item::Release(msg_id)),
        }
        self.pump(round, slot);
    }

    /// Sends what waits, as far as the client takes it.
    pub(super) fn pump(&mut self, round: &mut Round<'_>, slot: u32) {
        loop {
            let Some(client) = self.clients.get_mut(slot) else { return };
            if !client.listens() && !planted!(SnSleeperSent, client.address.is_some()) {
                return;
            }
            if let Some(outgoing) = &client.outgoing {
                if outgoing.next == Instant::NEVER && !matches!(outgoing.step, Step::AwaitRelease(_)) {
                    self.send_outgoing(round, slot);
                }
                return;
            }
            match client.queue.pop_front() {
                None => {
                    self.drain(round, slot);
                    return;
                }
                Some(Item::Release(msg_id)) => self.begin(round, slot, Step::Release(msg_id)),
                Some(Item::Message(delivery)) => match delivery.key {
                    Key::Normal(id) if !client.registry.is_told(id) && !planted!(SnRegisterSkipped) => {
                        client.queue.push_front(Item::Message(delivery));
                        self.begin(round, slot, Step::Register { topic_id: id, msg_id: id });
                    }
                    Key::Normal(_) | Key::Predefined(_) | Key::Short(_) if delivery.qos == QoS::AtMostOnce => {
                        self.send_delivery(round, slot, &delivery, false);
                    }
                    Key::Normal(_) | Key::Predefined(_) | Key::Short(_) => {
                        self.begin(round, slot, Step::Message(delivery));
                    }
                },
            }
        }
    }

    /// Sends what has to be answered.
    fn begin(&mut self, round: &mut Round<'_>, slot: u32, step: Step) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        client.outgoing = Some(Box::new(Outgoing { step, sent: 0, next: Instant::NEVER }));
        self.send_outgoing(round, slot);
    }

    fn send_outgoing(&mut self, round: &mut Round<'_>, slot: u32) {
        let interval = if planted!(SnNoRetry) { Duration::from_secs(1 << 40) } else { self.config.retry_interval };
        let Some(client) = self.clients.get_mut(slot) else { return };
        let Some(mut outgoing) = client.outgoing.take() else { return };
        outgoing.sent = outgoing.sent.saturating_add(1);
        outgoing.next = round.now + interval;
        self.touched = Some(slot);
        match &outgoing.step {
            Step::Register { topic_id, msg_id } => {
                let topic: Box<str> = client.registry.name(*topic_id).unwrap_or("").into();
                let message = Message::Register { topic_id: *topic_id, msg_id: *msg_id, topic: &topic };
                self.tell(round, slot, &message);
            }
            Step::Message(delivery) => self.send_delivery(round, slot, delivery, outgoing.sent > 1),
            Step::Release(msg_id) => self.tell(round, slot, &Message::Pubrel(*msg_id)),
            Step::AwaitRelease(_) => {}
        }
        if let Some(client) = self.clients.get_mut(slot) {
            client.outgoing = Some(outgoing);
        }
    }

    fn send_delivery(&mut self, round: &mut Round<'_>, slot: u32, delivery: &Delivery, again: bool) {
        let topic = match delivery.key {
            Key::Short(name) => TopicRef::Short(name),
            Key::Predefined(id) => TopicRef::Predefined(id),
            Key::Normal(id) => TopicRef::Normal(id),
        };
        let publish = Publish {
            dup: (again || delivery.dup) && delivery.qos != QoS::AtMostOnce,
            qos: SnQoS::Mqtt(delivery.qos),
            retain: delivery.retain,
            topic,
            msg_id: delivery.msg_id,
            data: &delivery.data,
        };
        self.tell(round, slot, &Message::Publish(publish));
    }

    /// The client has not answered in time.
    pub(super) fn retry(&mut self, round: &mut Round<'_>, slot: u32) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        let Some(outgoing) = &client.outgoing else { return };
        if outgoing.sent <= self.config.retries {
            self.counters.retransmitted += 1;
            self.send_outgoing(round, slot);
            return;
        }
        self.counters.given_up += 1;
        if client.state == ClientState::Awake {
            // It sleeps again, without having been told; what it has not got is sent when it wakes.
            client.state = ClientState::Asleep;
            client.draining = None;
            client.take_back();
        } else {
            self.lose(round, slot);
        }
    }

    pub(super) fn on_regack(&mut self, round: &mut Round<'_>, slot: u32, ack: Ack) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        let fits = matches!(client.outgoing.as_deref(),
            Some(Outgoing { step: Step::Register { topic_id, msg_id }, .. }) if (*topic_id, *msg_id) == (ack.topic_id, ack.msg_id));
        if !fits {
            self.counters.unexpected += 1;
            return;
        }
        match ack.code {
            // It is tried again when it would have been without an answer.
            ReturnCode::Congestion => return,
            ReturnCode::Accepted => {
                client.dirty |= client.registry.set_told(ack.topic_id, true);
                client.outgoing = None;
            }
            ReturnCode::InvalidTopicId | ReturnCode::NotSupported | ReturnCode::Reserved(_) => {
                client.outgoing = None;
                self.refuse_topic(round, slot, ack.topic_id);
            }
        }
        self.pump(round, slot);
    }

    /// The client does not want a topic: as if it had unsubscribed from that name (6.10).
    fn refuse_topic(&mut self, round: &mut Round<'_>, slot: u32, topic_id: u16) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        if planted!(SnRefusedDelivered) {
            client.registry.set_told(topic_id, true);
            return;
        }
        client.registry.refuse(topic_id);
        client.dirty = true;
        for item in client.queue.take() {
            match item {
                Item::Message(delivery) if delivery.key == Key::Normal(topic_id) => {
                    self.counters.dropped_refused += 1;
                    refuse(round, client, delivery.qos, delivery.msg_id);
                }
                item @ (Item::Message(_) | Item::Release(_)) => client.queue.push_back(item),
            }
        }
        if let Some(name) = client.registry.name(topic_id) {
            let name: Box<str> = name.into();
            self.unsubscribe_for(round, slot, &name);
        }
    }

    pub(super) fn on_puback(&mut self, round: &mut Round<'_>, slot: u32, ack: Ack) {
        let retries = self.config.retries;
        let Some(client) = self.clients.get_mut(slot) else { return };
        if ack.msg_id == 0 {
            // A message of QoS 0 could not be understood; it is lost, the next one is not.
            if ack.code == ReturnCode::InvalidTopicId {
                client.dirty |= client.registry.set_told(ack.topic_id, false);
            }
            return;
        }
        client.recall(ack.msg_id);
        let fits = matches!(client.outgoing.as_deref(),
            Some(Outgoing { step: Step::Message(delivery), .. }) if delivery.msg_id == ack.msg_id
                && (delivery.qos == QoS::AtLeastOnce || ack.code != ReturnCode::Accepted));
        if !fits {
            self.counters.unexpected += 1;
            return;
        }
        if ack.code == ReturnCode::Congestion {
            return;
        }
        let Some(Step::Message(mut delivery)) = client.outgoing.take().map(|outgoing| outgoing.step) else { return };
        match ack.code {
            ReturnCode::Accepted => answer(round, client, PacketType::Puback, ack.msg_id, ReasonCode::Success),
            ReturnCode::InvalidTopicId if delivery.unknown < retries && matches!(delivery.key, Key::Normal(_)) => {
                // It does not know the id any more: it is told again.
                delivery.unknown += 1;
                if let Key::Normal(id) = delivery.key {
                    client.dirty |= client.registry.set_told(id, false);
                }
                client.queue.push_front(Item::Message(delivery));
            }
            ReturnCode::InvalidTopicId
            | ReturnCode::Congestion
            | ReturnCode::NotSupported
            | ReturnCode::Reserved(_) => {
                self.counters.dropped_refused += 1;
                refuse(round, client, delivery.qos, delivery.msg_id);
            }
        }
        self.pump(round, slot);
    }

    pub(super) fn on_pubrec(&mut self, round: &mut Round<'_>, slot: u32, msg_id: u16) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        client.recall(msg_id);
        match client.outgoing.as_deref_mut() {
            Some(outgoing) if matches!(&outgoing.step, Step::Message(delivery) if delivery.msg_id == msg_id && delivery.qos == QoS::ExactlyOnce) =>
            {
                outgoing.step = Step::AwaitRelease(msg_id);
                outgoing.next = Instant::NEVER;
                outgoing.sent = 0;
                answer(round, client, PacketType::Pubrec, msg_id, ReasonCode::Success);
            }
            Some(outgoing) if matches!(outgoing.step, Step::AwaitRelease(id) | Step::Release(id) if id == msg_id) => {
                self.counters.duplicates += 1;
            }
            _ => {
                // Whatever it was, it is over here, and the client waits.
                self.counters.unexpected += 1;
                self.tell(round, slot, &Message::Pubrel(msg_id));
            }
        }
    }

    pub(super) fn on_pubcomp(&mut self, round: &mut Round<'_>, slot: u32, msg_id: u16) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        let fits =
            matches!(client.outgoing.as_deref(), Some(Outgoing { step: Step::Release(id), .. }) if *id == msg_id);
        if !fits {
            self.counters.unexpected += 1;
            return;
        }
        client.outgoing = None;
        answer(round, client, PacketType::Pubcomp, msg_id, ReasonCode::Success);
        self.pump(round, slot);
    }
}

/// Answers the broker for a client. It may send more for that.
fn answer(round: &mut Round<'_>, client: &mut Client, kind: PacketType, msg_id: u16, reason: ReasonCode) {
    if client.draining.is_some() && !planted!(SnDrainedTooEarly) {
        client.draining = Some(Draining::Outdated);
    }
    acknowledge(round, client.link, kind, msg_id, reason);
}

/// Tells the broker that a message has arrived, or is not going to.
pub(super) fn acknowledge(round: &mut Round<'_>, link: LinkId, kind: PacketType, msg_id: u16, reason: ReasonCode) {
    let Some(packet_id) = PacketId::new(msg_id) else { return };
    let mut data = Vec::new();
    encode_ack(kind, packet_id, reason, ProtocolVersion::V5, &mut data);
    round.out.push(Output::Bytes { link, data });
}

/// A message that the client does not get: the broker need not keep it.
fn refuse(round: &mut Round<'_>, client: &mut Client, qos: QoS, msg_id: u16) {
    let kind = if qos == QoS::ExactlyOnce { PacketType::Pubrec } else { PacketType::Puback };
    answer(round, client, kind, msg_id, ReasonCode::ImplementationSpecificError);
}
