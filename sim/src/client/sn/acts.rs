//! Steps of a scenario, carried out.

use newtmq_base::Instant;
use newtmq_mqtt::{QoS, TopicFilter, TopicName};
use newtmq_mqtt_sn::{Message, Publish, SnQoS, TopicRef};

use super::super::payload::{self, PAYLOAD_LEN_MIN};
use super::super::session::Outgoing;
use super::super::{Context, Row};
use super::{Ask, Job, Meaning, SAME_CONNECT, SnClient, State};
use crate::draw::of_name;
use crate::history::{Closer, ConnIx, ConnectFacts, Event, Fault, NodeIx, PublishFacts, SnConnect, Uid};
use crate::scenario::{Act, ClientSpec, PublishSpec, WillSpec};

impl SnClient {
    /// A step of the scenario. What needs a connection waits for it while one is being made and while the client sleeps, and does
    /// nothing without one.
    pub fn act(&mut self, act: &Act, cx: &mut Context<'_>) {
        if self.frozen && !matches!(act, Act::Freeze(_) | Act::Vanish) {
            return;
        }
        match act {
            Act::Connect { clean, node, .. } => {
                // Whoever connects is not to sleep.
                self.jobs.retain(|job| !matches!(job, Job::Sleep(..) | Job::Disconnect));
                if self.state != State::Connecting {
                    self.spec.clean = clean.unwrap_or(self.spec.clean);
                    self.spec.node = node.unwrap_or(self.spec.node);
                    self.retry.failures = 0;
                    self.want_connect(cx);
                }
            }
            Act::Disconnect { .. } => self.job(Job::Disconnect),
            Act::Sleep { duration_s, wakes } => self.job(Job::Sleep(*duration_s, *wakes)),
            Act::Vanish => self.vanish(cx),
            Act::Subscribe { filters, .. } => {
                for spec in filters.iter().filter(|spec| TopicFilter::new(&spec.filter).is_ok()) {
                    self.job(Job::Subscribe(spec.clone()));
                }
            }
            Act::Unsubscribe { filters } => {
                filters.iter().for_each(|filter| self.job(Job::Unsubscribe(filter.clone())))
            }
            Act::Publish(publish) => self.publish(publish, cx),
            Act::PublishUnconnected(publish) => self.publish_unconnected(publish, cx),
            Act::Ping => self.job(Job::Ping),
            Act::Wake { node } => self.wake_at_node(*node, cx),
            Act::Rebind { of } => {
                match of {
                    Some(of) => (self.host, self.moves) = (of.0, 0),
                    None => self.moves = self.moves.wrapping_add(1) % 1_000,
                }
                self.rebound(cx);
            }
            Act::SetWill(will) => self.set_will(will.as_ref(), cx),
            Act::Search => self.search_at = cx.now,
            Act::Freeze(on) => self.freeze(*on, cx),
            Act::Raw(bytes) => {
                if let Some(conn) = self.conn {
                    cx.events.push(Event::Wild { conn, what: format!("{} bytes", bytes.len()).into() });
                }
                self.send(bytes.clone(), Meaning::Other, cx);
            }
            // Of connections that datagrams do not have.
            Act::HangUp
            | Act::Reset
            | Act::PublishAgain
            | Act::PublishTorn { .. }
            | Act::SetAcks(_)
            | Act::SetReading(_)
            | Act::StrayAck { .. } => {}
        }
        if self.search_at <= cx.now {
            self.search(cx);
        }
        self.go_on(cx);
    }

    fn job(&mut self, job: Job) {
        if self.state != State::Off || self.connect_at < Instant::NEVER {
            self.jobs.push_back(job);
        }
    }

    /// The power fails: all that the client has is what it keeps for good, which is its application's.
    fn vanish(&mut self, cx: &mut Context<'_>) {
        if self.frozen {
            self.freeze(false, cx);
        }
        self.end(Closer::Network, cx);
        self.state = State::Off;
        self.away = false;
        self.jobs.clear();
        self.rows.clear();
        self.unacked = None;
        (self.connect_at, self.wake_at, self.search_at) = (Instant::NEVER, Instant::NEVER, Instant::NEVER);
        self.ids.clear();
        self.names.clear();
        self.forgetful = true;
        if let Some(policy) = self.spec.reconnect {
            self.retry.later(policy, (self.seed, self.name), cx.now);
        }
    }

    fn freeze(&mut self, on: bool, cx: &mut Context<'_>) {
        if self.frozen == on {
            return;
        }
        self.frozen = on;
        cx.events.push(Event::Fault(Fault::Freeze { client: self.ix, on }));
        if !on {
            for row in &mut self.rows {
                row.skip_until(cx.now);
            }
            self.rows.retain(|row| row.left > 0);
        }
    }

    /// Connects as soon as nothing of before can come any more. What there was is over.
    pub(super) fn want_connect(&mut self, cx: &mut Context<'_>) {
        self.end(Closer::Client, cx);
        self.state = State::Off;
        self.away = false;
        self.sleep = None;
        self.retry.at = Instant::NEVER;
        self.wake_at = Instant::NEVER;
        let anew = self.spec.clean || self.spec.will.is_some();
        let again = self.last_connect.filter(|_| anew).map(|at| at + self.around.lifetime + SAME_CONNECT);
        self.connect_at = cx.now.max(self.last_sent + self.around.lifetime).max(again.unwrap_or(cx.now));
    }

    fn wake_at_node(&mut self, node: Option<u16>, cx: &mut Context<'_>) {
        if self.state != State::Asleep {
            return;
        }
        let other = node.is_some_and(|node| node != self.spec.node);
        self.spec.node = node.unwrap_or(self.spec.node);
        if other && self.will_known {
            // Whether its will was published where it was is not for a PINGREQ to tell.
            self.want_connect(cx);
        } else {
            self.wake_at = cx.now;
        }
    }

    fn set_will(&mut self, will: Option<&WillSpec>, cx: &mut Context<'_>) {
        let will = will.filter(|will| TopicName::new(&will.topic).is_ok());
        let same = |a: &WillSpec, b: &WillSpec| (&a.topic, a.qos, a.retain) == (&b.topic, b.qos, b.retain);
        let updates = match (&self.spec.will, will) {
            (Some(old), Some(new)) => same(old, new),
            (_, None) => true,
            (None, Some(_)) => false,
        };
        self.spec.will = will.cloned();
        match self.state {
            State::Active | State::Connecting if updates => self.job(Job::Will(will.cloned())),
            State::Active => self.want_connect(cx),
            State::Off | State::Connecting | State::Asleep | State::Awake => {}
        }
    }

    fn publish(&mut self, spec: &PublishSpec, cx: &mut Context<'_>) {
        if TopicName::new(&spec.topic).is_err() || self.state == State::Off && self.connect_at == Instant::NEVER {
            return;
        }
        self.rows.push(Row { publish: spec.clone(), left: spec.count, at: cx.now });
        self.publish_due_rows(cx);
    }

    pub(super) fn publish_due_rows(&mut self, cx: &mut Context<'_>) {
        let mut rows = core::mem::take(&mut self.rows);
        for row in &mut rows {
            while row.left > 0 && row.at <= cx.now {
                let message = self.message(&row.publish, cx);
                self.job(Job::Publish(message));
                row.left -= 1;
                row.at = row.at + core::time::Duration::from_micros(row.publish.every_us);
            }
        }
        rows.retain(|row| row.left > 0);
        rows.append(&mut self.rows);
        self.rows = rows;
    }

    fn message(&mut self, spec: &PublishSpec, cx: &mut Context<'_>) -> Outgoing {
        let size = if spec.size == 0 { 0 } else { spec.size.clamp(PAYLOAD_LEN_MIN as u32, SIZE_MAX) };
        if size > 0 {
            self.messages += 1;
        }
        Outgoing {
            number: if size > 0 { self.messages } else { 0 },
            topic: self.topics.of(&spec.topic, cx.names),
            qos: spec.qos,
            retain: spec.retain,
            size,
            expiry_s: 0,
            alias: 0,
        }
    }

    /// The payload of a message, into its buffer.
    pub(super) fn fill_payload(&mut self, message: &Outgoing) {
        match self.uid(message.number) {
            Some(uid) => payload::write(uid, message.topic.hash, message.size as usize, false, &mut self.payload),
            None => self.payload.clear(),
        }
    }

    /// The payload of a will.
    pub(super) fn fill_will(&mut self, will: &WillSpec, uid: Uid) {
        payload::write(uid, of_name(&will.topic), WILL_LEN, false, &mut self.payload);
    }

    fn publish_unconnected(&mut self, spec: &PublishSpec, cx: &mut Context<'_>) {
        let short = <[u8; 2]>::try_from(spec.topic.as_bytes()).ok().map(TopicRef::Short);
        let Some(topic) = self.predefined(&spec.topic).map(TopicRef::Predefined).or(short) else { return };
        for _ in 0..spec.count {
            let message = Outgoing { qos: QoS::AtMostOnce, ..self.message(spec, cx) };
            self.fill_payload(&message);
            // Over the connection if there is one: the gateway knows the address.
            let conn = match self.conn.filter(|_| self.state == State::Active) {
                Some(conn) => conn,
                None => self.unconnected(cx),
            };
            let data = core::mem::take(&mut self.payload);
            let publish =
                Publish { dup: false, qos: SnQoS::MinusOne, retain: spec.retain, topic, msg_id: 0, data: &data };
            let bytes = self.encode(Message::Publish(publish));
            self.payload = data;
            let facts = PublishFacts { pid: None, ..self.facts(&message, 0, false) };
            let own = self.conn.replace(conn);
            self.send(bytes, Meaning::Publish(facts), cx);
            self.conn = own;
        }
    }

    /// What stands for publishing without a connection.
    fn unconnected(&mut self, cx: &mut Context<'_>) -> ConnIx {
        if let Some(conn) = self.unconnected {
            return conn;
        }
        let conn = ConnIx(*cx.next_conn);
        *cx.next_conn += 1;
        let client_id = cx.names.number(&format!("{} without a connection", self.spec.name));
        let facts = ConnectFacts { client_id, clean: true, ..self.connect_facts(SnConnect::Unconnected, None, cx) };
        cx.events.push(Event::Connect { conn, client: self.ix, facts: Box::new(facts) });
        cx.events.push(Event::Connack {
            conn,
            present: false,
            code: newtmq_mqtt::ReasonCode::Success,
            expiry_s: None,
            sent_at: cx.now,
        });
        self.unconnected = Some(conn);
        conn
    }

    pub(super) fn connect_facts(
        &self,
        sn: SnConnect,
        will: Option<crate::history::WillFacts>,
        cx: &mut Context<'_>,
    ) -> ConnectFacts {
        let ClientSpec { id, node, clean, keep_alive_s, .. } = &self.spec;
        ConnectFacts {
            node: NodeIx(*node),
            client_id: cx.names.number(id),
            version: newtmq_mqtt::ProtocolVersion::V31,
            sn: Some(sn),
            clean: *clean,
            expiry_s: None,
            keep_alive_s: *keep_alive_s,
            receive_maximum: 1,
            max_packet_size: Some(DATAGRAM_BYTES),
            will,
        }
    }

    /// The client has another address. If it is connected, the gateway has to hear of it first.
    fn rebound(&mut self, cx: &mut Context<'_>) {
        if self.state != State::Active {
            return;
        }
        if let Some(mut asked) = self.asked.take() {
            if let Ask::Rebind = asked.ask {
                // What it has sent from the address before must not come behind it, or the gateway goes back there.
                asked.again_at = self.last_sent + self.around.lifetime;
                self.asked = Some(asked);
                return;
            }
            self.suspended = Some(asked);
        }
        self.ask(Ask::Rebind, 0, cx);
    }
}

/// The largest payload: with a topic that is not long it fits into a datagram.
const SIZE_MAX: u32 = 1_200;
/// `mqtt.sn.max_datagram`: longer messages are dropped.
const DATAGRAM_BYTES: u32 = 1_472;
/// Bytes of a Will Message's payload.
const WILL_LEN: usize = 32;
