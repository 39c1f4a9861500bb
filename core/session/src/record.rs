//! Operations as bytes, for the log. A record names its session by a number that the node gives it; a message is named by
//! its id, its block is kept beside the records.
//!
//! A record is a tag, then its fields: numbers in groups of seven bits, texts with their length in front. What a later
//! version adds gets a new tag; a tag that is not known is an error that the reader counts.

mod parts;

use core::num::NonZeroU32;

use newtmq_base::{Instant, InvalidField, Put, Take};
use newtmq_mqtt::{OwnedTopicFilter, PacketId, QoS, RetainHandling, SubscribeOptions, TopicFilter};

use crate::message::MessageId;
use crate::op::AckKind;
use crate::queue::Identifiers;
pub use parts::{DeliveryRecord, HintRecord, Receivers, SnapshotRecord, WillRecord};

/// Names a session in the log of its node; never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// A durable change, with everything that a replay needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A session begins.
    Create {
        /// Which.
        session: SessionId,
        /// Client Identifier.
        client: String,
        /// Name of its zone.
        zone: String,
    },
    /// A session has ended.
    End {
        /// Which.
        session: SessionId,
    },
    /// [`crate::Op::Claim`]
    Claim {
        /// Whose.
        session: SessionId,
        /// Session Expiry Interval in seconds.
        expiry_interval: u32,
    },
    /// [`crate::Op::Detach`]
    Detach {
        /// Whose.
        session: SessionId,
        /// Session Expiry Interval in seconds.
        expiry_interval: u32,
        /// When, in the node's time: both deadlines count from it.
        at: Instant,
    },
    /// [`crate::Op::Subscribe`]
    Subscribe {
        /// Whose.
        session: SessionId,
        /// The filter.
        filter: OwnedTopicFilter,
        /// Granted options.
        options: SubscribeOptions,
        /// Subscription Identifier.
        identifier: Option<NonZeroU32>,
    },
    /// [`crate::Op::Unsubscribe`]
    Unsubscribe {
        /// Whose.
        session: SessionId,
        /// The filter.
        filter: OwnedTopicFilter,
    },
    /// Retained messages are on their way to a subscription, or no longer.
    Reading {
        /// Whose.
        session: SessionId,
        /// The filter.
        filter: OwnedTopicFilter,
        /// They have all been sent.
        done: bool,
    },
    /// [`crate::Op::Enqueue`]
    Enqueue {
        /// Whose.
        session: SessionId,
        /// What.
        delivery: DeliveryRecord,
    },
    /// [`crate::Op::Ack`]
    Ack {
        /// Whose.
        session: SessionId,
        /// Packet Identifier.
        packet_id: PacketId,
        /// Which acknowledgement.
        kind: AckKind,
    },
    /// A delivery was given up: the queue was full, the packet too large, or it expired.
    Drop {
        /// Whose.
        session: SessionId,
        /// Its place in the order of deliveries.
        dseq: u64,
    },
    /// [`crate::Op::PubrecOut`]
    PubrecOut {
        /// Whose.
        session: SessionId,
        /// Packet Identifier.
        packet_id: PacketId,
    },
    /// [`crate::Op::Qos2In`]
    Qos2In {
        /// Whose.
        session: SessionId,
        /// Packet Identifier.
        packet_id: PacketId,
    },
    /// [`crate::Op::Qos2Rel`]
    Qos2Rel {
        /// Whose.
        session: SessionId,
        /// Packet Identifier.
        packet_id: PacketId,
    },
    /// [`crate::Op::Will`]
    Will {
        /// Whose.
        session: SessionId,
        /// The will; none to clear it.
        will: Option<WillRecord>,
    },
    /// [`crate::Op::Keep`]
    Keep {
        /// Whose.
        session: SessionId,
        /// What.
        bytes: Vec<u8>,
    },
    /// A retained message, or the deletion of one.
    Retain {
        /// Topic Name.
        topic: String,
        /// The message and when it expires; none for a deletion.
        message: Option<(MessageId, Instant)>,
    },
    /// A QoS 2 message of the client went to other nodes, and not all of them are known to have it: when the client repeats it,
    /// it goes there again under this name.
    Forwarding {
        /// Whose.
        session: SessionId,
        /// Packet Identifier that the client chose.
        packet_id: PacketId,
        /// The message's name among all nodes.
        guid: [u8; 16],
    },
    /// They all have it.
    Forwarded {
        /// Whose.
        session: SessionId,
        /// Packet Identifier that the client chose.
        packet_id: PacketId,
    },
    /// What a shard of another node has sent to a shard of this one is stored up to here, and not taken again.
    Mark {
        /// The shard of this node.
        own: u16,
        /// The other node.
        node: u64,
        /// Its shard.
        shard: u16,
        /// Its start.
        inc: u64,
        /// Number of the last message.
        upto: u64,
    },
    /// A QoS 2 message of another node has come to a shard, and is not taken again.
    Guid {
        /// The shard of this node.
        own: u16,
        /// The message's name among all nodes.
        guid: [u8; 16],
        /// For whom it came.
        receivers: Receivers,
    },
    /// A connection has attached to the session, as the directory of sessions numbers them.
    Epoch {
        /// Whose.
        session: SessionId,
        /// The number, in four parts.
        epoch: [u64; 4],
        /// That of the clean start with which the session began; zeros if it did not.
        clean: [u64; 4],
    },
    /// The session is on its way to another node, or not any more.
    Given {
        /// Whose.
        session: SessionId,
        /// Deliveries from this place in the order on did not go along; none if the session is here again.
        upto: Option<u64>,
    },
    /// The session is another node's: what is left of it here goes there.
    Gone {
        /// Whose.
        session: SessionId,
        /// The node.
        to: u64,
    },
    /// What a node has handed on of a session that was there before has come, up to this letter.
    Letter {
        /// Whose.
        session: SessionId,
        /// The node.
        node: u64,
        /// By which number the session came from there.
        epoch: [u64; 4],
        /// Of the letter.
        number: u64,
    },
    /// A message for stored sessions of another node waits for that node.
    Hint(Box<HintRecord>),
    /// It waits no longer.
    HintDone {
        /// Number of the hint.
        number: u64,
    },
    /// The node's time has come to this.
    Time {
        /// Since the node's first start, counting only while it ran.
        now: Instant,
    },
    /// Everything about a session; what came before counts no more.
    Snapshot(Box<SnapshotRecord>),
}

/// A record that cannot be read. Its session is as if the record were missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a record of the log cannot be read: {0}")]
pub struct InvalidRecord(&'static str);

impl From<InvalidField> for InvalidRecord {
    fn from(InvalidField(what): InvalidField) -> InvalidRecord {
        InvalidRecord(what)
    }
}

const CREATE: u8 = 1;
const END: u8 = 2;
const CLAIM: u8 = 3;
const DETACH: u8 = 4;
const SUBSCRIBE: u8 = 5;
const UNSUBSCRIBE: u8 = 6;
const ENQUEUE: u8 = 7;
const ACK: u8 = 8;
const DROP: u8 = 9;
const PUBREC_OUT: u8 = 10;
const QOS2_IN: u8 = 11;
const QOS2_REL: u8 = 12;
const WILL: u8 = 13;
const RETAIN: u8 = 14;
const TIME: u8 = 15;
const SNAPSHOT: u8 = 16;
const READING: u8 = 17;
const FORWARDING: u8 = 18;
const FORWARDED: u8 = 19;
const MARK: u8 = 20;
const GUID: u8 = 21;
const KEEP: u8 = 25;
/// With what a gateway keeps.
const SNAPSHOT_KEPT: u8 = 26;
const EPOCH: u8 = 22;
const GIVEN: u8 = 23;
const LETTER: u8 = 24;
const GONE: u8 = 29;
const HINT: u8 = 27;
const HINT_DONE: u8 = 28;

const PLAIN: u8 = 0;
const GROUP: u8 = 1;
const RELEASED: u8 = 2;

impl Record {
    /// Appends the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut put = Put(out);
        match self {
            Record::Create { session, client, zone } => put.tag(CREATE, *session).text(client).text(zone),
            Record::End { session } => put.tag(END, *session),
            Record::Claim { session, expiry_interval } => put.tag(CLAIM, *session).number(u64::from(*expiry_interval)),
            Record::Detach { session, expiry_interval, at } => {
                put.tag(DETACH, *session).number(u64::from(*expiry_interval)).number(at.as_nanos())
            }
            Record::Subscribe { session, filter, options, identifier } => {
                put.tag(SUBSCRIBE, *session).subscription(filter, *options, *identifier)
            }
            Record::Unsubscribe { session, filter } => put.tag(UNSUBSCRIBE, *session).text(filter.as_str()),
            Record::Reading { session, filter, done } => {
                put.tag(READING, *session).text(filter.as_str()).byte(u8::from(*done))
            }
            Record::Enqueue { session, delivery } => put.tag(ENQUEUE, *session).delivery(delivery),
            Record::Ack { session, packet_id, kind } => {
                put.tag(ACK, *session).number(u64::from(packet_id.get())).number(*kind as u64)
            }
            Record::Drop { session, dseq } => put.tag(DROP, *session).number(*dseq),
            Record::PubrecOut { session, packet_id } => {
                put.tag(PUBREC_OUT, *session).number(u64::from(packet_id.get()))
            }
            Record::Qos2In { session, packet_id } => put.tag(QOS2_IN, *session).number(u64::from(packet_id.get())),
            Record::Qos2Rel { session, packet_id } => put.tag(QOS2_REL, *session).number(u64::from(packet_id.get())),
            Record::Will { session, will } => put.tag(WILL, *session).will(will.as_ref()),
            Record::Keep { session, bytes } => put.tag(KEEP, *session).bytes(bytes),
            Record::Retain { topic, message } => {
                put.byte(RETAIN).text(topic);
                match message {
                    None => put.byte(0),
                    Some((message, expires)) => put.byte(1).number(message.0).number(expires.as_nanos()),
                }
            }
            Record::Forwarding { session, packet_id, guid } => {
                put.tag(FORWARDING, *session).number(u64::from(packet_id.get())).guid(guid)
            }
            Record::Forwarded { session, packet_id } => put.tag(FORWARDED, *session).number(u64::from(packet_id.get())),
            Record::Mark { own, node, shard, inc, upto } => put
                .byte(MARK)
                .number(u64::from(*own))
                .number(*node)
                .number(u64::from(*shard))
                .number(*inc)
                .number(*upto),
            Record::Guid { own, guid, receivers } => {
                put.byte(GUID).number(u64::from(*own)).guid(guid);
                match receivers {
                    Receivers::Plain => put.byte(PLAIN),
                    Receivers::Group(name) => put.byte(GROUP).text(name),
                    Receivers::Released => put.byte(RELEASED),
                }
            }
            Record::Epoch { session, epoch, clean } => {
                put.tag(EPOCH, *session);
                epoch.iter().chain(clean).for_each(|part| _ = put.number(*part));
                &mut put
            }
            Record::Given { session, upto } => put.tag(GIVEN, *session).number(upto.map_or(0, |upto| upto + 1)),
            Record::Gone { session, to } => put.tag(GONE, *session).number(*to),
            Record::Letter { session, node, epoch, number } => {
                put.tag(LETTER, *session).number(*node);
                epoch.iter().for_each(|part| _ = put.number(*part));
                put.number(*number)
            }
            Record::Hint(hint) => {
                put.byte(HINT).number(hint.number).number(hint.node).number(u64::from(hint.shard));
                match &hint.group {
                    None => put.byte(PLAIN),
                    Some(name) => put.byte(GROUP).text(name),
                };
                put.byte(hint.qos as u8 | u8::from(hint.retain) << 2).number(hint.expires.as_nanos()).bytes(&hint.body)
            }
            Record::HintDone { number } => put.byte(HINT_DONE).number(*number),
            Record::Time { now } => put.byte(TIME).number(now.as_nanos()),
            Record::Snapshot(snapshot) => match &snapshot.kept {
                None => put.tag(SNAPSHOT, snapshot.session).snapshot(snapshot),
                Some(kept) => put.tag(SNAPSHOT_KEPT, snapshot.session).snapshot(snapshot).bytes(kept),
            },
        };
    }

    /// Reads a record that [`Record::encode`] wrote.
    ///
    /// # Errors
    /// The bytes are none, or have something after their end.
    pub fn decode(bytes: &[u8]) -> Result<Record, InvalidRecord> {
        let mut take = Take(bytes);
        let record = take.record()?;
        take.end()?;
        Ok(record)
    }
}

/// Writes fields of records.
trait PutRecord {
    fn tag(&mut self, tag: u8, session: SessionId) -> &mut Self;
    fn guid(&mut self, guid: &[u8; 16]) -> &mut Self;
    fn subscription(
        &mut self,
        filter: &OwnedTopicFilter,
        options: SubscribeOptions,
        identifier: Option<NonZeroU32>,
    ) -> &mut Self;
    fn delivery(&mut self, delivery: &DeliveryRecord) -> &mut Self;
    fn will(&mut self, will: Option<&WillRecord>) -> &mut Self;
    fn snapshot(&mut self, snapshot: &SnapshotRecord) -> &mut Self;
}

impl PutRecord for Put<'_> {
    fn tag(&mut self, tag: u8, session: SessionId) -> &mut Self {
        self.byte(tag).number(session.0)
    }

    fn guid(&mut self, guid: &[u8; 16]) -> &mut Self {
        self.0.extend_from_slice(guid);
        self
    }

    fn subscription(
        &mut self,
        filter: &OwnedTopicFilter,
        options: SubscribeOptions,
        identifier: Option<NonZeroU32>,
    ) -> &mut Self {
        let flags = options.qos as u8
            | u8::from(options.no_local) << 2
            | u8::from(options.retain_as_published) << 3
            | (options.retain_handling as u8) << 4;
        self.text(filter.as_str()).byte(flags).number(u64::from(identifier.map_or(0, NonZeroU32::get)))
    }

    fn delivery(&mut self, delivery: &DeliveryRecord) -> &mut Self {
        let flags = delivery.qos as u8
            | u8::from(delivery.retain) << 2
            | u8::from(delivery.sent) << 3
            | u8::from(delivery.released) << 4
            | u8::from(delivery.shared) << 5;
        self.number(delivery.message.0).number(delivery.dseq).byte(flags).byte(delivery.priority);
        let identifiers = delivery.identifiers.as_slice();
        self.number(identifiers.len() as u64);
        for identifier in identifiers {
            self.number(u64::from(*identifier));
        }
        self
    }

    fn will(&mut self, will: Option<&WillRecord>) -> &mut Self {
        let Some(will) = will else { return self.byte(0) };
        let expiry = will.message_expiry_interval.map_or(0, |seconds| u64::from(seconds) + 1);
        self.byte(1).number(will.message.0).number(expiry).number(u64::from(will.delay_interval))
    }

    fn snapshot(&mut self, snapshot: &SnapshotRecord) -> &mut Self {
        self.text(&snapshot.client).text(&snapshot.zone).number(u64::from(snapshot.expiry_interval));
        match snapshot.detached {
            None => self.byte(0),
            Some(at) => self.byte(1).number(at.as_nanos()),
        };
        self.number(snapshot.next_dseq).number(snapshot.subscriptions.len() as u64);
        for (filter, options, identifier) in &snapshot.subscriptions {
            self.subscription(filter, *options, *identifier);
        }
        self.number(snapshot.deliveries.len() as u64);
        for delivery in &snapshot.deliveries {
            self.delivery(delivery);
        }
        self.number(snapshot.qos2_in.len() as u64);
        for packet_id in &snapshot.qos2_in {
            self.number(u64::from(packet_id.get()));
        }
        self.will(snapshot.will.as_ref())
    }
}

/// Reads fields of records.
trait TakeRecord {
    fn record(&mut self) -> Result<Record, InvalidRecord>;
    fn of_lanes(&mut self, tag: u8) -> Result<Record, InvalidRecord>;
    fn hint(&mut self) -> Result<HintRecord, InvalidRecord>;
    fn guid(&mut self) -> Result<[u8; 16], InvalidRecord>;
    fn filter(&mut self) -> Result<OwnedTopicFilter, InvalidRecord>;
    fn packet_id(&mut self) -> Result<PacketId, InvalidRecord>;
    fn ack_kind(&mut self) -> Result<AckKind, InvalidRecord>;
    fn subscription(&mut self) -> Result<(OwnedTopicFilter, SubscribeOptions, Option<NonZeroU32>), InvalidRecord>;
    fn delivery(&mut self) -> Result<DeliveryRecord, InvalidRecord>;
    fn will(&mut self) -> Result<Option<WillRecord>, InvalidRecord>;
    fn snapshot(&mut self, session: SessionId) -> Result<SnapshotRecord, InvalidRecord>;
}

impl TakeRecord for Take<'_> {
    fn record(&mut self) -> Result<Record, InvalidRecord> {
        let tag = self.byte()?;
        if tag == RETAIN {
            let topic = self.text()?.to_owned();
            let message = match self.flag()? {
                false => None,
                true => Some((MessageId(self.number()?), Instant::from_nanos(self.number()?))),
            };
            return Ok(Record::Retain { topic, message });
        }
        if tag == TIME {
            return Ok(Record::Time { now: Instant::from_nanos(self.number()?) });
        }
        if tag == HINT_DONE {
            return Ok(Record::HintDone { number: self.number()? });
        }
        if tag == HINT {
            return Ok(Record::Hint(Box::new(self.hint()?)));
        }
        if tag == MARK || tag == GUID {
            return self.of_lanes(tag);
        }
        let session = SessionId(self.number()?);
        Ok(match tag {
            CREATE => Record::Create { session, client: self.text()?.into(), zone: self.text()?.into() },
            END => Record::End { session },
            CLAIM => Record::Claim { session, expiry_interval: self.number32()? },
            DETACH => {
                Record::Detach { session, expiry_interval: self.number32()?, at: Instant::from_nanos(self.number()?) }
            }
            SUBSCRIBE => {
                let (filter, options, identifier) = self.subscription()?;
                Record::Subscribe { session, filter, options, identifier }
            }
            UNSUBSCRIBE => Record::Unsubscribe { session, filter: self.filter()? },
            READING => Record::Reading { session, filter: self.filter()?, done: self.flag()? },
            ENQUEUE => Record::Enqueue { session, delivery: self.delivery()? },
            ACK => Record::Ack { session, packet_id: self.packet_id()?, kind: self.ack_kind()? },
            DROP => Record::Drop { session, dseq: self.number()? },
            PUBREC_OUT => Record::PubrecOut { session, packet_id: self.packet_id()? },
            QOS2_IN => Record::Qos2In { session, packet_id: self.packet_id()? },
            QOS2_REL => Record::Qos2Rel { session, packet_id: self.packet_id()? },
            WILL => Record::Will { session, will: self.will()? },
            SNAPSHOT => Record::Snapshot(Box::new(self.snapshot(session)?)),
            SNAPSHOT_KEPT => {
                let mut snapshot = self.snapshot(session)?;
                snapshot.kept = Some(self.bytes()?.to_vec());
                Record::Snapshot(Box::new(snapshot))
            }
            KEEP => Record::Keep { session, bytes: self.bytes()?.to_vec() },
            FORWARDING => Record::Forwarding { session, packet_id: self.packet_id()?, guid: self.guid()? },
            EPOCH => {
                let mut parts = [0; 8];
                for part in &mut parts {
                    *part = self.number()?;
                }
                let [a, b, c, d, e, f, g, h] = parts;
                Record::Epoch { session, epoch: [a, b, c, d], clean: [e, f, g, h] }
            }
            LETTER => {
                let node = self.number()?;
                let epoch = [self.number()?, self.number()?, self.number()?, self.number()?];
                Record::Letter { session, node, epoch, number: self.number()? }
            }
            GONE => Record::Gone { session, to: self.number()? },
            GIVEN => Record::Given { session, upto: self.number()?.checked_sub(1) },
            FORWARDED => Record::Forwarded { session, packet_id: self.packet_id()? },
            _ => return Err(InvalidRecord("an unknown kind")),
        })
    }

    fn of_lanes(&mut self, tag: u8) -> Result<Record, InvalidRecord> {
        let own = self.number16()?;
        if tag == MARK {
            let (node, shard) = (self.number()?, self.number16()?);
            return Ok(Record::Mark { own, node, shard, inc: self.number()?, upto: self.number()? });
        }
        let guid = self.guid()?;
        let receivers = match self.byte()? {
            PLAIN => Receivers::Plain,
            GROUP => Receivers::Group(self.text()?.into()),
            RELEASED => Receivers::Released,
            _ => return Err(InvalidRecord("receivers of no known kind")),
        };
        Ok(Record::Guid { own, guid, receivers })
    }

    fn hint(&mut self) -> Result<HintRecord, InvalidRecord> {
        let (number, node, shard) = (self.number()?, self.number()?, self.number16()?);
        let group = match self.byte()? {
            PLAIN => None,
            GROUP => Some(self.text()?.into()),
            _ => return Err(InvalidRecord("receivers of no known kind")),
        };
        let flags = self.byte()?;
        let qos = QoS::from_bits(flags & 3).ok_or(InvalidRecord("QoS 3"))?;
        let expires = Instant::from_nanos(self.number()?);
        let body = self.bytes()?.to_vec();
        Ok(HintRecord { number, node, shard, group, qos, retain: flags & 4 != 0, expires, body })
    }

    fn guid(&mut self) -> Result<[u8; 16], InvalidRecord> {
        let (guid, rest) = self.0.split_first_chunk().ok_or(InvalidRecord("its end is missing"))?;
        self.0 = rest;
        Ok(*guid)
    }

    fn filter(&mut self) -> Result<OwnedTopicFilter, InvalidRecord> {
        let text = self.text()?;
        TopicFilter::new(text).map(Into::into).map_err(|_| InvalidRecord("a Topic Filter that is none"))
    }

    fn packet_id(&mut self) -> Result<PacketId, InvalidRecord> {
        let number = u16::try_from(self.number()?).ok().and_then(PacketId::new);
        number.ok_or(InvalidRecord("a Packet Identifier that is none"))
    }

    fn ack_kind(&mut self) -> Result<AckKind, InvalidRecord> {
        let kinds = [AckKind::Puback, AckKind::Pubcomp, AckKind::PubrecError];
        let number = self.number()?;
        kinds.into_iter().find(|kind| *kind as u64 == number).ok_or(InvalidRecord("an unknown acknowledgement"))
    }

    fn subscription(&mut self) -> Result<(OwnedTopicFilter, SubscribeOptions, Option<NonZeroU32>), InvalidRecord> {
        let filter = self.filter()?;
        let flags = self.byte()?;
        let options = SubscribeOptions {
            qos: QoS::from_bits(flags & 3).ok_or(InvalidRecord("QoS 3"))?,
            no_local: flags & 4 != 0,
            retain_as_published: flags & 8 != 0,
            retain_handling: match flags >> 4 {
                0 => RetainHandling::SendAtSubscribe,
                1 => RetainHandling::SendIfNew,
                2 => RetainHandling::DoNotSend,
                _ => return Err(InvalidRecord("an unknown Retain Handling")),
            },
        };
        Ok((filter, options, NonZeroU32::new(self.number32()?)))
    }

    fn delivery(&mut self) -> Result<DeliveryRecord, InvalidRecord> {
        let (message, dseq) = (MessageId(self.number()?), self.number()?);
        let (flags, priority) = (self.byte()?, self.byte()?);
        let count = self.count()?;
        let identifiers = (0..count).map(|_| self.number32()).collect::<Result<Vec<u32>, _>>()?;
        Ok(DeliveryRecord {
            message,
            dseq,
            qos: QoS::from_bits(flags & 3).ok_or(InvalidRecord("QoS 3"))?,
            retain: flags & 4 != 0,
            identifiers: Identifiers::from_slice(&identifiers),
            priority,
            sent: flags & 8 != 0,
            released: flags & 16 != 0,
            shared: flags & 32 != 0,
        })
    }

    fn will(&mut self) -> Result<Option<WillRecord>, InvalidRecord> {
        if !self.flag()? {
            return Ok(None);
        }
        let message = MessageId(self.number()?);
        let expiry = self.number()?.checked_sub(1);
        let message_expiry_interval =
            expiry.map(u32::try_from).transpose().map_err(|_| InvalidRecord("a number that is too large"))?;
        Ok(Some(WillRecord { message, message_expiry_interval, delay_interval: self.number32()? }))
    }

    fn snapshot(&mut self, session: SessionId) -> Result<SnapshotRecord, InvalidRecord> {
        let (client, zone, expiry_interval) = (self.text()?.into(), self.text()?.into(), self.number32()?);
        let detached = if self.flag()? { Some(Instant::from_nanos(self.number()?)) } else { None };
        let next_dseq = self.number()?;
        let count = self.count()?;
        let subscriptions = (0..count).map(|_| self.subscription()).collect::<Result<_, _>>()?;
        let count = self.count()?;
        let deliveries = (0..count).map(|_| self.delivery()).collect::<Result<_, _>>()?;
        let count = self.count()?;
        let qos2_in = (0..count).map(|_| self.packet_id()).collect::<Result<_, _>>()?;
        let will = self.will()?;
        Ok(SnapshotRecord {
            session,
            client,
            zone,
            expiry_interval,
            detached,
            next_dseq,
            subscriptions,
            deliveries,
            qos2_in,
            will,
            kept: None,
        })
    }
}
