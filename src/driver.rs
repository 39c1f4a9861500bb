//! The driver of one shard: a future that owns the core, its connections and one timer.
//!
//! Each round reads what is ready through one buffer, hands it to the shard, and then writes once to each connection
//! that has output. Generic over the stream, so that TCP, TLS, WebSocket and simulated connections run the same code.
//! It decides nothing about MQTT.

mod decide;
mod mail;
mod poller;
pub(crate) mod ready;
mod slot;
mod stream;
#[cfg(all(test, not(madsim)))]
mod tests;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use newtmq_base::{ConnId, Instant, ListenerId, RequestId, ShardId};
use newtmq_mqtt::ReasonCode;
use newtmq_node::{
    AdminCommand, CloseCause, Fill, Moved, Outbox, Output, Peer, PlaceMessage, RecoveredChunk, Shard, ShardInput,
    ToControl, Verdict, WriteBatch,
};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::sync::mpsc;

use crate::rt::Clock;
use crate::store::{Desk, News};
pub use decide::{Answer, Asked, Decider};
pub use mail::{Dealer, Letter, Mailbox, Office, Reports, office};
#[cfg(madsim)]
pub use poller::Alarms;
pub use poller::{Poller, Readiness, Wakers};
pub(crate) use ready::ReadyList;
use slot::{Slot, Slots, Wrote, write};
pub use stream::{DriverStream, Note, Told};

/// Largest read, and what a connection may read in a row; then the others have their turn.
const READ_BYTES: usize = 64 << 10;
/// What a read costs of that at least: a client may need many records or frames for a few bytes.
const READ_COST_MIN: usize = READ_BYTES / 4;
/// Most connections opened in a round.
const OPEN_MAX: usize = 256;
/// Most `fill`s of one connection in a round; then the others have their turn.
const FILL_MAX: usize = 4;

/// What a poller knows a connection by.
fn token(conn: ConnId) -> u64 {
    u64::from(conn.generation) << 32 | u64::from(conn.slot)
}

fn conn_of(token: u64) -> ConnId {
    ConnId { slot: token as u32, generation: (token >> 32) as u32 }
}

/// A connection that was just accepted.
#[derive(Debug)]
pub struct Accepted<S> {
    /// Its stream.
    pub stream: S,
    /// Remote address.
    pub address: SocketAddr,
    /// Where it came in.
    pub listener: ListenerId,
    /// The User Name that its certificate gives it.
    pub username: Option<Box<str>>,
}

/// Drives a shard until it is told to stop and every connection is closed.
#[derive(Debug)]
pub struct Driver<P: Poller> {
    shard: Shard,
    poller: P,
    /// What the poller said in this round.
    events: Vec<(u64, Readiness)>,
    clock: Clock,
    now: Instant,
    mail: Mailbox<P::Stream>,
    /// By shard: what it is to be told at the end of the round.
    told: Vec<Vec<PlaceMessage>>,
    /// What the control plane is to be told at the end of the round.
    reports: Vec<ToControl>,
    /// The shard has frames for other nodes, which leave at the end of the round.
    has_lanes: bool,
    slots: Slots<P::Stream>,
    ready: ReadyList,
    /// Slots that have something to do in this round.
    woken: Vec<u32>,
    /// Slots with output.
    dirty: Vec<u32>,
    buffer: Box<[u8]>,
    batch: WriteBatch,
    out: Outbox,
    outputs: Vec<Output>,
    stopping: bool,
    /// Where batches go; none if nothing is stored.
    desk: Option<Desk>,
    /// Slots that are not read while the store is behind.
    unread: Vec<u32>,
    /// Who answers the questions of hooks; without one the shard is not configured to ask.
    decider: Option<Decider>,
    /// Who is told of clients that connect too often, with their zones; what has no room is lost.
    flaps: Option<mpsc::Sender<(u16, Box<str>)>>,
    /// What was answered. A connection has one open question at most, so there are no more answers than connections.
    verdicts: mpsc::UnboundedReceiver<(RequestId, Verdict)>,
    answers: mpsc::UnboundedSender<(RequestId, Verdict)>,
}

impl<P: Poller> Driver<P> {
    /// A driver for a shard. It ends when [`AdminCommand::Shutdown`] came and all connections are closed.
    #[must_use]
    pub fn new(shard: Shard, clock: Clock, poller: P, mail: Mailbox<P::Stream>) -> Driver<P> {
        let (answers, verdicts) = mpsc::unbounded_channel();
        Driver {
            told: mail.shards.iter().map(|_| Vec::new()).collect(),
            reports: Vec::new(),
            has_lanes: false,
            mail,
            shard,
            poller,
            events: Vec::new(),
            clock,
            now: clock.now(),
            slots: Slots::default(),
            ready: ReadyList::default(),
            woken: Vec::new(),
            dirty: Vec::new(),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            batch: WriteBatch::default(),
            out: Outbox::default(),
            outputs: Vec::new(),
            stopping: false,
            desk: None,
            unread: Vec::new(),
            flaps: None,
            decider: None,
            verdicts,
            answers,
        }
    }

    /// Tells of clients that connect too often.
    #[must_use]
    pub fn tells_flaps(mut self, flaps: mpsc::Sender<(u16, Box<str>)>) -> Driver<P> {
        self.flaps = Some(flaps);
        self
    }

    /// With somebody who answers the questions of hooks, if there is one.
    #[must_use]
    pub fn decided_by(mut self, decider: Option<Decider>) -> Driver<P> {
        self.decider = decider;
        self
    }

    /// With somebody who stores what the shard wants stored.
    #[must_use]
    pub fn stored_by(mut self, desk: Option<Desk>) -> Driver<P> {
        self.desk = desk;
        self
    }

    /// Takes in some of what was stored before this start.
    pub fn recover(&mut self, chunk: Box<RecoveredChunk>) {
        self.shard.handle(self.now, ShardInput::Recovered(chunk), &mut self.out);
        self.take_outputs();
    }

    /// What watches the streams.
    pub fn poller(&mut self) -> &mut P {
        &mut self.poller
    }

    /// The shard, to look at.
    #[must_use]
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// Does what the other end has said beside the bytes, up to those that are still to be read.
    fn take_notes(&mut self, slot: u32) {
        while let Some(s) = self.slots.get(slot).filter(|s| !s.held)
            && let Some(note) = s.stream.take_note()
        {
            let conn = ConnId { slot, generation: s.generation };
            let input = match note {
                Note::Will(will) => ShardInput::SetWill { conn, will },
                Note::Keep(record) => ShardInput::Keep { conn, record },
                Note::Outlive(expiry_interval) => ShardInput::Outlive { conn, expiry_interval },
            };
            self.shard.handle(self.now, input, &mut self.out);
            self.take_outputs();
        }
    }

    /// Reads what the connection has, within a budget.
    fn read(&mut self, slot: u32) {
        let mut budget = READ_BYTES;
        if self.desk.as_ref().is_some_and(Desk::is_behind) {
            self.unread.push(slot);
            return;
        }
        loop {
            self.take_notes(slot);
            let Some(s) = self.slots.get(slot) else { return };
            if s.held {
                return;
            }
            let mut buffer = ReadBuf::new(&mut self.buffer);
            let mut context = Context::from_waker(&s.waker);
            match Pin::new(&mut s.stream).poll_read(&mut context, &mut buffer) {
                Poll::Pending => return,
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => return self.gone(slot, CloseCause::Peer),
                Poll::Ready(Err(error)) => {
                    tracing::debug!(slot, %error, "read");
                    return self.gone(slot, CloseCause::Error);
                }
                Poll::Ready(Ok(())) => {}
            }
            let count = buffer.filled().len();
            // A connection that is being closed is only read to see its end.
            if !s.closing {
                let conn = ConnId { slot, generation: s.generation };
                let data = &self.buffer[..count];
                let taken = self.shard.handle(self.now, ShardInput::Bytes { conn, data }, &mut self.out);
                if taken.hold {
                    s.keep(&data[taken.bytes..]);
                }
                self.take_outputs();
            }
            // TLS and WebSocket give less than they read, so that a full buffer alone would never be seen.
            budget = budget.saturating_sub(count.max(READ_COST_MIN));
            if budget == 0 {
                // There may be more; the others first.
                self.ready.push(slot);
                return;
            }
        }
    }

    /// The hold of a connection is over: first what was kept, then the socket.
    fn resume(&mut self, conn: ConnId) {
        let Some(s) = self.slots.live(conn) else { return };
        s.held = false;
        let kept = s.kept.take().unwrap_or_default();
        if !s.closing && !kept.is_empty() {
            let taken = self.shard.handle(self.now, ShardInput::Bytes { conn, data: &kept }, &mut self.out);
            if taken.hold
                && let Some(s) = self.slots.live(conn)
            {
                s.keep(&kept[taken.bytes..]);
            }
        }
        self.ready.push(conn.slot);
    }

    /// Does what the shard asks for. Inputs that this leads to may ask for more, so it goes on until nothing is left.
    fn take_outputs(&mut self) {
        while !self.out.is_empty() {
            let mut outputs = std::mem::take(&mut self.outputs);
            outputs.extend(self.out.drain());
            for output in outputs.drain(..) {
                match output {
                    Output::Ready(conn) => self.mark_dirty(conn),
                    Output::Resume(conn) => self.resume(conn),
                    Output::Close { conn, reason } => self.start_close(conn, reason),
                    Output::Abort(conn) => {
                        if self.slots.live(conn).is_some() {
                            self.gone(conn.slot, CloseCause::Asked);
                        }
                    }
                    Output::Move { conn, to, moved } => self.move_to(conn, to, moved),
                    Output::Place { to, message } => self.told[usize::from(to.0)].push(message),
                    Output::Control(message) => self.reports.push(message),
                    Output::Lanes => self.has_lanes = true,
                    Output::WillSet { conn, permitted } => {
                        if let Some(s) = self.slots.live(conn) {
                            s.stream.tell(Told::WillSet(permitted));
                        }
                    }
                    Output::Record { conn, record } => {
                        if let Some(s) = self.slots.live(conn) {
                            s.stream.tell(Told::Record(record));
                        }
                    }
                    Output::Decide { request, question } => {
                        if let Some(decider) = &self.decider {
                            decider.ask(Asked::new(self.mail.own, question, Answer::new(request, &self.answers)));
                        }
                    }
                    Output::Flaps { client, zone } => {
                        if let Some(flaps) = &self.flaps {
                            let _ = flaps.try_send((zone, client));
                        }
                    }
                    Output::Store(batch) => {
                        let desk = self.desk.as_ref().expect("a shard stores only if there is a store");
                        desk.give(self.mail.own, batch);
                    }
                    Output::Event(event) => {
                        if event.traced {
                            self.mail.traces.record(&event);
                        }
                        tracing::debug!(
                            hook = event.hook.name(),
                            client = %event.client,
                            topic = event.topic.as_deref(),
                            reason = %event.reason,
                        );
                    }
                }
            }
            self.outputs = outputs;
        }
    }

    fn mark_dirty(&mut self, conn: ConnId) {
        if let Some(s) = self.slots.live(conn) {
            s.has_output = true;
            if !s.dirty {
                s.dirty = true;
                self.dirty.push(conn.slot);
            }
        }
    }

    fn start_close(&mut self, conn: ConnId, reason: ReasonCode) {
        let Some(s) = self.slots.live(conn) else { return };
        tracing::debug!(%conn, %reason, "closing");
        s.closing = true;
        s.held = false;
        s.kept = None;
        if !s.dirty {
            s.dirty = true;
            self.dirty.push(conn.slot);
        }
    }

    /// Writes what the shard has for a connection until it is drained or the socket is full.
    fn flush(&mut self, slot: u32) {
        for _ in 0..FILL_MAX {
            let Some(s) = self.slots.get(slot) else { return };
            if let Some(pending) = &mut s.pending {
                match write(&mut s.stream, &s.waker, pending) {
                    Wrote::All => s.pending = None,
                    Wrote::Blocked => return,
                    Wrote::Failed => return self.gone(slot, CloseCause::Error),
                }
            }
            if !s.has_output {
                return self.end_close(slot);
            }
            let conn = ConnId { slot, generation: s.generation };
            s.has_output = self.shard.fill(self.now, conn, &mut self.batch, &mut self.out) == Fill::More;
            match write(&mut s.stream, &s.waker, &mut self.batch) {
                Wrote::All => {}
                Wrote::Blocked => {
                    s.pending = Some(Box::new(self.batch.split_off()));
                    return;
                }
                Wrote::Failed => {
                    let _ = self.batch.split_off();
                    return self.gone(slot, CloseCause::Error);
                }
            }
        }
        let Some(s) = self.slots.get(slot) else { return };
        if s.has_output || s.closing {
            s.dirty = true;
            self.dirty.push(slot);
            self.ready.wake();
        }
    }

    /// Everything is written to a connection that is to be closed: say so to the peer, then wait for its end, so that
    /// the last packet is not lost to a reset.
    fn end_close(&mut self, slot: u32) {
        let Some(s) = self.slots.get(slot) else { return };
        if !s.closing || s.shut_down {
            return;
        }
        let mut context = Context::from_waker(&s.waker);
        match Pin::new(&mut s.stream).poll_shutdown(&mut context) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => {
                s.shut_down = true;
                self.ready.push(slot);
            }
            Poll::Ready(Err(_)) => self.gone(slot, CloseCause::Asked),
        }
    }

    fn gone(&mut self, slot: u32, cause: CloseCause) {
        if let Some(s) = self.slots.remove(slot) {
            let conn = ConnId { slot, generation: s.generation };
            self.shard.handle(self.now, ShardInput::Closed { conn, cause }, &mut self.out);
            self.take_outputs();
        }
    }

    fn open(&mut self, accepted: Accepted<P::Stream>) {
        let Accepted { stream, address, listener, username } = accepted;
        let conn = self.seat(stream);
        if !self.watch(conn) {
            self.slots.remove(conn.slot);
            return;
        }
        tracing::debug!(%conn, %address, listener = listener.0, username, "opened");
        let input = ShardInput::Opened { conn, listener, peer: Peer::from(address), username };
        self.shard.handle(self.now, input, &mut self.out);
        self.take_outputs();
        // What came with the connection is read in this round.
        self.woken.push(conn.slot);
    }

    /// Gives a stream a slot.
    fn seat(&mut self, stream: P::Stream) -> ConnId {
        let ready = &self.ready;
        self.slots.insert(|slot, generation| {
            let waker = P::waker(&stream, || ready.waker(slot));
            Slot::new(stream, generation, waker)
        })
    }

    /// Watches a connection; says whether that is possible.
    fn watch(&mut self, conn: ConnId) -> bool {
        let Some(s) = self.slots.live(conn) else { return true };
        let watched = self.poller.register(&s.stream, token(conn));
        if let Err(error) = &watched {
            tracing::warn!(%error, "cannot watch a new connection; it is closed");
        }
        watched.is_ok()
    }

    /// A connection goes to the shard of its client.
    fn move_to(&mut self, conn: ConnId, to: ShardId, moved: Box<Moved>) {
        if self.slots.live(conn).is_none() {
            return;
        }
        let Some(s) = self.slots.remove(conn.slot) else { return };
        self.poller.forget(&s.stream);
        let kept = s.kept.map(|kept| *kept).unwrap_or_default();
        // If that shard has ended, the node stops and the connection ends, too.
        let _ = self.mail.shards[usize::from(to.0)].send(Letter::Moved { stream: s.stream, moved, kept });
    }

    /// A connection of a client of this shard comes from another.
    fn moved_in(&mut self, stream: P::Stream, moved: Box<Moved>, kept: Vec<u8>) {
        let conn = self.seat(stream);
        let taken = self.shard.handle(self.now, ShardInput::Moved { conn, moved }, &mut self.out);
        if !self.watch(conn) {
            // The shard has it already, with its share of the node's limit.
            return self.gone(conn.slot, CloseCause::Error);
        }
        if let Some(s) = self.slots.live(conn) {
            s.keep(&kept);
            if !taken.hold {
                self.resume(conn);
            }
        }
        self.take_outputs();
        self.woken.push(conn.slot);
    }

    fn poll_inputs(&mut self, context: &mut Context<'_>) {
        for _ in 0..OPEN_MAX {
            match self.mail.accepted.poll_recv(context) {
                Poll::Ready(Some(accepted)) if self.stopping => drop(accepted),
                Poll::Ready(Some(accepted)) => self.open(accepted),
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        while let Poll::Ready(Some(letter)) = self.mail.letters.poll_recv(context) {
            match letter {
                Letter::Place { from, messages } => {
                    for message in messages {
                        self.shard.handle(self.now, ShardInput::Place { from, message }, &mut self.out);
                    }
                }
                Letter::Control(messages) => {
                    for message in messages {
                        self.shard.handle(self.now, ShardInput::Control(message), &mut self.out);
                    }
                }
                Letter::Moved { .. } if self.stopping => {}
                Letter::Moved { stream, moved, kept } => self.moved_in(stream, moved, kept),
                Letter::Admin(command) => {
                    self.stopping |= command == AdminCommand::Shutdown;
                    self.shard.handle(self.now, ShardInput::Admin(command), &mut self.out);
                }
                // Who has asked may be gone.
                Letter::Ask { question, answer } => drop(answer.send(self.shard.view().answer(self.now, &question))),
                Letter::Store(news) => self.hear(news),
            }
            self.take_outputs();
        }
        while let Poll::Ready(Some((request, verdict))) = self.verdicts.poll_recv(context) {
            self.shard.handle(self.now, ShardInput::Decided { request, verdict }, &mut self.out);
            self.take_outputs();
        }
    }

    /// The store says something.
    fn hear(&mut self, news: News) {
        let input = match news {
            News::Stored { upto, segment } => ShardInput::Stored { upto, segment },
            News::State(state) => ShardInput::Store(state),
            News::Renew { before } => ShardInput::Renew { before },
            News::Room => return self.read_again(),
        };
        self.shard.handle(self.now, input, &mut self.out);
        self.read_again();
    }

    /// Those that were not read while the store was behind get their turn; if it still is, they wait on.
    fn read_again(&mut self) {
        for slot in self.unread.drain(..) {
            self.ready.push(slot);
        }
    }

    /// Tells the other shards and the control plane what was said to them in this round.
    fn send_letters(&mut self) {
        if std::mem::take(&mut self.has_lanes) {
            self.reports.extend(self.shard.take_lanes());
        }
        if !self.reports.is_empty() {
            // The control plane ends after the shards.
            let _ = self.mail.control.send((self.mail.own, std::mem::take(&mut self.reports)));
        }
        for (told, letters) in self.told.iter_mut().zip(&self.mail.shards) {
            if !told.is_empty() {
                let messages = std::mem::take(told);
                // A shard that has ended has no clients left.
                let _ = letters.send(Letter::Place { from: self.mail.own, messages });
            }
        }
    }

    /// Asks the poller which streams are ready, and adds them to those who have something to do.
    fn take_ready(&mut self, woken: &mut Vec<u32>) {
        self.poller.take_ready(&mut self.events);
        for (token, readiness) in self.events.drain(..) {
            // A slot that was used again since is not who this is about.
            if let Some(s) = self.slots.live(conn_of(token)) {
                P::set_ready(&mut s.stream, readiness);
                woken.push(conn_of(token).slot);
            }
        }
    }

    /// Gives the shard a Tick when it wants one.
    fn tick(&mut self) {
        if self.shard.next_deadline().is_some_and(|(at, _)| at <= self.now) {
            self.shard.handle(self.now, ShardInput::Tick, &mut self.out);
            self.take_outputs();
        }
    }

    /// Sets the timer to the next time that the shard wants.
    fn poll_timer(&mut self, context: &mut Context<'_>) {
        let wanted = self.shard.next_deadline().map(|(at, _)| at);
        if wanted.is_some_and(|at| at <= self.now) {
            // Work is left: let the sockets have their turn, then go on.
            context.waker().wake_by_ref();
        }
        self.poller.wake_at(context, wanted.map(|at| self.clock.at(at)));
    }

    /// The account of messages, at the end: what was matched was delivered, waits or was dropped.
    fn tell_account(&self) {
        let view = self.shard.view();
        let ledger = view.ledger();
        tracing::info!(
            shard = self.mail.own.0,
            accepted = ledger.accepted,
            matched = ledger.matched,
            delivered = ledger.delivered,
            waiting = view.queued(),
            dropped = ledger.dropped_total(),
            balance = view.ledger_balance() as i64,
            "messages"
        );
    }

    fn round(&mut self, context: &mut Context<'_>) {
        self.now = self.clock.now();
        self.poll_inputs(context);
        let mut woken = std::mem::take(&mut self.woken);
        self.ready.take(&mut woken);
        self.take_ready(&mut woken);
        for slot in woken.drain(..) {
            if self.slots.get(slot).is_some_and(|s| s.pending.is_some() || s.closing) {
                self.flush(slot);
            }
            self.read(slot);
        }
        self.woken = woken;
        self.tick();
        // Writing may resume publishers, whose packets make more output: one more pass each, the rest next round.
        let mut dirty = std::mem::take(&mut self.dirty);
        for slot in dirty.drain(..) {
            if let Some(s) = self.slots.get(slot) {
                s.dirty = false;
                if s.pending.is_none() {
                    self.flush(slot);
                }
            }
        }
        self.take_outputs();
        if self.dirty.is_empty() {
            self.dirty = dirty;
        } else {
            self.ready.wake();
        }
        self.send_letters();
        // Last, for anything above may have armed a timer.
        self.poll_timer(context);
    }
}

impl<P: Poller + Unpin> Future for Driver<P> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.ready.set_parent(context.waker());
        this.round(context);
        if this.stopping && this.slots.is_empty() {
            this.tell_account();
            return Poll::Ready(());
        }
        Poll::Pending
    }
}
