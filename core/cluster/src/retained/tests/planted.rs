//! Every planted bug of the retained group is found by a test of its.

use newtmq_base::Mutant;

use super::{adversary, scenes};

#[test]
fn planted_bugs_are_found() {
    let tests: &[fn()] = &[
        scenes::a_write_is_everywhere_and_read_after_the_barrier,
        scenes::a_barrier_knows_what_a_node_has_answered_before_it_crashed,
        scenes::a_write_that_is_sent_again_is_there_once,
        scenes::a_write_of_a_later_start_is_none_of_the_one_before,
        scenes::what_was_given_up_does_not_come_after_what_was_written_since,
        scenes::without_a_leader_it_is_refused_or_kept_here_alone,
        scenes::what_is_kept_has_a_limit,
        scenes::what_is_written_again_without_a_leader_is_no_more,
        scenes::a_witness_hands_over_what_it_alone_has,
        scenes::what_was_deleted_and_is_forgotten_is_not_what_never_was,
        scenes::who_was_away_for_long_gets_the_topics_in_chunks,
        scenes::chunks_that_are_lost_are_asked_for_again,
        scenes::nobody_votes_who_has_not_everything,
        scenes::members_do_not_go_back,
        scenes::all_machines_are_replaced_one_after_the_other,
        scenes::all_start_again_with_what_they_had,
        scenes::too_much_is_refused,
        scenes::another_cluster_is_another_disk,
        scenes::an_entry_of_a_later_version_stops_the_node,
        scenes::an_entry_says_no_more_than_it_has_to,
        scenes::same_seed_same_messages,
        adversary::many,
    ];
    let bugs = [
        Mutant::RetainedAnsweredWhenSent,
        Mutant::RetainedBarrierByCommit,
        Mutant::RetainedDeletedForgotten,
        Mutant::RetainedForgottenUnchanged,
        Mutant::RetainedGapTaken,
        Mutant::RetainedGoneStays,
        Mutant::RetainedLateApplied,
        Mutant::RetainedMembersGoBack,
        Mutant::RetainedNumbersOutliveStart,
        Mutant::RetainedPendingStays,
        Mutant::RetainedPendingUnlimited,
        Mutant::RetainedPendingWins,
        Mutant::RetainedPiecesIgnored,
        Mutant::RetainedReadAtCommit,
        Mutant::RetainedRepeatApplied,
        Mutant::RetainedSentAnew,
        Mutant::RetainedSweepEndsFirst,
        Mutant::RetainedTakenWithoutTopics,
        Mutant::RetainedTooLittleSent,
        Mutant::RetainedVotesUnready,
        Mutant::RetainedKeptWindow,
        Mutant::WitnessHandsToItself,
    ];
    Mutant::assert_found(&bugs, |bug| tests.iter().any(|test| Mutant::fails(bug, test)));
}
