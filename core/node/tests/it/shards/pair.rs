//! Two shards by themselves: a test delivers each message between them when it wants.

use std::collections::VecDeque;

use bytes::Buf as _;
use newtmq_base::{ConnId, Incarnation, Instant, ListenerId, NodeId, SEED_BYTES, ShardId, WallTime};
use newtmq_mqtt::ProtocolVersion::V5;
use newtmq_mqtt::QoS::AtMostOnce;
use newtmq_node::{
    Boot, Control, ControlBoot, ControlInput, ControlOutput, Fill, Outbox, Output, Peer, PlaceMessage, Shard,
    ShardConfig, ShardInput, WriteBatch,
};

use crate::harness::{Connect, Publish, Subscribe};

struct Pair {
    now: Instant,
    shards: [Shard; 2],
    control: Control,
    /// What the other one has sent to each.
    under_way: [VecDeque<PlaceMessage>; 2],
    moved: Vec<Output>,
    closed: Vec<ConnId>,
}

impl Pair {
    fn new() -> Pair {
        let config = ShardConfig::default();
        let shard = |shard| {
            let boot = Boot {
                now: Instant::START,
                wall: WallTime(1_700_000_000_000),
                seed: [7; SEED_BYTES],
                node: NodeId(1),
                incarnation: Incarnation(1),
                shard: ShardId(shard),
                shards: 2,
                node_seed: 7,
                clustered: false,
                claims: false,
            };
            Shard::new(config.clone(), boot)
        };
        Pair {
            now: Instant::from_millis(1),
            shards: [shard(0), shard(1)],
            control: Control::new(
                &config,
                ControlBoot {
                    now: Instant::START,
                    wall: WallTime(1_700_000_000_000),
                    shards: 2,
                    version: "1.2.3",
                    node: NodeId(1),
                    incarnation: Incarnation(1),
                    node_seed: 7,
                    cluster: None,
                },
            ),
            under_way: Default::default(),
            moved: Vec::new(),
            closed: Vec::new(),
        }
    }

    fn input(&mut self, at: usize, input: ShardInput<'_>) {
        let mut outbox = Outbox::default();
        self.shards[at].handle(self.now, input, &mut outbox);
        self.obey(at, &mut outbox);
    }

    fn obey(&mut self, at: usize, outbox: &mut Outbox) {
        let outputs: Vec<Output> = outbox.drain().collect();
        for output in outputs {
            match output {
                Output::Place { message, .. } => self.under_way[1 - at].push_back(message),
                Output::Control(message) => {
                    let mut answers = Vec::new();
                    let from = ShardId(at as u16);
                    self.control.handle(self.now, ControlInput::Shard { from, message }, &mut answers);
                    for output in answers {
                        let ControlOutput::Shard { to, message } = output else { continue };
                        self.input(usize::from(to.0), ShardInput::Control(message));
                    }
                }
                Output::Close { conn, .. } => self.closed.push(conn),
                output @ Output::Move { .. } => self.moved.push(output),
                _ => {}
            }
        }
    }

    fn open(&mut self, at: usize, slot: u32) -> ConnId {
        let conn = ConnId { slot, generation: 1 };
        let peer = Peer::from(core::net::SocketAddr::from(([192, 0, 2, 1], 50_000)));
        self.input(at, ShardInput::Opened { conn, listener: ListenerId(0), peer, username: None });
        conn
    }

    fn id_at(&self, at: usize, name: &str) -> String {
        let home = |id: &String| usize::from(self.shards[0].home(id).0) == at;
        (0..).map(|number| format!("{name}{number}")).find(home).unwrap()
    }

    fn connect(&mut self, at: usize, name: &str) -> ConnId {
        let conn = self.open(at, 0);
        let id = self.id_at(at, name);
        self.input(at, ShardInput::Bytes { conn, data: &Connect::v5(&id).encode() });
        assert_eq!(self.read(at, conn, usize::MAX)[0], 0x20, "CONNACK");
        conn
    }

    fn publish(&mut self, at: usize, conn: ConnId, publish: Publish) {
        self.input(at, ShardInput::Bytes { conn, data: &publish.encode(None, V5) });
    }

    /// Delivers some messages to a shard, or all that there are.
    fn deliver(&mut self, to: usize, count: usize) {
        for _ in 0..count {
            let Some(message) = self.under_way[to].pop_front() else { return };
            self.input(to, ShardInput::Place { from: ShardId(1 - to as u16), message });
        }
    }

    fn settle(&mut self) {
        while self.under_way.iter().any(|messages| !messages.is_empty()) {
            for at in 0..2 {
                self.deliver(at, usize::MAX);
                self.input(at, ShardInput::Tick);
            }
        }
    }

    /// Takes output, at least so many bytes if there are so many.
    fn read(&mut self, at: usize, conn: ConnId, limit: usize) -> Vec<u8> {
        let (mut bytes, mut batch, mut outbox) = (Vec::new(), WriteBatch::default(), Outbox::default());
        while bytes.len() < limit {
            let fill = self.shards[at].fill(self.now, conn, &mut batch, &mut outbox);
            bytes.extend(batch.copy_to_bytes(batch.remaining()));
            if fill == Fill::Drained {
                break;
            }
        }
        self.obey(at, &mut outbox);
        bytes
    }

    fn waits(&self) -> [(usize, usize); 2] {
        [self.shards[0].view().waits(), self.shards[1].view().waits()]
    }
}

/// A message of which two are more than a target may have in its output.
fn large() -> Publish {
    Publish::new("t", vec![b'.'; 600_000])
}

#[test]
fn a_publisher_that_gave_up_one_hold_is_released_from_the_next() {
    let mut pair = Pair::new();
    let r = pair.connect(1, "r");
    pair.input(1, ShardInput::Bytes { conn: r, data: &Subscribe::new("t", AtMostOnce).encode(1, V5) });
    let w = pair.connect(0, "w");
    for _ in 0..2 {
        pair.publish(0, w, large());
    }
    pair.settle();
    assert_eq!(pair.waits(), [(1, 0), (0, 1)]);
    // The publisher is held for long enough. What it says of that comes after another two messages.
    pair.now = Instant::from_millis(11_000);
    pair.input(0, ShardInput::Tick);
    assert_eq!(pair.waits(), [(0, 0), (0, 1)]);
    let leave = pair.under_way[1].pop_back().unwrap();
    for _ in 0..2 {
        pair.publish(0, w, large());
    }
    // The target drains, and fills again, before it hears of it.
    pair.read(1, r, usize::MAX);
    pair.deliver(1, 2);
    pair.input(1, ShardInput::Tick);
    assert_eq!(pair.waits()[1], (0, 1));
    pair.under_way[1].push_front(leave);
    pair.settle();
    assert_eq!(pair.waits(), [(1, 0), (0, 1)], "the second hold");
    pair.read(1, r, usize::MAX);
    pair.settle();
    assert_eq!(pair.waits(), [(0, 0), (0, 0)]);
}

#[test]
fn one_subscribe_does_not_make_others_read_for_all_its_filters_at_once() {
    const FILTERS: usize = 500;
    let mut pair = Pair::new();
    let w = pair.connect(1, "w");
    for number in 0..FILTERS {
        pair.publish(1, w, Publish::new(&format!("{number}/x"), "").retain());
        pair.publish(1, w, Publish::new(&format!("{number}/x"), "y").retain());
    }
    pair.settle();
    let r = pair.connect(0, "r");
    let filters = (0..FILTERS).fold(Subscribe::default(), |all, n| all.and(&format!("{n}/+"), AtMostOnce));
    pair.input(0, ShardInput::Bytes { conn: r, data: &filters.encode(1, V5) });
    let read = |message: &&PlaceMessage| matches!(message, PlaceMessage::Read(_));
    let reads = pair.under_way[1].iter().filter(read).count();
    assert_eq!(reads, 16);
    // Those that are given up make room for others.
    let gone: Vec<String> = (0..16).map(|n| format!("{n}/+")).collect();
    let gone: Vec<newtmq_mqtt::TopicFilter<'_>> =
        gone.iter().map(|filter| newtmq_mqtt::TopicFilter::new(filter).unwrap()).collect();
    let unsubscribe = newtmq_mqtt::Packet::Unsubscribe(newtmq_mqtt::Unsubscribe {
        packet_id: newtmq_mqtt::PacketId::new(2).unwrap(),
        user_properties: newtmq_mqtt::UserProperties::default(),
        filters: newtmq_mqtt::UnsubscribeFilters::new(&gone),
    });
    let mut bytes = Vec::new();
    unsubscribe.encode(V5, &mut bytes).unwrap();
    pair.input(0, ShardInput::Bytes { conn: r, data: &bytes });
    assert_eq!(pair.under_way[1].iter().filter(read).count(), 32);
    pair.settle();
    let sent: u64 = pair.shards.iter().map(|shard| shard.view().ledger().retained_sent).sum();
    assert_eq!(sent, (FILTERS - gone.len()) as u64);
    pair.shards.iter().for_each(|shard| shard.view().assert_idle());
}
