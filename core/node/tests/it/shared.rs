//! Shared subscriptions (section 4.8.2).

use newtmq_mqtt::PacketType::{Puback, Pubrec};
use newtmq_mqtt::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use newtmq_mqtt::ReasonCode;
use newtmq_topic::PickStrategy;

use crate::harness::{Client, Connect, Net, Publish, Subscribe, check, check_with};

fn members(net: &mut Net, count: usize) -> Vec<Client> {
    let member = |net: &mut Net, index| {
        let client = net.connect(Connect::v5(&format!("m{index}")).expiry(100));
        net.subscribe(client, "$share/g/t", AtLeastOnce);
        client
    };
    (0..count).map(|index| member(net, index)).collect()
}

#[test]
fn each_message_goes_to_one_member_of_each_group() {
    for strategy in [PickStrategy::Random, PickStrategy::RoundRobin, PickStrategy::Sticky, PickStrategy::Hash] {
        check_with(
            |config| config.shared_strategy = strategy,
            |net| {
                let w = net.connect(Connect::v5("w"));
                let members = members(net, 3);
                let other = net.connect(Connect::v5("other"));
                net.subscribe(other, "$share/h/t", AtMostOnce);
                let plain = net.connect(Connect::v5("plain"));
                net.subscribe(plain, "t", AtMostOnce);
                for index in 0..30 {
                    net.publish(w, Publish::new("t", index.to_string()).qos1());
                }
                let got: Vec<Vec<String>> = members.iter().map(|member| net.received(*member)).collect();
                let counts: Vec<usize> = got.iter().map(Vec::len).collect();
                assert_eq!(counts.iter().sum::<usize>(), 30);
                let idle = counts.iter().filter(|count| **count == 0).count();
                match strategy {
                    PickStrategy::RoundRobin => assert_eq!(counts, [10, 10, 10]),
                    PickStrategy::Random => assert_eq!(idle, 0),
                    PickStrategy::Sticky | PickStrategy::Hash => assert_eq!(idle, 2),
                }
                assert_eq!((net.received(other).len(), net.received(plain).len()), (30, 30));
            },
        );
    }
}

// [MQTT-4.8.2-4] [MQTT-4.8.2-5]
#[test]
fn a_member_that_goes_keeps_what_it_got() {
    check(|net| {
        let w = net.connect(Connect::v5("w"));
        let first = net.connect(Connect::v5("first").expiry(10).manual());
        net.subscribe(first, "$share/g/t", ExactlyOnce);
        net.publish(w, Publish::new("t", "1").qos1());
        net.publish(w, Publish::new("t", "2").qos2());
        assert_eq!(net.received(first), ["t 1", "t 2"]);
        net.cut(first);
        let second = net.connect(Connect::v5("second"));
        net.subscribe(second, "$share/g/t", ExactlyOnce);
        net.publish(w, Publish::new("t", "3").qos1());
        assert_eq!(net.received(second), ["t 3"], "a connected member is preferred");
        let first = net.connect(Connect::v5("first").resume().expiry(10));
        assert_eq!(net.received(first), ["t 1", "t 2"]);
        net.cut(first);
        // The session ends, and nobody else is there.
        let third = net.connect(Connect::v5("third").expiry(10).manual());
        net.unsubscribe(second, &["$share/g/t"]);
        net.subscribe(third, "$share/g/t", ExactlyOnce);
        net.advance_secs(20);
        net.publish(w, Publish::new("t", "4").qos1());
        assert_eq!(net.received(third), ["t 4"]);
        net.subscribe(second, "$share/g/t", ExactlyOnce);
        net.publish(w, Publish::new("t", "5").qos2());
        while net.received(third).is_empty() {
            net.publish(w, Publish::new("t", "6").qos2());
        }
        net.received(second);
        net.cut(third);
        net.advance_secs(20);
        assert_eq!(net.received(second), ["t 4"], "QoS 1 goes to another member, QoS 2 does not");
    });
}

// [MQTT-4.8.2-6]
#[test]
fn a_refused_message_is_not_offered_to_others() {
    check(|net| {
        let w = net.connect(Connect::v5("w"));
        let first = net.connect(Connect::v5("first").manual());
        net.subscribe(first, "$share/g/t", ExactlyOnce);
        net.publish(w, Publish::new("t", "1").qos1());
        net.publish(w, Publish::new("t", "2").qos2());
        let ids: Vec<u16> = net.messages(first).iter().map(|message| message.publish.id.unwrap()).collect();
        let second = net.connect(Connect::v5("second"));
        net.subscribe(second, "$share/g/t", ExactlyOnce);
        net.ack_with(first, Puback, ids[0], ReasonCode::UnspecifiedError);
        net.ack_with(first, Pubrec, ids[1], ReasonCode::UnspecifiedError);
        assert_eq!((net.received(first), net.received(second)), (vec![], vec![]));
        assert_eq!(net.view().queued(), 0);
    });
}

#[test]
fn an_offline_group_keeps_messages_for_a_member() {
    check(|net| {
        let w = net.connect(Connect::v5("w"));
        for member in members(net, 2) {
            net.cut(member);
        }
        for index in 0..10 {
            net.publish(w, Publish::new("t", index.to_string()).qos1());
        }
        net.settle();
        assert_eq!(net.view().queued(), 10);
        let back: Vec<Client> = (0..2).map(|index| net.connect(Connect::v5(&format!("m{index}")).resume())).collect();
        let mut all: Vec<String> = back.iter().flat_map(|client| net.received(*client)).collect();
        all.sort_unstable();
        assert_eq!(all, (0..10).map(|index| format!("t {index}")).collect::<Vec<_>>());
    });
}

#[test]
fn a_member_with_a_full_window_is_passed_over() {
    check(|net| {
        let w = net.connect(Connect::v5("w"));
        let busy = net.connect(Connect::v5("busy").receive_maximum(1).manual());
        let idle = net.connect(Connect::v5("idle"));
        net.subscribe(busy, "$share/g/t", AtLeastOnce);
        net.subscribe(idle, "$share/g/t", AtLeastOnce);
        for _ in 0..20 {
            net.publish(w, Publish::new("t", "x").qos1());
            net.settle();
        }
        assert!(net.received(busy).len() <= 1);
        assert!(net.received(idle).len() >= 19);
    });
}

// [MQTT-3.8.3-4]
#[test]
fn no_local_and_shared_is_a_protocol_error() {
    check(|net| {
        let a = net.connect(Connect::v5("a"));
        net.send_subscribe(a, &Subscribe::new("$share/g/t", AtMostOnce).no_local());
        assert_eq!(net.kicked(a), ReasonCode::ProtocolError);
    });
}

#[test]
fn identifiers_and_a_plain_subscription_beside_a_shared_one() {
    check(|net| {
        let a = net.connect(Connect::v5("a"));
        net.subscribe_with(a, &Subscribe::new("$share/g/t", AtMostOnce).identifier(3));
        net.subscribe_with(a, &Subscribe::new("t", AtMostOnce).identifier(4));
        net.publish(a, Publish::new("t", "x"));
        let mut identifiers: Vec<_> = net.messages(a).into_iter().map(|message| message.identifiers).collect();
        identifiers.sort_unstable();
        assert_eq!(identifiers, [[3], [4]]);
        net.unsubscribe(a, &["$share/g/t"]);
        net.publish(a, Publish::new("t", "x"));
        assert_eq!(net.one_message(a).identifiers, [4]);
    });
}
