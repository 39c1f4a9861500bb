//! Clients that do not read, while others go on.

use std::time::{Duration, Instant};

use newtmq_mqtt::QoS;

use crate::broker::Broker;
use crate::client::{Client, encoded, publish};

/// More than what the sockets of both sides hold, together.
const TOTAL: usize = 48 << 20;

#[test]
fn a_client_that_never_reads_does_not_stop_the_others() {
    let broker = Broker::start(&["zone.external.slow_consumer_timeout=100ms"]);
    let mut deaf = Client::open_small(&broker).connected("deaf", None);
    deaf.subscribe("t/#", QoS::AtMostOnce);
    let mut deaf_1 = Client::open_small(&broker).connected("deaf-1", None);
    deaf_1.subscribe("t/#", QoS::AtLeastOnce);

    let payload = vec![b'x'; 64 << 10];
    let count = TOTAL / payload.len();
    let mut subscriber = Client::connect(&broker, "subscriber");
    subscriber.subscribe("t/#", QoS::AtLeastOnce);
    let receiver = std::thread::spawn(move || {
        for _ in 0..count {
            subscriber.message();
        }
        subscriber
    });
    let mut publisher = Client::connect(&broker, "publisher");
    let mut slowest = Duration::ZERO;
    for _ in 0..count {
        let since = Instant::now();
        publisher.publish("t/1", &payload, QoS::AtLeastOnce);
        slowest = slowest.max(since.elapsed());
    }
    // Neither timeout is paid again and again.
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    receiver.join().unwrap().ping();

    // When it reads again, what it gets are whole packets, in order.
    deaf.send_bytes(&encoded(&publish("u", b"I am back", QoS::AtMostOnce)));
    let mut seen = 0;
    while seen < 3 {
        assert_eq!(deaf.message().payload.len(), payload.len());
        seen += 1;
    }
    broker.stays_well();
}

/// It sends requests and never reads the answers: its own input is what stops, not the broker.
#[test]
fn a_client_that_never_reads_its_answers() {
    let broker = Broker::start(&["zone.external.slow_consumer_timeout=100ms"]);
    let mut rude = Client::open_small(&broker).connected("rude", None);
    rude.stream.set_nonblocking(true).unwrap();
    let mut other = Client::connect(&broker, "other");
    let pings = encoded(&newtmq_mqtt::Packet::Pingreq).repeat(32 << 10);
    let since = Instant::now();
    let mut sent = 0_usize;
    while since.elapsed() < Duration::from_secs(2) && sent < TOTAL {
        use std::io::Write as _;
        match rude.stream.write(&pings) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            // The broker may also part with it.
            Err(_) => break,
        }
        other.ping();
    }
    other.ping();
    let status = std::fs::read_to_string(format!("/proc/{}/status", broker.process.id())).unwrap();
    let resident = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kib: usize = resident.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(kib < 64 << 10, "answers that nobody takes are not collected without a limit: {resident}");
    drop(rude);
    broker.stays_well();
}

#[test]
fn a_slow_reader_gets_everything_it_has_a_right_to() {
    let broker = Broker::start(&["zone.external.max_mqueue_len=60000"]);
    let mut slow = Client::open_small(&broker).connected("slow", None);
    slow.subscribe("t", QoS::AtLeastOnce);
    let mut publisher = Client::connect(&broker, "publisher");
    let mut payload = vec![0; 8 << 10];
    for n in 0..1000_u32 {
        payload[..4].copy_from_slice(&n.to_be_bytes());
        publisher.publish("t", &payload, QoS::AtLeastOnce);
    }
    for n in 0..1000_u32 {
        assert_eq!(slow.message().payload[..4], n.to_be_bytes());
    }
    broker.stays_well();
}

/// One client sends as fast as it can; each of the others still has its turn.
#[test]
fn a_flood_does_not_starve_the_others() {
    use std::io::Write as _;
    use std::sync::atomic::{AtomicBool, Ordering};

    let broker = Broker::start(&[]);
    let done = AtomicBool::new(false);
    let mut flood = Client::connect(&broker, "flood");
    let mut other = Client::connect(&broker, "other");
    let some = encoded(&publish("nobody/hears/this", b"x", QoS::AtMostOnce)).repeat(100);
    std::thread::scope(|scope| {
        let flooding = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                flood.stream.write_all(&some).unwrap();
            }
        });
        let mut slowest = Duration::ZERO;
        let since = Instant::now();
        while since.elapsed() < Duration::from_secs(2) {
            let sent = Instant::now();
            other.ping();
            slowest = slowest.max(sent.elapsed());
        }
        done.store(true, Ordering::Relaxed);
        flooding.join().unwrap();
        assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    });
    broker.stays_well();
}
