//! What an operator asks a shard, and what it answers: values of its own, a bounded page at a time. The answers are in
//! [`crate::ShardView::answer`], what changes something is an [`OperatorCommand`]. It knows no way by which anybody asks.

use std::net::SocketAddr;

use bytes::Bytes;
use newtmq_base::ListenerId;
use newtmq_mqtt::{OwnedTopicFilter, QoS};

use crate::control::Report;

/// Entries that a shard looks at for one question; then the others have their turn.
pub(crate) const LOOKED_AT_MAX: usize = 4096;

/// A question to one shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardQuestion {
    /// Who is connected.
    Clients(Which, Walk),
    /// Sessions, connected or waiting.
    Sessions(Which, Walk),
    /// Subscriptions of sessions.
    Subscriptions(Which, Walk),
    /// Retained messages of the topics that a filter matches, or of all but the server's own, in the order of topics.
    Retained(Option<OwnedTopicFilter>, Walk),
    /// Its figures.
    Figures,
    /// Whether it serves clients, and knows for whom messages are.
    Ready,
}

/// What of all is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Which {
    /// All.
    #[default]
    All,
    /// What is of the client with this identifier.
    Client(Box<str>),
    /// What is of clients with this User Name.
    Username(Box<str>),
    /// Subscriptions that match this Topic Name.
    Matching(Box<str>),
}

/// A part of many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Walk {
    /// Where it begins.
    pub from: From,
    /// So many are left out.
    pub skip: usize,
    /// Most that are answered.
    pub limit: usize,
}

/// Where a walk stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum From {
    /// Before the first.
    #[default]
    Start,
    /// At this place in the shard's own order.
    At(u64),
    /// After this topic.
    After(Box<str>),
}

impl From {
    pub(crate) fn place(&self) -> u64 {
        match self {
            From::At(place) => *place,
            From::Start | From::After(_) => 0,
        }
    }
}

/// A part of many, as it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// What was asked for.
    pub values: Vec<T>,
    /// So many were left out of those that were to be.
    pub skipped: usize,
    /// Where it goes on; none at the end.
    pub next: Option<From>,
}

impl<T> Page<T> {
    pub(crate) fn new() -> Page<T> {
        Page { values: Vec::new(), skipped: 0, next: None }
    }

    /// Takes one that was asked for. Says whether it was left out or has room.
    pub(crate) fn take(&mut self, walk: &Walk, value: impl FnOnce() -> T) -> bool {
        if self.skipped < walk.skip {
            self.skipped += 1;
            return true;
        }
        if self.values.len() >= walk.limit {
            return false;
        }
        self.values.push(value());
        true
    }
}

/// Answers a [`ShardQuestion`].
#[derive(Debug, Clone)]
pub enum ShardAnswer {
    /// Of [`ShardQuestion::Clients`].
    Clients(Page<ClientInfo>),
    /// Of [`ShardQuestion::Sessions`].
    Sessions(Page<SessionInfo>),
    /// Of [`ShardQuestion::Subscriptions`].
    Subscriptions(Page<SubscriptionInfo>),
    /// Of [`ShardQuestion::Retained`].
    Retained(Page<RetainedInfo>),
    /// Of [`ShardQuestion::Figures`], with the number of open connections of each listener.
    Figures(Box<Report>, Box<[u32]>),
    /// Of [`ShardQuestion::Ready`].
    Ready(bool),
}

/// A connected client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientInfo {
    /// Client Identifier.
    pub client: Box<str>,
    /// User Name.
    pub username: Option<Box<str>>,
    /// Remote address.
    pub peer: SocketAddr,
    /// Where it came in.
    pub listener: ListenerId,
    /// Its zone.
    pub zone: Box<str>,
    /// Protocol Version: 3, 4 or 5.
    pub version: u8,
    /// Clean Start.
    pub clean_start: bool,
    /// Keep Alive in seconds; 0 for none.
    pub keep_alive: u16,
    /// When it connected, in seconds since 1970.
    pub connected_at: u64,
    /// What goes in front of its topics.
    pub mountpoint: Option<Box<str>>,
    /// Bytes of output that wait.
    pub output_bytes: usize,
    /// Its input is held.
    pub held: bool,
    /// Its output does not move.
    pub stalled: bool,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionInfo {
    /// Client Identifier.
    pub client: Box<str>,
    /// User Name, while it is connected.
    pub username: Option<Box<str>>,
    /// Its client is connected.
    pub connected: bool,
    /// It ends with its connection.
    pub clean_start: bool,
    /// Session Expiry Interval in seconds; `u32::MAX` is for ever.
    pub expiry_interval: u32,
    /// Subscriptions.
    pub subscriptions: usize,
    /// Most that may be unacknowledged.
    pub max_inflight: usize,
    /// Deliveries that wait for an acknowledgement.
    pub inflight: usize,
    /// Messages that wait.
    pub queued: usize,
    /// Most that may wait.
    pub max_queued: usize,
    /// QoS 2 identifiers that its client has in use.
    pub awaiting_rel: usize,
    /// It outlives the process.
    pub stored: bool,
    /// When it began, or the process with it, in seconds since 1970.
    pub created_at: u64,
}

/// A subscription of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscriptionInfo {
    /// Client Identifier.
    pub client: Box<str>,
    /// Topic Filter, with the mountpoint and a share group if it has them.
    pub filter: Box<str>,
    /// Granted QoS.
    pub qos: QoS,
    /// No Local.
    pub no_local: bool,
    /// Its client is connected.
    pub connected: bool,
}

/// A retained message, without its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetainedInfo {
    /// Topic Name.
    pub topic: Box<str>,
    /// QoS.
    pub qos: QoS,
    /// Bytes of its payload.
    pub payload_bytes: usize,
}

/// What an operator changes. What cannot be done is not done; how it is can be asked afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperatorCommand {
    /// The connection of this client ends (MQTT 5: 0x98). Its session stays as long as it may.
    Kick(Box<str>),
    /// A message of the server.
    Publish {
        /// Topic Name, valid.
        topic: Box<str>,
        /// Application payload.
        payload: Bytes,
        /// QoS.
        qos: QoS,
        /// RETAIN.
        retain: bool,
    },
    /// A subscription of a connected client, without asking the rules. Retained messages are not sent.
    Subscribe {
        /// Client Identifier.
        client: Box<str>,
        /// Topic Filter, as the client would write it.
        filter: OwnedTopicFilter,
        /// Maximum QoS.
        qos: QoS,
    },
    /// A connected client has a subscription no more.
    Unsubscribe {
        /// Client Identifier.
        client: Box<str>,
        /// Topic Filter, as the client would write it.
        filter: OwnedTopicFilter,
    },
}
