//! `heal`: how long clusters take from a repair until they are whole, scenario by scenario, with many seeds each, and how
//! many clients lost their connection by it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use newtmq_sim::heal::dropped;
use newtmq_sim::report::{Heal, Violation};
use newtmq_sim::scenario::Driver;
use newtmq_sim::{Check, Options, Report, Scenario, run_with};
use serde_json::{Value, json};

use super::screen::{Paint, Progress, columns};
use super::{HealArguments, LATE, files, jobs_or_all};

/// Runs the files.
pub(super) fn heal(arguments: &HealArguments) -> Result<u8, String> {
    let cases = cases(&arguments.files)?;
    let seeds = usize::try_from(arguments.seeds.max(1)).map_err(|_| "--seeds is too large".to_owned())?;
    let rows: Vec<Mutex<Row>> = cases.iter().map(|(path, _)| Mutex::new(Row::new(files::shown(path)))).collect();
    let (next, count) = (AtomicUsize::new(0), cases.len() * seeds);
    // Seed by seed, so that all rows fill at the same pace.
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                break;
            }
            let (case, seed) = (number % cases.len(), arguments.first.wrapping_add((number / cases.len()) as u64));
            let scenario = Scenario { seed, ..cases[case].1.clone() };
            if !is_repaired(&rows[case]) {
                continue;
            }
            let report = run_with(&scenario, Options { record: true, white_box: true }, Vec::new());
            rows[case].lock().expect("nobody panics with it").add(&scenario, &report);
        }
    };
    let mut progress = Progress::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs_or_all(arguments.jobs)).map(|_| scope.spawn(work)).collect();
        while threads.iter().any(|thread| !thread.is_finished()) {
            std::thread::sleep(Duration::from_millis(20));
            let done = next.load(Ordering::Relaxed).min(count);
            progress.show(done as f64 / count as f64, || format!("{done} of {count} runs"));
        }
    });
    progress.clear();
    let rows = rows.into_iter().map(|row| row.into_inner().expect("nobody panicked with it"));
    let named = !arguments.files.is_empty();
    // Without files, those in which nothing is repaired are not meant.
    let rows: Vec<Row> = rows.filter(|row| named || !row.times.is_empty() || row.code != 0).collect();
    if arguments.json {
        let scenarios: Vec<Value> = rows.iter().map(Row::json).collect();
        println!(
            "{}",
            json!({ "commit": files::commit(), "first": arguments.first, "seeds": seeds, "scenarios": scenarios })
        );
    } else {
        print(&rows, seeds);
    }
    Ok(rows.iter().map(|row| row.code).max().unwrap_or(0))
}

/// The files that were named; without any all of the kernel tier that have several nodes, but those that a swarm found.
fn cases(named: &[PathBuf]) -> Result<Vec<(PathBuf, Scenario)>, String> {
    if named.is_empty() {
        let found = files::folder().join("found");
        let all = files::all(&files::folder()).into_iter().filter(|path| !path.starts_with(&found));
        let read = all.map(|path| files::read(&path).map(|scenario| (path, scenario)));
        let is_meant = |scenario: &Scenario| {
            // Times at another pace are those of no cluster.
            let is_real = scenario.cluster.pace_percent.is_none();
            is_real && scenario.driver == Driver::Kernel && scenario.is_cluster() && scenario.expect.verdict == "ok"
        };
        return read.filter(|case| case.as_ref().map_or(true, |(_, scenario)| is_meant(scenario))).collect();
    }
    let one = |path: &PathBuf| {
        let scenario = files::read(path)?;
        if scenario.driver != Driver::Kernel || !scenario.is_cluster() {
            return Err(format!("{}: it is for one node, or not for the kernel tier", files::shown(path)));
        }
        Ok((path.clone(), scenario))
    };
    named.iter().map(one).collect()
}

/// False if a run has shown that nothing is repaired in this scenario.
fn is_repaired(row: &Mutex<Row>) -> bool {
    let row = row.lock().expect("nobody panics with it");
    row.runs == 0 || row.code != 0 || !row.times.is_empty() || row.not_judged > 0
}

/// What came of one file.
struct Row {
    file: String,
    runs: usize,
    /// From a repair until all was whole.
    times: Vec<Duration>,
    /// Repairs that the next fault came too soon after, or that left no quorum.
    not_judged: usize,
    /// Repairs after which it did not become whole.
    never: usize,
    /// From a repair until each client had one session.
    sessions: Vec<Duration>,
    /// Connections that it cost: those that lost to another one of the same Client Identifier, and others.
    losers: usize,
    dropped: usize,
    /// Messages that somebody was owed, and those of them that were lost.
    owed: u64,
    lost: usize,
    /// By check: the first seed that violates it, what it says, and how many do.
    failed: BTreeMap<Check, (u64, String, usize)>,
    /// What it says about the exit code.
    code: u8,
}

impl Row {
    fn new(file: String) -> Row {
        Row {
            file,
            runs: 0,
            times: Vec::new(),
            not_judged: 0,
            never: 0,
            sessions: Vec::new(),
            losers: 0,
            dropped: 0,
            owed: 0,
            lost: 0,
            failed: BTreeMap::new(),
            code: 0,
        }
    }

    fn add(&mut self, scenario: &Scenario, report: &Report) {
        self.runs += 1;
        let history = report.history.as_deref().expect("it was asked for");
        for heal in &report.heals {
            if heal.is_whole {
                self.times.push(heal.took());
            } else if !heal.has_quorum || had_no_time(heal) {
                self.not_judged += 1;
            } else {
                self.never += 1;
                self.code = self.code.max(LATE);
            }
            self.sessions.extend(heal.one_session);
            let dropped = dropped(scenario, heal, history);
            self.losers += dropped.losers.len();
            self.dropped += dropped.others.len();
        }
        self.owed += report.obligations.of(Check::Lost);
        let is_loss = |violation: &&Violation| matches!(violation.check, Check::Lost | Check::Durable | Check::Shared);
        self.lost += report.violations.iter().filter(is_loss).count();
        self.code = self.code.max(report.verdict().exit_code());
        if let Some(violation) = report.violations.first() {
            let first = || (scenario.seed, violation.message.clone(), 0);
            self.failed.entry(violation.check).or_insert_with(first).2 += 1;
        }
    }

    /// Half of them are shorter.
    fn median(&self) -> Option<Duration> {
        let mut times = self.times.clone();
        times.sort_unstable();
        times.get(times.len() / 2).copied()
    }

    fn json(&self) -> Value {
        let failed: Vec<Value> = self
            .failed
            .iter()
            .map(|(check, (seed, message, times))| {
                json!({ "check": check.name(), "runs": times, "seed": seed, "message": message })
            })
            .collect();
        json!({
            "file": self.file, "runs": self.runs, "repairs": self.times.len() + self.never,
            "median_s": self.median().map(|time| time.as_secs_f64()),
            "max_s": self.times.iter().max().map(Duration::as_secs_f64),
            "not_judged": self.not_judged, "not_healed": self.never,
            "one_session_max_s": self.sessions.iter().max().map(Duration::as_secs_f64),
            "losers": self.losers, "dropped": self.dropped, "owed": self.owed, "lost": self.lost, "failed": failed,
        })
    }

    fn cells(&self) -> Vec<String> {
        let seconds = |time: Option<Duration>| time.map_or("-".into(), |time| format!("{:.2}", time.as_secs_f64()));
        vec![
            self.file.clone(),
            (self.times.len() + self.never).to_string(),
            seconds(self.median()),
            seconds(self.times.iter().max().copied()),
            self.never.to_string(),
            seconds(self.sessions.iter().max().copied()),
            self.losers.to_string(),
            self.dropped.to_string(),
            self.owed.to_string(),
            self.lost.to_string(),
            self.failed.values().map(|(.., runs)| runs).sum::<usize>().to_string(),
        ]
    }
}

/// The bound of L2: a fault that comes sooner need not find everything whole.
fn had_no_time(heal: &Heal) -> bool {
    heal.is_cut_short && heal.took() < Duration::from_secs(15)
}

fn print(rows: &[Row], seeds: usize) {
    let paint = Paint::stdout();
    let cells: Vec<Vec<String>> = rows.iter().map(Row::cells).collect();
    let head = [
        "scenario",
        "repairs",
        "median s",
        "max s",
        "not healed",
        "one session s",
        "losers",
        "dropped",
        "owed",
        "lost",
        "failed",
    ];
    println!("{}", columns(&head, &cells, paint));
    for row in rows {
        for (check, (seed, message, runs)) in &row.failed {
            println!("{} {check} in {runs} runs: {message}", paint.red("FAILED"));
            println!("  look     cargo sim replay {} --seed {seed}", row.file);
        }
    }
    let sum = |of: fn(&Row) -> usize| rows.iter().map(of).sum::<usize>();
    let most = rows.iter().flat_map(|row| &row.times).max().copied().unwrap_or_default().as_secs_f64();
    let healed = format!("{} scenarios with {seeds} seeds, {} repairs", rows.len(), sum(|row| row.times.len()));
    let (never, dropped, losers) = (sum(|row| row.never), sum(|row| row.dropped), sum(|row| row.losers));
    let session = rows.iter().flat_map(|row| &row.sessions).max().copied().unwrap_or_default().as_secs_f64();
    let (owed, lost) = (rows.iter().map(|row| row.owed).sum::<u64>(), sum(|row| row.lost));
    let failed = rows.iter().any(|row| row.code != 0);
    println!(
        "{} healed, after {most:.2} s at most; {never} not healed; one session of each client after {session:.2} s at most, \
         {losers} connections lost to another one of their client; {dropped} others dropped; {lost} of {owed} messages lost",
        if failed { paint.red(&healed) } else { paint.green(&healed) }
    );
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use newtmq_base::Instant;
    use newtmq_sim::history::{History, Names};
    use newtmq_sim::report::{Heal, Violation, Witness};
    use newtmq_sim::{Check, Scenario, run};

    use super::{HealArguments, Row, heal};
    use crate::cli::files;

    fn lasted(ms: u64, is_whole: bool, has_quorum: bool, is_cut_short: bool) -> Heal {
        let repaired = Instant::from_millis(10_000);
        let one_session = is_whole.then(|| Duration::from_millis(ms));
        Heal { repaired, ended: repaired + Duration::from_millis(ms), is_whole, has_quorum, is_cut_short, one_session }
    }

    #[test]
    fn a_row_counts_what_was_measured_and_judges_the_rest() {
        let scenario = Scenario::default();
        let mut report = run(&scenario);
        report.history = Some(Box::new(History { events: Vec::new(), names: Names::default() }));
        let healed = |ms| lasted(ms, true, true, false);
        // Heals, exit code, times, not healed, not judged.
        type Line<'a> = (&'a [Heal], u8, usize, usize, usize);
        let table: &[Line<'_>] = &[
            (&[], 0, 0, 0, 0),
            (&[healed(300), healed(100), healed(200)], 0, 3, 0, 0),
            (&[lasted(14_000, false, true, true), healed(1)], 0, 1, 0, 1),
            (&[lasted(20_000, false, true, true)], 4, 0, 1, 0),
            (&[lasted(1_000, false, true, false)], 4, 0, 1, 0),
            (&[lasted(90_000, false, false, false)], 0, 0, 0, 1),
        ];
        for (heals, code, times, never, not_judged) in table {
            report.heals = heals.to_vec();
            let mut row = Row::new("a.toml".into());
            row.add(&scenario, &report);
            assert_eq!((row.code, row.times.len(), row.never, row.not_judged), (*code, *times, *never, *not_judged));
        }
        report.heals = vec![healed(300), healed(100), healed(200)];
        report.violations = vec![Violation {
            check: Check::Lost,
            at: Instant::START,
            message: "it is lost".into(),
            witness: Witness::default(),
        }];
        let mut row = Row::new("a.toml".into());
        row.add(&scenario, &report);
        assert_eq!(row.cells(), ["a.toml", "3", "0.20", "0.30", "0", "0.30", "0", "0", "0", "1", "1"]);
        assert_eq!(row.code, 5);
        let json = row.json();
        assert_eq!((json["median_s"].as_f64(), json["max_s"].as_f64()), (Some(0.2), Some(0.3)));
        assert_eq!((&json["failed"][0]["check"], json["failed"][0]["seed"].as_u64()), (&"S1".into(), Some(1)));
    }

    #[test]
    fn files_that_are_named_are_run_and_others_refused() {
        let arguments = |file: &str| HealArguments {
            files: vec![files::folder().join(file)],
            seeds: 2,
            first: 1,
            jobs: Some(2),
            json: true,
        };
        assert_eq!(heal(&arguments("cluster/oneway_each_way.toml")), Ok(0));
        for refused in ["cluster/oneway_driver.toml", "session/order.toml", "cluster/none.toml"] {
            assert!(heal(&arguments(refused)).is_err(), "{refused}");
        }
    }
}
