//! Every scenario is valid, and every family does what it is about.

#![allow(clippy::wildcard_enum_match_arm)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::{
    ArbOptions, Family, Profile, STEPS_MAX_CLUSTER, STEPS_MAX_MICRO, Size, Source, StepOptions, arb_scenario,
    arb_steps, scenario, scenario_from,
};
use crate::scenario::{Act, Action, Scenario, WorldAction};

fn profiles() -> impl Iterator<Item = Profile> {
    let sizes = [Size::Micro, Size::Full];
    sizes.into_iter().flat_map(|size| Family::ALL.iter().map(move |family| Profile { family: *family, size }))
}

#[test]
fn every_scenario_is_valid() {
    for profile in profiles() {
        for seed in 0..if profile.size == Size::Micro { 40 } else { 2 } {
            let scenario = scenario(profile, seed);
            assert_valid(profile, &scenario);
            assert_eq!(scenario, super::scenario(profile, seed));
        }
    }
}

fn assert_valid(profile: Profile, scenario: &Scenario) {
    let what = || format!("{profile:?} {scenario:#?}");
    assert!(scenario.steps.is_sorted_by_key(|step| step.at_ms), "{}", what());
    let most = if profile.family.is_cluster() { STEPS_MAX_CLUSTER } else { STEPS_MAX_MICRO };
    if profile.size == Size::Micro {
        assert!(scenario.steps.len() <= most && scenario.clients.len() <= 6, "{}", what());
    } else {
        let end_ms = scenario.steps.last().unwrap().at_ms;
        assert!((60_000..400_000).contains(&end_ms) && scenario.clients.len() <= 100, "{}", what());
    }
    let text = scenario.to_toml();
    let read = Scenario::parse("generated.toml", &text).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    assert_eq!(read, *scenario, "{text}");
}

/// What the steps of many scenarios have in them, by name.
fn traits(scenarios: impl Iterator<Item = Scenario>) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    let mut count = |name: &str| *found.entry(name.to_owned()).or_insert(0) += 1;
    for scenario in scenarios {
        let ids: Vec<&str> = scenario.clients.iter().map(|client| client.id.as_str()).collect();
        if ids.iter().enumerate().any(|(at, id)| ids[..at].contains(id)) {
            count("same id");
        }
        scenario.clients.iter().filter(|client| client.will.is_some()).for_each(|_| count("will"));
        if scenario.broker != Default::default() {
            count("limits");
        }
        for step in &scenario.steps {
            let text = format!("{:?}", step.action);
            match &step.action {
                Action::Client { act, .. } => {
                    let name = format!("{act:?}");
                    count(name.split([' ', '(']).next().unwrap());
                    if let Act::Publish(publish) = act {
                        count(&format!("QoS {}", publish.qos as u8));
                        if publish.retain {
                            count(if publish.size == 0 { "retain nothing" } else { "retain" });
                        }
                    }
                }
                Action::World(action) => count(format!("{action:?}").split(' ').next().unwrap()),
            }
            if text.contains("$share/") {
                count("shared");
            }
            if text.contains('#') || text.contains('+') {
                count("wildcard");
            }
        }
    }
    found
}

#[test]
fn every_family_has_its_traits() {
    let micro = |family| (0..100).map(move |seed| scenario(Profile { family, size: Size::Micro }, seed));
    let rows: &[(Family, &[(&str, usize)])] = &[
        (Family::PubSub, &[("Publish", 500), ("Subscribe", 166), ("wildcard", 66), ("QoS 0", 33), ("QoS 2", 66)]),
        (Family::Shared, &[("shared", 166)]),
        (Family::Retained, &[("retain", 166), ("retain nothing", 33), ("Unsubscribe", 66)]),
        (Family::Wills, &[("will", 100), ("Vanish", 33), ("HangUp", 33), ("Reset", 33)]),
        (Family::Hoppers, &[("Reset", 100), ("Cut", 100), ("Connect", 500)]),
        (Family::Collisions, &[("same id", 100)]),
        (Family::Takeover, &[("same id", 96), ("Vanish", 66)]),
        (Family::Limits, &[("limits", 96), ("SetAcks", 100)]),
        (Family::Misbehaving, &[("Raw", 33), ("StrayAck", 33), ("PublishTorn", 66), ("PublishAgain", 50)]),
    ];
    for (family, wanted) in rows {
        let found = traits(micro(*family));
        for (name, least) in *wanted {
            assert!(found.get(*name) >= Some(least), "{family:?} {name}: {found:#?}");
        }
    }
    let found = traits((0..400).map(|seed| scenario(Profile { family: Family::Mixed, size: Size::Micro }, seed)));
    for name in [
        "Crash",
        "Shutdown",
        "Restart",
        "Pause",
        "ClockJump",
        "Drift",
        "Lag",
        "Bandwidth",
        "MemoryPressure",
        "Freeze",
        "SetReading",
        "Ping",
    ] {
        assert!(found.contains_key(name), "{name}: {found:#?}");
    }
}

#[test]
fn faults_are_over_at_the_end() {
    for profile in profiles() {
        for seed in 0..if profile.size == Size::Micro { 100 } else { 3 } {
            let scenario = scenario(profile, seed);
            let mut ills = BTreeMap::new();
            for step in &scenario.steps {
                let (what, ill) = match &step.action {
                    Action::Client { client, act: Act::Freeze(on) } => (format!("{client:?} asleep"), *on),
                    Action::Client { client, act: Act::SetReading(on) } => (format!("{client:?} reads"), !on),
                    Action::World(WorldAction::Cut { client, .. }) => (format!("{client:?} cut"), true),
                    Action::World(WorldAction::Heal { client }) => (format!("{client:?} cut"), false),
                    Action::World(WorldAction::Crash { node, .. } | WorldAction::Shutdown { node }) => {
                        (format!("{node} down"), true)
                    }
                    Action::World(WorldAction::Restart { node }) => (format!("{node} down"), false),
                    Action::World(WorldAction::CutLink { from, to }) => (format!("cut {from} {to}"), true),
                    Action::World(WorldAction::HealLink { from, to }) => (format!("cut {from} {to}"), false),
                    Action::World(
                        WorldAction::Partition { .. } | WorldAction::Isolate { .. } | WorldAction::Flap { .. },
                    ) => ("cut".into(), true),
                    Action::World(WorldAction::HealLinks) => {
                        ills.retain(|what: &String, _| !what.starts_with("cut"));
                        continue;
                    }
                    Action::World(WorldAction::SlowLink { from, to, by_us, bytes_per_s }) => {
                        (format!("{from} to {to} slow"), *by_us + *bytes_per_s > 0)
                    }
                    _ => continue,
                };
                ills.insert(what, ill);
            }
            assert!(ills.values().all(|ill| !ill), "{profile:?} {seed}: {ills:?}");
        }
    }
}

#[test]
fn bytes_decide_as_well_as_a_seed() {
    let profile = Profile { family: Family::Mixed, size: Size::Micro };
    for bytes in [&b""[..], b"\x07", &[0xFF; 50], &(0..=255).collect::<Vec<u8>>()] {
        let scenario = scenario_from(profile, &mut Source::bytes(bytes));
        assert_valid(profile, &scenario);
    }
}

#[test]
fn a_failing_scenario_shrinks_to_what_it_takes() {
    let mut runner = TestRunner::deterministic();
    let fails = |scenario: &Scenario| {
        let publishes =
            scenario.steps.iter().filter(|step| matches!(step.action, Action::Client { act: Act::Publish(_), .. }));
        publishes.count() >= 3
    };
    let mut found = 0;
    while found < 20 {
        let mut tree = arb_scenario(ArbOptions::default()).new_tree(&mut runner).unwrap();
        if !fails(&tree.current()) {
            continue;
        }
        found += 1;
        let mut more = tree.simplify();
        while more {
            more = if fails(&tree.current()) { tree.simplify() } else { tree.complicate() };
        }
        let last = tree.current();
        assert_eq!((last.steps.len(), last.shards), (3, 1));
        assert_eq!((last.net, last.broker), Default::default());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn steps_keep_to_their_options(steps in arb_steps(StepOptions { within_ms: 50, ..StepOptions::default() })) {
        prop_assert!(steps.is_sorted_by_key(|step| step.at_ms));
        prop_assert!((1..=40).contains(&steps.len()) && steps.iter().all(|step| step.at_ms <= 50));
    }
}
