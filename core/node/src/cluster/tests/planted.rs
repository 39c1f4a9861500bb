//! Every planted bug of the joint is found by a scene or a story.

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use newtmq_base::Mutant;

use super::{scenes, swarm};

fn fails(bug: Mutant, test: impl FnOnce()) -> bool {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let hook = take_hook();
        set_hook(Box::new(move |info| {
            if Mutant::active().is_none() {
                hook(info);
            }
        }));
    });
    Mutant::activate(Some(bug));
    let failed = catch_unwind(AssertUnwindSafe(test)).is_err();
    Mutant::activate(None);
    failed
}

#[test]
fn planted_bugs_are_found() {
    let bugs = [
        Mutant::RoutesOutliveMember,
        Mutant::DownNotTold,
        Mutant::BrokenNotTold,
        Mutant::AcknowledgedWithoutTable,
        Mutant::ServedWithoutShards,
        Mutant::StrangersAreHeard,
        Mutant::InstalledBeforeDisk,
        Mutant::NeverAnswered,
    ];
    let is_found = |bug: Mutant| {
        scenes::ALL.iter().any(|scene| fails(bug, scene)) || (0..200).any(|seed| fails(bug, || swarm::story(seed)))
    };
    let missed: Vec<&str> = bugs.iter().filter(|bug| !is_found(**bug)).map(|bug| bug.name()).collect();
    assert!(missed.is_empty(), "{missed:?}");
}
