//! The deterministic testbed of NewtMQ. A [`Scenario`] says what clients do and what goes wrong; [`run`] carries it out in
//! a simulated world, around the same core that runs in production, and gives a [`Report`] of everything that must hold
//! and did not. The same scenario gives the same report, byte for byte.

mod canonical;
pub mod check;
pub mod client;
pub mod draw;
pub mod explain;
pub mod generate;
mod guard;
pub mod history;
pub mod html;
pub mod json;
mod kernel;
#[cfg(madsim)]
#[allow(clippy::disallowed_types, reason = "a driver is Send, and the clock is madsim's")]
mod madsim;
pub mod observer;
pub mod report;
mod run;
pub mod scenario;
pub mod shrink;
pub mod timeline;
mod whitebox;
mod words;

pub use report::{Check, Report, Verdict};
pub use run::{Options, can_run, run, run_with};
pub use scenario::Scenario;
