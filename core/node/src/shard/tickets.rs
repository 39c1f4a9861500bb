//! Who waits for what other nodes answer about a message.

use std::collections::VecDeque;

use bytes::Bytes;
use newtmq_base::ConnId;
use newtmq_cluster::lane::{GateId, Ticket};
use newtmq_topic::PlaceId;

/// Who waits for answers of other nodes. Tickets are given in order and come back about in order.
#[derive(Debug, Default)]
pub(crate) struct Tickets {
    /// The number of the first.
    first: u64,
    open: VecDeque<Option<Waiting>>,
}

/// One message whose answers are awaited.
#[derive(Debug)]
pub(super) struct Waiting {
    /// Its publisher's gate; none for a will or the server's own.
    pub(super) gate: Option<(ConnId, GateId)>,
    /// Answers that are missing.
    left: u32,
    /// Places that each group's message was given to, by the group's text.
    pub(super) tried: Vec<(Bytes, Vec<PlaceId>)>,
}

impl Tickets {
    /// Of what is never answered.
    pub(super) const NONE: Ticket = Ticket(u64::MAX);

    /// A ticket that is held until its message has departed.
    pub(super) fn add(&mut self, gate: Option<(ConnId, GateId)>) -> Ticket {
        self.open.push_back(Some(Waiting { gate, left: 1, tried: Vec::new() }));
        Ticket(self.first + self.open.len() as u64 - 1)
    }

    pub(super) fn get(&mut self, ticket: Ticket) -> Option<&mut Waiting> {
        let at = usize::try_from(ticket.0.checked_sub(self.first)?).ok()?;
        self.open.get_mut(at)?.as_mut()
    }

    /// So many more answers come.
    pub(super) fn expect(&mut self, ticket: Ticket, answers: u32) {
        if let Some(waiting) = self.get(ticket) {
            waiting.left += answers;
        }
    }

    /// One has come; whose it is.
    pub(super) fn answered(&mut self, ticket: Ticket) -> Option<(ConnId, GateId)> {
        let waiting = self.get(ticket)?;
        waiting.left = waiting.left.saturating_sub(1);
        let gate = waiting.gate;
        self.end(ticket);
        gate
    }

    /// Forgets a ticket without answers to come, and those at the front that are over.
    fn end(&mut self, ticket: Ticket) {
        if self.get(ticket).is_some_and(|waiting| waiting.left == 0) {
            let at = (ticket.0 - self.first) as usize;
            self.open[at] = None;
        }
        while self.open.pop_front_if(|waiting| waiting.is_none()).is_some() {
            self.first += 1;
        }
    }

    /// Messages whose answers are missing.
    pub(crate) fn len(&self) -> usize {
        self.open.iter().flatten().count()
    }
}
