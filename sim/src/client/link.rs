//! A client's side of one network connection: what it knows of it and forgets with it. It sends nothing.

use std::collections::VecDeque;

use newtmq_base::Instant;
use newtmq_mqtt::{Connack, Decoder, PacketType, ProtocolVersion, QoS, ReasonCode};

use crate::client::topics::Topic;
use crate::history::{AckKind, ConnIx, NameIx};
use crate::scenario::Act;

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The world was asked for a network connection.
    Opening,
    /// CONNECT was sent.
    Connecting,
    /// CONNACK came.
    Open,
    /// A refusal or a DISCONNECT came: nothing but the end may follow.
    Over,
}

/// A SUBSCRIBE or UNSUBSCRIBE that is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) kind: PacketType,
    pub(crate) pid: u16,
    /// How many filters it has.
    pub(crate) filters: usize,
}

/// An acknowledgement that waits for its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PendingAck {
    pub(crate) at: Instant,
    pub(crate) kind: AckKind,
    pub(crate) pid: u16,
    pub(crate) code: ReasonCode,
}

/// What the server said in CONNACK, or what holds without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) receive_maximum: usize,
    pub(crate) max_packet_size: usize,
    pub(crate) topic_alias_maximum: u16,
    pub(crate) maximum_qos: QoS,
    pub(crate) retain_available: bool,
}

impl Limits {
    /// Before MQTT 5.0 there is none; this many exchanges leave Packet Identifiers for other packets.
    const NONE: Limits = Limits {
        receive_maximum: 60_000,
        max_packet_size: usize::MAX,
        topic_alias_maximum: 0,
        maximum_qos: QoS::ExactlyOnce,
        retain_available: true,
    };

    pub(crate) fn of(connack: &Connack<'_>) -> Limits {
        let p = &connack.properties;
        Limits {
            receive_maximum: p.receive_maximum.map_or(60_000, |maximum| usize::from(maximum.get()).min(60_000)),
            max_packet_size: p.maximum_packet_size.map_or(usize::MAX, |bytes| bytes as usize),
            topic_alias_maximum: p.topic_alias_maximum.unwrap_or(0),
            maximum_qos: p.maximum_qos.unwrap_or(QoS::ExactlyOnce),
            retain_available: p.retain_available.unwrap_or(true),
        }
    }
}

/// One network connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) phase: Phase,
    /// Its number, from CONNECT on.
    pub(crate) conn: Option<ConnIx>,
    pub(crate) version: ProtocolVersion,
    /// The client asked for a new session.
    pub(crate) clean: bool,
    /// Session Expiry Interval in force (MQTT 5.0).
    pub(crate) expiry_s: u32,
    /// Keep Alive in force, in seconds.
    pub(crate) keep_alive_s: u16,
    pub(crate) limits: Limits,
    pub(crate) decoder: Decoder,
    /// By alias, of the server's.
    pub(crate) aliases_in: Vec<Option<Topic>>,
    /// By alias, of the client's.
    pub(crate) aliases_out: Vec<Option<NameIx>>,
    pub(crate) acks: VecDeque<PendingAck>,
    pub(crate) requests: Vec<Request>,
    /// PINGREQs that are not answered.
    pub(crate) pings: u32,
    /// When the client gives the connection up: no CONNACK, no PINGRESP, no end after DISCONNECT.
    pub(crate) patience: Instant,
    /// When the last packet was sent: its Keep Alive counts from there, also from CONNECT [MQTT-3.1.2-20].
    pub(crate) last_sent: Instant,
    /// Messages without an acknowledgement that later ones already have.
    pub(crate) overtaken: Vec<u16>,
    /// The session was there before.
    pub(crate) resumed: bool,
    /// The client said something twice, or something wrong: answers may be to that.
    pub(crate) lenient: bool,
    /// What the scenario asked for before CONNACK came.
    pub(crate) later: VecDeque<Act>,
}

impl Link {
    /// A connection that is asked for at `now`.
    pub(crate) fn new(version: ProtocolVersion, patience: Instant) -> Link {
        Link {
            phase: Phase::Opening,
            conn: None,
            version,
            clean: true,
            expiry_s: 0,
            keep_alive_s: 0,
            limits: Limits::NONE,
            decoder: Decoder::new(),
            aliases_in: Vec::new(),
            aliases_out: Vec::new(),
            acks: VecDeque::new(),
            requests: Vec::new(),
            pings: 0,
            patience,
            last_sent: Instant::START,
            overtaken: Vec::new(),
            resumed: false,
            lenient: false,
            later: VecDeque::new(),
        }
    }

    /// Whether the session outlives this connection.
    pub(crate) fn session_lives_on(&self) -> bool {
        if self.version == ProtocolVersion::V5 { self.expiry_s > 0 } else { !self.clean }
    }

    /// When a PINGREQ is due, unless something is sent before: at three quarters of the Keep Alive.
    pub(crate) fn ping_at(&self) -> Instant {
        if self.phase != Phase::Open || self.keep_alive_s == 0 {
            return Instant::NEVER;
        }
        self.last_sent + core::time::Duration::from_millis(u64::from(self.keep_alive_s) * 750)
    }

    /// Takes the request that an answer is for.
    pub(crate) fn answered(&mut self, kind: PacketType, pid: u16) -> Option<Request> {
        let at = self.requests.iter().position(|request| request.kind == kind && request.pid == pid)?;
        Some(self.requests.remove(at))
    }
}
