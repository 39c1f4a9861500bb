//! Session State of a client (4.1): what it keeps over connections for as long as its session lives. It sends nothing.

use std::collections::VecDeque;

use newtmq_mqtt::{PacketId, QoS};

use crate::client::topics::Topic;

/// A message of a client, as it is sent again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outgoing {
    /// Number among the client's messages; 0 for an empty payload.
    pub(crate) number: u32,
    pub(crate) topic: Topic,
    pub(crate) qos: QoS,
    pub(crate) retain: bool,
    /// Length of the payload.
    pub(crate) size: u32,
    /// Message Expiry Interval; 0 for none.
    pub(crate) expiry_s: u32,
    /// Topic Alias; 0 for none.
    pub(crate) alias: u16,
}

/// How far the exchange of a message with QoS 1 or 2 is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// PUBLISH was sent.
    Published,
    /// PUBREC came, PUBREL was sent.
    Released,
}

/// A message with QoS 1 or 2 that is not done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unacked {
    pub(crate) pid: PacketId,
    pub(crate) message: Outgoing,
    pub(crate) stage: Stage,
}

/// Session State.
#[derive(Debug)]
pub(crate) struct Session {
    /// In the order in which they were sent first.
    pub(crate) unacked: VecDeque<Unacked>,
    /// No place in the Receive Maximum yet.
    pub(crate) waiting: VecDeque<Outgoing>,
    /// QoS 2 messages that came and were not released.
    received: VecDeque<u16>,
    last_pid: u16,
}

impl Session {
    /// Packet Identifiers begin after `last_pid`.
    pub(crate) fn new(last_pid: u16) -> Session {
        Session { unacked: VecDeque::new(), waiting: VecDeque::new(), received: VecDeque::new(), last_pid }
    }

    /// The server has no such session: what came of its messages is unknown. What was never sent stays.
    pub(crate) fn forget_exchanges(&mut self) {
        self.unacked.clear();
        self.received.clear();
    }

    /// The session is over.
    pub(crate) fn end(&mut self) {
        self.forget_exchanges();
        self.waiting.clear();
    }

    /// A free Packet Identifier; `taken` tells those of other requests. `None` if none is free.
    pub(crate) fn free_pid(&mut self, taken: impl Fn(u16) -> bool) -> Option<PacketId> {
        for _ in 0..u16::MAX {
            self.last_pid = self.last_pid % u16::MAX + 1;
            if !self.is_unacked(self.last_pid) && !taken(self.last_pid) {
                return PacketId::new(self.last_pid);
            }
        }
        None
    }

    /// They are given in a circle, so all in use lie between the oldest and the newest one: mostly one look is enough.
    fn is_unacked(&self, pid: u16) -> bool {
        let (Some(oldest), Some(newest)) = (self.unacked.front(), self.unacked.back()) else { return false };
        let from_oldest = |pid: u16| pid.wrapping_sub(oldest.pid.get());
        // The circle leaves 0 out, which shifts a distance across it by one, but no order.
        from_oldest(pid) <= from_oldest(newest.pid.get()) && self.position(pid).is_some()
    }

    /// Where the exchange with this Packet Identifier is in `unacked`.
    #[inline]
    pub(crate) fn position(&self, pid: u16) -> Option<usize> {
        self.unacked.iter().position(|unacked| unacked.pid.get() == pid)
    }

    /// Notes a QoS 2 message; whether it is the first of its exchange.
    pub(crate) fn receive(&mut self, pid: u16) -> bool {
        let first = !self.received.contains(&pid);
        if first {
            self.received.push_back(pid);
        }
        first
    }

    /// PUBREL came; whether its exchange is known.
    pub(crate) fn release(&mut self, pid: u16) -> bool {
        let at = self.received.iter().position(|received| *received == pid);
        at.and_then(|at| self.received.remove(at)).is_some()
    }

    /// Whether a QoS 2 message of the server waits for its PUBREL.
    pub(crate) fn is_received(&self, pid: u16) -> bool {
        self.received.contains(&pid)
    }
}

#[cfg(test)]
mod tests {
    use super::{Outgoing, Session, Stage, Unacked};
    use crate::client::topics::Topic;
    use crate::history::NameIx;
    use newtmq_mqtt::{PacketId, QoS};

    #[test]
    fn packet_identifiers_go_round_and_leave_out_those_in_use() {
        let topic = Topic { name: NameIx(0), hash: 0 };
        let qos = QoS::AtLeastOnce;
        let message = Outgoing { number: 1, topic, qos, retain: false, size: 16, expiry_s: 0, alias: 0 };
        let mut session = Session::new(65_533);
        let take = |session: &mut Session| {
            let pid = session.free_pid(|pid| pid == 2).unwrap();
            session.unacked.push_back(Unacked { pid, message, stage: Stage::Published });
            pid.get()
        };
        assert_eq!([(); 4].map(|()| take(&mut session)), [65_534, 65_535, 1, 3]);
        session.last_pid = 65_533;
        assert_eq!(take(&mut session), 4, "all of them are in use");
        session.unacked.remove(session.position(1).unwrap());
        session.last_pid = 65_533;
        assert_eq!(session.free_pid(|_| false), PacketId::new(1));
        assert_eq!(session.free_pid(|_| true), None);
    }

    #[test]
    fn an_exchange_begins_once() {
        let mut session = Session::new(0);
        assert!(session.receive(7));
        assert!(!session.receive(7));
        assert!(session.release(7) && !session.release(7));
        assert!(session.receive(7) && session.is_received(7));
        session.forget_exchanges();
        assert!(!session.is_received(7));
    }
}
