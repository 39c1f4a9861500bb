//! Where the nodes of a cluster are looked into: from time to time, when they say something, and when nothing goes on. What
//! must hold is in [`crate::whitebox::cluster`].

use std::collections::{BTreeMap, BTreeSet};

use newtmq_base::{Incarnation, Instant, NodeId, RequestId};
use newtmq_node::{ClusterAnswer, ClusterCommand, ClusterEvent, ShardView};

use super::World;
use super::node::{Node, State};
use crate::report::{Check, Obligations};
use crate::whitebox::cluster::{ClusterWatch, Core, Found, Member};
use crate::whitebox::{self, NodeShards, Others};

pub(super) fn members(nodes: &[Node]) -> Vec<Member<'_>> {
    let up = nodes.iter().filter(|node| node.state != State::Down);
    up.filter_map(|node| Some(Member { ix: node.ix, id: node.id(), control: node.control.as_ref()? })).collect()
}

impl World<'_, '_> {
    /// A node has started.
    pub(super) fn watch_start(&mut self, node: u16, id: NodeId, incarnation: Incarnation) {
        let now = self.queue.now();
        let shown = self.nodes[usize::from(node)].clock.at(now);
        let obligations = &mut self.observer.findings.obligations;
        let found = self.cluster_watch.started((now, shown), node, id, incarnation, obligations);
        self.found_all(found.into_iter().collect());
    }

    /// A node says something of its cluster.
    pub(super) fn watch_event(&mut self, node: u16, event: &ClusterEvent) {
        let now = self.queue.now();
        let World { nodes, cluster_watch, observer, scenario, .. } = self;
        let of = &nodes[usize::from(node)];
        let Some(control) = of.control.as_ref() else { return };
        let member = Member { ix: node, id: of.id(), control };
        let found = cluster_watch.said(now, &member, event, scenario, &mut observer.findings.obligations);
        self.found_all(found);
    }

    /// An operator wants something.
    pub(super) fn watch_command(&mut self, node: u16, request: RequestId, command: &ClusterCommand) {
        self.cluster_watch.asked(self.queue.now(), request, command);
        match command {
            ClusterCommand::Leave => self.cluster_watch.sent_away(node),
            ClusterCommand::ForceLeave(id) => {
                let target = u64::from_str_radix(id, 16).ok().map(NodeId);
                let target = self.nodes.iter().find(|node| Some(node.id()) == target || format!("n{}", node.ix) == *id);
                if let Some(target) = target.map(|node| node.ix) {
                    self.cluster_watch.sent_away(target);
                }
            }
            // It is back only when it says so.
            ClusterCommand::Join(_) => {
                let now = self.queue.now();
                self.cluster_watch.joins(node, now);
            }
            ClusterCommand::Readmit(_)
            | ClusterCommand::Finalize
            | ClusterCommand::Status
            | ClusterCommand::Examine
            | ClusterCommand::PutBlob { .. } => {}
        }
    }

    /// A node has answered an operator.
    pub(super) fn watch_answer(&mut self, node: u16, request: RequestId, answer: &ClusterAnswer) {
        let command = usize::try_from(request.0).ok().and_then(|number| self.commands.get(number.checked_sub(1)?));
        let now = self.queue.now();
        let of = &self.nodes[usize::from(node)];
        if let Some(control) = of.control.as_ref() {
            self.cluster_watch.told(now, &Member { ix: node, id: of.id(), control }, request, answer);
        }
        if let Some(ClusterCommand::Leave) = command
            && *answer != ClusterAnswer::Done
        {
            self.cluster_watch.did_not_leave(now);
        }
        if let Some(ClusterCommand::Join(_)) = command {
            self.cluster_watch.has_answered(node, now);
            if *answer == ClusterAnswer::Done {
                self.cluster_watch.called_back(node);
            }
        }
    }

    /// Looks into all nodes.
    pub(super) fn look_at_cluster(&mut self) {
        let now = self.queue.now();
        let World { nodes, cluster_watch, observer, scenario, .. } = self;
        let members = members(nodes);
        let obligations = &mut observer.findings.obligations;
        let mut found = cluster_watch.look(now, &members, obligations);
        let routes = || {
            wrong_routes(&members, |ix| views(nodes, ix))
                .into_iter()
                .next()
                .map(|(_, node, what)| format!("node {node}: {what}"))
        };
        found.extend(cluster_watch.look_for_progress(now, &members, scenario, obligations, routes));
        self.found_all(found);
    }

    /// What holds when nothing goes on.
    pub(super) fn look_at_quiet_cluster(&mut self) {
        let now = self.quiesced_at();
        let World { nodes, cluster_watch, observer, scenario, .. } = self;
        let members = members(nodes);
        // Nothing comes to rest between nodes that do not find each other.
        if !cluster_watch.can_meet(&members, scenario) {
            return;
        }
        let obligations = &mut observer.findings.obligations;
        let mut found = cluster_watch.at_rest(now, &members, scenario, obligations);
        if !cluster_watch.is_joining(now, scenario) {
            obligations.count(Check::Routes, members.len() as u64);
            found.extend(wrong_routes(&members, |ix| views(nodes, ix)));
        }
        let core: BTreeSet<NodeId> = Core::of(&members).nodes.iter().map(|member| member.id).collect();
        for member in members.iter().filter(|member| core.contains(&member.id)) {
            for part in &nodes[usize::from(member.ix)].shards {
                let left = ClusterWatch::lanes_at_rest(&core, part.shard.view(), obligations);
                found.extend(left.into_iter().map(|what| (Check::LanesEmpty, member.ix, what)));
            }
        }
        self.found_all(found);
    }

    /// Whether nothing is left on the lanes between those who are one cluster: what came last may be asked about only after
    /// a second.
    pub(super) fn lanes_are_at_rest(&self) -> bool {
        if !self.scenario.is_cluster() {
            return true;
        }
        let members = members(&self.nodes);
        let core: BTreeSet<NodeId> = Core::of(&members).nodes.iter().map(|member| member.id).collect();
        let in_core = self.nodes.iter().filter(|node| core.contains(&node.id()));
        let mut shards = in_core.flat_map(|node| &node.shards);
        shards.all(|part| ClusterWatch::lanes_at_rest(&core, part.shard.view(), &mut Obligations::default()).is_empty())
    }

    fn found_all(&mut self, found: Vec<Found>) {
        for (check, node, what) in found {
            self.found(check, node, 0, what);
        }
    }

    /// No fault is left.
    pub(super) fn watch_calm(&mut self, now: Instant) {
        self.cluster_watch.calm(now);
    }
}

pub(super) fn views(nodes: &[Node], ix: u16) -> Vec<ShardView<'_>> {
    nodes[usize::from(ix)].shards.iter().map(|part| part.shard.view()).collect()
}

/// The tables of all nodes, cluster by cluster. `views` gives the shards of a node.
pub(crate) fn wrong_routes<'a>(members: &[Member<'_>], views: impl Fn(u16) -> Vec<ShardView<'a>>) -> Vec<Found> {
    let mut clusters: BTreeMap<_, Vec<&Member<'_>>> = BTreeMap::new();
    // Who is let go of, as its log says, and may be needed for that as yet, waits for a quorum to hear more.
    let is_between = |member: &Member<'_>| {
        let meta = member.control.cluster().map(|cluster| cluster.meta());
        let meta = meta.filter(|meta| meta.cluster().is_some() && !meta.is_member());
        meta.is_some_and(|meta| !meta.is_quorum(|node| members.iter().any(|other| other.id == node)))
    };
    let between: BTreeSet<NodeId> =
        members.iter().filter(|member| is_between(member)).map(|member| member.id).collect();
    for member in members.iter().filter(|member| !between.contains(&member.id)) {
        // Who is in none is alone.
        let alone = u64::from(member.ix) + 1;
        let key = member.belongs().map_or((alone, None), |cluster| (0, Some(cluster)));
        clusters.entry(key).or_default().push(member);
    }
    let mut found = Vec::new();
    for ((_, cluster), group) in &clusters {
        let group = &Core::who_knows(*cluster, group);
        let shards = |member: &&Member<'_>| NodeShards { ix: member.ix, id: member.id, shards: views(member.ix) };
        let all: Vec<NodeShards<'_>> = group.iter().map(shards).collect();
        let gone = Core::known(group).filter(|id| !group.iter().any(|member| member.id == *id)).collect();
        found.extend(whitebox::routes(&all, &Others { gone, between: between.clone() }, true));
    }
    found
}
