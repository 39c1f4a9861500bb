//! Parcels: frames of one shard for one node, written one behind the other, so that who passes them on handles one thing
//! and not each message. For which shards they are is at the end of a parcel; nothing else of it concerns those between.

use bytes::Bytes;
use newtmq_base::{InvalidField, ShardId, Take};

use super::SHARDS_MAX;
use super::message::Frame;

/// Frames that were written and have not left.
#[derive(Debug, Default)]
pub struct Parcel {
    bytes: Vec<u8>,
    shards: u128,
    /// Size of the one before.
    last: usize,
}

impl Parcel {
    /// Writes a frame behind the others.
    pub fn push(&mut self, frame: &Frame) {
        match frame {
            Frame::Bundle(bundle) => bundle.headers.iter().for_each(|header| self.is_for(header.shard)),
            Frame::Probe(probe) => self.is_for(probe.to),
            Frame::Receipt(receipt) => self.is_for(receipt.to),
        }
        frame.encode(self.room());
    }

    /// A frame that is being written is for this shard.
    #[inline]
    pub(super) fn is_for(&mut self, shard: ShardId) {
        self.shards |= 1_u128.checked_shl(shard.0.into()).unwrap_or_default();
    }

    /// Where the next frame is written.
    #[inline]
    pub(super) fn room(&mut self) -> &mut Vec<u8> {
        if self.bytes.is_empty() {
            self.bytes.reserve(self.last);
        }
        &mut self.bytes
    }

    /// Whether there is no frame.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether the next frame should go into another one: what is small can overtake it then, and what is lost is small.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= PARCEL_BYTES
    }

    /// The whole of it, to be sent; this one is empty then.
    pub fn take(&mut self) -> Bytes {
        let shards = core::mem::take(&mut self.shards).to_le_bytes();
        let count = shards.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let mut bytes = core::mem::take(&mut self.bytes);
        bytes.extend_from_slice(&shards[..count]);
        bytes.push(count as u8);
        self.last = bytes.len().min(PARCEL_BYTES + PARCEL_BYTES / 8);
        bytes.into()
    }

    /// The shards that a parcel has frames for, in order.
    ///
    /// # Errors
    /// It is none.
    pub fn shards(parcel: &[u8]) -> Result<impl Iterator<Item = ShardId> + use<>, InvalidField> {
        let (_, shards) = split(parcel)?;
        Ok((0..SHARDS_MAX).filter(move |shard| shards >> shard & 1 == 1).map(ShardId))
    }

    /// The frames of a parcel, in order; none behind one that is wrong.
    ///
    /// # Errors
    /// It is none.
    pub fn frames(parcel: &Bytes) -> Result<Frames<'_>, InvalidField> {
        let (frames, _) = split(parcel)?;
        Ok(Frames { whole: parcel, rest: Take(frames) })
    }
}

/// The frames of a parcel. Texts and payloads are parts of it, not copies.
#[derive(Debug)]
pub struct Frames<'a> {
    whole: &'a Bytes,
    rest: Take<'a>,
}

impl Iterator for Frames<'_> {
    type Item = Result<Frame, InvalidField>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.0.is_empty() {
            return None;
        }
        let frame = Frame::take(self.whole, &mut self.rest);
        if frame.is_err() {
            self.rest = Take(&[]);
        }
        Some(frame)
    }
}

/// The frames, and the shards that they are for.
fn split(parcel: &[u8]) -> Result<(&[u8], u128), InvalidField> {
    const INVALID: InvalidField = InvalidField("a parcel without its end");
    let (count, rest) = parcel.split_last().ok_or(INVALID)?;
    let at = rest.len().checked_sub(usize::from(*count)).ok_or(INVALID)?;
    let (frames, set) = rest.split_at(at);
    let mut shards = [0; size_of::<u128>()];
    shards.get_mut(..set.len()).ok_or(INVALID)?.copy_from_slice(set);
    Ok((frames, u128::from_le_bytes(shards)))
}

/// A parcel of this size is full; its last frame may make it larger.
const PARCEL_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lane::{Mark, Probe, Receipt, Window};
    use newtmq_base::Incarnation;
    use proptest::collection::vec;
    use proptest::prelude::*;

    const INC: Incarnation = Incarnation(7);

    fn probe(to: u16) -> Frame {
        let (from, to) = (ShardId(1), ShardId(to));
        Frame::Probe(Probe { from, to, from_inc: INC, to_inc: INC, first: 1, next: 9, settled: 0, opening: true })
    }

    fn receipt(to: u16) -> Frame {
        let (from, to, window) = (ShardId(1), ShardId(to), Window { messages: 5, bytes: 6 });
        let Mark { upto, .. } = Mark { inc: INC, upto: 3 };
        Frame::Receipt(Receipt {
            from,
            to,
            from_inc: INC,
            to_inc: INC,
            next: upto + 1,
            enqueued: upto,
            stored: upto,
            window,
            resume: false,
            refused: Vec::new(),
            known: None,
        })
    }

    fn frames(parcel: &Bytes) -> Result<Vec<Frame>, InvalidField> {
        Parcel::frames(parcel)?.collect()
    }

    #[test]
    fn frames_come_out_as_they_went_in() {
        let mut parcel = Parcel::default();
        for shards in [&[0][..], &[7, 0, 7], &[127, 3, 64]] {
            let sent: Vec<Frame> = shards.iter().flat_map(|to| [probe(*to), receipt(*to)]).collect();
            sent.iter().for_each(|frame| parcel.push(frame));
            let bytes = parcel.take();
            assert!(parcel.is_empty());
            let mut wanted: Vec<ShardId> = shards.iter().copied().map(ShardId).collect();
            wanted.sort_unstable();
            wanted.dedup();
            assert_eq!(Parcel::shards(&bytes).expect("a parcel").collect::<Vec<_>>(), wanted);
            assert_eq!(frames(&bytes), Ok(sent));
        }
    }

    #[test]
    fn nothing_comes_behind_a_wrong_frame() {
        let mut parcel = Parcel::default();
        parcel.push(&probe(0));
        let good = parcel.bytes.len();
        parcel.bytes.extend_from_slice(&[99, 1, 2, 3]);
        parcel.push(&probe(0));
        let bytes = parcel.take();
        let got: Vec<_> = Parcel::frames(&bytes).expect("a parcel").collect();
        assert!(good > 0 && got.len() == 2 && got[0].is_ok() && got[1].is_err(), "{got:?}");
    }

    #[test]
    fn what_is_too_short_is_no_parcel() {
        for bytes in [&[][..], &[1], &[17], &[0; 17].map(|_| 17)] {
            assert!(Parcel::shards(bytes).is_err(), "{bytes:?}");
        }
        assert!(frames(&Bytes::from_static(&[0])).is_ok_and(|frames| frames.is_empty()));
    }

    proptest! {
        #[test]
        fn garbage_does_no_harm(bytes in vec(any::<u8>(), 0..80), shards in 0..3_u8) {
            let mut bytes = bytes;
            bytes.push(shards);
            let _ = frames(&bytes.into());
        }
    }
}
