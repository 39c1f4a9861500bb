//! Steps of clients of MQTT-SN, and of clients of MQTT that publish to them and hear from them: sleep and its breaks, other
//! addresses and other nodes, wills that change; and nodes that crash, pause and are cut off.

use super::kind::Kind;
use super::{Steps, WARM_UP_MS};
use crate::generate::{STEPS_MAX_CLUSTER, STEPS_MAX_MICRO};
use crate::scenario::{Act, Action, PublishSpec, WillSpec, WorldAction};

macro_rules! deeds {
    ($($variant:ident $weight:literal,)*) => {
        /// What a client of MQTT-SN does.
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

deeds! {
    Publish 40,
    Row 5,
    Subscribe 8,
    Unsubscribe 3,
    Sleep 10,
    Wake 10,
    Rebind 4,
    Vanish 3,
    Connect 6,
    Disconnect 2,
    Ping 2,
    Will 4,
    Unconnected 5,
    Search 1,
    Raw 1,
    Freeze 2,
    Cut 2,
}

/// Choices of a small scenario.
const TURNS_MAX: u32 = 200;

/// What clients of MQTT do meanwhile.
const OF_MQTT: &[Kind] = &[
    Kind::Connect,
    Kind::Publish,
    Kind::Row,
    Kind::Burst,
    Kind::Subscribe,
    Kind::Unsubscribe,
    Kind::Disconnect,
    Kind::HangUp,
    Kind::Reset,
    Kind::Vanish,
    Kind::Ping,
];

impl Steps<'_> {
    pub(super) fn sn(&mut self) {
        let several = self.scenario.nodes > 1;
        let begin_ms = if several { WARM_UP_MS } else { 0 };
        let count = self.clients.len() as u64;
        for client in 0..self.clients.len() {
            self.at_ms = begin_ms + 200 * client as u64 / count;
            self.carry_out(Kind::Connect, client);
            if self.source.percent(70) {
                self.carry_out(Kind::Subscribe, client);
            }
        }
        self.at_ms = begin_ms + 200;
        let most = if several { STEPS_MAX_CLUSTER } else { STEPS_MAX_MICRO };
        let mean_ms = if self.is_micro() {
            self.source.log(100, 3_000)
        } else {
            let duration_ms = self.source.between(60_000, 300_000);
            self.faults_end_ms = self.at_ms + duration_ms;
            duration_ms / self.source.log(50, 400)
        };
        let node_percent = if several { 12 } else { 4 };
        // Now and then nothing is possible.
        for turn in 0.. {
            self.at_ms += if self.source.percent(15) { 0 } else { self.source.log(1, 3 * mean_ms) };
            let full = self.is_micro() && self.scenario.steps.len() + 4 + self.cost_of_making_well() > most;
            let enough = self.is_micro() && (turn >= TURNS_MAX || self.source.percent(3));
            if full || enough || !self.is_micro() && self.at_ms >= self.faults_end_ms {
                break;
            }
            if self.source.percent(node_percent) {
                self.trouble_a_node(several);
                continue;
            }
            let client = self.source.below(count) as usize;
            if self.scenario.clients[client].sn {
                self.sn_deed(client);
            } else {
                self.happen_to(client);
            }
        }
        if several {
            self.world(WorldAction::HealLinks);
        }
    }

    fn happen_to(&mut self, client: usize) {
        let weight = |kind: &Kind| if self.is_possible(*kind, client) { self.weights[*kind as usize] } else { 0 };
        let weights: Vec<u32> = OF_MQTT.iter().map(weight).collect();
        if let Some(at) = self.source.weighted(weights.into_iter()) {
            self.carry_out(OF_MQTT[at], client);
        }
    }

    fn sn_deed(&mut self, client: usize) {
        let of = &self.clients[client];
        if of.asleep {
            return self.carry_out(Kind::Thaw, client);
        }
        if of.cut && self.source.coin() {
            return self.carry_out(Kind::Heal, client);
        }
        let up = of.up;
        #[allow(clippy::wildcard_enum_match_arm)] // most deeds are possible while it is connected
        let weight = |deed: &Deed| match deed {
            Deed::Connect if !up => 60,
            Deed::Connect | Deed::Unconnected | Deed::Search => deed.weight(),
            Deed::Unsubscribe if self.clients[client].filters.is_empty() => 0,
            Deed::Cut if self.clients[client].cut => 0,
            // What it does then is its own affair, which takes the sharpness from much else.
            Deed::Raw if self.weights[Kind::Raw as usize] == 0 => 0,
            _ if !up => 0,
            _ => deed.weight(),
        };
        let weights: Vec<u32> = Deed::ALL.iter().map(weight).collect();
        let Some(at) = self.source.weighted(weights.into_iter()) else { return };
        let act = match Deed::ALL[at] {
            Deed::Publish => Act::Publish(self.message()),
            Deed::Row => {
                let count = self.source.log(2, 6) as u32;
                let row = PublishSpec { count, every_us: self.source.log(100_000, 2_000_000), ..self.message() };
                self.busy_until_ms = self.busy_until_ms.max(self.at_ms + u64::from(count) * row.every_us / 1_000 + 1);
                Act::Publish(row)
            }
            Deed::Subscribe => return self.carry_out(Kind::Subscribe, client),
            Deed::Unsubscribe => return self.carry_out(Kind::Unsubscribe, client),
            Deed::Sleep => Act::Sleep { duration_s: self.source.log(2, 60) as u16, wakes: self.source.percent(80) },
            Deed::Wake => Act::Wake { node: self.other_node() },
            Deed::Rebind => Act::Rebind { of: None },
            Deed::Vanish => return self.carry_out(Kind::Vanish, client),
            Deed::Connect => {
                self.clients[client].up = true;
                let clean = self.source.percent(30).then(|| self.source.coin());
                Act::Connect { clean, session_expiry_s: None, node: self.other_node() }
            }
            Deed::Disconnect => return self.carry_out(Kind::Disconnect, client),
            Deed::Ping => Act::Ping,
            Deed::Will => Act::SetWill(self.other_will(client)),
            Deed::Unconnected => Act::PublishUnconnected(self.message()),
            Deed::Search => Act::Search,
            Deed::Raw => Act::Raw((0..self.source.log(1, 12)).map(|_| self.source.below(256) as u8).collect()),
            Deed::Freeze => return self.carry_out(Kind::Freeze, client),
            Deed::Cut => return self.cut(client),
        };
        self.act(client, act);
    }

    /// The will that it has with another payload, or none.
    fn other_will(&mut self, client: usize) -> Option<WillSpec> {
        let own = self.scenario.clients[client].will.clone();
        own.filter(|_| self.source.percent(70))
    }

    fn other_node(&mut self) -> Option<u16> {
        let several = self.scenario.nodes > 1 && self.source.percent(40);
        let node = self.source.below(self.scenario.nodes.into()) as u16;
        (several && !self.scenario.node_spec(node).witness).then_some(node)
    }

    fn trouble_a_node(&mut self, several: bool) {
        let node = self.source.below(self.scenario.nodes.into()) as u16;
        self.at_node = node;
        if self.node().down {
            return self.carry_out_here(Kind::Restart, 0);
        }
        let stores = self.scenario.broker.durability.is_some();
        match self.source.below(if several { 6 } else { 3 }) {
            0 => self.carry_out_here(Kind::Pause, 0),
            1 if stores || self.source.percent(20) => self.carry_out_here(Kind::Crash, 0),
            2 if stores => self.carry_out_here(Kind::PowerLoss, 0),
            3 => self.world(WorldAction::Isolate { node }),
            4 | 5 => self.push(Action::World(WorldAction::HealLinks)),
            _ => {}
        }
    }
}
