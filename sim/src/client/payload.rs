//! What a message carries: who made it, how long it is, and a checksum over that and its topic. What lies behind is
//! filled from the same numbers, so that a byte that changed anywhere is noticed.

use newtmq_mqtt::{PublishProperties, UserProperties};

use crate::draw::mix;
use crate::history::{ClientIx, Uid};

/// Bytes that name a message: publisher, number, length, checksum, each four bytes in little-endian order. No payload is
/// shorter, but an empty one.
pub(crate) const PAYLOAD_LEN_MIN: usize = 16;

/// Replaces `out` by the payload of a message; `topic` is the hash of its topic. Whether it goes with [`properties`] is in
/// its checksum.
pub(crate) fn write(uid: Uid, topic: u64, len: usize, with_properties: bool, out: &mut Vec<u8>) {
    out.clear();
    out.resize(len.max(PAYLOAD_LEN_MIN), 0);
    let len = u32::try_from(out.len()).expect("a payload is shorter than a packet");
    let key = key(uid, topic, len) ^ if with_properties { MARK } else { 0 };
    let (head, fill) = out.split_at_mut(PAYLOAD_LEN_MIN);
    for (field, value) in head.chunks_exact_mut(4).zip([uid.publisher.0, uid.number, len, key as u32]) {
        field.copy_from_slice(&value.to_le_bytes());
    }
    let mut word = key;
    let mut chunks = fill.chunks_exact_mut(8);
    for chunk in &mut chunks {
        word = next(word);
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    let rest = chunks.into_remainder();
    let len = rest.len();
    rest.copy_from_slice(&next(word).to_le_bytes()[..len]);
}

/// The message that a payload names, if every byte of it is what [`write()`] made for this topic, and whether it was
/// published with properties.
pub(crate) fn read(payload: &[u8], topic: u64) -> Option<(Uid, bool)> {
    let (head, fill) = payload.split_at_checked(PAYLOAD_LEN_MIN)?;
    let field = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let uid = Uid { publisher: ClientIx(field(0)), number: field(4) };
    let plain = key(uid, topic, field(8));
    let with_properties = field(12) != plain as u32;
    let key = if with_properties { plain ^ MARK } else { plain };
    if field(8) as usize != payload.len() || field(12) != key as u32 {
        return None;
    }
    let mut word = key;
    let mut chunks = fill.chunks_exact(8);
    for chunk in &mut chunks {
        word = next(word);
        if *chunk != word.to_le_bytes() {
            return None;
        }
    }
    let rest = chunks.remainder();
    (*rest == next(word).to_le_bytes()[..rest.len()]).then_some((uid, with_properties))
}

/// Whether a message of an MQTT 5.0 client has properties that a server passes on unaltered.
pub(crate) const fn has_properties(uid: Uid) -> bool {
    mix((uid.publisher.0 as u64) << 32 | uid.number as u64) & 3 == 0
}

/// Appends those of a message.
pub(crate) fn properties(uid: Uid, out: &mut Vec<u8>) {
    with_properties(uid, |properties| properties.write_forwardable(out));
}

/// Whether the properties that a server passes on are those of a message, or none if it has none.
pub(crate) fn are_unaltered(came: &PublishProperties<'_>, uid: Uid, has_some: bool) -> bool {
    let same = |sent: &PublishProperties<'_>| {
        came.payload_format_indicator == sent.payload_format_indicator
            && came.content_type == sent.content_type
            && came.response_topic == sent.response_topic
            && came.correlation_data == sent.correlation_data
            && came.user_properties == sent.user_properties
    };
    if has_some { with_properties(uid, same) } else { same(&PublishProperties::default()) }
}

/// The properties of a message: all kinds of them, and User Properties whose order counts.
fn with_properties<R>(uid: Uid, call: impl FnOnce(&PublishProperties<'_>) -> R) -> R {
    let chance = mix(u64::from(uid.publisher.0) << 32 | u64::from(uid.number)) >> 2;
    let correlation = chance.to_le_bytes();
    let (first, second) = (if chance & 1 == 0 { "1" } else { "2" }, if chance & 2 == 0 { "" } else { "two" });
    let user = [("b", first), ("a", second), ("b", "3")];
    call(&PublishProperties {
        content_type: (chance & 4 == 0).then_some("text/x"),
        response_topic: (chance & 8 == 0).then_some("answer"),
        correlation_data: (chance & 16 == 0).then_some(&correlation[..]),
        user_properties: UserProperties::new(&user),
        ..PublishProperties::default()
    })
}

const fn key(uid: Uid, topic: u64, len: u32) -> u64 {
    let who = (uid.publisher.0 as u64) << 32 | uid.number as u64;
    mix(mix(who ^ topic.rotate_left(17)) ^ len as u64)
}

/// The next word of the filling: cheap, and no two positions are alike.
const fn next(word: u64) -> u64 {
    word.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29).wrapping_add(1)
}

/// What the key of a payload differs by if properties belong to it.
const MARK: u64 = 0x5851_F42D_4C95_7F2D;

#[cfg(test)]
mod tests {
    use super::{read, write};
    use crate::draw::of_name;
    use crate::history::{ClientIx, Uid};

    #[test]
    fn every_byte_counts() {
        let uid = Uid { publisher: ClientIx(3), number: 70_000 };
        let topic = of_name("a/b");
        let mut payload = Vec::new();
        for len in [0, 16, 17, 24, 31, 100] {
            let with_properties = len % 2 == 0;
            write(uid, topic, len, with_properties, &mut payload);
            assert_eq!(payload.len(), len.max(16));
            assert_eq!(read(&payload, topic), Some((uid, with_properties)), "{len}");
            assert_eq!(read(&payload, of_name("a/c")), None, "another topic");
            assert_eq!(read(&payload[..payload.len() - 1], topic), None, "cut");
            for at in 0..payload.len() {
                payload[at] ^= 0x10;
                assert_eq!(read(&payload, topic), None, "byte {at} of {len}");
                payload[at] ^= 0x10;
            }
        }
        assert_eq!(read(b"", topic), None);
    }
}
