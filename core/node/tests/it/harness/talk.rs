//! What tests say.

use std::rc::Rc;
use std::sync::Arc;

use newtmq_access::{BanKind, BanWho, Bans};
use newtmq_mqtt::{
    Auth, AuthProperties, Disconnect, DisconnectProperties, Packet, PacketId, PacketType, QoS, ReasonCode, TopicFilter,
    Unsubscribe, UnsubscribeFilters, UserProperties,
};
use newtmq_node::{
    AccessConfig, AdminCommand, DropReason, MemoryPressure, OperatorCommand, Question, ShardAnswer, ShardInput,
    ShardQuestion, Traced, Traces, Verdict,
};

use super::client::{Client, Script};
use super::net::Net;
use super::packets::{Connack, Connect, Got, Message, Publish, Subscribe, encode};

impl Net {
    /// Opens a network connection and sends CONNECT; nothing is awaited.
    pub(crate) fn start(&mut self, connect: Connect) -> Client {
        let client = self.open_as(connect);
        let bytes = self.scripts[client.0].settings.encode();
        self.send(client, &bytes);
        client
    }

    /// A Client Identifier that belongs to the first shard, if all are to be there.
    fn settle_down(&self, client: String) -> String {
        if !self.options.together || client.is_empty() {
            return client;
        }
        let candidates = (0..).map(|number| if number == 0 { client.clone() } else { format!("{client} {number}") });
        candidates.into_iter().find(|id| self.shards[0].home(id) == newtmq_base::ShardId(0)).expect("one of four is")
    }

    pub(crate) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// A Client Identifier like this one that belongs to a shard.
    pub(crate) fn id_at(&self, shard: usize, name: &str) -> String {
        let home = |id: &String| usize::from(self.shards[0].home(id).0) == shard;
        (0..).map(|number| format!("{name}.{number}")).find(home).expect("one of a few is")
    }

    /// A number below this one, by chance.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        self.rng.below(count as u64) as usize
    }

    /// Lets up to so many microseconds pass: fewer than a message between two shards may take.
    pub(crate) fn wait_below(&mut self, micros: u64) {
        let micros = self.rng.below(micros);
        self.advance(core::time::Duration::from_micros(micros));
    }

    /// Opens a network connection, and sends nothing.
    pub(crate) fn open(&mut self) -> Client {
        self.open_as(Connect::v5("?"))
    }

    /// The same for a client whose CONNECT will be like this one.
    pub(crate) fn open_as(&mut self, mut settings: Connect) -> Client {
        settings.client = self.settle_down(settings.client);
        let filters = self.filters.entry(settings.client.clone()).or_default();
        let script = Script::new(settings, Rc::clone(filters));
        self.scripts.push(script);
        Client(self.open_link())
    }

    /// Connects, and expects to be accepted.
    pub(crate) fn connect(&mut self, connect: Connect) -> Client {
        self.connect_with(connect).0
    }

    /// The same, with what the server answered.
    pub(crate) fn connect_with(&mut self, connect: Connect) -> (Client, Connack) {
        let client = self.start(connect);
        self.settle();
        let at = self.scripts[client.0].log.iter().position(|got| matches!(got, Got::Connack(_)));
        let Some(Got::Connack(connack)) = at.map(|at| self.scripts[client.0].log.remove(at)) else {
            panic!("no CONNACK but {:?}", self.scripts[client.0].log)
        };
        assert_eq!(connack.reason, ReasonCode::Success);
        (client, *connack)
    }

    /// Connects, and expects to be refused and closed; why.
    pub(crate) fn refused(&mut self, connect: Connect) -> ReasonCode {
        let client = self.start(connect);
        self.settle();
        match &self.take(client)[..] {
            [Got::Connack(connack), Got::Closed] => connack.reason,
            other => panic!("not refused but {other:?}"),
        }
    }

    /// Sends bytes.
    pub(crate) fn send(&mut self, client: Client, bytes: &[u8]) {
        self.client_sends(client.0, bytes);
    }

    pub(crate) fn send_packet(&mut self, client: Client, packet: &Packet<'_>) {
        let version = self.scripts[client.0].settings.version;
        self.send(client, &encode(packet, version));
    }

    /// Sends a SUBSCRIBE; returns its Packet Identifier.
    pub(crate) fn send_subscribe(&mut self, client: Client, subscribe: &Subscribe) -> u16 {
        let filters: Vec<String> = subscribe.filters.iter().map(|(filter, _)| filter.clone()).collect();
        self.allow(client, &filters);
        let script = &mut self.scripts[client.0];
        let id = script.packet_id(None, PacketType::Subscribe);
        let bytes = subscribe.encode(id, script.settings.version);
        self.send(client, &bytes);
        id
    }

    /// A SUBSCRIBE of this identifier was sent together with the CONNECT.
    pub(crate) fn expect_suback(&mut self, client: Client, id: u16) {
        self.scripts[client.0].packet_id(Some(id), PacketType::Subscribe);
    }

    /// The same for a PUBLISH of QoS 1.
    pub(crate) fn expect_puback(&mut self, client: Client, id: u16) {
        self.scripts[client.0].packet_id(Some(id), PacketType::Publish);
    }

    /// Whether the client's connection is closed, as far as it knows.
    pub(crate) fn is_over(&self, client: Client) -> bool {
        self.scripts[client.0].closed
    }

    /// The network connection breaks; nothing is awaited.
    pub(crate) fn cut_later(&mut self, client: Client) {
        self.cut_link(client.0);
    }

    /// The client counts on messages for these filters, also on its other connections.
    pub(crate) fn allow(&mut self, client: Client, filters: &[String]) {
        let known = &self.filters[&self.scripts[client.0].settings.client];
        known.borrow_mut().extend_from_slice(filters);
    }

    /// Subscribes; the reason codes of SUBACK.
    pub(crate) fn subscribe_with(&mut self, client: Client, subscribe: &Subscribe) -> Vec<ReasonCode> {
        let id = self.send_subscribe(client, subscribe);
        self.settle();
        let is_it = |got: &Got| matches!(got, Got::Suback(of, _) if *of == id);
        let log = &mut self.scripts[client.0].log;
        let at = log.iter().position(is_it).unwrap_or_else(|| panic!("no SUBACK but {log:?}"));
        let Got::Suback(_, reasons) = log.remove(at) else { unreachable!("found as SUBACK") };
        reasons
    }

    /// Subscribes to one filter, and expects the QoS to be granted.
    pub(crate) fn subscribe(&mut self, client: Client, filter: &str, qos: QoS) {
        let reasons = self.subscribe_with(client, &Subscribe::new(filter, qos));
        assert_eq!(reasons, [ReasonCode::from_code(qos as u8).unwrap()]);
    }

    /// Unsubscribes; the reason codes of UNSUBACK.
    pub(crate) fn unsubscribe(&mut self, client: Client, filters: &[&str]) -> Vec<ReasonCode> {
        let id = self.send_unsubscribe(client, filters);
        self.settle();
        let log = &mut self.scripts[client.0].log;
        let at = log.iter().position(|got| matches!(got, Got::Unsuback(of, _) if *of == id));
        let Some(Got::Unsuback(_, reasons)) = at.map(|at| log.remove(at)) else { panic!("no UNSUBACK but {log:?}") };
        reasons
    }

    pub(crate) fn send_unsubscribe(&mut self, client: Client, filters: &[&str]) -> u16 {
        let filters: Vec<_> = filters.iter().map(|filter| TopicFilter::new(filter).unwrap()).collect();
        let id = self.scripts[client.0].packet_id(None, PacketType::Unsubscribe);
        let unsubscribe = Unsubscribe {
            packet_id: PacketId::new(id).unwrap(),
            user_properties: UserProperties::default(),
            filters: UnsubscribeFilters::new(&filters),
        };
        self.send_packet(client, &Packet::Unsubscribe(unsubscribe));
        id
    }

    /// Sends a PUBLISH; nothing is awaited. Returns its Packet Identifier, 0 for QoS 0.
    pub(crate) fn publish(&mut self, client: Client, publish: Publish) -> u16 {
        let script = &mut self.scripts[client.0];
        let id = (publish.qos > QoS::AtMostOnce).then(|| script.packet_id(publish.id, PacketType::Publish));
        let bytes = publish.encode(id, script.settings.version);
        self.send(client, &bytes);
        id.unwrap_or(0)
    }

    pub(crate) fn ack(&mut self, client: Client, kind: PacketType, id: u16) {
        self.ack_with(client, kind, id, ReasonCode::Success);
    }

    pub(crate) fn ack_with(&mut self, client: Client, kind: PacketType, id: u16, reason: ReasonCode) {
        let bytes = self.scripts[client.0].ack(kind, id, reason);
        self.send(client, &bytes);
    }

    /// Whether the client acknowledges by itself.
    pub(crate) fn auto_ack(&mut self, client: Client, auto: bool) {
        self.scripts[client.0].auto_ack = auto;
    }

    pub(crate) fn ping(&mut self, client: Client) {
        self.send_packet(client, &Packet::Pingreq);
    }

    /// Sends a normal DISCONNECT and closes.
    pub(crate) fn disconnect(&mut self, client: Client) {
        self.disconnect_with(client, ReasonCode::NORMAL_DISCONNECTION, None);
    }

    /// Sends DISCONNECT with a reason and perhaps a Session Expiry Interval, and closes.
    pub(crate) fn disconnect_with(&mut self, client: Client, reason: ReasonCode, expiry: Option<u32>) {
        let properties = DisconnectProperties { session_expiry_interval: expiry, ..Default::default() };
        self.send_packet(client, &Packet::Disconnect(Disconnect { reason_code: reason, properties }));
        self.client_closes(client.0);
        self.settle();
    }

    pub(crate) fn send_auth(&mut self, client: Client, reason: ReasonCode, method: &str, data: &[u8]) {
        let properties = AuthProperties {
            authentication_method: Some(method),
            authentication_data: Some(data),
            ..AuthProperties::default()
        };
        self.send_packet(client, &Packet::Auth(Auth { reason_code: reason, properties }));
    }

    /// The client closes the network connection without a DISCONNECT.
    pub(crate) fn hang_up(&mut self, client: Client) {
        self.client_closes(client.0);
        self.settle();
    }

    /// The same; nothing is awaited.
    pub(crate) fn hang_up_later(&mut self, client: Client) {
        self.client_closes(client.0);
    }

    /// The network connection breaks; what is under way is lost.
    pub(crate) fn cut(&mut self, client: Client) {
        self.cut_link(client.0);
        self.settle();
    }

    /// The client stops to read.
    pub(crate) fn pause(&mut self, client: Client) {
        self.pause_link(client.0, true);
    }

    pub(crate) fn unpause(&mut self, client: Client) {
        self.pause_link(client.0, false);
    }

    /// The server cannot write to the client for a while.
    pub(crate) fn block(&mut self, client: Client, blocked: bool) {
        self.block_link(client.0, blocked);
    }

    /// A client that does not read takes some bytes nevertheless.
    pub(crate) fn read_some(&mut self, client: Client, bytes: usize) {
        self.client_reads(client.0, bytes);
    }

    pub(crate) fn held(&self, client: Client) -> bool {
        self.is_held(client.0)
    }

    /// Whether the client's connection is closed.
    pub(crate) fn closed(&mut self, client: Client) -> bool {
        self.settle();
        self.scripts[client.0].closed
    }

    /// Takes everything that the client received.
    pub(crate) fn take(&mut self, client: Client) -> Vec<Got> {
        self.settle();
        core::mem::take(&mut self.scripts[client.0].log)
    }

    /// The same, but only what is there already.
    pub(crate) fn take_now(&mut self, client: Client) -> Vec<Got> {
        core::mem::take(&mut self.scripts[client.0].log)
    }

    /// Takes the messages that the client received.
    pub(crate) fn messages(&mut self, client: Client) -> Vec<Message> {
        self.settle();
        let log = core::mem::take(&mut self.scripts[client.0].log);
        let (messages, rest) = log.into_iter().partition(|got| matches!(got, Got::Publish(_)));
        self.scripts[client.0].log = rest;
        let message = |got| if let Got::Publish(message) = got { Some(*message) } else { None };
        Vec::into_iter(messages).filter_map(message).collect()
    }

    /// The same as text: "topic payload".
    pub(crate) fn received(&mut self, client: Client) -> Vec<String> {
        self.messages(client).iter().map(Message::text).collect()
    }

    /// The one message that the client received.
    pub(crate) fn one_message(&mut self, client: Client) -> Message {
        let mut messages = self.messages(client);
        assert_eq!(messages.len(), 1, "{messages:?}");
        messages.remove(0)
    }

    /// Expects a DISCONNECT from the server, then the end; why.
    pub(crate) fn kicked(&mut self, client: Client) -> ReasonCode {
        match &self.take(client)[..] {
            [.., Got::Disconnect(reason), Got::Closed] => *reason,
            other => panic!("not disconnected but {other:?}"),
        }
    }

    /// Answers questions of hooks.
    pub(crate) fn decide(&mut self, decider: impl FnMut(&Question) -> Verdict + 'static) {
        self.decider = Some(Box::new(decider));
    }

    pub(crate) fn trace(&mut self, list: Vec<Traced>) {
        let traces = Arc::new(Traces::new(list));
        for shard in 0..self.shards.len() {
            self.input(shard, ShardInput::Admin(AdminCommand::SetTraces(Arc::clone(&traces))));
        }
    }

    pub(crate) fn set_access(&mut self, access: AccessConfig) {
        for shard in 0..self.shards.len() {
            self.input(shard, ShardInput::Admin(AdminCommand::SetAccess(Box::new(access.clone()))));
        }
    }

    pub(crate) fn set_bans(&mut self, bans: &[(BanKind, &str, newtmq_base::Instant)]) {
        let mut all = Bans::default();
        for (kind, text, until) in bans {
            all.add(&BanWho::new(*kind, text).unwrap(), *until);
        }
        let all = std::sync::Arc::new(all);
        for shard in 0..self.shards.len() {
            self.input(shard, ShardInput::Admin(AdminCommand::SetBans(all.clone())));
        }
    }

    /// The shards hear of it one after the other.
    pub(crate) fn shutdown_slowly(&mut self) {
        for shard in 0..self.shards.len() {
            self.input(shard, ShardInput::Admin(AdminCommand::Shutdown));
            self.wait_below(2000);
        }
        self.settle();
    }

    pub(crate) fn shutdown(&mut self) {
        for shard in 0..self.shards.len() {
            self.shutdown_of(shard);
        }
        self.settle();
    }

    /// Only one shard has heard of it.
    pub(crate) fn shutdown_of(&mut self, shard: usize) {
        self.input(shard, ShardInput::Admin(AdminCommand::Shutdown));
    }

    /// The process has come to a level of memory use.
    pub(crate) fn memory(&mut self, level: MemoryPressure) {
        self.pressure(level);
        self.settle();
    }

    /// The same; nothing is awaited.
    pub(crate) fn pressure(&mut self, level: MemoryPressure) {
        for shard in 0..self.shards.len() {
            self.input(shard, ShardInput::Admin(AdminCommand::MemoryPressure(level)));
        }
    }

    /// Asks a shard, as an operator.
    pub(crate) fn ask(&self, shard: usize, question: &ShardQuestion) -> ShardAnswer {
        self.shards[shard].view().answer(self.now, question)
    }

    /// An operator's command, to every shard.
    pub(crate) fn operate(&mut self, command: OperatorCommand) {
        for shard in 0..self.shards.len() {
            self.input(shard, ShardInput::Admin(AdminCommand::OfOperator(Box::new(command.clone()))));
        }
        self.settle();
    }

    /// The same, to one.
    pub(crate) fn operate_at(&mut self, shard: usize, command: OperatorCommand) {
        self.input(shard, ShardInput::Admin(AdminCommand::OfOperator(Box::new(command))));
        self.settle();
    }

    pub(crate) fn ledger(&self) -> newtmq_node::Ledger {
        self.view().ledger()
    }

    pub(crate) fn dropped(&self, reason: DropReason) -> u64 {
        self.ledger().dropped(reason)
    }
}
