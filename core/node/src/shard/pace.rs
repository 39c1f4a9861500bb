//! Clients that are read more slowly than they send: `publish_limit`, `rate_limit`, and the node's memory. What is not
//! read stays with the driver and in the client's socket, so nothing is lost and nobody else waits.

use newtmq_base::{ConnId, Instant};
use newtmq_mqtt::Frame;

use super::{Next, Shard, TimerKind, is_open};
use crate::conn::Feature;
use crate::io::{MemoryPressure, Outbox};
use crate::rate::{Bucket, Rate};

/// The bits of QoS and RETAIN in the first byte of a PUBLISH (3.3.1).
const PUBLISH_QOS_RETAIN: u8 = 0b0111;

/// What a connection has left of its limits.
#[derive(Debug)]
pub(crate) struct Meter {
    /// `publish_limit`: messages.
    publishes: Option<Bucket>,
    /// `rate_limit`: bytes.
    bytes: Option<Bucket>,
}

impl Meter {
    /// When the client may go on; `None` for at once.
    fn until(&mut self, now: Instant) -> Option<Instant> {
        let wait = |bucket: &mut Option<Bucket>| {
            let bucket = bucket.as_mut()?;
            (bucket.left(now) == 0).then(|| bucket.when(now, bucket.worth_waiting_for()))
        };
        wait(&mut self.publishes).max(wait(&mut self.bytes))
    }
}

impl Shard {
    /// Gives a new connection its limits, if it has any.
    pub(crate) fn set_meter(&mut self, now: Instant, conn: ConnId) {
        let Some(Some(c)) = self.conns.get_mut(conn.slot as usize) else { return };
        let rate_limit = self.config.listeners[usize::from(c.listener)].rate_limit;
        let publish_limit = self.config.zones[usize::from(c.zone)].publish_limit;
        if publish_limit.is_none() && rate_limit.is_none() {
            return;
        }
        let bucket = |rate: Option<Rate>| rate.map(|rate| Bucket::new(rate, now));
        let meter = Meter { publishes: bucket(publish_limit), bytes: bucket(rate_limit) };
        c.features.add(Feature::Metered);
        c.rare().meter = Some(Box::new(meter));
    }

    fn meter(&mut self, conn: ConnId) -> Option<&mut Meter> {
        self.conn_mut(conn)?.rare.as_mut()?.meter.as_deref_mut()
    }

    /// How much of this input the connection may have taken, in bytes.
    pub(crate) fn affordable(&mut self, now: Instant, conn: ConnId, len: usize) -> usize {
        match self.meter(conn).and_then(|meter| meter.bytes.as_mut()) {
            Some(bytes) => usize::try_from(bytes.left(now)).map_or(len, |left| left.min(len)),
            None => len,
        }
    }

    /// Accounts for bytes that were taken. Says whether the connection has to wait.
    pub(crate) fn spend_bytes(&mut self, now: Instant, conn: ConnId, taken: usize) -> bool {
        let Some(meter) = self.meter(conn) else { return false };
        if let Some(bytes) = &mut meter.bytes {
            bytes.take(now, taken as u64);
        }
        match meter.until(now) {
            Some(until) => self.pace_until(conn, until),
            None => false,
        }
    }

    /// Accounts for a PUBLISH, after which its client may have to wait.
    pub(crate) fn spend_publish(&mut self, now: Instant, conn: ConnId, frame: Frame<'_>, next: Next) -> Next {
        // QoS 0 without RETAIN needs no memory: what would have to wait is dropped.
        let is_kept = frame.bytes[0] & PUBLISH_QOS_RETAIN != 0;
        let pressed = self.pressure == MemoryPressure::Hold && is_kept;
        let Some(c) = self.conn_mut(conn).filter(|c| is_open(c)) else { return next };
        let zone = usize::from(c.zone);
        let mut until = None;
        if let Some(meter) = c.rare.as_mut().and_then(|rare| rare.meter.as_deref_mut()) {
            if let Some(publishes) = &mut meter.publishes {
                publishes.take(now, 1);
            }
            until = meter.until(now);
        }
        if pressed {
            c.rare().pressed = true;
            // Not for ever: its own acknowledgements may be what frees memory.
            until = until.max(Some(now + self.config.zones[zone].max_publisher_hold));
        }
        match until {
            Some(until) if self.pace_until(conn, until) && next == Next::Go => Next::Hold,
            Some(_) | None => next,
        }
    }

    fn pace_until(&mut self, conn: ConnId, until: Instant) -> bool {
        let rare = self.live(conn).rare();
        let old = rare.paced_until.replace(until);
        if let Some(old) = old {
            self.timers.cancel(old, TimerKind::Pace(conn.slot));
        }
        self.timers.arm(until, TimerKind::Pace(conn.slot));
        self.ledger.paced += 1;
        true
    }

    /// A client has waited long enough.
    pub(crate) fn on_pace_timer(&mut self, now: Instant, slot: u32, out: &mut Outbox) {
        let Some(Some(c)) = self.conns.get_mut(slot as usize) else { return };
        let conn = ConnId { slot, generation: c.generation };
        let rare = c.rare();
        rare.paced_until = None;
        rare.pressed = false;
        match rare.meter.as_mut().and_then(|meter| meter.until(now)) {
            // One limit has tokens again, the other one not.
            Some(until) => drop(self.pace_until(conn, until)),
            None => self.resume(now, conn, out),
        }
    }

    /// The process has too much memory in use, or has enough again.
    pub(crate) fn on_memory_pressure(&mut self, now: Instant, level: MemoryPressure, out: &mut Outbox) {
        let before = core::mem::replace(&mut self.pressure, level);
        if before != MemoryPressure::Hold || level == MemoryPressure::Hold {
            return;
        }
        for slot in 0..self.conns.len() {
            let Some(rare) = self.conns[slot].as_mut().and_then(|c| c.rare.as_mut()) else { continue };
            let slot = slot as u32;
            if rare.pressed
                && let Some(until) = rare.paced_until
            {
                self.timers.cancel(until, TimerKind::Pace(slot));
                self.on_pace_timer(now, slot, out);
            }
        }
    }
}
