//! A read-only look into a shard, for checkers and administration.

use newtmq_base::{ConnId, Instant};
use newtmq_mqtt::{PacketId, ProtocolVersion};

use crate::conn::NONE;
use crate::io::Peer;
use crate::ledger::Ledger;
use crate::shard::Shard;

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

impl Shard {
    /// A look inside.
    #[must_use]
    pub fn view(&self) -> ShardView<'_> {
        ShardView { shard: self }
    }
}

impl<'a> ShardView<'a> {
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

    /// Publishers that wait for an output or another shard; and how many are known to those that they wait for.
    #[must_use]
    pub fn waits(&self) -> (usize, usize) {
        let rare = || self.shard.conns.iter().flatten().filter_map(|c| c.rare.as_ref());
        let known = self.shard.lanes.iter().map(|lane| lane.waiters.len()).sum::<usize>();
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

    /// Checks that nothing is under way: of a shard whose clients have all gone.
    ///
    /// # Panics
    /// If something is.
    pub fn assert_idle(&self) {
        let shard = self.shard;
        assert!(shard.jobs.is_empty() && shard.turns.is_empty() && shard.requests.is_empty());
        assert!(
            shard.parked_reads.is_empty() && shard.parked_chunks.is_empty(),
            "somebody waits for retained messages"
        );
        for lane in &shard.lanes {
            lane.assert_idle();
        }
    }

    /// Checks what must always hold.
    ///
    /// # Panics
    /// If it does not.
    pub fn assert_consistent(&self) {
        assert_eq!(self.ledger_balance(), 0, "{:?}, queued {}", self.shard.ledger, self.queued());
        for (key, slot) in self.shard.sessions.iter() {
            let mut ids: Vec<PacketId> = slot.session.packet_ids().collect();
            let count = ids.len();
            ids.sort_unstable();
            ids.dedup();
            assert_eq!(ids.len(), count, "a Packet Identifier is used twice [MQTT-2.2.1-4]");
            if slot.conn != NONE {
                let c = self.shard.conns[slot.conn as usize].as_ref().expect("a session's connection exists");
                assert_eq!(c.session, key);
                assert!(slot.session.outstanding() <= usize::from(c.receive_maximum), "the window is exceeded");
            }
            let limits = self.shard.config.zones[usize::from(slot.zone)].session;
            let (waiting, bytes) = (slot.session.queue_len(), slot.session.queue_bytes());
            assert!(waiting <= limits.max_mqueue_len.max(1));
            assert!(waiting <= 1 || limits.max_mqueue_bytes == 0 || bytes <= limits.max_mqueue_bytes);
        }
        let subscriptions: usize = self.shard.sessions.iter().map(|(_, slot)| slot.session.subscriptions().len()).sum();
        assert_eq!(self.shard.topics.len(), subscriptions, "the topic table and the sessions agree");
    }
}
