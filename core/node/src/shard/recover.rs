//! After a start: what was stored comes in, and connections wait until every shard knows all routes. While running: what is
//! only in old segments of the log is stored again, some at a time, so that they can be freed (docs/adr/0007).

use core::time::Duration;

use newtmq_base::{Instant, ShardId, planted};
use newtmq_mqtt::OwnedTopicFilter;
use newtmq_session::{MessageId, Record, Restored};
use newtmq_topic::{SubscriberId, Subscription};

use super::claims::Claimed;
use super::gates::Forwards;
use super::retain::Retained;
use super::{Away, SessionSlot, Shard, TimerKind};
use crate::conn::{NONE, Phase};
use crate::control::ToControl;
use crate::io::{Outbox, Output};
use crate::place::Stamp;
use crate::store::{Durability, RecoveredChunk, RecoveredRetained};

/// Most sessions and retained messages that one Tick looks at.
const RENEW_STEP: usize = 256;

/// A session that waits until every shard has what was stored.
#[derive(Debug)]
pub(crate) struct RestoredSession {
    key: u32,
    /// When its client went; none if it was connected.
    detached: Option<Instant>,
    /// Subscriptions that were getting retained messages.
    readings: Vec<OwnedTopicFilter>,
}

/// Storing again what is only in old segments.
#[derive(Debug)]
pub(crate) struct Renewal {
    /// The first segment that stays.
    before: u64,
    /// Sessions below this key are done.
    session: u32,
    /// Messages that wait for other nodes, up to this one, are done.
    hint: u64,
    /// Retained messages up to this topic are done.
    topic: String,
}

impl Shard {
    pub(crate) fn on_recovered(&mut self, now: Instant, chunk: RecoveredChunk, out: &mut Outbox) {
        for session in chunk.sessions {
            let gone = session.whereabouts.gone.filter(|_| self.claims).map(newtmq_base::NodeId);
            if self.claims && gone.is_none() {
                self.tell_recovered(&session, out);
            }
            let key = self.restore(session);
            match gone {
                Some(to) => self.restore_stub(now, key, to),
                None => self.find_kept_will(key, out),
            }
        }
        for retained in chunk.retained {
            if self.agrees_on(retained.message.topic_str()) {
                self.bring(now, &retained.message, out);
            } else {
                self.restore_retained(retained);
            }
        }
        if let Some(peers) = &mut self.peers {
            peers.inward.restore(chunk.marks, chunk.guids);
        }
        self.restore_hints(now, chunk.hints);
        if chunk.last {
            let alone = self.shards() == 1 && !self.clustered;
            if alone || planted!(RecoveredTooEarly) {
                self.open_to_clients(now, out);
            } else {
                self.send_changes(out);
                out.push(Output::Control(ToControl::Recovered));
            }
        }
    }

    /// Every shard has what was stored, and all know of it.
    pub(crate) fn open_to_clients(&mut self, now: Instant, out: &mut Outbox) {
        if !core::mem::replace(&mut self.recovering, false) {
            return;
        }
        // Wills are due only when everybody is there who gets them, and whose retained messages they replace.
        for RestoredSession { key, detached, readings } in core::mem::take(&mut self.restored) {
            for filter in readings {
                self.read_again(key, filter, out);
            }
            match detached {
                None => self.detach(now, key, out),
                Some(at) => self.wait_again(now, key, at),
            }
        }
        self.give_recovered(now, out);
        for conn in self.all_conns() {
            let c = self.live(conn);
            if c.phase == Phase::AwaitGrant {
                let listener = newtmq_base::ListenerId(c.listener);
                self.admit(now, conn, listener, out);
                if self.live(conn).phase != Phase::AwaitGrant {
                    self.resume(now, conn, out);
                }
            }
        }
    }

    /// A session without a connection. One that had a connection when the log ended has lost it.
    fn restore(&mut self, restored: Restored) -> u32 {
        let Restored { id, session, zone, detached, readings, forwards, given_up, whereabouts, segment } = restored;
        let is_gone = self.claims && whereabouts.gone.is_some();
        let zone = self.config.zones.iter().position(|known| *known.name == *zone).unwrap_or(0) as u16;
        let waiting = (session.queue_len() + session.inflight_len()) as u64;
        let key = self.add_session(session, zone);
        self.ledger.matched += waiting;
        let slot = self.slot(key);
        (slot.stored, slot.segment) = (Some(id), segment);
        if whereabouts.epoch != [0; 4] {
            slot.claimed = Some(Box::new(Claimed::restored(whereabouts)));
        }
        slot.forwards = Forwards::restored(forwards);
        let durability = self.config.zones[usize::from(zone)].durability;
        for dseq in given_up.into_iter().filter(|_| !planted!(TrimNotStored)) {
            // Or they would be back after the next start, and come behind later ones.
            self.journal.record(&Record::Drop { session: id, dseq }, durability);
        }
        let slot = self.slot(key);
        let subscriptions: Vec<_> = slot.session.subscriptions().iter().map(|(f, e)| (f.clone(), *e)).collect();
        for (filter, entry) in subscriptions {
            let options = entry.options;
            let subscription = Subscription::new(
                SubscriberId(key),
                options.qos,
                options.no_local,
                options.retain_as_published,
                entry.identifier,
            );
            self.add_subscription(&filter, subscription);
        }
        // What has gone waits for nobody.
        if !is_gone {
            self.restored.push(RestoredSession { key, detached, readings });
        }
        key
    }

    /// What of them was sent before, and acknowledged, comes once more.
    pub(super) fn read_again(&mut self, key: u32, filter: OwnedTopicFilter, out: &mut Outbox) {
        let Some(entry) = self.slot(key).session.subscriptions().get(filter.as_str()).copied() else { return };
        let identifier = entry.identifier.map_or(0, core::num::NonZeroU32::get);
        if planted!(ReadingNotRestored) {
            return;
        }
        if self.prepare_pour(key, &filter, entry.options.qos, identifier) {
            self.pour(key, filter, out);
        } else {
            // Nothing is retained any more: a later start must not read what will have come live by then.
            self.note(key, |session| Record::Reading { session, filter, done: true });
        }
    }

    /// A session has ended, or gone to another node, before every shard has what was stored.
    pub(super) fn awaits_no_start(&mut self, key: u32) {
        if !self.restored.is_empty() && !planted!(EndedAwaitsStart) {
            self.restored.retain(|of| of.key != key);
        }
    }

    /// The deadlines of a session whose client went at this time.
    fn wait_again(&mut self, now: Instant, key: u32, at: Instant) {
        let slot = self.slot(key);
        let at = if planted!(ExpiryStartsOver) { now } else { at };
        let after = |seconds: u32| at + Duration::from_secs(u64::from(seconds));
        let expires = match slot.session.expiry_interval() {
            u32::MAX => Instant::NEVER,
            seconds => after(seconds),
        };
        // A will that is there is one that was not due yet.
        let will = slot.session.will().map_or(Instant::NEVER, |will| after(will.delay_interval));
        let away = Away { expires, will };
        slot.away = Some(Box::new(away));
        self.timers.arm(away.deadline(), TimerKind::Session(key));
    }

    fn restore_retained(&mut self, retained: RecoveredRetained) {
        let RecoveredRetained { message, segment } = retained;
        let topic = message.topic_str().to_owned();
        let owner = usize::from(self.own);
        // Before everything that comes in this start, and each another one, for their expiry is told apart by it.
        self.lanes[owner].retained_sent += 1;
        self.lanes[owner].retained_seen = self.lanes[owner].retained_sent;
        let stamp = Stamp::new(self.own, self.lanes[owner].retained_sent);
        if message.expires() != Instant::NEVER {
            self.retained_expiry.insert((message.expires(), stamp), topic.into());
        }
        self.shares.retained.used += 1;
        self.retained.set(Retained { message, stamp, segment });
    }

    /// Segments before this one are to be freed.
    pub(crate) fn on_renew(&mut self, before: u64) {
        self.renewal = Some(Renewal { before, session: 0, hint: 0, topic: String::new() });
        if let Some(peers) = &mut self.peers {
            peers.inward.record(ShardId(self.own), &mut self.journal);
        }
    }

    /// Stores some of it again. The batch of the last step says that the old segments are not needed any more.
    pub(crate) fn renew_step(&mut self, _: &mut Outbox) {
        let Some(mut renewal) = self.renewal.take() else { return };
        let Shard { sessions, journal, config, retained, peers, .. } = self;
        let mut left = RENEW_STEP;
        let end = sessions.key_end();
        while renewal.session < end && left > 0 {
            let key = renewal.session;
            renewal.session += 1;
            left -= 1;
            let Some(slot) = sessions.get_mut(key) else { continue };
            let Some(session) = slot.stored.filter(|_| slot.segment < renewal.before) else { continue };
            let zone = &config.zones[usize::from(slot.zone)];
            let detached = detached_at(slot, journal.time());
            journal.record_whole(slot, session, zone, detached);
            slot.segment = journal.segment;
        }
        if let Some(peers) = peers {
            peers.hints.renew(&mut renewal.hint, renewal.before, &mut left, journal);
        }
        if renewal.session < end || left == 0 {
            self.renewal = Some(renewal);
            return;
        }
        while left > 0 {
            left -= 1;
            let Some(next) = retained.after(&renewal.topic) else {
                journal.needs_from(renewal.before);
                return;
            };
            renewal.topic = next.message.topic_str().into();
            // What all nodes agree on is in the log of the control plane.
            let is_elsewhere = next.message.id() == MessageId::NONE || next.stamp.index().is_some();
            if next.segment >= renewal.before || is_elsewhere {
                continue;
            }
            let (message, stamp, segment) = (next.message.clone(), next.stamp, journal.segment);
            let topic = renewal.topic.clone();
            let record = Record::Retain { topic, message: Some((message.id(), message.expires())) };
            journal.record_with(&record, &message, Durability::Synced);
            retained.set(Retained { message, stamp, segment });
        }
        self.renewal = Some(renewal);
    }
}

/// When a session's client went, from its deadlines; `now` where nothing depends on it.
fn detached_at(slot: &SessionSlot, now: Instant) -> Option<Instant> {
    if slot.conn != NONE {
        return None;
    }
    let Some(away) = &slot.away else { return Some(now) };
    let before = |deadline: Instant, seconds: u32| {
        Instant::from_nanos(deadline.as_nanos().saturating_sub(u64::from(seconds) * 1_000_000_000))
    };
    match slot.session.will() {
        _ if away.expires != Instant::NEVER => Some(before(away.expires, slot.session.expiry_interval())),
        Some(will) if away.will != Instant::NEVER => Some(before(away.will, will.delay_interval)),
        _ => Some(now),
    }
}
