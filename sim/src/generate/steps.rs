//! The steps of a scenario: who comes first, what happens then, and how everything is made well again. It follows what
//! each step does to whom, so that the next one is possible.

mod cluster;
mod hops;
mod kind;
mod plots;
mod readings;
mod sn;
mod trials;
mod wills;
mod world;

use newtmq_mqtt::{ProtocolVersion, RetainHandling};

use self::kind::Kind;
use super::clients::qos;
use super::topics::Topics;
use super::world::Features;
use super::{Family, Profile, STEPS_MAX_MICRO, Size, Source, wire};
use crate::history::{AckKind, ClientIx};
use crate::scenario::{Acks, Act, Action, ClientSpec, FilterSpec, PublishSpec, Scenario, Step};

pub(super) fn draw(
    profile: Profile,
    features: &Features,
    topics: &Topics,
    source: &mut Source,
    scenario: &mut Scenario,
) {
    let mut steps = Steps {
        profile,
        features,
        topics,
        source,
        clients: scenario.clients.iter().map(Tracked::new).collect(),
        nodes: vec![Node::default(); usize::from(scenario.nodes)],
        scenario,
        at_node: 0,
        weights: [0; Kind::ALL.len()],
        at_ms: 0,
        busy_until_ms: 0,
        faults_end_ms: 0,
    };
    steps.weights = kind::weights(profile.family, steps.source);
    if profile.family.is_sn() {
        steps.sn();
    } else if profile.family.is_cluster() {
        steps.cluster();
    } else if profile.family == Family::Corners {
        steps.plot();
        // Half of them are left as they are.
        if !steps.is_micro() || steps.source.coin() {
            steps.happenings();
        }
    } else if profile.family == Family::Durable && steps.clients.len() > 1 && steps.source.coin() {
        steps.trials();
        if !steps.is_micro() {
            steps.happenings();
        }
    } else {
        steps.warm_up();
        steps.happenings();
    }
    steps.make_well();
    if profile.family.is_cluster() {
        steps.read_at_last();
    }
}

/// What the steps so far did to a client.
#[derive(Debug)]
struct Tracked {
    id: String,
    version: ProtocolVersion,
    /// Where it connected last, or is to at first.
    node: u16,
    up: bool,
    asleep: bool,
    reading: bool,
    acking: bool,
    cut: bool,
    slow: bool,
    /// Filters it may be subscribed to.
    filters: Vec<String>,
}

impl Tracked {
    fn new(spec: &ClientSpec) -> Tracked {
        Tracked {
            id: spec.id.clone(),
            // MQTT-SN has none of what is new in MQTT 5.0.
            version: if spec.sn { ProtocolVersion::V31 } else { spec.version },
            node: spec.node,
            up: false,
            asleep: false,
            reading: true,
            acking: true,
            cut: false,
            slow: false,
            filters: Vec::new(),
        }
    }

    /// How many steps make it well.
    fn ills(&self) -> usize {
        [self.asleep, !self.reading, !self.acking, self.cut, self.slow].into_iter().filter(|ill| *ill).count()
    }
}

/// What the steps so far did to a node.
#[derive(Debug, Clone, Default)]
struct Node {
    down: bool,
    lagging: Option<u16>,
    drifting: bool,
    short: bool,
    full: bool,
    slow: bool,
    failed: bool,
}

struct Steps<'a> {
    profile: Profile,
    features: &'a Features,
    topics: &'a Topics,
    source: &'a mut Source,
    scenario: &'a mut Scenario,
    clients: Vec<Tracked>,
    nodes: Vec<Node>,
    /// What is done to a node is done to this one.
    at_node: u16,
    /// By [`Kind`].
    weights: [u32; Kind::ALL.len()],
    at_ms: u64,
    /// End of the last row of publishes and of the last pause.
    busy_until_ms: u64,
    faults_end_ms: u64,
}

impl Steps<'_> {
    fn push(&mut self, action: Action) {
        self.scenario.steps.push(Step { at_ms: self.at_ms, action });
    }

    fn act(&mut self, client: usize, act: Act) {
        self.push(Action::Client { client: ClientIx(client as u32), act });
    }

    fn node(&self) -> &Node {
        &self.nodes[usize::from(self.at_node)]
    }

    fn node_mut(&mut self) -> &mut Node {
        &mut self.nodes[usize::from(self.at_node)]
    }

    fn is_micro(&self) -> bool {
        self.profile.size == Size::Micro
    }

    /// Most clients connect, and those that are to receive subscribe.
    fn warm_up(&mut self) {
        let warm_up_ms = if self.is_micro() { 200 } else { WARM_UP_MS };
        let count = self.clients.len() as u64;
        for client in 0..self.clients.len() {
            self.at_ms = warm_up_ms * client as u64 / count;
            if self.is_micro() && self.source.percent(15) {
                continue;
            }
            self.carry_out(Kind::Connect, client);
            let receives = match self.profile.family {
                Family::FanIn => client == 0 || client == 1 && count > 4,
                Family::FanOut => client > 0,
                Family::Mixed
                | Family::PubSub
                | Family::Shared
                | Family::Retained
                | Family::Wills
                | Family::Hoppers
                | Family::Collisions
                | Family::Limits
                | Family::Takeover
                | Family::Durable
                | Family::Misbehaving
                | Family::Corners
                | Family::ClusterPartition
                | Family::ClusterCrash
                | Family::ClusterMember
                | Family::ClusterLoad
                | Family::ClusterHop
                | Family::Sn
                | Family::SnCluster => self.source.percent(70),
            };
            if receives {
                self.carry_out(Kind::Subscribe, client);
            }
        }
        self.at_ms = warm_up_ms;
    }

    fn happenings(&mut self) {
        let (mean_ms, most) = if self.is_micro() {
            (self.source.log(1, 1_000), STEPS_MAX_MICRO)
        } else {
            let duration_ms = self.source.between(60_000, 300_000);
            let count = self.source.log(50, 400);
            self.faults_end_ms = self.at_ms + duration_ms;
            (duration_ms / count, usize::MAX)
        };
        loop {
            self.at_ms += if self.source.percent(25) { 0 } else { self.source.log(1, 3 * mean_ms) };
            let full = self.is_micro() && self.scenario.steps.len() + 2 + self.cost_of_making_well() > most;
            if full || !self.is_micro() && self.at_ms >= self.faults_end_ms {
                return;
            }
            // A micro scenario may be shorter than it could.
            if self.is_micro() && self.source.percent(3) {
                return;
            }
            self.happen();
        }
    }

    /// One thing that is possible. There always is one: somebody publishes or somebody can connect.
    fn happen(&mut self) {
        let weights: Vec<u32> = Kind::ALL
            .iter()
            .map(|kind| {
                if (0..self.clients.len()).any(|client| self.is_possible(*kind, client)) {
                    self.weights[*kind as usize]
                } else {
                    0
                }
            })
            .collect();
        let Some(kind) = self.source.weighted(weights.into_iter()).map(|index| Kind::ALL[index]) else { return };
        let possible: Vec<usize> = (0..self.clients.len()).filter(|client| self.is_possible(kind, *client)).collect();
        let client = *self.source.pick(&possible);
        self.carry_out(kind, client);
    }

    /// Whether something can be done to this client, or to its node.
    fn is_possible(&self, kind: Kind, client: usize) -> bool {
        let of = &self.clients[client];
        let node = &self.nodes[usize::from(of.node)];
        let works = of.up && !of.asleep;
        let stores = self.scenario.broker.durability.is_some();
        let fan_out = self.profile.family == Family::FanOut;
        let fan_in = self.profile.family == Family::FanIn;
        let publishes = if fan_out { client < 2 } else { client > 0 || !fan_in };
        match kind {
            Kind::Connect => {
                !of.up && !of.asleep && (!node.down || self.hops() && self.nodes.iter().any(|node| !node.down))
            }
            Kind::Publish | Kind::Row | Kind::Burst => works && publishes,
            Kind::Unsubscribe => works && !of.filters.is_empty(),
            Kind::Disconnect | Kind::HangUp | Kind::Subscribe | Kind::Torn | Kind::Ping | Kind::Stray | Kind::Raw => {
                works
            }
            Kind::Again => works && (self.profile.family == Family::Misbehaving || of.version != ProtocolVersion::V5),
            Kind::Reset | Kind::Vanish => of.up,
            Kind::AcksNever => of.acking && !of.asleep,
            Kind::AcksAuto => !of.acking && !of.asleep,
            Kind::ReadOff => works && of.reading,
            Kind::ReadOn => !of.reading && !of.asleep,
            Kind::Freeze => works,
            Kind::Thaw => of.asleep,
            Kind::Cut => of.up && !of.cut,
            Kind::Heal => of.cut,
            Kind::Bandwidth => !of.slow,
            Kind::Faster => of.slow,
            Kind::Pause | Kind::Jump => !node.down,
            Kind::Drift => !node.drifting && !node.down,
            Kind::Lag => node.lagging.is_none() && self.scenario.shards > 1,
            Kind::LagEnd => node.lagging.is_some(),
            Kind::Crash | Kind::Shutdown => !node.down,
            Kind::Restart => node.down,
            Kind::Pressure => !node.short && !node.down,
            Kind::PressureEnd => node.short,
            Kind::PowerLoss => stores && !node.down,
            Kind::Probe => stores && !node.down && works && publishes,
            Kind::DiskFull => stores && !node.full && !node.down,
            Kind::DiskRoom => node.full,
            Kind::DiskSlow => stores && !node.slow,
            Kind::DiskFast => node.slow,
            Kind::DiskFails => stores && !node.failed && !node.down,
            Kind::DiskRot => stores,
        }
    }

    fn carry_out(&mut self, kind: Kind, client: usize) {
        self.at_node = self.clients[client].node;
        self.carry_out_here(kind, client);
    }

    fn carry_out_here(&mut self, kind: Kind, client: usize) {
        let act = match kind {
            Kind::Connect => return self.connect(client),
            Kind::Disconnect => self.disconnect(client),
            Kind::Subscribe => self.subscribe(client),
            Kind::Unsubscribe => {
                let at = self.source.below(self.clients[client].filters.len() as u64) as usize;
                Act::Unsubscribe { filters: vec![self.clients[client].filters.swap_remove(at)] }
            }
            Kind::Publish => Act::Publish(self.message()),
            Kind::Burst => {
                let count = self.source.log(2, if self.is_micro() { 30 } else { 200 }) as u32;
                Act::Publish(PublishSpec { count, ..self.message() })
            }
            Kind::Row => Act::Publish(self.row()),
            Kind::Torn => Act::PublishTorn { publish: self.message(), keep: self.source.log(1, 64) as u32 },
            Kind::Again => Act::PublishAgain,
            Kind::Ping => Act::Ping,
            Kind::Stray => self.stray(),
            Kind::Raw => Act::Raw(wire::draw(self.clients[client].version, self.source)),
            Kind::Reset => Act::Reset,
            Kind::Vanish => Act::Vanish,
            Kind::AcksNever => Act::SetAcks(Acks::Never),
            Kind::AcksAuto => Act::SetAcks(Acks::Auto),
            Kind::ReadOff => Act::SetReading(false),
            Kind::ReadOn => Act::SetReading(true),
            Kind::Freeze => Act::Freeze(true),
            Kind::Thaw => Act::Freeze(false),
            Kind::HangUp => Act::HangUp,
            Kind::Cut => return self.cut(client),
            Kind::Heal => return self.heal(client),
            Kind::Bandwidth => return self.bandwidth(client, true),
            Kind::Faster => return self.bandwidth(client, false),
            Kind::Pause => return self.pause(),
            Kind::Jump => return self.jump(),
            Kind::Drift => return self.drift(true),
            Kind::Lag => return self.lag(true),
            Kind::LagEnd => return self.lag(false),
            Kind::Crash => return self.crash(false),
            Kind::PowerLoss => return self.crash(true),
            Kind::Probe => return self.probe(client),
            Kind::DiskFull => return self.disk_full(true),
            Kind::DiskRoom => return self.disk_full(false),
            Kind::DiskSlow => return self.disk_slow(true),
            Kind::DiskFast => return self.disk_slow(false),
            Kind::DiskFails => return self.disk_fails(),
            Kind::DiskRot => return self.disk_rot(),
            Kind::Shutdown => return self.shut_down(),
            Kind::Restart => return self.restart(),
            Kind::Pressure => return self.pressure(true),
            Kind::PressureEnd => return self.pressure(false),
        };
        self.note(client, &act);
        self.act(client, act);
    }

    /// What a step does to its client.
    fn note(&mut self, client: usize, act: &Act) {
        let of = &mut self.clients[client];
        match act {
            Act::SetAcks(acks) => of.acking = *acks == Acks::Auto,
            Act::SetReading(on) => of.reading = *on,
            Act::Freeze(on) => of.asleep = *on,
            Act::Disconnect { .. } | Act::HangUp | Act::Reset | Act::Vanish | Act::PublishTorn { .. } | Act::Raw(_) => {
                of.up = false
            }
            Act::Connect { .. }
            | Act::Subscribe { .. }
            | Act::Unsubscribe { .. }
            | Act::Publish(_)
            | Act::PublishAgain
            | Act::Ping
            | Act::Sleep { .. }
            | Act::Wake { .. }
            | Act::Rebind { .. }
            | Act::SetWill(_)
            | Act::PublishUnconnected(_)
            | Act::Search
            | Act::StrayAck { .. } => {}
        }
    }

    /// Whoever had the same Client Identifier is taken over.
    fn connect(&mut self, client: usize) {
        let node = self.hop(client);
        self.connect_at(client, node);
    }

    fn connect_at(&mut self, client: usize, node: Option<u16>) {
        let id = self.clients[client].id.clone();
        for other in self.clients.iter_mut().filter(|other| other.id == id) {
            other.up = false;
        }
        self.clients[client].up = true;
        let clean = self.source.percent(10).then(|| self.source.coin());
        let expires = self.features.expiry && self.source.percent(10);
        let session_expiry_s = expires.then(|| if self.source.coin() { self.source.log(1, 60) as u32 } else { 0 });
        self.act(client, Act::Connect { clean, session_expiry_s, node });
    }

    fn disconnect(&mut self, client: usize) -> Act {
        let v5 = self.clients[client].version == ProtocolVersion::V5;
        let session_expiry_s = (v5 && self.source.percent(20)).then(|| self.source.below(10) as u32);
        Act::Disconnect { with_will: v5 && self.source.percent(30), session_expiry_s }
    }

    fn subscribe(&mut self, client: usize) -> Act {
        let count = if self.source.percent(20) { self.source.between(2, 3) } else { 1 };
        let v5 = self.clients[client].version == ProtocolVersion::V5;
        let fan = matches!(self.profile.family, Family::FanIn | Family::FanOut);
        let mut filters = Vec::new();
        for _ in 0..count {
            let plain = if fan { &self.topics.filters[0] } else { self.source.pick(&self.topics.filters) };
            let shared = self.source.percent(self.features.shared_percent);
            let filter = if shared { self.topics.shared(plain, self.source) } else { plain.clone() };
            let mut spec = FilterSpec::new(filter.clone(), qos(self.features, self.source));
            if v5 && self.features.options {
                spec.no_local = !shared && self.source.percent(20);
                spec.retain_as_published = self.source.percent(30);
                let handling = [RetainHandling::SendAtSubscribe, RetainHandling::SendIfNew, RetainHandling::DoNotSend];
                spec.retain_handling = *self.source.pick(&handling);
            }
            let known = &mut self.clients[client].filters;
            if !known.contains(&filter) {
                known.push(filter.clone());
            }
            if !filters.iter().any(|other: &FilterSpec| other.filter == filter) {
                filters.push(spec);
            }
        }
        let numbered = v5 && self.features.options && self.source.percent(30);
        Act::Subscribe { filters, subscription_id: if numbered { self.source.log(1, 300) as u32 } else { 0 } }
    }

    fn message(&mut self) -> PublishSpec {
        let retain = self.source.percent(self.features.retain_percent);
        let size = if self.source.percent(if retain { 20 } else { 2 }) {
            0
        } else if self.features.large && self.source.percent(10) {
            self.source.log(64, 8_192) as u32
        } else if self.source.percent(10) {
            // Around the lengths at which a Remaining Length has one byte more.
            self.source.between(64, 300) as u32
        } else {
            self.source.between(16, 64) as u32
        };
        let expires = self.features.expiry && self.source.percent(20);
        PublishSpec {
            topic: self.source.pick(&self.topics.names).clone(),
            qos: qos(self.features, self.source),
            retain,
            size,
            expiry_s: if expires { self.source.log(1, 10) as u32 } else { 0 },
            alias: if self.features.aliases && self.source.percent(30) { self.source.between(1, 3) as u16 } else { 0 },
            count: 1,
            every_us: 0,
        }
    }

    /// Ends before the faults do.
    fn row(&mut self) -> PublishSpec {
        let mut row = PublishSpec { size: self.source.between(16, 64) as u32, ..self.message() };
        if self.is_micro() {
            row.count = self.source.log(2, 20) as u32;
            row.every_us = self.source.log(100, 100_000);
        } else {
            let slow = if self.profile.family == Family::FanOut { 50_000 } else { 5_000 };
            row.every_us = self.source.log(slow, 1_000_000);
            let duration_us = self.source.log(5_000, 60_000) * 1_000;
            let rest_us = self.faults_end_ms.saturating_sub(self.at_ms) * 1_000;
            row.count = (duration_us.min(rest_us) / row.every_us).max(1) as u32;
        }
        let end_ms = self.at_ms + u64::from(row.count) * row.every_us / 1_000 + 1;
        self.busy_until_ms = self.busy_until_ms.max(end_ms);
        row
    }

    fn stray(&mut self) -> Act {
        let kinds = [AckKind::Puback, AckKind::Pubrec, AckKind::Pubrel, AckKind::Pubcomp];
        Act::StrayAck { kind: *self.source.pick(&kinds), pid: self.source.log(1, 65_535) as u16 }
    }

    /// How many steps it takes at most.
    fn cost_of_making_well(&self) -> usize {
        let of_node = |node: &Node| {
            let ills =
                [node.down, node.drifting, node.lagging.is_some(), node.short, node.full, node.slow, node.failed];
            ills.into_iter().filter(|ill| *ill).count()
        };
        let node: usize = self.nodes.iter().map(of_node).sum();
        let clients: usize = self.clients.iter().map(Tracked::ills).sum();
        node + clients + self.clients.len()
    }

    /// All faults end, and everybody that has a session comes back to read what it missed.
    fn make_well(&mut self) {
        self.at_ms = self.at_ms.max(self.busy_until_ms).max(self.faults_end_ms) + 10;
        for node in 0..self.scenario.nodes {
            self.at_node = node;
            self.make_node_well();
        }
        for client in 0..self.clients.len() {
            let of = &self.clients[client];
            let ills = [
                (of.cut, Kind::Heal),
                (of.slow, Kind::Faster),
                (of.asleep, Kind::Thaw),
                (!of.reading, Kind::ReadOn),
                (!of.acking, Kind::AcksAuto),
            ];
            for (_, kind) in ills.into_iter().filter(|(ill, _)| *ill) {
                self.carry_out(kind, client);
            }
        }
        self.come_back();
    }

    fn make_node_well(&mut self) {
        if self.node().failed && !self.node().down {
            self.carry_out_here(Kind::Crash, 0);
        }
        let node = self.node();
        let ills = [
            (node.full, Kind::DiskRoom),
            (node.slow, Kind::DiskFast),
            (node.down, Kind::Restart),
            (node.lagging.is_some(), Kind::LagEnd),
            (node.short, Kind::PressureEnd),
        ];
        for (_, kind) in ills.into_iter().filter(|(ill, _)| *ill) {
            self.carry_out_here(kind, 0);
        }
        if self.node().drifting {
            self.drift(false);
        }
    }

    /// Of those with one Client Identifier the one that is there, else the last.
    fn come_back(&mut self) {
        self.at_ms += if self.is_micro() { 100 } else { 1_000 };
        let count = self.clients.len();
        for client in 0..count {
            self.at_ms += if self.is_micro() { 0 } else { 10 };
            let id = &self.clients[client].id;
            let same: Vec<usize> = (0..count).filter(|other| self.clients[*other].id == *id).collect();
            let chosen = same.iter().rev().find(|other| self.clients[**other].up).or(same.last());
            let has_session = !self.scenario.clients[client].clean || self.scenario.clients[client].reconnect.is_some();
            if chosen == Some(&client) && has_session {
                let node = self.hop(client);
                self.act(client, Act::Connect { clean: Some(false), session_expiry_s: None, node });
            }
        }
    }
}

/// The node has this long to take all clients in before anything goes wrong.
const WARM_UP_MS: u64 = 10_000;
