//! Clients that send more than they may, and a process that has too much memory in use.

use core::time::Duration;

use newtmq_mqtt::QoS::{AtLeastOnce, AtMostOnce};
use newtmq_mqtt::{Packet, ProtocolVersion};
use newtmq_node::{DropReason, MemoryPressure, Rate, ShardConfig};

use crate::harness::{Connect, Got, Net, Publish, Will, check_heavy, check_with};

fn publish_limit(config: &mut ShardConfig) {
    config.zones[0].publish_limit = Some(Rate { amount: 10, per: Duration::from_secs(10), burst: 10 });
}

/// Bytes per second, and at once.
fn rate_limit(amount: u64, burst: u64) -> impl Fn(&mut ShardConfig) {
    move |config| config.listeners[0].rate_limit = Some(Rate { amount, per: Duration::from_secs(1), burst })
}

#[test]
fn publishes_above_the_limit_wait() {
    for connect in [Connect::v311("a"), Connect::v5("a")] {
        check_with(publish_limit, |net| {
            let r = net.connect(Connect::v5("r"));
            net.subscribe(r, "#", AtLeastOnce);
            let a = net.connect(connect.clone());
            for index in 0..25 {
                let publish = Publish::new("t", index.to_string());
                net.publish(a, if index % 2 == 0 { publish.qos1() } else { publish });
            }
            assert_eq!(net.received(r).len(), 10, "the burst");
            assert!(net.held(a));
            let other = net.connect(Connect::v5("other"));
            net.publish(other, Publish::new("t", "other"));
            assert_eq!(net.received(r), ["t other"], "others do not wait");
            net.advance(Duration::from_millis(3_100));
            assert_eq!(net.received(r), ["t 10", "t 11", "t 12"]);
            net.advance_secs(20);
            assert_eq!(net.received(r).len(), 12, "nothing is lost");
            assert!(!net.held(a) && net.ledger().paced > 0);
            net.ping(a);
            assert_eq!(net.take(a).last(), Some(&Got::Pingresp));
        });
    }
}

#[test]
fn who_stays_below_the_limit_never_waits() {
    check_with(publish_limit, |net| {
        let a = net.connect(Connect::v5("a"));
        for _ in 0..50 {
            net.publish(a, Publish::new("t", "").qos1());
            net.settle();
            assert!(!net.held(a));
            net.advance(Duration::from_millis(1_001));
        }
        for _ in 0..1000 {
            net.ping(a);
        }
        net.settle();
        assert_eq!((net.held(a), net.ledger().paced), (false, 0), "only PUBLISH counts");
    });
}

// [MQTT-3.1.2-22]
#[test]
fn keep_alive_is_suspended_while_a_client_waits() {
    check_with(publish_limit, |net| {
        let a = net.connect(Connect::v5("a").keep_alive(1));
        for index in 0..15 {
            net.publish(a, Publish::new("t", index.to_string()));
        }
        net.ping(a);
        net.settle();
        for _ in 0..5 {
            net.advance_secs(1);
            assert!(net.held(a));
        }
        net.advance_secs(1);
        assert_eq!(net.take(a).last(), Some(&Got::Pingresp));
        net.advance_secs(3);
        assert!(net.closed(a), "and goes on afterwards");
    });
}

#[test]
fn who_goes_while_it_waits() {
    check_with(publish_limit, |net| {
        for end in 0..4 {
            let a = net.connect(Connect::v5("a"));
            for index in 0..15 {
                net.publish(a, Publish::new("t", index.to_string()));
            }
            net.settle();
            assert!(net.held(a));
            match end {
                0 => net.cut(a),
                1 => net.hang_up(a),
                2 => drop(net.connect(Connect::v5("a"))),
                _ => net.disconnect(a),
            }
            net.advance_secs(100);
            assert!(net.closed(a));
        }
        assert_eq!(net.ledger().accepted, 15 + 15 + 10 + 15, "only the one that was taken over lost something");
    });
}

#[test]
fn bytes_above_the_limit_wait() {
    check_heavy(rate_limit(10_000, 20_000), |net| {
        let a = net.connect(Connect::v5("a"));
        let start = net.now();
        for index in 0..100 {
            net.publish(a, Publish::new("t", vec![index as u8; 1_000]));
        }
        net.ping(a);
        net.settle();
        assert!(net.held(a));
        let most = |net: &Net| 21_000 + 10 * (net.now() - start).as_millis() as u64;
        while net.ledger().accepted < 100 {
            assert!(net.ledger().accepted * 1_000 <= most(net));
            net.advance(Duration::from_millis(100));
            assert!(net.now() - start < Duration::from_secs(10), "much too slow");
        }
        net.advance_secs(1);
        assert_eq!(net.take(a), [Got::Pingresp]);
        assert!((net.now() - start) > Duration::from_secs(8));
    });
}

#[test]
fn a_packet_larger_than_the_burst_comes_through() {
    check_heavy(rate_limit(2_000, 1_000), |net| {
        let a = net.connect(Connect::v5("a"));
        net.publish(a, Publish::new("t", vec![0; 10_000]).qos1().id(1));
        net.settle();
        net.advance(Duration::from_millis(4_000));
        assert_eq!(net.take(a), []);
        net.advance(Duration::from_millis(2_000));
        assert_eq!(net.take(a).len(), 1);
    });
}

/// Its connection also goes to another shard with it.
#[test]
fn a_connect_larger_than_the_burst_comes_through() {
    check_heavy(rate_limit(2_000, 1_000), |net| {
        for name in ["a", "b", "c", "d"] {
            let will = Will::new(Publish::new("will", vec![0; 5_000]));
            let mut ping = Vec::new();
            Packet::Pingreq.encode(ProtocolVersion::V5, &mut ping).unwrap();
            let client = net.start(Connect::v5(name).will(will).and_then(ping));
            net.settle();
            net.advance_secs(4);
            assert!(matches!(&net.take(client)[..], [Got::Connack(_), Got::Pingresp]));
            for _ in 0..3 {
                net.publish(client, Publish::new("t", vec![0; 2_000]));
            }
            net.settle();
            assert!(net.held(client), "still limited");
            net.disconnect(client);
            net.advance_secs(10);
        }
    });
}

#[test]
fn with_little_memory_qos_0_does_not_wait() {
    check_heavy(
        |_| {},
        |net| {
            let away = net.connect(Connect::v5("away").resume());
            net.subscribe(away, "t", AtLeastOnce);
            net.cut(away);
            let slow = net.connect(Connect::v5("slow"));
            let quick = net.connect(Connect::v5("quick"));
            for client in [slow, quick] {
                net.subscribe(client, "t", AtMostOnce);
            }
            net.pause(slow);
            net.memory(MemoryPressure::Shed);
            let w = net.connect(Connect::v5("w"));
            for _ in 0..20 {
                net.publish(w, Publish::new("t", vec![0; 30_000]));
                net.settle();
            }
            assert_eq!(net.received(quick).len(), 20, "who keeps up gets everything");
            // All of the absent client's, and what does not fit into the slow one's output.
            let dropped = net.dropped(DropReason::MemoryPressure);
            assert!((25..40).contains(&dropped), "{dropped}");
            net.publish(w, Publish::new("t", "").qos1());
            net.settle();
            assert_eq!(net.view().queued(), 1, "QoS 1 is kept");
            let dropped = net.dropped(DropReason::MemoryPressure);
            net.memory(MemoryPressure::None);
            net.publish(w, Publish::new("t", ""));
            net.settle();
            assert_eq!((net.view().queued(), net.dropped(DropReason::MemoryPressure)), (2, dropped));
            net.unpause(slow);
        },
    );
}

#[test]
fn with_too_little_memory_publishers_are_held() {
    for connect in [Connect::v311("w"), Connect::v5("w")] {
        check_with(
            |_| {},
            |net| {
                let r = net.connect(Connect::v5("r"));
                net.subscribe(r, "t", AtLeastOnce);
                net.memory(MemoryPressure::Hold);
                let w = net.connect(connect.clone().keep_alive(2));
                for index in 0..5 {
                    net.publish(w, Publish::new("t", index.to_string()).qos1());
                }
                assert_eq!(net.received(r), ["t 0"]);
                assert!(net.held(w));
                for _ in 0..3 {
                    net.publish(r, Publish::new("t", "live"));
                }
                assert_eq!(net.received(r), ["t live"; 3], "QoS 0 to who keeps up needs no memory");
                net.ping(r);
                assert_eq!(net.take(r), [Got::Pingresp], "who does not publish is served");
                net.advance_secs(9);
                assert_eq!(net.received(r), [""; 0]);
                net.advance_secs(2);
                assert_eq!(net.received(r), ["t 1"], "nobody is held for ever");
                net.memory(MemoryPressure::Shed);
                assert_eq!(net.received(r), ["t 2", "t 3", "t 4"]);
                assert!(!net.held(w) && !net.closed(w));
            },
        );
    }
}
