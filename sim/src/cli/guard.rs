//! `guard`: the same seed gives the same history, in fresh threads and in another process. Everything else that the testbed
//! says rests on that.

use std::process::Command;

use newtmq_sim::{Scenario, run};

use super::{FAILED, cases};

/// Compares; `print` only tells the hashes.
pub(super) fn guard(seed: u64, print: bool) -> Result<u8, String> {
    let first = hashes(seed)?;
    if print {
        println!("{first}");
        return Ok(0);
    }
    let second = hashes(seed)?;
    let program = std::env::current_exe().map_err(|error| format!("this program cannot be found: {error}"))?;
    let other = Command::new(program)
        .args(["guard", "--print", "--seed", &seed.to_string()])
        .output()
        .map_err(|error| format!("another process cannot be started: {error}"))?;
    let other = String::from_utf8_lossy(&other.stdout).trim().to_owned();
    if first == second && first == other {
        println!("seed {seed}: {first}; the same in two threads and two processes");
        return Ok(0);
    }
    println!(
        "seed {seed} does not give one history:\n  a thread         {first}\n  another thread   {second}\n  another process  {other}"
    );
    Ok(FAILED)
}

/// Trace hashes of the cases of a seed, each in a thread of its own.
fn hashes(seed: u64) -> Result<String, String> {
    let mut all = Vec::new();
    for case in [cases::case(&[], false, seed), cases::case(&[], true, seed)] {
        let hash = std::thread::spawn(move || one(&case)).join();
        all.push(hash.map_err(|_| "a run panicked".to_owned())?);
    }
    Ok(all.join(" "))
}

fn one(scenario: &Scenario) -> String {
    format!("{:016x}", run(scenario).trace_hash)
}
