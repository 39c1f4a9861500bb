//! Every planted bug of membership is found by a test of its.

use newtmq_base::Mutant;

use super::{
    another_cluster_is_not_heard, dead_node_is_noticed, foreign_address_is_called_until_it_is_forgotten,
    same_seed_same_packets, two_halves_reunite, who_leaves_is_down_at_once, who_loses_sight_of_all_for_a_moment_stays,
};

#[test]
fn planted_bugs_are_found() {
    let tests: &[fn()] = &[
        two_halves_reunite,
        dead_node_is_noticed,
        who_loses_sight_of_all_for_a_moment_stays,
        same_seed_same_packets,
        who_leaves_is_down_at_once,
        another_cluster_is_not_heard,
        foreign_address_is_called_until_it_is_forgotten,
    ];
    let bugs = [Mutant::BumpIsIncarnation, Mutant::NobodyIsCalledAgain, Mutant::RenewedInSilence];
    Mutant::assert_found(&bugs, |bug| tests.iter().any(|test| Mutant::fails(bug, test)));
}
