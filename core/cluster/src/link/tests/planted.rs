//! Every planted bug of links is found by a test of theirs.

use newtmq_base::Mutant;

use super::{hand, scenario};

#[test]
fn planted_bugs_are_found() {
    let tests: &[fn()] = &[
        scenario::nodes_that_dial_each_other_agree_on_one_connection,
        scenario::everything_of_control_comes_once_over_resets,
        scenario::a_one_way_cut_is_noticed_by_both,
        scenario::a_silent_cut_is_down_after_detect_and_up_soon_after_it_heals,
        scenario::a_dead_link_is_replaced_by_a_neighbour_and_taken_back,
        scenario::nodes_that_never_met_talk_over_a_neighbour,
        scenario::frames_are_never_passed_on_twice,
        scenario::a_neighbour_whose_own_link_is_dead_passes_nothing_on,
        scenario::a_neighbour_refuses_what_it_cannot_pass_on_directly,
        scenario::what_comes_late_on_the_old_path_is_not_taken,
        scenario::what_a_neighbour_drops_is_sent_again_and_nothing_overtakes_it,
        scenario::a_new_start_gets_nothing_that_was_for_the_old_one,
        scenario::a_node_that_forgets_its_peer_begins_anew_with_it,
        scenario::a_lower_incarnation_is_refused_and_both_are_told,
        scenario::an_evicted_node_is_told_so_and_refused_until_it_is_readmitted,
        scenario::a_flapping_link_is_held_down,
        scenario::a_peer_that_is_down_again_and_again_is_held_down,
        scenario::bulk_does_not_delay_control_and_a_slow_link_is_not_down,
        scenario::one_fill_gives_control_first_and_little_of_bulk,
        scenario::a_fast_link_is_not_slowed_by_its_window,
        scenario::limits_are_kept_and_counted,
        scenario::the_same_seed_gives_the_same_run,
        hand::two_members_accept_each_other,
        hand::whoever_is_refused_learns_why,
        hand::nobody_hears_of_the_cluster_or_gets_a_proof_before_it_has_proved_itself,
        hand::a_proof_that_is_sent_back_proves_nothing,
        hand::a_changed_hello_breaks_the_proof,
        hand::frames_out_of_turn_and_silence_end_it,
        hand::a_cookie_is_never_shown_and_never_empty,
        hand::silent_strangers_are_limited_and_time_out,
        hand::an_address_that_is_the_node_itself_is_refused_on_both_ends,
    ];
    let bugs = [
        Mutant::ReflectedProof,
        Mutant::EvictedAdmitted,
        Mutant::LowerIncarnationAdmitted,
        Mutant::StreamsOutliveIncarnation,
        Mutant::OldControlTaken,
        Mutant::ControlGapTaken,
        Mutant::OldRunTaken,
        Mutant::UnackedNotResent,
        Mutant::ControlCreditLeak,
        Mutant::OneWayUnnoticed,
        Mutant::FlapNotDamped,
        Mutant::BulkUnlimited,
        Mutant::RelayForAnybody,
    ];
    Mutant::assert_found(&bugs, |bug| tests.iter().any(|test| Mutant::fails(bug, test)));
}
