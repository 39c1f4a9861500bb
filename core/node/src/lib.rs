//! The data plane of a node: [`Shard`] joins packets, sessions and topics. It is driven by inputs and pushes outputs;
//! it never touches a socket, a clock or a file (docs/adr/0001).

mod admin;
mod batch;
mod cluster;
mod config;
mod conn;
mod control;
mod hooks;
mod io;
mod keeper;
mod ledger;
mod memory;
mod outbuf;
mod place;
mod rate;
mod replay;
mod shard;
mod store;
mod trace;
mod traffic;
mod view;
mod wills;

pub use admin::{
    ClientInfo, From, OperatorCommand, Page, RetainedInfo, SessionInfo, ShardAnswer, ShardQuestion, SubscriptionInfo,
    Walk, Which,
};
pub use batch::WriteBatch;
pub use cluster::{
    Chart, Cluster, ClusterAnswer, ClusterBoot, ClusterCommand, ClusterConfig, ClusterCounts, ClusterEvent,
    ClusterInput, ClusterOutput, ClusterStatus, Examination, Finding, NodeStatus, Release, RetainedChart,
    SessionsChart, Severity, Sight, Unready,
};
pub use config::{AccessConfig, DenyAction, ListenerConfig, MqttConfig, RetainedConfig, ShardConfig, ZoneConfig};
pub use control::{
    Control, ControlBoot, ControlInput, ControlOutput, FromControl, PeerNews, QuotaKind, Report, RetainedCounts,
    RetainedNews, RetainedOutcome, ToControl, datetime, uptime,
};
pub use hooks::{AclAction, Event, Grant, Hook, HookSet, Question, Verdict};
pub use io::{
    AdminCommand, Boot, CloseCause, Fill, MemoryPressure, Moved, NewWill, Outbox, Output, Peer, ShardInput, Taken,
};
pub use keeper::{Keeper, KeeperConfig, KeeperOutput, Next as KeeperNext, SESSIONS_LOG};
pub use ledger::{DropReason, Ledger};
pub use memory::{MemoryGauge, MemoryMarks};
pub use outbuf::{OUTPUT_HIGH_BYTES, OUTPUT_MAX_BYTES};
pub use place::{
    GroupPublish, Obstacle, PlaceMessage, Reader, RetainedChunk, RetainedRead, SHARDS_MAX, Stamp, place_id,
};
pub use rate::Rate;
pub use replay::{Dividing, Lost, Replay, TIME_BEHIND_MAX};
pub use shard::{LANE_HIGH_BYTES, Shard, TimerKind};
pub use store::{Batch, Durability, Joint, RecoveredChunk, RecoveredRetained, StoreState};
pub use trace::{Traced, Traces};
pub use traffic::Traffic;
pub use view::{Checked, ConnView, Inconsistency, Rule, ShardView, ShareView};
pub use wills::{WillNews, WillNote, WillSaid};
