//! Topic ids, subscriptions, and messages both ways.

use newtmq_mqtt::QoS::{self, AtLeastOnce, AtMostOnce, ExactlyOnce};
use newtmq_mqtt_sn::{Config, Message, MinusOne, Publish, ReturnCode, SnQoS, TopicRef, TopicSpec};
use newtmq_node::{AccessConfig, ShardConfig};

use super::{ack, again, connect, join, nack, publish, resume, subscribe, subscribed};
use crate::world::{Device, World, device};

const DENIED: ReturnCode = ReturnCode::NotSupported;
const UNKNOWN: ReturnCode = ReturnCode::InvalidTopicId;
const BUSY: ReturnCode = ReturnCode::Congestion;

fn config() -> Config {
    Config { predefined: vec![(7, "predefined/seven".into())], ..Config::default() }
}

fn with_rules(config: &Config, text: &str) -> World {
    let acl = newtmq_access::Acl::parse(text).unwrap();
    let access = AccessConfig { acl: Some(std::sync::Arc::new(acl)), ..AccessConfig::default() };
    World::with(config, ShardConfig { access, ..ShardConfig::default() }, 1)
}

/// A device that is connected, and an MQTT client that sees everything.
fn world_with_client(config: &Config, message: Message<'_>) -> (World, Device, usize) {
    let mut world = World::new(config);
    let a = device(1);
    join(&mut world, &a, message);
    let m = world.mqtt("m");
    (world, a, m)
}

fn register(world: &mut World, a: &Device, topic: &str, msg_id: u16, topic_id: u16) {
    world.exchange(a, Message::Register { topic_id: 0, msg_id, topic }, &[Message::Regack(ack(topic_id, msg_id))]);
}

fn subscribe_to(topic: TopicSpec<'_>, msg_id: u16) -> Message<'_> {
    Message::Subscribe { dup: false, qos: AtLeastOnce, msg_id, topic }
}

fn suback(qos: QoS, topic_id: u16, msg_id: u16, code: ReturnCode) -> Message<'static> {
    Message::Suback { qos, ack: nack(topic_id, msg_id, code) }
}

#[test]
pub(crate) fn registrations() {
    let (mut world, a, _) = world_with_client(&Config { max_topic_ids: 2, ..config() }, connect("a"));
    register(&mut world, &a, "one", 1, 1);
    register(&mut world, &a, "two", 2, 2);
    register(&mut world, &a, "one", 3, 1);
    let refused = |msg_id, code| Message::Regack(nack(0, msg_id, code));
    world.exchange(&a, Message::Register { topic_id: 0, msg_id: 4, topic: "a/#" }, &[refused(4, DENIED)]);
    // Topic ids exhausted.
    world.exchange(&a, Message::Register { topic_id: 0, msg_id: 5, topic: "three" }, &[refused(5, BUSY)]);
    world.exchange(&a, subscribe("three", AtMostOnce, 6), &[suback(AtMostOnce, 0, 6, BUSY)]);
    // What has no id is dropped, counted, and does not stop the rest.
    assert_eq!(subscribed(&mut world, &a, "+", AtLeastOnce, 7), 0);
    let m = world.mqtt("p");
    world.mqtt_publish(m, "four", b"lost", AtLeastOnce, false);
    world.mqtt_publish(m, "one", b"x", AtMostOnce, false);
    world.expect(&a, &[publish(TopicRef::Normal(1), AtMostOnce, 0, b"x")]);
    assert_eq!(world.gateway().counters().dropped_no_topic_id, 1);
}

#[test]
pub(crate) fn publish_of_all_kinds() {
    let (mut world, a, m) = world_with_client(&config(), connect("a"));
    world.mqtt_subscribe(m, "#");
    register(&mut world, &a, "normal", 1, 1);
    let topics = [
        (TopicRef::Normal(1), "normal"),
        (TopicRef::Predefined(7), "predefined/seven"),
        (TopicRef::Short(*b"s1"), "s1"),
    ];
    for (topic, name) in topics {
        world.exchange(&a, publish(topic, AtMostOnce, 0, b"0"), &[]);
        world.exchange(&a, publish(topic, AtLeastOnce, 5, b"1"), &[Message::Puback(ack(topic.id(), 5))]);
        world.exchange(&a, publish(topic, ExactlyOnce, 6, b"2"), &[Message::Pubrec(6)]);
        world.exchange(&a, Message::Pubrel(6), &[Message::Pubcomp(6)]);
        assert_eq!(world.received(m), ["0", "1", "2"].map(|data| format!("{name} {data}")));
    }
    let retained = Publish {
        dup: false,
        qos: SnQoS::Mqtt(AtMostOnce),
        retain: true,
        topic: TopicRef::Normal(1),
        msg_id: 0,
        data: b"r",
    };
    world.exchange(&a, Message::Publish(retained), &[]);
    let late = world.mqtt("late");
    world.mqtt_subscribe(late, "#");
    assert_eq!(world.received(late), ["normal r r"]);
}

#[test]
pub(crate) fn publish_to_unknown_topic_ids() {
    let (mut world, a, m) = world_with_client(&config(), connect("a"));
    world.mqtt_subscribe(m, "#");
    for topic in [TopicRef::Normal(9), TopicRef::Normal(0), TopicRef::Predefined(8), TopicRef::Short(*b"a#")] {
        for (qos, msg_id) in [(AtMostOnce, 0), (AtLeastOnce, 5), (ExactlyOnce, 6)] {
            let answer = Message::Puback(nack(topic.id(), msg_id, UNKNOWN));
            world.exchange(&a, publish(topic, qos, msg_id, b"x"), &[answer]);
        }
    }
    assert_eq!(world.received(m), [""; 0]);
}

#[test]
pub(crate) fn publish_denied_by_the_rules() {
    let mut world = with_rules(&config(), r#"{deny, {client, "a"}, publish, ["no"]}. {allow, all}."#);
    let a = device(1);
    join(&mut world, &a, connect("a"));
    let topic = TopicRef::Short(*b"no");
    world.exchange(&a, publish(topic, AtLeastOnce, 5, b""), &[Message::Puback(nack(topic.id(), 5, DENIED))]);
    world.exchange(&a, publish(topic, ExactlyOnce, 6, b""), &[Message::Puback(nack(topic.id(), 6, DENIED))]);
}

#[test]
pub(crate) fn publish_that_the_broker_does_not_support() {
    let mut shard = ShardConfig::default();
    shard.mqtt.max_qos_allowed = AtLeastOnce;
    shard.mqtt.retain_available = false;
    let mut world = World::with(&config(), shard, 1);
    let a = device(1);
    join(&mut world, &a, connect("a"));
    let topic = TopicRef::Short(*b"ab");
    world.exchange(&a, publish(topic, ExactlyOnce, 5, b""), &[Message::Puback(nack(topic.id(), 5, DENIED))]);
    let retained = Publish { dup: false, qos: SnQoS::Mqtt(AtLeastOnce), retain: true, topic, msg_id: 6, data: b"" };
    world.exchange(&a, Message::Publish(retained), &[Message::Puback(nack(topic.id(), 6, DENIED))]);
    world.exchange(&a, publish(topic, AtLeastOnce, 7, b""), &[Message::Puback(ack(topic.id(), 7))]);
}

#[test]
pub(crate) fn repeated_publishes_are_answered_and_not_published_again() {
    let (mut world, a, m) = world_with_client(&config(), connect("a"));
    world.mqtt_subscribe(m, "#");
    let topic = TopicRef::Short(*b"ab");
    let one = publish(topic, AtLeastOnce, 5, b"1");
    let two = publish(topic, ExactlyOnce, 6, b"2");
    world.exchange(&a, one, &[Message::Puback(ack(topic.id(), 5))]);
    world.exchange(&a, again(one), &[Message::Puback(ack(topic.id(), 5))]);
    world.exchange(&a, two, &[Message::Pubrec(6)]);
    world.exchange(&a, again(two), &[Message::Pubrec(6)]);
    world.exchange(&a, Message::Pubrel(6), &[Message::Pubcomp(6)]);
    world.exchange(&a, Message::Pubrel(6), &[Message::Pubcomp(6)]);
    // A copy that the network has kept back.
    world.exchange(&a, two, &[Message::Pubrec(6)]);
    world.exchange(&a, Message::Pubrel(6), &[Message::Pubcomp(6)]);
    assert_eq!(world.received(m), ["ab 1", "ab 2"]);
    // Another content is another message.
    world.exchange(&a, publish(topic, ExactlyOnce, 6, b"3"), &[Message::Pubrec(6)]);
    // Long afterwards it is, too.
    world.exchange(&a, Message::Pubrel(6), &[Message::Pubcomp(6)]);
    world.advance_secs(11);
    world.exchange(&a, publish(topic, ExactlyOnce, 6, b"3"), &[Message::Pubrec(6)]);
    assert_eq!(world.received(m), ["ab 3", "ab 3"]);
}

#[test]
pub(crate) fn qos2_goes_on_after_a_reconnect() {
    let (mut world, a, m) = world_with_client(&config(), resume("a"));
    world.mqtt_subscribe(m, "#");
    let two = publish(TopicRef::Short(*b"ab"), ExactlyOnce, 6, b"2");
    world.exchange(&a, two, &[Message::Pubrec(6)]);
    world.exchange(&a, Message::Disconnect(None), &[Message::Disconnect(None)]);
    join(&mut world, &a, resume("a"));
    world.exchange(&a, again(two), &[Message::Pubrec(6)]);
    world.exchange(&a, Message::Pubrel(6), &[Message::Pubcomp(6)]);
    assert_eq!(world.received(m), ["ab 2"]);
}

#[test]
pub(crate) fn subscribe_of_all_kinds() {
    let (mut world, a, m) = world_with_client(&config(), connect("a"));
    world.exchange(&a, subscribe("name", ExactlyOnce, 1), &[suback(ExactlyOnce, 1, 1, ReturnCode::Accepted)]);
    world.exchange(&a, subscribe("w/#", AtLeastOnce, 2), &[suback(AtLeastOnce, 0, 2, ReturnCode::Accepted)]);
    let rows = [
        (TopicSpec::Predefined(7), 7, ReturnCode::Accepted),
        (TopicSpec::Predefined(8), 0, UNKNOWN),
        (TopicSpec::Short(*b"s1"), 0, ReturnCode::Accepted),
        (TopicSpec::Short(*b"#a"), 0, DENIED),
        (TopicSpec::Name("a/#/b"), 0, DENIED),
        (TopicSpec::Name("$share/g/name"), 0, ReturnCode::Accepted),
    ];
    for (msg_id, (topic, topic_id, code)) in (3..).zip(rows) {
        let qos = if code == ReturnCode::Accepted { AtLeastOnce } else { AtMostOnce };
        world.exchange(&a, subscribe_to(topic, msg_id), &[suback(qos, topic_id, msg_id, code)]);
    }
    world.exchange(
        &a,
        Message::Unsubscribe { msg_id: 20, topic: TopicSpec::Name("$share/g/name") },
        &[Message::Unsuback(20)],
    );
    for (topic, key) in
        [("name", TopicRef::Normal(1)), ("predefined/seven", TopicRef::Predefined(7)), ("s1", TopicRef::Short(*b"s1"))]
    {
        world.mqtt_publish(m, topic, b"x", AtMostOnce, false);
        world.expect(&a, &[publish(key, AtMostOnce, 0, b"x")]);
    }
    world.exchange(&a, Message::Unsubscribe { msg_id: 21, topic: TopicSpec::Name("name") }, &[Message::Unsuback(21)]);
    world.mqtt_publish(m, "name", b"x", AtMostOnce, false);
    world.expect(&a, &[]);
}

#[test]
pub(crate) fn subscribe_that_is_repeated() {
    let (mut world, a, m) = world_with_client(&config(), connect("a"));
    world.exchange(&a, subscribe("name", AtLeastOnce, 1), &[suback(AtLeastOnce, 1, 1, ReturnCode::Accepted)]);
    let repeated = Message::Subscribe { dup: true, qos: AtLeastOnce, msg_id: 1, topic: TopicSpec::Name("name") };
    world.exchange(&a, repeated, &[suback(AtLeastOnce, 1, 1, ReturnCode::Accepted)]);
    world.exchange(&a, Message::Unsubscribe { msg_id: 2, topic: TopicSpec::Name("name") }, &[Message::Unsuback(2)]);
    // A late copy does not subscribe again.
    world.send(&a, subscribe("name", AtLeastOnce, 1));
    world.take(&a);
    world.mqtt_publish(m, "name", b"x", AtMostOnce, false);
    world.expect(&a, &[]);
}

#[test]
pub(crate) fn wildcard_denied_by_the_rules() {
    let mut world = with_rules(&config(), r##"{deny, {client, "a"}, subscribe, ["no/#"]}. {allow, all}."##);
    let a = device(1);
    join(&mut world, &a, connect("a"));
    world.exchange(&a, subscribe("no/#", AtLeastOnce, 1), &[suback(AtMostOnce, 0, 1, DENIED)]);
    world.exchange(&a, subscribe("no/1", AtLeastOnce, 2), &[suback(AtMostOnce, 0, 2, DENIED)]);
}

#[test]
pub(crate) fn mountpoint() {
    let mut shard = ShardConfig::default();
    shard.zones[0].mountpoint = "%c/".into();
    let mut world = World::with(&config(), shard, 1);
    let (a, b) = (device(1), device(2));
    join(&mut world, &a, connect("a"));
    join(&mut world, &b, connect("b"));
    subscribed(&mut world, &a, "topic", AtMostOnce, 1);
    subscribed(&mut world, &b, "topic", AtMostOnce, 1);
    world.exchange(
        &a,
        publish(TopicRef::Normal(1), AtMostOnce, 0, b"x"),
        &[publish(TopicRef::Normal(1), AtMostOnce, 0, b"x")],
    );
    world.expect(&b, &[]);
}

#[test]
pub(crate) fn register_before_the_first_delivery_and_enqueue_while_registering() {
    let (mut world, a, m) = world_with_client(&config(), connect("a"));
    subscribed(&mut world, &a, "w/+", AtLeastOnce, 1);
    for data in [b"0", b"1", b"2"] {
        world.mqtt_publish(m, "w/1", data, if data == b"1" { AtLeastOnce } else { AtMostOnce }, false);
    }
    world.expect(&a, &[Message::Register { topic_id: 1, msg_id: 1, topic: "w/1" }]);
    let topic = TopicRef::Normal(1);
    let first = [publish(topic, AtMostOnce, 0, b"0"), publish(topic, AtLeastOnce, 1, b"1")];
    world.exchange(&a, Message::Regack(ack(1, 1)), &first);
    world.exchange(&a, Message::Puback(ack(1, 1)), &[publish(topic, AtMostOnce, 0, b"2")]);
    // The client may use the id, too.
    world.mqtt_subscribe(m, "w/1");
    world.exchange(&a, publish(topic, AtMostOnce, 0, b"own"), &[publish(topic, AtMostOnce, 0, b"own")]);
    assert_eq!(world.received(m), ["w/1 own"]);
}

#[test]
pub(crate) fn delivery_of_qos2() {
    let (mut world, a, m) = world_with_client(&config(), connect("a"));
    subscribed(&mut world, &a, "topic", ExactlyOnce, 1);
    world.mqtt_publish(m, "topic", b"x", ExactlyOnce, false);
    let message = publish(TopicRef::Normal(1), ExactlyOnce, 1, b"x");
    world.expect(&a, &[message]);
    world.advance_secs(10);
    world.expect(&a, &[again(message)]);
    world.exchange(&a, Message::Pubrec(1), &[Message::Pubrel(1)]);
    world.exchange(&a, Message::Pubrec(1), &[]);
    world.advance_secs(10);
    world.expect(&a, &[Message::Pubrel(1)]);
    world.exchange(&a, Message::Pubcomp(1), &[]);
    // A client that has forgotten that it is over gets an end.
    world.exchange(&a, Message::Pubrec(1), &[Message::Pubrel(1)]);
    world.advance_secs(20);
    world.expect(&a, &[]);
}

#[test]
pub(crate) fn delivery_is_sent_again_until_the_client_is_lost() {
    let (mut world, a, m) = world_with_client(&Config { retries: 2, ..config() }, resume("a"));
    subscribed(&mut world, &a, "topic", AtLeastOnce, 1);
    world.mqtt_publish(m, "topic", b"x", AtLeastOnce, false);
    let message = publish(TopicRef::Normal(1), AtLeastOnce, 1, b"x");
    world.expect(&a, &[message]);
    for _ in 0..2 {
        world.advance_secs(10);
        world.expect(&a, &[again(message)]);
    }
    world.advance_secs(10);
    assert_eq!(world.gateway().clients().count(), 0);
    assert_eq!(world.gateway().counters().given_up, 1);
    // Nothing is lost.
    join_and_register(&mut world, &a, "topic");
    world.expect(&a, &[again(message)]);
}

fn join_and_register(world: &mut World, a: &Device, topic: &str) {
    world.exchange(a, resume("a"), &[super::ACCEPTED, Message::Register { topic_id: 1, msg_id: 1, topic }]);
    world.send(a, Message::Regack(ack(1, 1)));
}

#[test]
pub(crate) fn register_retries_exhausted() {
    let (mut world, a, m) = world_with_client(&Config { retries: 1, ..config() }, resume("a"));
    subscribed(&mut world, &a, "w/+", AtLeastOnce, 1);
    world.mqtt_publish(m, "w/1", b"x", AtLeastOnce, false);
    let registering = Message::Register { topic_id: 1, msg_id: 1, topic: "w/1" };
    world.expect(&a, &[registering]);
    world.advance_secs(10);
    world.expect(&a, &[registering]);
    world.advance_secs(10);
    assert_eq!((world.gateway().clients().count(), world.gateway().counters().lost), (0, 1));
    join_and_register(&mut world, &a, "w/1");
    let got = world.take(&a);
    assert_eq!(got.len(), 1, "it is there still");
}

#[test]
pub(crate) fn registrations_are_resumed_or_not() {
    for register_on_resume in [true, false] {
        let (mut world, a, m) = world_with_client(&Config { register_on_resume, ..config() }, resume("a"));
        world.mqtt_subscribe(m, "#");
        register(&mut world, &a, "other", 9, 1);
        let id = subscribed(&mut world, &a, "topic", AtMostOnce, 1);
        assert_eq!(id, 2);
        world.exchange(&a, Message::Disconnect(None), &[Message::Disconnect(None)]);
        join(&mut world, &a, resume("a"));
        // Its ids are those that it had.
        world.exchange(&a, publish(TopicRef::Normal(1), AtMostOnce, 0, b"x"), &[]);
        assert_eq!(world.received(m), ["other x"]);
        world.mqtt_publish(m, "topic", b"x", AtMostOnce, false);
        let message = publish(TopicRef::Normal(2), AtMostOnce, 0, b"x");
        if register_on_resume {
            world.expect(&a, &[Message::Register { topic_id: 2, msg_id: 2, topic: "topic" }]);
            world.exchange(&a, Message::Regack(ack(2, 2)), &[message]);
        } else {
            world.expect(&a, &[message]);
        }
        // A clean session has none.
        join(&mut world, &device(2), connect("a"));
        world.exchange(
            &device(2),
            publish(TopicRef::Normal(1), AtMostOnce, 0, b"x"),
            &[Message::Puback(nack(1, 0, UNKNOWN))],
        );
    }
}

#[test]
pub(crate) fn invalid_topic_id_on_delivery_is_registered_again() {
    let (mut world, a, m) = world_with_client(&config(), connect("a"));
    subscribed(&mut world, &a, "topic", AtLeastOnce, 1);
    world.mqtt_publish(m, "topic", b"x", AtLeastOnce, false);
    let message = publish(TopicRef::Normal(1), AtLeastOnce, 1, b"x");
    world.expect(&a, &[message]);
    let registering = Message::Register { topic_id: 1, msg_id: 1, topic: "topic" };
    world.exchange(&a, Message::Puback(nack(1, 1, UNKNOWN)), &[registering]);
    world.exchange(&a, Message::Regack(ack(1, 1)), &[message]);
    world.exchange(&a, Message::Puback(ack(1, 1)), &[]);
    // Of QoS 0 the message is lost, the next is not.
    world.mqtt_publish(m, "topic", b"y", AtMostOnce, false);
    world.expect(&a, &[publish(TopicRef::Normal(1), AtMostOnce, 0, b"y")]);
    world.exchange(&a, Message::Puback(nack(1, 0, UNKNOWN)), &[]);
    world.mqtt_publish(m, "topic", b"z", AtMostOnce, false);
    world.expect(&a, &[registering]);
}

#[test]
pub(crate) fn refused_registration_counts_as_unsubscribe() {
    let (mut world, a, m) = world_with_client(&config(), connect("a"));
    subscribed(&mut world, &a, "w/+", AtLeastOnce, 1);
    world.mqtt_publish(m, "w/1", b"x", AtLeastOnce, false);
    world.expect(&a, &[Message::Register { topic_id: 1, msg_id: 1, topic: "w/1" }]);
    world.exchange(&a, Message::Regack(nack(1, 1, DENIED)), &[]);
    world.mqtt_publish(m, "w/1", b"y", AtLeastOnce, false);
    world.expect(&a, &[]);
    assert_eq!(world.gateway().counters().dropped_refused, 2);
    world.mqtt_publish(m, "w/2", b"z", AtLeastOnce, false);
    world.expect(&a, &[Message::Register { topic_id: 2, msg_id: 2, topic: "w/2" }]);
    // Congestion is not a refusal.
    world.exchange(&a, Message::Regack(nack(2, 2, BUSY)), &[]);
    world.advance_secs(10);
    world.expect(&a, &[Message::Register { topic_id: 2, msg_id: 2, topic: "w/2" }]);
}

#[test]
pub(crate) fn too_long_for_a_datagram() {
    let (mut world, a, m) = world_with_client(&Config { max_datagram: 100, ..config() }, connect("a"));
    subscribed(&mut world, &a, "#", AtLeastOnce, 1);
    world.mqtt_publish(m, "ab", &[1; 92], AtLeastOnce, false);
    world.mqtt_publish(m, &"t".repeat(93), b"", ExactlyOnce, false);
    world.expect(&a, &[]);
    assert_eq!(world.gateway().counters().dropped_too_long, 2);
    world.mqtt_publish(m, "ab", &[1; 91], AtLeastOnce, false);
    assert_eq!(world.take(&a).len(), 1);
}

#[test]
pub(crate) fn minus_one() {
    let topic = TopicRef::Predefined(7);
    let message =
        Message::Publish(Publish { dup: false, qos: SnQoS::MinusOne, retain: false, topic, msg_id: 0, data: b"x" });
    let rows = [(MinusOne::Off, 0, 0), (MinusOne::Connected, 1, 0), (MinusOne::Anybody, 1, 2)];
    for (minus_one, connected, strangers) in rows {
        let (mut world, a, m) = world_with_client(&Config { minus_one, ..config() }, connect("a"));
        world.mqtt_subscribe(m, "#");
        world.exchange(&a, message, &[]);
        assert_eq!(world.received(m).len(), connected, "{minus_one:?}");
        world.exchange(&device(2), message, &[]);
        world.exchange(&device(3), message, &[]);
        assert_eq!(world.received(m).len(), strangers, "{minus_one:?}");
        assert_eq!(world.gateway().clients().count(), 1);
    }
    // Its permission is its own.
    let config = Config { minus_one: MinusOne::Anybody, ..config() };
    let mut world = with_rules(&config, r##"{deny, {client, "newtmq-sn-1"}, publish, ["#"]}. {allow, all}."##);
    let m = world.mqtt("m");
    world.mqtt_subscribe(m, "#");
    world.exchange(&device(2), message, &[]);
    assert_eq!(world.received(m), [""; 0]);
}
