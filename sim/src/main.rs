//! `cargo sim`: the command line of the testbed. It reads files and arguments and prints; what it prints is made elsewhere.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "files and clocks are for this side; what it runs has neither"
)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["docs", file] => std::fs::File::create(file)
            .and_then(|mut out| std::io::Write::write_all(&mut out, newtmq_sim::scenario::markdown().as_bytes()))
            .map_or(ExitCode::from(2), |()| ExitCode::SUCCESS),
        _ => ExitCode::from(2),
    }
}
