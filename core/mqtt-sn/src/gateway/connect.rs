//! CONNECT (6.2), the will handshake (6.3), and a client that comes back while it is still here.

use newtmq_base::{Instant, planted};
use newtmq_mqtt::{
    ClientId, Connect, ConnectProperties, Disconnect, Packet, ProtocolVersion, ReasonCode, TopicName, WillProperties,
};

use super::{Ending, Gateway, Round, Timer, hand_over, send};
use crate::address::{Address, AddressKey, Source};
use crate::client::{Client, ConnectFacts, WillAsk};
use crate::io::{ClientState, LinkId, Output, WILL_DELAY_SECS, Will};
use crate::message::{Encapsulation, WillTopic};
use crate::{Datagram, Message, ReturnCode};

/// A CONNECT within this time after the same one was accepted is a late copy of it, whatever came in between.
const LATE_CONNECT_MS_MAX: u64 = 2_000;
/// Longest topic and payload of the broker: a topic of 65,535 bytes and properties. Payloads that a datagram cannot hold are
/// looked at and dropped.
const PACKET_OVERHEAD: u32 = 1 << 18;

/// A will handshake.
#[derive(Debug)]
pub(super) struct Door {
    address: Address,
    facts: ConnectFacts,
    client: Box<str>,
    /// What has come of the will.
    topic: Option<Will>,
    until: Instant,
    /// When the prompt is sent again.
    next: Instant,
    sent: u8,
}

impl Gateway {
    pub(super) fn find_door(&self, key: AddressKey<'_>) -> Option<u32> {
        let doors = &self.doors;
        self.by_door.find_by(Some(key), |slot| doors.get(slot).map(|door| door.address.key()))
    }

    pub(super) fn on_connect(&mut self, round: &mut Round<'_>, from: Source<'_>, facts: ConnectFacts, id: &str) {
        if id.len() > self.config.max_client_id_len
            || ClientId::new(id).is_err()
            || id == &*self.config.minus_one_client
        {
            self.counters.refused += 1;
            self.answer_stranger(round, from, &Message::Connack(ReturnCode::NotSupported));
            return;
        }
        if self.repeats_connect(round, from, facts, id) {
            self.counters.duplicates += 1;
            return;
        }
        self.close_door(from.key());
        let known = self.find(id).is_some();
        let full = self.clients.len() >= self.config.max_clients || self.connecting >= self.config.max_handshakes;
        let doors_full = facts.will && self.doors.len() >= self.config.max_handshakes;
        if (full && !known) || doors_full {
            self.counters.congested += 1;
            self.answer_stranger(round, from, &Message::Connack(ReturnCode::Congestion));
        } else if facts.will {
            self.open_door(round, from, facts, id);
        } else {
            self.admit(round, from.to_address(), facts, id, None);
        }
    }

    /// Whether the CONNECT is a copy of one that was or is being answered; then it gets the answer again.
    fn repeats_connect(&mut self, round: &mut Round<'_>, from: Source<'_>, facts: ConnectFacts, id: &str) -> bool {
        if let Some(slot) = self.find_door(from.key())
            && self.doors.get(slot).is_some_and(|door| *door.client == *id && door.facts == facts)
        {
            self.prompt(round, slot);
            return true;
        }
        let Some(slot) = self.find_address(from.key()) else { return false };
        let Some(client) = self.clients.get(slot) else { return false };
        if *client.id != *id || client.facts != facts {
            return false;
        }
        match client.state {
            ClientState::Connecting => !client.adopting,
            ClientState::Active => {
                let late = round.now <= client.since + core::time::Duration::from_millis(LATE_CONNECT_MS_MAX);
                if !late && (!client.untouched || facts.will) {
                    return false;
                }
                self.touched = Some(slot);
                self.welcome(round, slot);
                true
            }
            ClientState::Asleep | ClientState::Awake => false,
        }
    }

    fn open_door(&mut self, round: &mut Round<'_>, from: Source<'_>, facts: ConnectFacts, id: &str) {
        let until = round.now + self.config.idle_timeout;
        let (address, next) = (from.to_address(), round.now + self.config.retry_interval);
        let slot = self.doors.insert(Door { address, facts, client: id.into(), topic: None, until, next, sent: 0 });
        let doors = &self.doors;
        let key_of = |slot: u32| doors.get(slot).map(|door| door.address.key());
        self.by_door.insert_unique_by(key_of(slot), slot, key_of);
        self.timers.arm(next.min(until), Timer::Door(slot));
        self.prompt(round, slot);
    }

    pub(super) fn close_door(&mut self, key: AddressKey<'_>) -> bool {
        let Some(slot) = self.find_door(key) else { return false };
        self.take_door(slot);
        true
    }

    fn take_door(&mut self, slot: u32) -> Option<Door> {
        let door = self.doors.remove(slot)?;
        self.by_door.remove(&Some(door.address.key()), slot);
        self.timers.cancel(door.next.min(door.until), Timer::Door(slot));
        Some(door)
    }

    /// Asks for what is missing of the will.
    fn prompt(&mut self, round: &mut Round<'_>, slot: u32) {
        let Some(door) = self.doors.get_mut(slot) else { return };
        door.sent = door.sent.saturating_add(1);
        let message = if door.topic.is_none() { Message::WillTopicReq } else { Message::WillMsgReq };
        let forwarded = door.address.node.as_deref().map(|node| Encapsulation { radius: 0, node });
        send(round, &mut self.counters, door.address.endpoint, &Datagram { forwarded, message });
    }

    pub(super) fn on_door_timer(&mut self, round: &mut Round<'_>, slot: u32) {
        let Some(door) = self.doors.get_mut(slot) else { return };
        if door.until <= round.now || door.sent > self.config.retries {
            self.counters.given_up += 1;
            self.take_door(slot);
            return;
        }
        door.next = round.now + self.config.retry_interval;
        self.timers.arm(door.next.min(door.until), Timer::Door(slot));
        self.counters.retransmitted += 1;
        self.prompt(round, slot);
    }

    pub(super) fn on_will_topic(&mut self, round: &mut Round<'_>, from: Source<'_>, topic: Option<WillTopic<'_>>) {
        let Some(slot) = self.find_door(from.key()) else {
            self.counters.unexpected += 1;
            return;
        };
        let Some(topic) = topic else {
            // An empty one: no will after all.
            if let Some(door) = self.take_door(slot) {
                self.admit(round, door.address, door.facts, &door.client, Some(None));
            }
            return;
        };
        if TopicName::new(topic.topic).is_err() {
            self.counters.refused += 1;
            self.take_door(slot);
            self.answer_stranger(round, from, &Message::Connack(ReturnCode::NotSupported));
            return;
        }
        if let Some(door) = self.doors.get_mut(slot) {
            let WillTopic { qos, retain, topic } = topic;
            door.topic = Some(Will { topic: topic.into(), payload: [].into(), qos, retain });
            door.sent = 0;
        }
        self.prompt(round, slot);
    }

    pub(super) fn on_will_message(&mut self, round: &mut Round<'_>, from: Source<'_>, message: &[u8]) {
        // Before its topic it says nothing.
        let ready = |slot: &u32| self.doors.get(*slot).is_some_and(|door| door.topic.is_some());
        let Some(door) = self.find_door(from.key()).filter(ready).and_then(|slot| self.take_door(slot)) else {
            self.counters.unexpected += 1;
            return;
        };
        let will = door.topic.map(|will| Will { payload: message.into(), ..will });
        self.admit(round, door.address, door.facts, &door.client, Some(will));
    }

    /// The handshake is over. `will` is what it brought, if there was one. A client that is still here and does not ask for
    /// a clean session goes on; any other gets a new link, whose CONNECT the broker decides on.
    fn admit(&mut self, round: &mut Round<'_>, to: Address, facts: ConnectFacts, id: &str, will: Option<Option<Will>>) {
        if let Some(slot) = self.find(id) {
            let here = self.clients.get(slot).is_some_and(|client| client.state != ClientState::Connecting);
            self.say_goodbye_to_other(round, slot, &to);
            if here && !facts.clean_session {
                self.go_on(round, slot, to, facts, will);
                return;
            }
            if here && !planted!(SnConnectOvertakes) {
                return self.begin_anew(round, slot, to, facts, will.flatten());
            }
            self.end(round, slot);
        }
        self.begin_session(round, to, facts, id, will.flatten());
    }

    fn begin_session(&mut self, round: &mut Round<'_>, to: Address, facts: ConnectFacts, id: &str, will: Option<Will>) {
        let slot = self.connect(round, to, facts, id, will.as_ref(), false);
        if let Some(client) = self.clients.get_mut(slot) {
            client.will = will.map(Box::new);
        }
    }

    /// A client that is here wants a clean session. Two links know nothing of each other: the new CONNECT could overtake the end of
    /// the old link, whose will would be published. So it waits until the broker has closed that.
    fn begin_anew(&mut self, round: &mut Round<'_>, slot: u32, to: Address, facts: ConnectFacts, will: Option<Will>) {
        let Some(client) = self.clients.get(slot) else { return };
        let (link, id) = (client.link, client.id.clone());
        hand_over(round, link, &Packet::Disconnect(Disconnect::new(ReasonCode::NORMAL_DISCONNECTION)));
        self.remove(slot);
        let said = round.out.len();
        self.begin_session(round, to, facts, &id, will);
        let opening = round.out.split_off(said);
        if let Some(next) = self.find(&id).and_then(|slot| self.clients.get(slot)).map(|client| client.link) {
            self.ending.insert(link, Ending { next, opening });
        }
    }

    /// The broker has closed a link that is nobody's any more: perhaps somebody waits for that.
    pub(super) fn on_ended(&mut self, round: &mut Round<'_>, link: LinkId) {
        let Some(Ending { next, opening }) = self.ending.remove(&link) else { return };
        // Who has not waited is gone.
        if self.of_link(next).is_some() {
            round.out.extend(opening);
        }
    }

    /// Somebody else takes a ClientId: its former owner, at another address, is told.
    fn say_goodbye_to_other(&mut self, round: &mut Round<'_>, slot: u32, to: &Address) {
        let Some(client) = self.clients.get(slot) else { return };
        if client.address.as_ref().is_some_and(|address| address != to) {
            self.counters.taken_over += 1;
            if client.listens() {
                self.tell(round, slot, &Message::Disconnect(None));
            }
        }
    }

    /// A client connects again to the session that it has.
    fn go_on(
        &mut self,
        round: &mut Round<'_>,
        slot: u32,
        to: Address,
        facts: ConnectFacts,
        will: Option<Option<Will>>,
    ) {
        self.bind(slot, to);
        self.touched = Some(slot);
        let expiry_interval = self.config.session_expiry_interval;
        let Some(client) = self.clients.get_mut(slot) else { return };
        let link = client.link;
        client.facts = facts;
        client.heard = round.now;
        client.untouched = true;
        if client.is_clean {
            client.is_clean = false;
            round.out.push(Output::Outlive { link, expiry_interval });
        }
        match will {
            Some(will) => self.change_will(round, slot, will, WillAsk::Connect),
            None => self.welcome(round, slot),
        }
    }

    /// Opens a link for a client that is not here.
    pub(super) fn connect(
        &mut self,
        round: &mut Round<'_>,
        to: Address,
        facts: ConnectFacts,
        id: &str,
        will: Option<&Will>,
        adopting: bool,
    ) -> u32 {
        if let Some(other) = self.find_address(to.key()) {
            self.counters.taken_over += 1;
            self.unbind(other);
        }
        let peer = to.endpoint;
        let unnamed = LinkId { slot: 0, serial: 0 };
        let slot = self.add(Client { adopting, ..Client::new(id.into(), to, unnamed, facts, round.now) });
        self.connecting += 1;
        let link = self.name_link(slot);
        if let Some(client) = self.clients.get_mut(slot) {
            client.link = link;
        }
        round.out.push(Output::Open { link, client: id.into(), peer });
        let config = &self.config;
        let properties = ConnectProperties {
            session_expiry_interval: if facts.clean_session { 0 } else { config.session_expiry_interval },
            receive_maximum: core::num::NonZeroU16::new(config.window).expect("checked at the start"),
            maximum_packet_size: Some(packet_bytes_max(config.max_datagram)),
            request_problem_information: false,
            ..ConnectProperties::default()
        };
        let connect = Connect {
            version: ProtocolVersion::V5,
            clean_start: facts.clean_session && !planted!(SnWillSurvivesClean),
            keep_alive: 0,
            client_id: id,
            will: will.map(mqtt_will),
            username: config.username.as_deref(),
            password: config.password.as_deref(),
            properties,
        };
        hand_over(round, link, &Packet::Connect(connect));
        self.touched = Some(slot);
        slot
    }

    /// The client is connected. What it does not remember is told again before the next message.
    pub(super) fn welcome(&mut self, round: &mut Round<'_>, slot: u32) {
        let register_on_resume = self.config.register_on_resume;
        let Some(client) = self.clients.get_mut(slot) else { return };
        client.state = ClientState::Active;
        client.sleep = 0;
        client.heard = round.now;
        client.since = round.now;
        client.untouched |= planted!(SnCopyIsConnect);
        client.draining = None;
        client.dirty = true;
        client.take_back();
        client.miss_answer();
        if register_on_resume {
            client.registry.forget_told();
        }
        self.tell(round, slot, &Message::Connack(ReturnCode::Accepted));
        self.pump(round, slot);
    }

    /// The broker's connection ends as if its client had asked for it: no will.
    pub(super) fn end(&mut self, round: &mut Round<'_>, slot: u32) {
        let Some(client) = self.clients.get(slot) else { return };
        let link = client.link;
        // A link whose CONNECT is not answered may not be let down softly.
        if client.state != ClientState::Connecting {
            hand_over(round, link, &Packet::Disconnect(Disconnect::new(ReasonCode::NORMAL_DISCONNECTION)));
        }
        round.out.push(Output::Close { link });
        self.remove(slot);
    }

    /// The client cannot be connected.
    pub(super) fn refuse_connecting(&mut self, round: &mut Round<'_>, slot: u32, code: ReturnCode) {
        let Some(client) = self.clients.get(slot) else { return };
        let link = client.link;
        self.counters.refused += 1;
        // Who was thought to sleep is told to connect.
        let message = if client.adopting { Message::Disconnect(None) } else { Message::Connack(code) };
        self.tell(round, slot, &message);
        round.out.push(Output::Close { link });
        self.remove(slot);
    }
}

/// Largest packet that the broker may send on a link.
pub(super) fn packet_bytes_max(max_datagram: usize) -> u32 {
    PACKET_OVERHEAD + u32::try_from(max_datagram).unwrap_or(1 << 16)
}

/// The return code that tells a client of a reason code.
pub(super) fn code_of(reason: ReasonCode) -> ReturnCode {
    if !reason.is_error() {
        return ReturnCode::Accepted;
    }
    let busy = [
        ReasonCode::ServerUnavailable,
        ReasonCode::ServerBusy,
        ReasonCode::QuotaExceeded,
        ReasonCode::ConnectionRateExceeded,
        ReasonCode::PacketIdentifierInUse,
        ReasonCode::ServerShuttingDown,
        ReasonCode::UseAnotherServer,
    ];
    if reason == ReasonCode::TopicNameInvalid {
        ReturnCode::InvalidTopicId
    } else if busy.contains(&reason) {
        ReturnCode::Congestion
    } else {
        ReturnCode::NotSupported
    }
}

fn mqtt_will(will: &Will) -> newtmq_mqtt::Will<'_> {
    newtmq_mqtt::Will {
        topic: TopicName::new(&will.topic).expect("checked when it came"),
        payload: &will.payload,
        qos: will.qos,
        retain: will.retain,
        properties: WillProperties { delay_interval: WILL_DELAY_SECS, ..WillProperties::default() },
    }
}
