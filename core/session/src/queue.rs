//! Messages that wait for a session's connection or window.

use std::collections::VecDeque;

use newtmq_base::Instant;
use newtmq_mqtt::{PacketId, QoS};

use crate::Message;

/// Subscription Identifiers of one delivery; almost always none or one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Identifiers {
    /// No matching subscription had one.
    #[default]
    None,
    /// One.
    One(u32),
    /// Several overlapping subscriptions had one each.
    Many(Box<[u32]>),
}

impl Identifiers {
    /// As a slice.
    #[must_use]
    pub fn as_slice(&self) -> &[u32] {
        match self {
            Identifiers::None => &[],
            Identifiers::One(id) => core::slice::from_ref(id),
            Identifiers::Many(ids) => ids,
        }
    }

    /// From a slice.
    #[must_use]
    pub fn from_slice(ids: &[u32]) -> Identifiers {
        match ids {
            [] => Identifiers::None,
            [id] => Identifiers::One(*id),
            ids => Identifiers::Many(ids.into()),
        }
    }
}

/// One message on its way to one session.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// Subscription Identifiers to send along.
    pub identifiers: Identifiers,
    /// Position in the order in which messages were matched for this session; 0 for QoS 0.
    pub dseq: u64,
    /// Packet Identifier; none for QoS 0.
    pub packet_id: Option<PacketId>,
    /// QoS of this delivery.
    pub qos: QoS,
    /// RETAIN flag of this delivery.
    pub retain: bool,
    /// The session got it as a member of a shared group.
    pub shared: bool,
    /// It may have been sent before the node last started.
    pub again: bool,
}

/// The queue: lanes by priority, highest first, each in order. Without configured priorities there is one lane.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    lanes: Vec<(u8, VecDeque<Delivery>)>,
    len: usize,
    /// Sum of the messages' sizes; a message that other sessions share counts in full.
    bytes: usize,
    qos0: usize,
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn has_qos0(&self) -> bool {
        self.qos0 > 0
    }

    /// From its lanes, the highest priority first.
    pub(crate) fn of(mut lanes: Vec<(u8, VecDeque<Delivery>)>) -> Queue {
        debug_assert!(lanes.is_sorted_by(|(one, _), (next, _)| one > next));
        lanes.retain(|(_, lane)| !lane.is_empty());
        let mut queue = Queue::default();
        for delivery in lanes.iter().flat_map(|(_, lane)| lane) {
            queue.len += 1;
            queue.bytes += delivery.message.size();
            queue.qos0 += usize::from(delivery.qos == QoS::AtMostOnce);
        }
        Queue { lanes, ..queue }
    }

    pub(crate) fn push(&mut self, priority: u8, delivery: Delivery) {
        self.len += 1;
        self.bytes += delivery.message.size();
        self.qos0 += usize::from(delivery.qos == QoS::AtMostOnce);
        let at = match self.lanes.iter().position(|(lane, _)| *lane <= priority) {
            Some(at) if self.lanes[at].0 == priority => at,
            Some(at) => {
                self.lanes.insert(at, (priority, VecDeque::new()));
                at
            }
            None => {
                self.lanes.push((priority, VecDeque::new()));
                self.lanes.len() - 1
            }
        };
        self.lanes[at].1.push_back(delivery);
    }

    fn taken(&mut self, delivery: &Delivery) {
        self.len -= 1;
        self.bytes -= delivery.message.size();
        self.qos0 -= usize::from(delivery.qos == QoS::AtMostOnce);
    }

    /// The next one to send; `window_open` says whether QoS 1 and 2 may go.
    pub(crate) fn pop(&mut self, window_open: bool) -> Option<Delivery> {
        if self.len == 0 {
            return None;
        }
        let (_, lane) = self.lanes.iter_mut().find(|(_, lane)| !lane.is_empty())?;
        if !window_open && lane.front()?.qos != QoS::AtMostOnce {
            return None;
        }
        let delivery = lane.pop_front()?;
        self.taken(&delivery);
        Some(delivery)
    }

    /// The oldest of the lowest priority: what goes when the queue is full.
    pub(crate) fn pop_oldest(&mut self) -> Option<Delivery> {
        let (_, lane) = self.lanes.iter_mut().rev().find(|(_, lane)| !lane.is_empty())?;
        let delivery = lane.pop_front()?;
        self.taken(&delivery);
        Some(delivery)
    }

    pub(crate) fn remove_expired(&mut self, now: Instant) -> u32 {
        let before = self.len;
        for (_, lane) in &mut self.lanes {
            lane.retain(|delivery| {
                let keep = !delivery.message.is_expired(now);
                if !keep {
                    self.len -= 1;
                    self.bytes -= delivery.message.size();
                    self.qos0 -= usize::from(delivery.qos == QoS::AtMostOnce);
                }
                keep
            });
        }
        u32::try_from(before - self.len).expect("bounded by max_mqueue_len")
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Delivery> {
        self.lanes.iter().flat_map(|(_, lane)| lane)
    }

    /// All of them with their priorities.
    pub(crate) fn by_priority(&self) -> impl Iterator<Item = (u8, &Delivery)> {
        self.lanes.iter().flat_map(|(priority, lane)| lane.iter().map(|delivery| (*priority, delivery)))
    }

    /// Gives memory back while nothing waits.
    pub(crate) fn release(&mut self) {
        if self.len == 0 {
            self.lanes = Vec::new();
        }
    }
}
