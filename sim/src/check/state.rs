//! What the checker knows: clients, connections, sessions by Client Identifier, topics, messages. This file owns the
//! tables and the faults; it judges nothing.

use std::collections::{BTreeSet, VecDeque};

use core::time::Duration;
use newtmq_base::{HashSeed, Instant, LookupMap, RequestId};
use newtmq_mqtt::ReasonCode;

use super::crashes::Lives;
use super::flight::InFlight;
use super::hops::Move;
use super::kept::KeptWills;
use super::limits::Limits;
use super::publishes::{Message, OutPublish, Slot};
use super::retained::Register;
use super::subscriptions::{Group, Request, Sub};
use super::ways::Ways;
use super::will::WillState;
use super::witness::Cx;
use super::written::Writes;
use crate::history::{Closer, ConnIx, Fault, NameIx, SnConnect, Uid};
use crate::scenario::Scenario;

/// A publish that the broker may not have worked off.
#[derive(Debug)]
pub(super) struct Unsettled {
    /// Number of the event that sent it.
    pub(super) sequence: u64,
    pub(super) topic: u32,
    /// Sessions that may get it, each with the number of its copies.
    pub(super) copies: Vec<(u32, u32)>,
    /// Bytes of a copy in a queue.
    pub(super) bytes: u64,
}

/// Everything.
#[derive(Debug)]
pub(super) struct State {
    pub(super) limits: Limits,
    pub(super) clients: Vec<Client>,
    pub(super) conns: Vec<Option<Box<Conn>>>,
    /// Connections that are not over for their clients.
    pub(super) open: BTreeSet<u32>,
    pub(super) ids: Vec<Id>,
    pub(super) id_numbers: LookupMap<(u16, NameIx), u32>,
    pub(super) nodes: Vec<Node>,
    /// Between the nodes.
    pub(super) ways: Ways,
    /// What operators asked of nodes that have not answered, and when.
    pub(super) commands: Vec<(u16, RequestId, Instant)>,
    pub(super) writes: Writes,
    /// Time of the present event.
    pub(super) now: Instant,
    pub(super) topics: Vec<Topic>,
    pub(super) subs: Vec<Sub>,
    pub(super) sub_numbers: LookupMap<(u32, NameIx), u32>,
    pub(super) groups: Vec<Group>,
    pub(super) group_numbers: LookupMap<(u16, NameIx), u32>,
    /// Order of first Receives: by session, publisher, topic (with the node that it was published at, where that matters) and the
    /// two QoS.
    pub(super) order: LookupMap<(u32, u32, (u32, u16), u8), Position>,
    /// Messages in the order in which they may be forgotten.
    pub(super) aging: VecDeque<(Instant, Uid)>,
    /// The same of messages that cannot be forgotten before [`PATIENCE`] is over.
    pub(super) patient: VecDeque<(Instant, Uid)>,
    pub(super) spare: Spare,
    /// Counts events.
    pub(super) sequence: u64,
    /// Publishes that were worked off, and when; they may be under way between shards.
    pub(super) settling: VecDeque<(Instant, Unsettled)>,
    /// Some client sent bytes that may have been any packet.
    pub(super) any_wild: bool,
    /// The longest lag that a shard had.
    pub(super) lag: Duration,
    /// How many wills there were.
    pub(super) wills: u64,
    /// Deliveries of wills that came before anything had happened to their connections.
    pub(super) early_wills: Vec<(u32, u32, Instant)>,
    /// About wills that the cluster keeps.
    pub(super) kept: KeptWills,
}

/// Memory of what was forgotten, for what comes: a busy run has many thousand messages, and fresh memory is slow.
#[derive(Debug, Default)]
pub(super) struct Spare {
    #[allow(clippy::vec_box)] // the boxes are what is kept
    pub(super) messages: Vec<Box<Message>>,
    pub(super) copies: Vec<Vec<(u32, u32)>>,
}

/// The last first Receive of a kind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Position {
    pub(super) epoch: u32,
    pub(super) first: u64,
    pub(super) uid: Uid,
    /// Node and epoch of its publisher's session.
    pub(super) by: (u16, u32),
}

/// A client of the scenario.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) name: Box<str>,
    pub(super) cut: bool,
    pub(super) narrow: bool,
    pub(super) deaf: bool,
    pub(super) frozen: bool,
    /// Since when, and until when, it surely sent nothing, and nothing of what it had sent before came late.
    pub(super) silent: Option<(Instant, Instant)>,
    /// When something of that last began or ended.
    pub(super) changed: Option<Instant>,
    /// By number, from `base` on.
    pub(super) messages: VecDeque<Slot>,
    pub(super) base: u32,
}

impl Client {
    /// Whether anything keeps bytes from flowing as they should.
    pub(super) fn is_troubled(&self) -> bool {
        self.cut || self.narrow || self.deaf || self.frozen
    }
}

/// A node.
#[derive(Debug, Default)]
pub(super) struct Node {
    pub(super) down: bool,
    /// The largest drift that it ever had, in parts in a million.
    pub(super) drift_ppm: u64,
    /// When it was last told to stop, which ends all sessions.
    pub(super) stopped: Option<Instant>,
    /// When it last lost what it had in its memory.
    pub(super) lost: Option<Instant>,
    /// Publishers are held for its memory.
    pub(super) pressed: bool,
    /// Its pauses, from when to when, and their sum.
    pub(super) pauses: Vec<(Instant, Instant)>,
    pub(super) paused: Duration,
    /// When it was last paused, stopped or started.
    pub(super) disturbed: Option<Instant>,
    /// Its stops and its disk.
    pub(super) lives: Lives,
    /// By name.
    pub(super) topics: Vec<Option<u32>>,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) client: u32,
    pub(super) id: u32,
    pub(super) node: u16,
    pub(super) v5: bool,
    /// MQTT 3.1, which has no Session Present.
    pub(super) v31: bool,
    /// MQTT-SN.
    pub(super) sn: Option<SnConnect>,
    pub(super) clean: bool,
    pub(super) connect_at: Instant,
    pub(super) connack: Option<Connack>,
    pub(super) refused: bool,
    /// Effective Session Expiry Interval in seconds: what it may be.
    pub(super) expiry_min: u32,
    pub(super) expiry_max: u32,
    pub(super) keep_alive_s: u16,
    pub(super) receive_maximum: u16,
    pub(super) max_packet_size: Option<u32>,
    pub(super) closed: Option<(Instant, Closer)>,
    pub(super) gone: Option<Instant>,
    pub(super) client_disconnect: Option<(Instant, ReasonCode)>,
    pub(super) server_disconnect: Option<(Instant, ReasonCode)>,
    pub(super) wild: bool,
    /// When its link or client first had a fault.
    pub(super) trouble: Option<Instant>,
    /// When its node was first paused or stopped.
    pub(super) disturbed: Option<Instant>,
    /// The first thing that went wrong was a crash of its node, of which the session has come back.
    pub(super) crashed: bool,
    /// When another connection with its Client Identifier first may have taken over.
    pub(super) rival: Option<Instant>,
    /// The client did what a broker may close a connection for.
    pub(super) odd: bool,
    /// The session had no connection before this one.
    pub(super) first: bool,
    /// The last time at which the broker surely served it.
    pub(super) heard: Instant,
    /// When the client last received a PUBLISH.
    pub(super) last_receive: Instant,
    /// Received on this connection and not acknowledged.
    pub(super) outstanding: u32,
    /// Publishes of the client that are not acknowledged in full.
    pub(super) publishes: VecDeque<OutPublish>,
    pub(super) requests: Vec<Request>,
    /// When its PINGREQs were sent that are not answered.
    pub(super) pings: VecDeque<Instant>,
    /// PUBLISHes that it sent, and about how many bytes in all.
    pub(super) sent_publishes: u64,
    pub(super) sent_bytes: u64,
    /// Retained writes that are not known to be worked off: topic and event.
    pub(super) retaining: Vec<(u32, u64, Instant)>,
    /// Publishes that are not known to be worked off, and whose queues they go to.
    pub(super) unsettled: VecDeque<Unsettled>,
    /// The last message received, and whether it had RETAIN and DUP.
    pub(super) last: Option<(Uid, bool, bool)>,
    /// Session Expiry Interval of its DISCONNECT.
    pub(super) last_expiry: Option<u32>,
    /// What the interval may be if that DISCONNECT is never read: a take-over may come before it.
    pub(super) unread_expiry: Option<(u32, u32)>,
    pub(super) will: Option<Box<WillState>>,
    /// Wills that it had before, and when the broker had said that they are not any more.
    pub(super) old_wills: Vec<(Uid, Option<Instant>)>,
}

/// A CONNACK without error.
#[derive(Debug, Clone, Copy)]
pub(super) struct Connack {
    pub(super) at: Instant,
    pub(super) sent_at: Instant,
}

impl Conn {
    /// Whether it was accepted and is not over for the client.
    pub(super) fn is_up(&self) -> bool {
        self.connack.is_some() && self.closed.is_none() && self.client_disconnect.is_none()
    }

    /// Whether a message may come again in the same connection, because its acknowledgement has not: `retries` if the broker does
    /// so before MQTT 5.0.
    pub(super) fn may_resend(&self, retries: bool) -> bool {
        self.sn.is_some() || retries && !self.v5
    }

    /// Whether nothing excuses odd behaviour toward it.
    pub(super) fn is_plain(&self) -> bool {
        !self.wild && self.trouble.is_none() && self.disturbed.is_none()
    }

    /// The first moment at which the broker may have seen its end, if anything points at one by now.
    pub(super) fn earliest_end(&self) -> Option<Instant> {
        let closed = self.closed.map(|(at, by)| if by == Closer::Client { at } else { self.heard });
        let ends = [
            closed,
            self.client_disconnect.map(|(at, _)| at),
            self.server_disconnect.map(|_| self.heard),
            self.trouble.map(|at| at.min(self.heard)),
            self.disturbed,
            self.rival,
            self.gone,
        ];
        ends.into_iter().flatten().min()
    }
}

/// A Client Identifier and its session: of a cluster one over all nodes.
#[derive(Debug)]
pub(super) struct Id {
    /// Where its last connection was made.
    pub(super) node: u16,
    /// Where its session was before, if it has been asked for from there since.
    pub(super) from: Option<u16>,
    /// Ways of the session from node to node that may still matter.
    pub(super) moves: Vec<Move>,
    /// There may be several sessions, of which any may be the one that is left.
    pub(super) forked: bool,
    /// It began at this node when not all could be asked, and another one may be left at one of those.
    pub(super) hidden: Option<u16>,
    /// Rises when the session ended or may have ended.
    pub(super) epoch: u32,
    /// The last connection that was accepted, in the order of the broker.
    pub(super) current: Option<u32>,
    /// Connections that the broker may still have.
    pub(super) live: Vec<u32>,
    /// Until then a session without connection may be there.
    pub(super) possible_until: Instant,
    /// Something that is not known may have ended the session since the last CONNACK.
    pub(super) unclear: bool,
    /// The broker noticed then the end of a connection that it may have accepted without anybody knowing.
    pub(super) unheard: Instant,
    /// When anything that it ever had may have come back.
    pub(super) revived: Instant,
    /// When its last session ended.
    pub(super) ended: Instant,
    pub(super) subs: Vec<u32>,
    /// Connections in a row that were refused because others waited for the same session, and since when.
    pub(super) kept_out: (u32, Instant),
    /// Several clients have it.
    pub(super) several: bool,
    /// The client that had it first.
    pub(super) owner: u32,
    /// All connections that it ever had.
    pub(super) conns: Vec<u32>,
    pub(super) inflight: VecDeque<InFlight>,
    /// Messages that may have been put into its queue, and their bytes.
    pub(super) matched: u64,
    pub(super) matched_bytes: u64,
    /// The same of those that surely are not on their way to it any more: they are in front of what is sent now.
    pub(super) settled: (u64, u64),
    /// Owed messages in the order of their acknowledgements.
    pub(super) owed: VecDeque<(Uid, Instant)>,
    /// Owed ones that later messages have overtaken.
    pub(super) lost: Vec<(Uid, Instant)>,
    /// Times of its UNSUBSCRIBEs.
    pub(super) unsubscribed: Vec<Instant>,
    /// The smallest Maximum Packet Size that it ever had.
    pub(super) packet_max: u32,
}

/// A topic at a node.
#[derive(Debug)]
pub(super) struct Topic {
    pub(super) name: NameIx,
    pub(super) node: u16,
    /// So many subscriptions were matched with it.
    pub(super) seen: usize,
    /// Those that match, by session.
    pub(super) subs: Vec<(u32, u32)>,
    pub(super) shared: bool,
    pub(super) register: Option<Box<Register>>,
}

/// Whether a session's client may get nothing on topics for which it has no id left (`max_topic_ids`).
pub(super) fn has_few_ids(limits: &Limits, conns: &[Option<Box<Conn>>], known: &Id) -> bool {
    let current = || known.current.and_then(|at| conns[at as usize].as_deref());
    limits.sn_few_ids && current().is_some_and(|c| c.sn.is_some())
}

impl State {
    pub(super) fn new(scenario: &Scenario) -> State {
        let client = |spec: &crate::scenario::ClientSpec| Client {
            name: spec.name.as_str().into(),
            cut: false,
            narrow: false,
            deaf: false,
            frozen: false,
            silent: None,
            changed: None,
            messages: VecDeque::new(),
            base: 1,
        };
        let seed = HashSeed::new(scenario.seed);
        let limits = Limits::new(scenario);
        State {
            ways: Ways::new(if scenario.is_cluster() { scenario.nodes } else { 0 }, limits.links, limits.strict),
            limits,
            commands: Vec::new(),
            writes: Writes::default(),
            now: Instant::START,
            clients: scenario.clients.iter().map(client).collect(),
            conns: Vec::new(),
            open: BTreeSet::new(),
            ids: Vec::new(),
            id_numbers: LookupMap::new(seed),
            nodes: (0..scenario.nodes.max(1)).map(|_| Node::default()).collect(),
            topics: Vec::new(),
            subs: Vec::new(),
            sub_numbers: LookupMap::new(seed),
            groups: Vec::new(),
            group_numbers: LookupMap::new(seed),
            order: LookupMap::new(seed),
            aging: VecDeque::new(),
            patient: VecDeque::new(),
            spare: Spare::default(),
            settling: VecDeque::new(),
            sequence: 0,
            any_wild: false,
            lag: Duration::ZERO,
            wills: 0,
            early_wills: Vec::new(),
            kept: KeptWills::new(scenario),
        }
    }

    /// Before each event.
    #[inline]
    pub(super) fn begin(&mut self, cx: &Cx<'_>) {
        self.sequence += 1;
        self.now = cx.now;
        // Many at once: what they need from memory comes together.
        let due = self.aging.front().is_some_and(|(at, _)| *at + FORGET_AFTER + FORGET_EVERY < cx.now);
        if due || self.patient.front().is_some_and(|(at, _)| *at + PATIENCE + FORGET_EVERY < cx.now) {
            self.forget(cx.now);
        }
    }

    /// A connection that an event names.
    ///
    /// # Panics
    /// If it has sent no CONNECT.
    #[inline]
    pub(super) fn conn(&self, conn: u32) -> &Conn {
        self.conns[conn as usize].as_deref().expect("a connection's first event is its CONNECT")
    }

    /// The same, to change.
    #[inline]
    pub(super) fn conn_mut(&mut self, conn: ConnIx) -> &mut Conn {
        self.conns[conn.0 as usize].as_deref_mut().expect("a connection's first event is its CONNECT")
    }

    /// Name of the client that has a connection.
    pub(super) fn who(&self, conn: u32) -> &str {
        &self.clients[self.conn(conn).client as usize].name
    }

    /// Of the time between what a node thinks and what is.
    pub(super) fn drift(&self, node: u16, of: Duration) -> Duration {
        let ppm = self.nodes[usize::from(node)].drift_ppm;
        // A clock at half the speed takes twice the time.
        Duration::from_nanos((of.as_nanos() as u64 / 1_000_000).saturating_mul(ppm).saturating_mul(2))
    }

    /// Latest moment at which a timer of `seconds` that starts by `from` fires.
    pub(super) fn latest(&self, node: u16, from: Instant, seconds: u32) -> Instant {
        if seconds == u32::MAX {
            return Instant::NEVER;
        }
        let span = Duration::from_secs(u64::from(seconds));
        let of = &self.nodes[usize::from(node)];
        from + span + self.drift(node, span) + of.paused + of.lives.late(from) + TIMER_SLACK
    }

    /// Earliest moment at which a timer of `seconds` that starts after `from` fires.
    pub(super) fn earliest(&self, node: u16, from: Instant, seconds: u32) -> Instant {
        if seconds == u32::MAX {
            return Instant::NEVER;
        }
        let span = Duration::from_secs(u64::from(seconds));
        let ppm = self.nodes[usize::from(node)].drift_ppm;
        let early = Duration::from_nanos((span.as_nanos() as u64 / 1_000_000).saturating_mul(ppm));
        let span = span.saturating_sub(early).saturating_sub(TIMER_SLACK.min(span / 10));
        from + span
    }

    pub(super) fn fault(&mut self, fault: &Fault, cx: &mut Cx<'_>) {
        self.fault_of_nodes(fault, cx.now);
        self.kept.fault(fault, cx.now);
        match *fault {
            Fault::Cut { client, .. } => self.trouble(client.0, cx.now, |c| (c.cut, c.silent) = (true, None)),
            Fault::Heal { client } => self.trouble(client.0, cx.now, |c| (c.cut, c.silent) = (false, None)),
            Fault::Bandwidth { client, bytes_per_s } => {
                self.trouble(client.0, cx.now, |c| (c.narrow, c.silent) = (bytes_per_s > 0, None));
            }
            Fault::Reading { client, on } => self.trouble(client.0, cx.now, |c| c.deaf = !on),
            Fault::Freeze { client, on } => self.trouble(client.0, cx.now, |c| {
                c.silent = match c.silent {
                    Some((since, _)) if !on => Some((since, cx.now)),
                    _ => (on && !c.cut && !c.narrow).then_some((cx.now, Instant::NEVER)),
                };
                c.frozen = on;
            }),
            Fault::Pause { node, until } => {
                let known = &mut self.nodes[usize::from(node.0)];
                known.pauses.push((cx.now, until));
                known.paused += until - cx.now;
                self.disturb(node.0, cx.now);
            }
            Fault::Drift { node, ppm } => {
                let known = &mut self.nodes[usize::from(node.0)].drift_ppm;
                *known = u64::from(ppm.unsigned_abs()).max(*known);
                self.disturb(node.0, cx.now);
            }
            Fault::Lag { by_us, .. } => self.lag = self.lag.max(Duration::from_micros(by_us)),
            Fault::Crash { node, power_loss } => self.stopped(node.0, true, power_loss, cx),
            Fault::Shutdown { node } => self.stopped(node.0, false, false, cx),
            Fault::Restart { node } => {
                self.nodes[usize::from(node.0)].down = false;
                self.nodes[usize::from(node.0)].lost = Some(cx.now);
                self.node_back(node.0, cx);
                self.disturb_by_stop(node.0, cx.now);
            }
            Fault::MemoryPressure { node, level } => {
                self.nodes[usize::from(node.0)].pressed = level >= 2;
                // What is not read is not heard either.
                self.clients.iter_mut().for_each(|client| client.silent = None);
            }
            Fault::ClockJump { .. } | Fault::LinkCut { .. } | Fault::LinkHealed { .. } | Fault::LinkSlow { .. } => {}
            // Nothing of what it had comes back.
            Fault::Wipe { node } => self.rotten(node.0),
            Fault::DiskFull { node, on } => self.disk_trouble(node.0, cx.now, |lives| lives.full = on),
            Fault::DiskSlow { node, by_us } => self.disk_trouble(node.0, cx.now, |lives| lives.slow = by_us > 0),
            Fault::DiskFails { node } => self.disk_trouble(node.0, cx.now, |lives| lives.failed = true),
            Fault::DiskRot { node } => self.rotten(node.0),
        }
    }

    fn stopped(&mut self, node: u16, crash: bool, power_loss: bool, cx: &mut Cx<'_>) {
        self.disturb_by_stop(node, cx.now);
        self.nodes[usize::from(node)].down = true;
        let known = &mut self.nodes[usize::from(node)];
        if crash {
            known.lost = Some(cx.now);
        } else {
            known.stopped = Some(cx.now);
        }
        self.node_down(node, crash, power_loss, cx);
    }

    /// What a node has in its memory alone is disturbed for a while; with a store only its connections are.
    fn disturb_by_stop(&mut self, node: u16, now: Instant) {
        let before = self.nodes[usize::from(node)].disturbed;
        self.disturb(node, now);
        if self.limits.durability.is_some() {
            self.nodes[usize::from(node)].disturbed = before;
        }
    }

    fn trouble(&mut self, client: u32, now: Instant, change: impl FnOnce(&mut Client)) {
        change(&mut self.clients[client as usize]);
        self.clients[client as usize].changed = Some(now);
        for conn in &self.open {
            if let Some(c) = self.conns[*conn as usize].as_deref_mut()
                && c.client == client
            {
                c.trouble.get_or_insert(now);
            }
        }
    }

    pub(super) fn disturb(&mut self, node: u16, now: Instant) {
        self.nodes[usize::from(node)].disturbed = Some(now);
        // A client may be done with a connection whose last packets the broker has not read.
        for conn in self.open.iter().chain(self.ids.iter().flat_map(|id| &id.live)) {
            if let Some(c) = self.conns[*conn as usize].as_deref_mut()
                && c.node == node
            {
                c.disturbed.get_or_insert(now);
            }
        }
    }

    /// The way between the shards of a node.
    pub(super) fn lanes(&self, node: u16) -> Lanes {
        let slack = self.lane_slack();
        let mut pauses = if slack.is_zero() { Vec::new() } else { self.nodes[usize::from(node)].pauses.clone() };
        if self.ways.exist() {
            // What is between two nodes ends, or makes one count as down.
            pauses.extend(self.ways.stalls().map(|(from, to)| (from, to.min(from + STALL_MAX))));
            pauses.sort_unstable();
        }
        Lanes { slack, pauses }
    }

    /// The node of a topic's publishers.
    pub(super) fn node_of_topic(&self, topic: u32) -> u16 {
        self.topics[topic as usize].node
    }

    /// How long a message may be on its way between shards after it was acknowledged, if nothing is paused.
    pub(super) fn lane_slack(&self) -> Duration {
        if self.limits.lane.is_zero() { Duration::ZERO } else { self.limits.lane + self.lag * 8 }
    }
}

/// How long what is said between the shards of a node is on its way.
#[derive(Debug, Clone)]
pub(super) struct Lanes {
    slack: Duration,
    /// Meanwhile nothing goes on.
    pauses: Vec<(Instant, Instant)>,
}

impl Lanes {
    /// When what a shard had worked off at `at` has come to all others.
    pub(super) fn by(&self, at: Instant) -> Instant {
        let mut until = at + self.slack;
        for (from, to) in &self.pauses {
            if *from <= until && *to > at {
                until = until + (*to - (*from).max(at));
            }
        }
        until
    }
}

/// What waits for another node is there, or given up, after so long.
const STALL_MAX: Duration = Duration::from_secs(20);

/// A message that everybody has is remembered for so long.
pub(super) const FORGET_AFTER: Duration = Duration::from_secs(10);

/// How long what may be forgotten waits for others.
const FORGET_EVERY: Duration = Duration::from_millis(100);

/// What nobody acknowledges is remembered for so long.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Timers need not be more exact than this.
pub(super) const TIMER_SLACK: Duration = Duration::from_secs(1);
