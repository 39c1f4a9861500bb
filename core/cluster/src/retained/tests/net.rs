//! The network, the disks, the shards that listen, and the checks.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use newtmq_base::{Incarnation, Instant, NodeId, RequestId, Rng};

use super::super::entry::Entry;
use super::super::{
    Config, Estate, Identity, Input, Output, PendingChange, Persist, Refusal, Retained, Stored, Written,
};
use crate::meta::ClusterId;

pub(super) struct Node {
    pub(super) retained: Option<Retained>,
    pub(super) id: NodeId,
    inc: Incarnation,
    /// It votes, and has no clients.
    pub(super) witness: bool,
    // What is durable, record by record, and where the last one is that began.
    records: Vec<Vec<u8>>,
    begins: usize,
    unsynced: VecDeque<Record>,
    // What shards have been told.
    mirror: BTreeMap<Box<str>, (u64, Option<Bytes>)>,
    // Kept without a leader: the message, and up to which entry the topic was known.
    kept: BTreeMap<Box<str>, (Option<Bytes>, u64)>,
    // Highest index of what was answered, by topic.
    answered: BTreeMap<Box<str>, u64>,
    members: (u64, BTreeSet<NodeId>, BTreeSet<NodeId>),
}

// On its way to the disk: durable at that time.
struct Record {
    at: Instant,
    number: u64,
    sync: bool,
    begins: bool,
    ends: bool,
    bytes: Vec<u8>,
}

struct Op {
    node: usize,
    topic: Box<str>,
    message: Option<Bytes>,
    // The highest index that was answered to anybody for this topic when it was asked for.
    after: u64,
}

struct Read {
    node: usize,
    topic: Box<str>,
    least: u64,
}

pub(super) struct Net {
    pub(super) now: Instant,
    pub(super) config: Config,
    pub(super) nodes: Vec<Node>,
    pub(super) side: Vec<u32>,
    pub(super) bulk_is_lost: bool,
    pub(super) loss_ppm: u64,
    pub(super) twice_ppm: u64,
    pub(super) delay_ms: u64,
    pub(super) sync_ms: u64,
    pub(super) answers: BTreeMap<u64, Result<Written, Refusal>>,
    pub(super) reached: BTreeMap<u64, bool>,
    pub(super) largest_bulk: usize,
    pub(super) played: u64,
    pub(super) dropped: u64,
    pub(super) checked_reads: u64,
    /// Whether members are told to everybody at once, or to whom it is told by hand.
    pub(super) members: (u64, BTreeSet<NodeId>, BTreeSet<NodeId>),
    ops: BTreeMap<u64, Op>,
    reads: BTreeMap<u64, Read>,
    answered: BTreeMap<Box<str>, u64>,
    log: BTreeMap<(Box<str>, u64), Option<Bytes>>,
    indexes: BTreeMap<Bytes, u64>,
    // Entries that some node had in its log and that are held against nothing: index, who asked, topic.
    free: BTreeSet<(u64, NodeId, Box<str>)>,
    flying: BTreeMap<(Instant, u64), (usize, NodeId, Vec<u8>)>,
    sent: u64,
    pub(super) rng: Rng,
    next_request: u64,
    next_id: u64,
    leaders: BTreeMap<u64, NodeId>,
    digests: BTreeMap<u64, (u64, Vec<u8>)>,
    pub(super) trace: u64,
}

const CLUSTER: ClusterId = ClusterId(7);

impl Net {
    /// Nodes of one cluster; the first one has founded it.
    pub(super) fn new(count: usize, seed: u64, config: Config) -> Net {
        let mut net = Net {
            now: Instant::START,
            config,
            nodes: Vec::new(),
            side: vec![0; count],
            bulk_is_lost: false,
            loss_ppm: 0,
            twice_ppm: 0,
            delay_ms: 10,
            sync_ms: 4,
            answers: BTreeMap::new(),
            reached: BTreeMap::new(),
            largest_bulk: 0,
            played: 0,
            dropped: 0,
            checked_reads: 0,
            members: (0, BTreeSet::new(), BTreeSet::new()),
            ops: BTreeMap::new(),
            reads: BTreeMap::new(),
            answered: BTreeMap::new(),
            log: BTreeMap::new(),
            indexes: BTreeMap::new(),
            free: BTreeSet::new(),
            flying: BTreeMap::new(),
            sent: 0,
            rng: Rng::from_number(seed),
            next_request: 0,
            next_id: 0,
            leaders: BTreeMap::new(),
            digests: BTreeMap::new(),
            trace: 0,
        };
        for _ in 0..count {
            let node = net.blank();
            net.nodes.push(node);
        }
        let ids: BTreeSet<NodeId> = net.nodes.iter().map(|node| node.id).collect();
        net.members = (1, ids.clone(), ids);
        for index in 0..count {
            net.start(index);
        }
        net.input(0, Input::Found { index: 1, estate: Estate::default() });
        net.until("all vote", 20, Net::is_whole);
        net
    }

    fn blank(&mut self) -> Node {
        self.next_id += 1;
        Node {
            retained: None,
            id: NodeId(self.next_id),
            inc: Incarnation(0),
            witness: false,
            records: Vec::new(),
            begins: 0,
            unsynced: VecDeque::new(),
            mirror: BTreeMap::new(),
            kept: BTreeMap::new(),
            answered: BTreeMap::new(),
            members: (0, BTreeSet::new(), BTreeSet::new()),
        }
    }

    pub(super) fn start(&mut self, index: usize) {
        let mut seed = [0; 32];
        self.rng.fill(&mut seed);
        let node = &mut self.nodes[index];
        node.inc.0 += 1;
        let stored = self.stored(index);
        let node = &mut self.nodes[index];
        let me = Identity { node: node.id, inc: node.inc, cluster: CLUSTER, witness: node.witness };
        let retained = Retained::new(self.config.clone(), me, stored, Rng::from_seed(seed), self.now);
        let retained = retained.expect("what was synced can be started with");
        let messages = retained.messages(None);
        node.mirror = messages.map(|(topic, index, message)| (topic.into(), (index, Some(message.clone())))).collect();
        node.retained = Some(retained);
        self.tell(index);
    }

    /// What is durable.
    pub(super) fn stored(&self, index: usize) -> Stored {
        let mut stored = Stored::default();
        for record in &self.nodes[index].records {
            stored.apply(Persist::decode(record).expect("what was written can be read"));
        }
        stored
    }

    pub(super) fn disk_bytes(&self, index: usize) -> usize {
        self.nodes[index].records.iter().map(Vec::len).sum()
    }

    /// The node hears what the meta group has decided last.
    pub(super) fn tell(&mut self, index: usize) {
        self.nodes[index].members = self.members.clone();
        self.tell_again(index);
    }

    /// The node hears what it has heard before.
    pub(super) fn tell_again(&mut self, index: usize) {
        let (at, members, voters) = self.nodes[index].members.clone();
        self.input(index, Input::Members { index: at, members, voters });
    }

    /// Some of what was not synced is on the disk all the same.
    pub(super) fn crash(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.retained = None;
        node.kept.clear();
        let kept = self.rng.below(node.unsynced.len() as u64 + 1) as usize;
        let unsynced: Vec<_> = node.unsynced.drain(..).take(kept).collect();
        for record in unsynced {
            node.write(record);
        }
    }

    /// Another machine comes for one that is gone for good.
    pub(super) fn replace(&mut self, index: usize) {
        self.crash(index);
        let before = core::mem::replace(&mut self.nodes[index].id, NodeId(0));
        let blank = self.blank();
        let id = blank.id;
        self.nodes[index] = blank;
        for of in [&mut self.members.1, &mut self.members.2] {
            of.remove(&before);
            of.insert(id);
        }
        self.members.0 += 1;
        self.start(index);
        (0..self.nodes.len()).for_each(|other| self.tell(other));
    }

    pub(super) fn set_voters(&mut self, voters: &[usize]) {
        self.members.0 += 1;
        self.members.2 = voters.iter().map(|voter| self.nodes[*voter].id).collect();
    }

    pub(super) fn input(&mut self, index: usize, input: Input<'_>) {
        let Some(retained) = &mut self.nodes[index].retained else { return };
        let mut out = Vec::new();
        retained.handle(self.now, input, &mut out);
        self.take(index, out);
        self.check(index);
    }

    fn take(&mut self, index: usize, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Send { to, bytes, bulk } => self.post(index, to, bytes, bulk),
                Output::Persist(persist) => {
                    for entry in &persist.entries {
                        if let Ok(Entry::Write(write)) = Entry::decode(&entry.data)
                            && write.seen.is_none()
                        {
                            self.free.insert((entry.index, write.origin.node, write.topic));
                        }
                    }
                    let mut bytes = Vec::new();
                    persist.encode(&mut bytes);
                    let read = Persist::decode(&bytes).expect("what is written can be read");
                    assert_eq!(Persist { number: persist.number, sync: persist.sync, ..read }, persist);
                    let at = self.now + Duration::from_millis(1 + self.rng.below(self.sync_ms));
                    let at = self.nodes[index].unsynced.back().map_or(at, |before| at.max(before.at));
                    let (begins, ends) = (persist.begins(), persist.ends());
                    let record = Record { at, number: persist.number, sync: persist.sync, begins, ends, bytes };
                    self.nodes[index].unsynced.push_back(record);
                }
                Output::Apply { index: at, topic, message } => self.applied(index, at, topic, message),
                Output::Answer { request, outcome } => self.answered(index, request.0, outcome),
                Output::Pending { topic, change } => self.pending(index, topic, change),
                Output::Reached { request, reached } => self.reached(index, request.0, reached),
                Output::Stopped(stopped) => panic!("{stopped}"),
                Output::Leader { .. } => {}
            }
        }
    }

    fn post(&mut self, index: usize, to: NodeId, bytes: Vec<u8>, bulk: bool) {
        if bulk {
            self.largest_bulk = self.largest_bulk.max(bytes.len());
        }
        let sum: u64 = bytes.iter().map(|byte| u64::from(*byte)).sum();
        self.trace = self.trace.wrapping_mul(31).wrapping_add(sum);
        if self.rng.below(1_000_000) < self.loss_ppm || bulk && self.bulk_is_lost {
            return;
        }
        let copies = 1 + u64::from(self.rng.below(1_000_000) < self.twice_ppm);
        for _ in 0..copies {
            // Some come very late.
            let late = if self.twice_ppm > 0 && self.rng.below(20) == 0 { 20 } else { 1 };
            let at = self.now + Duration::from_millis(1 + self.rng.below(self.delay_ms) * late);
            self.sent += 1;
            self.flying.insert((at, self.sent), (index, to, bytes.clone()));
        }
    }

    // A topic's index rises, an index says the same everywhere, and a write is there once.
    fn applied(&mut self, index: usize, at: u64, topic: Box<str>, message: Option<Bytes>) {
        let before = self.nodes[index].mirror.get(&topic).map_or(0, |(before, _)| *before);
        assert!(at > before, "{topic} goes from {before} to {at}");
        let known = self.log.entry((topic.clone(), at)).or_insert_with(|| message.clone());
        assert_eq!(*known, message, "{topic} is another one at {at}");
        if let Some(message) = &message {
            let first = *self.indexes.entry(message.clone()).or_insert(at);
            assert_eq!(first, at, "{message:?} is there twice");
        }
        self.nodes[index].mirror.insert(topic, (at, message));
    }

    fn answered(&mut self, index: usize, request: u64, outcome: Result<Written, Refusal>) {
        assert_eq!(self.answers.insert(request, outcome), None, "answered once");
        let op = &self.ops[&request];
        assert_eq!(op.node, index);
        if let Ok(Written::Committed { index: at }) = outcome {
            assert!(at > op.after, "{request} is before what was there when it was asked for");
            if let Some(written) = self.log.get(&(op.topic.clone(), at)) {
                assert_eq!(*written, op.message, "{request} is something else");
            }
            let has = self.nodes[index].mirror.get(&op.topic).is_some_and(|(has, _)| *has >= at);
            let is_gone = self.retained(index).group.state.horizon >= at;
            assert!(has || is_gone, "{request} is not where it was answered");
            for answered in [&mut self.answered, &mut self.nodes[index].answered] {
                let last = answered.entry(op.topic.clone()).or_default();
                *last = at.max(*last);
            }
        }
    }

    // Played only onto what it was held against, dropped only for another one.
    fn pending(&mut self, index: usize, topic: Box<str>, change: PendingChange) {
        match change {
            PendingChange::Kept(message) => {
                let has = self.retained(index).group.state.topics.get(&topic).map_or(0, |item| item.index);
                let seen = self.nodes[index].kept.get(&topic).map(|(_, seen)| *seen);
                let seen = seen.unwrap_or(self.retained(index).applied().max(has));
                self.nodes[index].kept.insert(topic, (message, seen));
            }
            PendingChange::Played => {
                let (message, seen) = self.nodes[index].kept.remove(&topic).expect("it was kept");
                self.played += 1;
                let between = self.log.range((topic.clone(), seen + 1)..(topic.clone(), u64::MAX));
                let first = between.map(|(_, written)| written).next();
                // A deletion of what is not there cannot be told from one that is forgotten.
                let is_gone = message.is_none() && self.retained(index).group.state.topics.get(&topic).is_none();
                let is_free = is_gone || self.is_free(index, &topic, seen, &message);
                assert!(is_free || first == Some(&message), "{topic} was played onto something else");
            }
            PendingChange::Dropped => {
                let (message, seen) = self.nodes[index].kept.remove(&topic).expect("it was kept");
                self.dropped += 1;
                let between = self.log.range((topic.clone(), seen + 1)..(topic.clone(), u64::MAX));
                let others = between.filter(|(_, written)| **written != message || message.is_none()).count();
                // Or what was deleted since then is forgotten, and nobody knows; or it was there, and was changed since.
                let is_unknown = self.retained(index).group.state.horizon > seen;
                assert!(
                    others > 0 || is_unknown || self.is_free(index, &topic, 0, &message),
                    "{topic} was dropped for nothing"
                );
            }
        }
    }

    // What was sent before it was kept may have got there, and have come back in a chunk before that.
    fn is_free(&self, index: usize, topic: &str, least: u64, message: &Option<Bytes>) -> bool {
        let id = self.nodes[index].id;
        self.free.iter().any(|(at, node, of)| {
            let is_it = *at >= least && *node == id && **of == *topic;
            is_it && self.log.get(&(topic.into(), *at)) == Some(message)
        })
    }

    fn reached(&mut self, index: usize, request: u64, reached: bool) {
        self.reached.insert(request, reached);
        let Some(read) = self.reads.remove(&request).filter(|_| reached) else { return };
        assert_eq!(read.node, index);
        self.checked_reads += 1;
        let state = &self.retained(index).group.state;
        let has = state.topics.get(&read.topic).map_or(state.horizon, |item| item.index);
        assert!(has >= read.least, "{} is read as of {has}, and {} was answered", read.topic, read.least);
    }

    fn check(&mut self, index: usize) {
        let Some(retained) = &self.nodes[index].retained else { return };
        let view = retained.view();
        if view.is_leader {
            let leader = *self.leaders.entry(view.term).or_insert(self.nodes[index].id);
            assert_eq!(leader, self.nodes[index].id, "W1: two leaders in term {}", view.term);
        }
        assert!(view.applied <= view.commit);
        if view.is_exact && view.applied > 0 {
            let mut header = Vec::new();
            retained.group.state.encode_header(&mut header);
            let known = self.digests.entry(view.applied).or_insert_with(|| (view.digest, header.clone()));
            assert_eq!(known.0, view.digest, "W2: other topics at {}", view.applied);
            assert_eq!(known.1, header, "W2: another state at {}", view.applied);
        }
        assert!(view.pending <= self.config.pending_max && view.pending_bytes <= self.config.pending_bytes_max);
        assert_eq!(view.pending, self.nodes[index].kept.len());
        for (topic, (message, _)) in &self.nodes[index].kept {
            assert_eq!(retained.message(topic), message.as_ref(), "what is kept is read");
        }
    }

    /// What shards were told is what there is.
    pub(super) fn check_mirror(&self, index: usize) {
        let node = &self.nodes[index];
        let retained = self.retained(index);
        let told = node.mirror.iter().filter_map(|(topic, (at, message))| Some((&**topic, *at, message.as_ref()?)));
        assert!(told.eq(retained.messages(None)), "shards have something else");
    }

    pub(super) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let all = self.nodes.iter().filter_map(|node| node.retained.as_ref());
            let tick = all.filter_map(Retained::next_deadline).min().unwrap_or(Instant::NEVER);
            let packet = self.flying.first_key_value().map_or(Instant::NEVER, |((at, _), _)| *at);
            let sync = self.nodes.iter().filter_map(|node| Some(node.unsynced.front()?.at)).min();
            let sync = sync.unwrap_or(Instant::NEVER);
            let next = tick.min(packet).min(sync);
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            if sync <= self.now {
                self.sync();
            } else if packet <= self.now {
                let (_, (from, to, bytes)) = self.flying.pop_first().expect("it was looked at");
                let to = self.nodes.iter().position(|node| node.id == to);
                if let Some(to) = to.filter(|to| self.side[from] == self.side[*to]) {
                    let from = self.nodes[from].id;
                    self.input(to, Input::Message { from, bytes: &bytes });
                }
            } else {
                for index in 0..self.nodes.len() {
                    let next = self.nodes[index].retained.as_ref().and_then(Retained::next_deadline);
                    if next.is_some_and(|at| at <= self.now) {
                        self.input(index, Input::Tick);
                    }
                }
            }
        }
    }

    fn sync(&mut self) {
        for index in 0..self.nodes.len() {
            let node = &mut self.nodes[index];
            let mut number = 0;
            while let Some(record) = node.unsynced.pop_front_if(|record| record.at <= self.now) {
                number = if record.sync { record.number } else { number };
                node.write(record);
            }
            if number > 0 {
                self.input(index, Input::Persisted { number });
            }
        }
    }

    pub(super) fn until(&mut self, what: &str, seconds: u64, done: impl Fn(&Net) -> bool) -> Duration {
        let start = self.now;
        while !done(self) {
            if self.now - start >= Duration::from_secs(seconds) {
                for node in self.nodes.iter().filter_map(|node| node.retained.as_ref()) {
                    println!("{node:?} {:?} {:?}", node.voters().collect::<Vec<_>>(), node.counters());
                }
                panic!("not within {seconds} s: {what}");
            }
            self.run(Duration::from_millis(50));
        }
        self.now - start
    }

    pub(super) fn seconds(&mut self, seconds: u64) {
        self.run(Duration::from_secs(seconds));
    }

    pub(super) fn leader(&self) -> Option<usize> {
        let leads = |index: &usize| {
            let view = self.nodes[*index].retained.as_ref().map(Retained::view);
            view.filter(|view| view.is_leader).map(|view| view.term)
        };
        (0..self.nodes.len()).filter(|index| leads(index).is_some()).max_by_key(leads)
    }

    pub(super) fn retained(&self, index: usize) -> &Retained {
        self.nodes[index].retained.as_ref().expect("it runs")
    }

    /// All running nodes have applied the same, know it, wait for nothing, and those vote that should.
    pub(super) fn is_whole(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let led = self.retained(leader).view();
        let voters: BTreeSet<NodeId> = self.retained(leader).voters().collect();
        // A leader that has only begun may not know what is committed. Who decided before decides as long as both do.
        voters == self.members.2
            && self.retained(leader).group.engine.knows_all(led.applied)
            && self.retained(leader).group.engine.log().conf().voters_outgoing.is_empty()
            && self.nodes.iter().filter_map(|node| node.retained.as_ref()).all(|retained| {
                let view = retained.view();
                view.is_exact
                    && view.applied == led.commit
                    && view.commit == led.commit
                    && view.digest == led.digest
                    && view.leader == led.leader
                    && !view.is_fetching
                    && retained.is_idle()
            })
    }

    /// Asks a node to write something that nobody else writes, or to delete; the answer comes later.
    pub(super) fn write(&mut self, index: usize, topic: &str, is_message: bool, keep: bool) -> u64 {
        self.next_request += 1;
        let request = self.next_request;
        let message = is_message.then(|| Bytes::from(format!("{topic}={request}")));
        let topic: Box<str> = topic.into();
        let after = self.answered.get(&topic).copied().unwrap_or(0);
        self.ops.insert(request, Op { node: index, topic: topic.clone(), message: message.clone(), after });
        self.input(index, Input::Write { request: RequestId(request), topic, message, keep, seen: None });
        request
    }

    pub(super) fn answer(&mut self, request: u64, seconds: u64) -> Result<Written, Refusal> {
        self.until("an answer", seconds, |net| net.answers.contains_key(&request));
        self.answers.remove(&request).expect("it was there")
    }

    /// Writes and waits: the index.
    pub(super) fn wrote(&mut self, index: usize, topic: &str, is_message: bool) -> u64 {
        let request = self.write(index, topic, is_message, false);
        match self.answer(request, 10) {
            Ok(Written::Committed { index }) => index,
            other => panic!("{other:?}"),
        }
    }

    /// Reads as a subscriber does that has heard from every running node's barrier.
    pub(super) fn read(&mut self, index: usize, topic: &str) -> u64 {
        self.next_request += 1;
        let request = self.next_request;
        let there: Vec<&Node> = self.nodes.iter().filter(|node| node.retained.is_some()).collect();
        let barrier = there.iter().filter_map(|node| Some(node.retained.as_ref()?.barrier())).max().unwrap_or(0);
        let least = there.iter().filter_map(|node| node.answered.get(topic).copied()).max().unwrap_or(0);
        self.reads.insert(request, Read { node: index, topic: topic.into(), least });
        self.input(index, Input::WaitFor { request: RequestId(request), index: barrier });
        request
    }

    pub(super) fn next_wait(&mut self, node: usize, index: u64) {
        self.next_request += 1;
        self.input(node, Input::WaitFor { request: RequestId(self.next_request), index });
    }

    pub(super) fn heal(&mut self) {
        self.side = vec![0; self.side.len()];
        (self.loss_ppm, self.twice_ppm, self.delay_ms, self.sync_ms) = (0, 0, 10, 4);
        for index in 0..self.nodes.len() {
            if self.nodes[index].retained.is_none() {
                self.start(index);
            } else {
                self.tell(index);
            }
        }
    }

    /// At rest: everywhere the same, and nothing that was answered is lost.
    pub(super) fn check_rest(&mut self, seconds: u64) {
        self.until("all have the same", seconds, Net::is_whole);
        for index in 0..self.nodes.len() {
            self.check_mirror(index);
            let state = &self.retained(index).group.state;
            for (topic, at) in &self.answered {
                let has = state.topics.get(topic).map_or(state.horizon, |item| item.index);
                assert!(has >= *at, "{topic} was answered at {at} and is of {has}");
            }
            for (topic, at, message) in self.retained(index).messages(None) {
                assert_eq!(self.log.get(&(topic.into(), at)), Some(&Some(message.clone())), "{topic}");
            }
        }
    }
}

impl Node {
    fn write(&mut self, record: Record) {
        if record.begins {
            self.begins = self.records.len();
        }
        self.records.push(record.bytes);
        if record.ends {
            self.records.drain(..self.begins);
            self.begins = 0;
        }
    }
}

/// With limits at which everything happens.
pub(super) fn small() -> Config {
    Config {
        log_entries: 20,
        keep_entries: 4,
        chunk_bytes: 60,
        chunk_scan: 5,
        chunks_at_once: 2,
        sweep_bytes: 600,
        sweep_chunks: 1,
        play_at_once: 3,
        ..Config::default()
    }
}
