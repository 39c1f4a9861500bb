//! Wills that the cluster keeps: who publishes them, whatever happens to their node.

use core::time::Duration;

use bytes::Bytes;
use newtmq_base::{Instant, NodeId};
use newtmq_cluster::lane::Epoch;
use newtmq_cluster::meta::BlobKind;
use newtmq_cluster::owned::Phase;
use newtmq_mqtt::QoS;
use newtmq_session::{Message, MessageId, MessageParts, Will};

use super::world::World;
use crate::wills::KeptWill;
use crate::{ClusterCommand, WillNews, WillSaid};

const SECOND: Duration = Duration::from_secs(1);

fn will(delay_interval: u32) -> Bytes {
    let parts = MessageParts {
        id: MessageId(1),
        topic: b"will",
        forwardable: b"",
        payload: b"gone",
        qos: QoS::AtLeastOnce,
        retain: false,
        expires: Instant::NEVER,
        stretched: false,
    };
    let message = Message::new(&parts, &mut Vec::new());
    KeptWill::encode(&Will { message, message_expiry_interval: None, delay_interval }, u32::MAX)
}

fn epoch(seq: u64) -> Epoch {
    Epoch { term: 1, seq, provisional: 0, issuer: NodeId(0) }
}

/// A cluster of so many that has a leader, known to all.
fn running(nodes: usize) -> World {
    let mut world = World::new(7, nodes);
    world.start_all();
    let all: Vec<usize> = (0..nodes).collect();
    world.until("one cluster", 15 * SECOND, |world| world.is_whole(&all));
    world
}

/// Node 0 has the will of `c` kept.
fn kept(world: &mut World, delay: u32) {
    world.will(0, "c", epoch(1), WillSaid::Keep(will(delay)));
    world.until("kept", SECOND, |world| heard(world, 0).any(|news| matches!(news, WillNews::Kept { kept: true, .. })));
}

fn heard(world: &World, at: usize) -> impl Iterator<Item = &WillNews> {
    world.nodes[at].shards.iter().flat_map(|shard| &shard.wills)
}

/// How often a node was told to publish it.
fn published(world: &World, at: usize) -> usize {
    heard(world, at).filter(|news| matches!(news, WillNews::Publish { .. } | WillNews::Yours { .. })).count()
}

fn published_by_all(world: &World) -> usize {
    (0..world.nodes.len()).map(|at| published(world, at)).sum()
}

fn left(world: &World, at: usize) -> usize {
    let blobs = world.control(at).cluster().unwrap().meta().view().state.blobs();
    blobs.keys().filter(|(kind, _)| *kind == BlobKind::Will).count()
}

fn published_by_its_own_node() {
    let mut world = running(3);
    kept(&mut world, 0);
    world.will(0, "c", epoch(1), WillSaid::Due);
    world.run(SECOND);
    assert_eq!((published(&world, 0), published_by_all(&world)), (1, 1));
    world.run(30 * SECOND);
    world.crash(0);
    world.run(60 * SECOND);
    assert_eq!((published(&world, 1), published(&world, 2)), (0, 0));
    assert_eq!((left(&world, 1), left(&world, 2)), (0, 0));
}

fn node_dies_and_stays() {
    for delay in [0, 5, 30] {
        let mut world = running(3);
        kept(&mut world, delay);
        world.crash(0);
        world.run(Duration::from_secs(u64::from(delay)));
        assert_eq!(published_by_all(&world), 0, "delay {delay}: its node may come back");
        let late = world.until("published", 25 * SECOND, |world| published_by_all(world) == 1);
        assert!(late >= 7 * SECOND, "after {late:?}");
        world.run(30 * SECOND);
        assert_eq!(published_by_all(&world), 1, "delay {delay}");
    }
}

fn leader_dies_too() {
    let mut world = running(5);
    kept(&mut world, 0);
    let leader = world.control(0).cluster().unwrap().meta().view().leader.unwrap();
    let at = (0..5).find(|at| world.id(*at) == leader).unwrap();
    let owner = if at == 0 { 1 } else { 0 };
    if owner == 1 {
        world.will(1, "c", epoch(1), WillSaid::Keep(will(0)));
        world.will(0, "c", epoch(1), WillSaid::Over);
        world.run(5 * SECOND);
    }
    world.crash(owner);
    world.crash(at);
    world.run(60 * SECOND);
    assert_eq!(published_by_all(&world), 1);
}

fn clean_disconnect_then_death() {
    let mut world = running(3);
    kept(&mut world, 0);
    world.will(0, "c", epoch(1), WillSaid::Over);
    world.run(SECOND);
    world.crash(0);
    world.run(60 * SECOND);
    assert_eq!(published_by_all(&world), 0);
    assert_eq!(left(&world, 1), 0);
}

/// The node was not dead: its client is connected yet when it hears that the will is published.
fn cut_off_and_heals() {
    let mut world = running(3);
    kept(&mut world, 0);
    world.split(&[0], &[1, 2]);
    world.run(40 * SECOND);
    assert_eq!((published(&world, 0), published_by_all(&world)), (0, 1));
    world.heal();
    world.until("told", 30 * SECOND, |world| heard(world, 0).any(|news| matches!(news, WillNews::Over { .. })));
    world.will(0, "c", epoch(1), WillSaid::Due);
    world.run(60 * SECOND);
    // Its shard does not say so of one that it was told of; if it did, it is as one that was never kept.
    assert_eq!(left(&world, 0), 0);
}

/// It is due while its node is cut off, but that comes back before it is sure to be alone.
fn due_just_before_it_heals() {
    let mut world = running(3);
    kept(&mut world, 0);
    world.split(&[0], &[1, 2]);
    world.run(40 * SECOND);
    world.will(0, "c", epoch(1), WillSaid::Due);
    world.run(Duration::from_millis(100));
    world.heal();
    world.run(60 * SECOND);
    // 40 s without a leader: it was another component.
    assert!(published_by_all(&world) <= 2);
    let mut world = running(3);
    kept(&mut world, 0);
    world.split(&[0], &[1, 2]);
    world.run(9 * SECOND);
    world.will(0, "c", epoch(1), WillSaid::Due);
    world.run(2 * SECOND);
    world.heal();
    world.run(60 * SECOND);
    assert_eq!(published_by_all(&world), 1);
}

/// Each component may publish it once.
fn due_while_cut_off() {
    let mut world = running(3);
    kept(&mut world, 0);
    world.split(&[0], &[1, 2]);
    world.run(20 * SECOND);
    world.will(0, "c", epoch(1), WillSaid::Due);
    world.run(40 * SECOND);
    assert_eq!((published(&world, 0), published_by_all(&world)), (1, 2));
    world.heal();
    world.run(60 * SECOND);
    assert_eq!(published_by_all(&world), 2);
    assert_eq!((left(&world, 0), left(&world, 1)), (0, 0));
}

/// What is not stored does not know of it any more; the cluster does.
fn comes_back_without_the_session() {
    for (away, delay) in [(2, 0), (2, 5), (40, 0), (40, 30)] {
        let mut world = running(3);
        kept(&mut world, delay);
        world.crash(0);
        world.run(away * SECOND);
        world.start(0);
        world.run(90 * SECOND);
        assert_eq!(published_by_all(&world), 1, "away for {away} s, delay {delay}");
        assert_eq!((left(&world, 0), left(&world, 1)), (0, 0), "away for {away} s, delay {delay}");
    }
}

fn comes_back_with_the_session() {
    for (away, published_elsewhere) in [(2, false), (40, true)] {
        let mut world = running(3);
        kept(&mut world, 0);
        world.crash(0);
        world.run(away * SECOND);
        // Its epoch may have risen since.
        world.nodes[0].stored_wills.push(("c".to_owned(), epoch(2)));
        world.start(0);
        world.will(0, "c", epoch(2), WillSaid::Due);
        world.run(60 * SECOND);
        assert_eq!(published_by_all(&world), 1, "away for {away} s");
        assert_eq!(published(&world, 0), usize::from(!published_elsewhere), "away for {away} s");
        let of_it = |news: &&WillNews| match news {
            WillNews::Yours { epoch: of, .. } | WillNews::Over { epoch: of, .. } => *of == epoch(2),
            WillNews::Kept { .. } | WillNews::Publish { .. } => false,
        };
        assert_eq!(heard(&world, 0).filter(of_it).count(), 1, "away for {away} s");
        assert_eq!((left(&world, 0), left(&world, 1)), (0, 0), "away for {away} s");
    }
}

/// Or its will would go to nobody at a node whose link is there later.
fn waits_for_routes() {
    let mut world = running(3);
    kept(&mut world, 0);
    world.crash(0);
    world.run(SECOND);
    world.split(&[0, 1], &[2]);
    world.start(0);
    world.run(6 * SECOND);
    world.heal();
    world.until("published", 15 * SECOND, |world| published(world, 0) == 1);
    let of = world.id(2);
    assert_eq!(world.control(0).owned().phase(of), Phase::Open);
}

/// A session whose will was never kept publishes it by itself.
fn never_kept() {
    let mut world = running(3);
    world.crash(0);
    world.run(SECOND);
    world.nodes[0].stored_wills.push(("c".to_owned(), epoch(1)));
    world.start(0);
    world.will(0, "c", epoch(1), WillSaid::Due);
    world.run(30 * SECOND);
    assert_eq!((published(&world, 0), published_by_all(&world)), (1, 1));
}

fn comes_elsewhere() {
    for (delay, clean, times) in [(30, false, 0), (30, true, 1), (0, false, 1)] {
        let mut world = running(3);
        world.claim(0, "c", false);
        world.until("granted", 5 * SECOND, |world| world.nodes[0].shards[0].grants.contains_key("c"));
        let first = world.nodes[0].shards[0].grants["c"];
        world.will(0, "c", first, WillSaid::Keep(will(delay)));
        world.run(SECOND);
        world.crash(0);
        world.run(3 * SECOND);
        world.claim(1, "c", clean);
        world.until("granted", 20 * SECOND, |world| world.nodes[1].shards[0].grants.contains_key("c"));
        world.run(60 * SECOND);
        assert_eq!(published_by_all(&world), times, "delay {delay}, clean {clean}");
        world.start(0);
        world.run(15 * SECOND);
        assert_eq!(published_by_all(&world), times, "delay {delay}, clean {clean}");
        assert_eq!(left(&world, 1), 0, "delay {delay}, clean {clean}");
    }
}

fn node_is_removed() {
    let mut world = World::new(7, 3);
    for node in &mut world.nodes {
        node.config.meta.autoclean = Some(20 * SECOND);
    }
    world.start_all();
    world.until("one cluster", 15 * SECOND, |world| world.is_whole(&[0, 1, 2]));
    kept(&mut world, 60);
    world.crash(0);
    world.run(60 * SECOND);
    assert_eq!(published_by_all(&world), 0);
    world.run(60 * SECOND);
    assert_eq!(published_by_all(&world), 1);
    // It may come back by itself, and must not publish it then.
    assert_eq!(left(&world, 1), 1);
    world.start(0);
    world.run(60 * SECOND);
    assert_eq!((published_by_all(&world), left(&world, 1)), (1, 0));
}

/// Nobody waits for a majority that is not there; it is kept as soon as there is one.
fn without_a_majority() {
    let mut world = running(3);
    world.split(&[0], &[1, 2]);
    world.run(20 * SECOND);
    world.will(0, "c", epoch(1), WillSaid::Keep(will(0)));
    world.until("let in", SECOND, |world| {
        heard(world, 0).any(|news| matches!(news, WillNews::Kept { kept: false, .. }))
    });
    world.heal();
    world.until("kept", 40 * SECOND, |world| left(world, 1) == 1);
    world.crash(0);
    world.run(60 * SECOND);
    assert_eq!(published_by_all(&world), 1);
}

fn too_large() {
    let mut world = running(2);
    world.will(0, &"c".repeat(600), epoch(1), WillSaid::Keep(will(0)));
    world.until("answered", SECOND, |world| {
        heard(world, 0).any(|news| matches!(news, WillNews::Kept { kept: false, .. }))
    });
    world.will(0, &"c".repeat(600), epoch(1), WillSaid::Due);
    world.until("published", SECOND, |world| published(world, 0) == 1);
}

/// Its node leaves, and is reached as before: the others publish it all the same.
fn node_leaves() {
    let mut world = running(3);
    kept(&mut world, 20);
    world.command(0, ClusterCommand::Leave);
    world.until("it has left", 20 * SECOND, |world| world.is_whole(&[1, 2]) && world.is_whole(&[0]));
    let others = |world: &World| published(world, 1) + published(world, 2);
    world.run(10 * SECOND);
    assert_eq!(others(&world), 0);
    world.run(60 * SECOND);
    assert_eq!((others(&world), left(&world, 1)), (1, 0));
}

/// Where nobody has a will that is kept, nobody is remembered for it.
fn nobody_has_one() {
    let mut world = running(3);
    for second in 0..100 {
        world.claim(0, &format!("c{second}"), false);
        world.run(SECOND);
    }
    assert_eq!(world.nodes[0].shards.iter().map(|shard| shard.grants.len()).sum::<usize>(), 100);
    assert_eq!(world.control(0).cluster().unwrap().comers(), 0);
    // The first one is kept and published as any.
    kept(&mut world, 0);
    world.crash(0);
    world.run(60 * SECOND);
    assert_eq!(published_by_all(&world), 1);
}

pub(super) const ALL: &[fn()] = &[
    node_leaves,
    nobody_has_one,
    published_by_its_own_node,
    node_dies_and_stays,
    leader_dies_too,
    clean_disconnect_then_death,
    cut_off_and_heals,
    due_just_before_it_heals,
    due_while_cut_off,
    comes_back_without_the_session,
    comes_back_with_the_session,
    waits_for_routes,
    never_kept,
    comes_elsewhere,
    node_is_removed,
    without_a_majority,
    too_large,
];

#[test]
fn wills_are_published_once() {
    ALL.iter().for_each(|scene| scene());
}
