//! REGISTER, SUBSCRIBE and UNSUBSCRIBE of clients (6.5, 6.9).

use newtmq_mqtt::{
    Packet, PacketId, QoS, ReasonCode, Suback, Subscribe, SubscribeFilters, SubscribeOptions, TopicFilter, TopicName,
    Unsubscribe, UnsubscribeFilters, UserProperties,
};

use super::connect::code_of;
use super::{Gateway, Round, hand_over};
use crate::client::{Request, SubscribeAck};
use crate::done::{Answer, fingerprint};
use crate::{Ack, Message, ReturnCode, TopicSpec};

/// A filter that a client names, and how its acknowledgement names the topic.
struct Asked {
    filter: Box<str>,
    topic_id: u16,
    registered: bool,
}

impl Gateway {
    pub(super) fn on_register(&mut self, round: &mut Round<'_>, slot: u32, msg_id: u16, topic: &str) {
        let max = self.config.max_topic_ids;
        let Some(client) = self.clients.get_mut(slot) else { return };
        let (topic_id, code) = if TopicName::new(topic).is_err() {
            (0, ReturnCode::NotSupported)
        } else if let Some(id) = client.registry.assign(topic, max) {
            client.dirty |= client.registry.set_told(id, true);
            (id, ReturnCode::Accepted)
        } else {
            self.counters.congested += 1;
            (0, ReturnCode::Congestion)
        };
        self.tell(round, slot, &Message::Regack(Ack { topic_id, msg_id, code }));
    }

    pub(super) fn on_subscribe(
        &mut self,
        round: &mut Round<'_>,
        slot: u32,
        dup: bool,
        qos: QoS,
        msg_id: u16,
        topic: TopicSpec<'_>,
    ) {
        let refuse = |code| Message::Suback { qos: QoS::AtMostOnce, ack: Ack { topic_id: 0, msg_id, code } };
        let asked = match self.read_filter(slot, topic) {
            Ok(asked) => asked,
            Err(code) => return self.tell(round, slot, &refuse(code)),
        };
        let print = fingerprint(&[asked.filter.as_bytes(), &[qos as u8]]);
        let window = self.config.duplicate_window;
        let max = self.config.max_topic_ids;
        let Some(client) = self.clients.get_mut(slot) else { return };
        if client.request.as_ref().is_some_and(|request| request.msg_id == msg_id) {
            self.counters.duplicates += 1;
            return;
        }
        if let Some(Answer::Suback(qos, ack)) = client.done.find(round.now, window, msg_id, print, dup) {
            self.counters.duplicates += 1;
            return self.tell(round, slot, &Message::Suback { qos, ack });
        }
        let topic_id = if asked.registered { client.registry.assign(&asked.filter, max) } else { Some(asked.topic_id) };
        let Some(topic_id) = topic_id.filter(|_| !client.held && client.request.is_none()) else {
            self.counters.congested += 1;
            return self.tell(round, slot, &refuse(ReturnCode::Congestion));
        };
        let ack =
            SubscribeAck { ack: Ack { topic_id, msg_id, code: ReturnCode::Accepted }, registered: asked.registered };
        client.request = Some(Box::new(Request { msg_id, fingerprint: print, subscribe: Some(ack) }));
        let filter = TopicFilter::new(&asked.filter).expect("it was read as one");
        let filters = [(filter, SubscribeOptions::new(qos))];
        let packet = Packet::Subscribe(Subscribe {
            packet_id: PacketId::new(msg_id).expect("a MsgId of 0 is not decoded"),
            subscription_identifier: None,
            user_properties: UserProperties::default(),
            filters: SubscribeFilters::new(&filters),
        });
        hand_over(round, client.link, &packet);
    }

    pub(super) fn on_unsubscribe(&mut self, round: &mut Round<'_>, slot: u32, msg_id: u16, topic: TopicSpec<'_>) {
        let Ok(asked) = self.read_filter(slot, topic) else {
            // There is no way to say no, and nothing to unsubscribe from.
            return self.tell(round, slot, &Message::Unsuback(msg_id));
        };
        let print = fingerprint(&[asked.filter.as_bytes()]);
        let window = self.config.duplicate_window;
        let Some(client) = self.clients.get_mut(slot) else { return };
        if client.request.as_ref().is_some_and(|request| request.msg_id == msg_id) {
            self.counters.duplicates += 1;
            return;
        }
        if client.done.find(round.now, window, msg_id, print, false) == Some(Answer::Unsuback) {
            self.counters.duplicates += 1;
            return self.tell(round, slot, &Message::Unsuback(msg_id));
        }
        if client.held || client.request.is_some() {
            // It comes again.
            self.counters.congested += 1;
            return;
        }
        client.request = Some(Box::new(Request { msg_id, fingerprint: print, subscribe: None }));
        self.hand_over_unsubscribe(round, slot, msg_id, &asked.filter);
    }

    /// The gateway unsubscribes for a client, which knows nothing of it.
    pub(super) fn unsubscribe_for(&mut self, round: &mut Round<'_>, slot: u32, filter: &str) {
        let Some(client) = self.clients.get(slot) else { return };
        let is_free = |msg_id: &u16| {
            client.request.as_ref().is_none_or(|request| request.msg_id != *msg_id)
                && client.inbound.iter().all(|inbound| inbound.msg_id != *msg_id)
        };
        let msg_id = (1..=u16::MAX).rev().find(is_free).unwrap_or(u16::MAX);
        self.hand_over_unsubscribe(round, slot, msg_id, filter);
    }

    fn hand_over_unsubscribe(&mut self, round: &mut Round<'_>, slot: u32, msg_id: u16, filter: &str) {
        let Some(client) = self.clients.get(slot) else { return };
        let Ok(filter) = TopicFilter::new(filter) else { return };
        let filters = [filter];
        let packet = Packet::Unsubscribe(Unsubscribe {
            packet_id: PacketId::new(msg_id).expect("a MsgId of 0 is not decoded"),
            user_properties: UserProperties::default(),
            filters: UnsubscribeFilters::new(&filters),
        });
        hand_over(round, client.link, &packet);
    }

    fn read_filter(&mut self, slot: u32, topic: TopicSpec<'_>) -> Result<Asked, ReturnCode> {
        match topic {
            TopicSpec::Name(name) => {
                let filter = TopicFilter::new(name).map_err(|_| ReturnCode::NotSupported)?;
                // A topic of two bytes is its own id.
                let registered = TopicName::new(name).is_ok() && filter.share_group().is_none() && name.len() != 2;
                Ok(Asked { filter: name.into(), topic_id: 0, registered })
            }
            TopicSpec::Predefined(id) => {
                let name = self.config.predefined_name(id).ok_or(ReturnCode::InvalidTopicId)?;
                if let Some(client) = self.clients.get_mut(slot) {
                    client.dirty |= client.registry.use_predefined(id);
                }
                Ok(Asked { filter: name.into(), topic_id: id, registered: false })
            }
            TopicSpec::Short(name) => {
                let name = core::str::from_utf8(&name).map_err(|_| ReturnCode::NotSupported)?;
                TopicFilter::new(name).map_err(|_| ReturnCode::NotSupported)?;
                Ok(Asked { filter: name.into(), topic_id: 0, registered: false })
            }
        }
    }

    pub(super) fn on_suback(&mut self, round: &mut Round<'_>, slot: u32, suback: &Suback<'_>) {
        let window = self.config.duplicate_window;
        let reason = suback.reason_codes.iter().next().unwrap_or(ReasonCode::UnspecifiedError);
        let Some(client) = self.clients.get_mut(slot) else { return };
        let fits = |request: &mut Box<Request>| request.msg_id == suback.packet_id.get() && request.subscribe.is_some();
        let Some(request) = client.request.take_if(fits) else { return };
        let Some(subscribe) = request.subscribe else { return };
        let code = code_of(reason);
        let qos = QoS::from_bits(reason.code()).unwrap_or(QoS::AtMostOnce);
        let topic_id = if code == ReturnCode::Accepted { subscribe.ack.topic_id } else { 0 };
        let ack = Ack { topic_id, code, ..subscribe.ack };
        if code == ReturnCode::Accepted {
            if subscribe.registered {
                client.dirty |= client.registry.set_told(topic_id, true);
            }
            let answer = Answer::Suback(qos, ack);
            client.done.push(round.now, window, request.msg_id, request.fingerprint, answer);
        }
        self.tell(round, slot, &Message::Suback { qos, ack });
    }

    pub(super) fn on_unsuback(&mut self, round: &mut Round<'_>, slot: u32, packet_id: PacketId) {
        let window = self.config.duplicate_window;
        let Some(client) = self.clients.get_mut(slot) else { return };
        let fits = |request: &mut Box<Request>| request.msg_id == packet_id.get() && request.subscribe.is_none();
        let Some(request) = client.request.take_if(fits) else { return };
        client.done.push(round.now, window, request.msg_id, request.fingerprint, Answer::Unsuback);
        self.tell(round, slot, &Message::Unsuback(request.msg_id));
    }
}
