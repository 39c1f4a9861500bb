//! The network between nodes: a link for each pair of them, each way of which can be cut and slow. Who connects has both ways
//! of a connection on its link, so a way from one node to another is on two links.

use core::cell::RefCell;
use core::time::Duration;
use std::rc::Rc;

use madsim::task::NodeId;
use newtmq_simnet::{Link, LinkSpec, Net};

use super::journal::Journal;
use super::nodes;
use crate::draw;
use crate::history::{Event, Fault, NodeIx};
use crate::kernel::links::apart;
use crate::scenario::{NetSpec, Scenario, WorldAction};

/// Away from who connects, and toward it.
const AWAY: usize = 0;
const TOWARD: usize = 1;

/// The network between nodes. Clones are the same one.
#[derive(Clone)]
pub(super) struct Mesh {
    count: u16,
    /// By who connects, then by whom to.
    ways: Rc<RefCell<Vec<Way>>>,
    /// Counts the ends of all faults: what flaps stops then.
    heals: Rc<RefCell<u32>>,
    journal: Journal,
}

struct Way {
    link: Link,
    cut: bool,
    slow: (u64, u64),
}

impl Mesh {
    /// Links between these nodes.
    pub(super) fn new(scenario: &Scenario, ids: &[NodeId], journal: Journal) -> Mesh {
        let (net, spec) = (Net::current(), link_spec(&scenario.net));
        let count = u16::try_from(ids.len()).expect("a scenario counts nodes in 16 bits");
        let mut ways = Vec::new();
        for (from, id) in (0..count).zip(ids) {
            for to in 0..count {
                let seed = scenario.seed ^ draw::of_name(&format!("from node {from} to node {to}"));
                let link = Link::new(&net, nodes::address(from).ip(), spec, seed);
                net.set_link(*id, nodes::address(to).ip(), link.clone());
                ways.push(Way { link, cut: false, slow: (0, 0) });
            }
        }
        Mesh { count, ways: Rc::new(RefCell::new(ways)), heals: Rc::default(), journal }
    }

    /// What a step does to links; false if it is about something else.
    pub(super) fn carry_out(&self, action: &WorldAction) -> bool {
        #[allow(clippy::wildcard_enum_match_arm)] // the others are not about links
        match *action {
            WorldAction::CutLink { from, to } => self.set_cut(from, to, true),
            WorldAction::HealLink { from, to } => self.set_cut(from, to, false),
            WorldAction::Partition { ref groups } => {
                apart(groups, self.count).into_iter().for_each(|(from, to)| self.set_cut(from, to, true));
            }
            WorldAction::Isolate { node } => {
                for other in 0..self.count {
                    self.set_cut(node, other, true);
                    self.set_cut(other, node, true);
                }
            }
            WorldAction::HealLinks => self.heal_all(),
            WorldAction::Flap { from, to, down_ms, up_ms, count } => self.flap((from, to), down_ms, up_ms, count),
            WorldAction::SlowLink { from, to, by_us, bytes_per_s } => self.set_slow(from, to, by_us, bytes_per_s),
            _ => return false,
        }
        true
    }

    fn number(&self, from: u16, to: u16) -> Option<usize> {
        let is_way = from != to && from < self.count && to < self.count;
        is_way.then(|| usize::from(from) * usize::from(self.count) + usize::from(to))
    }

    fn set_cut(&self, from: u16, to: u16, cut: bool) {
        let (Some(there), Some(back)) = (self.number(from, to), self.number(to, from)) else { return };
        {
            let mut ways = self.ways.borrow_mut();
            if core::mem::replace(&mut ways[there].cut, cut) == cut {
                return;
            }
            ways[there].link.set_cut(AWAY, cut);
            ways[back].link.set_cut(TOWARD, cut);
        }
        let (from, to) = (NodeIx(from), NodeIx(to));
        self.journal.note(Event::Fault(if cut { Fault::LinkCut { from, to } } else { Fault::LinkHealed { from, to } }));
    }

    fn set_slow(&self, from: u16, to: u16, by_us: u64, bytes_per_s: u64) {
        let (Some(there), Some(back)) = (self.number(from, to), self.number(to, from)) else { return };
        {
            let mut ways = self.ways.borrow_mut();
            let slow = (by_us, bytes_per_s);
            if core::mem::replace(&mut ways[there].slow, slow) == slow {
                return;
            }
            ways[there].link.set_speed(AWAY, by_us, bytes_per_s);
            ways[back].link.set_speed(TOWARD, by_us, bytes_per_s);
        }
        let fault = Fault::LinkSlow { from: NodeIx(from), to: NodeIx(to), by_us, bytes_per_s };
        self.journal.note(Event::Fault(fault));
    }

    fn flap(&self, (a, b): (u16, u16), down_ms: u64, up_ms: u64, count: u32) {
        let (mesh, heals) = (self.clone(), *self.heals.borrow());
        madsim::task::spawn_local(async move {
            for (cut, ms) in (0..count).flat_map(|_| [(true, down_ms), (false, up_ms)]) {
                mesh.set_cut(a, b, cut);
                mesh.set_cut(b, a, cut);
                madsim::time::sleep(Duration::from_millis(ms)).await;
                if *mesh.heals.borrow() != heals {
                    return;
                }
            }
        });
    }

    fn each(&self, mut change: impl FnMut(u16, u16)) {
        for from in 0..self.count {
            for to in 0..self.count {
                change(from, to);
            }
        }
    }

    fn heal_all(&self) {
        *self.heals.borrow_mut() += 1;
        self.each(|from, to| self.set_cut(from, to, false));
    }

    /// All links work as they do at first.
    pub(super) fn calm_down(&self) {
        self.heal_all();
        self.each(|from, to| self.set_slow(from, to, 0, 0));
    }
}

fn link_spec(net: &NetSpec) -> LinkSpec {
    let of = &net.nodes;
    LinkSpec {
        latency_us: [(*of.latency_us.start(), *of.latency_us.end()); 2],
        loss_ppm: of.loss_ppm,
        retransmit_ms: net.retransmit_ms,
        chunk_bytes: (*of.chunk_bytes.start(), *of.chunk_bytes.end()),
        socket_bytes: usize::try_from(of.socket_bytes).unwrap_or(usize::MAX).max(1),
        tail_us: of.tail_us,
        dup_ppm: of.dup_ppm,
        bytes_per_s: of.bytes_per_s,
        ..LinkSpec::default()
    }
}
