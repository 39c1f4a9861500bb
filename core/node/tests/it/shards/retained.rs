//! Retained messages while they change: what comes live and what is read must fit together, wherever the publisher, the
//! subscriber and the owner of the topic are.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use newtmq_mqtt::QoS::AtMostOnce;
use newtmq_mqtt::{QoS, RetainHandling};

use crate::harness::{Client, Connect, Message, Net, Publish, Subscribe, check_shards, check_shards_heavy};

const TOPICS: usize = 5;
const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

/// Says which message it is; a deletion has no payload to say it with.
fn number(message: &Message) -> u64 {
    message.publish.user[0].1.parse().unwrap()
}

fn publish(net: &mut Net, client: Client, topic: usize, number: u64, delete: bool) {
    let payload = if delete { "" } else { "x" };
    let qos = QOS[net.below(3)];
    let publish = Publish::new(&format!("r/{topic}"), payload).retain().qos(qos).user("n", &number.to_string());
    net.publish(client, publish);
}

fn by_topic(messages: Vec<Message>) -> BTreeMap<String, Vec<(u64, bool)>> {
    let mut topics: BTreeMap<String, Vec<(u64, bool)>> = BTreeMap::new();
    for message in messages {
        let topic = topics.entry(message.publish.topic.clone()).or_default();
        topic.push((number(&message), message.publish.retain));
    }
    topics
}

fn subscribe(net: &mut Net, client: Client) {
    let handling = [RetainHandling::SendAtSubscribe, RetainHandling::SendIfNew][net.below(2)];
    let qos = QOS[net.below(3)];
    let subscribe = match net.below(3) {
        0 => {
            (0..TOPICS).fold(Subscribe::default(), |all, topic| all.and(&format!("r/{topic}"), qos).handling(handling))
        }
        1 => Subscribe::new("r/+", qos).handling(handling),
        _ => Subscribe::new("#", qos).handling(handling),
    };
    net.send_subscribe(client, &subscribe);
}

/// Publishes of random topics while subscribers come; `publisher_of` says who may publish to a topic.
fn race(net: &mut Net, per_topic: usize) -> (Vec<Client>, Vec<(u64, bool)>) {
    if net.below(3) == 0 {
        net.work_delay = Some(Duration::from_millis(2));
    }
    let mut publishers = Vec::new();
    for index in 0..TOPICS * per_topic {
        let id = net.id_at(index % net.shards(), &format!("p{index}"));
        publishers.push(net.connect(Connect::v5(&id)));
    }
    let (mut last, mut subscribers, mut next) = (vec![(0, false); TOPICS], Vec::new(), 0);
    for _ in 0..80 {
        match net.below(6) {
            0 if subscribers.len() < 8 => {
                let shard = net.below(net.shards());
                let id = net.id_at(shard, &format!("s{}", subscribers.len()));
                let client = net.start(Connect::v5(&id));
                subscribe(net, client);
                subscribers.push(client);
            }
            1 => net.wait_below(1500),
            2 => net.wait_below(200),
            _ => {
                let topic = net.below(TOPICS);
                let publisher = publishers[topic + TOPICS * net.below(per_topic)];
                next += 1;
                let delete = net.below(6) == 0;
                publish(net, publisher, topic, next, delete);
                last[topic] = (next, delete);
            }
        }
    }
    net.settle();
    (subscribers, last)
}

#[test]
fn values_of_one_publisher_come_in_order_once_and_to_the_last() {
    check_shards(
        &[2, 3, 4, 7],
        40,
        |_| {},
        |net| {
            let (subscribers, last) = race(net, 1);
            for client in subscribers {
                let topics = by_topic(net.messages(client));
                for (topic, (last, deleted)) in last.iter().enumerate() {
                    let got = topics.get(&format!("r/{topic}")).cloned().unwrap_or_default();
                    let increasing = got.windows(2).all(|pair| pair[0].0 < pair[1].0);
                    assert!(increasing, "{client:?} r/{topic} {got:?}");
                    match got.last() {
                        Some((number, _)) => assert_eq!(number, last, "{client:?} r/{topic} {got:?}"),
                        None => assert!(*deleted || *last == 0, "{client:?} r/{topic}: nothing, last {last}"),
                    }
                }
            }
        },
    );
}

// Messages of several publishers have no common order on their ways to a subscriber and to the owner of the topic. What
// came live may come once more as the retained one, if the owner got it after something else that came live.
#[test]
fn values_of_several_publishers_come_once_live_and_once_retained() {
    check_shards(
        &[2, 4],
        40,
        |_| {},
        |net| {
            let (subscribers, _) = race(net, 3);
            let fresh = net.connect(Connect::v5("fresh"));
            net.subscribe(fresh, "#", AtMostOnce);
            let kept = by_topic(net.messages(fresh));
            for client in subscribers {
                let all = by_topic(net.messages(client));
                for (topic, got) in &all {
                    let different: BTreeSet<&(u64, bool)> = got.iter().collect();
                    assert_eq!(different.len(), got.len(), "{client:?} {topic} {got:?}");
                    assert!(got.windows(2).all(|pair| pair[0].0 != pair[1].0), "{client:?} {topic} {got:?}");
                }
                for (topic, kept) in &kept {
                    let has_it = all.get(topic).is_some_and(|got| got.iter().any(|(number, _)| *number == kept[0].0));
                    assert!(has_it, "{client:?} {topic} {all:?} {kept:?}");
                }
            }
        },
    );
}

fn retained(net: &mut Net, publisher: Client, count: usize) -> Vec<String> {
    let all = (0..count).map(|index| {
        net.publish(publisher, Publish::new(&format!("r/{index}"), "x").retain());
        format!("r/{index} x")
    });
    let mut all: Vec<String> = all.collect();
    all.sort_unstable();
    all
}

#[test]
fn a_filter_that_a_subscribe_names_twice_is_read_once() {
    check_shards(
        &[1, 2, 4, 7],
        10,
        |_| {},
        |net| {
            let w = net.connect(Connect::v5("w"));
            let all = retained(net, w, 100);
            let r = net.connect(Connect::v5("r"));
            net.subscribe_with(r, &Subscribe::new("#", AtMostOnce).and("#", AtMostOnce).and("#", AtMostOnce));
            let mut got = net.received(r);
            got.sort_unstable();
            assert_eq!(got, all);
        },
    );
}

#[test]
fn a_filter_named_twice_by_a_client_that_does_not_read() {
    check_shards_heavy(
        &[1, 2, 4],
        3,
        |_| {},
        |net| {
            let w = net.connect(Connect::v5("w"));
            for index in 0..40 {
                net.publish(w, Publish::new(&format!("r/{index}"), vec![b'x'; 30_000]).retain());
            }
            let r = net.connect(Connect::v5("r"));
            net.pause(r);
            net.send_subscribe(r, &Subscribe::new("r/+", AtMostOnce).and("r/+", AtMostOnce).and("r/+", AtMostOnce));
            net.settle();
            net.unpause(r);
            assert_eq!(net.messages(r).len(), 40);
        },
    );
}

// [MQTT-3.8.4-3]
#[test]
fn what_came_live_during_one_reading_comes_again_with_a_later_one() {
    check_shards_heavy(
        &[1, 2, 4],
        6,
        |_| {},
        |net| {
            let w = net.connect(Connect::v5("w"));
            for index in 0..40 {
                net.publish(w, Publish::new(&format!("r/{index}"), vec![b'x'; 30_000]).retain());
            }
            let r = net.connect(Connect::v5("r"));
            net.pause(r);
            net.send_subscribe(r, &Subscribe::new("r/+", AtMostOnce));
            net.settle();
            // The reading is not finished: the client takes nothing.
            net.send_subscribe(r, &Subscribe::new("live", AtMostOnce));
            net.settle();
            net.publish(w, Publish::new("live", "y").retain());
            net.settle();
            net.send_subscribe(r, &Subscribe::new("live", AtMostOnce));
            net.settle();
            net.unpause(r);
            let live = net.received(r).iter().filter(|text| text.as_str() == "live y").count();
            assert_eq!(live, 2, "once as it was published, once for the second SUBSCRIBE");
        },
    );
}
