//! What a cluster goes through.

use core::time::Duration;

use newtmq_base::{Incarnation, Instant, NodeId, ShardId};
use newtmq_cluster::link::{self, Cookie};
use newtmq_cluster::owned::{Class, Phase};
use newtmq_cluster::{lane, meta};

use super::world::{World, config};
use crate::{ClusterAnswer, ClusterCommand, ClusterConfig, ClusterEvent, PeerNews, Unready};

const SECOND: Duration = Duration::from_secs(1);

pub(super) fn subscribe_all(world: &mut World) {
    for at in 0..world.nodes.len() {
        for (shard, filter, class) in
            [(0, "a/+", Class::Transient), (1, "b", Class::Durable), (0, "$share/g/c", Class::Transient)]
        {
            world.subscribe(at, shard, filter, class);
            world.subscribe(at, shard, &format!("{filter}/{at}"), class);
        }
    }
}

fn whole(world: &mut World, nodes: &[usize], most: Duration) -> Duration {
    world.until("one cluster", most, |world| world.is_whole(nodes))
}

/// A cluster that runs, and everybody's routes.
fn running(seed: u64, nodes: usize, change: impl Fn(&mut ClusterConfig)) -> World {
    let mut world = World::new(seed, nodes);
    world.nodes.iter_mut().for_each(|node| change(&mut node.config));
    world.start_all();
    subscribe_all(&mut world);
    let all: Vec<usize> = (0..nodes).collect();
    whole(&mut world, &all, 15 * SECOND);
    world
}

fn manual(config: &mut ClusterConfig) {
    config.discovers = false;
}

/// Nodes that found a cluster each.
fn alone(seed: u64, nodes: usize) -> World {
    let mut world = World::new(seed, nodes);
    for node in &mut world.nodes {
        node.seeds = None;
        manual(&mut node.config);
    }
    world.start_all();
    subscribe_all(&mut world);
    (0..nodes).for_each(|at| _ = whole(&mut world, &[at], SECOND));
    world
}

fn join(world: &mut World, at: usize, to: usize) -> ClusterAnswer {
    let address = world.nodes[to].address;
    ask(world, at, ClusterCommand::Join(address))
}

fn ask(world: &mut World, at: usize, command: ClusterCommand) -> ClusterAnswer {
    let request = world.command(at, command);
    world.until("an answer", 40 * SECOND, |world| world.nodes[at].answers.contains_key(&request));
    world.nodes[at].answers[&request].clone()
}

fn unready(world: &World, at: usize) -> Option<Unready> {
    world.control(at).cluster().and_then(|cluster| cluster.unready())
}

fn last_news(world: &World, at: usize, of: NodeId) -> Option<PeerNews> {
    world.nodes[at].shards[1].news.get(&of)?.last().copied()
}

pub(super) fn three_find_each_other() {
    for seed in 0..5 {
        let mut world = running(seed, 3, |_| {});
        world.subscribe(1, 1, "late", Class::Transient);
        world.unsubscribe(2, 0, "a/+", Class::Transient);
        whole(&mut world, &[0, 1, 2], SECOND);
        assert!(world.nodes.iter().all(|node| node.shards.iter().all(|shard| shard.is_recovered)));
        assert!(world.nodes[1].shards[1].committed.values().all(|complete| *complete));
        let leaders: Vec<_> = (0..3).map(|at| world.control(at).cluster().unwrap().meta().view().leader).collect();
        assert!(leaders[0].is_some() && leaders.iter().all(|leader| *leader == leaders[0]));
    }
}

pub(super) fn five_find_each_other() {
    let mut world = running(1, 5, |_| {});
    let ClusterAnswer::Status(status) = ask(&mut world, 3, ClusterCommand::Status) else { panic!("no status") };
    assert!(status.is_member && status.name == "test" && status.nodes.len() == 5);
    assert!(status.nodes.iter().all(|node| node.is_up && node.is_alive && node.routes == "open" && node.entries == 6));
    assert!(status.nodes.iter().filter(|node| node.role == "voter").count() >= 3);
    assert_eq!(status.nodes.iter().filter(|node| node.is_self).count(), 1);
}

pub(super) fn an_examination_names_who_is_down_or_cut_off() {
    let mut world = running(1, 3, |_| {});
    let examine = |world: &mut World| {
        let ClusterAnswer::Examined(said) = ask(world, 0, ClusterCommand::Examine) else { panic!("no examination") };
        (said.charts.len(), said.findings.iter().map(|finding| finding.kind).collect::<Vec<_>>())
    };
    assert_eq!(examine(&mut world), (3, vec![]));
    world.crash(2);
    world.run(15 * SECOND);
    assert_eq!(examine(&mut world), (2, vec!["down"]));
    world.split(&[0], &[1]);
    world.run(15 * SECOND);
    assert_eq!(examine(&mut world), (1, vec!["down", "down", "no_quorum"]));
}

pub(super) fn cold_start_in_two_parts_is_one_cluster() {
    for seed in 0..4 {
        let mut world = World::new(seed, 3);
        world.split(&[0], &[1, 2]);
        world.start_all();
        subscribe_all(&mut world);
        whole(&mut world, &[1, 2], 15 * SECOND);
        assert!(world.control(0).cluster().unwrap().meta().cluster().is_none(), "one of three founds nothing");
        world.run(20 * SECOND);
        world.heal();
        whole(&mut world, &[0, 1, 2], 20 * SECOND);
    }
}

pub(super) fn late_joiner() {
    let mut world = running(2, 3, |_| {});
    let late = world.add(config());
    world.nodes[late].seeds = Some(([world.nodes[1].address].into(), false));
    world.start(late);
    subscribe_all(&mut world);
    whole(&mut world, &[0, 1, 2, 3], 10 * SECOND);
}

pub(super) fn a_node_starts_again() {
    for seed in 0..4 {
        let mut world = running(seed, 3, |_| {});
        let old = world.id(2);
        world.crash(2);
        world.until("it is masked", 15 * SECOND, |world| world.control(0).owned().phase(old) == Phase::Masked);
        world.run(SECOND);
        let of_old = |world: &World, class| {
            world.nodes[0].shards[0].table.keys().filter(|place| place.0 == old && place.2 == class).count()
        };
        assert_eq!((of_old(&world, Class::Durable), of_old(&world, Class::Transient)), (2, 0));
        assert_eq!(last_news(&world, 0, old), Some(PeerNews::Down));
        world.nodes[2].recovers_in = SECOND;
        world.start(2);
        // What outlives its node is matched all the time.
        for _ in 0..60 {
            assert_eq!(of_old(&world, Class::Durable), 2);
            world.run(SECOND / 10);
        }
        whole(&mut world, &[0, 1, 2], 15 * SECOND);
        assert_eq!(last_news(&world, 0, old), Some(PeerNews::Connected(Incarnation(2))));
    }
}

pub(super) fn all_start_again() {
    let mut world = running(3, 3, |_| {});
    (0..3).for_each(|at| world.crash(at));
    world.run(SECOND);
    // Without the others it knows by its disk what their durable routes are.
    world.start(1);
    world.run(SECOND);
    assert!(world.control(1).owned().without_table().next().is_none());
    assert_eq!(world.nodes[1].shards[0].acknowledge, Some(Instant::NEVER));
    let durable = world.nodes[1].shards[0].table.keys().filter(|place| place.2 == Class::Durable).count();
    assert_eq!(durable, 6);
    world.start(0);
    world.start(2);
    subscribe_all(&mut world);
    whole(&mut world, &[0, 1, 2], 15 * SECOND);
}

pub(super) fn what_a_suback_has_waited_for_is_on_the_disk() {
    for seed in 0..5 {
        let mut world = running(seed, 2, |_| {});
        world.disk = SECOND / 2;
        world.subscribe(0, 0, "d/new", Class::Durable);
        let before = world.nodes[0].shards[0].committed.len();
        world.until("it is committed", 2 * SECOND, |world| world.nodes[0].shards[0].committed.len() > before);
        let complete = *world.nodes[0].shards[0].committed.last_key_value().unwrap().1;
        world.crash(0);
        world.crash(1);
        world.start(1);
        world.run(SECOND);
        let is_there = world.nodes[1].shards[1].table.keys().any(|place| place.1 == "d/new");
        assert!(is_there || !complete, "seed {seed}");
    }
}

pub(super) fn without_a_table_nothing_is_acknowledged() {
    let mut world = running(4, 3, |config| config.owned.stored = false);
    world.crash(1);
    world.crash(2);
    world.crash(0);
    world.start(0);
    world.run(3 * SECOND);
    assert_eq!(world.control(0).owned().without_table().count(), 2);
    assert_eq!(world.nodes[0].shards[1].acknowledge, Some(Instant::START));
    world.start(1);
    world.start(2);
    subscribe_all(&mut world);
    whole(&mut world, &[0, 1, 2], 15 * SECOND);
    world.run(SECOND);
    assert_eq!(world.nodes[0].shards[1].acknowledge, Some(Instant::NEVER));
}

pub(super) fn who_stops_is_not_waited_for() {
    let mut world = running(7, 3, |_| {});
    let gone = world.id(2);
    world.stop(2);
    let is_reached =
        |world: &World, at: usize| world.control(at).cluster().unwrap().reached().any(|(node, _)| node == gone);
    world.until("goodbye", SECOND, |world| !is_reached(world, 0) && !is_reached(world, 1));
    world.crash(2);
    world.start(2);
    subscribe_all(&mut world);
    whole(&mut world, &[0, 1, 2], 10 * SECOND);
}

pub(super) fn autocleaned_node_comes_back_by_itself() {
    let clean = |config: &mut ClusterConfig| config.meta.autoclean = Some(20 * SECOND);
    let mut world = running(5, 3, clean);
    let old = world.id(0);
    world.split(&[0], &[1, 2]);
    world.until("it is removed", 60 * SECOND, |world| world.is_whole(&[1, 2]));
    world.run(SECOND);
    assert_eq!(last_news(&world, 1, old), Some(PeerNews::Forgotten));
    let is_removed = |event: &ClusterEvent| matches!(event, ClusterEvent::Removed { node, by: meta::RemovedBy::Autoclean } if *node == old);
    assert!(world.nodes[1].events.iter().any(|(_, event)| is_removed(event)));
    world.subscribe(0, 0, "apart", Class::Transient);
    world.heal();
    whole(&mut world, &[0, 1, 2], 30 * SECOND);
    assert!(world.nodes[0].shards[0].drained.is_empty(), "its clients stay");
}

pub(super) fn half_a_cluster_removes_nobody() {
    let clean = |config: &mut ClusterConfig| config.meta.autoclean = Some(20 * SECOND);
    let mut world = running(6, 4, clean);
    world.split(&[0, 1], &[2, 3]);
    world.run(90 * SECOND);
    let is_removed = |event: &ClusterEvent| matches!(event, ClusterEvent::Removed { .. });
    assert!(!world.nodes.iter().any(|node| node.events.iter().any(|(_, event)| is_removed(event))));
    world.heal();
    whole(&mut world, &[0, 1, 2, 3], 30 * SECOND);
}

pub(super) fn sole_node_joins_another_one() {
    let mut world = alone(7, 3);
    assert_eq!(join(&mut world, 1, 0), ClusterAnswer::Done);
    whole(&mut world, &[0, 1], 10 * SECOND);
    assert!(world.nodes[1].events.iter().any(|(_, event)| matches!(event, ClusterEvent::Abandoned(_))));
    assert!(matches!(join(&mut world, 1, 2), ClusterAnswer::Refused(_)), "it is not alone");
    assert_eq!(join(&mut world, 2, 1), ClusterAnswer::Done);
    whole(&mut world, &[0, 1, 2], 10 * SECOND);
    // By what they have on their disks they find each other again.
    (0..3).for_each(|at| world.crash(at));
    world.start_all();
    subscribe_all(&mut world);
    whole(&mut world, &[0, 1, 2], 15 * SECOND);
}

pub(super) fn joining_nobody_is_refused() {
    let mut world = alone(8, 2);
    world.crash(1);
    let ClusterAnswer::Refused(why) = join(&mut world, 0, 1) else { panic!("joined nobody") };
    assert!(why.contains("10.0.0.2:4370"), "{why}");
    assert!(matches!(join(&mut world, 0, 0), ClusterAnswer::Refused(_)));
    assert!(matches!(ask(&mut world, 0, ClusterCommand::Leave), ClusterAnswer::Refused(_)), "it is alone");
    whole(&mut world, &[0], SECOND);
    world.nodes[1].config.name = "other".to_owned();
    world.start(1);
    let ClusterAnswer::Refused(why) = join(&mut world, 0, 1) else { panic!("joined another cluster") };
    assert_eq!(why, link::Refusal::WrongCluster.to_string());
}

pub(super) fn leaving_and_joining_again() {
    for discovers in [false, true] {
        let mut world = if discovers { running(9, 3, |_| {}) } else { alone(9, 3) };
        if !discovers {
            assert_eq!(join(&mut world, 1, 0), ClusterAnswer::Done);
            assert_eq!(join(&mut world, 2, 0), ClusterAnswer::Done);
            whole(&mut world, &[0, 1, 2], 10 * SECOND);
        }
        let old = world.id(1);
        assert_eq!(ask(&mut world, 1, ClusterCommand::Leave), ClusterAnswer::Done);
        whole(&mut world, &[0, 2], 10 * SECOND);
        whole(&mut world, &[1], 10 * SECOND);
        world.run(20 * SECOND);
        assert!(world.is_whole(&[0, 2]) && world.is_whole(&[1]), "it does not come back by itself");
        assert_eq!((unready(&world, 0), unready(&world, 1)), (None, Some(Unready::Left)));
        assert_eq!(last_news(&world, 0, old), Some(PeerNews::Forgotten));
        assert!(world.nodes[1].shards.iter().all(|shard| shard.drained == [true, false]));
        assert_eq!(world.control(0).cluster().unwrap().reached().count(), if discovers { 2 } else { 1 });
        world.crash(1);
        world.start(1);
        subscribe_all(&mut world);
        whole(&mut world, &[1], 10 * SECOND);
        assert_eq!(join(&mut world, 1, 2), ClusterAnswer::Done);
        whole(&mut world, &[0, 1, 2], 20 * SECOND);
        world.run(SECOND);
        assert_eq!(unready(&world, 1), None);
    }
}

// The other one has a link with it long before it is told to join.
pub(super) fn who_has_just_left_joins_again() {
    for seed in 0..10 {
        let mut world = alone(seed, 2);
        assert_eq!(join(&mut world, 1, 0), ClusterAnswer::Done);
        whole(&mut world, &[0, 1], 10 * SECOND);
        assert_eq!(ask(&mut world, 1, ClusterCommand::Leave), ClusterAnswer::Done);
        world.run(SECOND * (seed % 4) as u32);
        assert_eq!(join(&mut world, 1, 0), ClusterAnswer::Done, "seed {seed}");
        whole(&mut world, &[0, 1], 10 * SECOND);
    }
}

pub(super) fn who_comes_and_goes_is_not_ready() {
    let mut world = World::new(21, 3);
    world.start(0);
    world.run(SECOND);
    assert_eq!(unready(&world, 0), Some(Unready::Outside), "it may not found a cluster by itself");
    world.start(1);
    world.start(2);
    whole(&mut world, &[0, 1, 2], 20 * SECOND);
    world.run(SECOND);
    assert!((0..3).all(|at| unready(&world, at).is_none()));
    world.command(1, ClusterCommand::Leave);
    assert_eq!(unready(&world, 1), Some(Unready::Leaving));
    world.run(20 * SECOND);
    assert_eq!(unready(&world, 1), Some(Unready::Left));
    // Nobody leads, and all of them are sent clients.
    world.crash(2);
    world.run(20 * SECOND);
    assert_eq!(unready(&world, 0), None);
    // Alone, it decides by itself after a while.
    world.crash(0);
    world.start(0);
    world.run(Duration::from_millis(100));
    assert_eq!(unready(&world, 0), Some(Unready::Undirected));
    world.run(20 * SECOND);
    assert_eq!(unready(&world, 0), None);
}

pub(super) fn who_cannot_leave_is_told() {
    let mut world = running(19, 3, |_| {});
    world.crash(1);
    world.crash(2);
    let asked = world.now;
    let answer = ask(&mut world, 0, ClusterCommand::Leave);
    assert_eq!(answer, ClusterAnswer::Refused(meta::Refusal::Timeout.to_string()));
    assert!(world.now - asked <= 10 * SECOND);
    world.run(SECOND);
    assert!(world.nodes[0].shards.iter().all(|shard| shard.drained == [true, false]), "clients are let in again");
    world.start(1);
    world.start(2);
    subscribe_all(&mut world);
    whole(&mut world, &[0, 1, 2], 30 * SECOND);
}

pub(super) fn forced_out_stays_out() {
    let mut world = running(10, 3, |_| {});
    let force = |text: &str| ClusterCommand::ForceLeave(text.to_owned());
    assert!(matches!(ask(&mut world, 0, force("n2@test")), ClusterAnswer::Refused(_)), "it is there");
    assert!(matches!(ask(&mut world, 0, force("nobody")), ClusterAnswer::Refused(_)));
    world.crash(2);
    world.run(30 * SECOND);
    assert_eq!(ask(&mut world, 0, force("n2@test")), ClusterAnswer::Done);
    whole(&mut world, &[0, 1], 5 * SECOND);
    world.start(2);
    world.run(30 * SECOND);
    assert!(world.is_whole(&[0, 1]));
    assert!(world.control(0).cluster().unwrap().reached().all(|(node, _)| node != world.id(2)));
    // It knows so after a restart, too.
    world.crash(0);
    world.start(0);
    subscribe_all(&mut world);
    world.run(20 * SECOND);
    assert!(world.is_whole(&[0, 1]));
    assert!(world.control(0).cluster().unwrap().reached().all(|(node, _)| node != world.id(2)));
    // Until an operator says otherwise.
    let readmit = ClusterCommand::Readmit;
    let id = format!("{:016x}", world.id(2).0);
    let ClusterAnswer::Refused(why) = ask(&mut world, 1, readmit("1".into())) else { panic!("who is that?") };
    assert_eq!(why, format!("no node with this id was removed by force, but {id}"));
    assert_eq!(ask(&mut world, 1, readmit(id.clone())), ClusterAnswer::Done);
    subscribe_all(&mut world);
    whole(&mut world, &[0, 1, 2], 90 * SECOND);
    let ClusterAnswer::Refused(why) = ask(&mut world, 0, readmit(id)) else { panic!("it was let in already") };
    assert_eq!(why, "no node was removed by force");
}

pub(super) fn who_lost_its_disk_is_another_node() {
    let mut world = running(11, 3, |config| config.meta.autoclean = Some(30 * SECOND));
    world.crash(2);
    world.wipe(2);
    world.start(2);
    subscribe_all(&mut world);
    whole(&mut world, &[0, 1, 2], 90 * SECOND);
}

pub(super) fn a_foreign_cookie_has_no_effect() {
    let mut world = World::new(12, 4);
    world.nodes[3].config.cookie = Cookie::new("guessed").unwrap();
    for node in &mut world.nodes {
        node.seeds.as_mut().unwrap().1 = true;
    }
    world.start_all();
    subscribe_all(&mut world);
    whole(&mut world, &[0, 1, 2], 20 * SECOND);
    world.run(20 * SECOND);
    let cluster = world.control(3).cluster().unwrap();
    assert!(cluster.meta().cluster().is_none() && cluster.reached().count() == 0);
    assert_eq!(cluster.swim().alive().count(), 0);
    assert!(cluster.swim().counters().foreign > 0);
    let has_seen = |at: usize| {
        let reason = |event: &ClusterEvent| {
            matches!(event, ClusterEvent::Link(link::Event::Refused { reason: link::Refusal::WrongCookie, .. }))
        };
        world.nodes[at].events.iter().any(|(_, event)| reason(event))
    };
    assert!((0..4).all(has_seen));
}

fn frame(to_inc: u64, seq: u64) -> lane::Frame {
    let message = lane::Publication::new(&lane::PublicationParts {
        publisher: b"c",
        retained: 0,
        guid: lane::Guid([1; 16]),
        topic: b"b",
        qos: newtmq_mqtt::QoS::AtLeastOnce,
        retain: false,
        properties: &[],
        payload: b"x",
    });
    let what = lane::What::Plain { transient: true, durable: false };
    let header = |shard| lane::Header { shard: ShardId(shard), seq, what: what.clone() };
    lane::Frame::Bundle(lane::Bundle {
        from: ShardId(0),
        from_inc: Incarnation(1),
        to_inc: Incarnation(to_inc),
        headers: vec![header(0), header(1), header(77)].into(),
        publication: Some(message),
        remaining: None,
    })
}

pub(super) fn frames_of_lanes_come_to_the_shards_they_are_for() {
    let mut world = alone(13, 3);
    assert_eq!(join(&mut world, 1, 0), ClusterAnswer::Done);
    whole(&mut world, &[0, 1], 10 * SECOND);
    let (one, other) = (world.id(0), world.id(1));
    world.lanes(0, vec![(other, frame(1, 1)), (other, frame(1, 2)), (NodeId(99), frame(1, 1))]);
    world.run(SECOND);
    for shard in &world.nodes[1].shards {
        assert_eq!(shard.frames, [(one, frame(1, 1)), (one, frame(1, 2))]);
    }
    assert_eq!(world.control(0).cluster().unwrap().counts().lanes_unsent, 1);
    // Frames that were under way may be lost when the connection is: the shards hear of it.
    let heard = world.nodes[0].shards[0].news[&other].len();
    world.cut(0, 1);
    world.lanes(0, vec![(other, frame(1, 3))]);
    world.run(5 * SECOND);
    world.reset(0, 1);
    world.heal();
    world.until("it is reached again", 20 * SECOND, |world| world.nodes[0].shards[0].news[&other].len() > heard);
    assert_eq!(last_news(&world, 0, other), Some(PeerNews::Connected(Incarnation(1))));
}

pub(super) fn who_is_no_member_is_not_heard() {
    let mut world = alone(14, 3);
    assert_eq!(join(&mut world, 1, 0), ClusterAnswer::Done);
    whole(&mut world, &[0, 1], 10 * SECOND);
    // A node of another cluster with the same name and cookie: linked, and no member.
    world.nodes[2].seeds = Some(([world.nodes[0].address].into(), false));
    world.crash(2);
    world.start(2);
    subscribe_all(&mut world);
    let stranger = world.id(2);
    world.until("it is linked", 10 * SECOND, |world| {
        world.control(0).cluster().unwrap().reached().any(|(node, _)| node == stranger)
    });
    let one = world.id(0);
    world.lanes(2, vec![(one, frame(1, 1))]);
    world.run(10 * SECOND);
    assert!(world.is_whole(&[0, 1]) && world.is_whole(&[2]));
    assert!(world.nodes[0].shards.iter().all(|shard| shard.frames.is_empty() && !shard.news.contains_key(&stranger)));
    assert_eq!(world.control(2).cluster().unwrap().counts().lanes_unsent, 1);
}

pub(super) fn strict_nodes_acknowledge_with_leases_only() {
    let mut world = running(15, 3, |config| config.strict = true);
    world.run(5 * SECOND);
    let until = |world: &World, at: usize| world.nodes[at].shards[0].acknowledge.unwrap();
    for _ in 0..50 {
        world.run(SECOND / 10);
        assert!((0..3).all(|at| until(&world, at) > world.now), "leases are renewed in time");
    }
    world.split(&[0], &[1, 2]);
    world.run(4 * SECOND);
    assert!((0..3).all(|at| until(&world, at) <= world.now), "nobody has all leases");
    // Strict: the SUBACK of one side waits until the other one cannot acknowledge any more.
    world.subscribe(1, 0, "new", Class::Transient);
    world.run(SECOND);
    let committed = &world.nodes[1].shards[0].committed;
    assert_eq!(committed.last_key_value().map(|(_, complete)| *complete), Some(true));
    world.heal();
    whole(&mut world, &[0, 1, 2], 20 * SECOND);
    world.run(2 * SECOND);
    assert!((0..3).all(|at| until(&world, at) > world.now));
}

pub(super) fn a_large_table_comes_in_pieces() {
    let mut world = World::new(16, 3);
    world.start(0);
    world.start(1);
    whole(&mut world, &[0, 1], 15 * SECOND);
    let long = "x".repeat(200);
    for at in 0..1500 {
        world.subscribe(0, at % 2, &format!("{long}/{at}"), Class::Durable);
    }
    whole(&mut world, &[0, 1], 10 * SECOND);
    world.start(2);
    whole(&mut world, &[0, 1, 2], 20 * SECOND);
    assert_eq!(world.control(2).cluster().unwrap().counts().malformed, 0);
    // The log on the disk was written anew on the way, and has all of it.
    assert!(world.nodes[1].events.len() < 1000);
    world.crash(0);
    world.crash(1);
    world.start(1);
    world.run(SECOND);
    assert_eq!(world.nodes[1].shards[1].table.len(), 1500);
}

pub(super) fn a_witness_votes_and_has_no_clients() {
    let mut world = World::new(17, 3);
    world.nodes[2].config.witness = true;
    world.start_all();
    whole(&mut world, &[0, 1, 2], 20 * SECOND);
    assert_eq!(world.nodes[2].shards[0].drained, [true]);
    assert_eq!(unready(&world, 2), Some(Unready::Witness));
}

pub(super) fn the_same_seed_is_the_same_story() {
    let story = || {
        let mut world = running(18, 3, |_| {});
        world.loss_percent = 10;
        world.split(&[0], &[1, 2]);
        world.run(20 * SECOND);
        world.heal();
        world.run(20 * SECOND);
        let events: Vec<_> = world.nodes.iter().flat_map(|node| node.events.clone()).collect();
        (format!("{events:?}"), world.nodes.iter().map(|node| node.sent.stream_bytes).collect::<Vec<_>>())
    };
    assert_eq!(story(), story());
}

macro_rules! scenes {
    ($($name:ident)+) => {
        $(mod $name {
            #[test]
            fn holds() {
                super::$name();
            }
        })+
        #[cfg(newtmq_mutants)]
        pub(super) const ALL: &[fn()] = &[$($name),+];
    };
}

scenes! {
    three_find_each_other
    an_examination_names_who_is_down_or_cut_off
    five_find_each_other
    cold_start_in_two_parts_is_one_cluster
    late_joiner
    a_node_starts_again
    all_start_again
    what_a_suback_has_waited_for_is_on_the_disk
    without_a_table_nothing_is_acknowledged
    who_stops_is_not_waited_for
    autocleaned_node_comes_back_by_itself
    half_a_cluster_removes_nobody
    sole_node_joins_another_one
    who_cannot_leave_is_told
    joining_nobody_is_refused
    leaving_and_joining_again
    who_has_just_left_joins_again
    who_comes_and_goes_is_not_ready
    forced_out_stays_out
    who_lost_its_disk_is_another_node
    a_foreign_cookie_has_no_effect
    frames_of_lanes_come_to_the_shards_they_are_for
    who_is_no_member_is_not_heard
    strict_nodes_acknowledge_with_leases_only
    a_large_table_comes_in_pieces
    a_witness_votes_and_has_no_clients
    the_same_seed_is_the_same_story
}

fn assert_one_seat(world: &World) {
    let control = |at: usize| world.nodes[at].control.as_ref().unwrap().cluster().unwrap();
    let leader = control(0).meta().view().leader.unwrap();
    for (at, node) in world.nodes.iter().enumerate() {
        let directory = control(at).directory();
        assert_eq!(directory.obeys(), Some(leader));
        assert_eq!(directory.seated().is_some(), node.id == leader);
        if node.id == leader {
            assert!(directory.seated().unwrap().open);
            assert!(world.nodes.iter().all(|other| directory.has_announced(other.id)));
        }
    }
}

/// Everybody obeys the leader, which knows what all have: also when it has started anew.
#[test]
fn the_leader_has_the_seat_and_everybody_obeys_it() {
    for (seed, nodes) in [(5, 1), (5, 3), (7, 5), (9, 2)] {
        let mut world = running(seed, nodes, |_| {});
        world.run(10 * SECOND);
        assert_one_seat(&world);
        for at in 0..nodes.min(2) {
            world.crash(at);
            world.run(Duration::from_millis(10));
            world.start(at);
            world.run(15 * SECOND);
            assert_one_seat(&world);
        }
    }
}
