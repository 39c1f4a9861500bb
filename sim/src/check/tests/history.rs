//! S1, S2, S9, S9b, S11: what comes and what does not.

use super::*;
use newtmq_mqtt::RetainHandling;

fn pair(play: &mut Play, filter: &str, qos: QoS) -> (ConnIx, ConnIx) {
    let bob = play.connect(BOB);
    play.subscribe(bob, filter, qos);
    (play.connect(ADA), bob)
}

#[test]
fn s1_an_accepted_message_comes() {
    for qos in [Q1, Q2] {
        let mut play = Play::new();
        let (ada, bob) = pair(&mut play, "t/+", Q2);
        let first = play.publish(ada, ADA, "t/a", qos);
        play.receive(bob, &first, qos);
        play.publish(ada, ADA, "t/a", Q0);
        play.publish(ada, ADA, "u", qos);
        play.passes();
    }
}

#[test]
fn s1_one_that_never_comes_is_lost() {
    let mut play = Play::new();
    let (ada, _) = pair(&mut play, "t/#", Q1);
    play.publish(ada, ADA, "t", Q1);
    play.fails(Check::Lost);
    let violation = &play.findings.violations[0];
    assert_eq!(
        violation.message,
        "bob never received c0#1 on t, though the broker had accepted it from ada and had granted t/# before"
    );
    let told: Vec<&str> = violation.witness.moments.iter().map(|(_, what)| &**what).collect();
    assert_eq!(
        told,
        [
            "SUBACK for t/# was written",
            "PUBLISH c0#1 was sent",
            "the broker wrote that it accepted it",
            "the acknowledgement arrived",
            "quiescence, never received"
        ]
    );
}

#[test]
fn s1_a_session_keeps_its_messages_while_its_client_is_away() {
    for resumed in [true, false] {
        let mut play = Play::new();
        let (ada, bob) = pair(&mut play, "t", Q1);
        play.drop_conn(bob);
        play.wait(3000);
        let message = play.publish(ada, ADA, "t", Q1);
        let bob = play.resume(BOB);
        if resumed {
            play.receive(bob, &message, Q1);
            play.passes();
        } else {
            play.fails(Check::Lost);
        }
    }
}

#[test]
fn s1_in_flight_messages_survive_a_connection() {
    let mut play = Play::new();
    let (ada, bob) = pair(&mut play, "t", Q1);
    let message = play.publish(ada, ADA, "t", Q1);
    let copy = play.copy(&message, Q1);
    play.take(bob, copy.clone());
    play.drop_conn(bob);
    let bob = play.resume(BOB);
    let copy = ReceiveFacts { dup: true, sent_at: play.written(), ..copy };
    play.take(bob, copy.clone());
    play.ack(bob, &copy);
    play.passes();
}

#[test]
fn s1_excuses() {
    type Case = (&'static str, fn(&mut Play, ConnIx, ConnIx));
    let cases: &[Case] = &[
        ("not acknowledged", |play, ada, _| {
            play.send(ada, ADA, "t", Q1);
            play.drop_conn(ada);
        }),
        ("sent before SUBACK", |play, ada, bob| {
            play.unsubscribe(bob, "t");
            let pid = play.ask(bob, FilterSpec::new("t", Q1), None);
            play.publish(ada, ADA, "t", Q1);
            play.grant(bob, pid, Q1);
        }),
        ("unsubscribed before it was accepted", |play, ada, bob| {
            let message = play.send(ada, ADA, "t", Q1);
            play.unsubscribe(bob, "t");
            play.acked(ada, &message);
        }),
        ("the subscriber is away", |play, ada, bob| {
            play.publish(ada, ADA, "t", Q1);
            play.drop_conn(bob);
        }),
        ("a new session", |play, ada, bob| {
            play.drop_conn(bob);
            play.publish(ada, ADA, "t", Q1);
            let bob = play.open(BOB, ConnectFacts { clean: true, ..facts(BOB) });
            play.accept(bob, false);
        }),
        ("it expires", |play, ada, bob| {
            play.drop_conn(bob);
            let message = play.send_with(ada, ADA, "t", Q1, |facts| facts.expiry_s = Some(1));
            play.acked(ada, &message);
            play.wait(5000);
            play.resume(BOB);
        }),
        ("the node crashes", |play, ada, _| {
            play.publish(ada, ADA, "t", Q1);
            play.event(Event::Fault(Fault::Crash { node: NodeIx(0), power_loss: false }));
            play.event(Event::Fault(Fault::Restart { node: NodeIx(0) }));
        }),
        ("the client does not acknowledge", |play, ada, bob| {
            let first = play.publish(ada, ADA, "t", Q1);
            let copy = play.copy(&first, Q1);
            play.take(bob, copy);
            play.publish(ada, ADA, "t", Q1);
        }),
        ("granted QoS 0", |play, ada, bob| {
            play.subscribe(bob, "t", Q0);
            play.publish(ada, ADA, "t", Q1);
        }),
        ("the message is too large", |play, ada, bob| {
            play.drop_conn(bob);
            let bob = play.open(BOB, ConnectFacts { max_packet_size: Some(64), ..facts(BOB) });
            play.accept(bob, true);
            play.publish(ada, ADA, "t", Q1);
        }),
        ("another client of that name came in between", |play, ada, _| {
            let other = play.open(BOB, ConnectFacts { clean: true, ..facts(BOB) });
            play.publish(ada, ADA, "t", Q1);
            play.drop_conn(other);
        }),
    ];
    for (name, case) in cases {
        let mut play = Play::new();
        let (ada, bob) = pair(&mut play, "t", Q1);
        case(&mut play, ada, bob);
        let found = play.found();
        assert!(found.is_empty(), "{name}: {:#?}", play.findings.violations);
    }
}

#[test]
fn s1_a_full_queue_may_drop_its_oldest() {
    for (limit, excused) in [(3, true), (10, false)] {
        let mut play = Play::with(BrokerSpec { max_mqueue_len: Some(limit), ..BrokerSpec::default() });
        let (ada, bob) = pair(&mut play, "t", Q1);
        play.drop_conn(bob);
        let messages: Vec<PublishFacts> = (0..5).map(|_| play.publish(ada, ADA, "t", Q1)).collect();
        let bob = play.resume(BOB);
        for message in &messages[2..] {
            play.receive(bob, message, Q1);
        }
        if excused { play.passes() } else { play.fails(Check::Lost) }
    }
}

#[test]
fn s1_what_is_on_its_way_may_fill_a_queue() {
    // What was sent before may come behind, until it is acknowledged; also for a subscription that is made meanwhile.
    for (before, late, excused) in [(false, false, true), (true, false, false), (false, true, true)] {
        let mut play = Play::with(BrokerSpec { max_mqueue_len: Some(2), ..BrokerSpec::default() });
        let (eve, bob) = (play.connect(EVE), play.connect(BOB));
        if !late {
            play.subscribe(bob, "t", Q1);
        }
        let others: Vec<PublishFacts> = (0..3).map(|_| play.send(eve, EVE, "t", Q1)).collect();
        if before {
            others.iter().for_each(|message| play.acked(eve, message));
        }
        if late {
            play.subscribe(bob, "t", Q1);
        }
        let ada = play.connect(ADA);
        play.publish(ada, ADA, "t", Q1);
        if !before {
            others.iter().for_each(|message| play.acked(eve, message));
        }
        others.iter().for_each(|message| play.receive(bob, message, Q1));
        if excused { play.passes() } else { play.fails(Check::Lost) }
    }
}

#[test]
fn s1_what_is_sent_again_takes_its_place_late() {
    // The first PUBLISH of eve was lost with its connection, so it comes behind what ada sent later.
    for (limit, excused) in [(1, true), (9, false)] {
        let mut play = Play::with(BrokerSpec { max_mqueue_len: Some(limit), ..BrokerSpec::default() });
        let (ada, bob) = pair(&mut play, "t", Q1);
        let eve = play.connect(EVE);
        let torn = play.send(eve, EVE, "t", Q2);
        play.drop_conn(eve);
        play.publish(ada, ADA, "t", Q1);
        let eve = play.resume(EVE);
        play.event(Event::Publish { conn: eve, facts: PublishFacts { dup: true, ..torn } });
        play.acked(eve, &torn);
        play.receive(bob, &torn, Q1);
        if excused { play.passes() } else { play.fails(Check::Lost) }
    }
}

#[test]
fn s1_what_was_delivered_before_it_was_acknowledged_is_not_owed_again() {
    let mut play = Play::new();
    let (ada, bob) = pair(&mut play, "t", Q2);
    // An earlier one that is not forgotten.
    retain(&mut play, ada, "r");
    let message = play.send(ada, ADA, "t", Q2);
    play.receive(bob, &message, Q2);
    play.drop_conn(ada);
    for _ in 0..10 {
        play.wait(20_000);
        let other = play.publish(bob, BOB, "t", Q2);
        play.receive(bob, &other, Q2);
    }
    let ada = play.resume(ADA);
    play.event(Event::Publish { conn: ada, facts: PublishFacts { dup: true, ..message } });
    play.acked(ada, &message);
    play.passes();
}

#[test]
fn s1_a_pause_holds_what_is_on_its_way_between_shards() {
    for (pause, excused) in [(2000, true), (1, false)] {
        let mut play = Play::of(Scenario { shards: 2, ..Scenario::default() });
        let (ada, bob) = pair(&mut play, "t", Q1);
        play.publish(ada, ADA, "t", Q1);
        let until = play.now + Duration::from_millis(pause);
        play.event(Event::Fault(Fault::Pause { node: NodeIx(0), until }));
        play.wait(1000);
        play.unsubscribe(bob, "t");
        play.subscribe(bob, "t", Q1);
        if excused { play.passes() } else { play.fails(Check::Lost) }
    }
}

#[test]
fn s1_what_a_client_sends_behind_its_subscribe_comes_to_it() {
    for own in [true, false] {
        let mut play = Play::new();
        let (ada, bob) = (play.connect(ADA), play.connect(BOB));
        let pid = play.ask(bob, FilterSpec::new("t", Q1), None);
        let (conn, client) = if own { (bob, BOB) } else { (ada, ADA) };
        let message = play.send(conn, client, "t", Q1);
        play.grant(bob, pid, Q1);
        play.acked(conn, &message);
        if own { play.fails(Check::Lost) } else { play.passes() }
    }
}

#[test]
fn s1_no_local() {
    let mut play = Play::new();
    let ada = play.connect(ADA);
    play.subscribe_with(ada, FilterSpec { no_local: true, ..FilterSpec::new("t", Q1) }, None);
    play.publish(ada, ADA, "t", Q1);
    play.passes();
    let mut play = Play::new();
    let ada = play.connect(ADA);
    play.subscribe_with(ada, FilterSpec { no_local: true, ..FilterSpec::new("t", Q1) }, None);
    let message = play.publish(ada, ADA, "t", Q1);
    play.receive(ada, &message, Q1);
    play.fails(Check::Phantom);
}

#[test]
fn s2_two_that_were_served_at_one_moment_are_in_no_order() {
    for together in [true, false] {
        let mut play = Play::new();
        let first = play.open(ADA, ConnectFacts { clean: true, ..facts(ADA) });
        let second = play.open(ADA, facts(ADA));
        let written = play.written();
        let connack = |play: &mut Play, conn: ConnIx, sent_at: Instant| {
            let (present, code, expiry_s) = (false, ReasonCode::Success, None);
            play.event(Event::Connack { conn, present, code, expiry_s, sent_at });
        };
        connack(&mut play, first, written);
        let pid = play.ask(first, FilterSpec::new("t", Q1), None);
        let later = if together { written } else { play.now };
        play.wait(1);
        connack(&mut play, second, later);
        // What the second one sent was lost, and the subscription is there if the first one was served last.
        let message = play.send(second, ADA, "t", Q1);
        play.drop_conn(second);
        if together {
            play.grant(first, pid, Q1);
        }
        play.drop_conn(first);
        let third = play.resume(ADA);
        play.event(Event::Publish { conn: third, facts: PublishFacts { dup: true, ..message } });
        play.acked(third, &message);
        play.receive(third, &message, Q1);
        let expected: &[Check] = if together { &[] } else { &[Check::Phantom] };
        assert_eq!(play.found(), expected, "together {together}: {:#?}", play.findings.violations);
    }
}

#[test]
fn s2_what_nobody_asked_for() {
    type Case = (&'static str, bool, fn(&mut Play, ConnIx, ConnIx));
    let cases: &[Case] = &[
        ("no subscription", false, |play, ada, bob| {
            let message = play.publish(ada, ADA, "u", Q1);
            play.receive(bob, &message, Q1);
        }),
        ("nobody published it", false, |play, ada, bob| {
            let mut message = play.publish(ada, ADA, "u", Q1);
            message.uid = Some(Uid { publisher: ClientIx(ADA), number: 7 });
            message.topic = play.names.number("t");
            play.receive(bob, &message, Q1);
        }),
        ("published after UNSUBACK", false, |play, ada, bob| {
            play.unsubscribe(bob, "t");
            let message = play.publish(ada, ADA, "t", Q1);
            play.receive(bob, &message, Q1);
        }),
        ("published before UNSUBACK", true, |play, ada, bob| {
            let message = play.send(ada, ADA, "t", Q1);
            play.unsubscribe(bob, "t");
            play.acked(ada, &message);
            play.receive(bob, &message, Q1);
        }),
        ("subscription of an older session", false, |play, ada, bob| {
            play.drop_conn(bob);
            let bob = play.open(BOB, ConnectFacts { clean: true, ..facts(BOB) });
            play.accept(bob, false);
            let message = play.publish(ada, ADA, "t", Q1);
            play.receive(bob, &message, Q1);
        }),
        ("SUBACK never came", true, |play, ada, bob| {
            play.ask(bob, FilterSpec::new("u", Q1), None);
            let message = play.publish(ada, ADA, "u", Q1);
            play.receive(bob, &message, Q1);
            play.drop_conn(bob);
        }),
    ];
    for (name, fine, case) in cases {
        let mut play = Play::new();
        let (ada, bob) = pair(&mut play, "t", Q1);
        case(&mut play, ada, bob);
        let expected: &[Check] = if *fine { &[] } else { &[Check::Phantom] };
        assert_eq!(play.found(), expected, "{name}: {:#?}", play.findings.violations);
    }
}

fn retain(play: &mut Play, conn: ConnIx, topic: &str) -> PublishFacts {
    let message = play.send_with(conn, ADA, topic, Q1, |facts| facts.retain = true);
    play.acked(conn, &message);
    message
}

fn delete(play: &mut Play, conn: ConnIx, topic: &str) {
    let deletion = |facts: &mut PublishFacts| (facts.retain, facts.uid, facts.size) = (true, None, 0);
    let delete = play.send_with(conn, ADA, topic, Q1, deletion);
    play.acked(conn, &delete);
}

#[test]
fn s9_with_several_shards_the_last_one_may_be_on_its_way() {
    let q0 = QoS::AtMostOnce;
    // Only what is acknowledged itself has surely arrived.
    for (shards, qos, wait, fine) in [(2, q0, 0, true), (2, q0, 1000, false), (1, q0, 0, false), (2, Q1, 0, false)] {
        let mut play = Play::of(Scenario { shards, ..Scenario::default() });
        let (ada, eve) = (play.connect(ADA), play.connect(EVE));
        let first = retain(&mut play, ada, "t");
        play.wait(wait);
        let second = play.send_with(eve, EVE, "t", qos, |facts| facts.retain = true);
        let last = if qos == Q1 { second } else { play.send_with(eve, EVE, "u", Q1, |_| {}) };
        play.acked(eve, &last);
        play.wait(wait);
        let bob = play.connect(BOB);
        play.subscribe(bob, "t", Q1);
        play.receive_with(bob, &first, Q1, |facts| facts.retain = true);
        let expected: &[Check] = match (fine, qos) {
            (true, _) => &[],
            // Nobody is owed QoS 0.
            (false, QoS::AtMostOnce) => &[Check::Retained],
            (false, _) => &[Check::Retained, Check::RetainedMissed],
        };
        assert_eq!(play.found(), expected, "{shards} shards, {qos:?}: {:#?}", play.findings.violations);
    }
}

#[test]
fn s9_the_last_one_is_retained() {
    type Case = (&'static str, &'static [Check], fn(&mut Play, ConnIx));
    let cases: &[Case] = &[
        ("the last", &[], |play, ada| {
            retain(play, ada, "t");
            let last = retain(play, ada, "t");
            let bob = play.connect(BOB);
            play.subscribe(bob, "t", Q1);
            play.receive_with(bob, &last, Q1, |facts| facts.retain = true);
        }),
        ("an older one", &[Check::Retained, Check::RetainedMissed], |play, ada| {
            let first = retain(play, ada, "t");
            retain(play, ada, "t");
            let bob = play.connect(BOB);
            play.subscribe(bob, "t", Q1);
            play.receive_with(bob, &first, Q1, |facts| facts.retain = true);
        }),
        ("either of two at the same time", &[], |play, ada| {
            let eve = play.connect(EVE);
            let first = play.send_with(ada, ADA, "t", Q1, |facts| facts.retain = true);
            let second = play.send_with(eve, EVE, "t", Q1, |facts| facts.retain = true);
            play.acked(eve, &second);
            play.acked(ada, &first);
            let bob = play.connect(BOB);
            play.subscribe(bob, "t", Q1);
            play.receive_with(bob, &first, Q1, |facts| facts.retain = true);
        }),
        ("deleted", &[Check::Retained], |play, ada| {
            let first = retain(play, ada, "t");
            delete(play, ada, "t");
            let bob = play.connect(BOB);
            play.subscribe(bob, "t", Q1);
            play.receive_with(bob, &first, Q1, |facts| facts.retain = true);
        }),
        ("neither", &[Check::RetainedMissed], |play, ada| {
            retain(play, ada, "t");
            let bob = play.connect(BOB);
            play.subscribe(bob, "t", Q1);
        }),
        ("neither, in a race", &[Check::RetainedMissed], |play, ada| {
            let bob = play.connect(BOB);
            let pid = play.ask(bob, FilterSpec::new("t", Q1), None);
            retain(play, ada, "t");
            play.grant(bob, pid, Q1);
        }),
        ("live, in a race", &[], |play, ada| {
            let bob = play.connect(BOB);
            let pid = play.ask(bob, FilterSpec::new("t", Q1), None);
            let message = retain(play, ada, "t");
            play.grant(bob, pid, Q1);
            play.receive(bob, &message, Q1);
        }),
        ("neither, and deleted long after", &[Check::RetainedMissed], |play, ada| {
            retain(play, ada, "t");
            let bob = play.connect(BOB);
            play.subscribe(bob, "t", Q1);
            play.wait(20_000);
            delete(play, ada, "t");
        }),
        ("deleted while it may be read", &[], |play, ada| {
            retain(play, ada, "t");
            let bob = play.connect(BOB);
            play.subscribe(bob, "t", Q1);
            delete(play, ada, "t");
        }),
        ("its own one, live with No Local", &[], |play, ada| {
            let filter = FilterSpec { no_local: true, ..FilterSpec::new("t", Q1) };
            let first = play.ask(ada, filter, None);
            let message = play.send_with(ada, ADA, "t", Q1, |facts| facts.retain = true);
            let again = FilterSpec { retain_handling: RetainHandling::DoNotSend, ..FilterSpec::new("t", Q1) };
            let second = play.ask(ada, again, None);
            play.grant(ada, first, Q1);
            play.acked(ada, &message);
            play.grant(ada, second, Q1);
        }),
        ("No Local is for the own ones", &[Check::RetainedMissed], |play, ada| {
            retain(play, ada, "t");
            let bob = play.connect(BOB);
            play.subscribe_with(bob, FilterSpec { no_local: true, ..FilterSpec::new("t", Q1) }, None);
        }),
        ("a deletion is sent again", &[], |play, ada| {
            let eve = play.connect(EVE);
            let deletion = |facts: &mut PublishFacts| (facts.retain, facts.uid, facts.size) = (true, None, 0);
            let lost = play.send_with(ada, ADA, "t", Q2, deletion);
            play.drop_conn(ada);
            let kept = play.send_with(eve, EVE, "t", Q1, |facts| facts.retain = true);
            play.acked(eve, &kept);
            let ada = play.resume(ADA);
            play.event(Event::Publish { conn: ada, facts: PublishFacts { dup: true, ..lost } });
            play.acked(ada, &lost);
            let bob = play.connect(BOB);
            play.subscribe(bob, "t", Q1);
            play.receive_with(bob, &kept, Q1, |facts| facts.retain = true);
        }),
        ("not asked for", &[], |play, ada| {
            retain(play, ada, "t");
            let bob = play.connect(BOB);
            let filter = FilterSpec { retain_handling: RetainHandling::DoNotSend, ..FilterSpec::new("t", Q1) };
            play.subscribe_with(bob, filter, None);
        }),
        ("sent although not asked for", &[Check::Phantom], |play, ada| {
            let message = retain(play, ada, "t");
            let bob = play.connect(BOB);
            let filter = FilterSpec { retain_handling: RetainHandling::DoNotSend, ..FilterSpec::new("t", Q1) };
            play.subscribe_with(bob, filter, None);
            play.receive_with(bob, &message, Q1, |facts| facts.retain = true);
        }),
        ("a deletion is sent", &[Check::Retained], |play, _| {
            let bob = play.connect(BOB);
            play.subscribe(bob, "t", Q1);
            let nothing = PublishFacts {
                pid: None,
                uid: None,
                topic: play.names.number("t"),
                qos: Q0,
                dup: false,
                retain: true,
                expiry_s: None,
                size: 0,
            };
            play.receive_with(bob, &nothing, Q0, |facts| facts.retain = true);
        }),
    ];
    for (name, expected, case) in cases {
        let mut play = Play::new();
        let ada = play.connect(ADA);
        case(&mut play, ada);
        assert_eq!(play.found(), *expected, "{name}: {:#?}", play.findings.violations);
    }
}

#[test]
fn s9_forgets_what_is_not_current_any_more() {
    let mut play = Play::new();
    let ada = play.connect(ADA);
    let first = retain(&mut play, ada, "t");
    for _ in 0..300 {
        retain(&mut play, ada, "t");
        play.wait(200);
    }
    let bob = play.connect(BOB);
    play.subscribe(bob, "t", Q1);
    play.receive_with(bob, &first, Q1, |facts| facts.retain = true);
    let found = play.found();
    // What is forgotten is not judged, but that the current one is missing is.
    assert_eq!(found.last(), Some(&Check::RetainedMissed), "{found:?}");
    let known = play.checker.state.clients[ADA as usize].messages.len();
    assert!(known < 150, "{known} of 301 messages are remembered");
}

#[test]
fn s11_one_member() {
    type Case = (&'static str, &'static [Check], fn(&mut Play, ConnIx, ConnIx, PublishFacts));
    let cases: &[Case] = &[
        ("one", &[], |play, bob, _, message| play.receive(bob, &message, Q1)),
        ("none", &[Check::Shared], |_, _, _, _| {}),
        ("two", &[Check::Shared], |play, bob, eve, message| {
            play.receive(bob, &message, Q1);
            play.receive(eve, &message, Q1);
        }),
        ("two, for the first one left with it", &[], |play, bob, eve, message| {
            let copy = play.copy(&message, Q1);
            play.take(bob, copy);
            play.drop_conn(bob);
            play.receive(eve, &message, Q1);
        }),
        ("none, but one is away", &[], |play, _, eve, _| play.drop_conn(eve)),
    ];
    for (name, expected, case) in cases {
        let mut play = Play::new();
        let bob = play.connect(BOB);
        play.subscribe(bob, "$share/g/t", Q1);
        let eve = play.connect(EVE);
        play.subscribe(eve, "$share/g/t", Q1);
        let ada = play.connect(ADA);
        let message = play.publish(ada, ADA, "t", Q1);
        case(&mut play, bob, eve, message);
        assert_eq!(play.found(), *expected, "{name}: {:#?}", play.findings.violations);
    }
}
