//! The session directory and what is around it: members, links and leaders go in, messages go over links, shards are told
//! what they have to do, and the node's log of routes says which stored sessions are here.

use std::collections::BTreeSet;

use bytes::Bytes;
use newtmq_base::{InvalidField, NodeId, Put, ShardId, Take, planted};
use newtmq_cluster::directory::{self, Client, Directory, Input};
use newtmq_cluster::lane::Epoch;
use newtmq_cluster::meta::{self, ClusterId};
use newtmq_cluster::owned::{Batch, Op, RecordKind};

use super::joint::{Cluster, Cx};
use super::streams;
use crate::control::{ControlOutput, FromControl};
use crate::shard::shard_of;

/// What the directory of a node was told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The others; `None` before it was told.
    members: Option<BTreeSet<NodeId>>,
    leader: Option<(u64, Option<NodeId>)>,
    /// It is in no cluster.
    alone: bool,
    /// The cluster that its terms are of.
    cluster: Option<ClusterId>,
    /// What is stored here was told; until then it takes no part.
    pub(super) open: bool,
}

impl Cluster {
    /// The directory of this node.
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// A shard says something to the directory.
    pub(crate) fn claims(&mut self, cx: &mut Cx<'_>, input: Input) {
        let client = match &input {
            Input::Attached { client, .. }
            | Input::Moved { client, .. }
            | Input::Recovered { client, .. }
            | Input::Ended { client, .. } => Some(client.clone()),
            Input::Claim { .. }
            | Input::Closed { .. }
            | Input::Alone(_)
            | Input::Elsewhere
            | Input::Tick
            | Input::Message { .. }
            | Input::Up { .. }
            | Input::Down { .. }
            | Input::Members(_)
            | Input::Leader { .. }
            | Input::Home { .. }
            | Input::Supersedes { .. } => None,
        };
        self.will_claimed(&input);
        self.directory.handle(cx.now, input, &mut self.directory_out);
        if let Some(client) = client {
            let value = self.directory.is_stored(&client).then_some(&[][..]);
            cx.owned.record(cx.now, RecordKind::Home, client.as_bytes(), value, cx.given);
        }
    }

    /// All that is stored of this node is known: the others may know of it.
    pub(crate) fn open_directory(&mut self, cx: &mut Cx<'_>) {
        self.told.open = true;
        self.wills_anew(cx);
        for (by, client, home, epoch) in self.disk.voids() {
            let input = Input::Supersedes { by, client: client.clone(), epoch, home, put: true };
            self.directory.handle(cx.now, input, &mut self.directory_out);
            let (key, value) = put_void(&client, home, epoch);
            cx.owned.record(cx.now, RecordKind::Supersedes, &key, Some(&value), cx.given);
        }
        for (node, inc) in self.reached.clone() {
            self.directory.handle(cx.now, Input::Up { node, inc }, &mut self.directory_out);
        }
    }

    /// Tells the directory who is a member and who leads, if that is not what it was told last. A node that is in no cluster is
    /// one of its own.
    pub(super) fn tell_directory(&mut self, cx: &Cx<'_>) {
        if !self.told.open {
            return;
        }
        let is_member = self.meta.is_member() && !self.gone;
        if self.told.cluster != self.meta.cluster() && !planted!(TermsOfAnother) {
            self.told.cluster = self.meta.cluster();
            self.told.leader = None;
            self.directory.handle(cx.now, Input::Elsewhere, &mut self.directory_out);
        }
        let others = self.members.keys().copied().filter(|_| is_member);
        let view = self.meta.view();
        let term = view.term.max(self.told.leader.map_or(0, |told| told.0));
        // One that is not reached is none, whatever the group says. That says of this node that it leads when its term is durable:
        // a later start of it gives other epochs.
        let reached = |leader: &NodeId| self.reached.contains_key(leader) || *leader == self.node;
        let leader = view.leader.filter(|_| is_member).filter(reached);
        let alone = self.gone || self.meta.cluster().is_none();
        // Who comes to a cluster asks nobody there as the one that it was alone; who has gone asks nobody any more.
        let mut news = Vec::new();
        if self.told.members.as_ref().is_none_or(|told| !told.iter().copied().eq(others.clone())) {
            self.told.members = Some(others.clone().collect());
            news.push(Input::Members(others.chain([self.node]).collect()));
        }
        if self.told.leader != Some((term, leader)) {
            self.told.leader = Some((term, leader));
            news.insert(if is_member { 0 } else { news.len() }, Input::Leader { term, node: leader });
        }
        if self.told.alone != alone {
            self.told.alone = alone;
            news.push(Input::Alone(alone));
        }
        for input in news {
            self.directory.handle(cx.now, input, &mut self.directory_out);
        }
    }

    /// A link is up or down.
    pub(super) fn link_of_directory(&mut self, cx: &Cx<'_>, input: Input) {
        if self.told.open {
            self.directory.handle(cx.now, input, &mut self.directory_out);
        }
    }

    /// Does what the directory asks for.
    pub(super) fn on_directory(&mut self, cx: &mut Cx<'_>, output: directory::Output) {
        use directory::Output;
        let client = match &output {
            Output::Send { to, message } => {
                let bytes = streams::tagged_directory(self.meta.cluster().unwrap_or_default(), message);
                let bulk = bytes.len() > streams::SMALL_BYTES_MAX;
                return self.say(cx.now, *to, bytes, bulk);
            }
            Output::Raise { term } => {
                return self.meta.handle(cx.now, meta::Input::Raise { term: *term }, &mut self.meta_out);
            }
            Output::Supersedes { client, epoch, home, put } => {
                let (key, value) = put_void(client, *home, *epoch);
                let value = put.then_some(&value[..]);
                return cx.owned.record(cx.now, RecordKind::Supersedes, &key, value, cx.given);
            }
            Output::Granted(grant) => {
                if grant.home == self.node {
                    self.will_resumed(cx.now, &grant.client, Some(grant.epoch));
                }
                &grant.client
            }
            Output::Moved { client, epoch } => {
                self.will_resumed(cx.now, client, Some(*epoch));
                client
            }
            Output::Refused { client, .. } => {
                self.will_resumed(cx.now, client, None);
                client
            }
            Output::Fence { client, .. } | Output::Attach { client, .. } | Output::Lost { client, .. } => client,
        };
        let to = ShardId(shard_of(self.node_seed, self.shards, client));
        cx.out.push(ControlOutput::Shard { to, message: FromControl::Directory(Box::new(output)) });
    }

    /// What another node's directory says, or another shard of a session that has gone there or here.
    pub(super) fn on_directory_message(&mut self, cx: &mut Cx<'_>, from: NodeId, bytes: &[u8]) {
        let Some(inc) = self.reached.get(&from).copied() else { return };
        match directory::Message::decode(bytes) {
            Ok(message) => {
                self.directory.handle(cx.now, Input::Message { from, inc, message }, &mut self.directory_out);
            }
            Err(_) => self.counts.malformed += 1,
        }
    }

    /// What the log of another node says of its sessions.
    pub(super) fn records_of(&mut self, cx: &Cx<'_>, batch: &Batch) {
        if batch.node == self.node {
            return;
        }
        let by = batch.node;
        for record in &batch.records {
            let Op::Record { kind, key, value } = record else { continue };
            let input = match kind {
                RecordKind::Home => client_of(key)
                    .map(|client| Input::Home { owner: by, client, present: value.is_some() })
                    .map_err(|_| InvalidField("no client")),
                RecordKind::Supersedes => take_void(key).and_then(|(client, home)| {
                    let epoch = value.as_deref().map_or(Ok(Epoch::ZERO), take_epoch)?;
                    Ok(Input::Supersedes { by, client, epoch, home, put: value.is_some() })
                }),
            };
            match input {
                Ok(input) => self.directory.handle(cx.now, input, &mut self.directory_out),
                Err(_) => self.counts.malformed += 1,
            }
        }
    }

    /// Messages of shards about sessions that go from node to node.
    pub(crate) fn handover(&mut self, cx: &Cx<'_>, to: NodeId, message: &[u8]) {
        let bytes = streams::tagged_handover(self.meta.cluster().unwrap_or_default(), message);
        let bulk = bytes.len() > streams::SMALL_BYTES_MAX;
        if self.is_heard(to) {
            self.say(cx.now, to, bytes, bulk);
        }
    }

    pub(super) fn on_handover(&mut self, cx: &mut Cx<'_>, from: NodeId, bytes: &[u8]) {
        // The client it is about comes first.
        let Ok(client) = Take(bytes).text() else {
            self.counts.malformed += 1;
            return;
        };
        let to = ShardId(shard_of(self.node_seed, self.shards, client));
        let message = FromControl::Handover { from, message: Bytes::copy_from_slice(bytes) };
        cx.out.push(ControlOutput::Shard { to, message });
    }
}

fn client_of(key: &[u8]) -> Result<Client, core::str::Utf8Error> {
    core::str::from_utf8(key).map(Client::from)
}

/// A record that a session of before an epoch does not count, as key and value.
pub(super) fn put_void(client: &str, home: NodeId, epoch: Epoch) -> (Vec<u8>, Vec<u8>) {
    let (mut key, mut value) = (Vec::new(), Vec::new());
    Put(&mut key).number(home.0).text(client);
    Put(&mut value).number(epoch.term).number(epoch.seq).number(epoch.provisional).number(epoch.issuer.0);
    (key, value)
}

pub(super) fn take_void(key: &[u8]) -> Result<(Client, NodeId), InvalidField> {
    let mut take = Take(key);
    let (home, client) = (NodeId(take.number()?), take.text()?.into());
    take.end()?;
    Ok((client, home))
}

pub(super) fn take_epoch(value: &[u8]) -> Result<Epoch, InvalidField> {
    let mut take = Take(value);
    let (term, seq, provisional) = (take.number()?, take.number()?, take.number()?);
    let epoch = Epoch { term, seq, provisional, issuer: NodeId(take.number()?) };
    take.end()?;
    Ok(epoch)
}
