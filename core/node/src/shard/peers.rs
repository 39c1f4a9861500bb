//! The lanes from this shard to the shards of other nodes: which slot of the table of subscriptions is which node's, what
//! is sent there, and who waits for the answers. What comes from there is in [`super::inward`].

use std::collections::{BTreeMap, VecDeque};

use newtmq_base::{ConnId, Incarnation, Instant, NodeId, ShardId};
use newtmq_cluster::lane::{
    self, Guid, PeerOut, Post, Press, Publication, Refusal, Settled, Target as LaneTarget, Ticket, What,
};
use newtmq_cluster::owned::Class;
use newtmq_topic::PlaceId;

use super::departure::Held;
use super::hints::{Hint, Hints};
use super::inward::Inward;
use super::tickets::Tickets;
use super::{Shard, hints};
use crate::conn::Target;
use crate::control::PeerNews;
use crate::io::{Boot, Outbox, Output};
use crate::place::{class_of, shard_of, slot_of};

/// Most other nodes that a shard knows at a time: slots are 1 to 255.
const PEERS_MAX: usize = 255;
/// What a sending end has asked for: room for so much stays reserved.
const OUTPUTS_KEPT: usize = 256;

/// What a shard has of other nodes.
#[derive(Debug)]
pub(crate) struct Peers {
    pub(super) config: lane::Config,
    node: NodeId,
    inc: Incarnation,
    shard: ShardId,
    /// By slot, from 1.
    pub(super) slots: Vec<Peer>,
    by_node: BTreeMap<NodeId, u8>,
    pub(super) tickets: Tickets,
    /// Slots whose sending ends have asked for something.
    news: Vec<u8>,
    /// Oldest first.
    pub(super) held: VecDeque<Held>,
    /// Markers behind those: the batch, whose slot, which shard there, and what.
    pub(super) markers: VecDeque<(u64, u8, ShardId, Guid)>,
    pub(super) receipts: Vec<(NodeId, lane::Receipt)>,
    pub(super) press: Press,
    /// A buffer of [`Shard::forward_far`].
    pub(super) targets: Vec<LaneTarget>,
    /// A sending end has frames that have not left.
    pub(super) has_frames: bool,
    /// The driver was told that something is to be taken.
    pub(super) is_told: bool,
    pub(super) inward: Inward,
    pub(super) hints: Hints,
    /// Number of the last guid.
    guid: u64,
}

/// Another node.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) out: PeerOut,
    /// What its sending end has asked for and has not got.
    outputs: Vec<lane::Output>,
    /// Publishers that wait for it.
    waiters: Vec<ConnId>,
    /// It is no member any more.
    pub(super) forgotten: bool,
}

impl Peers {
    pub(crate) fn new(config: &lane::Config, boot: &Boot) -> Peers {
        Peers {
            config: config.clone(),
            node: boot.node,
            inc: boot.incarnation,
            shard: boot.shard,
            slots: Vec::new(),
            by_node: BTreeMap::new(),
            tickets: Tickets::default(),
            news: Vec::new(),
            held: VecDeque::new(),
            markers: VecDeque::new(),
            receipts: Vec::new(),
            press: Press::default(),
            targets: Vec::new(),
            has_frames: false,
            is_told: false,
            inward: Inward::new(config, boot.shard, boot.incarnation),
            hints: Hints::default(),
            guid: 0,
        }
    }

    /// Of this start of this node.
    pub(super) fn incarnation(&self) -> newtmq_base::Incarnation {
        self.inc
    }

    /// The slot of a node; a new one if it has none. None if there are too many.
    pub(crate) fn slot_of(&mut self, node: NodeId) -> Option<u8> {
        if let Some(slot) = self.by_node.get(&node) {
            return Some(*slot);
        }
        let out = PeerOut::new(self.config.clone(), self.shard, self.inc, node);
        let peer = Peer { out, outputs: Vec::new(), waiters: Vec::new(), forgotten: false };
        let slot = if self.slots.len() < PEERS_MAX {
            self.slots.push(peer);
            self.slots.len()
        } else {
            // Its routes went long ago.
            let at = self.slots.iter().position(|peer| peer.forgotten)?;
            self.by_node.remove(&self.slots[at].out.node());
            self.slots[at] = peer;
            at + 1
        };
        let slot = u8::try_from(slot).expect("slots are few");
        self.by_node.insert(node, slot);
        Some(slot)
    }

    /// Puts a marker behind all that goes to a place.
    pub(super) fn mark(&mut self, now: Instant, slot: u8, shard: ShardId, marker: Guid) {
        if !self.hints.mark((slot, shard), marker) {
            self.call(slot, |peer, outputs| peer.release(now, marker, &[shard], outputs));
        }
    }

    pub(super) fn peer(&mut self, slot: u8) -> &mut Peer {
        &mut self.slots[usize::from(slot) - 1]
    }

    /// Calls a sending end. What it asks for is done at the end of the shard's call.
    pub(super) fn call<R>(&mut self, slot: u8, call: impl FnOnce(&mut PeerOut, &mut Vec<lane::Output>) -> R) -> R {
        let Peers { slots, has_frames, .. } = self;
        let Peer { out, outputs, .. } = &mut slots[usize::from(slot) - 1];
        let asked = !outputs.is_empty();
        let result = call(out, outputs);
        *has_frames |= out.has_frames();
        if !asked && !outputs.is_empty() {
            self.news.push(slot);
        }
        result
    }

    /// The room for what a sending end asks for is used again.
    fn keep(&mut self, slot: u8, mut room: Vec<lane::Output>) {
        let outputs = &mut self.peer(slot).outputs;
        if outputs.is_empty() {
            room.shrink_to(OUTPUTS_KEPT);
            *outputs = room;
        }
    }

    /// A name that no other message of the cluster has.
    pub(super) fn fresh_guid(&mut self) -> Guid {
        self.guid += 1;
        // 2^16 starts, 2^7 shards and 2^41 messages; what an earlier start has named is resolved long before.
        let number = (self.inc.0 & 0xFFFF) << 48 | u64::from(self.shard.0) << 41 | self.guid & ((1 << 41) - 1);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        bytes[8..].copy_from_slice(&self.node.0.to_le_bytes());
        Guid(bytes)
    }

    /// When a sending end wants a Tick.
    pub(crate) fn next_deadline(&self) -> Instant {
        let due = self.slots.iter().map(|peer| peer.out.next_deadline());
        due.chain([self.hints.retry_at()]).min().unwrap_or(Instant::NEVER)
    }

    /// For checks: each node's sending end.
    pub(crate) fn outs(&self) -> impl Iterator<Item = &PeerOut> {
        self.slots.iter().map(|peer| &peer.out)
    }

    /// What is under way between this shard and other nodes, with names: nothing at rest.
    pub(crate) fn under_way(&self) -> [(&'static str, usize); 7] {
        let (waiting, unstored) = self.inward.waiting();
        let lanes = || self.slots.iter().flat_map(|peer| peer.out.view());
        [
            ("messages whose answers of other nodes are missing", self.tickets.len()),
            ("messages for other nodes that wait for the store", self.held.len()),
            ("messages for other nodes that are not stored there", lanes().map(|lane| lane.unstored).sum()),
            ("messages for other nodes that wait", lanes().map(|lane| lane.waiting).sum()),
            ("messages that were kept for nodes that are back", self.kept_for_present()),
            ("messages of other nodes that wait", waiting),
            ("messages of other nodes that are not stored", unstored),
        ]
    }

    pub(crate) fn inward(&self) -> &Inward {
        &self.inward
    }

    /// Messages that wait although their nodes are there.
    fn kept_for_present(&self) -> usize {
        let slots = (1..).zip(&self.slots);
        slots.filter(|(_, peer)| peer.out.is_up()).map(|(slot, _)| self.hints.waiting_for(slot)).sum()
    }

    /// Nodes from which something may be under way.
    pub(super) fn senders(&self) -> impl Iterator<Item = NodeId> {
        self.slots.iter().filter(|peer| peer.out.is_up() && !peer.forgotten).map(|peer| peer.out.node())
    }

    pub(crate) fn known_slot(&self, node: NodeId) -> Option<u8> {
        self.by_node.get(&node).copied()
    }

    /// Publishers that wait for other nodes.
    pub(crate) fn waiters(&self) -> usize {
        self.slots.iter().map(|peer| peer.waiters.len()).sum()
    }

    pub(crate) fn stop_waiting(&mut self, slot: u8, publisher: ConnId) {
        self.peer(slot).waiters.retain(|waiter| *waiter != publisher);
    }

    pub(crate) fn add_waiter(&mut self, slot: u8, publisher: ConnId) {
        self.peer(slot).waiters.push(publisher);
    }
}

impl Shard {
    /// How another node is reached.
    pub(crate) fn on_peer(&mut self, now: Instant, node: NodeId, news: PeerNews) {
        let Some(peers) = &mut self.peers else { return };
        let Some(slot) = peers.slot_of(node) else { return };
        match news {
            PeerNews::Connected(inc) => {
                self.claims_of.reunited_until = now + super::late::REMEMBERS_FOR;
                peers.peer(slot).forgotten = false;
                if peers.call(slot, |peer, outputs| peer.connected(now, inc, outputs)) {
                    peers.inward.connected(node, inc);
                }
            }
            PeerNews::Disconnected => peers.peer(slot).out.disconnected(),
            PeerNews::Down => peers.call(slot, |peer, outputs| peer.down(now, outputs)),
            PeerNews::Forgotten => {
                peers.call(slot, |peer, outputs| peer.down(now, outputs));
                peers.peer(slot).forgotten = true;
                peers.inward.forget(node);
                self.forget_hints(slot);
            }
        }
    }

    /// Time has passed.
    pub(crate) fn tick_peers(&mut self, now: Instant) {
        let Some(peers) = &mut self.peers else { return };
        for slot in 1..=peers.slots.len() {
            let slot = u8::try_from(slot).expect("slots are few");
            if peers.peer(slot).out.next_deadline() <= now {
                peers.call(slot, |peer, outputs| peer.tick(now, outputs));
            }
        }
        self.retry_hints(now);
    }

    /// The end of a call: what the sending ends have asked for is done, and the driver is told if frames are to leave.
    pub(crate) fn finish_peers(&mut self, now: Instant, out: &mut Outbox) {
        while let Some(peers) = &mut self.peers
            && let Some(slot) = peers.news.pop()
        {
            let mut outputs = core::mem::take(&mut peers.peer(slot).outputs);
            for output in outputs.drain(..) {
                self.on_lane_output(now, slot, output, out);
            }
            if let Some(peers) = &mut self.peers {
                peers.keep(slot, outputs);
            }
        }
        let Some(peers) = &mut self.peers else { return };
        if !peers.is_told && peers.has_parcels() {
            peers.is_told = true;
            out.push(Output::Lanes);
        }
    }

    fn on_lane_output(&mut self, now: Instant, slot: u8, output: lane::Output, out: &mut Outbox) {
        let peers = self.peers.as_mut().expect("it has just said something");
        match output {
            lane::Output::Acked { ticket } if hints::is_hint(ticket) => self.hint_came(ticket),
            lane::Output::Refused { ticket, refusal } if hints::is_hint(ticket) => {
                self.hint_refused(now, ticket, refusal);
            }
            lane::Output::Acked { ticket } => self.settle(now, ticket, Settled::Stored, out),
            lane::Output::Refused { ticket, refusal } => self.settle(now, ticket, Settled::Refused(refusal), out),
            lane::Output::Overdue { ticket } => self.settle(now, ticket, Settled::Overdue, out),
            lane::Output::Lost { ticket } => {
                self.ledger.lost_down += 1;
                self.settle(now, ticket, Settled::Lost, out);
            }
            lane::Output::Hint { ticket, shard, seq, what, publication, expires } => {
                let hint = Hint::new(what, publication, expires, seq);
                let is_kept = self.keep_hint(now, (slot, shard), hint);
                let settled = if is_kept { Settled::Stored } else { Settled::Refused(Refusal::Full) };
                self.settle(now, ticket, settled, out);
            }
            lane::Output::Kept { ticket, seq } => peers.hints.kept(ticket, seq),
            lane::Output::Redispatch { ticket, what, why, publication, expires, from_log: true } => {
                let ticket = self.hint_comes_back(slot, ticket, &what);
                self.redispatch(now, ticket, &what, why, publication, expires, out);
            }
            lane::Output::Redispatch { ticket, what, why, publication, expires, .. } => {
                self.redispatch(now, ticket, &what, why, publication, expires, out);
            }
            lane::Output::Opened { shard, stored, refused } => {
                self.settle_hints((slot, shard), stored, &refused);
                self.hand_over(now, (slot, shard));
            }
            lane::Output::Room { shard } => {
                for publisher in core::mem::take(&mut peers.peer(slot).waiters) {
                    self.stop_waiting_for(now, publisher, Target::Peer(slot), out);
                }
                self.hand_over(now, (slot, shard));
            }
        }
    }

    /// An answer of another node.
    pub(super) fn settle(&mut self, now: Instant, ticket: Ticket, settled: Settled, out: &mut Outbox) {
        let gate = self.peers.as_mut().and_then(|peers| peers.tickets.answered(ticket));
        if let Some((conn, gate)) = gate {
            self.gate_settled(now, conn, gate, settled, out);
        }
    }

    /// Sends a group's message, of which a copy came back, to another place of the group at a node.
    pub(super) fn post_back(
        &mut self,
        now: Instant,
        ticket: Ticket,
        what: &What,
        place: PlaceId,
        message: (Publication, Instant),
    ) {
        let What::Group { name, .. } = what else { return };
        let Some(peers) = &mut self.peers else { return };
        let (publication, expires) = message;
        let what = What::Group { name: name.clone(), durable: class_of(place) == Class::Durable };
        let target = LaneTarget { shard: ShardId(shard_of(place)), what };
        let (slot, packet) = (slot_of(place), publication.guid());
        let post = Post { ticket, publication, expires, from_log: false };
        let sent = peers.call(slot, |peer, outputs| peer.send(now, &post, core::slice::from_ref(&target), outputs));
        // This one's answer takes the place of the one that came.
        let gate = peers.tickets.get(ticket).and_then(|waiting| waiting.gate);
        self.count_sent(1, &sent);
        if let Some((conn, _)) = gate {
            self.note_target_of(conn, packet, slot, target);
        }
        if sent.answers == 0 {
            let peers = self.peers.as_mut().expect("it was there just before");
            let refusal = if sent.refused > 0 { Refusal::Full } else { Refusal::NoMember };
            let publication = post.publication;
            let what = What::Group { name: name.clone(), durable: class_of(place) == Class::Durable };
            let why = lane::Gone::Refused(refusal);
            let again = lane::Output::Redispatch { ticket, what, why, publication, expires, from_log: false };
            peers.peer(slot).outputs.push(again);
            peers.news.push(slot);
        }
    }
}

/// Of a name of [`Peers::fresh_guid`]: the start of a shard, and its number there.
pub(super) fn name_parts(Guid(bytes): Guid) -> ((u64, u64), u64) {
    let half = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 of 16 bytes"));
    ((half(8), half(0) >> 41), half(0) & ((1 << 41) - 1))
}
