//! Nodes in a cluster, each its own process. What members promise each other is tested in `core/` and `sim/`.

use newtmq_mqtt::QoS;
use rustix::process::Signal;
use serde_json::Value;

use crate::broker::{Broker, Process, Scratch, newtmq, wait_until};
use crate::client::Client;

/// A node with a data directory of its own, on any port.
pub fn node(scratch: &Scratch, number: u32) -> Broker {
    node_with(scratch, number, &[])
}

/// The same with some keys set.
pub fn node_with(scratch: &Scratch, number: u32, more: &[&str]) -> Broker {
    let name = format!("node.name=n{number}@test");
    let sets = ["node.cookie=s3cr3t", "node.listen=127.0.0.1:0", "api.app_id=app", "api.app_secret=secret", &name];
    let sets = [&sets[..], more].concat();
    Broker::of(newtmq(), &sets, &["--data", &scratch.file(&number.to_string()), "--shards", "2"])
}

/// What `newtmq ctl` prints, and its exit code.
pub fn ctl(scratch: &Scratch, number: u32, arguments: &[&str]) -> (String, Option<i32>) {
    let mut command = newtmq();
    command.args(["ctl", "--data", &scratch.file(&number.to_string()), "cluster"]).args(arguments);
    let mut process = Process::start(command);
    let code = process.wait().code();
    (process.stdout.to_end(), code)
}

/// What a node knows of the members.
pub fn members(scratch: &Scratch, number: u32) -> Vec<Value> {
    let (told, code) = ctl(scratch, number, &["status", "--json"]);
    assert_eq!(code, Some(0), "{told}");
    let told: Value = serde_json::from_str(&told).unwrap();
    told["data"]["nodes"].as_array().unwrap().clone()
}

/// Waits until all nodes match what is published for all three, the third in this start of it.
pub fn wait_until_open(scratch: &Scratch, third: u64) {
    let start = |node: &Value| if node["name"] == "n3@test" { third } else { 1 };
    wait_until_all(scratch, &[1, 2, 3], |node| node["incarnation"] == start(node));
}

/// Waits until each of these nodes has them and nobody else as members, and matches what is published for them.
pub fn wait_until_among(scratch: &Scratch, numbers: &[u32]) {
    wait_until_all(scratch, numbers, |_| true);
}

fn wait_until_all(scratch: &Scratch, numbers: &[u32], also: impl Fn(&Value) -> bool) {
    let is_open = |node: &Value| node["routes"] == "open" && node["running"] == true && also(node);
    for number in numbers {
        wait_until("open routes", || {
            let members = members(scratch, *number);
            (members.len() == numbers.len() && members.iter().all(is_open)).then_some(())
        });
    }
}

/// Makes one cluster of these nodes: all join the first one, whose address this gives.
pub fn join(scratch: &Scratch, numbers: &[u32]) -> String {
    wait_until("a cluster of one", || (!members(scratch, numbers[0]).is_empty()).then_some(()));
    let first = address(scratch, numbers[0]);
    for number in &numbers[1..] {
        wait_until("a join", || (ctl(scratch, *number, &["join", &first]).1 == Some(0)).then_some(()));
    }
    wait_until_among(scratch, numbers);
    first
}

pub fn address(scratch: &Scratch, number: u32) -> String {
    let nodes = members(scratch, number);
    let own = nodes.iter().find(|node| node["self"] == true).expect("a lone node is a member of its own cluster");
    own["address"].as_str().unwrap().to_owned()
}

pub fn wait_for_status(scratch: &Scratch, number: u32, wanted: &str) {
    wait_until(wanted, || (ctl(scratch, number, &["status"]).0 == format!("Cluster status: [{wanted}]")).then_some(()));
}

pub const ALL: &str = "{running_nodes,['n1@test','n2@test','n3@test']}";

#[test]
fn three_nodes_join_carry_messages_and_come_back() {
    let scratch = Scratch::new("cluster");
    let mut nodes: Vec<Broker> = (1..=3).map(|number| node(&scratch, number)).collect();
    wait_until("a cluster of one", || (ctl(&scratch, 1, &["status"]).0.contains("n1@test")).then_some(()));
    let first = address(&scratch, 1);
    for number in [2, 3] {
        let (told, code) = ctl(&scratch, number, &["join", &first]);
        assert!(told.starts_with("Join the cluster successfully.\nCluster status: "), "{told}");
        assert_eq!(code, Some(0));
    }
    wait_until_open(&scratch, 1);
    for number in 1..=3 {
        wait_for_status(&scratch, number, ALL);
    }
    let (told, code) = ctl(&scratch, 3, &["join", &first]);
    assert!(told.starts_with("Failed to join the cluster: "), "{told}");
    assert_eq!(code, Some(1));
    carries(&nodes[1], &nodes[0], "to/second");

    nodes[2].process.signal(Signal::KILL);
    nodes[2].process.wait();
    nodes[2] = node(&scratch, 3);
    wait_until_open(&scratch, 2);
    carries(&nodes[2], &nodes[1], "to/third");
    carries(&nodes[0], &nodes[2], "from/third");

    nodes[1].process.signal(Signal::TERM);
    assert_eq!(nodes[1].process.wait().code(), Some(0));
    wait_for_status(&scratch, 1, "{running_nodes,['n1@test','n3@test']},{stopped_nodes,['n2@test']}");
    carries(&nodes[2], &nodes[0], "without/second");
    for node in [&nodes[0], &nodes[2]] {
        assert!(!node.process.stderr.text().contains("s3cr3t"));
        node.assert_log_is_clean();
    }
}

/// A subscription at one node gets what is published at another as soon as it is confirmed.
pub fn carries(to: &Broker, from: &Broker, topic: &str) {
    let mut subscriber = Client::connect(to, "subscriber");
    subscriber.subscribe(topic, QoS::AtLeastOnce);
    let mut publisher = Client::connect(from, "publisher");
    for qos in [QoS::AtLeastOnce, QoS::AtMostOnce] {
        publisher.publish(topic, b"hi", qos);
        assert_eq!(subscriber.message().payload, b"hi");
    }
    subscriber.disconnect();
    publisher.disconnect();
}

#[test]
fn without_a_broker_it_says_so() {
    let scratch = Scratch::new("ctl");
    let mut command = newtmq();
    command.args(["ctl", "--data", &scratch.file("nowhere"), "cluster", "status"]);
    let mut process = Process::start(command);
    assert_eq!(process.wait().code(), Some(5));
    assert!(process.stderr.to_end().contains("no broker answers at "));
}

#[test]
fn a_node_that_stays_alone_says_so() {
    let scratch = Scratch::new("alone");
    let socket = scratch.file("ctl.sock");
    let _broker = Broker::of(newtmq(), &["node.listen=none"], &["--socket", &socket]);
    let mut command = newtmq();
    command.args(["ctl", "--socket", &socket, "cluster", "join", "127.0.0.1"]);
    let mut process = Process::start(command);
    assert_eq!(process.wait().code(), Some(1));
    let told = process.stdout.to_end();
    assert_eq!(told, "Failed to join the cluster: this node stays alone (see node.listen)");
}
