//! A run as one HTML file that people look at: lanes on a time axis, messages as arrows, faults shaded, the violation's
//! story beside it. The file is whole in itself: it loads nothing, so it opens from a disk and can be sent to somebody.
//! What is drawn is decided in the page's script; here the recorded history becomes its data.

mod data;

use crate::report::Report;
use crate::scenario::Scenario;

/// The page. Without [`Report::history`] it has the verdict, the stories and the table of checks alone.
#[must_use]
pub fn page(scenario: &Scenario, report: &Report) -> String {
    let title = match report.violations.first() {
        Some(violation) => format!("{} · {}", violation.check, scenario.why),
        None => format!("ok · {}", scenario.why),
    };
    let data = data::write(scenario, report);
    let mut out =
        String::with_capacity(data.len() + PAGE.len() + STYLE.len() + SCRIPTS.iter().map(|s| s.len()).sum::<usize>());
    let mut rest = PAGE;
    while let Some((before, after)) = rest.split_once("{{") {
        let (hole, after) = after.split_once("}}").expect("page.html closes its holes");
        out.push_str(before);
        match hole {
            "title" => out.push_str(&escaped(&crate::words::printable(&title))),
            "style" => out.push_str(STYLE),
            "data" => out.push_str(&data),
            "script" => SCRIPTS.iter().for_each(|script| out.push_str(script)),
            _ => unreachable!("page.html has no such hole: {hole}"),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Text in an element or an attribute.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

const PAGE: &str = include_str!("html/page.html");
const STYLE: &str = include_str!("html/page.css");
const SCRIPTS: &[&str] = &[
    include_str!("html/model.js"),
    include_str!("html/draw.js"),
    include_str!("html/arrows.js"),
    include_str!("html/panel.js"),
    include_str!("html/page.js"),
];
