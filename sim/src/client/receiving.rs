//! What a client makes of the server's packets: the exchanges of QoS 1 and 2, the session after CONNACK, and everything
//! that can be seen at once to be none of what a server may send.

use newtmq_base::Instant;
use newtmq_mqtt::{
    Ack, Connack, Frame, Packet, PacketId, PacketType, ProtocolVersion, Publish, QoS, ReasonCode, Sender, TopicName,
};

use super::link::{Limits, Phase};
use super::session::{Stage, Unacked};
use super::topics::Topic;
use super::{Client, ClientOutput, Context, payload};
use crate::history::{AckKind, Closer, Event, ReceiveFacts, Uid};

impl Client {
    pub(super) fn receive_bytes(&mut self, mut data: &[u8], sent_at: Instant, cx: &mut Context<'_>) {
        let Some(link) = self.link.as_mut().filter(|link| link.phase != Phase::Opening) else { return };
        let conn = link.conn;
        let mut decoder = core::mem::take(&mut link.decoder);
        while self.conn() == conn {
            match decoder.next(&mut data, u32::MAX) {
                Ok(Some(frame)) => self.on_frame(frame, sent_at, cx),
                Ok(None) => break,
                Err(error) => {
                    self.unexpected(&format!("bytes that are no packet: {error}"), cx);
                    self.give_up(cx);
                }
            }
        }
        if let Some(link) = self.link.as_mut().filter(|link| link.conn == conn) {
            link.decoder = decoder;
        }
    }

    fn on_frame(&mut self, frame: Frame<'_>, sent_at: Instant, cx: &mut Context<'_>) {
        let Some(link) = &self.link else { return };
        let (phase, version) = (link.phase, link.version);
        if phase == Phase::Over {
            return self.unexpected("a packet after DISCONNECT or a refusal [MQTT-3.14.4-1]", cx);
        }
        let limit = self.spec.max_packet_size as usize;
        if limit > 0 && version == ProtocolVersion::V5 && frame.bytes.len() > limit {
            let what = format!("a packet of {} bytes above the Maximum Packet Size [MQTT-3.1.2-24]", frame.bytes.len());
            self.unexpected(&what, cx);
        }
        // A refusal of the version may come in the format of another one.
        let decoded = frame.decode(version, Sender::Server).or_else(|error| {
            let refusal = frame.packet_type() == PacketType::Connack;
            if refusal { frame.decode(ProtocolVersion::V311, Sender::Server) } else { Err(error) }
        });
        let packet = match decoded {
            Ok(packet) => packet,
            Err(error) => {
                self.unexpected(&format!("a wrong {:?}: {error}", frame.packet_type()), cx);
                return self.give_up(cx);
            }
        };
        if phase == Phase::Connecting && !matches!(packet, Packet::Connack(_)) {
            return self.unexpected("a packet before CONNACK [MQTT-3.2.0-1]", cx);
        }
        match packet {
            Packet::Publish(publish) => self.on_publish(&publish, frame.bytes.len(), sent_at, cx),
            Packet::Puback(ack) => self.on_puback(&ack, sent_at, cx),
            Packet::Pubrec(ack) => self.on_pubrec(&ack, sent_at, cx),
            Packet::Pubrel(ack) => self.on_pubrel(&ack, cx),
            Packet::Pubcomp(ack) => self.on_pubcomp(&ack, sent_at, cx),
            Packet::Connack(connack) => self.on_connack(&connack, sent_at, cx),
            Packet::Suback(suback) => {
                let codes: Vec<ReasonCode> = suback.reason_codes.iter().collect();
                self.on_answer(PacketType::Subscribe, suback.packet_id, codes, sent_at, cx);
            }
            Packet::Unsuback(unsuback) => {
                let codes: Vec<ReasonCode> = unsuback.reason_codes.iter().collect();
                self.on_answer(PacketType::Unsubscribe, unsuback.packet_id, codes, sent_at, cx);
            }
            Packet::Pingresp => self.on_pingresp(cx),
            Packet::Disconnect(disconnect) => self.on_disconnect(disconnect.reason_code, cx),
            Packet::Auth(_) => self.unexpected("AUTH without an Authentication Method [MQTT-4.12.0-6]", cx),
            Packet::Connect(_) | Packet::Subscribe(_) | Packet::Unsubscribe(_) | Packet::Pingreq => {
                self.unexpected("a packet that only clients send (table 2-1)", cx);
            }
        }
    }

    fn on_connack(&mut self, connack: &Connack<'_>, sent_at: Instant, cx: &mut Context<'_>) {
        let Some(link) = &mut self.link else { return };
        let Some(conn) = link.conn else { return };
        if link.phase == Phase::Open {
            return self.unexpected("a second CONNACK [MQTT-3.2.0-2]", cx);
        }
        let properties = &connack.properties;
        let (present, code) = (connack.session_present, connack.reason_code);
        let expiry_s = properties.session_expiry_interval;
        cx.events.push(Event::Connack { conn, present, code, expiry_s, sent_at });
        if code.is_error() {
            self.retry.failures += 1;
            return self.nothing_may_follow(cx.now);
        }
        link.phase = Phase::Open;
        link.limits = Limits::of(connack);
        link.expiry_s = expiry_s.unwrap_or(link.expiry_s);
        link.keep_alive_s = properties.server_keep_alive.unwrap_or(link.keep_alive_s);
        // MQTT 3.1 has no Session Present: its clients can only hope.
        link.resumed = present || link.version == ProtocolVersion::V31 && !link.clean;
        let (resumed, v5) = (link.resumed, link.version == ProtocolVersion::V5);
        self.retry.failures = 0;
        self.renew_patience(cx.now);
        if let Some(id) = properties.assigned_client_identifier {
            self.spec.id = id.into();
        } else if self.spec.id.is_empty() && v5 {
            self.unexpected("no Assigned Client Identifier [MQTT-3.2.2-16]", cx);
        }
        if resumed {
            self.resend(cx);
        } else {
            self.session.forget_exchanges();
        }
        self.send_waiting(cx);
        self.carry_out_later(cx);
    }

    fn on_publish(&mut self, publish: &Publish<'_>, packet_size: usize, sent_at: Instant, cx: &mut Context<'_>) {
        let Some(topic) = self.topic_of(publish, cx) else { return };
        let Some(conn) = self.conn() else { return };
        let named = payload::read(publish.payload, topic.hash);
        let v5 = self.spec.version == ProtocolVersion::V5;
        let unaltered = |uid, has_some| !v5 || payload::are_unaltered(&publish.properties, uid, has_some);
        let uid = named.filter(|(uid, has_some)| unaltered(*uid, *has_some)).map(|(uid, _)| uid);
        let identifiers = publish.properties.subscription_identifiers;
        let facts = ReceiveFacts {
            pid: publish.packet_id.map(PacketId::get),
            uid,
            topic: topic.name,
            qos: publish.qos,
            dup: publish.dup,
            retain: publish.retain,
            expiry_s: publish.properties.message_expiry_interval,
            subscription_ids: if identifiers.is_empty() { Vec::new() } else { identifiers.iter().collect() },
            intact: uid.is_some() || publish.payload.is_empty(),
            size: publish.payload.len() as u32,
            packet_size: packet_size as u32,
            sent_at,
        };
        cx.events.push(Event::Receive { conn, facts });
        let Some(pid) = publish.packet_id else {
            if publish.dup {
                self.unexpected("DUP with QoS 0 [MQTT-3.3.1-2]", cx);
            }
            return hand_on(conn, uid, publish.qos, cx);
        };
        let key = uid.map_or(0, |uid| u64::from(uid.publisher.0) << 32 | u64::from(uid.number));
        if publish.qos == QoS::AtLeastOnce {
            hand_on(conn, uid, publish.qos, cx);
            return self.ack(AckKind::Puback, pid, ReasonCode::Success, key, cx);
        }
        let first = self.session.receive(pid.get());
        // A session of MQTT 3.1 may be another one than its client hopes: then an old identifier says nothing.
        let another = self.spec.version == ProtocolVersion::V31 && !publish.dup;
        if first || another {
            hand_on(conn, uid, publish.qos, cx);
        }
        self.ack(AckKind::Pubrec, pid, ReasonCode::Success, key, cx);
    }

    /// The Topic Name, from its alias if need be.
    fn topic_of(&mut self, publish: &Publish<'_>, cx: &mut Context<'_>) -> Option<Topic> {
        let named = publish.topic.map(TopicName::as_str).map(|text| self.topics.of(text, cx.names));
        let Some(alias) = publish.properties.topic_alias else { return named };
        if alias.get() > self.spec.topic_alias_maximum {
            self.unexpected("a Topic Alias above the Topic Alias Maximum [MQTT-3.1.2-26]", cx);
            return named;
        }
        let alias = usize::from(alias.get());
        let link = self.link.as_mut()?;
        if named.is_some() {
            let len = link.aliases_in.len().max(alias + 1);
            link.aliases_in.resize(len, None);
            link.aliases_in[alias] = named;
        }
        let topic = link.aliases_in.get(alias).copied().flatten();
        if topic.is_none() {
            self.unexpected("a Topic Alias that was never set [MQTT-3.3.2-7]", cx);
        }
        topic
    }

    fn on_puback(&mut self, ack: &Ack<'_>, sent_at: Instant, cx: &mut Context<'_>) {
        let pid = self.acked(AckKind::Puback, ack, sent_at, cx);
        self.look_at_turn(pid, "PUBACK after that of a later PUBLISH [MQTT-4.6.0-2]", cx);
        match self.session.position(pid) {
            Some(at) if self.session.unacked[at].message.qos == QoS::AtLeastOnce => {
                self.session.unacked.remove(at);
                self.send_waiting(cx);
            }
            _ => self.answer_to_nothing("PUBACK of nothing [MQTT-2.2.1-5]", cx),
        }
    }

    fn on_pubrec(&mut self, ack: &Ack<'_>, sent_at: Instant, cx: &mut Context<'_>) {
        let pid = self.acked(AckKind::Pubrec, ack, sent_at, cx);
        self.look_at_turn(pid, "PUBREC after that of a later PUBLISH [MQTT-4.6.0-3]", cx);
        let at = self.session.position(pid);
        match at.filter(|at| self.session.unacked[*at].message.qos == QoS::ExactlyOnce) {
            Some(at) if ack.reason_code.is_error() => {
                self.session.unacked.remove(at);
                self.send_waiting(cx);
            }
            Some(at) => {
                self.session.unacked[at].stage = Stage::Released;
                self.write_release(ack.packet_id, ReasonCode::Success, cx);
            }
            None => {
                self.answer_to_nothing("PUBREC of nothing [MQTT-2.2.1-5]", cx);
                if !ack.reason_code.is_error() {
                    self.write_release(ack.packet_id, ReasonCode::PacketIdentifierNotFound, cx);
                }
            }
        }
    }

    fn on_pubcomp(&mut self, ack: &Ack<'_>, sent_at: Instant, cx: &mut Context<'_>) {
        let pid = self.acked(AckKind::Pubcomp, ack, sent_at, cx);
        match self.session.position(pid) {
            Some(at) if self.session.unacked[at].stage == Stage::Released => {
                self.session.unacked.remove(at);
                self.send_waiting(cx);
            }
            _ => self.answer_to_nothing("PUBCOMP of nothing [MQTT-2.2.1-5]", cx),
        }
    }

    /// Acknowledgements come in the order of the messages of their QoS. What has been overtaken may stay without one: before
    /// MQTT 5.0 a server has no other way to refuse.
    fn look_at_turn(&mut self, pid: u16, what: &str, cx: &mut Context<'_>) {
        let Some(at) = self.session.position(pid) else { return };
        let Some(link) = &mut self.link else { return };
        let unacked = &self.session.unacked;
        let Unacked { message, stage, .. } = unacked[at];
        if stage != Stage::Published {
            return;
        }
        let late = link.overtaken.iter().position(|other| *other == pid);
        for earlier in unacked.iter().take(at) {
            let waits = earlier.stage == Stage::Published && earlier.message.qos == message.qos;
            if waits && !link.overtaken.contains(&earlier.pid.get()) {
                link.overtaken.push(earlier.pid.get());
            }
        }
        if let Some(late) = late {
            link.overtaken.swap_remove(late);
            self.answer_to_nothing(what, cx);
        }
    }

    fn acked(&mut self, kind: AckKind, ack: &Ack<'_>, sent_at: Instant, cx: &mut Context<'_>) -> u16 {
        let pid = ack.packet_id.get();
        if let Some(conn) = self.conn() {
            cx.events.push(Event::Acked { conn, kind, pid, code: ack.reason_code, sent_at });
        }
        pid
    }

    /// After a resumption an exchange may be over at one side only; before MQTT 5.0 packets may come again at any time.
    fn on_pubrel(&mut self, ack: &Ack<'_>, cx: &mut Context<'_>) {
        let Some(link) = &self.link else { return };
        let Some(conn) = link.conn else { return };
        let (fresh, v5) = (!link.resumed, link.version == ProtocolVersion::V5);
        let pid = ack.packet_id.get();
        cx.events.push(Event::Released { conn, pid });
        let known = self.session.release(pid);
        if !known && fresh && v5 {
            self.answer_to_nothing("PUBREL of nothing [MQTT-2.2.1-4]", cx);
        }
        let code = if known { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound };
        self.ack(AckKind::Pubcomp, ack.packet_id, code, u64::from(pid) << 48, cx);
    }

    fn on_answer(
        &mut self,
        kind: PacketType,
        packet_id: PacketId,
        codes: Vec<ReasonCode>,
        sent_at: Instant,
        cx: &mut Context<'_>,
    ) {
        let pid = packet_id.get();
        let Some(link) = &mut self.link else { return };
        let Some(conn) = link.conn else { return };
        let filters = link.answered(kind, pid).map(|request| request.filters);
        let codes_expected = kind == PacketType::Subscribe || link.version == ProtocolVersion::V5;
        let number = codes.len();
        cx.events.push(if kind == PacketType::Subscribe {
            Event::Suback { conn, pid, codes, sent_at }
        } else {
            Event::Unsuback { conn, pid, codes }
        });
        match filters {
            None => self.answer_to_nothing("SUBACK or UNSUBACK of nothing [MQTT-2.2.1-6]", cx),
            Some(filters) if codes_expected && filters != number => {
                let what = "not one Reason Code for each filter [MQTT-3.9.3-1], [MQTT-3.11.3-1]";
                self.unexpected(what, cx);
            }
            Some(_) => {}
        }
    }

    fn on_pingresp(&mut self, cx: &mut Context<'_>) {
        let Some(link) = &mut self.link else { return };
        let Some(conn) = link.conn else { return };
        cx.events.push(Event::Pingresp { conn });
        if link.pings == 0 {
            return self.answer_to_nothing("PINGRESP without PINGREQ [MQTT-3.12.4-1]", cx);
        }
        link.pings -= 1;
        self.renew_patience(cx.now);
    }

    fn on_disconnect(&mut self, code: ReasonCode, cx: &mut Context<'_>) {
        let Some(conn) = self.conn() else { return };
        cx.events.push(Event::Disconnect { conn, by: Closer::Server, code, expiry_s: None });
        self.nothing_may_follow(cx.now);
    }

    /// The server said its last word; there is nobody to answer.
    fn nothing_may_follow(&mut self, now: Instant) {
        if let Some(link) = &mut self.link {
            link.phase = Phase::Over;
            link.acks.clear();
        }
        self.renew_patience(now);
    }

    /// The server's bytes make no sense any more.
    fn give_up(&mut self, cx: &mut Context<'_>) {
        self.flush(cx);
        cx.out.push(ClientOutput::Close);
        self.lost(Closer::Client, cx);
    }

    /// An answer that this client did not ask for, unless it sent what no client may send: that may be answered.
    fn answer_to_nothing(&mut self, what: &str, cx: &mut Context<'_>) {
        if self.link.as_ref().is_some_and(|link| !link.lenient) {
            self.unexpected(what, cx);
        }
    }

    fn unexpected(&mut self, what: &str, cx: &mut Context<'_>) {
        if let Some(conn) = self.conn() {
            cx.events.push(Event::Unexpected { conn, what: what.into() });
        }
    }
}

fn hand_on(conn: crate::history::ConnIx, uid: Option<Uid>, qos: QoS, cx: &mut Context<'_>) {
    if let Some(uid) = uid {
        cx.events.push(Event::Handed { conn, uid, qos });
    }
}
