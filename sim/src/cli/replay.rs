//! `replay` and `explain`: one scenario, twice.

use newtmq_sim::timeline::TextStyle;
use newtmq_sim::{Options, Report, Scenario, Verdict, run_with};

use super::screen::Paint;
use super::{FAILED, ReplayArguments, files, mutants, views};

/// Runs a file twice and shows the run.
pub(super) fn replay(arguments: &ReplayArguments) -> Result<u8, String> {
    let Some((scenario, report)) = twice(arguments)? else { return Ok(FAILED) };
    if let Some(out) = &arguments.html {
        files::write(out, &views::page(&scenario, &report))?;
    }
    let (outcome, code) = judge(&scenario, &report, is_as_written(arguments));
    if arguments.json {
        println!("{}", views::json(&scenario, &report));
        return Ok(code);
    }
    let paint = Paint::stdout();
    let style = TextStyle { colour: paint.is_on(), width: width(), ..TextStyle::default() };
    let style = TextStyle { max_lines: style.max_lines.filter(|_| !arguments.all), ..style };
    println!("{}", views::timeline(&scenario, &report, style));
    println!(
        "{}: {}",
        files::shown(&arguments.file),
        if code == 0 { paint.green(&outcome) } else { paint.red(&outcome) }
    );
    println!("seed {}, trace hash {:016x}, twice the same", scenario.seed, report.trace_hash);
    if let Some(out) = &arguments.html {
        println!("page: {}", out.display());
    } else if code != 0 {
        println!("{}", paint.dim("--html OUT makes a page of it, `cargo sim explain` tells it in words"));
    }
    Ok(code)
}

/// Tells the story of a file's violations.
pub(super) fn explain(arguments: &ReplayArguments) -> Result<u8, String> {
    let Some((scenario, report)) = twice(arguments)? else { return Ok(FAILED) };
    println!("{}", views::story(&scenario, &report));
    Ok(judge(&scenario, &report, is_as_written(arguments)).1)
}

/// The scenario and what came of it; nothing if two runs differ, which is told.
fn twice(arguments: &ReplayArguments) -> Result<Option<(Scenario, Report)>, String> {
    let mut scenario = files::read(&arguments.file)?;
    scenario.seed = arguments.seed.unwrap_or(scenario.seed);
    refuse_other_tier(&scenario)?;
    mutants::activate(arguments.mutant.as_deref())?;
    let options = Options { record: true, white_box: !arguments.no_white_box };
    let first = run_with(&scenario, options, Vec::new());
    mutants::activate(arguments.mutant.as_deref())?;
    let second = run_with(&scenario, options, Vec::new());
    if first.trace_hash != second.trace_hash || first.violations != second.violations {
        eprintln!(
            "two runs of one scenario differ: trace hash {:016x} and {:016x}",
            first.trace_hash, second.trace_hash
        );
        return Ok(None);
    }
    Ok(Some((scenario, second)))
}

/// A madsim build runs both tiers, another one only the kernel.
fn refuse_other_tier(scenario: &Scenario) -> Result<(), String> {
    let message =
        "the scenario is for madsim, and this build has none; without --mutant `cargo sim` picks one that has";
    newtmq_sim::can_run(scenario.driver).then_some(()).ok_or_else(|| message.to_owned())
}

/// Nothing that changes what comes out, so that the file's hash counts.
fn is_as_written(arguments: &ReplayArguments) -> bool {
    arguments.seed.is_none() && arguments.mutant.is_none()
}

/// What came out against what was expected, in words, and the exit code.
pub(super) fn judge(scenario: &Scenario, report: &Report, as_written: bool) -> (String, u8) {
    let (expected, found) = (&scenario.expect.verdict[..], report.verdict_name());
    if found != expected {
        let code = if report.verdict() == Verdict::Ok { FAILED } else { report.verdict().exit_code() };
        let about = report.violations.first().map_or(String::new(), |violation| format!(": {}", violation.message));
        return (format!("verdict {found}, expected {expected}{about}"), code);
    }
    match &scenario.expect.trace_hash {
        Some(hash) if as_written && *hash != format!("{:016x}", report.trace_hash) => {
            (format!("trace hash {:016x}, expected {hash}", report.trace_hash), FAILED)
        }
        _ if expected == "ok" => ("ok".into(), 0),
        _ => (format!("violates {expected}, as expected"), 0),
    }
}

/// Columns of the terminal, as far as a shell tells.
fn width() -> usize {
    std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).unwrap_or(120)
}

#[cfg(test)]
mod tests {
    use newtmq_sim::report::{Violation, Witness};
    use newtmq_sim::{Check, Scenario, run};

    use super::judge;

    #[test]
    fn the_exit_code_is_about_what_was_expected() {
        let scenario = Scenario::default();
        let mut report = run(&scenario);
        let hash = format!("{:016x}", report.trace_hash);
        let other = "0000000000000000";
        // Expected verdict and hash, violated check, file as written, exit code.
        type Row<'a> = (&'a str, Option<&'a str>, Option<Check>, bool, u8);
        let table: &[Row<'_>] = &[
            ("ok", None, None, true, 0),
            ("ok", Some(&hash), None, true, 0),
            ("ok", Some(other), None, true, 1),
            ("ok", Some(other), None, false, 0),
            ("ok", None, Some(Check::Lost), true, 5),
            ("ok", None, Some(Check::WillFired), true, 4),
            ("ok", None, Some(Check::Crash), true, 3),
            ("S1", None, Some(Check::Lost), true, 0),
            ("S1", None, Some(Check::Order), true, 5),
            ("S1", None, None, true, 1),
        ];
        for (verdict, hash, check, as_written, code) in table {
            let mut scenario = scenario.clone();
            scenario.expect.verdict = (*verdict).into();
            scenario.expect.trace_hash = hash.map(str::to_owned);
            let violation = |check| Violation {
                check,
                at: newtmq_base::Instant::START,
                message: "it happened".into(),
                witness: Witness::default(),
            };
            report.violations = check.map(violation).into_iter().collect();
            let (outcome, found) = judge(&scenario, &report, *as_written);
            assert_eq!(found, *code, "{verdict} {hash:?} {check:?} {as_written}: {outcome}");
        }
    }
}
