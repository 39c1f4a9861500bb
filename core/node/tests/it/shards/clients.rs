//! Connections that move to the shard of their client, sessions that stay there, and the end of a node.

use newtmq_mqtt::PacketType::Puback;
use newtmq_mqtt::ProtocolVersion::V5;
use newtmq_mqtt::QoS::{AtLeastOnce, AtMostOnce, ExactlyOnce};
use newtmq_mqtt::ReasonCode;
use newtmq_node::{Hook, HookSet, Question, Verdict};

use crate::harness::{Client, Connect, Got, Net, Publish, Subscribe, Will, check_shards};

const SHARDS: [u16; 4] = [2, 3, 4, 7];

#[test]
fn packets_that_follow_connect_come_along() {
    check_shards(
        &SHARDS,
        40,
        |_| {},
        |net| {
            let r = net.connect(Connect::v5("r"));
            net.subscribe(r, "t", AtMostOnce);
            for number in 0..12 {
                let mut more = Subscribe::new("own", AtLeastOnce).encode(1, V5);
                for index in 0..5 {
                    more.extend(Publish::new("t", format!("{number} {index}")).encode(None, V5));
                }
                more.extend(Publish::new("own", "x").qos1().encode(Some(9), V5));
                let a = net.start(Connect::v5(&format!("a{number}")).and_then(more));
                net.allow(a, &["own".into()]);
                net.expect_suback(a, 1);
                net.expect_puback(a, 9);
                // Some close at once: what they sent counts nevertheless.
                let closes = net.below(2) == 0;
                if closes {
                    net.hang_up_later(a);
                }
                let expected: Vec<String> = (0..5).map(|index| format!("t {number} {index}")).collect();
                assert_eq!(net.received(r), expected);
                if !closes {
                    assert_eq!(net.received(a), ["own x"]);
                }
            }
        },
    );
}

#[test]
fn a_connection_may_break_at_any_time_while_it_moves() {
    check_shards(
        &SHARDS,
        40,
        |config| config.hooks = HookSet::default().with(Hook::ClientAuthenticate),
        |net| {
            net.decide(|_| Verdict::Allow { data: None });
            let mut clients = Vec::new();
            for number in 0..30 {
                // Also of one client: they take each other over.
                let a = net.start(Connect::v5(&format!("a{}", number % 10)).expiry(50).clean_start(false));
                clients.push(a);
                net.wait_below(1500);
                let victim = clients[net.below(clients.len())];
                match net.below(4) {
                    0 => net.cut_later(victim),
                    1 => net.hang_up_later(victim),
                    _ => {}
                }
            }
            net.settle();
            assert!(net.view().session_count() <= 10);
        },
    );
}

#[test]
fn a_session_goes_on_whatever_shard_its_connections_are_opened_at() {
    check_shards(
        &SHARDS,
        20,
        |_| {},
        |net| {
            let w = net.connect(Connect::v5("w"));
            let watcher = net.connect(Connect::v5("watcher"));
            net.subscribe(watcher, "will", AtMostOnce);
            let will = || Will::new(Publish::new("will", "x"));
            let mut a = net.connect(Connect::v5("a").expiry(100).manual().will(will()));
            net.subscribe(a, "t", ExactlyOnce);
            let mut open = Vec::new();
            for round in 0..8 {
                net.publish(w, Publish::new("t", format!("{round} 1")).qos1());
                net.publish(w, Publish::new("t", format!("{round} 2")).qos2());
                open.extend([format!("t {round} 1"), format!("t {round} 2")]);
                assert_eq!(net.received(a), open[if round == 0 { 0 } else { open.len() - 2 }..]);
                // The next connection is opened at another shard.
                let (b, connack) = net.connect_with(Connect::v5("a").resume().manual().will(will()));
                assert!(connack.present);
                assert_eq!(net.kicked(a), ReasonCode::SessionTakenOver);
                assert_eq!(net.received(watcher), ["will x"]);
                let messages = net.messages(b);
                let texts: Vec<String> = messages.iter().map(crate::harness::Message::text).collect();
                assert_eq!(texts, open);
                assert!(messages.iter().all(|message| message.publish.dup));
                let first = messages.iter().position(|message| message.publish.qos == AtLeastOnce);
                if let Some(first) = first {
                    net.ack(b, Puback, messages[first].publish.id.unwrap());
                    open.remove(first);
                }
                net.settle();
                a = b;
            }
        },
    );
}

#[test]
fn wills_come_before_everybody_is_sent_away() {
    check_shards(
        &SHARDS,
        30,
        |_| {},
        |net| {
            let clients: Vec<Client> = (0..9)
                .map(|number| {
                    let will = Will::new(Publish::new("will", number.to_string()).qos1());
                    let client = net.connect(Connect::v5(&format!("c{number}")).will(will.clone()));
                    net.subscribe(client, "will", AtLeastOnce);
                    client
                })
                .collect();
            net.shutdown_slowly();
            for client in clients {
                let log = net.take(client);
                let wills = log.iter().filter(|got| matches!(got, Got::Publish(_))).count();
                let end = [Got::Disconnect(ReasonCode::ServerShuttingDown), Got::Closed];
                assert!(wills == 9 && log.ends_with(&end), "{wills} {log:?}");
            }
        },
    );
}

#[test]
fn nobody_stays_who_comes_while_the_node_stops() {
    check_shards(
        &SHARDS,
        40,
        |_| {},
        |net| {
            let mut clients = Vec::new();
            for number in 0..12 {
                clients.push(net.start(Connect::v5(&format!("c{number}"))));
            }
            net.wait_below(3000);
            net.shutdown_slowly();
            for client in clients {
                assert!(net.closed(client));
            }
            assert_eq!(net.view().connection_count(), 0);
        },
    );
}

#[test]
fn hooks_are_asked_where_the_client_belongs_and_once() {
    check_shards(
        &SHARDS,
        20,
        |config| config.hooks = HookSet::default().with(Hook::ClientAuthenticate).with(Hook::ClientCheckAcl),
        |net| {
            net.decide(|question| match question {
                Question::Authenticate { data: None, method: Some(_), .. } => Verdict::Continue(b"?".as_slice().into()),
                Question::Authenticate { client, .. } if client.starts_with("bad") => {
                    Verdict::Deny(ReasonCode::NotAuthorized)
                }
                _ => Verdict::Allow { data: None },
            });
            for number in 0..6 {
                let more = Publish::new("t", "x").encode(None, V5);
                let a = net.connect(Connect::v5(&format!("a{number}")).and_then(more));
                assert_eq!((net.questions.len(), net.ledger().accepted), (2, number + 1));
                net.questions.clear();
                assert_eq!(net.refused(Connect::v5(&format!("bad{number}"))), ReasonCode::NotAuthorized);
                let steps = net.start(Connect { data: None, ..Connect::v5(&format!("s{number}")).method("m", b"") });
                net.settle();
                assert!(matches!(net.take(steps)[..], [Got::Auth { .. }]));
                net.send_auth(steps, ReasonCode::ContinueAuthentication, "m", b"!");
                assert!(matches!(net.take(steps)[..], [Got::Connack(_)]));
                net.questions.clear();
                assert!(!net.closed(a));
            }
        },
    );
}

/// Some of everything.
fn traffic(net: &mut Net) {
    let clients: Vec<Client> = (0..8).map(|n| net.connect(Connect::v5(&format!("c{n}")).expiry(60))).collect();
    for number in 0..120 {
        let client = clients[net.below(clients.len())];
        match net.below(6) {
            0 => drop(net.send_subscribe(client, &Subscribe::new("t/+", AtLeastOnce).and("$share/g/#", ExactlyOnce))),
            1 => drop(net.send_unsubscribe(client, &["t/+"])),
            2 => drop(net.start(Connect::v5(&format!("x{number}")))),
            3 => net.wait_below(2000),
            _ => {
                let publish = Publish::new(&format!("t/{}", net.below(4)), number.to_string()).qos1();
                let publish = if net.below(2) == 0 { publish.retain() } else { publish };
                net.publish(client, publish);
            }
        }
    }
    net.settle();
    net.advance_secs(100);
}

#[test]
fn the_same_seed_gives_the_same_outputs() {
    let traces = core::cell::RefCell::new(Vec::new());
    for _ in 0..2 {
        check_shards(
            &SHARDS,
            8,
            |_| {},
            |net| {
                net.trace = Some(0xcbf2_9ce4_8422_2325);
                traffic(net);
                traces.borrow_mut().push(net.trace);
            },
        );
    }
    let traces = traces.into_inner();
    let (first, second) = traces.split_at(traces.len() / 2);
    assert_eq!(first, second);
    assert!(first.windows(2).all(|pair| pair[0] != pair[1]), "seeds make a difference");
}

/// What is not acknowledged is sent again, to another node; what was acknowledged after the other shards have sent their
/// clients away would be lost.
#[test]
fn nothing_is_accepted_any_more_when_a_shard_has_said_good_bye() {
    check_shards(
        &SHARDS,
        10,
        |_| {},
        |net| {
            let (here, there) = (net.id_at(0, "w"), net.id_at(1, "r"));
            let w = net.connect(Connect::v5(&here));
            let r = net.connect(Connect::v5(&there).expiry(100));
            net.subscribe(r, "t", AtLeastOnce);
            net.shutdown_of(0);
            net.advance(core::time::Duration::from_millis(50));
            net.publish(w, Publish::new("t", "x").qos1());
            net.advance(core::time::Duration::from_millis(50));
            assert_eq!(net.take_now(w), []);
            for shard in 1..net.shards() {
                net.shutdown_of(shard);
            }
            assert_eq!(net.take(w), [Got::Disconnect(ReasonCode::ServerShuttingDown), Got::Closed]);
            assert_eq!(net.ledger().accepted, 0);
        },
    );
}
