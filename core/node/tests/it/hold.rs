//! Back-pressure: who is held, for how long, and that nothing is lost or stuck.

use core::time::Duration;

use newtmq_mqtt::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use newtmq_node::{DropReason, OUTPUT_HIGH_BYTES};

use crate::harness::{Client, Connect, Got, Net, Publish, Subscribe, check_heavy, check_heavy_together};

fn payload(index: usize) -> Vec<u8> {
    let mut payload = vec![b'.'; 10_000];
    payload[..8].copy_from_slice(format!("{index:08}").as_bytes());
    payload
}

fn indices(net: &mut Net, client: Client) -> Vec<usize> {
    let index =
        |message: crate::harness::Message| String::from_utf8_lossy(&message.publish.payload[..8]).parse().unwrap();
    net.messages(client).into_iter().map(index).collect()
}

fn largest_output(net: &Net) -> usize {
    net.view().connections().map(|conn| conn.output_bytes).max().unwrap_or(0)
}

#[test]
fn flood_loses_nothing() {
    for writer in [Connect::v5("w"), Connect::v311("w")] {
        check_heavy(
            |_| {},
            |net| {
                let r = net.connect(Connect::v5("r"));
                net.subscribe(r, "t", AtMostOnce);
                let w = net.connect(writer.clone());
                net.pause(r);
                let count = 1000;
                for index in 0..count {
                    net.publish(w, Publish::new("t", payload(index)));
                }
                let mut received = Vec::new();
                let mut was_held = false;
                while received.len() < count {
                    net.read_some(r, 200_000);
                    net.advance(Duration::from_millis(20));
                    was_held |= net.held(w);
                    // From another shard more comes before the writer hears of it.
                    let late = if net.shards() == 1 { 20_000 } else { 2 << 20 };
                    assert!(largest_output(net) < OUTPUT_HIGH_BYTES + late, "{}", largest_output(net));
                    received.extend(indices(net, r));
                }
                assert!(was_held, "10 MB do not fit into 1 MiB");
                assert_eq!(received, (0..count).collect::<Vec<_>>());
                assert_eq!(net.ledger().dropped_total(), 0);
                net.unpause(r);
            },
        );
    }
}

#[test]
fn a_flood_of_every_qos_loses_nothing() {
    for qos in [AtLeastOnce, ExactlyOnce] {
        for writer in [Connect::v5("w"), Connect::v311("w")] {
            check_heavy(
                |config| {
                    config.zones[0].max_awaiting_rel = 1000;
                    config.zones[0].session.max_mqueue_len = 2000;
                },
                |net| {
                    let r = net.connect(Connect::v5("r").receive_maximum(20));
                    net.subscribe(r, "t", ExactlyOnce);
                    let w = net.connect(writer.clone());
                    net.pause(r);
                    for index in 0..400 {
                        net.publish(w, Publish::new("t", payload(index)).qos(qos));
                    }
                    let mut received = Vec::new();
                    while received.len() < 400 {
                        net.read_some(r, 150_000);
                        net.advance(Duration::from_millis(20));
                        received.extend(indices(net, r));
                    }
                    assert_eq!(received, (0..400).collect::<Vec<_>>());
                    net.unpause(r);
                    net.settle();
                    assert_eq!((net.ledger().dropped_total(), net.view().queued()), (0, 0));
                },
            );
        }
    }
}

#[test]
fn a_never_reading_client_disturbs_nobody() {
    check_heavy(
        |_| {},
        |net| {
            let dead = net.connect(Connect::v5("dead"));
            let live = net.connect(Connect::v5("live"));
            net.subscribe(dead, "#", AtLeastOnce);
            net.subscribe(live, "#", AtLeastOnce);
            net.pause(dead);
            let writers = [net.connect(Connect::v5("w1")), net.connect(Connect::v311("w2"))];
            for (number, writer) in writers.into_iter().enumerate() {
                for index in 0..300 {
                    let publish = Publish::new(&format!("t/{number}"), payload(index));
                    net.publish(writer, publish.qos(if index % 3 == 0 { AtLeastOnce } else { AtMostOnce }));
                }
            }
            // It holds them for slow_consumer_timeout once, and then no more.
            net.advance_secs(3);
            assert!(writers.iter().all(|writer| !net.held(*writer)));
            assert_eq!(net.received(live).len(), 600);
            assert!(net.dropped(DropReason::SlowConsumer) > 0);
            let before = net.now();
            for writer in writers {
                net.publish(writer, Publish::new("t", "later"));
                net.ping(writer);
            }
            assert_eq!(net.received(live).len(), 2);
            assert!(net.now() - before < Duration::from_millis(100));
            assert!(net.take(writers[0]).contains(&Got::Pingresp));
            // When it reads again it gets what is left, and is as good as any.
            net.unpause(dead);
            net.settle();
            net.take(dead);
            net.publish(writers[0], Publish::new("t", "again"));
            assert_eq!(net.received(dead), ["t again"]);
        },
    );
}

#[test]
fn a_client_that_publishes_to_itself_does_not_deadlock() {
    for (connect, qos) in [
        (Connect::v5("a"), AtMostOnce),
        (Connect::v311("a"), AtMostOnce),
        (Connect::v5("a"), AtLeastOnce),
        (Connect::v311("a"), ExactlyOnce),
    ] {
        check_heavy(
            |config| config.zones[0].max_awaiting_rel = 1000,
            |net| {
                let a = net.connect(connect.clone());
                net.subscribe(a, "t", ExactlyOnce);
                // It sends everything before it reads anything.
                net.pause(a);
                for index in 0..500 {
                    net.publish(a, Publish::new("t", payload(index)).qos(qos));
                }
                net.advance_secs(1);
                net.unpause(a);
                net.advance_secs(20);
                let received = indices(net, a);
                assert!(received.is_sorted() && !received.is_empty());
                let ledger = net.ledger();
                assert_eq!(ledger.delivered + ledger.dropped_total(), 500, "{ledger:?}");
                net.take(a);
                net.publish(a, Publish::new("t", payload(0)).qos(qos));
                assert_eq!(indices(net, a), [0]);
            },
        );
    }
}

#[test]
fn two_clients_that_flood_each_other_do_not_deadlock() {
    check_heavy(
        |_| {},
        |net| {
            let pair = [net.connect(Connect::v5("a")), net.connect(Connect::v311("b"))];
            net.subscribe(pair[0], "to/a", AtMostOnce);
            net.subscribe(pair[1], "to/b", AtMostOnce);
            for client in pair {
                net.pause(client);
            }
            for index in 0..500 {
                net.publish(pair[0], Publish::new("to/b", payload(index)));
                net.publish(pair[1], Publish::new("to/a", payload(index)));
            }
            net.advance(Duration::from_millis(500));
            assert!(pair.iter().all(|client| net.held(*client)));
            for client in pair {
                net.unpause(client);
            }
            for client in pair {
                assert_eq!(indices(net, client), (0..500).collect::<Vec<_>>());
            }
            // And if neither ever reads: nobody is held for ever.
            for client in pair {
                net.pause(client);
            }
            for index in 0..500 {
                net.publish(pair[0], Publish::new("to/b", payload(index)));
                net.publish(pair[1], Publish::new("to/a", payload(index)));
            }
            net.advance_secs(15);
            assert!(pair.iter().all(|client| !net.held(*client)));
        },
    );
}

#[test]
fn a_slow_target_that_moves_holds_at_most_max_publisher_hold() {
    check_heavy_together(
        |config| config.zones[0].max_publisher_hold = Duration::from_secs(2),
        |net| {
            let r = net.connect(Connect::v5("r"));
            net.subscribe(r, "t", AtMostOnce);
            net.pause(r);
            let w = net.connect(Connect::v5("w").keep_alive(1));
            for index in 0..200 {
                net.publish(w, Publish::new("t", payload(index)));
            }
            net.settle();
            assert!(net.held(w));
            net.ping(w);
            let before = net.ledger().accepted;
            let mut held = 0;
            while net.ledger().accepted == before {
                net.read_some(r, 80_000);
                net.advance(Duration::from_millis(250));
                held += 1;
                assert!(held <= 9, "held for ever");
            }
            assert!(held >= 7, "Keep Alive is suspended meanwhile");
            assert!(!net.closed(w));
            net.unpause(r);
        },
    );
}

#[test]
fn the_target_goes_while_publishers_wait() {
    check_heavy_together(
        |_| {},
        |net| {
            for end in 0..4 {
                let r = net.connect(Connect::v5("r"));
                net.subscribe(r, "t", AtMostOnce);
                net.pause(r);
                let writers = [net.connect(Connect::v5("w1")), net.connect(Connect::v311("w2"))];
                for index in 0..100 {
                    for writer in writers {
                        net.publish(writer, Publish::new("t", payload(index)).qos1());
                        net.publish(writer, Publish::new("t", payload(index)));
                    }
                }
                net.settle();
                assert!(writers.iter().all(|writer| net.held(*writer)));
                match end {
                    0 => net.cut(r),
                    1 => net.hang_up(r),
                    2 => drop(net.connect(Connect::v5("r"))),
                    _ => {
                        // The publishers go first.
                        net.cut(writers[0]);
                        net.connect(Connect::v311("w2"));
                        net.cut(r);
                    }
                }
                net.settle();
                assert!(writers.iter().all(|writer| !net.held(*writer)));
                if end < 3 {
                    assert_eq!(net.take(writers[0]).len(), 100, "every PUBACK");
                }
                net.advance_secs(10);
            }
        },
    );
}

#[test]
fn a_client_that_takes_no_answers_is_not_read() {
    check_heavy(
        |_| {},
        |net| {
            let a = net.connect(Connect::v5("a"));
            net.pause(a);
            for _ in 0..2_000 {
                net.send_subscribe(a, &(0..50).fold(Subscribe::default(), |all, _| all.and("t", AtLeastOnce)));
                for _ in 0..50 {
                    net.ping(a);
                }
            }
            net.settle();
            assert!(largest_output(net) < 2 * OUTPUT_HIGH_BYTES);
            net.advance_secs(60);
            assert!(largest_output(net) < 2 * OUTPUT_HIGH_BYTES);
        },
    );
}
