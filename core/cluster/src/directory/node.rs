//! The directory of a node: its own clients, and the seat if this node has it. Control owns one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use newtmq_base::{Incarnation, Instant, NodeId, planted};

use super::config::Config;
use super::io::{Counts, Input, Output};
use super::member::{Line, Member};
use super::message::{Client, Conn, Message};
use super::seat::{Reign, Seat};
use crate::lane::Epoch;

/// Where a part's messages and outputs go.
pub(super) struct Sink<'a> {
    pub(super) me: NodeId,
    pub(super) out: &'a mut Vec<Output>,
    /// Messages of this node to itself.
    pub(super) own: VecDeque<Message>,
    pub(super) counts: &'a mut Counts,
}

impl Sink<'_> {
    pub(super) fn send(&mut self, to: NodeId, message: Message) {
        if to == self.me { self.own.push_back(message) } else { self.out.push(Output::Send { to, message }) }
    }

    pub(super) fn stale(&mut self, _: &Message) {
        self.counts.stale += 1;
    }
}

/// How this node is the seat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seated {
    /// In which term.
    pub term: u64,
    /// Without a quorum.
    pub acting: bool,
    /// Claims are granted: everybody has said what it has, or took too long.
    pub open: bool,
    /// Clients that it knows.
    pub clients: usize,
}

/// Where a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Its connection.
    pub holder: Option<(NodeId, Conn)>,
    /// The node with its session.
    pub home: Option<NodeId>,
}

/// The directory at one node.
#[derive(Debug)]
pub struct Directory {
    config: Config,
    me: NodeId,
    members: BTreeSet<NodeId>,
    up: BTreeMap<NodeId, Incarnation>,
    /// The highest term that was heard of.
    term: u64,
    leader: Option<NodeId>,
    leaderless: Instant,
    /// The node is in no cluster.
    alone: bool,
    /// When nodes help themselves, until then.
    acting_due: Option<Instant>,
    member: Member,
    /// Of the seat that is obeyed; empty if it has a quorum.
    obeyed_view: Vec<NodeId>,
    pub(super) seat: Seat,
    next_tick: Instant,
    counts: Counts,
}

impl Directory {
    /// The directory of a node at the start of an incarnation.
    #[must_use]
    pub fn new(config: Config, now: Instant, me: NodeId, inc: Incarnation) -> Directory {
        Directory {
            me,
            members: BTreeSet::new(),
            up: BTreeMap::new(),
            term: 0,
            leader: None,
            leaderless: now,
            alone: false,
            acting_due: Some(now + config.acting_after),
            obeyed_view: Vec::new(),
            member: Member::new(config.clone(), me, now),
            seat: Seat::new(config.clone(), me, inc),
            next_tick: now,
            counts: Counts::default(),
            config,
        }
    }

    /// When [`Input::Tick`] is wanted.
    #[must_use]
    pub fn next_deadline(&self) -> Instant {
        let due = self.seat.next_due().into_iter().chain(self.member.next_due(self.expected().is_some())).min();
        let due = due.map_or(Instant::NEVER, |due| due.max(self.next_tick));
        self.acting_due.map_or(due, |acting| acting.min(due))
    }

    /// Whom this node obeys; `None` until somebody may be.
    #[must_use]
    pub fn obeys(&self) -> Option<NodeId> {
        self.member.obeys.map(|(seat, _)| seat)
    }

    /// Whether this node is the seat.
    #[must_use]
    pub fn seated(&self) -> Option<Seated> {
        self.seat.seated()
    }

    /// Connections that have their session, with its epoch and home.
    pub fn served(&self) -> impl Iterator<Item = (&Client, Conn, Epoch, NodeId)> {
        self.member.locals.iter().flat_map(|(client, local)| {
            let lines = local.lines.iter().filter(|line| line.served && !line.fenced);
            lines.filter_map(move |line| line.granted.map(|(epoch, home)| (client, line.conn, epoch, home)))
        })
    }

    /// Sessions of this node, with their epochs.
    pub fn sessions(&self) -> impl Iterator<Item = (&Client, Epoch)> {
        self.member.locals.iter().filter_map(|(client, local)| Some((client, local.home.as_ref()?.epoch)))
    }

    /// Whether nobody waits here, for a session, for an answer, or for an end.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.seat.next_due().is_none() && !self.member.waits()
    }

    /// Whether this node has a stored session of a client.
    #[must_use]
    pub fn is_stored(&self, client: &str) -> bool {
        self.member.locals.get(client).and_then(|local| local.home.as_ref()).is_some_and(|home| home.durable)
    }

    /// Who has a client, as the seat knows it: its connection and its session. `None` at others.
    #[must_use]
    pub fn place(&self, client: &str) -> Option<Place> {
        self.seat.place(client)
    }

    /// Whether the seat, which is this node, has heard all that a node has.
    #[must_use]
    pub fn has_announced(&self, node: NodeId) -> bool {
        self.seat.is_complete(node)
    }

    /// What has happened.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Takes an input and appends what is to be done.
    pub fn handle(&mut self, now: Instant, input: Input, out: &mut Vec<Output>) {
        let mut counts = self.counts;
        let mut sink = Sink { me: self.me, out, own: VecDeque::new(), counts: &mut counts };
        self.take(now, input, &mut sink);
        let mut turns = 0;
        while let Some(message) = sink.own.pop_front() {
            turns += 1;
            debug_assert!(turns < 100_000, "a node talks with itself without end");
            self.receive(now, self.me, message, &mut sink);
        }
        if self.next_tick <= now {
            self.next_tick = now + self.config.pace;
        }
        self.counts = counts;
    }

    fn take(&mut self, now: Instant, input: Input, sink: &mut Sink<'_>) {
        match input {
            Input::Tick => {
                self.reconsider(now, sink);
                let expected = self.expected();
                self.member.tick(now, expected, sink);
                self.seat.tick(now, sink);
            }
            Input::Message { from, inc, message } => {
                if self.members.contains(&from) && self.up.get(&from) == Some(&inc) {
                    self.receive(now, from, message, sink);
                } else {
                    sink.stale(&message);
                }
            }
            Input::Up { node, inc } => {
                if self.up.get(&node).is_none_or(|old| *old < inc) {
                    self.down(now, node, sink);
                    self.up.insert(node, inc);
                    self.reconsider(now, sink);
                    if self.members.contains(&node) {
                        self.seat.up(now, node, sink);
                    }
                }
            }
            Input::Down { node } => {
                self.down(now, node, sink);
                self.reconsider(now, sink);
            }
            Input::Elsewhere => {
                (self.term, self.leader, self.leaderless) = (0, None, now);
                self.acting_due = Some(now + self.config.acting_after);
                self.obeyed_view.clear();
                self.member.disobey(now);
                self.reconsider(now, sink);
            }
            Input::Members(members) => self.set_members(now, members, sink),
            Input::Leader { term, node } => self.lead(now, term, node, sink),
            Input::Alone(alone) => {
                self.alone = alone;
                self.reconsider(now, sink);
            }
            Input::Claim { client, conn, clean, durable, limits } => {
                self.member.claim(now, &client, Line::new(now, conn, clean, durable, limits), sink);
            }
            Input::Closed { client, conn } => self.member.closed(now, &client, conn, sink),
            Input::Attached { client, epoch, present, answer } => {
                self.member.answered(&client, epoch, present, answer, sink);
            }
            Input::Moved { client, conn, epoch, clean, durable } => {
                self.member.moved(now, (&client, conn), (epoch, clean, durable), sink);
            }
            Input::Recovered { client, epoch, clean } => self.member.recovered(&client, epoch, clean),
            Input::Ended { client, epoch } => self.member.ended(now, &client, epoch, sink),
            Input::Home { owner, client, present } => self.seat.record(now, owner, client, present, sink),
            Input::Supersedes { by, client, epoch, home, put } => {
                if by != self.me {
                    self.seat.record_void(now, &client, (by, home, epoch), put, sink);
                } else if put {
                    self.member.supersede(&client, home, epoch, None);
                }
            }
        }
    }

    fn set_members(&mut self, now: Instant, members: BTreeSet<NodeId>, sink: &mut Sink<'_>) {
        self.seat.members.clone_from(&members);
        let old = core::mem::replace(&mut self.members, members);
        for node in old.difference(&self.members.clone()) {
            self.seat.down(now, *node, sink);
        }
        self.reconsider(now, sink);
        for node in self.members.clone().difference(&old) {
            if self.up.contains_key(node) || *node == self.me {
                self.seat.up(now, *node, sink);
            }
        }
    }

    fn lead(&mut self, now: Instant, term: u64, node: Option<NodeId>, sink: &mut Sink<'_>) {
        // Who has promised to obey a later leader has none until it hears of it.
        let node = node.filter(|_| term >= self.term || planted!(OldTermObeyed));
        let term = term.max(self.term);
        if node.is_none() && self.leader.is_some() {
            self.leaderless = now;
            self.acting_due = Some(now + self.config.acting_after);
        }
        let same = self.obeys() == node && term == self.term && self.obeyed_view.is_empty();
        self.term = term;
        self.leader = node;
        if node.is_some() {
            self.acting_due = None;
            if self.member.obeys.is_some() && !same {
                self.member.disobey(now);
            }
        }
        self.reconsider(now, sink);
    }

    fn down(&mut self, now: Instant, node: NodeId, sink: &mut Sink<'_>) {
        if self.up.remove(&node).is_none() {
            return;
        }
        if self.obeys() == Some(node) {
            self.member.disobey(now);
        }
        self.seat.down(now, node, sink);
        self.member.home_down(now, node, sink);
    }

    /// Whom this node reaches, itself included, if there is no leader and nodes help themselves.
    fn view(&self, now: Instant) -> Option<Vec<NodeId>> {
        let waited = self.alone || self.leaderless + self.config.acting_after <= now || planted!(ActingTooEarly);
        if self.leader.is_some() || !waited || !self.members.contains(&self.me) {
            return None;
        }
        let up = |node: &&NodeId| **node == self.me || self.up.contains_key(node);
        Some(self.members.iter().filter(up).copied().collect())
    }

    /// Who should be the seat, so far as this node can tell.
    fn expected(&self) -> Option<NodeId> {
        // The time is that of the last tick or later: nobody is asked too early.
        let last = self.next_tick;
        let seat = self.leader.or_else(|| self.view(last).and_then(|view| view.first().copied()))?;
        (seat == self.me || self.up.contains_key(&seat)).then_some(seat)
    }

    /// Begins or ends to be the seat.
    fn reconsider(&mut self, now: Instant, sink: &mut Sink<'_>) {
        if self.acting_due.is_some_and(|due| due <= now) {
            self.acting_due = None;
        }
        let reign = match (self.leader, self.view(now)) {
            (Some(leader), _) if leader == self.me => Some(Reign { term: self.term, view: Vec::new() }),
            (None, Some(view)) => {
                // A leader of before does not count any more, nor does who sees others.
                if self.member.obeys.is_some() && self.obeyed_view != view && !planted!(OtherViewObeyed) {
                    self.member.disobey(now);
                }
                (view.first() == Some(&self.me)).then_some(Reign { term: self.term, view })
            }
            (Some(_) | None, _) => None,
        };
        let up = self.members.iter().copied().filter(|node| *node == self.me || self.up.contains_key(node));
        self.seat.set_reign(now, reign, up, sink);
    }

    fn may_summon(&mut self, now: Instant, from: NodeId, term: u64, view: &[NodeId], sink: &mut Sink<'_>) -> bool {
        if view.is_empty() {
            if term > self.term {
                // Whoever led before leads no more. Who does, and for how long, the meta group says.
                (self.term, self.leader, self.leaderless) = (term, None, now);
                self.acting_due = Some(now + self.config.acting_after);
                self.reconsider(now, sink);
            }
            return term >= self.term || planted!(OldTermObeyed);
        }
        let own = self.view(now);
        let same = own.as_deref() == Some(view) || planted!(OtherViewObeyed, own.is_some());
        same && view.first() == Some(&from)
    }

    /// Whether a node obeys another seat, for all that this one knows.
    fn is_outside(&self, node: NodeId) -> bool {
        let is_in = self.obeyed_view.is_empty() || self.obeyed_view.contains(&node);
        node != self.me && !(self.member.obeys.is_some() && is_in)
    }

    fn receive(&mut self, now: Instant, from: NodeId, message: Message, sink: &mut Sink<'_>) {
        match message {
            Message::Summon { round, term, ref view, .. } => {
                if !self.member.is_current(from, round) || !self.may_summon(now, from, term, view, sink) {
                    sink.stale(&message);
                } else if let Message::Summon { view, after, .. } = message {
                    self.obeyed_view = view;
                    self.member.summoned(now, from, round, after, sink);
                }
            }
            Message::ClaimOk { round, .. }
            | Message::ClaimRejected { round, .. }
            | Message::Fence { round, .. }
            | Message::End { round, .. }
            | Message::Acted { round, .. }
            | Message::Reported { round, .. } => {
                if self.member.obeys == Some((from, round)) || planted!(OldRoundTaken) {
                    self.member.ordered(now, round, message, sink);
                } else {
                    sink.stale(&message);
                }
            }
            // A grant from before this node and that one could not reach each other any more: it may come long after.
            Message::Attach { .. } if self.is_outside(from) && !planted!(OldAttachTaken) => {
                self.member.on_foreign_attach(from, message, sink);
            }
            Message::Attach { .. } => self.member.on_attach(now, from, message, sink),
            Message::Attached { .. } => self.member.on_attached(message, sink),
            Message::Outdated { .. } => self.member.on_outdated(now, message, sink),
            Message::Announce { .. }
            | Message::Again { .. }
            | Message::Claim { .. }
            | Message::FenceAck { .. }
            | Message::EndAck { .. }
            | Message::Report { .. }
            | Message::Took { .. } => self.seat.receive(now, from, message, sink),
        }
    }
}
