//! Frames come back as they were; garbage is an error and never a panic.

use newtmq_base::{Incarnation, NodeId};
use proptest::prelude::*;

use crate::link::{Acks, Decoder, End, Frame, Heartbeat, Hello, InvalidLength, Passed, Refusal, RunMark};

fn mark() -> impl Strategy<Value = RunMark> {
    (any::<u64>(), any::<u64>()).prop_map(|(run, next)| RunMark { run, next })
}

fn acks() -> impl Strategy<Value = Acks> {
    (any::<u64>(), mark(), mark()).prop_map(|(control, data, bulk)| Acks { control, data, bulk })
}

fn end() -> impl Strategy<Value = End> {
    (any::<u64>(), any::<u64>())
        .prop_map(|(incarnation, generation)| End { incarnation: Incarnation(incarnation), generation })
}

/// Frames over one buffer, which has to outlive them.
fn frames(buffer: &'static [u8]) -> impl Strategy<Value = Frame<'static>> {
    let piece = (0..buffer.len()).prop_map(move |len| &buffer[..len]);
    prop_oneof![
        piece.clone().prop_map(Frame::Hello),
        (any::<bool>(), any::<u64>())
            .prop_map(move |(tls, generation)| Frame::Proof { proof: &buffer[..if tls { 0 } else { 32 }], generation }),
        Just(Frame::Welcome),
        Just(Frame::Refused(Refusal::Evicted)),
        Just(Frame::Use),
        (any::<[u64; 5]>(), acks()).prop_map(|([stamp, echo, held, opening, received], acks)| {
            Frame::Heartbeat(Heartbeat { stamp, echo, held, opening, received, acks })
        }),
        (any::<u64>(), acks()).prop_map(|(received, acks)| Frame::Ack { received, acks }),
        prop::collection::vec(any::<u64>().prop_map(NodeId), 0..9).prop_map(Frame::Neighbours),
        (any::<u64>(), piece.clone()).prop_map(|(seq, payload)| Frame::Control { seq, payload }),
        (any::<bool>(), mark(), piece.clone()).prop_map(|(bulk, mark, payload)| Frame::Run { bulk, mark, payload }),
        (any::<bool>(), any::<u64>(), end(), prop::option::of(end()), piece).prop_map(
            |(back, node, source, destination, inner)| {
                let passed = Passed { node: NodeId(node), source, destination, inner };
                if back { Frame::Relayed(passed) } else { Frame::Relay(passed) }
            }
        ),
    ]
}

static BUFFER: [u8; 300] = [7; 300];

proptest! {
    #[test]
    fn frames_come_back_however_they_are_cut(
        sent in prop::collection::vec(frames(&BUFFER), 1..8),
        cuts in prop::collection::vec(1..40_usize, 1..9),
    ) {
        let mut bytes = Vec::new();
        for frame in &sent {
            frame.write(&mut bytes);
        }
        let mut decoder = Decoder::default();
        let mut count = 0;
        let mut rest = &bytes[..];
        for cut in cuts.iter().cycle() {
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            rest = after;
            decoder.feed(piece);
            while let Some(frame) = decoder.next(1000).unwrap() {
                prop_assert_eq!(&Frame::decode(frame).unwrap(), &sent[count]);
                count += 1;
            }
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(count, sent.len());
    }

    #[test]
    fn garbage_is_told(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0..16_u8) {
        let _: Result<_, _> = Frame::decode(&bytes);
        let _: Result<_, _> = Hello::decode(&bytes);
        let mut kinded = bytes.clone();
        kinded.insert(0, kind);
        let _: Result<_, _> = Frame::decode(&kinded);
        let mut decoder = Decoder::default();
        decoder.feed(&bytes);
        while let Ok(Some(frame)) = decoder.next(100) {
            prop_assert!(!frame.is_empty() && frame.len() <= 100);
        }
    }

    #[test]
    fn hellos_come_back(
        names in ("[a-zé]{0,40}", "[a-z@.]{0,40}"),
        numbers in any::<[u64; 5]>(),
        small in any::<[u16; 3]>(),
        tls in any::<bool>(),
        nonce in any::<[u8; 32]>(),
        later in prop::collection::vec(any::<u8>(), 0..9),
    ) {
        let hello = Hello {
            cluster: names.0, node: NodeId(numbers[0]), incarnation: Incarnation(numbers[1]), name: names.1,
            proto_min: small[0], proto_max: small[1], features: numbers[2], shards: small[2],
            meta_term: numbers[3], meta_index: numbers[4], tls, nonce,
        };
        let mut bytes = Vec::new();
        hello.encode(&mut bytes);
        for cut in 0..bytes.len() {
            prop_assert!(Hello::decode(&bytes[..cut]).is_err());
        }
        bytes.extend(later);
        prop_assert_eq!(Hello::decode(&bytes), Ok(hello));
    }
}

#[test]
fn a_length_that_is_too_large_is_told_before_its_bytes_come() {
    let mut decoder = Decoder::default();
    decoder.feed(&[0, 1, 0]);
    assert_eq!(decoder.next(100), Ok(None));
    decoder.feed(&[0]);
    assert_eq!(decoder.next(100), Err(InvalidLength(65_536)));
    let mut empty = Decoder::default();
    empty.feed(&[0; 4]);
    assert_eq!(empty.next(100), Err(InvalidLength(0)));
}

#[test]
fn reasons_come_back() {
    for code in 0..=255_u8 {
        let reason = Refusal::of_code(code);
        assert_eq!(Refusal::of_code(reason.code()), reason);
        assert_eq!(reason.code() == code, code <= 10);
    }
}
