//! Sees to it that a client has one session, wherever it is.

use core::time::Duration;

use newtmq_base::{Instant, NodeId, planted};

use super::super::message::{Client, Message};
use super::super::node::Sink;
use super::super::rank::{Born, wins};
use super::super::seat::Seat;
use super::{Entry, Place};
use crate::lane::Epoch;

impl Place {
    /// Whether the other one was made of it.
    fn gave_to(&self, other: &Place) -> bool {
        self.serves == Some(other.node) && self.node != other.node && other.epoch >= self.epoch
    }

    /// Whether it began by a clean start after a connection had attached to the other one last. Without a quorum an epoch may be
    /// lower than one of before that nobody could tell, so the time counts.
    fn is_clean_of(&self, other: &Place, now: Instant, tolerance: Duration) -> bool {
        let is_first = self.clean == self.epoch && self.clean.provisional > 0 && !planted!(CleanByEpoch);
        self.clean > other.epoch || is_first && wins((self.epoch, self.born), (other.epoch, other.born), now, tolerance)
    }
}

impl Seat {
    /// Sees to it that there is one session, and that what does not count ends.
    pub(super) fn settle(&mut self, now: Instant, client: &Client, entry: &mut Entry, sink: &mut Sink<'_>) {
        // Whoever has a connection to one of them says so soon.
        if entry.places.iter().any(|place| place.serves.is_some_and(|node| self.is_asked(node))) {
            return;
        }
        let mut keep: Option<Place> = None;
        let used = |place: &Place, entry: &Entry| entry.holder.is_some_and(|holder| holder.home == place.node);
        for place in &entry.places {
            if used(place, entry) {
                keep = Some(*place);
                break;
            }
            let later = |keep: Place| match () {
                // One that was given away is what the other one was made of.
                () if keep.gave_to(place) => true,
                () if place.gave_to(&keep) => false,
                () => wins((place.epoch, place.born), (keep.epoch, keep.born), now, self.config.tolerance),
            };
            if self.void(client, entry, place).is_none() && keep.is_none_or(later) {
                keep = Some(*place);
            }
        }
        for place in entry.places.clone() {
            if keep.is_some_and(|keep| keep.node == place.node) {
                continue;
            }
            let by = self.void(client, entry, &place).map_or(self.me, |(by, _)| by);
            let to = keep.map_or(by, |keep| keep.node);
            let discard = keep.is_none_or(|keep| keep.is_clean_of(&place, now, self.config.tolerance));
            self.end(now, client, entry, place, (to, discard), sink);
        }
        self.keep_holder(now, client, entry, sink);
        self.tell_acted(now, client, entry, sink);
    }

    /// Who says that a session does not count.
    pub(super) fn void(&self, client: &Client, entry: &Entry, place: &Place) -> Option<(NodeId, Epoch)> {
        let recorded = self.voids.get(client).into_iter().flatten();
        // A node that has announced has said what it makes void.
        let recorded = recorded.filter(|(by, ..)| !self.is_complete(*by) && !planted!(TombstoneForgotten));
        let mut voids = entry.supersedes.iter().chain(recorded);
        voids.find(|(_, home, epoch)| *home == place.node && place.epoch < *epoch).map(|(by, _, epoch)| (*by, *epoch))
    }

    /// A connection whose session is about to be void, or was ended, gets its own again with a higher epoch.
    fn keep_holder(&mut self, now: Instant, client: &Client, entry: &mut Entry, sink: &mut Sink<'_>) {
        let Some(mut holder) = entry.holder.filter(|holder| holder.raise.is_none()) else { return };
        let place = entry.places.iter().find(|place| place.node == holder.home);
        match place {
            Some(place) => match self.void(client, entry, place) {
                Some((_, epoch)) => entry.top = entry.top.max(epoch),
                // One that has had it since is gone.
                None if place.epoch > holder.epoch => {}
                None => return,
            },
            None if !self.is_complete(holder.home) => return,
            None => {
                let born = Born::new(now, Duration::ZERO, Duration::ZERO);
                let (node, epoch, serves) = (holder.node, entry.top, Some(holder.node));
                holder.home = entry.places.first().map_or(node, |place| place.node);
                if entry.places.is_empty() {
                    let (clean, begun, over) = (Epoch::ZERO, None, true);
                    let durable = holder.durable && !planted!(BegunInMemory);
                    entry.places.push(Place { node, epoch, clean, durable, born, serves, begun, over });
                }
            }
        }
        self.raise(now, client, entry, holder, sink);
    }

    /// Tells those who keep a record that what it makes void is no more.
    fn tell_acted(&mut self, now: Instant, client: &Client, entry: &mut Entry, sink: &mut Sink<'_>) {
        if entry.acted.is_some_and(|next| next > now) {
            return;
        }
        entry.acted = None;
        for (by, home, epoch) in &entry.supersedes {
            let there = entry.ends.iter().any(|end| end.node == *home)
                || entry.places.iter().any(|place| place.node == *home && place.epoch < *epoch);
            if self.is_complete(*home)
                && !there
                && let Some(round) = self.round(*by)
            {
                entry.acted = Some(now + self.config.retry);
                let (client, home, epoch) = (client.clone(), *home, *epoch);
                sink.send(*by, Message::Acted { round, client, home, epoch });
            }
        }
    }

    /// A session is at another node from now on, with a connection that was attached to it. Whether that counts: it does not
    /// if another one has attached since.
    pub(in super::super) fn moved(
        &mut self,
        now: Instant,
        node: NodeId,
        client: &Client,
        (epoch, clean, durable): (Epoch, Epoch, bool),
        sink: &mut Sink<'_>,
    ) -> bool {
        let mut entry = self.entries.remove(client).unwrap_or_default();
        entry.top = entry.top.max(epoch);
        let later = entry.places.iter().find(|place| place.node != node && place.epoch > epoch).copied();
        let ends = entry.ends.iter().any(|end| end.node == node);
        let counts = later.is_none() && !ends || planted!(LateMoveCounts);
        let born = Born::new(now, Duration::ZERO, Duration::ZERO);
        let place = Place { node, epoch, clean, durable, born, serves: Some(node), begun: Some(epoch), over: false };
        if counts {
            // What is said late of a connection that has had a successor there since takes nothing back.
            let begun = |own: &Place| own.begun > Some(epoch) || own.epoch > epoch && planted!(MoveForgotten);
            let is_later = |own: &&Place| own.node == node && begun(own) && !planted!(MovedBack);
            let place = entry.places.iter().find(is_later).copied().unwrap_or(place);
            for old in entry.places.clone().into_iter().filter(|place| place.node != node) {
                self.end(now, client, &mut entry, old, (node, false), sink);
            }
            entry.places.retain(|place| place.node != node);
            entry.places.push(place);
            if let Some(holder) = entry.holder.as_mut().filter(|holder| (holder.node, holder.epoch) == (node, epoch)) {
                holder.home = node;
            }
        } else if let Some(later) = later.filter(|_| !ends) {
            self.end(now, client, &mut entry, place, (later.node, true), sink);
        }
        self.entries.insert(client.clone(), entry);
        self.advance(now, client, sink);
        counts
    }
}
