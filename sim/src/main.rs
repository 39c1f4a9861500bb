//! `cargo sim`: the command line of the testbed. It reads files and arguments, runs scenarios in threads and prints; what
//! must hold and whether it does is decided in the library.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "files, clocks and threads are for this side; what it runs has none of them"
)]

mod cli;

/// A fifth of a case's time goes into memory with the system's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use std::process::ExitCode;

fn main() -> ExitCode {
    leave_quietly();
    cli::main()
}

/// Whoever reads what is printed may have seen enough (`| head`): that is no failure of ours, as for any other program.
fn leave_quietly() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let is_closed = |text: &str| text.starts_with("failed printing to std") && text.contains("Broken pipe");
        if info.payload_as_str().is_some_and(is_closed) {
            std::process::exit(128 + 13);
        }
        hook(info);
    }));
}
