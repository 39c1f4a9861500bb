//! Prints how long many clients wait that come back at once, each at another node than before: simulated seconds are those of
//! the network and of the protocol, processor time is that of this process, with all nodes, clients and checks in it (Linux).
//!
//! `cargo run --profile sim -p newtmq-sim --example reconnect -- [CLIENTS [NODES [WITHIN_MS]]]`
#![allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use newtmq_base::Instant;
use newtmq_sim::history::{ClientIx, Event, Names};
use newtmq_sim::report::{Findings, Invariant};
use newtmq_sim::scenario::{Act, Action, ClientSpec, Step};
use newtmq_sim::{Options, Scenario, run_with};

/// The cluster is there by then.
const BEGIN_MS: u64 = 10_000;
/// So many clients connect in a millisecond at first.
const RATE: u64 = 10;

/// All clients connect, lose their connections at one moment, and come back within so many milliseconds, at the next node.
fn scenario(clients: u32, nodes: u16, within_ms: u64) -> (Scenario, Instant) {
    let spec = |n| ClientSpec {
        name: format!("c{n}"),
        id: format!("c{n}"),
        keep_alive_s: 0,
        clean: false,
        session_expiry_s: 3_600,
        ..ClientSpec::default()
    };
    let at_node = |n: u32| (n % u32::from(nodes)) as u16;
    let step = |at_ms, n, act| Step { at_ms, action: Action::Client { client: ClientIx(n), act } };
    let connect =
        |at_ms, n, node| step(at_ms, n, Act::Connect { clean: None, session_expiry_s: None, node: Some(node) });
    let lost_ms = BEGIN_MS + u64::from(clients) / RATE + 10_000;
    let mut steps: Vec<Step> = (0..clients).map(|n| connect(BEGIN_MS + u64::from(n) / RATE, n, at_node(n))).collect();
    steps.extend((0..clients).map(|n| step(lost_ms, n, Act::Reset)));
    // None of them waits for another.
    let back_ms = |n: u32| lost_ms + 1 + u64::from(n) * within_ms / u64::from(clients);
    steps.extend((0..clients).map(|n| connect(back_ms(n), n, at_node(n + 1))));
    let scenario =
        Scenario { nodes, clients: (0..clients).map(spec).collect(), steps, settle_ms: 60_000, ..Scenario::default() };
    (scenario, Instant::START + Duration::from_millis(lost_ms))
}

/// When each connection was asked for, and how long those that count have waited.
#[derive(Debug, Default)]
struct Seen {
    from: Instant,
    asked: Vec<Instant>,
    waited: Vec<Duration>,
    present: usize,
    last: Instant,
    cpu: [Duration; 2],
}

#[derive(Clone, Default)]
struct Watch(Rc<RefCell<Seen>>);

impl Invariant for Watch {
    fn event(&mut self, at: Instant, event: &Event, _: &Names, _: &mut Findings) {
        let mut seen = self.0.borrow_mut();
        if let Event::Connect { .. } = event {
            if at >= seen.from && seen.cpu[0].is_zero() {
                seen.cpu[0] = cpu();
            }
            seen.asked.push(at);
        }
        if let Event::Connack { conn, present, code, .. } = event {
            let asked = seen.asked[conn.0 as usize];
            if asked >= seen.from && !code.is_error() {
                seen.waited.push(at - asked);
                seen.present += usize::from(*present);
                (seen.last, seen.cpu[1]) =
                    (at, if seen.waited.len().is_multiple_of(1000) { cpu() } else { seen.cpu[1] });
            }
        }
    }

    fn end(&mut self, _: Instant, _: &Names, _: &mut Findings) {}
}

fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    Duration::from_millis((fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10)
}

fn main() {
    let mut numbers = std::env::args().skip(1).map(|word| word.parse::<u64>().unwrap());
    let clients = numbers.next().unwrap_or(100_000) as u32;
    let nodes = numbers.next().unwrap_or(3) as u16;
    let within_ms = numbers.next().unwrap_or(1_000);
    let (scenario, lost) = scenario(clients, nodes, within_ms);
    let watch = Watch::default();
    watch.0.borrow_mut().from = lost;
    let report = run_with(&scenario, Options::default(), vec![Box::new(watch.clone())]);
    assert!(report.violations.is_empty(), "{:#?}", report.violations);
    let mut seen = watch.0.borrow_mut();
    seen.waited.sort_unstable();
    let at = |percent: usize| seen.waited[(seen.waited.len() - 1) * percent / 100];
    println!(
        "{} of {clients} clients are back at another of {nodes} nodes, {} to their sessions",
        seen.waited.len(),
        seen.present
    );
    println!("they came within {within_ms} ms; the last one was back {:?} after all were lost", seen.last - lost);
    println!("from CONNECT to CONNACK: median {:?}, p99 {:?}, longest {:?}", at(50), at(99), at(100));
    let spent = seen.cpu[1] - seen.cpu[0];
    println!("processor time of it all: {spent:?}, {:?} a client", spent / clients);
}
