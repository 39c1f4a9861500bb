//! Wills that the cluster keeps: what a shard asks, what it waits for, and what it does when it is told.

use core::time::Duration;

use newtmq_mqtt::QoS::AtLeastOnce;
use newtmq_node::{Durability, FromControl, ShardConfig, WillNews, WillNote, WillSaid};

use super::world::{Say, World};
use crate::harness::{Connect, Got, Publish, Will};

fn kept(config: &mut ShardConfig) {
    config.zones[0].will_ha = true;
}

fn stored(config: &mut ShardConfig) {
    config.zones[0].will_ha = true;
    config.zones[0].durability = Durability::Synced;
}

fn connect(delay: u32) -> Connect {
    Connect::v5("c").resume().will(Will::new(Publish::new("will", "gone")).delay(delay))
}

impl World {
    /// What was said of wills since the last time.
    fn said(&mut self) -> Vec<WillNote> {
        self.settle();
        core::mem::take(&mut self.wills).into_iter().map(|(_, note)| note).collect()
    }

    fn the_one_said(&mut self) -> WillNote {
        let mut said = self.said();
        assert_eq!(said.len(), 1, "{said:?}");
        said.remove(0)
    }

    fn tell_will(&mut self, node: usize, news: impl FnOnce(&WillNote) -> WillNews, of: &WillNote) {
        let shard = usize::from(self.nodes[node].shards[0].home(&of.client).0);
        self.say(node, shard, Say::Control(FromControl::Will(Box::new(news(of)))));
        self.settle();
    }
}

fn is_kept(of: &WillNote) -> WillNews {
    WillNews::Kept { client: of.client.clone(), epoch: of.epoch, kept: true }
}

fn yours(of: &WillNote) -> WillNews {
    WillNews::Yours { client: of.client.clone(), epoch: of.epoch }
}

fn over(of: &WillNote) -> WillNews {
    WillNews::Over { client: of.client.clone(), epoch: of.epoch }
}

/// A world with a subscriber, and a client that was let in when its will was kept.
fn with_will(delay: u32, configure: impl Fn(&mut ShardConfig)) -> (World, usize, usize, WillNote) {
    let mut world = World::with_directories(1, 2, 2, configure);
    let r = world.join(1, Connect::v5("r"));
    world.subscribe(r, "will", AtLeastOnce);
    let c = world.start(0, connect(delay));
    let note = world.the_one_said();
    assert!(matches!(note.said, WillSaid::Keep(_)));
    assert_eq!(world.log(c), [] as [Got; 0], "it waits");
    world.tell_will(0, is_kept, &note);
    assert!(matches!(world.log(c)[..], [Got::Connack(_)]));
    (world, r, c, note)
}

#[test]
fn the_client_is_let_in_when_its_will_is_kept() {
    with_will(0, kept);
    with_will(0, stored);
}

#[test]
fn nobody_waits_for_long() {
    let mut world = World::with_directories(1, 2, 1, kept);
    let c = world.start(0, connect(0));
    world.settle();
    world.advance(Duration::from_millis(2100));
    assert!(matches!(world.log(c)[..], [Got::Connack(_)]));
    assert_eq!(world.ledger(0).wills_not_kept, 1);
    let c = world.start(0, Connect::v5("d").will(Will::new(Publish::new("will", "gone"))));
    let note = world.said().pop().expect("it is to be kept");
    world.tell_will(0, |of| WillNews::Kept { client: of.client.clone(), epoch: of.epoch, kept: false }, &note);
    assert!(matches!(world.log(c)[..], [Got::Connack(_)]));
    assert_eq!(world.ledger(0).wills_not_kept, 2);
    // Without a will there is nothing to keep.
    world.said();
    world.join(0, Connect::v5("e"));
    assert_eq!(world.said(), []);
}

#[test]
fn a_client_that_goes_while_it_waits_is_forgotten() {
    let mut world = World::with_directories(1, 2, 1, kept);
    let c = world.start(0, connect(0));
    let note = world.the_one_said();
    world.break_off(c);
    assert_eq!(world.the_one_said(), WillNote { said: WillSaid::Over, ..note });
}

#[test]
fn what_is_due_waits_for_the_word() {
    for configure in [kept as fn(&mut ShardConfig), stored] {
        for (delay, expiry) in [(0, 1000), (5, 1000), (100, 5)] {
            let mut world = World::with_directories(1, 2, 2, configure);
            let r = world.join(1, Connect::v5("r"));
            world.subscribe(r, "will", AtLeastOnce);
            let c = world.start(0, connect(delay).expiry(expiry));
            let note = world.the_one_said();
            world.tell_will(0, is_kept, &note);
            world.break_off(c);
            let (after, said) = (Duration::from_secs(if delay == 0 { 0 } else { 6 }), WillSaid::Due);
            world.advance(after);
            assert_eq!(world.the_one_said(), WillNote { said, ..note.clone() }, "delay {delay}");
            assert_eq!(world.received(r), [] as [String; 0], "delay {delay}");
            world.tell_will(0, yours, &note);
            assert_eq!(world.received(r), ["will gone"], "delay {delay}");
            assert_eq!(world.the_one_said(), WillNote { said: WillSaid::Over, ..note.clone() });
            // Once.
            world.tell_will(0, yours, &note);
            world.advance(Duration::from_secs(2000));
            assert_eq!(world.received(r), [] as [String; 0], "delay {delay}");
        }
    }
}

#[test]
fn what_others_have_published_is_not() {
    for configure in [kept as fn(&mut ShardConfig), stored] {
        // While the client is connected, while its delay runs, and when it is due.
        for at in 0..3 {
            let (mut world, r, c, note) = with_will(5, configure);
            if at > 0 {
                world.break_off(c);
            }
            world.advance(Duration::from_secs(if at == 2 { 6 } else { 1 }));
            world.said();
            world.tell_will(0, over, &note);
            assert_eq!(world.the_one_said(), WillNote { said: WillSaid::Over, ..note.clone() });
            if at == 0 {
                world.break_off(c);
            }
            world.advance(Duration::from_secs(2000));
            assert_eq!((world.received(r).len(), world.said().len()), (0, 0), "case {at}");
            assert_eq!(world.ledger(0).wills_elsewhere, 1);
        }
    }
}

#[test]
fn a_will_that_is_deleted_is_forgotten() {
    let (mut world, r, c, note) = with_will(0, kept);
    world.disconnect(c);
    assert_eq!(world.the_one_said(), WillNote { said: WillSaid::Over, ..note });
    world.advance(Duration::from_secs(2000));
    assert_eq!((world.received(r).len(), world.said().len()), (0, 0));
}

/// The next connection has a will of its own. That of the last one is due if it has no delay.
#[test]
fn the_next_connection_has_another_will() {
    for (delay, said) in [(0, WillSaid::Due), (100, WillSaid::Over)] {
        let (mut world, r, c, note) = with_will(delay, stored);
        world.break_off(c);
        world.settle();
        let c = world.start(0, connect(delay));
        let notes = world.said();
        let keep = notes.iter().find(|note| matches!(note.said, WillSaid::Keep(_))).expect("it has a will").clone();
        assert!(keep.epoch > note.epoch);
        world.tell_will(0, is_kept, &keep);
        assert!(world.log(c).iter().any(|got| matches!(got, Got::Connack(of) if of.present)));
        let notes: Vec<WillNote> = notes.into_iter().chain(world.said()).filter(|of| of.epoch == note.epoch).collect();
        assert_eq!(notes, [WillNote { said, ..note.clone() }], "delay {delay}");
        if delay == 0 {
            world.tell_will(0, yours, &note);
            assert_eq!(world.received(r), ["will gone"]);
            world.said();
        }
        // What it has now is there yet.
        world.break_off(c);
        world.advance(Duration::from_secs(200));
        assert_eq!(world.the_one_said(), WillNote { said: WillSaid::Due, ..keep.clone() }, "delay {delay}");
        world.tell_will(0, yours, &keep);
        assert_eq!(world.received(r), ["will gone"], "delay {delay}");
    }
}

#[test]
fn a_stored_session_finds_its_will() {
    for elsewhere in [false, true] {
        let (mut world, r, _, note) = with_will(0, stored);
        world.kill(0);
        world.restart(0);
        world.connect(0, 1);
        let mut said = world.said();
        said.sort_by_key(|note| note.said == WillSaid::Due);
        let expected = [WillSaid::Stored, WillSaid::Due].map(|said| WillNote { said, ..note.clone() });
        assert_eq!(said, expected);
        world.tell_will(0, if elsewhere { over } else { yours }, &note);
        assert_eq!(world.received(r).len(), usize::from(!elsewhere));
        assert_eq!(world.the_one_said(), WillNote { said: WillSaid::Over, ..note.clone() });
        // That is stored.
        world.kill(0);
        world.restart(0);
        world.connect(0, 1);
        assert_eq!(world.said(), []);
        world.advance(Duration::from_secs(2000));
        assert_eq!(world.received(r), [] as [String; 0]);
    }
}

/// What the cluster has of it keeps it from being published again, until it is stored that the session has it no more.
#[test]
pub(super) fn that_it_is_over_is_said_when_it_is_stored() {
    let mut early = 0;
    for us in (0..4000).step_by(50) {
        let (mut world, _, _, note) = with_will(0, stored);
        let shard = usize::from(world.nodes[0].shards[0].home(&note.client).0);
        world.say(0, shard, Say::Control(FromControl::Will(Box::new(over(&note)))));
        world.advance(Duration::from_micros(us));
        let is_over = world.wills.iter().any(|(_, note)| note.said == WillSaid::Over);
        world.wills.clear();
        world.kill(0);
        world.restart(0);
        world.connect(0, 1);
        let is_there = !world.said().is_empty();
        assert!(!is_over || !is_there, "after {us} us");
        early += u32::from(!is_over);
    }
    assert!(early > 0, "it is never tried");
}

#[test]
fn a_will_of_another_node_is_published() {
    let (mut world, r, _, note) = with_will(0, kept);
    let WillSaid::Keep(will) = note.said.clone() else { panic!("it is to be kept") };
    world.tell_will(1, |_| WillNews::Publish { will }, &note);
    assert_eq!(world.received(r), ["will gone"]);
    assert_eq!(world.ledger(1).wills_for_others, 1);
}
