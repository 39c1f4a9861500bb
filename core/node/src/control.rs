//! The control plane of a node: one [`Control`] beside its shards. It is the only writer of the node's log of routes,
//! and grants what is limited for the whole node. It never sees a packet.

mod quota;

use std::collections::VecDeque;
use std::sync::Arc;

use newtmq_base::ShardId;
use newtmq_mqtt::OwnedTopicFilter;

use crate::config::ShardConfig;
use quota::Quotas;
pub(crate) use quota::share;

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
}

/// Something that happens to the control plane.
#[derive(Debug)]
pub enum ControlInput {
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
}

impl Control {
    /// For a node with so many shards, each of them with this configuration.
    #[must_use]
    pub fn new(config: &ShardConfig, shards: u16) -> Control {
        let counts = || vec![0; usize::from(shards)].into_boxed_slice();
        Control {
            version: 0,
            installed: vec![0; usize::from(shards)],
            pending: VecDeque::new(),
            retained: (0..shards).map(|_| counts()).collect(),
            quotas: Quotas::new(config, shards),
        }
    }

    /// Takes one input in; what is to be done about it is pushed to `out`.
    pub fn handle(&mut self, input: ControlInput, out: &mut Vec<ControlOutput>) {
        let ControlInput::Shard { from, message } = input;
        match message {
            ToControl::Routes { seq, changes } => self.on_routes(from, seq, changes, out),
            ToControl::Installed { version, retained } => self.on_installed(from, version, retained, out),
            ToControl::Want(kind) => self.quotas.on_want(from, kind, out),
            ToControl::Returned(kind, count) => self.quotas.on_returned(from, kind, count, out),
        }
    }

    /// Whether every shard has installed the whole log and nobody waits for a grant.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.pending.is_empty() && self.quotas.is_quiet()
    }

    /// Version of the newest entry of the log.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
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
    }
}

fn to_shard(to: usize, message: FromControl) -> ControlOutput {
    ControlOutput::Shard { to: ShardId(u16::try_from(to).expect("shards are few")), message }
}
