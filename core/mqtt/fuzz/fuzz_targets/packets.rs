//! Any bytes, in any pieces, from either side and in any version.
//!
//! The first input byte picks the version, the side, the Maximum Packet Size and the first piece's length; the rest is
//! the stream. Checked: nothing panics; the pieces do not matter; the decoder holds no more than it was given; a packet
//! that is accepted can be encoded, and what comes of it decodes to the same packet.
//!
//! `cargo +nightly fuzz run packets` in the folder `core/mqtt`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use newtmq_mqtt::{DecodeError, Decoder, Frame, Packet, ProtocolVersion, PublishProperties, Sender};

fuzz_target!(|data: &[u8]| {
    let Some((&control, stream)) = data.split_first() else { return };
    let version = match control & 3 {
        0 => ProtocolVersion::V31,
        1 => ProtocolVersion::V311,
        _ => ProtocolVersion::V5,
    };
    let sender = if control & 4 == 0 { Sender::Client } else { Sender::Server };
    let max_packet_size = if control & 8 == 0 { u32::MAX } else { 64 };
    let whole = packets(stream, stream.len(), version, sender, max_packet_size);
    let pieces = packets(stream, 1 + usize::from(control >> 4), version, sender, max_packet_size);
    assert_eq!(whole, pieces, "how the stream is cut matters");
});

/// How many packets there are, and how it ends. Each piece is a byte longer than the one before, up to 16.
fn packets(
    stream: &[u8],
    first_len: usize,
    mut version: ProtocolVersion,
    sender: Sender,
    max_packet_size: u32,
) -> (usize, Option<DecodeError>) {
    let mut decoder = Decoder::new();
    let (mut rest, mut len) = (stream, first_len);
    let (mut count, mut pending) = (0, 0);
    while !rest.is_empty() {
        let (mut piece, later) = rest.split_at(len.min(rest.len()));
        rest = later;
        len = if len < 16 { len + 1 } else { 1 };
        pending += piece.len();
        loop {
            match decoder.next(&mut piece, max_packet_size) {
                Ok(Some(frame)) => {
                    pending -= frame.bytes.len();
                    count += 1;
                    if let Some(of_connect) = check(frame, version, sender) {
                        version = of_connect;
                    }
                }
                Ok(None) => break,
                Err(error) => return (count, Some(error)),
            }
        }
        assert_eq!(decoder.buffered(), pending);
        assert!(piece.is_empty() && pending as u64 <= u64::from(max_packet_size) + 5);
    }
    (count, None)
}

/// Decodes, encodes and decodes again. Gives the version that a CONNECT names.
fn check(frame: Frame<'_>, version: ProtocolVersion, sender: Sender) -> Option<ProtocolVersion> {
    let raw = frame.publish(version);
    let packet = frame.decode(version, sender).ok()?;
    assert!(!format!("{packet:?}").is_empty());
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes).expect("what was decoded can be encoded");
    let mut input = &*bytes;
    let mut decoder = Decoder::new();
    let again = decoder.next(&mut input, u32::MAX).expect("a good header").expect("a whole packet");
    assert_eq!(again.decode(version, sender).as_ref(), Ok(&packet));
    match packet {
        Packet::Connect(connect) => return Some(connect.version),
        Packet::Publish(publish) => {
            let raw = raw.expect("the parts of a good PUBLISH");
            assert_eq!((raw.packet_id, raw.payload), (publish.packet_id, publish.payload));
            let mut forwardable = Vec::new();
            publish.properties.write_forwardable(&mut forwardable);
            let forwarded = PublishProperties::decode(&forwardable, Sender::Client).expect("good properties");
            assert!(forwarded.is_forwardable_verbatim());
            if publish.properties.is_forwardable_verbatim() {
                assert_eq!(forwarded, publish.properties);
                assert_eq!(forwardable.len(), raw.properties.len());
            }
        }
        _ => {}
    }
    None
}
