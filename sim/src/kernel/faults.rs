//! What steps do to the world: networks, nodes and clocks. Each is total: what is not possible does nothing and tells
//! nothing.

use core::time::Duration;

use newtmq_base::Instant;

use super::disk::SimDisk;
use super::link::{ClientEnd, ServerEnd};
use super::node::State;
use super::pipe::What;
use super::queue::{Command, Happening};
use super::{World, purpose};
use crate::draw::Stream;
use crate::history::{ClientIx, Event, Fault, NodeIx};
use crate::report::Check;
use crate::scenario::{Acks, Act, WorldAction};

/// A node that stops is gone after this time, whoever is still connected. Longer than its clients have to take what is left.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

impl World<'_, '_> {
    pub(super) fn do_to_world(&mut self, action: &WorldAction) {
        #[allow(clippy::wildcard_enum_match_arm)] // the last ones are those of clusters
        match *action {
            WorldAction::Cut { client, to_server, to_client } => self.cut(client, to_server, to_client),
            WorldAction::Heal { client } => self.heal(client),
            WorldAction::Bandwidth { client, bytes_per_s } => self.set_bandwidth(client, bytes_per_s),
            WorldAction::Pause { node, ms } => self.pause(node, ms),
            WorldAction::ClockJump { node, by_ms } => {
                if let Some(of) = self.nodes.get_mut(usize::from(node)) {
                    of.clock.jump(by_ms);
                    self.fault(Fault::ClockJump { node: NodeIx(node), by_ms });
                }
            }
            WorldAction::Drift { node, ppm } => self.drift(node, ppm),
            WorldAction::Lag { node, shard, by_us } => self.set_lag(node, shard, by_us),
            WorldAction::Crash { node, power_loss } => self.crash(node, power_loss),
            WorldAction::DiskFull { node, on } => {
                self.disk(node, Fault::DiskFull { node: NodeIx(node), on }, |disk| disk.full = on);
            }
            WorldAction::DiskSlow { node, by_us } => {
                self.disk(node, Fault::DiskSlow { node: NodeIx(node), by_us }, |disk| disk.slow_us = by_us);
                self.hurry_syncs(node);
            }
            WorldAction::DiskFails { node } => {
                self.disk(node, Fault::DiskFails { node: NodeIx(node) }, |disk| disk.sync_fails = true);
            }
            WorldAction::DiskRot { node, at_ppm } => {
                self.disk(node, Fault::DiskRot { node: NodeIx(node) }, |disk| disk.rot(at_ppm));
            }
            WorldAction::Restart { node } => self.restart(node),
            WorldAction::Shutdown { node } => self.shut_down(node),
            WorldAction::MemoryPressure { node, level } => self.set_pressure(node, level.min(2)),
            _ => self.do_to_cluster(action),
        }
    }

    /// Tells those who look at the history.
    pub(super) fn fault(&mut self, fault: Fault) {
        let now = self.queue.now();
        if !self.over {
            self.observer.event(now, &Event::Fault(fault));
        }
    }

    fn cut(&mut self, client: ClientIx, to_server: bool, to_client: bool) {
        let Some(end) = self.clients.get_mut(client.0 as usize) else { return };
        if !to_server && !to_client {
            return;
        }
        end.cut.0 |= to_server;
        end.cut.1 |= to_client;
        for at in self.links_of(client.0) {
            let link = self.link(at);
            if to_server {
                link.to_server.cut();
            }
            if to_client {
                link.to_client.cut();
            }
        }
        self.fault(Fault::Cut { client, to_server, to_client });
    }

    fn heal(&mut self, client: ClientIx) {
        let now = self.queue.now();
        let Some(end) = self.clients.get_mut(client.0 as usize) else { return };
        if end.cut == (false, false) {
            return;
        }
        end.cut = (false, false);
        for at in self.links_of(client.0) {
            let net = &self.scenario.net;
            let link = self.links[at as usize].as_deref_mut().expect("just listed");
            link.to_server.heal(now, net);
            link.to_client.heal(now, net);
            self.arm_to_server(at);
            self.arm_to_client(at);
        }
        self.fault(Fault::Heal { client });
    }

    fn set_bandwidth(&mut self, client: ClientIx, bytes_per_s: u64) {
        let now = self.queue.now();
        let Some(end) = self.clients.get_mut(client.0 as usize) else { return };
        if end.bandwidth == bytes_per_s {
            return;
        }
        end.bandwidth = bytes_per_s;
        for at in self.links_of(client.0) {
            let net = &self.scenario.net;
            let link = self.links[at as usize].as_deref_mut().expect("just listed");
            link.to_server.set_bandwidth(now, bytes_per_s, net);
            link.to_client.set_bandwidth(now, bytes_per_s, net);
            self.arm_to_server(at);
            self.arm_to_client(at);
        }
        self.fault(Fault::Bandwidth { client, bytes_per_s });
    }

    fn pause(&mut self, node: u16, ms: u64) {
        let now = self.queue.now();
        let Some(of) = self.nodes.get_mut(usize::from(node)) else { return };
        if of.state == State::Down || of.paused_until.is_some() || ms == 0 {
            return;
        }
        let until = now + Duration::from_millis(ms);
        of.paused_until = Some(until);
        self.paused += 1;
        self.queue.push(until, Happening::Resume { node, start: of.start });
        self.fault(Fault::Pause { node: NodeIx(node), until });
    }

    /// A pause is over: what came meanwhile happens. A driver reads before it lets timers fire.
    pub(super) fn resume(&mut self, node: u16) {
        let now = self.queue.now();
        let of = &mut self.nodes[usize::from(node)];
        if of.paused_until.take().is_some() {
            self.paused -= 1;
            let is_tick = |happening: &Happening| matches!(happening, Happening::Tick { .. });
            let (ticks, others): (Vec<_>, Vec<_>) = core::mem::take(&mut of.waiting).into_iter().partition(is_tick);
            for happening in others.into_iter().chain(ticks) {
                self.queue.push(now, happening);
            }
        }
    }

    fn drift(&mut self, node: u16, ppm: i32) {
        let now = self.queue.now();
        let Some(of) = self.nodes.get_mut(usize::from(node)) else { return };
        of.clock.drift(now, ppm);
        if of.state != State::Down {
            self.arm_node(node);
        }
        self.fault(Fault::Drift { node: NodeIx(node), ppm });
    }

    fn set_lag(&mut self, node: u16, shard: u16, by_us: u64) {
        let now = self.queue.now();
        let Some(of) = self.nodes.get_mut(usize::from(node)) else { return };
        let Some(part) = of.shards.get_mut(usize::from(shard)) else { return };
        let lag = Duration::from_micros(by_us);
        if part.lag == lag {
            return;
        }
        part.lag = lag;
        let by = now + lag + Duration::from_micros(*self.scenario.net.shard_delay_us.end());
        for from in 0..=of.control_side() {
            let pair = of.pair_of(from, usize::from(shard));
            if let Some(at) = of.pairs[pair].hurry(by) {
                self.queue.push(at, Happening::Said { node, pair: pair as u16, start: of.start });
            }
        }
        self.fault(Fault::Lag { node: NodeIx(node), shard, by_us });
    }

    fn crash(&mut self, node: u16, power_loss: bool) {
        let Some(of) = self.nodes.get(usize::from(node)) else { return };
        if of.state != State::Down {
            let name = u64::from(node) << 48 | u64::from(of.start);
            self.fault(Fault::Crash { node: NodeIx(node), power_loss });
            self.take_down(node, Some(power_loss));
            // A disk that has failed to sync need not have what was written.
            let of = &mut self.nodes[usize::from(node)];
            let lost = power_loss || of.disk.borrow().sync_fails;
            if lost {
                let mut chance = Stream::new(self.scenario.seed, purpose::DISK, name | 1 << 40);
                of.disk.borrow_mut().lose_power(&mut chance);
                of.records.stop(Some(&mut chance));
            } else {
                of.records.stop(None);
            }
        }
    }

    /// The node is gone. Its connections break, or nobody is told, by chance if it crashes. A crash is one of its power, or
    /// not.
    fn take_down(&mut self, node: u16, crash: Option<bool>) {
        for at in 0..self.links.len() as u32 {
            let Some(link) = self.links[at as usize].as_deref_mut() else { continue };
            if link.node == node && link.sn.is_some() {
                // Both its ends were there.
                self.links[at as usize] = None;
                continue;
            }
            if link.node != node || link.server != ServerEnd::Open {
                continue;
            }
            link.server = ServerEnd::Lost;
            link.moving = None;
            if (crash.is_none() || link.chance.chance_ppm(500_000)) && link.client_end != ClientEnd::Gone {
                link.server = ServerEnd::Closed;
                self.send_to_client(at, What::Rst);
            }
            self.free_if_over(at);
        }
        // What waited for the end of a pause finds nobody.
        self.resume(node);
        self.nodes[usize::from(node)].forget();
        self.mesh.stopped(&mut self.queue, node, crash);
        if self.scenario.is_cluster() {
            self.tell(&Event::NodeDown { node: NodeIx(node) });
        }
    }

    fn restart(&mut self, node: u16) {
        let Some(of) = self.nodes.get_mut(usize::from(node)) else { return };
        match of.state {
            State::Down => self.boot(node),
            State::Stopping { .. } => of.state = State::Stopping { restart: true },
            State::Up => {}
        }
    }

    pub(super) fn boot(&mut self, node: u16) {
        self.start(node);
        self.fault(Fault::Restart { node: NodeIx(node) });
    }

    /// A node starts with what its store holds.
    pub(super) fn start(&mut self, node: u16) {
        let now = self.queue.now();
        self.nodes[usize::from(node)].begin();
        let moved = self.mesh.started(node);
        let (seed, cluster) = (self.scenario.seed, self.cluster_boot(node));
        let replay = self.nodes[usize::from(node)].boot(now, seed, self.shards, &self.config, cluster);
        if core::mem::take(&mut self.nodes[usize::from(node)].disk.borrow_mut().cut_short) {
            let what = "what was stored for good was cut off as if its write had not come to an end".to_owned();
            self.found(Check::Stored, node, 0, what);
        }
        self.arm_control(node);
        self.start_gateway(node);
        if let Some(replay) = replay {
            self.hand_out(node, replay);
        }
        if self.scenario.is_cluster() {
            self.cluster_started(node, moved);
        }
    }

    /// Something happens to a node's disk.
    fn disk(&mut self, node: u16, fault: Fault, change: impl FnOnce(&mut SimDisk)) {
        let Some(of) = self.nodes.get(usize::from(node)) else { return };
        change(&mut of.disk.borrow_mut());
        self.fault(fault);
    }

    fn shut_down(&mut self, node: u16) {
        let now = self.queue.now();
        let Some(of) = self.nodes.get_mut(usize::from(node)) else { return };
        if of.state != State::Up {
            return;
        }
        of.state = State::Stopping { restart: false };
        let start = of.start;
        self.fault(Fault::Shutdown { node: NodeIx(node) });
        self.tell_shards(node, Command::Shutdown);
        self.queue.push(now + STOP_TIMEOUT, Happening::Stopped { node, start });
    }

    /// A node that stops has nothing left to do.
    pub(super) fn stop_if_done(&mut self, node: u16) {
        let of = &self.nodes[usize::from(node)];
        let stopping = matches!(of.state, State::Stopping { .. });
        if stopping && usize::from(of.told) == of.shards.len() && of.connections == 0 && of.is_silent() {
            let (now, start) = (self.queue.now(), of.start);
            // After the calls that are going on.
            self.queue.push(now, Happening::Stopped { node, start });
        }
    }

    pub(super) fn on_stopped(&mut self, node: u16) {
        let State::Stopping { restart } = self.nodes[usize::from(node)].state else { return };
        self.cluster_watch.stopped(self.queue.now());
        self.take_down(node, None);
        self.nodes[usize::from(node)].records.stop(None);
        if restart {
            self.boot(node);
        }
    }

    fn set_pressure(&mut self, node: u16, level: u8) {
        let Some(of) = self.nodes.get_mut(usize::from(node)) else { return };
        if of.state == State::Down || of.pressure == level {
            return;
        }
        of.pressure = level;
        self.tell_shards(node, Command::MemoryPressure(level));
        self.fault(Fault::MemoryPressure { node: NodeIx(node), level });
    }

    /// Each shard hears it when it does.
    fn tell_shards(&mut self, node: u16, command: Command) {
        let now = self.queue.now();
        let delay = &self.scenario.net.shard_delay_us;
        let of = &mut self.nodes[usize::from(node)];
        for (shard, part) in of.shards.iter_mut().enumerate() {
            let late = Duration::from_micros(part.chance.between(*delay.start(), *delay.end()));
            let what = Happening::Admin { node, shard: shard as u16, start: of.start, command };
            part.commanded_at = part.commanded_at.max(now + late);
            self.queue.push(part.commanded_at, what);
        }
    }

    /// All faults end, but for clocks that are wrong and nodes that nobody has started again.
    pub(super) fn calm_down(&mut self) {
        for ix in 0..self.clients.len() as u32 {
            let client = ClientIx(ix);
            self.heal(client);
            self.set_bandwidth(client, 0);
            let end = &self.clients[ix as usize];
            let acts = [
                end.frozen.then_some(Act::Freeze(false)),
                end.stopped_reading.then_some(Act::SetReading(true)),
                (end.acks == Acks::Never).then_some(Act::SetAcks(Acks::Auto)),
                end.sleeps().then_some(Act::Connect { clean: None, session_expiry_s: None, node: None }),
            ];
            for act in acts.into_iter().flatten() {
                self.act(client, &act);
            }
        }
        self.sn.calm = true;
        self.calm_links();
        for node in 0..self.nodes.len() as u16 {
            for shard in 0..self.nodes[usize::from(node)].shards.len() as u16 {
                self.set_lag(node, shard, 0);
            }
            self.set_pressure(node, 0);
            let (full, slow) = {
                let disk = self.nodes[usize::from(node)].disk.borrow();
                (disk.full, disk.slow_us > 0)
            };
            if full {
                self.do_to_world(&WorldAction::DiskFull { node, on: false });
            }
            if slow {
                self.do_to_world(&WorldAction::DiskSlow { node, by_us: 0 });
            }
        }
        for at in 0..self.links.len() as u32 {
            let lost = self.links[at as usize].as_deref_mut().filter(|link| link.server == ServerEnd::Lost);
            if let Some(link) = lost {
                // The client's operating system asks at last, and hears that nobody is there.
                link.server = ServerEnd::Closed;
                self.send_to_client(at, What::Rst);
            }
        }
    }

    /// When the pauses are over that have begun.
    pub(super) fn pauses_end(&self) -> Option<Instant> {
        self.nodes.iter().filter_map(|node| node.paused_until).max()
    }
}
