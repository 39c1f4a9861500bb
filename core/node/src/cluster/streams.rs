//! What goes over the streams of a link: a byte that says whose message it is, and large messages in pieces.

use std::collections::VecDeque;

use bytes::Bytes;
use newtmq_base::{InvalidField, NodeId, Put, Take};
use newtmq_cluster::meta::ClusterId;
use newtmq_cluster::{directory, owned};

use super::shelf::{Seat, Standing};

/// A message, by the part that it is for.
#[derive(Debug)]
pub(super) enum Said<'a> {
    Meta(&'a [u8]),
    /// Of a member of this cluster.
    Owned(ClusterId, &'a [u8]),
    /// Of the directory of a member of this cluster.
    Directory(ClusterId, &'a [u8]),
    /// About a session that goes to another node.
    Handover(ClusterId, &'a [u8]),
    /// About how a member of this cluster is.
    Health(ClusterId, &'a [u8]),
    /// About retained messages, and whether it is about the group itself.
    Retained(Seat, bool, &'a [u8]),
    /// Of an operator of a member of this cluster, or the answer.
    Operator(ClusterId, Bytes),
    /// The node stops.
    Goodbye,
}

pub(super) fn said(whole: &Bytes) -> Result<Said<'_>, InvalidField> {
    match &whole[..] {
        [META, rest @ ..] => Ok(Said::Meta(rest)),
        [kind @ (OWNED | DIRECTORY | HANDOVER | OPERATOR | HEALTH), rest @ ..] => {
            let mut take = Take(rest);
            let cluster = ClusterId(take.number()?);
            Ok(match *kind {
                OWNED => Said::Owned(cluster, take.0),
                DIRECTORY => Said::Directory(cluster, take.0),
                HEALTH => Said::Health(cluster, take.0),
                OPERATOR => Said::Operator(cluster, whole.slice_ref(take.0)),
                _ => Said::Handover(cluster, take.0),
            })
        }
        [RETAINED, rest @ ..] => {
            let mut take = Take(rest);
            let (cluster, generation, joined) = (ClusterId(take.number()?), take.number()?, take.number()?);
            let is_standing = take.flag()?;
            Ok(Said::Retained(Seat { cluster, generation, joined }, is_standing, take.0))
        }
        [GOODBYE] => Ok(Said::Goodbye),
        _ => Err(InvalidField("a message for no part")),
    }
}

pub(super) fn tagged_meta(message: &[u8]) -> Bytes {
    let mut bytes = Vec::with_capacity(message.len() + 1);
    bytes.push(META);
    bytes.extend_from_slice(message);
    bytes.into()
}

/// It counts among members of the same cluster: a node may have been let into one that it has not come to.
pub(super) fn tagged_owned(cluster: ClusterId, message: &owned::Message) -> Bytes {
    let mut bytes = vec![OWNED];
    Put(&mut bytes).number(cluster.0);
    message.encode(&mut bytes);
    bytes.into()
}

pub(super) fn tagged_directory(cluster: ClusterId, message: &directory::Message) -> Bytes {
    let mut bytes = vec![DIRECTORY];
    Put(&mut bytes).number(cluster.0);
    message.encode(&mut bytes);
    bytes.into()
}

pub(super) fn tagged_handover(cluster: ClusterId, message: &[u8]) -> Bytes {
    tagged(HANDOVER, cluster, message)
}

pub(super) fn tagged_health(cluster: ClusterId, message: &[u8]) -> Bytes {
    tagged(HEALTH, cluster, message)
}

fn tagged(kind: u8, cluster: ClusterId, message: &[u8]) -> Bytes {
    let mut bytes = vec![kind];
    Put(&mut bytes).number(cluster.0);
    bytes.extend_from_slice(message);
    bytes.into()
}

pub(super) fn tagged_operator(cluster: ClusterId, message: &[u8]) -> Bytes {
    let mut bytes = vec![OPERATOR];
    Put(&mut bytes).number(cluster.0);
    bytes.extend_from_slice(message);
    bytes.into()
}

/// Of the group of retained messages, from a seat in it.
pub(super) fn tagged_retained(from: Seat, is_standing: bool, message: &[u8]) -> Bytes {
    let Seat { cluster, generation, joined } = from;
    let mut bytes = vec![RETAINED];
    Put(&mut bytes).number(cluster.0).number(generation).number(joined).flag(is_standing);
    bytes.extend_from_slice(message);
    bytes.into()
}

pub(super) fn put_standing(standing: &Standing) -> Vec<u8> {
    let mut bytes = Vec::new();
    Put(&mut bytes).number(standing.applied);
    for voters in &standing.quorums {
        Put(&mut bytes).number(voters.len() as u64);
        voters.iter().for_each(|voter| _ = Put(&mut bytes).number(voter.0));
    }
    bytes
}

pub(super) fn take_standing(bytes: &[u8]) -> Result<Standing, InvalidField> {
    let mut take = Take(bytes);
    let mut standing = Standing { applied: take.number()?, quorums: [Vec::new(), Vec::new()] };
    for voters in &mut standing.quorums {
        for _ in 0..take.count()? {
            voters.push(NodeId(take.number()?));
        }
    }
    take.end()?;
    Ok(standing)
}

pub(super) fn goodbye() -> Bytes {
    Bytes::from_static(&[GOODBYE])
}

/// Large messages on their way to a peer. What the link loses of one makes all of it worthless; who sent it sends it again.
#[derive(Debug, Default)]
pub(super) struct BulkOut {
    messages: VecDeque<(u64, Bytes)>,
    /// Of the first one, so much is sent.
    offset: usize,
    bytes: usize,
}

impl BulkOut {
    /// False if there is no place. `number` is one that no earlier message had.
    pub(super) fn push(&mut self, number: u64, message: Bytes) -> bool {
        let has_place = self.messages.len() < MESSAGES_MAX
            && (self.messages.is_empty() || self.bytes + message.len() <= BULK_BYTES_MAX);
        if has_place && message.len() <= BULK_BYTES_MAX {
            self.bytes += message.len();
            self.messages.push_back((number, message));
            return true;
        }
        false
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// The next piece.
    pub(super) fn next(&self) -> Option<Bytes> {
        let (number, message) = self.messages.front()?;
        let end = (self.offset + PIECE_BYTES).min(message.len());
        let mut piece = Vec::new();
        Put(&mut piece).number(*number).number(self.offset as u64).flag(end == message.len());
        piece.extend_from_slice(&message[self.offset..end]);
        Some(piece.into())
    }

    /// The next piece is with the link.
    pub(super) fn sent(&mut self) {
        let Some((_, message)) = self.messages.front() else { return };
        self.offset += PIECE_BYTES;
        if self.offset >= message.len() {
            self.bytes -= message.len();
            self.offset = 0;
            self.messages.pop_front();
        }
    }
}

/// A large message that comes from a peer.
#[derive(Debug, Default)]
pub(super) struct BulkIn {
    number: u64,
    bytes: Vec<u8>,
}

impl BulkIn {
    /// Adds a piece; gives the message if it was the last one. One that does not follow ends the message.
    pub(super) fn piece(&mut self, piece: &[u8]) -> Result<Option<Bytes>, InvalidField> {
        let mut take = Take(piece);
        let (number, offset, is_last) = (take.number()?, take.number()?, take.flag()?);
        if offset == 0 {
            (self.number, self.bytes) = (number, Vec::new());
        }
        if number != self.number || offset != self.bytes.len() as u64 {
            (self.number, self.bytes) = (0, Vec::new());
            return Ok(None);
        }
        if self.bytes.len() + take.0.len() > BULK_BYTES_MAX {
            (self.number, self.bytes) = (0, Vec::new());
            return Err(InvalidField("a message that is too large"));
        }
        self.bytes.extend_from_slice(take.0);
        Ok(is_last.then(|| core::mem::take(&mut self.bytes).into()))
    }
}

/// Up to here a message goes with the others.
pub(super) const SMALL_BYTES_MAX: usize = 4 << 10;
/// Bytes of a piece; with what is in front of it, it fits into a chunk of a link.
const PIECE_BYTES: usize = 48 << 10;
/// Largest message in pieces, and most that wait for a peer beside one. A snapshot of the meta group is the largest there is.
const BULK_BYTES_MAX: usize = 96 << 20;
/// Most messages that wait for a peer.
const MESSAGES_MAX: usize = 4096;

const META: u8 = 0;
const OWNED: u8 = 1;
const GOODBYE: u8 = 2;
const DIRECTORY: u8 = 3;
const HANDOVER: u8 = 4;
const OPERATOR: u8 = 5;
const HEALTH: u8 = 6;
const RETAINED: u8 = 7;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use newtmq_base::NodeId;
    use newtmq_cluster::meta::ClusterId;

    use super::{
        BULK_BYTES_MAX, BulkIn, BulkOut, MESSAGES_MAX, PIECE_BYTES, Said, Seat, Standing, put_standing, said,
        tagged_retained, take_standing,
    };

    fn message(len: usize, salt: usize) -> Bytes {
        (0..len).map(|at| (at * 7 + salt) as u8).collect::<Vec<u8>>().into()
    }

    #[test]
    fn messages_come_whole_or_not_at_all() {
        let lens = [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES];
        for lost in 0..10 {
            let (mut out, mut coming) = (BulkOut::default(), BulkIn::default());
            for (at, len) in lens.iter().enumerate() {
                assert!(out.push(at as u64 + 1, message(*len, at)));
            }
            let (mut pieces, mut got) = (0, Vec::new());
            while let Some(piece) = out.next() {
                if pieces != lost {
                    got.extend(coming.piece(&piece).expect("a piece"));
                }
                pieces += 1;
                out.sent();
            }
            assert!(out.is_empty());
            assert_eq!(pieces, 9);
            let all: Vec<Bytes> = lens.iter().enumerate().map(|(at, len)| message(*len, at)).collect();
            assert!(got.iter().all(|got| all.contains(got)));
            assert_eq!(got.len(), all.len() - usize::from(lost < 9));
        }
    }

    #[test]
    fn what_a_node_says_of_the_group_comes_back() {
        let standing = Standing { applied: 1 << 41, quorums: [vec![NodeId(3), NodeId(u64::MAX)], Vec::new()] };
        let from = Seat { cluster: ClusterId(9), generation: 2, joined: 300 };
        let bytes = tagged_retained(from, true, &put_standing(&standing));
        let Ok(Said::Retained(seat, true, rest)) = said(&bytes) else { panic!("it is another message") };
        assert_eq!((seat, take_standing(rest)), (from, Ok(standing)));
        for cut in 0..rest.len() {
            assert!(take_standing(&rest[..cut]).is_err());
        }
    }

    #[test]
    fn limits_and_garbage() {
        let mut out = BulkOut::default();
        assert!(!out.push(1, vec![0; BULK_BYTES_MAX + 1].into()));
        for number in 0..MESSAGES_MAX as u64 {
            assert!(out.push(number, Bytes::from_static(b"x")));
        }
        assert!(!out.push(99, Bytes::from_static(b"x")));
        let mut coming = BulkIn::default();
        assert!(coming.piece(&[]).is_err());
        assert!(coming.piece(&[5, 1, 1, 9]).is_ok_and(|whole| whole.is_none()), "not the beginning");
    }
}
