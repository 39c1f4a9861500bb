//! The clients of a demo: some publishers and subscribers at each node, MQTT 5, QoS 1, with sessions that end with their
//! connections. Sockets without blocking in the thread that calls; a client whose node is gone comes back by itself.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use newtmq_mqtt::{
    Ack, Connect, ConnectProperties, Decoder, Packet, PacketId, ProtocolVersion, Publish, PublishProperties, QoS,
    ReasonCode, Sender, Subscribe, SubscribeFilters, SubscribeOptions, TopicFilter, TopicName, UserProperties,
};

use super::ledger::Ledger;

/// All clients.
#[derive(Debug)]
pub struct Load {
    ends: Vec<End>,
    /// From one message of a publisher to its next.
    every: Duration,
    /// When the message was sent that has come last from a publisher to a subscriber, by both.
    newest: Vec<Option<Instant>>,
    subscribers: usize,
    /// What they have sent and got.
    pub ledger: Ledger,
    /// Connections that ended without their client.
    pub dropped: u64,
}

#[derive(Debug)]
struct End {
    kind: Kind,
    id: String,
    node: usize,
    address: SocketAddr,
    stream: Option<TcpStream>,
    decoder: Decoder,
    unsent: Vec<u8>,
    is_ready: bool,
    again_at: Instant,
}

#[derive(Debug)]
enum Kind {
    Publisher { number: usize, topic: String, due: Instant, next_id: u16, under_way: BTreeMap<u16, u64> },
    Subscriber { number: usize },
}

/// What a client has heard.
enum Heard {
    Connected(bool),
    Subscribed,
    Message { publisher: usize, number: u64, id: Option<PacketId> },
    Confirmed(u16, bool),
    Closing,
}

impl Load {
    /// So many publishers and as many subscribers at each of these addresses; each publisher sends so many messages a second.
    pub fn new(nodes: &[SocketAddr], clients: usize, rate: u32, now: Instant) -> Load {
        let mut ends = Vec::new();
        let each = || (0..nodes.len()).flat_map(|node| (0..clients).map(move |of| (node, of)));
        let every = Duration::from_secs(1) / rate.max(1);
        let all = u32::try_from(nodes.len() * clients).unwrap_or(u32::MAX);
        for (number, (node, of)) in each().enumerate() {
            let due = now + every * u32::try_from(number).unwrap_or(0) / all;
            let topic = format!("demo/{}/{}", node + 1, of + 1);
            let kind = Kind::Publisher { number, topic, due, next_id: 1, under_way: BTreeMap::new() };
            ends.push(End::new(kind, format!("publisher-{}-{}", node + 1, of + 1), node, nodes[node], now));
        }
        for (number, (node, of)) in each().enumerate() {
            let kind = Kind::Subscriber { number };
            ends.push(End::new(kind, format!("subscriber-{}-{}", node + 1, of + 1), node, nodes[node], now));
        }
        let places: Vec<usize> = each().map(|(node, _)| node).collect();
        Load {
            ends,
            every,
            newest: vec![None; places.len() * places.len()],
            subscribers: places.len(),
            ledger: Ledger::new(nodes.len(), places.clone(), &places),
            dropped: 0,
        }
    }

    /// Does what there is to do. Clients do not try to reach nodes that `can` says no of.
    pub fn turn(&mut self, now: Instant, can: impl Fn(usize) -> bool) {
        for at in 0..self.ends.len() {
            if !can(self.ends[at].node) && self.ends[at].stream.is_none() {
                continue;
            }
            if self.turn_of(at, now).is_err() {
                self.close(at, now);
            }
        }
    }

    fn turn_of(&mut self, at: usize, now: Instant) -> io::Result<()> {
        let end = &mut self.ends[at];
        if end.stream.is_none() {
            if end.again_at > now {
                return Ok(());
            }
            end.open()?;
        }
        for heard in end.receive()? {
            self.heard(at, heard, now)?;
        }
        self.publish(at, now);
        self.ends[at].send()
    }

    fn close(&mut self, at: usize, now: Instant) {
        let end = &mut self.ends[at];
        self.dropped += u64::from(end.is_ready);
        end.stream = None;
        end.is_ready = false;
        end.again_at = now + AGAIN;
        end.unsent.clear();
        end.decoder = Decoder::new();
        match &mut end.kind {
            Kind::Publisher { number, under_way, .. } => {
                under_way.clear();
                self.ledger.unknown(*number);
            }
            Kind::Subscriber { number } => self.ledger.unsubscribed(*number),
        }
    }

    fn heard(&mut self, at: usize, heard: Heard, now: Instant) -> io::Result<()> {
        let end = &mut self.ends[at];
        match (heard, &mut end.kind) {
            (Heard::Connected(true), Kind::Publisher { .. }) => end.is_ready = true,
            (Heard::Connected(true), Kind::Subscriber { .. }) => {
                let options = SubscribeOptions::new(QoS::AtLeastOnce);
                let filters = [(TopicFilter::new("demo/#").expect("it is a filter"), options)];
                end.put(&Packet::Subscribe(Subscribe {
                    packet_id: PacketId::new(1).expect("1 is not 0"),
                    subscription_identifier: None,
                    user_properties: UserProperties::default(),
                    filters: SubscribeFilters::new(&filters),
                }));
            }
            (Heard::Subscribed, Kind::Subscriber { number }) => {
                end.is_ready = true;
                self.ledger.subscribed(*number, now);
            }
            (Heard::Message { publisher, number, id }, Kind::Subscriber { number: subscriber }) => {
                // Others may publish there, too.
                let ours = publisher < self.subscribers;
                let first = if ours { self.ledger.delivered(*subscriber, publisher, number, now) } else { None };
                if let Some(sent) = first {
                    let newest = &mut self.newest[publisher * self.subscribers + *subscriber];
                    *newest = (*newest).max(Some(sent));
                }
                if let Some(id) = id {
                    end.put(&Packet::Puback(Ack::new(id, ReasonCode::Success)));
                }
            }
            (Heard::Confirmed(id, success), Kind::Publisher { number, under_way, .. }) => {
                if let Some(message) = under_way.remove(&id) {
                    self.ledger.confirmed(*number, message, success, now);
                }
            }
            // It comes back.
            _ => return Err(ErrorKind::ConnectionAborted.into()),
        }
        Ok(())
    }

    fn publish(&mut self, at: usize, now: Instant) {
        let end = &mut self.ends[at];
        let Kind::Publisher { number, topic, due, next_id, under_way } = &mut end.kind else { return };
        if *due > now {
            return;
        }
        // What was missed is not made up for.
        *due = (*due + self.every).max(now);
        if !end.is_ready || under_way.len() >= WINDOW {
            return;
        }
        while under_way.contains_key(next_id) {
            *next_id = next_id.checked_add(1).unwrap_or(1);
        }
        let message = self.ledger.sends(*number, now);
        under_way.insert(*next_id, message);
        let mut payload = [0; PAYLOAD];
        payload[..8].copy_from_slice(&(*number as u64).to_be_bytes());
        payload[8..].copy_from_slice(&message.to_be_bytes());
        let packet = Packet::Publish(Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: Some(TopicName::new(topic).expect("it is a topic")),
            packet_id: PacketId::new(*next_id),
            properties: PublishProperties::default(),
            payload: &payload,
        });
        *next_id = next_id.checked_add(1).unwrap_or(1);
        packet.encode(VERSION, &mut end.unsent).expect("it fits");
    }

    /// Clients at a node that are ready, and all.
    pub fn at(&self, node: usize) -> (usize, usize) {
        let there = self.ends.iter().filter(|end| end.node == node);
        (there.clone().filter(|end| end.is_ready).count(), there.count())
    }

    /// Whether every client is ready, and something that was sent after `since` has come from each to each.
    pub fn flows_since(&self, since: Instant) -> bool {
        self.ends.iter().all(|end| end.is_ready) && self.newest.iter().all(|sent| sent.is_some_and(|sent| sent > since))
    }

    /// Nothing new is sent from now on.
    pub fn end_publishing(&mut self) {
        for end in &mut self.ends {
            if let Kind::Publisher { due, .. } = &mut end.kind {
                *due += FOR_EVER;
            }
        }
    }
}

impl End {
    fn new(kind: Kind, id: String, node: usize, address: SocketAddr, now: Instant) -> End {
        End {
            kind,
            id,
            node,
            address,
            stream: None,
            decoder: Decoder::new(),
            unsent: Vec::new(),
            is_ready: false,
            again_at: now,
        }
    }

    fn open(&mut self) -> io::Result<()> {
        let stream = TcpStream::connect_timeout(&self.address, CONNECT_MAX)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        self.stream = Some(stream);
        let id = self.id.clone();
        self.put(&Packet::Connect(Connect {
            version: VERSION,
            clean_start: true,
            keep_alive: 0,
            client_id: &id,
            will: None,
            username: None,
            password: None,
            properties: ConnectProperties::default(),
        }));
        Ok(())
    }

    fn put(&mut self, packet: &Packet<'_>) {
        packet.encode(VERSION, &mut self.unsent).expect("it fits");
    }

    fn send(&mut self) -> io::Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        while !self.unsent.is_empty() {
            match stream.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> io::Result<Vec<Heard>> {
        let mut all = Vec::new();
        let Some(stream) = &mut self.stream else { return Ok(all) };
        let mut buffer = [0; 16 << 10];
        let count = match stream.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(all),
            Err(error) => return Err(error),
        };
        let mut input = &buffer[..count];
        let invalid = |_| io::Error::from(ErrorKind::InvalidData);
        while let Some(frame) = self.decoder.next(&mut input, PACKET_MAX).map_err(invalid)? {
            all.push(heard(&frame.decode(VERSION, Sender::Server).map_err(invalid)?));
        }
        Ok(all)
    }
}

fn heard(packet: &Packet<'_>) -> Heard {
    match packet {
        Packet::Connack(connack) => Heard::Connected(!connack.reason_code.is_error()),
        Packet::Suback(_) => Heard::Subscribed,
        Packet::Puback(ack) => Heard::Confirmed(ack.packet_id.get(), !ack.reason_code.is_error()),
        Packet::Publish(publish) => {
            let Ok(payload) = <[u8; PAYLOAD]>::try_from(publish.payload) else {
                return Heard::Message { publisher: usize::MAX, number: 0, id: publish.packet_id };
            };
            let half = |at: usize| u64::from_be_bytes(*payload[at..].first_chunk().expect("it has 16 bytes"));
            let publisher = usize::try_from(half(0)).unwrap_or(usize::MAX);
            Heard::Message { publisher, number: half(8), id: publish.packet_id }
        }
        _ => Heard::Closing,
    }
}

const VERSION: ProtocolVersion = ProtocolVersion::V5;
const PACKET_MAX: u32 = 1 << 20;
/// Publisher and number.
const PAYLOAD: usize = 16;
/// Messages of a publisher that are not confirmed.
const WINDOW: usize = 32;
/// From the end of a connection to the next attempt.
const AGAIN: Duration = Duration::from_millis(200);
const CONNECT_MAX: Duration = Duration::from_millis(200);
const FOR_EVER: Duration = Duration::from_secs(1_000_000_000);
