//! What comes from a gateway: answers, messages, and what no gateway may send.

use core::time::Duration;

use newtmq_base::Instant;
use newtmq_mqtt::{QoS, ReasonCode};
use newtmq_mqtt_sn::{Ack, Datagram, Message, Publish, ReturnCode, SnQoS, TopicRef, WillTopic};

use super::super::Context;
use super::super::payload;
use super::super::session::Stage;
use super::{Ask, BUSY, OVER, SEEN_MAX, SnArrival, SnClient, State, WAKES_PERCENT};
use crate::history::{AckKind, Closer, Event, ReceiveFacts};

impl SnClient {
    /// A datagram came to its address.
    pub fn on_datagram(&mut self, arrival: &SnArrival<'_>, cx: &mut Context<'_>) {
        if self.frozen {
            return;
        }
        let datagram = match Datagram::decode(arrival.bytes) {
            Ok(datagram) => datagram,
            Err(error) => return self.unexpected(&format!("a wrong datagram: {error}"), cx),
        };
        let own = self.spec.forwarder.as_ref().map(|_| self.spec.name.as_bytes());
        if datagram.forwarded.map(|forwarded| forwarded.node) != own {
            // It is for another one behind the same forwarder.
            return;
        }
        // What it does not listen to is not known again either.
        let listens = matches!(self.state, State::Active | State::Awake) && arrival.sent_at >= self.begun;
        let copy = listens && self.is_copy(arrival.number);
        self.on_message(datagram.message, copy, arrival, cx);
        self.go_on(cx);
    }

    fn is_copy(&mut self, number: u64) -> bool {
        let copy = self.seen.contains(&number);
        if !copy {
            self.seen.push_back(number);
            if self.seen.len() > SEEN_MAX {
                self.seen.pop_front();
            }
        }
        copy
    }

    fn on_message(&mut self, message: Message<'_>, copy: bool, arrival: &SnArrival<'_>, cx: &mut Context<'_>) {
        let sent_at = arrival.sent_at;
        if let Message::GwInfo { .. } = message {
            self.search_at = Instant::NEVER;
            return;
        }
        match (self.state, message) {
            // PUBREL answers what was said before.
            (State::Off | State::Asleep, Message::Publish(_) | Message::Register { .. }) => {
                // On a network that doubles, a copy of a PINGREQ may have woken it.
                if self.away && sent_at > self.since && self.around.reliable {
                    let what = if self.state == State::Asleep { "asleep" } else { "not connected" };
                    self.unexpected(&format!("a message to a client that is {what} [MQTT-SN 6.14]"), cx);
                }
            }
            (State::Off | State::Asleep, _) => {}
            (State::Connecting | State::Active | State::Awake, _) if sent_at < self.begun => {}
            // A device could not tell it from what comes for its new session.
            (State::Active, Message::Publish(_) | Message::Register { .. } | Message::Pubrel(_))
                if self.spec.clean && sent_at < self.since => {}
            (State::Connecting, message) => self.on_connecting(message, sent_at, cx),
            (State::Awake, Message::Disconnect(_)) => self.not_asleep(sent_at, cx),
            (State::Awake, Message::Pingresp) => self.sleep_on(sent_at, cx),
            (State::Active, Message::Disconnect(_)) => self.on_disconnect(sent_at, cx),
            (State::Active | State::Awake, Message::Publish(publish)) => {
                self.accept_wake(sent_at, cx);
                self.on_publish(&publish, copy, arrival, cx);
            }
            (State::Active | State::Awake, Message::Register { topic_id, msg_id, topic }) => {
                self.accept_wake(sent_at, cx);
                self.learn(topic_id, topic);
                self.say(Message::Regack(Ack { topic_id, msg_id, code: ReturnCode::Accepted }), cx);
            }
            (State::Active | State::Awake, Message::Pubrel(msg_id)) => {
                self.accept_wake(sent_at, cx);
                self.on_release(msg_id, copy, cx);
            }
            (State::Active, Message::Puback(ack)) if ack.msg_id == 0 => {
                // Of a message with QoS 0, which is lost.
                self.ids.retain(|_, id| *id != ack.topic_id);
            }
            (State::Active, message) => self.on_answer(message, sent_at, cx),
            (State::Awake, _) => {}
        }
    }

    /// Whether a datagram may answer what was asked last.
    fn is_answer(&self, sent_at: Instant) -> bool {
        self.asked.as_ref().is_some_and(|asked| asked.first_at <= sent_at)
    }

    fn on_connecting(&mut self, message: Message<'_>, sent_at: Instant, cx: &mut Context<'_>) {
        let Some(asked) = &mut self.asked else { return };
        let Ask::Connect { will } = &asked.ask else { return };
        #[allow(clippy::wildcard_enum_match_arm)] // only these answer a CONNECT
        match message {
            Message::WillTopicReq => {
                let will = will.clone();
                asked.again_at = cx.now + super::RETRY;
                let topic =
                    will.as_ref().map(|(will, _)| WillTopic { qos: will.qos, retain: will.retain, topic: &will.topic });
                self.say(Message::WillTopic(topic), cx);
            }
            Message::WillMsgReq => {
                let Some((will, uid)) = will.clone() else { return };
                asked.again_at = cx.now + super::RETRY;
                self.fill_will(&will, uid);
                let data = core::mem::take(&mut self.payload);
                self.say(Message::WillMsg(&data), cx);
                self.payload = data;
            }
            Message::Connack(ReturnCode::Accepted) => self.connected(sent_at, cx),
            Message::Connack(code) => {
                let code = reason(code);
                if let Some(conn) = self.conn {
                    cx.events.push(Event::Connack { conn, present: false, code, expiry_s: None, sent_at });
                }
                self.lost(Closer::Server, cx);
            }
            _ => {}
        }
    }

    fn connected(&mut self, sent_at: Instant, cx: &mut Context<'_>) {
        let Some(conn) = self.conn else { return };
        let code = ReasonCode::Success;
        cx.events.push(Event::Connack { conn, present: false, code, expiry_s: None, sent_at });
        self.accepted = true;
        self.since = sent_at;
        // The gateway may have accepted it just now.
        self.last_connect = Some(cx.now);
        self.state = State::Active;
        self.asked = None;
        self.retry.failures = 0;
        self.will_known = self.spec.will.is_some();
        if !self.around.steady {
            self.ids.clear();
        }
        if self.spec.clean || self.around.told_again {
            self.forgetful = false;
        }
        if self.around.told_again {
            // They may be those of a session that has ended: this one's come anew.
            self.names.clear();
        } else if !self.around.steady && !self.spec.clean {
            // They may be, too, and nobody tells: what it does not know it refuses, and is told then.
            self.names.clear();
            self.forgetful = true;
        }
    }

    /// The first that comes to a client that wakes says that its session is there.
    fn accept_wake(&mut self, sent_at: Instant, cx: &mut Context<'_>) {
        if self.state != State::Awake {
            return;
        }
        if let Some(asked) = &mut self.asked {
            (asked.again_at, asked.tries) = (cx.now + super::RETRY, 0);
        }
        if self.accepted {
            return;
        }
        let Some(conn) = self.conn else { return };
        let code = ReasonCode::Success;
        cx.events.push(Event::Connack { conn, present: true, code, expiry_s: None, sent_at });
        self.accepted = true;
    }

    /// Everything that waited has come.
    fn sleep_on(&mut self, sent_at: Instant, cx: &mut Context<'_>) {
        self.accept_wake(sent_at, cx);
        if let Some(conn) = self.conn {
            cx.events.push(Event::Pingresp { conn });
        }
        self.fall_asleep(sent_at, cx);
    }

    fn fall_asleep(&mut self, sent_at: Instant, cx: &mut Context<'_>) {
        self.end(Closer::Client, cx);
        self.state = State::Asleep;
        (self.since, self.away) = (sent_at, true);
        self.wake_at = match self.sleep {
            Some((duration_s, true)) => cx.now + Duration::from_secs(u64::from(duration_s)) * WAKES_PERCENT / 100,
            Some((_, false)) | None => Instant::NEVER,
        };
    }

    /// The gateway knows of no client that sleeps.
    fn not_asleep(&mut self, sent_at: Instant, cx: &mut Context<'_>) {
        if let Some(conn) = self.conn.filter(|_| !self.accepted) {
            let code = ReasonCode::UnspecifiedError;
            cx.events.push(Event::Connack { conn, present: false, code, expiry_s: None, sent_at });
        }
        self.lost(Closer::Server, cx);
        // As the specification wants it: it connects.
        self.want_connect(cx);
    }

    fn on_disconnect(&mut self, sent_at: Instant, cx: &mut Context<'_>) {
        if sent_at <= self.since {
            return;
        }
        let Some(asked) = &self.asked else { return self.lost(Closer::Server, cx) };
        // It answers what was asked from the address before.
        match self.suspended.as_ref().map(|suspended| (&suspended.ask, suspended.first_at)) {
            Some((Ask::Disconnect(Some(_)), first_at)) if first_at <= sent_at => return,
            Some((Ask::Disconnect(None), first_at)) if first_at <= sent_at => {
                self.asked = self.suspended.take();
                return self.on_disconnect(sent_at, cx);
            }
            Some(_) | None => {}
        }
        #[allow(clippy::wildcard_enum_match_arm)] // what else was asked is not answered so
        match asked.ask {
            Ask::Disconnect(Some(sleep)) if asked.first_at <= sent_at => {
                self.sleep = Some(sleep);
                self.fall_asleep(sent_at, cx);
            }
            Ask::Disconnect(None) if asked.first_at <= sent_at => {
                self.end(Closer::Client, cx);
                self.state = State::Off;
                (self.since, self.away) = (sent_at, true);
                self.jobs.clear();
                self.rows.clear();
            }
            _ => self.lost(Closer::Server, cx),
        }
    }

    fn learn(&mut self, topic_id: u16, topic: &str) {
        // What had the id before has none any more.
        self.ids.retain(|_, id| *id != topic_id);
        self.names.insert(topic_id, topic.into());
        self.ids.insert(topic.into(), topic_id);
    }

    fn on_publish(&mut self, publish: &Publish<'_>, copy: bool, arrival: &SnArrival<'_>, cx: &mut Context<'_>) {
        let Some(conn) = self.conn else { return };
        let SnQoS::Mqtt(qos) = publish.qos else { return self.unexpected("QoS -1 from a gateway", cx) };
        let (topic_id, msg_id) = (publish.topic.id(), publish.msg_id);
        let Some(topic) = self.topic_of(publish.topic) else {
            // It has not taken it: one more copy may come when it knows.
            self.seen.retain(|number| *number != arrival.number);
            if self.must_know() && arrival.sent_at > self.since {
                self.unexpected("a topic id that it was not told [MQTT-SN 6.10]", cx);
            }
            return self.say(Message::Puback(Ack { topic_id, msg_id, code: ReturnCode::InvalidTopicId }), cx);
        };
        let topic = self.topics.of(&topic, cx.names);
        let uid = payload::read(publish.data, topic.hash).map(|(uid, _)| uid);
        let over = self.over.get(&msg_id).is_some_and(|(known, at)| *known == uid && *at + OVER > cx.now);
        if copy || qos == QoS::ExactlyOnce && over && !self.received.contains_key(&msg_id) {
            // It is answered again.
            match qos {
                QoS::AtMostOnce => {}
                QoS::AtLeastOnce => self.say(Message::Puback(accepted(topic_id, msg_id)), cx),
                QoS::ExactlyOnce => self.say(Message::Pubrec(msg_id), cx),
            }
            return;
        }
        let facts = ReceiveFacts {
            pid: (msg_id > 0).then_some(msg_id),
            uid,
            topic: topic.name,
            qos,
            dup: publish.dup,
            retain: publish.retain,
            expiry_s: None,
            subscription_ids: Vec::new(),
            intact: uid.is_some() || publish.data.is_empty(),
            size: publish.data.len() as u32,
            packet_size: arrival.bytes.len() as u32,
            sent_at: arrival.sent_at,
        };
        cx.events.push(Event::Receive { conn, facts });
        // In a session that began anew an old MsgId names another message.
        let first = qos < QoS::ExactlyOnce || self.received.get(&msg_id).is_none_or(|(known, _)| *known != uid);
        if let Some(uid) = uid.filter(|_| first) {
            cx.events.push(Event::Handed { conn, uid, qos });
        }
        let code = ReasonCode::Success;
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => {
                cx.events.push(Event::Ack { conn, kind: AckKind::Puback, pid: msg_id, code });
                self.say(Message::Puback(accepted(topic_id, msg_id)), cx);
            }
            QoS::ExactlyOnce => {
                self.received.insert(msg_id, (uid, cx.now));
                cx.events.push(Event::Ack { conn, kind: AckKind::Pubrec, pid: msg_id, code });
                self.say(Message::Pubrec(msg_id), cx);
            }
        }
    }

    /// Whether the gateway may use no id that the client does not know: neither has the client forgotten any, nor is an answer
    /// under way that has one.
    fn must_know(&self) -> bool {
        self.around.reliable
            && !self.forgetful
            && !self.vague
            && ![&self.asked, &self.suspended]
                .into_iter()
                .flatten()
                .any(|asked| matches!(asked.ask, Ask::Subscribe(_) | Ask::Register { .. }))
    }

    fn topic_of(&self, topic: TopicRef) -> Option<String> {
        match topic {
            TopicRef::Normal(id) => self.names.get(&id).cloned(),
            TopicRef::Predefined(id) => self.around.predefined.get(usize::from(id).checked_sub(1)?).cloned(),
            TopicRef::Short(name) => String::from_utf8(name.to_vec()).ok(),
        }
    }

    fn on_release(&mut self, msg_id: u16, copy: bool, cx: &mut Context<'_>) {
        if let Some((uid, _)) = self.received.remove(&msg_id).filter(|_| !copy)
            && let Some(conn) = self.conn
        {
            self.over.insert(msg_id, (uid, cx.now));
            cx.events.push(Event::Released { conn, pid: msg_id });
            cx.events.push(Event::Ack { conn, kind: AckKind::Pubcomp, pid: msg_id, code: ReasonCode::Success });
        }
        self.say(Message::Pubcomp(msg_id), cx);
    }

    /// An answer, if it is one. Others are late copies.
    fn on_answer(&mut self, message: Message<'_>, sent_at: Instant, cx: &mut Context<'_>) {
        if !self.is_answer(sent_at) {
            return;
        }
        let (Some(conn), Some(asked)) = (self.conn, &self.asked) else { return };
        let current = asked.msg_id;
        match (&asked.ask, message) {
            (Ask::Register { topic }, Message::Regack(ack)) if ack.msg_id == current => {
                let name = cx.names.text(topic.topic.name).to_owned();
                match ack.code {
                    ReturnCode::Accepted => {
                        self.learn(ack.topic_id, &name);
                        self.done(cx);
                    }
                    ReturnCode::Congestion
                    | ReturnCode::InvalidTopicId
                    | ReturnCode::NotSupported
                    | ReturnCode::Reserved(_) => {
                        // Nobody will ever know of the message.
                        self.done(cx);
                        if self.unacked.take().is_none() {
                            self.jobs.pop_front();
                        }
                    }
                }
            }
            (Ask::Publish, Message::Puback(ack)) if ack.msg_id == current => self.on_puback(ack, sent_at, cx),
            (Ask::Publish, Message::Pubrec(msg_id)) if msg_id == current => self.on_pubrec(msg_id, sent_at, cx),
            (Ask::Release, Message::Pubcomp(msg_id)) if msg_id == current => {
                let (kind, pid, code) = (AckKind::Pubcomp, msg_id, ReasonCode::Success);
                cx.events.push(Event::Acked { conn, kind, pid, code, sent_at });
                self.unacked = None;
                self.done(cx);
            }
            (Ask::Subscribe(spec), Message::Suback { qos, ack }) if ack.msg_id == current => {
                let filter = spec.filter.clone();
                if ack.code == ReturnCode::Congestion && asked.tries < super::RETRIES_MAX {
                    if let Some(asked) = &mut self.asked {
                        asked.again_at = cx.now + BUSY;
                    }
                    return;
                }
                let granted = [ReasonCode::Success, ReasonCode::GrantedQoS1, ReasonCode::GrantedQoS2][qos as usize];
                let code = if ack.code == ReturnCode::Accepted { granted } else { reason(ack.code) };
                if ack.code == ReturnCode::Accepted && ack.topic_id != 0 && self.predefined(&filter).is_none() {
                    self.learn(ack.topic_id, &filter);
                }
                cx.events.push(Event::Suback { conn, pid: current, codes: vec![code], sent_at });
                self.done(cx);
            }
            (Ask::Unsubscribe(_), Message::Unsuback(msg_id)) if msg_id == current => {
                cx.events.push(Event::Unsuback { conn, pid: current, codes: Vec::new() });
                self.done(cx);
            }
            (Ask::Ping, Message::Pingresp) => {
                cx.events.push(Event::Pingresp { conn });
                self.done(cx);
            }
            (Ask::Rebind, Message::Pingresp) => {
                self.done(cx);
                self.asked = self.suspended.take();
                if let Some(asked) = &mut self.asked {
                    asked.again_at = cx.now;
                }
            }
            (Ask::Will(will), Message::WillTopicResp(code) | Message::WillMsgResp(code)) => {
                let will = *will;
                if code == ReturnCode::Accepted {
                    cx.events.push(Event::WillSet { conn });
                    self.will_known = will.is_some();
                }
                self.done(cx);
            }
            _ => {}
        }
    }

    fn on_puback(&mut self, ack: Ack, sent_at: Instant, cx: &mut Context<'_>) {
        let (Some(conn), Some(unacked)) = (self.conn, self.unacked) else { return };
        let qos = unacked.message.qos;
        if ack.code == ReturnCode::InvalidTopicId {
            // It is registered once more.
            let topic = cx.names.text(unacked.message.topic.name);
            self.ids.remove(topic);
            return self.done(cx);
        }
        if ack.code == ReturnCode::Accepted && qos != QoS::AtLeastOnce {
            return;
        }
        let kind = if qos == QoS::ExactlyOnce { AckKind::Pubrec } else { AckKind::Puback };
        let code = if ack.code == ReturnCode::Accepted { ReasonCode::Success } else { reason(ack.code) };
        cx.events.push(Event::Acked { conn, kind, pid: ack.msg_id, code, sent_at });
        if ack.code == ReturnCode::Congestion {
            return self.wait_and_ask_again(cx);
        }
        self.unacked = None;
        self.done(cx);
    }

    fn on_pubrec(&mut self, msg_id: u16, sent_at: Instant, cx: &mut Context<'_>) {
        let (Some(conn), Some(unacked)) = (self.conn, &mut self.unacked) else { return };
        if unacked.message.qos != QoS::ExactlyOnce {
            return;
        }
        unacked.stage = Stage::Released;
        let (kind, pid, code) = (AckKind::Pubrec, msg_id, ReasonCode::Success);
        cx.events.push(Event::Acked { conn, kind, pid, code, sent_at });
        self.asked = None;
        self.ask(Ask::Release, msg_id, cx);
    }
}

fn accepted(topic_id: u16, msg_id: u16) -> Ack {
    Ack { topic_id, msg_id, code: ReturnCode::Accepted }
}

/// What MQTT would say.
fn reason(code: ReturnCode) -> ReasonCode {
    match code {
        ReturnCode::Accepted => ReasonCode::Success,
        ReturnCode::Congestion => ReasonCode::ServerBusy,
        ReturnCode::InvalidTopicId => ReasonCode::TopicNameInvalid,
        ReturnCode::NotSupported | ReturnCode::Reserved(_) => ReasonCode::NotAuthorized,
    }
}
