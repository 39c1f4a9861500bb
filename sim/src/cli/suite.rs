//! `list` and `test`: all scenario files.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use newtmq_sim::scenario::Driver;
use newtmq_sim::{Options, Scenario, run_with};
use serde_json::json;

use super::screen::{Paint, columns};
use super::{FAILED, WRONG, files, replay};

/// Lists the files.
pub(super) fn list(as_json: bool) -> Result<u8, String> {
    let mut code = 0;
    let mut rows = Vec::new();
    let mut values = Vec::new();
    for path in files::all(&files::folder()) {
        let scenario = match files::read(&path) {
            Ok(scenario) => scenario,
            Err(message) => {
                eprintln!("{message}");
                code = WRONG;
                continue;
            }
        };
        let driver = driver_name(scenario.driver);
        let (file, family, verdict) = (files::shown(&path), files::family(&path), scenario.expect.verdict.clone());
        values.push(json!({
            "file": file, "family": family, "driver": driver, "verdict": verdict, "why": scenario.why,
            "steps": scenario.steps.len(),
        }));
        rows.push(vec![file, driver.to_owned(), verdict, scenario.why.clone()]);
    }
    if as_json {
        println!("{}", json!(values));
    } else {
        print!("{}", columns(&["file", "driver", "expects", "why"], &rows, Paint::stdout()));
    }
    Ok(code)
}

/// Runs the files of this tier, except those that a swarm found and nobody has looked at yet.
pub(super) fn test(accept: bool, jobs: usize) -> Result<u8, String> {
    let since = Instant::now();
    let here = if cfg!(madsim) { Driver::Madsim } else { Driver::Kernel };
    let found = files::folder().join("found");
    let all = files::all(&files::folder()).into_iter().filter(|path| !path.starts_with(&found));
    let mut cases = Vec::new();
    let mut failures = Vec::new();
    for path in all {
        match files::read(&path) {
            Ok(scenario) if scenario.driver == here => cases.push((path, scenario)),
            Ok(_) => {}
            Err(message) => failures.push((path, message)),
        }
    }
    let count = cases.len();
    failures.extend(run_all(&cases, accept, jobs));
    failures.sort();
    let paint = Paint::stdout();
    for (path, message) in &failures {
        println!("{} {}: {message}", paint.red("FAILED"), files::shown(path));
    }
    let seconds = since.elapsed().as_secs_f64();
    println!("{count} scenarios, {} failed, in {seconds:.1} s", failures.len());
    Ok(if failures.is_empty() { 0 } else { FAILED })
}

/// What failed; each case runs in the next thread that has time.
fn run_all(cases: &[(PathBuf, Scenario)], accept: bool, jobs: usize) -> Vec<(PathBuf, String)> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut failures = Vec::new();
        while let Some((path, scenario)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let report = run_with(scenario, Options::default(), Vec::new());
            let hash = format!("{:016x}", report.trace_hash);
            let mut scenario = scenario.clone();
            if accept && scenario.expect.trace_hash.is_some() {
                if let Err(message) = put_hash(path, scenario.expect.trace_hash.as_deref().unwrap_or_default(), &hash) {
                    failures.push((path.clone(), message));
                }
                scenario.expect.trace_hash = Some(hash);
            }
            let (outcome, code) = replay::judge(&scenario, &report, true);
            if code != 0 {
                failures.push((path.clone(), outcome));
            }
        }
        failures
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a worker that fails says so by itself")).collect()
    })
}

/// Everything else of the file stays as its author wrote it.
fn put_hash(path: &Path, old: &str, new: &str) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    if old == new { Ok(()) } else { files::write(path, &text.replace(old, new)) }
}

pub(super) fn driver_name(driver: Driver) -> &'static str {
    match driver {
        Driver::Kernel => "kernel",
        Driver::Madsim => "madsim",
    }
}
