//! Sessions on their way between nodes: what goes is packed and kept until it counts at the other node, what comes is taken in and
//! counts when it is stored, known, and the directory says so.

use core::time::Duration;

use newtmq_base::{ConnId, Instant, NodeId, planted};
use newtmq_cluster::directory::{Client, Grant, Input};
use newtmq_cluster::lane::{Epoch, Guid};
use newtmq_mqtt::ReasonCode;
use newtmq_session::{Record, Restored};
use newtmq_topic::{SubscriberId, Subscription};

use super::claims::{Claimed, LETTER_WITHIN, Later, ON_ITS_WAY, tell};
use super::late::{Origin, REMEMBERS_FOR};
use super::luggage::{LUGGAGE_MAX, Luggage};
use super::{Away, Shard, TimerKind};
use crate::conn::NONE;
use crate::io::Outbox;

impl Shard {
    /// A connection of another node attaches to the client's session, which goes there.
    pub(super) fn give_away(
        &mut self,
        now: Instant,
        client: Client,
        node: NodeId,
        epoch: Epoch,
        clean: bool,
        out: &mut Outbox,
    ) {
        if self.recovering && !planted!(GivenBeforeStart) {
            // The will of a connection that a crash has ended is due before.
            _ = self.claims_of.deferred.insert(client, (node, epoch, clean));
            return;
        }
        if let Some(key) = self.find_session(&client).filter(|_| clean) {
            self.end_session(now, key, out);
        }
        if let Some(key) = self.find_session(&client)
            && self.slot(key).conn != NONE
        {
            let bound = self.slot(key).conn;
            self.fence(now, bound, out);
        }
        let Some(key) = self.find_session(&client) else {
            tell(Input::Attached { client: client.clone(), epoch, present: false, answer: Box::default() }, out);
            tell(Input::Ended { client, epoch }, out);
            return;
        };
        let origin = self.claimed(key).origin.as_ref();
        if origin.is_some_and(|origin| !origin.came) && !planted!(LateBehind) {
            // What is still under way to here belongs in front of what has come since.
            self.claims_of.deferred.insert(client, (node, epoch, false));
            self.keep_until(key, now + ON_ITS_WAY);
            return self.look_again(key, |_| Away { expires: now + LETTER_WITHIN, will: Instant::NEVER });
        }
        let bytes = self.pack(now, key);
        if bytes.len() > LUGGAGE_MAX {
            // Nothing is answered: the client is told that its session cannot be reached.
            return tracing::warn!(%client, bytes = bytes.len(), "a session is too large to go to another node");
        }
        let upto = self.slot(key).session.next_dseq();
        self.keep_until(key, now + ON_ITS_WAY);
        self.note(key, |session| Record::Given { session, upto: Some(upto) });
        // The log keeps the epoch of before: if this does not come about, the other one's counts for more.
        let claimed = self.claimed(key);
        (claimed.epoch, claimed.given) = (epoch, Some((node, upto)));
        let input = Input::Attached { client, epoch, present: true, answer: bytes.into() };
        self.tell_later(Later::Directory(input), 0, out);
    }

    /// A session that was to go on before all of it had come goes now.
    pub(super) fn give_deferred(&mut self, now: Instant, key: u32, out: &mut Outbox) {
        // All that are asked for before this node is open go then.
        if self.recovering {
            return;
        }
        let client: Client = self.slot(key).session.client().as_str().into();
        let deferred = self.claims_of.deferred.remove(&client);
        let own = self.claimed(key).epoch;
        if let Some((node, epoch, clean)) = deferred.filter(|(_, epoch, _)| *epoch > own) {
            if !planted!(DeferredEndsEarly) {
                // It was looked at again for that, and has to wait for its client as long as any.
                self.stop_waiting(key);
            }
            self.wait_for_client(now, key);
            self.give_away(now, client, node, epoch, clean, out);
        }
    }

    /// Sessions that were asked for before this node was open go now.
    pub(super) fn give_recovered(&mut self, now: Instant, out: &mut Outbox) {
        for (client, (node, epoch, clean)) in core::mem::take(&mut self.claims_of.deferred) {
            self.give_away(now, client, node, epoch, clean, out);
        }
    }

    /// The timer of a session that is on its way.
    pub(super) fn on_the_way(&mut self, now: Instant, key: u32, out: &mut Outbox) {
        let client: Client = self.slot(key).session.client().as_str().into();
        if self.claims_of.deferred.contains_key(&client) {
            self.slot(key).away = None;
            return self.letter_came(now, key, out);
        }
        // Its own deadlines are later then.
        let until = self.claimed(key).kept_until;
        let later = |old: Away| Away { expires: old.expires.max(until), will: old.will.max(until) };
        self.look_again(key, later);
    }

    /// Changes the deadlines of a session without a connection.
    pub(super) fn look_again(&mut self, key: u32, change: impl FnOnce(Away) -> Away) {
        let none = Away { expires: Instant::NEVER, will: Instant::NEVER };
        let old = self.slot(key).away.take().map_or(none, |old| *old);
        self.timers.cancel(old.deadline(), TimerKind::Session(key));
        let away = change(old);
        self.slot(key).away = Some(Box::new(away));
        self.timers.arm(away.deadline(), TimerKind::Session(key));
    }

    /// The session of a connection comes from another node, or there was none in the end.
    pub(super) fn take_over_session(&mut self, now: Instant, conn: ConnId, grant: &Grant, out: &mut Outbox) {
        let zone = self.live(conn).zone;
        let epoch = grant.epoch;
        if let Some(key) = self.find_session(&grant.client) {
            // One of before, which lost its client.
            self.drop_session(key, out);
        }
        let mut luggage = if grant.present { Luggage::read(&grant.answer).ok() } else { None };
        let clean = luggage.as_ref().map_or(Epoch::ZERO, |luggage| luggage.clean);
        let names = luggage.as_mut().map(|luggage| core::mem::take(&mut luggage.names)).unwrap_or_default();
        let unpacked = luggage.and_then(|luggage| self.unpack(now, luggage, zone));
        if grant.present && unpacked.is_none() {
            tracing::warn!(client = %grant.client, "a session of another node cannot be read");
            return self.send_claimant_away(now, conn, ReasonCode::ServerUnavailable, out);
        }
        let readings = unpacked.as_ref().map(|restored| restored.readings.clone()).unwrap_or_default();
        if let Some(restored) = unpacked {
            self.settle_in(now, zone, (restored, names), (epoch, clean), grant.home);
        }
        let Some(claim) = self.live(conn).rare().claim.as_mut() else { return };
        (claim.moving, claim.readings) = (Some(epoch), readings);
        // One that begins, for the one before has ended as its connection did, is stored when its client is let in.
        let will_be = claim.durable && !planted!(NewHomeUnrecorded);
        let key = self.find_session(&grant.client);
        let durable = will_be || key.is_some_and(|key| self.slot(key).stored.is_some());
        let input = Input::Moved { client: grant.client.clone(), conn: grant.conn, epoch, clean, durable };
        self.send_changes(out);
        self.tell_later(Later::Directory(input), self.routes.seq(), out);
    }

    /// A session that has come from another node, without a connection, and names of messages that it has got.
    fn settle_in(
        &mut self,
        now: Instant,
        zone: u16,
        (restored, names): (Restored, Vec<Guid>),
        (epoch, clean): (Epoch, Epoch),
        from: NodeId,
    ) {
        let Restored { session, readings, forwards, .. } = restored;
        let waiting = (session.queue_len() + session.inflight_len()) as u64;
        self.ledger.matched += waiting;
        let expiry_interval = session.expiry_interval();
        let (base, until) = (session.next_dseq(), now + REMEMBERS_FOR);
        let origin = Some(Box::new(Origin::new((epoch, from), base, until, names)));
        let kept_until = now + ON_ITS_WAY;
        let claimed = Box::new(Claimed { epoch, clean, kept_until, origin, ..Claimed::default() });
        let key = self.add_session(session, zone);
        let slot = self.slot(key);
        (slot.claimed, slot.forwards) = (Some(claimed), super::gates::Forwards::restored(forwards));
        self.begin_to_store_silently(key, expiry_interval);
        self.set_epoch(key, epoch, None);
        let slot = self.slot(key);
        let subscriptions: Vec<_> = slot.session.subscriptions().iter().map(|(f, e)| (f.clone(), *e)).collect();
        for (filter, entry) in subscriptions {
            let options = entry.options;
            let (qos, no_local, as_published) = (options.qos, options.no_local, options.retain_as_published);
            let id = SubscriberId(key);
            self.add_subscription(&filter, Subscription::new(id, qos, no_local, as_published, entry.identifier));
        }
        for filter in readings {
            self.note(key, |session| Record::Reading { session, filter, done: false });
        }
        self.wait_for_client(now, key);
    }

    /// The session has lost its client to one at another node.
    pub(super) fn lose_session(
        &mut self,
        now: Instant,
        client: &str,
        upto: Epoch,
        (to, discard): (NodeId, bool),
        out: &mut Outbox,
    ) {
        if let Some((conn, claim)) = self.claimant(client) {
            // What it has come to, or would have begun, is not the client's.
            let of = claim.moving.or(claim.attached.map(|(epoch, _)| epoch));
            if of.is_some_and(|epoch| epoch <= upto) {
                self.send_claimant_away(now, conn, ReasonCode::SessionTakenOver, out);
            }
        }
        let Some(key) = self.find_session(client) else {
            return tell(Input::Ended { client: client.into(), epoch: upto }, out);
        };
        let epoch = self.claimed(key).epoch;
        if epoch > upto {
            return;
        }
        if self.slot(key).conn != NONE {
            let bound = self.slot(key).conn;
            self.fence(now, bound, out);
        }
        // It goes on to nobody any more.
        if self.claims_of.deferred.get(client).is_some_and(|(_, epoch, _)| *epoch <= upto) {
            self.claims_of.deferred.remove(client);
        }
        match self.find_session(client) {
            Some(key) if discard => self.end_session(now, key, out),
            Some(key) => self.become_stub(now, key, to, out),
            // It has ended with its connection.
            None => {}
        }
        // The directory may know it by a later grant, by which it was to go on to another node, and has not gone.
        if !planted!(LostDeferredStays) {
            self.tell_later(Later::Directory(Input::Ended { client: client.into(), epoch: upto }), 0, out);
        }
    }

    /// The connection has gone for which a session came here. If nobody has heard that it is here, it is not.
    pub(super) fn stop_moving(&mut self, now: Instant, client: &Client, epoch: Epoch, out: &mut Outbox) {
        let is_it = |later: &Later| match later {
            Later::Directory(Input::Moved { client: of, epoch: at, .. }) => (of, *at) == (client, epoch),
            Later::Directory(_) | Later::Control(_) => false,
        };
        let before = self.claims_of.untold.len();
        self.claims_of.untold.retain(|(.., later)| !is_it(later));
        let key = self.find_session(client);
        match key {
            Some(key) if self.claims_of.untold.len() < before => self.drop_session(key, out),
            Some(key) => {
                self.keep_until(key, Instant::START);
                self.wait_for_client(now, key);
            }
            // There was none to come.
            None if self.claims_of.untold.len() == before => tell(Input::Ended { client: client.clone(), epoch }, out),
            None => {}
        }
    }

    /// Has a session that nobody has attached to wait for its client, if it does not already.
    pub(super) fn wait_for_client(&mut self, now: Instant, key: u32) {
        let slot = self.slot(key);
        if slot.conn != NONE || slot.away.is_some() {
            return;
        }
        let expires = match slot.session.expiry_interval() {
            u32::MAX => Instant::NEVER,
            seconds => now + Duration::from_secs(u64::from(seconds)),
        };
        let away = Away { expires, will: Instant::NEVER };
        slot.away = Some(Box::new(away));
        self.timers.arm(away.deadline(), TimerKind::Session(key));
    }

    /// Removes a session that is the client's no more: it has no will, and what it has is another one's.
    pub(super) fn drop_session(&mut self, key: u32, out: &mut Outbox) {
        self.stop_waiting(key);
        self.drop_kept_will(key, out);
        self.note(key, |session| Record::End { session });
        let class = self.class_of_session(key);
        self.awaits_no_start(key);
        let Some(slot) = self.sessions.remove(key) else { return };
        let session = slot.session;
        // A stub has no name.
        if slot.claimed.is_none_or(|claimed| claimed.stub.is_none()) {
            self.clients.remove(session.client().as_str(), key);
        }
        for (filter, _) in session.subscriptions().iter() {
            self.remove_subscription(filter.as_filter(), key, class);
        }
        // They are matched where they are now.
        self.ledger.matched -= (session.queue_len() + session.inflight_len()) as u64;
    }
}
