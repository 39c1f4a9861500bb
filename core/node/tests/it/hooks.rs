//! Hooks: events are told, decisions are obeyed, and nobody is asked who does not listen.

use std::rc::Rc;

use core::cell::Cell;

use newtmq_mqtt::PacketType::{Puback, Pubcomp, Pubrec};
use newtmq_mqtt::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use newtmq_mqtt::{OwnedTopicFilter, ReasonCode, TopicFilter};
use newtmq_node::{AclAction, Hook, HookSet, Question, ShardConfig, Traced, Verdict};

use crate::harness::{Connect, Got, Net, Publish, Subscribe, Will, check, check_with};

/// Listens to all hooks.
fn all(config: &mut ShardConfig) {
    config.hooks = Hook::ALL.into_iter().fold(HookSet::default(), HookSet::with);
}

/// The events since the last time: hook, client, topic.
fn told(net: &mut Net) -> Vec<String> {
    net.settle();
    let text = |event: newtmq_node::Event| {
        let topic = event.topic.map_or(String::new(), |topic| format!(" {topic}"));
        format!("{} {}{topic}", event.hook.name(), event.client)
    };
    core::mem::take(&mut net.events).into_iter().map(text).collect()
}

#[test]
fn events_of_a_life() {
    check_with(all, |net| {
        net.decide(|_| Verdict::Allow { data: None });
        let a = net.connect(Connect::v5("a").expiry(10));
        assert_eq!(told(net), ["session.created a", "client.connected a"]);
        net.subscribe(a, "t/#", AtLeastOnce);
        assert_eq!(told(net), ["session.subscribed a t/#"]);
        net.publish(a, Publish::new("t/1", "x").qos1());
        assert_eq!(told(net), ["message.received a t/1", "message.deliver a t/1", "message.acked a"]);
        net.unsubscribe(a, &["t/#", "none"]);
        assert_eq!(told(net), ["client.unsubscribe a t/#", "session.unsubscribed a t/#", "client.unsubscribe a none"]);
        net.hang_up(a);
        assert_eq!(told(net), ["client.disconnected a"]);
        let a = net.connect(Connect::v5("a").resume().expiry(10));
        assert_eq!(told(net), ["session.resumed a", "client.connected a"]);
        let b = net.connect(Connect::v5("a").resume().expiry(10));
        assert_eq!(told(net), ["client.disconnected a", "session.resumed a", "client.connected a"]);
        assert!(net.closed(a));
        net.disconnect(b);
        assert_eq!(told(net), ["client.disconnected a"]);
        net.advance_secs(10);
        assert_eq!(told(net), ["session.terminated a"]);
    });
}

#[test]
fn why_a_client_was_disconnected() {
    check_with(all, |net| {
        net.decide(|_| Verdict::Allow { data: None });
        let a = net.connect(Connect::v5("a"));
        net.send(a, &[0]);
        net.settle();
        let reason = net.events.iter().find(|event| event.hook == Hook::ClientDisconnected).map(|event| event.reason);
        assert_eq!(reason, Some(ReasonCode::MalformedPacket));
    });
}

#[test]
fn nobody_is_asked_who_does_not_listen() {
    check(|net| {
        let a = net.connect(Connect::v5("a").user("u", "p"));
        net.subscribe(a, "t", AtMostOnce);
        net.publish(a, Publish::new("t", "x").qos2());
        assert_eq!(net.received(a), ["t x"]);
        assert_eq!((net.questions.len(), net.events.len()), (0, 0));
    });
}

#[test]
fn each_hook_is_asked_once_with_what_it_is_about() {
    check_with(all, |net| {
        net.decide(|_| Verdict::Allow { data: None });
        let a = net.connect(Connect::v5("a").user("u", "p").will(Will::new(Publish::new("w", ""))));
        net.subscribe_with(a, &Subscribe::new("t", AtMostOnce).and("$share/g/u", AtMostOnce));
        net.publish(a, Publish::new("t", "x"));
        assert_eq!(net.received(a), ["t x"]);
        let client: Box<str> = "a".into();
        let filters: Vec<Box<str>> = vec!["t".into(), "u".into()];
        let acl = |action, topics| Question::CheckAcl {
            peer: ([192, 0, 2, 1], 50_000).into(),
            client: client.clone(),
            username: Some("u".into()),
            action,
            topics,
        };
        let Question::Authenticate { conn, .. } = net.questions[0] else { panic!("{:?}", net.questions) };
        assert_eq!(
            net.questions,
            [
                Question::Authenticate {
                    conn,
                    peer: ([192, 0, 2, 1], 50_000).into(),
                    client: client.clone(),
                    username: Some("u".into()),
                    password: Some(b"p".to_vec().into()),
                    method: None,
                    data: None,
                    will: Some("w".into()),
                },
                acl(AclAction::Subscribe, filters.clone()),
                Question::Subscribe { client: client.clone(), topics: filters },
                acl(AclAction::Publish, vec!["t".into()]),
                Question::Publish { client: client.clone(), topic: "t".into(), payload: b"x".to_vec().into() },
            ]
        );
        let shown = format!("{:?}", net.questions);
        assert!(!shown.contains("password"), "secrets are not shown");
    });
}

#[test]
fn a_publish_that_is_denied() {
    for hook in [Hook::ClientCheckAcl, Hook::MessagePublish] {
        check_with(
            |config| config.hooks = HookSet::default().with(hook).with(Hook::MessageDropped),
            |net| {
                net.decide(move |question| match question {
                    Question::CheckAcl { action: AclAction::Publish, topics, .. } if &*topics[0] == "no" => {
                        Verdict::Deny(ReasonCode::NotAuthorized)
                    }
                    Question::Publish { topic, .. } if &**topic == "no" => {
                        Verdict::Each(vec![ReasonCode::NotAuthorized])
                    }
                    _ => Verdict::Allow { data: None },
                });
                let r = net.connect(Connect::v311("r"));
                net.subscribe(r, "#", ExactlyOnce);
                let a = net.connect(Connect::v5("a"));
                for topic in ["no", "yes"] {
                    net.publish(a, Publish::new(topic, "0").retain());
                    net.publish(a, Publish::new(topic, "1").qos1().id(1));
                    net.publish(a, Publish::new(topic, "2").qos2().id(2));
                    net.settle();
                }
                let (no, yes) = (ReasonCode::NotAuthorized, ReasonCode::Success);
                assert_eq!(
                    net.take(a),
                    [
                        Got::Ack(Puback, 1, no),
                        Got::Ack(Pubrec, 2, no),
                        Got::Ack(Puback, 1, yes),
                        Got::Ack(Pubrec, 2, yes),
                        Got::Ack(Pubcomp, 2, yes)
                    ]
                );
                assert_eq!(net.received(r), ["yes 0", "yes 1", "yes 2"]);
                assert_eq!(net.view().retained_count(), 1);
                assert_eq!(told(net), ["message.dropped a no"; 3]);
                // Before MQTT 5 there is no way to say it: acknowledged, and dropped.
                let old = net.connect(Connect::v311("old").manual());
                net.publish(old, Publish::new("no", "1").qos1().id(1));
                net.publish(old, Publish::new("no", "2").qos2().id(2));
                assert_eq!(net.take(old), [Got::Ack(Puback, 1, yes), Got::Ack(Pubrec, 2, yes)],);
                assert_eq!(net.received(r), [""; 0]);
            },
        );
    }
}

// [MQTT-3.9.3-1]
#[test]
fn subscriptions_that_are_denied() {
    use ReasonCode::{GrantedQoS1, NotAuthorized, QuotaExceeded, Success};
    check_with(
        |config| config.hooks = HookSet::default().with(Hook::ClientCheckAcl).with(Hook::ClientSubscribe),
        |net| {
            net.decide(|question| match question {
                Question::CheckAcl { topics, .. } if topics.iter().any(|topic| &**topic == "some") => {
                    let of = |topic: &str| if topic == "some" { NotAuthorized } else { Success };
                    Verdict::Each(topics.iter().map(|topic| of(topic)).collect())
                }
                Question::CheckAcl { topics, .. } if &*topics[0] == "none" => Verdict::Deny(NotAuthorized),
                Question::Subscribe { topics, .. } if &*topics[0] == "later" => Verdict::Deny(QuotaExceeded),
                _ => Verdict::Allow { data: None },
            });
            let a = net.connect(Connect::v5("a"));
            let rows: [(&[&str], &[ReasonCode]); 4] = [
                (&["a", "b"], &[GrantedQoS1, GrantedQoS1]),
                (&["none", "c"], &[NotAuthorized, NotAuthorized]),
                (&["later", "d"], &[QuotaExceeded, QuotaExceeded]),
                (&["e", "some", "f"], &[GrantedQoS1, NotAuthorized, GrantedQoS1]),
            ];
            for (filters, expected) in rows {
                let subscribe = filters.iter().fold(Subscribe::default(), |all, filter| all.and(filter, AtLeastOnce));
                assert_eq!(net.subscribe_with(a, &subscribe), expected, "{filters:?}");
            }
            assert_eq!(net.view().subscription_count(), 4);
        },
    );
}

#[test]
fn the_second_hook_is_asked_about_what_the_first_left() {
    check_with(
        |config| config.hooks = HookSet::default().with(Hook::ClientCheckAcl).with(Hook::ClientSubscribe),
        |net| {
            let asked = Rc::new(Cell::new(0));
            let count = Rc::clone(&asked);
            net.decide(move |question| match question {
                Question::CheckAcl { .. } => Verdict::Each(vec![ReasonCode::NotAuthorized, ReasonCode::Success]),
                _ => {
                    count.set(count.get() + 1);
                    Verdict::Deny(ReasonCode::QuotaExceeded)
                }
            });
            let a = net.connect(Connect::v5("a"));
            let reasons = net.subscribe_with(a, &Subscribe::new("1", AtMostOnce).and("2", AtMostOnce));
            assert_eq!(reasons, [ReasonCode::NotAuthorized, ReasonCode::QuotaExceeded]);
            assert_eq!(asked.get(), 1);
        },
    );
}

#[test]
fn packets_keep_their_order_over_verdicts() {
    check_with(all, |net| {
        net.decide(|_| Verdict::Allow { data: None });
        let a = net.connect(Connect::v5("a"));
        let r = net.connect(Connect::v5("r"));
        net.subscribe(r, "#", ExactlyOnce);
        for index in 0..40 {
            let qos = [AtMostOnce, AtLeastOnce, ExactlyOnce][index % 3];
            net.publish(a, Publish::new("t", index.to_string()).qos(qos));
            if index % 7 == 0 {
                net.ping(a);
            }
        }
        assert_eq!(net.received(r), (0..40).map(|index| format!("t {index}")).collect::<Vec<_>>());
    });
}

#[test]
fn a_client_that_goes_while_a_question_is_open() {
    check_with(all, |net| {
        net.decide(|_| Verdict::Allow { data: None });
        for round in 0..6 {
            let a = net.start(Connect::v5("a").expiry(100).clean_start(round % 2 == 0));
            if round > 2 {
                net.settle();
                net.send_subscribe(a, &Subscribe::new("t", AtLeastOnce));
                net.publish(a, Publish::new("t", "x").qos2());
            }
            net.advance(core::time::Duration::from_micros(700 * round));
            if round % 3 == 0 { net.cut(a) } else { net.hang_up(a) }
        }
        net.settle();
        assert_eq!(net.view().connection_count(), 0);
    });
}

/// A traced client or topic is told of, and nobody else; when the trace ends nobody is.
#[test]
fn traces() {
    check(|net| {
        let [a, b] = ["a", "b"].map(|client| net.connect(Connect::v5(client).expiry(10)));
        net.subscribe(a, "t/#", AtLeastOnce);
        net.subscribe(b, "u", AtLeastOnce);
        let topic = OwnedTopicFilter::from(TopicFilter::new("t/+").unwrap());
        net.trace(vec![Traced::Topic(topic), Traced::Client("b".into())]);
        net.publish(a, Publish::new("t/1", "x").qos1());
        net.publish(a, Publish::new("other", "x"));
        assert_eq!(told(net), ["message.received a t/1", "message.deliver a t/1"]);
        net.publish(a, Publish::new("u", "x").qos1());
        assert_eq!(told(net), ["message.deliver b u", "message.acked b"], "what happens to a client");
        net.publish(b, Publish::new("nobody", "x"));
        assert_eq!(told(net), ["message.received b nobody", "message.dropped b nobody"]);
        net.hang_up(a);
        net.publish(b, Publish::new("t/2", "x").qos1());
        net.settle();
        let fates: Vec<_> = net.events.iter().map(|event| (event.hook, event.qos, event.waits, event.traced)).collect();
        let qos = Some(AtLeastOnce);
        let deliver = (Hook::MessageDeliver, qos, true, true);
        assert_eq!(fates, [(Hook::MessageReceived, qos, false, true), deliver], "it waits for a client that is away");
        net.events.clear();
        net.trace(Vec::new());
        net.publish(b, Publish::new("t/3", "x").qos1());
        net.hang_up(b);
        assert_eq!(told(net), [""; 0]);
    });
}
