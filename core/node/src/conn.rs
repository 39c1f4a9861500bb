//! One network connection as the shard sees it.

use std::collections::{BTreeMap, VecDeque};

use newtmq_access::AclCache;
use newtmq_base::{ConnId, Instant, RequestId};
use newtmq_mqtt::{Decoder, OwnedTopicFilter, PacketId, PacketType, ProtocolVersion, ReasonCode};
use newtmq_topic::Memo;

use crate::hooks::Grant;
use crate::io::Peer;
use crate::outbuf::OutBuf;
use crate::place::Obstacle;
use crate::shard::{Asides, Claiming, Gates, Meter};

/// No session, no connection.
pub(crate) const NONE: u32 = u32::MAX;

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Whether there may be one connection more is not known yet; nothing is read.
    AwaitGrant,
    /// Nothing but CONNECT may come [MQTT-3.1.0-1].
    AwaitConnect,
    /// A CONNECT waits for a verdict, or for the client's next AUTH (section 4.12).
    Authenticating,
    /// A CONNECT was accepted, and waits for its session.
    Claiming,
    /// CONNACK was sent.
    Open,
    /// The shard asked the driver to close; input is ignored.
    Closing,
}

/// Kept small: a node has very many of them, nearly all idle. What few have is in [`Rare`].
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) generation: u32,
    /// Session slab key, or [`NONE`].
    pub(crate) session: u32,
    pub(crate) phase: Phase,
    pub(crate) version: ProtocolVersion,
    /// `Ready` was pushed and `fill` has not drained the output since.
    pub(crate) ready: bool,
    /// Its output is above the limit and has not moved for slow_consumer_timeout.
    pub(crate) stalled: bool,
    /// The driver was told to keep the input until [`crate::Output::Resume`].
    pub(crate) held: bool,
    /// What only some zones have.
    pub(crate) features: Features,
    pub(crate) listener: u16,
    pub(crate) zone: u16,
    /// Keep Alive in seconds; 0 for none.
    pub(crate) keep_alive: u16,
    /// The client's Receive Maximum, within max_inflight.
    pub(crate) receive_maximum: u16,
    /// The client's Maximum Packet Size.
    pub(crate) max_packet_size: u32,
    /// Last packet from the client.
    pub(crate) heard: Instant,
    /// When its timer is armed; [`Instant::NEVER`] for not.
    pub(crate) timer: Instant,
    pub(crate) decoder: Decoder,
    pub(crate) out: OutBuf,
    /// What its last publish matched.
    pub(crate) memo: Memo,
    pub(crate) rare: Option<Box<Rare>>,
    pub(crate) peer: Peer,
}

/// A set of features, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Features(u8);

/// What [`Features`] may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Feature {
    /// Its topics have a mountpoint, in [`Rare::mount`].
    Mounted = 1,
    /// It has a `publish_limit` or `rate_limit`, in [`Rare::meter`].
    Metered = 2,
    /// Its client gets again what it does not acknowledge.
    Retries = 4,
    /// It is one of its listener's connections.
    Counted = 8,
    /// A SUBSCRIBE of it waits for the other shards.
    Subscribing = 16,
    /// Its CONNACK waits for the store: nothing may be sent before.
    Greeting = 32,
    /// The directory knows of it.
    Claimed = 64,
    /// It came with Clean Start.
    CleanStart = 128,
}

impl Features {
    #[inline]
    pub(crate) fn has(self, feature: Feature) -> bool {
        self.0 & feature as u8 != 0
    }

    pub(crate) fn remove(&mut self, feature: Feature) {
        self.0 &= !(feature as u8);
    }

    pub(crate) fn add(&mut self, feature: Feature) {
        self.0 |= feature as u8;
    }
}

// A node has very many connections: a field more is a decision.
const _: () = assert!(size_of::<Option<Conn>>() <= 152);

/// What only some connections have.
#[derive(Debug, Default)]
pub(crate) struct Rare {
    /// Topic Alias → Topic Name, from the client. Index is alias - 1.
    pub(crate) aliases_in: Vec<Option<Box<[u8]>>>,
    /// Topic Name → Topic Alias, toward the client.
    pub(crate) aliases_out: BTreeMap<Box<[u8]>, u16>,
    /// The client's Topic Alias Maximum.
    pub(crate) alias_maximum: u16,
    /// Publishers that wait for this connection's output to drain.
    pub(crate) waiters: Vec<Waiter>,
    /// What this publisher waits for.
    pub(crate) waiting_on: Vec<Target>,
    /// It is not read meanwhile, for its acknowledgements alone would not hold it.
    pub(crate) unread: bool,
    /// Acknowledgements withheld meanwhile, in order [MQTT-4.6.0-2].
    pub(crate) withheld: VecDeque<(PacketType, PacketId, ReasonCode)>,
    /// Those that wait for other nodes, or behind one that does.
    pub(crate) gates: Option<Box<Gates>>,
    /// It is not read, for too many of those wait.
    pub(crate) gated: bool,
    /// When the wait began.
    pub(crate) wait_since: Instant,
    /// A packet that waits for a verdict.
    pub(crate) pending: Option<Pending>,
    /// Publishes that wait until the node knows for whom they are, and what has come behind them.
    pub(crate) asides: Option<Box<Asides>>,
    /// If `pending` is a SUBSCRIBE: what an earlier hook said of its filters; empty if nothing was refused.
    pub(crate) refused: Vec<ReasonCode>,
    /// Its fan-out is not finished.
    pub(crate) fan_out: bool,
    /// Authentication Method of this connection (section 4.12).
    pub(crate) method: Option<Box<str>>,
    /// A re-authentication is going on.
    pub(crate) reauthenticating: bool,
    /// The CONNECT of an authentication that needs several steps.
    pub(crate) connect: Option<Aside>,
    /// A CONNECT that waits for its session.
    pub(crate) claim: Option<Box<Claiming>>,
    /// User Name, of a certificate or of CONNECT.
    pub(crate) username: Option<Box<str>>,
    /// Mountpoint, its placeholders replaced.
    pub(crate) mount: Option<Box<str>>,
    /// What came with the right to connect.
    pub(crate) grant: Option<Box<Grant>>,
    /// `publish_limit` and `rate_limit`.
    pub(crate) meter: Option<Box<Meter>>,
    /// It is not read until then.
    pub(crate) paced_until: Option<Instant>,
    /// That is for the memory of the process.
    pub(crate) pressed: bool,
    /// When its unacknowledged packets are looked at next.
    pub(crate) retry_at: Option<Instant>,
    /// When its QoS 2 identifiers are looked at next.
    pub(crate) rel_at: Option<Instant>,
    /// The topic of its last publish that the rules permitted, and their generation.
    pub(crate) permitted: Box<[u8]>,
    pub(crate) permitted_generation: u32,
    /// It is not read until the store has space: what it published last waits there.
    pub(crate) unstored: bool,
    /// More of what the rules said.
    pub(crate) acl_cache: AclCache,
}

/// A publisher that waits for something at this shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiter {
    Here(ConnId),
    /// At another shard, which was told by the hold of this number.
    There(u16, ConnId, u64),
}

impl Waiter {
    /// Whether it is this publisher of another shard.
    pub(crate) fn is_there(&self, shard: u16, publisher: ConnId) -> bool {
        matches!(self, Waiter::There(of, conn, _) if (*of, *conn) == (shard, publisher))
    }
}

/// What a publisher waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    /// The output of the connection in this slot.
    Here(u32),
    /// Something at another shard.
    There(u16, Obstacle),
    /// Another shard, to work off what was sent to it.
    Lane(u16),
    /// Another node, to have room for more; by its slot.
    Peer(u8),
}

/// Subscriptions that were made here, and that some shard may not know yet.
#[derive(Debug)]
pub(crate) struct PendingSuback {
    pub(crate) packet_id: PacketId,
    pub(crate) reasons: Vec<ReasonCode>,
    /// Readings of retained messages that begin when it is sent.
    pub(crate) readings: Vec<OwnedTopicFilter>,
}

/// A packet put aside until a hook has decided.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) request: RequestId,
    pub(crate) stage: Stage,
    pub(crate) packet: Aside,
}

/// The bytes of a packet that was put aside.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Aside(Box<[u8]>);

impl From<&[u8]> for Aside {
    fn from(packet: &[u8]) -> Aside {
        Aside(packet.into())
    }
}

impl core::ops::Deref for Aside {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl core::fmt::Debug for Aside {
    /// Without the bytes: a CONNECT may hold a password.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Aside({} B)", self.0.len())
    }
}

/// Which question is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// `client.authenticate` of a CONNECT.
    Authenticate,
    /// The same of an AUTH on an open connection (section 4.12.1).
    Reauthenticate,
    /// `client.check_acl` of a PUBLISH or SUBSCRIBE.
    CheckAcl,
    /// `message.publish`.
    Publish,
    /// `client.subscribe`.
    Subscribe,
    /// No hook, but the log of retained messages.
    Retain,
}

impl Conn {
    pub(crate) fn new(generation: u32, listener: u16, zone: u16, peer: Peer, now: Instant) -> Conn {
        Conn {
            generation,
            session: NONE,
            phase: Phase::AwaitGrant,
            version: ProtocolVersion::V311,
            ready: false,
            stalled: false,
            held: false,
            features: Features::default(),
            listener,
            zone,
            keep_alive: 0,
            receive_maximum: u16::MAX,
            max_packet_size: u32::MAX,
            heard: now,
            timer: Instant::NEVER,
            decoder: Decoder::new(),
            out: OutBuf::default(),
            memo: Memo::default(),
            rare: None,
            peer,
        }
    }

    pub(crate) fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Whether its publishes wait for a target's output.
    pub(crate) fn waits(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| !rare.waiting_on.is_empty())
    }

    pub(crate) fn withholds(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| !rare.withheld.is_empty())
    }

    /// Acknowledgements that wait for other nodes.
    pub(crate) fn gates(&self) -> usize {
        let gates = self.rare.as_ref().and_then(|rare| rare.gates.as_ref());
        gates.map_or(0, |gates| gates.len())
    }

    pub(crate) fn alias_maximum(&self) -> u16 {
        self.rare.as_ref().map_or(0, |rare| rare.alias_maximum)
    }
}
