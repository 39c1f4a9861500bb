//! A PUBLISH from a client: checks, aliases, QoS 2, retained copy, fan-out, acknowledgement (section 3.3).

use core::time::Duration;

use newtmq_base::{ConnId, Instant, planted};
use newtmq_mqtt::{
    DecodeError, ErrorKind, Frame, PacketId, PacketType, ProtocolVersion, PublishProperties, QoS, RawPublish,
    ReasonCode, Sender, TopicName,
};
use newtmq_session::{Applied, Op};
use newtmq_topic::Memo;

use super::deliver::Origin;
use super::fan::Publishing;
use super::late::NO_GUID;
use super::{Next, Shard};
use crate::conn::{Feature, Pending, Rare, Stage};
use crate::hooks::{AclAction, Hook, Question};
use crate::io::Outbox;
use crate::place::{Stamp, slot_of};
use crate::store::StoreState;

impl Shard {
    /// Checks what does not need a verdict, then asks or goes on.
    pub(crate) fn on_publish(
        &mut self,
        now: Instant,
        conn: ConnId,
        frame: Frame<'_>,
        publish: &RawPublish<'_>,
        out: &mut Outbox,
    ) -> Next {
        if self.reluctance.holds(now, publish.qos) {
            return self.put_aside(now, conn, frame);
        }
        self.ledger.traffic.messages_received[publish.qos as usize] += 1;
        let c = self.live(conn);
        let (version, memo, key, zone) = (c.version, c.memo, c.session, usize::from(c.zone));
        let mounted = c.features.has(Feature::Mounted);
        if publish.qos > self.config.mqtt.max_qos_allowed {
            return self.reject(now, conn, ReasonCode::QoSNotSupported, out);
        }
        if publish.retain && !self.config.mqtt.retain_available {
            return self.reject(now, conn, ReasonCode::RetainNotSupported, out);
        }
        if let (QoS::ExactlyOnce, Some(packet_id)) = (publish.qos, publish.packet_id) {
            // Seen before: not handed on again [MQTT-4.3.3-10].
            if self.slot(key).session.is_awaiting_rel(packet_id) {
                if !self.is_unconfirmed(conn, key, packet_id) {
                    return self.on_repeated_publish(now, conn, publish, packet_id, out);
                }
                return self.on_other_publish(now, conn, frame, publish, None, out);
            }
        }
        if let Some(packet_id) = publish.packet_id
            && planted!(DupIsSeen, publish.dup)
        {
            let kind = if publish.qos == QoS::ExactlyOnce { PacketType::Pubrec } else { PacketType::Puback };
            self.send_ack(now, conn, kind, packet_id, ReasonCode::Success, out);
            return Next::Go;
        }
        // Before MQTT 5 nobody can know of a limit, so there is none but the number of identifiers.
        let limited = publish.qos > QoS::AtMostOnce && version == ProtocolVersion::V5;
        if limited && !self.within_receive_maximum(conn, key, zone) {
            return self.reject(now, conn, ReasonCode::ReceiveMaximumExceeded, out);
        }
        let plain = publish.properties.is_empty()
            && !mounted
            && !(publish.retain && self.agreed.shares)
            && self.topics.recall(memo, publish.topic).is_some();
        let asks = self.config.hooks.has(Hook::ClientCheckAcl) || self.config.hooks.has(Hook::MessagePublish);
        if plain && !asks && self.is_permitted(conn, publish.topic) {
            let same = publish.qos == QoS::AtMostOnce && !publish.retain && !publish.dup;
            let publishing = Publishing {
                id: self.journal.message_id(),
                topic: publish.topic,
                forwardable: &[],
                payload: publish.payload,
                qos: publish.qos,
                retain: publish.retain,
                expires: Instant::NEVER,
                stretched: false,
                verbatim: same.then_some((frame.bytes, version)),
                publisher: key,
                stamp: Stamp::NONE,
                guid: NO_GUID,
            };
            return self.accept(now, conn, publishing, memo, publish.packet_id, out);
        }
        self.on_other_publish(now, conn, frame, publish, None, out)
    }

    /// A QoS 2 publish that is here already: acknowledged again. A Topic Alias that it sets counts, for the first one
    /// may have come by an earlier connection.
    pub(super) fn on_repeated_publish(
        &mut self,
        now: Instant,
        conn: ConnId,
        publish: &RawPublish<'_>,
        packet_id: PacketId,
        out: &mut Outbox,
    ) -> Next {
        if let Some(next) = self.take_alias(now, conn, publish, out) {
            return next;
        }
        let kind = if planted!(RepeatGetsPubcomp) { PacketType::Pubcomp } else { PacketType::Pubrec };
        self.send_ack(now, conn, kind, packet_id, ReasonCode::Success, out);
        Next::Go
    }

    /// Of a publish that goes no further, what it says about Topic Aliases: its client goes on to use them. Says if it is
    /// refused for that.
    pub(super) fn take_alias(
        &mut self,
        now: Instant,
        conn: ConnId,
        publish: &RawPublish<'_>,
        out: &mut Outbox,
    ) -> Option<Next> {
        let properties = match PublishProperties::decode(publish.properties, Sender::Client) {
            Ok(properties) => properties,
            Err(error) => return Some(self.on_decode_error(now, conn, &error, out)),
        };
        if let Err(reason) = self.resolve_alias(conn, publish.topic, &properties) {
            return Some(self.reject(now, conn, reason, out));
        }
        if let (Some(alias), false) = (properties.topic_alias, publish.topic.is_empty()) {
            if let Err(error) = self.check_topic(publish.topic) {
                return Some(self.on_decode_error(now, conn, &error, out));
            }
            self.learn_alias(conn, alias.get(), publish.topic);
        }
        None
    }

    /// QoS 1 and 2 publishes that are not acknowledged yet are limited [MQTT-3.3.4-7].
    fn within_receive_maximum(&mut self, conn: ConnId, key: u32, zone: usize) -> bool {
        // A withheld PUBREC belongs to an identifier that is counted below, unless it is a refusal.
        let is_open =
            |(kind, _, reason): &&(PacketType, PacketId, ReasonCode)| *kind == PacketType::Puback || reason.is_error();
        let gated = |rare: &Rare| rare.gates.as_ref().map_or(0, |gates| gates.open_publishes());
        let count = |rare: &Rare| rare.withheld.iter().filter(is_open).count() + gated(rare);
        let withheld = self.live(conn).rare.as_deref().map_or(0, count);
        let awaiting = self.slot(key).session.awaiting_rel_len();
        withheld + awaiting < usize::from(self.config.zones[zone].max_awaiting_rel)
    }

    /// The ways that are not the hot one: a topic not met before, properties, hooks. `asked` is the last question that
    /// was answered with yes.
    pub(crate) fn on_other_publish(
        &mut self,
        now: Instant,
        conn: ConnId,
        frame: Frame<'_>,
        publish: &RawPublish<'_>,
        asked: Option<Stage>,
        out: &mut Outbox,
    ) -> Next {
        let properties = match PublishProperties::decode(publish.properties, Sender::Client) {
            Ok(properties) => properties,
            Err(error) => return self.on_decode_error(now, conn, &error, out),
        };
        let topic = match self.resolve_alias(conn, publish.topic, &properties) {
            Ok(topic) => topic,
            Err(reason) => return self.reject(now, conn, reason, out),
        };
        let topic: &[u8] = topic.as_deref().unwrap_or(publish.topic);
        let name = match self.check_topic(topic) {
            Ok(name) => name,
            Err(error) => return self.on_decode_error(now, conn, &error, out),
        };
        if let Some(alias) = properties.topic_alias {
            // Also by a publish that is refused: the client goes on to use it.
            self.learn_alias(conn, alias.get(), topic);
        }
        if properties.payload_format_indicator == Some(true) && core::str::from_utf8(publish.payload).is_err() {
            return self.refuse_publish(now, conn, publish, ReasonCode::PayloadFormatInvalid, out);
        }
        if name.as_str().starts_with("$SYS/") {
            // Only the server speaks there (4.7.2).
            return self.refuse_publish(now, conn, publish, ReasonCode::NotAuthorized, out);
        }
        let asked = self.answered(now, conn, name, asked);
        if let Some(next) = self.refuse_by_rules(now, conn, publish, name, asked, out) {
            return next;
        }
        if let Some(next) = self.ask_about_publish(conn, frame, name, publish.payload, asked, out) {
            return next;
        }
        self.accept_with(now, conn, frame, publish, (topic, asked), &properties, out)
    }

    /// A publish that nobody refuses, with its topic and its properties.
    #[allow(clippy::too_many_arguments)] // the packet and its parts
    fn accept_with(
        &mut self,
        now: Instant,
        conn: ConnId,
        frame: Frame<'_>,
        publish: &RawPublish<'_>,
        (topic, asked): (&[u8], Option<Stage>),
        properties: &PublishProperties<'_>,
        out: &mut Outbox,
    ) -> Next {
        let version = self.live(conn).version;
        let mounted = match self.mounted_topic(conn, topic) {
            Ok(mounted) => mounted,
            Err(error) => return self.on_decode_error(now, conn, &error, out),
        };
        let mut forwardable = core::mem::take(&mut self.scratch.forwardable);
        forwardable.clear();
        properties.write_forwardable(&mut forwardable);
        let expires = match properties.message_expiry_interval {
            Some(seconds) => now + Duration::from_secs(u64::from(seconds)),
            None => Instant::NEVER,
        };
        let same = publish.qos == QoS::AtMostOnce
            && !publish.retain
            && !publish.dup
            && !publish.topic.is_empty()
            && mounted.is_none()
            && properties.is_forwardable_verbatim()
            && (version == ProtocolVersion::V5 || publish.properties.is_empty());
        let c = self.live(conn);
        let (memo, publisher) = (c.memo, c.session);
        let publishing = Publishing {
            id: self.journal.message_id(),
            topic: mounted.as_deref().unwrap_or(topic),
            forwardable: &forwardable,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            expires,
            stretched: false,
            verbatim: same.then_some((frame.bytes, version)),
            publisher,
            stamp: Stamp::NONE,
            guid: NO_GUID,
        };
        let aside = if asked == Some(Stage::Retain) || self.stopping {
            None
        } else {
            self.retain_first(now, conn, frame, &publishing, publish.packet_id, out)
        };
        let next = match aside {
            Some(next) => next,
            None => self.accept(now, conn, publishing, memo, publish.packet_id, out),
        };
        self.scratch.forwardable = forwardable;
        next
    }

    /// The publish is accepted: QoS 2 identifier, retained copy, fan-out, acknowledgement, hold.
    fn accept(
        &mut self,
        now: Instant,
        conn: ConnId,
        mut publishing: Publishing<'_>,
        mut memo: Memo,
        packet_id: Option<PacketId>,
        out: &mut Outbox,
    ) -> Next {
        if self.stopping {
            // Shards that have sent their clients away deliver nothing any more. What is not acknowledged comes again.
            return Next::Hold;
        }
        if self.journal.state() != StoreState::Open && self.needs_store(conn, &publishing, &mut memo) {
            if self.journal.state() == StoreState::Failed || self.live(conn).version == ProtocolVersion::V5 {
                self.ledger.unstored += 1;
                return self.refuse_unkept(now, conn, publishing.qos, packet_id, out);
            }
            if planted!(UnstoredDropped) {
                return Next::Go;
            }
            // It cannot be told, and what it sends next may not be acknowledged before [MQTT-4.6.0-2]: it waits.
            self.live(conn).rare().unstored = true;
        }
        if let (QoS::ExactlyOnce, Some(packet_id)) = (publishing.qos, packet_id) {
            let key = self.live(conn).session;
            if self.slot(key).session.is_awaiting_rel(packet_id) {
                return self.accept_again(now, conn, publishing, packet_id, out);
            }
            // What went under this identifier before is over, however that came.
            self.release_forwarded(now, key, packet_id);
            assert_eq!(self.apply(conn, Op::Qos2In { packet_id }), Applied::Done, "looked up before");
            // With the identifier and without the copies it would be lost, the other way round it would come twice.
            let key = self.live(conn).session;
            self.journal.whole = self.slot(key).stored.is_some();
        }
        if publishing.retain {
            publishing.stamp = self.stamp_of(now, &publishing, conn, out);
        }
        let kind = if publishing.qos == QoS::ExactlyOnce { PacketType::Pubrec } else { PacketType::Puback };
        let owed = packet_id.map(|packet_id| (kind, packet_id, ReasonCode::Success));
        let delivered = self.deliver(now, publishing, &mut memo, Origin::Conn(conn), owed, out);
        self.journal.whole = false;
        self.live(conn).memo = memo;
        if !delivered.congested.is_empty() {
            self.wait_for_outputs(now, conn, &delivered.congested, out);
        }
        // MQTT 5 with QoS is held by its acknowledgements; everybody else by not being read.
        let unread = publishing.qos == QoS::AtMostOnce || self.live(conn).version != ProtocolVersion::V5;
        if delivered.unfinished {
            let rare = self.live(conn).rare();
            rare.fan_out = true;
            rare.unread = unread;
            return Next::Hold;
        }
        if let Some(gate) = delivered.gate {
            if self.finish_gate(now, conn, gate, delivered.reached, out) == Next::Stop {
                return Next::Stop;
            }
        } else if let Some((kind, packet_id, _)) = owed
            && (delivered.matched || !planted!(NoAckWithoutSubscribers))
        {
            let reason = if delivered.matched { ReasonCode::Success } else { ReasonCode::NoMatchingSubscribers };
            self.send_ack(now, conn, kind, packet_id, reason, out);
        }
        let c = self.live(conn);
        if unread && c.waits() {
            c.rare().unread = true;
            return Next::Hold;
        }
        if delivered.gate.is_some() && self.hold_above_limit(conn) {
            return Next::Hold;
        }
        let c = self.live(conn);
        if c.rare.as_ref().is_some_and(|rare| rare.unstored) {
            return Next::Hold;
        }
        Next::Go
    }

    /// Retains a message, if the cluster has not done so before.
    fn stamp_of(&mut self, now: Instant, publishing: &Publishing<'_>, conn: ConnId, out: &mut Outbox) -> Stamp {
        let topic = core::str::from_utf8(publishing.topic).expect("validated by the caller");
        if !self.agrees_on(topic) {
            return self.retain(now, publishing, Some(conn), out);
        }
        if planted!(MatchedBeforeRetained) {
            let message = publishing.to_message(&mut self.scratch.block);
            self.retain_unasked(now, &message, out);
        }
        self.agreed.stamp
    }

    /// Whether a publish promises something that only the store can keep.
    fn needs_store(&mut self, conn: ConnId, publishing: &Publishing<'_>, memo: &mut Memo) -> bool {
        if publishing.qos == QoS::AtMostOnce {
            return false;
        }
        let key = self.live(conn).session;
        // Of QoS 1 the publisher's session keeps nothing.
        let retains = publishing.retain && !self.agreed.shares;
        if retains || (publishing.qos == QoS::ExactlyOnce && self.slot(key).stored.is_some()) {
            return true;
        }
        if self.topics.recall(*memo, publishing.topic).is_none() {
            let topic = TopicName::from_bytes(publishing.topic).expect("the caller validated it");
            self.topics.matches(topic, memo);
        }
        let Shard { topics, sessions, .. } = self;
        let matched = topics.recall(*memo, publishing.topic).expect("matched just before");
        let stored = |key: u32| sessions.get(key).is_some_and(|slot| slot.stored.is_some());
        matched.places.first().is_some_and(|place| slot_of(*place) == 0)
            || !matched.groups.is_empty()
            || matched.subscriptions.iter().any(|subscription| stored(subscription.subscriber.0))
    }

    /// It cannot be kept as it has to be, and who has sent it may send it again: MQTT 5 is told so. Before that there is no
    /// way to say it but to end the connection.
    pub(super) fn refuse_unkept(
        &mut self,
        now: Instant,
        conn: ConnId,
        qos: QoS,
        packet_id: Option<PacketId>,
        out: &mut Outbox,
    ) -> Next {
        if self.live(conn).version != ProtocolVersion::V5 {
            return self.reject(now, conn, ReasonCode::ImplementationSpecificError, out);
        }
        if let Some(packet_id) = packet_id {
            let kind = if qos == QoS::ExactlyOnce { PacketType::Pubrec } else { PacketType::Puback };
            self.send_ack(now, conn, kind, packet_id, ReasonCode::QuotaExceeded, out);
        }
        Next::Go
    }

    /// Says no to one publish: MQTT 5 answers with the reason; before, there is no way to say it, so QoS 0 is dropped
    /// and others are acknowledged and dropped [MQTT-3.3.5-2].
    pub(crate) fn refuse_publish(
        &mut self,
        now: Instant,
        conn: ConnId,
        publish: &RawPublish<'_>,
        reason: ReasonCode,
        out: &mut Outbox,
    ) -> Next {
        let key = self.live(conn).session;
        let topic = core::str::from_utf8(publish.topic).ok();
        self.tell(Hook::MessageDropped, key, topic, reason, out);
        if let Some(packet_id) = publish.packet_id {
            let kind = if publish.qos == QoS::ExactlyOnce { PacketType::Pubrec } else { PacketType::Puback };
            if kind == PacketType::Pubrec && self.live(conn).version != ProtocolVersion::V5 {
                self.apply(conn, Op::Qos2In { packet_id });
            } else if kind == PacketType::Pubrec && self.slot(key).session.is_awaiting_rel(packet_id) {
                // A repeated one, which was permitted the first time.
                self.apply(conn, Op::Qos2Rel { packet_id });
                self.release_forwarded(now, key, packet_id);
            }
            self.send_ack(now, conn, kind, packet_id, reason, out);
        }
        Next::Go
    }

    /// The topic that an alias stands for; `None` if the packet has its own (section 3.3.2.3.4).
    fn resolve_alias(
        &mut self,
        conn: ConnId,
        topic: &[u8],
        properties: &PublishProperties<'_>,
    ) -> Result<Option<Box<[u8]>>, ReasonCode> {
        let maximum = self.config.mqtt.max_topic_alias;
        let Some(alias) = properties.topic_alias else {
            return if topic.is_empty() { Err(ReasonCode::ProtocolError) } else { Ok(None) };
        };
        if alias.get() > maximum {
            return Err(ReasonCode::TopicAliasInvalid);
        }
        if !topic.is_empty() {
            return Ok(None);
        }
        let rare = self.live(conn).rare();
        match rare.aliases_in.get(usize::from(alias.get()) - 1) {
            Some(Some(known)) => Ok(Some(known.clone())),
            // Within the maximum, but nothing said what it stands for (section 3.3.4).
            Some(None) | None => Err(ReasonCode::ProtocolError),
        }
    }

    fn learn_alias(&mut self, conn: ConnId, alias: u16, topic: &[u8]) {
        let rare = self.live(conn).rare();
        let at = usize::from(alias) - 1;
        if rare.aliases_in.len() <= at {
            rare.aliases_in.resize(at + 1, None);
        }
        if rare.aliases_in[at].as_deref() != Some(topic) && !planted!(AliasInStale, rare.aliases_in[at].is_some()) {
            rare.aliases_in[at] = Some(topic.into());
        }
    }

    fn check_topic<'a>(&self, topic: &'a [u8]) -> Result<TopicName<'a>, DecodeError> {
        let name = TopicName::from_bytes(topic).map_err(|invalid| invalid.in_topic_name("topic name of PUBLISH"))?;
        let limit = self.config.mqtt.max_topic_levels;
        if limit > 0 && name.levels().count() > limit {
            return Err(DecodeError::new(ErrorKind::TopicNameInvalid, "more topic levels than max_topic_levels"));
        }
        Ok(name)
    }

    /// The next question that a hook wants to answer. The packet is put aside meanwhile.
    fn ask_about_publish(
        &mut self,
        conn: ConnId,
        frame: Frame<'_>,
        topic: TopicName<'_>,
        payload: &[u8],
        asked: Option<Stage>,
        out: &mut Outbox,
    ) -> Option<Next> {
        let hooks = self.config.hooks;
        let key = self.live(conn).session;
        let asks_acl = self.asks_acl(conn);
        let client: Box<str> = if asks_acl || hooks.has(Hook::MessagePublish) {
            self.slot(key).session.client().as_str().into()
        } else {
            return None;
        };
        let (stage, question) = match asked {
            None if asks_acl => {
                let topics = vec![topic.as_str().into()];
                (Stage::CheckAcl, self.acl_question(conn, client, AclAction::Publish, topics))
            }
            None | Some(Stage::CheckAcl) if hooks.has(Hook::MessagePublish) => {
                let topic = self.mounted_name(conn, topic);
                (Stage::Publish, Question::Publish { client, topic, payload: payload.into() })
            }
            _ => return None,
        };
        let request = self.ask(conn, question, out);
        self.live(conn).rare().pending = Some(Pending { request, stage, packet: frame.bytes.into() });
        Some(Next::Hold)
    }
}
