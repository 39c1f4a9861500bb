//! The real program in its own process, over real sockets: what only shows there. The rules of MQTT are tested in
//! `core/`, faster and without waiting.
//!
//! Tests run in parallel, each with a broker of its own on a port that the operating system picks. Nothing waits for a
//! time to pass: it waits for a condition, and fails at [`broker::DEADLINE`].
//!
//! Tests that are `ignored` need programs that are not everywhere; `./check` installs them and runs those tests.
#![cfg(not(madsim))]
// A test says what it expects by failing.
#![allow(clippy::unwrap_used)]

mod access;
mod api;
mod broker;
mod capture;
mod client;
mod clients;
mod cluster;
mod config;
mod ctl;
mod dashboard;
mod discovery;
mod dns;
mod docs;
mod durability;
mod healing;
mod leaving;
mod let_in;
mod libraries;
mod limits;
mod mcast;
mod packaging;
mod programs;
mod records;
mod revoked;
mod security;
mod slow;
mod sn;
mod start;
mod stop;
mod transports;
