//! S10 and L8: a Will Message is published once if its connection ends without DISCONNECT, when its delay is over or its
//! session ends, and never otherwise.

use core::time::Duration;

use newtmq_base::Instant;
use newtmq_mqtt::{QoS, ReasonCode};

use super::owed::overflows;
use super::publishes::Message;
use super::state::{State, has_few_ids};
use super::witness::{Cx, Story};
use crate::history::{Closer, ConnIx, SnConnect, Uid, WillFacts};
use crate::report::Check;

/// The will of a connection.
#[derive(Debug)]
pub(super) struct WillState {
    pub(super) uid: Uid,
    pub(super) delay_s: u32,
    pub(super) qos: QoS,
    pub(super) topic: u32,
    /// The next connection of the session, when its CONNACK was written, and whether the session went on.
    pub(super) next: Option<(u32, Instant, bool)>,
    /// The broker surely has it.
    pub(super) certain: bool,
}

impl State {
    pub(super) fn new_will(&mut self, will: WillFacts, conn: u32, node: u16, id: u32, cx: &mut Cx<'_>) -> WillState {
        let topic = self.topic_of(node, will.topic, cx);
        if will.retain {
            self.retained_will(topic, will.uid, cx.now, will.qos, cx);
        }
        let message = Message::of_will(&will, topic, conn, id, cx.now, self.sequence);
        self.put_will(will.uid, message);
        WillState { uid: will.uid, delay_s: will.delay_s, qos: will.qos, topic, next: None, certain: true }
    }

    /// The broker has noticed the end of a connection: its will comes after what is in the queues of others by now.
    pub(super) fn expect_will(&mut self, conn: u32, cx: &Cx<'_>) {
        let Some((uid, topic)) = self.conn(conn).will.as_deref().map(|will| (will.uid, will.topic)) else { return };
        self.match_topic(topic, cx);
        let State { topics, ids, clients, .. } = self;
        let Some(message) = clients[uid.publisher.0 as usize].message(uid.number) else { return };
        for (id, _) in &topics[topic as usize].subs {
            let known = &ids[*id as usize];
            message.target(*id, known.epoch, known.settled);
        }
    }

    /// A client of MQTT-SN asks for another will, or for none.
    pub(super) fn will_asked(&mut self, conn: ConnIx, will: Option<WillFacts>, cx: &mut Cx<'_>) {
        let (node, id) = (self.conn(conn.0).node, self.conn(conn.0).id);
        let new = will.map(|will| Box::new(WillState { certain: false, ..self.new_will(will, conn.0, node, id, cx) }));
        let c = self.conn_mut(conn);
        if let Some(old) = core::mem::replace(&mut c.will, new) {
            c.old_wills.push((old.uid, None));
        }
    }

    /// It was told that it is so.
    pub(super) fn will_set(&mut self, conn: ConnIx, cx: &Cx<'_>) {
        let c = self.conn_mut(conn);
        c.heard = cx.now;
        for (_, until) in &mut c.old_wills {
            until.get_or_insert(cx.now);
        }
        if let Some(will) = &mut c.will {
            will.certain = true;
        }
    }

    /// A will came that its client had replaced or deleted.
    fn old_will_received(&mut self, of: u32, uid: Uid, conn: u32, sent_at: Instant, cx: &mut Cx<'_>) {
        let c = self.conn(of);
        let until = c.old_wills.iter().find(|(old, _)| *old == uid).and_then(|(_, until)| *until);
        let ended = c.earliest_end().unwrap_or(sent_at);
        if until.is_some_and(|until| until <= ended) && c.is_plain() && !c.wild {
            self.will_wrong(of, uid, conn, sent_at, "although its client had replaced or deleted it", cx);
        }
    }

    /// A session has a new connection; `present` if it surely is the same one.
    pub(super) fn will_resumed(&mut self, last: Option<u32>, conn: u32, present: bool) {
        let Some(connack) = self.conn(conn).connack else { return };
        let Some(last) = last else { return };
        if self.conn(conn).sn == Some(SnConnect::Wake) {
            // It goes on to sleep, with the will that it has.
            return;
        }
        if let Some(will) = &mut self.conn_mut(ConnIx(last)).will {
            will.next.get_or_insert((conn, connack.sent_at, present));
        }
    }

    /// A copy of a will came, not as retained message.
    pub(super) fn will_received(&mut self, of: u32, uid: Uid, conn: u32, sent_at: Instant, cx: &mut Cx<'_>) {
        cx.owe(Check::Will);
        if self.kept.on {
            self.kept_will_received(of, uid, conn, sent_at, cx);
        }
        let c = self.conn(of);
        let Some(will) = c.will.as_deref().filter(|will| will.uid == uid) else {
            return self.old_will_received(of, uid, conn, sent_at, cx);
        };
        if c.wild || c.disturbed.is_some() || self.kept.may_differ() {
            return;
        }
        let undisturbed = c.rival.is_none_or(|rival| c.gone.is_some_and(|gone| rival > gone));
        // Of one that the cluster keeps that was judged above.
        if let Some((_, code)) = c.client_disconnect.filter(|_| !self.kept.on)
            && !code.is_error()
            && code != ReasonCode::DisconnectWithWillMessage
            && c.trouble.is_none()
            && undisturbed
            && !c.odd
            && c.server_disconnect.is_none()
            && c.closed.is_some_and(|(_, by)| by == Closer::Client)
            && !self.ways.was_leaving(c.node, c.connect_at)
        {
            return self.will_wrong(of, uid, conn, sent_at, "although its client had disconnected", cx);
        }
        let Some(end) = c.earliest_end() else {
            self.early_wills.push((of, conn, sent_at));
            return;
        };
        // A node that stops ends all sessions, and their wills do not wait any longer.
        let stopped = self.nodes[usize::from(c.node)].stopped;
        let stopped = stopped.is_some_and(|stopped| c.connect_at <= stopped && stopped <= sent_at);
        if will.delay_s == 0 || c.expiry_min == 0 || stopped {
            return;
        }
        // A node that stops ends all sessions.
        if self.nodes[usize::from(c.node)].disturbed.is_some_and(|at| at >= end) {
            return;
        }
        let due = self.earliest(c.node, end, will.delay_s.min(c.expiry_min));
        if let Some((_, resumed, true)) = will.next {
            if resumed < due {
                self.will_wrong(
                    of,
                    uid,
                    conn,
                    sent_at,
                    "although its session went on before the Will Delay Interval was over",
                    cx,
                );
            }
            return;
        }
        // Another connection may have begun a new session; its CONNECT may have been sent before and come later.
        // And where nodes meet that had not known of each other, the session that is not kept ends.
        let later = c.rival.is_some() || self.ids[c.id as usize].conns.iter().any(|other| *other > of);
        let others = later || self.may_have_lost(of);
        if sent_at < due && !others {
            self.will_wrong(of, uid, conn, sent_at, "before its Will Delay Interval was over", cx);
        }
    }

    #[cold]
    pub(super) fn will_wrong(&mut self, of: u32, uid: Uid, conn: u32, at: Instant, what: &str, cx: &mut Cx<'_>) {
        let message = format!("the will {uid} of {} was published {what}", self.who(of));
        let c = self.conn(of);
        let topic = c.will.as_deref().map(|will| self.topics[will.topic as usize].name);
        let mut story =
            Story::default().uid(Some(uid)).client(c.client).client(self.conn(conn).client).conn(of).conn(conn);
        if let Some(topic) = topic {
            story = story.topic(topic);
        }
        let resumed = c.will.as_deref().and_then(|will| will.next).map(|(_, at, _)| at);
        let story = story
            .when(c.connect_at, "CONNECT with the will was sent")
            .when_some(c.client_disconnect.map(|(at, _)| at), "DISCONNECT was sent")
            .when_some(c.closed.map(|(at, _)| at), "its connection ended for the client")
            .when_some(c.gone, "the broker noticed the end")
            .when_some(resumed, "CONNACK of the next connection was written")
            .when(at, "the will was written to a subscriber");
        cx.violated(Check::Will, message, story);
    }

    /// At quiescence: wills that came too early, and those that never came.
    pub(super) fn judge_wills(&mut self, cx: &mut Cx<'_>) {
        for (of, conn, sent_at) in std::mem::take(&mut self.early_wills) {
            let c = self.conn(of);
            let serves = c.is_up() && c.is_plain() && c.server_disconnect.is_none() && c.rival.is_none();
            if let Some(will) = c.will.as_deref()
                && serves
            {
                let uid = will.uid;
                self.will_wrong(of, uid, conn, sent_at, "while its client is connected", cx);
            }
        }
        for conn in 0..self.conns.len() as u32 {
            if self.conns[conn as usize].as_deref().is_some_and(|c| c.will.is_some()) {
                self.judge_due(conn, cx);
                self.judge_kept_will(conn, cx);
            }
        }
    }

    /// When a will surely was due: the earliest and the latest moment.
    fn due(&self, conn: u32) -> Option<(Instant, Instant)> {
        let c = self.conn(conn);
        let will = c.will.as_deref().filter(|will| will.certain)?;
        // The broker had it until the node went.
        let end = if c.crashed { c.disturbed } else { c.earliest_end() };
        let (gone, end) = (c.gone?, end?);
        c.connack?;
        c.closed?;
        let normal = c.client_disconnect.is_some_and(|(_, code)| code != ReasonCode::DisconnectWithWillMessage);
        if normal || c.wild || (c.disturbed.is_some() && !c.crashed) {
            return None;
        }
        let delay = if c.expiry_max == 0 { 0 } else { will.delay_s.min(c.expiry_max) };
        if delay == 0 && will.delay_s > 0 && c.expiry_min != c.expiry_max {
            return None;
        }
        let latest = self.latest(c.node, gone, delay);
        let resumed = |other: &u32| *other > conn && self.conn(*other).connect_at <= latest;
        // With CleanSession a gateway ends what a device had as if it had disconnected.
        let may_resume = delay > 0 || c.sn.is_some();
        if may_resume && (c.rival.is_some() || self.ids[c.id as usize].conns.iter().any(resumed)) {
            return None;
        }
        Some((end, latest))
    }

    fn judge_due(&mut self, conn: u32, cx: &mut Cx<'_>) {
        let Some((end, latest)) = self.due(conn) else { return };
        // Without a leader a node asks for so long who publishes it.
        let latest = if self.kept.may_wait() { latest + Duration::from_secs(15) } else { latest };
        if latest + Duration::from_secs(5) + self.lane_slack() + self.limits.late > cx.now {
            return;
        }
        let c = self.conn(conn);
        let Some(will) = c.will.as_deref() else { return };
        let (uid, topic, qos, own, crashed) = (will.uid, will.topic, will.qos, c.id, c.crashed);
        // If the broker ended it, it had published the will before it closed the connection.
        let by_server = c.closed.is_some_and(|(_, by)| by == Closer::Server);
        self.match_topic(topic, cx);
        for (id, sub) in self.topics[topic as usize].subs.clone() {
            let entry = &self.subs[sub as usize];
            if has_few_ids(&self.limits, &self.conns, &self.ids[id as usize]) {
                continue;
            }
            let (from, to) = (self.conn(conn).node, self.ids[id as usize].node);
            let counts = |certain: &Instant| {
                self.ways.is_certain((to, *certain), from, (end, latest)) || from == to && *certain < end
            };
            let Some(certain) = entry.certain.filter(|certain| counts(certain) && entry.group.is_none()) else {
                continue;
            };
            // Of one that had to wait for its node every option of that time may count.
            let counts = |to: Instant| to == Instant::NEVER || (crashed && to >= end);
            let open = entry.grants.iter().filter(|grant| counts(grant.to));
            let effective = open.map(|grant| grant.qos).min().map(|granted| granted.min(qos));
            let filter = entry.filter;
            let steady = self.ids[id as usize].current.is_some_and(|current| {
                let c = self.conn(current);
                c.is_up() && c.is_plain() && c.connack.is_some_and(|of| of.at < end)
            });
            // After a crash it waits in the session.
            let known = &self.ids[id as usize];
            let waits = crashed && known.matched + self.wills < self.limits.queue_len;
            if id == own || effective < Some(QoS::AtLeastOnce) || !(steady || waits) || !self.is_drained(id, cx.now) {
                continue;
            }
            let State { clients, ids, limits, wills, .. } = self;
            let known = &ids[id as usize];
            let Some(message) = clients[uid.publisher.0 as usize].message(uid.number) else { return };
            if message.expiry_s.is_some() || known.packet_max <= message.size.saturating_add(400) {
                continue;
            }
            cx.owe(Check::WillFired);
            let target = message.targets.iter().find(|target| target.id == id && target.epoch == known.epoch);
            if target.is_some_and(|target| target.received) {
                continue;
            }
            let front = target.filter(|_| !by_server).map_or((0, 0), |target| (target.matched, target.bytes));
            let behind = (known.matched - front.0 + *wills, known.matched_bytes - front.1);
            if overflows(behind, limits.queue_len, limits.queue_bytes) {
                continue;
            }
            self.never_fired(conn, uid, (id, filter, certain), latest, cx);
        }
    }

    #[cold]
    pub(super) fn never_fired(
        &mut self,
        conn: u32,
        uid: Uid,
        (id, filter, certain): (u32, crate::history::NameIx, Instant),
        latest: Instant,
        cx: &mut Cx<'_>,
    ) {
        let Some(current) = self.ids[id as usize].current else { return };
        let c = self.conn(conn);
        let message = format!(
            "the will {uid} of {} was due and never came to {}, which is subscribed to {}",
            self.who(conn),
            self.who(current),
            cx.text(filter)
        );
        let story = Story::default()
            .uid(Some(uid))
            .filter(Some(filter))
            .client(self.conn(current).client)
            .client(c.client)
            .conn(conn)
            .conn(current)
            .when(certain, "SUBACK was written")
            .when(c.connect_at, "CONNECT with the will was sent")
            .when_some(c.closed.map(|(at, _)| at), "its connection ended for the client")
            .when_some(c.gone, "the broker noticed the end")
            .when(latest, "the will was due at the latest")
            .when(cx.now, "quiescence, never received");
        cx.violated(Check::WillFired, message, story);
    }
}
