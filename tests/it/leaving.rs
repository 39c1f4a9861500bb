//! Members that leave, and members that operators remove: what is told, and what becomes of them.

use std::fs;

use newtmq_mqtt::ReasonCode;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::broker::{Broker, Scratch, wait_until};
use crate::client::Client;
use crate::cluster::{carries, ctl, join, members, node, wait_until_among};

fn status(running: &[u32], stopped: &[u32]) -> String {
    let names = |of: &[u32]| of.iter().map(|number| format!("'n{number}@test'")).collect::<Vec<_>>().join(",");
    let stopped = if stopped.is_empty() { String::new() } else { format!(",{{stopped_nodes,[{}]}}", names(stopped)) };
    format!("Cluster status: [{{running_nodes,[{}]}}{stopped}]", names(running))
}

/// Checks an answer with `--json`: one line for programs, with the lines for people in it.
fn assert_told(told: &str, lines: &[&str], members: usize) {
    let told: Value = serde_json::from_str(told).unwrap_or_else(|error| panic!("{error}: {told}"));
    assert_eq!((&told["version"], &told["ok"], &told["lines"]), (&json!(1), &json!(true), &json!(lines)));
    assert_eq!(
        (&told["data"]["member"], told["data"]["nodes"].as_array().map(Vec::len)),
        (&json!(true), Some(members))
    );
}

#[test]
fn who_leaves_is_alone_and_its_clients_are_sent_to_others() {
    const DONE: &str = "Leave the cluster successfully.";
    let scratch = Scratch::new("leave");
    let nodes: Vec<Broker> = (1..=3).map(|number| node(&scratch, number)).collect();
    join(&scratch, &[1, 2, 3]);
    let mut client = Client::connect(&nodes[2], "c");
    let (told, code) = ctl(&scratch, 3, &["leave"]);
    assert_eq!((told, code), (format!("{DONE}\n{}", status(&[3], &[])), Some(0)));
    assert_eq!(client.disconnected(), ReasonCode::UseAnotherServer);
    wait_until_among(&scratch, &[3]);
    wait_until_among(&scratch, &[1, 2]);
    carries(&nodes[1], &nodes[0], "without/third");
    carries(&nodes[2], &nodes[2], "alone");

    let (told, code) = ctl(&scratch, 2, &["leave", "--json"]);
    assert_eq!(code, Some(0), "{told}");
    assert_told(&told, &[DONE, &status(&[2], &[])], 1);
    wait_until_among(&scratch, &[1]);
    let (told, code) = ctl(&scratch, 1, &["leave"]);
    assert_eq!((told.as_str(), code), ("Failed to leave the cluster: the only member cannot leave", Some(1)));
    let (told, code) = ctl(&scratch, 1, &["leave", "--json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["ok"], &told["data"], code), (&json!(false), &json!(null), Some(1)));
    nodes.iter().for_each(Broker::assert_log_is_clean);
}

/// Whether the other one has called it again by then, which is a matter of chance, or not.
#[test]
fn who_has_left_joins_again() {
    let scratch = Scratch::new("leave-and-join");
    let nodes: Vec<Broker> = (1..=2).map(|number| node(&scratch, number)).collect();
    let first = join(&scratch, &[1, 2]);
    assert_eq!(ctl(&scratch, 2, &["leave"]).1, Some(0));
    let (told, code) = ctl(&scratch, 2, &["join", &first]);
    assert!(told.starts_with("Join the cluster successfully.\nCluster status: "), "{told}");
    assert_eq!(code, Some(0));
    wait_until_among(&scratch, &[1, 2]);
    carries(&nodes[1], &nodes[0], "again");
    nodes.iter().for_each(Broker::assert_log_is_clean);
}

/// Asks a node until it has removed another one: it has to be down for a while.
fn force_leave(scratch: &Scratch, at: u32, arguments: &[&str]) -> String {
    let words = [&["force-leave"], arguments].concat();
    wait_until("a removal", || {
        let (told, code) = ctl(scratch, at, &words);
        (code == Some(0)).then_some(told)
    })
}

fn kill(node: &mut Broker) {
    node.process.signal(Signal::KILL);
    node.process.wait();
}

#[test]
fn who_is_removed_is_refused_and_its_machine_comes_back_as_another_node() {
    const DONE: &str = "Remove the node from cluster successfully.";
    const REMOVED: &str = "the node was removed from the cluster";
    let scratch = Scratch::new("force-leave");
    let mut nodes: Vec<Broker> = (1..=5).map(|number| node(&scratch, number)).collect();
    let first = join(&scratch, &[1, 2, 3, 4, 5]);
    for (name, why) in [
        ("n4@test", "the node is not down for long enough"),
        ("nobody@test", "there is no such node"),
        ("n1@test", "a node cannot force itself to leave"),
    ] {
        let failed = format!("Failed to remove the node from cluster: {why}");
        assert_eq!(ctl(&scratch, 1, &["force-leave", name]), (failed, Some(1)));
    }
    // Without two of them most of the voters are there yet.
    let all = wait_until("five voters", || {
        let members = members(&scratch, 2);
        members.iter().all(|member| member["role"] == "voter").then_some(members)
    });
    nodes[3..].iter_mut().for_each(kill);
    let told = force_leave(&scratch, 1, &["n4@test"]);
    assert_eq!(told, format!("{DONE}\n{}", status(&[1, 2, 3], &[5])));
    // By its id, for programs, and asked of another one.
    let fifth = all.iter().find(|member| member["name"] == "n5@test").unwrap()["node"].as_str().unwrap();
    assert_told(&force_leave(&scratch, 2, &[fifth, "--json"]), &[DONE, &status(&[1, 2, 3], &[])], 3);
    wait_until_among(&scratch, &[1, 2, 3]);
    carries(&nodes[1], &nodes[0], "without/others");

    nodes[3] = node(&scratch, 4);
    for (at, by) in [(3, "the other node"), (0, "this node")] {
        let is = |line: &str| line.contains("link refused") && line.contains(REMOVED) && line.contains(by);
        nodes[at].process.stderr.wait_for(REMOVED, is);
    }
    assert_eq!(members(&scratch, 1).len(), 3);
    kill(&mut nodes[3]);
    fs::remove_dir_all(scratch.file("4")).unwrap();
    nodes[3] = node(&scratch, 4);
    wait_until("a join", || (ctl(&scratch, 4, &["join", &first]).1 == Some(0)).then_some(()));
    wait_until_among(&scratch, &[1, 2, 3, 4]);
    carries(&nodes[3], &nodes[0], "as/another");

    // The fifth comes back as it was when an operator lets it.
    let (told, code) = ctl(&scratch, 2, &["readmit", "1"]);
    assert!(told.starts_with("Failed to readmit the node: no node with this id was removed by force, but "), "{told}");
    assert!(told.contains(fifth) && code == Some(1), "{told}");
    let (told, code) = ctl(&scratch, 2, &["readmit", fifth]);
    assert_eq!((told.lines().next(), code), (Some("The node may come back."), Some(0)));
    nodes[4] = node(&scratch, 5);
    wait_until_among(&scratch, &[1, 2, 3, 4, 5]);
    carries(&nodes[4], &nodes[0], "as/before");
    nodes.iter().for_each(Broker::assert_log_is_clean);
}
