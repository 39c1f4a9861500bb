//! The madsim tier: the broker as it runs in production (driver, listeners, configuration) in madsim, with the
//! simulated network of `newtmq-simnet` and the client models of the kernel tier.
//!
//! Each run has a thread of its own, since madsim keeps state in the thread; its events come back in batches, and the
//! checks look at them in the thread of the caller. What madsim cannot do is left out without a word in the history:
//! `clock_jump`, `drift` and `lag`, and of `[net]` `shard_delay_us` and `work_delay_us`: how long something within a
//! node takes, and in which order its tasks run, is decided by madsim from the seed.
//!
//! Of several nodes a file that wants more than madsim can do is refused. Their logs of the cluster are on simulated disks,
//! which outlive them. Their control planes are looked into all the time; what holds at rest has to hold at some time.
//!
//! The white box is looked into at the end alone: account, queues and Packet Identifiers when all has settled, leaks when
//! all clients have gone. Routes and shares are not compared: when shards have nothing more to tell each other only the
//! kernel tier knows.

mod actor;
mod cluster;
mod journal;
mod mesh;
mod nodes;
mod settings;
#[cfg(test)]
mod tests;
mod watch;
mod world;

use core::cell::RefCell;
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
use nodes::Inside;
use world::World;

/// Batches that wait for the checks, before the simulation waits for them.
const BATCHES_MAX: usize = 16;

/// Carries out a scenario; returns its end in simulated time.
pub(crate) fn run(scenario: &Scenario, options: Options, observer: &mut Observer<'_>) -> Instant {
    let (send, batches) = sync_channel(BATCHES_MAX);
    let of_run = Arc::new(scenario.clone());
    let simulation = move || {
        let journal = RefCell::new(None);
        let outcome = crate::guard::catch(|| simulate(&of_run, options, send, &journal));
        // After a panic tasks are left that have it, too.
        if let Some(journal) = journal.take() {
            Journal::close(&journal);
        }
        outcome
    };
    let simulation = thread::Builder::new().name("madsim".into()).spawn(simulation).expect("a thread starts");
    let mut last = Instant::START;
    for Batch { texts, events } in batches {
        for text in texts {
            observer.names.number(&text);
        }
        for (at, event) in events {
            last = at;
            observer.event(at, &event);
        }
    }
    observer.findings.obligations.count(Check::Crash, 1);
    let (end, inside) = match simulation.join().expect("it catches what panics") {
        Ok(done) => done,
        Err(message) => (last, Inside { found: vec![(Check::Crash, message)], ..Inside::default() }),
    };
    observer.findings.obligations.add(&inside.obligations);
    inside.cluster.into_iter().for_each(|violation| observer.violated(violation));
    for (check, message) in inside.found {
        observer.violated(Violation { check, at: end, message, witness: Witness::default() });
    }
    end
}

/// The life of a world, on a thread that nothing else has used: its end, and what was seen inside.
fn simulate(
    scenario: &Arc<Scenario>,
    options: Options,
    send: SyncSender<Batch>,
    kept: &RefCell<Option<Journal>>,
) -> (Instant, Inside) {
    let runtime = Runtime::with_seed_and_config(scenario.seed, madsim::Config::default());
    newtmq_simnet::install(&runtime);
    runtime.block_on(async {
        let journal = Journal::new(send);
        *kept.borrow_mut() = Some(journal.clone());
        let mut world = World::start(Arc::clone(scenario), journal.clone(), options.white_box).await;
        world.live().await;
        let (end, mut inside) = (journal.now(), Inside::default());
        if options.white_box {
            world.look(&mut inside).await;
        }
        world.end().await;
        (end, inside)
    })
}
