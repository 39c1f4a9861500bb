//! The seat: it asks every node that is up what it has, and grants claims when it knows.

use std::collections::{BTreeMap, BTreeSet};

use newtmq_base::{Incarnation, Instant, NodeId, planted};

use super::config::Config;
use super::entry::Entry;
use super::io::Output;
use super::message::{Client, Item, Message, Report};
use super::node::{Place, Seated, Sink};
use super::rank::Born;
use crate::lane::Epoch;

/// By what right a node is the seat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reign {
    pub(super) term: u64,
    /// Without a quorum: who sees each other. Empty with one.
    pub(super) view: Vec<NodeId>,
}

/// A node in its round.
#[derive(Debug)]
struct Peer {
    round: u64,
    /// What it has said until now, with the time and by how much its ages may be wrong.
    pages: Vec<(Vec<Item>, Instant, core::time::Duration)>,
    after: Option<Client>,
    complete: bool,
    /// Since when it is asked for the next page.
    asked: Instant,
    next: Instant,
    /// Of its last Claim.
    number: u64,
    /// Of the last report of an end.
    ended: u64,
}

#[derive(Debug)]
pub(super) struct Seat {
    pub(super) config: Config,
    pub(super) me: NodeId,
    inc: Incarnation,
    pub(super) members: BTreeSet<NodeId>,
    pub(super) reign: Option<Reign>,
    since: Instant,
    pub(super) open: bool,
    rounds: u64,
    /// Provisional epochs that this incarnation has issued.
    issued: u64,
    seq: u64,
    /// Another term was asked for.
    raised: bool,
    /// The highest term and number with a quorum that were heard of.
    top: (u64, u64),
    peers: BTreeMap<NodeId, Peer>,
    pub(super) entries: BTreeMap<Client, Entry>,
    /// When to look at clients for whom something has to be sent again, or who wait.
    pub(super) due: BTreeSet<(Instant, Client)>,
    /// Stored sessions, as the owned logs say.
    pub(super) recorded: BTreeMap<Client, BTreeSet<NodeId>>,
    /// By owner: how many of those there are, and whether there are more.
    owners: BTreeMap<NodeId, (usize, bool)>,
    /// By whom, where and up to which epoch sessions do not count, as the owned logs say.
    pub(super) voids: BTreeMap<Client, BTreeSet<(NodeId, NodeId, Epoch)>>,
}

impl Seat {
    pub(super) fn new(config: Config, me: NodeId, inc: Incarnation) -> Seat {
        Seat {
            config,
            me,
            inc,
            members: BTreeSet::new(),
            reign: None,
            since: Instant::START,
            open: false,
            rounds: inc.0 << 32,
            issued: 0,
            seq: 0,
            raised: false,
            top: (0, 0),
            peers: BTreeMap::new(),
            entries: BTreeMap::new(),
            due: BTreeSet::new(),
            recorded: BTreeMap::new(),
            owners: BTreeMap::new(),
            voids: BTreeMap::new(),
        }
    }

    /// When a tick has something to do.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let reign = self.reign.as_ref()?;
        let client = self.due.first().map(|(at, _)| *at);
        let late = (!self.open && reign.view.is_empty()).then(|| self.since + self.config.announce_max);
        let asked = self.peers.values().filter(|peer| !peer.complete).map(|peer| peer.next);
        asked.chain(client).chain(late).min()
    }

    pub(super) fn seated(&self) -> Option<Seated> {
        let Reign { term, view } = self.reign.as_ref()?;
        Some(Seated { term: *term, acting: !view.is_empty(), open: self.open, clients: self.entries.len() })
    }

    pub(super) fn is_complete(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|peer| peer.complete)
    }

    pub(super) fn place(&self, client: &str) -> Option<Place> {
        self.reign.as_ref()?;
        Some(self.entries.get(client).map_or(Place::default(), Entry::place))
    }

    /// Each client, with the nodes that have a session of it, and the one with its connection.
    pub(super) fn clients(&self) -> impl Iterator<Item = (&Client, impl Iterator<Item = NodeId>, Option<NodeId>)> {
        let holder = |entry: &Entry| entry.place().holder.map(|(node, _)| node);
        self.entries.iter().map(move |(client, entry)| (client, entry.homes(), holder(entry)))
    }

    pub(super) fn round(&self, node: NodeId) -> Option<u64> {
        self.peers.get(&node).map(|peer| peer.round)
    }

    /// Begins anew if the reign is another one than before.
    pub(super) fn set_reign(
        &mut self,
        now: Instant,
        reign: Option<Reign>,
        up: impl Iterator<Item = NodeId>,
        sink: &mut Sink<'_>,
    ) {
        if self.reign == reign {
            return;
        }
        self.reign = reign;
        self.peers.clear();
        self.entries.clear();
        self.due.clear();
        (self.since, self.open, self.seq, self.raised, self.top) = (now, false, 0, false, (0, 0));
        if self.reign.is_some() {
            up.for_each(|node| self.summon(now, node, sink));
            self.look(now, sink);
        }
    }

    pub(super) fn up(&mut self, now: Instant, node: NodeId, sink: &mut Sink<'_>) {
        // Without a quorum another view begins all anew. In this one is also who has started anew before it was missed.
        let reign = self.reign.as_ref();
        let is_in = reign.is_some_and(|reign| reign.view.is_empty() || reign.view.contains(&node));
        if is_in && !self.peers.contains_key(&node) {
            self.summon(now, node, sink);
        }
    }

    pub(super) fn down(&mut self, now: Instant, node: NodeId, sink: &mut Sink<'_>) {
        if self.peers.remove(&node).is_some() {
            self.forget(now, node, sink);
            self.look(now, sink);
        }
    }

    /// What a node has counts no more: it is down, or will say it anew.
    fn forget(&mut self, now: Instant, node: NodeId, sink: &mut Sink<'_>) {
        let touched = self.entries.iter_mut().filter_map(|(client, entry)| {
            let had = entry.forget(node);
            (had || entry.serves(node)).then(|| client.clone())
        });
        for client in touched.collect::<Vec<_>>() {
            self.advance(now, &client, sink);
        }
    }

    /// Begins a round with a node.
    fn summon(&mut self, now: Instant, node: NodeId, sink: &mut Sink<'_>) {
        self.rounds += 1;
        let peer = Peer {
            round: self.rounds,
            pages: Vec::new(),
            after: None,
            complete: false,
            asked: now,
            next: now,
            number: 0,
            ended: 0,
        };
        self.peers.insert(node, peer);
        self.ask(now, node, sink);
    }

    /// Asks a node for the next page.
    fn ask(&mut self, now: Instant, node: NodeId, sink: &mut Sink<'_>) {
        let (Some(peer), Some(reign)) = (self.peers.get_mut(&node), &self.reign) else { return };
        peer.next = now + self.config.retry;
        let (term, view) = (reign.term, reign.view.clone());
        sink.send(node, Message::Summon { round: peer.round, term, view, after: peer.after.clone() });
    }

    /// Whether a node is about to say what it has.
    pub(super) fn is_asked(&self, node: NodeId) -> bool {
        self.peers.get(&node).is_some_and(|peer| !peer.complete)
    }

    /// Whether claims can be granted from now on.
    fn look(&mut self, now: Instant, sink: &mut Sink<'_>) {
        let Some(reign) = &self.reign else { return };
        let late = reign.view.is_empty() && self.since + self.config.announce_max <= now;
        let all = self.peers.values().all(|peer| peer.complete) || planted!(OpenBeforeAnnounced);
        if !self.open && (all || late) {
            self.open = true;
            for client in self.entries.keys().cloned().collect::<Vec<_>>() {
                self.advance(now, &client, sink);
            }
        }
    }

    pub(super) fn record(&mut self, now: Instant, owner: NodeId, client: Client, present: bool, sink: &mut Sink<'_>) {
        if present {
            let known: usize = self.owners.values().map(|(count, _)| *count).sum();
            let (count, more) = self.owners.entry(owner).or_default();
            if known >= self.config.homes {
                *more = true;
                sink.counts.unrecorded += 1;
            } else {
                *count += usize::from(self.recorded.entry(client).or_default().insert(owner));
            }
        } else if let Some(owners) = self.recorded.get_mut(&client) {
            if owners.remove(&owner)
                && let Some((count, _)) = self.owners.get_mut(&owner)
            {
                *count -= 1;
                if *count == 0 {
                    self.owners.remove(&owner);
                }
            }
            if owners.is_empty() {
                self.recorded.remove(&client);
            }
            self.advance(now, &client, sink);
        }
    }

    /// Nodes with stored sessions that are not known one by one.
    pub(super) fn unrecorded(&self) -> impl Iterator<Item = NodeId> {
        self.owners.iter().filter(|(_, (_, more))| *more).map(|(owner, _)| *owner)
    }

    pub(super) fn record_void(
        &mut self,
        now: Instant,
        client: &Client,
        void: (NodeId, NodeId, Epoch),
        put: bool,
        sink: &mut Sink<'_>,
    ) {
        let voids = self.voids.entry(client.clone()).or_default();
        // One at a time for each home; which one is removed, it need not say.
        let before = voids.len();
        let is_new = !voids.contains(&void);
        voids.retain(|(by, home, _)| (*by, *home) != (void.0, void.1));
        let changed = if put { voids.insert(void) && is_new } else { voids.len() < before };
        if voids.is_empty() {
            self.voids.remove(client);
        }
        if changed {
            self.advance(now, client, sink);
        }
    }

    pub(super) fn tick(&mut self, now: Instant, sink: &mut Sink<'_>) {
        if self.reign.is_none() {
            return;
        }
        let late = self.peers.iter().filter(|(_, peer)| !peer.complete && peer.next <= now).map(|(node, _)| *node);
        late.collect::<Vec<_>>().into_iter().for_each(|node| self.ask(now, node, sink));
        self.look(now, sink);
        let rounds: BTreeMap<NodeId, u64> = self.peers.iter().map(|(node, peer)| (*node, peer.round)).collect();
        let due = self.due.iter().take_while(|(at, _)| *at <= now).map(|(_, client)| client.clone());
        for client in due.collect::<Vec<_>>() {
            if let Some(entry) = self.entries.get_mut(&client) {
                entry.resend(now, &client, self.config.retry, &rounds, sink);
            }
            self.advance(now, &client, sink);
        }
    }

    pub(super) fn receive(&mut self, now: Instant, from: NodeId, message: Message, sink: &mut Sink<'_>) {
        let Some(peer) = self.peers.get_mut(&from).filter(|_| self.reign.is_some()) else {
            return sink.stale(&message);
        };
        let (round, complete) = (peer.round, peer.complete);
        match message {
            Message::Again { round: heard } if heard >= round => {
                // It has heard of this round and obeys no more. Nobody knows until it has said so what it has: as at the
                // beginning, nobody gets a session that may be there.
                if !planted!(GrantedMeanwhile) {
                    (self.open, self.since) = (false, now);
                }
                self.peers.remove(&from);
                self.forget(now, from, sink);
                self.summon(now, from, sink);
            }
            Message::Announce { round: of, after, items, end } if of == round && !complete && peer.after == after => {
                let error = now.saturating_since(peer.asked);
                peer.after = items.last().map(|item| item.client.clone()).or(after);
                peer.asked = now;
                peer.pages.push((items, now, error));
                if end { self.announced(now, from, sink) } else { self.ask(now, from, sink) }
            }
            Message::Claim { round: of, number, client, link, known } if of == round && complete => {
                if number <= peer.number && !planted!(OldClaimTaken) {
                    return sink.counts.stale += 1;
                }
                peer.number = number;
                let born = Born::new(now, link.age, core::time::Duration::ZERO);
                self.claim(now, &client, from, &link, born, known, sink);
                self.advance(now, &client, sink);
            }
            Message::FenceAck { round: of, client, conn } if of == round => {
                self.gone(now, from, &client, (conn, true), sink);
            }
            Message::EndAck { round: of, client } if of == round && complete => {
                self.ended(now, from, &client, None, sink);
            }
            Message::Report { round: of, number, client, report } if of == round && complete => {
                match report {
                    // It may be that one is over; it is told again if not.
                    Report::Began(_) if number < peer.ended => return,
                    Report::Began(epoch) => self.began(now, from, &client, epoch, sink),
                    // What does not count is never confirmed, and ends.
                    Report::Moved(epoch, clean, durable) => {
                        if !self.moved(now, from, &client, (epoch, clean, durable), sink) {
                            return;
                        }
                    }
                    Report::Closed(conn, has) => {
                        // A claim of before may be its own; another one's comes again.
                        peer.number = peer.number.max(number);
                        self.gone(now, from, &client, (conn, has), sink);
                    }
                    Report::Ended(epoch) => {
                        peer.ended = peer.ended.max(number);
                        self.ended(now, from, &client, Some(epoch), sink);
                    }
                    Report::Acted(home, epoch) => {
                        if let Some(entry) = self.entries.get_mut(&client) {
                            entry.supersedes.retain(|other| *other != (from, home, epoch));
                        }
                        self.advance(now, &client, sink);
                    }
                }
                sink.send(from, Message::Reported { round, number });
            }
            Message::Took { round: of, client, conn, epoch } if of == round => {
                if let Some(entry) = self.entries.get_mut(&client) {
                    entry.took(from, conn, epoch);
                }
                self.advance(now, &client, sink);
            }
            // Of another round, or not for a seat.
            other @ (Message::Summon { .. }
            | Message::Announce { .. }
            | Message::Again { .. }
            | Message::Claim { .. }
            | Message::ClaimOk { .. }
            | Message::ClaimRejected { .. }
            | Message::Fence { .. }
            | Message::FenceAck { .. }
            | Message::End { .. }
            | Message::EndAck { .. }
            | Message::Acted { .. }
            | Message::Report { .. }
            | Message::Reported { .. }
            | Message::Took { .. }
            | Message::Attach { .. }
            | Message::Attached { .. }
            | Message::Outdated { .. }) => sink.stale(&other),
        }
    }

    /// A node has said all that it has.
    fn announced(&mut self, now: Instant, from: NodeId, sink: &mut Sink<'_>) {
        let Some(peer) = self.peers.get_mut(&from) else { return };
        peer.complete = true;
        let pages = core::mem::take(&mut peer.pages);
        let mut clients = Vec::new();
        for (items, at, error) in pages {
            let since = now.saturating_since(at);
            for item in items {
                clients.push(item.client.clone());
                self.adopt(now, from, item, since, error, sink);
            }
        }
        clients.into_iter().for_each(|client| self.advance(now, &client, sink));
        // What was to be made void at this node may be no more. Sessions that it had the connection of were left alone until
        // it says so again, also if it does not. Its recorded sessions are what it says now, and claims wait for that.
        let of = |entry: &Entry| entry.supersedes.iter().any(|(_, home, _)| *home == from);
        let waits = |entry: &Entry| entry.pending.is_some() || of(entry) || entry.serves(from);
        let waiting = self.entries.iter().filter(|(_, entry)| waits(entry)).map(|(client, _)| client.clone());
        waiting.collect::<Vec<_>>().into_iter().for_each(|client| self.advance(now, &client, sink));
        self.look(now, sink);
    }

    /// Whether a leader of a later term has been there: this one can give nothing any more that counts.
    fn is_outranked(&self, known: Epoch) -> bool {
        self.reign.as_ref().is_some_and(|reign| reign.view.is_empty() && known.term > reign.term)
    }

    /// The same; if it is so, a later term is wanted.
    pub(super) fn has_to_rise(&mut self, known: Epoch, sink: &mut Sink<'_>) -> bool {
        let is_outranked = self.is_outranked(known);
        if is_outranked && !core::mem::replace(&mut self.raised, true) && !planted!(TermNeverRises) {
            sink.out.push(Output::Raise { term: known.term });
        }
        is_outranked
    }

    /// An epoch for a client that is higher than all that are known for it.
    pub(super) fn next_epoch(&mut self, known: Epoch) -> Epoch {
        let Some(reign) = &self.reign else { return known };
        if reign.view.is_empty() {
            // A leader's term is higher than any before; within it this is the only counter.
            self.seq = if known.term == reign.term { self.seq.max(known.seq) } else { self.seq } + 1;
            let term = if planted!(SeqWithoutTerm) { 0 } else { reign.term };
            return Epoch { term, seq: self.seq, provisional: 0, issuer: self.me };
        }
        self.issued += 1;
        let (term, seq) = if known == Epoch::ZERO { self.top } else { (known.term, known.seq) };
        if planted!(ProvisionalStartsOver) {
            return Epoch { term, seq, provisional: self.issued, issuer: self.me };
        }
        // How often another issuer had a higher number, which start of this one, and which epoch of that start: so it is
        // higher than what it extends, and none is ever issued twice.
        let own = (self.inc.0 & 0xF_FFFF) << 32 | self.issued & 0xFFFF_FFFF;
        let depth = known.provisional >> 52;
        let depth = if depth << 52 | own > known.provisional { depth } else { depth + 1 };
        Epoch { term, seq, provisional: depth << 52 | own, issuer: self.me }
    }

    /// Remembers what epochs there are.
    pub(super) fn heard(&mut self, epoch: Epoch) {
        self.top = self.top.max((epoch.term, epoch.seq));
    }
}
