//! What is wrong with this node: raised once, cleared once, and told each time to the log and below
//! `$SYS/brokers/NODE/alarms`. It measures and compares; it changes nothing about what the broker does.

mod board;
#[cfg(not(madsim))]
mod measure;
#[cfg(not(madsim))]
mod watch;

pub use board::{Alarm, Board, Change, Severity};
#[cfg(not(madsim))]
pub use watch::watch;
