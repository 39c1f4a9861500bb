//! The handshake, step by step, with right and wrong partners.

use core::cell::RefCell;
use std::collections::BTreeMap;

use newtmq_base::{Incarnation, Instant, NodeId, Rng};
use proptest::prelude::*;

use crate::link::{
    Address, Config, ConnectionId, Cookie, Decoder, End, Event, Frame, Gate, Handshake, Hello, Input, Links, Output,
    Own, Refusal, Role, Step,
};

struct Door(Option<Refusal>, RefCell<BTreeMap<NodeId, End>>);

impl Door {
    fn open() -> Door {
        Door(None, RefCell::default())
    }
}

impl Gate for Door {
    fn generation(&self, _node: NodeId) -> u64 {
        4
    }

    fn admit(&self, hello: &Hello, end: End) -> Result<(), Refusal> {
        self.1.borrow_mut().insert(hello.node, end);
        self.0.map_or(Ok(()), Err)
    }
}

fn hello(node: u64) -> Hello {
    Hello {
        cluster: "blue".to_owned(),
        node: NodeId(node),
        incarnation: Incarnation(9),
        name: format!("newtmq@{node}"),
        proto_min: 1,
        proto_max: 3,
        features: 5,
        shards: 4,
        meta_term: 2,
        meta_index: 70,
        tls: false,
        nonce: [0; 32],
    }
}

struct Side {
    handshake: Handshake,
    cookie: Cookie,
    door: Door,
    out: Vec<u8>,
    decoder: Decoder,
    end: Option<Step>,
}

impl Side {
    fn new(role: Role, own: Hello, cookie: &str) -> Side {
        let mut out = Vec::new();
        let mut rng = Rng::from_number(own.node.0);
        let handshake = Handshake::new(Instant::START, role, own, &Config::default(), &mut rng, &mut out);
        let cookie = Cookie::new(cookie).unwrap();
        Side { handshake, cookie, door: Door::open(), out, decoder: Decoder::default(), end: None }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.decoder.feed(bytes);
        while let Some(frame) = self.decoder.next(4096).unwrap() {
            let frame = frame.to_vec();
            if self.end.is_some() {
                continue;
            }
            let step = self.handshake.receive(&frame, &self.cookie, &self.door, &mut self.out);
            if step != Step::Wait {
                self.end = Some(step);
            }
        }
    }
}

fn talk(dialer: &mut Side, acceptor: &mut Side) {
    while !dialer.out.is_empty() || !acceptor.out.is_empty() {
        let bytes = core::mem::take(&mut dialer.out);
        acceptor.take(&bytes);
        let bytes = core::mem::take(&mut acceptor.out);
        dialer.take(&bytes);
    }
}

#[test]
pub(super) fn two_members_accept_each_other() {
    for tls in [false, true] {
        let newer = Hello { proto_min: 2, proto_max: 7, tls, ..hello(2) };
        let mut dialer = Side::new(Role::Dialer, Hello { tls, ..hello(1) }, "secret");
        let mut acceptor = Side::new(Role::Acceptor, newer, if tls { "another" } else { "secret" });
        talk(&mut dialer, &mut acceptor);
        for (side, node) in [(&dialer, 2), (&acceptor, 1)] {
            let Some(Step::Done(accepted)) = &side.end else { panic!("{:?}", side.end) };
            assert_eq!((accepted.hello.node, accepted.version, accepted.own_generation), (NodeId(node), 3, 4));
            assert_eq!(accepted.end, End { incarnation: Incarnation(9), generation: 4 });
        }
    }
}

#[test]
pub(super) fn whoever_is_refused_learns_why() {
    let same = |hello: Hello| hello;
    type Case = (Refusal, fn(Hello) -> Hello, &'static str, Option<Refusal>, Option<Refusal>);
    let cases: [Case; 9] = [
        (Refusal::WrongCluster, |hello| Hello { cluster: "red".to_owned(), ..hello }, "secret", None, None),
        (Refusal::NoCommonVersion, |hello| Hello { proto_min: 4, proto_max: 5, ..hello }, "secret", None, None),
        (Refusal::NoCommonVersion, |hello| Hello { proto_min: 3, proto_max: 0, ..hello }, "secret", None, None),
        (Refusal::OwnNode, |hello| Hello { node: NodeId(1), ..hello }, "secret", None, None),
        (Refusal::AuthenticationDiffers, |hello| Hello { tls: true, ..hello }, "secret", None, None),
        (Refusal::WrongCookie, same, "wrong", None, None),
        (Refusal::Evicted, same, "secret", Some(Refusal::Evicted), None),
        (Refusal::LowerIncarnation, same, "secret", Some(Refusal::LowerIncarnation), None),
        (Refusal::LowerIncarnation, same, "secret", None, Some(Refusal::LowerIncarnation)),
    ];
    for (reason, change, cookie, at_dialer, at_acceptor) in cases {
        let mut dialer = Side::new(Role::Dialer, hello(1), "secret");
        let mut acceptor = Side::new(Role::Acceptor, change(hello(2)), cookie);
        (dialer.door.0, acceptor.door.0) = (at_dialer, at_acceptor);
        talk(&mut dialer, &mut acceptor);
        let ends = [dialer.end.unwrap(), acceptor.end.unwrap()];
        assert!(ends.contains(&Step::Refuse(reason)) && ends.contains(&Step::Refused(reason)), "{ends:?}");
    }
}

#[test]
pub(super) fn nobody_hears_of_the_cluster_or_gets_a_proof_before_it_has_proved_itself() {
    let mut dialer = Side::new(Role::Dialer, hello(1), "wrong");
    let mut acceptor = Side::new(Role::Acceptor, hello(2), "secret");
    acceptor.door.0 = Some(Refusal::Evicted);
    let first = core::mem::take(&mut dialer.out);
    acceptor.take(&first);
    let answer = core::mem::take(&mut acceptor.out);
    let mut decoder = Decoder::default();
    decoder.feed(&answer);
    assert!(matches!(Frame::decode(decoder.next(4096).unwrap().unwrap()), Ok(Frame::Hello(_))));
    assert_eq!(decoder.next(4096), Ok(None));
    dialer.take(&answer);
    talk(&mut dialer, &mut acceptor);
    assert_eq!(acceptor.end, Some(Step::Refuse(Refusal::WrongCookie)));
    assert!(acceptor.door.1.borrow().is_empty(), "it was not even looked up");
}

/// Somebody without the cookie takes the dialer's own frames and gives them back, under another name.
#[test]
pub(super) fn a_proof_that_is_sent_back_proves_nothing() {
    let mut dialer = Side::new(Role::Dialer, hello(1), "secret");
    let mut decoder = Decoder::default();
    decoder.feed(&core::mem::take(&mut dialer.out));
    let Ok(Frame::Hello(own)) = Frame::decode(decoder.next(4096).unwrap().unwrap()) else { panic!() };
    let mut stranger = Hello::decode(own).unwrap();
    stranger.node = NodeId(66);
    let mut bytes = Vec::new();
    stranger.encode(&mut bytes);
    let mut back = Vec::new();
    Frame::Hello(&bytes).write(&mut back);
    dialer.take(&back);
    // The dialer has proved itself; its proof comes back as it is.
    let proof = core::mem::take(&mut dialer.out);
    assert!(!proof.is_empty());
    dialer.take(&proof);
    assert_eq!(dialer.end, Some(Step::Refuse(Refusal::WrongCookie)));
}

#[test]
pub(super) fn a_changed_hello_breaks_the_proof() {
    // Somebody in the middle lowers the version, or claims another incarnation.
    for at in [0, 1] {
        let mut dialer = Side::new(Role::Dialer, hello(1), "secret");
        let mut acceptor = Side::new(Role::Acceptor, hello(2), "secret");
        let change = |bytes: &[u8]| {
            let mut decoder = Decoder::default();
            decoder.feed(bytes);
            let Ok(Frame::Hello(bytes)) = Frame::decode(decoder.next(4096).unwrap().unwrap()) else { panic!() };
            let mut hello = Hello::decode(bytes).unwrap();
            hello.proto_max = 2;
            hello.incarnation = Incarnation(10);
            let (mut raw, mut changed) = (Vec::new(), Vec::new());
            hello.encode(&mut raw);
            Frame::Hello(&raw).write(&mut changed);
            changed
        };
        let first = core::mem::take(&mut dialer.out);
        acceptor.take(&if at == 0 { change(&first) } else { first });
        let second = core::mem::take(&mut acceptor.out);
        dialer.take(&if at == 1 { change(&second) } else { second });
        talk(&mut dialer, &mut acceptor);
        assert_eq!(acceptor.end, Some(Step::Refuse(Refusal::WrongCookie)));
    }
}

#[test]
pub(super) fn frames_out_of_turn_and_silence_end_it() {
    for frame in [Frame::Welcome, Frame::Use, Frame::Proof { proof: &[], generation: 1 }, Frame::Neighbours(vec![])] {
        let mut side = Side::new(Role::Acceptor, hello(1), "secret");
        let mut bytes = Vec::new();
        frame.write(&mut bytes);
        side.take(&bytes);
        assert_eq!(side.end, Some(Step::Refuse(Refusal::Malformed)));
    }
    let mut side = Side::new(Role::Dialer, hello(1), "secret");
    let deadline = side.handshake.deadline();
    assert_eq!(side.handshake.tick(Instant::START, &mut side.out), Step::Wait);
    assert_eq!(side.handshake.tick(deadline, &mut side.out), Step::Refuse(Refusal::Timeout));
}

#[test]
pub(super) fn a_cookie_is_never_shown_and_never_empty() {
    assert_eq!(Cookie::new(""), None);
    assert!(!format!("{:?}", Cookie::new("secret")).contains("secret"));
}

fn links(node: u64) -> Links {
    let own = Own {
        cluster: "blue".to_owned(),
        node: NodeId(node),
        incarnation: Incarnation(1),
        name: String::new(),
        proto_min: 1,
        proto_max: 1,
        features: 0,
        shards: 1,
    };
    Links::new(Config::default(), own, Cookie::new("secret").unwrap(), Rng::from_number(node))
}

fn refusals(out: &[Output]) -> Vec<Refusal> {
    let reason = |output: &Output| match output {
        Output::Event(Event::Refused { reason, .. }) => Some(*reason),
        _ => None,
    };
    out.iter().filter_map(reason).collect()
}

#[test]
pub(super) fn silent_strangers_are_limited_and_time_out() {
    let mut links = links(1);
    let mut out = Vec::new();
    for conn in 0..70 {
        let opened = Input::Opened { conn: ConnectionId(conn), dial: None, tls: false };
        links.handle(Instant::from_millis(conn), opened, &mut out);
    }
    assert_eq!(refusals(&out), [Refusal::Busy; 6]);
    out.clear();
    while let Some(at) = links.next_deadline() {
        links.handle(at, Input::Tick, &mut out);
    }
    assert_eq!(refusals(&out), [Refusal::Timeout; 64]);
    for conn in 0..70 {
        links.handle(Instant::from_millis(9000), Input::Closed(ConnectionId(conn)), &mut out);
    }
    assert_eq!(links.connections(), (0, 0));
}

#[test]
pub(super) fn an_address_that_is_the_node_itself_is_refused_on_both_ends() {
    let mut links = links(1);
    let mut out = Vec::new();
    links.add_address(Instant::START, Address("self".to_owned()));
    let now = links.next_deadline().unwrap();
    links.handle(now, Input::Tick, &mut out);
    let [Output::Dial { dial, .. }] = out[..] else { panic!("{out:?}") };
    let [one, other] = [ConnectionId(1), ConnectionId(2)];
    links.handle(now, Input::Opened { conn: one, dial: Some(dial), tls: false }, &mut out);
    links.handle(now, Input::Opened { conn: other, dial: None, tls: false }, &mut out);
    for (from, to) in [(one, other), (other, one)] {
        let mut bytes = Vec::new();
        links.fill(now, from, &mut bytes, 1 << 16);
        links.handle(now, Input::Bytes { conn: to, data: &bytes }, &mut out);
    }
    assert_eq!(refusals(&out), [Refusal::OwnNode; 2]);
}

proptest! {
    #[test]
    fn garbage_on_a_connection_never_panics(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..6),
        framed in any::<bool>(),
    ) {
        let mut links = links(1);
        let mut out = Vec::new();
        let conn = ConnectionId(1);
        links.handle(Instant::START, Input::Opened { conn, dial: None, tls: false }, &mut out);
        for piece in &pieces {
            let mut bytes = Vec::new();
            if framed {
                bytes.extend_from_slice(&(piece.len() as u32).to_be_bytes());
            }
            bytes.extend_from_slice(piece);
            links.handle(Instant::START, Input::Bytes { conn, data: &bytes }, &mut out);
        }
        prop_assert!(links.peers().next().is_none());
    }
}
