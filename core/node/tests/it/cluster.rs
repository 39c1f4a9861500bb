//! What only several nodes can get wrong: shards of different nodes, with lanes between them that lose, delay and cut off
//! what is on them. Routes are told by a stand-in for the control planes, which copies what each node's shards change.

mod agreed;
mod control;
mod directory;
mod groups;
mod holds;
mod kept;
mod plain;
#[cfg(newtmq_mutants)]
mod planted;
mod qos2;
mod routes;
mod speed;
mod stored;
mod takeover;
mod talk;
mod wide;
mod world;
