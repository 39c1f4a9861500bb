//! S3, S4, S5, S8, S12, S15: single deliveries.

use super::*;

type Case = (&'static str, &'static [Check], fn(&mut Play, ConnIx, ConnIx));

fn run(cases: &[Case], qos: QoS) {
    for (name, expected, case) in cases {
        let mut play = Play::new();
        let bob = play.connect(BOB);
        play.subscribe_with(bob, FilterSpec::new("t", qos), Some(9));
        let ada = play.connect(ADA);
        case(&mut play, ada, bob);
        assert_eq!(play.found(), *expected, "{name}: {:#?}", play.findings.violations);
    }
}

fn good(facts: &mut ReceiveFacts) {
    facts.subscription_ids = vec![9];
}

#[test]
fn s3_once() {
    run(
        &[
            ("once", &[], |play, ada, bob| {
                let message = play.publish(ada, ADA, "t", Q2);
                play.receive_with(bob, &message, Q2, good);
            }),
            ("twice", &[Check::Twice], |play, ada, bob| {
                let message = play.publish(ada, ADA, "t", Q2);
                play.receive_with(bob, &message, Q2, good);
                play.receive_with(bob, &message, Q2, good);
            }),
            ("the publisher sent it again", &[Check::Twice], |play, ada, bob| {
                let message = play.send(ada, ADA, "t", Q2);
                play.receive_with(bob, &message, Q2, good);
                play.drop_conn(ada);
                let ada = play.resume(ADA);
                let again = PublishFacts { dup: true, ..message };
                play.event(Event::Publish { conn: ada, facts: again });
                play.acked(ada, &again);
                play.receive_with(bob, &message, Q2, good);
            }),
            ("the publisher sent it again in a new session", &[], |play, ada, bob| {
                let message = play.send(ada, ADA, "t", Q2);
                play.receive_with(bob, &message, Q2, good);
                play.drop_conn(ada);
                let ada = play.open(ADA, ConnectFacts { clean: true, ..facts(ADA) });
                play.accept(ada, false);
                let again = PublishFacts { dup: true, ..message };
                play.event(Event::Publish { conn: ada, facts: again });
                play.acked(ada, &again);
                play.receive_with(bob, &message, Q2, good);
            }),
        ],
        Q2,
    );
}

#[test]
fn s4_a_second_copy() {
    run(
        &[
            ("without a reason", &[Check::Duplicate], |play, ada, bob| {
                let message = play.publish(ada, ADA, "t", Q1);
                play.receive_with(bob, &message, Q1, good);
                play.receive_with(bob, &message, Q1, good);
            }),
            ("the publisher sent it again", &[], |play, ada, bob| {
                let message = play.send(ada, ADA, "t", Q1);
                play.event(Event::Publish { conn: ada, facts: PublishFacts { dup: true, ..message } });
                play.acked(ada, &message);
                play.receive_with(bob, &message, Q1, good);
                play.receive_with(bob, &message, Q1, good);
            }),
            ("the connection broke before its acknowledgement", &[], |play, ada, bob| {
                let message = play.publish(ada, ADA, "t", Q1);
                let facts = play.receive_with(bob, &message, Q1, good);
                play.drop_conn(bob);
                let bob = play.resume(BOB);
                play.receive_with(bob, &message, Q1, |new| {
                    (new.pid, new.dup, new.subscription_ids) = (facts.pid, true, vec![9]);
                });
            }),
            ("the connection broke long after", &[Check::Duplicate], |play, ada, bob| {
                let message = play.publish(ada, ADA, "t", Q1);
                let facts = play.receive_with(bob, &message, Q1, good);
                play.wait(8000);
                play.drop_conn(bob);
                let bob = play.resume(BOB);
                play.receive_with(bob, &message, Q1, |new| {
                    (new.pid, new.dup, new.subscription_ids) = (facts.pid, true, vec![9]);
                });
            }),
            ("again in one connection", &[Check::Duplicate], |play, ada, bob| {
                let message = play.publish(ada, ADA, "t", Q1);
                let facts = play.receive_with(bob, &message, Q1, good);
                play.receive_with(bob, &message, Q1, |new| {
                    (new.pid, new.dup, new.subscription_ids) = (facts.pid, true, vec![9]);
                });
            }),
        ],
        Q1,
    );
}

#[test]
fn s5_order() {
    run(
        &[
            ("as sent", &[], |play, ada, bob| {
                let sent: Vec<_> = (0..3).map(|_| play.publish(ada, ADA, "t", Q1)).collect();
                sent.iter().for_each(|message| drop(play.receive_with(bob, message, Q1, good)));
            }),
            ("the wrong way round", &[Check::Order], |play, ada, bob| {
                let sent: Vec<_> = (0..3).map(|_| play.publish(ada, ADA, "t", Q1)).collect();
                for at in [0, 2, 1] {
                    play.receive_with(bob, &sent[at], Q1, good);
                }
            }),
            ("of two publishers", &[], |play, ada, bob| {
                let eve = play.connect(EVE);
                let first = play.publish(ada, ADA, "t", Q1);
                let second = play.publish(eve, EVE, "t", Q1);
                play.receive_with(bob, &second, Q1, good);
                play.receive_with(bob, &first, Q1, good);
            }),
            ("of two QoS", &[], |play, ada, bob| {
                let first = play.publish(ada, ADA, "t", Q1);
                let second = play.publish(ada, ADA, "t", Q0);
                play.receive_with(bob, &second, Q0, good);
                play.receive_with(bob, &first, Q1, good);
            }),
        ],
        Q1,
    );
}

#[test]
fn s8_and_s15_identifiers_and_the_window() {
    run(
        &[
            ("acknowledged, then used again", &[], |play, ada, bob| {
                for _ in 0..2 {
                    let message = play.publish(ada, ADA, "t", Q1);
                    play.receive_with(bob, &message, Q1, |facts| {
                        (facts.pid, facts.subscription_ids) = (Some(1), vec![9])
                    });
                }
            }),
            ("used while it is not acknowledged", &[Check::PacketIdReused], |play, ada, bob| {
                for _ in 0..2 {
                    let message = play.publish(ada, ADA, "t", Q1);
                    let mut copy = play.copy(&message, Q1);
                    (copy.pid, copy.subscription_ids) = (Some(1), vec![9]);
                    play.take(bob, copy);
                }
            }),
            ("used in the next connection", &[Check::PacketIdReused], |play, ada, bob| {
                let message = play.publish(ada, ADA, "t", Q1);
                let mut copy = play.copy(&message, Q1);
                (copy.pid, copy.subscription_ids) = (Some(1), vec![9]);
                play.take(bob, copy.clone());
                play.drop_conn(bob);
                let bob = play.resume(BOB);
                copy.uid = play.publish(ada, ADA, "t", Q1).uid;
                play.take(bob, copy);
            }),
            ("more than the window", &[Check::Window], |play, ada, bob| {
                for _ in 0..101 {
                    let message = play.publish(ada, ADA, "t", Q1);
                    let mut copy = play.copy(&message, Q1);
                    good(&mut copy);
                    play.take(bob, copy);
                }
            }),
        ],
        Q1,
    );
}

#[test]
fn s12_content() {
    type Change = fn(&mut Play, &mut ReceiveFacts);
    let cases: &[(&str, bool, Change)] = &[
        ("nothing", true, |_, _| {}),
        ("topic", false, |play, facts| facts.topic = play.names.number("other")),
        ("payload", false, |_, facts| facts.intact = false),
        ("QoS 0", false, |_, facts| (facts.qos, facts.pid) = (Q0, None)),
        ("QoS 2", false, |_, facts| facts.qos = Q2),
        ("RETAIN", false, |_, facts| facts.retain = true),
        ("DUP", false, |_, facts| facts.dup = true),
        ("expiry", false, |_, facts| facts.expiry_s = Some(61)),
        ("no expiry", false, |_, facts| facts.expiry_s = None),
        ("less expiry", true, |_, facts| facts.expiry_s = Some(59)),
        ("another identifier", false, |_, facts| facts.subscription_ids.push(8)),
        ("no identifier", false, |_, facts| facts.subscription_ids.clear()),
        ("too large", false, |_, facts| facts.packet_size = 2000),
    ];
    for (name, fine, change) in cases {
        let mut play = Play::new();
        let bob = play.open(BOB, ConnectFacts { max_packet_size: Some(1000), ..facts(BOB) });
        play.accept(bob, false);
        play.subscribe_with(bob, FilterSpec::new("t", Q1), Some(9));
        let ada = play.connect(ADA);
        let message = play.send_with(ada, ADA, "t", Q1, |facts| facts.expiry_s = Some(60));
        play.acked(ada, &message);
        let mut copy = play.copy(&message, Q1);
        good(&mut copy);
        change(&mut play, &mut copy);
        play.take(bob, copy.clone());
        play.ack(bob, &copy);
        let expected: &[Check] = if *fine { &[] } else { &[Check::Content] };
        assert_eq!(play.found(), expected, "{name}: {:#?}", play.findings.violations);
    }
}

#[test]
fn s12_overlapping_subscriptions() {
    for (qos, identifiers, fine) in [(Q2, vec![9, 7], true), (Q1, vec![9, 7], false), (Q2, vec![7], false)] {
        let mut play = Play::new();
        let bob = play.connect(BOB);
        play.subscribe_with(bob, FilterSpec::new("t", Q1), Some(9));
        play.subscribe_with(bob, FilterSpec::new("#", Q2), Some(7));
        let ada = play.connect(ADA);
        let message = play.publish(ada, ADA, "t", Q2);
        play.receive_with(bob, &message, qos, |facts| facts.subscription_ids = identifiers);
        let expected: &[Check] = if fine { &[] } else { &[Check::Content] };
        assert_eq!(play.found(), expected, "{:#?}", play.findings.violations);
    }
}
