//! A core thread's share of a node: connections, their sessions, subscriptions, retained messages, timers.
//!
//! This file owns the state and turns inputs into calls; the rules are in the modules below, one per concern.

mod access;
mod acks;
mod admin;
mod agreed;
mod auth;
mod claims;
mod connect;
mod deliver;
mod departure;
mod disconnect;
mod drain;
mod fan;
mod flush;
mod gates;
mod groups;
mod hints;
mod home;
mod inward;
mod journal;
mod kept;
mod lanes;
mod late;
mod letter;
mod luggage;
mod mount;
mod moves;
mod notes;
mod overdue;
mod pace;
mod packets;
mod parcels;
mod peers;
mod pour;
mod pressure;
mod publish;
mod quota;
mod recover;
mod retain;
mod routes;
mod stub;
mod subscribe;
mod sys;
mod tickets;
mod timers;
mod will;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use newtmq_access::{Bans, Flapping};
use newtmq_base::{ConnId, HashSeed, Instant, LookupTable, NodeId, RequestId, Rng, Slab, TimerQueue, WallTime};
use newtmq_session::{Session, SessionId};
use newtmq_topic::{RetainedIndex, SubscriptionTable};

use crate::config::ShardConfig;
use crate::conn::{Conn, NONE, Phase};
use crate::hooks::{Event, Hook, Question};
use crate::io::{AdminCommand, Boot, MemoryPressure, Outbox, Output, ShardInput, Taken};
use crate::ledger::Ledger;
use crate::outbuf::BufferPool;
use crate::place::{RetainedRead, SHARDS_MAX, Stamp};
pub(crate) use agreed::Kept;
pub(crate) use claims::Claiming;
use deliver::FanOut;
pub(crate) use drain::Asides;
pub(crate) use gates::Gates;
pub(crate) use home::shard_of;
use journal::Journal;
pub(crate) use journal::numbered_by;
pub use lanes::LANE_HIGH_BYTES;
use lanes::Lane;
pub(crate) use pace::Meter;
use peers::Peers;
use pour::{ParkedChunk, Pourings};
pub(crate) use quota::Shares;
use retain::Retained;
use routes::Routes;

/// The data plane of one core. See the crate's documentation and docs/adr/0001.
#[derive(Debug)]
pub struct Shard {
    pub(crate) config: ShardConfig,
    pub(crate) rng: Rng,
    pub(crate) conns: Vec<Option<Conn>>,
    /// Parts of the node's limits.
    pub(crate) shares: Shares,
    pub(crate) sessions: Slab<SessionSlot>,
    /// Client Identifier → session.
    pub(crate) clients: LookupTable,
    pub(crate) topics: SubscriptionTable,
    pub(crate) retained: RetainedIndex<Retained>,
    /// (when it expires, which) → topic, of the retained messages that expire.
    pub(crate) retained_expiry: BTreeMap<(Instant, Stamp), Box<str>>,
    /// By owner, then by source: how many retained messages the owner must have worked off before what it says of them
    /// is complete.
    pub(crate) retained_need: Vec<Box<[u64]>>,
    /// Reads that wait for that here, with the shard that reads: by source and number of the retained message that they
    /// wait for next, in order. A message looks only at those that it lets go on.
    pub(crate) parked_reads: BTreeMap<(u16, u64, u64), (u16, Box<RetainedRead>)>,
    pub(crate) next_parked: u64,
    /// What was read and may also be on its way live.
    pub(crate) parked_chunks: Vec<ParkedChunk>,
    /// What the cluster agrees on.
    pub(crate) agreed: Agreed,
    pub(crate) timers: TimerQueue<TimerKind>,
    pub(crate) ledger: Ledger,
    pub(crate) pool: BufferPool,
    pub(crate) scratch: Scratch,
    /// Fan-outs that were too large for one call.
    pub(crate) jobs: VecDeque<FanOut>,
    /// Connections whose turn has ended; they go on at the next Tick.
    pub(crate) turns: Vec<ConnId>,
    /// Deliveries made in this call.
    pub(crate) spent: usize,
    pub(crate) requests: BTreeMap<RequestId, ConnId>,
    pub(crate) node: NodeId,
    /// Other nodes may have to know of subscriptions.
    pub(crate) clustered: bool,
    /// Connections ask for their sessions, which may be at other nodes.
    pub(crate) claims: bool,
    pub(crate) claims_of: claims::Claims,
    /// Wills that are due, and wait for the cluster's word.
    pub(crate) due_wills: BTreeMap<(newtmq_cluster::directory::Client, newtmq_cluster::lane::Epoch), kept::DueWill>,
    /// This shard's number, of so many.
    pub(crate) own: u16,
    shards: u16,
    node_seed: HashSeed,
    /// By shard.
    pub(crate) lanes: Vec<Lane>,
    /// Whose turn it is to be worked off.
    pub(crate) next_lane: u16,
    pub(crate) routes: Routes,
    /// Lanes to and from other nodes, if there may be any.
    pub(crate) peers: Option<Box<Peers>>,
    /// What it does not do at times.
    pub(crate) reluctance: drain::Reluctance,
    /// Some session here has, or had, a subscription that its client's own messages are kept from: of what comes from other nodes,
    /// too, it is looked whose it is.
    pub(crate) knows_own: bool,
    /// Subscriptions about the server itself at this shard.
    pub(crate) sys_filters: u64,
    pub(crate) shared_subscriptions: u64,
    started: Instant,
    wall: WallTime,
    /// The node stops; everybody is sent away when all other shards have said good-bye.
    pub(crate) stopping: bool,
    pub(crate) byes: u16,
    pub(crate) next_reading: u64,
    pub(crate) next_request: u64,
    /// Deadlines of questions, in order; those that were answered go when it is their turn.
    pub(crate) questions: VecDeque<(Instant, RequestId)>,
    /// Questions below this number have a deadline.
    pub(crate) watched_requests: u64,
    pub(crate) pressure: MemoryPressure,
    /// Who is refused.
    pub(crate) bans: Arc<Bans>,
    /// A connection had rules of its own.
    pub(crate) has_own_rules: bool,
    /// How often clients have connected of late, where a zone wants to know.
    pub(crate) flapping: Flapping,
    /// Of the rules in `config.access`; never 0.
    pub(crate) access_generation: u32,
    /// Numbers sessions, so that a slab key used again is noticed.
    next_born: u64,
    /// What outlives the process.
    pub(crate) journal: Journal,
    /// What was stored before is not all here, or not known to all shards; connections wait.
    pub(crate) recovering: bool,
    /// Sessions that were stored; until all shards are ready.
    pub(crate) restored: Vec<recover::RestoredSession>,
    /// Something is to be stored again, so that old segments can be freed.
    pub(crate) renewal: Option<recover::Renewal>,
}

/// What a shard knows of the log of retained messages.
#[derive(Debug, Default)]
pub(crate) struct Agreed {
    /// There are others to agree with, or were.
    pub(crate) shares: bool,
    /// Publishes that wait until they are in the log, by their number.
    pub(crate) retaining: BTreeMap<u64, agreed::Retaining>,
    /// Numbers of those.
    pub(crate) asked: u64,
    /// Of the one that goes on.
    pub(crate) stamp: Stamp,
    /// Up to which index the log has to be here before it is read.
    pub(crate) need: u64,
    /// Up to which it is.
    pub(crate) seen: u64,
    /// The node has found nobody to agree with for long: nothing is waited for.
    pub(crate) alone: bool,
    /// Reads that wait for that, with the shard that reads: by index, and a number of their own.
    pub(crate) parked: BTreeMap<(u64, u64), (u16, Box<RetainedRead>)>,
    /// Topics that this shard had stored by itself, and has brought to the log.
    pub(crate) brought: std::collections::BTreeSet<Box<str>>,
}

/// Buffers that calls build things in; empty between calls.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// A message's block.
    pub(crate) block: Vec<u8>,
    /// Properties to pass on.
    pub(crate) forwardable: Vec<u8>,
    /// Outgoing frames of a publish, by kind.
    pub(crate) frames: fan::Frames,
}

/// A session and what the shard knows of it.
#[derive(Debug)]
pub(crate) struct SessionSlot {
    pub(crate) session: Session,
    /// Slot of its connection, or [`NONE`].
    pub(crate) conn: u32,
    pub(crate) zone: u16,
    /// When its client connected last, in seconds since the start of the shard.
    pub(crate) connected: u32,
    /// When it began, in the same; 0 for one that was stored.
    pub(crate) created: u32,
    pub(crate) born: u64,
    /// Its name in the log, if it is there.
    pub(crate) stored: Option<SessionId>,
    /// The first segment of the log that it needs; 0 for none.
    pub(crate) segment: u64,
    /// What is due while the client is away.
    pub(crate) away: Option<Box<Away>>,
    /// Retained messages on their way to new subscriptions.
    pub(crate) pouring: Option<Box<Pourings>>,
    /// QoS 2 messages of its client that went to other nodes and are not released.
    pub(crate) forwards: Option<Box<gates::Forwards>>,
    /// What the directory says of it.
    pub(crate) claimed: Option<Box<claims::Claimed>>,
}

/// Deadlines of a session without a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Away {
    /// End of the session.
    pub(crate) expires: Instant,
    /// Publication of its will.
    pub(crate) will: Instant,
}

impl Away {
    pub(crate) fn deadline(&self) -> Instant {
        self.expires.min(self.will)
    }
}

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimerKind {
    /// Work that was left over from an earlier call.
    Work,
    /// CONNECT timeout, Keep Alive, or the time to take what is left before a close; by connection slot.
    Conn(u32),
    /// A slow target's output must have moved by then; by connection slot.
    Stall(u32),
    /// A publisher is held no longer; by connection slot.
    Hold(u32),
    /// Session expiry or Will Delay; by session key.
    Session(u32),
    /// A retained message expires.
    Retained,
    /// Acknowledgements may be overdue; by connection slot.
    Retry(u32),
    /// PUBRELs may be overdue; by connection slot.
    AwaitRel(u32),
    /// Other nodes have not answered about what a client published; by connection slot.
    Gate(u32),
    /// Lanes to other nodes want to be looked at.
    Peers,
    /// A client above `publish_limit` or `rate_limit` may go on; by connection slot.
    Pace(u32),
    /// A client may be connected no longer; by connection slot.
    Grant(u32),
    /// A hook has not answered.
    Question,
    /// The node's time is stored.
    Time,
}

/// What follows a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The next packet.
    Go,
    /// Nothing until the connection is resumed.
    Hold,
    /// Nothing any more: the connection is being closed.
    Stop,
}

impl Shard {
    /// A shard without connections.
    ///
    /// # Panics
    /// If the configuration breaks a relation that [`newtmq_session::SessionLimits::assert_valid`] names, or a listener
    /// names a zone that does not exist.
    #[must_use]
    pub fn new(config: ShardConfig, boot: Boot) -> Shard {
        let knows_own = config.mqtt.ignore_loop_deliver;
        for zone in &config.zones {
            zone.session.assert_valid();
        }
        assert!(config.listeners.iter().all(|listener| usize::from(listener.zone) < config.zones.len()));
        assert!(boot.shard.0 < boot.shards && boot.shards <= SHARDS_MAX);
        let mut rng = Rng::from_seed(boot.seed);
        let seed = HashSeed::new(rng.next_u64());
        let counts = || vec![0; usize::from(boot.shards)].into_boxed_slice();
        let journal = Journal::new(&config, &boot);
        let peers = boot.clustered.then(|| Box::new(Peers::new(&config.lanes, &boot)));
        Shard {
            recovering: journal.is_on(),
            restored: Vec::new(),
            journal,
            renewal: None,
            shares: Shares::new(&config, boot.shard, boot.shards),
            config,
            conns: Vec::new(),
            sessions: Slab::default(),
            clients: LookupTable::new(seed),
            topics: SubscriptionTable::new(seed),
            retained: RetainedIndex::default(),
            retained_expiry: BTreeMap::new(),
            retained_need: (0..boot.shards).map(|_| counts()).collect(),
            parked_reads: BTreeMap::new(),
            next_parked: 0,
            parked_chunks: Vec::new(),
            agreed: Agreed::default(),
            timers: TimerQueue::default(),
            ledger: Ledger::default(),
            pool: BufferPool::default(),
            scratch: Scratch::default(),
            jobs: VecDeque::new(),
            turns: Vec::new(),
            spent: 0,
            requests: BTreeMap::new(),
            node: boot.node,
            clustered: boot.clustered,
            claims: boot.claims,
            claims_of: claims::Claims::default(),
            due_wills: BTreeMap::new(),
            own: boot.shard.0,
            shards: boot.shards,
            node_seed: HashSeed::new(boot.node_seed),
            lanes: (0..boot.shards).map(|_| Lane::new(boot.shards)).collect(),
            next_lane: 0,
            routes: Routes::default(),
            peers,
            reluctance: drain::Reluctance::default(),
            knows_own,
            sys_filters: 0,
            shared_subscriptions: 0,
            started: boot.now,
            wall: boot.wall,
            stopping: false,
            byes: 0,
            next_reading: 0,
            next_request: 0,
            questions: VecDeque::new(),
            watched_requests: 0,
            pressure: MemoryPressure::None,
            bans: Arc::default(),
            flapping: Flapping::default(),
            has_own_rules: false,
            access_generation: 1,
            next_born: 0,
            rng,
        }
    }

    /// Takes one input in; what is to be done about it is pushed to `out`.
    ///
    /// # Panics
    /// If the driver breaks the contract of docs/adr/0001 (a slot opened twice); never because of what a client sends.
    pub fn handle(&mut self, now: Instant, input: ShardInput<'_>, out: &mut Outbox) -> Taken {
        let mut taken = Taken::default();
        match input {
            ShardInput::Bytes { conn, data } => taken = self.on_bytes(now, conn, data, out),
            ShardInput::Moved { conn, moved } => taken = self.on_moved(now, conn, *moved, out),
            ShardInput::Place { from, message } => self.on_place(now, from, message, out),
            ShardInput::Control(message) => self.on_control(now, message, out),
            ShardInput::Tick => self.on_tick(now, out),
            ShardInput::Opened { conn, listener, peer, username } => {
                self.on_opened(now, conn, listener, peer, username, out);
            }
            ShardInput::Closed { conn, cause } => self.on_closed(now, conn, cause, out),
            ShardInput::SetWill { conn, will } => self.on_set_will(conn, will.as_deref(), out),
            ShardInput::Keep { conn, record } => self.on_keep(conn, record),
            ShardInput::Outlive { conn, expiry_interval } => self.on_outlive(conn, expiry_interval),
            ShardInput::Decided { request, verdict } => self.on_decided(now, request, verdict, out),
            ShardInput::Admin(AdminCommand::Shutdown) => self.on_shutdown(now, out),
            ShardInput::Admin(AdminCommand::SetAccess(access)) => self.on_set_access(*access),
            ShardInput::Admin(AdminCommand::SetBans(bans)) => self.bans = bans,
            ShardInput::Admin(AdminCommand::SetTraces(traces)) => self.config.traces = traces,
            ShardInput::Admin(AdminCommand::OfOperator(command)) => self.on_operator(now, *command, out),
            ShardInput::Admin(AdminCommand::MemoryPressure(level)) => self.on_memory_pressure(now, level, out),
            ShardInput::Recovered(chunk) => self.on_recovered(now, *chunk, out),
            ShardInput::Stored { upto, segment } => self.on_stored(now, upto, segment, out),
            ShardInput::Store(state) => self.on_store_state(now, state, out),
            ShardInput::Renew { before } => self.on_renew(before),
        }
        if self.watched_requests < self.next_request {
            self.watch_questions(now);
        }
        if self.peers.is_some() {
            self.finish_peers(now, out);
        }
        self.send_changes(out);
        self.send_batch(now, out);
        taken
    }

    /// When the shard wants a Tick, and what for. A late one or one too many does no harm.
    #[must_use]
    pub fn next_deadline(&self) -> Option<(Instant, TimerKind)> {
        if !self.jobs.is_empty()
            || !self.turns.is_empty()
            || self.lanes_have_work()
            || self.renewal.is_some()
            || self.inward_has_work()
        {
            return Some((Instant::START, TimerKind::Work));
        }
        let mut next = self.timers.next();
        // Few have either: whoever asks after each call should not pay for them.
        if let Some(((expires, _), _)) = self.retained_expiry.first_key_value() {
            let retained = (*expires, TimerKind::Retained);
            next = Some(next.map_or(retained, |next| next.min(retained)));
        }
        if let Some((deadline, _)) = self.questions.front() {
            let question = (*deadline, TimerKind::Question);
            next = Some(next.map_or(question, |next| next.min(question)));
        }
        if let Some(peers) = &self.peers {
            let due = peers.next_deadline().min(self.reluctance.next_deadline());
            let peers = (due, TimerKind::Peers);
            next = Some(next.map_or(peers, |next| next.min(peers))).filter(|(due, _)| *due != Instant::NEVER);
        }
        if let Some(due) = self.time_due() {
            let time = (due, TimerKind::Time);
            next = Some(next.map_or(time, |next| next.min(time)));
        }
        next
    }

    /// Session by Client Identifier.
    pub(crate) fn find_session(&self, client: &str) -> Option<u32> {
        let sessions = &self.sessions;
        self.clients.find(client, |key| client_of(sessions, key))
    }

    pub(crate) fn add_session(&mut self, session: Session, zone: u16) -> u32 {
        let born = self.next_born;
        self.next_born += 1;
        let key = self.sessions.insert(SessionSlot {
            session,
            conn: NONE,
            zone,
            connected: 0,
            created: 0,
            born,
            stored: None,
            segment: 0,
            away: None,
            pouring: None,
            forwards: None,
            claimed: None,
        });
        let sessions = &self.sessions;
        self.clients.insert_unique(client_of(sessions, key), key, |key| client_of(sessions, key));
        key
    }

    pub(crate) fn next_born(&self) -> u64 {
        self.next_born
    }

    /// The connection, if this is still the one in its slot.
    pub(crate) fn conn(&self, conn: ConnId) -> Option<&Conn> {
        self.conns.get(conn.slot as usize)?.as_ref().filter(|c| c.generation == conn.generation)
    }

    pub(crate) fn conn_mut(&mut self, conn: ConnId) -> Option<&mut Conn> {
        self.conns.get_mut(conn.slot as usize)?.as_mut().filter(|c| c.generation == conn.generation)
    }

    /// A connection that the shard is working on.
    pub(crate) fn live(&mut self, conn: ConnId) -> &mut Conn {
        self.conn_mut(conn).expect("the caller has just looked this connection up")
    }

    /// The session of an open connection.
    pub(crate) fn slot(&mut self, key: u32) -> &mut SessionSlot {
        self.sessions.get_mut(key).expect("an open connection has a session")
    }

    /// Arms the connection's timer, instead of the deadline it had.
    pub(crate) fn arm_conn(&mut self, conn: ConnId, deadline: Instant) {
        let c = self.live(conn);
        let old = core::mem::replace(&mut c.timer, deadline);
        self.timers.cancel(old, TimerKind::Conn(conn.slot));
        self.timers.arm(deadline, TimerKind::Conn(conn.slot));
    }

    /// Asks a hook; the answer comes as [`ShardInput::Decided`].
    pub(crate) fn ask(&mut self, conn: ConnId, question: Question, out: &mut Outbox) -> RequestId {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        self.requests.insert(request, conn);
        out.push(Output::Decide { request, question: Box::new(question) });
        request
    }

    /// Tells a hook about a session, if anybody listens.
    pub(crate) fn tell(
        &self,
        hook: Hook,
        key: u32,
        topic: Option<&str>,
        reason: newtmq_mqtt::ReasonCode,
        out: &mut Outbox,
    ) {
        if self.config.hears(hook) {
            self.push_event(hook, key, topic, reason, None, out);
        }
    }

    #[cold]
    pub(crate) fn push_event(
        &self,
        hook: Hook,
        key: u32,
        topic: Option<&str>,
        reason: newtmq_mqtt::ReasonCode,
        qos: Option<newtmq_mqtt::QoS>,
        out: &mut Outbox,
    ) {
        let slot = self.sessions.get(key);
        let client = slot.map_or("", |slot| slot.session.client().as_str());
        let traced = self.config.traces.wants(client, topic);
        if !traced && (slot.is_none() || !self.config.hooks.has(hook)) {
            return;
        }
        let at = slot.map_or(NONE, |slot| slot.conn);
        let conn = self.conns.get(at as usize).and_then(Option::as_ref);
        out.push(Output::Event(Box::new(Event {
            hook,
            conn: conn.map(|c| ConnId { slot: at, generation: c.generation }),
            client: client.into(),
            topic: topic.map(Into::into),
            reason,
            qos,
            waits: false,
            dropped: None,
            traced,
        })));
    }
}

fn client_of(sessions: &Slab<SessionSlot>, key: u32) -> &str {
    sessions.get(key).expect("the index holds live sessions only").session.client().as_str()
}

/// Pushes `Ready` on the edge from no output to some.
#[inline]
pub(crate) fn ready(now: Instant, conn: &mut Conn, slot: u32, out: &mut Outbox) {
    if !conn.ready {
        conn.ready = true;
        conn.out.start(now);
        out.push(Output::Ready(ConnId { slot, generation: conn.generation }));
    }
}

/// Whether output may still be added to a connection.
#[inline]
pub(crate) fn is_open(conn: &Conn) -> bool {
    conn.phase == Phase::Open
}
