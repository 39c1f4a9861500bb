//! Sessions that go from node to node: where a session is, what may be under way meanwhile, and what is left when nodes that could
//! not reach each other begin two sessions of one client.
//!
//! A session that goes is one session, whatever happens: Session Present says so. What comes for it while it goes is promised in its
//! number and order only if all nodes were well until the one that it has left hands on nothing more.

use core::time::Duration;

use newtmq_base::Instant;
use newtmq_mqtt::QoS;

use super::state::State;
use super::ways::CONVERGENCE;
use super::witness::Cx;
use crate::history::ConnIx;

/// Of CONNECTs that far apart at nodes that could not ask each other, either counts as the later one (docs/cluster.md).
const CLAIMS_ALIKE: Duration = Duration::from_secs(2);
/// A node that is asked what it has may be asked again after that, and it is not known which question it answers: its
/// connections' ages are as uncertain.
const ASKED_AGAIN: Duration = Duration::from_secs(1);
/// So long a node hands on what comes for a session that it has given away.
const HANDS_ON: Duration = Duration::from_secs(13);
/// What is refused sooner has not been tried: the node that has the session is down.
const NOT_TRIED: Duration = Duration::from_secs(10);
/// A session waits for the markers of nodes that answer so soon.
const MARKERS: Duration = Duration::from_secs(2);

/// A node that has given a session away has stored by then that it has gone.
const TOLD_WITHIN: Duration = Duration::from_millis(50);

/// A session goes to another node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Move {
    from: u16,
    /// CONNECT was sent; CONNACK was written.
    begun: Instant,
    ended: Instant,
}

impl State {
    /// A client connects to another node than before: its session goes there, or is asked for there.
    pub(super) fn comes_to(&mut self, id: u32, node: u16, now: Instant) {
        let known = &mut self.ids[id as usize];
        if known.node == node && known.from.is_none() {
            return;
        }
        let from = known.from.unwrap_or(known.node);
        (known.node, known.from) = (node, Some(from));
        known.moves.retain(|other| other.ended == Instant::NEVER || other.ended + HANDS_ON * 8 >= now);
        known.moves.push(Move { from, begun: now, ended: Instant::NEVER });
    }

    /// CONNECT was refused: a session that was not to be had from another node is still there.
    pub(super) fn stays_where_it_was(&mut self, conn: u32, now: Instant) {
        let c = self.conn(conn);
        let (id, soon) = (c.id, c.connect_at + NOT_TRIED >= now);
        let waits = self.ids[id as usize].live.iter().any(|other| self.conn(*other).connack.is_none());
        let known = &mut self.ids[id as usize];
        if let Some(from) = known.from.filter(|_| soon && !waits) {
            (known.node, known.from) = (from, None);
            known.moves.iter_mut().for_each(|of| of.ended = of.ended.min(now));
        }
    }

    /// CONNECT had no answer that anybody saw.
    pub(super) fn may_have_come(&mut self, conn: u32, now: Instant) {
        let (id, begun) = (self.conn(conn).id, self.conn(conn).connect_at);
        let is_split = self.ways.exist() && self.ways.was_split(back(begun, CONVERGENCE), now);
        let known = &mut self.ids[id as usize];
        known.forked |= is_split && known.from.is_some();
    }

    /// A session is served at a node, which says whether it was there. What is known of it before that is all that counts; whether
    /// it may be another one than the last.
    pub(super) fn arrives(&mut self, conn: u32, present: bool, sent_at: Instant) -> bool {
        if !self.ways.exist() {
            return false;
        }
        let c = self.conn(conn);
        let (id, begun) = (c.id, c.connect_at);
        let is_split = self.ways.was_split(back(begun, CONVERGENCE + self.limits.links), sent_at);
        let was_split = self.ways.was_split(back(begun, self.limits.one_session), sent_at);
        let node = c.node;
        let beside = is_split && !present && (self.has_first(conn) || self.has_beside(conn) || self.has_left(conn));
        // It is not one of a node that nobody reaches, as of one that has left, and such a node has none of the others': then one
        // of before was left elsewhere.
        let from = self.ids[id as usize].from;
        let is_cut_off = |node| self.ways.is_cut_off(node, begun, sent_at);
        let has_left = present && from.is_some_and(|from| is_cut_off(from) || is_cut_off(node));
        // One that waits elsewhere asks for it from here.
        let mut live = self.ids[id as usize].live.iter().map(|other| self.conn(*other));
        let awaits = live.find(|other| other.connack.is_none() && other.node != node).map(|other| other.node);
        let known = &mut self.ids[id as usize];
        let moved = known.from.take().is_some();
        known.moves.iter_mut().for_each(|of| of.ended = of.ended.min(sent_at));
        if let Some(awaits) = awaits {
            known.from = Some(node);
            known.node = if known.node == node { awaits } else { known.node };
            known.moves.push(Move { from: node, begun: sent_at, ended: Instant::NEVER });
        } else {
            known.node = node;
        }
        // Where it was begun anew it is that one; elsewhere, as long as the others have not said so, it may be the one of before.
        let is_old = was_split && known.hidden.is_some_and(|at| at != node);
        let before = known.forked || is_old || has_left;
        known.forked = was_split && (before || beside);
        known.hidden = known.hidden.filter(|_| was_split);
        if moved && is_split && !present {
            known.hidden = Some(node);
        }
        before
    }

    /// Whether a session begins beside one at another node, which hands on what it has when the nodes meet: a clean start ends it.
    fn has_first(&self, conn: u32) -> bool {
        let c = self.conn(conn);
        !c.clean && self.ids[c.id as usize].conns.iter().any(|other| self.conn(*other).node != c.node)
    }

    /// Whether another session of the client may be there with a connection that nobody has ended, and that is the later one when
    /// this one has gone.
    fn has_left(&self, conn: u32) -> bool {
        let c = self.conn(conn);
        self.ids[c.id as usize].live.iter().any(|other| self.conn(*other).node != c.node)
    }

    /// Whether another session of the client may be there with a connection that may count as the later one.
    fn has_beside(&self, conn: u32) -> bool {
        let c = self.conn(conn);
        self.ids[c.id as usize]
            .conns
            .iter()
            .any(|other| *other != conn && self.conn(*other).node != c.node && self.is_alike(conn, *other))
    }

    /// Whether of two connections that nodes begin to know of later the other one may count as the later one.
    fn is_alike(&self, conn: u32, other: u32) -> bool {
        let (c, other) = (self.conn(conn), self.conn(other));
        let alike = CLAIMS_ALIKE + ASKED_AGAIN * 2 + self.limits.late + self.limits.links;
        !other.refused && other.connect_at + alike >= c.connect_at
    }

    /// Whether a session is served by a node that was in no cluster when it was asked, or knew of no leader, while the cluster has
    /// one of the same client, from a node that is gone with its disk: which of the two began later may not be told when both meet,
    /// and if this one's client has gone by then the other one counts.
    pub(super) fn may_be_fork(&self, id: u32, conn: u32) -> bool {
        let c = self.conn(conn);
        if !self.ways.exist() || self.ways.is_led(c.node, c.connect_at) {
            return false;
        }
        self.ids[id as usize].conns.iter().filter(|other| **other != conn).any(|other| {
            let of = self.conn(*other);
            self.nodes[usize::from(of.node)].lost.is_some_and(|lost| lost >= of.connect_at)
        })
    }

    /// Whether a node that is asked for a session, and says that there is none, has asked everybody, or must know of it.
    pub(super) fn is_asked_for(&self, id: u32, begun: Instant, sent_at: Instant) -> bool {
        let moves = self.ids[id as usize].from.is_some();
        let is_split = || self.ways.was_split(back(begun, CONVERGENCE + self.limits.links), sent_at);
        let is_slow = || self.lag * 2 > MARKERS;
        !moves || !is_split() && !is_slow() || self.is_known_everywhere(id, begun)
    }

    /// Whether a connection may have lost to another one when their nodes met again.
    pub(super) fn may_have_lost(&self, conn: u32) -> bool {
        let since = self.conn(conn).connect_at;
        self.ways.exist() && self.ways.was_split(back(since, CONVERGENCE), self.now) && self.has_beside(conn)
    }

    /// Whether a stored session, which is surely there, is known of at every node: none says that there is none.
    pub(super) fn is_known_everywhere(&self, id: u32, at: Instant) -> bool {
        let known = &self.ids[id as usize];
        let (Some(from), Some(last)) = (known.from, known.current) else { return false };
        let Some(stored) = self.conn(last).connack.map(|of| of.sent_at) else { return false };
        let nodes = 0..self.nodes.len() as u16;
        self.limits.keeps_hints()
            && !self.limits.fresh
            && !known.forked
            && known.hidden.is_none()
            && nodes.filter(|node| *node != from).all(|node| self.ways.is_known((from, stored), node, at))
    }

    /// Whether something stood in the way of what is for a session, or of what its client sends, as it went from node to node at
    /// some time from `from` to `to`.
    pub(super) fn moved_badly(&self, id: u32, from: Instant, to: Instant) -> bool {
        let known = &self.ids[id as usize];
        let counts = |of: &&Move| of.begun <= to + HANDS_ON && self.hands_on_until(of) >= from;
        known.forked || known.moves.iter().filter(counts).any(|of| self.was_bad(of))
    }

    /// Whether a client sent a message again at another node, which may not have known all the others.
    pub(super) fn sent_again_badly(&self, id: u32, from: Instant, to: Instant) -> bool {
        self.ids[id as usize].moves.iter().any(|of| of.begun >= from && of.begun <= to && self.was_bad(of))
    }

    /// Whether a session has gone from a node that could not be told so, or had no space to write it down: there it is still, and
    /// comes back if it ends where it went (docs/adr/0011).
    pub(super) fn may_be_left(&self, id: u32) -> bool {
        let known = &self.ids[id as usize];
        known.moves.iter().filter(|of| of.ended < Instant::NEVER).any(|of| {
            let mut others = (0..self.ways.count()).filter(|other| *other != of.from);
            let is_cut = others.any(|other| self.ways.were_apart(of.from, other, of.begun, of.ended + TOLD_WITHIN));
            is_cut || self.could_not_write(of)
        })
    }

    /// The same of a session that may still take what is sent at that time.
    pub(super) fn may_be_left_since(&self, id: u32, sent: Instant) -> bool {
        let could_not = |of: &Move| self.ways.was_cut(of.from, of.begun) || self.could_not_write(of);
        let counts = |of: &Move| of.ended < sent && self.hands_on_until(of) >= sent && could_not(of);
        self.ids[id as usize].moves.iter().any(counts) && self.may_be_left(id)
    }

    fn could_not_write(&self, of: &Move) -> bool {
        self.nodes[usize::from(of.from)].lives.was_troubled(of.begun)
    }

    /// A node that starts anew meanwhile hands on again, and one that is handed on to is waited for.
    fn hands_on_until(&self, of: &Move) -> Instant {
        if of.ended == Instant::NEVER {
            return Instant::NEVER;
        }
        let back = self.nodes.iter().filter_map(|node| node.lives.back_from(of.begun, of.ended + HANDS_ON)).max();
        back.map_or(of.ended, |back| back.max(of.ended)) + HANDS_ON
    }

    fn was_bad(&self, of: &Move) -> bool {
        let until = self.hands_on_until(of).min(self.now);
        let since = back(of.begun, HANDS_ON);
        self.ways.was_split(since, until) || self.nodes.iter().any(|node| node.lives.was_troubled(since))
    }

    /// The same where all nodes have to answer soon, which they do not do if what is between them, or their shards, is slow.
    pub(super) fn moved_slowly(&self, id: u32, from: Instant, to: Instant) -> bool {
        self.is_slow_move(id, from, to) || self.moved_badly(id, from, to)
    }

    /// A node may not have answered in time when the session went on: the next one is another session then, and what is for the
    /// one before comes to it.
    pub(super) fn is_slow_move(&self, id: u32, from: Instant, to: Instant) -> bool {
        let is_slow = self.limits.links + self.lag * 4 > MARKERS;
        let counts = |of: &Move| of.begun <= to && (of.ended == Instant::NEVER || of.ended + HANDS_ON >= from);
        is_slow && self.ids[id as usize].moves.iter().any(counts)
    }

    /// Whether what waits for a session at its publisher's node may have come after the node that the session had left handed on no
    /// more.
    fn waited_too_long(&self, id: u32, node: u16, sent: Instant, accepted: Instant) -> bool {
        let known = &self.ids[id as usize];
        let after = known.moves.iter().filter(|of| of.ended == Instant::NEVER || of.ended + HANDS_ON >= sent);
        after.into_iter().any(|of| {
            let apart = self.ways.were_apart(node, of.from, sent, accepted);
            apart && self.was_bad(of)
        })
    }

    /// Whether a message from a node may not have followed a session, or the publisher that went away in the midst of its exchange.
    pub(super) fn may_be_left_behind(
        &self,
        id: u32,
        (node, publisher): (u16, Option<u32>),
        sent: Instant,
        accepted: Instant,
    ) -> bool {
        self.moved_badly(id, sent, accepted)
            || publisher.is_some_and(|publisher| self.moved_badly(publisher, sent, accepted))
            || self.waited_too_long(id, node, sent, accepted)
    }

    /// The same, and a node has started meanwhile: what it hands on then has no names.
    pub(super) fn moved_over_a_start(&self, id: u32, from: Instant, to: Instant) -> bool {
        let since = back(from, HANDS_ON);
        self.moved_badly(id, from, to) && self.nodes.iter().any(|node| node.lives.stopped_since(since))
    }

    /// How often a session has gone to another node since then.
    pub(super) fn moves_since(&self, id: u32, since: Instant) -> u32 {
        self.ids[id as usize].moves.iter().filter(|of| of.ended >= since).count() as u32
    }

    /// One of the two nodes is gone between which a session is on its way; whether that is so.
    pub(super) fn lost_on_its_way(&mut self, id: u32, node: u16, cx: &Cx<'_>) -> bool {
        let known = &self.ids[id as usize];
        // Who asked for it at another node and has not heard the answer may have it there.
        let asks = |conn: &u32| self.conn(*conn).node != node && self.conn(*conn).connack.is_none();
        let is_asked_for = || known.node == node && known.live.iter().any(asks);
        let Some(from) = known.from.or_else(|| is_asked_for().then_some(node)) else { return false };
        // Of several nodes that were asked for it any may have it.
        let several = known.moves.iter().filter(|of| of.ended == Instant::NEVER).count() > 1;
        if known.node != node && from != node && !several {
            return false;
        }
        let (gone, live): (Vec<u32>, Vec<u32>) = known.live.iter().partition(|conn| self.conn(**conn).node == node);
        let mut changes = false;
        for conn in gone {
            let c = self.conn(conn);
            if c.connack.is_none() {
                changes |= c.clean || c.expiry_min == 0;
                self.may_have_come(conn, cx.now);
            }
        }
        if self.limits.keeps_hints() && !changes {
            // It is at one of them, as it was, but for a copy of QoS 1 that was sent before it was stored.
            let known = &mut self.ids[id as usize];
            known.inflight.retain(|flight| flight.qos == QoS::ExactlyOnce);
            (known.live, known.possible_until) = (live, Instant::NEVER);
            return true;
        }
        self.doubt(id);
        self.reopen_subscriptions(id, Instant::START);
        let known = &mut self.ids[id as usize];
        (known.live, known.unclear, known.possible_until) = (live, true, Instant::NEVER);
        true
    }

    /// What the session of a connection does not tell at once: nothing is certain of what it is subscribed to.
    pub(super) fn is_another(&mut self, conn: ConnIx) {
        let id = self.conn(conn.0).id;
        self.doubt(id);
        self.reopen_subscriptions(id, Instant::START);
        let known = &mut self.ids[id as usize];
        (known.unclear, known.possible_until) = (true, Instant::NEVER);
    }
}

/// So long before.
pub(super) fn back(at: Instant, by: Duration) -> Instant {
    Instant::from_nanos(at.as_nanos().saturating_sub(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX)))
}
