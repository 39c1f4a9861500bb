//! How a node that is too far behind gets the topics: it asks for them in chunks, and what Raft calls the snapshot counts
//! only when it has all of them.
//!
//! Chunks are taken into the state as they come: each topic only becomes newer by that. So nobody has two states at a time,
//! and who sends keeps nothing for who asks.

use newtmq_base::{Instant, NodeId, planted};
use raft::eraftpb;

use super::message::{Ask, Message};
use super::state::State;
use super::topics::{Chunk, End};
use super::{Output, Retained};

/// Topics that are on their way.
pub(super) struct Fetch {
    snapshot: Box<eraftpb::Message>,
    from: NodeId,
    since: u64,
    least: u64,
    after: Option<Box<str>>,
    // Chunks that have overtaken one before them.
    ahead: Vec<Chunk>,
    // Of those that were asked for, so many have not come.
    left: u32,
    asked_at: Instant,
    tries: u32,
}

impl Retained {
    /// A leader says that its log begins too late for this node.
    pub(super) fn snapshot_came(
        &mut self,
        now: Instant,
        from: NodeId,
        message: Box<eraftpb::Message>,
        out: &mut Vec<Output>,
    ) {
        let snapshot = message.get_snapshot();
        let index = snapshot.get_metadata().index;
        if !State::decode_header(&snapshot.data).is_ok_and(|header| header.index == index) {
            self.counters.malformed += 1;
            return;
        }
        let engine = &self.group.engine;
        if index <= engine.commit() || message.term < engine.term() || planted!(RetainedTakenWithoutTopics) {
            self.step(*message);
            return;
        }
        // It is said again until it is done.
        if self.fetch.as_ref().is_some_and(|fetch| (fetch.from, fetch.snapshot.term) == (from, message.term)) {
            return;
        }
        let (since, least) = (self.group.state.index, self.group.state.topics.exact_from().max(index));
        let fetch = Fetch {
            snapshot: message,
            from,
            since,
            least,
            after: None,
            ahead: Vec::new(),
            left: 0,
            asked_at: now,
            tries: 0,
        };
        self.fetch = Some(fetch);
        self.ask_for_chunks(now, out);
    }

    fn ask_for_chunks(&mut self, now: Instant, out: &mut Vec<Output>) {
        let Some(fetch) = &mut self.fetch else { return };
        (fetch.left, fetch.asked_at) = (self.config.chunks_at_once, now);
        let ask = Ask { since: fetch.since, least: fetch.least, after: fetch.after.clone(), chunks: fetch.left };
        let from = fetch.from;
        self.send(from, &Message::Ask(ask), false, out);
    }

    /// A node asks for chunks.
    pub(super) fn asked_for_chunks(&mut self, from: NodeId, ask: Ask, out: &mut Vec<Output>) {
        let state = &self.group.state;
        if !state.is_exact() || state.index < ask.least || !self.group.is_member(from) {
            self.counters.untaken += 1;
            return;
        }
        let mut after = ask.after;
        for _ in 0..ask.chunks.min(self.config.chunks_at_once) {
            let chunk = self.group.chunk(&self.config, after.as_deref(), ask.since);
            let to = chunk.to.clone();
            self.counters.chunks_sent += 1;
            self.send(from, &Message::Chunk(chunk), true, out);
            match to {
                End::At(topic) => after = Some(topic),
                End::Last => return,
            }
        }
    }

    /// A chunk has come.
    pub(super) fn chunk_came(&mut self, now: Instant, from: NodeId, chunk: Chunk, out: &mut Vec<Output>) {
        let is_of_it = |fetch: &&mut Fetch| fetch.from == from && chunk.since <= fetch.since;
        let Some(fetch) = self.fetch.as_mut().filter(is_of_it) else {
            self.counters.untaken += 1;
            return;
        };
        fetch.ahead.push(chunk);
        let most = self.config.chunks_at_once as usize;
        while let Some(fetch) = &mut self.fetch {
            let is_next = |chunk: &Chunk| chunk.from == fetch.after || planted!(RetainedGapTaken);
            let Some(place) = fetch.ahead.iter().position(is_next) else {
                let extra = fetch.ahead.len().saturating_sub(most);
                fetch.ahead.drain(..extra);
                return;
            };
            let chunk = fetch.ahead.swap_remove(place);
            if chunk.as_of < fetch.least {
                self.counters.untaken += 1;
                continue;
            }
            self.take_chunk(now, chunk, out);
        }
    }

    fn take_chunk(&mut self, now: Instant, chunk: Chunk, out: &mut Vec<Output>) {
        let Some(fetch) = &mut self.fetch else { return };
        // What is taken in later is not older than this.
        fetch.least = chunk.as_of;
        (fetch.left, fetch.tries) = (fetch.left.saturating_sub(1), 0);
        let asks = fetch.left == 0;
        let is_last = chunk.to == End::Last;
        if let End::At(to) = &chunk.to {
            fetch.after = Some(to.clone());
        }
        self.counters.chunks_taken += 1;
        self.group.merge(chunk, &mut self.numbers, out);
        if is_last {
            if let Some(fetch) = self.fetch.take() {
                self.step(*fetch.snapshot);
            }
        } else if asks {
            self.ask_for_chunks(now, out);
        }
    }

    /// Chunks may be lost, and who sends them may be.
    pub(super) fn tick_fetch(&mut self, now: Instant, out: &mut Vec<Output>) {
        let Some(fetch) = &mut self.fetch else { return };
        let engine = &self.group.engine;
        let index = fetch.snapshot.get_snapshot().get_metadata().index;
        if engine.is_leader() || engine.commit() >= index || fetch.tries >= TRIES_MAX {
            self.fetch = None;
        } else if now.saturating_since(fetch.asked_at) >= self.config.chunk_timeout {
            fetch.tries += 1;
            self.ask_for_chunks(now, out);
        }
    }
}

const TRIES_MAX: u32 = 5;
