//! Nodes with clients and sessions over a network that loses, copies, delays, reorders and parts, a leader of the meta group
//! as it would be elected there, and what must hold at every step.

use std::collections::{BTreeMap, BTreeSet};

use core::time::Duration;

use newtmq_base::{ConnId, Incarnation, Instant, NodeId, Rng, ShardId};

use super::super::*;

pub(super) const MS: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1000 * MS;

/// A session at a shard.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept {
    pub(super) epoch: Epoch,
    clean: Epoch,
    pub(super) durable: bool,
    attached: bool,
    began: u64,
}

/// A connection.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) client: Client,
    clean: bool,
    born: u64,
    pub(super) served: Option<(Epoch, NodeId)>,
    served_at: u64,
    pub(super) present: bool,
    fenced: bool,
}

pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) inc: Incarnation,
    pub(super) dir: Option<Directory>,
    /// Its clock: true time at which it showed `offset`, and how fast it goes, in thousandths.
    boot: u64,
    offset: u64,
    rate: u64,
    pub(super) lines: BTreeMap<Conn, Line>,
    pub(super) kept: BTreeMap<Client, Kept>,
    /// Stored sessions of others that it knows of, and since when.
    known: BTreeMap<(NodeId, Client), u64>,
    /// Its records: client, home, epoch.
    pub(super) records: BTreeSet<(Client, NodeId, Epoch)>,
    /// Records of others.
    voids: BTreeSet<(NodeId, (Client, NodeId, Epoch))>,
    sees: BTreeMap<NodeId, Incarnation>,
    hears: (u64, Option<NodeId>),
    /// Until when its shards do nothing.
    pub(super) stuck: u64,
}

#[derive(Debug, Clone)]
enum Event {
    Wire { from: (NodeId, Incarnation), to: usize, bytes: Vec<u8> },
    Shard { node: usize, inc: Incarnation, input: Todo },
    See { node: usize, other: usize },
    Hear { node: usize },
    Elect,
    Sync,
}

#[derive(Debug, Clone)]
enum Todo {
    Close(Client, Conn),
    Attach { client: Client, epoch: Epoch, clean: bool, durable: bool },
    Lose { client: Client, epoch: Epoch },
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Noise {
    pub(super) loss_percent: u64,
    pub(super) copy_percent: u64,
    pub(super) delay_ms: u64,
    pub(super) shard_ms: u64,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    pub(super) connects: u64,
    pub(super) granted: u64,
    pub(super) present: u64,
    pub(super) raised: u64,
    pub(super) fences: u64,
    pub(super) conflicts: u64,
    pub(super) superseded: u64,
    pub(super) unavailable: u64,
    pub(super) lost: u64,
    pub(super) acting: u64,
    pub(super) forks: u64,
    pub(super) checked: u64,
    pub(super) slowest_ms: u64,
}

pub(super) struct World {
    pub(super) now: u64,
    pub(super) rng: Rng,
    pub(super) nodes: Vec<Node>,
    events: BTreeMap<(u64, u64), Event>,
    count: u64,
    pub(super) cuts: BTreeSet<(usize, usize)>,
    pub(super) noise: Noise,
    config: Config,
    /// Who leads, as far as he knows himself, and until when without a majority.
    leaders: BTreeMap<usize, (u64, u64)>,
    term: u64,
    /// All connections that there ever were: client and birth.
    births: Vec<(Client, u64)>,
    epochs: BTreeMap<(Client, Epoch), (NodeId, Incarnation, Conn)>,
    /// Since when a seat, in its reign, has heard all of a node.
    paired: BTreeMap<(usize, usize), (u64, bool, u64)>,
    /// Sessions that a seat has told to end.
    ending: BTreeSet<(NodeId, Client)>,
    pub(super) seen: Seen,
}

impl World {
    pub(super) fn new(seed: u64, nodes: usize, config: Config, noise: Noise) -> World {
        let mut rng = Rng::from_number(seed);
        let node = |i: usize| Node {
            id: NodeId(i as u64 + 1),
            inc: Incarnation(0),
            dir: None,
            boot: 0,
            offset: rng.below(2000 * SECOND),
            rate: 990 + rng.below(21),
            lines: BTreeMap::new(),
            kept: BTreeMap::new(),
            known: BTreeMap::new(),
            records: BTreeSet::new(),
            voids: BTreeSet::new(),
            sees: BTreeMap::new(),
            hears: (0, None),
            stuck: 0,
        };
        let nodes = (0..nodes).map(node).collect();
        let mut world = World {
            now: 0,
            rng: Rng::from_number(seed ^ 0xD1CE),
            nodes,
            events: BTreeMap::new(),
            count: 0,
            cuts: BTreeSet::new(),
            noise,
            config,
            leaders: BTreeMap::new(),
            term: 0,
            births: Vec::new(),
            epochs: BTreeMap::new(),
            paired: BTreeMap::new(),
            ending: BTreeSet::new(),
            seen: Seen::default(),
        };
        (0..world.nodes.len()).for_each(|i| world.start(i));
        world.later(100 * MS, Event::Elect);
        world.later(200 * MS, Event::Sync);
        world
    }

    fn later(&mut self, wait: u64, event: Event) {
        self.count += 1;
        self.events.insert((self.now + wait, self.count), event);
    }

    fn local(&self, i: usize) -> Instant {
        let node = &self.nodes[i];
        Instant::from_nanos(node.offset + (self.now - node.boot) / 1000 * node.rate)
    }

    fn reaches(&self, i: usize, j: usize) -> bool {
        let alive = self.nodes[i].dir.is_some() && self.nodes[j].dir.is_some();
        alive && (i == j || !(self.cuts.contains(&(i, j)) || self.cuts.contains(&(j, i))))
    }

    pub(super) fn start(&mut self, i: usize) {
        let local = self.local(i);
        let ids: BTreeSet<NodeId> = self.nodes.iter().map(|node| node.id).collect();
        let node = &mut self.nodes[i];
        node.inc = Incarnation(node.inc.0 + 1);
        let (me, inc) = (node.id, node.inc);
        node.dir = Some(Directory::new(self.config.clone(), local, me, inc));
        (node.sees, node.hears, node.stuck) = (BTreeMap::new(), (0, None), 0);
        let mut inputs = vec![Input::Members(ids)];
        for (client, kept) in &node.kept {
            inputs.push(Input::Recovered { client: client.clone(), epoch: kept.epoch, clean: kept.clean });
        }
        for (client, home, epoch) in &node.records {
            inputs.push(Input::Supersedes { by: me, client: client.clone(), epoch: *epoch, home: *home, put: true });
        }
        for (owner, client) in node.known.keys() {
            inputs.push(Input::Home { owner: *owner, client: client.clone(), present: true });
        }
        for (by, (client, home, epoch)) in &node.voids {
            let (by, client, epoch, home) = (*by, client.clone(), *epoch, *home);
            inputs.push(Input::Supersedes { by, client, epoch, home, put: true });
        }
        inputs.into_iter().for_each(|input| self.give(i, input));
        self.look_around(i);
    }

    pub(super) fn crash(&mut self, i: usize) {
        let node = &mut self.nodes[i];
        if let Some(dir) = node.dir.take() {
            note(&mut self.seen, &dir);
        }
        node.lines.clear();
        node.kept.retain(|_, kept| kept.durable);
        node.kept.values_mut().for_each(|kept| kept.attached = false);
        self.leaders.remove(&i);
        self.look_around(i);
    }

    /// A change of links is noticed, soon or after a while.
    fn look_around(&mut self, i: usize) {
        for j in (0..self.nodes.len()).filter(|j| *j != i) {
            for (node, other) in [(i, j), (j, i)] {
                let wait = if self.reaches(i, j) {
                    self.rng.below(2 * SECOND)
                } else {
                    2 * SECOND + self.rng.below(6 * SECOND)
                };
                self.later(wait, Event::See { node, other });
            }
        }
        (0..self.nodes.len()).for_each(|node| {
            let wait = self.rng.below(300 * MS);
            self.later(wait, Event::Hear { node });
        });
    }

    pub(super) fn cut(&mut self, cuts: BTreeSet<(usize, usize)>) {
        self.cuts = cuts;
        (0..self.nodes.len()).for_each(|i| self.look_around(i));
    }

    pub(super) fn give(&mut self, i: usize, input: Input) {
        let now = self.local(i);
        let Some(dir) = self.nodes[i].dir.as_mut() else { return };
        let mut out = Vec::new();
        dir.handle(now, input, &mut out);
        self.note_pairs(i);
        out.into_iter().for_each(|output| self.carry_out(i, output));
    }

    fn note_pairs(&mut self, s: usize) {
        let seated = self.nodes[s].dir.as_ref().and_then(|dir| dir.seated());
        for j in 0..self.nodes.len() {
            let heard = self.nodes[s].dir.as_ref().is_some_and(|dir| dir.has_announced(self.nodes[j].id));
            match seated.filter(|_| heard) {
                Some(seat) => {
                    let reign = (seat.term, seat.acting);
                    let old = self.paired.get(&(s, j)).filter(|old| (old.0, old.1) == reign).copied();
                    self.paired.insert((s, j), old.unwrap_or((reign.0, reign.1, self.now)));
                }
                None => _ = self.paired.remove(&(s, j)),
            }
        }
    }

    fn carry_out(&mut self, i: usize, output: Output) {
        match output {
            Output::Send { to, message } => self.send(i, to, &message),
            Output::Granted(grant) => self.on_granted(i, &grant),
            Output::Refused { client, conn, why } => {
                let line = self.nodes[i].lines.remove(&conn).expect("it was claimed");
                assert!(line.client == client && line.served.is_none());
                match why {
                    Refused::Superseded => {
                        self.seen.superseded += 1;
                        self.justify(&client, line.born);
                    }
                    Refused::Unavailable => self.seen.unavailable += 1,
                    Refused::Full => panic!("no limit is near"),
                }
            }
            Output::Fence { client, conn, .. } => {
                let line = self.nodes[i].lines.get_mut(&conn).expect("it was claimed");
                assert!(!core::mem::replace(&mut line.fenced, true));
                let born = line.born;
                self.seen.fences += 1;
                self.justify(&client, born);
                self.todo(i, Todo::Close(client, conn));
            }
            Output::Attach { client, epoch, clean, durable, .. } => {
                self.todo(i, Todo::Attach { client, epoch, clean, durable });
            }
            Output::Lost { client, epoch, .. } => {
                self.seen.lost += 1;
                self.todo(i, Todo::Lose { client, epoch });
            }
            Output::Supersedes { client, epoch, home, put: true } => {
                self.seen.forks += 1;
                self.nodes[i].records.insert((client, home, epoch));
            }
            Output::Supersedes { client, epoch, home, put: false } => {
                assert!(self.nodes[i].records.remove(&(client, home, epoch)));
            }
        }
    }

    fn todo(&mut self, i: usize, input: Todo) {
        let wait = self.rng.below(self.noise.shard_ms * MS + 1);
        let until = (self.now + wait).max(self.nodes[i].stuck);
        let inc = self.nodes[i].inc;
        // A shard does things in order.
        let last = self.events.iter().rev().find_map(|((at, _), event)| match event {
            Event::Shard { node, .. } if *node == i => Some(*at),
            Event::Wire { .. }
            | Event::Shard { .. }
            | Event::See { .. }
            | Event::Hear { .. }
            | Event::Elect
            | Event::Sync => None,
        });
        let wait = until.max(last.unwrap_or(0)) - self.now;
        self.later(wait, Event::Shard { node: i, inc, input });
    }

    /// Whoever loses its place has lost it to a later connection, or one that is about as late.
    fn justify(&mut self, client: &Client, born: u64) {
        let age = self.now - born;
        let doubt = 2 * SECOND + age / 40 + 4 * self.noise.delay_ms.max(400) * MS + 3 * SECOND;
        let others = self.births.iter().filter(|(other, _)| other == client);
        let later = others.filter(|(_, other)| *other + doubt > born).count();
        // One is itself.
        assert!(later > 1, "{client} has lost its newest connection, of {born} at {}", self.now);
    }

    fn send(&mut self, i: usize, to: NodeId, message: &Message) {
        if let Message::End { client, .. } = message {
            self.ending.insert((to, client.clone()));
        }
        let from = (self.nodes[i].id, self.nodes[i].inc);
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        assert_eq!(Message::decode(&bytes).as_ref(), Ok(message));
        let copies = 1 + u64::from(self.rng.below(100) < self.noise.copy_percent);
        for _ in 0..copies {
            let lost = self.rng.below(100) < self.noise.loss_percent;
            let mut wait = 100_000 + self.rng.below(self.noise.delay_ms * MS + 1);
            if self.noise.copy_percent > 0 && self.rng.below(20) == 0 {
                wait += self.rng.below(3 * SECOND);
            }
            if !lost {
                self.later(wait, Event::Wire { from, to: to.0 as usize - 1, bytes: bytes.clone() });
            }
        }
    }

    fn on_granted(&mut self, i: usize, grant: &Grant) {
        let Grant { client, conn, epoch, home, present, .. } = grant;
        let (id, inc) = (self.nodes[i].id, self.nodes[i].inc);
        let owner = *self.epochs.entry((client.clone(), *epoch)).or_insert((id, inc, *conn));
        assert_eq!(owner, (id, inc, *conn), "W3: {epoch:?} of {client} was given twice");
        let line = self.nodes[i].lines.get_mut(conn).expect("it was claimed");
        assert!(!line.fenced, "what is fenced gets nothing");
        let first = line.served.is_none();
        if let Some((old, _)) = line.served {
            assert!(*epoch > old, "W3");
            self.seen.raised += 1;
        }
        (line.served, line.present) = (Some((*epoch, *home)), *present);
        if !first && !present {
            // Its session is gone.
            self.close(i, *conn);
            return;
        }
        if first {
            line.served_at = self.now;
            let (born, clean) = (line.born, line.clean);
            self.seen.granted += 1;
            self.seen.present += u64::from(*present);
            assert!(!clean || !present, "S7");
            self.check_alone(i, client, *conn, born);
            if !present && !clean {
                self.check_none_elsewhere(i, client, *home, born);
            }
        }
    }

    /// The seat of a node, since when it has heard all of it.
    fn seat_of(&self, i: usize) -> Option<(usize, u64)> {
        let seat = self.nodes[i].dir.as_ref()?.obeys()?.0 as usize - 1;
        Some((seat, self.paired.get(&(seat, i))?.2))
    }

    /// S6: nobody else has the client, of those that the same seat knew when the client connected.
    fn check_alone(&mut self, i: usize, client: &Client, conn: Conn, born: u64) {
        let Some((seat, since)) = self.seat_of(i) else { return };
        if since > born || self.config.takeover_wait.is_some() {
            return;
        }
        self.seen.checked += 1;
        for (j, node) in self.nodes.iter().enumerate() {
            let known = self.seat_of(j).is_some_and(|(other, since)| other == seat && since < born);
            for (other, line) in
                node.lines.iter().filter(|(other, line)| (j, **other) != (i, conn) && line.client == *client)
            {
                let held = line.served.is_some() && line.served_at < born;
                assert!(!known || !held, "S6: {client} is at {i} and still at {j}, {other:?}");
            }
        }
    }

    /// S7: a session that is known to be somewhere is not taken for none.
    fn check_none_elsewhere(&mut self, i: usize, client: &Client, home: NodeId, born: u64) {
        let Some((seat, since)) = self.seat_of(i) else { return };
        if since > born {
            return;
        }
        for (j, node) in self.nodes.iter().enumerate().filter(|(_, node)| node.id != home) {
            let Some(kept) = node.kept.get(client).filter(|kept| kept.durable && kept.began < born) else { continue };
            let known = self.seat_of(j).is_some_and(|(other, since)| other == seat && since < born);
            let ends = node.dir.is_none()
                || self.ending.contains(&(node.id, client.clone()))
                || self.nodes.iter().any(|other| {
                    other.records.iter().any(|(of, at, epoch)| of == client && *at == node.id && kept.epoch < *epoch)
                });
            assert!(!known || ends || self.is_losing(j, client), "S7: the session of {client} is at {j}");
            let recorded = self.nodes[seat].known.get(&(node.id, client.clone())).is_some_and(|at| *at < born);
            let wait = self.config.away_home == AwayHome::Wait;
            let away = self.nodes[seat].dir.is_some() && !self.paired.contains_key(&(seat, j));
            assert!(
                !(recorded && wait && away) || self.was_void(client),
                "S7: the session of {client} is hidden at {j}"
            );
        }
    }

    /// There has been a clean start: what is elsewhere may be void.
    fn was_void(&self, client: &Client) -> bool {
        self.nodes.iter().any(|node| node.records.iter().any(|(of, ..)| of == client))
    }

    fn is_losing(&self, i: usize, client: &Client) -> bool {
        self.events.values().any(|event| match event {
            Event::Shard { node, input: Todo::Lose { client: of, .. }, .. } => *node == i && of == client,
            Event::Wire { .. }
            | Event::Shard { .. }
            | Event::See { .. }
            | Event::Hear { .. }
            | Event::Elect
            | Event::Sync => false,
        })
    }

    pub(super) fn connect(&mut self, i: usize, client: &str, clean: bool, durable: bool) -> Option<Conn> {
        self.nodes[i].dir.as_ref()?;
        self.seen.connects += 1;
        let client = Client::from(client);
        let conn = Conn { shard: ShardId(0), id: ConnId { slot: self.seen.connects as u32, generation: 1 } };
        self.births.push((client.clone(), self.now));
        let line = Line {
            client: client.clone(),
            clean,
            born: self.now,
            served: None,
            served_at: 0,
            present: false,
            fenced: false,
        };
        self.nodes[i].lines.insert(conn, line);
        self.give(i, Input::Claim { client, conn, clean, durable, limits: Box::default() });
        Some(conn)
    }

    pub(super) fn close(&mut self, i: usize, conn: Conn) {
        let Some(line) = self.nodes[i].lines.remove(&conn) else { return };
        self.give(i, Input::Closed { client: line.client.clone(), conn });
        // A session that lives in memory may end with its connection, if that is at home.
        if let Some((epoch, home)) = line.served
            && home == self.nodes[i].id
            && self.nodes[i].kept.get(&line.client).is_some_and(|kept| kept.epoch == epoch)
        {
            let kept = self.nodes[i].kept.get_mut(&line.client).expect("it was seen");
            kept.attached = false;
            if !kept.durable && self.rng.below(2) > 0 {
                self.expire(i, &line.client);
            }
        }
    }

    /// A session ends.
    pub(super) fn expire(&mut self, i: usize, client: &Client) {
        if let Some(kept) = self.nodes[i].kept.remove(client) {
            self.give(i, Input::Ended { client: client.clone(), epoch: kept.epoch });
        }
    }

    fn do_shard(&mut self, i: usize, todo: Todo) {
        match todo {
            Todo::Close(client, conn) => {
                self.nodes[i].lines.remove(&conn);
                self.give(i, Input::Closed { client, conn });
            }
            Todo::Attach { client, epoch, clean, durable } => {
                let now = self.now;
                let node = &mut self.nodes[i];
                let old = node.kept.get(&client).copied();
                if let Some(old) = old {
                    assert!(epoch > old.epoch, "W4: {client} attaches with {epoch:?} after {:?}", old.epoch);
                }
                let fresh = Kept { epoch, clean: Epoch::ZERO, durable, attached: true, began: now };
                let mut kept = old.filter(|_| !clean).unwrap_or(fresh);
                (kept.epoch, kept.attached) = (epoch, true);
                if clean {
                    kept.clean = epoch;
                }
                node.kept.insert(client.clone(), kept);
                let present = old.is_some() && !clean;
                self.give(i, Input::Attached { client, epoch, present, answer: Box::default() });
            }
            Todo::Lose { client, epoch } => {
                if self.nodes[i].kept.get(&client).is_some_and(|kept| kept.epoch <= epoch) {
                    self.expire(i, &client);
                }
            }
        }
    }

    fn see(&mut self, i: usize, j: usize) {
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
    fn close_piped(&mut self, i: usize, node: NodeId) {
        let lines = self.nodes[i].lines.iter();
        let piped = lines.filter(|(_, line)| line.served.is_some_and(|(_, home)| home == node)).map(|(conn, _)| *conn);
        piped.collect::<Vec<_>>().into_iter().for_each(|conn| self.close(i, conn));
    }

    /// The meta group, once more: who leads, and who hears of it.
    fn elect(&mut self) {
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
    pub(super) fn depose(&mut self) {
        self.term += 1;
        let fit: Vec<usize> = (0..self.nodes.len()).filter(|i| self.nodes[*i].dir.is_some()).collect();
        let majority = |i: &&usize| fit.iter().filter(|j| self.reaches(**i, **j)).count() * 2 > self.nodes.len();
        if let Some(leader) = fit.iter().rev().find(majority) {
            self.leaders.insert(*leader, (self.term, self.now + 2 * SECOND));
        }
    }

    fn hear(&mut self, i: usize) {
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
    fn sync(&mut self) {
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

    fn deadline(&self, i: usize) -> Option<u64> {
        let node = &self.nodes[i];
        let due = node.dir.as_ref()?.next_deadline();
        if due == Instant::NEVER {
            return None;
        }
        Some(node.boot + (due.as_nanos().saturating_sub(node.offset)).div_ceil(node.rate) * 1000 + 1000)
    }

    /// Lets everything happen that happens until a true time.
    pub(super) fn run_until(&mut self, end: u64) {
        let mut steps = 0;
        loop {
            let event = self.events.keys().next().map(|(at, _)| *at);
            let deadlines = (0..self.nodes.len()).filter_map(|i| self.deadline(i).map(|at| (at, i)));
            let deadline = deadlines.min();
            let Some(at) = event.into_iter().chain(deadline.map(|due| due.0)).min().filter(|at| *at <= end) else {
                break;
            };
            steps = if at > self.now { 0 } else { steps + 1 };
            assert!(steps < 10_000, "busy");
            self.now = self.now.max(at);
            match deadline.filter(|due| due.0 <= self.now) {
                Some((_, i)) => self.give(i, Input::Tick),
                None => self.step(),
            }
        }
        self.now = end;
        self.check_answered();
    }

    fn step(&mut self) {
        let Some((_, event)) = self.events.pop_first() else { return };
        match event {
            Event::Wire { from, to, bytes } => {
                if !self.cuts.contains(&(from.0.0 as usize - 1, to)) {
                    let message = Message::decode(&bytes).expect("it was encoded");
                    self.give(to, Input::Message { from: from.0, inc: from.1, message });
                }
            }
            Event::Shard { node, inc, input } => {
                if self.nodes[node].inc == inc && self.nodes[node].dir.is_some() {
                    self.do_shard(node, input);
                }
            }
            Event::See { node, other } => self.see(node, other),
            Event::Hear { node } => self.hear(node),
            Event::Elect => self.elect(),
            Event::Sync => self.sync(),
        }
    }

    /// Every claim is answered in time, whatever happens.
    fn check_answered(&self) {
        let longest = self.config.claim_max + Duration::from_millis(500);
        for node in &self.nodes {
            for line in node.lines.values().filter(|line| line.served.is_none()) {
                let age = Duration::from_nanos(self.now - line.born);
                assert!(age < longest, "L5: {} waits for {age:?} at {:?}", line.client, node.id);
            }
        }
    }

    /// Whether nodes are in groups of which each reaches all of its own and nobody else.
    pub(super) fn has_sides(&self) -> bool {
        let n = self.nodes.len();
        let cut = |i: usize, j: usize| i != j && self.cuts.contains(&(i, j));
        let like = |i: usize, j: usize| (0..n).all(|k| cut(i, k) == cut(j, k) && cut(k, i) == cut(k, j));
        (0..n).all(|i| (0..n).all(|j| cut(i, j) == cut(j, i) && (cut(i, j) || like(i, j))))
    }

    /// Who can talk with each other.
    pub(super) fn sides(&self) -> Vec<Vec<usize>> {
        let mut sides: Vec<Vec<usize>> = Vec::new();
        for i in (0..self.nodes.len()).filter(|i| self.nodes[*i].dir.is_some()) {
            match sides.iter_mut().find(|side| self.reaches(side[0], i)) {
                Some(side) => side.push(i),
                None => sides.push(vec![i]),
            }
        }
        sides
    }

    /// What must hold on a side where nothing has changed for long: one connection and one session for each client, and
    /// the seat knows them.
    pub(super) fn check_rest(&mut self, side: &[usize]) {
        let seats: BTreeSet<_> = side.iter().map(|i| self.nodes[*i].dir.as_ref().and_then(|dir| dir.obeys())).collect();
        assert!(seats.len() == 1 && !seats.contains(&None), "L4: {side:?} obey {seats:?} at {}", self.now);
        let seat = seats.first().copied().flatten().expect("it is one");
        let seat = &self.nodes[seat.0 as usize - 1];
        let dir = seat.dir.as_ref().expect("it is obeyed");
        let seated = dir.seated().expect("it is obeyed");
        assert!(seated.open);
        self.seen.acting += u64::from(seated.acting);
        let clients: BTreeSet<Client> = self.births.iter().map(|(client, _)| client.clone()).collect();
        for client in clients {
            let lines = side
                .iter()
                .flat_map(|i| self.nodes[*i].lines.iter().map(|(conn, line)| (self.nodes[*i].id, *conn, line)));
            let lines: Vec<_> = lines.filter(|(.., line)| line.client == client).collect();
            let served: Vec<_> = lines.iter().filter(|(.., line)| line.served.is_some()).collect();
            assert!(served.len() <= 1, "L4: {client} has {served:?}");
            let homes = side.iter().filter(|i| self.nodes[**i].kept.contains_key(&client)).map(|i| self.nodes[*i].id);
            let homes: Vec<NodeId> = homes.collect();
            assert!(homes.len() <= 1, "Q3: {client} has sessions at {homes:?}");
            let Place { holder, home } = dir.place(&client).expect("it is the seat");
            assert_eq!(holder, served.first().map(|(node, conn, _)| (*node, *conn)), "Q2: {client}");
            assert_eq!(home, homes.first().copied(), "Q3: {client}");
            if let Some((_, _, line)) = served.first() {
                let (epoch, home) = line.served.expect("it is served");
                let kept = self.nodes[home.0 as usize - 1].kept.get(&client);
                assert_eq!(kept.map(|kept| kept.epoch), Some(epoch), "{client} speaks with its session");
            }
        }
        if side.len() == self.nodes.len() {
            let left: Vec<_> = self.nodes.iter().flat_map(|node| &node.records).collect();
            assert!(left.is_empty(), "Q3: {left:?}");
        }
    }

    /// A client connects, and has its session soon.
    pub(super) fn check_connects(&mut self, i: usize, client: &str) {
        let from = self.now;
        let conn = self.connect(i, client, false, true).expect("it is alive");
        while self.nodes[i].lines.get(&conn).is_some_and(|line| line.served.is_none()) {
            assert!(self.now < from + 3 * SECOND, "L5: {client} waits at {i}");
            self.run_until(self.now + 10 * MS);
        }
        assert!(self.nodes[i].lines.contains_key(&conn), "L5: {client} was refused at {i}");
        self.seen.slowest_ms = self.seen.slowest_ms.max((self.now - from) / MS);
    }

    pub(super) fn finish(mut self) -> Seen {
        for node in &self.nodes {
            node.dir.iter().for_each(|dir| note(&mut self.seen, dir));
        }
        self.seen
    }
}

fn note(seen: &mut Seen, dir: &Directory) {
    seen.conflicts += dir.counts().conflicts;
}
