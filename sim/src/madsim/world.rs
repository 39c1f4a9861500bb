//! The world of a run: nodes, clients, and the steps of the scenario in time.

use core::cell::RefCell;
use core::net::{IpAddr, Ipv4Addr};
use core::time::Duration;
use std::rc::Rc;
use std::sync::Arc;

use madsim::task::JoinHandle;
use newtmq_base::Instant;
use newtmq_simnet::{Link, LinkSpec, Net, OnKill};

use super::actor::{self, Actor};
use super::journal::Journal;
use super::mesh::Mesh;
use super::nodes::{Inside, Nodes};
use super::watch::Watch;
use crate::draw;
use crate::history::{ClientIx, Event, Fault};
use crate::kernel::{steps_end, time_of};
use crate::scenario::{Action, NetSpec, Scenario, WorldAction};

/// Everything that there is.
pub(super) struct World {
    scenario: Arc<Scenario>,
    journal: Journal,
    nodes: Nodes,
    mesh: Mesh,
    /// What operators have wanted so far.
    commands: u64,
    actors: Vec<Rc<RefCell<Actor>>>,
    tasks: Vec<JoinHandle<()>>,
    /// Looks into the nodes of a cluster.
    watching: JoinHandle<()>,
    faults: Vec<Faults>,
}

/// What is wrong with a client's link.
#[derive(Debug, Clone, Copy, Default)]
struct Faults {
    cut: bool,
    bandwidth: u64,
}

impl World {
    /// Nodes that listen, and clients that do nothing yet.
    pub(super) async fn start(scenario: Arc<Scenario>, journal: Journal, white_box: bool) -> World {
        let watch = Watch::new(Arc::clone(&scenario), journal.clone(), white_box);
        let nodes = Nodes::new(Arc::clone(&scenario), journal.clone(), watch);
        let mesh = Mesh::new(&scenario, &nodes.ids(), journal.clone());
        nodes.start().await;
        let watching = madsim::task::spawn_local(nodes.clone().look_on());
        let (net, spec) = (Net::current(), link_spec(&scenario.net));
        net.set_on_kill(OnKill::Either);
        let actor = |(at, of): (usize, &crate::scenario::ClientSpec)| {
            let ix = ClientIx(u32::try_from(at).expect("a scenario has fewer clients"));
            let [_, a, b, c] = ix.0.to_be_bytes();
            let ip = IpAddr::V4(Ipv4Addr::new(11, a, b, c));
            let link = Link::new(&net, ip, spec, scenario.seed ^ draw::of_name(&of.name));
            Rc::new(RefCell::new(Actor::new(ix, of, scenario.seed, link, journal.clone())))
        };
        let actors: Vec<_> = scenario.clients.iter().enumerate().map(actor).collect();
        let tasks = actors.iter().map(|actor| madsim::task::spawn_local(actor::drive(Rc::clone(actor)))).collect();
        let faults = vec![Faults::default(); actors.len()];
        World { scenario, journal, nodes, mesh, commands: 0, actors, tasks, watching, faults }
    }

    /// The scenario from its first step to the final checks.
    pub(super) async fn live(&mut self) {
        let scenario = Arc::clone(&self.scenario);
        for step in &scenario.steps {
            self.wait_until(time_of(step)).await;
            match &step.action {
                Action::Client { client, act } => {
                    if let Some(actor) = self.actors.get(client.0 as usize) {
                        actor.borrow_mut().act(act);
                    }
                }
                Action::World(action) => self.carry_out(action),
            }
        }
        self.wait_until(steps_end(&scenario)).await;
        self.calm_down().await;
        self.journal.note(Event::Calm);
        let now = self.journal.now();
        self.nodes.watch.expect(|watch| watch.calm(now));
        self.wait_until(self.journal.now() + Duration::from_millis(scenario.settle_ms)).await;
        self.journal.note(Event::Quiesce);
        self.journal.close();
    }

    /// Looks at everything from inside, lets everybody go, and looks at what is left.
    pub(super) async fn look(&mut self, inside: &mut Inside) {
        self.nodes.look(inside);
        self.nodes.rest().await;
        self.let_go().await;
        // Clients are where this is.
        Net::current().reset_from(madsim::plugin::node());
        self.wait_until(self.journal.now() + LEAVE).await;
        for _ in 0..LEAVES_MAX {
            if self.nodes.connections() == 0 {
                break;
            }
            self.wait_until(self.journal.now() + LEAVE).await;
        }
        self.nodes.look_for_leaks(inside);
        self.nodes.watch.take(inside);
    }

    async fn let_go(&mut self) {
        for actor in self.actors.drain(..) {
            actor.borrow_mut().end();
        }
        for task in self.tasks.drain(..) {
            let _ = task.await;
        }
    }

    /// Lets go of everything, so that nothing of this run stays in memory.
    pub(super) async fn end(mut self) {
        self.let_go().await;
        self.watching.abort();
        self.nodes.kill();
        // Futures of a killed node are dropped when they have their turn.
        madsim::time::sleep(Duration::from_millis(1)).await;
    }

    async fn wait_until(&self, at: Instant) {
        if at > self.journal.now() {
            let mut alarm = newtmq_simnet::Alarm::default();
            core::future::poll_fn(|context| {
                if self.journal.now() >= at {
                    return core::task::Poll::Ready(());
                }
                alarm.wake_at(context, Some(self.journal.at(at)));
                core::task::Poll::Pending
            })
            .await;
        }
    }

    fn carry_out(&mut self, action: &WorldAction) {
        match *action {
            WorldAction::Cut { client, to_server, to_client } => self.cut(client, to_server, to_client),
            WorldAction::Heal { client } => self.heal(client),
            WorldAction::Bandwidth { client, bytes_per_s } => self.bandwidth(client, bytes_per_s),
            WorldAction::Pause { node, ms } => self.nodes.pause(node, Duration::from_millis(ms)),
            WorldAction::Crash { node, power_loss } => self.nodes.crash(node, power_loss),
            WorldAction::Restart { node } => self.nodes.restart(node),
            WorldAction::Shutdown { node } => self.nodes.shut_down(node),
            WorldAction::MemoryPressure { node, level } => self.nodes.pressure(node, level),
            WorldAction::Wipe { node } if self.scenario.is_cluster() => self.nodes.wipe(node),
            WorldAction::DiskSlow { node, by_us } if self.scenario.is_cluster() => self.nodes.slow_disk(node, by_us),
            // What madsim cannot do; a node alone has no store.
            WorldAction::ClockJump { .. }
            | WorldAction::Drift { .. }
            | WorldAction::Lag { .. }
            | WorldAction::DiskFull { .. }
            | WorldAction::DiskSlow { .. }
            | WorldAction::DiskFails { .. }
            | WorldAction::Wipe { .. }
            | WorldAction::NewAddress { .. }
            | WorldAction::DiskRot { .. } => {}
            WorldAction::CutLink { .. }
            | WorldAction::HealLink { .. }
            | WorldAction::Partition { .. }
            | WorldAction::Isolate { .. }
            | WorldAction::HealLinks
            | WorldAction::Flap { .. }
            | WorldAction::SlowLink { .. }
            | WorldAction::Join { .. }
            | WorldAction::Leave { .. }
            | WorldAction::ForceLeave { .. }
            | WorldAction::Status { .. }
            | WorldAction::Upgrade { .. }
            | WorldAction::Finalize { .. }
            | WorldAction::Write { .. } => {
                if self.scenario.is_cluster() && !self.mesh.carry_out(action) {
                    self.commands += 1;
                    self.nodes.carry_out(action, self.commands);
                }
            }
        }
    }

    fn link(&self, client: ClientIx) -> Option<Link> {
        Some(self.actors.get(client.0 as usize)?.borrow().link().clone())
    }

    fn cut(&mut self, client: ClientIx, to_server: bool, to_client: bool) {
        let Some(link) = self.link(client).filter(|_| to_server || to_client) else { return };
        link.cut(to_server, to_client);
        self.faults[client.0 as usize].cut = true;
        self.journal.note(Event::Fault(Fault::Cut { client, to_server, to_client }));
    }

    fn heal(&mut self, client: ClientIx) {
        let Some(link) = self.link(client) else { return };
        if core::mem::take(&mut self.faults[client.0 as usize].cut) {
            link.heal();
            self.journal.note(Event::Fault(Fault::Heal { client }));
        }
    }

    fn bandwidth(&mut self, client: ClientIx, bytes_per_s: u64) {
        let Some(link) = self.link(client) else { return };
        let before = core::mem::replace(&mut self.faults[client.0 as usize].bandwidth, bytes_per_s);
        if before != bytes_per_s {
            link.set_bandwidth(bytes_per_s);
            self.journal.note(Event::Fault(Fault::Bandwidth { client, bytes_per_s }));
        }
    }

    /// All faults end, but for nodes that nobody has started again.
    async fn calm_down(&mut self) {
        while let Some(resumed) = self.nodes.pauses_end() {
            self.wait_until(resumed + Duration::from_nanos(1)).await;
            madsim::task::yield_now().await;
        }
        for client in (0..).map(ClientIx).take(self.actors.len()) {
            self.heal(client);
            self.bandwidth(client, 0);
            self.actors[client.0 as usize].borrow_mut().calm_down();
        }
        self.mesh.calm_down();
        self.nodes.calm_down();
        Net::current().end_silence();
    }
}

fn link_spec(net: &NetSpec) -> LinkSpec {
    LinkSpec {
        latency_us: [(*net.latency_us.start(), *net.latency_us.end()); 2],
        loss_ppm: net.loss_ppm,
        retransmit_ms: net.retransmit_ms,
        chunk_bytes: (*net.chunk_bytes.start(), *net.chunk_bytes.end()),
        socket_bytes: usize::try_from(net.socket_bytes).unwrap_or(usize::MAX).max(1),
        ..LinkSpec::default()
    }
}

/// Longer than any hold, stall or close takes.
const LEAVE: Duration = Duration::from_secs(60);
/// What the last connection sent may have to wait for its publisher's limits, a day at most.
const LEAVES_MAX: u32 = 24 * 60;
