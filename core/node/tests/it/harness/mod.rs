//! The kernel harness. [`Net`] owns the shard, its driver and the clients; a test talks to it in a few lines:
//!
//! ```ignore
//! check(|net| {
//!     let a = net.connect(Connect::v5("a"));
//!     net.subscribe(a, "t/#", AtLeastOnce);
//!     net.publish(a, Publish::new("t/1", "hello").qos1());
//!     assert_eq!(net.received(a), ["t/1 hello"]);
//! });
//! ```

mod client;
mod driver;
mod net;
mod packets;
mod talk;
mod view;

pub(crate) use client::{Client, Script};
pub(crate) use net::{Net, Options};
pub(crate) use packets::{Connect, Got, Message, Publish, Subscribe, Will};

use newtmq_node::ShardConfig;

/// How many seeds a test runs with, with each number of shards.
const SEEDS: u64 = 8;
/// Numbers of shards.
const SHARDS: [u16; 2] = [1, 4];

/// Runs a test with several seeds and the default configuration; at the end of each run everything must be given back.
pub(crate) fn check(test: impl Fn(&mut Net)) {
    check_with(|_| {}, test);
}

/// The same with a changed configuration.
pub(crate) fn check_with(configure: impl Fn(&mut ShardConfig), test: impl Fn(&mut Net)) {
    run(SEEDS, &SHARDS, Options::default(), configure, test);
}

/// The same for tests that move much data: fewer seeds, large chunks.
pub(crate) fn check_heavy(configure: impl Fn(&mut ShardConfig), test: impl Fn(&mut Net)) {
    run(2, &SHARDS, HEAVY, configure, test);
}

/// The same with all clients at one shard of the node. A publisher is held at once for a target of its own shard; for one
/// of another shard it may get some messages through before it hears of it.
pub(crate) fn check_heavy_together(configure: impl Fn(&mut ShardConfig), test: impl Fn(&mut Net)) {
    run(2, &SHARDS, Options { chunk_max: 64 << 10, chunk_min: 4 << 10, together: true }, configure, test);
}

/// The same for what only several shards can do: with these numbers of shards, and as many seeds.
pub(crate) fn check_shards(shards: &[u16], seeds: u64, configure: impl Fn(&mut ShardConfig), test: impl Fn(&mut Net)) {
    let far = |net: &mut Net| {
        let seed = usize::try_from(net.seed).unwrap();
        net.far_shard = seed.is_multiple_of(3).then_some(seed / 3 % net.shards());
        test(net);
    };
    run(seeds, shards, Options::default(), configure, far);
}

/// The same for tests that move much data: large chunks.
pub(crate) fn check_shards_heavy(
    shards: &[u16],
    seeds: u64,
    configure: impl Fn(&mut ShardConfig),
    test: impl Fn(&mut Net),
) {
    run(seeds, shards, HEAVY, configure, test);
}

const HEAVY: Options = Options { chunk_max: 64 << 10, chunk_min: 4 << 10, together: false };

fn run(seeds: u64, shards: &[u16], options: Options, configure: impl Fn(&mut ShardConfig), test: impl Fn(&mut Net)) {
    let mut config = ShardConfig::default();
    configure(&mut config);
    for shards in shards {
        for seed in 0..seeds {
            let mut net = Net::new(seed, *shards, &config, options);
            test(&mut net);
            net.finish();
        }
    }
}
