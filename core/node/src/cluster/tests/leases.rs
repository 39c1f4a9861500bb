//! Strict barriers: who is waited for.

use core::time::Duration;

use newtmq_cluster::owned::{Class, Phase};

use super::world::World;

const SECOND: Duration = Duration::from_secs(1);

/// A node whose disk takes nothing matches nobody's new routes, and acknowledges nothing for them: nobody waits for it.
pub(super) fn who_cannot_store_routes_is_not_waited_for() {
    let mut world = World::new(15, 3);
    for node in &mut world.nodes {
        node.config.strict = true;
    }
    world.start_all();
    world.until("one cluster", 15 * SECOND, |world| world.is_whole(&[0, 1, 2]));
    world.crash(2);
    world.run(20 * SECOND);
    world.subscribe(0, 0, "while it is away", Class::Durable);
    world.run(SECOND);
    world.nodes[2].is_full = true;
    world.start(2);
    world.run(20 * SECOND);
    let (one, full) = (world.id(0), world.id(2));
    assert!(world.control(0).cluster().unwrap().reached().any(|(node, _)| node == full));
    assert_ne!(world.control(2).owned().phase(one), Phase::Open);
    let before = world.nodes[0].shards[0].committed.len();
    world.subscribe(0, 0, "t", Class::Transient);
    world.until("a SUBACK", 3 * SECOND, |world| world.nodes[0].shards[0].committed.len() > before);
    assert_eq!(world.nodes[0].shards[0].committed.last_key_value().map(|(_, complete)| *complete), Some(true));
}

pub(super) const ALL: &[fn()] = &[who_cannot_store_routes_is_not_waited_for];

#[test]
fn subacks_wait_for_who_matters() {
    ALL.iter().for_each(|scene| scene());
}
