//! `newtmq ctl`: its commands are those of the table in `src/admin`, and it is called `emqx_ctl`, too.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Command, CommandFactory as _, Error, FromArgMatches, Subcommand};

use super::{Arguments, Failed, print, top};
use crate::admin::{Does, ROWS, Row, find};
use crate::exit::Exit;
use crate::{access, cluster, ctl};

/// A command of the table with its arguments.
pub(super) struct CtlCommand {
    row: &'static Row,
    arguments: BTreeMap<&'static str, String>,
    /// Of a command that goes on: after so many it ends.
    lines: Option<u32>,
}

impl std::fmt::Debug for CtlCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CtlCommand({})", self.row.path)
    }
}

impl Subcommand for CtlCommand {
    fn augment_subcommands(command: Command) -> Command {
        let mut command = command.subcommand_required(true).arg_required_else_help(true);
        let groups = ROWS.iter().map(group);
        let mut seen: Vec<&str> = Vec::new();
        for name in groups {
            if !seen.contains(&name) {
                seen.push(name);
                command = command.subcommand(of_group(name));
            }
        }
        command
    }

    fn augment_subcommands_for_update(command: Command) -> Command {
        Self::augment_subcommands(command)
    }

    fn has_subcommand(name: &str) -> bool {
        ROWS.iter().any(|row| group(row) == name)
    }
}

impl FromArgMatches for CtlCommand {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let missing = || Error::new(clap::error::ErrorKind::MissingSubcommand);
        let (first, inner) = matches.subcommand().ok_or_else(missing)?;
        let (path, inner) = match inner.subcommand() {
            Some((second, inner)) => (format!("{first} {second}"), inner),
            None => (first.to_owned(), inner),
        };
        let row = find(&path).ok_or_else(missing)?;
        let given = |name: &&'static str| Some((*name, inner.get_one::<String>(name)?.clone()));
        let lines = inner.try_get_one::<u32>(LINES).ok().flatten().copied();
        Ok(CtlCommand { row, arguments: row.arguments.iter().filter_map(given).collect(), lines })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = CtlCommand::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The first word.
fn group(row: &'static Row) -> &'static str {
    row.path.split(' ').next().unwrap_or_default()
}

fn of_group(name: &'static str) -> Command {
    let own = find(name);
    let mut command = match own {
        Some(row) => with_arguments(Command::new(name), row),
        None => Command::new(name).about(about_group(name)).subcommand_required(true).arg_required_else_help(true),
    };
    if own.is_some() {
        command = command.args_conflicts_with_subcommands(true);
    }
    for row in ROWS.iter().filter(|row| group(row) == name) {
        if let Some((_, second)) = row.path.split_once(' ') {
            command = command.subcommand(with_arguments(Command::new(second), row));
        }
    }
    command
}

fn with_arguments(command: Command, row: &'static Row) -> Command {
    if matches!(row.does, Does::NotYet) {
        // Whatever follows, it is told that the command is not there.
        let rest = Arg::new("arguments").num_args(0..).trailing_var_arg(true).allow_hyphen_values(true).hide(true);
        return command.about(format!("{} Not in this version.", row.about)).hide(true).arg(rest);
    }
    if matches!(row.does, Does::Watches) {
        let lines = Arg::new(LINES).long(LINES).value_name("N").value_parser(clap::value_parser!(u32).range(1..));
        return command.about(row.about).arg(lines.help("End after so many lines"));
    }
    let arguments = row.arguments.iter().map(|name| Arg::new(*name).value_name(name.to_uppercase()).required(true));
    command.about(row.about).args(arguments)
}

/// What the commands that begin with a word are about.
fn about_group(name: &str) -> &'static str {
    match name {
        "cluster" => "Tell who is in the cluster, and change it.",
        "clients" => "Connected clients.",
        "sessions" => "Sessions.",
        "routes" | "topics" => "Topic filters, and the nodes with subscribers of them.",
        "subscriptions" => "Subscriptions.",
        "retained" => "Retained messages.",
        "plugins" => "What are plugins in EMQ X.",
        "acl" => "The rules of who may do what.",
        "mgmt" => "Who may use the HTTP API.",
        "users" => "Users that are added while it runs.",
        "clientid" => "Client identifiers with passwords that are added while it runs.",
        "banned" => "Who is refused.",
        "log" => "The log.",
        "sn" => "Devices of MQTT-SN.",
        "trace" => "What happens to a client, or to messages of topics.",
        _ => NOT_YET,
    }
}

const NOT_YET: &str = "Not in this version.";

/// The words of the command line: `emqx_ctl status` is `newtmq ctl status`.
pub(super) fn words(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = words.into_iter().collect();
    let name = words.first().map(PathBuf::from).and_then(|path| Some(path.file_name()?.to_owned()));
    if name.is_some_and(|name| name == "emqx_ctl" || name == "newtmq_ctl") {
        words.insert(1, "ctl".into());
    }
    words
}

pub(super) fn ctl(data: &Path, socket: Option<PathBuf>, json: bool, command: CtlCommand) -> Result<(), Failed> {
    let CtlCommand { row, mut arguments, lines } = command;
    if matches!(row.does, Does::NotYet) {
        let error = anyhow::anyhow!("{}: not in this version", row.path);
        return Err(Failed { exit: Exit::NotYet, error: Some(error) });
    }
    let socket = socket.unwrap_or_else(|| data.join(cluster::SOCKET_FILE));
    if matches!(row.does, Does::Watches) {
        return top::top(&socket, lines, json);
    }
    if arguments.get("password").is_some_and(|password| password == "-") {
        let name = arguments.get("name").cloned().unwrap_or_default();
        let password =
            access::ask_password(&name).map_err(|error| Failed { exit: Exit::Usage, error: Some(error.into()) })?;
        let text = String::from_utf8(password).map_err(|_| Failed {
            exit: Exit::Usage,
            error: Some(anyhow::anyhow!("a password of a user that is added while it runs is UTF-8")),
        })?;
        arguments.insert("password", text);
    }
    let command = ctl::Command { path: row.path, arguments };
    let ok = ctl::ask(&socket, &command, json, print)
        .map_err(|error| Failed { exit: Exit::NoBroker, error: Some(error.into()) })?;
    if ok { Ok(()) } else { Err(Failed { exit: Exit::Failure, error: None }) }
}

pub(super) fn completions(shell: clap_complete::Shell) -> Result<(), Failed> {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "newtmq", &mut out);
    print(&String::from_utf8_lossy(&out)).map_err(Failed::runtime)
}

/// The option that ends a command that goes on.
const LINES: &str = "lines";

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn parsed(words: &[&str]) -> Result<(String, BTreeMap<&'static str, String>), clap::error::ErrorKind> {
        let words = [&["newtmq", "ctl"], words].concat();
        match Arguments::try_parse_from(words).map_err(|error| error.kind())?.command {
            Some(super::super::Command::Ctl { command, .. }) => Ok((command.row.path.to_owned(), command.arguments)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_command_of_the_table_is_understood() {
        for row in ROWS {
            let words = row.path.split(' ').chain(row.arguments.iter().map(|_| "x")).collect::<Vec<_>>();
            let (path, arguments) = parsed(&words).unwrap_or_else(|kind| panic!("{}: {kind}", row.path));
            assert_eq!((path.as_str(), arguments.len()), (row.path, row.arguments.len()));
        }
        let (_, arguments) = parsed(&["subscriptions", "add", "c", "t/#", "1"]).unwrap();
        assert_eq!(
            arguments,
            [("client", "c".to_owned()), ("topic", "t/#".to_owned()), ("qos", "1".to_owned())].into()
        );
        assert_eq!(parsed(&["rules", "create", "-x", "y"]).unwrap().0, "rules create");
        for words in [&["clients", "show"][..], &["clients", "list", "x"], &["reboot"], &["cluster"]] {
            assert!(parsed(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn help_says_what_a_group_of_commands_is_about() {
        let groups: BTreeMap<_, _> = ROWS.iter().map(|row| (group(row), row)).collect();
        for (name, _) in groups.into_iter().filter(|(name, _)| find(name).is_none()) {
            let is_there = ROWS.iter().any(|row| group(row) == name && !matches!(row.does, Does::NotYet));
            assert_eq!(about_group(name) != NOT_YET, is_there, "{name}");
        }
    }

    #[test]
    fn it_is_called_emqx_ctl_too() {
        let of = |all: &[&str]| words(all.iter().map(OsString::from));
        assert_eq!(of(&["/opt/emqx/bin/emqx_ctl", "status"]), ["/opt/emqx/bin/emqx_ctl", "ctl", "status"]);
        assert_eq!(of(&["newtmq", "ctl", "status"]).len(), 3);
        assert!(of(&[]).is_empty());
    }
}
