//! What differs with clients of MQTT-SN: what their protocol cannot promise is no violation, and what their gateway owes them
//! beyond that is looked at.

use super::*;
use crate::history::SnConnect;

fn sn(client: u32, how: SnConnect) -> ConnectFacts {
    let (version, receive_maximum) = (ProtocolVersion::V31, 1);
    ConnectFacts { version, sn: Some(how), expiry_s: None, receive_maximum, ..facts(client) }
}

/// Bob, of MQTT-SN, has subscribed to `t`; ada publishes.
fn subscribed() -> (Play, ConnIx, ConnIx) {
    let mut play = Play::new();
    let bob = play.open(BOB, sn(BOB, SnConnect::Connect));
    play.accept(bob, false);
    play.subscribe(bob, "t", Q2);
    let ada = play.connect(ADA);
    (play, ada, bob)
}

/// Bob sleeps; the connection is over for him, and the broker goes on with it.
fn sleep(play: &mut Play, bob: ConnIx) {
    play.event(Event::Close { conn: bob, by: Closer::Client });
    play.wait(3000);
}

fn wake(play: &mut Play, before: ConnIx) -> ConnIx {
    let bob = play.open(BOB, sn(BOB, SnConnect::Wake));
    play.event(Event::Gone { conn: before });
    play.event(Event::Pingreq { conn: bob });
    play.accept(bob, true);
    bob
}

#[test]
fn of_clients_of_mqtt_sn() {
    type Case = (&'static str, &'static [Check], fn(&mut Play, ConnIx, ConnIx));
    let cases: &[Case] = &[
        ("again in the same connection", &[], |play, ada, bob| {
            let message = play.publish(ada, ADA, "t", Q1);
            let copy = play.copy(&message, Q1);
            play.take(bob, copy.clone());
            let again = ReceiveFacts { dup: true, sent_at: play.written(), ..copy };
            play.take(bob, again.clone());
            play.ack(bob, &again);
        }),
        ("a second copy without DUP", &[Check::Duplicate], |play, ada, bob| {
            let message = play.publish(ada, ADA, "t", Q1);
            play.receive(bob, &message, Q1);
            play.receive(bob, &message, Q1);
        }),
        ("a second one under way", &[Check::Window], |play, ada, bob| {
            for _ in 0..2 {
                let message = play.publish(ada, ADA, "t", Q1);
                let copy = play.copy(&message, Q1);
                play.take(bob, copy);
            }
        }),
        ("QoS 0 in another order", &[], |play, ada, bob| {
            let messages = [(); 2].map(|()| play.publish(ada, ADA, "t", Q0));
            messages.iter().rev().for_each(|message| play.receive(bob, message, Q0));
        }),
        ("QoS 1 in another order", &[Check::Order], |play, ada, bob| {
            let messages = [(); 2].map(|()| play.publish(ada, ADA, "t", Q1));
            messages.iter().rev().for_each(|message| play.receive(bob, message, Q1));
        }),
        ("wakes and gets it", &[], |play, ada, bob| {
            sleep(play, bob);
            let message = play.publish(ada, ADA, "t", Q1);
            play.wait(1000);
            let bob = wake(play, bob);
            play.receive(bob, &message, Q1);
            play.event(Event::Pingresp { conn: bob });
            play.event(Event::Close { conn: bob, by: Closer::Client });
        }),
        ("is told to sleep on before that", &[Check::Protocol], |play, ada, bob| {
            sleep(play, bob);
            play.publish(ada, ADA, "t", Q1);
            play.wait(1000);
            let bob = wake(play, bob);
            play.event(Event::Pingresp { conn: bob });
            play.event(Event::Close { conn: bob, by: Closer::Client });
        }),
        ("what came while it was awake may wait", &[], |play, ada, bob| {
            sleep(play, bob);
            let bob = wake(play, bob);
            play.publish(ada, ADA, "t", Q1);
            play.event(Event::Pingresp { conn: bob });
            play.event(Event::Close { conn: bob, by: Closer::Client });
        }),
        ("nobody knows it when it wakes", &[Check::SessionPresent], |play, _, bob| {
            sleep(play, bob);
            let bob = play.open(BOB, sn(BOB, SnConnect::Wake));
            let (code, sent_at) = (ReasonCode::UnspecifiedError, play.written());
            play.event(Event::Connack { conn: bob, present: false, code, expiry_s: None, sent_at });
            play.event(Event::Close { conn: bob, by: Closer::Server });
        }),
    ];
    for (name, expected, case) in cases {
        let (mut play, ada, bob) = subscribed();
        case(&mut play, ada, bob);
        assert_eq!(play.found(), *expected, "{name}: {:#?}", play.findings.violations);
    }
}

#[test]
fn wills_that_change() {
    for (deleted, comes, expected) in
        [(true, true, &[Check::Will][..]), (true, false, &[]), (false, true, &[]), (false, false, &[Check::WillFired])]
    {
        let mut play = Play::new();
        let bob = play.connect(BOB);
        play.subscribe(bob, "w", Q1);
        let (will, message) = play.will(ADA, "w", 0);
        let ada = play.open(ADA, ConnectFacts { will: Some(will), ..sn(ADA, SnConnect::Connect) });
        play.accept(ada, false);
        if deleted {
            play.event(Event::AskWill { conn: ada, will: None });
            play.wait(100);
            play.event(Event::WillSet { conn: ada });
        }
        play.wait(1000);
        play.drop_conn(ada);
        if comes {
            play.receive(bob, &message, Q1);
        }
        assert_eq!(play.found(), expected, "{deleted} {comes}: {:#?}", play.findings.violations);
    }
}
