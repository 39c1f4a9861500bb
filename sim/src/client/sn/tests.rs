//! The model against messages that a test sends as a gateway would.

#![allow(clippy::wildcard_enum_match_arm)]

use core::time::Duration;

use newtmq_base::Instant;
use newtmq_mqtt::QoS;
use newtmq_mqtt_sn::{Ack, Datagram, Message, Publish, ReturnCode, SnQoS, TopicRef};

use super::{SnArrival, SnClient};
use crate::client::payload;
use crate::client::{ClientOutput, Context};
use crate::draw::of_name;
use crate::history::{ClientIx, Event, Names, Uid};
use crate::scenario::{Act, ClientSpec, FilterSpec, PublishSpec, Scenario, WillSpec};

const CONNECT: Act = Act::Connect { clean: None, session_expiry_s: None, node: None };
const CONNACK: Message<'_> = Message::Connack(ReturnCode::Accepted);

struct Play {
    client: SnClient,
    now: Instant,
    names: Names,
    events: Vec<Event>,
    out: Vec<ClientOutput>,
    next_conn: u32,
    number: u64,
}

impl Play {
    fn new(spec: ClientSpec) -> Play {
        let spec = ClientSpec { name: "d".into(), id: "d".into(), sn: true, ..spec };
        Play {
            client: SnClient::new(ClientIx(0), &spec, &Scenario::default()),
            now: Instant::from_millis(1_000),
            names: Names::default(),
            events: Vec::new(),
            out: Vec::new(),
            next_conn: 0,
            number: 0,
        }
    }

    fn connected(spec: ClientSpec) -> Play {
        let mut play = Play::new(spec);
        play.act(&CONNECT);
        play.comes(CONNACK);
        play.said();
        play.unexpected();
        play
    }

    fn with(&mut self, call: impl FnOnce(&mut SnClient, &mut Context<'_>)) {
        let mut cx = Context {
            now: self.now,
            names: &mut self.names,
            events: &mut self.events,
            out: &mut self.out,
            next_conn: &mut self.next_conn,
        };
        call(&mut self.client, &mut cx);
    }

    /// What has to wait until older datagrams are gone is done in the two milliseconds that follow.
    fn act(&mut self, act: &Act) {
        self.with(|client, cx| client.act(act, cx));
        self.pass(2);
    }

    fn pass(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        while let Some(at) = self.client.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.with(SnClient::on_tick);
        }
        self.now = end;
    }

    fn comes(&mut self, message: Message<'_>) {
        self.number += 1;
        self.comes_as(message, self.number);
    }

    fn comes_as(&mut self, message: Message<'_>, number: u64) {
        let mut bytes = Vec::new();
        Datagram { forwarded: None, message }.encode(&mut bytes).unwrap();
        let sent_at = self.now;
        self.now = self.now + Duration::from_micros(100);
        self.with(|client, cx| client.on_datagram(&SnArrival { number, sent_at, bytes: &bytes }, cx));
    }

    /// Types of what it has sent since the last call.
    fn said(&mut self) -> Vec<String> {
        let datagrams = core::mem::take(&mut self.out).into_iter().map(|output| match output {
            ClientOutput::Datagram(datagram) => datagram.bytes,
            other => panic!("{other:?}"),
        });
        datagrams.map(|bytes| format!("{:?}", Datagram::decode(&bytes).unwrap().message.message_type())).collect()
    }

    fn unexpected(&mut self) -> Vec<String> {
        let events = core::mem::take(&mut self.events);
        events
            .into_iter()
            .filter_map(|event| if let Event::Unexpected { what, .. } = event { Some(what.to_string()) } else { None })
            .collect()
    }

    fn count(&self, wanted: fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|event| wanted(event)).count()
    }
}

fn message(number: u32, qos: QoS, msg_id: u16, data: &mut Vec<u8>) -> Publish<'_> {
    payload::write(Uid { publisher: ClientIx(1), number }, of_name("ab"), 16, false, data);
    Publish { dup: false, qos: SnQoS::Mqtt(qos), retain: false, topic: TopicRef::Short(*b"ab"), msg_id, data }
}

#[test]
fn connect_with_a_will_that_is_repeated() {
    let will = WillSpec { topic: "w".into(), qos: QoS::AtLeastOnce, retain: false, delay_s: 0, expiry_s: 0 };
    let mut play = Play::new(ClientSpec { will: Some(will), ..ClientSpec::default() });
    play.act(&CONNECT);
    assert_eq!(play.said(), ["Connect"]);
    play.pass(2_100);
    assert_eq!(play.said(), ["Connect"]);
    play.comes(Message::WillTopicReq);
    play.comes(Message::WillTopicReq);
    play.comes(Message::WillMsgReq);
    assert_eq!(play.said(), ["WillTopic", "WillTopic", "WillMsg"]);
    play.comes(CONNACK);
    assert_eq!(play.count(|event| matches!(event, Event::Connack { .. })), 1);
    play.act(&Act::SetWill(None));
    play.comes(Message::WillTopicResp(ReturnCode::Accepted));
    assert_eq!(play.said(), ["WillTopicUpd"]);
    assert_eq!(play.count(|event| matches!(event, Event::WillSet { .. })), 1);
}

#[test]
fn one_exchange_after_the_other() {
    let mut play = Play::connected(ClientSpec::default());
    play.act(&Act::Publish(PublishSpec::new("a/b", QoS::ExactlyOnce)));
    play.act(&Act::Subscribe { filters: vec![FilterSpec::new("x/#", QoS::AtLeastOnce)], subscription_id: 0 });
    assert_eq!(play.said(), ["Register"]);
    let id = play.client.last_msg_id;
    play.comes(Message::Regack(Ack { topic_id: 7, msg_id: id, code: ReturnCode::Accepted }));
    assert_eq!(play.said(), ["Publish"]);
    let msg_id = play.client.unacked.unwrap().msg_id;
    play.comes(Message::Pubrec(msg_id));
    play.comes(Message::Pubcomp(msg_id));
    assert_eq!(play.said(), ["Pubrel", "Subscribe"]);
    // It is repeated three times, and then the gateway is gone.
    play.pass(6_100);
    assert_eq!(play.said(), ["Subscribe"; 3]);
    play.pass(2_000);
    assert_eq!((play.said().len(), play.count(|event| matches!(event, Event::Close { .. }))), (0, 1));
}

#[test]
fn messages_and_their_copies() {
    let mut play = Play::connected(ClientSpec::default());
    let mut data = Vec::new();
    for (number, qos, receives, answers) in
        [(1, QoS::AtMostOnce, 1, 0), (2, QoS::AtLeastOnce, 1, 2), (3, QoS::ExactlyOnce, 1, 2)]
    {
        let publish = message(number, qos, if qos == QoS::AtMostOnce { 0 } else { number as u16 }, &mut data);
        play.comes_as(Message::Publish(publish), 100 + u64::from(number));
        play.comes_as(Message::Publish(publish), 100 + u64::from(number));
        assert_eq!(play.count(|event| matches!(event, Event::Receive { .. })), receives, "{qos:?}");
        assert_eq!(play.said().len(), answers, "{qos:?}");
        assert!(play.unexpected().is_empty());
    }
    play.comes(Message::Pubrel(3));
    // One more of it that is no copy: it is over.
    let publish = message(3, QoS::ExactlyOnce, 3, &mut data);
    play.comes(Message::Publish(Publish { dup: true, ..publish }));
    assert_eq!(play.said(), ["Pubcomp", "Pubrec"]);
    assert_eq!(play.count(|event| matches!(event, Event::Receive { .. })), 0);
}

#[test]
fn sleep_and_its_breaks() {
    let mut play = Play::connected(ClientSpec { clean: false, ..ClientSpec::default() });
    let mut data = Vec::new();
    play.act(&Act::Sleep { duration_s: 100, wakes: true });
    assert_eq!(play.said(), ["Disconnect"]);
    play.comes(Message::Disconnect(None));
    assert_eq!(play.count(|event| matches!(event, Event::Close { .. })), 1);
    play.comes(Message::Publish(message(1, QoS::AtMostOnce, 0, &mut data)));
    assert_eq!(play.unexpected(), ["a message to a client that is asleep [MQTT-SN 6.14]"]);
    // By itself, before its time is over.
    play.pass(80_100);
    assert_eq!(play.said(), ["Pingreq"]);
    play.comes(Message::Publish(message(2, QoS::AtLeastOnce, 4, &mut data)));
    play.comes(Message::Pingresp);
    assert_eq!(play.said(), ["Puback"]);
    assert_eq!(play.count(|event| matches!(event, Event::Connack { present: true, .. })), 1);
    assert_eq!(play.count(|event| matches!(event, Event::Close { .. })), 1);
    assert!(play.unexpected().is_empty());
    // Nobody knows it any more: it connects.
    play.act(&Act::Wake { node: None });
    play.comes(Message::Disconnect(None));
    play.pass(10);
    assert_eq!(play.said(), ["Pingreq", "Connect"]);
}

#[test]
fn what_no_gateway_may_send() {
    let mut data = Vec::new();
    let mut play = Play::connected(ClientSpec::default());
    let publish = message(1, QoS::AtLeastOnce, 1, &mut data);
    play.comes(Message::Publish(Publish { topic: TopicRef::Normal(9), ..publish }));
    assert_eq!(play.unexpected(), ["a topic id that it was not told [MQTT-SN 6.10]"]);
    assert_eq!(play.said(), ["Puback"]);
    play.comes(Message::Publish(Publish { qos: SnQoS::MinusOne, msg_id: 0, ..publish }));
    assert_eq!(play.unexpected(), ["QoS -1 from a gateway"]);
}
