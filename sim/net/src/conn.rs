//! A connection: two directions and two ends. End 0 is who connected and writes to pipe 0, end 1 who accepted.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use madsim::task::NodeId;
use madsim::time::TimeHandle;

use crate::alarm::{NEVER, nanos};
use crate::chance::Chance;
use crate::link::LinkSpec;
use crate::pipe::{Pipe, Reader, Taken};

/// A connection.
#[derive(Debug)]
pub(crate) struct Conn {
    time: Time,
    state: Mutex<State>,
    /// Where each end is.
    pub(crate) nodes: [NodeId; 2],
    /// Each end's address.
    pub(crate) addresses: [SocketAddr; 2],
}

/// Shown as nothing: madsim's cannot be.
pub(crate) struct Time(pub(crate) TimeHandle);

impl std::fmt::Debug for Time {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TimeHandle")
    }
}

#[derive(Debug)]
struct State {
    pipes: [Pipe; 2],
    /// The end is gone: its stream may not be used, and its drop does nothing.
    dead: [bool; 2],
    /// The end was killed without a word.
    silent: [bool; 2],
    chance: Chance,
}

impl State {
    /// Lets `end` know at this time that its connection was reset.
    fn tell_reset(&mut self, time: &TimeHandle, now: u64, end: usize, at: u64) {
        self.pipes[1 - end].reading.set(time, now, at);
        self.pipes[end].writing.set(time, now, at);
    }

    /// The end answers with RST from here on, or with nothing.
    fn leave(&mut self, end: usize, reader: Reader) {
        self.dead[end] = true;
        let pipe = &mut self.pipes[1 - end];
        pipe.reader = reader;
        pipe.discard();
    }
}

impl Conn {
    pub(crate) fn new(
        time: &TimeHandle,
        spec: LinkSpec,
        chance: [Chance; 3],
        nodes: [NodeId; 2],
        addresses: [SocketAddr; 2],
    ) -> Conn {
        let [up, down, chance] = chance;
        let pipes = [Pipe::new(spec, 0, up), Pipe::new(spec, 1, down)];
        let state = State { pipes, dead: [false; 2], silent: [false; 2], chance };
        Conn { time: Time(time.clone()), state: Mutex::new(state), nodes, addresses }
    }

    fn lock(&self) -> (MutexGuard<'_, State>, &TimeHandle, u64) {
        (self.state.lock().unwrap_or_else(PoisonError::into_inner), &self.time.0, nanos(&self.time.0))
    }

    /// Nothing that end 0 sends arrives before this time.
    pub(crate) fn accepted_at(&self, at: u64) {
        self.lock().0.pipes[0].last = at;
    }

    /// Reads; `None` at the end, otherwise how much and when the last byte was written.
    pub(crate) fn poll_take(
        &self,
        end: usize,
        context: &mut Context<'_>,
        max: usize,
        many: bool,
        give: impl FnMut(&[u8]),
    ) -> Poll<io::Result<Option<(usize, u64)>>> {
        let (mut state, time, now) = self.lock();
        if state.dead[end] {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        }
        let [incoming, outgoing] = state.pipes.get_disjoint_mut([1 - end, end]).expect("two pipes");
        match incoming.take(now, max, many, give) {
            Taken::Bytes { count, sent } => {
                incoming.reading.done();
                let known = if outgoing.cut { NEVER } else { now + outgoing.fastest() };
                incoming.free(known, count);
                incoming.writing.set(time, now, known);
                Poll::Ready(Ok(Some((count, sent))))
            }
            Taken::End => Poll::Ready(Ok(None)),
            Taken::Reset => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Taken::Nothing { next } => {
                incoming.reading.wait(context);
                incoming.reading.set(time, now, next);
                Poll::Pending
            }
        }
    }

    /// Writes as much as there is room for.
    pub(crate) fn poll_write(
        &self,
        end: usize,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let (mut state, time, now) = self.lock();
        if state.dead[end] {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        }
        let [incoming, outgoing] = state.pipes.get_disjoint_mut([1 - end, end]).expect("two pipes");
        if incoming.is_reset(now) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if outgoing.is_shut() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = match outgoing.room(now) {
            Ok(room) => room,
            Err(next) => {
                outgoing.writing.wait(context);
                outgoing.writing.set(time, now, next);
                return Poll::Pending;
            }
        };
        outgoing.writing.done();
        let (count, arrives) = outgoing.write(now, slices, room);
        match outgoing.reader {
            Reader::Open => outgoing.reading.set(time, now, arrives),
            Reader::Closed if arrives != NEVER => {
                let at = incoming.reset(arrives);
                state.tell_reset(time, now, end, at);
            }
            Reader::Closed | Reader::Silent => {}
        }
        Poll::Ready(Ok(count))
    }

    /// Sends FIN.
    pub(crate) fn poll_shutdown(&self, end: usize, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (mut state, time, now) = self.lock();
        if state.dead[end] || state.pipes[1 - end].is_reset(now) {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        }
        let at = state.pipes[end].shut(now);
        state.pipes[end].reading.set(time, now, at);
        Poll::Ready(Ok(()))
    }

    /// As an operating system does when a socket is closed: FIN, or RST if something was not read.
    pub(crate) fn close(&self, end: usize) {
        let (mut state, time, now) = self.lock();
        if state.dead[end] {
            return;
        }
        if state.pipes[1 - end].has_unread(now) {
            let at = state.pipes[end].reset(now);
            state.tell_reset(time, now, 1 - end, at);
        } else {
            let at = state.pipes[end].shut(now);
            state.pipes[end].reading.set(time, now, at);
            // What is under way finds nobody.
            if let Some(arrives) = state.pipes[1 - end].under_way(now).filter(|at| *at != NEVER) {
                let at = state.pipes[end].reset(arrives);
                state.tell_reset(time, now, 1 - end, at);
            }
        }
        state.leave(end, Reader::Closed);
    }

    /// Breaks the connection: what is under way is lost both ways, and the other end learns of it.
    pub(crate) fn reset(&self, end: usize) {
        let (mut state, time, now) = self.lock();
        if state.dead[end] {
            return;
        }
        state.pipes[end].lose(now);
        let at = state.pipes[end].reset(now);
        state.tell_reset(time, now, 1 - end, at);
        state.leave(end, Reader::Closed);
    }

    /// The end is gone without a word; what comes is not answered.
    pub(crate) fn abandon(&self, end: usize) {
        let (mut state, _, _) = self.lock();
        if !state.dead[end] {
            state.leave(end, Reader::Silent);
        }
    }

    /// The same, until [`Conn::end_silence`].
    pub(crate) fn kill(&self, end: usize) {
        let (mut state, _, _) = self.lock();
        if !state.dead[end] {
            state.leave(end, Reader::Silent);
            state.silent[end] = true;
        }
    }

    /// The peer of an end that was killed gets RST.
    pub(crate) fn end_silence(&self) {
        let (mut state, time, now) = self.lock();
        for end in 0..2 {
            if core::mem::take(&mut state.silent[end]) {
                let at = state.pipes[end].reset(now);
                state.tell_reset(time, now, 1 - end, at);
            }
        }
    }

    /// Both ends get RST.
    pub(crate) fn break_off(&self) {
        let (mut state, time, now) = self.lock();
        for end in 0..2 {
            state.pipes[1 - end].lose(now);
            let at = state.pipes[1 - end].reset(now);
            state.tell_reset(time, now, end, at);
        }
    }

    /// Heads or tails.
    pub(crate) fn tosses(&self) -> bool {
        self.lock().0.chance.ppm(500_000)
    }

    /// Cuts directions off, in addition to those that are.
    pub(crate) fn cut(&self, directions: [bool; 2]) {
        let (mut state, _, now) = self.lock();
        for direction in (0..2).filter(|direction| directions[*direction]) {
            let [pipe, back] = state.pipes.get_disjoint_mut([direction, 1 - direction]).expect("two pipes");
            if !pipe.cut {
                pipe.begin_cut(back, now);
            }
        }
    }

    /// The end of every cut.
    pub(crate) fn heal(&self) {
        self.heal_some([true; 2]);
    }

    /// The end of cuts of these directions.
    pub(crate) fn heal_some(&self, directions: [bool; 2]) {
        let (mut state, time, now) = self.lock();
        for direction in (0..2).filter(|direction| directions[*direction]) {
            let [pipe, back] = state.pipes.get_disjoint_mut([direction, 1 - direction]).expect("two pipes");
            if !pipe.cut {
                continue;
            }
            let (first, room) = pipe.end_cut(back, now);
            pipe.reading.set(time, now, first);
            // RST among it concerns who writes, too.
            back.writing.set(time, now, room.min(first));
            if pipe.reader == Reader::Closed && pipe.is_used() {
                let at = back.reset(now + pipe.fastest());
                state.tell_reset(time, now, direction, at);
            }
        }
    }

    /// Microseconds more, and bytes a second, of one direction; 0 for no limit.
    pub(crate) fn set_speed(&self, direction: usize, slow_us: u64, bytes_per_s: u64) {
        let (mut state, time, now) = self.lock();
        let pipe = &mut state.pipes[direction];
        let first = pipe.set_speed(now, slow_us, bytes_per_s);
        pipe.reading.set(time, now, first);
    }

    /// Whether an end is still in use.
    pub(crate) fn is_alive(&self) -> bool {
        self.lock().0.dead != [true; 2]
    }
}

/// Fills a buffer for [`tokio::io::AsyncRead`].
pub(crate) fn poll_read(
    conn: &Conn,
    end: usize,
    context: &mut Context<'_>,
    buffer: &mut tokio::io::ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    let max = buffer.remaining();
    if max > 0 {
        ready!(conn.poll_take(end, context, max, true, |bytes| buffer.put_slice(bytes)))?;
    }
    Poll::Ready(Ok(()))
}
