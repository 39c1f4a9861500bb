//! Every planted bug of the meta group is found by a test of its.

use newtmq_base::Mutant;

use super::{adversary, founding, members, procedures};

#[test]
fn planted_bugs_are_found() {
    let tests: &[fn()] = &[
        members::force_leave_needs_a_dead_node_and_a_quorum,
        members::who_is_back_is_not_thrown_out,
        members::force_leave_without_a_quorum_is_refused,
        members::autocleaned_node_comes_back_as_a_learner,
        members::who_leaves_after_it_was_removed_stays_out,
        members::a_node_that_is_away_for_a_while_is_kept,
        members::even_split_removes_nobody,
        members::counting_starts_over_with_each_leader,
        members::a_leader_that_leads_again_has_seen_nothing_between,
        members::a_leader_that_was_paused_has_seen_nothing,
        members::autoclean_of_all_but_three_of_seven,
        founding::three_blank_seeds_found_one_cluster,
        founding::cold_start_in_two_parts_is_one_cluster,
        founding::less_than_a_majority_founds_nothing,
        founding::seeds_one_after_the_other,
        founding::a_cluster_of_who_is_no_seed_is_joined,
        founding::wiped_seed_joins_the_others,
        procedures::nodes_join_and_vote_in_odd_numbers,
        procedures::who_starts_after_the_others_joins_too,
        procedures::sole_voter_leads_at_once,
        procedures::two_nodes_have_one_voter,
        procedures::who_leads_says_so_when_it_is_durable,
        procedures::witness_votes_and_never_leads,
        procedures::witness_passes_on_what_it_alone_knows,
        procedures::leader_is_replaced_within_three_seconds,
        procedures::leaving,
        procedures::who_has_left_may_come_back_at_once,
        procedures::only_member_cannot_leave,
        procedures::sole_member_gives_its_cluster_up_and_says_what_is_lost,
        procedures::who_goes_into_another_cluster_lets_nobody_in,
        procedures::who_does_not_come_is_let_go,
        procedures::who_cannot_leave_stays,
        procedures::who_leaves_votes_on_it,
        procedures::wiped_disk_needs_another_id,
        procedures::new_address_is_known_after_a_restart,
        procedures::writes_from_any_node,
        procedures::who_was_away_for_long_gets_a_snapshot,
        procedures::unknown_entry_stops_the_node,
        procedures::late_words_of_an_earlier_leader_do_not_stop_a_node,
        procedures::same_seed_same_messages,
        adversary::many,
    ];
    let bugs = [
        Mutant::AnyoneAbandons,
        Mutant::AutocleanByWallClock,
        Mutant::AutocleanSurvivesLeader,
        Mutant::AutocleanWithoutQuorum,
        Mutant::ForcedOutComesBack,
        Mutant::FoundsBesideOthers,
        Mutant::JoinedWhileJoining,
        Mutant::LeavesAgain,
        Mutant::LeavesTooEarly,
        Mutant::CountedWhileAway,
        Mutant::LeadsBeforeSync,
        Mutant::OnlySeedsAreJoined,
        Mutant::SentBeforeSync,
        Mutant::StaysInTwo,
        Mutant::UnknownEntrySkipped,
        Mutant::WipedDiskKeepsId,
        Mutant::WitnessKeepsItsLog,
        Mutant::WitnessLeads,
    ];
    Mutant::assert_found(&bugs, |bug| tests.iter().any(|test| Mutant::fails(bug, test)));
}
