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

pub const TABLE: [&str; 2] = ["user_table=on", "allow_anonymous=false"];

/// A client that has sent its CONNECT, and the answer.
pub fn login(broker: &Broker, client_id: &str, username: Option<&str>, password: &str) -> (Client, ReasonCode) {
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

pub fn reason(broker: &Broker, client_id: &str, username: Option<&str>, password: &str) -> ReasonCode {
    login(broker, client_id, username, password).1
}

/// Why the broker ends a connection.
pub fn sent_away(client: &mut Client) -> ReasonCode {
    client.receive(|packet| match packet {
        Packet::Disconnect(disconnect) => disconnect.reason_code,
        other => panic!("{other:?}"),
    })
}

/// What any command of `newtmq ctl` prints that reads this.
pub fn ctl(scratch: &Scratch, number: u32, words: &[&str], input: &str) -> String {
    let mut command = newtmq();
    command.args(["ctl", "--data", &scratch.file(&number.to_string())]).args(words);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn the_cluster_keeps_users_and_bans() {
    let scratch = Scratch::new("records");
    // All of them start again later, and find each other where they were.
    let ports = [(); 3].map(|()| {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    });
    let start = |number: u32| {
        let listen = format!("node.listen=127.0.0.1:{}", ports[number as usize - 1]);
        cluster::node_with(&scratch, number, &[&listen, TABLE[0], TABLE[1]])
    };
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

/// A service that lets in `alice` with `a&b=c`, makes `root` a superuser, and permits topics below the user's name.
fn service() -> (std::net::SocketAddr, std::sync::mpsc::Receiver<String>) {
    use std::io::{BufRead as _, BufReader, Read as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, tell) = (stream.unwrap(), tell.clone());
            std::thread::spawn(move || {
                let mut reading = BufReader::new(stream.try_clone().unwrap());
                loop {
                    let (mut first, mut length) = (String::new(), 0);
                    if reading.read_line(&mut first).unwrap_or(0) == 0 {
                        return;
                    }
                    loop {
                        let mut line = String::new();
                        reading.read_line(&mut line).unwrap();
                        if line.trim().is_empty() {
                            break;
                        }
                        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                            length = value.trim().parse().unwrap();
                        }
                    }
                    let mut body = vec![0; length];
                    reading.read_exact(&mut body).unwrap();
                    let body = String::from_utf8(body).unwrap();
                    let path = first.split(' ').nth(1).unwrap().to_owned();
                    let yes = match path.split('?').next().unwrap() {
                        "/auth" => {
                            body.ends_with("username=alice&password=a%26b%3Dc") || body.contains("username=root")
                        }
                        "/super" => body.contains("username=root"),
                        _ => path.contains("username=alice") && path.contains("topic=alice%2F"),
                    };
                    tell.send(format!("{path} {body}")).unwrap();
                    let status = if body.contains("username=broken") {
                        "500 No"
                    } else if yes {
                        "200 OK"
                    } else {
                        "403 No"
                    };
                    stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes()).unwrap();
                }
            });
        }
    });
    (address, told)
}

#[test]
fn a_service_decides_by_http() {
    use crate::access::subscribe;
    let (address, told) = service();
    let url = |what: &str, path: &str| format!("auth_http.{what}_url=http://{address}/{path}");
    let sets = [&url("auth", "auth"), &url("super", "super"), &url("acl", "acl"), "auth_http.acl_method=get"];
    let broker = Broker::start(&[&sets[..], &["allow_anonymous=false", "login_throttle.user_failures=0"]].concat());
    let (mut alice, connack) = login(&broker, "c", Some("alice"), "a&b=c");
    assert_eq!(connack, ReasonCode::Success);
    for (username, password, want) in [
        (Some("alice"), "wrong", ReasonCode::BadUserNameOrPassword),
        (Some("alice&password=a&b=c"), "", ReasonCode::BadUserNameOrPassword),
        (Some("broken"), "x", ReasonCode::ServerUnavailable),
        (None, "x", ReasonCode::BadUserNameOrPassword),
    ] {
        assert_eq!(reason(&broker, "d", username, password), want, "{username:?}");
    }
    assert_eq!(subscribe(&mut alice, "alice/#"), ReasonCode::GrantedQoS1);
    assert_eq!(subscribe(&mut alice, "bob/x&topic=alice/x"), ReasonCode::NotAuthorized);
    assert_eq!(subscribe(&mut alice, "#"), ReasonCode::NotAuthorized);
    let (mut root, connack) = login(&broker, "r", Some("root"), "x");
    assert_eq!((connack, subscribe(&mut root, "#")), (ReasonCode::Success, ReasonCode::GrantedQoS1));
    let all: Vec<String> = told.try_iter().collect();
    assert!(all.contains(&"/auth clientid=c&username=alice&password=a%26b%3Dc".to_owned()), "{all:?}");
    assert!(
        all.iter()
            .any(|one| one.starts_with("/acl?access=1&username=alice&clientid=c&ipaddr=127.0.0.1&topic=alice%2F%23"))
    );
    assert!(!all.iter().any(|one| one.contains("/acl?") && one.contains("root")), "nobody asks about a superuser");
    assert!(!broker.process.stderr.text().contains("a%26b"));
}

#[test]
fn without_an_answer_nobody_is_let_in() {
    let broker = Broker::start(&["auth_http.auth_url=http://127.0.0.1:1/x", "allow_anonymous=false"]);
    assert_eq!(reason(&broker, "c", Some("alice"), "x"), ReasonCode::ServerUnavailable);
}

#[test]
fn a_token_is_a_password_until_it_ends() {
    let secret = "0123456789abcdef0123456789abcdef";
    let broker = Broker::start(&[&format!("jwt.secret={secret}"), "allow_anonymous=false"]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let token = |claims: serde_json::Value| {
        let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
        jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
    };
    let good = token(json!({ "username": "alice", "exp": now + 3, "acl": { "sub": ["own/%u"] } }));
    let (mut client, connack) = login(&broker, "c", Some("alice"), &good);
    assert_eq!(connack, ReasonCode::Success);
    assert_eq!(crate::access::subscribe(&mut client, "own/alice"), ReasonCode::GrantedQoS1);
    assert_eq!(crate::access::subscribe(&mut client, "own/bob"), ReasonCode::NotAuthorized);
    let wrong = ReasonCode::BadUserNameOrPassword;
    assert_eq!(reason(&broker, "c2", Some("bob"), &good), wrong);
    assert_eq!(reason(&broker, "c2", Some("alice"), "password"), wrong);
    assert_eq!(sent_away(&mut client), ReasonCode::MaximumConnectTime);
    assert_eq!(reason(&broker, "c2", Some("alice"), &good), wrong);
    assert!(!broker.process.stderr.text().contains("eyJ"));
}
