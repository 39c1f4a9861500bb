//! The driver's side of a connection.

use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Buf;
use newtmq_base::ConnId;
use newtmq_node::WriteBatch;
use tokio::io::AsyncWrite;

/// One connection. Kept small: most are idle.
#[derive(Debug)]
pub(super) struct Slot<S> {
    pub(super) stream: S,
    pub(super) waker: Waker,
    pub(super) generation: u32,
    /// The shard takes no input at the moment.
    pub(super) held: bool,
    /// The shard wants it closed.
    pub(super) closing: bool,
    /// Our side is closed; the peer's end is awaited.
    pub(super) shut_down: bool,
    /// It is on the list of those with output.
    pub(super) dirty: bool,
    /// `fill` has more to give.
    pub(super) has_output: bool,
    /// Input that the shard has not taken.
    #[allow(clippy::box_collection)] // 8 bytes in each idle connection instead of 24
    pub(super) kept: Option<Box<Vec<u8>>>,
    /// Output that the socket has not taken.
    pub(super) pending: Option<Box<WriteBatch>>,
}

impl<S> Slot<S> {
    pub(super) fn new(stream: S, generation: u32, waker: Waker) -> Slot<S> {
        Slot {
            stream,
            waker,
            generation,
            held: false,
            closing: false,
            shut_down: false,
            dirty: false,
            has_output: false,
            kept: None,
            pending: None,
        }
    }

    /// Keeps input for when the hold is over.
    pub(super) fn keep(&mut self, input: &[u8]) {
        self.held = true;
        self.kept = if input.is_empty() { None } else { Some(Box::new(input.to_vec())) };
    }
}

/// Connections by slot. Generations rise through the whole table, so that a slot used again is told apart.
#[derive(Debug)]
pub(super) struct Slots<S> {
    slots: Vec<Option<Slot<S>>>,
    free: Vec<u32>,
    open: usize,
    next_generation: u32,
}

impl<S> Default for Slots<S> {
    fn default() -> Self {
        Slots { slots: Vec::new(), free: Vec::new(), open: 0, next_generation: 0 }
    }
}

impl<S> Slots<S> {
    pub(super) fn is_empty(&self) -> bool {
        self.open == 0
    }

    #[inline]
    pub(super) fn get(&mut self, slot: u32) -> Option<&mut Slot<S>> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    /// The slot of exactly this connection.
    #[inline]
    pub(super) fn live(&mut self, conn: ConnId) -> Option<&mut Slot<S>> {
        self.get(conn.slot).filter(|s| s.generation == conn.generation)
    }

    pub(super) fn insert(&mut self, make: impl FnOnce(u32, u32) -> Slot<S>) -> ConnId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("file descriptors are fewer than 2^32")
        });
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        self.slots[slot as usize] = Some(make(slot, generation));
        self.open += 1;
        ConnId { slot, generation }
    }

    pub(super) fn remove(&mut self, slot: u32) -> Option<Slot<S>> {
        let removed = self.slots.get_mut(slot as usize)?.take()?;
        self.free.push(slot);
        self.open -= 1;
        Some(removed)
    }
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrote {
    All,
    /// The socket is full; the waker will say when it is not.
    Blocked,
    Failed,
}

/// Most chunks in one vectored write.
const SLICES: usize = 16;

/// Writes a batch to the stream as far as it goes.
pub(super) fn write<S: AsyncWrite + Unpin>(stream: &mut S, waker: &Waker, batch: &mut WriteBatch) -> Wrote {
    let mut context = Context::from_waker(waker);
    while !batch.is_empty() {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let count = batch.chunks_vectored(&mut slices);
        let stream = Pin::new(&mut *stream);
        let written = if count == 1 {
            stream.poll_write(&mut context, batch.chunk())
        } else {
            stream.poll_write_vectored(&mut context, &slices[..count])
        };
        match written {
            Poll::Ready(Ok(0)) | Poll::Ready(Err(_)) => return Wrote::Failed,
            Poll::Ready(Ok(count)) => batch.advance(count),
            Poll::Pending => return Wrote::Blocked,
        }
    }
    // A buffering stream (TLS, the simulator's) sends what it has only when it is asked to.
    match Pin::new(stream).poll_flush(&mut context) {
        Poll::Ready(Ok(())) => Wrote::All,
        Poll::Ready(Err(_)) => Wrote::Failed,
        Poll::Pending => Wrote::Blocked,
    }
}
