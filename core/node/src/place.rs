//! What the shards of a node say to each other. Between two shards messages arrive once, in the order they were sent.

use newtmq_base::{ConnId, NodeId, ShardId};
use newtmq_cluster::lane::Guid;
use newtmq_cluster::owned::Class;
use newtmq_mqtt::OwnedTopicFilter;
use newtmq_session::Message;
use newtmq_topic::{Fit, PlaceId, RetainedCursor};

/// Most shards of a node.
pub const SHARDS_MAX: u16 = 128;

/// The subscribers of a class at a shard, as a shard's table of subscriptions names them. `slot` is the shard's name of the
/// node; 0 is its own.
#[must_use]
pub fn place_id(slot: u8, shard: ShardId, class: Class) -> PlaceId {
    PlaceId(u16::from(slot) << 8 | shard.0 << 1 | u16::from(class == Class::Durable))
}

/// Which node a place is at, as the shard names it; 0 for its own.
pub(crate) fn slot_of(place: PlaceId) -> u8 {
    (place.0 >> 8) as u8
}

/// The class of the subscribers of a place.
pub(crate) fn class_of(place: PlaceId) -> Class {
    if place.0 & 1 == 0 { Class::Transient } else { Class::Durable }
}

/// The shard that a place is at.
pub(crate) fn shard_of(place: PlaceId) -> u16 {
    place.0 >> 1 & (SHARDS_MAX - 1)
}

/// Where a retained message, or the deletion of one, comes from: its publisher's shard, and a number that counts those
/// from there to the shard that owns the topic. The owner gets them in this order. If the cluster agrees on it, it comes from
/// there, and the number is the index of its entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Stamp(u64);

impl Stamp {
    /// Of a message that is not retained.
    pub(crate) const NONE: Stamp = Stamp(0);
    const NUMBER_BITS: u32 = 56;
    // No shard has this number.
    const OF_CLUSTER: u64 = 0xFF << Stamp::NUMBER_BITS;

    pub(crate) fn new(source: u16, number: u64) -> Stamp {
        assert!(number > 0 && number >> Stamp::NUMBER_BITS == 0, "2^56 retained messages are enough");
        Stamp(u64::from(source) << Stamp::NUMBER_BITS | number)
    }

    /// Of an entry of the log on which the cluster agrees.
    pub(crate) fn of_index(index: u64) -> Stamp {
        if index == 0 { Stamp::NONE } else { Stamp(Stamp::OF_CLUSTER | index & !Stamp::OF_CLUSTER) }
    }

    /// The index of its entry, if the cluster agrees on it.
    pub(crate) fn index(self) -> Option<u64> {
        (self.0 & Stamp::OF_CLUSTER == Stamp::OF_CLUSTER).then_some(self.0 & !Stamp::OF_CLUSTER)
    }

    pub(crate) fn source(self) -> u16 {
        (self.0 >> Stamp::NUMBER_BITS) as u16
    }

    pub(crate) fn number(self) -> u64 {
        self.0 & ((1 << Stamp::NUMBER_BITS) - 1)
    }
}

/// From one shard of a node to another.
#[derive(Debug)]
pub enum PlaceMessage {
    /// A message that the receiver has plain subscriptions for. It never passes it on.
    Publish {
        /// The message.
        message: Message,
        /// Its publisher's connection at the sender; none for a will or the server's own.
        publisher: Option<ConnId>,
        /// If it was published with RETAIN.
        stamp: Stamp,
        /// What the sender has promised and waits for [`PlaceMessage::Stored`] with; 0 for nothing.
        promise: u64,
        /// Its name among all nodes; zeros if it has none.
        guid: Guid,
    },
    /// A message for a shared group.
    Group(Box<GroupPublish>),
    /// A message to be retained by the receiver, or an empty one that deletes.
    Retain {
        /// The message.
        message: Message,
        /// Which one it is.
        stamp: Stamp,
        /// As of [`PlaceMessage::Publish`].
        promise: u64,
    },
    /// Of what the receiver has promised and sent, the first so many are stored at the sender.
    Stored {
        /// How many, since the start.
        upto: u64,
    },
    /// A message for a group that the receiver has promised is stored where it went in the end.
    GroupStored {
        /// The promise.
        promise: u64,
    },
    /// Asks for the next retained messages of a filter.
    Read(Box<RetainedRead>),
    /// Answers [`PlaceMessage::Read`].
    Chunk(Box<RetainedChunk>),
    /// Asks how many retained messages the receiver has sent.
    Probe,
    /// Answers [`PlaceMessage::Probe`]. What the sender sent live by then came before this.
    Sent {
        /// By owner.
        counts: Box<[u64]>,
    },
    /// So much of what was sent has been worked off.
    Credit {
        /// In the sender's account.
        bytes: usize,
    },
    /// The publisher has to wait: something is above its limit.
    Hold {
        /// At the receiver.
        publisher: ConnId,
        /// At the sender.
        obstacle: Obstacle,
    },
    /// What an earlier hold was for has drained, stalled or gone.
    Release {
        /// At the receiver.
        publisher: ConnId,
        /// At the sender.
        obstacle: Obstacle,
    },
    /// The publisher waits no longer, or has gone.
    Leave {
        /// At the sender.
        publisher: ConnId,
        /// At the receiver.
        obstacle: Obstacle,
        /// How many holds the sender had got from the receiver: a later one goes on.
        holds: u64,
    },
    /// The receiver is to put a marker behind all that it has sent to a place.
    Flush {
        /// The place.
        at: (NodeId, ShardId),
        /// The marker.
        marker: Guid,
    },
    /// The marker, if the place is at this node.
    Flushed {
        /// The marker.
        marker: Guid,
    },
    /// The sender stops; no message comes any more.
    Bye,
}

/// What keeps a publisher of another shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// The output of a connection.
    Output(ConnId),
    /// A third shard, which works off what was passed on to it.
    Lane(u16),
}

/// A message on its way to a member of a shared group (section 4.8.2). It goes round the places that have members until
/// one has a member that is ready, and else to the fittest that it met.
#[derive(Debug)]
pub struct GroupPublish {
    /// Text of the shared subscription.
    pub(crate) group: OwnedTopicFilter,
    pub(crate) message: Message,
    pub(crate) publisher: Option<(ShardId, ConnId)>,
    /// The shard that has promised it, and the promise; 0 for none.
    pub(crate) promise: (ShardId, u64),
    /// Which of the place's members has its turn.
    pub(crate) index: u32,
    /// Shards that had no ready member, a bit each.
    pub(crate) tried: u128,
    /// The fittest of theirs.
    pub(crate) best: Option<(Fit, u16)>,
}

/// Who reads retained messages: a subscription of a session.
#[derive(Debug, Clone)]
pub struct Reader {
    pub(crate) session: u32,
    /// Tells two sessions of one key apart.
    pub(crate) born: u64,
    /// Tells two readings of one filter apart.
    pub(crate) reading: u64,
    pub(crate) filter: OwnedTopicFilter,
}

/// Asks for the next retained messages. The reader keeps the place where it is; the owner keeps nothing.
#[derive(Debug)]
pub struct RetainedRead {
    pub(crate) reader: Reader,
    pub(crate) cursor: RetainedCursor,
    /// By source: what the owner must have worked off before it answers.
    pub(crate) need: Box<[u64]>,
    /// Up to which index of the log on which the cluster agrees.
    pub(crate) index: u64,
}

/// Some retained messages.
#[derive(Debug)]
pub struct RetainedChunk {
    pub(crate) reader: Reader,
    /// Where to go on; none at the end.
    pub(crate) cursor: Option<RetainedCursor>,
    pub(crate) messages: std::collections::VecDeque<(Message, Stamp)>,
    /// By source: what the owner had worked off.
    pub(crate) seen: Box<[u64]>,
}

/// What a message costs beside its bytes in a lane's account.
const COST_BYTES: usize = 64;

impl PlaceMessage {
    /// What the message takes of its lane's limit until it has been worked off; 0 for what is limited otherwise.
    pub(crate) fn cost(&self) -> usize {
        match self {
            PlaceMessage::Publish { message, .. } | PlaceMessage::Retain { message, .. } => message.len() + COST_BYTES,
            PlaceMessage::Group(group) => group.message.len() + COST_BYTES,
            PlaceMessage::Read(_)
            | PlaceMessage::Chunk(_)
            | PlaceMessage::Probe
            | PlaceMessage::Sent { .. }
            | PlaceMessage::Credit { .. }
            | PlaceMessage::Hold { .. }
            | PlaceMessage::Release { .. }
            | PlaceMessage::Leave { .. }
            | PlaceMessage::Stored { .. }
            | PlaceMessage::GroupStored { .. }
            | PlaceMessage::Flush { .. }
            | PlaceMessage::Flushed { .. }
            | PlaceMessage::Bye => 0,
        }
    }
}
