//! Frames: what a segment consists of after its head. Each commit writes one. A frame is whole or it counts as not there.
//!
//! ```text
//! segment  magic "NEWTWAL\n", u32 version, u64 number, u32 CRC of those
//! frame    u32 magic, u32 length of the body, u32 CRC of (segment number, length, body), body
//! body     u64 durable segment, u64 durable offset, items
//! item     0x01 blob   varint id, varint length, bytes
//!          0x02 record varint log, varint number, varint length, bytes
//! ```
//!
//! Numbers are little endian, CRCs are CRC-32C. Every frame says up to where the log was durable when it was written: a bad
//! frame below that point of any good frame after it is damage, one above is the torn end of a write.

use crate::{BlobId, LogId, Position};

/// The newest format that is written.
pub const FORMAT: u32 = 1;

/// Length of a segment's head.
pub(crate) const HEAD_BYTES: usize = 24;
/// Of a frame before its body.
pub(crate) const FRAME_HEAD_BYTES: usize = 12;
/// Of a body before its items.
const DURABLE_BYTES: usize = 16;

const SEGMENT_MAGIC: &[u8; 8] = b"NEWTWAL\n";
const FRAME_MAGIC: [u8; 4] = [0xF5, b'N', b'W', 0x0A];
const BLOB: u8 = 1;
const RECORD: u8 = 2;

/// The head of a segment.
pub(crate) fn segment_head(number: u64) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(SEGMENT_MAGIC);
    head[8..12].copy_from_slice(&FORMAT.to_le_bytes());
    head[12..20].copy_from_slice(&number.to_le_bytes());
    let crc = crc32c::crc32c(&head[..20]);
    head[20..].copy_from_slice(&crc.to_le_bytes());
    head
}

/// What is wrong with a segment's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadError {
    /// It is shorter than a head: its creation was not completed.
    Short,
    /// A format that this program does not know.
    Newer(u32),
    /// Something else is in its place.
    Damaged,
}

/// Checks the head of the segment `number`.
pub(crate) fn check_head(bytes: &[u8], number: u64) -> Result<(), HeadError> {
    let Some(head) = bytes.first_chunk::<HEAD_BYTES>() else { return Err(HeadError::Short) };
    if crc32c::crc32c(&head[..20]) != u32_at(head, 20) || &head[..8] != SEGMENT_MAGIC {
        return Err(HeadError::Damaged);
    }
    match u32_at(head, 8) {
        0 => Err(HeadError::Damaged),
        FORMAT if u64_at(head, 12) == number => Ok(()),
        FORMAT => Err(HeadError::Damaged),
        newer => Err(HeadError::Newer(newer)),
    }
}

/// Builds one frame.
#[derive(Debug, Default)]
pub(crate) struct FrameBuilder {
    bytes: Vec<u8>,
    items: usize,
}

impl FrameBuilder {
    pub(crate) fn is_empty(&self) -> bool {
        self.items == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn blob(&mut self, id: BlobId, bytes: &[u8]) {
        self.item(BLOB);
        put_varint(&mut self.bytes, id.0);
        put_varint(&mut self.bytes, bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn record(&mut self, log: LogId, number: u64, bytes: &[u8]) {
        self.item(RECORD);
        put_varint(&mut self.bytes, u64::from(log.0));
        put_varint(&mut self.bytes, number);
        put_varint(&mut self.bytes, bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    fn item(&mut self, tag: u8) {
        if self.bytes.is_empty() {
            self.bytes.resize(FRAME_HEAD_BYTES + DURABLE_BYTES, 0);
        }
        self.items += 1;
        self.bytes.push(tag);
    }

    /// Completes the frame; a builder without items makes one that only says what is durable.
    pub(crate) fn seal(&mut self, segment: u64, durable: Position) -> &[u8] {
        if self.bytes.is_empty() {
            self.bytes.resize(FRAME_HEAD_BYTES + DURABLE_BYTES, 0);
        }
        let body = u32::try_from(self.bytes.len() - FRAME_HEAD_BYTES).expect("a batch is below its limit");
        self.bytes[12..20].copy_from_slice(&durable.segment.to_le_bytes());
        self.bytes[20..28].copy_from_slice(&durable.offset.to_le_bytes());
        self.bytes[..4].copy_from_slice(&FRAME_MAGIC);
        self.bytes[4..8].copy_from_slice(&body.to_le_bytes());
        let crc = checksum(segment, body, &self.bytes[FRAME_HEAD_BYTES..]);
        self.bytes[8..12].copy_from_slice(&crc.to_le_bytes());
        &self.bytes
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.items = 0;
    }
}

fn checksum(segment: u64, body_len: u32, body: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&segment.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &body_len.to_le_bytes());
    crc32c::crc32c_append(crc, body)
}

/// A whole frame in a segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame<'a> {
    /// Up to where the log was durable when it was written.
    pub(crate) durable: Position,
    /// Length of all of it.
    pub(crate) len: usize,
    items: &'a [u8],
}

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item<'a> {
    /// Bytes that records of the same segment refer to.
    Blob {
        /// Their name.
        id: BlobId,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// An entry of a log.
    Record {
        /// Which log.
        log: LogId,
        /// Its place in that log, without gaps.
        number: u64,
        /// What it says.
        bytes: &'a [u8],
    },
}

impl<'a> Frame<'a> {
    /// The frame at the front of `bytes`; none if there is no whole one.
    pub(crate) fn parse(bytes: &'a [u8], segment: u64) -> Option<Frame<'a>> {
        if bytes.len() < FRAME_HEAD_BYTES + DURABLE_BYTES || bytes[..4] != FRAME_MAGIC {
            return None;
        }
        let body_len = u32_at(bytes, 4);
        let body = bytes[FRAME_HEAD_BYTES..].get(..body_len as usize)?;
        if body.len() < DURABLE_BYTES || checksum(segment, body_len, body) != u32_at(bytes, 8) {
            return None;
        }
        let durable = Position { segment: u64_at(body, 0), offset: u64_at(body, 8) };
        Some(Frame { durable, len: FRAME_HEAD_BYTES + body.len(), items: &body[DURABLE_BYTES..] })
    }

    /// Where the next whole frame begins, from `start` on.
    pub(crate) fn find(bytes: &[u8], start: usize, segment: u64) -> Option<usize> {
        let mut at = start;
        while let Some(found) = bytes.get(at..)?.windows(4).position(|window| window == FRAME_MAGIC) {
            at += found;
            if Frame::parse(&bytes[at..], segment).is_some() {
                return Some(at);
            }
            at += 1;
        }
        None
    }

    /// What it holds, in order. Ends early at what is no item, which the checksum makes all but impossible.
    pub(crate) fn items(&self) -> impl Iterator<Item = Item<'a>> {
        let mut rest = self.items;
        core::iter::from_fn(move || next_item(&mut rest))
    }
}

fn next_item<'a>(rest: &mut &'a [u8]) -> Option<Item<'a>> {
    let (&tag, after) = rest.split_first()?;
    *rest = after;
    match tag {
        BLOB => {
            let id = BlobId(take_varint(rest)?);
            Some(Item::Blob { id, bytes: take_bytes(rest)? })
        }
        RECORD => {
            let log = LogId(u32::try_from(take_varint(rest)?).ok()?);
            let number = take_varint(rest)?;
            Some(Item::Record { log, number, bytes: take_bytes(rest)? })
        }
        _ => None,
    }
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(take_varint(rest)?).ok()?;
    let (bytes, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(bytes)
}

/// Appends a number in groups of seven bits, the lowest first.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a number off the front; none if there is no whole one.
pub fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7F).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("the caller knows the length"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("the caller knows the length"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DURABLE: Position = Position { segment: 3, offset: 99 };

    fn frame() -> Vec<u8> {
        let mut builder = FrameBuilder::default();
        builder.blob(BlobId(7), b"payload");
        builder.record(LogId(1), 300, b"enqueue");
        builder.seal(4, DURABLE).to_vec()
    }

    #[test]
    fn a_frame_comes_back() {
        let bytes = frame();
        let parsed = Frame::parse(&bytes, 4).expect("it is whole");
        assert_eq!((parsed.durable, parsed.len), (DURABLE, bytes.len()));
        let items: Vec<Item<'_>> = parsed.items().collect();
        let blob = Item::Blob { id: BlobId(7), bytes: b"payload" };
        assert_eq!(items, [blob, Item::Record { log: LogId(1), number: 300, bytes: b"enqueue" }]);
        assert!(Frame::parse(&bytes, 5).is_none(), "a frame belongs to its segment");
    }

    #[test]
    fn any_other_byte_is_noticed() {
        let good = frame();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(Frame::parse(&bad, 4).is_none(), "byte {at}");
            assert!(Frame::parse(&good[..at], 4).is_none(), "cut at {at}");
        }
    }

    #[test]
    fn the_next_frame_is_found_behind_damage() {
        let good = frame();
        let mut bytes = vec![0xF5, b'N', b'W', 0x0A, 1, 2, 3];
        let start = bytes.len();
        bytes.extend_from_slice(&good);
        assert_eq!(Frame::find(&bytes, 0, 4), Some(start));
        assert_eq!(Frame::find(&bytes, start + 1, 4), None);
        assert_eq!(Frame::find(&bytes, bytes.len() + 5, 4), None);
    }

    #[test]
    fn a_head_says_what_is_wrong_with_it() {
        let head = segment_head(9);
        assert_eq!(check_head(&head, 9), Ok(()));
        assert_eq!(check_head(&head, 8), Err(HeadError::Damaged));
        assert_eq!(check_head(&head[..23], 9), Err(HeadError::Short));
        let mut newer = head;
        newer[8] = 2;
        let crc = crc32c::crc32c(&newer[..20]);
        newer[20..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(check_head(&newer, 9), Err(HeadError::Newer(2)));
    }

    proptest! {
        #[test]
        fn varints_come_back(value: u64) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let mut rest = &bytes[..];
            prop_assert_eq!(take_varint(&mut rest), Some(value));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn nothing_panics(bytes: Vec<u8>) {
            let _ = Frame::parse(&bytes, 1).map(|frame| frame.items().count());
            let _ = check_head(&bytes, 1);
            let _ = take_varint(&mut &bytes[..]);
        }
    }
}
