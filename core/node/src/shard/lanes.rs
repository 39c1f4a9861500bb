//! Lanes to and from the other shards of the node: what was sent and is not worked off, and what came and waits.
//!
//! What comes in is worked off in its order, some at a time, at the next Tick, so that no client has to wait long for
//! other shards. A lane whose account is above its limit holds the publishers that use it, never longer than the other
//! shard needs: shards wait for nobody, so there is no limit of time and nothing is dropped.

use std::collections::VecDeque;

use newtmq_base::{ConnId, Instant, ShardId, planted};
use newtmq_cluster::lane::Guid;
use newtmq_mqtt::QoS;
use newtmq_session::Message;
use newtmq_topic::{Memo, PlaceId};

use super::Shard;
use super::deliver::Origin;
use super::fan::Publishing;
use super::journal::JOINT;
use crate::conn::{Target, Waiter};
use crate::io::{Outbox, Output};
use crate::place::{Obstacle, PlaceMessage, Stamp, shard_of};

/// Above this many bytes that are not worked off, publishers wait.
pub const LANE_HIGH_BYTES: usize = 1 << 20;
/// Below it they go on.
const LANE_LOW_BYTES: usize = 256 << 10;
/// Credit is given in pieces of this size.
const CREDIT_BYTES: usize = 64 << 10;
/// Most deliveries of one Tick to what came from other shards.
const LANE_DELIVERIES: usize = 16_384;

const _: () = assert!(CREDIT_BYTES < LANE_LOW_BYTES && LANE_LOW_BYTES < LANE_HIGH_BYTES);

/// To and from one other shard. The own one has a lane, too, for the counts of retained messages and for reading them.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    /// Bytes sent and not worked off.
    pub(crate) outstanding: usize,
    /// Publishers that wait for it to become less.
    pub(crate) waiters: Vec<Waiter>,
    /// Holds sent, and holds that came.
    pub(crate) holds_sent: u64,
    pub(crate) holds_seen: u64,
    /// Retained messages sent.
    pub(crate) retained_sent: u64,
    /// What came and waits.
    inbox: VecDeque<PlaceMessage>,
    /// A fan-out of what came is not finished; what comes after it waits [MQTT-4.6.0-6].
    pub(crate) busy: bool,
    /// What its sender has promised with that.
    pub(crate) promise: u64,
    /// Bytes worked off and not told.
    owed: usize,
    /// Retained messages that came.
    pub(crate) retained_seen: u64,
    /// The other shard was asked how many it has sent.
    pub(crate) probed: bool,
    /// By owner: how many it had sent when it answered. What it sent live by then has been delivered.
    pub(crate) passed: Box<[u64]>,
}

impl Lane {
    pub(crate) fn new(shards: u16) -> Lane {
        Lane { passed: vec![0; usize::from(shards)].into(), ..Lane::default() }
    }

    /// What is under way, in words; none while nothing waits and what is not credited is less than a credit.
    pub(crate) fn leftover(&self) -> Option<String> {
        let Lane { outstanding, waiters, inbox, busy, probed, .. } = self;
        let idle = waiters.is_empty() && inbox.is_empty() && !busy && !probed && *outstanding < CREDIT_BYTES;
        (!idle).then(|| {
            let (waiters, inbox) = (waiters.len(), inbox.len());
            format!("{waiters} publishers wait, {inbox} messages came, {outstanding} bytes are not credited, busy {busy}, probed {probed}")
        })
    }

    fn has_work(&self) -> bool {
        !self.busy && !self.inbox.is_empty()
    }
}

impl Shard {
    /// Another shard says something.
    pub(crate) fn on_place(&mut self, now: Instant, from: ShardId, message: PlaceMessage, out: &mut Outbox) {
        let lane = &mut self.lanes[usize::from(from.0)];
        match message {
            PlaceMessage::Publish { .. }
            | PlaceMessage::Group(_)
            | PlaceMessage::Retain { .. }
            | PlaceMessage::Read(_)
            // Not before what was sent live ahead of them.
            | PlaceMessage::Chunk(_)
            | PlaceMessage::Sent { .. }
            | PlaceMessage::Flushed { .. }
            | PlaceMessage::Bye => lane.inbox.push_back(message),
            PlaceMessage::Stored { upto } => self.on_stored_elsewhere(now, from.0, upto, out),
            PlaceMessage::GroupStored { promise } => self.on_group_stored(now, promise, out),
            PlaceMessage::Probe => self.on_probe(from.0, out),
            PlaceMessage::Flush { at, marker } => self.flush_lane(now, at, marker, out),
            PlaceMessage::Credit { bytes } => self.on_credit(now, from.0, bytes, out),
            PlaceMessage::Hold { publisher, obstacle } => {
                lane.holds_seen += 1;
                self.wait_for(now, publisher, &[Target::There(from.0, obstacle)], out);
            }
            PlaceMessage::Release { publisher, obstacle } => {
                self.stop_waiting_for(now, publisher, Target::There(from.0, obstacle), out);
            }
            PlaceMessage::Leave { publisher, obstacle, holds } => {
                self.forget_waiter(from.0, publisher, obstacle, holds);
            }
        }
    }

    /// Whether something that came can be worked off.
    pub(crate) fn lanes_have_work(&self) -> bool {
        !self.reads_alone() && self.lanes.iter().any(Lane::has_work)
    }

    /// Works off what came from other shards, in turns.
    pub(crate) fn work_lanes(&mut self, now: Instant, out: &mut Outbox) {
        if self.reads_alone() {
            return;
        }
        self.spent = 0;
        let first = self.next_lane;
        for step in 0..self.shards() {
            let at = (first + step) % self.shards();
            while self.spent < LANE_DELIVERIES && self.lanes[usize::from(at)].has_work() {
                let inbox = &mut self.lanes[usize::from(at)].inbox;
                let last = planted!(LaneOutOfOrder, inbox.len() > 1);
                let Some(message) = (if last { inbox.pop_back() } else { inbox.pop_front() }) else { break };
                self.work_off(now, at, message, out);
            }
        }
        // Whoever was last in this turn is first in the next.
        self.next_lane = (first + 1) % self.shards();
    }

    fn work_off(&mut self, now: Instant, from: u16, message: PlaceMessage, out: &mut Outbox) {
        let cost = message.cost();
        self.spent += 1;
        match message {
            PlaceMessage::Publish { message, publisher, stamp, promise, guid } => {
                self.journal.whole = promise & JOINT != 0;
                self.on_forwarded(now, from, &message, (publisher, stamp, guid), out);
                self.journal.whole = false;
                if self.lanes[usize::from(from)].busy {
                    self.lanes[usize::from(from)].promise = promise;
                } else {
                    self.journal.worked_off(from, promise);
                }
            }
            PlaceMessage::Group(group) => self.on_group(now, *group, out),
            PlaceMessage::Retain { message, stamp, promise } => {
                self.on_retain(now, from, &message, stamp, out);
                self.journal.worked_off(from, promise);
            }
            PlaceMessage::Read(read) => self.on_read(now, from, read, out),
            PlaceMessage::Chunk(chunk) => self.on_chunk(now, from, chunk, out),
            PlaceMessage::Sent { counts } => self.on_sent(now, from, counts, out),
            PlaceMessage::Flushed { marker } => self.on_flushed(now, (self.node, ShardId(from)), marker, out),
            PlaceMessage::Bye => self.on_bye(now, out),
            PlaceMessage::Stored { .. }
            | PlaceMessage::GroupStored { .. }
            | PlaceMessage::Probe
            | PlaceMessage::Flush { .. }
            | PlaceMessage::Credit { .. }
            | PlaceMessage::Hold { .. }
            | PlaceMessage::Release { .. }
            | PlaceMessage::Leave { .. } => unreachable!("these never wait"),
        }
        let lane = &mut self.lanes[usize::from(from)];
        lane.owed += cost;
        if lane.owed >= CREDIT_BYTES && !planted!(CreditNotReturned) {
            let bytes = core::mem::take(&mut lane.owed);
            self.send_place(from, PlaceMessage::Credit { bytes }, out);
        }
    }

    /// A message from another shard goes to the sessions here.
    fn on_forwarded(
        &mut self,
        now: Instant,
        from: u16,
        message: &Message,
        (publisher, stamp, guid): (Option<ConnId>, Stamp, Guid),
        out: &mut Outbox,
    ) {
        let mut publishing = Publishing::of_message(message, crate::conn::NONE);
        (publishing.stamp, publishing.guid) = (stamp, guid);
        if stamp != Stamp::NONE {
            self.saw_live(message.topic_str(), stamp);
        }
        let origin = Origin::Lane(from, publisher);
        let delivered = self.deliver(now, publishing, &mut Memo::default(), origin, None, out);
        if delivered.unfinished {
            self.lanes[usize::from(from)].busy = true;
        }
        if let Some(publisher) = publisher {
            self.hold_remote(from, publisher, &delivered.congested, out);
        }
    }

    /// Sends a message to the places that have subscriptions for it.
    pub(crate) fn forward(
        &mut self,
        now: Instant,
        places: &[PlaceId],
        message: &Message,
        publisher: Option<ConnId>,
        (stamp, guid): (Stamp, Guid),
        out: &mut Outbox,
    ) {
        let mut last = None;
        for shard in places.iter().map(|place| shard_of(*place)) {
            // One with subscribers of both classes gets it once.
            if last.replace(shard) == Some(shard) {
                continue;
            }
            self.ledger.forwarded += 1;
            // QoS 0 promises nothing.
            let promise = if message.qos() == QoS::AtMostOnce { 0 } else { self.journal.promise_elsewhere(shard) };
            let message = message.clone();
            self.send_place(shard, PlaceMessage::Publish { message, publisher, stamp, promise, guid }, out);
            if let Some(publisher) = publisher {
                self.wait_for_lane(now, shard, publisher, out);
            }
        }
    }

    /// Makes a publisher wait while a lane's account is above its limit.
    pub(crate) fn wait_for_lane(&mut self, now: Instant, to: u16, publisher: ConnId, out: &mut Outbox) {
        if self.lanes[usize::from(to)].outstanding >= LANE_HIGH_BYTES {
            self.wait_for(now, publisher, &[Target::Lane(to)], out);
        }
    }

    /// The same for a publisher of another shard.
    pub(crate) fn hold_for_lane(&mut self, to: u16, from: u16, publisher: ConnId, out: &mut Outbox) {
        let lane = &self.lanes[usize::from(to)];
        let waits = || lane.waiters.iter().any(|waiter| waiter.is_there(from, publisher));
        if lane.outstanding >= LANE_HIGH_BYTES && !waits() {
            let hold = self.send_hold(from, publisher, Obstacle::Lane(to), out);
            self.lanes[usize::from(to)].waiters.push(Waiter::There(from, publisher, hold));
        }
    }

    /// Tells a publisher of another shard to wait; the number of the hold.
    pub(crate) fn send_hold(&mut self, to: u16, publisher: ConnId, obstacle: Obstacle, out: &mut Outbox) -> u64 {
        let lane = &mut self.lanes[usize::from(to)];
        lane.holds_sent += 1;
        let hold = lane.holds_sent;
        self.send_place(to, PlaceMessage::Hold { publisher, obstacle }, out);
        hold
    }

    pub(crate) fn send_place(&mut self, to: u16, message: PlaceMessage, out: &mut Outbox) {
        let lane = &mut self.lanes[usize::from(to)];
        if to == self.own {
            // At the next Tick, so that a long reading takes turns with everything else.
            lane.inbox.push_back(message);
            return;
        }
        lane.outstanding += message.cost();
        out.push(Output::Place { to: ShardId(to), message });
    }

    fn on_credit(&mut self, now: Instant, from: u16, bytes: usize, out: &mut Outbox) {
        let lane = &mut self.lanes[usize::from(from)];
        lane.outstanding -= bytes;
        if lane.outstanding >= LANE_LOW_BYTES {
            return;
        }
        for waiter in core::mem::take(&mut lane.waiters) {
            match waiter {
                Waiter::Here(publisher) => self.stop_waiting_for(now, publisher, Target::Lane(from), out),
                Waiter::There(shard, publisher, _) => {
                    let obstacle = Obstacle::Lane(from);
                    self.send_place(shard, PlaceMessage::Release { publisher, obstacle }, out);
                }
            }
        }
    }
}
