//! The sending end of one lane: numbers, what is sent and not stored, what waits for credit, and what becomes of it.

use std::collections::VecDeque;

use newtmq_base::{Instant, ShardId, planted};
use newtmq_mqtt::QoS;

use super::inward::cost_of;
use super::message::{Guid, Receipt, What, Window};
use super::peer::{Gone, Output, Sent, Ticket};
use super::publication::Publication;
use super::{Config, Qos0};

/// What happened that should not happen often. Counted since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OutCounts {
    /// QoS 0 messages that were dropped: no credit, or no room to wait.
    pub dropped_qos0: u64,
    /// QoS 0 messages that were dropped because the receiver was down or has started again.
    pub dropped_down: u64,
    /// Messages of QoS 1 and 2 that were refused because too many wait.
    pub refused: u64,
    /// Messages that were sent again.
    pub resent: u64,
    /// Publishers that were told that the answer is late.
    pub overdue: u64,
    /// Releases of QoS 2 messages that were forgotten because too many wait.
    pub releases_forgotten: u64,
    /// Frames of another incarnation of either side.
    pub stale: u64,
}

/// The sending end of a lane, for checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneOutView {
    /// The receiving shard.
    pub shard: ShardId,
    /// Sent and not enqueued there; at most the window (W10). 0 at rest (Q5).
    pub flight_messages: u32,
    /// Bytes of those; at most the window, unless it is a single message.
    pub flight_bytes: u64,
    /// What the receiver holds at most; 0 until it has said so.
    pub window: Window,
    /// Sent and not stored there; 0 at rest (Q5).
    pub unstored: usize,
    /// Waits for credit or a link; 0 at rest.
    pub waiting: usize,
    /// Releases that the receiver has yet to be told of; 0 at rest.
    pub releases: usize,
    /// Refusals that the receiver has yet to be told of; false at rest.
    pub unsettled: bool,
    /// Whether stored sessions' messages go to the log of hints.
    pub hinting: bool,
}

/// What a caller hands to a lane.
pub(super) struct Item {
    pub(super) what: What,
    pub(super) publication: Option<Publication>,
    pub(super) expires: Instant,
    /// None for QoS 0 and releases, and when the publisher was told that the answer is late.
    pub(super) ticket: Option<Ticket>,
    /// It comes from the log of hints, and stays there until it is acknowledged.
    pub(super) from_log: bool,
    cost: u64,
    due: Instant,
}

impl Item {
    pub(super) fn new(
        what: What,
        publication: Option<Publication>,
        expires: Instant,
        ticket: Option<Ticket>,
        from_log: bool,
    ) -> Item {
        let cost = cost_of(&what, publication.as_ref());
        Item { what, publication, expires, ticket, from_log, cost, due: Instant::NEVER }
    }

    fn qos(&self) -> QoS {
        self.publication.as_ref().map_or(QoS::AtMostOnce, |message| message.qos())
    }
}

/// What a lane has to send: an item of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ready {
    pub(super) shard: ShardId,
    pub(super) seq: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The receiver counts as down.
    Closed,
    /// The receiver has yet to say what is stored of what was given up.
    Opening,
    /// The link was reset: the receiver has yet to say what has come.
    Resuming,
    Open,
}

/// What the lanes to a node have in common, and where their results go.
pub(super) struct Context<'a> {
    pub(super) config: &'a Config,
    pub(super) now: Instant,
    pub(super) connected: bool,
    pub(super) counts: &'a mut OutCounts,
    pub(super) ready: &'a mut Vec<Ready>,
    pub(super) out: &'a mut Vec<Output>,
}

pub(super) struct LaneOut {
    shard: ShardId,
    phase: Phase,
    /// Number of the first item.
    first: u64,
    /// In the order of their numbers; the first [`LaneOut::sent`] were sent, the others wait.
    items: VecDeque<Item>,
    sent: usize,
    unstored_bytes: u64,
    waiting_bytes: u64,
    /// All up to here are enqueued at the receiver.
    enqueued: u64,
    flight_messages: u32,
    flight_bytes: u64,
    window: Window,
    /// How many of the first items were looked at when they were due.
    looked: usize,
    /// The answers up to here were seen.
    settled: u64,
    /// The receiver keeps refusals until it is told that they were seen.
    unsettled: bool,
    hinting: bool,
    /// Somebody waits for room.
    wanted: bool,
    releases: VecDeque<Guid>,
    probe_at: Instant,
    probe_due: bool,
}

impl LaneOut {
    pub(super) fn new(shard: ShardId, down: bool) -> LaneOut {
        LaneOut {
            shard,
            phase: if down { Phase::Closed } else { Phase::Opening },
            first: 1,
            items: VecDeque::new(),
            sent: 0,
            unstored_bytes: 0,
            waiting_bytes: 0,
            enqueued: 0,
            flight_messages: 0,
            flight_bytes: 0,
            window: Window::default(),
            looked: 0,
            settled: 0,
            unsettled: false,
            hinting: false,
            wanted: false,
            releases: VecDeque::new(),
            probe_at: Instant::NEVER,
            probe_due: false,
        }
    }

    /// The link is there.
    pub(super) fn connected(&mut self, cx: &mut Context<'_>) {
        self.phase = match self.phase {
            Phase::Closed | Phase::Opening => Phase::Opening,
            Phase::Resuming | Phase::Open => Phase::Resuming,
        };
        self.probe_due = true;
        self.set_timer(cx);
    }

    /// The link has gone.
    pub(super) fn disconnected(&mut self) {
        self.probe_at = Instant::NEVER;
    }

    pub(super) fn hinting(&mut self, hinting: bool) {
        self.hinting = hinting;
    }

    /// A message for this lane. `sent` says what became of it.
    pub(super) fn post(&mut self, item: Item, sent: &mut Sent, cx: &mut Context<'_>) {
        let [transient, durable] = match item.what {
            What::Plain { transient, durable } => [transient, durable],
            What::Group { .. } | What::Release(_) => [false; 2],
        };
        let closed = self.phase == Phase::Closed;
        // A node that is there gets what waits first: what went there now would overtake it.
        let behind = self.hinting && !closed && (transient || durable);
        if item.ticket.is_none() || item.from_log || !(behind || durable && closed) {
            return self.post_live(item, sent, cx);
        }
        sent.answers += 1;
        let missed = transient && closed;
        sent.closed += u32::from(missed);
        cx.out.push(self.hint(item, None, [transient && !missed, durable]));
    }

    fn post_live(&mut self, mut item: Item, sent: &mut Sent, cx: &mut Context<'_>) {
        // Which hints have come is known only when the receiver has said so.
        if self.phase == Phase::Closed || (item.from_log && self.phase == Phase::Opening) {
            sent.closed += 1;
            return;
        }
        let waiting = self.items.len() - self.sent;
        let no_credit = waiting > 0 || !self.fits(item.cost, cx.config);
        let mut limit = cx.config.waiting_messages;
        let mut limit_bytes = cx.config.waiting_bytes;
        if item.ticket.is_none() {
            let open = cx.connected && self.phase == Phase::Open;
            if open && no_credit {
                self.wanted = true;
                sent.paused |= cx.config.qos0 == Qos0::Pause;
            }
            // QoS 0 leaves room to the others, and what waits for the first credit is not dropped for want of it.
            (limit, limit_bytes) = (limit / 2, limit_bytes / 2);
            if open && no_credit && cx.config.qos0 == Qos0::Drop {
                limit = 0;
            }
        }
        if no_credit && (waiting >= limit || self.waiting_bytes + item.cost > limit_bytes) {
            self.wanted = true;
            if item.ticket.is_none() {
                cx.counts.dropped_qos0 += 1;
                sent.dropped += 1;
            } else {
                cx.counts.refused += 1;
                sent.refused += 1;
            }
            return;
        }
        if item.ticket.is_some() {
            sent.answers += 1;
        }
        item.due = cx.now + cx.config.ticket_max;
        self.waiting_bytes += item.cost;
        if planted!(LaneByMessage, waiting > 0) {
            let odd = |item: &Item| item.publication.as_ref().is_some_and(|message| message.guid().0[0] & 1 == 1);
            let behind = self.items.range(self.sent..).position(|other| odd(other) != odd(&item));
            self.items.insert(self.sent + behind.unwrap_or(waiting), item);
        } else {
            self.items.push_back(item);
        }
        self.pump(cx);
        self.set_timer_if_unset(cx);
    }

    /// A QoS 2 message does not come again.
    pub(super) fn release(&mut self, guid: Guid, cx: &mut Context<'_>) {
        if self.releases.len() >= cx.config.releases.max(1) {
            self.releases.pop_front();
            cx.counts.releases_forgotten += 1;
        }
        self.releases.push_back(guid);
        self.pump(cx);
        self.set_timer_if_unset(cx);
    }

    /// The receiver counts as down, or has started again: nothing of what is under way is known.
    pub(super) fn down(&mut self, cx: &mut Context<'_>) {
        let (first, sent) = (self.first, self.sent);
        let mut releases = VecDeque::new();
        for (index, item) in core::mem::take(&mut self.items).into_iter().enumerate() {
            let was_sent = index < sent;
            let seq = was_sent.then_some(first + index as u64);
            if let What::Release(guid) = item.what {
                releases.push_back(guid);
                continue;
            }
            let Some(ticket) = item.ticket else {
                cx.counts.dropped_down += u64::from(item.qos() == QoS::AtMostOnce);
                continue;
            };
            let bound = was_sent && item.qos() == QoS::ExactlyOnce;
            let output = match item.what {
                _ if item.from_log => {
                    self.hinting = true;
                    Output::Kept { ticket, seq }
                }
                What::Plain { durable: true, .. } => self.hint(item, seq, [false, true]),
                What::Group { durable: true, .. } if bound => self.hint(item, seq, [false, true]),
                What::Group { .. } if !bound => redispatch(item, ticket, Gone::Down),
                What::Plain { .. } | What::Group { .. } | What::Release(_) => Output::Lost { ticket },
            };
            cx.out.push(output);
        }
        releases.append(&mut self.releases);
        self.releases = releases;
        self.first += sent as u64;
        self.enqueued = self.first - 1;
        (self.sent, self.looked) = (0, 0);
        (self.flight_messages, self.flight_bytes) = (0, 0);
        (self.unstored_bytes, self.waiting_bytes) = (0, 0);
        self.phase = Phase::Closed;
        (self.probe_at, self.probe_due) = (Instant::NEVER, false);
        if core::mem::take(&mut self.wanted) {
            cx.out.push(Output::Room { shard: self.shard });
        }
    }

    /// What the receiver says. The caller has checked the incarnations.
    pub(super) fn receipt(&mut self, receipt: &Receipt, cx: &mut Context<'_>) {
        let progress = (self.first, self.enqueued, self.phase);
        let end = self.first + self.sent as u64;
        match self.phase {
            Phase::Closed => return,
            Phase::Opening => {
                // It has to have passed all that was given up, and stored what it had got of that.
                let passed = receipt.next >= self.first && receipt.stored + 1 >= self.first;
                let Some(known) = receipt.known.filter(|_| passed) else { return };
                self.open(known, receipt, cx);
            }
            Phase::Resuming | Phase::Open => {}
        }
        if receipt.enqueued >= self.enqueued {
            self.window = receipt.window;
        }
        self.credit(receipt.enqueued.min(end - 1));
        self.acknowledge(receipt, end, cx);
        // A receipt from before a refusal does not have it either.
        if !receipt.refused.is_empty() || receipt.enqueued >= self.settled {
            self.unsettled = !receipt.refused.is_empty();
        }
        self.probe_due |= receipt.refused.first().is_some_and(|(seq, _)| *seq <= self.settled);
        if cx.connected && (receipt.resume || self.phase == Phase::Resuming) {
            self.phase = Phase::Open;
            self.resend(receipt.next, cx);
        }
        self.pump(cx);
        let waiting = self.items.len() - self.sent;
        let low = waiting <= cx.config.waiting_messages / 4 && self.waiting_bytes <= cx.config.waiting_bytes / 4;
        if self.wanted && low {
            self.wanted = false;
            cx.out.push(Output::Room { shard: self.shard });
        }
        if progress != (self.first, self.enqueued, self.phase) {
            self.set_timer(cx);
        } else {
            self.set_timer_if_unset(cx);
        }
    }

    fn open(&mut self, known: u64, receipt: &Receipt, cx: &mut Context<'_>) {
        self.phase = Phase::Open;
        self.settled = self.first - 1;
        self.enqueued = self.first - 1;
        let refused = receipt.refused.clone();
        cx.out.push(Output::Opened { shard: self.shard, stored: known, refused });
    }

    /// The receiver has enqueued all up to `upto`.
    fn credit(&mut self, upto: u64) {
        while self.enqueued < upto {
            self.enqueued += 1;
            let cost = self.items[(self.enqueued - self.first) as usize].cost;
            self.flight_messages -= 1;
            self.flight_bytes -= cost;
        }
    }

    fn acknowledge(&mut self, receipt: &Receipt, end: u64, cx: &mut Context<'_>) {
        while self.first <= receipt.stored.min(self.enqueued) && self.first < end {
            let item = self.items.pop_front().expect("it was sent and not acknowledged");
            let seq = self.first;
            self.first += 1;
            self.sent -= 1;
            self.looked = self.looked.saturating_sub(1);
            self.unstored_bytes -= item.cost;
            self.settled = seq;
            let Some(ticket) = item.ticket else { continue };
            let refused = receipt.refused.binary_search_by_key(&seq, |(refused, _)| *refused);
            let output = match refused.map(|at| receipt.refused[at].1) {
                Err(_) => Output::Acked { ticket },
                Ok(refusal) if matches!(item.what, What::Group { .. }) => {
                    if planted!(LaneGroupNotRedispatched) {
                        Output::Lost { ticket }
                    } else {
                        redispatch(item, ticket, Gone::Refused(refusal))
                    }
                }
                Ok(refusal) => Output::Refused { ticket, refusal },
            };
            cx.out.push(output);
        }
    }

    /// Sends again what was sent from the number `next` on, in order.
    fn resend(&mut self, next: u64, cx: &mut Context<'_>) {
        let from = next.max(self.enqueued + 1).saturating_sub(self.first) as usize;
        if planted!(ResendOutOfOrder, self.sent > from + 1) {
            self.items.make_contiguous()[from..self.sent].reverse();
        }
        for index in from..self.sent {
            cx.counts.resent += 1;
            if planted!(CreditLeakOnReconnect) {
                self.flight_messages += 1;
            }
            self.make_ready(index, cx);
        }
    }

    fn fits(&self, cost: u64, config: &Config) -> bool {
        let unstored = self.sent < config.unstored_messages.max(1)
            && (self.sent == 0 || self.unstored_bytes + cost <= config.unstored_bytes);
        unstored
            && self.flight_messages < self.window.messages
            && (self.flight_messages == 0 || self.flight_bytes + cost <= u64::from(self.window.bytes))
    }

    /// Sends what waits, as far as the credit goes.
    fn pump(&mut self, cx: &mut Context<'_>) {
        while cx.connected && self.phase == Phase::Open {
            if self.sent == self.items.len() {
                let Some(guid) = self.releases.pop_front() else { return };
                let mut item = Item::new(What::Release(guid), None, Instant::NEVER, None, false);
                item.due = cx.now + cx.config.ticket_max;
                self.waiting_bytes += item.cost;
                self.items.push_back(item);
            }
            let cost = self.items[self.sent].cost;
            if !self.fits(cost, cx.config) {
                return;
            }
            self.make_ready(self.sent, cx);
            self.sent += 1;
            self.flight_messages += 1;
            self.flight_bytes += cost;
            self.unstored_bytes += cost;
            self.waiting_bytes -= cost;
        }
    }

    fn make_ready(&self, index: usize, cx: &mut Context<'_>) {
        cx.ready.push(Ready { shard: self.shard, seq: self.first + index as u64 });
    }

    /// What was made ready.
    #[inline]
    pub(super) fn item(&self, seq: u64) -> Option<&Item> {
        self.items.get(usize::try_from(seq.checked_sub(self.first)?).ok()?)
    }

    /// The time has come to look at what is due. A late tick is as good.
    pub(super) fn tick(&mut self, cx: &mut Context<'_>) {
        while let Some(item) = self.items.get_mut(self.looked).filter(|item| item.due <= cx.now) {
            let release = matches!(item.what, What::Release(_));
            if item.from_log || release {
                self.looked += 1;
                continue;
            }
            if let Some(ticket) = item.ticket.take() {
                cx.counts.overdue += 1;
                cx.out.push(Output::Overdue { ticket });
            } else if self.looked >= self.sent && item.qos() == QoS::AtMostOnce {
                cx.counts.dropped_qos0 += 1;
            }
            if self.looked < self.sent {
                self.looked += 1;
            } else if let Some(item) = self.items.remove(self.looked) {
                self.waiting_bytes -= item.cost;
            }
        }
        if self.probe_at <= cx.now {
            self.probe_due = true;
            self.set_timer(cx);
        }
    }

    /// When to tick.
    pub(super) fn deadline(&self) -> Instant {
        self.items.get(self.looked).map_or(Instant::NEVER, |item| item.due).min(self.probe_at)
    }

    pub(super) fn has_probe(&self) -> bool {
        self.probe_due
    }

    /// Whether a probe is to be sent: its `first`, `next`, `settled` and `opening`.
    pub(super) fn take_probe(&mut self) -> Option<(u64, u64, u64, bool)> {
        let opening = self.phase == Phase::Opening;
        core::mem::take(&mut self.probe_due).then(|| (self.first, self.first + self.sent as u64, self.settled, opening))
    }

    fn set_timer_if_unset(&mut self, cx: &Context<'_>) {
        if self.probe_at == Instant::NEVER || !self.expects_answer() {
            self.set_timer(cx);
        }
    }

    fn set_timer(&mut self, cx: &Context<'_>) {
        let wait = cx.connected && self.expects_answer();
        // What is for stored sessions is refused until the lane is open.
        let hurry = if self.phase == Phase::Opening { 4 } else { 1 };
        self.probe_at = if wait { cx.now + cx.config.probe_after / hurry } else { Instant::NEVER };
    }

    fn expects_answer(&self) -> bool {
        match self.phase {
            Phase::Closed => false,
            Phase::Opening | Phase::Resuming => true,
            Phase::Open => self.sent > 0 || self.unsettled,
        }
    }

    /// For the log of hints: for sessions in memory, and those that are stored.
    fn hint(&mut self, item: Item, seq: Option<u64>, [transient, durable]: [bool; 2]) -> Output {
        self.hinting = true;
        let what = match item.what {
            What::Plain { .. } => What::Plain { transient, durable },
            other @ (What::Group { .. } | What::Release(_)) => other,
        };
        Output::Hint {
            ticket: item.ticket.expect("QoS 0 is not hinted"),
            shard: self.shard,
            seq,
            what,
            publication: item.publication.expect("a release is not hinted"),
            expires: item.expires,
        }
    }

    pub(super) fn view(&self) -> LaneOutView {
        LaneOutView {
            shard: self.shard,
            flight_messages: self.flight_messages,
            flight_bytes: self.flight_bytes,
            window: self.window,
            unstored: self.sent,
            waiting: self.items.len() - self.sent,
            releases: self.releases.len(),
            unsettled: self.unsettled,
            hinting: self.hinting,
        }
    }
}

fn redispatch(item: Item, ticket: Ticket, why: Gone) -> Output {
    Output::Redispatch {
        ticket,
        what: item.what,
        why,
        publication: item.publication.expect("a release is for no group"),
        expires: item.expires,
        from_log: item.from_log,
    }
}
