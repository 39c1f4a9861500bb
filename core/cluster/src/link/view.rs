//! What checkers, the admin interface and metrics see of the links.

use core::time::Duration;
use std::collections::BTreeSet;

use newtmq_base::{Instant, NodeId};

use super::dial::Address;
use super::frame::{Acks, End};
use super::hello::Hello;
use super::links::{ConnectionId, Links};
use super::peer::{Link, Path};

/// One peer.
#[derive(Debug, Clone, Copy)]
pub struct PeerView<'a>(&'a Link);

impl<'a> PeerView<'a> {
    /// The peer.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.0.node
    }

    /// Its end of the link, if it was ever heard.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.0.end
    }

    /// The own end.
    #[must_use]
    pub fn own(&self) -> End {
        self.0.own
    }

    /// What it said when it connected last, if it ever did.
    #[must_use]
    pub fn hello(&self) -> Option<&'a Hello> {
        self.0.hello.as_ref()
    }

    /// The version of its last connection.
    #[must_use]
    pub fn version(&self) -> u16 {
        self.0.version
    }

    /// Until when it counts as down because it flaps, whatever it does.
    #[must_use]
    pub fn held_until(&self) -> Instant {
        self.0.damper.held_until().max(self.0.direct_damper.held_until())
    }

    /// It is counted as Up.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.0.up
    }

    /// Its direct link works, and is not held down.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.0.direct_ok
    }

    /// The connection in use, alive or not.
    #[must_use]
    pub fn connection(&self) -> Option<ConnectionId> {
        self.0.direct.as_ref().map(|direct| direct.conn)
    }

    /// The way of frames to it.
    #[must_use]
    pub fn path(&self) -> Path {
        self.0.path
    }

    /// The last round trip that was measured.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.0.round_trip
    }

    /// Whom it says to reach directly.
    #[must_use]
    pub fn neighbours(&self) -> &'a BTreeSet<NodeId> {
        &self.0.neighbours
    }

    /// What came of its streams.
    #[must_use]
    pub fn received(&self) -> Acks {
        self.0.acks()
    }

    /// Frames and bytes of control that wait or are not acknowledged.
    #[must_use]
    pub fn control_waiting(&self) -> (usize, usize) {
        self.0.control_out.waiting()
    }

    /// Frames and bytes of data that wait.
    #[must_use]
    pub fn data_waiting(&self) -> (usize, usize) {
        self.0.data_out.waiting()
    }

    /// Frames and bytes of bulk that wait.
    #[must_use]
    pub fn bulk_waiting(&self) -> (usize, usize) {
        self.0.bulk_out.waiting()
    }

    /// Bytes that are on their way over a neighbour.
    #[must_use]
    pub fn relay_flight(&self) -> usize {
        if matches!(self.0.path, Path::Via(_)) { self.0.flight() } else { 0 }
    }
}

impl Links {
    /// The peers, by id.
    pub fn peers(&self) -> impl Iterator<Item = PeerView<'_>> {
        self.links.values().map(PeerView)
    }

    /// One peer.
    #[must_use]
    pub fn peer(&self, node: NodeId) -> Option<PeerView<'_>> {
        self.links.get(&node).map(PeerView)
    }

    /// Who was reached last where it was dialed.
    pub fn reached(&self) -> impl Iterator<Item = (&Address, NodeId)> {
        self.dials.reached_nodes()
    }

    /// Connections that are not confirmed to be closed, and bytes that wait on them for other nodes.
    #[must_use]
    pub fn connections(&self) -> (usize, usize) {
        (self.connections.len(), self.connections.values().map(|connection| connection.relay_waiting()).sum())
    }
}
