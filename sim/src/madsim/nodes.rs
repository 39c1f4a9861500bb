//! The nodes: each a node of madsim that runs the broker, started, stopped, killed and paused as the scenario says.

use core::cell::RefCell;
use core::future::{Future as _, poll_fn};
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::pin::Pin;
use core::task::Poll;
use core::time::Duration;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use madsim::runtime::Handle;
use madsim::task::NodeId;
use newtmq::cluster::watched::Watched;
use newtmq::data::NodeIdentity;
use newtmq::driver::Driver;
use newtmq::rt::Streams;
use newtmq::run::{RunOptions, Started, start};
use newtmq_base::{Incarnation, Instant};
use newtmq_node::{AdminCommand, MemoryPressure, SHARDS_MAX, ShardView};
use newtmq_simnet::{Disk, Net, OnKill};
use tokio::sync::{mpsc, oneshot};

use super::journal::Journal;
use super::settings;
use super::watch::Watch;
use crate::history::{Event, Fault, NodeIx};
use crate::report::{Check, Obligations, Violation};
use crate::scenario::Scenario;
use crate::whitebox::{self, Bounds};

/// Commands that wait for a node: a scenario has few, and a paused node takes none.
const COMMANDS_MAX: usize = 1 << 16;
const PORT: u16 = 1883;
/// The data directory of every node, on its simulated disk.
const DATA: &str = "/simulated/newtmq";

/// All nodes. Clones are the same ones.
#[derive(Clone)]
pub(super) struct Nodes {
    pub(super) all: Rc<RefCell<Vec<Node>>>,
    pub(super) scenario: Arc<Scenario>,
    pub(super) journal: Journal,
    pub(super) watch: Watch,
}

pub(super) struct Node {
    pub(super) id: NodeId,
    state: State,
    /// Counts its starts, from 1.
    start: u32,
    /// Counts those since its disk was empty.
    incarnation: u32,
    /// How often it has lost its disk.
    pub(super) wiped: u32,
    /// Who it was when it ran last.
    pub(super) last: newtmq_base::NodeId,
    /// Its control plane.
    pub(super) watched: Watched,
    commands: Option<mpsc::Sender<AdminCommand>>,
    paused_until: Option<Instant>,
    pressure: u8,
    /// Once it listens, to look into.
    pub(super) drivers: Drivers,
}

/// By shard; none that has ended.
pub(super) type Drivers = Vec<Arc<Mutex<Option<Driver<Streams>>>>>;

/// What was seen inside.
#[derive(Debug, Default)]
pub(super) struct Inside {
    pub(super) found: Vec<(Check, String)>,
    /// Of nodes as a cluster.
    pub(super) cluster: Vec<Violation>,
    pub(super) obligations: Obligations,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Up,
    /// It was told to stop.
    Stopping {
        /// It starts again afterwards.
        restart: bool,
    },
    Down,
}

/// Where clients find a node.
pub(super) fn address(node: u16) -> SocketAddr {
    let [high, low] = (node + 1).to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, high, low)), PORT)
}

/// Who a node is for others, after so many losses of its disk.
pub(super) fn id_of(node: u16, wiped: u32) -> newtmq_base::NodeId {
    newtmq_base::NodeId(u64::from(wiped) << 16 | (u64::from(node) + 1))
}

impl Nodes {
    /// All nodes, none of which runs.
    pub(super) fn new(scenario: Arc<Scenario>, journal: Journal, watch: Watch) -> Nodes {
        let handle = Handle::current();
        let node = |ix: u16| {
            let built = handle.create_node().name(format!("node-{ix}")).ip(address(ix).ip()).build();
            Node {
                id: built.id(),
                state: State::Down,
                start: 0,
                incarnation: 0,
                wiped: 0,
                last: id_of(ix, 0),
                watched: Watched::default(),
                commands: None,
                paused_until: None,
                pressure: 0,
                drivers: Vec::new(),
            }
        };
        let all: Vec<Node> = (0..scenario.nodes).map(node).collect();
        let disk = &scenario.disk;
        for node in &all {
            Disk::current().set_sync_us(node.id, (*disk.sync_us.start(), *disk.sync_us.end()));
        }
        Nodes { all: Rc::new(RefCell::new(all)), scenario, journal, watch }
    }

    /// In madsim.
    pub(super) fn ids(&self) -> Vec<NodeId> {
        self.all.borrow().iter().map(|node| node.id).collect()
    }

    /// Starts all nodes whose time that is, and waits until they listen.
    pub(super) async fn start(&self) {
        let count = self.all.borrow().len();
        for at in 0..count {
            let node = u16::try_from(at).expect("a scenario counts nodes in 16 bits");
            let start_ms = self.scenario.node_spec(node).start_ms;
            if start_ms == 0 {
                // If it cannot start, the run has panicked.
                let _ = self.boot(at).await;
                continue;
            }
            self.journal.note(Event::Fault(Fault::Shutdown { node: NodeIx(node) }));
            let nodes = self.clone();
            madsim::task::spawn_local(async move {
                madsim::time::sleep_until(nodes.journal.at(Instant::from_millis(start_ms))).await;
                if nodes.all.borrow()[at].start == 0 {
                    nodes.restarted(at);
                }
            });
        }
    }

    /// Starts a node that is down; tells when it listens.
    fn boot(&self, at: usize) -> oneshot::Receiver<()> {
        let (commands, commanded) = mpsc::channel(COMMANDS_MAX);
        let (started, starting) = oneshot::channel();
        let ix = u16::try_from(at).expect("a scenario counts nodes in 16 bits");
        let (id, start_number, node) = {
            let mut all = self.all.borrow_mut();
            let node = &mut all[at];
            node.start += 1;
            node.incarnation += 1;
            node.last = id_of(ix, node.wiped);
            node.state = State::Up;
            node.pressure = 0;
            node.commands = Some(commands);
            let incarnation = Incarnation(u64::from(node.incarnation));
            (node.id, node.start, NodeIdentity { node_id: node.last, incarnation })
        };
        let watched = self.watched(ix, node);
        let options = RunOptions {
            config: settings::config(&self.scenario, ix),
            node,
            shards: self.scenario.shards.clamp(1, SHARDS_MAX),
            json: true,
            // There are no real files below it.
            data: self.scenario.is_cluster().then(|| DATA.into()),
            socket: None,
            watched: watched.clone(),
        };
        self.all.borrow_mut()[at].watched = watched;
        let handle = Handle::current();
        if start_number > 1 {
            handle.restart(id);
            if self.scenario.is_cluster() {
                // Who still speaks to the one before is told.
                Net::current().end_silence_of(id);
            }
        }
        let node = handle.get_node(id).expect("it was created");
        let running = node.spawn(async move {
            let Started { drivers, control, .. } =
                start(&options, commanded).await.expect("nothing keeps a node from starting");
            let drivers: Drivers = drivers.into_iter().map(|driver| Arc::new(Mutex::new(Some(driver)))).collect();
            // The world may be over.
            let _ = started.send(drivers.clone());
            let running: Vec<_> = drivers.into_iter().map(|driver| tokio::spawn(drive(driver))).collect();
            for driver in running {
                driver.await.expect("a panic ends the run");
            }
            control.await.expect("a panic ends the run").expect("nothing keeps the control plane from working");
        });
        let (nodes, (listens, listening)) = (self.clone(), oneshot::channel());
        madsim::task::spawn_local(async move {
            if let Ok(drivers) = starting.await {
                nodes.listens(at, start_number, drivers);
                // Mostly nobody waits.
                let _ = listens.send(());
            }
            if running.await.is_ok() {
                nodes.stopped(at, start_number);
            }
        });
        listening
    }

    /// Tells of the start of a node in its cluster, and of what it says there.
    fn watched(&self, ix: u16, node: NodeIdentity) -> Watched {
        if !self.scenario.is_cluster() {
            return Watched::default();
        }
        let (id, incarnation) = (node.node_id, node.incarnation);
        let address = settings::peer_address(ix);
        self.journal.note(Event::NodeUp { node: NodeIx(ix), id, incarnation, address });
        self.watch.started(ix, id, incarnation);
        let watch = self.watch.clone();
        Watched::by(move |control, event| watch.heard(ix, id, control, event))
    }

    /// A node is gone.
    fn gone(&self, ix: u16) {
        if self.scenario.is_cluster() {
            self.journal.note(Event::NodeDown { node: NodeIx(ix) });
        }
    }

    fn listens(&self, at: usize, start: u32, drivers: Drivers) {
        let mut all = self.all.borrow_mut();
        let node = &mut all[at];
        if node.start == start && node.state != State::Down {
            node.drivers = drivers;
        }
    }

    /// Its process has ended in order.
    fn stopped(&self, at: usize, start: u32) {
        let restart = {
            let mut all = self.all.borrow_mut();
            let node = &mut all[at];
            if node.start != start {
                return;
            }
            Handle::current().kill(node.id);
            node.forget();
            core::mem::replace(&mut node.state, State::Down) == State::Stopping { restart: true }
        };
        self.gone(u16::try_from(at).expect("a scenario counts nodes in 16 bits"));
        let now = self.journal.now();
        self.watch.expect(|watch| watch.stopped(now));
        if restart {
            self.restarted(at);
        }
    }

    fn restarted(&self, at: usize) {
        let ix = NodeIx(u16::try_from(at).expect("a scenario counts nodes in 16 bits"));
        drop(self.boot(at));
        self.journal.note(Event::Fault(Fault::Restart { node: ix }));
    }

    /// The node is gone, with everything in its memory.
    pub(super) fn crash(&self, ix: u16, power_loss: bool) {
        let mut all = self.all.borrow_mut();
        let Some(node) = all.get_mut(usize::from(ix)).filter(|node| node.state != State::Down) else { return };
        self.journal.note(Event::Fault(Fault::Crash { node: NodeIx(ix), power_loss }));
        let net = Net::current();
        // Without power nobody says anything any more.
        net.set_on_kill(if power_loss && self.scenario.is_cluster() { OnKill::Silent } else { OnKill::Either });
        Handle::current().kill(node.id);
        net.set_on_kill(OnKill::Either);
        if power_loss {
            Disk::current().lose_power(node.id);
        }
        node.state = State::Down;
        node.forget();
        self.gone(ix);
    }

    /// The node loses what is on its disk, and itself if it runs.
    pub(super) fn wipe(&self, ix: u16) {
        if self.all.borrow().get(usize::from(ix)).is_none_or(|node| node.start == 0) {
            return;
        }
        self.crash(ix, true);
        let mut all = self.all.borrow_mut();
        let node = &mut all[usize::from(ix)];
        Disk::current().wipe(node.id);
        node.wiped += 1;
        node.incarnation = 0;
        self.journal.note(Event::Fault(Fault::Wipe { node: NodeIx(ix) }));
    }

    /// Syncs of a node take so much longer.
    pub(super) fn slow_disk(&self, ix: u16, by_us: u64) {
        if let Some(node) = self.all.borrow().get(usize::from(ix)) {
            Disk::current().set_slow_us(node.id, by_us);
            self.journal.note(Event::Fault(Fault::DiskSlow { node: NodeIx(ix), by_us }));
        }
    }

    /// A node that is down starts; one that stops does afterwards.
    pub(super) fn restart(&self, ix: u16) {
        let at = usize::from(ix);
        let down = match self.all.borrow_mut().get_mut(at) {
            Some(node) if node.state == State::Down => true,
            Some(node) => {
                if node.state != State::Up {
                    node.state = State::Stopping { restart: true };
                }
                false
            }
            None => false,
        };
        if down {
            self.restarted(at);
        }
    }

    /// The node stops in order.
    pub(super) fn shut_down(&self, ix: u16) {
        let mut all = self.all.borrow_mut();
        let Some(node) = all.get_mut(usize::from(ix)).filter(|node| node.state == State::Up) else { return };
        node.state = State::Stopping { restart: false };
        node.command(AdminCommand::Shutdown);
        self.journal.note(Event::Fault(Fault::Shutdown { node: NodeIx(ix) }));
    }

    /// Memory is short, or not.
    pub(super) fn pressure(&self, ix: u16, level: u8) {
        let pressure = match level {
            0 => MemoryPressure::None,
            1 => MemoryPressure::Shed,
            _ => MemoryPressure::Hold,
        };
        let mut all = self.all.borrow_mut();
        let Some(node) = all.get_mut(usize::from(ix)).filter(|node| node.state == State::Up) else { return };
        if node.pressure == level.min(2) {
            return;
        }
        node.pressure = level.min(2);
        node.command(AdminCommand::MemoryPressure(pressure));
        let fault = Fault::MemoryPressure { node: NodeIx(ix), level: level.min(2) };
        self.journal.note(Event::Fault(fault));
    }

    /// The node does nothing for a while.
    pub(super) fn pause(&self, ix: u16, time: Duration) {
        let until = self.journal.now() + time;
        let start = {
            let mut all = self.all.borrow_mut();
            let Some(node) = all.get_mut(usize::from(ix)).filter(|node| node.state != State::Down) else { return };
            if node.paused_until.is_some() || time.is_zero() {
                return;
            }
            node.paused_until = Some(until);
            Handle::current().pause(node.id);
            node.start
        };
        self.journal.note(Event::Fault(Fault::Pause { node: NodeIx(ix), until }));
        let nodes = self.clone();
        madsim::task::spawn_local(async move {
            madsim::time::sleep_until(nodes.journal.at(until)).await;
            let mut all = nodes.all.borrow_mut();
            let node = &mut all[usize::from(ix)];
            if node.start == start && node.paused_until == Some(until) {
                node.paused_until = None;
                Handle::current().resume(node.id);
            }
        });
    }

    /// When the last of the pauses is over that have begun.
    pub(super) fn pauses_end(&self) -> Option<Instant> {
        self.all.borrow().iter().filter_map(|node| node.paused_until).max()
    }

    /// Memory is not short.
    pub(super) fn calm_down(&self) {
        let count = self.all.borrow().len();
        for ix in (0..).take(count) {
            self.pressure(ix, 0);
            if let Some(node) = self.all.borrow().get(usize::from(ix)) {
                Disk::current().set_slow_us(node.id, 0);
            }
        }
    }

    /// Looks into every shard of nodes that are up.
    fn look_at_each(&self, mut look: impl FnMut(ShardView<'_>) -> Vec<(Check, String)>, inside: &mut Inside) {
        for (ix, node) in self.all.borrow().iter().enumerate().filter(|(_, node)| node.state == State::Up) {
            for (shard, driver) in node.drivers.iter().enumerate() {
                let driver = driver.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(driver) = &*driver else { continue };
                let found = look(driver.shard().view());
                inside.found.extend(
                    found.into_iter().map(|(check, what)| (check, format!("shard {shard} of node {ix}: {what}"))),
                );
            }
        }
    }

    /// Connections that shards have.
    pub(super) fn connections(&self) -> usize {
        let mut count = 0;
        let add = |view: ShardView<'_>| {
            count += view.connection_count();
            Vec::new()
        };
        self.look_at_each(add, &mut Inside::default());
        count
    }

    /// What must always hold in a shard.
    pub(super) fn look(&self, inside: &mut Inside) {
        let config =
            newtmq::settings::shard_config(&settings::config(&self.scenario, 0), newtmq_node::HookSet::default());
        let bounds = Bounds::of(&self.scenario, &config).with_connections(self.scenario.clients.len() as u64);
        let mut obligations = core::mem::take(&mut inside.obligations);
        self.look_at_each(|view| whitebox::look(view, bounds, &mut obligations).found, inside);
        inside.obligations = obligations;
    }

    /// What must not be left when everybody has gone.
    pub(super) fn look_for_leaks(&self, inside: &mut Inside) {
        let mut looked = 0;
        let leaks = |view: ShardView<'_>| {
            looked += 1;
            whitebox::leaks(view).into_iter().map(|what| (Check::Leak, what)).collect()
        };
        self.look_at_each(leaks, inside);
        inside.obligations.count(Check::Leak, looked);
    }

    /// Ends everything without a word: the run is over.
    pub(super) fn kill(&self) {
        for node in &mut *self.all.borrow_mut() {
            node.start += 1;
            node.forget();
            Handle::current().kill(node.id);
        }
    }
}

/// Drives a shard to its end, and lets go of it: who has written to it learns that.
async fn drive(driver: Arc<Mutex<Option<Driver<Streams>>>>) {
    let ended = poll_fn(|context| {
        let mut inside = driver.lock().unwrap_or_else(PoisonError::into_inner);
        let pending = inside.as_mut().is_some_and(|driver| Pin::new(driver).poll(context).is_pending());
        if pending { Poll::Pending } else { Poll::Ready(inside.take()) }
    });
    drop(ended.await);
}

impl Node {
    /// Nothing is left of its process.
    fn forget(&mut self) {
        self.commands = None;
        self.paused_until = None;
        self.drivers.clear();
        self.watched.forget();
    }

    pub(super) fn is_up(&self) -> bool {
        self.state == State::Up
    }

    pub(super) fn is_down(&self) -> bool {
        self.state == State::Down
    }

    fn command(&self, command: AdminCommand) {
        if let Some(commands) = &self.commands {
            commands.try_send(command).expect("a scenario has fewer commands than fit");
        }
    }
}
