//! Packets as tests write and read them: owned, with defaults.

use core::num::{NonZeroU16, NonZeroU32};

use newtmq_mqtt::{
    ConnectProperties, Packet, PacketId, PacketType, ProtocolVersion, PublishProperties, QoS, ReasonCode,
    RetainHandling, SubscribeFilters, SubscribeOptions, TopicFilter, TopicName, UserProperties, WillProperties,
};

/// A CONNECT to send.
#[derive(Debug, Clone)]
pub(crate) struct Connect {
    pub(crate) version: ProtocolVersion,
    pub(crate) client: String,
    pub(crate) clean: bool,
    pub(crate) keep_alive: u16,
    pub(crate) will: Option<Will>,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Vec<u8>>,
    pub(crate) expiry: u32,
    pub(crate) receive_maximum: u16,
    pub(crate) max_packet_size: Option<u32>,
    pub(crate) alias_maximum: u16,
    pub(crate) problem_information: bool,
    pub(crate) response_information: bool,
    pub(crate) method: Option<String>,
    pub(crate) data: Option<Vec<u8>>,
    /// What follows in the same moment, before any answer.
    pub(crate) and_then: Vec<u8>,
    /// The client acknowledges by itself.
    pub(crate) auto_ack: bool,
}

impl Connect {
    /// MQTT 5.0, Clean Start, no Keep Alive.
    pub(crate) fn v5(client: &str) -> Connect {
        Connect {
            version: ProtocolVersion::V5,
            client: client.into(),
            clean: true,
            keep_alive: 0,
            will: None,
            username: None,
            password: None,
            expiry: 0,
            receive_maximum: u16::MAX,
            max_packet_size: None,
            alias_maximum: 0,
            problem_information: true,
            response_information: false,
            method: None,
            data: None,
            and_then: Vec::new(),
            auto_ack: true,
        }
    }

    pub(crate) fn v311(client: &str) -> Connect {
        Connect { version: ProtocolVersion::V311, ..Connect::v5(client) }
    }

    pub(crate) fn v31(client: &str) -> Connect {
        Connect { version: ProtocolVersion::V31, ..Connect::v5(client) }
    }

    /// Clean Start 0 and, if nothing else was said, an hour of Session Expiry Interval.
    pub(crate) fn resume(mut self) -> Connect {
        self.clean = false;
        if self.expiry == 0 {
            self.expiry = 3600;
        }
        self
    }

    /// Session Expiry Interval in seconds.
    pub(crate) fn expiry(mut self, seconds: u32) -> Connect {
        self.expiry = seconds;
        self
    }

    pub(crate) fn clean_start(mut self, clean: bool) -> Connect {
        self.clean = clean;
        self
    }

    pub(crate) fn keep_alive(mut self, seconds: u16) -> Connect {
        self.keep_alive = seconds;
        self
    }

    pub(crate) fn receive_maximum(mut self, maximum: u16) -> Connect {
        self.receive_maximum = maximum;
        self
    }

    pub(crate) fn max_packet_size(mut self, bytes: u32) -> Connect {
        self.max_packet_size = Some(bytes);
        self
    }

    pub(crate) fn alias_maximum(mut self, maximum: u16) -> Connect {
        self.alias_maximum = maximum;
        self
    }

    pub(crate) fn will(mut self, will: Will) -> Connect {
        self.will = Some(will);
        self
    }

    pub(crate) fn user(mut self, name: &str, password: &str) -> Connect {
        self.username = Some(name.into());
        self.password = Some(password.into());
        self
    }

    pub(crate) fn method(mut self, method: &str, data: &[u8]) -> Connect {
        self.method = Some(method.into());
        self.data = Some(data.into());
        self
    }

    pub(crate) fn no_problem_information(mut self) -> Connect {
        self.problem_information = false;
        self
    }

    pub(crate) fn request_response_information(mut self) -> Connect {
        self.response_information = true;
        self
    }

    /// The test acknowledges, not the client.
    pub(crate) fn manual(mut self) -> Connect {
        self.auto_ack = false;
        self
    }

    /// Bytes sent together with the CONNECT.
    pub(crate) fn and_then(mut self, bytes: Vec<u8>) -> Connect {
        self.and_then.extend(bytes);
        self
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let will_user: Vec<(&str, &str)> = pairs(self.will.as_ref().map_or(&[], |will| &will.message.user));
        let will = self.will.as_ref().map(|will| newtmq_mqtt::Will {
            topic: TopicName::new(&will.message.topic).unwrap(),
            payload: &will.message.payload,
            qos: will.message.qos,
            retain: will.message.retain,
            properties: WillProperties {
                delay_interval: will.delay,
                payload_format_indicator: will.message.format,
                message_expiry_interval: will.message.expiry,
                content_type: will.message.content_type.as_deref(),
                response_topic: will.message.response_topic.as_deref(),
                correlation_data: will.message.correlation.as_deref(),
                user_properties: UserProperties::new(&will_user),
            },
        });
        let connect = newtmq_mqtt::Connect {
            version: self.version,
            clean_start: self.clean,
            keep_alive: self.keep_alive,
            client_id: &self.client,
            will,
            username: self.username.as_deref(),
            password: self.password.as_deref(),
            properties: ConnectProperties {
                session_expiry_interval: self.expiry,
                receive_maximum: NonZeroU16::new(self.receive_maximum).unwrap(),
                maximum_packet_size: self.max_packet_size,
                topic_alias_maximum: self.alias_maximum,
                request_response_information: self.response_information,
                request_problem_information: self.problem_information,
                user_properties: UserProperties::default(),
                authentication_method: self.method.as_deref(),
                authentication_data: self.data.as_deref(),
            },
        };
        let mut bytes = encode(&Packet::Connect(connect), self.version);
        bytes.extend_from_slice(&self.and_then);
        bytes
    }
}

/// A Will Message to send with CONNECT.
#[derive(Debug, Clone)]
pub(crate) struct Will {
    pub(crate) message: Publish,
    pub(crate) delay: u32,
}

impl Will {
    pub(crate) fn new(message: Publish) -> Will {
        Will { message, delay: 0 }
    }

    /// Will Delay Interval in seconds.
    pub(crate) fn delay(mut self, seconds: u32) -> Will {
        self.delay = seconds;
        self
    }
}

/// A PUBLISH to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Publish {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    /// The next free one if there is none.
    pub(crate) id: Option<u16>,
    pub(crate) alias: Option<u16>,
    pub(crate) expiry: Option<u32>,
    pub(crate) format: Option<bool>,
    pub(crate) content_type: Option<String>,
    pub(crate) response_topic: Option<String>,
    pub(crate) correlation: Option<Vec<u8>>,
    pub(crate) user: Vec<(String, String)>,
}

impl Publish {
    /// QoS 0.
    pub(crate) fn new(topic: &str, payload: impl AsRef<[u8]>) -> Publish {
        Publish {
            topic: topic.into(),
            payload: payload.as_ref().to_vec(),
            qos: QoS::AtMostOnce,
            retain: false,
            dup: false,
            id: None,
            alias: None,
            expiry: None,
            format: None,
            content_type: None,
            response_topic: None,
            correlation: None,
            user: Vec::new(),
        }
    }

    pub(crate) fn qos(mut self, qos: QoS) -> Publish {
        self.qos = qos;
        self
    }

    pub(crate) fn qos1(self) -> Publish {
        self.qos(QoS::AtLeastOnce)
    }

    pub(crate) fn qos2(self) -> Publish {
        self.qos(QoS::ExactlyOnce)
    }

    pub(crate) fn retain(mut self) -> Publish {
        self.retain = true;
        self
    }

    pub(crate) fn dup(mut self) -> Publish {
        self.dup = true;
        self
    }

    pub(crate) fn id(mut self, id: u16) -> Publish {
        self.id = Some(id);
        self
    }

    pub(crate) fn alias(mut self, alias: u16) -> Publish {
        self.alias = Some(alias);
        self
    }

    /// Message Expiry Interval in seconds.
    pub(crate) fn expiry(mut self, seconds: u32) -> Publish {
        self.expiry = Some(seconds);
        self
    }

    pub(crate) fn utf8(mut self) -> Publish {
        self.format = Some(true);
        self
    }

    pub(crate) fn user(mut self, name: &str, value: &str) -> Publish {
        self.user.push((name.into(), value.into()));
        self
    }

    /// Every property that a server passes on.
    pub(crate) fn with_all_properties(mut self) -> Publish {
        self.format = Some(true);
        self.content_type = Some("text/plain".into());
        self.response_topic = Some("answers/here".into());
        self.correlation = Some(vec![0, 1, 2, 255]);
        self.user("b", "1").user("a", "2").user("b", "0")
    }

    pub(crate) fn encode(&self, id: Option<u16>, version: ProtocolVersion) -> Vec<u8> {
        let user = pairs(&self.user);
        let publish = newtmq_mqtt::Publish {
            dup: self.dup,
            qos: self.qos,
            retain: self.retain,
            topic: if self.topic.is_empty() { None } else { Some(TopicName::new(&self.topic).unwrap()) },
            packet_id: id.map(|id| PacketId::new(id).unwrap()),
            properties: PublishProperties {
                payload_format_indicator: self.format,
                message_expiry_interval: self.expiry,
                topic_alias: self.alias.map(|alias| NonZeroU16::new(alias).unwrap()),
                response_topic: self.response_topic.as_deref(),
                correlation_data: self.correlation.as_deref(),
                user_properties: UserProperties::new(&user),
                subscription_identifiers: Default::default(),
                content_type: self.content_type.as_deref(),
            },
            payload: &self.payload,
        };
        encode(&Packet::Publish(publish), version)
    }
}

/// A SUBSCRIBE to send.
#[derive(Debug, Clone, Default)]
pub(crate) struct Subscribe {
    pub(crate) filters: Vec<(String, Option<SubscribeOptions>)>,
    pub(crate) identifier: Option<u32>,
}

impl Subscribe {
    pub(crate) fn new(filter: &str, qos: QoS) -> Subscribe {
        Subscribe::default().and(filter, qos)
    }

    pub(crate) fn and(mut self, filter: &str, qos: QoS) -> Subscribe {
        self.filters.push((filter.into(), Some(SubscribeOptions::new(qos))));
        self
    }

    /// Subscription Identifier.
    pub(crate) fn identifier(mut self, identifier: u32) -> Subscribe {
        self.identifier = Some(identifier);
        self
    }

    fn last(&mut self) -> &mut SubscribeOptions {
        self.filters.last_mut().and_then(|(_, options)| options.as_mut()).unwrap()
    }

    /// Of the last filter.
    pub(crate) fn no_local(mut self) -> Subscribe {
        self.last().no_local = true;
        self
    }

    /// Of the last filter.
    pub(crate) fn retain_as_published(mut self) -> Subscribe {
        self.last().retain_as_published = true;
        self
    }

    /// Of the last filter.
    pub(crate) fn handling(mut self, handling: RetainHandling) -> Subscribe {
        self.last().retain_handling = handling;
        self
    }

    pub(crate) fn encode(&self, id: u16, version: ProtocolVersion) -> Vec<u8> {
        let filters: Vec<_> =
            self.filters.iter().map(|(text, options)| (TopicFilter::new(text).unwrap(), options.unwrap())).collect();
        let subscribe = newtmq_mqtt::Subscribe {
            packet_id: PacketId::new(id).unwrap(),
            subscription_identifier: self.identifier.and_then(NonZeroU32::new),
            user_properties: UserProperties::default(),
            filters: SubscribeFilters::new(&filters),
        };
        encode(&Packet::Subscribe(subscribe), version)
    }
}

pub(crate) fn encode(packet: &Packet<'_>, version: ProtocolVersion) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes).unwrap();
    bytes
}

fn pairs(user: &[(String, String)]) -> Vec<(&str, &str)> {
    user.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// What a client received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Got {
    Connack(Box<Connack>),
    Publish(Box<Message>),
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    Ack(PacketType, u16, ReasonCode),
    Suback(u16, Vec<ReasonCode>),
    Unsuback(u16, Vec<ReasonCode>),
    Pingresp,
    Disconnect(ReasonCode),
    Auth {
        reason: ReasonCode,
        method: Option<String>,
        data: Option<Vec<u8>>,
    },
    /// The server closed the network connection.
    Closed,
}

/// A CONNACK received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Connack {
    pub(crate) present: bool,
    pub(crate) reason: ReasonCode,
    pub(crate) receive_maximum: Option<u16>,
    pub(crate) maximum_qos: Option<QoS>,
    pub(crate) retain_available: Option<bool>,
    pub(crate) maximum_packet_size: Option<u32>,
    pub(crate) assigned: Option<String>,
    pub(crate) alias_maximum: Option<u16>,
    pub(crate) wildcards: Option<bool>,
    pub(crate) shared: Option<bool>,
    pub(crate) keep_alive: Option<u16>,
    pub(crate) expiry: Option<u32>,
    pub(crate) response_information: Option<String>,
    pub(crate) method: Option<String>,
    pub(crate) data: Option<Vec<u8>>,
}

impl Connack {
    pub(crate) fn of(connack: &newtmq_mqtt::Connack<'_>) -> Connack {
        let p = &connack.properties;
        Connack {
            present: connack.session_present,
            reason: connack.reason_code,
            receive_maximum: p.receive_maximum.map(NonZeroU16::get),
            maximum_qos: p.maximum_qos,
            retain_available: p.retain_available,
            maximum_packet_size: p.maximum_packet_size,
            assigned: p.assigned_client_identifier.map(Into::into),
            alias_maximum: p.topic_alias_maximum,
            wildcards: p.wildcard_subscription_available,
            shared: p.shared_subscription_available,
            keep_alive: p.server_keep_alive,
            expiry: p.session_expiry_interval,
            response_information: p.response_information.map(Into::into),
            method: p.authentication_method.map(Into::into),
            data: p.authentication_data.map(Into::into),
        }
    }
}

/// A PUBLISH received, its Topic Alias resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) publish: Publish,
    pub(crate) identifiers: Vec<u32>,
    /// Length of the packet.
    pub(crate) bytes: usize,
}

impl Message {
    pub(crate) fn of(publish: &newtmq_mqtt::Publish<'_>, topic: String, bytes: usize) -> Message {
        let p = &publish.properties;
        Message {
            publish: Publish {
                topic,
                payload: publish.payload.into(),
                qos: publish.qos,
                retain: publish.retain,
                dup: publish.dup,
                id: publish.packet_id.map(PacketId::get),
                alias: p.topic_alias.map(NonZeroU16::get),
                expiry: p.message_expiry_interval,
                format: p.payload_format_indicator,
                content_type: p.content_type.map(Into::into),
                response_topic: p.response_topic.map(Into::into),
                correlation: p.correlation_data.map(Into::into),
                user: p.user_properties().map(|(name, value)| (name.into(), value.into())).collect(),
            },
            identifiers: p.subscription_identifiers().collect(),
            bytes,
        }
    }

    pub(crate) fn text(&self) -> String {
        format!("{} {}", self.publish.topic, String::from_utf8_lossy(&self.publish.payload))
    }
}
