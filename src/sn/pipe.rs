//! A connection inside the process: between the gateway and the driver of a shard, in place of a socket. The driver reads and
//! writes its end as any stream; the gateway's never waits. Beside the bytes it carries what MQTT has no packets for, in
//! order with them.
//!
//! Both directions have limits. What the gateway writes is limited by what it asks for: it is told when the driver has not
//! read for too long, and sends no more requests then. The driver's writes wait.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::driver::{DriverStream, Note, ReadyList, Told};

/// More unread bytes than these, and the gateway holds back.
const UNREAD_MAX: usize = 4 << 10;
/// More bytes than these that the gateway has not taken, and the driver waits.
const UNTAKEN_MAX: usize = 64 << 10;

/// Both ends of a new pipe. `slot` is what the gateway finds on its list when something has happened.
pub(super) fn pipe(slot: u32, ready: &ReadyList) -> (GatewayEnd, PipeEnd) {
    let shared = Arc::new(Mutex::new(State {
        slot,
        ready: ready.clone(),
        listed: false,
        inside: None,
        waker: None,
        held: false,
        blocked: false,
        gateway_gone: false,
        shard_done: false,
    }));
    (GatewayEnd { shared: Arc::clone(&shared) }, PipeEnd { shared })
}

/// The gateway's end. Dropping it ends the connection, behind what was written.
#[derive(Debug)]
pub(super) struct GatewayEnd {
    shared: Arc<Mutex<State>>,
}

/// The end of a shard's driver.
#[derive(Debug)]
pub struct PipeEnd {
    shared: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    slot: u32,
    ready: ReadyList,
    /// The slot is on the list.
    listed: bool,
    /// What is in the pipe. Most are empty: that costs a pointer.
    inside: Option<Box<Inside>>,
    /// The driver, if it waits for something.
    waker: Option<Waker>,
    /// The gateway holds back.
    held: bool,
    /// The driver could not write.
    blocked: bool,
    /// The gateway's end is gone.
    gateway_gone: bool,
    /// The driver writes no more.
    shard_done: bool,
}

#[derive(Debug, Default)]
struct Inside {
    /// To the shard; the first bytes of it are read already.
    unread: Vec<u8>,
    read: usize,
    /// Each with the number of bytes of `unread` before it.
    notes: VecDeque<(usize, Note)>,
    /// To the gateway.
    untaken: Vec<u8>,
    told: Vec<Told>,
}

/// What has come from the shard.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct FromShard {
    /// In order, and before the bytes.
    pub(super) told: Vec<Told>,
    pub(super) bytes: Vec<u8>,
    /// The driver has read what was written.
    pub(super) resumed: bool,
    /// Nothing else will come.
    pub(super) closed: bool,
}

impl Inside {
    fn unread(&self) -> usize {
        self.unread.len() - self.read
    }

    /// Bytes that may be read before the next note.
    fn readable(&self) -> &[u8] {
        let until = self.notes.front().map_or(self.unread.len(), |(before, _)| *before);
        &self.unread[self.read..until]
    }

    fn is_empty(&self) -> bool {
        self.unread.is_empty() && self.notes.is_empty() && self.untaken.is_empty() && self.told.is_empty()
    }
}

impl State {
    fn list(&mut self) {
        if !std::mem::replace(&mut self.listed, true) {
            self.ready.push(self.slot);
        }
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn wait(&mut self, context: &Context<'_>) {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            self.waker = Some(context.waker().clone());
        }
    }

    fn inside(&mut self) -> &mut Inside {
        self.inside.get_or_insert_default()
    }

    fn has_notes(&self) -> bool {
        self.inside.as_ref().is_some_and(|inside| !inside.notes.is_empty())
    }

    /// Something of what is inside was taken out.
    fn taken_out(&mut self) {
        let Some(inside) = &mut self.inside else { return };
        if inside.unread() == 0 && inside.notes.is_empty() {
            (inside.unread, inside.read) = (Vec::new(), 0);
        }
        let little = inside.unread() <= UNREAD_MAX / 2;
        if inside.is_empty() {
            self.inside = None;
        }
        if self.held && little {
            self.held = false;
            self.list();
        }
    }
}

fn lock(shared: &Mutex<State>) -> MutexGuard<'_, State> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl GatewayEnd {
    /// Writes. Says whether the gateway has to hold back from here on.
    pub(super) fn write(&self, bytes: &[u8]) -> bool {
        let mut state = lock(&self.shared);
        if state.shard_done {
            return false;
        }
        let inside = state.inside();
        inside.unread.extend_from_slice(bytes);
        let much = inside.unread() > UNREAD_MAX;
        state.wake();
        let holds = !state.held && much;
        state.held |= holds;
        holds
    }

    /// Says something beside the bytes, behind those that were written.
    pub(super) fn note(&self, note: Note) {
        let mut state = lock(&self.shared);
        if state.shard_done {
            return;
        }
        let Inside { unread, notes, .. } = state.inside();
        // Only the last record counts.
        if matches!(note, Note::Keep(_)) {
            notes.retain(|(_, earlier)| !matches!(earlier, Note::Keep(_)));
        }
        notes.push_back((unread.len(), note));
        state.wake();
    }

    /// Takes what has come.
    pub(super) fn take(&self) -> FromShard {
        let mut state = lock(&self.shared);
        state.listed = false;
        if std::mem::take(&mut state.blocked) {
            state.wake();
        }
        let (told, bytes) = match &mut state.inside {
            Some(inside) => (std::mem::take(&mut inside.told), std::mem::take(&mut inside.untaken)),
            None => (Vec::new(), Vec::new()),
        };
        state.taken_out();
        FromShard { told, bytes, resumed: !state.held, closed: state.shard_done }
    }
}

impl Drop for GatewayEnd {
    fn drop(&mut self) {
        let mut state = lock(&self.shared);
        (state.gateway_gone, state.held) = (true, false);
        if let Some(inside) = &mut state.inside {
            (inside.untaken, inside.told) = (Vec::new(), Vec::new());
        }
        state.taken_out();
        state.wake();
    }
}

impl Drop for PipeEnd {
    fn drop(&mut self) {
        let mut state = lock(&self.shared);
        state.shard_done = true;
        if let Some(inside) = &mut state.inside {
            (inside.unread, inside.read, inside.notes) = (Vec::new(), 0, VecDeque::new());
        }
        state.waker = None;
        state.list();
    }
}

impl AsyncRead for PipeEnd {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.shared);
        if let Some(inside) = &mut state.inside {
            let bytes = inside.readable();
            let count = bytes.len().min(buffer.remaining());
            if count > 0 {
                buffer.put_slice(&bytes[..count]);
                inside.read += count;
                state.taken_out();
                return Poll::Ready(Ok(()));
            }
        }
        if state.gateway_gone && !state.has_notes() {
            return Poll::Ready(Ok(()));
        }
        state.wait(cx);
        Poll::Pending
    }
}

impl AsyncWrite for PipeEnd {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = lock(&self.shared);
        if state.gateway_gone {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if state.inside.as_ref().is_some_and(|inside| inside.untaken.len() >= UNTAKEN_MAX) {
            state.blocked = true;
            state.wait(cx);
            return Poll::Pending;
        }
        state.inside().untaken.extend_from_slice(bytes);
        state.list();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.shared);
        state.shard_done = true;
        state.list();
        Poll::Ready(Ok(()))
    }
}

impl DriverStream for PipeEnd {
    fn wakes(&self) -> bool {
        true
    }

    fn take_note(&mut self) -> Option<Note> {
        let mut state = lock(&self.shared);
        let inside = state.inside.as_mut()?;
        if !inside.readable().is_empty() {
            return None;
        }
        let (_, note) = inside.notes.pop_front()?;
        state.taken_out();
        Some(note)
    }

    fn tell(&mut self, told: Told) {
        let mut state = lock(&self.shared);
        if !state.gateway_gone {
            state.inside().told.push(told);
            state.list();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(end: &mut PipeEnd) -> Option<Vec<u8>> {
        let mut bytes = [0; 16];
        let mut buffer = ReadBuf::new(&mut bytes);
        let mut context = Context::from_waker(Waker::noop());
        match Pin::new(end).poll_read(&mut context, &mut buffer) {
            Poll::Ready(read) => read.map(|()| Some(buffer.filled().to_vec())).unwrap(),
            Poll::Pending => None,
        }
    }

    fn write(end: &mut PipeEnd, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(end).poll_write(&mut Context::from_waker(Waker::noop()), bytes)
    }

    #[test]
    fn notes_keep_their_place_among_the_bytes() {
        let (gateway, mut shard) = pipe(3, &ReadyList::default());
        gateway.write(b"ab");
        gateway.note(Note::Outlive(1));
        gateway.note(Note::Keep([1].into()));
        gateway.write(b"cd");
        gateway.note(Note::Keep([2].into()));
        assert_eq!(shard.take_note(), None);
        assert_eq!(read(&mut shard).unwrap(), b"ab");
        assert_eq!(read(&mut shard), None, "not over the note");
        assert_eq!(shard.take_note(), Some(Note::Outlive(1)));
        assert_eq!(shard.take_note(), None, "the record that counts comes later");
        assert_eq!(read(&mut shard).unwrap(), b"cd");
        drop(gateway);
        assert_eq!(read(&mut shard), None, "the end is behind the note");
        assert_eq!(shard.take_note(), Some(Note::Keep([2].into())));
        assert_eq!(read(&mut shard).unwrap(), b"", "the end");
        assert!(matches!(write(&mut shard, b"x"), Poll::Ready(Err(_))));
    }

    #[test]
    fn both_directions_have_limits() {
        let ready = ReadyList::default();
        let (gateway, mut shard) = pipe(3, &ready);
        assert!(!gateway.write(&[7; UNREAD_MAX]));
        assert!(gateway.write(b"x") && !gateway.write(b"x"), "told once");
        assert!(!gateway.take().resumed);
        while read(&mut shard).is_some() {}
        let mut slots = Vec::new();
        ready.take(&mut slots);
        assert_eq!(slots, [3]);
        assert!(gateway.take().resumed);
        assert!(write(&mut shard, &[0; UNTAKEN_MAX]).is_ready());
        assert!(write(&mut shard, b"x").is_pending());
        assert_eq!(gateway.take().bytes.len(), UNTAKEN_MAX);
        assert!(write(&mut shard, b"x").is_ready());
        shard.tell(Told::WillSet(true));
        drop(shard);
        let want = FromShard { told: vec![Told::WillSet(true)], bytes: b"x".to_vec(), resumed: true, closed: true };
        assert_eq!(gateway.take(), want);
    }
}
