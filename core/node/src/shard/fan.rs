//! Fan-out of one message to the sessions that it matched. The hot path: an outgoing frame is encoded once per kind and
//! copied, and what came in already in that form is not encoded at all.

use core::hash::BuildHasher as _;

use newtmq_base::{HashSeed, Instant, Slab, planted};
use newtmq_cluster::lane::Guid;
use newtmq_mqtt::{ProtocolVersion, PublishOut, QoS, ReasonCode};
use newtmq_session::{
    Applied, DeliveryRecord, Dropped, Identifiers, Message, MessageId, MessageParts, Op, Record, SessionId,
    SessionLimits, remaining_expiry,
};
use newtmq_topic::Subscription;

use super::journal::Journal;
use super::late::NO_GUID;
use super::mount::unmounted;
use super::{Scratch, SessionSlot, ready};
use crate::config::ShardConfig;
use crate::conn::{Conn, Feature, NONE};
use crate::hooks::{Event, Hook};
use crate::io::{MemoryPressure, Outbox, Output};
use crate::ledger::{DropReason, Ledger};
use crate::outbuf::{BufferPool, OUTPUT_HIGH_BYTES, OUTPUT_LOW_BYTES, OUTPUT_MAX_BYTES, SHARE_PAYLOAD_BYTES};
use crate::place::Stamp;
use crate::store::{Durability, StoreState};

/// A message being published, borrowed from where it came from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Publishing<'a> {
    /// Its name in the log, if it may have to be stored.
    pub(crate) id: MessageId,
    pub(crate) topic: &'a [u8],
    pub(crate) forwardable: &'a [u8],
    pub(crate) payload: &'a [u8],
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// When it expires; [`Instant::NEVER`] without an interval.
    pub(crate) expires: Instant,
    /// The time until then was stretched on the way from another node.
    pub(crate) stretched: bool,
    /// The incoming packet and its version, if a QoS 0 delivery without RETAIN looks the same.
    pub(crate) verbatim: Option<(&'a [u8], ProtocolVersion)>,
    /// Session key of its publisher, or [`NONE`].
    pub(crate) publisher: u32,
    /// If the node has several shards and it was published with RETAIN.
    pub(crate) stamp: Stamp,
    /// Its name among all nodes; [`NO_GUID`] if nobody needs it.
    pub(crate) guid: Guid,
}

impl<'a> Publishing<'a> {
    pub(crate) fn of_message(message: &'a Message, publisher: u32) -> Publishing<'a> {
        Publishing {
            id: message.id(),
            topic: message.topic(),
            forwardable: message.forwardable(),
            payload: message.payload(),
            qos: message.qos(),
            retain: message.retain(),
            expires: message.expires(),
            stretched: message.is_stretched(),
            verbatim: None,
            publisher,
            stamp: Stamp::NONE,
            guid: NO_GUID,
        }
    }

    pub(crate) fn to_message(self, scratch: &mut Vec<u8>) -> Message {
        let Publishing { id, topic, mut forwardable, payload, qos, retain, expires, stretched, .. } = self;
        if planted!(PropertiesLost, !forwardable.is_empty()) {
            forwardable = &[];
        }
        Message::new(&MessageParts { id, topic, forwardable, payload, qos, retain, expires, stretched }, scratch)
    }

    /// The message, made if nobody needed it yet.
    pub(crate) fn message(self, made: &mut Option<Message>, scratch: &mut Vec<u8>) -> Message {
        made.get_or_insert_with(|| self.to_message(scratch)).clone()
    }

    /// The packet of a QoS 0 delivery.
    pub(crate) fn qos0<'b>(&'b self, retain: bool, identifiers: &'b [u32], now: Instant) -> PublishOut<'b> {
        PublishOut {
            dup: false,
            qos: QoS::AtMostOnce,
            retain,
            topic: self.topic,
            packet_id: None,
            topic_alias: None,
            message_expiry_interval: remaining_expiry(self.expires, self.stretched, now),
            subscription_identifiers: identifiers,
            forwardable: self.forwardable,
            payload: self.payload,
        }
    }
}

/// Outgoing QoS 0 frames of one publish without Subscription Identifiers and aliases, encoded on first use.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
    /// Start and end in `bytes`: before MQTT 5, MQTT 5; each without and with RETAIN.
    ranges: [Option<(u32, u32)>; 4],
}

impl Frames {
    fn clear(&mut self) {
        self.bytes.clear();
        self.ranges = [None; 4];
    }

    /// The frame of a kind; without its payload if that is to be shared.
    fn get(&mut self, publishing: &Publishing<'_>, v5: bool, retain: bool, head_only: bool, now: Instant) -> &[u8] {
        let kind = usize::from(v5) * 2 + usize::from(retain);
        let (start, end) = *self.ranges[kind].get_or_insert_with(|| {
            let start = self.bytes.len() as u32;
            let frame = publishing.qos0(retain, &[], now);
            let version = if v5 { ProtocolVersion::V5 } else { ProtocolVersion::V311 };
            if head_only {
                frame.encode_head(version, &mut self.bytes);
            } else {
                frame.encode(version, &mut self.bytes);
            }
            (start, self.bytes.len() as u32)
        });
        &self.bytes[start as usize..end as usize]
    }
}

/// The parts of a shard that a fan-out works on, apart from its topics.
pub(crate) struct Parts<'a> {
    pub(crate) config: &'a ShardConfig,
    pub(crate) sessions: &'a mut Slab<SessionSlot>,
    pub(crate) conns: &'a mut [Option<Conn>],
    pub(crate) ledger: &'a mut Ledger,
    pub(crate) pool: &'a mut BufferPool,
    pub(crate) scratch: &'a mut Scratch,
    pub(crate) pressure: MemoryPressure,
    pub(crate) node_seed: HashSeed,
    /// Some node is reached again since not long ago, until then.
    pub(crate) reunited_until: Instant,
    pub(crate) journal: &'a mut Journal,
}

/// One fan-out, or a step of one.
pub(crate) struct Fan<'a> {
    pub(crate) now: Instant,
    pub(crate) parts: Parts<'a>,
    pub(crate) out: &'a mut Outbox,
    pub(crate) publishing: Publishing<'a>,
    /// For a shared group: whoever was picked gets it, its publisher too.
    pub(crate) shared: bool,
    /// Made when the first target needs it.
    pub(crate) message: Option<Message>,
    /// Slots of connections whose output is above the limit.
    pub(crate) congested: Vec<u32>,
    /// Sessions younger than this did not exist when the message was matched.
    pub(crate) born_before: u64,
}

/// How one session gets a message: its overlapping subscriptions taken together [MQTT-3.3.4-2].
struct Target<'a> {
    subscriber: u32,
    qos: QoS,
    retain_as_published: bool,
    identifiers: &'a [u32],
}

impl Fan<'_> {
    /// Delivers to subscriptions that are sorted by subscriber.
    pub(crate) fn run(&mut self, subscriptions: &[Subscription]) {
        self.parts.scratch.frames.clear();
        let mut rest = subscriptions;
        while let Some((first, more)) = rest.split_first() {
            let same = more.iter().take_while(|other| other.subscriber == first.subscriber).count();
            if same == 0 {
                self.one(first);
            } else {
                self.several(&rest[..=same]);
            }
            rest = &more[same..];
        }
    }

    /// The usual case: one matching subscription of this session.
    #[inline]
    fn one(&mut self, subscription: &Subscription) {
        if self.is_own(subscription) {
            return self.keep_from(subscription.subscriber.0);
        }
        let identifier = subscription.identifier;
        self.deliver(&Target {
            subscriber: subscription.subscriber.0,
            qos: subscription.qos(),
            retain_as_published: subscription.retain_as_published(),
            identifiers: if identifier == 0 { &[] } else { core::slice::from_ref(&identifier) },
        });
    }

    /// Overlapping subscriptions: one copy with the highest QoS and all identifiers [MQTT-3.3.4-3].
    fn several(&mut self, subscriptions: &[Subscription]) {
        let mut identifiers = Vec::new();
        let mut qos = None;
        let mut retain_as_published = false;
        for subscription in subscriptions.iter().filter(|subscription| !self.is_own(subscription)) {
            qos = qos.max(Some(subscription.qos()));
            retain_as_published |= subscription.retain_as_published();
            if subscription.identifier != 0 && !planted!(OneIdentifierOnly, !identifiers.is_empty()) {
                identifiers.push(subscription.identifier);
            }
        }
        let subscriber = subscriptions[0].subscriber.0;
        let Some(qos) = qos else { return self.keep_from(subscriber) };
        self.deliver(&Target { subscriber, qos, retain_as_published, identifiers: &identifiers });
    }

    /// Whether No Local keeps the message from its own publisher [MQTT-3.8.3-3].
    #[inline]
    fn is_own(&self, subscription: &Subscription) -> bool {
        subscription.subscriber.0 == self.publishing.publisher
            && !self.shared
            && ((subscription.no_local() && !planted!(NoLocalIgnored)) || self.parts.config.mqtt.ignore_loop_deliver)
    }

    /// The session gets the message by no other way: it is its client's own one, or has come with QoS 0.
    fn keep_from(&mut self, subscriber: u32) {
        let claimed = self.parts.sessions.get_mut(subscriber).and_then(|slot| slot.claimed.as_mut());
        if let Some(claimed) = claimed {
            claimed.keeps_from(self.now, self.publishing.guid);
        }
    }

    /// One session gets the message.
    #[inline]
    fn deliver(&mut self, target: &Target<'_>) {
        let Some(slot) = self.parts.sessions.get(target.subscriber) else { return };
        if slot.born >= self.born_before {
            return;
        }
        if self.publishing.stamp != Stamp::NONE && slot.pouring.is_some() {
            self.note_live(target.subscriber);
        }
        let Some(slot) = self.parts.sessions.get(target.subscriber) else { return };
        self.parts.ledger.matched += 1;
        let upgrade = self.parts.config.zones[usize::from(slot.zone)].upgrade_qos
            || planted!(QosUpgraded, target.qos > self.publishing.qos);
        let qos = if upgrade { target.qos } else { target.qos.min(self.publishing.qos) };
        if qos < self.publishing.qos && qos == QoS::AtMostOnce && slot.claimed.is_some() && !self.shared {
            self.keep_from(target.subscriber);
        }
        let Some(slot) = self.parts.sessions.get(target.subscriber) else { return };
        let refused = if qos == QoS::AtMostOnce
            && slot.conn != NONE
            && (!slot.session.has_queued_qos0() || planted!(Qos0Overtakes))
        {
            let conn = slot.conn;
            self.write_qos0(conn, target)
        } else {
            self.enqueue(target, qos)
        };
        match refused {
            None => self.tell(target.subscriber, Fate::Delivered(qos)),
            Some(reason) => {
                self.parts.ledger.drop(reason, 1);
                self.tell(target.subscriber, Fate::Dropped(reason));
            }
        }
    }

    /// A session that reads retained messages remembers which ones it got live.
    #[cold]
    fn note_live(&mut self, subscriber: u32) {
        let Some(slot) = self.parts.sessions.get_mut(subscriber) else { return };
        if let Some(pourings) = &mut slot.pouring {
            let topic = self.parts.node_seed.state().hash_one(self.publishing.topic);
            pourings.note_live(topic, self.publishing.stamp);
        }
    }

    /// QoS 0 to a connected client goes straight into its output. Says why not.
    #[inline]
    fn write_qos0(&mut self, conn: u32, target: &Target<'_>) -> Option<DropReason> {
        let c = self.parts.conns[conn as usize].as_mut().expect("a session's connection is in its slot");
        let full = c.out.len() >= OUTPUT_HIGH_BYTES;
        let holds_nobody = c.stalled || target.subscriber == self.publishing.publisher;
        if full && (holds_nobody || c.out.len() >= OUTPUT_MAX_BYTES) {
            return Some(DropReason::SlowConsumer);
        }
        if c.out.len() >= OUTPUT_LOW_BYTES && self.parts.pressure != MemoryPressure::None {
            return Some(DropReason::MemoryPressure);
        }
        let v5 = c.version == ProtocolVersion::V5;
        let retain = target.retain_as_published && self.publishing.retain;
        let plain =
            target.identifiers.is_empty() && !c.features.has(Feature::Mounted) && (!v5 || c.alias_maximum() == 0);
        let head_only = self.publishing.payload.len() >= SHARE_PAYLOAD_BYTES;
        if !plain {
            if !self.write_special(conn, target, retain) {
                return Some(DropReason::PacketTooLarge);
            }
        } else if let Some(frame) = same_kind(&self.publishing, v5, retain, head_only) {
            if frame.len() as u64 > u64::from(c.max_packet_size) {
                return Some(DropReason::PacketTooLarge);
            }
            c.out.extend(frame, self.parts.pool);
        } else {
            let frame = self.parts.scratch.frames.get(&self.publishing, v5, retain, head_only, self.now);
            let shared = if head_only { self.publishing.payload.len() } else { 0 };
            if (frame.len() + shared) as u64 > u64::from(c.max_packet_size) {
                return Some(DropReason::PacketTooLarge);
            }
            c.out.extend(frame, self.parts.pool);
            if head_only {
                let block = &mut self.parts.scratch.block;
                let publishing = self.publishing;
                c.out.push_payload(self.message.get_or_insert_with(|| publishing.to_message(block)));
            }
        }
        self.parts.ledger.delivered += 1;
        self.parts.ledger.traffic.sent_message(QoS::AtMostOnce);
        self.wrote(conn, target.subscriber);
        None
    }

    /// After output was added.
    #[inline]
    fn wrote(&mut self, conn: u32, subscriber: u32) {
        let c = self.parts.conns[conn as usize].as_mut().expect("a session's connection is in its slot");
        if c.out.is_empty() {
            return;
        }
        ready(self.now, c, conn, self.out);
        if c.out.len() >= OUTPUT_HIGH_BYTES && !c.stalled && subscriber != self.publishing.publisher {
            self.congested.push(conn);
        }
    }

    /// QoS 0 with what differs from target to target: Subscription Identifiers, Topic Alias.
    fn write_special(&mut self, conn: u32, target: &Target<'_>, retain: bool) -> bool {
        let Fan { parts, publishing, message, now, .. } = self;
        let c = parts.conns[conn as usize].as_mut().expect("a session's connection is in its slot");
        let shared = if publishing.payload.len() >= SHARE_PAYLOAD_BYTES {
            Some(&*message.get_or_insert_with(|| publishing.to_message(&mut parts.scratch.block)))
        } else {
            None
        };
        write_publish(c, publishing.qos0(retain, target.identifiers, *now), shared, parts.pool)
    }

    /// QoS 1 and 2, and what has to wait: through the session. Says why not.
    fn enqueue(&mut self, target: &Target<'_>, qos: QoS) -> Option<DropReason> {
        let publishing = self.publishing;
        let slot = self.parts.sessions.get_mut(target.subscriber).expect("looked up by the caller");
        let zone = &self.parts.config.zones[usize::from(slot.zone)];
        if qos == QoS::AtMostOnce && slot.conn == NONE && !zone.mqueue_store_qos0 {
            return Some(DropReason::OfflineQos0);
        }
        if qos == QoS::AtMostOnce && self.parts.pressure != MemoryPressure::None {
            return Some(DropReason::MemoryPressure);
        }
        let of = (publishing.guid, self.shared);
        if qos > QoS::AtMostOnce
            && let Some(claimed) = &mut slot.claimed
            && claimed.comes(self.now, of, slot.session.next_dseq(), self.now < self.parts.reunited_until)
        {
            // It was handed on by the node that the session was at.
            self.parts.ledger.matched -= 1;
            return None;
        }
        let block = &mut self.parts.scratch.block;
        let message = self.message.get_or_insert_with(|| publishing.to_message(block)).clone();
        let stored = slot.stored;
        let op = Op::Enqueue {
            message,
            qos,
            retain: target.retain_as_published && publishing.retain && !planted!(RetainAsPublishedLost),
            identifiers: Identifiers::from_slice(target.identifiers),
            priority: zone.priority(publishing.topic),
            shared: self.shared,
        };
        let applied =
            enqueue(slot, op, &zone.session, stored.map(|id| (id, zone.durability, &mut *self.parts.journal)));
        if slot.conn != NONE {
            let conn = slot.conn;
            let c = self.parts.conns[conn as usize].as_mut().expect("a session's connection is in its slot");
            pump(self.now, slot, c, self.parts.ledger, self.parts.pool, self.parts.journal, &zone.session);
            self.wrote(conn, target.subscriber);
        }
        if let Applied::Dropped(Dropped { full, .. }) = applied {
            // Older ones, to make room for this one.
            self.parts.ledger.drop(DropReason::QueueFull, u64::from(full));
            self.tell(target.subscriber, Fate::Dropped(DropReason::QueueFull));
        }
        None
    }

    #[inline]
    fn tell(&mut self, subscriber: u32, fate: Fate) {
        if self.parts.config.hears(fate.hook()) {
            self.push_event(subscriber, fate);
        }
    }

    #[cold]
    fn push_event(&mut self, subscriber: u32, fate: Fate) {
        let Some(slot) = self.parts.sessions.get(subscriber) else { return };
        let (config, hook) = (self.parts.config, fate.hook());
        let client = slot.session.client().as_str();
        let topic = core::str::from_utf8(self.publishing.topic).ok();
        let traced = config.traces.wants(client, topic);
        if !traced && !config.hooks.has(hook) {
            return;
        }
        let (reason, qos, dropped) = match fate {
            Fate::Delivered(qos) => (ReasonCode::Success, Some(qos), None),
            Fate::Dropped(dropped) => (dropped.code(), None, Some(dropped)),
        };
        // What has just been put behind others waits as they do.
        let waits = qos.is_some() && slot.session.queue_len() > 0;
        let (client, topic) = (client.into(), topic.map(Into::into));
        let event = Event { hook, conn: None, client, topic, reason, qos, waits, dropped, traced };
        self.out.push(Output::Event(Box::new(event)));
    }
}

/// What becomes of a message for one session.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Delivered(QoS),
    Dropped(DropReason),
}

impl Fate {
    fn hook(self) -> Hook {
        match self {
            Fate::Delivered(_) => Hook::MessageDeliver,
            Fate::Dropped(_) => Hook::MessageDropped,
        }
    }
}

/// The incoming packet, if this target gets exactly the same bytes.
#[inline]
fn same_kind<'a>(publishing: &Publishing<'a>, v5: bool, retain: bool, head_only: bool) -> Option<&'a [u8]> {
    match publishing.verbatim {
        Some((frame, version)) if !retain && !head_only && (version == ProtocolVersion::V5) == v5 => Some(frame),
        _ => None,
    }
}

/// Applies [`Op::Enqueue`], and records it if the session is stored.
pub(crate) fn enqueue(
    slot: &mut SessionSlot,
    op: Op<'_>,
    limits: &SessionLimits,
    stored: Option<(SessionId, Durability, &mut Journal)>,
) -> Applied {
    let (Some((session, durability, journal)), Op::Enqueue { message, qos, retain, identifiers, priority, shared }) =
        (stored, &op)
    else {
        return slot.session.apply(op, limits);
    };
    // What the server says of itself is not stored, and no QoS 0; but what had to go for it is not there any more.
    let kept = message.id() != MessageId::NONE && *qos > QoS::AtMostOnce;
    let (message, identifiers) = (message.clone(), identifiers.clone());
    let (qos, retain, priority, shared) = (*qos, *retain, *priority, *shared);
    let mut given_up = Vec::new();
    let applied = slot.session.apply_noting(op, limits, &mut given_up);
    let delivery = DeliveryRecord {
        message: message.id(),
        dseq: slot.session.last_dseq(),
        qos,
        retain,
        shared,
        identifiers,
        priority,
        sent: false,
        released: false,
    };
    if kept {
        journal.record_with(&Record::Enqueue { session, delivery }, &message, durability);
    }
    for dseq in given_up.into_iter().filter(|_| !planted!(DropNotStored)) {
        journal.record(&Record::Drop { session, dseq }, Durability::Memory);
    }
    applied
}

/// Moves what the session has to send into the connection's output, within the client's window.
pub(crate) fn pump(
    now: Instant,
    slot: &mut SessionSlot,
    c: &mut Conn,
    ledger: &mut Ledger,
    pool: &mut BufferPool,
    journal: &mut Journal,
    limits: &SessionLimits,
) {
    if slot.stored.is_some() && journal.state() == StoreState::Failed {
        // Its connection is about to end: what is not stored is not sent either.
        return;
    }
    while c.out.len() < OUTPUT_HIGH_BYTES {
        let mut expired = Vec::new();
        let next = slot.session.next_send(now, usize::from(c.receive_maximum), &mut expired);
        ledger.drop(DropReason::Expired, expired.len() as u64);
        if let Some(session) = slot.stored.filter(|_| !planted!(ExpiredNotStored)) {
            // The time that is stored is behind: without this they might come again, after later ones.
            for dseq in expired.into_iter().flatten() {
                journal.expired(session, dseq, c, slot.conn);
            }
        }
        let Some(outgoing) = next else { return };
        let delivery = outgoing.delivery;
        let dup = match outgoing.kind {
            newtmq_session::OutgoingKind::Publish { dup } => dup,
            newtmq_session::OutgoingKind::Pubrel => {
                let packet_id = delivery.packet_id.expect("PUBREL belongs to QoS 2");
                let (kind, reason) = (newtmq_mqtt::PacketType::Pubrel, newtmq_mqtt::ReasonCode::Success);
                ledger.traffic.packets_sent[kind as usize] += 1;
                if slot.stored.is_some() {
                    journal.bar(c, slot.conn);
                }
                c.out.encode(pool, |bytes| newtmq_mqtt::encode_ack(kind, packet_id, reason, c.version, bytes));
                continue;
            }
        };
        if delivery.qos == QoS::ExactlyOnce && slot.stored.is_some() {
            // Its identifier may not come to mean another message.
            journal.bar(c, slot.conn);
        }
        let message = &delivery.message;
        let frame = PublishOut {
            dup,
            qos: delivery.qos,
            retain: delivery.retain,
            topic: message.topic(),
            packet_id: delivery.packet_id,
            topic_alias: None,
            message_expiry_interval: message.remaining_expiry(now),
            subscription_identifiers: delivery.identifiers.as_slice(),
            forwardable: message.forwardable(),
            payload: message.payload(),
        };
        let written = write_publish(c, frame, Some(message), pool);
        if written {
            ledger.traffic.sent_message(delivery.qos);
        }
        let (packet_id, dseq) = (delivery.packet_id, delivery.dseq);
        match (written, packet_id) {
            (true, None) => ledger.delivered += 1,
            (true, Some(_)) => {}
            (false, None) => ledger.drop(DropReason::PacketTooLarge, 1),
            // Discarded without sending, and as if it had been completed [MQTT-3.1.2-25].
            (false, Some(packet_id)) => {
                slot.session.apply(Op::Discard { packet_id }, limits);
                if let Some(session) = slot.stored {
                    journal.record(&Record::Drop { session, dseq }, Durability::Memory);
                }
                ledger.drop(DropReason::PacketTooLarge, 1);
            }
        }
    }
}

/// Encodes a PUBLISH for this client: its mountpoint is taken off, its Topic Aliases are used, its Maximum Packet Size is kept. A large payload of
/// `message` is shared. Says whether it was written.
pub(crate) fn write_publish(
    c: &mut Conn,
    mut frame: PublishOut<'_>,
    message: Option<&Message>,
    pool: &mut BufferPool,
) -> bool {
    if c.features.has(Feature::Mounted) {
        frame.topic = unmounted(c, frame.topic);
    }
    if c.version == ProtocolVersion::V5 && c.alias_maximum() > 0 {
        frame = with_alias(c, frame);
    }
    if frame.encoded_len(c.version) as u64 > u64::from(c.max_packet_size) && !planted!(PacketSizeIgnored) {
        return false;
    }
    let version = c.version;
    match message {
        Some(message) if frame.payload.len() >= SHARE_PAYLOAD_BYTES => {
            c.out.encode(pool, |bytes| frame.encode_head(version, bytes));
            c.out.push_payload(message);
        }
        _ => c.out.encode(pool, |bytes| frame.encode(version, bytes)),
    }
    true
}

/// The frame with its topic's alias, if it has one or gets one by this frame. An alias must not be set by a packet that
/// is not sent, so a frame that does not fit with a new alias goes without.
fn with_alias<'a>(c: &mut Conn, mut frame: PublishOut<'a>) -> PublishOut<'a> {
    const ALIAS_BYTES: usize = 3;
    // The two lengths in front may grow by a byte each.
    let growth = ALIAS_BYTES + 2;
    if frame.encoded_len(c.version) + growth > c.max_packet_size as usize {
        let shrinks = frame.topic.len() >= growth && c.rare().aliases_out.contains_key(frame.topic);
        if !shrinks {
            return frame;
        }
    }
    let known;
    (frame.topic_alias, known) = alias_for(c, frame.topic);
    if known {
        frame.topic = &[];
    }
    frame
}

/// The alias of a topic toward this client, and whether the client knows it already. The first topics get the aliases
/// (section 3.3.2.3.4).
fn alias_for(c: &mut Conn, topic: &[u8]) -> (Option<core::num::NonZeroU16>, bool) {
    let rare = c.rare();
    if let Some(alias) = rare.aliases_out.get(topic) {
        return (core::num::NonZeroU16::new(*alias), true);
    }
    let next = rare.aliases_out.len() + 1;
    let maximum = usize::from(rare.alias_maximum);
    if next > maximum && !planted!(AliasAboveMaximum, next == maximum + 1) {
        return (None, false);
    }
    rare.aliases_out.insert(topic.into(), next as u16);
    (core::num::NonZeroU16::new(next as u16), false)
}
