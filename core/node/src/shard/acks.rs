//! Acknowledgements, both ways (section 4.3).

use newtmq_base::{ConnId, Instant, planted};
use newtmq_mqtt::{Ack, PacketId, PacketType, ReasonCode, encode_ack};
use newtmq_session::{AckKind, Applied, Op};

use super::{Next, Shard, ready};
use crate::hooks::Hook;
use crate::io::Outbox;
use crate::ledger::DropReason;

impl Shard {
    /// Sends PUBACK, PUBREC, PUBREL or PUBCOMP. PUBACK and PUBREC wait in line while earlier ones are withheld
    /// [MQTT-4.6.0-2].
    pub(crate) fn send_ack(
        &mut self,
        now: Instant,
        conn: ConnId,
        kind: PacketType,
        packet_id: PacketId,
        reason: ReasonCode,
        out: &mut Outbox,
    ) {
        if matches!(kind, PacketType::Puback | PacketType::Pubrec)
            && self.peers.is_some()
            && self.gate_behind(now, conn, (kind, packet_id, reason))
        {
            return;
        }
        self.send_ack_now(now, conn, kind, packet_id, reason, out);
    }

    /// The same for one that waits for nothing at other nodes.
    pub(super) fn send_ack_now(
        &mut self,
        now: Instant,
        conn: ConnId,
        kind: PacketType,
        packet_id: PacketId,
        reason: ReasonCode,
        out: &mut Outbox,
    ) {
        if kind == PacketType::Pubrec {
            self.watch_rels(now, conn);
            if planted!(Qos2IdFreedEarly) {
                self.apply(conn, Op::Qos2Rel { packet_id });
            }
        }
        let Some(Some(c)) = self.conns.get_mut(conn.slot as usize) else { return };
        let version = c.version;
        if c.rare.is_some() && matches!(kind, PacketType::Puback | PacketType::Pubrec) && (c.waits() || c.withholds()) {
            let withheld = &mut c.rare().withheld;
            // A repeated QoS 2 publish is answered once, when its turn comes.
            if !withheld.iter().any(|(_, other, _)| *other == packet_id) {
                if planted!(AcksReversed, !withheld.is_empty()) {
                    withheld.push_front((kind, packet_id, reason));
                    return;
                }
                withheld.push_back((kind, packet_id, reason));
            }
            return;
        }
        self.ledger.traffic.packets_sent[kind as usize] += 1;
        self.journal.bar_now(c, conn.slot);
        c.out.encode(&mut self.pool, |bytes| encode_ack(kind, packet_id, reason, version, bytes));
        ready(now, c, conn.slot, out);
    }

    pub(crate) fn on_ack(
        &mut self,
        now: Instant,
        conn: ConnId,
        kind: PacketType,
        ack: &Ack<'_>,
        out: &mut Outbox,
    ) -> Next {
        if kind == PacketType::Pubrec {
            return self.on_pubrec(now, conn, ack, out);
        }
        if kind == PacketType::Pubrel {
            return self.on_pubrel(now, conn, ack, out);
        }
        let kind = if kind == PacketType::Pubcomp { AckKind::Pubcomp } else { AckKind::Puback };
        self.on_final_ack(now, conn, ack.packet_id, kind, out)
    }

    /// PUBREC: PUBREL follows, or with an error the delivery is over [MQTT-4.3.3-4], [MQTT-4.3.3-5].
    fn on_pubrec(&mut self, now: Instant, conn: ConnId, ack: &Ack<'_>, out: &mut Outbox) -> Next {
        if ack.reason_code.is_error() {
            return self.on_final_ack(now, conn, ack.packet_id, AckKind::PubrecError, out);
        }
        let reason = match self.apply(conn, Op::PubrecOut { packet_id: ack.packet_id }) {
            Applied::Done => ReasonCode::Success,
            Applied::WrongKind => return self.reject(now, conn, ReasonCode::ProtocolError, out),
            Applied::Nothing | Applied::Dropped(_) => ReasonCode::PacketIdentifierNotFound,
        };
        self.send_ack(now, conn, PacketType::Pubrel, ack.packet_id, reason, out);
        Next::Go
    }

    /// PUBREL: the identifier is free, PUBCOMP answers [MQTT-4.3.3-11].
    fn on_pubrel(&mut self, now: Instant, conn: ConnId, ack: &Ack<'_>, out: &mut Outbox) -> Next {
        let known = self.apply(conn, Op::Qos2Rel { packet_id: ack.packet_id }) == Applied::Done;
        let key = self.live(conn).session;
        self.release_forwarded(now, key, ack.packet_id);
        let reason = if known { ReasonCode::Success } else { ReasonCode::PacketIdentifierNotFound };
        self.send_ack(now, conn, PacketType::Pubcomp, ack.packet_id, reason, out);
        Next::Go
    }

    fn on_final_ack(
        &mut self,
        now: Instant,
        conn: ConnId,
        packet_id: PacketId,
        kind: AckKind,
        out: &mut Outbox,
    ) -> Next {
        match self.apply(conn, Op::Ack { packet_id, kind }) {
            Applied::Done => {}
            Applied::WrongKind => return self.reject(now, conn, ReasonCode::ProtocolError, out),
            // Of nothing: perhaps a late one of a message that was given up. It is passed over.
            Applied::Nothing | Applied::Dropped(_) => return Next::Go,
        }
        match kind {
            AckKind::Puback | AckKind::Pubcomp => self.ledger.delivered += 1,
            AckKind::PubrecError => self.ledger.drop(DropReason::Refused, 1),
        }
        let key = self.live(conn).session;
        self.tell(Hook::MessageAcked, key, None, ReasonCode::Success, out);
        let slot = self.slot(key);
        if slot.session.wants_to_send() || slot.pouring.is_some() {
            self.pump(now, conn, out);
        }
        Next::Go
    }

    /// Applies an operation to the connection's session.
    pub(crate) fn apply(&mut self, conn: ConnId, op: Op<'_>) -> Applied {
        let c = self.live(conn);
        let (key, zone) = (c.session, usize::from(c.zone));
        let limits = self.config.zones[zone].session;
        self.note_op(key, &op);
        let ack = if let Op::Ack { packet_id, kind } = op {
            Some((packet_id, Some(kind)))
        } else if let Op::PubrecOut { packet_id } = op {
            Some((packet_id, None))
        } else {
            None
        };
        let applied = self.slot(key).session.apply(op, &limits);
        if let (Some((packet_id, kind)), Applied::Done) = (ack, applied) {
            self.note_ack(key, packet_id, kind);
        }
        applied
    }
}
