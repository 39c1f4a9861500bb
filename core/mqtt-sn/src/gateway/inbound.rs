//! Messages of clients (6.6): resolved, handed to the broker, acknowledged when the broker has acknowledged them.

use newtmq_base::planted;
use newtmq_mqtt::{
    Ack as MqttAck, Packet, PacketId, PacketType, Publish as MqttPublish, PublishProperties, QoS, ReasonCode, TopicName,
};

use super::connect::code_of;
use super::outbound::acknowledge;
use super::{Gateway, Round, hand_over};
use crate::client::{INBOUND_MAX, Inbound, InboundStep};
use crate::done::{Answer, fingerprint};
use crate::{Ack, Message, Publish, ReturnCode, SnQoS, TopicRef};

impl Gateway {
    pub(super) fn on_publish(&mut self, round: &mut Round<'_>, slot: u32, publish: &Publish<'_>) {
        let SnQoS::Mqtt(qos) = publish.qos else { return };
        let (topic_id, msg_id) = (publish.topic.id(), publish.msg_id);
        let print = fingerprint(&[&topic_id.to_be_bytes(), &[qos as u8], publish.data]);
        if qos != QoS::AtMostOnce && self.repeats_publish(round, slot, publish, print) {
            self.counters.duplicates += 1;
            return;
        }
        let Some(topic) = self.resolve(slot, publish.topic) else {
            // Of any QoS: else it would never know (6.5).
            self.tell(round, slot, &Message::Puback(Ack { topic_id, msg_id, code: ReturnCode::InvalidTopicId }));
            return;
        };
        let Some(client) = self.clients.get_mut(slot) else { return };
        if qos > client.max_qos || publish.retain && !client.may_retain {
            let code = ReturnCode::NotSupported;
            self.tell(round, slot, &Message::Puback(Ack { topic_id, msg_id, code }));
            return;
        }
        let waiting = |inbound: &Inbound| inbound.step == InboundStep::Received;
        if client.inbound.len() >= INBOUND_MAX
            && let Some(at) = client.inbound.iter().position(waiting)
        {
            // The client has given it up; the broker remembers its identifier.
            client.inbound.remove(at);
        }
        if client.held || (qos != QoS::AtMostOnce && client.inbound.len() >= INBOUND_MAX) {
            if qos == QoS::AtMostOnce {
                self.counters.congested_dropped += 1;
            } else {
                self.counters.congested += 1;
                self.tell(round, slot, &Message::Puback(Ack { topic_id, msg_id, code: ReturnCode::Congestion }));
            }
            return;
        }
        if qos != QoS::AtMostOnce {
            let step = InboundStep::Sent;
            client.inbound.push(Inbound { msg_id, topic: publish.topic, qos, step, fingerprint: print });
        }
        let packet = Packet::Publish(MqttPublish {
            dup: false,
            qos,
            retain: publish.retain,
            topic: Some(TopicName::new(&topic).expect("what is registered and predefined is a Topic Name")),
            packet_id: if qos == QoS::AtMostOnce { None } else { PacketId::new(msg_id) },
            properties: PublishProperties::default(),
            payload: publish.data,
        });
        hand_over(round, client.link, &packet);
        if planted!(SnAckBeforeBroker, qos == QoS::AtLeastOnce) {
            self.tell(round, slot, &Message::Puback(Ack { topic_id, msg_id, code: ReturnCode::Accepted }));
        }
    }

    /// Whether the message was acted on before; then it gets the answer that it had.
    fn repeats_publish(&mut self, round: &mut Round<'_>, slot: u32, publish: &Publish<'_>, print: u64) -> bool {
        let Some(client) = self.clients.get_mut(slot) else { return true };
        let msg_id = publish.msg_id;
        if let Some(inbound) = client.inbound.iter().find(|inbound| inbound.msg_id == msg_id) {
            if inbound.step != InboundStep::Sent && inbound.qos == QoS::ExactlyOnce {
                self.tell(round, slot, &Message::Pubrec(msg_id));
            }
            return true;
        }
        let window = self.config.duplicate_window;
        match client.done.find(round.now, window, msg_id, print, publish.dup) {
            Some(Answer::Puback(ack)) => self.tell(round, slot, &Message::Puback(ack)),
            Some(Answer::Pubrec) => self.tell(round, slot, &Message::Pubrec(msg_id)),
            Some(Answer::Suback(..) | Answer::Unsuback) | None => return false,
        }
        true
    }

    /// The topic of a client's message.
    fn resolve(&mut self, slot: u32, topic: TopicRef) -> Option<Box<str>> {
        let client = self.clients.get_mut(slot)?;
        match topic {
            TopicRef::Normal(id) => client.registry.name(id).map(Into::into),
            TopicRef::Predefined(id) => {
                let name = self.config.predefined_name(id)?.into();
                client.dirty |= client.registry.use_predefined(id);
                Some(name)
            }
            TopicRef::Short(name) => TopicName::from_bytes(&name).ok().map(|name| name.as_str().into()),
        }
    }

    /// PUBREL of a client.
    pub(super) fn on_pubrel(&mut self, round: &mut Round<'_>, slot: u32, msg_id: u16) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        if client.held {
            // It comes again.
            self.counters.congested += 1;
            return;
        }
        match client.inbound.iter_mut().find(|inbound| inbound.msg_id == msg_id) {
            Some(inbound) if inbound.step == InboundStep::Received => inbound.step = InboundStep::Released,
            Some(_) => {
                self.counters.duplicates += 1;
                return;
            }
            // Of an earlier connection, or its answer was lost: the broker knows.
            None => {}
        }
        acknowledge(round, client.link, PacketType::Pubrel, msg_id, ReasonCode::Success);
    }

    /// PUBACK, PUBREC and PUBCOMP of the broker.
    pub(super) fn on_acknowledged(&mut self, round: &mut Round<'_>, slot: u32, kind: PacketType, ack: &MqttAck<'_>) {
        let window = self.config.duplicate_window;
        let Some(client) = self.clients.get_mut(slot) else { return };
        let (msg_id, code) = (ack.packet_id.get(), code_of(ack.reason_code));
        let place = client.inbound.iter().position(|inbound| inbound.msg_id == msg_id);
        let message = match (kind, place) {
            (PacketType::Pubcomp, place) => {
                if let Some(inbound) = place.and_then(|at| client.inbound.remove(at)) {
                    client.done.push(round.now, window, msg_id, inbound.fingerprint, Answer::Pubrec);
                }
                Message::Pubcomp(msg_id)
            }
            (PacketType::Pubrec, Some(at)) if code == ReturnCode::Accepted => {
                client.inbound[at].step = InboundStep::Received;
                Message::Pubrec(msg_id)
            }
            (_, Some(at)) => {
                let Some(inbound) = client.inbound.remove(at) else { return };
                let ack = Ack { topic_id: inbound.topic.id(), msg_id, code };
                if code == ReturnCode::Accepted {
                    client.done.push(round.now, window, msg_id, inbound.fingerprint, Answer::Puback(ack));
                }
                Message::Puback(ack)
            }
            (_, None) => return,
        };
        self.tell(round, slot, &message);
    }
}
