//! Subscriptions: from when until when each one certainly, or possibly, existed and with which options; and which of them
//! a topic matches.

use newtmq_base::Instant;
use newtmq_mqtt::{QoS, ReasonCode, RetainHandling, TopicFilter, TopicName};

use super::limits::CONTROL_BYTES;
use super::state::{State, Topic};
use super::witness::{Cx, Story};
use crate::history::{ConnIx, FilterFacts, NameIx};
use crate::report::Check;

/// A filter of a Client Identifier.
#[derive(Debug)]
pub(super) struct Sub {
    pub(super) id: u32,
    pub(super) filter: NameIx,
    /// Of a shared subscription.
    pub(super) group: Option<u32>,
    /// Since when it certainly exists, without a break; none if it may not.
    pub(super) certain: Option<Instant>,
    /// The connection and the event whose SUBSCRIBE made it certain: it counts for what that connection sends next, for
    /// packets of a connection are worked off in their order.
    by: (u32, u64),
    /// When it certainly began a new life: the SUBSCRIBE, and whether that asks for retained messages.
    pub(super) began: Option<(Instant, bool)>,
    /// By SUBSCRIBE, in order.
    pub(super) grants: Vec<Grant>,
    /// UNSUBSCRIBEs that are not answered.
    unanswered: Vec<(u32, u16, u64)>,
}

/// What one SUBSCRIBE may have made of a subscription.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    key: (u32, u16, u16),
    epoch: u32,
    /// Number of the event that sent it.
    sequence: u64,
    /// SUBSCRIBE was sent.
    pub(super) from: Instant,
    /// It surely does not count any more; [`Instant::NEVER`] while it may.
    pub(super) to: Instant,
    /// SUBACK was written.
    pub(super) acked: Option<Instant>,
    /// The QoS that was granted; before SUBACK the one asked for.
    pub(super) qos: QoS,
    pub(super) no_local: bool,
    pub(super) retain_as_published: bool,
    pub(super) retain_handling: RetainHandling,
    /// Subscription Identifier, or 0.
    pub(super) identifier: u32,
    /// There may have been no such subscription before.
    pub(super) fresh: bool,
}

impl Sub {
    /// Whether it certainly exists for what a connection sent first with this event, at `sent`.
    pub(super) fn counts_for(&self, conn: u32, sequence: u64, sent: Instant) -> bool {
        self.certain.is_some_and(|certain| certain < sent || (self.by.0 == conn && self.by.1 < sequence))
    }
}

impl Grant {
    /// Whether it may have counted at some time from `from` to `to`.
    #[inline]
    pub(super) fn overlaps(&self, from: Instant, to: Instant) -> bool {
        self.from <= to && self.to >= from
    }

    /// Whether it asks for retained messages, as far as that is known.
    pub(super) fn may_read(&self) -> bool {
        match self.retain_handling {
            RetainHandling::SendAtSubscribe => true,
            RetainHandling::SendIfNew => self.fresh,
            RetainHandling::DoNotSend => false,
        }
    }
}

/// A group of shared subscriptions: its members' subscriptions.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) filter: NameIx,
    pub(super) members: Vec<u32>,
}

/// A SUBSCRIBE or UNSUBSCRIBE that is not answered.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) subscribe: bool,
    pub(super) pid: u16,
    sequence: u64,
    pub(super) at: Instant,
    pub(super) subs: Vec<u32>,
}

impl State {
    fn sub_of(&mut self, id: u32, filter: NameIx, cx: &Cx<'_>) -> u32 {
        if let Some(sub) = self.sub_numbers.get(&(id, filter)) {
            return *sub;
        }
        let sub = self.subs.len() as u32;
        // A group has its members at any node of a cluster.
        let node = if self.ways.exist() { 0 } else { self.ids[id as usize].node };
        let shared = TopicFilter::new(cx.text(filter)).is_ok_and(|parsed| parsed.share_group().is_some());
        let group = shared.then(|| {
            if let Some(group) = self.group_numbers.get(&(node, filter)) {
                return *group;
            }
            let group = self.groups.len() as u32;
            self.groups.push(Group { filter, members: Vec::new() });
            self.group_numbers.insert((node, filter), group);
            group
        });
        if let Some(group) = group {
            self.groups[group as usize].members.push(sub);
        }
        let (grants, unanswered) = (Vec::new(), Vec::new());
        self.subs.push(Sub { id, filter, group, certain: None, by: (0, 0), began: None, grants, unanswered });
        self.sub_numbers.insert((id, filter), sub);
        self.ids[id as usize].subs.push(sub);
        sub
    }

    pub(super) fn subscribe(
        &mut self,
        conn: ConnIx,
        pid: u16,
        identifier: Option<u32>,
        filters: &[FilterFacts],
        cx: &mut Cx<'_>,
    ) {
        cx.owe(Check::RequestAnswered);
        let sequence = self.sequence;
        let id = self.conn(conn.0).id;
        let epoch = self.ids[id as usize].epoch;
        let mut subs = Vec::with_capacity(filters.len());
        for (index, facts) in filters.iter().enumerate() {
            let text = cx.text(facts.filter);
            let parsed = TopicFilter::new(text);
            if parsed.is_err() || parsed.is_ok_and(|f| f.share_group().is_some() && facts.no_local) {
                self.conn_mut(conn).odd = true;
            }
            let sub = self.sub_of(id, facts.filter, cx);
            subs.push(sub);
            let sub = &mut self.subs[sub as usize];
            let grant = Grant {
                key: (conn.0, pid, index as u16),
                epoch,
                sequence,
                from: cx.now,
                to: Instant::NEVER,
                acked: None,
                qos: facts.qos,
                no_local: facts.no_local,
                retain_as_published: facts.retain_as_published,
                retain_handling: facts.retain_handling,
                identifier: identifier.unwrap_or(0),
                fresh: sub.certain.is_none(),
            };
            let new = sub.grants.last().is_none_or(|last| last.to < Instant::NEVER);
            let less = sub.grants.iter().any(|other| other.to == Instant::NEVER && other.qos > facts.qos);
            prune(&mut sub.grants, cx.now);
            sub.grants.push(grant);
            if new {
                self.count_on_their_way(subs[index], cx);
            }
            if less {
                // What is on its way from another shard may be delivered with QoS 0.
                self.ids[id as usize].unsubscribed.push(cx.now);
            }
        }
        let texts: usize = filters.iter().map(|facts| cx.text(facts.filter).len() + 3).sum();
        let c = self.conn_mut(conn);
        c.sent_bytes += CONTROL_BYTES + texts as u64;
        c.requests.push(Request { subscribe: true, pid, sequence, at: cx.now, subs });
    }

    pub(super) fn suback(&mut self, conn: ConnIx, pid: u16, codes: &[ReasonCode], sent_at: Instant, cx: &mut Cx<'_>) {
        self.served(conn.0, sent_at, "SUBACK", cx);
        let c = self.conn_mut(conn);
        c.heard = c.heard.max(sent_at);
        let Some(at) = c.requests.iter().position(|request| request.subscribe && request.pid == pid) else { return };
        let request = c.requests.remove(at);
        let id = c.id;
        let wild = c.wild;
        self.settle(conn.0, request.sequence, cx.now);
        if wild {
            // It may answer a SUBSCRIBE that nobody knows of.
            return;
        }
        let epoch = self.ids[id as usize].epoch;
        if codes.len() != request.subs.len() {
            let message = format!(
                "{}: SUBACK has {} reason codes for {} filters",
                self.who(conn.0),
                codes.len(),
                request.subs.len()
            );
            let story =
                Story::default().client(self.conn(conn.0).client).conn(conn.0).when(request.at, "SUBSCRIBE was sent");
            cx.violated(Check::Protocol, message, story);
        }
        for (index, (sub, code)) in request.subs.iter().zip(codes).enumerate() {
            self.granted(*sub, (conn.0, pid, index as u16), epoch, *code, sent_at, cx);
        }
    }

    fn granted(
        &mut self,
        sub: u32,
        key: (u32, u16, u16),
        epoch: u32,
        code: ReasonCode,
        sent_at: Instant,
        cx: &mut Cx<'_>,
    ) {
        let max_qos = self.limits.max_qos;
        let undone = self.is_undone(key.0);
        let sub = &mut self.subs[sub as usize];
        let Some(at) = sub.grants.iter().position(|grant| grant.key == key && grant.to == Instant::NEVER) else {
            return;
        };
        let Some(qos) = QoS::from_bits(code.code()).filter(|_| !code.is_error()) else {
            sub.grants.remove(at);
            return;
        };
        let grant = &mut sub.grants[at];
        let (asked, from, sequence) = (grant.qos, grant.from, grant.sequence);
        if qos as u8 != (asked as u8).min(max_qos) {
            let story = Story::default().filter(Some(sub.filter)).conn(key.0).when(from, "SUBSCRIBE was sent");
            let message = format!(
                "{} was granted QoS {} where QoS {} was asked for",
                cx.text(sub.filter),
                qos as u8,
                asked as u8
            );
            cx.violated(Check::Content, message, story);
        }
        let grant = &mut sub.grants[at];
        grant.qos = qos;
        grant.acked = Some(sent_at);
        let (same, fresh, reads) = (grant.epoch == epoch, grant.fresh, grant.may_read());
        let reads_always = grant.retain_handling == RetainHandling::SendAtSubscribe;
        let earlier_open = sub.grants[..at].iter().any(|grant| grant.to == Instant::NEVER);
        for earlier in sub.grants[..at].iter_mut().filter(|_| !undone) {
            earlier.to = earlier.to.min(sent_at);
        }
        if !same || sub.unanswered.iter().any(|(_, _, at)| *at > sequence) {
            return;
        }
        if sub.certain.is_none() {
            sub.certain = Some(sent_at);
            sub.by = (key.0, sequence);
            // With SendIfNew only a subscription that surely was not there gets them for sure.
            sub.began = Some((from, reads && (reads_always || (fresh && !earlier_open))));
        }
    }

    pub(super) fn unsubscribe(&mut self, conn: ConnIx, pid: u16, filters: &[NameIx], cx: &mut Cx<'_>) {
        cx.owe(Check::RequestAnswered);
        let sequence = self.sequence;
        let id = self.conn(conn.0).id;
        let mut subs = Vec::with_capacity(filters.len());
        for filter in filters {
            if TopicFilter::new(cx.text(*filter)).is_err() {
                self.conn_mut(conn).odd = true;
            }
            let sub = self.sub_of(id, *filter, cx);
            subs.push(sub);
            let sub = &mut self.subs[sub as usize];
            sub.certain = None;
            sub.unanswered.push((conn.0, pid, sequence));
        }
        self.ids[id as usize].unsubscribed.push(cx.now);
        let texts: usize = filters.iter().map(|filter| cx.text(*filter).len() + 2).sum();
        let c = self.conn_mut(conn);
        c.sent_bytes += CONTROL_BYTES + texts as u64;
        c.requests.push(Request { subscribe: false, pid, sequence, at: cx.now, subs });
    }

    pub(super) fn unsuback(&mut self, conn: ConnIx, pid: u16, cx: &mut Cx<'_>) {
        let c = self.conn_mut(conn);
        let Some(at) = c.requests.iter().position(|request| !request.subscribe && request.pid == pid) else { return };
        let request = c.requests.remove(at);
        self.settle(conn.0, request.sequence, cx.now);
        // The node may have lost that it did so.
        let undone = self.is_undone(conn.0);
        for sub in request.subs {
            let sub = &mut self.subs[sub as usize];
            sub.unanswered.retain(|(at, of, _)| (*at, *of) != (conn.0, pid));
            for grant in sub.grants.iter_mut().filter(|grant| !undone && grant.sequence < request.sequence) {
                grant.to = grant.to.min(cx.now);
            }
        }
    }

    /// Whether what a connection was told may not count any more.
    fn is_undone(&self, conn: u32) -> bool {
        let c = self.conn(conn);
        self.ids[c.id as usize].revived >= c.connect_at && self.limits.durability.is_some()
    }

    /// The session has ended by `at`, and all its subscriptions.
    pub(super) fn end_subscriptions(&mut self, id: u32, at: Instant) {
        for sub in &self.ids[id as usize].subs {
            let sub = &mut self.subs[*sub as usize];
            sub.certain = None;
            sub.unanswered.clear();
            for grant in &mut sub.grants {
                grant.to = grant.to.min(at);
            }
        }
    }

    /// What has ended since may be there again: the node has lost that it ended.
    pub(super) fn reopen_subscriptions(&mut self, id: u32, since: Instant) {
        for sub in &self.ids[id as usize].subs {
            for grant in self.subs[*sub as usize].grants.iter_mut().filter(|grant| grant.to >= since) {
                grant.to = Instant::NEVER;
            }
        }
    }

    /// The session may have ended.
    pub(super) fn doubt_subscriptions(&mut self, id: u32) {
        for sub in &self.ids[id as usize].subs {
            self.subs[*sub as usize].certain = None;
        }
    }

    /// A topic, with all subscriptions that match it.
    #[inline]
    pub(super) fn topic_of(&mut self, node: u16, name: NameIx, cx: &Cx<'_>) -> u32 {
        let numbers = &self.nodes[usize::from(node)].topics;
        let topic = match numbers.get(name.0 as usize).copied().flatten() {
            Some(topic) => topic,
            None => self.new_topic(node, name),
        };
        if self.topics[topic as usize].seen < self.subs.len() {
            self.match_topic(topic, cx);
        }
        topic
    }

    fn new_topic(&mut self, node: u16, name: NameIx) -> u32 {
        let topic = self.topics.len() as u32;
        self.topics.push(Topic { name, node, seen: 0, subs: Vec::new(), shared: false, register: None });
        let numbers = &mut self.nodes[usize::from(node)].topics;
        numbers.resize(numbers.len().max(name.0 as usize + 1), None);
        numbers[name.0 as usize] = Some(topic);
        topic
    }

    pub(super) fn match_topic(&mut self, topic: u32, cx: &Cx<'_>) {
        let State { topics, subs, ids, ways, .. } = self;
        let topic = &mut topics[topic as usize];
        let new = topic.seen..subs.len();
        topic.seen = subs.len();
        let Ok(name) = TopicName::new(cx.text(topic.name)) else { return };
        let before = topic.subs.len();
        for number in new {
            let sub = &subs[number];
            if ids[sub.id as usize].node != topic.node && !ways.exist() {
                continue;
            }
            if TopicFilter::new(cx.text(sub.filter)).is_ok_and(|filter| filter.matches(name)) {
                topic.subs.push((sub.id, number as u32));
                topic.shared |= sub.group.is_some();
            }
        }
        if topic.subs.len() > before {
            topic.subs.sort_unstable();
        }
    }

    /// The subscriptions of a session that match a topic, as a range of [`Topic::subs`].
    #[inline]
    pub(super) fn subs_of(&self, topic: u32, id: u32) -> &[(u32, u32)] {
        let subs = &self.topics[topic as usize].subs;
        let from = subs.partition_point(|(other, _)| *other < id);
        let count = subs[from..].iter().take_while(|(other, _)| *other == id).count();
        &subs[from..from + count]
    }
}

/// Forgets what ended long ago, as far as it takes no sharpness: of many ended grants the oldest two become one.
fn prune(grants: &mut Vec<Grant>, now: Instant) {
    const KEPT: usize = 24;
    while grants.len() > KEPT && grants[0].to < now && grants[1].to < now {
        let oldest = grants.remove(0);
        if oldest.qos == grants[0].qos && oldest.identifier == grants[0].identifier {
            grants[0].from = oldest.from;
        }
    }
}
