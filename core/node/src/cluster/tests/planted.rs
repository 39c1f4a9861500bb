//! Every planted bug of the joint is found by a scene or a story.

use newtmq_base::Mutant;

use super::{claims, leases, retained, scenes, swarm, wills};

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
        Mutant::JoinsOnceReached,
    ];
    let is_found = |bug: Mutant| {
        scenes::ALL.iter().any(|scene| Mutant::fails(bug, scene))
            || (0..200).any(|seed| Mutant::fails(bug, || swarm::story(seed)))
    };
    Mutant::assert_found(&bugs, is_found);
}

#[test]
fn planted_bugs_of_wills_are_found() {
    let bugs = [
        Mutant::WillOfBothNodes,
        Mutant::WillOfDeadNodeLost,
        Mutant::KeptWillNotCancelled,
        Mutant::KeptWillNeverOver,
        Mutant::WillOfEarlierStartLost,
        Mutant::WillsBeforeRoutes,
        Mutant::LeaversWillKept,
        Mutant::ComersRemembered,
    ];
    Mutant::assert_found(&bugs, |bug| wills::ALL.iter().any(|scene| Mutant::fails(bug, scene)));
}

#[test]
fn planted_bugs_of_sessions_leases_and_retained_messages_are_found() {
    let bugs = [
        Mutant::TermsOfAnother,
        Mutant::LeaseWithoutRoutes,
        Mutant::AgreedBarrierIgnored,
        Mutant::AgreedNeverExpires,
        Mutant::EstateLost,
        Mutant::CarriedOnce,
        Mutant::BacklogNotHeld,
        Mutant::AnswersForgotten,
    ];
    let scenes = || claims::ALL.iter().chain(leases::ALL).chain(retained::ALL);
    Mutant::assert_found(&bugs, |bug| scenes().any(|scene| Mutant::fails(bug, scene)));
}
