//! What nodes that are a cluster can do in the kernel tier alone. A file for madsim that wants it is refused.

use super::{Act, Action, ClusterSpec, Discovery, Driver, DurabilitySpec, Scenario, Step, WorldAction};

impl Scenario {
    /// What the scenario wants of its tier that it cannot do, in words.
    pub(super) fn beyond_its_tier(&self) -> Vec<String> {
        if self.driver != Driver::Madsim {
            return Vec::new();
        }
        let mut beyond = Vec::new();
        if self.has_sn() {
            beyond.push("client.sn: there are no gateways for MQTT-SN".to_owned());
        }
        if !self.is_cluster() {
            return beyond;
        }
        if self.broker.durability.is_some_and(|durability| durability != DurabilitySpec::Memory) {
            beyond.push("broker.durability: nodes have no store".to_owned());
        }
        if self.cluster.discovery == Discovery::Dns {
            beyond.push("cluster.discovery = \"dns\": there are no names".to_owned());
        }
        if self.cluster != configurable(self.cluster) {
            let keys =
                "cluster: of its keys only discovery, barrier, owner_down and autoclean_s are keys of a configuration";
            beyond.push(keys.to_owned());
        }
        if self.node_specs.iter().any(|spec| spec.later > 0) {
            beyond.push("node.later: there is this program alone".to_owned());
        }
        for step in self.steps.iter().filter(|step| !is_possible(step)) {
            beyond.push(format!(
                "the step at {} ms: what it does to a clock, a queue, a disk, an address or a program",
                step.at_ms
            ));
        }
        beyond
    }

    /// Leaves out what cannot be done in madsim. Clients of MQTT-SN become clients of MQTT.
    pub fn fit_madsim(&mut self) {
        self.driver = Driver::Madsim;
        self.broker.durability = None;
        for client in &mut self.clients {
            (client.sn, client.forwarder) = (false, None);
        }
        for step in &mut self.steps {
            if let Action::Client { act: Act::Connect { node, .. }, .. } = &mut step.action {
                *node = None;
            }
        }
        if self.is_cluster() {
            self.cluster = configurable(self.cluster);
            self.steps.retain(is_possible);
            self.node_specs.iter_mut().for_each(|spec| spec.later = 0);
        }
    }
}

fn configurable(cluster: ClusterSpec) -> ClusterSpec {
    let ClusterSpec { discovery, barrier, autoclean_s, fresh, .. } = cluster;
    let discovery = if discovery == Discovery::Dns { Discovery::Seeds } else { discovery };
    ClusterSpec { discovery, barrier, autoclean_s, fresh, ..ClusterSpec::default() }
}

fn is_possible(step: &Step) -> bool {
    !matches!(
        step.action,
        Action::World(
            WorldAction::ClockJump { .. }
                | WorldAction::Drift { .. }
                | WorldAction::Lag { .. }
                | WorldAction::DiskFull { .. }
                | WorldAction::DiskFails { .. }
                | WorldAction::DiskRot { .. }
                | WorldAction::NewAddress { .. }
                | WorldAction::Upgrade { .. }
        )
    )
}
