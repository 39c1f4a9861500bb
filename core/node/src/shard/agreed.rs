//! Retained messages that the whole cluster agrees on. What a topic has is decided by the order of a log that the control
//! plane follows; this shard has what is applied of it for its topics. A publish with RETAIN waits until it is in the log, and
//! goes to subscribers afterwards: so it is on its way to whoever does not read it.
//!
//! The index of its entry tells which of two messages of a topic is the later one, wherever they come from.

use bytes::Bytes;
use newtmq_base::{ConnId, Instant, InvalidField, Put, RequestId, Take, planted};
use newtmq_mqtt::{Decoder, Frame, PacketId, QoS};
use newtmq_session::{Message, MessageId, MessageParts};
use newtmq_topic::Memo;

use super::deliver::Origin;
use super::fan::Publishing;
use super::retain::{Retained, is_own};
use super::{Next, Shard, is_open};
use crate::conn::{Pending, Stage};
use crate::control::{RetainedNews, RetainedOutcome, ToControl};
use crate::io::{Outbox, Output};
use crate::place::Stamp;

/// Who waits for the answer of the control plane.
#[derive(Debug)]
pub(crate) enum Retaining {
    /// A packet of a connection, put aside there.
    Conn(ConnId),
    /// A will or a message of an operator, and the session that it is of.
    Message(Message, u32, u64),
}

/// A message as the log has it: its topic is beside it.
#[derive(Debug)]
pub(crate) struct Kept<'a> {
    qos: QoS,
    /// From when it was applied, in nanoseconds; 0 for no end.
    pub(crate) lives: u64,
    properties: &'a [u8],
    payload: &'a [u8],
}

impl Kept<'_> {
    fn encode(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(self.payload.len() + self.properties.len() + 16);
        Put(&mut bytes).byte(self.qos as u8).number(self.lives).bytes(self.properties);
        bytes.extend_from_slice(self.payload);
        bytes.into()
    }

    /// What is in a log.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Kept<'_>, InvalidField> {
        let mut take = Take(bytes);
        let qos = QoS::from_bits(take.byte()?).ok_or(InvalidField("no QoS"))?;
        let lives = take.number()?;
        let properties = take.bytes()?;
        Ok(Kept { qos, lives, properties, payload: take.0 })
    }
}

impl Shard {
    /// Whether the whole cluster agrees on the retained message of a topic.
    pub(crate) fn agrees_on(&self, topic: &str) -> bool {
        self.agreed.shares && !is_own(topic)
    }

    /// Puts a publish aside until its retained message is in the log.
    pub(super) fn retain_first(
        &mut self,
        now: Instant,
        conn: ConnId,
        frame: Frame<'_>,
        publishing: &Publishing<'_>,
        packet_id: Option<PacketId>,
        out: &mut Outbox,
    ) -> Option<Next> {
        let topic = core::str::from_utf8(publishing.topic).expect("validated by the caller");
        if !publishing.retain || !self.agrees_on(topic) || planted!(MatchedBeforeRetained) {
            return None;
        }
        let key = self.live(conn).session;
        if let (QoS::ExactlyOnce, Some(packet_id)) = (publishing.qos, packet_id)
            && self.slot(key).session.is_awaiting_rel(packet_id)
        {
            // It was retained when it came first; another one may have been since.
            return None;
        }
        self.ask_to_retain(now, publishing, Retaining::Conn(conn), out);
        let pending = Pending { request: NO_REQUEST, stage: Stage::Retain, packet: frame.bytes.into() };
        self.live(conn).rare().pending = Some(pending);
        Some(Next::Hold)
    }

    /// The same for a message that no connection waits for.
    pub(super) fn retain_message(&mut self, now: Instant, message: &Message, publisher: u32, out: &mut Outbox) {
        let born = self.sessions.get(publisher).map_or(0, |slot| slot.born);
        let of = Retaining::Message(message.clone(), publisher, born);
        self.ask_to_retain(now, &Publishing::of_message(message, publisher), of, out);
    }

    /// As a careless publisher would: it goes to subscribers before it is known whether it is retained.
    pub(super) fn retain_unasked(&mut self, now: Instant, message: &Message, out: &mut Outbox) {
        let publishing = Publishing::of_message(message, crate::conn::NONE);
        let topic = message.topic_str().into();
        let message = self.to_keep(now, &publishing);
        out.push(Output::Control(ToControl::Retain { number: 0, topic, message }));
    }

    fn ask_to_retain(&mut self, now: Instant, publishing: &Publishing<'_>, of: Retaining, out: &mut Outbox) {
        self.agreed.asked += 1;
        let number = self.agreed.asked;
        self.agreed.retaining.insert(number, of);
        let topic: Box<str> = core::str::from_utf8(publishing.topic).expect("validated by the caller").into();
        let message = self.to_keep(now, publishing);
        out.push(Output::Control(ToControl::Retain { number, topic, message }));
    }

    /// What the log is to have of it; none if it deletes: what is too large leaves nothing of what was there before either.
    fn to_keep(&self, now: Instant, publishing: &Publishing<'_>) -> Option<Bytes> {
        let limits = &self.config.retained;
        let is_large = limits.max_payload_size > 0 && publishing.payload.len() > limits.max_payload_size;
        if publishing.payload.is_empty() && !planted!(AgreedDeleteKept) || is_large {
            return None;
        }
        let mut expires = publishing.expires;
        if !limits.expiry_interval.is_zero() {
            expires = expires.min(now + limits.expiry_interval);
        }
        let left = (expires - now).as_nanos();
        let lives = if expires == Instant::NEVER { 0 } else { u64::try_from(left).unwrap_or(u64::MAX).max(1) };
        let Publishing { qos, forwardable, payload, .. } = *publishing;
        Some(Kept { qos, lives, properties: forwardable, payload }.encode())
    }

    /// News of the log.
    pub(crate) fn on_retained_news(&mut self, now: Instant, news: &RetainedNews, out: &mut Outbox) {
        match news {
            RetainedNews::Answer { number, outcome } => self.on_retained(now, *number, *outcome, out),
            RetainedNews::Share => self.share(now, out),
            RetainedNews::Set { index, topic, message, expires } => {
                self.set_agreed(*index, topic, message.as_deref(), *expires);
            }
            RetainedNews::Clear => {
                let agreed = |kept: &&Retained| kept.stamp.index().is_some();
                let topics: Vec<String> = self.retained.iter().filter(agreed).map(topic_of).collect();
                for topic in topics {
                    self.set_agreed(0, &topic, None, Instant::NEVER);
                }
                (self.agreed.need, self.agreed.seen) = (0, 0);
                for ((_, number), (from, mut read)) in core::mem::take(&mut self.agreed.parked) {
                    read.index = 1;
                    self.agreed.parked.insert((1, number), (from, read));
                }
            }
            RetainedNews::Known { need, upto, alone } => {
                self.agreed.need = self.agreed.need.max(*need);
                self.agreed.seen = self.agreed.seen.max(*upto);
                self.agreed.alone = *alone;
                let seen = self.agreed.seen;
                while let Some(entry) = self.agreed.parked.first_entry().filter(|first| *alone || first.key().0 <= seen)
                {
                    let (from, read) = entry.remove();
                    self.on_read(now, from, read, out);
                }
            }
        }
    }

    /// What this shard has by itself is readable here until the log has something for its topic.
    fn share(&mut self, now: Instant, out: &mut Outbox) {
        if core::mem::replace(&mut self.agreed.shares, true) {
            return;
        }
        let of_all = |kept: &&Retained| !is_own(kept.message.topic_str()) && kept.stamp.index().is_none();
        let messages: Vec<Message> = self.retained.iter().filter(of_all).map(|kept| kept.message.clone()).collect();
        for message in messages {
            self.bring(now, &message, out);
        }
    }

    fn set_agreed(&mut self, index: u64, topic: &str, message: Option<&[u8]>, expires: Instant) {
        if self.agreed.brought.remove(topic) {
            // The log has something for this topic: what this shard has stored by itself is not needed any more.
            self.note_retained(topic, None);
        }
        let Some(Ok(kept)) = message.map(Kept::decode) else {
            if let Some(old) = self.retained.remove(topic) {
                self.retained_expiry.remove(&(old.message.expires(), old.stamp));
                self.retained_gone();
            }
            return;
        };
        let Kept { qos, properties: forwardable, payload, .. } = kept;
        // It has a name, for deliveries of it are stored with their sessions.
        let id = if planted!(AgreedUnnamed) { MessageId::NONE } else { self.journal.message_id() };
        let topic = topic.as_bytes();
        let parts = MessageParts { id, topic, forwardable, payload, qos, retain: true, expires, stretched: false };
        let message = Message::new(&parts, &mut self.scratch.block);
        match self.retained.set(Retained { message, stamp: Stamp::of_index(index), segment: 0 }) {
            Some(old) => _ = self.retained_expiry.remove(&(old.message.expires(), old.stamp)),
            None => self.shares.retained.used += 1,
        }
    }

    /// A publish goes on that was put aside.
    fn on_retained(&mut self, now: Instant, number: u64, outcome: RetainedOutcome, out: &mut Outbox) {
        let Some(of) = self.agreed.retaining.remove(&number) else { return };
        let stamp = match outcome {
            RetainedOutcome::At(index) => Stamp::of_index(index),
            RetainedOutcome::NotRetained | RetainedOutcome::Refused => Stamp::NONE,
        };
        let conn = match of {
            Retaining::Conn(conn) => conn,
            Retaining::Message(message, publisher, born) => {
                let is_there = self.sessions.get(publisher).is_some_and(|slot| slot.born == born);
                let publisher = if is_there { publisher } else { GONE };
                let publishing = Publishing { stamp, ..Publishing::of_message(&message, publisher) };
                let _ = self.deliver(now, publishing, &mut Memo::default(), Origin::Server, None, out);
                return;
            }
        };
        // Whose connection ends is not acknowledged.
        let Some(c) = self.conn_mut(conn).filter(|c| is_open(c)) else { return };
        let version = c.version;
        let is_it = |pending: &mut Pending| pending.stage == Stage::Retain;
        let Some(pending) = c.rare().pending.take_if(is_it) else { return };
        let mut bytes = &pending.packet[..];
        let mut decoder = Decoder::new();
        let Ok(Some(frame)) = decoder.next(&mut bytes, u32::MAX) else {
            unreachable!("the packet was decoded before it was put aside");
        };
        let Ok(publish) = frame.publish(version) else { unreachable!("only a PUBLISH waits for this") };
        let is_refused = outcome == RetainedOutcome::Refused && publish.qos > QoS::AtMostOnce;
        let next = if is_refused && !planted!(UnretainedAcknowledged) {
            // It is not known whether it is retained.
            self.ledger.unretained += 1;
            self.refuse_unkept(now, conn, publish.qos, publish.packet_id, out)
        } else {
            self.agreed.stamp = stamp;
            let next = self.on_other_publish(now, conn, frame, &publish, Some(Stage::Retain), out);
            self.agreed.stamp = Stamp::NONE;
            next
        };
        if next == Next::Go {
            self.resume(now, conn, out);
        }
    }

    /// What this shard had stored by itself before it was in a cluster goes to the log.
    pub(super) fn bring(&mut self, now: Instant, message: &Message, out: &mut Outbox) {
        let topic: Box<str> = message.topic_str().into();
        let publishing = Publishing::of_message(message, crate::conn::NONE);
        if let Some(message) = self.to_keep(now, &publishing) {
            self.agreed.brought.insert(topic.clone());
            out.push(Output::Control(ToControl::Bring { topic, message }));
        }
    }
}

fn topic_of(kept: &Retained) -> String {
    kept.message.topic_str().to_owned()
}

/// No hook is asked.
const NO_REQUEST: RequestId = RequestId(u64::MAX);
/// A publisher whose session has ended.
const GONE: u32 = u32::MAX - 1;
