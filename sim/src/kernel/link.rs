//! A network connection of a client: the two directions, and the states of the driver's and the client's ends. How they
//! change is in the modules of the two ends.

use std::collections::VecDeque;

use newtmq_base::ConnId;
use newtmq_mqtt_sn::LinkId;
use newtmq_node::{CloseCause, Moved, NewWill, WriteBatch};

use super::pipe::Pipe;
use super::purpose;
use crate::draw::Stream;
use crate::history::ConnIx;

/// The driver's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ServerEnd {
    /// The connection is being asked for.
    Asked,
    /// A shard has it, or it is on its way to one.
    Open,
    /// Nobody is there any more who knows of it, and its client was not told.
    Lost,
    /// Closed.
    Closed,
}

/// The client's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientEnd {
    /// It has asked for the connection.
    Asking,
    Open,
    /// Closed, broken or forgotten.
    Gone,
}

/// What a gateway for MQTT-SN says to a shard beside bytes.
#[derive(Debug)]
pub(super) enum Note {
    Will(Option<Box<NewWill>>),
    Keep(Box<[u8]>),
    Outlive(u32),
}

/// What a shard says to it.
#[derive(Debug)]
pub(super) enum Told {
    WillSet(bool),
    Record(Box<[u8]>),
}

/// A network connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) client: u32,
    pub(super) node: u16,
    pub(super) server: ServerEnd,
    pub(super) client_end: ClientEnd,
    /// What the client calls it, from CONNECT on.
    pub(super) ix: Option<ConnIx>,
    pub(super) to_server: Pipe,
    pub(super) to_client: Pipe,
    /// Decides what concerns the whole connection.
    pub(super) chance: Stream,
    /// The shard that has it.
    pub(super) shard: u16,
    pub(super) conn: ConnId,
    /// On its way to another shard.
    pub(super) moving: Option<(u16, Box<Moved>)>,
    /// Bytes that the shard has not taken.
    pub(super) kept: Vec<u8>,
    pub(super) held: bool,
    /// The client's end, delivered after what is kept.
    pub(super) fin: Option<CloseCause>,
    /// The shard said Ready, `fill` has not said Drained.
    pub(super) ready: bool,
    /// What did not find room in the socket.
    pub(super) rest: WriteBatch,
    /// The socket is full; the driver looks again when the client has read.
    pub(super) blocked: bool,
    /// The shard asked to close it.
    pub(super) closing: bool,
    /// What the gateway for MQTT-SN of the node calls it, which has the client's end then.
    pub(super) sn: Option<LinkId>,
    /// What is said beside the bytes, each with its mark among them.
    pub(super) notes: VecDeque<Note>,
    pub(super) told: VecDeque<Told>,
    /// The gateway was told to hold back.
    pub(super) gateway_held: bool,
}

/// What a new link starts from.
pub(super) struct NewLink {
    pub(super) client: u32,
    pub(super) node: u16,
    pub(super) seed: u64,
    /// Of the client's name and how many connections it had.
    pub(super) name: u64,
    /// Toward the server, toward the client.
    pub(super) cut: (bool, bool),
    pub(super) bandwidth: u64,
}

impl Link {
    pub(super) fn new(new: NewLink) -> Link {
        let NewLink { client, node, seed, name, cut, bandwidth } = new;
        Link {
            client,
            node,
            server: ServerEnd::Asked,
            client_end: ClientEnd::Asking,
            ix: None,
            to_server: Pipe::new(Stream::new(seed, purpose::TO_SERVER, name), bandwidth, cut.0),
            to_client: Pipe::new(Stream::new(seed, purpose::TO_CLIENT, name), bandwidth, cut.1),
            chance: Stream::new(seed, purpose::LINK, name),
            shard: 0,
            conn: ConnId { slot: 0, generation: 0 },
            moving: None,
            kept: Vec::new(),
            held: false,
            fin: None,
            ready: false,
            rest: WriteBatch::default(),
            blocked: false,
            closing: false,
            sn: None,
            notes: VecDeque::new(),
            told: VecDeque::new(),
            gateway_held: false,
        }
    }

    /// What comes from the client has to wait: the shard takes no more, or there is none.
    pub(super) fn waits(&self) -> bool {
        self.held || self.moving.is_some() || !self.kept.is_empty()
    }

    /// Nobody is at either end.
    pub(super) fn is_over(&self) -> bool {
        let server = matches!(self.server, ServerEnd::Closed | ServerEnd::Lost);
        server && self.client_end == ClientEnd::Gone
    }

    /// The operating system takes what is written, and nobody gets it: the client's end is closed.
    pub(super) fn swallows(&self) -> bool {
        self.fin == Some(CloseCause::Error) || (self.client_end == ClientEnd::Gone && !self.to_client.is_dead())
    }
}
