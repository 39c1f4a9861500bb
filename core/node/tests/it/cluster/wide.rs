//! Messages for more subscribers than one call delivers to: at their node, and at another one.

use newtmq_mqtt::QoS::{AtLeastOnce, AtMostOnce};
use newtmq_mqtt::ReasonCode;

use super::world::World;
use crate::harness::{Connect, Publish};

/// More than a step of a fan-out.
const MANY: usize = 4_200;

fn crowd(world: &mut World, node: usize) -> Vec<usize> {
    let one = |at| {
        let person = world.join(node, Connect::v5(&format!("c{node}-{at}")));
        world.subscribe(person, "t/#", AtLeastOnce);
        person
    };
    (0..MANY).map(one).collect()
}

// cluster.md 5: no later publish is matched while an earlier one has fan-out left, here and there; and who is told, is told
// when all have it.
#[test]
pub(super) fn a_wide_fan_out_keeps_its_order_and_its_acknowledgement() {
    for node in [0, 1] {
        let mut world = World::new(1, 2, 1, |_| {});
        world.checks = false;
        let people = crowd(&mut world, node);
        let far = world.join(1 - node, Connect::v5("far"));
        world.subscribe(far, "t/#", AtLeastOnce);
        let w = world.join(0, Connect::v5("w"));
        let ids = [0, 1, 2].map(|number| world.publish(w, Publish::new("t/1", number.to_string()).qos1()));
        world.publish(w, Publish::new("t/2", "q").qos(AtMostOnce));
        world.settle();
        assert_eq!(world.acked(w), ids.map(|id| (id, ReasonCode::Success)));
        for person in people.into_iter().chain([far]) {
            assert_eq!(world.received_now(person), ["t/1 0", "t/1 1", "t/1 2", "t/2 q"]);
        }
        world.checks = true;
        world.settle();
        world.assert_idle();
    }
}
