//! What nodes tell each other of subscriptions: their class, and a SUBACK that waits again.

use newtmq_cluster::owned::Class;
use newtmq_mqtt::QoS::AtLeastOnce;
use newtmq_node::{Durability, place_id};
use newtmq_topic::Holder;

use super::world::{World, id};
use crate::harness::{Connect, Got, Publish, Subscribe};

/// The classes of the places of node 1 that the first shard of node 0 has for a filter.
fn classes(world: &World, filter: &str) -> Vec<Class> {
    let view = world.nodes[0].shards[0].view();
    let slot = view.slot_of(id(1)).unwrap();
    let shard = newtmq_base::ShardId(0);
    let is = |class| move |holder: &Holder| matches!(holder, Holder::Place(place, _) if *place == place_id(slot, shard, class));
    let table = view.table();
    let mut of = table.iter().filter(|entry| entry.filter == filter).map(|entry| entry.holder);
    let holders: Vec<Holder> = of.by_ref().collect();
    [Class::Transient, Class::Durable].into_iter().filter(|class| holders.iter().any(is(*class))).collect()
}

#[test]
pub(super) fn a_session_that_begins_to_be_stored_changes_its_class() {
    let mut world = World::new(1, 2, 1, |config| {
        let mut stores = config.zones[0].clone();
        (stores.durability, stores.name) = (Durability::Synced, "stores".into());
        config.zones.push(stores);
        let mut listener = config.listeners[0].clone();
        listener.zone = 1;
        config.listeners.push(listener);
    });
    // Its zone keeps it in memory.
    let first = world.join(1, Connect::v5("r").resume());
    world.subscribe(first, "t", AtLeastOnce);
    assert_eq!(classes(&world, "t"), [Class::Transient]);
    world.listener = 1;
    let other = world.join(1, Connect::v5("o").resume());
    world.subscribe(other, "t", AtLeastOnce);
    world.subscribe(other, "$share/g/u", AtLeastOnce);
    assert_eq!(classes(&world, "t"), [Class::Transient, Class::Durable]);
    assert_eq!(classes(&world, "$share/g/u"), [Class::Durable]);
    // The session goes on in a zone that stores it.
    world.join(1, Connect::v5("r").resume());
    world.settle();
    assert_eq!(classes(&world, "t"), [Class::Durable]);
    // Two of one place are sent one message.
    let w = world.join(0, Connect::v5("w"));
    let before = world.ledger(0).sent_to_nodes;
    world.publish(w, Publish::new("t", "x").qos1());
    world.settle();
    assert_eq!(world.ledger(0).sent_to_nodes - before, 1);
}

#[test]
pub(super) fn nodes_keep_their_slots_apart() {
    let mut world = World::new(2, 3, 2, |_| {});
    for node in 0..3 {
        let r = world.join(node, Connect::v5(&format!("r{node}")));
        world.subscribe(r, &format!("t/{node}"), AtLeastOnce);
    }
    let w = world.join(2, Connect::v5("w"));
    for node in 0..3 {
        world.publish(w, Publish::new(&format!("t/{node}"), "x").qos1());
    }
    world.settle();
    assert_eq!(world.ledger(2).sent_to_nodes, 2);
    for (at, person) in (0..3).enumerate() {
        assert_eq!(world.received(person), [format!("t/{at} x")]);
    }
}

// cluster.md 3: SUBACK waits until everybody has installed a version that contains the filter, also when it was there.
#[test]
pub(super) fn a_suback_waits_again_for_those_who_did_not_answer() {
    let mut world = World::new(3, 2, 1, |_| {});
    let r = world.join(1, Connect::v5("r"));
    world.barriers_fail = true;
    world.subscribe(r, "t", AtLeastOnce);
    world.barriers_fail = false;
    // The same filter: nothing changes, and still the others are asked.
    world.cut(0, 1);
    world.connect(0, 1);
    let other = world.join(1, Connect::v5("o"));
    world.send_subscribe(r, &Subscribe::new("t", AtLeastOnce));
    let asked = |world: &World| world.nodes[1].told;
    let before = asked(&world);
    world.settle();
    assert!(world.log(r).iter().any(|got| matches!(got, Got::Suback(..))));
    assert_eq!(asked(&world), before + 1);
    // Once it is known that all know, it is not asked again.
    world.subscribe(r, "t", AtLeastOnce);
    assert_eq!(asked(&world), before + 1);
    world.disconnect(other);
}
