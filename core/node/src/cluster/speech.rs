//! What nodes say to each other: from the links to the part that it is for, and from the parts to the links.

use bytes::Bytes;
use newtmq_base::{Instant, NodeId, planted};
use newtmq_cluster::lane::Parcel;
use newtmq_cluster::link::Stream;
use newtmq_cluster::meta::ClusterId;
use newtmq_cluster::{meta, owned};

use super::joint::{Cluster, Cx};
use super::streams::{self, Said};
use crate::cluster::ClusterOutput;
use crate::control::{ControlOutput, FromControl};

impl Cluster {
    pub(super) fn on_frame(&mut self, cx: &mut Cx<'_>, from: NodeId, stream: Stream, payload: Bytes) {
        match stream {
            Stream::Control => self.on_said(cx, from, &payload),
            Stream::Data => self.on_lanes(cx, from, payload),
            Stream::Bulk => match self.bulk_in.entry(from).or_default().piece(&payload) {
                Ok(Some(whole)) => self.on_said(cx, from, &whole),
                Ok(None) => {}
                Err(_) => self.counts.malformed += 1,
            },
        }
    }

    fn on_said(&mut self, cx: &mut Cx<'_>, from: NodeId, bytes: &Bytes) {
        match streams::said(bytes) {
            Ok(Said::Meta(bytes)) => {
                self.meta.handle(cx.now, meta::Input::Message { from, bytes }, &mut self.meta_out);
            }
            // Whatever it had is gone: nobody waits until it counts as silent.
            Ok(Said::Goodbye) => self.links.remove(cx.now, from, &mut self.link_out),
            Ok(Said::Retained(seat, is_standing, bytes)) if self.is_ours(seat.cluster, from) => {
                self.on_retained_message(cx, from, seat, (is_standing, bytes));
            }
            Ok(Said::Directory(cluster, bytes)) if self.is_ours(cluster, from) => {
                self.on_directory_message(cx, from, bytes);
            }
            Ok(Said::Handover(cluster, bytes)) if self.is_ours(cluster, from) => self.on_handover(cx, from, bytes),
            Ok(Said::Health(cluster, bytes)) if self.is_ours(cluster, from) => self.on_health(cx, from, bytes),
            Ok(Said::Operator(cluster, bytes)) if self.is_ours(cluster, from) => {
                cx.out.push(ControlOutput::Cluster(ClusterOutput::Operator { from, bytes }));
            }
            Ok(
                Said::Retained(..) | Said::Directory(..) | Said::Handover(..) | Said::Health(..) | Said::Operator(..),
            ) => {
                self.counts.foreign += 1;
            }
            Ok(Said::Owned(cluster, bytes)) => {
                let is_heard = self.is_ours(cluster, from);
                let Some(inc) = self.reached.get(&from).copied().filter(|_| is_heard) else {
                    self.counts.foreign += 1;
                    return;
                };
                match owned::Message::decode(bytes) {
                    Ok(message) => {
                        if let owned::Message::Installed { retained, .. } = message {
                            self.shelf.need = self.shelf.need.max(retained);
                        }
                        cx.owned.receive(cx.now, from, inc, message, cx.given);
                    }
                    Err(_) => self.counts.malformed += 1,
                }
            }
            Err(_) => self.counts.malformed += 1,
        }
    }

    fn is_ours(&self, cluster: ClusterId, from: NodeId) -> bool {
        self.meta.cluster() == Some(cluster) && self.is_heard(from)
    }

    /// Whether messages about routes and lanes of a node are taken: it is a member.
    pub(super) fn is_heard(&self, node: NodeId) -> bool {
        self.members.contains_key(&node) || planted!(StrangersAreHeard)
    }

    /// Frames of lanes, which are read by the shards that they are for.
    fn on_lanes(&mut self, cx: &mut Cx<'_>, from: NodeId, parcel: Bytes) {
        if !self.is_heard(from) {
            self.counts.foreign += 1;
            return;
        }
        let Ok(shards) = Parcel::shards(&parcel) else {
            self.counts.malformed += 1;
            return;
        };
        for to in shards.filter(|to| to.0 < self.shards) {
            let message = FromControl::Lanes { from, parcel: parcel.clone() };
            cx.out.push(ControlOutput::Shard { to, message });
        }
    }

    /// Frames of the own shards.
    pub(crate) fn lanes(&mut self, now: Instant, parcels: Vec<(NodeId, Bytes)>) {
        for (node, parcel) in parcels {
            let is_sent =
                self.is_heard(node) && self.links.send(now, node, Stream::Data, parcel, &mut self.link_out).is_ok();
            self.counts.lanes_unsent += u64::from(!is_sent);
        }
    }

    /// What an operator here asks another node, or is answered there. Nothing relies on it.
    pub(super) fn say_operator(&mut self, now: Instant, to: NodeId, message: &[u8]) {
        let bytes = streams::tagged_operator(self.meta.cluster().unwrap_or_default(), message);
        let is_large = bytes.len() > streams::SMALL_BYTES_MAX;
        self.say(now, to, bytes, is_large);
    }

    /// A message of the own logs.
    pub(crate) fn say_owned(&mut self, now: Instant, to: &[NodeId], message: &owned::Message) {
        let mut message = message;
        let told;
        if let owned::Message::Installed { inc, version, .. } = *message {
            let retained = self.shelf.part.barrier();
            told = owned::Message::Installed { inc, version, retained };
            message = &told;
        }
        let bytes = streams::tagged_owned(self.meta.cluster().unwrap_or_default(), message);
        let is_large = bytes.len() > streams::SMALL_BYTES_MAX;
        let bulk = is_large && matches!(message, owned::Message::SnapshotChunk(_) | owned::Message::Table(_));
        for node in to {
            self.say(now, *node, bytes.clone(), bulk);
        }
    }

    /// Says something to a node that is reached; whoever says it does not rely on it.
    pub(super) fn say(&mut self, now: Instant, to: NodeId, bytes: Bytes, bulk: bool) {
        if !self.reached.contains_key(&to) {
            self.counts.unsent += 1;
        } else if bulk {
            self.bulk_numbers += 1;
            if !self.bulk_out.entry(to).or_default().push(self.bulk_numbers, bytes) {
                self.counts.bulk_unsent += 1;
            }
        } else if self.links.send(now, to, Stream::Control, bytes, &mut self.link_out).is_err() {
            self.counts.unsent += 1;
        }
    }

    /// Hands large messages to the links, as far as there is room.
    pub(super) fn pump(&mut self, now: Instant) {
        let limit = self.config.links.bulk_limit;
        for (node, bulk) in &mut self.bulk_out {
            while let Some(piece) = bulk.next() {
                let waiting = self.links.peer(*node).map_or(limit, |peer| peer.bulk_waiting().1);
                let fits = waiting + piece.len() <= limit;
                if !fits || self.links.send(now, *node, Stream::Bulk, piece, &mut self.link_out).is_err() {
                    break;
                }
                bulk.sent();
            }
        }
        self.bulk_out.retain(|_, bulk| !bulk.is_empty());
    }

    pub(super) fn stop(&mut self, now: Instant) {
        let reached: Vec<NodeId> = self.reached.keys().copied().collect();
        for node in reached {
            let sent = self.links.send(now, node, Stream::Control, streams::goodbye(), &mut self.link_out);
            self.counts.unsent += u64::from(sent.is_err());
        }
        self.stopped = true;
        self.swim.leave(now, &mut self.swim_out);
    }
}
