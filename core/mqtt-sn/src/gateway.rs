//! The gateway: its tables, and what each input is passed to. The rules are in the modules below, one per concern.

mod arrive;
mod connect;
mod discovery;
mod inbound;
mod link;
mod minus_one;
mod outbound;
mod sleep;
mod topics;
mod will;

use std::collections::BTreeMap;

use newtmq_base::{HashSeed, Instant, LookupTable, Slab, TimerQueue};
use newtmq_mqtt::{Packet, ProtocolVersion};

use crate::address::{Address, AddressKey};
use crate::client::Client;
use crate::config::Config;
use crate::counters::Counters;
use crate::io::{ClientState, ClientView, Input, LinkId, Output};
use crate::message::Encapsulation;
use crate::{Datagram, Message, record};
use connect::Door;
use minus_one::Anonymous;

/// A gateway between MQTT-SN clients and a broker. See the crate's documentation.
#[derive(Debug)]
pub struct Gateway {
    config: Config,
    clients: Slab<Client>,
    by_id: LookupTable,
    by_address: LookupTable,
    /// Will handshakes.
    doors: Slab<Door>,
    by_door: LookupTable,
    /// Clients whose CONNECT the broker has not answered.
    connecting: usize,
    /// Links that end for another one of the same client, which is opened when they have.
    ending: BTreeMap<LinkId, Ending>,
    timers: TimerQueue<Timer>,
    counters: Counters,
    next_serial: u32,
    /// Who publishes without a connection.
    anonymous: Option<Anonymous>,
    /// Other gateways: GwId, GwAdd.
    neighbours: Vec<(u8, Box<[u8]>)>,
    advertise_at: Instant,
    strays: Bucket,
    /// Clients that have to be looked at before the call ends.
    touched: Option<u32>,
}

/// What a deadline is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Client(u32),
    Door(u32),
    Advertise,
}

/// What waits for the end of a link: the next one, and what opens it.
#[derive(Debug)]
struct Ending {
    next: LinkId,
    opening: Vec<Output>,
}

/// How many answers strangers get: so many a second.
#[derive(Debug)]
struct Bucket {
    tokens: u32,
    second: u64,
}

/// What a call works on.
struct Round<'a> {
    now: Instant,
    out: &'a mut Vec<Output>,
}

impl Gateway {
    /// A gateway without clients. `seed` keeps strangers from choosing ClientIds and addresses whose hashes collide.
    ///
    /// # Panics
    /// If a predefined topic is no Topic Name or its id is reserved, or the window is 0.
    #[must_use]
    pub fn new(config: Config, seed: u64, now: Instant) -> Gateway {
        for (id, name) in &config.predefined {
            assert!(*id != 0 && *id != u16::MAX, "a predefined topic id that is reserved");
            assert!(newtmq_mqtt::TopicName::new(name).is_ok(), "a predefined topic that is no Topic Name");
        }
        assert!(config.window > 0, "a window of no message");
        let hash = HashSeed::new(seed);
        let mut gateway = Gateway {
            clients: Slab::default(),
            by_id: LookupTable::new(hash),
            by_address: LookupTable::new(hash),
            doors: Slab::default(),
            by_door: LookupTable::new(hash),
            connecting: 0,
            ending: BTreeMap::new(),
            timers: TimerQueue::default(),
            counters: Counters::default(),
            next_serial: 0,
            anonymous: None,
            neighbours: Vec::new(),
            advertise_at: if config.advertise_interval.is_zero() { Instant::NEVER } else { now },
            strays: Bucket { tokens: config.stray_replies_per_second, second: 0 },
            touched: None,
            config,
        };
        gateway.timers.arm(gateway.advertise_at, Timer::Advertise);
        gateway
    }

    /// Takes one input in; what is to be done about it is pushed to `out`, to be done in that order.
    pub fn handle(&mut self, now: Instant, input: Input<'_>, out: &mut Vec<Output>) {
        let round = &mut Round { now, out };
        match input {
            Input::Tick => self.on_tick(round),
            Input::Datagram { from, data } => self.on_datagram(round, from, data),
            Input::Bytes { link, data } => self.on_bytes(round, link, data),
            Input::Closed { link } => self.on_closed(round, link),
            Input::Held { link, held } => self.on_held(round, link, held),
            Input::Record { link, record } => self.on_record(link, record),
            Input::WillSet { link, accepted } => self.on_will_set(round, link, accepted),
            Input::Gateways(gateways) => self.neighbours = gateways.to_vec(),
        }
        self.settle(round);
    }

    /// When the gateway wants a Tick. A late one or one too many does no harm.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.timers.next().map(|(deadline, _)| deadline)
    }

    /// What it has done.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Its clients.
    pub fn clients(&self) -> impl Iterator<Item = ClientView<'_>> {
        self.clients.iter().map(|(_, client)| client.view())
    }

    /// A client by its ClientId.
    #[must_use]
    pub fn client(&self, id: &str) -> Option<ClientView<'_>> {
        self.find(id).and_then(|slot| self.clients.get(slot)).map(Client::view)
    }

    /// Will handshakes that go on.
    #[must_use]
    pub fn handshakes(&self) -> usize {
        self.doors.len()
    }

    fn on_tick(&mut self, round: &mut Round<'_>) {
        while let Some(timer) = self.timers.pop_due(round.now) {
            match timer {
                Timer::Client(slot) => {
                    if let Some(client) = self.clients.get_mut(slot) {
                        client.armed = Instant::NEVER;
                        self.on_client_timer(round, slot);
                        self.settle_client(round, slot);
                    }
                }
                Timer::Door(slot) => self.on_door_timer(round, slot),
                Timer::Advertise => self.advertise(round),
            }
        }
    }

    /// What is due of a client: its end, a message to send again, a sign of life of its link.
    fn on_client_timer(&mut self, round: &mut Round<'_>, slot: u32) {
        let idle_timeout = self.config.idle_timeout;
        let Some(client) = self.clients.get_mut(slot) else { return };
        if client.expires(idle_timeout) <= round.now {
            if client.state == ClientState::Connecting {
                self.refuse_connecting(round, slot, crate::ReturnCode::Congestion);
            } else {
                self.lose(round, slot);
            }
            return;
        }
        if client.link_ping <= round.now {
            client.link_ping = round.now + core::time::Duration::from_secs(u64::from(client.link_keep_alive));
            let link = client.link;
            hand_over(round, link, &Packet::Pingreq);
        }
        if client.outgoing.as_ref().is_some_and(|outgoing| outgoing.next <= round.now) {
            self.retry(round, slot);
        }
    }

    /// The client counts as lost: the broker publishes its will.
    fn lose(&mut self, round: &mut Round<'_>, slot: u32) {
        let Some(client) = self.clients.get(slot) else { return };
        let link = client.link;
        self.counters.lost += 1;
        self.settle_client(round, slot);
        round.out.push(Output::Close { link });
        self.remove(slot);
    }

    /// What every call ends with: the record of the client that it was about, and its timer.
    fn settle(&mut self, round: &mut Round<'_>) {
        if let Some(slot) = self.touched.take() {
            self.settle_client(round, slot);
        }
    }

    fn settle_client(&mut self, round: &mut Round<'_>, slot: u32) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        if client.dirty && client.state != ClientState::Connecting {
            client.dirty = false;
            if !client.is_clean {
                let asleep = matches!(client.state, ClientState::Asleep | ClientState::Awake);
                let sleep = if asleep { client.sleep } else { 0 };
                let bytes = record::encode(client.facts.duration, sleep, client.will.as_deref(), &client.registry);
                round.out.push(Output::Keep { link: client.link, record: bytes });
            }
        }
        let deadline = client.deadline(self.config.idle_timeout);
        // A timer that fires too early is armed again then; most deadlines only move on.
        if deadline < client.armed {
            self.timers.cancel(client.armed, Timer::Client(slot));
            client.armed = deadline;
            self.timers.arm(deadline, Timer::Client(slot));
        }
    }

    fn find(&self, id: &str) -> Option<u32> {
        let clients = &self.clients;
        self.by_id.find(id, |slot| clients.get(slot).map_or("", |client| &client.id))
    }

    fn find_address(&self, key: AddressKey<'_>) -> Option<u32> {
        let clients = &self.clients;
        self.by_address.find_by(Some(key), |slot| clients.get(slot)?.address.as_ref().map(Address::key))
    }

    /// The client of a link that is still its link.
    fn of_link(&mut self, link: LinkId) -> Option<u32> {
        let client = self.clients.get(link.slot).filter(|client| client.link == link)?;
        debug_assert_eq!(client.link, link);
        self.touched = Some(link.slot);
        Some(link.slot)
    }

    fn add(&mut self, client: Client) -> u32 {
        let slot = self.clients.insert(client);
        let clients = &self.clients;
        let id_of = |slot: u32| clients.get(slot).map_or("", |client| &*client.id);
        self.by_id.insert_unique(id_of(slot), slot, id_of);
        let key_of = |slot: u32| clients.get(slot).and_then(|client| client.address.as_ref()).map(Address::key);
        if key_of(slot).is_some() {
            self.by_address.insert_unique_by(key_of(slot), slot, key_of);
        }
        slot
    }

    fn remove(&mut self, slot: u32) {
        self.unbind(slot);
        let Some(client) = self.clients.remove(slot) else { return };
        self.by_id.remove(&*client.id, slot);
        self.timers.cancel(client.armed, Timer::Client(slot));
        if client.state == ClientState::Connecting {
            self.connecting -= 1;
        }
    }

    /// The client is nowhere: what is under way to it waits.
    fn unbind(&mut self, slot: u32) {
        let Some(client) = self.clients.get_mut(slot) else { return };
        if let Some(address) = client.address.take() {
            client.take_back();
            self.by_address.remove(&Some(address.key()), slot);
        }
    }

    /// The client is here; whoever was here is somewhere else.
    fn bind(&mut self, slot: u32, address: Address) {
        match self.find_address(address.key()) {
            Some(other) if other == slot => return,
            Some(other) => {
                self.counters.taken_over += 1;
                self.unbind(other);
            }
            None => {}
        }
        self.unbind(slot);
        let Some(client) = self.clients.get_mut(slot) else { return };
        client.address = Some(address);
        let clients = &self.clients;
        let key_of = |slot: u32| clients.get(slot).and_then(|client| client.address.as_ref()).map(Address::key);
        self.by_address.insert_unique_by(key_of(slot), slot, key_of);
    }

    /// A name for a new link of this slot.
    fn name_link(&mut self, slot: u32) -> LinkId {
        let serial = self.next_serial;
        self.next_serial = serial.wrapping_add(1);
        LinkId { slot, serial }
    }

    /// Sends a message to a client, if it is known where that is.
    fn tell(&mut self, round: &mut Round<'_>, slot: u32, message: &Message<'_>) {
        let Some(client) = self.clients.get(slot) else { return };
        let Some(address) = &client.address else { return };
        let forwarded = address.node.as_deref().map(|node| Encapsulation { radius: 0, node });
        send(round, &mut self.counters, address.endpoint, &Datagram { forwarded, message: *message });
    }

    /// Whether a stranger may be answered.
    fn may_answer_stranger(&mut self, now: Instant) -> bool {
        let second = now.as_nanos() / 1_000_000_000;
        if second != self.strays.second {
            self.strays = Bucket { tokens: self.config.stray_replies_per_second, second };
        }
        if self.strays.tokens == 0 {
            self.counters.stray_unanswered += 1;
            return false;
        }
        self.strays.tokens -= 1;
        true
    }
}

/// Sends a datagram.
fn send(round: &mut Round<'_>, counters: &mut Counters, to: crate::Endpoint, datagram: &Datagram<'_>) {
    let mut data = Vec::new();
    datagram.encode(&mut data).expect("what is sent was measured, and a client's node id came in a datagram");
    counters.sent += 1;
    round.out.push(Output::Datagram { to, data });
}

/// Hands a packet to the broker.
fn hand_over(round: &mut Round<'_>, link: LinkId, packet: &Packet<'_>) {
    let mut data = Vec::new();
    packet.encode(ProtocolVersion::V5, &mut data).expect("a datagram's fields fit into a packet's");
    round.out.push(Output::Bytes { link, data });
}
