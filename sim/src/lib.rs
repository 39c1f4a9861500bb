//! The deterministic testbed of NewtMQ. A [`Scenario`] says what clients do and what goes wrong; [`run()`] carries it out in
//! a simulated world, around the same core that runs in production, and gives a [`Report`] of everything that must hold
//! and did not. The same scenario gives the same report, byte for byte.
//!
//! ```
//! use newtmq_sim::{Scenario, run};
//!
//! let scenario = Scenario::parse(
//!     "hello.toml",
//!     r#"
//!     format = 1
//!     [[client]]
//!     name = "a"
//!     [[step]]
//!     at_ms = 0
//!     do = "connect"
//!     client = "a"
//!     [[step]]
//!     at_ms = 10
//!     do = "subscribe"
//!     client = "a"
//!     filter = "hello/#"
//!     qos = 1
//!     [[step]]
//!     at_ms = 20
//!     do = "publish"
//!     client = "a"
//!     topic = "hello/world"
//!     qos = 1
//!     "#,
//! )
//! .expect("it is a scenario");
//! let report = run(&scenario);
//! assert_eq!(report.verdict_name(), "ok");
//! assert!(report.obligations.of(newtmq_sim::Check::Lost) > 0);
//! assert_eq!(report.trace_hash, run(&scenario).trace_hash);
//! ```
//!
//! [`run_with`] takes invariants as values ([`report::Invariant`]), [`generate`] has strategies for proptest, and [`shrink`]
//! makes a scenario small that violates something.

mod canonical;
pub mod check;
pub mod client;
pub mod draw;
pub mod explain;
pub mod generate;
mod guard;
pub mod heal;
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
