//! A session as bytes, on its way to another node: what a log would hold of it, and its messages. QoS 0 messages stay behind.
//! Times do not go along but what is left of them, for each node has its own clock.

use core::time::Duration;
use std::sync::Arc;

use newtmq_base::{EXPIRY_STRETCH_PPM, Instant, InvalidField, Put, Take, planted};
use newtmq_cluster::lane::{Epoch, Guid};
use newtmq_mqtt::{OwnedTopicFilter, PacketId, TopicFilter};
use newtmq_session::{
    Message, MessageId, MessageParts, Record, Restored, Restoring, SessionId, SnapshotRecord, unstretched,
};

use super::Shard;

/// What a node cannot read it does not take.
const VERSION: u8 = 1;
/// A session with more bytes stays where it is, and its client cannot connect elsewhere.
pub(super) const LUGGAGE_MAX: usize = 64 << 20;

/// What has come of a session.
#[derive(Debug)]
pub(super) struct Luggage {
    /// With which epoch it began by a clean start.
    pub(super) clean: Epoch,
    snapshot: SnapshotRecord,
    /// With what is left of their expiry, in milliseconds.
    messages: Vec<(Option<u64>, Message)>,
    readings: Vec<OwnedTopicFilter>,
    /// QoS 2 messages of the client that went to other nodes, by Packet Identifier.
    forwards: Vec<(PacketId, [u8; 16])>,
    /// Of messages that it has got and may get again.
    pub(super) names: Vec<Guid>,
}

impl Shard {
    /// A session without a connection, as another node is to have it.
    pub(super) fn pack(&mut self, now: Instant, key: u32) -> Vec<u8> {
        let will_is_due = self.is_will_due(key) && !planted!(DueWillGoesAlong);
        let Shard { sessions, config, .. } = self;
        let slot = sessions.get_mut(key).expect("the caller has found it");
        let zone = &config.zones[usize::from(slot.zone)].name;
        let (mut snapshot, messages) = slot.session.whole(zone);
        if will_is_due {
            snapshot.will = None;
        }
        let mut bytes = vec![VERSION];
        put_epoch(&mut bytes, slot.claimed.as_ref().map_or(Epoch::ZERO, |claimed| claimed.clean));
        let mut record = Vec::new();
        Record::Snapshot(Box::new(snapshot)).encode(&mut record);
        Put(&mut bytes).bytes(&record).number(messages.len() as u64);
        messages.into_iter().for_each(|message| put_message(&mut bytes, now, message));
        let readings: Vec<&OwnedTopicFilter> = slot.pouring.iter().flat_map(|pourings| pourings.filters()).collect();
        Put(&mut bytes).number(readings.len() as u64);
        readings.into_iter().for_each(|filter| _ = Put(&mut bytes).text(filter.as_str()));
        let forwards = slot.forwards.as_ref().map(|forwards| forwards.guids()).unwrap_or_default();
        Put(&mut bytes).number(forwards.len() as u64);
        for (packet_id, guid) in forwards {
            Put(&mut bytes).number(u64::from(packet_id.get()));
            bytes.extend_from_slice(&guid);
        }
        let names = slot.claimed.as_ref().map(|claimed| claimed.names(now)).unwrap_or_default();
        Put(&mut bytes).number(names.len() as u64);
        names.into_iter().for_each(|name| bytes.extend_from_slice(&name.0));
        bytes
    }

    /// The session, with names of this node for its messages. What has expired on the way is not among them.
    pub(super) fn unpack(&mut self, now: Instant, luggage: Luggage, zone: u16) -> Option<Restored> {
        let Luggage { snapshot, messages, readings, forwards, .. } = luggage;
        let messages: Vec<Option<Message>> =
            messages.into_iter().map(|(left, message)| self.own_message(now, &message, left)).collect();
        let mut snapshot = snapshot;
        let find = |id: MessageId| messages.get(usize::try_from(id.0).ok()?.checked_sub(1)?)?.clone();
        snapshot.deliveries.retain(|delivery| find(delivery.message).is_some());
        let zone = &self.config.zones[usize::from(zone)];
        let (mut restoring, _) = Restoring::from_snapshot(&snapshot, Arc::from(&*zone.name), 0, &find)?;
        let session = SessionId(0);
        let read = readings.into_iter().map(|filter| Record::Reading { session, filter, done: false });
        // The node that it was at sees to it that they come to where they are to go.
        let forwarded = forwards.into_iter().flat_map(|(packet_id, guid)| {
            [Record::Forwarding { session, packet_id, guid }, Record::Forwarded { session, packet_id }]
        });
        for record in read.chain(forwarded) {
            restoring.apply(record, &find).ok()?;
        }
        Some(restoring.finish(&zone.session))
    }

    /// A message of another node, by a name of this one; none if it has expired.
    pub(super) fn own_message(&mut self, now: Instant, message: &Message, left: Option<u64>) -> Option<Message> {
        let expires = match left {
            Some(0) => return None,
            // What is left is not to be less here, whose clock may be faster.
            Some(millis) => {
                now + Duration::from_millis(
                    millis.saturating_add(millis / 1_000 * u64::from(EXPIRY_STRETCH_PPM) / 1_000),
                )
            }
            None => Instant::NEVER,
        };
        let parts = MessageParts {
            id: self.journal.message_id(),
            topic: message.topic(),
            forwardable: message.forwardable(),
            payload: message.payload(),
            qos: message.qos(),
            retain: message.retain(),
            expires,
            stretched: message.is_stretched() || left.is_some(),
        };
        Some(Message::new(&parts, &mut self.scratch.block))
    }
}

impl Luggage {
    /// Reads what [`Shard::pack`] wrote.
    ///
    /// # Errors
    /// It is none, or of a version that is not known.
    pub(super) fn read(bytes: &[u8]) -> Result<Luggage, InvalidField> {
        let mut take = Take(bytes);
        if take.byte()? != VERSION {
            return Err(InvalidField("a session of an unknown version"));
        }
        let clean = take_epoch(&mut take)?;
        let Ok(Record::Snapshot(snapshot)) = Record::decode(take.bytes()?) else {
            return Err(InvalidField("no session"));
        };
        let mut messages = Vec::new();
        for _ in 0..take.count()? {
            messages.push(take_message(&mut take)?);
        }
        let filter = |take: &mut Take<'_>| {
            TopicFilter::new(take.text()?).map(OwnedTopicFilter::from).map_err(|_| InvalidField("no Topic Filter"))
        };
        let readings = (0..take.count()?).map(|_| filter(&mut take)).collect::<Result<_, _>>()?;
        let mut forwards = Vec::new();
        for _ in 0..take.count()? {
            let packet_id = PacketId::new(take.number16()?).ok_or(InvalidField("no Packet Identifier"))?;
            forwards.push((packet_id, take_name(&mut take)?.0));
        }
        let names = (0..take.count()?).map(|_| take_name(&mut take)).collect::<Result<_, _>>()?;
        take.end()?;
        Ok(Luggage { clean, snapshot: *snapshot, messages, readings, forwards, names })
    }
}

/// The name of a message among the nodes.
pub(super) fn take_name(take: &mut Take<'_>) -> Result<Guid, InvalidField> {
    let (name, rest) = take.0.split_first_chunk().ok_or(InvalidField("its end is missing"))?;
    take.0 = rest;
    Ok(Guid(*name))
}

/// A message and what is left of its expiry.
pub(super) fn put_message(bytes: &mut Vec<u8>, now: Instant, message: &Message) {
    let again = message.is_stretched() && !planted!(ExpiryStretchedTwice);
    let left = match if again { unstretched(message.expires(), now) } else { message.expires() } {
        Instant::NEVER => 0,
        expires => u64::try_from(expires.saturating_since(now).as_millis()).unwrap_or(u64::MAX - 1) + 1,
    };
    Put(bytes).number(left).bytes(message.block());
}

pub(super) fn take_message(take: &mut Take<'_>) -> Result<(Option<u64>, Message), InvalidField> {
    let left = take.number()?.checked_sub(1);
    let message = Message::from_block(take.bytes()?).ok_or(InvalidField("no message"))?;
    Ok((left, message))
}

pub(super) fn put_epoch(bytes: &mut Vec<u8>, epoch: Epoch) {
    parts_of(epoch).into_iter().for_each(|part| _ = Put(bytes).number(part));
}

pub(super) fn take_epoch(take: &mut Take<'_>) -> Result<Epoch, InvalidField> {
    Ok(epoch_of([take.number()?, take.number()?, take.number()?, take.number()?]))
}

/// As the log has it.
pub(super) fn parts_of(epoch: Epoch) -> [u64; 4] {
    [epoch.term, epoch.seq, epoch.provisional, epoch.issuer.0]
}

pub(super) fn epoch_of([term, seq, provisional, issuer]: [u64; 4]) -> Epoch {
    Epoch { term, seq, provisional, issuer: newtmq_base::NodeId(issuer) }
}
