//! What a node has of clients in short, to be compared with what the seat knows of it.

use std::collections::BTreeMap;

use newtmq_base::NodeId;

use super::node::Directory;
use crate::owned::DigestKey;

/// The sessions and connections of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// How many sessions.
    pub sessions: u64,
    /// How many connections.
    pub connections: u64,
    /// Of the Client Identifiers of both, in any order.
    pub digest: u64,
}

impl Summary {
    fn add_session(&mut self, client: &str) {
        self.sessions += 1;
        self.digest = self.digest.wrapping_add(KEY.hash(SESSION, client.as_bytes()));
    }

    fn add_connection(&mut self, client: &str) {
        self.connections += 1;
        self.digest = self.digest.wrapping_add(KEY.hash(CONNECTION, client.as_bytes()));
    }
}

impl Directory {
    /// What this node has. Looks at every client of it.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        self.sessions().for_each(|(client, _)| summary.add_session(client));
        self.served().for_each(|(client, ..)| summary.add_connection(client));
        summary
    }

    /// What the seat, which is this node, knows of every node. `None` at others. Looks at every client of the cluster.
    #[must_use]
    pub fn known(&self) -> Option<BTreeMap<NodeId, Summary>> {
        self.seated().filter(|seated| seated.open)?;
        let mut known: BTreeMap<NodeId, Summary> = BTreeMap::new();
        for (client, homes, holder) in self.seat.clients() {
            homes.for_each(|home| known.entry(home).or_default().add_session(client));
            holder.into_iter().for_each(|node| known.entry(node).or_default().add_connection(client));
        }
        Some(known)
    }
}

const SESSION: u8 = 0;
const CONNECTION: u8 = 1;
const KEY: DigestKey = DigestKey([0x6E65_7774, 0x6469_7200]);
