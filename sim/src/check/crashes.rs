//! What outlives a node: with `durability` everything that was acknowledged does. This file says what of a session is
//! there after a crash, what may be, and how long its clock stood still; S13 is judged with S1.

use core::time::Duration;

use newtmq_base::Instant;
use newtmq_mqtt::QoS;

use super::state::{State, TIMER_SLACK};
use super::witness::Cx;
use crate::report::Check;
use crate::scenario::DurabilitySpec;

/// How far the time that is stored may be behind.
const TIME_BEHIND: Duration = newtmq_node::TIME_BEHIND_MAX;
/// What nobody waits for is stored after so long, if the disk is in order.
const UNSTORED_MAX: Duration = Duration::from_secs(5);
/// The store notices after so long at most that its disk is in order again.
const DISK_RETRY: Duration = Duration::from_secs(1);
/// A node that stops in order may serve for so long.
const STOP_MAX: Duration = Duration::from_secs(15);

/// Stops of a node, and what is wrong with its disk.
#[derive(Debug, Default)]
pub(super) struct Lives {
    /// When it went, or was told to, and when it was back; [`Instant::NEVER`] if it is not.
    stops: Vec<Stop>,
    /// A bit has turned: until the next start anything may be missing.
    rotten: bool,
    /// Its store has failed.
    pub(super) failed: bool,
    /// There is no space.
    pub(super) full: bool,
    /// Its disk is slow.
    pub(super) slow: bool,
    /// When its disk last was full, slow, or failed.
    troubled: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Stop {
    from: Instant,
    to: Instant,
    /// It went at once.
    crash: bool,
    /// What was acknowledged is still there.
    kept: bool,
}

impl Lives {
    /// Whether its disk is not in order.
    pub(super) fn is_troubled(&self) -> bool {
        self.full || self.failed || self.slow
    }

    /// Whether its disk was not in order at some time since, as the store sees it.
    pub(super) fn was_troubled(&self, since: Instant) -> bool {
        self.is_troubled() || self.troubled.is_some_and(|at| at + DISK_RETRY >= since)
    }

    /// Whether it lost its memory since then.
    pub(super) fn stopped_since(&self, since: Instant) -> bool {
        self.stops.last().is_some_and(|stop| stop.to >= since)
    }

    /// How many times it lost its memory since then.
    pub(super) fn stops_since(&self, since: Instant) -> u32 {
        self.stops.iter().rev().take_while(|stop| stop.to >= since).count() as u32
    }

    /// What was told to nobody is stored, too, if it happened before this.
    fn stored_until(&self, now: Instant) -> Instant {
        if self.is_troubled() {
            return Instant::START;
        }
        Instant::from_nanos(now.as_nanos().saturating_sub(UNSTORED_MAX.as_nanos() as u64))
    }

    /// Whether it stopped in order, and came back, just before: a connection may still have been made to what stopped.
    pub(super) fn just_stopped(&self, now: Instant, slack: Duration) -> bool {
        self.stops.iter().any(|stop| !stop.crash && stop.to != Instant::NEVER && stop.to + slack >= now)
    }

    /// Whether what a client acknowledged then may be forgotten.
    pub(super) fn may_forget(&self, acked: Instant) -> bool {
        let troubled = self.was_troubled(acked);
        self.stops.iter().any(|stop| stop.to >= acked && (troubled || acked + UNSTORED_MAX >= stop.from))
    }

    /// How long its clock stood still from `from` to `to`, at least.
    fn still(&self, from: Instant, to: Instant) -> Duration {
        let of = |stop: &Stop| {
            let begin = if stop.crash { stop.from } else { stop.from + STOP_MAX };
            let (begin, end) = (begin.max(from), stop.to.min(to));
            if end > begin { end - begin } else { Duration::ZERO }
        };
        self.stops.iter().map(of).sum()
    }

    /// When it was back after a stop that began between two times.
    pub(super) fn back_from(&self, from: Instant, to: Instant) -> Option<Instant> {
        let stops = self.stops.iter().filter(|stop| stop.from >= from && stop.from <= to && stop.to != Instant::NEVER);
        stops.map(|stop| stop.to).max()
    }

    /// How much later than by its clock something may happen that began at `from`.
    pub(super) fn late(&self, from: Instant) -> Duration {
        let of = |stop: &Stop| match stop.to {
            Instant::NEVER => Duration::ZERO,
            to => (to - stop.from.max(from)) + TIME_BEHIND + TIMER_SLACK,
        };
        self.stops.iter().filter(|stop| stop.to >= from).map(of).sum()
    }
}

impl State {
    /// How long a node's clock stood still at least.
    pub(super) fn stood_still(&self, node: u16, from: Instant, to: Instant) -> Duration {
        self.nodes[usize::from(node)].lives.still(from, to)
    }

    /// Whether a node's disk was in order all the time since.
    pub(super) fn had_good_disk(&self, node: u16, since: Instant) -> bool {
        !self.nodes[usize::from(node)].lives.was_troubled(since)
    }

    /// What is wrong with a disk.
    pub(super) fn disk_trouble(&mut self, node: u16, now: Instant, change: impl FnOnce(&mut Lives)) {
        let lives = &mut self.nodes[usize::from(node)].lives;
        change(lives);
        lives.troubled = Some(now);
        self.disturb(node, now);
    }

    /// A bit has turned: what a later start finds is not known.
    pub(super) fn rotten(&mut self, node: u16) {
        self.nodes[usize::from(node)].lives.rotten = true;
    }

    /// The node is gone at once, or is told to go.
    pub(super) fn node_down(&mut self, node: u16, crash: bool, power_loss: bool, cx: &mut Cx<'_>) {
        let Some(durability) = self.limits.durability else { return self.node_lost(node, crash, cx) };
        let lives = &mut self.nodes[usize::from(node)].lives;
        let written_only = durability == DurabilitySpec::None;
        let kept = !(written_only && (power_loss || lives.failed));
        match lives.stops.last_mut().filter(|stop| stop.to == Instant::NEVER) {
            // It was about to stop.
            Some(stop) => stop.kept &= kept,
            None => lives.stops.push(Stop { from: cx.now, to: Instant::NEVER, crash, kept }),
        }
        if crash {
            self.memory_lost(node, cx);
        }
    }

    /// The node is back.
    pub(super) fn node_back(&mut self, node: u16, cx: &mut Cx<'_>) {
        if self.limits.durability.is_none() {
            return self.node_lost(node, true, cx);
        }
        let lives = &mut self.nodes[usize::from(node)].lives;
        let Some(stop) = lives.stops.last_mut() else { return };
        stop.to = cx.now;
        let stop = *stop;
        let kept = stop.kept && !core::mem::take(&mut lives.rotten);
        lives.failed = false;
        let blurred = lives.was_troubled(stop.from);
        if !stop.crash {
            self.memory_lost(node, cx);
        }
        if !kept {
            return self.anything_left(node, cx.now);
        }
        for id in 0..self.ids.len() as u32 {
            if !self.lost_on_its_way(id, node, cx) && self.ids[id as usize].node == node {
                self.session_back(id, stop.from, blurred, cx);
            }
        }
    }

    /// What the memory alone had is lost.
    fn memory_lost(&mut self, node: u16, cx: &mut Cx<'_>) {
        for id in 0..self.ids.len() as u32 {
            if !self.lost_on_its_way(id, node, cx) && self.ids[id as usize].node == node {
                self.session_waits(id, cx);
            }
        }
        // In a cluster it is stored with the others, whatever the durability of sessions.
        let is_lost = !self.ways.exist();
        for topic in self.topics.iter_mut().filter(|topic| topic.node == node && is_lost) {
            if let Some(register) = &mut topic.register {
                register.node_lost(cx.now);
            }
        }
        // That a connection had ended just before may be forgotten.
        let began = self.nodes[usize::from(node)].lives.stored_until(cx.now);
        for c in self.conns.iter_mut().flatten() {
            if c.node == node && c.gone.is_some_and(|gone| gone >= began) {
                c.disturbed.get_or_insert(cx.now);
            }
        }
        // A will may have been published just before, without that being known.
        let wills: Vec<_> = self
            .conns
            .iter()
            .flatten()
            .filter(|c| c.node == node && c.gone.is_some())
            .filter_map(|c| c.will.as_deref().map(|will| will.uid))
            .collect();
        for uid in wills {
            if let Some(message) = self.message(uid) {
                message.logical += 1;
            }
        }
    }

    /// A session whose node is gone.
    fn session_waits(&mut self, id: u32, cx: &mut Cx<'_>) {
        let known = &self.ids[id as usize];
        let began = self.nodes[usize::from(known.node)].lives.stored_until(cx.now);
        let over = known.possible_until < cx.now && known.live.is_empty();
        if began == Instant::START && over && !known.conns.is_empty() {
            // Nothing was stored of what ended it, or of when.
            self.maybe_ended(id);
            self.reopen_subscriptions(id, Instant::START);
            self.ids[id as usize].possible_until = Instant::NEVER;
        }
        let known = &self.ids[id as usize];
        let comes_back = known.ended > Instant::START && known.ended >= began;
        if comes_back {
            // Nobody waits until it is stored that a session has ended.
            let ended = known.ended;
            self.maybe_ended(id);
            self.reopen_subscriptions(id, ended);
            self.ids[id as usize].possible_until = Instant::NEVER;
        }
        let known = &mut self.ids[id as usize];
        let live = core::mem::take(&mut known.live);
        let current = known.current.filter(|current| live.contains(current));
        let expiry = |state: &State, conn: u32| (state.conn(conn).expiry_min, state.conn(conn).expiry_max);
        let unanswered: Vec<u32> = live.iter().copied().filter(|conn| self.conn(*conn).connack.is_none()).collect();
        if let Some(current) = current {
            let c = self.conn_mut(crate::history::ConnIx(current));
            // One that may have been taken over has lost its will then.
            c.crashed = c.disturbed == Some(cx.now) && c.expiry_min > 0 && unanswered.is_empty();
            match (c.expiry_min, c.expiry_max) {
                // Whether its DISCONNECT arrived is not known.
                _ if c.last_expiry.is_some() => {
                    self.maybe_ended(id);
                    self.ids[id as usize].possible_until = Instant::NEVER;
                }
                (_, 0) if unanswered.is_empty() && !comes_back => {
                    self.end_session(id, cx.now);
                    self.ids[id as usize].possible_until = Instant::START;
                    self.ids[id as usize].current = None;
                    return;
                }
                (0, _) => self.maybe_ended(id),
                _ => self.ids[id as usize].possible_until = Instant::NEVER,
            }
        }
        // A CONNECT that changes nothing may have been taken or not.
        let last = self.ids[id as usize].current;
        let harmless = |conn: &u32| {
            let c = self.conn(*conn);
            last.is_some_and(|last| expiry(self, last) == expiry(self, *conn)) && !c.clean && c.expiry_min > 0
        };
        if !unanswered.is_empty() {
            if !unanswered.iter().all(harmless) || !self.surely_exists(id, u32::MAX, cx.now) {
                self.maybe_ended(id);
            }
            self.ids[id as usize].possible_until = Instant::NEVER;
        }
        let known = &mut self.ids[id as usize];
        // A copy of QoS 1 may have been sent before it was stored: its identifier is free then.
        known.inflight.retain(|flight| flight.qos == QoS::ExactlyOnce);
        let owed = known.owed.len() + known.lost.len();
        cx.findings.obligations.count(Check::Durable, owed as u64);
    }

    fn maybe_ended(&mut self, id: u32) {
        self.doubt(id);
        self.ids[id as usize].unclear = true;
    }

    /// A session whose node has what it had.
    fn session_back(&mut self, id: u32, from: Instant, blurred: bool, cx: &Cx<'_>) {
        let known = &self.ids[id as usize];
        let (node, until) = (known.node, known.possible_until);
        // By the time that is stored it may not be over.
        let ago = until != Instant::NEVER && until + TIME_BEHIND + TIMER_SLACK < from;
        let Some(current) = known.current.filter(|_| !ago) else {
            if !ago {
                self.ids[id as usize].possible_until = Instant::NEVER;
            }
            return;
        };
        let c = self.conn_mut(crate::history::ConnIx(current));
        if c.crashed {
            c.gone.get_or_insert(cx.now);
        }
        let expiry = c.expiry_max;
        let known = &self.ids[id as usize];
        let latest = self.latest(node, cx.now, expiry);
        let until = match until {
            Instant::NEVER if known.unclear => Instant::NEVER,
            Instant::NEVER => latest,
            until if blurred || known.unclear => latest.max(until),
            until => latest.min(until + (cx.now - from) + TIME_BEHIND + TIMER_SLACK),
        };
        self.ids[id as usize].possible_until = until;
    }

    /// A start that may have found anything, or nothing.
    fn anything_left(&mut self, node: u16, now: Instant) {
        for id in 0..self.ids.len() as u32 {
            let known = &self.ids[id as usize];
            if known.node != node && known.from != Some(node) {
                continue;
            }
            self.maybe_ended(id);
            // What is there may be older than what was there last.
            self.reopen_subscriptions(id, Instant::START);
            let live = core::mem::take(&mut self.ids[id as usize].live);
            let live = live.into_iter().filter(|conn| self.conn(*conn).node != node).collect();
            let known = &mut self.ids[id as usize];
            known.revived = now;
            known.live = live;
            known.possible_until = Instant::NEVER;
            known.current = None;
        }
        for topic in self.topics.iter_mut().filter(|topic| topic.node == node) {
            topic.register = None;
        }
        let wills: Vec<_> = self
            .conns
            .iter()
            .flatten()
            .filter(|c| c.node == node)
            .filter_map(|c| c.will.as_deref().map(|will| will.uid))
            .collect();
        for uid in wills {
            if let Some(message) = self.message(uid) {
                message.logical += 1;
            }
        }
        for c in self.conns.iter_mut().flatten().filter(|c| c.node == node) {
            c.crashed = false;
        }
    }
}
