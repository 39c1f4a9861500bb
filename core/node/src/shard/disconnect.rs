//! The end of connections and sessions, and wills (sections 3.1.2.5, 3.14 and 4.1).

use core::time::Duration;

use newtmq_base::{ConnId, Instant, planted};
use newtmq_mqtt::{Disconnect, ReasonCode};
use newtmq_session::{Message, MessageId, MessageParts, Op, Record, Will};

use super::{Away, Next, Shard, TimerKind};
use crate::conn::{Feature, NONE, Phase};
use crate::hooks::Hook;
use crate::io::{CloseCause, Outbox, Output};
use crate::ledger::DropReason;
use crate::place::PlaceMessage;

/// Time that a client has to take what is left before its connection is cut.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

impl Shard {
    /// DISCONNECT from the client: without an error the will is dropped [MQTT-3.14.4-3].
    pub(crate) fn on_disconnect(
        &mut self,
        now: Instant,
        conn: ConnId,
        disconnect: &Disconnect<'_>,
        out: &mut Outbox,
    ) -> Next {
        if let Err(reason) = self.take_farewell(conn, disconnect) {
            return self.reject(now, conn, reason, out);
        }
        self.close(now, conn, disconnect.reason_code, out);
        Next::Stop
    }

    /// What a DISCONNECT says of the session and of its will.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn take_farewell(&mut self, conn: ConnId, disconnect: &Disconnect<'_>) -> Result<(), ReasonCode> {
        let key = self.live(conn).session;
        if let Some(interval) = disconnect.properties.session_expiry_interval {
            let zone = usize::from(self.live(conn).zone);
            let expiry_interval = interval.min(self.config.zones[zone].max_session_expiry_interval);
            if self.slot(key).session.expiry_interval() == 0 && expiry_interval > 0 {
                // An ended session cannot be kept after all (3.14.2.2.2). In a zone that keeps none nobody has tried to.
                return Err(ReasonCode::ProtocolError);
            }
            self.apply(conn, Op::Detach { expiry_interval });
        }
        let deletes =
            disconnect.reason_code != ReasonCode::DisconnectWithWillMessage && !disconnect.reason_code.is_error();
        if deletes && !planted!(WillOnDisconnect) {
            self.apply(conn, Op::Will { will: None });
        }
        Ok(())
    }

    /// Parts a connection from its session and asks the driver to close it.
    pub(crate) fn close(&mut self, now: Instant, conn: ConnId, reason: ReasonCode, out: &mut Outbox) {
        self.part(now, conn, reason, out);
        let c = self.live(conn);
        c.phase = Phase::Closing;
        if planted!(OldConnectionLeftOpen, reason == ReasonCode::SessionTakenOver) {
            return;
        }
        self.arm_conn(conn, now + CLOSE_TIMEOUT);
        out.push(Output::Close { conn, reason });
    }

    /// The network connection is gone.
    pub(crate) fn on_closed(&mut self, now: Instant, conn: ConnId, cause: CloseCause, out: &mut Outbox) {
        if self.conn(conn).is_none() {
            return;
        }
        self.hear_farewell(conn);
        let reason = match cause {
            CloseCause::Peer | CloseCause::Asked => ReasonCode::Success,
            CloseCause::Error => ReasonCode::UnspecifiedError,
        };
        // Nobody is there to be answered or read; the driver knows its name no longer.
        let c = self.live(conn);
        if !planted!(ClosedConnectionAnswered) {
            c.held = false;
            if let Some(rare) = &mut c.rare {
                rare.withheld.clear();
            }
        }
        self.part(now, conn, reason, out);
        self.arm_conn(conn, Instant::NEVER);
        self.forget_deadlines(conn);
        if let Some(pending) = self.live(conn).rare.as_mut().and_then(|rare| rare.pending.take()) {
            self.requests.remove(&pending.request);
        }
        self.has_left(conn, out);
        if let Some(c) = self.conns[conn.slot as usize].take()
            && c.features.has(Feature::Counted)
            && !planted!(ConnectionShareLeak, c.phase != Phase::Closing)
        {
            self.shares.connections[usize::from(c.listener)].used -= 1;
        }
    }

    /// Takes the session away from its connection: those who waited for it go on, the will's rules apply, the session
    /// ends or waits.
    fn part(&mut self, now: Instant, conn: ConnId, reason: ReasonCode, out: &mut Outbox) {
        self.release_waiters(now, conn.slot, out);
        let c = self.live(conn);
        let key = core::mem::replace(&mut c.session, NONE);
        if key == NONE {
            return self.end_claim(now, conn, None, out);
        }
        let is_claimed = c.features.has(Feature::Claimed);
        let client = self.sessions.get(key).filter(|_| is_claimed).map(|slot| slot.session.client().as_str().into());
        let c = self.live(conn);
        if c.waits() {
            self.stop_waiting_for_all(now, conn, |_| true, out);
        }
        self.drop_gates(conn);
        let suback = self.give_up_waiting(conn);
        for filter in suback.map(|suback| suback.readings).unwrap_or_default() {
            self.stop_pouring(key, filter.as_str());
        }
        self.tell(Hook::ClientDisconnected, key, None, reason, out);
        self.slot(key).conn = NONE;
        if self.has_sys_listeners() {
            let username = self.live(conn).rare.as_ref().and_then(|rare| rare.username.clone());
            self.tell_disconnected(now, key, username.as_deref(), reason, out);
        }
        // Before the word that its session has ended, of which it would get another one.
        self.end_claim(now, conn, client, out);
        self.detach(now, key, out);
    }

    /// The session has no connection: it ends now or later, its will is due now, later or never.
    pub(crate) fn detach(&mut self, now: Instant, key: u32, out: &mut Outbox) {
        let zone = usize::from(self.slot(key).zone);
        let limits = self.config.zones[zone].session;
        let slot = self.slot(key);
        let expiry_interval = slot.session.expiry_interval();
        slot.session.apply(Op::Detach { expiry_interval }, &limits);
        if slot.session.will().is_none() && slot.kept_will().is_some() {
            self.change_kept_will(key, None, out);
        }
        if expiry_interval == 0 {
            self.end_session(now, key, out);
            return;
        }
        self.note(key, |session| Record::Detach { session, expiry_interval, at: now });
        let slot = self.slot(key);
        let delay = slot.session.will().map(|will| will.delay_interval);
        if delay == Some(0) && !planted!(WillWaitsForSession) {
            self.fire_will(now, key, out);
        }
        let expires = match expiry_interval {
            u32::MAX => Instant::NEVER,
            _ if planted!(SessionNeverExpires) => Instant::NEVER,
            seconds => now + Duration::from_secs(u64::from(seconds)),
        };
        let will = match delay {
            Some(seconds) if seconds > 0 => now + Duration::from_secs(u64::from(seconds)),
            Some(_) | None => Instant::NEVER,
        };
        let away = Away { expires, will };
        self.slot(key).away = Some(Box::new(away));
        self.timers.arm(away.deadline(), TimerKind::Session(key));
    }

    /// A deadline of a session without a connection.
    pub(crate) fn on_session_timer(&mut self, now: Instant, key: u32, out: &mut Outbox) {
        let Some(slot) = self.sessions.get_mut(key) else { return };
        if slot.away.as_ref().is_none_or(|away| away.deadline() > now) {
            return;
        }
        if slot.claimed.as_ref().is_some_and(|claimed| claimed.stub.is_some()) {
            return self.work_stub(now, key, out);
        }
        if slot.claimed.as_ref().is_some_and(|claimed| claimed.kept_until > now) {
            return self.on_the_way(now, key, out);
        }
        let Some(away) = &mut slot.away else { return };
        if away.expires <= now || planted!(WillDelayEndsSession, away.will <= now) {
            slot.away = None;
            self.end_session(now, key, out);
            return;
        }
        away.will = Instant::NEVER;
        let deadline = away.deadline();
        self.timers.arm(deadline, TimerKind::Session(key));
        self.fire_will(now, key, out);
    }

    /// The session is over; its will, if it has one left, is due [MQTT-3.1.2-8].
    pub(crate) fn end_session(&mut self, now: Instant, key: u32, out: &mut Outbox) {
        self.stop_waiting(key);
        self.release_all_forwarded(now, key);
        self.fire_will(now, key, out);
        self.tell(Hook::SessionTerminated, key, None, ReasonCode::Success, out);
        self.tell_ended(key, out);
        if !planted!(EndNotStored, self.slot(key).stored.is_some()) {
            self.note(key, |session| Record::End { session });
        }
        let class = self.class_of_session(key);
        self.awaits_no_start(key);
        let Some(slot) = self.sessions.remove(key) else { return };
        let (session, is_stored) = (slot.session, slot.stored.is_some());
        self.clients.remove(session.client().as_str(), key);
        for (filter, _) in session.subscriptions().iter() {
            if planted!(SharedMemberOutlivesSession, filter.as_filter().share_group().is_some()) {
                continue;
            }
            self.remove_subscription(filter.as_filter(), key, class);
        }
        let in_flight = if planted!(LedgerMissesInFlight) { 0 } else { session.inflight_len() };
        let left = session.queue_len() + in_flight;
        let passed_on = self.pass_on_shared(now, &session, is_stored, out);
        self.ledger.drop(DropReason::SessionEnded, left as u64 - passed_on);
    }

    pub(crate) fn fire_will(&mut self, now: Instant, key: u32, out: &mut Outbox) {
        if let Some(epoch) = self.sessions.get(key).and_then(super::SessionSlot::kept_will) {
            return self.ask_for_will(now, key, epoch, out);
        }
        self.note_op(key, &Op::Will { will: None });
        let Shard { sessions, scratch, config, journal, .. } = self;
        let Some(slot) = sessions.get_mut(key) else { return };
        let Some(will) = slot.session.will() else { return };
        let message = due(will, journal.message_id(), now, &mut scratch.block);
        if !planted!(WillTwice) {
            slot.session.apply(Op::Will { will: None }, &config.zones[usize::from(slot.zone)].session);
        }
        // Once it is no will any more it is with those who get it.
        self.journal.whole = self.sessions.get(key).is_some_and(|slot| slot.stored.is_some());
        self.publish_message(now, &message, key, out);
        self.journal.whole = false;
    }

    /// The node stops: wills first, while there are connections to take them. Everybody is sent away when the other
    /// shards have no will left either.
    pub(crate) fn on_shutdown(&mut self, now: Instant, out: &mut Outbox) {
        // A delayed will has no time left to wait: with its session in memory, the session ends here.
        // A stored one goes on after the next start, and what the cluster keeps the others publish.
        let stays = |slot: &super::SessionSlot| slot.stored.is_some() || slot.kept_will().is_some();
        let ends = |slot: &super::SessionSlot| !stays(slot) && slot.session.will().is_some();
        let wills = self.sessions.iter().filter(|(_, slot)| ends(slot));
        for key in wills.map(|(key, _)| key).collect::<Vec<u32>>() {
            self.fire_will(now, key, out);
        }
        while !self.jobs.is_empty() {
            self.work(now, out);
        }
        for to in 0..self.shards() {
            if to != self.own {
                self.send_place(to, PlaceMessage::Bye, out);
            }
        }
        self.stopping = true;
        self.send_all_away(now, out);
    }

    /// Another shard has no will left.
    pub(crate) fn on_bye(&mut self, now: Instant, out: &mut Outbox) {
        self.byes += 1;
        self.send_all_away(now, out);
    }

    pub(crate) fn all_conns(&self) -> Vec<ConnId> {
        let conns = self.conns.iter().enumerate();
        conns.filter_map(|(slot, c)| Some(ConnId { slot: slot as u32, generation: c.as_ref()?.generation })).collect()
    }

    /// Everybody gets 0x8B, once nothing more can come.
    fn send_all_away(&mut self, now: Instant, out: &mut Outbox) {
        if !self.stopping || self.byes + 1 < self.shards() {
            return;
        }
        while !self.jobs.is_empty() {
            self.work(now, out);
        }
        for conn in self.all_conns() {
            match self.live(conn).phase {
                Phase::Open => {
                    self.reject(now, conn, ReasonCode::ServerShuttingDown, out);
                }
                Phase::AwaitGrant | Phase::AwaitConnect | Phase::Authenticating | Phase::Claiming => {
                    self.close(now, conn, ReasonCode::ServerShuttingDown, out);
                }
                Phase::Closing => {}
            }
        }
    }

    /// CONNECT did not come, nothing was heard for too long, or what was left could not be sent.
    pub(crate) fn on_conn_timer(&mut self, now: Instant, slot: u32, out: &mut Outbox) {
        let Some(Some(c)) = self.conns.get_mut(slot as usize) else { return };
        let conn = ConnId { slot, generation: c.generation };
        if c.timer > now {
            return;
        }
        c.timer = Instant::NEVER;
        match c.phase {
            Phase::AwaitGrant | Phase::AwaitConnect | Phase::Authenticating => {
                self.close(now, conn, ReasonCode::MaximumConnectTime, out);
            }
            Phase::Claiming => self.claim_overdue(now, conn, out),
            Phase::Closing => out.push(Output::Abort(conn)),
            Phase::Open => {
                let percent = self.config.zones[usize::from(c.zone)].keepalive_backoff_percent;
                let limit = super::connect::keep_alive_limit(c.keep_alive, percent);
                // Suspended while the broker itself does not read.
                let since = if c.held || planted!(KeepAliveNeverFires, c.heard + limit <= now) { now } else { c.heard };
                if since + limit > now {
                    let key = c.session;
                    self.arm_conn(conn, since + limit);
                    self.slot(key).session.release();
                } else {
                    self.reject(now, conn, ReasonCode::KeepAliveTimeout, out);
                }
            }
        }
    }
}

/// The will as a message whose Message Expiry Interval starts to count.
pub(super) fn due(will: &Will, id: MessageId, now: Instant, scratch: &mut Vec<u8>) -> Message {
    let Some(seconds) = will.message_expiry_interval else { return will.message.clone() };
    let message = &will.message;
    let parts = MessageParts {
        id,
        topic: message.topic(),
        forwardable: message.forwardable(),
        payload: message.payload(),
        qos: message.qos(),
        retain: message.retain(),
        expires: now + Duration::from_secs(u64::from(seconds)),
        stretched: false,
    };
    Message::new(&parts, scratch)
}
