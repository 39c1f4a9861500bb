//! What nodes say to each other, and what each of them makes of it: links, membership, replicated logs, lanes.
//!
//! Every part is a value without clock, sockets or chance of its own: it takes inputs with the time, and says what to send.
//! `core/node` joins them to the shards and to control.

mod consensus;
pub mod directory;
pub mod lane;
pub mod link;
pub mod meta;
pub mod owned;
pub mod retained;
pub mod swim;
