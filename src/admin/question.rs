//! The questions, and what an answer is made of.

use bytes::Bytes;
use newtmq_access::{AccountKind, BanWho};
use newtmq_mqtt::{OwnedTopicFilter, QoS};
use newtmq_node::{From, Traced, Which};
use serde_json::Value;

use crate::config::{LogLevel, Secret};

/// What an operator asks, or wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Who the node is, and that it runs.
    Broker,
    /// This node, as one of the cluster.
    Node,
    /// The nodes of the cluster.
    Nodes,
    /// What each node answers to this question: an object with its `node`, and the answer by this name.
    Each(&'static str, Box<Question>),
    /// Connected clients.
    Clients(Which, Part),
    /// Sessions.
    Sessions(Which, Part),
    /// Subscriptions.
    Subscriptions(Which, Part),
    /// Filters and the nodes that have subscribers of them: all, or this one.
    Routes(Option<String>, Part),
    /// Retained messages of the topics that a filter matches.
    Retained(Option<OwnedTopicFilter>, Part),
    /// Devices of the gateways for MQTT-SN.
    Devices(Part),
    /// The gateways for MQTT-SN of a node.
    Gateways,
    /// Listeners.
    Listeners,
    /// A listener accepts no connection any more: its transport, and its address or port.
    StopListener(String, String),
    /// Plugins of EMQ X, and whether they are a part of the broker.
    Plugins,
    /// How many there are of what.
    Stats,
    /// Counters.
    Metrics,
    /// The account of messages.
    Ledger,
    /// What is known of a client, or of a topic.
    Where(String),
    /// Whether clients are served.
    Ready,
    /// End a client's connection.
    Kick(String),
    /// Publish a message, to some topics.
    Publish(Vec<Publication>),
    /// Subscribe a connected client.
    Subscribe {
        /// Client Identifier.
        client: String,
        /// Filters.
        filters: Vec<OwnedTopicFilter>,
        /// Maximum QoS.
        qos: QoS,
    },
    /// Take a subscription from a connected client.
    Unsubscribe {
        /// Client Identifier.
        client: String,
        /// The filter.
        filter: OwnedTopicFilter,
    },
    /// How the cluster is, as this node sees it.
    Cluster,
    /// What is wrong with the cluster, after all members were asked.
    Doctor,
    /// The configuration that holds here, without secrets.
    Configs,
    /// Who may connect and do what, as it is configured here.
    Access,
    /// What is wrong with this node.
    Alarms,
    /// What was, and is over.
    PastAlarms,
    /// Read the configuration, users, rules and certificates again.
    Reload,
    /// Set the level of the log.
    LogLevel(LogLevel),
    /// Trace a client or topics.
    TraceStart(Traced),
    /// Trace them no more.
    TraceStop(Traced),
    /// What is traced.
    Traces,
    /// What has happened to it.
    TraceShow(Traced),
    /// Who may use the HTTP API.
    Apps,
    /// One of them.
    App(String),
    /// Another one, with a name; its secret is told once.
    AddApp(String, String),
    /// Permit or refuse one.
    EnableApp(String, bool),
    /// Remove one.
    DeleteApp(String),
    /// Users, or Client Identifiers, that were added while the broker runs.
    Accounts(AccountKind, Part),
    /// One of them.
    Account(AccountKind, String),
    /// Another one, with its password.
    AddAccount(AccountKind, String, Secret),
    /// Another password of one.
    UpdateAccount(AccountKind, String, Secret),
    /// Remove one, and end its connections.
    DeleteAccount(AccountKind, String),
    /// Who is banned.
    Bans(Part),
    /// Ban somebody.
    Ban {
        /// Whom.
        who: BanWho,
        /// Why, for people.
        reason: String,
        /// Who does it, if it is said.
        by: Option<String>,
        /// Until when, in seconds since 1970; none is for ever.
        until: Option<u64>,
    },
    /// Ban somebody no more.
    Unban(BanWho),
    /// What operators have done at this node, the latest first.
    Audit(Part),
}

/// A message to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Topic Name, valid, and not the server's.
    pub topic: String,
    /// Payload.
    pub payload: Bytes,
    /// QoS.
    pub qos: QoS,
    /// RETAIN.
    pub retain: bool,
}

/// A part of many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Where it begins.
    pub cursor: Cursor,
    /// So many are left out.
    pub skip: usize,
    /// Most that are answered.
    pub limit: usize,
}

impl Part {
    /// A page by its number, from 1.
    #[must_use]
    pub fn page(page: usize, limit: usize) -> Part {
        Part { cursor: Cursor::default(), skip: page.saturating_sub(1).saturating_mul(limit), limit }
    }
}

/// A place among what all shards have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor {
    /// The node's name; none for the one that is asked.
    pub(super) node: Option<String>,
    /// The shard.
    pub(super) shard: usize,
    /// In its own order.
    pub(super) from: From,
}

impl Cursor {
    /// Reads what [`Cursor`] shows; none if it is something else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Cursor> {
        let (node, text) = match text.split_once('|') {
            Some((node, text)) => (Some(node.to_owned()), text),
            None => (None, text),
        };
        let (shard, rest) = text.split_once('.')?;
        let from = match rest.split_at_checked(1)? {
            ("s", "") => From::Start,
            ("k", key) => From::At(key.parse().ok()?),
            ("t", topic) => From::After(topic.into()),
            _ => return None,
        };
        Some(Cursor { node, shard: shard.parse().ok()?, from })
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(node) = &self.node {
            write!(f, "{node}|")?;
        }
        match &self.from {
            From::Start => write!(f, "{}.s", self.shard),
            From::At(key) => write!(f, "{}.k{key}", self.shard),
            From::After(topic) => write!(f, "{}.t{topic}", self.shard),
        }
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// For programs.
    pub data: Value,
    /// Of what is many: how many there are.
    pub count: Option<u64>,
    /// Of what is many: where it goes on.
    pub next: Option<Cursor>,
    /// Of what is of the whole cluster: nodes that are down or have not answered.
    pub missing: Vec<String>,
}

impl Answer {
    pub(super) fn of(data: Value) -> Answer {
        Answer { data, count: None, next: None, missing: Vec::new() }
    }
}

/// Why there is no answer, with the code of EMQ X.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// The code.
    pub code: u16,
    /// What is wrong, for people.
    pub message: String,
    /// What HTTP calls it.
    pub status: u16,
}

impl Fault {
    /// With this code.
    pub fn new(code: u16, message: impl Into<String>) -> Fault {
        let status = match code {
            // As in EMQ X.
            Fault::OFFLINE => 200,
            Fault::RPC => 503,
            _ => 400,
        };
        Fault { code, message: message.into(), status }
    }

    pub(super) fn with_status(mut self, status: u16) -> Fault {
        self.status = status;
        self
    }

    pub(super) fn stopping() -> Fault {
        Fault::new(Fault::RPC, "the broker is stopping")
    }

    /// Somebody does not answer.
    pub const RPC: u16 = 101;
    /// Something else.
    pub const OTHER: u16 = 102;
    /// A parameter is missing.
    pub const MISSING: u16 = 107;
    /// A parameter is not what it must be.
    pub const TYPE: u16 = 108;
    /// Not JSON.
    pub const JSON: u16 = 109;
    /// The client is not connected.
    pub const OFFLINE: u16 = 112;
    /// No topic.
    pub const TOPIC: u16 = 115;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_is_shown() {
        for from in [From::Start, From::At(7), From::After("a.b/k".into()), From::After("".into())] {
            for node in [None, Some("a@b".to_owned())] {
                let cursor = Cursor { node, shard: 3, from: from.clone() };
                assert_eq!(Cursor::parse(&cursor.to_string()), Some(cursor));
            }
        }
        for text in ["", "1", "1.", "1.x", "a.s", "1.k", "1.kx", "1.s1"] {
            assert_eq!(Cursor::parse(text), None, "{text}");
        }
    }
}
