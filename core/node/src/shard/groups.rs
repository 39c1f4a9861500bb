//! Shared subscriptions over all shards of the node (section 4.8.2): whose turn it is, and the way to its member.

use newtmq_base::{ConnId, Instant, ShardId, planted};
use newtmq_mqtt::ReasonCode;
use newtmq_session::Message;
use newtmq_topic::{Fit, GroupKey, Pick, PickStrategy, SharedGroup, SubscriberId};

use super::Shard;
use super::fan::{Fan, Parts, Publishing};
use crate::conn::NONE;
use crate::hooks::Hook;
use crate::io::Outbox;
use crate::outbuf::OUTPUT_HIGH_BYTES;
use crate::place::{GroupPublish, PlaceMessage};

impl Shard {
    /// A group gets one copy: the member whose turn it is, or the next one that is ready. `message` is made when the first
    /// shard needs it.
    #[allow(clippy::too_many_arguments)] // what a fan-out is made of
    pub(crate) fn deliver_to_group(
        &mut self,
        now: Instant,
        publishing: Publishing<'_>,
        group: GroupKey,
        publisher: Option<ConnId>,
        message: &mut Option<Message>,
        congested: &mut Vec<u32>,
        out: &mut Outbox,
    ) {
        let strategy = self.config.shared_strategy;
        let hash = if strategy == PickStrategy::Hash { self.publisher_hash(publishing.publisher) } else { 0 };
        let (topics, rng, parts) = self.parts();
        let Some((place, index)) = topics.choose_place(group, strategy, rng, hash) else {
            // Nobody has told of members elsewhere.
            if let Some(pick) = topics.pick(group, strategy, rng, hash, |member| fit(&parts, member)) {
                self.give_member(now, publishing, &pick, congested, out);
            }
            return;
        };
        let here = place.0 == self.own;
        let pick = if here { self.pick_here(group, index) } else { None };
        if let Some(pick) = pick.as_ref().filter(|pick| pick.fit == Fit::Ready) {
            // The usual case; only what leaves the shard has to be made a message.
            return self.give_member(now, publishing, pick, congested, out);
        }
        let publish = GroupPublish {
            group: self.topics.group(group).expect("matched just before").text().clone(),
            message: publishing.message(message, &mut self.scratch.block),
            publisher: publisher.map(|conn| (ShardId(self.own), conn)),
            promise: self.journal.promise_group(self.own),
            index,
            tried: if here { 1 << self.own } else { 0 },
            best: pick.map(|pick| (pick.fit, self.own)),
        };
        if here {
            if let Some(pick) = &pick
                && planted!(SharedGivenTwice)
            {
                self.give_member(now, publishing, pick, congested, out);
            }
            return self.pass_on(now, publish, congested, out);
        }
        self.send_place(place.0, PlaceMessage::Group(Box::new(publish)), out);
        if let Some(publisher) = publisher {
            self.wait_for_lane(now, place.0, publisher, out);
        }
    }

    /// Another shard's message for a member here.
    pub(crate) fn on_group(&mut self, now: Instant, mut publish: GroupPublish, out: &mut Outbox) {
        // It comes back to the fittest: here or nowhere, unless the members have left meanwhile.
        let last = publish.tried >> self.own & 1 == 1;
        let publisher = publish.publisher;
        let mut congested = Vec::new();
        let pick = self.topics.find_group(&publish.group).and_then(|key| self.pick_here(key, publish.index));
        match pick {
            Some(pick) if last || pick.fit == Fit::Ready => {
                let publishing = Publishing::of_message(&publish.message, self.publisher_key(publisher));
                self.give_member(now, publishing, &pick, &mut congested, out);
                self.journal.group_done(publish.promise, self.own);
            }
            _ if planted!(SharedNoRedispatch) => self.ledger.unmatched += 1,
            _ => {
                if last {
                    // The others may still have members, only less fit ones.
                    (publish.tried, publish.best) = (0, None);
                }
                publish.tried |= 1 << self.own;
                if let Some(pick) = pick {
                    publish.best = publish.best.into_iter().chain([(pick.fit, self.own)]).min();
                }
                self.pass_on(now, publish, &mut congested, out);
            }
        }
        self.hold_publisher(now, publisher, &congested, out);
    }

    fn hold_publisher(
        &mut self,
        now: Instant,
        publisher: Option<(ShardId, ConnId)>,
        congested: &[u32],
        out: &mut Outbox,
    ) {
        match publisher {
            Some((shard, conn)) if shard.0 == self.own => self.wait_for_outputs(now, conn, congested, out),
            Some((shard, conn)) => self.hold_remote(shard.0, conn, congested, out),
            None => {}
        }
    }

    /// The next place that has members and was not asked; else the one that had the fittest.
    fn pass_on(&mut self, now: Instant, publish: GroupPublish, congested: &mut Vec<u32>, out: &mut Outbox) {
        let key = self.topics.find_group(&publish.group);
        let places = key.and_then(|key| self.topics.group(key)).map_or(&[][..], SharedGroup::places);
        let untried = places.iter().map(|(place, _)| place.0).find(|place| publish.tried >> place & 1 == 0);
        let best = publish.best.map(|(_, place)| place);
        match (untried.or(best), key) {
            (Some(place), Some(key)) if place == self.own => {
                if let Some(pick) = self.pick_here(key, publish.index) {
                    let publishing = Publishing::of_message(&publish.message, self.publisher_key(publish.publisher));
                    self.give_member(now, publishing, &pick, congested, out);
                }
                self.journal.group_done(publish.promise, self.own);
            }
            (Some(place), _) if place != self.own => {
                let publisher = publish.publisher;
                self.send_place(place, PlaceMessage::Group(Box::new(publish)), out);
                match publisher {
                    Some((shard, conn)) if shard.0 == self.own => self.wait_for_lane(now, place, conn, out),
                    Some((shard, conn)) => self.hold_for_lane(place, shard.0, conn, out),
                    None => {}
                }
            }
            _ => {
                // The last member has left while the message was on its way.
                self.ledger.unmatched += 1;
                self.journal.group_done(publish.promise, self.own);
                let topic = core::str::from_utf8(publish.message.topic()).ok();
                self.tell(Hook::MessageDropped, NONE, topic, ReasonCode::NoMatchingSubscribers, out);
            }
        }
    }

    fn pick_here(&mut self, group: GroupKey, index: u32) -> Option<Pick> {
        let strategy = self.config.shared_strategy;
        let (topics, _, parts) = self.parts();
        topics.pick_at(group, strategy, index, |member| fit(&parts, member))
    }

    fn give_member(
        &mut self,
        now: Instant,
        publishing: Publishing<'_>,
        pick: &Pick,
        congested: &mut Vec<u32>,
        out: &mut Outbox,
    ) {
        if planted!(SharedAckedBeforeEnqueue, pick.fit != Fit::Ready) {
            return;
        }
        let born_before = self.next_born();
        let (_, _, parts) = self.parts();
        let congested_before = core::mem::take(congested);
        let mut fan =
            Fan { now, parts, out, publishing, shared: true, message: None, congested: congested_before, born_before };
        fan.run(core::slice::from_ref(&pick.member));
        *congested = fan.congested;
    }

    /// The session of a publisher of this shard: nobody is held for the own output.
    fn publisher_key(&self, publisher: Option<(ShardId, ConnId)>) -> u32 {
        let here = publisher.filter(|(shard, _)| shard.0 == self.own);
        here.and_then(|(_, conn)| self.conn(conn)).map_or(NONE, |c| c.session)
    }

    /// For the strategy that goes by the publisher.
    fn publisher_hash(&self, publisher: u32) -> u64 {
        self.sessions.get(publisher).map_or(0, |slot| self.node_hash(slot.session.client().as_str()))
    }
}

fn fit(parts: &Parts<'_>, subscriber: SubscriberId) -> Fit {
    let Some(slot) = parts.sessions.get(subscriber.0) else { return Fit::Offline };
    let Some(Some(c)) = parts.conns.get(slot.conn as usize) else { return Fit::Offline };
    let busy =
        c.stalled || c.out.len() >= OUTPUT_HIGH_BYTES || slot.session.outstanding() >= usize::from(c.receive_maximum);
    if busy { Fit::Busy } else { Fit::Ready }
}
