//! A run as text for a terminal: time, client, arrow, packet, line by line. Much of the same is folded, what a violation
//! is about never is. Plain unless colours are asked for; names that a scenario or a client chose cannot move the cursor.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use newtmq_base::Instant;

use crate::history::{Event, Stamped};
use crate::report::{Check, Class, Report, Verdict, Violation};
use crate::scenario::Scenario;
use crate::words::{Said, Way, Words, counted, grouped};

/// How [`text`] looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextStyle {
    /// With ANSI colours.
    pub colour: bool,
    /// Columns of the terminal; longer lines are cut.
    pub width: usize,
    /// Most lines of the timeline itself: what is far from a violation is left out first. `None` for all.
    pub max_lines: Option<usize>,
    /// Only so many milliseconds around the moments of violations, if there are any. `None` for everything.
    pub around_ms: Option<u64>,
}

impl Default for TextStyle {
    fn default() -> Self {
        TextStyle { colour: false, width: 120, max_lines: Some(200), around_ms: None }
    }
}

/// The run as text: what it was, its timeline if the history was recorded, and how much each check looked at.
#[must_use]
pub fn text(scenario: &Scenario, report: &Report, style: TextStyle) -> String {
    let paint = Paint { style };
    let words = Words::new(scenario, report);
    let mut out = header(&words, scenario, report, &paint);
    if let Some(history) = &report.history {
        let rows = rows(&words, report, &history.events, style);
        let rows = shortened(rows, style.max_lines);
        let name_width = scenario.clients.iter().map(|c| c.name.chars().count()).max().unwrap_or(6).clamp(6, 20);
        let arrow_width = arrow_width(&rows);
        out.push('\n');
        for row in &rows {
            out.push_str(&paint.row(row, name_width, arrow_width));
            out.push('\n');
        }
    }
    out.push('\n');
    out.push_str(&obligations(report, &paint));
    out
}

fn arrow_width(rows: &[Row]) -> usize {
    let of = |row: &Row| match row {
        Row::Said { said, .. } if said.way != Way::Here => said.what.chars().count() + 5,
        Row::Said { .. } | Row::World { .. } | Row::Moment { .. } | Row::Violation { .. } | Row::Folded { .. } => 0,
        Row::Left { .. } => 0,
    };
    rows.iter().map(of).filter(|width| *width <= ARROW_WIDTH_MAX).max().unwrap_or(0).max(ARROW_WIDTH)
}

fn header(words: &Words<'_>, scenario: &Scenario, report: &Report, paint: &Paint) -> String {
    let mut out = String::new();
    let why = if scenario.why.is_empty() { "(no why)".into() } else { crate::words::printable(&scenario.why) };
    out.push_str(&paint.cut(&paint.ink(BOLD, &why)));
    let (ink, verdict) = match report.verdict() {
        Verdict::Ok => (GREEN, "ok".to_owned()),
        Verdict::Violated(class) => (RED, format!("violated: {} ({})", report.verdict_name(), class_name(class))),
    };
    let facts = format!(
        "seed {} · {} · {} × {} · {} simulated · {} · trace {:016x}",
        report.seed,
        counted(scenario.clients.len() as u64, "client", "clients"),
        counted(u64::from(scenario.nodes), "node", "nodes"),
        counted(u64::from(scenario.shards), "shard", "shards"),
        crate::words::millis(u64::try_from(report.simulated.as_nanos()).unwrap_or(u64::MAX)),
        counted(report.events, "event", "events"),
        report.trace_hash,
    );
    let _ = write!(out, "\n{} · {}\n", paint.ink(ink, &verdict), facts);
    if scenario.nodes > 1 {
        let _ = writeln!(out, "{}", between_nodes(scenario, report));
    }
    for violation in &report.violations {
        let line = format!("  ✗ {} {} {}", violation.check, violation.at, words.told(&violation.message));
        let _ = writeln!(out, "{}", paint.ink(RED, &line));
    }
    if report.more > 0 {
        let _ = writeln!(out, "  and {} more", grouped(report.more));
    }
    out
}

/// What a node sent to others, on the average.
fn between_nodes(scenario: &Scenario, report: &Report) -> String {
    let per = report.simulated.as_secs_f64().max(f64::MIN_POSITIVE) * f64::from(scenario.nodes);
    let of = &report.traffic;
    let rate = |count: u64| count as f64 / per;
    format!(
        "between nodes, each a second: {:.0} B on connections, {:.1} datagrams with {:.0} B; {} in all",
        rate(of.stream_bytes),
        rate(of.datagrams),
        rate(of.datagram_bytes),
        counted(of.dials, "dial", "dials"),
    )
}

fn obligations(report: &Report, paint: &Paint) -> String {
    let mut out = format!("{}\n", paint.ink(BOLD, "checked    times  what it finds"));
    for check in Check::ALL {
        let times = report.obligations.of(*check);
        let violated = report.violations.iter().filter(|v| v.check == *check).count();
        let mark = if violated > 0 { "✗" } else { " " };
        let line = format!("{mark} {:<6} {:>8}  {}", check.name(), grouped(times), check.about());
        let ink = match (violated, times) {
            (1.., _) => RED,
            (0, 0) => DIM,
            (0, 1..) => "",
        };
        let _ = writeln!(out, "{}", paint.ink(ink, &line));
    }
    out
}

/// One line of the timeline.
#[derive(Debug, Clone)]
enum Row {
    /// What a client and the broker said.
    Said { at: Instant, who: String, server: String, said: Said, journey: bool },
    /// A fault, or a phase of the run.
    World { at: Instant, who: String, what: String, fault: bool },
    /// A moment of a violation: its number in the story.
    Moment { at: Instant, number: usize, what: String },
    /// A violation.
    Violation { at: Instant, check: Check, what: String },
    /// Much of the same, by so many clients.
    Folded { from: Instant, to: Instant, packets: u64, messages: u64, who: BTreeSet<String> },
    /// Lines that found no room.
    Left { lines: usize },
}

impl Row {
    /// What has a low one is left out last.
    const fn rank(&self) -> u8 {
        match self {
            Row::Violation { .. } => 0,
            Row::Moment { .. } | Row::Said { journey: true, .. } => 1,
            Row::World { fault: true, .. } => 2,
            Row::Said { .. } | Row::World { .. } | Row::Folded { .. } | Row::Left { .. } => 3,
        }
    }
}

fn rows(words: &Words<'_>, report: &Report, events: &[Stamped], style: TextStyle) -> Vec<Row> {
    let journey = words.journey(&words.uids());
    let marks = marks(words, &report.violations);
    let near = |at: Instant| match style.around_ms {
        Some(ms) if !marks.is_empty() => {
            marks.iter().any(|(mark, _)| mark.as_nanos().abs_diff(at.as_nanos()) <= ms * 1_000_000)
        }
        Some(_) | None => true,
    };
    let mut rows = Vec::new();
    let mut marks = marks.iter().peekable();
    let mut fold = Fold::default();
    let mut skipped = 0;
    for (stamped, journey) in events.iter().zip(journey) {
        while let Some((_, row)) = marks.next_if(|(at, _)| *at < stamped.at) {
            fold.end(&mut rows);
            rows.push(row.clone());
        }
        // Faults explain what follows, wherever they are.
        if !near(stamped.at) && !matches!(stamped.event, Event::Fault(_)) {
            skipped += 1;
            continue;
        }
        if skipped > 0 {
            fold.end(&mut rows);
            rows.push(Row::Left { lines: core::mem::take(&mut skipped) });
        }
        let row = row(words, stamped, journey);
        let traffic = is_traffic(&stamped.event);
        // A message is handed on where it arrives: a line only if the message is the one that matters.
        if !journey && (matches!(stamped.event, Event::Handed { .. } | Event::Gone { .. })) {
            continue;
        }
        if journey || !traffic {
            fold.end(&mut rows);
            rows.push(row);
        } else {
            fold.add(row);
        }
    }
    fold.end(&mut rows);
    rows.extend(marks.map(|(_, row)| row.clone()));
    rows
}

/// Moments and violations, in order of time. What several violations have in common is told once.
fn marks(words: &Words<'_>, violations: &[Violation]) -> Vec<(Instant, Row)> {
    let mut marks = Vec::new();
    let mut told = BTreeSet::new();
    for violation in violations {
        for (i, (at, what)) in words.moments(violation).into_iter().enumerate() {
            let what = format!("{} {what}", violation.check);
            if told.insert((at, what.clone())) {
                marks.push((at, Row::Moment { at, number: i + 1, what }));
            }
        }
        let what = words.told(&violation.message);
        marks.push((violation.at, Row::Violation { at: violation.at, check: violation.check, what }));
    }
    marks.sort_by_key(|(at, _)| *at);
    marks
}

fn row(words: &Words<'_>, stamped: &Stamped, journey: bool) -> Row {
    let at = stamped.at;
    if let Some(said) = words.said(&stamped.event, at) {
        let (who, server) = (words.of_conn(said.conn), words.server(said.conn));
        return Row::Said { at, who, server, said, journey };
    }
    let (who, what, fault) = if let Event::Fault(fault) = &stamped.event {
        let (who, what) = words.fault(fault);
        (who, what, true)
    } else if let Some((node, what)) = words.of_node(&stamped.event) {
        (node, what, false)
    } else if stamped.event == Event::Calm {
        (String::new(), "calm: no step and no fault is left".into(), false)
    } else {
        (String::new(), "the end: what is owed by now is lost".into(), false)
    };
    Row::World { at, who, what, fault }
}

const fn is_traffic(event: &Event) -> bool {
    matches!(
        event,
        Event::Publish { .. }
            | Event::Acked { .. }
            | Event::Release { .. }
            | Event::Receive { .. }
            | Event::Ack { .. }
            | Event::Released { .. }
            | Event::Handed { .. }
            | Event::Pingreq { .. }
            | Event::Pingresp { .. }
    )
}

/// A stretch of traffic: its first lines are shown, the rest in one.
#[derive(Default)]
struct Fold {
    waiting: Vec<Row>,
}

impl Fold {
    /// Lines of a stretch that are shown.
    const SHOWN: usize = 4;

    fn add(&mut self, row: Row) {
        self.waiting.push(row);
    }

    fn end(&mut self, rows: &mut Vec<Row>) {
        let mut waiting = core::mem::take(&mut self.waiting);
        // One line for a few would save nothing.
        if waiting.len() <= Fold::SHOWN + 3 {
            rows.extend(waiting);
            return;
        }
        let rest = waiting.split_off(Fold::SHOWN);
        rows.extend(waiting);
        let packets = rest.len() as u64;
        let mut folded = (Instant::NEVER, Instant::START, 0, BTreeSet::new());
        for row in rest {
            if let Row::Said { at, who, said, .. } = row {
                folded.0 = folded.0.min(at);
                folded.1 = folded.1.max(at);
                folded.2 += u64::from(said.what.starts_with("PUBLISH"));
                folded.3.insert(who);
            }
        }
        let (from, to, messages, who) = folded;
        rows.push(Row::Folded { from, to, packets, messages, who });
    }
}

/// At most so many rows: those that matter stay with what is next to them.
fn shortened(rows: Vec<Row>, max: Option<usize>) -> Vec<Row> {
    let Some(max) = max.filter(|max| rows.len() > *max) else { return rows };
    let mut keep = BTreeSet::new();
    // The reach around what matters grows while there is room; a run without violations keeps its start and its end.
    let mut anchors: Vec<usize> = (0..rows.len()).filter(|i| rows[*i].rank() < 3).collect();
    anchors.sort_by_key(|i| rows[*i].rank());
    if anchors.is_empty() {
        anchors = vec![0, rows.len() - 1];
    }
    'grow: for reach in 0..rows.len() {
        for anchor in &anchors {
            for i in [anchor.checked_sub(reach), Some(anchor + reach)].into_iter().flatten() {
                if i < rows.len() {
                    keep.insert(i);
                }
                if keep.len() >= max {
                    break 'grow;
                }
            }
        }
    }
    let mut out = Vec::new();
    let mut left = 0;
    for (i, row) in rows.into_iter().enumerate() {
        if keep.contains(&i) {
            if left > 0 {
                out.push(Row::Left { lines: left });
                left = 0;
            }
            out.push(row);
        } else {
            left += 1;
        }
    }
    if left > 0 {
        out.push(Row::Left { lines: left });
    }
    out
}

/// Lines with or without colours.
struct Paint {
    style: TextStyle,
}

impl Paint {
    fn ink(&self, ink: &str, text: &str) -> String {
        if self.style.colour && !ink.is_empty() { format!("{ink}{text}{RESET}") } else { text.into() }
    }

    /// Cut to the width, if there are no colours in it.
    fn cut(&self, line: &str) -> String {
        if line.contains('\u{1b}') || line.chars().count() <= self.style.width {
            return line.trim_end().into();
        }
        let mut cut: String = line.chars().take(self.style.width.saturating_sub(1)).collect();
        cut.push('…');
        cut
    }

    fn row(&self, row: &Row, name_width: usize, arrow_width: usize) -> String {
        match row {
            Row::Said { at, who, server, said, journey } => {
                let (arrow, server) = match said.way {
                    Way::ToServer => (arrow(&said.what, true, arrow_width), server.as_str()),
                    Way::ToClient => (arrow(&said.what, false, arrow_width), server.as_str()),
                    Way::Here => (format!("· {}", said.what), ""),
                };
                let mark = if *journey { '┃' } else { ' ' };
                let line = format!(
                    "{:>10} {mark} {:<name_width$} {arrow} {server}  {}",
                    clock(*at),
                    short(who, name_width),
                    said.note
                );
                let ink = match (journey, said.way) {
                    (true, _) => YELLOW,
                    (false, Way::Here) => DIM,
                    (false, Way::ToServer | Way::ToClient) => "",
                };
                self.ink(ink, &self.cut(&line))
            }
            Row::World { at, who, what, fault } => {
                let mark = if *fault { "▒" } else { " " };
                let who = if who.is_empty() { String::new() } else { format!("{who}: ") };
                self.ink(
                    if *fault { MAGENTA } else { DIM },
                    &self.cut(&format!("{:>10} {mark} {who}{what}", clock(*at))),
                )
            }
            Row::Moment { at, number, what } => {
                self.ink(RED, &self.cut(&format!("{:>10} ● {number}. {what}", clock(*at))))
            }
            Row::Violation { at, check, what } => {
                self.ink(RED, &self.cut(&format!("{:>10} ✗ {check} is violated: {what}", clock(*at))))
            }
            Row::Folded { from, to, packets, messages, who } => {
                let names: Vec<_> = who.iter().take(3).cloned().collect();
                let more = who.len().saturating_sub(names.len());
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                let what =
                    format!("{} more, {} of them PUBLISH", counted(*packets, "packet", "packets"), grouped(*messages));
                let line = format!("{:>10} … {what}: {}{more}, until {}", clock(*from), names.join(", "), clock(*to));
                self.ink(DIM, &self.cut(&line))
            }
            Row::Left { lines } => {
                self.ink(DIM, &format!("{:>10} … {} left out", "", counted(*lines as u64, "line", "lines")))
            }
        }
    }
}

fn arrow(what: &str, to_server: bool, width: usize) -> String {
    let room = width.saturating_sub(what.chars().count() + 4);
    let line = "─".repeat(room.max(1));
    if to_server { format!("──{what}{line}─▶") } else { format!("◀─{line}{what}──") }
}

fn clock(at: Instant) -> String {
    let nanos = at.as_nanos();
    format!("{}.{:04}", nanos / 1_000_000_000, nanos / 100_000 % 10_000)
}

fn short(name: &str, width: usize) -> String {
    if name.chars().count() <= width {
        return name.into();
    }
    let mut cut: String = name.chars().take(width - 1).collect();
    cut.push('…');
    cut
}

/// What kind of promise, in a word.
pub(crate) const fn class_name(class: Class) -> &'static str {
    match class {
        Class::Liveness => "liveness",
        Class::Safety => "safety",
        Class::Crash => "crash",
    }
}

/// Columns between a client's name and the broker's, unless a packet has more to say.
const ARROW_WIDTH: usize = 38;
/// Most columns there; longer packets push the broker out of line.
const ARROW_WIDTH_MAX: usize = 58;

const RESET: &str = "\u{1b}[0m";
const BOLD: &str = "\u{1b}[1m";
const DIM: &str = "\u{1b}[2m";
const RED: &str = "\u{1b}[1;31m";
const GREEN: &str = "\u{1b}[1;32m";
const YELLOW: &str = "\u{1b}[33m";
const MAGENTA: &str = "\u{1b}[35m";
