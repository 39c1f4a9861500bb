//! Mountpoints, and User Names as Client Identifiers.

use newtmq_mqtt::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use newtmq_mqtt::ReasonCode;
use newtmq_node::{Hook, HookSet, ListenerConfig, Question, ShardConfig, Verdict};

use crate::harness::{Client, Connect, Net, Publish, Subscribe, Will, check, check_with};

/// Listener 0 has the mountpoint; listener 1 has none.
fn mounted(mountpoint: &'static str) -> impl Fn(&mut ShardConfig) {
    move |config| {
        config.zones.push(config.zones[0].clone());
        config.zones[0].mountpoint = mountpoint.into();
        config.listeners.push(ListenerConfig { zone: 1, ..ListenerConfig::default() });
    }
}

/// A client of the listener without a mountpoint.
fn plain(net: &mut Net, connect: Connect) -> Client {
    net.listener = 1;
    let client = net.connect(connect);
    net.listener = 0;
    client
}

#[test]
fn topics_are_mounted_both_ways() {
    for version in [Connect::v311("a"), Connect::v5("a")] {
        check_with(mounted("dev/%c/"), |net| {
            let a = net.connect(version.clone());
            let same = net.connect(Connect::v5("b"));
            let spy = plain(net, Connect::v5("spy"));
            for (client, filter) in [(a, "#"), (same, "#"), (spy, "#")] {
                net.subscribe(client, filter, ExactlyOnce);
            }
            for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
                net.publish(a, Publish::new("t/1", "x").qos(qos));
                net.publish(a, Publish::new("t/1", "y").qos(qos));
                assert_eq!(net.received(a), ["t/1 x", "t/1 y"]);
                assert_eq!(net.received(spy), ["dev/a/t/1 x", "dev/a/t/1 y"]);
                assert_eq!(net.received(same), [""; 0]);
                net.publish(spy, Publish::new("dev/a/u", "z").qos(qos));
                assert_eq!((net.received(a), net.received(spy)), (vec!["u z".into()], vec!["dev/a/u z".into()]));
            }
        });
    }
}

/// What a client calls by the mounted name is another topic, though the mounted one was matched just before.
#[test]
fn a_topic_that_looks_like_a_mounted_one() {
    check_with(mounted("m/"), |net| {
        let a = net.connect(Connect::v5("a"));
        let spy = plain(net, Connect::v5("spy"));
        net.subscribe(spy, "#", AtMostOnce);
        for topic in ["t", "m/t", "t", "m/t"] {
            net.publish(a, Publish::new(topic, ""));
        }
        assert_eq!(net.received(spy), ["m/t ", "m/m/t ", "m/t ", "m/m/t "]);
    });
}

#[test]
fn large_payloads_identifiers_and_aliases() {
    check_with(mounted("m/"), |net| {
        let a = net.connect(Connect::v5("a").alias_maximum(4));
        net.subscribe_with(a, &Subscribe::new("t/#", AtMostOnce).identifier(7));
        let b = net.connect(Connect::v311("b"));
        net.subscribe(b, "t/#", AtMostOnce);
        for index in 0..3 {
            let topic = if index == 0 { "t/1" } else { "" };
            net.publish(a, Publish::new(topic, vec![b'x'; 5000]).alias(2).user("k", "v"));
            let message = net.one_message(a);
            assert_eq!((message.publish.topic.as_str(), message.identifiers), ("t/1", vec![7]));
            assert_eq!(message.publish.payload.len(), 5000);
            assert_eq!(net.one_message(b).publish.topic, "t/1");
        }
    });
}

// [MQTT-3.3.4-2] [MQTT-3.8.4-3]
#[test]
fn subscriptions_are_found_by_the_client_s_name_for_them() {
    check_with(mounted("m/"), |net| {
        let a = net.connect(Connect::v5("a").resume());
        net.subscribe(a, "t/+", AtLeastOnce);
        net.subscribe(a, "t/#", AtMostOnce);
        net.subscribe(a, "t/#", AtMostOnce);
        assert_eq!(net.view().subscription_count(), 2);
        net.publish(a, Publish::new("t/1", "x").qos1());
        assert_eq!(net.received(a), ["t/1 x"]);
        net.cut(a);
        let a = net.connect(Connect::v5("a").resume());
        let (yes, no) = (ReasonCode::Success, ReasonCode::NoSubscriptionExisted);
        assert_eq!(net.unsubscribe(a, &["t/+", "m/t/#", "t/#"]), [yes, no, yes]);
        assert_eq!(net.view().subscription_count(), 0);
    });
}

#[test]
fn a_shared_subscription_is_mounted_behind_its_group() {
    check_with(mounted("m/"), |net| {
        let a = net.connect(Connect::v5("a"));
        let b = plain(net, Connect::v5("b"));
        for filter in ["$share/g/t", "$queue/u"] {
            net.subscribe(a, filter, AtMostOnce);
        }
        net.allow(a, &["t".into(), "u".into()]);
        net.subscribe(b, "$share/g/m/t", AtMostOnce);
        net.disconnect(b);
        let w = net.connect(Connect::v5("w"));
        net.publish(w, Publish::new("t", "1"));
        net.publish(w, Publish::new("u", "2"));
        assert_eq!(net.received(a), ["t 1", "u 2"]);
        let yes = ReasonCode::Success;
        assert_eq!(net.unsubscribe(a, &["$share/g/t", "$queue/u"]), [yes, yes]);
    });
}

#[test]
fn retained_messages_and_wills_are_mounted() {
    check_with(mounted("m/"), |net| {
        let a = net.connect(Connect::v311("a").will(Will::new(Publish::new("gone", "w").retain())));
        net.publish(a, Publish::new("t", "r").retain());
        net.settle();
        net.cut(a);
        let spy = plain(net, Connect::v5("spy"));
        net.subscribe(spy, "#", AtMostOnce);
        let mut got = net.received(spy);
        got.sort();
        assert_eq!(got, ["m/gone w", "m/t r"]);
        let b = net.connect(Connect::v5("b"));
        net.subscribe(b, "t", AtMostOnce);
        net.subscribe(b, "gone", AtLeastOnce);
        assert_eq!(net.received(b), ["t r", "gone w"]);
        net.publish(b, Publish::new("t", "").retain());
        net.settle();
        assert_eq!(net.view().retained_count(), 1);
    });
}

#[test]
fn what_is_not_below_the_mountpoint_keeps_its_name() {
    check_with(mounted("m/"), |net| {
        let a = net.connect(Connect::v5("a"));
        net.subscribe(a, "#", AtMostOnce);
        let w = plain(net, Connect::v5("w"));
        net.publish(w, Publish::new("m", "parent"));
        net.publish(w, Publish::new("m/", "empty"));
        assert_eq!(net.received(a), ["m parent", "m/ empty"]);
    });
}

#[test]
fn limits_count_what_the_client_writes() {
    let configure = |config: &mut ShardConfig| {
        mounted("one/two/three/")(config);
        config.mqtt.max_topic_levels = 2;
        config.zones[0].max_subscriptions = 1;
    };
    check_with(configure, |net| {
        let a = net.connect(Connect::v5("a"));
        net.subscribe(a, "t/+", AtMostOnce);
        net.subscribe(a, "t/+", AtLeastOnce);
        assert_eq!(net.subscribe_with(a, &Subscribe::new("u", AtMostOnce)), [ReasonCode::QuotaExceeded]);
        net.publish(a, Publish::new("t/1", ""));
        assert_eq!(net.received(a), ["t/1 "]);
        let long = "x".repeat(65_530);
        assert_eq!(net.subscribe_with(a, &Subscribe::new(&long, AtMostOnce)), [ReasonCode::TopicFilterInvalid]);
        let will = Connect::v5("b").will(Will::new(Publish::new(&long, "")));
        assert_eq!(net.refused(will), ReasonCode::TopicNameInvalid);
        net.publish(a, Publish::new(&long, ""));
        assert_eq!(net.kicked(a), ReasonCode::TopicNameInvalid);
    });
}

#[test]
fn names_are_put_in_unless_they_are_wildcards() {
    check_with(mounted("%u/%c/"), |net| {
        let spy = plain(net, Connect::v5("spy"));
        net.subscribe(spy, "#", AtMostOnce);
        for connect in [Connect::v5("a").user("me", ""), Connect::v311("b")] {
            let client = net.connect(connect);
            net.publish(client, Publish::new("t", ""));
            net.settle();
        }
        assert_eq!(net.received(spy), ["me/a/t ", "%u/b/t "]);
        assert_eq!(net.refused(Connect::v5("#")), ReasonCode::ClientIdentifierNotValid);
        assert_eq!(net.refused(Connect::v5("a/+")), ReasonCode::ClientIdentifierNotValid);
        assert_eq!(net.refused(Connect::v5("a").user("+", "")), ReasonCode::BadUserNameOrPassword);
    });
}

#[test]
fn access_is_asked_for_the_client_s_topic_and_messages_are_told_with_the_mounted_one() {
    let configure = |config: &mut ShardConfig| {
        mounted("m/")(config);
        config.hooks = HookSet::default().with(Hook::ClientCheckAcl).with(Hook::MessagePublish);
        config.hooks = config.hooks.with(Hook::SessionSubscribed).with(Hook::MessageDropped);
    };
    check_with(configure, |net| {
        net.decide(|_| Verdict::Allow { data: None });
        let a = net.connect(Connect::v5("a"));
        net.subscribe(a, "t", AtMostOnce);
        net.publish(a, Publish::new("u", ""));
        net.settle();
        let topic = |question: &Question| match question {
            Question::CheckAcl { topics, .. } => format!("acl {}", topics[0]),
            Question::Publish { topic, .. } => format!("publish {topic}"),
            other => panic!("{other:?}"),
        };
        assert_eq!(net.questions.iter().map(topic).collect::<Vec<_>>(), ["acl t", "acl u", "publish m/u"]);
        let told: Vec<_> = net.events.iter().map(|event| event.topic.as_deref().unwrap()).collect();
        assert_eq!(told, ["m/t", "m/u"]);
    });
}

#[test]
fn a_user_name_can_be_the_client_identifier() {
    check_with(
        |config| {
            config.zones[0].use_username_as_clientid = true;
            config.hooks = HookSet::default().with(Hook::ClientAuthenticate);
            config.mqtt.max_clientid_len = 30;
        },
        |net| {
            net.decide(|_| Verdict::Allow { data: None });
            let (_, connack) = net.connect_with(Connect::v5("ignored").user("me", ""));
            assert_eq!((connack.assigned, net.view().session_is_connected("me")), (None, Some(true)));
            let Question::Authenticate { client, .. } = &net.questions[0] else { panic!("asked something else") };
            assert_eq!(&**client, "me");
            let (_, connack) = net.connect_with(Connect::v5("").user("you", ""));
            assert_eq!(connack.assigned.as_deref(), Some("you"), "[MQTT-3.2.2-16]");
            net.connect(Connect::v311("").clean_start(false).user("they", ""));
            net.connect(Connect::v5("own"));
            assert_eq!(net.view().session_is_connected("own"), Some(true), "without a User Name");
            let long = Connect::v5("x").user(&"x".repeat(31), "");
            assert_eq!(net.refused(long), ReasonCode::ClientIdentifierNotValid);
        },
    );
    check(|net| {
        net.connect(Connect::v5("a").user("me", ""));
        assert_eq!(net.view().session_is_connected("me"), None);
    });
}

/// A name must not make the mountpoint mean something else: `$share/…` would be a shared subscription of other clients'
/// topics, and `$SYS/…` is the server's.
#[test]
fn names_that_would_leave_their_mountpoint() {
    check_with(mounted("%c/"), |net| {
        for client in ["$share", "$queue", "$SYS", "$SYS/brokers"] {
            assert_eq!(net.refused(Connect::v5(client)), ReasonCode::ClientIdentifierNotValid, "{client}");
        }
        net.connect(Connect::v5("a$"));
        plain(net, Connect::v5("$share"));
    });
    check_with(mounted("%u/"), |net| {
        let connect = Connect::v5("a").user("$share", "");
        assert_eq!(net.refused(connect), ReasonCode::BadUserNameOrPassword);
    });
    check_with(mounted("$m/%c/"), |net| {
        net.connect(Connect::v5("$share"));
    });
}
