//! How reports are shown: as text, in words, as a page, as JSON.

use newtmq_sim::{Report, Scenario};

/// The run as text.
pub(crate) fn timeline(scenario: &Scenario, report: &Report, colour: bool, width: usize) -> String {
    let _ = (scenario, colour, width);
    report.violations.iter().map(|violation| format!("{}: {}\n", violation.check, violation.message)).collect()
}

/// The story of the violations in words.
pub(crate) fn story(scenario: &Scenario, report: &Report) -> String {
    timeline(scenario, report, false, 120)
}

/// One self-contained page.
pub(crate) fn page(scenario: &Scenario, report: &Report) -> String {
    timeline(scenario, report, false, 120)
}

/// The report as one JSON value.
pub(crate) fn json(scenario: &Scenario, report: &Report) -> String {
    let _ = scenario;
    serde_json::json!({ "verdict": report.verdict_name() }).to_string()
}
