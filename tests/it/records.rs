//! Users and bans that operators add while the broker runs, with real processes, disks and sockets.

use std::io::Write as _;
use std::process::Stdio;

use newtmq_mqtt::{Connect, ConnectProperties, Packet, ProtocolVersion, ReasonCode};
use rustix::process::Signal;
use serde_json::json;

use crate::api::{api, broker, get, post};
use crate::broker::{Broker, Scratch, newtmq, wait_until};
use crate::client::Client;
use crate::cluster;

const TABLE: [&str; 2] = ["user_table=on", "allow_anonymous=false"];

/// A client that has sent its CONNECT, and the answer.
fn login(broker: &Broker, client_id: &str, username: Option<&str>, password: &str) -> (Client, ReasonCode) {
    let mut client = Client::open(broker);
    client.send(&Packet::Connect(Connect {
        version: ProtocolVersion::V5,
        clean_start: true,
        keep_alive: 0,
        client_id,
        will: None,
        username,
        password: Some(password.as_bytes()),
        properties: ConnectProperties::default(),
    }));
    let reason = client.receive(|packet| match packet {
        Packet::Connack(connack) => connack.reason_code,
        other => panic!("{other:?}"),
    });
    (client, reason)
}

fn reason(broker: &Broker, client_id: &str, username: Option<&str>, password: &str) -> ReasonCode {
    login(broker, client_id, username, password).1
}

/// Why the broker ends a connection.
fn sent_away(client: &mut Client) -> ReasonCode {
    client.receive(|packet| match packet {
        Packet::Disconnect(disconnect) => disconnect.reason_code,
        other => panic!("{other:?}"),
    })
}

fn ctl(scratch: &Scratch, number: u32, words: &[&str], input: &str) -> String {
    let mut command = newtmq();
    command.args(["ctl", "--data", &scratch.file(&number.to_string())]).args(words);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn the_cluster_keeps_users_and_bans() {
    let scratch = Scratch::new("records");
    let start = |number| cluster::node_with(&scratch, number, &TABLE);
    let mut nodes: Vec<Broker> = (1..=3).map(start).collect();
    wait_until("a cluster of one", || cluster::ctl(&scratch, 1, &["status"]).0.contains("n1@test").then_some(()));
    let first = cluster::address(&scratch, 1);
    for number in 2..=3 {
        wait_until("a join", || (cluster::ctl(&scratch, number, &["join", &first]).1 == Some(0)).then_some(()));
    }
    for number in 1..=3 {
        cluster::wait_for_status(&scratch, number, cluster::ALL);
    }
    assert_eq!(ctl(&scratch, 1, &["users", "add", "alice", "-"], "s3cr3t-1\n"), "ok\n");
    assert_eq!(ctl(&scratch, 2, &["clientid", "add", "meter", "s3cr3t-2"], ""), "ok\n");
    let mut alice = wait_until("a user of another node", || {
        let (client, reason) = login(&nodes[1], "a", Some("alice"), "s3cr3t-1");
        (reason == ReasonCode::Success).then_some(client)
    });
    let wrong = ReasonCode::BadUserNameOrPassword;
    assert_eq!(reason(&nodes[2], "b", Some("alice"), "s3cr3t-2"), wrong);
    assert_eq!(reason(&nodes[1], "meter", None, "s3cr3t-2"), ReasonCode::Success);
    assert_eq!(reason(&nodes[1], "meter", Some("alice"), "s3cr3t-1"), wrong);
    assert_eq!(ctl(&scratch, 3, &["banned", "add", "username", "alice", "1h", "too loud"], ""), "ok\n");
    assert_eq!(sent_away(&mut alice), ReasonCode::AdministrativeAction);
    wait_until("a ban of another node", || {
        (reason(&nodes[0], "b", Some("alice"), "s3cr3t-1") == ReasonCode::Banned).then_some(())
    });
    // Two of three go on.
    nodes[0].process.signal(Signal::KILL);
    cluster::wait_for_status(&scratch, 2, "{running_nodes,['n2@test','n3@test']},{stopped_nodes,['n1@test']}");
    wait_until("a leader", || (ctl(&scratch, 2, &["users", "add", "bob", "s3cr3t-3"], "") == "ok\n").then_some(()));
    for node in &nodes[1..] {
        node.process.signal(Signal::KILL);
    }
    for node in &mut nodes {
        node.process.wait();
    }
    for node in &nodes {
        assert!(!node.process.stderr.text().contains("s3cr3t-"), "no password is in a log");
    }
    let nodes: Vec<Broker> = (1..=3).map(start).collect();
    wait_until("what was added while it was away", || {
        (ctl(&scratch, 1, &["users", "list"], "") == "User(username = alice)\nUser(username = bob)\n").then_some(())
    });
    assert!(ctl(&scratch, 1, &["banned", "list"], "").contains("who = alice, reason = too loud"));
    assert_eq!(reason(&nodes[0], "b", Some("alice"), "s3cr3t-1"), ReasonCode::Banned);
    let mut bob = wait_until("a client that is let in", || {
        let (client, reason) = login(&nodes[0], "b", Some("bob"), "s3cr3t-3");
        (reason == ReasonCode::Success).then_some(client)
    });
    assert_eq!(ctl(&scratch, 2, &["users", "del", "bob"], ""), "ok\n");
    assert_eq!(sent_away(&mut bob), ReasonCode::AdministrativeAction);
    assert_eq!(reason(&nodes[0], "b", Some("bob"), "s3cr3t-3"), wrong);
    let audit = ctl(&scratch, 2, &["audit"], "");
    assert!(audit.contains("users del bob: done") && audit.contains("clientid add meter: done"), "{audit}");
    let disk = std::fs::read_to_string(format!("{}/audit.jsonl", scratch.file("2"))).unwrap();
    assert!(disk.contains("users del") && !disk.contains("s3cr3t-"));
}

#[test]
fn a_node_alone_is_told_by_http() {
    let broker = broker(&TABLE);
    assert_eq!(reason(&broker, "c", Some("a/+"), "PW"), ReasonCode::BadUserNameOrPassword);
    let new = json!({ "username": "a/+", "password": "PW" });
    assert_eq!(post(&broker, "/auth_username", &new)["data"], json!({ "username": "a/+" }));
    assert_eq!(api(&broker, "POST", "/auth_username", &new).status, 409);
    let (mut client, connack) = login(&broker, "c", Some("a/+"), "PW");
    assert_eq!(connack, ReasonCode::Success);
    for (method, path, body, status) in [
        ("PUT", "/auth_username/nobody", json!({ "password": "x" }), 404),
        ("PUT", "/auth_username/a%2F%2B", json!({ "password": "" }), 400),
        ("PUT", "/auth_username/a%2F%2B", json!({ "password": "NEW" }), 200),
        ("GET", "/auth_username/a%2F%2B", json!(null), 200),
        ("GET", "/auth_clientid/c", json!(null), 404),
        ("POST", "/auth_clientid", json!({ "clientid": "", "password": "x" }), 400),
        ("POST", "/auth_clientid", json!({ "clientid": "c".repeat(501), "password": "x" }), 400),
        ("POST", "/banned", json!({ "who": "x", "as": "name" }), 400),
        ("POST", "/banned", json!({ "who": "10.0.0.0/40", "as": "ip_address" }), 400),
        ("POST", "/banned", json!({ "who": "x", "as": "client_id", "until": 1 }), 400),
        ("POST", "/banned", json!({ "who": "10.1.2.3/8", "as": "ip_address" }), 200),
        ("DELETE", "/banned/10.0.0.0%2F8", json!(null), 400),
        ("DELETE", "/banned/10.0.0.0%2F8?as=ip_address", json!(null), 200),
        ("DELETE", "/banned/10.0.0.0%2F8?as=ip_address", json!(null), 404),
    ] {
        let answer = api(&broker, method, path, &body);
        assert_eq!(answer.status, status, "{method} {path} {body}");
    }
    assert_eq!(reason(&broker, "d", Some("a/+"), "PW"), ReasonCode::BadUserNameOrPassword);
    assert_eq!(reason(&broker, "d", Some("a/+"), "NEW"), ReasonCode::Success);
    let list = get(&broker, "/auth_username");
    assert_eq!((&list["data"], &list["meta"]["count"]), (&json!([{ "username": "a/+" }]), &json!(1)));
    assert_eq!(api(&broker, "DELETE", "/auth_username/a%2F%2B", &json!(null)).status, 200);
    assert_eq!(sent_away(&mut client), ReasonCode::AdministrativeAction);
    let audit = get(&broker, "/audit?_limit=1");
    assert_eq!(audit["data"][0]["action"], "users del");
    assert_eq!(audit["data"][0]["by"], "app:app");
    assert!(audit["data"][0]["from"].as_str().unwrap().starts_with("127.0.0.1:"));
    broker.stays_well();
}

#[test]
fn without_a_table_nothing_is_added_and_a_client_that_flaps_is_banned() {
    let broker = broker(&["zone.external.flapping_threshold=3,1m", "zone.external.flapping_banned_expiry_interval=2s"]);
    let new = json!({ "username": "a", "password": "PW" });
    assert_eq!(api(&broker, "POST", "/auth_username", &new).status, 409);
    wait_until("a ban", || (reason(&broker, "c", None, "") == ReasonCode::Banned).then_some(()));
    assert_eq!(get(&broker, "/banned")["data"][0]["by"], "flapping");
    assert_eq!(reason(&broker, "d", None, ""), ReasonCode::Success);
    wait_until("its end", || (reason(&broker, "c", None, "") == ReasonCode::Success).then_some(()));
    broker.stays_well();
}
