//! Sessions that outlive their nodes: what is acknowledged is on their disks, and a QoS 2 message comes once through restarts of
//! either side.

use core::time::Duration;
use std::collections::BTreeMap;

use newtmq_mqtt::QoS::{AtLeastOnce, ExactlyOnce};
use newtmq_mqtt::{PacketType, ReasonCode};
use newtmq_node::{Durability, ShardConfig};

use super::world::World;
use crate::harness::{Connect, Got, Publish};

fn stores(config: &mut ShardConfig) {
    config.zones[0].durability = Durability::Synced;
}

fn durable(world: &mut World, node: usize, name: &str) -> usize {
    let person = world.join(node, Connect::v5(name).resume());
    world.subscribe(person, "t/#", ExactlyOnce);
    person
}

// cluster.md 5: PUBACK after the remote fsync.
#[test]
pub(super) fn an_acknowledgement_waits_for_the_disk_of_the_other_node() {
    for (seed, shards) in [(1, 1), (2, 3)] {
        let mut world = World::new(seed, 2, shards, stores);
        let r = durable(&mut world, 1, "r");
        let w = world.join(0, Connect::v5("w"));
        world.nodes[1].stuck = true;
        let ids = [AtLeastOnce, ExactlyOnce].map(|qos| world.publish(w, Publish::new("t/1", "x").qos(qos)));
        world.settle();
        assert_eq!(world.received_now(r).len(), 1, "QoS 1; of QoS 2 the identifier has to be stored first");
        assert_eq!(world.acked(w), []);
        world.nodes[1].stuck = false;
        world.store_soon(1);
        world.settle();
        assert_eq!(world.acked(w), ids.map(|id| (id, ReasonCode::Success)));
        assert_eq!(world.received_now(r).len(), 1);
        world.settle();
        world.assert_idle();
    }
}

#[test]
pub(super) fn what_was_acknowledged_is_there_after_a_restart() {
    for seed in 0..40 {
        let mut world = World::new(seed, 2, 1, stores);
        let r = durable(&mut world, 1, "r");
        world.disconnect(r);
        world.settle();
        let w = world.join(0, Connect::v5("w"));
        let mut acked = 0;
        for number in 0..30 {
            world.publish(w, Publish::new("t/1", number.to_string()).qos1());
            let pause = world.rng.below(2_000);
            world.advance(Duration::from_micros(pause));
            if number == 20 {
                acked = world.acked(w).iter().filter(|(_, reason)| *reason == ReasonCode::Success).count();
                world.kill(1);
                world.settle();
                world.restart(1);
                world.advance(Duration::from_secs(2));
            }
        }
        assert!(acked > 0);
        world.advance(Duration::from_secs(12));
        let r = world.join(1, Connect::v5("r").resume());
        let got = world.received(r);
        let expected: Vec<String> = (0..acked).map(|number| format!("t/1 {number}")).collect();
        assert_eq!(got[..acked.min(got.len())], expected, "seed {seed}");
        let mut sorted: Vec<u32> = got.iter().map(|text| text[4..].parse().unwrap()).collect();
        sorted.dedup();
        assert!(sorted.is_sorted(), "seed {seed}: {got:?}");
    }
}

/// The second node dies, and the first one has noticed it.
fn dies(world: &mut World) {
    world.kill(1);
    world.settle();
    world.down(0, 1);
}

fn texts(numbers: core::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| format!("t/1 {number}")).collect()
}

/// Publishes so many with QoS 1 and 2 in turns; their Packet Identifiers.
fn publishes(world: &mut World, w: usize, numbers: core::ops::Range<usize>) -> Vec<u16> {
    let of = |number: usize| Publish::new("t/1", number.to_string());
    let each = |number| if number % 2 == 0 { of(number).qos1() } else { of(number).qos2() };
    numbers.map(|number| world.publish(w, each(number))).collect()
}

// cluster.md 3: a stored session of a node that is down gets what was acknowledged, when the node is back.
#[test]
pub(super) fn what_is_for_a_stored_session_waits_for_its_node() {
    for (seed, shards) in [(1, 1), (2, 3), (3, 2)] {
        let mut world = World::new(seed, 2, shards, stores);
        let r = durable(&mut world, 1, "r");
        world.disconnect(r);
        let w = world.join(0, Connect::v5("w"));
        let mut ids = publishes(&mut world, w, 0..2);
        dies(&mut world);
        world.nodes[0].stuck = true;
        ids.extend(publishes(&mut world, w, 2..8));
        world.settle();
        assert_eq!(world.acked(w), [], "nothing is on a disk");
        world.nodes[0].stuck = false;
        world.store_soon(0);
        world.settle();
        assert_eq!(world.acked(w), ids.into_iter().map(|id| (id, ReasonCode::Success)).collect::<Vec<_>>());
        assert_eq!((world.ledger(0).hinted, world.ledger(0).not_hinted), (8, 0));
        // QoS 0 promises nothing.
        world.publish(w, Publish::new("t/1", "gone"));
        world.restart(1);
        world.advance(Duration::from_secs(2));
        publishes(&mut world, w, 8..10);
        world.settle();
        let r = world.join(1, Connect::v5("r").resume());
        let mut got = world.received(r);
        // What was under way came before the end, perhaps, and comes with QoS 1 once more.
        got.dedup();
        assert_eq!(got, texts(0..10), "seed {seed}");
        world.settle();
        assert_eq!(world.ledger(0).hints_sent, world.ledger(0).hinted);
        world.assert_idle();
    }
}

// cluster.md 3: owner_down_hint_then_source_crash.
#[test]
pub(super) fn what_waits_for_a_node_outlives_a_restart() {
    for seed in 0..20 {
        let mut world = World::new(seed, 2, 1 + seed as u16 % 3, stores);
        let r = durable(&mut world, 1, "r");
        world.disconnect(r);
        let w = world.join(0, Connect::v5("w").resume());
        dies(&mut world);
        let ids = publishes(&mut world, w, 0..6);
        world.settle();
        assert_eq!(world.acked(w).len(), ids.len());
        world.kill(0);
        world.restart(0);
        world.restart(1);
        world.advance(Duration::from_secs(2));
        let r = world.join(1, Connect::v5("r").resume());
        let got: Vec<u32> = world.received(r).iter().map(|text| text[4..].parse().unwrap()).collect();
        let (twos, mut ones): (Vec<u32>, Vec<u32>) = got.iter().partition(|number| *number % 2 == 1);
        ones.dedup();
        assert_eq!((ones, twos), (vec![0, 2, 4], vec![1, 3, 5]), "seed {seed}");
        world.settle();
        world.assert_idle();
    }
}

// What was sent there and is not stored when that node ends goes there once more.
#[test]
pub(super) fn what_waits_for_a_node_stays_until_it_is_stored_there() {
    for seed in 0..10 {
        let mut world = World::new(seed, 2, 1 + seed as u16 % 3, stores);
        let r = durable(&mut world, 1, "r");
        world.disconnect(r);
        let w = world.join(0, Connect::v5("w"));
        dies(&mut world);
        publishes(&mut world, w, 0..6);
        world.settle();
        world.restart(1);
        world.settle();
        world.nodes[1].stuck = true;
        world.advance(Duration::from_secs(2));
        world.kill(1);
        world.settle();
        world.nodes[1].stuck = false;
        world.restart(1);
        world.advance(Duration::from_secs(2));
        let r = world.join(1, Connect::v5("r").resume());
        assert_eq!(world.received(r), texts(0..6), "seed {seed}");
        world.assert_idle();
    }
}

// source_restart_mid_qos2, of what has waited: its node does not know any more that it has come.
#[test]
pub(super) fn what_has_come_does_not_come_again() {
    for seed in 0..20 {
        let mut world = World::new(seed, 2, 1, stores);
        let r = durable(&mut world, 1, "r");
        world.disconnect(r);
        let w = world.join(0, Connect { auto_ack: false, ..Connect::v5("w") });
        dies(&mut world);
        let ids: Vec<u16> =
            (0..6).map(|number| world.publish(w, Publish::new("t/1", number.to_string()).qos2())).collect();
        world.settle();
        assert_eq!(world.acked(w).len(), 6);
        world.nodes[0].stuck = true;
        world.restart(1);
        world.advance(Duration::from_secs(2));
        if seed % 2 == 0 {
            ids.iter().for_each(|id| world.ack(w, PacketType::Pubrel, *id));
            world.advance(Duration::from_millis(500));
        } else {
            world.kill(1);
        }
        world.kill(0);
        world.nodes[0].stuck = false;
        world.restart(0);
        world.restart(1);
        world.advance(Duration::from_secs(2));
        let r = world.join(1, Connect::v5("r").resume());
        assert_eq!(world.received(r), texts(0..6), "seed {seed}");
        world.settle();
        world.assert_idle();
    }
}

// The limit of what is kept for a node: its publishers are told.
#[test]
fn too_much_for_a_node_that_is_down_is_refused() {
    let mut world = World::new(1, 2, 1, |config| {
        stores(config);
        config.hints_bytes = 700;
    });
    let r = durable(&mut world, 1, "r");
    let w = world.join(0, Connect::v5("w"));
    world.cut(0, 1);
    world.settle();
    world.down(0, 1);
    let ids = publishes(&mut world, w, 0..6);
    world.settle();
    let acked = world.acked(w);
    let kept = acked.iter().filter(|(_, reason)| *reason == ReasonCode::Success).count();
    assert!((2..5).contains(&kept), "{acked:?}");
    let refused = |at: usize| if at < kept { ReasonCode::Success } else { ReasonCode::QuotaExceeded };
    assert_eq!(acked, ids.iter().enumerate().map(|(at, id)| (*id, refused(at))).collect::<Vec<_>>());
    assert_eq!((world.ledger(0).hinted, world.ledger(0).not_hinted), (kept as u64, 6 - kept as u64));
    world.connect(0, 1);
    world.advance(Duration::from_secs(2));
    assert_eq!(world.received(r), texts(0..kept));
    world.assert_idle();
}

// Where nothing can be kept a stored session of a node that is down cannot be promised anything.
#[test]
fn without_room_nothing_is_promised_for_a_stored_session_of_a_node_that_is_down() {
    let mut world = World::new(1, 2, 1, |config| {
        stores(config);
        config.hints_bytes = 0;
    });
    let r = durable(&mut world, 1, "r");
    let w = world.join(0, Connect::v5("w"));
    let under_way = world.publish(w, Publish::new("t/1", "0").qos1());
    world.cut(0, 1);
    world.settle();
    world.down(0, 1);
    let id = world.publish(w, Publish::new("t/1", "1").qos1());
    world.settle();
    assert_eq!(world.acked(w), [under_way, id].map(|id| (id, ReasonCode::QuotaExceeded)));
    assert_eq!(world.ledger(0).not_hinted, 2);
    // QoS 0 promises nothing.
    world.publish(w, Publish::new("t/1", "2"));
    world.connect(0, 1);
    world.advance(Duration::from_secs(2));
    let id = world.publish(w, Publish::new("t/1", "3").qos1());
    world.settle();
    assert_eq!(world.acked(w), [(id, ReasonCode::Success)]);
    assert_eq!(world.received(r).last().map(String::as_str), Some("t/1 3"));
    world.assert_idle();
}

/// A publisher with QoS 2 that comes back after each loss of its connection, and sends again what it must.
struct Faithful {
    person: usize,
    /// By Packet Identifier: the payload, and whether PUBREC has come.
    open: BTreeMap<u16, (usize, bool)>,
    sent: usize,
}

impl Faithful {
    fn connect(world: &mut World) -> usize {
        world.join(0, Connect { auto_ack: false, ..Connect::v311("w").resume() })
    }

    fn new(world: &mut World) -> Faithful {
        Faithful { person: Faithful::connect(world), open: BTreeMap::new(), sent: 0 }
    }

    fn publish(&mut self, world: &mut World) {
        let id =
            world.publish(self.person, Publish::new("t/1", self.sent.to_string()).qos2().id(self.sent as u16 % 20 + 1));
        self.open.insert(id, (self.sent, false));
        self.sent += 1;
    }

    /// Takes in what came; comes back if the connection is lost.
    fn turn(&mut self, world: &mut World) {
        let mut closed = false;
        for got in world.log(self.person) {
            match got {
                Got::Ack(PacketType::Pubrec, id, reason) if !reason.is_error() => {
                    self.open.get_mut(&id).unwrap().1 = true;
                    world.ack(self.person, PacketType::Pubrel, id);
                }
                Got::Ack(PacketType::Pubcomp, id, _) => drop(self.open.remove(&id)),
                Got::Closed => closed = true,
                other => panic!("{other:?}"),
            }
        }
        if closed && world.nodes[0].alive {
            self.person = Faithful::connect(world);
            let mut open: Vec<(u16, (usize, bool))> = self.open.iter().map(|(id, of)| (*id, *of)).collect();
            open.sort_by_key(|(_, (number, _))| *number);
            for (id, (number, released)) in open {
                if released {
                    world.people[self.person].script.packet_id(Some(id), PacketType::Publish);
                    world.ack(self.person, PacketType::Pubrel, id);
                } else {
                    world.publish(self.person, Publish::new("t/1", number.to_string()).qos2().id(id).dup());
                }
            }
        }
    }
}

/// QoS 2 from a stored session to one, while a node dies now and then.
fn once_though_dies(node: usize, seeds: core::ops::Range<u64>) {
    for seed in seeds {
        let mut world = World::new(seed, 2, 1, stores);
        let mut r = durable(&mut world, 1, "r");
        if node == 1 {
            world.disconnect(r);
        }
        world.settle();
        let mut w = Faithful::new(&mut world);
        while w.sent < 20 {
            w.publish(&mut world);
            for _ in 0..3 {
                let pause = world.rng.below(800);
                world.advance(Duration::from_micros(pause));
                w.turn(&mut world);
            }
            if world.rng.below(6) == 0 {
                world.kill(node);
                world.settle();
                world.restart(node);
                world.advance(Duration::from_millis(5));
                w.turn(&mut world);
            }
        }
        for _ in 0..400 {
            world.advance(Duration::from_millis(50));
            w.turn(&mut world);
            if w.open.is_empty() {
                break;
            }
        }
        assert!(w.open.is_empty(), "seed {seed}: {:?}", w.open);
        // What was acknowledged while it was away is on its way.
        world.advance(Duration::from_secs(2));
        if node == 1 {
            r = world.join(1, Connect::v5("r").resume());
        }
        let expected: Vec<String> = (0..20).map(|number| format!("t/1 {number}")).collect();
        assert_eq!(world.received(r), expected, "seed {seed}");
    }
}

// P4: exactly once onward per session, through restarts.
#[test]
pub(super) fn qos2_comes_once_though_its_publishers_node_dies() {
    once_though_dies(0, 0..40);
}

#[test]
pub(super) fn qos2_comes_once_though_its_subscribers_node_dies() {
    once_though_dies(1, 0..40);
}

// One message for a plain subscription and for a group at one shard: each of them gets it.
#[test]
pub(super) fn what_waits_for_a_node_and_its_groups_comes_to_all_of_them() {
    for seed in 0..10 {
        let mut world = World::new(seed, 2, 1, stores);
        let r = world.join(1, Connect::v5("r").resume());
        world.subscribe(r, "t", ExactlyOnce);
        let members = ["g1", "g2"].map(|group| {
            let member = world.join(1, Connect::v5(group).resume());
            world.subscribe(member, &format!("$share/{group}/t"), ExactlyOnce);
            member
        });
        let w = world.join(0, Connect { auto_ack: false, ..Connect::v5("w") });
        // It is on its way, and nothing of it is on a disk there.
        world.nodes[1].stuck = true;
        let id = world.publish(w, Publish::new("t", "x").qos2());
        world.settle();
        world.kill(1);
        world.nodes[1].stuck = false;
        world.settle();
        world.down(0, 1);
        world.settle();
        assert_eq!(world.acked(w), [(id, ReasonCode::Success)]);
        if seed % 2 == 0 {
            world.ack(w, PacketType::Pubrel, id);
        }
        world.restart(1);
        world.advance(Duration::from_secs(12));
        for person in [r].into_iter().chain(members) {
            let name = world.people[person].script.settings.client.clone();
            let again = world.join(1, Connect::v5(&name).resume());
            assert_eq!(world.received(again), ["t x"], "{name}, seed {seed}");
        }
        world.ack(w, PacketType::Pubrel, id);
        world.advance(Duration::from_secs(2));
        world.assert_idle();
    }
}

#[test]
pub(super) fn what_has_expired_takes_no_room_from_what_waits_for_a_node() {
    let mut world = World::new(1, 2, 1, |config| {
        stores(config);
        config.hints_bytes = 700;
    });
    let r = durable(&mut world, 1, "r");
    world.disconnect(r);
    let w = world.join(0, Connect::v5("w"));
    dies(&mut world);
    let publish = |world: &mut World, count: u32| {
        for _ in 0..count {
            world.publish(w, Publish::new("t/1", "x").qos1().expiry(5));
        }
        world.settle();
        world.acked(w).into_iter().filter(|(_, reason)| *reason == ReasonCode::Success).count()
    };
    let first = publish(&mut world, 10);
    assert!((1..10).contains(&first));
    assert_eq!(publish(&mut world, 2), 0);
    world.advance(Duration::from_secs(6));
    assert_eq!(publish(&mut world, 10), first);
    assert_eq!(world.ledger(0).hints_ended, first as u64);
}
