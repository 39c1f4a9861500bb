//! How a cluster begins: by an operator's word, or by seeds that agree that none of them has one.
//!
//! A seed founds a cluster only with the promises of a majority of all seeds. Whoever promises must have no cluster, does so
//! to one founder at a time, and remembers it over a crash; it is free again when the founder says that it has given that
//! attempt up. So two founders would need the same seed's promise at once.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use newtmq_base::{Incarnation, Instant, NodeId, RequestId, planted};

use super::command::Member;
use super::group::{Group, founding};
use super::join::Wish;
use super::log::{Grant, Persist, Stored};
use super::message::{Message, Refusal, Standing};
use super::state::{ClusterId, MetaState};
use super::{Meta, Output};

pub(super) struct Founding {
    name: String,
    total: usize,
    here: bool,
    reached: BTreeSet<NodeId>,
    // What a seed said that it is, and when.
    standings: BTreeMap<NodeId, (Instant, Standing)>,
    attempt: u64,
    granted: BTreeSet<NodeId>,
    refused: BTreeSet<NodeId>,
    // Until when this attempt lasts, if there is one; or the pause before the next one.
    asking: bool,
    until: Instant,
}

/// A cluster that this node founds, on its way to the disk.
pub(super) struct Begun {
    number: u64,
    stored: Stored,
    request: Option<RequestId>,
}

impl Meta {
    /// A cluster of this node alone.
    pub(super) fn init(&mut self, request: RequestId, name: String, out: &mut Vec<Output>) {
        let is_in_cluster = self.cluster.is_some() && self.gone.is_none();
        if is_in_cluster || self.begun.is_some() {
            out.push(Output::Answer { request, outcome: Err(Refusal::InCluster) });
        } else if self.me.witness {
            out.push(Output::Answer { request, outcome: Err(Refusal::Witness) });
        } else {
            self.begin(name, Some(request), out);
        }
    }

    /// What is known about the seeds.
    pub(super) fn seeds(&mut self, now: Instant, name: String, total: usize, here: bool, reached: BTreeSet<NodeId>) {
        if self.cluster.is_some() {
            return;
        }
        let until = now + self.config.found_wait * self.rng.below(100) as u32 / 300;
        let founding = self.founding.get_or_insert_with(|| Founding {
            name: String::new(),
            total: 0,
            here: false,
            reached: BTreeSet::new(),
            standings: BTreeMap::new(),
            attempt: 0,
            granted: BTreeSet::new(),
            refused: BTreeSet::new(),
            asking: false,
            until,
        });
        founding.standings.retain(|node, _| reached.contains(node) || self.up.contains(node));
        (founding.name, founding.total, founding.here, founding.reached) = (name, total, here, reached);
        self.next_ask = self.next_ask.min(now);
    }

    /// The next step towards a cluster, of theirs or of our own.
    pub(super) fn found(&mut self, now: Instant, out: &mut Vec<Output>) {
        if self.cluster.is_some() || self.begun.is_some() || self.wish.is_some() {
            return;
        }
        let Some(founding) = &self.founding else { return };
        // Whoever is up may have a cluster, if it is only no seed any more: it has another address.
        let others = self.up.iter().filter(|_| !planted!(OnlySeedsAreJoined));
        for node in founding.reached.iter().chain(others.filter(|node| !founding.reached.contains(node))) {
            self.send(*node, &Message::Probe, out);
        }
        let Some(founding) = &mut self.founding else { return };
        if founding.asking {
            if now >= founding.until {
                self.give_up(now, out);
            } else {
                // Who was not there before, or had promised somebody else; this node itself, too.
                let (attempt, is_own) = (founding.attempt, founding.granted.contains(&self.me.node));
                self.ask_seeds(out);
                if !is_own {
                    self.found_asked(now, self.me.node, self.me.inc, attempt, out);
                }
            }
            return;
        }
        founding.standings.retain(|_, (said, _)| now.saturating_since(*said) < STANDING_LASTS);
        let others = founding.standings.values().any(|(_, standing)| matches!(standing, Standing::Member { .. }));
        if others && !planted!(FoundsBesideOthers) {
            self.wish = Some(Wish::Join { request: None, via: None, ask: None, told: false });
            return;
        }
        let seeds = |node: &&NodeId| founding.reached.contains(node);
        let blank: Vec<NodeId> = founding.standings.keys().filter(seeds).copied().collect();
        if !founding.here || self.me.witness || (1 + blank.len()) * 2 <= founding.total || now < founding.until {
            return;
        }
        // The others leave it to the first one, as long as that is there.
        let me = self.me.node;
        let is_first = blank.iter().all(|node| *node > me);
        if !is_first && now < founding.until + self.config.found_wait {
            return;
        }
        founding.attempt += 1;
        founding.granted.clear();
        founding.asking = true;
        founding.until = now + ATTEMPT_LASTS;
        let attempt = founding.attempt;
        self.ask_seeds(out);
        self.found_asked(now, me, self.me.inc, attempt, out);
    }

    /// Asks all seeds that are no members for their promises, but those who have given theirs.
    fn ask_seeds(&mut self, out: &mut Vec<Output>) {
        let Some(founding) = &mut self.founding else { return };
        founding.refused.clear();
        let (inc, attempt) = (self.me.inc, founding.attempt);
        let asked = |node: &&NodeId| founding.reached.contains(node) && !founding.granted.contains(node);
        let nodes: Vec<NodeId> = founding.standings.keys().filter(asked).copied().collect();
        for node in nodes {
            self.send(node, &Message::FoundAsk { inc, attempt }, out);
        }
    }

    fn give_up(&mut self, now: Instant, out: &mut Vec<Output>) {
        let pause = self.config.found_wait * self.rng.below(200) as u32 / 300;
        let Some(founding) = &mut self.founding else { return };
        founding.asking = false;
        founding.granted.clear();
        founding.until = now + pause;
        let (inc, attempt, me) = (self.me.inc, founding.attempt, self.me.node);
        let reached: Vec<NodeId> = founding.reached.iter().copied().collect();
        for node in reached {
            self.send(node, &Message::FoundRelease { inc, attempt }, out);
        }
        self.found_released(me, inc, attempt, out);
    }

    /// A seed wants this one's promise.
    pub(super) fn found_asked(
        &mut self,
        now: Instant,
        from: NodeId,
        inc: Incarnation,
        attempt: u64,
        out: &mut Vec<Output>,
    ) {
        if self.cluster.is_some() {
            self.probed(from, out);
            return;
        }
        if self.begun.is_some() {
            return;
        }
        // Of two that ask each other the first one goes on, so that they do not refuse each other time and again.
        let asks = self.founding.as_ref().is_some_and(|founding| founding.asking);
        if asks && from < self.me.node {
            self.give_up(now, out);
        }
        let wanted = Grant { founder: from, inc, attempt };
        let is_free = self.grant.is_none_or(|grant| {
            // An earlier start of the founder is over, and founds nothing.
            grant.founder == from && (grant.inc, grant.attempt) <= (inc, attempt)
        });
        let granted = self.founding.as_ref().is_some_and(|founding| founding.here) && is_free;
        let answer = Message::FoundAnswer { inc, attempt, granted };
        if !granted {
            if from != self.me.node {
                self.send(from, &answer, out);
            }
            return;
        }
        self.grant = Some(wanted);
        let number = self.persist(Persist { grant: Some(Some(wanted)), ..Persist::default() }, out);
        if self.promised.len() < PROMISED_MAX {
            self.promised.push((number, from, answer));
        }
    }

    /// A promise has come, or was refused.
    pub(super) fn found_answered(
        &mut self,
        now: Instant,
        from: NodeId,
        inc: Incarnation,
        attempt: u64,
        granted: bool,
        out: &mut Vec<Output>,
    ) {
        let me = self.me.node;
        if self.cluster.is_some() || self.begun.is_some() || inc != self.me.inc {
            return;
        }
        let Some(founding) = self.founding.as_mut().filter(|founding| founding.asking && founding.attempt == attempt)
        else {
            return;
        };
        let is_seed = from == me || founding.reached.contains(&from);
        if is_seed {
            let heard = if granted { &mut founding.granted } else { &mut founding.refused };
            heard.insert(from);
        }
        if founding.refused.len() * 2 >= founding.total {
            self.give_up(now, out);
            return;
        }
        // One's own promise too, so that it is durable and given to nobody else.
        if founding.granted.len() * 2 > founding.total && founding.granted.contains(&me) {
            let name = founding.name.clone();
            self.begin(name, None, out);
        }
    }

    /// A promise is not needed any more.
    pub(super) fn found_released(&mut self, from: NodeId, inc: Incarnation, attempt: u64, out: &mut Vec<Output>) {
        let given = |grant: Grant| grant.founder == from && (grant.inc, grant.attempt) <= (inc, attempt);
        if self.cluster.is_none() && self.begun.is_none() && self.grant.is_some_and(given) {
            self.grant = None;
            self.promised.retain(|(_, to, _)| *to != from);
            self.persist(Persist { grant: Some(None), ..Persist::default() }, out);
        }
    }

    /// What a seed, or another node that is up, is.
    pub(super) fn standing(&mut self, now: Instant, from: NodeId, standing: Standing) {
        let is_up = self.up.contains(&from) && !planted!(OnlySeedsAreJoined);
        if let Some(founding) = self.founding.as_mut().filter(|founding| is_up || founding.reached.contains(&from)) {
            founding.standings.insert(from, (now, standing));
        }
    }

    fn begin(&mut self, name: String, request: Option<RequestId>, out: &mut Vec<Output>) {
        let cluster = ClusterId(self.rng.next_u64());
        // With what is on the disk of another cluster its promises there go: if it comes back it is somebody else to those who
        // still count on them.
        let renews = self.cluster.is_some() && !planted!(ComesBackAsItWas);
        let birth = renews.then(|| self.rng.next_u64());
        let me = Member { birth: birth.unwrap_or(self.me.birth), ..self.me.clone() };
        let mut state = MetaState::founded(cluster, name, me);
        if let Some(own) = state.members.get_mut(&self.me.node) {
            own.joined = 1;
        }
        let snapshot = founding(&state);
        let hard = raft::eraftpb::HardState { term: 1, commit: 1, ..raft::eraftpb::HardState::default() };
        let persist = Persist {
            reset: true,
            birth,
            cluster: Some(cluster),
            snapshot: Some(snapshot),
            first: 2,
            hard: Some(hard),
            ..Persist::default()
        };
        let mut stored = Stored::default();
        stored.apply(&persist);
        let number = self.persist(persist, out);
        self.founding = None;
        self.promised.clear();
        // Of the old log nothing may come to the disk behind this.
        if !planted!(OldLogGoesOn) {
            self.group = None;
        }
        self.begun = Some(Begun { number, stored, request });
    }

    /// A cluster that is durable, as far as it is: nobody has heard of it before.
    pub(super) fn begun(&mut self, number: u64, out: &mut Vec<Output>) {
        let Some(Begun { stored, request, .. }) = self.begun.take_if(|begun| begun.number <= number) else { return };
        self.me.birth = stored.birth.unwrap_or(self.me.birth);
        let group = Group::new(&self.config, &self.me, &stored);
        let mut group = group.expect("a log of one snapshot can be");
        group.start(&mut self.rng);
        self.group = Some(group);
        self.cluster = stored.cluster;
        self.grant = None;
        self.wish = None;
        (self.gone, self.lead, self.doubts) = (None, None, false);
        if let Some(request) = request {
            out.push(Output::Answer { request, outcome: Ok(0) });
        }
        if let Some(cluster) = self.cluster {
            out.push(Output::Joined { cluster });
        }
    }
}

const STANDING_LASTS: Duration = Duration::from_secs(2);
const ATTEMPT_LASTS: Duration = Duration::from_secs(2);
const PROMISED_MAX: usize = 64;
