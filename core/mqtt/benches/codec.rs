//! What a message costs to decode and to encode. The budget of the whole core is 120 ns a message.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use newtmq_mqtt::{
    Decoder, PacketId, PacketType, ProtocolVersion, PublishOut, PublishProperties, QoS, ReasonCode, Sender, TopicName,
    encode_ack,
};

const MESSAGES: usize = 100;
const V311: ProtocolVersion = ProtocolVersion::V311;
const V5: ProtocolVersion = ProtocolVersion::V5;

fn publish(qos: QoS, forwardable: &[u8]) -> PublishOut<'_> {
    PublishOut {
        dup: false,
        qos,
        retain: false,
        topic: b"building/3/floor/12/room/7/temperature",
        packet_id: if qos == QoS::AtMostOnce { None } else { PacketId::new(4_711) },
        topic_alias: None,
        message_expiry_interval: None,
        subscription_identifiers: &[],
        forwardable,
        payload: &[b'x'; 64],
    }
}

/// Content Type and one User Property.
const PROPERTIES: &[u8] = b"\x03\0\x10application/json\x26\0\x04unit\0\x07celsius";

fn rows() -> [(&'static str, ProtocolVersion, PublishOut<'static>); 5] {
    [
        ("v3.1.1 QoS 0", V311, publish(QoS::AtMostOnce, &[])),
        ("v3.1.1 QoS 1", V311, publish(QoS::AtLeastOnce, &[])),
        ("v5 QoS 0", V5, publish(QoS::AtMostOnce, &[])),
        ("v5 QoS 1", V5, publish(QoS::AtLeastOnce, &[])),
        ("v5 QoS 1 with properties", V5, publish(QoS::AtLeastOnce, PROPERTIES)),
    ]
}

/// Each of the [`MESSAGES`] in one buffer, as a socket gives them; the time is that of all.
fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode 100");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    for (name, version, publish) in rows() {
        let mut stream = Vec::new();
        (0..MESSAGES).for_each(|_| publish.encode(version, &mut stream));
        group.bench_function(format!("{name}, parts"), |b| {
            b.iter(|| {
                let mut decoder = Decoder::new();
                let mut input = black_box(&*stream);
                while let Ok(Some(frame)) = decoder.next(&mut input, 1 << 20) {
                    black_box(frame.publish(version).ok());
                }
            });
        });
        group.bench_function(format!("{name}, parts and validated"), |b| {
            b.iter(|| {
                let mut decoder = Decoder::new();
                let mut input = black_box(&*stream);
                while let Ok(Some(frame)) = decoder.next(&mut input, 1 << 20) {
                    if let Ok(raw) = frame.publish(version) {
                        black_box(TopicName::from_bytes(raw.topic).ok());
                        black_box(PublishProperties::decode(raw.properties, Sender::Client).ok());
                        black_box(raw);
                    }
                }
            });
        });
        group.bench_function(format!("{name}, packet"), |b| {
            b.iter(|| {
                let mut decoder = Decoder::new();
                let mut input = black_box(&*stream);
                while let Ok(Some(frame)) = decoder.next(&mut input, 1 << 20) {
                    black_box(frame.decode(version, Sender::Client).ok());
                }
            });
        });
    }
    group.finish();
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode 100");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    let mut out = Vec::with_capacity(64 * 1024);
    for (name, version, publish) in rows() {
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                for _ in 0..MESSAGES {
                    black_box(&publish).encode(black_box(version), &mut out);
                }
                black_box(out.len())
            });
        });
    }
    let id = PacketId::new(4_711).expect("not 0");
    group.bench_function("PUBACK", |b| {
        b.iter(|| {
            out.clear();
            for _ in 0..MESSAGES {
                encode_ack(PacketType::Puback, black_box(id), ReasonCode::Success, black_box(V5), &mut out);
            }
            black_box(out.len())
        });
    });
    group.finish();
}

criterion_group!(benches, decode, encode);
criterion_main!(benches);
