//! Owned logs: what only one node may change and every node knows.
//!
//! Each node writes one log: which filters its shards have subscribers of, and records that others read. It counts versions
//! from the start of the process, keeps the newest operations, and sends them to all peers; who lacks some fetches them, or
//! the whole state in parts. Copies compare digests. No message can change another log than its sender's.
//!
//! This module decides what every shard matches of other nodes, and when a SUBACK has waited for them long enough. It
//! knows nothing of links, membership or sessions: who is up, down or no member any more it is told.

mod barrier;
mod config;
mod damping;
mod entry;
mod hash;
mod install;
mod lease;
mod log;
mod message;
mod node;
mod replica;
mod table;
#[cfg(test)]
mod tests;

pub use barrier::{BarrierId, Done, Mode};
pub use config::Config;
pub use damping::DampingConfig;
pub use entry::{Class, Op, RecordKind};
pub use hash::DigestKey;
pub use log::{Change, Count, OwnedLog};
pub use message::{Chunk, Delta, Message, Table};
pub use node::{Batch, Output, Owned, OwnedCounts};
pub use replica::{Phase, Replica, ReplicaCounts, RouteChange};
pub use table::Cursor;
