//! What is around the directories: who sees whom, who leads the meta group, what owned logs say.

use std::collections::BTreeSet;

use newtmq_base::NodeId;

use super::super::super::*;
use super::{Event, MS, SECOND, World};

impl World {
    pub(in super::super) fn see(&mut self, i: usize, j: usize) {
        if self.nodes[i].dir.is_none() {
            return;
        }
        let (node, inc) = (self.nodes[j].id, self.nodes[j].inc);
        if self.reaches(i, j) {
            let old = self.nodes[i].sees.insert(node, inc);
            if old != Some(inc) {
                self.give(i, Input::Up { node, inc });
            }
            if old.is_some_and(|old| old != inc) {
                self.close_piped(i, node);
            }
        } else if self.nodes[i].sees.remove(&node).is_some() {
            self.give(i, Input::Down { node });
            self.close_piped(i, node);
        }
    }

    /// What is piped to a home that is gone is closed.
    pub(in super::super) fn close_piped(&mut self, i: usize, node: NodeId) {
        let lines = self.nodes[i].lines.iter();
        let piped = lines.filter(|(_, line)| line.served.is_some_and(|(_, home)| home == node)).map(|(conn, _)| *conn);
        piped.collect::<Vec<_>>().into_iter().for_each(|conn| self.close(i, conn));
    }

    /// The meta group, once more: who leads, and who hears of it.
    pub(in super::super) fn elect(&mut self) {
        let n = self.nodes.len();
        let reached = |world: &World, i: usize| (0..n).filter(|j| world.reaches(i, *j)).count() * 2 > n;
        for (i, (term, until)) in self.leaders.clone() {
            if reached(self, i) && term == self.term {
                self.leaders.insert(i, (term, self.now + 2 * SECOND));
            } else if until < self.now {
                self.leaders.remove(&i);
            }
        }
        let good = self.leaders.iter().any(|(i, (term, _))| *term == self.term && reached(self, *i));
        let fit: Vec<usize> = (0..n).filter(|i| reached(self, *i)).collect();
        if !good && !fit.is_empty() && self.rng.below(20) == 0 {
            let leader = fit[self.rng.below(fit.len() as u64) as usize];
            self.term += 1;
            self.leaders.insert(leader, (self.term, self.now + 2 * SECOND));
        }
        for node in 0..n {
            let wait = self.rng.below(300 * MS);
            self.later(wait, Event::Hear { node });
        }
        self.later(100 * MS, Event::Elect);
    }

    /// Forces another leader.
    pub(in super::super) fn depose(&mut self) {
        self.term += 1;
        let fit: Vec<usize> = (0..self.nodes.len()).filter(|i| self.nodes[*i].dir.is_some()).collect();
        let majority = |i: &&usize| fit.iter().filter(|j| self.reaches(**i, **j)).count() * 2 > self.nodes.len();
        if let Some(leader) = fit.iter().rev().find(majority) {
            self.leaders.insert(*leader, (self.term, self.now + 2 * SECOND));
        }
    }

    pub(in super::super) fn hear(&mut self, i: usize) {
        if self.nodes[i].dir.is_none() {
            return;
        }
        let (heard, _) = self.nodes[i].hears;
        let leaders = self.leaders.iter().filter(|(leader, (term, _))| self.reaches(i, **leader) && *term >= heard);
        let best =
            leaders.max_by_key(|(_, (term, _))| *term).map(|(leader, (term, _))| (*term, self.nodes[*leader].id));
        let hears = (best.map_or(heard, |best| best.0), best.map(|best| best.1));
        if hears != self.nodes[i].hears {
            self.nodes[i].hears = hears;
            self.give(i, Input::Leader { term: hears.0, node: hears.1 });
        }
    }

    /// Owned logs: what is stored at one is known at the others.
    pub(in super::super) fn sync(&mut self) {
        for i in 0..self.nodes.len() {
            for j in (0..self.nodes.len()).filter(|j| *j != i) {
                if !self.reaches(i, j) {
                    continue;
                }
                let owner = self.nodes[j].id;
                let kept = self.nodes[j].kept.iter().filter(|(_, kept)| kept.durable);
                let there: BTreeSet<Client> = kept.map(|(client, _)| client.clone()).collect();
                let known = self.nodes[i].known.keys().filter(|(of, _)| *of == owner);
                let known: BTreeSet<Client> = known.map(|(_, client)| client.clone()).collect();
                for client in there.symmetric_difference(&known) {
                    let present = there.contains(client);
                    if present {
                        self.nodes[i].known.insert((owner, client.clone()), self.now);
                    } else {
                        self.nodes[i].known.remove(&(owner, client.clone()));
                    }
                    self.give(i, Input::Home { owner, client: client.clone(), present });
                }
                let there: BTreeSet<_> = self.nodes[j].records.iter().map(|record| (owner, record.clone())).collect();
                let known: BTreeSet<_> = self.nodes[i].voids.iter().filter(|(by, _)| *by == owner).cloned().collect();
                // Tables of who is away are served by others.
                let away: Vec<_> = self.nodes[j].voids.difference(&self.nodes[i].voids).cloned().collect();
                for void in away.into_iter().filter(|(by, _)| !self.reaches(i, by.0 as usize - 1)).collect::<Vec<_>>() {
                    self.nodes[i].voids.insert(void.clone());
                    let (by, (client, home, epoch)) = void;
                    self.give(i, Input::Supersedes { by, client, epoch, home, put: true });
                }
                for void in there.symmetric_difference(&known) {
                    let put = there.contains(void);
                    if put {
                        self.nodes[i].voids.insert(void.clone())
                    } else {
                        self.nodes[i].voids.remove(void)
                    };
                    let (by, (client, home, epoch)) = void.clone();
                    self.give(i, Input::Supersedes { by, client, epoch, home, put });
                }
            }
        }
        self.later(200 * MS, Event::Sync);
    }
}
