//! What steps do to the links between nodes, and to nodes as members of a cluster. Each is total: what is not possible does
//! nothing and tells nothing.

use core::time::Duration;

use newtmq_node::ClusterCommand;

use super::World;
use super::disk::SimDisk;
use super::node::State;
use super::queue::Happening;
use super::records::Records;
use crate::history::{Fault, NodeIx};
use crate::scenario::WorldAction;
use crate::whitebox::cluster::write;

/// Two nodes whose links come and go.
#[derive(Debug)]
pub(super) struct Flap {
    between: (u16, u16),
    down: Duration,
    up: Duration,
    /// How often they are cut yet.
    left: u32,
    is_down: bool,
}

impl World<'_, '_> {
    /// The steps that there are only in a cluster.
    pub(super) fn do_to_cluster(&mut self, action: &WorldAction) {
        #[allow(clippy::wildcard_enum_match_arm)] // all others are done elsewhere
        match *action {
            WorldAction::Wipe { node } => self.wipe(node),
            WorldAction::NewAddress { node } if usize::from(node) < self.nodes.len() => self.mesh.moves(node),
            WorldAction::CutLink { from, to } => self.set_cut(from, to, true),
            WorldAction::HealLink { from, to } => self.set_cut(from, to, false),
            WorldAction::Partition { ref groups } => self.partition(groups),
            WorldAction::Isolate { node } => {
                for other in 0..self.nodes.len() as u16 {
                    self.set_cut(node, other, true);
                    self.set_cut(other, node, true);
                }
            }
            WorldAction::HealLinks => self.heal_links(),
            WorldAction::Flap { from, to, down_ms, up_ms, count } => {
                let (down, up) = (Duration::from_millis(down_ms), Duration::from_millis(up_ms));
                self.flaps.push(Flap { between: (from, to), down, up, left: count, is_down: false });
                self.on_flap(self.flaps.len() as u32 - 1);
            }
            WorldAction::SlowLink { from, to, by_us, bytes_per_s } => self.slow_link(from, to, by_us, bytes_per_s),
            WorldAction::Join { node, to } if usize::from(to) < self.nodes.len() => {
                self.command(node, ClusterCommand::Join(self.mesh.address(to)));
            }
            WorldAction::Leave { node } => self.command(node, ClusterCommand::Leave),
            WorldAction::ForceLeave { node, target } => {
                if let Some(id) = self.removed_id(target) {
                    self.command(node, ClusterCommand::ForceLeave(format!("{:x}", id.0)));
                }
            }
            WorldAction::Status { node } => self.command(node, ClusterCommand::Status),
            WorldAction::Upgrade { node, later } => {
                if let Some(of) = self.nodes.get_mut(usize::from(node)) {
                    of.later = later;
                }
            }
            WorldAction::Finalize { node } => self.command(node, ClusterCommand::Finalize),
            WorldAction::Write { node, key } => self.command(node, write(key, self.commands.len() as u64)),
            _ => {}
        }
    }

    fn set_cut(&mut self, from: u16, to: u16, cut: bool) {
        if self.mesh.set_cut(&mut self.queue, from, to, cut) {
            let (from, to) = (NodeIx(from), NodeIx(to));
            self.fault(if cut { Fault::LinkCut { from, to } } else { Fault::LinkHealed { from, to } });
        }
    }

    fn slow_link(&mut self, from: u16, to: u16, by_us: u64, bytes_per_s: u64) {
        if self.mesh.set_slow(&mut self.queue, from, to, by_us, bytes_per_s) {
            self.fault(Fault::LinkSlow { from: NodeIx(from), to: NodeIx(to), by_us, bytes_per_s });
        }
    }

    fn partition(&mut self, groups: &[Vec<u16>]) {
        for (from, to) in apart(groups, self.nodes.len() as u16) {
            self.set_cut(from, to, true);
        }
    }

    /// All links work again, as fast as they do.
    pub(super) fn heal_links(&mut self) {
        for flap in &mut self.flaps {
            (flap.left, flap.is_down) = (0, false);
        }
        for from in 0..self.nodes.len() as u16 {
            for to in 0..self.nodes.len() as u16 {
                self.set_cut(from, to, false);
            }
        }
    }

    /// Whether links come and go.
    pub(super) fn flaps(&self) -> bool {
        self.flaps.iter().any(|flap| flap.is_down || flap.left > 0)
    }

    /// The same, and none is slow.
    pub(super) fn calm_links(&mut self) {
        self.heal_links();
        for from in 0..self.nodes.len() as u16 {
            for to in 0..self.nodes.len() as u16 {
                self.slow_link(from, to, 0, 0);
            }
        }
    }

    /// Links that flap go down, or up again.
    pub(super) fn on_flap(&mut self, number: u32) {
        let now = self.queue.now();
        let flap = &mut self.flaps[number as usize];
        if flap.left == 0 && !flap.is_down {
            return;
        }
        flap.is_down = !flap.is_down && flap.left > 0;
        let (down, (a, b)) = (flap.is_down, flap.between);
        let wait = if down {
            flap.left -= 1;
            flap.down
        } else {
            flap.up
        };
        self.set_cut(a, b, down);
        self.set_cut(b, a, down);
        self.queue.push(now + wait, Happening::Flap(number));
    }

    /// A node loses what is on its disk.
    fn wipe(&mut self, node: u16) {
        let Some(of) = self.nodes.get(usize::from(node)) else { return };
        if of.start == 0 {
            return;
        }
        if of.state != State::Down {
            self.do_to_world(&WorldAction::Crash { node, power_loss: true });
        }
        let of = &mut self.nodes[usize::from(node)];
        *of.disk.borrow_mut() = SimDisk::default();
        of.records = Records::default();
        of.wiped += 1;
        of.incarnation = 0;
        self.fault(Fault::Wipe { node: NodeIx(node) });
    }
}

/// From whom to whom nothing comes in a partition.
pub(crate) fn apart(groups: &[Vec<u16>], nodes: u16) -> Vec<(u16, u16)> {
    let together = |a: u16, b: u16| groups.iter().any(|group| group.contains(&a) && group.contains(&b));
    let in_one = |node: &u16| groups.iter().any(|group| group.contains(node));
    let pairs = (0..nodes).filter(in_one).flat_map(|from| (0..nodes).filter(in_one).map(move |to| (from, to)));
    pairs.filter(|(from, to)| !together(*from, *to)).collect()
}
