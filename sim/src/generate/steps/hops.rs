//! Clients that go from node to node: one that connects elsewhere, several with one Client Identifier at once, one that never
//! stays; and what happens to nodes and links in the midst of it.

use super::Steps;
use super::cluster::Done;
use super::kind::Kind;

/// Most connections of a storm.
pub(super) const STORM_MAX: usize = 8;

impl Steps<'_> {
    /// Whether clients go from node to node.
    pub(super) fn hops(&self) -> bool {
        self.features.hop_percent > 0
    }

    /// Another node for who connects, now and then; one that works where its own does not.
    pub(super) fn hop(&mut self, client: usize) -> Option<u16> {
        let own = &self.nodes[usize::from(self.clients[client].node)];
        if self.hops() && (own.down || self.source.percent(self.features.hop_percent)) {
            self.elsewhere(client)
        } else {
            None
        }
    }

    /// Another node for a client, of those that work if there is one.
    fn elsewhere(&mut self, client: usize) -> Option<u16> {
        let own = self.clients[client].node;
        let takes_clients = |node: &u16| *node != own && !self.scenario.node_spec(*node).witness;
        let others: Vec<u16> = (0..self.scenario.nodes).filter(takes_clients).collect();
        let up: Vec<u16> = others.iter().copied().filter(|node| !self.nodes[usize::from(*node)].down).collect();
        let among = if up.is_empty() { others } else { up };
        if among.is_empty() {
            return None;
        }
        let node = *self.source.pick(&among);
        self.clients[client].node = node;
        Some(node)
    }

    /// Somebody who can go to another node.
    pub(super) fn hopper(&self) -> Option<usize> {
        self.clients.iter().position(|of| !of.asleep)
    }

    fn pick_hopper(&mut self) -> Option<usize> {
        let awake: Vec<usize> = (0..self.clients.len()).filter(|client| !self.clients[*client].asleep).collect();
        if awake.is_empty() { None } else { Some(*self.source.pick(&awake)) }
    }

    /// A client leaves its connection, in some way, and is at another node at once or a little later.
    pub(super) fn hop_away(&mut self) {
        if let Some(client) = self.pick_hopper() {
            let most_ms = if self.source.coin() { 5 } else { 500 };
            self.hop_within(client, most_ms);
        }
    }

    fn hop_within(&mut self, client: usize, most_ms: u64) {
        if self.clients[client].up {
            let kinds = [Kind::Vanish, Kind::Vanish, Kind::Reset, Kind::HangUp, Kind::Disconnect];
            let kind = *self.source.pick(&kinds);
            self.carry_out(kind, client);
        }
        self.at_ms += self.source.below(most_ms);
        self.connect_elsewhere(client);
    }

    fn connect_elsewhere(&mut self, client: usize) {
        let node = self.elsewhere(client);
        self.connect_at(client, node);
    }

    /// Whether several have one Client Identifier.
    pub(super) fn has_same(&self) -> bool {
        let mut clients = self.clients.iter().enumerate();
        clients.any(|(at, of)| self.clients[..at].iter().any(|other| other.id == of.id))
    }

    /// Those with one Client Identifier connect at the same moment, or nearly.
    pub(super) fn connect_together(&mut self) {
        let Some(first) = self.pick_hopper() else { return };
        let same = |client: &usize| self.clients[*client].id == self.clients[first].id && !self.clients[*client].asleep;
        let all: Vec<usize> = (0..self.clients.len()).filter(same).collect();
        let most_ms = *self.source.pick(&[1, 1, 3, 50]);
        for client in all {
            if self.clients[client].up {
                self.carry_out(Kind::Vanish, client);
            }
            self.at_ms += self.source.below(most_ms);
            self.connect_elsewhere(client);
        }
    }

    /// A client that never stays.
    pub(super) fn storm(&mut self) {
        let Some(client) = self.pick_hopper() else { return };
        let every_ms = self.source.log(5, 400);
        for _ in 0..self.source.between(2, STORM_MAX as u64) {
            self.hop_within(client, 2);
            self.at_ms += every_ms;
        }
    }

    /// A client goes to another node, and in the midst of it a node crashes or the way between the two is cut.
    pub(super) fn hop_and_break(&mut self, done: &mut Done) {
        let Some(client) = self.pick_hopper() else { return };
        let old = self.clients[client].node;
        self.hop_within(client, 2);
        let new = self.clients[client].node;
        self.at_ms += self.source.log(1, 100) - 1;
        let node = if self.source.coin() { old } else { new };
        let ups = self.nodes.iter().filter(|node| !node.down).count();
        match self.source.below(3) {
            0 if ups > 1 && !self.nodes[usize::from(node)].down => {
                self.at_node = node;
                let power_loss = self.source.coin();
                self.crash(power_loss);
            }
            1 => {
                self.at_node = node;
                self.pause();
            }
            _ if old != new => {
                self.cut_link(old, new, done);
                if self.source.coin() {
                    self.cut_link(new, old, done);
                }
            }
            _ => {}
        }
    }
}
