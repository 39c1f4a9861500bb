//! The control plane of a node: one [`Control`] beside its shards. It is the only writer of the node's log of routes,
//! and grants what is limited for the whole node. It never sees a packet.

mod quota;
mod sys;

use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use newtmq_base::{Incarnation, Instant, NodeId, ShardId, WallTime, planted};
use newtmq_cluster::directory;
use newtmq_cluster::link::{ConnectionId, Fill};
use newtmq_cluster::owned::{self, BarrierId, Batch, Change, Mode, Owned};
use newtmq_session::Message;

use crate::cluster::{Cluster, ClusterBoot, ClusterEvent, ClusterInput, ClusterOutput, Cx, owned_config};
use crate::config::ShardConfig;
use crate::store::Durability;
use crate::wills::{WillNews, WillNote};
use quota::Quotas;
pub(crate) use quota::share;
use sys::Sys;
pub use sys::{Report, datetime, uptime};

/// By source, then by owner: how many retained messages the one had sent to the other.
pub type RetainedCounts = Arc<[Box<[u64]>]>;

/// Something that is limited for the whole node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum QuotaKind {
    /// Connections of a listener.
    Connections(u16),
    /// Retained messages.
    Retained,
}

/// From a shard to the control plane.
#[derive(Debug)]
pub enum ToControl {
    /// Subscriptions have changed, or it is to be made sure that everybody knows of all; answered by
    /// [`FromControl::Committed`].
    Routes {
        /// Counts these messages of the shard, from 1.
        seq: u64,
        /// The changes, in order.
        changes: Vec<Change>,
    },
    /// The shard matches by all batches up to this one.
    Installed {
        /// Number of the batch.
        seq: u64,
        /// By owner: how many retained messages it had sent before; none if as before.
        retained: Option<Box<[u64]>>,
    },
    /// The shard has used up its share; answered by a grant or a denial.
    Want(QuotaKind),
    /// Answers [`FromControl::Recall`]: what the shard does not use.
    Returned(QuotaKind, u32),
    /// Answers [`FromControl::Report`].
    Report(Box<Report>),
    /// The shard has all that was stored for it, and has told its routes.
    Recovered,
    /// Frames for other nodes, in order, as [`newtmq_cluster::lane::Parcel`]s. One that cannot be sent now is lost.
    Lanes(Vec<(NodeId, Bytes)>),
    /// Answers [`FromControl::Drain`]: the shard has no clients any more.
    Drained,
    /// Not of a shard, but of a gateway of another protocol beside them: its figures, by name below `metrics/`. They count
    /// until others of the same gateway come; those of several gateways are added up.
    Gateway {
        /// Which.
        name: Box<str>,
        /// The figures.
        figures: Vec<(&'static str, u64)>,
    },
    /// About connections and sessions of clients, for the directory. Only with [`crate::Boot::claims`].
    Directory(Box<directory::Input>),
    /// A message is to be retained by the whole cluster, or the one of its topic to be deleted; answered by
    /// [`RetainedNews::Answer`].
    Retain {
        /// Counts them in this shard, from 1.
        number: u64,
        /// Topic Name.
        topic: Box<str>,
        /// As shards read it; none deletes.
        message: Option<Bytes>,
    },
    /// The shard had retained this by itself. It counts if the cluster has nothing for the topic.
    Bring {
        /// Topic Name.
        topic: Box<str>,
        /// As shards read it.
        message: Bytes,
    },
    /// What is to become of the will of a client, where the cluster keeps it ([`crate::ZoneConfig::will_ha`]).
    Will(Box<WillNote>),
    /// For the shard of a client at another node: part of a session that has gone there, or the answer. May be lost.
    Handover {
        /// Which node.
        to: NodeId,
        /// A message of shards; it begins with the Client Identifier.
        message: Bytes,
    },
}

/// From the control plane to a shard.
#[derive(Debug, Clone)]
pub enum FromControl {
    /// Install these changes of a node's routes, and say so. Of the own shard's there are only those of shared groups to
    /// install.
    Routes(Arc<Batch>),
    /// Everybody for whom a SUBACK has to wait has installed the shard's changes up to this one.
    Committed {
        /// The shard's number of its changes.
        seq: u64,
        /// Nobody was left out: every node that can be reached, and every shard of it.
        complete: bool,
        /// What had been retained before.
        retained: RetainedCounts,
        /// The same of what the cluster agrees on: up to which index of its log.
        index: u64,
    },
    /// The shard may use more.
    Granted(QuotaKind, u32),
    /// The node's limit is reached.
    Denied(QuotaKind),
    /// Give back what is not used.
    Recall(QuotaKind),
    /// Tell your figures.
    Report,
    /// Publish these as the server's own.
    Publish(Arc<[Message]>),
    /// All shards have what was stored, and know of each other's routes.
    Recovered,
    /// How another node is reached.
    Peer {
        /// Which.
        node: NodeId,
        /// How.
        news: PeerNews,
    },
    /// Frames of a shard of another node. Some may be for other shards of this node.
    Lanes {
        /// The node that made them.
        from: NodeId,
        /// A [`newtmq_cluster::lane::Parcel`].
        parcel: Bytes,
    },
    /// From when on no PUBLISH of QoS 1 or 2 may be acknowledged: this node does not know for whom it is.
    /// [`Instant::NEVER`] for never, [`Instant::START`] for at once, until another one comes.
    Acknowledge {
        /// From then on.
        until: Instant,
    },
    /// Whether clients are sent to other nodes (0x9C in MQTT 5), and no others let in.
    Drain(bool),
    /// What the directory says about a client of this shard.
    Directory(Box<directory::Output>),
    /// What the cluster agrees on.
    Retained(Arc<RetainedNews>),
    /// Of a will that the cluster keeps.
    Will(Box<WillNews>),
    /// Of the shard of a client at another node.
    Handover {
        /// Which node.
        from: NodeId,
        /// What.
        message: Bytes,
    },
}

/// News of the log of retained messages.
#[derive(Debug, Clone)]
pub enum RetainedNews {
    /// Answers [`ToControl::Retain`].
    Answer {
        /// Which.
        number: u64,
        /// What became of it.
        outcome: RetainedOutcome,
    },
    /// From now on the cluster agrees on what is retained: what the shard has by itself goes there.
    Share,
    /// A topic has another message, or none.
    Set {
        /// Of the entry.
        index: u64,
        /// Topic Name.
        topic: Box<str>,
        /// As shards read it; none deletes.
        message: Option<Bytes>,
        /// When it expires here; [`Instant::NEVER`] for never.
        expires: Instant,
    },
    /// It is another log: nothing of the one before counts.
    Clear,
    /// What was told goes up to an index. Who reads afterwards waits for another one.
    Known {
        /// What readers have to wait for.
        need: u64,
        /// Up to where it is.
        upto: u64,
        /// There is nobody to wait for.
        alone: bool,
    },
}

/// What became of a message that was to be retained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetainedOutcome {
    /// It is, as of this index of the log.
    At(u64),
    /// It is not, because of a limit.
    NotRetained,
    /// It is not, or that is not known.
    Refused,
}

/// How another node is reached, for the lanes to and from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerNews {
    /// It is, and runs with this incarnation; or it is again, or by another way, and what was under way may be lost.
    Connected(Incarnation),
    /// It is not, at the moment.
    Disconnected,
    /// It counts as down: its sessions in memory do not get what is sent now.
    Down,
    /// It is no member of the cluster any more.
    Forgotten,
}

/// Something that happens to the control plane.
#[derive(Debug)]
pub enum ControlInput<'a> {
    /// Time has passed.
    Tick,
    /// A shard says something.
    Shard {
        /// Which.
        from: ShardId,
        /// What.
        message: ToControl,
    },
    /// Something of the cluster. Nothing happens without [`ControlBoot::cluster`].
    Cluster(ClusterInput<'a>),
}

/// What the control plane asks of its driver.
#[derive(Debug)]
pub enum ControlOutput {
    /// Tell a shard something; it arrives in order.
    Shard {
        /// Which.
        to: ShardId,
        /// What.
        message: FromControl,
    },
    /// Something of the cluster.
    Cluster(ClusterOutput),
}

/// A shard that waits for others to know of its subscriptions.
#[derive(Debug)]
struct Pending {
    barrier: BarrierId,
    /// The newest batch at that time. The own shards are waited for as long as it takes.
    batch: u64,
    shard: ShardId,
    seq: u64,
    /// How the barrier has ended.
    complete: Option<bool>,
}

/// What the control plane starts from.
#[derive(Debug, Clone)]
pub struct ControlBoot {
    /// Monotonic time at the start.
    pub now: Instant,
    /// Wall-clock time at the same moment.
    pub wall: WallTime,
    /// How many shards the node has.
    pub shards: u16,
    /// Version of the program.
    pub version: &'static str,
    /// The node.
    pub node: NodeId,
    /// The start of the node.
    pub incarnation: Incarnation,
    /// The same as of [`crate::Boot`].
    pub node_seed: u64,
    /// If it may have others beside it.
    pub cluster: Option<Box<ClusterBoot>>,
}

/// The control plane of one node. Sans-IO, like [`crate::Shard`].
#[derive(Debug)]
pub struct Control {
    /// The log of the node's routes, and those of the other nodes.
    owned: Owned,
    /// Number of the newest batch of them.
    batch: u64,
    /// By shard: the batch up to which it matches.
    installed: Vec<u64>,
    /// Oldest first.
    pending: VecDeque<Pending>,
    retained: RetainedCounts,
    quotas: Quotas,
    sys: Sys,
    sys_interval: Duration,
    /// When the shards are asked for their figures again.
    sys_due: Instant,
    /// What they have told so far, and how many have to yet.
    report: Report,
    unreported: usize,
    /// Shards that have not got what was stored for them.
    unrecovered: usize,
    recovered: bool,
    /// Other nodes may see the log: what was stored is in it.
    is_served: bool,
    /// What the logs gave and is not worked off.
    given: Vec<owned::Output>,
    cluster: Option<Box<Cluster>>,
    /// From when on nothing may be acknowledged, as the shards were told.
    acknowledge: Option<Instant>,
}

impl Control {
    /// For a node whose shards have this configuration.
    ///
    /// # Panics
    /// If what is stored of the cluster cannot be: ask [`ClusterBoot::verify`] before.
    #[must_use]
    pub fn new(config: &ShardConfig, boot: ControlBoot) -> Control {
        let ControlBoot { now, wall, shards, version, node, incarnation, node_seed, cluster } = boot;
        let (name, sys_interval) = (config.node_name.clone(), config.sys_interval);
        let counts = || vec![0; usize::from(shards)].into_boxed_slice();
        let of_logs = cluster.as_ref().map(|boot| owned_config(&boot.config));
        let of_logs = of_logs.unwrap_or(owned::Config { stored: false, ..owned::Config::default() });
        let mut owned = Owned::new(of_logs, now, node, incarnation, shards);
        let mut given = Vec::new();
        let cluster = cluster.map(|boot| {
            let read = Cluster::new(*boot, now, shards, node_seed);
            let (mut cluster, tables) = read.expect("what is stored was verified");
            for (node, entries) in tables {
                owned.restore(now, node, &entries, &mut given);
            }
            let batches = given.iter().filter(|output| matches!(output, owned::Output::Batch(_))).count();
            cluster.restored(batches as u64);
            Box::new(cluster)
        });
        // Shards that store nothing have nothing to wait for.
        let recovers = config.zones.iter().any(|zone| zone.durability != Durability::Memory);
        Control {
            owned,
            batch: 0,
            installed: vec![0; usize::from(shards)],
            pending: VecDeque::new(),
            retained: (0..shards).map(|_| counts()).collect(),
            quotas: Quotas::new(config, shards),
            sys: Sys::new(name, version, now, wall),
            sys_interval,
            sys_due: if sys_interval.is_zero() { Instant::NEVER } else { now },
            report: Report::default(),
            unreported: 0,
            unrecovered: if recovers { usize::from(shards) } else { 0 },
            recovered: !recovers,
            is_served: false,
            given,
            cluster,
            acknowledge: None,
        }
    }

    /// When the control plane wants a Tick.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let mut due = self.sys_due.min(self.owned.next_deadline());
        due = self.cluster.as_ref().map_or(due, |cluster| due.min(cluster.next_deadline()));
        if !self.given.is_empty() || (self.unrecovered == 0 && !self.is_served) {
            due = Instant::START;
        }
        Some(due).filter(|due| *due != Instant::NEVER)
    }

    /// Takes one input in; what is to be done about it is pushed to `out`.
    pub fn handle(&mut self, now: Instant, input: ControlInput<'_>, out: &mut Vec<ControlOutput>) {
        let start = out.len();
        match input {
            ControlInput::Tick => self.on_tick(now, out),
            ControlInput::Shard { from, message } => self.on_shard(now, from, message, out),
            ControlInput::Cluster(input) => {
                self.with_cluster(now, out, |cluster, cx| cluster.handle(cx, input));
            }
        }
        let all_told = self.unrecovered == 0 || planted!(ServedWithoutShards);
        if all_told && !core::mem::replace(&mut self.is_served, true) {
            self.owned.recovered(now, &mut self.given);
            self.with_cluster(now, out, Cluster::open_directory);
        }
        self.settle(now, out);
        self.tell_acknowledge(now, start, out);
    }

    /// Appends what is to be written to a connection with another node: `room` bytes of it or at most one frame more.
    pub fn fill_link(&mut self, now: Instant, conn: ConnectionId, buffer: &mut Vec<u8>, room: usize) -> Fill {
        self.cluster.as_mut().map_or(Fill::Drained, |cluster| cluster.fill(now, conn, buffer, room))
    }

    /// The node's part in its cluster, if it may have others beside it.
    #[must_use]
    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_deref()
    }

    /// The log of the node's routes, and those of the other nodes.
    #[must_use]
    pub fn owned(&self) -> &Owned {
        &self.owned
    }

    /// The highest figures that were told under `$SYS`, in the order of [`Report::stats`].
    #[must_use]
    pub fn most(&self) -> [u64; 7] {
        self.sys.most()
    }

    fn on_tick(&mut self, now: Instant, out: &mut Vec<ControlOutput>) {
        if self.owned.next_deadline() <= now {
            self.owned.tick(now, &mut self.given);
        }
        self.with_cluster(now, out, Cluster::tick);
        if self.sys_due <= now {
            self.ask_for_figures(now, out);
        }
    }

    /// A shard that has not told the last ones is slow enough without new questions.
    fn ask_for_figures(&mut self, now: Instant, out: &mut Vec<ControlOutput>) {
        self.sys_due = now + self.sys_interval;
        if self.unreported == 0 {
            self.unreported = self.installed.len();
            self.report = Report::default();
            out.extend((0..self.installed.len()).map(|to| to_shard(to, FromControl::Report)));
        }
    }

    fn on_shard(&mut self, now: Instant, from: ShardId, message: ToControl, out: &mut Vec<ControlOutput>) {
        match message {
            ToControl::Report(report) => {
                self.report.add(&report);
                self.unreported -= 1;
                if self.unreported == 0 {
                    let running = self.cluster.as_ref().map(|cluster| cluster.running());
                    let messages = self.sys.messages(now, &self.report, running.as_deref());
                    out.push(to_shard(0, FromControl::Publish(messages.into())));
                }
            }
            ToControl::Routes { seq, changes } => self.on_routes(now, from, seq, &changes),
            ToControl::Installed { seq, retained } => self.on_installed(now, from, seq, retained),
            ToControl::Recovered => self.unrecovered = self.unrecovered.saturating_sub(1),
            ToControl::Want(kind) => self.quotas.on_want(from, kind, out),
            ToControl::Returned(kind, count) => self.quotas.on_returned(from, kind, count, out),
            ToControl::Lanes(parcels) => {
                if let Some(cluster) = &mut self.cluster {
                    cluster.lanes(now, parcels);
                }
            }
            ToControl::Directory(input) => self.with_cluster(now, out, |cluster, cx| cluster.claims(cx, *input)),
            ToControl::Retain { number, topic, message } => {
                self.with_cluster(now, out, |cluster, cx| cluster.retain(cx, (from, number), topic, message));
            }
            ToControl::Bring { topic, message } => {
                self.with_cluster(now, out, |cluster, _| cluster.bring(topic, message));
            }
            ToControl::Handover { to, message } => {
                self.with_cluster(now, out, |cluster, cx| cluster.handover(cx, to, &message));
            }
            ToControl::Will(note) => self.with_cluster(now, out, |cluster, cx| cluster.will(cx, *note)),
            ToControl::Gateway { name, figures } => self.sys.hear(name, figures),
            ToControl::Drained => self.with_cluster(now, out, |cluster, cx| cluster.drained(cx, from)),
        }
    }

    /// Whether every shard has installed the whole log and nobody waits for a grant.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.pending.is_empty() && self.quotas.is_quiet()
    }

    /// How much of a limit no shard has.
    #[must_use]
    pub fn free(&self, kind: QuotaKind) -> u32 {
        self.quotas.free(kind)
    }

    fn on_routes(&mut self, now: Instant, shard: ShardId, seq: u64, changes: &[Change]) {
        self.owned.change(now, shard, changes, &mut self.given);
        let newest = self.given.iter().rev().find_map(|output| match output {
            owned::Output::Batch(batch) => Some(batch.seq),
            owned::Output::Send { .. } | owned::Output::Done(_) => None,
        });
        let batch = newest.unwrap_or(self.batch);
        let mode = self.cluster.as_ref().map_or(Mode::Fast, |cluster| cluster.mode());
        let barrier = self.owned.require(now, mode, &mut self.given);
        self.pending.push_back(Pending { barrier, batch, shard, seq, complete: None });
    }

    fn on_installed(&mut self, now: Instant, from: ShardId, seq: u64, retained: Option<Box<[u64]>>) {
        let at = usize::from(from.0);
        self.installed[at] = seq;
        if let Some(counts) = retained {
            let mut all: Vec<Box<[u64]>> = self.retained.to_vec();
            all[at] = counts;
            self.retained = all.into();
        }
        self.owned.installed(now, from, seq, &mut self.given);
    }

    fn with_cluster(
        &mut self,
        now: Instant,
        out: &mut Vec<ControlOutput>,
        call: impl FnOnce(&mut Cluster, &mut Cx<'_>),
    ) {
        if let Some(cluster) = &mut self.cluster {
            call(cluster, &mut Cx { now, owned: &mut self.owned, given: &mut self.given, out });
        }
    }

    /// Does what the logs and the cluster ask for, until they ask for nothing.
    fn settle(&mut self, now: Instant, out: &mut Vec<ControlOutput>) {
        loop {
            for output in core::mem::take(&mut self.given) {
                self.take_owned(now, output, out);
            }
            self.with_cluster(now, out, Cluster::work);
            if self.given.is_empty() {
                break;
            }
        }
        if self.tell_committed(now, out) {
            self.with_cluster(now, out, Cluster::work);
        }
    }

    fn take_owned(&mut self, now: Instant, output: owned::Output, out: &mut Vec<ControlOutput>) {
        match output {
            owned::Output::Send { to, message } => {
                if let Some(cluster) = &mut self.cluster {
                    cluster.say_owned(now, &to, &message);
                }
            }
            owned::Output::Batch(batch) => {
                self.batch = batch.seq;
                out.extend((0..self.installed.len()).map(|to| to_shard(to, FromControl::Routes(Arc::clone(&batch)))));
                self.with_cluster(now, out, |cluster, cx| cluster.batch(cx, &batch));
            }
            owned::Output::Done(done) => {
                let of = self.pending.iter_mut().find(|pending| pending.barrier == done.barrier);
                if let Some(pending) = of {
                    pending.complete = Some(done.complete);
                }
                if !done.complete && self.cluster.is_some() {
                    out.push(ControlOutput::Cluster(ClusterOutput::Event(ClusterEvent::BarrierIncomplete)));
                }
            }
        }
    }

    /// Tells shards whose changes everybody has installed who has to; whether there was one.
    fn tell_committed(&mut self, now: Instant, out: &mut Vec<ControlOutput>) -> bool {
        let everywhere = self.installed.iter().copied().min().unwrap_or(self.batch);
        let is_over = |pending: &mut Pending| pending.batch <= everywhere && pending.complete.is_some();
        let before = out.len();
        while let Some(Pending { shard, seq, complete, .. }) = self.pending.pop_front_if(is_over) {
            let retained = Arc::clone(&self.retained);
            let index = self.cluster.as_mut().map_or(0, |cluster| cluster.require_retained(now));
            let message = FromControl::Committed { seq, complete: complete == Some(true), retained, index };
            out.push(ControlOutput::Shard { to: shard, message });
        }
        self.tell_recovered(out);
        out.len() > before
    }

    /// Once, when all shards have what was stored and have installed the routes of all.
    fn tell_recovered(&mut self, out: &mut Vec<ControlOutput>) {
        if self.unrecovered == 0 && self.pending.is_empty() && !core::mem::replace(&mut self.recovered, true) {
            out.extend((0..self.installed.len()).map(|to| to_shard(to, FromControl::Recovered)));
        }
    }

    /// Tells the shards from when on they must not acknowledge, if that has changed. An earlier time comes before anything
    /// else that this input has brought; `start` is where that begins.
    fn tell_acknowledge(&mut self, now: Instant, start: usize, out: &mut Vec<ControlOutput>) {
        let Some(cluster) = &self.cluster else { return };
        let until = if self.owned.without_table().next().is_some() && !planted!(AcknowledgedWithoutTable) {
            Instant::START
        } else if cluster.is_strict() {
            self.owned.fresh_until(now)
        } else {
            Instant::NEVER
        };
        if self.acknowledge == Some(until) {
            return;
        }
        let is_earlier = self.acknowledge.is_none_or(|told| until < told);
        self.acknowledge = Some(until);
        let at = if is_earlier { start } else { out.len() };
        let messages = (0..self.installed.len()).map(|to| to_shard(to, FromControl::Acknowledge { until }));
        out.splice(at..at, messages);
    }
}

fn to_shard(to: usize, message: FromControl) -> ControlOutput {
    ControlOutput::Shard { to: ShardId(u16::try_from(to).expect("shards are few")), message }
}
