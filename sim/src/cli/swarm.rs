//! `swarm`: cases that nobody wrote, in as many threads as there are processors. What a seed gives does not depend on the
//! threads; only the order in which failures are told does.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use newtmq_sim::report::{Class, Obligations};
use newtmq_sim::shrink::{RUNS_MAX, shrink};
use newtmq_sim::{Check, Report, Scenario, Verdict, run};
use serde_json::json;

use super::budget::Budget;
use super::screen::{Paint, Progress, columns, grouped};
use super::{SwarmArguments, cases, files, jobs_or_all};

/// Runs the cases.
pub(super) fn swarm(arguments: &SwarmArguments) -> Result<u8, String> {
    let known = cases::families();
    if let Some(family) = arguments.families.iter().find(|family| !known.contains(&family.as_str())) {
        return Err(format!("there is no family `{family}`; there are {}", known.join(", ")));
    }
    let limit = match (arguments.seeds, arguments.minutes) {
        (Some(_), _) => None,
        (None, minutes) => Some(
            Duration::try_from_secs_f64(minutes.unwrap_or(1.0) * 60.0)
                .map_err(|_| "--minutes must be a number from 0 on".to_owned())?,
        ),
    };
    let swarm = Swarm {
        arguments,
        commit: files::commit(),
        paint: Paint::stdout(),
        next: AtomicU64::new(0),
        cases: AtomicU64::new(0),
        failures: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        totals: Mutex::default(),
        told: Mutex::new(Told { found: files::Found::open(), progress: Progress::new(), by_check: Vec::new() }),
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs_or_all(arguments.jobs)).map(|_| scope.spawn(|| swarm.work())).collect();
        while threads.iter().any(|thread| !thread.is_finished()) {
            std::thread::sleep(Duration::from_millis(20));
            swarm.show(limit);
        }
    });
    swarm.finish()
}

struct Swarm<'a> {
    arguments: &'a SwarmArguments,
    commit: String,
    paint: Paint,
    next: AtomicU64,
    cases: AtomicU64,
    failures: AtomicU64,
    stop: AtomicBool,
    totals: Mutex<Totals>,
    told: Mutex<Told>,
}

#[derive(Default)]
struct Totals {
    obligations: Obligations,
    simulated: Duration,
    events: u64,
    verdict: Option<Verdict>,
}

struct Told {
    found: files::Found,
    progress: Progress,
    by_check: Vec<(Check, u32)>,
}

impl Swarm<'_> {
    fn work(&self) {
        let mut mine = Totals::default();
        while !self.stop.load(Ordering::Relaxed) {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            if self.arguments.seeds.is_some_and(|seeds| index >= seeds) {
                break;
            }
            let seed = self.arguments.first.wrapping_add(index);
            match catch_unwind(AssertUnwindSafe(|| self.one(seed, &mut mine))) {
                Ok(verdict) => mine.verdict = mine.verdict.max(Some(verdict)),
                Err(_) => {
                    mine.verdict = Some(Verdict::Violated(Class::Crash)).max(mine.verdict);
                    self.failures.fetch_add(1, Ordering::Relaxed);
                    println!(
                        "{} seed {seed}: the testbed itself panicked\n{}",
                        self.paint.red("FAILED"),
                        self.again(seed)
                    );
                }
            }
            self.cases.fetch_add(1, Ordering::Relaxed);
        }
        let mut totals = self.totals.lock().expect("nobody panics with it");
        totals.obligations.add(&mine.obligations);
        totals.simulated += mine.simulated;
        totals.events += mine.events;
        totals.verdict = totals.verdict.max(mine.verdict);
    }

    fn one(&self, seed: u64, mine: &mut Totals) -> Verdict {
        let scenario = cases::case(&self.arguments.families, self.arguments.full, seed);
        let report = run(&scenario);
        mine.obligations.add(&report.obligations);
        mine.simulated += report.simulated;
        mine.events += report.events;
        if report.verdict() != Verdict::Ok {
            self.failures.fetch_add(1, Ordering::Relaxed);
            self.failed(&scenario, &report);
        }
        report.verdict()
    }

    /// Tells a failure, with all that it takes to see it again.
    fn failed(&self, scenario: &Scenario, report: &Report) {
        let violation = &report.violations[0];
        let check = violation.check;
        let times = self.count(check);
        if times > SHRUNK_MAX {
            return;
        }
        let mut budget = Budget::default();
        let shrunk = shrink(scenario, check, RUNS_MAX, &mut |case| budget.run(case, run));
        let mut small = shrunk.scenario;
        small.why = format!("found by the swarm, seed {}: {}", scenario.seed, check.about());
        let mut told = self.told.lock().expect("nobody panics with it");
        let saved = match told.found.save(&small, check) {
            Ok(Some(path)) => format!("saved as {path}\n  look     cargo sim replay {path}"),
            Ok(None) => "one of this shape is saved already".into(),
            Err(message) => message,
        };
        told.progress.clear();
        println!("{} seed {}: {check}: {}", self.paint.red("FAILED"), scenario.seed, violation.message);
        println!("{}", self.again(scenario.seed));
        let steps = small.steps.len();
        println!("  shrunk   {} steps to {steps} in {} runs; {saved}", shrunk.steps_before, shrunk.runs);
        let at_ms = violation.at.as_nanos() / 1_000_000;
        let before = scenario.steps.iter().take_while(|step| step.at_ms <= at_ms).count();
        let first = before.saturating_sub(STEPS_SHOWN);
        println!("  the last {} of {before} steps before it, of {}:", before - first, scenario.steps.len());
        for index in first..before {
            println!("    {}", self.paint.dim(&scenario.step_line(index)));
        }
        if times == SHRUNK_MAX {
            println!("  further violations of {check} are only counted");
        }
    }

    fn count(&self, check: Check) -> u32 {
        let mut told = self.told.lock().expect("nobody panics with it");
        match told.by_check.iter_mut().find(|(known, _)| *known == check) {
            Some((_, times)) => {
                *times += 1;
                *times
            }
            None => {
                told.by_check.push((check, 1));
                1
            }
        }
    }

    fn again(&self, seed: u64) -> String {
        let mut options = if self.arguments.full { " --full".to_owned() } else { String::new() };
        self.arguments.families.iter().for_each(|family| options.push_str(&format!(" --family {family}")));
        format!("  commit   {}\n  again    cargo sim swarm --first {seed} --seeds 1{options}", self.commit)
    }

    fn show(&self, limit: Option<Duration>) {
        let mut told = self.told.lock().expect("nobody panics with it");
        let elapsed = told.progress.elapsed();
        let cases = self.cases.load(Ordering::Relaxed);
        let part = match (limit, self.arguments.seeds) {
            (Some(limit), _) => {
                if elapsed >= limit {
                    self.stop.store(true, Ordering::Relaxed);
                }
                elapsed.as_secs_f64() / limit.as_secs_f64().max(0.001)
            }
            (None, seeds) => cases as f64 / seeds.unwrap_or(1).max(1) as f64,
        };
        let failures = self.failures.load(Ordering::Relaxed);
        told.progress.show(part, || {
            let rate = (cases as f64 / elapsed.as_secs_f64().max(0.001)) as u64;
            format!("{} cases, {} a second, {} failed", grouped(cases), grouped(rate), grouped(failures))
        });
    }

    fn finish(self) -> Result<u8, String> {
        let totals = self.totals.into_inner().expect("nobody panicked with it");
        let mut told = self.told.into_inner().expect("nobody panicked with it");
        told.progress.clear();
        let seconds = told.progress.elapsed().as_secs_f64().max(0.001);
        let (cases, failures) = (self.cases.into_inner(), self.failures.into_inner());
        let code = totals.verdict.unwrap_or(Verdict::Ok).exit_code();
        let idle: Vec<Check> = Check::ALL.iter().copied().filter(|check| totals.obligations.of(*check) == 0).collect();
        let per_second = cases as f64 / seconds;
        let simulated = totals.simulated.as_secs_f64() / seconds;
        if self.arguments.json {
            let obligations: serde_json::Map<_, _> = Check::ALL
                .iter()
                .map(|check| (check.name().to_owned(), totals.obligations.of(*check).into()))
                .collect();
            let summary = json!({
                "commit": self.commit, "first": self.arguments.first, "cases": cases, "failed": failures,
                "seconds": seconds, "cases_per_second": per_second, "events": totals.events,
                "simulated_seconds_per_second": simulated, "obligations": obligations,
            });
            println!("{summary}");
            return Ok(code);
        }
        let rows: Vec<Vec<String>> = Check::ALL
            .iter()
            .map(|check| vec![check.name().into(), grouped(totals.obligations.of(*check)), check.about().into()])
            .collect();
        println!("{}", columns(&["check", "times", "finds"], &rows, self.paint));
        if !idle.is_empty() {
            let names: Vec<&str> = idle.iter().map(|check| check.name()).collect();
            let text = format!("warning: nothing to look at for {}", names.join(", "));
            println!("{}", self.paint.yellow(&text));
        }
        let outcome = format!("{} cases, {failures} failed", grouped(cases));
        println!(
            "{} in {seconds:.1} s: {} cases and {} simulated seconds a second, {} events",
            if failures == 0 { self.paint.green(&outcome) } else { self.paint.red(&outcome) },
            grouped(per_second as u64),
            grouped(simulated as u64),
            grouped(totals.events),
        );
        Ok(code)
    }
}

/// So many cases of one check are shrunk and told; the others are likely the same.
const SHRUNK_MAX: u32 = 5;
/// Steps of a failure that are shown.
const STEPS_SHOWN: usize = 50;
