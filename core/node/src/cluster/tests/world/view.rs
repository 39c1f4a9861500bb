//! What holds after each step, and what is to hold in the end.

use std::collections::{BTreeMap, BTreeSet};

use newtmq_base::{Incarnation, Instant, NodeId};
use newtmq_cluster::owned::Phase;

use super::{Place, World, apply};
use crate::{FromControl, PeerNews};

/// What Control has told the shards, whether it has come there or not.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) routes: BTreeMap<Place, u32>,
    pub(super) news: BTreeMap<NodeId, PeerNews>,
    pub(super) acknowledge: Option<Instant>,
}

impl Told {
    pub(super) fn note(&mut self, message: &FromControl) {
        match message {
            FromControl::Routes(batch) => apply(&mut self.routes, batch),
            FromControl::Peer { node, news } => _ = self.news.insert(*node, *news),
            FromControl::Acknowledge { until } => self.acknowledge = Some(*until),
            FromControl::Committed { .. }
            | FromControl::Granted(..)
            | FromControl::Denied(_)
            | FromControl::Recall(_)
            | FromControl::Report
            | FromControl::Publish(_)
            | FromControl::Recovered
            | FromControl::Lanes { .. }
            | FromControl::Directory(_)
            | FromControl::Handover { .. }
            | FromControl::Retained(_)
            | FromControl::Will(_)
            | FromControl::Drain(_) => {}
        }
    }
}

impl World {
    /// What all shards of a node should match by when everybody has come to rest.
    pub(in super::super) fn routes_of(&self, nodes: &[usize]) -> BTreeMap<Place, u32> {
        let of = |node: &usize| {
            let node = &self.nodes[*node];
            node.filters.iter().map(|(filter, class, shard)| ((node.id, filter.clone(), *class, *shard), 1))
        };
        nodes.iter().flat_map(of).collect()
    }

    /// Whether these nodes are one cluster, and each knows all routes of all.
    pub(in super::super) fn is_whole(&self, nodes: &[usize]) -> bool {
        let members: BTreeSet<NodeId> = nodes.iter().map(|node| self.id(*node)).collect();
        let cluster = self.control(nodes[0]).cluster().unwrap().meta().cluster();
        let wanted = self.routes_of(nodes);
        nodes.iter().all(|node| {
            let control = self.control(*node);
            let meta = control.cluster().unwrap().meta();
            let known: BTreeSet<NodeId> = meta.view().state.members().keys().copied().collect();
            let others = members.iter().filter(|other| **other != self.id(*node));
            cluster.is_some()
                && meta.cluster() == cluster
                && meta.is_member()
                && known == members
                && others.into_iter().all(|other| control.owned().phase(*other) == Phase::Open)
                && self.nodes[*node].shards.iter().all(|shard| shard.table == wanted)
        })
    }

    /// What holds after each step.
    pub(super) fn check(&self, at: usize) {
        let node = &self.nodes[at];
        let Some(control) = &node.control else { return };
        let (cluster, owned) = (control.cluster().unwrap(), control.owned());
        let reached: BTreeMap<NodeId, Incarnation> = cluster.reached().collect();
        let members: BTreeSet<NodeId> = cluster.members().collect();
        for member in &members {
            let news = match reached.get(member) {
                Some(inc) if !owned.is_masked(*member) => PeerNews::Connected(*inc),
                Some(_) | None => PeerNews::Down,
            };
            assert_eq!(node.told.news.get(member), Some(&news), "{at} of {member:?}: what is masked is down");
        }
        for (other, news) in node.told.news.iter().filter(|(other, _)| !members.contains(other)) {
            let news = (*news, owned.is_leaving(*other));
            assert!(
                matches!(news, (PeerNews::Forgotten, false) | (PeerNews::Down, true)),
                "{at} of {other:?} {news:?}"
            );
        }
        let is_ours = |owner: &NodeId| *owner == node.id || owned.replica(*owner).is_some() || owned.is_leaving(*owner);
        let view = cluster.meta().view();
        for place in node.told.routes.keys() {
            assert!(is_ours(&place.0), "{at}: a route of no member: {place:?}");
            let is_removed = place.0 != node.id && view.state.removed().contains_key(&place.0);
            assert!(!is_removed || owned.is_leaving(place.0), "{at}: {place:?}");
        }
        if owned.without_table().next().is_some() {
            assert_eq!(node.told.acknowledge, Some(Instant::START), "{at} knows not whom publishes are for");
        } else if node.config.strict && !owned.leases_are_fresh(self.now) {
            assert!(node.told.acknowledge.is_none_or(|until| until <= self.now), "{at} has no lease");
        }
    }

    pub(super) fn show(&self) -> String {
        let mut text = String::new();
        for (at, node) in self.nodes.iter().enumerate() {
            let Some(control) = &node.control else {
                text += &format!("{at} {:?} does not run\n", node.id);
                continue;
            };
            let cluster = control.cluster().unwrap();
            let view = cluster.meta().view();
            let reached: Vec<_> = cluster.reached().collect();
            let replicas: Vec<_> = control
                .owned()
                .replicas()
                .map(|r| (r.owner(), control.owned().phase(r.owner()), r.incarnation(), r.len(), r.is_held()))
                .collect();
            text += &format!(
                "{at} {:?}/{} of {:?} member {} leader {:?} members {:?}\n  reached {reached:?} replicas {replicas:?}\n",
                node.id,
                node.inc,
                cluster.meta().cluster(),
                cluster.meta().is_member(),
                view.leader,
                view.state.members().keys().collect::<Vec<_>>(),
            );
            text += &format!("  counts {:?}\n", cluster.counts());
            for event in node.events.iter().rev().take(6) {
                text += &format!("  {event:?}\n");
            }
            let sizes: Vec<usize> = node.shards.iter().map(|shard| shard.table.len()).collect();
            text += &format!("  tables {sizes:?}\n");
        }
        text
    }
}
