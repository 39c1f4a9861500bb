//! What must hold inside the nodes of a cluster: one leader in a term, commits that stay (W1), copies of routes that are
//! what their owners have written (W5, W6), epochs of sessions that rise (W3), starts with new numbers (W11), removals by a majority in time (W12); how soon
//! all is well after the last fault (L1, L2, L3), and what holds when nothing goes on (Q5, Q7). Looks from time to time, and
//! at what nodes say when they say it. Changes nothing.

mod largest;
mod progress;
mod removals;
mod retained;
mod sessions;
mod written;

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use newtmq_base::{Incarnation, Instant, NodeId, RequestId};
use newtmq_cluster::lane::LanesIn;
use newtmq_cluster::meta::ClusterId;
use newtmq_cluster::owned::Phase;
use newtmq_node::{Cluster, ClusterAnswer, ClusterCommand, ClusterEvent, Control, ShardView};

use crate::report::{Check, Obligations};
use crate::scenario::{Discovery, Scenario};
pub(crate) use largest::Core;
pub(crate) use sessions::has_one_session;
pub(crate) use written::write;

/// A look is due so often.
const EVERY: Duration = Duration::from_millis(200);
/// The members know each other.
const HEALED: Duration = Duration::from_secs(15);
/// A change of routes is everywhere.
const CONVERGED: Duration = Duration::from_secs(2);
/// Who is told to join answers, done or not.
const JOINED: Duration = Duration::from_secs(15);
/// Where its sessions are a node has told who decides.
const TOLD: Duration = Duration::from_secs(1);
/// So much of that are an election and joining, which take as long at any pace.
const ELECTED: Duration = Duration::from_secs(5);

/// A node that runs.
pub(crate) struct Member<'a> {
    pub(crate) ix: u16,
    pub(crate) id: NodeId,
    pub(crate) control: &'a Control,
}

impl Member<'_> {
    /// The members of its cluster, as far as it knows.
    fn knows(&self) -> BTreeSet<NodeId> {
        let members = self.cluster().map(|cluster| cluster.meta().view().state.members());
        members.into_iter().flat_map(|members| members.keys().copied()).collect()
    }

    fn cluster(&self) -> Option<&Cluster> {
        self.control.cluster()
    }

    /// The cluster that it belongs to.
    pub(crate) fn belongs(&self) -> Option<ClusterId> {
        let meta = self.cluster()?.meta();
        meta.cluster().filter(|_| meta.is_member())
    }
}

/// A version that a copy of a log had.
type Version = (Incarnation, u64);

/// Something that does not hold: what, and at which node.
pub(crate) type Found = (Check, u16, String);

/// What was seen of a cluster so far.
#[derive(Debug, Default)]
pub(crate) struct ClusterWatch {
    due: Instant,
    /// Who led in which term.
    leaders: BTreeMap<(ClusterId, u64), NodeId>,
    /// What everything up to an index of the meta group's log has made.
    applied: BTreeMap<(ClusterId, u64), u64>,
    /// Digests of logs by owner and version.
    digests: BTreeMap<(NodeId, Version), u64>,
    /// The last version that a node had of another's log.
    copies: BTreeMap<(u16, u32, NodeId), Version>,
    /// The last start of each node.
    starts: BTreeMap<NodeId, Incarnation>,
    /// Since when a node, in one of its starts, has not reached another one.
    down: BTreeMap<(u16, NodeId), Instant>,
    /// Since when it leads.
    leads: BTreeMap<u16, Instant>,
    /// Since when a node has not reached a majority of its cluster, and since when it does again.
    few: BTreeMap<u16, Instant>,
    most: BTreeMap<u16, Instant>,
    /// Nodes that need be in no cluster: they were told to leave, or were removed by an operator.
    away: BTreeSet<u16>,
    /// Clusters that those have founded: who was in none then may have joined them, and stays there when they go.
    apart: BTreeSet<ClusterId>,
    /// Nodes that are not where their seeds say.
    moved: BTreeSet<u16>,
    /// Who each node is, who has belonged to a cluster, and when all that run were one and nobody else was left out.
    ids: BTreeMap<u16, NodeId>,
    belonged: BTreeSet<NodeId>,
    was_one: Option<Instant>,
    /// A seed has lost its disk before that: whom it had promised to found no other cluster it does not know any more.
    broke_its_word: bool,
    /// When the last node that was told to stop in order had done so.
    stopped: Instant,
    /// Nodes that were told to join and have not answered, and when.
    joining: Vec<(u16, Instant)>,
    /// When each node has started, and what its clock showed then.
    began: BTreeMap<u16, (Instant, Instant)>,
    /// Until when a link between two of those who decide counts as down because it flaps, and the same of their routes.
    held: (Instant, Instant),
    /// What operators wanted to be everywhere.
    written: written::Written,
    /// Epochs that clients' connections have had.
    epochs: sessions::Epochs,
    /// When the last of them has answered.
    answered: Instant,
    /// When somebody was last removed: what is retained may need a new group.
    removed: Instant,
    /// Since when what the nodes know of each other, and their routes, have been wrong at each look.
    wrong_members: Option<Instant>,
    wrong_routes: Option<Instant>,
    /// Since when somebody has reached as many as it takes to decide.
    linked: Option<Instant>,
    /// No fault is left from then on, and what was looked for since.
    calm: Option<Instant>,
    /// The highest term then.
    calm_term: Option<u64>,
    judged: u8,
}

impl ClusterWatch {
    /// For a run of this scenario, whether or not its nodes are looked into.
    pub(crate) fn new(on: bool) -> ClusterWatch {
        ClusterWatch { due: if on { Instant::START } else { Instant::NEVER }, ..ClusterWatch::default() }
    }

    /// A node has started, with its clock showing that.
    pub(crate) fn started(
        &mut self,
        (now, shown): (Instant, Instant),
        node: u16,
        id: NodeId,
        incarnation: Incarnation,
        obligations: &mut Obligations,
    ) -> Option<Found> {
        obligations.count(Check::Incarnations, 1);
        self.down.retain(|(of, _), _| *of != node);
        self.leads.remove(&node);
        self.few.remove(&node);
        self.most.remove(&node);
        self.began.insert(node, (now, shown));
        let is_another = self.ids.insert(node, id).is_some_and(|before| before != id);
        self.broke_its_word |= is_another && self.was_one.is_none();
        let last = self.starts.insert(id, incarnation);
        let last = last.filter(|last| *last >= incarnation)?;
        Some((
            Check::Incarnations,
            node,
            format!("start {} of the node comes after its start {}", incarnation.0, last.0),
        ))
    }

    /// No fault is left.
    pub(crate) fn calm(&mut self, now: Instant) {
        self.calm = Some(now);
    }

    /// A node is at another address than at first.
    pub(crate) fn moved(&mut self, node: u16) {
        self.moved.insert(node);
    }

    /// A node has stopped in order, which takes its time: until then it may have led.
    pub(crate) fn stopped(&mut self, now: Instant) {
        self.stopped = now;
    }

    /// A node was told to leave, or another one to be removed.
    pub(crate) fn sent_away(&mut self, node: u16) {
        self.away.insert(node);
    }

    /// A node was told to join: until it answers it may be between two clusters, and lets nobody into its own.
    pub(crate) fn joins(&mut self, node: u16, now: Instant) {
        self.joining.push((node, now));
    }

    /// It has answered.
    pub(crate) fn has_answered(&mut self, node: u16, now: Instant) {
        // Of several the last one is refused at once.
        if let Some(at) = self.joining.iter().rposition(|(of, _)| *of == node) {
            self.joining.remove(at);
            self.answered = now;
        }
    }

    /// An operator wants something of all nodes.
    pub(crate) fn asked(&mut self, now: Instant, request: RequestId, command: &ClusterCommand) {
        self.written.asked(now, request, command);
    }

    /// A node has answered that.
    pub(crate) fn told(&mut self, now: Instant, member: &Member<'_>, request: RequestId, answer: &ClusterAnswer) {
        self.written.answered(now, member, request, answer);
    }

    /// It was told to leave, and says that it could not. It may have been removed, and then it comes back only now.
    pub(crate) fn did_not_leave(&mut self, now: Instant) {
        self.answered = now;
    }

    /// It has joined again.
    pub(crate) fn called_back(&mut self, node: u16) {
        self.away.remove(&node);
    }

    /// A node says something.
    pub(crate) fn said(
        &mut self,
        now: Instant,
        member: &Member<'_>,
        event: &ClusterEvent,
        scenario: &Scenario,
        obligations: &mut Obligations,
    ) -> Vec<Found> {
        match event {
            ClusterEvent::Link(newtmq_cluster::link::Event::Up { peer, .. }) => {
                self.down.remove(&(member.ix, *peer));
                self.watch_majority(now, member);
            }
            ClusterEvent::Link(newtmq_cluster::link::Event::Down { peer, .. }) => {
                self.down.entry((member.ix, *peer)).or_insert(now);
                self.watch_majority(now, member);
                // An election may have been under way; it is looked again whether as many reach each other as it takes.
                self.linked = None;
            }
            ClusterEvent::Leader { cluster, term, leader } => {
                if *leader == Some(member.id) {
                    self.leads.insert(member.ix, now);
                } else {
                    self.leads.remove(&member.ix);
                }
                if let (Some(leader), Some(cluster)) = (leader, cluster) {
                    return self.leads((*cluster, *term), *leader, member.ix, obligations).into_iter().collect();
                }
            }
            ClusterEvent::Removing { node, by } => {
                obligations.count(Check::Removals, 1);
                return self.judge_removal(now, member, *node, *by, scenario).into_iter().collect();
            }
            ClusterEvent::Link(newtmq_cluster::link::Event::Path {
                path: newtmq_cluster::link::Path::None, ..
            }) => {
                // Nothing of an election gets through.
                self.linked = None;
            }
            ClusterEvent::Removed { .. } => self.removed = now,
            ClusterEvent::Joined(cluster) => {
                self.epochs.came(member.ix);
                if self.away.contains(&member.ix) && member.knows() == BTreeSet::from([member.id]) {
                    self.apart.insert(*cluster);
                }
            }
            ClusterEvent::Link(_)
            | ClusterEvent::Alive { .. }
            | ClusterEvent::Abandoned(_)
            | ClusterEvent::RetainedRenewed { .. }
            | ClusterEvent::Blob { .. }
            | ClusterEvent::Blobs
            | ClusterEvent::Open { .. }
            | ClusterEvent::Gone(_)
            | ClusterEvent::Stopped(_)
            | ClusterEvent::BarrierIncomplete => {}
        }
        Vec::new()
    }

    fn leads(
        &mut self,
        term: (ClusterId, u64),
        leader: NodeId,
        node: u16,
        obligations: &mut Obligations,
    ) -> Option<Found> {
        // Who is let in hears a leader before it hears of what; a second cluster may let it in, too.
        if term.0 == ClusterId(0) {
            return None;
        }
        obligations.count(Check::Leaders, 1);
        let known = *self.leaders.entry(term).or_insert(leader);
        let what = || format!("term {} has two leaders, {:x} and {:x}", term.1, known.0, leader.0);
        (known != leader).then(|| (Check::Leaders, node, what()))
    }

    /// Looks at all nodes, if it is time.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        now >= self.due
    }

    /// Looks at all nodes that run.
    pub(crate) fn look(&mut self, now: Instant, members: &[Member<'_>], obligations: &mut Obligations) -> Vec<Found> {
        self.due = now + EVERY;
        let is_one = members.first().is_some_and(|first| {
            first.belongs().is_some() && members.iter().all(|member| member.belongs() == first.belongs())
        });
        self.belonged.extend(members.iter().filter(|member| member.belongs().is_some()).map(|member| member.id));
        if is_one && self.ids.values().all(|id| self.belonged.contains(id)) {
            self.was_one.get_or_insert(now);
        }
        let mut found = Vec::new();
        for member in members {
            self.look_at_group(member, obligations, &mut found);
            self.watch_majority(now, member);
        }
        // Owners first: what they have written is what counts.
        for member in members {
            let log = member.control.owned().log();
            self.digests.insert((member.id, (log.incarnation(), log.version())), log.digest());
        }
        for member in members {
            self.look_at_copies(member, members, obligations, &mut found);
            found.extend(self.epochs.look(member, obligations));
        }
        found
    }

    fn look_at_group(&mut self, member: &Member<'_>, obligations: &mut Obligations, found: &mut Vec<Found>) {
        let Some(cluster) = member.cluster() else { return };
        let (view, Some(id)) = (cluster.meta().view(), cluster.meta().cluster()) else { return };
        if view.is_leader {
            found.extend(self.leads((id, view.term), member.id, member.ix, obligations));
        }
        let (index, hash) = (view.state.index(), view.state.hash());
        if view.state.cluster() != id || index == 0 {
            return;
        }
        obligations.count(Check::Leaders, 1);
        let known = *self.applied.entry((id, index)).or_insert(hash);
        if known != hash {
            found.push((Check::Leaders, member.ix, format!("what was committed up to {index} is not what it was")));
        }
    }

    fn look_at_copies(
        &mut self,
        member: &Member<'_>,
        members: &[Member<'_>],
        obligations: &mut Obligations,
        found: &mut Vec<Found>,
    ) {
        let start = member.control.owned().log().incarnation();
        for replica in member.control.owned().replicas() {
            let Some(version) = replica.version() else { continue };
            let (owner, version) = (replica.owner(), (replica.incarnation(), version));
            obligations.count(Check::Replicas, 1);
            obligations.count(Check::Owners, 1);
            let at = (member.ix, start.0 as u32, owner);
            let last = self.copies.insert(at, version);
            if last.is_some_and(|last| last > version) {
                let what = format!("its copy of the routes of {:x} went back from {last:?} to {version:?}", owner.0);
                found.push((Check::Replicas, member.ix, what));
            }
            let own = members.iter().find(|of| of.id == owner).map(|of| of.control.owned().log());
            if let Some(own) = own.filter(|own| own.incarnation() == version.0 && own.version() < version.1) {
                let what = format!(
                    "its copy of the routes of {:x} has version {}, which that node has not written: it is at {}",
                    owner.0,
                    version.1,
                    own.version()
                );
                found.push((Check::Owners, member.ix, what));
            }
            let known = *self.digests.entry((owner, version)).or_insert(replica.digest());
            if known != replica.digest() {
                let what =
                    format!("its copy of the routes of {:x} at {version:?} is another one than elsewhere", owner.0);
                found.push((Check::Replicas, member.ix, what));
            }
        }
    }

    /// When nothing goes on: nothing waits in the lanes between these shards of the core's nodes, and all credit is back.
    pub(crate) fn lanes_at_rest(
        core: &BTreeSet<NodeId>,
        shard: ShardView<'_>,
        obligations: &mut Obligations,
    ) -> Vec<String> {
        let mut found = Vec::new();
        for out in shard.lanes_out().filter(|out| core.contains(&out.node())) {
            for lane in out.view() {
                obligations.count(Check::LanesEmpty, 1);
                let left = lane.flight_messages > 0 || lane.flight_bytes > 0 || lane.unstored + lane.waiting > 0;
                if left || lane.releases > 0 || lane.unsettled {
                    found.push(format!("the lane to node {:x} is not at rest: {lane:?}", out.node().0));
                }
            }
        }
        for lane in shard.lanes_in().into_iter().flat_map(LanesIn::view).filter(|lane| core.contains(&lane.node)) {
            obligations.count(Check::LanesEmpty, 1);
            if lane.held_messages > 0 || lane.refused > 0 {
                found.push(format!("the lane from node {:x} is not at rest: {lane:?}", lane.node.0));
            }
        }
        obligations.count(Check::LanesEmpty, 1);
        if shard.open_gates() > 0 {
            found.push(format!("{} acknowledgements wait for other nodes", shard.open_gates()));
        }
        found
    }

    /// When nothing goes on: members are those who are alive, and all are linked.
    pub(crate) fn at_rest(
        &self,
        now: Instant,
        members: &[Member<'_>],
        scenario: &Scenario,
        obligations: &mut Obligations,
    ) -> Vec<Found> {
        let core = Core::of(members);
        if self.is_joining(now, scenario) || !self.can_heal(&core, members, scenario) {
            return Vec::new();
        }
        obligations.count(Check::Members, core.nodes.len() as u64);
        let members = self.members_differ(&core, members, scenario).map(|(at, what)| (Check::Members, at, what));
        // For a session that is at a member that is down its client may try for ever.
        let is_whole = core.nodes.iter().filter_map(|member| member.cluster()).all(|cluster| {
            let state = cluster.meta().view().state;
            state.members().keys().all(|node| core.has(*node))
        });
        let is_led = is_whole && self.have_had_time(TOLD, now, scenario);
        let sessions = sessions::differ(&core, is_led, obligations).map(|(at, what)| (Check::OneSession, at, what));
        // The group of retained messages begins anew only when the members are agreed on, has to elect a leader then, and gets what it
        // had from who has it.
        let is_settled = self.have_had_time(ELECTED * 2, now, scenario);
        let retained = retained::differs(&core, is_settled, scenario, obligations);
        let written = self.written.look(&core, obligations);
        members.into_iter().chain(sessions).chain(retained).chain(written).collect()
    }

    /// Whether the members have had their time to agree, and so much more for what comes then.
    fn have_had_time(&self, more: Duration, now: Instant, scenario: &Scenario) -> bool {
        let Some(calm) = self.calm else { return false };
        let held = self.held.0.max(self.held.1);
        let from = calm.max(self.joined()).max(self.founded()).max(held).max(self.removed);
        now >= from + scenario.cluster.bound(ELECTED, HEALED) + more
    }

    /// Who was told to join may be between two clusters until it answers, and then there is as much time as after a fault.
    pub(crate) fn is_joining(&self, now: Instant, scenario: &Scenario) -> bool {
        let begun = self.joined().max(self.founded());
        begun > Instant::START && now < begun + scenario.cluster.bound(ELECTED, HEALED)
    }

    /// Whether the nodes that run can find each other: where all have moved, seeds name nobody.
    pub(crate) fn can_meet(&self, running: &[Member<'_>], scenario: &Scenario) -> bool {
        let has_moved = |member: &Member<'_>| self.moved.contains(&member.ix);
        scenario.cluster.discovery != Discovery::Seeds || !running.iter().all(has_moved)
    }

    /// By when those who were told to join have answered.
    fn joined(&self) -> Instant {
        self.joining.iter().map(|(_, at)| *at + JOINED).fold(self.answered, Instant::max)
    }

    /// When all became one cluster, if somebody who had promised to be in it was lost before: others waited for it.
    fn founded(&self) -> Instant {
        self.was_one.filter(|_| self.broke_its_word).unwrap_or(Instant::START)
    }

    fn can_heal(&self, core: &Core<'_>, running: &[Member<'_>], scenario: &Scenario) -> bool {
        // Others may have promised it something as well, and wait for somebody who is nobody any more.
        let waits = self.broke_its_word && self.was_one.is_none();
        core.has_quorum() && self.can_meet(running, scenario) && !waits
    }

    /// Whether all nodes know each other and one leader, without others between them.
    pub(crate) fn knows_itself(&self, members: &[Member<'_>], scenario: &Scenario) -> bool {
        let core = Core::of(members);
        let direct = |of: &&Member<'_>| {
            let links = of.cluster().map(|cluster| cluster.links());
            let mut others = core.nodes.iter().filter(|other| other.id != of.id);
            links.is_some_and(|links| others.all(|other| links.peer(other.id).is_some_and(|peer| peer.is_direct())))
        };
        let mut leaders = core.nodes.iter().map(|member| member.cluster()?.meta().view().leader);
        let first = leaders.next().flatten();
        let led = first.is_some_and(|leader| core.has(leader)) && leaders.all(|leader| leader == first);
        led && core.nodes.iter().all(direct) && self.members_differ(&core, members, scenario).is_none()
    }

    /// What stands against that all nodes of the core know each other, and where.
    fn members_differ(&self, core: &Core<'_>, all: &[Member<'_>], scenario: &Scenario) -> Option<(u16, String)> {
        let is_kept_apart = |member: &Member<'_>| {
            let own = Core::with(all, member.belongs());
            own.is_stuck() || own.holds_on()
        };
        let lost = |member: &&Member<'_>| {
            let is_excused = self.broke_its_word && member.belongs().is_some();
            !is_excused
                && !self.away.contains(&member.ix)
                && !member.belongs().is_some_and(|cluster| self.apart.contains(&cluster))
                && !core.has(member.id)
                && !is_kept_apart(member)
        };
        // Who has left has a cluster of its own, and who comes to its address may join that.
        if scenario.cluster.discovery != Discovery::None
            && self.away.is_empty()
            && let Some(member) = all.iter().find(lost)
        {
            let what = match member.belongs() {
                Some(other) => format!("it belongs to the cluster {:x}, the others to {:?}", other.0, core.cluster),
                None => format!("it is in no cluster, the others are in {:?}", core.cluster),
            };
            return Some((member.ix, what));
        }
        let known = core.nodes.first()?.cluster()?.meta().view().state;
        for member in &core.nodes {
            let cluster = member.cluster()?;
            let state = cluster.meta().view().state;
            // One that was down for too long may be removed at any time: who is an entry behind hears of it at once.
            let is_behind = state.index().abs_diff(known.index()) == 1;
            if !is_behind && !state.members().keys().eq(known.members().keys()) {
                return Some((member.ix, "it knows other members than the rest of its cluster".into()));
            }
            let alive: BTreeSet<NodeId> = cluster.swim().alive().map(|(node, ..)| node).collect();
            for other in core.nodes.iter().filter(|other| other.id != member.id) {
                let linked = cluster.links().peer(other.id).is_some_and(|peer| peer.is_up());
                let open = member.control.owned().phase(other.id) == Phase::Open;
                let wrong = [
                    (state.members().contains_key(&other.id), "is no member"),
                    (alive.contains(&other.id), "is not alive"),
                    (linked, "is not linked"),
                    (open, "has routes that are not open"),
                ];
                if let Some((_, what)) = wrong.into_iter().find(|(holds, _)| !holds) {
                    return Some((member.ix, format!("as it sees it node {} {what}", other.ix)));
                }
            }
        }
        None
    }
}

fn is_leader(member: &Member<'_>) -> bool {
    member.cluster().is_some_and(|cluster| cluster.meta().view().is_leader)
}
