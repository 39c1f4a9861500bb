//! Steps of several nodes: links that are cut and heal, nodes that crash, pause, join and leave, while clients at all of
//! them go on.

use newtmq_mqtt::QoS;

use super::hops::STORM_MAX;
use super::kind::Kind;
use super::{Steps, WARM_UP_MS};
use crate::generate::{Family, STEPS_MAX_CLUSTER};
use crate::scenario::{Act, Action, Discovery, PublishSpec, WorldAction};

macro_rules! deeds {
    ($($variant:ident $weight:literal,)*) => {
        /// What can be done to nodes and to what is between them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        enum Deed { $($variant,)* }

        impl Deed {
            const ALL: &[Deed] = &[$(Deed::$variant,)*];

            const fn weight(self) -> u32 {
                match self { $(Deed::$variant => $weight,)* }
            }
        }
    };
}

// What ends a fault is heavier than what begins it.
deeds! {
    Isolate 4,
    Split 4,
    Bridge 3,
    Ring 2,
    OneWay 4,
    Single 3,
    HealAll 12,
    HealOne 4,
    Flap 3,
    Slow 3,
    Fast 6,
    Crash 4,
    LossAtAcks 2,
    Restart 16,
    Wipe 1,
    Pause 4,
    Shutdown 2,
    NewAddress 2,
    Join 3,
    Leave 2,
    ForceLeave 2,
    Status 1,
    Write 4,
    Lag 1,
    LagEnd 4,
    Drift 1,
    DriftEnd 3,
    DiskSlow 1,
    DiskFast 4,
    Hop 6,
    Together 4,
    Storm 2,
    HopAndBreak 3,
}

/// What the steps so far did to the cluster as a whole.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// Links, from and to, that are cut.
    cut: Vec<(u16, u16)>,
    slow: Vec<(u16, u16)>,
    flaps: bool,
    wiped: u16,
    left: Vec<u16>,
}

impl Steps<'_> {
    /// A scenario of a cluster up to where everything is made well.
    pub(super) fn cluster(&mut self) {
        self.meet();
        if self.is_of_kept_wills() {
            return self.kept_wills();
        }
        self.warm_up_nodes();
        let weights = self.deed_weights();
        let mut done = Done::default();
        let (end_ms, mean_ms, deeds_percent) = if self.is_micro() {
            let (least_ms, most_ms, rare_ms) =
                if self.is_quick() { (1_500, 7_000, 500) } else { (10_000, 45_000, 2_000) };
            let duration_ms = self.source.between(least_ms, most_ms);
            (self.at_ms + duration_ms, self.source.log(20, rare_ms), self.source.between(10, 50))
        } else {
            let duration_ms = self.source.between(60_000, 300_000);
            (self.at_ms + duration_ms, duration_ms / self.source.log(50, 400), self.source.between(5, 40))
        };
        self.faults_end_ms = end_ms;
        loop {
            self.at_ms += if self.source.percent(25) { 0 } else { self.source.log(1, 3 * mean_ms) };
            if !self.has_room(&done, 0) || self.at_ms >= end_ms {
                break;
            }
            if self.source.percent(deeds_percent) {
                self.deed(&weights, &mut done);
            } else {
                self.happen();
            }
        }
        let last_ms = self.scenario.steps.last().map_or(0, |step| step.at_ms);
        self.at_ms = self.at_ms.min(end_ms).max(last_ms);
        self.faults_end_ms = self.at_ms;
        self.mend(&mut done);
    }

    /// Nodes that do not find each other are told.
    fn meet(&mut self) {
        if self.scenario.cluster.discovery != Discovery::None {
            return;
        }
        let late_ms = self.scenario.node_specs.iter().map(|spec| spec.start_ms).max().unwrap_or(0);
        let most_ms = if self.is_quick() { 1_000 } else { 3_000 };
        self.at_ms = late_ms + self.source.log(100, most_ms);
        for node in 1..self.scenario.nodes {
            let to = self.source.below(node.into()) as u16;
            self.world(WorldAction::Join { node, to });
            self.at_ms += self.source.log(1, most_ms);
        }
    }

    /// Whether all that takes long takes less.
    pub(super) fn is_quick(&self) -> bool {
        self.scenario.cluster.pace_percent.is_some()
    }

    /// Most clients connect when the cluster is there, and some before.
    fn warm_up_nodes(&mut self) {
        // Before the cluster is there every node takes clients for itself, and nothing goes from one to another.
        if self.profile.family == Family::ClusterHop && self.source.percent(75) {
            self.at_ms += if self.is_quick() { 5_000 } else { 10_000 };
        }
        let begin_ms = self.at_ms;
        let span_ms = match (self.is_quick(), self.is_micro()) {
            (true, _) => self.source.log(500, 3_000),
            (false, true) => self.source.log(1_000, 8_000),
            (false, false) => WARM_UP_MS,
        };
        let count = self.clients.len() as u64;
        for client in 0..self.clients.len() {
            self.at_ms = begin_ms + span_ms * (client as u64 + 1) / count;
            if self.source.percent(10) {
                continue;
            }
            self.carry_out(Kind::Connect, client);
            if self.source.percent(75) {
                self.carry_out(Kind::Subscribe, client);
            }
        }
        self.at_ms += self.source.log(1, if self.is_quick() { 1_000 } else { 4_000 });
    }

    /// Each is on or off, and has a rate of its own.
    fn deed_weights(&mut self) -> Vec<u32> {
        let family = self.profile.family;
        let weight = |deed: &Deed| {
            let ends = matches!(
                deed,
                Deed::HealAll
                    | Deed::HealOne
                    | Deed::Fast
                    | Deed::Restart
                    | Deed::LagEnd
                    | Deed::DriftEnd
                    | Deed::DiskFast
            );
            let about = boost(family, *deed);
            let on = ends || about > 1 || self.source.percent(40);
            let rate = if ends { 4 } else { self.source.log(1, 16) as u32 };
            if on { deed.weight() * about * rate } else { 0 }
        };
        Deed::ALL.iter().map(weight).collect()
    }

    fn deed(&mut self, weights: &[u32], done: &mut Done) {
        self.at_node = self.source.below(self.scenario.nodes.into()) as u16;
        let possible = |deed: &Deed| self.may(*deed, done);
        let weights: Vec<u32> =
            Deed::ALL.iter().zip(weights).map(|(deed, weight)| if possible(deed) { *weight } else { 0 }).collect();
        let Some(deed) = self.source.weighted(weights.into_iter()).map(|at| Deed::ALL[at]) else { return };
        self.carry_out_deed(deed, done);
    }

    /// Whether a small scenario has room for so many steps more, and for what makes everything well.
    pub(super) fn has_room(&self, done: &Done, more: usize) -> bool {
        let cost = self.cost_of_making_well() + done.slow.len() + 6 + more;
        !self.is_micro() || self.scenario.steps.len() + cost <= STEPS_MAX_CLUSTER
    }

    /// Whether something can be done to the node that was chosen, or to the links.
    fn may(&self, deed: Deed, done: &Done) -> bool {
        let node = self.node();
        let nodes = self.scenario.nodes;
        let downs = self.nodes.iter().filter(|node| node.down).count();
        match deed {
            Deed::Isolate | Deed::OneWay | Deed::Single | Deed::Slow | Deed::Status | Deed::Flap => true,
            Deed::Split => nodes > 2,
            Deed::Bridge | Deed::Ring => nodes > 2,
            Deed::HealAll => !done.cut.is_empty() || done.flaps,
            Deed::HealOne => !done.cut.is_empty(),
            Deed::Fast => !done.slow.is_empty(),
            // Now and then all are down at one time.
            Deed::Crash | Deed::Shutdown => !node.down && downs + 1 < usize::from(nodes),
            Deed::LossAtAcks => {
                // All may be down afterwards, and each is started again.
                let has_room = self.has_room(done, 2 * usize::from(nodes));
                has_room && self.scenario.broker.durability.is_some() && self.publisher_here().is_some()
            }
            Deed::Pause => !node.down,
            Deed::Restart => node.down,
            // What is lost for good is less than a half.
            Deed::Wipe => done.wiped < (nodes - 1) / 2,
            Deed::NewAddress => self.scenario.cluster.discovery != Discovery::None,
            Deed::Join => done.left.contains(&self.at_node) && !node.down,
            Deed::Leave => !node.down && nodes > 2 && done.left.is_empty(),
            Deed::ForceLeave => nodes > 2 && !node.down,
            Deed::Write => !node.down,
            Deed::Lag => node.lagging.is_none() && self.scenario.shards > 1,
            Deed::LagEnd => node.lagging.is_some(),
            Deed::Drift => !node.drifting && !node.down,
            Deed::DriftEnd => node.drifting,
            Deed::DiskSlow => !node.slow,
            Deed::DiskFast => node.slow,
            Deed::Hop => self.hops() && self.hopper().is_some(),
            Deed::Together => self.hops() && self.has_same(),
            Deed::Storm => self.hops() && self.hopper().is_some() && self.has_room(done, 2 * STORM_MAX),
            Deed::HopAndBreak => self.hops() && self.hopper().is_some() && self.has_room(done, 4),
        }
    }

    fn carry_out_deed(&mut self, deed: Deed, done: &mut Done) {
        let node = self.at_node;
        let other = self.another(node);
        match deed {
            Deed::Isolate => self.world_and(WorldAction::Isolate { node }, done, |done| done.cut.push((node, node))),
            Deed::Split => self.split(done),
            Deed::Bridge => self.bridge(node, done),
            Deed::Ring => self.ring(done),
            Deed::OneWay => self.cut_link(node, other, done),
            Deed::Single => {
                self.cut_link(node, other, done);
                self.cut_link(other, node, done);
            }
            Deed::HealAll => {
                (done.cut, done.flaps) = (Vec::new(), false);
                self.world(WorldAction::HealLinks);
            }
            Deed::HealOne => {
                let at = self.source.below(done.cut.len() as u64) as usize;
                let (from, to) = done.cut.swap_remove(at);
                if from != to {
                    self.world(WorldAction::HealLink { from, to });
                } else {
                    (done.cut, done.flaps) = (Vec::new(), false);
                    self.world(WorldAction::HealLinks);
                }
            }
            Deed::Flap => self.flap(node, other, done),
            Deed::Slow => {
                let by_us = self.source.log(1_000, 1_000_000);
                let bytes_per_s = if self.source.coin() { self.source.log(16_000, 1_000_000) } else { 0 };
                done.slow.push((node, other));
                self.world(WorldAction::SlowLink { from: node, to: other, by_us, bytes_per_s });
            }
            Deed::Fast => {
                let at = self.source.below(done.slow.len() as u64) as usize;
                self.faster(done.slow.swap_remove(at));
            }
            Deed::Crash => {
                let power_loss = self.source.coin();
                self.crash(power_loss);
            }
            Deed::LossAtAcks => self.loss_at_acks(),
            Deed::Restart => self.restart(),
            Deed::Wipe => {
                done.wiped += 1;
                if !self.node().down {
                    self.crash(true);
                }
                self.world(WorldAction::Wipe { node });
            }
            Deed::Pause => self.pause(),
            Deed::Shutdown => self.shut_down(),
            Deed::NewAddress => self.world(WorldAction::NewAddress { node }),
            Deed::Join => {
                done.left.retain(|left| *left != node);
                self.world(WorldAction::Join { node, to: other });
            }
            Deed::Leave => self.world_and(WorldAction::Leave { node }, done, |done| done.left.push(node)),
            Deed::ForceLeave => self.world(WorldAction::ForceLeave { node, target: other }),
            Deed::Status => self.world(WorldAction::Status { node }),
            Deed::Write => {
                let key = self.source.below(2) as u8;
                self.world(WorldAction::Write { node, key });
            }
            Deed::Lag => self.lag(true),
            Deed::LagEnd => self.lag(false),
            Deed::Drift => self.slight_drift(),
            Deed::DriftEnd => self.drift(false),
            Deed::DiskSlow => self.disk_slow(true),
            Deed::DiskFast => self.disk_slow(false),
            Deed::Hop => self.hop_away(),
            Deed::Together => self.connect_together(),
            Deed::Storm => self.storm(),
            Deed::HopAndBreak => self.hop_and_break(done),
        }
    }

    pub(super) fn another(&mut self, node: u16) -> u16 {
        let others = u64::from(self.scenario.nodes) - 1;
        (node + 1 + self.source.below(others) as u16) % self.scenario.nodes
    }

    fn world_and(&mut self, action: WorldAction, done: &mut Done, note: impl FnOnce(&mut Done)) {
        note(done);
        self.push(Action::World(action));
    }

    pub(super) fn cut_link(&mut self, from: u16, to: u16, done: &mut Done) {
        self.world_and(WorldAction::CutLink { from, to }, done, |done| done.cut.push((from, to)));
    }

    /// Two or three parts.
    fn split(&mut self, done: &mut Done) {
        let parts = if self.scenario.nodes > 2 && self.source.percent(25) { 3 } else { 2 };
        let mut groups = vec![Vec::new(); parts];
        for node in 0..self.scenario.nodes {
            groups[self.source.below(parts as u64) as usize].push(node);
        }
        groups.retain(|group| !group.is_empty());
        if groups.len() > 1 {
            self.world_and(WorldAction::Partition { groups }, done, |done| done.cut.push((0, 0)));
        }
    }

    /// Two parts, and one node that both see.
    fn bridge(&mut self, bridge: u16, done: &mut Done) {
        let mut groups = vec![vec![bridge], vec![bridge]];
        let mut side = self.source.below(2) as usize;
        for node in (0..self.scenario.nodes).filter(|node| *node != bridge) {
            groups[side].push(node);
            side = 1 - side;
        }
        self.world_and(WorldAction::Partition { groups }, done, |done| done.cut.push((0, 0)));
    }

    /// Each node sees its two neighbours alone.
    fn ring(&mut self, done: &mut Done) {
        let nodes = self.scenario.nodes;
        let groups = (0..nodes).map(|node| vec![node, (node + 1) % nodes]).collect();
        self.world_and(WorldAction::Partition { groups }, done, |done| done.cut.push((0, 0)));
    }

    fn flap(&mut self, from: u16, to: u16, done: &mut Done) {
        let (down_max_ms, up_max_ms) = if self.is_quick() { (3_000, 1_500) } else { (12_000, 5_000) };
        let (down_ms, up_ms) = (self.source.log(100, down_max_ms), self.source.log(100, up_max_ms));
        let rest_ms = self.faults_end_ms.saturating_sub(self.at_ms);
        let count = self.source.log(1, 20).min((rest_ms / (down_ms + up_ms)).max(1)) as u32;
        self.busy_until_ms = self.busy_until_ms.max(self.at_ms + u64::from(count) * (down_ms + up_ms));
        let flap = WorldAction::Flap { from, to, down_ms, up_ms, count };
        self.world_and(flap, done, |done| done.flaps = true);
    }

    fn publisher_here(&self) -> Option<usize> {
        let is_here = |client: &usize| self.clients[*client].node == self.at_node;
        (0..self.clients.len()).filter(is_here).find(|client| self.is_possible(Kind::Row, *client))
    }

    /// A row of publishes, and in its midst the power goes: here or everywhere.
    fn loss_at_acks(&mut self) {
        let Some(client) = self.publisher_here() else { return };
        let count = self.source.log(5, 30) as u32;
        let every_us = self.source.log(500, 10_000);
        let qos = *self.source.pick(&[QoS::AtLeastOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
        let row = PublishSpec { qos, count, every_us, retain: false, expiry_s: 0, ..self.message() };
        self.act(client, Act::Publish(row));
        self.at_ms += self.source.log(2, u64::from(count) * every_us / 1_000 + 50);
        if self.source.coin() {
            return self.crash(true);
        }
        for node in 0..self.scenario.nodes {
            self.at_node = node;
            if !self.node().down {
                self.crash(true);
            }
        }
    }

    fn faster(&mut self, (from, to): (u16, u16)) {
        self.world(WorldAction::SlowLink { from, to, by_us: 0, bytes_per_s: 0 });
    }

    /// Of a cluster's clocks no more is allowed than 1 %.
    fn slight_drift(&mut self) {
        self.node_mut().drifting = true;
        let ppm = self.source.log(100, 10_000) as i32;
        let ppm = if self.source.coin() { -ppm } else { ppm };
        let node = self.at_node;
        self.world(WorldAction::Drift { node, ppm });
    }

    /// Links and nodes work again. Who has left may stay away.
    fn mend(&mut self, done: &mut Done) {
        if !done.cut.is_empty() || done.flaps {
            self.world(WorldAction::HealLinks);
        }
        for slow in core::mem::take(&mut done.slow) {
            self.faster(slow);
        }
    }
}

/// What a family is about happens so many times as often.
const fn boost(family: Family, deed: Deed) -> u32 {
    match (family, deed) {
        (
            Family::ClusterPartition,
            Deed::Isolate | Deed::Split | Deed::Bridge | Deed::Ring | Deed::OneWay | Deed::Single | Deed::Flap,
        ) => 4,
        (Family::ClusterPartition, Deed::HealAll | Deed::HealOne) => 3,
        (Family::ClusterCrash, Deed::Crash | Deed::LossAtAcks | Deed::Pause | Deed::Wipe | Deed::Shutdown) => 5,
        (Family::ClusterCrash, Deed::Restart) => 3,
        (Family::ClusterMember, Deed::Join | Deed::Leave | Deed::ForceLeave | Deed::NewAddress | Deed::Wipe) => 6,
        (Family::ClusterMember, Deed::Restart | Deed::Crash) => 2,
        (Family::ClusterLoad, Deed::Slow | Deed::Pause | Deed::Lag) => 4,
        (Family::ClusterHop, Deed::Hop | Deed::Together | Deed::Storm | Deed::HopAndBreak) => 5,
        (Family::ClusterHop, Deed::HealAll | Deed::HealOne | Deed::Restart) => 2,
        _ => 1,
    }
}
