//! Arguments and exit codes.

mod budget;
mod cases;
mod files;
mod guard;
mod heal;
mod mutants;
mod replay;
mod screen;
mod suite;
mod swarm;
mod views;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// The deterministic testbed of NewtMQ
#[derive(Debug, Parser)]
#[command(name = "cargo sim", bin_name = "cargo sim", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the scenario files and what they guard
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Run a scenario file twice, compare, and show what happened
    Replay(ReplayArguments),
    /// Tell in words how a scenario violates what it violates
    Explain(ReplayArguments),
    /// Run cases that nobody wrote; shrink and save what fails
    Swarm(SwarmArguments),
    /// See how long clusters take to be whole after a repair
    Heal(HealArguments),
    /// Plant bugs one by one and see whether they are found
    Mutants(MutantsArguments),
    /// Run every scenario file and compare verdicts and hashes
    Test {
        /// Write the hashes that came out into the files that have one
        #[arg(long)]
        accept: bool,
        /// So many threads; one for each processor without it
        #[arg(long)]
        jobs: Option<usize>,
    },
    /// Run one seed in two threads and two processes, and compare
    Guard {
        /// The seed
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Only print the hashes: the other process
        #[arg(long, hide = true)]
        print: bool,
    },
    /// Write the reference of scenario files
    Docs {
        /// For example docs/scenarios.md
        file: PathBuf,
    },
}

/// What `replay` and `explain` take.
#[derive(Debug, Args)]
struct ReplayArguments {
    /// The scenario file
    file: PathBuf,
    /// Another seed than the file's
    #[arg(long)]
    seed: Option<u64>,
    /// Write a page to look at with a browser
    #[arg(long, value_name = "OUT")]
    html: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// With this planted bug
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
    /// Look only at what clients see
    #[arg(long)]
    no_white_box: bool,
    /// Show every line, also of a long run
    #[arg(long)]
    all: bool,
}

/// What `swarm` takes.
#[derive(Debug, Args)]
struct SwarmArguments {
    /// How many cases
    #[arg(long, value_name = "N", conflicts_with = "minutes")]
    seeds: Option<u64>,
    /// How long; 1 without --seeds and --minutes
    #[arg(long, value_name = "M")]
    minutes: Option<f64>,
    /// Only cases of this family; may be repeated. Without it all
    #[arg(long = "family", value_name = "F")]
    families: Vec<String>,
    /// So many threads; one for each processor without it
    #[arg(long, value_name = "J")]
    jobs: Option<usize>,
    /// The first seed
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    first: u64,
    /// Cases with all phases instead of small ones
    #[arg(long)]
    full: bool,
    /// Print the summary as one line of JSON
    #[arg(long)]
    json: bool,
}

/// What `heal` takes.
#[derive(Debug, Args)]
struct HealArguments {
    /// Scenario files; without any all that have several nodes and are repaired
    files: Vec<PathBuf>,
    /// How many seeds for each
    #[arg(long, value_name = "N", default_value_t = 100)]
    seeds: u64,
    /// The first seed
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    first: u64,
    /// So many threads; one for each processor without it
    #[arg(long, value_name = "J")]
    jobs: Option<usize>,
    /// Print the table as one line of JSON
    #[arg(long)]
    json: bool,
}

/// What `mutants` takes.
#[derive(Debug, Args)]
struct MutantsArguments {
    /// Print the table as one line of JSON
    #[arg(long)]
    json: bool,
    /// Only this planted bug; may be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Only cases of this family; may be repeated
    #[arg(long = "family", value_name = "F", conflicts_with = "scenarios")]
    families: Vec<String>,
    /// Most cases for each
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    seeds: u64,
    /// The first seed
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    first: u64,
    /// See which of them each scenario file finds, instead of cases that nobody wrote
    #[arg(long, conflicts_with_all = ["shrink", "save"])]
    scenarios: bool,
    /// Only those that a file says it finds, for each file
    #[arg(long, requires = "scenarios")]
    named: bool,
    /// So many threads; one for each processor without it
    #[arg(long, value_name = "J")]
    jobs: Option<usize>,
    /// Shrink the first case that finds each one
    #[arg(long)]
    shrink: bool,
    /// Save the shrunk cases in this folder, named by the planted bug
    #[arg(long, value_name = "DIR", requires = "shrink")]
    save: Option<PathBuf>,
}

/// Runs the command line.
pub(crate) fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::List { json } => suite::list(json),
        Command::Replay(arguments) => replay::replay(&arguments),
        Command::Explain(arguments) => replay::explain(&arguments),
        Command::Swarm(arguments) => swarm::swarm(&arguments),
        Command::Heal(arguments) => heal::heal(&arguments),
        Command::Mutants(arguments) => mutants::mutants(&arguments),
        Command::Test { accept, jobs } => suite::test(accept, jobs_or_all(jobs)),
        Command::Guard { seed, print } => guard::guard(seed, print),
        Command::Docs { file } => files::write(&file, &newtmq_sim::scenario::markdown()).map(|()| 0),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(WRONG)
        }
    }
}

fn jobs_or_all(jobs: Option<usize>) -> usize {
    jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)).max(1)
}

/// Exit code: something failed that is no verdict of a run.
const FAILED: u8 = 1;
/// Exit code: something did not happen in time.
const LATE: u8 = 4;
/// Exit code: wrong arguments or a file that is no scenario.
const WRONG: u8 = 2;
