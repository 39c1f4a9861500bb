//! Sessions of clients, as whole nodes decide about them.

use core::time::Duration;

use super::world::World;
use crate::{ClusterAnswer, ClusterCommand};

const SECOND: Duration = Duration::from_secs(1);

/// A cluster of its own counts its leaders from the first; a node that has led one for long comes to it.
pub(super) fn who_comes_from_later_terms_obeys_the_leader() {
    let mut world = World::new(9, 3);
    for node in &mut world.nodes {
        node.seeds = None;
        node.config.discovers = false;
    }
    world.start(0);
    world.start(1);
    let join = |world: &mut World, at: usize, to: usize| {
        let address = world.nodes[to].address;
        let request = world.command(at, ClusterCommand::Join(address));
        world.until("an answer", 40 * SECOND, |world| world.nodes[at].answers.contains_key(&request));
        assert_eq!(world.nodes[at].answers[&request], ClusterAnswer::Done);
    };
    world.run(SECOND);
    join(&mut world, 1, 0);
    world.until("two of them", 15 * SECOND, |world| world.is_whole(&[0, 1]));
    world.start(2);
    for _ in 0..8 {
        world.run(2 * SECOND);
        world.crash(2);
        world.start(2);
    }
    world.run(2 * SECOND);
    let term = |world: &World, at: usize| world.control(at).cluster().unwrap().meta().view().term;
    assert!(term(&world, 2) > term(&world, 0) + 2);
    join(&mut world, 2, 0);
    world.until("all of them", 15 * SECOND, |world| world.is_whole(&[0, 1, 2]));
    world.claim(2, "c", false);
    world.until("a session", 5 * SECOND, |world| world.nodes[2].shards[0].grants.contains_key("c"));
}

pub(super) const ALL: &[fn()] = &[who_comes_from_later_terms_obeys_the_leader];

#[test]
fn sessions_are_granted() {
    ALL.iter().for_each(|scene| scene());
}
