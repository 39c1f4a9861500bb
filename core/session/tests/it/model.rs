//! A reference model of the flow toward the client, written for clarity: lists that are searched from the front.

use newtmq_mqtt::{PacketId, QoS};
use newtmq_session::{AckKind, Applied, Dropped, OVERDUE_TICKS, SessionLimits};

/// One message on its way. `tag` tells messages apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) tag: u32,
    pub(crate) qos: QoS,
    pub(crate) priority: u8,
    /// In milliseconds.
    pub(crate) expires: u64,
    pub(crate) bytes: usize,
}

/// A message that was sent and not acknowledged.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) entry: Entry,
    pub(crate) id: PacketId,
    pub(crate) released: bool,
    /// Sent on this connection, or only on an earlier one.
    pub(crate) on_this_connection: bool,
    sent_before: bool,
    /// Ticks since it was last sent, or released.
    age: u8,
}

/// What is to be sent next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Something that is in flight already.
    Again { tag: u32, id: PacketId, dup: bool, pubrel: bool },
    /// A message from the queue.
    New { tag: u32, qos: QoS },
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) queue: Vec<Entry>,
    pub(crate) in_flight: Vec<Sent>,
    pub(crate) enqueued: u64,
    pub(crate) completed: u64,
    pub(crate) dropped: u64,
}

impl Model {
    pub(crate) fn outstanding(&self) -> usize {
        self.in_flight.iter().filter(|sent| sent.on_this_connection).count()
    }

    pub(crate) fn enqueue(&mut self, entry: Entry, limits: &SessionLimits) -> Applied {
        self.enqueued += 1;
        let mut full = 0;
        while self.queue.len() == limits.max_mqueue_len
            || (!self.queue.is_empty() && self.queue_bytes() + entry.bytes > limits.max_mqueue_bytes)
        {
            let lowest = self.queue.iter().map(|entry| entry.priority).min().unwrap();
            let at = self.queue.iter().position(|entry| entry.priority == lowest).unwrap();
            self.queue.remove(at);
            self.dropped += 1;
            full += 1;
        }
        self.queue.push(entry);
        if full > 0 { Applied::Dropped(Dropped { full, expired: 0 }) } else { Applied::Done }
    }

    pub(crate) fn queue_bytes(&self) -> usize {
        self.queue.iter().map(|entry| entry.bytes).sum()
    }

    pub(crate) fn retry_tick(&mut self) {
        for sent in self.in_flight.iter_mut().filter(|sent| sent.on_this_connection) {
            sent.age += 1;
        }
    }

    /// What is sent again because its acknowledgement is overdue.
    pub(crate) fn overdue(&mut self) -> Vec<Next> {
        let overdue = |sent: &&mut Sent| sent.on_this_connection && sent.age >= OVERDUE_TICKS;
        let again = self.in_flight.iter_mut().filter(overdue).map(|sent| {
            sent.age = 0;
            sent.sent_before = true;
            Next::Again { tag: sent.entry.tag, id: sent.id, dup: !sent.released, pubrel: sent.released }
        });
        again.collect()
    }

    /// What is sent next, and how many messages expire on the way.
    pub(crate) fn next_send(&mut self, now: u64, receive_maximum: usize) -> (Option<Next>, u32) {
        let open = self.outstanding() < receive_maximum;
        if let Some(sent) = self.in_flight.iter_mut().find(|sent| !sent.on_this_connection) {
            if !open {
                return (None, 0);
            }
            sent.on_this_connection = true;
            sent.age = 0;
            let next = Next::Again {
                tag: sent.entry.tag,
                id: sent.id,
                dup: sent.sent_before && !sent.released,
                pubrel: sent.released,
            };
            return (Some(next), 0);
        }
        let mut expired = 0;
        loop {
            let Some(highest) = self.queue.iter().map(|entry| entry.priority).max() else { return (None, expired) };
            let at = self.queue.iter().position(|entry| entry.priority == highest).unwrap();
            let entry = self.queue[at];
            if entry.qos > QoS::AtMostOnce && !open {
                return (None, expired);
            }
            self.queue.remove(at);
            if entry.expires > now {
                return (Some(Next::New { tag: entry.tag, qos: entry.qos }), expired);
            }
            expired += 1;
            self.dropped += 1;
        }
    }

    /// A new message was sent.
    pub(crate) fn was_sent(&mut self, entry: Entry, id: Option<PacketId>) {
        match id {
            Some(id) => {
                let (on_this_connection, released, sent_before) = (true, false, false);
                self.in_flight.push(Sent { entry, id, released, on_this_connection, sent_before, age: 0 });
            }
            None => self.completed += 1,
        }
    }

    pub(crate) fn ack(&mut self, id: PacketId, kind: AckKind) -> Applied {
        let Some(at) = self.in_flight.iter().position(|sent| sent.id == id) else { return Applied::Nothing };
        let sent = self.in_flight[at];
        let right = match kind {
            AckKind::Puback => sent.entry.qos == QoS::AtLeastOnce,
            AckKind::Pubcomp => sent.released,
            AckKind::PubrecError => sent.entry.qos == QoS::ExactlyOnce && !sent.released,
        };
        if !right {
            return Applied::WrongKind;
        }
        self.in_flight.remove(at);
        self.completed += 1;
        Applied::Done
    }

    pub(crate) fn pubrec(&mut self, id: PacketId) -> Applied {
        match self.in_flight.iter_mut().find(|sent| sent.id == id) {
            None => Applied::Nothing,
            Some(sent) if sent.entry.qos == QoS::ExactlyOnce => {
                sent.released = true;
                sent.age = 0;
                Applied::Done
            }
            Some(_) => Applied::WrongKind,
        }
    }

    pub(crate) fn resume(&mut self) {
        for sent in &mut self.in_flight {
            sent.sent_before |= sent.on_this_connection;
            sent.on_this_connection = false;
        }
    }

    pub(crate) fn expire(&mut self, now: u64) -> u32 {
        let before = self.queue.len();
        self.queue.retain(|entry| entry.expires > now);
        let expired = before - self.queue.len();
        self.dropped += expired as u64;
        expired as u32
    }
}
