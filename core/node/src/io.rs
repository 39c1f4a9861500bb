//! Inputs and outputs of a shard.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use newtmq_access::Bans;
use newtmq_base::{ConnId, Incarnation, Instant, ListenerId, NodeId, RequestId, SEED_BYTES, ShardId, WallTime};
use newtmq_mqtt::{QoS, ReasonCode};

use crate::admin::OperatorCommand;
use crate::config::AccessConfig;
use crate::control::{FromControl, ToControl};
use crate::hooks::{Event, Question, Verdict};
use crate::place::PlaceMessage;
use crate::store::{Batch, RecoveredChunk, StoreState};
use crate::trace::Traces;

/// What a shard starts from.
#[derive(Debug, Clone)]
pub struct Boot {
    /// Monotonic time at the start.
    pub now: Instant,
    /// Wall-clock time at the same moment, for what is shown to people.
    pub wall: WallTime,
    /// Seed of all randomness.
    pub seed: [u8; SEED_BYTES],
    /// The node.
    pub node: NodeId,
    /// The start of the node.
    pub incarnation: Incarnation,
    /// The shard of the node.
    pub shard: ShardId,
    /// How many shards the node has.
    pub shards: u16,
    /// Divides clients and topics among the shards; the same for all of them, and at each start of the node: marks of lanes,
    /// names of QoS 2 messages and what other nodes keep for its sessions are for a shard.
    pub node_seed: u64,
    /// Other nodes may have to know of subscriptions.
    pub clustered: bool,
    /// Connections ask the control plane for their sessions, which may be at other nodes. Only with [`Boot::clustered`].
    pub claims: bool,
}

/// Who is at the other end of a connection. 18 bytes instead of the 32 of a `SocketAddr`: every idle connection has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// IPv4 addresses are mapped into IPv6.
    ip: [u8; 16],
    port: u16,
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Peer {
        let ip = match address.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
            IpAddr::V6(ip) => ip.octets(),
        };
        Peer { ip, port: address.port() }
    }
}

impl Peer {
    /// Remote address; without the scope of a link-local one.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::from(self.ip).to_canonical(), self.port)
    }
}

/// Everything that can happen to a shard.
pub enum ShardInput<'a> {
    /// Time has passed; work that was left may go on.
    Tick,
    /// A network connection was accepted.
    Opened {
        /// The driver's name for it.
        conn: ConnId,
        /// Where it came in.
        listener: ListenerId,
        /// Who it is.
        peer: Peer,
        /// The User Name that its certificate gives it; the one of CONNECT does not count then.
        username: Option<Box<str>>,
    },
    /// A connection that another shard had, by [`Output::Move`]. Bytes that came after its CONNECT follow as usual.
    Moved {
        /// This driver's name for it.
        conn: ConnId,
        /// What the other shard knows of it.
        moved: Box<Moved>,
    },
    /// Bytes arrived.
    Bytes {
        /// Where.
        conn: ConnId,
        /// What, in any chunking.
        data: &'a [u8],
    },
    /// The network connection is gone.
    Closed {
        /// Which.
        conn: ConnId,
        /// Why.
        cause: CloseCause,
    },
    /// The session of an open connection gets another will, or none: what MQTT-SN has and MQTT has not. Answered by
    /// [`Output::WillSet`].
    SetWill {
        /// Where.
        conn: ConnId,
        /// The will.
        will: Option<Box<NewWill>>,
    },
    /// Keeps some bytes with the session of an open connection, in place of those before, as safe as the session: what the
    /// gateway for MQTT-SN knows of the client. [`Output::Record`] gives them back.
    Keep {
        /// Where.
        conn: ConnId,
        /// What.
        record: Box<[u8]>,
    },
    /// The session of an open connection is to outlive it, as if its CONNECT had said so.
    Outlive {
        /// Where.
        conn: ConnId,
        /// Session Expiry Interval in seconds; the zone's limit holds.
        expiry_interval: u32,
    },
    /// A hook answered.
    Decided {
        /// The question's number.
        request: RequestId,
        /// The answer.
        verdict: Verdict,
    },
    /// Another shard of the node says something.
    Place {
        /// Which.
        from: ShardId,
        /// What.
        message: PlaceMessage,
    },
    /// The control plane says something.
    Control(FromControl),
    /// An operator or the driver wants something.
    Admin(AdminCommand),
    /// What was stored before this start. Connections wait until the last of it.
    Recovered(Box<RecoveredChunk>),
    /// Batches of [`Output::Store`] are stored.
    Stored {
        /// All up to this one.
        upto: u64,
        /// The segment of the log that is being written.
        segment: u64,
    },
    /// The store has no space, or works again, or has failed.
    Store(StoreState),
    /// Segments are to be freed: everything that is only in those before this one is to be stored again.
    Renew {
        /// The first segment that stays.
        before: u64,
    },
}

impl core::fmt::Debug for ShardInput<'_> {
    /// Without bytes of clients, among which may be passwords.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            ShardInput::Tick => f.write_str("Tick"),
            ShardInput::Opened { conn, listener, peer, username } => {
                write!(f, "Opened({conn}, {listener:?}, {}, {username:?})", peer.address())
            }
            ShardInput::Moved { conn, moved } => write!(f, "Moved({conn}, {moved:?})"),
            ShardInput::Bytes { conn, data } => write!(f, "Bytes({conn}, {} B)", data.len()),
            ShardInput::Closed { conn, cause } => write!(f, "Closed({conn}, {cause:?})"),
            ShardInput::SetWill { conn, will } => write!(f, "SetWill({conn}, {})", will.is_some()),
            ShardInput::Keep { conn, record } => write!(f, "Keep({conn}, {} B)", record.len()),
            ShardInput::Outlive { conn, expiry_interval } => write!(f, "Outlive({conn}, {expiry_interval})"),
            ShardInput::Decided { request, verdict } => write!(f, "Decided({request:?}, {verdict:?})"),
            ShardInput::Place { from, message } => write!(f, "Place({from:?}, {message:?})"),
            ShardInput::Control(message) => write!(f, "Control({message:?})"),
            ShardInput::Admin(command) => write!(f, "Admin({command:?})"),
            ShardInput::Recovered(chunk) => write!(f, "Recovered({} sessions)", chunk.sessions.len()),
            ShardInput::Stored { upto, segment } => write!(f, "Stored({upto}, segment {segment})"),
            ShardInput::Store(state) => write!(f, "Store({state:?})"),
            ShardInput::Renew { before } => write!(f, "Renew({before})"),
        }
    }
}

/// A will that comes in the middle of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewWill {
    /// Will Topic; a valid Topic Name.
    pub topic: Box<str>,
    /// Will Payload.
    pub payload: Box<[u8]>,
    /// Will QoS.
    pub qos: QoS,
    /// Will Retain.
    pub retain: bool,
    /// Will Delay Interval in seconds.
    pub delay_interval: u32,
}

/// A connection on its way to the shard of its client.
pub struct Moved {
    /// Where it came in.
    pub listener: ListenerId,
    /// Who it is.
    pub peer: Peer,
    /// The User Name that its certificate gives it.
    pub username: Option<Box<str>>,
    /// The CONNECT packet that says where it belongs.
    pub connect: Box<[u8]>,
}

impl core::fmt::Debug for Moved {
    /// Without the packet, which may hold a password.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Moved({}, CONNECT of {} B)", self.peer.address(), self.connect.len())
    }
}

/// Why a network connection is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseCause {
    /// The client closed it.
    Peer,
    /// Reading or writing failed.
    Error,
    /// The shard asked for it.
    Asked,
}

/// What an operator or the driver wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminCommand {
    /// The node stops: wills that are due are published, then every client is sent away (MQTT 5: 0x8B).
    Shutdown,
    /// The process has come to another level of memory use.
    MemoryPressure(MemoryPressure),
    /// Other rules of who may do what. What connections remember of the old ones is dropped; subscriptions that were made
    /// stay.
    SetAccess(Box<AccessConfig>),
    /// These are banned, and nobody else: refused at CONNECT with 0x8A. Who is connected stays until somebody sends it away.
    SetBans(Arc<Bans>),
    /// Other clients and topics are watched.
    SetTraces(Arc<Traces>),
    /// Something with a client or a message.
    OfOperator(Box<OperatorCommand>),
}

/// What `memory.high_watermark` asks of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum MemoryPressure {
    /// There is enough memory.
    #[default]
    None,
    /// QoS 0 messages that would have to wait are dropped.
    Shed,
    /// The same, and a client that publishes with QoS 1 or 2 or RETAIN is not read for `max_publisher_hold` after each
    /// such message, or until this ends.
    Hold,
}

/// How much of [`ShardInput::Bytes`] was taken. Of other inputs there is nothing to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Taken {
    /// Bytes that the shard has no more need of.
    pub bytes: usize,
    /// The driver keeps the rest, does not read, and goes on at [`Output::Resume`].
    pub hold: bool,
}

/// Whether [`crate::Shard::fill`] has more to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Fill {
    /// Nothing is left; [`Output::Ready`] comes before there is more.
    Drained,
    /// Call again when the socket can take bytes.
    More,
}

/// What a shard asks of its driver.
#[derive(Debug)]
pub enum Output {
    /// There is output for this connection: call [`crate::Shard::fill`] until it is drained.
    Ready(ConnId),
    /// The hold of this connection is over: pass on what was kept, then read again.
    Resume(ConnId),
    /// Write what `fill` still gives, close the connection, and answer with [`ShardInput::Closed`].
    Close {
        /// Which.
        conn: ConnId,
        /// Why, for logs.
        reason: ReasonCode,
    },
    /// Close the connection at once; it had its time to take what was left.
    Abort(ConnId),
    /// The connection belongs to another shard: the driver forgets it without [`ShardInput::Closed`] and passes it on,
    /// with what it keeps, as [`ShardInput::Moved`].
    Move {
        /// Which.
        conn: ConnId,
        /// The shard of its client.
        to: ShardId,
        /// What to tell that shard.
        moved: Box<Moved>,
    },
    /// Tell another shard of the node something. What is sent to one shard arrives in order.
    Place {
        /// Which.
        to: ShardId,
        /// What.
        message: PlaceMessage,
    },
    /// Tell the control plane something. It arrives in order.
    Control(ToControl),
    /// There are frames for other nodes: pass on to the control plane what [`crate::Shard::take_lanes`] gives, at the end of
    /// this round at the latest. Said once until then.
    Lanes,
    /// Answers [`ShardInput::SetWill`].
    WillSet {
        /// Which.
        conn: ConnId,
        /// The will is as was asked for; else it is as it was.
        permitted: bool,
    },
    /// What [`ShardInput::Keep`] kept with the session of this connection; before its CONNACK.
    Record {
        /// Which.
        conn: ConnId,
        /// The bytes.
        record: Box<[u8]>,
    },
    /// A hook has to decide; the connection is held until [`ShardInput::Decided`].
    Decide {
        /// Number of the question.
        request: RequestId,
        /// The question.
        question: Box<Question>,
    },
    /// A client has connected more often than its zone allows; it is let in all the same.
    Flaps {
        /// Client Identifier.
        client: Box<str>,
        /// Index of its zone.
        zone: u16,
    },
    /// A hook is told.
    Event(Box<Event>),
    /// Store this; answered by [`ShardInput::Stored`]. Batches of a shard are stored in order.
    Store(Box<Batch>),
}

/// Where a shard pushes its outputs; the driver empties it after each call.
#[derive(Debug, Default)]
pub struct Outbox {
    outputs: Vec<Output>,
}

impl Outbox {
    /// Adds one.
    #[inline]
    pub fn push(&mut self, output: Output) {
        self.outputs.push(output);
    }

    /// Takes all of them out, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = Output> {
        self.outputs.drain(..)
    }

    /// Whether nothing is in it.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use newtmq_base::ConnId;
    use newtmq_mqtt::Decoder;

    use super::ShardInput;

    #[test]
    fn bytes_of_clients_are_not_shown() {
        // A password may be among them.
        let data = &[0x10, 0x20, 77, 78, 79][..];
        let mut decoder = Decoder::new();
        assert!(matches!(decoder.next(&mut { data }, 1000), Ok(None)));
        let input = ShardInput::Bytes { conn: ConnId { slot: 1, generation: 1 }, data };
        for shown in [format!("{input:?}"), format!("{decoder:?}")] {
            assert!(!shown.contains("77") && shown.contains('5'), "{shown}");
        }
    }
}
