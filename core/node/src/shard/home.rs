//! Which shard of the node a client or a topic belongs to (docs/adr/0005). A client's connection goes to the shard of its
//! Client Identifier before anything is decided about it, so a session never leaves its shard, and who takes it over
//! finds it here.

use core::hash::BuildHasher as _;

use newtmq_base::{ConnId, HashSeed, Instant, ShardId};

use super::{Next, Shard};
use crate::conn::{Conn, Feature};
use crate::io::{Moved, Outbox, Output, Taken};

/// The shard of a node with this seed and so many shards that a client or a topic belongs to.
pub(crate) fn shard_of(seed: HashSeed, shards: u16, text: &str) -> u16 {
    if shards == 1 {
        return 0;
    }
    // The high half: the low bits place entries in tables.
    let hash = seed.state().hash_one(text) >> 32;
    u16::try_from((hash * u64::from(shards)) >> 32).expect("below the number of shards")
}

impl Shard {
    /// The shard of the node that serves a client.
    #[must_use]
    pub fn home(&self, client: &str) -> ShardId {
        ShardId(self.home_of(client))
    }

    /// The shard of the node that keeps a topic's retained message.
    #[must_use]
    pub fn owner(&self, topic: &str) -> ShardId {
        ShardId(self.owner_of(topic))
    }

    pub(crate) fn shards(&self) -> u16 {
        self.shards
    }

    /// The same at each shard of the node.
    pub(crate) fn node_hash(&self, text: &str) -> u64 {
        self.node_seed.state().hash_one(text)
    }

    /// The shard of a client.
    pub(crate) fn home_of(&self, client: &str) -> u16 {
        self.shard_of(client)
    }

    /// The shard that keeps a topic's retained message.
    pub(crate) fn owner_of(&self, topic: &str) -> u16 {
        self.shard_of(topic)
    }

    fn shard_of(&self, text: &str) -> u16 {
        shard_of(self.node_seed, self.shards, text)
    }

    /// Sends a connection to the shard of its client.
    pub(crate) fn move_to(&mut self, conn: ConnId, to: u16, connect: &[u8], out: &mut Outbox) -> Next {
        self.arm_conn(conn, Instant::NEVER);
        self.forget_deadlines(conn);
        self.has_left(conn, out);
        let Some(mut c) = self.conns[conn.slot as usize].take() else { return Next::Stop };
        if c.features.has(Feature::Counted) {
            self.move_away(c.listener);
        }
        // It is counted where it is handled.
        self.ledger.traffic.packets_received[newtmq_mqtt::PacketType::Connect as usize] -= 1;
        self.ledger.traffic.bytes_received -= connect.len() as u64;
        // Of CONNECT nothing is taken over yet: this is a certificate's.
        let username = c.rare.as_mut().and_then(|rare| rare.username.take());
        let listener = newtmq_base::ListenerId(c.listener);
        let moved = Moved { listener, peer: c.peer, username, connect: connect.into() };
        out.push(Output::Move { conn, to: ShardId(to), moved: Box::new(moved) });
        Next::Hold
    }

    /// A connection that another shard had.
    pub(crate) fn on_moved(&mut self, now: Instant, conn: ConnId, moved: Moved, out: &mut Outbox) -> Taken {
        let Moved { listener, peer, username, connect } = moved;
        // A client that another shard has let in: all are ready, and the word of it is on its way.
        self.open_to_clients(now, out);
        self.admit_moved(listener);
        let c = self.insert_conn(now, conn, listener, peer, username);
        c.features.add(Feature::Counted);
        c.phase = crate::conn::Phase::AwaitConnect;
        let zone = usize::from(c.zone);
        self.arm_conn(conn, now + self.config.zones[zone].idle_timeout);
        if self.stopping {
            self.close(now, conn, newtmq_mqtt::ReasonCode::ServerShuttingDown, out);
            return Taken::default();
        }
        // The CONNECT was paid for where it came in; what follows it is not.
        let taken = self.on_bytes(now, conn, &connect, out);
        self.set_meter(now, conn);
        Taken { bytes: 0, hold: taken.hold }
    }

    /// A connection as it is opened.
    pub(crate) fn insert_conn(
        &mut self,
        now: Instant,
        conn: ConnId,
        listener: newtmq_base::ListenerId,
        peer: crate::io::Peer,
        username: Option<Box<str>>,
    ) -> &mut Conn {
        let at = conn.slot as usize;
        if self.conns.len() <= at {
            self.conns.resize_with(at + 1, || None);
        }
        assert!(self.conns[at].is_none(), "the driver opened slot {} twice", conn.slot);
        let zone = self.config.listeners[usize::from(listener.0)].zone;
        let c = self.conns[at].insert(Conn::new(conn.generation, listener.0, zone, peer, now));
        if username.is_some() {
            c.rare().username = username;
        }
        c
    }
}
