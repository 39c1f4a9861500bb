//! Carries a scenario out in the tier that it names, and puts the report together.

use crate::check::HistoryChecker;
use crate::observer::Observer;
use crate::report::{Check, Invariant, Report};
use crate::scenario::{Driver, Scenario};

/// How a scenario is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Keep every event in [`Report::history`].
    pub record: bool,
    /// Look into the broker, too, and not only at what clients see.
    pub white_box: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { record: false, white_box: true }
    }
}

/// Whether this build can run scenarios of a tier: those of [`Driver::Madsim`] need `--cfg madsim`.
#[must_use]
pub const fn can_run(driver: Driver) -> bool {
    match driver {
        Driver::Kernel => true,
        Driver::Madsim => cfg!(madsim),
    }
}

/// Runs a scenario with all built-in checks. The same scenario gives the same report.
///
/// # Panics
/// If this build cannot run it: [`can_run`].
#[must_use]
pub fn run(scenario: &Scenario) -> Report {
    run_with(scenario, Options::default(), Vec::new())
}

/// Runs a scenario with all built-in checks and these.
///
/// # Panics
/// If this build cannot run it: [`can_run`].
#[must_use]
pub fn run_with<'a>(scenario: &'a Scenario, options: Options, mut more: Vec<Box<dyn Invariant + 'a>>) -> Report {
    more.insert(0, Box::new(HistoryChecker::new(scenario)));
    let mut observer = Observer::new(more, options.record);
    let end = match scenario.driver {
        Driver::Kernel => crate::kernel::run(scenario, options, &mut observer),
        Driver::Madsim => run_in_madsim(scenario, options, &mut observer),
    };
    let observed = observer.end(end);
    let findings = core::mem::take(&mut observer.findings);
    let mut violations = findings.violations;
    if !options.white_box {
        violations.retain(|violation| violation.check.is_black_box() || violation.check == Check::Crash);
    }
    violations.sort_by_key(|violation| (core::cmp::Reverse(violation.check.class()), violation.at));
    Report {
        seed: scenario.seed,
        violations,
        more: findings.more,
        obligations: findings.obligations,
        trace_hash: observed.hash,
        events: observed.events,
        simulated: core::time::Duration::from_nanos(end.as_nanos()),
        traffic: observer.traffic,
        heals: core::mem::take(&mut observer.heals),
        history: observed.history,
    }
}

#[cfg(madsim)]
use crate::madsim::run as run_in_madsim;

#[cfg(not(madsim))]
fn run_in_madsim(_: &Scenario, _: Options, _: &mut Observer<'_>) -> newtmq_base::Instant {
    panic!("a scenario with driver = \"madsim\" needs a build with --cfg madsim");
}
