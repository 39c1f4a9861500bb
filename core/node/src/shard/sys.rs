//! What the shard tells of itself: its figures, for the control plane, and who comes and goes, under `$SYS`.

use newtmq_base::Instant;
use newtmq_mqtt::{ProtocolVersion, QoS, ReasonCode, TopicFilter};
use newtmq_session::{Message, MessageId, MessageParts};

use super::Shard;
use crate::conn::NONE;
use crate::control::Report;
use crate::io::Outbox;

/// Whether a filter is about the server.
pub(crate) fn is_sys(filter: TopicFilter<'_>) -> bool {
    filter.filter().starts_with("$SYS/")
}

impl Shard {
    pub(crate) fn report(&self) -> Report {
        Report {
            connections: self.conns.iter().flatten().count() as u64,
            sessions: self.sessions.len() as u64,
            subscriptions: self.topics.len() as u64,
            shared_subscriptions: self.shared_subscriptions,
            filters: self.topics.filters() as u64,
            retained: u64::from(self.shares.retained.used),
            stores: self.journal.is_on(),
            store: self.journal.state(),
            ledger: self.ledger,
        }
    }

    /// `$SYS/brokers/NODE/clients/ID/connected`, if anybody listens to anything under `$SYS`.
    pub(crate) fn tell_connected(&mut self, now: Instant, key: u32, clean_start: bool, out: &mut Outbox) {
        if !self.has_sys_listeners() {
            return;
        }
        let Some(slot) = self.sessions.get(key) else { return };
        let Some(Some(c)) = self.conns.get(slot.conn as usize) else { return };
        let version = match c.version {
            ProtocolVersion::V31 => 3,
            ProtocolVersion::V311 => 4,
            ProtocolVersion::V5 => 5,
        };
        let facts = format!(
            "\"ipaddress\":\"{}\",\"clean_start\":{clean_start},\"proto_ver\":{version},\"keepalive\":{},\
             \"expiry_interval\":{},\"connack\":0",
            c.peer.address().ip(),
            c.keep_alive,
            slot.session.expiry_interval(),
        );
        let username = c.rare.as_ref().and_then(|rare| rare.username.clone());
        self.tell_presence(now, key, "connected", username.as_deref(), &facts, out);
    }

    /// `$SYS/brokers/NODE/clients/ID/disconnected`. The caller has seen that somebody listens.
    pub(crate) fn tell_disconnected(
        &mut self,
        now: Instant,
        key: u32,
        username: Option<&str>,
        reason: ReasonCode,
        out: &mut Outbox,
    ) {
        let facts = format!("\"reason\":\"{reason}\"");
        self.tell_presence(now, key, "disconnected", username, &facts, out);
    }

    fn tell_presence(
        &mut self,
        now: Instant,
        key: u32,
        event: &str,
        username: Option<&str>,
        facts: &str,
        out: &mut Outbox,
    ) {
        let Some(slot) = self.sessions.get(key) else { return };
        let client = slot.session.client().as_str();
        // What cannot be a level of a topic name is shown as what it may be confused with least.
        let level = client.replace(['/', '+', '#'], "_");
        let topic = format!("$SYS/brokers/{}/clients/{level}/{event}", self.config.node_name);
        let millis = self.wall.0 + u64::try_from((now - self.started).as_millis()).unwrap_or(u64::MAX);
        let username = username.map_or("null".to_owned(), quoted);
        let payload =
            format!("{{\"clientid\":{},\"username\":{username},{facts},\"ts\":{}}}", quoted(client), millis / 1000);
        if topic.len() > usize::from(u16::MAX) {
            return;
        }
        let parts = MessageParts {
            id: MessageId::NONE,
            topic: topic.as_bytes(),
            forwardable: &[],
            payload: payload.as_bytes(),
            qos: QoS::AtMostOnce,
            retain: false,
            expires: Instant::NEVER,
            stretched: false,
        };
        let message = Message::new(&parts, &mut self.scratch.block);
        self.publish_message(now, &message, NONE, out);
    }
}

/// As a JSON string.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted += &format!("\\u{:04x}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
