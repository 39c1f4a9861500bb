//! What is left of a session that has gone to another node: a stub, without a client and a name. It gets what comes by routes that are
//! not everywhere replaced yet, and by lanes on which it was under way, and hands it on in letters. Before the first it asks all
//! shards of all nodes to put a marker behind what they have sent to it.

use core::time::Duration;

use bytes::Bytes;
use newtmq_base::{Instant, NodeId, Put, planted};
use newtmq_cluster::directory::{Client, Input};
use newtmq_cluster::lane::Epoch;
use newtmq_mqtt::OwnedTopicFilter;
use newtmq_session::{DeliveryRecord, Op, Record, SessionId};

use super::claims::Later;
use super::flush::{ASK_AGAIN, Flush};
use super::late::NO_GUID;
use super::letter::{self, GIVEN, LETTER, MORE};
use super::luggage::put_message;
use super::{Away, Shard, TimerKind};
use crate::control::ToControl;
use crate::io::{Outbox, Output};

/// So long a stub stays: what is under way for longer was given up by its publisher (`ticket_max` of lanes).
const STUB_FOR: Duration = Duration::from_secs(12);
/// After so long without an answer a letter is sent again.
const RETRY: Duration = Duration::from_millis(500);
/// Most of a letter.
const LETTER_MESSAGES: usize = 512;
const LETTER_BYTES: usize = 1 << 20;

/// A session that was left behind.
#[derive(Debug)]
pub(super) struct Stub {
    pub(super) client: Client,
    pub(super) to: NodeId,
    /// The grant by which it went.
    pub(super) epoch: Epoch,
    /// The session there is this one; else another one of its client that stays.
    given: bool,
    until: Instant,
    /// Of the last letter.
    number: u64,
    /// What of it is not answered: the letter, and the places of its messages in the order.
    open: Option<(Bytes, Vec<u64>)>,
    polls: u32,
    /// None when the first letter can leave.
    pub(super) flush: Option<Flush>,
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
            None => !delivery.sent && !planted!(UnsentLeft),
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
        self.tell_later(Later::Directory(Input::Ended { client: client.clone(), epoch }), 0, out);
        let wait = self.ask_for_markers(key, out);
        self.look_again(key, |_| Away { expires: now + wait, will: Instant::NEVER });
    }

    /// The number before that of the first letter in this start. What was sent before is told apart by it.
    fn letters_from(&self) -> u64 {
        self.peers.as_ref().map_or(0, |peers| letter::before_first(peers.incarnation()))
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

    /// Sends what there is, or again what was not answered; or ends it.
    pub(super) fn work_stub(&mut self, now: Instant, key: u32, out: &mut Outbox) {
        let has_more = self.slot(key).session.queue_len() + self.slot(key).session.inflight_len() > 0;
        if !self.is_flushed(now, key, out) {
            return self.look_again(key, |_| Away { expires: now + ASK_AGAIN, will: Instant::NEVER });
        }
        let Some(stub) = self.claimed(key).stub.as_mut() else { return };
        stub.polls += 1;
        let (is_first, is_open) = (letter::is_before_first(stub.number), stub.open.is_some());
        if stub.until <= now {
            let client = stub.client.clone();
            if !is_open && !has_more {
                self.claims_of.stubs.remove(&(client, key));
                return self.drop_session(key, out);
            }
            // What it has not handed on yet, as to a node that is down, is all.
            self.unsubscribe_stub(key, false);
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
        let mut bytes = letter::head(&stub.client, LETTER, stub.epoch, stub.number);
        let flags = if places.len() < all { MORE } else { 0 } | if stub.given { GIVEN } else { 0 };
        Put(&mut bytes).byte(flags).number(places.len() as u64);
        bytes.extend_from_slice(&body);
        stub.open = Some((bytes.into(), places));
        stub.polls = 0;
    }

    /// What is left of a client's sessions that have gone.
    pub(super) fn stubs_of(&self, client: &Client) -> Vec<u32> {
        let all = (client.clone(), 0)..=(client.clone(), u32::MAX);
        self.claims_of.stubs.range(all).map(|(_, key)| *key).collect()
    }

    /// What a letter had is stored where it went.
    pub(super) fn on_receipt(&mut self, now: Instant, from: NodeId, of: (&Client, Epoch, u64), out: &mut Outbox) {
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
}
