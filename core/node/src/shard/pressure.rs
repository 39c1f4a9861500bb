//! Back-pressure, the one rule: missing acknowledgements and absent clients never hold a publisher. A publisher is held
//! only while the *output* of a connected target, never its own, is above 1 MiB and has moved within
//! `slow_consumer_timeout`; after that QoS 0 to that target is dropped, counted.

use newtmq_base::{ConnId, Instant, planted};
use newtmq_mqtt::{ReasonCode, encode_ack};

use super::{Shard, TimerKind, is_open, ready};
use crate::batch::WriteBatch;
use crate::conn::{Feature, Target, Waiter};
use crate::io::{Fill, Outbox};
use crate::outbuf::{OUTPUT_HIGH_BYTES, OUTPUT_LOW_BYTES, OUTPUT_OWN_BYTES};
use crate::place::{Obstacle, PlaceMessage};

impl Shard {
    /// Makes a publisher of this shard wait for the output of targets of this shard.
    pub(crate) fn wait_for_outputs(&mut self, now: Instant, publisher: ConnId, slots: &[u32], out: &mut Outbox) {
        for slot in slots {
            self.wait_for(now, publisher, &[Target::Here(*slot)], out);
        }
    }

    /// Makes a publisher wait. If it has gone, or waits no longer by the time that it is heard, the target is told.
    pub(crate) fn wait_for(&mut self, now: Instant, publisher: ConnId, targets: &[Target], out: &mut Outbox) {
        let Some(c) = self.conn_mut(publisher).filter(|c| is_open(c)) else {
            for target in targets {
                self.leave(publisher, *target, out);
            }
            return;
        };
        let zone = usize::from(c.zone);
        let first_wait = !c.waits();
        for target in targets {
            let waiting_on = &mut self.live(publisher).rare().waiting_on;
            if waiting_on.contains(target) {
                continue;
            }
            waiting_on.push(*target);
            match *target {
                Target::Here(slot) => self.add_waiter(slot, Waiter::Here(publisher)),
                Target::There(..) => {}
                Target::Lane(to) => self.lanes[usize::from(to)].waiters.push(Waiter::Here(publisher)),
                Target::Peer(slot) => {
                    if let Some(peers) = &mut self.peers {
                        peers.add_waiter(slot, publisher);
                    }
                }
            }
        }
        if first_wait && self.live(publisher).waits() {
            self.live(publisher).rare().wait_since = now;
            let limit = now + self.config.zones[zone].max_publisher_hold;
            self.timers.arm(limit, TimerKind::Hold(publisher.slot));
        }
    }

    fn add_waiter(&mut self, target: u32, waiter: Waiter) {
        let t = self.conns[target as usize].as_mut().expect("its output was written to in this call");
        t.rare().waiters.push(waiter);
        let timeout = self.config.zones[usize::from(t.zone)].slow_consumer_timeout;
        self.timers.arm(t.out.moved() + timeout, TimerKind::Stall(target));
    }

    /// Makes a publisher of another shard wait for targets of this one.
    pub(crate) fn hold_remote(&mut self, from: u16, publisher: ConnId, slots: &[u32], out: &mut Outbox) {
        for slot in slots {
            let Some(Some(t)) = self.conns.get_mut(*slot as usize) else { continue };
            let target = ConnId { slot: *slot, generation: t.generation };
            if !t.rare().waiters.iter().any(|waiter| waiter.is_there(from, publisher)) {
                let hold = self.send_hold(from, publisher, Obstacle::Output(target), out);
                self.add_waiter(*slot, Waiter::There(from, publisher, hold));
            }
        }
    }

    /// A publisher of another shard waits no longer for something at this one. It may have said so before it heard of
    /// the last hold.
    pub(crate) fn forget_waiter(&mut self, from: u16, publisher: ConnId, obstacle: Obstacle, holds: u64) {
        let waiters = match obstacle {
            Obstacle::Output(target) => {
                self.conn_mut(target).and_then(|t| t.rare.as_mut()).map(|rare| &mut rare.waiters)
            }
            Obstacle::Lane(to) => Some(&mut self.lanes[usize::from(to)].waiters),
        };
        let left = |waiter: &Waiter| match waiter {
            Waiter::There(shard, conn, hold) => (*shard, *conn) == (from, publisher) && *hold <= holds,
            Waiter::Here(_) => false,
        };
        if let Some(waiters) = waiters {
            waiters.retain(|waiter| !left(waiter));
        }
    }

    /// Tells a target that its publisher does not wait for it.
    fn leave(&mut self, publisher: ConnId, target: Target, out: &mut Outbox) {
        match target {
            Target::Here(slot) => {
                if let Some(Some(t)) = self.conns.get_mut(slot as usize) {
                    t.rare().waiters.retain(|waiter| *waiter != Waiter::Here(publisher));
                }
            }
            Target::There(shard, obstacle) => {
                let holds = self.lanes[usize::from(shard)].holds_seen;
                self.send_place(shard, PlaceMessage::Leave { publisher, obstacle, holds }, out);
            }
            Target::Lane(to) => {
                self.lanes[usize::from(to)].waiters.retain(|waiter| *waiter != Waiter::Here(publisher));
            }
            Target::Peer(slot) => {
                if let Some(peers) = &mut self.peers {
                    peers.stop_waiting(slot, publisher);
                }
            }
        }
    }

    /// A client that sends but does not take its answers is not read until it does.
    pub(crate) fn wait_for_itself(&mut self, now: Instant, conn: ConnId) {
        let zone = usize::from(self.live(conn).zone);
        let limit = self.config.zones[zone].max_publisher_hold;
        self.timers.arm(now + limit, TimerKind::Hold(conn.slot));
    }

    /// A target has drained, stalled or gone: those who waited for it go on.
    pub(crate) fn release_waiters(&mut self, now: Instant, target: u32, out: &mut Outbox) {
        let Some(Some(t)) = self.conns.get_mut(target as usize) else { return };
        let Some(rare) = &mut t.rare else { return };
        let generation = t.generation;
        for waiter in core::mem::take(&mut rare.waiters) {
            match waiter {
                Waiter::Here(publisher) => self.stop_waiting_for(now, publisher, Target::Here(target), out),
                Waiter::There(shard, publisher, _) => {
                    let obstacle = Obstacle::Output(ConnId { slot: target, generation });
                    self.send_place(shard, PlaceMessage::Release { publisher, obstacle }, out);
                }
            }
        }
    }

    /// A publisher has one less to wait for.
    pub(crate) fn stop_waiting_for(&mut self, now: Instant, publisher: ConnId, target: Target, out: &mut Outbox) {
        let Some(c) = self.conn_mut(publisher) else { return };
        let Some(rare) = &mut c.rare else { return };
        let before = rare.waiting_on.len();
        rare.waiting_on.retain(|other| *other != target);
        if rare.waiting_on.len() < before && !c.waits() {
            self.end_wait(now, publisher, out);
        }
    }

    fn end_wait(&mut self, now: Instant, publisher: ConnId, out: &mut Outbox) {
        let Some(Some(c)) = self.conns.get_mut(publisher.slot as usize) else { return };
        let limit = c.rare().wait_since + self.config.zones[usize::from(c.zone)].max_publisher_hold;
        self.timers.cancel(limit, TimerKind::Hold(publisher.slot));
        if planted!(WithheldAcksLost, c.withholds()) {
            c.rare().withheld.clear();
        }
        self.send_withheld(now, publisher, out);
        self.resume(now, publisher, out);
    }

    /// Sends the acknowledgements that were withheld.
    pub(crate) fn send_withheld(&mut self, now: Instant, publisher: ConnId, out: &mut Outbox) {
        let Some(Some(c)) = self.conns.get_mut(publisher.slot as usize) else { return };
        let Some(rare) = &mut c.rare else { return };
        let version = c.version;
        for (kind, packet_id, reason) in core::mem::take(&mut rare.withheld) {
            self.ledger.traffic.packets_sent[kind as usize] += 1;
            self.journal.bar(c, publisher.slot);
            c.out.encode(&mut self.pool, |bytes| encode_ack(kind, packet_id, reason, version, bytes));
            ready(now, c, publisher.slot, out);
        }
    }

    /// A target's output must have moved by now, or it holds nobody any more.
    pub(crate) fn on_stall_timer(&mut self, now: Instant, target: u32, out: &mut Outbox) {
        let Some(Some(t)) = self.conns.get_mut(target as usize) else { return };
        if t.rare.as_ref().is_none_or(|rare| rare.waiters.is_empty()) {
            return;
        }
        let deadline = t.out.moved() + self.config.zones[usize::from(t.zone)].slow_consumer_timeout;
        if deadline > now {
            self.timers.arm(deadline, TimerKind::Stall(target));
            return;
        }
        t.stalled = true;
        tracing::debug!(slot = target, "output has not moved: QoS 0 to this client is dropped until it does");
        self.release_waiters(now, target, out);
    }

    /// A publisher was held long enough.
    pub(crate) fn on_hold_timer(&mut self, now: Instant, slot: u32, out: &mut Outbox) {
        let Some(Some(c)) = self.conns.get_mut(slot as usize) else { return };
        let publisher = ConnId { slot, generation: c.generation };
        if !c.waits() {
            self.on_own_hold_timer(now, publisher, out);
            return;
        }
        let limit = c.rare().wait_since + self.config.zones[usize::from(c.zone)].max_publisher_hold;
        // A timer of an earlier hold, or of an earlier connection in this slot, does not end this one.
        if limit > now {
            return;
        }
        // Another shard needs as long as it needs; only clients are given up, and other nodes, which may be away.
        let is_client = |target: &Target| match target {
            Target::Here(_) | Target::There(_, Obstacle::Output(_)) | Target::Peer(_) => true,
            Target::Lane(_) | Target::There(_, Obstacle::Lane(_)) => false,
        };
        self.stop_waiting_for_all(now, publisher, is_client, out);
        let Shard { conns, config, .. } = self;
        if let Some(Some(c)) = conns.get_mut(slot as usize)
            && c.waits()
        {
            // Clients that it has to wait for from here on get their time, too.
            c.rare().wait_since = now;
            let limit = now + config.zones[usize::from(c.zone)].max_publisher_hold;
            self.timers.arm(limit, TimerKind::Hold(publisher.slot));
        }
    }

    /// The publisher goes on, or away, whatever these targets do.
    pub(crate) fn stop_waiting_for_all(
        &mut self,
        now: Instant,
        publisher: ConnId,
        which: impl Fn(&Target) -> bool,
        out: &mut Outbox,
    ) {
        let waiting_on = core::mem::take(&mut self.live(publisher).rare().waiting_on);
        let (left, kept): (Vec<Target>, Vec<Target>) = waiting_on.into_iter().partition(which);
        self.live(publisher).rare().waiting_on = kept;
        for target in left {
            self.leave(publisher, target, out);
        }
        if !self.live(publisher).waits() {
            self.end_wait(now, publisher, out);
        }
    }

    /// A client did not take its answers all the time that it was held: it never will.
    fn on_own_hold_timer(&mut self, now: Instant, conn: ConnId, out: &mut Outbox) {
        let c = self.live(conn);
        if !c.held || !is_open(c) || c.out.len() < OUTPUT_OWN_BYTES {
            return;
        }
        let (moved, zone) = (c.out.moved(), usize::from(c.zone));
        let deadline = moved + self.config.zones[zone].max_publisher_hold;
        if deadline > now {
            self.timers.arm(deadline, TimerKind::Hold(conn.slot));
        } else {
            self.reject(now, conn, ReasonCode::QuotaExceeded, out);
        }
    }

    /// Gives a connection's output to the driver. What the session has to send follows while there is room.
    pub fn fill(&mut self, now: Instant, conn: ConnId, batch: &mut WriteBatch, out: &mut Outbox) -> Fill {
        for buffer in batch.take_spare() {
            self.pool.put(buffer);
        }
        let kept = self.journal.kept();
        let Some(c) = self.conn_mut(conn) else { return Fill::Drained };
        let before = batch.len();
        if !c.out.is_barred(kept) {
            c.features.remove(Feature::Greeting);
        }
        c.out.fill(now, batch, kept);
        // What moves a little and is still full stays as it is: else each move would let every publisher add to it.
        c.stalled &= c.out.len() >= OUTPUT_HIGH_BYTES;
        let mut more = false;
        if c.out.len() < OUTPUT_LOW_BYTES {
            if is_open(c) {
                more = self.refill(now, conn, out);
                self.live(conn).out.fill(now, batch, kept);
            }
            self.release_waiters(now, conn.slot, out);
            self.resume(now, conn, out);
        }
        self.ledger.traffic.bytes_sent += (batch.len() - before) as u64;
        let c = self.live(conn);
        if c.features.has(Feature::Retries) {
            self.watch_acks(now, conn);
        }
        self.send_batch(now, out);
        let kept = self.journal.kept();
        let c = self.live(conn);
        // What waits for the store is ready again when it is stored.
        if (c.out.is_empty() && !more) || c.out.is_barred(kept) {
            c.ready = false;
            return Fill::Drained;
        }
        Fill::More
    }
}
