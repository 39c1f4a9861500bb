//! QoS -1 (6.8): messages of clients without a connection. Whoever has none publishes over one link for all of them, under a
//! Client Identifier of its own, so that the broker's rules can say what it may.

use core::time::Duration;

use newtmq_base::Instant;
use newtmq_mqtt::{Connect, ConnectProperties, Decoder, Packet, ProtocolVersion, Publish, PublishProperties, QoS};
use newtmq_mqtt::{ReasonCode, Sender, TopicName};

use super::{Gateway, Round, hand_over};
use crate::address::Source;
use crate::config::MinusOne;
use crate::io::{ClientState, LinkId, Output};
use crate::{Publish as SnPublish, TopicRef};

/// The slot in the name of the link that all of them share.
const ANONYMOUS: u32 = u32::MAX;
/// Most messages that wait for that link to be accepted.
const WAITING_MAX: usize = 64;
/// How long after its end it is not opened again.
const PAUSE: Duration = Duration::from_secs(5);
/// Largest packet from the broker, which only acknowledges there.
const PACKET_BYTES_MAX: u32 = 1 << 16;

/// The link.
#[derive(Debug)]
pub(super) struct Anonymous {
    link: LinkId,
    decoder: Decoder,
    is_open: bool,
    held: bool,
    /// It has ended, and is not opened again before.
    closed_until: Option<Instant>,
    /// Packets.
    waiting: Vec<Vec<u8>>,
}

impl Gateway {
    pub(super) fn on_minus_one(&mut self, round: &mut Round<'_>, from: Source<'_>, publish: &SnPublish<'_>) {
        let connected = self
            .find_address(from.key())
            .filter(|slot| self.clients.get(*slot).is_some_and(|client| client.state != ClientState::Connecting));
        let permitted = match self.config.minus_one {
            MinusOne::Off => false,
            MinusOne::Connected => connected.is_some(),
            MinusOne::Anybody => true,
        };
        let name = match publish.topic {
            TopicRef::Predefined(id) => self.config.predefined_name(id),
            TopicRef::Short(ref name) => core::str::from_utf8(name).ok(),
            TopicRef::Normal(_) => None,
        };
        let Some(topic) = name.and_then(|name| TopicName::new(name).ok()).filter(|_| permitted) else {
            self.counters.minus_one_dropped += 1;
            return;
        };
        let packet = Packet::Publish(Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: publish.retain,
            topic: Some(topic),
            packet_id: None,
            properties: PublishProperties::default(),
            payload: publish.data,
        });
        if let Some(slot) = connected {
            self.touched = Some(slot);
            if let Some(client) = self.clients.get_mut(slot) {
                if client.held {
                    self.counters.congested_dropped += 1;
                    return;
                }
                if publish.retain && !client.may_retain {
                    self.counters.minus_one_dropped += 1;
                    return;
                }
                client.heard = round.now;
                client.untouched = false;
                let link = client.link;
                self.counters.minus_one += 1;
                hand_over(round, link, &packet);
            }
            return;
        }
        let mut data = Vec::new();
        packet.encode(ProtocolVersion::V5, &mut data).expect("a datagram's fields fit into a packet's");
        self.publish_anonymously(round, from, data);
    }

    fn publish_anonymously(&mut self, round: &mut Round<'_>, from: Source<'_>, data: Vec<u8>) {
        let ended = |anonymous: &Anonymous| anonymous.closed_until.is_some_and(|until| until <= round.now);
        if self.anonymous.as_ref().is_none_or(ended) {
            self.open_anonymous(round, from);
        }
        let Some(anonymous) = &mut self.anonymous else { return };
        let full = anonymous.held || anonymous.waiting.len() >= WAITING_MAX || anonymous.closed_until.is_some();
        if full {
            self.counters.minus_one_dropped += 1;
        } else if anonymous.is_open {
            self.counters.minus_one += 1;
            round.out.push(Output::Bytes { link: anonymous.link, data });
        } else {
            anonymous.waiting.push(data);
        }
    }

    fn open_anonymous(&mut self, round: &mut Round<'_>, from: Source<'_>) {
        let link = self.name_link(ANONYMOUS);
        let client = self.config.minus_one_client.clone();
        round.out.push(Output::Open { link, client: client.clone(), peer: from.endpoint });
        let connect = Packet::Connect(Connect {
            version: ProtocolVersion::V5,
            clean_start: true,
            keep_alive: 0,
            client_id: &client,
            will: None,
            username: self.config.username.as_deref(),
            password: self.config.password.as_deref(),
            properties: ConnectProperties::default(),
        });
        hand_over(round, link, &connect);
        self.anonymous = Some(Anonymous {
            link,
            decoder: Decoder::new(),
            is_open: false,
            held: false,
            closed_until: None,
            waiting: Vec::new(),
        });
    }

    /// Whether the link is this one.
    pub(super) fn is_anonymous(&self, link: LinkId) -> bool {
        self.anonymous.as_ref().is_some_and(|anonymous| anonymous.link == link && anonymous.closed_until.is_none())
    }

    pub(super) fn on_anonymous_bytes(&mut self, round: &mut Round<'_>, mut data: &[u8]) {
        let Some(anonymous) = &mut self.anonymous else { return };
        while let Ok(Some(frame)) = anonymous.decoder.next(&mut data, PACKET_BYTES_MAX) {
            let Ok(Packet::Connack(connack)) = frame.decode(ProtocolVersion::V5, Sender::Server) else { continue };
            if connack.reason_code == ReasonCode::Success {
                anonymous.is_open = true;
                self.counters.minus_one += anonymous.waiting.len() as u64;
                let link = anonymous.link;
                for data in anonymous.waiting.drain(..) {
                    round.out.push(Output::Bytes { link, data });
                }
            }
        }
    }

    pub(super) fn on_anonymous_closed(&mut self, round: &Round<'_>) {
        let Some(anonymous) = &mut self.anonymous else { return };
        self.counters.minus_one_dropped += anonymous.waiting.len() as u64;
        anonymous.waiting = Vec::new();
        anonymous.is_open = false;
        anonymous.closed_until = Some(round.now + PAUSE);
    }

    pub(super) fn on_anonymous_held(&mut self, held: bool) {
        if let Some(anonymous) = &mut self.anonymous {
            anonymous.held = held;
        }
    }
}
