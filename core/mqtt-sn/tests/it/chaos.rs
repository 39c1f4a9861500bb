//! Devices that send anything at any time: nothing panics, limits hold, and nothing is left when everybody has gone.

use core::time::Duration;

use newtmq_mqtt::QoS::{self, AtLeastOnce, AtMostOnce, ExactlyOnce};
use newtmq_mqtt_sn::{
    Ack, ClientState, Config, Message, MinusOne, Publish, ReturnCode, SnQoS, TopicRef, TopicSpec, WillTopic,
};
use newtmq_node::ShardConfig;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::world::{Device, World, device};

/// Something that happens, as numbers.
type Step = (u8, u8, u8, u8, u8);

const IDS: [&str; 3] = ["a", "b", "newtmq-sn-1"];
const TOPICS: [&str; 8] = ["t", "ab", "a/b", "a/+", "#", "$SYS/x", "pre", "$share/g/t"];
const QOS: [QoS; 3] = [AtMostOnce, AtLeastOnce, ExactlyOnce];

fn message((kind, one, two, three, _): Step) -> Message<'static> {
    let topic = TOPICS[usize::from(one) % TOPICS.len()];
    let qos = QOS[usize::from(two) % 3];
    let msg_id = u16::from(three % 4) + 1;
    let topic_id = u16::from(one % 5);
    let code = ReturnCode::from(two % 5);
    let ack = Ack { topic_id, msg_id: u16::from(three % 5), code };
    let spec = match two % 4 {
        0 => TopicSpec::Predefined(u16::from(one % 3) + 6),
        1 => TopicSpec::Short([b'a', one]),
        _ => TopicSpec::Name(topic),
    };
    let will = (three % 3 > 0).then_some(WillTopic { qos, retain: one % 2 == 0, topic });
    match kind % 24 {
        0..3 => Message::Connect {
            will: one % 3 == 0,
            clean_session: two % 2 == 0,
            duration: u16::from(three % 50) + 1,
            client_id: IDS[usize::from(one / 3) % 3],
        },
        3 => Message::WillTopic(will),
        4 => Message::WillMsg(b"will"),
        5 => Message::Register { topic_id: 0, msg_id, topic },
        6 => Message::Regack(ack),
        7..10 => {
            let topic = match three % 3 {
                0 => TopicRef::Predefined(topic_id + 5),
                1 => TopicRef::Short([b'a', b'b']),
                _ => TopicRef::Normal(topic_id),
            };
            let minus_one = one > 200 && !matches!(topic, TopicRef::Normal(_));
            let sn = if minus_one { SnQoS::MinusOne } else { SnQoS::Mqtt(qos) };
            let msg_id = if minus_one || qos == AtMostOnce { 0 } else { msg_id };
            Message::Publish(Publish { dup: two > 128, qos: sn, retain: one % 7 == 0, topic, msg_id, data: b"data" })
        }
        10 => Message::Puback(ack),
        11 => Message::Pubrec(msg_id),
        12 => Message::Pubrel(msg_id),
        13 => Message::Pubcomp(msg_id),
        14..16 => Message::Subscribe { dup: three > 200, qos, msg_id, topic: spec },
        16 => Message::Unsubscribe { msg_id, topic: spec },
        17..19 => Message::Pingreq((one % 2 == 0).then_some(IDS[usize::from(two) % 3])),
        19 => Message::Disconnect((one % 3 > 0).then_some(u16::from(two))),
        20 => Message::WillTopicUpd(will),
        21 => Message::WillMsgUpd(b"other"),
        22 => Message::SearchGw { radius: one },
        _ => Message::Connack(code),
    }
}

proptest! {
    #[test]
    fn anything_at_any_time(steps in vec(any::<Step>(), 0..120)) {
        let config = Config {
            predefined: vec![(6, "pre".into()), (7, "pre/seven".into())],
            minus_one: MinusOne::Anybody,
            max_topic_ids: 3,
            max_buffer_len: 4,
            retries: 2,
            ..Config::default()
        };
        let mut world = World::with(&config, ShardConfig::default(), 2);
        let m = world.mqtt("m");
        world.mqtt_subscribe(m, "a/#");
        for step in steps {
            let (kind, one, two, three, who) = step;
            match kind {
                0..20 => world.mqtt_publish(m, ["t", "ab", "a/b", "long/topic"][usize::from(one) % 4], &[two; 9], QOS[usize::from(three) % 3], two % 5 == 0),
                20..40 => world.advance(Duration::from_millis(u64::from(one) * u64::from(two))),
                40..44 => { world.mqtt(IDS[usize::from(one) % 2]); }
                _ => {
                    let node = (who % 5 == 0).then(|| vec![who]);
                    let from = Device { gateway: usize::from(who % 9 == 0), node, ..device(u16::from(who % 4) + 1) };
                    world.send(&from, message(step));
                }
            }
            for gateway in &world.gateways {
                for client in gateway.clients() {
                    prop_assert!(client.topics <= 3 && client.waiting <= 6, "{:?}", client);
                    prop_assert!(client.state != ClientState::Connecting, "the broker answers at once: {:?}", client);
                }
            }
        }
        world.advance_secs(600);
        for gateway in &world.gateways {
            prop_assert_eq!((gateway.clients().count(), gateway.handshakes()), (0, 0));
        }
    }
}
