//! The kernel tier: one queue of events that drives shards, control planes and clients directly. One event at a time, in
//! the order (time, sequence); nothing else decides anything. This file owns the world; how its parts behave is in the
//! modules below.

mod clock;
mod cluster;
mod disk;
mod driver;
mod end;
mod ends;
mod faults;
mod heals;
mod link;
pub(crate) mod links;
mod mesh;
mod node;
mod pipe;
mod queue;
mod records;
pub(crate) mod settings;
mod sn;
mod store;
pub(crate) mod watch;
mod wire;

use core::time::Duration;
use std::collections::BTreeSet;

use newtmq_base::Instant;
use newtmq_node::{ClusterCommand, ControlOutput, Outbox, SHARDS_MAX, ShardConfig, WriteBatch};

use crate::client::ClientOutput;
use crate::history::{Event, Fault, NodeIx};
use crate::observer::Observer;
use crate::report::{Check, Violation, Witness};
use crate::run::Options;
use crate::scenario::{Act, Action, Scenario, WorldAction};
use crate::whitebox::cluster::ClusterWatch;
use crate::whitebox::{self, Bounds};
use ends::End;
use link::Link;
use links::Flap;
use mesh::Mesh;
use node::{Node, Part};
use queue::{Happening, Queue};

/// What streams of chance are for. Clients have 1.
mod purpose {
    pub(super) const NODE_SEED: u64 = 100;
    pub(super) const SHARD_SEED: u64 = 101;
    pub(super) const WORK: u64 = 102;
    pub(super) const PAIR: u64 = 103;
    pub(super) const TO_SERVER: u64 = 104;
    pub(super) const TO_CLIENT: u64 = 105;
    pub(super) const LINK: u64 = 106;
    pub(super) const DISK: u64 = 107;
    pub(super) const CLUSTER: u64 = 108;
    pub(super) const BIRTH: u64 = 109;
    pub(super) const WIRE: u64 = 110;
    pub(super) const WIRE_END: u64 = 111;
    pub(super) const PACKET: u64 = 112;
    pub(super) const RECORDS: u64 = 113;
    pub(super) const DISCOVERY: u64 = 114;
    pub(super) const SN_TO_GATEWAY: u64 = 115;
    pub(super) const SN_TO_CLIENT: u64 = 116;
}

/// Events that any run may have, and those for each simulated millisecond and for each message that steps publish to each
/// client. A run with more would never end.
const EVENTS_MAX: u64 = 5_000_000;
const EVENTS_PER_MS_MAX: u64 = 2_000;
const EVENTS_PER_COPY_MAX: u64 = 16;
/// The last events, to see what it is that does not end.
const LAST_EVENTS: usize = 16;

/// Carries out a scenario; returns its end in simulated time.
pub(crate) fn run(scenario: &Scenario, options: Options, observer: &mut Observer<'_>) -> Instant {
    let mut world = World::new(scenario, options, observer);
    if let Err(message) = crate::guard::catch(|| world.run()) {
        let at = world.quiesced_at();
        let message = format!("{message}; the last events: {:?}", &world.last_events()[LAST_EVENTS - 4..]);
        world.observer.violated(Violation { check: Check::Crash, at, message, witness: Witness::default() });
    }
    world.observer.findings.obligations.count(Check::Crash, 1);
    world.quiesced_at()
}

/// Everything that there is.
struct World<'o, 'a> {
    scenario: &'o Scenario,
    options: Options,
    observer: &'o mut Observer<'a>,
    config: ShardConfig,
    /// Of each node.
    shards: u16,
    queue: Queue,
    nodes: Vec<Node>,
    /// Nodes that are paused.
    paused: u16,
    clients: Vec<End>,
    /// The network between nodes.
    mesh: Mesh,
    flaps: Vec<Flap>,
    /// The network of MQTT-SN.
    sn: sn::Sn,
    /// What operators wanted, in order.
    commands: Vec<ClusterCommand>,
    /// Connections, in the order in which they were asked for.
    links: Vec<Option<Box<Link>>>,
    next_conn: u32,
    next_step: usize,
    /// When no step goes on any more.
    steps_end: Instant,
    /// Nobody looks at the history any more.
    over: bool,
    quiesced: Option<Instant>,
    bounds: Bounds,
    cluster_watch: ClusterWatch,
    heal_watch: heals::HealWatch,
    /// What was found already: it is found again by each look.
    known: BTreeSet<(Check, u16, u16)>,
    happened: u64,
    /// What [`EVENTS_MAX`] is for this scenario.
    happen_max: u64,
    last: [Happening; LAST_EVENTS],
    // Buffers that calls fill; empty between them.
    outbox: Outbox,
    batch: WriteBatch,
    control_outputs: Vec<ControlOutput>,
    events: Vec<Event>,
    client_outputs: Vec<ClientOutput>,
    wire_bytes: Vec<u8>,
}

impl<'o, 'a> World<'o, 'a> {
    fn new(scenario: &'o Scenario, options: Options, observer: &'o mut Observer<'a>) -> World<'o, 'a> {
        let mut config = settings::shard_config(&scenario.broker);
        config.lanes = settings::lanes(&scenario.cluster);
        let shards = scenario.shards.clamp(1, SHARDS_MAX);
        let node = |ix| Node::new(ix, scenario.seed, scenario.node_spec(ix));
        let nodes: Vec<Node> = (0..scenario.nodes).map(node).collect();
        let clients = scenario.clients.iter().enumerate();
        World {
            options,
            observer,
            bounds: Bounds::of(scenario, &config),
            config,
            shards,
            queue: Queue::default(),
            nodes,
            paused: 0,
            clients: clients.map(|(ix, spec)| End::new(ix as u32, spec, scenario)).collect(),
            mesh: Mesh::new(scenario.seed, &scenario.net, scenario.nodes),
            flaps: Vec::new(),
            sn: sn::Sn::new(scenario),
            commands: Vec::new(),
            links: Vec::new(),
            next_conn: 0,
            next_step: 0,
            steps_end: steps_end(scenario),
            over: false,
            quiesced: None,
            cluster_watch: ClusterWatch::new(scenario.is_cluster() && options.white_box),
            heal_watch: heals::HealWatch::new(scenario.is_cluster() && options.white_box),
            known: BTreeSet::new(),
            happened: 0,
            happen_max: events_max(scenario),
            last: [Happening::Nothing; LAST_EVENTS],
            outbox: Outbox::default(),
            batch: WriteBatch::default(),
            control_outputs: Vec::new(),
            events: Vec::new(),
            client_outputs: Vec::new(),
            wire_bytes: Vec::new(),
            scenario,
        }
    }

    fn run(&mut self) {
        for node in 0..self.nodes.len() as u16 {
            match self.scenario.node_spec(node).start_ms {
                0 => self.start(node),
                start_ms => {
                    self.fault(Fault::Shutdown { node: NodeIx(node) });
                    self.queue.push(Instant::from_millis(start_ms), Happening::Begin(node));
                }
            }
        }
        self.await_step();
        while self.quiesced.is_none() {
            let happening = self.queue.pop().expect("the end of the run is in the queue");
            self.happen(happening);
        }
        self.finish();
    }

    /// The next step, or the end of all steps, into the queue.
    fn await_step(&mut self) {
        match self.scenario.steps.get(self.next_step) {
            Some(step) => self.queue.push(time_of(step), Happening::Step),
            None => self.queue.push(self.steps_end, Happening::Calm),
        }
    }

    #[inline]
    fn happen(&mut self, happening: Happening) {
        self.last[(self.happened % LAST_EVENTS as u64) as usize] = happening;
        self.happened += 1;
        if self.happened > self.happen_max {
            self.assert_an_end();
        }
        if self.paused > 0 && self.waits(happening) {
            return;
        }
        if self.cluster_watch.is_due(self.queue.now()) {
            self.look_at_cluster();
        }
        if self.heal_watch.is_due(self.queue.now()) {
            self.look_whether_whole();
        }
        match happening {
            Happening::ToServer(link) => self.on_to_server(link),
            Happening::ToClient(link) => self.on_to_client(link),
            Happening::Pump(link) => self.pump(link),
            Happening::Feed(link) => self.feed(link),
            Happening::Abort(link) => self.close(link),
            Happening::Moved(link) => self.on_moved(link),
            Happening::Client(client) => self.on_client_tick(client),
            Happening::Datagram(place) => self.on_datagram(place),
            Happening::GatewayTick { node, start } if self.lives(node, start) => self.on_gateway_tick(node),
            Happening::Said { node, pair, start } if self.lives(node, start) => self.on_said(node, pair),
            Happening::Tick { node, shard, start } if self.lives(node, start) => self.on_tick(node, shard),
            Happening::Disk { node, start } if self.lives(node, start) => self.on_disk(node),
            Happening::ControlTick { node, start } if self.lives(node, start) => self.on_control_tick(node),
            Happening::Admin { node, shard, start, command } if self.lives(node, start) => {
                self.on_admin(node, shard, command);
            }
            Happening::Resume { node, start } if self.lives(node, start) => {
                self.resume(node);
                self.note_repairs();
            }
            Happening::Stopped { node, start } if self.lives(node, start) => {
                self.on_stopped(node);
                self.note_repairs();
            }
            Happening::Wire { wire, end } => self.on_wire(wire, end),
            Happening::WirePump { wire, end } => self.on_wire_pump(wire, end),
            Happening::DialTimeout(wire) => self.on_dial_timeout(wire),
            Happening::Packet(place) => self.on_packet(place),
            Happening::Records { node, start } if self.lives(node, start) => self.on_records(node),
            Happening::Discover { node, start } if self.lives(node, start) => self.discover(node),
            Happening::Command { node, start, number } if self.lives(node, start) => self.on_command(node, number),
            Happening::Flap(number) => {
                self.on_flap(number);
                self.note_repairs();
            }
            Happening::Begin(node) if self.nodes[usize::from(node)].start == 0 => self.boot(node),
            Happening::Said { .. }
            | Happening::GatewayTick { .. }
            | Happening::Tick { .. }
            | Happening::ControlTick { .. }
            | Happening::Disk { .. }
            | Happening::Records { .. }
            | Happening::Discover { .. }
            | Happening::Command { .. }
            | Happening::Begin(_)
            | Happening::Admin { .. }
            | Happening::Resume { .. }
            | Happening::Stopped { .. }
            | Happening::Nothing => {}
            Happening::Step => self.on_step(),
            Happening::Calm => self.on_calm(),
            Happening::Quiesce => {
                let now = self.queue.now();
                self.look_at_sleepers();
                self.observer.event(now, &Event::Quiesce);
                self.observer.traffic = self.mesh.traffic;
                self.end_of_heals();
                self.quiesced = Some(now);
            }
        }
    }

    /// Whether this start of a node is the present one.
    #[inline]
    fn lives(&self, node: u16, start: u32) -> bool {
        let node = &self.nodes[usize::from(node)];
        node.start == start && node.state != node::State::Down
    }

    /// Puts what concerns a paused node aside.
    fn waits(&mut self, happening: Happening) -> bool {
        let node = match happening {
            Happening::ToServer(link)
            | Happening::Pump(link)
            | Happening::Feed(link)
            | Happening::Abort(link)
            | Happening::Moved(link) => match self.links[link as usize].as_deref() {
                Some(link) => link.node,
                None => return false,
            },
            Happening::Wire { wire, end } | Happening::WirePump { wire, end } => {
                match self.mesh.node_of(wire, usize::from(end)) {
                    Some(node) => node,
                    None => return false,
                }
            }
            Happening::DialTimeout(wire) => match self.mesh.node_of(wire, wire::DIALER) {
                Some(node) => node,
                None => return false,
            },
            Happening::Packet(place) => match self.mesh.receiver(place) {
                Some(node) => node,
                None => return false,
            },
            Happening::ToClient(link) => match self.links[link as usize].as_deref().filter(|link| link.sn.is_some()) {
                Some(link) => link.node,
                None => return false,
            },
            Happening::Said { node, .. }
            | Happening::GatewayTick { node, .. }
            | Happening::Records { node, .. }
            | Happening::Discover { node, .. }
            | Happening::Command { node, .. }
            | Happening::Tick { node, .. }
            | Happening::ControlTick { node, .. }
            | Happening::Disk { node, .. }
            | Happening::Admin { node, .. }
            | Happening::Stopped { node, .. } => node,
            Happening::Client(_)
            | Happening::Datagram(_)
            | Happening::Resume { .. }
            | Happening::Flap(_)
            | Happening::Begin(_)
            | Happening::Step
            | Happening::Calm
            | Happening::Quiesce
            | Happening::Nothing => return false,
        };
        let Some(node) = self.nodes.get_mut(usize::from(node)).filter(|node| node.paused_until.is_some()) else {
            return false;
        };
        node.waiting.push(happening);
        true
    }

    fn on_step(&mut self) {
        let step = &self.scenario.steps[self.next_step];
        self.next_step += 1;
        match &step.action {
            Action::Client { client, act } => self.act(*client, act),
            Action::World(action) => {
                self.do_to_world(action);
                self.note_repairs();
            }
        }
        self.await_step();
    }

    fn on_calm(&mut self) {
        let now = self.queue.now();
        if let Some(end) = self.pauses_end() {
            self.queue.push(end.max(now + Duration::from_nanos(1)), Happening::Calm);
            return;
        }
        self.calm_down();
        self.note_repairs();
        self.observer.event(now, &Event::Calm);
        self.watch_calm(now);
        self.queue.push(now + Duration::from_millis(self.scenario.settle_ms), Happening::Quiesce);
    }

    fn assert_an_end(&mut self) {
        let now = self.queue.now().as_nanos() / 1_000_000;
        self.happen_max = events_max(self.scenario).saturating_add(now.saturating_mul(EVENTS_PER_MS_MAX));
        if self.happened <= self.happen_max {
            return;
        }
        let (events, last) = (self.happened, self.last_events());
        panic!("this never ends: {events} events until {}, the last ones {last:?}", self.queue.now());
    }

    /// In order.
    fn last_events(&self) -> [Happening; LAST_EVENTS] {
        let mut last = self.last;
        last.rotate_left((self.happened % LAST_EVENTS as u64) as usize);
        last
    }

    /// A link that exists.
    #[inline]
    fn link(&mut self, at: u32) -> &mut Link {
        self.links[at as usize].as_deref_mut().expect("an open connection has a link")
    }

    #[inline]
    fn part(&mut self, node: u16, shard: u16) -> &mut Part {
        &mut self.nodes[usize::from(node)].shards[usize::from(shard)]
    }

    /// Looks into a shard from time to time: seldom enough that it costs a part of what the shard does itself.
    #[inline]
    fn watch(&mut self, node: u16, shard: u16) {
        if self.part(node, shard).watch.is_due() {
            self.look(node, shard);
        }
    }

    /// Checks what must always hold in a shard.
    fn look(&mut self, node: u16, shard: u16) {
        let of = &mut self.nodes[usize::from(node)];
        let part = &mut of.shards[usize::from(shard)];
        let bounds = self.bounds.with_connections(of.connections_ever);
        let looked = whitebox::look(part.shard.view(), bounds, &mut self.observer.findings.obligations);
        part.watch.looked(looked.cost);
        for (check, what) in looked.found {
            self.found(check, node, shard, what);
        }
    }

    fn found(&mut self, check: Check, node: u16, shard: u16, what: String) {
        if self.known.insert((check, node, shard)) {
            let at = self.quiesced_at();
            let message = format!("shard {shard} of node {node}: {what}");
            self.observer.violated(Violation { check, at, message, witness: Witness::default() });
        }
    }
}

pub(crate) fn time_of(step: &crate::scenario::Step) -> Instant {
    Instant::from_nanos(step.at_ms.saturating_mul(1_000_000))
}

/// When a step has nothing to do any more.
pub(crate) fn step_end(step: &crate::scenario::Step) -> Instant {
    let begin = time_of(step);
    match &step.action {
        Action::Client { act: Act::Publish(publish), .. } => {
            let rest = u64::from(publish.count.saturating_sub(1));
            begin + Duration::from_micros(rest.saturating_mul(publish.every_us))
        }
        Action::World(WorldAction::Flap { down_ms, up_ms, count, .. }) => {
            let once = down_ms.saturating_add(*up_ms);
            begin + Duration::from_millis(once.saturating_mul(u64::from(*count)))
        }
        Action::Client { .. } | Action::World(_) => begin,
    }
}

/// When no step goes on any more, and every node has had its first start.
pub(crate) fn steps_end(scenario: &Scenario) -> Instant {
    let starts = (0..scenario.nodes).map(|node| Instant::from_millis(scenario.node_spec(node).start_ms));
    scenario.steps.iter().map(step_end).chain(starts).max().unwrap_or(Instant::START)
}

fn events_max(scenario: &Scenario) -> u64 {
    let count = |step: &crate::scenario::Step| match &step.action {
        Action::Client { act: Act::Publish(publish), .. } => u64::from(publish.count),
        Action::Client { .. } | Action::World(_) => 1,
    };
    let messages: u64 = scenario.steps.iter().map(count).sum();
    let copies = messages.saturating_mul(scenario.clients.len() as u64 + 1);
    copies.saturating_mul(EVENTS_PER_COPY_MAX).saturating_add(EVENTS_MAX)
}

#[cfg(test)]
mod tests;
