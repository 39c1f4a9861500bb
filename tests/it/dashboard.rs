//! The dashboard over sockets: who gets in, and what it must withstand. What people do with its pages is in
//! `tests/clients/dashboard.mjs`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use newtmq_mqtt::QoS;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::broker::{Broker, DEADLINE, NEWTMQ, Process, Scratch, clean, newtmq, wait_until};
use crate::client::Client;

const MARK: &str = "X-NewtMQ-Dashboard: 1\r\n";
const PASSWORD: &str = "correct horse battery";

fn broker(sets: &[&str]) -> Broker {
    Broker::of(newtmq(), &[&["node.name=n@h"], sets].concat(), &["--shards", "2"])
}

fn address(broker: &Broker) -> SocketAddr {
    broker.started["dashboard"].as_str().expect("it is told").split("://").nth(1).unwrap().parse().unwrap()
}

struct Answer {
    status: u16,
    head: String,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    /// The cookie, as a header of a request.
    fn cookie(&self) -> String {
        let line = self.head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect("a cookie");
        format!("Cookie: {}\r\n", line.split(';').next().unwrap())
    }
}

/// From any address of this machine, for any host.
fn ask(from: &str, to: SocketAddr, host: &str, line: &str, headers: &str, body: &str) -> Answer {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&format!("{from}:0").parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let length = body.len();
    let head = format!("{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n");
    let _ = stream.write_all(format!("{head}{headers}\r\n{body}").as_bytes());
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    let text = String::from_utf8_lossy(&all).into_owned();
    let (head, text) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.replace("\r\n", "\n"), text: text.to_owned() }
}

fn request(broker: &Broker, line: &str, headers: &str, body: &str) -> Answer {
    let to = address(broker);
    ask("127.0.0.1", to, &to.to_string(), line, headers, body)
}

fn log_in(broker: &Broker, password: &str) -> Answer {
    let body = json!({ "username": "admin", "password": password }).to_string();
    request(broker, "POST /session", MARK, &body)
}

fn change(broker: &Broker, cookie: &str, old: &str, new: &str) -> Answer {
    request(broker, "PUT /session/password", &[MARK, cookie].concat(), &json!({ "old": old, "new": new }).to_string())
}

/// A broker whose first password is changed, and the cookie of who has done that.
fn logged_in(sets: &[&str]) -> (Broker, String) {
    let broker = broker(sets);
    let first = log_in(&broker, "public").cookie();
    let changed = change(&broker, &first, "public", PASSWORD);
    assert_eq!(changed.status, 200, "{}", changed.text);
    let cookie = changed.cookie();
    (broker, cookie)
}

fn status(broker: &Broker, line: &str, headers: &str) -> u16 {
    request(broker, line, headers, "").status
}

#[test]
fn the_first_password_opens_nothing_until_it_is_changed() {
    let broker = broker(&[]);
    assert_eq!(status(&broker, "GET /session", ""), 401);
    assert_eq!(log_in(&broker, "private").status, 401);
    let first = log_in(&broker, "public");
    assert_eq!((first.status, &first.json()["must_change"]), (200, &json!(true)));
    let flags: Vec<&str> =
        first.head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap().split("; ").skip(1).collect();
    assert_eq!(flags, ["Path=/", "HttpOnly", "SameSite=Strict", "Max-Age=86400"]);
    let cookie = first.cookie();
    for line in
        ["GET /api/v3/brokers", "GET /api/v3/apps", "GET /api/v3/nodes/n@h/configs", "DELETE /api/v3/connections/a"]
    {
        let answer = request(&broker, line, &[MARK, &cookie].concat(), "");
        assert_eq!((answer.status, &answer.json()["code"]), (403, &json!(140)), "{line}");
    }
    for (old, new, want) in
        [("wrong", PASSWORD, 403), ("public", "short", 400), ("public", "public", 400), ("public", PASSWORD, 200)]
    {
        assert_eq!(change(&broker, &cookie, old, new).status, want, "{old} {new}");
    }
    assert_eq!(status(&broker, "GET /session", &cookie), 401, "who has got in with the old one is out");
    assert_eq!(log_in(&broker, "public").status, 401);
    let again = log_in(&broker, PASSWORD);
    assert_eq!((again.status, &again.json()["must_change"]), (200, &json!(false)));
    assert_eq!(status(&broker, "GET /api/v3/brokers", &again.cookie()), 200);
    assert_eq!(status(&broker, "DELETE /session", &[MARK, &again.cookie()].concat()), 200);
    assert_eq!(status(&broker, "GET /api/v3/brokers", &again.cookie()), 401);
    let log = broker.process.stderr.text();
    assert!(log.contains("login to the dashboard") && !log.contains(PASSWORD) && !log.contains("private"), "{log}");
    broker.stays_well();
}

#[test]
fn the_first_password_is_refused_from_elsewhere_and_one_that_was_chosen_is_not() {
    let body = json!({ "username": "admin", "password": "public" }).to_string();
    let broker = broker(&["dashboard.bind=0.0.0.0:0"]);
    let to = SocketAddr::from(([127, 0, 0, 1], address(&broker).port()));
    let own = to.to_string();
    let proxied = format!("{MARK}X-Forwarded-For: 192.0.2.1\r\n");
    for (host, headers, want) in [
        // A page at evil.example may have its name lead to this machine.
        ("evil.example", MARK, 403),
        ("192.0.2.7:18083", MARK, 403),
        (own.as_str(), proxied.as_str(), 403),
        (own.as_str(), MARK, 200),
    ] {
        let answer = ask("127.0.0.1", to, host, "POST /session", headers, &body);
        assert_eq!(answer.status, want, "{host} {headers}");
        assert!(want == 200 || answer.text.contains("only taken on the machine of the broker"), "{}", answer.text);
    }
    if let Some(outside) = own_address() {
        let to = SocketAddr::new(outside, to.port());
        let answer = ask(&outside.to_string(), to, &own, "POST /session", MARK, &body);
        assert_eq!(answer.status, 403);
    }
    broker.process.stderr.wait_for("a warning", |line| line.contains("the dashboard has its first password"));
    let chosen = self::broker(&["dashboard.default_user.password=mine"]);
    let to = address(&chosen);
    let from_afar = |password: &str| {
        let body = json!({ "username": "admin", "password": password }).to_string();
        ask("127.0.0.1", to, "192.0.2.7:18083", "POST /session", MARK, &body).status
    };
    assert_eq!((from_afar("public"), from_afar("mine")), (401, 200));
    assert!(!chosen.process.stderr.text().contains("mine"));
}

/// An address of this machine that is not loopback, if it has one: no packet goes to where it is asked for.
fn own_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
}

#[test]
fn who_guesses_has_to_wait_and_others_do_not() {
    let (broker, cookie) = logged_in(&[]);
    let to = address(&broker);
    let from = |address: &str, password: &str| {
        let body = json!({ "username": "admin", "password": password }).to_string();
        ask(address, to, &to.to_string(), "POST /session", MARK, &body)
    };
    let seen: Vec<u16> = (0..8).map(|n| from("127.0.0.2", &format!("guess {n}")).status).collect();
    assert!(seen.starts_with(&[401; 5]) && seen.ends_with(&[429]), "{seen:?}");
    let late = from("127.0.0.2", PASSWORD);
    assert_eq!(late.status, 429, "the right one, too");
    assert!(late.head.contains("retry-after: "), "{}", late.head);
    assert_eq!(from("127.0.0.3", PASSWORD).status, 200);
    assert_eq!(status(&broker, "GET /api/v3/brokers", &cookie), 200);
    for body in ["", "[]", "{}", "{\"username\":1,\"password\":\"x\"}", "not JSON"] {
        assert_eq!(request(&broker, "POST /session", MARK, body).status, 400, "{body}");
    }
    let long = json!({ "username": "admin", "password": "x".repeat(300) }).to_string();
    assert_eq!(request(&broker, "POST /session", MARK, &long).status, 400);
    let huge = json!({ "username": "admin", "password": "x".repeat(3 << 20) }).to_string();
    assert_eq!(request(&broker, "POST /session", MARK, &huge).status, 413);
    broker.stays_well();
}

#[test]
fn what_is_too_large_or_too_slow_is_let_go() {
    let sets = ["api.max_body_size=2KB", "api.request_timeout=300ms", "api.max_connections=3"];
    let (broker, cookie) = logged_in(&sets);
    let raw = |bytes: &str| {
        let mut stream = TcpStream::connect(address(&broker)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        // It may be closed before all is sent.
        let _ = stream.write_all(bytes.as_bytes());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    };
    let large = json!({ "topic": "t", "payload": "x".repeat(4096) }).to_string();
    assert_eq!(request(&broker, "POST /api/v3/mqtt/publish", &[MARK, &cookie].concat(), &large).status, 413);
    let late = raw(&format!("POST /session HTTP/1.1\r\nHost: h\r\n{MARK}Content-Length: 100\r\n\r\n{{"));
    assert!(late.contains(" 408 "), "{late}");
    for head in [
        "GET / HTTP/1.1\r\nHost: h\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(100_000)),
        format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(100_000)),
        format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "X: y\r\n".repeat(1000)),
        format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "Cookie: a=b\r\n".repeat(1000)),
    ] {
        let answer = raw(&head);
        assert!(!answer.contains(" 200 "), "{}", &answer[..200.min(answer.len())]);
    }
    // Whoever holds all places has them for a while.
    let idle: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(address(&broker)).unwrap()).collect();
    wait_until("a place", || {
        raw("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").contains(" 200 ").then_some(())
    });
    drop(idle);
    assert_eq!(status(&broker, "GET /session", &cookie), 200);
    broker.stays_well();
}

#[test]
fn pages_of_others_change_nothing() {
    let (broker, cookie) = logged_in(&[]);
    let own = format!("Origin: http://{}\r\n", address(&broker));
    let mut client = Client::connect(&broker, "a");
    for (headers, want) in [
        (cookie.clone(), 403),
        (format!("{cookie}{MARK}Origin: http://evil.example\r\n"), 403),
        (format!("{cookie}{MARK}Origin: null\r\n"), 403),
        // Another port of this machine is the same site, and another origin.
        (format!("{cookie}{MARK}Origin: http://127.0.0.1:1\r\n"), 403),
        (format!("{cookie}{MARK}Sec-Fetch-Site: same-site\r\n"), 403),
        (format!("{MARK}{own}"), 401),
        (format!("{cookie}{MARK}{own}Sec-Fetch-Site: same-origin\r\n"), 200),
    ] {
        assert_eq!(status(&broker, "DELETE /api/v3/connections/a", &headers), want, "{headers}");
    }
    while client.frame().is_some() {}
    let name = cookie.trim_start_matches("Cookie: ").split('=').next().unwrap().to_owned();
    assert_eq!(name, format!("newtmq_{}", address(&broker).port()));
    let token = cookie.trim().split_once('=').unwrap().1;
    for wrong in [
        format!("Cookie: {name}=\r\n"),
        format!("Cookie: {name}={}\r\n", &token[1..]),
        format!("Cookie: {name}={token}x\r\n"),
        format!("Cookie: other={token}\r\n"),
        // A second one may be of somebody else, who has put it there.
        format!("Cookie: {name}={token}; {name}=x\r\n"),
        format!("Authorization: Basic {token}\r\n"),
    ] {
        assert_eq!(status(&broker, "GET /api/v3/brokers", &wrong), 401, "{wrong}");
    }
    broker.stays_well();
}

#[test]
fn files_are_those_of_the_binary_and_heads_have_nothing_of_a_request() {
    let (broker, cookie) = logged_in(&["listener.ws.t.bind=127.0.0.1:0"]);
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/app.js", "text/javascript; charset=utf-8"),
        ("/style.css", "text/css; charset=utf-8"),
        ("/icon.svg", "image/svg+xml"),
        ("/pages/overview.js", "text/javascript; charset=utf-8"),
        ("/replay/frame.html", "text/html; charset=utf-8"),
        ("/replay/frame.css", "text/css; charset=utf-8"),
        ("/replay/page.js", "text/javascript; charset=utf-8"),
    ] {
        let answer = request(&broker, &format!("GET {path}"), "", "");
        assert_eq!(answer.status, 200, "{path}");
        for line in [
            &format!("content-type: {kind}"),
            "x-content-type-options: nosniff",
            "cache-control: no-store",
            "x-frame-options: SAMEORIGIN",
            "referrer-policy: no-referrer",
        ] {
            assert!(answer.head.lines().any(|of| of == line), "{path}: no {line} in {}", answer.head);
        }
        let policy = answer.head.lines().find_map(|line| line.strip_prefix("content-security-policy: ")).unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{policy}");
        assert!(!policy.contains("unsafe") && policy.contains(" ws://*:"), "{policy}");
    }
    for path in [
        "/../Cargo.toml",
        "/..%2f..%2fetc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/pages/..%2fapp.js",
        "/pages/../app.js",
        "//app.js",
        "/app.js%00",
        "/APP.js",
        "/pages/",
        "/assets/app.js",
        "/dashboard.json",
        "/pages/%2e%2e%2f%2e%2e%2fdashboard.json",
        "/style.css/",
        "/.well-known/x",
        "/etc/passwd",
        "/metrics",
    ] {
        let answer = request(&broker, &format!("GET {path}"), &cookie, "");
        assert!(matches!(answer.status, 400 | 404), "{path}: {}", answer.status);
        assert!(answer.text.contains("there is nothing here") || answer.status == 400, "{path}: {}", answer.text);
    }
    for path in ["/a%0d%0aX-Evil:%201", "/api/v3/where/a%0d%0aX-Evil:%201%0d%0a%0d%0a", "/session?x=%0d%0aX-Evil:%201"]
    {
        let answer = request(&broker, &format!("GET {path}"), &cookie, "");
        assert!(!answer.head.to_lowercase().contains("x-evil"), "{path}: {}", answer.head);
    }
    for line in ["POST /", "DELETE /app.js", "PATCH /session", "TRACE /"] {
        assert_eq!(status(&broker, line, &[MARK, &cookie].concat()), 405, "{line}");
    }
    broker.stays_well();
}

#[test]
fn a_restart_knows_the_password_and_no_login() {
    let scratch = Scratch::new("dashboard-restart");
    let start = || Broker::of(newtmq(), &["node.name=n@h"], &["--data", &scratch.file("data"), "--shards", "1"]);
    let mut broker = start();
    let cookie = change(&broker, &log_in(&broker, "public").cookie(), "public", PASSWORD).cookie();
    assert_eq!(status(&broker, "GET /session", &cookie), 200);
    broker.process.signal(Signal::TERM);
    assert!(broker.process.wait().success());
    let broker = start();
    assert_eq!(status(&broker, "GET /session", &cookie), 401);
    assert_eq!((log_in(&broker, "public").status, log_in(&broker, PASSWORD).status), (401, 200));
}

#[test]
fn with_a_certificate_the_cookie_is_secure() {
    let scratch = Scratch::new("dashboard-tls");
    scratch.certificates("certs", &[]);
    let files = ["certfile=", "keyfile="].iter().zip(["cert.pem", "key.pem"]);
    let sets: Vec<String> =
        files.map(|(key, file)| format!("api.{key}{}", scratch.file(&format!("certs/{file}")))).collect();
    let broker = broker(&sets.iter().map(String::as_str).collect::<Vec<_>>());
    let url = broker.started["dashboard"].as_str().unwrap();
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");
    let body = "{\"username\":\"admin\",\"password\":\"public\"}";
    let arguments = [
        "-s",
        "-i",
        "--cacert",
        &scratch.file("certs/ca.pem"),
        "-H",
        MARK.trim(),
        "-d",
        body,
        &format!("{url}/session"),
    ];
    if let Ok(output) = Command::new("curl").args(arguments).output() {
        let told = String::from_utf8_lossy(&output.stdout).to_lowercase();
        assert!(told.contains("; httponly; samesite=strict; max-age=86400; secure"), "{told}");
    }
    broker.stays_well();
}

#[test]
fn what_the_pages_ask_for_is_there_and_secrets_are_not() {
    let scratch = Scratch::new("dashboard-asks");
    let acl = scratch.write("acl.conf", "%% a comment\n{allow, all}.\n");
    let (broker, cookie) =
        logged_in(&[&format!("acl_file={acl}"), "node.cookie=hush", "api.app_id=app", "api.app_secret=hush"]);
    let get = |path: &str| {
        let answer = request(&broker, &format!("GET /api/v3{path}"), &cookie, "");
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        assert!(!answer.text.contains("hush"), "{path}");
        answer.json()["data"].clone()
    };
    let access = get("/nodes/n@h/access");
    assert_eq!(
        (&access["rules"], &access["users"], &access["allow_anonymous"]),
        (&json!(["{allow, all}."]), &json!([]), &json!(true))
    );
    let configs = get("/nodes/n@h/configs");
    let value =
        |key: &str| configs.as_array().unwrap().iter().find(|of| of["key"] == key).map(|of| of["value"].clone());
    assert_eq!((value("node.cookie"), value("mqtt.max_packet_size")), (Some(json!("(not shown)")), Some(json!("2MB"))));
    assert_eq!(get("/alarms"), json!([{ "node": "n@h", "alarms": [] }]));
    assert_eq!(get("/alarms/history")[0]["node"], "n@h");
    assert_eq!(get("/cluster")["nodes"].as_array().unwrap().len(), 1);
    assert!(get("/cluster/doctor")["findings"].is_array());
    broker.stays_well();
}

/// Messages for somebody who does not keep up are dropped, which is an alarm; memory that is short is another.
#[test]
fn alarms_are_raised_published_and_told() {
    let sets = ["zone.external.max_inflight=1", "zone.external.max_mqueue_len=1", "alarm.memory=1MB"];
    let (broker, cookie) = logged_in(&sets);
    let mut watcher = Client::connect(&broker, "watcher");
    watcher.subscribe("$SYS/brokers/n@h/alarms/+", QoS::AtMostOnce);
    let mut slow = Client::connect(&broker, "slow");
    slow.subscribe("t", QoS::AtLeastOnce);
    let mut publisher = Client::connect(&broker, "publisher");
    for _ in 0..10 {
        publisher.publish("t", b"x", QoS::AtLeastOnce);
    }
    let alarm = watcher.message();
    assert_eq!(alarm.topic, "$SYS/brokers/n@h/alarms/alert");
    let told: Value = serde_json::from_slice(&alarm.payload).unwrap();
    assert_eq!((&told["id"], &told["desc"]["severity"]), (&json!("slow_consumers"), &json!("warning")));
    let alarms = request(&broker, "GET /api/v3/nodes/n@h/alarms", &cookie, "").json();
    let ids: Vec<&str> = alarms["data"].as_array().unwrap().iter().map(|of| of["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["memory", "slow_consumers"]);
    broker
        .process
        .stderr
        .wait_for("the alarm", |line| line.contains("alarm: ") && line.contains("of memory are in use"));
    broker.stays_well();
}

#[test]
#[ignore = "needs Node.js, MQTT.js, playwright-core and Chromium"]
fn chromium_uses_every_page() {
    let scratch = Scratch::new("dashboard-chromium");
    let text = include_str!("../../scenarios/session/in_flight_comes_again.toml");
    let scenario = newtmq_sim::Scenario::parse("a.toml", text).unwrap();
    let options = newtmq_sim::Options { record: true, ..newtmq_sim::Options::default() };
    let report = newtmq_sim::run_with(&scenario, options, Vec::new());
    let run = scratch.write("run.html", &newtmq_sim::html::page(&scenario, &report));
    let mut command = clean(Command::new("node"));
    command.arg(format!("{}/tests/clients/dashboard.mjs", env!("CARGO_MANIFEST_DIR"))).args([NEWTMQ, &run]);
    // Where Node.js looks for packages.
    command.envs(std::env::var_os("NODE_PATH").map(|path| ("NODE_PATH", path)));
    let mut process = Process::start(command);
    // It starts nodes, kills one, and looks at every page four times.
    let until = Instant::now() + 5 * DEADLINE;
    while process.is_running() {
        assert!(Instant::now() < until, "it takes too long");
        std::thread::sleep(Duration::from_millis(50));
    }
    let code = process.wait().code();
    let seen = process.stdout.to_end();
    assert!(code == Some(0) && seen.ends_with(" passed"), "{code:?}: {seen}\n{}", process.stderr.to_end());
}
