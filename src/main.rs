//! The `newtmq` command. Everything is in the library, so that tests and the simulator can use it.

use std::process::ExitCode;

fn main() -> ExitCode {
    newtmq::cli::main()
}
