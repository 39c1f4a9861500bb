//! The node's part in the group that agrees on retained messages, and what is around it: which group that is, what shards and
//! operators have asked it for, and what comes over from the group before.
//!
//! A node that was let in anew knows nothing of what it knew before, so that it is another one to the group: its *seat* is made
//! of its id and of when it became a member. A group that has lost its quorum for good is followed by another one, of the next
//! generation (docs/adr/0014).

mod carry;
mod quorum;

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use newtmq_base::{Incarnation, Instant, InvalidField, NodeId, RequestId, Rng, ShardId, planted};
use newtmq_cluster::meta::{self, ClusterId};
use newtmq_cluster::retained::{
    self, Estate, Identity, Input, Output, PendingChange, Refusal, Retained, Stored, Written,
};

pub(super) use quorum::Standing;

use carry::{Carried, brought};

use super::joint::{Cluster, Cx};
use super::streams;
use crate::cluster::ClusterEvent;
use crate::control::{ControlOutput, FromControl, RetainedNews, RetainedOutcome};
use crate::shard::{Kept, shard_of};

/// As whom a node takes part in which group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seat {
    pub(super) cluster: ClusterId,
    pub(super) generation: u64,
    /// Index of the meta group's entry by which the node became a member.
    pub(super) joined: u64,
}

impl Seat {
    /// To messages and disks each group is a cluster of its own.
    fn group(self) -> ClusterId {
        ClusterId(self.cluster.0 ^ self.generation.wrapping_mul(MIX))
    }

    /// Whether the node was that in the same cluster at an earlier time.
    fn is_before(self, other: Seat) -> bool {
        self.cluster == other.cluster && (self.generation < other.generation || self.joined < other.joined)
    }

    /// Index with which the group begins: above all of the groups before.
    fn base(self) -> u64 {
        if self.generation == 0 { 1 } else { self.generation << GENERATION_BITS }
    }
}

/// A node, as the group knows it.
pub(super) fn seated(node: NodeId, joined: u64) -> NodeId {
    NodeId((node.0 ^ joined.wrapping_mul(MIX).rotate_left(32)).max(1))
}

/// Who is told what became of a write.
#[derive(Debug)]
enum Asker {
    Shard(ShardId, u64),
    /// The same; it is too large, so that a deletion is written for it.
    Large(ShardId, u64),
    /// It came from another group, or from before there was one.
    Carried(Carried),
    /// The time of what a topic had as of this index has passed.
    Expired(Box<str>, u64),
}

#[derive(Debug)]
pub(super) struct Shelf {
    config: retained::Config,
    /// There are others to agree with, or were: shards keep nothing by themselves.
    shares: bool,
    /// `retained.max_retained_messages`; 0 for none.
    limit: usize,
    pub(super) part: Retained,
    /// None while the node is in no cluster: what is written is kept here until it is in one.
    pub(super) seat: Option<Seat>,
    /// Counts the parts that there were: what the disk says of an earlier one counts no more.
    pub(super) turn: u64,
    pub(super) out: Vec<Output>,
    /// By seat.
    nodes: BTreeMap<NodeId, NodeId>,
    requests: BTreeMap<RequestId, Asker>,
    numbers: u64,
    /// Topics for which something is kept here alone.
    kept: BTreeSet<Box<str>>,
    expiry: BTreeSet<(Instant, Box<str>)>,
    expires: BTreeMap<Box<str>, Instant>,
    /// Of the group before.
    before: Option<(Seat, Estate)>,
    /// The same, and of others before it, to be compared with this one's when that is known.
    compared: Vec<Estate>,
    carried: VecDeque<Carried>,
    /// What is asked of the group for those.
    carrying: usize,
    /// Not before this time: it has refused some, and would again at once.
    carry_at: Instant,
    /// The highest index that others have acknowledged, as they have said.
    pub(super) need: u64,
    waits: u64,
    told: (u64, bool),
    led_at: Instant,
    next_look: Instant,
    standings: BTreeMap<NodeId, (Instant, Standing)>,
}

impl Shelf {
    pub(super) fn new(
        (meta, limit): (&meta::Config, usize),
        me: (NodeId, Incarnation, bool),
        (seat, stored): (Option<Seat>, Stored),
        rng: Rng,
        now: Instant,
    ) -> Result<Shelf, InvalidField> {
        // The log of the cluster is made shorter as a whole.
        let config = retained::Config {
            tick: meta.tick,
            election_ticks: meta.election_ticks,
            heartbeat_ticks: meta.heartbeat_ticks,
            sweep_bytes: u64::MAX,
            ..retained::Config::default()
        };
        let part = Retained::new(config.clone(), identity(me, seat), stored, rng, now)?;
        Ok(Shelf {
            config,
            shares: false,
            limit,
            part,
            seat,
            turn: 0,
            out: Vec::new(),
            nodes: BTreeMap::new(),
            requests: BTreeMap::new(),
            numbers: 0,
            kept: BTreeSet::new(),
            expiry: BTreeSet::new(),
            expires: BTreeMap::new(),
            before: None,
            compared: Vec::new(),
            carried: VecDeque::new(),
            carrying: 0,
            carry_at: now,
            need: 0,
            waits: 0,
            told: (0, false),
            led_at: now,
            next_look: now,
            standings: BTreeMap::new(),
        })
    }

    fn request(&mut self, asker: Asker) -> RequestId {
        self.numbers += 1;
        self.requests.insert(RequestId(self.numbers), asker);
        RequestId(self.numbers)
    }

    /// Whether nothing is on its way.
    fn is_settled(&self) -> bool {
        self.requests.is_empty() && self.carried.is_empty() && self.compared.is_empty() && self.part.is_idle()
    }

    fn expire_at(&mut self, topic: &str, at: Option<Instant>) {
        if let Some(before) = self.expires.remove(topic) {
            self.expiry.remove(&(before, topic.into()));
        }
        if let Some(at) = at {
            self.expires.insert(topic.into(), at);
            self.expiry.insert((at, topic.into()));
        }
    }
}

impl Cluster {
    /// The node's part in the group that agrees on retained messages.
    #[must_use]
    pub fn retained(&self) -> &Retained {
        &self.shelf.part
    }

    /// Of which generation that group is, if the node is in one.
    #[must_use]
    pub fn retained_generation(&self) -> Option<u64> {
        self.shelf.seat.map(|seat| seat.generation)
    }

    /// Whether nothing of retained messages waits for an answer, or for a leader.
    #[must_use]
    pub fn is_retained_settled(&self) -> bool {
        self.shelf.is_settled()
    }

    /// A shard wants a message to be retained.
    pub(crate) fn retain(
        &mut self,
        cx: &mut Cx<'_>,
        (shard, number): (ShardId, u64),
        topic: Box<str>,
        message: Option<Bytes>,
    ) {
        let shelf = &mut self.shelf;
        let bytes = topic.len() + message.as_ref().map_or(0, Bytes::len);
        let is_new = || shelf.part.item(&topic).is_none_or(|(_, message)| message.is_none());
        let is_full = shelf.limit > 0 && shelf.part.view().messages >= shelf.limit && is_new();
        if message.is_some() && is_full {
            return answer(cx, shard, number, RetainedOutcome::NotRetained);
        }
        let is_large = bytes > shelf.config.message_bytes_max;
        let asker = if is_large { Asker::Large(shard, number) } else { Asker::Shard(shard, number) };
        let request = shelf.request(asker);
        let message = message.filter(|_| !is_large);
        let input = Input::Write { request, topic, message, keep: true, seen: None };
        shelf.part.handle(cx.now, input, &mut shelf.out);
    }

    /// A shard had this before there was a group.
    pub(crate) fn bring(&mut self, topic: Box<str>, message: Bytes) {
        self.shelf.carried.push_back(Carried { topic, message: Some(message), seen: 0 });
    }

    /// Up to which index a new subscription has to wait.
    pub(crate) fn require_retained(&mut self, now: Instant) -> u64 {
        let shelf = &mut self.shelf;
        let barrier = if planted!(AgreedBarrierIgnored) { 0 } else { shelf.need };
        let need = barrier.max(shelf.part.barrier());
        if need > shelf.waits.max(shelf.told.0) {
            shelf.waits = need;
            let input = Input::WaitFor { request: RequestId(WAITS + need), index: need };
            shelf.part.handle(now, input, &mut shelf.out);
        }
        need
    }

    /// What was stored of the group goes to the shards.
    pub(super) fn begin_retained(&mut self, cx: &mut Cx<'_>) {
        let view = self.shelf.part.view();
        if view.messages > 0 || view.tombstones > 0 {
            self.share(cx);
        }
        let items: Vec<_> = self
            .shelf
            .part
            .messages(None)
            .map(|(topic, index, message)| (index, topic.into(), message.clone()))
            .collect();
        for (index, topic, message) in items {
            self.tell_item(cx, index, topic, Some(message));
        }
        self.shelf.need = self.shelf.part.barrier();
        let need = self.require_retained(cx.now);
        tell_all(cx, self.shards, RetainedNews::Known { need, upto: 0, alone: false });
    }

    /// Compares the group in which the node takes part with the one in which it should.
    pub(super) fn follow_retained(&mut self, cx: &mut Cx<'_>) {
        let state = self.meta.view().state;
        let own = state.members().get(&self.node).filter(|_| !self.gone);
        let (cluster, generation) = (state.cluster(), state.retained().generation);
        let wanted = own.map(|own| Seat { cluster, generation, joined: own.joined });
        // After a start the state of the meta group may be behind what this node was in.
        let is_behind = |wanted: Seat| self.shelf.seat.is_some_and(|seat| wanted.is_before(seat));
        let is_new =
            wanted != self.shelf.seat && wanted.is_some_and(|wanted| !is_behind(wanted) || planted!(RetainedGoesBack));
        if is_new || self.gone && self.shelf.seat.is_some() {
            self.change_group(cx, wanted);
        }
        self.found_again(cx.now);
        if self.shelf.seat.is_some() && self.meta.view().state.members().len() > 1 {
            self.share(cx);
        }
        let state = self.meta.view().state;
        let seat = |member: &meta::Member| seated(member.node, member.joined);
        if self.shelf.seat.is_some_and(|of| of.cluster == state.cluster()) && state.index() > 0 {
            let members: BTreeSet<NodeId> = state.members().values().map(seat).collect();
            let voters = state.voters().iter().filter_map(|node| state.members().get(node)).map(seat).collect();
            self.shelf.nodes.extend(state.members().values().map(|member| (seat(member), member.node)));
            let input = Input::Members { index: state.index(), members, voters };
            self.shelf.part.handle(cx.now, input, &mut self.shelf.out);
        }
    }

    /// What founded the group was not on the disk when the node lost its power: nobody has heard of it.
    fn found_again(&mut self, now: Instant) {
        let founds = self.meta.view().state.founds_retained(self.node);
        let shelf = &mut self.shelf;
        let Some(seat) = shelf.seat.filter(|_| founds && shelf.part.applied() == 0) else { return };
        let input = Input::Found { index: seat.base(), estate: Estate::default() };
        shelf.part.handle(now, input, &mut shelf.out);
    }

    /// A node alone keeps what is retained where its sessions are.
    fn share(&mut self, cx: &mut Cx<'_>) {
        if !core::mem::replace(&mut self.shelf.shares, true) {
            tell_all(cx, self.shards, RetainedNews::Share);
        }
    }

    fn change_group(&mut self, cx: &mut Cx<'_>, seat: Option<Seat>) {
        let rng = super::joint::fork(&mut self.rng);
        let me = (self.node, self.incarnation, self.config.witness);
        let shelf = &mut self.shelf;
        let config = shelf.config.clone();
        // Nothing is read from a disk, so that nothing can be wrong with it.
        let Ok(part) = Retained::new(config, identity(me, seat), Stored::default(), rng, cx.now) else { return };
        let (old, left) = (shelf.seat, core::mem::replace(&mut shelf.part, part).into_left());
        shelf.seat = seat;
        shelf.turn += 1;
        // What has been answered is not among what is left.
        shelf.out.retain(|output| matches!(output, Output::Answer { .. }) && !planted!(AnswersForgotten));
        shelf.nodes.clear();
        shelf.standings.clear();
        (shelf.waits, shelf.told, shelf.led_at) = (0, (0, false), cx.now);
        for topic in core::mem::take(&mut shelf.kept) {
            shelf.expire_at(&topic, None);
        }
        let is_same_cluster = old.zip(seat).is_some_and(|(old, new)| old.cluster == new.cluster);
        shelf.carried.extend(left.kept.into_iter().map(|(topic, message, seen)| Carried { topic, message, seen }));
        if !is_same_cluster {
            shelf.leave_cluster();
        }
        if let Some(old) = old
            && !planted!(EstateLost)
        {
            shelf.before = Some((old, left.estate));
        }
        tell_all(cx, self.shards, RetainedNews::Clear);
        self.shelf.expiry.clear();
        self.shelf.expires.clear();
        if let Some(seat) = seat {
            if is_same_cluster && old.is_some_and(|old| old.generation < seat.generation) {
                cx.event(ClusterEvent::RetainedRenewed { generation: seat.generation });
            }
            self.begin_group(cx, seat);
        }
        self.ask_again(cx, left.asked, old.is_none());
    }

    /// What waits for an answer that the group before does not give any more.
    fn ask_again(&mut self, cx: &mut Cx<'_>, asked: Vec<(RequestId, Box<str>, Option<Bytes>, bool)>, is_unsaid: bool) {
        let shelf = &mut self.shelf;
        for (request, topic, message, keep) in asked {
            if is_unsaid {
                let input = Input::Write { request, topic, message, keep, seen: None };
                shelf.part.handle(cx.now, input, &mut shelf.out);
            } else {
                shelf.out.push(Output::Answer { request, outcome: Err(Refusal::Timeout) });
            }
        }
    }

    /// The node has come into a group, and knows nothing of it.
    fn begin_group(&mut self, cx: &mut Cx<'_>, seat: Seat) {
        let is_founder = self.meta.view().state.founds_retained(self.node);
        let shelf = &mut self.shelf;
        // Who reads now waits until something of the group is known here.
        shelf.need = seat.base();
        tell_all(cx, self.shards, RetainedNews::Known { need: seat.base(), upto: 0, alone: false });
        let before = shelf.before.take();
        let is_same_cluster = before.as_ref().is_some_and(|(old, _)| old.cluster == seat.cluster);
        let is_same_group =
            is_same_cluster && before.as_ref().is_some_and(|(old, _)| old.generation == seat.generation);
        let estate = before.map(|(_, estate)| estate).unwrap_or_default();
        if is_founder {
            let estate = if is_same_cluster { estate } else { estate.renumbered(seat.base()) };
            let items: Vec<(Box<str>, u64, Bytes)> = estate
                .iter()
                .filter_map(|(topic, index, message)| Some((topic.into(), index, message?.clone())))
                .collect();
            shelf.part.handle(cx.now, Input::Found { index: seat.base(), estate }, &mut shelf.out);
            for (topic, index, message) in items {
                self.tell_item(cx, index, topic, Some(message));
            }
        } else if is_same_cluster && !is_same_group {
            shelf.compared.push(estate);
        } else if !is_same_cluster {
            shelf.carried.extend(brought(&estate));
        }
    }

    /// The group has something else for a topic.
    fn tell_item(&mut self, cx: &mut Cx<'_>, index: u64, topic: Box<str>, message: Option<Bytes>) {
        let lives = message.as_deref().and_then(|message| Kept::decode(message).ok()).map_or(0, |kept| kept.lives);
        let expires = if lives == 0 { Instant::NEVER } else { cx.now + Duration::from_nanos(lives) };
        self.shelf.expire_at(&topic, Some(expires).filter(|_| lives > 0));
        let to = ShardId(shard_of(self.node_seed, self.shards, &topic));
        let news = Arc::new(RetainedNews::Set { index, topic, message, expires });
        cx.out.push(ControlOutput::Shard { to, message: FromControl::Retained(news) });
    }

    pub(super) fn on_retained_output(&mut self, cx: &mut Cx<'_>, output: Output) {
        match output {
            Output::Send { to, bytes, bulk } => {
                let (Some(node), Some(seat)) = (self.shelf.nodes.get(&to).copied(), self.shelf.seat) else { return };
                let bytes = streams::tagged_retained(seat, false, &bytes);
                let bulk = bulk || bytes.len() > LARGE_BYTES;
                self.say(cx.now, node, bytes, bulk);
            }
            Output::Persist(persist) => match self.shelf.seat {
                Some(seat) => {
                    let store = self.disk.retained(seat, self.shelf.turn, &persist);
                    cx.ask(store);
                }
                None => {
                    let number = persist.number;
                    self.shelf.part.handle(cx.now, Input::Persisted { number }, &mut self.shelf.out);
                }
            },
            Output::Apply { index, topic, message } => {
                if !self.shelf.kept.contains(&topic) {
                    self.tell_item(cx, index, topic, message);
                }
            }
            Output::Answer { request, outcome } => self.on_retained_answer(cx, request, outcome),
            Output::Pending { topic, change: PendingChange::Kept(message) } => {
                self.shelf.kept.insert(topic.clone());
                let index = self.shelf.part.applied().max(1);
                self.tell_item(cx, index, topic, message);
            }
            Output::Pending { topic, change: PendingChange::Played | PendingChange::Dropped } => {
                self.shelf.kept.remove(&topic);
                let item = self.shelf.part.item(&topic);
                let (index, message) = item.map_or((0, None), |(index, message)| (index, message.cloned()));
                self.tell_item(cx, index, topic, message);
            }
            Output::Reached { request, .. } => {
                let upto = request.0.saturating_sub(WAITS);
                self.shelf.told.0 = self.shelf.told.0.max(upto);
                tell_all(cx, self.shards, RetainedNews::Known { need: 0, upto, alone: self.shelf.told.1 });
            }
            Output::Leader { .. } => {}
            Output::Stopped(stopped) => cx.event(ClusterEvent::Stopped(stopped)),
        }
    }

    fn on_retained_answer(&mut self, cx: &mut Cx<'_>, request: RequestId, outcome: Result<Written, Refusal>) {
        let known = self.shelf.part.applied().max(1);
        let index = outcome.map(|written| match written {
            Written::Committed { index } => index,
            Written::Pending => known,
        });
        match self.shelf.requests.remove(&request) {
            Some(Asker::Shard(shard, number)) => {
                answer(cx, shard, number, index.map_or(RetainedOutcome::Refused, RetainedOutcome::At));
            }
            Some(Asker::Large(shard, number)) => {
                answer(cx, shard, number, index.map_or(RetainedOutcome::Refused, |_| RetainedOutcome::NotRetained));
            }
            Some(Asker::Carried(carried)) => {
                self.shelf.carrying -= 1;
                let is_lost = matches!(outcome, Err(Refusal::TooLarge | Refusal::Stopped));
                if outcome.is_err() && !is_lost && !planted!(CarriedOnce) {
                    self.shelf.carried.push_back(carried);
                    self.shelf.carry_at = cx.now + LOOK;
                }
            }
            Some(Asker::Expired(topic, index)) if outcome.is_err() => {
                // Unless it is another one by now.
                if self.shelf.part.item(&topic).is_some_and(|(known, _)| known == index) {
                    self.shelf.expire_at(&topic, Some(cx.now + LOOK));
                }
            }
            Some(Asker::Expired(..)) | None => {}
        }
    }

    /// Everything that was to be said of the group has been.
    pub(super) fn look_at_retained(&mut self, cx: &mut Cx<'_>) {
        self.compare_estate();
        self.carry(cx.now);
        let shelf = &self.shelf;
        let upto = shelf.part.known();
        let is_late = cx.now.saturating_since(shelf.led_at) >= shelf.config.request_timeout;
        let alone = is_late && shelf.part.leader().is_none();
        if upto > self.shelf.told.0 || alone != self.shelf.told.1 {
            self.shelf.told = (upto.max(self.shelf.told.0), alone);
            tell_all(cx, self.shards, RetainedNews::Known { need: 0, upto, alone });
        }
    }

    pub(super) fn tick_retained(&mut self, cx: &mut Cx<'_>) {
        let shelf = &mut self.shelf;
        if shelf.part.next_deadline().is_some_and(|due| due <= cx.now) {
            shelf.part.handle(cx.now, Input::Tick, &mut shelf.out);
        }
        if shelf.part.leader().is_some() {
            shelf.led_at = cx.now;
        }
        if shelf.part.view().is_leader && !planted!(AgreedNeverExpires) {
            self.expire(cx.now);
        }
        if self.shelf.next_look <= cx.now {
            self.shelf.next_look = cx.now + LOOK;
            self.look_for_quorum(cx);
        }
    }

    /// The leader deletes what has expired, unless it is another one by now.
    fn expire(&mut self, now: Instant) {
        let shelf = &mut self.shelf;
        for _ in 0..EXPIRE_STEP {
            if shelf.expiry.first().is_none_or(|(at, _)| *at > now) {
                return;
            }
            let Some((_, topic)) = shelf.expiry.pop_first() else { return };
            shelf.expires.remove(&topic);
            let Some((index, Some(_))) = shelf.part.item(&topic) else { continue };
            let request = shelf.request(Asker::Expired(topic.clone(), index));
            let input = Input::Write { request, topic, message: None, keep: false, seen: Some(index) };
            shelf.part.handle(now, input, &mut shelf.out);
        }
    }

    /// A member has said something about a group.
    pub(super) fn on_retained_message(&mut self, cx: &mut Cx<'_>, from: NodeId, of: Seat, message: (bool, &[u8])) {
        let is_ours = |seat: Seat| (seat.cluster, seat.generation) == (of.cluster, of.generation);
        if !self.shelf.seat.is_some_and(is_ours) {
            self.counts.foreign += 1;
            return;
        }
        let (is_standing, bytes) = message;
        if is_standing {
            match streams::take_standing(bytes) {
                Ok(standing) => _ = self.shelf.standings.insert(from, (cx.now, standing)),
                Err(_) => self.counts.malformed += 1,
            }
            return;
        }
        let seat = seated(from, of.joined);
        self.shelf.nodes.insert(seat, from);
        let input = Input::Message { from: seat, bytes };
        self.shelf.part.handle(cx.now, input, &mut self.shelf.out);
    }
}

fn identity((node, inc, witness): (NodeId, Incarnation, bool), seat: Option<Seat>) -> Identity {
    let (joined, cluster) = seat.map_or((0, ClusterId(0)), |seat| (seat.joined, seat.group()));
    Identity { node: seated(node, joined), inc, cluster, witness }
}

fn answer(cx: &mut Cx<'_>, to: ShardId, number: u64, outcome: RetainedOutcome) {
    let news = Arc::new(RetainedNews::Answer { number, outcome });
    cx.out.push(ControlOutput::Shard { to, message: FromControl::Retained(news) });
}

fn tell_all(cx: &mut Cx<'_>, shards: u16, news: RetainedNews) {
    cx.tell(shards, &FromControl::Retained(Arc::new(news)));
}

/// An odd number that looks like chance.
const MIX: u64 = 0x9E37_79B9_7F4A_7C15;
/// So many entries a group may have, as a power of two.
const GENERATION_BITS: u32 = 40;
/// Requests from here on wait for an index.
const WAITS: u64 = 1 << 60;
/// Messages above this go in pieces.
const LARGE_BYTES: usize = 300 << 10;
/// How often a node looks whether the group can have a leader.
const LOOK: Duration = Duration::from_secs(1);
/// Most expired messages that one Tick deletes.
const EXPIRE_STEP: usize = 256;
