//! The retained group over a network that loses, repeats, reorders and cuts, with disks that lose what was not synced.

mod adversary;
mod codec;
mod net;
#[cfg(newtmq_mutants)]
mod planted;
mod scenes;
