//! Which connections of clients a cluster ended while it healed. How long that took is in [`crate::report::Heal`].

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{ClientIx, Closer, ConnIx, Event, History, NameIx};
use crate::report::Heal;
use crate::scenario::{Act, Action, Scenario, WorldAction};

/// Connections that a heal cost.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// There was another connection of the same Client Identifier, as nodes that could not reach each other let both in.
    pub losers: Vec<(ClientIx, ConnIx)>,
    /// Any other: none is expected.
    pub others: Vec<(ClientIx, ConnIx)>,
}

/// Connections that were there at the repair and that the broker ended before all was whole, in order. Those of clients
/// that the scenario itself troubles, and of nodes that it tells to leave, do not count.
#[must_use]
pub fn dropped(scenario: &Scenario, heal: &Heal, history: &History) -> Dropped {
    let troubled = troubled(scenario);
    let mut clients: BTreeMap<ConnIx, (ClientIx, NameIx)> = BTreeMap::new();
    let mut there: BTreeSet<ConnIx> = BTreeSet::new();
    let mut dropped = Dropped::default();
    for stamped in history.events.iter().take_while(|stamped| stamped.at <= heal.over()) {
        let healing = stamped.at > heal.repaired;
        #[allow(clippy::wildcard_enum_match_arm)] // the others say nothing about connections
        match &stamped.event {
            Event::Connect { conn, client, facts } if !healing => {
                clients.insert(*conn, (*client, facts.client_id));
            }
            Event::Connack { conn, code, .. } if !healing && !code.is_error() => _ = there.insert(*conn),
            Event::Close { conn, by } if there.remove(conn) && healing && *by == Closer::Server => {
                let (client, id) = clients[conn];
                let is_beside = there.iter().any(|other| clients[other].1 == id);
                if !troubled.contains(&client) {
                    let of = if is_beside { &mut dropped.losers } else { &mut dropped.others };
                    of.push((client, *conn));
                }
            }
            Event::Close { conn, .. } => _ = there.remove(conn),
            _ => {}
        }
    }
    dropped
}

fn troubled(scenario: &Scenario) -> BTreeSet<ClientIx> {
    let mut found = BTreeSet::new();
    for step in &scenario.steps {
        #[allow(clippy::wildcard_enum_match_arm)] // the others are no trouble of one client
        match &step.action {
            Action::World(WorldAction::Cut { client, .. } | WorldAction::Bandwidth { client, .. })
            | Action::Client { client, act: Act::Freeze(_) | Act::SetReading(_) | Act::SetAcks(_) } => {
                found.insert(*client);
            }
            Action::World(WorldAction::Leave { node }) => {
                let of = scenario.clients.iter().enumerate().filter(|(_, spec)| spec.node == *node);
                found.extend(of.map(|(ix, _)| ClientIx(ix as u32)));
            }
            _ => {}
        }
    }
    found
}
