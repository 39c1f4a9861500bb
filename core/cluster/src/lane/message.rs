//! What lanes say to each other, and how it is written. Which node a frame comes from and goes to is the link's knowledge;
//! the incarnations of both are in each frame, so that a late one of an earlier life is recognised.

use core::time::Duration;

use bytes::Bytes;
use newtmq_base::{Incarnation, InvalidField, NodeId, Put, ShardId, Take};
use newtmq_mqtt::QoS;

use super::publication::Publication;

/// Names an application message for all places that it goes to. The source makes it so that a QoS 2 PUBLISH that its
/// publisher repeats has the same one, also after the source's restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid(pub [u8; 16]);

/// The fencing token of a client's session, compared field by field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch {
    /// Of the directory.
    pub term: u64,
    /// Within the term.
    pub seq: u64,
    /// How often it was extended without a quorum; 0 if never.
    pub provisional: u64,
    /// Who extended it.
    pub issuer: NodeId,
}

/// Whom a numbered item of a lane is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The receiver's plain subscriptions. It matches them itself, and never passes the message on.
    Plain {
        /// Those of sessions that live in memory (T0).
        transient: bool,
        /// Those of sessions that are stored (T1).
        durable: bool,
    },
    /// A member of a shared group at the receiver.
    Group {
        /// Text of the shared subscription.
        name: Bytes,
        /// Whether the receiver's members have stored sessions.
        durable: bool,
    },
    /// No message: the publisher of this QoS 2 message has released it, so it does not come again.
    Release(Guid),
}

/// An item of a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Of the receiving node.
    pub shard: ShardId,
    /// Counts the items of the lane, from 1.
    pub seq: u64,
    /// Whom it is for.
    pub what: What,
}

/// Items of one message. Most have one, which needs no memory of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Headers {
    /// The only one.
    One(Header),
    /// Any number of them.
    Many(Vec<Header>),
}

impl core::ops::Deref for Headers {
    type Target = [Header];

    fn deref(&self) -> &[Header] {
        match self {
            Headers::One(header) => core::slice::from_ref(header),
            Headers::Many(headers) => headers,
        }
    }
}

impl From<Vec<Header>> for Headers {
    fn from(mut headers: Vec<Header>) -> Headers {
        if headers.len() == 1 { Headers::One(headers.remove(0)) } else { Headers::Many(headers) }
    }
}

/// One message with its items for all target shards of a node, so that a link carries its payload once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// The sending shard.
    pub from: ShardId,
    /// Of the sending node.
    pub from_inc: Incarnation,
    /// Of the receiving node.
    pub to_inc: Incarnation,
    /// One or more, those of a lane in order.
    pub headers: Headers,
    /// The message; none if all items are releases.
    pub publication: Option<Publication>,
    /// Time until the message expires, stretched; none if it never does.
    pub remaining: Option<Duration>,
}

/// The sender asks what has come, and says what it still has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// The sending shard.
    pub from: ShardId,
    /// The receiving shard.
    pub to: ShardId,
    /// Of the sending node.
    pub from_inc: Incarnation,
    /// Of the receiving node.
    pub to_inc: Incarnation,
    /// The lowest number that the sender may send (again). Lower ones never come.
    pub first: u64,
    /// The lowest number that it has not sent.
    pub next: u64,
    /// It has seen the answers to all up to here.
    pub settled: u64,
    /// It has given up all below `first`, and asks what of that is stored.
    pub opening: bool,
}

/// Why a message was not enqueued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// Nobody there is subscribed, or no member of the group.
    NoMember,
    /// Nobody there can take it: queues or the disk are full, or no member has window.
    Full,
}

/// What a receiver has of a lane: the sender's incarnation, and the number up to which everything is stored. Compared field
/// by field it never falls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// Of the sending node.
    pub inc: Incarnation,
    /// All up to here.
    pub upto: u64,
}

/// How much a receiver holds of a lane before it has enqueued it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Window {
    /// At least 1.
    pub messages: u32,
    /// A single message may be larger.
    pub bytes: u32,
}

/// All that a receiver says of a lane: ForwardAck, ForwardNack, Credit and Resume in one. A later one makes earlier ones
/// superfluous, so it does not matter when some are lost or come twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The receiving shard, which sends this.
    pub from: ShardId,
    /// The sending shard, which gets this.
    pub to: ShardId,
    /// Of the node that sends this.
    pub from_inc: Incarnation,
    /// Of the node that gets this.
    pub to_inc: Incarnation,
    /// The number that is accepted next.
    pub next: u64,
    /// All up to here are enqueued or refused: their credit has returned. Below `next`.
    pub enqueued: u64,
    /// All up to here are stored, as far as they need to be, or refused. At most `enqueued`.
    pub stored: u64,
    /// What the receiver holds.
    pub window: Window,
    /// `next` is missed: it is to be sent again, with all behind it.
    pub resume: bool,
    /// What was refused of that up to `enqueued`, as long as the sender has not said that it knows. Rising.
    pub refused: Vec<(u64, Refusal)>,
    /// Answers [`Probe::opening`]: of the numbers that the sender has given up since it opened the lane before, all up to
    /// here are stored, but those refused, and no other.
    pub known: Option<u64>,
}

/// What goes over a link for lanes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// From sender to receiver.
    Bundle(Bundle),
    /// From sender to receiver.
    Probe(Probe),
    /// From receiver to sender.
    Receipt(Receipt),
}

const BUNDLE: u8 = 1;
const PROBE: u8 = 2;
const RECEIPT: u8 = 3;

const PLAIN: u8 = 0;
const GROUP: u8 = 1;
const RELEASE: u8 = 2;
const TRANSIENT: u8 = 4;
const DURABLE: u8 = 8;

const QOS: u8 = 3;
const RETAIN: u8 = 4;
const EXPIRES: u8 = 8;
const MESSAGE: u8 = 64;

impl Frame {
    /// Appends the frame. It says itself where it ends.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Frame::Bundle(bundle) => bundle.encode(out),
            Frame::Probe(probe) => probe.encode(out),
            Frame::Receipt(receipt) => receipt.encode(out),
        }
    }

    /// What [`Frame::encode`] wrote. Texts and payload are parts of `bytes`, not copies.
    ///
    /// # Errors
    /// The bytes are no frame.
    pub fn decode(bytes: &Bytes) -> Result<Frame, InvalidField> {
        let mut take = Take(bytes);
        let frame = Frame::take(bytes, &mut take)?;
        take.end()?;
        Ok(frame)
    }

    /// The same, off the front of what is left of `whole`.
    pub(super) fn take(whole: &Bytes, take: &mut Take<'_>) -> Result<Frame, InvalidField> {
        match take.byte()? {
            BUNDLE => Ok(Frame::Bundle(Bundle::take(whole, take)?)),
            PROBE => Ok(Frame::Probe(Probe::take(take)?)),
            RECEIPT => Ok(Frame::Receipt(Receipt::take(take)?)),
            _ => Err(InvalidField("a lane's frame of no known kind")),
        }
    }
}

impl Bundle {
    /// The bundle with only the items for one shard; none if there is none.
    #[must_use]
    pub fn for_shard(&self, shard: ShardId) -> Option<Bundle> {
        let headers: Vec<Header> = self.headers.iter().filter(|header| header.shard == shard).cloned().collect();
        (!headers.is_empty()).then(|| Bundle { headers: headers.into(), ..self.clone() })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let Bundle { from, from_inc, to_inc, headers, publication, remaining } = self;
        put_bundle_head((*from, *from_inc, *to_inc), headers.len(), out);
        for Header { shard, seq, what } in headers.iter() {
            put_item(*shard, *seq, what, out);
        }
        put_message(publication.as_ref(), *remaining, out);
    }

    fn take(whole: &Bytes, take: &mut Take<'_>) -> Result<Bundle, InvalidField> {
        let from = ShardId(take.number16()?);
        let (from_inc, to_inc) = (Incarnation(take.number()?), Incarnation(take.number()?));
        let count = take.count()?;
        let headers = if count == 1 {
            Headers::One(Header::take(whole, take)?)
        } else {
            let mut headers = Vec::with_capacity(count.min(usize::from(super::SHARDS_MAX)));
            for _ in 0..count {
                headers.push(Header::take(whole, take)?);
            }
            Headers::Many(headers)
        };
        let releases = headers.iter().filter(|header| matches!(header.what, What::Release(_))).count();
        let flags = take.byte()?;
        if flags & MESSAGE == 0 {
            let valid = flags == 0 && releases == headers.len() && releases > 0;
            let bundle = Bundle { from, from_inc, to_inc, headers, publication: None, remaining: None };
            return if valid { Ok(bundle) } else { Err(InvalidField("items without a message")) };
        }
        if flags & !(MESSAGE | QOS | RETAIN | EXPIRES) != 0 || releases > 0 || headers.is_empty() {
            return Err(InvalidField("a message without items, or with wrong ones"));
        }
        let remaining = if flags & EXPIRES == 0 { None } else { Some(Duration::from_millis(take.number()?)) };
        let qos = QoS::from_bits(flags & QOS).ok_or(InvalidField("no QoS"))?;
        let message = Publication::of_body(part(whole, take.bytes()?), qos, flags & RETAIN != 0)?;
        Ok(Bundle { from, from_inc, to_inc, headers, publication: Some(message), remaining })
    }
}

impl Header {
    fn take(whole: &Bytes, take: &mut Take<'_>) -> Result<Header, InvalidField> {
        let (shard, seq) = (ShardId(take.number16()?), positive(take.number()?)?);
        Ok(Header { shard, seq, what: take_what(whole, take)? })
    }
}

/// The beginning of a bundle: sending shard, incarnations of both nodes, number of items.
pub(super) fn put_bundle_head(
    (from, from_inc, to_inc): (ShardId, Incarnation, Incarnation),
    items: usize,
    out: &mut Vec<u8>,
) {
    Put(out).byte(BUNDLE).number(from.0.into()).number(from_inc.0).number(to_inc.0).number(items as u64);
}

/// An item of a bundle.
pub(super) fn put_item(shard: ShardId, seq: u64, what: &What, out: &mut Vec<u8>) {
    let mut put = Put(out);
    put.number(shard.0.into()).number(seq);
    match what {
        What::Plain { transient, durable } => {
            put.byte(PLAIN | flag(*transient, TRANSIENT) | flag(*durable, DURABLE));
        }
        What::Group { name, durable } => {
            put.byte(GROUP | flag(*durable, DURABLE)).bytes(name);
        }
        What::Release(guid) => {
            put.byte(RELEASE);
            put.0.extend_from_slice(&guid.0);
        }
    }
}

/// The end of a bundle: its message, if it has one.
pub(super) fn put_message(message: Option<&Publication>, remaining: Option<Duration>, out: &mut Vec<u8>) {
    let mut put = Put(out);
    let Some(message) = message else {
        put.byte(0);
        return;
    };
    let expires = flag(remaining.is_some(), EXPIRES);
    put.byte(MESSAGE | message.qos() as u8 | flag(message.retain(), RETAIN) | expires);
    if let Some(remaining) = remaining {
        put.number(remaining.as_nanos().div_ceil(1_000_000) as u64);
    }
    put.bytes(message.body());
}

fn take_what(whole: &Bytes, take: &mut Take<'_>) -> Result<What, InvalidField> {
    let byte = take.byte()?;
    let (transient, durable) = (byte & TRANSIENT != 0, byte & DURABLE != 0);
    match byte & !(TRANSIENT | DURABLE) {
        PLAIN if transient || durable => Ok(What::Plain { transient, durable }),
        GROUP if !transient => Ok(What::Group { name: part(whole, take.bytes()?), durable }),
        RELEASE if !transient && !durable => Ok(What::Release(take_guid(take)?)),
        _ => Err(InvalidField("an item of no known kind")),
    }
}

fn take_guid(take: &mut Take<'_>) -> Result<Guid, InvalidField> {
    let (guid, rest) = take.0.split_first_chunk().ok_or(InvalidField("its end is missing"))?;
    take.0 = rest;
    Ok(Guid(*guid))
}

impl Probe {
    fn encode(&self, out: &mut Vec<u8>) {
        let mut put = Put(out);
        put.byte(PROBE).number(self.from.0.into()).number(self.to.0.into());
        put.number(self.from_inc.0).number(self.to_inc.0);
        put.number(self.first).number(self.next - self.first).number(self.settled).flag(self.opening);
    }

    fn take(take: &mut Take<'_>) -> Result<Probe, InvalidField> {
        let (from, to) = (ShardId(take.number16()?), ShardId(take.number16()?));
        let (from_inc, to_inc) = (Incarnation(take.number()?), Incarnation(take.number()?));
        let first = positive(take.number()?)?;
        let next = first.checked_add(take.number()?).ok_or(InvalidField("numbers that are too large"))?;
        let settled = take.number()?;
        Ok(Probe { from, to, from_inc, to_inc, first, next: positive(next)?, settled, opening: take.flag()? })
    }
}

impl Receipt {
    fn encode(&self, out: &mut Vec<u8>) {
        let mut put = Put(out);
        put.byte(RECEIPT).number(self.from.0.into()).number(self.to.0.into());
        put.number(self.from_inc.0).number(self.to_inc.0);
        put.number(self.stored).number(self.enqueued - self.stored).number(self.next - 1 - self.enqueued);
        put.number(self.window.messages.into()).number(self.window.bytes.into());
        put.byte(u8::from(self.resume) | flag(self.known.is_some(), 2)).number(self.refused.len() as u64);
        for (seq, refusal) in &self.refused {
            put.number(*seq).flag(*refusal == Refusal::Full);
        }
        if let Some(upto) = self.known {
            put.number(upto);
        }
    }

    fn take(take: &mut Take<'_>) -> Result<Receipt, InvalidField> {
        const TOO_LARGE: InvalidField = InvalidField("numbers that are too large");
        let (from, to) = (ShardId(take.number16()?), ShardId(take.number16()?));
        let (from_inc, to_inc) = (Incarnation(take.number()?), Incarnation(take.number()?));
        let stored = take.number()?;
        let enqueued = stored.checked_add(take.number()?).ok_or(TOO_LARGE)?;
        let next = enqueued.checked_add(take.number()?).filter(|last| *last < SEQ_MAX).ok_or(TOO_LARGE)? + 1;
        let window = Window { messages: take.number32()?, bytes: take.number32()? };
        let flags = take.byte()?;
        if flags > 3 {
            return Err(InvalidField("a receipt with unknown flags"));
        }
        let count = take.count()?;
        let mut refused = Vec::new();
        let mut last = 0;
        for _ in 0..count {
            let seq = take.number()?;
            if seq <= last {
                return Err(InvalidField("refused numbers that do not rise"));
            }
            last = seq;
            refused.push((seq, if take.flag()? { Refusal::Full } else { Refusal::NoMember }));
        }
        let known = if flags & 2 == 0 { None } else { Some(take.number()?) };
        let resume = flags & 1 != 0;
        Ok(Receipt { from, to, from_inc, to_inc, next, enqueued, stored, window, resume, refused, known })
    }
}

fn flag(set: bool, bit: u8) -> u8 {
    if set { bit } else { 0 }
}

fn part(whole: &Bytes, slice: &[u8]) -> Bytes {
    if slice.is_empty() { Bytes::new() } else { whole.slice_ref(slice) }
}

/// Numbers count from 1, and stay so far from the end that adding to them never overflows.
fn positive(seq: u64) -> Result<u64, InvalidField> {
    if (1..=SEQ_MAX).contains(&seq) { Ok(seq) } else { Err(InvalidField("a number out of its range")) }
}

const SEQ_MAX: u64 = u64::MAX >> 1;

#[cfg(test)]
mod tests {
    use super::super::publication::PublicationParts;
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
        vec(any::<u8>(), 0..max).prop_map(Bytes::from)
    }

    fn what() -> impl Strategy<Value = What> {
        prop_oneof![
            Just(What::Plain { transient: true, durable: false }),
            Just(What::Plain { transient: false, durable: true }),
            Just(What::Plain { transient: true, durable: true }),
            (bytes(20), any::<bool>()).prop_map(|(name, durable)| What::Group { name, durable }),
        ]
    }

    fn publication() -> impl Strategy<Value = Publication> {
        let texts = (bytes(8), "[a-z/]{1,20}", bytes(8), bytes(200));
        (texts, any::<[u8; 16]>(), any::<u64>(), 0..3_u8, any::<bool>()).prop_map(
            |((publisher, topic, properties, payload), guid, retained, qos, retain)| {
                Publication::new(&PublicationParts {
                    publisher: &publisher,
                    retained,
                    guid: Guid(guid),
                    topic: topic.as_bytes(),
                    qos: QoS::from_bits(qos).expect("one of three"),
                    retain,
                    properties: &properties,
                    payload: &payload,
                })
            },
        )
    }

    fn frame() -> impl Strategy<Value = Frame> {
        let incs = || (any::<u16>(), any::<u16>(), any::<u64>(), any::<u64>());
        let header =
            (0..200_u16, 1..SEQ_MAX, what()).prop_map(|(s, seq, what)| Header { shard: ShardId(s), seq, what });
        let remaining = proptest::option::of((0..u64::MAX >> 20).prop_map(Duration::from_millis));
        let bundle =
            (incs(), vec(header, 1..5), publication(), remaining).prop_map(|(incs, headers, message, left)| {
                Frame::Bundle(Bundle {
                    from: ShardId(incs.0),
                    from_inc: Incarnation(incs.2),
                    to_inc: Incarnation(incs.3),
                    headers: headers.into(),
                    publication: Some(message),
                    remaining: left,
                })
            });
        let release = (incs(), 1..SEQ_MAX, any::<[u8; 16]>()).prop_map(|(incs, seq, guid)| {
            Frame::Bundle(Bundle {
                from: ShardId(incs.0),
                from_inc: Incarnation(incs.2),
                to_inc: Incarnation(incs.3),
                headers: Headers::One(Header { shard: ShardId(incs.1), seq, what: What::Release(Guid(guid)) }),
                publication: None,
                remaining: None,
            })
        });
        let probe = (incs(), 1..SEQ_MAX / 2, 0..1000_u64, any::<u64>(), any::<bool>()).prop_map(
            |(incs, first, more, settled, opening)| {
                Frame::Probe(Probe {
                    from: ShardId(incs.0),
                    to: ShardId(incs.1),
                    from_inc: Incarnation(incs.2),
                    to_inc: Incarnation(incs.3),
                    first,
                    next: first + more,
                    settled,
                    opening,
                })
            },
        );
        let refused = proptest::collection::btree_map(1..9999_u64, any::<bool>(), 0..5);
        let numbers = (0..SEQ_MAX / 4, 0..9_u64, 0..9_u64, any::<[u32; 2]>(), any::<bool>());
        let receipt = (incs(), numbers, refused, proptest::option::of(any::<u64>())).prop_map(
            |(incs, (stored, more, most, window, resume), refused, known)| {
                Frame::Receipt(Receipt {
                    from: ShardId(incs.0),
                    to: ShardId(incs.1),
                    from_inc: Incarnation(incs.2),
                    to_inc: Incarnation(incs.3),
                    next: stored + more + most + 1,
                    enqueued: stored + more,
                    stored,
                    window: Window { messages: window[0], bytes: window[1] },
                    resume,
                    refused: refused
                        .into_iter()
                        .map(|(seq, full)| (seq, if full { Refusal::Full } else { Refusal::NoMember }))
                        .collect(),
                    known,
                })
            },
        );
        prop_oneof![4 => bundle, 1 => release, 1 => probe, 2 => receipt]
    }

    proptest! {
        #[test]
        fn frames_come_back(frame in frame()) {
            let mut bytes = Vec::new();
            frame.encode(&mut bytes);
            prop_assert_eq!(Frame::decode(&Bytes::from(bytes)), Ok(frame));
        }

        #[test]
        fn damaged_frames_do_no_harm(frame in frame(), at in any::<usize>(), byte in any::<u8>(), cut in any::<usize>()) {
            let mut bytes = Vec::new();
            frame.encode(&mut bytes);
            let at = at % bytes.len();
            let cut = cut % (bytes.len() + 1);
            bytes[at] = byte;
            bytes.truncate(cut);
            if let Ok(other) = Frame::decode(&Bytes::from(bytes)) {
                other.encode(&mut Vec::new());
            }
        }

        #[test]
        fn garbage_is_refused(kind in 0..4_u8, mut bytes in vec(any::<u8>(), 0..80)) {
            bytes.insert(0, kind);
            if let Ok(frame) = Frame::decode(&Bytes::from(bytes)) {
                frame.encode(&mut Vec::new());
            }
        }
    }

    #[test]
    fn a_small_message_has_a_small_frame() {
        let message = Publication::new(&PublicationParts {
            publisher: b"sensor-1",
            retained: 100,
            guid: Guid([7; 16]),
            topic: b"a/b",
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: &[],
            payload: b"12345678",
        });
        let header =
            |shard| Header { shard: ShardId(shard), seq: 1000, what: What::Plain { transient: true, durable: false } };
        let bundle = Frame::Bundle(Bundle {
            from: ShardId(0),
            from_inc: Incarnation(3),
            to_inc: Incarnation(5),
            headers: vec![header(0), header(1)].into(),
            publication: Some(message),
            remaining: None,
        });
        let mut bytes = Vec::new();
        bundle.encode(&mut bytes);
        // 5 of the frame, 4 for each shard, 2 + 16 + 9 + 1 + 4 + 1 of the message, 8 of its payload.
        assert_eq!(bytes.len(), 5 + 2 * 4 + 33 + 8);
    }
}
