//! Prints what a retained message costs three nodes in one thread, with all codecs, and what a million of them cost in memory
//! (Linux), on the way to another node and in a start.
//!
//! `cargo run --release -p newtmq-cluster --example retained`

// An example is a program of its own: the core's boundary does not hold for it.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::print_stdout)]

use core::time::Duration;
use std::collections::VecDeque;

use bytes::Bytes;
use newtmq_base::{Incarnation, Instant, NodeId, RequestId, Rng};
use newtmq_cluster::meta::ClusterId;
use newtmq_cluster::retained::{Config, Estate, Identity, Input, Output, Persist, Retained, Stored};

const WRITES: u64 = 200_000;
const TOPICS: u64 = 1_000_000;
const PAGE_BYTES: usize = 4_096;

struct Net {
    now: Instant,
    nodes: Vec<Retained>,
    // What is durable is what is encoded and decoded at once.
    disks: Vec<Option<Stored>>,
    flying: VecDeque<(usize, usize, Vec<u8>)>,
    wire_bytes: usize,
    disk_bytes: usize,
    syncs: usize,
    largest_bulk: usize,
    largest_record: usize,
    answers: u64,
}

impl Net {
    fn new() -> Net {
        Net {
            now: Instant::START,
            nodes: Vec::new(),
            disks: Vec::new(),
            flying: VecDeque::new(),
            wire_bytes: 0,
            disk_bytes: 0,
            syncs: 0,
            largest_bulk: 0,
            largest_record: 0,
            answers: 0,
        }
    }

    fn add(&mut self, keeps_disk: bool) {
        let node = NodeId(self.nodes.len() as u64 + 1);
        let me = Identity { node, inc: Incarnation(1), cluster: ClusterId(1), witness: false };
        let retained = Retained::new(Config::default(), me, Stored::default(), Rng::from_number(node.0), self.now);
        self.nodes.push(retained.expect("an empty disk"));
        self.disks.push(keeps_disk.then(Stored::default));
        let members: std::collections::BTreeSet<NodeId> = (1..=node.0).map(NodeId).collect();
        for index in 0..self.nodes.len() {
            let (members, voters) = (members.clone(), members.iter().copied().take(3).collect());
            self.input(index, Input::Members { index: node.0, members, voters });
        }
    }

    fn input(&mut self, index: usize, input: Input<'_>) {
        let mut out = Vec::new();
        self.nodes[index].handle(self.now, input, &mut out);
        let mut durable = 0;
        for output in out {
            match output {
                Output::Send { to, bytes, bulk } => {
                    self.wire_bytes += bytes.len();
                    if bulk {
                        self.largest_bulk = self.largest_bulk.max(bytes.len());
                    }
                    self.flying.push_back((index, to.0 as usize - 1, bytes));
                }
                Output::Persist(persist) => {
                    let mut bytes = Vec::new();
                    persist.encode(&mut bytes);
                    self.disk_bytes += bytes.len();
                    self.largest_record = self.largest_record.max(bytes.len());
                    self.syncs += usize::from(persist.sync);
                    durable = if persist.sync { persist.number } else { durable };
                    if let Some(disk) = &mut self.disks[index] {
                        disk.apply(Persist::decode(&bytes).expect("it was encoded"));
                    }
                }
                Output::Answer { outcome, .. } => {
                    outcome.expect("there is a leader");
                    self.answers += 1;
                }
                Output::Apply { .. }
                | Output::Pending { .. }
                | Output::Reached { .. }
                | Output::Leader { .. }
                | Output::Stopped(_) => {}
            }
        }
        if durable > 0 {
            self.input(index, Input::Persisted { number: durable });
        }
    }

    fn deliver(&mut self) {
        while let Some((from, to, bytes)) = self.flying.pop_front() {
            if to < self.nodes.len() {
                self.input(to, Input::Message { from: NodeId(from as u64 + 1), bytes: &bytes });
            }
        }
    }

    fn tick(&mut self) {
        self.now = self.now + Duration::from_millis(100);
        for index in 0..self.nodes.len() {
            self.input(index, Input::Tick);
        }
        self.deliver();
    }

    fn write(&mut self, at: usize, number: u64, topics: u64, payload: &Bytes) {
        let topic = format!("site/{:04}/device/{:012}/temperature", number % 1000, number % topics);
        let (request, message) = (RequestId(number), Some(payload.clone()));
        self.input(at, Input::Write { request, topic: topic[..40].into(), message, keep: false, seen: None });
    }

    // So many at a time wait for their answers.
    fn write_all(&mut self, at: usize, count: u64, topics: u64, at_a_time: u64, payload: &Bytes) {
        let before = self.answers;
        for number in 0..count {
            self.write(at, number, topics, payload);
            if number % at_a_time == at_a_time - 1 {
                self.deliver();
            }
            if number % 20_000 == 19_999 {
                self.tick();
            }
        }
        while self.answers < before + count {
            self.tick();
        }
    }
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.expect("this example needs /proc") * PAGE_BYTES
}

fn three() -> Net {
    let mut net = Net::new();
    for _ in 0..3 {
        net.add(false);
    }
    net.input(0, Input::Found { index: 1, estate: Estate::default() });
    for _ in 0..100 {
        net.tick();
    }
    assert_eq!(net.nodes[0].voters().count(), 3);
    net
}

fn main() {
    let payload = Bytes::from(vec![7; 100]);
    for (at, name) in [(0, "the leader"), (1, "another node")] {
        for at_a_time in [1, 64] {
            let mut net = three();
            let (wire, disk, syncs) = (net.wire_bytes, net.disk_bytes, net.syncs);
            let start = std::time::Instant::now();
            net.write_all(at, WRITES, 10_000, at_a_time, &payload);
            let seconds = start.elapsed().as_secs_f64();
            println!(
                "at {name}, {at_a_time} at a time: {:.0} writes/s, {:.1} µs each at three nodes together; {} B on the wire, \
                 {} B on three disks, {:.2} syncs",
                WRITES as f64 / seconds,
                seconds * 1e6 / WRITES as f64,
                (net.wire_bytes - wire) as u64 / WRITES,
                (net.disk_bytes - disk) as u64 / WRITES,
                (net.syncs - syncs) as f64 / WRITES as f64,
            );
        }
    }
    let mut net = Net::new();
    net.add(true);
    net.input(0, Input::Found { index: 1, estate: Estate::default() });
    net.tick();
    let before = resident_bytes();
    net.disks[0] = None;
    net.write_all(0, TOPICS, TOPICS, 64, &payload);
    println!("{} B a topic of 40 bytes with 100 bytes, at one node", (resident_bytes() - before) / TOPICS as usize);
    let (before, start) = (resident_bytes(), std::time::Instant::now());
    (net.largest_bulk, net.largest_record) = (0, 0);
    net.add(false);
    let mut ticks = 0;
    while net.nodes[1].view().messages < TOPICS as usize || !net.nodes[1].view().is_exact {
        net.tick();
        ticks += 1;
    }
    println!(
        "to another node in {:?} and {ticks} ticks: {} chunks of at most {} B, records of at most {} B; {} B a topic there",
        start.elapsed(),
        net.nodes[1].counters().chunks_taken,
        net.largest_bulk,
        net.largest_record,
        resident_bytes().saturating_sub(before) / TOPICS as usize,
    );
}
