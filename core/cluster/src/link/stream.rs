//! The streams of a link. Each end numbers what it sends; the other one takes the next number and nothing else, whatever
//! way it came. So what is late, twice or ahead of a loss is never delivered.

use std::collections::VecDeque;

use bytes::Bytes;
use newtmq_base::planted;

use super::frame::RunMark;

/// What of a control stream is not acknowledged.
#[derive(Debug, Default)]
pub(crate) struct ControlOut {
    /// The first is number `base`.
    queue: VecDeque<Bytes>,
    base: u64,
    /// How many of the queue are on their way over the present path.
    sent: usize,
    bytes: usize,
    /// Bytes of those that are on their way.
    flight: usize,
}

impl ControlOut {
    /// False if that would be more than `limit` bytes.
    pub(crate) fn push(&mut self, payload: Bytes, limit: usize) -> bool {
        if self.bytes + payload.len() + FRAME_COST > limit {
            return false;
        }
        self.bytes += payload.len() + FRAME_COST;
        self.queue.push_back(payload);
        true
    }

    /// The next frame to send.
    pub(crate) fn peek(&self) -> Option<(u64, &Bytes)> {
        self.queue.get(self.sent).map(|payload| (self.base + self.sent as u64, payload))
    }

    /// What [`ControlOut::peek`] gave is on its way.
    pub(crate) fn advance(&mut self) {
        self.flight += self.queue[self.sent].len() + FRAME_COST;
        self.sent += 1;
    }

    /// Everything before `next` has come. Says whether that is news; None for a number that was never given.
    pub(crate) fn acknowledged(&mut self, next: u64) -> Option<bool> {
        if next > self.base + self.queue.len() as u64 {
            return None;
        }
        let news = next > self.base;
        while self.base < next {
            let payload = self.queue.pop_front().expect("it is not longer than the queue");
            let cost = payload.len() + FRAME_COST;
            if !planted!(ControlCreditLeak) {
                self.bytes -= cost;
            }
            self.base += 1;
            if self.sent > 0 {
                self.sent -= 1;
                self.flight -= cost;
            }
        }
        Some(news)
    }

    /// The path is another one: everything that is not acknowledged is sent again, the oldest first.
    pub(crate) fn restart(&mut self) {
        if planted!(UnackedNotResent) {
            return;
        }
        self.sent = 0;
        self.flight = 0;
    }

    /// Bytes on their way without acknowledgement.
    pub(crate) fn flight(&self) -> usize {
        self.flight
    }

    /// Frames and bytes that wait or are not acknowledged.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        (self.queue.len(), self.bytes)
    }
}

/// What of a control stream has come: the next number.
#[derive(Debug, Default)]
pub(crate) struct ControlIn {
    pub(crate) next: u64,
}

/// Whether a frame is the one that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    Next,
    /// It has come before, or belongs to a run that is over.
    Old,
    /// Another one has to come first.
    Ahead,
}

impl ControlIn {
    pub(crate) fn arrive(&mut self, seq: u64) -> Arrival {
        if seq < self.next && !planted!(OldControlTaken) {
            return Arrival::Old;
        }
        if seq > self.next && !planted!(ControlGapTaken) {
            return Arrival::Ahead;
        }
        self.next = seq + 1;
        Arrival::Next
    }
}

/// What of a stream without resending waits to be sent, or is on its way over a relay.
#[derive(Debug, Default)]
pub(crate) struct RunOut {
    queue: VecDeque<Bytes>,
    bytes: usize,
    mark: RunMark,
    /// Sizes of frames that are on their way over a relay, from number `acked` of the run.
    flight: VecDeque<usize>,
    flight_bytes: usize,
    acked: u64,
}

impl RunOut {
    /// False if that would be more than `limit` bytes; a single frame may be larger.
    pub(crate) fn push(&mut self, payload: Bytes, limit: usize) -> bool {
        if !self.queue.is_empty() && self.bytes + payload.len() + FRAME_COST > limit {
            return false;
        }
        self.bytes += payload.len() + FRAME_COST;
        self.queue.push_back(payload);
        true
    }

    /// The size of the next frame.
    pub(crate) fn next_len(&self) -> Option<usize> {
        self.queue.front().map(Bytes::len)
    }

    /// The next frame to send; `tracked` if its acknowledgement counts.
    pub(crate) fn take(&mut self, tracked: bool) -> Option<(RunMark, Bytes)> {
        let payload = self.queue.pop_front()?;
        let cost = payload.len() + FRAME_COST;
        self.bytes -= cost;
        let mark = self.mark;
        self.mark.next += 1;
        if tracked {
            self.flight.push_back(cost);
            self.flight_bytes += cost;
        } else {
            self.acked = self.mark.next;
        }
        Some((mark, payload))
    }

    /// What the other side says that it has. Says whether that is news of what is on its way.
    pub(crate) fn acknowledged(&mut self, at: RunMark) -> bool {
        let mut news = false;
        while at.run == self.mark.run && self.acked < at.next {
            let Some(cost) = self.flight.pop_front() else { break };
            self.flight_bytes -= cost;
            self.acked += 1;
            news = true;
        }
        news
    }

    /// The path is another one: what is on its way may be lost. Says whether anything was sent in the run.
    pub(crate) fn restart(&mut self) -> bool {
        if self.mark.next == 0 {
            return false;
        }
        self.mark = RunMark { run: self.mark.run + 1, next: 0 };
        self.flight.clear();
        self.flight_bytes = 0;
        self.acked = 0;
        true
    }

    /// Drops what waits; says how many frames.
    pub(crate) fn clear(&mut self) -> usize {
        let dropped = self.queue.len();
        self.queue.clear();
        self.bytes = 0;
        dropped
    }

    pub(crate) fn flight(&self) -> usize {
        self.flight_bytes
    }

    pub(crate) fn waiting(&self) -> (usize, usize) {
        (self.queue.len(), self.bytes)
    }
}

/// What of such a stream has come.
#[derive(Debug, Default)]
pub(crate) struct RunIn {
    pub(crate) mark: RunMark,
}

impl RunIn {
    pub(crate) fn arrive(&mut self, at: RunMark) -> Arrival {
        // A run begins with its first frame: without it nothing of the run is taken.
        if at.run > self.mark.run && at.next == 0 {
            self.mark = RunMark { run: at.run, next: 1 };
            return Arrival::Next;
        }
        if at < self.mark && !planted!(OldRunTaken, at.run < self.mark.run) {
            return Arrival::Old;
        }
        if at > self.mark {
            return Arrival::Ahead;
        }
        if at == self.mark {
            self.mark.next += 1;
        }
        Arrival::Next
    }
}

/// What a frame counts beyond its payload, so that empty ones are limited too.
pub(crate) const FRAME_COST: usize = 32;
