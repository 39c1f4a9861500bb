//! How long a cluster takes to be whole again. A repair is the moment in which no node and no link between nodes is broken
//! any more; from then on it is looked often whether all is well. Changes nothing, and violates nothing: the bounds are
//! those of [`crate::whitebox::cluster`].

use core::time::Duration;

use newtmq_base::Instant;

use super::World;
use super::node::State;
use super::watch::{members, views, wrong_routes};
use crate::report::Heal;
use crate::scenario::{Action, WorldAction};
use crate::whitebox::cluster::{Core, has_one_session};

/// It is looked so often whether a cluster is whole.
const EVERY: Duration = Duration::from_millis(10);

/// What was seen of faults and repairs so far.
#[derive(Debug)]
pub(super) struct HealWatch {
    on: bool,
    is_broken: bool,
    /// The next look, while the last repair has not healed everything.
    due: Instant,
}

impl HealWatch {
    pub(super) fn new(on: bool) -> HealWatch {
        HealWatch { on, is_broken: false, due: Instant::NEVER }
    }

    #[inline]
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.due
    }
}

impl World<'_, '_> {
    /// Something may have been broken or repaired.
    pub(super) fn note_repairs(&mut self) {
        if !self.heal_watch.on || self.over {
            return;
        }
        let (now, was) = (self.queue.now(), self.heal_watch.is_broken);
        let is = self.is_broken();
        self.heal_watch.is_broken = is;
        if is && !was {
            self.end_of_heal(true);
        } else if was && !is {
            self.observer.heals.push(Heal {
                repaired: now,
                ended: now,
                is_whole: false,
                has_quorum: false,
                is_cut_short: false,
                one_session: None,
            });
            self.heal_watch.due = now + EVERY;
        }
    }

    /// A node that nobody starts again is no fault that is repaired.
    fn is_broken(&self) -> bool {
        let restarts = |node: u16| {
            let restart = |action: &Action| *action == Action::World(WorldAction::Restart { node });
            self.scenario.steps[self.next_step..].iter().any(|step| restart(&step.action))
        };
        let mut nodes = self.nodes.iter().filter(|node| node.start > 0);
        self.paused > 0
            || self.flaps()
            || self.mesh.is_cut()
            || nodes.any(|node| match node.state {
                State::Up => false,
                State::Down => restarts(node.ix),
                State::Stopping { restart } => restart || restarts(node.ix),
            })
    }

    pub(super) fn look_whether_whole(&mut self) {
        let now = self.queue.now();
        self.heal_watch.due = now + EVERY;
        let members = members(&self.nodes);
        let last = self.observer.heals.last_mut().expect("a look is due only after a repair");
        if !last.is_whole
            && self.cluster_watch.knows_itself(&members, self.scenario)
            && wrong_routes(&members, |ix| views(&self.nodes, ix)).is_empty()
        {
            (last.ended, last.is_whole, last.has_quorum) = (now, true, true);
        }
        if last.one_session.is_none() && has_one_session(&members) {
            last.one_session = Some(now - last.repaired);
        }
        if last.is_whole && last.one_session.is_some() {
            self.heal_watch.due = Instant::NEVER;
        }
    }

    /// What is not whole yet is not waited for any longer.
    fn end_of_heal(&mut self, is_cut_short: bool) {
        let now = self.queue.now();
        if self.heal_watch.due < Instant::NEVER {
            self.heal_watch.due = Instant::NEVER;
            let has_quorum = Core::of(&members(&self.nodes)).has_quorum();
            let last = self.observer.heals.last_mut().expect("a look is due only after a repair");
            if !last.is_whole {
                (last.ended, last.is_cut_short, last.has_quorum) = (now, is_cut_short, has_quorum);
            }
        }
    }

    /// The run is over.
    pub(super) fn end_of_heals(&mut self) {
        self.end_of_heal(false);
        self.heal_watch.on = false;
    }
}
