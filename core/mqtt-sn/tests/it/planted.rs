//! Bugs planted in the gateway, and the tests that find each of them. With `--cfg newtmq_mutants` only.

use newtmq_base::Mutant;

use crate::adversary;
use crate::behaviour::{connecting, messages, sleeping};

/// Bug, and a test that fails with it.
const FOUND: &[(Mutant, fn())] = &[
    (Mutant::SnRegisterSkipped, messages::register_before_the_first_delivery_and_enqueue_while_registering),
    (Mutant::SnIdsStartOver, sleeping::ping_that_reaches_another_cluster_node),
    (Mutant::SnIdsStartOver, messages::registrations_are_resumed_or_not),
    (Mutant::SnWillSurvivesClean, connecting::will_is_kept_without_clean_session_and_deleted_with_it),
    (Mutant::SnSleeperSent, sleeping::sleep_with_all_qos_buffered),
    (Mutant::SnPingrespEarly, sleeping::sleep_with_all_qos_buffered),
    (Mutant::SnAckBeforeBroker, messages::publish_denied_by_the_rules),
    (Mutant::SnLateCopyTaken, messages::repeated_publishes_are_answered_and_not_published_again),
    (Mutant::SnLateCopyTaken, messages::subscribe_that_is_repeated),
    (Mutant::SnNoRetry, messages::delivery_of_qos2),
    (Mutant::SnBufferUnlimited, sleeping::buffer_of_a_sleeper_is_bounded),
    (Mutant::SnReboundDeaf, sleeping::ping_from_a_new_port),
    (Mutant::SnSleepNeverEnds, sleeping::sleep_ends_in_time_or_the_will_is_published),
    (Mutant::SnDeletedWillStays, connecting::will_updates),
    (Mutant::SnRefusedDelivered, messages::refused_registration_counts_as_unsubscribe),
    (Mutant::SnRecordNotGiven, sleeping::ping_that_reaches_another_cluster_node),
    (Mutant::SnRecordOfBefore, sleeping::ping_that_reaches_another_cluster_node),
    (Mutant::SnOutliveIgnored, sleeping::a_session_that_began_clean_outlives_its_gateway_once_asked_to),
    (Mutant::SnDrainedTooEarly, sleeping::sleeps_on_when_the_broker_has_no_more_after_the_last_acknowledgement),
    (Mutant::SnCopyIsConnect, connecting::duplicate_connect),
    (Mutant::SnConnectOvertakes, connecting::clean_session_begins_when_the_former_one_has_ended),
    (Mutant::SnMissedAnswerTold, sleeping::an_answer_that_comes_when_it_sleeps_tells_nothing),
    (Mutant::SnSearchIsNoLife, connecting::whatever_comes_keeps_alive),
    (Mutant::SnLateAnswerForgotten, sleeping::acknowledged_behind_falling_asleep_is_not_sent_again),
];

#[test]
fn planted_bugs_are_found() {
    let missed: Vec<&str> = FOUND.iter().filter(|(bug, test)| !bug.fails(*test)).map(|(bug, _)| bug.name()).collect();
    assert!(missed.is_empty(), "{missed:?}");
    let all = Mutant::ALL.iter().filter(|bug| bug.name().starts_with("sn-"));
    for bug in all {
        assert!(FOUND.iter().any(|(found, _)| found == bug), "{}", bug.name());
    }
}

/// Those that break a promise are found by the adversary as well.
#[test]
fn the_adversary_finds_planted_bugs() {
    for bug in [Mutant::SnNoRetry, Mutant::SnLateCopyTaken] {
        assert!((0..200).any(|seed| bug.fails(|| adversary::run_seed(seed))), "{}", bug.name());
    }
}
