//! Scenario files whose trace is the point: what every person and program says, in order, as `cargo sim replay` shows it.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "a test reads its files and fails by panicking")]

use std::path::Path;

use newtmq_sim::timeline::{TextStyle, text};
use newtmq_sim::{Options, Scenario, run_with};

/// The timeline of a file, without the head that names the build's hash.
fn timeline(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios").join(file);
    let scenario = Scenario::parse(file, &std::fs::read_to_string(path).unwrap()).unwrap();
    let report = run_with(&scenario, Options { record: true, ..Options::default() }, Vec::new());
    assert_eq!(report.verdict_name(), "ok", "{file}");
    let style = TextStyle { width: 100, max_lines: Some(80), ..TextStyle::default() };
    text(&scenario, &report, style).split("\n\n").nth(1).unwrap().to_owned()
}

/// Where the time between two packets, or their order, is what the file guards.
const FILES: &[&str] = &[
    "session/in_flight_comes_again.toml",
    "session/qos2_replay_late.toml",
    "session/expiry_is_never_early.toml",
    "retained/delete_offline.toml",
    "will/takeover_delay_5.toml",
    "takeover/old_connection_is_closed.toml",
];

#[test]
fn what_happens_is_what_happened() {
    for file in FILES {
        insta::assert_snapshot!(file.trim_end_matches(".toml").replace('/', "_"), timeline(file));
    }
}
