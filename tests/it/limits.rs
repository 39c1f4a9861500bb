//! What clients get wrong and what runs out: none of it is the others' business.

use std::net::Shutdown;
use std::process::Command;
use std::time::{Duration, Instant};

use newtmq_mqtt::{QoS, ReasonCode};

use crate::broker::{Broker, NEWTMQ, clean};
use crate::client::{Client, connect, encoded, publish};

#[test]
fn a_client_that_never_sends_connect_is_closed() {
    let broker = Broker::start(&["zone.external.idle_timeout=300ms"]);
    let mut patient = Client::connect(&broker, "patient");
    let since = Instant::now();
    let mut silent = Client::open(&broker);
    silent.closed();
    assert!(since.elapsed() >= Duration::from_millis(290), "{:?}", since.elapsed());
    patient.ping();
    broker.stays_well();
}

/// One byte at a time does not start the time again.
#[test]
fn a_connect_that_trickles_in_is_closed() {
    let broker = Broker::start(&["zone.external.idle_timeout=300ms"]);
    let mut slow = Client::open(&broker);
    let since = Instant::now();
    let packet = encoded(&connect(&"x".repeat(10_000), None));
    slow.stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut sent = 0;
    for byte in &packet {
        use std::io::{Read as _, Write as _};
        if slow.stream.write_all(&[*byte]).is_err() {
            break;
        }
        sent += 1;
        match slow.stream.read(&mut [0]) {
            Ok(0) => break,
            Ok(_) => panic!("an answer to half a CONNECT"),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert!(since.elapsed() >= Duration::from_millis(290), "{:?}", since.elapsed());
    assert!(sent < packet.len() / 2, "closed long before it was complete, after {sent} bytes");
    broker.stays_well();
}

#[test]
fn half_a_packet_and_then_the_end() {
    let broker = Broker::start(&[]);
    let mut watcher = Client::connect(&broker, "watcher");
    watcher.subscribe("#", QoS::AtLeastOnce);
    let hello = encoded(&connect("half", None));
    for cut in 0..hello.len() {
        let mut half = Client::open(&broker);
        half.send_bytes(&hello[..cut]);
        if cut % 2 == 0 {
            half.stream.shutdown(Shutdown::Write).unwrap();
            half.closed();
        } else {
            half.reset();
        }
    }
    let message = encoded(&publish("t", b"never", QoS::AtMostOnce));
    for (n, cut) in (1..message.len()).enumerate() {
        let name = format!("half-{n}");
        let mut half = Client::connect_with_will(&broker, &name, "will", name.as_bytes());
        half.send_bytes(&message[..cut]);
        if n % 2 == 0 {
            drop(half)
        } else {
            half.reset()
        }
        // Half a PUBLISH is none; the will says that its client is gone.
        let will = watcher.message();
        assert_eq!((will.topic.as_str(), will.payload.as_slice()), ("will", name.as_bytes()));
    }
    broker.stays_well();
}

#[test]
fn packets_in_pieces_are_whole_packets() {
    let broker = Broker::start(&[]);
    let mut client = Client::open(&broker);
    for byte in encoded(&connect("pieces", None)) {
        client.send_bytes(&[byte]);
    }
    client.accepted();
    client.subscribe("t", QoS::AtMostOnce);
    for byte in encoded(&publish("t", b"whole", QoS::AtMostOnce)) {
        client.send_bytes(&[byte]);
    }
    assert_eq!(client.message().payload, b"whole");
    let many: Vec<u8> = (0..500_u16).flat_map(|n| encoded(&publish("t", &n.to_be_bytes(), QoS::AtMostOnce))).collect();
    client.send_bytes(&many);
    for n in 0..500_u16 {
        assert_eq!(client.message().payload, n.to_be_bytes());
    }
    broker.stays_well();
}

#[test]
fn a_packet_that_is_too_large() {
    let broker = Broker::start(&["mqtt.max_packet_size=1KB"]);
    let mut client = Client::connect(&broker, "large");
    client.publish("t", &[0; 900], QoS::AtLeastOnce);
    client.send_bytes(&encoded(&publish("t", &[0; 1100], QoS::AtLeastOnce)));
    assert_eq!(client.disconnected(), ReasonCode::PacketTooLarge);
    // It is told from the header; the rest need not come, or may have been sent.
    let mut client = Client::connect(&broker, "announced");
    client.send_bytes(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F]);
    assert_eq!(client.disconnected(), ReasonCode::PacketTooLarge);
    let mut client = Client::connect(&broker, "sent");
    client.send_bytes(&encoded(&publish("t", &vec![0; 200_000], QoS::AtMostOnce)));
    assert_eq!(client.disconnected(), ReasonCode::PacketTooLarge);
    broker.stays_well();
}

#[test]
fn what_is_not_mqtt_is_closed() {
    let broker = Broker::start(&[]);
    for bytes in
        [&b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03", &[0xFF; 64]]
    {
        let mut stranger = Client::open(&broker);
        stranger.send_bytes(bytes);
        stranger.closed();
    }
    Client::connect(&broker, "a").ping();
    broker.stays_well();
}

#[test]
fn more_connections_than_open_files() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 64; exec \"$0\" \"$@\"", NEWTMQ]);
    let broker = Broker::of(clean(command), &[], &[]);
    let mut resident = Client::connect(&broker, "resident");
    resident.subscribe("t", QoS::AtLeastOnce);
    let refused = "cannot accept connections";

    // The system completes connections that the broker has not accepted, so each can send its CONNECT.
    let mut crowd: Vec<_> = (0..100).map(|_| Client::open(&broker)).collect();
    for (n, client) in crowd.iter_mut().enumerate() {
        client.send(&connect(&format!("crowd-{n}"), None));
    }
    broker.process.stderr.wait_for(refused, |line| line.contains(refused) && line.contains("WARN"));

    // They are accepted in order: the first ones are served, and go on being served, as long as it lasts.
    let served = 40;
    for client in &mut crowd[..served] {
        client.accepted();
    }
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(1) {
        resident.publish("elsewhere", b"", QoS::AtLeastOnce);
        for client in &mut crowd[..served] {
            client.ping();
        }
    }
    assert_eq!(broker.process.stderr.count(refused), 1, "one warning, not one for each attempt");

    // Some leave, in order or not, and those who waited come in.
    let mut waiting = crowd.split_off(served);
    for client in crowd {
        client.disconnect();
    }
    broker.process.stderr.wait_for("it is over", |line| line.contains("accepting connections again"));
    while let Some(mut next) = (!waiting.is_empty()).then(|| waiting.remove(0)) {
        next.accepted();
        next.publish("t", b"let in", QoS::AtLeastOnce);
        assert_eq!(resident.message().payload, b"let in");
        next.reset();
    }
    resident.ping();
    broker.stays_well();
}

#[test]
fn a_client_publishes_no_more_than_it_may() {
    let broker = Broker::start(&["zone.external.publish_limit=10,1s"]);
    let mut reader = Client::connect(&broker, "reader");
    reader.subscribe("t", QoS::AtMostOnce);
    let mut fast = Client::connect(&broker, "fast");
    let since = Instant::now();
    let burst: Vec<u8> = (0..20_u8).flat_map(|n| encoded(&publish("t", &[n], QoS::AtMostOnce))).collect();
    fast.send_bytes(&burst);
    for n in 0..20_u8 {
        assert_eq!(reader.message().payload, [n]);
    }
    assert!(since.elapsed() >= Duration::from_millis(990), "{:?}", since.elapsed());
    fast.ping();
    broker.stays_well();
}

/// A watermark that every process is above.
#[test]
fn with_too_little_memory_publishers_are_slow_and_others_are_not() {
    let broker = Broker::start(&["memory.high_watermark=1MB", "zone.external.max_publisher_hold=300ms"]);
    broker.process.stderr.wait_for("the warning", |line| line.contains("too little memory") && line.contains("WARN"));
    let mut reader = Client::connect(&broker, "reader");
    reader.subscribe("t", QoS::AtMostOnce);
    let mut writer = Client::connect(&broker, "writer");
    let since = Instant::now();
    for n in 0..4_u8 {
        writer.send_bytes(&encoded(&publish("t", &[n], QoS::AtLeastOnce)));
    }
    let mut other = Client::connect(&broker, "other");
    other.subscribe("live", QoS::AtMostOnce);
    for n in 0..4_u8 {
        other.send_bytes(&encoded(&publish("live", &[n], QoS::AtMostOnce)));
        assert_eq!(other.message().payload, [n]);
        assert_eq!(reader.message().payload, [n]);
    }
    assert!(since.elapsed() >= Duration::from_millis(880), "{:?}", since.elapsed());
    assert_eq!(broker.process.stderr.count("memory"), 1, "one line, not one for each message");
    broker.stays_well();
}

#[test]
fn a_listener_has_a_limit_of_connections() {
    let broker = Broker::start(&["listener.tcp.external.max_connections=3"]);
    let mut inside: Vec<_> = (0..3).map(|n| Client::connect(&broker, &format!("c{n}"))).collect();
    // Who is refused does not count, even if it does not close its side.
    let mut refused = [Client::open(&broker), Client::open(&broker)];
    refused.iter_mut().for_each(Client::closed);
    inside.remove(0).disconnect();
    for client in &mut inside {
        client.ping();
    }
    Client::connect(&broker, "next").ping();
    drop(refused);
    broker.stays_well();
}
