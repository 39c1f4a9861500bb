//! Shared subscriptions over nodes (section 4.8.2): one member gets it, wherever it is, and another one if that one is gone.

use core::time::Duration;

use newtmq_mqtt::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use newtmq_mqtt::ReasonCode;
use newtmq_node::Durability;
use newtmq_topic::PickStrategy;

use super::world::World;
use crate::harness::{Connect, Publish};

const GROUP: &str = "$share/g/t";

fn world_of(seed: u64, shards: u16) -> (World, Vec<usize>, usize) {
    let mut world = World::new(seed, 3, shards, |config| config.shared_strategy = PickStrategy::RoundRobin);
    let members: Vec<usize> = (0..3)
        .map(|node| {
            let member = world.join(node, Connect::v5(&format!("m{node}")));
            world.subscribe(member, GROUP, ExactlyOnce);
            member
        })
        .collect();
    let w = world.join(0, Connect::v5("w"));
    (world, members, w)
}

fn all(world: &mut World, members: &[usize]) -> Vec<usize> {
    let mut got: Vec<usize> = Vec::new();
    for member in members {
        got.extend(world.received(*member).iter().map(|text| text[2..].parse::<usize>().unwrap()));
    }
    got.sort_unstable();
    got
}

#[test]
pub(super) fn members_of_all_nodes_take_turns() {
    for (seed, shards) in [(1, 1), (2, 2)] {
        for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
            let (mut world, members, w) = world_of(seed, shards);
            let ids: Vec<u16> =
                (0..30).map(|number| world.publish(w, Publish::new("t", number.to_string()).qos(qos))).collect();
            let counts: Vec<usize> = members.iter().map(|member| world.received(*member).len()).collect();
            assert_eq!(counts, [10, 10, 10]);
            if qos > AtMostOnce {
                let acked: Vec<_> = ids.iter().map(|id| (*id, ReasonCode::Success)).collect();
                assert_eq!(world.acked(w), acked);
            }
            world.settle();
            world.assert_idle();
        }
    }
}

// S11, P13: at least one member.
#[test]
pub(super) fn what_a_node_that_is_down_had_goes_to_other_members() {
    for seed in 0..10 {
        let (mut world, members, w) = world_of(seed, 1 + (seed % 2) as u16);
        world.cut(0, 1);
        let ids: Vec<u16> =
            (0..9).map(|number| world.publish(w, Publish::new("t", number.to_string()).qos1())).collect();
        world.settle();
        let mut acked = world.acked(w);
        assert!(acked.len() < 9);
        world.down(0, 1);
        world.advance(Duration::from_secs(2));
        assert_eq!(all(&mut world, &members), (0..9).collect::<Vec<_>>());
        acked.append(&mut world.acked(w));
        assert_eq!(acked, ids.into_iter().map(|id| (id, ReasonCode::Success)).collect::<Vec<_>>());
    }
}

#[test]
pub(super) fn a_member_that_has_left_is_replaced() {
    for seed in 0..20 {
        let (mut world, members, w) = world_of(seed, 1 + (seed % 2) as u16);
        for number in 0..12 {
            world.publish(w, Publish::new("t", number.to_string()).qos1());
        }
        // Its node hears of the messages when it has gone.
        world.break_off(members[1]);
        world.advance(Duration::from_secs(1));
        assert_eq!(all(&mut world, &[members[0], members[2]]), (0..12).collect::<Vec<_>>(), "seed {seed}");
        let reasons: Vec<ReasonCode> = world.acked(w).into_iter().map(|(_, reason)| reason).collect();
        assert_eq!(reasons, [ReasonCode::Success; 12]);
        world.assert_idle();
    }
}

// P13, section 4.8.2: what a member has not acknowledged is for another one when its session ends, here or at another node.
// QoS 2 is bound to it.
#[test]
pub(super) fn what_a_member_has_not_acknowledged_goes_to_others_when_its_session_ends() {
    for seed in 0..12 {
        let mut world = World::new(seed, 2, 1 + (seed % 3) as u16, |_| {});
        let w = world.join(0, Connect::v5("w"));
        let first = world.join(1, Connect::v5("first").manual().receive_maximum(3));
        world.subscribe(first, GROUP, ExactlyOnce);
        for number in 0..8 {
            let qos = if number == 5 { ExactlyOnce } else { AtLeastOnce };
            world.publish(w, Publish::new("t", number.to_string()).qos(qos));
        }
        assert_eq!(all(&mut world, &[first]), [0, 1, 2]);
        assert_eq!(world.acked(w).len(), 8);
        let second = world.join((seed % 2) as usize, Connect::v5("second"));
        world.subscribe(second, GROUP, ExactlyOnce);
        world.break_off(first);
        assert_eq!(all(&mut world, &[second]), [0, 1, 2, 3, 4, 6, 7], "seed {seed}");
        world.assert_idle();
    }
}

// [MQTT-3.3.2-6]: a message that goes on to a third node is not told to expire later than it was published to.
#[test]
pub(super) fn what_goes_on_to_a_third_node_expires_no_later() {
    let mut world = World::new(1, 3, 1, |_| {});
    let w = world.join(0, Connect::v5("w"));
    let first = world.join(1, Connect::v5("first").manual());
    world.subscribe(first, GROUP, AtLeastOnce);
    world.publish(w, Publish { expiry: Some(7), ..Publish::new("t", "0").qos1() });
    world.settle();
    let second = world.join(2, Connect::v5("second"));
    world.subscribe(second, GROUP, AtLeastOnce);
    world.break_off(first);
    world.settle();
    let expiries = world.messages_now(second).iter().map(|message| message.publish.expiry).collect::<Vec<_>>();
    assert_eq!(expiries, [Some(7)]);
}

// The same of a session that is stored, over a restart of its node: nothing that was acknowledged is lost in between.
#[test]
pub(super) fn a_stored_member_passes_on_what_it_has_not_acknowledged() {
    for seed in 0..6 {
        let durability = Durability::Synced;
        let mut world = World::new(seed, 2, 1 + (seed % 2) as u16, |config| config.zones[0].durability = durability);
        let w = world.join(0, Connect::v5("w"));
        let first = world.join(1, Connect::v5("first").manual().expiry(1000));
        world.subscribe(first, GROUP, AtLeastOnce);
        for number in 0..4 {
            world.publish(w, Publish::new("t", number.to_string()).qos1());
        }
        world.settle();
        world.break_off(first);
        world.settle();
        world.kill(1);
        world.restart(1);
        world.connect(0, 1);
        world.settle();
        let second = world.join((seed % 2) as usize, Connect::v5("second").clean_start(false).expiry(1000));
        world.subscribe(second, GROUP, AtLeastOnce);
        // A clean start ends the session before.
        let again = world.join(1, Connect::v5("first"));
        assert_eq!(all(&mut world, &[second, again]), [0, 1, 2, 3], "seed {seed}");
        world.advance(Duration::from_secs(2));
        world.assert_idle();
    }
}

#[test]
pub(super) fn without_any_member_the_publisher_is_told() {
    let mut world = World::new(3, 2, 1, |_| {});
    let member = world.join(1, Connect::v5("m"));
    world.subscribe(member, GROUP, AtLeastOnce);
    let w = world.join(0, Connect::v5("w"));
    let id = world.publish(w, Publish::new("t", "x").qos1());
    world.break_off(member);
    world.settle();
    assert_eq!(world.acked(w), [(id, ReasonCode::NoMatchingSubscribers)]);
    world.assert_idle();
}

// P13: no PUBACK before a member's node has stored it.
#[test]
pub(super) fn an_acknowledgement_waits_for_the_disk_of_a_member() {
    for (seed, shards) in [(1, 1), (2, 3)] {
        let mut world = World::new(seed, 2, shards, |config| config.zones[0].durability = Durability::Synced);
        let w = world.join(0, Connect::v5("w"));
        let member = world.join(1, Connect::v5("member").expiry(1000));
        world.subscribe(member, GROUP, AtLeastOnce);
        world.nodes[1].stuck = true;
        let id = world.publish(w, Publish::new("t", "7").qos1());
        world.settle();
        assert_eq!(world.acked(w), []);
        world.nodes[1].stuck = false;
        world.store_soon(1);
        world.settle();
        assert_eq!(world.acked(w), [(id, ReasonCode::Success)]);
        world.settle();
        assert_eq!(all(&mut world, &[member]), [7]);
        world.assert_idle();
    }
}
