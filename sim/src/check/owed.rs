//! S1: what a subscriber is owed, what excuses a loss, and the final account at quiescence.

use core::time::Duration;

use newtmq_base::Instant;
use newtmq_mqtt::{QoS, ReasonCode};

use super::state::{State, has_few_ids};
use super::witness::{Cx, Story};
use crate::history::Uid;
use crate::report::Check;

impl State {
    /// A message was accepted: certain subscribers are owed it.
    pub(super) fn owe_message(&mut self, uid: Uid, code: ReasonCode, cx: &mut Cx<'_>) {
        let State { clients, topics, subs, ids, limits, conns, ways, .. } = self;
        let Some(message) = clients[uid.publisher.0 as usize].message(uid.number) else { return };
        if conns[message.conn as usize].as_deref().is_none_or(|c| c.wild) {
            return;
        }
        // Clients that share a session may take each other's Packet Identifiers for their own.
        if message.qos == QoS::ExactlyOnce && ids[message.id as usize].several {
            return;
        }
        let topic = &topics[message.topic as usize];
        if message.qos == QoS::AtMostOnce || topic.subs.is_empty() {
            return;
        }
        let (sent, accepted) = (message.sent, message.accepted.unwrap_or(cx.now));
        let (number, shared) = (message.topic, topic.shared);
        let (conn, first) = (message.conn, message.first);
        let room = room_for(message.size, cx.text(topic.name));
        for (id, sub) in &topic.subs {
            let sub = &subs[*sub as usize];
            let known = &mut ids[*id as usize];
            if sub.group.is_some() || known.packet_max <= room || has_few_ids(limits, conns, known) {
                continue;
            }
            let at_node = |node: u16| {
                if node == topic.node {
                    return sub.counts_for(conn, first, sent);
                }
                let is_stored = limits.keeps_hints()
                    && known.from.is_none()
                    && !known.unclear
                    && known.current.and_then(|at| conns[at as usize].as_deref()).is_some_and(|c| c.expiry_min > 0);
                let of_sub = |at| {
                    ways.is_certain((node, at), topic.node, (sent, accepted))
                        || is_stored && ways.is_known((node, at), topic.node, sent)
                };
                sub.certain.is_some_and(of_sub)
            };
            if !at_node(known.node) || !known.from.is_none_or(at_node) {
                continue;
            }
            let own = message.id == *id;
            let open = sub.grants.iter().filter(|grant| grant.to >= sent);
            let effective =
                open.clone().map(|grant| if limits.upgrade_qos { grant.qos } else { grant.qos.min(message.qos) }).min();
            let excluded = own && (limits.ignore_loop || open.clone().any(|grant| grant.no_local));
            if excluded || effective < Some(QoS::AtLeastOnce) || message.expiry_s.is_some() {
                continue;
            }
            cx.findings.obligations.count(Check::Lost, 1);
            let target = message.target(*id, known.epoch, known.settled);
            if !target.owed && !target.received {
                target.owed = true;
                known.owed.push_back((uid, accepted));
            }
        }
        // Nobody is subscribed, says the broker: that is for the certain ones to contradict.
        let _ = code;
        if shared {
            self.owe_groups(uid, number, cx);
        }
    }

    /// A session got a live copy of a message that was sent at `sent`: what was owed before has left its queue.
    pub(super) fn overtaken(&mut self, id: u32, sent: Instant) {
        let lanes = self.lanes(self.ids[id as usize].node);
        let State { clients, ids, limits, wills, .. } = self;
        let known = &mut ids[id as usize];
        let mut kept = Vec::new();
        while let Some((uid, accepted)) = known.owed.front().copied() {
            let message = clients[uid.publisher.0 as usize].message(uid.number);
            let target = message.and_then(|message| message.targets.iter_mut().find(|target| target.id == id));
            let Some(target) = target.filter(|target| target.epoch == known.epoch && !target.received) else {
                known.owed.pop_front();
                continue;
            };
            if lanes.by(accepted) >= sent {
                break;
            }
            known.owed.pop_front();
            let behind = (known.matched - target.matched + *wills, known.matched_bytes - target.bytes);
            if target.behind.is_none() {
                target.behind = Some(behind);
            }
            if overflows(behind, limits.queue_len, limits.queue_bytes) {
                target.owed = false;
            } else {
                kept.push((uid, accepted));
            }
        }
        known.lost.extend(kept);
    }

    /// Whether a session's client is connected, reads and acknowledges, and nothing more comes.
    pub(super) fn is_drained(&self, id: u32, now: Instant) -> bool {
        const QUIET: Duration = Duration::from_secs(5);
        let known = &self.ids[id as usize];
        let Some(current) = known.current else { return false };
        let c = self.conn(current);
        let unknown = known.live.iter().any(|other| *other != current);
        // Its acknowledgements are read behind what it publishes, and a large message takes its time through a small socket.
        let quiet = QUIET + self.behind(c);
        c.is_up()
            && !unknown
            && !c.wild
            && c.gone.is_none()
            && c.server_disconnect.is_none()
            && c.outstanding == 0
            && c.connack.is_some_and(|of| of.at + quiet < now)
            && c.last_receive + quiet + self.limits.late < now
            && !self.clients[c.client as usize].is_troubled()
            && !self.nodes[usize::from(c.node)].down
    }

    /// The run is calm and had time to settle: what is owed by now is lost.
    pub(super) fn quiesce(&mut self, cx: &mut Cx<'_>) {
        self.judge_open(cx);
        self.judge_commands(cx);
        self.judge_wills(cx);
        self.judge_retained(cx);
        for id in 0..self.ids.len() as u32 {
            if !self.is_drained(id, cx.now) {
                continue;
            }
            let known = &mut self.ids[id as usize];
            let mut debts = std::mem::take(&mut known.lost);
            debts.extend(std::mem::take(&mut known.owed));
            for (uid, accepted) in debts {
                self.judge_lost(id, uid, accepted, cx);
            }
        }
        let waiting: Vec<Uid> = self.aging.iter().chain(&self.patient).map(|(_, uid)| *uid).collect();
        for uid in waiting {
            self.judge_groups(uid, cx);
        }
    }

    /// Whether a session is owed a message that has not come, and nothing may have pushed it out of its queue.
    pub(super) fn is_owed(&mut self, id: u32, uid: Uid) -> bool {
        let State { clients, ids, limits, wills, .. } = self;
        let known = &ids[id as usize];
        let Some(message) = clients[uid.publisher.0 as usize].message(uid.number) else { return false };
        let Some(target) = message.targets.iter().find(|target| target.id == id) else { return false };
        let behind =
            target.behind.unwrap_or((known.matched - target.matched + *wills, known.matched_bytes - target.bytes));
        target.epoch == known.epoch
            && target.owed
            && !target.received
            && known.unsubscribed.is_empty()
            && !overflows(behind, limits.queue_len, limits.queue_bytes)
    }

    fn judge_lost(&mut self, id: u32, uid: Uid, accepted: Instant, cx: &mut Cx<'_>) {
        let arrived = self.lanes(self.ids[id as usize].node).by(accepted);
        let State { clients, ids, limits, wills, topics, .. } = self;
        let known = &ids[id as usize];
        let Some(message) = clients[uid.publisher.0 as usize].message(uid.number) else { return };
        let Some(target) = message.targets.iter().find(|target| target.id == id) else { return };
        if target.epoch != known.epoch || !target.owed || target.received {
            return;
        }
        let room = room_for(message.size, cx.text(topics[message.topic as usize].name));
        let behind =
            target.behind.unwrap_or((known.matched - target.matched + *wills, known.matched_bytes - target.bytes));
        // Who came later to the session may take less.
        if overflows(behind, limits.queue_len, limits.queue_bytes) || known.packet_max <= room {
            return;
        }
        let mut unsubscribed = known.unsubscribed.iter();
        if arrived > accepted && unsubscribed.any(|at| *at >= message.sent && *at <= arrived) {
            return;
        }
        let (from, to) = (topics[message.topic as usize].node, known.node);
        let forgotten = |node| self.ways.was_forgotten(node, message.sent);
        if self.ways.exist()
            && self.ways.were_apart(from, to, message.sent, accepted)
            && (forgotten(from) || forgotten(to))
        {
            // What was kept for it went with it.
            return;
        }
        let is_back = |node: u16| {
            let of = &self.nodes[usize::from(node)];
            !of.down && of.lives.stopped_since(Instant::START)
        };
        if self.ways.exist() && is_back(from) && is_back(to) && self.ways.were_apart(from, to, cx.now, cx.now) {
            // Both have started anew, and have not found each other: it waits.
            return;
        }
        let overtaken = target.behind.is_some();
        let (sent, topic, accepted_at, publisher) = (message.sent, message.topic, message.accepted_at, message.conn);
        let author = message.id;
        let by = (message.qos == QoS::ExactlyOnce).then_some(author);
        let crashed = self.nodes[usize::from(to)].lives.stopped_since(accepted);
        if self.ways.exist() && self.may_be_left_behind(id, (from, by), sent, accepted) {
            return;
        }
        if self.sent_again_badly(author, sent, accepted) {
            return;
        }
        let check = if crashed { Check::Durable } else { Check::Lost };
        self.lost(check, id, uid, (sent, accepted, accepted_at), (topic, publisher, overtaken), cx);
    }

    #[cold]
    #[allow(clippy::too_many_arguments)] // what the report tells
    fn lost(
        &mut self,
        check: Check,
        id: u32,
        uid: Uid,
        (sent, accepted, accepted_at): (Instant, Instant, Option<Instant>),
        (topic, publisher, overtaken): (u32, u32, bool),
        cx: &mut Cx<'_>,
    ) {
        let Some(current) = self.ids[id as usize].current else { return };
        let sub = self.subs_of(topic, id).iter().map(|(_, sub)| &self.subs[*sub as usize]).find(|sub| {
            sub.group.is_none()
                && sub.grants.iter().any(|grant| grant.acked.is_some() && grant.overlaps(sent, accepted))
        });
        let filter = sub.map(|sub| sub.filter);
        let granted = sub.and_then(|sub| {
            sub.grants.iter().rev().find(|grant| grant.overlaps(sent, accepted)).and_then(|grant| grant.acked)
        });
        let c = self.conn(current);
        let name = self.topics[topic as usize].name;
        let message = format!(
            "{} never received {uid} on {}, though the broker had accepted it from {} and had granted {} before",
            self.who(current),
            cx.text(name),
            self.who(publisher),
            filter.map_or("a filter", |filter| cx.names.text(filter))
        );
        let for_filter = filter.map_or_else(|| "its filter".to_owned(), |filter| cx.text(filter).to_owned());
        let mut story = Story::default()
            .uid(Some(uid))
            .topic(name)
            .filter(filter)
            .client(c.client)
            .client(self.conn(publisher).client)
            .conn(current)
            .conn(publisher)
            .when_some(granted, &format!("SUBACK for {for_filter} was written"))
            .when(sent, format!("PUBLISH {uid} was sent"))
            .when(accepted, "the broker wrote that it accepted it")
            .when_some(accepted_at, "the acknowledgement arrived")
            .when(cx.now, "quiescence, never received");
        if c.connect_at > sent {
            story = story.when(c.connect_at, "the subscriber connected again, to the same session");
        }
        if overtaken {
            story = story.when(c.last_receive, "the subscriber got later messages");
        }
        if check == Check::Durable {
            story = story.when_some(self.nodes[usize::from(c.node)].lost, "the node started again");
        }
        cx.violated(check, message, story);
    }
}

/// Whether the oldest of a queue may have been dropped with so many messages and bytes from it on.
pub(super) fn overflows((count, bytes): (u64, u64), len_max: u64, bytes_max: u64) -> bool {
    count > len_max || bytes > bytes_max
}

/// The largest packet that a message may become.
fn room_for(size: u32, topic: &str) -> u32 {
    size.saturating_add(topic.len() as u32 + 200)
}
