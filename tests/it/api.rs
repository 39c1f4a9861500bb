//! The HTTP API over sockets: what its page promises, and what it must withstand.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use newtmq_mqtt::QoS;
use serde_json::{Value, json};

use crate::broker::{Broker, DEADLINE, Process, Scratch, clean, newtmq, wait_until};
use crate::client::Client;
use crate::cluster;

const APP: &str = "YXBwOnNlY3JldA=="; // app:secret

pub fn broker(sets: &[&str]) -> Broker {
    let own = ["api.app_id=app", "api.app_secret=secret", "node.name=n@h"];
    Broker::of(newtmq(), &[&own[..], sets].concat(), &["--shards", "2"])
}

fn address(broker: &Broker) -> SocketAddr {
    broker.started["api"].as_str().expect("it is told").split("://").nth(1).unwrap().parse().unwrap()
}

/// What comes back for these bytes, until the end of the connection.
fn raw(broker: &Broker, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address(broker)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    // It may have refused before the last byte.
    let _ = stream.write_all(bytes);
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    String::from_utf8_lossy(&all).into_owned()
}

pub struct Answer {
    pub status: u16,
    head: String,
    pub text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }
}

pub fn request(broker: &Broker, method: &str, path: &str, headers: &str, body: &str) -> Answer {
    let length = body.len();
    let text = raw(
        broker,
        format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}", address(broker)).as_bytes(),
    );
    let (head, text) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_lowercase(), text: text.to_owned() }
}

fn with(app: &str) -> String {
    format!("Authorization: Basic {app}\r\n")
}

pub fn api(broker: &Broker, method: &str, path: &str, body: &Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    request(broker, method, &format!("/api/v3{path}"), &with(APP), &body)
}

pub fn get(broker: &Broker, path: &str) -> Value {
    let answer = api(broker, "GET", path, &Value::Null);
    assert_eq!(answer.status, 200, "{path}: {}", answer.text);
    answer.json()
}

pub fn post(broker: &Broker, path: &str, body: &Value) -> Value {
    api(broker, "POST", path, body).json()
}

#[test]
fn every_path_of_the_document_is_there_and_none_without_an_application() {
    let broker = broker(&[]);
    let document: Value = request(&broker, "GET", "/api/openapi.json", "", "").json();
    assert_eq!(document["openapi"], "3.1.0");
    let mut seen = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let method = method.to_uppercase();
            let target = path.replace("{node}", "n@h").replace(['{', '}'], "");
            let answer = request(&broker, &method, &target, &with(APP), "{}");
            assert!(
                operation["responses"].get(answer.status.to_string()).is_some(),
                "{method} {target}: {}",
                answer.status
            );
            let missing = [405, 501].contains(&answer.status) || answer.text.contains("there is nothing here");
            assert!(!missing, "{method} {target}: {}", answer.text);
            let open = operation["security"] == json!([]);
            let without = request(&broker, &method, &target, "", "{}").status;
            assert_eq!(without == 401, !open, "{method} {target} without an application: {without}");
            seen += 1;
        }
    }
    assert!(seen > 40);
    broker.stays_well();
}

#[test]
fn what_the_page_says_is_not_there_says_so_itself() {
    let broker = broker(&[]);
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/http-api.md")).unwrap();
    let paths: Vec<&str> =
        page.lines().filter(|line| line.contains(" | not yet | ")).filter_map(|line| line.split('`').nth(1)).collect();
    assert!(paths.len() >= 4, "{paths:?}");
    for path in paths {
        let path = path.replace("{node}", "n@h").replace(['{', '}'], "");
        for (method, path) in [("GET", path.clone()), ("PUT", format!("{path}/load")), ("POST", path)] {
            assert_eq!(request(&broker, method, &path, &with(APP), "{}").status, 501, "{method} {path}");
            assert_eq!(request(&broker, method, &path, "", "{}").status, 401, "{method} {path}");
        }
    }
    broker.stays_well();
}

#[test]
fn an_application_sees_clients_and_sends_them_messages() {
    let broker = broker(&[]);
    let mut a = Client::connect(&broker, "a/b c");
    let shown = get(&broker, "/connections");
    assert_eq!((&shown["code"], &shown["meta"]["count"]), (&json!(0), &json!(1)));
    assert_eq!((&shown["data"][0]["client_id"], &shown["data"][0]["proto_ver"]), (&json!("a/b c"), &json!(5)));
    assert_eq!(get(&broker, "/connections/a%2Fb%20c")["data"][0]["node"], "n@h");
    let subscribe = json!({ "client_id": "a/b c", "topics": "t/#,u", "qos": 1 });
    assert_eq!(post(&broker, "/mqtt/subscribe", &subscribe), json!({ "code": 0 }));
    assert_eq!(get(&broker, "/subscriptions/a%2Fb%20c")["meta"]["count"], 2);
    assert_eq!(get(&broker, "/routes/t%2F%23")["data"], json!([{ "topic": "t/#", "node": "n@h" }]));
    let publish = json!({ "topic": "t/1", "payload": "hi", "qos": 1, "client_id": "http" });
    assert_eq!(post(&broker, "/mqtt/publish", &publish), json!({ "code": 0 }));
    let got = a.message();
    assert_eq!((got.topic.as_str(), got.payload.as_slice(), got.qos), ("t/1", &b"hi"[..], QoS::AtLeastOnce));
    let unsubscribe = json!({ "client_id": "a/b c", "topic": "u" });
    assert_eq!(post(&broker, "/mqtt/unsubscribe", &unsubscribe), json!({ "code": 0 }));
    assert_eq!(get(&broker, "/nodes/n@h/subscriptions")["meta"]["count"], 1);
    assert_eq!(api(&broker, "DELETE", "/connections/a%2Fb%20c", &Value::Null).json(), json!({ "code": 0 }));
    while a.frame().is_some() {}
    assert_eq!(api(&broker, "DELETE", "/connections/a%2Fb%20c", &Value::Null).json()["code"], 112);
    assert_eq!(post(&broker, "/mqtt/subscribe", &subscribe)["code"], 112);
    broker.stays_well();
}

#[test]
fn a_wrong_secret_an_old_one_and_a_foreign_page_are_refused() {
    let broker = broker(&[]);
    let status = |headers: &str| request(&broker, "GET", "/api/v3/brokers", headers, "").status;
    assert_eq!(status(&with(APP)), 200);
    // app:secre, app:secret2, APP:secret, app:, :secret, no colon, no Base64, another scheme, twice.
    for app in ["YXBwOnNlY3Jl", "YXBwOnNlY3JldDI=", "QVBQOnNlY3JldA==", "YXBwOg==", "OnNlY3JldA==", "YXBw", "%%%", ""] {
        assert_eq!(status(&with(app)), 401, "{app}");
    }
    assert_eq!(status(&format!("Authorization: Bearer {APP}\r\n")), 401);
    assert_eq!(status(&[with(APP), with(APP)].concat()), 401);
    assert_eq!(status(&format!("{}Origin: http://evil.example\r\n", with(APP))), 403);
    // A path is what it is: nothing is found by another spelling of it.
    for path in [
        "/api/v3/../v3/brokers",
        "//api/v3/brokers",
        "/API/v3/brokers",
        "/api/v3/brokers/",
        "/api/v3/%2e%2e/status",
        "/..%2f..%2fetc/passwd",
        "/api/v3/brokers%00",
    ] {
        let answer = request(&broker, "GET", path, "", "");
        assert!(matches!(answer.status, 400 | 401 | 404), "{path}: {}", answer.status);
        assert!(!answer.text.contains("node_status"), "{path}");
    }
    let added = post(&broker, "/apps", &json!({ "app_id": "two", "name": "Two" }));
    let secret = added["data"]["secret"].as_str().unwrap().to_owned();
    let two = base64_of(&format!("two:{secret}"));
    assert_eq!(status(&with(&two)), 200);
    assert!(!get(&broker, "/apps").to_string().contains(&secret));
    assert_eq!(api(&broker, "PUT", "/apps/two", &json!({ "status": false })).json()["data"]["status"], false);
    assert_eq!(status(&with(&two)), 401);
    assert_eq!(api(&broker, "DELETE", "/apps/two", &Value::Null).status, 200);
    let log = broker.process.stderr.text();
    assert!(!log.contains(&secret) && !log.contains("YXBwOnNlY3JldA"), "{log}");
    broker.stays_well();
}

fn base64_of(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * at) & 63) as usize] as char;
            out.push(if at <= chunk.len() { digit } else { '=' });
        }
    }
    out
}

#[test]
fn nothing_that_is_sent_gets_into_a_header_or_a_topic() {
    let broker = broker(&[]);
    // What comes back in a body is JSON, and heads have nothing of the request.
    let answer = request(&broker, "GET", "/api/v3/where/a%0d%0aX-Evil:%201%0d%0a%0d%0a", &with(APP), "");
    assert_eq!((answer.status, answer.head.contains("x-evil")), (200, false));
    let mut watch = Client::connect(&broker, "watch");
    let all = json!({ "client_id": "watch", "topic": "#", "qos": 0 });
    assert_eq!(post(&broker, "/mqtt/subscribe", &all)["code"], 0);
    for (body, code) in [
        (json!({ "topic": "a/+", "payload": "x" }), 115),
        (json!({ "topic": "#", "payload": "x" }), 115),
        (json!({ "topic": "", "payload": "x" }), 115),
        (json!({ "topic": "a\u{0}b", "payload": "x" }), 115),
        (json!({ "topic": "$SYS/brokers", "payload": "x" }), 115),
        (json!({ "topic": "$share/g/t", "payload": "x" }), 115),
        (json!({ "topics": "ok,b/#", "payload": "x" }), 115),
        (json!({ "payload": "x" }), 107),
        (json!({ "topic": ["a"], "payload": "x" }), 108),
        (json!({ "topic": "a", "qos": -1 }), 108),
    ] {
        let answer = api(&broker, "POST", "/mqtt/publish", &body);
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!(code)), "{body}");
    }
    for filter in ["a/#/b", "a+", "", "$share/g", "$share//t"] {
        let body = json!({ "client_id": "watch", "topic": filter, "qos": 0 });
        assert_eq!(post(&broker, "/mqtt/subscribe", &body)["code"], 115, "{filter}");
    }
    assert_eq!(post(&broker, "/mqtt/publish", &json!({ "topic": "last", "payload": "x" }))["code"], 0);
    assert_eq!(watch.message().topic, "last", "nothing of the others came");
    broker.stays_well();
}

#[test]
fn what_is_too_large_too_slow_or_too_much_is_let_go() {
    let broker = broker(&["api.max_body_size=2KB", "api.request_timeout=300ms", "api.max_connections=3"]);
    let body = json!({ "topic": "t", "payload": "x".repeat(4096) });
    assert_eq!(api(&broker, "POST", "/mqtt/publish", &body).status, 413);
    let head = format!("POST /api/v3/mqtt/publish HTTP/1.1\r\nHost: h\r\n{}", with(APP));
    // A body that does not come, a head that does not end, one that is too large, and what is no HTTP.
    let late = raw(&broker, format!("{head}Content-Length: 100\r\n\r\n{{").as_bytes());
    assert!(late.contains(" 408 "), "{late}");
    let slow = raw(&broker, b"GET /status HTTP/1.1\r\nHost: h\r\n");
    assert!(!slow.contains("is started"), "{slow}");
    let long =
        raw(&broker, format!("GET /status HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(100_000)).as_bytes());
    assert!(!long.contains("is started"), "{}", &long[..200.min(long.len())]);
    let many = raw(&broker, format!("GET /status HTTP/1.1\r\nHost: h\r\n{}\r\n", "X: y\r\n".repeat(1000)).as_bytes());
    assert!(!many.contains("is started"), "{many}");
    assert!(!raw(&broker, &[0x10, 0x0c, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 0]).contains("200"));
    // Two lengths, or a length beside chunks, would let one request be taken for two.
    for lengths in ["Content-Length: 2\r\nContent-Length: 3\r\n", "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n"]
    {
        let answer = raw(
            &broker,
            format!("{head}{lengths}\r\n{{}}\r\n0\r\n\r\nGET /status HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes(),
        );
        assert!(!answer.contains("is started"), "{answer}");
    }
    // Idle ones have their time, too: the places come back.
    let idle: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(address(&broker)).unwrap()).collect();
    wait_until("a place", || {
        let text = raw(&broker, b"GET /status HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        text.contains("is started").then_some(())
    });
    drop(idle);
    broker.stays_well();
}

#[test]
fn health_and_metrics_need_no_application() {
    let broker = broker(&[]);
    for (path, text) in [
        ("/health/live", "ok\n"),
        ("/health/ready", "ready\n"),
        ("/status", "Node n@h is started\nnewtmq is running\n"),
    ] {
        let answer = request(&broker, "GET", path, "", "");
        assert_eq!((answer.status, answer.text.as_str()), (200, text), "{path}");
    }
    let answer = request(&broker, "GET", "/metrics", "", "");
    assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
    assert!(answer.text.contains("\nnewtmq_connections 0\n"), "{}", answer.text);
    broker.stays_well();
    let closed = self::broker(&["api.open_metrics=off"]);
    assert_eq!(request(&closed, "GET", "/metrics", "", "").status, 401);
    assert_eq!(request(&closed, "GET", "/metrics", &with(APP), "").status, 200);
    closed.stays_well();
}

#[test]
fn with_a_certificate_it_is_https() {
    let scratch = Scratch::new("api-tls");
    scratch.certificates("certs", &[]);
    let files = ["certfile=", "keyfile="].iter().zip(["cert.pem", "key.pem"]);
    let sets: Vec<String> =
        files.map(|(key, file)| format!("api.{key}{}", scratch.file(&format!("certs/{file}")))).collect();
    let broker = broker(&sets.iter().map(String::as_str).collect::<Vec<_>>());
    let url = broker.started["api"].as_str().unwrap();
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");
    assert!(!raw(&broker, b"GET /status HTTP/1.1\r\nHost: h\r\n\r\n").contains("is started"));
    if let Ok(output) =
        Command::new("curl").args(["-s", "--cacert", &scratch.file("certs/ca.pem"), &format!("{url}/status")]).output()
    {
        assert!(String::from_utf8_lossy(&output.stdout).contains("is started"), "{output:?}");
    }
    broker.stays_well();
}

#[test]
fn an_address_that_is_wanted_must_be_free() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut command = newtmq();
    command.args(["run", "--set", "listener.tcp.external.bind=127.0.0.1:0", "--set", "node.listen=127.0.0.1:0"]);
    command.args(["--set", &format!("api.bind={}", taken.local_addr().unwrap())]);
    let mut process = Process::start(command);
    assert_eq!(process.wait().code(), Some(3));
    assert!(process.stderr.to_end().contains("api.bind cannot listen on"));
}

/// Requests of all kinds, made from the OpenAPI document.
#[test]
#[ignore = "needs schemathesis"]
fn schemathesis_finds_nothing() {
    let broker = broker(&["api.request_timeout=5s"]);
    let client = Client::connect(&broker, "a");
    let python = std::env::var_os("NEWTMQ_PYTHON").expect("the stage says where it is");
    let program = Path::new(&python).with_file_name("schemathesis");
    let url = broker.started["api"].as_str().unwrap();
    let scratch = Scratch::new("schemathesis");
    let mut command = clean(Command::new(program));
    command.args(["run", &format!("{url}/api/openapi.json"), "--auth", "app:secret", "--seed", "1", "--no-color"]);
    command.args(["--max-examples", "60", "--checks"]);
    command.args(["not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"]);
    command.current_dir(scratch.path()).env("HOME", scratch.path());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    // It may have sent the client away.
    let _ = client.stream.set_read_timeout(Some(Duration::from_millis(1)));
    broker.stays_well();
}

/// `promtool check metrics` has nothing to say.
#[test]
#[ignore = "needs promtool"]
fn promtool_finds_nothing() {
    let broker = broker(&[]);
    let text = request(&broker, "GET", "/metrics", "", "").text;
    let mut child = clean(Command::new("promtool"))
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let told = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && told.is_empty(), "{}\n{text}", String::from_utf8_lossy(&told));
    broker.stays_well();
}

#[test]
fn any_node_answers_for_the_cluster_and_names_who_is_down() {
    let scratch = Scratch::new("api-cluster");
    let nodes: Vec<Broker> = (1..=2).map(|number| cluster::node(&scratch, number)).collect();
    wait_until("a cluster of one", || cluster::ctl(&scratch, 1, &["status"]).0.contains("n1@test").then_some(()));
    let first = cluster::address(&scratch, 1);
    assert_eq!(cluster::ctl(&scratch, 2, &["join", &first]).1, Some(0));
    for number in 1..=2 {
        cluster::wait_for_status(&scratch, number, "{running_nodes,['n1@test','n2@test']}");
    }
    let mut clients: Vec<Client> = Vec::new();
    wait_until("clients that are let in", || {
        for (node, name) in nodes.iter().zip(["a", "b"]).skip(clients.len()) {
            clients.push(Client::connect(node, name));
        }
        (clients.len() == 2).then_some(())
    });
    let names = |list: &Value| -> Vec<String> {
        list["data"].as_array().unwrap().iter().map(|row| row["client_id"].as_str().unwrap().to_owned()).collect()
    };
    let at = &nodes[0];
    let both = wait_until("an answer of both", || {
        let both = get(at, "/connections");
        (both["meta"].get("missing").is_none()).then_some(both)
    });
    assert_eq!((names(&both), &both["meta"]["count"]), (vec!["a".to_owned(), "b".to_owned()], &json!(2)));
    assert_eq!(names(&get(at, "/connections?_page=2&_limit=1")), ["b"]);
    assert_eq!(names(&get(at, "/nodes/n2@test/connections")), ["b"]);
    assert_eq!(get(at, "/nodes")["data"][1]["connections"], 1);
    assert_eq!(get(at, "/stats")["data"][1]["node"], "n2@test");
    assert_eq!(post(at, "/mqtt/subscribe", &json!({ "client_id": "b", "topic": "t", "qos": 1 })), json!({ "code": 0 }));
    assert_eq!(names(&get(at, "/subscriptions")), ["b"]);
    let list = || {
        let mut command = newtmq();
        let output = command.args(["ctl", "--data", &scratch.file("1"), "clients", "list"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(list().lines().count(), 2, "{}", list());
    assert_eq!(api(at, "DELETE", "/connections/b", &Value::Null).json(), json!({ "code": 0 }));
    while clients[1].frame().is_some() {}
    nodes[1].process.signal(rustix::process::Signal::KILL);
    cluster::wait_for_status(&scratch, 1, "{running_nodes,['n1@test']},{stopped_nodes,['n2@test']}");
    let one = get(at, "/connections");
    assert_eq!((names(&one), &one["meta"]["missing"]), (vec!["a".to_owned()], &json!(["n2@test"])));
    assert_eq!(get(at, "/nodes")["data"][1]["node_status"], "Stopped");
    assert_eq!(api(at, "GET", "/nodes/n2@test/stats", &Value::Null).status, 503);
    assert_eq!(api(at, "GET", "/nodes/nobody/stats", &Value::Null).status, 404);
    assert!(list().ends_with("n2@test does not answer\n"), "{}", list());
}
