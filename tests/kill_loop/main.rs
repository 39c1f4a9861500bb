//! A broker that is killed again and again while clients publish and subscribe, and the testbed's checks of what the clients
//! saw: nothing that was acknowledged is lost, nothing is delivered twice, no session is forgotten.
//!
//! ```sh
//! cargo build --release && cargo run --release --example kill_loop -- 200
//! ```
//!
//! Rounds and, if wanted, a seed, the broker's shards, and how many of its three publishers use QoS 2. The exit status is 0 if nothing was wrong and 1 otherwise.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a program")]

#[cfg(not(madsim))]
mod world;

#[cfg(madsim)]
fn main() {}

#[cfg(not(madsim))]
fn main() -> std::process::ExitCode {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u64>().expect("a number"));
    let mut next = |otherwise| numbers.next().unwrap_or(otherwise);
    let (rounds, seed, shards, exactly_once) = (next(200), next(1), next(2) as u16, next(2) as u32);
    let own = std::env::current_exe().expect("this program has a path");
    let folder = own.parent().and_then(std::path::Path::parent).expect("it is in examples/");
    let data = folder.join(format!("kill_loop-{}", std::process::id()));
    let newtmq = folder.join("newtmq");
    let outcome = world::Loop { newtmq, data: data.clone(), rounds, seed, shards, exactly_once, told: true }.run();
    println!("{outcome}");
    if !outcome.wrong.is_empty() {
        println!("the data is in {}", data.display());
        return std::process::ExitCode::FAILURE;
    }
    let _ = std::fs::remove_dir_all(data);
    std::process::ExitCode::SUCCESS
}
