//! What leaves this shard for the shards of other nodes: whom it is for, its name among all nodes, and what it waits for
//! before it may go. The lanes that it goes by are in [`super::peers`].

use bytes::Bytes;
use newtmq_base::{ConnId, Instant, NodeId, ShardId, planted};
use newtmq_cluster::lane::{
    GateId, Guid, Post, Press, Publication, PublicationParts, Refusal, Sent, Settled, Target as LaneTarget, What,
};
use newtmq_cluster::owned::Class;
use newtmq_mqtt::{PacketId, QoS};
use newtmq_session::{Record, unstretched};
use newtmq_topic::PlaceId;

use super::Shard;
use super::deliver::Acknowledgement;
use super::fan::Publishing;
use super::hints::Release;
use super::late::NO_GUID;
use super::tickets::Tickets;
use crate::conn::Target;
use crate::io::Outbox;
use crate::place::{PlaceMessage, class_of, shard_of, slot_of};

/// A publish on its way to other nodes; what they have in common is made when the first of them needs it.
#[derive(Debug, Default)]
pub(crate) struct Departure {
    /// Whose, if he is to be told.
    pub(crate) publisher: Option<ConnId>,
    /// What he is to be told.
    pub(crate) owed: Option<Acknowledgement>,
    /// What his acknowledgement waits behind, if it does.
    pub(crate) gate: Option<GateId>,
    post: Option<Post>,
    /// It leaves when this batch of the journal is stored.
    after: u64,
    /// What waits for that: slots of nodes, and whom there.
    held: Vec<(u8, Vec<LaneTarget>)>,
}

/// A message that leaves when its name is stored.
#[derive(Debug)]
pub(super) struct Held {
    batch: u64,
    post: Post,
    gate: Option<(ConnId, GateId)>,
    to: Vec<(u8, Vec<LaneTarget>)>,
}

impl Departure {
    /// Of a publish of a connection, and what it is owed.
    pub(crate) fn of(publisher: Option<ConnId>, owed: Option<Acknowledgement>) -> Departure {
        Departure { publisher, owed, ..Departure::default() }
    }
}

impl Shard {
    /// Sends a message to the other nodes that have plain subscriptions for it; `places` are theirs, in order.
    pub(crate) fn forward_far(
        &mut self,
        now: Instant,
        publishing: &Publishing<'_>,
        places: &[PlaceId],
        departure: &mut Departure,
        out: &mut Outbox,
    ) {
        let Some(peers) = &mut self.peers else { return };
        let mut targets = core::mem::take(&mut peers.targets);
        for at_node in places.chunk_by(|one, other| slot_of(*one) == slot_of(*other)) {
            targets.clear();
            for place in at_node {
                let (shard, durable) = (ShardId(shard_of(*place)), class_of(*place) == Class::Durable);
                match targets.last_mut() {
                    // One with subscribers of both classes gets it once.
                    Some(LaneTarget { shard: last, what: What::Plain { durable: both, .. } }) if *last == shard => {
                        *both |= durable;
                    }
                    Some(_) | None => {
                        let what = What::Plain { transient: !durable, durable };
                        targets.push(LaneTarget { shard, what });
                    }
                }
            }
            self.post(now, publishing, slot_of(at_node[0]), &targets, departure, out);
        }
        if let Some(peers) = &mut self.peers {
            peers.targets = targets;
        }
    }

    /// Sends a message to a group's members at a place of another node.
    pub(crate) fn post_to_group(
        &mut self,
        now: Instant,
        publishing: &Publishing<'_>,
        name: &str,
        place: PlaceId,
        departure: &mut Departure,
        out: &mut Outbox,
    ) {
        let name = Bytes::copy_from_slice(name.as_bytes());
        let what = What::Group { name: name.clone(), durable: class_of(place) == Class::Durable };
        let target = LaneTarget { shard: ShardId(shard_of(place)), what };
        self.depart(now, publishing, departure);
        if let (Some(peers), Some(post)) = (&mut self.peers, &departure.post)
            && let Some(waiting) = peers.tickets.get(post.ticket)
        {
            waiting.tried.push((name, vec![place]));
        }
        self.post(now, publishing, slot_of(place), &[target], departure, out);
    }

    fn post(
        &mut self,
        now: Instant,
        publishing: &Publishing<'_>,
        slot: u8,
        targets: &[LaneTarget],
        departure: &mut Departure,
        out: &mut Outbox,
    ) {
        self.depart(now, publishing, departure);
        let Some(post) = &departure.post else { return };
        if let Some(publisher) = departure.publisher {
            self.note_targets(publisher, departure.owed, slot, targets);
        }
        if departure.after > self.journal.stored() && !planted!(ForwardedBeforeNamed) {
            departure.held.push((slot, targets.to_vec()));
            return;
        }
        let sent = self.send_post(now, post, departure.publisher.zip(departure.gate), slot, targets);
        if let (Some(publisher), true) = (departure.publisher, sent.paused) {
            self.wait_for(now, publisher, &[Target::Peer(slot)], out);
        }
    }

    fn send_post(
        &mut self,
        now: Instant,
        post: &Post,
        gate: Option<(ConnId, GateId)>,
        slot: u8,
        targets: &[LaneTarget],
    ) -> Sent {
        let Some(peers) = &mut self.peers else { return Sent::default() };
        let sent = peers.call(slot, |peer, outputs| peer.send(now, post, targets, outputs));
        peers.tickets.expect(post.ticket, sent.answers);
        self.count_sent(targets.len(), &sent);
        if let Some((publisher, gate)) = gate {
            self.gate_sent(publisher, gate, &sent);
        }
        sent
    }

    /// Everything up to this batch is stored: what waited for that leaves.
    pub(super) fn send_held(&mut self, now: Instant, upto: u64, out: &mut Outbox) {
        self.send_messages_held(now, upto, out);
        while let Some(peers) = &mut self.peers
            && let Some((_, slot, shard, marker)) = peers.markers.pop_front_if(|(batch, ..)| *batch <= upto)
        {
            peers.mark(now, slot, shard, marker);
        }
    }

    /// Puts a marker behind all that was sent to a place so far.
    pub(super) fn flush_lane(
        &mut self,
        now: Instant,
        (node, shard): (NodeId, ShardId),
        marker: Guid,
        out: &mut Outbox,
    ) {
        if node == self.node {
            return self.send_place(shard.0, PlaceMessage::Flushed { marker }, out);
        }
        let Some(peers) = &mut self.peers else { return };
        let Some(slot) = peers.known_slot(node) else { return };
        let held = peers.held.back().map(|held| held.batch);
        match held {
            // What waits for the store goes before it.
            Some(batch) => peers.markers.push_back((batch, slot, shard, marker)),
            None => peers.mark(now, slot, shard, marker),
        }
    }

    fn send_messages_held(&mut self, now: Instant, upto: u64, out: &mut Outbox) {
        while let Some(peers) = &mut self.peers
            && let Some(Held { post, gate, to, .. }) = peers.held.pop_front_if(|held| held.batch <= upto)
        {
            for (slot, targets) in to {
                self.send_post(now, &post, gate, slot, &targets);
            }
            // What it has waited for says nothing of its receivers.
            self.settle(now, post.ticket, Settled::Refused(Refusal::NoMember), out);
        }
    }

    pub(super) fn count_sent(&mut self, targets: usize, sent: &Sent) {
        let ledger = &mut self.ledger;
        ledger.sent_to_nodes += targets as u64;
        ledger.dropped_for_credit += u64::from(sent.dropped);
        ledger.refused_for_credit += u64::from(sent.refused);
        ledger.missed_down += u64::from(sent.closed);
    }

    /// What a message for other nodes has in common.
    fn depart(&mut self, now: Instant, publishing: &Publishing<'_>, departure: &mut Departure) {
        if departure.post.is_some() || self.peers.is_none() {
            return;
        }
        if let (Some(publisher), Some(owed)) = (departure.publisher, departure.owed)
            && departure.gate.is_none()
        {
            departure.gate = Some(self.begin_gate(now, publisher, owed));
        }
        let gate = departure.publisher.zip(departure.gate);
        let guid = self.guid_for(publishing, departure);
        let client = self.sessions.get(publishing.publisher).map_or("", |slot| slot.session.client().as_str());
        let Some(peers) = &mut self.peers else { return };
        let publication = publication(&mut peers.press, publishing, client, guid);
        let answered = publishing.qos > QoS::AtMostOnce;
        let ticket = if answered { peers.tickets.add(gate) } else { Tickets::NONE };
        let again = publishing.stretched && !planted!(ExpiryStretchedTwice);
        let expires = if again { unstretched(publishing.expires, now) } else { publishing.expires };
        let post = Post { ticket, publication, expires, from_log: false };
        departure.post = Some(post);
    }

    /// It has gone to all that it is for.
    pub(crate) fn departed(&mut self, departure: &mut Departure) {
        let (Some(peers), Some(post)) = (&mut self.peers, departure.post.take()) else { return };
        if departure.held.is_empty() {
            peers.tickets.answered(post.ticket);
            return;
        }
        let (gate, to) = (departure.publisher.zip(departure.gate), core::mem::take(&mut departure.held));
        peers.held.push_back(Held { batch: departure.after, post, gate, to });
        if let Some((publisher, gate)) = gate {
            self.gate_wait(publisher, gate);
        }
    }

    /// A name for a message among all nodes.
    pub(super) fn new_name(&mut self) -> Guid {
        self.peers.as_mut().map_or(NO_GUID, |peers| peers.fresh_guid())
    }

    /// The message's name: of QoS 2 the one that it had before, if its publisher repeats it.
    fn guid_for(&mut self, publishing: &Publishing<'_>, departure: &mut Departure) -> Guid {
        let Shard { sessions, peers, journal, config, .. } = self;
        let peers = peers.as_mut().expect("the caller has looked");
        let slot = sessions.get_mut(publishing.publisher).filter(|_| publishing.qos == QoS::ExactlyOnce);
        let mut fresh = || if publishing.guid == NO_GUID { peers.fresh_guid() } else { publishing.guid };
        let (Some(slot), Some((_, packet_id, _))) = (slot, departure.owed) else { return fresh() };
        let known = slot.forwards.as_ref().and_then(|forwards| forwards.guid(packet_id));
        let guid = known.unwrap_or_else(fresh);
        if known.is_none() {
            slot.forwards.get_or_insert_default().begin(packet_id, guid);
        }
        if let Some(session) = slot.stored {
            if known.is_none() {
                let durability = config.zones[usize::from(slot.zone)].durability;
                journal.record(&Record::Forwarding { session, packet_id, guid: guid.0 }, durability);
            }
            // If its name were lost, a repeated one would be another message.
            departure.after = journal.batch_so_far();
        }
        guid
    }

    /// Its publisher has released a QoS 2 message, or it is never repeated: those who got it may forget it.
    pub(crate) fn release_forwarded(&mut self, now: Instant, key: u32, packet_id: PacketId) {
        let Shard { sessions, peers, .. } = self;
        let Some(forwards) = sessions.get_mut(key).and_then(|slot| slot.forwards.as_mut()) else { return };
        let Some((guid, targets)) = forwards.release(packet_id) else { return };
        let Some(peers) = peers else { return };
        for at_node in targets.chunk_by(|(one, _), (other, _)| one == other) {
            let mut shards: Vec<ShardId> = at_node.iter().map(|(_, target)| target.shard).collect();
            shards.sort_unstable();
            shards.dedup();
            let slot = at_node[0].0;
            // Where it is not known to be, that is said later.
            shards.retain(|shard| match peers.hints.release((slot, *shard), guid) {
                Release::AtOnce => true,
                Release::BehindIt => false,
                Release::WhenStored(_) if planted!(HintReleasedEarly) => true,
                Release::WhenStored(batch) => {
                    peers.markers.push_back((batch, slot, *shard, guid));
                    false
                }
            });
            peers.call(slot, |peer, outputs| peer.release(now, guid, &shards, outputs));
        }
    }

    /// Sends a QoS 2 message that its publisher repeats to where it was sent before.
    pub(crate) fn post_again(
        &mut self,
        now: Instant,
        publishing: &Publishing<'_>,
        targets: &[(u8, LaneTarget)],
        departure: &mut Departure,
        out: &mut Outbox,
    ) {
        for at_node in targets.chunk_by(|(one, _), (other, _)| one == other) {
            // Who is no member any more never answers, and its sessions are gone.
            let is_gone = self.peers.as_mut().is_some_and(|peers| peers.peer(at_node[0].0).forgotten);
            if is_gone && !planted!(RepeatedToWhoIsGone) {
                continue;
            }
            let of_node: Vec<LaneTarget> = at_node.iter().map(|(_, target)| target.clone()).collect();
            self.post(now, publishing, at_node[0].0, &of_node, departure, out);
        }
    }
}

/// A message as it goes over links.
fn publication(press: &mut Press, publishing: &Publishing<'_>, client: &str, guid: Guid) -> Publication {
    press.publication(&PublicationParts {
        publisher: client.as_bytes(),
        retained: publishing.stamp.index().unwrap_or(0),
        guid,
        topic: publishing.topic,
        qos: publishing.qos,
        retain: publishing.retain,
        properties: publishing.forwardable,
        payload: publishing.payload,
    })
}
