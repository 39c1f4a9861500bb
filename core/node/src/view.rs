//! A read-only look into a shard, for checkers and administration.

use newtmq_base::{ConnId, Instant, NodeId};
use newtmq_cluster::lane::{LanesIn, PeerOut};
use newtmq_mqtt::{OwnedTopicFilter, PacketId, ProtocolVersion};
use newtmq_topic::TableEntry;

use crate::conn::{Conn, Feature, NONE};
use crate::control::QuotaKind;
use crate::io::Peer;
use crate::ledger::Ledger;
use crate::shard::{SessionSlot, Shard, Shares};

/// What can be seen of a shard.
#[derive(Debug, Clone, Copy)]
pub struct ShardView<'a> {
    shard: &'a Shard,
}

/// What can be seen of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnView<'a> {
    /// The connection.
    pub conn: ConnId,
    /// Who it is.
    pub peer: Peer,
    /// Protocol version of its CONNECT.
    pub version: ProtocolVersion,
    /// Client Identifier; none before CONNACK.
    pub client: Option<&'a str>,
    /// Bytes of output that wait.
    pub output_bytes: usize,
    /// Whether its input is held.
    pub held: bool,
    /// Whether its output does not move.
    pub stalled: bool,
    /// Last packet from the client.
    pub heard: Instant,
}

/// What an [`Inconsistency`] breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// What was matched is delivered, queued or dropped.
    Ledger,
    /// Queues stay within their limits.
    Queues,
    /// Packet Identifiers are unique, and the window is not exceeded.
    Window,
    /// The topic table has the subscriptions of the sessions.
    Subscriptions,
    /// Connections and retained messages are counted.
    Shares,
    /// Nothing is under way that nobody waits for.
    Leftover,
}

/// Something that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inconsistency {
    /// What kind of thing.
    pub rule: Rule,
    /// In words, with numbers.
    pub what: String,
}

/// What [`ShardView::check`] found, and how much it looked at.
#[derive(Debug, Default)]
pub struct Checked {
    /// What does not hold.
    pub found: Vec<Inconsistency>,
    /// Sessions.
    pub sessions: u64,
    /// Packet Identifiers.
    pub packet_ids: u64,
}

/// A shard's part of a limit of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShareView {
    /// Which limit.
    pub kind: QuotaKind,
    /// How much it may use.
    pub granted: u32,
    /// How much it uses.
    pub used: u32,
}

impl Checked {
    fn violated(&mut self, rule: Rule, what: impl FnOnce() -> String, holds: bool) {
        if !holds {
            self.found.push(Inconsistency { rule, what: what() });
        }
    }
}

impl Shard {
    /// A look inside.
    #[must_use]
    pub fn view(&self) -> ShardView<'_> {
        ShardView { shard: self }
    }
}

impl<'a> ShardView<'a> {
    pub(crate) fn shard(&self) -> &'a Shard {
        self.shard
    }

    /// Connections, by slot.
    pub fn connections(&self) -> impl Iterator<Item = ConnView<'a>> + use<'a> {
        let shard = self.shard;
        shard.conns.iter().enumerate().filter_map(move |(slot, c)| {
            let c = c.as_ref()?;
            Some(ConnView {
                conn: ConnId { slot: slot as u32, generation: c.generation },
                peer: c.peer,
                version: c.version,
                client: shard.sessions.get(c.session).map(|slot| slot.session.client().as_str()),
                output_bytes: c.out.len(),
                held: c.held,
                stalled: c.stalled,
                heard: c.heard,
            })
        })
    }

    /// Number of open connections.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.shard.conns.iter().flatten().count()
    }

    /// Number of sessions, connected or waiting.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.shard.sessions.len()
    }

    /// Number of subscriptions.
    #[must_use]
    pub fn subscription_count(&self) -> usize {
        self.shard.topics.len()
    }

    /// Bytes sent to other shards that these have not worked off, by shard.
    pub fn lane_bytes(&self) -> impl Iterator<Item = usize> + use<'a> {
        self.shard.lanes.iter().map(|lane| lane.outstanding)
    }

    /// The sending ends of its lanes to other nodes.
    pub fn lanes_out(&self) -> impl Iterator<Item = &'a PeerOut> + use<'a> {
        self.shard.peers.iter().flat_map(|peers| peers.outs())
    }

    /// The receiving ends of the lanes from other nodes, if there may be any.
    #[must_use]
    pub fn lanes_in(&self) -> Option<&'a LanesIn> {
        self.shard.peers.as_ref().map(|peers| peers.inward().lanes())
    }

    /// A node's slot in the places of [`ShardView::table`]; none if the shard has not heard of it. 0 is its own.
    #[must_use]
    pub fn slot_of(&self, node: NodeId) -> Option<u8> {
        if node == self.shard.node { Some(0) } else { self.shard.peers.as_ref()?.known_slot(node) }
    }

    /// Acknowledgements of publishers that wait for other nodes, or behind such.
    #[must_use]
    pub fn open_gates(&self) -> usize {
        self.shard.conns.iter().flatten().map(Conn::gates).sum()
    }

    /// QoS 2 messages of its clients that went to other nodes and are not released.
    #[must_use]
    pub fn unreleased(&self) -> usize {
        self.shard.sessions.iter().filter_map(|(_, slot)| slot.forwards.as_ref()).map(|forwards| forwards.len()).sum()
    }

    /// Publishers that wait for an output or another shard; and how many are known to those that they wait for.
    #[must_use]
    pub fn waits(&self) -> (usize, usize) {
        let rare = || self.shard.conns.iter().flatten().filter_map(|c| c.rare.as_ref());
        let nodes = self.shard.peers.as_ref().map_or(0, |peers| peers.waiters());
        let known = nodes + self.shard.lanes.iter().map(|lane| lane.waiters.len()).sum::<usize>();
        (rare().map(|rare| rare.waiting_on.len()).sum(), known + rare().map(|rare| rare.waiters.len()).sum::<usize>())
    }

    /// Number of retained messages.
    #[must_use]
    pub fn retained_count(&self) -> usize {
        self.shard.retained.len()
    }

    /// Number of armed timers.
    #[must_use]
    pub fn timer_count(&self) -> usize {
        self.shard.timers.len()
    }

    /// Whether a client's session exists, and whether it is connected.
    #[must_use]
    pub fn session_is_connected(&self, client: &str) -> Option<bool> {
        let key = self.shard.find_session(client)?;
        self.shard.sessions.get(key).map(|slot| slot.conn != NONE)
    }

    /// What a gateway keeps with a client's session.
    #[must_use]
    pub fn kept(&self, client: &str) -> Option<&'a [u8]> {
        let key = self.shard.find_session(client)?;
        self.shard.sessions.get(key)?.session.kept()
    }

    /// Messages in queues and windows.
    #[must_use]
    pub fn queued(&self) -> u64 {
        let held = |slot: &crate::shard::SessionSlot| slot.session.queue_len() + slot.session.inflight_len();
        self.shard.sessions.iter().map(|(_, slot)| held(slot) as u64).sum()
    }

    /// The counters.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.shard.ledger
    }

    /// What the ledger is off by: 0, always.
    #[must_use]
    pub fn ledger_balance(&self) -> i128 {
        let ledger = &self.shard.ledger;
        let out = ledger.delivered + ledger.dropped_total() + self.queued();
        i128::from(ledger.matched) - i128::from(out)
    }

    /// Everything that the shard matches by: subscriptions of its sessions, and places that have others.
    #[must_use]
    pub fn table(&self) -> Vec<TableEntry> {
        self.shard.topics.entries()
    }

    /// The subscriptions of the sessions: session key and filter.
    pub fn subscriptions(&self) -> impl Iterator<Item = (u32, &'a OwnedTopicFilter)> + use<'a> {
        let sessions = self.shard.sessions.iter();
        sessions.flat_map(|(key, slot)| slot.session.subscriptions().iter().map(move |(filter, _)| (key, filter)))
    }

    /// Its parts of the node's limits.
    pub fn shares(&self) -> impl Iterator<Item = ShareView> + use<'a> {
        let Shares { connections, retained, .. } = &self.shard.shares;
        let connections = connections.iter().enumerate().map(|(at, share)| (QuotaKind::Connections(at as u16), share));
        let all = connections.chain([(QuotaKind::Retained, retained)]);
        all.map(|(kind, share)| ShareView { kind, granted: share.granted, used: share.used })
    }

    /// What is under way, which must be nothing in a shard whose clients have all gone.
    #[must_use]
    pub fn leftovers(&self) -> Vec<Inconsistency> {
        let shard = self.shard;
        let mut checked = Checked::default();
        let counts = [
            ("unfinished deliveries", shard.jobs.len()),
            ("connections whose turn has ended", shard.turns.len()),
            ("open questions", shard.requests.len()),
            ("acknowledgements that wait for other nodes", self.open_gates()),
            ("publishes put aside", shard.reluctance.waiting()),
            ("readings of retained messages that wait", shard.parked_reads.len() + shard.parked_chunks.len()),
        ];
        for (name, count) in counts {
            checked.violated(Rule::Leftover, || format!("{count} {name}"), count == 0);
        }
        checked.violated(Rule::Leftover, || "something that waits for the store".into(), shard.journal.is_idle());
        for (name, count) in shard.peers.iter().flat_map(|peers| peers.under_way()) {
            checked.violated(Rule::Leftover, || format!("{count} {name}"), count == 0);
        }
        for (at, leftover) in shard.lanes.iter().enumerate().filter_map(|(at, lane)| Some((at, lane.leftover()?))) {
            checked.violated(Rule::Leftover, || format!("the lane of shard {at}: {leftover}"), false);
        }
        checked.found
    }

    /// What must always hold, between any two inputs.
    #[must_use]
    pub fn check(&self) -> Checked {
        let mut checked = Checked::default();
        let balance = self.ledger_balance();
        let ledger =
            || format!("{balance} more matched than accounted for: {:?}, {} queued", self.ledger(), self.queued());
        checked.violated(Rule::Ledger, ledger, balance == 0);
        let mut ids = Vec::new();
        let mut subscriptions = 0;
        for (key, slot) in self.shard.sessions.iter() {
            checked.sessions += 1;
            subscriptions += slot.session.subscriptions().len();
            self.check_session(key, slot, &mut ids, &mut checked);
        }
        let table = self.shard.topics.len();
        let what = || format!("{table} subscriptions in the table, {subscriptions} of sessions");
        checked.violated(Rule::Subscriptions, what, table == subscriptions);
        self.check_shares(&mut checked);
        checked
    }

    fn check_session(&self, key: u32, slot: &SessionSlot, ids: &mut Vec<PacketId>, checked: &mut Checked) {
        let (session, client) = (&slot.session, slot.session.client().as_str());
        ids.clear();
        ids.extend(session.packet_ids());
        checked.packet_ids += ids.len() as u64;
        ids.sort_unstable();
        let twice = ids.windows(2).find(|pair| pair[0] == pair[1]);
        let what = || format!("{client}: Packet Identifier {twice:?} is used twice [MQTT-2.2.1-4]");
        checked.violated(Rule::Window, what, twice.is_none());
        if slot.conn != NONE {
            let conn = self.shard.conns.get(slot.conn as usize).and_then(Option::as_ref);
            let own = conn.is_some_and(|c| c.session == key);
            checked.violated(Rule::Window, || format!("{client}: its connection is another session's"), own);
            let (sent, most) = (session.outstanding(), conn.map_or(0, |c| usize::from(c.receive_maximum)));
            let what = || format!("{client}: {sent} unacknowledged, {most} allowed");
            checked.violated(Rule::Window, what, sent <= most);
            let kept = session.inflight_len();
            let what = || format!("{client}: {sent} places of its window are taken by {kept} messages");
            checked.violated(Rule::Window, what, sent <= kept);
        }
        let limits = self.shard.config.zones[usize::from(slot.zone)].session;
        let (waiting, bytes) = (session.queue_len(), session.queue_bytes());
        // With acknowledgements that were not stored some that were under way wait again after a start.
        let restored = slot.stored.is_some_and(|session| !self.shard.journal.has_named(session));
        let again = if restored { limits.max_inflight } else { 0 };
        let fits = waiting <= limits.max_mqueue_len.max(1) + again
            && (waiting <= 1 || restored || limits.max_mqueue_bytes == 0 || bytes <= limits.max_mqueue_bytes);
        let what = || format!("{client}: {waiting} messages of {bytes} bytes wait");
        checked.violated(Rule::Queues, what, fits);
    }

    fn check_shares(&self, checked: &mut Checked) {
        for ShareView { kind, used, .. } in self.shares() {
            let (count, exact) = match kind {
                QuotaKind::Connections(listener) => {
                    let counted = |c: &&Conn| c.listener == listener && c.features.has(Feature::Counted);
                    (self.shard.conns.iter().flatten().filter(counted).count(), true)
                }
                // What the server tells about itself has no share.
                QuotaKind::Retained => (self.shard.retained.len(), self.shard.config.sys_interval.is_zero()),
            };
            let what = || format!("{kind:?}: {used} are counted, {count} are there");
            let holds = if exact { used as usize == count } else { used as usize <= count };
            checked.violated(Rule::Shares, what, holds);
        }
    }

    /// Checks [`ShardView::leftovers`].
    ///
    /// # Panics
    /// If there is something.
    pub fn assert_idle(&self) {
        assert_eq!(self.leftovers(), []);
    }

    /// Checks [`ShardView::check`].
    ///
    /// # Panics
    /// If something does not hold.
    pub fn assert_consistent(&self) {
        assert_eq!(self.check().found, []);
    }
}
