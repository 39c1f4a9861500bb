//! What waits for a client behind what is under way to it.

use std::collections::VecDeque;

use newtmq_mqtt::QoS;

use crate::client::Delivery;

/// What waits for the client.
#[derive(Debug)]
pub(crate) enum Item {
    Message(Delivery),
    /// A QoS 2 message that the client has and that has to be released.
    Release(u16),
}

impl Item {
    fn bytes(&self) -> usize {
        match self {
            Item::Message(delivery) => delivery.data.len(),
            Item::Release(_) => 0,
        }
    }
}

/// Items in their order. For most clients nothing waits: that costs a pointer.
#[derive(Debug, Default)]
pub(crate) struct Queue(Option<Box<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    items: VecDeque<Item>,
    /// Of their payloads.
    bytes: usize,
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| waiting.items.len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Bytes of all payloads.
    pub(crate) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| waiting.bytes)
    }

    pub(crate) fn front(&self) -> Option<&Item> {
        self.iter().next()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Item> {
        self.0.iter().flat_map(|waiting| &waiting.items)
    }

    pub(crate) fn push_front(&mut self, item: Item) {
        let waiting = self.0.get_or_insert_default();
        waiting.bytes += item.bytes();
        waiting.items.push_front(item);
    }

    pub(crate) fn push_back(&mut self, item: Item) {
        let waiting = self.0.get_or_insert_default();
        waiting.bytes += item.bytes();
        waiting.items.push_back(item);
    }

    pub(crate) fn pop_front(&mut self) -> Option<Item> {
        self.remove(0)
    }

    fn remove(&mut self, at: usize) -> Option<Item> {
        let waiting = self.0.as_mut()?;
        let item = waiting.items.remove(at)?;
        waiting.bytes -= item.bytes();
        if waiting.items.is_empty() {
            self.0 = None;
        }
        Some(item)
    }

    /// Drops the oldest message of QoS 0, of the others the broker is not told that they have arrived.
    pub(crate) fn drop_oldest(&mut self) -> bool {
        let is_qos0 = |item: &Item| matches!(item, Item::Message(delivery) if delivery.qos == QoS::AtMostOnce);
        let at = self.iter().position(is_qos0);
        at.is_some_and(|at| self.remove(at).is_some())
    }

    /// Takes everything.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = Item> + use<> {
        self.0.take().into_iter().flat_map(|waiting| waiting.items)
    }
}
