//! MQTT-SN: the network on which datagrams are lost, doubled and late, and the gateway of each node, joined to the shards
//! as `core/mqtt-sn` says and the broker does it: a link is a connection whose other end is the gateway, with notes beside its
//! bytes. No rule of MQTT-SN is here.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use newtmq_base::Instant;
use newtmq_mqtt_sn::{ClientState, Datagram, Gateway, Input, LinkId, Output, WILL_DELAY_SECS};
use newtmq_node::{NewWill, ShardInput};

use super::World;
use super::ends::Model;
use super::link::{ClientEnd, Link, NewLink, Note, Told};
use super::node::State;
use super::pipe::What;
use super::purpose;
use super::queue::Happening;
use super::settings;
use crate::client::sn::{Meaning, SnArrival, SnDatagram};
use crate::draw::{Stream, mix};
use crate::history::{Closer, ConnIx, Event, SnConnect};
use crate::report::Check;
use crate::scenario::{NetSpec, Scenario};

/// More bytes than these that a shard has not read, and the gateway holds back; until half of them are left.
const UNREAD_MAX: usize = 4 << 10;

/// The network of datagrams.
#[derive(Debug)]
pub(super) struct Sn {
    /// Between a gateway and its shards.
    pub(super) inside: NetSpec,
    /// Datagrams under way, and places for more.
    flying: Vec<Option<Flying>>,
    free: Vec<u32>,
    sent: u64,
    /// Of each client, to its gateway and back.
    chance: Vec<[Stream; 2]>,
    /// When each client sent last, counted in datagrams: of several with one address the last one has it.
    spoke: Vec<u64>,
    /// All faults are over.
    pub(super) calm: bool,
    /// Messages that have come to a gateway, by connection.
    arrived: BTreeSet<(ConnIx, u32)>,
}

/// The gateway of a node.
#[derive(Debug)]
pub(super) struct NodeGateway {
    gateway: Gateway,
    links: BTreeMap<LinkId, u32>,
    armed: Instant,
    /// Most messages that wait in it for one client.
    waiting_max: usize,
}

/// A datagram.
#[derive(Debug)]
struct Flying {
    number: u64,
    sent_at: Instant,
    bytes: Vec<u8>,
    to: To,
}

#[derive(Debug, Clone, Copy)]
enum To {
    Gateway { node: u16, from: SocketAddr, client: u32, conn: Option<ConnIx>, meaning: Meaning },
    Client { to: SocketAddr, from: u16 },
}

/// Who and what a call of a gateway is about.
#[derive(Debug, Clone, Copy)]
struct About {
    client: u32,
    conn: Option<ConnIx>,
}

impl Sn {
    pub(super) fn new(scenario: &Scenario) -> Sn {
        let net = &scenario.net;
        let chance = |client: &crate::scenario::ClientSpec| {
            let name = crate::draw::of_name(&client.name);
            [purpose::SN_TO_GATEWAY, purpose::SN_TO_CLIENT].map(|way| Stream::new(scenario.seed, way, name))
        };
        Sn {
            inside: NetSpec {
                latency_us: net.shard_delay_us.clone(),
                loss_ppm: 0,
                chunk_bytes: u64::from(u16::MAX)..=u64::from(u16::MAX),
                socket_bytes: 64 << 10,
                ..net.clone()
            },
            flying: Vec::new(),
            free: Vec::new(),
            sent: 0,
            chance: scenario.clients.iter().map(chance).collect(),
            spoke: vec![0; scenario.clients.len()],
            calm: false,
            arrived: BTreeSet::new(),
        }
    }

    /// When the copies of a datagram arrive; none if it is lost.
    fn fly(&mut self, client: u32, way: usize, now: Instant, scenario: &Scenario) -> Vec<Instant> {
        let spec = &scenario.sn;
        let calm = self.calm;
        let chance = &mut self.chance[client as usize][way];
        if !calm && chance.chance_ppm(spec.loss_ppm) {
            return Vec::new();
        }
        let copies = if !calm && chance.chance_ppm(spec.dup_ppm) { 2 } else { 1 };
        let mut arrival = || {
            let delay_us = chance.between(*spec.latency_us.start(), *spec.latency_us.end());
            let late = !calm && chance.chance_ppm(spec.late_ppm);
            let late_us = if late { chance.between(0, spec.late_us) } else { 0 };
            now + Duration::from_micros(delay_us + late_us)
        };
        (0..copies).map(|_| arrival()).collect()
    }

    fn place(&mut self, flying: Flying) -> u32 {
        let at = self.free.pop().unwrap_or_else(|| {
            self.flying.push(None);
            u32::try_from(self.flying.len() - 1).expect("a run has fewer than 2^32 datagrams under way")
        });
        self.flying[at as usize] = Some(flying);
        at
    }
}

impl World<'_, '_> {
    /// A node that starts has a gateway that knows nobody.
    pub(super) fn start_gateway(&mut self, node: u16) {
        if !self.scenario.has_sn() {
            return;
        }
        let now = self.queue.now();
        let of = &mut self.nodes[usize::from(node)];
        let (shown, config) = (of.clock.at(now), settings::gateway_config(self.scenario, of.id()));
        // Those of QoS 0, one with QoS 1 or 2, and one under way.
        let waiting_max = config.max_buffer_len + 2;
        let gateway = Gateway::new(config, u64::from(of.start), shown);
        let links = BTreeMap::new();
        of.gateway = Some(Box::new(NodeGateway { gateway, links, armed: Instant::NEVER, waiting_max }));
        self.arm_gateway(node);
    }

    /// Nobody is there any more: gateways are gone with everything in their memory.
    pub(super) fn end_gateways(&mut self) {
        for node in &mut self.nodes {
            node.gateway = None;
        }
    }

    fn arm_gateway(&mut self, node: u16) {
        let of = &mut self.nodes[usize::from(node)];
        let Some(known) = of.gateway.as_deref_mut() else { return };
        let Some(at) = known.gateway.next_deadline().filter(|at| *at < Instant::NEVER) else { return };
        let at = of.clock.when(at);
        if at < known.armed {
            known.armed = at;
            self.queue.push(at, Happening::GatewayTick { node, start: of.start });
        }
    }

    pub(super) fn on_gateway_tick(&mut self, node: u16) {
        let now = self.queue.now();
        let of = &mut self.nodes[usize::from(node)];
        let Some(known) = of.gateway.as_deref_mut().filter(|known| known.armed <= now) else { return };
        known.armed = Instant::NEVER;
        if known.gateway.next_deadline().is_some_and(|deadline| deadline <= of.clock.at(now)) {
            self.gateway_input(node, Input::Tick, None);
        } else {
            self.arm_gateway(node);
        }
    }

    /// A client sends a datagram.
    pub(super) fn send_datagram(&mut self, client: u32, datagram: SnDatagram) {
        let now = self.queue.now();
        self.sn.sent += 1;
        let number = self.sn.sent;
        self.sn.spoke[client as usize] = number;
        if self.clients[client as usize].cut.0 {
            return;
        }
        let SnDatagram { node, from, conn, meaning, bytes } = datagram;
        let to = To::Gateway { node, from, client, conn, meaning };
        let arrivals = self.sn_flights(client, 0, now);
        self.let_fly(arrivals, Flying { number, sent_at: now, bytes, to });
    }

    fn sn_flights(&mut self, client: u32, way: usize, now: Instant) -> Vec<Instant> {
        let World { sn, scenario, .. } = self;
        sn.fly(client, way, now, scenario)
    }

    fn let_fly(&mut self, arrivals: Vec<Instant>, flying: Flying) {
        for at in arrivals {
            let Flying { number, sent_at, ref bytes, to } = flying;
            let place = self.sn.place(Flying { number, sent_at, bytes: bytes.clone(), to });
            self.queue.push(at, Happening::Datagram(place));
        }
    }

    /// A gateway sends a datagram.
    fn send_to_address(&mut self, from: u16, to: SocketAddr, bytes: Vec<u8>) {
        let now = self.queue.now();
        let Some(client) = self.holder(to, &bytes) else { return };
        self.sn.sent += 1;
        let number = self.sn.sent;
        if !self.clients[client as usize].cut.1 {
            let to = To::Client { to, from };
            let arrivals = self.sn_flights(client, 1, now);
            self.let_fly(arrivals, Flying { number, sent_at: now, bytes, to });
        }
    }

    /// Who has an address: behind a forwarder the one that the datagram names.
    fn holder(&self, address: SocketAddr, bytes: &[u8]) -> Option<u32> {
        let named = Datagram::decode(bytes).ok().and_then(|datagram| datagram.forwarded);
        let at_it = |(ix, spec): &(usize, &crate::scenario::ClientSpec)| {
            let Model::Sn(client) = &self.clients[*ix].model else { return false };
            client.address() == address && named.is_none_or(|forwarded| forwarded.node == spec.name.as_bytes())
        };
        let holders = self.scenario.clients.iter().enumerate().filter(at_it);
        holders.map(|(ix, _)| ix as u32).max_by_key(|ix| self.sn.spoke[*ix as usize])
    }

    fn hears(&self, client: u32, node: u16) -> bool {
        matches!(&self.clients[client as usize].model, Model::Sn(model) if model.node() == node)
    }

    /// A datagram has come to its address.
    pub(super) fn on_datagram(&mut self, place: u32) {
        let Some(flying) = self.sn.flying[place as usize].take() else { return };
        self.sn.free.push(place);
        if self.over {
            return;
        }
        let Flying { number, sent_at, bytes, to } = flying;
        match to {
            To::Client { to, from } => {
                let Some(ix) = self.holder(to, &bytes).filter(|ix| !self.clients[*ix as usize].cut.1) else {
                    return;
                };
                // Its socket is connected with one gateway. What another one says, which does not know yet that the client has gone,
                // does not come through.
                if !self.hears(ix, from) {
                    return;
                }
                let arrival = SnArrival { number, sent_at, bytes: &bytes };
                self.with_client(ix, |model, cx| {
                    if let Model::Sn(client) = model {
                        client.on_datagram(&arrival, cx);
                    }
                });
            }
            To::Gateway { node, from, client, conn, meaning } => {
                let of = &self.nodes[usize::from(node)];
                // A node that does nothing does not empty its socket either.
                if of.state == State::Down || of.paused_until.is_some() || of.witness {
                    return;
                }
                self.note_arrival(node, client, conn, meaning);
                let input = Input::Datagram { from: from.into(), data: &bytes };
                self.gateway_input(node, input, Some(About { client, conn }));
                self.note_link(node, from, About { client, conn });
            }
        }
    }

    /// What the history says of a datagram that has come: a PUBLISH each time, but for one of QoS 2 that says nothing new.
    fn note_arrival(&mut self, node: u16, ix: u32, conn: Option<ConnIx>, meaning: Meaning) {
        let now = self.queue.now();
        let (Some(conn), Model::Sn(client)) = (conn, &self.clients[ix as usize].model) else { return };
        match meaning {
            Meaning::Other => {}
            Meaning::Publish(mut facts) => {
                // Empty ones have no number.
                let empty = 1 << 31 | u32::from(facts.pid.unwrap_or(0));
                let again = !self.sn.arrived.insert((conn, facts.uid.map_or(empty, |uid| uid.number)));
                let waits = client.conn() == Some(conn) && facts.pid.is_some_and(|pid| client.waits_for(pid));
                if facts.qos == newtmq_mqtt::QoS::ExactlyOnce && again && !waits && client.conn() == Some(conn) {
                    return;
                }
                facts.dup |= again && facts.pid.is_some();
                facts.pid = facts.pid.filter(|_| waits);
                self.observer.event(now, &Event::Publish { conn, facts });
            }
            Meaning::Disconnect => {
                let code = newtmq_mqtt::ReasonCode::Success;
                let known = self.nodes[usize::from(node)].gateway.as_deref();
                let link = known.and_then(|known| Some((known, known.gateway.client(client.id())?.link)));
                let at = link.and_then(|(known, link)| known.links.get(&link));
                let ix = at.and_then(|at| self.links[*at as usize].as_deref()).and_then(|link| link.ix);
                if ix == Some(conn) {
                    let event = Event::Disconnect { conn, by: Closer::Client, code, expiry_s: None };
                    self.observer.event(now, &event);
                }
            }
        }
    }

    /// A client comes anew: of its connection before, of which no gateway has heard, none will hear any more.
    #[inline]
    pub(super) fn note_unheard(&mut self, event: &Event) {
        let Event::Connect { conn, client, facts } = event else { return };
        if matches!(facts.sn, Some(SnConnect::Connect | SnConnect::Wake)) {
            let now = self.queue.now();
            if let Some(conn) = self.clients[client.0 as usize].unheard.replace(*conn) {
                self.observer.event(now, &Event::Gone { conn });
            }
        }
    }

    /// A client that connects, or wakes, may go on with the link that it has: that belongs to its new connection then.
    fn note_link(&mut self, node: u16, from: SocketAddr, about: About) {
        let now = self.queue.now();
        let Model::Sn(client) = &self.clients[about.client as usize].model else { return };
        let (Some(conn), Some(known)) = (about.conn, self.nodes[usize::from(node)].gateway.as_deref()) else { return };
        let Some(view) = known.gateway.client(client.id()) else { return };
        let Some(at) = known.links.get(&view.link).copied() else { return };
        // A clean session with a will has a link of its own, when its will is told.
        if client.conn() != Some(conn) || view.endpoint != Some(from.into()) || client.connects_anew() {
            return;
        }
        let Some(link) = self.links[at as usize].as_deref_mut() else { return };
        if let Some(old) = link.ix.filter(|old| *old < conn) {
            link.ix = Some(conn);
            link.client = about.client;
            self.clients[about.client as usize].unheard = None;
            self.observer.event(now, &Event::Gone { conn: old });
        }
    }

    /// One input to a gateway, and what it asks for. `about` is who has sent a datagram.
    fn gateway_input(&mut self, node: u16, input: Input<'_>, about: Option<About>) {
        let now = self.queue.now();
        let of = &mut self.nodes[usize::from(node)];
        let Some(known) = of.gateway.as_deref_mut() else { return };
        let mut outputs = Vec::new();
        known.gateway.handle(of.clock.at(now), input, &mut outputs);
        for output in outputs {
            match output {
                Output::Datagram { to, data } => self.send_to_address(node, to.address(), data),
                Output::Broadcast { .. } => {}
                Output::Open { link, client, peer } => {
                    let about = about.or_else(|| self.whose(peer.address(), &client));
                    self.open_link(node, link, &client, about);
                }
                Output::Bytes { link, data } => self.write_to_shard(node, link, &data),
                Output::Close { link } => self.close_link(node, link),
                Output::Will { link, will } => {
                    let will = will.map(|will| {
                        let newtmq_mqtt_sn::Will { topic, payload, qos, retain } = will;
                        Box::new(NewWill { topic, payload, qos, retain, delay_interval: WILL_DELAY_SECS })
                    });
                    self.note_to_shard(node, link, Note::Will(will));
                }
                Output::Keep { link, record } => self.note_to_shard(node, link, Note::Keep(record.into())),
                Output::Outlive { link, expiry_interval } => {
                    self.note_to_shard(node, link, Note::Outlive(expiry_interval));
                }
            }
        }
        self.arm_gateway(node);
    }

    /// Who waits at an address for its link.
    fn whose(&self, address: SocketAddr, id: &str) -> Option<About> {
        let mut clients = self.clients.iter().enumerate();
        clients.find_map(|(ix, end)| match &end.model {
            Model::Sn(model) if model.id() == id && model.address() == address => {
                // Its power may have failed since it asked.
                Some(About { client: ix as u32, conn: model.conn().or(model.last_conn()) })
            }
            Model::Sn(_) | Model::Mqtt(_) => None,
        })
    }

    fn open_link(&mut self, node: u16, name: LinkId, id: &str, about: Option<About>) {
        let now = self.queue.now();
        // Of a client that has gone to another address meanwhile nobody knows.
        let Some(About { client, conn }) = about else { return };
        let end = &mut self.clients[client as usize];
        end.asked += 1;
        let key = mix(end.name.wrapping_add(end.asked));
        let is_own = matches!(&end.model, Model::Sn(model) if model.id() == id);
        let seed = self.scenario.seed;
        let mut link = Link::new(NewLink { client, node, seed, name: key, cut: (false, false), bandwidth: 0 });
        link.sn = Some(name);
        link.ix = conn.filter(|_| is_own);
        if link.ix.is_some() {
            self.clients[client as usize].unheard = None;
        }
        link.client_end = ClientEnd::Open;
        link.to_server.send(now, What::Syn, &self.sn.inside);
        let at = u32::try_from(self.links.len()).expect("a run has fewer than 2^32 connections");
        self.links.push(Some(Box::new(link)));
        if let Some(known) = self.nodes[usize::from(node)].gateway.as_deref_mut() {
            known.links.insert(name, at);
        }
        self.arm_to_server(at);
    }

    fn link_named(&self, node: u16, name: LinkId) -> Option<u32> {
        self.nodes[usize::from(node)].gateway.as_deref()?.links.get(&name).copied()
    }

    fn write_to_shard(&mut self, node: u16, name: LinkId, data: &[u8]) {
        let now = self.queue.now();
        let Some(at) = self.link_named(node, name) else { return };
        let Some(link) = self.links[at as usize].as_deref_mut() else { return };
        link.to_server.buffer().extend_from_slice(data);
        link.to_server.wrote(now, data.len(), &self.sn.inside);
        let holds = !link.gateway_held && link.to_server.len() > UNREAD_MAX;
        link.gateway_held |= holds;
        self.arm_to_server(at);
        if holds {
            self.gateway_input(node, Input::Held { link: name, held: true }, None);
        }
    }

    /// A shard has read: the gateway need not hold back any more.
    pub(super) fn let_gateway_go_on(&mut self, at: u32) {
        let Some(link) = self.links[at as usize].as_deref_mut() else { return };
        let Some(name) = link.sn.filter(|_| link.gateway_held && link.to_server.len() <= UNREAD_MAX / 2) else {
            return;
        };
        link.gateway_held = false;
        let node = link.node;
        self.gateway_input(node, Input::Held { link: name, held: false }, None);
    }

    fn note_to_shard(&mut self, node: u16, name: LinkId, note: Note) {
        let now = self.queue.now();
        let Some(at) = self.link_named(node, name) else { return };
        let Some(link) = self.links[at as usize].as_deref_mut() else { return };
        link.notes.push_back(note);
        link.to_server.send(now, What::Note, &self.sn.inside);
        self.arm_to_server(at);
    }

    /// A note has come to the shard.
    pub(super) fn on_note(&mut self, at: u32) {
        let link = self.link(at);
        let (node, shard, conn) = (link.node, link.shard, link.conn);
        let note = link.notes.pop_front().expect("it was sent with the mark that has come");
        let input = match note {
            Note::Will(will) => ShardInput::SetWill { conn, will },
            Note::Keep(record) => ShardInput::Keep { conn, record },
            Note::Outlive(expiry_interval) => ShardInput::Outlive { conn, expiry_interval },
        };
        self.input(node, shard, input);
    }

    /// A shard says something beside its bytes. A client of MQTT that has taken a device's session has no use for it.
    pub(super) fn tell_gateway(&mut self, at: u32, told: Told) {
        if self.link(at).sn.is_none() {
            return;
        }
        self.link(at).told.push_back(told);
        self.send_to_client(at, What::Note);
    }

    fn close_link(&mut self, node: u16, name: LinkId) {
        let now = self.queue.now();
        let known = self.nodes[usize::from(node)].gateway.as_deref_mut();
        let Some(at) = known.and_then(|known| known.links.remove(&name)) else { return };
        let Some(link) = self.links[at as usize].as_deref_mut() else { return };
        link.to_server.send(now, What::Fin, &self.sn.inside);
        link.client_end = ClientEnd::Gone;
        link.to_client.clear();
        self.arm_to_server(at);
        self.unblock(at);
        self.free_if_over(at);
    }

    /// Something of a shard has come to its gateway.
    pub(super) fn on_to_gateway(&mut self, at: u32) {
        let now = self.queue.now();
        if !self.links[at as usize].as_deref_mut().is_some_and(|link| link.to_client.fired(now)) {
            return;
        }
        while let Some(link) = self.links[at as usize].as_deref_mut() {
            let (node, Some(name)) = (link.node, link.sn) else { return };
            if link.client_end == ClientEnd::Gone {
                return;
            }
            let Some((what, data, _)) = link.to_client.arrived(now) else { break };
            let data = data.to_vec();
            link.to_client.read();
            match what {
                What::Syn => {}
                What::Data(_) => {
                    if link.blocked {
                        self.unblock(at);
                    }
                    self.gateway_input(node, Input::Bytes { link: name, data: &data }, None);
                    self.look_at_buffers(node);
                }
                What::Note => match link.told.pop_front().expect("it was sent with the mark that has come") {
                    Told::WillSet(accepted) => {
                        self.gateway_input(node, Input::WillSet { link: name, accepted }, None);
                    }
                    Told::Record(record) => {
                        self.gateway_input(node, Input::Record { link: name, record: &record }, None);
                    }
                },
                What::Fin | What::Rst => {
                    link.client_end = ClientEnd::Gone;
                    if let Some(known) = self.nodes[usize::from(node)].gateway.as_deref_mut() {
                        known.links.remove(&name);
                    }
                    self.free_if_over(at);
                    self.gateway_input(node, Input::Closed { link: name }, None);
                }
            }
        }
        self.arm_to_client(at);
    }

    /// No more waits at a gateway for a client than its limit says.
    fn look_at_buffers(&mut self, node: u16) {
        let known = self.nodes[usize::from(node)].gateway.as_deref();
        let full = known.and_then(|known| known.gateway.clients().find(|client| client.waiting > known.waiting_max));
        let what = full.map(|client| format!("{} messages wait at the gateway for {}", client.waiting, client.id));
        if let Some(what) = what.filter(|_| self.options.white_box) {
            self.found(Check::Queues, node, 0, what);
        }
    }

    /// Who sleeps comes in time, or is lost.
    pub(super) fn look_at_sleepers(&mut self) {
        let now = self.queue.now();
        for node in 0..self.nodes.len() as u16 {
            let of = &self.nodes[usize::from(node)];
            let shown = of.clock.at(now);
            // Half as long again, and a minute for what a wrong clock and retries take.
            let late = |client: &newtmq_mqtt_sn::ClientView<'_>| {
                let asleep = matches!(client.state, ClientState::Asleep | ClientState::Awake);
                let longest = Duration::from_secs(u64::from(client.sleep) * 3 / 2 + 60);
                asleep && shown.saturating_since(client.heard) > longest
            };
            let known = of.gateway.as_deref().filter(|_| self.options.white_box);
            let found = known.and_then(|known| known.gateway.clients().find(late)).map(|client| {
                format!("{} was to sleep for {} s, did not come, and is still there", client.id, client.sleep)
            });
            if let Some(what) = found {
                self.found(Check::Leak, node, 0, what);
            }
        }
    }
}
