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

/// Of two nodes that were alone the second one is told to join the first.
fn joining() -> World {
    let mut world = World::new(3, 2);
    for node in &mut world.nodes {
        node.seeds = None;
        node.config.discovers = false;
    }
    world.start_all();
    world.run(SECOND);
    let address = world.nodes[0].address;
    world.command(1, ClusterCommand::Join(address));
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

/// A node that comes to a cluster brings more than the group takes at once.
pub(super) fn a_node_brings_more_than_is_taken_at_once() {
    let mut world = joining();
    for number in 0..100 {
        let mut large = message(Duration::ZERO).to_vec();
        large.resize(400_000, b'x');
        world.bring(1, &number.to_string(), large.into());
    }
    world.until("one cluster", 20 * SECOND, |world| world.is_whole(&[0, 1]));
    let all = |world: &World| (0..100).all(|number| has(world, 0, &number.to_string()));
    world.until("all of it is there", 60 * SECOND, all);
}

/// While a node brings what it had, somebody deletes some of it: that stays deleted.
pub(super) fn what_is_deleted_meanwhile_does_not_come_back() {
    let mut world = joining();
    world.until("one cluster", 20 * SECOND, |world| world.is_whole(&[0, 1]));
    world.until("somebody leads", 15 * SECOND, |world| leader(world).is_some());
    world.disk = SECOND / 2;
    for number in 0..3_000 {
        world.bring(1, &format!("t/{number:04}"), message(Duration::ZERO));
    }
    world.run(SECOND);
    retain(&mut world, 0, "t/2999", Bytes::new());
    assert!(!has(&world, 0, "t/2998"), "it is under way");
    let is_there = |world: &World| (0..2_999).all(|number| has(world, 0, &format!("t/{number:04}")));
    world.until("all the others are there", 120 * SECOND, is_there);
    world.run(10 * SECOND);
    assert!(!has(&world, 0, "t/2999") && !has(&world, 1, "t/2999"));
}

/// Whatever becomes of a node's cluster, who asked it to retain something hears what became of that.
pub(super) fn everybody_is_answered_while_its_cluster_changes() {
    for seed in 0..6 {
        let mut world = World::new(seed, 2);
        world.start_all();
        world.until("one cluster", 15 * SECOND, |world| world.is_whole(&[0, 1]));
        world.until("somebody leads", 15 * SECOND, |world| leader(world).is_some());
        world.disk = Duration::from_millis(20);
        world.command(1, ClusterCommand::Leave);
        world.until("it has left", 20 * SECOND, |world| world.is_whole(&[0]) && world.is_whole(&[1]));
        world.run(5 * SECOND);
        let address = world.nodes[0].address;
        world.command(1, ClusterCommand::Join(address));
        let mut asked = Vec::new();
        while !world.is_whole(&[0, 1]) {
            asked.push(world.retain(1, "t", message(Duration::ZERO)));
            world.run(Duration::from_millis(3));
        }
        world.until("all are answered", 20 * SECOND, |world| {
            asked.iter().all(|number| world.nodes[1].shards[0].retained.contains_key(number))
        });
    }
}

pub(super) const ALL: &[fn()] = &[
    a_node_brings_more_than_is_taken_at_once,
    what_is_deleted_meanwhile_does_not_come_back,
    everybody_is_answered_while_its_cluster_changes,
    who_leaves_takes_it_along,
    a_reader_waits_for_what_others_have_acknowledged,
    what_has_expired_is_deleted_everywhere,
];

#[test]
fn what_is_retained_is_agreed_on() {
    ALL.iter().for_each(|scene| scene());
}
