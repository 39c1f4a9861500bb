//! A client that says and hears one packet at a time.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use newtmq_mqtt::{
    Ack, Connect, ConnectProperties, Decoder, Disconnect, Packet, PacketId, ProtocolVersion, Publish,
    PublishProperties, QoS, ReasonCode, Sender, Subscribe, SubscribeFilters, SubscribeOptions, TopicFilter, TopicName,
    UserProperties, Will, WillProperties,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::run::Shared;

/// How a client connects.
#[derive(Debug, Clone)]
pub struct Settings {
    pub id: String,
    pub version: ProtocolVersion,
    pub clean_start: bool,
    pub expiry: u32,
    /// Topic of a will.
    pub will: Option<String>,
}

/// What came.
#[derive(Debug)]
pub enum Heard {
    Message { topic: String, payload: Vec<u8>, qos: QoS, id: Option<PacketId> },
    Other,
}

/// An open connection.
#[derive(Debug)]
pub struct Client {
    version: ProtocolVersion,
    stream: TcpStream,
    decoder: Decoder,
    input: Vec<u8>,
    start: usize,
    shared: Arc<Shared>,
    next_id: u16,
    pub session_present: bool,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shared.connected.fetch_sub(1, Relaxed);
    }
}

const PATIENCE: Duration = Duration::from_secs(60);

impl Client {
    /// # Errors
    /// Whatever keeps it from a CONNACK that says yes.
    pub async fn connect(settings: &Settings, shared: &Arc<Shared>) -> io::Result<Client> {
        let stream = TcpStream::connect(shared.address).await?;
        shared.connected.fetch_add(1, Relaxed);
        shared.connects.fetch_add(1, Relaxed);
        let mut client = Client {
            version: settings.version,
            stream,
            decoder: Decoder::new(),
            input: Vec::new(),
            start: 0,
            shared: Arc::clone(shared),
            next_id: 0,
            session_present: false,
        };
        let will = settings.will.as_ref().map(|topic| Will {
            topic: TopicName::new(topic).expect("a good topic"),
            payload: b"gone",
            qos: QoS::AtLeastOnce,
            retain: false,
            properties: WillProperties::default(),
        });
        let properties = ConnectProperties { session_expiry_interval: settings.expiry, ..ConnectProperties::default() };
        client
            .send(&Packet::Connect(Connect {
                version: settings.version,
                clean_start: settings.clean_start,
                keep_alive: 120,
                client_id: &settings.id,
                will,
                username: None,
                password: None,
                properties,
            }))
            .await?;
        let answer = client.next(|packet| match packet {
            Packet::Connack(connack) => (connack.reason_code, connack.session_present),
            _ => (ReasonCode::ProtocolError, false),
        });
        let (reason, present) = timeout(PATIENCE, answer).await??;
        client.session_present = present;
        if reason == ReasonCode::Success { Ok(client) } else { Err(io::Error::other(reason.to_string())) }
    }

    async fn send(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        let mut bytes = Vec::new();
        packet.encode(self.version, &mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
        self.send_bytes(&bytes).await
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        timeout(PATIENCE, self.stream.write_all(bytes)).await?
    }

    async fn next<T>(&mut self, look: impl FnOnce(&Packet<'_>) -> T) -> io::Result<T> {
        loop {
            let mut input = &self.input[self.start..];
            let frame = self.decoder.next(&mut input, u32::MAX).map_err(|e| io::Error::other(e.to_string()))?;
            if let Some(frame) = frame {
                let packet = frame.decode(self.version, Sender::Server).map_err(|e| io::Error::other(e.to_string()))?;
                let seen = look(&packet);
                self.start = self.input.len() - input.len();
                return Ok(seen);
            }
            self.input.clear();
            self.start = 0;
            let mut buffer = [0; 4096];
            let count = self.stream.read(&mut buffer).await?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.input.extend_from_slice(&buffer[..count]);
        }
    }

    /// The next packet. Messages are not acknowledged by this.
    pub async fn hear(&mut self) -> io::Result<Heard> {
        let heard = self
            .next(|packet| match packet {
                Packet::Publish(publish) => Heard::Message {
                    topic: publish.topic.map(|topic| topic.as_str().to_owned()).unwrap_or_default(),
                    payload: publish.payload.to_vec(),
                    qos: publish.qos,
                    id: publish.packet_id,
                },
                Packet::Pubrec(ack) => Heard::Message {
                    topic: "\0rec".into(),
                    payload: vec![],
                    qos: QoS::ExactlyOnce,
                    id: Some(ack.packet_id),
                },
                Packet::Pubrel(ack) => Heard::Message {
                    topic: "\0rel".into(),
                    payload: vec![],
                    qos: QoS::ExactlyOnce,
                    id: Some(ack.packet_id),
                },
                _ => Heard::Other,
            })
            .await?;
        match heard {
            Heard::Message { ref topic, id: Some(id), .. } if topic == "\0rec" => {
                self.send(&Packet::Pubrel(Ack::new(id, ReasonCode::Success))).await?;
                Ok(Heard::Other)
            }
            Heard::Message { ref topic, id: Some(id), .. } if topic == "\0rel" => {
                self.send(&Packet::Pubcomp(Ack::new(id, ReasonCode::Success))).await?;
                Ok(Heard::Other)
            }
            heard => {
                self.shared.received.fetch_add(u64::from(matches!(heard, Heard::Message { .. })), Relaxed);
                Ok(heard)
            }
        }
    }

    /// Acknowledges a message.
    pub async fn acknowledge(&mut self, qos: QoS, id: Option<PacketId>) -> io::Result<()> {
        let Some(id) = id else { return Ok(()) };
        let ack = Ack::new(id, ReasonCode::Success);
        let packet = if qos == QoS::AtLeastOnce { Packet::Puback(ack) } else { Packet::Pubrec(ack) };
        self.send(&packet).await
    }

    pub async fn subscribe(&mut self, filter: &str, qos: QoS) -> io::Result<()> {
        let filters = [(TopicFilter::new(filter).expect("a good filter"), SubscribeOptions::new(qos))];
        let packet_id = self.id();
        self.send(&Packet::Subscribe(Subscribe {
            packet_id,
            subscription_identifier: None,
            user_properties: UserProperties::default(),
            filters: SubscribeFilters::new(&filters),
        }))
        .await
    }

    fn id(&mut self) -> PacketId {
        self.next_id = self.next_id % 60_000 + 1;
        PacketId::new(self.next_id).expect("not zero")
    }

    /// Returns what the acknowledgement will name.
    pub async fn publish(
        &mut self,
        topic: &str,
        payload: &[u8],
        qos: QoS,
        retain: bool,
    ) -> io::Result<Option<PacketId>> {
        let packet_id = (qos != QoS::AtMostOnce).then(|| self.id());
        let topic = Some(TopicName::new(topic).expect("a good topic"));
        let properties = PublishProperties::default();
        let publish = Publish { dup: false, qos, retain, topic, packet_id, properties, payload };
        self.send(&Packet::Publish(publish)).await?;
        self.shared.sent.fetch_add(1, Relaxed);
        Ok(packet_id)
    }

    /// Says good-bye.
    pub async fn leave(mut self) {
        let _ = self.send(&Packet::Disconnect(Disconnect::new(ReasonCode::NORMAL_DISCONNECTION))).await;
        let _ = self.stream.shutdown().await;
    }
}
