//! Which connections of clients a cluster ended while it healed. How long that took is in [`crate::report::Heal`].

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{ClientIx, Closer, ConnIx, Event, History};
use crate::report::Heal;
use crate::scenario::{Act, Action, Scenario, WorldAction};

/// Connections that were there at the repair and that the broker ended before all was whole, in order. Those of clients
/// that the scenario itself troubles, and of nodes that it tells to leave, do not count.
#[must_use]
pub fn dropped(scenario: &Scenario, heal: &Heal, history: &History) -> Vec<(ClientIx, ConnIx)> {
    let troubled = troubled(scenario);
    let mut clients: BTreeMap<ConnIx, ClientIx> = BTreeMap::new();
    let mut there: BTreeSet<ConnIx> = BTreeSet::new();
    let mut dropped = Vec::new();
    for stamped in history.events.iter().take_while(|stamped| stamped.at <= heal.ended) {
        let healing = stamped.at > heal.repaired;
        #[allow(clippy::wildcard_enum_match_arm)] // the others say nothing about connections
        match &stamped.event {
            Event::Connect { conn, client, .. } if !healing => _ = clients.insert(*conn, *client),
            Event::Connack { conn, code, .. } if !healing && !code.is_error() => _ = there.insert(*conn),
            Event::Close { conn, by } if there.remove(conn) && healing && *by == Closer::Server => {
                let client = clients[conn];
                if !troubled.contains(&client) {
                    dropped.push((client, *conn));
                }
            }
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
