//! QoS 1 and 2 through a session: what each delivery costs beside decoding and routing.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use newtmq_base::Instant;
use newtmq_mqtt::{ClientId, PacketId, QoS};
use newtmq_session::{AckKind, Identifiers, Message, MessageId, MessageParts, Op, Session, SessionLimits};

const LIMITS: SessionLimits = SessionLimits { max_mqueue_len: 1000, max_mqueue_bytes: 0, max_inflight: 256 };
/// Messages sent before they are acknowledged.
const WINDOW: usize = 32;

fn message(scratch: &mut Vec<u8>) -> Message {
    let parts = MessageParts {
        id: MessageId::NONE,
        topic: b"site/4711/device/17/state",
        forwardable: &[],
        payload: &[0x55; 64],
        qos: QoS::AtLeastOnce,
        retain: false,
        expires: Instant::NEVER,
        stretched: false,
    };
    Message::new(&parts, scratch)
}

fn window(session: &mut Session, qos: QoS, scratch: &mut Vec<u8>) {
    let mut ids: [Option<PacketId>; WINDOW] = [None; WINDOW];
    for id in &mut ids {
        let op = Op::Enqueue {
            message: message(scratch),
            qos,
            retain: false,
            identifiers: Identifiers::None,
            priority: 0,
            shared: false,
        };
        session.apply(op, &LIMITS);
        let sent = session.next_send(Instant::START, LIMITS.max_inflight, &mut Vec::new()).expect("the window is open");
        *id = sent.delivery.packet_id;
    }
    for packet_id in ids.into_iter().flatten() {
        let kind = if qos == QoS::ExactlyOnce {
            session.apply(Op::PubrecOut { packet_id }, &LIMITS);
            AckKind::Pubcomp
        } else {
            AckKind::Puback
        };
        session.apply(Op::Ack { packet_id, kind }, &LIMITS);
    }
}

fn enqueue_and_ack(c: &mut Criterion) {
    let mut group = c.benchmark_group("enqueue_send_ack");
    group.throughput(Throughput::Elements(WINDOW as u64));
    for (name, qos) in [("qos1", QoS::AtLeastOnce), ("qos2", QoS::ExactlyOnce)] {
        let mut session = Session::new(ClientId::new("bench").expect("valid"), 0);
        let mut scratch = Vec::new();
        group.bench_function(name, |b| b.iter(|| window(&mut session, qos, &mut scratch)));
    }
    group.finish();
}

fn message_block(c: &mut Criterion) {
    let mut scratch = Vec::new();
    c.bench_function("message_block", |b| b.iter(|| message(&mut scratch)));
}

criterion_group!(benches, enqueue_and_ack, message_block);
criterion_main!(benches);
