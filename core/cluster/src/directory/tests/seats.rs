//! One directory, and what others would say to it: orders that a network of many rarely comes to.

#![allow(clippy::wildcard_enum_match_arm, reason = "of what it says only some is looked at")]

use core::time::Duration;

use newtmq_base::{ConnId, Incarnation, Instant, NodeId, ShardId};

use super::super::*;

const ME: NodeId = NodeId(1);
const OTHER: NodeId = NodeId(2);

/// A node that leads a cluster of two.
struct Seat {
    now: Instant,
    directory: Directory,
    out: Vec<Output>,
    round: u64,
}

fn conn(slot: u32) -> Conn {
    Conn { shard: ShardId(0), id: ConnId { slot, generation: 1 } }
}

fn client() -> Client {
    Client::from("c")
}

impl Seat {
    fn new() -> Seat {
        let now = Instant::from_millis(100_000);
        let directory = Directory::new(Config::default(), now, ME, Incarnation(1));
        let mut seat = Seat { now, directory, out: Vec::new(), round: 0 };
        seat.give(Input::Members([ME, OTHER].into()));
        seat.give(Input::Up { node: OTHER, inc: Incarnation(1) });
        seat.give(Input::Leader { term: 1, node: Some(ME) });
        seat
    }

    fn give(&mut self, input: Input) {
        self.out.clear();
        self.directory.handle(self.now, input, &mut self.out);
        let summon = self.out.iter().find_map(|output| match output {
            Output::Send { message: Message::Summon { round, .. }, .. } => Some(*round),
            _ => None,
        });
        self.round = summon.unwrap_or(self.round);
    }

    fn hear(&mut self, message: Message) {
        self.give(Input::Message { from: OTHER, inc: Incarnation(1), message });
    }

    fn announce(&mut self, items: Vec<Item>) {
        self.hear(Message::Announce { round: self.round, after: None, items, end: true });
    }

    fn claim(&mut self, slot: u32) {
        let input =
            Input::Claim { client: client(), conn: conn(slot), clean: false, durable: true, limits: Box::default() };
        self.give(input);
    }

    fn claim_far(&mut self, number: u64, slot: u32) {
        let (age, clean, durable, granted) = (Duration::ZERO, false, true, None);
        let link = Link { conn: conn(slot), age, clean, durable, granted };
        self.hear(Message::Claim { round: self.round, number, client: client(), link, known: Epoch::ZERO });
    }

    /// The epoch of the session that a connection attaches to here.
    fn attach(&self) -> Option<Epoch> {
        self.out.iter().find_map(|output| if let Output::Attach { epoch, .. } = output { Some(*epoch) } else { None })
    }

    fn says(&self, of: impl Fn(&Message) -> bool) -> bool {
        self.out.iter().any(|output| matches!(output, Output::Send { message, .. } if of(message)))
    }

    /// A session here, whose connection is gone; then one of the other node attaches to it.
    fn given() -> (Seat, Epoch) {
        let mut seat = Seat::new();
        seat.announce(Vec::new());
        seat.claim(1);
        let epoch = seat.attach().unwrap();
        seat.give(Input::Attached { client: client(), epoch, present: false, answer: Box::default() });
        seat.give(Input::Closed { client: client(), conn: conn(1) });
        seat.claim_far(1, 7);
        let granted = seat.out.iter().find_map(|output| match output {
            Output::Send { message: Message::ClaimOk { epoch, home: ME, .. }, .. } => Some(*epoch),
            _ => None,
        });
        let epoch = granted.unwrap();
        let (clean, durable, limits) = (false, true, Box::default());
        seat.hear(Message::Attach { client: client(), conn: conn(7), epoch, clean, durable, limits });
        assert_eq!(seat.attach(), Some(epoch));
        seat.give(Input::Attached { client: client(), epoch, present: true, answer: Box::default() });
        (seat, epoch)
    }
}

pub(super) fn nothing_is_granted_before_all_have_said_what_they_have() {
    let mut seat = Seat::new();
    seat.claim(1);
    assert_eq!(seat.attach(), None);
    seat.announce(Vec::new());
    assert!(seat.attach().is_some());
}

pub(super) fn a_claim_that_comes_late_is_none() {
    let mut seat = Seat::new();
    seat.announce(Vec::new());
    seat.claim_far(5, 7);
    assert!(seat.says(|message| matches!(message, Message::ClaimOk { .. })));
    let report = Report::Closed(conn(7), true);
    seat.hear(Message::Report { round: seat.round, number: 6, client: client(), report });
    seat.claim_far(5, 7);
    assert!(!seat.says(|message| matches!(message, Message::ClaimOk { .. })));
}

pub(super) fn a_stored_session_of_a_node_that_is_silent_is_waited_for() {
    let mut seat = Seat::new();
    let epoch = Epoch { term: 1, seq: 1, provisional: 0, issuer: OTHER };
    let age = Duration::from_secs(60);
    let link = Link { conn: conn(7), age, clean: false, durable: true, granted: Some((epoch, OTHER)) };
    let session = Session { epoch, clean: Epoch::ZERO, durable: true, age, serves: Some(OTHER) };
    let (links, session, supersedes) = (vec![link], Some(session), Vec::new());
    seat.announce(vec![Item { client: client(), known: epoch, links, session, supersedes }]);
    seat.claim(1);
    assert!(seat.says(|message| matches!(message, Message::Fence { .. })));
    for _ in 0..15 {
        seat.now = seat.now + Duration::from_millis(100);
        seat.give(Input::Tick);
        assert_eq!(seat.attach(), None, "the session is at the other node");
    }
}

pub(super) fn a_session_that_was_given_away_is_not_taken_for_here() {
    let (mut seat, _) = Seat::given();
    seat.give(Input::Down { node: OTHER });
    seat.give(Input::Leader { term: 2, node: Some(ME) });
    seat.claim(2);
    assert_eq!(seat.attach(), None, "it may be at the other node");
    seat.give(Input::Up { node: OTHER, inc: Incarnation(2) });
    let message = Message::Announce { round: seat.round, after: None, items: Vec::new(), end: true };
    seat.give(Input::Message { from: OTHER, inc: Incarnation(2), message });
    assert!(seat.attach().is_some(), "it is not");
}

pub(super) fn a_move_that_is_too_late_counts_for_nothing() {
    let (mut seat, epoch) = Seat::given();
    let report = Report::Closed(conn(7), true);
    seat.hear(Message::Report { round: seat.round, number: 2, client: client(), report });
    seat.claim(2);
    assert!(seat.attach().is_some_and(|later| later > epoch));
    let report = Report::Moved(epoch, Epoch::ZERO, true);
    seat.hear(Message::Report { round: seat.round, number: 3, client: client(), report });
    assert!(!seat.says(|message| matches!(message, Message::Reported { .. })));
    assert!(seat.says(|message| matches!(message, Message::End { .. })));
}

pub(super) fn who_sees_others_is_not_obeyed() {
    let now = Instant::from_millis(100_000);
    let mut directory = Directory::new(Config::default(), now, OTHER, Incarnation(1));
    let mut out = Vec::new();
    directory.handle(now, Input::Members([ME, OTHER, NodeId(3)].into()), &mut out);
    for node in [ME, NodeId(3)] {
        directory.handle(now, Input::Up { node, inc: Incarnation(1) }, &mut out);
    }
    let now = now + Duration::from_secs(9);
    directory.handle(now, Input::Tick, &mut out);
    for (round, view, obeyed) in [(1, vec![ME, OTHER], false), (2, vec![ME, OTHER, NodeId(3)], true)] {
        out.clear();
        let message = Message::Summon { round, term: 0, view, after: None };
        directory.handle(now, Input::Message { from: ME, inc: Incarnation(1), message }, &mut out);
        let announces = out.iter().any(|of| matches!(of, Output::Send { message: Message::Announce { .. }, .. }));
        assert_eq!(announces, obeyed);
    }
}

/// What the other node has in its memory.
fn in_memory(term: u64) -> Item {
    let epoch = Epoch { term, seq: 1, provisional: 0, issuer: OTHER };
    let age = Duration::from_secs(60);
    let session = Session { epoch, clean: Epoch::ZERO, durable: false, age, serves: Some(OTHER) };
    Item { client: client(), known: epoch, links: Vec::new(), session: Some(session), supersedes: Vec::new() }
}

pub(super) fn nobody_gets_what_a_node_is_about_to_say_anew() {
    let mut seat = Seat::new();
    seat.announce(vec![in_memory(1)]);
    // It had too much to report.
    seat.hear(Message::Again { round: seat.round });
    seat.claim(1);
    assert!(seat.attach().is_none() && !seat.out.iter().any(|output| matches!(output, Output::Granted(_))));
    seat.announce(vec![in_memory(1)]);
    let granted =
        seat.out.iter().find_map(|output| if let Output::Granted(of) = output { Some(of.home) } else { None });
    let asks = seat.says(|message| matches!(message, Message::Attach { .. }));
    assert!(asks || granted == Some(OTHER), "the session is at the other node: {:?}", seat.out);
}

pub(super) fn a_session_of_a_later_term_is_given_in_one_that_is_later_still() {
    let mut seat = Seat::new();
    seat.announce(vec![in_memory(5)]);
    seat.claim(1);
    assert!(seat.out.contains(&Output::Raise { term: 5 }), "{:?}", seat.out);
}

pub(super) const ALL: [fn(); 8] = [
    nothing_is_granted_before_all_have_said_what_they_have,
    a_claim_that_comes_late_is_none,
    a_stored_session_of_a_node_that_is_silent_is_waited_for,
    a_session_that_was_given_away_is_not_taken_for_here,
    a_move_that_is_too_late_counts_for_nothing,
    who_sees_others_is_not_obeyed,
    nobody_gets_what_a_node_is_about_to_say_anew,
    a_session_of_a_later_term_is_given_in_one_that_is_later_still,
];

#[test]
fn rare_orders() {
    ALL.iter().for_each(|scene| scene());
}
