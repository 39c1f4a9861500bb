//! The kernel tier: one queue of events that drives shards, control planes and clients directly. One event at a time, in
//! the order (time, sequence); nothing else decides anything. This file owns the world; how its parts behave is in the
//! modules below.

mod clock;
mod disk;
mod driver;
mod end;
mod ends;
mod faults;
mod link;
mod node;
mod pipe;
mod queue;
pub(crate) mod settings;
mod store;

use core::time::Duration;
use std::collections::BTreeSet;

use newtmq_base::Instant;
use newtmq_node::{ControlOutput, Outbox, SHARDS_MAX, ShardConfig, WriteBatch};

use crate::client::ClientOutput;
use crate::history::Event;
use crate::observer::Observer;
use crate::report::{Check, Violation, Witness};
use crate::run::Options;
use crate::scenario::{Act, Action, Scenario};
use crate::whitebox::{self, Bounds};
use ends::End;
use link::Link;
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
}

impl<'o, 'a> World<'o, 'a> {
    fn new(scenario: &'o Scenario, options: Options, observer: &'o mut Observer<'a>) -> World<'o, 'a> {
        let config = settings::shard_config(&scenario.broker);
        let shards = scenario.shards.clamp(1, SHARDS_MAX);
        let nodes: Vec<Node> = (0..scenario.nodes).map(Node::new).collect();
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
            clients: clients.map(|(ix, spec)| End::new(ix as u32, spec, scenario.seed)).collect(),
            links: Vec::new(),
            next_conn: 0,
            next_step: 0,
            steps_end: scenario.steps.iter().map(step_end).max().unwrap_or(Instant::START),
            over: false,
            quiesced: None,
            known: BTreeSet::new(),
            happened: 0,
            happen_max: events_max(scenario),
            last: [Happening::Nothing; LAST_EVENTS],
            outbox: Outbox::default(),
            batch: WriteBatch::default(),
            control_outputs: Vec::new(),
            events: Vec::new(),
            client_outputs: Vec::new(),
            scenario,
        }
    }

    fn run(&mut self) {
        for node in 0..self.nodes.len() as u16 {
            self.start(node);
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
        match happening {
            Happening::ToServer(link) => self.on_to_server(link),
            Happening::ToClient(link) => self.on_to_client(link),
            Happening::Pump(link) => self.pump(link),
            Happening::Feed(link) => self.feed(link),
            Happening::Abort(link) => self.close(link),
            Happening::Moved(link) => self.on_moved(link),
            Happening::Client(client) => self.on_client_tick(client),
            Happening::Said { node, pair, start } if self.lives(node, start) => self.on_said(node, pair),
            Happening::Tick { node, shard, start } if self.lives(node, start) => self.on_tick(node, shard),
            Happening::Disk { node, start } if self.lives(node, start) => self.on_disk(node),
            Happening::ControlTick { node, start } if self.lives(node, start) => self.on_control_tick(node),
            Happening::Admin { node, shard, start, command } if self.lives(node, start) => {
                self.on_admin(node, shard, command);
            }
            Happening::Resume { node, start } if self.lives(node, start) => self.resume(node),
            Happening::Stopped { node, start } if self.lives(node, start) => self.on_stopped(node),
            Happening::Said { .. }
            | Happening::Tick { .. }
            | Happening::ControlTick { .. }
            | Happening::Disk { .. }
            | Happening::Admin { .. }
            | Happening::Resume { .. }
            | Happening::Stopped { .. }
            | Happening::Nothing => {}
            Happening::Step => self.on_step(),
            Happening::Calm => self.on_calm(),
            Happening::Quiesce => {
                let now = self.queue.now();
                self.observer.event(now, &Event::Quiesce);
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
            Happening::Said { node, .. }
            | Happening::Tick { node, .. }
            | Happening::ControlTick { node, .. }
            | Happening::Disk { node, .. }
            | Happening::Admin { node, .. }
            | Happening::Stopped { node, .. } => node,
            Happening::ToClient(_)
            | Happening::Client(_)
            | Happening::Resume { .. }
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
            Action::World(action) => self.do_to_world(action),
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
        self.observer.event(now, &Event::Calm);
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
        Action::Client { .. } | Action::World(_) => begin,
    }
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
