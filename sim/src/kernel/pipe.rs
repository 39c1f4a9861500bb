//! One direction of a network connection, as TCP makes it: everything arrives in its order, sooner or later. It knows
//! latency, loss (which is latency, too), pieces, bandwidth and cuts. It never knows what the bytes mean.

use core::time::Duration;
use std::collections::VecDeque;

use newtmq_base::Instant;

use crate::draw::Stream;
use crate::scenario::NetSpec;

/// Most pieces that one write is cut into.
const PIECES_MAX: usize = 400;
/// A piece is lost so many times at most.
const LOSSES_MAX: u32 = 6;
/// Bytes that were read and are still in the buffer before the others move to its start.
const SLACK_BYTES: usize = 16 << 10;

/// What arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// The connection is asked for, or granted.
    Syn,
    /// So many bytes.
    Data(u32),
    /// Something beside the bytes, between a gateway for MQTT-SN and a shard. What it is stands in a list.
    Note,
    /// The sender's end.
    Fin,
    /// The connection is broken or refused.
    Rst,
}

/// Something under way.
#[derive(Debug, Clone, Copy)]
struct Item {
    what: What,
    arrives: Instant,
    sent_at: Instant,
}

/// One direction.
#[derive(Debug)]
pub(super) struct Pipe {
    chance: Stream,
    items: VecDeque<Item>,
    bytes: Vec<u8>,
    /// Where the first item's bytes begin in `bytes`.
    start: usize,
    /// Nothing overtakes what arrives then.
    last: Instant,
    /// The sender's line is free then.
    line_free: Instant,
    /// Bytes a second; 0 for no limit.
    bandwidth: u64,
    /// Everything takes so much longer.
    slow: Duration,
    /// Some of it takes longer, up to so many microseconds.
    tail_us: u64,
    cut: bool,
    /// Nothing arrives ever: there is nobody.
    dead: bool,
    /// An event is in the queue for this time.
    armed: Instant,
}

impl Pipe {
    pub(super) fn new(chance: Stream, bandwidth: u64, cut: bool) -> Pipe {
        Pipe {
            chance,
            items: VecDeque::new(),
            bytes: Vec::new(),
            start: 0,
            last: Instant::START,
            line_free: Instant::START,
            bandwidth,
            slow: Duration::ZERO,
            tail_us: 0,
            cut,
            dead: false,
            armed: Instant::NEVER,
        }
    }

    /// A way that may be slow, and on which few things take up to `tail_us` microseconds longer.
    pub(super) fn with_tail(mut self, slow: Duration, tail_us: u64) -> Pipe {
        (self.slow, self.tail_us) = (slow, tail_us);
        self
    }

    /// Bytes that the sender wrote and the receiver has not read.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead
    }

    /// There is nobody at the other end any more.
    pub(super) fn kill(&mut self) {
        self.dead = true;
    }

    /// What is under way is lost.
    pub(super) fn clear(&mut self) {
        self.items.clear();
        self.bytes.clear();
        self.start = 0;
    }

    /// Sends something that has no bytes.
    pub(super) fn send(&mut self, now: Instant, what: What, net: &NetSpec) {
        self.push(now, what, net);
    }

    /// Room to write bytes into; [`Pipe::wrote`] sends them.
    #[inline]
    pub(super) fn buffer(&mut self) -> &mut Vec<u8> {
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        } else if self.start > SLACK_BYTES {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        &mut self.bytes
    }

    /// Sends the last `len` bytes that were put into [`Pipe::buffer`].
    pub(super) fn wrote(&mut self, now: Instant, len: usize, net: &NetSpec) {
        let (low, high) = (*net.chunk_bytes.start(), *net.chunk_bytes.end());
        let low = low.max((len / PIECES_MAX) as u64).max(1);
        let mut rest = len as u64;
        while rest > 0 {
            let piece = if rest <= low { rest } else { self.chance.between(low, high).min(rest) };
            rest -= piece;
            self.push(now, What::Data(u32::try_from(piece).expect("writes are below 4 GiB")), net);
        }
    }

    fn push(&mut self, now: Instant, what: What, net: &NetSpec) {
        let begins = self.take_line(now, what);
        let mut delay = self.chance.between(*net.latency_us.start(), *net.latency_us.end()) * 1_000;
        let mut losses = 0;
        while losses < LOSSES_MAX && self.chance.chance_ppm(net.loss_ppm) {
            delay += (net.retransmit_ms * 1_000_000) << losses;
            losses += 1;
        }
        if self.tail_us > 0 {
            delay += tail_nanos(&mut self.chance, self.tail_us);
        }
        self.last = self.last.max(begins + Duration::from_nanos(delay) + self.slow);
        self.items.push_back(Item { what, arrives: self.last, sent_at: now });
    }

    /// When the last bit is on the line.
    fn take_line(&mut self, now: Instant, what: What) -> Instant {
        let What::Data(len) = what else { return now };
        if self.bandwidth == 0 {
            return now;
        }
        let nanos = u64::from(len).saturating_mul(1_000_000_000).div_ceil(self.bandwidth);
        self.line_free = self.line_free.max(now) + Duration::from_nanos(nanos);
        self.line_free
    }

    /// Everything takes so much longer from here on, and what has not arrived does.
    pub(super) fn set_slow(&mut self, now: Instant, slow: Duration, net: &NetSpec) {
        self.slow = slow;
        self.set_bandwidth(now, self.bandwidth, net);
    }

    /// Another speed, also for what has not arrived.
    pub(super) fn set_bandwidth(&mut self, now: Instant, bytes_per_s: u64, net: &NetSpec) {
        self.bandwidth = bytes_per_s;
        self.line_free = now;
        self.last = now;
        let latency = Duration::from_micros(self.chance.between(*net.latency_us.start(), *net.latency_us.end()));
        let latency = latency + self.slow;
        for at in 0..self.items.len() {
            let item = self.items[at];
            if item.arrives > now {
                self.last = self.take_line(now, item.what) + latency;
                self.items[at].arrives = self.last;
            }
        }
    }

    /// What is sent from here on waits for [`Pipe::heal`], like what is under way.
    pub(super) fn cut(&mut self) {
        self.cut = true;
    }

    /// What waits comes with a retransmission.
    pub(super) fn heal(&mut self, now: Instant, net: &NetSpec) {
        if core::mem::replace(&mut self.cut, false) {
            let first = now + Duration::from_millis(self.chance.between(0, net.retransmit_ms));
            for item in &mut self.items {
                item.arrives = item.arrives.max(first);
            }
            self.last = self.last.max(first);
        }
    }

    /// What has arrived, with its bytes and when they were sent.
    #[inline]
    pub(super) fn arrived(&self, now: Instant) -> Option<(What, &[u8], Instant)> {
        let item = self.items.front().filter(|item| item.arrives <= now && !self.cut && !self.dead)?;
        let len = match item.what {
            What::Data(len) => len as usize,
            What::Syn | What::Note | What::Fin | What::Rst => 0,
        };
        Some((item.what, &self.bytes[self.start..self.start + len], item.sent_at))
    }

    /// What [`Pipe::arrived`] gave is read.
    #[inline]
    pub(super) fn read(&mut self) {
        if let Some(Item { what: What::Data(len), .. }) = self.items.pop_front() {
            self.start += len as usize;
        }
    }

    /// When an event has to be put into the queue, if it has to be.
    #[inline]
    pub(super) fn arm(&mut self) -> Option<Instant> {
        let arrives = self.items.front().filter(|_| !self.cut && !self.dead)?.arrives;
        if arrives >= self.armed {
            return None;
        }
        self.armed = arrives;
        Some(arrives)
    }

    /// An event of this pipe is here; false for one that was replaced by another.
    #[inline]
    pub(super) fn fired(&mut self, now: Instant) -> bool {
        let due = self.armed <= now;
        if due {
            self.armed = Instant::NEVER;
        }
        due
    }
}

/// How much longer something takes, in nanoseconds: half of all things a very little, one of a thousand a thousandth of the
/// most and more, few nearly the most.
pub(super) fn tail_nanos(chance: &mut Stream, most_us: u64) -> u64 {
    most_us * 1_000 / chance.between(1, TAIL)
}

/// One of so many things takes the longest.
const TAIL: u64 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn net() -> NetSpec {
        NetSpec { latency_us: 100..=900, chunk_bytes: 1..=7, ..NetSpec::default() }
    }

    fn pipe(seed: u64) -> Pipe {
        Pipe::new(Stream::new(seed, 0, 0), 0, false)
    }

    fn write(pipe: &mut Pipe, now: u64, data: &[u8], net: &NetSpec) {
        pipe.buffer().extend_from_slice(data);
        pipe.wrote(Instant::from_millis(now), data.len(), net);
    }

    /// Reads everything; the time of the last piece in microseconds, and the bytes.
    fn read_all(pipe: &mut Pipe, from: u64) -> (u64, Vec<u8>) {
        let mut now = Instant::from_millis(from);
        let mut bytes = Vec::new();
        pipe.armed = Instant::NEVER;
        while let Some(at) = pipe.arm() {
            now = now.max(at);
            assert!(pipe.fired(now));
            while let Some((_, data, _)) = pipe.arrived(now) {
                bytes.extend_from_slice(data);
                pipe.read();
            }
        }
        (now.as_nanos() / 1_000, bytes)
    }

    #[test]
    fn bytes_arrive_in_order_whatever_is_lost() {
        for seed in 0..50 {
            let net = NetSpec { loss_ppm: 300_000, ..net() };
            let mut pipe = pipe(seed);
            let data: Vec<u8> = (0..=255).collect();
            write(&mut pipe, 0, &data[..100], &net);
            write(&mut pipe, 1, &data[100..], &net);
            assert_eq!(pipe.len(), 256);
            let (at, bytes) = read_all(&mut pipe, 0);
            assert_eq!(bytes, data);
            assert!(at >= 200_000, "of so many pieces one is lost");
            assert_eq!(pipe.len(), 0);
        }
    }

    #[test]
    fn without_loss_nothing_takes_longer_than_the_latency() {
        let mut pipe = pipe(1);
        write(&mut pipe, 5, &[0; 100], &net());
        let (at, bytes) = read_all(&mut pipe, 5);
        assert!((5_100..=5_900).contains(&at) && bytes.len() == 100);
    }

    #[test]
    fn a_cut_keeps_bytes_until_it_heals() {
        let net = net();
        let mut pipe = pipe(2);
        write(&mut pipe, 0, b"before", &net);
        pipe.cut();
        write(&mut pipe, 1, b"meanwhile", &net);
        assert_eq!((pipe.arm(), pipe.arrived(Instant::from_millis(5_000)).is_none()), (None, true));
        pipe.heal(Instant::from_millis(5_000), &net);
        write(&mut pipe, 5_000, b"after", &net);
        let (at, bytes) = read_all(&mut pipe, 5_000);
        assert_eq!(bytes, b"beforemeanwhileafter");
        assert!((5_000_000..5_202_000).contains(&at), "{at}");
    }

    #[test]
    fn bandwidth_is_what_it_says() {
        let net = NetSpec { latency_us: 0..=0, chunk_bytes: 100..=100, ..NetSpec::default() };
        let mut pipe = Pipe::new(Stream::new(1, 0, 0), 1_000, false);
        write(&mut pipe, 0, &[1; 1_000], &net);
        assert_eq!(pipe.arm(), Some(Instant::from_millis(100)), "the first piece");
        write(&mut pipe, 500, &[2; 500], &net);
        let (at, bytes) = read_all(&mut pipe, 0);
        assert_eq!((at, bytes.len()), (1_500_000, 1_500));
        // A faster line is one for what waits, too.
        write(&mut pipe, 2_000, &[3; 1_000], &net);
        pipe.set_bandwidth(Instant::from_millis(2_000), 10_000, &net);
        assert_eq!(read_all(&mut pipe, 2_000).0, 2_100_000);
        pipe.set_bandwidth(Instant::from_millis(3_000), 1, &net);
        write(&mut pipe, 3_000, &[4; 1_000], &net);
        pipe.set_bandwidth(Instant::from_millis(4_000), 0, &net);
        assert_eq!(read_all(&mut pipe, 4_000).0, 4_000_000);
    }

    #[test]
    fn a_slow_way_is_one_for_what_is_under_way_too() {
        let net = NetSpec { latency_us: 100..=100, chunk_bytes: 100..=100, ..NetSpec::default() };
        let mut pipe = pipe(4).with_tail(Duration::from_millis(50), 0);
        write(&mut pipe, 0, &[1; 10], &net);
        assert_eq!(pipe.arm(), Some(Instant::from_nanos(50_100_000)));
        pipe.set_slow(Instant::from_millis(10), Duration::ZERO, &net);
        assert_eq!(read_all(&mut pipe, 10).0, 10_100);
    }

    #[test]
    fn few_things_take_long() {
        let mut chance = Stream::new(5, 0, 0);
        let mut late: Vec<u64> = (0..10_000).map(|_| tail_nanos(&mut chance, 1_000_000) / 1_000).collect();
        late.sort_unstable();
        assert!(late[5_000] <= 40 && late[9_980] >= 300 && late[9_999] <= 1_000_000, "{late:?}");
    }

    #[test]
    fn nothing_comes_out_of_a_dead_pipe_and_it_fills() {
        let mut pipe = pipe(3);
        write(&mut pipe, 0, b"lost", &net());
        pipe.kill();
        write(&mut pipe, 1, b"lost", &net());
        assert_eq!((pipe.arm(), pipe.len(), pipe.is_dead()), (None, 8, true));
        pipe.clear();
        assert_eq!(pipe.len(), 0);
    }
}
