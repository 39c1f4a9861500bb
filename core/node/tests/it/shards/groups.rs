//! Share groups whose members are at several shards (section 4.8.2).

use core::time::Duration;

use newtmq_mqtt::QoS::{AtLeastOnce, AtMostOnce};
use newtmq_node::DropReason;
use newtmq_topic::PickStrategy;

use crate::harness::{Client, Connect, Net, Publish, check_shards, check_shards_heavy};

fn connect_at(net: &mut Net, shard: usize, name: &str) -> Client {
    let id = net.id_at(shard, name);
    net.connect(Connect::v5(&id).expiry(3600))
}

/// Members of `$share/g/t`, so many at each shard.
fn members(net: &mut Net, per_shard: &[usize]) -> Vec<Client> {
    let mut members = Vec::new();
    for (shard, count) in per_shard.iter().enumerate() {
        for index in 0..*count {
            let member = connect_at(net, shard, &format!("m{index}"));
            net.subscribe(member, "$share/g/t", AtLeastOnce);
            members.push(member);
        }
    }
    members
}

fn counts(net: &mut Net, members: &[Client]) -> Vec<usize> {
    members.iter().map(|member| net.received(*member).len()).collect()
}

fn check_strategy(strategy: PickStrategy, seeds: u64, test: impl Fn(&mut Net)) {
    check_shards(&[2, 3, 4, 7], seeds, |config| config.shared_strategy = strategy, test);
}

#[test]
fn round_robin_is_exact_over_all_members() {
    check_strategy(PickStrategy::RoundRobin, 8, |net| {
        let members = members(net, &[3, 1]);
        let writer = net.below(net.shards());
        let w = connect_at(net, writer, "w");
        for index in 0..40 {
            net.publish(w, Publish::new("t", index.to_string()).qos1());
        }
        assert_eq!(counts(net, &members), [10; 4]);
        // And over those who are left.
        net.unsubscribe(members[0], &["$share/g/t"]);
        net.disconnect(members[3]);
        net.advance_secs(4000);
        for index in 0..40 {
            net.publish(w, Publish::new("t", index.to_string()).qos1());
        }
        assert_eq!(counts(net, &members), [0, 20, 20, 0]);
    });
}

#[test]
fn sticky_is_one_member_for_publishers_of_all_shards_until_it_leaves() {
    check_strategy(PickStrategy::Sticky, 8, |net| {
        let shards = net.shards();
        let members = members(net, &vec![2; shards]);
        let writers: Vec<Client> = (0..shards).map(|shard| connect_at(net, shard, "w")).collect();
        for gone in 0..members.len() {
            for index in 0..5 {
                for writer in &writers {
                    net.publish(*writer, Publish::new("t", index.to_string()).qos1());
                }
            }
            let counts = counts(net, &members);
            assert_eq!(counts.iter().filter(|count| **count > 0).count(), 1, "{counts:?} after {gone}");
            let stuck = counts.iter().position(|count| *count > 0).unwrap();
            assert_eq!(counts[stuck], 5 * shards);
            net.unsubscribe(members[stuck], &["$share/g/t"]);
        }
    });
}

#[test]
fn hash_is_one_member_for_each_publisher() {
    check_strategy(PickStrategy::Hash, 8, |net| {
        let shards = net.shards();
        let members = members(net, &vec![2; shards]);
        let mut chosen = Vec::new();
        for number in 0..12 {
            let w = connect_at(net, number % shards, &format!("w{number}"));
            for index in 0..5 {
                net.publish(w, Publish::new("t", index.to_string()).qos1());
            }
            let counts = counts(net, &members);
            assert_eq!(counts.iter().max(), Some(&5));
            assert_eq!(counts.iter().sum::<usize>(), 5);
            chosen.push(counts.iter().position(|count| *count == 5));
        }
        assert!(chosen.iter().any(|other| *other != chosen[0]), "{chosen:?}");
    });
}

#[test]
fn random_is_roughly_uniform() {
    check_strategy(PickStrategy::Random, 2, |net| {
        let members = members(net, &[3, 1]);
        let writers: Vec<Client> = (0..net.shards()).map(|shard| connect_at(net, shard, "w")).collect();
        for index in 0..400 {
            net.publish(writers[index % writers.len()], Publish::new("t", index.to_string()).qos1());
        }
        let counts = counts(net, &members);
        assert!(counts.iter().all(|count| (60..=140).contains(count)), "{counts:?}");
    });
}

#[test]
fn nobody_who_is_away_or_busy_gets_a_message_while_another_is_ready() {
    for strategy in [PickStrategy::Random, PickStrategy::RoundRobin, PickStrategy::Sticky, PickStrategy::Hash] {
        check_strategy(strategy, 4, |net| {
            let shards = net.shards();
            let members = members(net, &vec![2; shards]);
            let ready = net.below(members.len());
            let busy = (ready + 1) % members.len();
            for (index, member) in members.iter().enumerate() {
                if index != ready && index != busy {
                    net.cut(*member);
                }
            }
            net.auto_ack(members[busy], false);
            let writers: Vec<Client> = (0..shards).map(|shard| connect_at(net, shard, "w")).collect();
            for index in 0..60 {
                net.publish(writers[index % shards], Publish::new("t", index.to_string()).qos1());
            }
            assert_eq!(counts(net, &members).iter().sum::<usize>(), 60);
            // The window of one of them is full: the other gets all.
            let full = connect_at(net, 0, "full");
            net.unsubscribe(members[busy], &["$share/g/t"]);
            let id = net.id_at(net.shards() - 1, "narrow");
            let narrow = net.connect(Connect::v5(&id).receive_maximum(1).manual());
            net.subscribe(narrow, "$share/g/t", AtLeastOnce);
            for index in 0..40 {
                net.publish(full, Publish::new("t", index.to_string()).qos1());
                net.settle();
            }
            assert!(net.received(narrow).len() <= 1);
            assert!(net.received(members[ready]).len() >= 39);
        });
    }
}

#[test]
fn a_message_under_way_finds_a_member_while_there_is_one() {
    check_strategy(PickStrategy::Sticky, 60, |net| {
        let shards = net.shards();
        let per_shard: Vec<usize> = (0..shards).map(|shard| usize::from(shard > 0)).collect();
        let members = members(net, &per_shard);
        for member in &members {
            net.cut(*member);
        }
        let w = connect_at(net, 0, "w");
        let first = net.id_at(1, "m0");
        for _ in 0..6 {
            net.publish(w, Publish::new("t", "x").qos1());
        }
        net.wait_below(4000);
        // A clean start ends the session of the member that was chosen.
        net.start(Connect::v5(&first));
        net.settle();
        let ledger = net.ledger();
        if shards > 2 {
            assert_eq!((ledger.unmatched, ledger.matched), (0, 6), "{ledger:?}");
        }
        let lost = net.dropped(DropReason::SessionEnded);
        assert_eq!(ledger.matched, lost + net.view().queued());
    });
}

#[test]
fn nothing_is_lost_but_with_a_session_while_members_come_and_go() {
    for strategy in [PickStrategy::Random, PickStrategy::RoundRobin, PickStrategy::Sticky, PickStrategy::Hash] {
        check_strategy(strategy, 10, |net| {
            let shards = net.shards();
            // One stays all the time.
            let stays = connect_at(net, shards - 1, "stays");
            net.subscribe(stays, "$share/g/t", AtLeastOnce);
            let others: Vec<Client> = (0..2 * shards).map(|n| connect_at(net, n % shards, &format!("o{n}"))).collect();
            let writers: Vec<Client> = (0..shards).map(|shard| connect_at(net, shard, "w")).collect();
            for client in &others {
                net.allow(*client, &["$share/g/t".into()]);
            }
            for number in 0..150 {
                let other = others[net.below(others.len())];
                match net.below(5) {
                    0 => drop(net.send_subscribe(other, &crate::harness::Subscribe::new("$share/g/t", AtLeastOnce))),
                    1 => drop(net.send_unsubscribe(other, &["$share/g/t"])),
                    2 => net.wait_below(1500),
                    _ => {
                        let writer = writers[net.below(shards)];
                        net.publish(writer, Publish::new("t", number.to_string()).qos1());
                    }
                }
            }
            net.settle();
            let mut all: Vec<String> = Vec::new();
            for client in others.iter().chain([&stays]) {
                all.extend(net.received(*client));
            }
            let got = all.len();
            all.sort_unstable();
            all.dedup();
            assert_eq!((all.len(), got as u64), (got, net.ledger().accepted));
            assert_eq!((net.ledger().unmatched, net.ledger().dropped_total(), net.view().queued()), (0, 0, 0));
        });
    }
}

#[test]
fn a_member_is_not_held_by_its_own_output() {
    check_shards_heavy(
        &[1, 2, 4],
        3,
        |_| {},
        |net| {
            let away = connect_at(net, net.shards() - 1, "away");
            net.subscribe(away, "$share/g/t", AtMostOnce);
            net.cut(away);
            let a = connect_at(net, 0, "a");
            net.subscribe(a, "$share/g/t", AtMostOnce);
            net.pause(a);
            for _ in 0..400 {
                net.publish(a, Publish::new("t", vec![b'.'; 10_000]));
            }
            net.advance(Duration::from_millis(500));
            assert!(!net.held(a));
            net.unpause(a);
        },
    );
}
