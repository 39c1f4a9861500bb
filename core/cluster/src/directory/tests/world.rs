//! Nodes with clients and sessions over a network that loses, copies, delays, reorders and parts, a leader of the meta group
//! as it would be elected there, and what must hold at every step.

mod around;
mod checks;

use std::collections::{BTreeMap, BTreeSet};

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
    /// The grant whose session is on its way here.
    moving: Option<(Epoch, bool)>,
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
    Attach {
        client: Client,
        epoch: Epoch,
        clean: bool,
        durable: bool,
    },
    Lose {
        client: Client,
        epoch: Epoch,
    },
    Take {
        client: Client,
        conn: Conn,
        epoch: Epoch,
        clean: Epoch,
    },
    /// A session has been on its way for too long.
    GiveUp {
        conn: Conn,
    },
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
    pub(super) moved: u64,
}

pub(super) struct World {
    pub(super) now: u64,
    pub(super) rng: Rng,
    pub(super) nodes: Vec<Node>,
    events: BTreeMap<(u64, u64), Event>,
    count: u64,
    pub(super) cuts: BTreeSet<(usize, usize)>,
    pub(super) noise: Noise,
    /// Sessions go where their connections are.
    pub(super) migrates: bool,
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
            migrates: false,
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
            // Who was heard of in a later term leads here, too, or will.
            Output::Raise { .. } => {}
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
            Output::Moved { client, epoch } => self.on_moved(i, &client, epoch),
            Output::Lost { client, epoch, .. } => {
                self.seen.lost += 1;
                self.todo(i, Todo::Lose { client, epoch });
            }
            Output::Supersedes { client, epoch, home, put: true } => {
                self.seen.forks += 1;
                // It takes the place of an earlier one.
                self.nodes[i].records.retain(|(of, at, _)| (of, *at) != (&client, home));
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
            Event::Shard { input: Todo::GiveUp { .. }, .. } => None,
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
        if self.migrates && *home != id {
            if !first {
                // Its session was lost to another one.
                self.close(i, *conn);
                return;
            }
            line.moving = Some((*epoch, *present));
            let from = self.nodes[home.0 as usize - 1].kept.get(client);
            let clean = from.map_or(Epoch::ZERO, |kept| kept.clean);
            self.todo(i, Todo::Take { client: client.clone(), conn: *conn, epoch: *epoch, clean });
            let (node, inc, input) = (i, inc, Todo::GiveUp { conn: *conn });
            self.later(14 * SECOND, Event::Shard { node, inc, input });
            return;
        }
        if let Some((old, _)) = line.served {
            assert!(*epoch > old, "W3");
            self.seen.raised += 1;
        }
        (line.served, line.present, line.moving) = (Some((*epoch, *home)), *present, None);
        if !first && !present {
            // Its session is gone.
            self.close(i, *conn);
            return;
        }
        if first {
            self.begin_service(i, client, *conn, *home);
        }
    }

    /// A session that was on its way is there.
    fn on_moved(&mut self, i: usize, client: &Client, epoch: Epoch) {
        let id = self.nodes[i].id;
        let lines = self.nodes[i].lines.iter_mut();
        let waits =
            |line: &Line| line.client == *client && line.moving.is_some_and(|(of, _)| of == epoch) && !line.fenced;
        let Some((conn, line)) = lines.into_iter().find(|(_, line)| waits(line)) else { return };
        let (conn, (_, present)) = (*conn, line.moving.take().expect("it was seen"));
        (line.served, line.present) = (Some((epoch, id)), present);
        self.seen.moved += 1;
        self.begin_service(i, client, conn, id);
    }

    fn begin_service(&mut self, i: usize, client: &Client, conn: Conn, home: NodeId) {
        let now = self.now;
        let line = self.nodes[i].lines.get_mut(&conn).expect("it is served");
        line.served_at = now;
        let (born, clean, present) = (line.born, line.clean, line.present);
        self.seen.granted += 1;
        self.seen.present += u64::from(present);
        assert!(!clean || !present, "S7");
        self.check_alone(i, client, conn, born);
        if !present && !clean {
            self.check_none_elsewhere(i, client, home, born);
        }
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
            moving: None,
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
            Todo::GiveUp { conn } => {
                if self.nodes[i].lines.get(&conn).is_some_and(|line| line.moving.is_some()) {
                    self.seen.unavailable += 1;
                    self.close(i, conn);
                }
            }
            Todo::Take { client, conn, epoch, clean } => {
                let waits = |line: &Line| line.moving.is_some_and(|(of, _)| of == epoch) && !line.fenced;
                if self.nodes[i].lines.get(&conn).is_some_and(waits) {
                    let durable = self.rng.below(2) > 0;
                    let kept = Kept { epoch, clean, durable, attached: true, began: self.now };
                    self.nodes[i].kept.insert(client.clone(), kept);
                    self.give(i, Input::Moved { client, conn, epoch, clean, durable });
                }
            }
            Todo::Lose { client, epoch } => {
                if self.nodes[i].kept.get(&client).is_some_and(|kept| kept.epoch <= epoch) {
                    self.expire(i, &client);
                }
            }
        }
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
