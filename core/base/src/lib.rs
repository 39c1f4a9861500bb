//! What every part of the core shares: time as a value, identifiers, one random number generator, timers and maps
//! that cannot be iterated by accident.
//!
//! This crate owns no rule of MQTT or of the cluster. Nothing here reads a clock, an environment or a file.

mod fields;
mod ids;
mod lookup;
mod mutant;
mod rng;
mod slab;
mod time;
mod timer;

pub use fields::{InvalidField, Put, Take};
pub use ids::{ConnId, Incarnation, ListenerId, NodeId, RequestId, ShardId};
pub use lookup::{HashSeed, LookupMap, LookupTable};
#[cfg(newtmq_mutants)]
pub use mutant::Mutant;
pub use rng::{Rng, SEED_BYTES};
pub use slab::Slab;
pub use time::{EXPIRY_STRETCH_PPM, Instant, WallTime};
pub use timer::TimerQueue;
