//! P12 with `will_ha` (S10, L8): a will whose node dies is published once by the others, not before its delay is over, and not
//! if its client is back in time, wherever. What is said here counts only while nothing stands between nodes but that some are
//! down: of components each may publish a will, and a node that is cut off does not hear what others do.

use core::time::Duration;

use newtmq_base::Instant;
use newtmq_mqtt::{QoS, ReasonCode};

use super::publishes::Message;
use super::state::State;
use super::witness::Cx;
use crate::history::{Fault, Uid};
use crate::report::Check;
use crate::scenario::Scenario;

/// What of the scenario and the run so far matters to wills that the cluster keeps.
#[derive(Debug, Default)]
pub(super) struct KeptWills {
    /// `will_ha` in a cluster.
    pub(super) on: bool,
    /// So long after the end of a node its wills without delay have surely come.
    late: Duration,
    /// The first time that something stood between nodes that were up, or that a node stood still.
    torn: Option<Instant>,
    /// A disk took long: what is decided may come late.
    slow: bool,
    /// When nodes went down, and came back.
    stops: Vec<(u16, Instant)>,
    starts: Vec<(u16, Instant)>,
}

impl KeptWills {
    pub(super) fn new(scenario: &Scenario) -> KeptWills {
        let on = scenario.is_cluster() && scenario.broker.will_ha == Some(true);
        let detect = Duration::from_millis(scenario.cluster.detect_ms.unwrap_or(0)) * 2;
        let late = scenario.cluster.bound(LATE_FIXED, LATE) + detect;
        KeptWills { on, late, ..KeptWills::default() }
    }

    pub(super) fn fault(&mut self, fault: &Fault, now: Instant) {
        match *fault {
            Fault::LinkCut { .. }
            | Fault::LinkSlow { .. }
            | Fault::Pause { .. }
            | Fault::Lag { .. }
            | Fault::Drift { .. }
            | Fault::Wipe { .. }
            | Fault::DiskFull { .. }
            | Fault::DiskFails { .. }
            | Fault::DiskRot { .. } => _ = self.torn.get_or_insert(now),
            Fault::DiskSlow { .. } => self.slow = true,
            Fault::Crash { node, .. } | Fault::Shutdown { node } => self.stops.push((node.0, now)),
            Fault::Restart { node } => self.starts.push((node.0, now)),
            Fault::LinkHealed { .. }
            | Fault::Cut { .. }
            | Fault::Heal { .. }
            | Fault::Bandwidth { .. }
            | Fault::Reading { .. }
            | Fault::Freeze { .. }
            | Fault::ClockJump { .. }
            | Fault::MemoryPressure { .. } => {}
        }
    }

    /// Whether a will may be published by each of several components.
    pub(super) fn may_differ(&self) -> bool {
        self.on && self.torn.is_some()
    }

    /// Whether there may have been no leader for a while.
    pub(super) fn may_wait(&self) -> bool {
        self.on && (self.torn.is_some() || self.slow || !self.stops.is_empty())
    }

    fn stopped(&self, node: u16, from: Instant, to: Instant) -> bool {
        self.stops.iter().any(|(of, at)| *of == node && *at >= from && *at <= to)
    }
}

/// A connection with a will whose node went down under it.
#[derive(Debug, Clone, Copy)]
struct Orphan {
    died: Instant,
    delay: Duration,
    node: u16,
    id: u32,
    topic: u32,
    qos: QoS,
    uid: Uid,
}

impl State {
    /// A second copy of a will is one too many, whatever has become of its node.
    pub(super) fn is_kept_once(&self, message_sent: Instant, id: u32, now: Instant) -> bool {
        let node = self.ids[id as usize].node;
        self.kept.on && self.kept.torn.is_none() && !self.kept.stopped(node, message_sent, now)
    }

    fn orphan(&self, conn: u32) -> Option<Orphan> {
        let c = self.conn(conn);
        let will = c.will.as_deref()?;
        let connack = c.connack?;
        let died = c.disturbed?;
        let is_plain = !c.wild && !c.odd && c.trouble.is_none_or(|at| at > died);
        let ended = [c.closed.map(|(at, _)| at), c.client_disconnect.map(|(at, _)| at), c.rival, c.gone];
        let was_up = ended.into_iter().flatten().all(|at| at >= died) && c.server_disconnect.is_none();
        if !self.kept.on || self.kept.torn.is_some() || !is_plain || !was_up || c.expiry_min != c.expiry_max {
            return None;
        }
        // A connection that began in a disturbance of its node says nothing.
        let is_first = died > connack.at + KEPT_WITHIN && self.kept.stopped(c.node, died, died);
        let delay = Duration::from_secs(u64::from(will.delay_s.min(c.expiry_max)));
        let (id, topic, qos, uid) = (c.id, will.topic, will.qos, will.uid);
        is_first.then_some(Orphan { died, delay, node: c.node, id, topic, qos, uid })
    }

    /// A copy of the will of a connection has come.
    pub(super) fn kept_will_received(&mut self, of: u32, uid: Uid, conn: u32, sent_at: Instant, cx: &mut Cx<'_>) {
        if self.kept.torn.is_none() && self.had_disconnected(of) {
            return self.will_wrong(of, uid, conn, sent_at, "although its client had disconnected", cx);
        }
        let Some(orphan) = self.orphan(of) else { return };
        if orphan.delay.is_zero() || sent_at < orphan.died {
            return;
        }
        let others =
            self.ids[orphan.id as usize].conns.iter().filter(|other| **other > of).map(|other| self.conn(*other));
        let others: Vec<_> = others.collect();
        let due = self.earliest(orphan.node, orphan.died, u32::try_from(orphan.delay.as_secs()).unwrap_or(u32::MAX));
        if others.is_empty() && sent_at < due {
            return self.will_wrong(of, uid, conn, sent_at, "before its Will Delay Interval was over", cx);
        }
        let [other] = others[..] else { return };
        let Some(back) = other.connack.filter(|_| !other.clean && other.is_up()) else { return };
        let is_calm = self.kept.stops.iter().filter(|(_, at)| *at >= orphan.died).all(|(node, _)| *node == orphan.node);
        if back.sent_at < due && back.sent_at + COMMITTED_WITHIN < sent_at && is_calm {
            let text = "although its client had come back before its Will Delay Interval was over";
            self.will_wrong(of, uid, conn, sent_at, text, cx);
        }
    }

    /// It had said so, and nothing happened to its node for some time.
    fn had_disconnected(&self, conn: u32) -> bool {
        let c = self.conn(conn);
        let Some((at, code)) = c.client_disconnect else { return false };
        let is_normal = !code.is_error() && code != ReasonCode::DisconnectWithWillMessage;
        let until = at + COMMITTED_WITHIN + self.limits.late;
        let stops = self.kept.stops.iter().any(|(_, stop)| *stop >= c.connect_at && *stop <= until);
        let plain = !c.wild && !c.odd && c.trouble.is_none() && c.server_disconnect.is_none();
        let was_served = c.connack.is_some() && c.gone.is_some_and(|gone| gone <= until);
        is_normal
            && plain
            && was_served
            && !stops
            && c.rival.is_none_or(|rival| c.gone.is_some_and(|gone| rival > gone))
    }

    /// Whether the will of a connection was due because its node died, and did not come to somebody.
    pub(super) fn judge_kept_will(&mut self, conn: u32, cx: &mut Cx<'_>) {
        let Some(orphan) = self.orphan(conn) else { return };
        let Orphan { died, delay, node, id: own, topic, qos, uid } = orphan;
        let back = self.kept.starts.iter().find(|(of, at)| *of == node && *at >= died).map(|(_, at)| *at);
        let latest = died + delay + self.kept.late + self.limits.late + self.lane_slack();
        let back = back.filter(|back| *back <= latest);
        let latest = back.map_or(latest, |back| latest.max(back + delay + self.kept.late) + ROUTES_WITHIN);
        let of_it = self.ids[own as usize].conns.iter().filter(|other| **other > conn);
        let came_back = of_it.map(|other| self.conn(*other)).any(|other| other.connect_at <= latest);
        if latest >= cx.now
            || self.kept.slow
            || (came_back && !delay.is_zero())
            || !self.stays_whole(&orphan, conn, latest)
        {
            return;
        }
        self.match_topic(topic, cx);
        for (id, sub) in self.topics[topic as usize].subs.clone() {
            let entry = &self.subs[sub as usize];
            let certain = entry.certain.filter(|certain| *certain + CERTAIN_BEFORE < died && entry.group.is_none());
            let Some(certain) = certain else { continue };
            let filter = entry.filter;
            let steady = self.ids[id as usize].current.is_some_and(|current| {
                let c = self.conn(current);
                c.is_up() && c.is_plain() && c.connack.is_some_and(|of| of.at < died) && c.node != node
            });
            let open = entry.grants.iter().filter(|grant| grant.to == Instant::NEVER);
            let effective = open.map(|grant| grant.qos).min().map(|granted| granted.min(qos));
            if id == own || effective < Some(QoS::AtLeastOnce) || !steady || !self.is_drained(id, cx.now) {
                continue;
            }
            let epoch = self.ids[id as usize].epoch;
            let packet_max = self.ids[id as usize].packet_max;
            let Some(message) = self.message(uid) else { return };
            if message.expiry_s.is_some() || packet_max <= message.size.saturating_add(400) {
                continue;
            }
            let received = was_received(message, id, epoch);
            cx.owe(Check::WillFired);
            if !received {
                self.never_fired(conn, uid, (id, filter, certain), latest, cx);
            }
        }
    }

    /// Whether all nodes were one cluster until one died, or some at the same time, and a majority stayed.
    fn stays_whole(&self, orphan: &Orphan, conn: u32, latest: Instant) -> bool {
        let Some(connack) = self.conn(conn).connack else { return false };
        let nodes = self.nodes.len() as u16;
        let died = orphan.died;
        let before = (connack.at.max(Instant::START + KEPT_WITHIN) + KEPT_WITHIN, died);
        let is_whole = |node: u16, other: u16, (from, to): (Instant, Instant)| {
            self.ways.together_since(node, other, from, to).is_some_and(|since| since <= from)
        };
        // What happens in the moment of the end itself is part of it.
        let just_before = Instant::from_nanos(died.as_nanos().saturating_sub(2_000_000_000));
        if before.0 >= just_before {
            return false;
        }
        let all: Vec<u16> = (0..nodes).collect();
        let whole_before = all
            .iter()
            .all(|node| all.iter().all(|other| node == other || is_whole(*node, *other, (connack.at, just_before))));
        let alive: Vec<u16> =
            all.iter().copied().filter(|node| !self.kept.stopped(*node, just_before, latest)).collect();
        let late_stops = self.kept.stops.iter().any(|(_, at)| *at > died + Duration::from_secs(1) && *at <= latest);
        let others_back =
            self.kept.starts.iter().any(|(of, at)| *of != orphan.node && *at > just_before && *at <= latest);
        let whole_after = alive
            .iter()
            .all(|node| alive.iter().all(|other| node == other || is_whole(*node, *other, (just_before, latest))));
        let leaves = all.iter().any(|node| self.ways.was_leaving(*node, connack.at));
        alive.len() * 2 > all.len() && whole_before && whole_after && !late_stops && !others_back && !leaves
    }
}

fn was_received(message: &Message, id: u32, epoch: u32) -> bool {
    message.targets.iter().any(|target| target.id == id && target.epoch == epoch && target.received)
}

/// A will is kept so long after CONNACK, also if nobody led in that moment.
const KEPT_WITHIN: Duration = Duration::from_secs(5);
/// What a node has decided is decided for all, if they reach each other.
const COMMITTED_WITHIN: Duration = Duration::from_secs(2);
/// A subscription is known everywhere.
const CERTAIN_BEFORE: Duration = Duration::from_secs(3);
/// Until a node that is silent counts as down (8 s), is down for long enough (8 s), and somebody leads and has looked (8 s).
const LATE: Duration = Duration::from_secs(26);
const LATE_FIXED: Duration = Duration::from_secs(10);
/// A node that is back waits so long for the routes of others.
const ROUTES_WITHIN: Duration = Duration::from_secs(11);
