//! How the program starts, and how it does not: exit codes and what it says.

use std::io::PipeWriter;
use std::net::TcpListener;
use std::process::Stdio;

use rustix::process::Signal;

use crate::broker::{Broker, Process, Scratch, any_port, newtmq};
use crate::client::Client;

#[test]
fn without_arguments_it_is_a_broker() {
    let mut command = newtmq();
    // The default ports may be in use on this machine.
    any_port(&mut command);
    let mut process = Process::start(command);
    let line = process.stdout.wait_for("the address", |line| line.contains("mqtt://127.0.0.1:"));
    assert!(line.ends_with("  (tcp.external)"), "{line}");
    process.stdout.wait_for("WebSocket", |line| line.contains("ws://127.0.0.1:") && line.contains("/mqtt"));
    process.stdout.wait_for("the internal listener", |line| line.ends_with("  (tcp.internal)"));
    process.stdout.wait_for("how to stop it", |line| line.contains("Ctrl-C"));
    process.signal(Signal::INT);
    assert_eq!(process.wait().code(), Some(0));
}

#[test]
fn the_start_message_is_one_line_of_json() {
    let broker = Broker::start(&["listener.tcp.lan=127.0.0.1:0"]);
    let names: Vec<_> = broker.started["listeners"].as_array().unwrap().iter().map(|l| &l["name"]).collect();
    assert_eq!(names, ["external", "lan"]);
    assert_eq!(broker.started["exposed"], serde_json::json!([]));
    let mut client = Client::connect(&broker, "a");
    client.ping();
    client.disconnect();
    assert_eq!(broker.process.stdout.text().lines().count(), 1);
    broker.stays_well();
}

#[test]
fn both_listeners_serve_one_broker() {
    let mut broker = Broker::start(&["listener.tcp.lan=127.0.0.1:0"]);
    let mut first = Client::connect(&broker, "first");
    first.subscribe("t", newtmq_mqtt::QoS::AtLeastOnce);
    broker.address = broker.started["listeners"][1]["address"].as_str().unwrap().parse().unwrap();
    let mut second = Client::connect(&broker, "second");
    second.publish("t", b"hi", newtmq_mqtt::QoS::AtLeastOnce);
    assert_eq!(first.message().payload, b"hi");
}

#[test]
fn an_address_in_use_is_code_3() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut command = newtmq();
    command.args(["run", "--set", &format!("listener.tcp.external={address}")]);
    let mut process = Process::start(command);
    assert_eq!(process.wait().code(), Some(3));
    let log = process.stderr.to_end();
    let told = format!(
        "newtmq: listener.tcp.external cannot listen on {address} (stop the process that has it, or set another port)"
    );
    assert!(log.contains(&told), "{log}");
    assert_eq!(process.stdout.to_end(), "", "nothing was promised");
}

#[test]
fn the_second_listener_in_use_is_code_3_and_serves_nobody() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let lan = format!("listener.tcp.lan={}", taken.local_addr().unwrap());
    let mut command = newtmq();
    command.args(["run", "--json", "--set", "listener.tcp.external.bind=127.0.0.1:0", "--set", &lan]);
    let mut process = Process::start(command);
    assert_eq!(process.wait().code(), Some(3));
    assert_eq!(process.stdout.to_end(), "");
}

#[test]
fn an_address_of_another_machine_is_code_3() {
    let mut command = newtmq();
    // Reserved for documentation (RFC 5737), so it is nobody's.
    command.args(["run", "--set", "listener.tcp.external=192.0.2.1:1883"]);
    let mut process = Process::start(command);
    assert_eq!(process.wait().code(), Some(3));
    assert!(process.stderr.to_end().contains("(this machine has no such address)"));
}

#[test]
fn a_wrong_configuration_is_code_2_with_file_line_and_key() {
    let scratch = Scratch::new("wrong");
    let file = scratch.write("wrong.toml", "[zone.external]\nidle_timeout = \"5s\"\nmax_infligth = 64\n");
    for arguments in [&["run", "--config", &file][..], &["check-config", &file]] {
        let mut command = newtmq();
        command.args(arguments);
        let mut process = Process::start(command);
        assert_eq!(process.wait().code(), Some(2), "{arguments:?}");
        let log = process.stderr.to_end();
        let told = format!("{file}:3: zone.external.max_infligth: unknown key");
        assert!(log.contains(&told), "{log}");
        assert_eq!(process.stdout.to_end(), "");
    }
}

#[test]
fn a_configuration_is_checked_for_programs() {
    let scratch = Scratch::new("check-json");
    let files = [
        (scratch.write("right.toml", "zone.external.publish_limit = \"100,10s\"\n"), 0),
        (scratch.write("wrong.toml", "zone.external.publish_limit = \"100,10\"\n"), 2),
        ("/nonexistent/newtmq.toml".to_owned(), 2),
    ];
    for (file, code) in files {
        let mut command = newtmq();
        command.args(["check-config", &file, "--json"]);
        let mut process = Process::start(command);
        assert_eq!(process.wait().code(), Some(code), "{file}");
        let told: serde_json::Value = serde_json::from_str(&process.stdout.to_end()).unwrap();
        assert_eq!((told["event"].as_str(), told["ok"].as_bool()), (Some("checked"), Some(code == 0)));
        assert_eq!(told["errors"].as_array().unwrap().is_empty(), code == 0);
        assert_eq!(told["settings"].as_array().unwrap().len(), usize::from(code == 0));
    }
}

#[test]
fn wrong_arguments_are_code_2() {
    for arguments in [
        &["run", "--shards", "0"][..],
        &["run", "--config", "/nonexistent/newtmq.toml"],
        &["run", "--set", "colour=blue"],
        &["run", "--log", "loud"],
        &["serve"],
        &["check-config"],
    ] {
        let mut command = newtmq();
        command.args(arguments);
        let mut process = Process::start(command);
        assert_eq!(process.wait().code(), Some(2), "{arguments:?}");
        assert_ne!(process.stderr.to_end(), "", "{arguments:?}");
    }
}

#[test]
fn help_and_version_are_answers() {
    for (argument, wanted) in [("--help", "Exit codes:"), ("--version", env!("CARGO_PKG_VERSION"))] {
        let mut command = newtmq();
        command.arg(argument);
        let mut process = Process::start(command);
        assert_eq!(process.wait().code(), Some(0));
        assert!(process.stdout.to_end().contains(wanted));
    }
}

#[test]
fn a_data_directory_has_one_broker_at_a_time() {
    let scratch = Scratch::new("data");
    let data = scratch.path().join("data");
    let arguments = ["--data", data.to_str().unwrap()];
    let first = Broker::of(newtmq(), &[], &arguments);

    let mut command = newtmq();
    command.args(["run", "--set", "listener.tcp.external=127.0.0.1:0"]).args(arguments);
    let mut refused = Process::start(command);
    assert_eq!(refused.wait().code(), Some(1));
    let log = refused.stderr.to_end();
    assert!(log.contains("another broker is using this data directory"), "{log}");
    Client::connect(&first, "a").ping();

    // However a process ends, the next one may have the directory.
    first.process.signal(Signal::KILL);
    let (id, incarnation) = (first.started["node_id"].clone(), first.started["incarnation"].as_u64().unwrap());
    drop(first);
    let second = Broker::of(newtmq(), &[], &arguments);
    assert_eq!(second.started["node_id"], id);
    assert_eq!(second.started["incarnation"].as_u64().unwrap(), incarnation + 1, "the refused start does not count");
}

/// A pipe that nobody reads any more, as in `newtmq | head` after its last line.
fn unread() -> PipeWriter {
    std::io::pipe().unwrap().1
}

#[test]
fn nobody_reads_the_start_message() {
    let mut command = newtmq();
    command.args(["run", "--set", "listener.tcp.external=127.0.0.1:0"]).stdout(unread()).stderr(Stdio::piped());
    let mut process = Process::spawn(command);
    process.handles(Signal::TERM);
    process.signal(Signal::TERM);
    assert_eq!(process.wait().code(), Some(0));
    assert!(process.stderr.to_end().contains("stopped"));
}

#[test]
fn nobody_reads_the_log() {
    let mut command = newtmq();
    command.args(["run", "--json", "--log", "debug", "--set", "listener.tcp.external.bind=127.0.0.1:0"]);
    command.stdout(Stdio::piped()).stderr(unread());
    let mut broker = Broker::from(Process::spawn(command));
    // It makes a few lines of the log.
    Client::connect(&broker, "a").disconnect();
    broker.process.signal(Signal::TERM);
    assert_eq!(broker.process.wait().code(), Some(0));
}

#[test]
fn nobody_reads_why_it_does_not_start() {
    let mut command = newtmq();
    command.args(["run", "--set", "colour=blue"]).stdout(unread()).stderr(unread());
    assert_eq!(Process::spawn(command).wait().code(), Some(2));
}
