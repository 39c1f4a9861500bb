//! Every planted bug of the retained group is found by a test of its.

use newtmq_base::Mutant;

use super::{adversary, scenes};

#[test]
fn planted_bugs_are_found() {
    let tests: &[fn()] = &[scenes::a_write_is_everywhere_once, adversary::many];
    let bugs = [
        Mutant::RetainedAnsweredWhenSent,
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
        Mutant::RetainedReadTooEarly,
        Mutant::RetainedRepeatApplied,
        Mutant::RetainedSentAnew,
        Mutant::RetainedSweepEndsFirst,
        Mutant::RetainedTakenWithoutTopics,
        Mutant::RetainedTooLittleSent,
        Mutant::RetainedVotesUnready,
    ];
    Mutant::assert_found(&bugs, |bug| tests.iter().any(|test| Mutant::fails(bug, test)));
}
