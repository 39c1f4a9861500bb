//! Links: one to each peer, authenticated, with streams that survive a reconnect.
//!
//! [`Links`] is all of them. The driver (or a simulator) hands it what happens to connections, writes what
//! [`Links::fill`] gives, and opens and closes what it says. Others give it frames for a peer and get those of the peer, in
//! order, and are told when a peer is Up or Down.
//!
//! - A connection begins with a [`Handshake`]: who, of which cluster, and the proof that it has the cookie. What is refused
//!   is refused with a reason that both sides can log.
//! - A peer is Up as long as both directions have worked within [`Config::detect`]: each side is told what the other one
//!   has heard, so both notice that only one direction is cut.
//! - A direct link that is dead for [`Config::relay_after`] is replaced by one neighbour of both, until it works again.
//! - Everything is numbered for a pair of ends ([`End`]); a receiver takes the next number only. A peer that has started
//!   anew has another end: nothing that was meant for the old one comes to it.
//!
//! This module knows nothing of what the frames mean, who should be a member, or which addresses are right.

mod config;
mod connection;
mod damper;
mod dial;
mod event;
mod frame;
mod handshake;
mod hello;
mod lifecycle;
mod links;
mod peer;
mod relay;
mod stream;
mod view;

#[cfg(test)]
mod tests;

pub use config::Config;
pub use dial::{Address, DialId};
pub use event::{CloseCause, Counters, DownCause, Event, Input, Output, Unsent};
pub use frame::{Acks, Decoder, End, Frame, Heartbeat, InvalidLength, Passed, RunMark, Stream};
pub use handshake::{Accepted, Gate, Handshake, Step};
pub use hello::{Cookie, Hello, NONCE_BYTES, Refusal, Role};
pub use links::{ConnectionId, Fill, Links, Own};
pub use peer::Path;
pub use view::PeerView;
