//! The clients' ends of their connections: what they ask for, what reaches them, and when they want to be woken.

use newtmq_base::Instant;

use super::World;
use super::link::{ClientEnd, Link, NewLink, ServerEnd};
use super::pipe::What;
use super::queue::Happening;
use crate::client::sn::SnClient;
use crate::client::{Client, ClientOutput, Context};
use crate::draw::{mix, of_name};
use crate::history::{ClientIx, Closer, ConnIx};
use crate::scenario::{Acks, Act, ClientSpec, Scenario};

/// A client and its network.
#[derive(Debug)]
pub(super) struct End {
    pub(super) model: Model,
    node: u16,
    pub(super) name: u64,
    /// How many connections it asked for.
    pub(super) asked: u64,
    /// The one that it has.
    pub(super) link: Option<u32>,
    pub(super) reads: bool,
    /// An event is in the queue for this time.
    armed: Instant,
    /// Toward the server, toward the client.
    pub(super) cut: (bool, bool),
    pub(super) bandwidth: u64,
    /// What steps did to it.
    pub(super) acks: Acks,
    pub(super) stopped_reading: bool,
    pub(super) frozen: bool,
    /// A connection of a client of MQTT-SN of which its gateway has not heard.
    pub(super) unheard: Option<ConnIx>,
}

/// What a client speaks.
#[derive(Debug)]
pub(super) enum Model {
    Mqtt(Box<Client>),
    Sn(Box<SnClient>),
}

impl Model {
    fn act(&mut self, act: &Act, cx: &mut Context<'_>) {
        match self {
            Model::Mqtt(client) => client.act(act, cx),
            Model::Sn(client) => client.act(act, cx),
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        match self {
            Model::Mqtt(client) => client.next_deadline(),
            Model::Sn(client) => client.next_deadline(),
        }
    }

    fn on_tick(&mut self, cx: &mut Context<'_>) {
        match self {
            Model::Mqtt(client) => client.on_tick(cx),
            Model::Sn(client) => client.on_tick(cx),
        }
    }

    /// One that has connections.
    fn mqtt(&mut self) -> &mut Client {
        match self {
            Model::Mqtt(client) => client,
            Model::Sn(_) => unreachable!("a client of MQTT-SN opens no connection"),
        }
    }
}

impl End {
    pub(super) fn new(ix: u32, spec: &ClientSpec, scenario: &Scenario) -> End {
        let ix = ClientIx(ix);
        End {
            model: if spec.sn {
                Model::Sn(Box::new(SnClient::new(ix, spec, scenario)))
            } else {
                Model::Mqtt(Box::new(Client::new(ix, spec, scenario.seed)))
            },
            node: spec.node,
            name: of_name(&spec.name),
            asked: 0,
            link: None,
            reads: true,
            armed: Instant::NEVER,
            cut: (false, false),
            bandwidth: 0,
            acks: spec.acks,
            stopped_reading: false,
            frozen: false,
            unheard: None,
        }
    }
}

impl End {
    /// Whether it sleeps, as clients of MQTT-SN do.
    pub(super) fn sleeps(&self) -> bool {
        matches!(&self.model, Model::Sn(client) if client.sleeps())
    }
}

impl World<'_, '_> {
    /// A step for a client.
    pub(super) fn act(&mut self, client: ClientIx, act: &Act) {
        let Some(end) = self.clients.get_mut(client.0 as usize) else { return };
        #[allow(clippy::wildcard_enum_match_arm)] // only these last
        match act {
            Act::SetAcks(acks) => end.acks = *acks,
            Act::SetReading(on) => end.stopped_reading = !on,
            Act::Freeze(on) => end.frozen = *on,
            _ => {}
        }
        self.with_client(client.0, |model, cx| model.act(act, cx));
    }

    /// Lets a client do something, and does what it asks for.
    #[inline]
    pub(super) fn with_client(&mut self, ix: u32, call: impl FnOnce(&mut Model, &mut Context<'_>)) {
        if self.over {
            return;
        }
        let mut cx = Context {
            now: self.queue.now(),
            names: &mut self.observer.names,
            events: &mut self.events,
            out: &mut self.client_outputs,
            next_conn: &mut self.next_conn,
        };
        call(&mut self.clients[ix as usize].model, &mut cx);
        self.after_client(ix);
    }

    /// After each call of a client.
    fn after_client(&mut self, ix: u32) {
        let now = self.queue.now();
        let events = core::mem::take(&mut self.events);
        for event in &events {
            self.note_unheard(event);
            self.observer.event(now, event);
        }
        self.events = events;
        self.events.clear();
        if !self.client_outputs.is_empty() {
            let mut outputs = core::mem::take(&mut self.client_outputs);
            for output in outputs.drain(..) {
                self.carry_out(ix, output);
            }
            self.client_outputs = outputs;
        }
        let end = &mut self.clients[ix as usize];
        if let Some(deadline) = end.model.next_deadline()
            && deadline < end.armed
        {
            end.armed = deadline.max(now);
            self.queue.push(deadline, Happening::Client(ix));
        }
    }

    pub(super) fn on_client_tick(&mut self, ix: u32) {
        let now = self.queue.now();
        let end = &mut self.clients[ix as usize];
        if end.armed > now {
            return;
        }
        end.armed = Instant::NEVER;
        if end.model.next_deadline().is_some_and(|deadline| deadline <= now) {
            self.with_client(ix, Model::on_tick);
        } else {
            self.with_client(ix, |_, _| {});
        }
    }

    fn carry_out(&mut self, ix: u32, output: ClientOutput) {
        let now = self.queue.now();
        if let ClientOutput::Open = output {
            let end = &mut self.clients[ix as usize];
            end.node = end.model.mqtt().node();
            return self.open(ix);
        }
        if let ClientOutput::Datagram(datagram) = output {
            return self.send_datagram(ix, *datagram);
        }
        let end = &mut self.clients[ix as usize];
        if let ClientOutput::Read(on) = output {
            end.reads = on;
            if on && let Some(at) = end.link {
                self.arm_to_client(at);
            }
            return;
        }
        let Some(at) = end.link else { return };
        let net = &self.scenario.net;
        let Some(link) = self.links[at as usize].as_deref_mut() else { return };
        match output {
            ClientOutput::Send(bytes) => {
                if link.ix.is_none() {
                    link.ix = end.model.mqtt().conn();
                }
                if !matches!(link.server, ServerEnd::Closed) {
                    link.to_server.buffer().extend_from_slice(&bytes);
                    link.to_server.wrote(now, bytes.len(), net);
                    self.arm_to_server(at);
                }
                self.clients[ix as usize].model.mqtt().sent(bytes);
                return;
            }
            ClientOutput::Close => {
                link.to_server.send(now, What::Fin, net);
                link.to_client.clear();
            }
            ClientOutput::Reset => {
                link.to_server.clear();
                link.to_server.send(now, What::Rst, net);
                link.to_client.clear();
            }
            ClientOutput::Abandon => link.to_client.kill(),
            ClientOutput::Open | ClientOutput::Datagram(_) | ClientOutput::Read(_) => {}
        }
        link.client_end = ClientEnd::Gone;
        end.link = None;
        end.reads = true;
        self.arm_to_server(at);
        self.unblock(at);
        self.free_if_over(at);
    }

    /// A client asks for a connection.
    fn open(&mut self, ix: u32) {
        let now = self.queue.now();
        let end = &mut self.clients[ix as usize];
        assert!(end.link.is_none(), "a client has one connection");
        end.asked += 1;
        let (client, node, seed) = (ix, end.node, self.scenario.seed);
        let name = mix(end.name.wrapping_add(end.asked));
        let mut link = Link::new(NewLink { client, node, seed, name, cut: end.cut, bandwidth: end.bandwidth });
        link.to_server.send(now, What::Syn, &self.scenario.net);
        let at = u32::try_from(self.links.len()).expect("a run has fewer than 2^32 connections");
        self.links.push(Some(Box::new(link)));
        self.clients[ix as usize].link = Some(at);
        self.arm_to_server(at);
    }

    /// Something has reached the client's machine.
    pub(super) fn on_to_client(&mut self, at: u32) {
        let now = self.queue.now();
        if self.links[at as usize].as_deref().is_some_and(|link| link.sn.is_some()) {
            return self.on_to_gateway(at);
        }
        if !self.links[at as usize].as_deref_mut().is_some_and(|link| link.to_client.fired(now)) {
            return;
        }
        while let Some(link) = self.links[at as usize].as_deref_mut() {
            let ix = link.client;
            let end = &mut self.clients[ix as usize];
            if link.client_end == ClientEnd::Gone {
                return;
            }
            if self.over || (!end.reads && link.client_end == ClientEnd::Open) {
                // It stays in the socket. Reading again is another event.
                return;
            }
            let Some((what, data, sent_at)) = link.to_client.arrived(now) else { break };
            match what {
                What::Data(_) => {
                    let mut cx = Context {
                        now,
                        names: &mut self.observer.names,
                        events: &mut self.events,
                        out: &mut self.client_outputs,
                        next_conn: &mut self.next_conn,
                    };
                    end.model.mqtt().on_bytes(data, sent_at, &mut cx);
                    link.to_client.read();
                    if link.blocked {
                        self.unblock(at);
                    }
                    self.after_client(ix);
                }
                What::Syn => {
                    link.to_client.read();
                    link.client_end = ClientEnd::Open;
                    self.with_client(ix, |model, cx| model.mqtt().on_open(cx));
                }
                What::Note => unreachable!("only a gateway is told something beside bytes"),
                What::Fin | What::Rst => {
                    link.to_client.read();
                    link.client_end = ClientEnd::Gone;
                    end.link = None;
                    end.reads = true;
                    let by = if what == What::Fin { Closer::Server } else { Closer::Network };
                    self.free_if_over(at);
                    self.with_client(ix, |model, cx| model.mqtt().on_closed(by, cx));
                }
            }
        }
        self.arm_to_client(at);
    }

    #[inline]
    pub(super) fn arm_to_client(&mut self, at: u32) {
        if let Some(arrives) = self.links[at as usize].as_deref_mut().and_then(|link| link.to_client.arm()) {
            self.queue.push(arrives, Happening::ToClient(at));
        }
    }

    /// Sends the client something that has no bytes.
    pub(super) fn send_to_client(&mut self, at: u32, what: What) {
        let now = self.queue.now();
        let Some(link) = self.links[at as usize].as_deref_mut() else { return };
        if what == What::Rst {
            link.to_client.clear();
        }
        let net = if link.sn.is_some() { &self.sn.inside } else { &self.scenario.net };
        link.to_client.send(now, what, net);
        self.arm_to_client(at);
    }

    /// The socket takes bytes again.
    pub(super) fn unblock(&mut self, at: u32) {
        let now = self.queue.now();
        if let Some(link) = self.links[at as usize].as_deref_mut()
            && core::mem::replace(&mut link.blocked, false)
        {
            self.queue.push(now, Happening::Pump(at));
        }
    }

    /// Forgets a connection that nobody has any more.
    pub(super) fn free_if_over(&mut self, at: u32) {
        if self.links[at as usize].as_deref().is_some_and(Link::is_over) {
            self.links[at as usize] = None;
        }
    }

    /// All connections of a client that are not over.
    pub(super) fn links_of(&self, client: u32) -> Vec<u32> {
        let links = self.links.iter().enumerate();
        let own =
            links.filter(|(_, link)| link.as_deref().is_some_and(|link| link.client == client && link.sn.is_none()));
        own.map(|(at, _)| at as u32).collect()
    }
}
