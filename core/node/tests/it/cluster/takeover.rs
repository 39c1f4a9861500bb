//! A client that comes to another node: its old connection ends there, and its session goes along.

use core::time::Duration;

use newtmq_cluster::directory::AwayHome;
use newtmq_mqtt::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use newtmq_mqtt::{PacketType, ReasonCode};
use newtmq_node::{Durability, ShardConfig};

use super::world::World;
use crate::harness::{Connect, Got, Publish, Subscribe, Will};

fn stores(config: &mut ShardConfig) {
    config.zones[0].durability = Durability::Synced;
}

fn memory(_: &mut ShardConfig) {}

/// Worlds of two and three nodes, one and two shards, in memory and on disks.
fn worlds(run: impl Fn(&mut World)) {
    let mut seed = 0;
    for configure in [memory, stores] {
        for (nodes, shards) in [(2, 1), (3, 2)] {
            seed += 1;
            let mut world = World::with_directories(seed, nodes, shards, configure);
            run(&mut world);
        }
    }
}

/// Joins, and says whether there was a session.
fn join(world: &mut World, node: usize, connect: Connect) -> (usize, bool) {
    let person = world.start(node, connect);
    world.settle();
    world.advance(Duration::from_millis(20));
    let log = &mut world.people[person].script.log;
    let at = log.iter().position(|got| matches!(got, Got::Connack(_)));
    let Some(Got::Connack(connack)) = at.map(|at| log.remove(at)) else { panic!("no CONNACK but {log:?}") };
    assert_eq!(connack.reason, ReasonCode::Success);
    (person, connack.present)
}

// MQTT-3.1.4-3, over nodes.
#[test]
pub(super) fn the_old_connection_at_another_node_ends() {
    worlds(|world| {
        let old = world.join(1, Connect::v5("c").resume());
        world.subscribe(old, "t", AtLeastOnce);
        let (new, present) = join(world, 0, Connect::v5("c").resume());
        assert!(present);
        assert_eq!(world.log(old), [Got::Disconnect(ReasonCode::SessionTakenOver), Got::Closed]);
        world.assert_one("c");
        assert_eq!(world.homes("c"), [0]);
        let w = world.join(1, Connect::v5("w"));
        world.publish(w, Publish::new("t", "1").qos1());
        assert_eq!(world.received(new), ["t 1"]);
        world.advance(Duration::from_secs(20));
        world.publish(w, Publish::new("t", "2").qos1());
        assert_eq!(world.received(new), ["t 2"]);
        world.settle();
        world.assert_idle();
    });
}

#[test]
pub(super) fn what_was_queued_comes_at_the_other_node() {
    worlds(|world| {
        let (c, _) = join(world, 0, Connect::v5("c").resume());
        world.subscribe(c, "t/#", ExactlyOnce);
        world.disconnect(c);
        let w = world.join(1, Connect::v5("w"));
        for number in 0..20 {
            let qos = [AtLeastOnce, ExactlyOnce][number % 2];
            world.publish(w, Publish::new("t/1", number.to_string()).qos(qos));
        }
        world.settle();
        let (c, present) = join(world, 1, Connect::v5("c").resume());
        assert!(present);
        let expected: Vec<String> = (0..20).map(|number| format!("t/1 {number}")).collect();
        assert_eq!(world.received(c), expected);
        world.assert_one("c");
        world.disconnect(c);
        world.settle();
        let (c, present) = join(world, 0, Connect::v5("c").resume());
        assert!(present);
        assert_eq!(world.received(c), [] as [String; 0], "what was acknowledged there does not come here");
    });
}

// A QoS 2 message in each state of its exchange, both ways.
#[test]
pub(super) fn qos2_goes_on_at_the_other_node() {
    worlds(|world| {
        let (c, _) = join(world, 0, Connect::v5("c").resume().manual());
        world.subscribe(c, "t", ExactlyOnce);
        let w = world.join(1, Connect::v5("w").resume());
        let r = world.join(1, Connect::v5("r"));
        world.subscribe(r, "v", ExactlyOnce);
        // The client publishes, and moves before PUBREL.
        let id = world.publish(c, Publish::new("v", "once").qos(ExactlyOnce));
        world.settle();
        assert_eq!(world.acked(c), [(id, ReasonCode::Success)]);
        assert_eq!(world.received(r), ["v once"]);
        world.publish(w, Publish::new("t", "out").qos(ExactlyOnce));
        world.settle();
        assert_eq!(world.received(c), ["t out"]);
        let (c, present) = join(world, 1, Connect::v5("c").resume());
        assert!(present);
        world.publish(c, Publish::new("v", "once").qos2().id(id).dup());
        world.settle();
        assert_eq!(world.acked(c), [(id, ReasonCode::Success)]);
        world.ack(c, PacketType::Pubrel, id);
        world.settle();
        assert_eq!(world.received(r), [] as [String; 0], "it was sent before");
        assert_eq!(world.received(c), ["t out"], "it is in flight");
    });
}

#[test]
pub(super) fn a_clean_start_ends_the_session_at_the_other_node() {
    worlds(|world| {
        let will = Will::new(Publish::new("will", "gone")).delay(100);
        let (c, _) = join(world, 1, Connect::v5("c").resume().will(will));
        world.subscribe(c, "t", AtLeastOnce);
        let r = world.join(0, Connect::v5("r"));
        world.subscribe(r, "will", AtLeastOnce);
        world.break_off(c);
        world.settle();
        assert_eq!(world.received(r), [] as [String; 0]);
        let (c, present) = join(world, 0, Connect::v5("c").expiry(100));
        assert!(!present);
        assert_eq!(world.received(r), ["will gone"], "the session has ended");
        world.assert_one("c");
        let w = world.join(1, Connect::v5("w"));
        world.publish(w, Publish::new("t", "1").qos1());
        assert_eq!(world.received(c), [] as [String; 0], "nothing of the old session is left");
        world.disconnect(c);
        world.settle();
        let (_, present) = join(world, 1, Connect::v5("c").resume());
        assert!(present);
    });
}

// MQTT-3.1.2-8: a will without delay is due when the connection is taken over, one with a delay is not when the session goes on.
#[test]
pub(super) fn wills_of_who_is_taken_over() {
    for (delay, expected) in [(0, &["will gone"][..]), (100, &[][..])] {
        worlds(|world| {
            let r = world.join(0, Connect::v5("r"));
            world.subscribe(r, "will", AtLeastOnce);
            world.join(1, Connect::v5("c").resume().will(Will::new(Publish::new("will", "gone")).delay(delay)));
            let (_, present) = join(world, 0, Connect::v5("c").resume());
            assert!(present);
            assert_eq!(world.received(r), expected);
            world.advance(Duration::from_secs(200));
            assert_eq!(world.received(r), [] as [String; 0]);
        });
    }
}

#[test]
pub(super) fn a_session_without_expiry_ends_with_its_connection() {
    worlds(|world| {
        let old = world.join(1, Connect::v5("c"));
        world.subscribe(old, "t", AtMostOnce);
        let (_, present) = join(world, 0, Connect::v5("c").clean_start(false));
        assert!(!present);
        assert_eq!(world.log(old), [Got::Disconnect(ReasonCode::SessionTakenOver), Got::Closed]);
        world.assert_one("c");
    });
}

#[test]
pub(super) fn a_session_that_has_moved_is_on_the_disk_there() {
    for seed in 0..20 {
        let mut world = World::with_directories(seed, 3, 1, stores);
        let (c, _) = join(&mut world, 1, Connect::v5("c").resume());
        world.subscribe(c, "t", AtLeastOnce);
        world.disconnect(c);
        let w = world.join(0, Connect::v5("w"));
        world.publish(w, Publish::new("t", "1").qos1());
        world.settle();
        let (c, present) = join(&mut world, 2, Connect::v5("c").resume());
        assert!(present);
        world.people[c].script.log.clear();
        world.kill(2);
        for observer in [0, 1] {
            world.down(observer, 2);
        }
        world.restart(2);
        world.advance(Duration::from_secs(2));
        world.assert_one("c");
        assert_eq!(world.homes("c"), [2]);
        let (c, present) = join(&mut world, 0, Connect::v5("c").resume());
        assert!(present);
        assert!(world.received(c).iter().all(|text| text == "t 1"));
        world.assert_one("c");
    }
}

// Two nodes at once: one of them has the client in the end.
#[test]
pub(super) fn who_connects_twice_at_once_is_there_once() {
    for seed in 0..40 {
        let mut world =
            World::with_directories(seed, 3, 1 + (seed % 2) as u16, if seed % 3 == 0 { stores } else { memory });
        let persons: Vec<usize> = (0..6)
            .map(|number| {
                let pause = world.rng.below(3_000);
                world.advance(Duration::from_micros(pause));
                world.start(number % 3, Connect::v5("c").resume())
            })
            .collect();
        world.advance(Duration::from_secs(10));
        let open: Vec<usize> = persons.into_iter().filter(|person| world.is_open(*person)).collect();
        assert_eq!(open.len(), 1, "seed {seed}");
        world.assert_one("c");
        assert_eq!(world.homes("c"), [world.people[open[0]].node]);
    }
}

/// Publishers at all nodes go on while a client moves from node to node. What was accepted comes, of each publisher in order;
/// again only what may have been sent before, and says so.
fn moves_under_load(seed: u64, qos: newtmq_mqtt::QoS, configure: fn(&mut ShardConfig)) {
    let mut world = World::with_directories(seed, 3, 1 + (seed % 2) as u16, configure);
    world.delay_us = if seed % 3 == 1 { 40_000 } else { 1_000 };
    let writers: Vec<usize> = (0..3).map(|node| world.join(node, Connect::v5(&format!("w{node}")).resume())).collect();
    let (mut c, _) = join(&mut world, 0, Connect::v5("c").resume());
    world.subscribe(c, "t/#", ExactlyOnce);
    let mut connections = vec![c];
    let mut number = 0;
    let mut publish = |world: &mut World| {
        for writer in &writers {
            world.publish(*writer, Publish::new(&format!("t/{writer}"), number.to_string()).qos(qos));
            number += 1;
        }
        let pause = world.rng.below(8_000);
        world.advance(Duration::from_micros(pause));
    };
    for round in 0..5 {
        (0..8).for_each(|_| publish(&mut world));
        if world.rng.below(3) == 0 {
            world.disconnect(c);
        }
        let node = (round + 1 + world.rng.below(2) as usize) % 3;
        c = world.start(node, Connect::v5("c").resume());
        connections.push(c);
        let is_in = |world: &World| world.people[c].script.log.iter().any(|got| matches!(got, Got::Connack(_)));
        while !is_in(&world) {
            publish(&mut world);
        }
    }
    let count = number as usize / 3;
    world.advance(Duration::from_secs(20));
    world.settle();
    let mut seen: Vec<String> = Vec::new();
    for person in connections {
        for message in world.messages_now(person) {
            let text = message.text();
            assert!(message.publish.dup || !seen.contains(&text), "{text} twice, seed {seed}");
            if !seen.contains(&text) {
                seen.push(text);
            }
        }
    }
    for writer in &writers {
        let acks = world.acked(*writer);
        assert!(acks.len() == count && acks.iter().all(|(_, reason)| !reason.is_error()), "{acks:?}");
        let of: Vec<u32> = seen
            .iter()
            .filter_map(|text| text.strip_prefix(&format!("t/{writer} ")))
            .map(|number| number.parse().unwrap())
            .collect();
        assert_eq!(of.len(), count, "{of:?} of {writer}, seed {seed}");
        assert!(of.is_sorted(), "{of:?}, seed {seed}");
    }
    world.assert_one("c");
    assert_eq!(world.homes("c"), [world.people[c].node]);
    world.assert_idle();
}

#[test]
pub(super) fn nothing_is_lost_while_a_session_moves() {
    for seed in 0..12 {
        for qos in [AtLeastOnce, ExactlyOnce] {
            moves_under_load(seed, qos, if seed % 3 == 2 { stores } else { memory });
        }
    }
}

// What waits is as old as it was, though the window of an absent client holds what comes.
#[test]
pub(super) fn what_comes_amid_a_move_comes_behind_what_was_queued() {
    for seed in 0..10 {
        let mut world = World::with_directories(seed, 2, 1, if seed % 2 == 0 { memory } else { stores });
        let w = world.join(0, Connect::v5("w"));
        let (c, _) = join(&mut world, 0, Connect::v5("c").resume());
        world.subscribe(c, "t", AtLeastOnce);
        world.disconnect(c);
        let mut number = 0;
        let mut publish = |world: &mut World, count: u32| {
            for _ in 0..count {
                world.publish(w, Publish::new("t", number.to_string()).qos1());
                number += 1;
            }
        };
        publish(&mut world, 60);
        world.settle();
        let c = world.start(1, Connect::v5("c").resume());
        for _ in 0..40 {
            publish(&mut world, 1);
            world.advance(Duration::from_micros(500));
        }
        world.advance(Duration::from_secs(3));
        let expected: Vec<String> = (0..number).map(|number| format!("t {number}")).collect();
        assert_eq!(world.received(c), expected, "seed {seed}");
    }
}

// A session comes back to a node to which the same messages are still under way that it got elsewhere.
#[test]
pub(super) fn what_it_has_got_elsewhere_is_not_taken_again() {
    for qos in [AtLeastOnce, ExactlyOnce] {
        let mut world = World::with_directories(1, 3, 1, memory);
        let w = world.join(2, Connect::v5("w"));
        let (c, _) = join(&mut world, 0, Connect::v5("c").resume());
        world.subscribe(c, "t", qos);
        world.slow = Some((2, 0, Duration::from_secs(5)));
        let there = world.start(1, Connect::v5("c").resume());
        world.advance(Duration::from_millis(500));
        for number in 0..10 {
            world.publish(w, Publish::new("t", number.to_string()).qos(qos));
        }
        world.advance(Duration::from_millis(2_500));
        assert_eq!(world.received_now(there).len(), 10);
        let here = world.start(0, Connect::v5("c").resume());
        world.advance(Duration::from_secs(6));
        assert_eq!(world.received(here), [] as [String; 0]);
        world.assert_one("c");
    }
}

#[test]
pub(super) fn another_leader_amid_moves_changes_nothing() {
    for seed in 0..30 {
        let configure = if seed % 2 == 0 { stores } else { memory };
        let mut world = World::with_directories(seed, 3, 1, configure);
        let (c, _) = join(&mut world, 0, Connect::v5("c").resume());
        world.subscribe(c, "t", ExactlyOnce);
        let mut last = c;
        for round in 1..6 {
            last = world.start(round % 3, Connect::v5("c").resume());
            let pause = world.rng.below(4_000);
            world.advance(Duration::from_micros(pause));
            world.lead((round + seed as usize) % 3);
            let pause = world.rng.below(30_000);
            world.advance(Duration::from_micros(pause));
        }
        world.advance(Duration::from_secs(20));
        assert_eq!(world.homes("c").len(), 1, "seed {seed}");
        let (c, present) =
            if world.is_open(last) { (last, true) } else { join(&mut world, 0, Connect::v5("c").resume()) };
        assert!(present, "seed {seed}");
        let w = world.join(2, Connect::v5("w"));
        world.publish(w, Publish::new("t", "1").qos(ExactlyOnce));
        assert_eq!(world.received(c), ["t 1"], "seed {seed}");
        world.assert_one("c");
    }
}

// cluster.md 4: the client of a stored session at a node that is down is refused, and finds it when that is back.
#[test]
pub(super) fn a_stored_session_at_a_node_that_is_down_is_waited_for() {
    for seed in 0..10 {
        let mut world = World::with_directories(seed, 3, 1, stores);
        let (c, _) = join(&mut world, 1, Connect::v5("c").resume());
        world.subscribe(c, "t", AtLeastOnce);
        world.disconnect(c);
        world.settle();
        world.kill(1);
        [0, 2].into_iter().for_each(|observer| world.down(observer, 1));
        let refused = world.start(2, Connect::v5("c").resume());
        world.advance(Duration::from_secs(17));
        let log = world.log(refused);
        assert!(
            matches!(&log[..], [Got::Connack(connack), Got::Closed] if connack.reason == ReasonCode::ServerUnavailable),
            "{log:?}"
        );
        world.restart(1);
        world.advance(Duration::from_secs(2));
        let (_, present) = join(&mut world, 2, Connect::v5("c").resume());
        assert!(present);
        world.assert_one("c");
    }
}

#[test]
pub(super) fn a_session_expires_as_soon_as_anywhere() {
    worlds(|world| {
        for node in [0, 1, 1, 0] {
            let (c, present) = join(world, node, Connect::v5("c").expiry(1).clean_start(false));
            assert!(!present);
            world.disconnect(c);
            let (c, present) = join(world, 1 - node, Connect::v5("c").expiry(1).clean_start(false));
            assert!(present);
            world.disconnect(c);
            world.advance(Duration::from_millis(1_500));
            assert_eq!(world.homes("c"), [] as [usize; 0]);
        }
    });
}

// With another session meanwhile, for its owner is down: what came to both sessions comes once when one takes over from the other.
#[test]
pub(super) fn what_came_to_both_of_two_sessions_comes_once() {
    let mut world = World::with_directories(1, 3, 1, stores);
    world.directories.away_home = AwayHome::Fresh;
    for node in 0..3 {
        world.new_directory(node);
        world.open_directory(node);
    }
    world.settle();
    let (c, _) = join(&mut world, 1, Connect::v5("c").resume());
    world.subscribe(c, "t", AtLeastOnce);
    world.disconnect(c);
    let w = world.join(1, Connect::v5("early"));
    world.publish(w, Publish::new("t", "early").qos1());
    world.settle();
    for other in [0, 2] {
        world.down(other, 1);
        world.down(1, other);
    }
    world.settle();
    let c = world.start(0, Connect::v5("c").resume());
    world.advance(Duration::from_secs(20));
    assert!(matches!(&world.log(c)[..], [Got::Connack(connack)] if !connack.present));
    world.subscribe(c, "t", AtLeastOnce);
    let w = world.join(0, Connect::v5("w"));
    for number in 0..3 {
        world.publish(w, Publish::new("t", number.to_string()).qos1());
    }
    world.advance(Duration::from_secs(1));
    assert_eq!(world.received_now(c), ["t 0", "t 1", "t 2"]);
    assert_eq!(world.acked(w).len(), 3);
    [0, 2].into_iter().for_each(|other| world.connect(1, other));
    world.advance(Duration::from_secs(60));
    assert_eq!(world.homes("c"), [0]);
    assert_eq!(world.received(c), ["t early"], "what was never sent of the one that ends");
}

// A session that begins where another one of its client has ended is one that is stored, too.
#[test]
pub(super) fn a_stored_session_that_begins_anew_is_waited_for() {
    for first in [0, 1, 2] {
        let mut world = World::with_directories(1, 3, 1, stores);
        world.join(first, Connect::v5("c"));
        let (c, present) = join(&mut world, 1, Connect::v5("c").resume());
        assert!(!present);
        world.disconnect(c);
        world.settle();
        world.kill(1);
        [0, 2].into_iter().for_each(|observer| world.down(observer, 1));
        // Another leader knows of it by the log of its node.
        world.lead(2);
        let refused = world.start(2, Connect::v5("c").resume());
        world.advance(Duration::from_secs(17));
        let log = world.log(refused);
        assert!(
            matches!(&log[..], [Got::Connack(connack), Got::Closed] if connack.reason == ReasonCode::ServerUnavailable),
            "{log:?}"
        );
    }
}

// The same may come by the node that a session has left, and then directly, also when its new node has started again meanwhile.
// In the other order it may come twice then, as with seeds 2 and 3.
#[test]
pub(super) fn what_comes_both_ways_comes_once_over_a_start() {
    for seed in [0, 1, 4, 5, 6, 7] {
        let mut world = World::with_directories(seed, 3, 1, stores);
        let w = world.join(2, Connect::v5("w"));
        let (c, _) = join(&mut world, 1, Connect::v5("c").resume());
        world.subscribe(c, "t", AtLeastOnce);
        world.slow = Some((2, 0, Duration::from_secs(5)));
        world.start(0, Connect::v5("c").resume());
        let mut number = 0;
        let mut publish = |world: &mut World, count: u32| {
            for _ in 0..count {
                world.publish(w, Publish::new("t", number.to_string()).qos1());
                number += 1;
                let pause = world.rng.below(2_000);
                world.advance(Duration::from_micros(pause));
            }
        };
        publish(&mut world, 20);
        world.kill(0);
        publish(&mut world, 3);
        world.restart(0);
        publish(&mut world, 3);
        world.advance(Duration::from_secs(15));
        let (c, _) = join(&mut world, 0, Connect::v5("c").resume());
        let mut texts: Vec<String> = world.messages_now(c).iter().map(crate::harness::Message::text).collect();
        let count = texts.len();
        texts.sort();
        texts.dedup();
        assert_eq!(texts.len(), count, "seed {seed}");
    }
}

// A session that is asked for before all of it has come goes on late. If its client does not come there it waits for it, as it
// would anywhere.
#[test]
pub(super) fn a_session_that_went_on_late_waits_for_its_client() {
    for seed in 0..60 {
        let mut world = World::with_directories(seed, 3, 1, if seed % 2 == 0 { stores } else { memory });
        let (c, _) = join(&mut world, 0, Connect::v5("c").resume());
        world.subscribe(c, "t", AtLeastOnce);
        world.delay_us = 200_000;
        for node in [1, 2] {
            let person = world.start(node, Connect::v5("c").resume());
            let pause = world.rng.below(900_000);
            world.advance(Duration::from_micros(pause));
            world.break_off(person);
        }
        world.delay_us = 1_000;
        world.advance(Duration::from_secs(100));
        let (_, present) = join(&mut world, 1, Connect::v5("c").resume());
        assert!(present, "seed {seed}");
        world.assert_one("c");
    }
}

// Only the node that a session has left says what is left of it.
#[test]
pub(super) fn a_node_that_is_down_ends_no_wait_for_another_one() {
    for seed in 0..40 {
        let mut world = World::with_directories(seed, 3, 1, memory);
        let w = world.join(0, Connect::v5("w"));
        let (c, _) = join(&mut world, 0, Connect::v5("c").resume());
        world.subscribe(c, "t", AtLeastOnce);
        world.delay_us = 60_000;
        let c = world.start(1, Connect::v5("c").resume());
        for number in 0..100 {
            world.publish(w, Publish::new("t", number.to_string()).qos1());
            world.advance(Duration::from_millis(3));
            if number == 20 + seed {
                world.down(1, 2);
            }
        }
        world.advance(Duration::from_secs(5));
        let got: Vec<u32> = world.received(c).iter().map(|text| text[2..].parse().unwrap()).collect();
        assert!(got.is_sorted(), "seed {seed}: {got:?}");
    }
}

// MQTT-3.8.3-3, over nodes: what a client has published where it was comes to where it is now.
#[test]
pub(super) fn no_local_keeps_what_was_published_at_another_node() {
    for configure in [memory, stores] {
        let mut world = World::with_directories(1, 2, 1, configure);
        let r = world.join(1, Connect::v5("r"));
        world.subscribe(r, "t", AtLeastOnce);
        let (c, _) = join(&mut world, 0, Connect::v5("c").resume());
        world.subscribe_with(c, &Subscribe::new("t", AtLeastOnce).no_local());
        world.slow = Some((0, 1, Duration::from_millis(200)));
        world.publish(c, Publish::new("t", "own").qos1());
        world.advance(Duration::from_millis(2));
        let c = world.start(1, Connect::v5("c").resume());
        world.advance(Duration::from_secs(3));
        assert_eq!(world.received_now(r), ["t own"]);
        assert_eq!(world.received_now(c), [] as [String; 0]);
        world.publish(r, Publish::new("t", "another's").qos1());
        assert_eq!(world.received(c), ["t another's"]);
    }
}

// Others at its next node get the same messages, over a way that takes longer than the session's.
#[test]
pub(super) fn what_came_just_before_it_went_does_not_come_again() {
    for qos in [AtLeastOnce, ExactlyOnce] {
        for from in [0, 2] {
            let mut world = World::with_directories(1, 3, 1, stores);
            let r = world.join(1, Connect::v5("r"));
            world.subscribe(r, "t", qos);
            let (c, _) = join(&mut world, 0, Connect::v5("c").resume());
            world.subscribe(c, "t", qos);
            let w = world.join(from, Connect::v5("w"));
            world.slow = Some((from, 1, Duration::from_millis(200)));
            world.publish(w, Publish::new("t", "once").qos(qos));
            world.advance(Duration::from_millis(5));
            let before = world.received_now(c).len();
            let c = world.start(1, Connect::v5("c").resume());
            world.advance(Duration::from_secs(4));
            assert_eq!(world.received_now(r), ["t once"]);
            assert_eq!(before + world.received_now(c).len(), 1, "{qos:?} from {from}");
        }
    }
}
