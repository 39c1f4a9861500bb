//! The driver's side of docs/adr/0001, to the letter: what was not taken is kept and nothing is passed on until Resume;
//! `Closed` comes after what was kept; `fill` is called until it is drained, when the socket can take bytes; after
//! `Close` the output is drained, then the connection is closed and `Closed` delivered; `Abort` closes at once. What a
//! shard asks for is never done within the call that it asked in.

use bytes::Buf as _;
use newtmq_base::{ListenerId, ShardId};
use newtmq_node::{
    CloseCause, ControlInput, ControlOutput, Fill, MemoryPressure, Output, Peer, ShardInput, Taken, TimerKind,
};

use super::World;
use super::link::{ClientEnd, ServerEnd, Told};
use super::node::{Letter, State};
use super::pipe::What;
use super::queue::{Command, Happening};
use crate::history::Event;

/// Most times in a row that `fill` may say More and give nothing.
const EMPTY_FILLS_MAX: u32 = 10_000;

impl World<'_, '_> {
    /// One input to a shard, and what it asks for.
    #[inline]
    pub(super) fn input(&mut self, node: u16, shard: u16, input: ShardInput<'_>) -> Taken {
        let now = self.queue.now();
        let of = &mut self.nodes[usize::from(node)];
        let shown = of.clock.at(now);
        let taken = of.shards[usize::from(shard)].shard.handle(shown, input, &mut self.outbox);
        self.after(node, shard);
        taken
    }

    /// After each call of a shard.
    #[inline]
    fn after(&mut self, node: u16, shard: u16) {
        if !self.outbox.is_empty() {
            self.obey(node, shard);
        }
        self.arm_shard(node, shard);
        if self.options.white_box {
            self.watch(node, shard);
        }
    }

    fn obey(&mut self, node: u16, shard: u16) {
        let now = self.queue.now();
        let mut outbox = core::mem::take(&mut self.outbox);
        for output in outbox.drain() {
            match output {
                Output::Ready(conn) => {
                    let at = self.part(node, shard).link_of(conn);
                    let link = self.link(at);
                    assert!(!core::mem::replace(&mut link.ready, true), "Ready twice without Drained in between");
                    if !link.blocked {
                        self.queue.push(now, Happening::Pump(at));
                    }
                }
                Output::Resume(conn) => {
                    let at = self.part(node, shard).link_of(conn);
                    let held = core::mem::replace(&mut self.link(at).held, false);
                    assert!(held, "Resume of a connection that is not held");
                    self.queue.push(now, Happening::Feed(at));
                }
                Output::Close { conn, .. } => {
                    let at = self.part(node, shard).link_of(conn);
                    let closing = core::mem::replace(&mut self.link(at).closing, true);
                    assert!(!closing, "closed twice");
                    self.queue.push(now, Happening::Pump(at));
                }
                Output::Abort(conn) => {
                    let at = self.part(node, shard).link_of(conn);
                    assert!(self.link(at).closing, "Abort comes after Close");
                    self.queue.push(now, Happening::Abort(at));
                }
                Output::Move { conn, to, moved } => {
                    let at = self.part(node, shard).link_of(conn);
                    self.part(node, shard).free_slot(conn.slot);
                    let (net, lag) = (&self.scenario.net, self.nodes[usize::from(node)].lag_of(usize::from(to.0)));
                    let link = self.links[at as usize].as_deref_mut().expect("an output names an open connection");
                    assert!(!link.ready && !link.closing, "only a silent connection moves");
                    link.moving = Some((to.0, moved));
                    let delay = link.chance.between(*net.shard_delay_us.start(), *net.shard_delay_us.end());
                    let arrives = now + core::time::Duration::from_micros(delay) + lag;
                    self.queue.push(arrives, Happening::Moved(at));
                }
                Output::Place { to, message } => {
                    assert_ne!(shard, to.0, "a shard does not talk to itself");
                    self.say(node, usize::from(shard), usize::from(to.0), Letter::Place(message));
                }
                Output::Control(message) => {
                    let control = self.nodes[usize::from(node)].control_side();
                    self.say(node, usize::from(shard), control, Letter::ToControl(message));
                }
                Output::WillSet { conn, permitted } => {
                    let at = self.part(node, shard).link_of(conn);
                    self.tell_gateway(at, Told::WillSet(permitted));
                }
                Output::Record { conn, record } => {
                    let at = self.part(node, shard).link_of(conn);
                    self.tell_gateway(at, Told::Record(record.into()));
                }
                Output::Flaps { .. } => unreachable!("nobody asks for it"),
                Output::Lanes => {
                    if let Some(message) = self.part(node, shard).shard.take_lanes() {
                        let control = self.nodes[usize::from(node)].control_side();
                        self.say(node, usize::from(shard), control, Letter::ToControl(message));
                    }
                }
                Output::Store(batch) => self.on_store(node, shard, batch),
                Output::Decide { question, .. } => panic!("nobody listens to this hook: {question:?}"),
                Output::Event(event) => panic!("nobody listens to this hook: {event:?}"),
            }
        }
        self.outbox = outbox;
    }

    /// Puts the shard's next deadline into the queue, if it is not there.
    #[inline]
    fn arm_shard(&mut self, node: u16, shard: u16) {
        let now = self.queue.now();
        let of = &mut self.nodes[usize::from(node)];
        let part = &mut of.shards[usize::from(shard)];
        let at = match part.shard.next_deadline() {
            Some((_, TimerKind::Work)) => {
                let (chance, most) = (&mut part.chance, self.scenario.net.work_delay_us);
                let late = || now + core::time::Duration::from_micros(chance.between(0, most));
                *part.work_at.get_or_insert_with(late)
            }
            Some((deadline, _)) => {
                part.work_at = None;
                of.clock.when(deadline)
            }
            None => return,
        };
        if at < part.armed {
            part.armed = at;
            self.queue.push(at, Happening::Tick { node, shard, start: of.start });
        }
    }

    /// The deadlines of all shards are at other times: the clock's speed has changed.
    pub(super) fn arm_node(&mut self, node: u16) {
        for shard in 0..self.nodes[usize::from(node)].shards.len() {
            self.arm_shard(node, shard as u16);
        }
        self.arm_control(node);
    }

    pub(super) fn on_tick(&mut self, node: u16, shard: u16) {
        let now = self.queue.now();
        let of = &mut self.nodes[usize::from(node)];
        let part = &mut of.shards[usize::from(shard)];
        if part.armed > now {
            // Replaced by another.
            return;
        }
        part.armed = newtmq_base::Instant::NEVER;
        let due = match part.work_at {
            Some(at) => at <= now,
            None => part.shard.next_deadline().is_some_and(|(deadline, _)| deadline <= of.clock.at(now)),
        };
        if due {
            part.work_at = None;
            self.input(node, shard, ShardInput::Tick);
        } else {
            self.arm_shard(node, shard);
        }
    }

    /// Between two of them everything arrives in its order.
    fn say(&mut self, node: u16, from: usize, to: usize, letter: Letter) {
        let now = self.queue.now();
        let of = &mut self.nodes[usize::from(node)];
        let (pair, lag, start) = (of.pair_of(from, to), of.lag_of(to), of.start);
        if let Some(at) = of.pairs[pair].say(now, letter, lag, &self.scenario.net) {
            self.queue.push(at, Happening::Said { node, pair: pair as u16, start });
        }
    }

    pub(super) fn on_said(&mut self, node: u16, pair: u16) {
        let now = self.queue.now();
        let at = usize::from(pair);
        if !self.nodes[usize::from(node)].pairs[at].fired(now) {
            return;
        }
        let (from, to) = self.nodes[usize::from(node)].sides_of(at);
        let (from, shard) = (ShardId(from as u16), to as u16);
        while let Some(letter) = self.nodes[usize::from(node)].pairs[at].hear(now) {
            match letter {
                Letter::Place(message) => {
                    self.input(node, shard, ShardInput::Place { from, message });
                }
                Letter::FromControl(message) => {
                    self.input(node, shard, ShardInput::Control(message));
                }
                Letter::ToControl(message) => self.control_input(node, ControlInput::Shard { from, message }),
            }
        }
        let of = &mut self.nodes[usize::from(node)];
        if let Some(next) = of.pairs[at].arm() {
            self.queue.push(next, Happening::Said { node, pair, start: of.start });
        }
        self.stop_if_done(node);
    }

    pub(super) fn on_control_tick(&mut self, node: u16) {
        let now = self.queue.now();
        let of = &mut self.nodes[usize::from(node)];
        if of.control_armed > now {
            return;
        }
        of.control_armed = newtmq_base::Instant::NEVER;
        let shown = of.clock.at(now);
        let deadline = of.control.as_ref().and_then(newtmq_node::Control::next_deadline);
        if deadline.is_some_and(|deadline| deadline <= shown) {
            self.control_input(node, ControlInput::Tick);
        } else {
            self.arm_control(node);
        }
    }

    pub(super) fn control_input(&mut self, node: u16, input: ControlInput<'_>) {
        let now = self.queue.now();
        let of = &mut self.nodes[usize::from(node)];
        let (shown, side) = (of.clock.at(now), of.control_side());
        let control = of.control.as_mut().expect("a node that is up has a control plane");
        let mut outputs = core::mem::take(&mut self.control_outputs);
        control.handle(shown, input, &mut outputs);
        for output in outputs.drain(..) {
            match output {
                ControlOutput::Shard { to, message } => {
                    self.say(node, side, usize::from(to.0), Letter::FromControl(message));
                }
                ControlOutput::Cluster(output) => self.obey_cluster(node, output),
            }
        }
        self.control_outputs = outputs;
        self.arm_control(node);
    }

    pub(super) fn arm_control(&mut self, node: u16) {
        let of = &mut self.nodes[usize::from(node)];
        let deadline = of.control.as_ref().and_then(newtmq_node::Control::next_deadline);
        let Some(at) = deadline.map(|deadline| of.clock.when(deadline)) else { return };
        if at < of.control_armed {
            of.control_armed = at;
            self.queue.push(at, Happening::ControlTick { node, start: of.start });
        }
    }

    pub(super) fn on_admin(&mut self, node: u16, shard: u16, command: Command) {
        let command = match command {
            Command::Shutdown => {
                self.nodes[usize::from(node)].told += 1;
                newtmq_node::AdminCommand::Shutdown
            }
            Command::MemoryPressure(level) => newtmq_node::AdminCommand::MemoryPressure(match level {
                0 => MemoryPressure::None,
                1 => MemoryPressure::Shed,
                _ => MemoryPressure::Hold,
            }),
        };
        self.input(node, shard, ShardInput::Admin(command));
        self.stop_if_done(node);
    }

    /// Something has reached the server's machine.
    pub(super) fn on_to_server(&mut self, at: u32) {
        let now = self.queue.now();
        if !self.links[at as usize].as_deref_mut().is_some_and(|link| link.to_server.fired(now)) {
            return;
        }
        while let Some(link) = self.links[at as usize].as_deref_mut() {
            if link.sn.is_some() && link.server == ServerEnd::Open && link.waits() {
                // What the gateway says beside its bytes keeps its place among them: it stays in the pipe.
                return;
            }
            let Some((what, data, _)) = link.to_server.arrived(now) else { break };
            match (link.server, what) {
                (ServerEnd::Open, What::Note) => {
                    link.to_server.read();
                    self.on_note(at);
                }
                (ServerEnd::Open, What::Data(_)) if link.waits() => {
                    link.kept.extend_from_slice(data);
                    link.to_server.read();
                }
                (ServerEnd::Open, What::Data(_)) => {
                    let (node, shard, conn) = (link.node, link.shard, link.conn);
                    let of = &mut self.nodes[usize::from(node)];
                    let (shown, len) = (of.clock.at(now), data.len());
                    let input = ShardInput::Bytes { conn, data };
                    let taken = of.shards[usize::from(shard)].shard.handle(shown, input, &mut self.outbox);
                    assert!(taken.bytes <= len, "more was taken than there was");
                    assert!(taken.hold || taken.bytes == len, "all is taken unless the connection is held");
                    link.held = taken.hold;
                    link.kept.extend_from_slice(&data[taken.bytes..]);
                    link.to_server.read();
                    self.after(node, shard);
                }
                (ServerEnd::Open, What::Fin | What::Rst) => {
                    let cause = if what == What::Fin { CloseCause::Peer } else { CloseCause::Error };
                    link.fin = Some(cause);
                    link.to_server.read();
                    self.feed(at);
                }
                (ServerEnd::Asked, What::Syn) => {
                    link.to_server.read();
                    self.accept(at);
                }
                (ServerEnd::Lost, _) => {
                    link.to_server.read();
                    let is_up = self.nodes[usize::from(link.node)].state != State::Down;
                    if is_up && link.client_end != ClientEnd::Gone {
                        // Whoever is there knows nothing of it.
                        link.server = ServerEnd::Closed;
                        self.send_to_client(at, What::Rst);
                    }
                }
                (ServerEnd::Asked | ServerEnd::Open | ServerEnd::Closed, _) => {
                    link.server = ServerEnd::Closed;
                    link.to_server.read();
                    self.free_if_over(at);
                }
            }
        }
        self.let_gateway_go_on(at);
        self.arm_to_server(at);
    }

    pub(super) fn arm_to_server(&mut self, at: u32) {
        if let Some(arrives) = self.links[at as usize].as_deref_mut().and_then(|link| link.to_server.arm()) {
            self.queue.push(arrives, Happening::ToServer(at));
        }
    }

    /// A connection is asked for.
    fn accept(&mut self, at: u32) {
        let link = self.links[at as usize].as_deref_mut().expect("the caller has it");
        let Some(of) = self.nodes.get_mut(usize::from(link.node)).filter(|of| of.takes_connections()) else {
            link.server = ServerEnd::Closed;
            return self.send_to_client(at, What::Rst);
        };
        let last = of.shards.len() as u64 - 1;
        let shard = link.chance.between(0, last) as u16;
        link.server = ServerEnd::Open;
        link.shard = shard;
        link.conn = of.shards[usize::from(shard)].take_slot(at);
        of.connections += 1;
        of.connections_ever += 1;
        let (node, conn) = (link.node, link.conn);
        let [_, a, b, c] = link.client.to_be_bytes();
        let port = 1024 + (link.chance.next_u64() % 60_000) as u16;
        let peer = Peer::from(core::net::SocketAddr::from(([10, a, b, c], port)));
        self.send_to_client(at, What::Syn);
        self.input(node, shard, ShardInput::Opened { conn, listener: ListenerId(0), peer, username: None });
    }

    /// A connection reaches the shard of its client.
    pub(super) fn on_moved(&mut self, at: u32) {
        let now = self.queue.now();
        let Some(link) = self.links[at as usize].as_deref_mut() else { return };
        let Some((shard, moved)) = link.moving.take() else { return };
        if link.server != ServerEnd::Open {
            return;
        }
        let of = &mut self.nodes[usize::from(link.node)];
        let part = &mut of.shards[usize::from(shard)];
        link.shard = shard;
        link.conn = part.take_slot(at);
        let (node, conn, shown) = (link.node, link.conn, of.clock.at(now));
        let taken = part.shard.handle(shown, ShardInput::Moved { conn, moved }, &mut self.outbox);
        link.held = taken.hold;
        self.after(node, shard);
        self.feed(at);
    }

    /// Passes on what is kept, unless the connection is held.
    pub(super) fn feed(&mut self, at: u32) {
        let Some(link) = self.links[at as usize].as_deref_mut() else { return };
        if link.server != ServerEnd::Open || link.held || link.moving.is_some() {
            return;
        }
        if !link.kept.is_empty() {
            let (node, shard, conn) = (link.node, link.shard, link.conn);
            let mut data = core::mem::take(&mut link.kept);
            let taken = self.input(node, shard, ShardInput::Bytes { conn, data: &data });
            assert!(taken.bytes <= data.len(), "more was taken than there was");
            assert!(taken.hold || taken.bytes == data.len(), "all is taken unless the connection is held");
            data.drain(..taken.bytes);
            let link = self.link(at);
            link.held = taken.hold;
            link.kept = data;
        }
        let link = self.link(at);
        if let Some(cause) = link.fin
            && !link.held
            && link.kept.is_empty()
        {
            return self.gone(at, cause);
        }
        if link.sn.is_some() {
            self.arm_to_server(at);
        }
    }

    /// Writes while the socket takes bytes.
    pub(super) fn pump(&mut self, at: u32) {
        let now = self.queue.now();
        let Some(link) = self.links[at as usize].as_deref_mut() else { return };
        if link.server != ServerEnd::Open || link.moving.is_some() {
            return;
        }
        link.blocked = false;
        let (node, shard) = (link.node, link.shard);
        let mut batch = core::mem::take(if link.rest.is_empty() { &mut self.batch } else { &mut link.rest });
        let mut empty_fills = 0;
        let mut written = false;
        loop {
            if !batch.is_empty() {
                written |= self.write(at, &mut batch);
            }
            let link = self.links[at as usize].as_deref_mut().expect("only closing it ends it");
            if !batch.is_empty() {
                link.blocked = true;
                break;
            }
            if !link.ready {
                break;
            }
            let of = &mut self.nodes[usize::from(node)];
            let shown = of.clock.at(now);
            let part = &mut of.shards[usize::from(shard)];
            link.ready = part.shard.fill(shown, link.conn, &mut batch, &mut self.outbox) == Fill::More;
            empty_fills = if batch.is_empty() { empty_fills + 1 } else { 0 };
            assert!(empty_fills < EMPTY_FILLS_MAX, "fill says More and gives nothing");
            self.after(node, shard);
        }
        let link = self.link(at);
        if !batch.is_empty() {
            link.rest = batch.split_off();
        }
        self.batch = batch;
        let link = self.link(at);
        let done = link.closing && !link.ready && link.rest.is_empty();
        if written {
            self.arm_to_client(at);
        }
        if done {
            self.close(at);
        }
    }

    /// Writes what the socket takes; whether that was anything.
    fn write(&mut self, at: u32, batch: &mut newtmq_node::WriteBatch) -> bool {
        let now = self.queue.now();
        let link = self.links[at as usize].as_deref_mut().expect("the caller has it");
        let net = if link.sn.is_some() { &self.sn.inside } else { &self.scenario.net };
        if link.swallows() {
            // The operating system takes bytes until it knows better.
            batch.advance(batch.remaining());
            return false;
        }
        let room = usize::try_from(net.socket_bytes).unwrap_or(usize::MAX).saturating_sub(link.to_client.len());
        let buffer = link.to_client.buffer();
        let before = buffer.len();
        while buffer.len() - before < room && !batch.is_empty() {
            let chunk = batch.chunk();
            let len = chunk.len().min(room - (buffer.len() - before));
            buffer.extend_from_slice(&chunk[..len]);
            batch.advance(len);
        }
        let len = buffer.len() - before;
        link.to_client.wrote(now, len, net);
        len > 0
    }

    /// The driver closes the connection, in order for what it has written.
    pub(super) fn close(&mut self, at: u32) {
        let Some(link) = self.links[at as usize].as_deref_mut() else { return };
        if link.server != ServerEnd::Open {
            return;
        }
        if link.client_end != ClientEnd::Gone {
            self.send_to_client(at, What::Fin);
        }
        self.gone(at, CloseCause::Asked);
    }

    /// The driver's end is over.
    pub(super) fn gone(&mut self, at: u32, cause: CloseCause) {
        let now = self.queue.now();
        let link = self.links[at as usize].as_deref_mut().expect("the caller has it");
        link.server = ServerEnd::Closed;
        link.to_server.clear();
        if let Some(conn) = link.ix
            && !self.over
        {
            self.observer.event(now, &Event::Gone { conn });
        }
        let (node, shard, conn) = (link.node, link.shard, link.conn);
        // From here on no output may name it: the slot is free before the input.
        self.part(node, shard).free_slot(conn.slot);
        self.nodes[usize::from(node)].connections -= 1;
        self.input(node, shard, ShardInput::Closed { conn, cause });
        self.free_if_over(at);
        self.stop_if_done(node);
    }
}
