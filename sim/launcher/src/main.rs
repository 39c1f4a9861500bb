//! `cargo sim`: finds out which flavour of the testbed a command needs, builds it and becomes it. A flavour has flags and a
//! target directory of its own, so that none builds another one's crates again. It knows nothing else of the commands.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// A build of the testbed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flavour {
    /// The core in a queue of events.
    Kernel,
    /// The same with the planted bugs.
    Mutants,
    /// The real driver and listeners in madsim.
    Madsim,
}

impl Flavour {
    fn name(self) -> &'static str {
        match self {
            Flavour::Kernel => "kernel",
            Flavour::Mutants => "mutants",
            Flavour::Madsim => "madsim",
        }
    }

    fn flags(self) -> Option<&'static str> {
        match self {
            Flavour::Kernel => None,
            Flavour::Mutants => Some("--cfg newtmq_mutants"),
            Flavour::Madsim => Some("--cfg madsim"),
        }
    }

    /// Which one a command needs.
    fn of(arguments: &[String], is_madsim: impl Fn(&str) -> bool) -> Flavour {
        let is_mutant = |argument: &String| argument == "--mutant" || argument.starts_with("--mutant=");
        match arguments.first().map(String::as_str) {
            Some("mutants") => Flavour::Mutants,
            Some("replay" | "explain") if arguments.iter().any(is_mutant) => Flavour::Mutants,
            Some("replay" | "explain") if arguments[1..].iter().any(|argument| is_madsim(argument)) => Flavour::Madsim,
            _ if arguments.iter().any(|argument| argument == "--madsim") => Flavour::Madsim,
            _ => Flavour::Kernel,
        }
    }
}

fn main() -> ExitCode {
    let mut arguments: Vec<String> = env::args().skip(1).collect();
    let flavour = Flavour::of(&arguments, |file| is_madsim(Path::new(file)));
    arguments.retain(|argument| argument != "--madsim");
    // What `cargo run` says now: a target directory may have been copied from another place.
    let manifest = env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    let root = manifest.join("../..");
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let target = target.join(format!("sim-{}", flavour.name()));
    match build(flavour, &root, &target) {
        Ok(program) => become_program(Command::new(program).args(&arguments)),
        Err(message) => {
            eprintln!("cargo sim: {message}");
            ExitCode::from(BUILD_FAILED)
        }
    }
}

/// Whether a file says that it is for the other tier. A file that cannot be read is told by the program that gets it.
fn is_madsim(file: &Path) -> bool {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines()
        .take_while(|line| !line.starts_with('['))
        .any(|line| line.split_once('=').is_some_and(|(key, value)| key.trim() == "driver" && value.contains("madsim")))
}

fn build(flavour: Flavour, root: &Path, target: &Path) -> Result<PathBuf, String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.arg("build").args(["--profile", "sim", "--package", "newtmq-sim", "--bin", "newtmq-sim"]);
    command.arg("--manifest-path").arg(root.join("Cargo.toml")).arg("--target-dir").arg(target);
    // A build that has to be done takes a while, and says so; one that is there is not worth a line.
    let program = target.join("sim").join("newtmq-sim").with_extension(env::consts::EXE_EXTENSION);
    if program.exists() {
        command.arg("--quiet");
    } else {
        eprintln!("cargo sim: building the testbed ({}); this is done once", flavour.name());
    }
    command.env_remove("CARGO_ENCODED_RUSTFLAGS").env_remove("RUSTFLAGS");
    if let Some(flags) = flavour.flags() {
        command.env("RUSTFLAGS", flags);
    }
    let status = command.status().map_err(|error| format!("cargo cannot be run: {error}"))?;
    status.success().then_some(program).ok_or_else(|| "the testbed could not be built".to_owned())
}

#[cfg(unix)]
fn become_program(command: &mut Command) -> ExitCode {
    use std::os::unix::process::CommandExt as _;
    let error = command.exec();
    eprintln!("cargo sim: {} cannot be run: {error}", command.get_program().to_string_lossy());
    ExitCode::from(BUILD_FAILED)
}

#[cfg(not(unix))]
fn become_program(command: &mut Command) -> ExitCode {
    let code = command.status().ok().and_then(|status| status.code()).and_then(|code| u8::try_from(code).ok());
    ExitCode::from(code.unwrap_or(BUILD_FAILED))
}

/// Not a verdict: `git bisect run` skips such a commit.
const BUILD_FAILED: u8 = 125;

#[cfg(test)]
mod tests {
    use super::Flavour;

    #[test]
    fn the_flavour_follows_from_the_command() {
        let table: &[(&str, Flavour)] = &[
            ("", Flavour::Kernel),
            ("list", Flavour::Kernel),
            ("mutants --json", Flavour::Mutants),
            ("replay a.toml", Flavour::Kernel),
            ("replay real.toml", Flavour::Madsim),
            ("replay --html x.html real.toml", Flavour::Madsim),
            ("replay a.toml --mutant lost", Flavour::Mutants),
            ("explain --mutant=lost a.toml", Flavour::Mutants),
            ("guard --madsim", Flavour::Madsim),
            ("swarm --family real.toml", Flavour::Kernel),
        ];
        for (line, flavour) in table {
            let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            assert_eq!(Flavour::of(&arguments, |file| file == "real.toml"), *flavour, "{line}");
        }
    }
}
