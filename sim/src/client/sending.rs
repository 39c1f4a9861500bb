//! What a client sends of its own accord: CONNECT, publishes within the server's limits, and acknowledgements in their
//! order and time.

use core::num::{NonZeroU16, NonZeroU32};
use core::time::Duration;

use newtmq_base::Instant;
use newtmq_mqtt::{
    Connect, ConnectProperties, Packet, PacketId, PacketType, ProtocolVersion, PublishOut, QoS, ReasonCode, Subscribe,
    SubscribeFilters, SubscribeOptions, TopicFilter, TopicName, Unsubscribe, UnsubscribeFilters, UserProperties, Will,
    WillProperties, encode_ack,
};

use super::link::{PendingAck, Phase, Request};
use super::session::{Outgoing, Stage, Unacked};
use super::{ACK_DELAY, AHEAD, Client, Context, PING_PATIENCE, Row, payload};
use crate::draw::{Stream, of_name};
use crate::history::{AckKind, ConnIx, ConnectFacts, Event, FilterFacts, NodeIx, PublishFacts, Uid, WillFacts};
use crate::scenario::{Acks, Act, FilterSpec, PublishSpec, WillSpec};

impl Client {
    /// The network connection is there: CONNECT.
    pub(super) fn send_connect(&mut self, cx: &mut Context<'_>) {
        let conn = ConnIx(*cx.next_conn);
        *cx.next_conn += 1;
        if self.spec.clean {
            self.session.forget_exchanges();
        }
        let will = self.spec.will.clone().filter(|will| TopicName::new(&will.topic).is_ok());
        let will = will.map(|will| (self.will_facts(&will, cx), will));
        self.write_connect(will.as_ref());
        let spec = &self.spec;
        let v5 = spec.version == ProtocolVersion::V5;
        if let Some(link) = &mut self.link {
            link.phase = Phase::Connecting;
            link.conn = Some(conn);
            link.clean = spec.clean;
            link.expiry_s = spec.session_expiry_s;
            link.keep_alive_s = spec.keep_alive_s;
        }
        let facts = ConnectFacts {
            node: NodeIx(spec.node),
            client_id: cx.names.number(&spec.id),
            version: spec.version,
            sn: None,
            clean: spec.clean,
            expiry_s: v5.then_some(spec.session_expiry_s),
            keep_alive_s: spec.keep_alive_s,
            receive_maximum: if v5 { spec.receive_maximum.max(1) } else { u16::MAX },
            max_packet_size: Some(spec.max_packet_size).filter(|bytes| v5 && *bytes > 0),
            will: will.map(|(facts, _)| facts),
        };
        cx.events.push(Event::Connect { conn, client: self.ix, facts: Box::new(facts) });
        self.renew_patience(cx.now);
        if Stream::new(self.seed, AHEAD, self.name ^ u64::from(conn.0)).chance_ppm(500_000) {
            self.send_ahead(cx);
        }
    }

    /// What a client may send behind its CONNECT without knowing the answer (3.1.4), as far as it depends on no limit of
    /// the server and on no session.
    fn send_ahead(&mut self, cx: &mut Context<'_>) {
        while let Some(link) = &mut self.link
            && let Some(Act::Unsubscribe { filters }) =
                link.later.pop_front_if(|act| matches!(act, Act::Unsubscribe { .. }))
        {
            self.unsubscribe(&filters, cx);
        }
    }

    fn will_facts(&mut self, will: &WillSpec, cx: &mut Context<'_>) -> WillFacts {
        let v5 = self.spec.version == ProtocolVersion::V5;
        self.messages += 1;
        WillFacts {
            uid: Uid { publisher: self.ix, number: self.messages },
            topic: cx.names.number(&will.topic),
            qos: will.qos,
            retain: will.retain,
            delay_s: if v5 { will.delay_s } else { 0 },
            expiry_s: Some(will.expiry_s).filter(|seconds| v5 && *seconds > 0),
        }
    }

    fn write_connect(&mut self, will: Option<&(WillFacts, WillSpec)>) {
        let spec = &self.spec;
        if let Some((facts, will)) = will {
            payload::write(facts.uid, of_name(&will.topic), WILL_LEN, false, &mut self.payload);
        }
        let will = will.map(|(facts, will)| Will {
            topic: TopicName::new(&will.topic).expect("the caller has looked"),
            payload: &self.payload,
            qos: facts.qos,
            retain: facts.retain,
            properties: WillProperties {
                delay_interval: facts.delay_s,
                message_expiry_interval: facts.expiry_s,
                ..WillProperties::default()
            },
        });
        let connect = Connect {
            version: spec.version,
            clean_start: spec.clean,
            keep_alive: spec.keep_alive_s,
            client_id: &spec.id,
            will,
            username: spec.username.as_deref(),
            password: None,
            properties: ConnectProperties {
                session_expiry_interval: spec.session_expiry_s,
                receive_maximum: NonZeroU16::new(spec.receive_maximum).unwrap_or(NonZeroU16::MIN),
                maximum_packet_size: Some(spec.max_packet_size).filter(|bytes| *bytes > 0),
                topic_alias_maximum: spec.topic_alias_maximum,
                ..ConnectProperties::default()
            },
        };
        write(&Packet::Connect(connect), spec.version, &mut self.outbox);
    }

    pub(super) fn subscribe(&mut self, specs: &[FilterSpec], subscription_id: u32, cx: &mut Context<'_>) {
        let valid: Vec<(TopicFilter<'_>, SubscribeOptions)> =
            specs.iter().filter_map(|spec| Some((TopicFilter::new(&spec.filter).ok()?, self.options(spec)))).collect();
        let Some((conn, packet_id)) = self.request(PacketType::Subscribe, valid.len()) else { return };
        let v5 = self.spec.version == ProtocolVersion::V5;
        let subscription_identifier =
            NonZeroU32::new(subscription_id).filter(|id| v5 && id.get() <= SUBSCRIPTION_ID_MAX);
        let subscribe = Subscribe {
            packet_id,
            subscription_identifier,
            user_properties: UserProperties::default(),
            filters: SubscribeFilters::new(&valid),
        };
        write(&Packet::Subscribe(subscribe), self.spec.version, &mut self.outbox);
        let facts = |(filter, options): &(TopicFilter<'_>, SubscribeOptions)| FilterFacts {
            filter: cx.names.number(filter.as_str()),
            qos: options.qos,
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            retain_handling: options.retain_handling,
        };
        let filters = valid.iter().map(facts).collect();
        let subscription_id = subscription_identifier.map(NonZeroU32::get);
        cx.events.push(Event::Subscribe { conn, pid: packet_id.get(), subscription_id, filters });
    }

    /// Those that its version knows and that are no protocol error.
    fn options(&self, spec: &FilterSpec) -> SubscribeOptions {
        if self.spec.version != ProtocolVersion::V5 {
            return SubscribeOptions::new(spec.qos);
        }
        // [MQTT-3.8.3-4]
        let shared = spec.filter.starts_with("$share/");
        SubscribeOptions {
            qos: spec.qos,
            no_local: spec.no_local && !shared,
            retain_as_published: spec.retain_as_published,
            retain_handling: spec.retain_handling,
        }
    }

    pub(super) fn unsubscribe(&mut self, filters: &[String], cx: &mut Context<'_>) {
        let valid: Vec<_> = filters.iter().filter_map(|filter| TopicFilter::new(filter).ok()).collect();
        let Some((conn, packet_id)) = self.request(PacketType::Unsubscribe, valid.len()) else { return };
        let filters = UnsubscribeFilters::new(&valid);
        let unsubscribe = Unsubscribe { packet_id, user_properties: UserProperties::default(), filters };
        write(&Packet::Unsubscribe(unsubscribe), self.spec.version, &mut self.outbox);
        let filters = valid.iter().map(|filter| cx.names.number(filter.as_str())).collect();
        cx.events.push(Event::Unsubscribe { conn, pid: packet_id.get(), filters });
    }

    /// A Packet Identifier for a SUBSCRIBE or UNSUBSCRIBE with so many filters; none for one without.
    fn request(&mut self, kind: PacketType, filters: usize) -> Option<(ConnIx, PacketId)> {
        let is_up = |phase| phase == Phase::Open || phase == Phase::Connecting;
        let link = self.link.as_mut().filter(|link| is_up(link.phase) && filters > 0)?;
        let pid = self.session.free_pid(|pid| link.requests.iter().any(|request| request.pid == pid))?;
        link.requests.push(Request { kind, pid: pid.get(), filters });
        Some((link.conn?, pid))
    }

    /// Publishes once, and begins a row if there are more.
    pub(super) fn publish(&mut self, spec: &PublishSpec, cx: &mut Context<'_>) {
        if TopicName::new(&spec.topic).is_err() {
            return;
        }
        if spec.every_us == 0 {
            for _ in 0..spec.count {
                self.publish_one(spec, cx);
            }
        } else if spec.count > 0 {
            self.publish_one(spec, cx);
            let at = cx.now + Duration::from_micros(spec.every_us);
            let row = Row { publish: spec.clone(), left: spec.count - 1, at };
            if row.left > 0 {
                self.rows.push(row);
            }
        }
    }

    /// A message of a row that comes due without a connection is left out.
    pub(super) fn publish_due_rows(&mut self, cx: &mut Context<'_>) {
        if self.rows.iter().all(|row| row.at > cx.now) {
            return;
        }
        let mut rows = core::mem::take(&mut self.rows);
        for row in &mut rows {
            while row.left > 0 && row.at <= cx.now {
                self.publish_one(&row.publish, cx);
                row.left -= 1;
                row.at = row.at + Duration::from_micros(row.publish.every_us);
            }
        }
        rows.retain(|row| row.left > 0);
        rows.append(&mut self.rows);
        self.rows = rows;
    }

    fn publish_one(&mut self, spec: &PublishSpec, cx: &mut Context<'_>) {
        let Some(link) = self.link.as_ref().filter(|link| link.phase == Phase::Open) else { return };
        let limits = link.limits;
        let message = self.message(spec, cx);
        let message = Outgoing {
            qos: message.qos.min(limits.maximum_qos),
            retain: message.retain && limits.retain_available,
            alias: if message.alias > limits.topic_alias_maximum { 0 } else { message.alias },
            ..message
        };
        if message.qos == QoS::AtMostOnce {
            self.write_publish(&message, None, false, cx);
        } else {
            self.session.waiting.push_back(message);
            self.send_waiting(cx);
        }
    }

    /// The next message of this client.
    pub(super) fn message(&mut self, spec: &PublishSpec, cx: &mut Context<'_>) -> Outgoing {
        let v5 = self.spec.version == ProtocolVersion::V5;
        let size = if spec.size == 0 { 0 } else { spec.size.max(payload::PAYLOAD_LEN_MIN as u32) };
        if size > 0 {
            self.messages += 1;
        }
        Outgoing {
            number: if size > 0 { self.messages } else { 0 },
            topic: self.topics.of(&spec.topic, cx.names),
            qos: spec.qos,
            retain: spec.retain,
            size,
            expiry_s: if v5 { spec.expiry_s } else { 0 },
            alias: if v5 { spec.alias } else { 0 },
        }
    }

    /// Sends what waits as far as the server's Receive Maximum allows [MQTT-3.3.4-7].
    pub(super) fn send_waiting(&mut self, cx: &mut Context<'_>) {
        while let Some(link) = self.link.as_ref().filter(|link| link.phase == Phase::Open)
            && self.session.unacked.len() < link.limits.receive_maximum
            && let Some(message) = self.session.waiting.front().copied()
            && let Some(pid) = self.session.free_pid(|pid| link.requests.iter().any(|request| request.pid == pid))
        {
            self.session.waiting.pop_front();
            if self.write_publish(&message, Some(pid), false, cx) {
                self.session.unacked.push_back(Unacked { pid, message, stage: Stage::Published });
            }
        }
    }

    /// The session is there again: everything in its order, once more [MQTT-4.4.0-1].
    pub(super) fn resend(&mut self, cx: &mut Context<'_>) {
        for at in 0..self.session.unacked.len() {
            let Unacked { pid, message, stage } = self.session.unacked[at];
            match stage {
                Stage::Published => {
                    self.write_publish(&Outgoing { alias: 0, ..message }, Some(pid), true, cx);
                }
                Stage::Released => self.write_release(pid, ReasonCode::Success, cx),
            }
        }
    }

    /// Writes a PUBLISH, unless it is larger than the server takes [MQTT-3.2.2-15].
    pub(super) fn write_publish(
        &mut self,
        message: &Outgoing,
        packet_id: Option<PacketId>,
        dup: bool,
        cx: &mut Context<'_>,
    ) -> bool {
        let uid = self.uid(message.number);
        let Some(link) = &mut self.link else { return false };
        let Some(conn) = link.conn else { return false };
        self.payload.clear();
        self.properties.clear();
        if let Some(uid) = uid {
            let with_properties = link.version == ProtocolVersion::V5 && payload::has_properties(uid);
            payload::write(uid, message.topic.hash, message.size as usize, with_properties, &mut self.payload);
            if with_properties {
                payload::properties(uid, &mut self.properties);
            }
        }
        let mut topic = cx.names.text(message.topic.name).as_bytes();
        let alias = usize::from(message.alias);
        let is_set = link.aliases_out.get(alias).copied().flatten() == Some(message.topic.name);
        if alias > 0 && is_set {
            topic = &[];
        }
        let expiry_s = Some(message.expiry_s).filter(|seconds| *seconds > 0);
        let publish = PublishOut {
            dup,
            qos: message.qos,
            retain: message.retain,
            topic,
            packet_id,
            topic_alias: NonZeroU16::new(message.alias),
            message_expiry_interval: expiry_s,
            subscription_identifiers: &[],
            forwardable: &self.properties,
            payload: &self.payload,
        };
        let limit = link.limits.max_packet_size;
        if limit < usize::MAX && publish.encoded_len(link.version) > limit {
            return false;
        }
        publish.encode(link.version, &mut self.outbox);
        if alias > 0 && !is_set {
            let len = link.aliases_out.len().max(alias + 1);
            link.aliases_out.resize(len, None);
            link.aliases_out[alias] = Some(message.topic.name);
        }
        let facts = PublishFacts {
            pid: packet_id.map(PacketId::get),
            uid,
            topic: message.topic.name,
            qos: message.qos,
            dup,
            retain: message.retain,
            expiry_s,
            size: message.size,
        };
        cx.events.push(Event::Publish { conn, facts });
        true
    }

    /// PUBREL for a publish of its own.
    pub(super) fn write_release(&mut self, pid: PacketId, code: ReasonCode, cx: &mut Context<'_>) {
        let Some(conn) = self.conn() else { return };
        encode_ack(PacketType::Pubrel, pid, code, self.spec.version, &mut self.outbox);
        cx.events.push(Event::Release { conn, pid: pid.get() });
    }

    /// Acknowledges in time; one after the other, as the server's packets came [MQTT-4.6.0-2], [MQTT-4.6.0-3].
    pub(super) fn ack(&mut self, kind: AckKind, pid: PacketId, code: ReasonCode, key: u64, cx: &mut Context<'_>) {
        let delay = &self.spec.ack_delay_ms;
        let at = if self.spec.acks == Acks::Never {
            Instant::NEVER
        } else if *delay.end() == 0 {
            cx.now
        } else {
            let mut chance = Stream::new(self.seed, ACK_DELAY, self.name ^ key);
            // Microseconds, so that two acknowledgements seldom fall together.
            cx.now + Duration::from_micros(chance.between(delay.start() * 1_000, delay.end() * 1_000))
        };
        let Some(link) = &mut self.link else { return };
        let at = link.acks.back().map_or(at, |last| last.at.max(at));
        if at <= cx.now && link.acks.is_empty() {
            self.write_ack(kind, pid, code, cx);
        } else {
            link.acks.push_back(PendingAck { at, kind, pid: pid.get(), code });
        }
    }

    pub(super) fn write_ack(&mut self, kind: AckKind, pid: PacketId, code: ReasonCode, cx: &mut Context<'_>) {
        let Some(conn) = self.conn() else { return };
        encode_ack(packet_type(kind), pid, code, self.spec.version, &mut self.outbox);
        let code = if self.spec.version == ProtocolVersion::V5 { code } else { ReasonCode::Success };
        cx.events.push(Event::Ack { conn, kind, pid: pid.get(), code });
    }

    pub(super) fn send_due_acks(&mut self, cx: &mut Context<'_>) {
        while let Some(link) = self.link.as_mut().filter(|link| link.phase == Phase::Open)
            && let Some(ack) = link.acks.pop_front_if(|ack| ack.at <= cx.now)
        {
            self.write_ack(ack.kind, PacketId::new(ack.pid).expect("it came with one"), ack.code, cx);
        }
    }

    pub(super) fn set_acks(&mut self, acks: Acks, cx: &mut Context<'_>) {
        self.spec.acks = acks;
        if let Some(link) = self.link.as_mut().filter(|_| acks == Acks::Auto) {
            for ack in link.acks.iter_mut().filter(|ack| ack.at == Instant::NEVER) {
                ack.at = cx.now;
            }
        }
        if self.asleep.is_none() {
            self.send_due_acks(cx);
        }
    }

    pub(super) fn ping(&mut self, cx: &mut Context<'_>) {
        let Some(link) = self.link.as_mut().filter(|link| link.phase == Phase::Open) else { return };
        let Some(conn) = link.conn else { return };
        link.pings += 1;
        if link.pings == 1 && link.keep_alive_s > 0 && self.reading {
            link.patience = cx.now + PING_PATIENCE;
        }
        write(&Packet::Pingreq, link.version, &mut self.outbox);
        cx.events.push(Event::Pingreq { conn });
    }
}

/// Appends a packet that the model made.
pub(super) fn write(packet: &Packet<'_>, version: ProtocolVersion, out: &mut Vec<u8>) {
    packet.encode(version, out).expect("a scenario's texts are shorter than 65,536 bytes");
}

/// The packet of an acknowledgement.
pub(super) const fn packet_type(kind: AckKind) -> PacketType {
    match kind {
        AckKind::Puback => PacketType::Puback,
        AckKind::Pubrec => PacketType::Pubrec,
        AckKind::Pubrel => PacketType::Pubrel,
        AckKind::Pubcomp => PacketType::Pubcomp,
    }
}

/// The largest Variable Byte Integer (1.5.5).
const SUBSCRIPTION_ID_MAX: u32 = 268_435_455;
/// Bytes of a Will Message's payload.
const WILL_LEN: usize = 32;
