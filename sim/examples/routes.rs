//! Prints what many routes cost a cluster: how long until every node matches the subscriptions of one, and how long a node
//! takes to join a cluster that has many. Simulated seconds are those of the network and of the protocol; processor time
//! and memory are those of this process, with all nodes, simulated clients and checks in it (Linux).
//!
//! `cargo run --profile sim -p newtmq-sim --example routes -- [SUBSCRIPTIONS [ROUTES]]`
#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::cell::RefCell;
use std::rc::Rc;

use newtmq_base::Instant;
use newtmq_mqtt::QoS;
use newtmq_node::ClusterEvent;
use newtmq_sim::history::{ClientIx, Event, Names, NodeIx};
use newtmq_sim::report::{Findings, Invariant};
use newtmq_sim::scenario::{Act, Action, ClientSpec, FilterSpec, NodeSpec, Step};
use newtmq_sim::{Options, Scenario, run_with};

/// Each client has so many subscriptions.
const EACH: u32 = 1_000;
/// The cluster is there by then.
const BEGIN_MS: u64 = 10_000;
const PAGE_BYTES: usize = 4_096;

/// Three nodes; clients of the first one subscribe to filters of 40 bytes, one a packet, as many a millisecond as `rate`
/// says.
fn scenario(count: u32, rate: u32) -> Scenario {
    let clients = count.div_ceil(EACH);
    let spec = |n| ClientSpec { name: format!("c{n}"), id: format!("c{n}"), keep_alive_s: 0, ..ClientSpec::default() };
    let step = |at_ms, n, act| Step { at_ms, action: Action::Client { client: ClientIx(n), act } };
    let mut steps: Vec<Step> = (0..clients)
        .map(|n| step(BEGIN_MS - 2_000, n, Act::Connect { clean: None, session_expiry_s: None, node: None }))
        .collect();
    for i in 0..count {
        let filter = format!("site/{:05}/device/{i:012}/temperature", i % 1000);
        let filters = vec![FilterSpec::new(filter[..40].to_owned(), QoS::AtMostOnce)];
        let subscribe = Act::Subscribe { filters, subscription_id: 0 };
        steps.push(step(BEGIN_MS + u64::from(i / rate), i % clients, subscribe));
    }
    let end_ms = BEGIN_MS + u64::from(count / rate);
    Scenario {
        nodes: 3,
        clients: (0..clients).map(spec).collect(),
        steps,
        settle_ms: 30_000.max(end_ms / 2),
        ..Scenario::default()
    }
}

/// What was seen, and what it had cost by then.
#[derive(Debug, Default)]
struct Seen {
    subacks: u32,
    incomplete: u32,
    first: Option<Mark>,
    last: Option<Mark>,
    joiner: Option<Mark>,
    open: u32,
    joined: Option<Mark>,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Instant,
    cpu_s: f64,
    resident: usize,
}

impl Mark {
    fn now(at: Instant) -> Mark {
        Mark { at, cpu_s: processor_time(), resident: resident_bytes() }
    }

    fn since(&self, before: &Mark) -> (f64, f64, usize) {
        let resident = self.resident.saturating_sub(before.resident);
        ((self.at - before.at).as_secs_f64(), self.cpu_s - before.cpu_s, resident)
    }
}

struct Watch {
    count: u32,
    joiner: NodeIx,
    seen: Rc<RefCell<Seen>>,
}

impl Invariant for Watch {
    fn event(&mut self, at: Instant, event: &Event, _: &Names, _: &mut Findings) {
        let mut seen = self.seen.borrow_mut();
        #[allow(clippy::wildcard_enum_match_arm)] // the others are not measured
        match event {
            Event::Subscribe { .. } if seen.first.is_none() => seen.first = Some(Mark::now(at)),
            Event::Suback { .. } => {
                seen.subacks += 1;
                if seen.subacks == self.count {
                    seen.last = Some(Mark::now(at));
                }
            }
            Event::Cluster { event, .. } if **event == ClusterEvent::BarrierIncomplete => seen.incomplete += 1,
            Event::NodeUp { node, .. } if *node == self.joiner => seen.joiner = Some(Mark::now(at)),
            Event::Cluster { node, event } if *node == self.joiner => {
                if let ClusterEvent::Open { open: true, .. } = **event {
                    seen.open += 1;
                    seen.joined = Some(Mark::now(at));
                }
            }
            _ => {}
        }
    }

    fn end(&mut self, _: Instant, _: &Names, _: &mut Findings) {}
}

/// What was seen, and the bytes that nodes have sent over their links.
fn seen(scenario: &Scenario, count: u32) -> (Seen, u64) {
    let seen = Rc::new(RefCell::new(Seen::default()));
    let watch = Watch { count, joiner: NodeIx(scenario.nodes - 1), seen: Rc::clone(&seen) };
    let report = run_with(scenario, Options { record: false, white_box: false }, vec![Box::new(watch)]);
    for violation in &report.violations {
        println!("VIOLATED {}: {}", violation.check, violation.message);
    }
    (seen.take(), report.traffic.stream_bytes)
}

fn converge(count: u32) {
    let mut scenario = scenario(count, count);
    let (seen, bytes) = seen(&scenario, count);
    let (first, Some(last)) = (seen.first.unwrap(), seen.last) else {
        println!("{count} subscriptions: only {} were acknowledged", seen.subacks);
        return;
    };
    let (seconds, cpu_s, _) = last.since(&first);
    // The same time without subscriptions.
    let mut idle = scenario.clone();
    idle.steps.truncate(count.div_ceil(EACH) as usize);
    idle.settle_ms += BEGIN_MS - idle.steps[0].at_ms;
    let (_, idle_bytes) = self::seen(&idle, 0);
    scenario.nodes = 1;
    let (alone, _) = self::seen(&scenario, count);
    let (alone_seconds, alone_s, _) = alone.last.unwrap().since(&alone.first.unwrap());
    println!(
        "{count} subscriptions at one of 3 nodes: all acknowledged, and matched by all nodes, after {seconds:.2} simulated s; {cpu_s:.2} s of processor time (one node alone: {alone_seconds:.2} and {alone_s:.2} s); {:.1} B over both links for each; {} barriers incomplete",
        bytes.saturating_sub(idle_bytes) as f64 / f64::from(count),
        seen.incomplete
    );
}

fn join(count: u32) {
    let mut scenario = scenario(count, 10);
    let start_ms = BEGIN_MS + u64::from(count / 10) + 5_000;
    let late = NodeSpec { start_ms, ..NodeSpec::default() };
    scenario.node_specs = vec![NodeSpec::default(), NodeSpec::default(), late];
    let (seen, _) = seen(&scenario, count);
    let (Some(joiner), Some(joined)) = (seen.joiner, seen.joined) else {
        println!("a node has not joined: {seen:?}");
        return;
    };
    let (seconds, cpu_s, resident) = joined.since(&joiner);
    println!(
        "a node joins 2 others that have {count} routes: {} of 2 are open to it after {seconds:.2} simulated s; {cpu_s:.2} s of processor time; {} B a route more in memory; {} of {count} subscriptions were acknowledged, {} barriers incomplete",
        seen.open,
        resident / count as usize,
        seen.subacks,
        seen.incomplete
    );
}

fn processor_time() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = text.rsplit(')').next().unwrap();
    // utime and stime, in hundredths of a second (proc_pid_stat(5)).
    let ticks: u32 = after_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u32>().unwrap()).sum();
    f64::from(ticks) / 100.0
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * PAGE_BYTES
}

fn main() {
    let mut counts = std::env::args().skip(1).map(|count| count.parse::<u32>().unwrap());
    let (subscriptions, routes) = (counts.next().unwrap_or(100_000), counts.next().unwrap_or(1_000_000));
    converge(subscriptions);
    join(routes);
}
