//! The nodes of a cluster and the ways between them: when two nodes surely could reach each other, from the faults of the
//! scenario and from what the nodes themselves say. It judges one thing: that no node counted another one as down without a
//! fault between them. A node's word counts, and what is checked apart is that it had reason to say so.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use newtmq_base::{Instant, NodeId, RequestId};
use newtmq_cluster::link::{DownCause, Event as LinkEvent};
use newtmq_node::{ClusterCommand, ClusterEvent};

use super::state::State;
use super::witness::{Cx, Story};
use crate::history::{Fault, NodeIx};
use crate::report::Check;

/// Routes have converged so long after nothing stands between two nodes, or after a SUBACK that did not wait for everybody.
pub(super) const CONVERGENCE: Duration = Duration::from_secs(2);

/// Lanes are open so long after nothing stands between two nodes; what is for a stored session is refused before.
const LANES_OPEN: Duration = Duration::from_secs(1);
/// With the strict barrier a node that starts answers others only when all know its stored subscriptions, or after so long.
const STRICT_BARRIER: Duration = Duration::from_millis(1500);
/// What was kept for a node is sent again so long after its shard could not store it.
const HINT_RETRY: Duration = Duration::from_secs(1);
/// A SUBACK that did not wait for everybody follows so soon on the event that says so.
const BARRIER_NEAR: Duration = Duration::from_millis(700);

/// All nodes and the ways between them. Empty in a scenario without a cluster.
#[derive(Debug, Default)]
pub(super) struct Ways {
    /// By index.
    ends: Vec<End>,
    /// By node and by the other one.
    ways: Vec<Way>,
    /// The same of both directions: spans of time in which something may have been wrong, in order of their begin; the end
    /// is [`Instant::NEVER`] while it still is.
    apart: Vec<Vec<(Instant, Instant)>>,
    /// Whose start it was, by what it is for others.
    who: BTreeMap<NodeId, u16>,
    /// Members that lost their disks: nobody is that node any more. From when, and until when some node said that it is removed.
    lost: BTreeMap<NodeId, (Instant, Instant)>,
    /// Whose routes a node has had in its start.
    had: BTreeSet<(u16, NodeId)>,
    /// What lies between nodes may be longer than what is usual.
    slack: Duration,
    /// How long lanes may be closed after nothing stands between two nodes any more.
    lanes_open: Duration,
}

#[derive(Debug, Clone, Default)]
struct End {
    id: Option<NodeId>,
    up: bool,
    paused_until: Instant,
    /// It was told to leave, or is no member any more.
    leaving: bool,
    /// The last time that this was over: it is a member again.
    left_until: Instant,
    /// When it came into the cluster that it is in.
    joined_at: Instant,
    /// The last time that somebody said that it is no member, or that it began with an empty disk.
    forgotten_at: Instant,
    /// Who leads, as it says, and since when; since when nobody does.
    leader: Option<(NodeId, Instant)>,
    leaderless: Option<Instant>,
    /// When SUBACKs of it did not wait for everybody.
    incomplete: Vec<Instant>,
    /// The last time that something was done to it.
    touched: Instant,
}

/// From one node to another, as the first one sees it.
#[derive(Debug, Clone, Default)]
struct Way {
    cut: bool,
    slow: bool,
    /// Frames of it come.
    linked: bool,
    /// Its routes are matched.
    open: bool,
    /// The last time that something was wrong with it that the scenario had done.
    faulty: Instant,
}

impl Ways {
    /// When a node came into the cluster that it is in.
    pub(super) fn joined_at(&self, node: u16) -> Instant {
        self.ends.get(usize::from(node)).map_or(Instant::START, |end| end.joined_at)
    }

    /// From when on what a node had retained by itself is everybody's; none while it may be alone in its cluster.
    pub(super) fn shares_since(&self, node: u16) -> Option<Instant> {
        let own = Some(self.joined_at(node)).filter(|at| *at > Instant::START)?;
        let others = (0u16..).zip(&self.ends).filter(|(other, end)| *other != node && end.joined_at > Instant::START);
        Some(others.map(|(_, end)| end.joined_at).min()?.max(own))
    }

    pub(super) fn new(nodes: u16, slack: Duration, strict: bool) -> Ways {
        let lanes_open = LANES_OPEN + if strict { STRICT_BARRIER } else { Duration::ZERO };
        let mut ways = Ways { slack, lanes_open, ..Ways::default() };
        if let Some(last) = nodes.checked_sub(1) {
            ways.grow(last);
        }
        ways
    }

    /// Whether there is a cluster at all.
    #[inline]
    pub(super) fn exist(&self) -> bool {
        !self.ends.is_empty()
    }

    fn at(&self, from: u16, to: u16) -> usize {
        usize::from(from) * self.ends.len() + usize::from(to)
    }

    /// Place of a pair, whichever comes first.
    fn pair(&self, one: u16, other: u16) -> usize {
        self.at(one.min(other), one.max(other))
    }

    fn grow(&mut self, node: u16) {
        let old = self.ends.len();
        let new = usize::from(node) + 1;
        if new <= old {
            return;
        }
        let place = |at: usize| (at / new, at % new);
        let ways = core::mem::take(&mut self.ways);
        let apart = core::mem::take(&mut self.apart);
        for at in 0..new * new {
            let (from, to) = place(at);
            let known = from < old && to < old;
            self.ways.push(if known { ways[from * old + to].clone() } else { Way::default() });
            // Before anything is known of them they are strangers.
            let strangers = if from < to { vec![(Instant::START, Instant::NEVER)] } else { Vec::new() };
            self.apart.push(if known { apart[from * old + to].clone() } else { strangers });
        }
        self.ends.resize(new, End::default());
    }

    /// Notes whether something is between two nodes from now on.
    fn settle(&mut self, one: u16, other: u16, now: Instant) {
        if one == other {
            return;
        }
        let way = |from: u16, to: u16| {
            let way = &self.ways[self.at(from, to)];
            way.cut || way.slow || !way.linked || !way.open
        };
        let down = |node: u16| !self.ends[usize::from(node)].up;
        let wrong = down(one) || down(other) || way(one, other) || way(other, one);
        let pair = self.pair(one, other);
        let spans = &mut self.apart[pair];
        match spans.last_mut().filter(|(_, to)| *to == Instant::NEVER) {
            Some(open) if !wrong => open.1 = now,
            None if wrong => spans.push((now, Instant::NEVER)),
            Some(_) | None => {}
        }
    }

    fn settle_all(&mut self, node: u16, now: Instant) {
        for other in 0..self.ends.len() as u16 {
            self.settle(node, other, now);
        }
    }

    /// How many nodes there are.
    pub(super) fn count(&self) -> u16 {
        self.ends.len() as u16
    }

    /// Whom a member has followed from `since` on, and who has led all the time.
    pub(super) fn follows(&self, node: u16, since: Instant) -> Option<u16> {
        let leader_of = |node: u16| {
            let end = &self.ends[usize::from(node)];
            let has_joined = end.joined_at > Instant::START && end.joined_at < since;
            let leader = end.leader.filter(|(_, at)| *at <= since && end.up && !end.leaving && has_joined);
            self.node_of(leader?.0)
        };
        leader_of(node).filter(|leader| leader_of(*leader) == Some(*leader))
    }

    /// Whether nothing was done to a node from then on.
    pub(super) fn is_untouched(&self, node: u16, since: Instant) -> bool {
        let end = &self.ends[usize::from(node)];
        end.touched < since && end.left_until < since
    }

    /// Whether a node has not ended, though it may have been told to.
    pub(super) fn runs(&self, node: u16) -> bool {
        self.ends.get(usize::from(node)).is_some_and(|end| end.up)
    }

    /// Whether something may have been between two nodes at some time from `from` to `to`.
    pub(super) fn were_apart(&self, one: u16, other: u16, from: Instant, to: Instant) -> bool {
        one != other && self.apart[self.pair(one, other)].iter().any(|(begin, end)| *begin <= to && *end >= from)
    }

    /// How long after nothing stands between two nodes any more what was kept may be on its way.
    pub(super) fn hints_take(&self) -> Duration {
        self.lanes_open + HINT_RETRY + self.slack
    }

    /// Since when nothing has been between them, if nothing was from `from` to `to`.
    pub(super) fn together_since(&self, one: u16, other: u16, from: Instant, to: Instant) -> Option<Instant> {
        if one == other {
            return Some(Instant::START);
        }
        if self.were_apart(one, other, from, to) {
            return None;
        }
        let spans = self.apart[self.pair(one, other)].iter();
        Some(spans.map(|(_, end)| *end).filter(|end| *end <= from).max().unwrap_or(Instant::START))
    }

    /// Whether a subscription that was acknowledged at `node` at `acked` is certain for what `publisher` got at `sent` and
    /// acknowledged at `accepted`.
    pub(super) fn is_certain(
        &self,
        (node, acked): (u16, Instant),
        publisher: u16,
        (sent, accepted): (Instant, Instant),
    ) -> bool {
        if node == publisher {
            return acked < sent;
        }
        let Some(since) = self.together_since(node, publisher, sent, accepted) else { return false };
        let told = |at: &Instant| *at <= acked && *at + BARRIER_NEAR + self.slack >= acked;
        let waited = !self.ends[usize::from(node)].incomplete.iter().any(told) && since + CONVERGENCE < acked;
        let known = if waited { acked } else { acked.max(since) + CONVERGENCE + self.slack };
        known < sent
    }

    /// Whether a node had the time to learn of a stored subscription that was acknowledged at `node` at `acked`, before it got
    /// something at `sent`: then it keeps what is for it while `node` is out of reach.
    pub(super) fn is_known(&self, (node, acked): (u16, Instant), publisher: u16, sent: Instant) -> bool {
        if self.was_forgotten(node, acked) || self.was_forgotten(publisher, acked) {
            return false;
        }
        let spans = &self.apart[self.pair(node, publisher)];
        let takes = CONVERGENCE + self.slack;
        let mut from = spans.iter().map(|(_, end)| *end).filter(|end| *end > acked && *end < sent).chain([acked]);
        from.any(|from| {
            let is_between = |(begin, end): &(Instant, Instant)| *begin <= from + takes && *end > from;
            from + takes < sent && !spans.iter().any(is_between)
        })
    }

    /// Whether somebody said since then that a node is no member, or it has lost its disk, or is to leave.
    pub(super) fn was_forgotten(&self, node: u16, since: Instant) -> bool {
        self.was_leaving(node, since) || self.ends.get(usize::from(node)).is_some_and(|end| end.forgotten_at >= since)
    }

    /// Whether the scenario had cut a way of a node at some time since then.
    pub(super) fn was_cut(&self, node: u16, since: Instant) -> bool {
        let is_faulty = |from: u16, to: u16| {
            let way = &self.ways[self.at(from, to)];
            way.cut || way.faulty >= since && way.faulty > Instant::START
        };
        (0..self.count()).any(|other| other != node && (is_faulty(node, other) || is_faulty(other, node)))
    }

    /// Whether every other node was out of reach of this one all that time.
    pub(super) fn is_cut_off(&self, node: u16, from: Instant, to: Instant) -> bool {
        let apart = |(begin, end): &(Instant, Instant)| *begin <= from && *end >= to;
        let mut others = (0..self.ends.len() as u16).filter(|other| *other != node);
        others.all(|other| self.apart[self.pair(node, other)].iter().any(apart))
    }

    /// Whether any other node may have been out of reach of this one in that time.
    pub(super) fn was_alone(&self, node: u16, from: Instant, to: Instant) -> bool {
        (0..self.ends.len() as u16).any(|other| self.were_apart(node, other, from, to))
    }

    /// The same, or a lane to one of them may not have been open yet: that takes until the other one has said what it has.
    pub(super) fn was_closed(&self, node: u16, from: Instant, to: Instant) -> bool {
        let lately = |(_, end): &(Instant, Instant)| *end + self.lanes_open + self.slack >= from;
        let others = (0..self.ends.len() as u16).filter(|other| *other != node);
        self.was_alone(node, from, to) || others.flat_map(|other| &self.apart[self.pair(node, other)]).any(lately)
    }

    /// Whether a member may have been one that nobody is any more.
    pub(super) fn had_lost_members(&self, from: Instant, to: Instant) -> bool {
        self.lost.values().any(|(begin, end)| *begin <= to && *end >= from)
    }

    /// Whether somebody has ended, and is not back, who may have been the only one of the group of retained messages: so soon after
    /// others became members they are not of that group yet.
    pub(super) fn has_lost_a_founder(&self, within: Duration) -> bool {
        let joined = (0..self.count()).map(|node| self.joined_at(node)).max().unwrap_or(Instant::START);
        self.ends.iter().any(|end| !end.up && end.touched < joined + within)
    }

    /// Whether a member may have been one that nobody is any more, and whose routes a node has never had: it does not know for
    /// whom a message is there.
    pub(super) fn had_unknown_members(&self, node: u16, from: Instant, to: Instant) -> bool {
        let unknown = |(peer, (begin, end)): (&NodeId, &(Instant, Instant))| {
            *begin <= to && *end >= from && !self.had.contains(&(node, *peer))
        };
        self.lost.iter().any(unknown)
    }

    /// Until when a node was last out of reach of another one; [`Instant::NEVER`] if it still is.
    pub(super) fn alone_until(&self, node: u16) -> Instant {
        let others = (0..self.ends.len() as u16).filter(|other| *other != node);
        let last = others.filter_map(|other| self.apart[self.pair(node, other)].iter().map(|(_, end)| *end).max());
        last.max().unwrap_or(Instant::START)
    }

    /// Whether any two of the members that run now were out of reach of each other.
    pub(super) fn were_split(&self, from: Instant, to: Instant) -> bool {
        let is_there = |node: &u16| self.ends.get(usize::from(*node)).is_some_and(|end| end.up && !end.leaving);
        let there: Vec<u16> = (0..self.ends.len() as u16).filter(is_there).collect();
        there.iter().any(|one| there.iter().any(|other| self.were_apart(*one, *other, from, to)))
    }

    /// Whether any node was out of reach of any other.
    pub(super) fn was_split(&self, from: Instant, to: Instant) -> bool {
        (0..self.ends.len() as u16).any(|node| self.was_alone(node, from, to))
    }

    /// Whether a node was told to leave its cluster, or is in none, or was so since then.
    pub(super) fn was_leaving(&self, node: u16, since: Instant) -> bool {
        self.ends.get(usize::from(node)).is_some_and(|end| end.leaving || end.left_until > since)
    }

    /// Whether a node has known of no leader for so long.
    pub(super) fn is_leaderless(&self, node: u16, for_so_long: Duration, now: Instant) -> bool {
        let end = self.ends.get(usize::from(node));
        end.and_then(|end| end.leaderless).is_some_and(|since| since + for_so_long <= now)
    }

    /// Whether a node has known of its leader from then on.
    pub(super) fn is_led(&self, node: u16, since: Instant) -> bool {
        self.ends.get(usize::from(node)).and_then(|end| end.leader).is_some_and(|(_, at)| at <= since)
    }

    /// Whether a SUBACK of a node did not wait for everybody, at any time.
    pub(super) fn was_incomplete(&self, node: u16) -> bool {
        self.ends.get(usize::from(node)).is_some_and(|end| !end.incomplete.is_empty())
    }

    /// Everything of the ways that a message may have to wait for, as spans of time.
    pub(super) fn stalls(&self) -> impl Iterator<Item = (Instant, Instant)> {
        self.apart.iter().flatten().copied()
    }

    fn node_of(&self, id: NodeId) -> Option<u16> {
        let node = *self.who.get(&id)?;
        (self.ends[usize::from(node)].id == Some(id)).then_some(node)
    }

    /// Something was done to a node: for a while it may count as down, and others for it.
    fn touch(&mut self, node: u16, until: Instant) {
        if let Some(end) = self.ends.get_mut(usize::from(node)) {
            end.touched = end.touched.max(until);
        }
    }
}

impl State {
    pub(super) fn node_up(&mut self, node: NodeIx, id: NodeId, cx: &Cx<'_>) {
        let ways = &mut self.ways;
        ways.grow(node.0);
        ways.who.insert(id, node.0);
        let count = ways.ends.len() as u16;
        for other in 0..count {
            for at in [ways.at(node.0, other), ways.at(other, node.0)] {
                (ways.ways[at].linked, ways.ways[at].open) = (false, false);
            }
        }
        // What is on its disk may not be all.
        ways.had.retain(|(of, _)| *of != node.0);
        let end = &mut ways.ends[usize::from(node.0)];
        if let Some(before) = end.id.filter(|before| *before != id) {
            end.forgotten_at = cx.now;
            ways.lost.entry(before).or_insert((end.touched.min(cx.now), Instant::NEVER));
        }
        let before = core::mem::take(end);
        let joined_at = if before.id == Some(id) { before.joined_at } else { Instant::START };
        let leaderless = Some(cx.now);
        *end = End { id: Some(id), up: true, joined_at, leader: None, leaderless, touched: cx.now, ..before };
        end.leaving = false;
        ways.settle_all(node.0, cx.now);
    }

    pub(super) fn node_gone(&mut self, node: NodeIx, cx: &Cx<'_>) {
        // Who is gone answers nothing.
        self.commands.retain(|(of, ..)| *of != node.0);
        let ways = &mut self.ways;
        ways.grow(node.0);
        ways.ends[usize::from(node.0)].up = false;
        ways.touch(node.0, cx.now);
        ways.settle_all(node.0, cx.now);
    }

    /// A fault of what is between nodes, or of a node.
    pub(super) fn fault_of_nodes(&mut self, fault: &Fault, now: Instant) {
        let ways = &mut self.ways;
        let mut change = |from: NodeIx, to: NodeIx, change: &dyn Fn(&mut Way)| {
            ways.grow(from.0.max(to.0));
            let at = ways.at(from.0, to.0);
            let way = &mut ways.ways[at];
            change(way);
            way.faulty = now;
            ways.settle(from.0, to.0, now);
        };
        match *fault {
            Fault::LinkCut { from, to } => change(from, to, &|way| way.cut = true),
            Fault::LinkHealed { from, to } => change(from, to, &|way| way.cut = false),
            Fault::LinkSlow { from, to, by_us, bytes_per_s } => {
                change(from, to, &|way| way.slow = by_us > 0 || bytes_per_s > 0);
            }
            Fault::Pause { node, until } if ways.exist() => {
                for other in (0..ways.ends.len() as u16).filter(|other| *other != node.0) {
                    let pair = ways.pair(node.0, other);
                    let open = ways.apart[pair].last().is_some_and(|(_, to)| *to == Instant::NEVER);
                    if !open {
                        ways.apart[pair].push((now, until));
                    } else if let Some(last) = ways.apart[pair].pop() {
                        // The open one stays the last.
                        ways.apart[pair].push((now, until));
                        ways.apart[pair].push(last);
                    }
                }
                ways.ends[usize::from(node.0)].paused_until = until;
                ways.touch(node.0, until);
            }
            Fault::Crash { node, .. } | Fault::Restart { node } | Fault::Shutdown { node } | Fault::Wipe { node } => {
                ways.touch(node.0, now);
            }
            Fault::Lag { node, .. } | Fault::Drift { node, .. } => ways.touch(node.0, now),
            Fault::Cut { .. }
            | Fault::Heal { .. }
            | Fault::Bandwidth { .. }
            | Fault::Reading { .. }
            | Fault::Freeze { .. }
            | Fault::Pause { .. }
            | Fault::ClockJump { .. }
            | Fault::DiskFull { .. }
            | Fault::DiskSlow { .. }
            | Fault::DiskFails { .. }
            | Fault::DiskRot { .. }
            | Fault::MemoryPressure { .. } => {}
        }
    }

    /// What a node says of its cluster.
    pub(super) fn said_of_cluster(&mut self, node: NodeIx, event: &ClusterEvent, cx: &mut Cx<'_>) {
        self.writes.said(node.0, event);
        let ways = &mut self.ways;
        ways.grow(node.0);
        match event {
            ClusterEvent::Link(LinkEvent::Up { peer, .. }) => self.linked(node.0, *peer, true, cx.now),
            ClusterEvent::Link(LinkEvent::Down { peer, cause, .. }) => {
                self.judge_down(node.0, *peer, *cause, cx);
                self.linked(node.0, *peer, false, cx.now);
            }
            // What was on its way is lost: as if it had been down for a moment.
            ClusterEvent::Link(LinkEvent::Reset { peer, .. } | LinkEvent::Broken { peer }) => {
                if let Some(other) = ways.node_of(*peer).filter(|other| *other != node.0) {
                    let pair = ways.pair(node.0, other);
                    let open = ways.apart[pair].last().is_some_and(|(_, to)| *to == Instant::NEVER);
                    if !open {
                        ways.apart[pair].push((cx.now, cx.now));
                    }
                }
            }
            ClusterEvent::Open { node: peer, open } => {
                if *open {
                    ways.had.insert((node.0, *peer));
                }
                if let Some(other) = ways.node_of(*peer).filter(|other| *other != node.0) {
                    let at = ways.at(node.0, other);
                    ways.ways[at].open = *open;
                    ways.settle(node.0, other, cx.now);
                }
            }
            ClusterEvent::Leader { leader, .. } => {
                let end = &mut ways.ends[usize::from(node.0)];
                end.leader = leader.map(|leader| (leader, cx.now));
                end.leaderless = if leader.is_some() { None } else { end.leaderless.or(Some(cx.now)) };
            }
            ClusterEvent::BarrierIncomplete => ways.ends[usize::from(node.0)].incomplete.push(cx.now),
            ClusterEvent::Removed { node: peer, .. } => {
                if let Some(other) = ways.node_of(*peer) {
                    ways.ends[usize::from(other)].forgotten_at = cx.now;
                }
                if let Some((_, until)) = ways.lost.get_mut(peer) {
                    *until = (*until).min(cx.now + CONVERGENCE + ways.slack);
                }
                if let Some(other) = ways.node_of(*peer).filter(|other| *other != node.0) {
                    let at = ways.at(node.0, other);
                    ways.ways[at].open = false;
                    ways.touch(other, cx.now);
                    ways.settle(node.0, other, cx.now);
                } else if ways.node_of(*peer) == Some(node.0) {
                    ways.ends[usize::from(node.0)].leaving = true;
                }
            }
            ClusterEvent::Gone(_) => {
                ways.ends[usize::from(node.0)].leaving = true;
                // It closes its links, maybe long after it was told to leave.
                ways.touch(node.0, cx.now);
            }
            ClusterEvent::Joined(_) => {
                let end = &mut ways.ends[usize::from(node.0)];
                end.joined_at = cx.now;
                if core::mem::take(&mut end.leaving) {
                    end.left_until = cx.now;
                }
            }
            ClusterEvent::Link(_)
            | ClusterEvent::Alive { .. }
            | ClusterEvent::Abandoned(_)
            | ClusterEvent::RetainedRenewed { .. }
            | ClusterEvent::Removing { .. }
            | ClusterEvent::Blob { .. }
            | ClusterEvent::Blobs
            | ClusterEvent::Stopped(_) => {}
        }
    }

    pub(super) fn commanded(&mut self, node: NodeIx, request: RequestId, command: &ClusterCommand, cx: &mut Cx<'_>) {
        let now = cx.now;
        self.asked(node.0, request, cx);
        self.writes.asked(node.0, request, command, now);
        self.ways.grow(node.0);
        match command {
            ClusterCommand::Leave => {
                self.ways.ends[usize::from(node.0)].leaving = true;
                self.ways.touch(node.0, now);
            }
            // Whoever is removed closes its links, and so does who joins another cluster.
            ClusterCommand::ForceLeave(_) | ClusterCommand::Join(_) => {
                for node in 0..self.ways.ends.len() as u16 {
                    self.ways.touch(node, now);
                }
            }
            ClusterCommand::Readmit(_)
            | ClusterCommand::Finalize
            | ClusterCommand::Status
            | ClusterCommand::Examine
            | ClusterCommand::PutBlob { .. } => {}
        }
    }

    fn linked(&mut self, node: u16, peer: NodeId, linked: bool, now: Instant) {
        let ways = &mut self.ways;
        let Some(other) = ways.node_of(peer).filter(|other| *other != node) else { return };
        let at = ways.at(node, other);
        ways.ways[at].linked = linked;
        ways.settle(node, other, now);
    }

    /// A node counts another one as down: only if something was between them, or one of them did not work.
    fn judge_down(&mut self, node: u16, peer: NodeId, cause: DownCause, cx: &mut Cx<'_>) {
        if !matches!(cause, DownCause::Silent | DownCause::Unheard) {
            return;
        }
        cx.owe(Check::DownJustified);
        let ways = &self.ways;
        let Some(other) = ways.node_of(peer).filter(|other| *other != node) else { return };
        let recent = |at: Instant| at > Instant::START && at + self.limits.reason + ways.slack * 8 >= cx.now;
        let touched = |node: u16| {
            let end = &ways.ends[usize::from(node)];
            !end.up || end.leaving || recent(end.touched)
        };
        let faulty = |from: u16, to: u16| {
            let way = &ways.ways[ways.at(from, to)];
            way.cut || way.slow || recent(way.faulty)
        };
        if touched(node) || touched(other) || faulty(node, other) || faulty(other, node) || self.limits.links_late {
            return;
        }
        let message =
            format!("node {node} counts node {other} as down, and nothing was wrong with either or between them");
        cx.violated(Check::DownJustified, message, Story::default().when(cx.now, "it says so"));
    }
}
