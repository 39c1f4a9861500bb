//! The NewtMQ broker: the shell around the core. It owns everything that touches the world: sockets, files, the
//! clock, the command line. The rules of MQTT and of the cluster are in `core/`; none is decided here.

pub mod access;
pub mod admin;
pub mod alarms;
#[cfg(not(madsim))]
pub mod api;
pub mod banner;
pub mod cert;
pub mod check;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod ctl;
#[cfg(not(madsim))]
pub mod dashboard;
pub mod data;
pub mod demo;
pub mod driver;
#[cfg(all(target_os = "linux", not(madsim)))]
pub mod epoll;
pub mod exit;
pub mod limits;
pub mod listener;
pub mod logging;
pub mod memory;
pub mod net;
#[cfg(not(madsim))]
mod process;
pub mod reload;
pub mod rt;
pub mod run;
#[cfg(not(madsim))]
mod service;
pub mod settings;
pub mod sn;
pub mod store;
pub mod traces;
#[cfg(not(madsim))]
pub mod web;
