//! Shared subscriptions over all shards of the node (section 4.8.2): whose turn it is, and the way to its member.

use newtmq_base::{ConnId, Instant, ShardId, planted};
use newtmq_cluster::lane::{Gone, Publication, Settled, Ticket, What};
use newtmq_cluster::owned::Class;
use newtmq_mqtt::{OwnedTopicFilter, ReasonCode, TopicFilter, TopicName};
use newtmq_session::{Message, Session};
use newtmq_topic::{Fit, GroupKey, Pick, PickStrategy, PlaceId, SharedGroup, SubscriberId};

use super::Shard;
use super::deliver::Delivered;
use super::departure::Departure;
use super::fan::{Fan, Parts, Publishing};
use crate::conn::NONE;
use crate::hooks::Hook;
use crate::io::Outbox;
use crate::outbuf::OUTPUT_HIGH_BYTES;
use crate::place::{GroupPublish, PlaceMessage, class_of, place_id, shard_of, slot_of};

impl Shard {
    /// A group gets one copy: the member whose turn it is, or the next one that is ready. `message` is made when the first
    /// shard needs it.
    #[allow(clippy::too_many_arguments)] // what a fan-out is made of
    pub(crate) fn deliver_to_group(
        &mut self,
        now: Instant,
        publishing: Publishing<'_>,
        group: GroupKey,
        message: &mut Option<Message>,
        departure: &mut Departure,
        delivered: &mut Delivered,
        out: &mut Outbox,
    ) {
        let Delivered { congested, reached, .. } = delivered;
        let publisher = departure.publisher;
        let strategy = self.config.shared_strategy;
        let hash = if strategy == PickStrategy::Hash { self.publisher_hash(publishing.publisher) } else { 0 };
        let (topics, rng, parts) = self.parts();
        let Some((place, index)) = topics.choose_place(group, strategy, rng, hash) else {
            // Nobody has told of members elsewhere.
            *reached = true;
            if let Some(pick) = topics.pick(group, strategy, rng, hash, |member| fit(&parts, member)) {
                self.give_member(now, publishing, &pick, congested, out);
            }
            return;
        };
        let (index, text) = {
            let group = topics.group(group).expect("matched just before");
            (index + members_before(group, place), group.text().clone())
        };
        if slot_of(place) > 0 {
            return self.post_to_group(now, &publishing, text.as_str(), place, departure, out);
        }
        let place = shard_of(place);
        let here = place == self.own;
        let pick = if here { self.pick_here(group, index) } else { None };
        if here && pick.is_none() && self.next_place(group, 1 << self.own).is_none() {
            // The last member of this node has left, and not all of it know that yet.
            if let Some(place) = self.far_place(group) {
                return self.post_to_group(now, &publishing, text.as_str(), place, departure, out);
            }
        }
        *reached = true;
        if let Some(pick) = pick.as_ref().filter(|pick| pick.fit == Fit::Ready) {
            // The usual case; only what leaves the shard has to be made a message.
            return self.give_member(now, publishing, pick, congested, out);
        }
        let publish = GroupPublish {
            group: text,
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
        self.send_place(place, PlaceMessage::Group(Box::new(publish)), out);
        if let Some(publisher) = publisher {
            self.wait_for_lane(now, place, publisher, out);
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
        let untried = key.and_then(|key| self.next_place(key, publish.tried));
        let far = key.and_then(|key| self.far_place(key));
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
            _ if far.is_some() => {
                // The last member of this node has left while the message was on its way.
                self.journal.group_done(publish.promise, self.own);
                let publishing = Publishing::of_message(&publish.message, NONE);
                let mut departure = Departure::of(None, None);
                let place = far.expect("looked at just before");
                self.post_to_group(now, &publishing, publish.group.as_str(), place, &mut departure, out);
                self.departed(&mut departure);
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

    /// What a member has not acknowledged when its session ends goes to other members, wherever they are; QoS 2 is bound to
    /// it. Says how many.
    pub(super) fn pass_on_shared(&mut self, now: Instant, ended: &Session, is_stored: bool, out: &mut Outbox) -> u64 {
        // A shard that has sent its clients away delivers nothing any more.
        if self.stopping || planted!(SharedEndsWithSession, ended.unacknowledged_shared().next().is_some()) {
            return 0;
        }
        let mut passed_on = 0;
        for message in ended.unacknowledged_shared().filter(|message| !message.is_expired(now)) {
            // Which of its groups it came for is not known. Of several it might go to one that has had its copy.
            let filters = ended.subscriptions().iter().map(|(filter, _)| filter.as_filter());
            let topic = TopicName::from_bytes(message.topic()).expect("it was published under it");
            let mut groups = filters.filter(|filter| filter.share_group().is_some() && filter.matches(topic));
            let (Some(filter), None) = (groups.next(), groups.next()) else { continue };
            let group = self.topics.find_group(&filter.into());
            let Some(group) = group.filter(|group| self.has_members(*group)) else { continue };
            passed_on += 1;
            // It is owed once.
            self.ledger.matched -= 1;
            let publishing = Publishing::of_message(message, NONE);
            // Without the session and without its copy it would be lost.
            self.journal.whole = is_stored;
            let (mut departure, mut made) = (Departure::of(None, None), Some(message.clone()));
            let mut delivered =
                Delivered { matched: true, reached: false, gate: None, unfinished: false, congested: Vec::new() };
            self.deliver_to_group(now, publishing, group, &mut made, &mut departure, &mut delivered, out);
            self.departed(&mut departure);
            self.journal.whole = false;
        }
        passed_on
    }

    /// Whether a group has members, as far as is known here.
    fn has_members(&mut self, group: GroupKey) -> bool {
        let elsewhere = self.next_place(group, 1 << self.own).is_some() || self.far_place(group).is_some();
        elsewhere || self.pick_here(group, 0).is_some()
    }

    /// A shard of this node that has members and was not tried.
    fn next_place(&self, group: GroupKey, tried: u128) -> Option<u16> {
        let places = self.topics.group(group).map_or(&[][..], SharedGroup::places);
        let here = places.iter().map(|(place, _)| *place).take_while(|place| slot_of(*place) == 0);
        here.map(shard_of).find(|place| tried >> place & 1 == 0)
    }

    /// A place of another node that has members.
    fn far_place(&self, group: GroupKey) -> Option<PlaceId> {
        let places = self.topics.group(group).map_or(&[][..], SharedGroup::places);
        places.last().map(|(place, _)| *place).filter(|place| slot_of(*place) > 0 && !planted!(FarMembersForgotten))
    }

    fn pick_here(&mut self, group: GroupKey, index: u32) -> Option<Pick> {
        let strategy = self.config.shared_strategy;
        let (topics, _, parts) = self.parts();
        topics.pick_at(group, strategy, index, |member| fit(&parts, member))
    }

    /// The same for a message of another node, which leaves the choice to this one.
    pub(super) fn pick_for(&mut self, group: GroupKey, publisher: &[u8]) -> Option<Pick> {
        let strategy = self.config.shared_strategy;
        let hash = core::str::from_utf8(publisher).map_or(0, |publisher| self.node_hash(publisher));
        let (topics, rng, parts) = self.parts();
        topics.pick(group, strategy, rng, hash, |member| fit(&parts, member))
    }

    /// A group's message that was sent to another node has come back: it goes to another place that has members.
    #[allow(clippy::too_many_arguments)] // the message, and what became of it
    pub(super) fn redispatch(
        &mut self,
        now: Instant,
        ticket: Ticket,
        what: &What,
        why: Gone,
        publication: Publication,
        expires: Instant,
        out: &mut Outbox,
    ) {
        let What::Group { name, .. } = what else { return };
        let text = core::str::from_utf8(name).ok().and_then(|text| TopicFilter::new(text).ok());
        let key = text.map(OwnedTopicFilter::from).and_then(|text| self.topics.find_group(&text));
        let places: Vec<PlaceId> = key
            .and_then(|key| self.topics.group(key))
            .map_or(&[][..], SharedGroup::places)
            .iter()
            .map(|(place, _)| *place)
            .collect();
        let Some(waiting) = self.peers.as_mut().and_then(|peers| peers.tickets.get(ticket)) else { return };
        let gate = waiting.gate;
        if let Some((conn, _)) = gate {
            // A repeated one does not go there again.
            self.forget_target(conn, publication.guid(), what);
        }
        let Some(waiting) = self.peers.as_mut().and_then(|peers| peers.tickets.get(ticket)) else { return };
        let tried = waiting.tried.iter_mut().find(|(of, _)| of == name);
        let next = tried.and_then(|(_, tried)| {
            let next = places.into_iter().find(|place| !tried.contains(place))?;
            tried.push(next);
            Some(next)
        });
        match (next, key) {
            (Some(place), Some(key)) if slot_of(place) == 0 && !planted!(FarGroupNotRedispatched) => {
                let message = self.message_of(&publication, expires);
                let publish = GroupPublish {
                    group: self.topics.group(key).expect("found just before").text().clone(),
                    message,
                    publisher: gate.map(|(conn, _)| (ShardId(self.own), conn)),
                    promise: self.journal.promise_group(self.own),
                    index: 0,
                    tried: 0,
                    best: None,
                };
                let mut congested = Vec::new();
                self.pass_on(now, publish, &mut congested, out);
                if let Some((conn, _)) = gate {
                    self.wait_for_outputs(now, conn, &congested, out);
                }
                self.settle(now, ticket, Settled::Stored, out);
            }
            (Some(place), Some(_)) if !planted!(FarGroupNotRedispatched) => {
                self.post_back(now, ticket, what, place, (publication, expires));
            }
            _ => {
                let settled = match why {
                    Gone::Refused(refusal) => Settled::Refused(refusal),
                    Gone::Down => {
                        self.ledger.lost_down += 1;
                        Settled::Lost
                    }
                };
                self.settle(now, ticket, settled, out);
            }
        }
    }

    pub(super) fn give_member(
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

/// Members of a shard have numbers without regard to their class: how many come before those of a place.
fn members_before(group: &SharedGroup, place: PlaceId) -> u32 {
    if class_of(place) == Class::Transient {
        return 0;
    }
    let other = place_id(slot_of(place), ShardId(shard_of(place)), Class::Transient);
    group.places().iter().find(|(place, _)| *place == other).map_or(0, |(_, members)| *members)
}

fn fit(parts: &Parts<'_>, subscriber: SubscriberId) -> Fit {
    let Some(slot) = parts.sessions.get(subscriber.0) else { return Fit::Offline };
    let Some(Some(c)) = parts.conns.get(slot.conn as usize) else { return Fit::Offline };
    let busy =
        c.stalled || c.out.len() >= OUTPUT_HIGH_BYTES || slot.session.outstanding() >= usize::from(c.receive_maximum);
    if busy { Fit::Busy } else { Fit::Ready }
}
