//! Hook points, named as EMQ X users know them. Some tell ([`Event`]), some decide ([`Question`] and [`Verdict`]);
//! only those in the [`HookSet`] cost anything.

use std::net::SocketAddr;
use std::sync::Arc;

use newtmq_access::Acl;
use newtmq_base::{ConnId, Instant};
use newtmq_mqtt::{QoS, ReasonCode};

use crate::ledger::DropReason;

/// A hook point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Hook {
    /// `client.connected`: tells.
    ClientConnected,
    /// `client.disconnected`: tells.
    ClientDisconnected,
    /// `client.authenticate`: decides.
    ClientAuthenticate,
    /// `client.check_acl`: decides.
    ClientCheckAcl,
    /// `client.subscribe`: decides.
    ClientSubscribe,
    /// `client.unsubscribe`: tells.
    ClientUnsubscribe,
    /// `session.created`: tells.
    SessionCreated,
    /// `session.resumed`: tells.
    SessionResumed,
    /// `session.subscribed`: tells.
    SessionSubscribed,
    /// `session.unsubscribed`: tells.
    SessionUnsubscribed,
    /// `session.terminated`: tells.
    SessionTerminated,
    /// `message.publish`: decides.
    MessagePublish,
    /// `message.received`, not in EMQ X: tells of what was accepted from a publisher, before it is delivered.
    MessageReceived,
    /// `message.deliver`: tells.
    MessageDeliver,
    /// `message.acked`: tells.
    MessageAcked,
    /// `message.dropped`: tells.
    MessageDropped,
}

impl Hook {
    /// Every hook point, in order.
    pub const ALL: [Hook; 16] = [
        Hook::ClientConnected,
        Hook::ClientDisconnected,
        Hook::ClientAuthenticate,
        Hook::ClientCheckAcl,
        Hook::ClientSubscribe,
        Hook::ClientUnsubscribe,
        Hook::SessionCreated,
        Hook::SessionResumed,
        Hook::SessionSubscribed,
        Hook::SessionUnsubscribed,
        Hook::SessionTerminated,
        Hook::MessagePublish,
        Hook::MessageReceived,
        Hook::MessageDeliver,
        Hook::MessageAcked,
        Hook::MessageDropped,
    ];

    /// Whether it is asked, and does not only tell.
    #[must_use]
    pub fn decides(self) -> bool {
        matches!(self, Hook::ClientAuthenticate | Hook::ClientCheckAcl | Hook::ClientSubscribe | Hook::MessagePublish)
    }

    /// Its name in configuration and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Hook::ClientConnected => "client.connected",
            Hook::ClientDisconnected => "client.disconnected",
            Hook::ClientAuthenticate => "client.authenticate",
            Hook::ClientCheckAcl => "client.check_acl",
            Hook::ClientSubscribe => "client.subscribe",
            Hook::ClientUnsubscribe => "client.unsubscribe",
            Hook::SessionCreated => "session.created",
            Hook::SessionResumed => "session.resumed",
            Hook::SessionSubscribed => "session.subscribed",
            Hook::SessionUnsubscribed => "session.unsubscribed",
            Hook::SessionTerminated => "session.terminated",
            Hook::MessagePublish => "message.publish",
            Hook::MessageReceived => "message.received",
            Hook::MessageDeliver => "message.deliver",
            Hook::MessageAcked => "message.acked",
            Hook::MessageDropped => "message.dropped",
        }
    }
}

/// A set of hook points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HookSet(u16);

impl HookSet {
    /// This set with `hook`.
    #[must_use]
    pub fn with(self, hook: Hook) -> HookSet {
        HookSet(self.0 | 1 << hook as u8)
    }

    /// What is in either.
    #[must_use]
    pub fn union(self, other: HookSet) -> HookSet {
        HookSet(self.0 | other.0)
    }

    /// Whether `hook` is in it.
    #[must_use]
    #[inline]
    pub fn has(self, hook: Hook) -> bool {
        self.0 & (1 << hook as u8) != 0
    }
}

/// Something happened at a hook point that tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Which hook point.
    pub hook: Hook,
    /// The connection, where one is concerned.
    pub conn: Option<ConnId>,
    /// Client Identifier; empty for a message without one (a server's own).
    pub client: Box<str>,
    /// Topic Name or Topic Filter, where one is concerned.
    pub topic: Option<Box<str>>,
    /// Why, where there is a reason.
    pub reason: ReasonCode,
    /// Of a message that was received or delivered: its QoS.
    pub qos: Option<QoS>,
    /// Of a message that was delivered: it waits in the client's queue.
    pub waits: bool,
    /// Of a message that was dropped for a session: why.
    pub dropped: Option<DropReason>,
    /// An operator watches this client or topic ([`crate::Traces`]).
    pub traced: bool,
}

/// What a client wants to do with a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AclAction {
    /// PUBLISH.
    Publish,
    /// SUBSCRIBE.
    Subscribe,
}

/// A question to a hook that decides. Secrets in it are for the one who answers, never for a log: no `Debug` shows them.
#[derive(Clone, PartialEq, Eq)]
pub enum Question {
    /// May this client connect, or how does its authentication exchange go on (section 4.12)?
    Authenticate {
        /// The connection: the steps of an exchange belong together by it.
        conn: ConnId,
        /// Who is at its other end.
        peer: SocketAddr,
        /// Client Identifier.
        client: Box<str>,
        /// User Name.
        username: Option<Box<str>>,
        /// Password.
        password: Option<Box<[u8]>>,
        /// Authentication Method; none for plain user name and password.
        method: Option<Box<str>>,
        /// Authentication Data of this step.
        data: Option<Box<[u8]>>,
        /// Topic Name of the will of a CONNECT: who decides about topics need not be asked again for it.
        will: Option<Box<str>>,
    },
    /// May this client do that with these topics?
    CheckAcl {
        /// Who is at the other end.
        peer: SocketAddr,
        /// Client Identifier.
        client: Box<str>,
        /// User Name.
        username: Option<Box<str>>,
        /// What it wants to do.
        action: AclAction,
        /// One Topic Name, or the Topic Filters of a SUBSCRIBE.
        topics: Vec<Box<str>>,
    },
    /// `client.subscribe`: may these subscriptions be made?
    Subscribe {
        /// Client Identifier.
        client: Box<str>,
        /// Topic Filters.
        topics: Vec<Box<str>>,
    },
    /// `message.publish`: may this message be published?
    Publish {
        /// Client Identifier.
        client: Box<str>,
        /// Topic Name.
        topic: Box<str>,
        /// Payload.
        payload: Box<[u8]>,
    },
}

impl core::fmt::Debug for Question {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Question::Authenticate { conn: _, peer, client, username, password: _, method, data: _, will: _ } => {
                write!(f, "Authenticate {{ peer: {peer}, client: {client:?}, ")?;
                write!(f, "username: {username:?}, method: {method:?} }}")
            }
            Question::CheckAcl { peer: _, client, username: _, action, topics } => {
                write!(f, "CheckAcl {{ client: {client:?}, action: {action:?}, topics: {topics:?} }}")
            }
            Question::Subscribe { client, topics } => {
                write!(f, "Subscribe {{ client: {client:?}, topics: {topics:?} }}")
            }
            Question::Publish { client, topic, payload } => {
                write!(f, "Publish {{ client: {client:?}, topic: {topic:?}, payload: {} B }}", payload.len())
            }
        }
    }
}

/// What goes with the right to connect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grant {
    /// Rules of this connection alone; they are asked before those of the node.
    pub rules: Option<Arc<Acl>>,
    /// No rule counts for it.
    pub superuser: bool,
    /// The connection ends then (MQTT 5: 0xA0).
    pub until: Option<Instant>,
}

/// The answer to a [`Question`].
#[derive(Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Yes. `data` is Authentication Data to send along, for [`Question::Authenticate`] with a method.
    Allow {
        /// Authentication Data for CONNACK or AUTH.
        data: Option<Box<[u8]>>,
    },
    /// Yes, for [`Question::Authenticate`] without a method, and more.
    Grant(Box<Grant>),
    /// No, with the reason to answer.
    Deny(ReasonCode),
    /// The authentication exchange goes on with this challenge.
    Continue(Box<[u8]>),
    /// One reason per topic of the question; an error refuses that topic.
    Each(Vec<ReasonCode>),
}

impl core::fmt::Debug for Verdict {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Verdict::Allow { .. } => f.write_str("Allow"),
            Verdict::Grant(_) => f.write_str("Grant"),
            Verdict::Deny(reason) => write!(f, "Deny({reason})"),
            Verdict::Continue(_) => f.write_str("Continue"),
            Verdict::Each(reasons) => write!(f, "Each({reasons:?})"),
        }
    }
}
