//! Where the control planes of a cluster are looked into: when they say something, from time to time, and when all has settled.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use newtmq_base::{Incarnation, Instant, NodeId};
use newtmq_node::{ClusterEvent, Control, ShardView};

use super::journal::Journal;
use super::nodes::Inside;
use crate::history::{Event, NodeIx};
use crate::kernel::watch::wrong_routes;
use crate::report::{Check, Obligations, Violation, Witness};
use crate::scenario::Scenario;
use crate::whitebox::cluster::{ClusterWatch, Core, Found, Member};

/// Who looks. Clones are the same one.
#[derive(Clone)]
pub(super) struct Watch {
    shared: Arc<Mutex<Shared>>,
    scenario: Arc<Scenario>,
    journal: Journal,
    on: bool,
}

struct Shared {
    of_cluster: ClusterWatch,
    obligations: Obligations,
    found: Vec<Violation>,
    /// It is found again by each look.
    known: BTreeSet<(Check, u16)>,
}

impl Watch {
    /// For a run of this scenario, whether or not its nodes are looked into.
    pub(super) fn new(scenario: Arc<Scenario>, journal: Journal, on: bool) -> Watch {
        let on = on && scenario.is_cluster();
        let shared = Shared {
            of_cluster: ClusterWatch::new(on),
            obligations: Obligations::default(),
            found: Vec::new(),
            known: BTreeSet::new(),
        };
        Watch { shared: Arc::new(Mutex::new(shared)), scenario, journal, on }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anything is looked at.
    pub(super) fn is_on(&self) -> bool {
        self.on
    }

    /// Something is changed for what is expected.
    pub(super) fn expect(&self, change: impl FnOnce(&mut ClusterWatch)) {
        change(&mut self.lock().of_cluster);
    }

    /// A node has started.
    pub(super) fn started(&self, node: u16, id: NodeId, incarnation: Incarnation) {
        let mut shared = self.lock();
        let Shared { of_cluster, obligations, .. } = &mut *shared;
        let found = of_cluster.started((self.journal.now(), Instant::START), node, id, incarnation, obligations);
        shared.add(&self.journal, found.into_iter().collect());
    }

    /// A node says something of its cluster.
    pub(super) fn heard(&self, ix: u16, id: NodeId, control: &Control, event: &ClusterEvent) {
        if self.on {
            let mut shared = self.lock();
            let Shared { of_cluster, obligations, .. } = &mut *shared;
            let member = Member { ix, id, control };
            let found = of_cluster.said(self.journal.now(), &member, event, &self.scenario, obligations);
            shared.add(&self.journal, found);
        }
        self.journal.note(Event::Cluster { node: NodeIx(ix), event: Box::new(event.clone()) });
    }

    /// Looks into all nodes.
    pub(super) fn look<'a>(&self, members: &[Member<'_>], views: impl Fn(u16) -> Vec<ShardView<'a>>) {
        let now = self.journal.now();
        let mut shared = self.lock();
        let Shared { of_cluster, obligations, .. } = &mut *shared;
        let mut found = of_cluster.look(now, members, obligations);
        let routes = || {
            let first = wrong_routes(members, views).into_iter().next();
            first.map(|(_, node, what)| format!("node {node}: {what}"))
        };
        found.extend(of_cluster.look_for_progress(now, members, &self.scenario, obligations, routes));
        shared.add(&self.journal, found);
    }

    /// What does not hold now and has to when nothing goes on.
    pub(super) fn at_rest<'a>(
        &self,
        members: &[Member<'_>],
        views: impl Fn(u16) -> Vec<ShardView<'a>>,
        obligations: &mut Obligations,
    ) -> Vec<Found> {
        let shared = self.lock();
        let mut found = shared.of_cluster.at_rest(self.journal.now(), members, &self.scenario, obligations);
        if !shared.of_cluster.is_joining(self.journal.now(), &self.scenario) {
            obligations.count(Check::Routes, members.len() as u64);
            found.extend(wrong_routes(members, &views));
        }
        let core: BTreeSet<NodeId> = Core::of(members).nodes.iter().map(|member| member.id).collect();
        for member in members.iter().filter(|member| core.contains(&member.id)) {
            for view in views(member.ix) {
                let left = ClusterWatch::lanes_at_rest(&core, view, obligations);
                found.extend(left.into_iter().map(|what| (Check::LanesEmpty, member.ix, what)));
            }
        }
        found
    }

    /// What was found at rest.
    pub(super) fn rested(&self, found: Vec<Found>, obligations: &Obligations) {
        let mut shared = self.lock();
        shared.obligations.add(obligations);
        shared.add(&self.journal, found);
    }

    /// All that was found so far.
    pub(super) fn take(&self, inside: &mut Inside) {
        let mut shared = self.lock();
        inside.obligations.add(&core::mem::take(&mut shared.obligations));
        inside.cluster.append(&mut shared.found);
    }
}

impl Shared {
    fn add(&mut self, journal: &Journal, found: Vec<Found>) {
        for (check, node, what) in found {
            if self.known.insert((check, node)) {
                let message = format!("node {node}: {what}");
                self.found.push(Violation { check, at: journal.now(), message, witness: Witness::default() });
            }
        }
    }
}
