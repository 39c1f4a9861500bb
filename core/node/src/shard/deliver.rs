//! From a message to everybody who gets it: subscriptions, shared groups, fan-outs that take several calls.

use std::sync::Arc;

use newtmq_base::{ConnId, Instant, Rng};
use newtmq_mqtt::{PacketId, PacketType, ReasonCode, TopicName};
use newtmq_session::Message;
use newtmq_topic::{Fit, GroupKey, Matched, Memo, Subscription, SubscriptionTable};

use super::fan::{Fan, Parts, Publishing};
use super::{Shard, is_open};
use crate::hooks::Hook;
use crate::io::{Outbox, Output};
use crate::outbuf::{OUTPUT_HIGH_BYTES, OUTPUT_OWN_BYTES};

/// Most subscriptions that one call delivers to; the rest waits for the next Tick, so that no client has to wait long
/// for another one's fan-out.
pub(crate) const FAN_OUT_STEP: usize = 4096;

/// Where a step ends that starts at `from`: never between the overlapping subscriptions of one session, which get one copy.
fn step_end(subscriptions: &[Subscription], from: usize) -> usize {
    let mut end = subscriptions.len().min(from + FAN_OUT_STEP);
    while end < subscriptions.len() && subscriptions[end].subscriber == subscriptions[end - 1].subscriber {
        end += 1;
    }
    end
}

/// A fan-out that goes on at the next Tick.
#[derive(Debug)]
pub(crate) struct FanOut {
    message: Message,
    matched: Arc<Matched>,
    next: usize,
    publisher: u32,
    born_before: u64,
    /// The publisher's connection, held until the end, and what it gets then.
    conn: Option<ConnId>,
    ack: Option<Acknowledgement>,
}

/// An acknowledgement that is owed.
pub(crate) type Acknowledgement = (PacketType, PacketId, ReasonCode);

/// What a publish came to.
pub(crate) struct Delivered {
    /// Whether anybody was subscribed.
    pub(crate) matched: bool,
    /// Whether the rest of the fan-out is left for later.
    pub(crate) unfinished: bool,
    /// Slots of connections whose output is above the limit.
    pub(crate) congested: Vec<u32>,
}

impl Shard {
    /// Delivers to all that match. `topic` is valid or, with a memo of the same topic, was valid then.
    pub(crate) fn deliver(
        &mut self,
        now: Instant,
        publishing: Publishing<'_>,
        memo: &mut Memo,
        conn: Option<ConnId>,
        ack: Option<Acknowledgement>,
        out: &mut Outbox,
    ) -> Delivered {
        self.ledger.accepted += 1;
        let born_before = self.next_born();
        self.spent += 1;
        if self.topics.recall(*memo, publishing.topic).is_none() {
            let topic = TopicName::from_bytes(publishing.topic).expect("the caller validated it");
            self.topics.matches(topic, memo);
        }
        let (topics, _, parts) = self.parts();
        let matched = topics.recall(*memo, publishing.topic).expect("matched just before");
        let count = matched.subscriptions.len();
        let step = step_end(&matched.subscriptions, 0);
        let mut fan =
            Fan { now, parts, out, publishing, shared: false, message: None, congested: Vec::new(), born_before };
        fan.run(&matched.subscriptions[..step]);
        let (congested, message) = (fan.congested, fan.message);
        let spent = matched.groups.len() + step;
        let mut delivered = Delivered { matched: count > 0, unfinished: step < count, congested };
        // Group members and what is left need the table again; plain fan-outs go without counting references.
        if !matched.groups.is_empty() || delivered.unfinished {
            let matched = Arc::clone(matched);
            delivered.matched = true;
            if delivered.unfinished {
                let message = message.unwrap_or_else(|| publishing.to_message(&mut self.scratch.block));
                let publisher = publishing.publisher;
                let next = step;
                self.jobs.push_back(FanOut {
                    message,
                    matched: Arc::clone(&matched),
                    next,
                    publisher,
                    born_before,
                    conn,
                    ack,
                });
            }
            self.deliver_to_groups(now, publishing, &matched.groups, &mut delivered.congested, out);
        }
        if !delivered.matched {
            self.ledger.unmatched += 1;
            let topic = core::str::from_utf8(publishing.topic).ok();
            let reason = ReasonCode::NoMatchingSubscribers;
            self.tell(Hook::MessageDropped, publishing.publisher, topic, reason, out);
        }
        self.spent += spent;
        delivered
    }

    /// The shard's parts that a fan-out borrows at the same time.
    fn parts(&mut self) -> (&mut SubscriptionTable, &mut Rng, Parts<'_>) {
        let Shard { topics, rng, config, sessions, conns, ledger, pool, scratch, .. } = self;
        (topics, rng, Parts { config, sessions, conns, ledger, pool, scratch })
    }

    /// Each shared group gets one copy (section 4.8.2).
    fn deliver_to_groups(
        &mut self,
        now: Instant,
        publishing: Publishing<'_>,
        groups: &[GroupKey],
        congested: &mut Vec<u32>,
        out: &mut Outbox,
    ) {
        let born_before = self.next_born();
        for group in groups {
            let (topics, rng, parts) = self.parts();
            let publisher_hash = u64::from(publishing.publisher);
            let picked = topics.pick(*group, parts.config.shared_strategy, rng, publisher_hash, |subscriber| {
                let Some(slot) = parts.sessions.get(subscriber.0) else { return Fit::Offline };
                let Some(Some(c)) = parts.conns.get(slot.conn as usize) else { return Fit::Offline };
                let busy = c.stalled
                    || c.out.len() >= OUTPUT_HIGH_BYTES
                    || slot.session.outstanding() >= usize::from(c.receive_maximum);
                if busy { Fit::Busy } else { Fit::Ready }
            });
            let Some(subscription) = picked else { continue };
            let congested_before = core::mem::take(congested);
            let mut fan = Fan {
                now,
                parts,
                out: &mut *out,
                publishing,
                shared: true,
                message: None,
                congested: congested_before,
                born_before,
            };
            fan.run(core::slice::from_ref(&subscription));
            *congested = fan.congested;
        }
    }

    /// Lets those go on whose turn ended in an earlier call, and does one step of the oldest unfinished fan-out.
    pub(crate) fn work(&mut self, now: Instant, out: &mut Outbox) {
        for conn in core::mem::take(&mut self.turns) {
            self.resume(now, conn, out);
        }
        if let Some(mut job) = self.jobs.pop_front() {
            let end = step_end(&job.matched.subscriptions, job.next);
            let (_, _, parts) = self.parts();
            let mut fan = Fan {
                now,
                parts,
                out: &mut *out,
                publishing: Publishing::of_message(&job.message, job.publisher),
                shared: false,
                message: Some(job.message.clone()),
                congested: Vec::new(),
                born_before: job.born_before,
            };
            fan.run(&job.matched.subscriptions[job.next..end]);
            let congested = fan.congested;
            if let Some(conn) = job.conn {
                self.wait_for(now, conn, &congested);
            }
            job.next = end;
            if job.next < job.matched.subscriptions.len() {
                self.jobs.push_back(job);
            } else if let Some(conn) = job.conn {
                self.fan_out_done(now, conn, job.ack, out);
            }
        }
    }

    fn fan_out_done(&mut self, now: Instant, conn: ConnId, ack: Option<Acknowledgement>, out: &mut Outbox) {
        let Some(c) = self.conn_mut(conn) else { return };
        c.rare().fan_out = false;
        if !is_open(c) {
            return;
        }
        if let Some((kind, packet_id, reason)) = ack {
            self.send_ack(now, conn, kind, packet_id, reason, out);
        }
        self.resume(now, conn, out);
    }

    /// Lets a held connection go on, unless something else still holds it.
    pub(crate) fn resume(&mut self, now: Instant, conn: ConnId, out: &mut Outbox) {
        let Some(c) = self.conn_mut(conn) else { return };
        let waits = c.waits();
        let blocked =
            c.rare.as_ref().is_some_and(|rare| rare.fan_out || rare.pending.is_some() || (waits && rare.unread));
        if !c.held || blocked {
            return;
        }
        if c.out.len() >= OUTPUT_OWN_BYTES {
            self.wait_for_itself(now, conn);
            return;
        }
        if let Some(rare) = &mut c.rare {
            rare.unread = false;
        }
        c.held = false;
        c.heard = now;
        out.push(Output::Resume(conn));
    }

    /// Publishes a message that no connection waits for: the will of the session `publisher`.
    pub(crate) fn publish_message(&mut self, now: Instant, message: &Message, publisher: u32, out: &mut Outbox) {
        if message.retain() {
            self.retain(now, &Publishing::of_message(message, publisher));
        }
        let publishing = Publishing::of_message(message, publisher);
        // Nobody is held for a will: what does not fit is dropped or queued as usual.
        let _ = self.deliver(now, publishing, &mut Memo::default(), None, None, out);
    }
}
