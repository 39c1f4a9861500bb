//! The output of one connection, and the pool its buffers come from.

use std::collections::VecDeque;

use newtmq_base::Instant;
use newtmq_session::Message;

use crate::batch::{Chunk, WriteBatch};

/// Above this many bytes of output a target holds its publishers (design: the one rule of back-pressure).
pub const OUTPUT_HIGH_BYTES: usize = 1 << 20;
/// Below this many bytes they go on.
pub(crate) const OUTPUT_LOW_BYTES: usize = 256 << 10;
/// Above this many bytes of output a connection is not read itself: it sends and does not take its answers. More than
/// [`OUTPUT_HIGH_BYTES`], which deliveries alone can reach, so that a client that publishes to itself is not held by it.
pub(crate) const OUTPUT_OWN_BYTES: usize = 2 << 20;
/// Above this many bytes QoS 0 is dropped even if the output moves. Each publisher is held after one message too many, so only
/// very many of them, or wills, which nobody can be held for, get here.
pub const OUTPUT_MAX_BYTES: usize = 16 << 20;
/// A payload of at least this size is shared rather than copied.
pub(crate) const SHARE_PAYLOAD_BYTES: usize = 4096;
/// A buffer above this size starts no growth: the next chunk does.
const CHUNK_BYTES: usize = 64 << 10;
/// Most bytes that one `fill` gives. Output counts as moved when one is fetched, so this is also how much a slow reader has
/// to take within `slow_consumer_timeout`.
const FILL_BYTES: usize = 64 << 10;

const _: () = assert!(OUTPUT_LOW_BYTES < OUTPUT_HIGH_BYTES && OUTPUT_HIGH_BYTES < OUTPUT_OWN_BYTES);
const _: () = assert!(OUTPUT_OWN_BYTES < OUTPUT_MAX_BYTES);
const _: () = assert!(CHUNK_BYTES <= FILL_BYTES);

/// Empty buffers to use again, so that a round of small writes allocates nothing.
#[derive(Debug, Default)]
pub(crate) struct BufferPool {
    buffers: Vec<Vec<u8>>,
    /// Sum of their capacities.
    bytes: usize,
}

/// Most memory that the pool keeps.
const POOL_BYTES: usize = 4 << 20;
const BUFFER_BYTES: usize = 512;

impl BufferPool {
    fn get(&mut self) -> Vec<u8> {
        match self.buffers.pop() {
            Some(buffer) => {
                self.bytes -= buffer.capacity();
                buffer
            }
            None => Vec::with_capacity(BUFFER_BYTES),
        }
    }

    pub(crate) fn put(&mut self, buffer: Vec<u8>) {
        if buffer.capacity() > 0 && self.bytes + buffer.capacity() <= POOL_BYTES {
            self.bytes += buffer.capacity();
            self.buffers.push(buffer);
        }
    }
}

/// Output before the tail.
#[derive(Debug)]
enum Piece {
    Chunk(Chunk),
    /// What comes behind it waits until this promise of the shard is kept.
    Barrier(u64),
}

/// Encoded output that the driver has not fetched.
#[derive(Debug, Default)]
pub(crate) struct OutBuf {
    /// Where small packets are appended. No capacity while empty.
    tail: Vec<u8>,
    /// What is before the tail.
    #[allow(clippy::box_collection)] // 8 bytes in each idle connection instead of 32
    full: Option<Box<VecDeque<Piece>>>,
    len: usize,
    /// When the driver last fetched something.
    moved: Instant,
}

impl OutBuf {
    /// Bytes waiting.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn moved(&self) -> Instant {
        self.moved
    }

    /// Says when the output starts to count as waiting.
    #[inline]
    pub(crate) fn start(&mut self, now: Instant) {
        self.moved = now;
    }

    /// Appends bytes; a copy.
    #[inline]
    pub(crate) fn extend(&mut self, bytes: &[u8], pool: &mut BufferPool) {
        self.len += bytes.len();
        self.room(bytes.len(), pool).extend_from_slice(bytes);
    }

    /// Appends what `encode` writes.
    #[inline]
    pub(crate) fn encode(&mut self, pool: &mut BufferPool, encode: impl FnOnce(&mut Vec<u8>)) {
        let tail = self.room(0, pool);
        let before = tail.len();
        encode(tail);
        self.len += self.tail.len() - before;
    }

    /// Appends a payload without copying it.
    pub(crate) fn push_payload(&mut self, message: &Message) {
        self.len += message.payload().len();
        self.seal();
        self.full.get_or_insert_default().push_back(Piece::Chunk(Chunk::Payload(message.clone())));
    }

    #[inline]
    fn room(&mut self, bytes: usize, pool: &mut BufferPool) -> &mut Vec<u8> {
        if self.tail.len() + bytes > CHUNK_BYTES {
            self.seal();
        }
        if self.tail.capacity() == 0 {
            self.tail = pool.get();
        }
        &mut self.tail
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            let chunk = Chunk::Bytes(core::mem::take(&mut self.tail));
            self.full.get_or_insert_default().push_back(Piece::Chunk(chunk));
        }
    }

    /// What comes from here on waits until this promise is kept. Says whether it did not before.
    pub(crate) fn bar(&mut self, promise: u64) -> bool {
        // What waits for a later promise waits for this one, too.
        let last = self.full.as_ref().and_then(|full| full.back());
        if matches!(last, Some(Piece::Barrier(last)) if *last >= promise) {
            return false;
        }
        self.seal();
        self.full.get_or_insert_default().push_back(Piece::Barrier(promise));
        true
    }

    /// Whether what comes first waits for a promise that is not kept yet.
    pub(crate) fn is_barred(&self, kept: u64) -> bool {
        let first = self.full.as_ref().and_then(|full| full.front());
        matches!(first, Some(Piece::Barrier(promise)) if *promise > kept)
    }

    /// Drops what waits for a promise that is not kept: its connection ends before.
    pub(crate) fn drop_barred(&mut self, kept: u64) {
        let Some(full) = &mut self.full else { return };
        let barred = |piece: &Piece| matches!(piece, Piece::Barrier(promise) if *promise > kept);
        if let Some(at) = full.iter().position(barred) {
            full.truncate(at);
            self.tail.clear();
            let chunks = full.iter().map(|piece| match piece {
                Piece::Chunk(chunk) => chunk.as_slice().len(),
                Piece::Barrier(_) => 0,
            });
            self.len = chunks.sum();
        }
    }

    /// Moves up to about [`FILL_BYTES`] into `batch`, nothing behind a promise that is not kept.
    pub(crate) fn fill(&mut self, now: Instant, batch: &mut WriteBatch, kept: u64) {
        if self.len == 0 || self.is_barred(kept) {
            return;
        }
        self.moved = now;
        if let Some(full) = &mut self.full {
            while batch.len() < FILL_BYTES {
                match full.pop_front() {
                    None => break,
                    Some(Piece::Chunk(chunk)) => {
                        self.len -= chunk.as_slice().len();
                        batch.push(chunk);
                    }
                    Some(Piece::Barrier(promise)) if promise <= kept => {}
                    Some(barrier @ Piece::Barrier(_)) => {
                        full.push_front(barrier);
                        return;
                    }
                }
            }
            if !full.is_empty() {
                return;
            }
            self.full = None;
        }
        if batch.len() < FILL_BYTES && !self.tail.is_empty() {
            self.len -= self.tail.len();
            batch.push(Chunk::Bytes(core::mem::take(&mut self.tail)));
        }
    }
}
