//! Everything that a node has of logs: its own, the copies of the others', and who waits for what. Control owns one.

use std::collections::BTreeMap;
use std::sync::Arc;

use newtmq_base::{Incarnation, Instant, NodeId, ShardId, planted};

use super::barrier::{BarrierId, Barriers, Done, Mode};
use super::config::Config;
use super::damping::Damping;
use super::entry::{Op, RecordKind};
use super::install::{Installs, Progress};
use super::lease::Leases;
use super::log::{Change, Limits, OwnedLog};
use super::message::{Chunk, Delta, Message, Table};
use super::replica::{Effects, Phase, Replica, Replicas, RouteChange};

/// Changes of one node's routes for all shards of this one, to be installed in order.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch {
    /// Counts the batches, from 1.
    pub seq: u64,
    /// Whose routes; this node's own too.
    pub node: NodeId,
    /// Changes of what is matched.
    pub routes: Vec<RouteChange>,
    /// Changes of the node's records.
    pub records: Vec<Op>,
}

/// What is to be done.
#[derive(Debug)]
pub enum Output {
    /// Send the same to these peers, whose links may be down: then it is lost, and that does no harm.
    Send {
        /// To whom.
        to: Vec<NodeId>,
        /// What.
        message: Message,
    },
    /// Give this to every shard, and to the disk if the configuration says so; each says when it is [installed](Owned::installed).
    Batch(Arc<Batch>),
    /// A wait has ended.
    Done(Done),
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OwnedCounts {
    /// Messages of nodes or incarnations that they may not be from, or of nodes that are masked.
    pub refused: u64,
    /// Peers that had another digest of this node's log.
    pub repairs_heard: u64,
    /// Waits that ended without all for whom they were.
    pub incomplete: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Link {
    damping: Damping,
    /// The peer is reachable and counts as up from then on.
    rises: Option<(Instant, Incarnation)>,
}

/// The logs of a node.
#[derive(Debug)]
pub struct Owned {
    config: Config,
    node: NodeId,
    shards: u16,
    log: OwnedLog,
    /// The version with which all that was stored is in the log: others may see it.
    recovered: Option<u64>,
    replicas: Replicas,
    /// Copies of nodes that are no members any more.
    leaving: Vec<Replica>,
    links: BTreeMap<NodeId, Link>,
    /// What all shards match by, of the logs that are open.
    installed: BTreeMap<NodeId, (Incarnation, u64)>,
    installs: Installs,
    barriers: Barriers,
    leases: Leases,
    heartbeat_due: Instant,
    counts: OwnedCounts,
}

impl Owned {
    /// The logs of `node`, which has so many shards, at the start of an incarnation.
    ///
    /// # Panics
    /// If the configuration allows no work, or no bytes in a message.
    #[must_use]
    pub fn new(config: Config, now: Instant, node: NodeId, inc: Incarnation, shards: u16) -> Owned {
        assert!(config.work > 0 && config.message_bytes > 0, "nothing would ever be done");
        let limits = Limits { ring: config.ring_ops, ops: config.message_ops, bytes: config.message_bytes };
        let installers = shards + u16::from(config.stored);
        Owned {
            node,
            shards,
            log: OwnedLog::new(inc, config.digest_key, limits),
            recovered: None,
            replicas: Replicas::new(),
            leaving: Vec::new(),
            links: BTreeMap::new(),
            installed: BTreeMap::new(),
            installs: Installs::new(installers),
            barriers: Barriers::new(now + config.lease, config.barrier, config.barriers_max),
            leases: Leases::new(config.lease, config.lease_renew, config.drift_percent, first_number(inc)),
            heartbeat_due: now,
            counts: OwnedCounts::default(),
            config,
        }
    }

    /// The node's own log.
    #[must_use]
    pub fn log(&self) -> &OwnedLog {
        &self.log
    }

    /// The copies of the members' logs.
    pub fn replicas(&self) -> impl Iterator<Item = &Replica> {
        self.replicas.values()
    }

    /// The copy of a member's log.
    #[must_use]
    pub fn replica(&self, owner: NodeId) -> Option<&Replica> {
        self.replicas.get(&owner)
    }

    /// How far a member's log is at the shards: open once all of them match by it.
    #[must_use]
    pub fn phase(&self, owner: NodeId) -> Phase {
        let phase = self.replicas.get(&owner).map_or(Phase::Masked, Replica::phase);
        if phase == Phase::Open && !self.installed.contains_key(&owner) { Phase::Syncing } else { phase }
    }

    /// Members of which there is no table at all: until there is one, a publish of QoS 1 or 2 cannot be acknowledged, for
    /// nobody here can say whom it should reach there.
    pub fn without_table(&self) -> impl Iterator<Item = NodeId> {
        self.replicas.values().filter(|replica| !replica.is_held()).map(Replica::owner)
    }

    /// Whether every member's lease is fresh at the moment that a publish is matched. If so, it reaches every subscription
    /// whose strict barrier was complete before.
    #[must_use]
    pub fn leases_are_fresh(&self, now: Instant) -> bool {
        let fresh = |owner: &NodeId| {
            self.phase(*owner) == Phase::Open && self.leases.is_fresh(now, *owner, self.installed.get(owner).copied())
        };
        let own = self.recovered.is_some_and(|version| self.barriers.own() >= version);
        own && self.replicas.keys().all(fresh)
    }

    /// Until when every member's lease is fresh, as things are: what is matched before then reaches every subscription whose
    /// strict barrier was complete before. [`Instant::START`] if one is not; [`Instant::NEVER`] without members.
    #[must_use]
    pub fn fresh_until(&self, now: Instant) -> Instant {
        if self.recovered.is_none_or(|version| self.barriers.own() < version) {
            return Instant::START;
        }
        let until = |owner: &NodeId| match self.phase(*owner) {
            Phase::Open => self.leases.fresh_until(*owner, self.installed.get(owner).copied()),
            Phase::Masked | Phase::Syncing => Instant::START,
        };
        let until = self.replicas.keys().map(until).min().unwrap_or(Instant::NEVER);
        if until > now { until } else { Instant::START }
    }

    /// Whether routes of a node that is no member any more are still matched.
    #[must_use]
    pub fn is_leaving(&self, node: NodeId) -> bool {
        self.leaving.iter().any(|replica| replica.owner() == node)
    }

    /// Until when a member that can be reached counts as down because it flaps; [`Instant::START`] if it does not.
    #[must_use]
    pub fn held_until(&self, node: NodeId) -> Instant {
        self.links.get(&node).and_then(|link| link.rises).map_or(Instant::START, |(from, _)| from)
    }

    /// What has happened.
    #[must_use]
    pub fn counts(&self) -> OwnedCounts {
        self.counts
    }

    /// How many wait, and how many batches the slowest shard is behind.
    #[must_use]
    pub fn waiting(&self) -> (usize, u64) {
        (self.barriers.waiting(), self.installs.lag())
    }

    /// When [`Owned::tick`] is wanted.
    #[must_use]
    pub fn next_deadline(&self) -> Instant {
        // Without peers there is nobody to tell, and a node that is alone rests.
        let mut due = if self.barriers.present().next().is_some() { self.heartbeat_due } else { Instant::NEVER };
        due = self.barriers.next_deadline().map_or(due, |other| due.min(other));
        for replica in self.replicas.values() {
            due = replica.next_deadline().map_or(due, |other| due.min(other));
        }
        if self.barriers.present().next().is_some() {
            let borrow = self.replicas.values().filter_map(Replica::borrow_due);
            due = borrow.fold(due, Instant::min);
        }
        for (rises, _) in self.links.values().filter_map(|link| link.rises) {
            due = due.min(rises);
        }
        if self.config.strict {
            for owner in self.lessors() {
                due = self.leases.next_deadline(owner).map_or(due, |other| due.min(other));
            }
        }
        if self.leaving.is_empty() { due } else { Instant::START }
    }

    /// Whom this node asks to be waited for. Nothing is acknowledged without an owner's routes: it need not wait for a node that
    /// cannot take them, with a full disk for instance.
    fn lessors(&self) -> impl Iterator<Item = NodeId> {
        let present = self.barriers.present().map(|(owner, _)| owner);
        present.filter(|owner| self.phase(*owner) == Phase::Open || planted!(LeaseWithoutRoutes))
    }

    /// Changes of a shard's subscriptions. [`Owned::require`] afterwards waits for them.
    ///
    /// # Panics
    /// If a shard takes back what it has not told.
    pub fn change(&mut self, now: Instant, shard: ShardId, changes: &[Change], out: &mut Vec<Output>) {
        let from = self.log.version() + 1;
        let ops: Vec<Op> = changes.iter().filter_map(|change| self.log.change(shard, change)).collect();
        self.publish(now, from, ops, out);
    }

    /// Sets or removes records of the node.
    pub fn record(&mut self, now: Instant, kind: RecordKind, key: &[u8], value: Option<&[u8]>, out: &mut Vec<Output>) {
        let from = self.log.version() + 1;
        let ops = self.log.record(kind, key, value).into_iter().collect();
        self.publish(now, from, ops, out);
    }

    /// Tells the shards and the peers about new operations.
    fn publish(&mut self, now: Instant, from: u64, ops: Vec<Op>, out: &mut Vec<Output>) {
        if ops.is_empty() {
            return;
        }
        let mut effects = Effects::default();
        for op in &ops {
            match op {
                Op::Route { filter, class, shard, members } => {
                    let (filter, class, shard, members) = (filter.clone(), *class, *shard, *members);
                    effects.routes.push(RouteChange { filter, class, shard, members });
                }
                Op::Record { .. } => effects.records.push(op.clone()),
            }
        }
        self.give_out(self.node, &mut effects, out);
        let progress = Progress { owner: self.node, inc: self.log.incarnation(), version: self.log.version() };
        self.installs.expect(progress);
        self.proceed(now, out);
        let to: Vec<NodeId> = self.barriers.readers().collect();
        if self.is_served() && !to.is_empty() {
            self.log.deltas(from, &ops, |message| out.push(Output::Send { to: to.clone(), message }));
        }
    }

    /// Whether others may see the log. Before all that was stored is in it, a copy would lack routes that are matched.
    fn is_served(&self) -> bool {
        self.recovered.is_some() || planted!(ServedBeforeRecovery)
    }

    /// The log has all that was stored by earlier incarnations.
    pub fn recovered(&mut self, now: Instant, out: &mut Vec<Output>) {
        self.recovered.get_or_insert(self.log.version());
        self.heartbeat_due = now;
        self.tick(now, out);
    }

    /// Waits until everybody for whom it is knows of all that this node has subscribed to; ends with [`Output::Done`], perhaps
    /// at once.
    pub fn require(&mut self, now: Instant, mode: Mode, out: &mut Vec<Output>) -> BarrierId {
        let mut done = Vec::new();
        let barrier = self.barriers.require(now, self.log.version(), mode, &mut done);
        self.tell_done(done, out);
        barrier
    }

    fn tell_done(&mut self, done: Vec<Done>, out: &mut Vec<Output>) {
        self.counts.incomplete += done.iter().filter(|done| !done.complete).count() as u64;
        out.extend(done.into_iter().map(Output::Done));
    }

    /// A node is a member. Its log is masked until it is [`Owned::up`].
    pub fn member(&mut self, node: NodeId) {
        if node != self.node {
            self.replica_of(node, Incarnation(0));
        }
    }

    fn replica_of(&mut self, node: NodeId, inc: Incarnation) -> &mut Replica {
        let (key, retry) = (self.config.digest_key, self.config.retry);
        let numbers = first_number(self.log.incarnation());
        self.replicas.entry(node).or_insert_with(|| Replica::new(node, inc, key, retry, numbers))
    }

    /// Durable entries of a member that were stored, before it is up.
    pub fn restore(&mut self, now: Instant, owner: NodeId, entries: &[Op], out: &mut Vec<Output>) {
        let mut effects = Effects::default();
        self.replica_of(owner, Incarnation(0)).restore(entries, &mut effects);
        self.settle(now, owner, effects, out);
    }

    /// A member can be reached, and runs with this incarnation. If its link flaps it counts as down for a while yet.
    pub fn up(&mut self, now: Instant, node: NodeId, inc: Incarnation, out: &mut Vec<Output>) {
        self.drain(Some(node), out);
        if inc < self.newest(node) {
            self.counts.refused += 1;
            return;
        }
        let (config, replica) = (self.config.damping, self.replicas.get(&node));
        let is_up = replica.is_some_and(|replica| replica.phase() != Phase::Masked);
        let link = self.links.entry(node).or_default();
        let from = if is_up { now } else { link.damping.up(now, config) };
        link.rises = Some((from, inc));
        self.rise(now, node, out);
    }

    /// The latest incarnation that was heard of.
    fn newest(&self, node: NodeId) -> Incarnation {
        let known = self.replicas.get(&node).map_or(Incarnation(0), Replica::incarnation);
        let rising = self.links.get(&node).and_then(|link| link.rises);
        rising.map_or(known, |(_, rising)| rising.max(known))
    }

    fn rise(&mut self, now: Instant, node: NodeId, out: &mut Vec<Output>) {
        let Some(link) = self.links.get_mut(&node) else { return };
        let Some((_, inc)) = link.rises.filter(|(from, _)| *from <= now) else { return };
        link.rises = None;
        self.barriers.up(node, inc);
        self.leases.up(node, inc);
        let (mut work, mut effects) = (self.config.work, Effects::default());
        self.replica_of(node, inc).unmask(now, inc, &mut work, &mut effects);
        self.settle(now, node, effects, out);
        if self.is_served() {
            out.push(Output::Send { to: vec![node], message: self.log.have(0) });
        }
    }

    /// A member counts as down. Says nothing about a later incarnation than this one.
    pub fn down(&mut self, now: Instant, node: NodeId, inc: Incarnation, out: &mut Vec<Output>) {
        let newest = self.newest(node);
        let Some(replica) = self.replicas.get_mut(&node) else { return };
        if inc >= newest {
            let link = self.links.entry(node).or_default();
            link.damping.down(now, self.config.damping);
            link.rises = None;
        }
        let (mut work, mut effects) = (self.config.work, Effects::default());
        replica.mask(inc, &mut work, &mut effects);
        self.barriers.down(node, inc);
        self.settle(now, node, effects, out);
    }

    /// A node is no member any more, as the quorum has committed.
    pub fn forget(&mut self, now: Instant, node: NodeId, out: &mut Vec<Output>) {
        let Some(replica) = self.replicas.remove(&node) else { return };
        self.leaving.push(replica);
        self.links.remove(&node);
        self.installed.remove(&node);
        self.installs.cancel(node);
        self.barriers.forget(now, node);
        self.leases.forget(node);
        self.drain(None, out);
        self.proceed(now, out);
    }

    /// Removes routes of nodes that have left: a part, or all of one node.
    fn drain(&mut self, whole: Option<NodeId>, out: &mut Vec<Output>) {
        for mut replica in core::mem::take(&mut self.leaving) {
            let mut work = if whole == Some(replica.owner()) { usize::MAX } else { self.config.work };
            let mut effects = Effects::default();
            let done = replica.drain(&mut work, &mut effects);
            self.give_out(replica.owner(), &mut effects, out);
            if !done {
                self.leaving.push(replica);
            }
        }
    }

    /// A message from a peer's incarnation, as its link has found out.
    pub fn receive(&mut self, now: Instant, from: NodeId, inc: Incarnation, message: Message, out: &mut Vec<Output>) {
        if let Message::Installed { inc: own, version, .. } = message
            && self.barriers.incarnation(from) == Some(inc)
            && own == self.log.incarnation()
        {
            self.barriers.peer_installed(from, version);
            return self.proceed(now, out);
        }
        if self.barriers.incarnation(from) != Some(inc) || self.barriers.is_masked(from) {
            self.counts.refused += 1;
            return;
        }
        match message {
            Message::Have { inc: of, .. }
            | Message::Delta(Delta { inc: of, .. })
            | Message::SnapshotChunk(Chunk { inc: of, .. }) => {
                if of == inc {
                    self.on_owner(now, from, message, out);
                } else {
                    self.counts.refused += 1;
                }
            }
            Message::Fetch { inc: own, .. }
            | Message::SnapshotRequest { inc: own, .. }
            | Message::Repair { inc: own, .. }
            | Message::Installed { inc: own, .. }
            | Message::LeaseRequest { inc: own, .. } => {
                if own == self.log.incarnation() {
                    self.on_reader(now, from, message, out);
                } else {
                    self.counts.refused += 1;
                }
            }
            Message::Table(table) => self.on_table(now, from, table, out),
            Message::Lease { inc: of, number, version } => self.leases.granted(now, from, of, number, version),
        }
    }

    /// About the sender's log.
    fn on_owner(&mut self, now: Instant, from: NodeId, message: Message, out: &mut Vec<Output>) {
        let Some(replica) = self.replicas.get_mut(&from) else { return };
        let heard = if let Message::Have { acked, .. } = message { acked } else { u64::MAX };
        let (mut work, mut effects) = (self.config.work, Effects::default());
        replica.receive(now, message, &mut work, &mut effects);
        self.settle(now, from, effects, out);
        // The owner has not heard of what is installed.
        if let Some((inc, version)) = self.installed.get(&from).filter(|(_, version)| *version > heard) {
            out.push(Output::Send {
                to: vec![from],
                message: Message::Installed { inc: *inc, version: *version, retained: 0 },
            });
        }
    }

    /// About this node's log.
    fn on_reader(&mut self, now: Instant, from: NodeId, message: Message, out: &mut Vec<Output>) {
        let inc = self.log.incarnation();
        let (answer, whole) = match message {
            Message::Fetch { attempt, version, .. } if self.is_served() => self.log.fetched(attempt, version),
            Message::SnapshotRequest { attempt, version, from, .. } if self.is_served() => {
                self.log.chunk(attempt, version, from)
            }
            Message::LeaseRequest { number, .. } if self.is_served() => {
                self.barriers.lease(from, now + self.config.lease);
                (Message::Lease { inc, number, version: self.log.version() }, false)
            }
            Message::Repair { .. } => {
                self.counts.repairs_heard += 1;
                return;
            }
            Message::Fetch { .. }
            | Message::SnapshotRequest { .. }
            | Message::LeaseRequest { .. }
            | Message::Have { .. }
            | Message::Delta(_)
            | Message::SnapshotChunk(_)
            | Message::Installed { .. }
            | Message::Lease { .. }
            | Message::Table(_) => return,
        };
        if whole {
            self.barriers.has_whole(from);
        }
        out.push(Output::Send { to: vec![from], message: answer });
    }

    /// About a third node's log.
    fn on_table(&mut self, now: Instant, from: NodeId, table: Table, out: &mut Vec<Output>) {
        match table {
            Table::Request { owner, attempt, from: cursor } => {
                let replica = self.replicas.get(&owner);
                if let Some(part) = replica.and_then(|replica| replica.lend(attempt, cursor, self.config.message_bytes))
                {
                    out.push(Output::Send { to: vec![from], message: Message::Table(part) });
                }
            }
            Table::Part { owner, chunk } => {
                // Of before it was removed and came back.
                self.drain(Some(owner), out);
                let Some(replica) = self.replicas.get_mut(&owner) else { return };
                let (mut work, mut effects) = (self.config.work, Effects::default());
                let next = replica.borrowed(now, from, chunk, &mut work, &mut effects);
                self.settle(now, owner, effects, out);
                out.extend(next.map(|next| Output::Send { to: vec![from], message: Message::Table(next) }));
            }
        }
    }

    /// Asks for the tables of members that are away.
    fn borrow_tables(&mut self, now: Instant, out: &mut Vec<Output>) {
        let peers: Vec<NodeId> = self.barriers.present().map(|(node, _)| node).collect();
        let mut asked = Vec::new();
        for replica in self.replicas.values_mut() {
            replica.borrow(now, &peers, &mut asked);
        }
        out.extend(asked.into_iter().map(|(to, table)| Output::Send { to: vec![to], message: Message::Table(table) }));
    }

    /// Gives out what a step at an owner's copy gave.
    fn settle(&mut self, now: Instant, owner: NodeId, mut effects: Effects, out: &mut Vec<Output>) {
        self.give_out(owner, &mut effects, out);
        out.extend(effects.messages.into_iter().map(|message| Output::Send { to: vec![owner], message }));
        let Some(replica) = self.replicas.get(&owner) else { return };
        let inc = replica.incarnation();
        if replica.phase() != Phase::Open {
            self.installed.remove(&owner);
            self.installs.cancel(owner);
        } else if let Some(version) = replica.open_version() {
            self.installs.expect(Progress { owner, inc, version });
            if planted!(InstalledBeforeShards) {
                out.push(Output::Send { to: vec![owner], message: Message::Installed { inc, version, retained: 0 } });
            }
        }
        self.proceed(now, out);
    }

    fn give_out(&mut self, owner: NodeId, effects: &mut Effects, out: &mut Vec<Output>) {
        let (routes, records) = (core::mem::take(&mut effects.routes), core::mem::take(&mut effects.records));
        if !routes.is_empty() || !records.is_empty() {
            let seq = self.installs.next_batch();
            out.push(Output::Batch(Arc::new(Batch { seq, node: owner, routes, records })));
        }
    }

    /// The version of a member's log that all shards match by.
    #[must_use]
    pub fn installed_of(&self, owner: NodeId) -> Option<(Incarnation, u64)> {
        self.installed.get(&owner).copied()
    }

    /// Whether a peer counts as down.
    #[must_use]
    pub fn is_masked(&self, peer: NodeId) -> bool {
        self.barriers.is_masked(peer)
    }

    /// A shard has installed all batches up to this one.
    pub fn installed(&mut self, now: Instant, shard: ShardId, seq: u64, out: &mut Vec<Output>) {
        self.installs.installed(shard, seq);
        self.proceed(now, out);
    }

    /// The disk has the durable routes and the records of all batches up to this one; of nobody else's but the members'.
    /// Only with [`Config::stored`].
    pub fn stored(&mut self, now: Instant, seq: u64, out: &mut Vec<Output>) {
        self.installs.installed(ShardId(self.shards), seq);
        self.proceed(now, out);
    }

    /// Looks what has come to all shards, and who has waited for it.
    fn proceed(&mut self, now: Instant, out: &mut Vec<Output>) {
        while let Some(Progress { owner, inc, version }) = self.installs.next_done() {
            if owner == self.node {
                self.barriers.own_installed(version);
                continue;
            }
            if self.installed.insert(owner, (inc, version)) != Some((inc, version)) {
                out.push(Output::Send { to: vec![owner], message: Message::Installed { inc, version, retained: 0 } });
            }
        }
        let mut done = Vec::new();
        self.barriers.tick(now, &mut done);
        self.tell_done(done, out);
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Instant, out: &mut Vec<Output>) {
        self.drain(None, out);
        let due: Vec<NodeId> =
            self.links.iter().filter(|(_, link)| link.rises.is_some()).map(|(node, _)| *node).collect();
        due.into_iter().for_each(|node| self.rise(now, node, out));
        let mut work = self.config.work;
        let due = |replica: &&Replica| replica.next_deadline().is_some_and(|due| due <= now);
        let owners: Vec<NodeId> = self.replicas.values().filter(due).map(Replica::owner).collect();
        for owner in owners {
            let mut effects = Effects::default();
            self.replica_of(owner, Incarnation(0)).go_on(now, &mut work, &mut effects);
            self.settle(now, owner, effects, out);
        }
        self.borrow_tables(now, out);
        if now >= self.heartbeat_due {
            self.heartbeat_due = now + self.config.heartbeat;
            if self.is_served() {
                for (node, acked) in self.barriers.present() {
                    out.push(Output::Send { to: vec![node], message: self.log.have(acked) });
                }
            }
        }
        if self.config.strict {
            for owner in self.lessors().collect::<Vec<_>>() {
                if let Some((inc, number)) = self.leases.request(now, owner) {
                    out.push(Output::Send { to: vec![owner], message: Message::LeaseRequest { inc, number } });
                }
            }
        }
        self.proceed(now, out);
    }
}

/// Below the numbers of an incarnation's questions, and above those of earlier ones.
fn first_number(inc: Incarnation) -> u64 {
    if planted!(NumbersStartOver) { 0 } else { inc.0 << 32 }
}
