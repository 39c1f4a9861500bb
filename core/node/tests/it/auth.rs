//! Enhanced authentication (section 4.12), with a method that sends a challenge and expects it back reversed.

use core::time::Duration;
use std::sync::Arc;

use newtmq_access::Acl;
use newtmq_mqtt::QoS::AtMostOnce;
use newtmq_mqtt::ReasonCode;
use newtmq_node::{Grant, Hook, Question, ShardConfig, Verdict};

use crate::harness::{Client, Connect, Got, Net, Publish, Subscribe, Will, check_with};

const METHOD: &str = "CHALLENGE";

fn authenticated(config: &mut ShardConfig) {
    config.hooks = config.hooks.with(Hook::ClientAuthenticate);
}

/// `start` gets a challenge, its reverse is right.
fn challenge(question: &Question) -> Verdict {
    let Question::Authenticate { method, data, .. } = question else { panic!("{question:?}") };
    match (method.as_deref(), data.as_deref()) {
        (Some(METHOD), Some(b"start")) => Verdict::Continue(b"abc".to_vec().into()),
        (Some(METHOD), Some(b"twice")) => Verdict::Continue(b"again".to_vec().into()),
        (Some(METHOD), Some(b"cba")) => Verdict::Allow { data: Some(b"welcome".to_vec().into()) },
        (Some(METHOD), _) => Verdict::Deny(ReasonCode::NotAuthorized),
        (Some(_), _) => Verdict::Deny(ReasonCode::BadAuthenticationMethod),
        (None, _) => Verdict::Allow { data: None },
    }
}

fn challenged(net: &mut Net, connect: Connect) -> Client {
    net.decide(challenge);
    let client = net.start(connect);
    let reason = ReasonCode::ContinueAuthentication;
    let data = Some(b"abc".to_vec());
    assert_eq!(net.take(client), [Got::Auth { reason, method: Some(METHOD.into()), data }]);
    client
}

// [MQTT-4.12.0-2] [MQTT-4.12.0-3] [MQTT-4.12.0-5] [MQTT-3.2.0-1]
#[test]
fn an_exchange_that_succeeds() {
    check_with(authenticated, |net| {
        let a = challenged(net, Connect::v5("a").method(METHOD, b"start").user("u", "p"));
        net.send_auth(a, ReasonCode::ContinueAuthentication, METHOD, b"twice");
        assert!(matches!(net.take(a)[..], [Got::Auth { reason: ReasonCode::ContinueAuthentication, .. }]));
        net.send_auth(a, ReasonCode::ContinueAuthentication, METHOD, b"cba");
        let got = net.take(a);
        let [Got::Connack(connack)] = &got[..] else { panic!("{got:?}") };
        assert_eq!((connack.method.as_deref(), connack.data.as_deref()), (Some(METHOD), Some(&b"welcome"[..])));
        for question in &net.questions {
            let Question::Authenticate { client, username, .. } = question else { panic!("{question:?}") };
            assert_eq!((&**client, username.as_deref()), ("a", Some("u")));
        }
        net.subscribe(a, "t", AtMostOnce);
        net.publish(a, Publish::new("t", "x"));
        assert_eq!(net.received(a), ["t x"]);
    });
}

// [MQTT-4.12.0-4] [MQTT-4.12.0-1] [MQTT-3.1.4-2] [MQTT-3.2.2-7]
#[test]
fn exchanges_that_fail() {
    check_with(authenticated, |net| {
        let will = || Will::new(Publish::new("will", ""));
        let a = challenged(net, Connect::v5("a").method(METHOD, b"start").will(will()));
        net.send_auth(a, ReasonCode::ContinueAuthentication, METHOD, b"wrong");
        let got = net.take(a);
        let [Got::Connack(connack), Got::Closed] = &got[..] else { panic!("{got:?}") };
        assert_eq!(connack.reason, ReasonCode::NotAuthorized);
        let refused = net.refused(Connect::v5("a").method("unknown", b""));
        assert_eq!(refused, ReasonCode::BadAuthenticationMethod);
        assert_eq!((net.view().session_count(), net.ledger().accepted), (0, 0));
    });
    check_with(
        |_| {},
        |net| {
            let refused = net.refused(Connect::v5("a").method("any", b""));
            assert_eq!(refused, ReasonCode::BadAuthenticationMethod, "nobody knows any method");
        },
    );
}

// [MQTT-4.12.0-5] [MQTT-4.12.0-3]
#[test]
fn a_client_that_breaks_the_exchange() {
    check_with(authenticated, |net| {
        let start = || Connect::v5("a").method(METHOD, b"start");
        for (reason, method) in [(ReasonCode::ContinueAuthentication, "other"), (ReasonCode::ReAuthenticate, METHOD)] {
            let a = challenged(net, start());
            net.send_auth(a, reason, method, b"cba");
            let got = net.take(a);
            let [Got::Connack(connack), Got::Closed] = &got[..] else { panic!("{got:?}") };
            assert!(connack.reason.is_error());
        }
        // Anything but AUTH and DISCONNECT.
        let a = challenged(net, start());
        net.publish(a, Publish::new("t", ""));
        assert_eq!(net.take(a), [Got::Closed]);
        let a = challenged(net, start());
        net.disconnect(a);
        // Never an answer.
        let a = challenged(net, start());
        net.advance(Duration::from_secs(20));
        assert_eq!(net.take(a), [Got::Closed]);
        let a = challenged(net, start());
        net.cut(a);
        assert_eq!((net.view().connection_count(), net.view().session_count()), (0, 0));
    });
}

// [MQTT-4.12.0-6] [MQTT-4.12.0-7]
#[test]
fn without_a_method_there_is_no_auth() {
    check_with(authenticated, |net| {
        net.decide(challenge);
        let (a, connack) = net.connect_with(Connect::v5("a"));
        assert_eq!(connack.method, None);
        net.send_auth(a, ReasonCode::ReAuthenticate, METHOD, b"start");
        assert_eq!(net.kicked(a), ReasonCode::ProtocolError);
        // A hook that asks for another step of a client that cannot take one.
        net.decide(|_| Verdict::Continue(b"more".to_vec().into()));
        for connect in [Connect::v5("b"), Connect::v311("c").user("u", "p")] {
            assert_eq!(net.refused(connect), ReasonCode::NotAuthorized);
        }
    });
}

// [MQTT-4.12.1-2] [MQTT-4.12.0-5]
#[test]
fn a_client_authenticates_again() {
    check_with(authenticated, |net| {
        let login = |net: &mut Net| {
            let a = challenged(net, Connect::v5("a").method(METHOD, b"start").user("u", "p"));
            net.send_auth(a, ReasonCode::ContinueAuthentication, METHOD, b"cba");
            net.take(a);
            a
        };
        let a = login(net);
        net.subscribe(a, "t", AtMostOnce);
        net.send_auth(a, ReasonCode::ReAuthenticate, METHOD, b"start");
        assert!(matches!(net.take(a)[..], [Got::Auth { reason: ReasonCode::ContinueAuthentication, .. }]));
        // The connection works meanwhile.
        net.publish(a, Publish::new("t", "x"));
        assert_eq!(net.received(a), ["t x"]);
        net.send_auth(a, ReasonCode::ContinueAuthentication, METHOD, b"cba");
        assert!(matches!(net.take(a)[..], [Got::Auth { reason: ReasonCode::Success, .. }]));
        net.send_auth(a, ReasonCode::ReAuthenticate, METHOD, b"wrong");
        assert_eq!(net.kicked(a), ReasonCode::NotAuthorized);
        let a = login(net);
        net.send_auth(a, ReasonCode::ReAuthenticate, "other", b"start");
        assert_eq!(net.kicked(a), ReasonCode::ProtocolError);
    });
}

// [MQTT-3.1.4-2]
#[test]
fn user_name_and_password() {
    check_with(authenticated, |net| {
        net.decide(|question| match question {
            Question::Authenticate { username: Some(name), password: Some(password), method: None, .. }
                if (&**name, &**password) == ("u", b"p") =>
            {
                Verdict::Allow { data: None }
            }
            _ => Verdict::Deny(ReasonCode::BadUserNameOrPassword),
        });
        for connect in [Connect::v31("a"), Connect::v311("b"), Connect::v5("c")] {
            net.connect(connect.clone().user("u", "p"));
            assert_eq!(net.refused(connect.clone().user("u", "x")), ReasonCode::BadUserNameOrPassword);
            assert_eq!(net.refused(connect), ReasonCode::BadUserNameOrPassword);
        }
    });
}

// [MQTT-3.1.4-6]
#[test]
fn what_follows_connect_waits_for_the_verdict() {
    check_with(authenticated, |net| {
        net.decide(|question| match question {
            Question::Authenticate { client, .. } if client.starts_with("good") => Verdict::Allow { data: None },
            _ => Verdict::Deny(ReasonCode::Banned),
        });
        let r = net.connect(Connect::v5("good r"));
        net.subscribe(r, "t", AtMostOnce);
        let publish = Publish::new("t", "early").encode(None, newtmq_mqtt::ProtocolVersion::V5);
        net.connect(Connect::v5("good a").and_then(publish.clone()));
        assert_eq!(net.received(r), ["t early"]);
        assert_eq!(net.refused(Connect::v5("bad").and_then(publish)), ReasonCode::Banned);
        assert_eq!(net.received(r), [""; 0]);
    });
}

// [MQTT-3.1.2-24] [MQTT-3.15.2-2] [MQTT-3.15.2-3]
#[test]
fn a_challenge_above_the_maximum_packet_size_is_not_sent() {
    check_with(authenticated, |net| {
        net.decide(|_| Verdict::Continue(vec![0; 1000].into()));
        let a = net.start(Connect::v5("a").method(METHOD, b"start").max_packet_size(200));
        net.advance_secs(20);
        assert_eq!(net.take(a), [Got::Closed]);
    });
}

/// A wrong password is a reason of CONNACK, but of no DISCONNECT (section 3.14.2.1).
#[test]
fn a_wrong_password_on_an_open_connection() {
    check_with(authenticated, |net| {
        let a = challenged(net, Connect::v5("a").method(METHOD, b"start"));
        net.send_auth(a, ReasonCode::ContinueAuthentication, METHOD, b"cba");
        net.take(a);
        net.decide(|_| Verdict::Deny(ReasonCode::BadUserNameOrPassword));
        net.send_auth(a, ReasonCode::ReAuthenticate, METHOD, b"x");
        assert_eq!(net.kicked(a), ReasonCode::NotAuthorized);
        assert_eq!(net.refused(Connect::v5("b").method(METHOD, b"x")), ReasonCode::BadUserNameOrPassword);
    });
}

fn plain(config: &mut ShardConfig) {
    config.hooks = config.hooks.with(Hook::ClientAuthenticate);
}

/// What was granted holds for the connection, and for no other.
#[test]
fn a_connection_may_have_rules_of_its_own() {
    check_with(plain, |net| {
        let rules = Arc::new(Acl::only(&["up/%c"], &["down/#"]).unwrap());
        net.decide(move |question| match question {
            Question::Authenticate { client, .. } if &**client == "own" => {
                Verdict::Grant(Box::new(Grant { rules: Some(rules.clone()), ..Grant::default() }))
            }
            Question::Authenticate { .. } => Verdict::Allow { data: None },
            other => panic!("{other:?}"),
        });
        let reader = net.connect(Connect::v5("reader"));
        net.subscribe(reader, "#", AtMostOnce);
        let own = net.connect(Connect::v5("own"));
        net.publish(own, Publish::new("up/own", "yes"));
        net.publish(own, Publish::new("up/reader", "no"));
        net.publish(own, Publish::new("up/own", "again"));
        assert_eq!(net.received(reader), ["up/own yes", "up/own again"]);
        assert_eq!(net.subscribe_with(own, &Subscribe::new("#", AtMostOnce)), [ReasonCode::NotAuthorized]);
        net.subscribe(own, "down/x", AtMostOnce);
        net.publish(reader, Publish::new("up/reader", "everybody else may"));
        assert_eq!(net.received(reader), ["up/reader everybody else may"]);
        assert_eq!(net.refused(Connect::v5("own").will(Will::new(Publish::new("x", "w")))), ReasonCode::NotAuthorized);
    });
}

#[test]
fn no_rule_counts_for_a_superuser() {
    let configure = |config: &mut ShardConfig| {
        plain(config);
        config.access.nomatch = newtmq_access::Permission::Deny;
    };
    check_with(configure, |net| {
        net.decide(|_| Verdict::Grant(Box::new(Grant { superuser: true, ..Grant::default() })));
        let client = net.connect(Connect::v5("c"));
        net.subscribe(client, "#", AtMostOnce);
        net.publish(client, Publish::new("t", "m"));
        assert_eq!(net.received(client), ["t m"]);
    });
}

#[test]
fn a_connection_ends_when_its_time_is_over() {
    check_with(plain, |net| {
        let until = net.now() + Duration::from_secs(30);
        net.decide(move |_| Verdict::Grant(Box::new(Grant { until: Some(until), ..Grant::default() })));
        let new = net.connect(Connect::v5("new"));
        let old = net.connect(Connect::v311("old"));
        let short = net.connect(Connect::v5("short"));
        net.disconnect(short);
        net.advance_secs(29);
        assert!(net.take(new).is_empty());
        net.advance_secs(1);
        assert_eq!(net.kicked(new), ReasonCode::MaximumConnectTime);
        assert!(net.closed(old));
        // What is over is no reason to let anybody in.
        assert_eq!(net.refused(Connect::v5("late")), ReasonCode::NotAuthorized);
    });
}

#[test]
fn a_zone_may_do_without_authentication() {
    let configure = |config: &mut ShardConfig| {
        authenticated(config);
        config.zones[0].bypass_authentication = true;
    };
    check_with(configure, |net| {
        net.connect(Connect::v311("a"));
        assert!(net.questions.is_empty());
        assert_eq!(net.refused(Connect::v5("b").method("m", b"")), ReasonCode::BadAuthenticationMethod);
    });
}

#[test]
fn the_user_name_of_a_certificate_counts() {
    check_with(authenticated, |net| {
        net.decide(challenge);
        let asked = |net: &Net| match net.questions.last() {
            Some(Question::Authenticate { username, .. }) => username.clone(),
            other => panic!("{other:?}"),
        };
        net.certified = Some("certified".into());
        net.connect(Connect::v5("a").user("claimed", "p"));
        assert_eq!(asked(net).as_deref(), Some("certified"));
        net.certified = Some("certified".into());
        net.connect(Connect::v5("b"));
        assert_eq!(asked(net).as_deref(), Some("certified"), "CONNECT needs none");
        net.connect(Connect::v5("c").user("claimed", "p"));
        assert_eq!(asked(net).as_deref(), Some("claimed"), "the next connection has none");
        // Also in the later steps of an exchange, and when it is repeated.
        net.certified = Some("certified".into());
        let d = challenged(net, Connect::v5("d").method(METHOD, b"start").user("claimed", "p"));
        net.send_auth(d, ReasonCode::ContinueAuthentication, METHOD, b"cba");
        assert_eq!(asked(net).as_deref(), Some("certified"));
        net.take(d);
        net.send_auth(d, ReasonCode::ReAuthenticate, METHOD, b"cba");
        assert_eq!(asked(net).as_deref(), Some("certified"));
    });
}
