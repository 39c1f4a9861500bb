//! Retained messages: one per topic (section 3.3.1.3), and their way to new subscriptions.

use core::ops::ControlFlow;

use newtmq_base::{ConnId, Instant};
use newtmq_mqtt::{OwnedTopicFilter, QoS};
use newtmq_session::{Identifiers, Message, Op};
use newtmq_topic::{RetainedCursor, RetainedIndex, RetainedValue};

use super::fan::{Publishing, pump, write_publish};
use super::{SessionSlot, Shard, ready};
use crate::config::RetainedConfig;
use crate::conn::{Conn, NONE};
use crate::io::Outbox;
use crate::ledger::{DropReason, Ledger};
use crate::outbuf::{BufferPool, OUTPUT_LOW_BYTES};

/// The retained message of a topic.
#[derive(Debug)]
pub(crate) struct Retained {
    pub(crate) message: Message,
    /// Order of changes. A subscription gets by its cursor only what was there before it, the rest live.
    pub(crate) version: u64,
}

impl RetainedValue for Retained {
    fn topic(&self) -> &str {
        self.message.topic_str()
    }
}

/// Retained messages on their way to one new subscription.
#[derive(Debug)]
pub(crate) struct Pouring {
    cursor: RetainedCursor,
    /// Only versions below.
    before: u64,
    qos: QoS,
    identifier: u32,
}

/// Most retained messages that one Tick removes because their time has passed.
const EXPIRE_STEP: usize = 4096;
/// Most entries that one `fill` looks at.
const POUR_STEP: usize = 2048;

impl Shard {
    /// Sets, replaces or clears the retained message of a topic [MQTT-3.3.1-5], [MQTT-3.3.1-6].
    pub(crate) fn retain(&mut self, now: Instant, publishing: &Publishing<'_>) {
        let topic = core::str::from_utf8(publishing.topic).expect("validated by the caller");
        self.retained_version += 1;
        if publishing.payload.is_empty() {
            self.forget_retained(topic);
            return;
        }
        let RetainedConfig { max_retained_messages, max_payload_size, expiry_interval } = self.config.retained;
        let too_large = max_payload_size > 0 && publishing.payload.len() > max_payload_size;
        let full = max_retained_messages > 0 && self.retained.len() >= max_retained_messages;
        if too_large || (full && self.retained.get(topic).is_none()) {
            // The old value is no longer the last one, so it must not stay either.
            self.forget_retained(topic);
            tracing::debug!(topic, too_large, full, "not retained");
            return;
        }
        let mut kept = *publishing;
        if !expiry_interval.is_zero() {
            kept.expires = kept.expires.min(now + expiry_interval);
        }
        let message = kept.to_message(&mut self.scratch.block);
        let version = self.retained_version;
        if kept.expires != Instant::NEVER {
            self.retained_expiry.insert((kept.expires, version), topic.into());
        }
        if let Some(old) = self.retained.set(Retained { message, version }) {
            self.retained_expiry.remove(&(old.message.expires(), old.version));
        }
    }

    fn forget_retained(&mut self, topic: &str) {
        if let Some(old) = self.retained.remove(topic) {
            self.retained_expiry.remove(&(old.message.expires(), old.version));
        }
    }

    /// Removes retained messages whose time has passed, some at a time.
    pub(crate) fn expire_retained(&mut self, now: Instant) {
        for _ in 0..EXPIRE_STEP {
            match self.retained_expiry.first_key_value() {
                Some(((expires, _), _)) if *expires <= now => {}
                _ => return,
            }
            if let Some((_, topic)) = self.retained_expiry.pop_first() {
                self.retained.remove(&topic);
            }
        }
    }

    /// Starts to send the retained messages of a new subscription.
    pub(crate) fn pour(&mut self, key: u32, filter: OwnedTopicFilter, qos: QoS, identifier: u32) {
        // A subscription made again starts again; there is never more than one cursor for it.
        if self.retained.is_empty() {
            return self.stop_pouring(key, filter.as_str());
        }
        let before = self.retained_version + 1;
        let pouring = Pouring { cursor: RetainedCursor::new(filter.clone()), before, qos, identifier };
        let slot = self.slot(key);
        slot.pouring.get_or_insert_default().insert(filter, pouring);
    }

    /// Forgets the retained messages of a subscription that are not sent yet.
    pub(crate) fn stop_pouring(&mut self, key: u32, filter: &str) {
        let slot = self.slot(key);
        if let Some(pourings) = &mut slot.pouring {
            pourings.remove(filter);
            if pourings.is_empty() {
                slot.pouring = None;
            }
        }
    }

    /// Lets the session send: first what is in flight and queued, then retained messages.
    pub(crate) fn pump(&mut self, now: Instant, conn: ConnId, out: &mut Outbox) {
        let more = self.refill(now, conn);
        let Some(c) = self.conn_mut(conn) else { return };
        if more || !c.out.is_empty() {
            ready(now, c, conn.slot, out);
        }
    }

    /// The same, without telling the driver. Says whether retained messages are left that nothing but the size of a
    /// step keeps back.
    pub(crate) fn refill(&mut self, now: Instant, conn: ConnId) -> bool {
        let Shard { sessions, conns, ledger, pool, retained, config, .. } = self;
        let Some(Some(c)) = conns.get_mut(conn.slot as usize) else { return false };
        let Some(slot) = sessions.get_mut(c.session) else { return false };
        pump(now, slot, c, ledger, pool, &config.zones[usize::from(slot.zone)].session);
        let mut budget = POUR_STEP;
        while slot.pouring.is_some() && c.out.len() < OUTPUT_LOW_BYTES {
            if budget == 0 {
                return true;
            }
            let zone = &config.zones[usize::from(slot.zone)];
            let (limits, upgrade) = (zone.session, zone.upgrade_qos);
            let mut pourer = Pourer { now, slot, conn: c, ledger, pool, limits, upgrade };
            if !pourer.step(retained, &mut budget) {
                break;
            }
        }
        false
    }
}

/// One session's retained messages going out.
struct Pourer<'a> {
    now: Instant,
    slot: &'a mut SessionSlot,
    conn: &'a mut Conn,
    ledger: &'a mut Ledger,
    pool: &'a mut BufferPool,
    limits: newtmq_session::SessionLimits,
    /// The subscription's QoS counts alone, as for live messages.
    upgrade: bool,
}

impl Pourer<'_> {
    /// Goes on with the first subscription. Says whether it is worth going on.
    fn step(&mut self, retained: &RetainedIndex<Retained>, budget: &mut usize) -> bool {
        let Some(mut pourings) = self.slot.pouring.take() else { return false };
        let Some((filter, mut pouring)) = pourings.pop_first() else { return false };
        let (before, qos, identifier) = (pouring.before, pouring.qos, pouring.identifier);
        let mut blocked = false;
        let finished = retained.drain(&mut pouring.cursor, budget, |entry| {
            if entry.version >= before || entry.message.is_expired(self.now) {
                return ControlFlow::Continue(());
            }
            if self.conn.out.len() >= OUTPUT_LOW_BYTES || !self.pour_one(&entry.message, qos, identifier) {
                blocked = true;
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        if !finished {
            pourings.insert(filter, pouring);
        }
        self.slot.pouring = if pourings.is_empty() { None } else { Some(pourings) };
        !blocked
    }

    /// Sends one. Says whether there was room; QoS 1 and 2 need a place in the client's window.
    fn pour_one(&mut self, message: &Message, qos: QoS, identifier: u32) -> bool {
        let qos = if self.upgrade { qos } else { qos.min(message.qos()) };
        if qos == QoS::AtMostOnce {
            let publishing = Publishing::of_message(message, NONE);
            let identifiers = if identifier == 0 { &[] } else { core::slice::from_ref(&identifier) };
            let frame = publishing.qos0(true, identifiers, self.now);
            if write_publish(self.conn, frame, Some(message), self.pool) {
                self.ledger.retained_sent += 1;
            }
            return true;
        }
        if self.slot.session.outstanding() >= usize::from(self.conn.receive_maximum)
            || self.slot.session.queue_len() > 0
        {
            return false;
        }
        let identifiers = if identifier == 0 { Identifiers::None } else { Identifiers::One(identifier) };
        let op = Op::Enqueue { message: message.clone(), qos, retain: true, identifiers, priority: 0 };
        // It enters the ledger like any other delivery that is waited for.
        self.ledger.matched += 1;
        self.ledger.retained_sent += 1;
        let applied = self.slot.session.apply(op, &self.limits);
        if let newtmq_session::Applied::Dropped(dropped) = applied {
            self.ledger.drop(DropReason::QueueFull, u64::from(dropped.full));
        }
        pump(self.now, self.slot, self.conn, self.ledger, self.pool, &self.limits);
        true
    }
}
