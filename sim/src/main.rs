//! `cargo sim`: the command line of the testbed. It reads files and arguments, runs scenarios in threads and prints; what
//! must hold and whether it does is decided in the library.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "files, clocks and threads are for this side; what it runs has none of them"
)]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
