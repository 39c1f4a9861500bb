//! A client model: everything that a real client does, and what a scenario tells it to do wrong. Sans-IO, so that both
//! tiers run the same one. It reads no clock and makes no choice that its scenario's seed does not decide.
//!
//! It writes every event of its connections and of its own faults ([`Fault::Reading`], [`Fault::Freeze`]); the world
//! writes those of networks and nodes.

mod acts;
mod link;
mod payload;
mod receiving;
mod sending;
mod session;
pub mod sn;
#[cfg(test)]
mod tests;
mod topics;

use core::time::Duration;

use newtmq_base::Instant;

use crate::draw::Stream;
use crate::history::{ClientIx, Closer, ConnIx, Event, Fault, Names, Uid};
use crate::scenario::{Act, ClientSpec, PublishSpec, ReconnectSpec};
use link::{Link, Phase};
use session::Session;
use topics::Topics;

/// What a client asks of its world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientOutput {
    /// Open a network connection to the client's node; answered by [`Client::on_open`] or [`Client::on_closed`].
    Open,
    /// Send these bytes.
    Send(Vec<u8>),
    /// Close the connection in order, after what was sent. The client has forgotten it: it hears no more of it.
    Close,
    /// Break the connection: what is under way is lost. The client has forgotten it.
    Reset,
    /// Forget the connection without a word to the broker, or give up opening one. The client has forgotten it.
    Abandon,
    /// Read nothing from here on, or read again.
    Read(bool),
    /// Send a datagram: clients of MQTT-SN have no connections.
    Datagram(Box<sn::SnDatagram>),
}

/// Where a client writes what it does.
pub struct Context<'a> {
    /// True time.
    pub now: Instant,
    /// Texts of the run.
    pub names: &'a mut Names,
    /// Where events go, in order.
    pub events: &'a mut Vec<Event>,
    /// What the world is to do, in order.
    pub out: &'a mut Vec<ClientOutput>,
    /// Number of the next connection of the run; the client takes it at CONNECT and adds 1.
    pub next_conn: &'a mut u32,
}

/// One client.
#[derive(Debug)]
pub struct Client {
    ix: ClientIx,
    /// As the scenario has it, with what its steps changed.
    spec: ClientSpec,
    seed: u64,
    /// Hash of its name: the key of its draws.
    name: u64,
    session: Session,
    link: Option<Link>,
    /// Messages that it made.
    messages: u32,
    rows: Vec<Row>,
    reading: bool,
    asleep: Option<Asleep>,
    retry: Retry,
    topics: Topics,
    /// Packets that are not handed to the world yet.
    outbox: Vec<u8>,
    /// A payload in the making, and properties.
    payload: Vec<u8>,
    properties: Vec<u8>,
}

/// A row of publishes that goes on.
#[derive(Debug)]
struct Row {
    publish: PublishSpec,
    left: u32,
    at: Instant,
}

/// What happened to a client while its machine slept.
#[derive(Debug, Default)]
struct Asleep {
    opened: bool,
    bytes: Vec<(Vec<u8>, Instant)>,
    closed: Option<Closer>,
}

/// Connecting again.
#[derive(Debug)]
struct Retry {
    /// The next attempt.
    at: Instant,
    /// Failures in a row.
    failures: u32,
    /// Waits so far, the counter of their draws.
    waits: u64,
}

impl Client {
    /// A client that has not done anything yet.
    #[must_use]
    pub fn new(ix: ClientIx, spec: &ClientSpec, seed: u64) -> Client {
        // Clients with one Client Identifier are apart in their Packet Identifiers, as far as it goes.
        let last_pid = (ix.0.wrapping_mul(1_009) % u32::from(u16::MAX)) as u16;
        Client {
            ix,
            name: crate::draw::of_name(&spec.name),
            spec: spec.clone(),
            seed,
            session: Session::new(last_pid),
            link: None,
            messages: 0,
            rows: Vec::new(),
            reading: true,
            asleep: None,
            retry: Retry::new(),
            topics: Topics::default(),
            outbox: Vec::new(),
            payload: Vec::new(),
            properties: Vec::new(),
        }
    }

    /// A step of the scenario. What needs a connection waits for its CONNACK if one is being made, and does nothing
    /// without one. A client that sleeps does nothing but wake up.
    pub fn act(&mut self, act: &Act, cx: &mut Context<'_>) {
        self.carry_out(act, cx);
        self.flush(cx);
    }

    /// The network connection that it asked for is there.
    pub fn on_open(&mut self, cx: &mut Context<'_>) {
        if let Some(asleep) = &mut self.asleep {
            asleep.opened = true;
            return;
        }
        if self.link.as_ref().is_some_and(|link| link.phase == Phase::Opening) {
            if !self.reading {
                cx.out.push(ClientOutput::Read(false));
            }
            self.send_connect(cx);
            self.flush(cx);
        }
    }

    /// Bytes arrived, the last of which the broker wrote at `sent_at`.
    pub fn on_bytes(&mut self, data: &[u8], sent_at: Instant, cx: &mut Context<'_>) {
        if let Some(asleep) = &mut self.asleep {
            asleep.bytes.push((data.to_vec(), sent_at));
            return;
        }
        self.receive_bytes(data, sent_at, cx);
        self.flush(cx);
    }

    /// The connection is over, or could not be made.
    pub fn on_closed(&mut self, by: Closer, cx: &mut Context<'_>) {
        if let Some(asleep) = &mut self.asleep {
            asleep.closed = Some(by);
            return;
        }
        self.lost(by, cx);
    }

    /// When it wants [`Client::on_tick`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.asleep.is_some() {
            return None;
        }
        let mut next = self.retry.at;
        if let Some(link) = &self.link {
            next = next.min(link.patience).min(link.ping_at());
            if let Some(ack) = link.acks.front() {
                next = next.min(ack.at);
            }
        }
        for row in &self.rows {
            next = next.min(row.at);
        }
        (next < Instant::NEVER).then_some(next)
    }

    /// Time has passed.
    pub fn on_tick(&mut self, cx: &mut Context<'_>) {
        if self.asleep.is_some() {
            return;
        }
        if self.link.as_ref().is_some_and(|link| link.patience <= cx.now) {
            self.lose_patience(cx);
        }
        self.send_due_acks(cx);
        self.publish_due_rows(cx);
        if self.link.as_ref().is_some_and(|link| link.ping_at() <= cx.now) {
            self.ping(cx);
        }
        if self.retry.at <= cx.now {
            self.open(cx);
        }
        self.flush(cx);
    }

    /// The node that it connects to.
    #[must_use]
    pub fn node(&self) -> u16 {
        self.spec.node
    }

    /// The connection that it has, from CONNECT to its end.
    #[must_use]
    pub fn conn(&self) -> Option<ConnIx> {
        self.link.as_ref().and_then(|link| link.conn)
    }

    /// What [`ClientOutput::Send`] gave is sent: the memory is good for the next packets.
    pub fn sent(&mut self, mut bytes: Vec<u8>) {
        if self.outbox.capacity() == 0 {
            bytes.clear();
            self.outbox = bytes;
        }
    }

    /// Whether a row of publishes goes on.
    #[must_use]
    pub fn is_publishing(&self) -> bool {
        !self.rows.is_empty()
    }

    /// Asks for a network connection.
    fn open(&mut self, cx: &mut Context<'_>) {
        self.retry.at = Instant::NEVER;
        if self.link.is_none() {
            self.link = Some(Link::new(self.spec.version, cx.now + CONNECT_PATIENCE));
            cx.out.push(ClientOutput::Open);
        }
    }

    /// The connection is over; `by` the client itself, it has told the world so.
    fn end_connection(&mut self, by: Closer, cx: &mut Context<'_>) {
        let Some(link) = self.link.take() else { return };
        self.outbox.clear();
        if let Some(conn) = link.conn {
            cx.events.push(Event::Close { conn, by });
        }
        // A CONNECT without an answer may have changed nothing at the server.
        if link.phase != Phase::Opening && link.phase != Phase::Connecting && !link.session_lives_on() {
            self.session.end();
        }
    }

    /// The connection is over and the client did not mean it to be.
    fn lost(&mut self, by: Closer, cx: &mut Context<'_>) {
        let Some(link) = &self.link else { return };
        if link.phase == Phase::Opening || link.phase == Phase::Connecting {
            self.retry.failures += 1;
        }
        self.end_connection(by, cx);
        self.try_again_later(cx.now);
    }

    /// The server does not answer any more.
    fn lose_patience(&mut self, cx: &mut Context<'_>) {
        let Some(link) = &self.link else { return };
        let opening = link.phase == Phase::Opening;
        self.flush(cx);
        cx.out.push(if opening { ClientOutput::Abandon } else { ClientOutput::Close });
        self.lost(Closer::Client, cx);
    }

    fn try_again_later(&mut self, now: Instant) {
        if let Some(policy) = self.spec.reconnect {
            self.retry.later(policy, (self.seed, self.name), now);
        }
    }

    fn set_reading(&mut self, on: bool, cx: &mut Context<'_>) {
        if self.reading == on {
            return;
        }
        self.reading = on;
        cx.events.push(Event::Fault(Fault::Reading { client: self.ix, on }));
        if self.asleep.is_none() && self.link.is_some() {
            cx.out.push(ClientOutput::Read(on));
        }
        self.renew_patience(cx.now);
    }

    fn fall_asleep(&mut self, cx: &mut Context<'_>) {
        cx.events.push(Event::Fault(Fault::Freeze { client: self.ix, on: true }));
        self.asleep = Some(Asleep::default());
        // One that is being opened has nothing to read.
        if self.link.as_ref().is_some_and(|link| link.phase != Phase::Opening) {
            cx.out.push(ClientOutput::Read(false));
        }
    }

    fn wake_up(&mut self, cx: &mut Context<'_>) {
        let Some(asleep) = self.asleep.take() else { return };
        cx.events.push(Event::Fault(Fault::Freeze { client: self.ix, on: false }));
        self.renew_patience(cx.now);
        for row in &mut self.rows {
            row.skip_until(cx.now);
        }
        self.rows.retain(|row| row.left > 0);
        if asleep.closed.is_none() && self.reading && self.link.is_some() {
            cx.out.push(ClientOutput::Read(true));
        }
        if asleep.opened {
            self.on_open(cx);
        }
        for (data, sent_at) in asleep.bytes {
            self.receive_bytes(&data, sent_at, cx);
        }
        if let Some(by) = asleep.closed {
            self.lost(by, cx);
        }
    }

    /// Waits anew for what the server owes.
    fn renew_patience(&mut self, now: Instant) {
        let reading = self.reading;
        if let Some(link) = &mut self.link {
            link.patience = match link.phase {
                Phase::Opening | Phase::Connecting => now + CONNECT_PATIENCE,
                Phase::Over => now + END_PATIENCE,
                // Whoever reads nothing cannot blame the server.
                Phase::Open if link.pings > 0 && link.keep_alive_s > 0 && reading => now + PING_PATIENCE,
                Phase::Open => Instant::NEVER,
            };
        }
    }

    fn uid(&self, number: u32) -> Option<Uid> {
        (number > 0).then_some(Uid { publisher: self.ix, number })
    }

    /// Hands what was written to the world.
    fn flush(&mut self, cx: &mut Context<'_>) {
        if !self.outbox.is_empty() {
            if let Some(link) = &mut self.link {
                link.last_sent = cx.now;
            }
            cx.out.push(ClientOutput::Send(core::mem::take(&mut self.outbox)));
        }
    }
}

impl Retry {
    fn new() -> Retry {
        Retry { at: Instant::NEVER, failures: 0, waits: 0 }
    }

    /// When the next attempt is. `(seed, name)` is the client's key for draws.
    fn later(&mut self, policy: ReconnectSpec, (seed, name): (u64, u64), now: Instant) {
        self.waits += 1;
        let growth = 100 + u128::from(policy.growth_percent);
        let mut wait_us = u128::from(policy.first_ms) * 1_000;
        let max_us = u128::from(policy.max_ms.max(policy.first_ms)) * 1_000;
        for _ in 0..self.failures {
            if wait_us >= max_us || growth == 100 {
                break;
            }
            wait_us = wait_us * growth / 100;
        }
        let wait_us = wait_us.min(max_us) as u64;
        let chance = wait_us / 100 * u64::from(policy.jitter_percent.min(100));
        let less = Stream::new(seed, RECONNECT, name ^ self.waits).between(0, chance);
        self.at = now + Duration::from_micros(wait_us - less);
    }
}

impl Row {
    /// Leaves out what was due before `now`.
    fn skip_until(&mut self, now: Instant) {
        let every = self.publish.every_us.max(1) * 1_000;
        let late = now.saturating_since(self.at).as_nanos() as u64;
        let skipped = u32::try_from(late.div_ceil(every)).unwrap_or(u32::MAX).min(self.left);
        self.left -= skipped;
        self.at = self.at + Duration::from_nanos(u64::from(skipped) * every);
    }
}

// How long a client waits for the server before it gives a connection up. Longer than what the checks allow the broker.
const CONNECT_PATIENCE: Duration = Duration::from_secs(30);
const PING_PATIENCE: Duration = Duration::from_secs(20);
const END_PATIENCE: Duration = Duration::from_secs(5);

// Purposes of draws.
const RECONNECT: u64 = 0x434C_0001;
const ACK_DELAY: u64 = 0x434C_0002;
const AHEAD: u64 = 0x434C_0003;
