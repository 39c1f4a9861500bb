//! What waits too long for an answer: acknowledgements of clients (section 4.4), PUBRELs, and verdicts of hooks.
//!
//! None of it has a timer of its own. A connection has one deadline for all its packets, and only while there are any;
//! questions have the same time each, so that a queue of them is in the order of their deadlines.

use core::time::Duration;

use newtmq_base::{ConnId, Instant};
use newtmq_mqtt::{PublishOut, ReasonCode, encode_ack};
use newtmq_session::{Op, OutgoingKind};

use super::fan::write_publish;
use super::{Shard, TimerKind, is_open, ready};
use crate::conn::Stage;
use crate::hooks::Verdict;
use crate::io::Outbox;
use crate::outbuf::OUTPUT_HIGH_BYTES;

/// The shortest tick: a deadline must lie ahead.
const TICK_MIN: Duration = Duration::from_millis(1);

/// A tick is half of the interval; see [`newtmq_session::OVERDUE_TICKS`].
fn tick(interval: Duration) -> Duration {
    (interval / 2).max(TICK_MIN)
}

impl Shard {
    /// Starts to watch for overdue acknowledgements, if something is in flight and nothing is watched.
    #[cold]
    pub(crate) fn watch_acks(&mut self, now: Instant, conn: ConnId) {
        let Some(c) = self.conn(conn) else { return };
        let (zone, watched) = (usize::from(c.zone), c.rare.as_ref().is_some_and(|rare| rare.retry_at.is_some()));
        let waits = self.sessions.get(c.session).is_some_and(|slot| slot.session.outstanding() > 0);
        if waits && !watched {
            let deadline = now + tick(self.config.zones[zone].retry_interval);
            self.live(conn).rare().retry_at = Some(deadline);
            self.timers.arm(deadline, TimerKind::Retry(conn.slot));
        }
    }

    /// Sends again what a client has not acknowledged for `retry_interval`. Only before MQTT 5, which forbids it
    /// [MQTT-4.4.0-1].
    pub(crate) fn on_retry_timer(&mut self, now: Instant, slot: u32, out: &mut Outbox) {
        let Shard { sessions, conns, pool, ledger, .. } = self;
        let Some(Some(c)) = conns.get_mut(slot as usize) else { return };
        c.rare().retry_at = None;
        let Some(s) = sessions.get_mut(c.session).filter(|_| is_open(c)) else { return };
        s.session.retry_tick();
        // What is not even sent for the first time is not sent a second time.
        if !c.ready {
            let mut from = 0;
            while c.out.len() < OUTPUT_HIGH_BYTES
                && let Some(outgoing) = s.session.next_overdue(&mut from)
            {
                ledger.sent_again += 1;
                let delivery = outgoing.delivery;
                let packet_id = delivery.packet_id.expect("only QoS 1 and 2 wait for acknowledgements");
                if outgoing.kind == OutgoingKind::Pubrel {
                    let (kind, version) = (newtmq_mqtt::PacketType::Pubrel, c.version);
                    c.out.encode(pool, |bytes| encode_ack(kind, packet_id, ReasonCode::Success, version, bytes));
                    continue;
                }
                let message = &delivery.message;
                let frame = PublishOut {
                    dup: true,
                    qos: delivery.qos,
                    retain: delivery.retain,
                    topic: message.topic(),
                    packet_id: Some(packet_id),
                    topic_alias: None,
                    message_expiry_interval: None,
                    subscription_identifiers: &[],
                    forwardable: message.forwardable(),
                    payload: message.payload(),
                };
                let written = write_publish(c, frame, Some(message), pool);
                assert!(written, "before MQTT 5 there is no Maximum Packet Size, and it was sent before");
            }
            if !c.out.is_empty() {
                ready(now, c, slot, out);
            }
        }
        let conn = ConnId { slot, generation: c.generation };
        self.watch_acks(now, conn);
    }

    /// Starts to watch for PUBRELs, if nothing is watched.
    pub(crate) fn watch_rels(&mut self, now: Instant, conn: ConnId) {
        let Some(c) = self.conn(conn).filter(|c| is_open(c)) else { return };
        let timeout = self.config.zones[usize::from(c.zone)].await_rel_timeout;
        let watched = c.rare.as_ref().is_some_and(|rare| rare.rel_at.is_some());
        if !timeout.is_zero() && !watched {
            let deadline = now + tick(timeout);
            self.live(conn).rare().rel_at = Some(deadline);
            self.timers.arm(deadline, TimerKind::AwaitRel(conn.slot));
        }
    }

    /// Frees the QoS 2 identifiers whose PUBREL has not come for `await_rel_timeout`.
    pub(crate) fn on_await_rel_timer(&mut self, now: Instant, slot: u32) {
        let Some(Some(c)) = self.conns.get_mut(slot as usize) else { return };
        let conn = ConnId { slot, generation: c.generation };
        c.rare().rel_at = None;
        if !is_open(c) {
            return;
        }
        // While the broker does not read it, or owes it a PUBREC, the client is not late.
        let excused = c.held || c.withholds() || c.gates() > 0;
        let key = c.session;
        let overdue = if excused { Vec::new() } else { self.slot(key).session.await_rel_tick() };
        for packet_id in &overdue {
            self.apply(conn, Op::Qos2Rel { packet_id: *packet_id });
            self.release_forwarded(now, key, *packet_id);
        }
        if !overdue.is_empty() {
            self.ledger.rel_timeouts += overdue.len() as u64;
            tracing::debug!(%conn, count = overdue.len(), "PUBREL did not come; the packet identifiers are free again");
        }
        if self.slot(key).session.awaiting_rel_len() > 0 {
            self.watch_rels(now, conn);
        }
    }

    /// The connection is gone: its deadlines are, too.
    pub(crate) fn forget_deadlines(&mut self, conn: ConnId) {
        let Some(Some(c)) = self.conns.get_mut(conn.slot as usize) else { return };
        let Some(rare) = &mut c.rare else { return };
        let deadlines = [
            (rare.retry_at.take(), TimerKind::Retry(conn.slot)),
            (rare.rel_at.take(), TimerKind::AwaitRel(conn.slot)),
            (rare.paced_until.take(), TimerKind::Pace(conn.slot)),
            (rare.grant.take().and_then(|grant| grant.until), TimerKind::Grant(conn.slot)),
        ];
        for (deadline, kind) in deadlines {
            if let Some(deadline) = deadline {
                self.timers.cancel(deadline, kind);
            }
        }
    }

    /// Gives the questions of this call their deadline.
    pub(crate) fn watch_questions(&mut self, now: Instant) {
        // Those that were answered quickly leave at once, so that the queue is as long as what is open.
        while self.questions.front().is_some_and(|(_, request)| !self.requests.contains_key(request)) {
            self.questions.pop_front();
        }
        let deadline = now + self.config.hook_timeout;
        for request in self.watched_requests..self.next_request {
            self.questions.push_back((deadline, newtmq_base::RequestId(request)));
        }
        self.watched_requests = self.next_request;
    }

    /// Questions that nobody has answered in time are answered with no: a hook that hangs must not hold clients for ever,
    /// and must not open the door either.
    pub(crate) fn expire_questions(&mut self, now: Instant, out: &mut Outbox) {
        while self.questions.front().is_some_and(|(deadline, _)| *deadline <= now) {
            let Some((_, request)) = self.questions.pop_front() else { return };
            let Some(conn) = self.requests.get(&request).copied() else { continue };
            let pending = self.conn(conn).and_then(|c| c.rare.as_ref()).and_then(|rare| rare.pending.as_ref());
            let reason = match pending.map(|pending| pending.stage) {
                Some(Stage::Authenticate) => ReasonCode::ServerUnavailable,
                Some(Stage::Reauthenticate | Stage::CheckAcl | Stage::Publish | Stage::Subscribe | Stage::Retain)
                | None => ReasonCode::ImplementationSpecificError,
            };
            self.ledger.hook_timeouts += 1;
            tracing::debug!(%conn, %reason, "a hook has not answered in time");
            self.on_decided(now, request, Verdict::Deny(reason), out);
        }
    }
}
