//! Messages: what clients published, when it was accepted, and who may, or must, get it.

use newtmq_base::Instant;
use newtmq_mqtt::{QoS, ReasonCode};

use super::limits::CONTROL_BYTES;
use super::shared::GroupDebt;
use super::state::{Client, FORGET_AFTER, PATIENCE, State, Unsettled};
use super::witness::{Cx, Story};
use crate::history::{AckKind, ConnIx, PublishFacts, Uid, WillFacts};
use crate::report::Check;

/// Place of a message.
#[derive(Debug)]
pub(super) enum Slot {
    /// Not published so far.
    Empty,
    /// Everything about it.
    Known(Box<Message>),
    /// Everybody has it.
    Forgotten,
}

/// An Application Message.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) topic: u32,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    /// The connection whose Will Message it is.
    pub(super) will: Option<u32>,
    pub(super) expiry_s: Option<u32>,
    pub(super) size: u32,
    /// First sent; of a will, its CONNECT.
    pub(super) sent: Instant,
    /// Last sent.
    pub(super) resent: Instant,
    /// Counts events: first and last sent.
    pub(super) first: u64,
    pub(super) last: u64,
    /// When the broker wrote that it has accepted it.
    pub(super) accepted: Option<Instant>,
    /// The same arrived.
    pub(super) accepted_at: Option<Instant>,
    /// How many times the broker may take it for a new one.
    pub(super) logical: u32,
    /// It was refused: what comes with the same MsgId is another one for the broker, and some may have got this one.
    pub(super) refused: bool,
    /// How often its node may have forgotten it before it was accepted, and sent it with QoS 1 before that.
    pub(super) forgotten: u32,
    /// First connection.
    pub(super) conn: u32,
    /// Session of its publisher.
    pub(super) id: u32,
    pub(super) epoch: u32,
    pid: u16,
    /// In the register of its topic.
    pub(super) registered: bool,
    /// Sessions that get it, ordered.
    pub(super) targets: Vec<Target>,
    /// Shared groups that are owed a copy, or got one.
    pub(super) groups: Vec<GroupDebt>,
}

/// A session that may get a message.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) id: u32,
    pub(super) epoch: u32,
    /// It must come.
    pub(super) owed: bool,
    pub(super) received: bool,
    /// It had come before the session was in doubt.
    pub(super) earlier: bool,
    /// PUBACK, PUBREC with an error or PUBCOMP was sent.
    pub(super) acked: Option<Instant>,
    /// New copies: live ones, retained ones, and those handed on with QoS 2.
    pub(super) copies: u32,
    pub(super) retained: u32,
    pub(super) handed: u32,
    pub(super) handed_retained: u32,
    /// Connection of the last copy, and when it came.
    pub(super) conn: u32,
    pub(super) received_at: Instant,
    /// Packet Identifier of its last copy, with its last connection; then those of the copies before.
    pub(super) pid: (u16, u32),
    pub(super) more_pids: Vec<(u16, u32)>,
    /// Messages and bytes for the session's queue that surely were in front of it when it was sent.
    pub(super) matched: u64,
    pub(super) bytes: u64,
    /// How many came behind it until it was surely out of the queue.
    pub(super) behind: Option<(u64, u64)>,
}

impl Target {
    fn new(id: u32, epoch: u32, (matched, bytes): (u64, u64)) -> Target {
        Target {
            id,
            epoch,
            owed: false,
            received: false,
            earlier: false,
            acked: None,
            copies: 0,
            retained: 0,
            handed: 0,
            handed_retained: 0,
            conn: u32::MAX,
            received_at: Instant::START,
            pid: (0, u32::MAX),
            more_pids: Vec::new(),
            matched,
            bytes,
            behind: None,
        }
    }

    /// Another copy came, with this Packet Identifier or 0.
    pub(super) fn came_with(&mut self, pid: u16, conn: u32) {
        let before = core::mem::replace(&mut self.pid, (pid, conn));
        if before.0 > 0 {
            self.more_pids.push(before);
        }
    }

    /// Packet Identifiers of its copies, each with its last connection, the last copy first.
    pub(super) fn copies_known(&mut self) -> impl Iterator<Item = &mut (u16, u32)> {
        core::iter::once(&mut self.pid).chain(self.more_pids.iter_mut().rev())
    }
}

impl Message {
    /// What it has to say about a session. `epoch` is the session's.
    #[inline]
    pub(super) fn target(&mut self, id: u32, epoch: u32, counts: (u64, u64)) -> &mut Target {
        let at = match self.targets.binary_search_by_key(&id, |target| target.id) {
            Ok(at) => at,
            Err(at) => {
                self.targets.insert(at, Target::new(id, epoch, counts));
                at
            }
        };
        let target = &mut self.targets[at];
        if target.epoch != epoch {
            let earlier = target.earlier || target.received;
            *target = Target { earlier, ..Target::new(id, epoch, counts) };
        }
        target
    }

    /// The will of a connection.
    pub(super) fn of_will(will: &WillFacts, topic: u32, conn: u32, id: u32, now: Instant, sequence: u64) -> Message {
        Message {
            topic,
            qos: will.qos,
            retain: will.retain,
            will: Some(conn),
            expiry_s: will.expiry_s,
            size: 64,
            sent: now,
            resent: now,
            first: sequence,
            last: sequence,
            accepted: None,
            accepted_at: None,
            logical: 1,
            refused: false,
            forgotten: 0,
            conn,
            id,
            epoch: 0,
            pid: 0,
            registered: will.retain,
            targets: Vec::new(),
            groups: Vec::new(),
        }
    }

    /// Bytes that it takes in a queue, at most: clients send 52 bytes of properties, and a message has a head.
    pub(super) fn queue_bytes(size: u32, topic: &str) -> u64 {
        u64::from(size) + topic.len() as u64 + 80
    }
}

/// A publish of a client that is not acknowledged in full.
#[derive(Debug, Clone, Copy)]
pub(super) struct OutPublish {
    pub(super) pid: u16,
    pub(super) uid: Option<Uid>,
    pub(super) topic: u32,
    pub(super) qos: QoS,
    /// Last sent, or its PUBREL.
    pub(super) at: Instant,
    /// PUBREC has arrived.
    pub(super) received: bool,
    /// It is a deletion of what is retained.
    pub(super) deletes: bool,
    /// Number of the event that sent it.
    pub(super) sequence: u64,
}

impl Client {
    /// A message that is known.
    #[inline]
    pub(super) fn message(&mut self, number: u32) -> Option<&mut Message> {
        match self.messages.get_mut(number.checked_sub(self.base)? as usize)? {
            Slot::Known(message) => Some(message),
            Slot::Empty | Slot::Forgotten => None,
        }
    }

    /// Whether there never was such a message.
    pub(super) fn never_sent(&self, number: u32) -> bool {
        match number.checked_sub(self.base) {
            None => number == 0,
            Some(at) => matches!(self.messages.get(at as usize), None | Some(Slot::Empty)),
        }
    }

    fn put(&mut self, number: u32, message: Box<Message>) {
        let Some(at) = number.checked_sub(self.base) else { return };
        while self.messages.len() <= at as usize {
            self.messages.push_back(Slot::Empty);
        }
        self.messages[at as usize] = Slot::Known(message);
    }
}

impl State {
    /// A message that is known.
    #[inline]
    pub(super) fn message(&mut self, uid: Uid) -> Option<&mut Message> {
        self.clients.get_mut(uid.publisher.0 as usize)?.message(uid.number)
    }

    fn message_ref(&self, uid: Option<Uid>) -> Option<&Message> {
        let uid = uid?;
        let client = self.clients.get(uid.publisher.0 as usize)?;
        match client.messages.get(uid.number.checked_sub(client.base)? as usize)? {
            Slot::Known(message) => Some(message),
            Slot::Empty | Slot::Forgotten => None,
        }
    }

    pub(super) fn publish(&mut self, conn: ConnIx, facts: &PublishFacts, cx: &mut Cx<'_>) {
        let sequence = self.sequence;
        let (id, node) = (self.conn(conn.0).id, self.conn(conn.0).node);
        let topic = self.topic_of(node, facts.topic, cx);
        let length = u64::from(facts.size) + cx.text(facts.topic).len() as u64;
        let c = self.conn_mut(conn);
        c.sent_publishes += 1;
        c.sent_bytes += length + CONTROL_BYTES;
        if let Some(pid) = facts.pid {
            cx.owe(Check::PublishAnswered);
            let deletes = facts.retain && facts.size == 0;
            let entry = OutPublish {
                pid,
                uid: facts.uid,
                topic,
                qos: facts.qos,
                at: cx.now,
                received: false,
                deletes,
                sequence,
            };
            let c = self.conn_mut(conn);
            if facts.dup && c.publishes.iter().any(|other| other.pid == pid) {
                // Sent again in the same connection; a broker may count it twice.
                c.odd = true;
            } else {
                c.publishes.push_back(entry);
            }
        }
        let max = self.limits.max_packet_size;
        if facts.qos as u8 > self.limits.max_qos
            || facts.size.saturating_add(70_000) > max && max < 100_000
            || facts.size > max / 2
        {
            self.conn_mut(conn).odd = true;
        }
        if facts.retain {
            self.retained_write(topic, facts, conn.0, cx);
        }
        let epoch = self.ids[id as usize].epoch;
        let await_rel = self.limits.await_rel;
        let lives = &self.nodes[usize::from(node)].lives;
        let stopped = self.message_ref(facts.uid).is_some_and(|known| lives.stopped_since(known.resent));
        // A refusal that the client did not hear makes the next one another message, and some may have got this one.
        let refused = self.message_ref(facts.uid).is_some_and(|known| self.may_be_refused(node, known.resent, cx.now));
        let of_session = |known: &Message| self.ways.exist() && self.moved_badly(id, known.resent, cx.now);
        let refused = refused || self.message_ref(facts.uid).is_some_and(of_session);
        let Some(uid) = facts.uid else {
            self.count_matches(topic, facts.size, conn.0, &mut Vec::new(), cx);
            return;
        };
        if let Some(known) = self.message(uid) {
            let same = known.qos == QoS::ExactlyOnce
                && facts.pid == Some(known.pid)
                && known.epoch == epoch
                && known.id == id
                && await_rel.is_none_or(|limit| known.sent + limit / 2 > cx.now);
            let unknown = known.accepted.is_none();
            if !same || unknown && (refused || known.refused) {
                known.logical += 1;
            }
            known.refused = false;
            known.forgotten += u32::from(stopped);
            known.resent = cx.now;
            known.last = sequence;
            if facts.retain {
                known.registered = true;
            }
            if !same || unknown {
                // It takes a place in each queue once more, or the one that it did not take when it was lost.
                self.count_matches(topic, facts.size, conn.0, &mut Vec::new(), cx);
            }
            return;
        }
        self.remember(conn.0, uid, facts, (id, epoch, topic), cx);
    }

    /// A message that was not known before.
    fn remember(
        &mut self,
        conn: u32,
        uid: Uid,
        facts: &PublishFacts,
        (id, epoch, topic): (u32, u32, u32),
        cx: &Cx<'_>,
    ) {
        let mut place = self.spare.messages.pop();
        let mut targets = place.as_mut().map(|old| core::mem::take(&mut old.targets)).unwrap_or_default();
        targets.clear();
        self.count_matches(topic, facts.size, conn, &mut targets, cx);
        let aging = match facts.qos {
            // Nobody acknowledges it, so a session that may get it may get it for as long as anybody is patient.
            QoS::AtMostOnce if !targets.is_empty() => &mut self.patient,
            QoS::AtMostOnce | QoS::AtLeastOnce | QoS::ExactlyOnce => &mut self.aging,
        };
        aging.push_back((cx.now, uid));
        let message = Message {
            topic,
            qos: facts.qos,
            retain: facts.retain,
            will: None,
            expiry_s: facts.expiry_s,
            size: facts.size,
            sent: cx.now,
            resent: cx.now,
            first: self.sequence,
            last: self.sequence,
            accepted: None,
            accepted_at: None,
            logical: 1,
            refused: false,
            forgotten: 0,
            conn,
            id,
            epoch,
            pid: facts.pid.unwrap_or(0),
            registered: facts.retain,
            targets,
            groups: Vec::new(),
        };
        let message = match place {
            Some(mut place) => {
                *place = message;
                place
            }
            None => Box::new(message),
        };
        self.clients[uid.publisher.0 as usize].put(uid.number, message);
    }

    /// A will, which is published one day.
    pub(super) fn put_will(&mut self, uid: Uid, message: Message) {
        self.wills += 1;
        self.aging.push_back((message.sent, uid));
        self.clients[uid.publisher.0 as usize].put(uid.number, Box::new(message));
    }

    /// A message for each session that may get it now, into `targets`; each has one more in its queue.
    fn count_matches(&mut self, topic: u32, size: u32, conn: u32, targets: &mut Vec<Target>, cx: &Cx<'_>) {
        self.settle_late(cx.now);
        let State { topics, subs, ids, conns, sequence, spare, .. } = self;
        let (number, topic) = (topic, &topics[topic as usize]);
        let bytes = Message::queue_bytes(size, cx.text(topic.name));
        targets.reserve_exact(topic.subs.len());
        let mut copies = spare.copies.pop().unwrap_or_default();
        let mut last = u32::MAX;
        let mut counted = false;
        for (id, sub) in &topic.subs {
            let sub = &subs[*sub as usize];
            if sub.grants.last().is_none_or(|grant| grant.to < Instant::NEVER) {
                continue;
            }
            let known = &mut ids[*id as usize];
            if *id != last {
                targets.push(Target::new(*id, known.epoch, known.settled));
                copies.push((*id, 0));
                (last, counted) = (*id, false);
            }
            // One copy for all that are not shared, and one for each that is.
            if sub.group.is_some() || !counted {
                known.matched += 1;
                known.matched_bytes += bytes;
                if let Some((_, count)) = copies.last_mut() {
                    *count += 1;
                }
            }
            counted |= sub.group.is_none();
        }
        if let Some(c) = conns[conn as usize].as_deref_mut() {
            c.unsettled.push_back(Unsettled { sequence: *sequence, topic: number, copies, bytes });
        }
    }

    /// A subscription is made: it may be there before publishes that are on their way.
    pub(super) fn count_on_their_way(&mut self, sub: u32, cx: &Cx<'_>) {
        let on_their_way = self.conns.iter().flatten().flat_map(|c| &c.unsettled);
        let mut topics: Vec<u32> =
            on_their_way.chain(self.settling.iter().map(|(_, of)| of)).map(|of| of.topic).collect();
        topics.sort_unstable();
        topics.dedup();
        for topic in topics {
            self.match_topic(topic, cx);
        }
        let State { topics, subs, ids, conns, settling, .. } = self;
        let (id, shared) = (subs[sub as usize].id, subs[sub as usize].group.is_some());
        let known = &mut ids[id as usize];
        let on_their_way = conns.iter_mut().flatten().flat_map(|c| &mut c.unsettled);
        for of in on_their_way.chain(settling.iter_mut().map(|(_, of)| of)) {
            let counted = of.copies.iter().any(|(other, _)| *other == id);
            if (counted && !shared) || !topics[of.topic as usize].subs.contains(&(id, sub)) {
                continue;
            }
            of.copies.push((id, 1));
            known.matched += 1;
            known.matched_bytes += of.bytes;
        }
    }

    /// All publishes of a connection up to an event have been worked off at `at`.
    pub(super) fn settle(&mut self, conn: u32, sequence: u64, at: Instant) {
        let State { conns, settling, .. } = self;
        let Some(c) = conns[conn as usize].as_deref_mut() else { return };
        while let Some(of) = c.unsettled.pop_front_if(|of| of.sequence <= sequence) {
            settling.push_back((at, of));
        }
        self.settle_late(at);
    }

    /// What was worked off long ago has come to all shards.
    fn settle_late(&mut self, now: Instant) {
        while let Some((at, of)) = self.settling.front() {
            let arrived = self.lanes(self.topics[of.topic as usize].node).by(*at);
            if arrived > *at && arrived >= now {
                return;
            }
            let State { settling, ids, spare, .. } = self;
            let Some((_, mut of)) = settling.pop_front() else { return };
            for (id, count) in of.copies.drain(..) {
                let (settled, bytes) = &mut ids[id as usize].settled;
                *settled += u64::from(count);
                *bytes += of.bytes * u64::from(count);
            }
            spare.copies.push(of.copies);
        }
    }

    pub(super) fn acked(
        &mut self,
        conn: ConnIx,
        kind: AckKind,
        pid: u16,
        code: ReasonCode,
        sent_at: Instant,
        cx: &mut Cx<'_>,
    ) {
        let c = self.conn_mut(conn);
        c.heard = c.heard.max(sent_at);
        let (v5, wild) = (c.v5, c.wild);
        let Some(at) = c.publishes.iter().position(|publish| publish.pid == pid) else { return };
        let entry = c.publishes[at];
        if kind == AckKind::Pubcomp || kind == AckKind::Puback || code.is_error() {
            c.publishes.remove(at);
        } else {
            c.publishes[at].received = true;
        }
        let expected = if entry.qos == QoS::ExactlyOnce { AckKind::Pubrec } else { AckKind::Puback };
        if kind == AckKind::Pubcomp {
            return;
        }
        if kind != expected && !wild {
            let message = format!(
                "{}: a publish with QoS {} was answered with {}",
                self.who(conn.0),
                entry.qos as u8,
                kind.name()
            );
            let story = Story::default()
                .uid(entry.uid)
                .client(self.conn(conn.0).client)
                .conn(conn.0)
                .when(entry.at, "PUBLISH was sent");
            cx.violated(Check::Protocol, message, story);
            return;
        }
        self.served(conn.0, sent_at, kind.name(), cx);
        if code.is_error() {
            if let Some(known) = entry.uid.and_then(|uid| self.message(uid)) {
                known.refused = true;
            }
            self.judge_refused(conn.0, &entry, code, cx);
            self.retained_refused(entry.topic, conn.0, entry.sequence, code, cx);
        }
        // What the client sent before with QoS 0 has been worked off, too.
        self.retained_done(conn.0, entry.sequence, sent_at);
        self.settle(conn.0, entry.sequence, cx.now);
        if entry.deletes || code.is_error() {
            return;
        }
        let Some(uid) = entry.uid else { return };
        // Before MQTT 5 a refusal cannot be told.
        let refused = !v5 && cx.text(self.topics[entry.topic as usize].name).starts_with('$');
        let State { clients, .. } = self;
        let Some(message) = clients[uid.publisher.0 as usize].message(uid.number) else { return };
        if message.accepted.is_none() && !refused {
            message.accepted = Some(sent_at);
            message.accepted_at = Some(cx.now);
            self.owe_message(uid, code, cx);
        }
    }

    pub(super) fn release(&mut self, conn: ConnIx, pid: u16, cx: &mut Cx<'_>) {
        let sequence = self.sequence;
        let c = self.conn_mut(conn);
        c.sent_bytes += CONTROL_BYTES;
        match c.publishes.iter_mut().find(|publish| publish.pid == pid) {
            Some(publish) => publish.at = cx.now,
            None => c.publishes.push_back(OutPublish {
                pid,
                uid: None,
                topic: 0,
                qos: QoS::ExactlyOnce,
                at: cx.now,
                received: true,
                deletes: false,
                sequence,
            }),
        }
    }

    /// Forgets messages that nobody waits for.
    pub(super) fn forget(&mut self, now: Instant) {
        while let Some((_, uid)) = self.aging.pop_front_if(|(at, _)| *at + FORGET_AFTER < now) {
            if !self.forget_one(uid, now) {
                self.aging.push_back((now, uid));
            }
        }
        while let Some((_, uid)) = self.patient.pop_front_if(|(at, _)| *at + PATIENCE < now) {
            if !self.forget_one(uid, now) {
                self.aging.push_back((now, uid));
            }
        }
    }

    /// Forgets a message if nobody waits for it; whether that is so.
    fn forget_one(&mut self, uid: Uid, now: Instant) -> bool {
        if !self.is_finished(uid, now) {
            return false;
        }
        let client = &mut self.clients[uid.publisher.0 as usize];
        let at = uid.number.checked_sub(client.base);
        if let Some(slot) = at.and_then(|at| client.messages.get_mut(at as usize))
            && let Slot::Known(message) = core::mem::replace(slot, Slot::Forgotten)
        {
            self.spare.messages.push(message);
        }
        // Numbers that were never sent stay for a while: their messages may wait in the client.
        while matches!(client.messages.front(), Some(Slot::Forgotten))
            || (client.messages.len() > 10_000 && matches!(client.messages.front(), Some(Slot::Empty)))
        {
            client.messages.pop_front();
            client.base += 1;
        }
        true
    }

    fn is_finished(&mut self, uid: Uid, now: Instant) -> bool {
        let State { clients, ids, conns, limits, wills, .. } = self;
        let Some(message) = clients[uid.publisher.0 as usize].message(uid.number) else { return true };
        // Of a will it is known at the end only whether it was due. What is not acknowledged may be sent again at any
        // later time, and a broker that has it knows it by its Packet Identifier.
        let open = message.qos > QoS::AtMostOnce && message.accepted.is_none();
        if message.registered || message.will.is_some() || open {
            return false;
        }
        let young = message.resent + PATIENCE > now;
        if message.groups.iter().any(|group| group.owed && !group.maybe && group.count == 0) {
            return false;
        }
        let mut finished = true;
        for target in &mut message.targets {
            let id = &ids[target.id as usize];
            if target.epoch != id.epoch {
                continue;
            }
            let queued = id.matched - target.matched + *wills;
            if target.owed && !target.received && queued > limits.queue_len {
                // An absent client's queue has no room for it any more.
                let absent = id.current.is_none_or(|conn| conns[conn as usize].as_deref().is_none_or(|c| !c.is_up()));
                target.owed &= !absent;
            }
            let waits = target.owed && !target.received;
            let fresh = (!target.received && message.qos > QoS::AtMostOnce || target.acked.is_none()) && young;
            finished &= !waits && !fresh;
        }
        finished
    }
}
