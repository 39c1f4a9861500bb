//! The codec, and the gateway in front of a whole shard.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "a test fails by panicking")]

mod adversary;
mod behaviour;
mod chaos;
mod codec;
#[cfg(newtmq_mutants)]
mod planted;
mod world;
