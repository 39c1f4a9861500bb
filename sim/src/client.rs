//! A client model: everything that a real client does, and what a scenario tells it to do wrong. Sans-IO, so that both
//! tiers run the same one. It reads no clock and makes no choice that its scenario's seed does not decide.

use newtmq_base::Instant;

use crate::draw::Stream;
use crate::history::{ClientIx, Closer, ConnIx, Event, Names};
use crate::scenario::{Act, ClientSpec};

/// What a client asks of its world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientOutput {
    /// Open a network connection to the client's node; answered by [`Client::on_open`] or [`Client::on_closed`].
    Open,
    /// Send these bytes.
    Send(Vec<u8>),
    /// Close the connection in order, after what was sent.
    Close,
    /// Break the connection: what is under way is lost.
    Reset,
    /// Forget the connection without a word to the broker.
    Abandon,
    /// Read nothing from here on, or read again.
    Read(bool),
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
    spec: ClientSpec,
    chance: Stream,
}

impl Client {
    /// A client that has not done anything yet.
    #[must_use]
    pub fn new(ix: ClientIx, spec: &ClientSpec, seed: u64) -> Client {
        Client { ix, spec: spec.clone(), chance: Stream::new(seed, 1, crate::draw::of_name(&spec.name)) }
    }

    /// A step of the scenario.
    pub fn act(&mut self, act: &Act, cx: &mut Context<'_>) {
        let _ = (act, cx, &self.ix, &self.spec, &mut self.chance);
    }

    /// The network connection that it asked for is there.
    pub fn on_open(&mut self, cx: &mut Context<'_>) {
        let _ = cx;
    }

    /// Bytes arrived, the last of which the broker wrote at `sent_at`.
    pub fn on_bytes(&mut self, data: &[u8], sent_at: Instant, cx: &mut Context<'_>) {
        let _ = (data, sent_at, cx);
    }

    /// The connection is over, or could not be made.
    pub fn on_closed(&mut self, by: Closer, cx: &mut Context<'_>) {
        let _ = (by, cx);
    }

    /// When it wants [`Client::on_tick`].
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        None
    }

    /// Time has passed.
    pub fn on_tick(&mut self, cx: &mut Context<'_>) {
        let _ = cx;
    }

    /// The connection that it has, from CONNECT to its end.
    #[must_use]
    pub fn conn(&self) -> Option<ConnIx> {
        None
    }
}
