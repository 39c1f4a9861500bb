//! Which of the nodes that run are the largest cluster, and whether they can decide. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use newtmq_base::{Instant, NodeId};
use newtmq_cluster::link::Path;
use newtmq_cluster::meta::{ClusterId, Meta, MetaState};

use super::Member;

/// The largest cluster, and those of its nodes that run.
pub(crate) struct Core<'a> {
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) nodes: Vec<&'a Member<'a>>,
}

impl<'a> Core<'a> {
    pub(crate) fn of(members: &'a [Member<'a>]) -> Core<'a> {
        let mut clusters: BTreeMap<ClusterId, Vec<&Member<'_>>> = BTreeMap::new();
        for member in members {
            if let Some(cluster) = member.belongs() {
                clusters.entry(cluster).or_default().push(member);
            }
        }
        let largest = clusters.into_iter().max_by_key(|(id, nodes)| (nodes.len(), core::cmp::Reverse(*id)));
        let (cluster, nodes) = largest.map_or((None, Vec::new()), |(id, nodes)| (Some(id), nodes));
        let mut core = Core { cluster, nodes };
        core.drop_removed();
        core
    }

    /// Those of one cluster.
    pub(super) fn with(members: &'a [Member<'a>], cluster: Option<ClusterId>) -> Core<'a> {
        let nodes = members.iter().filter(|member| cluster.is_some() && member.belongs() == cluster).collect();
        Core { cluster, nodes }
    }

    /// Who was removed and cannot hear of it is none of them, whatever it believes.
    fn drop_removed(&mut self) {
        let Some(state) = self.newest() else { return };
        let known: BTreeSet<NodeId> = state.members().keys().copied().collect();
        self.nodes.retain(|member| known.contains(&member.id));
    }

    /// What whoever knows the most knows.
    fn newest(&self) -> Option<&'a MetaState> {
        let states = self.nodes.iter().filter_map(|member| Some(member.cluster()?.meta().view().state));
        states.max_by_key(|state| state.index())
    }

    /// Too many of those who decide are lost: it can never let go of the others.
    pub(super) fn is_stuck(&self) -> bool {
        self.cluster.is_some() && !self.has_quorum()
    }

    /// Half of its members are not there, or more: it lets go of none by itself, and as long as it has others than those who
    /// are there it comes into no other cluster.
    pub(super) fn holds_on(&self) -> bool {
        self.cluster.is_some() && self.nodes.len() * 2 <= Core::known(&self.nodes).count()
    }

    /// Somebody who was removed may never hear of it: without those. Without a quorum who is behind may never hear who belongs to
    /// them: then nobody is left.
    pub(crate) fn who_knows(cluster: Option<ClusterId>, nodes: &[&'a Member<'a>]) -> Vec<&'a Member<'a>> {
        let mut core = Core { cluster, nodes: nodes.to_vec() };
        core.drop_removed();
        if core.is_stuck() {
            let first = core.nodes.first().map(|member| member.knows());
            if core.nodes.iter().any(|member| Some(member.knows()) != first) {
                core.nodes.clear();
            }
        }
        core.nodes
    }

    /// The members that these nodes know of.
    pub(crate) fn known(nodes: &[&Member<'_>]) -> impl Iterator<Item = NodeId> {
        nodes.iter().flat_map(|member| member.knows()).collect::<BTreeSet<_>>().into_iter()
    }

    /// Until when a link between two of them counts as down because it flaps, and until when their routes do. `began` has when
    /// nodes started, and what their clocks showed then.
    pub(super) fn held_until(&self, began: &BTreeMap<u16, (Instant, Instant)>) -> (Instant, Instant) {
        let held = |member: &&Member<'_>| {
            let links = member.cluster()?.links();
            let link = links.peers().filter(|peer| self.has(peer.node())).map(|peer| peer.held_until()).max()?;
            let others = self.nodes.iter().map(|other| member.control.owned().held_until(other.id));
            let routes = others.max().unwrap_or(Instant::START);
            let (started, shown) = *began.get(&member.ix)?;
            let shown_at = |until: Instant| started + until.saturating_since(shown);
            Some((shown_at(link), shown_at(routes)))
        };
        let none = (Instant::START, Instant::START);
        self.nodes.iter().filter_map(held).fold(none, |last, held| (last.0.max(held.0), last.1.max(held.1)))
    }

    pub(crate) fn has(&self, node: NodeId) -> bool {
        self.nodes.iter().any(|member| member.id == node)
    }

    /// Whether one of them has links to as many as it takes to decide, as both ends see them, and a way to them.
    pub(super) fn reaches_quorum(&self) -> bool {
        let is_up = |one: &Member<'_>, other: NodeId| {
            one.cluster()
                .and_then(|cluster| cluster.links().peer(other))
                .is_some_and(|peer| peer.is_up() && peer.path() != Path::None)
        };
        let linked = |one: &Member<'_>, node: NodeId| {
            let other = self.nodes.iter().find(|other| other.id == node);
            node == one.id || other.is_some_and(|other| is_up(one, node) && is_up(other, one.id))
        };
        let decides = |member: &&Member<'_>| {
            member.cluster().is_some_and(|cluster| cluster.meta().is_quorum(|node| linked(member, node)))
        };
        self.nodes.iter().any(decides)
    }

    /// Whether more than half of the voters run, as whoever knows the most sees it.
    pub(crate) fn has_quorum(&self) -> bool {
        let metas = || self.nodes.iter().filter_map(|member| Some((member.id, member.cluster()?.meta())));
        let Some((_, newest)) = metas().max_by_key(|(_, meta)| meta.view().state.index()) else { return false };
        // Who votes may not know yet that others who are lost need not be asked any more.
        let decides = |meta: &Meta| meta.is_quorum(|node| self.has(node));
        let voters = newest.view().state.voters();
        decides(newest) && metas().any(|(id, meta)| voters.contains(&id) && decides(meta))
    }
}
