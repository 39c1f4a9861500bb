//! What the rules of `acl.conf` let through, and what becomes of the rest.

use core::time::Duration;
use std::rc::Rc;
use std::sync::Arc;

use core::cell::Cell;

use newtmq_access::{Acl, AclCacheLimits, Permission};
use newtmq_mqtt::PacketType::{Puback, Pubcomp, Pubrec};
use newtmq_mqtt::QoS::{AtLeastOnce, AtMostOnce};
use newtmq_mqtt::ReasonCode::{self, GrantedQoS1, NotAuthorized, Success};
use newtmq_node::{AccessConfig, DenyAction, Hook, HookSet, Question, ShardConfig, Verdict};

use crate::harness::{Connect, Got, Net, Publish, Subscribe, Will, check_with};

fn rules(text: &str) -> AccessConfig {
    AccessConfig { acl: Some(Arc::new(Acl::parse(text).unwrap())), ..AccessConfig::default() }
}

/// With and without a cache: nobody may see a difference.
fn with_rules(text: &'static str, test: impl Fn(&mut Net)) {
    for cache in [None, Some(AclCacheLimits { max_size: 2, ttl: Duration::from_secs(60) })] {
        check_with(|config| config.access = AccessConfig { cache, ..rules(text) }, &test);
    }
}

/// `no/…` is forbidden to everybody.
const NO: &str = r##"{deny, all, pubsub, ["no/#"]}. {allow, all}."##;

// [MQTT-3.3.5-2]
#[test]
fn a_publish_that_is_denied_is_answered_and_dropped() {
    with_rules(NO, |net| {
        let r = net.connect(Connect::v5("r"));
        net.subscribe(r, "+/#", AtLeastOnce);
        let a = net.connect(Connect::v5("a"));
        for topic in ["no/1", "yes", "no/1", "yes"] {
            net.publish(a, Publish::new(topic, "0").retain());
            net.publish(a, Publish::new(topic, "1").qos1().id(1));
            net.publish(a, Publish::new(topic, "2").qos2().id(2));
            net.settle();
        }
        let denied = [Got::Ack(Puback, 1, NotAuthorized), Got::Ack(Pubrec, 2, NotAuthorized)];
        let accepted = [Got::Ack(Puback, 1, Success), Got::Ack(Pubrec, 2, Success), Got::Ack(Pubcomp, 2, Success)];
        let once = denied.into_iter().chain(accepted);
        assert_eq!(net.take(a), once.clone().chain(once).collect::<Vec<_>>());
        assert_eq!(net.received(r), ["yes 0", "yes 1", "yes 2", "yes 0", "yes 1", "yes 2"]);
        assert_eq!((net.view().retained_count(), net.ledger().denied), (1, 6));
        // Before MQTT 5 there is no way to say it: acknowledged, and dropped.
        let old = net.connect(Connect::v311("old").manual());
        net.publish(old, Publish::new("no", "1").qos1().id(1));
        net.publish(old, Publish::new("no", "2").qos2().id(2));
        assert_eq!(net.take(old), [Got::Ack(Puback, 1, Success), Got::Ack(Pubrec, 2, Success)]);
        assert_eq!(net.received(r), [""; 0]);
    });
}

/// The match of a topic is found again without its name being looked at twice. Another topic that takes its place must
/// not profit from what the first one was permitted.
#[test]
fn a_permission_is_for_one_topic_only() {
    with_rules(r##"{allow, all, pubsub, ["a", "b", "r/#"]}. {deny, all}."##, |net| {
        let a = net.connect(Connect::v5("a"));
        let b = net.connect(Connect::v5("b").alias_maximum(5));
        for (client, topic, reason) in [
            (a, "a", Success),
            (a, "a", Success),
            (a, "x", NotAuthorized),
            (a, "a", Success),
            (b, "b", Success),
            (b, "x", NotAuthorized),
            (b, "x", NotAuthorized),
            (b, "b", Success),
        ] {
            net.publish(client, Publish::new(topic, "").qos1().id(7));
            let reason = if reason == Success { ReasonCode::NoMatchingSubscribers } else { reason };
            assert_eq!(net.take(client), [Got::Ack(Puback, 7, reason)], "{topic}");
        }
        // A Topic Alias is no way around it.
        net.publish(b, Publish::new("x", "").alias(1).qos1().id(7));
        net.publish(b, Publish::new("", "").alias(1).qos1().id(8));
        assert_eq!(net.take(b), [Got::Ack(Puback, 7, NotAuthorized), Got::Ack(Puback, 8, NotAuthorized)]);
    });
}

// [MQTT-3.9.3-1]
#[test]
fn subscriptions_that_are_denied() {
    with_rules(NO, |net| {
        let a = net.connect(Connect::v5("a"));
        let subscribe = Subscribe::new("a", AtLeastOnce).and("no/+", AtLeastOnce).and("$share/g/no/1", AtLeastOnce);
        let subscribe = subscribe.and("$share/g/b", AtLeastOnce);
        assert_eq!(net.subscribe_with(a, &subscribe), [GrantedQoS1, NotAuthorized, NotAuthorized, GrantedQoS1]);
        let old = net.connect(Connect::v311("old"));
        let reasons = net.subscribe_with(old, &Subscribe::new("no/1", AtMostOnce).and("a", AtMostOnce));
        assert_eq!(reasons, [ReasonCode::UnspecifiedError, ReasonCode::GRANTED_QOS_0]);
        assert_eq!((net.view().subscription_count(), net.ledger().denied), (3, 3));
        // Leaving is always allowed.
        assert_eq!(net.unsubscribe(a, &["no/+", "a"]), [ReasonCode::NoSubscriptionExisted, Success]);
    });
}

#[test]
fn denied_clients_may_be_disconnected() {
    let configure = |config: &mut ShardConfig| {
        config.access = AccessConfig { deny_action: DenyAction::Disconnect, ..rules(NO) };
    };
    check_with(configure, |net| {
        for qos in [AtMostOnce, AtLeastOnce] {
            let a = net.connect(Connect::v5("a"));
            net.publish(a, Publish::new("no", "").qos(qos));
            assert_eq!(net.kicked(a), NotAuthorized);
        }
        let b = net.connect(Connect::v5("b"));
        net.send_subscribe(b, &Subscribe::new("yes", AtMostOnce).and("no", AtMostOnce));
        assert_eq!(net.kicked(b), NotAuthorized);
        let old = net.connect(Connect::v311("old"));
        net.publish(old, Publish::new("no", ""));
        assert_eq!(net.take(old), [Got::Closed]);
        assert_eq!(net.view().subscription_count(), 0);
    });
}

#[test]
fn who_the_rules_are_about() {
    let text = r##"
        {allow, {user, "u"}, pubsub, ["user/%u/#"]}.
        {allow, {client, "a"}, pubsub, ["client/%c"]}.
        {allow, {ipaddr, "192.0.2.0/24"}, pubsub, ["near"]}.
        {allow, {ipaddr, "198.51.100.0/24"}, pubsub, ["far"]}.
        {deny, all}.
    "##;
    with_rules(text, |net| {
        let a = net.connect(Connect::v5("a").user("u", "p"));
        let b = net.connect(Connect::v311("b"));
        let filters = ["user/u/#", "user/v/#", "client/a", "client/b", "near", "far"];
        let subscribe = filters.iter().fold(Subscribe::default(), |all, filter| all.and(filter, AtLeastOnce));
        let granted = |reasons: Vec<ReasonCode>| reasons.into_iter().map(|r| !r.is_error()).collect::<Vec<_>>();
        assert_eq!(granted(net.subscribe_with(a, &subscribe)), [true, false, true, false, true, false]);
        assert_eq!(granted(net.subscribe_with(b, &subscribe)), [false, false, false, false, true, false]);
    });
}

// The rules are asked at CONNECT.
#[test]
fn a_will_that_is_denied_is_told_at_once() {
    with_rules(NO, |net| {
        let will = |topic: &str| Will::new(Publish::new(topic, "x"));
        assert_eq!(net.refused(Connect::v5("a").will(will("no/will"))), NotAuthorized);
        assert_eq!(net.refused(Connect::v311("a").will(will("no/will"))), NotAuthorized);
        assert_eq!((net.view().session_count(), net.ledger().denied), (0, 2));
        let r = net.connect(Connect::v5("r"));
        net.subscribe(r, "will", AtMostOnce);
        let a = net.connect(Connect::v5("a").will(will("will")));
        net.cut(a);
        assert_eq!(net.received(r), ["will x"]);
    });
}

#[test]
fn without_a_rule_that_fits_acl_nomatch_decides() {
    for acl in [None, Some(Arc::new(Acl::parse(r#"{allow, all, pubsub, ["a"]}."#).unwrap()))] {
        let has_rules = acl.is_some();
        let configure = |config: &mut ShardConfig| {
            config.access = AccessConfig { acl: acl.clone(), nomatch: Permission::Deny, ..AccessConfig::default() };
        };
        check_with(configure, |net| {
            let a = net.connect(Connect::v5("a"));
            let reasons = net.subscribe_with(a, &Subscribe::new("a", AtLeastOnce).and("b", AtLeastOnce));
            assert_eq!(reasons, [if has_rules { GrantedQoS1 } else { NotAuthorized }, NotAuthorized]);
        });
    }
}

#[test]
fn a_zone_may_do_without() {
    let configure = |config: &mut ShardConfig| {
        config.access = AccessConfig { nomatch: Permission::Deny, ..rules("{deny, all}.") };
        config.zones[0].bypass_acl = true;
    };
    check_with(configure, |net| {
        let a = net.connect(Connect::v5("a").will(Will::new(Publish::new("will", ""))));
        net.subscribe(a, "t", AtLeastOnce);
        for _ in 0..2 {
            net.publish(a, Publish::new("t", "x").qos1());
        }
        assert_eq!(net.received(a), ["t x", "t x"]);
        assert_eq!(net.ledger().denied, 0);
    });
}

#[test]
fn other_rules_hold_at_once_for_every_connection() {
    let configure = |config: &mut ShardConfig| {
        config.access = AccessConfig { cache: Some(AclCacheLimits::default()), ..rules(NO) };
    };
    check_with(configure, |net| {
        let a = net.connect(Connect::v5("a"));
        let b = net.connect(Connect::v5("b"));
        net.subscribe(a, "t", AtLeastOnce);
        let publish = |net: &mut Net, client, topic: &str| {
            net.publish(client, Publish::new(topic, "x").qos1().id(9));
            let Some(Got::Ack(Puback, 9, reason)) =
                net.take(client).into_iter().find(|got| matches!(got, Got::Ack(..)))
            else {
                panic!("no acknowledgement")
            };
            !reason.is_error()
        };
        for (text, t, no) in [(NO, true, false), (r#"{deny, all, publish, ["t"]}."#, false, true), (NO, true, false)] {
            net.set_access(AccessConfig { cache: Some(AclCacheLimits::default()), ..rules(text) });
            for _ in 0..2 {
                assert_eq!((publish(net, a, "t"), publish(net, a, "no"), publish(net, b, "t")), (t, no, t), "{text}");
            }
        }
        // A subscription that was made stays.
        net.set_access(rules(r#"{deny, all, subscribe, ["t"]}."#));
        net.take(a);
        net.publish(b, Publish::new("t", "still"));
        assert_eq!(net.received(a), ["t still"]);
    });
}

#[test]
fn hooks_are_asked_before_the_rules() {
    let configure = |config: &mut ShardConfig| {
        config.access = rules(NO);
        config.hooks = HookSet::default().with(Hook::ClientCheckAcl).with(Hook::MessagePublish);
    };
    check_with(configure, |net| {
        let seen = Rc::new(Cell::new(0));
        let count = Rc::clone(&seen);
        net.decide(move |question| match question {
            Question::CheckAcl { topics, .. } if topics.iter().any(|topic| &**topic == "hook") => {
                Verdict::Deny(ReasonCode::QuotaExceeded)
            }
            Question::Publish { topic, .. } => {
                assert_eq!(&**topic, "yes", "what may not be published is not shown");
                count.set(count.get() + 1);
                Verdict::Allow { data: None }
            }
            _ => Verdict::Allow { data: None },
        });
        let a = net.connect(Connect::v5("a"));
        for (topic, reason) in
            [("hook", ReasonCode::QuotaExceeded), ("no", NotAuthorized), ("yes", ReasonCode::NoMatchingSubscribers)]
        {
            net.publish(a, Publish::new(topic, "").qos1().id(3));
            assert_eq!(net.take(a), [Got::Ack(Puback, 3, reason)], "{topic}");
        }
        assert_eq!((seen.get(), net.ledger().denied), (1, 2));
        let reasons = net.subscribe_with(a, &Subscribe::new("a", AtLeastOnce).and("no", AtLeastOnce));
        assert_eq!(reasons, [GrantedQoS1, NotAuthorized]);
    });
}

#[test]
fn what_the_cache_knows_no_hook_is_asked() {
    let configure = |config: &mut ShardConfig| {
        config.access.cache = Some(AclCacheLimits { max_size: 2, ttl: Duration::from_secs(10) });
        config.hooks = HookSet::default().with(Hook::ClientCheckAcl);
    };
    check_with(configure, |net| {
        net.decide(|question| match question {
            Question::CheckAcl { topics, .. } if &*topics[0] == "no" => Verdict::Deny(NotAuthorized),
            _ => Verdict::Allow { data: None },
        });
        let a = net.connect(Connect::v5("a"));
        let asked = |net: &mut Net, topic: &str| {
            net.publish(a, Publish::new(topic, ""));
            net.settle();
            core::mem::take(&mut net.questions).len()
        };
        assert_eq!(["t", "t", "u", "t", "no"].map(|topic| asked(net, topic)), [1, 0, 1, 0, 1]);
        net.advance_secs(10);
        assert_eq!(["t", "t"].map(|topic| asked(net, topic)), [1, 0]);
        let access = AccessConfig { cache: Some(AclCacheLimits::default()), ..AccessConfig::default() };
        net.set_access(access);
        assert_eq!(["t", "t"].map(|topic| asked(net, topic)), [1, 0]);
    });
}
