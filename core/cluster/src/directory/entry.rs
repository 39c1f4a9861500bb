//! What the seat knows of one client, and what it does about it.

mod settle;

use std::collections::BTreeMap;

use core::time::Duration;

use newtmq_base::{Instant, NodeId, planted};

use super::config::{AwayHome, Config};
use super::io::{Refused, Why};
use super::message::{Client, Conn, Item, Link, Message, Session};
use super::node::Sink;
use super::rank::{Born, wins};
use super::seat::Seat;
use crate::lane::Epoch;

/// The connection that has the session.
#[derive(Debug, Clone, Copy)]
struct Holder {
    node: NodeId,
    conn: Conn,
    epoch: Epoch,
    born: Born,
    home: NodeId,
    /// What begins with it is stored.
    durable: bool,
    /// It has to hear of its epoch; when that is sent again.
    raise: Option<Instant>,
}

/// A session.
#[derive(Debug, Clone, Copy)]
struct Place {
    node: NodeId,
    epoch: Epoch,
    clean: Epoch,
    durable: bool,
    born: Born,
    /// Where its connection was.
    serves: Option<NodeId>,
    /// With which epoch its node has said that it is there. Without one it is if the connection that it was granted to has
    /// attached.
    begun: Option<Epoch>,
    /// The one that was there has ended since it was granted.
    over: bool,
}

/// A claim that is not granted yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pending {
    node: NodeId,
    conn: Conn,
    born: Born,
    clean: bool,
    durable: bool,
    /// Once its turn has come.
    epoch: Option<Epoch>,
}

/// A connection that has to end.
#[derive(Debug, Clone, Copy)]
struct Fence {
    node: NodeId,
    conn: Conn,
    epoch: Epoch,
    /// Its own.
    had: Epoch,
    why: Why,
    since: Instant,
    next: Instant,
}

/// A session that has to end.
#[derive(Debug, Clone, Copy)]
struct End {
    node: NodeId,
    epoch: Epoch,
    to: NodeId,
    discard: bool,
    since: Instant,
    next: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Entry {
    /// The highest that was heard of or issued.
    top: Epoch,
    holder: Option<Holder>,
    places: Vec<Place>,
    pub(super) pending: Option<Pending>,
    fences: Vec<Fence>,
    ends: Vec<End>,
    /// By whom, where, and up to which epoch a session does not count.
    pub(super) supersedes: Vec<(NodeId, NodeId, Epoch)>,
    /// When those are told again that it is no more.
    acted: Option<Instant>,
    /// When to look at it again.
    due: Option<Instant>,
}

impl Entry {
    pub(super) fn place(&self) -> super::node::Place {
        let holder = self.holder.map(|holder| (holder.node, holder.conn));
        super::node::Place { holder, home: self.places.first().map(|place| place.node) }
    }

    /// Nodes with a session of the client.
    pub(super) fn homes(&self) -> impl Iterator<Item = NodeId> {
        self.places.iter().map(|place| place.node)
    }

    fn is_empty(&self) -> bool {
        let none = self.fences.is_empty() && self.ends.is_empty() && self.supersedes.is_empty();
        none && self.holder.is_none() && self.places.is_empty() && self.pending.is_none()
    }

    /// When something has to be sent again, or may be done without an answer.
    fn due(&self, now: Instant, config: &Config) -> Option<Instant> {
        let resent = self.fences.iter().map(|fence| fence.next).chain(self.ends.iter().map(|end| end.next));
        let resent = resent.chain(self.acted).chain(self.holder.and_then(|holder| holder.raise)).min();
        if self.pending.is_none() {
            return resent;
        }
        let since = self.fences.iter().map(|fence| fence.since).chain(self.ends.iter().map(|end| end.since));
        let unanswered = since.filter_map(|since| Some(since + config.takeover_wait?)).filter(|at| *at > now);
        unanswered.chain(resent).chain([now + config.retry]).min()
    }

    /// Whether a session of it has or had its connection at a node.
    pub(super) fn serves(&self, node: NodeId) -> bool {
        self.places.iter().any(|place| place.serves == Some(node))
    }

    /// Removes what a node has; says whether there was something.
    pub(super) fn forget(&mut self, node: NodeId) -> bool {
        let before = (self.places.len(), self.fences.len(), self.ends.len(), self.supersedes.len());
        self.places.retain(|place| place.node != node);
        self.fences.retain(|fence| fence.node != node);
        self.ends.retain(|end| end.node != node);
        self.supersedes.retain(|(by, ..)| *by != node);
        let holder = self.holder.take_if(|holder| holder.node == node).is_some();
        if holder {
            // Nobody begins any more what it was to begin.
            self.places.retain(|place| !place.over || place.begun.is_some());
        }
        let pending = self.pending.take_if(|pending| pending.node == node).is_some();
        let after = (self.places.len(), self.fences.len(), self.ends.len(), self.supersedes.len());
        before != after || holder || pending || self.pending.is_some()
    }

    pub(super) fn took(&mut self, node: NodeId, conn: Conn, epoch: Epoch) {
        if let Some(holder) = &mut self.holder
            && (holder.node, holder.conn) == (node, conn)
            && epoch >= holder.epoch
        {
            holder.raise = None;
        }
    }

    /// Sends again what was not answered.
    pub(super) fn resend(
        &mut self,
        now: Instant,
        client: &Client,
        retry: Duration,
        rounds: &BTreeMap<NodeId, u64>,
        sink: &mut Sink<'_>,
    ) {
        for fence in self.fences.iter_mut().filter(|fence| fence.next <= now) {
            fence.next = now + retry;
            fence.send(client, rounds.get(&fence.node).copied(), sink);
        }
        for end in self.ends.iter_mut().filter(|end| end.next <= now) {
            end.next = now + retry;
            end.send(client, rounds.get(&end.node).copied(), sink);
        }
        if let Some(holder) = &mut self.holder
            && holder.raise.is_some_and(|next| next <= now)
        {
            holder.raise = Some(now + retry);
            holder.send(client, rounds.get(&holder.node).copied(), Vec::new(), sink);
        }
    }
}

impl Holder {
    fn send(&self, client: &Client, round: Option<u64>, supersedes: Vec<NodeId>, sink: &mut Sink<'_>) {
        let Some(round) = round else { return };
        let Holder { conn, epoch, home, .. } = *self;
        sink.send(self.node, Message::ClaimOk { round, client: client.clone(), conn, epoch, home, supersedes });
    }
}

impl Fence {
    fn send(&self, client: &Client, round: Option<u64>, sink: &mut Sink<'_>) {
        let Some(round) = round else { return };
        let Fence { conn, epoch, why, .. } = *self;
        sink.send(self.node, Message::Fence { round, client: client.clone(), conn, epoch, why });
    }
}

impl End {
    fn send(&self, client: &Client, round: Option<u64>, sink: &mut Sink<'_>) {
        let Some(round) = round else { return };
        let End { epoch, to, discard, .. } = *self;
        sink.send(self.node, Message::End { round, client: client.clone(), epoch, to, discard });
    }
}

impl Seat {
    /// Takes what a node says that it has of a client.
    pub(super) fn adopt(
        &mut self,
        now: Instant,
        node: NodeId,
        item: Item,
        since: Duration,
        error: Duration,
        sink: &mut Sink<'_>,
    ) {
        let Item { client, known, links, session, supersedes } = item;
        self.heard(known);
        let entry = self.entries.entry(client.clone()).or_default();
        entry.top = entry.top.max(known);
        if let Some(session) = session {
            let born = Born::new(now, session.age + since, error);
            let Session { epoch, clean, durable, serves, .. } = session;
            let place = Place { node, epoch, clean, durable, born, serves, begun: Some(epoch), over: false };
            entry.top = entry.top.max(session.epoch);
            entry.places.push(place);
        }
        for (home, epoch) in supersedes.into_iter().filter(|_| !planted!(TombstoneForgotten)) {
            entry.top = entry.top.max(epoch);
            entry.supersedes.push((node, home, epoch));
        }
        for link in &links {
            let born = Born::new(now, link.age + since, error);
            match link.granted {
                Some((epoch, home)) => {
                    let (conn, durable) = (link.conn, link.durable);
                    let holder = Holder { node, conn, epoch, born, home, durable, raise: None };
                    self.adopt_holder(now, &client, holder, sink);
                }
                None => self.claim(now, &client, node, link, born, known, sink),
            }
        }
    }

    fn adopt_holder(&mut self, now: Instant, client: &Client, new: Holder, sink: &mut Sink<'_>) {
        let tolerance = self.config.tolerance;
        self.heard(new.epoch);
        let Some(mut entry) = self.entries.remove(client) else { return };
        entry.top = entry.top.max(new.epoch);
        match entry.holder {
            None => entry.holder = Some(new),
            Some(old) => {
                sink.counts.conflicts += 1;
                let later = wins((new.epoch, new.born), (old.epoch, old.born), now, tolerance);
                let (winner, loser) = if later { (new, old) } else { (old, new) };
                // With an epoch above both, nothing of the loser counts any more.
                self.raise(now, client, &mut entry, winner, sink);
                if !planted!(LoserNotFenced) {
                    self.fence(now, client, &mut entry, loser, Why::Conflict, sink);
                }
            }
        }
        self.entries.insert(client.clone(), entry);
    }

    /// Gives a connection that has its session a higher epoch than all that there are.
    fn raise(&mut self, now: Instant, client: &Client, entry: &mut Entry, mut holder: Holder, sink: &mut Sink<'_>) {
        if self.has_to_rise(entry.top, sink) {
            entry.holder = Some(holder);
            return;
        }
        entry.top = self.next_epoch(entry.top);
        holder.epoch = entry.top;
        holder.raise = Some(now + self.config.retry);
        holder.send(client, self.round(holder.node), Vec::new(), sink);
        if let Some(place) = entry.places.iter_mut().find(|place| place.node == holder.home) {
            place.epoch = holder.epoch;
        }
        entry.holder = Some(holder);
    }

    fn fence(
        &mut self,
        now: Instant,
        client: &Client,
        entry: &mut Entry,
        loser: Holder,
        why: Why,
        sink: &mut Sink<'_>,
    ) {
        let Holder { node, conn, epoch: had, .. } = loser;
        let fence = Fence { node, conn, epoch: entry.top, had, why, since: now, next: now + self.config.retry };
        fence.send(client, self.round(node), sink);
        entry.fences.push(fence);
    }

    fn end(
        &mut self,
        now: Instant,
        client: &Client,
        entry: &mut Entry,
        place: Place,
        (to, discard): (NodeId, bool),
        sink: &mut Sink<'_>,
    ) {
        entry.places.retain(|other| other.node != place.node);
        let (node, epoch) = (place.node, entry.top);
        let end = End { node, epoch, to, discard, since: now, next: now + self.config.retry };
        sink.counts.lost += 1;
        end.send(client, self.round(node), sink);
        entry.ends.push(end);
    }

    /// Takes a claim, or one again.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn claim(
        &mut self,
        now: Instant,
        client: &Client,
        node: NodeId,
        link: &Link,
        born: Born,
        known: Epoch,
        sink: &mut Sink<'_>,
    ) {
        let conn = link.conn;
        self.heard(known);
        let tolerance = self.config.tolerance;
        let round = self.round(node);
        if self.entries.len() >= self.config.clients && !self.entries.contains_key(client) {
            sink.counts.crowded += 1;
            return self.reject(client, (node, conn), Refused::Full, sink);
        }
        let entry = self.entries.entry(client.clone()).or_default();
        entry.top = entry.top.max(known);
        if entry.fences.iter().any(|fence| (fence.node, fence.conn) == (node, conn)) {
            return;
        }
        if let Some(holder) = entry.holder.filter(|holder| (holder.node, holder.conn) == (node, conn)) {
            let out_of_date = known > holder.epoch;
            let away = !self.is_complete(holder.home);
            let entry = self.entries.entry(client.clone()).or_default();
            if !out_of_date && !away {
                let voids = entry.supersedes.iter().filter(|(by, _, epoch)| *by == node && *epoch == holder.epoch);
                let voids = voids.map(|(_, home, _)| *home).collect();
                return holder.send(client, round, voids, sink);
            }
            entry.holder = None;
        }
        let entry = self.entries.entry(client.clone()).or_default();
        if let Some(pending) = entry.pending {
            if (pending.node, pending.conn) == (node, conn) {
                return;
            }
            let new_wins = !pending.born.is_after(born, now, tolerance);
            let loser = if new_wins { (pending.node, pending.conn) } else { (node, conn) };
            sink.counts.superseded += 1;
            self.reject(client, loser, Refused::Superseded, sink);
            if !new_wins {
                return;
            }
        }
        let (clean, durable) = (link.clean, link.durable);
        let pending = Pending { node, conn, born, clean, durable, epoch: None };
        self.entries.entry(client.clone()).or_default().pending = Some(pending);
    }

    fn reject(&mut self, client: &Client, (node, conn): (NodeId, Conn), why: Refused, sink: &mut Sink<'_>) {
        if let Some(round) = self.round(node) {
            sink.send(node, Message::ClaimRejected { round, client: client.clone(), conn, why });
        }
    }

    /// A connection is no more; whether it had heard of a grant, or its node has a session of the client.
    pub(super) fn gone(
        &mut self,
        now: Instant,
        node: NodeId,
        client: &Client,
        (conn, has): (Conn, bool),
        sink: &mut Sink<'_>,
    ) {
        let Some(entry) = self.entries.get_mut(client) else { return };
        let fenced = entry.fences.iter().find(|fence| (fence.node, fence.conn) == (node, conn)).map(|fence| fence.had);
        entry.fences.retain(|fence| (fence.node, fence.conn) != (node, conn));
        let held = entry.holder.take_if(|holder| (holder.node, holder.conn) == (node, conn)).map(|holder| holder.epoch);
        if let Some(had) = held.or(fenced) {
            // Where nobody has attached nothing has begun, and by whom has not heard of its grant nothing else is void.
            let never = |place: &Place| {
                let waits = place.over || (place.node == node && !has);
                place.begun.is_none() && place.epoch == had && waits
            };
            entry.places.retain(|place| !never(place));
            if !has {
                entry.supersedes.retain(|(by, _, epoch)| (*by, *epoch) != (node, had));
            }
        }
        entry.pending.take_if(|pending| (pending.node, pending.conn) == (node, conn));
        self.advance(now, client, sink);
    }

    /// A session has begun at a node; mostly that is known, for it was granted here.
    pub(super) fn began(&mut self, now: Instant, node: NodeId, client: &Client, epoch: Epoch, sink: &mut Sink<'_>) {
        let entry = self.entries.entry(client.clone()).or_default();
        entry.top = entry.top.max(epoch);
        // One that was to end and that somebody has attached to since is the later one's.
        entry.ends.retain(|end| end.node != node || end.epoch >= epoch);
        if entry.places.iter().all(|place| place.node != node) && entry.ends.iter().all(|end| end.node != node) {
            let born = Born::new(now, Duration::ZERO, Duration::ZERO);
            entry.places.push(Place {
                node,
                epoch,
                clean: Epoch::ZERO,
                durable: true,
                born,
                serves: None,
                begun: None,
                over: false,
            });
        }
        entry
            .places
            .iter_mut()
            .filter(|place| place.node == node)
            .for_each(|place| (place.begun, place.over) = (place.begun.max(Some(epoch)), false));
        self.advance(now, client, sink);
    }

    /// A session is no more: the one that was attached last with an epoch, or none is there.
    pub(super) fn ended(
        &mut self,
        now: Instant,
        node: NodeId,
        client: &Client,
        epoch: Option<Epoch>,
        sink: &mut Sink<'_>,
    ) {
        let Some(entry) = self.entries.get_mut(client) else { return };
        entry.ends.retain(|end| end.node != node);
        // One that was granted since begins when it is attached, if that is still to come.
        if let Some(epoch) = epoch {
            let awaited = entry.holder.is_some_and(|holder| holder.home == node) || !entry.fences.is_empty();
            let later = |place: &Place| place.epoch > epoch && (awaited || place.begun > Some(epoch));
            entry.places.retain(|place| place.node != node || later(place));
            let of = entry.places.iter_mut().filter(|place| place.node == node);
            of.for_each(|place| (place.begun, place.over) = (place.begun.filter(|begun| *begun > epoch), true));
        }
        self.advance(now, client, sink);
    }

    /// Does for a client what can be done.
    pub(super) fn advance(&mut self, now: Instant, client: &Client, sink: &mut Sink<'_>) {
        let Some(mut entry) = self.entries.remove(client) else { return };
        if self.open {
            self.settle(now, client, &mut entry, sink);
            if let Some(pending) = entry.pending
                && !self.has_to_rise(entry.top, sink)
            {
                self.serve(now, client, &mut entry, pending, sink);
            }
        }
        let due = if entry.is_empty() { None } else { entry.due(now, &self.config) };
        if entry.due != due {
            if let Some(old) = entry.due {
                self.due.remove(&(old, client.clone()));
            }
            self.due.extend(due.map(|due| (due, client.clone())));
            entry.due = due;
        }
        if !entry.is_empty() {
            self.entries.insert(client.clone(), entry);
        }
    }

    /// A claim whose turn it is.
    fn serve(&mut self, now: Instant, client: &Client, entry: &mut Entry, mut claim: Pending, sink: &mut Sink<'_>) {
        if let Some(holder) = entry.holder {
            if holder.born.is_after(claim.born, now, self.config.tolerance) {
                entry.pending = None;
                sink.counts.superseded += 1;
                return self.reject(client, (claim.node, claim.conn), Refused::Superseded, sink);
            }
            entry.holder = None;
            entry.top = self.next_epoch(entry.top);
            claim.epoch = Some(entry.top);
            entry.pending = Some(claim);
            self.fence(now, client, entry, holder, Why::Takeover, sink);
        }
        let wait = self.config.takeover_wait;
        let over = |since: Instant| wait.is_some_and(|wait| since + wait <= now);
        if entry.fences.iter().any(|fence| !over(fence.since)) && !planted!(GrantBeforeFenceAck) {
            return;
        }
        if claim.clean {
            for place in entry.places.clone().into_iter().filter(|place| place.node != claim.node) {
                self.end(now, client, entry, place, (claim.node, true), sink);
            }
            if entry.ends.iter().any(|end| !over(end.since)) {
                return;
            }
        } else if let Some(place) = entry.places.first().copied() {
            // A session in the memory of a node that does not answer.
            let silent = entry.fences.iter().any(|fence| fence.node == place.node);
            if silent && place.node != claim.node && (!place.durable || planted!(StoredHomeNotAwaited)) {
                self.end(now, client, entry, place, (claim.node, false), sink);
            }
        }
        if entry.places.is_empty() && entry.ends.iter().any(|end| end.node == claim.node) {
            // A session that has to end there is not the one that begins.
            return;
        }
        let mut void: Vec<NodeId> = self.hidden(client, entry, claim.node);
        if !claim.clean && !entry.places.is_empty() {
            // It is here, unless it was given away.
            void.retain(|node| entry.serves(*node) && !planted!(GivenIsHere));
        }
        if !claim.clean && !void.is_empty() && self.config.away_home == AwayHome::Wait && !planted!(AwayIsNone) {
            return;
        }
        if claim.clean {
            void.extend(entry.ends.iter().map(|end| end.node));
        }
        self.grant(now, client, entry, claim, void, sink);
    }

    /// Where there are sessions of a client that cannot be asked.
    fn hidden(&self, client: &Client, entry: &Entry, but: NodeId) -> Vec<NodeId> {
        let counts = |owner: &NodeId| {
            let recorded = self.voids.get(client).into_iter().flatten();
            let mut voids = entry.supersedes.iter().chain(recorded);
            let void = voids.any(|(_, home, _)| home == owner);
            // Who is no member any more does not come back as the one that it was.
            let comes_back = self.members.contains(owner) && !self.is_complete(*owner);
            *owner != but && comes_back && !void
        };
        let mut owners = self.recorded.get(client).cloned().unwrap_or_default();
        owners.extend(self.unrecorded());
        // Where one was given to that says nothing.
        owners.extend(entry.places.iter().filter_map(|place| place.serves.filter(|node| *node != place.node)));
        owners.into_iter().filter(counts).collect()
    }

    fn grant(
        &mut self,
        now: Instant,
        client: &Client,
        entry: &mut Entry,
        claim: Pending,
        void: Vec<NodeId>,
        sink: &mut Sink<'_>,
    ) {
        let Pending { node, conn, born, clean, durable, epoch } = claim;
        // It may be that a higher one was heard of since.
        let epoch = epoch.filter(|epoch| *epoch == entry.top).unwrap_or_else(|| self.next_epoch(entry.top));
        entry.top = epoch;
        sink.counts.granted += 1;
        sink.counts.forks += u64::from(!void.is_empty());
        sink.counts.unanswered += u64::from(!entry.fences.is_empty());
        let attached = Born::new(now, Duration::ZERO, Duration::ZERO);
        let began = if clean { epoch } else { Epoch::ZERO };
        match entry.places.first_mut() {
            Some(place) => {
                // Where it goes is known from now on, if it goes.
                (place.epoch, place.born, place.serves) = (epoch, attached, None);
                // One in memory may end with its connection, and a stored one begin.
                place.durable |= durable;
                if clean {
                    place.clean = epoch;
                }
            }
            None => {
                let (serves, begun) = (Some(node), None);
                entry.places.push(Place {
                    node,
                    epoch,
                    clean: began,
                    durable,
                    born: attached,
                    serves,
                    begun,
                    over: false,
                });
            }
        }
        let home = entry.places.first().map_or(node, |place| place.node);
        entry.supersedes.retain(|(by, at, _)| *by != node || !void.contains(at));
        entry.supersedes.extend(void.iter().map(|at| (node, *at, epoch)));
        let holder = Holder { node, conn, epoch, born, home, durable, raise: None };
        holder.send(client, self.round(node), void, sink);
        entry.holder = Some(holder);
        entry.pending = None;
    }
}
