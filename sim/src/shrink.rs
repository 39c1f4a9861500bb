//! Makes a scenario small that violates a check, and keeps it violating the same one: faults go first, then clients, then
//! steps, then what is left gets plain values. Delta debugging (Zeller, Hildebrandt 2002) works because any subset of the
//! steps is a scenario. It decides nothing by chance.

use std::collections::BTreeSet;

use crate::draw;
use crate::history::ClientIx;
use crate::report::Check;
use crate::scenario::{Act, Action, BrokerSpec, ClientSpec, NetSpec, PublishSpec, Scenario, SnSpec, WorldAction};

/// What came of it.
#[derive(Debug, Clone)]
pub struct Shrunk {
    /// The smallest scenario that was found. Its `expect` names the check.
    pub scenario: Scenario,
    /// How often a scenario was run.
    pub runs: u32,
    /// Steps before.
    pub steps_before: usize,
}

/// Most runs that [`shrink`] makes unless somebody asks for another number.
pub const RUNS_MAX: u32 = 400;

/// Shrinks a scenario that violates `check`, in at most `runs_max` runs. `run` gives the first check that a scenario
/// violates.
pub fn shrink(
    scenario: &Scenario,
    check: Check,
    runs_max: u32,
    run: &mut dyn FnMut(&Scenario) -> Option<Check>,
) -> Shrunk {
    let mut best = scenario.clone();
    best.expect.verdict = check.name().into();
    best.expect.trace_hash = None;
    let mut shrinker = Shrinker { best, check, runs: 0, runs_max, seen: BTreeSet::new(), run };
    shrinker.remove_faults();
    shrinker.remove_clients();
    shrinker.remove_steps();
    shrinker.plain_world();
    for _ in 0..ROUNDS_MAX {
        let before = shrinker.best.clone();
        shrinker.plain_clients();
        shrinker.plain_steps();
        shrinker.compact_time();
        shrinker.remove_clients();
        shrinker.remove_steps();
        shrinker.remove_pairs();
        if shrinker.best == before {
            break;
        }
    }
    Shrunk { scenario: shrinker.best, runs: shrinker.runs, steps_before: scenario.steps.len() }
}

/// A number for what a shrunk scenario does, whatever its names, times and sizes are: two of one shape show the same.
#[must_use]
pub fn shape(scenario: &Scenario) -> u64 {
    let mut clients: Vec<ClientIx> = Vec::new();
    let mut hash = draw::of_name(&scenario.expect.verdict);
    for step in &scenario.steps {
        hash = draw::mix(hash ^ draw::of_name(step.action.name()));
        if let Some(client) = client_of(&step.action) {
            let number = clients.iter().position(|known| *known == client).unwrap_or_else(|| {
                clients.push(client);
                clients.len() - 1
            });
            hash = draw::mix(hash ^ number as u64);
        }
        if let Action::Client { act: Act::Publish(publish) | Act::PublishTorn { publish, .. }, .. } = &step.action {
            hash = draw::mix(hash ^ (publish.qos as u64) << 1 ^ u64::from(publish.retain));
        }
    }
    hash
}

struct Shrinker<'a> {
    best: Scenario,
    check: Check,
    runs: u32,
    runs_max: u32,
    /// Hashes of what was run.
    seen: BTreeSet<u64>,
    run: &'a mut dyn FnMut(&Scenario) -> Option<Check>,
}

impl Shrinker<'_> {
    /// Takes a candidate if it still violates the check.
    fn attempt(&mut self, candidate: Scenario) -> bool {
        if candidate == self.best || self.runs >= self.runs_max {
            return false;
        }
        if !self.seen.insert(draw::of_name(&format!("{candidate:?}"))) {
            return false;
        }
        self.runs += 1;
        let same = (self.run)(&candidate) == Some(self.check);
        if same {
            self.best = candidate;
        }
        same
    }

    /// Changes the best one in place if that still violates the check.
    fn change(&mut self, change: impl FnOnce(&mut Scenario)) -> bool {
        let mut candidate = self.best.clone();
        change(&mut candidate);
        self.attempt(candidate)
    }

    /// Leaves out as many of `units` things as it can: all, halves, quarters, single ones. Late ones go first.
    fn minimize(&mut self, units: usize, without: &dyn Fn(&Scenario, &BTreeSet<usize>) -> Scenario) {
        let base = self.best.clone();
        let mut kept: Vec<usize> = (0..units).collect();
        let gone = |kept: &[usize]| (0..units).filter(|unit| !kept.contains(unit)).collect::<BTreeSet<usize>>();
        if units == 0 || self.attempt(without(&base, &gone(&[]))) {
            return;
        }
        let mut size = units.div_ceil(2);
        loop {
            let before = kept.len();
            let mut end = kept.len();
            while end > 0 {
                let start = end.saturating_sub(size);
                let mut fewer = kept.clone();
                fewer.drain(start..end);
                if self.attempt(without(&base, &gone(&fewer))) {
                    kept = fewer;
                }
                end = start;
            }
            match size {
                1 if kept.len() == before => return,
                1 => {}
                _ => size = (size / 2).max(1),
            }
        }
    }

    fn remove_faults(&mut self) {
        let steps = self.best.steps.iter().enumerate();
        let faults: Vec<usize> = steps.filter(|(_, step)| is_fault(&step.action)).map(|(index, _)| index).collect();
        self.minimize(faults.len(), &|base, gone| {
            without_steps(base, &gone.iter().map(|fault| faults[*fault]).collect())
        });
    }

    fn remove_clients(&mut self) {
        self.minimize(self.best.clients.len(), &without_clients);
    }

    fn remove_steps(&mut self) {
        self.minimize(self.best.steps.len(), &without_steps);
    }

    /// Two steps that cannot go alone, such as a connect and what it is for.
    fn remove_pairs(&mut self) {
        if self.best.steps.len() > PAIRS_STEPS_MAX {
            return;
        }
        'again: loop {
            let count = self.best.steps.len();
            for first in 0..count {
                for second in first + 1..count {
                    if self.attempt(without_steps(&self.best, &BTreeSet::from([first, second]))) {
                        continue 'again;
                    }
                }
            }
            return;
        }
    }

    /// Network, shards and limits as if nothing had been said.
    fn plain_world(&mut self) {
        let still = NetSpec {
            latency_us: 1_000..=1_000,
            shard_delay_us: 0..=0,
            work_delay_us: 0,
            loss_ppm: 0,
            ..NetSpec::default()
        };
        if !self.change(|s| s.net = NetSpec::default()) && !self.change(|s| s.net = still) {
            let plain = NetSpec::default();
            self.change(|s| s.net.loss_ppm = 0);
            self.change(|s| s.net.retransmit_ms = plain.retransmit_ms);
            self.change(|s| s.net.chunk_bytes = plain.chunk_bytes.clone());
            self.change(|s| s.net.socket_bytes = plain.socket_bytes);
            self.change(|s| s.net.latency_us = plain.latency_us.clone());
            self.change(|s| s.net.shard_delay_us = plain.shard_delay_us.clone());
            self.change(|s| s.net.work_delay_us = plain.work_delay_us);
        }
        if self.best.sn != SnSpec::default() && !self.change(|s| s.sn = SnSpec::default()) {
            for default in SN_DEFAULTS {
                self.change(|s| default(&mut s.sn));
            }
        }
        if !self.change(|s| s.shards = 1) && self.best.shards > 2 {
            self.change(|s| s.shards = 2);
        }
        if !self.change(|s| s.broker = BrokerSpec::default()) {
            for default in BROKER_DEFAULTS {
                self.change(|s| default(&mut s.broker));
            }
        }
        self.change(|s| s.seed = 1);
    }

    fn plain_clients(&mut self) {
        for index in 0..self.best.clients.len() {
            let whole = self.change(|s| {
                let client = &mut s.clients[index];
                *client = ClientSpec { name: client.name.clone(), id: client.id.clone(), ..ClientSpec::default() };
            });
            if !whole {
                for plain in CLIENT_DEFAULTS {
                    self.change(|s| plain(&mut s.clients[index]));
                }
            }
            self.change(|s| s.clients[index].id = s.clients[index].name.clone());
        }
    }

    fn plain_steps(&mut self) {
        for index in 0..self.best.steps.len() {
            match &self.best.steps[index].action {
                Action::Client { act: Act::Publish(_) | Act::PublishTorn { .. }, .. } => self.plain_publish(index),
                Action::Client { act: Act::Subscribe { filters, .. }, .. } => {
                    let count = filters.len();
                    self.minimize(count, &|base, gone| {
                        let mut fewer = base.clone();
                        if let Action::Client { act: Act::Subscribe { filters, .. }, .. } =
                            &mut fewer.steps[index].action
                            && gone.len() < count
                        {
                            *filters = keep(filters, gone);
                        }
                        fewer
                    });
                }
                Action::Client { .. } | Action::World(_) => {}
            }
        }
    }

    fn plain_publish(&mut self, index: usize) {
        let plain = |change: fn(&mut PublishSpec)| {
            move |s: &mut Scenario| {
                if let Action::Client { act: Act::Publish(publish) | Act::PublishTorn { publish, .. }, .. } =
                    &mut s.steps[index].action
                {
                    change(publish);
                }
            }
        };
        let all = |publish: &mut PublishSpec| {
            *publish = PublishSpec::new(core::mem::take(&mut publish.topic), publish.qos);
        };
        if self.change(plain(all)) {
            return;
        }
        while self.change(plain(|publish| publish.count = 1))
            || self.change(plain(|publish| publish.count = (publish.count / 2).max(1)))
        {}
        self.change(plain(|publish| publish.size = 32));
        self.change(plain(|publish| publish.every_us = 0));
        self.change(plain(|publish| publish.expiry_s = 0));
        self.change(plain(|publish| publish.alias = 0));
        self.change(plain(|publish| publish.retain = false));
    }

    /// Brings the steps together: all gaps at once, then one by one.
    fn compact_time(&mut self) {
        for gap_ms in [10, 100, 1_000] {
            if self.change(|s| clip_gaps(s, gap_ms)) {
                break;
            }
        }
        for index in 0..self.best.steps.len() {
            for gap_ms in [0, 10, 100, 1_000] {
                if self.change(|s| clip_gap(s, index, gap_ms)) {
                    break;
                }
            }
        }
    }
}

fn without_steps(base: &Scenario, gone: &BTreeSet<usize>) -> Scenario {
    Scenario { steps: keep(&base.steps, gone), ..base.clone() }
}

/// Without these clients and all that happens to them.
fn without_clients(base: &Scenario, gone: &BTreeSet<usize>) -> Scenario {
    let mut fewer = Scenario { clients: keep(&base.clients, gone), ..base.clone() };
    fewer.steps.retain(|step| client_of(&step.action).is_none_or(|client| !gone.contains(&(client.0 as usize))));
    for step in &mut fewer.steps {
        if let Some(client) = client_mut(&mut step.action) {
            let earlier = gone.iter().filter(|gone| **gone < client.0 as usize).count();
            client.0 -= u32::try_from(earlier).expect("no more than there are clients");
        }
        if let Action::Client { act: Act::Rebind { of }, .. } = &mut step.action {
            *of = of.filter(|of| !gone.contains(&(of.0 as usize)));
            if let Some(of) = of {
                let earlier = gone.iter().filter(|gone| **gone < of.0 as usize).count();
                of.0 -= u32::try_from(earlier).expect("no more than there are clients");
            }
        }
    }
    fewer
}

fn keep<T: Clone>(all: &[T], gone: &BTreeSet<usize>) -> Vec<T> {
    all.iter().enumerate().filter(|(index, _)| !gone.contains(index)).map(|(_, item)| item.clone()).collect()
}

fn clip_gaps(scenario: &mut Scenario, gap_ms: u64) {
    for index in 0..scenario.steps.len() {
        clip_gap(scenario, index, gap_ms);
    }
}

/// Moves a step and all that follow so that at most this gap is before it.
fn clip_gap(scenario: &mut Scenario, index: usize, gap_ms: u64) {
    let earlier = index.checked_sub(1).map_or(0, |earlier| scenario.steps[earlier].at_ms);
    let by_ms = (scenario.steps[index].at_ms - earlier).saturating_sub(gap_ms);
    for step in &mut scenario.steps[index..] {
        step.at_ms -= by_ms;
    }
}

fn client_of(action: &Action) -> Option<ClientIx> {
    client_mut(&mut action.clone()).copied()
}

fn client_mut(action: &mut Action) -> Option<&mut ClientIx> {
    match action {
        Action::Client { client, .. }
        | Action::World(
            WorldAction::Cut { client, .. } | WorldAction::Heal { client } | WorldAction::Bandwidth { client, .. },
        ) => Some(client),
        Action::World(
            WorldAction::Pause { .. }
            | WorldAction::ClockJump { .. }
            | WorldAction::Drift { .. }
            | WorldAction::Lag { .. }
            | WorldAction::Crash { .. }
            | WorldAction::Restart { .. }
            | WorldAction::Shutdown { .. }
            | WorldAction::DiskFull { .. }
            | WorldAction::DiskSlow { .. }
            | WorldAction::DiskFails { .. }
            | WorldAction::Wipe { .. }
            | WorldAction::NewAddress { .. }
            | WorldAction::CutLink { .. }
            | WorldAction::HealLink { .. }
            | WorldAction::Partition { .. }
            | WorldAction::Isolate { .. }
            | WorldAction::HealLinks
            | WorldAction::Flap { .. }
            | WorldAction::SlowLink { .. }
            | WorldAction::Join { .. }
            | WorldAction::Leave { .. }
            | WorldAction::ForceLeave { .. }
            | WorldAction::Status { .. }
            | WorldAction::Upgrade { .. }
            | WorldAction::Finalize { .. }
            | WorldAction::Write { .. }
            | WorldAction::DiskRot { .. }
            | WorldAction::MemoryPressure { .. },
        ) => None,
    }
}

/// Whether a step is something going wrong, and not what clients want.
fn is_fault(action: &Action) -> bool {
    match action {
        Action::World(
            WorldAction::Join { .. }
            | WorldAction::Leave { .. }
            | WorldAction::ForceLeave { .. }
            | WorldAction::Status { .. }
            | WorldAction::Upgrade { .. }
            | WorldAction::Finalize { .. }
            | WorldAction::Write { .. },
        ) => false,
        Action::World(_) => true,
        Action::Client { act, .. } => match act {
            Act::HangUp
            | Act::Reset
            | Act::Vanish
            | Act::PublishAgain
            | Act::PublishTorn { .. }
            | Act::SetAcks(_)
            | Act::SetReading(_)
            | Act::Freeze(_)
            | Act::StrayAck { .. }
            | Act::Rebind { .. }
            | Act::Search
            | Act::Raw(_) => true,
            Act::Connect { .. }
            | Act::Disconnect { .. }
            | Act::Subscribe { .. }
            | Act::Unsubscribe { .. }
            | Act::Publish(_)
            | Act::Sleep { .. }
            | Act::Wake { .. }
            | Act::SetWill(_)
            | Act::PublishUnconnected(_)
            | Act::Ping => false,
        },
    }
}

const SN_DEFAULTS: &[fn(&mut SnSpec)] = &[
    |sn| sn.loss_ppm = 0,
    |sn| sn.dup_ppm = 0,
    |sn| sn.late_ppm = 0,
    |sn| sn.latency_us = 1_000..=1_000,
    |sn| sn.predefined = Vec::new(),
    |sn| sn.retry_interval_ms = None,
    |sn| sn.max_buffer_len = None,
    |sn| sn.max_topic_ids = None,
    |sn| sn.subs_resume = None,
];

const BROKER_DEFAULTS: &[fn(&mut BrokerSpec)] = &[
    |b| b.max_inflight = None,
    |b| b.max_mqueue_len = None,
    |b| b.max_mqueue_bytes = None,
    |b| b.mqueue_store_qos0 = None,
    |b| b.max_awaiting_rel = None,
    |b| b.await_rel_timeout_ms = None,
    |b| b.retry_interval_ms = None,
    |b| b.session_expiry_interval_s = None,
    |b| b.max_session_expiry_interval_s = None,
    |b| b.max_subscriptions = None,
    |b| b.will_ha = None,
    |b| b.upgrade_qos = None,
    |b| b.server_keepalive_s = None,
    |b| b.idle_timeout_ms = None,
    |b| b.slow_consumer_timeout_ms = None,
    |b| b.max_publisher_hold_ms = None,
    |b| b.publish_limit_per_s = None,
    |b| b.rate_limit_bytes_per_s = None,
    |b| b.max_connections = None,
    |b| b.max_packet_size = None,
    |b| b.max_qos_allowed = None,
    |b| b.max_topic_alias = None,
    |b| b.ignore_loop_deliver = None,
    |b| b.max_retained_messages = None,
    |b| b.retained_expiry_interval_ms = None,
    |b| b.shared_subscription_strategy = None,
    |b| b.sys_interval_ms = None,
];

const CLIENT_DEFAULTS: &[fn(&mut ClientSpec)] = &[
    |c| c.will = None,
    |c| c.reconnect = None,
    |c| c.username = None,
    |c| c.keep_alive_s = 0,
    |c| c.forwarder = None,
    |c| c.receive_maximum = u16::MAX,
    |c| c.max_packet_size = 0,
    |c| c.topic_alias_maximum = 0,
    |c| c.acks = ClientSpec::default().acks,
    |c| c.ack_delay_ms = 0..=0,
    |c| c.session_expiry_s = 0,
    |c| c.clean = true,
    |c| c.version = ClientSpec::default().version,
];

/// Rounds of plain values and removals after the first removal.
const ROUNDS_MAX: u32 = 3;
/// Pairs are tried only if there are not more steps: 66 pairs.
const PAIRS_STEPS_MAX: usize = 12;

#[cfg(test)]
mod tests {
    use newtmq_mqtt::QoS;

    use super::*;
    use crate::scenario::{FilterSpec, Step};

    /// 40 steps of 5 clients of which four in order are the bug.
    fn big() -> Scenario {
        let mut scenario = Scenario { shards: 4, seed: 77, ..Scenario::default() };
        scenario.net.loss_ppm = 1_000;
        scenario.broker.max_inflight = Some(3);
        scenario.broker.upgrade_qos = Some(true);
        for number in 0..5 {
            let name = format!("c{number}");
            scenario.clients.push(ClientSpec { id: name.clone(), name, keep_alive_s: 9, ..ClientSpec::default() });
        }
        for number in 0..40_u64 {
            let act = match number % 8 {
                0 => Act::Connect { clean: None, session_expiry_s: None, node: None },
                1 => Act::Subscribe {
                    filters: vec![FilterSpec::new("x", QoS::AtMostOnce), FilterSpec::new("t/#", QoS::AtLeastOnce)],
                    subscription_id: 0,
                },
                2 => Act::Publish(PublishSpec { count: 50, size: 999, ..PublishSpec::new("t/1", QoS::AtLeastOnce) }),
                3 => Act::Ping,
                4 => Act::Reset,
                5 => Act::Publish(PublishSpec::new("u", QoS::AtMostOnce)),
                6 => Act::Freeze(true),
                _ => Act::Disconnect { with_will: false, session_expiry_s: None },
            };
            let client = ClientIx((number / 8) as u32);
            scenario.steps.push(Step { at_ms: number * 700, action: Action::Client { client, act } });
        }
        scenario
    }

    /// Violated if client c1 subscribes to `t/#`, resets, and c3 publishes at least 7 messages later.
    fn fake(scenario: &Scenario) -> Option<Check> {
        let named = |step: &&Step, name: &str, action: &str| {
            step.action.name() == action
                && client_of(&step.action).is_some_and(|client| scenario.clients[client.0 as usize].name == name)
        };
        let mut steps = scenario.steps.iter();
        let subscribe = steps.by_ref().find(|step| named(step, "c1", "subscribe"))?;
        let Action::Client { act: Act::Subscribe { filters, .. }, .. } = &subscribe.action else { return None };
        filters.iter().find(|filter| filter.filter == "t/#")?;
        steps.by_ref().find(|step| named(step, "c1", "reset"))?;
        let enough = |step: &Step| {
            matches!(&step.action, Action::Client { act: Act::Publish(publish), .. }
                if publish.count >= 7 && publish.topic.starts_with("t/"))
        };
        steps.find(|step| named(step, "c3", "publish") && enough(step))?;
        (scenario.broker.max_inflight == Some(3)).then_some(Check::Lost)
    }

    #[test]
    fn what_is_left_is_what_it_takes() {
        let scenario = big();
        assert_eq!(fake(&scenario), Some(Check::Lost));
        let shrunk = shrink(&scenario, Check::Lost, RUNS_MAX, &mut fake);
        insta::assert_snapshot!(shrunk.scenario.to_toml());
        assert_eq!((shrunk.steps_before, fake(&shrunk.scenario)), (40, Some(Check::Lost)));
        assert!(shrunk.runs <= 150, "{} runs", shrunk.runs);
        assert_eq!(Scenario::parse("it.toml", &shrunk.scenario.to_toml()), Ok(shrunk.scenario.clone()));
        let again = shrink(&scenario, Check::Lost, RUNS_MAX, &mut fake);
        assert_eq!((again.runs, again.scenario), (shrunk.runs, shrunk.scenario));
    }

    #[test]
    fn two_steps_that_need_each_other_go_together() {
        let mut scenario = big();
        scenario.steps.truncate(4);
        let pair = |scenario: &Scenario| {
            let has = |name: &str| scenario.steps.iter().any(|step| step.action.name() == name);
            (has("ping") && has("connect") == has("subscribe")).then_some(Check::Kept)
        };
        let shrunk = shrink(&scenario, Check::Kept, RUNS_MAX, &mut { pair });
        let names: Vec<&str> = shrunk.scenario.steps.iter().map(|step| step.action.name()).collect();
        assert_eq!(names, ["ping"]);
    }

    /// What holds a number of messages up must not make a row of none, which no file can have.
    #[test]
    fn what_is_left_is_a_file() {
        let has_row = |scenario: &Scenario| {
            let row = |step: &Step| matches!(&step.action, Action::Client { act: Act::Publish(publish), .. } if publish.size == 999);
            scenario.steps.iter().any(row).then_some(Check::Lost)
        };
        let shrunk = shrink(&big(), Check::Lost, RUNS_MAX, &mut { has_row });
        assert_eq!(shrunk.scenario.steps.len(), 1);
        assert_eq!(Scenario::parse("it.toml", &shrunk.scenario.to_toml()), Ok(shrunk.scenario));
    }

    #[test]
    fn another_check_is_not_the_same() {
        let mut run = |scenario: &Scenario| (scenario.steps.len() == 40).then_some(Check::Lost).or(Some(Check::Order));
        assert_eq!(shrink(&big(), Check::Lost, 50, &mut run).scenario.steps.len(), 40);
    }

    #[test]
    fn runs_are_bounded() {
        let mut runs = 0;
        let mut run = |_: &Scenario| {
            runs += 1;
            None
        };
        let shrunk = shrink(&big(), Check::Lost, 10, &mut run);
        assert_eq!((shrunk.runs, runs), (10, 10));
    }

    #[test]
    fn a_shape_is_not_about_names_and_times() {
        let one = big();
        let mut other = big();
        other.clients[0].name = "somebody".into();
        other.steps.iter_mut().for_each(|step| step.at_ms += 5);
        assert_eq!(shape(&one), shape(&other));
        other.steps.pop();
        assert_ne!(shape(&one), shape(&other));
    }
}
