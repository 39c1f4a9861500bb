//! What links say: to the driver, to who uses them, to logs.

use bytes::Bytes;
use newtmq_base::{Incarnation, NodeId};

use super::dial::{Address, DialId};
use super::frame::Stream;
use super::hello::{Hello, Refusal};
use super::links::ConnectionId;
use super::peer::Path;

/// What happens to links. Data of connections are in the order in which they came.
#[derive(Debug)]
pub enum Input<'a> {
    /// The deadline has passed. A spurious one does nothing.
    Tick,
    /// A connection was accepted, or one that was asked for is open.
    Opened {
        /// The driver's name for it, never used before.
        conn: ConnectionId,
        /// What it answers; None if it was accepted.
        dial: Option<DialId>,
        /// Both sides have authenticated each other by TLS, with certificates of the cluster.
        tls: bool,
    },
    /// A connection that was asked for cannot be opened.
    DialFailed(DialId),
    /// Bytes came.
    Bytes {
        /// On this connection.
        conn: ConnectionId,
        /// Any number of them.
        data: &'a [u8],
    },
    /// A connection is gone: by the other side, by an error, or after [`Output::Close`].
    Closed(ConnectionId),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Open a connection, within [`Config::dial_timeout`](super::Config::dial_timeout).
    Dial {
        /// To be named in the answer.
        dial: DialId,
        /// Where to.
        address: Address,
    },
    /// [`Links::fill`](super::Links::fill) has something for it. Said once until it is called.
    Ready(ConnectionId),
    /// Send what [`Links::fill`](super::Links::fill) gives, close it, and say [`Input::Closed`].
    Close(ConnectionId, CloseCause),
    /// A frame of a peer, in order.
    Frame {
        /// Who sent it.
        peer: NodeId,
        /// On this stream.
        stream: Stream,
        /// What it gave to `send`.
        payload: Bytes,
    },
    /// Something that others want to know.
    Event(Event),
}

/// What others want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A peer is reached in both directions. Frames of it come only between this and the next `Down`.
    Up {
        /// The peer.
        peer: NodeId,
        /// Its start.
        incarnation: Incarnation,
    },
    /// A peer is not reached any more.
    Down {
        /// The peer.
        peer: NodeId,
        /// Its start.
        incarnation: Incarnation,
        /// Why.
        cause: DownCause,
    },
    /// A peer has begun anew: nothing that was sent to it and not handled by it before will arrive.
    Reset {
        /// The peer.
        peer: NodeId,
        /// Its present start.
        incarnation: Incarnation,
    },
    /// Data and bulk that were on their way to the peer may be lost: send them again.
    Broken {
        /// The peer.
        peer: NodeId,
    },
    /// Frames to a peer take another way.
    Path {
        /// The peer.
        peer: NodeId,
        /// The way.
        path: Path,
    },
    /// A connection has passed the handshake.
    Connected {
        /// The connection.
        conn: ConnectionId,
        /// What the peer said.
        hello: Hello,
        /// The version that both speak.
        version: u16,
    },
    /// A connection was refused.
    Refused {
        /// The connection.
        conn: ConnectionId,
        /// Where it was dialed to, if it was.
        address: Option<Address>,
        /// Who the other side said that it is, if it came to that. It may be a lie.
        claimed: Option<NodeId>,
        /// Why.
        reason: Refusal,
        /// The other side has refused, not this one.
        by_peer: bool,
    },
}

/// Why a peer is Down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DownCause {
    /// Nothing came from it.
    Silent,
    /// It is heard, but has not heard this node.
    Unheard,
    /// It has started anew, or has forgotten this node.
    Restarted,
    /// The caller has removed it.
    Removed,
}

/// Why a connection is closed by this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseCause {
    /// One side has refused it, as the event says.
    Refused,
    /// Another one with the same peer is used.
    Replaced,
    /// Nothing came, or arrived, on it.
    Silent,
    /// What came was not of the protocol.
    Malformed,
    /// The peer, or this node's link with it, has begun anew.
    Stale,
    /// The caller has removed the peer.
    Removed,
}

/// Why a frame was not taken. It is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsent {
    /// There is no link with that node.
    #[error("there is no link with the node")]
    NoLink,
    /// The peer is Down, and the stream is not control.
    #[error("the peer is down")]
    Down,
    /// As much as the limit allows is waiting.
    #[error("too much is waiting for the peer")]
    Full,
    /// It is larger than a frame may be.
    #[error("it is larger than a frame may be")]
    TooLarge,
}

/// What was counted since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Frames that were not taken because the peer is Down, or there is none.
    pub unsent_down: u64,
    /// Control frames that were not taken because too much is waiting.
    pub unsent_control_full: u64,
    /// Data frames of which the same holds.
    pub unsent_data_full: u64,
    /// Bulk chunks of which the same holds.
    pub unsent_bulk_full: u64,
    /// Frames that were not taken because they are too large.
    pub unsent_too_large: u64,
    /// Data and bulk frames that waited when their peer went Down.
    pub dropped_down: u64,
    /// Frames that had come before.
    pub received_old: u64,
    /// Frames that were ahead of others.
    pub received_ahead: u64,
    /// Frames of peers that are not Up.
    pub received_shut: u64,
    /// Frames over a neighbour for, or of, an earlier life of a link.
    pub received_stale: u64,
    /// Frames that were passed on.
    pub passed_on: u64,
    /// Frames that were not passed on because source and destination are not both direct neighbours.
    pub relay_refused: u64,
    /// Frames that were not passed on because too much is waiting.
    pub relay_full: u64,
    /// How often what was sent over a neighbour was not acknowledged in time.
    pub relay_resends: u64,
    /// Connections that were closed because of what came.
    pub malformed: u64,
    /// Connections that this side refused.
    pub refused: u64,
    /// Connections that the other side refused.
    pub refused_by_peer: u64,
    /// Addresses that were ignored because there are too many.
    pub addresses_ignored: u64,
    /// Times that a peer was held Down, or a direct link unused, although it was alive.
    pub damped: u64,
}
