//! Clusters of real processes to which things are done: what clients saw is judged by the testbed's checks
//! (`tests/cluster_loop/`), and `newtmq demo cluster` shows it.

use std::fs::{self, File};
use std::io::Write as _;
use std::process::Stdio;

use rustix::process::Signal;
use rustix::pty::{self, OpenptFlags};
use serde_json::Value;

use crate::broker::{NEWTMQ, Process, Scratch, newtmq};
use world::Fault;

#[path = "../cluster_loop/told.rs"]
mod told;
#[path = "../cluster_loop/ways.rs"]
mod ways;
#[path = "../cluster_loop/world.rs"]
#[allow(dead_code, reason = "the program uses more of it")]
mod world;

fn heals(name: &str, faults: &[Fault], namespaces: bool) {
    let scratch = Scratch::new(name);
    let (folder, faults) = (scratch.path().to_owned(), faults.to_vec());
    let namespaces = namespaces && ways::may_use_namespaces();
    let count = faults.len();
    let outcome =
        world::Loop { newtmq: NEWTMQ.into(), folder, faults, seed: 1, shards: 2, namespaces, told: false }.run();
    assert!(outcome.wrong.is_empty(), "{outcome}");
    assert!(outcome.owed > 100 && outcome.healed.len() == count, "{outcome}");
}

#[test]
fn a_cut_of_one_way_heals_and_nothing_is_lost() {
    heals("one-way", &[Fault::OneWay(0)], true);
}

/// As where there are no namespaces.
#[test]
fn a_cut_of_relays_heals_and_nothing_is_lost() {
    heals("cut", &[Fault::Cut(2)], false);
}

#[test]
fn a_node_that_was_paused_comes_back_and_nothing_is_lost() {
    heals("paused", &[Fault::Pause(1)], true);
}

#[test]
fn nodes_that_were_killed_or_have_moved_come_back_and_nothing_is_lost() {
    heals("killed", &[Fault::Kill(1), Fault::Rolling], true);
}

fn demo(scratch: &Scratch, arguments: &[&str]) -> Process {
    let mut command = newtmq();
    command.env("TMPDIR", scratch.path()).args(["demo", "cluster", "--clients", "1"]).args(arguments);
    Process::start(command)
}

fn is_empty(scratch: &Scratch) -> bool {
    fs::read_dir(scratch.path()).unwrap().next().is_none()
}

#[test]
fn a_demo_with_a_script_heals_and_leaves_nothing_behind() {
    let scratch = Scratch::new("demo");
    let script = "cut 1-3; kill 2; restart 2; wait 1; heal; wait healed; move 3; wait healed; quit";
    let mut process = demo(&scratch, &["--json", "--script", script]);
    let code = process.wait().code();
    let told: Vec<Value> = process.stdout.to_end().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(code, Some(0), "{told:#?}");
    let healed = told.iter().filter(|told| told["event"] == "healed").count();
    let end = told.last().unwrap();
    assert_eq!((healed, &end["ok"], &end["lost"]), (3, &true.into(), &0.into()), "{told:#?}");
    assert!(end["across"].as_u64().unwrap() > 0);
    assert!(is_empty(&scratch));
}

#[test]
fn a_demo_without_a_terminal_ends_by_a_signal_and_leaves_nothing_behind() {
    let scratch = Scratch::new("demo-signal");
    let mut process = demo(&scratch, &["--nodes", "2"]);
    process.stdout.wait_for("a cluster", |line| line.contains("all is well"));
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
    assert!(is_empty(&scratch));
}

#[test]
fn keys_of_a_terminal_pause_a_node_and_let_it_go_on() {
    let scratch = Scratch::new("demo-keys");
    let (mut keyboard, terminal) = terminal();
    let mut command = newtmq();
    command.env("TMPDIR", scratch.path()).args(["demo", "cluster", "--clients", "1"]);
    command.stdin(terminal.try_clone().unwrap()).stdout(terminal).stderr(Stdio::piped());
    let mut process = Process::spawn(command);
    let screen = Process::lines_of(keyboard.try_clone().unwrap());
    for (keys, shown) in
        [("", "all is well"), ("2p", "--- pause 2"), ("p", "--- continue 2"), ("", "after the fault\u{1b}")]
    {
        keyboard.write_all(keys.as_bytes()).unwrap();
        screen.wait_for(shown, |line| line.contains(shown));
    }
    keyboard.write_all(b"q").unwrap();
    assert_eq!(process.wait().code(), Some(0));
    screen.wait_for("the counts", |line| line.contains(" 0 lost, 0 out of order"));
    assert!(is_empty(&scratch));
}

/// Both ends of a terminal.
fn terminal() -> (File, File) {
    let keyboard = pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    pty::grantpt(&keyboard).and_then(|()| pty::unlockpt(&keyboard)).unwrap();
    let path = pty::ptsname(&keyboard, Vec::new()).unwrap().into_string().unwrap();
    (File::from(keyboard), File::options().read(true).write(true).open(path).unwrap())
}

#[test]
fn a_wrong_script_is_told() {
    let scratch = Scratch::new("demo-wrong");
    let mut process = demo(&scratch, &["--script", "cut 4"]);
    assert_eq!(process.wait().code(), Some(2));
    assert!(process.stderr.to_end().contains("`cut 4` is no step of a script"));
}
