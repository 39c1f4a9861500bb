//! A stream of packets, cut anywhere.

use newtmq_mqtt::{DecodeError, Decoder, Sender};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::packets::{VERSIONS, all, pools};

/// The packets in `stream`, given to one decoder in pieces of these lengths, over and over.
fn frames(stream: &[u8], lens: &[usize], max_packet_size: u32) -> (Vec<Vec<u8>>, Result<(), DecodeError>) {
    let mut frames = Vec::new();
    let mut decoder = Decoder::new();
    let mut lens = lens.iter().cycle();
    let (mut rest, mut received) = (stream, 0);
    while !rest.is_empty() {
        let (mut chunk, later) = rest.split_at(*lens.next().unwrap().min(&rest.len()));
        received += chunk.len();
        rest = later;
        loop {
            match decoder.next(&mut chunk, max_packet_size) {
                Ok(Some(frame)) => {
                    received -= frame.bytes.len();
                    assert_eq!(frame.body, &frame.bytes[frame.bytes.len() - frame.body.len()..]);
                    frames.push(frame.bytes.to_vec());
                }
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
        assert!(chunk.is_empty(), "what is incomplete is taken, too");
        assert_eq!(decoder.buffered(), received, "all that was received and is in no packet yet");
        assert!(decoder.buffered() <= max_packet_size as usize + 5);
    }
    (frames, Ok(()))
}

proptest! {
    #[test]
    fn the_cuts_of_a_stream_do_not_matter(pool in pools(), lens in vec(1..50_usize, 1..8)) {
        let parts = pool.parts();
        for version in VERSIONS {
            let packets = all(&parts, version, Sender::Server);
            let mut stream = Vec::new();
            for packet in &packets {
                packet.encode(version, &mut stream).unwrap();
            }
            let (whole, result) = frames(&stream, &[stream.len()], u32::MAX);
            prop_assert_eq!(result, Ok(()));
            prop_assert_eq!((whole.len(), &whole.concat()), (packets.len(), &stream));
            prop_assert_eq!(frames(&stream, &lens, u32::MAX), (whole, Ok(())));
        }
    }

    /// The same frames and the same error, and never more memory than [`frames`] allows.
    #[test]
    fn any_bytes_in_any_pieces(
        stream in vec(prop_oneof![any::<u8>(), 0..8_u8, Just(0x30), Just(0xC0), Just(0xFF)], 1..300),
        lens in vec(1..20_usize, 1..8),
        max_packet_size in prop_oneof![2..100_u32, Just(u32::MAX)],
    ) {
        let whole = frames(&stream, &[stream.len()], max_packet_size);
        prop_assert_eq!(frames(&stream, &lens, max_packet_size), whole);
    }
}
