//! Wills that outlive their node (docs/adr/0016), as shards and the control plane speak of them, and as the meta group keeps
//! them.

use core::fmt::Write as _;

use bytes::Bytes;
use newtmq_base::{Incarnation, InvalidField, NodeId, Put, Take};
use newtmq_cluster::directory::Client;
use newtmq_cluster::lane::Epoch;
use newtmq_session::{Message, Will};

/// What a shard says of the will of a client's connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WillNote {
    /// Whose.
    pub client: Client,
    /// Which connection of it.
    pub epoch: Epoch,
    /// What.
    pub said: WillSaid,
}

/// What is to become of a will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WillSaid {
    /// The cluster is to keep it; answered by [`WillNews::Kept`]. Another one replaces it.
    Keep(Bytes),
    /// A session that was stored has it, and it may be kept.
    Stored,
    /// It is due; answered by [`WillNews::Yours`] or [`WillNews::Over`].
    Due,
    /// It is not to be published any more, or has been.
    Over,
}

/// What the control plane says of a will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WillNews {
    /// The cluster keeps it, or cannot.
    Kept {
        /// Whose.
        client: Client,
        /// Which.
        epoch: Epoch,
        /// Whether it does.
        kept: bool,
    },
    /// It is for its own node to publish; answered by [`WillSaid::Over`].
    Yours {
        /// Whose.
        client: Client,
        /// Which.
        epoch: Epoch,
    },
    /// Another node has published it, or its client has come back elsewhere in time; answered by [`WillSaid::Over`].
    Over {
        /// Whose.
        client: Client,
        /// Which.
        epoch: Epoch,
    },
    /// Its node is down, or has forgotten the session: publish it.
    Publish {
        /// As a shard has given it to be kept.
        will: Bytes,
    },
}

/// A will as a shard gives it to be kept.
#[derive(Debug, Clone)]
pub(crate) struct KeptWill {
    /// What is left of the Will Delay Interval when its connection ends: the session may end before.
    pub(crate) delay_s: u32,
    /// Message Expiry Interval.
    pub(crate) expiry_s: Option<u32>,
    /// The message; its id and its expiry count for nothing.
    pub(crate) message: Message,
}

impl KeptWill {
    pub(crate) fn encode(will: &Will, session_expiry_s: u32) -> Bytes {
        let mut bytes = Vec::with_capacity(will.message.len() + 16);
        let expiry = will.message_expiry_interval;
        let mut put = Put(&mut bytes);
        put.number(u64::from(will.delay_interval.min(session_expiry_s)));
        put.flag(expiry.is_some()).number(u64::from(expiry.unwrap_or(0)));
        put.bytes(will.message.block());
        bytes.into()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<KeptWill, InvalidField> {
        let mut take = Take(bytes);
        let (delay_s, expires, expiry) = (take.number32()?, take.flag()?, take.number32()?);
        let message = Message::from_block(take.bytes()?).ok_or(InvalidField("no message"))?;
        take.end()?;
        Ok(KeptWill { delay_s, expiry_s: expires.then_some(expiry), message })
    }
}

/// What the meta group has of a will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WillRecord {
    /// Where its client was connected.
    pub(crate) owner: (NodeId, Incarnation),
    /// Who publishes it, and nobody else; node 0 if nobody does.
    pub(crate) taken: Option<(NodeId, Incarnation)>,
    /// A [`KeptWill`].
    pub(crate) will: Bytes,
}

impl WillRecord {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.will.len() + 32);
        let (node, inc) = self.taken.unwrap_or((NodeId(0), Incarnation(0)));
        Put(&mut bytes).number(self.owner.0.0).number(self.owner.1.0);
        Put(&mut bytes).flag(self.taken.is_some()).number(node.0).number(inc.0);
        bytes.extend_from_slice(&self.will);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<WillRecord, InvalidField> {
        let mut take = Take(bytes);
        let owner = (NodeId(take.number()?), Incarnation(take.number()?));
        let is_taken = take.flag()?;
        let by = (NodeId(take.number()?), Incarnation(take.number()?));
        KeptWill::decode(take.0)?;
        Ok(WillRecord { owner, taken: is_taken.then_some(by), will: Bytes::copy_from_slice(take.0) })
    }
}

/// Which will: there is one of each connection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WillName {
    pub(crate) client: Client,
    pub(crate) epoch: Epoch,
}

impl WillName {
    /// Its key in the meta group: in the order of epochs, after everything of the client before.
    pub(crate) fn key(&self) -> String {
        let Epoch { term, seq, provisional, issuer } = self.epoch;
        let mut key = WillName::all_of(&self.client);
        let written = write!(key, "{term:016x}{seq:016x}{provisional:016x}{:016x}", issuer.0);
        written.expect("a string takes everything");
        key
    }

    /// What the keys of all wills of a client begin with. No Client Identifier has this character.
    pub(crate) fn all_of(client: &str) -> String {
        format!("{client}\0")
    }

    pub(crate) fn of_key(key: &str) -> Option<WillName> {
        let (client, epoch) = key.split_once('\0')?;
        let number = |at: usize| u64::from_str_radix(epoch.get(at * 16..at * 16 + 16)?, 16).ok();
        let epoch = Epoch { term: number(0)?, seq: number(1)?, provisional: number(2)?, issuer: NodeId(number(3)?) };
        Some(WillName { client: client.into(), epoch })
    }
}

#[cfg(test)]
mod tests {
    use newtmq_base::{Incarnation, Instant, NodeId};
    use newtmq_cluster::lane::Epoch;
    use newtmq_mqtt::QoS;
    use newtmq_session::{Message, MessageId, MessageParts, Will};

    use super::{KeptWill, WillName, WillRecord};

    #[test]
    fn what_is_written_is_read() {
        let parts = MessageParts {
            id: MessageId(7),
            topic: b"will/a",
            forwardable: b"",
            payload: b"gone",
            qos: QoS::AtLeastOnce,
            retain: true,
            expires: Instant::NEVER,
            stretched: false,
        };
        let message = Message::new(&parts, &mut Vec::new());
        let will = Will { message, message_expiry_interval: Some(9), delay_interval: 30 };
        let kept = KeptWill::encode(&will, 20);
        let read = KeptWill::decode(&kept).expect("it is one");
        assert_eq!((read.delay_s, read.expiry_s, read.message.payload()), (20, Some(9), &b"gone"[..]));
        for taken in [None, Some((NodeId(0), Incarnation(0))), Some((NodeId(3), Incarnation(4)))] {
            let record = WillRecord { owner: (NodeId(1), Incarnation(2)), taken, will: kept.clone() };
            let bytes = record.encode();
            assert_eq!(WillRecord::decode(&bytes), Ok(record));
            for len in 0..bytes.len() {
                assert!(WillRecord::decode(&bytes[..len]).is_err(), "cut to {len}");
            }
        }
    }

    #[test]
    fn keys_are_in_the_order_of_epochs() {
        let epoch = |term, seq, provisional| Epoch { term, seq, provisional, issuer: NodeId(u64::MAX) };
        let epochs = [epoch(1, 2, 0), epoch(1, 2, 9), epoch(1, 16, 0), epoch(2, 0, 0)];
        let names = epochs.map(|epoch| WillName { client: "a/b".into(), epoch });
        let keys = names.each_ref().map(WillName::key);
        assert!(keys.is_sorted());
        assert_eq!(keys.map(|key| WillName::of_key(&key).expect("it is one")), names);
        for key in ["", "a", "a\0", "a\0zz", "a\x001111"] {
            assert_eq!(WillName::of_key(key), None, "{key:?}");
        }
    }
}
