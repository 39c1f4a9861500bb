//! Anything happens to a cluster, in any order; then it comes to rest as one.

use core::time::Duration;

use newtmq_base::Rng;
use newtmq_cluster::owned::Class;

use super::scenes::subscribe_all;
use super::world::World;
use crate::ClusterConfig;

const SECOND: Duration = Duration::from_secs(1);

/// One story.
pub(super) fn story(seed: u64) {
    let mut rng = Rng::from_number(seed ^ 0x5EED);
    let nodes = 2 + rng.below(4) as usize;
    let mut world = World::new(seed, nodes);
    world.shards = 1 + rng.below(3) as u16;
    world.delay = Duration::from_millis(1 + rng.below(80));
    world.loss_percent = rng.below(20);
    let (strict, autoclean) = (rng.below(4) == 0, 10 + rng.below(50));
    let change = |config: &mut ClusterConfig| {
        config.strict = strict;
        config.meta.autoclean = Some(Duration::from_secs(autoclean));
    };
    world.nodes.iter_mut().for_each(|node| change(&mut node.config));
    world.start_all();
    for _ in 0..rng.below(25) {
        let at = rng.below(nodes as u64) as usize;
        let runs = world.nodes[at].control.is_some();
        match rng.below(12) {
            0 | 1 if runs => world.crash(at),
            2 | 3 if !runs => world.start(at),
            4 => {
                let (one, other): (Vec<usize>, Vec<usize>) = (0..nodes).partition(|_| rng.below(2) == 0);
                world.split(&one, &other);
            }
            // One direction only.
            5 => _ = world.cuts.insert((at, rng.below(nodes as u64) as usize)),
            6 => world.heal(),
            7 => world.reset(at, rng.below(nodes as u64) as usize),
            8..=10 if runs => {
                let shard = rng.below(u64::from(world.shards)) as u16;
                let class = if rng.below(2) == 0 { Class::Durable } else { Class::Transient };
                let filter = ["a", "b/#", "$share/g/a"][rng.below(3) as usize];
                world.subscribe(at, shard, filter, class);
                if rng.below(3) == 0 {
                    world.unsubscribe(at, shard, filter, class);
                }
            }
            11 if runs => {
                world.crash(at);
                world.run(Duration::from_millis(rng.below(3000)));
                world.start(at);
            }
            _ => {}
        }
        world.run(Duration::from_millis(rng.below(8000)));
    }
    world.heal();
    world.loss_percent = 0;
    for at in 0..nodes {
        if world.nodes[at].control.is_none() {
            world.start(at);
        }
    }
    let all: Vec<usize> = (0..nodes).collect();
    world.until("one cluster", 90 * SECOND, |world| world.is_whole(&all));
    // Nothing of it goes on: everybody stays, and what is subscribed to arrives.
    world.run(20 * SECOND);
    if world.shards > 1 {
        subscribe_all(&mut world);
    }
    world.until("still one", 2 * SECOND, |world| world.is_whole(&all));
}

#[test]
fn clusters_come_to_rest() {
    (0..12).for_each(story);
}

#[test]
#[ignore = "takes minutes"]
fn many_clusters_come_to_rest() {
    for seed in 1000..1000 + STORIES {
        let result = std::panic::catch_unwind(|| story(seed));
        assert!(result.is_ok(), "seed {seed}");
    }
}

const STORIES: u64 = 3000;
