//! What a publisher's acknowledgements wait for at other nodes, and in which order they leave; and the QoS 2 messages that
//! went there and are not released. A connection has gates from its first message for another node on; others never do.

use std::collections::{BTreeMap, VecDeque};

use newtmq_base::{ConnId, Instant, planted};
use newtmq_cluster::lane::{AckGates, GateId, Guid, Outcome, Sent, Settled, Target as LaneTarget, What};
use newtmq_mqtt::{PacketId, PacketType, ProtocolVersion, ReasonCode, TopicName};
use newtmq_session::{Op, Record, RestoredForward, SessionId};
use newtmq_topic::Memo;

use super::deliver::Acknowledgement;
use super::departure::Departure;
use super::fan::Publishing;
use super::{Next, Shard, TimerKind, is_open};
use crate::io::Outbox;
use crate::place::slot_of;

/// So many acknowledgements of a publisher that was told no limit may wait; it is read again below the second one.
const GATES_HIGH: usize = 1024;
const GATES_LOW: usize = 512;

/// The acknowledgements of one publisher that wait, in order.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    gates: AckGates,
    /// What each is.
    acks: VecDeque<Waiting>,
    /// When its timer is armed.
    timer: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    kind: PacketType,
    packet_id: PacketId,
    /// What is said whatever other nodes answer: it waits for its turn only.
    reason: Option<ReasonCode>,
}

impl Gates {
    pub(crate) fn len(&self) -> usize {
        self.gates.len()
    }

    /// Those that count to Receive Maximum and that the session does not know: of QoS 2 only refusals.
    pub(crate) fn open_publishes(&self) -> usize {
        let is_open =
            |ack: &&Waiting| ack.kind == PacketType::Puback || ack.reason.is_some_and(|reason| reason.is_error());
        self.acks.iter().filter(is_open).count()
    }

    fn waits_for(&self, packet_id: PacketId) -> bool {
        self.acks.iter().any(|ack| ack.packet_id == packet_id && ack.kind == PacketType::Pubrec)
    }
}

/// QoS 2 messages of a session that went to other nodes, by Packet Identifier, until they are released.
#[derive(Debug, Default)]
pub(crate) struct Forwards {
    by_id: BTreeMap<PacketId, Forward>,
}

#[derive(Debug)]
struct Forward {
    guid: Guid,
    /// Everybody has it: a repeated one is only acknowledged.
    confirmed: bool,
    /// Where it went: slot of the node, and whom there.
    targets: Vec<(u8, LaneTarget)>,
}

impl Forwards {
    pub(super) fn guid(&self, packet_id: PacketId) -> Option<Guid> {
        self.by_id.get(&packet_id).map(|forward| forward.guid)
    }

    pub(super) fn begin(&mut self, packet_id: PacketId, guid: Guid) {
        self.by_id.insert(packet_id, Forward { guid, confirmed: false, targets: Vec::new() });
    }

    pub(super) fn release(&mut self, packet_id: PacketId) -> Option<(Guid, Vec<(u8, LaneTarget)>)> {
        let mut forward = self.by_id.remove(&packet_id)?;
        forward.targets.sort_by_key(|(slot, target)| (*slot, target.shard));
        Some((forward.guid, forward.targets))
    }

    /// By Packet Identifier.
    pub(super) fn guids(&self) -> Vec<(PacketId, [u8; 16])> {
        self.by_id.iter().map(|(packet_id, forward)| (*packet_id, forward.guid.0)).collect()
    }

    /// As the log has them; none if there are none.
    pub(super) fn restored(forwards: Vec<RestoredForward>) -> Option<Box<Forwards>> {
        let of = |RestoredForward { packet_id, guid, confirmed }| {
            (packet_id, Forward { guid: Guid(guid), confirmed, targets: Vec::new() })
        };
        (!forwards.is_empty()).then(|| Box::new(Forwards { by_id: forwards.into_iter().map(of).collect() }))
    }

    /// What the log has to know of them.
    pub(super) fn records(&self, session: SessionId) -> Vec<Record> {
        let mut records = Vec::new();
        for (packet_id, Forward { guid, confirmed, .. }) in &self.by_id {
            let packet_id = *packet_id;
            records.push(Record::Forwarding { session, packet_id, guid: guid.0 });
            records.extend(confirmed.then_some(Record::Forwarded { session, packet_id }));
        }
        records
    }

    fn add(&mut self, packet_id: PacketId, slot: u8, target: &LaneTarget) {
        if let Some(forward) = self.by_id.get_mut(&packet_id)
            && !forward.targets.iter().any(|(at, known)| (*at, known) == (slot, target))
        {
            forward.targets.push((slot, target.clone()));
        }
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn ids(&self) -> Vec<PacketId> {
        self.by_id.keys().copied().collect()
    }
}

impl Shard {
    /// The acknowledgement of a publish waits for other nodes, and later ones wait behind it.
    pub(super) fn begin_gate(&mut self, now: Instant, conn: ConnId, owed: Acknowledgement) -> GateId {
        let cap = self.config.lanes.ticket_max;
        let (kind, packet_id, _) = owed;
        let gates = self.live(conn).rare().gates.get_or_insert_default();
        gates.acks.push_back(Waiting { kind, packet_id, reason: None });
        let gate = gates.gates.begin(now, packet_id.get(), cap).expect("what has fan-out left is not read");
        if gates.timer.is_none() {
            gates.timer = Some(now + cap);
            self.timers.arm(now + cap, TimerKind::Gate(conn.slot));
        }
        gate
    }

    /// Whether an acknowledgement has to wait behind others that wait for other nodes; then it does.
    pub(super) fn gate_behind(&mut self, now: Instant, conn: ConnId, ack: Acknowledgement) -> bool {
        let Some(gates) = self.conn_mut(conn).and_then(|c| c.rare.as_mut()).and_then(|rare| rare.gates.as_mut()) else {
            return false;
        };
        if gates.gates.is_empty() || planted!(AckOvertakesGate) {
            return false;
        }
        let (kind, packet_id, reason) = ack;
        // A repeated QoS 2 publish is answered once, when its turn comes.
        if kind != PacketType::Pubrec || !gates.waits_for(packet_id) {
            gates.acks.push_back(Waiting { kind, packet_id, reason: Some(reason) });
            let gate = gates.gates.begin(now, packet_id.get(), core::time::Duration::ZERO);
            let gate = gate.expect("what has fan-out left is not read");
            gates.gates.finish(gate);
        }
        true
    }

    /// One answer more is to come.
    pub(super) fn gate_wait(&mut self, conn: ConnId, gate: GateId) {
        self.with_gates(conn, |gates| gates.wait(gate, 1));
    }

    pub(super) fn gate_sent(&mut self, conn: ConnId, gate: GateId, sent: &Sent) {
        self.with_gates(conn, |gates| gates.sent(gate, sent));
    }

    /// The message of a gate has gone to everybody that it is for; `reached` if to somebody of this node. Lets go what may.
    pub(super) fn finish_gate(
        &mut self,
        now: Instant,
        conn: ConnId,
        gate: GateId,
        reached: bool,
        out: &mut Outbox,
    ) -> Next {
        self.with_gates(conn, |gates| {
            if reached {
                gates.reached(gate);
            }
            gates.finish(gate);
        });
        self.open_gates(now, conn, out)
    }

    pub(super) fn gate_settled(
        &mut self,
        now: Instant,
        conn: ConnId,
        gate: GateId,
        settled: Settled,
        out: &mut Outbox,
    ) {
        self.with_gates(conn, |gates| gates.settle(gate, settled));
        self.open_gates(now, conn, out);
    }

    fn with_gates(&mut self, conn: ConnId, call: impl FnOnce(&mut AckGates)) {
        let rare = self.conn_mut(conn).and_then(|c| c.rare.as_mut());
        if let Some(gates) = rare.and_then(|rare| rare.gates.as_mut()) {
            call(&mut gates.gates);
        }
    }

    /// Sends what no longer waits for other nodes.
    fn open_gates(&mut self, now: Instant, conn: ConnId, out: &mut Outbox) -> Next {
        while let Some(c) = self.conn_mut(conn).filter(|c| is_open(c))
            && let Some(gates) = c.rare.as_mut().and_then(|rare| rare.gates.as_mut())
            && let Some((_, _, outcome)) = gates.gates.take_ready()
        {
            let Waiting { kind, packet_id, reason } = gates.acks.pop_front().expect("each gate has one");
            let (version, key) = (c.version, c.session);
            let said = reason.unwrap_or(match outcome {
                Outcome::NoMatchingSubscribers => ReasonCode::NoMatchingSubscribers,
                Outcome::Success => ReasonCode::Success,
                Outcome::QuotaExceeded | Outcome::Overdue => ReasonCode::QuotaExceeded,
            });
            if reason.is_none() && said.is_error() && version != ProtocolVersion::V5 {
                // There is no way to say it; what is not acknowledged comes again.
                return self.reject(now, conn, ReasonCode::QuotaExceeded, out);
            }
            if reason.is_none() && kind == PacketType::Pubrec {
                if said.is_error() {
                    // The identifier is free, and its next message is another one [MQTT-4.3.3].
                    self.apply(conn, Op::Qos2Rel { packet_id });
                    self.release_forwarded(now, key, packet_id);
                } else {
                    self.confirm_forward(key, packet_id);
                }
            }
            self.bar(conn);
            self.send_ack_now(now, conn, kind, packet_id, said, out);
        }
        self.read_again_below_limit(now, conn, out);
        let is_closing = self.conn(conn).is_none_or(|c| !is_open(c));
        if is_closing { Next::Stop } else { Next::Go }
    }

    /// Before MQTT 5 a client knows no limit of what it may send unacknowledged: it is not read above one. Says whether it is.
    pub(super) fn hold_above_limit(&mut self, conn: ConnId) -> bool {
        let c = self.live(conn);
        let holds = c.version != ProtocolVersion::V5 && c.gates() >= GATES_HIGH;
        if holds {
            c.rare().gated = true;
        }
        holds
    }

    fn read_again_below_limit(&mut self, now: Instant, conn: ConnId, out: &mut Outbox) {
        let Some(c) = self.conn_mut(conn).filter(|c| c.gates() < GATES_LOW) else { return };
        if c.rare.as_mut().is_some_and(|rare| core::mem::take(&mut rare.gated)) {
            self.resume(now, conn, out);
        }
    }

    /// Everybody has a QoS 2 message.
    fn confirm_forward(&mut self, key: u32, packet_id: PacketId) {
        let forwards = self.sessions.get_mut(key).and_then(|slot| slot.forwards.as_mut());
        if let Some(forward) = forwards.and_then(|forwards| forwards.by_id.get_mut(&packet_id)) {
            forward.confirmed = true;
            if let Some(session) = self.sessions.get(key).and_then(|slot| slot.stored) {
                // Nobody waits for it: without it, a repeated one goes there again, and is known there.
                self.journal.record_later(&Record::Forwarded { session, packet_id });
            }
        }
    }

    /// Acknowledgements may be overdue.
    pub(crate) fn on_gate_timer(&mut self, now: Instant, slot: u32, out: &mut Outbox) {
        let Some(Some(c)) = self.conns.get_mut(slot as usize) else { return };
        let conn = ConnId { slot, generation: c.generation };
        let Some(gates) = c.rare.as_mut().and_then(|rare| rare.gates.as_mut()) else { return };
        if gates.timer.is_none_or(|timer| timer > now) {
            return;
        }
        gates.timer = None;
        gates.gates.tick(now);
        self.open_gates(now, conn, out);
        let gates = self.conn_mut(conn).filter(|c| is_open(c)).and_then(|c| c.rare.as_mut());
        let Some(gates) = gates.and_then(|rare| rare.gates.as_mut()) else { return };
        let next = gates.gates.next_deadline();
        if next != Instant::NEVER {
            gates.timer = Some(next);
            self.timers.arm(next, TimerKind::Gate(slot));
        }
    }

    /// The publisher has gone: nobody is told what other nodes answer.
    pub(crate) fn drop_gates(&mut self, conn: ConnId) {
        let gates = self.conn_mut(conn).and_then(|c| c.rare.as_mut()).and_then(|rare| rare.gates.take());
        if let Some(timer) = gates.and_then(|gates| gates.timer) {
            self.timers.cancel(timer, TimerKind::Gate(conn.slot));
        }
    }

    /// Where the messages of a publisher went, until he releases them.
    pub(super) fn note_targets(
        &mut self,
        publisher: ConnId,
        owed: Option<Acknowledgement>,
        slot: u8,
        targets: &[LaneTarget],
    ) {
        let Some((PacketType::Pubrec, packet_id, _)) = owed else { return };
        let key = self.live(publisher).session;
        let forwards = self.sessions.get_mut(key).and_then(|slot| slot.forwards.as_mut());
        if let Some(forwards) = forwards {
            targets.iter().for_each(|target| forwards.add(packet_id, slot, target));
        }
    }

    /// The same for a group's message that has come back.
    pub(super) fn note_target_of(&mut self, publisher: ConnId, guid: Guid, slot: u8, target: LaneTarget) {
        let Some(key) = self.conn(publisher).map(|c| c.session) else { return };
        let Some(forwards) = self.sessions.get_mut(key).and_then(|slot| slot.forwards.as_mut()) else { return };
        if let Some(forward) = forwards.by_id.values_mut().find(|forward| forward.guid == guid) {
            forward.targets.push((slot, target));
        }
    }

    /// A group's message that went to a place has come back from there.
    pub(super) fn forget_target(&mut self, publisher: ConnId, guid: Guid, what: &What) {
        let Some(key) = self.conn(publisher).map(|c| c.session) else { return };
        let Some(forwards) = self.sessions.get_mut(key).and_then(|slot| slot.forwards.as_mut()) else { return };
        if let Some(forward) = forwards.by_id.values_mut().find(|forward| forward.guid == guid) {
            forward.targets.retain(|(_, target)| target.what != *what);
        }
    }

    /// The session is over, and what it has sent never comes again.
    pub(crate) fn release_all_forwarded(&mut self, now: Instant, key: u32) {
        let forwards = self.sessions.get(key).and_then(|slot| slot.forwards.as_ref());
        for packet_id in forwards.map(|forwards| forwards.ids()).unwrap_or_default() {
            self.release_forwarded(now, key, packet_id);
        }
    }

    /// Whether a QoS 2 publish that is here already has to go to other nodes again: not all of them are known to have it, and
    /// no acknowledgement waits for them.
    pub(super) fn is_unconfirmed(&mut self, conn: ConnId, key: u32, packet_id: PacketId) -> bool {
        let forwards = self.sessions.get(key).and_then(|slot| slot.forwards.as_ref());
        let Some(forward) = forwards.and_then(|forwards| forwards.by_id.get(&packet_id)) else { return false };
        if forward.confirmed || planted!(RepeatedForwardForgotten) {
            return false;
        }
        let gates = self.live(conn).rare.as_ref().and_then(|rare| rare.gates.as_ref());
        gates.is_none_or(|gates| !gates.waits_for(packet_id))
    }

    /// Such a publish goes to other nodes again, and to nobody here.
    pub(super) fn accept_again(
        &mut self,
        now: Instant,
        conn: ConnId,
        publishing: Publishing<'_>,
        packet_id: PacketId,
        out: &mut Outbox,
    ) -> Next {
        let owed = (PacketType::Pubrec, packet_id, ReasonCode::Success);
        let mut departure = Departure::of(Some(conn), Some(owed));
        let forwards = self.sessions.get(publishing.publisher).and_then(|slot| slot.forwards.as_ref());
        let targets = forwards.and_then(|forwards| forwards.by_id.get(&packet_id)).map(|of| of.targets.clone());
        match targets {
            Some(targets) if !targets.is_empty() => {
                self.post_again(now, &publishing, &targets, &mut departure, out);
            }
            // Where it went is not known any more.
            Some(_) | None => {
                let topic = TopicName::from_bytes(publishing.topic).expect("the caller validated it");
                let places = self.topics.matches(topic, &mut Memo::default()).places.clone();
                let far = &places[places.partition_point(|place| slot_of(*place) == 0)..];
                self.forward_far(now, &publishing, far, &mut departure, out);
            }
        }
        self.departed(&mut departure);
        match departure.gate {
            Some(gate) => self.finish_gate(now, conn, gate, true, out),
            None => {
                self.confirm_forward(publishing.publisher, packet_id);
                let (kind, packet_id, reason) = owed;
                self.send_ack(now, conn, kind, packet_id, reason, out);
                Next::Go
            }
        }
    }
}
