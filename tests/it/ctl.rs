//! `newtmq ctl` beside a broker: what the table of commands says is true of the program.

use std::process::{Command, Output};

use newtmq_mqtt::{Packet, QoS};

use crate::broker::{Broker, NEWTMQ, Scratch, clean, newtmq, wait_until};
use crate::client::{Client, connect};

fn ctl(scratch: &Scratch, words: &[&str]) -> Output {
    let mut command = newtmq();
    command.args(["ctl", "--data", &scratch.file("data")]).args(words).output().unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn broker(scratch: &Scratch, sets: &[&str]) -> Broker {
    Broker::of(newtmq(), sets, &["--shards", "2", "--data", &scratch.file("data")])
}

/// The rows of the page: a command with its arguments, and what it says of it.
fn rows() -> Vec<(String, String)> {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/ctl.md")).unwrap();
    let rows = page.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        Some((cells.next()?.trim_end_matches('`').to_owned(), cells.next()?.to_owned()))
    });
    rows.collect()
}

#[test]
fn the_page_is_true_of_the_program() {
    let scratch = Scratch::new("ctl-page");
    let broker = broker(&scratch, &[]);
    let rows = rows();
    assert!(rows.len() > 40, "{rows:?}");
    for (command, here) in rows {
        let words: Vec<String> = command
            .split(' ')
            .map(|word| match word {
                "QOS" => "1".to_owned(),
                "STATUS" => "true".to_owned(),
                "LEVEL" => "info".to_owned(),
                "AS" => "client_id".to_owned(),
                "TIME" => "1h".to_owned(),
                "KIND" => "client".to_owned(),
                word if word.chars().all(|c| c.is_ascii_uppercase() || c == '_') => "nothing".to_owned(),
                word => word.to_owned(),
            })
            .collect();
        if words[..2.min(words.len())] == ["cluster", "leave"] {
            continue;
        }
        let words = if command == "top" { ["top", "--lines", "1"].map(str::to_owned).to_vec() } else { words };
        let output = ctl(&scratch, &words.iter().map(String::as_str).collect::<Vec<_>>());
        let code = output.status.code();
        match here.as_str() {
            "not yet" => assert_eq!(code, Some(6), "{command}"),
            here => {
                assert!(here == "works" || here.starts_with("differs: "), "{command}: {here}");
                let tells = !output.stdout.is_empty() || command.ends_with("list");
                assert!(matches!(code, Some(0 | 1)) && tells, "{command}: {output:?}");
            }
        }
    }
    broker.stays_well();
}

#[test]
fn alarms_are_told_of_every_node() {
    let scratch = Scratch::new("ctl-alarms");
    let broker = broker(&scratch, &["node.name=n@h", "alarm.memory=1MB"]);
    wait_until("an alarm", || {
        told(&ctl(&scratch, &["alarms"])).contains("Alarm(memory, node=n@h, severity=warning, ").then_some(())
    });
    let json: serde_json::Value = serde_json::from_slice(&ctl(&scratch, &["alarms", "--json"]).stdout).unwrap();
    // The disk of this machine may be nearly full, too.
    let of = &json["data"][0];
    let is_memory = |alarm: &serde_json::Value| alarm["id"] == "memory";
    assert!(of["node"] == "n@h" && of["alarms"].as_array().unwrap().iter().any(is_memory), "{json}");
    assert_eq!(told(&ctl(&scratch, &["alarms", "history"])), "No alarms.\n");
    broker.stays_well();
}

#[test]
fn a_client_is_listed_shown_and_sent_away() {
    let scratch = Scratch::new("ctl-clients");
    let broker = broker(&scratch, &[]);
    let mut a = Client::connect(&broker, "a");
    let names = |words: &[&str]| {
        let text = told(&ctl(&scratch, words));
        text.lines().map(|line| line.split([',', ' ']).next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&["clients", "list"]), ["Connection(a"]);
    assert_eq!(names(&["sessions", "show", "a"]), ["Session(a"]);
    assert_eq!(told(&ctl(&scratch, &["subscriptions", "add", "a", "t/+", "1"])), "ok\n");
    assert_eq!(told(&ctl(&scratch, &["subscriptions", "list"])), "a -> t/+\n");
    assert!(told(&ctl(&scratch, &["routes", "list"])).starts_with("t/+ -> newtmq@"));
    let found: serde_json::Value = serde_json::from_str(&told(&ctl(&scratch, &["where", "t/1", "--json"]))).unwrap();
    assert_eq!(found["data"]["topic"]["subscribers"][0]["client_id"], "a");
    assert_eq!(told(&ctl(&scratch, &["clients", "kick", "a"])), "ok\n");
    while a.frame().is_some() {}
    let gone = ctl(&scratch, &["clients", "show", "a"]);
    assert_eq!((told(&gone).as_str(), gone.status.code()), ("Not Found.\n", Some(1)));
    broker.stays_well();
}

#[test]
fn it_is_called_emqx_ctl_and_tells_when_nobody_answers() {
    let scratch = Scratch::new("ctl-emqx");
    let link = scratch.path().join("emqx_ctl");
    std::os::unix::fs::symlink(NEWTMQ, &link).unwrap();
    let status = || clean(Command::new(&link)).args(["status", "--data", &scratch.file("data")]).output().unwrap();
    assert_eq!(status().status.code(), Some(5));
    let broker = broker(&scratch, &[]);
    let told = told(&status());
    assert!(told.starts_with("Node 'newtmq@") && told.contains("' is started\nnewtmq v"), "{told}");
    broker.stays_well();
}

#[test]
fn a_shell_is_told_how_to_complete() {
    for (shell, sign) in [("bash", "complete -F"), ("zsh", "#compdef newtmq"), ("fish", "complete -c newtmq")] {
        let output = newtmq().args(["completions", shell]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(sign) && text.contains("force-leave"), "{shell}");
    }
}

/// What becomes of each message of a topic is told by `trace show` and `where`.
#[test]
fn a_topic_is_traced() {
    let scratch = Scratch::new("ctl-trace");
    let broker = broker(&scratch, &["zone.external.max_mqueue_len=1"]);
    let mut there = Client::connect(&broker, "there");
    there.subscribe("t/#", QoS::AtLeastOnce);
    let mut away = Client::open(&broker);
    let Packet::Connect(mut packet) = connect("away", None) else { panic!() };
    packet.properties.session_expiry_interval = 3600;
    away.send(&Packet::Connect(packet));
    away.accepted();
    away.subscribe("t/+", QoS::AtLeastOnce);
    away.disconnect();
    let words = |words: &[&str]| told(&ctl(&scratch, words));
    assert_eq!(words(&["trace", "show", "topic", "t/1"]), "this is not traced\n");
    assert_eq!(words(&["trace", "start", "topic", "t/1"]), "trace has been started successfully.\n");
    assert!(words(&["trace", "list"]).starts_with("Trace(topic=t/1, started="));
    let mut publisher = Client::connect(&broker, "publisher");
    for _ in 0..2 {
        publisher.publish("t/1", b"x", QoS::AtLeastOnce);
        publisher.publish("t/other", b"x", QoS::AtLeastOnce);
        assert_eq!(there.message().topic, "t/1");
        assert_eq!(there.message().topic, "t/other");
    }
    let shown = wait_until("its records", || {
        let text = words(&["trace", "show", "topic", "t/1"]);
        (text.matches("message.received").count() == 2 && text.contains("message.dropped")).then_some(text)
    });
    for line in [
        "message.received client=publisher topic=t/1 qos=1",
        "message.deliver client=there topic=t/1 qos=1",
        "message.deliver client=away topic=t/1 qos=1 queued",
        "message.dropped client=away topic=t/1: queue_full",
    ] {
        assert!(shown.lines().any(|told| told.ends_with(line)), "{line} in:\n{shown}");
    }
    assert!(!shown.contains("t/other"), "{shown}");
    let found = words(&["where", "t/1"]);
    assert!(found.contains("Traced:") && found.contains("queue_full"), "{found}");
    assert_eq!(words(&["trace", "stop", "topic", "t/1"]), "stop tracing successfully.\n");
    assert_eq!(words(&["trace", "stop", "topic", "t/1"]), "it was not traced.\n");
    assert_eq!(words(&["trace", "list"]), "");
    broker.stays_well();
}

/// A listener that is stopped lets nobody in, and those who are in stay.
#[test]
fn a_listener_is_stopped() {
    let scratch = Scratch::new("ctl-listener");
    let broker = broker(&scratch, &["listener.tcp.other.bind=127.0.0.1:0"]);
    let mut client = Client::connect(&broker, "a");
    let port = broker.address.port().to_string();
    let stop = |words: &[&str]| {
        let output = ctl(&scratch, &[&["listeners", "stop"], words].concat());
        (output.status.code(), told(&output))
    };
    assert_eq!(stop(&["mqtt:ws", &port]).0, Some(1), "of another transport");
    assert_eq!(stop(&["mqtt:tcp", &port]), (Some(0), "ok\n".to_owned()));
    wait_until("nobody to be let in", || std::net::TcpStream::connect(broker.address).err());
    client.ping();
    let other = broker.address_of("mqtt", "other");
    std::net::TcpStream::connect(other).unwrap();
    assert_eq!(stop(&["tcp", &broker.address.to_string()]).0, Some(1), "it is stopped already");
    assert_eq!(stop(&["tcp", &other.to_string()]).0, Some(0));
    broker.stays_well();
}
