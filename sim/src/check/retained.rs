//! S9 and S9b: the retained message of a topic as a register. A write takes effect at some moment between its PUBLISH and
//! its acknowledgement; one without takes effect at any later moment or never. With several shards a message without an
//! acknowledgement of its own may be on its way to the owner of its topic still, so there its way is added.
//!
//! The nodes of a cluster have one register for each topic. What was written while some of them were apart, or soon after, may
//! count later, or not at all; what is read then may be old.

use std::collections::VecDeque;

use core::time::Duration;
use newtmq_base::Instant;
use newtmq_mqtt::{QoS, ReasonCode};

use super::owed::overflows;
use super::state::{FORGET_AFTER, Lanes, State, has_few_ids};
use super::subscriptions::Sub;
use super::witness::{Cx, Story};
use crate::history::{ConnIx, PublishFacts, Uid};
use crate::report::Check;

/// The writes of a topic that a reader may still see.
#[derive(Debug, Default)]
pub(super) struct Register {
    writes: VecDeque<Write>,
    /// Writes that were no longer current at this time are forgotten.
    forgotten: Option<Instant>,
    pushed: u32,
}

#[derive(Debug, Clone)]
struct Write {
    /// None deletes.
    uid: Option<Uid>,
    conn: u32,
    sequence: u64,
    sent: Instant,
    /// Latest moment of its effect.
    done: Option<Instant>,
    /// It surely had an effect.
    sure: bool,
    /// It was acknowledged itself.
    acked: bool,
    /// It was sent again, so it may have been no write at all.
    again: bool,
    /// It was refused, and may have its effect at any later time.
    late: bool,
    qos: QoS,
}

impl Write {
    /// Whether it surely came before the other one.
    fn is_before(&self, other: &Write, lanes: &Lanes) -> bool {
        self.is_done(other.sent, lanes) || (self.conn == other.conn && self.sequence < other.sequence)
    }

    /// Whether it surely had all the effect that it has before `at`.
    fn is_done(&self, at: Instant, lanes: &Lanes) -> bool {
        self.done.is_some_and(|done| (if self.acked { done } else { lanes.by(done) }) < at)
    }
}

impl State {
    pub(super) fn retained_write(&mut self, topic: u32, facts: &PublishFacts, conn: u32, cx: &mut Cx<'_>) {
        let (sequence, sent) = (self.sequence, cx.now);
        let PublishFacts { uid, dup, qos, .. } = *facts;
        let deletes = facts.size == 0;
        // What a client of MQTT-SN sends with QoS 0 may be of an id that its gateway does not know.
        let vague = qos == QoS::AtMostOnce && self.conn(conn).sn.is_some();
        let again = dup || vague || uid.is_some_and(|uid| self.message(uid).is_some());
        if uid.is_none() && !deletes {
            return;
        }
        let topic = self.register_of(topic, cx);
        self.judge_replaced(topic, cx);
        let uid = uid.filter(|_| !deletes);
        let write = Write { uid, conn, sequence, sent, done: None, acked: false, sure: false, again, late: false, qos };
        self.conn_mut(ConnIx(conn)).retaining.push((topic, sequence, sent));
        self.push_write(topic, write);
    }

    /// A will with Will Retain: a write at any time from its CONNECT on.
    pub(super) fn retained_will(&mut self, topic: u32, uid: Uid, sent: Instant, qos: QoS, cx: &Cx<'_>) {
        let topic = self.register_of(topic, cx);
        let sequence = self.sequence;
        // No connection has this number, so it is in no order with other writes.
        let (uid, conn) = (Some(uid), u32::MAX);
        let write =
            Write { uid, conn, sequence, sent, done: None, acked: false, sure: false, again: true, late: false, qos };
        self.push_write(topic, write);
    }

    fn push_write(&mut self, topic: u32, write: Write) {
        let (sent, lanes) = (write.sent, self.lanes(self.topics[topic as usize].node));
        let register = self.topics[topic as usize].register.get_or_insert_default();
        register.writes.push_back(write);
        register.pushed += 1;
        if register.pushed.is_multiple_of(64) && sent.as_nanos() > FORGET_AFTER.as_nanos() as u64 {
            let before = Instant::from_nanos(sent.as_nanos() - FORGET_AFTER.as_nanos() as u64);
            let gone = register.prune(before, &lanes);
            for uid in gone {
                if let Some(message) = self.message(uid) {
                    message.registered = false;
                }
            }
        }
    }

    /// All writes of a connection up to an event have been worked off at `at`.
    #[inline]
    pub(super) fn retained_done(&mut self, conn: u32, sequence: u64, at: Instant) {
        if self.conn(conn).retaining.is_empty() {
            return;
        }
        let wild = self.conn(conn).wild;
        // Nobody waits until a QoS 0 message is stored.
        let durable = self.limits.durability.is_some();
        let oldest = self.conn(conn).retaining.first().map_or(at, |(_, _, sent)| *sent);
        let split = self.may_be_split(oldest, at) || self.is_apart(self.conn(conn).node, at);
        let mut list = std::mem::take(&mut self.conn_mut(ConnIx(conn)).retaining);
        list.retain(|(topic, of, _)| {
            if *of > sequence {
                return true;
            }
            if let Some(write) = self.write_of(*topic, conn, *of).filter(|write| !split && !write.late) {
                write.done = Some(at);
                write.acked = *of == sequence && write.qos > QoS::AtMostOnce;
                write.sure = !write.again && !wild && (!durable || write.qos > QoS::AtMostOnce);
            }
            false
        });
        self.conn_mut(ConnIx(conn)).retaining = list;
    }

    /// The same, but the last one was refused. Who gives a message up because another node takes no more has retained it all
    /// the same, or not.
    pub(super) fn retained_refused(&mut self, topic: u32, conn: u32, sequence: u64, code: ReasonCode, cx: &Cx<'_>) {
        let topic = self.register_of(topic, cx);
        if code == ReasonCode::QuotaExceeded && self.ways.exist() {
            if let Some(write) = self.write_of(topic, conn, sequence) {
                (write.again, write.late) = (true, true);
            }
        } else if let Some(register) = &mut self.topics[topic as usize].register {
            register.writes.retain(|write| write.conn != conn || write.sequence != sequence);
        }
    }

    /// Nothing more of a connection has an effect after `at`.
    pub(super) fn retained_gone(&mut self, conn: u32, at: Instant) {
        let open = std::mem::take(&mut self.conn_mut(ConnIx(conn)).retaining);
        // In a cluster what was asked for may be in the log at any later time.
        let open = if self.ways.exist() { Vec::new() } else { open };
        for (topic, sequence, _) in open {
            if let Some(write) = self.write_of(topic, conn, sequence) {
                write.done = Some(at);
            }
        }
    }

    /// The topic whose register counts: of a cluster there is one for all nodes.
    fn register_of(&mut self, topic: u32, cx: &Cx<'_>) -> u32 {
        if !self.ways.exist() {
            return topic;
        }
        let name = self.topics[topic as usize].name;
        self.topic_of(0, name, cx)
    }

    /// Whether some nodes of a cluster may not have agreed at some time from `from` to `to`. A node that is gone may have been the only one
    /// that decides yet, until it is back or removed.
    pub(super) fn may_be_split(&self, from: Instant, to: Instant) -> bool {
        let before = Instant::from_nanos(from.as_nanos().saturating_sub(self.limits.agreed.as_nanos() as u64));
        let is_alone = || self.ways.had_lost_members(before, to) || self.ways.has_lost_a_founder(self.limits.agreed);
        self.ways.exist() && (self.ways.were_split(before, to) || is_alone())
    }

    /// Whether a node agrees with nobody, whom it may well reach: it is no member yet, is to be none any more, or knows of no leader.
    fn is_apart(&self, node: u16, now: Instant) -> bool {
        let is_outside = self.ways.joined_at(node) == Instant::START || self.ways.was_leaving(node, now);
        self.ways.exist() && (is_outside || self.ways.is_leaderless(node, Duration::ZERO, now))
    }

    fn write_of(&mut self, topic: u32, conn: u32, sequence: u64) -> Option<&mut Write> {
        let register = self.topics[topic as usize].register.as_deref_mut()?;
        register.writes.iter_mut().rev().find(|write| write.conn == conn && write.sequence == sequence)
    }

    /// A retained copy came in answer to a SUBSCRIBE that was sent at `since`.
    pub(super) fn retained_read(&mut self, topic: u32, uid: Uid, since: Instant, conn: u32, cx: &mut Cx<'_>) {
        let topic = self.register_of(topic, cx);
        if self.may_be_split(since, cx.now) || self.is_apart(self.conn(conn).node, cx.now) {
            return;
        }
        cx.owe(Check::Retained);
        let Some(register) = &self.topics[topic as usize].register else { return };
        let Some(newer) = register.newer(uid, since, &self.lanes(self.topics[topic as usize].node)) else { return };
        let name = self.topics[topic as usize].name;
        let text = match newer.and_then(|write| write.uid) {
            Some(other) => format!("{other} had replaced it"),
            None => "it had been replaced or deleted".to_owned(),
        };
        let message = format!(
            "{} subscribed and got {uid} as the retained message of {}, but before it subscribed {text}",
            self.who(conn),
            cx.text(name)
        );
        let mut story = Story::default().uid(Some(uid)).topic(name).client(self.conn(conn).client).conn(conn);
        story = story.when(since, "SUBSCRIBE was sent").when(cx.now, format!("{uid} was received with RETAIN"));
        if let Some(newer) = newer {
            story = story.when(newer.sent, "the newer retained PUBLISH was sent");
            story = story.when_some(newer.done, "it was acknowledged");
        }
        cx.violated(Check::Retained, message, story);
    }

    /// At quiescence: whoever subscribed has the retained message.
    pub(super) fn judge_retained(&mut self, cx: &mut Cx<'_>) {
        if self.limits.retained_limited || self.limits.retained_expires {
            return;
        }
        for topic in 0..self.topics.len() as u32 {
            self.judge_readers(topic, |_, _| true, cx);
        }
    }

    /// The same for one topic and those subscriptions that are to be looked at.
    fn judge_readers(&mut self, topic: u32, wanted: impl Fn(&State, &Sub) -> bool, cx: &mut Cx<'_>) {
        let lanes = self.lanes(self.topics[topic as usize].node);
        let Some(register) = self.topics[topic as usize].register.as_deref() else { return };
        let Some(last) = register.last(&lanes).cloned() else { return };
        self.match_topic(topic, cx);
        for (id, sub) in self.topics[topic as usize].subs.clone() {
            let here = self.ids[id as usize].node == self.node_of_topic(topic) || self.ways.exist();
            if here && wanted(self, &self.subs[sub as usize]) {
                self.judge_reader(topic, &last, id, sub, cx);
            }
        }
    }

    /// A retained message is about to be replaced: who subscribed long before has it by now.
    fn judge_replaced(&mut self, topic: u32, cx: &mut Cx<'_>) {
        const QUIET: Duration = Duration::from_secs(5);
        if self.limits.retained_limited || self.limits.retained_expires {
            return;
        }
        let (now, settled) = (cx.now, QUIET + self.limits.late + self.lane_slack());
        let long_ago = |at: Option<Instant>| at.is_some_and(|at| at + settled < now);
        let Some(register) = self.topics[topic as usize].register.as_deref() else { return };
        if !register.writes.back().is_some_and(|write| long_ago(write.done)) {
            return;
        }
        let steady = |state: &State, sub: &Sub| {
            let id = &state.ids[sub.id as usize];
            long_ago(sub.certain)
                && !state.nodes[usize::from(id.node)].pressed
                // What is lost on its way to a device is sent again after many seconds.
                && !id.current.is_some_and(|conn| state.conn(conn).sn.is_some() && state.limits.sn_unreliable)
                && id.current.is_some_and(|conn| state.conn(conn).is_plain())
        };
        self.judge_readers(topic, steady, cx);
    }

    fn judge_reader(&mut self, topic: u32, last: &Write, id: u32, sub: u32, cx: &mut Cx<'_>) {
        let Some(uid) = last.uid.filter(|_| last.qos > QoS::AtMostOnce) else { return };
        let entry = &self.subs[sub as usize];
        let (Some(certain), Some((since, true)), None) = (entry.certain, entry.began, entry.group) else { return };
        // Whoever subscribes while all agree gets what was written while all agreed.
        let written = self.may_be_split(last.sent, last.done.unwrap_or(cx.now) + self.limits.copied);
        let node = self.ids[entry.id as usize].node;
        if written || self.may_be_split(since, certain + self.limits.copied) || self.ways.was_incomplete(node) {
            return;
        }
        if self.is_apart(node, cx.now) || self.is_apart(self.conn(last.conn).node, cx.now) {
            return;
        }
        let filter = entry.filter;
        // Those that may have decided about the copy.
        let mut open = entry.grants.iter().filter(|grant| grant.to >= last.sent.min(since));
        let own = self.conn(last.conn).id == id;
        let sure =
            open.all(|grant| grant.qos > QoS::AtMostOnce && !(own && (grant.no_local || self.limits.ignore_loop)));
        if !sure || last.sent > certain || !self.is_drained(id, cx.now) {
            return;
        }
        let read = last.is_done(since, &self.lanes(self.topics[topic as usize].node));
        let State { clients, ids, limits, wills, conns, .. } = self;
        let known = &ids[id as usize];
        let Some(message) = clients[uid.publisher.0 as usize].message(uid.number) else { return };
        if message.expiry_s.is_some()
            || known.packet_max <= message.size.saturating_add(400)
            || has_few_ids(limits, conns, known)
        {
            return;
        }
        cx.owe(Check::RetainedMissed);
        let target = message.targets.iter().find(|target| target.id == id && target.epoch == known.epoch);
        if target.is_some_and(|target| target.received) {
            return;
        }
        // A live copy may have been dropped from a full queue; a retained one waits in none.
        let front = target.map_or((0, 0), |target| (target.matched, target.bytes));
        let behind = (known.matched - front.0 + *wills, known.matched_bytes - front.1);
        if !read && overflows(behind, limits.queue_len, limits.queue_bytes) {
            return;
        }
        let name = self.topics[topic as usize].name;
        let conn = self.ids[id as usize].current.unwrap_or(last.conn);
        let message = format!(
            "{} subscribed to {} and got neither the retained nor a live copy of {uid} on {}",
            self.who(conn),
            cx.text(filter),
            cx.text(name)
        );
        let story = Story::default()
            .uid(Some(uid))
            .topic(name)
            .filter(Some(filter))
            .client(self.conn(conn).client)
            .client(uid.publisher.0)
            .conn(conn)
            .when(last.sent, format!("PUBLISH {uid} was sent with RETAIN"))
            .when_some(last.done, "it was acknowledged")
            .when(since, "SUBSCRIBE was sent")
            .when(certain, "SUBACK was written")
            .when(cx.now, "quiescence, never received");
        cx.violated(Check::RetainedMissed, message, story);
    }
}

impl Register {
    /// Its node has lost what it had in memory at `at`: nothing that is under way has an effect later.
    pub(super) fn node_lost(&mut self, at: Instant) {
        for write in self.writes.iter_mut().filter(|write| write.conn != u32::MAX) {
            write.done.get_or_insert(at);
        }
    }

    /// Whether nobody wrote but one connection, as far as it is remembered.
    pub(super) fn is_of(&self, conn: u32) -> bool {
        self.writes.iter().all(|write| write.conn == conn)
    }

    /// If what was written with `uid` was surely replaced before `since`: by what, as far as it is remembered.
    fn newer(&self, uid: Uid, since: Instant, lanes: &Lanes) -> Option<Option<&Write>> {
        let mut seen = false;
        let mut by = None;
        let settled = |write: &&Write| write.sure && write.is_done(since, lanes);
        for write in self.writes.iter().filter(|write| write.uid == Some(uid)) {
            seen = true;
            by = Some(self.writes.iter().filter(settled).rev().find(|other| write.is_before(other, lanes))?);
        }
        if seen {
            return Some(by);
        }
        // It was there and is forgotten, so it was replaced.
        self.forgotten.filter(|at| *at < since).map(|_| None)
    }

    /// Forgets what was surely not current any more at `at`; returns it.
    fn prune(&mut self, at: Instant, lanes: &Lanes) -> Vec<Uid> {
        let settled = self.writes.iter().filter(|write| write.sure && write.is_done(at, lanes));
        let Some(newest) = settled.map(|write| write.sent).max() else { return Vec::new() };
        let mut gone = Vec::new();
        self.writes.retain(|write| {
            let old = write.is_done(newest, lanes);
            if old {
                gone.extend(write.uid);
            }
            !old
        });
        if !gone.is_empty() {
            self.forgotten = Some(at);
        }
        gone
    }

    /// The write that is surely the last one.
    fn last(&self, lanes: &Lanes) -> Option<&Write> {
        let last = self.writes.iter().filter(|write| write.sure).max_by_key(|write| (write.sent, write.sequence))?;
        let alone = self
            .writes
            .iter()
            .all(|write| (write.sequence == last.sequence && write.conn == last.conn) || write.is_before(last, lanes));
        alone.then_some(last)
    }
}
