//! S8 and S15: Packet Identifiers toward a client and its window; and what the client acknowledges.

use newtmq_mqtt::{QoS, ReasonCode};

use super::limits::CONTROL_BYTES;
use super::state::State;
use super::witness::{Cx, Story};
use crate::history::{AckKind, ConnIx, NameIx, ReceiveFacts, Uid};
use crate::report::Check;

/// A PUBLISH that the client has not acknowledged in full.
#[derive(Debug, Clone, Copy)]
pub(super) struct InFlight {
    pub(super) pid: u16,
    pub(super) uid: Option<Uid>,
    pub(super) topic: NameIx,
    pub(super) qos: QoS,
    /// Where it came last.
    pub(super) conn: u32,
    pub(super) at: newtmq_base::Instant,
    /// It takes a place in the window of its connection.
    counts: bool,
}

impl State {
    /// Notes what came with a Packet Identifier.
    pub(super) fn fly(&mut self, conn: u32, facts: &ReceiveFacts, cx: &mut Cx<'_>) {
        let Some(pid) = facts.pid else { return };
        cx.owe(Check::PacketIdReused);
        cx.owe(Check::Window);
        let counts = !self.crossed(conn, facts);
        let State { conns, ids, limits, .. } = self;
        let Some(c) = conns[conn as usize].as_deref_mut() else { return };
        let known = &mut ids[c.id as usize];
        let new = InFlight { pid, uid: facts.uid, topic: facts.topic, qos: facts.qos, conn, at: cx.now, counts };
        let mut reused = None;
        match known.inflight.iter_mut().find(|flight| flight.pid == pid) {
            Some(flight) => {
                let same = flight.uid == facts.uid && flight.topic == facts.topic;
                // A packet that became too large for a later connection is given up.
                let given_up = flight.conn != conn && known.packet_max < u32::MAX;
                if !same && !given_up && !c.wild {
                    reused = Some(*flight);
                }
                let counted = flight.counts && flight.conn == conn;
                // One more copy of what is in the window, or not any more, changes nothing.
                let counts = if same && flight.conn == conn { flight.counts } else { counts };
                c.outstanding += u32::from(counts);
                c.outstanding = c.outstanding.saturating_sub(u32::from(counted));
                *flight = InFlight { counts, ..new };
            }
            None => {
                known.inflight.push_back(new);
                c.outstanding += u32::from(counts);
            }
        }
        let window = u32::from(c.receive_maximum).min(limits.inflight);
        if c.outstanding > window {
            self.window_exceeded(conn, facts, window, cx);
        }
        if let Some(old) = reused {
            self.reused(conn, facts, &old, cx);
        }
    }

    /// Whether it was sent again in this connection while its acknowledgement was on its way: the broker, which has that by
    /// now, has a place in the window again.
    fn crossed(&mut self, conn: u32, facts: &ReceiveFacts) -> bool {
        let c = self.conn(conn);
        let (id, pid) = (c.id, facts.pid.unwrap_or(0));
        // A datagram that was sent before the one with DUP may come behind it.
        let late_first = c.sn.is_some() && self.limits.sn_unreliable;
        if !(facts.dup || late_first) || !c.may_resend(self.limits.retries) {
            return false;
        }
        let epoch = self.ids[id as usize].epoch;
        // What has no name, or was acknowledged long ago and is forgotten, is taken for such a copy.
        let Some(message) = facts.uid.and_then(|uid| self.message(uid)) else { return true };
        let target = message.targets.iter_mut().find(|target| target.id == id && target.epoch == epoch);
        // It was in flight in this connection and is not any more.
        target.is_some_and(|target| target.copies_known().any(|of| *of == (pid, conn)))
    }

    #[cold]
    fn window_exceeded(&mut self, conn: u32, facts: &ReceiveFacts, window: u32, cx: &mut Cx<'_>) {
        let c = self.conn(conn);
        let message =
            format!("{} has {} unacknowledged messages, its window is {window}", self.who(conn), c.outstanding);
        let oldest = self.ids[c.id as usize].inflight.iter().find(|flight| flight.conn == conn);
        let story = Story::default()
            .uid(facts.uid)
            .topic(facts.topic)
            .client(c.client)
            .conn(conn)
            .when_some(oldest.map(|flight| flight.at), "the oldest unacknowledged PUBLISH was received")
            .when(cx.now, "one more was received");
        cx.violated(Check::Window, message, story);
    }

    #[cold]
    fn reused(&mut self, conn: u32, facts: &ReceiveFacts, old: &InFlight, cx: &mut Cx<'_>) {
        let name = |uid: Option<Uid>| uid.map_or_else(|| "a message without name".to_owned(), |uid| uid.to_string());
        let pid = old.pid;
        let message = format!(
            "{} got {} with Packet Identifier {pid}, under which {} is not acknowledged",
            self.who(conn),
            name(facts.uid),
            name(old.uid)
        );
        let story = Story::default()
            .uid(facts.uid)
            .topic(facts.topic)
            .client(self.conn(conn).client)
            .conn(old.conn)
            .conn(conn)
            .when(old.at, format!("{} was received with Packet Identifier {pid}", name(old.uid)))
            .when(cx.now, format!("{} was received with Packet Identifier {pid}", name(facts.uid)));
        cx.violated(Check::PacketIdReused, message, story);
    }

    /// The client acknowledges.
    pub(super) fn ack(&mut self, conn: ConnIx, kind: AckKind, pid: u16, code: ReasonCode, cx: &mut Cx<'_>) {
        let stale = self.is_stale(conn.0);
        let State { conns, ids, clients, .. } = self;
        let Some(c) = conns[conn.0 as usize].as_deref_mut() else { return };
        c.sent_bytes += CONTROL_BYTES;
        let known = &mut ids[c.id as usize];
        let at = known.inflight.iter().position(|flight| flight.pid == pid);
        let Some((at, flight)) = at.map(|at| (at, known.inflight[at])) else {
            c.odd = true;
            return;
        };
        // Who took the session over got it again, because this one had not acknowledged it; now nobody hears it.
        if stale && flight.conn != conn.0 {
            return;
        }
        let fits = match kind {
            AckKind::Puback => flight.qos == QoS::AtLeastOnce,
            AckKind::Pubrec | AckKind::Pubrel | AckKind::Pubcomp => flight.qos == QoS::ExactlyOnce,
        };
        if !fits {
            c.odd = true;
            return;
        }
        if kind == AckKind::Pubrec && !code.is_error() {
            return;
        }
        known.inflight.remove(at);
        if flight.conn == conn.0 && flight.counts {
            c.outstanding = c.outstanding.saturating_sub(1);
        }
        let (id, epoch) = (c.id, known.epoch);
        if let Some(uid) = flight.uid
            && let Some(message) = clients.get_mut(uid.publisher.0 as usize).and_then(|of| of.message(uid.number))
            && let Ok(at) = message.targets.binary_search_by_key(&id, |target| target.id)
            && message.targets[at].epoch == epoch
        {
            message.targets[at].acked = Some(cx.now);
        }
    }
}
