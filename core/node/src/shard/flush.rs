//! Whether all has come that was sent to a session before everybody knew that it has gone to another node: each shard that may
//! have sent something puts a marker behind it, into the same lane. A marker is a release of a name that no message has.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use newtmq_base::{Instant, NodeId, Put, ShardId, planted};
use newtmq_cluster::lane::Guid;

use super::Shard;
use super::letter::{FLUSH, head};
use crate::control::ToControl;
use crate::io::{Outbox, Output};
use crate::place::PlaceMessage;

/// After so long the first letter leaves if nobody is to say anything.
const DRAIN_FOR: Duration = Duration::from_millis(5);
/// After so long it leaves though not every shard has said that nothing more comes. Shorter than the client waits.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);
/// After so long those who have not said it are asked again.
pub(super) const ASK_AGAIN: Duration = Duration::from_millis(100);

/// The markers that are awaited.
#[derive(Debug)]
pub(super) struct Flush {
    /// Which ones they are.
    pub(super) token: u64,
    until: Instant,
    /// By node: how many shards it has, if it has answered, and those whose marker has come.
    nodes: BTreeMap<NodeId, (Option<u16>, BTreeSet<ShardId>)>,
}

impl Flush {
    /// A node whose markers are not all there is waited for as long as it may send anything.
    fn is_over(&mut self, is_up: impl Fn(NodeId) -> bool) -> bool {
        self.nodes
            .retain(|node, (shards, came)| shards.is_none_or(|shards| came.len() < shards.into()) && is_up(*node));
        self.nodes.is_empty()
    }
}

impl Shard {
    pub(super) fn begin_flush(&mut self, now: Instant) -> Flush {
        let (guid, own) = (self.new_name(), (self.node, (Some(self.shards() - 1), BTreeSet::new())));
        let (token, _) = guid.0.split_first_chunk().expect("it is longer");
        let senders = self.peers.iter().flat_map(|peers| peers.senders()).map(|node| (node, (None, BTreeSet::new())));
        Flush { token: u64::from_le_bytes(*token), until: now + FLUSH_WITHIN, nodes: senders.chain([own]).collect() }
    }

    /// All know the new routes by now, and nobody sends anything here alone. What was sent before is in front of a marker.
    /// Says after how long to look again.
    pub(super) fn ask_for_markers(&mut self, key: u32, out: &mut Outbox) -> Duration {
        let (own, here) = (ShardId(self.own), self.node);
        let Some(stub) = self.claimed(key).stub.as_mut() else { return ASK_AGAIN };
        let Some(flush) = &mut stub.flush else { return ASK_AGAIN };
        if flush.is_over(|_| true) || planted!(FlushNotAwaited) {
            return DRAIN_FOR;
        }
        let Flush { token, nodes, .. } = flush;
        let (token, mut ask) = (*token, head(&stub.client, FLUSH, stub.epoch, *token));
        Put(&mut ask).number(u64::from(own.0));
        let nodes: Vec<NodeId> = nodes.keys().copied().collect();
        for to in nodes.into_iter().filter(|node| *node != here) {
            out.push(Output::Control(ToControl::Handover { to, message: ask.clone().into() }));
        }
        let (at, marker) = ((here, own), marker(token, self.shards() - 1));
        for shard in (0..self.shards).filter(|shard| *shard != own.0) {
            self.send_place(shard, PlaceMessage::Flush { at, marker }, out);
        }
        ASK_AGAIN
    }

    /// A session has gone from a shard of another node: what this node has sent there is to be closed by markers.
    pub(super) fn on_flush(&mut self, now: Instant, from: NodeId, (token, shard): (u64, u64), out: &mut Outbox) {
        let Ok(shard) = u16::try_from(shard) else { return };
        let (at, marker) = ((from, ShardId(shard)), marker(token, self.shards()));
        let own = self.own;
        for shard in (0..self.shards).filter(|shard| *shard != own) {
            self.send_place(shard, PlaceMessage::Flush { at, marker }, out);
        }
        self.flush_lane(now, at, marker, out);
    }

    /// What is perhaps a marker has come from a shard.
    pub(super) fn on_flushed(&mut self, now: Instant, (node, shard): (NodeId, ShardId), guid: Guid, out: &mut Outbox) {
        let Some((token, shards)) = marker_parts(guid) else { return };
        let Some(key) = self.claims_of.flushing.get(&token).copied() else { return };
        let stub = self.claimed(key).stub.as_mut();
        let Some(flush) = stub.and_then(|stub| stub.flush.as_mut()) else { return };
        let Some((of, came)) = flush.nodes.get_mut(&node) else { return };
        *of = Some(shards);
        came.insert(shard);
        if flush.is_over(|_| true) {
            self.work_stub(now, key, out);
        }
    }

    /// Whether the first letter can leave.
    pub(super) fn is_flushed(&mut self, now: Instant, key: u32, out: &mut Outbox) -> bool {
        let up: Vec<NodeId> = self.peers.iter().flat_map(|peers| peers.senders()).chain([self.node]).collect();
        let Some(stub) = self.claimed(key).stub.as_mut() else { return true };
        let Some(flush) = &mut stub.flush else { return true };
        let is_over = flush.is_over(|node| up.contains(&node)) || planted!(FlushNotAwaited);
        if is_over || flush.until <= now {
            let token = flush.token;
            stub.flush = None;
            self.claims_of.flushing.remove(&token);
            self.ledger.left_unflushed += u64::from(!is_over);
            return true;
        }
        self.ask_for_markers(key, out);
        false
    }
}

/// A name that no message has: in a lane, it says that all that was sent before has come. With it goes how many shards say so.
fn marker(token: u64, shards: u16) -> Guid {
    let mut bytes = [0xFF; 16];
    bytes[..8].copy_from_slice(&token.to_le_bytes());
    bytes[8..10].copy_from_slice(&shards.to_le_bytes());
    Guid(bytes)
}

fn marker_parts(Guid(bytes): Guid) -> Option<(u64, u16)> {
    let (token, rest) = bytes.split_first_chunk()?;
    let (shards, rest) = rest.split_first_chunk()?;
    (rest == [0xFF; 6]).then(|| (u64::from_le_bytes(*token), u16::from_le_bytes(*shards)))
}
