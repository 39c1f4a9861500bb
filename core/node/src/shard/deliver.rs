//! From a message to everybody who gets it: subscriptions, shared groups, fan-outs that take several calls.

use std::sync::Arc;

use newtmq_base::{ConnId, Instant, Rng, planted};
use newtmq_cluster::lane::{GateId, Guid};
use newtmq_mqtt::{PacketId, PacketType, QoS, ReasonCode, TopicName};
use newtmq_session::Message;
use newtmq_topic::{Matched, Memo, Subscription, SubscriptionTable};

use super::departure::Departure;
use super::fan::{Fan, Parts, Publishing};
use super::inward::Key;
use super::{Shard, is_open};
use crate::conn::{Feature, NONE};
use crate::hooks::Hook;
use crate::io::{Outbox, Output};
use crate::outbuf::OUTPUT_OWN_BYTES;
use crate::place::slot_of;

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
    origin: Origin,
    /// What the publisher gets at the end.
    ack: Option<Acknowledgement>,
    /// What that waits behind.
    gate: Option<GateId>,
    /// The joint write that its end is a part of.
    joint: u64,
    /// Its name among all nodes.
    guid: Guid,
}

/// Where a message comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Origin {
    /// A connection of this shard; held while its fan-out is not finished.
    Conn(ConnId),
    /// A will, or the server itself. Nobody is held for it: what does not fit is dropped or queued as usual.
    Server,
    /// Another shard, and the publisher's connection there. It has seen to all places and shared groups itself.
    Lane(u16, Option<ConnId>),
    /// A shard of another node, which has seen to all other places and shared groups itself.
    Peer(Key),
}

impl Origin {
    fn conn(self) -> Option<ConnId> {
        match self {
            Origin::Conn(conn) => Some(conn),
            Origin::Server | Origin::Lane(..) | Origin::Peer(_) => None,
        }
    }
}

/// An acknowledgement that is owed.
pub(crate) type Acknowledgement = (PacketType, PacketId, ReasonCode);

/// What a publish came to.
pub(crate) struct Delivered {
    /// Whether anybody was subscribed.
    pub(crate) matched: bool,
    /// Whether it has gone to somebody of this node.
    pub(crate) reached: bool,
    /// What its acknowledgement waits behind, if it went to other nodes.
    pub(crate) gate: Option<GateId>,
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
        mut publishing: Publishing<'_>,
        memo: &mut Memo,
        origin: Origin,
        ack: Option<Acknowledgement>,
        out: &mut Outbox,
    ) -> Delivered {
        let forwarded = matches!(origin, Origin::Lane(..) | Origin::Peer(_));
        if self.claims && !forwarded && publishing.qos > QoS::AtMostOnce {
            publishing.guid = self.new_name();
        }
        // What the server says of itself is in no account.
        let own = matches!(origin, Origin::Server) && publishing.publisher == NONE;
        let counts = !forwarded && !own;
        self.ledger.accepted += u64::from(counts);
        let born_before = self.next_born();
        self.spent += 1;
        if counts && self.config.hears(Hook::MessageReceived) {
            let topic = core::str::from_utf8(publishing.topic).ok();
            let (publisher, qos) = (publishing.publisher, Some(publishing.qos));
            self.push_event(Hook::MessageReceived, publisher, topic, ReasonCode::Success, qos, out);
        }
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
        let (congested, mut message) = (fan.congested, fan.message);
        let mut delivered =
            Delivered { matched: count > 0, reached: count > 0, gate: None, unfinished: step < count, congested };
        // What is left, group members and other places need the table again; plain fan-outs go without counting references.
        let elsewhere = !forwarded && (!matched.groups.is_empty() || !matched.places.is_empty());
        if delivered.unfinished || elsewhere {
            let matched = Arc::clone(matched);
            delivered.matched = true;
            if delivered.unfinished {
                let message = publishing.message(&mut message, &mut self.scratch.block);
                let (publisher, next) = (publishing.publisher, step);
                let matched = Arc::clone(&matched);
                let joint = self.journal.part_later();
                self.jobs.push_back(FanOut {
                    message,
                    matched,
                    next,
                    publisher,
                    born_before,
                    origin,
                    ack,
                    gate: None,
                    joint,
                    guid: publishing.guid,
                });
            }
            if !forwarded {
                let mut departure = Departure::of(origin.conn(), ack);
                self.deliver_elsewhere(now, publishing, &matched, message, &mut departure, &mut delivered, out);
                delivered.gate = departure.gate;
                if let Some(job) = self.jobs.back_mut().filter(|_| delivered.unfinished) {
                    job.gate = departure.gate;
                }
            }
        }
        self.spent += step;
        if !delivered.matched && counts {
            self.ledger.unmatched += 1;
            let topic = core::str::from_utf8(publishing.topic).ok();
            let reason = ReasonCode::NoMatchingSubscribers;
            self.tell(Hook::MessageDropped, publishing.publisher, topic, reason, out);
        }
        delivered
    }

    /// Each other place gets one copy, and each shared group.
    #[allow(clippy::too_many_arguments)] // what a fan-out is made of
    fn deliver_elsewhere(
        &mut self,
        now: Instant,
        publishing: Publishing<'_>,
        matched: &Matched,
        mut message: Option<Message>,
        departure: &mut Departure,
        delivered: &mut Delivered,
        out: &mut Outbox,
    ) {
        let (here, far) = matched.places.split_at(matched.places.partition_point(|place| slot_of(*place) == 0));
        if !here.is_empty() {
            delivered.reached = true;
            let message = publishing.message(&mut message, &mut self.scratch.block);
            self.forward(now, here, &message, departure.publisher, (publishing.stamp, publishing.guid), out);
        }
        if !far.is_empty() {
            self.forward_far(now, &publishing, far, departure, out);
        }
        self.spent += matched.groups.len();
        for group in &matched.groups {
            self.deliver_to_group(now, publishing, *group, &mut message, departure, delivered, out);
        }
        self.departed(departure);
    }

    /// The shard's parts that a fan-out borrows at the same time.
    pub(crate) fn parts(&mut self) -> (&mut SubscriptionTable, &mut Rng, Parts<'_>) {
        let reunited_until = self.claims_of.reunited_until;
        let Shard { topics, rng, config, sessions, conns, ledger, pool, scratch, pressure, node_seed, journal, .. } =
            self;
        let (pressure, node_seed) = (*pressure, *node_seed);
        let parts =
            Parts { config, sessions, conns, ledger, pool, scratch, pressure, node_seed, reunited_until, journal };
        (topics, rng, parts)
    }

    /// Lets those go on whose turn ended in an earlier call, and does one step of the oldest unfinished fan-out.
    pub(crate) fn work(&mut self, now: Instant, out: &mut Outbox) {
        for conn in core::mem::take(&mut self.turns) {
            self.resume(now, conn, out);
        }
        let Some(mut job) = self.jobs.pop_front() else { return };
        let end = step_end(&job.matched.subscriptions, job.next);
        let (_, _, parts) = self.parts();
        let mut fan = Fan {
            now,
            parts,
            out: &mut *out,
            publishing: Publishing { guid: job.guid, ..Publishing::of_message(&job.message, job.publisher) },
            shared: false,
            message: Some(job.message.clone()),
            congested: Vec::new(),
            born_before: job.born_before,
        };
        fan.run(&job.matched.subscriptions[job.next..end]);
        let congested = fan.congested;
        job.next = end;
        let finished = job.next >= job.matched.subscriptions.len();
        if finished {
            self.journal.part_done(self.own, job.joint);
        }
        match job.origin {
            Origin::Conn(conn) => {
                self.wait_for_outputs(now, conn, &congested, out);
                if finished {
                    self.fan_out_done(now, conn, &job, out);
                }
            }
            Origin::Server => {}
            Origin::Peer(key) if finished => self.inward_done(key),
            Origin::Peer(_) => {}
            Origin::Lane(from, publisher) => {
                if let Some(publisher) = publisher {
                    self.hold_remote(from, publisher, &congested, out);
                }
                if finished {
                    self.lanes[usize::from(from)].busy = false;
                    let promise = core::mem::take(&mut self.lanes[usize::from(from)].promise);
                    self.journal.worked_off(from, promise);
                }
            }
        }
        if !finished {
            self.jobs.push_back(job);
        }
    }

    fn fan_out_done(&mut self, now: Instant, conn: ConnId, job: &FanOut, out: &mut Outbox) {
        let Some(c) = self.conn_mut(conn) else { return };
        c.rare().fan_out = false;
        if !is_open(c) {
            return;
        }
        if let Some(gate) = job.gate {
            self.finish_gate(now, conn, gate, true, out);
        } else if let Some((kind, packet_id, reason)) = job.ack {
            self.bar(conn);
            self.send_ack(now, conn, kind, packet_id, reason, out);
        }
        self.resume(now, conn, out);
    }

    /// Lets a held connection go on, unless something else still holds it.
    pub(crate) fn resume(&mut self, now: Instant, conn: ConnId, out: &mut Outbox) {
        let Some(c) = self.conn_mut(conn) else { return };
        let waits = c.waits();
        let blocked = c.rare.as_ref().is_some_and(|rare| {
            rare.fan_out
                || rare.unstored
                || rare.pending.is_some()
                || rare.gated
                || rare.paced_until.is_some()
                || (waits && rare.unread)
        }) || c.features.has(Feature::Subscribing);
        if blocked {
            return;
        }
        if let Some(asides) = c.rare.as_mut().and_then(|rare| rare.asides.as_mut()) {
            asides.held = false;
            return self.work_aside(now, conn, out);
        }
        if !c.held {
            return;
        }
        if c.out.len() >= OUTPUT_OWN_BYTES {
            self.wait_for_itself(now, conn);
            return;
        }
        let untold = planted!(PublisherNeverResumed, c.rare.as_ref().is_some_and(|rare| rare.unread));
        if let Some(rare) = &mut c.rare {
            rare.unread = false;
        }
        c.held = false;
        c.heard = now;
        if !untold {
            out.push(Output::Resume(conn));
        }
    }

    /// Publishes a message that no connection waits for: the will of the session `publisher`, or the server's own.
    pub(crate) fn publish_message(&mut self, now: Instant, message: &Message, publisher: u32, out: &mut Outbox) {
        let mut publishing = Publishing::of_message(message, publisher);
        if message.retain() && self.agrees_on(message.topic_str()) {
            return self.retain_message(now, message, publisher, out);
        }
        if message.retain() {
            publishing.stamp = self.retain(now, &publishing, None, out);
        }
        let _ = self.deliver(now, publishing, &mut Memo::default(), Origin::Server, None, out);
    }
}
