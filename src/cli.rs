//! The command line: reads arguments, loads the configuration, opens the data directory and hands over to `run`.
//! Errors go to standard error; what a command is asked for goes to standard output.

mod ctl;
mod settings;
mod top;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use newtmq_node::SHARDS_MAX;

use crate::access::{self, Passwd};
use crate::cluster::watched::Watched;
use crate::config::{self, Sources};
use crate::data::{DataDir, NodeIdentity};
use crate::exit::Exit;
use crate::reload::Reading;
use crate::run::RunOptions;
use crate::store::{self, Done, Task};
use crate::{cert, check, demo, limits, logging};

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse_from(ctl::words(std::env::args_os())) {
        Ok(arguments) => arguments,
        // Help and version are "errors" to the parser, with their own code and stream.
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Success }.into();
        }
    };
    let result = match arguments.command.unwrap_or(Command::Run(arguments.run)) {
        Command::Run(arguments) => run(&arguments),
        Command::CheckConfig { file, json } => settings::check_config(&file, json),
        Command::Config(ConfigCommand::Import { file, output, force, json }) => {
            settings::config_import(&file, output.as_deref(), force, json)
        }
        Command::Passwd { file, user, scram, delete } => passwd(Passwd { file, user, scram, delete }),
        Command::Cert(CertCommand::Dev(arguments)) => cert_dev(arguments),
        Command::Data(command) => data(command),
        Command::Ctl { data, socket, json, command } => ctl::ctl(&data, socket, json, command),
        Command::Completions { shell } => ctl::completions(shell),
        Command::Man { dir } => man(&dir),
        Command::Demo(DemoCommand::Cluster(arguments)) => demo_cluster(arguments),
        Command::ConfigDocs { file, migration, sample, table } => {
            settings::config_docs(file.as_deref(), migration, sample, table)
        }
    };
    match result {
        Ok(()) => Exit::Success.into(),
        Err(Failed { exit, error }) => {
            if let Some(error) = error {
                // Nobody may be reading it; the code tells it, too.
                let _ = writeln!(std::io::stderr(), "newtmq: {error:#}");
            }
            exit.into()
        }
    }
}

/// NewtMQ, an MQTT broker.
#[derive(Debug, Parser)]
#[command(name = "newtmq", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Without a command, those of `run`.
    #[command(flatten)]
    run: RunArguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the broker. This is what happens without a command, too.
    #[command(after_help = EXAMPLES)]
    Run(RunArguments),
    /// Check a configuration file and print what it sets, without starting anything.
    CheckConfig {
        /// The file.
        file: PathBuf,
        /// Print one line of JSON.
        #[arg(long)]
        json: bool,
    },
    /// Bring a configuration from elsewhere.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Set a user's password in a password file, which is made if there is none. The password is asked for, or is the
    /// first line of standard input if that is no terminal.
    Passwd {
        /// The password file.
        file: PathBuf,
        /// The user's name.
        user: String,
        /// Let the user log in with SCRAM-SHA-256, too. Whoever gets hold of the file can then try passwords faster.
        #[arg(long)]
        scram: bool,
        /// Delete the user instead.
        #[arg(long, conflicts_with = "scram")]
        delete: bool,
    },
    /// Make certificates.
    #[command(subcommand)]
    Cert(CertCommand),
    /// Look at what a data directory stores, save it, or repair it.
    #[command(subcommand, after_help = DATA_HELP)]
    Data(DataCommand),
    /// Ask a broker that runs on this machine.
    #[command(after_help = CTL_HELP)]
    Ctl {
        /// The broker's data directory.
        #[arg(short, long, value_name = "DIR", default_value = "data", global = true)]
        data: PathBuf,
        /// The broker's socket, if that is not in its data directory.
        #[arg(long, value_name = "FILE", global = true)]
        socket: Option<PathBuf>,
        /// Print one line of JSON.
        #[arg(long, global = true)]
        json: bool,
        #[command(subcommand)]
        command: ctl::CtlCommand,
    },
    /// Write what completes commands in a shell to standard output.
    #[command(after_help = COMPLETIONS_HELP)]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages, one for each command, into a directory.
    Man {
        /// The directory, such as /usr/local/share/man/man1; it must be there.
        dir: PathBuf,
    },
    /// Show what the broker can do.
    #[command(subcommand)]
    Demo(DemoCommand),
    /// Write the documentation of the configuration.
    #[command(hide = true)]
    ConfigDocs {
        /// Where to; standard output if absent.
        file: Option<PathBuf>,
        /// Write how to come from other brokers instead.
        #[arg(long)]
        migration: bool,
        /// Write a file with every key and its default instead.
        #[arg(long, conflicts_with = "migration")]
        sample: bool,
        /// Write the table of this page of the documentation into it again, instead.
        #[arg(long, requires = "file", conflicts_with_all = ["migration", "sample"])]
        table: bool,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Write what an emqx.conf of EMQ X 3 or 4 says as a TOML file with comments, and list what is different here.
    Import {
        /// The file, usually etc/emqx.conf; files of plugins are looked for beside it.
        file: PathBuf,
        /// Where to; standard output if absent. Users that a plugin's file has with their passwords go into a password file beside
        /// it.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Replace files that are there.
        #[arg(long)]
        force: bool,
        /// Print one line of JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
struct RunArguments {
    /// Read this configuration file: TOML, or an emqx.conf of EMQ X 3 or 4.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set one key, as in the file; may be repeated, and wins over the file and the environment.
    #[arg(short, long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Keep sessions, retained messages and the node's identity in this directory. Nothing is written without it.
    #[arg(short, long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Let `newtmq ctl` ask here, and not in the data directory.
    #[arg(long, value_name = "FILE")]
    socket: Option<PathBuf>,
    /// Threads that serve clients; without it, one for each processor.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=i64::from(SHARDS_MAX)))]
    shards: Option<u16>,
    /// Log level: trace, debug, info, warn or error.
    #[arg(short, long, value_name = "LEVEL")]
    log: Option<String>,
    /// Print the start message as one line of JSON, and log as JSON.
    #[arg(long)]
    json: bool,
    /// End at once when the process that started this one is gone.
    #[arg(long, hide = true)]
    ends_with_parent: bool,
}

#[derive(Debug, Subcommand)]
enum DemoCommand {
    /// Run a cluster on this machine, with clients that send messages through all its nodes; cut, pause and kill nodes, and
    /// watch how it heals.
    #[command(after_help = DEMO_HELP)]
    Cluster(DemoArguments),
}

#[derive(Debug, Args)]
struct DemoArguments {
    /// Nodes.
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: u8,
    /// Publishers, and as many subscribers, at each node.
    #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u8).range(1..=50))]
    clients: u8,
    /// Messages a second of each publisher.
    #[arg(long, value_name = "N", default_value = "20", value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
    /// Do this, and end; without it keys say what is done.
    #[arg(long, value_name = "STEPS")]
    script: Option<String>,
    /// Print a line of JSON for each change.
    #[arg(long)]
    json: bool,
    /// Write everything into this directory and keep it, instead of one for temporary files.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum CertCommand {
    /// Make a certificate authority and a certificate for this machine, for development.
    Dev(CertDevArguments),
}

#[derive(Debug, Subcommand)]
enum DataCommand {
    /// Tell what is stored. The broker may be running.
    Info(DataArguments),
    /// Read everything and tell what is damaged or missing. The broker may be running.
    Verify(DataArguments),
    /// Write sessions, their messages and retained messages as lines of JSON. The broker may be running.
    Export {
        #[command(flatten)]
        data: DataArguments,
        /// Where to; standard output if absent.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Fill a directory that stores nothing yet from such lines.
    Import {
        #[command(flatten)]
        data: DataArguments,
        /// Where from; standard input if absent.
        #[arg(short, long, value_name = "FILE")]
        input: Option<PathBuf>,
    },
    /// Make another directory that a broker can start with. The broker may be running.
    Backup {
        #[command(flatten)]
        data: DataArguments,
        /// The other directory, which must not be there or be empty.
        to: PathBuf,
    },
    /// Cut off a torn end and put damaged segments aside, as a start does. No broker may be running.
    Repair(DataArguments),
}

#[derive(Debug, Args)]
struct DataArguments {
    /// The data directory.
    dir: PathBuf,
    /// Print one line of JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct CertDevArguments {
    /// The data directory of the broker; the files go into its folder `certs`.
    #[arg(short, long, value_name = "DIR", default_value = "data")]
    data: PathBuf,
    /// Another folder for the files.
    #[arg(long, value_name = "DIR", conflicts_with = "data")]
    dir: Option<PathBuf>,
    /// A further name or address of the broker; may be repeated.
    #[arg(long = "host", value_name = "NAME")]
    hosts: Vec<String>,
    /// Make a certificate for the client of this name instead, from the same authority.
    #[arg(long, value_name = "NAME")]
    client: Option<String>,
    /// Replace files that are there.
    #[arg(long)]
    force: bool,
}

const EXAMPLES: &str = "\
Examples:
  newtmq                                         a broker on 127.0.0.1:1883
  newtmq run --set listener.tcp.external=1883    on every interface (nobody is asked for a password)
  newtmq run --config newtmq.toml --data data    with a file, keeping sessions and messages
  newtmq run --set listener.tcp.external.bind=127.0.0.1:0 --json
                                                 on a free port, told as JSON
  newtmq check-config newtmq.toml                is this file right?
  newtmq run --config etc/emqx.conf              with the file of EMQ X 3 or 4
  newtmq passwd users alice                      set a password, asked for
  newtmq cert dev && newtmq run --data data      with TLS on 127.0.0.1:8883

Exit codes:
  0  done, or stopped by a signal (a second signal stops at once, with code 1)
  1  failed while running, or the data directory, a password file or a certificate cannot be
     used or made
  2  wrong arguments, configuration, users or rules; nothing was started
  3  an address is in use or cannot be listened on
  4  `newtmq data`: what is stored is damaged, or something is missing
  5  `newtmq ctl`: no broker answers
  6  `newtmq ctl`: this is not in this version";

const CTL_HELP: &str = "\
Examples:
  newtmq ctl --data data cluster status
  newtmq ctl cluster join newtmq@10.0.0.2
  newtmq ctl clients list
  newtmq ctl where devices/1/temperature         who gets it, and where it is retained
  newtmq ctl mgmt insert grafana Grafana         an application for the HTTP API; its secret is told once
  newtmq ctl reload                              the configuration, users, rules and certificates

Exit codes:
  0  done
  1  the broker could not do it; why is told
  2  wrong arguments
  5  no broker answers
  6  this is not in this version";

const COMPLETIONS_HELP: &str = "\
Examples:
  newtmq completions bash > /etc/bash_completion.d/newtmq
  newtmq completions zsh > ~/.zfunc/_newtmq";

const DEMO_HELP: &str = "\
Examples:
  newtmq demo cluster
  newtmq demo cluster --script 'cut 3; wait 10; heal; wait healed; kill 2; restart 2; wait healed'

Steps of a script, one after the other, with `;` between them; it begins when the cluster is there:
  cut 3         node 3 from all others     pause 2, continue 2   SIGSTOP, SIGCONT
  cut 3>        only what node 3 sends     kill 2, stop 2        SIGKILL, SIGTERM
  cut 1-3       between two nodes          restart 2             start again, stopped before
  cut 1>3       from one to another        move 2                start again at another address
  heal          everything of this         wait SECONDS, wait healed, quit

Exit codes:
  0  nothing that was owed to a subscriber was lost, and what the script waited for came
  1  something was lost, or did not come within 2 minutes
  2  wrong arguments";

const DATA_HELP: &str = "\
Exit codes:
  0  done, and nothing is damaged or missing
  1  it cannot be done: the directory cannot be read or written, or a broker is using it
  2  wrong arguments
  4  damaged or missing: what it is was told (info, verify, export, repair)";

/// Why a command ends with another code than 0.
#[derive(Debug)]
struct Failed {
    exit: Exit,
    /// None if it was told already.
    error: Option<anyhow::Error>,
}

impl Failed {
    fn usage(error: impl Into<anyhow::Error>) -> Failed {
        Failed { exit: Exit::Usage, error: Some(error.into()) }
    }

    fn runtime(error: impl Into<anyhow::Error>) -> Failed {
        Failed { exit: Exit::Failure, error: Some(error.into()) }
    }

    fn ended(error: impl Into<anyhow::Error>) -> Failed {
        let error = error.into();
        Failed { exit: Exit::of(&error), error: Some(error) }
    }
}

fn run(arguments: &RunArguments) -> Result<(), Failed> {
    #[cfg(target_os = "linux")]
    if arguments.ends_with_parent {
        let kill = Some(rustix::process::Signal::KILL);
        rustix::process::set_parent_process_death_signal(kill).map_err(Failed::runtime)?;
    }
    let certificates = arguments.data.as_ref().map(|data| data.join(config::CERTIFICATE_FOLDER));
    let sources = sources(arguments);
    let loaded = config::load(&sources).map_err(Failed::usage)?;
    let loaded = loaded.with_certificates(certificates.as_deref()).map_err(Failed::usage)?;
    let loaded = loaded.with_storage(arguments.data.is_some()).map_err(Failed::usage)?;
    let level = logging::init(&loaded.config.log, arguments.json).map_err(Failed::usage)?;
    for note in loaded.notes.iter().chain(&check::missing(&loaded)) {
        tracing::warn!("{note}");
    }
    if let (false, Some(file)) = (loaded.differences.is_empty(), &arguments.config) {
        let (keys, file) = (loaded.differences.len(), file.display());
        tracing::info!(keys, "some keys do something else here than in EMQ X: newtmq check-config {file}");
    }
    let config = loaded.config.clone();
    let reading = Reading { sources, loaded, data: arguments.data.clone(), level };
    match limits::raise_open_files() {
        Ok(limit) => tracing::info!(limit, "limit of open files"),
        Err(error) => tracing::warn!(%error, "the limit of open files stays as it is"),
    }
    // The lock is held until `run` returns.
    let (_lock, node) = match &arguments.data {
        Some(path) => DataDir::open(path).map(|(data, node)| (Some(data), node)).map_err(Failed::runtime)?,
        None => (None, NodeIdentity::ephemeral().map_err(Failed::runtime)?),
    };
    let (shards, data) = (arguments.shards.unwrap_or_else(one_each), arguments.data.clone());
    let socket = arguments.socket.clone();
    let options = RunOptions { config, node, shards, json: arguments.json, data, socket, watched: Watched::default() };
    crate::run::run(options, Some(reading)).map_err(Failed::ended)
}

/// A shard for each processor that this process may use.
fn one_each() -> u16 {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u16::try_from(processors).unwrap_or(SHARDS_MAX).min(SHARDS_MAX)
}

fn sources(arguments: &RunArguments) -> Sources {
    let mut sets = arguments.sets.clone();
    sets.extend(arguments.log.as_ref().map(|level| format!("log.level={level}")));
    Sources { file: arguments.config.clone(), environment: environment(), sets }
}

/// Variables that are not text cannot be ours, or are no value of any key.
fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

fn passwd(wanted: Passwd) -> Result<(), Failed> {
    let told = access::passwd(&wanted).map_err(|error| {
        let exit = if error.is_usage() { Exit::Usage } else { Exit::Failure };
        Failed { exit, error: Some(error.into()) }
    })?;
    print(&format!("{told}\n")).map_err(Failed::runtime)
}

fn man(dir: &Path) -> Result<(), Failed> {
    clap_mangen::generate_to(Arguments::command(), dir)
        .map_err(|error| Failed::runtime(anyhow::Error::new(error).context(format!("{}", dir.display()))))
}

fn cert_dev(arguments: CertDevArguments) -> Result<(), Failed> {
    let CertDevArguments { data, dir, hosts, client, force } = arguments;
    let folder = dir.unwrap_or_else(|| data.join(config::CERTIFICATE_FOLDER));
    let told = cert::dev(&cert::Request { folder, hosts, client, force }).map_err(Failed::runtime)?;
    print(&told).map_err(Failed::runtime)
}

fn data(command: DataCommand) -> Result<(), Failed> {
    let (task, DataArguments { dir, json }) = match command {
        DataCommand::Info(data) => (Task::Info, data),
        DataCommand::Verify(data) => (Task::Verify, data),
        DataCommand::Export { data, output } => (Task::Export(output), data),
        DataCommand::Import { data, input } => (Task::Import(input), data),
        DataCommand::Backup { data, to } => (Task::Backup(to), data),
        DataCommand::Repair(data) => (Task::Repair, data),
    };
    let Done { told, whole } = store::carry_out(&task, &dir, json).map_err(Failed::runtime)?;
    // What is exported has standard output for itself.
    if matches!(task, Task::Export(None)) {
        let _ = std::io::stderr().write_all(told.as_bytes());
    } else {
        print(&told).map_err(Failed::runtime)?;
    }
    if whole {
        return Ok(());
    }
    let error = anyhow::anyhow!("{}: something is damaged or missing", dir.display());
    Err(Failed { exit: Exit::Damaged, error: Some(error) })
}

fn demo_cluster(arguments: DemoArguments) -> Result<(), Failed> {
    let DemoArguments { nodes, clients, rate, script, json, dir } = arguments;
    let nodes = usize::from(nodes);
    let script = script.map(|text| demo::script::parse(&text, nodes)).transpose();
    let script = script.map_err(|why| Failed::usage(anyhow::anyhow!("--script: {why}")))?;
    let options = demo::Options { nodes, clients: usize::from(clients), rate, script, json, folder: dir };
    let good = demo::run(&options).map_err(Failed::runtime)?;
    if good { Ok(()) } else { Err(Failed { exit: Exit::Failure, error: None }) }
}

/// A closed pipe, as in `newtmq check-config FILE | head`, is no failure.
fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn help() {
        insta::assert_snapshot!(Arguments::command().render_long_help().to_string());
    }

    #[test]
    fn no_command_is_run() {
        let bare = Arguments::parse_from(["newtmq"]);
        assert!(bare.command.is_none());
        assert_eq!((bare.run.shards, bare.run.config, bare.run.data), (None, None, None));
        let words = ["newtmq", "-s", "a=1", "--set", "b=2", "--log", "warn"];
        assert_eq!(sources(&Arguments::parse_from(words).run).sets, ["a=1", "b=2", "log.level=warn"]);
    }

    #[test]
    fn there_is_at_least_one_shard() {
        assert!(one_each() >= 1);
        for (shards, fits) in [("0", false), ("1", true), ("128", true), ("129", false)] {
            assert_eq!(Arguments::try_parse_from(["newtmq", "--shards", shards]).is_ok(), fits, "{shards}");
        }
    }
}
