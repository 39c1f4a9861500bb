//! Conversations with a server that the tests play: what the client sends and which events it writes.

#![allow(clippy::wildcard_enum_match_arm)]

use core::num::NonZeroU16;
use core::time::Duration;

use newtmq_base::Instant;
use newtmq_mqtt::{
    Ack, Connack, ConnackProperties, Decoder, Disconnect, Packet, PacketId, ProtocolVersion, Publish,
    PublishProperties, QoS, ReasonCode, ReasonCodes, Sender, Suback, TopicName,
};

use super::{Client, ClientOutput, Context, payload};
use crate::draw::of_name;
use crate::history::{AckKind, ClientIx, Closer, Event, Names, Uid};
use crate::scenario::{Acks, Act, ClientSpec, FilterSpec, PublishSpec, ReconnectSpec, WillSpec};

/// A client and its world.
struct World {
    client: Client,
    version: ProtocolVersion,
    names: Names,
    events: Vec<Event>,
    out: Vec<ClientOutput>,
    next_conn: u32,
    now: Instant,
}

const V5: ProtocolVersion = ProtocolVersion::V5;
const V311: ProtocolVersion = ProtocolVersion::V311;

fn spec() -> ClientSpec {
    ClientSpec { name: "c".into(), id: "c".into(), session_expiry_s: 60, clean: false, ..ClientSpec::default() }
}

impl World {
    fn new(spec: &ClientSpec) -> World {
        World {
            client: Client::new(ClientIx(0), spec, 1),
            version: spec.version,
            names: Names::default(),
            events: Vec::new(),
            out: Vec::new(),
            next_conn: 5,
            now: Instant::from_millis(1_000),
        }
    }

    /// A client that is connected; what was said so far is forgotten.
    fn connected(spec: &ClientSpec) -> World {
        let mut world = World::new(spec);
        world.connect(false);
        world
    }

    fn connect(&mut self, present: bool) {
        self.act(&CONNECT);
        self.open();
        self.packet(&Packet::Connack(Connack::new(present, ReasonCode::Success)));
        self.log();
    }

    fn with(&mut self, call: impl FnOnce(&mut Client, &mut Context<'_>)) {
        let World { client, names, events, out, next_conn, now, .. } = self;
        call(client, &mut Context { now: *now, names, events, out, next_conn });
    }

    fn act(&mut self, act: &Act) {
        self.with(|client, cx| client.act(act, cx));
    }

    fn publish(&mut self, topic: &str, qos: QoS) {
        self.act(&Act::Publish(PublishSpec::new(topic, qos)));
    }

    fn open(&mut self) {
        self.with(Client::on_open);
    }

    fn closed(&mut self, by: Closer) {
        self.with(|client, cx| client.on_closed(by, cx));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        let now = self.now;
        self.with(|client, cx| client.on_bytes(bytes, now, cx));
    }

    fn packet(&mut self, packet: &Packet<'_>) {
        let mut bytes = Vec::new();
        packet.encode(self.version, &mut bytes).unwrap();
        // Byte by byte: nothing depends on how the network cuts.
        bytes.iter().for_each(|byte| self.bytes(&[*byte]));
    }

    fn ack(&mut self, kind: AckKind, pid: u16, code: ReasonCode) {
        let ack = Ack::new(PacketId::new(pid).unwrap(), code);
        self.packet(&match kind {
            AckKind::Puback => Packet::Puback(ack),
            AckKind::Pubrec => Packet::Pubrec(ack),
            AckKind::Pubrel => Packet::Pubrel(ack),
            AckKind::Pubcomp => Packet::Pubcomp(ack),
        });
    }

    /// A message for the client, number `number` of client 7; the Packet Identifier is the same.
    fn message(&mut self, topic: &str, qos: QoS, dup: bool, number: u16) {
        let mut bytes = Vec::new();
        let uid = Uid { publisher: ClientIx(7), number: number.into() };
        payload::write(uid, of_name(topic), 20, false, &mut bytes);
        let packet_id = PacketId::new(number).filter(|_| qos > QoS::AtMostOnce);
        let topic = Some(TopicName::new(topic).unwrap());
        let properties = PublishProperties::default();
        self.packet(&Packet::Publish(Publish {
            dup,
            qos,
            retain: false,
            topic,
            packet_id,
            properties,
            payload: &bytes,
        }));
    }

    /// Time goes on; the client ticks when it wants to.
    fn wait(&mut self, millis: u64) {
        let end = self.now + Duration::from_millis(millis);
        while let Some(at) = self.client.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.with(Client::on_tick);
        }
        self.now = end;
    }

    /// Events, then outputs, since the last call.
    fn log(&mut self) -> Vec<String> {
        let mut log: Vec<String> =
            core::mem::take(&mut self.events).iter().map(|event| show(event, &self.names)).collect();
        for output in core::mem::take(&mut self.out) {
            match output {
                ClientOutput::Send(bytes) => log.extend(packets(&bytes, self.version)),
                ClientOutput::Open
                | ClientOutput::Close
                | ClientOutput::Reset
                | ClientOutput::Abandon
                | ClientOutput::Datagram(_)
                | ClientOutput::Read(_) => log.push(format!("{output:?}!")),
            }
        }
        log
    }

    #[track_caller]
    fn expect(&mut self, expected: &[&str]) {
        assert_eq!(self.log(), expected);
    }

    /// What is unexpected about what came.
    fn unexpected(&mut self) -> Vec<String> {
        self.log().into_iter().filter_map(|line| line.strip_prefix("unexpected ").map(Into::into)).collect()
    }
}

const CONNECT: Act = Act::Connect { clean: None, session_expiry_s: None, node: None };

fn show(event: &Event, names: &Names) -> String {
    match event {
        Event::Connect { conn, facts, .. } => format!("connect {} clean={}", conn.0, facts.clean),
        Event::Connack { present, code, .. } => format!("connack present={present} {code:?}"),
        Event::Subscribe { pid, filters, .. } => format!("subscribe p{pid} {}", filters.len()),
        Event::Suback { pid, .. } => format!("suback p{pid}"),
        Event::Unsubscribe { pid, .. } => format!("unsubscribe p{pid}"),
        Event::Unsuback { pid, .. } => format!("unsuback p{pid}"),
        Event::Publish { facts, .. } => {
            let (pid, number) = (facts.pid.unwrap_or(0), facts.uid.map_or(0, |uid| uid.number));
            let dup = if facts.dup { " dup" } else { "" };
            format!("publish p{pid} #{number} {}{dup}", names.text(facts.topic))
        }
        Event::Acked { kind, pid, .. } => format!("acked {kind:?} p{pid}"),
        Event::Release { pid, .. } => format!("release p{pid}"),
        Event::Receive { facts, .. } => {
            let (pid, number) = (facts.pid.unwrap_or(0), facts.uid.map_or(0, |uid| uid.number));
            format!("receive p{pid} #{number} {}", names.text(facts.topic))
        }
        Event::Ack { kind, pid, .. } => format!("ack {kind:?} p{pid}"),
        Event::Released { pid, .. } => format!("released p{pid}"),
        Event::Handed { uid, .. } => format!("handed #{}", uid.number),
        Event::Pingreq { .. } => "pingreq".into(),
        Event::Pingresp { .. } => "pingresp".into(),
        Event::Disconnect { by, code, .. } => format!("disconnect {by:?} {code:?}"),
        Event::Close { by, .. } => format!("close {by:?}"),
        Event::Wild { what, .. } => format!("wild {what}"),
        Event::Unexpected { what, .. } => format!("unexpected {what}"),
        Event::Gone { .. }
        | Event::AskWill { .. }
        | Event::WillSet { .. }
        | Event::Fault(_)
        | Event::NodeUp { .. }
        | Event::NodeDown { .. }
        | Event::Cluster { .. }
        | Event::Command { .. }
        | Event::Answer { .. }
        | Event::Calm
        | Event::Quiesce => format!("{event:?}"),
    }
}

/// The packets in what a client sent.
fn packets(mut bytes: &[u8], version: ProtocolVersion) -> Vec<String> {
    let mut decoder = Decoder::new();
    let mut packets = Vec::new();
    while let Ok(Some(frame)) = decoder.next(&mut bytes, u32::MAX) {
        packets.push(match frame.decode(version, Sender::Client).unwrap() {
            Packet::Publish(publish) => {
                let alias = publish.properties.topic_alias.map_or(String::new(), |alias| format!(" alias={alias}"));
                format!("PUBLISH {}{alias}", publish.topic.map_or("", TopicName::as_str))
            }
            packet => format!("{:?}", packet.packet_type()).to_uppercase(),
        });
    }
    if decoder.buffered() > 0 {
        packets.push(format!("{} bytes", decoder.buffered()));
    }
    packets
}

#[test]
fn connecting_subscribing_publishing_disconnecting() {
    let mut world = World::new(&spec());
    world.publish("a", QoS::AtMostOnce);
    world.expect(&[]);
    world.act(&CONNECT);
    world.act(&Act::Subscribe { filters: vec![FilterSpec::new("a/#", QoS::AtLeastOnce)], subscription_id: 3 });
    world.expect(&["Open!"]);
    world.open();
    world.expect(&["connect 5 clean=false", "CONNECT"]);
    assert_eq!(world.next_conn, 6);
    world.packet(&Packet::Connack(Connack::new(false, ReasonCode::Success)));
    world.expect(&["connack present=false Success", "subscribe p1 1", "SUBSCRIBE"]);
    let codes = [ReasonCode::GrantedQoS1];
    let (packet_id, reason_codes) = (PacketId::new(1).unwrap(), ReasonCodes::new(&codes));
    let suback = Packet::Suback(Suback { packet_id, properties: Default::default(), reason_codes });
    world.packet(&suback);
    world.expect(&["suback p1"]);
    world.act(&Act::Publish(PublishSpec { count: 2, ..PublishSpec::new("a", QoS::AtMostOnce) }));
    world.expect(&["publish p0 #1 a", "publish p0 #2 a", "PUBLISH a", "PUBLISH a"]);
    world.act(&Act::Unsubscribe { filters: vec!["a/#".into()] });
    world.expect(&["unsubscribe p2", "UNSUBSCRIBE"]);
    world.act(&Act::Disconnect { with_will: true, session_expiry_s: None });
    world.expect(&["disconnect Client DisconnectWithWillMessage", "close Client", "DISCONNECT", "Close!"]);
    world.wait(100_000);
    world.expect(&[]);
    // What follows a DISCONNECT that waits belongs to the next connection.
    world.act(&CONNECT);
    world.act(&Act::Disconnect { with_will: false, session_expiry_s: None });
    world.act(&CONNECT);
    world.act(&Act::Ping);
    world.open();
    world.log();
    world.packet(&Packet::Connack(Connack::new(true, ReasonCode::Success)));
    let end = ["connack present=true Success", "disconnect Client Success", "close Client", "DISCONNECT", "Close!"];
    world.expect(&[&end[..], &["Open!"]].concat());
    world.open();
    world.packet(&Packet::Connack(Connack::new(true, ReasonCode::Success)));
    world.expect(&["connect 7 clean=false", "connack present=true Success", "pingreq", "CONNECT", "PINGREQ"]);
}

#[test]
fn what_is_not_acknowledged_is_sent_again_if_the_session_is_there() {
    for (present, again) in [(true, true), (false, false)] {
        let mut world = World::connected(&spec());
        world.publish("a", QoS::AtLeastOnce);
        world.publish("b", QoS::ExactlyOnce);
        world.publish("c", QoS::ExactlyOnce);
        world.ack(AckKind::Pubrec, 2, ReasonCode::Success);
        world.log();
        world.closed(Closer::Network);
        world.expect(&["close Network"]);
        world.act(&CONNECT);
        world.open();
        world.log();
        world.packet(&Packet::Connack(Connack::new(present, ReasonCode::Success)));
        let log = world.log();
        let events = ["publish p1 #1 a dup", "release p2", "publish p3 #3 c dup"];
        let sent = ["PUBLISH a", "PUBREL", "PUBLISH c"];
        assert_eq!(&log[1..], if again { [events, sent].concat() } else { Vec::new() });
    }
}

#[test]
fn a_session_that_ends_with_its_connection_is_forgotten() {
    let rows = [
        (ClientSpec { session_expiry_s: 0, ..spec() }, false),
        (ClientSpec { session_expiry_s: 1, clean: true, ..spec() }, false),
        (ClientSpec { version: V311, clean: true, ..spec() }, false),
        (ClientSpec { version: V311, session_expiry_s: 0, ..spec() }, true),
    ];
    for (spec, kept) in rows {
        let mut world = World::connected(&spec);
        world.publish("a", QoS::AtLeastOnce);
        world.act(&Act::Reset);
        world.log();
        world.connect(true);
        world.act(&Act::PublishAgain);
        assert_eq!(!world.log().is_empty(), kept, "{spec:?}");
    }
}

#[test]
fn a_publisher_keeps_to_the_limits_of_the_server() {
    let mut world = World::new(&spec());
    world.act(&CONNECT);
    world.open();
    let properties = ConnackProperties {
        receive_maximum: NonZeroU16::new(2),
        maximum_packet_size: Some(120),
        topic_alias_maximum: Some(1),
        maximum_qos: None,
        ..ConnackProperties::default()
    };
    world.packet(&Packet::Connack(Connack { properties, ..Connack::new(false, ReasonCode::Success) }));
    world.log();
    for (topic, qos) in
        [("a", QoS::AtLeastOnce), ("b", QoS::ExactlyOnce), ("c", QoS::AtLeastOnce), ("d", QoS::AtMostOnce)]
    {
        world.publish(topic, qos);
    }
    world.expect(&["publish p1 #1 a", "publish p2 #2 b", "publish p0 #4 d", "PUBLISH a", "PUBLISH b", "PUBLISH d"]);
    world.ack(AckKind::Puback, 1, ReasonCode::NoMatchingSubscribers);
    world.expect(&["acked Puback p1", "publish p3 #3 c", "PUBLISH c"]);
    world.publish("e", QoS::AtLeastOnce);
    world.ack(AckKind::Pubrec, 2, ReasonCode::Success);
    world.expect(&["acked Pubrec p2", "release p2", "PUBREL"]);
    world.ack(AckKind::Pubcomp, 2, ReasonCode::Success);
    world.expect(&["acked Pubcomp p2", "publish p4 #5 e", "PUBLISH e"]);
    let large = PublishSpec { size: 200, ..PublishSpec::new("a", QoS::AtMostOnce) };
    world.act(&Act::Publish(large));
    world.expect(&[]);
    for (alias, topic, sent) in [(1, "a", "a alias=1"), (1, "a", " alias=1"), (1, "b", "b alias=1"), (2, "a", "a")] {
        world.act(&Act::Publish(PublishSpec { alias, ..PublishSpec::new(topic, QoS::AtMostOnce) }));
        assert_eq!(world.log().pop(), Some(format!("PUBLISH {sent}")));
    }
}

#[test]
fn qos_2_is_handed_onward_once_for_each_exchange() {
    let mut world = World::connected(&spec());
    world.message("a", QoS::ExactlyOnce, false, 4);
    world.expect(&["receive p4 #4 a", "handed #4", "ack Pubrec p4", "PUBREC"]);
    world.closed(Closer::Server);
    world.log();
    world.connect(true);
    world.message("a", QoS::ExactlyOnce, true, 4);
    world.expect(&["receive p4 #4 a", "ack Pubrec p4", "PUBREC"]);
    world.ack(AckKind::Pubrel, 4, ReasonCode::Success);
    world.expect(&["released p4", "ack Pubcomp p4", "PUBCOMP"]);
    world.message("a", QoS::ExactlyOnce, false, 4);
    world.expect(&["receive p4 #4 a", "handed #4", "ack Pubrec p4", "PUBREC"]);
    world.message("a", QoS::AtLeastOnce, false, 5);
    world.expect(&["receive p5 #5 a", "handed #5", "ack Puback p5", "PUBACK"]);
}

#[test]
fn acknowledgements_come_late_and_in_order() {
    let mut world = World::connected(&ClientSpec { ack_delay_ms: 1..=50, ..spec() });
    for number in 1..=20 {
        world.message("a", QoS::AtLeastOnce, false, number);
    }
    assert!(world.log().iter().all(|line| !line.starts_with("ack")));
    world.wait(60);
    let acks: Vec<String> = (1..=20).map(|pid| format!("ack Puback p{pid}")).collect();
    assert_eq!(world.log()[..20], acks);
    world.act(&Act::SetAcks(Acks::Never));
    world.message("a", QoS::AtLeastOnce, false, 21);
    world.log();
    world.wait(10_000);
    world.expect(&[]);
    world.act(&Act::SetAcks(Acks::Auto));
    world.expect(&["ack Puback p21", "PUBACK"]);
}

#[test]
fn rows_and_keep_alive_follow_the_clock() {
    let mut world = World::connected(&ClientSpec { keep_alive_s: 4, ..spec() });
    let row = PublishSpec { count: 3, every_us: 500_000, ..PublishSpec::new("a", QoS::AtMostOnce) };
    world.act(&Act::Publish(row));
    assert!(world.client.is_publishing());
    world.wait(1_200);
    assert_eq!(world.log().len(), 6);
    assert!(!world.client.is_publishing());
    world.wait(2_700);
    world.expect(&[]);
    world.wait(200);
    world.expect(&["pingreq", "PINGREQ"]);
    world.packet(&Packet::Pingresp);
    world.expect(&["pingresp"]);
    world.wait(3_000);
    world.expect(&["pingreq", "PINGREQ"]);
    world.wait(20_000);
    let log = world.log();
    assert_eq!(log.iter().filter(|line| *line == "PINGREQ").count(), 6);
    assert_eq!(log.iter().find(|line| *line != "pingreq").map(String::as_str), Some("close Client"));
}

#[test]
fn a_client_that_lost_its_connection_tries_again() {
    let policy = ReconnectSpec { first_ms: 100, max_ms: 350, growth_percent: 100, jitter_percent: 0 };
    let mut world = World::connected(&ClientSpec { reconnect: Some(policy), ..spec() });
    world.closed(Closer::Server);
    world.log();
    for wait in [100, 200, 350, 350] {
        world.wait(wait - 1);
        world.expect(&[]);
        world.wait(1);
        world.expect(&["Open!"]);
        world.closed(Closer::Network);
    }
    world.act(&Act::Disconnect { with_will: false, session_expiry_s: None });
    world.wait(10_000);
    world.expect(&[]);
    let jitter = ReconnectSpec { jitter_percent: 50, ..policy };
    let mut world = World::connected(&ClientSpec { reconnect: Some(jitter), ..spec() });
    let mut waits: Vec<u64> = (0..20)
        .map(|_| {
            world.closed(Closer::Server);
            let wait = (world.client.next_deadline().unwrap() - world.now).as_micros() as u64;
            world.wait(100);
            world.open();
            world.packet(&Packet::Connack(Connack::new(true, ReasonCode::Success)));
            wait
        })
        .collect();
    assert!(waits.iter().all(|wait| (50_000..=100_000).contains(wait)), "{waits:?}");
    waits.dedup();
    assert!(waits.len() > 10, "{waits:?}");
}

#[test]
fn what_breaks() {
    let rows: &[(Act, &[&str])] = &[
        (Act::HangUp, &["close Client", "Close!"]),
        (Act::Reset, &["close Network", "Reset!"]),
        (Act::Vanish, &["close Network", "Abandon!"]),
        (
            Act::PublishTorn { publish: PublishSpec::new("a", QoS::AtLeastOnce), keep: 5 },
            &["publish p1 #2 a", "close Client", "5 bytes", "Close!"],
        ),
        (Act::Raw(vec![0xFF, 1]), &["wild 2 bytes: [FF, 01]"]),
        (Act::StrayAck { kind: AckKind::Pubcomp, pid: 9 }, &["wild PUBCOMP of nothing", "PUBCOMP"]),
        (Act::PublishAgain, &[]),
        (Act::SetReading(false), &["Fault(Reading { client: ClientIx(0), on: false })", "Read(false)!"]),
    ];
    let will = WillSpec { topic: "w".into(), qos: QoS::AtMostOnce, retain: false, delay_s: 0, expiry_s: 0 };
    for (act, expected) in rows {
        let mut world = World::connected(&ClientSpec { will: Some(will.clone()), ..spec() });
        world.act(act);
        world.expect(expected);
        world.act(act);
        assert!(world.client.conn().is_some() || world.log().is_empty(), "{act:?} a second time");
    }
    let mut world = World::connected(&ClientSpec { version: V311, ..spec() });
    world.publish("a", QoS::AtLeastOnce);
    world.log();
    world.act(&Act::PublishAgain);
    world.expect(&["publish p1 #1 a dup", "PUBLISH a"]);
    world.ack(AckKind::Puback, 1, ReasonCode::Success);
    world.ack(AckKind::Puback, 1, ReasonCode::Success);
    assert_eq!(world.unexpected(), [""; 0]);
}

#[test]
fn a_machine_that_sleeps_does_nothing() {
    let mut world = World::connected(&ClientSpec { keep_alive_s: 2, ..spec() });
    world.act(&Act::Publish(PublishSpec { count: 9, every_us: 1_000_000, ..PublishSpec::new("a", QoS::AtMostOnce) }));
    world.log();
    world.act(&Act::Freeze(true));
    world.expect(&["Fault(Freeze { client: ClientIx(0), on: true })", "Read(false)!"]);
    world.message("a", QoS::AtLeastOnce, false, 1);
    world.publish("a", QoS::AtLeastOnce);
    world.wait(5_500);
    world.expect(&[]);
    world.act(&Act::Freeze(false));
    let woken = ["Fault(Freeze { client: ClientIx(0), on: false })", "receive p1 #1 a", "handed #1", "ack Puback p1"];
    world.expect(&[&woken[..], &["Read(true)!", "PUBACK"]].concat());
    world.wait(10_000);
    assert_eq!(
        world.log().iter().filter(|line| *line == "PUBLISH a").count(),
        3,
        "what came due meanwhile is left out"
    );
    world.act(&Act::Freeze(true));
    world.closed(Closer::Server);
    world.log();
    world.act(&Act::Freeze(false));
    world.expect(&["Fault(Freeze { client: ClientIx(0), on: false })", "close Server"]);
    // Whoever wakes up without reading reads when it is told to, even if it is not connected yet.
    world.act(&CONNECT);
    world.act(&Act::SetReading(false));
    world.act(&Act::Freeze(true));
    world.act(&Act::Freeze(false));
    world.act(&Act::SetReading(true));
    assert_eq!(world.log().last().map(String::as_str), Some("Read(true)!"));
}

#[test]
fn what_no_server_may_send() {
    type Say = fn(&mut World);
    let rows: &[(&str, Say)] = &[
        ("MQTT-3.2.0-2", |world| world.packet(&Packet::Connack(Connack::new(false, ReasonCode::Success)))),
        ("MQTT-2.2.1-5", |world| world.ack(AckKind::Puback, 1, ReasonCode::Success)),
        ("MQTT-2.2.1-5", |world| {
            world.publish("a", QoS::ExactlyOnce);
            world.ack(AckKind::Puback, 1, ReasonCode::Success);
        }),
        ("MQTT-2.2.1-5", |world| {
            world.publish("a", QoS::ExactlyOnce);
            world.ack(AckKind::Pubcomp, 1, ReasonCode::Success);
        }),
        ("MQTT-2.2.1-4", |world| world.ack(AckKind::Pubrel, 1, ReasonCode::Success)),
        ("MQTT-2.2.1-6", |world| {
            let codes = [ReasonCode::Success];
            let (packet_id, reason_codes) = (PacketId::new(1).unwrap(), ReasonCodes::new(&codes));
            world.packet(&Packet::Suback(Suback { packet_id, properties: Default::default(), reason_codes }));
        }),
        ("MQTT-3.9.3-1", |world| {
            world.act(&Act::Subscribe { filters: vec![FilterSpec::new("a", QoS::AtMostOnce)], subscription_id: 0 });
            let codes = [ReasonCode::Success; 2];
            let (packet_id, reason_codes) = (PacketId::new(1).unwrap(), ReasonCodes::new(&codes));
            world.packet(&Packet::Suback(Suback { packet_id, properties: Default::default(), reason_codes }));
        }),
        ("MQTT-3.12.4-1", |world| world.packet(&Packet::Pingresp)),
        ("no packet", |world| world.bytes(b"\x00\x00")),
        ("wrong Publish", |world| world.bytes(b"\x30\x03\0\x01#")),
        ("a wrong Connect", |world| world.bytes(b"\x30\x04\0\x01a\0\x10\x02\0\0")),
        ("MQTT-3.1.2-24", |world| world.message(&"long".repeat(20), QoS::AtMostOnce, false, 1)),
        ("MQTT-3.1.2-26", |world| world.bytes(b"\x30\x07\0\x01a\x03\x23\0\x03")),
        ("MQTT-3.3.2-7", |world| world.bytes(b"\x30\x06\0\0\x03\x23\0\x02")),
        ("MQTT-3.14.4-1", |world| {
            world.packet(&Packet::Disconnect(Disconnect::new(ReasonCode::ServerBusy)));
            world.packet(&Packet::Pingresp);
        }),
    ];
    for (rule, say) in rows {
        let mut world = World::connected(&ClientSpec { topic_alias_maximum: 2, max_packet_size: 90, ..spec() });
        say(&mut world);
        let found = world.unexpected();
        assert!(found.len() == 1 && found[0].contains(rule), "{rule}: {found:?}");
    }
    for bytes in [&b"\x30\x04\0\x01a\0"[..], b"\xD0\0", b"\x40\x02\0\x01"] {
        let mut world = World::new(&spec());
        world.act(&CONNECT);
        world.open();
        world.bytes(bytes);
        assert_eq!(world.unexpected(), ["a packet before CONNACK [MQTT-3.2.0-1]"]);
    }
}

#[test]
fn a_server_that_is_allowed_to() {
    let mut world = World::connected(&ClientSpec { topic_alias_maximum: 2, ack_delay_ms: 5..=5, ..spec() });
    world.bytes(b"\x30\x07\0\x01a\x03\x23\0\x02");
    world.bytes(b"\x30\x06\0\0\x03\x23\0\x02");
    let log = world.log();
    assert_eq!(log, ["receive p0 #0 a", "receive p0 #0 a"]);
    world.message("a", QoS::AtLeastOnce, false, 1);
    world.log();
    world.packet(&Packet::Disconnect(Disconnect::new(ReasonCode::SessionTakenOver)));
    // What is not acknowledged by now never is.
    world.wait(1_000);
    world.closed(Closer::Server);
    world.expect(&["disconnect Server SessionTakenOver", "close Server"]);
    let mut world = World::new(&spec());
    world.act(&CONNECT);
    world.open();
    world.version = V311;
    world.packet(&Packet::Connack(Connack::new(false, ReasonCode::UnsupportedProtocolVersion)));
    assert_eq!(world.unexpected(), [""; 0]);
    world.wait(30_000);
    assert_eq!(world.log(), ["close Client", "Close!"], "it does not wait for ever");
    assert_eq!(world.version, V311);
    assert_eq!(spec().version, V5);
}
