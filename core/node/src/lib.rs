//! The data plane of a node: [`Shard`] joins packets, sessions and topics. It is driven by inputs and pushes outputs;
//! it never touches a socket, a clock or a file (docs/adr/0001).

mod batch;
mod config;
mod conn;
mod hooks;
mod io;
mod ledger;
mod outbuf;
mod shard;
mod view;

pub use batch::WriteBatch;
pub use config::{ListenerConfig, MqttConfig, RetainedConfig, ShardConfig, ZoneConfig};
pub use hooks::{AclAction, Event, Hook, HookSet, Question, Verdict};
pub use io::{AdminCommand, Boot, CloseCause, Fill, Outbox, Output, Peer, ShardInput, Taken};
pub use ledger::{DropReason, Ledger};
pub use outbuf::OUTPUT_HIGH_BYTES;
pub use shard::{Shard, TimerKind};
pub use view::{ConnView, ShardView};
