//! Clients that come to another node: what goes along, and what cannot be told.

use super::cluster::{FIRST, SECOND, THIRD, each};
use super::*;

impl Play {
    /// The client's connection breaks, and it is at another node.
    fn hops(&mut self, conn: ConnIx, client: u32, node: u16, present: bool) -> ConnIx {
        self.event(Event::Close { conn, by: Closer::Network });
        self.wait(1);
        let new = self.open(client, ConnectFacts { node: NodeIx(node), ..facts(client) });
        self.event(Event::Gone { conn });
        self.accept(new, present);
        new
    }

    fn isolate(&mut self, node: u16, cut: bool) {
        for other in (0..3).filter(|other| *other != node) {
            if cut {
                self.cut(node, other);
                self.cut(other, node);
                self.loses(node, other);
                self.loses(other, node);
            } else {
                self.heal(node, other);
                self.heal(other, node);
                self.meets(node, other);
                self.meets(other, node);
            }
        }
    }
}

#[test]
fn a_session_goes_along_whole() {
    each(&[
        (
            "with what waits",
            |play, ada, bob| {
                let message = play.publish(ada, ADA, "t/a", Q1);
                let bob = play.hops(bob, BOB, THIRD, true);
                play.receive(bob, &message, Q1);
            },
            None,
        ),
        (
            "S1: what waits is lost",
            |play, ada, bob| {
                play.publish(ada, ADA, "t/a", Q1);
                play.hops(bob, BOB, THIRD, true);
            },
            Some(Check::Lost),
        ),
        (
            "S1: what comes afterwards is lost",
            |play, ada, bob| {
                play.hops(bob, BOB, THIRD, true);
                play.publish(ada, ADA, "t/a", Q1);
            },
            Some(Check::Lost),
        ),
        (
            "S1: a cut while it went",
            |play, ada, bob| {
                play.publish(ada, ADA, "t/a", Q1);
                play.isolate(FIRST, true);
                play.hops(bob, BOB, THIRD, true);
                play.isolate(FIRST, false);
            },
            None,
        ),
        (
            "S3: handed on twice",
            |play, ada, bob| {
                let message = play.publish(ada, ADA, "t/a", Q2);
                play.receive(bob, &message, Q2);
                let bob = play.hops(bob, BOB, THIRD, true);
                play.receive(bob, &message, Q2);
            },
            Some(Check::Twice),
        ),
        (
            "S4: a second copy",
            |play, ada, bob| {
                let message = play.publish(ada, ADA, "t/a", Q1);
                play.receive(bob, &message, Q1);
                let bob = play.hops(bob, BOB, THIRD, true);
                play.receive(bob, &message, Q1);
            },
            Some(Check::Duplicate),
        ),
        (
            "S4: the node that it had left was cut off",
            |play, ada, bob| {
                let message = play.publish(ada, ADA, "t/a", Q1);
                play.receive(bob, &message, Q1);
                let bob = play.hops(bob, BOB, THIRD, true);
                play.isolate(SECOND, true);
                play.receive(bob, &message, Q1);
                play.isolate(SECOND, false);
            },
            None,
        ),
        (
            "S5: the second one first",
            |play, ada, bob| {
                let (one, two) = (play.publish(ada, ADA, "t/a", Q1), play.publish(ada, ADA, "t/a", Q1));
                let bob = play.hops(bob, BOB, THIRD, true);
                play.receive(bob, &two, Q1);
                play.receive(bob, &one, Q1);
            },
            Some(Check::Order),
        ),
        (
            "S7: it was there",
            |play, _, bob| {
                play.hops(bob, BOB, THIRD, false);
            },
            Some(Check::SessionPresent),
        ),
        (
            "S7: its node cannot be reached",
            |play, _, bob| {
                play.isolate(SECOND, true);
                play.hops(bob, BOB, THIRD, false);
                play.isolate(SECOND, false);
            },
            None,
        ),
    ]);
}

#[test]
fn s5_a_publisher_keeps_its_order_at_another_node() {
    for is_cut in [false, true] {
        let mut play = Play::cluster();
        let (ada, bob) = super::cluster::pair(&mut play, "t", Q1);
        let one = play.publish(ada, ADA, "t", Q1);
        let ada = play.hops(ada, ADA, THIRD, true);
        let two = play.publish(ada, ADA, "t", Q1);
        if is_cut {
            play.isolate(FIRST, true);
        }
        play.receive(bob, &two, Q1);
        play.receive(bob, &one, Q1);
        if is_cut { play.passes() } else { play.fails(Check::Order) }
    }
}

/// Who is refused is told so; nobody is given another session.
#[test]
fn s7_a_stored_session_out_of_reach_is_not_begun_anew() {
    for (is_stored, seconds, fails) in [(true, 60, true), (false, 60, false), (true, 0, false)] {
        let durability = is_stored.then_some(crate::scenario::DurabilitySpec::Always);
        let broker = BrokerSpec { durability, ..BrokerSpec::default() };
        let mut play = Play::cluster_with(Scenario { broker, ..Scenario::default() });
        let bob = play.connect_at(BOB, SECOND);
        // The others have to hear of it first.
        play.wait(seconds * 1_000);
        play.isolate(SECOND, true);
        play.hops(bob, BOB, THIRD, false);
        if fails { play.fails(Check::SessionPresent) } else { play.passes() }
    }
}

#[test]
fn s2_nothing_of_a_session_comes_after_a_clean_start_elsewhere() {
    for has_left in [false, true] {
        let mut play = Play::cluster();
        let (ada, bob) = super::cluster::pair(&mut play, "t", Q1);
        play.wait(10_000);
        play.isolate(SECOND, true);
        play.event(Event::Close { conn: bob, by: Closer::Client });
        if has_left {
            play.event(Event::Gone { conn: bob });
        }
        play.wait(1);
        let new = play.open(BOB, ConnectFacts { node: NodeIx(THIRD), clean: true, ..facts(BOB) });
        play.accept(new, false);
        play.isolate(SECOND, false);
        play.wait(10_000);
        let message = play.publish(ada, ADA, "t", Q1);
        play.receive(new, &message, Q1);
        // The old connection may be the one that is left, if nobody has ended it.
        if has_left { play.fails(Check::Phantom) } else { play.passes() }
    }
}

/// The later connection stays; of two that came soon after each other either may.
#[test]
fn l13_the_later_connection_stays() {
    for (seconds, fails) in [(30, true), (1, false)] {
        let mut play = Play::cluster();
        play.isolate(SECOND, true);
        let first = play.connect_at(BOB, SECOND);
        play.wait(seconds * 1_000);
        let second = play.open(BOB, ConnectFacts { node: NodeIx(THIRD), ..facts(BOB) });
        play.accept(second, false);
        play.isolate(SECOND, false);
        play.wait(100);
        let code = ReasonCode::SessionTakenOver;
        play.event(Event::Disconnect { conn: second, by: Closer::Server, code, expiry_s: None });
        play.event(Event::Close { conn: second, by: Closer::Server });
        play.event(Event::Gone { conn: second });
        play.event(Event::Close { conn: first, by: Closer::Client });
        if fails { play.fails(Check::Kept) } else { play.passes() }
    }
}
