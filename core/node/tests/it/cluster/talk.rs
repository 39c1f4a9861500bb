//! Clients of the nodes, and what tests say.

use std::rc::Rc;

use newtmq_base::{ConnId, ListenerId};
use newtmq_mqtt::{Disconnect, DisconnectProperties, Packet, PacketType, QoS, ReasonCode};
use newtmq_node::{CloseCause, Output, Peer, ShardInput};

use super::world::{Event, World};
use crate::harness::{Connect, Got, Message, Publish, Script, Subscribe};

/// A client's connection to a node.
pub(super) struct Person {
    pub(super) node: usize,
    shard: usize,
    conn: ConnId,
    pub(super) script: Script,
    /// The shard knows the connection.
    open: bool,
    held: bool,
    kept: Vec<u8>,
    closing: bool,
    ready: bool,
    fin: bool,
}

impl Person {
    /// Its node has died.
    pub(super) fn lose(&mut self) {
        self.open = false;
        self.script.on_close(true);
    }
}

impl World {
    /// Connects a client to a node, and expects to be accepted.
    pub(super) fn join(&mut self, node: usize, connect: Connect) -> usize {
        let person = self.start(node, connect);
        self.settle();
        let log = &mut self.people[person].script.log;
        let at = log.iter().position(|got| matches!(got, Got::Connack(_)));
        let Some(Got::Connack(connack)) = at.map(|at| log.remove(at)) else { panic!("no CONNACK but {log:?}") };
        assert_eq!(connack.reason, ReasonCode::Success);
        person
    }

    /// The same; nothing is awaited.
    pub(super) fn start(&mut self, node: usize, connect: Connect) -> usize {
        let bytes = connect.encode();
        let person = self.people.len();
        let same = self.people.iter().find(|other| other.script.settings.client == connect.client);
        let filters = same.map(|other| other.script.filters()).unwrap_or_default();
        let conn = ConnId { slot: person as u32, generation: 1 };
        self.people.push(Person {
            node,
            shard: 0,
            conn,
            script: Script::new(connect, Rc::clone(&filters)),
            open: true,
            held: false,
            kept: Vec::new(),
            closing: false,
            ready: false,
            fin: false,
        });
        let peer = Peer::from(core::net::SocketAddr::from(([192, 0, 2, 1], 50_000)));
        let listener = ListenerId(self.listener);
        self.input(node, 0, ShardInput::Opened { conn, listener, peer, username: None });
        self.push(self.now, Event::ToServer(person, bytes));
        person
    }

    fn person_of(&self, node: usize, conn: ConnId) -> Option<usize> {
        let person = conn.slot as usize;
        self.people.get(person).filter(|of| of.node == node && of.open).map(|_| person)
    }

    pub(super) fn obey_person(&mut self, node: usize, shard: usize, output: Output) {
        match output {
            Output::Move { conn, to, moved } => {
                let person = self.person_of(node, conn).unwrap();
                self.people[person].shard = usize::from(to.0);
                let shard = usize::from(to.0);
                let taken = self.handle(node, shard, ShardInput::Moved { conn, moved });
                self.people[person].held = taken.hold;
                self.obey(node, shard);
                self.push(self.now, Event::ToServer(person, Vec::new()));
            }
            Output::Ready(conn) => {
                let Some(person) = self.person_of(node, conn) else { return };
                self.people[person].ready = true;
                self.pump(person);
            }
            Output::Resume(conn) => {
                let Some(person) = self.person_of(node, conn) else { return };
                self.people[person].held = false;
                self.push(self.now, Event::ToServer(person, Vec::new()));
            }
            Output::Close { conn, .. } => {
                let Some(person) = self.person_of(node, conn) else { return };
                self.people[person].closing = true;
                self.push(self.now, Event::Fin(person));
            }
            Output::Abort(conn) => {
                if let Some(person) = self.person_of(node, conn) {
                    self.gone(person, CloseCause::Asked);
                }
            }
            other => panic!("{other:?} at {node}.{shard}"),
        }
    }

    pub(super) fn arrive(&mut self, person: usize, data: &[u8]) {
        self.people[person].kept.extend_from_slice(data);
        let Person { node, shard, conn, open, held, .. } = self.people[person];
        if !open || held {
            return;
        }
        let data = core::mem::take(&mut self.people[person].kept);
        if !data.is_empty() {
            let taken = self.handle(node, shard, ShardInput::Bytes { conn, data: &data });
            let of = &mut self.people[person];
            (of.kept, of.held) = (data[taken.bytes..].to_vec(), taken.hold);
            self.obey(node, shard);
        }
        let of = &self.people[person];
        if of.fin && of.open && !of.held && of.kept.is_empty() {
            self.gone(person, CloseCause::Peer);
        }
    }

    fn pump(&mut self, person: usize) {
        let Person { node, shard, conn, open, ready, .. } = self.people[person];
        if !open || !ready {
            return;
        }
        self.people[person].ready = false;
        let bytes = self.fill(node, shard, conn);
        let answer = self.people[person].script.on_bytes(&bytes);
        if !answer.is_empty() {
            self.push(self.now, Event::ToServer(person, answer));
        }
    }

    /// The end of a connection: the server's, when its output is gone, or the client's.
    pub(super) fn fin(&mut self, person: usize) {
        if !self.people[person].open {
            return;
        }
        if self.people[person].closing {
            self.pump(person);
            self.people[person].script.on_close(true);
            return self.gone(person, CloseCause::Asked);
        }
        self.people[person].fin = true;
        self.arrive(person, &[]);
    }

    fn gone(&mut self, person: usize, cause: CloseCause) {
        let Person { node, shard, conn, .. } = self.people[person];
        if core::mem::replace(&mut self.people[person].open, false) {
            self.input(node, shard, ShardInput::Closed { conn, cause });
        }
    }

    /// The connection breaks.
    pub(super) fn break_off(&mut self, person: usize) {
        self.people[person].script.on_close(false);
        self.gone(person, CloseCause::Error);
    }

    pub(super) fn send_bytes(&mut self, person: usize, bytes: Vec<u8>) {
        self.push(self.now, Event::ToServer(person, bytes));
    }

    /// Subscribes, and expects the QoS to be granted.
    pub(super) fn subscribe(&mut self, person: usize, filter: &str, qos: QoS) {
        self.subscribe_with(person, &Subscribe::new(filter, qos));
    }

    pub(super) fn subscribe_with(&mut self, person: usize, subscribe: &Subscribe) {
        let id = self.send_subscribe(person, subscribe);
        self.settle();
        let log = &mut self.people[person].script.log;
        let at = log.iter().position(|got| matches!(got, Got::Suback(of, _) if *of == id));
        let Some(Got::Suback(_, reasons)) = at.map(|at| log.remove(at)) else { panic!("no SUBACK but {log:?}") };
        assert!(reasons.iter().all(|reason| !reason.is_error()), "{reasons:?}");
    }

    /// The same; nothing is awaited.
    pub(super) fn send_subscribe(&mut self, person: usize, subscribe: &Subscribe) -> u16 {
        let script = &mut self.people[person].script;
        script.allow(subscribe.filters.iter().map(|(filter, _)| filter.clone()));
        let id = script.packet_id(None, PacketType::Subscribe);
        let bytes = subscribe.encode(id, script.settings.version);
        self.send_bytes(person, bytes);
        id
    }

    /// Publishes; nothing is awaited. The Packet Identifier, 0 for QoS 0.
    pub(super) fn publish(&mut self, person: usize, publish: Publish) -> u16 {
        let script = &mut self.people[person].script;
        let id = (publish.qos > QoS::AtMostOnce).then(|| script.packet_id(publish.id, PacketType::Publish));
        let bytes = publish.encode(id, script.settings.version);
        self.send_bytes(person, bytes);
        id.unwrap_or(0)
    }

    pub(super) fn ack(&mut self, person: usize, kind: PacketType, id: u16) {
        let bytes = self.people[person].script.ack(kind, id, ReasonCode::Success);
        self.send_bytes(person, bytes);
    }

    pub(super) fn disconnect(&mut self, person: usize) {
        let properties = DisconnectProperties::default();
        let packet = Packet::Disconnect(Disconnect { reason_code: ReasonCode::NORMAL_DISCONNECTION, properties });
        let mut bytes = Vec::new();
        packet.encode(self.people[person].script.settings.version, &mut bytes).unwrap();
        self.send_bytes(person, bytes);
        self.people[person].script.on_close(false);
        self.push(self.now, Event::Fin(person));
    }

    /// Takes the messages that a client got so far, as text: "topic payload".
    pub(super) fn received_now(&mut self, person: usize) -> Vec<String> {
        self.messages_now(person).iter().map(Message::text).collect()
    }

    pub(super) fn messages_now(&mut self, person: usize) -> Vec<Message> {
        let log = core::mem::take(&mut self.people[person].script.log);
        let (messages, rest): (Vec<Got>, _) = log.into_iter().partition(|got| matches!(got, Got::Publish(_)));
        self.people[person].script.log = rest;
        messages
            .into_iter()
            .filter_map(|got| if let Got::Publish(message) = got { Some(*message) } else { None })
            .collect()
    }

    /// The same when nothing is under way.
    pub(super) fn received(&mut self, person: usize) -> Vec<String> {
        self.settle();
        self.received_now(person)
    }

    /// Takes the PUBACKs and PUBRECs that a client got: identifiers and reasons, in order.
    pub(super) fn acked(&mut self, person: usize) -> Vec<(u16, ReasonCode)> {
        let is_ack = |got: &Got| matches!(got, Got::Ack(PacketType::Puback | PacketType::Pubrec, ..));
        let log = core::mem::take(&mut self.people[person].script.log);
        let (acks, rest): (Vec<Got>, _) = log.into_iter().partition(is_ack);
        self.people[person].script.log = rest;
        acks.into_iter()
            .filter_map(|got| if let Got::Ack(_, id, reason) = got { Some((id, reason)) } else { None })
            .collect()
    }

    /// Everything else.
    pub(super) fn log(&mut self, person: usize) -> Vec<Got> {
        core::mem::take(&mut self.people[person].script.log)
    }

    /// Whether a connection is there on both sides.
    pub(super) fn is_open(&self, person: usize) -> bool {
        self.people[person].open
    }

    pub(super) fn is_held(&self, person: usize) -> bool {
        self.people[person].held
    }
}
