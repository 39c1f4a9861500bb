//! Long work is cut into turns, here with a shard by itself: a test gives each input.

use bytes::Buf as _;
use newtmq_base::{ConnId, Incarnation, Instant, ListenerId, NodeId, SEED_BYTES, ShardId, WallTime};
use newtmq_mqtt::ProtocolVersion::{V5, V311};
use newtmq_mqtt::QoS::AtMostOnce;
use newtmq_node::{
    Boot, Fill, OUTPUT_HIGH_BYTES, Outbox, Output, Peer, Shard, ShardConfig, ShardInput, Taken, TimerKind, WriteBatch,
};

use crate::harness::{Connect, Publish, Subscribe};

struct Bare {
    shard: Shard,
    outbox: Outbox,
    resumed: Vec<ConnId>,
}

impl Bare {
    const NOW: Instant = Instant::from_millis(1);

    fn new() -> Bare {
        let boot = Boot {
            now: Instant::START,
            wall: WallTime(1_700_000_000_000),
            seed: [7; SEED_BYTES],
            node: NodeId(1),
            incarnation: Incarnation(1),
            shard: ShardId(0),
            shards: 1,
            node_seed: 7,
            clustered: false,
            claims: false,
        };
        Bare { shard: Shard::new(ShardConfig::default(), boot), outbox: Outbox::default(), resumed: Vec::new() }
    }

    fn input(&mut self, input: ShardInput<'_>) -> Taken {
        let taken = self.shard.handle(Bare::NOW, input, &mut self.outbox);
        let resumed = |output| if let Output::Resume(conn) = output { Some(conn) } else { None };
        self.resumed.extend(self.outbox.drain().filter_map(resumed));
        taken
    }

    /// A connected client.
    fn connect(&mut self, connect: fn(&str) -> Connect, slot: u32) -> ConnId {
        let conn = ConnId { slot, generation: 1 };
        let peer = Peer::from(core::net::SocketAddr::from(([192, 0, 2, 1], 50_000)));
        self.input(ShardInput::Opened { conn, listener: ListenerId(0), peer, username: None });
        self.bytes(conn, &connect(&slot.to_string()).encode());
        assert_eq!(self.output(conn)[0], 0x20, "CONNACK");
        conn
    }

    /// Clients in these slots, subscribed to `t` with QoS 0.
    fn subscribers(&mut self, slots: core::ops::Range<u32>) -> Vec<ConnId> {
        let subscribers: Vec<ConnId> = slots.map(|slot| self.connect(Connect::v311, slot)).collect();
        for conn in &subscribers {
            self.bytes(*conn, &Subscribe::new("t", AtMostOnce).encode(1, V311));
            assert_eq!(self.output(*conn)[0], 0x90, "SUBACK");
        }
        subscribers
    }

    fn bytes(&mut self, conn: ConnId, data: &[u8]) -> Taken {
        self.input(ShardInput::Bytes { conn, data })
    }

    fn output(&mut self, conn: ConnId) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut batch = WriteBatch::default();
        loop {
            let fill = self.shard.fill(Bare::NOW, conn, &mut batch, &mut self.outbox);
            bytes.extend(batch.copy_to_bytes(batch.remaining()));
            if fill == Fill::Drained {
                return bytes;
            }
        }
    }

    fn delivered(&self) -> u64 {
        self.shard.view().ledger().delivered
    }
}

/// About as many deliveries as one call makes.
const TURN: u64 = 16_384;

#[test]
fn one_read_is_cut_into_turns() {
    const SUBSCRIBERS: u32 = 40;
    let mut bare = Bare::new();
    let (publisher, other) = (bare.connect(Connect::v311, 0), bare.connect(Connect::v311, 1));
    let subscribers = bare.subscribers(2..2 + SUBSCRIBERS);
    let packets = (0..).map(|number| Publish::new("t", format!("{number:04}")).encode(None, V311));
    let read: Vec<u8> = packets.take((64 << 10) / 9).flatten().collect();
    let (mut rest, mut turns) = (&read[..], 0);
    loop {
        let before = bare.delivered();
        let taken = bare.bytes(publisher, rest);
        let made = bare.delivered() - before;
        rest = &rest[taken.bytes..];
        assert!(made < TURN + u64::from(SUBSCRIBERS), "{made}");
        if !taken.hold {
            break;
        }
        assert!(made > TURN - TURN / 20, "{made}");
        turns += 1;
        bare.bytes(other, &[0xC0, 0]);
        assert_eq!(bare.output(other), [0xD0, 0], "the other's turn");
        assert_eq!(bare.shard.next_deadline(), Some((Instant::START, TimerKind::Work)));
        assert_eq!(bare.resumed, []);
        bare.input(ShardInput::Tick);
        assert_eq!(bare.resumed.drain(..).collect::<Vec<_>>(), [publisher]);
    }
    assert!(turns > 15 && rest.is_empty(), "{turns} turns, {} bytes left", rest.len());
    for conn in subscribers {
        assert_eq!(bare.output(conn), read, "all of it, in order");
    }
}

#[test]
fn a_turn_that_ends_while_acknowledgements_are_withheld_is_followed_by_another() {
    let mut bare = Bare::new();
    let (publisher, filler) = (bare.connect(Connect::v5, 0), bare.connect(Connect::v311, 1));
    let subscribers = bare.subscribers(2..202);
    let large = Publish::new("t", vec![b'x'; OUTPUT_HIGH_BYTES / 2]).encode(None, V311);
    for _ in 0..2 {
        bare.bytes(filler, &large);
    }
    // All but one take what they get.
    for conn in &subscribers[1..] {
        bare.output(*conn);
    }
    let mut read: Vec<u8> = (1..=90).flat_map(|id| Publish::new("t", "").qos1().encode(Some(id), V5)).collect();
    read.extend([0xC0, 0]);
    let taken = bare.bytes(publisher, &read);
    assert!(taken.hold && taken.bytes < read.len());
    bare.input(ShardInput::Tick);
    assert_eq!(bare.resumed.pop(), Some(publisher));
    let rest = &read[taken.bytes..];
    assert_eq!(bare.bytes(publisher, rest), Taken { bytes: rest.len(), hold: false });
    assert_eq!(bare.output(publisher), [0xD0, 0], "PINGRESP and no PUBACK");
    bare.output(subscribers[0]);
    assert_eq!(bare.output(publisher).len(), 90 * 4, "every PUBACK");
}
