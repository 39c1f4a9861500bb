//! The nodes: each a node of madsim that runs the broker, started, stopped, killed and paused as the scenario says.

use core::cell::RefCell;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;
use std::rc::Rc;
use std::sync::Arc;

use madsim::runtime::Handle;
use madsim::task::NodeId;
use newtmq::data::NodeIdentity;
use newtmq::run::{RunOptions, Started, drive_all, start};
use newtmq_base::{Incarnation, Instant};
use newtmq_node::{AdminCommand, MemoryPressure};
use tokio::sync::{mpsc, oneshot};

use super::journal::Journal;
use super::settings;
use crate::history::{Event, Fault, NodeIx};
use crate::scenario::Scenario;

/// Commands that wait for a node: a scenario has few, and a paused node takes none.
const COMMANDS_MAX: usize = 1 << 16;
const PORT: u16 = 1883;

/// All nodes. Clones are the same ones.
#[derive(Clone)]
pub(super) struct Nodes {
    all: Rc<RefCell<Vec<Node>>>,
    scenario: Arc<Scenario>,
    journal: Journal,
}

struct Node {
    id: NodeId,
    state: State,
    /// Counts its starts, from 1.
    start: u32,
    commands: Option<mpsc::Sender<AdminCommand>>,
    paused_until: Option<Instant>,
    pressure: u8,
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
    let [high, low] = node.to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, high, low)), PORT)
}

impl Nodes {
    /// Starts all nodes, and waits until they listen.
    pub(super) async fn start(scenario: Arc<Scenario>, journal: Journal) -> Nodes {
        let handle = Handle::current();
        let node = |ix: u16| {
            let built = handle.create_node().name(format!("node-{ix}")).ip(address(ix).ip()).build();
            Node { id: built.id(), state: State::Down, start: 0, commands: None, paused_until: None, pressure: 0 }
        };
        let all: Vec<Node> = (0..scenario.nodes.max(1)).map(node).collect();
        let count = all.len();
        let nodes = Nodes { all: Rc::new(RefCell::new(all)), scenario, journal };
        for at in 0..count {
            // If it cannot start, the run has panicked.
            let _ = nodes.boot(at).await;
        }
        nodes
    }

    /// Starts a node that is down; tells when it listens.
    fn boot(&self, at: usize) -> oneshot::Receiver<()> {
        let (commands, commanded) = mpsc::channel(COMMANDS_MAX);
        let (listens, listening) = oneshot::channel();
        let (id, start_number) = {
            let mut all = self.all.borrow_mut();
            let node = &mut all[at];
            node.start += 1;
            node.state = State::Up;
            node.pressure = 0;
            node.commands = Some(commands);
            (node.id, node.start)
        };
        let number = u16::try_from(at).expect("a scenario counts nodes in 16 bits");
        let options = RunOptions {
            config: settings::config(&self.scenario.broker, address(number)),
            node: NodeIdentity {
                node_id: newtmq_base::NodeId(u64::from(number) + 1),
                incarnation: Incarnation(u64::from(start_number)),
            },
            shards: self.scenario.shards.max(1),
            json: true,
        };
        let handle = Handle::current();
        if start_number > 1 {
            handle.restart(id);
        }
        let node = handle.get_node(id).expect("it was created");
        let running = node.spawn(async move {
            let Started { drivers, .. } = start(&options, commanded).await.expect("nothing keeps a node from starting");
            let _ = listens.send(());
            drive_all(drivers).await.expect("a driver ends in order");
        });
        let nodes = self.clone();
        madsim::task::spawn_local(async move {
            if running.await.is_ok() {
                nodes.stopped(at, start_number);
            }
        });
        listening
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
            node.commands = None;
            core::mem::replace(&mut node.state, State::Down) == State::Stopping { restart: true }
        };
        if restart {
            self.restarted(at);
        }
    }

    fn restarted(&self, at: usize) {
        let ix = NodeIx(u16::try_from(at).expect("a scenario counts nodes in 16 bits"));
        self.journal.note(Event::Fault(Fault::Restart { node: ix }));
        drop(self.boot(at));
    }

    /// The node is gone, with everything in its memory.
    pub(super) fn crash(&self, ix: u16) {
        let mut all = self.all.borrow_mut();
        let Some(node) = all.get_mut(usize::from(ix)).filter(|node| node.state != State::Down) else { return };
        Handle::current().kill(node.id);
        node.state = State::Down;
        node.commands = None;
        node.paused_until = None;
        self.journal.note(Event::Fault(Fault::Crash { node: NodeIx(ix) }));
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
            if node.paused_until.is_some_and(|end| end >= until) {
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

    /// Every node works: what is down starts, memory is not short. When the last pause is over.
    pub(super) fn mend(&self) -> Instant {
        let count = u16::try_from(self.all.borrow().len()).expect("a scenario counts nodes in 16 bits");
        for ix in 0..count {
            self.restart(ix);
            self.pressure(ix, 0);
        }
        let all = self.all.borrow();
        all.iter().filter_map(|node| node.paused_until).max().unwrap_or(Instant::START)
    }

    /// Ends everything without a word: the run is over.
    pub(super) fn kill(&self) {
        for node in &mut *self.all.borrow_mut() {
            node.start += 1;
            Handle::current().kill(node.id);
        }
    }
}

impl Node {
    fn command(&self, command: AdminCommand) {
        if let Some(commands) = &self.commands {
            commands.try_send(command).expect("a scenario has fewer commands than fit");
        }
    }
}
