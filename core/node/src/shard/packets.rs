//! From bytes to packets, and which packet goes to which rule.

use newtmq_base::{ConnId, Instant, ListenerId, planted};
use newtmq_mqtt::{
    Connack, DecodeError, Decoder, Disconnect, ErrorKind, Frame, Packet, PacketType, ProtocolVersion, ReasonCode,
    Sender,
};

use super::{Next, Shard};
use crate::conn::{Feature, Phase};
use crate::io::{MemoryPressure, Outbox, Peer, Taken};
use crate::outbuf::OUTPUT_OWN_BYTES;

/// Most deliveries in one call, in round figures; a connection that makes more goes on at the next Tick.
const TURN_DELIVERIES: usize = 16_384;

impl Shard {
    pub(crate) fn on_opened(
        &mut self,
        now: Instant,
        conn: ConnId,
        listener: ListenerId,
        peer: Peer,
        username: Option<Box<str>>,
        out: &mut Outbox,
    ) {
        self.insert_conn(now, conn, listener, peer, username);
        if self.stopping {
            return self.close(now, conn, ReasonCode::ServerShuttingDown, out);
        }
        self.set_meter(now, conn);
        self.admit(now, conn, listener, out);
    }

    pub(crate) fn on_bytes(&mut self, now: Instant, conn: ConnId, data: &[u8], out: &mut Outbox) -> Taken {
        let all = Taken { bytes: data.len(), hold: false };
        let Some(c) = self.conn_mut(conn) else { return all };
        if c.phase == Phase::Closing {
            return all;
        }
        if c.phase == Phase::AwaitGrant {
            c.held = true;
            return Taken { bytes: 0, hold: true };
        }
        let other = |first: &u8| first >> 4 != PacketType::Connect as u8;
        if c.phase == Phase::AwaitConnect && c.decoder.buffered() == 0 && data.first().is_some_and(other) {
            // Nothing is kept of a packet that cannot be taken anyway [MQTT-3.1.0-1].
            self.close(now, conn, ReasonCode::ProtocolError, out);
            return all;
        }
        // Taken out while packets borrow from it, so that they can be handled with `&mut self`.
        let mut decoder = core::mem::replace(&mut c.decoder, Decoder::new());
        let metered = c.features.has(Feature::Metered);
        let paced = metered || self.pressure == MemoryPressure::Hold;
        let max_packet_size = self.config.mqtt.max_packet_size;
        let data = if metered { &data[..self.affordable(now, conn, data.len())] } else { data };
        let mut rest = data;
        self.spent = 0;
        self.ledger.traffic.bytes_received += data.len() as u64;
        let next = loop {
            match decoder.next(&mut rest, max_packet_size) {
                Ok(Some(frame)) => {
                    let publish = paced && frame.packet_type() == PacketType::Publish;
                    let next = self.on_frame(now, conn, frame, out);
                    match if publish { self.spend_publish(now, conn, frame, next) } else { next } {
                        // Enough for one call: the others have their turn first.
                        Next::Go if self.spent >= TURN_DELIVERIES => {
                            self.turns.push(conn);
                            break Next::Hold;
                        }
                        Next::Go => {}
                        stop @ (Next::Hold | Next::Stop) => break stop,
                    }
                }
                Ok(None) => break Next::Go,
                Err(error) => break self.on_decode_error(now, conn, &error, out),
            }
        };
        if next == Next::Stop {
            return all;
        }
        // A connection that is on its way to another shard takes the rest along.
        let taken = data.len() - rest.len();
        self.ledger.traffic.bytes_received -= rest.len() as u64;
        let Some(c) = self.conn_mut(conn) else {
            let taken = if planted!(BytesAfterConnectLost, !rest.is_empty()) { data.len() } else { taken };
            return Taken { bytes: taken, hold: true };
        };
        c.decoder = decoder;
        let full = c.out.len() >= OUTPUT_OWN_BYTES;
        c.held = next == Next::Hold || full;
        let taken = if planted!(BytesAfterHoldLost, c.held && !rest.is_empty()) { data.len() } else { taken };
        let mut taken = Taken { bytes: taken, hold: c.held };
        if full {
            self.wait_for_itself(now, conn);
        }
        if metered && self.spend_bytes(now, conn, taken.bytes) {
            self.live(conn).held = true;
            taken.hold = true;
        }
        taken
    }

    /// One packet. PUBLISH and the acknowledgements come first: they are nearly all of the traffic.
    pub(crate) fn on_frame(&mut self, now: Instant, conn: ConnId, frame: Frame<'_>, out: &mut Outbox) -> Next {
        let phase = {
            let c = self.live(conn);
            // A whole packet: bytes that never become one do not count for Keep Alive [MQTT-3.1.2-22].
            if !planted!(KeepAliveIgnoresPublish, frame.packet_type() == PacketType::Publish) {
                c.heard = now;
            }
            c.phase
        };
        let kind = frame.packet_type();
        self.ledger.traffic.packets_received[kind as usize] += 1;
        if phase != Phase::Open {
            return self.on_early_frame(now, conn, phase, frame, out);
        }
        let answers = [PacketType::Puback, PacketType::Pubrec, PacketType::Pubrel, PacketType::Pubcomp];
        if self.live(conn).rare.as_ref().is_some_and(|rare| rare.asides.is_some())
            && kind != PacketType::Pingreq
            && (!answers.contains(&kind) || kind == PacketType::Pubrel && self.stays_behind(conn, frame))
        {
            return self.put_aside(now, conn, frame);
        }
        self.on_open_frame(now, conn, frame, out)
    }

    /// A packet of an open session, when its turn has come.
    pub(super) fn on_open_frame(&mut self, now: Instant, conn: ConnId, frame: Frame<'_>, out: &mut Outbox) -> Next {
        let (kind, version) = (frame.packet_type(), self.live(conn).version);
        if kind == PacketType::Publish {
            return match frame.publish(version) {
                Ok(publish) => self.on_publish(now, conn, frame, &publish, out),
                Err(error) => self.on_decode_error(now, conn, &error, out),
            };
        }
        if matches!(kind, PacketType::Puback | PacketType::Pubrec | PacketType::Pubrel | PacketType::Pubcomp) {
            return match frame.ack(version) {
                Ok(ack) => self.on_ack(now, conn, kind, &ack, out),
                Err(error) => self.on_decode_error(now, conn, &error, out),
            };
        }
        match frame.decode(version, Sender::Client) {
            Ok(packet) => self.on_packet(now, conn, frame, &packet, out),
            Err(error) => self.on_decode_error(now, conn, &error, out),
        }
    }

    fn on_packet(
        &mut self,
        now: Instant,
        conn: ConnId,
        frame: Frame<'_>,
        packet: &Packet<'_>,
        out: &mut Outbox,
    ) -> Next {
        match packet {
            Packet::Subscribe(subscribe) => self.on_subscribe(now, conn, frame, subscribe, out),
            Packet::Unsubscribe(unsubscribe) => self.on_unsubscribe(now, conn, unsubscribe, out),
            Packet::Pingreq => self.on_pingreq(now, conn, out),
            Packet::Disconnect(disconnect) => self.on_disconnect(now, conn, disconnect, out),
            Packet::Auth(auth) => self.on_auth(now, conn, auth, out),
            // A second CONNECT [MQTT-3.1.0-2], or packets that only a server sends. What was handled before decoding
            // in full does not get here.
            Packet::Connect(_)
            | Packet::Connack(_)
            | Packet::Publish(_)
            | Packet::Puback(_)
            | Packet::Pubrec(_)
            | Packet::Pubrel(_)
            | Packet::Pubcomp(_)
            | Packet::Suback(_)
            | Packet::Unsuback(_)
            | Packet::Pingresp => self.reject(now, conn, ReasonCode::ProtocolError, out),
        }
    }

    /// Before the session is open: CONNECT, and AUTH while one authenticates [MQTT-3.1.0-1].
    fn on_early_frame(&mut self, now: Instant, conn: ConnId, phase: Phase, frame: Frame<'_>, out: &mut Outbox) -> Next {
        let kind = frame.packet_type();
        match phase {
            Phase::AwaitConnect if kind == PacketType::Connect => self.on_connect(now, conn, frame, out),
            Phase::Authenticating if kind == PacketType::Auth => {
                match frame.decode(ProtocolVersion::V5, Sender::Client) {
                    Ok(Packet::Auth(auth)) => self.on_auth(now, conn, &auth, out),
                    Ok(_) => self.reject_connect(now, conn, ReasonCode::ProtocolError, out),
                    Err(error) => self.reject_connect(now, conn, error.reason, out),
                }
            }
            // A client that gives up while it authenticates.
            Phase::Authenticating | Phase::Claiming if kind == PacketType::Disconnect => {
                self.close(now, conn, ReasonCode::Success, out);
                Next::Stop
            }
            Phase::AwaitGrant
            | Phase::AwaitConnect
            | Phase::Authenticating
            | Phase::Claiming
            | Phase::Open
            | Phase::Closing => {
                self.close(now, conn, ReasonCode::ProtocolError, out);
                Next::Stop
            }
        }
    }

    /// What a packet gets that cannot be understood [MQTT-4.13.1-1].
    pub(crate) fn on_decode_error(
        &mut self,
        now: Instant,
        conn: ConnId,
        error: &DecodeError,
        out: &mut Outbox,
    ) -> Next {
        let c = self.live(conn);
        if c.phase == Phase::AwaitConnect {
            // MQTT 5 may answer with a CONNACK; before, the connection is just closed (3.1.1, 3.1.0).
            match (error.version, error.kind) {
                (_, ErrorKind::UnsupportedVersion) => {
                    return self.refuse_version(now, conn, error, out);
                }
                (Some(ProtocolVersion::V5), _) => {
                    c.version = ProtocolVersion::V5;
                    return self.reject_connect(now, conn, error.reason, out);
                }
                _ => {
                    self.close(now, conn, error.reason, out);
                    return Next::Stop;
                }
            }
        }
        tracing::debug!(%conn, %error, "refused a packet");
        self.reject(now, conn, error.reason, out)
    }

    /// CONNACK 0x01 before MQTT 5, 0x84 from it on [MQTT-3.1.2-2].
    fn refuse_version(&mut self, now: Instant, conn: ConnId, error: &DecodeError, out: &mut Outbox) -> Next {
        self.live(conn).version = error.version.unwrap_or(ProtocolVersion::V311);
        self.reject_connect(now, conn, ReasonCode::UnsupportedProtocolVersion, out)
    }

    /// Answers a refused CONNECT, then closes [MQTT-3.1.4-1].
    pub(crate) fn reject_connect(&mut self, now: Instant, conn: ConnId, reason: ReasonCode, out: &mut Outbox) -> Next {
        let connack = Connack {
            session_present: false,
            reason_code: reason,
            properties: newtmq_mqtt::ConnackProperties::default(),
        };
        self.send(now, conn, &Packet::Connack(connack), out);
        self.close(now, conn, reason, out);
        Next::Stop
    }

    /// Sends an MQTT 5 client a DISCONNECT with the reason, then closes; others are just closed [MQTT-4.13.1-1].
    pub(crate) fn reject(&mut self, now: Instant, conn: ConnId, reason: ReasonCode, out: &mut Outbox) -> Next {
        let kept = self.journal.kept();
        let c = self.live(conn);
        // One whose CONNACK still waits gets another one: nothing comes before it [MQTT-3.2.0-1]. What is stored by now goes out.
        let is_greeted = !c.out.is_barred(kept) && !planted!(GreetedTwice);
        let waits = c.features.has(Feature::Greeting) && !is_greeted;
        if waits && !planted!(DisconnectBeforeConnack, c.version == ProtocolVersion::V5) {
            self.drop_barred(conn);
            if !planted!(GreetedBySilence) {
                let other = reason == ReasonCode::UseAnotherServer;
                let reason = if other { reason } else { ReasonCode::ServerUnavailable };
                return self.reject_connect(now, conn, reason, out);
            }
        } else if c.version == ProtocolVersion::V5 && c.phase == Phase::Open {
            // Nothing may follow the DISCONNECT [MQTT-3.14.4-1], and it waits for nothing.
            self.send_withheld(now, conn, out);
            self.drop_barred(conn);
            let disconnect =
                Disconnect { reason_code: reason, properties: newtmq_mqtt::DisconnectProperties::default() };
            self.send(now, conn, &Packet::Disconnect(disconnect), out);
        }
        self.close(now, conn, reason, out);
        Next::Stop
    }

    /// Encodes a packet into the connection's output. Says whether it fits the client's Maximum Packet Size; what does
    /// not is not sent [MQTT-3.1.2-24].
    pub(crate) fn send(&mut self, now: Instant, conn: ConnId, packet: &Packet<'_>, out: &mut Outbox) -> bool {
        let mut bytes = core::mem::take(&mut self.scratch.block);
        bytes.clear();
        let c = self.conns[conn.slot as usize].as_mut().expect("answers go to connections that are there");
        // What a hook wants sent along may be too large for any packet.
        let encoded = packet.encode(c.version, &mut bytes).is_ok();
        let fits = encoded && bytes.len() as u64 <= u64::from(c.max_packet_size);
        if fits {
            self.ledger.traffic.packets_sent[usize::from(bytes[0] >> 4)] += 1;
            c.out.extend(&bytes, &mut self.pool);
            super::ready(now, c, conn.slot, out);
        }
        self.scratch.block = bytes;
        fits
    }

    /// The same for an answer that the client cannot do without: if it does not fit, the connection is closed.
    pub(crate) fn must_send(&mut self, now: Instant, conn: ConnId, packet: &Packet<'_>, out: &mut Outbox) -> Next {
        if self.send(now, conn, packet, out) {
            return Next::Go;
        }
        self.close(now, conn, ReasonCode::PacketTooLarge, out);
        Next::Stop
    }

    fn on_pingreq(&mut self, now: Instant, conn: ConnId, out: &mut Outbox) -> Next {
        let key = self.live(conn).session;
        // A pinging client is an idle one: a good time to give memory back.
        self.slot(key).session.release();
        self.must_send(now, conn, &Packet::Pingresp, out)
    }
}
