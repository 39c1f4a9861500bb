//! When a node of a cluster takes no messages, or no clients: publishes wait while it does not know for whom they are, and
//! clients are sent to other nodes before it leaves.

use std::collections::{BTreeSet, VecDeque};

use newtmq_base::{ConnId, Instant, planted};
use newtmq_mqtt::{Decoder, Frame, Packet, PacketType, ProtocolVersion, QoS, RawPublish, ReasonCode, Sender};
use newtmq_session::Op;

use super::{NONE, Next, Shard, is_open};
use crate::conn::{Aside, Phase};
use crate::control::ToControl;
use crate::io::{Outbox, Output};

/// Of a connection with so many bytes put aside no more is read; what it sends then has its time from when it is read.
const ASIDE_BYTES: usize = 64 << 10;
/// What a packet that is put aside costs beside its bytes.
const ASIDE_COST_BYTES: usize = 64;

/// What of a connection waits until the node knows for whom its publishes are, in order.
#[derive(Debug, Default)]
pub(crate) struct Asides {
    /// With the time when a publish has waited for long enough.
    packets: VecDeque<(Instant, Aside)>,
    bytes: usize,
    /// The packet that was the first is not done with: the others wait for that.
    pub(super) held: bool,
}

/// What a node in a cluster does not do at times.
#[derive(Debug)]
pub(crate) struct Reluctance {
    /// From then on a publish of QoS 1 or 2 is not matched: somebody's subscriptions may not be known.
    until: Instant,
    /// When the time of such a publish that was put aside is over, and whose it is.
    waiting: BTreeSet<(Instant, ConnId)>,
    /// Connections that are to go, while the node drains.
    leaving: Option<BTreeSet<ConnId>>,
    /// It was told that all have gone.
    drained: bool,
}

impl Default for Reluctance {
    fn default() -> Self {
        Reluctance { until: Instant::NEVER, waiting: BTreeSet::new(), leaving: None, drained: false }
    }
}

impl Reluctance {
    /// Whether a publish that is to be acknowledged has to wait.
    #[inline]
    pub(super) fn holds(&self, now: Instant, qos: QoS) -> bool {
        self.until <= now && qos > QoS::AtMostOnce && !planted!(AckedWithoutTables)
    }

    /// Whether nobody is let in.
    pub(super) fn drains(&self) -> bool {
        self.leaving.is_some()
    }

    /// When the first that waits has waited for long enough.
    pub(super) fn next_deadline(&self) -> Instant {
        self.waiting.first().map_or(Instant::NEVER, |(due, _)| *due)
    }

    /// How many wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

impl Shard {
    /// From when on publishes wait.
    pub(crate) fn on_acknowledge(&mut self, now: Instant, until: Instant, out: &mut Outbox) {
        self.reluctance.until = until;
        if until <= now {
            return;
        }
        for (_, conn) in core::mem::take(&mut self.reluctance.waiting) {
            self.work_aside(now, conn, out);
        }
    }

    /// A publish waits until it is known for whom it is, and all that has to stay behind it. Its time runs from when it came.
    pub(super) fn put_aside(&mut self, now: Instant, conn: ConnId, frame: Frame<'_>) -> Next {
        let due = now + self.config.lanes.ticket_max;
        let asides = self.live(conn).rare().asides.get_or_insert_default();
        asides.packets.push_back((due, frame.bytes.into()));
        asides.bytes += frame.bytes.len() + ASIDE_COST_BYTES;
        let is_full = asides.bytes >= ASIDE_BYTES || planted!(AsideOneByOne);
        self.reluctance.waiting.insert((due, conn));
        if is_full { Next::Hold } else { Next::Go }
    }

    /// A connection ends while something of it is put aside. Nobody is there to hear of what would have to be acknowledged, so
    /// that it counts as not come; but a DISCONNECT behind it counts.
    pub(super) fn hear_farewell(&mut self, conn: ConnId) {
        let c = self.live(conn);
        if !is_open(c) || planted!(FarewellForgotten) {
            return;
        }
        let (version, Some(mut asides)) = (c.version, c.rare.as_mut().and_then(|rare| rare.asides.take())) else {
            return;
        };
        let Some((_, packet)) = asides.packets.pop_back() else { return };
        let (mut decoder, mut bytes) = (Decoder::new(), &packet[..]);
        let Ok(Some(frame)) = decoder.next(&mut bytes, u32::MAX) else { return };
        if let Ok(Packet::Disconnect(disconnect)) = frame.decode(version, Sender::Client) {
            // Its connection is gone, whatever is wrong with it.
            let _ = self.take_farewell(conn, &disconnect);
        }
    }

    /// Whether a PUBREL waits behind its publish, which was repeated and put aside: without its identifier that would be new.
    pub(super) fn stays_behind(&mut self, conn: ConnId, rel: Frame<'_>) -> bool {
        let c = self.live(conn);
        let (version, Some(asides)) = (c.version, c.rare.as_ref().and_then(|rare| rare.asides.as_ref())) else {
            return false;
        };
        let Ok(ack) = rel.ack(version) else { return false };
        let is_its = |(_, packet): &(Instant, Aside)| {
            let (mut decoder, mut bytes) = (Decoder::new(), &packet[..]);
            let Ok(Some(frame)) = decoder.next(&mut bytes, u32::MAX) else { return false };
            frame.packet_type() == PacketType::Publish
                && frame.publish(version).is_ok_and(|publish| publish.packet_id == Some(ack.packet_id))
        };
        asides.packets.iter().any(is_its) && !planted!(RelOvertakesAside)
    }

    /// Those that have waited for long enough are told.
    pub(super) fn expire_aside(&mut self, now: Instant, out: &mut Outbox) {
        while let Some((due, conn)) = self.reluctance.waiting.first().copied().filter(|(due, _)| *due <= now) {
            self.reluctance.waiting.remove(&(due, conn));
            self.work_aside(now, conn, out);
        }
    }

    /// Goes on with what a connection has put aside, as far as it can, or refuses it; then with what it sends.
    pub(super) fn work_aside(&mut self, now: Instant, conn: ConnId, out: &mut Outbox) {
        loop {
            let Some(c) = self.conn_mut(conn).filter(|c| is_open(c)) else { return };
            // Whoever is about to be closed has parted from its session, and gets nothing done any more.
            if c.session == NONE && !planted!(AsideAfterParting) {
                return;
            }
            let version = c.version;
            let Some(asides) = c.rare.as_mut().and_then(|rare| rare.asides.as_mut()) else { return };
            // What is before it, whatever it waits for, goes on first, and comes back here.
            if asides.held && !planted!(AsideOvertakesHeld) {
                return;
            }
            let Some((due, packet)) = asides.packets.front() else { break };
            let (due, packet) = (*due, packet.clone());
            let (mut decoder, mut bytes) = (Decoder::new(), &packet[..]);
            let frame = match decoder.next(&mut bytes, u32::MAX) {
                Ok(Some(frame)) => frame,
                Ok(None) | Err(_) => unreachable!("the packet was decoded before it was put aside"),
            };
            let publish = if frame.packet_type() == PacketType::Publish { frame.publish(version).ok() } else { None };
            let waits = publish.as_ref().filter(|publish| self.reluctance.holds(now, publish.qos));
            if waits.is_some() && due > now {
                self.reluctance.waiting.insert((due, conn));
                return;
            }
            let asides = self.live(conn).rare().asides.get_or_insert_default();
            asides.packets.pop_front();
            asides.bytes -= packet.len() + ASIDE_COST_BYTES;
            let next = match waits {
                Some(publish) => self.give_up_publish(now, conn, publish, ReasonCode::QuotaExceeded, out),
                None => self.on_open_frame(now, conn, frame, out),
            };
            match next {
                Next::Go => {}
                Next::Hold => {
                    if let Some(c) = self.conn_mut(conn).filter(|c| is_open(c)) {
                        c.rare().asides.get_or_insert_default().held = true;
                    }
                    return;
                }
                Next::Stop => return,
            }
        }
        self.live(conn).rare().asides = None;
        self.resume(now, conn, out);
    }

    /// A publish has waited for too long. What was accepted before, and is repeated, stays accepted.
    fn give_up_publish(
        &mut self,
        now: Instant,
        conn: ConnId,
        publish: &RawPublish<'_>,
        reason: ReasonCode,
        out: &mut Outbox,
    ) -> Next {
        if self.live(conn).version != ProtocolVersion::V5 {
            // There is no way to say it; what is not acknowledged comes again.
            return self.reject(now, conn, reason, out);
        }
        let Some(packet_id) = publish.packet_id else { return Next::Go };
        let key = self.live(conn).session;
        if publish.qos == QoS::ExactlyOnce && self.slot(key).session.is_awaiting_rel(packet_id) {
            if !self.is_unconfirmed(conn, key, packet_id) {
                return self.on_repeated_publish(now, conn, publish, packet_id, out);
            }
            // The identifier is free, and its next message is another one [MQTT-4.3.3].
            self.apply(conn, Op::Qos2Rel { packet_id });
            self.release_forwarded(now, key, packet_id);
        }
        if !planted!(AliasOfRefusedForgotten)
            && let Some(next) = self.take_alias(now, conn, publish, out)
        {
            return next;
        }
        let kind = if publish.qos == QoS::ExactlyOnce { PacketType::Pubrec } else { PacketType::Puback };
        self.send_ack(now, conn, kind, packet_id, reason, out);
        Next::Go
    }

    /// Clients are to go to other nodes, or may come again.
    pub(crate) fn on_drain(&mut self, now: Instant, drains: bool, out: &mut Outbox) {
        self.reluctance.drained = false;
        if !drains {
            self.reluctance.leaving = None;
            return;
        }
        let all = self.all_conns();
        self.reluctance.leaving = Some(all.iter().copied().collect());
        for conn in all {
            if self.live(conn).phase == Phase::Open {
                self.reject(now, conn, ReasonCode::UseAnotherServer, out);
            }
        }
        self.tell_drained(out);
    }

    /// A connection has gone, or is another shard's.
    pub(super) fn has_left(&mut self, conn: ConnId, out: &mut Outbox) {
        if let Some(leaving) = &mut self.reluctance.leaving {
            leaving.remove(&conn);
            self.tell_drained(out);
        }
    }

    fn tell_drained(&mut self, out: &mut Outbox) {
        let Reluctance { leaving, drained, .. } = &mut self.reluctance;
        let gone = leaving.as_ref().is_some_and(|leaving| leaving.is_empty() || planted!(DrainedTooEarly));
        if gone && !core::mem::replace(drained, true) {
            out.push(Output::Control(ToControl::Drained));
        }
    }
}
