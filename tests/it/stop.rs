//! How the program stops.

use std::io::Write as _;

use newtmq_mqtt::{QoS, ReasonCode};
use rustix::process::Signal;

use crate::broker::{Broker, DEADLINE};
use crate::client::{Client, connect, encoded};

#[test]
fn a_signal_sends_clients_away_and_ends_with_code_0() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut broker = Broker::start(&[]);
        let mut clients: Vec<_> = (0..20).map(|n| Client::connect(&broker, &format!("c{n}"))).collect();
        let mut before_connect = Client::open(&broker);
        // It has been accepted when the one after it has.
        Client::connect(&broker, "last").disconnect();
        broker.process.signal(signal);
        for client in &mut clients {
            assert_eq!(client.disconnected(), ReasonCode::ServerShuttingDown);
        }
        before_connect.closed();
        drop(before_connect);
        assert_eq!(broker.process.wait().code(), Some(0));
        broker.process.stderr.wait_for("the end", |line| line.contains("stopped"));
        broker.assert_log_is_clean();
    }
}

#[test]
fn without_clients_it_ends_at_once() {
    let mut broker = Broker::start(&[]);
    broker.process.signal(Signal::TERM);
    assert_eq!(broker.process.wait().code(), Some(0));
}

#[test]
fn clients_get_what_was_sent_to_them_before_they_are_sent_away() {
    let mut broker = Broker::start(&[]);
    let mut subscriber = Client::connect(&broker, "subscriber");
    subscriber.subscribe("t", QoS::AtMostOnce);
    let mut publisher = Client::connect(&broker, "publisher");
    let payload = vec![b'x'; 100_000];
    for _ in 0..5 {
        publisher.publish("t", &payload, QoS::AtLeastOnce);
    }
    broker.process.signal(Signal::TERM);
    for _ in 0..5 {
        assert_eq!(subscriber.message().payload.len(), payload.len());
    }
    assert_eq!(subscriber.disconnected(), ReasonCode::ServerShuttingDown);
    assert_eq!(publisher.disconnected(), ReasonCode::ServerShuttingDown);
    assert_eq!(broker.process.wait().code(), Some(0));
}

#[test]
fn wills_are_published_when_the_broker_stops() {
    let mut broker = Broker::start(&[]);
    let mut watcher = Client::connect(&broker, "watcher");
    watcher.subscribe("will/#", QoS::AtLeastOnce);
    let mut dying = Client::connect_with_will(&broker, "dying", "will/dying", b"gone");
    broker.process.signal(Signal::TERM);
    let will = watcher.message();
    assert_eq!((will.topic.as_str(), will.payload.as_slice()), ("will/dying", &b"gone"[..]));
    assert_eq!(watcher.disconnected(), ReasonCode::ServerShuttingDown);
    assert_eq!(dying.disconnected(), ReasonCode::ServerShuttingDown);
    assert_eq!(broker.process.wait().code(), Some(0));
}

/// Somebody who subscribes and then never reads, and whose sockets are full.
fn stuck(broker: &Broker) -> Client {
    let mut stuck = Client::open_small(broker).connected("stuck", None);
    stuck.subscribe("t", QoS::AtMostOnce);
    let mut publisher = Client::connect(broker, "publisher");
    let payload = vec![0; 512 << 10];
    // More than the sockets of both sides hold.
    for _ in 0..64 {
        publisher.publish("t", &payload, QoS::AtLeastOnce);
    }
    publisher.disconnect();
    stuck
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut broker = Broker::start(&["zone.external.slow_consumer_timeout=10ms"]);
    let _stuck = stuck(&broker);
    let mut other = Client::connect(&broker, "other");
    broker.process.signal(Signal::TERM);
    assert_eq!(other.disconnected(), ReasonCode::ServerShuttingDown);
    assert!(broker.process.is_running(), "it waits for the client that does not read");
    broker.process.signal(Signal::TERM);
    assert_eq!(broker.process.wait().code(), Some(1));
    broker.process.stderr.wait_for("why", |line| line.contains("stopped at once"));
}

#[test]
fn a_client_that_never_reads_does_not_keep_it_from_stopping() {
    let mut broker = Broker::start(&["zone.external.slow_consumer_timeout=10ms"]);
    let _stuck = stuck(&broker);
    let since = std::time::Instant::now();
    broker.process.signal(Signal::TERM);
    assert_eq!(broker.process.wait().code(), Some(0));
    assert!(since.elapsed() < DEADLINE / 2);
}

#[test]
fn nobody_is_let_in_while_it_stops() {
    let broker = Broker::start(&["zone.external.slow_consumer_timeout=10ms"]);
    let _stuck = stuck(&broker);
    let mut other = Client::connect(&broker, "other");
    broker.process.signal(Signal::TERM);
    assert_eq!(other.disconnected(), ReasonCode::ServerShuttingDown);
    // The listener is open until the process ends; a connection to it ends without an answer, perhaps before the CONNECT.
    let mut late = Client::open(&broker);
    let _ = late.stream.write_all(&encoded(&connect("late", None)));
    late.closed();
}
