//! What a scenario says of nodes that are a cluster: what they have in common, what is special about one, and the network
//! between them.

use core::ops::RangeInclusive;
use core::time::Duration;

use super::fields::{BYTES_MAX, MS_MAX, Section, US_MAX, Visitor};
use super::kind::{Bool, Int, Kind, Opt, Span, Words};

/// Releases in a scenario at most, beside this one.
pub(super) const LATER_MAX: u8 = 9;
/// Nodes of a scenario at most.
pub const NODES_MAX: u16 = 31;

/// `[cluster]`: what is `None` has the broker's default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClusterSpec {
    /// How nodes find each other.
    pub discovery: Discovery,
    /// `cluster.barrier`
    pub barrier: Barrier,
    /// `cluster.owner_down = "fresh"`: whose stored session is at a node that is down begins another one.
    pub fresh: bool,
    /// Seconds that a member is down before the leader removes it; 0 for never.
    pub autoclean_s: Option<u32>,
    /// Of a hundred parts of what nodes wait for until somebody counts as down, or until they try again, so many. How often
    /// they speak stays.
    pub pace_percent: Option<u32>,
    /// Milliseconds between two heartbeats of a link.
    pub heartbeat_ms: Option<u64>,
    /// Milliseconds without a sign of life after which a peer is down.
    pub detect_ms: Option<u64>,
    /// Milliseconds without a sign of life after which frames go over a neighbour.
    pub relay_after_ms: Option<u64>,
    /// Most voters.
    pub voters_max: Option<u8>,
    /// Entries after which the meta group's log is shortened.
    pub snapshot_every: Option<u64>,
    /// Entries that stay then.
    pub keep_entries: Option<u64>,
    /// Newest operations that a log of routes keeps.
    pub ring_ops: Option<u32>,
    /// Operations of a log in one message.
    pub message_ops: Option<u32>,
    /// Milliseconds that a SUBACK waits at most, with the fast barrier.
    pub barrier_ms: Option<u64>,
    /// Milliseconds of a lease, with the strict barrier.
    pub lease_ms: Option<u64>,
    /// Messages of a lane that the receiver may hold.
    pub lane_window_messages: Option<u32>,
    /// Bytes of those.
    pub lane_window_bytes: Option<u32>,
    /// Messages of a lane that wait at the sender.
    pub lane_waiting_messages: Option<u32>,
    /// Messages of a lane that are sent and not stored.
    pub lane_unstored_messages: Option<u32>,
    /// QoS 0 messages without credit wait, and hold their publisher, instead of being dropped.
    pub lane_pauses_qos0: Option<bool>,
    /// Milliseconds after which the publisher of a message without an answer is told.
    pub ticket_max_ms: Option<u64>,
}

impl ClusterSpec {
    /// Something that nodes wait for, at the scenario's pace.
    #[must_use]
    pub fn paced(&self, span: Duration) -> Duration {
        self.pace_percent.map_or(span, |percent| span * percent / 100)
    }

    /// Time within which something must be done, of which `fixed` is what no pace makes shorter, as an election.
    #[must_use]
    pub fn bound(&self, fixed: Duration, span: Duration) -> Duration {
        fixed.min(span) + self.paced(span.saturating_sub(fixed))
    }
}

/// How nodes of a cluster find each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Discovery {
    /// Each node has the same list of the addresses that all had at first.
    #[default]
    Seeds,
    /// Something tells each node where all are, as soon as that changes.
    Dns,
    /// They do not: an operator tells them to join.
    None,
}

/// `cluster.barrier`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Barrier {
    /// A SUBACK waits for a moment at most.
    #[default]
    Fast,
    /// It waits until nobody can acknowledge a publish that would miss the subscription.
    Strict,
}

impl Section for ClusterSpec {
    fn fields(&mut self, v: &mut impl Visitor) {
        let mut keys = Keys(v);
        keys.members(self);
        keys.queues(self);
    }
}

/// Keys of which what is left out has the broker's default.
struct Keys<'a, V>(&'a mut V);

impl<V: Visitor> Keys<'_, V> {
    fn key<K: Kind>(&mut self, key: &'static str, doc: &'static str, kind: K, value: &mut Option<K::Value>) {
        self.0.optional(key, doc, Opt(kind), value, &None);
    }

    #[rustfmt::skip]
    fn members(&mut self, c: &mut ClusterSpec) {
        let ways = Words(&[("seeds", Discovery::Seeds), ("dns", Discovery::Dns), ("none", Discovery::None)]);
        self.0.optional("discovery", "How nodes find each other: by a list of the addresses that all had at first (`seeds`), by one that is always up to date (`dns`), or not at all (`none`): then `join` brings them together.", ways, &mut c.discovery, &Discovery::Seeds);
        let barriers = Words(&[("fast", Barrier::Fast), ("strict", Barrier::Strict)]);
        self.0.optional("barrier", "How long a SUBACK waits for other nodes: for a moment at most (`fast`), or until none can acknowledge a publish that would miss the subscription (`strict`).", barriers, &mut c.barrier, &Barrier::Fast);
        let owners = Words(&[("wait", false), ("fresh", true)]);
        self.0.optional("owner_down", "What becomes of a client whose stored session is at a node that is down: it is refused until that node is back (`wait`), or begins another one (`fresh`).", owners, &mut c.fresh, &false);
        self.key("autoclean_s", "`cluster.autoclean`, in seconds: a member that is down for so long is removed; 0 for never", Int(0..=u32::MAX), &mut c.autoclean_s);
        self.key("pace_percent", "Of what nodes wait for until somebody counts as down, or until they try again, so many percent; how often they speak stays. Bounds of checks follow it", Int(1..=1_000), &mut c.pace_percent);
        self.key("heartbeat_ms", "Milliseconds between two heartbeats of a link", Int(1..=MS_MAX), &mut c.heartbeat_ms);
        self.key("detect_ms", "Milliseconds without a sign of life after which a peer is down", Int(1..=MS_MAX), &mut c.detect_ms);
        self.key("relay_after_ms", "Milliseconds without a sign of life after which frames go over a neighbour", Int(1..=MS_MAX), &mut c.relay_after_ms);
        self.key("voters_max", "Most voters of the meta group: 1, 3 or 5", Words(&[("1", 1), ("3", 3), ("5", 5)]), &mut c.voters_max);
        self.key("snapshot_every", "After so many entries the meta group's log is shortened", Int(1..=COUNT_MAX), &mut c.snapshot_every);
        self.key("keep_entries", "So many entries stay when it is", Int(0..=COUNT_MAX), &mut c.keep_entries);
    }

    #[rustfmt::skip]
    fn queues(&mut self, c: &mut ClusterSpec) {
        self.key("ring_ops", "Newest operations that a log of routes keeps; who lacks an older one gets a snapshot", Int(1..=10_000_000), &mut c.ring_ops);
        self.key("message_ops", "Operations of a log in one message", Int(1..=1_000_000), &mut c.message_ops);
        self.key("barrier_ms", "Milliseconds that a SUBACK waits at most with the fast barrier", Int(0..=MS_MAX), &mut c.barrier_ms);
        self.key("lease_ms", "Milliseconds of a lease with the strict barrier", Int(1..=MS_MAX), &mut c.lease_ms);
        self.key("lane_window_messages", "Messages of a lane between two shards that the receiver may hold", Int(1..=10_000_000), &mut c.lane_window_messages);
        self.key("lane_window_bytes", "Bytes of those", Int(1..=u32::MAX), &mut c.lane_window_bytes);
        self.key("lane_waiting_messages", "Messages of a lane that wait at the sender; more are refused", Int(1..=10_000_000), &mut c.lane_waiting_messages);
        self.key("lane_unstored_messages", "Messages of a lane that are sent and not stored at most", Int(1..=10_000_000), &mut c.lane_unstored_messages);
        self.key("lane_pauses_qos0", "Whether QoS 0 messages without credit hold their publisher, instead of being dropped", Bool, &mut c.lane_pauses_qos0);
        self.key("ticket_max_ms", "Milliseconds after which the publisher of a message is told that another node did not answer", Int(1..=MS_MAX), &mut c.ticket_max_ms);
    }
}

/// `[[node]]`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeSpec {
    /// Milliseconds since the start of the world at which it starts.
    pub start_ms: u64,
    /// `cluster.witness`
    pub witness: bool,
    /// So many releases later than this one its program is.
    pub later: u8,
}

impl Section for NodeSpec {
    #[rustfmt::skip]
    fn fields(&mut self, v: &mut impl Visitor) {
        v.optional("start_ms", "Milliseconds since the start of the world at which it starts; before that its machine is off.", Int(0..=MS_MAX), &mut self.start_ms, &0);
        v.optional("witness", "`cluster.witness`: it votes, and has no clients.", Bool, &mut self.witness, &false);
        v.optional("later", "So many releases later than this one its program is: each speaks one version of the protocol more with other nodes, of which the next one still speaks the last, and has a feature level more.", Int(0..=LATER_MAX), &mut self.later, &0);
    }
}

/// `[net]`: between nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeNetSpec {
    /// Microseconds that something is under way, one way.
    pub latency_us: RangeInclusive<u64>,
    /// Some of it takes up to so many microseconds more: few take long, many a little.
    pub tail_us: u64,
    /// Of a million datagrams so many are lost, and of a million pieces of connections so many come a retransmission later.
    pub loss_ppm: u32,
    /// Of a million datagrams so many come twice.
    pub dup_ppm: u32,
    /// Bytes a second of each connection, each way; 0 for no limit.
    pub bytes_per_s: u64,
    /// Sizes in bytes of the pieces that bytes are cut into.
    pub chunk_bytes: RangeInclusive<u64>,
    /// Bytes that are under way on a connection, one way, before its socket is full.
    pub socket_bytes: u64,
}

impl Default for NodeNetSpec {
    fn default() -> Self {
        NodeNetSpec {
            latency_us: 100..=1_000,
            tail_us: 100_000,
            loss_ppm: 0,
            dup_ppm: 0,
            bytes_per_s: 0,
            chunk_bytes: 16_384..=16_384,
            socket_bytes: 256 << 10,
        }
    }
}

impl NodeNetSpec {
    /// The keys stand in `[net]`, beside those of clients.
    #[rustfmt::skip]
    pub(super) fn fields(&mut self, v: &mut impl Visitor) {
        let d = NodeNetSpec::default();
        v.micros(["node_latency_ms", "node_latency_us"], "How long it is under way what one node sends to another.", Span(0..=US_MAX), &mut self.latency_us, &d.latency_us);
        v.micros(["node_tail_ms", "node_tail_us"], "Some of it takes up to so much longer: few take long, many a little.", Int(0..=US_MAX), &mut self.tail_us, &d.tail_us);
        v.optional("node_loss_ppm", "Of a million datagrams between nodes so many are lost; of a million pieces of their connections so many come a retransmission later.", Int(0..=900_000), &mut self.loss_ppm, &d.loss_ppm);
        v.optional("node_dup_ppm", "Of a million datagrams between nodes so many come twice.", Int(0..=1_000_000), &mut self.dup_ppm, &d.dup_ppm);
        v.optional("node_bytes_per_s", "Bytes a second of each connection between nodes, each way; 0 for no limit.", Int(0..=BYTES_MAX), &mut self.bytes_per_s, &d.bytes_per_s);
        v.optional("node_chunk_bytes", "Sizes in bytes of the pieces that bytes between nodes are cut into.", Span(1..=BYTES_MAX), &mut self.chunk_bytes, &d.chunk_bytes);
        v.optional("node_socket_bytes", "Bytes under way on a connection between nodes, each way, before its socket is full.", Int(1..=BYTES_MAX), &mut self.socket_bytes, &d.socket_bytes);
    }
}

/// As good as no limit.
const COUNT_MAX: u64 = 1 << 40;
