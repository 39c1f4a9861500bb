//! How much a shrinker may run. A case in which something never ends is millions of events long, and hundreds of such runs
//! would take an hour; the limit counts events and no time, so that what comes out is the same everywhere.

use std::panic::{AssertUnwindSafe, catch_unwind};

use newtmq_sim::{Check, Report, Scenario};

/// Counts the events of runs.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    events: u64,
}

impl Budget {
    /// The first check that a run violates; none if there have been too many events already.
    pub(crate) fn run(&mut self, case: &Scenario, run: impl FnOnce(&Scenario) -> Report) -> Option<Check> {
        if self.events >= EVENTS_MAX {
            return None;
        }
        let Ok(report) = catch_unwind(AssertUnwindSafe(|| run(case))) else { return Some(Check::Crash) };
        // Those of a run that does not end are mostly none that a client sees.
        let endless = report.violations.first().is_some_and(|violation| violation.check == Check::Crash);
        self.events += report.events + if endless { CRASH_EVENTS } else { 0 };
        report.violations.first().map(|violation| violation.check)
    }
}

/// Events of all runs together: a hundred thousand small cases, or a few dozen large ones.
const EVENTS_MAX: u64 = 20_000_000;
/// What a run counts in which the broker panicked or did not end: 80 of them are enough.
const CRASH_EVENTS: u64 = EVENTS_MAX / 80;
