//! Client programs of another project: `mosquitto_pub` and `mosquitto_sub`.

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

#[test]
#[ignore = "needs mosquitto_pub and mosquitto_sub"]
fn mosquitto_over_tls() {
    let scratch = Scratch::new("mosquitto-tls");
    scratch.certificates("certs", &[]);
    scratch.certificates("other", &[]);
    let broker = Broker::with_tls(&scratch, &[]);
    let port = broker.address_of("mqtts", "t").port();
    let to = |ca: &str| format!("-h localhost -p {port} --cafile {}", scratch.file(ca));
    for tls in ["tlsv1.2", "tlsv1.3"] {
        for version in VERSIONS {
            for qos in 0..3 {
                let topic = format!("m/{tls}/{version}/{qos}");
                let from = format!("{} --tls-version {tls} -V {version} -q {qos} -t {topic}", to("certs/ca.pem"));
                let mut subscriber = program(&broker, &format!("mosquitto_sub {from} -v -C 1"));
                wait_until("the message", || {
                    run(&broker, &format!("mosquitto_pub {from} -m hello"));
                    (!subscriber.is_running()).then_some(())
                });
                assert_eq!(subscriber.stdout.to_end(), format!("{topic} hello"));
            }
        }
    }
    let mut stranger = program(&broker, &format!("mosquitto_pub {} -t t -m hello", to("other/ca.pem")));
    assert_ne!(stranger.wait().code(), Some(0), "the broker's certificate is of another authority");
    broker.stays_well();
}

#[test]
#[ignore = "needs mosquitto_pub and mosquitto_sub"]
fn mosquitto_has_the_user_name_of_its_certificate() {
    let scratch = Scratch::new("mosquitto-certificate");
    scratch.certificates("certs", &["--client", "alice"]);
    scratch.certificates("certs", &["--client", "bob"]);
    let ca = scratch.file("certs/ca.pem");
    let broker = Broker::with_tls(
        &scratch,
        &[
            "listener.ssl.t.verify=verify_peer",
            "listener.ssl.t.fail_if_no_peer_cert=true",
            "listener.ssl.t.peer_cert_as_username=cn",
            &format!("listener.ssl.t.cacertfile={ca}"),
            // The User Name shows in the topic for those who are in another zone.
            "listener.ssl.t.zone=certified",
            "zone.certified.mountpoint=of/%u/",
        ],
    );
    let to = format!("-h localhost -p {} --cafile {ca} -V mqttv5 -q 1 -t t", broker.address_of("mqtts", "t").port());
    for name in ["alice", "bob"] {
        let file = |end: &str| scratch.file(&format!("certs/client-{name}{end}"));
        let to = format!("{to} --cert {} --key {}", file(".pem"), file("-key.pem"));
        // The User Name in CONNECT does not count.
        run(&broker, &format!("mosquitto_pub {to} -u mallory -P secret -r -m {name}"));
        let seen = run(&broker, "mosquitto_sub -h 127.0.0.1 -p PORT -q 1 -t of/+/t -C 1 -v --retained-only");
        assert_eq!(seen, format!("of/{name}/t {name}"));
        assert_eq!(run(&broker, &format!("mosquitto_sub {to} -C 1 -v")), format!("t {name}"));
        run(&broker, &format!("mosquitto_pub {to} -r -n"));
    }
    let mut nobody = program(&broker, &format!("mosquitto_pub {to} -m hello"));
    assert_ne!(nobody.wait().code(), Some(0), "without a certificate");
    broker.stays_well();
}
