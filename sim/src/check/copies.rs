//! How many times a message may come: S3 and S4.

use std::collections::{BTreeMap, BTreeSet};

use newtmq_base::Instant;
use newtmq_mqtt::QoS;

use super::deliveries::{Before, Facts};
use super::state::State;
use super::subscriptions::Grant;
use super::witness::{Cx, Story};
use crate::history::{ConnIx, ReceiveFacts, Uid};
use crate::report::Check;
use crate::scenario::DurabilitySpec;

impl State {
    /// Copies that were for one group and may have gone to another one: of what a member of several has not acknowledged when its
    /// session ends it is not known which group it is for.
    pub(super) fn strays(&self, message: &Facts, id: u32) -> u32 {
        let mut groups: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        for (other, sub) in self.topics[message.topic as usize].subs.iter().filter(|(other, _)| *other != id) {
            let sub = &self.subs[*sub as usize];
            // A client that is frozen, say, does not see the end of its connection, and so of its session.
            let may_be_over = || {
                let mut live = self.ids[*other as usize].live.iter();
                live.any(|conn| self.conn(*conn).earliest_end().is_some())
            };
            let ended = |grant: &Grant| grant.to >= message.sent && (grant.to < Instant::NEVER || may_be_over());
            let ended = sub.grants.iter().any(ended);
            if let Some(group) = sub.group.filter(|_| ended) {
                groups.entry(*other).or_default().insert(group);
            }
        }
        groups.values().map(|groups| groups.len() as u32 - 1).sum()
    }

    /// Whether there is a reason for a copy more: beside that one, that its session or its publisher's was on its way, and something
    /// was wrong.
    pub(super) fn may_repeat(&self, message: &Facts, id: u32, now: Instant) -> bool {
        let moved = |of| self.ways.exist() && self.moved_badly(of, message.sent, now);
        // What a member of a group has not acknowledged when its session ends is given to another one.
        let mut members = self.topics[message.topic as usize].subs.iter();
        let mut of_group = || members.any(|(other, sub)| self.subs[*sub as usize].group.is_some() && moved(*other));
        self.were_parted(message, id, now) || moved(id) || moved(message.id) || of_group()
    }

    /// Whether a QoS 2 message may have been kept for a node that has had it and was told to forget it: its publisher's session
    /// was over before it was acknowledged, or nothing waits for the disk, and the node that kept it does not know any more
    /// that it had sent it.
    fn may_be_nameless(&self, message: &Facts, id: u32, now: Instant) -> bool {
        let node = self.node_of_topic(message.topic);
        let is_over = message.accepted.is_none() && self.ids[message.id as usize].ended >= message.sent
            || self.limits.durability == Some(DurabilitySpec::None);
        let has_stopped = || self.nodes[usize::from(node)].lives.stops_since(message.sent) > 0;
        is_over && has_stopped() && self.were_parted(message, id, now)
    }

    /// Whether a session has subscribed once to what matches a message, of the only publisher of its retained topic.
    pub(super) fn reads_once(&self, message: &Facts, id: u32) -> bool {
        let [(_, sub)] = self.subs_of(message.topic, id) else { return false };
        let [grant] = &self.subs[*sub as usize].grants[..] else { return false };
        let topic = &self.topics[message.topic as usize];
        let node = self.ids[id as usize].node;
        // What came live from the node alone is another entry for the cluster that it comes into.
        let is_alone = self.ways.exist() && self.ways.shares_since(node).is_none_or(|since| since >= grant.from);
        message.logical == 1
            && !is_alone
            && self.nodes[usize::from(self.ids[id as usize].node)].lives.stops_since(grant.from) == 0
            && topic.register.as_deref().is_some_and(|register| register.is_of(message.conn))
    }

    /// A copy with DUP of what had come before.
    pub(super) fn judge_again(
        &mut self,
        conn: u32,
        facts: &ReceiveFacts,
        message: &Facts,
        before: Before,
        cx: &mut Cx<'_>,
    ) {
        let c = self.conn(conn);
        let retries = c.may_resend(self.limits.retries);
        if facts.qos != QoS::AtLeastOnce || retries || before.conn == u32::MAX {
            return;
        }
        let first = (before.received_at, before.conn);
        if before.conn == conn {
            if message.logical == 1 {
                let text = "again in the same connection";
                self.duplicate(Check::Duplicate, conn, facts, message, first, text, cx);
            }
            return;
        }
        let old = self.conn(before.conn);
        let long = core::time::Duration::from_secs(5) + self.limits.late;
        // Nobody waits until an acknowledgement of a client is stored.
        let forgotten = |acked| self.nodes[usize::from(old.node)].lives.may_forget(acked);
        let arrived =
            before.acked.is_some_and(|acked| !forgotten(acked) && old.closed.is_some_and(|(at, _)| acked + long < at));
        if arrived && old.is_plain() && c.is_plain() && message.logical == 1 {
            let text = "again, though it had acknowledged it long before the connection ended";
            self.duplicate(Check::Duplicate, conn, facts, message, first, text, cx);
        }
    }

    pub(super) fn judge_first_dup(&mut self, conn: u32, facts: &ReceiveFacts, message: &Facts, cx: &mut Cx<'_>) {
        let c = self.conn(conn);
        if !c.first || c.may_resend(self.limits.retries) || c.rival.is_some() {
            return;
        }
        if facts.qos == QoS::AtMostOnce {
            return self.wrong(conn, facts, message, "DUP is set with QoS 0", cx);
        }
        self.wrong(conn, facts, message, "DUP is set in the first delivery of a new session", cx);
    }

    #[cold]
    #[allow(clippy::too_many_arguments)] // what the report tells
    pub(super) fn duplicate(
        &mut self,
        check: Check,
        conn: u32,
        facts: &ReceiveFacts,
        message: &Facts,
        (first_at, first_conn): (Instant, u32),
        text: &str,
        cx: &mut Cx<'_>,
    ) {
        let name = self.topics[message.topic as usize].name;
        let what = format!("{} received {} on {} {text}", self.who(conn), message.uid, cx.text(name));
        let mut story = Story::default()
            .uid(Some(message.uid))
            .topic(name)
            .client(self.conn(conn).client)
            .conn(message.conn)
            .conn(conn)
            .when(message.sent, format!("PUBLISH {} was sent", message.uid))
            .when(first_at, "the copy before was received")
            .when(cx.now, format!("one more was received with QoS {}", facts.qos as u8));
        if first_conn != u32::MAX {
            story = story.conn(first_conn);
        }
        cx.violated(check, what, story);
    }

    /// The client hands a message to its application.
    pub(super) fn handed(&mut self, conn: ConnIx, uid: Uid, qos: QoS, cx: &mut Cx<'_>) {
        if qos != QoS::ExactlyOnce || self.conn(conn.0).wild {
            return;
        }
        cx.owe(Check::Twice);
        let c = self.conn(conn.0);
        let Some((_, retained, dup)) = c.last.filter(|(last, ..)| *last == uid) else { return };
        let id = c.id;
        if (dup && self.ids[id as usize].several) || self.is_stale(conn.0) || self.ids[id as usize].forked {
            // Another client may have begun the exchange.
            return;
        }
        let Some(message) = self.message(uid) else { return };
        let message = Facts::new(uid, message);
        let explained = self.explain(&message, id, cx.now);
        let epoch = self.ids[id as usize].epoch;
        let known = &self.ids[id as usize];
        let counts = known.settled;
        let Some(of) = self.message(uid) else { return };
        let target = of.target(id, epoch, counts);
        if retained {
            target.handed_retained += 1;
        } else {
            target.handed += 1;
        }
        let live = message.logical * (u32::from(explained.plain) + explained.shared).max(1);
        let reads = message.logical * explained.reads;
        let both = target.handed + target.handed_retained;
        if target.handed <= live && target.handed_retained <= live + reads && both <= live + reads {
            return;
        }
        let (count, first, live_ones) = (both, target.received_at, target.handed);
        let woken = message.will.map_or(0, |of| self.woken_since(of));
        let strays = if explained.shared > 0 { self.strays(&message, id) } else { 0 };
        if live_ones <= live + strays + woken && both <= live + reads + strays + woken {
            return;
        }
        // What a session has got while it was on its way is not stored by name.
        let moved = |of| self.ways.exist() && self.moved_badly(of, message.sent, cx.now);
        if moved(id) || moved(message.id) || self.may_be_nameless(&message, id, cx.now) {
            return;
        }
        let name = self.topics[message.topic as usize].name;
        let text = format!("{} handed {uid} on {} onward {count} times", self.who(conn.0), cx.text(name));
        let story = Story::default()
            .uid(Some(uid))
            .topic(name)
            .client(self.conn(conn.0).client)
            .conn(message.conn)
            .conn(conn.0)
            .when(message.sent, format!("PUBLISH {uid} was sent"))
            .when(first, "a PUBLISH with it was received")
            .when(cx.now, "it was handed onward once more");
        cx.violated(Check::Twice, text, story);
    }
}
