//! Running the broker until it is told to stop.

use std::process;

use anyhow::Context as _;
use newtmq_base::{ListenerId, ShardId};
use newtmq_node::{AdminCommand, Boot, Hook, HookSet, Shard};
use tokio::sync::mpsc;

use crate::banner::{self, BannerFacts, Listening};
use crate::config::Config;
use crate::data::NodeIdentity;
use crate::driver::Driver;
use crate::exit::CannotListen;
use crate::rt::{self, Clock, Listener, StopSignals, Streams};
use crate::{listener, settings};

/// What a broker is started with.
#[derive(Debug, Clone)]
pub struct RunOptions {
    /// The configuration.
    pub config: Config,
    /// Who this node is.
    pub node: NodeIdentity,
    /// Shards; 1 in this version.
    pub shards: u16,
    /// The start message is one line of JSON.
    pub json: bool,
}

/// Runs the broker until a signal stops it. The first one lets clients go in order, a second one ends the process.
///
/// # Errors
/// It cannot start ([`CannotListen`] among others), or a part of it failed.
pub fn run(options: RunOptions) -> anyhow::Result<()> {
    assert_eq!(options.shards, 1, "checked by the command line");
    let node = async {
        let (commands, commanded) = mpsc::channel(4);
        let Started { driver, listening } = start(&options, commanded).await?;
        // Before the start message: who reads that may send a signal at once.
        tokio::spawn(stop_on_signal(StopSignals::new().context("listen for signals")?, commands));
        banner::print(&BannerFacts { node: options.node, listeners: listening, json: options.json });
        rt::drive(driver).await.context("the shard")?;
        tracing::info!("stopped");
        Ok(())
    };
    rt::block_on(node).context("start the runtime")?
}

/// A broker that accepts connections, and serves them while its driver is polled.
#[derive(Debug)]
pub struct Started {
    /// Ends when it was told to stop.
    pub driver: Driver<Streams>,
    /// What listens.
    pub listening: Vec<Listening>,
}

/// Opens every listener, and then starts the shard.
///
/// # Errors
/// [`CannotListen`]; no random bytes.
pub async fn start(options: &RunOptions, commanded: mpsc::Receiver<AdminCommand>) -> anyhow::Result<Started> {
    let listeners = listen(&options.config).await?;
    let clock = Clock::start();
    let boot = Boot {
        now: clock.now(),
        wall: rt::wall_time(),
        seed: rt::seed().context("random bytes from the operating system")?,
        node: options.node.node_id,
        incarnation: options.node.incarnation,
        shard: ShardId(0),
    };
    let shard = Shard::new(settings::shard_config(&options.config, logged_hooks()), boot);
    let (sender, accepted) = mpsc::channel(listener::ACCEPTED_MAX);
    let mut listening = Vec::new();
    for (id, (socket, facts)) in listeners.into_iter().zip(&options.config.listeners).enumerate() {
        listening.push(Listening { name: facts.name.clone(), address: socket.local_addr()? });
        let id = ListenerId(u16::try_from(id).context("too many listeners")?);
        tokio::spawn(listener::accept(socket, id, facts.name.clone(), sender.clone()));
    }
    let streams = rt::streams().context("watch connections")?;
    Ok(Started { driver: Driver::new(shard, clock, streams, accepted, commanded), listening })
}

/// Opens every listener before anything is promised to anybody.
async fn listen(config: &Config) -> Result<Vec<Listener>, CannotListen> {
    let mut open = Vec::new();
    for listener in &config.listeners {
        let socket = rt::listen(listener.bind, listener.backlog, listener.nodelay)
            .await
            .map_err(|source| CannotListen { listener: listener.name.clone(), address: listener.bind, source })?;
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

async fn stop_on_signal(mut signals: StopSignals, commands: mpsc::Sender<AdminCommand>) {
    let signal = signals.next().await;
    tracing::info!(signal, "stopping; a second signal stops at once");
    // The driver may be gone already; then there is nothing to stop.
    let _ = commands.send(AdminCommand::Shutdown).await;
    let signal = signals.next().await;
    tracing::warn!(signal, "stopped at once");
    process::exit(1);
}
