//! A message as lanes carry it: in the form in which it goes over links, made once for all places that it goes to, and
//! cut out of what came, not copied.

use bytes::{Bytes, BytesMut};
use newtmq_base::{InvalidField, Put, Take};
use newtmq_mqtt::{QoS, TopicName};

use super::message::Guid;

/// What a message consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicationParts<'a> {
    /// Client Identifier of its publisher; empty for the server's own.
    pub publisher: &'a [u8],
    /// If the cluster retains it: the index of its entry in that group's log. Otherwise 0.
    pub retained: u64,
    /// Its name.
    pub guid: Guid,
    /// Topic Name, valid.
    pub topic: &'a [u8],
    /// QoS of the publish.
    pub qos: QoS,
    /// RETAIN flag of the publish.
    pub retain: bool,
    /// MQTT 5 properties that a server passes on unaltered, encoded, without a length in front.
    pub properties: &'a [u8],
    /// Application payload.
    pub payload: &'a [u8],
}

/// A published message, without its remaining expiry. Cloning it copies no bytes of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Publication {
    /// Guid, publisher, index, topic, properties, payload.
    body: Bytes,
    publisher: Part,
    topic: Part,
    properties: Part,
    payload: u32,
    qos: QoS,
    retain: bool,
}

/// From where to where.
type Part = (u32, u32);

/// Makes messages. Small ones share blocks of memory, a few at a time, so that not each of them costs allocations.
#[derive(Debug, Default)]
pub struct Press {
    body: Vec<u8>,
    sheet: BytesMut,
}

impl Press {
    /// Makes a message of its parts.
    ///
    /// # Panics
    /// If they are of 4 GiB or more.
    pub fn publication(&mut self, parts: &PublicationParts<'_>) -> Publication {
        let Press { body, sheet } = self;
        body.clear();
        let places = write(parts, body);
        if body.len() > SHEET_BYTES / 4 {
            // What is kept of a sheet keeps all of it.
            return Publication::made(Bytes::from(core::mem::take(body)), places, parts);
        }
        if sheet.capacity() < body.len() {
            *sheet = BytesMut::with_capacity(SHEET_BYTES);
        }
        sheet.extend_from_slice(body);
        Publication::made(sheet.split().freeze(), places, parts)
    }
}

impl Publication {
    /// Makes a message of its parts, in a block of its own.
    ///
    /// # Panics
    /// If they are of 4 GiB or more.
    #[must_use]
    pub fn new(parts: &PublicationParts<'_>) -> Publication {
        let mut body = Vec::new();
        let places = write(parts, &mut body);
        Publication::made(body.into(), places, parts)
    }

    fn made(body: Bytes, places: Places, parts: &PublicationParts<'_>) -> Publication {
        let Places { publisher, topic, properties, payload } = places;
        Publication { body, publisher, topic, properties, payload, qos: parts.qos, retain: parts.retain }
    }

    /// The message that [`Publication::body`] has given.
    ///
    /// # Errors
    /// The bytes are none.
    pub fn of_body(body: Bytes, qos: QoS, retain: bool) -> Result<Publication, InvalidField> {
        if u32::try_from(body.len()).is_err() {
            return Err(InvalidField("a message of 4 GiB or more"));
        }
        let mut take = Take(&body);
        take.0 = take.0.get(GUID_BYTES..).ok_or(InvalidField("its end is missing"))?;
        let publisher = take_part(&body, &mut take)?;
        take.number()?;
        let topic = take_part(&body, &mut take)?;
        let properties = take_part(&body, &mut take)?;
        let payload = (body.len() - take.0.len()) as u32;
        let message = Publication { body, publisher, topic, properties, payload, qos, retain };
        TopicName::from_bytes(message.topic()).map_err(|_| InvalidField("no Topic Name"))?;
        Ok(message)
    }

    /// All of it but QoS and RETAIN, in the form in which it goes over links.
    #[inline]
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Whether it is the same one, not only one that is equal.
    #[inline]
    pub(super) fn is_same(&self, other: &Publication) -> bool {
        core::ptr::eq(self.body.as_ptr(), other.body.as_ptr())
    }

    /// Bytes of its texts and its payload.
    #[inline]
    pub(super) fn cost(&self) -> usize {
        let len = |(from, to): Part| (to - from) as usize;
        len(self.publisher) + len(self.topic) + len(self.properties) + self.payload().len()
    }

    /// Client Identifier of its publisher; empty for the server's own.
    #[must_use]
    pub fn publisher(&self) -> &[u8] {
        self.part(self.publisher)
    }

    /// If the cluster retains it: the index of its entry in that group's log. Otherwise 0.
    #[must_use]
    pub fn retained(&self) -> u64 {
        Take(&self.body[self.publisher.1 as usize..]).number().expect("it was written, or looked at")
    }

    /// Its name.
    #[must_use]
    pub fn guid(&self) -> Guid {
        Guid(*self.body.first_chunk().expect("a body begins with it"))
    }

    /// Topic Name, valid.
    #[must_use]
    pub fn topic(&self) -> &[u8] {
        self.part(self.topic)
    }

    /// QoS of the publish.
    #[must_use]
    pub fn qos(&self) -> QoS {
        self.qos
    }

    /// RETAIN flag of the publish.
    #[must_use]
    pub fn retain(&self) -> bool {
        self.retain
    }

    /// MQTT 5 properties that a server passes on unaltered, encoded, without a length in front.
    #[must_use]
    pub fn properties(&self) -> &[u8] {
        self.part(self.properties)
    }

    /// Application payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.body[self.payload as usize..]
    }

    #[inline]
    fn part(&self, (from, to): Part) -> &[u8] {
        &self.body[from as usize..to as usize]
    }
}

impl core::fmt::Debug for Publication {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Publication")
            .field("publisher", &self.publisher().escape_ascii().to_string())
            .field("guid", &self.guid())
            .field("topic", &self.topic().escape_ascii().to_string())
            .field("qos", &self.qos)
            .field("retain", &self.retain)
            .field("payload", &self.payload().len())
            .finish_non_exhaustive()
    }
}

/// Where in a body the parts are.
struct Places {
    publisher: Part,
    topic: Part,
    properties: Part,
    payload: u32,
}

fn write(parts: &PublicationParts<'_>, body: &mut Vec<u8>) -> Places {
    let PublicationParts { publisher, retained, guid, topic, properties, payload, .. } = *parts;
    body.reserve(publisher.len() + topic.len() + properties.len() + payload.len() + HEAD_BYTES);
    body.extend_from_slice(&guid.0);
    let publisher = put_part(body, publisher);
    Put(body).number(retained);
    let topic = put_part(body, topic);
    let properties = put_part(body, properties);
    let at = position(body);
    body.extend_from_slice(payload);
    // The end is a position, too.
    position(body);
    Places { publisher, topic, properties, payload: at }
}

fn position(body: &[u8]) -> u32 {
    u32::try_from(body.len()).expect("messages are limited far below 4 GiB")
}

fn put_part(body: &mut Vec<u8>, bytes: &[u8]) -> Part {
    Put(body).number(bytes.len() as u64);
    let from = position(body);
    body.extend_from_slice(bytes);
    (from, position(body))
}

fn take_part(body: &[u8], take: &mut Take<'_>) -> Result<Part, InvalidField> {
    let bytes = take.bytes()?;
    // What is left is behind it.
    let to = body.len() - take.0.len();
    Ok(((to - bytes.len()) as u32, to as u32))
}

const GUID_BYTES: usize = 16;
/// What is enough, most of the time, for what is not text.
const HEAD_BYTES: usize = GUID_BYTES + 16;
/// What small messages share. One of them that waits for long keeps so much.
const SHEET_BYTES: usize = 4 << 10;
