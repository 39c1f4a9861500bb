//! What a group of retained messages does not have yet: what comes over from the group before, from a cluster that the node was
//! in, or from before there was one.

use bytes::Bytes;
use newtmq_base::Instant;
use newtmq_cluster::retained::{Estate, Input};

use super::super::joint::Cluster;
use super::{Asker, Shelf};

/// Something that a group does not have yet.
#[derive(Debug, Clone)]
pub(super) struct Carried {
    pub(super) topic: Box<str>,
    pub(super) message: Option<Bytes>,
    pub(super) seen: u64,
}

impl Shelf {
    /// What counts against indexes of this cluster counts in another one only for topics that nobody has written there.
    pub(super) fn leave_cluster(&mut self) {
        for estate in core::mem::take(&mut self.compared).into_iter().rev() {
            self.carried.extend(brought(&estate));
        }
        let asked = self.requests.values_mut().filter_map(|asker| match asker {
            Asker::Carried(carried) => Some(carried),
            Asker::Shard(..) | Asker::Large(..) | Asker::Expired(..) => None,
        });
        self.carried.iter_mut().chain(asked).for_each(|carried| carried.seen = 0);
    }
}

impl Cluster {
    /// What the group does not have that the one before had.
    pub(super) fn compare_estate(&mut self) {
        let shelf = &mut self.shelf;
        let Some(seat) = shelf.seat.filter(|_| !shelf.compared.is_empty()) else { return };
        if shelf.part.leader().is_none() || shelf.part.known() < seat.base() {
            return;
        }
        // Of two with the same topic the later one counts, as what is written first.
        for estate in core::mem::take(&mut shelf.compared).into_iter().rev() {
            for (topic, message) in shelf.part.lacks(&estate) {
                shelf.carried.push_back(Carried { topic, message, seen: seat.base() });
            }
        }
    }

    pub(super) fn carry(&mut self, now: Instant) {
        let shelf = &mut self.shelf;
        shelf.part.hold(shelf.carrying > 0 || !shelf.carried.is_empty() || !shelf.compared.is_empty());
        let is_early = now < shelf.carry_at || !shelf.compared.is_empty() || shelf.part.leader().is_none();
        if shelf.carried.is_empty() || is_early {
            return;
        }
        while shelf.carrying < shelf.config.play_at_once
            && let Some(carried) = shelf.carried.pop_front()
        {
            shelf.carrying += 1;
            let Carried { topic, message, seen } = carried.clone();
            let request = shelf.request(Asker::Carried(carried));
            let input = Input::Write { request, topic, message, keep: false, seen: Some(seen) };
            shelf.part.handle(now, input, &mut shelf.out);
        }
    }
}

/// What a node brings to a cluster in which it has not been.
pub(super) fn brought(estate: &Estate) -> impl Iterator<Item = Carried> {
    let messages = estate.iter().filter_map(|(topic, _, message)| Some((topic, message?)));
    messages.map(|(topic, message)| Carried { topic: topic.into(), message: Some(message.clone()), seen: 0 })
}
