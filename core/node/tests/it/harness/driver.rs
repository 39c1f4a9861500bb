//! The driver's side of docs/adr/0001, to the letter: what was not taken is kept and nothing is passed on until Resume;
//! `Closed` comes after what was kept; `fill` is called until it is drained, when the socket can take bytes; after
//! `Close` the output is drained, then the connection is closed and `Closed` delivered; `Abort` closes at once.

use core::time::Duration;

use bytes::Buf;
use newtmq_base::{ConnId, Instant, ShardId};
use newtmq_node::{CloseCause, Fill, Moved, Output, ShardInput, Taken, WriteBatch};

use super::net::{Happening, Net};

/// A network connection: the driver's state, and the sockets.
#[derive(Debug)]
pub(crate) struct Link {
    /// The shard that has it.
    pub(super) shard: usize,
    pub(super) conn: ConnId,
    /// On its way to another shard.
    moving: bool,
    /// The shard knows it.
    pub(super) open: bool,
    /// Bytes that the shard has not taken.
    kept: Vec<u8>,
    held: bool,
    /// The client's end, delivered after what is kept.
    fin: Option<CloseCause>,
    /// The shard said Ready, `fill` has not said Drained.
    ready: bool,
    batch: WriteBatch,
    /// The shard asked to close it.
    closing: bool,
    /// Bytes written that the client has not read.
    unread: usize,
    /// Most of them.
    capacity: usize,
    /// What has reached the client's machine while the client does not read.
    client_socket: Vec<u8>,
    paused: bool,
    /// Nothing goes either way any more.
    cut: bool,
    chunk_min: usize,
    chunk_max: usize,
    last_to_server: Instant,
    last_to_client: Instant,
}

/// Most bytes between the driver and a client that does not read.
const SOCKET_BYTES: usize = 64 << 10;
/// The control plane's number among those who talk to each other.
pub(super) const CONTROL: usize = usize::MAX;
/// Longest way through the network, in microseconds.
const DELAY_US_MAX: u64 = 1_000;

impl Net {
    /// A network connection, as the driver makes it.
    pub(super) fn open_link(&mut self) -> usize {
        let link = self.links.len();
        // Dealt out as they come.
        let shard = link % self.shards.len();
        let conn = self.take_slot(shard, link);
        let (chunk_min, chunk_max) = match self.options.chunk_max {
            0 => (1, [1, 3, 20, 300, 5_000][self.rng.below(5) as usize]),
            max => (self.options.chunk_min, max),
        };
        self.links.push(Link {
            shard,
            conn,
            moving: false,
            open: true,
            kept: Vec::new(),
            held: false,
            fin: None,
            ready: false,
            batch: WriteBatch::default(),
            closing: false,
            unread: 0,
            capacity: SOCKET_BYTES,
            client_socket: Vec::new(),
            paused: false,
            cut: false,
            chunk_min,
            chunk_max,
            last_to_server: self.now,
            last_to_client: self.now,
        });
        let peer = newtmq_node::Peer::from(core::net::SocketAddr::from(([192, 0, 2, 1], 50_000)));
        let username = self.certified.take();
        let listener = newtmq_base::ListenerId(self.listener);
        self.input(shard, ShardInput::Opened { conn, listener, peer, username });
        link
    }

    fn take_slot(&mut self, shard: usize, link: usize) -> ConnId {
        let slots = &mut self.slots[shard];
        let slot = slots.iter().position(|(user, _)| user.is_none()).unwrap_or_else(|| {
            slots.push((None, 0));
            slots.len() - 1
        });
        let generation = slots[slot].1 + 1;
        slots[slot] = (Some(link), generation);
        ConnId { slot: slot as u32, generation }
    }

    /// One input to a shard, and what it asks for.
    pub(super) fn input(&mut self, shard: usize, input: ShardInput<'_>) -> Taken {
        let taken = self.shards[shard].handle(self.now, input, &mut self.outbox);
        self.obey(shard);
        taken
    }

    fn obey(&mut self, shard: usize) {
        let outputs: Vec<Output> = self.outbox.drain().collect();
        for output in outputs {
            if let Some(trace) = &mut self.trace {
                // FNV-1a: the same for every build of Rust.
                for byte in format!("{shard} {:?} {output:?}", self.now).bytes() {
                    *trace = (*trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
                }
            }
            match output {
                Output::Move { conn, to, moved } => {
                    let link = self.link_of(shard, conn);
                    assert!(!self.links[link].ready && !self.links[link].closing, "only a silent connection moves");
                    self.slots[shard][conn.slot as usize].0 = None;
                    self.links[link].moving = true;
                    let time = self.now + self.delay();
                    self.at(time, Happening::Moved(link, to, moved));
                }
                Output::Place { to, message } => {
                    let (from, to) = (ShardId(shard as u16), usize::from(to.0));
                    assert_ne!(shard, to, "a shard does not talk to itself");
                    self.say(shard, to, Happening::Place(to, from, message));
                }
                Output::Control(message) => {
                    let from = ShardId(shard as u16);
                    self.say(shard, CONTROL, Happening::ToControl(from, message));
                }
                Output::Lanes => panic!("there are no other nodes"),
                Output::Flaps { client, .. } => self.flaps.push(client),
                Output::WillSet { .. } | Output::Record { .. } => unreachable!("nobody asks for it"),
                Output::Ready(conn) => {
                    let link = self.link_of(shard, conn);
                    assert!(!self.links[link].ready, "Ready twice without Drained in between");
                    self.links[link].ready = true;
                    self.at(self.now, Happening::Pump(link));
                }
                Output::Resume(conn) => {
                    let link = self.link_of(shard, conn);
                    assert!(self.links[link].held, "Resume of a connection that is not held");
                    self.links[link].held = false;
                    self.at(self.now, Happening::Feed(link));
                }
                Output::Close { conn, .. } => {
                    let link = self.link_of(shard, conn);
                    assert!(!self.links[link].closing, "closed twice");
                    self.links[link].closing = true;
                    self.at(self.now, Happening::Pump(link));
                }
                Output::Abort(conn) => {
                    let link = self.link_of(shard, conn);
                    assert!(self.links[link].closing, "Abort comes after Close");
                    self.close_link(link);
                }
                // The hook hangs.
                Output::Decide { question, .. } if self.hooks_hang => self.questions.push(*question),
                Output::Decide { request, question } => {
                    let decider = self.decider.as_mut().expect("nobody listens to this hook");
                    let verdict = decider(&question);
                    self.questions.push(*question);
                    self.unanswered.insert((shard, request));
                    let delay = self.delay();
                    self.at(self.now + delay, Happening::Decided(shard, request, verdict));
                }
                Output::Event(event) => self.events.push(*event),
                Output::Store(_) => unreachable!("nothing is stored here"),
            }
        }
    }

    /// Between two of them everything arrives in its order.
    pub(super) fn say(&mut self, from: usize, to: usize, what: Happening) {
        let far = if self.far_shard == Some(to) { 20 } else { 1 };
        let delay = self.delay() * far;
        let last = self.channels.entry((from, to)).or_insert(self.now);
        *last = (*last).max(self.now + delay);
        let time = *last;
        self.at(time, what);
    }

    /// A connection reaches the shard of its client.
    pub(super) fn on_moved(&mut self, link: usize, to: ShardId, moved: Box<Moved>) {
        let shard = usize::from(to.0);
        let conn = self.take_slot(shard, link);
        let l = &mut self.links[link];
        (l.shard, l.conn, l.moving) = (shard, conn, false);
        // The outputs may name it already.
        let taken = self.shards[shard].handle(self.now, ShardInput::Moved { conn, moved }, &mut self.outbox);
        self.links[link].held = taken.hold;
        self.obey(shard);
        self.feed(link);
    }

    fn link_of(&self, shard: usize, conn: ConnId) -> usize {
        let (link, generation) = self.slots[shard][conn.slot as usize];
        let link = link.expect("an output for a connection that is gone");
        assert_eq!(generation, conn.generation);
        assert!(self.links[link].open);
        link
    }

    fn delay(&mut self) -> Duration {
        Duration::from_micros(self.rng.below(DELAY_US_MAX))
    }

    fn chunks(&mut self, link: usize, data: &[u8]) -> Vec<Vec<u8>> {
        // Not too many events for large data.
        let min = self.links[link].chunk_min.max(data.len() / 400);
        let max = self.links[link].chunk_max.max(min);
        let mut rest = data;
        let mut chunks = Vec::new();
        while !rest.is_empty() {
            let len = (min + self.rng.below((max - min + 1) as u64) as usize).min(rest.len());
            chunks.push(rest[..len].to_vec());
            rest = &rest[len..];
        }
        chunks
    }

    /// The client writes.
    pub(super) fn client_sends(&mut self, link: usize, data: &[u8]) {
        if self.links[link].cut {
            return;
        }
        for chunk in self.chunks(link, data) {
            let time = self.links[link].last_to_server.max(self.now + self.delay());
            self.links[link].last_to_server = time;
            self.at(time, Happening::ToServer(link, chunk));
        }
    }

    /// The client closes its side, in order.
    pub(super) fn client_closes(&mut self, link: usize) {
        let time = self.links[link].last_to_server.max(self.now + self.delay());
        self.links[link].last_to_server = time;
        self.at(time, Happening::ServerFin(link, CloseCause::Peer));
        self.scripts[link].on_close(false);
    }

    /// The connection breaks: what is under way is lost, both ways.
    pub(super) fn cut_link(&mut self, link: usize) {
        self.forget(|happening| match happening {
            Happening::ToServer(at, _) | Happening::ToClient(at, _) | Happening::ServerFin(at, _) => *at == link,
            Happening::ClientFin(at) => *at == link,
            Happening::Pump(_)
            | Happening::Feed(_)
            | Happening::Decided(..)
            | Happening::Moved(..)
            | Happening::Place(..)
            | Happening::ToControl(..)
            | Happening::FromControl(..) => false,
        });
        self.break_link(link);
    }

    /// The same while nothing is under way.
    pub(super) fn break_link(&mut self, link: usize) {
        let l = &mut self.links[link];
        if l.cut || !l.open {
            return;
        }
        l.cut = true;
        l.client_socket = Vec::new();
        self.scripts[link].on_close(false);
        self.at(self.now, Happening::ServerFin(link, CloseCause::Error));
    }

    pub(super) fn on_arrival(&mut self, link: usize, data: &[u8]) {
        if self.links[link].open {
            self.links[link].kept.extend_from_slice(data);
            self.feed(link);
        }
    }

    /// Passes on what is kept, unless the connection is held.
    pub(super) fn feed(&mut self, link: usize) {
        let l = &mut self.links[link];
        if !l.open || l.held || l.moving {
            return;
        }
        let (shard, conn) = (l.shard, l.conn);
        let data = core::mem::take(&mut l.kept);
        if !data.is_empty() {
            let taken = self.shards[shard].handle(self.now, ShardInput::Bytes { conn, data: &data }, &mut self.outbox);
            assert!(taken.bytes <= data.len());
            assert!(taken.hold || taken.bytes == data.len(), "all is taken unless the connection is held");
            let l = &mut self.links[link];
            l.kept = data[taken.bytes..].to_vec();
            l.held = taken.hold;
            self.obey(shard);
        }
        if let Some(cause) = self.links[link].fin
            && !self.links[link].moving
            && !self.links[link].held
            && self.links[link].kept.is_empty()
        {
            self.gone(link, cause);
        }
    }

    pub(super) fn on_fin(&mut self, link: usize, cause: CloseCause) {
        if self.links[link].open {
            self.links[link].fin = Some(cause);
            self.feed(link);
        }
    }

    /// Writes while the socket takes bytes.
    pub(super) fn pump(&mut self, link: usize) {
        if !self.links[link].open || self.links[link].moving {
            return;
        }
        let shard = self.links[link].shard;
        let mut empty_fills = 0;
        loop {
            let l = &mut self.links[link];
            let room = l.capacity.saturating_sub(l.unread);
            if l.cut {
                // The operating system takes bytes until it knows better.
                let len = l.batch.remaining();
                l.batch.advance(len);
            } else if !l.batch.is_empty() {
                if room == 0 {
                    break;
                }
                let mut data = vec![0; room.min(l.batch.remaining())];
                l.batch.copy_to_slice(&mut data);
                l.unread += data.len();
                self.server_writes(link, &data);
                continue;
            }
            let l = &mut self.links[link];
            if !l.ready {
                break;
            }
            let fill = self.shards[shard].fill(self.now, l.conn, &mut l.batch, &mut self.outbox);
            if fill == Fill::Drained {
                self.links[link].ready = false;
            }
            empty_fills = if self.links[link].batch.is_empty() { empty_fills + 1 } else { 0 };
            assert!(empty_fills < 10_000, "fill says More and gives nothing");
            self.obey(shard);
        }
        let l = &self.links[link];
        if l.closing && !l.ready && l.batch.is_empty() && l.open {
            self.close_link(link);
        }
    }

    fn server_writes(&mut self, link: usize, data: &[u8]) {
        for chunk in self.chunks(link, data) {
            let time = self.links[link].last_to_client.max(self.now + self.delay());
            self.links[link].last_to_client = time;
            self.at(time, Happening::ToClient(link, chunk));
        }
    }

    /// The server closes the connection.
    fn close_link(&mut self, link: usize) {
        if !self.links[link].cut {
            let time = self.links[link].last_to_client.max(self.now + self.delay());
            self.links[link].last_to_client = time;
            self.at(time, Happening::ClientFin(link));
        }
        self.gone(link, CloseCause::Asked);
    }

    fn gone(&mut self, link: usize, cause: CloseCause) {
        let l = &mut self.links[link];
        if !core::mem::replace(&mut l.open, false) {
            return;
        }
        let conn = l.conn;
        l.batch = WriteBatch::default();
        let shard = l.shard;
        self.slots[shard][conn.slot as usize].0 = None;
        // From here on no output may name it: the slot is free before the input.
        self.input(shard, ShardInput::Closed { conn, cause });
    }

    pub(super) fn on_client_arrival(&mut self, link: usize, data: &[u8]) {
        self.links[link].client_socket.extend_from_slice(data);
        self.client_reads(link, usize::MAX);
    }

    /// The client reads up to `limit` bytes, if it reads at all.
    pub(super) fn client_reads(&mut self, link: usize, limit: usize) {
        let l = &mut self.links[link];
        if l.paused && limit == usize::MAX {
            return;
        }
        let len = l.client_socket.len().min(limit);
        let data: Vec<u8> = l.client_socket.drain(..len).collect();
        l.unread -= data.len();
        let answer = self.scripts[link].on_bytes(&data);
        if !answer.is_empty() {
            self.client_sends(link, &answer);
        }
        self.at(self.now, Happening::Pump(link));
    }

    pub(super) fn pause_link(&mut self, link: usize, paused: bool) {
        self.links[link].paused = paused;
        if !paused {
            self.client_reads(link, usize::MAX);
        }
    }

    pub(super) fn block_link(&mut self, link: usize, blocked: bool) {
        self.links[link].capacity = if blocked { 0 } else { SOCKET_BYTES };
        self.at(self.now, Happening::Pump(link));
    }

    pub(super) fn is_held(&self, link: usize) -> bool {
        self.links[link].held
    }

    /// While nothing happens: no output without Ready, nothing kept without a hold.
    pub(super) fn assert_quiet(&mut self) {
        for link in 0..self.links.len() {
            let l = &mut self.links[link];
            if !l.open {
                continue;
            }
            assert!(l.held || l.kept.is_empty());
            if !l.ready {
                let mut batch = WriteBatch::default();
                let shard = l.shard;
                let fill = self.shards[shard].fill(self.now, l.conn, &mut batch, &mut self.outbox);
                assert_eq!((fill, batch.len()), (Fill::Drained, 0), "output without Ready");
                self.obey(shard);
            }
        }
    }
}
