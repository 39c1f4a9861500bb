//! Changes of a will (6.4): WILLTOPICUPD, WILLMSGUPD, and the will of an earlier connection that goes on.

use newtmq_base::planted;
use newtmq_mqtt::TopicName;

use super::{Gateway, Round};
use crate::client::{WillAsk, WillChange};
use crate::io::{LinkId, Output, Will};
use crate::message::WillTopic;
use crate::{Message, ReturnCode};

impl Gateway {
    pub(super) fn on_will_topic_update(&mut self, round: &mut Round<'_>, slot: u32, topic: Option<WillTopic<'_>>) {
        let Some(client) = self.clients.get(slot) else { return };
        let will = match topic {
            // An empty one deletes the will.
            None if planted!(SnDeletedWillStays) => client.will.as_deref().cloned(),
            None => None,
            Some(WillTopic { topic, .. }) if TopicName::new(topic).is_err() => {
                return self.tell(round, slot, &Message::WillTopicResp(ReturnCode::NotSupported));
            }
            Some(WillTopic { qos, retain, topic }) => {
                let payload = client.will.as_ref().map_or_else(Box::default, |will| will.payload.clone());
                Some(Will { topic: topic.into(), payload, qos, retain })
            }
        };
        self.change_will(round, slot, will, WillAsk::TopicUpdate);
    }

    pub(super) fn on_will_message_update(&mut self, round: &mut Round<'_>, slot: u32, message: &[u8]) {
        let Some(client) = self.clients.get(slot) else { return };
        let Some(will) = client.will.as_deref().cloned() else {
            // There is no topic for it.
            return self.tell(round, slot, &Message::WillMsgResp(ReturnCode::NotSupported));
        };
        let will = Some(Will { payload: message.into(), ..will });
        self.change_will(round, slot, will, WillAsk::MessageUpdate);
    }

    /// Asks the broker for another will. One change at a time: who asks meanwhile asks again.
    pub(super) fn change_will(&mut self, round: &mut Round<'_>, slot: u32, will: Option<Will>, asked_by: WillAsk) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        if client.will_change.is_some() && asked_by != WillAsk::Connect {
            self.counters.congested += 1;
            return;
        }
        round.out.push(Output::Will { link: client.link, will: will.clone() });
        client.will_change = Some(Box::new(WillChange { will, asked_by }));
    }

    pub(super) fn on_will_set(&mut self, round: &mut Round<'_>, link: LinkId, accepted: bool) {
        let Some(slot) = self.of_link(link) else { return };
        let Some(client) = self.clients.get_mut(slot) else { return };
        let Some(change) = client.will_change.take() else { return };
        let WillChange { will, asked_by } = *change;
        if accepted {
            client.will = will.map(Box::new);
            client.dirty = true;
        } else if asked_by == WillAsk::Nothing {
            // It is not permitted any more.
            client.will = None;
            client.dirty = true;
        }
        let code = if accepted { ReturnCode::Accepted } else { ReturnCode::NotSupported };
        match asked_by {
            WillAsk::Nothing => {}
            WillAsk::Connect if accepted => self.welcome(round, slot),
            WillAsk::Connect => {
                self.counters.refused += 1;
                self.tell(round, slot, &Message::Connack(code));
                self.end(round, slot);
            }
            WillAsk::TopicUpdate => self.tell(round, slot, &Message::WillTopicResp(code)),
            WillAsk::MessageUpdate => self.tell(round, slot, &Message::WillMsgResp(code)),
        }
    }
}
