//! What two ends of lanes do in single situations, step by step.

#![allow(clippy::wildcard_enum_match_arm)] // of many outputs one is looked for

use bytes::Bytes;
use newtmq_base::{Incarnation, Instant, NodeId, ShardId};
use newtmq_mqtt::QoS;

use super::*;

const A: NodeId = NodeId(1);
const B: NodeId = NodeId(2);
const TRANSIENT: What = What::Plain { transient: true, durable: false };
const DURABLE: What = What::Plain { transient: false, durable: true };

fn group() -> What {
    What::Group { name: Bytes::from_static(b"$share/g/a"), durable: false }
}

/// Shard 0 of node A sends to two shards of node B. Frames are passed on when the test says so.
struct Two {
    now: Instant,
    source: PeerOut,
    targets: [LanesIn; 2],
    out: Vec<Output>,
    deliveries: Vec<Delivery>,
    next: u64,
}

impl Two {
    fn new(config: &Config) -> Two {
        let target = |shard| LanesIn::new(config.clone(), ShardId(shard), Incarnation(1));
        let mut two = Two {
            now: Instant::START,
            source: PeerOut::new(config.clone(), ShardId(0), Incarnation(1), B),
            targets: [target(0), target(1)],
            out: Vec::new(),
            deliveries: Vec::new(),
            next: 1,
        };
        two.source.connected(two.now, Incarnation(1), &mut two.out);
        two.source.drained(two.now, ShardId(1), &mut two.out);
        two.settle();
        two.clear();
        two
    }

    fn send(&mut self, qos: QoS, targets: &[(u16, What)]) -> Sent {
        let number = self.next;
        self.next += 1;
        let publication = message(qos, number);
        let post = Post { ticket: Ticket(number), publication, expires: Instant::NEVER, from_log: false };
        let targets: Vec<Target> =
            targets.iter().map(|(shard, what)| Target { shard: ShardId(*shard), what: what.clone() }).collect();
        self.source.send(self.now, &post, &targets, &mut self.out)
    }

    /// Frames that are to go to B, taken off.
    fn frames(&mut self) -> Vec<Frame> {
        let frames = |parcel| Parcel::frames(&parcel).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
        self.source.take().flat_map(frames).collect()
    }

    /// Everything that it has asked for is forgotten, frames too.
    fn clear(&mut self) {
        self.out.clear();
        self.source.take().for_each(drop);
    }

    fn arrive(&mut self, frame: &Frame) {
        for target in &mut self.targets {
            target.frame(self.now, A, frame, &mut self.deliveries);
        }
    }

    /// Enqueues and stores all that has come; says which messages.
    fn work(&mut self) -> Vec<u64> {
        let mut numbers = Vec::new();
        for delivery in core::mem::take(&mut self.deliveries) {
            numbers.push(number(&delivery));
            let at = self.target_of(&delivery);
            self.targets[at].enqueued(&delivery);
            self.targets[at].stored(delivery.node, delivery.shard, delivery.inc, delivery.seq);
        }
        numbers
    }

    /// The lane of these tests goes to shard 0, unless only shard 1 holds something.
    fn target_of(&self, delivery: &Delivery) -> usize {
        let holds =
            |at: usize| self.targets[at].view().any(|view| view.held_messages > 0 && view.node == delivery.node);
        usize::from(!holds(0))
    }

    fn receipts(&mut self) -> Vec<Receipt> {
        let mut receipts = Vec::new();
        for target in &mut self.targets {
            target.receipts(&mut receipts);
        }
        receipts.into_iter().map(|(_, receipt)| receipt).collect()
    }

    fn answer(&mut self, receipts: &[Receipt]) {
        for receipt in receipts {
            self.source.receipt(self.now, receipt, &mut self.out);
        }
    }

    /// Everything arrives, is stored and answered, until there is nothing left to say.
    fn settle(&mut self) -> Vec<u64> {
        let mut numbers = Vec::new();
        loop {
            let frames = self.frames();
            frames.iter().for_each(|frame| self.arrive(frame));
            numbers.extend(self.work());
            let receipts = self.receipts();
            self.answer(&receipts);
            if frames.is_empty() && receipts.is_empty() {
                return numbers;
            }
        }
    }

    fn acked(&mut self) -> Vec<u64> {
        self.out
            .drain(..)
            .filter_map(|output| if let Output::Acked { ticket } = output { Some(ticket.0) } else { None })
            .collect()
    }

    fn waiting(&self) -> usize {
        self.source.view().next().expect("there is a lane").waiting
    }
}

fn message(qos: QoS, number: u64) -> Publication {
    let mut guid = [0; 16];
    guid[..8].copy_from_slice(&number.to_le_bytes());
    Publication::new(&PublicationParts {
        publisher: b"p",
        retained: 1,
        guid: Guid(guid),
        topic: b"a",
        qos,
        retain: false,
        properties: &[],
        payload: &number.to_le_bytes(),
    })
}

fn number(delivery: &Delivery) -> u64 {
    let message = delivery.publication.as_ref().expect("it is a message");
    u64::from_le_bytes(message.payload()[..].try_into().expect("it has 8 bytes"))
}

fn narrow() -> Config {
    Config { window_messages: 2, waiting_messages: 2, ..Config::default() }
}

#[test]
fn a_link_carries_one_payload_for_all_shards_of_a_node() {
    let mut two = Two::new(&Config::default());
    let sent = two.send(QoS::AtLeastOnce, &[(0, TRANSIENT), (1, DURABLE), (1, group())]);
    assert_eq!(sent, Sent { answers: 3, ..Sent::default() });
    let frames = two.frames();
    let [Frame::Bundle(bundle)] = &frames[..] else { panic!("{frames:?}") };
    let headers: Vec<(u16, u64)> = bundle.headers.iter().map(|header| (header.shard.0, header.seq)).collect();
    assert_eq!(headers, [(0, 1), (1, 1), (1, 2)]);
    assert_eq!(bundle.for_shard(ShardId(0)).map(|bundle| bundle.headers.len()), Some(1));
    assert_eq!(bundle.for_shard(ShardId(2)), None);
}

/// QoS 0 is dropped, others wait, then they are refused; another target goes on.
#[test]
fn without_credit() {
    let mut two = Two::new(&narrow());
    for _ in 0..2 {
        assert_eq!(two.send(QoS::AtLeastOnce, &[(0, TRANSIENT)]).answers, 1);
    }
    assert_eq!(two.send(QoS::AtMostOnce, &[(0, TRANSIENT)]), Sent { dropped: 1, ..Sent::default() });
    for _ in 0..2 {
        let sent = two.send(QoS::AtLeastOnce, &[(0, TRANSIENT), (1, TRANSIENT)]);
        assert_eq!(sent, Sent { answers: 2, ..Sent::default() });
    }
    assert_eq!(two.waiting(), 2);
    assert_eq!(two.send(QoS::AtLeastOnce, &[(0, TRANSIENT)]), Sent { refused: 1, ..Sent::default() });
    assert_eq!((two.source.counts().dropped_qos0, two.source.counts().refused), (1, 1));
    // 1 and 2 to shard 0, 4 and 5 to shard 1; these wait for shard 0.
    assert_eq!(two.frames().len(), 4);
}

#[test]
fn credit_returns_at_enqueue_and_the_ack_when_it_is_stored() {
    let mut two = Two::new(&narrow());
    for _ in 0..3 {
        two.send(QoS::AtLeastOnce, &[(0, DURABLE)]);
    }
    for frame in two.frames() {
        two.arrive(&frame);
    }
    let deliveries = core::mem::take(&mut two.deliveries);
    assert_eq!(deliveries.len(), 2);
    let marks: Vec<u64> = deliveries.iter().map(|delivery| two.targets[0].enqueued(delivery).upto).collect();
    assert_eq!(marks, [1, 2]);
    let receipts = two.receipts();
    two.answer(&receipts);
    assert_eq!((two.acked(), two.waiting()), (vec![], 0));
    two.targets[0].stored(A, ShardId(0), Incarnation(1), 1);
    let receipts = two.receipts();
    two.answer(&receipts);
    assert_eq!(two.acked(), [1]);
}

#[test]
fn a_paused_publisher_is_told_of_room() {
    let mut two = Two::new(&Config { qos0: Qos0::Pause, waiting_messages: 8, ..narrow() });
    for number in 0..8 {
        let sent = two.send(QoS::AtMostOnce, &[(0, TRANSIENT)]);
        assert_eq!((sent.paused, sent.dropped), (number >= 2, u32::from(number >= 6)));
    }
    assert_eq!(two.settle(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(two.out, [Output::Room { shard: ShardId(0) }]);
}

#[test]
fn an_answer_that_is_late_is_told_once() {
    let mut two = Two::new(&narrow());
    for _ in 0..3 {
        two.send(QoS::AtLeastOnce, &[(0, TRANSIENT)]);
    }
    let frames = two.frames();
    two.now = Instant::from_millis(10_000);
    two.source.tick(two.now, &mut two.out);
    let late: Vec<&Output> = two.out.iter().filter(|output| matches!(output, Output::Overdue { .. })).collect();
    assert_eq!(late, [1, 2, 3].map(|number| Output::Overdue { ticket: Ticket(number) }).iter().collect::<Vec<_>>());
    // What was sent still comes; what waited is gone.
    two.clear();
    frames.iter().for_each(|frame| two.arrive(frame));
    assert_eq!(two.settle(), [1, 2]);
    assert!(two.acked().is_empty());
    assert!(two.source.view().all(|view| view.unstored == 0 && view.waiting == 0 && view.flight_messages == 0));
}

#[test]
fn a_reset_sends_again_in_order_and_costs_no_credit() {
    let mut two = Two::new(&Config { window_messages: 4, ..Config::default() });
    for _ in 0..4 {
        two.send(QoS::AtLeastOnce, &[(0, TRANSIENT)]);
    }
    let frames = two.frames();
    two.arrive(&frames[0]);
    for _ in 0..3 {
        two.source.disconnected();
        two.source.connected(two.now, Incarnation(1), &mut two.out);
    }
    two.send(QoS::AtLeastOnce, &[(0, TRANSIENT)]);
    assert_eq!(two.settle(), [1, 2, 3, 4, 5]);
    assert_eq!(two.acked(), [1, 2, 3, 4, 5]);
    assert!(two.source.view().all(|view| view.flight_messages == 0 && view.flight_bytes == 0));
}

/// Of two ways, one overtakes the other (relay_overtakes, order_cross_node).
#[test]
fn what_overtakes_is_not_taken() {
    let mut two = Two::new(&Config::default());
    for _ in 0..3 {
        two.send(QoS::AtLeastOnce, &[(0, TRANSIENT)]);
    }
    let frames = two.frames();
    for at in [1, 2, 0, 0] {
        two.arrive(&frames[at]);
    }
    let mut numbers = two.work();
    assert_eq!(numbers, [1]);
    let receipts = two.receipts();
    assert!(receipts[0].resume && receipts[0].next == 2, "{receipts:?}");
    two.answer(&receipts);
    numbers.extend(two.settle());
    assert_eq!(numbers, [1, 2, 3]);
    let counts = two.targets[0].counts();
    assert_eq!((counts.gaps, counts.duplicates), (2, 1));
}

/// enqueue_fsynced_ack_lost: the target starts again, and its log has the message with the mark.
#[test]
fn what_is_in_the_log_does_not_come_again() {
    let mut two = Two::new(&Config::default());
    two.send(QoS::AtLeastOnce, &[(0, DURABLE)]);
    two.send(QoS::AtLeastOnce, &[(0, DURABLE)]);
    let frames = two.frames();
    frames.iter().for_each(|frame| two.arrive(frame));
    let mark = two.targets[0].enqueued(&two.deliveries[0].clone());
    two.deliveries.clear();
    let mut again = LanesIn::new(Config::default(), ShardId(0), Incarnation(2));
    again.restore(A, ShardId(0), mark);
    two.targets[0] = again;
    two.source.connected(two.now, Incarnation(2), &mut two.out);
    let hints: Vec<Option<u64>> = two
        .out
        .iter()
        .filter_map(|output| if let Output::Hint { seq, .. } = output { Some(*seq) } else { None })
        .collect();
    assert_eq!(hints, [Some(1), Some(2)]);
    // Frames to the earlier life are not taken.
    frames.iter().for_each(|frame| two.arrive(frame));
    assert!(two.deliveries.is_empty() && two.targets[0].counts().stale == 2);
    two.settle();
    assert!(two.out.contains(&Output::Opened { shard: ShardId(0), stored: 1, refused: vec![] }), "{:?}", two.out);
    assert!(!two.source.connected(two.now, Incarnation(1), &mut two.out), "an earlier life");
}

/// source_restart_mid_qos2: the publisher repeats what its node had sent before it started again.
#[test]
fn a_repeated_qos_2_message_is_not_enqueued_again() {
    let mut two = Two::new(&Config::default());
    two.send(QoS::ExactlyOnce, &[(0, DURABLE)]);
    assert_eq!(two.settle(), [1]);
    two.source = PeerOut::new(Config::default(), ShardId(0), Incarnation(2), B);
    two.source.connected(two.now, Incarnation(1), &mut two.out);
    two.next = 1;
    two.send(QoS::ExactlyOnce, &[(0, What::Plain { transient: true, durable: true })]);
    let receive = |two: &mut Two| {
        for _ in 0..3 {
            two.frames().iter().for_each(|frame| two.arrive(frame));
            let receipts = two.receipts();
            two.answer(&receipts);
        }
    };
    receive(&mut two);
    let [delivery] = &two.deliveries[..] else { panic!("{:?}", two.deliveries) };
    assert_eq!((delivery.inc, delivery.seq), (Incarnation(2), 1));
    assert_eq!(two.targets[0].unseen(delivery), Some(TRANSIENT));
    two.work();
    two.source.release(two.now, message(QoS::ExactlyOnce, 1).guid(), &[ShardId(0)], &mut two.out);
    receive(&mut two);
    let release = two.deliveries.pop().expect("it has come");
    assert_eq!(two.targets[0].guids().len(), 2);
    two.targets[0].enqueued(&release);
    assert!(two.targets[0].guids().is_empty());
}

/// forward_peer_dies: what is under way is lost, hinted or goes to another member, by whom it is for.
#[test]
fn what_becomes_of_messages_when_their_node_goes_down() {
    let both = What::Plain { transient: true, durable: true };
    let shared = |durable| What::Group { name: Bytes::from_static(b"$share/g/a"), durable };
    let table: [(QoS, What, bool, &str); 9] = [
        (QoS::AtMostOnce, both.clone(), true, "dropped"),
        (QoS::AtLeastOnce, TRANSIENT, true, "lost"),
        (QoS::AtLeastOnce, both.clone(), true, "hint 1"),
        (QoS::AtLeastOnce, DURABLE, false, "hint"),
        (QoS::AtLeastOnce, shared(true), true, "redispatch"),
        (QoS::ExactlyOnce, shared(false), true, "lost"),
        (QoS::ExactlyOnce, shared(true), true, "hint 1"),
        (QoS::ExactlyOnce, shared(true), false, "redispatch"),
        (QoS::ExactlyOnce, both, true, "hint 1"),
    ];
    for (qos, what, sent, becomes) in table {
        let mut two = Two::new(&narrow());
        if !sent {
            two.send(QoS::AtLeastOnce, &[(0, TRANSIENT)]);
            two.send(QoS::AtLeastOnce, &[(0, TRANSIENT)]);
        }
        let ticket = Ticket(two.next);
        two.send(qos, &[(0, what.clone())]);
        two.clear();
        two.source.down(two.now, &mut two.out);
        let got = two.out.iter().find_map(|output| match output {
            Output::Lost { ticket: other } if *other == ticket => Some("lost"),
            Output::Redispatch { ticket: other, why: Gone::Down, .. } if *other == ticket => Some("redispatch"),
            Output::Hint { ticket: other, seq, what, .. } if *other == ticket => {
                assert!(!matches!(what, What::Plain { transient: true, .. }), "sessions in memory have missed it");
                Some(if seq.is_some() { "hint 1" } else { "hint" })
            }
            _ => None,
        });
        assert_eq!(got.unwrap_or("dropped"), becomes, "{qos:?} {what:?}");
        assert!(two.source.view().all(|view| view.unstored == 0 && view.flight_messages == 0 && view.waiting == 0));
    }
}

/// owner_down_hint_then_source_crash: behind hints only hints, until they are handed over.
#[test]
fn nothing_overtakes_a_hint() {
    let mut two = Two::new(&Config::default());
    two.source.down(two.now, &mut two.out);
    assert_eq!(two.send(QoS::AtLeastOnce, &[(0, TRANSIENT)]), Sent { closed: 1, ..Sent::default() });
    assert_eq!(two.send(QoS::AtLeastOnce, &[(0, DURABLE)]).answers, 1);
    two.source.connected(two.now, Incarnation(1), &mut two.out);
    two.settle();
    // What is for sessions in memory, too, would come to those that are stored before what waits.
    let sent = two.send(QoS::AtLeastOnce, &[(0, What::Plain { transient: true, durable: true })]);
    assert_eq!(sent.answers, 1);
    assert_eq!(two.send(QoS::AtLeastOnce, &[(0, TRANSIENT)]).answers, 1);
    let hints: Vec<u64> = two
        .out
        .iter()
        .filter_map(|output| if let Output::Hint { ticket, .. } = output { Some(ticket.0) } else { None })
        .collect();
    assert_eq!(hints, [2, 3, 4]);
    assert_eq!(two.settle(), []);
    for id in [2, 3, 4] {
        let publication = message(QoS::AtLeastOnce, id);
        let post = Post { ticket: Ticket(100 + id), publication, expires: Instant::NEVER, from_log: true };
        let target = Target { shard: ShardId(0), what: DURABLE };
        assert_eq!(two.source.send(two.now, &post, &[target], &mut two.out).answers, 1);
    }
    two.source.drained(two.now, ShardId(0), &mut two.out);
    two.send(QoS::AtLeastOnce, &[(0, DURABLE)]);
    assert_eq!(two.settle(), [2, 3, 4, 5]);
    assert_eq!(two.acked(), [102, 103, 104, 5]);
}

/// A hint that is on its way when the node goes down again stays in front of what comes later.
#[test]
fn a_hint_that_comes_back_stays_in_front() {
    let mut two = Two::new(&Config::default());
    let publication = message(QoS::AtLeastOnce, 1);
    let post = Post { ticket: Ticket(100), publication, expires: Instant::NEVER, from_log: true };
    let target = Target { shard: ShardId(0), what: DURABLE };
    two.source.send(two.now, &post, &[target], &mut two.out);
    two.clear();
    two.source.down(two.now, &mut two.out);
    assert_eq!(two.out, [Output::Kept { ticket: Ticket(100), seq: Some(1) }]);
    two.clear();
    two.source.connected(two.now, Incarnation(1), &mut two.out);
    two.send(QoS::AtLeastOnce, &[(0, DURABLE)]);
    assert!(two.out.iter().any(|output| matches!(output, Output::Hint { .. })), "{:?}", two.out);
}

/// A group's message that is refused goes elsewhere; the answer comes until the source has it.
#[test]
fn a_refusal_is_not_taken_for_an_acknowledgement() {
    for (what, refusal) in [(group(), Refusal::NoMember), (group(), Refusal::Full), (TRANSIENT, Refusal::Full)] {
        let mut two = Two::new(&Config::default());
        two.send(QoS::AtLeastOnce, &[(0, what.clone())]);
        two.send(QoS::AtLeastOnce, &[(0, TRANSIENT)]);
        for frame in two.frames() {
            two.arrive(&frame);
        }
        let refused = two.deliveries.remove(0);
        assert_eq!(two.targets[0].refused(&refused, refusal).upto, 0, "it is not in the mark until the source knows");
        let _ = two.receipts();
        two.work();
        // The first receipt was lost.
        let receipts = two.receipts();
        assert_eq!(receipts[0].refused, [(1, refusal)]);
        two.answer(&receipts);
        let first = two.out.remove(0);
        match first {
            Output::Redispatch { ticket: Ticket(1), why: Gone::Refused(why), .. } => {
                assert!(why == refusal && what == group());
            }
            Output::Refused { ticket: Ticket(1), refusal: why } => assert!(why == refusal && what == TRANSIENT),
            other => panic!("{other:?}"),
        }
        two.settle();
        assert_eq!(two.acked(), [2]);
        assert!(two.targets[0].view().all(|view| view.refused == 0 && view.mark.upto == 2));
    }
}

/// mutual_backpressure: both windows are full, and both come free without a client.
#[test]
fn two_nodes_that_fill_each_other_go_on() {
    let mut ends = [Two::new(&narrow()), Two::new(&narrow())];
    for two in &mut ends {
        for _ in 0..4 {
            two.send(QoS::AtLeastOnce, &[(0, TRANSIENT)]);
        }
        assert_eq!(two.waiting(), 2);
    }
    for two in &mut ends {
        assert_eq!(two.settle(), [1, 2, 3, 4]);
    }
}

#[test]
fn nothing_expires_early() {
    let mut two = Two::new(&Config::default());
    let publication = message(QoS::AtMostOnce, 1);
    let expires = Instant::from_millis(100_000);
    two.now = Instant::from_millis(500);
    let post = Post { ticket: Ticket(1), publication, expires, from_log: false };
    two.source.send(two.now, &post, &[Target { shard: ShardId(0), what: TRANSIENT }], &mut two.out);
    let frames = two.frames();
    two.now = Instant::from_millis(40);
    frames.iter().for_each(|frame| two.arrive(frame));
    let left = two.deliveries[0].expires - two.now;
    // 99.5 s by a clock that is 1 % slow, measured by one that is 1 % fast.
    assert!(left >= Duration::from_millis(99_500 * 101 / 99) && left < Duration::from_millis(99_500 * 103 / 100));
}

#[test]
fn a_message_above_the_window_goes_alone() {
    let mut two = Two::new(&Config { window_bytes: 10, unstored_bytes: 10, ..Config::default() });
    for _ in 0..3 {
        two.send(QoS::AtLeastOnce, &[(0, TRANSIENT)]);
    }
    assert_eq!(two.frames().len(), 1);
    two.source.disconnected();
    two.source.connected(two.now, Incarnation(1), &mut two.out);
    assert_eq!(two.settle(), [1, 2, 3]);
}

/// An evicted node that comes back goes on in the same life, with what it sent before still undecided here.
#[test]
fn a_node_that_was_forgotten_comes_back() {
    let mut two = Two::new(&Config::default());
    for _ in 0..2 {
        two.send(QoS::AtLeastOnce, &[(0, TRANSIENT)]);
    }
    two.frames().iter().for_each(|frame| two.arrive(frame));
    two.targets[0].forget(A);
    two.source.down(two.now, &mut two.out);
    two.source.connected(two.now, Incarnation(1), &mut two.out);
    two.send(QoS::AtLeastOnce, &[(0, TRANSIENT)]);
    assert_eq!(two.settle(), [1, 2, 3]);
    assert_eq!(two.acked(), [3]);
}
