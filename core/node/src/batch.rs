//! Bytes on their way from a shard to a socket.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Buf;
use newtmq_session::Message;

/// A piece of a connection's output.
#[derive(Debug)]
pub(crate) enum Chunk {
    /// Encoded packets.
    Bytes(Vec<u8>),
    /// The payload of a message, shared with everybody else who gets it.
    Payload(Message),
}

impl Chunk {
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Chunk::Bytes(bytes) => bytes,
            Chunk::Payload(message) => message.payload(),
        }
    }
}

/// What [`crate::Shard::fill`] gives to the driver: a [`Buf`] that may have several chunks, for one vectored write.
/// Emptied buffers go back to the shard with the next `fill`.
#[derive(Debug, Default)]
pub struct WriteBatch {
    chunks: VecDeque<Chunk>,
    /// Bytes of the front chunk that are written.
    offset: usize,
    len: usize,
    spare: Vec<Vec<u8>>,
}

impl WriteBatch {
    /// Bytes not written yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether everything is written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Moves what is not written into a batch of its own, for a connection whose socket is full.
    #[must_use]
    pub fn split_off(&mut self) -> WriteBatch {
        let spare = core::mem::take(&mut self.spare);
        core::mem::replace(self, WriteBatch { spare, ..WriteBatch::default() })
    }

    pub(crate) fn push(&mut self, chunk: Chunk) {
        self.len += chunk.as_slice().len();
        self.chunks.push_back(chunk);
    }

    pub(crate) fn take_spare(&mut self) -> impl Iterator<Item = Vec<u8>> {
        self.spare.drain(..)
    }
}

impl Buf for WriteBatch {
    fn remaining(&self) -> usize {
        self.len
    }

    fn chunk(&self) -> &[u8] {
        self.chunks.front().map_or(&[], |chunk| &chunk.as_slice()[self.offset..])
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.len, "advance past the end");
        self.len -= count;
        while count > 0 {
            let front = self.chunks.front().expect("len counts the chunks' bytes").as_slice().len() - self.offset;
            if count < front {
                self.offset += count;
                return;
            }
            count -= front;
            self.offset = 0;
            if let Some(Chunk::Bytes(mut bytes)) = self.chunks.pop_front() {
                bytes.clear();
                self.spare.push(bytes);
            }
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut count = 0;
        for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
            let offset = if count == 0 { self.offset } else { 0 };
            *slice = IoSlice::new(&chunk.as_slice()[offset..]);
            count += 1;
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_writes_end_anywhere() {
        for step in 1..9 {
            let mut batch = WriteBatch::default();
            for part in ["abc", "d", "efgh"] {
                batch.push(Chunk::Bytes(part.into()));
            }
            let mut written = Vec::new();
            while !batch.is_empty() {
                let mut slices = [IoSlice::new(&[]); 4];
                let count = batch.chunks_vectored(&mut slices);
                let all: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
                assert_eq!(all.len(), batch.remaining());
                let take = step.min(all.len());
                written.extend_from_slice(&all[..take]);
                batch.advance(take);
            }
            assert_eq!(written, b"abcdefgh");
            assert_eq!(batch.take_spare().count(), 3);
        }
    }
}
