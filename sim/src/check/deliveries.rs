//! Deliveries: what may come (S2), and to which connection (S6).

use newtmq_base::Instant;
use newtmq_mqtt::{QoS, RetainHandling};

use super::hops::back;
use super::publishes::Message;
use super::state::State;
use super::witness::Cx;
use crate::history::{ConnIx, ReceiveFacts, SnConnect, Uid};
use crate::report::Check;

/// Which subscriptions of a session can explain a delivery.
#[derive(Debug, Default)]
pub(super) struct Explained {
    /// A live copy for a subscription that is not shared.
    pub(super) plain: bool,
    /// Live copies for shared subscriptions.
    pub(super) shared: u32,
    /// Possible QoS of live copies, as bits; then of retained ones.
    pub(super) live_qos: u8,
    pub(super) retained_qos: u8,
    /// Some, or all, of them have Retain As Published.
    pub(super) as_published: bool,
    pub(super) all_as_published: bool,
    /// SUBSCRIBEs that ask for retained messages, and the earliest of those that still count.
    pub(super) reads: u32,
    pub(super) since: Option<Instant>,
    /// Only No Local stands against it.
    pub(super) own: bool,
    /// The least QoS of a live copy that a certain subscription grants.
    pub(super) least: u8,
}

/// What a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Live,
    Retained,
    /// It may be either.
    Either,
}

/// What a session had of a message before a copy came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before {
    received: bool,
    /// It had come before its session was in doubt.
    earlier: bool,
    copies: u32,
    pub(super) acked: Option<Instant>,
    /// Connection of the last copy, and when it came.
    pub(super) conn: u32,
    pub(super) received_at: Instant,
}

/// The parts of a message that rules about its deliveries look at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub(super) uid: Uid,
    pub(super) topic: u32,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) will: Option<u32>,
    pub(super) expiry_s: Option<u32>,
    pub(super) sent: Instant,
    pub(super) accepted: Option<Instant>,
    pub(super) logical: u32,
    pub(super) forgotten: u32,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) id: u32,
    pub(super) conn: u32,
    /// Of its publisher's session.
    pub(super) epoch: u32,
}

impl Facts {
    pub(super) fn new(uid: Uid, message: &Message) -> Facts {
        let Message {
            topic,
            qos,
            retain,
            will,
            expiry_s,
            sent,
            accepted,
            logical,
            forgotten,
            first,
            last,
            id,
            conn,
            epoch,
            ..
        } = *message;
        Facts {
            uid,
            topic,
            qos,
            retain,
            will,
            expiry_s,
            sent,
            accepted,
            logical,
            forgotten,
            first,
            last,
            id,
            conn,
            epoch,
        }
    }
}

impl State {
    pub(super) fn receive(&mut self, conn: ConnIx, facts: &ReceiveFacts, cx: &mut Cx<'_>) {
        let conn = conn.0;
        let c = self.conn_mut(ConnIx(conn));
        c.heard = c.heard.max(facts.sent_at);
        c.last_receive = cx.now;
        let id = c.id;
        if c.wild {
            return;
        }
        // What comes late on a connection that was taken over says little: its order to the others is unknown.
        let stale = self.is_stale(conn);
        if !stale {
            self.fly(conn, facts, cx);
        }
        // Nor does it where two sessions of one client become one.
        let stale = stale || self.ids[id as usize].forked;
        self.served(conn, facts.sent_at, "PUBLISH", cx);
        self.judge_silence(conn, facts.sent_at, cx);
        cx.owe(Check::Phantom);
        cx.owe(Check::Content);
        let Some(uid) = facts.uid.filter(|_| facts.intact) else { return self.unnamed(conn, facts, cx) };
        let unknown = self.clients.get(uid.publisher.0 as usize).is_none_or(|client| client.never_sent(uid.number));
        if unknown {
            return self.phantom(conn, facts, None, "but nobody had published it", cx);
        }
        // What was forgotten was complete long ago.
        let Some(message) = self.message(uid) else { return };
        let message = Facts::new(uid, message);
        self.conn_mut(ConnIx(conn)).last = Some((uid, facts.retain, facts.dup));
        if self.topics[message.topic as usize].name != facts.topic {
            let published = cx.text(self.topics[message.topic as usize].name).to_owned();
            let text = format!("its topic is {}, it was published to {published}", cx.text(facts.topic));
            return self.wrong(conn, facts, &message, &text, cx);
        }
        if self.topics[message.topic as usize].seen < self.subs.len() {
            self.match_topic(message.topic, cx);
        }
        let explained = self.explain(&message, id, facts.sent_at);
        if stale {
            return self.receive_stale(conn, facts, &message, id, cx);
        }
        let Some(kind) = self.kind_of(conn, facts, &message, &explained, cx) else { return };
        self.judge_content(conn, facts, &message, &explained, kind, cx);
        self.judge_copy(conn, facts, &message, &explained, kind, cx);
    }

    /// Whether a connection has been taken over, or belongs to an earlier life of its node.
    pub(super) fn is_stale(&self, conn: u32) -> bool {
        let c = self.conn(conn);
        let Some(own) = c.connack else { return true };
        let lost = self.nodes[usize::from(c.node)].lost.is_some_and(|lost| own.sent_at <= lost);
        let newer = self.ids[c.id as usize].current.filter(|newer| *newer != conn);
        lost || newer.and_then(|newer| self.conn(newer).connack).is_some_and(|other| other.sent_at >= own.sent_at)
    }

    fn receive_stale(&mut self, conn: u32, facts: &ReceiveFacts, message: &Facts, id: u32, cx: &mut Cx<'_>) {
        let known = &self.ids[id as usize];
        let (epoch, counts) = (known.epoch, known.settled);
        if let Some(newer) = known.current
            && let (Some(own), Some(other)) = (self.conn(conn).connack, self.conn(newer).connack)
            && own.sent_at < other.sent_at
            && message.sent > other.sent_at
            && message.will.is_none()
        {
            return self.two_served(conn, newer, facts.sent_at, "PUBLISH", cx);
        }
        let Some(of) = self.message(message.uid) else { return };
        let target = of.target(id, epoch, counts);
        target.received = true;
        (target.conn, target.received_at, target.acked) = (conn, cx.now, None);
        target.came_with(facts.pid.unwrap_or(0), conn);
        if self.topics[message.topic as usize].shared {
            self.doubt_groups(message.uid);
        }
    }

    /// Which subscriptions explain a copy that is written at `now`.
    pub(super) fn explain(&self, message: &Facts, id: u32, now: Instant) -> Explained {
        let mut explained = Explained { all_as_published: true, ..Explained::default() };
        let mut since_old = None;
        // Once it is accepted, who gets it is decided, but for what is under way between shards.
        let from = self.node_of_topic(message.topic);
        let until = match message.accepted.filter(|_| message.logical == 1) {
            // What waits for a node finds who is there when that is back.
            Some(_) if self.may_have_waited(message, id, now) => now,
            Some(accepted) if self.ways.exist() => now.min(self.lanes(from).by(accepted)),
            Some(accepted) => now.min(accepted + self.lane_slack() + self.nodes[usize::from(from)].paused),
            None => now,
        };
        let node = self.ids[id as usize].node;
        let lives = &self.nodes[usize::from(node)].lives;
        let moves = |since| if self.ways.exist() { self.moves_since(id, since) } else { 0 };
        // At a gateway a copy waits until its client has answered what is before it, whatever the client asks for meanwhile.
        let waits = self.ids[id as usize].current.is_some_and(|conn| self.conn(conn).sn.is_some());
        for (_, sub) in self.subs_of(message.topic, id) {
            let sub = &self.subs[*sub as usize];
            let mut least = 3;
            let mut shared = false;
            // A SUBSCRIBE that need not read again does not end the reading of an earlier one.
            let goes_on = sub.grants.last().is_some_and(|last| last.retain_handling != RetainHandling::SendAtSubscribe);
            for grant in sub.grants.iter().filter(|grant| grant.from <= now) {
                let qos = if self.limits.upgrade_qos { grant.qos } else { grant.qos.min(message.qos) } as u8;
                // Before SUBACK a lower QoS than asked for may be granted.
                let mask = if grant.acked.is_some() { 1 << qos } else { (2 << qos) - 1 };
                let no_local = (grant.no_local || self.limits.ignore_loop) && !self.is_of_cluster(message);
                let own = message.id == id && no_local && sub.group.is_none();
                // What a member has not acknowledged may go to one that has come since.
                let until = if sub.group.is_some() && message.qos > QoS::AtMostOnce { now } else { until };
                if grant.overlaps(message.sent, until) {
                    if own {
                        explained.own = true;
                        // It gives this copy nothing.
                        least = 0;
                    } else {
                        explained.live_qos |= mask;
                        explained.plain |= sub.group.is_none();
                        shared |= sub.group.is_some();
                        explained.as_published |= grant.retain_as_published;
                        explained.all_as_published &= grant.retain_as_published;
                        least = least.min(if grant.acked.is_some() { qos } else { 0 });
                    }
                }
                // Without a cluster what is retained stays at its publisher's node.
                if message.retain && sub.group.is_none() && grant.may_read() && (node == from || self.ways.exist()) {
                    // A reading that a stop interrupts begins anew.
                    explained.reads += 1 + lives.stops_since(grant.from) + moves(grant.from);
                    explained.retained_qos |= mask;
                    let counts = grant.to == Instant::NEVER || goes_on || waits;
                    let earliest = if counts { &mut explained.since } else { &mut since_old };
                    *earliest = Some(earliest.map_or(grant.from, |since: Instant| since.min(grant.from)));
                }
            }
            explained.shared += u32::from(shared);
            if sub.certain.is_some_and(|certain| certain < message.sent) && sub.group.is_none() && least < 3 {
                explained.least = explained.least.max(least);
            }
        }
        explained.since = explained.since.or(since_old);
        explained
    }

    /// Live or retained; none if it is neither, which is reported.
    fn kind_of(
        &mut self,
        conn: u32,
        facts: &ReceiveFacts,
        message: &Facts,
        explained: &Explained,
        cx: &mut Cx<'_>,
    ) -> Option<Kind> {
        let live = explained.plain || explained.shared > 0;
        let id = self.conn(conn).id;
        // One that nobody could tell that it has gone takes what is for it, and hands it on, but for a clean start.
        let was_subscribed = self.ways.exist() && !self.subs_of(message.topic, id).is_empty();
        let is_handed_on = || self.may_be_left_since(id, message.sent) || self.is_slow_move(id, message.sent, cx.now);
        let is_left = was_subscribed && !self.conn(conn).clean && is_handed_on();
        if !facts.retain {
            if live {
                return Some(Kind::Live);
            }
            // A node that starts again has forgotten which of them it is not to take when they are handed on.
            let is_own = explained.own && self.ways.exist() && self.moved_badly(id, message.sent, cx.now);
            if is_own
                || !explained.own && is_left
                || was_subscribed && self.moved_over_a_start(id, message.sent, cx.now)
            {
                return None;
            }
            let text = if explained.own {
                "but it is its own message and the subscription has No Local"
            } else if explained.reads > 0 {
                "as a live copy, but it subscribed when the message was retained, and RETAIN is not set"
            } else {
                "but had no subscription for it at any time since it was published"
            };
            self.phantom(conn, facts, Some(message), text, cx);
            return None;
        }
        if !message.retain {
            self.wrong(conn, facts, message, "RETAIN is set, but it was published without", cx);
            return None;
        }
        match (live && explained.as_published, explained.reads > 0) {
            (true, true) => Some(Kind::Either),
            (true, false) => Some(Kind::Live),
            (false, true) => Some(Kind::Retained),
            (false, false) if live => {
                self.wrong(conn, facts, message, "RETAIN is set in a live copy without Retain As Published", cx);
                None
            }
            (false, false) if is_left => None,
            (false, false) => {
                self.phantom(conn, facts, Some(message), "with RETAIN, but no subscription asked for it", cx);
                None
            }
        }
    }

    /// How many times it came, and in which order.
    fn judge_copy(
        &mut self,
        conn: u32,
        facts: &ReceiveFacts,
        message: &Facts,
        explained: &Explained,
        kind: Kind,
        cx: &mut Cx<'_>,
    ) {
        let now = cx.now;
        let id = self.conn(conn).id;
        let known = &self.ids[id as usize];
        let (epoch, counts) = (known.epoch, known.settled);
        let (is_sn, unreliable) = (self.conn(conn).sn.is_some(), self.limits.sn_unreliable);
        let Some(of) = self.message(message.uid) else { return };
        let target = of.target(id, epoch, counts);
        let before = Before {
            received: target.received,
            earlier: target.earlier,
            copies: target.copies,
            acked: target.acked,
            conn: target.conn,
            received_at: target.received_at,
        };
        target.received = true;
        target.received_at = now;
        target.conn = conn;
        let live = message.logical * (u32::from(explained.plain) + explained.shared);
        let pid = facts.pid.unwrap_or(0);
        let known = target.copies_known().find(|(other, _)| *other == pid && pid > 0);
        // A copy keeps its Packet Identifier when it is sent again.
        let last_conn = known.map(|(_, last)| core::mem::replace(last, conn));
        // A datagram that was sent before the one with DUP may come behind it.
        let late_first = is_sn && (unreliable || facts.sent_at < before.received_at);
        let again = (facts.dup || late_first) && last_conn.is_some();
        if last_conn != Some(conn) {
            // What was acknowledged was another copy, or this one on another connection.
            target.acked = None;
        }
        if !again {
            target.came_with(pid, conn);
            target.acked = None;
            match kind {
                Kind::Live => target.copies += 1,
                Kind::Retained | Kind::Either => target.retained += 1,
            }
        }
        let (copies, retained) = (target.copies, target.retained);
        if facts.qos == QoS::AtLeastOnce {
            cx.owe(Check::Duplicate);
        }
        if let Some(last_conn) = last_conn.filter(|_| again) {
            let before = Before { conn: last_conn, ..before };
            return self.judge_again(conn, facts, message, before, cx);
        }
        if facts.dup && !before.received {
            self.judge_first_dup(conn, facts, message, cx);
        }
        let forgotten = message.forgotten * (u32::from(explained.plain) + explained.shared);
        let strays = if copies > live && explained.shared > 0 { self.strays(message, id) } else { 0 };
        let live = live + strays;
        // It was on its way when the other copy, for a later SUBSCRIBE, came.
        let crossed = before.received_at > facts.sent_at && self.may_overtake(conn, facts.qos);
        let allowed = match kind {
            Kind::Retained | Kind::Either if crossed => true,
            Kind::Live => copies <= live + forgotten,
            Kind::Retained => retained <= explained.reads * message.logical,
            Kind::Either => copies + retained <= live + forgotten + explained.reads * message.logical,
        };
        let differs = message.will.is_some_and(|of| self.kept.may_differ() || copies <= 1 + self.woken_since(of));
        // Of a message that its only subscription got live no retained copy may follow.
        // Of one who asks by datagrams, which come twice, that is not known.
        let asks_once = !(is_sn && unreliable);
        let twice = asks_once
            && kind == Kind::Retained
            && before.copies > 0
            && before.conn == conn
            && self.reads_once(message, id)
            // What the cluster does not agree on in time goes to subscribers without being known as what it retains later.
            && !self.may_be_split(message.sent, now);
        if (!allowed || twice) && !differs && facts.qos < QoS::ExactlyOnce && !self.may_repeat(message, id, now) {
            let check = if message.will.is_some() { Check::Will } else { Check::Duplicate };
            let text = "a second time, and nothing gives a reason";
            return self.duplicate(check, conn, facts, message, (before.received_at, before.conn), text, cx);
        }
        if kind == Kind::Retained && !facts.dup {
            if let Some(since) = explained.since {
                self.retained_read(message.topic, message.uid, since, conn, cx);
            }
            return;
        }
        if kind != Kind::Live {
            self.doubt_groups(message.uid);
            return;
        }
        if let Some(of) = message.will {
            self.will_received(of, message.uid, conn, facts.sent_at, cx);
        } else if copies == 1
            && explained.shared == 0
            && !(facts.dup && before.earlier)
            && !self.may_overtake(conn, facts.qos)
            && !self.may_overtake(message.conn, message.qos)
        {
            self.judge_order(conn, facts, message, epoch, cx);
            if facts.qos > QoS::AtMostOnce && !facts.dup {
                self.overtaken(id, message.sent);
            }
        }
        if self.topics[message.topic as usize].shared {
            self.received_by_member(message.uid, facts.dup, (id, conn), cx);
        }
    }

    /// How often a client of MQTT-SN woke after this connection. Who wakes too late has its will again, and it comes again when the
    /// client does not come in time once more. It may say that it is at another address, for which it says PINGREQ, too: where
    /// its DISCONNECT may be lost, so that it does not know that it sleeps.
    pub(super) fn woken_since(&self, conn: u32) -> u32 {
        let unaware = u32::from(self.conn(conn).sn.is_some() && self.limits.sn_unreliable);
        let conns = self.ids[self.conn(conn).id as usize].conns.iter().filter(|other| **other > conn);
        unaware + conns.filter(|other| self.conn(**other).sn == Some(SnConnect::Wake)).count() as u32
    }

    /// Whether it is a will that the cluster publishes, which knows no publisher: No Local does not count.
    pub(super) fn is_of_cluster(&self, message: &Facts) -> bool {
        message.will.is_some() && self.kept.on
    }

    /// Whether the nodes of a message's publisher and of a session may have been apart since it was published.
    pub(super) fn were_parted(&self, message: &Facts, id: u32, now: Instant) -> bool {
        if message.will.is_some() && self.is_kept_once(message.sent, id, now) {
            return false;
        }
        let (from, to) = (self.node_of_topic(message.topic), self.ids[id as usize].node);
        self.ways.exist() && self.ways.were_apart(from, to, message.sent, now)
    }

    /// The same, or something that was kept before it may have been on its way yet: it comes behind that.
    fn may_have_waited(&self, message: &Facts, id: u32, now: Instant) -> bool {
        let (from, to) = (self.node_of_topic(message.topic), self.ids[id as usize].node);
        let before = back(message.sent, self.ways.hints_take());
        let may_wait = self.limits.durability.is_some() && self.ways.exist();
        let behind = may_wait && self.ways.were_apart(from, to, before, now);
        behind || self.were_parted(message, id, now)
    }
}
