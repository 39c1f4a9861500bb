//! The control plane of a node: one [`Control`] beside its shards. It is the only writer of the node's log of routes,
//! and grants what is limited for the whole node. It never sees a packet.

mod quota;
mod sys;

use core::time::Duration;
use std::collections::VecDeque;
use std::sync::Arc;

use newtmq_base::{Instant, ShardId, WallTime};
use newtmq_mqtt::OwnedTopicFilter;
use newtmq_session::Message;

use crate::config::ShardConfig;
use quota::Quotas;
pub(crate) use quota::share;
pub use sys::Report;
use sys::Sys;

/// A shard's subscriptions of one filter have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteChange {
    /// The filter; the whole text of a shared subscription.
    pub filter: OwnedTopicFilter,
    /// 1 or 0, or for a shared subscription its members at the shard.
    pub members: u32,
}

/// An entry of the node's log: what has changed at one shard.
#[derive(Debug, PartialEq, Eq)]
pub struct RouteDelta {
    /// Position in the log, without gaps, from 1.
    pub version: u64,
    /// Whose subscriptions.
    pub shard: ShardId,
    /// The changes, in order.
    pub changes: Vec<RouteChange>,
}

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
    /// Subscriptions have changed; answered by [`FromControl::Committed`].
    Routes {
        /// Counts the shard's changes, from 1.
        seq: u64,
        /// The changes, in order.
        changes: Vec<RouteChange>,
    },
    /// The shard matches by this version of the log.
    Installed {
        /// Position in the log.
        version: u64,
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
}

/// From the control plane to a shard.
#[derive(Debug, Clone)]
pub enum FromControl {
    /// Install this entry of the log, and say so.
    Routes(Arc<RouteDelta>),
    /// Every shard has installed the shard's changes up to this one.
    Committed {
        /// The shard's number of its changes.
        seq: u64,
        /// What had been retained before.
        retained: RetainedCounts,
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
}

/// Something that happens to the control plane.
#[derive(Debug)]
pub enum ControlInput {
    /// Time has passed.
    Tick,
    /// A shard says something.
    Shard {
        /// Which.
        from: ShardId,
        /// What.
        message: ToControl,
    },
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
}

/// A change that some shard has not installed yet.
#[derive(Debug)]
struct Pending {
    version: u64,
    shard: ShardId,
    seq: u64,
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
}

/// The control plane of one node. Sans-IO, like [`crate::Shard`].
#[derive(Debug)]
pub struct Control {
    /// Version of the newest entry of the log.
    version: u64,
    /// By shard: what it matches by.
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
}

impl Control {
    /// For a node whose shards have this configuration.
    #[must_use]
    pub fn new(config: &ShardConfig, boot: ControlBoot) -> Control {
        let ControlBoot { now, wall, shards, version } = boot;
        let (name, sys_interval) = (config.node_name.clone(), config.sys_interval);
        let counts = || vec![0; usize::from(shards)].into_boxed_slice();
        Control {
            version: 0,
            installed: vec![0; usize::from(shards)],
            pending: VecDeque::new(),
            retained: (0..shards).map(|_| counts()).collect(),
            quotas: Quotas::new(config, shards),
            sys: Sys::new(name, version, now, wall),
            sys_interval,
            sys_due: if sys_interval.is_zero() { Instant::NEVER } else { now },
            report: Report::default(),
            unreported: 0,
            unrecovered: usize::from(shards),
            recovered: false,
        }
    }

    /// When the control plane wants a Tick.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        (self.sys_due != Instant::NEVER).then_some(self.sys_due)
    }

    /// Takes one input in; what is to be done about it is pushed to `out`.
    pub fn handle(&mut self, now: Instant, input: ControlInput, out: &mut Vec<ControlOutput>) {
        match input {
            ControlInput::Tick => self.on_tick(now, out),
            ControlInput::Shard { from, message } => self.on_shard(now, from, message, out),
        }
    }

    /// Asks all shards for their figures. A shard that has not told the last ones is slow enough without new questions.
    fn on_tick(&mut self, now: Instant, out: &mut Vec<ControlOutput>) {
        if now < self.sys_due {
            return;
        }
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
                    let messages = self.sys.messages(now, &self.report);
                    out.push(to_shard(0, FromControl::Publish(messages.into())));
                }
            }
            ToControl::Routes { seq, changes } => self.on_routes(from, seq, changes, out),
            ToControl::Installed { version, retained } => self.on_installed(from, version, retained, out),
            ToControl::Recovered => {
                self.unrecovered -= 1;
                self.tell_recovered(out);
            }
            ToControl::Want(kind) => self.quotas.on_want(from, kind, out),
            ToControl::Returned(kind, count) => self.quotas.on_returned(from, kind, count, out),
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

    fn on_routes(&mut self, shard: ShardId, seq: u64, changes: Vec<RouteChange>, out: &mut Vec<ControlOutput>) {
        self.version += 1;
        self.pending.push_back(Pending { version: self.version, shard, seq });
        let delta = Arc::new(RouteDelta { version: self.version, shard, changes });
        for to in 0..self.installed.len() {
            out.push(to_shard(to, FromControl::Routes(Arc::clone(&delta))));
        }
    }

    fn on_installed(
        &mut self,
        from: ShardId,
        version: u64,
        retained: Option<Box<[u64]>>,
        out: &mut Vec<ControlOutput>,
    ) {
        let at = usize::from(from.0);
        self.installed[at] = version;
        if let Some(counts) = retained {
            let mut all: Vec<Box<[u64]>> = self.retained.to_vec();
            all[at] = counts;
            self.retained = all.into();
        }
        let everywhere = self.installed.iter().copied().min().unwrap_or(self.version);
        while let Some(pending) = self.pending.pop_front_if(|pending| pending.version <= everywhere) {
            let message = FromControl::Committed { seq: pending.seq, retained: Arc::clone(&self.retained) };
            out.push(ControlOutput::Shard { to: pending.shard, message });
        }
        self.tell_recovered(out);
    }

    /// Once, when all shards have what was stored and have installed the routes of all.
    fn tell_recovered(&mut self, out: &mut Vec<ControlOutput>) {
        if self.unrecovered == 0 && self.pending.is_empty() && !core::mem::replace(&mut self.recovered, true) {
            out.extend((0..self.installed.len()).map(|to| to_shard(to, FromControl::Recovered)));
        }
    }
}

fn to_shard(to: usize, message: FromControl) -> ControlOutput {
    ControlOutput::Shard { to: ShardId(u16::try_from(to).expect("shards are few")), message }
}
