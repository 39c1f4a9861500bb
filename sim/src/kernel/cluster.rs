//! A node's driver in its cluster: what the control plane asks for goes to the network between nodes, to its disk and into
//! the history, and what comes of it goes back to the control plane.

use core::time::Duration;
use std::collections::BTreeSet;

use newtmq_base::{Incarnation, NodeId, RequestId, SEED_BYTES};
use newtmq_cluster::link::{Fill, Input as LinkInput};
use newtmq_node::{ClusterBoot, ClusterCommand, ClusterInput, ClusterOutput, ControlInput};

use super::mesh::address_of;
use super::node::State;
use super::queue::Happening;
use super::records::Wish;
use super::wire::{Heard, name_of};
use super::{World, purpose, settings};
use crate::draw::Stream;
use crate::history::{Event, NodeIx};
use crate::scenario::Discovery;

/// How long a record of which nobody waits stays unsynced.
const LAZY: Duration = Duration::from_secs(1);
/// How long a disk without space is left alone.
const RETRY: Duration = Duration::from_millis(20);
/// The longest time until discovery tells that a node has moved.
const DISCOVERY_MS_MAX: u64 = 1_000;
/// Most times in a row that a connection may say More and give nothing.
const EMPTY_FILLS_MAX: u32 = 10_000;

impl World<'_, '_> {
    /// What a node starts from as a member of a cluster, if the scenario has one.
    pub(super) fn cluster_boot(&self, node: u16) -> Option<Box<ClusterBoot>> {
        if !self.scenario.is_cluster() {
            return None;
        }
        let of = &self.nodes[usize::from(node)];
        let name = u64::from(node) << 32 | u64::from(of.start);
        let mut chance = Stream::new(self.scenario.seed, purpose::CLUSTER, name);
        let mut seed = [0; SEED_BYTES];
        for part in seed.chunks_exact_mut(8) {
            part.copy_from_slice(&chance.next_u64().to_le_bytes());
        }
        let born = u64::from(node) << 32 | u64::from(of.wiped);
        let spec = self.scenario.node_spec(node);
        let max_retained = self.scenario.broker.max_retained_messages.unwrap_or(0) as usize;
        Some(Box::new(ClusterBoot {
            config: settings::cluster_config(&self.scenario.cluster, spec.witness, max_retained, of.later),
            node: of.id(),
            birth: Stream::new(self.scenario.seed, purpose::BIRTH, born).next_u64(),
            incarnation: Incarnation(u64::from(of.incarnation)),
            name: format!("n{node}"),
            address: self.mesh.address(node),
            seed,
            stored: of.records.load(),
        }))
    }

    /// A node has started.
    pub(super) fn cluster_started(&mut self, node: u16, moved: bool) {
        let now = self.queue.now();
        let of = &self.nodes[usize::from(node)];
        let (id, incarnation) = (of.id(), Incarnation(u64::from(of.incarnation)));
        let address = self.mesh.address(node);
        self.tell(&Event::NodeUp { node: NodeIx(node), id, incarnation, address });
        self.watch_start(node, id, incarnation);
        if address != address_of(node, 0) {
            self.cluster_watch.moved(node);
        }
        self.discover(node);
        if moved && self.scenario.cluster.discovery == Discovery::Dns {
            for other in (0..self.nodes.len() as u16).filter(|other| *other != node) {
                let start = self.nodes[usize::from(other)].start;
                let name = u64::from(node) << 48 | u64::from(other) << 32 | u64::from(start);
                let late = Stream::new(self.scenario.seed, purpose::DISCOVERY, name).between(0, DISCOVERY_MS_MAX);
                self.queue.push(now + Duration::from_millis(late), Happening::Discover { node: other, start });
            }
        }
    }

    /// Discovery tells a node where others are.
    pub(super) fn discover(&mut self, node: u16) {
        let own = self.mesh.address(node);
        let all = 0..self.nodes.len() as u16;
        let mut addresses: BTreeSet<_> = match self.scenario.cluster.discovery {
            Discovery::None => return,
            Discovery::Seeds => all.map(|node| address_of(node, 0)).collect(),
            Discovery::Dns => all.map(|node| self.mesh.address(node)).collect(),
        };
        let here = addresses.remove(&own);
        self.cluster_input(node, ClusterInput::Discovered { addresses, here });
    }

    /// One input to a node's part in its cluster.
    pub(super) fn cluster_input(&mut self, node: u16, input: ClusterInput<'_>) {
        self.control_input(node, ControlInput::Cluster(input));
    }

    /// Does what a node asks for.
    pub(super) fn obey_cluster(&mut self, node: u16, output: ClusterOutput) {
        match output {
            ClusterOutput::Dial { dial, address } => {
                let timeout = settings::links(&self.scenario.cluster).dial_timeout;
                self.mesh.dial(&mut self.queue, node, dial, &address, timeout);
            }
            ClusterOutput::Ready(conn) => self.mesh.wants(&mut self.queue, conn, false),
            ClusterOutput::Close(conn) => self.mesh.wants(&mut self.queue, conn, true),
            ClusterOutput::Packet { to, bytes } => self.mesh.send_packet(&mut self.queue, node, to, bytes),
            ClusterOutput::Store { number, record, sync, replaces } => {
                let of = &mut self.nodes[usize::from(node)];
                let full = of.disk.borrow().full;
                of.records.add(number, record, sync, replaces, full);
                self.arm_records(node);
            }
            ClusterOutput::Answer { request, answer } => {
                self.watch_answer(node, request, &answer);
                self.tell(&Event::Answer { node: NodeIx(node), request, answer: Box::new(answer) });
            }
            // Nobody asks others.
            ClusterOutput::Operator { .. } => {}
            ClusterOutput::Event(event) => {
                self.watch_event(node, &event);
                self.tell(&Event::Cluster { node: NodeIx(node), event: Box::new(event) });
            }
        }
    }

    /// Tells those who look at the history.
    pub(super) fn tell(&mut self, event: &Event) {
        if !self.over {
            self.observer.event(self.queue.now(), event);
        }
    }

    /// Something has reached an end of a connection between nodes.
    pub(super) fn on_wire(&mut self, wire: u32, end: u8) {
        let now = self.queue.now();
        let at = usize::from(end);
        let Some(node) = self.mesh.node_of(wire, at).filter(|_| self.mesh.fired(now, wire, at)) else { return };
        let conn = name_of(wire, at);
        let mut bytes = core::mem::take(&mut self.wire_bytes);
        while let Some(heard) = self.mesh.hear(&mut self.queue, wire, at, &mut bytes) {
            let input = match heard {
                Heard::Opened(dial) => LinkInput::Opened { conn, dial, tls: false },
                Heard::Failed(dial) => LinkInput::DialFailed(dial),
                Heard::Bytes => LinkInput::Bytes { conn, data: &bytes },
                Heard::Closed => LinkInput::Closed(conn),
                Heard::Refuse | Heard::Accept => unreachable!("the network does this itself"),
            };
            self.cluster_input(node, ClusterInput::Link(input));
        }
        self.wire_bytes = bytes;
    }

    /// A node writes to a connection while its socket takes bytes.
    pub(super) fn on_wire_pump(&mut self, wire: u32, end: u8) {
        let at = usize::from(end);
        let Some(node) = self.mesh.node_of(wire, at) else { return };
        let now = self.queue.now();
        let mut empty = 0;
        while let Some((conn, buffer, room)) = self.mesh.writer(wire, at) {
            let of = &mut self.nodes[usize::from(node)];
            let shown = of.clock.at(now);
            let control = of.control.as_mut().expect("only a node that runs has an open connection");
            let before = buffer.len();
            let fill = control.fill_link(shown, conn, buffer, room);
            let len = buffer.len() - before;
            let drained = fill == Fill::Drained;
            if self.mesh.wrote(&mut self.queue, wire, at, len, drained) {
                self.cluster_input(node, ClusterInput::Link(LinkInput::Closed(conn)));
                break;
            }
            empty = if len == 0 { empty + 1 } else { 0 };
            assert!(empty < EMPTY_FILLS_MAX, "fill_link says More and gives nothing");
        }
        self.arm_control(node);
    }

    /// A dial has taken as long as it may.
    pub(super) fn on_dial_timeout(&mut self, wire: u32) {
        if let Some((node, dial)) = self.mesh.give_up(wire) {
            self.cluster_input(node, ClusterInput::Link(LinkInput::DialFailed(dial)));
        }
    }

    /// A datagram arrives.
    pub(super) fn on_packet(&mut self, place: u32) {
        if let Some((node, from, bytes)) = self.mesh.take_packet(place) {
            self.cluster_input(node, ClusterInput::Packet { from, data: &bytes });
        }
    }

    /// A node's log of its cluster is synced.
    pub(super) fn on_records(&mut self, node: u16) {
        let now = self.queue.now();
        let of = &mut self.nodes[usize::from(node)];
        if of.records.due.is_none_or(|due| due > now) {
            // Replaced by another.
            return;
        }
        let (full, fails) = {
            let disk = of.disk.borrow();
            (disk.full, disk.sync_fails)
        };
        if fails {
            // It is waited for in vain.
            return;
        }
        match of.records.end(full) {
            Some(upto) => self.cluster_input(node, ClusterInput::Stored { upto }),
            None if full => {
                of.records.begin(now + RETRY);
                self.queue.push(now + RETRY, Happening::Records { node, start: of.start });
                return;
            }
            None => {}
        }
        self.arm_records(node);
    }

    /// A disk that is faster than it was does not take its time over what it has begun.
    pub(super) fn hurry_syncs(&mut self, node: u16) {
        let now = self.queue.now();
        let disk = &self.scenario.disk;
        let Some(of) = self.nodes.get_mut(usize::from(node)).filter(|of| of.state != State::Down) else { return };
        let slow = of.disk.borrow().slow_us;
        if let Some(due) = of.records.due.filter(|due| !of.lazy && *due > now) {
            let takes = of.chance.between(*disk.sync_us.start(), *disk.sync_us.end()) + slow;
            let at = now + Duration::from_micros(takes);
            if at < due {
                of.records.due = Some(at);
                self.queue.push(at, Happening::Records { node, start: of.start });
            }
        }
        self.arm_store(node);
    }

    fn arm_records(&mut self, node: u16) {
        let now = self.queue.now();
        let disk = &self.scenario.disk;
        let of = &mut self.nodes[usize::from(node)];
        let slow = of.disk.borrow().slow_us;
        let mut sync = || Duration::from_micros(of.chance.between(*disk.sync_us.start(), *disk.sync_us.end()) + slow);
        let takes = match of.records.wish() {
            Wish::Now => sync(),
            Wish::Later => LAZY,
            // A sync at leisure does not make anybody wait.
            Wish::None if of.lazy && of.records.hurries() => sync(),
            Wish::None => return,
        };
        of.lazy = takes == LAZY;
        of.records.begin(now + takes);
        self.queue.push(now + takes, Happening::Records { node, start: of.start });
    }

    /// An operator wants something of a node.
    pub(super) fn command(&mut self, node: u16, command: ClusterCommand) {
        let now = self.queue.now();
        let Some(of) = self.nodes.get(usize::from(node)).filter(|of| of.state == State::Up) else { return };
        if !self.scenario.is_cluster() {
            return;
        }
        let number = self.commands.len() as u32 + 1;
        let start = of.start;
        self.commands.push(command.clone());
        self.watch_command(node, RequestId(number.into()), &command);
        self.tell(&Event::Command { node: NodeIx(node), request: RequestId(number.into()), command });
        self.queue.push(now, Happening::Command { node, start, number });
    }

    pub(super) fn on_command(&mut self, node: u16, number: u32) {
        let command = self.commands[number as usize - 1].clone();
        let request = RequestId(number.into());
        self.cluster_input(node, ClusterInput::Command { request, command });
    }

    /// Whom an operator means by a node that is to be removed: the one that it was before its disk was lost, if it runs
    /// again.
    pub(super) fn removed_id(&self, node: u16) -> Option<NodeId> {
        let of = self.nodes.get(usize::from(node))?;
        let is_new = of.state != State::Down && of.wiped > 0;
        Some(if is_new { super::node::id_of(node, of.wiped - 1) } else { of.last_id })
    }
}
