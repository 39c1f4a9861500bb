//! S14, L5, L6, L12, L13: answers and connections.

use super::*;

#[test]
fn answers() {
    type Case = (&'static str, &'static [Check], fn(&mut Play));
    let cases: &[Case] = &[
        ("CONNECT", &[Check::ConnectAnswered], |play| {
            play.open(ADA, facts(ADA));
        }),
        ("CONNECT over a cut", &[], |play| {
            play.open(ADA, facts(ADA));
            play.event(Event::Fault(Fault::Cut { client: ClientIx(ADA), to_server: true, to_client: false }));
            play.event(Event::Fault(Fault::Heal { client: ClientIx(ADA) }));
        }),
        ("PUBLISH", &[Check::PublishAnswered], |play| {
            let ada = play.connect(ADA);
            play.send(ada, ADA, "t", Q1);
        }),
        ("PUBLISH with QoS 0", &[], |play| {
            let ada = play.connect(ADA);
            play.send(ada, ADA, "t", Q0);
        }),
        ("PUBREL", &[Check::PublishAnswered], |play| {
            let ada = play.connect(ADA);
            let message = play.send(ada, ADA, "t", Q2);
            let (pid, sent_at) = (message.pid.unwrap(), play.now);
            play.event(Event::Acked { conn: ada, kind: AckKind::Pubrec, pid, code: ReasonCode::Success, sent_at });
            play.event(Event::Release { conn: ada, pid });
        }),
        ("SUBSCRIBE", &[Check::RequestAnswered], |play| {
            let ada = play.connect(ADA);
            play.ask(ada, FilterSpec::new("t", Q1), None);
        }),
        ("a PUBREC for QoS 1", &[Check::Protocol], |play| {
            let ada = play.connect(ADA);
            let message = play.send(ada, ADA, "t", Q1);
            let (pid, sent_at) = (message.pid.unwrap(), play.now);
            play.event(Event::Acked { conn: ada, kind: AckKind::Pubrec, pid, code: ReasonCode::Success, sent_at });
            play.drop_conn(ada);
        }),
        ("nonsense", &[Check::Protocol], |play| {
            let conn = play.connect(ADA);
            play.event(Event::Unexpected { conn, what: "PUBACK of nothing".into() });
        }),
        ("nonsense for nonsense", &[], |play| {
            let conn = play.connect(ADA);
            play.event(Event::Wild { conn, what: "a byte".into() });
            play.event(Event::Unexpected { conn, what: "PUBACK of nothing".into() });
        }),
    ];
    for (name, expected, case) in cases {
        let mut play = Play::new();
        case(&mut play);
        assert_eq!(play.found(), *expected, "{name}: {:#?}", play.findings.violations);
    }
}

#[test]
fn l13_a_connection_is_kept() {
    type Case = (&'static str, bool, fn(&mut Play, ConnIx));
    let cases: &[Case] = &[
        ("without a reason", false, |_, _| {}),
        ("taken over", true, |play, _| {
            play.resume(ADA);
        }),
        ("wild", true, |play, conn| play.event(Event::Wild { conn, what: "a byte".into() })),
        ("shutdown", true, |play, _| play.event(Event::Fault(Fault::Shutdown { node: NodeIx(0) }))),
        ("it was asked to", true, |play, conn| {
            let code = ReasonCode::Success;
            play.event(Event::Disconnect { conn, by: Closer::Client, code, expiry_s: None });
        }),
        ("it does not read", true, |play, _| {
            play.event(Event::Fault(Fault::Reading { client: ClientIx(ADA), on: false }));
        }),
        ("a stray acknowledgement", true, |play, conn| {
            play.event(Event::Ack { conn, kind: AckKind::Puback, pid: 7, code: ReasonCode::Success });
        }),
    ];
    for (name, fine, case) in cases {
        let mut play = Play::new();
        let ada = play.connect(ADA);
        case(&mut play, ada);
        play.wait(10);
        play.event(Event::Close { conn: ada, by: Closer::Server });
        let expected: &[Check] = if *fine { &[] } else { &[Check::Kept] };
        assert_eq!(play.found(), expected, "{name}: {:#?}", play.findings.violations);
    }
}
