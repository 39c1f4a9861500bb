//! Client programs of other projects: `mosquitto_pub`, `mosquitto_sub` and paho-mqtt.

use std::process::Command;

use crate::broker::{Broker, Process, Scratch, clean, wait_until};

/// A command with its arguments in one text, split at spaces; `PORT` is the broker's port.
fn program(broker: &Broker, line: &str) -> Process {
    let mut words = line.split(' ');
    let mut command = clean(Command::new(words.next().unwrap()));
    command.args(words.map(|word| word.replace("PORT", &broker.address.port().to_string())));
    Process::start(command)
}

/// Runs it to its end, which is good; returns what it printed.
fn run(broker: &Broker, line: &str) -> String {
    let mut process = program(broker, line);
    let code = process.wait().code();
    assert_eq!(code, Some(0), "{line}: {}{}", process.stdout.to_end(), process.stderr.to_end());
    process.stdout.to_end()
}

const VERSIONS: [&str; 3] = ["mqttv31", "mqttv311", "mqttv5"];

#[test]
#[ignore = "needs mosquitto_pub and mosquitto_sub"]
fn mosquitto_messages_arrive() {
    let broker = Broker::start(&[]);
    for version in VERSIONS {
        for qos in 0..3 {
            let topic = format!("m/{version}/{qos}");
            let from = format!("-h 127.0.0.1 -p PORT -V {version} -q {qos} -t {topic}");
            let mut subscriber = program(&broker, &format!("mosquitto_sub {from} -v -C 1"));
            // It does not tell when it has subscribed.
            wait_until("the message", || {
                run(&broker, &format!("mosquitto_pub {from} -m hello"));
                (!subscriber.is_running()).then_some(())
            });
            assert_eq!(subscriber.stdout.to_end(), format!("{topic} hello"));
        }
    }
    broker.stays_well();
}

#[test]
#[ignore = "needs mosquitto_pub and mosquitto_sub"]
fn mosquitto_retained_messages_come_and_go() {
    let broker = Broker::start(&[]);
    for version in VERSIONS {
        let to = format!("-h 127.0.0.1 -p PORT -V {version} -q 1");
        for n in 0..3 {
            run(&broker, &format!("mosquitto_pub {to} -r -t r/{version}/{n} -m {n}"));
        }
        let seen = run(&broker, &format!("mosquitto_sub {to} -t r/{version}/+ -C 3 -F %t/%p/%r"));
        let mut seen: Vec<_> = seen.lines().collect();
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2].map(|n| format!("r/{version}/{n}/{n}/1")));
        run(&broker, &format!("mosquitto_pub {to} -r -t r/{version}/1 -n"));
        let seen = run(&broker, &format!("mosquitto_sub {to} -t r/{version}/+ -C 2 -F %p"));
        assert!(!seen.contains('1'), "{seen}");
    }
    broker.stays_well();
}

#[test]
#[ignore = "needs mosquitto_pub and mosquitto_sub"]
fn mosquitto_sessions_wait_for_their_client() {
    let broker = Broker::start(&[]);
    for (n, version) in ["-V mqttv311 -c", "-V mqttv5 -c -x 600"].into_iter().enumerate() {
        let session = format!("-h 127.0.0.1 -p PORT {version} -i me{n} -q 1 -t s/{n}");
        // -E ends when the subscription is acknowledged.
        run(&broker, &format!("mosquitto_sub {session} -E"));
        for text in ["a", "b", "c"] {
            run(&broker, &format!("mosquitto_pub -h 127.0.0.1 -p PORT -q 1 -t s/{n} -m {text}"));
        }
        assert_eq!(run(&broker, &format!("mosquitto_sub {session} -C 3")), "a\nb\nc");
    }
    broker.stays_well();
}

#[test]
#[ignore = "needs mosquitto_pub and mosquitto_sub"]
fn mosquitto_wills_are_published() {
    let broker = Broker::start(&[]);
    let to = "-h 127.0.0.1 -p PORT -V mqttv5 -q 1";
    let watcher = format!("{to} -i watcher -c -x 600 -t will");
    run(&broker, &format!("mosquitto_sub {watcher} -E"));
    let dying =
        program(&broker, &format!("mosquitto_sub {to} -t t -v --will-topic will --will-payload gone --will-qos 1"));
    // It has subscribed, and so connected, when a message reaches it.
    wait_until("the client", || {
        run(&broker, &format!("mosquitto_pub {to} -t t -m hello"));
        (dying.stdout.count("t hello") > 0).then_some(())
    });
    dying.signal(rustix::process::Signal::KILL);
    assert_eq!(run(&broker, &format!("mosquitto_sub {watcher} -C 1")), "gone");
    broker.stays_well();
}

#[test]
#[ignore = "needs mosquitto_pub and mosquitto_sub"]
fn mosquitto_sends_a_large_message() {
    let broker = Broker::start(&["mqtt.max_packet_size=20MB"]);
    let scratch = Scratch::new("large");
    let text: String = (0..1_000_000).map(|n| format!("{n:08}\n")).collect();
    let file = scratch.write("large", &text);
    let mut subscriber = program(&broker, "mosquitto_sub -h 127.0.0.1 -p PORT -q 1 -t large -C 1 -N");
    wait_until("the message", || {
        run(&broker, &format!("mosquitto_pub -h 127.0.0.1 -p PORT -q 1 -t large -f {file}"));
        (!subscriber.is_running()).then_some(())
    });
    assert_eq!(subscriber.stdout.to_end(), text.trim_end());
    broker.stays_well();
}

/// `NEWTMQ_PYTHON` is a Python that has paho-mqtt.
#[test]
#[ignore = "needs paho-mqtt"]
fn paho_mqtt() {
    let python = std::env::var("NEWTMQ_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/paho_client.py");
    let broker = Broker::start(&[]);
    let seen = run(&broker, &format!("{python} {script} 127.0.0.1 PORT"));
    assert!(seen.ends_with(" passed"), "{seen}");
    broker.stays_well();
}
