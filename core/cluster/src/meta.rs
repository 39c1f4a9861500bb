//! The meta group: who is a member, the cluster's configuration, users and rules; Raft decides.
//!
//! It owns the answer to "who belongs to this cluster", which only a quorum changes, and never asks who is reachable: it is
//! told so, and uses it for no more than to pick voters and to let go of who was down for too long. It also owns how a node
//! comes into a cluster and out of it: founding, joining, leaving, being removed, coming back.
//!
//! What depends on the disk waits for it: [`Output::Persist`] is confirmed by [`Input::Persisted`].

mod command;
mod found;
mod group;
mod io;
mod join;
mod lead;
mod log;
mod message;
mod state;
#[cfg(test)]
mod tests;

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use newtmq_base::{Instant, InvalidField, NodeId, RequestId, Rng, planted};
use raft::eraftpb::{self, MessageType};

pub use crate::consensus::Stopped;
pub use command::{Blob, BlobKind, Command, Member, Rejected, RemovedBy};
use found::{Begun, Founding};
use group::{Effects, Group, Origin};
pub use io::{Gone, Input, Lost, Output};
use join::Wish;
use lead::Lead;
pub use log::{Grant, Persist, Stored};
use message::{Asked, Message};
pub use message::{JoinRefusal, Refusal};
pub use state::{
    BLOB_BYTES_MAX, CONFIG_KEYS_MAX, ClusterId, KEY_BYTES_MAX, MEMBERS_MAX, MetaState, REMOVED_MAX, Removed,
    RetainedGroup, Role, VALUE_BYTES_MAX, WILL_BYTES_MAX,
};

/// What of the meta group is configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Length of Raft's tick.
    pub tick: Duration,
    /// A follower that hears nothing for this many ticks, up to twice as many, wants an election.
    pub election_ticks: u64,
    /// A leader is heard every so many ticks.
    pub heartbeat_ticks: u64,
    /// Most voters: 1, 3 or 5.
    pub voters_max: usize,
    /// Down for this long, a member may be removed by an operator.
    pub detect: Duration,
    /// Down for this long, a member is removed by the leader; `None` is never.
    pub autoclean: Option<Duration>,
    /// How often a node asks to join, to leave, or who has a leader.
    pub ask_period: Duration,
    /// Without a leader for this long a member asks others whether it still is one.
    pub lost_after: Duration,
    /// A seed that is not the first one waits for so long before it wants to found a cluster itself.
    pub found_wait: Duration,
    /// What is asked for is answered within this time.
    pub request_timeout: Duration,
    /// Most requests of one node at a time; more are refused.
    pub requests_max: usize,
    /// Most nodes that wait to join at the leader; more are told to ask again.
    pub joins_max: usize,
    /// After so many entries the log is shortened.
    pub snapshot_every: u64,
    /// So many entries stay when it is, for members that are a little behind.
    pub keep_entries: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            tick: Duration::from_millis(100),
            election_ticks: 10,
            heartbeat_ticks: 2,
            voters_max: 5,
            detect: Duration::from_secs(8),
            autoclean: Some(Duration::from_secs(300)),
            ask_period: Duration::from_millis(500),
            lost_after: Duration::from_secs(3),
            found_wait: Duration::from_secs(3),
            request_timeout: Duration::from_secs(5),
            requests_max: 1024,
            joins_max: 64,
            snapshot_every: 1024,
            keep_entries: 256,
        }
    }
}

/// What was dropped, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Messages whose fields are wrong.
    pub malformed: u64,
    /// Messages of another cluster, for another data directory, or of who is no member.
    pub foreign: u64,
    /// Messages that Raft cannot take as things are.
    pub untaken: u64,
}

/// What a node is, for checkers and people.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// What is agreed on, up to its index.
    pub state: &'a MetaState,
    /// Raft's term.
    pub term: u64,
    /// Index of the last entry that is known to be committed.
    pub commit: u64,
    /// Who leads, as far as it is known here.
    pub leader: Option<NodeId>,
    /// Whether this node leads.
    pub is_leader: bool,
    /// When a leader was heard last.
    pub leader_heard: Instant,
    /// Whether it has stopped, and why.
    pub stopped: Option<Stopped>,
}

/// One node's part in the meta group, or its way there.
pub struct Meta {
    config: Config,
    me: Member,
    rng: Rng,
    group: Option<Group>,
    cluster: Option<ClusterId>,
    // Numbers of what was given to the disk.
    numbers: u64,
    up: BTreeSet<NodeId>,
    wish: Option<Wish>,
    founding: Option<Founding>,
    begun: Option<Begun>,
    grant: Option<Grant>,
    // Answers that wait for a promise to be durable.
    promised: Vec<(u64, NodeId, Message)>,
    lead: Option<Lead>,
    requests: BTreeMap<RequestId, Instant>,
    births: BTreeMap<NodeId, u64>,
    told_leader: (u64, Option<NodeId>),
    is_told_stopped: bool,
    gone: Option<Gone>,
    // Whether the log says that it is no member.
    doubts: bool,
    // It was let go of, and may join whom it likes.
    freed: Option<Gone>,
    leader_heard: Instant,
    next_tick: Instant,
    next_ask: Instant,
    counters: Counters,
    nothing: MetaState,
}

impl Meta {
    /// A node with what its disk has. `me` is the node as it is in this start; its `joined` counts for nothing. `rng`
    /// decides all its choices.
    ///
    /// # Errors
    /// What the disk has cannot be: the node must not start with it, for it may have promised something.
    pub fn new(config: Config, me: Member, stored: &Stored, mut rng: Rng, now: Instant) -> Result<Meta, InvalidField> {
        // Nodes that start together do not count in step, or they would stand for election in the same moment.
        let phase = config.tick * rng.below(1_000) as u32 / 1_000;
        let me = Member { birth: stored.birth.unwrap_or(me.birth), ..me };
        let mut meta = Meta {
            next_tick: now + phase,
            next_ask: now,
            config,
            me,
            rng,
            group: None,
            cluster: stored.cluster,
            numbers: 0,
            up: BTreeSet::new(),
            wish: None,
            founding: None,
            begun: None,
            grant: stored.grant,
            promised: Vec::new(),
            lead: None,
            requests: BTreeMap::new(),
            births: BTreeMap::new(),
            told_leader: (0, None),
            is_told_stopped: false,
            gone: None,
            freed: None,
            doubts: false,
            leader_heard: now,
            counters: Counters::default(),
            nothing: MetaState::default(),
        };
        if stored.cluster.is_some() {
            let mut group = Group::new(&meta.config, &meta.me, stored)?;
            let known = group.state.members.get(&meta.me.node);
            if known.is_some_and(|known| known.birth != meta.me.birth) && !planted!(WipedDiskKeepsId) {
                return Err(InvalidField("the log of another data directory"));
            }
            group.start(&mut meta.rng);
            meta.group = Some(group);
        }
        Ok(meta)
    }

    /// Takes what has come in.
    pub fn handle(&mut self, now: Instant, input: Input<'_>, out: &mut Vec<Output>) {
        self.was_away(now);
        match input {
            Input::Tick => self.tick(now, out),
            Input::Message { from, bytes } => match Message::decode(bytes) {
                Ok(message) => self.message(now, from, message, out),
                Err(_) => self.counters.malformed += 1,
            },
            Input::Persisted { number } => self.persisted(now, number, out),
            Input::Up { node } => self.is_up(node, now, out),
            Input::Down { node } => {
                self.up.remove(&node);
            }
            Input::Init { request, name } => self.init(request, name, out),
            Input::Seeds { name, total, here, reached } => self.seeds(now, name, total, here, reached),
            Input::Join { request, via } => self.join(now, request, via, out),
            Input::Leave { request } => self.leave(now, request, out),
            Input::GiveUp { request } => self.give_up_wish(request, out),
            Input::ForceLeave { request, node } => self.ask(now, request, Asked::ForceLeave(node), out),
            Input::Raise { term } => {
                if let Some(group) = &mut self.group {
                    group.raise(term, &mut self.rng);
                }
            }
            Input::Write { request, command } => self.ask(now, request, Asked::Write(command), out),
        }
        self.work(now, out);
    }

    /// When [`Input::Tick`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        Some(self.next_tick)
    }

    /// What the node is.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        let group = self.group.as_ref();
        // Who is in no cluster any more follows nobody.
        let takes_part = group.filter(|_| self.gone.is_none());
        View {
            state: group.map_or(&self.nothing, |group| &group.state),
            term: group.map_or(0, |group| group.term()),
            commit: group.map_or(0, |group| group.commit()),
            leader: takes_part.and_then(|group| group.leader()),
            is_leader: takes_part.is_some_and(|group| group.is_leader()),
            leader_heard: self.leader_heard,
            stopped: group.and_then(|group| group.stopped()),
        }
    }

    /// The cluster, from when the node was told that it may join it.
    #[must_use]
    pub fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// Whether those can decide, as far as this node knows: while voters change both who voted and who will vote have to.
    #[must_use]
    pub fn is_quorum(&self, has: impl Fn(NodeId) -> bool) -> bool {
        self.group.as_ref().is_some_and(|group| group.is_quorum(has))
    }

    /// Whether the node is a member, as far as it knows.
    #[must_use]
    pub fn is_member(&self) -> bool {
        self.gone.is_none() && self.group.as_ref().is_some_and(|group| group.state.members.contains_key(&self.me.node))
    }

    /// What was dropped so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    // After a pause others may have been heard in it, whatever comes in first: what was counted in it is void.
    fn was_away(&mut self, now: Instant) {
        let late = now.saturating_since(self.next_tick);
        if let Some(lead) =
            self.lead.as_mut().filter(|_| late >= self.config.lost_after / 4 && !planted!(CountedWhileAway))
        {
            lead.counts_anew();
        }
    }

    fn tick(&mut self, now: Instant, out: &mut Vec<Output>) {
        if now < self.next_tick {
            return;
        }
        // No time is made up for.
        self.next_tick = now + self.config.tick;
        if self.gone.is_some() {
            return;
        }
        if let Some(group) = &mut self.group {
            group.tick(&mut self.rng);
            if group.is_leader() {
                self.leader_heard = now;
            }
        }
        let late: Vec<RequestId> =
            self.requests.iter().filter(|(_, deadline)| **deadline <= now).map(|(request, _)| *request).collect();
        for request in late {
            self.answer(request, Err(Refusal::Timeout), out);
        }
        self.lead(now, out);
        if self.next_ask <= now {
            self.next_ask = now + self.config.ask_period;
            self.found(now, out);
            self.wish(now, out);
        }
    }

    fn message(&mut self, now: Instant, from: NodeId, message: Message, out: &mut Vec<Output>) {
        match message {
            Message::Raft { cluster, birth, from_birth, body } => {
                self.raft(now, (from, from_birth), cluster, birth, *body, out);
            }
            Message::Probe => self.probed(from, out),
            Message::ProbeAnswer(standing) => self.standing(now, from, standing),
            Message::FoundAsk { inc, attempt } => self.found_asked(now, from, inc, attempt, out),
            Message::FoundAnswer { inc, attempt, granted } => {
                self.found_answered(now, from, inc, attempt, granted, out)
            }
            Message::FoundRelease { inc, attempt } => self.found_released(from, inc, attempt, out),
            Message::Join { member, cluster, explicit } => self.join_asked(from, member, cluster, explicit, out),
            Message::JoinAnswer { inc, answer } if inc == self.me.inc => self.join_answered(now, from, answer, out),
            // To an earlier start.
            Message::JoinAnswer { .. } => self.counters.foreign += 1,
            Message::Leave => self.leave_asked(now, from, out),
            Message::LeaveDone => self.leave_done(out),
            Message::Request { request, asked } => {
                if let Err(refusal) = self.decide(now, Origin { node: from, request }, asked, out) {
                    self.send(from, &Message::Refused { request, refusal }, out);
                }
            }
            Message::Refused { request, refusal } => self.answer(request, Err(refusal), out),
        }
    }

    fn raft(
        &mut self,
        now: Instant,
        (from, from_birth): (NodeId, u64),
        cluster: ClusterId,
        birth: u64,
        body: eraftpb::Message,
        out: &mut Vec<Output>,
    ) {
        let Some(group) = self.group.as_mut().filter(|_| self.gone.is_none()) else {
            self.counters.foreign += 1;
            return;
        };
        // It was let in when it wanted it no more, or went into another cluster: nobody else tells them, whoever it was then.
        let is_theirs = self.cluster.is_some_and(|own| own != cluster) && self.wish.is_none();
        if is_theirs && body.from == from.0 && !planted!(StaysInTwo) {
            self.counters.foreign += 1;
            self.send(from, &Message::Leave, out);
            return;
        }
        let is_ours = self.cluster == Some(cluster) && body.from == from.0;
        // Said to a node that had another disk, or another log of this cluster before it founded one of its own: what that
        // one knew and promised is not here.
        let is_for_us = birth == self.me.birth || planted!(WipedDiskKeepsId);
        // What a member promises counts for the birth that it is known by. Who asks for votes or leads may have come back as
        // somebody else behind this node's back: it is heard, as its log says who may lead, not this one's.
        let counts = is_answer(&body) || planted!(StrangerIsNotHeard);
        let is_known = group.state.birth(from).is_none_or(|known| known == from_birth);
        let is_for_us = is_for_us && (!counts || is_known || planted!(WipedDiskKeepsId));
        if !is_ours || !is_for_us {
            self.counters.foreign += 1;
            return;
        }
        // A node that knows nobody so far answers who speaks to it.
        if self.births.len() >= BIRTHS_MAX {
            self.births.clear();
        }
        self.births.insert(from, from_birth);
        if !group.step(body, &mut self.rng) {
            self.counters.untaken += 1;
        }
        if group.leader() == Some(from) {
            self.leader_heard = now;
        }
        self.work(now, out);
    }

    fn persisted(&mut self, now: Instant, number: u64, out: &mut Vec<Output>) {
        self.begun(number, out);
        let mut effects = Effects::default();
        if let Some(group) = &mut self.group {
            group.persisted(number, &mut self.numbers, &mut self.rng, &mut effects);
        }
        self.take(effects, out);
        let promised: Vec<_> = self.promised.extract_if(.., |(needed, _, _)| *needed <= number).collect();
        for (_, to, message) in promised {
            if to == self.me.node {
                self.message(now, to, message, out);
            } else {
                self.send(to, &message, out);
            }
        }
    }

    fn is_up(&mut self, node: NodeId, now: Instant, out: &mut Vec<Output>) {
        self.up.insert(node);
        if let Some(lead) = &mut self.lead {
            lead.is_up(node);
        }
        if self.group.is_none() && self.founding.is_some() {
            self.send(node, &Message::Probe, out);
        }
        self.next_ask = self.next_ask.min(now + self.config.tick);
    }

    // After each input: what Raft makes of it, and what has changed.
    fn work(&mut self, now: Instant, out: &mut Vec<Output>) {
        let mut effects = Effects::default();
        if let Some(group) = &mut self.group {
            group.work(&mut self.numbers, &mut self.rng, &mut effects);
        }
        self.take(effects, out);
        let Some(group) = self.group.as_ref().filter(|_| self.gone.is_none()) else { return };
        let led = (group.term(), group.leader());
        if led != self.told_leader {
            self.told_leader = led;
            out.push(Output::Leader { cluster: self.cluster, term: led.0, leader: led.1 });
        }
        if group.is_leader() && self.lead.is_none() {
            self.lead = Some(Lead::new(now));
        } else if !group.is_leader() && self.lead.is_some() && !planted!(AutocleanSurvivesLeader) {
            self.lead = None;
        }
        if let Some(stopped) = group.stopped().filter(|_| !self.is_told_stopped) {
            self.is_told_stopped = true;
            out.push(Output::Stopped(stopped));
        }
    }

    fn take(&mut self, effects: Effects, out: &mut Vec<Output>) {
        out.extend(effects.persists.into_iter().map(Output::Persist));
        for body in effects.messages {
            let (Some(group), Some(cluster)) = (&self.group, self.cluster) else { break };
            let to = NodeId(body.to);
            // Who asks is answered as who it was then; who is not known as a member has no data directory to be meant by.
            let known = group.state.birth(to);
            let asks = self.births.get(&to).copied();
            let birth = if is_answer(&body) { asks.or(known) } else { known.or(asks) };
            let Some(birth) = birth else { continue };
            let bulk = body.get_msg_type() == MessageType::MsgSnapshot;
            let mut bytes = Vec::new();
            Message::Raft { cluster, birth, from_birth: self.me.birth, body: Box::new(body) }.encode(&mut bytes);
            out.push(Output::Send { to, bytes, bulk });
        }
        if let Some(before) = effects.replaced {
            self.replaced(&before, out);
        }
        self.applied(effects.applied, out);
    }

    fn send(&self, to: NodeId, message: &Message, out: &mut Vec<Output>) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        out.push(Output::Send { to, bytes, bulk: false });
    }

    fn persist(&mut self, persist: Persist, out: &mut Vec<Output>) -> u64 {
        self.numbers += 1;
        out.push(Output::Persist(Persist { number: self.numbers, sync: true, ..persist }));
        self.numbers
    }

    fn answer(&mut self, request: RequestId, outcome: Result<u64, Refusal>, out: &mut Vec<Output>) {
        if self.requests.remove(&request).is_some() {
            out.push(Output::Answer { request, outcome });
        }
    }
}

impl core::fmt::Debug for Meta {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Meta")
            .field("me", &self.me)
            .field("cluster", &self.cluster)
            .field("wish", &self.wish)
            .field("gone", &self.gone)
            .finish_non_exhaustive()
    }
}

const BIRTHS_MAX: usize = 64;

// What one node says to another one's question in Raft: a promise of its log.
fn is_answer(body: &eraftpb::Message) -> bool {
    matches!(
        body.get_msg_type(),
        MessageType::MsgAppendResponse
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgHeartbeatResponse
            | MessageType::MsgRequestPreVoteResponse
    )
}
