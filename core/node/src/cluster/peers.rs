//! Who is a member, and what follows from it: whose logs are followed, what shards hear of other nodes, whom links dial.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use newtmq_base::{Incarnation, Instant, NodeId, planted};
use newtmq_cluster::link::Address;
use newtmq_cluster::meta::{self, RemovedBy};
use newtmq_cluster::owned::Phase;

use super::joint::{Cluster, Cx};
use super::{ClusterEvent, ClusterOutput};
use crate::control::{FromControl, PeerNews};

/// Another member.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// What the shards have heard last.
    pub(super) told: Option<PeerNews>,
    /// Its routes are matched, as was said.
    open: bool,
    /// The disk knows that there is a whole table of its durable entries.
    pub(super) held: bool,
}

impl Cluster {
    /// Compares the members that are followed with those that there are.
    pub(super) fn follow_members(&mut self, cx: &mut Cx<'_>) {
        let view = self.meta.view();
        self.links.set_meta(view.term, view.state.index());
        let state = view.state;
        let wanted: BTreeMap<NodeId, Incarnation> = if self.gone {
            BTreeMap::new()
        } else {
            let others = state.members().values().filter(|member| member.node != self.node);
            others.map(|member| (member.node, member.inc)).collect()
        };
        let removed: BTreeMap<NodeId, RemovedBy> =
            state.removed().iter().map(|(node, removed)| (*node, removed.by)).collect();
        // Of before this start, whose removal the log has had by then.
        let unknown = cx.owned.replicas().map(|replica| replica.owner());
        let unknown = unknown.filter(|node| self.gone || removed.contains_key(node));
        let unknown: Vec<NodeId> = unknown.filter(|node| !self.members.contains_key(node)).collect();
        let gone: Vec<NodeId> = self.members.keys().filter(|node| !wanted.contains_key(node)).copied().collect();
        for node in gone.into_iter().chain(unknown).filter(|node| !wanted.contains_key(node)) {
            self.forget(cx, node, removed.get(&node).copied());
        }
        let out: BTreeSet<NodeId> = if self.gone {
            BTreeSet::new()
        } else {
            removed.iter().filter(|(_, by)| **by == RemovedBy::Force).map(|(node, _)| *node).collect()
        };
        for node in out.difference(&self.evicted) {
            self.links.evict(cx.now, *node, &mut self.link_out);
        }
        for node in self.evicted.difference(&out) {
            self.links.readmit(*node);
        }
        self.evicted = out;
        for (node, incarnation) in wanted {
            self.links.know(cx.now, node, incarnation, &mut self.link_out);
            if !self.members.contains_key(&node) {
                self.welcome(cx, node);
            }
        }
        self.follow_addresses(cx.now);
        self.follow_retained(cx);
    }

    fn welcome(&mut self, cx: &mut Cx<'_>, node: NodeId) {
        let held = self.disk.has_held(node);
        self.members.insert(node, Peer { held, ..Peer::default() });
        self.leaving.remove(&node);
        cx.owned.member(node);
        if let Some(incarnation) = self.reached.get(&node) {
            cx.owned.up(cx.now, node, *incarnation, cx.given);
        }
    }

    fn forget(&mut self, cx: &mut Cx<'_>, node: NodeId, by: Option<RemovedBy>) {
        let was = self.members.remove(&node);
        if was.is_some_and(|peer| peer.told.is_some_and(|told| told != PeerNews::Down)) {
            cx.tell(self.shards, &FromControl::Peer { node, news: PeerNews::Down });
        }
        if !planted!(RoutesOutliveMember) {
            cx.owned.forget(cx.now, node, cx.given);
        }
        self.leaving.insert(node);
        if let Some(store) = self.disk.forget(node) {
            cx.ask(store);
        }
        match by {
            // It comes back by itself, and begins anew.
            Some(RemovedBy::Autoclean) => self.links.remove(cx.now, node, &mut self.link_out),
            Some(RemovedBy::Leave | RemovedBy::Force) | None => self.swim.forget(node),
        }
    }

    /// A node that is no member, and neither reached nor answers, is one that there was once.
    pub(super) fn drop_stranger(&mut self, now: Instant, node: NodeId) {
        let answers = self.swim.alive().any(|(alive, _, _)| alive == node);
        if !answers && !self.members.contains_key(&node) && !self.reached.contains_key(&node) {
            self.links.remove(now, node, &mut self.link_out);
        }
    }

    /// What has become of the logs of others, for shards, disk and events.
    pub(super) fn look(&mut self, cx: &mut Cx<'_>) {
        let nodes: Vec<NodeId> = self.members.keys().copied().collect();
        for node in nodes {
            self.tell_news(cx, node);
            let is_open = cx.owned.phase(node) == Phase::Open;
            let is_held = cx.owned.replica(node).is_some_and(newtmq_cluster::owned::Replica::is_held);
            let Some(peer) = self.members.get_mut(&node) else { continue };
            if core::mem::replace(&mut peer.open, is_open) != is_open {
                cx.event(ClusterEvent::Open { node, open: is_open });
            }
            if is_held && !core::mem::replace(&mut peer.held, true) {
                self.disk.held(node).into_iter().for_each(|store| cx.ask(store));
                self.compact(cx);
            }
        }
        // Shards may need the names of places until nothing leads there.
        let left: Vec<NodeId> = self.leaving.iter().filter(|node| !cx.owned.is_leaving(**node)).copied().collect();
        for node in left {
            self.leaving.remove(&node);
            cx.tell(self.shards, &FromControl::Peer { node, news: PeerNews::Forgotten });
        }
    }

    /// Tells the shards how a member is reached, if they do not know. What counts as down for its routes does for lanes.
    pub(super) fn tell_news(&mut self, cx: &mut Cx<'_>, node: NodeId) {
        let Some(peer) = self.members.get_mut(&node) else { return };
        let news = match self.reached.get(&node) {
            Some(incarnation) if !cx.owned.is_masked(node) => PeerNews::Connected(*incarnation),
            Some(_) | None => PeerNews::Down,
        };
        if peer.told != Some(news) && !planted!(DownNotTold, news == PeerNews::Down) {
            peer.told = Some(news);
            cx.tell(self.shards, &FromControl::Peer { node, news });
        }
    }

    /// What was under way to a member may be lost.
    pub(super) fn tell_again(&mut self, cx: &mut Cx<'_>, node: NodeId) {
        let told = self.members.get(&node).and_then(|peer| peer.told);
        if let Some(news @ PeerNews::Connected(_)) = told.filter(|_| !planted!(BrokenNotTold)) {
            cx.tell(self.shards, &FromControl::Peer { node, news });
        }
    }

    /// Where members may be is dialed and called: what discovery says, what members say, where somebody answers.
    pub(super) fn follow_addresses(&mut self, now: Instant) {
        let found = self.found.iter().flat_map(|found| &found.addresses).copied();
        let mut called: BTreeSet<SocketAddr> = found.chain(self.desk.joins()).collect();
        let state = self.meta.view().state;
        let mut dialed: BTreeSet<Address> = BTreeSet::new();
        for node in self.members.keys() {
            let Some(member) = state.members().get(node) else { continue };
            called.extend(member.address.parse::<SocketAddr>());
            dialed.insert(Address(member.address.clone()));
        }
        called.remove(&self.address);
        dialed.extend(called.iter().map(|address| Address(address.to_string())));
        let alive = self.swim.alive().filter(|(node, _, _)| !self.evicted.contains(node));
        dialed.extend(alive.map(|(_, _, address)| Address(address.to_string())));
        dialed.remove(&Address(self.address.to_string()));
        for address in dialed.difference(&self.dialed) {
            self.links.add_address(now, address.clone());
        }
        for address in self.dialed.difference(&dialed) {
            self.links.remove_address(address);
        }
        self.dialed = dialed;
        if called != self.called {
            self.come_back(now);
            let addresses: Vec<SocketAddr> = called.iter().copied().collect();
            self.called = called;
            self.swim.discovered(&addresses, &mut self.swim_out);
        }
    }

    /// Tells the meta group which of the seeds are reached, as long as the node is in no cluster.
    pub(super) fn tell_seeds(&mut self, now: Instant) {
        let is_asked = core::mem::take(&mut self.seeds_stale) && self.config.discovers && self.meta.cluster().is_none();
        let Some(found) = self.found.as_ref().filter(|_| is_asked) else { return };
        let dialed: BTreeMap<&str, NodeId> =
            self.links.reached().map(|(address, node)| (address.0.as_str(), node)).collect();
        let answering: BTreeMap<SocketAddr, NodeId> =
            self.swim.alive().map(|(node, _, address)| (address, node)).collect();
        let at =
            |address: &SocketAddr| dialed.get(address.to_string().as_str()).or_else(|| answering.get(address)).copied();
        let reached: BTreeSet<NodeId> =
            found.addresses.iter().filter_map(at).filter(|node| self.reached.contains_key(node)).collect();
        let total = found.addresses.len() + usize::from(found.here);
        let seeds = (total, found.here, reached);
        if self.seeds.as_ref() != Some(&seeds) {
            self.seeds = Some(seeds.clone());
            let (total, here, reached) = seeds;
            let name = self.config.name.clone();
            let input = meta::Input::Seeds { name, total, here, reached };
            self.meta.handle(now, input, &mut self.meta_out);
        }
    }

    /// Who runs, by name; for people.
    pub(crate) fn running(&self) -> Vec<String> {
        let state = self.meta.view().state;
        let others = self.members.keys().filter(|node| self.reached.contains_key(node));
        let names = others.filter_map(|node| Some(state.members().get(node)?.name.clone()));
        let mut names: Vec<String> = names.chain([self.name.clone()]).collect();
        names.sort();
        names
    }
}

impl Cx<'_> {
    pub(super) fn store(&mut self, store: Option<ClusterOutput>) {
        store.into_iter().for_each(|store| self.ask(store));
    }
}
