//! Which planted bugs each scenario file finds. A file that finds none guards nothing. Files for madsim run in the kernel
//! tier here: there are planted bugs in the core alone, and it is the same. Bugs that only several nodes have are tried with
//! files of several nodes, and the others with the others.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use newtmq_base::Mutant;
use newtmq_sim::scenario::Driver;
use newtmq_sim::{Check, Scenario};
use serde_json::json;

use super::kill::{checks, chosen};
use crate::cli::screen::{Paint, columns};
use crate::cli::{FAILED, MutantsArguments, files, jobs_or_all};

/// What became of one file.
struct Row {
    file: String,
    /// Its planted bugs may be those of the trials of a part alone: it has several nodes, or devices.
    may_find_none: bool,
    /// The bugs that it must find.
    kills: Vec<String>,
    /// Those that it finds, each with the worst check.
    found: Vec<(Mutant, Check)>,
    /// What is violated without any bug, other than what the file expects.
    clean: Option<Check>,
}

/// Runs every file with every bug and prints the table.
pub(super) fn table(arguments: &MutantsArguments) -> Result<u8, String> {
    let mutants = chosen(&arguments.only)?;
    let cases = cases()?;
    let next = AtomicUsize::new(0);
    let rows = Mutex::new(Vec::new());
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    std::thread::scope(|scope| {
        for _ in 0..jobs_or_all(arguments.jobs) {
            scope.spawn(|| {
                while let Some((path, scenario)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let row = try_all(files::shown(path), scenario, &mutants, arguments.named);
                    rows.lock().expect("nobody panics with it").push(row);
                }
            });
        }
    });
    std::panic::set_hook(hook);
    let mut rows = rows.into_inner().expect("nobody panicked with it");
    rows.sort_by(|one, other| one.file.cmp(&other.file));
    Ok(tell(&rows, &mutants, arguments))
}

/// The files that people wrote, as the kernel tier runs them.
fn cases() -> Result<Vec<(PathBuf, Scenario)>, String> {
    let found = files::folder().join("found");
    let mut cases = Vec::new();
    for path in files::all(&files::folder()).into_iter().filter(|path| !path.starts_with(&found)) {
        let scenario = Scenario { driver: Driver::Kernel, ..files::read(&path)? };
        for name in &scenario.expect.kills {
            chosen(std::slice::from_ref(name)).map_err(|message| format!("{}: {message}", files::shown(&path)))?;
        }
        cases.push((path, scenario));
    }
    Ok(cases)
}

fn try_all(file: String, scenario: &Scenario, mutants: &[Mutant], only_named: bool) -> Row {
    let worst = |mutant| checks(scenario, mutant).into_iter().find(|check| check.name() != scenario.expect.verdict);
    let named = |mutant: Mutant| scenario.expect.kills.iter().any(|kill| kill == mutant.name());
    let fits = |mutant: Mutant| !only_named && mutant.is_of_cluster() == scenario.is_cluster();
    let tried = mutants.iter().filter(|mutant| fits(**mutant) || named(**mutant));
    let found = tried.filter_map(|mutant| Some((*mutant, worst(Some(*mutant))?))).collect();
    let clean = worst(None);
    let may_find_none = scenario.is_cluster() || scenario.has_sn();
    Row { file, may_find_none, kills: scenario.expect.kills.clone(), found, clean }
}

/// What is wrong with a file, if its bugs were among those that were tried.
fn wrong(row: &Row, mutants: &[Mutant]) -> Option<String> {
    if let Some(check) = row.clean {
        return Some(format!("violates {check} without any planted bug"));
    }
    // Of what such a file guards, the trials of the parts of the core often have the only planted bug.
    if row.kills.is_empty() && !row.may_find_none {
        return Some("`expect.kills` names no planted bug".into());
    }
    let missed: Vec<&str> = row
        .kills
        .iter()
        .map(|name| &name[..])
        .filter(|name| mutants.iter().any(|mutant| mutant.name() == *name))
        .filter(|name| row.found.iter().all(|(mutant, _)| mutant.name() != *name))
        .collect();
    (!missed.is_empty()).then(|| format!("does not find {}", missed.join(", ")))
}

fn tell(rows: &[Row], mutants: &[Mutant], arguments: &MutantsArguments) -> u8 {
    let failures: Vec<(&Row, String)> = rows.iter().filter_map(|row| Some((row, wrong(row, mutants)?))).collect();
    let code = if failures.is_empty() { 0 } else { FAILED };
    if arguments.json {
        let rows: Vec<_> = rows.iter().map(|row| as_json(row, mutants)).collect();
        println!("{}", json!({ "scenarios": rows, "failed": failures.len() }));
        return code;
    }
    let paint = Paint::stdout();
    let shown = |row: &Row| {
        let named = |name: &str| row.kills.iter().any(|kill| kill == name);
        let (must, more): (Vec<_>, Vec<_>) = row.found.iter().partition(|(mutant, _)| named(mutant.name()));
        let must: Vec<_> = must.iter().map(|(mutant, check)| format!("{} by {check}", mutant.name())).collect();
        vec![row.file.clone(), must.join(", "), more.len().to_string()]
    };
    print!("{}", columns(&["file", "finds", "more"], &rows.iter().map(shown).collect::<Vec<_>>(), paint));
    for (row, message) in &failures {
        println!("{} {}: {message}", paint.red("FAILED"), row.file);
    }
    let any = |mutant: &&Mutant| rows.iter().any(|row| row.found.iter().any(|(found, _)| found == *mutant));
    let found = mutants.iter().filter(any).count();
    let missed: Vec<&str> = mutants.iter().filter(|mutant| !any(mutant)).map(|mutant| mutant.name()).collect();
    println!(
        "{} scenarios, {} failed; they find {found} of {} planted bugs",
        rows.len(),
        failures.len(),
        mutants.len()
    );
    if !missed.is_empty() && !arguments.named {
        println!("in no file: {}", missed.join(", "));
    }
    code
}

fn as_json(row: &Row, mutants: &[Mutant]) -> serde_json::Value {
    let found: serde_json::Map<String, serde_json::Value> =
        row.found.iter().map(|(mutant, check)| (mutant.name().to_owned(), json!(check.name()))).collect();
    json!({ "file": row.file, "kills": row.kills, "found": found, "wrong": wrong(row, mutants) })
}
