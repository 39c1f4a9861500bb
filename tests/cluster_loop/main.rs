//! A cluster of three processes to whose nodes and ways things are done again and again while clients publish and
//! subscribe, and the testbed's checks of what the clients saw.
//!
//! ```sh
//! cargo build --release && cargo run --release --example cluster_loop -- 20
//! ```
//!
//! Rounds, each with every fault in an order of its own, and if wanted a seed. Where it is permitted (as root on Linux, with
//! `ip` of iproute2) each node is in a network namespace, elsewhere all are on loopback with the relays of
//! `newtmq demo cluster` between them; a third argument `relays` has them anyway. A fourth one, such as `kill,rolling`, names the faults. The exit status is 0 if nothing was wrong.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a program")]

#[cfg(not(madsim))]
mod told;
#[cfg(not(madsim))]
mod ways;
#[cfg(not(madsim))]
mod world;

#[cfg(madsim)]
fn main() {}

#[cfg(not(madsim))]
fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, otherwise| arguments.get(at).map_or(otherwise, |text| text.parse().expect("a number"));
    let (rounds, seed) = (number(0, 20), number(1, 1));
    let own = std::env::current_exe().expect("this program has a path");
    let target = own.parent().and_then(std::path::Path::parent).expect("it is in examples/");
    let folder = target.join(format!("cluster_loop-{}", std::process::id()));
    let namespaces = arguments.get(2).is_none_or(|ways| ways != "relays") && ways::may_use_namespaces();
    println!("{}", if namespaces { "network namespaces" } else { "relays on loopback" });
    let wanted = arguments.get(3).map(|names| names.to_lowercase());
    let is_wanted = |fault: &world::Fault| {
        let name = format!("{fault:?}").to_lowercase();
        wanted.as_ref().is_none_or(|wanted| wanted.split(',').any(|wanted| name.starts_with(wanted)))
    };
    let faults = world::each_in_any_order(rounds, seed).into_iter().filter(is_wanted).collect();
    let newtmq = target.join("newtmq");
    let outcome = world::Loop { newtmq, folder: folder.clone(), faults, seed, shards: 2, namespaces, told: true }.run();
    println!("{outcome}");
    if !outcome.wrong.is_empty() {
        println!("logs and data are in {}", folder.display());
        return std::process::ExitCode::FAILURE;
    }
    let _ = std::fs::remove_dir_all(folder);
    std::process::ExitCode::SUCCESS
}
