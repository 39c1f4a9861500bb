//! Whole control planes with shards that only keep books, over a network and disks that are values.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod claims;
mod leases;
mod measures;
#[cfg(newtmq_mutants)]
mod planted;
mod retained;
mod scenes;
mod swarm;
mod wills;
mod world;
