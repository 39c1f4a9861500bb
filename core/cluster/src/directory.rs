//! The session directory: which node has a client's connection, which has its session, and who gives way to whom.
//!
//! One node of those that reach each other is the *seat*: the leader of the meta group, or, where there has been no leader
//! for a while, the lowest of those who all see the same nodes. A node with a new connection sends the seat a Claim. The seat
//! has the old connection fenced, then grants the claim with a higher [`Epoch`]; the node attaches the connection to the
//! session at its *home*, whichever node that is. A seat keeps nothing on a disk: whoever begins asks all nodes what they
//! have, and grants nothing before.
//!
//! Each node obeys one seat at a time, the one that it has told last what it has. Both name that by a number, the round, in
//! all that they say to each other, so that nothing from an earlier seat or an earlier time counts.
//!
//! This part decides who has a client. It knows no packets and no messages, keeps no session, and writes nothing.

mod config;
mod entry;
mod io;
mod member;
mod message;
mod node;
mod rank;
mod seat;
mod summary;
#[cfg(test)]
mod tests;

pub use crate::lane::Epoch;
pub use config::{AwayHome, Config};
pub use io::{Counts, Grant, Input, Output, Refused, Why};
pub use message::{Client, Conn, Item, Link, Message, Report, Session};
pub use node::{Directory, Place, Seated};
pub use summary::Summary;
