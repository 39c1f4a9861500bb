//! Running the broker until it is told to stop.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process;
use std::sync::Arc;

use anyhow::Context as _;
use newtmq_base::{Instant, ListenerId, NodeId, SEED_BYTES, ShardId};
use newtmq_node::{
    AdminCommand, Boot, Control, ControlBoot, Durability, Hook, HookSet, Keeper, Replay, Shard, ShardConfig,
};
use sha2::{Digest as _, Sha256};
use tokio::sync::{mpsc, oneshot};

use crate::access::{Access, Records};
use crate::banner::{self, BannerFacts, Listening, Storage};
use crate::cluster;
use crate::cluster::driver::{ControlDriver, Event};
use crate::cluster::watched::Watched;
use crate::config::{self, Config, Transport};
use crate::data::{DataDir, NodeIdentity};
use crate::driver::{self, Driver, Office};
use crate::exit::CannotListen;
use crate::net::certs::Context as TlsContext;
use crate::net::intake::Intake;
use crate::reload::{self, Reading, Reload, Reloader};
use crate::rt::{self, BoundDatagrams, Clock, Listener, ReloadSignals, StopSignals, Stream, Streams};
#[cfg(not(madsim))]
use crate::service;
use crate::store::{self, Desk, Opened, Writer};
use crate::{listener, memory, settings, sn};

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
    /// The data directory, whose lock is held. Without one nothing may be stored.
    pub data: Option<PathBuf>,
    /// Where `newtmq ctl` asks, if that is not in the data directory.
    pub socket: Option<PathBuf>,
    /// Who looks into the control plane.
    pub watched: Watched,
}

/// Runs the broker until a signal stops it. The first one lets clients go in order, a second one ends the process.
///
/// `reading` is what the configuration was read from, to be read again.
///
/// # Errors
/// It cannot start ([`CannotListen`] among others), or a part of it failed.
pub fn run(options: RunOptions, reading: Option<Reading>) -> anyhow::Result<()> {
    let node = async {
        let (commands, commanded) = mpsc::channel(4);
        let started = start(&options, commanded).await?;
        #[cfg(not(madsim))]
        let (api, dashboard) = serve_operators(&started, reading.as_ref(), &options.config).await?;
        #[cfg(madsim)]
        let (api, dashboard) = (None, None);
        #[cfg(not(madsim))]
        let admin = started.admin.clone();
        let Started { drivers, listening, intakes, gateways, mut reloadable, reloads, stored, mut control, .. } =
            started;
        reloadable.push(Arc::new(memory::watch(options.config.memory.high_watermark, commands.clone())));
        let reloader = Reloader::new(reading, options.config.clone(), reloadable, commands.clone());
        #[cfg(not(madsim))]
        admin.configured(reloader.holds());
        // Without a file it stays what ends a process whose terminal is closed.
        let signals = reloader.has_files().then(ReloadSignals::new).transpose().context("listen for signals")?;
        tokio::spawn(reloader.run(signals, reloads));
        // Before the start message: who reads that may send a signal at once.
        tokio::spawn(stop_on_signal(StopSignals::new().context("listen for signals")?, commands));
        let authentication = !options.config.access.allow_anonymous;
        let (writer, storage) = stored.map_or((None, Storage::Memory), |(writer, storage)| (Some(writer), storage));
        let facts = BannerFacts {
            node: options.node,
            listeners: listening,
            authentication,
            storage,
            api,
            dashboard,
            json: options.json,
        };
        banner::print(&facts);
        #[cfg(not(madsim))]
        service::ready(facts.listeners.len());
        let mut driving = pin!(drive_all(drivers));
        let early = tokio::select! {
            biased;
            ended = &mut driving => {
                ended?;
                None
            }
            ended = &mut control => Some(ended),
        };
        // It ends after the shards, unless it cannot go on; but the news of their end may take longer.
        let of_control = match early {
            Some(ended @ Ok(Ok(()))) => {
                driving.await?;
                ended
            }
            Some(ended) => ended,
            None => control.await,
        };
        of_control.context("the control plane has panicked")??;
        if let Some(writer) = writer {
            writer.end().await;
        }
        for intake in &intakes {
            tracing::info!(listener = intake.listener().path(), counters = ?intake.counters, "connections");
        }
        for (listener, board) in &gateways {
            tracing::info!(listener, figures = ?board.figures(), "gateway for MQTT-SN");
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
    /// What the gateways for MQTT-SN have done, by their listeners' names.
    pub gateways: Vec<(String, sn::Board)>,
    /// What can be read again while it runs.
    pub reloadable: Vec<Arc<dyn Reload>>,
    /// Who asks for that.
    pub reloads: mpsc::Receiver<reload::Asked>,
    /// The thread that writes the store, which ends after the drivers, and what was stored before.
    pub stored: Option<(Writer, Storage)>,
    /// Tells when the control plane has ended, which it does after the drivers.
    pub control: oneshot::Receiver<anyhow::Result<()>>,
    /// Who answers operators.
    #[cfg(not(madsim))]
    pub admin: crate::admin::Admin,
}

impl std::fmt::Debug for Started {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Started").field("listening", &self.listening).finish_non_exhaustive()
    }
}

/// Opens every listener, reads what was stored, and then makes the shards. Who connects meanwhile waits.
///
/// # Errors
/// [`CannotListen`]; [`store::StoreError`]; a file of users, rules or certificates; no random bytes.
pub async fn start(options: &RunOptions, commanded: mpsc::Receiver<AdminCommand>) -> anyhow::Result<Started> {
    let contexts = contexts(&options.config)?;
    // A witness has no clients.
    let served: &[config::Listener] = if options.config.cluster.witness { &[] } else { &options.config.listeners };
    let listeners = listen(served).await?;
    let opened = open_store(options)?;
    let node = match &opened {
        Some(opened) => unused(options, &opened.replay)?,
        None => options.node,
    };
    let prepared = cluster::prepare(&options.config, node, options.data.as_deref()).await?;
    // It goes on where the log ends, so that no deadline in it comes early.
    let clock = Clock::start_at(opened.as_ref().map_or(Instant::START, |opened| opened.replay.now()));
    let records = Records::new(clock, &options.config.zones);
    let access = Access::open(&options.config.access, clock, options.config.broker.hook_timeout, &records)?;
    let access = Arc::new(access);
    let (mailboxes, office, reports) = driver::office(options.shards);
    let hooks = logged_hooks().union(access.hooks());
    let mut config = ShardConfig { access: access.rules(), ..settings::shard_config(&options.config, hooks) };
    if let Some(prepared) = &prepared {
        config.node_name = prepared.boot.name.as_str().into();
        config.hints_bytes /= u64::from(options.shards);
    }
    let node_seed = shards_seed(node.node_id);
    let mut shards = Vec::new();
    for shard in (0..options.shards).map(ShardId) {
        let boot = Boot {
            now: clock.now(),
            wall: rt::wall_time(),
            seed: seed()?,
            node: node.node_id,
            incarnation: node.incarnation,
            shard,
            shards: options.shards,
            node_seed,
            clustered: prepared.is_some(),
            claims: prepared.is_some(),
        };
        shards.push(Shard::new(config.clone(), boot));
    }
    let (stored, desk, replay) = match opened {
        Some(opened) => {
            let (writer, storage, desk, replay) = start_writer(options, opened, &office)?;
            (Some((writer, storage)), Some(desk), Some(replay))
        }
        None => (None, None, None),
    };
    let mut drivers = Vec::new();
    let (to_flaps, flaps) = mpsc::channel(FLAPS_MAX);
    for (shard, mail) in shards.into_iter().zip(mailboxes) {
        let streams = rt::streams().context("watch connections")?;
        let driver = Driver::new(shard, clock, streams, mail).decided_by(access.decider());
        let driver = driver.tells_flaps(to_flaps.clone());
        drivers.push(driver.stored_by(desk.clone()));
    }
    drop(desk);
    if let Some(replay) = replay {
        hand_out(replay, &mut drivers, &config);
    }
    let boot = ControlBoot {
        now: clock.now(),
        wall: rt::wall_time(),
        shards: options.shards,
        version: env!("CARGO_PKG_VERSION"),
        node: node.node_id,
        incarnation: node.incarnation,
        node_seed,
        cluster: prepared.as_ref().map(|prepared| Box::new(prepared.boot.clone())),
    };
    let asked = ask_at(options)?;
    let control = Control::new(&config, boot);
    let (to_reloads, reloads) = mpsc::channel(1);
    let (to_events, events) = mpsc::channel(cluster::EVENTS_MAX);
    #[cfg(not(madsim))]
    let admin = admin(options, &config, clock, &office, (&to_events, &to_reloads), &records)?;
    #[cfg(not(madsim))]
    let asked = (asked, admin.clone());
    let asked = (asked, to_reloads, options.watched.clone());
    let events = (to_events, events);
    // Before anybody can connect.
    cluster::driver::tell_records(&control, &records);
    records.reaches(office.clone());
    #[cfg(not(madsim))]
    tokio::spawn(asked.0.1.clone().keep_watch(flaps));
    #[cfg(madsim)]
    drop(flaps);
    tokio::spawn(records.clone().send_away());
    let telling = (control, records);
    let of_links = prepared.as_ref().and_then(cluster::Prepared::reloadable);
    let control = start_control(telling, clock, (reports, office.clone()), prepared, events, asked)?;
    tokio::spawn(pass_on(commanded, office.clone()));
    let mut listening = Vec::new();
    let (mut intakes, mut gateways) = (Vec::new(), Vec::new());
    for (id, (socket, facts)) in listeners.into_iter().zip(served).enumerate() {
        listening.push(Listening::new(facts, socket.local_addr()?));
        let context = contexts[id].clone();
        let id = ListenerId(u16::try_from(id).context("too many listeners")?);
        let intake = Arc::new(Intake::new(facts.clone(), id, context));
        match socket {
            Open::Connections(socket) => {
                tokio::spawn(listener::accept(socket, Arc::clone(&intake), office.dealer()));
            }
            Open::Datagrams(socket) => {
                let first = gateways.is_empty();
                let (board, asks) = sn::Board::new();
                let start = sn::Start {
                    config: sn::gateway_config(&options.config, facts, node.node_id, first),
                    advertise_to: options.config.sn.advertise_to,
                    socket,
                    intake: Arc::clone(&intake),
                    office: office.clone(),
                    clock,
                    seed: u64::from_le_bytes(*seed()?.first_chunk().expect("a seed is longer")),
                    board,
                    asks,
                };
                gateways.push((facts.path(), start.board.clone()));
                start_gateway(start)?;
            }
        }
        intakes.push(intake);
    }
    #[cfg(not(madsim))]
    admin.listens(listening.iter().map(|open: &Listening| open.address).zip(intakes.iter().cloned()).collect());
    #[cfg(not(madsim))]
    admin.has_gateways(gateways.clone());
    let contexts = contexts.into_iter().flatten().map(|context| context as Arc<dyn Reload>);
    let reloadable = std::iter::once(access as Arc<dyn Reload>).chain(contexts).chain(of_links);
    let reloadable = reloadable.chain(intakes.iter().cloned().map(|intake| intake as Arc<dyn Reload>)).collect();
    Ok(Started {
        drivers,
        listening,
        intakes,
        gateways,
        reloadable,
        reloads,
        stored,
        control,
        #[cfg(not(madsim))]
        admin,
    })
}

/// Who answers operators.
#[cfg(not(madsim))]
fn admin(
    options: &RunOptions,
    config: &ShardConfig,
    clock: Clock,
    office: &Office<Stream>,
    (events, reloads): (&mpsc::Sender<Event>, &mpsc::Sender<reload::Asked>),
    records: &Records,
) -> anyhow::Result<crate::admin::Admin> {
    let facts = crate::admin::Facts {
        node: config.node_name.to_string(),
        config: options.config.clone(),
        clock,
        started: clock.now(),
        data: options.data.clone(),
    };
    crate::admin::Admin::new(office.clone(), events.clone(), reloads.clone(), facts, records.clone())
}

/// Opens the HTTP API and the dashboard and serves them while the broker runs; says where.
#[cfg(not(madsim))]
async fn serve_operators(
    started: &Started,
    reading: Option<&Reading>,
    config: &Config,
) -> anyhow::Result<(Option<String>, Option<String>)> {
    use crate::{alarms, api, dashboard, web};
    let admin = &started.admin;
    if let Some(reading) = reading {
        admin.sets_level(reading.level.clone());
    }
    tokio::spawn(admin.clone().hear_others());
    tokio::spawn(admin.clone().tell_gateways());
    tokio::spawn(service::watch(admin.clone()));
    tokio::spawn(alarms::watch(admin.clone()));
    let (mut of_api, mut of_dashboard) = (None, None);
    if let Some(bound) = web::bind(api::service(), config.api.bind, &config.api).await? {
        of_api = Some(bound.url());
        tokio::spawn(api::serve(bound, admin.clone()));
    }
    if let Some(bound) = web::bind(dashboard::service(), config.dashboard.bind, &config.api).await? {
        of_dashboard = Some(bound.url());
        dashboard::serve(bound, admin.clone()).await?;
    }
    Ok((of_api, of_dashboard))
}

/// The control plane on a thread of its own, with the ways to other nodes and what `newtmq ctl` asks.
fn start_control(
    (control, records): (Control, Records),
    clock: Clock,
    (reports, office): (driver::Reports, Office<Stream>),
    prepared: Option<cluster::Prepared>,
    (to_events, events): (mpsc::Sender<Event>, mpsc::Receiver<Event>),
    (asked, reloads, watched): (Asked, mpsc::Sender<reload::Asked>, Watched),
) -> anyhow::Result<oneshot::Receiver<anyhow::Result<()>>> {
    let body = move || async move {
        let state = prepared.as_ref().map(|prepared| prepared.state.clone()).unwrap_or_default();
        let ways =
            prepared.map(|prepared| prepared.open(&to_events)).transpose().context("open the ways to other nodes")?;
        serve(asked, to_events.clone(), state, reloads);
        let driver = ControlDriver::new(control, clock, reports, office, events, ways, watched.hearer());
        let driver = driver.telling(records);
        watched.run(driver, to_events).await.context("the log of the cluster")
    };
    rt::on_own_thread("control", body).context("start the control plane's thread")
}

#[cfg(not(madsim))]
type Asked = (Option<cluster::admin::AdminSocket>, crate::admin::Admin);

/// Simulated nodes are asked by nobody.
#[cfg(madsim)]
type Asked = ();

#[cfg(not(madsim))]
fn ask_at(options: &RunOptions) -> anyhow::Result<Option<cluster::admin::AdminSocket>> {
    let Some(path) = cluster::socket_path(options.socket.as_deref(), options.data.as_deref()) else { return Ok(None) };
    match cluster::admin::AdminSocket::bind(&path) {
        Ok(socket) => Ok(Some(socket)),
        // A broker serves its clients without it; a path may be too long for a socket.
        Err(error) if options.socket.is_none() => {
            tracing::warn!(path = %path.display(), %error, "newtmq ctl cannot ask this broker; --socket names another path");
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| format!("the socket for newtmq ctl, {}", path.display())),
    }
}

#[cfg(madsim)]
fn ask_at(_: &RunOptions) -> anyhow::Result<Asked> {
    Ok(())
}

#[cfg(not(madsim))]
fn serve(
    (asked, admin): Asked,
    events: mpsc::Sender<Event>,
    discovery: cluster::discovery::State,
    reloads: mpsc::Sender<reload::Asked>,
) {
    if let Some(socket) = asked {
        tokio::spawn(socket.serve(events, discovery, reloads, admin));
    }
}

#[cfg(madsim)]
fn serve((): Asked, _: mpsc::Sender<Event>, _: cluster::discovery::State, _: mpsc::Sender<reload::Asked>) {}

/// Opens the store, if a zone wants something stored and there is a data directory.
fn open_store(options: &RunOptions) -> anyhow::Result<Option<Opened>> {
    let Some(data) = &options.data else { return Ok(None) };
    let zones = options.config.zones.values();
    if zones.map(|zone| settings::durability(zone.durability)).all(|durability| durability == Durability::Memory) {
        warn_of_what_is_there(data);
        return Ok(None);
    }
    Ok(Some(store::open(data, &options.config.store)?))
}

/// An incarnation whose numbers the log does not have: it has them if `node.toml` was moved away, or is of another node.
fn unused(options: &RunOptions, replay: &Replay) -> anyhow::Result<NodeIdentity> {
    let mut node = options.node;
    while replay.starts().contains(&(node.incarnation.0 as u16)) {
        node.incarnation.0 += 1;
    }
    if let Some(data) = options.data.as_ref().filter(|_| node != options.node) {
        DataDir::skip_to(data, node)?;
        tracing::info!(incarnation = node.incarnation.0, "the store has numbers of earlier incarnations");
    }
    Ok(node)
}

fn warn_of_what_is_there(data: &Path) {
    let folder = data.join(store::STORE_FOLDER);
    if folder.is_dir() {
        let folder = folder.display();
        tracing::warn!(%folder, "no zone is durable: what was stored before stays there, and comes back when one is");
    }
}

/// Starts the thread that writes; what was stored is still to be handed out.
fn start_writer(
    options: &RunOptions,
    opened: Opened,
    office: &Office<Stream>,
) -> anyhow::Result<(Writer, Storage, Desk, Replay)> {
    let Opened { wal, replay, folder } = opened;
    let (sessions, retained) = replay.counts();
    let of = &options.config.store;
    let keeper = Keeper::new(wal, store::keeper_config(of), options.shards);
    let (writer, desk) = Writer::start(keeper, of.group_wait, office.clone()).context("start the store's thread")?;
    Ok((writer, Storage::Folder { folder, sessions, retained }, desk, replay))
}

/// Each shard gets its clients' sessions and its topics' retained messages, some at a time: there is never a second copy of
/// all of them. Before the drivers have threads of their own, so that what this gives back is used again at once.
fn hand_out(replay: Replay, drivers: &mut [Driver<Streams>], config: &ShardConfig) {
    let zone = |name: &str| config.zones.iter().find(|zone| *zone.name == *name).unwrap_or(&config.zones[0]);
    let mut dividing = replay.divide(drivers.len().try_into().expect("shards are counted with 16 bits"));
    loop {
        // Client Identifiers and Topic Names are divided alike.
        let home = |name: &str| drivers[0].shard().home(name).0;
        let next = dividing.next_chunk(store::HANDED_AT_ONCE, home, |name| zone(name).session);
        let Some((shard, chunk)) = next else { return };
        drivers[usize::from(shard.0)].recover(Box::new(chunk));
    }
}

/// The certificates of each listener, read before anything is opened; none without TLS.
fn contexts(config: &Config) -> anyhow::Result<Vec<Option<Arc<TlsContext>>>> {
    let context = |facts: &config::Listener| {
        let context = || TlsContext::new(facts).map(Arc::new).with_context(|| facts.path());
        facts.transport.has_tls().then(context).transpose()
    };
    config.listeners.iter().map(context).collect()
}

/// [`Boot::node_seed`], of what a node keeps over restarts.
fn shards_seed(node: NodeId) -> u64 {
    let hash = Sha256::new().chain_update(b"newtmq shards").chain_update(node.0.to_le_bytes()).finalize();
    u64::from_le_bytes(*hash.first_chunk().expect("8 of 32 bytes"))
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

/// A listener that is open.
enum Open {
    Connections(Listener),
    Datagrams(BoundDatagrams),
}

impl Open {
    async fn new(listener: &config::Listener) -> io::Result<Open> {
        match listener.transport {
            Transport::Sn => BoundDatagrams::bind(listener).await.map(Open::Datagrams),
            Transport::Tcp | Transport::Ssl | Transport::Ws | Transport::Wss => {
                rt::listen(listener).await.map(Open::Connections)
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Open::Connections(socket) => socket.local_addr(),
            Open::Datagrams(socket) => socket.local_addr(),
        }
    }
}

/// Opens every listener before anything is promised to anybody.
async fn listen(listeners: &[config::Listener]) -> Result<Vec<Open>, CannotListen> {
    let mut open = Vec::new();
    for listener in listeners {
        let socket = Open::new(listener).await.map_err(|source| CannotListen {
            listener: listener.path(),
            address: listener.bind,
            source,
        })?;
        open.push(socket);
    }
    Ok(open)
}

/// A gateway for MQTT-SN on a thread of its own, for as long as the process runs.
fn start_gateway(start: sn::Start) -> anyhow::Result<()> {
    let listener = start.intake.listener().path();
    let end = rt::on_own_thread("mqtt-sn", move || sn::serve(start)).context("start the gateway for MQTT-SN")?;
    tokio::spawn(async move {
        let why = match end.await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it has panicked".to_owned(),
        };
        tracing::error!(listener, why, "the gateway for MQTT-SN has ended");
    });
    Ok(())
}

/// Hooks that are only told to the log; nobody pays for them unless the log shows them.
fn logged_hooks() -> HookSet {
    if !tracing::enabled!(tracing::Level::DEBUG) {
        return HookSet::default();
    }
    HookSet::default().with(Hook::ClientConnected).with(Hook::ClientDisconnected).with(Hook::SessionTerminated)
}

/// Clients that connect too often and wait to be banned; more are lost, and come again.
const FLAPS_MAX: usize = 256;

/// Tells the shards to stop at the first signal, and ends the process at the second.
async fn stop_on_signal(mut signals: StopSignals, commands: mpsc::Sender<AdminCommand>) {
    let signal = signals.next().await;
    tracing::info!(signal, "stopping; a second signal stops at once");
    #[cfg(not(madsim))]
    service::stopping();
    // The driver may be gone already; then there is nothing to stop.
    let _ = commands.send(AdminCommand::Shutdown).await;
    let signal = signals.next().await;
    tracing::warn!(signal, "stopped at once");
    process::exit(1);
}
