//! Behaviour of the shard, driven by the kernel harness: a queue of events, a driver that keeps the contract of
//! docs/adr/0001, and scripted clients that speak through the real codec. Time is virtual; every test runs with several
//! seeds. Statements of the MQTT 5.0 specification that a test covers are named in a comment above it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test looks for one packet among many")]

mod harness;

mod acl;
mod admin;
mod alias;
mod auth;
mod banned;
mod chaos;
mod cluster;
mod connect;
mod disconnect;
mod expiry;
mod flow_control;
mod hold;
mod hooks;
mod keepalive;
mod limits;
mod mount;
mod normative;
mod ordering;
mod overdue;
mod pace;
mod publish_qos;
mod regressions;
mod retained;
mod session;
mod shards;
mod shared;
mod smoke;
mod subscribe;
mod sys;
mod turns;
mod will;
