//! Inputs and outputs of a gateway.

use newtmq_base::Instant;
use newtmq_mqtt::QoS;

use crate::address::Endpoint;

/// A connection that the gateway has with the broker for one client, named by the gateway. A name is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId {
    pub(crate) slot: u32,
    pub(crate) serial: u32,
}

/// Everything that can happen to a gateway.
#[derive(Debug)]
pub enum Input<'a> {
    /// Time has passed.
    Tick,
    /// A datagram came.
    Datagram {
        /// From where.
        from: Endpoint,
        /// What.
        data: &'a [u8],
    },
    /// The broker sends bytes on a link: MQTT 5 packets, in any chunking.
    Bytes {
        /// The link.
        link: LinkId,
        /// The bytes.
        data: &'a [u8],
    },
    /// The broker has closed the link, after all that it sent.
    Closed {
        /// The link.
        link: LinkId,
    },
    /// The broker reads nothing from the link, or does so again. What is sent to it meanwhile is kept by the driver; the
    /// gateway sends no more than what ends exchanges that have begun.
    Held {
        /// The link.
        link: LinkId,
        /// Whether it is held.
        held: bool,
    },
    /// What [`Output::Keep`] kept with the session of this link. Comes before the CONNACK, if there is anything.
    Record {
        /// The link.
        link: LinkId,
        /// The same bytes.
        record: &'a [u8],
    },
    /// Answers [`Output::Will`].
    WillSet {
        /// The link.
        link: LinkId,
        /// Whether the broker permits it.
        accepted: bool,
    },
    /// The other gateways of the cluster: GwId and GwAdd, in the form that the network's clients know.
    Gateways(&'a [(u8, Box<[u8]>)]),
}

/// What a gateway asks of its driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send a datagram.
    Datagram {
        /// To where.
        to: Endpoint,
        /// What.
        data: Vec<u8>,
    },
    /// Send a datagram to everybody.
    Broadcast {
        /// What.
        data: Vec<u8>,
    },
    /// Open a connection at the broker; CONNECT follows.
    Open {
        /// Its name.
        link: LinkId,
        /// The client, by which a node finds the shard.
        client: Box<str>,
        /// Where the client is, for the broker's rules.
        peer: Endpoint,
    },
    /// Hand bytes to the broker, whole MQTT 5 packets.
    Bytes {
        /// The link.
        link: LinkId,
        /// The bytes.
        data: Vec<u8>,
    },
    /// Close the connection after what was handed over. There is no answer. Without a DISCONNECT before it the broker
    /// publishes the will.
    Close {
        /// The link.
        link: LinkId,
    },
    /// Replace the will of the link's session; answered by [`Input::WillSet`].
    Will {
        /// The link.
        link: LinkId,
        /// The will, none to delete it.
        will: Option<Will>,
    },
    /// Let the session of this link outlive its connection, as if its CONNECT had said so.
    Outlive {
        /// The link.
        link: LinkId,
        /// Session Expiry Interval in seconds.
        expiry_interval: u32,
    },
    /// Keep this with the session of the link, instead of what was kept before, for as long and as safe as the session.
    Keep {
        /// The link.
        link: LinkId,
        /// Some bytes; see [`crate::RECORD_BYTES_MAX`].
        record: Vec<u8>,
    },
}

/// A will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// A valid Topic Name.
    pub topic: Box<str>,
    /// Will Message.
    pub payload: Box<[u8]>,
    /// Will QoS.
    pub qos: QoS,
    /// Will Retain.
    pub retain: bool,
}

/// Will Delay Interval of every will, in seconds: long enough that a client that goes on at another gateway has not died.
pub const WILL_DELAY_SECS: u32 = 1;

/// Where a client is in the life that the specification gives it (6.14). Disconnected and lost clients are not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientState {
    /// The broker has not answered its CONNECT.
    Connecting,
    /// Connected, and supervised by its Keep Alive.
    Active,
    /// Asleep: what comes for it waits.
    Asleep,
    /// Woken by its PINGREQ until everything that has waited is sent.
    Awake,
}

/// A client, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientView<'a> {
    /// ClientId.
    pub id: &'a str,
    /// Where it is; unknown if another one has its address now.
    pub endpoint: Option<Endpoint>,
    /// Its state.
    pub state: ClientState,
    /// Its link.
    pub link: LinkId,
    /// Keep Alive in seconds; 0 for none.
    pub keep_alive: u16,
    /// Time of sleep in seconds, 0 if it did not go to sleep.
    pub sleep: u16,
    /// When it was heard.
    pub heard: Instant,
    /// Messages that wait for it here.
    pub waiting: usize,
    /// Its topic ids.
    pub topics: usize,
}
