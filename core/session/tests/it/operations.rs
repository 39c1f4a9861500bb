//! Random operations on a session and on its model, compared after each.

use std::collections::BTreeSet;

use newtmq_base::Instant;
use newtmq_mqtt::{ClientId, PacketId, QoS};
use newtmq_session::{
    AckKind, Applied, Dropped, Identifiers, Message, MessageId, MessageParts, Op, Outgoing, OutgoingKind, Session,
    SessionLimits,
};
use proptest::prelude::*;

use crate::model::{Entry, Model, Next};

#[derive(Debug, Clone)]
enum Step {
    Enqueue {
        qos: QoS,
        priority: u8,
        /// In milliseconds.
        lives: Option<u64>,
        /// Bytes of payload, but for four.
        large: usize,
    },
    /// Sends as long as there is something, at most so many.
    Send(usize),
    /// The n-th of those in flight is acknowledged, as is right for it.
    Ack(usize),
    /// The n-th gets a PUBREC.
    Pubrec(usize),
    /// An acknowledgement of any kind for any identifier.
    StrayAck(u16, AckKind),
    StrayPubrec(u16),
    Resume {
        receive_maximum: usize,
    },
    Advance(u64),
    Expire,
    Release,
    /// Half a retry interval passes so many times, and what is overdue is sent again.
    Retry(u8),
    /// The n-th in flight cannot be sent to this client.
    Discard(usize),
    /// So many messages pass through, so that Packet Identifiers come round again.
    Burst(u32),
}

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)]
}

fn kind() -> impl Strategy<Value = AckKind> {
    prop_oneof![Just(AckKind::Puback), Just(AckKind::Pubcomp), Just(AckKind::PubrecError)]
}

fn step() -> impl Strategy<Value = Step> {
    let lives = prop_oneof![3 => Just(None), 1 => (1..500u64).prop_map(Some)];
    let large = prop_oneof![4 => Just(0), 1 => 0..400usize];
    prop_oneof![
        60 => (qos(), 0..3u8, lives, large).prop_map(|(qos, priority, lives, large)| Step::Enqueue { qos, priority, lives, large }),
        40 => (1..10usize).prop_map(Step::Send),
        25 => (0..10usize).prop_map(Step::Ack),
        15 => (0..10usize).prop_map(Step::Pubrec),
        4 => (1..30u16, kind()).prop_map(|(id, kind)| Step::StrayAck(id, kind)),
        4 => (1..30u16).prop_map(Step::StrayPubrec),
        8 => (1..12usize).prop_map(|receive_maximum| Step::Resume { receive_maximum }),
        8 => (1..300u64).prop_map(Step::Advance),
        3 => Just(Step::Expire),
        3 => Just(Step::Release),
        6 => (1..5u8).prop_map(Step::Retry),
        2 => (0..10usize).prop_map(Step::Discard),
    ]
}

/// The same, and now and then nearly a round of Packet Identifiers.
fn step_with_bursts() -> impl Strategy<Value = Step> {
    prop_oneof![30 => step(), 1 => (20_000..65_600u32).prop_map(Step::Burst)]
}

const LIMITS: SessionLimits = SessionLimits { max_mqueue_len: 12, max_mqueue_bytes: 500, max_inflight: 12 };

fn tag_of(sent: &Outgoing<'_>) -> u32 {
    u32::from_be_bytes(sent.delivery.message.payload()[..4].try_into().unwrap())
}

struct Pair {
    session: Session,
    model: Model,
    now: u64,
    receive_maximum: usize,
    next_tag: u32,
    scratch: Vec<u8>,
}

impl Pair {
    fn new() -> Pair {
        Pair {
            session: Session::new(ClientId::new("a").unwrap(), 0),
            model: Model::default(),
            now: 0,
            receive_maximum: 8,
            next_tag: 0,
            scratch: Vec::new(),
        }
    }

    fn enqueue(&mut self, qos: QoS, priority: u8, lives: Option<u64>, large: usize) {
        let expires = lives.map_or(u64::MAX, |lives| self.now + lives);
        let tag = self.next_tag;
        self.next_tag += 1;
        let mut payload = tag.to_be_bytes().to_vec();
        payload.resize(4 + large, 0);
        let parts = MessageParts {
            id: MessageId::NONE,
            topic: b"t",
            forwardable: &[],
            payload: &payload,
            qos,
            retain: false,
            expires: if expires == u64::MAX { Instant::NEVER } else { Instant::from_millis(expires) },
            stretched: false,
        };
        let message = Message::new(&parts, &mut self.scratch);
        let bytes = message.size();
        let op = Op::Enqueue { message, qos, retain: false, identifiers: Identifiers::None, priority, shared: false };
        let applied = self.session.apply(op, &LIMITS);
        let entry = Entry { tag, qos, priority, expires, bytes };
        assert_eq!(applied, self.model.enqueue(entry, &LIMITS));
    }

    /// Sends one. Says whether there was one.
    fn send(&mut self) -> bool {
        let queue = self.model.queue.clone();
        let (expected, expected_expired) = self.model.next_send(self.now, self.receive_maximum);
        let mut expired = Vec::new();
        let now = Instant::from_millis(self.now);
        let sent = self.session.next_send(now, self.receive_maximum, &mut expired);
        assert_eq!(expired.len() as u32, expected_expired);
        let Some(sent) = sent else {
            assert_eq!(expected, None);
            return false;
        };
        let tag = tag_of(&sent);
        let id = sent.delivery.packet_id;
        match expected {
            None => panic!("nothing is to be sent, but {sent:?}"),
            Some(Next::Again { tag: expected, id: known, dup, pubrel }) => {
                assert_eq!((tag, id), (expected, Some(known)));
                assert_eq!(sent.kind, if pubrel { OutgoingKind::Pubrel } else { OutgoingKind::Publish { dup } });
            }
            Some(Next::New { tag: expected, qos }) => {
                assert_eq!((tag, sent.delivery.qos), (expected, qos));
                assert_eq!(sent.kind, OutgoingKind::Publish { dup: false });
                assert_eq!(id.is_some(), qos > QoS::AtMostOnce);
                let entry = queue.iter().find(|entry| entry.tag == tag).unwrap();
                self.model.was_sent(*entry, id);
            }
        }
        true
    }

    /// The Packet Identifier of the n-th in flight.
    fn nth(&self, at: usize) -> Option<(PacketId, QoS, bool)> {
        let count = self.model.in_flight.len();
        let sent = self.model.in_flight.get(if count == 0 { 0 } else { at % count })?;
        Some((sent.id, sent.entry.qos, sent.released))
    }

    fn ack(&mut self, packet_id: PacketId, kind: AckKind) -> Applied {
        let applied = self.session.apply(Op::Ack { packet_id, kind }, &LIMITS);
        assert_eq!(applied, self.model.ack(packet_id, kind));
        applied
    }

    fn pubrec(&mut self, packet_id: PacketId) {
        let applied = self.session.apply(Op::PubrecOut { packet_id }, &LIMITS);
        assert_eq!(applied, self.model.pubrec(packet_id));
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Enqueue { qos, priority, lives, large } => self.enqueue(qos, priority, lives, large),
            Step::Send(count) => {
                let _ = (0..count).take_while(|_| self.send()).count();
            }
            Step::Ack(at) => {
                if let Some((id, qos, released)) = self.nth(at) {
                    let kind = match (qos, released) {
                        (QoS::ExactlyOnce, true) => AckKind::Pubcomp,
                        (QoS::ExactlyOnce, false) => AckKind::PubrecError,
                        (QoS::AtMostOnce | QoS::AtLeastOnce, _) => AckKind::Puback,
                    };
                    assert_eq!(self.ack(id, kind), Applied::Done);
                }
            }
            Step::Pubrec(at) => {
                if let Some((id, ..)) = self.nth(at) {
                    self.pubrec(id);
                }
            }
            Step::StrayAck(id, kind) => {
                self.ack(PacketId::new(id).unwrap(), kind);
            }
            Step::StrayPubrec(id) => self.pubrec(PacketId::new(id).unwrap()),
            Step::Resume { receive_maximum } => {
                self.session.apply(Op::Detach { expiry_interval: 9 }, &LIMITS);
                self.session.apply(Op::Claim { expiry_interval: 9 }, &LIMITS);
                self.model.resume();
                self.receive_maximum = receive_maximum;
            }
            Step::Advance(millis) => self.now += millis,
            Step::Expire => {
                let applied = self.session.apply(Op::Expire { now: Instant::from_millis(self.now) }, &LIMITS);
                let expected = match self.model.expire(self.now) {
                    0 => Applied::Nothing,
                    expired => Applied::Dropped(Dropped { full: 0, expired }),
                };
                assert_eq!(applied, expected);
            }
            Step::Release => self.session.release(),
            Step::Retry(ticks) => self.retry(ticks),
            Step::Discard(at) => {
                if let Some((id, ..)) = self.nth(at) {
                    let applied = self.session.apply(Op::Discard { packet_id: id }, &LIMITS);
                    assert_eq!(applied, Applied::Done);
                    self.model.in_flight.retain(|sent| sent.id != id);
                    self.model.dropped += 1;
                }
            }
            Step::Burst(count) => self.burst(count),
        }
    }

    fn retry(&mut self, ticks: u8) {
        for _ in 0..ticks {
            self.session.retry_tick();
            self.model.retry_tick();
        }
        let (mut from, mut again) = (0, Vec::new());
        while let Some(sent) = self.session.next_overdue(&mut from) {
            let (tag, id) = (tag_of(&sent), sent.delivery.packet_id.unwrap());
            let dup = sent.kind == OutgoingKind::Publish { dup: true };
            again.push(Next::Again { tag, id, dup, pubrel: sent.kind == OutgoingKind::Pubrel });
        }
        assert_eq!(again, self.model.overdue());
    }

    /// Messages of the highest priority that are sent and acknowledged at once, if the window lets them.
    fn burst(&mut self, count: u32) {
        self.receive_maximum = self.receive_maximum.max(self.model.in_flight.len() + 1);
        while self.model.in_flight.iter().any(|sent| !sent.on_this_connection) && self.send() {}
        for _ in 0..count {
            self.enqueue(QoS::AtLeastOnce, 200, None, 0);
            assert!(self.send());
            let id = self.model.in_flight.last().unwrap().id;
            assert_eq!(self.ack(id, AckKind::Puback), Applied::Done);
        }
    }

    /// What must hold after each step.
    fn check(&self) {
        let (session, model) = (&self.session, &self.model);
        assert_eq!((session.queue_len(), session.inflight_len()), (model.queue.len(), model.in_flight.len()));
        assert_eq!((session.outstanding(), session.queue_bytes()), (model.outstanding(), model.queue_bytes()));
        assert_eq!(session.has_queued_qos0(), model.queue.iter().any(|entry| entry.qos == QoS::AtMostOnce));
        let ids: Vec<PacketId> = session.packet_ids().collect();
        let unique: BTreeSet<PacketId> = ids.iter().copied().collect();
        assert_eq!(unique.len(), ids.len(), "a Packet Identifier is used twice [MQTT-2.2.1-4]");
        let waiting = model.queue.iter().filter(|entry| entry.qos > QoS::AtMostOnce).count();
        assert_eq!(ids.len(), waiting + model.in_flight.len());
        assert!(model.in_flight.iter().all(|sent| unique.contains(&sent.id)));
        let accounted = model.completed + model.dropped + (model.queue.len() + model.in_flight.len()) as u64;
        assert_eq!(model.enqueued, accounted, "nothing is lost");
    }

    /// A client that acknowledges everything gets everything that is left.
    fn drain(&mut self) {
        self.step(&Step::Resume { receive_maximum: 5 });
        loop {
            while self.send() {}
            let Some((id, qos, released)) = self.nth(0) else { break };
            match (qos, released) {
                (QoS::ExactlyOnce, false) => self.pubrec(id),
                (QoS::ExactlyOnce, true) => assert_eq!(self.ack(id, AckKind::Pubcomp), Applied::Done),
                (QoS::AtMostOnce | QoS::AtLeastOnce, _) => assert_eq!(self.ack(id, AckKind::Puback), Applied::Done),
            }
            self.check();
        }
        assert_eq!((self.session.queue_len(), self.session.inflight_len()), (0, 0));
        assert_eq!(self.model.enqueued, self.model.completed + self.model.dropped);
    }
}

fn run(steps: &[Step]) {
    let mut pair = Pair::new();
    for step in steps {
        pair.step(step);
        pair.check();
    }
    pair.drain();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    // [MQTT-2.2.1-4] [MQTT-3.3.4-9] [MQTT-4.4.0-1] [MQTT-4.6.0-5]
    #[test]
    fn a_session_is_as_its_model(steps in proptest::collection::vec(step(), 1..120)) {
        run(&steps);
    }

    #[test]
    fn qos_2_identifiers_of_the_client_are_a_set(ids in proptest::collection::vec((any::<bool>(), 1..20u16), 0..100)) {
        let mut session = Session::new(ClientId::new("a").unwrap(), 0);
        let mut model = BTreeSet::new();
        for (add, id) in ids {
            let packet_id = PacketId::new(id).unwrap();
            assert_eq!(session.is_awaiting_rel(packet_id), model.contains(&id));
            let op = if add { Op::Qos2In { packet_id } } else { Op::Qos2Rel { packet_id } };
            let changed = if add { model.insert(id) } else { model.remove(&id) };
            assert_eq!(session.apply(op, &LIMITS), if changed { Applied::Done } else { Applied::Nothing });
            assert_eq!(session.awaiting_rel_len(), model.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    // [MQTT-2.2.1-4]
    #[test]
    fn packet_identifiers_come_round(steps in proptest::collection::vec(step_with_bursts(), 20..80)) {
        run(&steps);
    }
}

#[test]
fn an_identifier_in_use_is_skipped_in_each_round() {
    let mut pair = Pair::new();
    for _ in 0..3 {
        pair.enqueue(QoS::ExactlyOnce, 0, None, 0);
        assert!(pair.send());
    }
    for _ in 0..3 {
        pair.burst(65_535);
        pair.check();
    }
    pair.drain();
}

/// The same operations give the same session, whoever applies them.
#[test]
fn identifiers_are_decided_by_the_operations() {
    let ids = |release: bool| {
        let mut pair = Pair::new();
        for index in 0..200 {
            pair.enqueue(if index % 3 == 0 { QoS::ExactlyOnce } else { QoS::AtLeastOnce }, 0, None, 0);
            if release {
                pair.session.release();
            }
            if index % 5 == 0 {
                pair.send();
            }
        }
        pair.session.packet_ids().collect::<Vec<_>>()
    };
    assert_eq!(ids(false), ids(true));
}

#[test]
fn qos_2_identifiers_grow_old_until_the_client_comes_back() {
    let mut session = Session::new(ClientId::new("a").unwrap(), 0);
    let id = |id| PacketId::new(id).unwrap();
    session.apply(Op::Qos2In { packet_id: id(7) }, &LIMITS);
    assert!(session.await_rel_tick().is_empty());
    session.apply(Op::Qos2In { packet_id: id(3) }, &LIMITS);
    // Seen again: it is as old as before.
    assert_eq!(session.apply(Op::Qos2In { packet_id: id(7) }, &LIMITS), Applied::Nothing);
    assert!(session.await_rel_tick().is_empty());
    assert_eq!(session.await_rel_tick(), [id(7)]);
    session.apply(Op::Claim { expiry_interval: 9 }, &LIMITS);
    assert!(session.await_rel_tick().is_empty() && session.await_rel_tick().is_empty());
    assert_eq!(session.await_rel_tick(), [id(3), id(7)]);
    assert_eq!(session.awaiting_rel_len(), 2, "they are freed by an operation");
}
