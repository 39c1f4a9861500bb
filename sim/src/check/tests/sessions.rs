//! S6, S7, S10 and L8: connections, sessions and wills.

use super::*;

#[test]
fn s7_session_present() {
    type Case = (&'static str, bool, fn(&mut Play));
    let cases: &[Case] = &[
        ("a first one", false, |play| {
            play.resume(ADA);
        }),
        ("a session that is there", true, |play| {
            let ada = play.connect(ADA);
            play.drop_conn(ada);
            play.wait(10_000);
            play.resume(ADA);
        }),
        ("a session that is there and denied", false, |play| {
            let ada = play.connect(ADA);
            play.drop_conn(ada);
            play.wait(10_000);
            play.connect(ADA);
        }),
        ("a new one was asked for", false, |play| {
            let ada = play.connect(ADA);
            play.drop_conn(ada);
            let ada = play.open(ADA, ConnectFacts { clean: true, ..facts(ADA) });
            play.accept(ada, true);
        }),
        ("without expiry", false, |play| {
            let ada = play.open(ADA, ConnectFacts { expiry_s: None, ..facts(ADA) });
            play.accept(ada, false);
            play.drop_conn(ada);
            play.resume(ADA);
        }),
        ("expired", false, |play| {
            let ada = play.open(ADA, ConnectFacts { expiry_s: Some(10), ..facts(ADA) });
            play.accept(ada, false);
            play.drop_conn(ada);
            play.wait(15_000);
            play.resume(ADA);
        }),
        ("expired, the client did not notice", true, |play| {
            let ada = play.open(ADA, ConnectFacts { expiry_s: Some(10), ..facts(ADA) });
            play.accept(ada, false);
            play.event(Event::Close { conn: ada, by: Closer::Client });
            play.wait(15_000);
            play.resume(ADA);
        }),
        ("about to expire", true, |play| {
            let ada = play.open(ADA, ConnectFacts { expiry_s: Some(10), ..facts(ADA) });
            play.accept(ada, false);
            play.drop_conn(ada);
            play.wait(9800);
            play.connect(ADA);
        }),
        ("DISCONNECT ends it", false, |play| {
            let ada = play.connect(ADA);
            let code = ReasonCode::Success;
            play.event(Event::Disconnect { conn: ada, by: Closer::Client, code, expiry_s: Some(0) });
            play.drop_conn(ada);
            play.resume(ADA);
        }),
        ("after a crash", false, |play| {
            let ada = play.connect(ADA);
            play.event(Event::Fault(Fault::Crash { node: NodeIx(0), power_loss: false }));
            play.event(Event::Close { conn: ada, by: Closer::Network });
            play.event(Event::Fault(Fault::Restart { node: NodeIx(0) }));
            play.resume(ADA);
        }),
        ("new after a crash", true, |play| {
            let ada = play.connect(ADA);
            play.event(Event::Fault(Fault::Crash { node: NodeIx(0), power_loss: false }));
            play.event(Event::Close { conn: ada, by: Closer::Network });
            play.event(Event::Fault(Fault::Restart { node: NodeIx(0) }));
            play.connect(ADA);
        }),
        ("an attempt of which nothing is known", true, |play| {
            let first = play.open(ADA, facts(ADA));
            play.event(Event::Close { conn: first, by: Closer::Network });
            play.resume(ADA);
        }),
        ("a new one in between of which nothing is known", true, |play| {
            let ada = play.connect(ADA);
            play.drop_conn(ada);
            let clean = ConnectFacts { clean: true, expiry_s: None, ..facts(ADA) };
            let second = play.open(ADA, clean);
            play.event(Event::Close { conn: second, by: Closer::Network });
            play.connect(ADA);
        }),
    ];
    for (name, fine, case) in cases {
        let mut play = Play::new();
        case(&mut play);
        let expected: &[Check] = if *fine { &[] } else { &[Check::SessionPresent] };
        assert_eq!(play.found(), expected, "{name}: {:#?}", play.findings.violations);
    }
}

#[test]
fn s6_a_takeover() {
    for (after, closed, fine) in [(false, true, true), (true, true, false), (false, false, false)] {
        let mut play = Play::new();
        let old = play.connect(BOB);
        play.subscribe(old, "t", Q1);
        let ada = play.connect(ADA);
        let new = play.resume(BOB);
        if after {
            play.wait(100);
            let message = play.publish(ada, ADA, "t", Q1);
            play.receive(old, &message, Q1);
            play.receive(new, &message, Q1);
        }
        if closed {
            play.event(Event::Close { conn: old, by: Closer::Server });
        }
        let expected: &[Check] = if fine { &[] } else { &[Check::TwoServed] };
        let found = play.found();
        assert_eq!(found, expected, "{:#?}", play.findings.violations);
    }
}

#[test]
fn l8_a_full_queue_may_drop_a_will() {
    for (behind, excused) in [(4, true), (1, false)] {
        let (mut play, ada, bob, _) =
            with_will_and(0, 60, BrokerSpec { max_mqueue_len: Some(3), ..Default::default() });
        let eve = play.connect(EVE);
        play.drop_conn(ada);
        for _ in 0..behind {
            let message = play.publish(eve, EVE, "w", Q1);
            play.receive(bob, &message, Q1);
        }
        if excused { play.passes() } else { play.fails(Check::WillFired) }
    }
}

/// Bob waits for wills of ada.
fn with_will(delay_s: u32, expiry_s: u32) -> (Play, ConnIx, ConnIx, PublishFacts) {
    with_will_and(delay_s, expiry_s, BrokerSpec::default())
}

fn with_will_and(delay_s: u32, expiry_s: u32, broker: BrokerSpec) -> (Play, ConnIx, ConnIx, PublishFacts) {
    let mut play = Play::with(broker);
    let bob = play.connect(BOB);
    play.subscribe(bob, "w", Q1);
    let (will, message) = play.will(ADA, "w", delay_s);
    let ada = play.open(ADA, ConnectFacts { will: Some(will), expiry_s: Some(expiry_s), ..facts(ADA) });
    play.accept(ada, false);
    (play, ada, bob, message)
}

#[test]
fn s10_and_l8_wills() {
    type Case = (&'static str, u32, u32, &'static [Check], fn(&mut Play, ConnIx, ConnIx, PublishFacts));
    let cases: &[Case] = &[
        ("comes", 0, 60, &[], |play, ada, bob, will| {
            play.drop_conn(ada);
            play.receive(bob, &will, Q1);
        }),
        ("never comes", 0, 60, &[Check::WillFired], |play, ada, _, _| play.drop_conn(ada)),
        ("never comes, session over", 30, 0, &[Check::WillFired], |play, ada, _, _| play.drop_conn(ada)),
        ("never comes, delayed", 5, 60, &[Check::WillFired], |play, ada, _, _| play.drop_conn(ada)),
        ("comes twice", 0, 60, &[Check::Will], |play, ada, bob, will| {
            play.drop_conn(ada);
            play.receive(bob, &will, Q1);
            play.receive(bob, &will, Q1);
        }),
        ("DISCONNECT", 0, 60, &[], |play, ada, _, _| play.leave(ada)),
        ("comes after DISCONNECT", 0, 60, &[Check::Will], |play, ada, bob, will| {
            play.leave(ada);
            play.receive(bob, &will, Q1);
        }),
        ("comes while connected", 0, 60, &[Check::Will], |play, _, bob, will| play.receive(bob, &will, Q1)),
        ("the broker ended the connection", 0, 60, &[], |play, ada, bob, will| {
            play.event(Event::Wild { conn: ada, what: "nonsense".into() });
            play.receive(bob, &will, Q1);
            play.event(Event::Close { conn: ada, by: Closer::Server });
        }),
        ("before its delay", 5, 60, &[Check::Will], |play, ada, bob, will| {
            play.drop_conn(ada);
            play.wait(1000);
            play.receive(bob, &will, Q1);
        }),
        ("after its delay", 5, 60, &[], |play, ada, bob, will| {
            play.drop_conn(ada);
            play.wait(5000);
            play.receive(bob, &will, Q1);
        }),
        ("before its delay, but the node stops", 5, 60, &[], |play, ada, bob, will| {
            play.drop_conn(ada);
            play.event(Event::Fault(Fault::Shutdown { node: NodeIx(0) }));
            play.receive(bob, &will, Q1);
        }),
        ("the node stops before it has read the DISCONNECT", 0, 60, &[], |play, ada, bob, will| {
            let code = ReasonCode::Success;
            play.event(Event::Disconnect { conn: ada, by: Closer::Client, code, expiry_s: None });
            play.event(Event::Close { conn: ada, by: Closer::Client });
            play.event(Event::Fault(Fault::Shutdown { node: NodeIx(0) }));
            play.event(Event::Gone { conn: ada });
            play.receive(bob, &will, Q1);
        }),
        ("the node stops after it has read the DISCONNECT", 0, 60, &[Check::Will], |play, ada, bob, will| {
            play.leave(ada);
            play.event(Event::Fault(Fault::Shutdown { node: NodeIx(0) }));
            play.receive(bob, &will, Q1);
        }),
        ("another CONNECT, sent before, comes later", 5, 60, &[], |play, ada, bob, will| {
            let other = play.open(ADA, ConnectFacts { clean: true, ..facts(ADA) });
            play.receive(bob, &will, Q1);
            play.accept(other, false);
            play.event(Event::Close { conn: ada, by: Closer::Server });
            play.event(Event::Gone { conn: ada });
        }),
        ("the session went on", 5, 60, &[Check::Will], |play, ada, bob, will| {
            play.drop_conn(ada);
            play.resume(ADA);
            play.wait(6000);
            play.receive(bob, &will, Q1);
        }),
        ("the session went on in silence", 5, 60, &[], |play, ada, _, _| {
            play.drop_conn(ada);
            play.resume(ADA);
        }),
        ("DISCONNECT with will", 0, 60, &[Check::WillFired], |play, ada, _, _| {
            let code = ReasonCode::DisconnectWithWillMessage;
            play.event(Event::Disconnect { conn: ada, by: Closer::Client, code, expiry_s: None });
            play.drop_conn(ada);
        }),
    ];
    for (name, delay, expiry, expected, case) in cases {
        let (mut play, ada, bob, will) = with_will(*delay, *expiry);
        case(&mut play, ada, bob, will);
        assert_eq!(play.found(), *expected, "{name}: {:#?}", play.findings.violations);
    }
}
