//! Nodes: what a cut, a pause, a restart or a late barrier excuses, and what nothing excuses.

mod kept;

use newtmq_base::{Incarnation, NodeId, RequestId};
use newtmq_cluster::link::{DownCause, Event as LinkEvent};
use newtmq_node::{ClusterAnswer, ClusterCommand, ClusterEvent};

use super::*;

pub(super) const FIRST: u16 = 0;
pub(super) const SECOND: u16 = 1;
pub(super) const THIRD: u16 = 2;
const KIM: u32 = 3;

fn id(node: u16) -> NodeId {
    NodeId(100 + u64::from(node))
}

impl Play {
    /// Three nodes that have reached each other long ago.
    pub(super) fn cluster() -> Play {
        Play::cluster_with(Scenario::default())
    }

    pub(super) fn cluster_with(scenario: Scenario) -> Play {
        let mut play = Play::of(Scenario { nodes: 3, ..scenario });
        for node in 0..3 {
            play.node_up(node, 1);
        }
        for node in 0..3 {
            play.says(node, ClusterEvent::Leader { cluster: None, term: 1, leader: Some(id(0)) });
            for other in (0..3).filter(|other| *other != node) {
                play.meets(node, other);
            }
        }
        play.wait(30_000);
        play
    }

    fn node_up(&mut self, node: u16, incarnation: u64) {
        let address = std::net::SocketAddr::from(([10, 0, 0, 1], 4370 + node));
        let incarnation = Incarnation(incarnation);
        self.event(Event::NodeUp { node: NodeIx(node), id: id(node), incarnation, address });
    }

    fn says(&mut self, node: u16, event: ClusterEvent) {
        self.event(Event::Cluster { node: NodeIx(node), event: Box::new(event) });
    }

    pub(super) fn meets(&mut self, node: u16, other: u16) {
        self.says(node, ClusterEvent::Link(LinkEvent::Up { peer: id(other), incarnation: Incarnation(1) }));
        self.says(node, ClusterEvent::Open { node: id(other), open: true });
    }

    pub(super) fn loses(&mut self, node: u16, other: u16) {
        let (peer, incarnation) = (id(other), Incarnation(1));
        self.says(node, ClusterEvent::Open { node: id(other), open: false });
        self.says(node, ClusterEvent::Link(LinkEvent::Down { peer, incarnation, cause: DownCause::Silent }));
    }

    pub(super) fn cut(&mut self, from: u16, to: u16) {
        self.event(Event::Fault(Fault::LinkCut { from: NodeIx(from), to: NodeIx(to) }));
    }

    pub(super) fn heal(&mut self, from: u16, to: u16) {
        self.event(Event::Fault(Fault::LinkHealed { from: NodeIx(from), to: NodeIx(to) }));
    }

    pub(super) fn connect_at(&mut self, client: u32, node: u16) -> ConnIx {
        let conn = self.open(client, ConnectFacts { node: NodeIx(node), ..facts(client) });
        self.accept(conn, false);
        conn
    }

    /// A PUBACK that refuses.
    fn refused(&mut self, conn: ConnIx, publish: &PublishFacts, code: ReasonCode) {
        self.wait(1);
        let (sent_at, pid) = (self.written(), publish.pid.unwrap());
        self.event(Event::Acked { conn, kind: AckKind::Puback, pid, code, sent_at });
    }
}

/// Bob at the second node is subscribed, and ada is at the first one.
pub(super) fn pair(play: &mut Play, filter: &str, qos: QoS) -> (ConnIx, ConnIx) {
    let bob = play.connect_at(BOB, SECOND);
    play.subscribe(bob, filter, qos);
    (play.connect_at(ADA, FIRST), bob)
}

pub(super) type Case = (&'static str, fn(&mut Play, ConnIx, ConnIx), Option<Check>);

pub(super) fn each(cases: &[Case]) {
    for (name, case, check) in cases {
        let mut play = Play::cluster();
        let (ada, bob) = pair(&mut play, "t/+", Q2);
        case(&mut play, ada, bob);
        let found = play.found();
        let expected: Vec<Check> = check.iter().copied().collect();
        assert_eq!(found, expected, "{name}: {:#?}", play.findings.violations);
    }
}

#[test]
fn s1_what_another_node_has_accepted_comes() {
    each(&[
        (
            "it comes",
            |play, ada, bob| {
                let message = play.publish(ada, ADA, "t/a", Q1);
                play.receive(bob, &message, Q1);
            },
            None,
        ),
        (
            "it does not",
            |play, ada, _| {
                play.publish(ada, ADA, "t/a", Q1);
            },
            Some(Check::Lost),
        ),
        (
            "the way was cut, one way",
            |play, ada, _| {
                play.cut(SECOND, FIRST);
                play.publish(ada, ADA, "t/a", Q1);
            },
            None,
        ),
        (
            "other nodes were cut off",
            |play, ada, _| {
                play.cut(SECOND, THIRD);
                play.cut(THIRD, FIRST);
                play.publish(ada, ADA, "t/a", Q1);
            },
            Some(Check::Lost),
        ),
        (
            "healed, but not open for long",
            |play, ada, _| {
                play.cut(FIRST, SECOND);
                play.loses(SECOND, FIRST);
                play.heal(FIRST, SECOND);
                play.wait(9_000);
                play.meets(SECOND, FIRST);
                play.wait(1_900);
                play.publish(ada, ADA, "t/a", Q1);
            },
            None,
        ),
        (
            "healed and open",
            |play, ada, _| {
                play.cut(FIRST, SECOND);
                play.loses(SECOND, FIRST);
                play.heal(FIRST, SECOND);
                play.meets(SECOND, FIRST);
                play.wait(2_700);
                play.publish(ada, ADA, "t/a", Q1);
            },
            Some(Check::Lost),
        ),
        (
            "healed, but counted as down",
            |play, ada, _| {
                play.cut(FIRST, SECOND);
                play.loses(SECOND, FIRST);
                play.heal(FIRST, SECOND);
                play.wait(9_000);
                play.publish(ada, ADA, "t/a", Q1);
            },
            None,
        ),
        (
            "the subscriber's node is paused",
            |play, ada, _| {
                let until = play.now + Duration::from_secs(3);
                play.event(Event::Fault(Fault::Pause { node: NodeIx(SECOND), until }));
                play.publish(ada, ADA, "t/a", Q1);
            },
            None,
        ),
        (
            "it was paused long ago",
            |play, ada, _| {
                let until = play.now + Duration::from_secs(3);
                play.event(Event::Fault(Fault::Pause { node: NodeIx(SECOND), until }));
                play.wait(5_700);
                play.publish(ada, ADA, "t/a", Q1);
            },
            Some(Check::Lost),
        ),
        (
            "the subscriber's node crashes",
            |play, ada, _| {
                play.publish(ada, ADA, "t/a", Q1);
                play.event(Event::Fault(Fault::Crash { node: NodeIx(SECOND), power_loss: false }));
                play.event(Event::NodeDown { node: NodeIx(SECOND) });
                play.event(Event::Fault(Fault::Restart { node: NodeIx(SECOND) }));
                play.node_up(SECOND, 2);
            },
            None,
        ),
        (
            "the publisher's node crashes",
            |play, ada, _| {
                play.publish(ada, ADA, "t/a", Q1);
                play.event(Event::Fault(Fault::Crash { node: NodeIx(FIRST), power_loss: false }));
                play.event(Event::NodeDown { node: NodeIx(FIRST) });
            },
            Some(Check::Lost),
        ),
        (
            "on a slow way",
            |play, ada, _| {
                let (from, to) = (NodeIx(FIRST), NodeIx(SECOND));
                play.event(Event::Fault(Fault::LinkSlow { from, to, by_us: 1_000_000, bytes_per_s: 0 }));
                play.publish(ada, ADA, "t/a", Q1);
            },
            None,
        ),
    ]);
}

#[test]
fn s1_barriers() {
    // A SUBACK that waited for all counts at once; one that did not after 2 s.
    for (incomplete, wait_ms, lost) in [(false, 1, true), (true, 1_500, false), (true, 2_700, true)] {
        let mut play = Play::cluster();
        let bob = play.connect_at(BOB, SECOND);
        let pid = play.ask(bob, FilterSpec::new("t", Q1), None);
        if incomplete {
            play.wait(500);
            play.says(SECOND, ClusterEvent::BarrierIncomplete);
        }
        play.grant(bob, pid, Q1);
        let ada = play.connect_at(ADA, FIRST);
        play.wait(wait_ms);
        play.publish(ada, ADA, "t", Q1);
        if lost { play.fails(Check::Lost) } else { play.passes() }
    }
}

#[test]
fn s13_a_stored_session_gets_after_a_crash_what_was_accepted_at_another_node() {
    for comes in [true, false] {
        let durability = Some(crate::scenario::DurabilitySpec::Always);
        let broker = BrokerSpec { durability, ..BrokerSpec::default() };
        let mut play = Play::cluster_with(Scenario { broker, ..Scenario::default() });
        let (ada, bob) = pair(&mut play, "t", Q1);
        let message = play.publish(ada, ADA, "t", Q1);
        play.wait(6_000);
        play.event(Event::Fault(Fault::Crash { node: NodeIx(SECOND), power_loss: true }));
        play.event(Event::NodeDown { node: NodeIx(SECOND) });
        play.event(Event::Close { conn: bob, by: Closer::Network });
        play.event(Event::Fault(Fault::Restart { node: NodeIx(SECOND) }));
        play.node_up(SECOND, 2);
        play.wait(1);
        let bob = play.open(BOB, ConnectFacts { node: NodeIx(SECOND), ..facts(BOB) });
        play.accept(bob, true);
        if comes {
            play.receive(bob, &message, Q1);
            play.passes();
        } else {
            play.fails(Check::Durable);
        }
    }
}

#[test]
fn s2_nothing_comes_from_another_node_without_a_subscription() {
    let mut play = Play::cluster();
    let (ada, bob) = pair(&mut play, "u", Q1);
    let message = play.publish(ada, ADA, "t", Q1);
    play.receive(bob, &message, Q1);
    play.fails(Check::Phantom);
}

/// The nodes agree on retained messages: any node has them.
#[test]
fn s2_what_is_retained_comes_from_any_node() {
    for node in [FIRST, SECOND] {
        let mut play = Play::cluster();
        let ada = play.connect_at(ADA, FIRST);
        let message = play.send_with(ada, ADA, "t", Q1, |facts| facts.retain = true);
        play.acked(ada, &message);
        play.wait(3_000);
        let bob = play.connect_at(BOB, node);
        play.subscribe(bob, "t", Q1);
        play.receive_with(bob, &message, Q1, |facts| facts.retain = true);
        assert_eq!(play.found(), [], "{:#?}", play.findings.violations);
    }
}

#[test]
fn s3_s4_copies() {
    each(&[
        (
            "a second copy",
            |play, ada, bob| {
                let message = play.publish(ada, ADA, "t/a", Q1);
                play.receive(bob, &message, Q1);
                play.receive(bob, &message, Q1);
            },
            Some(Check::Duplicate),
        ),
        (
            "the link was reset",
            |play, ada, bob| {
                let message = play.publish(ada, ADA, "t/a", Q1);
                play.receive(bob, &message, Q1);
                play.says(FIRST, ClusterEvent::Link(LinkEvent::Broken { peer: id(SECOND) }));
                play.receive(bob, &message, Q1);
            },
            None,
        ),
        (
            "another link was reset",
            |play, ada, bob| {
                let message = play.publish(ada, ADA, "t/a", Q1);
                play.receive(bob, &message, Q1);
                play.says(FIRST, ClusterEvent::Link(LinkEvent::Broken { peer: id(THIRD) }));
                play.receive(bob, &message, Q1);
            },
            Some(Check::Duplicate),
        ),
        (
            "with QoS 2, whatever became of the link",
            |play, ada, bob| {
                let message = play.publish(ada, ADA, "t/a", Q2);
                play.receive(bob, &message, Q2);
                play.says(FIRST, ClusterEvent::Link(LinkEvent::Broken { peer: id(SECOND) }));
                play.receive(bob, &message, Q2);
            },
            Some(Check::Twice),
        ),
    ]);
}

#[test]
fn s5_order_over_a_link() {
    for (qos, cut, check) in [
        (Q1, false, Some(Check::Order)),
        (Q1, true, Some(Check::Order)),
        (Q2, true, None),
        (Q2, false, Some(Check::Order)),
    ] {
        let mut play = Play::cluster();
        let (ada, bob) = pair(&mut play, "t", Q2);
        let first = play.send(ada, ADA, "t", qos);
        if cut {
            play.cut(FIRST, SECOND);
            play.heal(FIRST, SECOND);
        }
        let second = play.send(ada, ADA, "t", qos);
        play.receive(bob, &second, qos);
        play.receive(bob, &first, qos);
        assert_eq!(play.found().first().copied().filter(|of| *of == Check::Order), check, "{qos:?} {cut}");
    }
}

#[test]
fn s11_a_group_has_members_at_several_nodes() {
    let group = |play: &mut Play| {
        let members = [(BOB, SECOND), (KIM, THIRD)].map(|(client, node)| {
            let conn = play.connect_at(client, node);
            play.subscribe(conn, "$share/g/t", Q1);
            conn
        });
        let ada = play.connect_at(ADA, FIRST);
        (members, ada)
    };
    for (copies, check) in [(0, Some(Check::Shared)), (1, None), (2, Some(Check::Shared))] {
        let mut play = Play::cluster();
        let (members, ada) = group(&mut play);
        let message = play.publish(ada, ADA, "t", Q1);
        for member in &members[..copies] {
            play.receive(*member, &message, Q1);
        }
        assert_eq!(
            play.found(),
            check.iter().copied().collect::<Vec<_>>(),
            "{copies}: {:#?}",
            play.findings.violations
        );
    }
    // Nobody knows whether the first one has it.
    let mut play = Play::cluster();
    let (members, ada) = group(&mut play);
    let message = play.send(ada, ADA, "t", Q1);
    play.receive(members[0], &message, Q1);
    play.cut(SECOND, FIRST);
    play.receive(members[1], &message, Q1);
    play.acked(ada, &message);
    play.passes();
    // Nor who is in the group.
    let mut play = Play::cluster();
    let (_, ada) = group(&mut play);
    play.cut(FIRST, THIRD);
    play.publish(ada, ADA, "t", Q1);
    play.passes();
}

#[test]
fn s16_a_publish_is_refused_when_somebody_is_out_of_reach() {
    each(&[
        (
            "all are there",
            |play, ada, _| {
                let message = play.send(ada, ADA, "t/a", Q1);
                play.refused(ada, &message, ReasonCode::QuotaExceeded);
            },
            Some(Check::Refused),
        ),
        (
            "one was not",
            |play, ada, _| {
                play.cut(FIRST, SECOND);
                let message = play.send(ada, ADA, "t/a", Q1);
                play.wait(10_000);
                play.refused(ada, &message, ReasonCode::QuotaExceeded);
            },
            None,
        ),
        (
            "one went down meanwhile",
            |play, ada, _| {
                let message = play.send(ada, ADA, "t/a", Q1);
                play.cut(FIRST, SECOND);
                play.heal(FIRST, SECOND);
                play.refused(ada, &message, ReasonCode::QuotaExceeded);
            },
            None,
        ),
        (
            "it was not long ago",
            |play, ada, _| {
                play.cut(FIRST, SECOND);
                play.heal(FIRST, SECOND);
                play.wait(3_000);
                let message = play.send(ada, ADA, "t/a", Q1);
                play.refused(ada, &message, ReasonCode::QuotaExceeded);
            },
            Some(Check::Refused),
        ),
    ]);
}

#[test]
fn l13_who_is_sent_away() {
    let close = |play: &mut Play, conn: ConnIx| {
        play.event(Event::Close { conn, by: Closer::Server });
        play.event(Event::Gone { conn });
    };
    for (leaves, check) in [(true, None), (false, Some(Check::Kept))] {
        let mut play = Play::cluster();
        let (_, bob) = pair(&mut play, "t", Q1);
        if leaves {
            let command = ClusterCommand::Leave;
            play.event(Event::Command { node: NodeIx(SECOND), request: RequestId(1), command });
            play.event(Event::Answer {
                node: NodeIx(SECOND),
                request: RequestId(1),
                answer: Box::new(ClusterAnswer::Done),
            });
        }
        close(&mut play, bob);
        assert_eq!(play.found(), check.iter().copied().collect::<Vec<_>>(), "{:#?}", play.findings.violations);
    }
    // Before MQTT 5.0 a publisher cannot be told that a target was out of reach.
    for (cut, check) in [(true, None), (false, Some(Check::Kept))] {
        let mut play = Play::cluster();
        let version = ProtocolVersion::V311;
        let ada = play.open(ADA, ConnectFacts { version, expiry_s: None, ..facts(ADA) });
        play.accept(ada, false);
        if cut {
            play.cut(FIRST, SECOND);
        }
        play.send(ada, ADA, "t", Q1);
        play.wait(10_000);
        close(&mut play, ada);
        assert_eq!(play.found(), check.iter().copied().collect::<Vec<_>>(), "{:#?}", play.findings.violations);
    }
}

#[test]
fn l9_operators_are_answered() {
    for answered in [true, false] {
        let mut play = Play::cluster();
        let (node, request) = (NodeIx(FIRST), RequestId(1));
        play.event(Event::Command { node, request, command: ClusterCommand::Status });
        if answered {
            play.event(Event::Answer { node, request, answer: Box::new(ClusterAnswer::Refused("no".into())) });
            play.passes();
        } else {
            play.fails(Check::CommandAnswered);
        }
    }
}

#[test]
fn l11_a_node_without_a_leader_serves_its_clients() {
    for (alone, check) in [(true, Check::Degraded), (false, Check::ConnectAnswered)] {
        let mut play = Play::cluster();
        if alone {
            play.says(FIRST, ClusterEvent::Leader { cluster: None, term: 1, leader: None });
            play.wait(5_000);
        }
        play.open(ADA, facts(ADA));
        play.fails(check);
    }
}

#[test]
fn w14_a_node_is_down_for_a_reason() {
    each(&[
        ("nothing was wrong", |play, _, _| play.loses(FIRST, SECOND), Some(Check::DownJustified)),
        (
            "the way was cut",
            |play, _, _| {
                play.cut(SECOND, FIRST);
                play.wait(8_000);
                play.loses(FIRST, SECOND);
            },
            None,
        ),
        (
            "another way was cut",
            |play, _, _| {
                play.cut(SECOND, THIRD);
                play.wait(8_000);
                play.loses(FIRST, SECOND);
            },
            Some(Check::DownJustified),
        ),
        (
            "it was paused",
            |play, _, _| {
                let until = play.now + Duration::from_secs(9);
                play.event(Event::Fault(Fault::Pause { node: NodeIx(SECOND), until }));
                play.wait(8_500);
                play.loses(FIRST, SECOND);
            },
            None,
        ),
        (
            "it crashed",
            |play, _, _| {
                play.event(Event::Fault(Fault::Crash { node: NodeIx(THIRD), power_loss: false }));
                play.event(Event::NodeDown { node: NodeIx(THIRD) });
                play.wait(8_500);
                play.loses(FIRST, THIRD);
            },
            None,
        ),
        (
            "the way was cut long ago",
            |play, _, _| {
                play.cut(SECOND, FIRST);
                play.heal(SECOND, FIRST);
                play.wait(30_000);
                play.loses(FIRST, SECOND);
            },
            Some(Check::DownJustified),
        ),
    ]);
}
