//! What a publisher's acknowledgements wait for. Every place that its messages went to has to answer, and acknowledgements
//! leave in the order of the messages.

use std::collections::VecDeque;

use core::time::Duration;

use newtmq_base::{Instant, planted};

use super::message::Refusal;
use super::peer::Sent;

/// A message whose acknowledgement waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GateId(pub u64);

/// An earlier message of the publisher has fan-out left: no later one may be matched, or it could overtake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

/// An answer to a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// The message is where it belongs, or on disk as a hint for there.
    Stored,
    /// Nobody was there, or cannot take it.
    Refused(Refusal),
    /// The place is gone, and its sessions with it.
    Lost,
    /// No answer in time.
    Overdue,
}

/// How a message is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Nobody is subscribed (0x10 in MQTT 5).
    NoMatchingSubscribers,
    /// Everybody has it.
    Success,
    /// Somebody could not take it (0x97 in MQTT 5; the connection is closed in MQTT 3).
    QuotaExceeded,
    /// Somebody has not answered in time (0x97 in MQTT 5; the connection is closed in MQTT 3).
    Overdue,
}

/// The gates of one publisher. Bounded by its Receive Maximum, which is the caller's business.
#[derive(Debug, Clone, Default)]
pub struct AckGates {
    gates: VecDeque<Gate>,
    /// Number of the first gate.
    first: u64,
}

#[derive(Debug, Clone)]
struct Gate {
    packet: u16,
    /// The fan-out goes on.
    open: bool,
    outstanding: u32,
    outcome: Outcome,
    due: Instant,
}

impl AckGates {
    /// No gate.
    #[must_use]
    pub fn new() -> AckGates {
        AckGates::default()
    }

    /// Whether the next message may be matched; to be asked for QoS 0 too, which has no gate.
    #[must_use]
    pub fn is_free(&self) -> bool {
        !self.gates.back().is_some_and(|gate| gate.open)
    }

    /// A message of QoS 1 or 2 is about to be matched; its answers may take `cap` ([`super::Config::ticket_max`]).
    ///
    /// # Errors
    /// Not before the fan-out of the one before has ended.
    pub fn begin(&mut self, now: Instant, packet: u16, cap: Duration) -> Result<GateId, Busy> {
        if !self.is_free() && !planted!(FanOutOvertaken) {
            return Err(Busy);
        }
        let id = GateId(self.first + self.gates.len() as u64);
        let outcome = Outcome::NoMatchingSubscribers;
        self.gates.push_back(Gate { packet, open: true, outstanding: 0, outcome, due: now + cap });
        Ok(id)
    }

    /// A session of this node has it.
    pub fn reached(&mut self, id: GateId) {
        self.change(id, |gate| gate.outcome = gate.outcome.max(Outcome::Success));
    }

    /// So many answers are to come: of the own log, say.
    pub fn wait(&mut self, id: GateId, answers: u32) {
        self.change(id, |gate| gate.outstanding += answers);
    }

    /// What [`super::PeerOut::send`] said.
    pub fn sent(&mut self, id: GateId, sent: &Sent) {
        self.change(id, |gate| {
            gate.outstanding += sent.answers;
            if sent.refused > 0 {
                gate.outcome = gate.outcome.max(Outcome::QuotaExceeded);
            }
        });
    }

    /// The message has gone to everybody that it is for.
    pub fn finish(&mut self, id: GateId) {
        self.change(id, |gate| gate.open = false);
    }

    /// An answer. One that comes after the message was acknowledged is ignored.
    pub fn settle(&mut self, id: GateId, settled: Settled) {
        self.change(id, |gate| {
            gate.outstanding = gate.outstanding.saturating_sub(1);
            let outcome = match settled {
                Settled::Stored => Outcome::Success,
                Settled::Refused(Refusal::NoMember) | Settled::Lost => Outcome::NoMatchingSubscribers,
                Settled::Refused(Refusal::Full) => Outcome::QuotaExceeded,
                Settled::Overdue => Outcome::Overdue,
            };
            gate.outcome = gate.outcome.max(outcome);
        });
    }

    /// Gates whose time is over wait for no more answers.
    pub fn tick(&mut self, now: Instant) {
        for gate in self.gates.iter_mut().filter(|gate| gate.due <= now && gate.outstanding > 0) {
            gate.outstanding = 0;
            gate.outcome = Outcome::Overdue;
        }
    }

    /// When to tick.
    #[must_use]
    pub fn next_deadline(&self) -> Instant {
        self.gates.iter().find(|gate| gate.outstanding > 0).map_or(Instant::NEVER, |gate| gate.due)
    }

    /// The next acknowledgement that may leave: the Packet Identifier and how.
    pub fn take_ready(&mut self) -> Option<(GateId, u16, Outcome)> {
        let front = self.gates.front().filter(|gate| !gate.open)?;
        let mut outcome = front.outcome;
        // What the publisher is refused for is known, whatever the others say.
        if front.outstanding > 0 && outcome < Outcome::QuotaExceeded {
            if !planted!(AckBeforeForwardAck) {
                return None;
            }
            outcome = Outcome::Success;
        }
        let gate = self.gates.pop_front().expect("it was looked at");
        self.first += 1;
        Some((GateId(self.first - 1), gate.packet, outcome))
    }

    /// Number of messages whose acknowledgement waits.
    #[must_use]
    pub fn len(&self) -> usize {
        self.gates.len()
    }

    /// Whether no acknowledgement waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.gates.is_empty()
    }

    fn change(&mut self, id: GateId, change: impl FnOnce(&mut Gate)) {
        if let Some(index) = id.0.checked_sub(self.first)
            && let Some(gate) = self.gates.get_mut(index as usize)
        {
            change(gate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAP: Duration = Duration::from_secs(10);

    fn begin(gates: &mut AckGates, packet: u16) -> GateId {
        gates.begin(Instant::START, packet, CAP).expect("the fan-out before has ended")
    }

    fn ready(gates: &mut AckGates) -> Vec<(u16, Outcome)> {
        core::iter::from_fn(|| gates.take_ready()).map(|(_, packet, outcome)| (packet, outcome)).collect()
    }

    #[test]
    fn outcomes() {
        use Settled::{Lost, Overdue, Stored};
        let (full, none) = (Settled::Refused(Refusal::Full), Settled::Refused(Refusal::NoMember));
        let table: [(&[Settled], bool, Outcome); 9] = [
            (&[], false, Outcome::NoMatchingSubscribers),
            (&[], true, Outcome::Success),
            (&[Stored], false, Outcome::Success),
            (&[none], false, Outcome::NoMatchingSubscribers),
            (&[none], true, Outcome::Success),
            (&[Lost, none], false, Outcome::NoMatchingSubscribers),
            (&[Stored, full, none], true, Outcome::QuotaExceeded),
            (&[Overdue, full], false, Outcome::Overdue),
            (&[Lost, Stored], false, Outcome::Success),
        ];
        for (answers, reached, outcome) in table {
            let mut gates = AckGates::new();
            let gate = begin(&mut gates, 7);
            gates.sent(gate, &Sent { answers: answers.len() as u32, ..Sent::default() });
            if reached {
                gates.reached(gate);
            }
            gates.finish(gate);
            assert!(answers.is_empty() || ready(&mut gates).is_empty(), "acknowledged too early");
            for settled in answers {
                gates.settle(gate, *settled);
            }
            assert_eq!(ready(&mut gates), [(7, outcome)], "{answers:?}");
        }
    }

    #[test]
    fn acknowledgements_keep_the_order_of_the_messages() {
        let mut gates = AckGates::new();
        let ids = [1, 2, 3].map(|packet| {
            let id = begin(&mut gates, packet);
            gates.wait(id, 1);
            gates.finish(id);
            id
        });
        gates.settle(ids[2], Settled::Stored);
        gates.settle(ids[1], Settled::Refused(Refusal::Full));
        assert_eq!(ready(&mut gates), []);
        gates.settle(ids[0], Settled::Stored);
        assert_eq!(ready(&mut gates), [(1, Outcome::Success), (2, Outcome::QuotaExceeded), (3, Outcome::Success)]);
        gates.settle(ids[0], Settled::Stored);
        assert!(gates.is_empty());
    }

    #[test]
    fn nothing_is_matched_while_fan_out_is_left() {
        let mut gates = AckGates::new();
        let one = begin(&mut gates, 1);
        assert_eq!(gates.begin(Instant::START, 2, CAP), Err(Busy));
        gates.reached(one);
        assert_eq!(ready(&mut gates), []);
        gates.finish(one);
        let two = begin(&mut gates, 2);
        assert_eq!(ready(&mut gates), [(1, Outcome::Success)]);
        gates.finish(two);
        assert_eq!(ready(&mut gates), [(2, Outcome::NoMatchingSubscribers)]);
    }

    #[test]
    fn an_answer_has_its_time() {
        let mut gates = AckGates::new();
        let one = begin(&mut gates, 1);
        gates.wait(one, 2);
        gates.finish(one);
        let two = begin(&mut gates, 2);
        gates.reached(two);
        gates.finish(two);
        assert_eq!(gates.next_deadline(), Instant::START + CAP);
        gates.tick(Instant::from_millis(9999));
        assert_eq!(ready(&mut gates), []);
        gates.tick(Instant::START + CAP);
        assert_eq!(ready(&mut gates), [(1, Outcome::Overdue), (2, Outcome::Success)]);
        assert_eq!(gates.next_deadline(), Instant::NEVER);
        gates.settle(one, Settled::Stored);
    }

    #[test]
    fn a_target_without_room_is_told() {
        let mut gates = AckGates::new();
        let one = begin(&mut gates, 1);
        gates.sent(one, &Sent { refused: 1, ..Sent::default() });
        gates.finish(one);
        assert_eq!(ready(&mut gates), [(1, Outcome::QuotaExceeded)]);
    }
}
