//! A scripted client: one network connection as its client sees it. It decodes what the server sends, checks what must
//! hold for every client in every test, answers QoS 1 and 2 by itself (unless told not to), and keeps a log.

use core::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use newtmq_mqtt::{
    Ack, Decoder, Frame, Packet, PacketId, PacketType, ProtocolVersion, QoS, ReasonCode, Sender, TopicFilter, TopicName,
};

use super::packets::{Connack, Connect, Got, Message, encode};

/// A network connection of a client. A client that comes back is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Client(pub(crate) usize);

/// The client's side of a connection.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) settings: Connect,
    decoder: Decoder,
    /// What the test has not taken yet.
    pub(crate) log: Vec<Got>,
    pub(crate) auto_ack: bool,
    pub(crate) connected: bool,
    /// DISCONNECT or a refusal came: nothing but the end may follow.
    over: bool,
    pub(crate) closed: bool,
    next_id: u16,
    /// Packet Identifiers of ours in use.
    in_use: BTreeMap<u16, PacketType>,
    /// The server's publishes that were not acknowledged; whether PUBREC was sent.
    unacked: BTreeMap<u16, bool>,
    aliases: BTreeMap<u16, String>,
    /// Every filter that this Client Identifier ever subscribed to.
    filters: Filters,
}

/// Topic Filters that the connections of one client share.
pub(crate) type Filters = Rc<RefCell<Vec<String>>>;

impl Script {
    pub(crate) fn new(settings: Connect, filters: Filters) -> Script {
        Script {
            auto_ack: settings.auto_ack,
            settings,
            decoder: Decoder::new(),
            log: Vec::new(),
            connected: false,
            over: false,
            closed: false,
            next_id: 0,
            in_use: BTreeMap::new(),
            unacked: BTreeMap::new(),
            aliases: BTreeMap::new(),
            filters,
        }
    }

    /// Filters that the connections of its client share.
    pub(crate) fn filters(&self) -> Filters {
        Rc::clone(&self.filters)
    }

    /// The client counts on messages for these filters.
    pub(crate) fn allow(&self, filters: impl Iterator<Item = String>) {
        self.filters.borrow_mut().extend(filters);
    }

    fn version(&self) -> ProtocolVersion {
        self.settings.version
    }

    /// A free Packet Identifier for a packet of this type, or the given one.
    pub(crate) fn packet_id(&mut self, given: Option<u16>, kind: PacketType) -> u16 {
        let id = given.unwrap_or_else(|| {
            loop {
                self.next_id = self.next_id % u16::MAX + 1;
                if !self.in_use.contains_key(&self.next_id) {
                    break self.next_id;
                }
            }
        });
        self.in_use.insert(id, kind);
        id
    }

    /// The server closed the connection, or it was cut.
    pub(crate) fn on_close(&mut self, by_server: bool) {
        if !self.closed && by_server {
            self.log.push(Got::Closed);
        }
        self.closed = true;
    }

    /// Bytes from the server. Returns what is to be answered.
    pub(crate) fn on_bytes(&mut self, mut data: &[u8]) -> Vec<u8> {
        let mut answer = Vec::new();
        let mut decoder = core::mem::replace(&mut self.decoder, Decoder::new());
        while let Some(frame) = decoder.next(&mut data, u32::MAX).unwrap() {
            self.on_frame(frame, &mut answer);
        }
        self.decoder = decoder;
        answer
    }

    fn on_frame(&mut self, frame: Frame<'_>, answer: &mut Vec<u8>) {
        assert!(!self.over, "a packet after DISCONNECT or a refusal [MQTT-3.14.4-1]");
        let limit = self.settings.max_packet_size.unwrap_or(u32::MAX) as usize;
        assert!(frame.bytes.len() <= limit, "Maximum Packet Size is exceeded [MQTT-3.1.2-24]");
        let version = self.version();
        let packet = frame.decode(version, Sender::Server).unwrap_or_else(|error| {
            // A refusal of the version may come in the format of another one.
            let other = ProtocolVersion::V311;
            frame.decode(other, Sender::Server).unwrap_or_else(|_| panic!("{:?}: {error}", frame.bytes))
        });
        if !self.connected {
            let early = matches!(packet, Packet::Connack(_) | Packet::Auth(_));
            assert!(early, "{packet:?} before CONNACK [MQTT-3.2.0-1]");
        }
        let got = match packet {
            Packet::Connack(connack) => self.on_connack(&connack),
            Packet::Publish(publish) => self.on_publish(&publish, frame.bytes.len(), answer),
            Packet::Puback(ack) => self.on_ack(PacketType::Puback, &ack, answer),
            Packet::Pubrec(ack) => self.on_ack(PacketType::Pubrec, &ack, answer),
            Packet::Pubrel(ack) => self.on_ack(PacketType::Pubrel, &ack, answer),
            Packet::Pubcomp(ack) => self.on_ack(PacketType::Pubcomp, &ack, answer),
            Packet::Suback(suback) => {
                self.answered(suback.packet_id, PacketType::Subscribe);
                self.check_problem_information(suback.properties.reason_string, suback.properties.user_properties);
                Got::Suback(suback.packet_id.get(), suback.reason_codes.iter().collect())
            }
            Packet::Unsuback(unsuback) => {
                self.answered(unsuback.packet_id, PacketType::Unsubscribe);
                Got::Unsuback(unsuback.packet_id.get(), unsuback.reason_codes.iter().collect())
            }
            Packet::Pingresp => Got::Pingresp,
            Packet::Disconnect(disconnect) => {
                self.over = true;
                Got::Disconnect(disconnect.reason_code)
            }
            Packet::Auth(auth) => {
                assert!(self.settings.method.is_some(), "AUTH without a method [MQTT-4.12.0-6]");
                assert_eq!(auth.properties.authentication_method, self.settings.method.as_deref());
                Got::Auth {
                    reason: auth.reason_code,
                    method: auth.properties.authentication_method.map(Into::into),
                    data: auth.properties.authentication_data.map(Into::into),
                }
            }
            other => panic!("a server does not send {other:?}"),
        };
        self.log.push(got);
    }

    fn on_connack(&mut self, connack: &newtmq_mqtt::Connack<'_>) -> Got {
        assert!(!self.connected, "a second CONNACK [MQTT-3.2.0-2]");
        if connack.reason_code.is_error() {
            assert!(!connack.session_present, "[MQTT-3.2.2-6]");
            self.over = true;
        } else {
            self.connected = true;
            let method = self.settings.method.as_deref();
            assert_eq!(connack.properties.authentication_method, method, "[MQTT-4.12.0-5], [MQTT-4.12.0-6]");
        }
        Got::Connack(Box::new(Connack::of(connack)))
    }

    fn on_publish(&mut self, publish: &newtmq_mqtt::Publish<'_>, bytes: usize, answer: &mut Vec<u8>) -> Got {
        let topic = self.topic_of(publish);
        self.check_matches(&topic);
        if publish.qos == QoS::AtMostOnce {
            assert!(!publish.dup, "DUP with QoS 0 [MQTT-3.3.1-2]");
        }
        if let Some(id) = publish.packet_id {
            let id = id.get();
            let before = self.unacked.insert(id, false);
            // Before MQTT 5 a server may send the same message again on the same connection.
            let again = publish.dup && self.version() != ProtocolVersion::V5;
            assert!(before.is_none() || again, "Packet Identifier {id} is in use [MQTT-2.2.1-4]");
            let open = self.unacked.len();
            assert!(open <= usize::from(self.settings.receive_maximum), "Receive Maximum [MQTT-3.3.4-9]");
            if self.auto_ack {
                let kind = if publish.qos == QoS::AtLeastOnce { PacketType::Puback } else { PacketType::Pubrec };
                answer.extend(self.ack(kind, id, ReasonCode::Success));
            }
        }
        Got::Publish(Box::new(Message::of(publish, topic, bytes)))
    }

    /// The Topic Name, from its alias if need be.
    fn topic_of(&mut self, publish: &newtmq_mqtt::Publish<'_>) -> String {
        let name = publish.topic.map(TopicName::as_str);
        let Some(alias) = publish.properties.topic_alias else { return name.unwrap().into() };
        assert!(alias.get() <= self.settings.alias_maximum, "Topic Alias Maximum [MQTT-3.1.2-26]");
        if let Some(name) = name {
            self.aliases.insert(alias.get(), name.into());
        }
        self.aliases.get(&alias.get()).expect("an alias is set before it is used [MQTT-3.3.2-7]").clone()
    }

    fn check_matches(&self, topic: &str) {
        let name = TopicName::new(topic).unwrap();
        let filters = self.filters.borrow();
        let matched = filters.iter().any(|filter| TopicFilter::new(filter).unwrap().matches(name));
        assert!(matched, "{topic} matches none of {filters:?} [MQTT-3.3.2-3]");
    }

    fn on_ack(&mut self, kind: PacketType, ack: &Ack<'_>, answer: &mut Vec<u8>) -> Got {
        let properties = &ack.properties;
        self.check_problem_information(properties.reason_string, properties.user_properties);
        let (id, reason) = (ack.packet_id.get(), ack.reason_code);
        match kind {
            PacketType::Puback => self.answered(ack.packet_id, PacketType::Publish),
            PacketType::Pubrec if reason.is_error() => self.answered(ack.packet_id, PacketType::Publish),
            PacketType::Pubrec => {
                assert!(self.in_use.contains_key(&id), "PUBREC of nothing [MQTT-2.2.1-5]");
                if self.auto_ack {
                    answer.extend(self.ack(PacketType::Pubrel, id, ReasonCode::Success));
                }
            }
            PacketType::Pubcomp => {
                self.in_use.remove(&id);
            }
            PacketType::Pubrel => {
                if self.auto_ack {
                    answer.extend(self.ack(PacketType::Pubcomp, id, ReasonCode::Success));
                }
            }
            _ => unreachable!("an acknowledgement"),
        }
        Got::Ack(kind, id, reason)
    }

    fn answered(&mut self, id: PacketId, kind: PacketType) {
        assert_eq!(self.in_use.remove(&id.get()), Some(kind), "an answer to nothing [MQTT-2.2.1-5], [MQTT-2.2.1-6]");
    }

    fn check_problem_information(&self, reason: Option<&str>, user: newtmq_mqtt::UserProperties<'_>) {
        let quiet = reason.is_none() && user.is_empty();
        assert!(quiet || self.settings.problem_information, "[MQTT-3.1.2-29]");
    }

    /// An acknowledgement by this client.
    pub(crate) fn ack(&mut self, kind: PacketType, id: u16, reason: ReasonCode) -> Vec<u8> {
        match kind {
            PacketType::Puback | PacketType::Pubcomp => {
                self.unacked.remove(&id);
            }
            PacketType::Pubrec if reason.is_error() => {
                self.unacked.remove(&id);
            }
            PacketType::Pubrec => {
                if let Some(released) = self.unacked.get_mut(&id) {
                    *released = true;
                }
            }
            _ => {}
        }
        let ack = Ack::new(PacketId::new(id).unwrap(), reason);
        let packet = match kind {
            PacketType::Puback => Packet::Puback(ack),
            PacketType::Pubrec => Packet::Pubrec(ack),
            PacketType::Pubrel => Packet::Pubrel(ack),
            PacketType::Pubcomp => Packet::Pubcomp(ack),
            _ => unreachable!("an acknowledgement"),
        };
        encode(&packet, self.version())
    }
}
