//! What goes into [`super::Directory`] and what comes out of it.

use std::collections::BTreeSet;

use newtmq_base::{Incarnation, NodeId};

use super::message::{Client, Conn, Message};
use crate::lane::Epoch;

/// What has come in.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Time has passed. May come late, or for nothing.
    Tick,
    /// A member has sent a message. Messages may be lost, repeated and reordered; who sent it is certain.
    Message {
        /// Who.
        from: NodeId,
        /// Which start of it. Only those of the one that is up count.
        inc: Incarnation,
        /// What.
        message: Message,
    },
    /// Whether the node is in no cluster, so that nobody else decides. It has no term then: its epochs are provisional.
    Alone(bool),
    /// The node belongs to another cluster than before, of which it knows nothing: terms are counted anew there.
    Elsewhere,
    /// A node can be reached. Again with a higher incarnation: it has started anew.
    Up {
        /// The node.
        node: NodeId,
        /// Its incarnation.
        inc: Incarnation,
    },
    /// A node counts as down.
    Down {
        /// The node.
        node: NodeId,
    },
    /// The members of the cluster, whether up or down.
    Members(BTreeSet<NodeId>),
    /// What the meta group says of its leader, when it changes.
    Leader {
        /// Its term, or the highest that is known.
        term: u64,
        /// The leader that is heard; `None` if there is none.
        node: Option<NodeId>,
    },
    /// A connection of this node wants its session: CONNECT was accepted.
    Claim {
        /// Whose.
        client: Client,
        /// The connection.
        conn: Conn,
        /// Clean Start: a session that is there ends.
        clean: bool,
        /// Whether a session that begins now is stored (T1).
        durable: bool,
        /// For the home: what the connection can take. Opaque here.
        limits: Box<[u8]>,
    },
    /// A connection has ended, or an [`Output::Fence`] was carried out.
    Closed {
        /// Whose.
        client: Client,
        /// The connection.
        conn: Conn,
    },
    /// The shard has done an [`Output::Attach`].
    Attached {
        /// Whose.
        client: Client,
        /// Of the [`Output::Attach`].
        epoch: Epoch,
        /// Session Present.
        present: bool,
        /// For the connection's node. Opaque here.
        answer: Box<[u8]>,
    },
    /// The session of another node that a connection of this one was granted is here now, all of it, and is stored if it is
    /// to be. [`Output::Moved`] when it counts; until then nobody may use it. [`Output::Lost`] if it never will.
    Moved {
        /// Whose.
        client: Client,
        /// The connection.
        conn: Conn,
        /// Of the [`Output::Granted`].
        epoch: Epoch,
        /// As of [`Input::Recovered`].
        clean: Epoch,
        /// Whether it is stored.
        durable: bool,
    },
    /// This node has a session that was read from its disk, before it can be reached.
    Recovered {
        /// Whose.
        client: Client,
        /// With which epoch it was attached last.
        epoch: Epoch,
        /// With which epoch it began by a clean start; [`Epoch::ZERO`] else.
        clean: Epoch,
    },
    /// A session of this node has ended, by expiry, or with its connection, or since an [`Output::Lost`] was carried out.
    Ended {
        /// Whose.
        client: Client,
        /// With which epoch it was attached last. If there was an [`Output::Attach`] since, that begins a new one.
        epoch: Epoch,
    },
    /// What the owned log of another node says: it has a stored session. So one can be known of that is out of reach.
    Home {
        /// The node.
        owner: NodeId,
        /// Whose.
        client: Client,
        /// Whether it has.
        present: bool,
    },
    /// What an owned log says, that of this node before its start, or another one's: at `home` is a session of before
    /// `epoch` that does not count any more.
    Supersedes {
        /// Who says so: this node or another one.
        by: NodeId,
        /// Whose.
        client: Client,
        /// Since when.
        epoch: Epoch,
        /// Where.
        home: NodeId,
        /// Whether it says so, or does no more.
        put: bool,
    },
}

/// What is to be done, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// A message for another node; may be lost.
    Send {
        /// Who.
        to: NodeId,
        /// For its [`Input::Message`].
        message: Message,
    },
    /// This node, which leads, knows an epoch of a later term, as of a session that was in another cluster: it can give none
    /// that counts before it leads in a later one.
    Raise {
        /// The later term.
        term: u64,
    },
    /// The connection has its session. Also when its epoch rises after a partition: the later one counts.
    Granted(Grant),
    /// A connection that was claimed gets nothing; it is forgotten here.
    Refused {
        /// Whose.
        client: Client,
        /// The connection.
        conn: Conn,
        /// Why.
        why: Refused,
    },
    /// A connection has to end: nothing more is to be taken from it or sent to it but DISCONNECT 0x8E. [`Input::Closed`]
    /// when that is so.
    Fence {
        /// Whose.
        client: Client,
        /// The connection.
        conn: Conn,
        /// The session's new epoch: what has a lower one does not count.
        epoch: Epoch,
        /// Why.
        why: Why,
    },
    /// A connection of this or another node attaches to the session here; if there is none, or it begins clean, a new one
    /// begins. Whatever was attached before with a lower epoch is cut off. [`Input::Attached`] when that is so.
    Attach {
        /// Whose.
        client: Client,
        /// Where the connection is.
        node: NodeId,
        /// The connection there.
        conn: Conn,
        /// The session's epoch from now on.
        epoch: Epoch,
        /// Whether a session that is there ends first.
        clean: bool,
        /// Whether a new one is stored.
        durable: bool,
        /// Whether a new one stands beside one at a node that is down, of which something may be handed on when that is back.
        fork: bool,
        /// Of its [`Input::Claim`].
        limits: Box<[u8]>,
    },
    /// The session here is the client's, and the one that it was made of is not any more.
    Moved {
        /// Whose.
        client: Client,
        /// Of the [`Input::Moved`].
        epoch: Epoch,
    },
    /// The session here has lost its client to one at another node. [`Input::Ended`] when it is no more.
    Lost {
        /// Whose.
        client: Client,
        /// The epoch that the winner has at least.
        epoch: Epoch,
        /// Where the winner is. What was never sent goes there, unless `discard`.
        to: NodeId,
        /// Whether the client has started clean since, so that nothing of it may come back.
        discard: bool,
    },
    /// To be put into this node's owned log, before CONNACK, or to be removed from it: at `home` is a session of before
    /// `epoch` that does not count any more.
    Supersedes {
        /// Whose.
        client: Client,
        /// Since when.
        epoch: Epoch,
        /// Where.
        home: NodeId,
        /// Whether it is put or removed.
        put: bool,
    },
}

/// A connection's session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Whose.
    pub client: Client,
    /// The connection.
    pub conn: Conn,
    /// The session's epoch.
    pub epoch: Epoch,
    /// The node with the session.
    pub home: NodeId,
    /// Session Present, as the home says.
    pub present: bool,
    /// From [`Input::Attached`] at the home.
    pub answer: Box<[u8]>,
}

/// Why a claim gets nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The client has connected again (0x8E).
    Superseded,
    /// Nobody who may decide could be reached, or the node with the session could not (0x88).
    Unavailable,
    /// Too many wait (0x97).
    Full,
}

/// Why a connection is fenced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// The client has connected again.
    Takeover,
    /// After a partition the client was found to have a later connection.
    Conflict,
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Messages that are of no seat or round that counts, or of a start of a node that is not up.
    pub stale: u64,
    /// Claims that the seat has granted.
    pub granted: u64,
    /// Claims that the seat has turned away, since the client has a later connection.
    pub superseded: u64,
    /// Conflicts that the seat has decided.
    pub conflicts: u64,
    /// Sessions that lost their client.
    pub lost: u64,
    /// Sessions that began beside one that is out of reach, with or without a clean start.
    pub forks: u64,
    /// Takeovers without an answer of the old connection's node.
    pub unanswered: u64,
    /// Claims of this node that were refused since too many waited, or too many sessions elsewhere do not count.
    pub full: u64,
    /// Claims that the seat has turned away since it knows too many clients.
    pub crowded: u64,
    /// Stored sessions of other nodes that are not known one by one, since there are too many.
    pub unrecorded: u64,
    /// Clients whose epoch was forgotten before its time.
    pub forgotten: u64,
    /// Claims of this node that nobody answered in time.
    pub expired: u64,
    /// Times that this node had too much to report and began anew with the seat.
    pub overruns: u64,
}
