//! Whether the tests of a part find its planted bugs.

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use newtmq_base::Mutant;

/// Panics with the names of the bugs that `finds` does not find.
pub(crate) fn assert_found(bugs: &[Mutant], finds: impl Fn(Mutant) -> bool) {
    let missed: Vec<&str> = bugs.iter().filter(|bug| !finds(**bug)).map(|bug| bug.name()).collect();
    assert!(missed.is_empty(), "{missed:?}");
}

/// Whether a test fails with a bug. Other threads have their own bugs, and are heard when they fail without one.
pub(crate) fn fails(bug: Mutant, test: impl FnOnce()) -> bool {
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
