//! What this node has asked the group for, until it knows what became of it; and what is kept here while there is no leader.
//!
//! It sends again what may be lost; a number is in the log once, however often it was sent.

use std::collections::BTreeMap;

use bytes::Bytes;
use newtmq_base::{Instant, NodeId, RequestId, planted};

use super::entry::{Origin, Write};
use super::group::Applied;
use super::io::{Output, PendingChange, Refusal, Written};
use super::message::Message;
use super::state::Outcome;
use super::{Identity, Retained};

/// A write that may be on its way.
struct Asked {
    request: RequestId,
    topic: Box<str>,
    message: Option<Bytes>,
    keep: bool,
    seen: Option<u64>,
    deadline: Instant,
    sent: Option<Sent>,
}

/// What is kept for a topic, until there is a leader.
struct Kept {
    number: u64,
    message: Option<Bytes>,
    seen: u64,
    sent: Option<Sent>,
}

/// When something was sent, and to which leader of which term.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Sent {
    term: u64,
    to: NodeId,
    at: Instant,
}

#[derive(Default)]
pub(super) struct Asking {
    // The last number that was used.
    last: u64,
    asked: BTreeMap<u64, Asked>,
    asked_bytes: usize,
    kept: BTreeMap<Box<str>, Kept>,
    kept_numbers: BTreeMap<u64, Box<str>>,
    kept_bytes: usize,
    // From this number on they are to be looked at, whether they are to be sent.
    look_from: Option<u64>,
    /// One has waited in vain since there was a leader.
    in_vain: bool,
}

impl Asking {
    /// All numbers up to this one have an end.
    fn settled(&self) -> u64 {
        let first = |number: Option<u64>| number.unwrap_or(self.last + 1);
        let asked = first(self.asked.first_key_value().map(|(number, _)| *number));
        let kept = first(self.kept_numbers.first_key_value().map(|(number, _)| *number));
        asked.min(kept) - 1
    }

    /// Number and bytes of what is kept.
    pub(super) fn kept(&self) -> (usize, usize) {
        (self.kept.len(), self.kept_bytes)
    }

    pub(super) fn kept_of(&self, topic: &str) -> Option<&Option<Bytes>> {
        self.kept.get(topic).map(|kept| &kept.message)
    }

    /// What the deletions are needed for that are known here.
    pub(super) fn least_seen(&self) -> Option<u64> {
        self.kept.values().map(|kept| kept.seen).min()
    }

    /// Whether nothing waits for an answer or for a leader.
    pub(super) fn is_idle(&self) -> bool {
        self.asked.is_empty() && self.kept.is_empty()
    }

    pub(super) fn into_left(self) -> (LeftKept, LeftAsked) {
        let kept = self.kept.into_iter().map(|(topic, kept)| (topic, kept.message, kept.seen)).collect();
        let asked = self.asked.into_values().map(|asked| (asked.request, asked.topic, asked.message, asked.keep));
        (kept, asked.collect())
    }

    fn take_asked(&mut self, number: u64) -> Option<Asked> {
        let asked = self.asked.remove(&number)?;
        self.asked_bytes -= cost(&asked.topic, asked.message.as_ref());
        Some(asked)
    }

    fn take_kept(&mut self, topic: &str) -> Option<Kept> {
        let kept = self.kept.remove(topic)?;
        self.kept_numbers.remove(&kept.number);
        self.kept_bytes -= cost(topic, kept.message.as_ref());
        Some(kept)
    }
}

impl Retained {
    /// Somebody here wants a message to be retained, or to be deleted.
    pub(super) fn ask(
        &mut self,
        now: Instant,
        (request, keep, seen): (RequestId, bool, Option<u64>),
        topic: Box<str>,
        message: Option<Bytes>,
        out: &mut Vec<Output>,
    ) {
        let bytes = cost(&topic, message.as_ref());
        let refusal = if bytes > self.config.message_bytes_max {
            Some(Refusal::TooLarge)
        } else if self.group.engine.stopped().is_some() {
            Some(Refusal::Stopped)
        } else if self.asking.asked.len() >= self.config.requests_max
            || self.asking.asked_bytes + bytes > self.config.request_bytes_max
            || self.asking.last - self.asking.settled() >= WINDOW_MAX
                && (!self.is_without_leader(now) || planted!(RetainedKeptWindow))
        {
            self.counters.busy += 1;
            Some(Refusal::Busy)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            out.push(Output::Answer { request, outcome: Err(refusal) });
            return;
        }
        self.asking.last += 1;
        let number = self.asking.last;
        let deadline = now + self.config.request_timeout;
        let asked = Asked { request, topic, message, keep, seen, deadline, sent: None };
        self.asking.asked_bytes += bytes;
        self.asking.asked.insert(number, asked);
        if self.is_without_leader(now) {
            self.give_up(number, out);
            return;
        }
        if planted!(RetainedAnsweredWhenSent) {
            let index = self.group.state.index;
            out.push(Output::Answer { request, outcome: Ok(Written::Committed { index }) });
        }
        self.asking.look_from = self.asking.look_from.or(Some(number));
    }

    /// Whether there is no leader, and has been none for long. What has waited in vain once is not waited for again.
    fn is_without_leader(&self, now: Instant) -> bool {
        let is_long = self.asking.in_vain || now.saturating_since(self.leader_heard) >= self.config.lost_after;
        self.group.engine.present_leader().is_none() && is_long
    }

    // The time of a write is over, or there is nobody to ask.
    fn give_up(&mut self, number: u64, out: &mut Vec<Output>) {
        let Some(asked) = self.asking.take_asked(number) else { return };
        let request = asked.request;
        let is_led = self.group.engine.present_leader().is_some();
        self.asking.in_vain |= !is_led;
        let outcome = if is_led {
            self.counters.timeouts += 1;
            Err(Refusal::Timeout)
        } else if !asked.keep {
            self.counters.timeouts += 1;
            Err(Refusal::NoLeader)
        } else {
            self.keep(number, asked, out)
        };
        out.push(Output::Answer { request, outcome });
    }

    fn keep(&mut self, number: u64, asked: Asked, out: &mut Vec<Output>) -> Result<Written, Refusal> {
        let Asked { topic, message, .. } = asked;
        let (bytes, known) = (cost(&topic, message.as_ref()), self.asking.kept.get(&topic));
        let before = known.map_or(0, |known| cost(&topic, known.message.as_ref()));
        let is_full = known.is_none() && self.asking.kept.len() >= self.config.pending_max
            || self.asking.kept_bytes - before + bytes > self.config.pending_bytes_max;
        if is_full && !planted!(RetainedPendingUnlimited) {
            self.counters.pending_refused += 1;
            return Err(Refusal::PendingFull);
        }
        let state = &self.group.state;
        let index = state.topics.get(&topic).map_or(0, |item| item.index);
        // A later one of the same topic stands for all of them, and is held against what the first one saw.
        let seen = self.asking.take_kept(&topic).map_or(state.index.max(index), |kept| kept.seen);
        self.asking.kept_numbers.insert(number, topic.clone());
        self.asking.kept_bytes += bytes;
        self.asking.kept.insert(topic.clone(), Kept { number, message: message.clone(), seen, sent: None });
        self.counters.pending_kept += 1;
        out.push(Output::Pending { topic, change: PendingChange::Kept(message) });
        Ok(Written::Pending)
    }

    /// What the time is over for.
    pub(super) fn tick_asked(&mut self, now: Instant, out: &mut Vec<Output>) {
        // All have the same time, so the first ones are over first.
        while let Some((number, _)) = self.asking.asked.first_key_value().filter(|(_, asked)| asked.deadline <= now) {
            let number = *number;
            self.give_up(number, out);
        }
        self.look_again();
    }

    /// There is a leader.
    pub(super) fn is_led(&mut self) {
        self.asking.in_vain = false;
    }

    /// Everything may have to be sent again.
    pub(super) fn look_again(&mut self) {
        self.asking.look_from = Some(0);
    }

    /// Sends what is not sent as yet, or may be lost.
    pub(super) fn send_asked(&mut self, now: Instant, out: &mut Vec<Output>) {
        let Some(leader) = self.group.engine.present_leader() else { return };
        let Some(from) = self.asking.look_from.take() else { return };
        let (term, is_own) = (self.group.engine.term(), leader == self.me.node);
        let sent = Sent { term, to: leader, at: now };
        let again = self.config.resend_after;
        // What is in an own log is there until another one leads.
        let is_due = move |before: Option<Sent>| {
            before.is_none_or(|before| {
                (before.term, before.to) != (term, leader) || !is_own && now.saturating_since(before.at) >= again
            })
        };
        let settled = self.asking.settled();
        let due: Vec<u64> = self
            .asking
            .asked
            .range(from..)
            .filter(|(_, asked)| is_due(asked.sent))
            .map(|(number, _)| *number)
            .collect();
        let mut batch = Batch { me: self.me, settled, leader, bytes: 0, writes: Vec::new() };
        for number in due {
            if planted!(RetainedSentAnew) && self.asking.asked[&number].sent.is_some() {
                self.renumber(number);
                continue;
            }
            let Some(asked) = self.asking.asked.get(&number) else { continue };
            let write = batch.write(number, &asked.topic, asked.message.clone(), asked.seen);
            let is_sent = self.send_write(&mut batch, write, out);
            if let Some(asked) = self.asking.asked.get_mut(&number) {
                asked.sent = is_sent.then_some(sent);
            }
        }
        self.play(sent, is_due, &mut batch, out);
        self.flush(&mut batch, out);
    }

    // As a careless sender would.
    fn renumber(&mut self, number: u64) {
        if let Some(asked) = self.asking.asked.remove(&number) {
            self.asking.last += 1;
            self.asking.asked.insert(self.asking.last, Asked { sent: None, ..asked });
            self.asking.look_from = Some(0);
        }
    }

    // There is a leader: what was kept is played, some at a time.
    fn play(&mut self, sent: Sent, is_due: impl Fn(Option<Sent>) -> bool, batch: &mut Batch, out: &mut Vec<Output>) {
        let first = self.asking.kept_numbers.values().take(self.config.play_at_once);
        let due: Vec<Box<str>> =
            first.filter(|topic| self.asking.kept.get(*topic).is_some_and(|kept| is_due(kept.sent))).cloned().collect();
        for topic in due {
            let Some(kept) = self.asking.kept.get(&topic) else { continue };
            let write = batch.write(kept.number, &topic, kept.message.clone(), Some(kept.seen));
            let is_sent = self.send_write(batch, write, out);
            if let Some(kept) = self.asking.kept.get_mut(&topic) {
                kept.sent = is_sent.then_some(sent);
            }
        }
    }

    fn send_write(&mut self, batch: &mut Batch, write: Write, out: &mut Vec<Output>) -> bool {
        if batch.leader == self.me.node {
            return self.group.propose_write(&write);
        }
        batch.bytes += cost(&write.topic, write.message.as_ref());
        batch.writes.push(write);
        if batch.bytes >= FORWARD_BYTES {
            self.flush(batch, out);
        }
        true
    }

    fn flush(&mut self, batch: &mut Batch, out: &mut Vec<Output>) {
        if !batch.writes.is_empty() {
            batch.bytes = 0;
            self.send(batch.leader, &Message::Forward(core::mem::take(&mut batch.writes)), false, out);
        }
    }

    /// A node asks the leader for writes. Who does not lead lets them fall: they come again, to who does.
    pub(super) fn forwarded(&mut self, from: NodeId, writes: Vec<Write>) {
        if !self.group.engine.is_leader() || !self.group.is_member(from) {
            self.counters.untaken += 1;
            return;
        }
        for write in writes {
            if write.origin.node != from {
                self.counters.malformed += 1;
            } else if !self.group.propose_write(&write) {
                self.counters.untaken += 1;
            }
        }
    }

    /// Writes have come up in the log: those of this start have an end.
    pub(super) fn written(&mut self, written: Vec<Applied>, out: &mut Vec<Output>) {
        for Applied { index, write, outcome } in written {
            if outcome == Outcome::Repeated {
                self.counters.repeated += 1;
            }
            let Origin { node, inc, number, .. } = write.origin;
            if (node, inc) == (self.me.node, self.me.inc) {
                self.ended(number, index, outcome, out);
            }
        }
    }

    fn ended(&mut self, number: u64, index: u64, outcome: Outcome, out: &mut Vec<Output>) {
        if let Some(asked) = self.asking.take_asked(number) {
            if !planted!(RetainedAnsweredWhenSent) {
                let outcome = Ok(Written::Committed { index });
                out.push(Output::Answer { request: asked.request, outcome });
            }
        } else if let Some(topic) = self.asking.kept_numbers.get(&number).cloned() {
            if planted!(RetainedPendingStays) && outcome == Outcome::Changed {
                self.asking.kept_numbers.remove(&number);
                return;
            }
            self.asking.take_kept(&topic);
            let change = if outcome == Outcome::Done {
                self.counters.pending_played += 1;
                PendingChange::Played
            } else {
                self.counters.pending_dropped += 1;
                PendingChange::Dropped
            };
            out.push(Output::Pending { topic, change });
            self.asking.look_from = self.asking.look_from.or(Some(u64::MAX));
        }
    }

    /// Another node's snapshot has come: some entries were not seen here.
    pub(super) fn look_for_ended(&mut self, out: &mut Vec<Output>) {
        let numbers = self.asking.asked.keys().chain(self.asking.kept_numbers.keys());
        let (state, me) = (&self.group.state, self.me);
        let known = |number: &u64| Some((*number, state.known(me.node, me.inc, *number)?));
        let ended: Vec<(u64, u64)> = numbers.filter_map(known).collect();
        for (number, index) in ended {
            let kept = self.asking.kept_numbers.get(&number).and_then(|topic| self.asking.kept.get_key_value(topic));
            let is_there =
                kept.is_some_and(|(topic, kept)| self.group.state.is_of(topic, index, kept.message.is_none()));
            self.ended(number, index, if is_there { Outcome::Done } else { Outcome::Changed }, out);
        }
    }
}

type LeftKept = Vec<(Box<str>, Option<Bytes>, u64)>;
type LeftAsked = Vec<(RequestId, Box<str>, Option<Bytes>, bool)>;

// What goes to the leader together.
struct Batch {
    me: Identity,
    settled: u64,
    leader: NodeId,
    bytes: usize,
    writes: Vec<Write>,
}

impl Batch {
    fn write(&self, number: u64, topic: &str, message: Option<Bytes>, seen: Option<u64>) -> Write {
        let origin = Origin { node: self.me.node, inc: self.me.inc, number, settled: self.settled };
        Write { origin, topic: topic.into(), message, seen }
    }
}

/// Bytes of a topic and its message.
fn cost(topic: &str, message: Option<&Bytes>) -> usize {
    topic.len() + message.map_or(0, Bytes::len)
}

const FORWARD_BYTES: usize = 64 << 10;
const WINDOW_MAX: u64 = 1 << 16;
