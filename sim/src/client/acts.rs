//! Steps of a scenario, carried out: which of them are possible when, and what is wrong on purpose.

use newtmq_base::Instant;
use newtmq_mqtt::{
    Disconnect, DisconnectProperties, Packet, PacketId, ProtocolVersion, QoS, ReasonCode, TopicName, encode_ack,
};

use super::link::Phase;
use super::sending::{packet_type, write};
use super::session::{Stage, Unacked};
use super::{Client, ClientOutput, Context};
use crate::history::{AckKind, Closer, Event};
use crate::scenario::{Act, PublishSpec};

impl Client {
    pub(super) fn carry_out(&mut self, act: &Act, cx: &mut Context<'_>) {
        if self.asleep.is_some() && !works_asleep(act) {
            return;
        }
        if self.must_wait(act) {
            if let Some(link) = &mut self.link {
                link.later.push_back(act.clone());
            }
            return;
        }
        match act {
            Act::Connect { clean, session_expiry_s, node } => self.connect(*clean, *session_expiry_s, *node, cx),
            Act::Disconnect { with_will, session_expiry_s } => self.disconnect(*with_will, *session_expiry_s, cx),
            Act::HangUp => self.break_off(ClientOutput::Close, Closer::Client, cx),
            Act::Reset => self.break_off(ClientOutput::Reset, Closer::Network, cx),
            Act::Vanish => self.break_off(ClientOutput::Abandon, Closer::Network, cx),
            Act::Subscribe { filters, subscription_id } => self.subscribe(filters, *subscription_id, cx),
            Act::Unsubscribe { filters } => self.unsubscribe(filters, cx),
            Act::Publish(spec) => self.publish(spec, cx),
            Act::PublishAgain => self.publish_again(cx),
            Act::PublishTorn { publish, keep } => self.publish_torn(publish, *keep as usize, cx),
            Act::Ping => self.ping(cx),
            Act::SetAcks(acks) => self.set_acks(*acks, cx),
            Act::SetReading(on) => self.set_reading(*on, cx),
            Act::Freeze(true) if self.asleep.is_none() => self.fall_asleep(cx),
            Act::Freeze(true) => {}
            Act::Freeze(false) => self.wake_up(cx),
            Act::StrayAck { kind, pid } => self.stray_ack(*kind, *pid, cx),
            Act::Raw(bytes) => self.send_raw(bytes, cx),
            // Those of MQTT-SN.
            Act::Sleep { .. }
            | Act::Wake { .. }
            | Act::Rebind { .. }
            | Act::SetWill(_)
            | Act::PublishUnconnected(_)
            | Act::Search => {}
        }
    }

    /// Whether a step is for the connection that is being made.
    fn must_wait(&self, act: &Act) -> bool {
        let Some(link) = &self.link else { return false };
        if link.phase != Phase::Opening && link.phase != Phase::Connecting {
            return false;
        }
        match act {
            Act::Connect { .. } => link.later.iter().any(ends_connection),
            Act::HangUp
            | Act::Reset
            | Act::Vanish
            | Act::SetAcks(_)
            | Act::SetReading(_)
            | Act::Freeze(_)
            | Act::Sleep { .. }
            | Act::Wake { .. }
            | Act::Rebind { .. }
            | Act::SetWill(_)
            | Act::PublishUnconnected(_)
            | Act::Search => false,
            Act::Disconnect { .. }
            | Act::Subscribe { .. }
            | Act::Unsubscribe { .. }
            | Act::Publish(_)
            | Act::PublishAgain
            | Act::PublishTorn { .. }
            | Act::Ping
            | Act::StrayAck { .. }
            | Act::Raw(_) => true,
        }
    }

    /// CONNACK came: what waited for it. A step that ends the connection takes what follows along to the next one.
    pub(super) fn carry_out_later(&mut self, cx: &mut Context<'_>) {
        let Some(link) = &mut self.link else { return };
        for act in core::mem::take(&mut link.later) {
            self.carry_out(&act, cx);
        }
    }

    fn connect(&mut self, clean: Option<bool>, session_expiry_s: Option<u32>, node: Option<u16>, cx: &mut Context<'_>) {
        if self.link.is_some() {
            return;
        }
        self.spec.clean = clean.unwrap_or(self.spec.clean);
        self.spec.session_expiry_s = session_expiry_s.unwrap_or(self.spec.session_expiry_s);
        self.spec.node = node.unwrap_or(self.spec.node);
        self.retry.failures = 0;
        self.open(cx);
    }

    fn disconnect(&mut self, with_will: bool, session_expiry_s: Option<u32>, cx: &mut Context<'_>) {
        self.retry.at = Instant::NEVER;
        let Some(link) = self.link.as_mut().filter(|link| link.phase == Phase::Open) else { return };
        let Some(conn) = link.conn else { return };
        let v5 = link.version == ProtocolVersion::V5;
        // From 0 to something is a protocol error (3.14.2.2.2).
        let session_expiry_interval = session_expiry_s.filter(|seconds| v5 && (*seconds == 0 || link.expiry_s > 0));
        if let Some(seconds) = session_expiry_interval {
            link.expiry_s = seconds;
        }
        let code = if with_will && v5 { ReasonCode::DisconnectWithWillMessage } else { ReasonCode::Success };
        let properties = DisconnectProperties { session_expiry_interval, ..DisconnectProperties::default() };
        let packet = Packet::Disconnect(Disconnect { reason_code: code, properties });
        write(&packet, link.version, &mut self.outbox);
        cx.events.push(Event::Disconnect { conn, by: Closer::Client, code, expiry_s: session_expiry_interval });
        self.flush(cx);
        cx.out.push(ClientOutput::Close);
        self.end_connection(Closer::Client, cx);
    }

    /// The end without DISCONNECT. One that hangs up means it; after the others it connects again if it does so at all.
    fn break_off(&mut self, how: ClientOutput, by: Closer, cx: &mut Context<'_>) {
        let Some(link) = &self.link else { return };
        let how = if link.phase == Phase::Opening { ClientOutput::Abandon } else { how };
        self.flush(cx);
        cx.out.push(how);
        self.end_connection(by, cx);
        if by == Closer::Client {
            self.retry.at = Instant::NEVER;
        } else {
            self.try_again_later(cx.now);
        }
        if let Some(asleep) = &mut self.asleep {
            *asleep = super::Asleep::default();
        }
    }

    /// Before MQTT 5.0 a client may send again whenever it likes; after that only on a new connection.
    fn publish_again(&mut self, cx: &mut Context<'_>) {
        let open = self.link.as_ref().is_some_and(|link| link.phase == Phase::Open);
        let last = self.session.unacked.iter().rev().find(|unacked| unacked.stage == Stage::Published).copied();
        let Some(Unacked { pid, mut message, .. }) = last.filter(|_| open) else { return };
        message.alias = 0;
        if self.spec.version == ProtocolVersion::V5 {
            self.go_wild("PUBLISH again on the same connection [MQTT-4.4.0-1]", cx);
        } else if let Some(link) = &mut self.link {
            link.lenient = true;
        }
        self.write_publish(&message, Some(pid), true, cx);
    }

    /// The connection ends in the middle of a PUBLISH. With QoS 1 and 2 the session still has the message.
    fn publish_torn(&mut self, spec: &PublishSpec, keep: usize, cx: &mut Context<'_>) {
        let open = self.link.as_ref().is_some_and(|link| link.phase == Phase::Open);
        if !open || TopicName::new(&spec.topic).is_err() {
            return;
        }
        let mut message = self.message(spec, cx);
        message.alias = 0;
        let mut pid = None;
        if message.qos > QoS::AtMostOnce {
            let Some(link) = &self.link else { return };
            let room = self.session.waiting.is_empty() && self.session.unacked.len() < link.limits.receive_maximum;
            let taken = |pid| link.requests.iter().any(|request| request.pid == pid);
            pid = self.session.free_pid(taken).filter(|_| room && message.qos <= link.limits.maximum_qos);
            if pid.is_none() {
                return;
            }
        }
        self.flush(cx);
        if self.write_publish(&message, pid, false, cx) {
            self.outbox.truncate(keep.max(1));
            if let Some(pid) = pid {
                self.session.unacked.push_back(Unacked { pid, message, stage: Stage::Published });
            }
        }
        self.flush(cx);
        cx.out.push(ClientOutput::Close);
        self.end_connection(Closer::Client, cx);
        self.try_again_later(cx.now);
    }

    /// Not if the server waits for it, since then it is none.
    fn stray_ack(&mut self, kind: AckKind, pid: u16, cx: &mut Context<'_>) {
        let Some(link) = self.link.as_ref().filter(|link| link.phase == Phase::Open) else { return };
        let Some(packet_id) = PacketId::new(pid) else { return };
        let asked_for = match kind {
            AckKind::Puback | AckKind::Pubrec | AckKind::Pubcomp => {
                self.session.is_received(pid) || link.acks.iter().any(|ack| ack.pid == pid)
            }
            AckKind::Pubrel => self.session.position(pid).is_some(),
        };
        if asked_for {
            return;
        }
        let packet_type = packet_type(kind);
        let version = link.version;
        self.go_wild(&format!("{} of nothing", kind.name()), cx);
        encode_ack(packet_type, packet_id, ReasonCode::Success, version, &mut self.outbox);
    }

    fn send_raw(&mut self, bytes: &[u8], cx: &mut Context<'_>) {
        if self.link.as_ref().is_some_and(|link| link.phase == Phase::Open) && !bytes.is_empty() {
            let shown = &bytes[..bytes.len().min(16)];
            let more = if bytes.len() > shown.len() { ".." } else { "" };
            self.go_wild(&format!("{} bytes: {shown:02X?}{more}", bytes.len()), cx);
            self.outbox.extend_from_slice(bytes);
        }
    }

    fn go_wild(&mut self, what: &str, cx: &mut Context<'_>) {
        if let Some(link) = &mut self.link
            && let Some(conn) = link.conn
        {
            link.lenient = true;
            cx.events.push(Event::Wild { conn, what: what.into() });
        }
    }
}

/// Whether a step is possible for a client whose machine sleeps: what happens to it, not what it does.
fn works_asleep(act: &Act) -> bool {
    matches!(act, Act::Freeze(_) | Act::Reset | Act::Vanish | Act::SetAcks(_) | Act::SetReading(_))
}

fn ends_connection(act: &Act) -> bool {
    matches!(act, Act::Disconnect { .. } | Act::PublishTorn { .. })
}
