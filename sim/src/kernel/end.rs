//! The end of a run, seen from inside: when everybody has left and all time has passed, nothing may be left. Clients hear
//! nothing of it.

use core::time::Duration;

use newtmq_base::Instant;
use newtmq_node::{CloseCause, TimerKind};

use super::World;
use super::link::{ClientEnd, ServerEnd};
use super::node::State;
use super::queue::Happening;
use crate::report::Check;
use crate::scenario::{Act, Action};
use crate::whitebox;

/// Time in which shards have told each other what they had to.
const SILENCE_S_MAX: u64 = 10;
/// No multiple of it is an interval at which a node tells about itself.
const SILENCE_STEP: Duration = Duration::from_micros(9_973);
/// Time in which the last connection is gone: what it sent may have to wait for its publisher's limits, a day at most.
const LEAVE_S_MAX: u64 = 24 * 3600;
/// Longer than any hold, stall or close takes.
const LEAVE_S: u64 = 60;
/// Where nodes talk all the time it is looked for so often.
const LEAVE_STEP: Duration = Duration::from_millis(500);

impl World<'_, '_> {
    /// Looks at everything once more, and lets everybody go.
    pub(super) fn finish(&mut self) {
        self.over = true;
        if !self.options.white_box {
            return;
        }
        let before = self.progress();
        let until = self.queue.now() + Duration::from_secs(SILENCE_S_MAX);
        while !(self.is_silent() && self.lanes_are_at_rest()) && self.queue.now() < until {
            self.advance(SILENCE_STEP);
        }
        self.look_at_all();
        // Clients and lanes may be slower than what others have published for them.
        let (delivered, waiting) = self.progress();
        let at_rest = self.is_silent() && self.lanes_are_at_rest();
        if at_rest || delivered == before.0 && waiting >= before.1 {
            self.look_at_quiet_nodes();
        }
        self.everybody_leaves();
        if self.scenario.is_cluster() {
            // Nodes talk all the time: no longer than something is left.
            let until = self.queue.now() + Duration::from_secs(LEAVE_S);
            while self.is_something_left() && self.queue.now() < until {
                self.advance(LEAVE_STEP);
            }
        } else {
            self.advance(Duration::from_secs(LEAVE_S));
        }
        for _ in 0..LEAVE_S_MAX / LEAVE_S {
            if self.nodes.iter().all(|node| node.connections == 0) {
                break;
            }
            self.advance(Duration::from_secs(LEAVE_S));
        }
        self.look_at_all();
        self.look_for_leaks();
        // A connection that never goes would have its timers go on for all time.
        if self.nodes.iter().any(|node| node.connections > 0) {
            return;
        }
        if !self.config.sys_interval.is_zero() || self.scenario.is_cluster() {
            // It would tell about itself for ever; nodes talk to each other for ever.
            return;
        }
        // Longer than any Session Expiry Interval but "never".
        let stores = self.nodes.iter().any(|node| node.store.is_some());
        // A store notes the time every few seconds.
        self.advance(Duration::from_secs(if stores { self.longest_session_s() + 60 } else { u64::from(u32::MAX) }));
        self.look_at_all();
        self.look_for_timers();
    }

    /// Lets time pass, with everything that happens in it.
    fn advance(&mut self, time: Duration) {
        let until = self.queue.now() + time;
        self.queue.push(until, Happening::Nothing);
        while let Some(happening) = self.queue.pop() {
            if happening == Happening::Nothing {
                break;
            }
            self.happen(happening);
        }
    }

    fn up(&self) -> impl Iterator<Item = u16> + use<> {
        let up: Vec<u16> = self.nodes.iter().filter(|node| node.state == State::Up).map(|node| node.ix).collect();
        up.into_iter()
    }

    fn is_silent(&self) -> bool {
        let quiet = |control: &newtmq_node::Control| control.is_quiet();
        // A connection that moves has its place in the listener's limit with it.
        let moves = self.links.iter().flatten().any(|link| link.moving.is_some());
        !moves && self.nodes.iter().all(|node| node.is_silent() && node.control.as_ref().is_none_or(quiet))
    }

    /// How much was delivered so far, and how much waits for room on lanes.
    fn progress(&self) -> (u64, usize) {
        let views = || self.nodes.iter().flat_map(|node| &node.shards).map(|part| part.shard.view());
        let lanes = views().flat_map(|view| view.lanes_out()).flat_map(|out| out.view());
        (views().map(|view| view.ledger().delivered).sum(), lanes.map(|lane| lane.waiting + lane.releases).sum())
    }

    /// Checks every shard, whatever it costs.
    fn look_at_all(&mut self) {
        for node in self.up() {
            for shard in 0..self.nodes[usize::from(node)].shards.len() {
                self.look(node, shard as u16);
            }
        }
    }

    /// What holds while nothing is under way between shards.
    fn look_at_quiet_nodes(&mut self) {
        let quiet = self.is_silent();
        for node in self.up() {
            let of = &self.nodes[usize::from(node)];
            if !quiet {
                let what = format!("the shards still talk {SILENCE_S_MAX} s after everything had settled");
                self.found(Check::Leak, node, 0, what);
                continue;
            }
            let shards: Vec<_> = of.shards.iter().map(|part| part.shard.view()).collect();
            let control = of.control.as_ref().expect("just asked");
            let mut found: Vec<_> = whitebox::shares(&shards, control, &self.config);
            if !self.scenario.is_cluster() {
                let alone = whitebox::NodeShards { ix: node, id: of.id(), shards };
                let routes = whitebox::routes(&[alone], &whitebox::Others::default(), false);
                found.extend(routes.into_iter().map(|(check, _, what)| (check, what)));
                self.observer.findings.obligations.count(Check::Routes, of.shards.len() as u64);
            }
            for (check, what) in found {
                self.found(check, node, 0, what);
            }
        }
        if quiet && self.scenario.is_cluster() {
            self.look_at_quiet_cluster();
        }
    }

    /// All connections break.
    fn everybody_leaves(&mut self) {
        let now = self.queue.now();
        self.end_gateways();
        for node in &mut self.nodes {
            node.clock.drift(now, 0);
        }
        for node in self.up() {
            self.arm_node(node);
        }
        for at in 0..self.links.len() as u32 {
            let Some(link) = self.links[at as usize].as_deref_mut() else { continue };
            link.client_end = ClientEnd::Gone;
            link.to_client.clear();
            link.to_server.clear();
            if link.server == ServerEnd::Open {
                link.fin = Some(CloseCause::Error);
                self.queue.push(now, Happening::Feed(at));
                self.unblock(at);
            } else {
                self.links[at as usize] = None;
            }
        }
    }

    /// Connections, or what they leave for a while.
    fn is_something_left(&self) -> bool {
        let up = self.nodes.iter().filter(|node| node.state == State::Up);
        let mut shards = up.flat_map(|node| node.shards.iter());
        self.nodes.iter().any(|node| node.connections > 0)
            || shards.any(|part| !whitebox::leaks(part.shard.view()).is_empty())
    }

    fn look_for_leaks(&mut self) {
        for node in self.up() {
            for shard in 0..self.nodes[usize::from(node)].shards.len() as u16 {
                let view = self.nodes[usize::from(node)].shards[usize::from(shard)].shard.view();
                let found = whitebox::leaks(view);
                self.observer.findings.obligations.count(Check::Leak, 1);
                for what in found {
                    self.found(Check::Leak, node, shard, what);
                }
            }
        }
    }

    /// The longest Session Expiry Interval of the scenario, in seconds, but for those that never expire.
    fn longest_session_s(&self) -> u64 {
        let of_clients = self.scenario.clients.iter().map(|client| client.session_expiry_s);
        let of_steps = self.scenario.steps.iter().filter_map(|step| match &step.action {
            Action::Client { act: Act::Connect { session_expiry_s, .. }, .. } => *session_expiry_s,
            Action::Client { act: Act::Disconnect { session_expiry_s, .. }, .. } => *session_expiry_s,
            Action::Client { .. } | Action::World(_) => None,
        });
        let of_broker = self.scenario.broker.session_expiry_interval_s.unwrap_or(2 * 3600);
        let all = of_clients.chain(of_steps).chain([of_broker]);
        u64::from(all.filter(|seconds| *seconds != u32::MAX).max().unwrap_or(0))
    }

    fn look_for_timers(&mut self) {
        for node in self.up() {
            for shard in 0..self.nodes[usize::from(node)].shards.len() as u16 {
                let part = &self.nodes[usize::from(node)].shards[usize::from(shard)].shard;
                let (timers, deadline) = (part.view().timer_count(), part.next_deadline());
                let found = whitebox::forever(part.view());
                let is_clock = |(_, kind): &(Instant, TimerKind)| *kind == TimerKind::Time;
                let deadline = deadline.filter(|deadline| !is_clock(deadline));
                if timers != 0 || deadline.is_some() {
                    let what = format!("{timers} timers are left when all time has passed, the next is {deadline:?}");
                    self.found(Check::Leak, node, shard, what);
                }
                for what in found {
                    self.found(Check::Leak, node, shard, what);
                }
            }
        }
    }

    /// When the run is over for those who look at the history.
    pub(super) fn quiesced_at(&self) -> Instant {
        self.quiesced.unwrap_or(self.queue.now())
    }
}
