//! Lanes: messages from a shard of one node to a shard of another, in order, each once.
//!
//! A publisher's session lives at one shard, so a lane from shard to shard keeps each publisher's order for free. The
//! sender numbers what it sends and keeps it until the receiver has stored it ([`PeerOut`], one for each remote node); the
//! receiver takes only the next number, from the sender's present incarnation ([`LanesIn`], one for each own shard). Credit
//! returns when the receiver has enqueued a message, never when a client acknowledges it. [`AckGates`] hold a publisher's
//! acknowledgements until every place that its message went to has answered.
//!
//! Lanes know neither routes nor sessions: who is meant is said by the caller, and what comes out is given to it. Loss,
//! duplicates, reordering and resets of the links are dealt with here; nothing is ever delivered behind a later message of
//! its lane.

mod gate;
mod guids;
mod inward;
mod message;
mod out;
mod parcel;
mod peer;
mod publication;
#[cfg(test)]
mod scenes;
#[cfg(test)]
mod trial;

use core::time::Duration;

use newtmq_base::EXPIRY_STRETCH_PPM;

pub use gate::{AckGates, Busy, GateId, Outcome, Settled};
pub use guids::SeenGuids;
pub use inward::{Delivery, InCounts, LaneInView, LanesIn};
pub use message::{Bundle, Epoch, Frame, Guid, Header, Mark, Probe, Receipt, Refusal, What, Window};
pub use out::{LaneOutView, OutCounts};
pub use parcel::{Frames, Parcel};
pub use peer::{Gone, Output, PeerOut, Post, Sent, Target, Ticket};
pub use publication::{Press, Publication, PublicationParts};

/// Limits and times of lanes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Messages of a lane that the receiver may hold and has not enqueued; at least 1.
    pub window_messages: u32,
    /// Bytes of those. A single message may be larger.
    pub window_bytes: u32,
    /// Messages of a lane that wait at the sender for credit or a link; more are refused.
    pub waiting_messages: usize,
    /// Bytes of those.
    pub waiting_bytes: u64,
    /// Messages of a lane that are sent and that the receiver has not stored; no more are sent. Also the refusals that a
    /// receiver keeps until the sender has seen them.
    pub unstored_messages: usize,
    /// Bytes of those. A single message may be larger.
    pub unstored_bytes: u64,
    /// What happens with QoS 0 when there is no credit.
    pub qos0: Qos0,
    /// How long a message may go without an answer before its publisher is told.
    pub ticket_max: Duration,
    /// How long a lane waits for progress before it asks the receiver what has come.
    pub probe_after: Duration,
    /// By how much a remaining expiry is stretched on its way, in millionths.
    pub expiry_stretch_ppm: u32,
    /// QoS 2 messages that a shard remembers until their publisher has released them; the oldest are forgotten.
    pub guids: usize,
    /// Releases of QoS 2 messages that are kept for a node that is away; the oldest are forgotten.
    pub releases: usize,
}

/// What happens with QoS 0 messages for a lane without credit. Those for other lanes go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qos0 {
    /// They are dropped and counted.
    Drop,
    /// They wait as others do, and the publisher is to be held ([`Sent::paused`]); when no more can wait they are dropped.
    Pause,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            window_messages: 16_384,
            window_bytes: 4 << 20,
            waiting_messages: 8192,
            waiting_bytes: 8 << 20,
            unstored_messages: 32_768,
            unstored_bytes: 16 << 20,
            qos0: Qos0::Drop,
            ticket_max: Duration::from_secs(10),
            probe_after: Duration::from_secs(1),
            expiry_stretch_ppm: EXPIRY_STRETCH_PPM,
            guids: 65_536,
            releases: 65_536,
        }
    }
}

/// Most shards of a node that lanes go to.
pub const SHARDS_MAX: u16 = 128;

/// What a message costs beside its bytes in a lane's account.
const COST_BYTES: usize = 64;
