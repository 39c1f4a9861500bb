//! Nodes that have nothing but links, on a network of pipes. A pipe keeps bytes in order, as TCP does; a cut holds them
//! back in one direction; a connection can break with what is on its way. Every delivered frame is judged at once.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use newtmq_base::{Incarnation, Instant, NodeId, Put, Rng, Take};

use crate::link::{
    Address, Config, ConnectionId, Cookie, DownCause, Event, Fill, Input, Links, Output, Own, Path, Stream, Unsent,
};

pub(super) struct Net {
    pub(super) now: Instant,
    pub(super) nodes: Vec<Node>,
    pipes: Vec<Pipe>,
    events: BTreeMap<(Instant, u64), Happening>,
    seq: u64,
    rng: Rng,
    /// From, to.
    cut: BTreeSet<(usize, usize)>,
    /// Until when a node does nothing.
    paused: BTreeMap<usize, Instant>,
    pub(super) delay: Duration,
    /// Bytes a second in each direction of each connection; 0 for no limit.
    pub(super) rate: u64,
    pub(super) config: Config,
}

pub(super) struct Node {
    pub(super) links: Links,
    pub(super) incarnation: u64,
    pub(super) log: Vec<(Instant, Event)>,
    pub(super) up: BTreeSet<usize>,
    conns: BTreeMap<ConnectionId, usize>,
    next_conn: u64,
    tick_at: Instant,
    /// The next number to give, per peer and stream.
    pub(super) given: BTreeMap<(usize, Stream), u64>,
    /// The number from which a peer's present life gets control frames.
    base: BTreeMap<usize, u64>,
    /// How often data and bulk may have lost something, per peer.
    broken: BTreeMap<usize, u64>,
    /// Per sender, its life and stream: the next number, and how many were skipped.
    pub(super) got: BTreeMap<(usize, u64, Stream), (u64, u64)>,
    pub(super) got_bytes: BTreeMap<(usize, Stream), u64>,
}

impl Node {
    /// Connections that were ever open.
    pub(super) fn opened(&self) -> u64 {
        self.next_conn
    }
}

#[derive(Debug)]
struct Pipe {
    /// The dialer's end, then the acceptor's.
    ends: [Option<(usize, ConnectionId)>; 2],
    /// To each end: what is on its way.
    way: [VecDeque<(Instant, Vec<u8>)>; 2],
    way_bytes: [usize; 2],
    busy_until: [Instant; 2],
    /// Nothing goes through any more, and who sends something is told.
    broken: bool,
    /// The end has more than the pipe takes.
    waits: [bool; 2],
}

#[derive(Debug)]
enum Happening {
    Dialed { from: usize, dial: crate::link::DialId, to: usize },
    DialFailed { from: usize, incarnation: u64, dial: crate::link::DialId },
    Deliver { pipe: usize, end: usize },
    Closed { pipe: usize, end: usize },
    Tick(usize),
}

impl Net {
    pub(super) fn new(count: usize, seed: u64, config: Config) -> Net {
        let mut net = Net {
            now: Instant::from_millis(1000),
            nodes: Vec::new(),
            pipes: Vec::new(),
            events: BTreeMap::new(),
            seq: 0,
            rng: Rng::from_number(seed),
            cut: BTreeSet::new(),
            paused: BTreeMap::new(),
            delay: Duration::from_millis(1),
            rate: 0,
            config,
        };
        for index in 0..count {
            let node = net.fresh(index, count, 1);
            net.nodes.push(node);
        }
        net
    }

    fn fresh(&mut self, index: usize, count: usize, incarnation: u64) -> Node {
        let own = Own {
            cluster: "test".to_owned(),
            node: id(index),
            incarnation: Incarnation(incarnation),
            name: format!("newtmq@{index}"),
            proto_min: 1,
            proto_max: 1,
            features: 0,
            shards: 1,
        };
        let rng = Rng::from_number(self.rng.next_u64());
        let mut links = Links::new(self.config.clone(), own, Cookie::new("secret").unwrap(), rng);
        let mut out = Vec::new();
        for peer in (0..count).filter(|peer| *peer != index) {
            links.add_address(self.now, Address(peer.to_string()));
            links.know(self.now, id(peer), Incarnation(0), &mut out);
        }
        assert!(out.is_empty());
        let tick_at = links.next_deadline().unwrap_or(Instant::NEVER);
        self.at(tick_at, Happening::Tick(index));
        Node {
            links,
            incarnation,
            log: Vec::new(),
            up: BTreeSet::new(),
            conns: BTreeMap::new(),
            next_conn: 0,
            tick_at,
            given: BTreeMap::new(),
            base: BTreeMap::new(),
            broken: BTreeMap::new(),
            got: BTreeMap::new(),
            got_bytes: BTreeMap::new(),
        }
    }

    fn at(&mut self, at: Instant, what: Happening) {
        self.seq += 1;
        self.events.insert((at, self.seq), what);
    }

    pub(super) fn cut_one_way(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    pub(super) fn cut(&mut self, one: usize, other: usize) {
        self.cut.insert((one, other));
        self.cut.insert((other, one));
    }

    pub(super) fn heal_one_way(&mut self, from: usize, to: usize) {
        if !self.cut.remove(&(from, to)) {
            return;
        }
        // What the cut has held back goes on.
        for pipe in 0..self.pipes.len() {
            for end in 0..2 {
                if self.pipes[pipe].ends.map(|end| end.map(|(node, _)| node)) == ends_of(from, to, end) {
                    self.at(self.now + self.delay, Happening::Deliver { pipe, end });
                }
            }
        }
    }

    pub(super) fn heal(&mut self) {
        for (from, to) in self.cut.clone() {
            self.heal_one_way(from, to);
        }
    }

    /// Breaks the connections between two nodes with what is on its way. `told` says which side notices at once, the
    /// dialer and the acceptor; the other one does when it sends something.
    pub(super) fn reset(&mut self, one: usize, other: usize, told: [bool; 2]) {
        for pipe in 0..self.pipes.len() {
            let [Some((a, _)), Some((b, _))] = self.pipes[pipe].ends else { continue };
            if (a, b) != (one, other) && (b, a) != (one, other) {
                continue;
            }
            self.break_pipe(pipe);
            for end in (0..2).filter(|end| told[*end]) {
                self.at(self.now + self.delay, Happening::Closed { pipe, end });
            }
        }
    }

    /// The node starts anew. Its old connections break; the others notice when they send something.
    pub(super) fn restart(&mut self, index: usize) {
        for pipe in 0..self.pipes.len() {
            for end in 0..2 {
                if self.pipes[pipe].ends[end].is_some_and(|(node, _)| node == index) {
                    self.pipes[pipe].ends[end] = None;
                    self.break_pipe(pipe);
                    self.at(self.now + self.delay, Happening::Closed { pipe, end: 1 - end });
                }
            }
        }
        let incarnation = self.nodes[index].incarnation + 1;
        let count = self.nodes.len();
        self.nodes[index] = self.fresh(index, count, incarnation);
    }

    fn break_pipe(&mut self, pipe: usize) {
        let pipe = &mut self.pipes[pipe];
        (pipe.broken, pipe.way, pipe.way_bytes) = (true, Default::default(), [0; 2]);
    }

    /// The node forgets a peer, and learns of it again.
    pub(super) fn forget(&mut self, index: usize, peer: usize) {
        let mut out = Vec::new();
        let now = self.now;
        let node = &mut self.nodes[index];
        node.links.remove(now, id(peer), &mut out);
        node.links.know(now, id(peer), Incarnation(0), &mut out);
        // Both begin anew: so does what was counted.
        let next = node.given.get(&(peer, Stream::Control)).copied().unwrap_or(0);
        node.base.insert(peer, next);
        node.got.retain(|(from, _, _), _| *from != peer);
        *node.broken.entry(peer).or_default() += 1;
        self.act(index, out);
    }

    pub(super) fn send(&mut self, from: usize, to: usize, stream: Stream, len: usize) -> Result<(), Unsent> {
        let now = self.now;
        let node = &mut self.nodes[from];
        let number = node.given.get(&(to, stream)).copied().unwrap_or(0);
        let mut payload = Vec::new();
        Put(&mut payload).number(from as u64).number(node.incarnation).number(number);
        payload.resize(payload.len().max(len), 0xAA);
        let mut out = Vec::new();
        let result = node.links.send(now, id(to), stream, Bytes::from(payload), &mut out);
        if result.is_ok() {
            node.given.insert((to, stream), number + 1);
        }
        self.act(from, out);
        result
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut steps = 0;
        while let Some((&(at, seq), _)) = self.events.first_key_value() {
            if at > end {
                break;
            }
            steps += 1;
            assert!(steps < 2_000_000, "it goes on for ever at {at}");
            let what = self.events.remove(&(at, seq)).unwrap();
            self.now = self.now.max(at);
            match self.who(&what).and_then(|node| self.paused.get(&node)).copied() {
                Some(until) if until > self.now => self.at(until, what),
                Some(_) | None => self.happen(what),
            }
        }
        self.now = end;
    }

    /// The node does nothing for a while, as if stopped by a signal; what comes for it waits.
    pub(super) fn pause(&mut self, index: usize, time: Duration) {
        self.paused.insert(index, self.now + time);
    }

    fn who(&self, what: &Happening) -> Option<usize> {
        match what {
            Happening::Tick(node) | Happening::DialFailed { from: node, .. } | Happening::Dialed { to: node, .. } => {
                Some(*node)
            }
            Happening::Deliver { pipe, end } | Happening::Closed { pipe, end } => {
                self.pipes[*pipe].ends[*end].map(|(node, _)| node)
            }
        }
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Tick(index) => {
                if self.nodes[index].tick_at <= self.now {
                    self.nodes[index].tick_at = Instant::NEVER;
                    self.input(index, Input::Tick);
                }
            }
            Happening::DialFailed { from, incarnation, dial } => {
                if self.nodes[from].incarnation == incarnation {
                    self.input(from, Input::DialFailed(dial));
                }
            }
            Happening::Dialed { from, dial, to } => {
                let [one, other] = [from, to].map(|node| {
                    self.nodes[node].next_conn += 1;
                    ConnectionId(self.nodes[node].next_conn)
                });
                let pipe = self.pipes.len();
                self.pipes.push(Pipe {
                    ends: [Some((from, one)), Some((to, other))],
                    way: Default::default(),
                    way_bytes: [0; 2],
                    busy_until: [self.now; 2],
                    broken: false,
                    waits: [false; 2],
                });
                self.nodes[from].conns.insert(one, pipe);
                self.nodes[to].conns.insert(other, pipe);
                self.input(from, Input::Opened { conn: one, dial: Some(dial), tls: false });
                self.input(to, Input::Opened { conn: other, dial: None, tls: false });
            }
            Happening::Deliver { pipe, end } => self.deliver(pipe, end),
            Happening::Closed { pipe, end } => {
                if let Some((node, conn)) = self.pipes[pipe].ends[end].take() {
                    self.nodes[node].conns.remove(&conn);
                    self.input(node, Input::Closed(conn));
                }
            }
        }
    }

    fn deliver(&mut self, pipe: usize, end: usize) {
        let Some((node, conn)) = self.pipes[pipe].ends[end] else { return };
        let from = self.pipes[pipe].ends[1 - end].map(|(from, _)| from);
        if from.is_some_and(|from| self.cut.contains(&(from, node))) {
            return;
        }
        while let Some((at, bytes)) = self.pipes[pipe].way[end].pop_front() {
            if at > self.now {
                self.pipes[pipe].way[end].push_front((at, bytes));
                break;
            }
            self.pipes[pipe].way_bytes[end] -= bytes.len();
            // In pieces of any size.
            let split = self.rng.below(bytes.len() as u64 + 1) as usize;
            for piece in [&bytes[..split], &bytes[split..]] {
                if self.nodes[node].conns.contains_key(&conn) {
                    self.input(node, Input::Bytes { conn, data: piece });
                }
            }
        }
        if let Some((sender, conn)) = self.pipes[pipe].ends[1 - end]
            && core::mem::take(&mut self.pipes[pipe].waits[1 - end])
        {
            self.write(sender, conn);
        }
    }

    pub(super) fn input(&mut self, index: usize, input: Input<'_>) {
        let mut out = Vec::new();
        let now = self.now;
        self.nodes[index].links.handle(now, input, &mut out);
        self.act(index, out);
    }

    /// Does what links said outside of an input.
    pub(super) fn apply(&mut self, index: usize, out: Vec<Output>) {
        self.act(index, out);
    }

    fn act(&mut self, index: usize, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Dial { dial, address } => self.dial(index, dial, address.0.parse().unwrap()),
                Output::Ready(conn) => self.write(index, conn),
                Output::Close(conn, _) => {
                    self.write(index, conn);
                    let Some(pipe) = self.nodes[index].conns.remove(&conn) else { continue };
                    let end = usize::from(self.pipes[pipe].ends[1] == Some((index, conn)));
                    self.pipes[pipe].ends[end] = None;
                    let last = self.pipes[pipe].busy_until[1 - end].max(self.now);
                    self.at(last + self.delay * 2, Happening::Closed { pipe, end: 1 - end });
                    self.input(index, Input::Closed(conn));
                }
                Output::Frame { peer, stream, payload } => self.judge(index, peer, stream, &payload),
                Output::Event(event) => self.event(index, event),
            }
        }
        self.assert_limits(index);
        let at = self.nodes[index].links.next_deadline().unwrap_or(Instant::NEVER);
        if at != self.nodes[index].tick_at {
            self.nodes[index].tick_at = at;
            if at != Instant::NEVER {
                self.at(at, Happening::Tick(index));
            }
        }
    }

    /// No queue is longer than it may be.
    fn assert_limits(&self, index: usize) {
        let links = &self.nodes[index].links;
        let others = self.nodes.len();
        for view in links.peers() {
            assert!(view.control_waiting().1 <= self.config.control_limit);
            assert!(view.data_waiting().1 <= self.config.data_limit.max(LARGEST));
            assert!(view.bulk_waiting().1 <= self.config.bulk_limit.max(LARGEST));
            assert!(view.relay_flight() <= self.config.relay_window + LARGEST);
        }
        let (connections, relayed) = links.connections();
        assert!(connections <= 12 * others, "{connections} connections");
        let own = self.config.relay_window + self.config.control_limit.min(LARGEST) + LARGEST;
        assert!(relayed <= others * (self.config.relay_limit.max(LARGEST) + 4 * own), "{relayed} bytes for others");
    }

    fn dial(&mut self, from: usize, dial: crate::link::DialId, to: usize) {
        if self.cut.contains(&(from, to)) || self.cut.contains(&(to, from)) {
            let incarnation = self.nodes[from].incarnation;
            self.at(self.now + self.config.dial_timeout, Happening::DialFailed { from, incarnation, dial });
        } else {
            self.at(self.now + self.delay * 2, Happening::Dialed { from, dial, to });
        }
    }

    fn write(&mut self, index: usize, conn: ConnectionId) {
        let Some(&pipe) = self.nodes[index].conns.get(&conn) else { return };
        let end = usize::from(self.pipes[pipe].ends[1] == Some((index, conn)));
        loop {
            let room = PIPE_BYTES.saturating_sub(self.pipes[pipe].way_bytes[1 - end]);
            if room == 0 {
                self.pipes[pipe].waits[end] = true;
                return;
            }
            let mut bytes = Vec::new();
            let room = room.min(1 + self.rng.below(8192) as usize);
            let fill = self.nodes[index].links.fill(self.now, conn, &mut bytes, room);
            if !bytes.is_empty() {
                let time = (bytes.len() as u64 * 1_000_000_000).checked_div(self.rate).unwrap_or(0);
                let at = self.pipes[pipe].busy_until[1 - end].max(self.now) + Duration::from_nanos(time);
                self.pipes[pipe].busy_until[1 - end] = at;
                if !self.pipes[pipe].broken {
                    self.pipes[pipe].way_bytes[1 - end] += bytes.len();
                    self.pipes[pipe].way[1 - end].push_back((at + self.delay, bytes));
                    self.at(at + self.delay, Happening::Deliver { pipe, end: 1 - end });
                }
                if self.pipes[pipe].broken || self.pipes[pipe].ends[1 - end].is_none() {
                    self.at(at + self.delay * 2, Happening::Closed { pipe, end });
                }
            }
            if fill == Fill::Drained {
                return;
            }
        }
    }

    fn event(&mut self, index: usize, event: Event) {
        let node = &mut self.nodes[index];
        match &event {
            Event::Up { peer, .. } => assert!(node.up.insert(at(*peer)), "Up twice"),
            Event::Down { peer, .. } => {
                assert!(node.up.remove(&at(*peer)), "Down twice");
                *node.broken.entry(at(*peer)).or_default() += 1;
            }
            Event::Reset { peer, .. } => {
                let peer = at(*peer);
                assert!(!node.up.contains(&peer));
                let next = node.given.get(&(peer, Stream::Control)).copied().unwrap_or(0);
                node.base.insert(peer, next);
                node.got.retain(|(from, _, _), _| *from != peer);
                *node.broken.entry(peer).or_default() += 1;
            }
            Event::Broken { peer } => *node.broken.entry(at(*peer)).or_default() += 1,
            Event::Path { .. } | Event::Connected { .. } | Event::Refused { .. } => {}
        }
        node.log.push((self.now, event));
    }

    /// Every frame is the next one, of a peer that is Up; of data some may be missing if the sender knows.
    fn judge(&mut self, index: usize, peer: NodeId, stream: Stream, payload: &[u8]) {
        let mut take = Take(payload);
        let (from, life, number) = (take.number().unwrap() as usize, take.number().unwrap(), take.number().unwrap());
        assert_eq!(id(from), peer);
        let node = &mut self.nodes[index];
        assert!(node.up.contains(&from), "a frame of {from}, which is Down at {index}");
        *node.got_bytes.entry((from, stream)).or_default() += payload.len() as u64;
        let first = if stream == Stream::Control { None } else { Some((0, 0)) };
        let (next, skipped) = match node.got.get(&(from, life, stream)).copied().or(first) {
            Some(at) => at,
            // The first control frame of two lives: what the sender gave since it knows of the receiver's.
            None if self.nodes[from].incarnation == life => {
                (self.nodes[from].base.get(&index).copied().unwrap_or(0).min(number), 0)
            }
            // A paused node gets what an earlier life has sent.
            None => (number, 0),
        };
        assert!(number >= next, "{stream:?} {number} of {from} came to {index} after {next}");
        let lost = number - next;
        if lost > 0 {
            assert!(stream != Stream::Control, "control {next} of {from} is lost at {index}, {number} came");
            if self.nodes[from].incarnation == life {
                let broken = self.nodes[from].broken.get(&index).copied().unwrap_or(0);
                assert!(broken > 0, "{stream:?} {next} of {from} is lost at {index} without notice");
            }
        }
        self.nodes[index].got.insert((from, life, stream), (number + 1, skipped + lost));
    }

    /// All pairs are Up on one connection that both use, everything of control has come, and nothing waits.
    pub(super) fn assert_converged(&self) {
        for (index, node) in self.nodes.iter().enumerate() {
            let others = self.nodes.len() - 1;
            assert_eq!(node.up.len(), others, "{index} has not all peers Up: {:?}", node.up);
            assert_eq!(node.links.connections(), (others, 0), "connections and relayed bytes of {index}");
            assert_eq!(node.links.counters().malformed, 0);
            for view in node.links.peers() {
                let peer = at(view.node());
                let conn = view.connection().expect("a peer that is Up directly has a connection");
                assert_eq!(view.path(), Path::Direct(conn), "from {index} to {peer}");
                let pipe = node.conns[&conn];
                let theirs = self.nodes[peer].links.peer(id(index)).unwrap().connection().unwrap();
                assert_eq!(self.nodes[peer].conns[&theirs], pipe, "{index} and {peer} use different connections");
                assert_eq!(view.control_waiting(), (0, 0), "control of {index} to {peer}");
                assert_eq!((view.data_waiting().0, view.bulk_waiting().0), (0, 0));
                let given = node.given.get(&(peer, Stream::Control)).copied().unwrap_or(0);
                let base = node.base.get(&peer).copied().unwrap_or(0);
                let got = self.nodes[peer].got.get(&(index, node.incarnation, Stream::Control));
                assert_eq!(got.map_or(base, |got| got.0), given, "control of {index} at {peer}");
            }
        }
    }

    pub(super) fn downs(&self, index: usize) -> Vec<(Instant, usize, DownCause)> {
        let down = |(at_, event): &(Instant, Event)| match event {
            Event::Down { peer, cause, .. } => Some((*at_, at(*peer), *cause)),
            _ => None,
        };
        self.nodes[index].log.iter().filter_map(down).collect()
    }

    pub(super) fn path(&self, from: usize, to: usize) -> Path {
        self.nodes[from].links.peer(id(to)).unwrap().path()
    }

    pub(super) fn count(&self, index: usize, what: impl Fn(&Event) -> bool) -> usize {
        self.nodes[index].log.iter().filter(|(_, event)| what(event)).count()
    }
}

pub(super) fn id(index: usize) -> NodeId {
    NodeId(index as u64 + 1)
}

pub(super) fn at(node: NodeId) -> usize {
    node.0 as usize - 1
}

fn ends_of(from: usize, to: usize, end: usize) -> [Option<usize>; 2] {
    if end == 1 { [Some(from), Some(to)] } else { [Some(to), Some(from)] }
}

/// What one direction of a connection takes before its writer has to wait.
const PIPE_BYTES: usize = 64 << 10;

/// The largest frame that a test sends, with what it counts.
const LARGEST: usize = 20 << 10;
