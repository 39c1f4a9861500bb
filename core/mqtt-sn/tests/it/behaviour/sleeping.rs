//! Clients that sleep, wake, move, and wake at another gateway.

use newtmq_base::Instant;
use newtmq_mqtt::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use newtmq_mqtt_sn::{
    ClientState, Config, Datagram, Gateway, Input, LinkId, Message, MessageType, Output, TopicRef, TopicSpec, WillTopic,
};
use newtmq_node::ShardConfig;

use super::{ACCEPTED, ack, again, connect, join, publish, resume, subscribed};
use crate::world::{Device, World, device};

const T: TopicRef = TopicRef::Normal(1);

/// A client that has subscribed to "topic" and sleeps.
fn asleep(config: &Config, message: Message<'_>, gateways: usize) -> (World, Device, usize) {
    let mut world = World::with(config, ShardConfig::default(), gateways);
    let a = device(1);
    join(&mut world, &a, message);
    subscribed(&mut world, &a, "topic", ExactlyOnce, 1);
    world.exchange(&a, Message::Disconnect(Some(100)), &[Message::Disconnect(None)]);
    let m = world.mqtt("m");
    (world, a, m)
}

fn wake() -> Message<'static> {
    Message::Pingreq(Some("a"))
}

#[test]
pub(crate) fn sleep_with_all_qos_buffered() {
    let (mut world, a, m) = asleep(&Config::default(), connect("a"), 1);
    for (data, qos) in [(b"0", AtMostOnce), (b"1", AtLeastOnce), (b"2", ExactlyOnce), (b"3", AtLeastOnce)] {
        world.mqtt_publish(m, "topic", data, qos, false);
    }
    world.expect(&a, &[]);
    assert_eq!(world.gateway().client("a").unwrap().state, ClientState::Asleep);
    let first = [publish(T, AtMostOnce, 0, b"0"), publish(T, AtLeastOnce, 1, b"1")];
    world.exchange(&a, wake(), &first);
    assert_eq!(world.gateway().client("a").unwrap().state, ClientState::Awake);
    world.exchange(&a, Message::Puback(ack(1, 1)), &[publish(T, ExactlyOnce, 2, b"2")]);
    world.exchange(&a, Message::Pubrec(2), &[Message::Pubrel(2)]);
    world.exchange(&a, Message::Pubcomp(2), &[publish(T, AtLeastOnce, 3, b"3")]);
    world.exchange(&a, Message::Puback(ack(1, 3)), &[Message::Pingresp]);
    assert_eq!(world.gateway().client("a").unwrap().state, ClientState::Asleep);
    world.exchange(&a, wake(), &[Message::Pingresp]);
}

#[test]
pub(crate) fn sleep_ends_in_time_or_the_will_is_published() {
    let mut world = World::new(&Config::default());
    let m = world.mqtt("m");
    world.mqtt_subscribe(m, "#");
    let a = device(1);
    let message = Message::Connect { will: true, clean_session: true, duration: 60, client_id: "a" };
    let topic = WillTopic { qos: AtMostOnce, retain: false, topic: "w" };
    world.send(&a, message);
    world.send(&a, Message::WillTopic(Some(topic)));
    world.send(&a, Message::WillMsg(b"gone"));
    world.take(&a);
    world.exchange(&a, Message::Disconnect(Some(100)), &[Message::Disconnect(None)]);
    for _ in 0..3 {
        world.advance_secs(109);
        world.exchange(&a, wake(), &[Message::Pingresp]);
    }
    // Another time, from then on.
    world.exchange(&a, Message::Disconnect(Some(50)), &[Message::Disconnect(None)]);
    world.advance_secs(74);
    assert_eq!(world.received(m), [""; 0]);
    world.advance_secs(3);
    assert_eq!(world.received(m), ["w gone"]);
    world.exchange(&a, Message::Pingreq(None), &[Message::Disconnect(None)]);
}

#[test]
pub(crate) fn from_sleep_to_active_and_to_disconnected() {
    let (mut world, a, m) = asleep(&Config::default(), connect("a"), 1);
    world.mqtt_publish(m, "topic", b"1", AtLeastOnce, false);
    // The session goes on, and is told its topics again.
    world.exchange(&a, resume("a"), &[ACCEPTED, Message::Register { topic_id: 1, msg_id: 1, topic: "topic" }]);
    world.exchange(&a, Message::Regack(ack(1, 1)), &[publish(T, AtLeastOnce, 1, b"1")]);
    world.exchange(&a, Message::Puback(ack(1, 1)), &[]);
    world.exchange(&a, Message::Disconnect(Some(100)), &[Message::Disconnect(None)]);
    world.exchange(&a, Message::Disconnect(None), &[Message::Disconnect(None)]);
    assert_eq!(world.gateway().clients().count(), 0);
}

#[test]
pub(crate) fn buffer_of_a_sleeper_is_bounded() {
    let config = Config { max_buffer_len: 3, ..Config::default() };
    let (mut world, a, m) = asleep(&config, connect("a"), 1);
    for index in 0..10u8 {
        world.mqtt_publish(m, "topic", &[b'0' + index], AtMostOnce, false);
    }
    world.mqtt_publish(m, "topic", b"q", AtLeastOnce, false);
    assert_eq!(world.gateway().counters().dropped_full, 8);
    let got = [publish(T, AtMostOnce, 0, b"8"), publish(T, AtMostOnce, 0, b"9"), publish(T, AtLeastOnce, 1, b"q")];
    world.exchange(&a, wake(), &got);
    let config = Config { max_buffer_bytes: 100, ..Config::default() };
    let (mut world, _, m) = asleep(&config, connect("a"), 1);
    for _ in 0..10 {
        world.mqtt_publish(m, "topic", &[7; 30], AtMostOnce, false);
    }
    assert_eq!((world.gateway().counters().dropped_full, world.gateway().client("a").unwrap().waiting), (7, 3));
}

#[test]
pub(crate) fn unanswered_while_awake_waits_for_the_next_time() {
    let (mut world, a, m) = asleep(&Config { retries: 1, ..Config::default() }, connect("a"), 1);
    world.mqtt_publish(m, "topic", b"1", AtLeastOnce, false);
    let message = publish(T, AtLeastOnce, 1, b"1");
    world.exchange(&a, wake(), &[message]);
    world.advance_secs(10);
    world.expect(&a, &[again(message)]);
    world.advance_secs(10);
    world.expect(&a, &[]);
    assert_eq!(world.gateway().client("a").unwrap().state, ClientState::Asleep);
    world.exchange(&a, wake(), &[again(message)]);
    world.exchange(&a, Message::Puback(ack(1, 1)), &[Message::Pingresp]);
}

#[test]
pub(crate) fn acknowledged_behind_falling_asleep_is_not_sent_again() {
    let mut world = World::new(&Config::default());
    let a = device(1);
    join(&mut world, &a, connect("a"));
    subscribed(&mut world, &a, "topic", ExactlyOnce, 1);
    let m = world.mqtt("m");
    for (id, qos) in [(1, AtLeastOnce), (2, ExactlyOnce)] {
        world.mqtt_publish(m, "topic", b"1", qos, false);
        world.expect(&a, &[publish(T, qos, id, b"1")]);
        world.exchange(&a, Message::Disconnect(Some(100)), &[Message::Disconnect(None)]);
        if qos == AtLeastOnce {
            world.exchange(&a, Message::Puback(ack(1, id)), &[]);
        } else {
            // What it answers is asked for when it listens.
            world.exchange(&a, Message::Pubrec(id), &[]);
            world.exchange(&a, wake(), &[Message::Pubrel(id)]);
            world.send(&a, Message::Pubcomp(id));
            world.expect(&a, &[Message::Pingresp]);
        }
        world.exchange(&a, resume("a"), &[ACCEPTED]);
        world.exchange(&a, Message::Register { topic_id: 0, msg_id: 9, topic: "topic" }, &[Message::Regack(ack(1, 9))]);
    }
}

/// A device and its gateway, whose broker is slow: what that says comes when the test says so.
struct Slow {
    gateway: Gateway,
    link: Option<LinkId>,
}

impl Slow {
    fn connected() -> Slow {
        let mut slow = Slow { gateway: Gateway::new(Config::default(), 1, Instant::from_millis(1)), link: None };
        let opened = slow.device(connect("a"));
        let Some(Output::Open { link, .. }) = opened.first() else { panic!("{opened:?}") };
        slow.link = Some(*link);
        slow.broker(&[0x20, 3, 0, 0, 0]);
        slow
    }

    fn handle(&mut self, input: Input<'_>) -> Vec<Output> {
        let mut out = Vec::new();
        self.gateway.handle(Instant::from_millis(1), input, &mut out);
        out
    }

    fn device(&mut self, message: Message<'_>) -> Vec<Output> {
        let mut data = Vec::new();
        Datagram { forwarded: None, message }.encode(&mut data).unwrap();
        self.handle(Input::Datagram { from: device(1).at, data: &data })
    }

    fn broker(&mut self, data: &[u8]) -> Vec<Output> {
        let link = self.link.unwrap();
        self.handle(Input::Bytes { link, data })
    }
}

/// Whether a datagram of this type is among them.
fn says(outputs: &[Output], message_type: MessageType) -> bool {
    outputs.iter().any(|output| matches!(output, Output::Datagram { data, .. } if data[1] == message_type.code()))
}

#[test]
pub(crate) fn sleeps_on_when_the_broker_has_no_more_after_the_last_acknowledgement() {
    let mut slow = Slow::connected();
    let asks = |outputs: &[Output]| {
        outputs.iter().any(|output| matches!(output, Output::Bytes { data, .. } if *data == [0xC0, 0]))
    };
    let message = |id| [0x32, 7, 0, 2, b'a', b'b', 0, id, 0];
    let puback = |id| Message::Puback(ack(u16::from_be_bytes(*b"ab"), id));
    const PINGRESP: &[u8] = &[0xD0, 0];
    slow.device(Message::Disconnect(Some(100)));
    slow.broker(&message(1));
    slow.device(wake());
    assert!(asks(&slow.device(puback(1))));
    slow.broker(&message(2));
    slow.device(puback(2));
    // It was asked before it heard of the second one: there may be a third.
    let outputs = slow.broker(PINGRESP);
    assert!(asks(&outputs) && !says(&outputs, MessageType::Pingresp), "{outputs:?}");
    let outputs = slow.broker(PINGRESP);
    assert!(says(&outputs, MessageType::Pingresp), "{outputs:?}");
}

#[test]
pub(crate) fn an_answer_that_comes_when_it_sleeps_tells_nothing() {
    for anew in [Message::Disconnect(Some(100)), resume("a")] {
        let mut slow = Slow::connected();
        slow.device(Message::Subscribe { dup: false, qos: AtMostOnce, msg_id: 1, topic: TopicSpec::Name("topic") });
        slow.device(anew);
        slow.broker(&[0x90, 4, 0, 1, 0, 0]);
        let mut outputs = slow.broker(&[0x30, 9, 0, 5, b't', b'o', b'p', b'i', b'c', 0, 7]);
        outputs.extend(slow.device(wake()));
        assert!(says(&outputs, MessageType::Register) && !says(&outputs, MessageType::Publish), "{anew:?} {outputs:?}");
    }
}

#[test]
pub(crate) fn ping_from_a_new_port() {
    let (mut world, a, m) = asleep(&Config::default(), connect("a"), 1);
    let b = device(2);
    world.mqtt_publish(m, "topic", b"0", AtMostOnce, false);
    world.exchange(&b, wake(), &[publish(T, AtMostOnce, 0, b"0"), Message::Pingresp]);
    world.expect(&a, &[]);
    assert_eq!(world.gateway().counters().rebound, 1);
    // Whoever is active moves as well.
    join(&mut world, &b, resume("a"));
    world.exchange(&a, Message::Pingreq(Some("a")), &[Message::Pingresp]);
    world.exchange(&b, Message::Pingreq(None), &[Message::Disconnect(None)]);
    // What is under way goes along, at once.
    world.mqtt_publish(m, "topic", b"1", AtLeastOnce, false);
    let under_way = world.take(&a).len();
    world.send(&b, Message::Pingreq(Some("a")));
    assert_eq!((under_way, world.take(&b).len()), (1, 2));
}

#[test]
pub(crate) fn ping_that_reaches_another_cluster_node() {
    let (mut world, _, m) = asleep(&Config::default(), resume("a"), 2);
    world.mqtt_publish(m, "topic", b"1", AtLeastOnce, false);
    assert!(world.has_record("a"));
    let there = Device { gateway: 1, ..device(5) };
    // Its topic ids are known there, and nobody has died.
    world.mqtt_subscribe(m, "w");
    world.exchange(&there, wake(), &[again(publish(T, AtLeastOnce, 1, b"1"))]);
    world.exchange(&there, Message::Puback(ack(1, 1)), &[Message::Pingresp]);
    let counters = [world.gateways[0].clients().count(), world.gateways[1].clients().count()];
    assert_eq!((counters, world.gateways[1].counters().adopted), ([0, 1], 1));
    world.advance_secs(109);
    world.exchange(&there, wake(), &[Message::Pingresp]);
    world.advance_secs(112);
    assert_eq!(world.gateways[1].clients().count(), 0, "its time of sleep is known, too");
}

#[test]
pub(crate) fn ping_of_nobody() {
    let mut world = World::new(&Config::default());
    let a = device(1);
    world.exchange(&a, wake(), &[Message::Disconnect(None)]);
    assert_eq!(world.gateway().clients().count(), 0);
    // A session that does not sleep is not woken.
    join(&mut world, &a, resume("a"));
    world.exchange(&a, Message::Disconnect(None), &[Message::Disconnect(None)]);
    world.exchange(&a, wake(), &[Message::Disconnect(None)]);
    // Nor one that ends with its sleep.
    let (mut world, _, _) = asleep(&Config::default(), connect("a"), 2);
    let there = Device { gateway: 1, ..device(5) };
    world.exchange(&there, wake(), &[Message::Disconnect(None)]);
}

#[test]
pub(crate) fn stale_link_is_not_heard() {
    // The broker's last word on a link that was replaced does not end its successor.
    let mut world = World::new(&Config::default());
    let a = device(1);
    join(&mut world, &a, connect("a"));
    world.advance_secs(5);
    for _ in 0..5 {
        join(&mut world, &device(2), connect("a"));
        world.take(&a);
        join(&mut world, &a, connect("a"));
        world.take(&device(2));
    }
    world.advance_secs(20);
    world.exchange(&a, Message::Pingreq(None), &[Message::Pingresp]);
}

#[test]
pub(crate) fn a_session_that_began_clean_outlives_its_gateway_once_asked_to() {
    let config = Config::default();
    let (mut world, a, m) = asleep(&config, connect("a"), 1);
    // Awake again, without CleanSession.
    world.send(&a, resume("a"));
    world.take(&a);
    world.replace_gateway(0, &config);
    world.mqtt_publish(m, "topic", b"1", AtLeastOnce, false);
    world.advance_secs(60);
    let register = Message::Register { topic_id: 1, msg_id: 1, topic: "topic" };
    world.exchange(&a, resume("a"), &[ACCEPTED, register]);
    world.exchange(&a, Message::Regack(ack(1, 1)), &[publish(T, AtLeastOnce, 1, b"1")]);
}
