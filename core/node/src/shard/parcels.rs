//! Frames between this shard and other nodes, as they leave and come: in parcels. Who they are for and what they ask for is in
//! [`super::peers`] and [`super::inward`].

use bytes::Bytes;
use newtmq_base::{Instant, NodeId};
use newtmq_cluster::lane::{Frame, Parcel};

use super::Shard;
use super::peers::{Peer, Peers};
use crate::control::ToControl;
#[cfg(doc)]
use crate::io::Output;

impl Shard {
    /// The frames for other nodes, after [`Output::Lanes`]. The longer the driver waits (until the end of a round, say), the
    /// more go together.
    pub fn take_lanes(&mut self) -> Option<ToControl> {
        let peers = self.peers.as_mut()?;
        peers.is_told = false;
        let parcels = peers.take_frames();
        (!parcels.is_empty()).then_some(ToControl::Lanes(parcels))
    }

    /// Frames of a shard of another node. What comes behind a wrong one is not understood: its lane will say it again.
    pub(crate) fn on_lanes(&mut self, now: Instant, from: NodeId, parcel: &Bytes) {
        match Parcel::frames(parcel) {
            Ok(frames) => {
                for frame in frames {
                    match frame {
                        Ok(frame) => self.on_lane(now, from, &frame),
                        Err(_) => self.ledger.malformed_of_nodes += 1,
                    }
                }
            }
            Err(_) => self.ledger.malformed_of_nodes += 1,
        }
    }

    fn on_lane(&mut self, now: Instant, from: NodeId, frame: &Frame) {
        let recovering = self.recovering;
        let Some(peers) = &mut self.peers else { return };
        match frame {
            Frame::Receipt(receipt) => {
                if let Some(slot) = peers.known_slot(from) {
                    peers.call(slot, |peer, outputs| peer.receipt(now, receipt, outputs));
                }
            }
            // What had come before the start is not known yet. It is asked again.
            Frame::Bundle(_) | Frame::Probe(_) if recovering => {}
            Frame::Bundle(_) | Frame::Probe(_) => peers.inward.frame(now, from, frame),
        }
    }
}

impl Peers {
    /// Whether there is something to be taken.
    pub(super) fn has_parcels(&self) -> bool {
        let answers = self.inward.has_answers() && !self.inward.has_work();
        answers || self.has_frames
    }

    /// All frames for other nodes, and what is to be said of what they have sent.
    fn take_frames(&mut self) -> Vec<(NodeId, Bytes)> {
        self.has_frames = false;
        let mut parcels = Vec::new();
        // One answers for all that is worked off at the next Tick.
        if !self.inward.has_work() {
            let mut receipts = core::mem::take(&mut self.receipts);
            self.inward.receipts(&mut receipts);
            for (node, receipt) in receipts.drain(..) {
                if let Some(slot) = self.known_slot(node) {
                    self.peer(slot).out.answer(receipt);
                } else {
                    let mut parcel = Parcel::default();
                    parcel.push(&Frame::Receipt(receipt));
                    parcels.push((node, parcel.take()));
                }
            }
            self.receipts = receipts;
        }
        for Peer { out, .. } in &mut self.slots {
            let node = out.node();
            parcels.extend(out.take().map(|parcel| (node, parcel)));
        }
        parcels
    }
}
