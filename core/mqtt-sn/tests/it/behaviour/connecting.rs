//! CONNECT and its repetitions, discovery, the will, the end of connections.

use newtmq_base::Instant;
use newtmq_mqtt::QoS::{self, AtLeastOnce, AtMostOnce};
use newtmq_mqtt_sn::{
    ClientState, Config, Datagram, Gateway, Input, LinkId, Message, Output, Publish, ReturnCode, SnQoS, TopicRef,
    WillTopic,
};
use newtmq_node::{AccessConfig, ShardConfig};

use super::{ACCEPTED, ack, connect, join, nack, publish, resume, subscribe, subscribed};
use crate::world::{World, device};

const BUSY: Message<'static> = Message::Connack(ReturnCode::Congestion);
const NO: Message<'static> = Message::Connack(ReturnCode::NotSupported);

fn with_will(clean_session: bool) -> Message<'static> {
    Message::Connect { will: true, clean_session, duration: 60, client_id: "a" }
}

fn will_topic(topic: &str) -> WillTopic<'_> {
    WillTopic { qos: AtLeastOnce, retain: false, topic }
}

fn rules(text: &str) -> ShardConfig {
    let acl = newtmq_access::Acl::parse(text).unwrap();
    let access = AccessConfig { acl: Some(std::sync::Arc::new(acl)), ..AccessConfig::default() };
    ShardConfig { access, ..ShardConfig::default() }
}

/// A client with a will "w gone".
fn world_with_will(clean_session: bool) -> (World, usize) {
    let mut world = World::new(&Config::default());
    let watcher = world.mqtt("watcher");
    world.mqtt_subscribe(watcher, "#");
    let a = device(1);
    world.exchange(&a, with_will(clean_session), &[Message::WillTopicReq]);
    world.exchange(&a, Message::WillTopic(Some(will_topic("w"))), &[Message::WillMsgReq]);
    world.exchange(&a, Message::WillMsg(b"gone"), &[ACCEPTED]);
    (world, watcher)
}

#[test]
pub(crate) fn connect_and_disconnect() {
    let mut world = World::new(&Config::default());
    let a = device(1);
    join(&mut world, &a, connect("a"));
    world.exchange(&a, Message::Pingreq(None), &[Message::Pingresp]);
    world.exchange(&a, Message::Disconnect(None), &[Message::Disconnect(None)]);
    assert!(world.gateway().client("a").is_none());
    // The answer was lost.
    world.exchange(&a, Message::Disconnect(None), &[Message::Disconnect(None)]);
    world.exchange(&a, Message::Pingreq(None), &[Message::Disconnect(None)]);
}

#[test]
pub(crate) fn connects_that_are_refused() {
    let config = Config { max_client_id_len: 5, ..Config::default() };
    let mut world = World::with(&config, rules("{deny, {client, \"bad\"}, publish, [\"#\"]}. {allow, all}."), 1);
    let a = device(1);
    world.exchange(&a, connect("longer"), &[NO]);
    world.send_bytes(&a, b"\x07\x04\x04\x02\x00\x3Ca");
    world.expect(&a, &[NO]);
    // Its will is denied by the rules.
    let bad = Message::Connect { will: true, clean_session: true, duration: 60, client_id: "bad" };
    world.exchange(&a, bad, &[Message::WillTopicReq]);
    world.exchange(&a, Message::WillTopic(Some(will_topic("w"))), &[Message::WillMsgReq]);
    world.exchange(&a, Message::WillMsg(b"x"), &[NO]);
    assert_eq!(world.gateway().clients().count(), 0);
    // Nor may it be changed to such a one.
    join(&mut world, &a, Message::Connect { will: false, clean_session: false, duration: 9, client_id: "bad" });
    let denied = Message::WillTopicResp(ReturnCode::NotSupported);
    world.exchange(&a, Message::WillTopicUpd(Some(will_topic("w"))), &[denied]);
    world.exchange(&a, bad_resume(), &[Message::WillTopicReq]);
    world.exchange(&a, Message::WillTopic(Some(will_topic("w"))), &[Message::WillMsgReq]);
    world.exchange(&a, Message::WillMsg(b"x"), &[NO]);
}

fn bad_resume() -> Message<'static> {
    Message::Connect { will: true, clean_session: false, duration: 9, client_id: "bad" }
}

#[test]
pub(crate) fn duplicate_connect() {
    let mut world = World::new(&Config::default());
    let a = device(1);
    join(&mut world, &a, connect("a"));
    // CONNACK was lost, long ago: nothing else has come.
    world.advance_secs(20);
    world.exchange(&a, connect("a"), &[ACCEPTED]);
    // A late copy does not take away what came after it.
    subscribed(&mut world, &a, "topic", AtMostOnce, 1);
    world.exchange(&a, connect("a"), &[ACCEPTED]);
    let m = world.mqtt("m");
    world.mqtt_publish(m, "topic", b"x", AtMostOnce, false);
    world.expect(&a, &[Message::Register { topic_id: 1, msg_id: 1, topic: "topic" }]);
    world.exchange(&a, Message::Regack(ack(1, 1)), &[publish(TopicRef::Normal(1), AtMostOnce, 0, b"x")]);
    // A device that has started again does, even after one more copy.
    world.exchange(&a, connect("a"), &[ACCEPTED]);
    world.advance_secs(3);
    world.exchange(&a, connect("a"), &[ACCEPTED]);
    world.mqtt_publish(m, "topic", b"y", AtMostOnce, false);
    world.expect(&a, &[]);
}

#[test]
pub(crate) fn clean_session_begins_when_the_former_one_has_ended() {
    let mut gateway = Gateway::new(Config::default(), 1, Instant::from_millis(1));
    let handle = |gateway: &mut Gateway, at, input: Input<'_>| {
        let mut out = Vec::new();
        gateway.handle(Instant::from_millis(at), input, &mut out);
        out
    };
    let links = |outputs: &[Output]| -> Vec<LinkId> {
        let opened = |output: &Output| if let Output::Open { link, .. } = output { Some(*link) } else { None };
        outputs.iter().filter_map(opened).collect()
    };
    let mut data = Vec::new();
    Datagram { forwarded: None, message: connect("a") }.encode(&mut data).unwrap();
    let datagram = || Input::Datagram { from: device(1).at, data: &data };
    let link = links(&handle(&mut gateway, 1, datagram()))[0];
    handle(&mut gateway, 1, Input::Bytes { link, data: &[0x20, 3, 0, 0, 0] });
    // It has started again.
    let ping = [2, 0x16];
    handle(&mut gateway, 2, Input::Datagram { from: device(1).at, data: &ping });
    let outputs = handle(&mut gateway, 5_000, datagram());
    assert_eq!(outputs, [Output::Bytes { link, data: vec![0xE0, 0] }]);
    let opened = links(&handle(&mut gateway, 5_001, Input::Closed { link }));
    assert_eq!((opened.len(), opened[0] == link), (1, false));
}

#[test]
pub(crate) fn duplicate_connect_in_the_will_handshake() {
    let mut world = World::new(&Config::default());
    let a = device(1);
    world.exchange(&a, with_will(true), &[Message::WillTopicReq]);
    world.exchange(&a, with_will(true), &[Message::WillTopicReq]);
    world.exchange(&a, Message::WillTopic(Some(will_topic("w"))), &[Message::WillMsgReq]);
    world.exchange(&a, with_will(true), &[Message::WillMsgReq]);
    assert_eq!(world.gateway().handshakes(), 1);
    world.exchange(&a, Message::WillMsg(b"x"), &[ACCEPTED]);
    assert_eq!(world.gateway().handshakes(), 0);
}

#[test]
pub(crate) fn will_prompts_are_sent_again_and_given_up() {
    let mut world =
        World::new(&Config { retries: 2, idle_timeout: core::time::Duration::from_secs(99), ..Config::default() });
    let a = device(1);
    world.exchange(&a, with_will(true), &[Message::WillTopicReq]);
    world.advance_secs(10);
    world.expect(&a, &[Message::WillTopicReq]);
    world.advance_secs(20);
    world.expect(&a, &[Message::WillTopicReq]);
    assert_eq!((world.gateway().handshakes(), world.gateway().counters().given_up), (0, 1));
}

#[test]
pub(crate) fn will_message_before_its_topic() {
    let mut world = World::new(&Config::default());
    let a = device(1);
    world.exchange(&a, Message::WillMsg(b"x"), &[]);
    world.exchange(&a, with_will(true), &[Message::WillTopicReq]);
    world.exchange(&a, Message::WillMsg(b"x"), &[]);
    world.exchange(&a, Message::WillTopic(Some(will_topic("w"))), &[Message::WillMsgReq]);
    world.exchange(&a, Message::WillMsg(b"x"), &[ACCEPTED]);
}

#[test]
pub(crate) fn other_messages_in_the_will_handshake() {
    let mut world = World::new(&Config::default());
    let a = device(1);
    world.send(&a, with_will(true));
    world.take(&a);
    let busy = |topic_id, msg_id| nack(topic_id, msg_id, ReturnCode::Congestion);
    world.exchange(&a, publish(TopicRef::Normal(7), AtLeastOnce, 3, b""), &[Message::Puback(busy(7, 3))]);
    world.exchange(&a, publish(TopicRef::Normal(7), AtMostOnce, 0, b""), &[]);
    world.exchange(&a, Message::Register { topic_id: 0, msg_id: 4, topic: "t" }, &[Message::Regack(busy(0, 4))]);
    world.exchange(&a, subscribe("t", AtMostOnce, 5), &[Message::Suback { qos: AtMostOnce, ack: busy(0, 5) }]);
    world.exchange(&a, Message::Disconnect(None), &[Message::Disconnect(None)]);
    assert_eq!(world.gateway().handshakes(), 0);
    world.exchange(&a, Message::WillTopic(Some(will_topic("w"))), &[]);
}

#[test]
pub(crate) fn will_is_published_when_the_client_is_lost() {
    for clean in [true, false] {
        let (mut world, watcher) = world_with_will(clean);
        world.advance_secs(89);
        assert_eq!(world.received(watcher), [""; 0], "50 % above a minute");
        world.advance_secs(3);
        assert_eq!(world.received(watcher), ["w gone"]);
        assert_eq!(world.gateway().counters().lost, 1);
    }
}

#[test]
pub(crate) fn whatever_comes_keeps_alive() {
    let (topic, qos) = (TopicRef::Short(*b"ab"), SnQoS::MinusOne);
    let unconnected = Message::Publish(Publish { dup: false, qos, retain: false, topic, msg_id: 0, data: b"" });
    for message in [Message::Pingreq(None), Message::SearchGw { radius: 0 }, Message::Pubcomp(7), unconnected] {
        let (mut world, watcher) = world_with_will(true);
        for _ in 0..5 {
            world.advance_secs(80);
            world.send(&device(1), message);
        }
        assert_eq!(world.received(watcher), [""; 0], "{message:?}");
        world.advance_secs(93);
        assert_eq!(world.received(watcher), ["w gone"], "{message:?}");
    }
}

#[test]
pub(crate) fn will_is_not_published_on_disconnect() {
    let (mut world, watcher) = world_with_will(false);
    world.exchange(&device(1), Message::Disconnect(None), &[Message::Disconnect(None)]);
    world.advance_secs(200);
    assert_eq!(world.received(watcher), [""; 0]);
}

#[test]
pub(crate) fn empty_will_topic_connects_without_will() {
    let mut world = World::new(&Config::default());
    let watcher = world.mqtt("watcher");
    world.mqtt_subscribe(watcher, "#");
    let a = device(1);
    world.exchange(&a, with_will(true), &[Message::WillTopicReq]);
    world.exchange(&a, Message::WillTopic(None), &[ACCEPTED]);
    world.advance_secs(200);
    assert_eq!(world.received(watcher), [""; 0]);
}

#[test]
pub(crate) fn will_is_kept_without_clean_session_and_deleted_with_it() {
    // 6.3: without Will and CleanSession the will of the session goes on.
    for (second, wills) in [(resume("a"), &["w gone"][..]), (connect("a"), &[])] {
        let (mut world, watcher) = world_with_will(false);
        let a = device(1);
        world.send(&a, Message::Disconnect(None));
        world.take(&a);
        join(&mut world, &a, second);
        world.advance_secs(200);
        assert_eq!(world.received(watcher), wills);
    }
}

#[test]
pub(crate) fn will_is_asked_for_again_with_will_and_without_clean_session() {
    let (mut world, watcher) = world_with_will(false);
    let a = device(1);
    world.advance_secs(3);
    world.exchange(&a, with_will(false), &[Message::WillTopicReq]);
    world.exchange(&a, Message::WillTopic(Some(will_topic("other"))), &[Message::WillMsgReq]);
    world.exchange(&a, Message::WillMsg(b"x"), &[ACCEPTED]);
    world.advance_secs(200);
    assert_eq!(world.received(watcher), ["other x"]);
}

/// What a client sends, and what it gets.
type Update<'a> = (Message<'a>, Message<'a>);

#[test]
pub(crate) fn will_updates() {
    let upd = |topic| Message::WillTopicUpd(Some(will_topic(topic)));
    let (topic_ok, message_ok) =
        (Message::WillTopicResp(ReturnCode::Accepted), Message::WillMsgResp(ReturnCode::Accepted));
    let rows: &[(&str, &[Update<'_>], &[&str])] = &[
        ("topic", &[(upd("v"), topic_ok)], &["v gone"]),
        ("message", &[(Message::WillMsgUpd(b"new"), message_ok)], &["w new"]),
        ("both", &[(upd("v"), topic_ok), (Message::WillMsgUpd(b"new"), message_ok)], &["v new"]),
        ("deleted", &[(Message::WillTopicUpd(None), topic_ok)], &[]),
        (
            "deleted, then a message",
            &[
                (Message::WillTopicUpd(None), topic_ok),
                (Message::WillMsgUpd(b"x"), Message::WillMsgResp(ReturnCode::NotSupported)),
            ],
            &[],
        ),
        ("no topic", &[(upd("a/#"), Message::WillTopicResp(ReturnCode::NotSupported))], &["w gone"]),
    ];
    for (name, updates, wills) in rows {
        let (mut world, watcher) = world_with_will(true);
        for (update, answer) in *updates {
            world.exchange(&device(1), *update, &[*answer]);
        }
        world.advance_secs(200);
        assert_eq!(world.received(watcher), *wills, "{name}");
    }
}

#[test]
pub(crate) fn search_and_advertise() {
    let mut world = World::new(&Config { gateway_id: 7, ..Config::default() });
    let a = device(1);
    let own = Message::GwInfo { gateway: 7, address: b"" };
    world.exchange(&a, Message::SearchGw { radius: 1 }, &[own]);
    let others = [(8, vec![192, 0, 2, 8, 7, 92].into()), (9, vec![192, 0, 2, 9, 7, 92].into())];
    let now = world.now;
    world.gateways[0].handle(now, Input::Gateways(&others), &mut Vec::new());
    let other = |gateway, last: &'static [u8]| Message::GwInfo { gateway, address: last };
    let told = [own, other(8, &[192, 0, 2, 8, 7, 92]), other(9, &[192, 0, 2, 9, 7, 92])];
    world.exchange(&a, Message::SearchGw { radius: 1 }, &told);
    world.advance_secs(2 * 15 * 60 + 1);
    assert_eq!(world.broadcasts, vec![b"\x05\x00\x07\x03\x84".to_vec(); 3]);
}

#[test]
pub(crate) fn congestion_is_said() {
    let mut world = World::new(&Config { max_clients: 1, max_handshakes: 1, ..Config::default() });
    let (a, b) = (device(1), device(2));
    join(&mut world, &a, connect("a"));
    world.exchange(&b, connect("b"), &[BUSY]);
    // Who is here may come again.
    join(&mut world, &b, connect("a"));
    world.expect(&a, &[Message::Disconnect(None)]);
    let mut world = World::new(&Config { max_handshakes: 1, ..Config::default() });
    world.exchange(&b, with_will(true), &[Message::WillTopicReq]);
    world.exchange(&a, Message::Connect { will: true, clean_session: true, duration: 1, client_id: "x" }, &[BUSY]);
    world.advance_secs(31);
    world.exchange(
        &a,
        Message::Connect { will: true, clean_session: true, duration: 1, client_id: "x" },
        &[Message::WillTopicReq],
    );
}

#[test]
pub(crate) fn takeover_by_client_id() {
    let mut world = World::new(&Config::default());
    let (a, b) = (device(1), device(2));
    join(&mut world, &a, resume("x"));
    subscribed(&mut world, &a, "topic", AtLeastOnce, 1);
    join(&mut world, &b, resume("x"));
    world.expect(&a, &[Message::Disconnect(None)]);
    let m = world.mqtt("m");
    world.mqtt_publish(m, "topic", b"1", AtLeastOnce, false);
    world.expect(&b, &[Message::Register { topic_id: 1, msg_id: 1, topic: "topic" }]);
    world.expect(&a, &[]);
    // A clean one takes everything away.
    join(&mut world, &a, connect("x"));
    world.expect(&b, &[Message::Disconnect(None)]);
    world.mqtt_publish(m, "topic", b"2", AtLeastOnce, false);
    world.expect(&a, &[]);
    // An MQTT client does as well.
    world.mqtt("x");
    world.expect(&a, &[Message::Disconnect(None)]);
    assert_eq!(world.gateway().clients().count(), 0);
}

#[test]
pub(crate) fn takeover_on_a_reused_port() {
    let mut world = World::new(&Config::default());
    let (a, b) = (device(1), device(2));
    join(&mut world, &a, resume("old"));
    subscribed(&mut world, &a, "topic", AtLeastOnce, 1);
    world.exchange(&a, Message::Disconnect(Some(100)), &[Message::Disconnect(None)]);
    join(&mut world, &a, connect("new"));
    let m = world.mqtt("m");
    world.mqtt_publish(m, "topic", b"1", AtLeastOnce, false);
    world.expect(&a, &[]);
    assert_eq!(world.gateway().client("old").unwrap().state, ClientState::Asleep);
    // It wakes somewhere else.
    let one = publish(TopicRef::Normal(1), AtLeastOnce, 1, b"1");
    world.exchange(&b, Message::Pingreq(Some("old")), &[one]);
    world.exchange(&b, Message::Puback(ack(1, 1)), &[Message::Pingresp]);
    world.exchange(&a, Message::Pingreq(None), &[Message::Pingresp]);
}

#[test]
pub(crate) fn clients_behind_a_forwarder() {
    let mut world = World::new(&Config::default());
    let mut one = device(1);
    one.node = Some(vec![1]);
    let mut two = device(1);
    two.node = Some(vec![2, 2]);
    join(&mut world, &one, connect("one"));
    join(&mut world, &two, connect("two"));
    subscribed(&mut world, &two, "ab", QoS::AtMostOnce, 1);
    world.send(&one, publish(TopicRef::Short(*b"ab"), AtMostOnce, 0, b"x"));
    world.expect(&two, &[publish(TopicRef::Short(*b"ab"), AtMostOnce, 0, b"x")]);
    let m = world.mqtt("m");
    world.mqtt_publish(m, "ab", b"y", AtMostOnce, false);
    world.expect(&two, &[publish(TopicRef::Short(*b"ab"), AtMostOnce, 0, b"y")]);
}

#[test]
pub(crate) fn flood_from_unknown_addresses_costs_no_memory() {
    let config = Config { stray_replies_per_second: 10, ..Config::default() };
    let mut world = World::new(&config);
    let a = device(1);
    join(&mut world, &a, connect("a"));
    let mut answers = 0;
    for port in 1_000..3_000 {
        let stranger = device(port);
        world.send(&stranger, publish(TopicRef::Normal(1), AtLeastOnce, 1, b"x"));
        answers += world.take(&stranger).len();
        world.send_bytes(&stranger, &[0xFF; 40]);
    }
    assert_eq!(answers, 10);
    let counters = *world.gateway().counters();
    assert_eq!((counters.stray, counters.malformed, world.gateway().clients().count()), (2_000, 2_000, 1));
    world.exchange(&a, Message::Pingreq(None), &[Message::Pingresp]);
    // What one stranger gets tells nobody more than that it is not connected.
    world.advance_secs(1);
    let stranger = device(9);
    world.send(&stranger, Message::Pingreq(None));
    assert_eq!(Datagram::decode(&world.take(&stranger)[0]).unwrap().message, Message::Disconnect(None));
}
