//! Connections and the chain of sessions of a Client Identifier: S7 Session Present, S6 takeovers. A session ends, may
//! have ended, or goes on; what cannot be told makes everything that depends on it uncertain.

use core::time::Duration;

use newtmq_base::Instant;
use newtmq_mqtt::{ProtocolVersion, ReasonCode};

use super::limits::CONTROL_BYTES;
use super::state::{Conn, Connack, Id, State};
use super::ways::CONVERGENCE;
use super::witness::{Cx, Story};
use crate::history::{ClientIx, Closer, ConnIx, ConnectFacts, NameIx};
use crate::report::Check;

/// A node that has heard of no leader for so long is without a quorum, or near it.
const ALONE: Duration = Duration::from_secs(3);

impl State {
    pub(super) fn id_of(&mut self, node: u16, name: NameIx) -> u32 {
        let key = (if self.ways.exist() { 0 } else { node }, name);
        if let Some(id) = self.id_numbers.get(&key) {
            return *id;
        }
        let id = self.ids.len() as u32;
        self.ids.push(Id {
            node,
            from: None,
            moves: Vec::new(),
            forked: false,
            hidden: None,
            epoch: 0,
            current: None,
            live: Vec::new(),
            possible_until: Instant::START,
            unclear: false,
            unheard: Instant::START,
            revived: Instant::START,
            ended: Instant::START,
            kept_out: (0, Instant::START),
            several: false,
            owner: u32::MAX,
            subs: Vec::new(),
            conns: Vec::new(),
            inflight: std::collections::VecDeque::new(),
            matched: 0,
            matched_bytes: 0,
            settled: (0, 0),
            owed: std::collections::VecDeque::new(),
            lost: Vec::new(),
            unsubscribed: Vec::new(),
            packet_max: u32::MAX,
        });
        self.id_numbers.insert(key, id);
        id
    }

    pub(super) fn connect(&mut self, conn: ConnIx, client: ClientIx, facts: &ConnectFacts, cx: &mut Cx<'_>) {
        cx.owe(Check::ConnectAnswered);
        let node = facts.node.0;
        if self.ways.is_leaderless(node, ALONE, cx.now) {
            cx.owe(Check::Degraded);
        }
        let id = self.id_of(node, facts.client_id);
        if self.ways.exist() {
            self.comes_to(id, node, cx.now);
        }
        let v5 = facts.version == ProtocolVersion::V5;
        let expiry = match (v5, facts.clean) {
            (true, _) => facts.expiry_s.unwrap_or(0).min(self.limits.max_session_expiry_s),
            (false, true) => 0,
            (false, false) if facts.sn.is_some() => {
                facts.expiry_s.unwrap_or(self.limits.session_expiry_s).min(self.limits.max_session_expiry_s)
            }
            (false, false) => self.limits.session_expiry_s,
        };
        let mut unanswered = false;
        for other in self.ids[id as usize].live.clone() {
            let other = self.conn_mut(ConnIx(other));
            other.rival.get_or_insert(cx.now);
            if let Some(expiry) = other.unread_expiry.take() {
                (other.expiry_min, other.expiry_max) = expiry;
            }
            unanswered |= other.connack.is_none();
        }
        let troubled = self.clients[client.0 as usize].is_troubled();
        let at = &self.nodes[usize::from(node)];
        let disturbed = at.down
            || at.lives.is_troubled()
            || at.lives.just_stopped(cx.now, Duration::from_secs(2) + self.limits.late)
            || at.disturbed.is_some_and(|at| cx.now <= at + Duration::from_secs(60))
            || at.drift_ppm > 0;
        let will = facts.will.map(|will| Box::new(self.new_will(will, conn.0, node, id, cx)));
        let new = Conn {
            client: client.0,
            id,
            node,
            v5,
            v31: facts.version == ProtocolVersion::V31,
            sn: facts.sn,
            clean: facts.clean,
            connect_at: cx.now,
            connack: None,
            refused: false,
            expiry_min: expiry,
            expiry_max: expiry,
            keep_alive_s: facts.keep_alive_s,
            receive_maximum: if v5 || facts.sn.is_some() { facts.receive_maximum } else { u16::MAX },
            max_packet_size: facts.max_packet_size.filter(|_| v5),
            closed: None,
            gone: None,
            client_disconnect: None,
            server_disconnect: None,
            wild: false,
            trouble: troubled.then_some(cx.now),
            disturbed: disturbed.then_some(cx.now),
            crashed: false,
            rival: unanswered.then_some(cx.now),
            odd: false,
            first: false,
            heard: cx.now,
            last_receive: Instant::START,
            outstanding: 0,
            publishes: std::collections::VecDeque::new(),
            requests: Vec::new(),
            pings: std::collections::VecDeque::new(),
            sent_publishes: 0,
            sent_bytes: CONTROL_BYTES,
            retaining: Vec::new(),
            unsettled: std::collections::VecDeque::new(),
            last: None,
            last_expiry: None,
            unread_expiry: None,
            will,
            old_wills: Vec::new(),
        };
        let at = conn.0 as usize;
        if self.conns.len() <= at {
            self.conns.resize_with(at + 1, || None);
        }
        self.conns[at] = Some(Box::new(new));
        self.open.insert(conn.0);
        let known = &mut self.ids[id as usize];
        known.live.push(conn.0);
        known.conns.push(conn.0);
        known.several |= known.owner != u32::MAX && known.owner != client.0;
        known.owner = client.0;
        if let Some(size) = facts.max_packet_size {
            known.packet_max = known.packet_max.min(size);
        }
        if facts.clean {
            // From here on the broker may end the session at any moment.
            self.doubt(id);
        }
    }

    /// Whether a session may be there for a CONNECT that was sent at `sent`.
    fn may_exist(&self, id: u32, conn: u32, sent: Instant) -> bool {
        let known = &self.ids[id as usize];
        known.forked
            || known.hidden.is_some()
            || known.possible_until >= sent
            || known.live.iter().any(|other| *other != conn)
    }

    /// Whether a session is surely there until `until`.
    pub(super) fn surely_exists(&self, id: u32, conn: u32, until: Instant) -> bool {
        let known = &self.ids[id as usize];
        let Some(last) = known.current else { return false };
        let last = self.conn(last);
        let unknown = known.live.iter().any(|other| *other != conn && self.conn(*other).connack.is_none());
        if last.expiry_min == 0 || known.unclear || unknown || last.wild {
            return false;
        }
        let parted = match last.closed {
            None if last.is_plain() && last.client_disconnect.is_none() => return true,
            Some((at, Closer::Client)) if last.is_plain() => at,
            // It was connected when its node crashed, and lost its connection when that was back.
            None | Some(_) if last.crashed => last.gone.unwrap_or(until),
            // An answer may arrive long after the broker has ended the connection.
            None | Some(_) => last.gone.map_or(last.heard, |gone| gone.min(last.heard)),
        };
        // A device repeats its DISCONNECT until it has an answer; with the first that came its session was over.
        let parted = last.client_disconnect.map_or(parted, |(at, _)| at.min(parted));
        // And the broker notices it late where the socket still has to take what it said last.
        let slack = if last.crashed { Duration::ZERO } else { self.limits.drain };
        // What was under way when its node stopped may be heard long after.
        let accepted = last.connack.map_or(last.connect_at, |of| of.at);
        let stopped = self.nodes[usize::from(last.node)].lives.stopped_since(accepted);
        let parted = if stopped && !last.crashed { parted.min(last.disturbed.unwrap_or(parted)) } else { parted };
        let still = self.stood_still(last.node, parted, until);
        until + slack < self.earliest(last.node, parted, last.expiry_min) + still
    }

    pub(super) fn connack(
        &mut self,
        conn: ConnIx,
        present: bool,
        code: ReasonCode,
        expiry_s: Option<u32>,
        sent_at: Instant,
        cx: &mut Cx<'_>,
    ) {
        if self.ways.exist() {
            cx.owe(Check::TurnedAway);
        }
        let c = self.conn_mut(conn);
        let id = c.id;
        if code.is_error() {
            c.refused = true;
            self.judge_turned_away(conn.0, code, cx);
            self.judge_not_asleep(conn.0, sent_at, cx);
            self.ids[id as usize].live.retain(|other| *other != conn.0);
            self.stays_where_it_was(conn.0, cx.now);
            return;
        }
        c.connack = Some(Connack { at: cx.now, sent_at });
        c.heard = sent_at;
        if let Some(expiry) = expiry_s.filter(|_| c.v5) {
            (c.expiry_min, c.expiry_max) = (expiry, expiry);
        }
        self.ids[id as usize].kept_out.0 = 0;
        cx.owe(Check::SessionPresent);
        cx.owe(Check::Kept);
        let v31 = self.conn(conn.0).v31 && !self.conn(conn.0).clean;
        let (connect_at, disturbed) = (self.conn(conn.0).connect_at, self.conn(conn.0).disturbed);
        let is_asked_for = self.is_asked_for(id, connect_at, sent_at);
        // MQTT 3.1 cannot tell: the session goes on if it surely was there, and to be had, else nothing is known.
        let unknown_session = v31 && !(is_asked_for && self.surely_exists(id, conn.0, sent_at));
        let present = present || v31;
        let last = self.ids[id as usize].current;
        if self.nodes[usize::from(self.conn(conn.0).node)].lost.is_some_and(|lost| sent_at <= lost) {
            // The node that said so is gone.
            return;
        }
        let overtaken = last.map(|last| self.conn(last)).is_some_and(|last| {
            let together = last.closed.is_none_or(|(at, _)| at >= connect_at);
            last.connack.is_some_and(|of| of.sent_at > sent_at || (of.sent_at == sent_at && together))
        });
        // Of a later one that is over by now nothing else may be known.
        let served = |other: &u32| *other != conn.0 && self.conn(*other).connack.is_some_and(|of| of.sent_at > sent_at);
        let outlived = self.ways.exist() && self.ids[id as usize].conns.iter().any(served);
        if overtaken || outlived {
            // Both were under way; the other one was served later, or may have been: a node that was paused answers all
            // at one moment.
            self.doubt(id);
            self.ids[id as usize].unclear = true;
            return;
        }
        // If none can be there, it is one that was left behind.
        let is_left =
            present && !v31 && self.ways.exist() && !self.may_exist(id, conn.0, connect_at) && self.may_be_left(id);
        if self.arrives(conn.0, present && !unknown_session, sent_at) || is_left {
            self.is_another(conn);
        }
        if !v31 {
            self.judge_present(conn.0, (present, is_asked_for), sent_at, cx);
        }
        if last.is_some_and(|last| self.conn(last).closed.is_none_or(|(at, _)| at >= connect_at)) {
            cx.owe(Check::TwoServed);
        }
        let unknown: Vec<u32> = self.ids[id as usize]
            .live
            .iter()
            .copied()
            .filter(|other| *other != conn.0 && self.conn(*other).connack.is_none())
            .collect();
        let lost = unknown.iter().any(|other| self.conn(*other).clean || self.conn(*other).expiry_min == 0);
        // A node that restarted while this CONNECT was under way has nothing.
        let restarted = disturbed.is_some_and(|at| at >= connect_at) && self.limits.durability.is_none();
        let unclear = lost || self.ids[id as usize].unclear || restarted || unknown_session;
        if !present && self.ids[id as usize].forked {
            self.is_another(conn);
        } else if !present {
            self.end_session(id, sent_at);
        } else if unclear {
            self.doubt(id);
        }
        let durable = self.conn(conn.0).expiry_min > 0;
        let forked = self.may_be_fork(id, conn.0);
        // Its client had ended the session by a DISCONNECT that was never read: it should close this connection
        // [MQTT-3.2.2-4], and does not know what counts to its limits.
        let forgot = last.is_some_and(|last| self.conn(last).last_expiry == Some(0));
        self.conn_mut(conn).odd |= forgot && present && !v31;
        let known = &mut self.ids[id as usize];
        known.current = Some(conn.0);
        known.live = unknown;
        // One that had gone before this CONNACK was written has done by then what it did.
        let others = !known.live.is_empty() || known.unheard >= sent_at;
        known.live.push(conn.0);
        known.possible_until = if known.forked { Instant::NEVER } else { Instant::START };
        if durable {
            // Its CONNACK waited until all of that was stored.
            known.ended = Instant::START;
        }
        known.unclear = others || forked || known.forked;
        self.conn_mut(conn).first = !present && !others;
        self.will_resumed(last, conn.0, present && !unclear);
    }

    fn judge_present(&mut self, conn: u32, (present, is_asked_for): (bool, bool), sent_at: Instant, cx: &mut Cx<'_>) {
        let c = self.conn(conn);
        let (id, clean, connect_at) = (c.id, c.clean, c.connect_at);
        let last = self.ids[id as usize].current;
        if present && !clean && self.ways.exist() && self.may_be_left(id) {
            return;
        }
        let text = if present && (clean || !self.may_exist(id, conn, connect_at)) {
            if clean { "although it asked for a new session" } else { "although no session can have been there" }
        } else if !present && !clean && is_asked_for && self.surely_exists(id, conn, sent_at) {
            "although its session was there"
        } else {
            return;
        };
        let who = self.who(conn);
        let message = format!("{who}: CONNACK said Session Present {} {text}", u8::from(present));
        let mut story = Story::default().client(c.client).conn(conn).when(connect_at, "CONNECT was sent");
        story = story.when(sent_at, "CONNACK was written");
        if let Some(last) = last {
            let last_conn = self.conn(last);
            story = story.client(last_conn.client).conn(last);
            story = story.when_some(last_conn.connack.map(|of| of.at), "the connection before was accepted");
            story = story.when_some(last_conn.closed.map(|(at, _)| at), "the connection before ended for its client");
            story = story.when_some(last_conn.gone, "the broker noticed its end");
        }
        cx.violated(Check::SessionPresent, message, story);
    }

    /// The broker answered on a connection at `sent_at`: it must not have been taken over long before.
    pub(super) fn served(&mut self, conn: u32, sent_at: Instant, what: &str, cx: &mut Cx<'_>) {
        let c = self.conn(conn);
        let Some(newer) = self.ids[c.id as usize].current else { return };
        let (Some(own), Some(other)) = (c.connack, self.conn(newer).connack) else { return };
        // What waited for its socket may leave after the takeover.
        let queued = self.limits.queueing(self.ids[c.id as usize].matched_bytes);
        let slack = Duration::from_millis(50) + self.limits.lane + self.limits.drain + queued;
        if newer == conn || other.sent_at <= own.sent_at || sent_at <= other.sent_at + slack || !c.is_plain() {
            return;
        }
        self.two_served(conn, newer, sent_at, what, cx);
    }

    /// Whether one of two connections may not have heard of the other one: their nodes, or who decides, could not reach each other.
    pub(super) fn may_be_unheard(&self, conn: u32, newer: u32, at: Instant) -> bool {
        let (c, n) = (self.conn(conn), self.conn(newer));
        // Who comes to a cluster has said soon after what it has.
        let met = self.ways.joined_at(c.node).max(self.ways.joined_at(n.node)) + CONVERGENCE;
        // One in between may have taken it over, though it was refused itself when the next one came.
        let all = self.ids[c.id as usize].conns.iter().filter_map(|conn| self.conns[*conn as usize].as_deref());
        let first = all.map(|other| other.connect_at).filter(|at| *at > c.connect_at).min().unwrap_or(n.connect_at);
        c.node != n.node && (self.ways.was_split(first.min(n.connect_at), at) || n.connect_at <= met)
    }

    #[cold]
    pub(super) fn two_served(&mut self, conn: u32, newer: u32, sent_at: Instant, what: &str, cx: &mut Cx<'_>) {
        if self.may_be_unheard(conn, newer, sent_at) {
            return;
        }
        let (c, n) = (self.conn(conn), self.conn(newer));
        let message = format!(
            "{}: the broker wrote a {what} to its connection {} after the same Client Identifier was taken over by connection {} of {}",
            self.who(conn),
            conn,
            newer,
            self.who(newer)
        );
        let story = Story::default()
            .client(c.client)
            .client(n.client)
            .conn(conn)
            .conn(newer)
            .when_some(c.connack.map(|of| of.sent_at), "CONNACK of the older connection was written")
            .when_some(n.connack.map(|of| of.sent_at), "CONNACK of the newer connection was written")
            .when(sent_at, format!("the {what} was written to the older one"));
        cx.violated(Check::TwoServed, message, story);
    }

    pub(super) fn disconnect(
        &mut self,
        conn: ConnIx,
        by: Closer,
        code: ReasonCode,
        expiry_s: Option<u32>,
        cx: &mut Cx<'_>,
    ) {
        let max = self.limits.max_session_expiry_s;
        let c = self.conn_mut(conn);
        if by == Closer::Server {
            c.server_disconnect = Some((cx.now, code));
            return;
        }
        c.client_disconnect = Some((cx.now, code));
        if let Some(expiry) = expiry_s.map(|expiry| expiry.min(max)) {
            if c.expiry_min == 0 && expiry > 0 {
                // A Protocol Error: the session ends as it would have.
                c.odd = true;
                return;
            }
            // Whether it arrives is known at the end of the connection.
            c.last_expiry = Some(expiry);
            c.expiry_min = c.expiry_min.min(expiry);
            c.expiry_max = c.expiry_max.max(expiry);
        }
    }

    pub(super) fn close(&mut self, conn: ConnIx, by: Closer, cx: &mut Cx<'_>) {
        self.judge_end(conn.0, by, cx);
        self.open.remove(&conn.0);
        let c = self.conn_mut(conn);
        c.closed = Some((cx.now, by));
        // If the broker had closed it before, nobody has read that.
        let is_read = by == Closer::Client && c.gone.is_none() && c.is_plain() && c.rival.is_none();
        if let Some(expiry) = c.last_expiry.filter(|_| is_read) {
            c.unread_expiry = Some((c.expiry_min, c.expiry_max));
            (c.expiry_min, c.expiry_max) = (expiry, expiry);
        }
        let (id, clean, expiry_min, refused) = (c.id, c.clean, c.expiry_min, c.refused);
        if c.connack.is_none() {
            if !refused {
                self.may_have_come(conn.0, cx.now);
            }
            if !refused && (clean || expiry_min == 0 || !self.surely_exists(id, conn.0, cx.now)) {
                self.doubt(id);
                self.ids[id as usize].unclear = true;
            }
        } else if self.ids[id as usize].current == Some(conn.0) && expiry_min == 0 {
            self.doubt(id);
        }
        let c = self.conn_mut(conn);
        c.publishes = std::collections::VecDeque::new();
    }

    /// The broker has noticed the end of a connection.
    pub(super) fn gone(&mut self, conn: ConnIx, cx: &mut Cx<'_>) {
        let c = self.conn(conn.0);
        let sent_away = self.ways.exist() && self.ways.was_leaving(c.node, c.connect_at);
        let c = self.conn_mut(conn);
        c.gone = Some(cx.now);
        // A node that sends its clients away may have closed it before it read what the client said last.
        if sent_away && let Some(expiry) = c.unread_expiry.take() {
            (c.expiry_min, c.expiry_max) = expiry;
        }
        if !c.retaining.is_empty() {
            self.retained_gone(conn.0, cx.now);
        }
        self.settle(conn.0, u64::MAX, cx.now);
        self.expect_will(conn.0, cx);
        let c = self.conn(conn.0);
        let (id, node, expiry_max, current) = (c.id, c.node, c.expiry_max, c.connack.is_some());
        if !self.ids[id as usize].live.contains(&conn.0) {
            return;
        }
        if !current {
            // It may have been served without anybody knowing.
            self.may_have_come(conn.0, cx.now);
            self.doubt(id);
            self.ids[id as usize].unclear = true;
            self.ids[id as usize].unheard = cx.now;
        }
        let until = if expiry_max == 0 && current { Instant::START } else { self.latest(node, cx.now, expiry_max) };
        let known = &mut self.ids[id as usize];
        known.live.retain(|other| *other != conn.0);
        known.possible_until = known.possible_until.max(until);
        if known.current == Some(conn.0) && expiry_max == 0 && known.live.is_empty() {
            self.end_session(id, cx.now);
        }
    }

    /// The session has surely ended by `at`; what follows belongs to another one.
    pub(super) fn end_session(&mut self, id: u32, at: Instant) {
        self.doubt(id);
        self.ids[id as usize].ended = at;
        self.end_subscriptions(id, at);
    }

    /// The session may have ended: nothing of it is certain any more.
    pub(super) fn doubt(&mut self, id: u32) {
        self.doubt_subscriptions(id);
        let known = &mut self.ids[id as usize];
        known.epoch += 1;
        known.owed.clear();
        known.lost.clear();
        for flight in std::mem::take(&mut known.inflight) {
            let c = self.conn_mut(ConnIx(flight.conn));
            c.outstanding = 0;
        }
    }

    /// A node is gone with everything in its memory.
    pub(super) fn node_lost(&mut self, node: u16, at_once: bool, cx: &mut Cx<'_>) {
        for id in 0..self.ids.len() as u32 {
            if self.lost_on_its_way(id, node, cx) || self.ids[id as usize].node != node {
                continue;
            }
            if at_once {
                self.end_session(id, cx.now);
            } else {
                self.doubt(id);
            }
            let known = &mut self.ids[id as usize];
            known.settled = (known.matched, known.matched_bytes);
            known.live.clear();
            // A node that stops in order may serve a little longer.
            known.possible_until = if at_once { Instant::START } else { Instant::NEVER };
            known.current = None;
            known.unclear = true;
        }
        self.settling.clear();
        for c in self.conns.iter_mut().flatten().filter(|c| c.node == node) {
            c.unsettled.clear();
        }
        // What comes from other nodes counts for the sessions of the node no more: all is settled for them.
        let State { conns, ids, .. } = self;
        for of in conns.iter_mut().flatten().flat_map(|c| &mut c.unsettled) {
            of.copies.retain(|(id, _)| ids[*id as usize].node != node);
        }
        // What a cluster has agreed on outlives any of its nodes.
        if !self.ways.exist() {
            for topic in self.topics.iter_mut().filter(|topic| topic.node == node) {
                topic.register = None;
            }
        }
    }

    pub(super) fn wild(&mut self, conn: ConnIx) {
        self.any_wild = true;
        let c = self.conn_mut(conn);
        c.wild = true;
        let id = c.id;
        self.ids[id as usize].unclear = true;
        self.doubt(id);
    }
}
