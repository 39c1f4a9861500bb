//! Back-pressure between shards: lanes that are full, and targets at another shard than their publisher.

use core::time::Duration;

use newtmq_mqtt::QoS::{AtLeastOnce, AtMostOnce};
use newtmq_topic::PickStrategy;

use crate::harness::{Client, Connect, Net, Publish, check_shards_heavy};

const LANE_HIGH_BYTES: usize = 1 << 20;
const PAYLOAD_BYTES: usize = 10_000;

fn payload(index: usize) -> Vec<u8> {
    let mut payload = vec![b'.'; PAYLOAD_BYTES];
    payload[..8].copy_from_slice(format!("{index:08}").as_bytes());
    payload
}

fn indices(net: &mut Net, client: Client) -> Vec<usize> {
    let messages = net.messages(client).into_iter();
    messages.map(|message| String::from_utf8_lossy(&message.publish.payload[..8]).parse().unwrap()).collect()
}

fn connect_at(net: &mut Net, shard: usize, name: &str) -> Client {
    let id = net.id_at(shard, name);
    net.connect(Connect::v5(&id).expiry(3600))
}

/// Lets everything happen; the most bytes that were in a lane, and whether the client was held.
fn watch(net: &mut Net, client: Client, time: Duration) -> (usize, bool) {
    let (mut most, mut held) = (0, false);
    let until = net.now() + time;
    while net.now() < until {
        net.advance(Duration::from_millis(5));
        most = most.max(net.view().lane_bytes_max());
        held |= net.held(client);
    }
    (most, held)
}

#[test]
fn a_shard_slow_to_work_holds_publishers_of_others() {
    check_shards_heavy(
        &[2, 4],
        3,
        |_| {},
        |net| {
            let r = connect_at(net, 1, "r");
            net.subscribe(r, "t", AtMostOnce);
            let w = connect_at(net, 0, "w");
            net.work_delay = Some(Duration::from_millis(30));
            for index in 0..600 {
                net.publish(w, Publish::new("t", payload(index)));
            }
            let (most, held) = watch(net, w, Duration::from_secs(2));
            assert!(held && (LANE_HIGH_BYTES..LANE_HIGH_BYTES + 2 * PAYLOAD_BYTES).contains(&most), "{held} {most}");
            assert_eq!(indices(net, r), (0..600).collect::<Vec<_>>());
            assert_eq!((net.view().waits(), net.ledger().dropped_total()), ((0, 0), 0));
        },
    );
}

#[test]
fn the_owner_of_retained_topics_holds_publishers_too() {
    check_shards_heavy(
        &[2, 4],
        3,
        |_| {},
        |net| {
            let w = connect_at(net, 0, "w");
            let topic = net.id_at(1, "owned");
            net.work_delay = Some(Duration::from_millis(30));
            for index in 0..600 {
                net.publish(w, Publish::new(&topic, payload(index)).retain());
            }
            let (most, held) = watch(net, w, Duration::from_secs(2));
            assert!(held && most < LANE_HIGH_BYTES + 2 * PAYLOAD_BYTES, "{held} {most}");
            net.settle();
            assert_eq!(net.view().waits(), (0, 0));
            let r = connect_at(net, 0, "r");
            net.subscribe(r, "#", AtMostOnce);
            assert_eq!(indices(net, r), [599]);
        },
    );
}

#[test]
fn a_shard_that_passes_a_groups_messages_on_holds_their_publishers_for_the_next() {
    check_shards_heavy(
        &[3, 4],
        3,
        |config| config.shared_strategy = PickStrategy::Sticky,
        |net| {
            // The first place that has members: all messages go there first, and on from there.
            let away = connect_at(net, 1, "away");
            net.subscribe(away, "$share/g/t", AtLeastOnce);
            net.cut(away);
            let member = connect_at(net, 2, "member");
            net.subscribe(member, "$share/g/t", AtMostOnce);
            let w = connect_at(net, 0, "w");
            (net.work_delay, net.slow_shard) = (Some(Duration::from_millis(30)), Some(2));
            for index in 0..800 {
                net.publish(w, Publish::new("t", payload(index)));
            }
            let (most, held) = watch(net, w, Duration::from_secs(2));
            // What is in the first lane may have to be put into the second.
            assert!(held && most < 2 * LANE_HIGH_BYTES + 2 * PAYLOAD_BYTES, "{held} {most}");
            assert_eq!(indices(net, member), (0..800).collect::<Vec<_>>());
            assert_eq!((net.view().waits(), net.ledger().dropped_total()), ((0, 0), 0));
        },
    );
}

/// Publishers and targets at different shards, all of them in one storm of pauses, cuts, takeovers and departures.
#[test]
fn holds_end_whatever_ends_them() {
    check_shards_heavy(
        &[2, 3, 4],
        4,
        |config| config.zones[0].max_publisher_hold = Duration::from_secs(3),
        |net| {
            let shards = net.shards();
            let start = |net: &mut Net, shard: usize, name: &str, v5: bool| {
                let id = net.id_at(shard, name);
                net.connect(if v5 { Connect::v5(&id) } else { Connect::v311(&id) })
            };
            let mut targets = Vec::new();
            for number in 0..3 {
                let target = start(net, number % shards, &format!("r{number}"), true);
                net.subscribe(target, "t", AtMostOnce);
                targets.push(target);
            }
            let mut writers: Vec<Client> = (0..4).map(|n| start(net, n % shards, &format!("w{n}"), n < 2)).collect();
            for index in 0..120 {
                let at = net.below(writers.len());
                for _ in 0..20 {
                    net.publish(writers[at], Publish::new("t", payload(index)));
                }
                let number = net.below(3);
                let target = targets[number];
                match net.below(12) {
                    0 | 1 => net.pause(target),
                    2 => net.unpause(target),
                    3 => net.read_some(target, 100_000),
                    4 => {
                        // Taken over, or cut and back.
                        if net.below(2) == 0 {
                            net.cut(target);
                        }
                        targets[number] = start(net, number % shards, &format!("r{number}"), true);
                        net.subscribe(targets[number], "t", AtMostOnce);
                    }
                    5 => {
                        net.cut(writers[at]);
                        writers[at] = start(net, at % shards, &format!("w{at}"), at < 2);
                    }
                    6 => net.advance(Duration::from_millis(400)),
                    7 => net.advance(Duration::from_millis(1500)),
                    _ => net.wait_below(3000),
                }
            }
            for target in &targets {
                net.unpause(*target);
            }
            net.settle();
            net.advance_secs(5);
            assert_eq!(net.view().waits(), (0, 0));
            assert!(writers.iter().all(|writer| !net.held(*writer)));
            for target in &targets {
                net.take(*target);
            }
            for writer in writers {
                net.publish(writer, Publish::new("t", payload(7)));
            }
            for target in targets {
                assert_eq!(indices(net, target), [7; 4]);
            }
        },
    );
}

#[test]
fn a_wait_for_a_shard_leaves_a_later_one_for_a_client_its_limit() {
    check_shards_heavy(
        &[3, 4],
        8,
        |config| config.zones[0].max_publisher_hold = Duration::from_secs(2),
        |net| {
            let slow = connect_at(net, 1, "slow");
            let other = connect_at(net, 2, "other");
            net.subscribe(slow, "t", AtMostOnce);
            net.subscribe(other, "t", AtMostOnce);
            net.pause(slow);
            let w = connect_at(net, 0, "w");
            net.work_delay = Some(Duration::from_secs(3));
            for index in 0..150 {
                net.publish(w, Publish::new("t", payload(index)));
            }
            net.advance(Duration::from_millis(2_990));
            assert!(net.held(w) && net.view().lane_bytes_max() > LANE_HIGH_BYTES);
            net.work_delay = None;
            let before = net.ledger().accepted;
            let mut quarters = 0;
            while net.ledger().accepted == before {
                net.read_some(slow, 40_000);
                net.advance(Duration::from_millis(250));
                quarters += 1;
                assert!(quarters <= 10, "held for ever");
            }
            net.unpause(slow);
        },
    );
}
