//! Gateways in front of a whole shard: the driver's side of both, MQTT clients beside it, and what devices send and get.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use bytes::Buf;
use newtmq_base::{ConnId, Incarnation, Instant, ListenerId, NodeId, ShardId, WallTime};
use newtmq_mqtt::{
    Connect, ConnectProperties, Decoder, Packet, PacketId, PacketType, ProtocolVersion, Publish, PublishProperties,
    QoS, ReasonCode, Sender, Subscribe, SubscribeFilters, SubscribeOptions, TopicFilter, TopicName, UserProperties,
};
use newtmq_mqtt_sn::{
    Config, Datagram, Encapsulation, Endpoint, Gateway, Input, LinkId, Message, Output, WILL_DELAY_SECS,
};
use newtmq_node::{
    Boot, CloseCause, Control, ControlBoot, ControlInput, ControlOutput, Fill, NewWill, Outbox, Output as ShardOutput,
    Shard, ShardConfig, ShardInput, WriteBatch,
};

/// Where a device is, and which gateway it speaks with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) gateway: usize,
    pub(crate) at: Endpoint,
    pub(crate) node: Option<Vec<u8>>,
}

pub(crate) fn device(port: u16) -> Device {
    Device { gateway: 0, at: SocketAddr::from(([192, 0, 2, 1], port)).into(), node: None }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Link(usize, LinkId),
    Mqtt(usize),
}

/// A connection of the shard.
struct Wire {
    conn: ConnId,
    owner: Owner,
    kept: Vec<u8>,
    held: bool,
    fin: bool,
    gone: bool,
}

/// An MQTT client that acknowledges everything.
#[derive(Default)]
struct MqttClient {
    decoder: Decoder,
    wire: usize,
    got: Vec<String>,
    next_id: u16,
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) gateways: Vec<Gateway>,
    shard: Shard,
    control: Control,
    outbox: Outbox,
    wires: Vec<Wire>,
    mqtt: Vec<MqttClient>,
    inboxes: BTreeMap<Endpoint, VecDeque<Vec<u8>>>,
    pub(crate) broadcasts: Vec<Vec<u8>>,
    inputs: VecDeque<(usize, Event)>,
}

enum Event {
    Datagram(Endpoint, Vec<u8>),
    Bytes(LinkId, Vec<u8>),
    Closed(LinkId),
    Held(LinkId, bool),
    Record(LinkId, Vec<u8>),
    WillSet(LinkId, bool),
    Tick,
}

impl World {
    pub(crate) fn new(config: &Config) -> World {
        World::with(config, ShardConfig::default(), 1)
    }

    pub(crate) fn with(config: &Config, shard: ShardConfig, gateways: usize) -> World {
        let now = Instant::from_millis(1);
        let wall = WallTime(1_700_000_000_000);
        let boot = Boot {
            now,
            wall,
            seed: [7; 32],
            node: NodeId(1),
            incarnation: Incarnation(1),
            shard: ShardId(0),
            shards: 1,
            node_seed: 1,
            clustered: false,
            claims: false,
        };
        let control = ControlBoot {
            now,
            wall,
            shards: 1,
            version: "1",
            node: NodeId(1),
            incarnation: Incarnation(1),
            node_seed: 1,
            cluster: None,
        };
        World {
            now,
            gateways: (0..gateways).map(|_| Gateway::new(config.clone(), 1, now)).collect(),
            control: Control::new(&shard, control),
            shard: Shard::new(shard, boot),
            outbox: Outbox::default(),
            wires: Vec::new(),
            mqtt: Vec::new(),
            inboxes: BTreeMap::new(),
            broadcasts: Vec::new(),
            inputs: VecDeque::new(),
        }
    }

    /// A gateway's node dies, and another gateway takes its place.
    pub(crate) fn replace_gateway(&mut self, gateway: usize, config: &Config) {
        self.gateways[gateway] = Gateway::new(config.clone(), 1, self.now);
        self.inputs.clear();
        for at in 0..self.wires.len() {
            let wire = &self.wires[at];
            if matches!(wire.owner, Owner::Link(of, _) if of == gateway) && !wire.gone {
                self.gone(at, CloseCause::Error);
            }
        }
        self.settle();
    }

    /// A device sends a message.
    pub(crate) fn send(&mut self, device: &Device, message: Message<'_>) {
        let forwarded = device.node.as_deref().map(|node| Encapsulation { radius: 0, node });
        let mut bytes = Vec::new();
        Datagram { forwarded, message }.encode(&mut bytes).unwrap();
        self.send_bytes(device, &bytes);
    }

    pub(crate) fn send_bytes(&mut self, device: &Device, bytes: &[u8]) {
        self.inputs.push_back((device.gateway, Event::Datagram(device.at, bytes.to_vec())));
        self.settle();
    }

    /// Datagrams that came for a device since the last call.
    pub(crate) fn take(&mut self, device: &Device) -> Vec<Vec<u8>> {
        self.inboxes.remove(&device.at).unwrap_or_default().into()
    }

    /// The same, which have to be these messages.
    #[track_caller]
    pub(crate) fn expect(&mut self, device: &Device, expected: &[Message<'_>]) {
        let got = self.take(device);
        let node = device.node.as_deref();
        let shown: Vec<_> = got.iter().map(|bytes| Datagram::decode(bytes).unwrap()).collect();
        let messages: Vec<Message<'_>> = shown.iter().map(|datagram| datagram.message).collect();
        assert_eq!(messages, expected);
        assert!(shown.iter().all(|datagram| datagram.forwarded.map(|forwarded| forwarded.node) == node));
    }

    /// A device sends a message and gets these.
    #[track_caller]
    pub(crate) fn exchange(&mut self, device: &Device, message: Message<'_>, expected: &[Message<'_>]) {
        self.send(device, message);
        self.expect(device, expected);
    }

    pub(crate) fn gateway(&self) -> &Gateway {
        &self.gateways[0]
    }

    pub(crate) fn has_record(&self, client: &str) -> bool {
        self.shard.view().kept(client).is_some()
    }

    pub(crate) fn advance(&mut self, time: Duration) {
        let until = self.now + time;
        loop {
            let gateways = self.gateways.iter().filter_map(Gateway::next_deadline);
            let shard = self.shard.next_deadline().map(|(deadline, _)| deadline);
            let next = gateways.chain(shard).chain(self.control.next_deadline()).min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
            self.now = self.now.max(next);
            self.tick();
        }
        self.now = until;
        self.settle();
    }

    pub(crate) fn advance_secs(&mut self, seconds: u64) {
        self.advance(Duration::from_secs(seconds));
    }

    pub(crate) fn tick(&mut self) {
        for gateway in 0..self.gateways.len() {
            self.inputs.push_back((gateway, Event::Tick));
        }
        self.shard_input(ShardInput::Tick);
        let mut outputs = Vec::new();
        self.control.handle(self.now, ControlInput::Tick, &mut outputs);
        self.obey_control(outputs);
        self.settle();
    }

    /// Everything that follows without time passing.
    fn settle(&mut self) {
        loop {
            while let Some((gateway, event)) = self.inputs.pop_front() {
                let mut outputs = Vec::new();
                let input = match &event {
                    Event::Datagram(from, data) => Input::Datagram { from: *from, data },
                    Event::Bytes(link, data) => Input::Bytes { link: *link, data },
                    Event::Closed(link) => Input::Closed { link: *link },
                    Event::Held(link, held) => Input::Held { link: *link, held: *held },
                    Event::Record(link, record) => Input::Record { link: *link, record },
                    Event::WillSet(link, accepted) => Input::WillSet { link: *link, accepted: *accepted },
                    Event::Tick => Input::Tick,
                };
                self.gateways[gateway].handle(self.now, input, &mut outputs);
                for output in outputs {
                    self.obey_gateway(gateway, output);
                }
            }
            match self.shard.next_deadline() {
                Some((deadline, newtmq_node::TimerKind::Work)) if deadline <= self.now => {
                    self.shard_input(ShardInput::Tick);
                }
                _ => break,
            }
        }
        self.shard.view().assert_consistent();
    }

    fn obey_gateway(&mut self, gateway: usize, output: Output) {
        let find = |world: &World, link| {
            world.wires.iter().position(|wire| wire.owner == Owner::Link(gateway, link) && !wire.gone)
        };
        match output {
            Output::Datagram { to, data } => self.inboxes.entry(to).or_default().push_back(data),
            Output::Broadcast { data } => self.broadcasts.push(data),
            Output::Open { link, peer, .. } => {
                self.open(Owner::Link(gateway, link), peer.address());
            }
            Output::Bytes { link, data } => {
                if let Some(at) = find(self, link) {
                    self.feed(at, &data);
                }
            }
            Output::Close { link } => {
                if let Some(at) = find(self, link) {
                    self.wires[at].fin = true;
                    self.feed(at, &[]);
                }
            }
            Output::Will { link, will } => {
                let Some(at) = find(self, link) else { return };
                let will = will.map(|will| {
                    let newtmq_mqtt_sn::Will { topic, payload, qos, retain } = will;
                    Box::new(NewWill { topic, payload, qos, retain, delay_interval: WILL_DELAY_SECS })
                });
                let conn = self.wires[at].conn;
                self.shard_input(ShardInput::SetWill { conn, will });
            }
            Output::Outlive { link, expiry_interval } => {
                let Some(at) = find(self, link) else { return };
                let conn = self.wires[at].conn;
                self.shard_input(ShardInput::Outlive { conn, expiry_interval });
            }
            Output::Keep { link, record } => {
                let Some(at) = find(self, link) else { return };
                let conn = self.wires[at].conn;
                self.shard_input(ShardInput::Keep { conn, record: record.into() });
            }
        }
    }

    fn open(&mut self, owner: Owner, peer: SocketAddr) -> usize {
        let at = self.wires.len();
        let conn = ConnId { slot: at as u32, generation: 1 };
        self.wires.push(Wire { conn, owner, kept: Vec::new(), held: false, fin: false, gone: false });
        let (listener, peer) = (ListenerId(0), newtmq_node::Peer::from(peer));
        self.shard_input(ShardInput::Opened { conn, listener, peer, username: None });
        at
    }

    fn feed(&mut self, at: usize, data: &[u8]) {
        let wire = &mut self.wires[at];
        wire.kept.extend_from_slice(data);
        if wire.held || wire.gone {
            return;
        }
        let (conn, kept) = (wire.conn, core::mem::take(&mut wire.kept));
        if !kept.is_empty() {
            let mut outbox = core::mem::take(&mut self.outbox);
            let taken = self.shard.handle(self.now, ShardInput::Bytes { conn, data: &kept }, &mut outbox);
            self.wires[at].kept = kept[taken.bytes..].to_vec();
            self.hold(at, taken.hold);
            self.outbox = outbox;
            self.obey_shard();
        }
        let wire = &self.wires[at];
        if wire.fin && !wire.held && !wire.gone {
            self.gone(at, CloseCause::Peer);
        }
    }

    fn hold(&mut self, at: usize, held: bool) {
        let wire = &mut self.wires[at];
        if wire.held != held {
            wire.held = held;
            if let Owner::Link(gateway, link) = wire.owner {
                self.inputs.push_back((gateway, Event::Held(link, held)));
            }
        }
    }

    fn gone(&mut self, at: usize, cause: CloseCause) {
        self.wires[at].gone = true;
        let conn = self.wires[at].conn;
        self.shard_input(ShardInput::Closed { conn, cause });
    }

    fn shard_input(&mut self, input: ShardInput<'_>) {
        let mut outbox = core::mem::take(&mut self.outbox);
        self.shard.handle(self.now, input, &mut outbox);
        self.outbox = outbox;
        self.obey_shard();
    }

    fn obey_shard(&mut self) {
        let outputs: Vec<ShardOutput> = self.outbox.drain().collect();
        for output in outputs {
            match output {
                ShardOutput::Ready(conn) => self.fill(conn.slot as usize),
                ShardOutput::Resume(conn) => {
                    self.hold(conn.slot as usize, false);
                    self.feed(conn.slot as usize, &[]);
                }
                ShardOutput::Close { conn, .. } | ShardOutput::Abort(conn) => {
                    let at = conn.slot as usize;
                    if self.wires[at].gone {
                        continue;
                    }
                    self.fill(at);
                    if let Owner::Link(gateway, link) = self.wires[at].owner {
                        self.inputs.push_back((gateway, Event::Closed(link)));
                    }
                    self.gone(at, CloseCause::Asked);
                }
                ShardOutput::Record { conn, record } => {
                    if let Owner::Link(gateway, link) = self.wires[conn.slot as usize].owner {
                        self.inputs.push_back((gateway, Event::Record(link, record.into())));
                    }
                }
                ShardOutput::WillSet { conn, permitted } => {
                    if let Owner::Link(gateway, link) = self.wires[conn.slot as usize].owner {
                        self.inputs.push_back((gateway, Event::WillSet(link, permitted)));
                    }
                }
                ShardOutput::Control(message) => {
                    let mut outputs = Vec::new();
                    let input = ControlInput::Shard { from: ShardId(0), message };
                    self.control.handle(self.now, input, &mut outputs);
                    self.obey_control(outputs);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn obey_control(&mut self, outputs: Vec<ControlOutput>) {
        for output in outputs {
            if let ControlOutput::Shard { message, .. } = output {
                self.shard_input(ShardInput::Control(message));
            }
        }
    }

    fn fill(&mut self, at: usize) {
        let mut data = Vec::new();
        let mut outbox = Outbox::default();
        loop {
            let mut batch = WriteBatch::default();
            let fill = self.shard.fill(self.now, self.wires[at].conn, &mut batch, &mut outbox);
            while batch.has_remaining() {
                data.extend_from_slice(batch.chunk());
                batch.advance(batch.chunk().len());
            }
            if fill == Fill::Drained {
                break;
            }
        }
        let others = core::mem::replace(&mut self.outbox, outbox);
        self.obey_shard();
        for output in { others }.drain() {
            self.outbox.push(output);
        }
        match self.wires[at].owner {
            Owner::Link(gateway, link) => self.inputs.push_back((gateway, Event::Bytes(link, data))),
            Owner::Mqtt(client) => self.on_mqtt_bytes(client, &data),
        }
    }

    /// An MQTT client connects.
    pub(crate) fn mqtt(&mut self, id: &str) -> usize {
        let client = self.mqtt.len();
        let wire = self.open(Owner::Mqtt(client), SocketAddr::from(([192, 0, 2, 9], 9)));
        self.mqtt.push(MqttClient { wire, next_id: 1, ..MqttClient::default() });
        let connect = Connect {
            version: ProtocolVersion::V5,
            clean_start: true,
            keep_alive: 0,
            client_id: id,
            will: None,
            username: None,
            password: None,
            properties: ConnectProperties::default(),
        };
        self.mqtt_send(client, &Packet::Connect(connect));
        client
    }

    fn mqtt_send(&mut self, client: usize, packet: &Packet<'_>) {
        let mut data = Vec::new();
        packet.encode(ProtocolVersion::V5, &mut data).unwrap();
        self.feed(self.mqtt[client].wire, &data);
        self.settle();
    }

    pub(crate) fn mqtt_subscribe(&mut self, client: usize, filter: &str) {
        let filters = [(TopicFilter::new(filter).unwrap(), SubscribeOptions::new(QoS::ExactlyOnce))];
        let packet_id = self.next_id(client);
        let subscribe = Subscribe {
            packet_id,
            subscription_identifier: None,
            user_properties: UserProperties::default(),
            filters: SubscribeFilters::new(&filters),
        };
        self.mqtt_send(client, &Packet::Subscribe(subscribe));
    }

    fn next_id(&mut self, client: usize) -> PacketId {
        let id = self.mqtt[client].next_id;
        self.mqtt[client].next_id = id.wrapping_add(1).max(1);
        PacketId::new(id).unwrap()
    }

    pub(crate) fn mqtt_publish(&mut self, client: usize, topic: &str, payload: &[u8], qos: QoS, retain: bool) {
        let packet_id = (qos > QoS::AtMostOnce).then(|| self.next_id(client));
        let publish = Publish {
            dup: false,
            qos,
            retain,
            topic: TopicName::new(topic).ok(),
            packet_id,
            properties: PublishProperties::default(),
            payload,
        };
        self.mqtt_send(client, &Packet::Publish(publish));
    }

    /// What an MQTT client has got since the last call: topic, payload, and `r` if it was retained.
    pub(crate) fn received(&mut self, client: usize) -> Vec<String> {
        core::mem::take(&mut self.mqtt[client].got)
    }

    fn on_mqtt_bytes(&mut self, client: usize, mut data: &[u8]) {
        let mut decoder = core::mem::take(&mut self.mqtt[client].decoder);
        let mut answers = Vec::new();
        while let Some(frame) = decoder.next(&mut data, u32::MAX).unwrap() {
            let mut answer = |kind, id| {
                newtmq_mqtt::encode_ack(kind, id, ReasonCode::Success, ProtocolVersion::V5, &mut answers);
            };
            match frame.decode(ProtocolVersion::V5, Sender::Server).unwrap() {
                Packet::Publish(publish) => {
                    let retained = if publish.retain { " r" } else { "" };
                    let payload = String::from_utf8_lossy(publish.payload);
                    let topic = publish.topic.map_or("", TopicName::as_str);
                    self.mqtt[client].got.push(format!("{topic} {payload}{retained}"));
                    if let Some(id) = publish.packet_id {
                        let second = publish.qos == QoS::ExactlyOnce;
                        answer(if second { PacketType::Pubrec } else { PacketType::Puback }, id);
                    }
                }
                Packet::Pubrec(ack) => answer(PacketType::Pubrel, ack.packet_id),
                Packet::Pubrel(ack) => answer(PacketType::Pubcomp, ack.packet_id),
                Packet::Disconnect(disconnect) => {
                    self.mqtt[client].got.push(format!("DISCONNECT {}", disconnect.reason_code));
                }
                _ => {}
            }
        }
        self.mqtt[client].decoder = decoder;
        if !answers.is_empty() {
            self.feed(self.mqtt[client].wire, &answers);
        }
    }
}
