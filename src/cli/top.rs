//! `newtmq ctl top`: how fast the counters of a broker rise, a line each second.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Failed, print};
use crate::ctl::{self, Command, CtlError};
use crate::exit::Exit;

/// Columns: name, counter of `broker metrics`, and whether it is bytes.
const RATES: &[(&str, &str, bool)] = &[
    ("msg in/s", "messages/received", false),
    ("msg out/s", "messages/sent", false),
    ("bytes in/s", "bytes/received", true),
    ("bytes out/s", "bytes/sent", true),
    ("connect/s", "packets/connect", false),
    ("dropped/s", "messages/dropped", false),
];
/// Columns of `broker stats`.
const COUNTS: &[(&str, &str)] =
    &[("connections", "connections/count"), ("sessions", "sessions/count"), ("subs", "subscriptions/count")];

const INTERVAL: Duration = Duration::from_secs(1);
/// The names of the columns are told again after so many lines.
const HEAD_EVERY: u32 = 20;
const WIDTH: usize = 12;

/// Tells rates until it is stopped, or has told so many lines.
pub(super) fn top(socket: &Path, lines: Option<u32>, as_json: bool) -> Result<(), Failed> {
    let no_broker = |error: CtlError| Failed { exit: Exit::NoBroker, error: Some(error.into()) };
    let mut before = figures(socket).map_err(no_broker)?;
    let mut since = Instant::now();
    for line in 0..lines.unwrap_or(u32::MAX) {
        thread::sleep(INTERVAL);
        let now = figures(socket).map_err(no_broker)?;
        let seconds = since.elapsed().as_secs_f64();
        since = Instant::now();
        let text = if as_json {
            format!("{}\n", as_object(&before, &now, seconds))
        } else {
            let head = if line % HEAD_EVERY == 0 { head() } else { String::new() };
            head + &row(&before, &now, seconds)
        };
        print(&text).map_err(Failed::runtime)?;
        before = now;
    }
    Ok(())
}

type Figures = BTreeMap<String, u64>;

fn figures(socket: &Path) -> Result<Figures, CtlError> {
    let mut all = Figures::new();
    for path in ["broker stats", "broker metrics"] {
        let answer = ctl::query(socket, &Command { path, arguments: BTreeMap::new() })?;
        let pairs = answer["data"].as_object().into_iter().flatten();
        all.extend(pairs.filter_map(|(name, count)| Some((name.clone(), count.as_u64()?))));
    }
    Ok(all)
}

fn of(figures: &Figures, name: &str) -> u64 {
    figures.get(name).copied().unwrap_or_default()
}

/// A counter that has fallen is one of a broker that was started again.
fn rate(before: &Figures, now: &Figures, name: &str, seconds: f64) -> f64 {
    of(now, name).saturating_sub(of(before, name)) as f64 / seconds.max(f64::EPSILON)
}

fn head() -> String {
    let names = COUNTS.iter().map(|(name, _)| name).chain(RATES.iter().map(|(name, ..)| name));
    let mut text: String = names.map(|name| format!("{name:>WIDTH$}")).collect();
    text.push('\n');
    text
}

fn row(before: &Figures, now: &Figures, seconds: f64) -> String {
    let counts = COUNTS.iter().map(|(_, name)| of(now, name).to_string());
    let rates = RATES.iter().map(|(_, name, is_bytes)| shown(rate(before, now, name, seconds), *is_bytes));
    let mut text: String = counts.chain(rates).map(|cell| format!("{cell:>WIDTH$}")).collect();
    text.push('\n');
    text
}

fn shown(rate: f64, is_bytes: bool) -> String {
    match rate {
        rate if is_bytes && rate >= 1e6 => format!("{:.1} MB", rate / 1e6),
        rate if is_bytes && rate >= 1e3 => format!("{:.1} KB", rate / 1e3),
        rate => format!("{rate:.0}"),
    }
}

fn as_object(before: &Figures, now: &Figures, seconds: f64) -> Value {
    let mut all = json!({});
    for (_, name) in COUNTS {
        all[*name] = of(now, name).into();
    }
    for (_, name, _) in RATES {
        all[*name] = json!((rate(before, now, name, seconds) * 10.0).round() / 10.0);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_a_second() {
        let figures = |sent: u64, bytes: u64| {
            let all = [("messages/sent", sent), ("bytes/sent", bytes), ("connections/count", 7)];
            all.map(|(name, count)| (name.to_owned(), count)).into_iter().collect::<Figures>()
        };
        let (before, now) = (figures(10, 0), figures(30, 3_000_000));
        insta::assert_snapshot!(head() + &row(&before, &now, 2.0));
        assert_eq!(as_object(&before, &now, 2.0)["messages/sent"], 10.0);
        assert_eq!(as_object(&now, &before, 2.0)["messages/sent"], 0.0);
    }
}
