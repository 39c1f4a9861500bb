//! How reports are shown: as text, in words, as a page, as JSON. The library makes all of them.

use newtmq_sim::timeline::TextStyle;
use newtmq_sim::{Report, Scenario};

/// The run as text.
pub(crate) fn timeline(scenario: &Scenario, report: &Report, style: TextStyle) -> String {
    newtmq_sim::timeline::text(scenario, report, style)
}

/// The story of the violations in words.
pub(crate) fn story(scenario: &Scenario, report: &Report) -> String {
    newtmq_sim::explain::explain(scenario, report)
}

/// One self-contained page.
pub(crate) fn page(scenario: &Scenario, report: &Report) -> String {
    newtmq_sim::html::page(scenario, report)
}

/// The report as one JSON value.
pub(crate) fn json(scenario: &Scenario, report: &Report) -> String {
    newtmq_sim::json::report(scenario, report).to_string()
}
