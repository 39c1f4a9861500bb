//! The shard's share of what is limited for the whole node: connections of a listener, retained messages.

use std::collections::VecDeque;

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
    granted: u32,
    pub(crate) used: u32,
    /// More was asked for.
    asked: bool,
}

/// All shares, and who waits for them to grow.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    /// By listener.
    pub(crate) connections: Vec<Share>,
    /// By listener: connections that may have to be closed.
    waiting: Vec<VecDeque<ConnId>>,
    pub(crate) retained: Share,
    /// Topics of retained messages that may have to be given up.
    unsure: VecDeque<Box<str>>,
}

impl Shares {
    pub(crate) fn new(config: &ShardConfig, shard: ShardId, shards: u16) -> Shares {
        let granted = |limit| Share { granted: share(limit, shard, shards), used: 0, asked: false };
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
            self.shares.waiting[usize::from(listener.0)].push_back(conn);
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
            self.shares.unsure.push_back(topic.into());
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
                while let Some(conn) = self.shares.waiting[usize::from(listener)].pop_front() {
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

    /// The node's limit is reached.
    pub(crate) fn on_denied(&mut self, now: Instant, kind: QuotaKind, out: &mut Outbox) {
        self.shares.share(kind).asked = false;
        match kind {
            QuotaKind::Connections(listener) => {
                for conn in core::mem::take(&mut self.shares.waiting[usize::from(listener)]) {
                    if self.conn(conn).is_some_and(|c| c.phase == Phase::AwaitGrant) {
                        self.turn_away(now, conn, out);
                    }
                }
            }
            QuotaKind::Retained => {
                for topic in core::mem::take(&mut self.shares.unsure) {
                    if self.shares.retained.used > self.shares.retained.granted {
                        tracing::debug!(%topic, "not retained: max_retained_messages is reached");
                        self.forget_retained(&topic);
                    }
                }
            }
        }
    }

    /// What is not used is given back.
    pub(crate) fn give_back(&mut self, kind: QuotaKind) -> u32 {
        let share = self.shares.share(kind);
        let unused = share.granted.saturating_sub(share.used);
        share.granted -= unused;
        unused
    }
}
