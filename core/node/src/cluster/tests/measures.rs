//! Figures: `cargo test --release -p newtmq-node --lib cluster::tests::measures -- --ignored --nocapture`.

use core::time::Duration;

use newtmq_cluster::owned::Class;

use super::scenes::subscribe_all;
use super::world::{Chatter, World};

const SECOND: Duration = Duration::from_secs(1);
const SEEDS: u64 = 50;

fn formed(seed: u64, nodes: usize) -> (World, Duration) {
    let mut world = World::new(seed, nodes);
    world.start_all();
    subscribe_all(&mut world);
    let all: Vec<usize> = (0..nodes).collect();
    let took = world.until("one cluster", 120 * SECOND, |world| world.is_whole(&all));
    (world, took)
}

fn told(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
    println!("{what}: median {:.2} s, max {:.2} s", median.as_secs_f64(), most.as_secs_f64());
}

#[test]
#[ignore = "figures"]
fn idle_chatter() {
    for nodes in [3, 5, 9, 15] {
        let (mut world, _) = formed(1, nodes);
        world.run(60 * SECOND);
        world.nodes.iter_mut().for_each(|node| node.sent = Chatter::default());
        world.run(60 * SECOND);
        let sum = |of: fn(&Chatter) -> u64| {
            world.nodes.iter().map(|node| of(&node.sent)).sum::<u64>() as f64 / 60.0 / nodes as f64
        };
        println!(
            "{nodes} nodes, each a second: UDP {:.1} packets, {:.0} B; TCP {:.1} frames in {:.1} writes, {:.0} B",
            sum(|sent| sent.packets),
            sum(|sent| sent.packet_bytes),
            sum(|sent| sent.frames),
            sum(|sent| sent.writes),
            sum(|sent| sent.stream_bytes),
        );
    }
}

/// What all nodes have sent so far.
fn sent(world: &World) -> Chatter {
    let mut sum = Chatter::default();
    for of in world.nodes.iter().map(|node| node.sent) {
        sum.packets += of.packets;
        sum.packet_bytes += of.packet_bytes;
        sum.writes += of.writes;
        sum.frames += of.frames;
        sum.stream_bytes += of.stream_bytes;
    }
    sum
}

/// Beside what nodes would have said anyway: another world, with the same chance, in which nobody subscribes.
#[test]
#[ignore = "figures"]
fn cost_of_a_subscribe() {
    let filter = |i: usize| format!("site/{:05}/device/{i:012}/temperature", i % 1000)[..40].to_owned();
    for (nodes, count) in [3, 5, 9, 15].into_iter().flat_map(|nodes| [(nodes, 1), (nodes, 1_000)]) {
        let talk = |count: usize| {
            let (mut world, _) = formed(1, nodes);
            world.run(30 * SECOND);
            let before = sent(&world);
            (0..count).for_each(|i| world.subscribe(0, 0, &filter(i), Class::Transient));
            let all: Vec<usize> = (0..nodes).collect();
            let took = world.until("known everywhere", 30 * SECOND, |world| world.is_whole(&all));
            world.run(30 * SECOND - took);
            let after = sent(&world);
            (after.frames - before.frames, after.stream_bytes - before.stream_bytes, took)
        };
        let ((frames, bytes, took), (idle_frames, idle_bytes, _)) = (talk(count), talk(0));
        let each = |with: u64, without: u64| (with as f64 - without as f64) / count as f64;
        println!(
            "{nodes} nodes, {count} subscriptions of 40 bytes at one node: each {:.3} frames, {:.1} B over all links, {:.1} B a link; known everywhere within {:.2} s",
            each(frames, idle_frames),
            each(bytes, idle_bytes),
            each(bytes, idle_bytes) / (nodes - 1) as f64,
            took.as_secs_f64(),
        );
    }
}

#[test]
#[ignore = "figures"]
fn time_to_form() {
    for nodes in [3, 5] {
        told(&format!("{nodes} nodes form a cluster"), (0..SEEDS).map(|seed| formed(seed, nodes).1).collect());
    }
}

#[test]
#[ignore = "figures"]
fn time_to_heal() {
    for (one, other) in [(&[0][..], &[1, 2][..]), (&[0, 1], &[2, 3, 4])] {
        let nodes = one.len() + other.len();
        let all: Vec<usize> = (0..nodes).collect();
        let heal = |seed| {
            let (mut world, _) = formed(seed, nodes);
            world.split(one, other);
            world.run(60 * SECOND);
            world.heal();
            world.until("healed", 120 * SECOND, |world| world.is_whole(&all))
        };
        told(&format!("{nodes} nodes after 60 s in parts of {} and {}", one.len(), other.len()), {
            (0..SEEDS).map(heal).collect()
        });
    }
}

#[test]
#[ignore = "figures"]
fn how_it_forms() {
    let (world, _) = formed(1, 3);
    for (at, node) in world.nodes.iter().enumerate() {
        for (when, event) in &node.events {
            println!("{at} {when:?} {event:?}");
        }
    }
}
