//! Nodes whose clients' sessions are one over all of them: each has a real directory, and the meta group has a leader that the
//! test names.

use std::collections::BTreeSet;

use core::time::Duration;

use newtmq_base::Incarnation;
use newtmq_cluster::directory::{self, Directory, Input, Output};
use newtmq_node::{FromControl, ShardConfig};

use super::world::{Event, Say, World, at, id};

impl World {
    /// As [`World::new`], with directories; the first node leads.
    pub(super) fn with_directories(
        seed: u64,
        nodes: usize,
        shards: u16,
        configure: impl Fn(&mut ShardConfig),
    ) -> World {
        World::build(seed, nodes, shards, Some((1, 0)), configure)
    }

    /// The directory of a node at its start.
    pub(super) fn new_directory(&mut self, node: usize) {
        if self.leader.is_some() {
            let inc = Incarnation(self.nodes[node].inc);
            let config = self.directories.clone();
            self.nodes[node].directory = Some(Directory::new(config, self.now, id(node), inc));
        }
    }

    /// All that is stored of a node is known.
    pub(super) fn open_directory(&mut self, node: usize) {
        let Some((term, leader)) = self.leader else { return };
        self.nodes[node].open = true;
        let members: BTreeSet<_> = (0..self.nodes.len().max(self.size)).map(id).collect();
        self.directory(node, Input::Members(members));
        for other in 0..self.nodes.len() {
            if self.links.get(&(node, other)).is_some_and(|link| link.up) {
                let inc = Incarnation(self.nodes[other].inc);
                self.directory(node, Input::Up { node: id(other), inc });
            }
        }
        self.directory(node, Input::Leader { term, node: Some(id(leader)) });
    }

    /// Another leader.
    pub(super) fn lead(&mut self, leader: usize) {
        let term = self.leader.map_or(1, |(term, _)| term + 1);
        self.leader = Some((term, leader));
        for node in 0..self.nodes.len() {
            if self.nodes[node].alive && self.nodes[node].open {
                self.directory(node, Input::Leader { term, node: Some(id(leader)) });
            }
        }
    }

    /// Something for the directory of a node.
    pub(super) fn directory(&mut self, node: usize, input: Input) {
        let Some(directory) = self.nodes[node].directory.as_mut() else { return };
        let mut out = Vec::new();
        let client = match &input {
            Input::Attached { client, .. } | Input::Moved { client, .. } | Input::Recovered { client, .. } => {
                Some(client.clone())
            }
            Input::Ended { client, .. } => Some(client.clone()),
            _ => None,
        };
        directory.handle(self.now, input, &mut out);
        let stored = client.map(|client| (directory.is_stored(&client), client));
        for output in out {
            self.obey_directory(node, output);
        }
        // Its log, which others follow.
        if let Some((present, client)) = stored {
            for other in (0..self.nodes.len()).filter(|other| *other != node) {
                if self.nodes[other].alive && self.links.get(&(node, other)).is_some_and(|link| link.up) {
                    self.directory(other, Input::Home { owner: id(node), client: client.clone(), present });
                }
            }
        }
    }

    fn obey_directory(&mut self, node: usize, output: Output) {
        let client = match &output {
            Output::Send { to, message } => {
                let mut bytes = Vec::new();
                message.encode(&mut bytes);
                return self.say_far(node, at(*to), false, bytes);
            }
            Output::Supersedes { .. } | Output::Raise { .. } => return,
            Output::Granted(grant) => grant.client.clone(),
            Output::Refused { client, .. }
            | Output::Fence { client, .. }
            | Output::Attach { client, .. }
            | Output::Moved { client, .. }
            | Output::Lost { client, .. } => client.clone(),
        };
        let to = self.nodes[node].shards[0].home(&client).0;
        self.say(node, usize::from(to), Say::Control(FromControl::Directory(Box::new(output))));
    }

    /// A message between control planes.
    pub(super) fn say_far(&mut self, from: usize, to: usize, handover: bool, bytes: Vec<u8>) {
        let delay = Duration::from_micros(self.rng.below(self.delay_us.max(1)));
        let Some(link) = self.links.get_mut(&(from, to)).filter(|link| link.up) else { return };
        link.last_said = link.last_said.max(self.now + delay);
        let (time, run) = (link.last_said, link.run);
        self.push(time, Event::Said(from, to, run, handover, bytes));
    }

    pub(super) fn hear_far(&mut self, from: usize, to: usize, handover: bool, bytes: Vec<u8>) {
        if handover {
            let client = newtmq_base::Take(&bytes).text().unwrap();
            let shard = self.nodes[to].shards[0].home(client).0;
            let message = FromControl::Handover { from: id(from), message: bytes.into() };
            return self.say(to, usize::from(shard), Say::Control(message));
        }
        let inc = Incarnation(self.nodes[from].inc);
        let message = directory::Message::decode(&bytes).unwrap();
        self.directory(to, Input::Message { from: id(from), inc, message });
    }

    /// Where a client has a session, and with which epoch.
    pub(super) fn homes(&self, client: &str) -> Vec<usize> {
        let alive = (0..self.nodes.len()).filter(|node| self.nodes[*node].alive);
        let has = |node: &usize| {
            let shards = &self.nodes[*node].shards;
            shards[usize::from(shards[0].home(client).0)].view().session_is_connected(client).is_some()
        };
        alive.filter(has).collect()
    }

    /// The session of a client is at one node, and the seat knows it.
    pub(super) fn assert_one(&self, client: &str) {
        let homes = self.homes(client);
        assert_eq!(homes.len(), 1, "{client} has sessions at {homes:?}");
        let (_, leader) = self.leader.unwrap();
        let place = self.nodes[leader].directory.as_ref().unwrap().place(client).unwrap();
        assert_eq!(place.home, Some(id(homes[0])));
    }
}
