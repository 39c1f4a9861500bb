//! What clients saw and what was done to them: the only thing that black-box checks look at. Both simulation tiers make
//! the same events. An event is written by the side that knows it: a client model what it sends and receives, the world
//! what it does to connections and nodes.

use core::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use newtmq_base::{Incarnation, Instant, NodeId, RequestId};
use newtmq_mqtt::{ProtocolVersion, QoS, ReasonCode, RetainHandling};
use newtmq_node::{ClusterAnswer, ClusterCommand, ClusterEvent};

/// A client of the scenario, by its index there. Two of them may use one Client Identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientIx(pub u32);

/// A network connection; they are numbered over all clients, in the order of their CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnIx(pub u32);

/// A node of the scenario, by its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIx(pub u16);

/// A Topic Name or Topic Filter, by its index in [`Names`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NameIx(pub u32);

/// One Application Message, named by its publisher. It is part of the payload, so that every copy can be told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uid {
    /// Who made it.
    pub publisher: ClientIx,
    /// Counts the publisher's messages from 1, wills among them.
    pub number: u32,
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}#{}", self.publisher.0, self.number)
    }
}

/// A Will Message that a CONNECT carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WillFacts {
    /// The message.
    pub uid: Uid,
    /// Will Topic.
    pub topic: NameIx,
    /// Will QoS.
    pub qos: QoS,
    /// Will Retain.
    pub retain: bool,
    /// Will Delay Interval in seconds; 0 before MQTT 5.0.
    pub delay_s: u32,
    /// Message Expiry Interval in seconds.
    pub expiry_s: Option<u32>,
}

/// What a CONNECT says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectFacts {
    /// Where the connection goes to.
    pub node: NodeIx,
    /// Client Identifier.
    pub client_id: NameIx,
    /// Protocol version; of a client of MQTT-SN MQTT 3.1, which promises as much: no Session Present, no reasons.
    pub version: ProtocolVersion,
    /// It speaks MQTT-SN. Then `receive_maximum` is that of its gateway.
    pub sn: Option<SnConnect>,
    /// Clean Start, or Clean Session before MQTT 5.0.
    pub clean: bool,
    /// Session Expiry Interval in seconds as asked for; before MQTT 5.0 `None`: the broker's if Clean Session is 0.
    pub expiry_s: Option<u32>,
    /// Keep Alive in seconds; 0 for none.
    pub keep_alive_s: u16,
    /// Receive Maximum.
    pub receive_maximum: u16,
    /// Maximum Packet Size in bytes.
    pub max_packet_size: Option<u32>,
    /// Will Message.
    pub will: Option<WillFacts>,
}

/// How a client of MQTT-SN comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnConnect {
    /// With CONNECT.
    Connect,
    /// With a PINGREQ: it sleeps, and is there for what waits for it. A client that sleeps has no connection in the history, but
    /// its session goes on, and its will is not due.
    Wake,
    /// It publishes with QoS -1 alone. The connection stands for that, and is never over.
    Unconnected,
}

/// A filter of a SUBSCRIBE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterFacts {
    /// The filter; of a shared subscription the whole text.
    pub filter: NameIx,
    /// Maximum QoS.
    pub qos: QoS,
    /// No Local.
    pub no_local: bool,
    /// Retain As Published.
    pub retain_as_published: bool,
    /// Retain Handling.
    pub retain_handling: RetainHandling,
}

/// A PUBLISH of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishFacts {
    /// Packet Identifier, for QoS 1 and 2.
    pub pid: Option<u16>,
    /// Which message; none if the payload is empty.
    pub uid: Option<Uid>,
    /// Topic Name, also if an alias stands for it in the packet.
    pub topic: NameIx,
    /// QoS.
    pub qos: QoS,
    /// DUP: the same message has been sent before.
    pub dup: bool,
    /// RETAIN.
    pub retain: bool,
    /// Message Expiry Interval in seconds.
    pub expiry_s: Option<u32>,
    /// Length of the payload in bytes; 0 deletes what is retained.
    pub size: u32,
}

/// A PUBLISH to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceiveFacts {
    /// Packet Identifier, for QoS 1 and 2.
    pub pid: Option<u16>,
    /// Which message; none if the payload is empty or not intact.
    pub uid: Option<Uid>,
    /// Topic Name.
    pub topic: NameIx,
    /// QoS.
    pub qos: QoS,
    /// DUP.
    pub dup: bool,
    /// RETAIN.
    pub retain: bool,
    /// Message Expiry Interval in seconds.
    pub expiry_s: Option<u32>,
    /// Subscription Identifiers; mostly none, which allocates nothing.
    pub subscription_ids: Vec<u32>,
    /// The payload is what its publisher made for this topic: length and checksum fit.
    pub intact: bool,
    /// Length of the payload in bytes.
    pub size: u32,
    /// Length of the packet in bytes.
    pub packet_size: u32,
    /// When the broker wrote the packet's last byte.
    pub sent_at: Instant,
}

/// An acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckKind {
    /// PUBACK.
    Puback,
    /// PUBREC.
    Pubrec,
    /// PUBREL.
    Pubrel,
    /// PUBCOMP.
    Pubcomp,
}

impl AckKind {
    /// Its name in the specification.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            AckKind::Puback => "PUBACK",
            AckKind::Pubrec => "PUBREC",
            AckKind::Pubrel => "PUBREL",
            AckKind::Pubcomp => "PUBCOMP",
        }
    }
}

/// Who ended a connection, as its client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closer {
    /// The client, after a DISCONNECT or without.
    Client,
    /// The broker.
    Server,
    /// Neither: it broke, or a scenario broke it.
    Network,
}

/// Something that a scenario does to the world. `Until` is the time at which it is over if that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Bytes of a client's connection do not arrive; they come after [`Fault::Heal`].
    Cut {
        /// The client.
        client: ClientIx,
        /// Toward the broker.
        to_server: bool,
        /// Toward the client.
        to_client: bool,
    },
    /// The client's connection works again.
    Heal {
        /// The client.
        client: ClientIx,
    },
    /// The client's connection carries so many bytes a second, both ways; 0 for no limit.
    Bandwidth {
        /// The client.
        client: ClientIx,
        /// Bytes a second.
        bytes_per_s: u64,
    },
    /// The client reads nothing, or again.
    Reading {
        /// The client.
        client: ClientIx,
        /// Whether it reads.
        on: bool,
    },
    /// The client neither reads, nor writes, nor acknowledges: its machine sleeps.
    Freeze {
        /// The client.
        client: ClientIx,
        /// Whether it does.
        on: bool,
    },
    /// A node does nothing for a while; its monotonic clock goes on.
    Pause {
        /// The node.
        node: NodeIx,
        /// End of the pause.
        until: Instant,
    },
    /// A node's wall clock jumps by milliseconds.
    ClockJump {
        /// The node.
        node: NodeIx,
        /// Milliseconds; negative for back.
        by_ms: i64,
    },
    /// A node's monotonic clock runs faster (or slower) by parts in a million.
    Drift {
        /// The node.
        node: NodeIx,
        /// Parts in a million.
        ppm: i32,
    },
    /// What shards of a node say to one of them takes longer.
    Lag {
        /// The node.
        node: NodeIx,
        /// The shard that hears late.
        shard: u16,
        /// Microseconds more; 0 for the end of it.
        by_us: u64,
    },
    /// The node is gone, with all it had in memory.
    Crash {
        /// The node.
        node: NodeIx,
        /// With a part of what was written and not synced.
        power_loss: bool,
    },
    /// Its disk is full, or not any more.
    DiskFull {
        /// The node.
        node: NodeIx,
        /// Whether it is.
        on: bool,
    },
    /// Its disk syncs slowly.
    DiskSlow {
        /// The node.
        node: NodeIx,
        /// Microseconds more; 0 for the end of it.
        by_us: u64,
    },
    /// Its disk fails to sync.
    DiskFails {
        /// The node.
        node: NodeIx,
    },
    /// A bit has turned on its disk.
    DiskRot {
        /// The node.
        node: NodeIx,
    },
    /// The node starts again.
    Restart {
        /// The node.
        node: NodeIx,
    },
    /// The node was told to stop in order.
    Shutdown {
        /// The node.
        node: NodeIx,
    },
    /// The node's memory is short (`memory.high_watermark`): 0 none, 1 shed, 2 hold.
    MemoryPressure {
        /// The node.
        node: NodeIx,
        /// The level.
        level: u8,
    },
    /// Nothing that one node sends to another arrives any more: bytes of connections wait for [`Fault::LinkHealed`],
    /// datagrams are lost. What goes the other way arrives.
    LinkCut {
        /// Who sends.
        from: NodeIx,
        /// Who hears nothing.
        to: NodeIx,
    },
    /// The end of it.
    LinkHealed {
        /// Who sends.
        from: NodeIx,
        /// Who hears it again.
        to: NodeIx,
    },
    /// What one node sends to another takes longer, and so many bytes a second go; 0 and 0 for the end of it.
    LinkSlow {
        /// Who sends.
        from: NodeIx,
        /// Who hears it late.
        to: NodeIx,
        /// Microseconds more.
        by_us: u64,
        /// Bytes a second, each connection; 0 for what `[net]` says.
        bytes_per_s: u64,
    },
    /// A node that is down has lost its disk: it starts as another node.
    Wipe {
        /// The node.
        node: NodeIx,
    },
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A client has a network connection and sends CONNECT.
    Connect {
        /// The connection.
        conn: ConnIx,
        /// Whose.
        client: ClientIx,
        /// What the packet says.
        facts: Box<ConnectFacts>,
    },
    /// CONNACK arrived.
    Connack {
        /// The connection.
        conn: ConnIx,
        /// Session Present.
        present: bool,
        /// Reason code.
        code: ReasonCode,
        /// Session Expiry Interval that the server uses instead of the one asked for.
        expiry_s: Option<u32>,
        /// When the broker wrote it.
        sent_at: Instant,
    },
    /// A SUBSCRIBE was sent.
    Subscribe {
        /// The connection.
        conn: ConnIx,
        /// Packet Identifier.
        pid: u16,
        /// Subscription Identifier.
        subscription_id: Option<u32>,
        /// The filters, in order.
        filters: Vec<FilterFacts>,
    },
    /// SUBACK arrived.
    Suback {
        /// The connection.
        conn: ConnIx,
        /// Packet Identifier.
        pid: u16,
        /// By filter, in order.
        codes: Vec<ReasonCode>,
        /// When the broker wrote it.
        sent_at: Instant,
    },
    /// An UNSUBSCRIBE was sent.
    Unsubscribe {
        /// The connection.
        conn: ConnIx,
        /// Packet Identifier.
        pid: u16,
        /// The filters, in order.
        filters: Vec<NameIx>,
    },
    /// UNSUBACK arrived.
    Unsuback {
        /// The connection.
        conn: ConnIx,
        /// Packet Identifier.
        pid: u16,
        /// By filter; none before MQTT 5.0.
        codes: Vec<ReasonCode>,
    },
    /// A PUBLISH was sent; one of a client of MQTT-SN when it comes to the gateway, each time.
    Publish {
        /// The connection.
        conn: ConnIx,
        /// What it is.
        facts: PublishFacts,
    },
    /// An acknowledgement of a client's publish arrived: PUBACK, PUBREC, PUBCOMP.
    Acked {
        /// The connection.
        conn: ConnIx,
        /// Which one.
        kind: AckKind,
        /// Packet Identifier.
        pid: u16,
        /// Reason code.
        code: ReasonCode,
        /// When the broker wrote it.
        sent_at: Instant,
    },
    /// The client sent PUBREL for a publish of its own.
    Release {
        /// The connection.
        conn: ConnIx,
        /// Packet Identifier.
        pid: u16,
    },
    /// A PUBLISH arrived.
    Receive {
        /// The connection.
        conn: ConnIx,
        /// What it is.
        facts: ReceiveFacts,
    },
    /// The client acknowledged what it received: PUBACK, PUBREC, PUBCOMP.
    Ack {
        /// The connection.
        conn: ConnIx,
        /// Which one.
        kind: AckKind,
        /// Packet Identifier.
        pid: u16,
        /// Reason code.
        code: ReasonCode,
    },
    /// PUBREL arrived.
    Released {
        /// The connection.
        conn: ConnIx,
        /// Packet Identifier.
        pid: u16,
    },
    /// The client hands a message to its application: with QoS 2 once for each exchange (method B of figure 4.3:
    /// at its PUBLISH, and not again before its PUBREL).
    Handed {
        /// The connection.
        conn: ConnIx,
        /// Which message.
        uid: Uid,
        /// With which QoS it came.
        qos: QoS,
    },
    /// A PINGREQ was sent.
    Pingreq {
        /// The connection.
        conn: ConnIx,
    },
    /// A PINGRESP arrived.
    Pingresp {
        /// The connection.
        conn: ConnIx,
    },
    /// DISCONNECT was sent or arrived.
    Disconnect {
        /// The connection.
        conn: ConnIx,
        /// The client or the server.
        by: Closer,
        /// Reason code.
        code: ReasonCode,
        /// Another Session Expiry Interval, in seconds, by the client.
        expiry_s: Option<u32>,
    },
    /// The connection is over for the client.
    Close {
        /// The connection.
        conn: ConnIx,
        /// Who ended it.
        by: Closer,
    },
    /// MQTT-SN: a client asks for another will, or for none.
    AskWill {
        /// The connection.
        conn: ConnIx,
        /// The will.
        will: Option<WillFacts>,
    },
    /// MQTT-SN: the answer to that came, and was yes.
    WillSet {
        /// The connection.
        conn: ConnIx,
    },
    /// The broker has noticed the end of the connection, if the tier can tell.
    Gone {
        /// The connection.
        conn: ConnIx,
    },
    /// The client sends something that no client may send. What the broker does to this connection is its own affair from
    /// here on.
    Wild {
        /// The connection.
        conn: ConnIx,
        /// What it was, for people.
        what: Arc<str>,
    },
    /// A client received what no broker may send: bytes that are no packet, an answer to nothing.
    Unexpected {
        /// The connection.
        conn: ConnIx,
        /// What and which rule it breaks.
        what: Arc<str>,
    },
    /// A fault begins or ends.
    Fault(Fault),
    /// A node of a cluster starts. A scenario without a cluster has none of these and of those below.
    NodeUp {
        /// The node.
        node: NodeIx,
        /// Who it is for others: another one after each loss of its disk.
        id: NodeId,
        /// Counts its starts since then.
        incarnation: Incarnation,
        /// Where others reach it.
        address: SocketAddr,
    },
    /// A node of a cluster is there no more: it crashed, or has stopped in order.
    NodeDown {
        /// The node.
        node: NodeIx,
    },
    /// What a node says of its cluster, when it says it.
    Cluster {
        /// The node.
        node: NodeIx,
        /// What.
        event: Box<ClusterEvent>,
    },
    /// An operator wants something of a node, as with `newtmq ctl cluster`.
    Command {
        /// The node.
        node: NodeIx,
        /// For the answer: counts the commands of the run, from 1.
        request: RequestId,
        /// What.
        command: ClusterCommand,
    },
    /// A node has answered an operator.
    Answer {
        /// The node.
        node: NodeIx,
        /// What it answers.
        request: RequestId,
        /// What became of it.
        answer: Box<ClusterAnswer>,
    },
    /// No step is left and all faults are over; the broker has time to settle.
    Calm,
    /// It had that time. What is owed by now is lost.
    Quiesce,
}

/// An event and when it happened, in the time of the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamped {
    /// True time, which no node's clock need show.
    pub at: Instant,
    /// What happened.
    pub event: Event,
}

/// Texts that events name by number: topics, filters, Client Identifiers. The first one is number 0.
#[derive(Debug, Default, Clone)]
pub struct Names {
    texts: Vec<Arc<str>>,
    numbers: std::collections::BTreeMap<Arc<str>, NameIx>,
}

impl Names {
    /// The number of a text, a new one if it has none.
    pub fn number(&mut self, text: &str) -> NameIx {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = NameIx(u32::try_from(self.texts.len()).expect("a run has few names"));
        let text: Arc<str> = text.into();
        self.texts.push(Arc::clone(&text));
        self.numbers.insert(text, number);
        number
    }

    /// The text of a number that [`Names::number`] gave.
    ///
    /// # Panics
    /// If it gave no such number.
    #[must_use]
    pub fn text(&self, number: NameIx) -> &str {
        &self.texts[number.0 as usize]
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }
}

/// Everything that happened in a run, kept for reports.
#[derive(Debug, Default, Clone)]
pub struct History {
    /// In order of time.
    pub events: Vec<Stamped>,
    /// Texts that the events name.
    pub names: Names,
}
