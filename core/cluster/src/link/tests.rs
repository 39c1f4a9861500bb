//! Tests of links: the handshake by table, links on a network of which every byte is in the test's hand.

#![allow(clippy::wildcard_enum_match_arm)]

mod codec;
mod hand;
mod net;
#[cfg(newtmq_mutants)]
mod planted;
mod property;
mod scenario;
