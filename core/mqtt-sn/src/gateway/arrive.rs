//! Datagrams: who sent one, and whose matter it is. Strangers cost no memory unless they CONNECT.

use newtmq_base::planted;
use newtmq_mqtt::QoS;

use super::{Gateway, Round, send};
use crate::address::Source;
use crate::io::ClientState;
use crate::message::Encapsulation;
use crate::{Ack, Datagram, Endpoint, ErrorKind, Message, MessageType, Publish, ReturnCode, SnQoS};

impl Gateway {
    pub(super) fn on_datagram(&mut self, round: &mut Round<'_>, endpoint: Endpoint, data: &[u8]) {
        self.counters.received += 1;
        let datagram = match Datagram::decode(data) {
            Ok(datagram) => datagram,
            Err(error) => {
                self.counters.malformed += 1;
                let of_connect = error.message == Some(MessageType::Connect) && error.kind == ErrorKind::ProtocolId;
                // Behind a forwarder nobody knows whom to tell.
                let from = Source { endpoint, forwarded: None };
                if of_connect && error.at < 6 && data.get(1) != Some(&MessageType::Encapsulated.code()) {
                    self.answer_stranger(round, from, &Message::Connack(ReturnCode::NotSupported));
                }
                return;
            }
        };
        let from = Source { endpoint, forwarded: datagram.forwarded };
        self.note_life(round, from, &datagram.message);
        match datagram.message {
            Message::SearchGw { radius } => self.on_search(round, from, radius),
            Message::Advertise { .. } | Message::GwInfo { .. } => {}
            Message::Connect { will, clean_session, duration, client_id } => {
                let facts = crate::client::ConnectFacts { will, clean_session, duration };
                self.on_connect(round, from, facts, client_id);
            }
            Message::WillTopic(topic) => self.on_will_topic(round, from, topic),
            Message::WillMsg(message) => self.on_will_message(round, from, message),
            Message::Pingreq(Some(client_id)) => self.on_wake(round, from, client_id),
            Message::Publish(publish) if publish.qos == SnQoS::MinusOne => self.on_minus_one(round, from, &publish),
            Message::Disconnect(duration) => self.on_disconnect(round, from, duration),
            message @ (Message::Connack(_)
            | Message::WillTopicReq
            | Message::WillMsgReq
            | Message::Register { .. }
            | Message::Regack(_)
            | Message::Publish(_)
            | Message::Puback(_)
            | Message::Pubrec(_)
            | Message::Pubrel(_)
            | Message::Pubcomp(_)
            | Message::Subscribe { .. }
            | Message::Suback { .. }
            | Message::Unsubscribe { .. }
            | Message::Unsuback(_)
            | Message::Pingreq(None)
            | Message::Pingresp
            | Message::WillTopicUpd(_)
            | Message::WillTopicResp(_)
            | Message::WillMsgUpd(_)
            | Message::WillMsgResp(_)) => match self.find_address(from.key()) {
                Some(slot) => self.on_message(round, slot, &message),
                None => self.on_stray(round, from, &message),
            },
        }
    }

    /// Whatever comes from a client that is connected is a sign of its life (6.11), also what needs no connection.
    #[allow(clippy::wildcard_enum_match_arm)] // all others are heard as messages of the client
    fn note_life(&mut self, round: &Round<'_>, from: Source<'_>, message: &Message<'_>) {
        let is_anonymous = match message {
            Message::SearchGw { .. } | Message::GwInfo { .. } | Message::Advertise { .. } => true,
            Message::Publish(publish) => publish.qos == SnQoS::MinusOne,
            _ => false,
        };
        let Some(slot) = is_anonymous.then(|| self.find_address(from.key())).flatten() else { return };
        if let Some(client) = self.clients.get_mut(slot)
            && client.state == ClientState::Active
            && !planted!(SnSearchIsNoLife)
        {
            client.heard = round.now;
            self.touched = Some(slot);
        }
    }

    /// A message of a client that is known.
    fn on_message(&mut self, round: &mut Round<'_>, slot: u32, message: &Message<'_>) {
        self.touched = Some(slot);
        let Some(client) = self.clients.get_mut(slot) else { return };
        if client.state == ClientState::Connecting {
            self.answer_busy(round, slot, message);
            return;
        }
        client.heard = round.now;
        client.untouched = false;
        match *message {
            Message::Register { msg_id, topic, .. } => self.on_register(round, slot, msg_id, topic),
            Message::Regack(ack) => self.on_regack(round, slot, ack),
            Message::Publish(publish) => self.on_publish(round, slot, &publish),
            Message::Puback(ack) => self.on_puback(round, slot, ack),
            Message::Pubrec(msg_id) => self.on_pubrec(round, slot, msg_id),
            Message::Pubrel(msg_id) => self.on_pubrel(round, slot, msg_id),
            Message::Pubcomp(msg_id) => self.on_pubcomp(round, slot, msg_id),
            Message::Subscribe { dup, qos, msg_id, topic } => {
                self.on_subscribe(round, slot, dup, qos, msg_id, topic);
            }
            Message::Unsubscribe { msg_id, topic } => self.on_unsubscribe(round, slot, msg_id, topic),
            Message::Pingreq(_) => self.on_ping(round, slot),
            Message::WillTopicUpd(will) => self.on_will_topic_update(round, slot, will),
            Message::WillMsgUpd(message) => self.on_will_message_update(round, slot, message),
            Message::Advertise { .. }
            | Message::SearchGw { .. }
            | Message::GwInfo { .. }
            | Message::Connect { .. }
            | Message::Connack(_)
            | Message::WillTopicReq
            | Message::WillTopic(_)
            | Message::WillMsgReq
            | Message::WillMsg(_)
            | Message::Suback { .. }
            | Message::Unsuback(_)
            | Message::Pingresp
            | Message::Disconnect(_)
            | Message::WillTopicResp(_)
            | Message::WillMsgResp(_) => self.counters.unexpected += 1,
        }
    }

    /// A message of a client whose CONNECT is not answered: it is to try again.
    pub(super) fn answer_busy(&mut self, round: &mut Round<'_>, slot: u32, message: &Message<'_>) {
        match busy(message) {
            Some(answer) => {
                self.counters.congested += 1;
                self.tell(round, slot, &answer);
            }
            None => self.counters.unexpected += 1,
        }
    }

    /// A message of nobody who is known. Who thinks that it is connected learns that it is not; who is about to be is to
    /// try again.
    fn on_stray(&mut self, round: &mut Round<'_>, from: Source<'_>, message: &Message<'_>) {
        self.counters.stray += 1;
        if self.find_door(from.key()).is_some() {
            if let Some(answer) = busy(message) {
                self.counters.congested += 1;
                self.answer_stranger(round, from, &answer);
            }
            return;
        }
        let is_request = matches!(
            message,
            Message::Register { .. }
                | Message::Publish(_)
                | Message::Pubrel(_)
                | Message::Subscribe { .. }
                | Message::Unsubscribe { .. }
                | Message::Pingreq(_)
                | Message::WillTopicUpd(_)
                | Message::WillMsgUpd(_)
        );
        // Two gateways that take each other for clients would otherwise never stop.
        if is_request {
            self.answer_stranger(round, from, &Message::Disconnect(None));
        }
    }

    /// Answers somebody who is no client, unless there are too many of them.
    pub(super) fn answer_stranger(&mut self, round: &mut Round<'_>, from: Source<'_>, message: &Message<'_>) {
        if self.may_answer_stranger(round.now) {
            let forwarded = from.forwarded.map(|forwarded| Encapsulation { radius: 0, ..forwarded });
            let datagram = Datagram { forwarded, message: *message };
            send(round, &mut self.counters, from.endpoint, &datagram);
        }
    }
}

/// The answer that says to try again later, if the message has one.
#[allow(clippy::wildcard_enum_match_arm)] // nothing else has a return code for it
fn busy(message: &Message<'_>) -> Option<Message<'static>> {
    let code = ReturnCode::Congestion;
    match *message {
        Message::Register { topic_id, msg_id, .. } => Some(Message::Regack(Ack { topic_id, msg_id, code })),
        Message::Publish(Publish { qos: SnQoS::Mqtt(QoS::AtLeastOnce | QoS::ExactlyOnce), topic, msg_id, .. }) => {
            Some(Message::Puback(Ack { topic_id: topic.id(), msg_id, code }))
        }
        Message::Subscribe { msg_id, .. } => {
            Some(Message::Suback { qos: QoS::AtMostOnce, ack: Ack { topic_id: 0, msg_id, code } })
        }
        _ => None,
    }
}
