//! What the cluster agrees to retain: who knows it, who waits for it, and what becomes of it when nodes go.

use core::time::Duration;

use bytes::Bytes;
use newtmq_base::Put;
use newtmq_cluster::owned::Class;

use super::world::World;
use crate::{ClusterCommand, RetainedOutcome};

const SECOND: Duration = Duration::from_secs(1);

fn running(nodes: usize) -> World {
    let mut world = World::new(3, nodes);
    world.start_all();
    let all: Vec<usize> = (0..nodes).collect();
    world.until("one cluster", 15 * SECOND, |world| world.is_whole(&all));
    world.until("somebody leads", 15 * SECOND, |world| leader(world).is_some());
    world
}

fn leader(world: &World) -> Option<usize> {
    let leads = |node: &super::world::Node| {
        let control = node.control.as_ref()?.cluster()?;
        control.retained().view().is_leader.then_some(())
    };
    world.nodes.iter().position(|node| leads(node).is_some())
}

/// As a shard writes it, for some time or for ever.
fn message(lives: Duration) -> Bytes {
    let mut bytes = Vec::new();
    Put(&mut bytes).byte(1).number(u64::try_from(lives.as_nanos()).unwrap()).bytes(b"");
    bytes.extend_from_slice(b"kept");
    bytes.into()
}

/// A client of a node has a message retained; the index of its entry.
fn retain(world: &mut World, at: usize, topic: &str, message: Bytes) -> u64 {
    let number = world.retain(at, topic, message);
    world.until("an answer", 10 * SECOND, |world| world.nodes[at].shards[0].retained.contains_key(&number));
    let RetainedOutcome::At(index) = world.nodes[at].shards[0].retained[&number] else { panic!("refused") };
    index
}

fn has(world: &World, at: usize, topic: &str) -> bool {
    let item = world.control(at).cluster().unwrap().retained().item(topic);
    item.is_some_and(|(_, message)| message.is_some())
}

pub(super) fn who_leaves_takes_it_along() {
    let mut world = running(3);
    retain(&mut world, 0, "t", message(Duration::ZERO));
    world.until("everybody has it", SECOND, |world| (0..3).all(|at| has(world, at, "t")));
    world.command(1, ClusterCommand::Leave);
    world.until("it has left", 20 * SECOND, |world| world.is_whole(&[0, 2]) && world.is_whole(&[1]));
    world.until("it has it by itself", 10 * SECOND, |world| has(world, 1, "t"));
    assert!(has(&world, 0, "t") && has(&world, 2, "t"));
}

/// What another node has acknowledged is not on its way to this one, which is told of it by an answer to its routes.
pub(super) fn a_reader_waits_for_what_others_have_acknowledged() {
    let mut world = running(3);
    retain(&mut world, 0, "t", message(Duration::ZERO));
    world.run(SECOND);
    let leader = leader(&world).unwrap();
    let (writer, reader) = ((leader + 1) % 3, (leader + 2) % 3);
    world.cut(leader, reader);
    let index = retain(&mut world, writer, "t", message(Duration::ZERO));
    let before = world.nodes[reader].shards[0].committed.len();
    world.subscribe(reader, 0, "t", Class::Transient);
    world.until("a SUBACK", SECOND, |world| world.nodes[reader].shards[0].committed.len() > before);
    assert!(world.control(reader).cluster().unwrap().retained().applied() < index, "it does not have it yet");
    assert!(world.nodes[reader].shards[0].reads_at >= index);
}

pub(super) fn what_has_expired_is_deleted_everywhere() {
    let mut world = running(3);
    let (first, last) = (leader(&world).unwrap(), (leader(&world).unwrap() + 1) % 3);
    retain(&mut world, first, "short", message(20 * SECOND));
    retain(&mut world, last, "long", message(100 * SECOND));
    retain(&mut world, last, "for ever", message(Duration::ZERO));
    world.run(10 * SECOND);
    assert!((0..3).all(|at| has(&world, at, "short")));
    world.run(11 * SECOND);
    assert!((0..3).all(|at| !has(&world, at, "short") && has(&world, at, "long")));
    // Another leader knows, too.
    world.crash(first);
    world.run(90 * SECOND);
    world.start(first);
    world.run(20 * SECOND);
    assert!((0..3).all(|at| !has(&world, at, "long") && has(&world, at, "for ever")));
}

pub(super) const ALL: &[fn()] = &[
    who_leaves_takes_it_along,
    a_reader_waits_for_what_others_have_acknowledged,
    what_has_expired_is_deleted_everywhere,
];

#[test]
fn what_is_retained_is_agreed_on() {
    ALL.iter().for_each(|scene| scene());
}
