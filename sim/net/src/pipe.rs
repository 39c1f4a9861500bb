//! One direction of a connection: what was written and has not been read, and when each piece of it arrives. A time of
//! arrival is decided when the piece is sent, so that nothing happens on the way but at a cut and its end.

use std::collections::VecDeque;
use std::io::IoSlice;

use crate::alarm::{Alarm, NEVER};
use crate::chance::Chance;
use crate::link::LinkSpec;

/// Who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// Somebody.
    Open,
    /// Nobody any more; what comes is answered with RST.
    Closed,
    /// Nobody any more, and nothing is answered.
    Silent,
}

/// What a read gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// So many bytes, the last of which was written at `sent`.
    Bytes { count: usize, sent: u64 },
    /// FIN.
    End,
    /// RST.
    Reset,
    /// Nothing before `next`.
    Nothing { next: u64 },
}

#[derive(Debug)]
struct Piece {
    len: usize,
    arrives: u64,
    sent: u64,
}

/// One direction.
#[derive(Debug)]
pub(crate) struct Pipe {
    spec: LinkSpec,
    latency_us: (u64, u64),
    /// Microseconds more.
    slow_us: u64,
    chance: Chance,
    bytes: VecDeque<u8>,
    /// Their lengths add up to `bytes`.
    pieces: VecDeque<Piece>,
    /// When the last of what was sent arrives: nothing overtakes.
    pub(crate) last: u64,
    /// When the line has sent what was given to it.
    line_free: u64,
    pub(crate) cut: bool,
    /// Bytes a second; 0 for no limit, which divides nothing.
    bandwidth: u64,
    fin: Option<u64>,
    rst: Option<u64>,
    pub(crate) reader: Reader,
    pub(crate) reading: Alarm,
    /// Bytes that the writer does not know to be read.
    used: usize,
    /// What was read, and when the writer learns that.
    room: VecDeque<(u64, usize)>,
    pub(crate) writing: Alarm,
}

impl Pipe {
    pub(crate) fn new(spec: LinkSpec, direction: usize, chance: Chance) -> Pipe {
        Pipe {
            spec,
            latency_us: spec.latency_us[direction],
            slow_us: 0,
            chance,
            bytes: VecDeque::new(),
            pieces: VecDeque::new(),
            last: 0,
            line_free: 0,
            cut: false,
            bandwidth: 0,
            fin: None,
            rst: None,
            reader: Reader::Open,
            reading: Alarm::default(),
            used: 0,
            room: VecDeque::new(),
            writing: Alarm::default(),
        }
    }

    /// How long a packet is under way, with what it takes to send it again if it is lost.
    fn delay(&mut self) -> u64 {
        let mut delay = (self.chance.between(self.latency_us) + self.slow_us) * 1_000;
        delay += self.chance.tail_nanos(self.spec.tail_us);
        let mut losses = 0;
        while losses < LOSSES_MAX && self.chance.ppm(self.spec.loss_ppm) {
            delay += (self.spec.retransmit_ms * 1_000_000) << losses;
            losses += 1;
        }
        delay
    }

    /// When something that is sent at this time arrives.
    fn arrival(&mut self, now: u64, len: usize) -> u64 {
        if self.cut {
            return NEVER;
        }
        let mut start = now;
        if let Some(on_line) = (len as u64).saturating_mul(1_000_000_000).checked_div(self.bandwidth) {
            start = now.max(self.line_free) + on_line;
            self.line_free = start;
        }
        self.last = self.last.max(start + self.delay());
        self.last
    }

    /// FIN was sent.
    pub(crate) fn is_shut(&self) -> bool {
        self.fin.is_some()
    }

    /// RST has arrived.
    pub(crate) fn is_reset(&self, now: u64) -> bool {
        self.rst.is_some_and(|at| at <= now)
    }

    /// How many bytes the writer may write; else when that may change.
    pub(crate) fn room(&mut self, now: u64) -> Result<usize, u64> {
        while let Some((_, count)) = self.room.front().filter(|(at, _)| *at <= now) {
            self.used -= count;
            self.room.pop_front();
        }
        match self.spec.socket_bytes.saturating_sub(self.used) {
            0 => Err(self.room.front().map_or(NEVER, |(at, _)| *at)),
            room => Ok(room),
        }
    }

    /// Sends as much as fits in `room`; says how much, and when the first piece of it arrives.
    pub(crate) fn write(&mut self, now: u64, slices: &[IoSlice<'_>], room: usize) -> (usize, u64) {
        let mut count = 0;
        for slice in slices {
            let part = &slice[..slice.len().min(room - count)];
            count += part.len();
            if self.reader == Reader::Open {
                self.bytes.extend(part);
            }
        }
        self.used += count;
        let (mut rest, mut first) = (count, NEVER);
        let (low, high) = self.spec.chunk_bytes;
        let low = low.max((count / PIECES_MAX) as u64).max(1);
        while rest > 0 {
            let len = rest.min(self.chance.between((low, high)) as usize);
            let arrives = self.arrival(now, len);
            first = first.min(arrives);
            rest -= len;
            if self.reader == Reader::Open {
                self.pieces.push_back(Piece { len, arrives, sent: now });
            }
        }
        (count, first)
    }

    /// Reads at most `max` bytes, of one piece or of all that have arrived.
    pub(crate) fn take(&mut self, now: u64, max: usize, many: bool, mut give: impl FnMut(&[u8])) -> Taken {
        if self.is_reset(now) {
            self.discard();
            return Taken::Reset;
        }
        let (mut count, mut sent) = (0, 0);
        while let Some(piece) = self.pieces.front_mut().filter(|piece| piece.arrives <= now && count < max) {
            let part = piece.len.min(max - count);
            (count, sent) = (count + part, piece.sent);
            piece.len -= part;
            if piece.len == 0 {
                self.pieces.pop_front();
            }
            if !many {
                break;
            }
        }
        if count > 0 {
            let (front, back) = self.bytes.as_slices();
            let of_front = count.min(front.len());
            give(&front[..of_front]);
            if of_front < count {
                give(&back[..count - of_front]);
            }
            self.bytes.drain(..count);
            return Taken::Bytes { count, sent };
        }
        let fin = if self.pieces.is_empty() { self.fin.unwrap_or(NEVER) } else { NEVER };
        if fin <= now {
            return Taken::End;
        }
        let piece = self.pieces.front().map_or(NEVER, |piece| piece.arrives);
        Taken::Nothing { next: piece.min(fin).min(self.rst.unwrap_or(NEVER)) }
    }

    /// What was read makes room at this time, as far as the writer knows.
    pub(crate) fn free(&mut self, at: u64, count: usize) {
        match self.room.back_mut() {
            Some(last) if last.0 == at => last.1 += count,
            _ => self.room.push_back((at, count)),
        }
    }

    /// Bytes have arrived that were not read.
    pub(crate) fn has_unread(&self, now: u64) -> bool {
        self.pieces.front().is_some_and(|piece| piece.arrives <= now)
    }

    /// Something arrives later; when the first of it does.
    pub(crate) fn under_way(&self, now: u64) -> Option<u64> {
        self.pieces.iter().map(|piece| piece.arrives).find(|at| *at > now)
    }

    /// Sends FIN; when it arrives.
    pub(crate) fn shut(&mut self, now: u64) -> u64 {
        let at = self.arrival(now, 0);
        *self.fin.get_or_insert(at)
    }

    /// Sends RST at this time; when it arrives.
    pub(crate) fn reset(&mut self, now: u64) -> u64 {
        let at = self.arrival(now, 0);
        *self.rst.get_or_insert(at)
    }

    /// What is under way is lost.
    pub(crate) fn lose(&mut self, now: u64) {
        while let Some(piece) = self.pieces.pop_back_if(|piece| piece.arrives > now) {
            self.bytes.truncate(self.bytes.len() - piece.len);
        }
        self.fin = self.fin.filter(|at| *at <= now);
        self.last = self.last.min(now);
    }

    /// Forgets what was not read.
    pub(crate) fn discard(&mut self) {
        self.bytes = VecDeque::new();
        self.pieces = VecDeque::new();
    }

    /// Nothing arrives from here on. `back` is the other direction, which learns here what was read of it.
    pub(crate) fn begin_cut(&mut self, back: &mut Pipe, now: u64) {
        self.cut = true;
        for piece in self.pieces.iter_mut().filter(|piece| piece.arrives > now) {
            piece.arrives = NEVER;
        }
        for end in [&mut self.fin, &mut self.rst].into_iter().flatten().filter(|at| **at > now) {
            *end = NEVER;
        }
        for (at, _) in back.room.iter_mut().filter(|(at, _)| *at > now) {
            *at = NEVER;
        }
        self.last = self.last.min(now);
    }

    /// Another speed, also for what is under way; when the first of that arrives.
    pub(crate) fn set_speed(&mut self, now: u64, slow_us: u64, bytes_per_s: u64) -> u64 {
        (self.slow_us, self.bandwidth) = (slow_us, bytes_per_s);
        (self.line_free, self.last) = (now, now);
        let late = |at: u64| at > now && at != NEVER;
        let mut first = NEVER;
        for at in 0..self.pieces.len() {
            if late(self.pieces[at].arrives) {
                let arrives = self.arrival(now, self.pieces[at].len);
                self.pieces[at].arrives = arrives;
                first = first.min(arrives);
            }
        }
        for which in [0, 1] {
            if [self.fin, self.rst][which].is_some_and(late) {
                let arrives = self.arrival(now, 0);
                *[&mut self.fin, &mut self.rst][which] = Some(arrives);
                first = first.min(arrives);
            }
        }
        first
    }

    /// What was cut off is sent again. Says when the first of it arrives, and when the writer of `back` has room.
    pub(crate) fn end_cut(&mut self, back: &mut Pipe, now: u64) -> (u64, u64) {
        self.cut = false;
        self.last = self.last.max(now + self.chance.between((0, self.spec.retransmit_ms * 1_000)) * 1_000);
        let mut first = NEVER;
        for at in 0..self.pieces.len() {
            if self.pieces[at].arrives == NEVER {
                let arrives = self.arrival(now, self.pieces[at].len);
                self.pieces[at].arrives = arrives;
                first = first.min(arrives);
            }
        }
        for which in [0, 1] {
            if [self.fin, self.rst][which] == Some(NEVER) {
                let arrives = self.arrival(now, 0);
                *[&mut self.fin, &mut self.rst][which] = Some(arrives);
                first = first.min(arrives);
            }
        }
        let known = now + self.fastest();
        let mut room = NEVER;
        for (at, _) in back.room.iter_mut().filter(|(at, _)| *at == NEVER) {
            *at = known;
            room = known;
        }
        (first, room)
    }

    /// The shortest time that something is under way.
    pub(crate) fn fastest(&self) -> u64 {
        self.latency_us.0 * 1_000
    }

    /// The writer wrote what nobody has read.
    pub(crate) fn is_used(&self) -> bool {
        self.used > 0
    }
}

/// Most times in a row that a packet is lost.
const LOSSES_MAX: u32 = 6;
/// Most pieces that one write is cut into.
const PIECES_MAX: usize = 400;
