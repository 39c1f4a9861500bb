//! S10 and L8 of wills that the cluster keeps (`will_ha`).

use super::*;

/// Ada with a will is at the first node, bob at the second waits for it.
fn kept(delay_s: u32) -> (Play, ConnIx, ConnIx, PublishFacts) {
    let broker = BrokerSpec { will_ha: Some(true), ..BrokerSpec::default() };
    let mut play = Play::cluster_with(Scenario { broker, ..Scenario::default() });
    let bob = play.connect_at(BOB, SECOND);
    play.subscribe(bob, "w", Q1);
    let (will, message) = play.will(ADA, "w", delay_s);
    let ada = play.open(ADA, ConnectFacts { will: Some(will), ..facts(ADA) });
    play.accept(ada, false);
    play.wait(10_000);
    (play, ada, bob, message)
}

impl Play {
    fn dies(&mut self, conn: ConnIx) {
        self.event(Event::Fault(Fault::Crash { node: NodeIx(FIRST), power_loss: false }));
        self.event(Event::NodeDown { node: NodeIx(FIRST) });
        self.event(Event::Close { conn, by: Closer::Network });
        self.loses(SECOND, FIRST);
        self.loses(THIRD, FIRST);
    }

    fn elsewhere(&mut self, clean: bool) {
        let conn = self.open(ADA, ConnectFacts { node: NodeIx(SECOND), clean, ..facts(ADA) });
        self.accept(conn, false);
    }
}

#[test]
fn s10_and_l8_wills_of_nodes_that_die() {
    type Case = (&'static str, u32, &'static [Check], fn(&mut Play, ConnIx, ConnIx, PublishFacts));
    let cases: &[Case] = &[
        ("comes", 0, &[], |play, ada, bob, will| {
            play.dies(ada);
            play.wait(16_000);
            play.receive(bob, &will, Q1);
        }),
        ("never comes", 0, &[Check::WillFired], |play, ada, _, _| {
            play.dies(ada);
            play.wait(30_000);
        }),
        ("never comes, delayed", 30, &[Check::WillFired], |play, ada, _, _| {
            play.dies(ada);
            play.wait(60_000);
        }),
        ("may come yet", 60, &[], |play, ada, _, _| {
            play.dies(ada);
            play.wait(20_000);
        }),
        ("no majority is left", 0, &[], |play, ada, _, _| {
            play.event(Event::Fault(Fault::Crash { node: NodeIx(THIRD), power_loss: false }));
            play.dies(ada);
            play.wait(60_000);
        }),
        ("a way was cut", 0, &[], |play, ada, _, _| {
            play.cut(SECOND, THIRD);
            play.dies(ada);
            play.wait(60_000);
        }),
        ("comes twice", 0, &[Check::Will], |play, ada, bob, will| {
            play.dies(ada);
            play.wait(16_000);
            play.receive(bob, &will, Q1);
            play.receive(bob, &will, Q1);
        }),
        ("comes of two components", 0, &[], |play, ada, bob, will| {
            play.cut(FIRST, SECOND);
            play.drop_conn(ada);
            play.wait(16_000);
            play.receive(bob, &will, Q1);
            play.heal(FIRST, SECOND);
            play.receive(bob, &will, Q1);
        }),
        ("comes while connected, of a node that was cut off", 0, &[], |play, _, bob, will| {
            play.cut(FIRST, SECOND);
            play.wait(16_000);
            play.receive(bob, &will, Q1);
        }),
        ("before its delay", 30, &[Check::Will], |play, ada, bob, will| {
            play.dies(ada);
            play.wait(16_000);
            play.receive(bob, &will, Q1);
        }),
        ("its client had disconnected", 0, &[Check::Will], |play, ada, bob, will| {
            play.leave(ada);
            play.wait(5_000);
            play.dies(ada);
            play.wait(16_000);
            play.receive(bob, &will, Q1);
        }),
        ("its client was back in time", 30, &[Check::Will], |play, ada, bob, will| {
            play.dies(ada);
            play.wait(5_000);
            play.elsewhere(false);
            play.wait(60_000);
            play.receive(bob, &will, Q1);
        }),
        ("its client was back in time, and it does not come", 30, &[], |play, ada, _, _| {
            play.dies(ada);
            play.wait(5_000);
            play.elsewhere(false);
            play.wait(60_000);
        }),
        ("its client began a new session", 30, &[], |play, ada, bob, will| {
            play.dies(ada);
            play.wait(5_000);
            play.elsewhere(true);
            play.wait(60_000);
            play.receive(bob, &will, Q1);
        }),
        ("its client was back, but it has no delay", 0, &[Check::WillFired], |play, ada, _, _| {
            play.dies(ada);
            play.wait(5_000);
            play.elsewhere(false);
            play.wait(60_000);
        }),
    ];
    for (name, delay, expected, case) in cases {
        let (mut play, ada, bob, will) = kept(*delay);
        case(&mut play, ada, bob, will);
        assert_eq!(play.found(), *expected, "{name}: {:#?}", play.findings.violations);
    }
}
