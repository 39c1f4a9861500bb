//! An application message that outlives the packet it came in.

use std::sync::Arc;

use newtmq_base::{EXPIRY_STRETCH_PPM, Instant, planted};
use newtmq_mqtt::{QoS, TopicName};

/// A published message as one reference-counted block, so that a publish costs one allocation however many sessions
/// queue it, and a retained message costs 16 bytes beside its block.
///
/// The block: a fixed head, then topic, forwardable properties (as encoded on the wire) and payload.
#[derive(Clone, PartialEq, Eq)]
pub struct Message(Arc<[u8]>);

/// Names a message in the log of its node: its publisher's shard and a count there. [`MessageId::NONE`] for what is never
/// stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MessageId(pub u64);

impl MessageId {
    /// Of a message that no log holds.
    pub const NONE: MessageId = MessageId(0);
}

/// What a [`Message`] is made of.
#[derive(Debug, Clone, Copy)]
pub struct MessageParts<'a> {
    /// Its name in the log.
    pub id: MessageId,
    /// Topic Name, valid.
    pub topic: &'a [u8],
    /// MQTT 5 properties that a server passes on unaltered, encoded, without a length in front.
    pub forwardable: &'a [u8],
    /// Application payload.
    pub payload: &'a [u8],
    /// QoS of the publish.
    pub qos: QoS,
    /// RETAIN flag of the publish.
    pub retain: bool,
    /// When the Message Expiry Interval has passed; [`Instant::NEVER`] without one.
    pub expires: Instant,
    /// It came from another node, and the time until `expires` was stretched on the way ([`EXPIRY_STRETCH_PPM`]).
    pub stretched: bool,
}

// Layout of the head, little endian.
const EXPIRES: usize = 0;
const ID: usize = 8;
const FORWARDABLE_LEN: usize = 16;
const TOPIC_LEN: usize = 20;
const FLAGS: usize = 22;
const HEAD_LEN: usize = 23;
const FLAG_RETAIN: u8 = 0x80;
const FLAG_STRETCHED: u8 = 0x40;
const QOS: u8 = 0x03;

impl Message {
    /// Makes the block. `scratch` is any buffer to build it in; its content is replaced.
    #[must_use]
    pub fn new(parts: &MessageParts<'_>, scratch: &mut Vec<u8>) -> Message {
        scratch.clear();
        scratch.reserve(HEAD_LEN + parts.topic.len() + parts.forwardable.len() + parts.payload.len());
        scratch.extend_from_slice(&parts.expires.as_nanos().to_le_bytes());
        scratch.extend_from_slice(&parts.id.0.to_le_bytes());
        let forwardable_len = u32::try_from(parts.forwardable.len()).expect("a packet is below 256 MiB");
        scratch.extend_from_slice(&forwardable_len.to_le_bytes());
        let topic_len = u16::try_from(parts.topic.len()).expect("a Topic Name is at most 65,535 bytes");
        scratch.extend_from_slice(&topic_len.to_le_bytes());
        let flag = |flag: u8, on: bool| if on { flag } else { 0 };
        scratch.push(parts.qos as u8 | flag(FLAG_RETAIN, parts.retain) | flag(FLAG_STRETCHED, parts.stretched));
        scratch.extend_from_slice(parts.topic);
        scratch.extend_from_slice(parts.forwardable);
        scratch.extend_from_slice(parts.payload);
        Message(Arc::from(&scratch[..]))
    }

    /// The block as a log keeps it.
    #[must_use]
    pub fn block(&self) -> &[u8] {
        &self.0
    }

    /// From the block of [`Message::block`]; none if the bytes are no such block.
    #[must_use]
    pub fn from_block(block: &[u8]) -> Option<Message> {
        let message = Message(Arc::from(block));
        let head = block.len().checked_sub(HEAD_LEN)?;
        QoS::from_bits(block[FLAGS] & !(FLAG_RETAIN | FLAG_STRETCHED))?;
        (message.topic_len() + message.forwardable_len() <= head).then_some(())?;
        TopicName::from_bytes(message.topic()).ok()?;
        Some(message)
    }

    /// Its name in the log.
    #[must_use]
    pub fn id(&self) -> MessageId {
        MessageId(u64::from_le_bytes(self.word(ID)))
    }

    /// Size of the block in bytes.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // never empty: there is always the head
    pub fn len(&self) -> usize {
        self.0.len()
    }

    fn word<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0[at..at + N].try_into().expect("the head is in every block")
    }

    fn topic_len(&self) -> usize {
        usize::from(u16::from_le_bytes(self.word(TOPIC_LEN)))
    }

    fn forwardable_len(&self) -> usize {
        u32::from_le_bytes(self.word(FORWARDABLE_LEN)) as usize
    }

    /// Topic Name as bytes.
    #[must_use]
    pub fn topic(&self) -> &[u8] {
        &self.0[HEAD_LEN..HEAD_LEN + self.topic_len()]
    }

    /// Topic Name as text.
    #[must_use]
    pub fn topic_str(&self) -> &str {
        core::str::from_utf8(self.topic()).expect("a message is made with a valid Topic Name")
    }

    /// MQTT 5 properties to pass on, encoded.
    #[must_use]
    pub fn forwardable(&self) -> &[u8] {
        let start = HEAD_LEN + self.topic_len();
        &self.0[start..start + self.forwardable_len()]
    }

    /// Application payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.0[HEAD_LEN + self.topic_len() + self.forwardable_len()..]
    }

    /// QoS of the publish.
    #[must_use]
    pub fn qos(&self) -> QoS {
        QoS::from_bits(self.0[FLAGS] & QOS).expect("made from a QoS")
    }

    /// RETAIN flag of the publish.
    #[must_use]
    pub fn retain(&self) -> bool {
        self.0[FLAGS] & FLAG_RETAIN != 0
    }

    /// Whether the time until it expires was stretched.
    #[must_use]
    pub fn is_stretched(&self) -> bool {
        self.0[FLAGS] & FLAG_STRETCHED != 0
    }

    /// When the message expires.
    #[must_use]
    pub fn expires(&self) -> Instant {
        Instant::from_nanos(u64::from_le_bytes(self.word(EXPIRES)))
    }

    /// Whether the Message Expiry Interval has passed [MQTT-3.3.2-5].
    #[must_use]
    pub fn is_expired(&self, now: Instant) -> bool {
        self.expires() <= now
    }

    /// The received interval minus the time the message waited, in seconds, rounded up [MQTT-3.3.2-6].
    #[must_use]
    pub fn remaining_expiry(&self, now: Instant) -> Option<u32> {
        remaining_expiry(self.expires(), self.is_stretched(), now)
    }

    /// Bytes of the block, for accounts of memory.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.len()
    }
}

/// Time left until `expires` as a Message Expiry Interval: seconds, rounded up; none for [`Instant::NEVER`]. One that was
/// stretched is never more than what was published [MQTT-3.3.2-6].
#[must_use]
pub fn remaining_expiry(expires: Instant, stretched: bool, now: Instant) -> Option<u32> {
    if expires == Instant::NEVER {
        return None;
    }
    let expires = if stretched && !planted!(StretchedExpiryTold) { unstretched(expires, now) } else { expires };
    let left = (expires - now).as_nanos();
    Some(u32::try_from(left.div_ceil(1_000_000_000)).unwrap_or(u32::MAX))
}

/// What [`EXPIRY_STRETCH_PPM`] makes `expires` of again, at `now`. A message that came from another node and goes on to a
/// third one would be stretched twice.
#[must_use]
pub fn unstretched(expires: Instant, now: Instant) -> Instant {
    const PPM: u128 = 1_000_000;
    if expires == Instant::NEVER {
        return expires;
    }
    let left = (expires - now).as_nanos() * PPM / (PPM + u128::from(EXPIRY_STRETCH_PPM));
    Instant::from_nanos(now.as_nanos().saturating_add(u64::try_from(left).unwrap_or(u64::MAX)))
}

impl core::fmt::Debug for Message {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Message({:?}, {:?}, {} B)", self.topic_str(), self.qos(), self.payload().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back() {
        let parts = MessageParts {
            id: MessageId(77),
            topic: b"a/b",
            forwardable: &[1, 1],
            payload: b"hello",
            qos: QoS::ExactlyOnce,
            retain: true,
            expires: Instant::from_millis(2500),
            stretched: false,
        };
        let message = Message::new(&parts, &mut Vec::new());
        assert_eq!(
            (message.topic_str(), message.forwardable(), message.payload()),
            ("a/b", &[1, 1][..], &b"hello"[..])
        );
        assert_eq!((message.qos(), message.retain()), (QoS::ExactlyOnce, true));
        assert_eq!((message.id(), Message::from_block(message.block())), (MessageId(77), Some(message.clone())));
        assert!((0..message.len()).all(|len| len >= 27 || Message::from_block(&message.block()[..len]).is_none()));
        assert_eq!(message.remaining_expiry(Instant::from_millis(1000)), Some(2));
        let stretched = Message::new(&MessageParts { stretched: true, ..parts }, &mut Vec::new());
        assert_eq!((stretched.qos(), stretched.retain()), (QoS::ExactlyOnce, true));
        assert_eq!(Message::from_block(stretched.block()), Some(stretched.clone()));
        assert_eq!([465, 475].map(|at| stretched.remaining_expiry(Instant::from_millis(at))), [Some(2), Some(2)]);
        assert_eq!([459, 460].map(|at| message.remaining_expiry(Instant::from_millis(at))), [Some(3), Some(3)]);
        assert!(!message.is_expired(Instant::from_millis(2499)));
        assert!(message.is_expired(Instant::from_millis(2500)));
    }
}
