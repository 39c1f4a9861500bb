//! What a node has of clients, whoever the seat is: connections that wait for their session or have it, and sessions.

mod homes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use newtmq_base::{Instant, NodeId, planted};

use super::config::Config;
use super::io::{Output, Refused, Why};
use super::message::{Client, Conn, Item, Link, Message, Report, Session};
use super::node::Sink;
use crate::lane::Epoch;

/// A connection.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) conn: Conn,
    born: Instant,
    clean: bool,
    durable: bool,
    limits: Box<[u8]>,
    pub(super) granted: Option<(Epoch, NodeId)>,
    /// Since when.
    granted_at: Instant,
    /// The home has answered for this grant.
    attached: bool,
    /// The client was told that it is connected.
    pub(super) served: bool,
    /// The shard ends it.
    pub(super) fenced: bool,
    /// When to send the Claim or the Attach again.
    next: Option<Instant>,
}

/// A session of this node.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) epoch: Epoch,
    clean: Epoch,
    pub(super) durable: bool,
    /// When it was attached last; none if that was before this start.
    since: Option<Instant>,
    serves: Option<(NodeId, Conn)>,
    answer: Option<(bool, Box<[u8]>)>,
    lost: bool,
}

#[derive(Debug, Default)]
pub(super) struct Local {
    known: Epoch,
    pub(super) lines: Vec<Line>,
    pub(super) home: Option<Home>,
    supersedes: Vec<(NodeId, Epoch)>,
    /// Until when the epoch is remembered at least.
    until: Option<Instant>,
    /// When to look at its lines again.
    due: Option<Instant>,
}

impl Local {
    fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.home.is_none() && self.supersedes.is_empty()
    }

    fn line(&mut self, conn: Conn) -> Option<&mut Line> {
        self.lines.iter_mut().find(|line| line.conn == conn)
    }
}

#[derive(Debug)]
pub(super) struct Member {
    config: Config,
    me: NodeId,
    pub(super) locals: BTreeMap<Client, Local>,
    /// When to look at clients with a line that waits.
    due: BTreeSet<(Instant, Client)>,
    /// Lines whose clients wait.
    waiting: usize,
    /// The seat and the round.
    pub(super) obeys: Option<(NodeId, u64)>,
    /// The highest round of each seat.
    heard: BTreeMap<NodeId, u64>,
    reports: BTreeMap<u64, (Client, Report, Instant)>,
    number: u64,
    again: Instant,
    /// Clients of whom nothing is left but an epoch.
    graves: VecDeque<(Instant, Client)>,
    /// Records that sessions elsewhere do not count.
    voids: usize,
}

impl Member {
    pub(super) fn new(config: Config, me: NodeId, now: Instant) -> Member {
        Member {
            config,
            me,
            locals: BTreeMap::new(),
            due: BTreeSet::new(),
            waiting: 0,
            obeys: None,
            heard: BTreeMap::new(),
            reports: BTreeMap::new(),
            number: 0,
            again: now,
            graves: VecDeque::new(),
            voids: 0,
        }
    }

    /// When a tick has something to do.
    pub(super) fn next_due(&self, wants_seat: bool) -> Option<Instant> {
        let line = self.due.first().map(|(at, _)| *at);
        let report = self.reports.first_key_value().map(|(_, (.., next))| *next);
        let grave = self.graves.front().map(|(until, _)| *until);
        let seat = (wants_seat && self.obeys.is_none()).then_some(self.again);
        line.into_iter().chain(report).chain(grave).chain(seat).min()
    }

    /// Whether a line or a report waits.
    pub(super) fn waits(&self) -> bool {
        !self.due.is_empty() || !self.reports.is_empty() || self.obeys.is_none()
    }

    /// Has the lines of a client looked at when one of them is due.
    fn plan(&mut self, client: &Client) {
        let Some(local) = self.locals.get_mut(client) else { return };
        let late = |line: &Line| (!line.served).then(|| line.born + self.config.claim_max);
        let due = local.lines.iter().flat_map(|line| line.next.into_iter().chain(late(line))).min();
        if local.due != due {
            if let Some(old) = local.due {
                self.due.remove(&(old, client.clone()));
            }
            self.due.extend(due.map(|due| (due, client.clone())));
            local.due = due;
        }
    }

    pub(super) fn claim(&mut self, now: Instant, client: &Client, line: Line, sink: &mut Sink<'_>) {
        let conn = line.conn;
        if self.waiting >= self.config.claims {
            sink.counts.full += 1;
            sink.out.push(Output::Refused { client: client.clone(), conn, why: Refused::Full });
            return;
        }
        let local = self.locals.entry(client.clone()).or_default();
        let older = local.lines.iter().filter(|line| !line.served && line.granted.is_none()).map(|line| line.conn);
        for conn in older.collect::<Vec<_>>() {
            self.refuse(now, client, conn, Refused::Superseded, sink);
        }
        self.waiting += 1;
        self.locals.entry(client.clone()).or_default().lines.push(line);
        self.ask(now, client, conn, sink);
    }

    /// Sends a Claim, if there is somebody to send it to.
    fn ask(&mut self, now: Instant, client: &Client, conn: Conn, sink: &mut Sink<'_>) {
        let Some(local) = self.locals.get_mut(client) else { return };
        let known = local.known;
        let Some(line) = local.line(conn) else { return };
        line.next = Some(now + self.config.retry);
        let link = tell(line, now);
        self.plan(client);
        if let Some((seat, round)) = self.obeys {
            self.number += 1;
            sink.send(seat, Message::Claim { round, number: self.number, client: client.clone(), link, known });
        }
    }

    fn attach(&mut self, now: Instant, client: &Client, conn: Conn, sink: &mut Sink<'_>) {
        let Some(line) = self.locals.get_mut(client).and_then(|local| local.line(conn)) else { return };
        let Some((epoch, home)) = line.granted else { return };
        line.next = Some(now + self.config.retry);
        // Who goes on does not start.
        let (clean, durable, limits) = (line.clean && !line.served, line.durable, line.limits.clone());
        self.plan(client);
        sink.send(home, Message::Attach { client: client.clone(), conn, epoch, clean, durable, limits });
    }

    /// Removes a line. Its client is told by the caller.
    fn drop_line(&mut self, now: Instant, client: &Client, conn: Conn, sink: &mut Sink<'_>) {
        let Some(local) = self.locals.get_mut(client) else { return };
        let Some(place) = local.lines.iter().position(|line| line.conn == conn) else { return };
        let line = local.lines.remove(place);
        self.waiting -= usize::from(!line.served);
        let has = local.home.is_some() || line.granted.is_some();
        self.report(now, client, Report::Closed(conn, has), sink);
        self.tidy(now, client, sink);
    }

    fn refuse(&mut self, now: Instant, client: &Client, conn: Conn, why: Refused, sink: &mut Sink<'_>) {
        self.drop_line(now, client, conn, sink);
        sink.out.push(Output::Refused { client: client.clone(), conn, why });
    }

    pub(super) fn closed(&mut self, now: Instant, client: &Client, conn: Conn, sink: &mut Sink<'_>) {
        self.drop_line(now, client, conn, sink);
    }

    /// Forgets a client of whom there is nothing; its epoch a while later, for an Attach may be late.
    fn tidy(&mut self, now: Instant, client: &Client, sink: &mut Sink<'_>) {
        self.plan(client);
        let Some(local) = self.locals.get_mut(client) else { return };
        if !local.is_empty() {
            return;
        }
        match local.until {
            Some(until) if until > now => {
                self.graves.push_back((until, client.clone()));
                while self.graves.len() > self.config.graves {
                    self.bury(Instant::NEVER, sink);
                }
            }
            Some(_) | None => _ = self.locals.remove(client),
        }
    }

    /// Forgets the first client of whom nothing is left, if its time has come by then.
    fn bury(&mut self, by: Instant, sink: &mut Sink<'_>) {
        let Some((until, client)) = self.graves.pop_front() else { return };
        if self.locals.get(&client).is_some_and(|local| local.is_empty() && local.until.is_some_and(|at| at <= by)) {
            sink.counts.forgotten += u64::from(by == Instant::NEVER && until < by);
            self.locals.remove(&client);
        }
    }

    fn report(&mut self, now: Instant, client: &Client, report: Report, sink: &mut Sink<'_>) {
        let Some((seat, round)) = self.obeys else { return };
        if self.reports.len() >= self.config.reports {
            // All that this node has says more than what it has not any more.
            sink.counts.overruns += 1;
            self.disobey(now);
            sink.send(seat, Message::Again { round });
            return;
        }
        self.number += 1;
        self.reports.insert(self.number, (client.clone(), report, now + self.config.retry));
        sink.send(seat, Message::Report { round, number: self.number, client: client.clone(), report });
    }

    /// Nobody is obeyed until somebody asks.
    pub(super) fn disobey(&mut self, now: Instant) {
        self.obeys = None;
        // All else is in what this node announces; for this it needs an answer.
        self.reports.retain(|_, (_, report, _)| matches!(report, Report::Moved(..)));
        self.again = now + self.config.retry;
    }

    /// Whether a Summon of this round is not an old one.
    pub(super) fn is_current(&self, seat: NodeId, round: u64) -> bool {
        self.obeys == Some((seat, round)) || self.heard.get(&seat).is_none_or(|heard| *heard < round)
    }

    /// A seat that may be obeyed asks for a page.
    pub(super) fn summoned(
        &mut self,
        now: Instant,
        seat: NodeId,
        round: u64,
        after: Option<Client>,
        sink: &mut Sink<'_>,
    ) {
        if self.obeys != Some((seat, round)) {
            self.disobey(now);
            self.obeys = Some((seat, round));
            self.heard.insert(seat, round);
        }
        let mut items = Vec::new();
        let mut rest = match &after {
            Some(after) => {
                self.locals.range::<Client, _>((core::ops::Bound::Excluded(after.clone()), core::ops::Bound::Unbounded))
            }
            None => self.locals.range::<Client, _>(..),
        };
        let mut end = true;
        for (client, local) in rest.by_ref().filter(|(_, local)| !local.is_empty()) {
            if items.len() >= self.config.page {
                end = false;
                break;
            }
            items.push(item(client, local, now));
        }
        sink.send(seat, Message::Announce { round, after, items, end });
    }

    /// A message of the seat that is obeyed, in its round.
    pub(super) fn ordered(&mut self, now: Instant, round: u64, message: Message, sink: &mut Sink<'_>) {
        let seat = self.obeys.map_or(self.me, |(seat, _)| seat);
        match message {
            Message::ClaimOk { client, conn, epoch, home, supersedes, .. } => {
                self.granted(now, (seat, round), (&client, conn), (epoch, home), &supersedes, sink);
            }
            Message::ClaimRejected { client, conn, why, .. } => {
                match self.locals.get_mut(&client).and_then(|local| local.line(conn)) {
                    Some(line) if line.granted.is_some() || line.fenced => {}
                    Some(line) if line.served => self.fence(now, &client, conn, Epoch::ZERO, Why::Takeover, sink),
                    Some(_) => self.refuse(now, &client, conn, why, sink),
                    None => {}
                }
            }
            Message::Fence { client, conn, epoch, why, .. } => {
                if self.locals.get_mut(&client).and_then(|local| local.line(conn)).is_none() {
                    sink.send(seat, Message::FenceAck { round, client, conn });
                } else {
                    self.fence(now, &client, conn, epoch, why, sink);
                }
            }
            Message::End { client, epoch, to, discard, .. } => {
                match self.locals.get_mut(&client).and_then(|local| local.home.as_mut()) {
                    None => sink.send(seat, Message::EndAck { round, client }),
                    Some(home) if home.epoch > epoch => {
                        // Another connection has attached to it since, of which the seat does not know.
                        let epoch = home.epoch;
                        self.report(now, &client, Report::Began(epoch), sink);
                    }
                    Some(home) => {
                        if !core::mem::replace(&mut home.lost, true) {
                            sink.out.push(Output::Lost { client, epoch, to, discard });
                        }
                    }
                }
            }
            Message::Acted { client, home, epoch, .. } => {
                self.acted(&client, home, epoch, sink);
                self.report(now, &client, Report::Acted(home, epoch), sink);
                self.tidy(now, &client, sink);
            }
            Message::Reported { number, .. } => {
                if let Some((client, Report::Moved(epoch, ..), _)) = self.reports.remove(&number) {
                    sink.out.push(Output::Moved { client, epoch });
                }
            }
            other @ (Message::Summon { .. }
            | Message::Announce { .. }
            | Message::Again { .. }
            | Message::Claim { .. }
            | Message::FenceAck { .. }
            | Message::EndAck { .. }
            | Message::Report { .. }
            | Message::Took { .. }
            | Message::Attach { .. }
            | Message::Attached { .. }
            | Message::Outdated { .. }) => sink.stale(&other),
        }
    }

    fn acted(&mut self, client: &Client, home: NodeId, epoch: Epoch, sink: &mut Sink<'_>) {
        let Some(local) = self.locals.get_mut(client) else { return };
        let before = local.supersedes.len();
        local.supersedes.retain(|other| *other != (home, epoch));
        let removed = before - local.supersedes.len();
        self.voids -= removed;
        if removed > 0 {
            sink.out.push(Output::Supersedes { client: client.clone(), epoch, home, put: false });
        }
    }

    fn fence(&mut self, now: Instant, client: &Client, conn: Conn, epoch: Epoch, why: Why, sink: &mut Sink<'_>) {
        let Some(local) = self.locals.get_mut(client) else { return };
        local.known = local.known.max(epoch);
        let epoch = local.known;
        match local.line(conn) {
            Some(line) if !line.served => {
                if planted!(FenceSparesClaims) {
                    let (seat, round) = self.obeys.unwrap_or((self.me, 0));
                    sink.send(seat, Message::FenceAck { round, client: client.clone(), conn });
                    return;
                }
                self.refuse(now, client, conn, Refused::Superseded, sink);
            }
            Some(line) if !line.fenced => {
                line.fenced = true;
                line.next = None;
                self.plan(client);
                sink.out.push(Output::Fence { client: client.clone(), conn, epoch, why });
            }
            Some(_) | None => {}
        }
    }

    fn granted(
        &mut self,
        now: Instant,
        (seat, round): (NodeId, u64),
        (client, conn): (&Client, Conn),
        (epoch, home): (Epoch, NodeId),
        supersedes: &[NodeId],
        sink: &mut Sink<'_>,
    ) {
        let local = self.locals.entry(client.clone()).or_default();
        let has_home = local.home.is_some();
        let Some(line) = local.line(conn) else {
            sink.send(seat, Message::FenceAck { round, client: client.clone(), conn });
            if home == self.me && !has_home {
                self.report(now, client, Report::Ended(epoch), sink);
            }
            self.tidy(now, client, sink);
            return;
        };
        if line.fenced || line.granted.is_some_and(|(old, _)| old >= epoch) {
            if line.served && !line.fenced {
                sink.send(seat, Message::Took { round, client: client.clone(), conn, epoch });
            }
            return;
        }
        if !line.served && !supersedes.is_empty() && self.voids + supersedes.len() > self.config.voids {
            sink.counts.full += 1;
            self.refuse(now, client, conn, Refused::Full, sink);
            if home == self.me && !has_home {
                self.report(now, client, Report::Ended(epoch), sink);
            }
            return;
        }
        (line.granted, line.attached, line.granted_at) = (Some((epoch, home)), false, now);
        if line.served {
            sink.send(seat, Message::Took { round, client: client.clone(), conn, epoch });
        }
        local.known = local.known.max(epoch);
        for home in supersedes.iter().filter(|_| !planted!(TombstoneForgotten)) {
            self.supersede(client, *home, epoch, Some(sink));
        }
        self.attach(now, client, conn, sink);
    }

    /// Remembers that a session elsewhere does not count, and has it written.
    pub(super) fn supersede(&mut self, client: &Client, home: NodeId, epoch: Epoch, sink: Option<&mut Sink<'_>>) {
        let local = self.locals.entry(client.clone()).or_default();
        local.known = local.known.max(epoch);
        self.voids -= local.supersedes.len();
        local.supersedes.retain(|(other, old)| *other != home || *old > epoch);
        let is_new = local.supersedes.iter().all(|(other, _)| *other != home);
        local.supersedes.extend(is_new.then_some((home, epoch)));
        self.voids += local.supersedes.len();
        if is_new && let Some(sink) = sink {
            sink.out.push(Output::Supersedes { client: client.clone(), epoch, home, put: true });
        }
    }

    pub(super) fn tick(&mut self, now: Instant, seat: Option<NodeId>, sink: &mut Sink<'_>) {
        while self.graves.front().is_some_and(|(until, _)| *until <= now) {
            self.bury(now, sink);
        }
        let due = self.due.iter().take_while(|(at, _)| *at <= now).map(|(_, client)| client.clone());
        for client in due.collect::<Vec<_>>() {
            self.tick_client(now, &client, sink);
        }
        match (self.obeys, seat) {
            (Some((seat, round)), _) => {
                // What was said first is due first.
                let due = self.reports.iter().take_while(|(_, (.., next))| *next <= now).map(|(number, _)| *number);
                for old in due.collect::<Vec<_>>() {
                    // With a new number: none is taken for older than what was said after it.
                    let Some((client, report, _)) = self.reports.remove(&old) else { continue };
                    self.number += 1;
                    let number = self.number;
                    self.reports.insert(number, (client.clone(), report, now + self.config.retry));
                    sink.send(seat, Message::Report { round, number, client, report });
                }
            }
            (None, Some(seat)) if self.again <= now => {
                self.again = now + self.config.retry;
                sink.send(seat, Message::Again { round: self.heard.get(&seat).copied().unwrap_or(0) });
            }
            (None, _) => {}
        }
    }

    fn tick_client(&mut self, now: Instant, client: &Client, sink: &mut Sink<'_>) {
        let Some(local) = self.locals.get_mut(client) else { return };
        let late = |line: &&Line| !line.served && line.born + self.config.claim_max <= now;
        let late: Vec<Conn> = local.lines.iter().filter(late).map(|line| line.conn).collect();
        for line in local.lines.iter_mut().filter(|line| !line.attached && !line.served && line.granted.is_some()) {
            if planted!(SilenceIsNoSession, now.saturating_since(line.granted_at).as_millis() > 1000) {
                line.granted = line.granted.map(|(epoch, _)| (epoch, self.me));
            }
        }
        let due = |line: &&Line| line.next.is_some_and(|next| next <= now) && !late.contains(&line.conn);
        let due: Vec<(Conn, bool)> =
            local.lines.iter().filter(due).map(|line| (line.conn, line.granted.is_some())).collect();
        for (conn, granted) in due {
            if granted { self.attach(now, client, conn, sink) } else { self.ask(now, client, conn, sink) }
        }
        for conn in late {
            sink.counts.expired += 1;
            self.refuse(now, client, conn, Refused::Unavailable, sink);
        }
    }
}

impl Line {
    pub(super) fn new(now: Instant, conn: Conn, clean: bool, durable: bool, limits: Box<[u8]>) -> Line {
        Line {
            conn,
            born: now,
            clean,
            durable,
            limits,
            granted: None,
            granted_at: now,
            attached: false,
            served: false,
            fenced: false,
            next: None,
        }
    }
}

fn tell(line: &Line, now: Instant) -> Link {
    let mut age = now.saturating_since(line.born);
    if planted!(AgeByClock) {
        // What the clock said at CONNECT, as if clocks agreed.
        age = core::time::Duration::from_secs(1_000_000).saturating_sub(line.born.saturating_since(Instant::START));
    }
    Link { conn: line.conn, age: whole(age), clean: line.clean, durable: line.durable, granted: line.granted }
}

fn item(client: &Client, local: &Local, now: Instant) -> Item {
    let session = local.home.as_ref().map(|home| Session {
        epoch: home.epoch,
        clean: home.clean,
        durable: home.durable,
        age: home.since.map_or(LONG_AGO, |since| whole(now.saturating_since(since))),
        serves: home.serves.map(|(node, _)| node),
    });
    let links = local.lines.iter().map(|line| tell(line, now)).collect();
    Item { client: client.clone(), known: local.known, links, session, supersedes: local.supersedes.clone() }
}

/// In whole milliseconds, as ages go over links.
fn whole(age: core::time::Duration) -> core::time::Duration {
    core::time::Duration::from_millis(u64::try_from(age.as_millis()).unwrap_or(u64::MAX))
}

/// How old a session counts that was read from a disk: older than any that was attached since.
const LONG_AGO: core::time::Duration = core::time::Duration::from_secs(3_000_000_000);
