//! The retained messages of a cluster: a Raft group of their own decides, by the order of its log, what each topic has.
//!
//! It owns what is retained, the way of a write to the leader and back, and what a node keeps for itself while there is no
//! leader. It never reads a message, never looks at a clock, and does not ask who is a member: it is told so.
//!
//! - **Order** is that of the log: the last write of a topic wins, and a deletion is a write. A deletion is remembered until
//!   every member has passed it.
//! - **Once.** A node numbers its writes in each start and sends them until it knows their end; a number that is in the log a
//!   second time does nothing, nor does one that its node has given up and has since written after.
//! - **Without a leader** a write is refused when its time is over, or kept at its node if it may be: one for each topic, in
//!   memory, readable there alone. With a leader it is played, and counts only if the topic was not changed in between.
//! - **Who is far behind** gets the topics in chunks of what the leader has at that moment, which are taken into its state as
//!   they come; the entries after the snapshot's index bring all of them to one index. The disk is written in the same way.
//!
//! # To join it to control and shards
//! - One value per node that is in a cluster: [`Retained::new`] with what the disk has ([`Stored`]: all [`Persist`] in their
//!   order). Give it [`Input::Found`] at the node that the group begins with, and [`Input::Members`] after the start and after
//!   each change of the meta group. A new group is a new value, whose first [`Persist`] clears the disk; what the one before
//!   leaves ([`Retained::into_left`]) is for who joins them.
//! - A node that comes back without what its part knew is another one here: its [`NodeId`] should say so.
//! - [`Output::Send`] goes on the control stream, or on the bulk stream if it says so. Messages may be lost: all of them come
//!   again. [`Input::Message`] is for messages of members; who is none may be told so and not heard.
//! - [`Output::Persist`]: append it, sync when it says so, then [`Input::Persisted`]. A record that [begins](Persist::begins)
//!   is a good start of a new file; when one that [ends](Persist::ends) is durable, files before the last one that began can
//!   be removed. A record of a chunk has about [`Config::chunk_bytes`].
//! - Shards: after the start give them [`Retained::messages`], then each [`Output::Apply`] by its topic; indexes of a topic
//!   only rise. [`Output::Pending`] lies in front of it for clients of this node. The bytes of a message are shared with this
//!   part's state: a shard that keeps them as they are costs no second copy.
//! - A publish with RETAIN waits for its [`Output::Answer`], and is matched to routes afterwards. The live copy carries the
//!   index of the answer. An acknowledgement of a route barrier carries [`Retained::barrier`]; a subscriber reads after
//!   [`Input::WaitFor`] the highest of those was [`Output::Reached`], and skips a retained copy that is not newer than a live
//!   one.

mod disk;
mod entry;
mod estate;
mod fetch;
mod group;
mod io;
mod lead;
mod message;
mod origin;
mod state;
#[cfg(test)]
mod tests;
mod topics;

use core::time::Duration;
use std::collections::BTreeMap;

use bytes::Bytes;
use newtmq_base::{Incarnation, Instant, InvalidField, NodeId, RequestId, Rng, planted};
use raft::eraftpb::{self, MessageType};

pub use crate::consensus::Stopped;
use crate::meta::ClusterId;
use disk::Base;
pub use disk::{Persist, Stored};
pub use estate::{Estate, Left};
use fetch::Fetch;
use group::{Effects, Group, UNLIMITED};
pub use io::{Input, Output, PendingChange, Refusal, Written};
use lead::{Members, Passed};
use message::Message;
use origin::Asking;

/// What of the retained group is configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Length of Raft's tick.
    pub tick: Duration,
    /// A follower that hears nothing for this many ticks, up to twice as many, wants an election.
    pub election_ticks: u64,
    /// A leader is heard every so many ticks.
    pub heartbeat_ticks: u64,
    /// Without a leader for this long a write is not held until its time is over: it is kept or refused at once.
    pub lost_after: Duration,
    /// A write is answered within this time.
    pub request_timeout: Duration,
    /// A write that is not answered is sent again after this time.
    pub resend_after: Duration,
    /// Most writes of this node that wait for their answer; more are refused ([`Refusal::Busy`], counted).
    pub requests_max: usize,
    /// Most bytes of those.
    pub request_bytes_max: usize,
    /// Most bytes of a topic and its message; larger ones are refused ([`Refusal::TooLarge`]).
    pub message_bytes_max: usize,
    /// Most topics for which something is kept without a leader; more are refused ([`Refusal::PendingFull`], counted).
    pub pending_max: usize,
    /// Most bytes of those.
    pub pending_bytes_max: usize,
    /// How many of those are on their way at a time, once there is a leader.
    pub play_at_once: usize,
    /// After so many entries the log in memory is shortened.
    pub log_entries: u64,
    /// Or when they have so many bytes.
    pub log_bytes: usize,
    /// So many entries stay when it is, for members that are a little behind.
    pub keep_entries: u64,
    /// But no more than so many bytes of them.
    pub keep_bytes: usize,
    /// Most bytes of a chunk of topics, unless a single message is larger.
    pub chunk_bytes: usize,
    /// Most topics that are looked at for a chunk.
    pub chunk_scan: usize,
    /// How many chunks are asked for at a time.
    pub chunks_at_once: u32,
    /// Chunks that do not come are asked for again after this time.
    pub chunk_timeout: Duration,
    /// When entries of so many bytes were written, and more bytes than all topics have, the topics are written again.
    pub sweep_bytes: u64,
    /// So many chunks of them in a tick.
    pub sweep_chunks: u32,
    /// Most deletions that are remembered. With more the oldest are forgotten although members have not passed them
    /// (counted): those get all topics when they come back, and what they kept for topics without a message is dropped.
    pub tombstones_max: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            tick: Duration::from_millis(100),
            election_ticks: 10,
            heartbeat_ticks: 2,
            lost_after: Duration::from_secs(8),
            request_timeout: Duration::from_secs(5),
            resend_after: Duration::from_secs(1),
            requests_max: 8192,
            request_bytes_max: 16 << 20,
            message_bytes_max: 1 << 20,
            pending_max: 10_000,
            pending_bytes_max: 16 << 20,
            play_at_once: 64,
            log_entries: 16_384,
            log_bytes: 16 << 20,
            keep_entries: 4096,
            keep_bytes: 4 << 20,
            chunk_bytes: 48 << 10,
            chunk_scan: 16_384,
            chunks_at_once: 8,
            chunk_timeout: Duration::from_secs(2),
            sweep_bytes: 16 << 20,
            sweep_chunks: 16,
            tombstones_max: 1_000_000,
        }
    }
}

/// Who the node is, in this start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Minted with the data directory.
    pub node: NodeId,
    /// Its start.
    pub inc: Incarnation,
    /// Whose retained messages they are.
    pub cluster: ClusterId,
    /// Whether it is there to vote only: it leads for no longer than it takes to pass on what it alone knows.
    pub witness: bool,
}

/// What was done or dropped, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Messages whose fields are wrong.
    pub malformed: u64,
    /// Messages of another cluster.
    pub foreign: u64,
    /// Messages that cannot be taken as things are: they come again.
    pub untaken: u64,
    /// Writes that came up in the log a second time, or when nobody wanted them any more.
    pub repeated: u64,
    /// Writes that were refused for being too many.
    pub busy: u64,
    /// Writes whose time was over.
    pub timeouts: u64,
    /// Writes that were kept at this node without a leader.
    pub pending_kept: u64,
    /// Those that are in the log by now.
    pub pending_played: u64,
    /// Those that were dropped because others had changed their topics.
    pub pending_dropped: u64,
    /// Those that were refused because too much was kept.
    pub pending_refused: u64,
    /// Chunks of topics that were sent.
    pub chunks_sent: u64,
    /// Chunks of topics that were taken in.
    pub chunks_taken: u64,
    /// How often deletions were forgotten too early, by this leader.
    pub forgotten_early: u64,
}

/// What a node is, for checkers and people.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct View {
    /// Index up to which everything is applied.
    pub applied: u64,
    /// Whether nothing later is: otherwise some topics are newer than [`View::applied`].
    pub is_exact: bool,
    /// Index of the last entry that is known to be committed.
    pub commit: u64,
    /// Raft's term.
    pub term: u64,
    /// Who leads, as far as it is known here.
    pub leader: Option<NodeId>,
    /// Whether this node leads.
    pub is_leader: bool,
    /// Whether it has stopped, and why.
    pub stopped: Option<Stopped>,
    /// Retained messages.
    pub messages: usize,
    /// Bytes of topics and messages.
    pub bytes: usize,
    /// Deletions that are remembered.
    pub tombstones: usize,
    /// Deletions up to this index are forgotten.
    pub horizon: u64,
    /// Of all topics; the same on all nodes that are exact and have applied the same.
    pub digest: u64,
    /// Topics for which something is kept here without a leader.
    pub pending: usize,
    /// Bytes of those.
    pub pending_bytes: usize,
    /// Bytes of the log in memory.
    pub log_bytes: usize,
    /// Whether topics are on their way here.
    pub is_fetching: bool,
}

/// One node's part in the retained group.
pub struct Retained {
    config: Config,
    me: Identity,
    rng: Rng,
    group: Group,
    // Numbers of what was given to the disk.
    numbers: u64,
    // That the disk belongs to this cluster now.
    begin: Option<Persist>,
    asking: Asking,
    fetch: Option<Fetch>,
    members: Members,
    passed: Passed,
    // Deletions after this one are needed here.
    held: Option<u64>,
    waits: BTreeMap<(u64, RequestId), Instant>,
    leader_heard: Instant,
    told_leader: (u64, Option<NodeId>),
    is_told_stopped: bool,
    ticks: u64,
    next_tick: Instant,
    counters: Counters,
}

impl Retained {
    /// A node with what its disk has; what is there of another cluster is given up. `rng` decides all its choices.
    ///
    /// # Errors
    /// What the disk has cannot be: the node must not start with it, for it may have promised something.
    pub fn new(
        config: Config,
        me: Identity,
        stored: Stored,
        mut rng: Rng,
        now: Instant,
    ) -> Result<Retained, InvalidField> {
        let is_new = stored.cluster != Some(me.cluster);
        let begin = Persist { reset: true, cluster: Some(me.cluster), sync: true, ..Persist::default() };
        let mut group = Group::new(&config, &me, if is_new { Stored::default() } else { stored })?;
        group.engine.start(&mut rng);
        // Nodes that start together do not count in step, or they would stand for election in the same moment.
        let next_tick = now + config.tick * rng.below(1_000) as u32 / 1_000;
        Ok(Retained {
            config,
            me,
            rng,
            group,
            numbers: 0,
            begin: is_new.then_some(begin),
            asking: Asking::default(),
            fetch: None,
            members: Members::default(),
            passed: Passed::default(),
            held: None,
            waits: BTreeMap::new(),
            leader_heard: now,
            told_leader: (0, None),
            is_told_stopped: false,
            ticks: 0,
            next_tick,
            counters: Counters::default(),
        })
    }

    /// Takes what has come in.
    pub fn handle(&mut self, now: Instant, input: Input<'_>, out: &mut Vec<Output>) {
        // Who founds the group writes both at once: with one of them alone it would know nothing, and found nothing.
        let founds = matches!(input, Input::Found { .. });
        if let Some(begin) = self.begin.take_if(|_| !founds) {
            self.persist(begin, out);
        }
        match input {
            Input::Tick => self.tick(now, out),
            Input::Message { from, bytes } => match Message::decode(bytes) {
                Ok((cluster, message)) if cluster == self.me.cluster => self.heard(now, from, message, out),
                Ok(_) => self.counters.foreign += 1,
                Err(_) => self.counters.malformed += 1,
            },
            Input::Persisted { number } => {
                let mut effects = Effects::default();
                self.group.persisted(number, &mut self.rng, &mut effects);
                self.take(effects, out);
            }
            Input::Found { index, estate } => self.found(index, estate, out),
            Input::Members { index, members, voters } => {
                if index >= self.members.index {
                    self.members = Members { index, members, voters };
                }
            }
            Input::Write { request, topic, message, keep, seen } => {
                self.ask(now, (request, keep, seen), topic, message, out);
            }
            Input::WaitFor { request, index } => {
                self.waits.insert((index, request), now + self.config.request_timeout);
                self.reached(out);
            }
        }
        self.work(now, out);
    }

    /// When [`Input::Tick`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        Some(self.next_tick)
    }

    /// Whether there is something to be written yet that counts only where nobody has written since: what is deleted from now on
    /// is not forgotten as long as that is so.
    pub fn hold(&mut self, holds: bool) {
        self.held = holds.then(|| self.held.unwrap_or(self.group.state.index));
    }

    /// Index up to which everything is applied here.
    #[must_use]
    pub fn applied(&self) -> u64 {
        self.group.state.index
    }

    /// Index of the last entry that is known here to be committed.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.group.engine.commit()
    }

    /// What an acknowledgement of a route barrier carries: no write that was answered here, in this start or in one before,
    /// has a higher index. Who follows a leader and has heard what is committed in its term takes that; otherwise what is in
    /// the log may have been answered, although nobody who runs knows that it is committed. Part of a log may never be: who
    /// waits for that waits until others have come up to its index, or until his time is over.
    #[must_use]
    pub fn barrier(&self) -> u64 {
        let engine = &self.group.engine;
        if engine.present_leader().is_some() && engine.knows_term() || planted!(RetainedBarrierByCommit) {
            engine.commit()
        } else {
            engine.log().last().max(engine.commit())
        }
    }

    /// Index up to which what is applied here is what the group had agreed on by then; 0 while topics come piece by piece.
    #[must_use]
    pub fn known(&self) -> u64 {
        if self.group.state.is_exact() { self.group.state.index } else { 0 }
    }

    /// Who leads, if it was heard lately.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.group.engine.present_leader()
    }

    /// What clients of this node are to read: what is kept here for a topic, or else what is applied.
    #[must_use]
    pub fn message(&self, topic: &str) -> Option<&Bytes> {
        self.asking.kept_of(topic).map_or_else(|| self.group.state.message(topic), Option::as_ref)
    }

    /// What is applied, in the order of topics, after one of them: topic, index of its entry, message.
    pub fn messages<'a>(&'a self, after: Option<&str>) -> impl Iterator<Item = (&'a str, u64, &'a Bytes)> + use<'a> {
        let items = self.group.state.topics.after(after);
        items.filter_map(|(topic, item)| Some((topic, item.index, item.message.as_ref()?)))
    }

    /// What the node is.
    #[must_use]
    pub fn view(&self) -> View {
        let (engine, state) = (&self.group.engine, &self.group.state);
        let (pending, pending_bytes) = self.asking.kept();
        View {
            applied: state.index,
            is_exact: state.is_exact(),
            commit: engine.commit(),
            term: engine.term(),
            leader: engine.present_leader(),
            is_leader: engine.is_leader(),
            stopped: engine.stopped(),
            messages: state.topics.len(),
            bytes: state.topics.bytes(),
            tombstones: state.topics.tombstones(),
            horizon: state.horizon,
            digest: state.topics.digest(),
            pending,
            pending_bytes,
            log_bytes: engine.log().bytes(),
            is_fetching: self.fetch.is_some(),
        }
    }

    /// Who votes in the group, as far as it is known here.
    pub fn voters(&self) -> impl Iterator<Item = NodeId> {
        self.group.engine.log().conf().voters.iter().copied().map(NodeId)
    }

    /// Who decides: more than half of each of these. While voters change both who voted and who will vote have to.
    #[must_use]
    pub fn quorums(&self) -> [Vec<NodeId>; 2] {
        let conf = self.group.engine.log().conf();
        [&conf.voters, &conf.voters_outgoing].map(|of| of.iter().copied().map(NodeId).collect())
    }

    /// Everything that the disk is to have, in one record, with which it may begin; none if that has to wait.
    #[must_use]
    pub fn whole(&mut self) -> Option<Persist> {
        self.group.whole(&self.me)
    }

    /// Whether all that was asked for here has its answer, and nothing is kept.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.asking.is_idle()
    }

    /// What was done or dropped so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    // The group begins with this node.
    fn found(&mut self, index: u64, estate: Estate, out: &mut Vec<Output>) {
        let (log, commit) = (self.group.engine.log(), self.group.engine.commit());
        if log.last() > 0 || commit > 0 || self.group.engine.term() > 0 {
            return;
        }
        let stored = Group::founding(&self.me, index, estate);
        let base = stored.base.clone().map(|base| Base::Installed(base, 0));
        let (cluster, hard) = (stored.cluster, Some(stored.hard.clone()));
        let Ok(group) = Group::new(&self.config, &self.me, stored) else { return };
        self.group = group;
        self.begin = None;
        let chunk = Some(self.group.state.topics.chunk(None, 0, index, UNLIMITED));
        self.persist(Persist { reset: true, cluster, chunk, base, hard, sync: true, ..Persist::default() }, out);
        self.group.engine.start(&mut self.rng);
    }

    fn tick(&mut self, now: Instant, out: &mut Vec<Output>) {
        if now < self.next_tick {
            return;
        }
        // After a pause no time is made up for: others may have been heard in it.
        self.next_tick = now + self.config.tick;
        self.group.engine.tick(&mut self.rng);
        self.group.engine.step_down(|_| true);
        self.tick_lead(out);
        self.tick_asked(now, out);
        self.tick_fetch(now, out);
        self.group.sweep(&self.config, &self.me, &mut self.numbers, out);
        let late: Vec<(u64, RequestId)> =
            self.waits.iter().filter(|(_, deadline)| **deadline <= now).map(|(wait, _)| *wait).collect();
        for wait in late {
            self.waits.remove(&wait);
            out.push(Output::Reached { request: wait.1, reached: false });
        }
    }

    fn message_of_raft(&mut self, now: Instant, from: NodeId, body: Box<eraftpb::Message>, out: &mut Vec<Output>) {
        if body.from != from.0 || body.to != self.me.node.0 {
            self.counters.malformed += 1;
        } else if body.get_msg_type() == MessageType::MsgSnapshot {
            self.snapshot_came(now, from, body, out);
        } else {
            self.step(*body);
        }
    }

    fn heard(&mut self, now: Instant, from: NodeId, message: Message, out: &mut Vec<Output>) {
        match message {
            Message::Raft(body) => self.message_of_raft(now, from, body, out),
            Message::Forward(writes) => self.forwarded(from, writes),
            Message::Passed(index) => self.has_passed(from, index),
            Message::Ask(ask) => self.asked_for_chunks(from, ask, out),
            Message::Chunk(chunk) => self.chunk_came(now, from, chunk, out),
        }
    }

    fn step(&mut self, body: eraftpb::Message) {
        if !self.group.engine.step(body, &mut self.rng) {
            self.counters.untaken += 1;
        }
    }

    // After each input: what Raft makes of it, what has changed, and what is to be sent for it.
    fn work(&mut self, now: Instant, out: &mut Vec<Output>) {
        loop {
            let mut effects = Effects::default();
            self.group.work(&self.config, &mut self.numbers, &mut self.rng, &mut effects);
            self.take(effects, out);
            let engine = &self.group.engine;
            let led = (engine.term(), engine.present_leader());
            if led.1.is_some() {
                self.leader_heard = now;
                self.is_led();
            }
            if led != self.told_leader {
                self.told_leader = led;
                self.look_again();
                out.push(Output::Leader { term: led.0, leader: led.1 });
            }
            self.send_asked(now, out);
            if !self.group.engine.has_turn() {
                break;
            }
        }
        if let Some(stopped) = self.group.engine.stopped().filter(|_| !self.is_told_stopped) {
            self.is_told_stopped = true;
            out.push(Output::Stopped(stopped));
        }
    }

    fn take(&mut self, effects: Effects, out: &mut Vec<Output>) {
        out.extend(effects.out);
        for body in effects.messages {
            let (to, bulk) = (NodeId(body.to), body.get_msg_type() == MessageType::MsgSnapshot);
            self.send(to, &Message::Raft(Box::new(body)), bulk, out);
        }
        if effects.installed {
            self.look_for_ended(out);
        }
        self.written(effects.written, out);
        self.reached(out);
    }

    fn reached(&mut self, out: &mut Vec<Output>) {
        let state = &self.group.state;
        let upto = if planted!(RetainedReadAtCommit) { self.group.engine.commit() } else { state.index };
        if !state.is_exact() && !planted!(RetainedReadAtCommit) {
            return;
        }
        while let Some(first) = self.waits.first_entry().filter(|first| first.key().0 <= upto) {
            let (_, request) = *first.key();
            first.remove();
            out.push(Output::Reached { request, reached: true });
        }
    }

    fn send(&self, to: NodeId, message: &Message, bulk: bool, out: &mut Vec<Output>) {
        let mut bytes = Vec::new();
        message.encode(self.me.cluster, &mut bytes);
        out.push(Output::Send { to, bytes, bulk });
    }

    fn persist(&mut self, persist: Persist, out: &mut Vec<Output>) {
        self.numbers += 1;
        out.push(Output::Persist(Persist { number: self.numbers, ..persist }));
    }
}

impl core::fmt::Debug for Retained {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Retained").field("me", &self.me).field("view", &self.view()).finish_non_exhaustive()
    }
}
