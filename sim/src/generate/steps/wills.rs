//! A cluster that keeps wills, and a node that goes with a client that has one, while nothing else is in the way: so it is known
//! who has to get it, and how often.

use newtmq_mqtt::QoS;

use super::Steps;
use crate::scenario::{Act, FilterSpec, WillSpec};

/// A node is a member by then, and links are open.
const WHOLE_MS: u64 = 6_000;
/// A will is surely kept.
const KEPT_MS: u64 = 8_000;

impl Steps<'_> {
    /// Whether the scenario is about this. It takes the place of everything else.
    pub(super) fn is_of_kept_wills(&mut self) -> bool {
        let keeps = self.scenario.broker.will_ha == Some(true) && self.clients.len() > 1 && self.scenario.nodes > 2;
        keeps && self.is_micro() && self.source.percent(50)
    }

    pub(super) fn kept_wills(&mut self) {
        self.at_ms = self.at_ms.max(WHOLE_MS);
        let (nodes, clients) = (self.scenario.nodes, self.clients.len() as u64);
        self.at_node = self.source.below(nodes.into()) as u16;
        let watcher = self.source.below(clients) as usize;
        let mortal = (watcher + 1 + self.source.below(clients - 1) as usize) % self.clients.len();
        let away = (self.at_node + 1 + self.source.below(u64::from(nodes) - 1) as u16) % nodes;
        let topic = self.topics.names[0].clone();
        self.scenario.clients[watcher].node = away;
        self.scenario.clients[mortal].node = self.at_node;
        let delay_s = self.source.below(5) as u32;
        self.scenario.clients[mortal].will =
            Some(WillSpec { topic: topic.clone(), qos: QoS::AtLeastOnce, retain: false, delay_s, expiry_s: 0 });
        self.begin(watcher);
        let filters = vec![FilterSpec::new(&topic, QoS::AtLeastOnce)];
        self.clients[watcher].filters.push(topic);
        self.act(watcher, Act::Subscribe { filters, subscription_id: 0 });
        self.at_ms += 500;
        self.begin(mortal);
        self.at_ms += KEPT_MS;
        self.end_of(mortal, away);
        let quick = self.is_quick();
        self.at_ms += if quick { 26_000 } else { 60_000 };
        self.faults_end_ms = self.at_ms;
    }

    fn begin(&mut self, client: usize) {
        self.clients[client].up = true;
        self.act(client, Act::Connect { clean: None, session_expiry_s: None, node: None });
        self.at_ms += 1_000;
    }

    /// Its node goes, before or after it.
    fn end_of(&mut self, client: usize, away: u16) {
        let gap_ms = self.source.log(1, 6_000);
        let power_loss = self.source.coin();
        match self.source.below(7) {
            0 => self.crash(power_loss),
            1 => self.shut_down(),
            2 => {
                self.crash(power_loss);
                self.at_ms += gap_ms;
                self.restart();
            }
            3 => {
                self.crash(power_loss);
                self.at_ms += gap_ms;
                self.act(client, Act::Vanish);
                let clean = self.source.coin().then(|| self.source.coin());
                self.act(client, Act::Connect { clean, session_expiry_s: None, node: Some(away) });
                self.clients[client].up = true;
            }
            4 => {
                self.act(client, Act::Disconnect { with_will: false, session_expiry_s: None });
                self.at_ms += gap_ms;
                self.crash(power_loss);
            }
            5 => {
                let end = if self.source.coin() { Act::Reset } else { Act::HangUp };
                self.act(client, end);
                self.at_ms += gap_ms;
                self.crash(power_loss);
            }
            _ => {
                self.act(client, Act::Reset);
                self.clients[client].up = false;
            }
        }
    }
}
