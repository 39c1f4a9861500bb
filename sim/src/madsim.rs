//! The madsim tier: the broker as it runs in production (driver, listeners, configuration) in madsim, with the
//! simulated network of `newtmq-simnet` and the client models of the kernel tier.
//!
//! Each run has a thread of its own, since madsim keeps state in the thread; its events come back in batches, and the
//! checks look at them in the thread of the caller. What madsim cannot do is left out without a word in the history:
//! `clock_jump`, `drift` and `lag`, and of `[net]` `shard_delay_us` and `work_delay_us`: how long something within a
//! node takes, and in which order its tasks run, is decided by madsim from the seed.
//!
//! Of the white-box checks none is made here: the shards belong to their drivers.

mod actor;
mod journal;
mod nodes;
mod settings;
mod world;

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use madsim::runtime::Runtime;
use newtmq_base::Instant;

use crate::observer::Observer;
use crate::report::{Check, Violation, Witness};
use crate::run::Options;
use crate::scenario::Scenario;
use journal::{Batch, Journal};
use world::World;

/// Batches that wait for the checks, before the simulation waits for them.
const BATCHES_MAX: usize = 16;

/// Carries out a scenario; returns its end in simulated time.
pub(crate) fn run(scenario: &Scenario, _: Options, observer: &mut Observer<'_>) -> Instant {
    let (send, batches) = sync_channel(BATCHES_MAX);
    let of_run = Arc::new(scenario.clone());
    let simulation =
        thread::Builder::new().name("madsim".into()).spawn(move || simulate(&of_run, send)).expect("a thread starts");
    let mut last = Instant::START;
    for Batch { texts, events } in batches {
        for text in texts {
            observer.names.number(&text);
        }
        for (at, event) in events {
            last = at;
            observer.event(at, event);
        }
    }
    match simulation.join() {
        Ok(end) => end,
        Err(panic) => {
            observer.violated(Violation {
                check: Check::Crash,
                at: last,
                message: format!("the broker panicked: {}", message(&*panic)),
                witness: Witness::default(),
            });
            last
        }
    }
}

/// The life of a world, on a thread that nothing else has used.
fn simulate(scenario: &Arc<Scenario>, send: SyncSender<Batch>) -> Instant {
    let runtime = Runtime::with_seed_and_config(scenario.seed, madsim::Config::default());
    newtmq_simnet::install(&runtime);
    runtime.block_on(async {
        let journal = Journal::new(send);
        let mut world = World::start(Arc::clone(scenario), journal.clone()).await;
        world.live().await;
        let end = journal.now();
        world.end().await;
        end
    })
}

/// What a panic says.
fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "no message",
    }
}
