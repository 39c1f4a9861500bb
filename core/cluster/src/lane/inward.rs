//! The receiving end of lanes: what one shard gets from the shards of other nodes.
//!
//! A delivery that was given out is decided by the shard, in order: enqueued or refused. When what needs it is on disk, the
//! shard says so. The mark that goes with each enqueue belongs into the same batch of the log; after a start it is given
//! back with [`LanesIn::restore`], so that what is in the log is never taken again.

use std::collections::{BTreeMap, VecDeque};

use newtmq_base::{Incarnation, Instant, NodeId, ShardId, planted};
use newtmq_mqtt::QoS;

use super::guids::SeenGuids;
use super::message::{Bundle, Frame, Header, Mark, Probe, Receipt, Refusal, What, Window};
use super::publication::Publication;
use super::{COST_BYTES, Config};

/// An item that has come and is to be decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The node that sent it.
    pub node: NodeId,
    /// The shard that sent it.
    pub shard: ShardId,
    /// Of the node that sent it.
    pub inc: Incarnation,
    /// Its number in the lane.
    pub seq: u64,
    /// Whom it is for.
    pub what: What,
    /// The message; none for a release.
    pub publication: Option<Publication>,
    /// When the message expires; [`Instant::NEVER`] without an expiry.
    pub expires: Instant,
}

/// What happened that should not happen often. Counted since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InCounts {
    /// Items that had come before.
    pub duplicates: u64,
    /// Items in front of which others were missing.
    pub gaps: u64,
    /// Frames of another incarnation of sender or receiver.
    pub stale: u64,
    /// Items above the window.
    pub above_window: u64,
}

/// The lanes to one shard.
#[derive(Debug, Clone)]
pub struct LanesIn {
    config: Config,
    shard: ShardId,
    inc: Incarnation,
    lanes: BTreeMap<(NodeId, ShardId), LaneIn>,
    /// Those with something to say, each once.
    dirty: Vec<(NodeId, ShardId)>,
    guids: SeenGuids,
    counts: InCounts,
}

/// The receiving end of a lane, for checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneInView {
    /// The sending node.
    pub node: NodeId,
    /// The sending shard.
    pub shard: ShardId,
    /// Its mark: never falls, over restarts of either side too (W7).
    pub mark: Mark,
    /// The number that is accepted next.
    pub next: u64,
    /// Items that are not decided: at most the window (W10).
    pub held_messages: usize,
    /// Bytes of those; at most the window, unless it is a single one.
    pub held_bytes: u64,
    /// Refusals that the sender may not have seen; none at rest (Q5).
    pub refused: usize,
}

impl LanesIn {
    /// The lanes to `shard` of a node that lives for the `inc`-th time.
    #[must_use]
    pub fn new(config: Config, shard: ShardId, inc: Incarnation) -> LanesIn {
        let guids = SeenGuids::new(config.guids);
        LanesIn { config, shard, inc, lanes: BTreeMap::new(), dirty: Vec::new(), guids, counts: InCounts::default() }
    }

    /// A mark from the log, before the first frame. Later ones replace earlier ones.
    pub fn restore(&mut self, node: NodeId, shard: ShardId, mark: Mark) {
        self.lanes.insert((node, shard), LaneIn::restored(mark));
    }

    /// The QoS 2 messages that came and are not released: for restoring them from the log, and for checks (Q6).
    pub fn guids(&mut self) -> &mut SeenGuids {
        &mut self.guids
    }

    /// Number of those, for checks: 0 at rest (Q6).
    #[must_use]
    pub fn seen(&self) -> usize {
        self.guids.len()
    }

    /// A frame from `node` (the one that made it, not one that relays it). Pushes what is to be decided to `out`. Items for
    /// other shards, and receipts, are ignored.
    pub fn frame(&mut self, now: Instant, node: NodeId, frame: &Frame, out: &mut Vec<Delivery>) {
        match frame {
            Frame::Bundle(bundle) => self.bundle(now, node, bundle, out),
            Frame::Probe(probe) => self.probe(node, probe),
            Frame::Receipt(_) => {}
        }
    }

    /// Who of those that it is for is to get it: not those for whom it was enqueued before, if it has QoS 2, by whatever way
    /// it came then. To be asked when the delivery's turn has come. Without anybody it is told as enqueued, and is not.
    #[must_use]
    pub fn unseen(&self, delivery: &Delivery) -> Option<What> {
        match &delivery.publication {
            Some(message) if message.qos() == QoS::ExactlyOnce && !planted!(ForwardGuidIgnored) => {
                self.guids.unseen(message.guid(), &delivery.what)
            }
            Some(_) | None => Some(delivery.what.clone()),
        }
    }

    /// It is in the queues of its receivers, or nobody was left that it is for, or it is a release. The mark is for the batch of the log that stores
    /// this, with the guid if it has QoS 2.
    pub fn enqueued(&mut self, delivery: &Delivery) -> Mark {
        if let What::Release(guid) = delivery.what {
            self.guids.remove(guid);
        }
        if let Some(message) = &delivery.publication
            && message.qos() == QoS::ExactlyOnce
        {
            self.guids.insert(message.guid(), &delivery.what);
        }
        self.decide(delivery, None)
    }

    /// Nobody here takes it.
    pub fn refused(&mut self, delivery: &Delivery, refusal: Refusal) -> Mark {
        self.decide(delivery, Some(refusal))
    }

    /// What was enqueued of a lane up to `seq` is safe: on disk as far as it needs to be. Refused ones need not be told.
    pub fn stored(&mut self, node: NodeId, shard: ShardId, inc: Incarnation, seq: u64) {
        let Some(lane) = self.lanes.get_mut(&(node, shard)).filter(|lane| lane.inc == inc) else { return };
        lane.stored(seq);
        lane.mark_dirty((node, shard), &mut self.dirty);
    }

    /// Whether there is something to say.
    #[must_use]
    pub fn has_receipts(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Takes what there is to say, for each node one or more receipts. To be called when a round of work is done, so that
    /// one receipt answers many messages.
    pub fn receipts(&mut self, out: &mut Vec<(NodeId, Receipt)>) {
        self.dirty.sort_unstable();
        for key in self.dirty.drain(..) {
            let Some(lane) = self.lanes.get_mut(&key) else { continue };
            lane.dirty = false;
            if let Some(receipt) = lane.receipt(&self.config, self.shard, key.1, self.inc) {
                out.push((key.0, receipt));
            }
        }
    }

    /// There is a link to this incarnation of the node: nobody asks any more what was refused to an earlier one.
    pub fn connected(&mut self, node: NodeId, inc: Incarnation) {
        for lane in self.lanes.range_mut((node, ShardId(0))..=(node, ShardId(u16::MAX))).map(|(_, lane)| lane) {
            if lane.inc < inc {
                lane.over = true;
                lane.succeed();
            }
        }
    }

    /// The node is no member any more. What it sent and is not decided may still be.
    pub fn forget(&mut self, node: NodeId) {
        self.lanes.retain(|(from, _), _| *from != node);
        self.dirty.retain(|(from, _)| *from != node);
    }

    /// What was counted.
    #[must_use]
    pub fn counts(&self) -> InCounts {
        self.counts
    }

    /// For checks, by node and shard.
    pub fn view(&self) -> impl Iterator<Item = LaneInView> {
        self.lanes.iter().map(|((node, shard), lane)| LaneInView {
            node: *node,
            shard: *shard,
            mark: lane.mark(),
            next: lane.next,
            held_messages: lane.pending.len(),
            held_bytes: lane.held_bytes,
            refused: lane.refused.len(),
        })
    }

    fn bundle(&mut self, now: Instant, node: NodeId, bundle: &Bundle, out: &mut Vec<Delivery>) {
        let key = (node, bundle.from);
        let lane = self.lanes.get_mut(&key).filter(|lane| lane.inc == bundle.from_inc && lane.successor.is_none());
        let Some(lane) = lane.filter(|_| bundle.to_inc == self.inc) else {
            self.counts.stale += 1;
            return;
        };
        let expires = bundle.remaining.map_or(Instant::NEVER, |remaining| now + remaining);
        for header in bundle.headers.iter().filter(|header| header.shard == self.shard) {
            let cost = cost_of(&header.what, bundle.publication.as_ref());
            if lane.accept(&self.config, header, cost, &mut self.counts) {
                out.push(Delivery {
                    node,
                    shard: bundle.from,
                    inc: bundle.from_inc,
                    seq: header.seq,
                    what: header.what.clone(),
                    publication: bundle.publication.clone(),
                    expires,
                });
            }
            lane.mark_dirty(key, &mut self.dirty);
        }
    }

    fn probe(&mut self, node: NodeId, probe: &Probe) {
        if probe.to != self.shard {
            return;
        }
        let key = (node, probe.from);
        let lane =
            (probe.to_inc == self.inc).then(|| self.lanes.entry(key).or_insert_with(|| LaneIn::new(probe.from_inc)));
        let Some(lane) = lane.filter(|lane| probe.from_inc >= lane.inc) else {
            self.counts.stale += 1;
            return;
        };
        lane.probe(probe);
        lane.mark_dirty(key, &mut self.dirty);
    }

    fn decide(&mut self, delivery: &Delivery, refusal: Option<Refusal>) -> Mark {
        let key = (delivery.node, delivery.shard);
        let Some(lane) = self.lanes.get_mut(&key) else {
            return Mark { inc: delivery.inc, upto: 0 };
        };
        if lane.inc == delivery.inc {
            lane.decide(delivery.seq, refusal);
            lane.mark_dirty(key, &mut self.dirty);
        }
        lane.mark()
    }
}

/// One lane.
#[derive(Debug, Clone)]
struct LaneIn {
    /// Of the sender.
    inc: Incarnation,
    /// The number that is accepted next.
    next: u64,
    /// The last number that was given out; lower than `next - 1` if the sender has given up some.
    delivered: u64,
    /// All that were given out up to here are decided.
    decided: u64,
    /// All that were given out up to here are stored.
    stored: u64,
    /// Given out and not decided, with costs.
    pending: VecDeque<(u64, u64)>,
    held_bytes: u64,
    /// Refused, and the sender has not said that it knows.
    refused: BTreeMap<u64, Refusal>,
    /// `next` when it was last asked for.
    asked: u64,
    resume: bool,
    /// The sender has asked what is stored of what it has given up.
    opening: bool,
    /// The first probe of a later incarnation, which waits until all of this one is stored.
    successor: Option<Probe>,
    /// The sender has started again: nobody asks what was refused.
    over: bool,
    /// It is on the list of those with something to say.
    dirty: bool,
    /// A planted bug's.
    early: u64,
}

impl LaneIn {
    fn new(inc: Incarnation) -> LaneIn {
        LaneIn::restored(Mark { inc, upto: 0 })
    }

    fn restored(mark: Mark) -> LaneIn {
        LaneIn {
            inc: mark.inc,
            next: mark.upto + 1,
            delivered: mark.upto,
            decided: mark.upto,
            stored: mark.upto,
            pending: VecDeque::new(),
            held_bytes: 0,
            refused: BTreeMap::new(),
            asked: 0,
            resume: false,
            opening: false,
            successor: None,
            over: false,
            dirty: false,
            early: 0,
        }
    }

    #[inline]
    fn mark_dirty(&mut self, key: (NodeId, ShardId), dirty: &mut Vec<(NodeId, ShardId)>) {
        if !core::mem::replace(&mut self.dirty, true) {
            dirty.push(key);
        }
    }

    /// Whether it is given out.
    fn accept(&mut self, config: &Config, header: &Header, cost: u64, counts: &mut InCounts) -> bool {
        if header.seq < self.next {
            counts.duplicates += 1;
            return false;
        }
        if header.seq > self.next && !planted!(GapAccepted) {
            counts.gaps += 1;
            // Once: what is behind it is on its way, and would make it be sent again and again.
            self.resume |= self.asked != self.next;
            self.asked = self.next;
            return false;
        }
        let full = self.pending.len() >= config.window_messages.max(1) as usize
            || (!self.pending.is_empty() && self.held_bytes + cost > u64::from(config.window_bytes))
            || self.refused.len() >= config.unstored_messages;
        if full {
            counts.above_window += 1;
            return false;
        }
        self.opening = false;
        self.next = header.seq + 1;
        self.delivered = header.seq;
        self.pending.push_back((header.seq, cost));
        self.held_bytes += cost;
        if planted!(LaneGroupAckedEarly, matches!(header.what, What::Group { .. })) {
            self.early = header.seq;
        }
        true
    }

    fn probe(&mut self, probe: &Probe) {
        if probe.from_inc > self.inc {
            if self.stored != self.delivered {
                self.successor = Some(*probe);
                return;
            }
            if planted!(LaneDedupWithoutIncarnation) {
                self.inc = probe.from_inc;
            } else {
                *self = LaneIn { dirty: self.dirty, ..LaneIn::new(probe.from_inc) };
            }
        }
        self.refused = self.refused.split_off(&(probe.settled + 1));
        // What is lower never comes: the sender has given it up.
        self.next = self.next.max(probe.first);
        self.opening = probe.opening;
        self.resume = self.next < probe.next;
        if self.resume {
            self.asked = self.next;
        }
    }

    fn decide(&mut self, seq: u64, refusal: Option<Refusal>) {
        // What the lane brought before its node was forgotten is lower than what it brings when that comes back.
        let Some((first, cost)) = self.pending.pop_front_if(|(first, _)| seq >= *first) else { return };
        assert_eq!(first, seq, "what a lane brings is decided in order");
        self.held_bytes -= cost;
        let stored = self.stored == self.decided;
        self.decided = seq;
        if let Some(refusal) = refusal {
            self.refused.insert(seq, refusal);
            if stored {
                self.stored = seq;
            }
        }
        self.succeed();
    }

    fn stored(&mut self, seq: u64) {
        self.stored = self.stored.max(seq.min(self.decided));
        while self.stored < self.decided && self.refused.contains_key(&(self.stored + 1)) {
            self.stored += 1;
        }
        self.succeed();
    }

    /// The later incarnation's turn, when it has come.
    fn succeed(&mut self) {
        if self.over {
            self.refused = self.refused.split_off(&(self.stored + 1));
        }
        if self.stored == self.delivered
            && let Some(probe) = self.successor.take()
        {
            self.probe(&probe);
        }
    }

    /// Refused ones count as unstored until the sender knows it: if this shard starts again before that, the sender has to
    /// hear of them again.
    fn mark(&self) -> Mark {
        let upto = self.refused.first_key_value().map_or(self.decided, |(first, _)| self.decided.min(first - 1));
        Mark { inc: self.inc, upto }
    }

    fn receipt(&mut self, config: &Config, own: ShardId, to: ShardId, inc: Incarnation) -> Option<Receipt> {
        if self.successor.is_some() {
            return None;
        }
        let last = self.next - 1;
        let mut enqueued = if self.decided == self.delivered { last } else { self.decided };
        let mut stored = if self.stored == self.delivered { last } else { self.stored };
        if planted!(ForwardAckedOnArrival, stored < last) {
            (enqueued, stored) = (last, last);
        }
        (enqueued, stored) = (enqueued.max(self.early), stored.max(self.early));
        let receipt = Receipt {
            from: own,
            to,
            from_inc: inc,
            to_inc: self.inc,
            next: self.next,
            enqueued,
            stored,
            window: Window { messages: config.window_messages.max(1), bytes: config.window_bytes },
            resume: core::mem::take(&mut self.resume),
            refused: self.refused.iter().map(|(seq, refusal)| (*seq, *refusal)).collect(),
            known: self.opening.then_some(self.stored),
        };
        if planted!(NackToldOnce, !self.refused.is_empty()) {
            self.refused.clear();
        }
        Some(receipt)
    }
}

/// What an item costs of its lane's window; the same at both ends.
pub(super) fn cost_of(what: &What, publication: Option<&Publication>) -> u64 {
    let name = match what {
        What::Group { name, .. } => name.len(),
        What::Plain { .. } | What::Release(_) => 0,
    };
    (COST_BYTES + name + publication.map_or(0, Publication::cost)) as u64
}
