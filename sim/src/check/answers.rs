//! Liveness of answers (L5, L6, L12), connections that end without a reason (L13), and what no broker may send (S14).

use core::time::Duration;

use newtmq_base::{Instant, RequestId};
use newtmq_mqtt::ReasonCode;
use newtmq_node::ClusterAnswer;

use super::limits::CONTROL_BYTES;
use super::publishes::OutPublish;
use super::state::{Conn, State, TIMER_SLACK};
use super::witness::{Cx, Story};
use crate::history::{Closer, ConnIx, SnConnect, Uid};
use crate::report::Check;

/// What was wrong so shortly before a CONNECT may be a reason to refuse it.
const BEFORE_CONNECT: Duration = Duration::from_secs(10);
/// More than so many clients that share an identifier have no scenarios.
const KEPT_OUT_MAX: u32 = 12;
/// And for so long.
const KEPT_OUT_LASTS: Duration = Duration::from_secs(1);
/// A gateway answers sooner; its client gives up after it has asked four times.
const SN_PATIENCE: Duration = Duration::from_secs(5);
/// An operator has an answer by then. What a command waits for follows no pace.
const COMMAND: Duration = Duration::from_secs(15);

impl State {
    pub(super) fn unexpected(&mut self, conn: ConnIx, what: &str, cx: &mut Cx<'_>) {
        let c = self.conn(conn.0);
        if c.wild {
            return;
        }
        let message = format!("{}: {what}", self.who(conn.0));
        let story =
            Story::default().client(c.client).conn(conn.0).when(c.connect_at, "CONNECT was sent").when(cx.now, what);
        cx.violated(Check::Protocol, message, story);
    }

    /// The broker wrote something to a connection: not if it had heard nothing for longer than its Keep Alive allows.
    #[inline]
    pub(super) fn judge_silence(&mut self, conn: u32, sent_at: Instant, cx: &mut Cx<'_>) {
        let c = self.conn(conn);
        if let Some((since, until)) = self.clients[c.client as usize].silent
            && sent_at <= until
            && sent_at > since
        {
            self.heard_nothing(conn, since, sent_at, cx);
        }
    }

    #[cold]
    fn heard_nothing(&mut self, conn: u32, since: Instant, sent_at: Instant, cx: &mut Cx<'_>) {
        let c = self.conn(conn);
        let seconds = self.limits.server_keep_alive_s.filter(|_| c.v5).unwrap_or(c.keep_alive_s);
        let steady = c.connack.is_some_and(|of| of.at < since) && c.trouble.is_none_or(|at| at >= since);
        let pressed = self.nodes[usize::from(c.node)].pressed;
        if seconds == 0 || !steady || c.wild || c.disturbed.is_some() || pressed {
            return;
        }
        // What holds a publisher stops the count.
        let slack = self.behind(c) + self.limits.hold + self.limits.late;
        if sent_at <= self.latest(c.node, since, u32::from(seconds) * 3 / 2 + 1) + slack {
            return;
        }
        let message = format!(
            "{} was silent for longer than one and a half times its Keep Alive of {seconds} s and was still served \
             [MQTT-3.1.2-22]",
            self.who(conn)
        );
        let story = Story::default()
            .client(c.client)
            .conn(conn)
            .when(c.connect_at, "CONNECT was sent")
            .when(since, "its machine fell asleep")
            .when(sent_at, "the broker wrote a PUBLISH to it");
        cx.violated(Check::Protocol, message, story);
    }

    /// A connection ends: whether there was a reason.
    pub(super) fn judge_end(&mut self, conn: u32, by: Closer, cx: &mut Cx<'_>) {
        let c = self.conn(conn);
        // Whoever waits for CONNACK gets one, also when another connection takes over.
        let rivals = c.rival.is_some() && (c.connack.is_some() || by != Closer::Server);
        if c.client_disconnect.is_some() || c.refused || !c.is_plain() || rivals {
            return;
        }
        if self.nodes[usize::from(c.node)].down || self.clients[c.client as usize].is_troubled() {
            return;
        }
        match (c.connack.is_some(), by) {
            (true, Closer::Server) => {
                // A session from before a loss of its node knows nothing of what its client has done since.
                let revived = self.ids[c.id as usize].revived > Instant::START;
                if !c.odd && !revived && !self.is_excused(conn) {
                    let reason = match c.server_disconnect {
                        Some((_, code)) => format!("the broker said {:#04x} ({code})", code.code()),
                        None => "the broker gave no reason".to_owned(),
                    };
                    let message =
                        format!("{} lost its connection and had done nothing wrong: {reason}", self.who(conn));
                    let story = Story::default()
                        .client(c.client)
                        .conn(conn)
                        .when(c.connect_at, "CONNECT was sent")
                        .when_some(c.connack.map(|of| of.at), "CONNACK arrived")
                        .when_some(c.server_disconnect.map(|(at, _)| at), "DISCONNECT arrived")
                        .when(cx.now, "the broker closed the connection");
                    cx.violated(Check::Kept, message, story);
                }
            }
            (false, Closer::Server)
                if !self.limits.connections_limited && c.max_packet_size.is_none() && !self.was_slow(c) =>
            {
                self.unanswered_connect(conn, "was closed by the broker", cx);
            }
            // Nobody knows which of the datagrams were lost.
            (false, Closer::Client | Closer::Network) if c.sn.is_some() && self.limits.sn_unreliable => {}
            (false, Closer::Client | Closer::Network) if self.is_late(c.connect_at, cx.now) || self.gave_up(c, by) => {
                self.unanswered_connect(conn, "ended", cx);
            }
            (true | false, Closer::Client | Closer::Network | Closer::Server) => {}
        }
    }

    /// Whether a client of MQTT-SN has asked again and again, where nothing is lost.
    fn gave_up(&self, c: &Conn, by: Closer) -> bool {
        let lost = self.limits.sn_unreliable || self.ways.exist() || by != Closer::Client;
        c.sn.is_some() && !lost && c.connect_at + SN_PATIENCE + self.limits.late < self.now
    }

    /// Reasons that have to do with limits and time.
    fn is_excused(&self, conn: u32) -> bool {
        let c = self.conn(conn);
        let code = c.server_disconnect.map(|(_, code)| code);
        let seconds = self.limits.server_keep_alive_s.filter(|_| c.v5).unwrap_or(c.keep_alive_s);
        let keep_alive = Duration::from_secs(u64::from(seconds));
        // The client counts from its CONNACK, the broker from what it hears.
        let round = c.connack.map_or(Duration::ZERO, |of| of.at - c.connect_at);
        let slow = seconds > 0 && (self.limits.late > keep_alive / 4 || round > keep_alive / 4);
        let small = c.max_packet_size.is_some_and(|size| size < 1024);
        // Clients that share a session do not know of each other's exchanges, which count toward its limit.
        let shares = self.ids[c.id as usize].several && !c.publishes.is_empty();
        let cluster = self.ways.exist() && self.is_sent_away(c);
        // Its session may be one of before that another node had.
        let moved = || self.ways.exist() && self.moved_badly(c.id, c.connect_at, self.now);
        let sn = c.sn.is_some() && self.limits.sn_unreliable;
        let lost = || self.may_have_lost(conn);
        cluster
            || sn
            || (matches!(code, None | Some(ReasonCode::SessionTakenOver)) && lost())
            || (matches!(code, None | Some(ReasonCode::ReceiveMaximumExceeded)) && (shares || moved()))
            || (slow && matches!(code, None | Some(ReasonCode::KeepAliveTimeout)))
            || (small && matches!(code, None | Some(ReasonCode::PacketTooLarge)))
    }

    /// Reasons that have to do with other nodes: this one leaves, or a publisher before MQTT 5.0 cannot be told otherwise that
    /// a target of its message was out of reach.
    fn is_sent_away(&self, c: &Conn) -> bool {
        let open = || c.publishes.iter().filter(|publish| !publish.received);
        let old = open().map(|publish| publish.at).min();
        self.ways.was_leaving(c.node, c.connect_at)
            || (!c.v5 && old.is_some_and(|sent| self.may_be_refused(c.node, sent, self.now)))
            || (!c.v5 && open().any(|publish| self.may_be_full(publish.topic)))
    }

    /// Whether a publish that was sent then may be refused because of another node.
    fn may_refuse(&self, node: u16, sent: Instant, now: Instant) -> bool {
        // A member that nobody is any more gives no lease, and may be behind a partition for all that others know.
        let no_lease = self.limits.strict && self.ways.had_lost_members(sent, now);
        let no_table = self.ways.had_unknown_members(node, sent, now);
        // Until it is removed, what is for its stored sessions can be promised by nobody.
        let no_store = self.limits.durability.is_some() && self.ways.had_lost_members(sent, now);
        // A node that stops in order may have no time left to say that it has a message.
        let stops = || self.nodes.iter().zip(0..).any(|(of, node)| of.down && self.ways.runs(node));
        self.limits.lanes_narrow || stops() || no_lease || no_table || no_store || self.ways.was_closed(node, sent, now)
    }

    /// The same for one that is for stored sessions, too: a target's disk may be full.
    pub(super) fn may_be_refused(&self, node: u16, sent: Instant, now: Instant) -> bool {
        let troubled = || self.nodes.iter().any(|of| of.lives.was_troubled(sent));
        self.ways.exist() && (troubled() || self.may_refuse(node, sent, now))
    }

    /// Whether the queues of a group's members, all of which may be elsewhere, may have no room for a message.
    fn may_be_full(&self, topic: u32) -> bool {
        let mut members =
            self.topics[topic as usize].subs.iter().filter(|(_, sub)| self.subs[*sub as usize].group.is_some());
        members.any(|(id, _)| self.may_overflow(*id))
    }

    /// Whether a client's queue may have been full: more messages matched than it takes.
    pub(super) fn may_overflow(&self, id: u32) -> bool {
        self.ids[id as usize].matched + self.wills > self.limits.queue_len
    }

    /// A publish was refused: a target was out of reach, or a limit was hit.
    pub(super) fn judge_refused(&mut self, conn: u32, publish: &OutPublish, code: ReasonCode, cx: &mut Cx<'_>) {
        if !self.ways.exist() || code != ReasonCode::QuotaExceeded {
            return;
        }
        cx.owe(Check::Refused);
        let c = self.conn(conn);
        let of = &self.nodes[usize::from(c.node)];
        // A shard that hears late answers too late.
        let is_late = self.lag > Duration::from_secs(1);
        let may = self.may_be_refused(c.node, publish.at, cx.now) || self.may_be_full(publish.topic);
        if c.wild || of.pressed || is_late || may {
            return;
        }
        let name = publish.uid.map_or_else(|| format!("with Packet Identifier {}", publish.pid), |uid| uid.to_string());
        let message = format!(
            "{}: its publish {name} was refused with {:#04x}, though every node was within reach",
            self.who(conn),
            code.code()
        );
        let story = Story::default()
            .uid(publish.uid)
            .client(c.client)
            .conn(conn)
            .when(publish.at, "PUBLISH was sent")
            .when(cx.now, "it was refused");
        cx.violated(Check::Refused, message, story);
    }

    /// S17: a CONNECT is refused because something is out of reach, and nothing is.
    pub(super) fn judge_turned_away(&mut self, conn: u32, code: ReasonCode, cx: &mut Cx<'_>) {
        let c = self.conn(conn);
        if code != ReasonCode::ServerUnavailable || !self.ways.exist() || !c.is_plain() || self.limits.links_late {
            return;
        }
        let since = Instant::START + c.connect_at.saturating_since(Instant::START).saturating_sub(BEFORE_CONNECT);
        let is_well = |node| {
            let follows = self.ways.follows(node, since).is_some() && self.ways.is_untouched(node, since);
            follows && self.had_good_disk(node, since) && !self.nodes[usize::from(node)].pressed
        };
        // Before MQTT 5 there is no other code for a will that may not have its QoS.
        if c.will.as_ref().is_some_and(|will| will.qos as u8 > self.limits.max_qos) {
            return;
        }
        // Who has lost its disk is a member until it is removed, and a session that was stored there is waited for.
        let is_waited_for = self.limits.durability.is_some() && self.ways.had_lost_members(since, cx.now);
        if is_waited_for || self.ways.was_split(since, cx.now) || !(0..self.ways.count()).all(is_well) {
            return;
        }
        if c.rival.is_some() {
            return self.judge_kept_out(conn, cx);
        }
        // What a node that has started again may hand on yet is waited for, no less long where everything else is quick.
        if self.limits.hurried_claims && self.moved_badly(c.id, c.connect_at, cx.now) {
            return;
        }
        let message = format!("{} was refused at node {}, and nothing was out of reach", self.who(conn), c.node);
        let story = Story::default().client(c.client).conn(conn).when(c.connect_at, "CONNECT was sent");
        cx.violated(Check::TurnedAway, message, story);
    }

    /// L10: of CONNECTs with one Client Identifier that wait at the same time the others are refused, and one is accepted.
    fn judge_kept_out(&mut self, conn: u32, cx: &mut Cx<'_>) {
        cx.owe(Check::KeptOut);
        let (id, client) = (self.conn(conn).id, self.conn(conn).client);
        let known = &mut self.ids[id as usize];
        let (count, since) = known.kept_out;
        let since = if count == 0 { cx.now } else { since };
        known.kept_out = (count + 1, since);
        // Who is let in hears of it when that is stored.
        if count + 1 < KEPT_OUT_MAX || cx.now.saturating_since(since) < KEPT_OUT_LASTS {
            return;
        }
        known.kept_out.0 = 0;
        let message = format!(
            "{} is the last of {KEPT_OUT_MAX} connections with its Client Identifier that were refused, and none was accepted",
            self.who(conn)
        );
        let story = Story::default().client(client).conn(conn).when(self.conn(conn).connect_at, "CONNECT was sent");
        cx.violated(Check::KeptOut, message, story);
    }

    /// An operator asks a node for something.
    pub(super) fn asked(&mut self, node: u16, request: RequestId, cx: &mut Cx<'_>) {
        cx.owe(Check::CommandAnswered);
        self.commands.push((node, request, cx.now));
    }

    /// It has answered.
    pub(super) fn answered(&mut self, request: RequestId, answer: &ClusterAnswer, cx: &Cx<'_>) {
        self.writes.answered(request, answer, cx.now);
        self.commands.retain(|(_, other, _)| *other != request);
    }

    /// At quiescence: commands without an answer.
    pub(super) fn judge_commands(&mut self, cx: &mut Cx<'_>) {
        for (node, request, at) in core::mem::take(&mut self.commands) {
            if at + COMMAND + self.limits.late >= cx.now {
                continue;
            }
            let message = format!("node {node} never answered the operator's request {}", request.0);
            cx.violated(Check::CommandAnswered, message, Story::default().when(at, "it was asked"));
        }
    }

    /// Whether the CONNECT may have come after `idle_timeout`, or to a node that had stopped.
    fn was_slow(&self, c: &Conn) -> bool {
        let changed = self.clients[c.client as usize].changed;
        // It asked for its connection before the node stopped, and heard of that later.
        let stopped = self.nodes[usize::from(c.node)].stopped;
        if stopped.is_some_and(|at| at + self.limits.late + TIMER_SLACK > c.connect_at) {
            return true;
        }
        self.limits.hurried || changed.is_some_and(|at| at + Duration::from_secs(60) > c.connect_at)
    }

    fn is_late(&self, since: Instant, now: Instant) -> bool {
        since + self.limits.answer + self.limits.late < now
    }

    #[cold]
    fn unanswered_connect(&mut self, conn: u32, what: &str, cx: &mut Cx<'_>) {
        let c = self.conn(conn);
        // A node that leaves lets nobody in.
        if self.ways.exist() && self.ways.was_leaving(c.node, c.connect_at) {
            return;
        }
        // A node without a leader serves its clients all the same.
        let alone = self.ways.is_leaderless(c.node, Duration::ZERO, cx.now);
        let check = if alone { Check::Degraded } else { Check::ConnectAnswered };
        let message = format!("{}: its connection {what} without CONNACK", self.who(conn));
        let story = Story::default()
            .client(c.client)
            .conn(conn)
            .when(c.connect_at, "CONNECT was sent")
            .when(cx.now, "there is no CONNACK");
        cx.violated(check, message, story);
    }

    /// At quiescence: open connections and what they wait for.
    pub(super) fn judge_open(&mut self, cx: &mut Cx<'_>) {
        for conn in self.open.clone() {
            let c = self.conn(conn);
            let down = self.nodes[usize::from(c.node)].down;
            if down || self.clients[c.client as usize].is_troubled() || c.wild || c.client_disconnect.is_some() {
                continue;
            }
            if c.connack.is_none() {
                if !c.refused && c.is_plain() && c.rival.is_none() && self.is_late(c.connect_at, cx.now) {
                    self.unanswered_connect(conn, "is open", cx);
                }
                continue;
            }
            self.judge_taken_over(conn, cx);
            let c = self.conn(conn);
            let pressed = self.nodes[usize::from(c.node)].pressed && c.sent_publishes > 0;
            if c.gone.is_some() || c.server_disconnect.is_some() || c.rival.is_some() || pressed {
                continue;
            }
            self.judge_requests(conn, cx);
            self.judge_pings(conn, cx);
            self.judge_publishes(conn, cx);
        }
    }

    fn judge_taken_over(&mut self, conn: u32, cx: &mut Cx<'_>) {
        let c = self.conn(conn);
        let Some(newer) = self.ids[c.id as usize].current.filter(|newer| *newer != conn) else { return };
        let (Some(own), Some(other)) = (c.connack, self.conn(newer).connack) else { return };
        if !c.is_plain() || c.server_disconnect.is_some() || own.sent_at >= other.sent_at {
            return;
        }
        if !self.is_late(other.sent_at, cx.now) || self.may_be_unheard(conn, newer, cx.now) {
            return;
        }
        let message = format!(
            "{}: its connection {conn} is still open though connection {newer} took its Client Identifier over",
            self.who(conn)
        );
        let story = Story::default()
            .client(c.client)
            .client(self.conn(newer).client)
            .conn(conn)
            .conn(newer)
            .when(own.sent_at, "CONNACK of the older connection was written")
            .when(other.sent_at, "CONNACK of the newer connection was written")
            .when(cx.now, "quiescence, the older one is open");
        cx.violated(Check::TwoServed, message, story);
    }

    /// PINGREQ was sent.
    pub(super) fn ping(&mut self, conn: ConnIx, cx: &mut Cx<'_>) {
        cx.owe(Check::RequestAnswered);
        let c = self.conn_mut(conn);
        c.sent_bytes += CONTROL_BYTES;
        c.pings.push_back(cx.now);
    }

    /// PINGRESP arrived.
    pub(super) fn pinged(&mut self, conn: ConnIx, cx: &mut Cx<'_>) {
        let c = self.conn_mut(conn);
        c.heard = cx.now;
        c.pings.pop_front();
        if c.sn == Some(SnConnect::Wake) {
            self.judge_slept(conn.0, cx);
        }
    }

    /// A client of MQTT-SN that was awake is told to sleep on: it has got everything that waited when it woke.
    fn judge_slept(&mut self, conn: u32, cx: &mut Cx<'_>) {
        cx.owe(Check::Protocol);
        let c = self.conn(conn);
        let (id, woke, client) = (c.id, c.connect_at, c.client);
        let known = &self.ids[id as usize];
        // Of several that follow each other only the last one is certain.
        if !c.is_plain() || known.current != Some(conn) || known.unclear {
            return;
        }
        let debts: Vec<(Uid, Instant)> = known.lost.iter().chain(&known.owed).copied().collect();
        for (uid, accepted) in debts {
            let Some((topic, sent)) = self.message(uid).map(|message| (message.topic, message.sent)) else { continue };
            let from = self.node_of_topic(topic);
            let arrived = self.lanes(from).by(accepted);
            // What waits for a node that is apart comes when it can.
            let apart = self.ways.exist() && from != self.conn(conn).node;
            if arrived >= woke || apart || !self.is_owed(id, uid) {
                continue;
            }
            let message = format!(
                "{} was told to sleep on before it had {uid}, which waited when it woke [MQTT-SN 6.14]",
                self.who(conn)
            );
            let story = Story::default()
                .uid(Some(uid))
                .client(client)
                .conn(conn)
                .when(sent, format!("PUBLISH {uid} was sent"))
                .when(accepted, "the broker wrote that it accepted it")
                .when(woke, "PINGREQ was sent")
                .when(cx.now, "PINGRESP arrived");
            return cx.violated(Check::Protocol, message, story);
        }
    }

    /// A client of MQTT-SN wakes, and the broker knows of no session that sleeps.
    pub(super) fn judge_not_asleep(&mut self, conn: u32, sent_at: Instant, cx: &mut Cx<'_>) {
        let c = self.conn(conn);
        if c.sn != Some(SnConnect::Wake) || self.limits.sn_unreliable || !c.is_plain() {
            return;
        }
        let last = self.ids[c.id as usize].current;
        // Its session is taken over before the answer comes.
        let goes = |of: &Conn| of.gone.is_none_or(|gone| gone >= c.connect_at);
        let steady = last.is_some_and(|last| self.conn(last).is_plain() && goes(self.conn(last)));
        if !steady
            || !self.surely_exists(c.id, conn, sent_at)
            || self.ways.exist() && self.ways.was_split(c.connect_at, sent_at)
        {
            return;
        }
        let message = format!("{} slept, and was told that it is not connected when it woke", self.who(conn));
        let story = Story::default()
            .client(c.client)
            .conn(conn)
            .when(c.connect_at, "PINGREQ was sent")
            .when(sent_at, "DISCONNECT was written");
        cx.violated(Check::SessionPresent, message, story);
    }

    /// How long a packet may have to wait behind what its client sent before, and its answer behind what it gets.
    pub(super) fn behind(&self, c: &Conn) -> Duration {
        let held = if c.sent_publishes > 0 { self.limits.hold } else { Duration::ZERO };
        let queued = self.limits.queueing(self.ids[c.id as usize].matched_bytes);
        self.lane_slack() + held + self.limits.pace(c.sent_publishes, c.sent_bytes) + queued
    }

    /// Since when an answer to what was sent at `at` is due. While another node is out of reach a publish may wait for it, and
    /// what its client sent behind it.
    fn due_since(&self, c: &Conn, at: Instant) -> Instant {
        if c.sent_publishes > 0 && self.ways.exist() { at.max(self.ways.alone_until(c.node)) } else { at }
    }

    fn judge_pings(&mut self, conn: u32, cx: &mut Cx<'_>) {
        let c = self.conn(conn);
        let slack = self.behind(c);
        let Some(at) = c.pings.front().copied().filter(|at| self.is_late(self.due_since(c, *at) + slack, cx.now))
        else {
            return;
        };
        let message = format!("{}: PINGREQ was never answered", self.who(conn));
        let story = Story::default().client(c.client).conn(conn).when(at, "PINGREQ was sent");
        cx.violated(Check::RequestAnswered, message, story.when(cx.now, "quiescence, no answer"));
    }

    fn judge_requests(&mut self, conn: u32, cx: &mut Cx<'_>) {
        let c = self.conn(conn);
        if self.nodes[usize::from(c.node)].lives.failed {
            return;
        }
        let slack = self.behind(c);
        let Some(request) =
            c.requests.iter().find(|request| self.is_late(self.due_since(c, request.at) + slack, cx.now))
        else {
            return;
        };
        let what = if request.subscribe { "SUBSCRIBE" } else { "UNSUBSCRIBE" };
        let message = format!("{}: {what} with Packet Identifier {} was never answered", self.who(conn), request.pid);
        let filter = request.subs.first().map(|sub| self.subs[*sub as usize].filter);
        let story = Story::default()
            .filter(filter)
            .client(c.client)
            .conn(conn)
            .when(request.at, format!("{what} was sent"))
            .when(cx.now, "quiescence, no answer");
        cx.violated(Check::RequestAnswered, message, story);
    }

    fn judge_publishes(&mut self, conn: u32, cx: &mut Cx<'_>) {
        let c = self.conn(conn);
        let node = &self.nodes[usize::from(c.node)];
        if node.lives.failed {
            return;
        }
        let slack = self.behind(c);
        let Some(publish) =
            c.publishes.iter().find(|publish| self.is_late(self.due_since(c, publish.at) + slack, cx.now))
        else {
            return;
        };
        let what = if publish.received { "PUBREL" } else { "PUBLISH" };
        let name = publish.uid.map_or_else(|| format!("with Packet Identifier {}", publish.pid), |uid| uid.to_string());
        let message = format!("{}: {what} {name} with QoS {} was never answered", self.who(conn), publish.qos as u8);
        let story = Story::default()
            .uid(publish.uid)
            .client(c.client)
            .conn(conn)
            .when(publish.at, format!("{what} was sent"))
            .when(cx.now, "quiescence, no answer");
        cx.violated(Check::PublishAnswered, message, story);
    }
}
