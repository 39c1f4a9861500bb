//! The kill table: cases run with one planted bug until the checks have found it, or there are no more.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use newtmq_base::Mutant;
use newtmq_sim::shrink::{RUNS_MAX, Shrunk, shrink};
use newtmq_sim::{Check, Scenario, run};
use serde_json::json;

use crate::cli::budget::Budget;
use crate::cli::screen::{Paint, Progress, columns};
use crate::cli::{FAILED, MutantsArguments, cases, files, jobs_or_all};

/// What became of one planted bug.
struct Kill {
    mutant: Mutant,
    /// Cases until any check found it.
    any: Option<u64>,
    /// Cases until one did that looks at what clients see alone.
    black: Option<u64>,
    /// Checks of the cases that found it.
    checks: BTreeSet<Check>,
    /// How often it made a difference.
    reached: u64,
    /// The first case that found it, and what was left of it.
    shrunk: Option<Shrunk>,
}

/// Runs all of them and prints the table.
pub(super) fn table(arguments: &MutantsArguments) -> Result<u8, String> {
    let mut mutants = chosen(&arguments.only)?;
    mutants.retain(|mutant| !arguments.only.is_empty() || !mutant.is_of_part());
    let next = AtomicUsize::new(0);
    let kills = Mutex::new(Vec::new());
    let mut progress = Progress::new();
    let work = || {
        while let Some(mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
            let kill = hunt(*mutant, arguments);
            kills.lock().expect("nobody panics with it").push(kill);
        }
    };
    // What a planted bug breaks is told by the table, not by a message for each panic.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs_or_all(arguments.jobs)).map(|_| scope.spawn(work)).collect();
        while threads.iter().any(|thread| !thread.is_finished()) {
            std::thread::sleep(Duration::from_millis(20));
            let kills = kills.lock().expect("nobody panics with it");
            progress.show(kills.len() as f64 / mutants.len() as f64, || {
                let begun = &mutants[..next.load(Ordering::Relaxed).min(mutants.len())];
                let runs = begun.iter().filter(|mutant| kills.iter().all(|kill: &Kill| kill.mutant != **mutant));
                let names: Vec<&str> = runs.map(|mutant| mutant.name()).collect();
                format!("{} of {} planted bugs; {}", kills.len(), mutants.len(), names.join(", "))
            });
        }
    });
    std::panic::set_hook(hook);
    progress.clear();
    let mut kills = kills.into_inner().expect("nobody panicked with it");
    kills.sort_by_key(|kill| Mutant::ALL.iter().position(|mutant| *mutant == kill.mutant));
    if let Some(folder) = &arguments.save {
        for kill in &kills {
            if let Some(shrunk) = &kill.shrunk {
                files::write(&folder.join(format!("{}.toml", kill.mutant.name())), &shrunk.scenario.to_toml())?;
            }
        }
    }
    Ok(tell(&kills, arguments))
}

/// Makes a planted bug active in this thread, or none.
pub(super) fn activate(name: Option<&str>) -> Result<(), String> {
    let mutant = name.map(find).transpose()?;
    Mutant::activate(mutant);
    Ok(())
}

fn find(name: &str) -> Result<Mutant, String> {
    Mutant::from_name(name).ok_or_else(|| {
        let near = Mutant::ALL.iter().min_by_key(|mutant| strsim::damerau_levenshtein(mutant.name(), name));
        let near = near.map(|mutant| format!("; did you mean `{}`?", mutant.name())).unwrap_or_default();
        format!("there is no planted bug `{name}`{near}")
    })
}

/// Those that were named, else all.
pub(super) fn chosen(only: &[String]) -> Result<Vec<Mutant>, String> {
    if only.is_empty() { Ok(Mutant::ALL.to_vec()) } else { only.iter().map(|name| find(name)).collect() }
}

fn hunt(mutant: Mutant, arguments: &MutantsArguments) -> Kill {
    let mut kill = Kill { mutant, any: None, black: None, checks: BTreeSet::new(), reached: 0, shrunk: None };
    let mut first: Option<(Scenario, Check)> = None;
    let mut families = Families::new(&arguments.families, mutant.is_of_cluster());
    // A case of several nodes takes as long as dozens of others.
    let dear = arguments.families.is_empty() && mutant.is_of_cluster();
    let (most, black_box_more) = if dear {
        ((arguments.seeds / CLUSTER_CASE_COSTS).max(CLUSTER_CASES_MIN), BLACK_BOX_MORE_CLUSTER)
    } else {
        (arguments.seeds, BLACK_BOX_MORE)
    };
    for number in 1..=most {
        if kill.any.is_some_and(|found| number > found + black_box_more) {
            break;
        }
        let seed = arguments.first.wrapping_add(number - 1);
        let family = families.next(number);
        let scenario = cases::case(&[families.names[family].clone()], false, seed);
        let mut violated = checks(&scenario, Some(mutant));
        // A case of a cluster fails once in thousands without any bug, so only what the bug is known for says that it is it.
        violated.retain(|check| !mutant.is_of_cluster() || mutant.expected().contains(&check.name()));
        families.reached[family] += u64::from(Mutant::times_reached() > 0);
        kill.reached += Mutant::times_reached();
        let black = violated.iter().any(|check| check.is_black_box() || *check == Check::Crash);
        let news = kill.any.is_none() && !violated.is_empty() || kill.black.is_none() && black;
        // A case that fails without the bug as well says nothing about it.
        if !news || !checks(&scenario, None).is_empty() {
            continue;
        }
        kill.any.get_or_insert(number);
        kill.checks.extend(&violated);
        first.get_or_insert((scenario, violated[0]));
        if black {
            kill.black = Some(number);
            break;
        }
    }
    if arguments.shrink {
        let mut budget = Budget::default();
        kill.shrunk = first.map(|(scenario, check)| {
            shrink(&scenario, check, RUNS_MAX, &mut |case| {
                budget.run(case, |case| {
                    Mutant::activate(Some(mutant));
                    run(case)
                })
            })
        });
    }
    Mutant::activate(None);
    kill
}

/// Which family the next case is of: every second one is of the family whose cases reached the bug most often so far.
struct Families {
    names: Vec<String>,
    /// Cases that reached the bug.
    reached: Vec<u64>,
}

impl Families {
    fn new(named: &[String], of_cluster: bool) -> Families {
        let names = if named.is_empty() {
            let usual = if of_cluster { cases::of_clusters() } else { cases::of_one_node() };
            usual.iter().map(|family| family.name().to_owned()).collect()
        } else {
            named.to_vec()
        };
        Families { reached: vec![0; names.len()], names }
    }

    fn next(&self, number: u64) -> usize {
        if number.is_multiple_of(2) {
            return (number / 2 % self.names.len() as u64) as usize;
        }
        let most = self.reached.iter().max().copied().unwrap_or_default();
        self.reached.iter().position(|reached| *reached == most).unwrap_or_default()
    }
}

/// The checks that a run violates, the worst first.
pub(super) fn checks(scenario: &Scenario, mutant: Option<Mutant>) -> Vec<Check> {
    Mutant::activate(mutant);
    match catch_unwind(AssertUnwindSafe(|| run(scenario))) {
        Ok(report) => report.violations.iter().map(|violation| violation.check).collect(),
        Err(_) => vec![Check::Crash],
    }
}

fn tell(kills: &[Kill], arguments: &MutantsArguments) -> u8 {
    let total = kills.len();
    let any = kills.iter().filter(|kill| kill.any.is_some()).count();
    let black = kills.iter().filter(|kill| kill.black.is_some()).count();
    // What several nodes do to each other clients mostly never see.
    let of_node = || kills.iter().filter(|kill| !kill.mutant.is_of_cluster());
    let seen = of_node().filter(|kill| kill.black.is_some()).count();
    let enough = any == total && seen * 100 >= of_node().count() * BLACK_PERCENT_MIN;
    let code = if enough { 0 } else { FAILED };
    let (median_any, median_black) =
        (median(kills.iter().map(|kill| kill.any)), median(kills.iter().map(|kill| kill.black)));
    let of_cluster = total - of_node().count();
    if arguments.json {
        let rows: Vec<_> = kills.iter().map(as_json).collect();
        let summary = json!({
            "mutants": rows, "total": total, "killed": any, "killed_by_black_box": black,
            "of_cluster": of_cluster, "of_cluster_by_black_box": black - seen,
            "median_cases": median_any, "median_cases_black_box": median_black, "enough": enough,
        });
        println!("{summary}");
        return code;
    }
    let paint = Paint::stdout();
    let rows: Vec<Vec<String>> = kills.iter().map(row).collect();
    let head = ["bug", "found by", "checks", "cases", "black box", "shrunk", "what is broken"];
    println!("{}", columns(&head, &rows, paint));
    for kill in kills.iter().filter(|kill| kill.any.is_none()) {
        let why = if kill.reached == 0 { "never reached" } else { "reached, not found" };
        println!("{} {} ({why}): {}", paint.red("SURVIVED"), kill.mutant.name(), kill.mutant.about());
    }
    let percent = |part: usize| part as f64 * 100.0 / total.max(1) as f64;
    let score =
        format!("{any} of {total} found ({:.0} %), by black box alone {black} ({:.0} %)", percent(any), percent(black));
    println!("{}", if enough { paint.green(&score) } else { paint.red(&score) });
    println!("of them {of_cluster} only several nodes have; {} of these by black box alone", black - seen);
    let shown = |median: Option<u64>| median.map_or("-".to_owned(), |median| median.to_string());
    println!(
        "cases until one is found, in the middle: {}, by black box alone {}",
        shown(median_any),
        shown(median_black)
    );
    code
}

fn row(kill: &Kill) -> Vec<String> {
    let by = match (kill.any, kill.black) {
        (_, Some(_)) => "black box",
        (Some(_), None) => "white box",
        (None, None) => "nothing",
    };
    let checks: Vec<&str> = kill.checks.iter().map(|check| check.name()).collect();
    let number = |cases: Option<u64>| cases.map_or(String::new(), |cases| cases.to_string());
    let shrunk = kill.shrunk.as_ref();
    let shrunk = shrunk
        .map(|shrunk| format!("{} → {} steps, {} runs", shrunk.steps_before, shrunk.scenario.steps.len(), shrunk.runs));
    vec![
        kill.mutant.name().into(),
        by.into(),
        checks.join(" "),
        number(kill.any),
        number(kill.black),
        shrunk.unwrap_or_default(),
        kill.mutant.about().into(),
    ]
}

fn as_json(kill: &Kill) -> serde_json::Value {
    let shrunk = kill.shrunk.as_ref();
    json!({
        "name": kill.mutant.name(), "number": kill.mutant.number(), "expected": kill.mutant.expected(),
        "checks": kill.checks.iter().map(|check| check.name()).collect::<Vec<_>>(),
        "cases": kill.any, "cases_black_box": kill.black, "reached": kill.reached,
        "steps_before": shrunk.map(|shrunk| shrunk.steps_before),
        "steps_after": shrunk.map(|shrunk| shrunk.scenario.steps.len()), "runs": shrunk.map(|shrunk| shrunk.runs),
    })
}

fn median(all: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    let mut all: Vec<u64> = all.flatten().collect();
    all.sort_unstable();
    all.get(all.len() / 2).copied()
}

/// So many cases more for what clients see alone, once a look inside has found a bug: some of them nobody ever sees.
const BLACK_BOX_MORE: u64 = 2_000;
const BLACK_BOX_MORE_CLUSTER: u64 = 200;
/// For a bug that only several nodes have there are so many times fewer cases,
const CLUSTER_CASE_COSTS: u64 = 100;
/// but not fewer than these.
const CLUSTER_CASES_MIN: u64 = 100;
/// Of a hundred planted bugs that one node can have so many must be found by what clients see alone.
const BLACK_PERCENT_MIN: usize = 90;
