//! Running the broker until it is told to stop.

use std::process;
use std::sync::Arc;

use anyhow::Context as _;
use newtmq_base::{ListenerId, SEED_BYTES, ShardId};
use newtmq_node::{AdminCommand, Boot, Control, ControlBoot, Hook, HookSet, Shard, ShardConfig};
use tokio::sync::mpsc;

use crate::access::Access;
use crate::banner::{self, BannerFacts, Listening};
use crate::config::{self, Config};
use crate::data::NodeIdentity;
use crate::driver::{self, Driver, Office};
use crate::exit::CannotListen;
use crate::net::certs::Context as TlsContext;
use crate::net::intake::Intake;
use crate::reload::{self, Reload};
use crate::rt::{self, Clock, Listener, ReloadSignals, StopSignals, Stream, Streams};
use crate::{listener, memory, settings};

/// What a broker is started with.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The configuration.
    pub config: Config,
    /// Who this node is.
    pub node: NodeIdentity,
    /// Shards, each with its own thread.
    pub shards: u16,
    /// The start message is one line of JSON.
    pub json: bool,
}

/// Runs the broker until a signal stops it. The first one lets clients go in order, a second one ends the process.
///
/// # Errors
/// It cannot start ([`CannotListen`] among others), or a part of it failed.
pub fn run(options: RunOptions) -> anyhow::Result<()> {
    let node = async {
        let (commands, commanded) = mpsc::channel(4);
        let Started { drivers, listening, intakes, reloadable } = start(&options, commanded).await?;
        // Without a file it stays what ends a process whose terminal is closed.
        if !reloadable.is_empty() {
            let signals = ReloadSignals::new().context("listen for signals")?;
            tokio::spawn(reload::on_signal(signals, reloadable, commands.clone()));
        }
        // Before the start message: who reads that may send a signal at once.
        tokio::spawn(stop_on_signal(StopSignals::new().context("listen for signals")?, commands.clone()));
        memory::watch(options.config.memory.high_watermark, commands);
        let authentication = !options.config.access.allow_anonymous;
        banner::print(&BannerFacts { node: options.node, listeners: listening, authentication, json: options.json });
        drive_all(drivers).await?;
        for intake in &intakes {
            tracing::info!(listener = intake.listener().path(), counters = ?intake.counters, "connections");
        }
        tracing::info!("stopped");
        Ok(())
    };
    rt::block_on(node).context("start the runtime")?
}

/// Runs all drivers to their end. One that fails ends them all: its clients' sessions are gone.
///
/// # Errors
/// What the first one failed with.
pub async fn drive_all(drivers: Vec<Driver<Streams>>) -> anyhow::Result<()> {
    let (end, mut ends) = mpsc::channel(drivers.len());
    for (shard, driver) in (0..).map(ShardId).zip(drivers) {
        let end = end.clone();
        tokio::spawn(async move {
            let ended = rt::drive(driver, shard).await.with_context(|| format!("shard {}", shard.0));
            // Nobody listens after the first failure.
            let _ = end.send(ended).await;
        });
    }
    drop(end);
    while let Some(ended) = ends.recv().await {
        ended?;
    }
    Ok(())
}

/// A broker that accepts connections, and serves them while its drivers run.
pub struct Started {
    /// By shard. They end when they were told to stop.
    pub drivers: Vec<Driver<Streams>>,
    /// What listens.
    pub listening: Vec<Listening>,
    /// What became of the connections of each.
    pub intakes: Vec<Arc<Intake>>,
    /// What can be read again while it runs.
    pub reloadable: Vec<Arc<dyn Reload>>,
}

impl std::fmt::Debug for Started {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Started").field("listening", &self.listening).finish_non_exhaustive()
    }
}

/// Opens every listener, and then makes the shards.
///
/// # Errors
/// [`CannotListen`]; a file of users, rules or certificates; no random bytes.
pub async fn start(options: &RunOptions, commanded: mpsc::Receiver<AdminCommand>) -> anyhow::Result<Started> {
    let contexts = contexts(&options.config)?;
    let clock = Clock::start();
    let access = Arc::new(Access::open(&options.config.access, clock, options.config.broker.hook_timeout)?);
    let listeners = listen(&options.config).await?;
    let (mailboxes, office, reports) = driver::office(options.shards);
    let hooks = logged_hooks().union(access.hooks());
    let config = ShardConfig { access: access.rules(), ..settings::shard_config(&options.config, hooks) };
    let node_seed = u64::from_le_bytes(*seed()?.first_chunk().expect("a seed is longer"));
    let mut drivers = Vec::new();
    for (shard, mail) in (0..).map(ShardId).zip(mailboxes) {
        let boot = Boot {
            now: clock.now(),
            wall: rt::wall_time(),
            seed: seed()?,
            node: options.node.node_id,
            incarnation: options.node.incarnation,
            shard,
            shards: options.shards,
            node_seed,
        };
        let streams = rt::streams().context("watch connections")?;
        let driver = Driver::new(Shard::new(config.clone(), boot), clock, streams, mail);
        drivers.push(driver.decided_by(access.decider()));
    }
    let boot = ControlBoot {
        now: clock.now(),
        wall: rt::wall_time(),
        shards: options.shards,
        version: env!("CARGO_PKG_VERSION"),
    };
    tokio::spawn(driver::control(Control::new(&config, boot), clock, reports, office.clone()));
    tokio::spawn(pass_on(commanded, office.clone()));
    let mut listening = Vec::new();
    let mut intakes = Vec::new();
    for (id, (socket, facts)) in listeners.into_iter().zip(&options.config.listeners).enumerate() {
        listening.push(Listening::new(facts, socket.local_addr()?));
        let context = contexts[id].clone();
        let id = ListenerId(u16::try_from(id).context("too many listeners")?);
        let intake = Arc::new(Intake::new(facts.clone(), id, context));
        tokio::spawn(listener::accept(socket, Arc::clone(&intake), office.dealer()));
        intakes.push(intake);
    }
    let contexts = contexts.into_iter().flatten().map(|context| context as Arc<dyn Reload>);
    let files = access.has_files().then_some(access as Arc<dyn Reload>);
    let reloadable = files.into_iter().chain(contexts).collect();
    Ok(Started { drivers, listening, intakes, reloadable })
}

/// The certificates of each listener, read before anything is opened; none without TLS.
fn contexts(config: &Config) -> anyhow::Result<Vec<Option<Arc<TlsContext>>>> {
    let context = |facts: &config::Listener| {
        let context = || TlsContext::new(facts).map(Arc::new).with_context(|| facts.path());
        facts.transport.has_tls().then(context).transpose()
    };
    config.listeners.iter().map(context).collect()
}

fn seed() -> anyhow::Result<[u8; SEED_BYTES]> {
    rt::seed().context("random bytes from the operating system")
}

/// Gives every shard what is commanded.
async fn pass_on(mut commanded: mpsc::Receiver<AdminCommand>, office: Office<Stream>) {
    while let Some(command) = commanded.recv().await {
        office.command(&command);
    }
}

/// Opens every listener before anything is promised to anybody.
async fn listen(config: &Config) -> Result<Vec<Listener>, CannotListen> {
    let mut open = Vec::new();
    for listener in &config.listeners {
        let socket = rt::listen(listener).await.map_err(|source| CannotListen {
            listener: listener.path(),
            address: listener.bind,
            source,
        })?;
        open.push(socket);
    }
    Ok(open)
}

/// Hooks that are only told to the log; nobody pays for them unless the log shows them.
fn logged_hooks() -> HookSet {
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return HookSet::default();
    }
    HookSet::default().with(Hook::ClientConnected).with(Hook::ClientDisconnected).with(Hook::SessionTerminated)
}

/// Tells the shards to stop at the first signal, and ends the process at the second.
async fn stop_on_signal(mut signals: StopSignals, commands: mpsc::Sender<AdminCommand>) {
    let signal = signals.next().await;
    tracing::info!(signal, "stopping; a second signal stops at once");
    // The driver may be gone already; then there is nothing to stop.
    let _ = commands.send(AdminCommand::Shutdown).await;
    let signal = signals.next().await;
    tracing::warn!(signal, "stopped at once");
    process::exit(1);
}
