//! A client on a plain socket that does exactly what a test says, also what no library would.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use newtmq_mqtt::{
    Ack, Connect, ConnectProperties, Decoder, Disconnect, Packet, PacketId, ProtocolVersion, Publish,
    PublishProperties, QoS, ReasonCode, Sender, Subscribe, SubscribeFilters, SubscribeOptions, TopicFilter, TopicName,
    UserProperties, Will, WillProperties,
};
use socket2::{Domain, Socket, Type};

use crate::broker::{Broker, DEADLINE};

const VERSION: ProtocolVersion = ProtocolVersion::V5;
/// Larger than anything that a test sends.
const PACKET_MAX: u32 = 64 << 20;

/// An MQTT 5 client. Whatever it waits for fails at the deadline.
pub struct Client {
    pub stream: TcpStream,
    decoder: Decoder,
    frames: VecDeque<Vec<u8>>,
}

/// A PUBLISH as it was received.
#[derive(Debug, PartialEq, Eq)]
pub struct Received {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: QoS,
    pub packet_id: Option<PacketId>,
}

impl Client {
    /// A connection without a CONNECT.
    pub fn open(broker: &Broker) -> Client {
        Client::on(TcpStream::connect(broker.address).unwrap())
    }

    /// A connection whose receive buffer is as small as the system allows.
    pub fn open_small(broker: &Broker) -> Client {
        let socket = Socket::new(Domain::for_address(broker.address), Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(1024).unwrap();
        socket.connect(&broker.address.into()).unwrap();
        Client::on(socket.into())
    }

    /// On a connection to any listener with TCP.
    pub fn on(stream: TcpStream) -> Client {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        Client { stream, decoder: Decoder::new(), frames: VecDeque::new() }
    }

    /// Connected, with a new session that ends with the connection.
    pub fn connect(broker: &Broker, client_id: &str) -> Client {
        Client::open(broker).connected(client_id, None)
    }

    /// Connected with a will: topic and payload.
    pub fn connect_with_will(broker: &Broker, client_id: &str, topic: &str, payload: &[u8]) -> Client {
        let properties = WillProperties::default();
        let topic = TopicName::new(topic).unwrap();
        let will = Will { topic, payload, qos: QoS::AtLeastOnce, retain: false, properties };
        Client::open(broker).connected(client_id, Some(will))
    }

    /// Sends CONNECT and waits for the CONNACK.
    pub fn connected(mut self, client_id: &str, will: Option<Will<'_>>) -> Client {
        self.send(&connect(client_id, will));
        self.accepted();
        self
    }

    /// Waits for a CONNACK without an error.
    pub fn accepted(&mut self) {
        let reason = self.receive(|packet| match packet {
            Packet::Connack(connack) => connack.reason_code,
            other => panic!("{other:?}"),
        });
        assert_eq!(reason, ReasonCode::Success);
    }

    pub fn send(&mut self, packet: &Packet<'_>) {
        self.send_bytes(&encoded(packet));
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next packet.
    pub fn receive<T>(&mut self, look: impl FnOnce(Packet<'_>) -> T) -> T {
        let frame = self.frame().expect("the broker closed the connection");
        look(decoded(&frame))
    }

    /// The next packet's bytes; `None` at the end of the connection, in order or not.
    pub fn frame(&mut self) -> Option<Vec<u8>> {
        let mut buffer = [0; 16 << 10];
        loop {
            if let Some(frame) = self.frames.pop_front() {
                return Some(frame);
            }
            let count = match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            };
            let mut input = &buffer[..count];
            while let Some(frame) = self.decoder.next(&mut input, PACKET_MAX).unwrap() {
                self.frames.push_back(frame.bytes.to_vec());
            }
        }
    }

    /// Waits for a DISCONNECT that is followed by the end of the connection. What comes before it is passed over.
    pub fn disconnected(&mut self) -> ReasonCode {
        loop {
            let reason = self.receive(|packet| match packet {
                Packet::Disconnect(disconnect) => Some(disconnect.reason_code),
                _ => None,
            });
            if let Some(reason) = reason {
                assert_eq!(self.frame(), None, "nothing follows a DISCONNECT");
                // As a client does that reads the end; without it the broker waits for it for a while.
                let _ = self.stream.shutdown(Shutdown::Both);
                return reason;
            }
        }
    }

    /// The connection ends without a packet.
    pub fn closed(&mut self) {
        assert_eq!(self.frame().map(|frame| format!("{:?}", decoded(&frame))), None);
    }

    /// Subscribes and waits for the SUBACK.
    pub fn subscribe(&mut self, filter: &str, qos: QoS) {
        self.send_bytes(&subscribe_bytes(filter, qos));
        self.receive(|packet| match packet {
            Packet::Suback(suback) => assert!(suback.reason_codes.iter().all(|code| !code.is_error()), "{suback:?}"),
            other => panic!("{other:?}"),
        });
    }

    /// Publishes with QoS 0 or 1, and waits for the PUBACK.
    pub fn publish(&mut self, topic: &str, payload: &[u8], qos: QoS) {
        self.send(&publish(topic, payload, qos));
        if qos == QoS::AtLeastOnce {
            let reason = self.receive(|packet| match packet {
                Packet::Puback(ack) => ack.reason_code,
                other => panic!("{other:?}"),
            });
            assert!(!reason.is_error(), "{reason}");
        }
    }

    /// The next packet, which is a PUBLISH; acknowledged if it has QoS 1.
    pub fn message(&mut self) -> Received {
        let message = self.receive(|packet| match packet {
            Packet::Publish(publish) => Received {
                topic: publish.topic.map_or("", TopicName::as_str).to_owned(),
                payload: publish.payload.to_vec(),
                qos: publish.qos,
                packet_id: publish.packet_id,
            },
            other => panic!("{other:?}"),
        });
        if let Some(packet_id) = message.packet_id.filter(|_| message.qos == QoS::AtLeastOnce) {
            self.send(&Packet::Puback(Ack::new(packet_id, ReasonCode::Success)));
        }
        message
    }

    /// PINGREQ, answered.
    pub fn ping(&mut self) {
        self.send(&Packet::Pingreq);
        self.receive(|packet| assert_eq!(packet, Packet::Pingresp));
    }

    /// Leaves in order.
    pub fn disconnect(mut self) {
        self.send(&Packet::Disconnect(Disconnect::new(ReasonCode::NORMAL_DISCONNECTION)));
        self.closed();
    }

    /// Leaves with a reset, as a process does that dies with unread input.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

pub fn connect<'a>(client_id: &'a str, will: Option<Will<'a>>) -> Packet<'a> {
    Packet::Connect(Connect {
        version: VERSION,
        clean_start: true,
        keep_alive: 0,
        client_id,
        will,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
    })
}

pub fn subscribe_bytes(filter: &str, qos: QoS) -> Vec<u8> {
    let filters = [(TopicFilter::new(filter).unwrap(), SubscribeOptions::new(qos))];
    encoded(&Packet::Subscribe(Subscribe {
        packet_id: id(1),
        subscription_identifier: None,
        user_properties: UserProperties::default(),
        filters: SubscribeFilters::new(&filters),
    }))
}

pub fn publish<'a>(topic: &'a str, payload: &'a [u8], qos: QoS) -> Packet<'a> {
    Packet::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic: Some(TopicName::new(topic).unwrap()),
        packet_id: (qos != QoS::AtMostOnce).then(|| id(7)),
        properties: PublishProperties::default(),
        payload,
    })
}

pub fn encoded(packet: &Packet<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.encode(VERSION, &mut bytes).unwrap();
    bytes
}

fn decoded(bytes: &[u8]) -> Packet<'_> {
    let mut input = bytes;
    let mut decoder = Decoder::new();
    let frame = decoder.next(&mut input, PACKET_MAX).unwrap().unwrap();
    let (first, body) = (frame.first, &bytes[bytes.len() - frame.body.len()..]);
    newtmq_mqtt::Frame { first, body, bytes }.decode(VERSION, Sender::Server).unwrap()
}

fn id(value: u16) -> PacketId {
    PacketId::new(value).unwrap()
}
