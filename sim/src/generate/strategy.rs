//! Strategies for proptest: whole scenarios of the generator, and steps for clients that a test names itself.

use core::ops::RangeInclusive;

use newtmq_mqtt::QoS;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::{NewTree, ValueTree};
use proptest::test_runner::TestRunner;

use super::{Family, Profile, Size};
use crate::history::ClientIx;
use crate::scenario::{Acks, Act, Action, BrokerSpec, FilterSpec, NetSpec, PublishSpec, Scenario, Step, WorldAction};

/// What scenarios [`arb_scenario`] makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArbOptions {
    /// One of these families, each as often.
    pub families: Vec<Family>,
    /// The size of all of them.
    pub size: Size,
}

impl Default for ArbOptions {
    /// Micro scenarios of every family.
    fn default() -> Self {
        ArbOptions { families: Family::ALL.to_vec(), size: Size::Micro }
    }
}

/// Scenarios of the generator. A failing one shrinks to fewer steps, a plain network and the broker's own limits; what
/// the steps say stays as it is.
///
/// # Panics
/// If `options` names no family.
pub fn arb_scenario(options: ArbOptions) -> impl Strategy<Value = Scenario> {
    assert!(!options.families.is_empty(), "at least one family");
    Scenarios(options)
}

#[derive(Debug)]
struct Scenarios(ArbOptions);

impl Strategy for Scenarios {
    type Tree = Shrinking;
    type Value = Scenario;

    fn new_tree(&self, runner: &mut TestRunner) -> NewTree<Self> {
        let families = &self.0.families;
        let family = families[(runner.rng().next_u64() % families.len() as u64) as usize];
        let scenario = super::scenario(Profile { family, size: self.0.size }, runner.rng().next_u64());
        Ok(Shrinking::new(scenario))
    }
}

/// A scenario that becomes smaller: first plain surroundings, then fewer steps, in pieces of half of them, a quarter, and
/// so on down to one.
#[derive(Debug)]
struct Shrinking {
    scenario: Scenario,
    /// As it was before the last attempt.
    before: Option<Scenario>,
    next: Attempt,
}

#[derive(Debug, Clone, Copy)]
enum Attempt {
    PlainNet,
    PlainBroker,
    OneShard,
    Steps {
        /// The first step of the piece.
        at: usize,
        piece: usize,
    },
}

impl Shrinking {
    fn new(scenario: Scenario) -> Shrinking {
        Shrinking { scenario, before: None, next: Attempt::PlainNet }
    }

    /// Makes the next change that is one; `false` if there is none.
    fn change(&mut self) -> bool {
        loop {
            let now = &mut self.scenario;
            match self.next {
                Attempt::PlainNet => now.net = NetSpec::default(),
                Attempt::PlainBroker => now.broker = BrokerSpec::default(),
                Attempt::OneShard => now.shards = 1,
                Attempt::Steps { at, piece } if at < now.steps.len() => {
                    now.steps.drain(at..(at + piece).min(now.steps.len()));
                }
                Attempt::Steps { .. } => {}
            }
            let changed = self.before.as_ref() != Some(&self.scenario);
            self.next = match self.next {
                Attempt::PlainNet => Attempt::PlainBroker,
                Attempt::PlainBroker => Attempt::OneShard,
                Attempt::OneShard => Attempt::Steps { at: 0, piece: self.scenario.steps.len().div_ceil(2).max(1) },
                // The next piece has moved to where this one was.
                Attempt::Steps { at, piece } if changed => Attempt::Steps { at, piece },
                Attempt::Steps { piece: 0 | 1, .. } => return false,
                Attempt::Steps { piece, .. } => Attempt::Steps { at: 0, piece: piece / 2 },
            };
            if changed {
                return true;
            }
        }
    }
}

impl ValueTree for Shrinking {
    type Value = Scenario;

    fn current(&self) -> Scenario {
        self.scenario.clone()
    }

    fn simplify(&mut self) -> bool {
        self.before = Some(self.scenario.clone());
        self.change()
    }

    /// Takes the last change back; the piece was needed, so the next one is tried.
    fn complicate(&mut self) -> bool {
        let Some(before) = self.before.take() else { return false };
        self.scenario = before;
        if let Attempt::Steps { at, piece } = &mut self.next
            && *piece > 0
        {
            *at += *piece;
        }
        true
    }
}

/// What steps [`arb_steps`] makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepOptions {
    /// Clients that steps name, from the first.
    pub clients: u32,
    /// How many steps.
    pub steps: RangeInclusive<usize>,
    /// All are within so many milliseconds.
    pub within_ms: u64,
    /// Topics that are published to and subscribed to; with `#` as well.
    pub topics: Vec<String>,
    /// Connections break, cuts, sleeping machines, late acknowledgements.
    pub faults: bool,
}

impl Default for StepOptions {
    /// Up to 40 steps of 3 clients in ten seconds, with faults.
    fn default() -> Self {
        StepOptions {
            clients: 3,
            steps: 1..=40,
            within_ms: 10_000,
            topics: vec!["a".into(), "a/b".into(), "c".into()],
            faults: true,
        }
    }
}

/// Steps in order of time. They shrink like any vector: fewer of them, earlier ones, simpler ones. Since every step is
/// total, any subset is a scenario, too.
pub fn arb_steps(options: StepOptions) -> impl Strategy<Value = Vec<Step>> {
    let StepOptions { clients, steps, within_ms, topics, faults } = options;
    let client = (0..clients.max(1)).prop_map(ClientIx);
    let act = if faults { prop_oneof![3 => acts(topics), 1 => troubles()].boxed() } else { acts(topics).boxed() };
    let by_client = (client.clone(), act).prop_map(|(client, act)| Action::Client { client, act });
    let action = if faults {
        let cut = (client.clone(), any::<(bool, bool)>()).prop_map(|(client, (to_server, to_client))| {
            Action::World(WorldAction::Cut { client, to_server, to_client })
        });
        let heal = client.prop_map(|client| Action::World(WorldAction::Heal { client }));
        prop_oneof![18 => by_client, 1 => cut, 1 => heal].boxed()
    } else {
        by_client.boxed()
    };
    let step = (0..=within_ms, action).prop_map(|(at_ms, action)| Step { at_ms, action });
    vec(step, steps).prop_map(|mut steps| {
        steps.sort_by_key(|step| step.at_ms);
        steps
    })
}

fn acts(topics: Vec<String>) -> impl Strategy<Value = Act> + Clone {
    let topic = proptest::sample::select(if topics.is_empty() { vec!["a".to_owned()] } else { topics.clone() });
    let filter = prop_oneof![3 => topic.clone(), 1 => Just("#".to_owned())];
    let subscribe = (filter.clone(), qos())
        .prop_map(|(filter, qos)| Act::Subscribe { filters: vec![FilterSpec::new(filter, qos)], subscription_id: 0 });
    let publish = (topic, qos(), any::<bool>(), 0..200_u32).prop_map(|(topic, qos, retain, size)| {
        Act::Publish(PublishSpec { retain, size, ..PublishSpec::new(topic, qos) })
    });
    prop_oneof![
        4 => Just(Act::Connect { clean: None, session_expiry_s: None, node: None }),
        2 => subscribe,
        4 => publish,
        1 => filter.prop_map(|filter| Act::Unsubscribe { filters: vec![filter] }),
        1 => any::<bool>().prop_map(|with_will| Act::Disconnect { with_will, session_expiry_s: None }),
    ]
}

fn troubles() -> impl Strategy<Value = Act> + Clone {
    let acks = |never| Act::SetAcks(if never { Acks::Never } else { Acks::Auto });
    prop_oneof![
        Just(Act::HangUp),
        Just(Act::Reset),
        Just(Act::Vanish),
        any::<bool>().prop_map(Act::Freeze),
        any::<bool>().prop_map(acks),
        any::<bool>().prop_map(Act::SetReading),
    ]
}

fn qos() -> impl Strategy<Value = QoS> + Clone {
    prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)]
}
