//! Which filters other shards have subscribers of, and telling them about those here.

use std::collections::VecDeque;

use newtmq_base::{ConnId, Instant, NodeId, ShardId, planted};
use newtmq_cluster::owned::{Batch, Change, Class, Count, RouteChange};
use newtmq_mqtt::{OwnedTopicFilter, TopicFilter};
use newtmq_topic::{SubscriberId, Subscription};

use super::Shard;
use super::sys::is_sys;
use crate::conn::{Feature, PendingSuback};
use crate::control::{FromControl, PeerNews, QuotaKind, RetainedCounts, ToControl};
use crate::io::{Outbox, Output};
use crate::place::place_id;

/// A connection whose SUBACK waits for other shards.
#[derive(Debug)]
struct Waiting {
    /// The change that it waits for.
    seq: u64,
    conn: ConnId,
    /// None once the connection has gone.
    suback: Option<Box<PendingSuback>>,
}

/// The shard's side of the node's log.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    /// Changes that are not sent.
    changes: Vec<Change>,
    /// Counts what was sent.
    seq: u64,
    /// Up to here every shard knows.
    committed: u64,
    /// Somebody did not say that he knows of all up to there: the next SUBACK waits for him, whatever it is for.
    incomplete: bool,
    /// Connections whose SUBACK waits, oldest first.
    waiting: VecDeque<Waiting>,
    /// What was said of retained messages.
    counts: Box<[u64]>,
    /// Filters about the server at other shards.
    sys: std::collections::BTreeSet<(u16, OwnedTopicFilter)>,
}

impl Routes {
    /// The last change that was sent.
    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    /// The last one that every shard knows of.
    pub(super) fn committed(&self) -> u64 {
        self.committed
    }
}

impl Shard {
    /// Adds or replaces a session's subscription.
    pub(crate) fn add_subscription(&mut self, filter: &OwnedTopicFilter, subscription: Subscription) {
        let class = self.class_of_session(subscription.subscriber.0);
        self.knows_own |= subscription.no_local();
        if self.topics.subscribe(filter, subscription).is_none() {
            self.sys_filters += u64::from(is_sys(filter.as_filter()));
            self.shared_subscriptions += u64::from(filter.as_filter().share_group().is_some());
            self.note_change(filter.as_filter(), class, Count::Plus);
        }
    }

    /// Removes one. The session may be gone already, so its class is said.
    pub(crate) fn remove_subscription(&mut self, filter: TopicFilter<'_>, key: u32, class: Class) {
        if self.topics.unsubscribe(filter, SubscriberId(key)).is_some() {
            self.sys_filters -= u64::from(is_sys(filter));
            self.shared_subscriptions -= u64::from(filter.share_group().is_some());
            self.note_change(filter, class, Count::Minus);
        }
    }

    /// Control counts: whether a filter has subscribers at this shard, or has others already, is its business.
    fn note_change(&mut self, filter: TopicFilter<'_>, class: Class, count: Count) {
        if self.shards() > 1 || self.clustered {
            self.routes.changes.push(Change { filter: filter.into(), class, count });
        }
    }

    /// The class of a session's subscriptions: whether it outlives the process.
    pub(crate) fn class_of_session(&self, key: u32) -> Class {
        let stored = self.sessions.get(key).is_some_and(|slot| slot.stored.is_some());
        if stored { Class::Durable } else { Class::Transient }
    }

    /// A session is stored from here on: its subscriptions are of the other class.
    pub(crate) fn change_class(&mut self, key: u32) {
        let Some(slot) = self.sessions.get(key) else { return };
        let filters: Vec<OwnedTopicFilter> = slot.session.subscriptions().iter().map(|(f, _)| f.clone()).collect();
        for filter in filters.iter().filter(|_| !planted!(ClassNotChanged)) {
            // In this order nobody finds it without any.
            self.note_change(filter.as_filter(), Class::Durable, Count::Plus);
            self.note_change(filter.as_filter(), Class::Transient, Count::Minus);
        }
    }

    /// Sends what has changed.
    pub(crate) fn send_changes(&mut self, out: &mut Outbox) {
        if self.routes.changes.is_empty() {
            return;
        }
        self.routes.seq += 1;
        let changes = core::mem::take(&mut self.routes.changes);
        out.push(Output::Control(ToControl::Routes { seq: self.routes.seq, changes }));
    }

    /// Whether every shard knows the subscriptions that were made up to now.
    pub(crate) fn is_committed(&mut self, out: &mut Outbox) -> bool {
        self.send_changes(out);
        if self.routes.committed >= self.routes.seq && core::mem::take(&mut self.routes.incomplete) {
            self.routes.seq += 1;
            out.push(Output::Control(ToControl::Routes { seq: self.routes.seq, changes: Vec::new() }));
        }
        self.routes.committed >= self.routes.seq
    }

    /// A connection's SUBACK waits until they do. In line and not at the connection, for nearly every connection subscribes.
    pub(crate) fn wait_for_commit(&mut self, conn: ConnId, suback: PendingSuback) {
        self.live(conn).features.add(Feature::Subscribing);
        let suback = Some(Box::new(suback));
        self.routes.waiting.push_back(Waiting { seq: self.routes.seq, conn, suback });
    }

    /// A connection that waits no longer, and what it waited with.
    pub(crate) fn give_up_waiting(&mut self, conn: ConnId) -> Option<Box<PendingSuback>> {
        let c = self.live(conn);
        if !c.features.has(Feature::Subscribing) {
            return None;
        }
        c.features.remove(Feature::Subscribing);
        self.routes.waiting.iter_mut().find(|waiting| waiting.conn == conn)?.suback.take()
    }

    pub(crate) fn on_control(&mut self, now: Instant, message: FromControl, out: &mut Outbox) {
        match message {
            FromControl::Routes(batch) => self.install(&batch, out),
            FromControl::Committed { seq, retained, complete, index } => {
                self.agreed.need = self.agreed.need.max(index);
                self.routes.incomplete = !complete && !planted!(IncompleteForgotten);
                self.on_committed(now, seq, &retained, out);
            }
            FromControl::Granted(kind, count) => self.on_granted(now, kind, count, out),
            FromControl::Denied(kind) => self.on_denied(now, kind, out),
            FromControl::Recovered => self.open_to_clients(now, out),
            FromControl::Report => {
                let report = Box::new(self.report());
                out.push(Output::Control(ToControl::Report(report)));
            }
            FromControl::Publish(messages) => {
                for message in messages.iter() {
                    self.publish_message(now, message, crate::conn::NONE, out);
                }
            }
            FromControl::Recall(kind) => {
                let count = self.give_back(kind);
                out.push(Output::Control(ToControl::Returned(kind, count)));
            }
            FromControl::Peer { node, news } => {
                self.on_peer(now, node, news);
                if news == PeerNews::Down {
                    self.letters_end(now, node, out);
                }
            }
            FromControl::Lanes { from, parcel } => self.on_lanes(now, from, &parcel),
            FromControl::Acknowledge { until } => self.on_acknowledge(now, until, out),
            FromControl::Drain(drains) => self.on_drain(now, drains, out),
            FromControl::Directory(order) => self.on_directory(now, *order, out),
            FromControl::Retained(news) => self.on_retained_news(now, &news, out),
            FromControl::Will(news) => self.on_will_news(now, *news, out),
            FromControl::Handover { from, message } => self.on_handover(now, from, &message, out),
        }
    }

    fn install(&mut self, batch: &Batch, out: &mut Outbox) {
        let slot = if batch.node == self.node { Some(0) } else { self.slot_of_node(batch.node) };
        if let Some(slot) = slot {
            self.install_at(slot, batch);
        }
        let sent: Box<[u64]> = self.lanes.iter().map(|lane| lane.retained_sent).collect();
        let retained = (sent != self.routes.counts).then(|| {
            self.routes.counts = sent.clone();
            sent
        });
        out.push(Output::Control(ToControl::Installed { seq: batch.seq, retained }));
    }

    fn slot_of_node(&mut self, node: NodeId) -> Option<u8> {
        self.peers.as_mut()?.slot_of(node)
    }

    fn install_at(&mut self, slot: u8, batch: &Batch) {
        let count = if planted!(DeltaTruncated, batch.routes.len() > 1) { 1 } else { batch.routes.len() };
        for RouteChange { filter, class, shard, members } in &batch.routes[..count] {
            // The own plain subscriptions are there already. Of a shared group the own members count from the moment on
            // that the others know of them, so that all take the same turns.
            let own = slot == 0 && *shard == ShardId(self.own);
            let place = place_id(slot, *shard, *class);
            if !own && is_sys(filter.as_filter()) {
                let known = (place.0, filter.clone());
                if *members > 0 {
                    self.routes.sys.insert(known)
                } else {
                    self.routes.sys.remove(&known)
                };
            }
            if !own || filter.as_filter().share_group().is_some() {
                self.topics.set_place(filter, place, *members);
            }
        }
    }

    /// Whether anybody in the node listens to anything under `$SYS`.
    pub(crate) fn has_sys_listeners(&self) -> bool {
        self.sys_filters > 0 || !self.routes.sys.is_empty()
    }

    fn on_committed(&mut self, now: Instant, seq: u64, retained: &RetainedCounts, out: &mut Outbox) {
        self.routes.committed = seq;
        self.must_have_read(retained);
        self.tell_untold(out);
        while let Some(waiting) = self.routes.waiting.pop_front_if(|waiting| waiting.seq <= seq) {
            if let Some(suback) = waiting.suback {
                self.finish_subscribe(now, waiting.conn, *suback, out);
            }
        }
    }

    /// Asks for more of what is limited.
    pub(crate) fn want(&self, kind: QuotaKind, out: &mut Outbox) {
        out.push(Output::Control(ToControl::Want(kind)));
    }
}
