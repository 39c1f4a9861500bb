//! The meta group over a network that loses, repeats, reorders and cuts, with disks that lose what was not synced.

mod adversary;
mod codec;
mod founding;
mod members;
mod net;
#[cfg(newtmq_mutants)]
mod planted;
mod procedures;
