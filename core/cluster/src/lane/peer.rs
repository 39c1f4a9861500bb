//! The sending end of all lanes from one shard to the shards of one remote node: one payload goes over the link for all of
//! them.

use core::time::Duration;

use bytes::Bytes;
use newtmq_base::{Incarnation, Instant, NodeId, ShardId};
use newtmq_mqtt::QoS;

use super::message::{Frame, Guid, Probe, Receipt, Refusal, What, put_bundle_head, put_item, put_message};
use super::out::{Context, Item, LaneOut, LaneOutView, OutCounts, Ready};
use super::parcel::Parcel;
use super::publication::Publication;
use super::{Config, SHARDS_MAX};

/// The caller's name for something that waits for answers, a publisher's [`super::GateId`] say. Lanes only give it back.
/// The same one may be used for any number of targets: each gives one answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A message to send.
#[derive(Debug, Clone)]
pub struct Post {
    /// Comes back with each answer. QoS 0 gets none.
    pub ticket: Ticket,
    /// The message.
    pub publication: Publication,
    /// When it expires; [`Instant::NEVER`] without an expiry.
    pub expires: Instant,
    /// It comes from the log of hints, and stays there until it is acknowledged.
    pub from_log: bool,
}

/// Whom at the remote node a message is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The shard.
    pub shard: ShardId,
    /// Whom there. A message for plain subscriptions and a group of one shard has two targets.
    pub what: What,
}

/// What became of a message at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sent {
    /// How many answers come with the ticket: one [`Output::Acked`], [`Output::Refused`], [`Output::Lost`],
    /// [`Output::Overdue`], [`Output::Hint`] or [`Output::Redispatch`] for each.
    pub answers: u32,
    /// Targets for which too many wait: the publisher is to be told that its quota is exceeded.
    pub refused: u32,
    /// Targets for which the message was dropped, with QoS 0.
    pub dropped: u32,
    /// Targets that are down, and have nobody whose session is stored.
    pub closed: u32,
    /// The publisher of this QoS 0 message is to be held until [`Output::Room`].
    pub paused: bool,
}

/// Why a group's message comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gone {
    /// The receiver refused it.
    Refused(Refusal),
    /// The receiver is down or has started again.
    Down,
}

/// What a sending end asks its owner to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A target has the message: in memory, or on disk for a session that is stored.
    Acked {
        /// Of the message.
        ticket: Ticket,
    },
    /// A target for plain subscriptions does not take it.
    Refused {
        /// Of the message.
        ticket: Ticket,
        /// Why.
        refusal: Refusal,
    },
    /// A target is down or has started again, and its sessions in memory are gone; or a QoS 2 message for a group may have
    /// come there and must not go to another member.
    Lost {
        /// Of the message.
        ticket: Ticket,
    },
    /// Too long without an answer. None comes any more, though the message may arrive.
    Overdue {
        /// Of the message.
        ticket: Ticket,
    },
    /// For the source's log: it is to be sent when the target has opened. The answer is the log's, when this is on disk.
    Hint {
        /// Of the message.
        ticket: Ticket,
        /// The target.
        shard: ShardId,
        /// The number it was sent with: it may have come.
        seq: Option<u64>,
        /// Whom there.
        what: What,
        /// The message.
        publication: Publication,
        /// When it expires.
        expires: Instant,
    },
    /// What was sent from the log of hints was not acknowledged, and stays there.
    Kept {
        /// Of the hint.
        ticket: Ticket,
        /// The number it was sent with: it may have come.
        seq: Option<u64>,
    },
    /// A group's message is to go to another place with members. This end keeps no copy any more.
    Redispatch {
        /// Of the message.
        ticket: Ticket,
        /// The group.
        what: What,
        /// Why.
        why: Gone,
        /// The message.
        publication: Publication,
        /// When it expires.
        expires: Instant,
        /// It is in the log of hints, and can go from there when another place has acknowledged it.
        from_log: bool,
    },
    /// The target takes messages. Hints for it that have a number up to `stored` have come and can go from the log, and so
    /// can those that nobody was there for. The others, and those that it could not store, have not come, and their numbers are
    /// to be forgotten: they are sent now, in order, and then [`PeerOut::drained`].
    /// A number counts in the life of the sender that it was given in only; of what was sent in an earlier one, some may
    /// come again.
    Opened {
        /// The target.
        shard: ShardId,
        /// What has come.
        stored: u64,
        /// What of that was refused, and why.
        refused: Vec<(u64, Refusal)>,
    },
    /// There is room again where something was refused, dropped or paused.
    Room {
        /// The target.
        shard: ShardId,
    },
}

/// The lanes from one shard to one remote node.
pub struct PeerOut {
    config: Config,
    shard: ShardId,
    inc: Incarnation,
    node: NodeId,
    /// Of the remote node; none before it was seen.
    peer: Option<Incarnation>,
    connected: bool,
    down: bool,
    lanes: Vec<LaneOut>,
    deadline: Instant,
    counts: OutCounts,
    ready: Vec<Ready>,
    /// A lane has a probe to send.
    probing: bool,
    /// Frames that have not left: parcels that are full, and the last one.
    parcels: Vec<Bytes>,
    parcel: Parcel,
}

impl core::fmt::Debug for PeerOut {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("PeerOut").field("node", &self.node).field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl PeerOut {
    /// The lanes from `shard` of a node that lives for the `inc`-th time to the shards of `node`.
    #[must_use]
    pub fn new(config: Config, shard: ShardId, inc: Incarnation, node: NodeId) -> PeerOut {
        PeerOut {
            config,
            shard,
            inc,
            node,
            peer: None,
            connected: false,
            down: false,
            lanes: Vec::new(),
            deadline: Instant::NEVER,
            counts: OutCounts::default(),
            ready: Vec::new(),
            probing: false,
            parcels: Vec::new(),
            parcel: Parcel::default(),
        }
    }

    /// The remote node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// There is a link, direct or relayed, to this incarnation of the node, or it was reset and what was on it may be lost.
    /// A later incarnation than the one before is as [`PeerOut::down`] first. Returns false, and does nothing, for an earlier
    /// one.
    pub fn connected(&mut self, now: Instant, peer: Incarnation, out: &mut Vec<Output>) -> bool {
        if self.peer.is_some_and(|known| peer < known) {
            self.counts.stale += 1;
            return false;
        }
        if self.peer.is_some_and(|known| peer > known) {
            self.each(now, out, |lane, cx| lane.down(cx));
        }
        self.peer = Some(peer);
        (self.connected, self.down) = (true, false);
        self.each(now, out, |lane, cx| lane.connected(cx));
        true
    }

    /// Whether the node has been seen, and does not count as down: what was sent there may be under way.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.peer.is_some() && !self.down
    }

    /// There is no link. Messages wait, as far as there is room.
    pub fn disconnected(&mut self) {
        self.connected = false;
        self.drop_frames();
        for lane in &mut self.lanes {
            lane.disconnected();
        }
    }

    /// The node counts as down: what is under way comes out, and messages for stored sessions are hinted until the next
    /// [`PeerOut::connected`].
    pub fn down(&mut self, now: Instant, out: &mut Vec<Output>) {
        (self.connected, self.down) = (false, true);
        self.drop_frames();
        self.each(now, out, |lane, cx| lane.down(cx));
    }

    /// What has not left is lost with the link.
    fn drop_frames(&mut self) {
        self.parcels.clear();
        self.parcel = Parcel::default();
    }

    /// The log holds hints for a shard, from before this start. Messages for stored sessions go behind them.
    pub fn hinted(&mut self, now: Instant, shard: ShardId, out: &mut Vec<Output>) {
        self.with(now, shard, out, |lane, _| lane.hinting(true));
    }

    /// All hints for a shard were handed over with [`PeerOut::send`], so that others may go behind them.
    pub fn drained(&mut self, now: Instant, shard: ShardId, out: &mut Vec<Output>) {
        self.with(now, shard, out, |lane, _| lane.hinting(false));
    }

    /// Sends a message. Its targets are those of this node; one that has no credit does not hold the others.
    ///
    /// # Panics
    /// If a target is a release, or of a shard above [`SHARDS_MAX`].
    pub fn send(&mut self, now: Instant, post: &Post, targets: &[Target], out: &mut Vec<Output>) -> Sent {
        let ticket = (post.publication.qos() != QoS::AtMostOnce).then_some(post.ticket);
        let mut sent = Sent::default();
        for Target { shard, what } in targets {
            assert!(!matches!(what, What::Release(_)), "a release is no message");
            let item = Item::new(what.clone(), Some(post.publication.clone()), post.expires, ticket, post.from_log);
            self.lane(now, *shard, out, |lane, cx| lane.post(item, &mut sent, cx));
        }
        self.flush(now);
        sent
    }

    /// The publisher of a QoS 2 message has released it, so it does not come again: the shards that got it may forget it.
    pub fn release(&mut self, now: Instant, guid: Guid, shards: &[ShardId], out: &mut Vec<Output>) {
        for shard in shards {
            self.lane(now, *shard, out, |lane, cx| lane.release(guid, cx));
        }
        self.flush(now);
    }

    /// A receipt from the node (the one that made it, not one that relays it). Those for other shards are ignored.
    pub fn receipt(&mut self, now: Instant, receipt: &Receipt, out: &mut Vec<Output>) {
        if receipt.to != self.shard || usize::from(receipt.from.0) >= self.lanes.len() {
            return;
        }
        if Some(receipt.from_inc) != self.peer || receipt.to_inc != self.inc {
            self.counts.stale += 1;
            return;
        }
        self.with(now, receipt.from, out, |lane, cx| lane.receipt(receipt, cx));
    }

    /// Whether there is something for [`PeerOut::take`].
    #[must_use]
    pub fn has_frames(&self) -> bool {
        !self.parcel.is_empty() || !self.parcels.is_empty()
    }

    /// Writes what the receiving end of the node's lanes has to say behind the other frames.
    pub fn answer(&mut self, receipt: Receipt) {
        self.parcel.push(&Frame::Receipt(receipt));
    }

    /// What is to be sent to the node, in order as far as the link can: [`Parcel`]s.
    pub fn take(&mut self) -> impl Iterator<Item = Bytes> {
        let last = (!self.parcel.is_empty()).then(|| self.parcel.take());
        self.parcels.drain(..).chain(last)
    }

    /// Time has passed. A late tick is as good, and one too many does nothing.
    pub fn tick(&mut self, now: Instant, out: &mut Vec<Output>) {
        if self.deadline <= now {
            self.each(now, out, |lane, cx| lane.tick(cx));
        }
    }

    /// When to tick; may be earlier than needed.
    #[must_use]
    pub fn next_deadline(&self) -> Instant {
        self.deadline
    }

    /// What was counted.
    #[must_use]
    pub fn counts(&self) -> OutCounts {
        self.counts
    }

    /// For checks, by shard.
    pub fn view(&self) -> impl Iterator<Item = LaneOutView> {
        self.lanes.iter().map(LaneOut::view)
    }

    fn with(
        &mut self,
        now: Instant,
        shard: ShardId,
        out: &mut Vec<Output>,
        work: impl FnOnce(&mut LaneOut, &mut Context<'_>),
    ) {
        self.lane(now, shard, out, work);
        self.flush(now);
    }

    fn each(&mut self, now: Instant, out: &mut Vec<Output>, mut work: impl FnMut(&mut LaneOut, &mut Context<'_>)) {
        self.deadline = Instant::NEVER;
        for shard in 0..self.lanes.len() {
            self.lane(now, ShardId(shard as u16), out, &mut work);
        }
        self.flush(now);
    }

    fn lane(
        &mut self,
        now: Instant,
        shard: ShardId,
        out: &mut Vec<Output>,
        work: impl FnOnce(&mut LaneOut, &mut Context<'_>),
    ) {
        assert!(shard.0 < SHARDS_MAX, "a node has no such shard");
        let PeerOut { config, connected, lanes, counts, ready, .. } = self;
        let mut cx = Context { config, now, connected: *connected, counts, ready, out };
        while lanes.len() <= usize::from(shard.0) {
            let mut lane = LaneOut::new(ShardId(lanes.len() as u16), self.down);
            if cx.connected {
                lane.connected(&mut cx);
            }
            self.deadline = self.deadline.min(lane.deadline());
            self.probing |= lane.has_probe();
            lanes.push(lane);
        }
        let lane = &mut lanes[usize::from(shard.0)];
        work(lane, &mut cx);
        self.deadline = self.deadline.min(lane.deadline());
        self.probing |= lane.has_probe();
    }

    /// Writes what the lanes have to send: neighbours that carry the same message go together.
    fn flush(&mut self, now: Instant) {
        let PeerOut { config, shard, inc, peer, connected, lanes, ready, parcel, parcels, .. } = self;
        let Some(peer) = peer.filter(|_| *connected) else {
            ready.clear();
            return;
        };
        let item =
            |ready: &Ready| lanes[usize::from(ready.shard.0)].item(ready.seq).expect("it was made ready just before");
        for bundle in ready.chunk_by(|one, other| same(&item(one).publication, &item(other).publication)) {
            put_bundle_head((*shard, *inc, peer), bundle.len(), parcel.room());
            for ready in bundle {
                parcel.is_for(ready.shard);
                put_item(ready.shard, ready.seq, &item(ready).what, parcel.room());
            }
            let Item { publication, expires, .. } = item(&bundle[0]);
            put_message(publication.as_ref(), remaining(now, *expires, config), parcel.room());
            if parcel.is_full() {
                parcels.push(parcel.take());
            }
        }
        ready.clear();
        if !core::mem::take(&mut self.probing) {
            return;
        }
        for (to, lane) in self.lanes.iter_mut().enumerate() {
            let Some((first, next, settled, opening)) = lane.take_probe() else { continue };
            let (from, to) = (self.shard, ShardId(to as u16));
            let probe = Probe { from, to, from_inc: self.inc, to_inc: peer, first, next, settled, opening };
            self.parcel.push(&Frame::Probe(probe));
        }
    }
}

fn same(one: &Option<Publication>, other: &Option<Publication>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.is_same(other),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// Time until `expires`, stretched so that no clock of the cluster lets it end early. In whole milliseconds, rounded down:
/// without the stretch it is never more than it was.
fn remaining(now: Instant, expires: Instant, config: &Config) -> Option<Duration> {
    if expires == Instant::NEVER {
        return None;
    }
    let left = (expires - now).as_nanos();
    let stretched = left + left * u128::from(config.expiry_stretch_ppm) / 1_000_000;
    let millis = u64::try_from(stretched / 1_000_000).unwrap_or(u64::MAX);
    Some(Duration::from_millis(millis))
}
