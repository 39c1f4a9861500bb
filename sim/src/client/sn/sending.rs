//! What a client sends of its own accord: one exchange after the other, each repeated until it is answered.

use newtmq_base::Instant;
use newtmq_mqtt::{TopicFilter, TopicName};
use newtmq_mqtt_sn::{Datagram, Encapsulation, Message, Publish, SnQoS, TopicRef, TopicSpec, WILL_DELAY_SECS};

use super::super::Context;
use super::super::session::{Outgoing, Stage};
use super::{Ask, Asked, BUSY, Job, Meaning, RETRIES_MAX, RETRY, SnClient, State, Unacked, is_answered};
use crate::history::{Closer, ConnIx, Event, FilterFacts, PublishFacts, SnConnect, Uid, WillFacts};
use crate::scenario::{FilterSpec, WillSpec};

impl SnClient {
    /// Begins what is next, if nothing waits for an answer.
    pub(super) fn go_on(&mut self, cx: &mut Context<'_>) {
        while self.state == State::Active && self.asked.is_none() && self.pause_until <= cx.now && !self.frozen {
            if let Some(unacked) = self.unacked {
                match unacked.stage {
                    Stage::Published => self.publish_or_register(unacked, cx),
                    Stage::Released => self.ask(Ask::Release, unacked.msg_id, cx),
                }
                continue;
            }
            let alone = |job: &Job| matches!(job, Job::Sleep(..) | Job::Disconnect | Job::Will(_));
            if self.jobs.front().is_some_and(alone) && self.last_sent + self.around.lifetime > cx.now {
                // A late copy of what was sent before would come behind it.
                self.pause_until = self.last_sent + self.around.lifetime;
                return;
            }
            let Some(job) = self.jobs.pop_front() else { return };
            match job {
                Job::Publish(message) if is_answered(message.qos) => {
                    let msg_id = self.next_msg_id();
                    self.unacked = Some(Unacked { msg_id, message, stage: Stage::Published, again: false });
                }
                Job::Publish(message) => self.publish_once(message, cx),
                Job::Subscribe(spec) => self.begin(Ask::Subscribe(spec), cx),
                Job::Unsubscribe(filter) => self.begin(Ask::Unsubscribe(filter), cx),
                Job::Ping => self.begin(Ask::Ping, cx),
                Job::Sleep(duration_s, wakes) => self.begin(Ask::Disconnect(Some((duration_s, wakes))), cx),
                Job::Disconnect => self.begin(Ask::Disconnect(None), cx),
                Job::Will(will) => self.change_will(will, cx),
            }
        }
    }

    /// An exchange is over. On a network that doubles and delays the next one does not follow at once: a gateway remembers
    /// the last eight.
    pub(super) fn done(&mut self, cx: &mut Context<'_>) {
        self.asked = None;
        if !self.around.reliable {
            self.pause_until = cx.now + self.around.lifetime / 7;
        }
    }

    fn begin(&mut self, ask: Ask, cx: &mut Context<'_>) {
        let msg_id = self.next_msg_id();
        self.ask(ask, msg_id, cx);
    }

    /// Sends what has to be answered.
    pub(super) fn ask(&mut self, ask: Ask, msg_id: u16, cx: &mut Context<'_>) {
        self.note(&ask, msg_id, cx);
        let asked = Asked { ask, msg_id, first_at: cx.now, again_at: cx.now + RETRY, tries: 0 };
        self.write(&asked, cx);
        self.asked = Some(asked);
    }

    /// The answer has not come in time.
    pub(super) fn ask_again(&mut self, cx: &mut Context<'_>) {
        let Some(mut asked) = self.asked.take() else { return };
        asked.tries += 1;
        // One that was asleep for long does not repeat what its gateway may have forgotten.
        let is_old = cx.now > asked.again_at + RETRY;
        if asked.tries > RETRIES_MAX || is_old {
            return self.lost(Closer::Client, cx);
        }
        asked.again_at = cx.now + RETRY;
        self.write(&asked, cx);
        self.asked = Some(asked);
    }

    /// The gateway has no time.
    pub(super) fn wait_and_ask_again(&mut self, cx: &Context<'_>) {
        if let Some(asked) = &mut self.asked {
            asked.again_at = cx.now + BUSY;
            asked.tries = 0;
        }
    }

    /// What the history says when an exchange begins.
    fn note(&mut self, ask: &Ask, msg_id: u16, cx: &mut Context<'_>) {
        let Some(conn) = self.conn else { return };
        match ask {
            Ask::Subscribe(FilterSpec { filter, qos, .. }) => {
                let facts = FilterFacts {
                    filter: cx.names.number(filter),
                    qos: *qos,
                    no_local: false,
                    retain_as_published: false,
                    retain_handling: newtmq_mqtt::RetainHandling::SendAtSubscribe,
                };
                cx.events.push(Event::Subscribe { conn, pid: msg_id, subscription_id: None, filters: vec![facts] });
            }
            Ask::Unsubscribe(filter) => {
                let filters = vec![cx.names.number(filter)];
                cx.events.push(Event::Unsubscribe { conn, pid: msg_id, filters });
            }
            Ask::Ping | Ask::Wake => cx.events.push(Event::Pingreq { conn }),
            Ask::Release => cx.events.push(Event::Release { conn, pid: msg_id }),
            Ask::Connect { .. }
            | Ask::Register { .. }
            | Ask::Publish
            | Ask::Rebind
            | Ask::Will(_)
            | Ask::Disconnect(_) => {}
        }
    }

    /// Sends it, once or again.
    fn write(&mut self, asked: &Asked, cx: &mut Context<'_>) {
        let (msg_id, again) = (asked.msg_id, asked.tries > 0);
        let id = self.spec.id.clone();
        match &asked.ask {
            Ask::Connect { will } => {
                self.last_connect = Some(cx.now);
                let (clean_session, duration) = (self.spec.clean, self.spec.keep_alive_s);
                let will = will.is_some() || self.deletes_will();
                self.say(Message::Connect { will, clean_session, duration, client_id: &id }, cx);
            }
            Ask::Wake | Ask::Rebind => self.say(Message::Pingreq(Some(&id)), cx),
            Ask::Ping => self.say(Message::Pingreq(None), cx),
            Ask::Register { topic } => {
                let topic = cx.names.text(topic.topic.name).to_owned();
                self.say(Message::Register { topic_id: 0, msg_id, topic: &topic }, cx);
            }
            Ask::Publish => {
                let Some(unacked) = self.unacked else { return };
                let dup = again || unacked.again;
                self.send_publish(&unacked.message, msg_id, dup, cx);
                if let Some(unacked) = &mut self.unacked {
                    unacked.again = true;
                }
            }
            Ask::Release => self.say(Message::Pubrel(msg_id), cx),
            Ask::Subscribe(spec) => {
                let topic = self.filter(&spec.filter);
                self.say(Message::Subscribe { dup: again, qos: spec.qos, msg_id, topic }, cx);
            }
            Ask::Unsubscribe(filter) => {
                let topic = self.filter(filter);
                self.say(Message::Unsubscribe { msg_id, topic }, cx);
            }
            Ask::Will(None) => self.say(Message::WillTopicUpd(None), cx),
            Ask::Will(Some(uid)) => {
                if let Some(will) = self.spec.will.clone() {
                    self.fill_will(&will, *uid);
                    let data = core::mem::take(&mut self.payload);
                    self.say(Message::WillMsgUpd(&data), cx);
                    self.payload = data;
                }
            }
            Ask::Disconnect(sleep) => {
                let bytes = self.encode(Message::Disconnect(sleep.map(|(duration_s, _)| duration_s)));
                let meaning = if sleep.is_none() { Meaning::Disconnect } else { Meaning::Other };
                self.send(bytes, meaning, cx);
            }
        }
    }

    /// Whether a will of before has to go, and the session may be the same.
    pub(super) fn deletes_will(&self) -> bool {
        self.will_known && !self.spec.clean && self.spec.will.is_none()
    }

    pub(super) fn say(&mut self, message: Message<'_>, cx: &mut Context<'_>) {
        let bytes = self.encode(message);
        self.send(bytes, Meaning::Other, cx);
    }

    pub(super) fn encode(&self, message: Message<'_>) -> Vec<u8> {
        let node = self.spec.forwarder.as_ref().map(|_| self.spec.name.as_bytes());
        let forwarded = node.map(|node| Encapsulation { radius: 0, node });
        let mut bytes = Vec::new();
        // What a datagram cannot hold, such as a scenario's empty ClientId, is an empty one.
        let _ = Datagram { forwarded, message }.encode(&mut bytes);
        bytes
    }

    /// How a filter is named: by its place in the list, by itself if it is short, by its text.
    fn filter<'f>(&self, filter: &'f str) -> TopicSpec<'f> {
        match (self.predefined(filter), <[u8; 2]>::try_from(filter.as_bytes())) {
            (Some(id), _) => TopicSpec::Predefined(id),
            (None, Ok(short)) if TopicFilter::new(filter).is_ok() => TopicSpec::Short(short),
            (None, _) => TopicSpec::Name(filter),
        }
    }

    /// How the topic of a message is named, if it has a name by now.
    fn topic_ref(&self, topic: &str) -> Option<TopicRef> {
        let short = <[u8; 2]>::try_from(topic.as_bytes()).ok().map(TopicRef::Short);
        let known = || self.ids.get(topic).copied().map(TopicRef::Normal);
        self.predefined(topic).map(TopicRef::Predefined).or(short).or_else(known)
    }

    fn publish_or_register(&mut self, unacked: Unacked, cx: &mut Context<'_>) {
        let topic = cx.names.text(unacked.message.topic.name);
        if self.topic_ref(topic).is_some() {
            self.ask(Ask::Publish, unacked.msg_id, cx);
        } else {
            self.begin(Ask::Register { topic: unacked.message }, cx);
        }
    }

    /// A message with QoS 0.
    fn publish_once(&mut self, message: Outgoing, cx: &mut Context<'_>) {
        let topic = cx.names.text(message.topic.name);
        if self.topic_ref(topic).is_some() {
            self.send_publish(&message, 0, false, cx);
        } else {
            self.jobs.push_front(Job::Publish(message));
            self.begin(Ask::Register { topic: message }, cx);
        }
    }

    fn send_publish(&mut self, message: &Outgoing, msg_id: u16, dup: bool, cx: &mut Context<'_>) {
        let text = cx.names.text(message.topic.name);
        debug_assert!(TopicName::new(text).is_ok());
        let Some(topic) = self.topic_ref(text) else { return };
        self.fill_payload(message);
        let data = core::mem::take(&mut self.payload);
        let (qos, retain) = (SnQoS::Mqtt(message.qos), message.retain);
        let bytes = self.encode(Message::Publish(Publish { dup, qos, retain, topic, msg_id, data: &data }));
        self.payload = data;
        let facts = self.facts(message, msg_id, dup);
        self.send(bytes, Meaning::Publish(facts), cx);
    }

    pub(super) fn facts(&self, message: &Outgoing, msg_id: u16, dup: bool) -> PublishFacts {
        PublishFacts {
            pid: (msg_id > 0).then_some(msg_id),
            uid: self.uid(message.number),
            topic: message.topic.name,
            qos: message.qos,
            dup,
            retain: message.retain,
            expiry_s: None,
            size: message.size,
        }
    }

    fn change_will(&mut self, will: Option<WillSpec>, cx: &mut Context<'_>) {
        let Some(conn) = self.conn else { return };
        let facts = will.map(|will| self.new_will(&will, cx));
        cx.events.push(Event::AskWill { conn, will: facts });
        self.ask(Ask::Will(facts.map(|facts| facts.uid)), 0, cx);
    }

    fn new_will(&mut self, will: &WillSpec, cx: &mut Context<'_>) -> WillFacts {
        self.messages += 1;
        WillFacts {
            uid: Uid { publisher: self.ix, number: self.messages },
            topic: cx.names.number(&will.topic),
            qos: will.qos,
            retain: will.retain,
            delay_s: WILL_DELAY_SECS,
            expiry_s: None,
        }
    }

    /// CONNECT: whatever there was is over.
    pub(super) fn send_connect(&mut self, cx: &mut Context<'_>) {
        self.connect_at = Instant::NEVER;
        if self.spec.clean {
            self.unacked = None;
            self.received.clear();
            self.over.clear();
            self.ids.clear();
            self.names.clear();
        }
        if self.was_clean && !self.spec.clean {
            // Of its clean session there may be nothing left.
            self.over.clear();
            self.ids.clear();
            self.names.clear();
            self.forgetful = true;
        }
        self.was_clean = self.spec.clean;
        self.over.retain(|_, (_, at)| *at + super::OVER > cx.now);
        let will = self.spec.will.clone().filter(|will| TopicName::new(&will.topic).is_ok());
        let facts = will.as_ref().map(|will| self.new_will(will, cx));
        self.will_known |= will.is_some();
        self.new_conn(SnConnect::Connect, facts, cx);
        self.state = State::Connecting;
        let will = will.zip(facts).map(|(will, facts)| (will, facts.uid));
        self.ask(Ask::Connect { will }, 0, cx);
    }

    /// PINGREQ of a client that sleeps.
    pub(super) fn wake(&mut self, cx: &mut Context<'_>) {
        self.wake_at = Instant::NEVER;
        if self.state == State::Asleep {
            self.new_conn(SnConnect::Wake, None, cx);
            self.state = State::Awake;
            self.ask(Ask::Wake, 0, cx);
        }
    }

    fn new_conn(&mut self, sn: SnConnect, will: Option<WillFacts>, cx: &mut Context<'_>) {
        let conn = ConnIx(*cx.next_conn);
        *cx.next_conn += 1;
        let mut facts = self.connect_facts(sn, will, cx);
        if sn == SnConnect::Wake {
            // It has the session of its CONNECT.
            facts.expiry_s = facts.clean.then_some(0);
            facts.clean = false;
        }
        cx.events.push(Event::Connect { conn, client: self.ix, facts: Box::new(facts) });
        self.conn = Some(conn);
        self.last_conn = Some(conn);
        self.begun = cx.now;
    }

    pub(super) fn search(&mut self, cx: &mut Context<'_>) {
        self.search_at = cx.now + RETRY;
        self.say(Message::SearchGw { radius: 0 }, cx);
    }
}
