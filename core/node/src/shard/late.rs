//! What still comes for a session that has gone to another node: by routes that are not everywhere replaced yet, and by lanes on
//! which it was under way. The session that was left behind stays a while as a stub, without a client. It hands on what it
//! gets, in numbered letters that are repeated until they are stored there. Before the first it asks all shards of all nodes to
//! put a marker behind what they have sent to it; the client is let in when all that came before the markers is there.
//!
//! What comes both ways is taken once: by the name that a message has among all nodes.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use newtmq_base::{ConnId, Instant, NodeId, Put, Take, planted};
use newtmq_cluster::directory::Client;
use newtmq_cluster::lane::{Epoch, Guid};
use newtmq_mqtt::{OwnedTopicFilter, QoS, TopicName};
use newtmq_session::{
    DeliveryRecord, Identifiers, Message, MessageId, Op, Record, Restoring, SessionId, SnapshotRecord,
    SubscriptionEntry,
};

use super::claims::{Claimed, Later};
use super::fan::{enqueue, pump};
use super::flush::{ASK_AGAIN, Flush};
use super::luggage::{put_epoch, put_message, take_epoch, take_message, take_name};
use super::peers::name_parts;
use super::{Away, Shard, TimerKind, ready};
use crate::conn::NONE;
use crate::control::ToControl;
use crate::io::{Outbox, Output};
use crate::ledger::DropReason;

/// So long a stub stays: what is under way for longer was given up by its publisher (`ticket_max` of lanes).
const STUB_FOR: Duration = Duration::from_secs(12);
/// So long a session remembers what it got itself.
pub(super) const REMEMBERS_FOR: Duration = Duration::from_secs(40);
/// Of so much; what it gets then may come twice.
const REMEMBERED_MAX: usize = 65_536;
/// After so long without an answer a letter is sent again.
const RETRY: Duration = Duration::from_millis(500);
/// Most of a letter.
const LETTER_MESSAGES: usize = 512;
const LETTER_BYTES: usize = 1 << 20;

/// The same of a session that stands beside one at a node that is down, for as long as it lives.
const REMEMBERED_BESIDE: usize = 4_096;
/// Of a message that has no name among the nodes.
pub(crate) const NO_GUID: Guid = Guid([0; 16]);

/// In the number of a letter, above its place among those of one start.
const STARTS: u32 = 32;
/// In a letter: another one follows; it is of the same session.
const MORE: u8 = 1;
const GIVEN: u8 = 2;

const LETTER: u8 = 1;
const RECEIPT: u8 = 2;
pub(super) const FLUSH: u8 = 3;

/// A session that was left behind.
#[derive(Debug)]
pub(super) struct Stub {
    pub(super) client: Client,
    to: NodeId,
    /// The grant by which it went.
    pub(super) epoch: Epoch,
    /// The session there is this one; else another one of its client that stays.
    given: bool,
    until: Instant,
    /// Of the last letter: from [`STARTS`] on the start of this node.
    number: u64,
    /// What of it is not answered: the letter, and the places of its messages in the order.
    open: Option<(Bytes, Vec<u64>)>,
    polls: u32,
    /// None when the first letter can leave.
    pub(super) flush: Option<Flush>,
}

impl Stub {
    pub(super) fn to(&self) -> NodeId {
        self.to
    }

    /// Whether it has written no letter in this start.
    fn is_new(&self) -> bool {
        self.number << STARTS == 0
    }
}

/// What a session knows of the one that it was made of.
#[derive(Debug)]
pub(super) struct Origin {
    /// The grant by which it came, and the node that it came from.
    epoch: Epoch,
    from: Option<NodeId>,
    /// From this place in the order on everything came here.
    pub(super) base: u64,
    pub(super) until: Instant,
    /// What came here, to a place where the session was before, or was handed on. Several stubs may hand on the same.
    seen: Names,
    /// Names of what has come here, by its place in the order, until the client is in.
    places: BTreeMap<u64, Guid>,
    /// The client is let in when a letter has come.
    pub(super) waits: Option<ConnId>,
    /// It is in.
    pub(super) entered: bool,
    /// A letter has come, or nobody waits for one any more.
    pub(super) came: bool,
}

/// Names of messages, of which the oldest are forgotten.
#[derive(Debug)]
struct Names {
    most: usize,
    known: BTreeSet<Guid>,
    in_order: VecDeque<Guid>,
}

impl Names {
    fn new(most: usize) -> Names {
        Names { most, known: BTreeSet::new(), in_order: VecDeque::new() }
    }

    /// Whether it was not known.
    fn add(&mut self, guid: Guid) -> bool {
        if !self.known.insert(guid) {
            return false;
        }
        if self.in_order.len() >= self.most
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.in_order.push_back(guid);
        true
    }
}

impl Origin {
    /// `seen` are names that have come with the session, the oldest first.
    pub(super) fn new((epoch, from): (Epoch, NodeId), base: u64, until: Instant, names: Vec<Guid>) -> Origin {
        let (mut seen, places) = (Names::new(REMEMBERED_MAX), BTreeMap::new());
        for name in names {
            seen.add(name);
        }
        Origin { epoch, from: Some(from), base, until, seen, places, waits: None, entered: false, came: false }
    }
}

impl Origin {
    /// Of a session that has come from a node some time ago, and is told so again.
    fn again((epoch, from): (Epoch, NodeId), until: Instant) -> Origin {
        let origin = Origin::new((epoch, from), 0, until, Vec::new());
        Origin { entered: true, came: true, ..origin }
    }

    /// Of a session that stands beside one at a node that is down: when that is back it hands on what it has, of which some may
    /// have come here, too.
    fn beside(epoch: Epoch) -> Origin {
        let (seen, places) = (Names::new(REMEMBERED_BESIDE), BTreeMap::new());
        Origin {
            epoch,
            from: None,
            base: 0,
            until: Instant::NEVER,
            seen,
            places,
            waits: None,
            entered: true,
            came: true,
        }
    }

    /// The client is in.
    pub(super) fn enters(&mut self) {
        self.entered = true;
        self.places.clear();
    }
}

impl Claimed {
    /// Names of what the session has got and may get again, the oldest first: a stub elsewhere had it as well, or will.
    pub(super) fn names(&self, now: Instant) -> Vec<Guid> {
        let origin = self.origin.as_ref().filter(|origin| origin.until > now && !planted!(NamesLeft));
        origin.into_iter().flat_map(|origin| &origin.seen.in_order).copied().collect()
    }

    /// A message comes to the session, which is about to get this place in its order. Whether it has come before; a copy of a group
    /// has not: only one member gets it, beside what the session gets by its other subscriptions.
    /// `reunited`: some node is reached again since not long ago.
    pub(super) fn comes(&mut self, now: Instant, (guid, shared): (Guid, bool), dseq: u64, reunited: bool) -> bool {
        if guid == NO_GUID {
            return false;
        }
        let shared = shared && !planted!(GroupCopyTaken);
        if let Some(origin) = self.origin.as_mut().filter(|origin| origin.until > now) {
            if !shared && !origin.seen.add(guid) && !planted!(LateTwice) {
                return true;
            }
            if !origin.entered && origin.places.len() < REMEMBERED_MAX {
                origin.places.insert(dseq, guid);
            }
        }
        self.note_late(guid, dseq, reunited);
        false
    }

    /// A message is not for the session when a node that it was at hands it on: it is its client's own one, or was given out with
    /// QoS 0.
    pub(super) fn keeps_from(&mut self, now: Instant, guid: Guid) {
        if let Some(origin) = self.origin.as_mut().filter(|origin| origin.until > now && guid != NO_GUID)
            && !planted!(HandedOnToItself)
        {
            origin.seen.add(guid);
        }
    }

    /// What the client has elsewhere, too, is told by its name when it is handed on. One that has another session there is not
    /// known for it at once.
    fn note_late(&mut self, guid: Guid, dseq: u64, reunited: bool) {
        if !(self.given.is_some() || self.stub.is_some() || reunited) {
            self.late.clear();
        } else if self.late.len() < REMEMBERED_MAX {
            self.late.insert(dseq, guid);
        }
    }

    /// The same of what another node hands on.
    fn is_handed(&mut self, now: Instant, guid: Guid) -> bool {
        let Some(origin) = self.origin.as_mut().filter(|origin| origin.until > now && guid != NO_GUID) else {
            return false;
        };
        !origin.seen.add(guid) && !planted!(LateTwice)
    }
}

impl Shard {
    /// The session has lost its client to one at another node: what it got since that left, or what was never sent, goes there.
    pub(super) fn become_stub(&mut self, now: Instant, key: u32, to: NodeId, out: &mut Outbox) {
        self.stop_waiting(key);
        self.awaits_no_start(key);
        if !planted!(DroppedWillKept) {
            self.change_kept_will(key, None, out);
        }
        let client: Client = self.slot(key).session.client().as_str().into();
        let claimed = self.claimed(key);
        let (epoch, given) = (claimed.epoch, claimed.given);
        claimed.kept_until = Instant::START;
        self.keep_deliveries(key, |delivery| match given {
            Some((_, upto)) => delivery.dseq >= upto,
            None => !delivery.sent,
        });
        self.clients.remove(&client, key);
        let until = now + STUB_FOR;
        let flush = self.begin_flush(now);
        self.claims_of.flushing.insert(flush.token, key);
        let (given, flush, number) = (given.is_some(), Some(flush), self.letters_from());
        let stub = Stub { client: client.clone(), to, epoch, given, until, number, open: None, polls: 0, flush };
        self.claimed(key).stub = Some(Box::new(stub));
        self.unsubscribe_stub(key, true);
        self.claims_of.stubs.insert((client.clone(), key));
        if !planted!(GoneForgotten) {
            self.note(key, |session| Record::Gone { session, to: to.0 });
        }
        // Before it is stored a start would find a session here, and there may be none of its client elsewhere any more.
        self.tell_later(Later::Directory(directory_ended(&client, epoch)), 0, out);
        let wait = self.ask_for_markers(key, out);
        self.look_again(key, |_| Away { expires: now + wait, will: Instant::NEVER });
    }

    /// The number before that of the first letter in this start. What was sent before is told apart by it.
    fn letters_from(&self) -> u64 {
        self.peers.as_ref().map_or(0, |peers| peers.incarnation().0 << STARTS)
    }

    /// A session that had gone before this start: what was stored of it and not handed on leaves.
    pub(super) fn restore_stub(&mut self, now: Instant, key: u32, to: NodeId) {
        let client: Client = self.slot(key).session.client().as_str().into();
        self.clients.remove(&client, key);
        let number = self.letters_from();
        let claimed = self.claimed(key);
        let (epoch, given, until) = (claimed.epoch, true, now + STUB_FOR);
        let stub = Stub { client: client.clone(), to, epoch, given, until, number, open: None, polls: 0, flush: None };
        claimed.stub = Some(Box::new(stub));
        self.claims_of.stubs.insert((client, key));
        self.look_again(key, |_| Away { expires: now + ASK_AGAIN, will: Instant::NEVER });
    }

    /// A stub gets nothing any more: of groups at once, for they have the new session as a member, and what is still under way to
    /// this one is given to another.
    fn unsubscribe_stub(&mut self, key: u32, groups_alone: bool) {
        let class = self.class_of_session(key);
        let filters = self.slot(key).session.subscriptions().iter().map(|(filter, _)| filter.clone());
        let over = |filter: &OwnedTopicFilter| !groups_alone || filter.as_filter().share_group().is_some();
        let over: Vec<_> = filters.filter(over).collect();
        for filter in over.iter().filter(|_| !planted!(StubStaysMember)) {
            let filter = filter.as_filter();
            self.remove_subscription(filter, key, class);
            let op = Op::Unsubscribe { filter };
            self.note_op(key, &op);
            let zone = usize::from(self.slot(key).zone);
            let limits = self.config.zones[zone].session;
            self.slot(key).session.apply(op, &limits);
        }
    }

    /// A session begins beside one at a node that is down.
    pub(super) fn remember_names(&mut self, key: u32, epoch: Epoch) {
        if !planted!(HandedOnTwice) {
            self.claimed(key).origin = Some(Box::new(Origin::beside(epoch)));
        }
    }

    /// Sends what there is, or again what was not answered; or ends it.
    pub(super) fn work_stub(&mut self, now: Instant, key: u32, out: &mut Outbox) {
        let has_more = self.slot(key).session.queue_len() + self.slot(key).session.inflight_len() > 0;
        if !self.is_flushed(now, key, out) {
            return self.look_again(key, |_| Away { expires: now + ASK_AGAIN, will: Instant::NEVER });
        }
        let Some(stub) = self.claimed(key).stub.as_mut() else { return };
        if stub.until <= now {
            // What it has not handed on yet, as to a node that is down, is all.
            self.unsubscribe_stub(key, false);
        }
        let Some(stub) = self.claimed(key).stub.as_mut() else { return };
        stub.polls += 1;
        let is_first = stub.is_new();
        let is_open = stub.open.is_some();
        if !is_open && !has_more && stub.until <= now {
            let client = stub.client.clone();
            self.claims_of.stubs.remove(&(client, key));
            return self.drop_session(key, out);
        }
        if !is_open && (is_first || has_more) {
            self.write_letter(now, key);
        }
        let slot = self.slot(key);
        let Some(stub) = slot.claimed.as_ref().and_then(|claimed| claimed.stub.as_ref()) else { return };
        let mut wait = Duration::from_millis(20 << stub.polls.min(6));
        if let Some((letter, _)) = stub.open.as_ref().filter(|_| !planted!(LateForgotten)) {
            out.push(Output::Control(ToControl::Handover { to: stub.to, message: letter.clone() }));
            wait = RETRY;
        }
        let due = now + wait;
        if let Some(old) = slot.away.replace(Box::new(Away { expires: due, will: Instant::NEVER })) {
            self.timers.cancel(old.deadline(), TimerKind::Session(key));
        }
        self.timers.arm(due, TimerKind::Session(key));
    }

    fn write_letter(&mut self, now: Instant, key: u32) {
        let zone = usize::from(self.slot(key).zone);
        let zone = self.config.zones[zone].name.clone();
        let slot = self.slot(key);
        let (snapshot, messages) = slot.session.whole(&zone);
        let mut body = Vec::new();
        let mut places = Vec::new();
        let all = snapshot.deliveries.len();
        for (delivery, message) in snapshot.deliveries.into_iter().zip(messages) {
            if places.len() >= LETTER_MESSAGES || body.len() >= LETTER_BYTES {
                break;
            }
            places.push(delivery.dseq);
            let guid = slot.claimed.as_ref().and_then(|claimed| claimed.late.get(&delivery.dseq)).copied();
            body.extend_from_slice(&guid.unwrap_or(NO_GUID).0);
            let mut record = Vec::new();
            Record::Enqueue { session: SessionId(0), delivery }.encode(&mut record);
            Put(&mut body).bytes(&record);
            put_message(&mut body, now, message);
        }
        let Some(stub) = slot.claimed.as_mut().and_then(|claimed| claimed.stub.as_mut()) else { return };
        stub.number += 1;
        let mut letter = head(&stub.client, LETTER, stub.epoch, stub.number);
        let flags = if places.len() < all { MORE } else { 0 } | if stub.given { GIVEN } else { 0 };
        Put(&mut letter).byte(flags).number(places.len() as u64);
        letter.extend_from_slice(&body);
        stub.open = Some((letter.into(), places));
        stub.polls = 0;
    }

    /// Another node's shard has something to say of a client.
    pub(crate) fn on_handover(&mut self, now: Instant, from: NodeId, message: &Bytes, out: &mut Outbox) {
        let mut take = Take(message);
        let mut read = || {
            let client: Client = take.text()?.into();
            Ok::<_, newtmq_base::InvalidField>((client, take.byte()?, take_epoch(&mut take)?, take.number()?))
        };
        let Ok((client, kind, epoch, number)) = read() else { return };
        match kind {
            LETTER => self.on_letter(now, from, (client, epoch, number), take, out),
            RECEIPT => self.on_receipt(now, from, (&client, epoch, number), out),
            FLUSH => {
                if let Ok(shard) = take.number() {
                    self.on_flush(now, from, (number, shard), out);
                }
            }
            _ => {}
        }
    }

    /// What is left of a client's sessions that have gone.
    fn stubs_of(&self, client: &Client) -> Vec<u32> {
        let all = (client.clone(), 0)..=(client.clone(), u32::MAX);
        self.claims_of.stubs.range(all).map(|(_, key)| *key).collect()
    }

    /// What a letter had is stored where it went.
    fn on_receipt(&mut self, now: Instant, from: NodeId, of: (&Client, Epoch, u64), out: &mut Outbox) {
        let (client, epoch, number) = of;
        for key in self.stubs_of(client) {
            let Some(stub) = self.claimed(key).stub.as_mut() else { continue };
            if (stub.to, stub.epoch, stub.number) != (from, epoch, number) {
                continue;
            }
            let Some((_, places)) = stub.open.take() else { continue };
            for dseq in &places {
                self.note(key, |session| Record::Drop { session, dseq: *dseq });
            }
            self.keep_deliveries(key, |delivery| !places.contains(&delivery.dseq));
            self.work_stub(now, key, out);
        }
    }

    /// What was left of a session has come.
    fn on_letter(
        &mut self,
        now: Instant,
        from: NodeId,
        (client, epoch, number): (Client, Epoch, u64),
        mut take: Take<'_>,
        out: &mut Outbox,
    ) {
        let Ok(flags) = take.byte() else { return };
        // One that has gone on hands it on.
        let stub = || self.stubs_of(&client).first().copied();
        let key = self.find_session(&client).or_else(stub);
        let receipt = ToControl::Handover { to: from, message: head(&client, RECEIPT, epoch, number).into() };
        let Some(key) = key else {
            // It has ended.
            return out.push(Output::Control(receipt));
        };
        let claimed = self.claimed(key);
        // After a start it does not know where it has come from, and that the same may come both ways again.
        if flags & GIVEN > 0 && claimed.origin.as_ref().is_none_or(|of| of.until <= now) && !planted!(OriginForgotten) {
            claimed.origin = Some(Box::new(Origin::again((epoch, from), now + REMEMBERS_FOR)));
        }
        let known = claimed.letters.get(&(from, epoch)).copied().unwrap_or(0);
        let is_next = number == known + 1;
        // A start of its node begins again.
        let is_anew = number >> STARTS > known >> STARTS && number << STARTS == 1 << STARTS;
        if is_next || is_anew {
            let Ok(letters) = read_letter(&mut take) else { return };
            if claimed.letters.len() >= LETTER_WRITERS_MAX {
                claimed.letters.pop_first();
            }
            claimed.letters.insert((from, epoch), number);
            self.note(key, |session| Record::Letter {
                session,
                node: from.0,
                epoch: super::luggage::parts_of(epoch),
                number,
            });
            self.take_letter(now, key, (from, epoch), flags & GIVEN > 0, letters, out);
        } else if number > known {
            return;
        }
        self.tell_later(Later::Control(receipt), 0, out);
        // One of an earlier stay says nothing of this one.
        if flags & MORE == 0 && self.claimed(key).origin.as_ref().is_some_and(|origin| origin.epoch == epoch) {
            self.letter_came(now, key, out);
        }
    }

    /// What was left of a session at the node where it was has come, or nobody waits for that any more.
    pub(super) fn letter_came(&mut self, now: Instant, key: u32, out: &mut Outbox) {
        let claimed = self.claimed(key);
        let epoch = claimed.epoch;
        let waits = claimed.origin.as_mut().and_then(|origin| {
            origin.came = true;
            origin.waits.take()
        });
        if let Some(conn) = waits {
            self.enter(now, conn, epoch, out);
        }
        self.give_deferred(now, key, out);
    }

    fn take_letter(
        &mut self,
        now: Instant,
        key: u32,
        by: (NodeId, Epoch),
        given: bool,
        letters: Vec<Letter>,
        out: &mut Outbox,
    ) {
        let mut late = Vec::new();
        // Of another session of the client comes what was for that one, whatever this one is subscribed to.
        // Either node may have started since, and has forgotten where it went, or came from.
        let is_same = |origin: &Origin| origin.from == Some(by.0) || origin.epoch == by.1;
        let is_same = given && !planted!(GivenForgotten) || self.claimed(key).origin.as_deref().is_some_and(is_same);
        for (guid, mut delivery, left, message) in letters {
            if !delivery.shared && self.claimed(key).is_handed(now, guid) {
                continue;
            }
            // Since it left, its client may have changed its subscriptions here.
            if is_same && !self.fits(key, guid, &message, &mut delivery) && !planted!(HandedOnUnmatched) {
                continue;
            }
            // It may have been in flight there, which comes before all that waits.
            delivery.priority = self.priority_of(key, &message);
            late.extend(self.own_message(now, &message, left).map(|message| (guid, delivery, message)));
        }
        let base = self.claimed(key).origin.as_ref().filter(|origin| !origin.entered).map(|origin| origin.base);
        let next = self.slot(key).session.next_dseq();
        match base {
            Some(base) if base < next && !late.is_empty() && !planted!(LateBehind) => self.insert_late(key, base, late),
            Some(_) | None => self.append_late(now, key, late, out),
        }
    }

    /// Whether a message that is handed on is for the session as it is subscribed now, and with what. With QoS 0 it came by itself, or
    /// is lost; one that was published so has no name.
    fn fits(&mut self, key: u32, guid: Guid, message: &Message, delivery: &mut DeliveryRecord) -> bool {
        let Shard { sessions, config, .. } = self;
        let (Some(slot), Ok(topic)) = (sessions.get_mut(key), TopicName::new(message.topic_str())) else {
            return false;
        };
        if message.qos() == QoS::AtMostOnce {
            return false;
        }
        let subscriptions = slot.session.subscriptions().iter();
        let matching = subscriptions.filter(|(filter, _)| {
            let filter = filter.as_filter();
            filter.share_group().is_some() == delivery.shared && filter.matches(topic)
        });
        let matching: Vec<&SubscriptionEntry> = matching.map(|(_, entry)| entry).collect();
        let Some(granted) = matching.iter().map(|entry| entry.options.qos).max() else {
            // What a member of a group has got is not given to another one any more.
            return delivery.shared;
        };
        let upgrade = config.zones[usize::from(slot.zone)].upgrade_qos;
        let qos = if upgrade { granted } else { granted.min(message.qos()) };
        if guid == NO_GUID && (delivery.retain || planted!(NamelessAsItWas)) {
            // It may be a copy of a retained message, for one of the subscriptions. Others have lost their names by a start.
            delivery.qos = delivery.qos.min(qos);
            return delivery.qos > QoS::AtMostOnce;
        }
        delivery.qos = qos;
        if !delivery.shared {
            let identifiers: Vec<u32> = matching.iter().filter_map(|entry| Some(entry.identifier?.get())).collect();
            delivery.identifiers = Identifiers::from_slice(&identifiers);
            delivery.retain = message.retain() && matching.iter().any(|entry| entry.options.retain_as_published);
        }
        delivery.qos > QoS::AtMostOnce
    }

    /// Behind what there is.
    fn append_late(&mut self, now: Instant, key: u32, late: Vec<Late>, out: &mut Outbox) {
        self.ledger.matched += late.len() as u64;
        let reunited = now < self.claims_of.reunited_until;
        let Shard { sessions, conns, ledger, pool, journal, config, .. } = self;
        let Some(slot) = sessions.get_mut(key) else { return };
        let zone = &config.zones[usize::from(slot.zone)];
        for (guid, delivery, message) in late {
            if let Some(claimed) = &mut slot.claimed {
                claimed.note_late(guid, slot.session.next_dseq(), reunited);
            }
            let DeliveryRecord { qos, retain, shared, identifiers, priority, .. } = delivery;
            let op = Op::Enqueue { message, qos, retain, identifiers, priority, shared };
            let stored = slot.stored.map(|id| (id, zone.durability, &mut *journal));
            if let newtmq_session::Applied::Dropped(dropped) = enqueue(slot, op, &zone.session, stored) {
                ledger.drop(DropReason::QueueFull, u64::from(dropped.full));
            }
        }
        if slot.conn != NONE
            && let Some(Some(c)) = conns.get_mut(slot.conn as usize)
        {
            let conn = slot.conn;
            pump(now, slot, c, ledger, pool, journal, &zone.session);
            if !c.out.is_empty() {
                ready(now, c, conn, out);
            }
        }
    }

    /// Among what has come here since, as far as that is later messages of the same shards before these: so each publisher's keep
    /// their order. Nothing of either was sent yet.
    fn insert_late(&mut self, key: u32, base: u64, late: Vec<Late>) {
        self.ledger.matched += late.len() as u64;
        let (mut snapshot, mut messages) = self.whole_of(key);
        // QoS 0 that waits is not among them.
        let session = &self.slot(key).session;
        let left = session.queue_len() + session.inflight_len() - snapshot.deliveries.len();
        if !planted!(LateForgetsQos0) {
            self.ledger.drop(DropReason::OfflineQos0, left as u64);
        }
        let Some(origin) = &mut self.claimed(key).origin else { return };
        let places = core::mem::take(&mut origin.places);
        let (before, since): (Vec<_>, Vec<_>) = snapshot.deliveries.into_iter().partition(|of| of.dseq < base);
        let mut since: Vec<(Guid, DeliveryRecord)> = since
            .into_iter()
            .map(|delivery| (places.get(&delivery.dseq).copied().unwrap_or(NO_GUID), delivery))
            .collect();
        for (_, delivery) in &mut since {
            let message = usize::try_from(delivery.message.0).ok().and_then(|id| messages.get(id.checked_sub(1)?));
            if let Some(message) = message {
                delivery.priority = self.priority_of(key, message);
            }
        }
        since.sort_by_key(|(_, delivery)| delivery.dseq);
        // What has no name was before all that has come here.
        let mut nameless = since.iter().take_while(|(guid, _)| *guid == NO_GUID).count();
        for (guid, mut delivery, message) in late {
            messages.push(message);
            delivery.message = MessageId(messages.len() as u64);
            (delivery.sent, delivery.released) = (false, false);
            let later = || since.iter().position(|(other, _)| is_later(*other, guid)).unwrap_or(since.len());
            let at = if guid == NO_GUID { nameless } else { later() };
            nameless += usize::from(guid == NO_GUID);
            since.insert(at, (guid, delivery));
        }
        for (place, (_, delivery)) in since.iter_mut().enumerate() {
            delivery.dseq = base + place as u64;
        }
        snapshot.next_dseq = base + since.len() as u64;
        origin_places(self.claimed(key), &since);
        snapshot.deliveries = before.into_iter().chain(since.into_iter().map(|(_, delivery)| delivery)).collect();
        self.rebuild(key, &snapshot, &messages);
        let Shard { sessions, journal, config, .. } = self;
        let Some(slot) = sessions.get_mut(key) else { return };
        if let Some(session) = slot.stored {
            let detached = journal.time();
            journal.record_whole(slot, session, &config.zones[usize::from(slot.zone)], Some(detached));
        }
    }

    /// Keeps of what waits and is in flight what is as asked.
    fn keep_deliveries(&mut self, key: u32, keep: impl Fn(&DeliveryRecord) -> bool) {
        let (mut snapshot, messages) = self.whole_of(key);
        let before = snapshot.deliveries.len();
        snapshot.deliveries.retain(keep);
        // Nothing of it is in flight at a connection any more.
        for delivery in &mut snapshot.deliveries {
            (delivery.sent, delivery.released) = (false, false);
        }
        let mut session = self.slot(key).session.queue_len() + self.slot(key).session.inflight_len();
        session -= before;
        // Those of QoS 0 go with the others.
        self.ledger.matched -= (before - snapshot.deliveries.len() + session) as u64;
        self.rebuild(key, &snapshot, &messages);
    }

    fn whole_of(&mut self, key: u32) -> (SnapshotRecord, Vec<Message>) {
        let Shard { sessions, config, .. } = self;
        let slot = sessions.get_mut(key).expect("the caller has found it");
        let (snapshot, messages) = slot.session.whole(&config.zones[usize::from(slot.zone)].name);
        (snapshot, messages.into_iter().cloned().collect())
    }

    /// With which priority a message waits here, whatever it had where it comes from.
    fn priority_of(&self, key: u32, message: &Message) -> u8 {
        let zone = self.sessions.get(key).map_or(0, |slot| usize::from(slot.zone));
        self.config.zones[zone].priority(message.topic())
    }

    fn rebuild(&mut self, key: u32, snapshot: &SnapshotRecord, messages: &[Message]) {
        let zone = &self.config.zones[usize::from(self.sessions.get(key).map_or(0, |slot| slot.zone))];
        let find = |id: MessageId| messages.get(usize::try_from(id.0).ok()?.checked_sub(1)?).cloned();
        let restoring = Restoring::from_snapshot(snapshot, Arc::from(&*zone.name), 0, &find);
        let Some((restoring, _)) = restoring else { return };
        let restored = restoring.finish(&zone.session);
        self.ledger.drop(DropReason::QueueFull, restored.given_up.len() as u64);
        self.slot(key).session = restored.session;
    }
}

/// A message's name, its delivery, what is left of its expiry, and the message.
type Letter = (Guid, DeliveryRecord, Option<u64>, Message);
/// The same, by a name of this node.
type Late = (Guid, DeliveryRecord, Message);

pub(super) fn head(client: &str, kind: u8, epoch: Epoch, number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    Put(&mut bytes).text(client).byte(kind);
    put_epoch(&mut bytes, epoch);
    Put(&mut bytes).number(number);
    bytes
}

fn read_letter(take: &mut Take<'_>) -> Result<Vec<Letter>, newtmq_base::InvalidField> {
    let mut letters = Vec::new();
    for _ in 0..take.count()? {
        let guid = take_name(take)?;
        let Ok(Record::Enqueue { delivery, .. }) = Record::decode(take.bytes()?) else {
            return Err(newtmq_base::InvalidField("no delivery"));
        };
        let (left, message) = take_message(take)?;
        letters.push((guid, delivery, left, message));
    }
    take.end()?;
    Ok(letters)
}

/// Where in the order what has come here is now.
fn origin_places(claimed: &mut Claimed, since: &[(Guid, DeliveryRecord)]) {
    if let Some(origin) = &mut claimed.origin {
        origin.places = since.iter().map(|(guid, delivery)| (delivery.dseq, *guid)).collect();
    }
}

/// Whether a message is of the same shard as another one, and later.
fn is_later(one: Guid, other: Guid) -> bool {
    let (one, other) = (name_parts(one), name_parts(other));
    one.0 == other.0 && one.1 > other.1
}

fn directory_ended(client: &Client, epoch: Epoch) -> newtmq_cluster::directory::Input {
    newtmq_cluster::directory::Input::Ended { client: client.clone(), epoch }
}

/// Of so many stubs a session knows what has come.
const LETTER_WRITERS_MAX: usize = 16;
