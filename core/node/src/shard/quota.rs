//! The shard's share of what is limited for the whole node: connections of a listener, retained messages.

use std::collections::{BTreeSet, VecDeque};

use newtmq_base::{ConnId, Instant, ListenerId, ShardId};
use newtmq_mqtt::ReasonCode;

use super::Shard;
use crate::config::ShardConfig;
use crate::conn::{Feature, Phase};
use crate::control::{QuotaKind, share};
use crate::io::{Outbox, Output};

/// One share.
#[derive(Debug, Default)]
pub(crate) struct Share {
    pub(crate) granted: u32,
    pub(crate) used: u32,
    /// More was asked for.
    asked: bool,
    /// Counts how often. Who came after the last time waits for the answer to the next.
    round: u64,
}

/// All shares, and who waits for them to grow.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    /// By listener.
    pub(crate) connections: Vec<Share>,
    /// By listener: connections that may have to be closed, each with the round before it.
    waiting: Vec<VecDeque<(ConnId, u64)>>,
    pub(crate) retained: Share,
    /// Topics of retained messages that may have to be given up, in the same way. Some may be gone already.
    unsure: VecDeque<(Box<str>, u64)>,
}

impl Shares {
    pub(crate) fn new(config: &ShardConfig, shard: ShardId, shards: u16) -> Shares {
        let granted = |limit| Share { granted: share(limit, shard, shards), ..Share::default() };
        let limit = u32::try_from(config.retained.max_retained_messages).unwrap_or(u32::MAX);
        Shares {
            connections: config.listeners.iter().map(|listener| granted(listener.max_connections)).collect(),
            waiting: config.listeners.iter().map(|_| VecDeque::new()).collect(),
            retained: granted(if limit == 0 { u32::MAX } else { limit }),
            unsure: VecDeque::new(),
        }
    }

    fn share(&mut self, kind: QuotaKind) -> &mut Share {
        match kind {
            QuotaKind::Connections(listener) => &mut self.connections[usize::from(listener)],
            QuotaKind::Retained => &mut self.retained,
        }
    }
}

impl Shard {
    /// Counts a new connection, or makes it wait until it is known whether there may be one more.
    pub(crate) fn admit(&mut self, now: Instant, conn: ConnId, listener: ListenerId, out: &mut Outbox) {
        if self.recovering {
            // It is admitted when everything is there.
            return;
        }
        let share = &mut self.shares.connections[usize::from(listener.0)];
        if share.used < share.granted {
            share.used += 1;
            let c = self.live(conn);
            c.features.add(Feature::Counted);
            c.phase = Phase::AwaitConnect;
            let zone = usize::from(c.zone);
            self.arm_conn(conn, now + self.config.zones[zone].idle_timeout);
        } else if self.shards() == 1 {
            self.turn_away(now, conn, out);
        } else {
            let round = self.shares.connections[usize::from(listener.0)].round;
            self.shares.waiting[usize::from(listener.0)].push_back((conn, round));
            self.ask_for(QuotaKind::Connections(listener.0), out);
        }
    }

    /// Before CONNECT there is nobody to answer to in a known version, and nothing is left to be written.
    fn turn_away(&mut self, now: Instant, conn: ConnId, out: &mut Outbox) {
        self.close(now, conn, ReasonCode::QuotaExceeded, out);
        out.push(Output::Abort(conn));
    }

    fn ask_for(&mut self, kind: QuotaKind, out: &mut Outbox) {
        let share = self.shares.share(kind);
        if !core::mem::replace(&mut share.asked, true) {
            share.round += 1;
            self.want(kind, out);
        }
    }

    /// A connection that came from another shard brings its place in the listener's limit with it.
    pub(crate) fn admit_moved(&mut self, listener: ListenerId) {
        let share = &mut self.shares.connections[usize::from(listener.0)];
        share.granted += 1;
        share.used += 1;
    }

    /// It takes it along when it goes to another.
    pub(crate) fn move_away(&mut self, listener: u16) {
        let share = &mut self.shares.connections[usize::from(listener)];
        share.granted -= 1;
        share.used -= 1;
    }

    /// A retained message for a topic that had none. Says whether it may stay; if that is not known yet, it stays until it is.
    pub(crate) fn admit_retained(&mut self, topic: &str, out: &mut Outbox) -> bool {
        let full = self.shares.retained.used >= self.shares.retained.granted;
        if full && self.shards() == 1 {
            return false;
        }
        self.shares.retained.used += 1;
        if full {
            let round = self.shares.retained.round;
            self.shares.unsure.push_back((topic.into(), round));
            self.ask_for(QuotaKind::Retained, out);
        }
        true
    }

    /// A topic has no retained message any more.
    pub(crate) fn retained_gone(&mut self) {
        self.shares.retained.used -= 1;
    }

    pub(crate) fn on_granted(&mut self, now: Instant, kind: QuotaKind, count: u32, out: &mut Outbox) {
        let share = self.shares.share(kind);
        share.granted += count;
        share.asked = false;
        match kind {
            QuotaKind::Connections(listener) => {
                while let Some((conn, _)) = self.shares.waiting[usize::from(listener)].pop_front() {
                    let waits = |phase| phase == Phase::AwaitGrant;
                    if self.conn(conn).is_none_or(|c| !waits(c.phase)) {
                        continue;
                    }
                    self.admit(now, conn, ListenerId(listener), out);
                    if waits(self.live(conn).phase) {
                        return;
                    }
                    self.resume(now, conn, out);
                }
            }
            QuotaKind::Retained => {
                self.forget_unsure();
                let over = self.shares.retained.used.saturating_sub(self.shares.retained.granted);
                while self.shares.unsure.len() > over as usize {
                    self.shares.unsure.pop_front();
                }
                if !self.shares.unsure.is_empty() {
                    self.ask_for(kind, out);
                }
            }
        }
    }

    /// The node's limit was reached when this shard asked. Who came later is not meant.
    pub(crate) fn on_denied(&mut self, now: Instant, kind: QuotaKind, out: &mut Outbox) {
        let share = self.shares.share(kind);
        share.asked = false;
        let round = share.round;
        match kind {
            QuotaKind::Connections(listener) => {
                let waiting = core::mem::take(&mut self.shares.waiting[usize::from(listener)]);
                for (conn, before) in waiting {
                    if self.conn(conn).is_none_or(|c| c.phase != Phase::AwaitGrant) {
                        continue;
                    }
                    let share = self.shares.share(kind);
                    if before < round && share.used >= share.granted {
                        self.turn_away(now, conn, out);
                        continue;
                    }
                    self.admit(now, conn, ListenerId(listener), out);
                    if self.live(conn).phase == Phase::AwaitConnect {
                        self.resume(now, conn, out);
                    }
                }
            }
            QuotaKind::Retained => {
                self.forget_unsure();
                let (denied, later): (VecDeque<_>, VecDeque<_>) =
                    core::mem::take(&mut self.shares.unsure).into_iter().partition(|(_, before)| *before < round);
                self.shares.unsure = later;
                let later = u32::try_from(self.shares.unsure.len()).unwrap_or(u32::MAX);
                for (topic, _) in denied.into_iter().rev() {
                    let Share { used, granted, .. } = self.shares.retained;
                    if used.saturating_sub(later) > granted {
                        tracing::debug!(%topic, "not retained: max_retained_messages is reached");
                        self.forget_retained(&topic);
                    }
                }
                if !self.shares.unsure.is_empty() {
                    self.ask_for(kind, out);
                }
            }
        }
    }

    /// Leaves those topics in doubt that still have a retained message, each once.
    fn forget_unsure(&mut self) {
        let mut seen = BTreeSet::new();
        let Shard { shares, retained, .. } = self;
        // What the cluster agrees on is limited before it does.
        let is_own = |topic: &str| retained.get(topic).is_some_and(|kept| kept.stamp.index().is_none());
        shares.unsure.retain(|(topic, _)| is_own(topic) && seen.insert(topic.clone()));
    }

    /// What is not used is given back.
    pub(crate) fn give_back(&mut self, kind: QuotaKind) -> u32 {
        let share = self.shares.share(kind);
        let unused = share.granted.saturating_sub(share.used);
        share.granted -= unused;
        unused
    }
}
