//! A session and the log of its operations agree: whatever is restored has the same deliveries, identifiers and
//! subscriptions, and goes on as the session would have.

use std::collections::{BTreeMap, BTreeSet};

use newtmq_base::Instant;
use newtmq_mqtt::{OwnedTopicFilter, PacketId, QoS, SubscribeOptions, TopicFilter};
use newtmq_session::{
    AckKind, Applied, DeliveryRecord, Dropped, Identifiers, Message, MessageId, MessageParts, Op, Record, Restored,
    Restoring, Session, SessionId, SessionLimits,
};
use proptest::prelude::*;

const LIMITS: SessionLimits = SessionLimits { max_mqueue_len: 6, max_mqueue_bytes: 0, max_inflight: 3 };
const ID: SessionId = SessionId(9);

/// What happens to the session.
#[derive(Debug, Clone)]
enum Happening {
    Enqueue(QoS, u8),
    Send,
    Ack,
    Pubrec,
    Claim,
    Detach,
    Subscribe(u8),
    Unsubscribe(u8),
    Qos2In(u16),
    Qos2Rel(u16),
    Keep(u8),
    Snapshot,
}

fn happening() -> impl Strategy<Value = Happening> {
    let qos = prop_oneof![Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)];
    prop_oneof![
        5 => (qos, 0_u8..2).prop_map(|(qos, priority)| Happening::Enqueue(qos, priority)),
        5 => Just(Happening::Send),
        3 => Just(Happening::Ack),
        2 => Just(Happening::Pubrec),
        1 => Just(Happening::Claim),
        1 => Just(Happening::Detach),
        1 => (0_u8..4).prop_map(Happening::Subscribe),
        1 => (0_u8..4).prop_map(Happening::Unsubscribe),
        1 => (1_u16..5).prop_map(Happening::Qos2In),
        1 => (1_u16..5).prop_map(Happening::Qos2Rel),
        1 => (0_u8..9).prop_map(Happening::Keep),
        1 => Just(Happening::Snapshot),
    ]
}

/// The session, its log and the blocks that it names.
struct Pair {
    session: Session,
    log: Vec<Vec<u8>>,
    blocks: BTreeMap<u64, Message>,
    attached: bool,
    /// Identifiers that the client knows: QoS and whether PUBREC was sent.
    sent: Vec<(PacketId, QoS, bool)>,
    /// Subscriptions to which retained messages are on their way.
    readings: BTreeSet<OwnedTopicFilter>,
}

impl Pair {
    fn new() -> Pair {
        let client = newtmq_mqtt::ClientId::new("c").unwrap();
        let mut pair = Pair {
            session: Session::new(client, 60),
            log: Vec::new(),
            blocks: BTreeMap::new(),
            attached: false,
            sent: Vec::new(),
            readings: BTreeSet::new(),
        };
        pair.write(Record::Create { session: ID, client: "c".into(), zone: "external".into() });
        pair.claim();
        pair
    }

    fn write(&mut self, record: Record) {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        assert_eq!(Record::decode(&bytes).as_ref(), Ok(&record));
        self.log.push(bytes);
    }

    fn claim(&mut self) {
        self.session.apply(Op::Claim { expiry_interval: 60 }, &LIMITS);
        self.write(Record::Claim { session: ID, expiry_interval: 60 });
        (self.attached, self.sent) = (true, Vec::new());
    }

    fn enqueue(&mut self, qos: QoS, priority: u8) {
        let id = MessageId(self.blocks.len() as u64 + 1);
        let parts = MessageParts {
            id,
            topic: b"t",
            forwardable: &[],
            payload: &id.0.to_le_bytes(),
            qos,
            retain: false,
            expires: Instant::NEVER,
            stretched: false,
        };
        let message = Message::new(&parts, &mut Vec::new());
        self.blocks.insert(id.0, message.clone());
        let (before, shared) = (self.dseqs(), id.0.is_multiple_of(2));
        let op = Op::Enqueue { message, qos, retain: false, identifiers: Identifiers::One(3), priority, shared };
        let applied = self.session.apply(op, &LIMITS);
        let after = self.dseqs();
        let dseq = *after.iter().find(|dseq| !before.contains(dseq)).unwrap();
        let delivery = DeliveryRecord {
            message: id,
            dseq,
            qos,
            retain: false,
            shared,
            identifiers: Identifiers::One(3),
            priority,
            sent: false,
            released: false,
        };
        self.write(Record::Enqueue { session: ID, delivery });
        let gone: Vec<u64> = before.into_iter().filter(|dseq| !after.contains(dseq)).collect();
        let dropped = Dropped { full: gone.len() as u32, expired: 0 };
        assert_eq!(applied, if gone.is_empty() { Applied::Done } else { Applied::Dropped(dropped) });
        for dseq in gone {
            self.write(Record::Drop { session: ID, dseq });
        }
    }

    fn dseqs(&self) -> Vec<u64> {
        self.session.snapshot(ID, "", None).deliveries.iter().map(|delivery| delivery.dseq).collect()
    }

    fn happen(&mut self, happening: &Happening) {
        match *happening {
            Happening::Enqueue(qos, priority) => self.enqueue(qos, priority),
            Happening::Send if self.attached => {
                let next = self.session.next_send(Instant::START, 3, &mut Vec::new());
                if let Some(next) = next {
                    let delivery = next.delivery;
                    let released = next.kind == newtmq_session::OutgoingKind::Pubrel;
                    self.sent.push((delivery.packet_id.unwrap(), delivery.qos, released));
                }
            }
            Happening::Ack if !self.sent.is_empty() => {
                let (packet_id, qos, released) = self.sent[0];
                let kind = match (qos, released) {
                    (QoS::AtLeastOnce, _) => AckKind::Puback,
                    (_, true) => AckKind::Pubcomp,
                    (_, false) => AckKind::PubrecError,
                };
                assert_eq!(self.session.apply(Op::Ack { packet_id, kind }, &LIMITS), Applied::Done);
                self.write(Record::Ack { session: ID, packet_id, kind });
                self.sent.remove(0);
            }
            Happening::Pubrec => {
                let open = self.sent.iter_mut().find(|(_, qos, released)| *qos == QoS::ExactlyOnce && !released);
                let Some((packet_id, _, released)) = open else { return };
                *released = true;
                let packet_id = *packet_id;
                assert_eq!(self.session.apply(Op::PubrecOut { packet_id }, &LIMITS), Applied::Done);
                self.write(Record::PubrecOut { session: ID, packet_id });
            }
            Happening::Claim => self.claim(),
            Happening::Detach if self.attached => {
                self.session.apply(Op::Detach { expiry_interval: 60 }, &LIMITS);
                self.write(Record::Detach { session: ID, expiry_interval: 60, at: Instant::from_millis(5) });
                (self.attached, self.sent) = (false, Vec::new());
            }
            Happening::Subscribe(n) => {
                let filter = TopicFilter::new(&format!("t/{n}/#")).unwrap().into();
                let options = SubscribeOptions { no_local: true, ..SubscribeOptions::new(QoS::ExactlyOnce) };
                let identifier = core::num::NonZeroU32::new(u32::from(n));
                let record = Record::Subscribe { session: ID, filter, options, identifier };
                self.write(record.clone());
                let Record::Subscribe { filter, .. } = record else { unreachable!() };
                if n.is_multiple_of(2) {
                    self.write(Record::Reading { session: ID, filter: filter.clone(), done: false });
                    self.readings.insert(filter.clone());
                } else {
                    self.readings.remove(&filter);
                }
                self.session.apply(Op::Subscribe { filter, options, identifier }, &LIMITS);
            }
            Happening::Unsubscribe(n) => {
                let text = format!("t/{n}/#");
                let filter = TopicFilter::new(&text).unwrap();
                if self.session.apply(Op::Unsubscribe { filter }, &LIMITS) == Applied::Done {
                    self.write(Record::Unsubscribe { session: ID, filter: filter.into() });
                    self.readings.remove(&OwnedTopicFilter::from(filter));
                }
            }
            Happening::Qos2In(id) => {
                let packet_id = PacketId::new(id).unwrap();
                self.session.apply(Op::Qos2In { packet_id }, &LIMITS);
                self.write(Record::Qos2In { session: ID, packet_id });
            }
            Happening::Qos2Rel(id) => {
                let packet_id = PacketId::new(id).unwrap();
                self.session.apply(Op::Qos2Rel { packet_id }, &LIMITS);
                self.write(Record::Qos2Rel { session: ID, packet_id });
            }
            Happening::Keep(byte) => {
                self.session.apply(Op::Keep { bytes: vec![byte; usize::from(byte)].into() }, &LIMITS);
                self.write(Record::Keep { session: ID, bytes: vec![byte; usize::from(byte)] });
            }
            Happening::Snapshot => {
                // Everything before it counts no more.
                self.log.clear();
                let detached = (!self.attached).then_some(Instant::from_millis(5));
                let snapshot = self.session.snapshot(ID, "external", detached);
                self.write(Record::Snapshot(Box::new(snapshot)));
                for filter in self.readings.clone() {
                    self.write(Record::Reading { session: ID, filter, done: false });
                }
            }
            Happening::Send | Happening::Ack | Happening::Detach => {}
        }
    }

    #[allow(clippy::wildcard_enum_match_arm, reason = "two of the kinds begin a session, the others change it")]
    fn restore(&self) -> Restored {
        let find = |id: MessageId| self.blocks.get(&id.0).cloned();
        let mut restoring: Option<Restoring> = None;
        for bytes in &self.log {
            match Record::decode(bytes).unwrap() {
                Record::Create { session, client, zone } => {
                    restoring = Restoring::create(session, &client, zone.into(), 1);
                }
                Record::Snapshot(snapshot) => {
                    let (from, missing) =
                        Restoring::from_snapshot(&snapshot, snapshot.zone[..].into(), 1, &find).unwrap();
                    assert!(missing.is_empty());
                    restoring = Some(from);
                }
                record => restoring.as_mut().unwrap().apply(record, &find).unwrap(),
            }
        }
        restoring.unwrap().finish(&LIMITS)
    }
}

/// Everything that is durable about a session; where a delivery is (in flight or waiting) is not.
fn state(session: &Session, detached: Option<Instant>) -> newtmq_session::SnapshotRecord {
    let mut snapshot = session.snapshot(ID, "external", detached);
    for delivery in &mut snapshot.deliveries {
        (delivery.sent, delivery.priority) = (false, 0);
    }
    snapshot.deliveries.sort_by_key(|delivery| delivery.dseq);
    snapshot
}

proptest! {
    #[test]
    fn a_log_gives_the_session_back(happenings in prop::collection::vec(happening(), 0..80)) {
        let mut pair = Pair::new();
        for happening in &happenings {
            pair.happen(happening);
        }
        let restored = pair.restore();
        let detached = (!pair.attached).then_some(Instant::from_millis(5));
        prop_assert_eq!(restored.detached, detached);
        prop_assert_eq!(&restored.readings, &pair.readings.iter().cloned().collect::<Vec<_>>());
        prop_assert_eq!(&*restored.zone, "external");
        prop_assert_eq!(state(&restored.session, detached), state(&pair.session, detached));

        // What the client had got and not finished comes first, with DUP or as PUBREL, and in its order.
        let mut again = restored.session;
        let sent: Vec<(PacketId, bool)> = pair.sent.iter().map(|(id, _, released)| (*id, *released)).collect();
        again.apply(Op::Claim { expiry_interval: 60 }, &LIMITS);
        let mut resent = Vec::new();
        while let Some(next) = again.next_send(Instant::START, 1000, &mut Vec::new()) {
            let released = match next.kind {
                newtmq_session::OutgoingKind::Publish { dup: true } => false,
                newtmq_session::OutgoingKind::Pubrel => true,
                newtmq_session::OutgoingKind::Publish { dup: false } => break,
            };
            resent.push((next.delivery.packet_id.unwrap(), released));
        }
        for one in &sent {
            prop_assert!(resent.contains(one), "{one:?} of {sent:?} is not among {resent:?}");
        }
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let _ = Record::decode(&bytes);
        let _ = Message::from_block(&bytes);
    }
}

#[test]
fn a_log_that_lost_what_the_queue_gave_up_fills_no_more_than_the_queue() {
    let mut pair = Pair::new();
    pair.happen(&Happening::Detach);
    for _ in 0..10 {
        pair.enqueue(QoS::AtLeastOnce, 0);
    }
    let kept = pair.dseqs();
    pair.log.retain(|bytes| !matches!(Record::decode(bytes), Ok(Record::Drop { .. })));
    let restored = pair.restore();
    assert_eq!(restored.given_up.len() + LIMITS.max_mqueue_len, 10, "what is dropped at a start is told");
    let restored = restored.session;
    assert_eq!(restored.queue_len(), LIMITS.max_mqueue_len);
    let dseqs = restored.snapshot(ID, "", None).deliveries.iter().map(|delivery| delivery.dseq).collect::<Vec<_>>();
    assert_eq!(dseqs, kept);
}

#[test]
fn what_the_server_says_of_itself_is_in_no_snapshot() {
    let mut pair = Pair::new();
    pair.enqueue(QoS::AtLeastOnce, 0);
    let parts = MessageParts {
        id: MessageId::NONE,
        topic: b"$SYS/a",
        forwardable: &[],
        payload: b"1",
        qos: QoS::AtLeastOnce,
        retain: false,
        expires: Instant::NEVER,
        stretched: false,
    };
    let message = Message::new(&parts, &mut Vec::new());
    let op = Op::Enqueue {
        message,
        qos: QoS::AtLeastOnce,
        retain: false,
        identifiers: Identifiers::None,
        priority: 0,
        shared: false,
    };
    pair.session.apply(op, &LIMITS);
    for sent in [false, true] {
        if sent {
            while pair.session.next_send(Instant::START, 10, &mut Vec::new()).is_some() {}
        }
        let snapshot = pair.session.snapshot(ID, "", None);
        assert_eq!(snapshot.deliveries.len(), 1, "sent: {sent}");
        assert_eq!(snapshot.next_dseq, 2, "its place in the order is taken");
        assert!(pair.session.messages().all(|message| message.id() != MessageId::NONE));
    }
}

#[test]
fn records_about_other_nodes_come_back() {
    let packet_id = PacketId::new(7).unwrap();
    let of = |receivers| Record::Guid { own: 3, guid: [9; 16], receivers };
    let hint = |group, retain| {
        let (number, node, shard, expires) = (u64::MAX, 1 << 50, 127, Instant::NEVER);
        let (qos, body) = (QoS::ExactlyOnce, b"body".to_vec());
        Record::Hint(Box::new(newtmq_session::HintRecord { number, node, shard, group, qos, retain, expires, body }))
    };
    let records = [
        Record::Forwarding { session: ID, packet_id, guid: [1; 16] },
        Record::Forwarded { session: ID, packet_id },
        Record::Mark { own: 1, node: u64::MAX, shard: 127, inc: 5, upto: 1 << 40 },
        of(newtmq_session::Receivers::Plain),
        of(newtmq_session::Receivers::Group("$share/g/t".into())),
        of(newtmq_session::Receivers::Released),
        hint(None, false),
        hint(Some("$share/g/t".into()), true),
        Record::HintDone { number: u64::MAX },
    ];
    for record in records {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        assert_eq!(Record::decode(&bytes), Ok(record));
        assert!((0..bytes.len()).all(|len| Record::decode(&bytes[..len]).is_err()));
    }
}
