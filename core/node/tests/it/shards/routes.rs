//! Subscriptions that every shard knows: no publish after a SUBACK is missed, and each comes once and in order.

use std::collections::BTreeMap;

use newtmq_mqtt::QoS;
use newtmq_mqtt::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};

use crate::harness::{Client, Connect, Got, Net, Publish, Subscribe, check_shards};

const SHARDS: [u16; 4] = [2, 3, 4, 7];
const QOS: [QoS; 3] = [AtMostOnce, AtLeastOnce, ExactlyOnce];

fn connect_at(net: &mut Net, shard: usize, name: &str) -> Client {
    let id = net.id_at(shard, name);
    net.connect(Connect::v5(&id))
}

/// Filters that overlap, and topics.
const FILTERS: [&str; 6] = ["a/b", "a/+", "a/#", "+/b", "#", "a/c"];
const TOPICS: [&str; 3] = ["a/b", "a/c", "d/b"];

fn matches(filter: &str, topic: &str) -> bool {
    newtmq_mqtt::TopicFilter::new(filter).unwrap().matches(newtmq_mqtt::TopicName::new(topic).unwrap())
}

/// What a client has subscribed to, as far as it knows: SUBACK has come, UNSUBSCRIBE was not sent.
#[derive(Default)]
struct Known {
    filters: Vec<&'static str>,
    /// Packet Identifier → filter.
    asked: BTreeMap<u16, &'static str>,
    /// Publishes that it has to get.
    owed: Vec<String>,
    got: Vec<String>,
}

impl Known {
    fn hear(&mut self, log: Vec<Got>) {
        for got in log {
            match got {
                Got::Suback(id, _) => {
                    let filter = self.asked.remove(&id).unwrap();
                    self.filters.push(filter);
                }
                Got::Publish(message) => self.got.push(message.text()),
                _ => {}
            }
        }
    }
}

#[test]
fn after_suback_every_publish_of_anybody_comes() {
    check_shards(
        &SHARDS,
        40,
        |_| {},
        |net| {
            let shards = net.shards();
            let clients: Vec<Client> = (0..6).map(|n| connect_at(net, n % shards, &format!("s{n}"))).collect();
            let writers: Vec<Client> = (0..shards).map(|shard| connect_at(net, shard, "w")).collect();
            let mut known: Vec<Known> = clients.iter().map(|_| Known::default()).collect();
            for number in 0..200 {
                let at = net.below(clients.len());
                let (client, filter) = (clients[at], FILTERS[net.below(FILTERS.len())]);
                match net.below(6) {
                    0 | 1 => {
                        let id = net.send_subscribe(client, &Subscribe::new(filter, AtLeastOnce));
                        known[at].asked.insert(id, filter);
                    }
                    2 => {
                        // Whatever was asked for before may be gone.
                        known[at].hear(net.take_now(client));
                        known[at].filters.retain(|other| *other != filter);
                        let pending = known[at].asked.values().any(|other| *other == filter);
                        if !pending {
                            // It may overtake what is under way.
                            let Known { owed, got, .. } = &mut known[at];
                            owed.retain(|owed| got.contains(owed));
                            net.send_unsubscribe(client, &[filter]);
                        }
                    }
                    3 => net.wait_below(1500),
                    _ => {
                        for (client, known) in clients.iter().zip(&mut known) {
                            known.hear(net.take_now(*client));
                        }
                        let topic = TOPICS[net.below(3)];
                        for known in &mut known {
                            if known.filters.iter().any(|filter| matches(filter, topic)) {
                                known.owed.push(format!("{topic} {number}"));
                            }
                        }
                        let writer = writers[net.below(shards)];
                        net.publish(writer, Publish::new(topic, number.to_string()).qos1());
                    }
                }
            }
            net.settle();
            for (client, mut known) in clients.into_iter().zip(known) {
                known.hear(net.take_now(client));
                for owed in &known.owed {
                    assert!(known.got.contains(owed), "{client:?} has not got {owed}");
                }
                let got = known.got.len();
                known.got.sort_unstable();
                known.got.dedup();
                assert_eq!(known.got.len(), got, "{client:?} got something twice");
            }
        },
    );
}

#[test]
fn each_publisher_is_heard_in_order_once_by_overlapping_subscriptions() {
    check_shards(
        &SHARDS,
        15,
        |_| {},
        |net| {
            let shards = net.shards();
            let subscribers: Vec<Client> = (0..5)
                .map(|n| {
                    let client = connect_at(net, n % shards, &format!("s{n}"));
                    let qos = QOS[n % 3];
                    let all = Subscribe::new("a/b", qos).and("a/+", qos).and("#", AtLeastOnce.max(qos));
                    net.subscribe_with(client, &all);
                    client
                })
                .collect();
            let writers: Vec<Client> = (0..shards).map(|shard| connect_at(net, shard, "w")).collect();
            for number in 0..100 {
                let at = net.below(shards);
                let publish = Publish::new(TOPICS[net.below(2)], format!("{at} {number:03}")).qos(QOS[net.below(3)]);
                let publish = if net.below(3) == 0 { publish.retain() } else { publish };
                net.publish(writers[at], publish);
                if net.below(5) == 0 {
                    net.wait_below(1000);
                }
            }
            for client in subscribers {
                let messages = net.messages(client);
                assert_eq!(messages.len(), 100);
                for qos in QOS {
                    for writer in 0..shards {
                        let prefix = format!("{writer} ");
                        let texts = messages.iter().filter(|message| message.publish.qos == qos);
                        let texts = texts.map(|message| String::from_utf8_lossy(&message.publish.payload).into_owned());
                        let texts: Vec<String> = texts.filter(|text| text.starts_with(&prefix)).collect();
                        assert!(texts.is_sorted(), "{client:?} {texts:?}");
                    }
                }
            }
        },
    );
}

#[test]
fn a_fan_out_in_steps_at_another_shard_keeps_the_order() {
    const SUBSCRIBERS: usize = 4_200;
    check_shards_heavy_once(|net| {
        let mut subscribers = Vec::new();
        for number in 0..SUBSCRIBERS {
            let id = net.id_at(1, &format!("s{number}"));
            let subscribe =
                Subscribe::new("t", AtMostOnce).and("+", AtLeastOnce).encode(1, newtmq_mqtt::ProtocolVersion::V5);
            let client = net.start(Connect::v5(&id).and_then(subscribe));
            net.allow(client, &["t".into(), "+".into()]);
            net.expect_suback(client, 1);
            subscribers.push(client);
        }
        net.settle();
        for client in &subscribers {
            net.take_now(*client);
        }
        let here = connect_at(net, 1, "here");
        let writers = [connect_at(net, 0, "w"), here];
        for index in 0..12 {
            let publish = Publish::new("t", format!("{index:02}")).qos(QOS[index % 2]);
            let publish = if index % 3 == 0 { publish.retain() } else { publish };
            net.publish(writers[index / 2 % 2], publish);
        }
        net.settle();
        for client in subscribers {
            let got = net.received(client);
            assert_eq!(got.len(), 12, "{got:?}");
            for of in 0..2 {
                for qos in 0..2 {
                    let mine = |index: &usize| index / 2 % 2 == of && index % 2 == qos;
                    let expected: Vec<String> = (0..12).filter(mine).map(|index| format!("t {index:02}")).collect();
                    let order: Vec<&String> = got.iter().filter(|text| expected.contains(text)).collect();
                    assert!(order.is_sorted(), "{order:?}");
                }
            }
        }
    });
}

fn check_shards_heavy_once(test: impl Fn(&mut Net)) {
    crate::harness::check_shards_heavy(&[2], 1, |_| {}, test);
}
