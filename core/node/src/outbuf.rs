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

/// Encoded output that the driver has not fetched.
#[derive(Debug, Default)]
pub(crate) struct OutBuf {
    /// Where small packets are appended. No capacity while empty.
    tail: Vec<u8>,
    /// What is before the tail.
    #[allow(clippy::box_collection)] // 8 bytes in each idle connection instead of 32
    full: Option<Box<VecDeque<Chunk>>>,
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
        self.full.get_or_insert_default().push_back(Chunk::Payload(message.clone()));
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
            self.full.get_or_insert_default().push_back(Chunk::Bytes(core::mem::take(&mut self.tail)));
        }
    }

    /// Moves up to about [`FILL_BYTES`] into `batch`.
    pub(crate) fn fill(&mut self, now: Instant, batch: &mut WriteBatch) {
        if self.len == 0 {
            return;
        }
        self.moved = now;
        if let Some(full) = &mut self.full {
            while batch.len() < FILL_BYTES {
                let Some(chunk) = full.pop_front() else { break };
                self.len -= chunk.as_slice().len();
                batch.push(chunk);
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
