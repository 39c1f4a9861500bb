//! Devices that speak MQTT-SN over real datagrams: what the gateway's driver does, and what becomes of it when the broker stops.

use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::process::Command;
use std::time::Duration;

use newtmq_mqtt::QoS;
use newtmq_mqtt_sn::{Ack, Datagram, Message, Publish, ReturnCode, SnQoS, TopicRef, TopicSpec};
use rustix::process::Signal;

use crate::broker::{Broker, DEADLINE, Process, Scratch, clean, newtmq, wait_until};
use crate::client::Client;
use crate::cluster::{ctl, members};

const ACCEPTED: Message<'_> = Message::Connack(ReturnCode::Accepted);

/// A device.
struct Device(UdpSocket);

impl Device {
    fn new(to: SocketAddr) -> Device {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(to).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Device(socket)
    }

    fn connected(to: SocketAddr, id: &str, clean_session: bool) -> Device {
        let device = Device::new(to);
        device.send(Message::Connect { will: false, clean_session, duration: 60, client_id: id });
        device.expect(ACCEPTED);
        device
    }

    fn send(&self, message: Message<'_>) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes).unwrap();
        self.0.send(&bytes).unwrap();
    }

    #[track_caller]
    fn expect(&self, message: Message<'_>) {
        let mut bytes = [0; 2000];
        let count = self.0.recv(&mut bytes).unwrap();
        assert_eq!(Datagram::decode(&bytes[..count]).unwrap().message, message);
    }

    /// Nothing has come that would have come by now.
    fn expect_nothing(&self) {
        self.0.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        assert!(self.0.recv(&mut [0; 10]).is_err());
        self.0.set_read_timeout(Some(DEADLINE)).unwrap();
    }

    fn subscribe(&self, topic: &str) {
        let topic = TopicSpec::Name(topic);
        self.send(Message::Subscribe { dup: false, qos: QoS::AtLeastOnce, msg_id: 1, topic });
        self.expect(Message::Suback { qos: QoS::AtLeastOnce, ack: ack(1) });
    }
}

fn ack(msg_id: u16) -> Ack {
    Ack { topic_id: 1, msg_id, code: ReturnCode::Accepted }
}

fn message(qos: QoS, msg_id: u16, data: &[u8]) -> Message<'_> {
    let topic = TopicRef::Normal(1);
    Message::Publish(Publish { dup: false, qos: SnQoS::Mqtt(qos), retain: false, topic, msg_id, data })
}

fn start(sets: &[&str], arguments: &[&str]) -> (Broker, SocketAddr) {
    let sets = [&["listener.sn.external.bind=127.0.0.1:0"], sets].concat();
    let broker = Broker::of(newtmq(), &sets, arguments);
    let at = broker.address_of("mqtt-sn", "external");
    (broker, at)
}

#[test]
fn messages_go_both_ways_on_every_number_of_shards() {
    for shards in ["1", "4"] {
        let (broker, at) = start(&[], &["--shards", shards]);
        let mut mqtt = Client::connect(&broker, "mqtt");
        mqtt.subscribe("up", QoS::AtLeastOnce);
        for number in 0..8 {
            let device = Device::connected(at, &format!("device-{number}"), true);
            device.subscribe("down");
            mqtt.publish("down", b"x", QoS::AtLeastOnce);
            device.expect(message(QoS::AtLeastOnce, 1, b"x"));
            device.send(Message::Puback(ack(1)));
            device.send(Message::Register { topic_id: 0, msg_id: 2, topic: "up" });
            device.expect(Message::Regack(Ack { topic_id: 2, ..ack(2) }));
            let topic = TopicRef::Normal(2);
            let qos = SnQoS::Mqtt(QoS::AtLeastOnce);
            device.send(Message::Publish(Publish { dup: false, qos, retain: false, topic, msg_id: 3, data: b"y" }));
            device.expect(Message::Puback(Ack { topic_id: 2, ..ack(3) }));
            assert_eq!(mqtt.message().payload, b"y");
            device.send(Message::Disconnect(None));
            device.expect(Message::Disconnect(None));
        }
        broker.stays_well();
    }
}

#[test]
fn a_flood_of_strangers_leaves_the_others_alone() {
    let (broker, at) = start(&[], &[]);
    let mut mqtt = Client::connect(&broker, "mqtt");
    let device = Device::connected(at, "device", true);
    device.subscribe("down");
    let strangers: Vec<_> = (0..20).map(|_| Device::new(at)).collect();
    for round in 0..200_u8 {
        for stranger in &strangers {
            let _ = stranger.0.send(&[3, round, round]);
            let _ = stranger.0.send(&[9, 0x0C, 0x20, 0, 1, 0, 1, b'x', b'y']);
            let _ = stranger.0.send(&[]);
        }
    }
    mqtt.publish("down", b"x", QoS::AtLeastOnce);
    device.expect(message(QoS::AtLeastOnce, 1, b"x"));
    broker.stays_well();
}

#[test]
fn who_may_not_send_is_not_heard() {
    let (broker, at) = start(&["listener.sn.external.access.1=deny 127.0.0.1"], &[]);
    let device = Device::new(at);
    device.send(Message::SearchGw { radius: 0 });
    // Another listener of the same broker answers after it.
    drop(Client::connect(&broker, "mqtt"));
    device.expect_nothing();
    broker.stays_well();
}

#[test]
fn a_device_that_may_not_connect_is_told() {
    let (broker, at) = start(&["listener.sn.external.max_connections=1"], &[]);
    let _first = Device::connected(at, "first", true);
    let second = Device::new(at);
    second.send(Message::Connect { will: false, clean_session: true, duration: 60, client_id: "second" });
    second.expect(Message::Connack(ReturnCode::Congestion));
    broker.stays_well();
}

#[test]
fn topic_ids_and_sleepers_outlive_the_broker() {
    let scratch = Scratch::new("sn-restart");
    let data = scratch.file("data");
    let (mut broker, at) = start(&[], &["--data", &data]);
    let awake = Device::connected(at, "awake", false);
    awake.subscribe("down");
    let asleep = Device::connected(at, "asleep", false);
    asleep.subscribe("down");
    asleep.send(Message::Disconnect(Some(1000)));
    asleep.expect(Message::Disconnect(None));
    broker.process.signal(Signal::TERM);
    // Who is connected is told; who sleeps would not hear it.
    awake.expect(Message::Disconnect(None));
    assert!(broker.process.wait().success());
    asleep.expect_nothing();
    broker.assert_log_is_clean();

    let (broker, at) = start(&["mqtt.sn.subs_resume=false"], &["--data", &data]);
    let mut mqtt = Client::connect(&broker, "mqtt");
    mqtt.publish("down", b"x", QoS::AtLeastOnce);
    let woken = Device::new(at);
    woken.send(Message::Pingreq(Some("asleep")));
    woken.expect(message(QoS::AtLeastOnce, 1, b"x"));
    woken.send(Message::Puback(ack(1)));
    woken.expect(Message::Pingresp);
    let again = Device::connected(at, "awake", false);
    again.expect(message(QoS::AtLeastOnce, 1, b"x"));
    broker.stays_well();
}

/// An address of this machine that counts on one interface only, with that interface.
fn link_local() -> Option<SocketAddrV6> {
    let text = std::fs::read_to_string("/proc/net/if_inet6").ok()?;
    let of = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let address = u128::from_str_radix(fields.next()?, 16).ok()?;
        let interface = u32::from_str_radix(fields.next()?, 16).ok()?;
        let address = Ipv6Addr::from(address);
        address.is_unicast_link_local().then(|| SocketAddrV6::new(address, 0, 0, interface))
    };
    text.lines().find_map(of)
}

#[test]
fn a_device_with_a_link_local_address() {
    let Some(own) = link_local() else { return eprintln!("no interface here has a link-local address") };
    let broker = Broker::of(newtmq(), &["listener.sn.external.bind=[::]:0"], &[]);
    let port = broker.address_of("mqtt-sn", "external").port();
    let socket = UdpSocket::bind(own).unwrap();
    socket.connect(SocketAddrV6::new(*own.ip(), port, 0, own.scope_id())).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let device = Device(socket);
    device.send(Message::Connect { will: false, clean_session: true, duration: 60, client_id: "near" });
    device.expect(ACCEPTED);
    device.subscribe("down");
    let mut mqtt = Client::connect(&broker, "mqtt");
    mqtt.publish("down", b"x", QoS::AtLeastOnce);
    device.expect(message(QoS::AtLeastOnce, 1, b"x"));
    broker.stays_well();
}

#[test]
fn a_sleeper_wakes_at_another_node() {
    let scratch = Scratch::new("sn-cluster");
    let nodes: Vec<(Broker, SocketAddr)> = (1..=2)
        .map(|number| {
            let name = format!("node.name=n{number}@test");
            let data = scratch.file(&number.to_string());
            let sets = ["node.cookie=s3cr3t", "node.listen=127.0.0.1:0", "mqtt.sn.subs_resume=false", &name];
            start(&sets, &["--data", &data, "--shards", "2"])
        })
        .collect();
    wait_until("a cluster of one", || ctl(&scratch, 1, &["status"]).0.contains("n1@test").then_some(()));
    let first = members(&scratch, 1)[0]["address"].as_str().unwrap().to_owned();
    let (told, code) = ctl(&scratch, 2, &["join", &first]);
    assert_eq!(code, Some(0), "{told}");
    for number in 1..=2 {
        wait_until("open routes", || {
            let members = members(&scratch, number);
            (members.len() == 2 && members.iter().all(|node| node["routes"] == "open")).then_some(())
        });
    }
    let device = Device::connected(nodes[0].1, "device", false);
    device.subscribe("down");
    device.send(Message::Disconnect(Some(1000)));
    device.expect(Message::Disconnect(None));
    let mut mqtt = Client::connect(&nodes[0].0, "mqtt");
    mqtt.publish("down", b"x", QoS::AtLeastOnce);
    // Its session comes to the other node with what waits, and with its topic ids.
    let there = Device::new(nodes[1].1);
    there.send(Message::Pingreq(Some("device")));
    let Message::Publish(of) = message(QoS::AtLeastOnce, 1, b"x") else { unreachable!("it is one") };
    // It was on its way to the first gateway.
    there.expect(Message::Publish(Publish { dup: true, ..of }));
    there.send(Message::Puback(ack(1)));
    there.expect(Message::Pingresp);
    mqtt.publish("down", b"y", QoS::AtLeastOnce);
    there.send(Message::Pingreq(None));
    there.expect(message(QoS::AtLeastOnce, 2, b"y"));
    // Who looks for a gateway is told of both.
    let address = nodes[1].1;
    let SocketAddr::V4(at) = address else { unreachable!("it is on 127.0.0.1") };
    let place = [&at.ip().octets()[..], &at.port().to_be_bytes()].concat();
    wait_until("both gateways", || {
        let search = Device::new(nodes[0].1);
        search.send(Message::SearchGw { radius: 0 });
        search.expect(Message::GwInfo { gateway: 1, address: &[] });
        search.0.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let mut bytes = [0; 100];
        let count = search.0.recv(&mut bytes).ok()?;
        assert_eq!(Datagram::decode(&bytes[..count]).unwrap().message, Message::GwInfo { gateway: 1, address: &place });
        Some(())
    });
    // Any node tells where it is, and that it sleeps.
    let output = newtmq().args(["ctl", "--data", &scratch.file("1"), "sn", "list"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        told.starts_with("Device(device, state=") && told.contains("node=n2@test") && told.lines().count() == 1,
        "{told}"
    );
    assert!(
        told.contains(&format!("address={}", there.0.local_addr().unwrap())) && told.contains("sleep=1000"),
        "{told}"
    );
    for (node, _) in nodes {
        node.stays_well();
    }
}

/// The recipe of docs/mqtt-sn.md, with another socat for the device's side.
#[test]
#[ignore = "needs socat"]
fn socat_in_front_does_dtls() {
    let scratch = Scratch::new("sn-dtls");
    scratch.certificates("certs", &[]);
    let parts =
        ["cert.pem", "key.pem"].map(|name| std::fs::read_to_string(scratch.file(&format!("certs/{name}"))).unwrap());
    let (both, ca) = (scratch.write("both.pem", &parts.concat()), scratch.file("certs/ca.pem"));
    let (broker, at) = start(&[], &[]);
    let free = || UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (server, client) = (free(), free());
    let socat = |from: String, to: String| {
        let mut command = clean(Command::new("socat"));
        command.args(["-T", "3600", &from, &to]);
        Process::start(command)
    };
    let from = format!("OPENSSL-DTLS-SERVER:{server},bind=127.0.0.1,fork,cert={both},cafile={ca},verify=1");
    let _server = socat(from, format!("UDP4:{at}"));
    let to = format!("OPENSSL-DTLS-CLIENT:127.0.0.1:{server},cert={both},cafile={ca},commonname=localhost");
    let _client = socat(format!("UDP4-LISTEN:{client},bind=127.0.0.1,fork"), to);
    // While nobody listens there, the operating system refuses it; and socat may take one handshake for two, which then hang.
    let device = wait_until("both programs", || {
        let device = Device::new(SocketAddr::from(([127, 0, 0, 1], client)));
        device.0.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        let mut bytes = Vec::new();
        Message::SearchGw { radius: 0 }.encode(&mut bytes).unwrap();
        let answered = device.0.send(&bytes).and_then(|_| device.0.recv(&mut [0; 100]));
        answered.is_ok().then_some(device)
    });
    device.0.set_read_timeout(Some(DEADLINE)).unwrap();
    device.send(Message::Connect { will: false, clean_session: true, duration: 60, client_id: "device" });
    device.expect(ACCEPTED);
    device.subscribe("down");
    let mut mqtt = Client::connect(&broker, "mqtt");
    mqtt.publish("down", b"x", QoS::AtLeastOnce);
    device.expect(message(QoS::AtLeastOnce, 1, b"x"));
    broker.stays_well();
}
