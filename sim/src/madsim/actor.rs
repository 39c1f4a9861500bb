//! A client in the simulated world: its model, its connection, and the task that drives both.

use core::cell::RefCell;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::io;
use std::rc::Rc;

use newtmq_simnet::{Alarm, Link, SimStream};
use tokio::io::AsyncWrite as _;

use super::journal::Journal;
use super::nodes;
use crate::client::{Client, ClientOutput};
use crate::history::{ClientIx, Closer};
use crate::scenario::{Acks, Act, ClientSpec};

/// Pieces that a client reads in a row; then the others have their turn.
const PIECES_MAX: usize = 64;

type Connecting = Pin<Box<dyn Future<Output = io::Result<SimStream>>>>;

/// A client.
pub(super) struct Actor {
    client: Client,
    node: u16,
    link: Link,
    journal: Journal,
    connecting: Option<Connecting>,
    line: Option<Line>,
    reading: bool,
    /// Connections that the client has closed and the broker has not.
    closed: Vec<Line>,
    waker: Waker,
    alarm: Alarm,
    buffer: Vec<u8>,
    out: Vec<ClientOutput>,
    over: bool,
    /// What steps did to it, and has to end.
    acks: Acks,
    stopped_reading: bool,
    frozen: bool,
}

/// A connection with what did not fit into it.
struct Line {
    stream: SimStream,
    unsent: Vec<u8>,
    /// How much of `unsent` has been sent.
    sent: usize,
}

impl Actor {
    /// A client on its link; [`drive`] has to run.
    pub(super) fn new(ix: ClientIx, spec: &ClientSpec, seed: u64, link: Link, journal: Journal) -> Actor {
        Actor {
            client: Client::new(ix, spec, seed),
            node: spec.node,
            link,
            journal,
            connecting: None,
            line: None,
            reading: true,
            closed: Vec::new(),
            waker: Waker::noop().clone(),
            alarm: Alarm::default(),
            buffer: Vec::new(),
            out: Vec::new(),
            over: false,
            acks: spec.acks,
            stopped_reading: false,
            frozen: false,
        }
    }

    /// A step of the scenario.
    pub(super) fn act(&mut self, act: &Act) {
        #[allow(clippy::wildcard_enum_match_arm)] // only these last
        match act {
            Act::SetAcks(acks) => self.acks = *acks,
            Act::SetReading(on) => self.stopped_reading = !on,
            Act::Freeze(on) => self.frozen = *on,
            _ => {}
        }
        self.call(|client, cx| client.act(act, cx));
        // Its deadline may be another, or it is to be connected.
        self.waker.wake_by_ref();
    }

    /// The way to its node.
    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// It does what a client should from here on.
    pub(super) fn calm_down(&mut self) {
        let acts = [
            self.frozen.then_some(Act::Freeze(false)),
            self.stopped_reading.then_some(Act::SetReading(true)),
            (self.acks == Acks::Never).then_some(Act::SetAcks(Acks::Auto)),
        ];
        for act in acts.into_iter().flatten() {
            self.act(&act);
        }
    }

    /// Ends its task, without a word.
    pub(super) fn end(&mut self) {
        self.over = true;
        self.waker.wake_by_ref();
    }

    fn call(&mut self, call: impl FnOnce(&mut Client, &mut crate::client::Context<'_>)) {
        let mut out = core::mem::take(&mut self.out);
        let client = &mut self.client;
        self.journal.call(&mut out, |cx| call(client, cx));
        for output in out.drain(..) {
            self.carry_out(output);
        }
        self.out = out;
    }

    fn carry_out(&mut self, output: ClientOutput) {
        match output {
            ClientOutput::Open => {
                let (link, address) = (self.link.clone(), nodes::address(self.node));
                self.reading = true;
                self.connecting = Some(Box::pin(async move { link.connect(address).await }));
            }
            ClientOutput::Send(bytes) => {
                if let Some(line) = &mut self.line {
                    line.send(&self.waker, bytes);
                }
            }
            ClientOutput::Close => {
                self.connecting = None;
                self.closed.extend(self.line.take());
            }
            ClientOutput::Reset => {
                self.connecting = None;
                if let Some(line) = self.line.take() {
                    line.stream.reset();
                }
            }
            ClientOutput::Abandon => {
                self.connecting = None;
                if let Some(line) = self.line.take() {
                    line.stream.abandon();
                }
            }
            ClientOutput::Read(on) => self.reading = on,
            // Clients of MQTT-SN are in the other tier.
            ClientOutput::Datagram(_) => {}
        }
    }

    /// One turn; whether it is over.
    fn turn(&mut self, context: &mut Context<'_>) -> bool {
        if self.over {
            return true;
        }
        if !self.waker.will_wake(context.waker()) {
            self.waker = context.waker().clone();
        }
        if let Some(connecting) = &mut self.connecting
            && let Poll::Ready(connected) = connecting.as_mut().poll(context)
        {
            self.connecting = None;
            match connected {
                Ok(stream) => {
                    self.line = Some(Line { stream, unsent: Vec::new(), sent: 0 });
                    self.call(|client, cx| client.on_open(cx));
                }
                Err(_) => self.call(|client, cx| client.on_closed(Closer::Network, cx)),
            }
        }
        self.read(context);
        self.tick();
        self.write(context);
        self.linger(context);
        self.alarm.wake_at(context, self.client.next_deadline().map(|at| self.journal.at(at)));
        false
    }

    fn read(&mut self, context: &mut Context<'_>) {
        for _ in 0..PIECES_MAX {
            let Some(line) = self.line.as_mut().filter(|_| self.reading) else { return };
            self.buffer.clear();
            match line.stream.poll_piece(context, &mut self.buffer) {
                Poll::Pending => return,
                Poll::Ready(Ok(Some(sent))) => {
                    let (data, sent_at) = (core::mem::take(&mut self.buffer), self.journal.instant(sent));
                    self.call(|client, cx| client.on_bytes(&data, sent_at, cx));
                    self.buffer = data;
                }
                // It closes, too.
                Poll::Ready(Ok(None)) => return self.lost(Closer::Server),
                Poll::Ready(Err(_)) => return self.lost(Closer::Network),
            }
        }
        context.waker().wake_by_ref();
    }

    fn tick(&mut self) {
        let mut calls = 0;
        while self.client.next_deadline().is_some_and(|at| at <= self.journal.now()) {
            self.call(|client, cx| client.on_tick(cx));
            calls += 1;
            assert!(calls < TICKS_MAX, "a client wants to be called without end");
        }
    }

    fn write(&mut self, context: &mut Context<'_>) {
        if let Some(line) = &mut self.line
            && let Poll::Ready(Err(_)) = line.poll_flush(context)
        {
            self.lost(Closer::Network);
        }
    }

    fn lost(&mut self, by: Closer) {
        self.line = None;
        self.call(|client, cx| client.on_closed(by, cx));
    }

    /// What was closed in order sends the rest, ends its side, and waits for the broker's end.
    fn linger(&mut self, context: &mut Context<'_>) {
        let buffer = &mut self.buffer;
        self.closed.retain_mut(|line| {
            let flushed = line.poll_flush(context);
            if flushed.is_ready() && Pin::new(&mut line.stream).poll_shutdown(context).is_pending() {
                return true;
            }
            loop {
                buffer.clear();
                match line.stream.poll_piece(context, buffer) {
                    Poll::Pending => return true,
                    Poll::Ready(Ok(Some(_))) => {}
                    Poll::Ready(Ok(None) | Err(_)) => return false,
                }
            }
        });
    }
}

impl Line {
    fn send(&mut self, waker: &Waker, bytes: Vec<u8>) {
        if self.sent == self.unsent.len() {
            (self.unsent, self.sent) = (bytes, 0);
        } else {
            self.unsent.extend_from_slice(&bytes);
        }
        // An error comes again with the next turn.
        let _ = self.poll_flush(&mut Context::from_waker(waker));
    }

    fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.unsent.len() {
            match Pin::new(&mut self.stream).poll_write(context, &self.unsent[self.sent..]) {
                Poll::Ready(Ok(count)) => self.sent += count,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// Drives a client until it is over.
pub(super) async fn drive(actor: Rc<RefCell<Actor>>) {
    poll_fn(|context| if actor.borrow_mut().turn(context) { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// Calls at one time, before it is clear that they do not end.
const TICKS_MAX: u32 = 1_000_000;
