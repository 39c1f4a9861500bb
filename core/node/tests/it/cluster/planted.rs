//! Whether these tests find the bugs that are planted in what they test.

use std::panic::{AssertUnwindSafe, catch_unwind};

use newtmq_base::Mutant;

use super::{agreed, groups, holds, kept, plain, qos2, routes, stored, takeover};

/// A bug, and a test that has to fail with it.
type Row = (Mutant, fn());

const ROWS: &[Row] = &[
    (Mutant::AckBeforeForwardAck, plain::acknowledgements_wait_for_other_nodes_and_keep_their_order),
    (Mutant::LaneByMessage, plain::through_small_windows),
    (Mutant::ResendOutOfOrder, plain::qos1_survives_resets_once_and_in_order),
    (Mutant::GapAccepted, plain::qos1_survives_resets_once_and_in_order),
    (Mutant::LaneDedupWithoutIncarnation, plain::a_publishers_node_starts_again),
    (Mutant::CreditLeakOnReconnect, plain::through_small_windows),
    (Mutant::ForwardAckedOnArrival, stored::an_acknowledgement_waits_for_the_disk_of_the_other_node),
    (Mutant::ForwardGuidIgnored, qos2::a_repeated_publish_waits_for_other_nodes_again_and_comes_once),
    (Mutant::LaneGroupNotRedispatched, groups::a_member_that_has_left_is_replaced),
    (Mutant::FarGroupNotRedispatched, groups::what_a_node_that_is_down_had_goes_to_other_members),
    (Mutant::LaneGroupAckedEarly, groups::an_acknowledgement_waits_for_the_disk_of_a_member),
    (Mutant::HintForgotten, stored::what_is_for_a_stored_session_waits_for_its_node),
    (Mutant::HintsReversed, stored::what_is_for_a_stored_session_waits_for_its_node),
    (Mutant::HintsNotRestored, stored::what_waits_for_a_node_outlives_a_restart),
    (Mutant::HintDoneWhenSent, stored::what_waits_for_a_node_stays_until_it_is_stored_there),
    (Mutant::HintReleasedEarly, stored::what_has_come_does_not_come_again),
    (Mutant::AckOvertakesGate, plain::acknowledgements_wait_for_other_nodes_and_keep_their_order),
    (Mutant::RepeatedForwardForgotten, qos2::a_repeated_publish_waits_for_other_nodes_again_and_comes_once),
    (Mutant::RepeatedToWhoIsGone, qos2::a_repeated_publish_does_not_go_to_who_is_gone),
    (Mutant::ExpiryStretchedTwice, groups::what_goes_on_to_a_third_node_expires_no_later),
    (Mutant::InwardOutOfOrder, plain::every_qos_crosses_once_and_in_order),
    (Mutant::ForwardGuidNotStored, stored::what_has_come_does_not_come_again),
    (Mutant::ForwardedBeforeNamed, stored::qos2_comes_once_though_its_publishers_node_dies),
    (Mutant::ForwardingNotRestored, stored::qos2_comes_once_though_its_publishers_node_dies),
    (Mutant::ClassNotChanged, routes::a_session_that_begins_to_be_stored_changes_its_class),
    (Mutant::IncompleteForgotten, routes::a_suback_waits_again_for_those_who_did_not_answer),
    (Mutant::AckedWithoutTables, holds::publishes_wait_while_it_is_not_known_for_whom_they_are),
    (Mutant::SharedEndsWithSession, groups::what_a_member_has_not_acknowledged_goes_to_others_when_its_session_ends),
    (Mutant::FarMembersForgotten, groups::what_a_member_has_not_acknowledged_goes_to_others_when_its_session_ends),
    (Mutant::AsideOneByOne, holds::each_publish_that_waits_has_its_time_from_when_it_came),
    (Mutant::FarewellForgotten, holds::a_farewell_behind_a_publish_that_waits_counts),
    (Mutant::RelOvertakesAside, holds::a_repeated_publish_that_waits_stays_in_front_of_its_release),
    (Mutant::AliasOfRefusedForgotten, holds::a_publish_that_is_refused_sets_its_topic_alias),
    (Mutant::AsideOvertakesHeld, holds::what_was_put_aside_goes_on_one_after_the_other),
    (Mutant::AsideAfterParting, holds::who_is_closed_publishes_nothing_that_it_had_put_aside),
    (Mutant::DrainedTooEarly, holds::a_node_that_drains_has_no_clients),
    (Mutant::RemoteTakeoverWithoutFence, takeover::the_old_connection_at_another_node_ends),
    (Mutant::LateTwice, takeover::nothing_is_lost_while_a_session_moves),
    (Mutant::LateForgotten, takeover::nothing_is_lost_while_a_session_moves),
    (Mutant::LateBehind, takeover::nothing_is_lost_while_a_session_moves),
    (Mutant::FlushNotAwaited, takeover::nothing_is_lost_while_a_session_moves),
    (Mutant::NamesLeft, takeover::what_it_has_got_elsewhere_is_not_taken_again),
    (Mutant::HintOfGroupForgotten, stored::what_waits_for_a_node_and_its_groups_comes_to_all_of_them),
    (Mutant::ExpiredHintsStay, stored::what_has_expired_takes_no_room_from_what_waits_for_a_node),
    (Mutant::DeferredEndsEarly, takeover::a_session_that_went_on_late_waits_for_its_client),
    (Mutant::LettersOfAllEnd, takeover::a_node_that_is_down_ends_no_wait_for_another_one),
    (Mutant::RecentNamesLeft, takeover::what_came_just_before_it_went_does_not_come_again),
    (Mutant::NoLocalOfOtherNodes, takeover::no_local_keeps_what_was_published_at_another_node),
    (Mutant::UnsentLeft, takeover::what_came_to_both_of_two_sessions_comes_once),
    (Mutant::HandedOnTwice, takeover::what_came_to_both_of_two_sessions_comes_once),
    (Mutant::OriginForgotten, takeover::what_comes_both_ways_comes_once_over_a_start),
    (Mutant::UnretainedAcknowledged, agreed::what_could_not_be_agreed_is_refused),
    (Mutant::AgreedReadTooEarly, agreed::who_reads_waits_for_what_others_have_acknowledged),
    (Mutant::KeptWillOverTooEarly, kept::that_it_is_over_is_said_when_it_is_stored),
];

#[test]
fn planted_bugs_are_found() {
    let mut missed = Vec::new();
    for (bug, test) in ROWS {
        Mutant::activate(Some(*bug));
        let failed = catch_unwind(AssertUnwindSafe(test)).is_err();
        let reached = Mutant::times_reached();
        Mutant::activate(None);
        if !failed {
            missed.push((bug.name(), reached));
        }
    }
    assert!(missed.is_empty(), "{missed:?}");
}
