//! Any packet: proptest makes a [`Pool`] of fields, and a packet borrows from it.

use newtmq_mqtt::{
    Ack, AckProperties, Auth, AuthProperties, Connack, ConnackProperties, Connect, ConnectProperties, Disconnect,
    DisconnectProperties, Packet, PacketId, PacketType, ProtocolVersion, Publish, PublishProperties, QoS, ReasonCode,
    ReasonCodes, RetainHandling, Sender, Suback, Subscribe, SubscribeFilters, SubscribeOptions,
    SubscriptionIdentifiers, TopicFilter, TopicName, Unsuback, Unsubscribe, UnsubscribeFilters, UserProperties, Will,
    WillProperties,
};
use proptest::collection::vec;
use proptest::prelude::*;

/// What the packets of one test case are made of.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    texts: Vec<String>,
    topics: Vec<String>,
    filters: Vec<String>,
    pairs: Vec<(String, String)>,
    blobs: Vec<Vec<u8>>,
    numbers: Vec<u32>,
}

/// References into a [`Pool`], in the form that packets take.
pub(crate) struct Parts<'a> {
    pool: &'a Pool,
    pairs: Vec<(&'a str, &'a str)>,
    identifiers: Vec<u32>,
    filters: Vec<TopicFilter<'a>>,
    subscriptions: Vec<(TopicFilter<'a>, SubscribeOptions)>,
    /// The same with options that MQTT 3.1.1 knows.
    subscriptions_v3: Vec<(TopicFilter<'a>, SubscribeOptions)>,
    suback: Vec<ReasonCode>,
    unsuback: Vec<ReasonCode>,
}

pub(crate) const VERSIONS: [ProtocolVersion; 3] = [ProtocolVersion::V31, ProtocolVersion::V311, ProtocolVersion::V5];

pub(crate) fn pools() -> impl Strategy<Value = Pool> {
    let text = || "[^\0]{0,12}";
    let filter = r"(\$share/[a-z]{1,3}/|\$queue/)?([a-z]{0,3}|\+)(/([a-z]{0,3}|\+)){1,3}(/#)?";
    let payload = prop_oneof![8 => vec(any::<u8>(), 0..40), 1 => vec(any::<u8>(), 16_300..16_500)];
    let blobs = (payload, vec(any::<u8>(), 0..200)).prop_map(|(payload, data)| vec![payload, data]);
    (
        vec(text(), 6),
        vec("[^\0+#]{1,20}", 2),
        vec(filter, 1..5),
        vec((text(), text()), 0..4),
        blobs,
        vec(any::<u32>(), 24),
    )
        .prop_map(|(texts, topics, filters, pairs, blobs, numbers)| Pool {
            texts,
            topics,
            filters,
            pairs,
            blobs,
            numbers,
        })
}

impl Pool {
    pub(crate) fn parts(&self) -> Parts<'_> {
        let filters: Vec<_> = self.filters.iter().map(|text| TopicFilter::new(text).unwrap()).collect();
        let subscriptions: Vec<_> = filters.iter().enumerate().map(|(i, f)| (*f, self.options(i, *f))).collect();
        let plain = |&(filter, options): &(_, SubscribeOptions)| (filter, SubscribeOptions::new(options.qos));
        let subscriptions_v3 = subscriptions.iter().map(plain).collect();
        let codes = |codes: &[u8]| {
            (0..=self.number(1) as usize % 4)
                .map(|i| ReasonCode::from_code(codes[self.number(2 + i) as usize % codes.len()]).unwrap())
                .collect()
        };
        Parts {
            pool: self,
            pairs: self.pairs.iter().map(|(key, value)| (&**key, &**value)).collect(),
            identifiers: (0..self.number(0) as usize % 4).map(|i| self.number(i) % 268_435_455 + 1).collect(),
            filters,
            subscriptions,
            subscriptions_v3,
            suback: codes(&[0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2]),
            unsuback: codes(&[0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91]),
        }
    }

    fn number(&self, index: usize) -> u32 {
        self.numbers[index % self.numbers.len()]
    }

    fn flag(&self, index: usize) -> bool {
        self.number(index) & 0x100 != 0
    }

    fn some<T>(&self, index: usize, value: T) -> Option<T> {
        self.flag(index).then_some(value)
    }

    fn id(&self) -> PacketId {
        PacketId::new(self.number(5) as u16 | 1).unwrap()
    }

    fn options(&self, index: usize, filter: TopicFilter<'_>) -> SubscribeOptions {
        let number = self.number(index + 7);
        let retain_handling = match number >> 4 & 3 {
            0 => RetainHandling::SendAtSubscribe,
            1 => RetainHandling::SendIfNew,
            _ => RetainHandling::DoNotSend,
        };
        SubscribeOptions {
            qos: qos(number),
            // [MQTT-3.8.3-4]
            no_local: number & 0x100 != 0 && filter.share_group().is_none(),
            retain_as_published: number & 0x200 != 0,
            retain_handling,
        }
    }

    fn reason(&self, codes: &[u8]) -> ReasonCode {
        ReasonCode::from_code(codes[self.number(3) as usize % codes.len()]).unwrap()
    }
}

impl<'a> Parts<'a> {
    /// A packet of this type that `version` can express in full. `None`: there is none.
    pub(crate) fn packet(
        &self,
        packet_type: PacketType,
        version: ProtocolVersion,
        sender: Sender,
    ) -> Option<Packet<'_>> {
        let v5 = version == ProtocolVersion::V5;
        let client = sender == Sender::Client;
        Some(match packet_type {
            PacketType::Connect if client => Packet::Connect(self.connect(version)),
            PacketType::Connack if !client => Packet::Connack(self.connack(version)),
            PacketType::Publish => Packet::Publish(self.publish(version, sender)),
            PacketType::Puback => Packet::Puback(self.ack(version, &[0x00, 0x10, 0x80, 0x97])),
            PacketType::Pubrec => Packet::Pubrec(self.ack(version, &[0x00, 0x10, 0x91, 0x99])),
            PacketType::Pubrel => Packet::Pubrel(self.ack(version, &[0x00, 0x92])),
            PacketType::Pubcomp => Packet::Pubcomp(self.ack(version, &[0x00, 0x92])),
            PacketType::Subscribe if client => Packet::Subscribe(self.subscribe(version)),
            PacketType::Suback if !client => Packet::Suback(self.suback(version)),
            PacketType::Unsubscribe if client => Packet::Unsubscribe(Unsubscribe {
                packet_id: self.pool.id(),
                user_properties: self.user(version),
                filters: UnsubscribeFilters::new(&self.filters),
            }),
            PacketType::Unsuback if !client => Packet::Unsuback(Unsuback {
                packet_id: self.pool.id(),
                properties: self.ack_properties(version),
                reason_codes: if v5 { ReasonCodes::new(&self.unsuback) } else { ReasonCodes::default() },
            }),
            PacketType::Pingreq if client => Packet::Pingreq,
            PacketType::Pingresp if !client => Packet::Pingresp,
            PacketType::Disconnect if client || v5 => Packet::Disconnect(self.disconnect(version, sender)),
            PacketType::Auth if v5 => Packet::Auth(self.auth(sender)),
            PacketType::Connect
            | PacketType::Connack
            | PacketType::Subscribe
            | PacketType::Suback
            | PacketType::Unsubscribe
            | PacketType::Unsuback
            | PacketType::Pingreq
            | PacketType::Pingresp
            | PacketType::Disconnect
            | PacketType::Auth => return None,
        })
    }

    fn text(&self, index: usize) -> &'a str {
        &self.pool.texts[index]
    }

    fn some_text(&self, index: usize) -> Option<&'a str> {
        self.pool.some(index, self.text(index))
    }

    fn blob(&self, index: usize) -> &'a [u8] {
        &self.pool.blobs[index]
    }

    fn topic(&self, index: usize) -> TopicName<'a> {
        TopicName::new(&self.pool.topics[index]).unwrap()
    }

    fn user(&self, version: ProtocolVersion) -> UserProperties<'_> {
        if version == ProtocolVersion::V5 { UserProperties::new(&self.pairs) } else { UserProperties::default() }
    }

    fn connect(&self, version: ProtocolVersion) -> Connect<'_> {
        let pool = self.pool;
        let v5 = version == ProtocolVersion::V5;
        let username = self.some_text(0);
        let will_properties = WillProperties {
            delay_interval: pool.number(0),
            payload_format_indicator: pool.some(1, pool.flag(2)),
            message_expiry_interval: pool.some(3, pool.number(3)),
            content_type: self.some_text(2),
            response_topic: pool.some(4, self.topic(1).as_str()),
            correlation_data: pool.some(5, self.blob(1)),
            user_properties: self.user(version),
        };
        let will = Will {
            topic: self.topic(0),
            payload: self.blob(1),
            qos: qos(pool.number(6)),
            retain: pool.flag(7),
            properties: if v5 { will_properties } else { WillProperties::default() },
        };
        let authentication_method = self.some_text(3);
        let properties = ConnectProperties {
            session_expiry_interval: pool.number(8),
            receive_maximum: (pool.number(9) as u16 | 1).try_into().unwrap(),
            maximum_packet_size: pool.some(10, pool.number(10) | 1),
            topic_alias_maximum: pool.number(11) as u16,
            request_response_information: pool.flag(12),
            request_problem_information: pool.flag(13),
            user_properties: self.user(version),
            authentication_method,
            authentication_data: authentication_method.and(pool.some(14, self.blob(1))),
        };
        Connect {
            version,
            clean_start: pool.flag(15),
            keep_alive: pool.number(16) as u16,
            client_id: self.text(1),
            will: pool.some(17, will),
            username,
            // [MQTT-3.1.2-22] of MQTT 3.1.1
            password: if v5 || username.is_some() { pool.some(18, self.blob(1)) } else { None },
            properties: if v5 { properties } else { ConnectProperties::default() },
        }
    }

    fn connack(&self, version: ProtocolVersion) -> Connack<'_> {
        let pool = self.pool;
        if version < ProtocolVersion::V5 {
            let reason_code = pool.reason(&[0x00, 0x84, 0x85, 0x86, 0x87, 0x88]);
            let known = version == ProtocolVersion::V311 && reason_code == ReasonCode::Success;
            return Connack::new(known && pool.flag(0), reason_code);
        }
        let reason_code = pool.reason(&[0x00, 0x80, 0x84, 0x8C, 0x9F]);
        let properties = ConnackProperties {
            session_expiry_interval: pool.some(1, pool.number(1)),
            receive_maximum: (pool.number(2) as u16).try_into().ok(),
            maximum_qos: pool.some(3, if pool.flag(4) { QoS::AtMostOnce } else { QoS::AtLeastOnce }),
            retain_available: pool.some(5, pool.flag(6)),
            maximum_packet_size: pool.some(7, pool.number(7) | 1),
            assigned_client_identifier: self.some_text(0),
            topic_alias_maximum: pool.some(8, pool.number(8) as u16),
            reason_string: self.some_text(1),
            user_properties: self.user(version),
            wildcard_subscription_available: pool.some(9, pool.flag(10)),
            subscription_identifier_available: pool.some(11, pool.flag(12)),
            shared_subscription_available: pool.some(13, pool.flag(14)),
            server_keep_alive: pool.some(15, pool.number(15) as u16),
            response_information: self.some_text(2),
            server_reference: self.some_text(3),
            authentication_method: self.some_text(4),
            authentication_data: pool.some(16, self.blob(1)),
        };
        Connack { session_present: reason_code == ReasonCode::Success && pool.flag(0), reason_code, properties }
    }

    fn publish(&self, version: ProtocolVersion, sender: Sender) -> Publish<'_> {
        let pool = self.pool;
        let qos = qos(pool.number(0));
        let properties = PublishProperties {
            payload_format_indicator: pool.some(1, pool.flag(2)),
            message_expiry_interval: pool.some(3, pool.number(3)),
            topic_alias: (pool.number(4) as u16).try_into().ok(),
            response_topic: pool.some(6, self.topic(1).as_str()),
            correlation_data: pool.some(7, self.blob(1)),
            user_properties: self.user(version),
            subscription_identifiers: match sender {
                Sender::Client => SubscriptionIdentifiers::default(),
                Sender::Server => SubscriptionIdentifiers::new(&self.identifiers),
            },
            content_type: self.some_text(0),
        };
        let properties = if version == ProtocolVersion::V5 { properties } else { PublishProperties::default() };
        let aliased = properties.topic_alias.is_some() && pool.flag(8);
        Publish {
            dup: qos > QoS::AtMostOnce && pool.flag(9),
            qos,
            retain: pool.flag(10),
            topic: if aliased { None } else { Some(self.topic(0)) },
            packet_id: (qos > QoS::AtMostOnce).then_some(pool.id()),
            properties,
            payload: self.blob(0),
        }
    }

    fn ack(&self, version: ProtocolVersion, codes: &[u8]) -> Ack<'_> {
        let reason_code = if version == ProtocolVersion::V5 { self.pool.reason(codes) } else { ReasonCode::Success };
        Ack { packet_id: self.pool.id(), reason_code, properties: self.ack_properties(version) }
    }

    fn ack_properties(&self, version: ProtocolVersion) -> AckProperties<'_> {
        let reason_string = if version == ProtocolVersion::V5 { self.some_text(0) } else { None };
        AckProperties { reason_string, user_properties: self.user(version) }
    }

    fn subscribe(&self, version: ProtocolVersion) -> Subscribe<'_> {
        let v5 = version == ProtocolVersion::V5;
        let identifier = self.identifiers.first().filter(|_| v5);
        Subscribe {
            packet_id: self.pool.id(),
            subscription_identifier: identifier.map(|&number| number.try_into().unwrap()),
            user_properties: self.user(version),
            filters: SubscribeFilters::new(if v5 { &self.subscriptions } else { &self.subscriptions_v3 }),
        }
    }

    fn suback(&self, version: ProtocolVersion) -> Suback<'_> {
        Suback {
            packet_id: self.pool.id(),
            properties: self.ack_properties(version),
            reason_codes: ReasonCodes::new(&self.suback),
        }
    }

    fn disconnect(&self, version: ProtocolVersion, sender: Sender) -> Disconnect<'_> {
        if version < ProtocolVersion::V5 {
            return Disconnect::new(ReasonCode::NORMAL_DISCONNECTION);
        }
        let client = sender == Sender::Client;
        let properties = DisconnectProperties {
            session_expiry_interval: if client { self.pool.some(1, self.pool.number(1)) } else { None },
            reason_string: self.some_text(0),
            user_properties: self.user(version),
            server_reference: self.some_text(1),
        };
        let codes: &[u8] = if client { &[0x00, 0x04, 0x82] } else { &[0x00, 0x82, 0x8E] };
        Disconnect { reason_code: self.pool.reason(codes), properties }
    }

    fn auth(&self, sender: Sender) -> Auth<'_> {
        let codes: &[u8] = if sender == Sender::Client { &[0x18, 0x19] } else { &[0x00, 0x18] };
        let properties = AuthProperties {
            authentication_method: Some(self.text(0)),
            authentication_data: self.pool.some(1, self.blob(1)),
            reason_string: self.some_text(1),
            user_properties: self.user(ProtocolVersion::V5),
        };
        Auth { reason_code: self.pool.reason(codes), properties }
    }
}

fn qos(number: u32) -> QoS {
    QoS::from_bits((number % 3) as u8).unwrap()
}

/// Every packet that the side may send in that version.
pub(crate) fn all<'a>(parts: &'a Parts<'_>, version: ProtocolVersion, sender: Sender) -> Vec<Packet<'a>> {
    (1..16_u8)
        .filter_map(|number| PacketType::from_first_byte(number << 4))
        .filter_map(|packet_type| parts.packet(packet_type, version, sender))
        .collect()
}
