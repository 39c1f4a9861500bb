//! Retained messages that the cluster agrees on: what a shard asks, what it waits for, and what it does when it is told.

use std::sync::Arc;

use newtmq_base::Instant;
use newtmq_mqtt::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use newtmq_mqtt::ReasonCode;
use newtmq_node::{FromControl, RetainedNews, RetainedOutcome};

use super::world::{Retain, Say, World};
use crate::harness::{Connect, Got, Publish, Subscribe};

/// Nodes that share what is retained, with one shard each.
fn sharing() -> World {
    let mut world = World::new(1, 2, 1, |_| {});
    world.tell_retained(RetainedNews::Share);
    world
}

impl World {
    fn tell_retained(&mut self, news: RetainedNews) {
        let news = Arc::new(news);
        for node in 0..self.nodes.len() {
            self.tell_all(node, &FromControl::Retained(Arc::clone(&news)));
        }
        self.settle();
    }

    /// What is to be retained since the last time.
    fn the_one_retain(&mut self) -> Retain {
        self.settle();
        let retain = self.retains.pop().expect("something is to be retained");
        assert!(self.retains.is_empty());
        retain
    }

    fn answer(&mut self, of: &Retain, outcome: RetainedOutcome) {
        let news = RetainedNews::Answer { number: of.number, outcome };
        self.say(of.by.0, of.by.1, Say::Control(FromControl::Retained(Arc::new(news))));
        self.settle();
    }

    /// It is in the log, and everybody has the log up to there.
    fn apply(&mut self, of: &Retain, index: u64) {
        let (topic, message, expires) = (of.topic.clone(), of.message.clone(), Instant::NEVER);
        self.tell_retained(RetainedNews::Set { index, topic, message, expires });
        self.tell_retained(RetainedNews::Known { need: 0, upto: index, alone: false });
    }
}

#[test]
fn a_publish_goes_on_when_it_is_agreed() {
    for qos in [AtMostOnce, AtLeastOnce, ExactlyOnce] {
        for outcome in [RetainedOutcome::At(2), RetainedOutcome::NotRetained] {
            let mut world = sharing();
            let (w, r) = (world.join(0, Connect::v5("w")), world.join(1, Connect::v5("r")));
            world.subscribe(r, "t", qos);
            let id = world.publish(w, Publish::new("t", "x").qos(qos).retain());
            let retain = world.the_one_retain();
            assert_eq!(&*retain.topic, "t");
            assert_eq!((world.received(r), world.acked(w)), (Vec::<String>::new(), vec![]), "{qos:?} waits");
            world.answer(&retain, outcome);
            assert_eq!(world.received(r), ["t x"], "{qos:?}");
            let acked = if qos == AtMostOnce { vec![] } else { vec![(id, ReasonCode::Success)] };
            assert_eq!(world.acked(w), acked);
        }
    }
}

#[test]
pub(super) fn what_could_not_be_agreed_is_refused() {
    for qos in [AtLeastOnce, ExactlyOnce] {
        let mut world = sharing();
        let (w, r) = (world.join(0, Connect::v5("w")), world.join(1, Connect::v5("r")));
        world.subscribe(r, "t", qos);
        let id = world.publish(w, Publish::new("t", "x").qos(qos).retain());
        let retain = world.the_one_retain();
        world.answer(&retain, RetainedOutcome::Refused);
        assert_eq!(world.acked(w), [(id, ReasonCode::QuotaExceeded)], "{qos:?}");
        assert_eq!(world.received(r), [] as [String; 0]);
        assert_eq!(world.ledger(0).unretained, 1);
        // An older client has no other way to hear of it.
        let old = world.join(0, Connect::v311("old"));
        world.publish(old, Publish::new("t", "y").qos(qos).retain());
        let retain = world.the_one_retain();
        world.answer(&retain, RetainedOutcome::Refused);
        assert_eq!((world.acked(old), world.is_open(old)), (vec![], false), "{qos:?}");
    }
    // Nobody waits for a message of QoS 0.
    let mut world = sharing();
    let (w, r) = (world.join(0, Connect::v5("w")), world.join(1, Connect::v5("r")));
    world.subscribe(r, "t", AtMostOnce);
    world.publish(w, Publish::new("t", "x").retain());
    let retain = world.the_one_retain();
    world.answer(&retain, RetainedOutcome::Refused);
    assert_eq!(world.received(r), ["t x"]);
}

#[test]
pub(super) fn who_reads_waits_for_what_others_have_acknowledged() {
    let mut world = sharing();
    let (w, r) = (world.join(0, Connect::v5("w")), world.join(1, Connect::v5("r")));
    let id = world.publish(w, Publish::new("t", "x").qos1().retain());
    let retain = world.the_one_retain();
    world.answer(&retain, RetainedOutcome::At(5));
    assert_eq!(world.acked(w), [(id, ReasonCode::NoMatchingSubscribers)]);
    // The other nodes have acknowledged what this one does not have yet.
    world.acknowledged = 5;
    world.send_subscribe(r, &Subscribe::new("t", AtLeastOnce));
    assert_eq!(world.received(r), [] as [String; 0]);
    assert!(matches!(world.log(r)[..], [Got::Suback(..)]), "it is let in meanwhile");
    world.tell_retained(RetainedNews::Known { need: 0, upto: 4, alone: false });
    assert_eq!(world.received(r), [] as [String; 0]);
    world.apply(&retain, 5);
    assert_eq!(world.received(r), ["t x"]);
    // Without a leader there is nobody to wait for.
    world.acknowledged = 9;
    let late = world.join(1, Connect::v5("late"));
    world.send_subscribe(late, &Subscribe::new("t", AtLeastOnce));
    assert_eq!(world.received(late), [] as [String; 0]);
    world.tell_retained(RetainedNews::Known { need: 0, upto: 5, alone: true });
    assert_eq!(world.received(late), ["t x"]);
}
