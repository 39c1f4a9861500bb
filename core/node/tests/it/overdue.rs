//! What is not answered in time: acknowledgements, PUBRELs, questions to hooks.

use core::time::Duration;

use newtmq_mqtt::PacketType::{Puback, Pubcomp, Pubrec, Pubrel};
use newtmq_mqtt::QoS::{AtLeastOnce, ExactlyOnce};
use newtmq_mqtt::ReasonCode;
use newtmq_node::{Hook, HookSet, ShardConfig};

use crate::harness::{Client, Connect, Got, Message, Net, Publish, Subscribe, Will, check, check_with};

fn retries(config: &mut ShardConfig) {
    config.zones[0].retry_interval = Duration::from_secs(20);
}

/// Payload, DUP.
fn got(net: &mut Net, client: Client) -> Vec<(String, bool)> {
    let text = |message: &Message| (String::from_utf8_lossy(&message.publish.payload).into(), message.publish.dup);
    net.messages(client).iter().map(text).collect()
}

// [MQTT-3.3.1-1] [MQTT-4.6.0-1]
#[test]
fn before_mqtt_5_what_is_not_acknowledged_comes_again_in_order() {
    for connect in [Connect::v31("a"), Connect::v311("a")] {
        check_with(retries, |net| {
            let a = net.connect(connect.clone().manual());
            net.subscribe(a, "t", ExactlyOnce);
            let w = net.connect(Connect::v5("w"));
            for payload in ["1", "2", "3"] {
                net.publish(w, Publish::new("t", payload).qos1().id(payload.parse().unwrap()));
            }
            let first = net.messages(a);
            assert_eq!(first.len(), 3);
            net.advance(Duration::from_millis(19_900));
            assert_eq!(got(net, a), [], "not before the interval has passed");
            net.ack(a, Puback, first[1].publish.id.unwrap());
            net.settle();
            net.advance_secs(11);
            assert_eq!(got(net, a), [("1".into(), true), ("3".into(), true)]);
            net.advance_secs(31);
            assert_eq!(got(net, a), [("1".into(), true), ("3".into(), true)], "and again");
            for message in [&first[0], &first[2]] {
                net.ack(a, Puback, message.publish.id.unwrap());
            }
            net.settle();
            net.advance_secs(100);
            assert_eq!(got(net, a), []);
            assert_eq!((net.ledger().sent_again, net.view().timer_count()), (4, 0));
        });
    }
}

// [MQTT-4.3.3-5]
#[test]
fn after_pubrec_it_is_the_pubrel_that_comes_again() {
    check_with(retries, |net| {
        let a = net.connect(Connect::v311("a").manual());
        net.subscribe(a, "t", ExactlyOnce);
        net.publish(a, Publish::new("t", "x").qos2().id(9));
        net.ack(a, Pubrel, 9);
        let id = net.one_message(a).publish.id.unwrap();
        net.advance_secs(15);
        net.ack(a, Pubrec, id);
        net.settle();
        net.take(a);
        net.advance(Duration::from_millis(19_900));
        assert_eq!(net.take(a), [], "the time counts from the PUBREC");
        net.advance_secs(11);
        assert_eq!(net.take(a), [Got::Ack(Pubrel, id, ReasonCode::Success)]);
        net.ack(a, Pubcomp, id);
        net.advance_secs(200);
        assert_eq!((net.take(a), net.view().timer_count()), (vec![], 0));
    });
}

// [MQTT-4.4.0-1]
#[test]
fn mqtt_5_clients_get_nothing_again_on_the_same_connection() {
    check_with(retries, |net| {
        let a = net.connect(Connect::v5("a").manual().resume());
        net.subscribe(a, "t", AtLeastOnce);
        net.publish(a, Publish::new("t", "x").qos1().id(1));
        net.take(a);
        net.advance_secs(1000);
        assert_eq!(net.take(a), []);
        net.cut(a);
        let a = net.connect(Connect::v5("a").resume());
        assert_eq!(got(net, a), [("x".into(), true)]);
    });
}

#[test]
fn by_default_nothing_comes_again() {
    check(|net| {
        let a = net.connect(Connect::v311("a").manual());
        net.subscribe(a, "t", AtLeastOnce);
        net.publish(a, Publish::new("t", "x").qos1().id(1));
        net.take(a);
        net.advance_secs(1000);
        assert_eq!(net.take(a), []);
    });
}

#[test]
fn while_the_output_does_not_move_one_copy_more_is_made_at_most() {
    check_with(retries, |net| {
        let a = net.connect(Connect::v311("a").manual());
        net.subscribe(a, "t", AtLeastOnce);
        net.block(a, true);
        let w = net.connect(Connect::v5("w"));
        net.publish(w, Publish::new("t", "x").qos1());
        net.settle();
        net.advance_secs(200);
        assert_eq!(net.ledger().sent_again, 1);
        net.block(a, false);
        assert_eq!(got(net, a), [("x".into(), false), ("x".into(), true)]);
    });
}

#[test]
fn a_pubrel_that_does_not_come_frees_its_identifier() {
    check(|net| {
        for connect in [Connect::v311("a"), Connect::v5("a")] {
            let before = net.ledger().rel_timeouts;
            let a = net.connect(connect.manual());
            net.subscribe(a, "t", AtLeastOnce);
            net.publish(a, Publish::new("t", "x").qos2().id(7));
            assert_eq!(net.received(a), ["t x"]);
            net.advance_secs(299);
            net.publish(a, Publish::new("t", "x").qos2().dup().id(7));
            assert_eq!(net.received(a), [""; 0], "it is the same message [MQTT-4.3.3-10]");
            net.advance_secs(152);
            assert_eq!(net.ledger().rel_timeouts, before + 1);
            net.take(a);
            net.publish(a, Publish::new("t", "y").qos2().id(7));
            assert_eq!(net.received(a), ["t y"], "free for another message");
            net.ack(a, Pubrel, 7);
            net.settle();
            net.advance_secs(1000);
            assert_eq!((net.ledger().rel_timeouts, net.view().timer_count()), (before + 1, 0));
            net.disconnect(a);
            net.advance_secs(10);
        }
    });
}

#[test]
fn nobody_is_late_who_is_away_and_zero_is_never() {
    check(|net| {
        let a = net.connect(Connect::v5("a").resume().manual());
        net.publish(a, Publish::new("t", "").qos2().id(7));
        net.take(a);
        net.cut(a);
        net.advance_secs(2000);
        let a = net.connect(Connect::v5("a").resume().manual());
        net.advance_secs(290);
        assert_eq!(net.ledger().rel_timeouts, 0);
        net.advance_secs(161);
        assert_eq!(net.ledger().rel_timeouts, 1);
        net.ack(a, Pubrel, 7);
        assert_eq!(net.take(a), [Got::Ack(Pubcomp, 7, ReasonCode::PacketIdentifierNotFound)]);
    });
    check_with(
        |config| config.zones[0].await_rel_timeout = Duration::ZERO,
        |net| {
            let a = net.connect(Connect::v311("a").manual());
            net.publish(a, Publish::new("t", "").qos2().id(7));
            net.settle();
            net.advance_secs(1_000_000);
            assert_eq!((net.ledger().rel_timeouts, net.view().timer_count()), (0, 0));
        },
    );
}

#[test]
fn a_hook_that_hangs_refuses() {
    check_with(
        |config| config.hooks = HookSet::default().with(Hook::ClientAuthenticate),
        |net| {
            net.hooks_hang = true;
            let a = net.start(Connect::v5("a"));
            let b = net.start(Connect::v311("b"));
            net.settle();
            net.advance(Duration::from_millis(4_900));
            assert_eq!((net.take(a), net.take(b)), (vec![], vec![]));
            net.advance_secs(1);
            for client in [a, b] {
                let [Got::Connack(connack), Got::Closed] = &net.take(client)[..] else { panic!("not refused") };
                assert_eq!(connack.reason, ReasonCode::ServerUnavailable);
            }
            assert_eq!(net.ledger().hook_timeouts, 2);
        },
    );
}

#[test]
fn nothing_is_held_for_ever_by_a_hook() {
    check_with(
        |config| config.hooks = HookSet::default().with(Hook::ClientCheckAcl),
        |net| {
            net.hooks_hang = true;
            let (a, old) = (net.connect(Connect::v5("a").keep_alive(2)), net.connect(Connect::v311("old")));
            net.publish(a, Publish::new("t", "").qos1().id(1));
            net.publish(a, Publish::new("t", "").qos2().id(2));
            net.ping(a);
            net.publish(old, Publish::new("t", "").qos1().id(1));
            net.ping(old);
            net.settle();
            net.advance_secs(11);
            let no = ReasonCode::ImplementationSpecificError;
            assert_eq!(net.take(a), [Got::Ack(Puback, 1, no), Got::Ack(Pubrec, 2, no), Got::Pingresp]);
            assert_eq!(net.take(old), [Got::Ack(Puback, 1, ReasonCode::Success), Got::Pingresp]);
            let id = net.send_subscribe(a, &Subscribe::new("t", AtLeastOnce));
            net.settle();
            net.advance_secs(6);
            assert_eq!(net.take(a), [Got::Suback(id, vec![no])]);
            assert_eq!((net.ledger().hook_timeouts, net.ledger().matched), (4, 0));
            // That its client is gone is seen when it is read again.
            net.publish(a, Publish::new("t", ""));
            net.settle();
            net.cut(a);
            net.advance_secs(10);
            assert_eq!((net.ledger().hook_timeouts, net.view().connection_count()), (5, 1));
        },
    );
}

#[test]
fn deadlines_of_a_connection_end_with_it() {
    check_with(retries, |net| {
        for end in 0..3 {
            let will = Will::new(Publish::new("gone", ""));
            let a = net.connect(Connect::v311("a").manual().will(will));
            net.subscribe(a, "t", AtLeastOnce);
            net.publish(a, Publish::new("t", "x").qos2().id(7));
            net.settle();
            assert_eq!(net.view().timer_count(), 2);
            match end {
                0 => net.cut(a),
                1 => net.disconnect(a),
                _ => drop(net.connect(Connect::v311("a"))),
            }
            net.advance_secs(6);
            assert_eq!(net.view().timer_count(), 0);
        }
    });
}
