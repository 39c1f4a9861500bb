//! Will Messages (sections 3.1.2.5 and 3.1.3.2).

use newtmq_mqtt::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use newtmq_mqtt::ReasonCode;

use crate::harness::{Connect, Publish, Subscribe, Will, check};

fn with_will(client: &str) -> Connect {
    Connect::v5(client).will(Will::new(Publish::new("will", client)))
}

// [MQTT-3.1.2-7] [MQTT-3.1.2-8] [MQTT-3.1.2-10] [MQTT-3.14.4-3]
#[test]
fn which_end_publishes_the_will() {
    check(|net| {
        let r = net.connect(Connect::v5("r"));
        net.subscribe(r, "will", AtLeastOnce);
        let a = net.connect(with_will("cut"));
        net.cut(a);
        assert_eq!(net.received(r), ["will cut"]);
        let a = net.connect(with_will("hangs up"));
        net.hang_up(a);
        assert_eq!(net.received(r), ["will hangs up"]);
        let a = net.connect(with_will("asks for it"));
        net.disconnect_with(a, ReasonCode::DisconnectWithWillMessage, None);
        assert_eq!(net.received(r), ["will asks for it"]);
        let a = net.connect(with_will("has an error"));
        net.disconnect_with(a, ReasonCode::ImplementationSpecificError, None);
        assert_eq!(net.received(r), ["will has an error"]);
        let a = net.connect(with_will("breaks rules"));
        net.send(a, &[0x00]);
        assert_eq!((net.kicked(a), net.received(r)), (ReasonCode::MalformedPacket, vec!["will breaks rules".into()]));
        let a = net.connect(with_will("silent").keep_alive(10));
        net.advance_secs(20);
        assert_eq!((net.kicked(a), net.received(r)), (ReasonCode::KeepAliveTimeout, vec!["will silent".into()]));
        for connect in [with_will("normal"), Connect::v311("old").will(Will::new(Publish::new("will", "old")))] {
            let a = net.connect(connect);
            net.disconnect(a);
            assert_eq!(net.received(r), [""; 0]);
        }
        let a = net.connect(Connect::v311("old").will(Will::new(Publish::new("will", "old"))));
        net.cut(a);
        assert_eq!(net.received(r), ["will old"]);
    });
}

// [MQTT-3.1.2-10] [MQTT-3.1.2-8]
#[test]
fn a_will_is_published_once_and_not_inherited() {
    check(|net| {
        let r = net.connect(Connect::v5("r"));
        net.subscribe(r, "will", AtLeastOnce);
        let a = net.connect(with_will("a").expiry(100));
        net.cut(a);
        assert_eq!(net.received(r), ["will a"]);
        net.advance_secs(50);
        // The next connection has no will of its own.
        let a = net.connect(Connect::v5("a").resume());
        net.cut(a);
        net.advance_secs(5000);
        assert_eq!(net.received(r), [""; 0]);
    });
}

// [MQTT-3.1.2-14] [MQTT-3.1.2-15] [MQTT-3.1.2-12]
#[test]
fn qos_and_retain_of_a_will() {
    check(|net| {
        let r = net.connect(Connect::v5("r"));
        net.subscribe_with(r, &Subscribe::new("will/+", ExactlyOnce).retain_as_published());
        for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
            for retain in [false, true] {
                let publish = Publish::new(&format!("will/{retain}"), "x").qos(qos);
                let publish = if retain { publish.retain() } else { publish };
                let a = net.connect(Connect::v5("a").will(Will::new(publish)));
                net.cut(a);
                let message = net.one_message(r).publish;
                assert_eq!((message.qos, message.retain), (qos, retain));
            }
        }
        let late = net.connect(Connect::v5("late"));
        net.subscribe(late, "will/+", ExactlyOnce);
        assert_eq!(net.received(late), ["will/true x"]);
    });
}

// [MQTT-3.1.3-10] [MQTT-3.3.2-18]
#[test]
fn a_will_keeps_its_properties() {
    check(|net| {
        let r = net.connect(Connect::v5("r"));
        net.subscribe(r, "will", AtMostOnce);
        let sent = Publish::new("will", "x").with_all_properties().expiry(30);
        let a = net.connect(Connect::v5("a").expiry(1000).will(Will::new(sent.clone()).delay(100)));
        net.cut(a);
        net.advance_secs(100);
        assert_eq!(net.one_message(r).publish, sent, "the expiry counts from the publication");
    });
}

// [MQTT-3.1.2-8] [MQTT-3.1.3-9]
#[test]
fn a_will_waits_for_its_delay_or_the_end_of_the_session() {
    check(|net| {
        let r = net.connect(Connect::v5("r"));
        net.subscribe(r, "will", AtLeastOnce);
        // Session Expiry Interval, Will Delay Interval, seconds until the will.
        for (expiry, delay, due) in [(0, 10, 0), (5, 10, 5), (100, 10, 10), (100, 100, 100), (u32::MAX, 1000, 1000)] {
            let a =
                net.connect(Connect::v5("a").expiry(expiry).will(Will::new(Publish::new("will", "a")).delay(delay)));
            net.cut(a);
            if due > 0 {
                net.advance_secs(due - 1);
                assert_eq!(net.received(r), [""; 0], "{expiry} {delay}");
                net.advance_secs(1);
            }
            assert_eq!(net.received(r), ["will a"], "{expiry} {delay}");
        }
    });
}

// [MQTT-3.1.3-9]
#[test]
fn a_client_that_is_back_in_time_has_no_will() {
    check(|net| {
        let r = net.connect(Connect::v5("r"));
        net.subscribe(r, "will", AtLeastOnce);
        let will = || Will::new(Publish::new("will", "a")).delay(10);
        let a = net.connect(Connect::v5("a").expiry(100).will(will()));
        net.cut(a);
        net.advance_secs(9);
        let a = net.connect(Connect::v5("a").resume().will(will()));
        net.advance_secs(100);
        assert_eq!(net.received(r), [""; 0]);
        // Taken over while connected: the session goes on.
        let a2 = net.connect(Connect::v5("a").resume());
        net.advance_secs(100);
        assert_eq!((net.kicked(a), net.received(r)), (ReasonCode::SessionTakenOver, vec![]));
        net.disconnect(a2);
        // A clean start ends the old session, and so the will is due.
        let a = net.connect(Connect::v5("a").expiry(100).will(will()));
        net.cut(a);
        net.connect(Connect::v5("a"));
        assert_eq!(net.received(r), ["will a"]);
    });
}

// [MQTT-3.1.4-3] [MQTT-3.1.2-8]
#[test]
fn a_will_without_delay_is_published_at_a_takeover() {
    check(|net| {
        let r = net.connect(Connect::v5("r"));
        net.subscribe(r, "will", AtLeastOnce);
        net.connect(with_will("a").expiry(100));
        net.connect(Connect::v5("a").resume());
        assert_eq!(net.received(r), ["will a"]);
        net.connect(Connect::v311("old").will(Will::new(Publish::new("will", "old"))));
        net.connect(Connect::v311("old"));
        assert_eq!(net.received(r), ["will old"]);
    });
}

// [MQTT-3.8.3-3]
#[test]
fn no_local_keeps_the_own_will_away() {
    check(|net| {
        let a = net.connect(with_will("a").expiry(100));
        net.subscribe_with(a, &Subscribe::new("will", AtLeastOnce).no_local());
        let a = net.connect(Connect::v5("a").resume());
        assert_eq!(net.received(a), [""; 0]);
    });
}

#[test]
fn a_session_expiry_of_0_at_disconnect_makes_the_will_due() {
    check(|net| {
        let r = net.connect(Connect::v5("r"));
        net.subscribe(r, "will", AtLeastOnce);
        let will = Will::new(Publish::new("will", "a")).delay(50);
        let a = net.connect(Connect::v5("a").expiry(100).will(will));
        net.disconnect_with(a, ReasonCode::DisconnectWithWillMessage, Some(0));
        assert_eq!(net.received(r), ["will a"]);
    });
}

#[test]
fn a_will_that_does_not_fit_its_format_is_refused() {
    check(|net| {
        let will = Will::new(Publish::new("will", [0xFF]).utf8());
        assert_eq!(net.refused(Connect::v5("a").will(will)), ReasonCode::PayloadFormatInvalid);
    });
}

/// Sessions end with the node, so a will that waits for its session's client has no time left either.
#[test]
fn a_delayed_will_of_an_absent_client_comes_before_the_node_stops() {
    check(|net| {
        let watcher = net.connect(Connect::v5("watcher"));
        net.subscribe(watcher, "will", AtMostOnce);
        let a = net.connect(Connect::v5("a").expiry(100).will(Will::new(Publish::new("will", "x")).delay(50)));
        net.hang_up(a);
        assert_eq!(net.received(watcher), [""; 0]);
        net.shutdown();
        assert_eq!(net.received(watcher), ["will x"]);
    });
}
