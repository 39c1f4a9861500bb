//! What outlives the process: records of what changes, and promises that wait until it is stored (docs/adr/0007).
//!
//! The records of one call are one batch. Whoever is told of something that must survive gets a barrier into its output, and
//! is told when everything before it is stored here and, for what went to other shards, there. Promises are numbered and
//! kept in order, so that one number says what a barrier waits for.

use core::time::Duration;
use std::collections::{BTreeSet, VecDeque};

use newtmq_base::{ConnId, Instant, ShardId, planted};
use newtmq_mqtt::ReasonCode;
use newtmq_session::{Message, MessageId, Record, SessionId};

use super::{Shard, ready};
use crate::config::ShardConfig;
use crate::conn::{Conn, Phase};
use crate::io::{Boot, Outbox, Output};
use crate::place::{PlaceMessage, SHARDS_MAX};
use crate::store::{Batch, Durability, Joint, StoreState};

/// The node's time is stored when it has gone on by this much since the last time.
const TIME_STEP: Duration = Duration::from_secs(1);
/// It is stored by itself when nothing else was for so long: how much longer something may live after a restart.
const TIME_MAX: Duration = crate::replay::TIME_BEHIND_MAX;

/// In the name of a promise: what goes along is stored with it or not at all.
pub(super) const JOINT: u64 = 1 << 63;

/// What waits for the store.
#[derive(Debug)]
pub(crate) struct Journal {
    /// Something of this shard may have to be stored.
    on: bool,
    /// This call has promised something, or has worked something off that was promised.
    touched: bool,
    /// The most that any zone asks for.
    durability: Durability,
    state: StoreState,
    batch: Batch,
    /// Batches that were given to the store, and those that it has stored.
    given: u64,
    stored: u64,
    /// Not kept yet, oldest first.
    promises: VecDeque<Promise>,
    /// Number of the newest promise, and up to which all are kept.
    newest: u64,
    kept: u64,
    /// The newest promise is of this call.
    open: bool,
    /// What is being done is stored whole or not at all, with what other shards and later calls have to do for it.
    pub(super) whole: bool,
    /// How many parts of this call's joint write others have.
    parts_elsewhere: u32,
    /// Connections whose output has a barrier, in order of their promises.
    blocked: VecDeque<(u64, ConnId)>,
    /// By shard.
    lanes: Vec<Confirmations>,
    /// Messages for groups that other shards have promised, each with the batch that keeps it.
    owed_groups: VecDeque<(u64, ShardId, u64)>,
    /// The segment that is being written, as far as is known.
    pub(super) segment: u64,
    /// High half of the numbers of sessions and messages: node start and shard.
    prefix: u64,
    next: u64,
    /// The last time that was stored.
    time: Instant,
    /// A message of this call expires: the time is stored with it, or it would live longer than it was to.
    expiring: bool,
}

/// What a batch, and other shards, must have done.
#[derive(Debug)]
struct Promise {
    batch: u64,
    /// Confirmations of other shards that are missing.
    elsewhere: u32,
}

/// Between this shard and another one. Both count the promises that the lane carries, each message for itself.
#[derive(Debug, Default)]
struct Confirmations {
    /// Promises of this shard that wait for the other one, in the order that the lane carries them.
    awaited: VecDeque<u64>,
    /// How many the other one has confirmed.
    confirmed: u64,
    /// How many promises of the other shard were worked off here.
    worked: u64,
    /// So many are kept when this shard has stored the batch before it.
    owed: VecDeque<(u64, u64)>,
    /// Some were worked off in this call.
    more: bool,
}

/// The shard that has given a number to something of the log.
pub(crate) fn numbered_by(number: u64) -> u16 {
    (number >> 41) as u16 & (SHARDS_MAX - 1)
}

impl Journal {
    pub(crate) fn new(config: &ShardConfig, boot: &Boot) -> Journal {
        let on = config.zones.iter().any(|zone| zone.durability != Durability::Memory);
        // 2^16 starts, 2^7 shards and 2^41 numbers: what is left of an earlier start is written anew long before.
        let prefix = (boot.incarnation.0 & 0xFFFF) << 48 | u64::from(boot.shard.0) << 41;
        let durability = config.zones.iter().map(|zone| zone.durability).max().unwrap_or_default();
        Journal {
            on,
            touched: false,
            durability,
            state: StoreState::Open,
            batch: Batch::default(),
            given: 0,
            stored: 0,
            promises: VecDeque::new(),
            newest: 0,
            kept: 0,
            open: false,
            whole: false,
            parts_elsewhere: 0,
            blocked: VecDeque::new(),
            lanes: (0..boot.shards).map(|_| Confirmations::default()).collect(),
            owed_groups: VecDeque::new(),
            segment: 0,
            prefix,
            next: 1,
            time: boot.now,
            expiring: false,
        }
    }

    /// Whether anything is stored at all.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    pub(crate) fn state(&self) -> StoreState {
        self.state
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.prefix | self.next
    }

    /// Records of this call so far.
    pub(crate) fn records(&self) -> usize {
        self.batch.len()
    }

    /// Number of the batch with which all that was recorded so far is stored.
    pub(crate) fn batch_so_far(&self) -> u64 {
        self.given + u64::from(!self.batch.is_empty())
    }

    /// Number of the batch that holds what this call has recorded.
    pub(crate) fn batch_of_call(&self) -> u64 {
        self.given + 1
    }

    /// All batches up to this one are stored.
    pub(crate) fn stored(&self) -> u64 {
        self.stored
    }

    /// Whether everything that was recorded is stored.
    pub(crate) fn is_stored(&self) -> bool {
        self.batch.is_empty() && self.stored == self.given
    }

    /// A name for a message that may have to be stored.
    #[inline]
    pub(crate) fn message_id(&mut self) -> MessageId {
        if self.on { MessageId(self.number()) } else { MessageId::NONE }
    }

    /// Whether a session has its number from this start of the node, and this shard.
    pub(crate) fn has_named(&self, session: SessionId) -> bool {
        session.0 >> 41 == self.prefix >> 41
    }

    pub(crate) fn session_id(&mut self) -> SessionId {
        SessionId(self.number())
    }

    /// Adds a record to the batch of this call. A store that has failed takes none, and nothing is promised any more.
    pub(crate) fn record(&mut self, record: &Record, durability: Durability) {
        if self.state == StoreState::Failed {
            return;
        }
        self.promise();
        self.batch.push(record, durability);
    }

    /// The same for what nobody waits for.
    pub(super) fn record_later(&mut self, record: &Record) {
        self.batch.push(record, Durability::Memory);
    }

    /// The most that any zone asks for.
    pub(super) fn durability(&self) -> Durability {
        self.durability
    }

    /// A delivery has expired. What comes behind it waits until that is stored, or it might come after that.
    pub(super) fn expired(&mut self, session: SessionId, dseq: u64, conn: &mut Conn, slot: u32) {
        self.record(&Record::Drop { session, dseq }, self.durability);
        self.bar(conn, slot);
    }

    /// The same for one that names a message.
    pub(crate) fn record_with(&mut self, record: &Record, message: &Message, durability: Durability) {
        self.name(message);
        self.record(record, durability);
    }

    /// A record of this call expires: the time is stored with it.
    pub(super) fn expires(&mut self) {
        self.expiring = true;
    }

    /// Has the batch hold a message that a record of it names.
    pub(super) fn name(&mut self, message: &Message) {
        assert!(message.id() != MessageId::NONE, "what is stored has a name");
        self.expiring |= message.expires() != Instant::NEVER;
        if self.batch.messages.last().is_none_or(|last| last.id() != message.id()) {
            self.batch.messages.push(message.clone());
        }
    }

    /// The promise of this call.
    fn promise(&mut self) -> &mut Promise {
        if !self.open {
            (self.open, self.touched) = (true, true);
            self.newest += 1;
            self.promises.push_back(Promise { batch: self.given, elsewhere: 0 });
        }
        self.promises.back_mut().expect("pushed when it was opened")
    }

    /// What this call promises waits for another shard, too. The number goes along.
    pub(crate) fn promise_elsewhere(&mut self, to: u16) -> u64 {
        if !self.on || self.state == StoreState::Failed {
            return 0;
        }
        self.wait_for_shard(to)
    }

    /// The same for a message to be retained, also if nothing is stored: who is told that it was accepted may rely on it, and
    /// so may everybody that he tells.
    pub(crate) fn promise_retained(&mut self, to: u16) -> u64 {
        if self.on || planted!(RetainedUnconfirmed) {
            return self.promise_elsewhere(to);
        }
        self.wait_for_shard(to)
    }

    fn wait_for_shard(&mut self, to: u16) -> u64 {
        self.promise().elsewhere += 1;
        self.lanes[usize::from(to)].awaited.push_back(self.newest);
        self.joint_name()
    }

    /// The same for a message that may go from shard to shard.
    pub(crate) fn promise_group(&mut self, own: u16) -> (ShardId, u64) {
        if !self.on || self.state == StoreState::Failed {
            return (ShardId(own), 0);
        }
        self.promise().elsewhere += 1;
        (ShardId(own), self.joint_name())
    }

    /// The newest promise; with a mark if what goes along is a part of its joint write.
    fn joint_name(&mut self) -> u64 {
        if !self.whole {
            return self.newest;
        }
        self.parts_elsewhere += 1;
        self.newest | JOINT
    }

    /// A later call of this shard has a part of what is being done; the name for [`Journal::part_done`].
    pub(crate) fn part_later(&mut self) -> u64 {
        if !self.on || !self.whole {
            return 0;
        }
        self.promise();
        self.joint_name()
    }

    /// This call has done a part of a joint write, if it is the name of one.
    pub(crate) fn part_done(&mut self, shard: u16, name: u64) {
        if name & JOINT != 0 {
            self.batch.parts.push(Joint { shard: ShardId(shard), promise: name & !JOINT });
        }
    }

    /// A message for a group has come to its end here: it was given to a member, or there is none any more.
    pub(crate) fn group_done(&mut self, (shard, promise): (ShardId, u64), own: u16) {
        if promise == 0 {
            return;
        }
        self.part_done(shard.0, promise);
        let promise = promise & !JOINT;
        // The batch of this call, or if it has none, the last one.
        let batch = self.given + u64::from(!self.batch.is_empty());
        if shard.0 == own {
            self.keep_elsewhere(promise, batch);
        } else {
            self.owed_groups.push_back((batch, shard, promise));
        }
    }

    /// One shard less that a promise waits for; this one must have stored `batch`.
    fn keep_elsewhere(&mut self, promise: u64, batch: u64) {
        let first = self.newest + 1 - self.promises.len() as u64;
        let promise = &mut self.promises[(promise - first) as usize];
        promise.elsewhere -= 1;
        promise.batch = promise.batch.max(batch);
    }

    /// Something that another shard has promised was worked off here.
    pub(crate) fn worked_off(&mut self, from: u16, promise: u64) {
        if promise > 0 {
            self.part_done(from, promise);
            let lane = &mut self.lanes[usize::from(from)];
            lane.worked += 1;
            lane.more = true;
            self.touched = true;
        }
    }

    /// Has a connection's output wait for what this call promises, if it promises anything.
    #[inline]
    pub(crate) fn bar_now(&mut self, conn: &mut Conn, slot: u32) {
        if self.open {
            self.bar(conn, slot);
        }
    }

    /// Has a connection's output wait for everything that was promised up to here: for what an earlier call began.
    #[inline]
    pub(crate) fn bar(&mut self, conn: &mut Conn, slot: u32) {
        if self.newest > self.kept && conn.out.bar(self.newest) {
            self.blocked.push_back((self.newest, ConnId { slot, generation: conn.generation }));
        }
    }

    /// The last time that was stored.
    pub(super) fn time(&self) -> Instant {
        self.time
    }

    /// With the batch of this call the shard needs nothing of the segments before this one.
    pub(super) fn needs_from(&mut self, segment: u64) {
        self.batch.needs_from = Some(segment);
        // What is left must tell the time, too.
        self.batch.push(&Record::Time { now: self.time }, Durability::Memory);
    }

    /// Everything up to this promise may be told.
    #[inline]
    pub(crate) fn kept(&self) -> u64 {
        self.kept
    }

    /// Whether nothing waits for the store.
    pub(crate) fn is_idle(&self) -> bool {
        self.promises.is_empty()
            && self.blocked.is_empty()
            && self.batch.is_empty()
            && self.owed_groups.is_empty()
            && self.lanes.iter().all(|lane| lane.awaited.is_empty() && lane.owed.is_empty())
    }
}

impl Shard {
    /// The end of a call: its records go to the store, and other shards hear what is kept already.
    pub(crate) fn send_batch(&mut self, now: Instant, out: &mut Outbox) {
        let journal = &mut self.journal;
        if !core::mem::take(&mut journal.touched) && !journal.on {
            return;
        }
        let open = core::mem::take(&mut journal.open);
        let parts = core::mem::take(&mut journal.parts_elsewhere);
        if parts > 0 {
            journal.batch.joint = Some((Joint { shard: ShardId(self.own), promise: journal.newest }, parts));
        }
        if !journal.batch.is_empty() {
            let expiring = core::mem::take(&mut journal.expiring) && now > journal.time;
            if expiring || now - journal.time >= TIME_STEP {
                journal.time = now;
                journal.batch.push(&Record::Time { now }, Durability::Memory);
            }
            journal.given += 1;
            // The promise of this call was made before its batch had a number.
            if let Some(promise) = journal.promises.back_mut().filter(|_| open) {
                promise.batch = journal.given;
            }
            let mut batch = core::mem::take(&mut journal.batch);
            batch.number = journal.given;
            out.push(Output::Store(Box::new(batch)));
        }
        let given = journal.given;
        for lane in &mut journal.lanes {
            if core::mem::take(&mut lane.more) {
                lane.owed.push_back((given, lane.worked));
            }
        }
        self.confirm(out);
        self.keep_promises(now, out);
    }

    /// Everything up to this batch is stored; `segment` is the one that is being written.
    pub(crate) fn on_stored(&mut self, now: Instant, upto: u64, segment: u64, out: &mut Outbox) {
        self.journal.stored = upto;
        self.journal.segment = segment;
        self.tell_untold(out);
        if let Some(peers) = &mut self.peers {
            peers.inward.stored(upto);
            peers.hints.stored(upto);
            self.send_held(now, upto, out);
        }
        self.confirm(out);
        self.keep_promises(now, out);
    }

    /// The store is full, or works again, or has failed. Without a store nothing durable goes on: those that wait for it
    /// would wait for ever.
    pub(crate) fn on_store_state(&mut self, now: Instant, state: StoreState, out: &mut Outbox) {
        self.journal.state = state;
        match state {
            StoreState::Full => return,
            StoreState::Open => return self.resume_unstored(now, out),
            StoreState::Failed => {}
        }
        let blocked: BTreeSet<ConnId> = self.journal.blocked.drain(..).map(|(_, conn)| conn).collect();
        for conn in self.all_conns() {
            let c = self.live(conn);
            let (key, is_open) = (c.session, c.phase == Phase::Open);
            let stored = self.sessions.get(key).is_some_and(|slot| slot.stored.is_some());
            let waits = self.live(conn).rare.as_ref().is_some_and(|rare| rare.unstored);
            if is_open && (stored || waits || blocked.contains(&conn)) {
                self.reject(now, conn, ReasonCode::ImplementationSpecificError, out);
            }
        }
    }

    /// There is space again: who had to wait for it is read again.
    fn resume_unstored(&mut self, now: Instant, out: &mut Outbox) {
        for conn in self.all_conns() {
            let rare = self.live(conn).rare.as_mut();
            if rare.is_some_and(|rare| core::mem::take(&mut rare.unstored)) {
                self.resume(now, conn, out);
            }
        }
    }

    /// Whether a zone's sessions should be stored and cannot be.
    pub(crate) fn has_lost_store(&self, zone: u16) -> bool {
        let durability = self.config.zones[usize::from(zone)].durability;
        self.journal.state == StoreState::Failed && durability != Durability::Memory
    }

    /// Another shard has stored what this one promised.
    pub(crate) fn on_stored_elsewhere(&mut self, now: Instant, from: u16, upto: u64, out: &mut Outbox) {
        let journal = &mut self.journal;
        let lane = &mut journal.lanes[usize::from(from)];
        let count = upto - core::mem::replace(&mut lane.confirmed, upto);
        // A planted bug may have been ahead.
        let count = (count as usize).min(lane.awaited.len());
        let mut kept: Vec<u64> = lane.awaited.drain(..count).collect();
        if planted!(LaneConfirmsAll, lane.awaited.front().is_some_and(|next| kept.contains(next))) {
            let all = lane.awaited.iter().take_while(|next| kept.contains(next)).count();
            kept.extend(lane.awaited.drain(..all));
        }
        for promise in kept {
            journal.keep_elsewhere(promise, 0);
        }
        self.keep_promises(now, out);
    }

    /// The same for a message for a group.
    pub(crate) fn on_group_stored(&mut self, now: Instant, promise: u64, out: &mut Outbox) {
        self.journal.keep_elsewhere(promise, 0);
        self.keep_promises(now, out);
    }

    /// Tells other shards what is stored here of what they promised.
    fn confirm(&mut self, out: &mut Outbox) {
        for at in 0..self.journal.lanes.len() {
            let stored = self.journal.stored;
            let lane = &mut self.journal.lanes[at];
            let mut upto = None;
            while let Some((_, count)) =
                lane.owed.pop_front_if(|(batch, _)| *batch <= stored || planted!(ConfirmedUnstored))
            {
                upto = Some(count);
            }
            if let Some(upto) = upto {
                self.send_place(at as u16, PlaceMessage::Stored { upto }, out);
            }
        }
        let stored = self.journal.stored;
        while let Some((_, shard, promise)) =
            self.journal.owed_groups.pop_front_if(|(batch, ..)| *batch <= stored || planted!(GroupConfirmedUnstored))
        {
            self.send_place(shard.0, PlaceMessage::GroupStored { promise }, out);
        }
    }

    /// Lets outputs go on whose promises are kept.
    fn keep_promises(&mut self, now: Instant, out: &mut Outbox) {
        let journal = &mut self.journal;
        let stored = journal.stored;
        // The promise of the running call is not complete.
        while journal.promises.len() > usize::from(journal.open)
            && journal.promises.pop_front_if(|promise| promise.batch <= stored && promise.elsewhere == 0).is_some()
        {
        }
        journal.kept = journal.newest - journal.promises.len() as u64;
        while let Some((_, conn)) = self.journal.blocked.pop_front_if(|(promise, _)| *promise <= self.journal.kept) {
            if let Some(Some(c)) = self.conns.get_mut(conn.slot as usize)
                && c.generation == conn.generation
                && !c.out.is_empty()
            {
                ready(now, c, conn.slot, out);
            }
        }
    }

    /// Has a connection's output wait for everything that was promised up to here.
    pub(crate) fn bar(&mut self, conn: ConnId) {
        let Shard { conns, journal, .. } = self;
        if let Some(Some(c)) = conns.get_mut(conn.slot as usize) {
            journal.bar(c, conn.slot);
        }
    }

    /// The same for what a session is told of itself. One that is not stored waits only for what this call promises, so that
    /// it goes on while the disk is full.
    pub(crate) fn bar_session(&mut self, conn: ConnId) {
        let Shard { conns, sessions, journal, .. } = self;
        let Some(Some(c)) = conns.get_mut(conn.slot as usize) else { return };
        if sessions.get(c.session).is_some_and(|slot| slot.stored.is_some()) {
            journal.bar(c, conn.slot);
        } else {
            journal.bar_now(c, conn.slot);
        }
    }

    /// What waits for the store is never told: the connection ends.
    pub(crate) fn drop_barred(&mut self, conn: ConnId) {
        let kept = self.journal.kept;
        if let Some(c) = self.conn_mut(conn) {
            c.out.drop_barred(kept);
        }
    }

    /// When the time is stored next, while a session is there whose deadlines depend on it.
    pub(crate) fn time_due(&self) -> Option<Instant> {
        (self.journal.on && !self.sessions.is_empty()).then(|| self.journal.time + TIME_MAX)
    }

    pub(crate) fn store_time(&mut self, now: Instant) {
        if self.time_due().is_some_and(|due| due <= now) {
            self.journal.time = now;
            self.journal.batch.push(&Record::Time { now }, Durability::Memory);
        }
    }
}
